"""FireWorks' own `rlaunch` and `qlaunch`, with what is known to bite cured for this process."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Final

import fireworks.core.rocket
import fireworks.core.rocket_launcher
import fireworks.queue.queue_launcher
import fireworks.scripts.qlaunch_run
import fireworks.scripts.rlaunch_run
from pymongo.errors import PyMongoError

from activelearn.errors import ConfigError
from activelearn.store.files import unique_suffix
from activelearn.workflow.launchpads import SharedLaunchPad

#: What `--sleep 0` means here; to FireWorks it is no number, and its default of 60 s takes its place.
_SHORT_S: Final = 0.2


def rlaunch(arguments: Sequence[str]) -> int:
    """Run FireWorks' rlaunch; return its exit code."""
    _cure(arguments)
    fireworks.scripts.rlaunch_run.LaunchPad = SharedLaunchPad
    return _run(fireworks.scripts.rlaunch_run.rlaunch, "rlaunch", arguments)


def qlaunch(arguments: Sequence[str]) -> int:
    """Run FireWorks' qlaunch; return its exit code."""
    _cure(arguments)
    fireworks.scripts.qlaunch_run.LaunchPad = SharedLaunchPad
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
