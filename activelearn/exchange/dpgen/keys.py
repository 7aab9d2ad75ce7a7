"""Treatment of each key of DP-GEN: the single table for the report of an import and docs/coming-from-dpgen.md.

Keys of DP-GEN 0.10 to 0.14 (``dpgen/generator/arginfo.py``, dpdispatcher's ``Machine`` and ``Resources``) and of the
examples of that time. A dotted key has no numbers of list items in it: ``model_devi_jobs.temps``. ``*`` stands for one
part of it, ``**`` for all following parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any, Final

#: Values that disable a key.
NOTHING: Final[tuple[Any, ...]] = (None, False, 0, "", [], {})


class Fate(Enum):
    """Treatment of a key."""

    TAKEN = "taken"
    CHANGED = "changed"
    LEFT_OUT = "left out"
    REFUSED = "refused"


@dataclass(frozen=True)
class DpgenKey:
    """One row of the table.

    Parameters
    ----------
    names
        Dotted keys, patterns, and synonyms.
    fate
        Its treatment.
    ours
        Key of a campaign, a machine profile or an option; empty: none.
    why
        What differs, or why it is not taken and what to do.
    off
        Values that disable the key, which is then left out, whatever its fate.
    """

    names: tuple[str, ...]
    fate: Fate
    ours: str
    why: str
    off: tuple[Any, ...] = ()

    def names_it(self, dotted: str) -> bool:
        """Return whether the row applies to a dotted key."""
        return any(_matches(dotted.split("."), name.split(".")) for name in self.names)

    def is_off(self, value: Any) -> bool:  # noqa: ANN401 - raw JSON
        """Return whether a value disables the key."""
        return any(type(value) is type(one) and value == one for one in self.off)


def _matches(parts: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return len(pattern) == 1 or any(_matches(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
