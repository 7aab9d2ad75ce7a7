"""FireWorks' own `rlaunch` and `qlaunch`, with what is known to bite cured for this process."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import fireworks.core.rocket
import fireworks.core.rocket_launcher
import fireworks.queue.queue_launcher
import fireworks.scripts.qlaunch_run
import fireworks.scripts.rlaunch_run
import pymongo
from pymongo.errors import ConnectionFailure, PyMongoError

from activelearn.errors import ConfigError
from activelearn.store.files import unique_suffix
from activelearn.workflow.launchpads import ANSWER_S, SharedLaunchPad

log = logging.getLogger(__name__)
#: How long a worker waits for a server that is being restarted, s. pymongo gives up after 30, and a job that has just
#: done its work would not find anybody to tell.
PATIENCE_S: Final = 600.0
#: What `--sleep 0` means here; to FireWorks it is no number, and its default of 60 s takes its place.
_SHORT_S: Final = 0.2


class PatientLaunchPad(SharedLaunchPad):
    """The LaunchPad as a worker has it, that waits for its server."""

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> PatientLaunchPad:
        """Return the LaunchPad that a dictionary (of my_launchpad.yaml) describes; say so if it does not answer."""
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
    _cure(arguments)
    fireworks.scripts.rlaunch_run.LaunchPad = PatientLaunchPad
    return _run(fireworks.scripts.rlaunch_run.rlaunch, "rlaunch", arguments)


def qlaunch(arguments: Sequence[str]) -> int:
    """Run FireWorks' qlaunch; return its exit code."""
    _cure(arguments)
    fireworks.scripts.qlaunch_run.LaunchPad = PatientLaunchPad
    return _run(fireworks.scripts.qlaunch_run.qlaunch, "qlaunch", arguments)


def _cure(arguments: Sequence[str]) -> None:
    # monty >= 2026.2 wants a mode, and FireWorks' offline mode gives none.
    zopen = fireworks.core.rocket.zopen
    fireworks.core.rocket.zopen = functools.wraps(zopen)(lambda path, mode="rt", **more: zopen(path, mode, **more))
    asked = [after for word, after in itertools.pairwise(arguments) if word == "--sleep"]
    if asked and asked[-1] == "0":
        fireworks.core.rocket_launcher.RAPIDFIRE_SLEEP_SECS = _SHORT_S
        fireworks.queue.queue_launcher.RAPIDFIRE_SLEEP_SECS = _SHORT_S
    # All Fireworks of a campaign stand in one folder: nothing may be written there by all of them under one name. The
    # folder that a worker was started in is its user's, empty or not; rapidfire makes one of its own for each of them.
    fireworks.core.rocket.PRINT_FW_JSON = False
    fireworks.core.rocket.REMOVE_USELESS_DIRS = "rapidfire" in arguments
    fireworks.queue.queue_launcher.SUBMIT_SCRIPT_NAME = f"FW_submit-{unique_suffix()}.script"


def _run(theirs: Callable[[Sequence[str]], int | None], name: str, arguments: Sequence[str]) -> int:
    try:
        return theirs(list(arguments)) or 0
    except (OSError, ValueError, PyMongoError) as error:  # of the files they are given, or of the server
        raise ConfigError(
            f"{name}: cannot go on ({type(error).__name__}) - wanted -l my_launchpad.yaml of a server that answers "
            "and -w my_fworker.yaml - activelearn doctor -l my_launchpad.yaml"
        ) from None
