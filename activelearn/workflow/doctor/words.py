"""Findings of the doctor, and how ids, times and secrets are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fireworks import LaunchPad

#: User and password of a URI.
_CREDENTIALS: Final = re.compile(r"(?<=://)[^/\s]+@")
_N_IDS: Final = 6


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Parameters
    ----------
    kind
        One word.
    what
        A sentence for the user.
    next
        What --fix does, or what the user must do.
    repairable
        Whether --fix helps.
    workflow
        Smallest id of the Fireworks of the Workflow that it is in.
    fw_ids, launch_ids
        What it is about.
    until
        Last sign of life of those, s since 1970: anything with a newer one is left alone.
    """

    kind: str
    what: str
    next: str
    repairable: bool = False
    workflow: int | None = None
    fw_ids: tuple[int, ...] = ()
    launch_ids: tuple[int, ...] = ()
    until: float = 0.0


def counted(n: int, noun: str) -> str:
    """Return how many there are of something."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def numbers(ids: Sequence[int]) -> str:
    """Return ids, the first few of many."""
    shown = ", ".join(map(str, ids[:_N_IDS]))
    return shown if len(ids) <= _N_IDS else f"{shown} and {len(ids) - _N_IDS} more"


def are(things: Sequence[object]) -> str:
    """Return the verb that goes with them."""
    return "is" if len(things) == 1 else "are"


def without_credentials(text: str, launchpad: LaunchPad) -> str:
    """Return a text from elsewhere, such as a stored exception, without credentials of databases."""
    password = getattr(launchpad, "password", None)
    cleaned = _CREDENTIALS.sub("", text)
    return cleaned.replace(password, "***") if password else cleaned
