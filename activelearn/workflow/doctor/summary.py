"""The state of a LaunchPad: how much is left to do, by which workers, and when anything last happened."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

from fireworks import LaunchPad

from activelearn.workflow.doctor.findings import cause_of, is_in_the_way
from activelearn.workflow.doctor.picture import OURS, STALE_S, Flow, Picture, last_sign, look, reservation
from activelearn.workflow.doctor.settings import setting_notes
from activelearn.workflow.doctor.words import counted, without_credentials

#: In the order in which a Firework goes through them.
STATES: Final = ("WAITING", "READY", "RESERVED", "RUNNING", "COMPLETED", "FIZZLED", "PAUSED", "DEFUSED", "ARCHIVED")


@dataclass(frozen=True)
class QueueSummary:
    """The state of a LaunchPad.

    Parameters
    ----------
    launchpad
        Host and database.
    workflows
        Name and folder of our Workflows that have not ended.
    n_completed
        How many have ended.
    counts
        Fireworks of those that have not, by category and state.
    last_activity_s
        Time since one of their Fireworks changed its state, or its worker pinged; None if there is none.
    notes
        Remarks that need no action.
    """

    launchpad: str
    workflows: tuple[tuple[str, str], ...]
    n_completed: int
    counts: dict[str, dict[str, int]]
    last_activity_s: float | None
    notes: tuple[str, ...]


def summarise(launchpad: LaunchPad, folder: Path | None = None, *, lost_s: float | None = None) -> QueueSummary:
    """Return the state of a LaunchPad, or of one campaign folder in it.

    Parameters
    ----------
    launchpad, folder, lost_s
        As for :func:`~activelearn.workflow.doctor.findings.examine`.
    """
    picture = look(launchpad, stale_s=STALE_S, lost_s=None, folder=folder)
    counts: dict[str, Counter[str]] = {}
    for flow in picture.flows:
        for firework in flow.fireworks.values():
            counts.setdefault(_category(firework), Counter())[firework["state"]] += 1
    signs = [flow.changed(fw_id) for flow in picture.flows for fw_id in flow.fireworks]
    signs += [last_sign(one) for flow in picture.flows for one in chain.from_iterable(flow.launches.values())]
    notes = [*chain.from_iterable(map(_failed, picture.flows)), *_queue(picture)]
    notes += setting_notes(lost_s) if picture.flows else _nothing(picture)
    return QueueSummary(
        str(getattr(launchpad, "identity", "in memory")),
        tuple((flow.name, str(flow.folder or "")) for flow in picture.flows),
        int(launchpad.workflows.count_documents({**OURS, "state": "COMPLETED"})),
        {name: {state: found[state] for state in STATES if found[state]} for name, found in sorted(counts.items())},
        max(0.0, picture.age(max(signs))) if signs else None,
        tuple(without_credentials(note, launchpad) for note in notes),
    )


def _category(firework: dict[str, Any]) -> str:
    return str(firework["spec"].get("_category") or "any")


def _failed(flow: Flow) -> list[str]:
    """Return what failed and will be requested again by the gather after it."""
    causes = Counter(cause_of(flow, fw_id) for fw_id in flow.in_state("FIZZLED") if not is_in_the_way(flow, fw_id))
    said = "to be requested again"
    return [f"{flow.name}: {counted(n, 'failed chunk')}, {said}: {cause}" for cause, n in causes.most_common()]


def _nothing(picture: Picture) -> list[str]:
    """Return possible reasons why there is nothing."""
    if picture.launchpad.fw_id_assigner.find_one() is None:
        return ["its database is empty: nothing was submitted to it, or it was dropped (activelearn submit)"]
    if picture.folder is not None:
        return [f"it has nothing to do for {picture.folder}"]
    return []


def _queue(picture: Picture) -> list[str]:
    """Return that jobs of a queue cannot be judged here, if there are any."""
    jobs = {
        reservation(launch)
        for flow in picture.flows
        for fw_id in flow.in_state("RESERVED")
        for launch in flow.active(fw_id)
    } - {None}
    if not jobs or picture.queued is not None:
        return []
    asked = "neither squeue, bjobs nor qstat answers here"
    return [f"{counted(len(jobs), 'job')} in a queue, but {asked}: their state is unknown"]
