"""Checkpoints of `dp train`: those of a killed training, from which its successor continues.

Every attempt at a training has its own folder (a worker that was thought dead may still be writing to the old one), in
it one ``attempt-<k>`` per learning rate. A retry takes over the newest checkpoint of the last attempt: its files, and
the learning curve up to there. All of it is read first; a corrupt one is skipped for the one before, and with none
left the attempt starts from scratch.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from activelearn.engines.backends import BACKENDS, DEFAULT, Backend
from activelearn.engines.deepmd import run_job
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd.inputs import CURVE

log = logging.getLogger(__name__)
RESUMED: Final = "resumed.json"


def take_over(
    left: Sequence[Path],
    folder: Path,
    slot: Slot,
    average: Sequence[int] = (),
    backend: Backend = BACKENDS[DEFAULT],
) -> str | None:
    """Copy the newest intact checkpoint of killed attempts to `folder`; return its name for ``dp train --restart``.

    Earlier ones that the model will average (at the steps `average`) are copied as well if they are intact.

    Parameters
    ----------
    left
        Folders of the killed attempts.
    folder
        Of the training that continues; its step is recorded there.
    slot
        Where they are read.
    average
        From :func:`activelearn.engines.trainers.deepmd.inputs.averaged_steps`.
    backend
        What wrote them.

    Raises
    ------
    EngineError
        The session that reads the checkpoints died; nothing is then known about them.
    """
    checkpoint = _newest(left, slot, backend)
    if checkpoint is None:
        return None
    step, old = _step(checkpoint), checkpoint.parent
    (folder / RESUMED).write_text(json.dumps([*resumed_from(old), step]))
    if (old / CURVE).is_file():
        (folder / CURVE).write_text(curve_before(step, (old / CURVE).read_text()))
    (folder / "checkpoint").write_text(backend.pointer.format(checkpoint.name))  # freeze reads it
    earlier = [old / f"model.ckpt-{k}" for k in average if k < step]
    for one in [checkpoint, *(path for path in earlier if _is_whole(path, slot, backend))]:
        for part in backend.checkpoint:
            shutil.copyfile(f"{one}{part}", folder / f"{one.name}{part}")
    return checkpoint.name


def _newest(left: Sequence[Path], slot: Slot, backend: Backend) -> Path | None:
    """Return the newest intact checkpoint of some folders."""
    last = [path for folder in left for path in folder.glob(f"model.ckpt-*{backend.checkpoint[-1]}")]
    for checkpoint in sorted((path.with_suffix("") for path in last), key=_step, reverse=True):
        if _is_whole(checkpoint, slot, backend):
            return checkpoint
        log.warning("%s is corrupt and skipped", checkpoint)
    return None


def kept(folder: Path, average: Sequence[int], backend: Backend = BACKENDS[DEFAULT]) -> list[int]:
    """Return those of the steps `average` whose checkpoints a resumed training in `folder` has or will have.

    Checkpoints corrupted by a kill cannot be recovered: the mean is then over fewer, with a warning.
    """
    *_, last = 0, *resumed_from(folder)
    found = [k for k in average if k > last or (folder / f"model.ckpt-{k}{backend.checkpoint[-1]}").is_file()]
    if len(found) < len(average):
        log.warning("%s: the model is the mean of %d checkpoints, not of %d", folder, len(found), len(average))
    return found


def resumed_from(folder: Path) -> tuple[int, ...]:
    """Return the steps from which the training in `folder` continued, oldest first; () if it was never interrupted."""
    path = folder / RESUMED
    return tuple(json.loads(path.read_text())) if path.is_file() else ()


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _is_whole(checkpoint: Path, slot: Slot, backend: Backend) -> bool:
    try:
        resumed_from(checkpoint.parent)
    except ValueError:
        return False
    job = {"job": "checkpoint", "checkpoint": checkpoint.name}  # TensorFlow would read a path as a pattern
    timeout_s = slot.machine.label_timeout_s
    return run_job(job, checkpoint.parent, "checkpoint.log", slot, timeout_s=timeout_s, backend=backend) == 0


def curve_before(step: int, text: str) -> str:
    """Return the complete rows of a learning curve before `step`, with the header line."""
    names, *rows = text.splitlines()
    n_columns = len(names.lstrip("# ").split())
    kept = [row for row in rows if len(words := row.split()) == n_columns and words[0].isdigit()]
    return "".join(f"{row}\n" for row in [names, *(row for row in kept if int(row.split()[0]) < step)])
