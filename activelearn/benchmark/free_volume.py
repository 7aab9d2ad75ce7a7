"""Stub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from activelearn.benchmark.property import Findings, Property
from activelearn.config import Study
from activelearn.engines.process import Slot
from activelearn.records import Task
from activelearn.store import StudyStore


def plan(study: Study, store: StudyStore) -> list[Task]:
    return []


def run(task: Task, store: StudyStore, slot: Slot) -> tuple[dict[str, Any], dict[str, Any]]:
    raise NotImplementedError


def results(study: Study, store: StudyStore, tasks: Sequence[Task]) -> Findings:
    return Findings()


PROPERTY = Property("free_volume", plan, run, results)
