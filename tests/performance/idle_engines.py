"""Engines that do nothing: answers of the right size at once, deterministic, for replays of a whole campaign.

Only what calls an outside program is replaced (:func:`install`). Frames are the start shaken by some tenths of an Å, so
that every guard looks at real neighbourhoods; deviations are drawn so that a pass never runs out of candidates.
"""

import hashlib
import json
import time
import uuid
import zlib
from pathlib import Path

import numpy as np

from activelearn.engines import deepmd, lammps, reference, walks
from activelearn.frames import FrameLabel, Frames, make_origin

#: Share of frames that are candidates or worse, and of walks that break.
CANDIDATES, BROKEN = 0.3, 0.05
F_LO, F_HI = 0.15, 0.35
#: CPU seconds spent in here, which no real campaign would spend: [total].
spent = [0.0]


def timed(function):
    """Count the CPU time of this thread in a function towards :data:`spent`."""

    def wrapper(*arguments, **more):
        start = time.thread_time()
        try:
            return function(*arguments, **more)
        finally:
            spent[0] += time.thread_time() - start

    return wrapper


def rng_of(*what):
    """Return random numbers that are a function of what is asked."""
    return np.random.default_rng(zlib.crc32(repr(what).encode()))


# --- the reference ----------------------------------------------------------------------------------------------------


def fingerprint(what, slot):
    """Return an identity like that of VASP."""
    identity = {
        "calculator": what.name,
        "version": "0",
        "weights_sha256": None,
        "arguments": {},
        "precision": "float64",
    }
    identity |= {"functional": what.functional, "includes_dispersion": True, "threads": 1}
    identity["sha256"] = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return identity


def _labels(frames):
    rng = rng_of(frames.positions[0, 0].tolist())
    n, m = len(frames), frames.n_atoms
    forces = rng.normal(0.0, 0.5, (n, m, 3))
    forces -= forces.mean(axis=1, keepdims=True)
    return -4.0 * m + rng.normal(0.0, 0.1, n), forces, rng.normal(0.0, 1.0, (n, 3, 3))


def label(what, frame, slot, *, keep=None, witnesses=tuple):
    """Return random labels of one frame."""
    started = time.time()
    energy, forces, virial = _labels(frame)
    return FrameLabel(float(energy[0]), forces[0], virial[0], started=started, finished=time.time())


def molecular_dynamics(what, start, md, *, temperature_K, random_seed, slot):
    """Return as many labelled frames as a short MD would."""
    started = time.time()
    n = md.n_steps // md.every + 1
    frames = _shaken(start, n, 0.02, random_seed)
    origin = make_origin(n, step=np.arange(n) * md.every, temperature_K=temperature_K)
    frames = Frames(frames.symbols, frames.cell, frames.positions, frames.pbc, origin=origin)
    return frames.with_labels(*_labels(frames)), "finished", started, time.time()


def relax(what, start, *, fmax, max_steps, relax_cell, slot):
    """Return the start as it is, labelled."""
    started = time.time()
    return start.with_labels(*_labels(start)), "relaxed", started, time.time()


def _shaken(start, n, amplitude_A, *what):
    shake = rng_of(*what).normal(0.0, amplitude_A, (n, start.n_atoms, 3))
    shake[0] = 0.0
    return Frames(start.symbols, np.repeat(start.cell, n, axis=0), start.positions + shake, start.pbc)


# --- LAMMPS -----------------------------------------------------------------------------------------------------------


def timed_walk(folder, what, symbols, slot):
    """Return a walk about the ``conf.lmp`` that stands in the folder."""
    started = time.time()
    text, every, n_steps = what.text, what.every, what.n_steps
    n = n_steps // every + 1
    cell, positions = _read_data(folder / "conf.lmp", len(symbols))
    start = Frames(tuple(symbols), cell[None], positions[None])
    rng = rng_of(text)
    frames = _shaken(start, n, 0.05, text)
    deviation = np.where(rng.random(n) < CANDIDATES, rng.uniform(F_LO, 1.02 * F_HI, n), rng.uniform(0.03, F_LO, n))
    is_broken = rng.random() < BROKEN
    reached = int(rng.integers(n // 2, n)) if is_broken else n
    walk = lammps.WalkOutput(
        step=np.arange(n)[:reached] * every,
        max_devi_f=deviation[:reached],
        temperature_K=np.full(reached, 300.0),
        potential_energy=np.full(reached, -4.0 * len(symbols)),
        pressure_bar=np.zeros(reached),
        cell=frames.cell[:reached],
        positions=frames.positions[:reached],
        forces=rng.normal(0.0, 0.5, (reached, len(symbols), 3)),
        ended="lost atoms" if is_broken else "finished",
        log_tail=("ERROR: Lost atoms: original 128 current 127",) if is_broken else (),
    )
    return walk, started, time.time()


def run_walks(together, pair, n_types, slot):
    """Return walks as :func:`timed_walk` does, one after the other."""
    return [
        timed_walk(one.folder, lammps.walk_input(one.stage, one.drive, pair), ("H",) * one.n_atoms, slot)
        for one in together
    ]


def _read_data(path: Path, n_atoms):
    head, atoms = path.read_text().split("Atoms  # atomic")
    lines = head.splitlines()
    lengths = [float(next(line for line in lines if f"{axis}lo" in line).split()[1]) for axis in "xyz"]
    tilts = next(line for line in lines if "xy xz yz" in line).split()
    (xx, yy, zz), (xy, xz, yz) = lengths, (float(word) for word in tilts[:3])
    rows = np.array(atoms.split(), dtype=np.float64).reshape(n_atoms, -1)
    return np.array([[xx, 0.0, 0.0], [xy, yy, 0.0], [xz, yz, zz]]), rows[:, 2:5]


# --- DeePMD -----------------------------------------------------------------------------------------------------------


def train_member(folder, setting, slot, *, largest_loss, weights):
    """Leave a model of some bytes and a learning curve of 50 rows; the training data must be there."""
    for system in setting["training"]["training_data"]["systems"]:
        assert (Path(system) / "type.raw").is_file()
    columns = ("step", "rmse_trn", "rmse_e_trn", "rmse_f_trn", "rmse_v_trn", "lr")
    np.savetxt(folder / "lcurve.out", np.random.default_rng(0).random((50, 6)), header=" ".join(columns))
    (folder / "frozen.pb").write_bytes(uuid.uuid4().bytes * 64)
    return folder / "frozen.pb"


def evaluate(folder, model, parts, slot):
    """Return predictions some meV off."""
    rng = rng_of(len(parts))
    return [
        part.with_labels(part.energy + 0.1, part.forces + rng.normal(0.0, 0.1, part.forces.shape), part.virial)
        for part in parts
    ]


def compress(folder, model, setting, slot, step):
    """Leave a compressed model of some bytes."""
    (folder / "compressed.pb").write_bytes(uuid.uuid4().bytes * 64)
    return folder / "compressed.pb"


def install(monkeypatch):
    """Put these engines in the place of the real ones, and restart the clock of their own time."""
    spent[0] = 0.0
    for module, functions in (
        (reference, (fingerprint, label, molecular_dynamics, relax)),
        (walks, (run_walks,)),
        (deepmd, (train_member, evaluate, compress)),
    ):
        for function in functions:
            monkeypatch.setattr(module, function.__name__, timed(function))
