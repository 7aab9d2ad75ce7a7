"""Any ASE calculator, in a session of its own interpreter, one per slot."""

from __future__ import annotations

from typing import Any

from activelearn.config import Reference
from activelearn.engines.deepmd import library_environment
from activelearn.engines.process import Session, Slot, session, worker_command


def ask(
    reference: Reference,
    job: str,
    slot: Slot,
    *,
    timeout_s: float | None = None,
    **request: Any,  # noqa: ANN401 - JSON
) -> dict[str, Any]:
    """Return the answer of the slot's session to one job; see ``ase_worker.py``; it may take as long as a label."""
    key = ("reference", reference.python or "", reference.calculator or "", *slot.key)

    def make() -> Session:
        log = slot.logs / f"session-reference-{slot.index}.log"
        # LAMMPS as a library finds MPI and its plugins only where these variables stand when Python starts.
        env = library_environment(reference.python, slot) if reference.package == "lammps" else {}
        return Session(worker_command("ase_worker.py", reference.python), log=log, env=env, slot=slot)

    message = {
        "job": job,
        "calculator": reference.calculator,
        "arguments": reference.arguments,
        "d3": reference.d3 and reference.d3.model_dump(),
        **request,
    }
    return session(key, make).request(message, timeout_s=timeout_s or slot.machine.label_timeout_s)


def identity(reference: Reference, slot: Slot) -> dict[str, Any]:
    """Return version, weights and arguments as the interpreter of the calculator finds them."""
    return ask(reference, "describe", slot, package=reference.package, weights=reference.weights)
