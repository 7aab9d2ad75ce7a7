"""What a campaign has done and is doing, read from sealed records and frozen plans by `run` and `status` alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from activelearn import final_models, learning, loop, select, study, taught
from activelearn.ending import verdict
from activelearn.records import End, Errors, InitialData, Iteration, Selection
from activelearn.store import Folder, Store, StudyStore


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
    return [
        StationProgress(
            iteration,
            station.name,
            done=len(plan.tasks) - len(folder.pending(plan, by=station.published)),
            total=len(plan.tasks),
            is_sealed=folder.is_sealed(station.name, iteration),
        )
        for folder, iteration in store.at_work()
        for station in loop.STATIONS.values()
        if (plan := folder.find_plan(station.name, iteration)) is not None and plan.tasks
    ]


def as_dict(store: Store) -> dict[str, Any]:
    """Return the state of a campaign as JSON-able data: what ``status --json`` prints.

    Per iteration: counts, held-out errors (mean over the members; in all and by composition), seconds per station split
    into engine time and everything else, size and sha256 of the data set.
    """
    end = verdict(store)
    phase = loop.next_phase(store)
    campaign = store.latest_campaign()
    return {
        "name": campaign.name,
        "folder": str(store.folder),
        "campaign_sha256": campaign.sha256,
        "state": "ended" if phase is None else {"loop": "open", "final": "final models", "study": "study"}[phase.name],
        "converged": end.converged if end is not None else None,
        "message": end.message if end is not None else None,
        "submitted_to": (submission := store.submissions.current()) and submission.launchpad,
        "stopped": store.submissions.stop_message(),
        "next": None if phase is None else {"iteration": phase.iteration, "part": phase.name},
        "at_work": [vars(p) for p in progress(store)] if phase is not None else [],
        "studies": [study_as_dict(store) for store in store.studies()],
        "accuracy": _accuracy(store),
        "calibration": None if (found := select.summary(store)) is None else found._asdict(),
        "teacher": taught.as_dict(store),
        "final": _final(store, end),
        "ledger_damage": store.ledger.damage(),  # and logged as it is found
        "iterations": [_iteration(record) for record in store.iterations()],
    }


def _final(store: Store, end: End | None) -> dict[str, Any] | None:
    """Return which models the campaign passes on, and why; None before the final station is sealed."""
    if end is None or not store.is_sealed("final", end.iteration):
        return None
    found = final_models.chosen(store, end.iteration)
    return {
        "kept": "trained" if found.is_from_scratch and not found.is_of_loop else "loop",
        "is_worse": found.is_worse,
        "said": list(found.said),
        "held_out": _dump(learning.mean_errors(found.ensemble.members)),
    }


def study_as_dict(store: StudyStore) -> dict[str, Any]:
    """Return the state of a study as JSON-able data: its glasses, its results, what could not be measured."""
    glasses, board = study.glasses_of(store), study.scoreboard_of(store)
    return {
        "name": store.study.name,
        "folder": str(store.folder),
        "state": "ended" if study.is_done(store, store.study) else "open",
        "stopped": store.submissions.stop_message(),
        "at_work": [vars(p) for p in progress(store) if not p.is_sealed],
        "glasses": [{**glass.model_dump(), "stamp": glass.stamp} for glass in glasses.glasses] if glasses else [],
        "results": [result.model_dump() for result in board.results] if board is not None else [],
        "problems": list(board.problems) if board is not None else [],
    }


def _iteration(record: Iteration) -> dict[str, Any]:
    selection, labelling, ensemble = record.selection, record.labelling, record.ensemble
    held_out = ensemble.held_out
    return {
        "index": record.index,
        **_found_by(selection),
        "labelled": labelling.labelled,
        "refused": labelling.refused,
        "not_relaxed": [
            f"{system.name}: {ended}"
            for system in (record.prepared.systems if record.prepared is not None else ())
            for ended in system.ended
            if ended not in {"relaxed", "as packed"}
        ],
        "initial_failed": {walk.id: walk.ended for walk in record.initial.failed} if record.initial is not None else {},
        "initial_md": _initial_md(record.initial) if record.initial is not None else None,
        "labels_computed": labelling.labels_computed,
        "labels_adopted": labelling.labels_adopted,
        "labels_reused": labelling.labels_reused,
        "held_out_force_rmse_eV_per_A": ensemble.force_rmse,
        "held_out_energy_rmse_meV_per_atom": held_out.energy_rmse_meV_per_atom if held_out else None,
        "held_out_frames": held_out.n_frames if held_out else 0,
        "held_out": _dump(held_out),
        "held_out_by_composition": {
            formula: _dump(Errors.mean([member.by_composition[formula] for member in ensemble.members]))
            for formula in ensemble.members[0].by_composition
        },
        "trained_in": ensemble.trained_in,
        "problems": learning.problems_of(ensemble) if ensemble.trained_in == record.index else [],
        "compression": list(ensemble.compression) if ensemble.trained_in == record.index else [],
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


def _found_by(selection: Selection | None) -> dict[str, Any]:
    """Return what a pass found: its cells add up to its counts; stages that were not walked have their own cells."""
    if selection is None:
        verdict = "initial data"
        return {"stages": [], "verdict": verdict, "window": None, "counts": None, "cells": [], "rested": []}
    counts = selection.counts
    return {
        "stages": list(selection.stages),
        "verdict": selection.why,
        "window": [selection.f_lo, selection.f_hi],
        "counts": {
            **counts.model_dump(),
            "candidate_share": counts.share("candidate"),
            "failed_share": counts.share("failed"),
            "chosen": selection.chosen,
            "mined": selection.mined,
            "audited": selection.audited,
            "rescued": selection.rescued,
            "passed_over": selection.passed_over,
        },
        "cells": [cell.model_dump() for cell in selection.cells],
        "rested": [cell.model_dump() for cell in selection.rested],
    }


def _initial_md(made: InitialData) -> dict[str, Any]:
    """Return what moved the atoms of initial data, and what it cost."""
    driver = made.driver
    return {
        "driver": None if driver is None else {key: driver[key] for key in ("calculator", "version", "sha256")},
        "calls": made.md_calls,
        "frames": made.md_frames,
        "refused": made.refused,
    }


def _accuracy(store: Store) -> dict[str, Any] | None:
    """Return what is known of the true force errors of the ensemble of the last pass, with its words; eV/Å."""
    records = store.iterations()
    last = max((record.index for record in records if record.selection is not None), default=0)
    found = select.accuracy_of(records, store.campaign(last).select) if records else None
    if found is None:
        return None
    return {
        "iteration": last,
        "held_out_p99": found.held_out_p99,
        "audited": found.n_audited,
        "false_accepts": found.n_false,
        "false_accept_interval": found.interval,
        "max_error": found.max_error,
        "said": found.said,
        "warnings": list(found.warnings),
    }


def _dump(found: Errors | None) -> dict[str, Any] | None:
    return None if found is None else found.model_dump()
