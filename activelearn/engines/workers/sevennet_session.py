"""A session that imports sevenn once and forks a child per job: fine-tuning of a checkpoint, evaluation of models.

Started by path in the interpreter that has sevenn; never imports activelearn. For sessions, their lines and the use of
forks, see deepmd_session.py. Jobs: {"job": "train", ...} and {"job": "evaluate", ...}, described below.

Model, loss, optimizer and errors are those of sevenn (its Trainer); ours is the order of the batches, which depends on
the random seed and the epoch alone. A training continued from a checkpoint therefore takes the same steps as
an undisturbed one. Units: eV, Å, eV/Å; the stress of sevenn is the virial by the volume (-1 times ASE's), in
the order xx, yy, zz, xy, yz, zx, in eV/Å3.
"""

import json
import os
import sys
import time

import deepmd_session as sessions  # type: ignore[import-not-found]  # a neighbour, by path
import numpy as np

#: Number of checkpoints kept of a training, since a kill may come while the last is written.
KEPT = 2
CURVE = "lcurve.out"
#: sevenn's errors (by component, as our held-out errors are), and our columns.
ERRORS = (("Energy", "RMSE"), ("Force", "ComponentRMSE"), ("Stress", "ComponentRMSE"))
COLUMNS = ("rmse_f_trn", "rmse_e_trn", "rmse_s_trn", "lr")
#: Components of a virial in sevenn's order.
ROWS, LINES = [0, 1, 2, 0, 1, 2], [0, 1, 2, 1, 2, 0]


def frames_of(path):
    """Yield the frames of an archive of :func:`activelearn.frames.pack`, one by one.

    Each is (symbols, cell, positions, pbc, labels): labels are energy, forces and virial, those that it has.
    """
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    begin = dict.fromkeys(arrays, 0)

    def take(name, n):
        begin[name] += n
        return arrays[name][begin[name] - n : begin[name]]

    for i, (n, m) in enumerate(zip(arrays["n_frames"], arrays["n_atoms"], strict=True)):
        symbols = [str(symbol) for symbol in take("symbols", m)]
        cells, positions, labels = take("cell", n), take("positions", n * m).reshape(n, m, 3), {}
        for name, shape in (("energy", ()), ("forces", (m, 3)), ("virial", (3, 3))):
            if arrays[f"has_{name}"][i]:
                labels[name] = take(name, n * m if name == "forces" else n).reshape(n, *shape)
        for k in range(n):
            yield symbols, cells[k], positions[k], arrays["pbc"][i], {name: rows[k] for name, rows in labels.items()}


def graph_of(frame, cutoff, modal):
    """Return a frame as sevenn's graph, with its labels (NaN for missing ones)."""
    import sevenn._keys as KEY
    from ase import Atoms
    from sevenn.atom_graph_data import AtomGraphData
    from sevenn.train.dataload import atoms_to_graph

    symbols, cell, positions, pbc, labels = frame
    atoms = Atoms(symbols, positions=positions, cell=cell, pbc=pbc)
    atoms.info["y_energy"] = labels.get("energy", np.nan)
    atoms.arrays["y_force"] = labels.get("forces", np.full((len(atoms), 3), np.nan))
    atoms.info["y_stress"] = np.full(6, np.nan)
    if "virial" in labels and pbc.all():
        atoms.info["y_stress"] = labels["virial"][ROWS, LINES] / atoms.cell.volume
    graph = atoms_to_graph(atoms, cutoff, transfer_info=False, allow_unlabeled=True)
    del graph[KEY.INFO]
    made = AtomGraphData.from_numpy_dict(graph)
    if modal is not None:
        made[KEY.DATA_MODALITY] = modal
    return made


def batches_of(graphs, most_atoms):
    """Yield the numbers of consecutive graphs that are evaluated together."""
    batch: list[int] = []
    n_atoms = 0
    for k, graph in enumerate(graphs):
        if batch and n_atoms + int(graph.num_atoms) > most_atoms:
            yield batch
            batch, n_atoms = [], 0
        batch.append(k)
        n_atoms += int(graph.num_atoms)
    if batch:
        yield batch


def predicted(model, graphs, device, most_atoms):
    """Yield (energies, forces, stresses) of each batch, as arrays."""
    import sevenn._keys as KEY
    from torch_geometric.data import Batch

    model.eval()
    for numbers in batches_of(graphs, most_atoms):
        output = model(Batch.from_data_list([graphs[k] for k in numbers]).to(device))
        names = (KEY.PRED_TOTAL_ENERGY, KEY.PRED_FORCE, KEY.PRED_STRESS)
        yield tuple(output[name].detach().cpu().numpy().astype(np.float64) for name in names)


def device_of():
    """Return the device of this job: the GPU of its slot if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def modal_of(config):
    """Return the modal of a model with several modals, as recorded in the model."""
    return config.get("default_modal") if config.get("_modal_map") else None


def evaluate(request):
    """Write energies (eV), forces (eV/Å) and virials (eV) of models on stored frames to npz files.

    Parameters
    ----------
    request
        ``models`` (paths of checkpoints, all of one network), ``input``, ``outputs``, ``most_atoms`` (of a batch).
    """
    from sevenn.checkpoint import SevenNetCheckpoint

    device, graphs, model = device_of(), [], None
    for path, output in zip(request["models"], request["outputs"], strict=True):
        checkpoint = SevenNetCheckpoint(path)
        if model is None:  # built once, since this takes as long as tens of frames
            model = checkpoint.build_model().to(device)
            model.set_is_batch_data(True)
            modal = modal_of(checkpoint.config)
            frames = list(frames_of(request["input"]))
            graphs = [graph_of(frame, model.cutoff, modal) for frame in frames]
        else:
            model.load_state_dict(checkpoint.model_state_dict, strict=True)
        found = [
            np.concatenate(values)
            for values in zip(*predicted(model, graphs, device, request["most_atoms"]), strict=True)
        ]
        volumes = np.array([abs(np.linalg.det(cell)) if pbc.all() else np.nan for _, cell, _, pbc, _ in frames])
        virials = np.full((len(frames), 3, 3), np.nan)
        virials[:, ROWS, LINES] = virials[:, LINES, ROWS] = found[2] * volumes[:, None]
        np.savez(output, energy=found[0], forces=found[1], virial=virials)


def configured(config, request):
    """Return the configuration of a training: network and loss are the checkpoint's, the rest is as requested."""
    import sevenn
    import sevenn._keys as KEY

    fall = (request["stop_lr"] / request["start_lr"]) ** (1.0 / request["n_steps"])
    loss = {key: value for key, value in (config.get(KEY.LOSS_PARAM) or {}).items() if key != "reduction"}
    config |= {
        "version": sevenn.__version__,  # written weights have the names of this version
        KEY.DEVICE: device_of(),
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
        KEY.ERROR_RECORD: [list(pair) for pair in ERRORS],
    }
    if request["modal"] is not None:
        config[KEY.DEFAULT_MODAL] = request["modal"]
    return config


def disturb(model, share, random_seed):
    """Multiply each trained weight by 1 + share times a normal random number."""
    import torch

    noise = torch.Generator().manual_seed(random_seed)
    with torch.no_grad():
        for weights in model.parameters():
            if share and weights.requires_grad:
                weights.mul_(1.0 + share * torch.randn(weights.shape, generator=noise).to(weights.device))


def refit_shift(model, graphs, device, request):
    """Fit the energies of the elements (eV per atom) to the labels, by minimum-norm least squares.

    sevenn takes them from the checkpoint for any data: labels of another reference (other pseudopotentials,
    another functional) would be off by eV per atom, which forces do not reveal.

    Returns
    -------
    dict
        Change of the energy of each element, eV.
    """
    import sevenn._keys as KEY
    import torch
    from ase.data import chemical_symbols

    energies = np.concatenate([energy for energy, *_ in predicted(model, graphs, device, request["most_atoms"])])
    labels = np.array([float(graph[KEY.ENERGY]) for graph in graphs])
    atoms = [graph[KEY.ATOMIC_NUMBERS].numpy() for graph in graphs]
    numbers = sorted({int(z) for some in atoms for z in some})
    shift = model._modules["rescale_atomic_energy"].shift
    is_one = shift.numel() == 1  # the same for all elements
    counts = np.array([[(some == z).sum() for z in numbers] for some in atoms], dtype=float)
    n_atoms = counts.sum(axis=1)
    shares = np.ones((len(atoms), 1)) if is_one else counts / n_atoms[:, None]
    change, *_ = np.linalg.lstsq(shares, (labels - energies) / n_atoms, rcond=1e-6)
    rows = [0] if is_one else [model.type_map[z] for z in numbers]
    with torch.no_grad():
        of_modal = shift[model.modal_map[request["modal"]]] if shift.dim() == 2 else shift
        of_modal[rows] += torch.tensor(change, dtype=shift.dtype, device=shift.device)
    changes = np.broadcast_to(change, len(numbers)).tolist()
    return {chemical_symbols[z]: float(change) for z, change in zip(numbers, changes, strict=True)}


def shift_and_scale(model, config):
    """Return the energies and scales of the elements in the format of a sevenn configuration."""
    from sevenn.nn.scale import get_resolved_shift_scale

    scaler = model._modules["rescale_atomic_energy"]
    shift, scale = get_resolved_shift_scale(scaler, config["_type_map"], config.get("_modal_map"))
    return {"shift": shift, "scale": scale}


def save(path, model, config, epoch, trainer=None):
    """Write a checkpoint of sevenn; with its trainer, training can continue. The same weights give the same bytes."""
    import torch

    content = {
        "model_state_dict": {name: value.detach().cpu() for name, value in model.state_dict().items()},
        "optimizer_state_dict": trainer.optimizer.state_dict() if trainer else {},
        "scheduler_state_dict": trainer.scheduler.state_dict() if trainer else {},
        "config": {**config, "device": "cpu"},
        "epoch": epoch,
        "time": "",
        "hash": "",
    }
    torch.save(content, path)


class Order:
    """The graphs of each step: all of them once per epoch, in an order specific to the epoch.

    Parameters
    ----------
    n_graphs, batch_size
        Number of graphs, and number per step (fewer at the end of an epoch).
    random_seed
        Seed of the order.
    """

    def __init__(self, n_graphs, batch_size, random_seed):
        self.n_graphs, self.size, self.seed = n_graphs, min(batch_size, n_graphs), random_seed
        self.n_batches = -(-n_graphs // self.size)

    def of_step(self, step):
        """Return the numbers of the graphs of a step, from 0."""
        epoch, at = divmod(step, self.n_batches)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.n_graphs)
        return order[at * self.size : (at + 1) * self.size]


def train(request):
    """Fine-tune a checkpoint; the model is ``output``, the learning curve ``lcurve.out``, details in ``notes.json``.

    Parameters
    ----------
    request
        ``model`` (checkpoint to start from), ``restart`` (checkpoint here to continue from, or None), ``input``,
        ``output``, ``modal``, ``n_steps``, ``batch_size``, ``random_seed``, ``start_lr``, ``stop_lr``,
        ``force_weight``, ``stress_weight``, ``refit_shift``, ``weight_noise``, ``row_every`` (steps),
        ``save_every`` (steps, a multiple of it; 0: no checkpoints), ``most_atoms`` (of a batch that is evaluated).
    """
    from sevenn.checkpoint import SevenNetCheckpoint
    from sevenn.error_recorder import ErrorRecorder
    from sevenn.train.trainer import Trainer
    from torch_geometric.data import Batch

    restart = request["restart"]
    checkpoint = SevenNetCheckpoint(restart or request["model"])
    config, model = configured(checkpoint.config, request), checkpoint.build_model()
    device, modal = config["device"], modal_of(config)
    graphs = [graph_of(frame, model.cutoff, modal) for frame in frames_of(request["input"])]
    model.to(device)
    model.set_is_batch_data(True)
    begin, begun = 0, time.process_time()
    if restart is None:
        disturb(model, request["weight_noise"], request["random_seed"])
        notes = {"shift_eV": refit_shift(model, graphs, device, request)} if request["refit_shift"] else {}
        with open("notes.json", "w") as stream:
            json.dump(notes, stream)
    config |= shift_and_scale(model, config)
    trainer = Trainer.from_config(model, config)
    if restart is not None:
        trainer.load_state_dicts(None, checkpoint.optimizer_state_dict, checkpoint.scheduler_state_dict)
        begin = checkpoint.epoch
    recorder = ErrorRecorder.from_config(config, trainer.loss_functions)
    order = Order(len(graphs), request["batch_size"], request["random_seed"])
    for step in range(begin, request["n_steps"]):
        rate, done = trainer.get_lr(), step + 1
        batch = Batch.from_data_list([graphs[k] for k in order.of_step(step)])
        trainer.run_one_epoch([batch], is_train=True, error_recorder=recorder)
        trainer.scheduler_step()
        if done % request["row_every"] == 0 or done == request["n_steps"]:
            add_row(done, recorder, rate)
        if request["save_every"] and done % request["save_every"] == 0:
            save(f"checkpoint-{done}.pth", model, config, done, trainer)
            drop_old(done, request["save_every"])
    save(request["output"], model, config, request["n_steps"])
    print(f"{request['n_steps'] - begin} steps, {time.process_time() - begun:.1f} CPU-s", file=sys.stderr)


def drop_old(step, every):
    """Remove checkpoints that are no longer needed."""
    path = f"checkpoint-{step - KEPT * every}.pth"
    if os.path.exists(path):
        os.unlink(path)


def add_row(step, recorder, rate):
    """Write the errors since the last row (eV/Å; eV per atom; kbar), and the learning rate, to the learning curve."""
    found = recorder.get_metric_dict(with_unit=False)
    energy, force, stress = (found["_".join(pair)] for pair in ERRORS)
    recorder.epoch_forward()
    head = "" if os.path.exists(CURVE) else f"# step {' '.join(COLUMNS)}\n"
    with open(CURVE, "a") as stream:
        stream.write(f"{head}{step} {force:.6e} {energy:.6e} {stress:.6e} {rate:.3e}\n")


JOBS = {"train": train, "evaluate": evaluate}


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


if __name__ == "__main__":
    sessions.answer_requests(JOBS, preload, ("sevenn", sys.argv[1]))
