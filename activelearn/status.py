"""What a campaign has done and is doing, read from sealed records and frozen plans by `run` and `status` alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from activelearn import loop, select, study
from activelearn.records import Errors, Iteration
from activelearn.store import Folder, Store, StudyStore
from activelearn.store.study import ONCE
from activelearn.tasks import Station


@dataclass(frozen=True)
class StationProgress:
    """How far one station of the open iteration is."""

    iteration: int
    station: str
    done: int
    total: int
    is_sealed: bool


def progress(store: Folder) -> list[StationProgress]:
    """Return the stations of the iteration at work (or of the study), as far as they have a plan."""
    if not isinstance(store, Store):
        return _progress(store, ONCE, loop.STUDY)
    opened = store.opened_iterations()
    if not opened:
        return []
    last = opened[-1]
    found = _progress(store, last, (*loop.step_of(store, last).stations, *loop.LAST))
    places = [StudyStore(path.parent) for path in store.folder.glob(f"study-{last:03d}*/study.yaml")]
    return found + [one for place in places for one in _progress(place, ONCE, loop.STUDY)]


def _progress(store: Folder, iteration: int, stations: Sequence[Station]) -> list[StationProgress]:
    found = []
    for station in stations:
        plan = store.plan(station.name, iteration)
        if plan is None or not plan.tasks:
            continue
        sealed = store.is_sealed(station.name, iteration)
        done = len(plan.tasks) - (0 if sealed else len(store.pending(plan)))
        found.append(StationProgress(iteration, station.name, done, len(plan.tasks), sealed))
    return found


def as_dict(store: Store) -> dict[str, Any]:
    """Return the state of a campaign as JSON-able data: what ``status --json`` prints.

    Per iteration: counts, held-out errors (mean over the members; in all and by composition), seconds per station split
    into engine time and everything else, size and sha256 of the data set.
    """
    end = loop.verdict(store)
    step = loop.next_step(store)
    campaign = store.latest_campaign()
    return {
        "name": campaign.name,
        "folder": str(store.folder),
        "campaign_sha256": campaign.sha256,
        "state": "ended" if step is None else {"loop": "open", "final": "final models", "study": "study"}[step.part],
        "converged": end.converged if end is not None else None,
        "message": end.message if end is not None else None,
        "submitted_to": (submission := store.submissions.current()) and submission.launchpad,
        "stopped": store.submissions.stop_message(),
        "next": None if step is None else {"iteration": step.iteration, "part": step.part},
        "at_work": [vars(p) for p in progress(store)] if step is not None else [],
        "studies": [study_as_dict(StudyStore(path.parent)) for path in sorted(store.folder.glob("study-*/study.yaml"))],
        "calibration": None if (found := select.summary(store)) is None else found._asdict(),
        "iterations": [_iteration(record) for record in store.iterations()],
    }


def study_as_dict(place: StudyStore) -> dict[str, Any]:
    """Return the state of a study as JSON-able data: its glasses, its results, what could not be measured."""
    glasses, board = study.glasses_of(place), study.scoreboard_of(place)
    return {
        "name": place.study.name,
        "folder": str(place.folder),
        "state": "ended" if study.is_done(place, place.study) else "open",
        "stopped": place.submissions.stop_message(),
        "at_work": [vars(p) for p in progress(place) if not p.is_sealed],
        "glasses": [{**glass.model_dump(), "stamp": glass.stamp} for glass in glasses.glasses] if glasses else [],
        "results": [result.model_dump() for result in board.results] if board is not None else [],
        "problems": list(board.problems) if board is not None else [],
    }


def _iteration(record: Iteration) -> dict[str, Any]:
    selection, labelling, ensemble = record.selection, record.labelling, record.ensemble
    counts = None
    if selection is not None:
        found = selection.counts
        counts = {
            **found.model_dump(),
            "candidate_share": found.share("candidate"),
            "failed_share": found.share("failed"),
            "chosen": selection.chosen,
            "mined": selection.mined,
            "audited": selection.audited,
            "rescued": selection.rescued,
            "passed_over": selection.passed_over,
        }
    held_out = [member.held_out for member in ensemble.members if member.held_out is not None]
    return {
        "index": record.index,
        "stages": list(selection.stages) if selection is not None else [],
        "verdict": selection.why if selection is not None else "initial data",
        "window": [selection.f_lo, selection.f_hi] if selection is not None else None,
        "counts": counts,
        "cells": [cell.model_dump() for cell in selection.cells] if selection is not None else [],
        "labelled": labelling.labelled,
        "refused": labelling.refused,
        "not_relaxed": [
            f"{system.name}: {ended}"
            for system in (record.prepared.systems if record.prepared is not None else ())
            for ended in system.ended
            if ended not in {"relaxed", "as packed"}
        ],
        "initial_failed": {walk.id: walk.ended for walk in record.initial.failed} if record.initial is not None else {},
        "labels_computed": labelling.labels_computed,
        "labels_adopted": labelling.labels_adopted,
        "labels_reused": labelling.labels_reused,
        "held_out_force_rmse_eV_per_A": ensemble.force_rmse,
        "held_out_energy_rmse_meV_per_atom": _mean([found.energy_rmse_meV_per_atom for found in held_out]),
        "held_out_frames": held_out[0].n_frames if held_out else 0,
        "held_out": _dump(Errors.mean(held_out)),
        "held_out_by_composition": {
            formula: _dump(Errors.mean([member.by_composition[formula] for member in ensemble.members]))
            for formula in ensemble.members[0].by_composition
        },
        "trained_in": ensemble.trained_in,
        "resumed": list(ensemble.resumed) if ensemble.trained_in == record.index else [],
        "seconds": {
            name: {
                "wall": s.wall,
                "engine": s.engine,
                "other": s.other,
                "engine_total": s.engine_total,
                "tasks": s.n_tasks,
            }
            for name, s in record.seconds.items()
        },
        "infrastructure_failures": record.infrastructure_failures,
        "dataset": {"frames": labelling.dataset_frames, "sha256": labelling.dataset_sha256},
    }


def _dump(found: Errors | None) -> dict[str, Any] | None:
    return None if found is None else found.model_dump()


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
