"""A session that imports sevenn once and forks a child per job: fine-tuning of a checkpoint, evaluation of models.

Started by path in the interpreter that has sevenn; never imports activelearn. Sessions, their lines and what a fork is
good for: deepmd_session.py. Jobs: {"job": "train", ...} and {"job": "evaluate", ...}; what they do: finetuning.py.

Model, loss and optimizer are those of sevenn (its Trainer). The stress of sevenn is the virial by the volume (-1 times
ASE's), in the order xx, yy, zz, xy, yz, zx, in eV/Å3.
"""

import sys
from functools import partial
from typing import Any

import deepmd_session as sessions  # type: ignore[import-not-found]  # a neighbour, by path
import finetuning  # type: ignore[import-not-found]  # a neighbour, by path
import numpy as np


def configured(config, request):
    """Return the configuration of a training: network and loss are the checkpoint's, the rest is as requested."""
    import sevenn
    import sevenn._keys as KEY

    fall = (request["stop_lr"] / request["start_lr"]) ** (1.0 / request["n_steps"])
    loss = {key: value for key, value in (config.get(KEY.LOSS_PARAM) or {}).items() if key != "reduction"}
    config |= {
        "version": sevenn.__version__,  # the weights have the names of this one when they are written
        KEY.DEVICE: finetuning.device_of(),
        KEY.IS_DDP: False,
        KEY.USE_WEIGHT: False,
        KEY.CONTINUE: {},
        KEY.LOSS: config.get(KEY.LOSS, "huber"),
        KEY.LOSS_PARAM: loss,
        KEY.FORCE_WEIGHT: request["force_weight"],
        KEY.STRESS_WEIGHT: request["stress_weight"],
        KEY.IS_TRAIN_STRESS: True,
        KEY.OPTIMIZER: "adam",
        KEY.OPTIM_PARAM: {"lr": request["start_lr"]},
        KEY.SCHEDULER: "exponentiallr",
        KEY.SCHEDULER_PARAM: {"gamma": fall},
        KEY.RANDOM_SEED: request["random_seed"],
    }
    return config


class SevenNetwork:
    """A SevenNet, as finetuning.py expects it.

    Parameters
    ----------
    path
        A checkpoint of sevenn.
    request
        May have the ``modal`` of a foundation that knows several.
    """

    def __init__(self, path, request):
        import sevenn._keys as KEY
        from sevenn.checkpoint import SevenNetCheckpoint

        self.checkpoint = SevenNetCheckpoint(path)
        self.config = self.checkpoint.config
        if request.get("modal") is not None:
            self.config[KEY.DEFAULT_MODAL] = request["modal"]
        self.modal = self.config.get(KEY.DEFAULT_MODAL) if self.config.get("_modal_map") else None
        self.device = finetuning.device_of()
        self.model = self.checkpoint.build_model().to(self.device)
        self.model.set_is_batch_data(True)
        self.trainer: Any = None
        self.output: Any = None

    def read(self, path):
        """Take the weights of another model of the same network."""
        from sevenn.checkpoint import SevenNetCheckpoint

        self.model.load_state_dict(SevenNetCheckpoint(path).model_state_dict, strict=True)

    def graph(self, frame, *, replayed):  # noqa: ARG002 - it has one head
        """Return a frame as sevenn's graph, with the labels that it has (NaN for those that it lacks)."""
        import sevenn._keys as KEY
        from ase import Atoms
        from sevenn.atom_graph_data import AtomGraphData
        from sevenn.train.dataload import atoms_to_graph

        symbols, cell, positions, pbc, labels = frame
        atoms, stress = Atoms(symbols, positions=positions, cell=cell, pbc=pbc), finetuning.stress_of(frame)
        atoms.info["y_energy"] = labels.get("energy", np.nan)
        atoms.arrays["y_force"] = labels.get("forces", np.full((len(atoms), 3), np.nan))
        atoms.info["y_stress"] = np.full(6, np.nan) if stress is None else stress[finetuning.ROWS, finetuning.LINES]
        graph = atoms_to_graph(atoms, self.model.cutoff, transfer_info=False, allow_unlabeled=True)
        del graph[KEY.INFO]
        made = AtomGraphData.from_numpy_dict(graph)
        if self.modal is not None:
            made[KEY.DATA_MODALITY] = self.modal
        return made

    def _batch(self, graphs):
        from torch_geometric.data import Batch

        return Batch.from_data_list(graphs)

    def _arrays(self, output):
        import sevenn._keys as KEY

        names = (KEY.PRED_TOTAL_ENERGY, KEY.PRED_FORCE, KEY.PRED_STRESS)
        energies, forces, six = (output[name].detach().cpu().numpy().astype(np.float64) for name in names)
        stresses = np.empty((len(six), 3, 3))
        stresses[:, finetuning.ROWS, finetuning.LINES] = stresses[:, finetuning.LINES, finetuning.ROWS] = six
        return energies, forces, stresses

    def predict(self, graphs):
        """Return energies, forces and stresses of graphs."""
        return self._arrays(self.model(self._batch(graphs).to(self.device)))

    def shift(self, replayed):  # noqa: ARG002 - it has one head
        """Return the energies of the elements, and where each stands."""
        shift = self.model._modules["rescale_atomic_energy"].shift
        if shift.numel() == 1:  # the same of all elements
            return shift, {}
        of_modal = shift[self.model.modal_map[self.modal]] if shift.dim() == 2 else shift
        return of_modal, dict(self.model.type_map)

    def begin(self, request):
        """Make sevenn's trainer; return the steps that are done."""
        from sevenn.nn.scale import get_resolved_shift_scale
        from sevenn.train.trainer import Trainer

        self.config = configured(self.config, request)
        scaler = self.model._modules["rescale_atomic_energy"]
        shift, scale = get_resolved_shift_scale(scaler, self.config["_type_map"], self.config.get("_modal_map"))
        self.config |= {"shift": shift, "scale": scale}
        self.trainer = Trainer.from_config(self.model, self.config)
        if request["restart"] is None:
            return 0
        states = self.checkpoint.optimizer_state_dict, self.checkpoint.scheduler_state_dict
        self.trainer.load_state_dicts(None, *states)
        return self.checkpoint.epoch

    @property
    def rate(self):
        """The learning rate of the next step."""
        return self.trainer.get_lr()

    def step(self, graphs):
        """Make one gradient step; return what was predicted before it."""
        self.trainer.run_one_epoch([self._batch(graphs)], is_train=True, error_recorder=self)
        self.trainer.scheduler_step()
        return self._arrays(self.output)

    def update(self, output):
        """Take what sevenn's trainer has predicted: it calls us for its recorder of errors."""
        self.output = output

    def save(self, path, n_steps, *, resumable=False):
        """Write a checkpoint of sevenn. The same weights give the same bytes."""
        import torch

        states = (self.trainer.optimizer, self.trainer.scheduler) if resumable else ()
        optimizer, scheduler = [one.state_dict() for one in states] or ({}, {})
        content = {
            "model_state_dict": {name: value.detach().cpu() for name, value in self.model.state_dict().items()},
            "optimizer_state_dict": optimizer,
            "scheduler_state_dict": scheduler,
            "config": {**self.config, "device": "cpu"},
            "epoch": n_steps,
            "time": "",
            "hash": "",
        }
        torch.save(content, path)


def preload():
    """Import what the jobs need; nothing is computed yet, and no thread is started.

    TorchScript must not optimize: it does so after the first runs of a process, and then the last bits
    differ, so that a continued training would take other steps.
    """
    import sevenn.checkpoint
    import sevenn.train.dataload
    import sevenn.train.trainer  # noqa: F401
    import torch
    import torch_geometric.data  # noqa: F401

    torch.set_num_threads(1)
    torch._C._set_graph_executor_optimize(False)


JOBS = {"train": partial(finetuning.train, SevenNetwork), "evaluate": partial(finetuning.evaluate, SevenNetwork)}

if __name__ == "__main__":
    sessions.answer_requests(JOBS, preload, ("sevenn", sys.argv[1]))
