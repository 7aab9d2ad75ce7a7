"""The session of DeePMD-kit and LAMMPS: one process per node and backend, which has imported both and forks.

The jobs are described in ``workers/deepmd_session.py``. DeePMD-kit: Zeng et al., J. Chem. Phys. 159, 054801 (2023).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from activelearn import trees
from activelearn.engines.backends import BACKENDS, DEFAULT, Backend
from activelearn.engines.interpreters import is_ours
from activelearn.engines.process import Session, Slot, run_command, session, worker_command
from activelearn.errors import EngineError
from activelearn.versions import installed

_FIND_LIBRARIES: Final = """
import glob, importlib.util, json, os, sys
found = []
for place in sys.argv[1:]:
    package, _, inside = place.partition(":")
    spec = importlib.util.find_spec(package)
    for root in spec and spec.submodule_search_locations or ():
        found += map(os.path.normpath, sorted(glob.glob(os.path.join(glob.escape(root), inside))))
print(json.dumps(found))
"""
#: Prints the interpreter, its host and CPU, and the versions of the packages given as arguments.
FIND_VERSIONS: Final = """
import importlib.metadata, json, platform, socket, sys
found, cpu = {}, platform.machine()
try:
    with open("/proc/cpuinfo") as lines:
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
except OSError:
    pass
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps({"host": socket.gethostname(), "python": sys.executable, "cpu": cpu, "versions": found}))
"""


def library_environment(
    python: str | None, slot: Slot | None = None, backend: Backend = BACKENDS[DEFAULT]
) -> dict[str, str]:
    """Return the variables that let LAMMPS find the DeePMD plugin (which the `lmp` wrapper takes 6 s to find).

    Parameters
    ----------
    python
        The interpreter (null: this one).
    slot
        Whose variables are extended.
    backend
        Whose models LAMMPS runs.
    """
    folders = _asked(python, _FIND_LIBRARIES, backend.libraries)
    plugin = next((path for path in folders if path.endswith("deepmd/lib")), "")
    inherited = {**os.environ, **(slot.environment if slot else {})}.get("LD_LIBRARY_PATH")
    found = os.pathsep.join([*folders, *([inherited] if inherited else [])])
    return {"LD_LIBRARY_PATH": found, "LAMMPS_PLUGIN_PATH": plugin}


def versions(python: str | None, packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed for an interpreter (null: this one)."""
    if is_ours(python):
        return installed(*packages)
    return dict(_asked(python, FIND_VERSIONS, tuple(packages))["versions"])


@lru_cache
def _asked(python: str | None, script: str, arguments: tuple[str, ...]) -> Any:  # noqa: ANN401 - JSON
    """Return the output of an interpreter; it is on a disk that all nodes see, so it is run here, once."""
    with trees.temporary() as folder:
        log = folder / "said"
        command = [python or sys.executable, "-c", script, *arguments]
        done = run_command(command, folder, log=log, timeout_s=60.0)
        if done.return_code != 0:
            raise EngineError(
                "the interpreter of deepmd-kit does not run - expected machine.python with deepmd-kit and lammps",
                command=command[:1],
                tail=done.tail,
            )
        return json.loads(log.read_text().strip().splitlines()[-1])


def run_job(
    job: Mapping[str, Any],
    folder: Path,
    log: str,
    slot: Slot,
    *,
    timeout_s: float,
    backend: Backend = BACKENDS[DEFAULT],
) -> int:
    """Run one job of the session of a node and backend in `folder`; return its return code (negative: a signal)."""
    return int(answer(job, folder, log, slot, timeout_s=timeout_s, backend=backend)["return_code"])


def answer(
    job: Mapping[str, Any],
    folder: Path,
    log: str,
    slot: Slot,
    *,
    timeout_s: float,
    backend: Backend = BACKENDS[DEFAULT],
) -> dict[str, Any]:
    """Return the answer to one job of the session; for a training with a bound on its loss it has ``diverged``."""
    python, host = slot.machine.python, slot.host

    def make() -> Session:
        log = host.logs / f"session-deepmd-{backend.session}-{host.index}.log"
        env = {**backend.environment, **library_environment(python, host, backend)}
        command = [*worker_command("deepmd_session.py", python), backend.session, backend.install]
        return Session(command, log=log, env=env, slot=host, ends_jobs=True)

    worker = session(("deepmd", backend.session, python or "", *host.key), make)
    message = {**job, "folder": str(folder), "log": log, "environment": slot.own}
    return worker.request(message, timeout_s=timeout_s)
