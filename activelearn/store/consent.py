"""The user's recorded consent: how many walks and labels may be given up, and which unusual numbers are intended."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from activelearn.errors import ConfigError
from activelearn.store.files import publish_json, read_object, sealed


class Consent:
    """How many tasks of a campaign may be refused, and which have been.

    Each refusal takes a place of its own, ``refused/<k>.json``, before the product that says "refused" is published:
    workers that refuse at the same time cannot exceed the limit, and a kill in between is harmless, because the same
    task finds its place again.

    Parameters
    ----------
    folder
        The campaign folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def give(self, n: int, text: str) -> None:
        """Record that at most `n` tasks may be refused; the largest number counts, a smaller one has no effect.

        Parameters
        ----------
        n
            Of the whole campaign, those of earlier runs included.
        text
            What the user agreed to.
        """
        if n <= self.limit:
            return
        record = sealed({"n": n, "text": text, "time": time.time()})
        if not publish_json(self.folder / "consent.json", record):  # there is one already, which this raises
            publish_json(self.folder / f"consent-{n}.json", record)

    def accept(self, unusual: Sequence[str]) -> None:
        """Record that these unusual numbers, one line each, are intended; earlier ones are kept."""
        if new := self.not_accepted(unusual):
            name = hashlib.sha256("\n".join(new).encode()).hexdigest()[:12]
            publish_json(self.folder / f"unusual-{name}.json", sealed({"accepted": new, "time": time.time()}))

    def not_accepted(self, unusual: Sequence[str]) -> list[str]:
        """Return the lines that have not been accepted yet; key and value are compared."""
        known = {line.split(" - ")[0] for path in self.folder.glob("unusual-*.json") for line in _accepted(path)}
        return [line for line in unusual if line.split(" - ")[0] not in known]

    def want_accepted(self, unusual: Sequence[str], *, accept: bool) -> None:
        """Refuse what is unusual and has not been accepted.

        Raises
        ------
        ConfigError
            One line each, with what to do about it.
        """
        if not accept and (new := self.not_accepted(unusual)):
            raise ConfigError(*(f"unusual: {line} - fix it, or add --accept-unusual if it is intended" for line in new))

    @property
    def limit(self) -> int:
        """How many tasks may be refused."""
        return max((int(read_object(path, n=int)["n"]) for path in self.folder.glob("consent*.json")), default=0)

    @property
    def refused(self) -> list[str]:
        """Names of the tasks that have a place, in no particular order."""
        return [str(read_object(path, task=str)["task"]) for path in (self.folder / "refused").glob("*.json")]

    @property
    def n_refused(self) -> int:
        """How many places are taken."""
        return sum(1 for _ in (self.folder / "refused").glob("*.json"))

    def note(self, task: str) -> bool:
        """Take a place for `task`, or find the one it has, before its refusal is published.

        Returns
        -------
        bool
            Whether the task may be refused. False: there is no consent, or its number is used up.
        """
        if task in self.refused:
            return True
        k = 1
        while k <= self.limit:
            path = self.folder / "refused" / f"{k}.json"
            if not path.is_file() and publish_json(path, sealed({"task": task, "time": time.time()})):
                return True
            k += 1
        return False

    def next_step(self) -> str:
        """Return what the user may do about a task that keeps failing, other than fixing the cause."""
        if self.limit == 0:
            return "walks and labels may be given up with --refuse-infrastructure-failures N, at most N per campaign"
        return (
            f"{self.n_refused} walks and labels have been given up, and --refuse-infrastructure-failures "
            f"{self.limit} allows no more; give a larger number to allow it"
        )


def _accepted(path: Path) -> list[str]:
    return [str(line) for line in read_object(path, accepted=list)["accepted"]]
