"""Cited numbers compared with a study: invalid ones are refused, those that this study does not use are listed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from activelearn import packing
from activelearn.benchmark.property import Observable, Property, condition_of, is_of
from activelearn.benchmark.rdf import pairs_of
from activelearn.config import (
    Cited,
    CitedPoint,
    Crystals,
    Glass,
    OwnGlasses,
    Reactions,
    Study,
    property_of,
    shipped_numbers,
)
from activelearn.config.benchmark import PROPERTIES
from activelearn.config.messages import nearest
from activelearn.records import Experiment, Result

#: Conversion factors of other units.
_FACTORS: Final = {
    ("kg/m3", "g/cm3"): 1e-3, ("MPa", "GPa"): 1e-3, ("kbar", "GPa"): 0.1, ("S/m", "S/cm"): 1e-2,
    ("mS/cm", "S/cm"): 1e-3, ("m2/s", "cm2/s"): 1e4, ("nm", "Å"): 10.0, ("pm", "Å"): 1e-2, ("nm3", "Å3"): 1e3,
    ("meV", "eV"): 1e-3, ("kJ/mol", "eV"): 0.0103643, ("1", "%"): 100.0, ("%", "1"): 1e-2,
}  # fmt: skip


def own_points(study: Study, points: Sequence[CitedPoint]) -> list[CitedPoint]:
    """Return the numbers given by the user: those of CSVs, and those in the YAML of the study."""
    known = {*shipped_numbers(), *(point.number for point in points)}
    own = [CitedPoint(f"cited.{i}", number) for i, number in enumerate(study.cited) if number not in known]
    return [*points, *own]


def problems(study: Study, points: Sequence[CitedPoint]) -> Iterator[str]:
    """Yield the problems of numbers that are invalid in any study: an unknown property, another unit ..."""
    for point in points:
        if point.number.kind == "experiment" and (wrong := _wrong(point.number, study)):
            yield f"{point.where}: {wrong}"


def said(study: Study, points: Sequence[CitedPoint], results: Sequence[Result] | None = None) -> list[str]:
    """Return one line on how many of the numbers are used, and one on each unused one with the reason.

    Parameters
    ----------
    study
        The settings.
    points
        From :func:`own_points`; simulations are not counted.
    results
        What was measured; None: not known yet.
    """
    experiments = [point for point in points if point.number.kind == "experiment"]
    if not experiments:
        return []
    unused = []
    for i, point in enumerate(experiments):
        if why := _unused(point.number, study, results) or _again(point, experiments[:i]):
            unused.append(f"cited, not used: {point.where}: {why}")
    n = len(experiments)
    will = "are" if results is not None else "will be"
    return [f"cited: {n - len(unused)} of {n} points {will} used", *unused]


def unmet(study: Study, results: Sequence[Result]) -> tuple[Experiment, ...]:
    """Return the experiments on requested properties without a result: it failed, or all glasses died."""
    series = study.of_glasses.series.name if study.of_glasses is not None else None
    lacking: dict[str, Experiment] = {}
    for number in study.cited:
        found = _found(number.property, study)
        if number.kind != "experiment" or found is None or _elsewhere(number, study) is not None:
            continue
        condition = condition_of(number)
        if not any(is_of(number, result, series) for result in results):
            one = Experiment(
                name=number.property,
                value=number.value,
                unit=number.unit,
                condition=condition,
                source=number.source,
                uncertainty=number.uncertainty,
                bound=number.bound,
                measured_by=found[0].name,
            )
            lacking.setdefault(f"{number.property} {condition}", one)  # the first one counts, as for results
    return tuple(lacking.values())


# --- of no study ------------------------------------------------------------------------------------------------------


def _properties(study: Study) -> list[Property[Any]]:
    """Return the built-in properties, and those of other packages that the study requests."""
    asked = study.benchmark.asked if study.benchmark is not None else {}
    return [property_of(name) for name in dict.fromkeys([*PROPERTIES.built_in, *asked])]


def _found(name: str, study: Study) -> tuple[Property[Any], re.Match[str], Observable] | None:
    for one in _properties(study):
        for pattern, observable in one.observables.items():
            if match := re.fullmatch(pattern, name):
                return one, match, observable
    return None


def _may_be_measured(name: str, study: Study) -> bool:
    """Return whether a property of another package that does not declare its results may give one of this name."""
    added = [one for one in _properties(study) if one.name not in PROPERTIES.built_in and not one.observables]
    return bool(added) and _found(name, study) is None


def _wrong(number: Cited, study: Study) -> str | None:
    if _may_be_measured(number.property, study):
        return None
    found = _found(number.property, study)
    if found is None:
        patterns = [pattern for one in _properties(study) for pattern in one.observables]
        plain = [name for pattern in patterns for name in pattern.split("|") if re.fullmatch(r"\w+", name)]
        hint = f"{nearest(number.property, plain)} - see column name of results.csv"
        return f"property {number.property!r}: nothing measures it - {hint}"
    observable = found[2]
    if number.unit != observable.unit:
        factor = _FACTORS.get((number.unit, observable.unit))
        do = "convert it" if factor is None else f"write {number.value * factor:.10g} {observable.unit}"
        return f"unit {number.unit} of {number.property} - expected {observable.unit} - {do}"
    if not observable.low <= number.value <= observable.high:
        between = f"{observable.low:g} to {observable.high:g}".replace(" to inf", " or more")
        return f"{number.property} {number.value:g} {number.unit} - expected {between} - check the value and its unit"
    if "crystal" in observable.of and number.crystal is None:
        return f"{number.property} is of a crystal - expected the column crystal - add the name of its seed"
    if "reaction" in observable.of and number.reaction is None:
        return f"{number.property} is of a reaction - expected the column reaction - add its name in the equations"
    if {"crystal", "reaction"}.isdisjoint(observable.of) and number.series is None:
        return f"{number.property} is of a series - expected the column series - add its name"
    if "x" in observable.of and number.x is None:
        return f"{number.property} is of one composition - expected the column x - add it"
    if number.temperature_K is None and len(there := _temperatures(*found[::2], study)) > 1:
        said = ", ".join(f"{one:g}" for one in there)
        return f"{number.property} is of one temperature of {said} K - expected the column temperature_K - add it"
    return None


def _temperatures(one: Property[Any], observable: Observable, study: Study) -> Sequence[float]:
    """Return the temperatures at which a study measures a property; of others none."""
    asked = study.benchmark.asked if study.benchmark is not None else {}
    if one.temperatures_K is None or one.name not in asked or "temperature_K" not in observable.of:
        return ()
    return one.temperatures_K(asked[one.name])


# --- of another study -------------------------------------------------------------------------------------------------


def _unused(number: Cited, study: Study, results: Sequence[Result] | None) -> str | None:
    """Return why a number is not compared with a result, or None if it is (or will be)."""
    if why := _elsewhere(number, study):
        return why
    series = study.of_glasses.series.name if study.of_glasses is not None else None
    if results is None or any(is_of(number, result, series) for result in results):
        return None
    return f"no {number.property} was measured there"


def _elsewhere(number: Cited, study: Study) -> str | None:
    if _may_be_measured(number.property, study):
        return None
    found = _found(number.property, study)
    asked = study.benchmark.asked if study.benchmark is not None else {}
    if found is None or found[0].name not in asked:
        owner = f"benchmark.{found[0].name} is off" if found is not None else "unknown"
        return f"{number.property}: not measured in this study ({owner})"
    one, match, observable = found
    settings: Any = asked[one.name]
    if isinstance(settings, Crystals):
        return _differs("crystal", number.crystal, settings.seeds)
    if isinstance(settings, Reactions):
        return _differs("reaction", number.reaction, [*settings.equations])
    if (glass := study.of_glasses) is None:
        return "this study makes no glasses"
    wrong = _differs("series", number.series, [glass.series.name])
    if wrong is None and (strangers := sorted({e for e in match.groups() if e} - _elements(glass))):
        wrong = f"{number.property}: no {', '.join(strangers)} in the series {glass.series.name}"
    if wrong is None:
        wrong = _differs("x", number.x, [c.x for c in glass.compositions] if "x" in observable.of else [None])
    if wrong is None and number.temperature_K is not None:
        wrong = _differs("temperature_K", number.temperature_K, _temperatures(one, observable, study) or [None])
    if wrong is None and (number.pair is not None or "pair" in observable.of):
        pairs = ["-".join(pair) for pair in pairs_of(sorted(_elements(glass)), glass.series)]
        wrong = _differs("pair", "-".join(number.pair or ()) or None, pairs if "pair" in observable.of else [None])
    return wrong


def _again(point: CitedPoint, before: Sequence[CitedPoint]) -> str | None:
    """Return which earlier number has the same condition: the first one counts."""
    same = ("property", "unit", "series", "x", "crystal", "reaction", "temperature_K", "pair")
    key = point.number.model_dump(include=set(same))
    first = next((one for one in before if one.number.model_dump(include=set(same)) == key), None)
    return None if first is None else f"the same condition as {first.where}, which counts"


def _elements(glass: Glass | OwnGlasses) -> set[str]:
    return packing.elements_of(unit for composition in glass.compositions for unit in composition.units)


def _differs(key: str, requested: object, there: Sequence[object]) -> str | None:
    def said(one: object) -> str:
        return "none" if one is None else f"{one:.10g}" if isinstance(one, float) else str(one)

    if requested in there:
        return None
    if list(there) == [None]:
        return f"{key} = {said(requested)}: its results have no {key} - leave the cell empty"
    return f"{key} = {said(requested)}: the study has {', '.join(map(said, there))}"
