"""The station of benchmarks: every property that a study asks for, as tasks; sealed as one scoreboard."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from activelearn.benchmark import (
    bulk_modulus,
    coordination,
    crystals,
    density,
    diffusion,
    elastic,
    free_volume,
    network,
    parity,
    rdf,
)
from activelearn.benchmark.property import Findings, Property, quoted, with_reference
from activelearn.config import Study
from activelearn.engines.process import Slot
from activelearn.records import Scoreboard, Task
from activelearn.store import StudyStore
from activelearn.store.files import publish_npz, read_json
from activelearn.store.study import BENCHMARK, ONCE
from activelearn.tasks import Station

#: Every property, in the order of the tables.
PROPERTIES: Final[dict[str, Property]] = {
    module.PROPERTY.name: module.PROPERTY
    for module in (
        parity,
        crystals,
        density,
        free_volume,
        rdf,
        network,
        coordination,
        bulk_modulus,
        elastic,
        diffusion,
    )
}


def plan(study: Study, store: StudyStore, iteration: int) -> list[Task]:  # noqa: ARG001 - a study has no iterations
    """Return the tasks of every property that the study asks for."""
    return [task for one in PROPERTIES.values() for task in one.plan(study, store)]


def run(task: Task, store: StudyStore, iteration: int, slot: Slot) -> None:
    """Carry out one task and publish what it found."""
    started = time.time()
    arrays, meta = PROPERTIES[task.kind].run(task, store, slot)
    store.publish_product(BENCHMARK, iteration, task.id, arrays, {"started": started, "finished": time.time(), **meta})
    store.drop_work(BENCHMARK, task.id, slot.machine)


def gather(study: Study, store: StudyStore, iteration: int) -> Scoreboard:
    """Average over replicas, put the cited experiment beside, and publish the lines of the figures."""
    plan = store.plan(BENCHMARK, iteration)
    assert plan is not None  # gather is called after the plan was carried out
    found = Findings()
    for kind, one in PROPERTIES.items():
        tasks = [task for task in plan.tasks if task.kind == kind]
        if tasks:
            found.extend(one.results(study, store, tasks))
    publish_npz(curves_file(store), found.arrays, {})
    series = study.glass.series if study.glass is not None else None
    name = series.name if series is not None else None
    identities = read_json(store.folder / "potentials.json")
    return Scoreboard(
        study=study.name,
        series=series.title if series is not None else None,
        potentials=tuple(potential.name for potential in study.potentials),
        physics={potential.name: potential.physics for potential in study.potentials},
        versions={name: f"{found['calculator']} {found['version']}" for name, found in identities.items()},
        results=tuple(with_reference(result, study.cited, name) for result in found.results),
        curves=tuple(found.curves),
        quoted=quoted(study.cited),
        problems=tuple(found.problems),
    )


def curves_file(store: StudyStore) -> Path:
    """Return the file of the arrays of a scoreboard's curves."""
    return store.station_folder(BENCHMARK, ONCE) / "curves.npz"


STATION: Final = Station(BENCHMARK, plan, run, gather)
