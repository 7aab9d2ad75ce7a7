"""The LaunchPad that a campaign was submitted to, and why the campaign stopped there.

``submitted.json`` names the one LaunchPad whose Fireworks may work in the folder (no credentials: host and database):
Fireworks of another LaunchPad, or from before `activelearn run` took over, find that out and end quietly.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from activelearn.store.files import read_object, replace_json, sealed


@dataclass(frozen=True)
class Submission:
    """One submission of a folder.

    Parameters
    ----------
    launchpad
        Host and database, as seen where it was submitted.
    database
        Identity of the database itself: changes when it is dropped.
    token
        Identity: failures of infrastructure are counted from one submission to the next.
    time
        Unix time, s.
    """

    launchpad: str
    database: str
    token: str
    time: float


class Submissions:
    """The submission of a folder, and its stop.

    Parameters
    ----------
    folder
        Of a campaign or a study.
    """

    def __init__(self, folder: Path) -> None:
        self._submitted = folder / "submitted.json"
        self._stopped = folder / "stopped.json"

    def current(self) -> Submission | None:
        """Return the current submission, or None if the folder is not submitted."""
        found = _read(self._submitted, launchpad=str, database=str, token=str, time=float)
        return None if found is None else Submission(**{key: found[key] for key in Submission.__dataclass_fields__})

    def submit(self, launchpad: str, database: str) -> Submission:
        """Record a submission; one that continues (same database, not stopped) is left as it is."""
        now = self.current()
        if now is not None and now.database == database and self.stop_message() is None:
            return now
        now = Submission(launchpad, database, uuid.uuid4().hex[:12], time.time())
        replace_json(self._submitted, sealed(asdict(now)))
        self._stopped.unlink(missing_ok=True)
        return now

    def follow(self, other: Submissions) -> None:
        """Take over the submission of another folder: a study that of its campaign."""
        if (now := other.current()) is not None:
            replace_json(self._submitted, sealed(asdict(now)))

    def withdraw(self) -> Submission | None:
        """End the submission and return it. Its Fireworks end quietly from now on."""
        now = self.current()
        self._submitted.unlink(missing_ok=True)
        self._stopped.unlink(missing_ok=True)
        return now

    def stop(self, message: str) -> None:
        """Record why the campaign stopped; the next submission clears it."""
        replace_json(self._stopped, sealed({"message": message, "time": time.time()}))

    def stop_message(self) -> str | None:
        """Return why the campaign stopped, or None if it has not."""
        found = _read(self._stopped, message=str)
        return None if found is None else str(found["message"])


def _read(path: Path, **kinds: type) -> dict[str, Any] | None:
    try:
        return read_object(path, **kinds)
    except FileNotFoundError:
        return None
