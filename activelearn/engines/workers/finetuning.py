"""Fine-tuning of a foundation, whatever its network is: data, order of the batches, replay, learning curve, jobs.

Imported by its neighbours, which open a network of theirs (sevennet_session.py, mace_session.py); never imports
activelearn. Units: eV, Å, eV/Å; a stress is the virial by the volume (-1 times ASE's), eV/Å3.

A network is opened by ``open_network(path, request)`` and has

* ``model``: the module of torch;
* ``graph(frame, replayed)``: a frame as its graph, with the labels that it has, to be evaluated and learnt;
* ``predict(graphs)``: energies (n_graphs,), forces (n_atoms, 3) and stresses (n_graphs, 3, 3) of them, as arrays;
* ``read(path)``: takes the weights of another model of the same network;
* ``shift(replayed)``: energies of the elements, as a part of a tensor, and the row of each atomic number in it; no
  rows: one energy is that of all elements;
* ``begin(request)``: makes optimizer and loss, or takes them from the checkpoint; returns the steps that are done;
* ``step(graphs)``: one gradient step; returns what was predicted before it, as ``predict`` does; ``rate``: of the next;
* ``save(path, n_steps)``: writes the model, or with ``resumable=True`` a checkpoint to continue from.

The order of the batches depends only on the random seed and the epoch. So a training that continues from a
checkpoint takes the same steps as one that was never disturbed.
"""

import json
import os
import sys
import time

import numpy as np

#: Checkpoints that are kept of a training: a kill may come while the last is written.
KEPT = 2
CURVE = "lcurve.out"
COLUMNS = ("rmse_f_trn", "rmse_e_trn", "rmse_s_trn", "lr")
#: The six components of a stress.
ROWS, LINES = [0, 1, 2, 0, 1, 2], [0, 1, 2, 1, 2, 0]
KBAR_PER_EV_A3 = 1602.176634
#: Seeds the order of the replay beside that of the data.
OF_REPLAY = 1


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


def volume_of(frame):
    """Return the volume of a frame, Å3; NaN where it is not periodic in all directions."""
    _, cell, _, pbc, _ = frame
    return abs(np.linalg.det(cell)) if pbc.all() else np.nan


def stress_of(frame):
    """Return the stress that a frame is labelled with (3, 3), or None."""
    labels, volume = frame[4], volume_of(frame)
    stress = labels["virial"] / volume if "virial" in labels else np.array(np.nan)
    return stress if np.isfinite(stress).all() else None


def device_of():
    """Return what a job computes with: the GPU of its slot if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def batches_of(frames, most_atoms):
    """Yield the numbers of frames in a row that are evaluated together."""
    batch: list[int] = []
    n_atoms = 0
    for k, (symbols, *_) in enumerate(frames):
        if batch and n_atoms + len(symbols) > most_atoms:
            yield batch
            batch, n_atoms = [], 0
        batch.append(k)
        n_atoms += len(symbols)
    if batch:
        yield batch


def predicted(network, frames, graphs, most_atoms):
    """Return energies (eV), forces (eV/Å) and virials (eV) of frames, those of all frames end to end."""
    network.model.eval()
    found = [network.predict([graphs[k] for k in numbers]) for numbers in batches_of(frames, most_atoms)]
    energies, forces, stresses = (np.concatenate(values) for values in zip(*found, strict=True))
    volumes = np.array([volume_of(frame) for frame in frames])
    return {"energy": energies, "forces": forces, "virial": stresses * volumes[:, None, None]}


def evaluate(open_network, request):
    """Write energies (eV), forces (eV/Å) and virials (eV) of models on stored frames to npz files.

    Parameters
    ----------
    open_network
        See the head of this file.
    request
        ``models`` (all of one network), ``input``, ``outputs``, ``most_atoms`` (of a batch).
    """
    frames, network, graphs = list(frames_of(request["input"])), None, []
    for path, output in zip(request["models"], request["outputs"], strict=True):
        if network is None:  # built once: that takes as long as tens of frames
            network = open_network(path, request)
            graphs = [network.graph(frame, replayed=False) for frame in frames]
        else:
            network.read(path)
        np.savez(output, **predicted(network, frames, graphs, request["most_atoms"]))


def disturb(model, share, random_seed):
    """Multiply each weight that is trained by 1 + share times a normal random number."""
    import torch

    noise = torch.Generator().manual_seed(random_seed)
    with torch.no_grad():
        for weights in model.parameters():
            if share and weights.requires_grad:
                factors = 1.0 + share * torch.randn(weights.shape, generator=noise, dtype=torch.float32)
                weights.mul_(factors.to(weights))


def refit_shift(network, frames, graphs, most_atoms, *, replayed=False):
    """Fit the energies of the elements (eV an atom) to the labels, by least squares of the smallest change.

    A foundation has them from its own reference: labels of another one (other pseudopotentials, another functional)
    would be off by eV an atom, and forces alone would not tell.

    Returns
    -------
    dict
        Change of the energy of each element, eV.
    """
    import torch
    from ase.data import atomic_numbers

    energies = predicted(network, frames, graphs, most_atoms)["energy"]
    labels, atoms = np.array([frame[4]["energy"] for frame in frames]), [frame[0] for frame in frames]
    shift, row_of = network.shift(replayed)
    elements = sorted({symbol for symbols in atoms for symbol in symbols}, key=atomic_numbers.__getitem__)
    counts = np.array([[symbols.count(element) for element in elements] for symbols in atoms], dtype=float)
    n_atoms = counts.sum(axis=1)
    shares = counts / n_atoms[:, None] if row_of else np.ones((len(atoms), 1))
    change, *_ = np.linalg.lstsq(shares, (labels - energies) / n_atoms, rcond=1e-6)
    rows = [row_of[atomic_numbers[element]] for element in elements] if row_of else [0]
    with torch.no_grad():
        shift[rows] += torch.tensor(change, dtype=shift.dtype, device=shift.device)
    changes = np.broadcast_to(change, len(elements)).tolist()
    return dict(zip(elements, map(float, changes), strict=True))


def replay_of(open_network, request, frames):
    """Return the frames of the replay with labels: their own, or those of the foundation that the training began as.

    The latter have its energies of the elements fitted to the data, as the members have theirs.

    Parameters
    ----------
    open_network
        See the head of this file.
    request
        Its ``replay`` is None, or has ``input``, ``labels`` (own or foundation), ``foundation`` and ``n_frames`` (of
        each step).
    frames
        The data.
    """
    replay, most_atoms = request["replay"], request["most_atoms"]
    if replay is None:
        return []
    given = list(frames_of(replay["input"]))
    if replay["labels"] == "own":
        return given
    foundation = open_network(replay["foundation"], {**request, "replay": None})
    if request["refit_shift"]:
        graphs = [foundation.graph(frame, replayed=False) for frame in frames]
        refit_shift(foundation, frames, graphs, most_atoms)
    graphs = [foundation.graph((*frame[:4], {}), replayed=False) for frame in given]
    found = predicted(foundation, given, graphs, most_atoms)
    ends = np.cumsum([len(symbols) for symbols, *_ in given])
    forces = np.split(found["forces"], ends[:-1])
    labels = [
        dict(zip(found, values, strict=True)) for values in zip(found["energy"], forces, found["virial"], strict=True)
    ]
    return [(*frame[:4], label) for frame, label in zip(given, labels, strict=True)]


class Order:
    """Which graphs each step takes: all of them once in an epoch, in an order of its own.

    Parameters
    ----------
    n_graphs, batch_size
        How many there are, and how many a step takes (fewer at the end of an epoch).
    random_seeds
        Of the order.
    """

    def __init__(self, n_graphs, batch_size, *random_seeds):
        self.n_graphs, self.size, self.seeds = n_graphs, min(batch_size, n_graphs), random_seeds
        self.n_batches = -(-n_graphs // self.size) if n_graphs else 1

    def of_step(self, step):
        """Return the numbers of the graphs of a step, from 0."""
        epoch, at = divmod(step, self.n_batches)
        order = np.random.default_rng([*self.seeds, epoch]).permutation(self.n_graphs)
        return order[at * self.size : (at + 1) * self.size].tolist()


class StepErrors:
    """Root mean square errors of what was predicted since the last row of the learning curve, by component."""

    def __init__(self):
        self.squares: dict[str, list[float]] = {"force": [], "energy": [], "stress": []}

    def add(self, frames, energies, forces, stresses):
        """Count the errors of some frames, whose forces stand end to end; those of a replay may stand after them."""
        begin = 0
        for k, frame in enumerate(frames):
            n_atoms, labels, stress = len(frame[0]), frame[4], stress_of(frame)
            self.squares["energy"].append(((energies[k] - labels["energy"]) / n_atoms) ** 2)
            self.squares["force"] += [((forces[begin : begin + n_atoms] - labels["forces"]) ** 2).mean()] * n_atoms
            if stress is not None:
                off = (stresses[k] - stress)[ROWS, LINES] * KBAR_PER_EV_A3
                self.squares["stress"].append((off**2).mean())
            begin += n_atoms

    def add_row(self, step, rate):
        """Write the errors (eV/Å; eV an atom; kbar) and the learning rate to the learning curve, and reset them."""
        found = [float(np.sqrt(np.mean(values))) if values else np.nan for values in self.squares.values()]
        self.squares = {name: [] for name in self.squares}
        head = "" if os.path.exists(CURVE) else f"# step {' '.join(COLUMNS)}\n"
        with open(CURVE, "a") as stream:
            stream.write(f"{head}{step} {' '.join(f'{value:.6e}' for value in found)} {rate:.3e}\n")


def train(open_network, request):
    """Fine-tune a model; it is written to ``output``, its curve to ``lcurve.out``, what was done to ``notes.json``.

    Parameters
    ----------
    open_network
        See the head of this file.
    request
        ``model`` (to begin with), ``restart`` (checkpoint here to continue from, or None), ``input``, ``output``,
        ``n_steps``, ``batch_size``, ``random_seed``, ``start_lr``, ``stop_lr``, ``force_weight``, ``stress_weight``,
        ``refit_shift``, ``weight_noise``, ``replay``, ``row_every`` (steps), ``save_every`` (steps, a multiple of it;
        0: no checkpoints), ``most_atoms`` (of a batch that is evaluated), and the settings of its network.
    """
    begun, frames, errors = time.process_time(), list(frames_of(request["input"])), StepErrors()
    network = open_network(request["restart"] or request["model"], request)
    graphs = [network.graph(frame, replayed=False) for frame in frames]
    replay = replay_of(open_network, request, frames)
    replayed = [network.graph(frame, replayed=True) for frame in replay]
    if request["restart"] is None:
        notes = prepared(network, frames, graphs, replay, replayed, request)
        with open("notes.json", "w") as stream:
            json.dump(notes, stream)
    begin, n_steps, seed = network.begin(request), request["n_steps"], request["random_seed"]
    order = Order(len(graphs), request["batch_size"], seed)
    again = Order(len(replayed), request["replay"]["n_frames"] if replay else 1, seed, OF_REPLAY)
    for step in range(begin, n_steps):
        rate, done, numbers = network.rate, step + 1, order.of_step(step)
        found = network.step([graphs[k] for k in numbers] + [replayed[k] for k in again.of_step(step)])
        errors.add([frames[k] for k in numbers], *found)
        if done % request["row_every"] == 0 or done == n_steps:
            errors.add_row(done, rate)
        if request["save_every"] and done % request["save_every"] == 0:
            network.save(f"checkpoint-{done}.pth", done, resumable=True)
            drop_old(done, request["save_every"])
    network.save(request["output"], n_steps)
    print(f"{n_steps - begin} steps, {time.process_time() - begun:.1f} CPU-s", file=sys.stderr)


def prepared(network, frames, graphs, replay, replayed, request):
    """Set a member apart and fit its energies to the labels; return what was done, for its record."""
    disturb(network.model, request["weight_noise"], request["random_seed"])
    notes = {}
    if request["refit_shift"]:
        notes["shift_eV"] = refit_shift(network, frames, graphs, request["most_atoms"])
    if replay and request["replay"]["labels"] == "own":
        refit_shift(network, replay, replayed, request["most_atoms"], replayed=True)
    if replay:
        notes["replay_frames"] = len(replay)
    return notes


def drop_old(step, every):
    """Remove the checkpoints that nobody needs any more."""
    path = f"checkpoint-{step - KEPT * every}.pth"
    if os.path.exists(path):
        os.unlink(path)
