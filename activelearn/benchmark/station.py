"""The station of benchmarks: every property that a study requests, as tasks; sealed as one scoreboard."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from activelearn.benchmark.property import Context, Findings, Property, quoted, with_reference
from activelearn.config import Study, property_of
from activelearn.engines.process import Slot
from activelearn.records import Scoreboard, Task
from activelearn.store import StudyStore
from activelearn.store.files import publish_npz, read_object
from activelearn.store.glass_product import all_glasses_of, glasses_of
from activelearn.store.study import BENCHMARK, ONCE
from activelearn.tasks import Station


def asked_of(study: Study) -> Iterator[tuple[Property[Any], Any]]:
    """Yield the properties that a study requests, each with its settings, in the order of the tables.

    Raises
    ------
    ConfigError
        A property of another package cannot be used.
    """
    for name, settings in study.benchmark.asked.items() if study.benchmark is not None else ():
        one: Property[Any] = property_of(name)
        if study.of_glasses is not None or not one.needs_glass:
            yield one, settings


def plan(study: Study, store: StudyStore, iteration: int) -> list[Task]:
    """Return the tasks of every property that the study asks for."""
    return [task for one, settings in asked_of(study) for task in one.tasks(settings, _context(study, store, one))]


def _context(study: Study, store: StudyStore, one: Property[Any]) -> Context:
    return Context(study, store, runs_potential=one.runs_potential)


def run(task: Task, store: StudyStore, iteration: int, slot: Slot) -> None:
    """Carry out one task and publish its findings."""
    started = time.time()
    one, settings = next((one, settings) for one, settings in asked_of(store.study) if one.name == task.kind)
    arrays, meta = one.run(task, settings, _context(store.study, store, one), slot)
    store.publish_product(BENCHMARK, iteration, task.id, arrays, {"started": started, "finished": time.time(), **meta})
    store.drop_work(BENCHMARK, task.id, slot.machine)


def gather(study: Study, store: StudyStore, iteration: int) -> Scoreboard:
    """Average over replicas, add the cited experiment, and publish the lines of the figures."""
    plan = store.plan(BENCHMARK, iteration)
    lost = all_glasses_of(store).lost
    found = Findings(problems=[f"glass {glass.id}: {glass.stamp}; nothing is measured of it" for glass in lost])
    for one, settings in asked_of(study):
        tasks = [task for task in plan.tasks if task.kind == one.name]
        if tasks:
            more = one.results(settings, _context(study, store, one), tasks)
            more.results = [result.model_copy(update={"measured_by": one.name}) for result in more.results]
            found.extend(more)
    publish_npz(curves_file(store), found.arrays, {})
    series = study.of_glasses.series if study.of_glasses is not None else None
    name = series.name if series is not None else None
    physics = {potential.name: potential.physics for potential in study.potentials}
    makers = [glass.potential for glass in glasses_of(store) if glass.potential not in physics]
    physics |= dict.fromkeys(makers, "made the glasses that were given")
    identities = read_object(store.whole(store.folder / "potentials.json"))
    versions = {name: f"{found['calculator']} {found['version']}" for name, found in identities.items()}
    return Scoreboard(
        study=study.name,
        series=series.title if series is not None else None,
        potentials=tuple(physics),
        physics=physics,
        versions=versions | dict.fromkeys(makers, "not run here"),
        results=tuple(with_reference(result, study.cited, name) for result in found.results),
        curves=tuple(found.curves),
        quoted=quoted(study.cited),
        problems=tuple(found.problems),
        asked=tuple(one.name for one, _ in asked_of(study)),
        missing=tuple(found.missing),
    )


def curves_file(store: StudyStore) -> Path:
    """Return the file of the arrays of a scoreboard's curves."""
    return store.station_folder(BENCHMARK, ONCE) / "curves.npz"


STATION: Final = Station(BENCHMARK, plan, run, gather, phase="study", runs_models=True, asks_reference=True)
