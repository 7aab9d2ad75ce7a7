"""Stamps: which numbers come from a path that left the window of its potential, and how a table or figure says so."""

from __future__ import annotations

import re
from collections.abc import Iterable

from activelearn.records import UNTRUSTED, Curve, Result


def is_untrusted(stamp: str | None) -> bool:
    """Return whether a number must not be shown without its stamp."""
    return stamp is not None and stamp.startswith(UNTRUSTED)


def worst(stamps: Iterable[str | None]) -> str | None:
    """Return the stamp that weighs most: UNTRUSTED before any other, then the larger share, then any at all."""
    return max((stamp for stamp in stamps if stamp is not None), key=_weight, default=None)


def _weight(stamp: str) -> tuple[bool, bool, float]:
    shares = [float(share) for share in re.findall(r"([0-9.]+) %", stamp)]
    return is_untrusted(stamp), bool(shares), max(shares, default=0.0)


def by_potential(shown: Iterable[Result | Curve]) -> dict[str, str]:
    """Return the worst stamp of every potential that is among the results or curves, in their order."""
    found: dict[str, str] = {}
    for one in shown:
        potential = one.condition.get("potential")
        if potential is not None and one.stamp is not None:
            found[str(potential)] = worst([found.get(str(potential)), one.stamp]) or one.stamp
    return found
