"""Jobs of the session of sevenn: fine-tuning and evaluation; checkpoints of a killed training.

For the jobs, see ``workers/sevennet_session.py``. SevenNet: Park et al., J. Chem. Theory Comput. 20, 4857 (2024).
"""

from __future__ import annotations

import json
import logging
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from activelearn.config.trainer import TrainingRun
from activelearn.engines.process import Session, Slot, session, tail_of, worker_command
from activelearn.engines.trainers.deepmd.checkpoints import RESUMED, curve_before, resumed_from
from activelearn.engines.trainers.deepmd.inputs import CURVE
from activelearn.engines.trainers.sevennet.settings import SevenNetTrain
from activelearn.errors import EngineError
from activelearn.frames import Frames, npz_bytes, pack, unpack

log = logging.getLogger(__name__)
DATA: Final = "data.npz"
MODEL: Final = "model.pth"
NOTES: Final = "notes.json"
INSTALL: Final = "pip install 'sevenn>=0.11' torch==2.13.0"
#: Atoms per evaluated batch: memory grows with them, while the time per atom hardly decreases.
MOST_ATOMS: Final = 256
#: Rows of a learning curve; checkpoints, if any, are written at every fifth.
_ROWS: Final = 50
_ROWS_PER_CHECKPOINT: Final = 5


def answer(job: Mapping[str, Any], folder: Path, slot: Slot, *, timeout_s: float) -> dict[str, Any]:
    """Return the answer to one job of the node's session.

    Raises
    ------
    EngineError
        The job ended with an error, or took too long.
    """
    python, host = slot.machine.python, slot.host

    def make() -> Session:
        command = [
            *worker_command("sevennet_session.py", python),
            f"needed for train.trainer: sevennet - {INSTALL}",
        ]
        return Session(command, log=host.logs / f"session-sevennet-{host.index}.log", slot=host, ends_jobs=True)

    name = f"{job['job']}.log"
    message = {**job, "folder": str(folder.absolute()), "log": name, "environment": slot.own}
    worker = session(("sevennet", python or "", *host.key), make)
    found = worker.request(message, timeout_s=timeout_s)
    if found["return_code"] != 0 and not found["diverged"]:
        said = tail_of(folder / name)
        raise EngineError(
            f"{job['job']} of sevenn ended with return code {found['return_code']}: {''.join(said[-1:])}",
            folder=folder,
            tail=said,
        )
    return found


def write_data(folder: Path, parts: Sequence[Frames]) -> None:
    """Write labelled frames for the session."""
    (folder / DATA).write_bytes(npz_bytes(pack(parts)))


def job_of(train: SevenNetTrain, run: TrainingRun, foundation: Path, data: Path) -> dict[str, Any]:
    """Return the job of one member.

    Parameters
    ----------
    train, run
        The section of the campaign, and the settings of this member.
    foundation
        Checkpoint that it starts from.
    data
        Files written by :func:`write_data`.
    """
    rate = train.learning_rate
    start = (rate.warm_start if run.warm else None) or rate.start
    row_every = max(1, min(1000, run.n_steps // _ROWS))
    return {
        "job": "train",
        "model": str(foundation),
        "restart": run.restart,
        "input": str(data.absolute()),
        "output": MODEL,
        "modal": train.modal,
        "n_steps": run.n_steps,
        "batch_size": train.batch_size,
        "random_seed": run.random_seeds[2],
        "start_lr": start * run.learning_rate_factor,
        "stop_lr": rate.stop * run.learning_rate_factor,
        "force_weight": train.force_weight,
        "stress_weight": train.stress_weight,
        "refit_shift": train.shift == "refit",
        "weight_noise": 0.0 if run.warm else train.weight_noise,
        "row_every": row_every,
        "most_atoms": MOST_ATOMS,
        "save_every": _ROWS_PER_CHECKPOINT * row_every if run.checkpoints else 0,
    }


def take_over(left: Sequence[Path], folder: Path) -> str | None:
    """Copy the newest intact checkpoint of killed attempts, with the learning curve up to there; return its name.

    Zip files contain checksums: a truncated or corrupt one is skipped.
    """
    found = [path for one in left for path in one.glob("checkpoint-*.pth")]
    for path in sorted(found, key=_step, reverse=True):
        if not _is_whole(path):
            log.warning("%s is corrupt and skipped", path)
            continue
        step, old = _step(path), path.parent
        (folder / RESUMED).write_text(json.dumps([*resumed_from(old), step]))
        (folder / CURVE).write_text(curve_before(step + 1, (old / CURVE).read_text()))
        for name in (path.name, NOTES):
            shutil.copyfile(old / name, folder / name)
        return path.name
    return None


def _step(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            is_whole = archive.testzip() is None
        resumed_from(path.parent)
        json.loads((path.parent / NOTES).read_text())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
    return is_whole and (path.parent / CURVE).is_file()


def evaluate(
    folder: Path, models: Sequence[Path], parts: Sequence[Frames], slot: Slot, *, most_atoms: int = MOST_ATOMS
) -> list[list[Frames]]:
    """Return `parts` with the labels that each of the models predicts, in batches of at most `most_atoms` atoms."""
    if not parts:
        return [[] for _ in models]
    arrays = pack([part.without_labels() for part in parts])
    (folder / "evaluate-in.npz").write_bytes(npz_bytes(arrays))
    outputs = [f"evaluate-out-{k}.npz" for k in range(len(models))]
    job = {
        "job": "evaluate",
        "models": [str(model) for model in models],
        "input": "evaluate-in.npz",
        "most_atoms": most_atoms,
    }
    answer({**job, "outputs": outputs}, folder, slot, timeout_s=slot.machine.walk_timeout_s)
    found = []
    for output in outputs:
        with np.load(folder / output) as out:
            has = {f"has_{name}": np.ones(len(parts), dtype=bool) for name in out}
            found.append(unpack({**arrays, **out, **has}))
    return found
