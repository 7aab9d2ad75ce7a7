"""GPAW: plane-wave density functional theory, one process group under mpiexec per job, in a venv of its own."""

from __future__ import annotations

from typing import Any

from activelearn.config import Reference
from activelearn.engines.jobs import run_job, words
from activelearn.engines.process import Slot, worker_command


def ask(reference: Reference, job: str, slot: Slot, **request: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return the answer of one run to one job; see ``gpaw_worker.py``."""
    worker = worker_command("gpaw_worker.py", None)[-1]
    message = {"job": job, "d3": reference.d3 and reference.d3.model_dump(), **_settings(reference), **request}
    return run_job([*words(reference), worker], message, slot)


def identity(reference: Reference, slot: Slot) -> dict[str, Any]:
    """Return version of GPAW, sha256 of its PAW data sets, and settings; the number of ranks is the machine's."""
    return {**ask(reference, "describe", slot), "arguments": _settings(reference)["gpaw"]}


def _settings(reference: Reference) -> dict[str, Any]:
    assert reference.gpaw is not None  # the config says so for engine gpaw
    return {"gpaw": {**reference.gpaw.model_dump(mode="json"), "xc": reference.gpaw.xc or reference.functional}}
