"""Rows and cells of a scoreboard: a value with its interval and the replicas behind it, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from activelearn.records import Experiment, Result, Scoreboard
from activelearn.report.behind import averaged, counted, is_of, number, value_of, why_none, with_interval
from activelearn.report.stamps import marks, stamp_of, worst

#: Conditions that a property is averaged over, or has a range over; all others get a separate row.
AXES: Final = ("x", "crystal")


@dataclass(frozen=True)
class Row:
    """One property under conditions that are not averaged over.

    Parameters
    ----------
    name, unit
        Of its results.
    condition
        What distinguishes it from other rows of the name: ``Na-S, within 3.5 Å``; empty if nothing does.
    results
        Of all potentials.
    measured_by
        The property of the benchmark; None: not known.
    unmet
        Cited numbers that match none of the results.
    """

    name: str
    unit: str
    condition: str
    results: tuple[Result, ...]
    measured_by: str | None = None
    unmet: tuple[Experiment, ...] = ()

    @property
    def label(self) -> str:
        """Name and condition."""
        return f"{self.name} ({self.condition})" if self.condition else self.name

    @property
    def sources(self) -> tuple[str, ...]:
        """Sources of the cited numbers, each once."""
        beside = [r.reference_source for r in self.results if r.reference_source]
        return tuple(dict.fromkeys([*beside, *(one.source for one in self.unmet)]))

    @property
    def experiment(self) -> str:
        """The cited numbers with uncertainties and unit, for many compositions from the smallest to the largest."""
        beside = [
            (r.condition, r.reference_bound, r.reference_value, r.reference_uncertainty)
            for r in self.results
            if r.reference_value is not None
        ]
        unmet = [(one.condition, one.bound, one.value, one.uncertainty) for one in self.unmet]
        cited = {tuple(one[0].get(key) for key in AXES): one[1:] for one in [*beside, *unmet]}
        values = [
            _cited(value, error) for bound, value, error in sorted(cited.values(), key=_by_value) if bound is None
        ]
        said = [f"{values[0]} to {values[-1]}" if values[-1] != values[0] else values[0]] if values else []
        bounds = [f"{bound} {_cited(value, error)}" for bound, value, error in cited.values() if bound is not None]
        unit = "" if self.unit == "1" else f" {self.unit}"
        return "; ".join(f"{one}{unit}" for one in dict.fromkeys([*said, *bounds]))

    def of(self, potential: str, board: Scoreboard) -> Cell:
        """Return what one potential has; `board` has the background."""
        mine = tuple(r for r in self.results if r.condition.get("potential") == potential)
        return Cell(mine, self, potential, board)


def _by_value(cited: tuple[str | None, float, float | None]) -> float:
    return cited[1]


def _cited(value: float, error: float | None) -> str:
    return f"{number(value)} ± {error:.2g}" if error else number(value)


@dataclass(frozen=True)
class Cell:
    """The results of one potential for one property, over compositions or crystals."""

    given: tuple[Result, ...]
    row: Row
    potential: str
    board: Scoreboard

    @property
    def results(self) -> tuple[Result, ...]:
        """The finite ones."""
        return tuple(r for r in self.given if math.isfinite(r.value))

    @property
    def errors(self) -> tuple[float, ...]:
        """|value - experiment| of each result that has a cited value (not a bound), except UNSTABLE ones."""
        return tuple(abs(r.value - r.reference_value) for r in averaged(self._cited) if r.reference_value is not None)

    @property
    def _cited(self) -> list[Result]:
        return [r for r in self.results if r.reference_value is not None and r.reference_bound is None]

    @property
    def n_unstable(self) -> int:
        """Number of UNSTABLE results with a cited value."""
        return len(self._cited) - len(self.errors)

    @property
    def mae(self) -> float | None:
        """Their mean; None if there are none."""
        return sum(self.errors) / len(self.errors) if self.errors else None

    @property
    def bounds(self) -> tuple[str, ...]:
        """Whether each cited bound is kept: ``above 60: kept``, ``below 30: missed by 4.1``."""
        bounded = [r for r in self.results if r.reference_bound is not None]
        return tuple(_bound(r, r.reference_value) for r in bounded if r.reference_value is not None)

    @property
    def stamp(self) -> str | None:
        """The worst."""
        return worst(stamp_of(r) for r in self.results)

    @property
    def range(self) -> tuple[float, float] | None:
        """Smallest and largest value."""
        values = [value_of(r) for r in self.results]
        return (min(values), max(values)) if values else None

    @property
    def value(self) -> str:
        """The value with its interval and replicas, or the smallest and the largest with their range."""
        if not self.results:
            return ""
        by_replicas = sorted(self.results, key=lambda r: r.n_samples)
        each = list(dict.fromkeys(counted(r, self.board.glasses) for r in by_replicas))
        said = each[0] if len(each) == 1 else f"{each[0]} to {each[-1]}"
        if len(self.results) == 1:
            return f"{with_interval(self.results[0])} ({said})"
        ordered = sorted(self.results, key=value_of)
        axis = next((key for key in AXES if key in ordered[0].condition), "values")
        over = {"x": "compositions", "crystal": "crystals"}.get(axis, axis)
        return f"{with_interval(ordered[0])} to {with_interval(ordered[-1])} ({len(ordered)} {over}, {said})"

    @cached_property
    def lacks(self) -> tuple[tuple[dict[str, Any], str], ...]:
        """Conditions without a number, with reasons: those that any potential has, or whose glasses failed."""
        return tuple(self._lacks())

    def _lacks(self) -> Iterator[tuple[dict[str, Any], str]]:
        yield from ((dict(r.condition), "not finite") for r in self.given if not math.isfinite(r.value))
        have = [{key: r.condition[key] for key in AXES if key in r.condition} for r in self.given]
        for place in _places(self.row, self.board):
            if place not in have:
                condition = {**_constant(self.row), **place, "potential": self.potential}
                if why := why_none(self.board, self.row.measured_by, condition) or self._problem():
                    yield condition, why

    def _problem(self) -> str | None:
        """Return the study's reason for a missing number of the series or of a fit."""
        begin = f"{self.row.name} of "
        mine = (p.partition(": ")[2] for p in self.board.problems if p.startswith(begin) and self.potential in p)
        return next(mine, None) if not self.given else None

    @property
    def text(self) -> str:
        """Contents of the table cell."""
        unstable = self.n_unstable
        left_out = f", {unstable} UNSTABLE left out" if unstable else ""
        said = [f"**MAE {number(self.mae)}** (n = {len(self.errors)}{left_out})"] if self.mae is not None else []
        said += ["no MAE: all UNSTABLE"] if unstable and self.mae is None else []
        said += [*self.bounds, self.value] if self.results else []
        reasons: dict[str, list[str]] = {}
        for condition, why in self.lacks:
            place = ", ".join(f"{key} = {condition[key]}" for key in AXES if key in condition)
            reasons.setdefault(why, []).append(place)
        for why, places in reasons.items():
            at = f" at {'; '.join(filter(None, places))}" if any(places) and (self.results or len(reasons) > 1) else ""
            said.append(f"none{at}: {why}")
        return "; ".join(said or [f"none found in {self._n_finished}"]) + marks(self.results)

    @property
    def _n_finished(self) -> str:
        condition = {**_constant(self.row), "potential": self.potential}
        mine = [glass for glass in self.board.glasses if is_of(glass, condition) and glass.is_finished]
        return f"{len(mine)} glass{'es' if len(mine) != 1 else ''}" if mine else "what was measured"


def _constant(row: Row) -> dict[str, Any]:
    """Return the conditions that all results of a row share, those of its axes and the potential left out."""
    first = row.results[0].condition if row.results else {}
    items = ((k, v) for k, v in first.items() if k not in {*AXES, "potential"})
    return {k: v for k, v in items if all(r.condition.get(k) == v for r in row.results)}


def _places(row: Row, board: Scoreboard) -> list[dict[str, Any]]:
    """Return the compositions (or crystals) of a row: results, cited numbers, failed measurements and glasses."""
    conditions = [one.condition for one in row.results] + [one.condition for one in row.unmet]
    if not row.results:
        conditions += [one.condition for one in board.missing if one.measured_by == row.measured_by]
    places: list[dict[str, Any]] = [{k: one[k] for k in AXES if k in one} for one in conditions]
    if not places or "x" in places[0]:
        places += [{"x": g.x} for g in board.glasses if not g.is_finished and is_of(g, _constant(row))]
    found: list[dict[str, Any]] = []
    for place in places or [{}]:
        if place not in found:
            found.append(place)
    return sorted(found, key=lambda place: float(place["x"])) if found and all("x" in p for p in found) else found


def _bound(result: Result, cited: float) -> str:
    missed_by = (cited - result.value) * (1 if result.reference_bound == "above" else -1)
    said = "kept" if missed_by <= 0.0 else f"missed by {number(missed_by)}"
    return f"{result.reference_bound} {number(cited)}: {said}"
