"""A session that imports mace once and forks a child per job: fine-tuning of a model, evaluation of models.

Started by path in the interpreter that has mace-torch; never imports activelearn. A model of MACE is a pickle of a
module, so to read one is to run it: that is done here, in a child, and nowhere else. Sessions, their lines and what a
fork is good for: deepmd_session.py. Jobs: {"job": "train", ...} and {"job": "evaluate", ...}; what they do:
finetuning.py.

Network, graphs and loss are those of mace; the optimizer is Adam as mace's program has it by default (amsgrad,
gradients clipped to a norm of 10), without weight decay. With a replay that has labels of its own the model has a
second head while it is trained, as in mace's multihead fine-tuning; what is written has one.
"""

import logging
import os
import sys
from functools import partial
from typing import Any

import deepmd_session as sessions  # type: ignore[import-not-found]  # a neighbour, by path
import finetuning  # type: ignore[import-not-found]  # a neighbour, by path
import numpy as np

#: Heads of a training with a replay of its own labels; a calculator of mace finds the first by itself.
OWN, REPLAY = "Default", "pt_head"
#: Largest norm of a gradient, as of mace_run_train.
CLIP = 10.0


def loaded(path, device):
    """Return what is in a file of torch: a program, which this runs."""
    import torch

    return torch.load(path, map_location=device, weights_only=False)


def with_one_head(model, head):
    """Return a model with the one head that is meant, which is all it has if none is named."""
    from mace.tools.scripts_utils import remove_pt_head

    heads = list(getattr(model, "heads", None) or [OWN])
    if len(heads) == 1:  # a member has one, whatever its foundation had
        return model
    if head not in heads:
        raise ValueError(f"train.head: {head} is not a head of the model, which has {', '.join(heads)}")
    return remove_pt_head(model, head)


def with_two_heads(model):
    """Return a model with a head for the data and one for the replay, both as its only one is."""
    from mace.tools.finetuning_utils import load_foundations_elements
    from mace.tools.scripts_utils import extract_config_mace_model
    from mace.tools.utils import AtomicNumberTable

    config = extract_config_mace_model(model)
    if "error" in config:
        raise ValueError(f"{config['error']}: it cannot be trained with two heads")
    for key in ("atomic_inter_scale", "atomic_inter_shift"):
        config[key] = [float(np.ravel(config[key])[0])] * 2
    energies = np.atleast_2d(config["atomic_energies"])[:1]
    config |= {"heads": [OWN, REPLAY], "atomic_energies": np.repeat(energies, 2, axis=0)}
    numbers = [int(z) for z in model.atomic_numbers]
    config["atomic_numbers"] = numbers
    made = type(model)(**config)
    dtype, most = next(model.parameters()).dtype, config["hidden_irreps"].lmax
    table = AtomicNumberTable(numbers)
    return load_foundations_elements(made, model, table, load_readout=True, max_L=most, default_dtype=dtype)


class MaceNetwork:
    """A MACE, as finetuning.py expects it.

    Parameters
    ----------
    path
        A model that mace has written, or a checkpoint of ours.
    request
        May have the ``head`` of a foundation that has several, and the ``precision`` that it is trained with.
    """

    def __init__(self, path, request):
        import torch
        from mace.tools.utils import AtomicNumberTable

        self.device, found = finetuning.device_of(), loaded(path, finetuning.device_of())
        self.state = found if isinstance(found, dict) else None  # of the optimizer
        model = found["model"] if self.state else found
        precision = request.get("precision")
        dtype = next(model.parameters()).dtype if precision is None else getattr(torch, precision)
        torch.set_default_dtype(dtype)
        model = model.to(dtype)
        if self.state is None:
            model = with_one_head(model, request.get("head"))
            if (request.get("replay") or {}).get("labels") == "own":
                model = with_two_heads(model)
        self.model = model.to(self.device)
        for weights in self.model.parameters():
            weights.requires_grad_(True)
        self.heads = list(getattr(model, "heads", None) or [OWN])
        self.table = AtomicNumberTable([int(z) for z in model.atomic_numbers])
        self.optimizer: Any = None
        self.loss: Any = None
        self.rates: Any = ()

    def read(self, path):
        """Take the weights of another model of the same network."""
        self.model.load_state_dict(loaded(path, self.device).state_dict(), strict=True)

    def graph(self, frame, *, replayed):
        """Return a frame as mace's graph, with the labels that it has (those that it lacks weigh nothing)."""
        from ase.data import atomic_numbers
        from mace.data import AtomicData, Configuration

        symbols, cell, positions, pbc, labels = frame
        stress = finetuning.stress_of(frame)
        properties = {"energy": labels.get("energy"), "forces": labels.get("forces")}
        properties["stress"] = None if stress is None else -stress
        config = Configuration(
            atomic_numbers=np.array([atomic_numbers[symbol] for symbol in symbols]),
            positions=positions,
            properties=properties,
            property_weights={name: float(value is not None) for name, value in properties.items()},
            cell=np.array(cell),
            pbc=tuple(map(bool, pbc)),
            head=self.heads[-1] if replayed else self.heads[0],
        )
        return AtomicData.from_config(config, z_table=self.table, cutoff=float(self.model.r_max), heads=self.heads)

    def _batch(self, graphs):
        from mace.tools.torch_geometric import Batch

        return Batch.from_data_list(graphs).to(self.device)

    def _output(self, batch, *, training):
        return self.model(batch.to_dict(), training=training, compute_force=True, compute_stress=True)

    def _arrays(self, output):
        found = (output[name].detach().cpu().numpy().astype(np.float64) for name in ("energy", "forces", "stress"))
        energies, forces, stresses = found
        return energies, forces, -stresses

    def predict(self, graphs):
        """Return energies, forces and stresses of graphs."""
        return self._arrays(self._output(self._batch(graphs), training=False))

    def shift(self, replayed):
        """Return the energies of the elements of a head, and where each stands."""
        energies = self.model.atomic_energies_fn.atomic_energies
        of_head = energies[-1 if replayed else 0] if energies.dim() == 2 else energies
        return of_head, {z: row for row, z in enumerate(self.table.zs)}

    def begin(self, request):
        """Make optimizer and loss; return the steps that are done."""
        import torch
        from mace.modules.loss import WeightedEnergyForcesStressLoss

        weights = {"forces_weight": request["force_weight"], "stress_weight": request["stress_weight"]}
        self.loss = WeightedEnergyForcesStressLoss(energy_weight=1.0, **weights).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=request["start_lr"], amsgrad=True)
        fall = request["stop_lr"] / request["start_lr"]
        self.rates = request["start_lr"] * fall ** (np.arange(request["n_steps"] + 1) / request["n_steps"])
        done = 0
        if self.state is not None:
            self.optimizer.load_state_dict(self.state["optimizer"])
            done = self.state["n_steps"]
        self._set_rate(done)
        return done

    def _set_rate(self, n_steps):
        for group in self.optimizer.param_groups:
            group["lr"] = float(self.rates[n_steps])
        self.n_steps = n_steps

    @property
    def rate(self):
        """The learning rate of the next step."""
        return self.optimizer.param_groups[0]["lr"]

    def step(self, graphs):
        """Make one gradient step; return what was predicted before it."""
        import torch

        batch = self._batch(graphs)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        output = self._output(batch, training=True)
        self.loss(pred=output, ref=batch).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=CLIP)
        self.optimizer.step()
        self._set_rate(self.n_steps + 1)
        return self._arrays(output)

    def save(self, path, n_steps, *, resumable=False):
        """Write the model as mace does, with one head; or a checkpoint."""
        import torch

        if resumable:
            torch.save({"model": self.model, "optimizer": self.optimizer.state_dict(), "n_steps": n_steps}, path)
        else:
            torch.save(with_one_head(self.model, self.heads[0]).to("cpu"), path)


def preload():
    """Import what the jobs need; nothing is computed yet, and no thread is begun; TorchScript: sevennet_session.py."""
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # e3nn 0.4.4 has a file of constants that torch refuses else
    import mace.data
    import mace.modules
    import mace.tools.finetuning_utils
    import mace.tools.scripts_utils  # noqa: F401
    import torch

    logging.getLogger().setLevel(logging.WARNING)
    torch.set_num_threads(1)
    torch._C._set_graph_executor_optimize(False)


JOBS = {"train": partial(finetuning.train, MaceNetwork), "evaluate": partial(finetuning.evaluate, MaceNetwork)}

if __name__ == "__main__":
    sessions.answer_requests(JOBS, preload, ("mace-torch", sys.argv[1]))
