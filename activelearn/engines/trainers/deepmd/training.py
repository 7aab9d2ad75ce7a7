"""Programs of DeePMD-kit: train, freeze, compress, and evaluation of models."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from activelearn import trees
from activelearn.engines import backends
from activelearn.engines.backends import BACKENDS, DEFAULT, Backend
from activelearn.engines.deepmd import answer, run_job
from activelearn.engines.process import Slot, tail_of
from activelearn.engines.trainers.deepmd.blocks import kind
from activelearn.engines.trainers.deepmd.inputs import AVERAGE, CURVE
from activelearn.errors import EngineError
from activelearn.frames import Frames, npz_bytes, pack, unpack

_log = logging.getLogger(__name__)
#: Messages of dp train when it stops since the loss or a gradient is no longer finite.
_DIVERGED: Final = ("NaN detected at batch", "Non-finite gradient norm")
#: Messages that blame the disk, not the model.
_DISK: Final = ("No space left on device", "Disk quota exceeded", "Read-only file system", "Input/output error")
#: Two forms of a model agree if no force differs by more than this fraction of the largest (or of 1 eV/Å).
SAME_FORCES: Final = 1e-4
#: Range of the tables of a compressed model relative to the training data, in 1/r (``--extrapolate``).
REACH: Final = 5
#: Width of an interval of the fine table, in units of its argument (``--step``), with a sixth of the additional memory
#: of walks with DeePMD-kit's default, the second. Forces of smooth networks agree to 4e-9 eV/Å (1e-12); those of
#: steep ones, of `evening`, differ by 0.003 to 0.015 (0.0003) eV/Å.
STEP: Final = 0.05
FINER: Final = 0.01


def _dp(
    arguments: Sequence[str],
    folder: Path,
    slot: Slot,
    backend: Backend = BACKENDS[DEFAULT],
    *,
    largest_loss: float | None = None,
    may_refuse: bool = False,
) -> bool:
    """Run ``dp ARGUMENTS``; return False if a training diverged (only with `largest_loss`).

    With `may_refuse`, also if it ended with an error that is neither a signal nor a time-out.
    """
    log = f"dp-{arguments[0]}.log"
    command = [backend.flag, *arguments]
    job: dict[str, Any] = {"job": "dp", "arguments": command}
    if largest_loss is not None:
        job["watch"] = {"file": CURVE, "largest": largest_loss}
    found = answer(job, folder, log, slot, timeout_s=slot.machine.train_timeout_s, backend=backend)
    if found["diverged"]:
        return False
    if found["return_code"] != 0:
        tail = tail_of(folder / log)
        said = "\n".join(tail_of(folder / log, 200))
        if may_refuse and found["return_code"] > 0 and not any(sign in said for sign in _DISK):
            _log.warning("dp %s ended with return code %d: %s", arguments[0], found["return_code"], "".join(tail[-1:]))
            return False
        if largest_loss is not None and any(sign in said for sign in _DIVERGED):
            return False
        raise EngineError(
            f"dp {arguments[0]} ended with return code {found['return_code']}",
            command=["dp", *command],
            folder=folder,
            tail=tail,
        )
    return True


@dataclass(frozen=True)
class Weights:
    """Initial weights of a training (None: random), and which of its checkpoints make the model.

    Parameters
    ----------
    start_from
        Frozen model or checkpoint with the initial weights.
    restart
        Checkpoint in the folder to continue from; `start_from` is then ignored.
    average
        Steps whose checkpoints the model averages; empty: only the last.
    """

    start_from: Path | None = None
    restart: str | None = None
    average: Sequence[int] = ()

    def arguments(self, backend: Backend) -> list[str]:
        """Return the arguments of ``dp train`` for them."""
        if self.restart is not None:
            return ["--restart", self.restart]
        if self.start_from is None:
            return []
        is_model = self.start_from.suffix in backend.with_weights
        return ["--init-frz-model" if is_model else "--init-model", str(self.start_from)]


def train_member(
    folder: Path,
    setting: Mapping[str, Any],
    slot: Slot,
    *,
    largest_loss: float,
    weights: Weights = Weights(),
    backend: Backend = BACKENDS[DEFAULT],
) -> Path | None:
    """Train and freeze one member in `folder`; return the frozen model, or None if the training diverged.

    Parameters
    ----------
    folder
        Scratch folder.
    setting
        From :func:`activelearn.engines.trainers.deepmd.inputs.training_input`.
    slot
        Where it runs.
    largest_loss
        The training is stopped as soon as its loss exceeds it; from
        :func:`activelearn.engines.trainers.deepmd.inputs.loss_bound`.
    weights
        Its initial weights, and what is frozen.
    backend
        Backend of DeePMD-kit.

    Raises
    ------
    EngineError
        The training crashed or took too long, an averaged checkpoint is missing or corrupt, or the frozen model is
        not the trained one.
    """
    (folder / "input.json").write_text(json.dumps(setting, indent=1))
    arguments = ["train", "input.json", "--skip-neighbor-stat", *weights.arguments(backend)]
    if not _dp(arguments, folder, slot, backend, largest_loss=largest_loss):
        return None
    if weights.average:
        _average([f"model.ckpt-{step}" for step in weights.average], folder, slot, backend)
    of_mean = ["-c", AVERAGE] if weights.average else []
    _dp(["freeze", *of_mean, "-o", f"frozen{backend.suffixes[0]}"], folder, slot, backend)
    model = next(path for suffix in backend.suffixes if (path := folder / f"frozen{suffix}").is_file())
    if backend.checkpoint_runs:
        checkpoint = trained_checkpoint(folder, setting, weights, backend)
        system = Path(setting["training"]["training_data"]["systems"][0])
        if not has_same_forces(folder, [checkpoint, model], system, slot, backend):
            return None
    return model


def trained_checkpoint(folder: Path, setting: Mapping[str, Any], weights: Weights, backend: Backend) -> Path:
    """Return the file of the checkpoint from which the model was frozen (the last of several)."""
    name = f"{AVERAGE}/model.ckpt" if weights.average else f"model.ckpt-{setting['training']['numb_steps']}"
    return folder / f"{name}{backend.checkpoint[-1]}"


def has_same_forces(folder: Path, models: Sequence[Path], system: Path, slot: Slot, backend: Backend) -> bool:
    """Return True if a model has the forces of its origin; False if that has none (NaN) itself.

    Such a training has diverged after the last row of its learning curve. A conversion between
    formats may silently lose forces (measured: a ``.dp`` of DeePMD-kit 3.2.0 has none at all).

    Parameters
    ----------
    folder
        Scratch folder.
    models
        Its origin, and the model.
    system
        Folder of deepmd/npy, whose first frame is evaluated.
    slot, backend
        Where it runs, and the backend.

    Raises
    ------
    EngineError
        They differ by more than :data:`SAME_FORCES`, or are not finite.
    """
    job = {"job": "compare", "models": [str(model) for model in models], "system": str(system), "output": "forces.npy"}
    _want_done(job, folder, slot, backend, f"comparison of {models[0].name} and {models[1].name}")
    before, after = np.load(folder / "forces.npy")
    if not np.isfinite(before).all():
        return False
    largest = float(np.abs(after - before).max())
    if not largest <= SAME_FORCES * max(1.0, float(np.abs(before).max())):  # nan is not <= anything
        raise EngineError(
            f"{models[1].name}: a force differs by {largest:.3g} eV/Å from that of {models[0].name}, from which it was "
            "made - expected the same model in another format - this version of deepmd-kit cannot make it: try another",
            folder=folder,
        )
    return True


def _average(checkpoints: Sequence[str], folder: Path, slot: Slot, backend: Backend = BACKENDS[DEFAULT]) -> None:
    """Write the average of checkpoints of `folder` as the checkpoint of a folder in it."""
    trees.make(folder / AVERAGE)
    job = {"job": "average", "checkpoints": list(checkpoints), "output": AVERAGE}
    _want_done(job, folder, slot, backend, f"the average of the checkpoints {checkpoints[0]} to {checkpoints[-1]}")
    (folder / AVERAGE / "checkpoint").write_text(backend.pointer.format("model.ckpt"))


def _want_done(job: Mapping[str, Any], folder: Path, slot: Slot, backend: Backend, what: str) -> None:
    """Run a job that only fails on infrastructure."""
    log = f"{job['job']}.log"
    code = run_job(job, folder, log, slot, timeout_s=slot.machine.label_timeout_s, backend=backend)
    if code != 0:
        raise EngineError(f"{what} ended with return code {code}", folder=folder, tail=tail_of(folder / log))


def learning_curve(path: Path) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Return the names of the columns of an lcurve.out and its rows (n_rows, n_columns), in DeePMD's units (eV, Å)."""
    lines = path.read_text().splitlines()
    names = lines[0].lstrip("# ").split()
    return names, np.array([[float(word) for word in line.split()] for line in lines if not line.startswith("#")])


def compress(folder: Path, model: Path, setting: Mapping[str, Any], slot: Slot, step: float = STEP) -> Path | None:
    """Tabulate the embedding net of a frozen model (Lu et al., J. Chem. Theory Comput. 18, 5559 (2022)).

    None: `dp compress` rejects the model.

    Parameters
    ----------
    folder
        Scratch folder.
    model
        Frozen model.
    setting
        The ``input.json`` of its training, with accessible systems: the shortest distance in the data sets the table.
    slot
        Where it runs.
    step
        Width of an interval of the fine table.
    """
    backend = backends.of_model(model)
    (folder / "input.json").write_text(json.dumps(setting, indent=1))
    plain, compressed = (folder / f"{name}{model.suffix}" for name in ("frozen", "compressed"))
    shutil.copyfile(model, plain)
    arguments = ["compress", "-i", plain.name, "-o", compressed.name, "-t", "input.json"]
    is_made = _dp([*arguments, "-s", str(step), "-e", str(REACH)], folder, slot, backend, may_refuse=True)
    return compressed if is_made else None


def holds_from_A(folder: Path) -> tuple[float, float] | None:
    """Return the distances, Å, above which the tables of a compressed model are valid; None if its log does not tell.

    The fine table starts at the shortest distance r of the training data, and the coarse one ends at :data:`REACH`
    times its upper bound. Bounds are those of (s - mean) / deviation of each element, s = w(r)/r with the switch w (1
    below ``rcut_smth``, 0 at ``rcut``): at the cutoff (lower) and at r (upper, rounded up).

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
    lower, upper = (_bounds(text, which) for which in ("lower", "upper"))
    descriptor = json.loads((folder / "input.json").read_text())["model"]["descriptor"]
    if shortest is None or lower is None or upper is None or "list" in descriptor:
        return None
    r, rcut, smooth = float(shortest[1]), descriptor.get("rcut", 6.0), descriptor.get("rcut_smth", 0.5)
    distances = np.linspace(1e-3, rcut, 100_001)
    x = np.clip((distances - smooth) / (rcut - smooth), 0.0, 1.0)
    of_distance = (1.0 + x**3 * (-6.0 * x**2 + 15.0 * x - 10.0)) / distances  # decreases monotonically
    last = REACH * np.ceil(upper.max(axis=1))
    times = (last - lower[:, 0]) / (upper[:, 0] - lower[:, 0])
    if kind(descriptor) == "se_e3":  # its tables are of products of two s, from -upper to upper
        times = np.sqrt(last / upper.max(axis=1))
    at_end = np.interp(r, distances, of_distance) * times
    return r, float(np.interp(at_end.min(), of_distance[::-1], distances[::-1]))


def _bounds(text: str, which: str) -> np.ndarray[Any, Any] | None:
    """Return a bound from a log, (n_elements, n_columns): s alone by TensorFlow, s, x, y and z by PyTorch."""
    found = re.search(rf"with {which} boundary: (\[.*?\])(?=\n(?! )|$)", text.strip(), re.DOTALL)
    if found is None:
        return None
    rows = re.findall(r"\[([^\[\]]*)\]", found[1])
    try:
        numbers = [[float(word) for word in row.split()] for row in rows]
        return np.array(numbers if found[1].startswith("[[") else np.transpose(numbers))
    except ValueError:  # truncated, or of another version
        return None


def evaluate(folder: Path, model: Path, parts: Sequence[Frames], slot: Slot) -> list[Frames]:
    """Return `parts` with the labels that `model` predicts."""
    if not parts:
        return []
    arrays = pack([part.without_labels() for part in parts])
    (folder / "evaluate-in.npz").write_bytes(npz_bytes(arrays))
    job = {"job": "evaluate", "model": str(model), "input": "evaluate-in.npz", "output": "evaluate-out.npz"}
    _want_done(job, folder, slot, backends.of_model(model), f"evaluation of {model.name}")
    with np.load(folder / "evaluate-out.npz") as out:
        return unpack({**arrays, **out, **{f"has_{name}": np.ones(len(parts), dtype=bool) for name in out}})
