"""What the interpreters that run a campaign's engines lack, as far as their disk is visible from here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from activelearn.config import Machine, load_machine, trainer_of
from activelearn.engines.interpreters import root_of
from activelearn.errors import ActiveLearnError
from activelearn.store import Store
from activelearn.workflow.doctor.picture import Flow
from activelearn.workflow.doctor.words import Finding

#: Stations that train or run models.
_STATIONS = ("train", "explore")


def engine_findings(flows: Iterable[Flow]) -> Iterator[Finding]:
    """Yield what keeps the models of a campaign from being trained or run where the machine profile says.

    Only interpreters that it names, on a disk that is visible here, count: where none is named it is the workers' own,
    which may differ from ours.
    """
    seen: set[Path] = set()
    for flow in flows:
        if flow.folder is None or flow.folder in seen:
            continue
        seen.add(flow.folder)
        for line in _lacking(flow.folder):
            what, _, do = line.rpartition(" - ")
            yield Finding("engines", f"{flow.name}: {what}", do, workflow=flow.number)


def _lacking(folder: Path) -> list[str]:
    try:
        machine = load_machine(folder / "machine.yaml")
        train = Store(folder).latest_campaign().train
        return trainer_of(train).problems(train, machine) if _sees_all(machine) else []
    except (ActiveLearnError, OSError, LookupError, ValueError):  # faults of a folder are reported by its own command
        return []


def _sees_all(machine: Machine) -> bool:
    named = [machine.at(station).python for station in _STATIONS]
    return all(python is not None and root_of(python) is not None for python in named)
