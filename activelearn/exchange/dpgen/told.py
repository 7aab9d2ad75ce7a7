"""The report of an import on every key: taken, changed, left out or refused, with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from activelearn.exchange.dpgen.given import DpgenFolder, leaves
from activelearn.exchange.dpgen.keys import DpgenKey, Fate
from activelearn.exchange.dpgen.machine_keys import MACHINE
from activelearn.exchange.dpgen.param_keys import PARAM

#: For a key that is in no row.
UNKNOWN: Final = "not a known key of DP-GEN 0.10 to 0.14: check what it does, and add it by hand"
#: Number of keys that are listed by name; more are counted.
_NAMED: Final = 4


@dataclass(frozen=True)
class ToldKeys:
    """The report on the keys of one row.

    Parameters
    ----------
    keys
        Dotted keys, as given.
    fate, ours, why
        As in the row, or as decided for this import.
    """

    keys: tuple[str, ...]
    fate: Fate
    ours: str
    why: str

    def __str__(self) -> str:
        """Return it in one line."""
        ours = f" -> {self.ours}" if self.ours else ""
        return f"{self.fate.value}: {self.named}{ours}{f': {self.why}' if self.why else ''}"

    @property
    def named(self) -> str:
        """The keys, the first ones by name."""
        more = f" and {len(self.keys) - _NAMED} more" if len(self.keys) > _NAMED else ""
        return ", ".join(self.keys[:_NAMED]) + more


@dataclass
class DpgenReport:
    """The report of an import.

    Parameters
    ----------
    refused
        What cannot be expressed and must not be left out, one line each; nothing is then written.
    notes
        Decisions by key of the inputs, which replace those of its row.
    facts
        What was found and made, one sentence each.
    """

    refused: list[str] = field(default_factory=list)
    notes: dict[str, tuple[Fate, str]] = field(default_factory=dict)
    facts: list[str] = field(default_factory=list)

    def refuse(self, key: str, why: str) -> None:
        """Report that a key cannot be expressed."""
        self.notes[key] = Fate.REFUSED, why
        self.refused.append(f"{key}: {why}")

    def say(self, key: str, fate: Fate, why: str) -> None:
        """Report the treatment of a key."""
        self.notes[key] = fate, why

    def keys(self, given: DpgenFolder) -> list[tuple[str, list[ToldKeys]]]:
        """Return the report on all keys of the two inputs, by file, one entry per row of the table."""
        found = [(given.param_file.name, self._told(PARAM, given.param))]
        if given.machine_file is not None:
            found.append((given.machine_file.name, self._told(MACHINE, given.machine)))
        return found

    def _told(self, table: Sequence[DpgenKey], section: dict[str, Any]) -> list[ToldKeys]:
        groups: dict[tuple[Fate, str, str], list[str]] = {}
        for key, value in leaves(section):
            groups.setdefault(self._said(table, key, value), []).append(key)
        order = list(Fate)
        told = [ToldKeys(tuple(dict.fromkeys(keys)), *said) for said, keys in groups.items()]
        return sorted(told, key=lambda one: order.index(one.fate))

    def _said(self, table: Sequence[DpgenKey], key: str, value: Any) -> tuple[Fate, str, str]:  # noqa: ANN401 - raw JSON
        row = row_of(table, key)
        noted = next((self.notes[name] for name in _above(key) if name in self.notes), None)
        if noted is not None:
            return noted[0], row.ours if row and noted[0] in {Fate.TAKEN, Fate.CHANGED} else "", noted[1]
        if row is None:
            return Fate.LEFT_OUT, "", UNKNOWN
        if row.is_off(value):
            return Fate.LEFT_OUT, "", "asks for nothing"
        return row.fate, row.ours, row.why


def _above(key: str) -> Iterable[str]:
    """Yield a dotted key and those above it."""
    parts = key.split(".")
    return (".".join(parts[:n]) for n in range(len(parts), 0, -1))


def row_of(table: Sequence[DpgenKey], key: str) -> DpgenKey | None:
    """Return the first row of a table that applies to a dotted key."""
    return next((row for row in table if row.names_it(key)), None)


def refused_by_table(section: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the keys of a param file that its table refuses, with the reason; each reason once."""
    found: dict[str, str] = {}
    for key, value in leaves(section):
        row = row_of(PARAM, key)
        if row is not None and row.fate is Fate.REFUSED and not row.is_off(value) and row.why not in found.values():
            found[key] = row.why
    return [*found.items()]


def as_markdown(report: DpgenReport, given: DpgenFolder) -> str:
    """Return the report as a page: what was found, then the treatment of every key."""
    lines = [f"# {given.folder.name}, from DP-GEN", "", *(f"- {fact}" for fact in report.facts)]
    for name, told in report.keys(given):
        lines += ["", f"## {name}", "", "| key | what became of it | here | why |", "|---|---|---|---|"]
        for one in told:
            cells = (", ".join(f"`{key}`" for key in one.keys), one.fate.value, one.ours, one.why)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def table_page(table: Sequence[DpgenKey]) -> str:
    """Return a table of keys as in docs/coming-from-dpgen.md."""
    lines = ["| DP-GEN | | here | |", "|---|---|---|---|"]
    for row in table:
        cells = (
            ", ".join(f"`{name}`" for name in row.names),
            row.fate.value,
            ", ".join(f"`{name}`" for name in row.ours.split(", ")) if row.ours else "",
            row.why,
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
