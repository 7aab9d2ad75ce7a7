"""Programs of DeePMD-kit: train, freeze, compress, and the evaluation of a model."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from activelearn import trees
from activelearn.engines.deepmd import answer, run_job
from activelearn.engines.process import Slot, tail_of
from activelearn.engines.trainers.deepmd.inputs import AVERAGE, CURVE
from activelearn.errors import EngineError
from activelearn.frames import Frames, npz_bytes, pack, unpack

#: So many times as far as the training data reach the tables of a compressed model, in 1/r (``--extrapolate``).
REACH: Final = 5
#: Width of an interval of the fine table, in units of its argument (``--step``). Forces are those of the network to
#: 4e-9 eV/Å or better (1e-12 at DeePMD-kit's default of 0.01), for a sixth of the memory that walks take more.
STEP: Final = 0.05


def _dp(arguments: Sequence[str], folder: Path, slot: Slot, *, largest_loss: float | None = None) -> bool:
    """Run ``dp ARGUMENTS``; return False if it was a training that diverged (only with `largest_loss`)."""
    log = f"dp-{arguments[0]}.log"
    job: dict[str, Any] = {"job": "dp", "arguments": list(arguments)}
    if largest_loss is not None:
        job["watch"] = {"file": CURVE, "largest": largest_loss}
    found = answer(job, folder, log, slot, timeout_s=slot.machine.train_timeout_s)
    if found["diverged"]:
        return False
    if found["return_code"] != 0:
        tail = tail_of(folder / log)
        if largest_loss is not None and any("NaN detected at batch" in line for line in tail):
            return False  # DeePMD ends by itself, before the row is written
        raise EngineError(
            f"dp {arguments[0]} ended with return code {found['return_code']}",
            command=["dp", *arguments],
            folder=folder,
            tail=tail,
        )
    return True


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
        Steps whose checkpoints the model is the mean of; none: the last alone.
    """

    start_from: Path | None = None
    restart: str | None = None
    average: Sequence[int] = ()


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
        From :func:`activelearn.engines.trainers.deepmd.inputs.training_input`.
    slot
        Where.
    largest_loss
        The training is ended as soon as its loss is above it; from
        :func:`activelearn.engines.trainers.deepmd.inputs.loss_bound`.
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
    arguments = ["compress", "-i", "frozen.pb", "-o", "compressed.pb", "-t", "input.json"]
    _dp([*arguments, "-s", str(STEP), "-e", str(REACH)], folder, slot)
    return folder / "compressed.pb"


def holds_from_A(folder: Path) -> tuple[float, float] | None:
    """Return the distances, Å, from which on the tables of a compressed model hold; None if its log does not tell.

    The fine table begins at the shortest distance r of the training data, and the coarse one ends at :data:`REACH`
    times its upper bound. Bounds are those of (s - mean) / deviation of each element, s = w(r)/r with the switch w (1
    below ``rcut_smth``, 0 at ``rcut``): at the cutoff (lower) and at r (upper, rounded up). That the table ends at 1/s
    is exact where w is 1; elsewhere it reaches nearer.

    Parameters
    ----------
    folder
        Where :func:`compress` ran.
    """
    log = folder / "dp-compress.log"
    if not log.is_file():
        return None
    text = log.read_text(errors="replace")
    shortest = re.search(r"minimal neighbor distance: ([\d.]+)", text)
    bounds = [re.search(rf"with {which} boundary: \[([^]]*)\]", text) for which in ("lower", "upper")]
    descriptor = json.loads((folder / "input.json").read_text())["model"]["descriptor"]
    if shortest is None or bounds[0] is None or bounds[1] is None or "rcut_smth" not in descriptor:
        return None
    r = float(shortest[1])
    x = np.clip((r - descriptor["rcut_smth"]) / (descriptor["rcut"] - descriptor["rcut_smth"]), 0.0, 1.0)
    switch = 1.0 + x**3 * (-6.0 * x**2 + 15.0 * x - 10.0)
    lower, upper = (np.array(found[1].split(), dtype=float) for found in bounds if found is not None)
    end = r / switch * (upper - lower) / (REACH * np.ceil(upper) - lower)
    return r, float(end.max())


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
