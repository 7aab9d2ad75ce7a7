"""`check -l`: whether a LaunchPad and the workers' interpreter are ready for a campaign, before submission."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import sys
import uuid
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Final

from pymongo.errors import OperationFailure, PyMongoError

from activelearn import trees
from activelearn.config import Machine
from activelearn.engines.process import run_command, tail_of
from activelearn.errors import ConfigError, EngineError
from activelearn.units import duration
from activelearn.workflow.doctor.findings import LARGEST_SKEW_S
from activelearn.workflow.doctor.picture import Clock, read_clock
from activelearn.workflow.launchpads import SharedLaunchPad, connect, read_as_fireworks

#: Number of requests whose median is the latency.
_N_QUESTIONS: Final = 5
#: How long an interpreter on a busy network disk may take to import activelearn, s.
_IMPORT_S: Final = 120.0
_SCRATCH: Final = "activelearn_check"


def launchpad_problems(path: Path, machine: Machine) -> tuple[list[str], list[str]]:
    """Return the problems of a LaunchPad and of the workers' interpreter, and facts about them.

    Parameters
    ----------
    path
        my_launchpad.yaml.
    machine
        The machine profile.

    Returns
    -------
    problems, facts
        One line each; no credentials are in any.
    """
    problems, facts = [*_readable_by_others(path)], []
    try:
        launchpad = connect(path)
    except ConfigError as error:
        problems += error.problems
    else:
        try:
            clocks = sorted((read_clock(launchpad) for _ in range(_N_QUESTIONS)), key=attrgetter("latency_s"))
            clock = clocks[_N_QUESTIONS // 2]
            facts += _facts(launchpad, clock)
            problems += [*_clock(path, clock), *_not_writable(path, launchpad)]
        except PyMongoError as error:
            problems.append(
                f"{path}: {launchpad.identity} stopped answering ({type(error).__name__}) - expected a server that "
                "stays up - look at its log, and run the same command again"
            )
    return problems + worker_problems(machine), facts


def _readable_by_others(path: Path) -> Iterator[str]:
    try:
        mode, described = path.stat().st_mode, read_as_fireworks(path)
    except (OSError, ConfigError):
        return  # reported by connect
    if not isinstance(described, dict) or not mode & 0o077:
        return
    if described.get("password") is not None or re.search(r"://[^/\s]*:[^/\s]*@", str(described.get("host"))):
        yield (
            f"{path}: contains a password, and others may read it (mode {mode & 0o777:03o}) - expected mode 600 - "
            f"chmod 600 {shlex.quote(str(path))}"
        )


def _facts(launchpad: SharedLaunchPad, clock: Clock) -> list[str]:
    server = launchpad.connection.server_info().get("version", "of unknown version")
    here = " ".join(f"{name} {importlib.metadata.version(name)}" for name in ("FireWorks", "pymongo"))
    facts = [f"LaunchPad {launchpad.identity}: MongoDB {server}, {1e3 * clock.latency_s:.1f} ms per request; {here}"]
    if launchpad.fw_id_assigner.find_one() is None:
        facts.append("its database is empty; the first `activelearn submit` initialises it")
    return facts


def _clock(path: Path, clock: Clock) -> Iterator[str]:
    if clock.ahead_s is not None and abs(clock.ahead_s) > LARGEST_SKEW_S:
        behind, ahead = ("the server", "this machine") if clock.ahead_s > 0 else ("this machine", "the server")
        yield (
            f"{path}: the clock of {ahead} is {duration(abs(clock.ahead_s))} ahead of that of {behind} - expected less "
            f"than {LARGEST_SKEW_S:g} s, otherwise live workers are considered dead - synchronise both by NTP"
        )


def _not_writable(path: Path, launchpad: SharedLaunchPad) -> Iterator[str]:
    """Insert a document into a collection of our own and remove it again."""
    trial = {"_id": f"check-{uuid.uuid4().hex}"}
    scratch = launchpad.db[_SCRATCH]
    try:
        scratch.insert_one(trial)
        scratch.delete_one(trial)
        if scratch.find_one() is None:
            launchpad.db.drop_collection(_SCRATCH)
    except OperationFailure as error:
        said = (error.details or {}).get("codeName", "refused")
        yield (
            f"{path}: {launchpad.identity} may be read but not written ({said}) - expected a user with the role "
            "readWrite on that database - ask its administrator"
        )


def worker_problems(machine: Machine) -> list[str]:
    """Return why workers would fail every Firework: their interpreter, which is this one, cannot import activelearn.

    The working directory of a job is not the current one, so a package that is found here only because it is in the
    current directory is not found there. The interpreters of `machine.python` run engines, not workers; whether they
    have what engines need is checked with the campaign.
    """
    with trees.temporary() as here:
        log = here / "log"
        command = [sys.executable, "-c", "import activelearn.workflow"]
        try:
            done = run_command(command, here, log=log, timeout_s=_IMPORT_S)
            said = "" if done.return_code == 0 else (tail_of(log, 1) or ["no output"])[-1]
        except EngineError as error:
            said = str(error).splitlines()[0]
    if not said:
        return []
    where = f"machine {machine.name}: the workers' interpreter {sys.executable}"
    what = f"cannot import activelearn: {said} - expected it in any folder, or all Fireworks fail"
    return [f"{where} {what} - pip install activelearn into it"]
