"""One job, one process: an engine that is started for every label (GPAW under mpiexec, VASP under custodian)."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from activelearn.config import Reference
from activelearn.engines.process import Slot, run_command
from activelearn.errors import EngineError


def words(reference: Reference) -> list[str]:
    """Return the reference's command as a list of words, with ``~`` expanded."""
    return [os.path.expanduser(word) for word in shlex.split(reference.command or "")]  # noqa: PTH111 - also of a word


def run_job(command: Sequence[str], request: Mapping[str, Any], slot: Slot) -> dict[str, Any]:
    """Run a worker on one job in a scratch folder of its own, and return its answer.

    Parameters
    ----------
    command
        Interpreter and worker; it gets the path of ``job.json`` and writes ``result.json`` beside it.
    request
        The job, JSON-able.
    slot
        Where; the folder goes away with a good answer unless the machine profile keeps scratch.

    Raises
    ------
    EngineError
        The worker died, took too long, or reported an error of its own.
    """
    folder = (slot.logs / f"label-{slot.index}-{uuid.uuid4().hex[:8]}").absolute()
    folder.mkdir(parents=True)
    job, result, log = folder / "job.json", folder / "result.json", folder / "worker.log"
    job.write_text(json.dumps(request))
    done = run_command([*command, str(job)], folder, log=log, timeout_s=slot.machine.label_timeout_s, slot=slot)
    if not result.is_file():
        raise EngineError(
            f"the worker ended without a result (return code {done.return_code})",
            command=command,
            folder=folder,
            tail=done.tail,
        )
    answer: dict[str, Any] = dict(json.loads(result.read_text()))
    if "error" in answer:
        raise EngineError(str(answer["error"]), command=command, folder=folder, tail=done.tail)
    if not slot.machine.keep_scratch:
        shutil.rmtree(folder, ignore_errors=True)
    return answer
