"""What every property of a benchmark is: a plan, a run, and results; and how replicas become one number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelearn.config import Cited, Study
from activelearn.engines.process import Slot
from activelearn.records import Curve, MadeGlass, Quoted, Result, Task
from activelearn.store import StudyStore
from activelearn.store.study import BENCHMARK, ONCE

Arrays = Mapping[str, NDArray[Any]]
Condition = dict[str, str | float]


@dataclass
class Findings:
    """What a property found: numbers, lines of figures with their arrays, and what could not be measured."""

    results: list[Result] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add_curve(self, curve: Curve, x: NDArray[Any], y: NDArray[Any], error: NDArray[Any] | None = None) -> None:
        """Add one line with its numbers; `error` is the standard error over replicas."""
        self.curves.append(curve)
        self.arrays |= {f"{curve.key}/x": np.asarray(x), f"{curve.key}/y": np.asarray(y)}
        if error is not None:
            self.arrays[f"{curve.key}/error"] = np.asarray(error)

    def extend(self, other: Findings) -> None:
        """Take over all of another's."""
        self.results += other.results
        self.curves += other.curves
        self.arrays |= other.arrays
        self.problems += other.problems


@dataclass(frozen=True)
class Property:
    """One property.

    Parameters
    ----------
    name
        Kind of its tasks and prefix of their ids.
    plan
        ``(study, store) -> tasks``: pure, all of them, in a fixed order; none if the study does not ask for it. Ids
        begin with the name and contain the slug of the potential. The glasses are sealed by then (`glasses`).
    run
        ``(task, store, slot) -> (arrays, meta)``: what is published. A physical failure is ``{"ended": reason}`` in the
        meta, never an exception.
    results
        ``(study, store, tasks) -> findings``: replicas averaged; reads products by :func:`product`.
    """

    name: str
    plan: Callable[[Study, StudyStore], list[Task]]
    run: Callable[[Task, StudyStore, Slot], tuple[dict[str, NDArray[Any]], dict[str, Any]]]
    results: Callable[[Study, StudyStore, Sequence[Task]], Findings]


def product(store: StudyStore, task: Task) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return arrays and meta of a task's product."""
    return store.read_product(BENCHMARK, ONCE, task.id)


def condition_of(glass: MadeGlass) -> Condition:
    """Return what a number of a glass is labelled with; replicas of one glass have the same."""
    condition: Condition = {"potential": glass.potential, "x": glass.x}
    if glass.cooling_rate_K_per_ps is not None:
        condition["cooling_rate_K_per_ps"] = glass.cooling_rate_K_per_ps
    if glass.is_porous:
        condition["porous"] = "yes"
    return condition


def by_condition(glasses: Iterable[MadeGlass]) -> list[tuple[Condition, list[MadeGlass]]]:
    """Return the replicas of every condition, in the order they come."""
    groups: dict[tuple[Any, ...], list[MadeGlass]] = {}
    for glass in glasses:
        groups.setdefault(tuple(condition_of(glass).items()), []).append(glass)
    return [(dict(key), group) for key, group in groups.items()]


def stamp_of(glasses: Sequence[MadeGlass]) -> str | None:
    """Return the worst stamp of some replicas: the largest share outside the window, or that nobody judged."""
    judged = [glass for glass in glasses if glass.is_trusted is not None]
    if not judged:
        return glasses[0].stamp if glasses else None
    return max(judged, key=lambda glass: (not glass.is_trusted, glass.outside_share or 0.0)).stamp


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and its standard error (sample standard deviation over the root of n; None of one value)."""
    array = np.asarray(values, dtype=np.float64)
    error = None if len(array) < 2 else float(array.std(ddof=1) / math.sqrt(len(array)))
    return float(array.mean()), error


def averaged(
    name: str,
    unit: str,
    values: Sequence[float],
    condition: Condition,
    *,
    stamp: str | None = None,
    note: str | None = None,
) -> Result:
    """Return one result from the values of its replicas."""
    mean, error = mean_and_error(values)
    return Result(
        name=name,
        value=mean,
        unit=unit,
        uncertainty=error,
        n_samples=len(values),
        condition=condition,
        stamp=stamp,
        note=note,
    )


def with_reference(result: Result, cited: Iterable[Cited], series: str | None) -> Result:
    """Return the result beside the experiment that is cited for it, if there is one."""
    for number in cited:
        if number.kind == "experiment" and _is_of(number, result, series):
            return result.model_copy(
                update={
                    "reference_value": number.value,
                    "reference_uncertainty": number.uncertainty,
                    "reference_bound": number.bound,
                    "reference_source": number.source,
                }
            )
    return result


def quoted(cited: Iterable[Cited]) -> tuple[Quoted, ...]:
    """Return what other simulations found."""
    return tuple(
        Quoted(
            name=number.property,
            value=number.value,
            unit=number.unit,
            condition=number.model_dump(include={"x", "crystal", "temperature_K"}, exclude_none=True)
            | ({"pair": "-".join(number.pair)} if number.pair else {}),
            source=number.source,
        )
        for number in cited
        if number.kind == "simulation"
    )


def _is_of(number: Cited, result: Result, series: str | None) -> bool:
    """Say whether a number is of this result: one without x and crystal is of a series as a whole (a crossing)."""
    if number.property != result.name or number.unit != result.unit or result.condition.get("porous"):
        return False
    if number.series != series if number.crystal is None else number.series not in {None, series}:
        return False
    if number.series is None and number.crystal is None:
        return False
    condition = result.condition
    if condition.get("x") != number.x or condition.get("crystal") != number.crystal:
        return False
    pair = None if number.pair is None else "-".join(number.pair)
    wanted = {"temperature_K": number.temperature_K, "pair": pair}
    return all(condition.get(key) == value for key, value in wanted.items() if value is not None)
