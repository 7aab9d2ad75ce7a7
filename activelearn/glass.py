"""Stub."""

from __future__ import annotations

from activelearn.config import Study
from activelearn.engines.process import Slot
from activelearn.records import Glasses, Task
from activelearn.store import StudyStore
from activelearn.store.study import GLASS
from activelearn.tasks import Station


def plan(study: Study, store: StudyStore, iteration: int) -> list[Task]:
    return []


def run(task: Task, store: StudyStore, iteration: int, slot: Slot) -> None:
    raise NotImplementedError


def gather(study: Study, store: StudyStore, iteration: int) -> Glasses:
    return Glasses(glasses=())


STATION = Station(GLASS, plan, run, gather)
