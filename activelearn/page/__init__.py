"""The page: one HTML file that shows a campaign or a study, and opens from disk."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from activelearn.config import Machine, load_machine
from activelearn.errors import ActiveLearnError, one_line
from activelearn.page.document import page
from activelearn.page.findings import RULES, PageFinding, bounds_of, findings_of
from activelearn.page.seen import Seen, see_campaign, see_study
from activelearn.store import Store, StudyStore
from activelearn.store.files import replace_text

log = logging.getLogger(__name__)
#: The file in the folder of the campaign or study.
NAME: Final = "report.html"
#: How the line on a page that could not be written begins.
_NONE: Final = "no page of"


def look(folder: Path) -> Seen:
    """Return what is known about the folder of a campaign or a study.

    Raises
    ------
    ConfigError
        The folder contains neither.
    StoreError
        It was written by a newer version, or its records are corrupt.
    """
    if (folder / "study.yaml").is_file():
        return see_study(StudyStore.open(folder))
    return see_campaign(Store.open(folder))


def write_page(
    folder: Path, to: Path | None = None, bounds: Mapping[str, float] | None = None, *, refresh_s: float | None = None
) -> tuple[Path, list[PageFinding]]:
    """Write the page of a folder, atomically replacing the old one; return its path and the findings.

    Parameters
    ----------
    folder
        Of a campaign or a study, such as ``runs/quickstart``.
    to
        The file; None: ``report.html`` in the folder.
    bounds
        Of findings, by key; None: the defaults.
    refresh_s
        After how long the page loads itself again, s; None: it is one that stays.

    Raises
    ------
    ConfigError
        The folder contains neither a campaign nor a study.
    StoreError
        Its records are corrupt, or the disk is not writable.
    """
    seen = look(folder)
    path = to if to is not None else folder / NAME
    replace_text(path, page(seen, folder.absolute(), bounds, refresh_s=refresh_s))
    return path, findings_of(seen, bounds)


def bounds_in(folder: Path, given: Sequence[str] = ()) -> dict[str, float]:
    """Return the bounds of findings of a folder: as given, else as the machine profile of its last run has them.

    Parameters
    ----------
    folder
        Of a campaign or a study.
    given
        ``key=number`` of the command line.

    Raises
    ------
    ConfigError
        There is no such rule, or it is no number.
    """
    path, of_machine = folder / "machine.yaml", dict[str, float]()
    with suppress(ActiveLearnError):  # the page says that it cannot be read, and is still written
        of_machine = load_machine(str(path)).finding_bounds if path.is_file() else {}
    return bounds_of(given, RULES, of_machine)


def at_end(folder: Path, machine: Machine) -> str:
    """Write the page at the end of a run, and return a line on it; nothing that goes wrong stops the run.

    Parameters
    ----------
    folder
        Of a campaign or a study.
    machine
        Says whether to write a page, and with which bounds.
    """
    if machine.report is False:
        return ""
    try:
        path, found = write_page(folder, bounds=bounds_of((), RULES, machine.finding_bounds))
    except Exception as error:  # a picture is no reason for a run to fail
        log.debug("no page", exc_info=True)
        return f"{_NONE} {folder.name}: {one_line(str(error)) or type(error).__name__}"
    with suppress(OSError, ValueError):  # the working directory is gone, or the page is not in it
        path = path.relative_to(Path.cwd())
    n = sum(one.rule.stake == "trust" for one in found)
    doubts = f", {n} of them about trust" if n else ""
    return f"page: {path}; {len(found)} finding{'s' if len(found) != 1 else ''}{doubts}"


def log_at_end(folder: Path, machine: Machine) -> None:
    """Write the page as :func:`at_end` does, where no command prints its line: in the log, a failure as a warning.

    Parameters
    ----------
    folder
        Of a campaign or a study.
    machine
        Says whether to write a page, and with which bounds.
    """
    if line := at_end(folder, machine):
        log.log(logging.WARNING if line.startswith(_NONE) else logging.INFO, "%s", line)
