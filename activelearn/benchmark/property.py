"""The interface of properties: settings, a plan, a run, and results; and the part of a study that they see."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from activelearn.config import Benchmark, Cited, Glass, Potential, Section, Series, Study
from activelearn.engines.process import Slot
from activelearn.records import Curve, MadeGlass, Missing, Quoted, Result, Task
from activelearn.store import StudyStore
from activelearn.store.glass_product import GlassPath, glasses_of, path_of
from activelearn.store.study import BENCHMARK, ONCE

Arrays = Mapping[str, NDArray[Any]]
Condition = dict[str, str | float]
#: Arrays and meta of what a task publishes. A physical failure is ``{"ended": reason}`` in the meta.
Product = tuple[dict[str, NDArray[Any]], dict[str, Any]]
Settings = TypeVar("Settings", bound=Section | bool)


@dataclass
class Findings:
    """The findings of a property: numbers, lines of figures with their arrays, and failed measurements."""

    results: list[Result] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)

    def lacks(self, name: str, what: str, condition: Condition, why: str) -> None:
        """Record that a measurement failed: which property, of what in words and by its condition, and why."""
        self.problems.append(f"{what}: {why}")
        self.missing.append(Missing(measured_by=name, condition=condition, why=why))

    def add_curve(self, curve: Curve, x: NDArray[Any], y: NDArray[Any], error: NDArray[Any] | None = None) -> None:
        """Add one line with its numbers.

        Parameters
        ----------
        curve
            Its description, and the key of the numbers.
        x, y, error
            (n_points,) in the units of the curve; `error` is the standard error over replicas, None for one.
        """
        self.curves.append(curve)
        self.arrays |= {f"{curve.key}/x": np.asarray(x), f"{curve.key}/y": np.asarray(y)}
        if error is not None:
            self.arrays[f"{curve.key}/error"] = np.asarray(error)

    def extend(self, other: Findings) -> None:
        """Add all findings of another."""
        self.results += other.results
        self.curves += other.curves
        self.arrays |= other.arrays
        self.problems += other.problems
        self.missing += other.missing


@dataclass(frozen=True)
class Context:
    """The part of a study that the functions of a property see.

    Parameters
    ----------
    study
        The settings.
    store
        Its folder; the glasses are sealed in it before anything is planned.
    runs_potential
        Of a property that runs the potential of a glass: glasses that were given have every potential of the study.
    """

    study: Study
    store: StudyStore
    runs_potential: bool = False

    @property
    def benchmark(self) -> Benchmark:
        """The properties to measure, and the settings of the MD runs that they need."""
        assert self.study.benchmark is not None  # a property is called only if it is requested
        return self.study.benchmark

    @property
    def glass(self) -> Glass:
        """How the glasses are made; a ValueError of a study whose glasses were given."""
        return self.study.melt_quench

    @property
    def series(self) -> Series:
        """The series of the glasses, made or given; for properties with `needs_glass`."""
        assert self.study.of_glasses is not None  # a property that needs glasses is called only if there are any
        return self.study.of_glasses.series

    @property
    def max_outside_share(self) -> float:
        """The largest share of a run outside the window with which its numbers are trusted."""
        if self.study.glass is not None:
            return self.study.glass.max_outside_share
        return float(Glass.model_fields["max_outside_share"].default)

    @property
    def glasses(self) -> tuple[MadeGlass, ...]:
        """The glasses that were finished, dense and porous; given ones once for every potential that is to be run."""
        made = glasses_of(self.store)
        if self.study.glasses is None or not self.runs_potential:
            return made
        return tuple(_lent(glass, potential) for potential in self.study.potentials for glass in made)

    def tasks_of(self, name: str, parameters: Mapping[str, Any] | None = None) -> list[Task]:
        """Return one task of a property for every finished glass."""
        return [
            Task(id=f"{name}-{glass.id}", kind=name, parameters={"glass": glass.id, **(parameters or {})})
            for glass in self.glasses
        ]

    def glass_of(self, task: Task) -> MadeGlass:
        """Return the glass that a task measures."""
        return next(glass for glass in self.glasses if glass.id == task.parameters["glass"])

    def path_of(self, task: Task) -> GlassPath:
        """Return the path of the glass that a task measures: its frames and thermo rows."""
        return self.path(self.glass_of(task))

    def path(self, glass: MadeGlass) -> GlassPath:
        """Return the path of a glass; if another potential made it, without that one's force deviations."""
        if self.study.glasses is None or not self.runs_potential:
            return path_of(self.store, glass)
        potential = self.study.potential(glass.potential)
        given = next(one for one in glasses_of(self.store) if _lent(one, potential) == glass)
        path = path_of(self.store, given)
        if given.potential == potential.name:
            return path
        origin = path.frames.origin.copy()
        origin["max_devi_f"] = np.nan
        return replace(path, frames=replace(path.frames, origin=origin))

    def potential_of(self, task: Task) -> Potential:
        """Return the potential of the glass that a task measures, or the one that the task names."""
        name = task.parameters.get("potential") or self.glass_of(task).potential
        return self.study.potential(name)

    def product(self, task: Task) -> Product:
        """Return the published arrays and meta of a task."""
        return self.store.read_product(BENCHMARK, ONCE, task.id)

    def folder(self, task: Task) -> Path:
        """Return the working folder of a task, which survives kills."""
        return self.store.work_folder(BENCHMARK, task.id)

    def rng(self, name: str) -> np.random.Generator:
        """Return the random numbers of a task, by its id."""
        return self.store.rng(ONCE, BENCHMARK, name)


def _lent(glass: MadeGlass, potential: Potential) -> MadeGlass:
    """Return a given glass as one of a potential, which runs with it."""
    if glass.potential == potential.name:
        return glass
    return glass.model_copy(update={"id": f"{potential.slug}-{glass.id}", "potential": potential.name})


#: An element in the name of a result, as the regular expressions of `Observable` find it.
ELEMENT: Final = "([A-Z][a-z]?)"


@dataclass(frozen=True)
class Observable:
    """Declaration of the results of a name: cited numbers are checked against it before any job.

    Parameters
    ----------
    unit
        Of its results.
    low, high
        Possible range, in that unit.
    of
        The conditions of its results, from ``x``, ``crystal``, ``reaction``, ``temperature_K`` and ``pair``;
        none: they apply to the series as a whole.
    """

    unit: str
    low: float = 0.0
    high: float = math.inf
    of: tuple[str, ...] = ("x",)


@dataclass(frozen=True)
class Property(Generic[Settings]):
    """One property; other packages add theirs by an entry point of the group ``activelearn.properties``.

    Parameters
    ----------
    name
        Its key in the section `benchmark`, kind of its tasks and prefix of their ids; for an added one the name of the
        entry point.
    settings
        Type of the value of that key: a :class:`~activelearn.config.Section`, or bool for a property without settings.
        The functions below are called only if the study requests the property, with its settings.
    run
        ``(task, settings, context, slot) -> (arrays, meta)``, which are published. A physical failure is
        ``{"ended": reason}`` in the meta, never an exception.
    results
        ``(settings, context, tasks) -> findings``: replicas averaged, see :mod:`activelearn.benchmark.replicas`.
    plan
        ``(settings, context) -> tasks``: pure, all of them, in a fixed order. Ids begin with the name and contain the
        slug of the potential. None: one task per finished glass, with ``glass`` (its id) among its parameters.
    needs_glass
        False: it is also measured in a study that makes no glasses.
    runs_potential
        It runs a potential with each glass. Of glasses that were given without one it is not measured.
    observables
        Its results by name, a regular expression whose groups are elements; none: no cited number is compared with
        them.
    temperatures_K
        Temperatures of its results, from its settings, if it has any.
    """

    name: str
    settings: type[Settings]
    run: Callable[[Task, Settings, Context, Slot], Product]
    results: Callable[[Settings, Context, Sequence[Task]], Findings]
    plan: Callable[[Settings, Context], list[Task]] | None = None
    needs_glass: bool = True
    runs_potential: bool = False
    observables: Mapping[str, Observable] = field(default_factory=dict)
    temperatures_K: Callable[[Settings], Sequence[float]] | None = None

    def tasks(self, settings: Settings, context: Context) -> list[Task]:
        """Return the tasks of a study that requests it."""
        return self.plan(settings, context) if self.plan is not None else context.tasks_of(self.name)


def with_reference(result: Result, cited: Iterable[Cited], series: str | None) -> Result:
    """Return the result with the cited experiment, if there is one."""
    for number in cited:
        if number.kind == "experiment" and is_of(number, result, series):
            return result.model_copy(
                update={
                    "reference_value": number.value,
                    "reference_uncertainty": number.uncertainty,
                    "reference_bound": number.bound,
                    "reference_source": number.source,
                }
            )
    return result


def condition_of(number: Cited) -> Condition:
    """Return the condition of a cited number, in the form of results."""
    plain = number.model_dump(include={"x", "crystal", "reaction", "temperature_K"}, exclude_none=True)
    return plain | ({"pair": "-".join(number.pair)} if number.pair else {})


def quoted(cited: Iterable[Cited]) -> tuple[Quoted, ...]:
    """Return the numbers of other simulations."""
    return tuple(
        Quoted(
            name=number.property,
            value=number.value,
            unit=number.unit,
            condition=condition_of(number),
            source=number.source,
        )
        for number in cited
        if number.kind == "simulation"
    )


def is_of(number: Cited, result: Result, series: str | None) -> bool:
    """Return whether a number belongs to this result; without x, crystal or reaction it is for a whole series."""
    if number.property != result.name or number.unit != result.unit or result.condition.get("porous"):
        return False
    is_of_series = number.crystal is None and number.reaction is None
    if number.series != series if is_of_series else number.series not in {None, series}:
        return False
    if number.series is None and is_of_series:
        return False
    condition = result.condition
    if any(condition.get(key) != getattr(number, key) for key in ("x", "crystal", "reaction")):
        return False
    pair = None if number.pair is None else "-".join(number.pair)
    expected = {"temperature_K": number.temperature_K, "pair": pair}
    return all(condition.get(key) == value for key, value in expected.items() if value is not None)
