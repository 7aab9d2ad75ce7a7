"""Jobs of a session that fine-tunes: training and evaluation; and what a killed training has left.

What the jobs are: ``workers/finetuning.py``.
"""

from __future__ import annotations

import json
import logging
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from activelearn.config.trainer import TrainingRun
from activelearn.engines.process import Session, Slot, session, tail_of, worker_command
from activelearn.engines.trainers.deepmd.checkpoints import RESUMED, curve_before, resumed_from
from activelearn.engines.trainers.deepmd.inputs import CURVE
from activelearn.engines.trainers.finetuning.settings import FineTuned
from activelearn.errors import EngineError
from activelearn.frames import Frames, npz_bytes, pack, unpack

log = logging.getLogger(__name__)
DATA: Final = "data.npz"
REPLAY: Final = "replay.npz"
NOTES: Final = "notes.json"
#: Atoms of a batch that is evaluated: memory grows with them, and the time an atom hardly falls.
MOST_ATOMS: Final = 256
#: Rows of a learning curve; with checkpoints one is written at every fifth.
_ROWS: Final = 50
_ROWS_PER_CHECKPOINT: Final = 5


@dataclass(frozen=True)
class Worker:
    """A session that fine-tunes.

    Parameters
    ----------
    script
        Its file in ``workers/``.
    trainer
        Whose it is: the value of ``train.trainer``.
    package
        What it computes with, and how that is installed.
    install
        The command.
    """

    script: str
    trainer: str
    package: str
    install: str

    def answer(self, job: Mapping[str, Any], folder: Path, slot: Slot, *, timeout_s: float) -> dict[str, Any]:
        """Return the answer to one job of the node's session.

        Raises
        ------
        EngineError
            The job ended with an error, or took too long.
        """
        python, host = slot.machine.python, slot.host

        def make() -> Session:
            why = f"needed for train.trainer: {self.trainer} - {self.install}"
            command = [*worker_command(self.script, python), why]
            log_file = host.logs / f"session-{self.trainer}-{host.index}.log"
            return Session(command, log=log_file, slot=host, ends_jobs=True)

        name = f"{job['job']}.log"
        message = {**job, "folder": str(folder.absolute()), "log": name, "environment": slot.own}
        worker = session((self.trainer, python or "", *host.key), make)
        found = worker.request(message, timeout_s=timeout_s)
        if found["return_code"] != 0 and not found["diverged"]:
            said = tail_of(folder / name)
            raise EngineError(
                f"{job['job']} of {self.package} ended with return code {found['return_code']}: {''.join(said[-1:])}",
                folder=folder,
                tail=said,
            )
        return found

    def evaluate(
        self,
        folder: Path,
        models: Sequence[Path],
        parts: Sequence[Frames],
        slot: Slot,
        *,
        most_atoms: int = MOST_ATOMS,
        options: Mapping[str, str | None] = MappingProxyType({}),
    ) -> list[list[Frames]]:
        """Return `parts` with the labels that each of the models predicts, in batches of limited size.

        Parameters
        ----------
        folder, models, parts, slot
            Scratch folder, files of one network, frames, and where.
        most_atoms
            Of a batch.
        options
            What a foundation has to be told: its modal or head.
        """
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
            **options,
        }
        self.answer({**job, "outputs": outputs}, folder, slot, timeout_s=slot.machine.walk_timeout_s)
        found = []
        for output in outputs:
            with np.load(folder / output) as out:
                has = {f"has_{name}": np.ones(len(parts), dtype=bool) for name in out}
                found.append(unpack({**arrays, **out, **has}))
        return found


def job_of(train: FineTuned, run: TrainingRun, foundation: Path, data: Path, output: str) -> dict[str, Any]:
    """Return the job of one member.

    Parameters
    ----------
    train, run
        The section of the campaign, and what is this member's alone.
    foundation
        File of the foundation.
    data
        Folder that the trainer has written the data to.
    output
        Name of the model.
    """
    rate, replay = train.learning_rate, train.replay
    start = (rate.warm_start if run.warm else None) or rate.start
    row_every = max(1, min(1000, run.n_steps // _ROWS))
    replayed = replay and {
        "input": str((data / REPLAY).absolute()),
        "labels": replay.labels,
        "foundation": str(foundation),
        "n_frames": replay.n_frames,
    }
    return {
        "job": "train",
        "model": str(run.start_from or foundation),
        "restart": run.restart,
        "input": str((data / DATA).absolute()),
        "output": output,
        "n_steps": run.n_steps,
        "batch_size": train.batch_size,
        "random_seed": run.random_seeds[2],
        "start_lr": start * run.learning_rate_factor,
        "stop_lr": rate.stop * run.learning_rate_factor,
        "force_weight": train.force_weight,
        "stress_weight": train.stress_weight,
        "refit_shift": train.shift == "refit",
        "weight_noise": 0.0 if run.warm else train.weight_noise,
        "replay": replayed,
        "row_every": row_every,
        "most_atoms": MOST_ATOMS,
        "save_every": _ROWS_PER_CHECKPOINT * row_every if run.checkpoints else 0,
    }


def take_over(left: Sequence[Path], folder: Path) -> str | None:
    """Copy the newest whole checkpoint of killed tries, and their learning curve up to there; return its name.

    A zip file has the checksum of all that is in it: one that is cut off or damaged is passed over.
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
