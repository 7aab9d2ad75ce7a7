"""One job, one process: an engine that is started for every label (GPAW under mpiexec, VASP ...)."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from activelearn import trees
from activelearn.config import Reference
from activelearn.engines.process import Slot, run_command, run_lasting
from activelearn.errors import EngineError

#: How the names of the folders of jobs begin.
_PREFIX: Final = "label-"


def words(reference: Reference) -> list[str]:
    """Return the reference's command as a list of words, with ``~`` expanded."""
    return [os.path.expanduser(word) for word in shlex.split(reference.command or "")]  # noqa: PTH111 - also of a word


def want_program(command: Sequence[str], slot: Slot) -> None:
    """Raise EngineError if the program that a command begins with is not here; under a launcher it is elsewhere."""
    is_here = shutil.which(command[0], path=slot.environment.get("PATH")) is not None
    if not (is_here or slot.launcher):
        raise EngineError(
            f"{command[0]}: no such program - expected it on the PATH - correct its name, or install it",
            command=command,
        )


def run_job(command: Sequence[str], request: Mapping[str, Any], slot: Slot) -> dict[str, Any]:
    """Run a worker on one job in its own scratch folder, and return its answer.

    Parameters
    ----------
    command
        Interpreter and worker; it gets the path of ``job.json`` and writes ``result.json`` next to it.
    request
        The job, JSON-able. With ``keep`` it continues if we are killed (see :mod:`activelearn.store.begun`).
    slot
        Where it runs; after a valid answer the folder is removed unless the machine profile keeps scratch.

    Raises
    ------
    EngineError
        The worker died, took too long, or reported an error.
    """
    folder = (slot.logs / f"{_PREFIX}{slot.index}-{uuid.uuid4().hex[:8]}").absolute()
    trees.make(folder)
    job, result, log = folder / "job.json", folder / "result.json", folder / "worker.log"
    job.write_text(json.dumps(request))
    run = run_lasting if "keep" in request else run_command
    done = run([*command, str(job)], folder, log=log, timeout_s=slot.machine.label_timeout_s, slot=slot)
    if not result.is_file():
        raise EngineError(
            f"the worker ended without a result (return code {done.return_code})",
            command=command,
            folder=folder,
            tail=done.tail,
        )
    answer: dict[str, Any] = dict(json.loads(result.read_text()))
    if "error" in answer or "unable" in answer:  # a code that crashes on a structure may run elsewhere
        raise EngineError(
            str(answer.get("error", answer.get("unable"))), command=command, folder=folder, tail=done.tail
        )
    if "unfit" in answer:
        return {**answer, "log": str(log)}
    clear(folder, slot)
    return answer


def clear(folder: Path, slot: Slot) -> None:
    """Remove the scratch folder of a finished job of this campaign, unless the machine profile keeps scratch."""
    if folder.name.startswith(_PREFIX) and not slot.machine.keep_scratch:
        trees.remove(folder, slot.logs)
