"""Tables of a scoreboard: potentials x properties, and every number of every condition.

``scoreboard.md`` is to be read, ``scoreboard.csv`` and ``.json`` to be worked with, ``results.csv`` has all numbers.
Where an experiment is cited, a potential is given its mean absolute error (MAE) over the compositions (or crystals)
that the experiment is known for; where none is, the table says "no cited value" and gives the number itself.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from activelearn.records import Quoted, Result, Scoreboard
from activelearn.report.stamps import by_potential, is_untrusted, worst

NO_CITED_VALUE: Final = "no cited value"
#: Conditions that a property is averaged over, or has a range over; all others make a row of their own.
_AXES: Final = ("x", "crystal")
#: Conditions as columns, in this order; others follow.
_CONDITIONS: Final = ("x", "crystal", "temperature_K", "pair", "within", "cooling_rate_K_per_ps", "porous")
#: Of a row's label: how a condition is said.
_SAID: Final = {
    "temperature_K": "{:g} K",
    "cooling_rate_K_per_ps": "{:g} K/ps",
    "porous": "porous",
    "within": "within {}",
    "pair": "{}",
}


@dataclass(frozen=True)
class Row:
    """One property under conditions that are not averaged over.

    Parameters
    ----------
    name, unit
        Of its results.
    condition
        What sets it apart from other rows of the name, in words: ``Na-S, within 3.5 Å``; empty where nothing does.
    results
        Of all potentials.
    """

    name: str
    unit: str
    condition: str
    results: tuple[Result, ...]

    @property
    def label(self) -> str:
        """Name and condition."""
        return f"{self.name} ({self.condition})" if self.condition else self.name

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the cited numbers are printed, each once."""
        return tuple(dict.fromkeys(r.reference_source for r in self.results if r.reference_source))

    def of(self, potential: str) -> Cell:
        """Return what one potential has."""
        return Cell(tuple(r for r in self.results if r.condition.get("potential") == potential))


@dataclass(frozen=True)
class Cell:
    """The results of one potential for one property, over compositions or crystals."""

    results: tuple[Result, ...]

    @property
    def errors(self) -> tuple[float, ...]:
        """|value - experiment| of each result that has a cited value (a bound is none)."""
        cited = [r for r in self.results if r.reference_bound is None]
        return tuple(abs(r.value - r.reference_value) for r in cited if r.reference_value is not None)

    @property
    def mae(self) -> float | None:
        """Their mean; None without any."""
        return sum(self.errors) / len(self.errors) if self.errors else None

    @property
    def bounds(self) -> tuple[str, ...]:
        """Whether each cited bound is kept: ``above 60: kept``, ``below 30: missed by 4.1``."""
        bounded = [r for r in self.results if r.reference_bound is not None]
        return tuple(_bound(r, r.reference_value) for r in bounded if r.reference_value is not None)

    @property
    def stamp(self) -> str | None:
        """The worst."""
        return worst(r.stamp for r in self.results)

    @property
    def range(self) -> tuple[float, float] | None:
        """Smallest and largest value."""
        values = [r.value for r in self.results]
        return (min(values), max(values)) if values else None

    @property
    def value(self) -> str:
        """The value with its uncertainty, or the range and what it is over."""
        if len(self.results) == 1:
            (one,) = self.results
            error = f" ± {one.uncertainty:.2g}" if one.uncertainty is not None else ""
            return f"{number(one.value)}{error}"
        return " … ".join(map(number, self.range or ()))

    @property
    def text(self) -> str:
        """What stands in the table."""
        if not self.results:
            return "-"
        said = []
        if self.mae is not None:
            said.append(f"**MAE {number(self.mae)}** (n = {len(self.errors)})")
        said += self.bounds
        return "; ".join([*said, self.value])


def _bound(result: Result, cited: float) -> str:
    missed_by = (cited - result.value) * (1 if result.reference_bound == "above" else -1)
    said = "kept" if missed_by <= 0.0 else f"missed by {number(missed_by)}"
    return f"{result.reference_bound} {number(cited)}: {said}"


def number(value: float) -> str:
    """Return a number with four significant digits, or two and a power of ten where it is tiny or huge."""
    if value != 0.0 and not 1.0e-3 <= abs(value) < 1.0e5:
        return f"{value:.2e}"
    return f"{value:.4g}"


# --- rows -------------------------------------------------------------------------------------------------------------


def rows_of(results: Sequence[Result]) -> list[Row]:
    """Return the rows of the scoreboard, in the order of the results."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    varying = _varying(results)
    for result in results:
        condition = ", ".join(
            _SAID.get(key, f"{key} {{}}").format(result.condition[key])
            for key in sorted(result.condition, key=_order)
            if (result.name, key) in varying
        )
        groups.setdefault((result.name, result.unit, condition), []).append(result)
    return [Row(*key, tuple(group)) for key, group in groups.items()]


def _varying(results: Sequence[Result]) -> set[tuple[str, str]]:
    """Return names of results, and which conditions set their rows apart; pairs of elements always do."""
    seen: dict[tuple[str, str], set[Any]] = {}
    keys = {key for result in results for key in result.condition} - {"potential", *_AXES}
    for result, key in itertools.product(results, keys):
        seen.setdefault((result.name, key), set()).add(result.condition.get(key))
    return {one for one, values in seen.items() if len(values) > 1 or (one[1] == "pair" and values != {None})}


def _order(key: str) -> tuple[int, str]:
    return (_CONDITIONS.index(key) if key in _CONDITIONS else len(_CONDITIONS), key)


# --- files ------------------------------------------------------------------------------------------------------------


def write_tables(board: Scoreboard, folder: Path) -> list[Path]:
    """Write scoreboard.csv, .json and .md, and results.csv.

    Returns
    -------
    list of Path
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = rows_of(board.results)
    paths = [folder / name for name in ("scoreboard.md", "scoreboard.csv", "scoreboard.json", "results.csv")]
    paths[0].write_text(markdown(board, rows), encoding="utf-8")
    _write_csv(paths[1], _scores(board, rows))
    document = {
        "study": board.study,
        "series": board.series,
        "potentials": {
            name: {"physics": board.physics.get(name), "version": board.versions.get(name)} for name in board.potentials
        },
        "scores": _scores(board, rows),
        "other simulations": [one.model_dump() for one in board.quoted],
        "problems": list(board.problems),
    }
    text = json.dumps(_finite(document), indent=1, ensure_ascii=False, allow_nan=False)
    paths[2].write_text(text + "\n", encoding="utf-8")
    _write_csv(paths[3], _numbers(board.results))
    return paths


def _scores(board: Scoreboard, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return one mapping per potential and property that it has."""
    return [
        {
            "potential": potential,
            "property": row.name,
            "condition": row.condition,
            "unit": row.unit,
            "MAE": cell.mae if cell.mae is not None else "; ".join(cell.bounds) or NO_CITED_VALUE,
            "n_cited": len(cell.errors),
            "bounds": "; ".join(cell.bounds),
            "smallest": cell.range[0],
            "largest": cell.range[1],
            "n": len(cell.results),
            "sources": "; ".join(row.sources),
            "stamp": cell.stamp or "",
        }
        for row, potential in itertools.product(rows, board.potentials)
        if (cell := row.of(potential)).range is not None
    ]


def _numbers(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return one mapping per result."""
    keys = sorted({key for result in results for key in result.condition} - {"potential"}, key=_order)
    return [
        {
            "potential": result.condition.get("potential", ""),
            **{key: result.condition.get(key, "") for key in keys},
            "name": result.name,
            "value": result.value,
            "uncertainty": result.uncertainty,
            "unit": result.unit,
            "n": result.n_samples,
            "reference value": result.reference_value,
            "reference uncertainty": result.reference_uncertainty,
            "reference bound": result.reference_bound,
            "reference source": result.reference_source or NO_CITED_VALUE,
            "stamp": result.stamp,
            "note": result.note,
        }
        for result in results
    ]


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        if rows:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def _finite(data: Any) -> Any:  # noqa: ANN401 - JSON
    """Return the document with null where a number is none: JSON has no NaN."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


# --- Markdown ---------------------------------------------------------------------------------------------------------


def markdown(board: Scoreboard, rows: Sequence[Row]) -> str:
    """Return the table for people: head, cited properties, the others, pairs of elements, stamps, sources, problems."""
    cited = [row for row in rows if row.sources]
    others = [row for row in rows if not row.sources]
    pairs = [row for row in others if "pair" in row.results[0].condition]
    plain = [row for row in others if row not in pairs]
    sources = list(dict.fromkeys(source for row in cited for source in row.sources))
    stamps = by_potential(board.results)
    parts = [f"# Scoreboard: {board.study}"]
    parts += [f"Series: {board.series}"] if board.series else []
    parts.append(_head(board, stamps))
    parts += _section("Beside experiment", cited, board, sources)
    parts += _section("Properties with no cited value", plain, board, sources)
    parts += _section("Pairs of elements, no cited value", pairs, board, sources)
    parts += [_legend(board.results, stamps)]
    if sources:
        parts += ["## Sources", "\n".join(f"{i}. {source}" for i, source in enumerate(sources, 1))]
    if board.quoted:
        parts += ["## What other simulations found (not experiment)", _quoted(board.quoted)]
    if board.problems:
        parts += ["## Could not be measured", "\n".join(f"- {problem}" for problem in board.problems)]
    return "\n\n".join(parts) + "\n"


def _head(board: Scoreboard, stamps: dict[str, str]) -> str:
    of_each = (board.physics, board.versions, stamps)
    lines = [[name, *(one.get(name, "-") for one in of_each)] for name in board.potentials]
    return _table(["potential", "physics", "version", "path of its glasses"], lines)


def _section(title: str, rows: Sequence[Row], board: Scoreboard, sources: Sequence[str]) -> list[str]:
    if not rows:
        return []
    lines = []
    for row in rows:
        numbers = ", ".join(str(sources.index(source) + 1) for source in row.sources)
        cited = f"[{numbers}]" if numbers else NO_CITED_VALUE
        cells = [row.of(potential) for potential in board.potentials]
        lines.append([row.label, row.unit, cited, *(c.text + ("†" if is_untrusted(c.stamp) else "") for c in cells)])
    return [f"## {title}", _table(["property", "unit", "experiment", *board.potentials], lines)]


def _legend(results: Iterable[Result], stamps: dict[str, str]) -> str:
    columns = (
        "MAE: mean absolute error over the compositions (or crystals) with a cited experiment, n of them; then the "
        "value ± standard error over replicas, or smallest … largest over all compositions. `results.csv` has all "
        "numbers."
    )
    untrusted = [potential for potential, stamp in stamps.items() if is_untrusted(stamp)]
    return "\n\n".join([columns, *(f"† {stamps[name]} ({name}{_where(name, results)})." for name in untrusted)])


def _quoted(quoted: Sequence[Quoted]) -> str:
    def conditions(one: Quoted) -> str:
        return ", ".join(
            _SAID.get(key, f"{key} = {{}}").format(one.condition[key]) for key in sorted(one.condition, key=_order)
        )

    return _table(
        ["property", "at", "value", "unit", "source"],
        [[one.name, conditions(one) or "the series", number(one.value), one.unit, one.source] for one in quoted],
    )


def _where(potential: str, results: Iterable[Result]) -> str:
    """Return the compositions whose path is not trusted: `` at x = 0, 0.15``."""
    found = {
        float(r.condition["x"])
        for r in results
        if r.condition.get("potential") == potential and is_untrusted(r.stamp) and "x" in r.condition
    }
    return f" at x = {', '.join(f'{x:g}' for x in sorted(found))}; the largest share" if found else ""


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(head), line("---" for _ in head), *(line(cells) for cells in lines)])
