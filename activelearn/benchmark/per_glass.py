"""What properties that are measured on every glass of a study have in common: one task each, replicas side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from activelearn.benchmark.glasses import glasses_of
from activelearn.benchmark.property import Arrays, Condition, Findings, by_condition, product
from activelearn.records import MadeGlass, Task
from activelearn.store import StudyStore

#: A glass, and the arrays and the meta that were published of it.
Measured = tuple[MadeGlass, Arrays, dict[str, Any]]


def tasks_of(name: str, store: StudyStore, parameters: Mapping[str, Any] | None = None) -> list[Task]:
    """Return one task of a property for every finished glass."""
    return [
        Task(id=f"{name}-{glass.id}", kind=name, parameters={"glass": glass.id, **(parameters or {})})
        for glass in glasses_of(store)
    ]


def glass_of(task: Task, store: StudyStore) -> MadeGlass:
    """Return the glass that a task measures."""
    return next(glass for glass in glasses_of(store) if glass.id == task.parameters["glass"])


def measured(store: StudyStore, tasks: Sequence[Task], found: Findings) -> list[tuple[Condition, list[Measured]]]:
    """Return what was measured of the replicas of every condition; what could not be goes to the problems of `found`.

    A product that could not be measured has ``{"ended": reason}`` in its meta.
    """
    by_glass = {task.parameters["glass"]: task for task in tasks}
    groups = []
    for condition, glasses in by_condition(glass for glass in glasses_of(store) if glass.id in by_glass):
        group: list[Measured] = []
        for glass in glasses:
            task = by_glass[glass.id]
            arrays, meta = product(store, task)
            if meta.get("ended", "finished") != "finished":
                found.problems.append(f"{task.kind} of {glass.id}: {meta['ended']}")
            else:
                group.append((glass, arrays, meta))
        if group:
            groups.append((condition, group))
    return groups
