"""FireWorks' own `rlaunch` and `qlaunch`, with workarounds for known faults in this process."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import fireworks.core.rocket
import fireworks.core.rocket_launcher
import fireworks.queue.queue_adapter
import fireworks.queue.queue_launcher
import fireworks.scripts.qlaunch_run
import fireworks.scripts.rlaunch_run
import pymongo
from fireworks.user_objects.queue_adapters.common_adapter import CommonAdapter
from pymongo.errors import ConnectionFailure, PyMongoError

from activelearn.errors import ConfigError, typed
from activelearn.store.files import unique_suffix
from activelearn.workflow.launchpads import ANSWER_S, SharedLaunchPad

log = logging.getLogger(__name__)
_SCRIPT: Final = fireworks.queue.queue_adapter.QueueAdapterBase.get_script_str
#: FireWorks counts the waiting jobs in lines that name their user, and `qstat -u` cuts a name: ``cyclead*``. Whole, it
#: is found in none of them, and jobs are submitted without end.
_COUNT: Final = CommonAdapter._parse_njobs
_SHOWN_OF_USER: Final = 7
#: How long a worker waits for a server that is being restarted, s. pymongo gives up after 30, and a job that has just
#: finished could not report it.
PATIENCE_S: Final = 600.0
#: The value for `--sleep 0`; FireWorks treats 0 as not given, and uses its default of 60 s instead.
_SHORT_S: Final = 0.2
#: Commands, one of which FireWorks needs; without one it fails later, with an AttributeError.
_COMMANDS: Final = {"singleshot", "rapidfire", "multi", "-h", "--help", "--version"}


class PatientLaunchPad(SharedLaunchPad):
    """The LaunchPad of a worker, which waits for its server."""

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> PatientLaunchPad:
        """Return the LaunchPad that a dictionary (of my_launchpad.yaml) describes; log it if there is no answer."""
        patience = {"serverSelectionTimeoutMS": round(1000 * PATIENCE_S), **(d.get("mongoclient_kwargs") or {})}
        found = super().from_dict({**d, "mongoclient_kwargs": patience})
        assert isinstance(found, cls)
        try:
            with pymongo.timeout(ANSWER_S):
                found.connection.admin.command("ping")
        except ConnectionFailure:
            log.warning("no answer from %s within %g s; waiting for it", found.identity, ANSWER_S)
        return found


def rlaunch(arguments: Sequence[str]) -> int:
    """Run FireWorks' rlaunch; return its exit code."""
    code = _run(fireworks.scripts.rlaunch_run, "rlaunch", arguments)
    if code == 0:
        _tidy()
    return code


def _tidy() -> None:
    """Remove the output of a job of Slurm or LSF that went well, for there are thousands: the files we print to."""
    batch = ("SLURM_JOB_NAME", "SLURM_JOB_ID") if "SLURM_JOB_ID" in os.environ else ("LSB_JOBNAME", "LSB_JOBID")
    job = "-".join(os.environ.get(name, "") for name in batch)
    files = {stream: Path(os.path.realpath(f"/proc/self/fd/{stream}")) for stream in (1, 2)}
    if {path.name for path in files.values()} != {f"{job}.out", f"{job}.error"}:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    if "Traceback" not in files[2].read_text(errors="replace"):
        for path in files.values():
            path.unlink(missing_ok=True)


def qlaunch(arguments: Sequence[str]) -> int:
    """Run FireWorks' qlaunch; return its exit code."""
    return _run(fireworks.scripts.qlaunch_run, "qlaunch", arguments)


def _cure(arguments: Sequence[str]) -> None:
    # monty >= 2026.2 needs a mode, and FireWorks' offline mode gives none.
    zopen = fireworks.core.rocket.zopen
    fireworks.core.rocket.zopen = functools.wraps(zopen)(lambda path, mode="rt", **more: zopen(path, mode, **more))
    asked = [after for word, after in itertools.pairwise(arguments) if word == "--sleep"]
    if asked[-1:] == ["0"]:
        fireworks.core.rocket_launcher.RAPIDFIRE_SLEEP_SECS = _SHORT_S
        fireworks.queue.queue_launcher.RAPIDFIRE_SLEEP_SECS = _SHORT_S
    # All Fireworks of a campaign share one folder: they must not all write files of one name there. The folder that a
    # worker was started in belongs to the user, empty or not; rapidfire makes its own for each of them.
    fireworks.core.rocket.PRINT_FW_JSON = False
    fireworks.core.rocket.REMOVE_USELESS_DIRS = "rapidfire" in arguments
    fireworks.queue.queue_adapter.QueueAdapterBase.get_script_str = _quoted(_SCRIPT)
    CommonAdapter._parse_njobs = lambda adapter, said, user: _COUNT(adapter, said, user[:_SHOWN_OF_USER])
    fireworks.queue.queue_launcher.SUBMIT_SCRIPT_NAME = f"FW_submit-{unique_suffix()}.script"


def _quoted(theirs: Callable[[Any, str], str]) -> Callable[[Any, str], str]:
    """Return FireWorks' writer of batch scripts with the folder of ``cd`` quoted for the shell."""

    def script(adapter: dict[str, Any], launch_dir: str) -> str:
        lines = theirs(adapter, "/LAUNCH-DIR").split("\n")
        return "\n".join(f"cd {typed(launch_dir)}" if line == "cd /LAUNCH-DIR" else line for line in lines)

    return script


def _run(script: ModuleType, name: str, arguments: Sequence[str]) -> int:
    """Run the function of a FireWorks script that has its name, with the workarounds."""
    if not _COMMANDS & set(arguments):
        raise ConfigError(f"{name}: no command - expected rapidfire or singleshot - see: activelearn {name} --help")
    _cure(arguments)
    script.LaunchPad = PatientLaunchPad  # type: ignore[attr-defined]
    try:
        return getattr(script, name)(list(arguments)) or 0
    except (OSError, ValueError, PyMongoError) as error:  # of their input files, or of the server
        raise ConfigError(
            f"{name}: cannot continue ({type(error).__name__}) - expected -l my_launchpad.yaml of a server that "
            "answers and -w my_fworker.yaml - activelearn doctor -l my_launchpad.yaml"
        ) from None
