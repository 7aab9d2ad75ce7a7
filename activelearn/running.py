"""Running a campaign from Python, checked first: :func:`activelearn.run`."""

from __future__ import annotations

import logging
from pathlib import Path

from activelearn import loop, page
from activelearn.check import check
from activelearn.check.trial import try_in
from activelearn.config import Campaign, Machine, load_campaign, placed
from activelearn.errors import ConfigError
from activelearn.records import End
from activelearn.store import Consent

log = logging.getLogger(__name__)


def run(
    campaign: Campaign | str | Path,
    folder: str | Path,
    machine: Machine | None = None,
    *,
    accept_changes: bool = False,
    accept_unusual: bool = False,
    wait: bool = False,
) -> End:
    """Check a campaign and run it to its end in this process, or continue where it stopped.

    At the end ``report.html`` is written into the folder, unless the machine profile says ``report: false``.

    Parameters
    ----------
    campaign
        What :func:`activelearn.load` returns, or a path, or the name of a preset.
    folder
        Folder of the campaign; created if missing. It is the same as that of ``activelearn run``, and either continues
        what the other started.
    machine
        Where and how to run; None: all cores of this computer.
    accept_changes
        A campaign that differs from the one the folder was started with takes effect from the next iteration on;
        without this it is refused.
    accept_unusual
        Numbers that ``activelearn check`` calls unusual are intended; recorded in the folder.
    wait
        Wait while another run holds the folder.

    Raises
    ------
    ConfigError
        Something is wrong with the campaign, the machine or the folder; nothing was started.
    FolderHeld
        Another run holds the folder.
    TaskFailed
        A task failed on infrastructure too often; everything else is safe.
    Interrupted
        SIGINT or SIGTERM was received; everything finished is published, and the same call continues. Python delivers
        signals to the main thread only: a run in another thread continues to its end.
    """
    asked = campaign if isinstance(campaign, Campaign) else load_campaign(campaign)
    profile, where = machine or Machine(), Path(folder).expanduser().absolute()
    found = check(asked, profile, where)
    if found.problems:
        file = None if isinstance(campaign, Campaign) else campaign
        raise ConfigError(*placed(found.problems, file, None))
    Consent(where).want_accepted(found.unusual, accept=accept_unusual)
    with loop.opened_for_driving(asked, where, profile, accept_changes=accept_changes, wait=wait) as store:
        store.consent.accept(found.unusual)
        for line in try_in(store, profile):
            log.warning("%s", line)
        end = loop.run_campaign(store, profile)
    page.log_at_end(where, profile)
    return end
