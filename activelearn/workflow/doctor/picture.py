"""A snapshot of our Workflows in a LaunchPad: states, times, and what the batch system still knows.

FireWorks writes times in two ways, both UTC: ISO strings in launches and whole Fireworks, BSON dates (which come back
without a time zone) where it changes a state in place and in Workflows.
"""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from fireworks import LaunchPad
from fireworks import fw_config as settings
from pymongo.errors import PyMongoError

from activelearn import trees
from activelearn.engines.process import run_command
from activelearn.errors import ActiveLearnError, EngineError
from activelearn.store import Store
from activelearn.workflow.queues import LISTERS, jobs_of

#: A state that should last for moments, and has not changed for this long, is stuck, s.
STALE_S: Final = 300.0
#: A worker that missed this many pings is considered dead.
_PINGS: Final = 1.5
#: How long squeue may take, s.
_QUEUE_S: Final = 30.0
#: Metadata of our Workflows: those of campaigns and studies, and the jobs of `activelearn machine --smoke`.
OURS: Final[dict[str, Any]] = {
    "$or": [
        {f"metadata.{key}": {"$exists": True} for key in ("campaign", "iteration", "part")},
        {"metadata.activelearn": "smoke"},
    ]
}
#: States of Workflows that are finished.
ENDED: Final = ("COMPLETED", "DEFUSED", "ARCHIVED")


def unix_time(value: object) -> float | None:
    """Return a time that FireWorks wrote, in s since 1970; None if it is not one."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return (value if value.tzinfo else value.replace(tzinfo=timezone.utc)).timestamp()


def last_sign(launch: dict[str, Any]) -> float:
    """Return when a launch changed its state, or its worker pinged, for the last time, s since 1970."""
    times = [unix_time(entry.get(key)) for entry in launch["state_history"] for key in ("created_on", "updated_on")]
    return max((moment for moment in times if moment is not None), default=0.0)


def reservation(launch: dict[str, Any]) -> str | None:
    """Return the number of the job that a launch is, or was to be; None if no queue knows of it."""
    numbers = [str(entry["reservation_id"]) for entry in launch["state_history"] if entry.get("reservation_id")]
    return numbers[-1] if numbers else None


def representative(launches: Iterable[dict[str, Any]]) -> str | None:
    """Return the state that FireWorks assigns to a Firework with these launches."""
    states = [launch["state"] for launch in launches]
    return next((state for state in ("COMPLETED", "RUNNING", "RESERVED", "FIZZLED") if state in states), None)


@dataclass(frozen=True)
class Clock:
    """The time, according to the server if available.

    Parameters
    ----------
    now
        s since 1970.
    ahead_s
        Ours minus the server's; None if not available.
    latency_s
        Of one request.
    """

    now: float
    ahead_s: float | None
    latency_s: float


def read_clock(launchpad: LaunchPad) -> Clock:
    """Ask the server for the time."""
    launchpad.fw_id_assigner.find_one()  # the first request may have to connect
    before = time.time()
    try:
        theirs = unix_time(launchpad.connection.admin.command("hello").get("localTime"))
    except (NotImplementedError, PyMongoError):  # in memory, or without permission
        theirs = None
    after = time.time()
    ours = (before + after) / 2
    return Clock(ours if theirs is None else theirs, None if theirs is None else ours - theirs, after - before)


@dataclass(frozen=True)
class Flow:
    """A Workflow of ours that has not ended.

    Parameters
    ----------
    document
        As it is in the LaunchPad.
    fireworks
        Its Fireworks by id, as they are there; some may be missing.
    launches
        All launches of each Firework, including earlier ones.
    """

    document: dict[str, Any]
    fireworks: dict[int, dict[str, Any]]
    launches: dict[int, list[dict[str, Any]]]

    @property
    def number(self) -> int:
        """The smallest id of its Fireworks, by which it is found."""
        return int(min(self.document["nodes"]))

    @property
    def name(self) -> str:
        """Campaign and iteration."""
        return str(self.document["name"])

    @property
    def is_locked(self) -> bool:
        """Whether a worker is changing it, or died doing so."""
        return "locked" in self.document

    @property
    def updated(self) -> float:
        """When it was last changed, s since 1970."""
        return unix_time(self.document["updated_on"]) or 0.0

    @cached_property
    def folder(self) -> Path | None:
        """The campaign folder."""
        return next((Path(found) for found in map(folder_of, self.fireworks.values()) if found), None)

    def children(self, fw_id: int) -> list[int]:
        """Return what waits for a Firework."""
        return [int(child) for child in self.document["links"].get(str(fw_id), ())]

    def parents(self, fw_id: int) -> list[int]:
        """Return what a Firework waits for."""
        return [int(parent) for parent in self.document["parent_links"].get(str(fw_id), ())]

    def in_state(self, state: str) -> list[int]:
        """Return the Fireworks in a state."""
        return [fw_id for fw_id, firework in sorted(self.fireworks.items()) if firework["state"] == state]

    def active(self, fw_id: int) -> list[dict[str, Any]]:
        """Return the launches that count for a Firework."""
        listed = self.fireworks[fw_id]["launches"]
        return [launch for launch in self.launches[fw_id] if launch["launch_id"] in listed]

    def changed(self, fw_id: int) -> float:
        """Return when a Firework last changed its state, s since 1970."""
        return unix_time(self.fireworks[fw_id].get("updated_on")) or 0.0

    def goes_on_after(self, fw_id: int, state: str) -> bool:
        """Return whether a Firework may run after a parent in that state."""
        allows = self.fireworks[fw_id]["spec"].get("_allow_fizzled_parents", False)
        return state == "COMPLETED" or (state == "FIZZLED" and bool(allows))


def folder_of(firework: dict[str, Any]) -> str | None:
    """Return the folder that the tasks of a Firework work in."""
    return next((task["folder"] for task in firework["spec"].get("_tasks", ()) if "folder" in task), None)


def parents_first(document: dict[str, Any]) -> list[int]:
    """Return the Fireworks of a Workflow, none before one that it waits for."""
    waits_for = {int(node): set(document["parent_links"].get(str(node), ())) for node in document["nodes"]}
    ordered: list[int] = []
    while waits_for:
        free = sorted(node for node, parents in waits_for.items() if not parents & waits_for.keys())
        if not free:  # impossible for a Workflow; avoid an endless loop in any case
            free = sorted(waits_for)
        ordered += free
        for node in free:
            del waits_for[node]
    return ordered


@dataclass(frozen=True)
class Picture:
    """A LaunchPad at one moment.

    Parameters
    ----------
    launchpad
        Which one.
    clock
        The moment.
    flows
        Our Workflows that have not ended.
    stale_s
        A state that should last for moments is considered stuck after this time.
    lost_s
        A worker without a sign of life for this time is considered dead.
    folder
        The folder in question; None: everything.
    places
        Where the campaign in it, and its studies, are by their identities.
    """

    launchpad: LaunchPad
    clock: Clock
    flows: tuple[Flow, ...]
    stale_s: float
    lost_s: float
    folder: Path | None
    places: Mapping[str, Path]

    def age(self, moment: float) -> float:
        """Return how long ago that was, s."""
        return self.clock.now - moment

    def is_stale(self, moment: float) -> bool:
        """Return whether that is too long ago for something that should last for moments."""
        return self.age(moment) > self.stale_s

    def concerns(self, folder: str | Path | None) -> bool:
        """Return whether a folder is in question."""
        return self.folder is None or (folder is not None and Path(folder).is_relative_to(self.folder))

    def is_asked_about(self, flow: Flow) -> bool:
        """Return whether a Workflow belongs to what is in question, wherever it says that its folder is."""
        return self.concerns(flow.folder) or flow.document["metadata"].get("campaign") in self.places

    @cached_property
    def workflow_nodes(self) -> list[list[int]]:
        """The Fireworks of every Workflow of the LaunchPad, ours or not."""
        return [document["nodes"] for document in self.launchpad.workflows.find({}, {"nodes": 1})]

    @cached_property
    def queued(self) -> frozenset[str] | None:
        """The numbers of the jobs that wait or run in the queue; None if the batch system does not say."""
        command = next((words for program, words in LISTERS.items() if shutil.which(program) is not None), None)
        if command is None:
            return None
        with trees.temporary() as here:
            log = here / "jobs"
            try:
                done = run_command(list(command), here, log=log, timeout_s=_QUEUE_S)
            except EngineError:
                return None
            return frozenset(jobs_of(log.read_text(errors="replace"))) if done.return_code == 0 else None

    def is_gone(self, job: str | None) -> bool:
        """Return whether the queue says that it has no such job (any more)."""
        return job is not None and self.queued is not None and job not in self.queued


def look(launchpad: LaunchPad, *, stale_s: float, lost_s: float | None, folder: Path | None) -> Picture:
    """Read our Workflows that have not ended."""
    clock = read_clock(launchpad)
    flows = (_flow(launchpad, one) for one in launchpad.workflows.find({**OURS, "state": {"$nin": list(ENDED)}}))
    asked = folder.absolute() if folder is not None else None
    if lost_s is None:  # workers have the same settings
        lost_s = max(stale_s, _PINGS * float(settings.PING_TIME_SECS))
    picture = Picture(launchpad, clock, (), stale_s, lost_s, asked, _places(asked))
    return replace(picture, flows=tuple(flow for flow in flows if picture.is_asked_about(flow)))


def _places(folder: Path | None) -> dict[str, Path]:
    """Return a campaign folder and those of its studies by their identities; none of a folder that cannot be read."""
    if folder is None:
        return {}
    try:
        store = Store(folder)
        return {one.uuid: one.folder for one in (store, *store.studies())}
    except (OSError, ActiveLearnError):
        return {}


def _flow(launchpad: LaunchPad, document: dict[str, Any]) -> Flow:
    chosen = {"fw_id": {"$in": document["nodes"]}}
    fireworks = {one["fw_id"]: {"launches": [], **one} for one in launchpad.fireworks.find(chosen)}
    launches = defaultdict(list)
    for launch in launchpad.launches.find(chosen):
        launches[launch["fw_id"]].append(launch)
    return Flow(document, fireworks, launches)
