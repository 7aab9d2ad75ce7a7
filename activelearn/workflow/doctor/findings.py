"""What is wrong with a LaunchPad, and what to do about it."""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final

from fireworks import LaunchPad

from activelearn import loop
from activelearn.errors import ActiveLearnError
from activelearn.store import Store
from activelearn.store.submission import Submission, Submissions
from activelearn.units import duration
from activelearn.workflow.doctor.engines import engine_findings
from activelearn.workflow.doctor.idle import idle_categories
from activelearn.workflow.doctor.picture import (
    OURS,
    STALE_S,
    Flow,
    Picture,
    folder_of,
    last_sign,
    look,
    representative,
    reservation,
    unix_time,
)
from activelearn.workflow.doctor.refused import refused_categories
from activelearn.workflow.doctor.settings import setting_findings
from activelearn.workflow.doctor.words import Finding, are, counted, numbers, without_credentials
from activelearn.workflow.firetasks import is_same_folder, query_of
from activelearn.workflow.launchpads import database_id

#: A lock held continuously for this long, on a Workflow that has not changed for long, is stale, s; shorter if the user
#: chooses a shorter time for anything stuck.
LOCK_WATCH_S: float = 10.0
_LOOK_EVERY_S: Final = 0.5
#: Largest tolerated difference of clocks, s.
LARGEST_SKEW_S: Final = 5.0
_AWAITED: Final = ("WAITING", "READY", "RESERVED", "RUNNING", "FIZZLED", "PAUSED")
_READY_AGAIN: Final = "--fix lets another worker do it; what is published is not computed twice"
_RESET: Final = (
    "end its workers, empty it (lpad -l my_launchpad.yaml reset) and run `activelearn submit` for its campaigns "
    "again: nothing is lost, all products are in their folders"
)
_NOT_IMPORTED: Final = re.compile(r"ModuleNotFoundError|ImportError|cannot import|load_object\(\) could not find")


def examine(
    launchpad: LaunchPad,
    *,
    stale_s: float = STALE_S,
    lost_s: float | None = None,
    folder: Path | None = None,
    file: Path = Path("my_launchpad.yaml"),
) -> list[Finding]:
    """Return the problems of our Workflows in a LaunchPad; nothing is changed.

    Parameters
    ----------
    launchpad
        Whose.
    stale_s
        A state that should last for moments (a claim, a lock, a completion) is considered stuck after this time, s.
    lost_s
        A worker that has not been heard of for so long is dead, s; None: `stale_s`, or one and a half pings of
        FireWorks' settings here if that is longer. One whose job the queue does not know is dead after `stale_s`.
    folder
        Only Fireworks that work in that campaign folder.
    file
        my_launchpad.yaml, for the commands in the advice.
    """
    picture = look(launchpad, stale_s=stale_s, lost_s=lost_s, folder=folder)
    stuck = _stuck(picture)
    found = [
        *setting_findings(launchpad),
        *_clocks(picture),
        *_ids(picture),
        *_strays(picture),
        *chain.from_iterable(_of_flow(picture, flow, is_stuck=flow.number in stuck) for flow in picture.flows),
        *_forgotten(picture),
    ]
    ailing = {one.workflow for one in found}
    found += engine_findings(flow for flow in picture.flows if flow.folder is not None and flow.folder.is_dir())
    waiting = [flow for flow in picture.flows if flow.number not in ailing]
    refused = dict(refused_categories(waiting, file))
    found += refused.values()
    found += idle_categories(picture, waiting, file, but=refused)
    return [
        replace(one, what=without_credentials(one.what, launchpad), next=without_credentials(one.next, launchpad))
        for one in found
    ]


def _of_whole(kind: str, flow: Flow, what: str, do: str, until: float = 0.0) -> Finding:
    """Return a repairable finding about a Workflow as a whole."""
    told = f"{flow.name}: {what}"
    return Finding(kind, told, do, repairable=True, workflow=flow.number, fw_ids=(flow.number,), until=until)


def _of_flow(picture: Picture, flow: Flow, *, is_stuck: bool) -> Iterator[Finding]:
    if (misplaced := _misplaced(picture, flow)) is not None:
        yield misplaced
        return
    if is_stuck:
        since = duration(picture.age(flow.updated))
        what = f"a worker died while it held the lock of the Workflow (unchanged for {since}); all others wait for it"
        yield _of_whole("lock", flow, what, "--fix removes the lock and determines what is ready", flow.updated)
    found = [*_unbegun(picture, flow), *_lost(picture, flow), *_left_over(picture, flow), *_fizzled(flow)]
    yield from found
    if not flow.is_locked:  # a worker is changing it now, or --fix handles it with the lock
        torn = list(_torn(picture, flow))
        yield from torn
        if not found and not torn:
            yield from _stalled(picture, flow)


# --- times and ids ----------------------------------------------------------------------------------------------------


def _clocks(picture: Picture) -> Iterator[Finding]:
    ahead = picture.clock.ahead_s
    if ahead is not None and abs(ahead) > LARGEST_SKEW_S:
        which = "ahead of" if ahead > 0 else "behind"
        yield Finding(
            "clock",
            f"the clock of this machine is {duration(abs(ahead))} {which} the server's, which is the reference for all "
            "times",
            "synchronise the clocks by NTP; otherwise live workers are considered dead",
        )
    early: dict[str, float] = defaultdict(float)
    for launch in chain.from_iterable(launches for flow in picture.flows for launches in flow.launches.values()):
        host = str(launch.get("host"))
        early[host] = max(early[host], -picture.age(last_sign(launch)))
    for host, seconds in sorted(early.items()):
        if seconds > LARGEST_SKEW_S:
            yield Finding(
                "clock",
                f"{host} has written a timestamp {duration(seconds)} in the future: its clock is (or was) ahead of the "
                "server's, and it would be considered alive when it is dead",
                f"synchronise the clock of {host} by NTP",
            )


def _ids(picture: Picture) -> Iterator[Finding]:
    """Ids that were assigned twice: a store that does not isolate writers does that to FireWorks' own workers."""
    if not picture.flows:
        return
    owners = Counter(chain.from_iterable(picture.workflow_nodes))
    counter = picture.launchpad.fw_id_assigner.find_one() or {}
    for flow in picture.flows:
        nodes = [int(node) for node in flow.document["nodes"]]
        documents = picture.launchpad.fireworks.find({"fw_id": {"$in": nodes}}, {"fw_id": 1})
        copies = Counter(one["fw_id"] for one in documents)
        twice = [node for node in sorted(nodes) if owners[node] > 1 or copies[node] > 1]
        launches = Counter(one["launch_id"] for one in chain.from_iterable(flow.launches.values()))
        twice_launched = sorted(launch for launch, n in launches.items() if n > 1)
        missing = [node for node in sorted(nodes) if node not in flow.fireworks]
        for what, ids in (
            ("Firework ids that were assigned twice", twice),
            ("launch ids that were assigned twice", twice_launched),
            ("Fireworks of the Workflow that are not in the database", missing),
        ):
            if ids:
                yield Finding("ids", f"{flow.name}: {what}: {numbers(ids)}", _RESET, workflow=flow.number)
    last = max(owners, default=0)
    if int(counter.get("next_fw_id", 0)) <= last:
        yield Finding(
            "ids", f"the next Firework would get an id that is already in use (the largest in use is {last})", _RESET
        )


def _strays(picture: Picture) -> Iterator[Finding]:
    """Fireworks of ours that are in no Workflow: the process that added them died in between."""
    chosen = {"state": {"$in": list(_AWAITED)}}
    keys = {"fw_id": 1, "created_on": 1, "spec._tasks": 1}
    known = set(chain.from_iterable(picture.workflow_nodes))
    strays = [
        one
        for one in picture.launchpad.fireworks.find(chosen, keys)
        if one["fw_id"] not in known
        and any("activelearn." in str(task.get("_fw_name")) for task in one["spec"]["_tasks"])
        and picture.concerns(folder_of(one))
        and picture.is_stale(unix_time(one["created_on"]) or picture.clock.now)
    ]
    if fw_ids := tuple(sorted(one["fw_id"] for one in strays)):
        yield Finding(
            "stray",
            f"{counted(len(fw_ids), 'Firework')} ({numbers(fw_ids)}) in no Workflow: the process that added them died "
            "half-way, and a worker that takes one fails",
            "--fix removes them; their work is done by others",
            repairable=True,
            fw_ids=fw_ids,
        )


# --- workers that died ------------------------------------------------------------------------------------------------


def _finding(
    kind: str,
    flow: Flow,
    fw_ids: list[int],
    said: tuple[str, str],
    launches: Iterable[dict[str, Any]] = (),
    until: float | None = None,
) -> Finding:
    """Return a finding about some Fireworks; until: None: their last sign of life."""
    what, do = said
    one = f"Firework {fw_ids[0]} ({flow.fireworks[fw_ids[0]].get('name')})"
    which = one if len(fw_ids) == 1 else f"{len(fw_ids)} Fireworks ({numbers(fw_ids)})"
    return Finding(
        kind,
        f"{flow.name}: {which} {what}",
        do,
        repairable=True,
        workflow=flow.number,
        fw_ids=tuple(fw_ids),
        launch_ids=tuple(launch["launch_id"] for launch in launches),
        until=max(_sign(flow, fw_id) for fw_id in fw_ids) if until is None else until,
    )


def _alike(reasons: dict[int, str]) -> dict[str, list[int]]:
    """Return the Fireworks of each reason."""
    found: dict[str, list[int]] = {}
    for fw_id, reason in reasons.items():
        found.setdefault(reason, []).append(fw_id)
    return found


def _grouped(kind: str, flow: Flow, reasons: dict[int, str]) -> Iterator[Finding]:
    """Yield one finding for each reason."""
    for reason, fw_ids in _alike(reasons).items():
        launches = [launch for fw_id in fw_ids for launch in flow.active(fw_id)]
        yield _finding(kind, flow, fw_ids, (f"{are(fw_ids)} {reason}", _READY_AGAIN), launches)


def _unbegun(picture: Picture, flow: Flow) -> Iterator[Finding]:
    """Claimed (RESERVED), and never started."""
    reasons = {}
    for fw_id in flow.in_state("RESERVED"):
        launches = flow.active(fw_id)
        if representative(launches) in {"RUNNING", "COMPLETED"} or not picture.is_stale(_sign(flow, fw_id)):
            continue  # it has started: see the interrupted completions
        job = next((found for found in map(reservation, launches) if found is not None), None)
        if not launches:
            reasons[fw_id] = "claimed by a worker that died before it started"
        elif job is None:
            reasons[fw_id] = "reserved for the queue, and no job was submitted"
        elif picture.is_gone(job):
            reasons[fw_id] = "reserved for a job that the queue no longer knows"
    yield from _grouped("reserved", flow, reasons)


def _sign(flow: Flow, fw_id: int) -> float:
    """Return the last sign of life of a Firework, or of a launch that counts for it."""
    return max([flow.changed(fw_id), *map(last_sign, flow.active(fw_id))])


def _lost(picture: Picture, flow: Flow) -> Iterator[Finding]:
    """RUNNING, and its worker shows no sign of life."""
    reasons = {}
    for fw_id in flow.in_state("RUNNING"):
        launches = [launch for launch in flow.active(fw_id) if launch["state"] == "RUNNING"]
        if not launches or representative(flow.active(fw_id)) == "COMPLETED":
            continue
        last = max(launches, key=last_sign)
        age, is_gone = picture.age(last_sign(last)), picture.is_gone(reservation(last))
        if age > picture.lost_s or (is_gone and age > picture.stale_s):
            why = " (the queue no longer knows its job)" if is_gone else ""
            reasons[fw_id] = f"running on {last.get('host')}, without a sign of life for {duration(age)}{why}"
    yield from _grouped("lost", flow, reasons)


def _left_over(picture: Picture, flow: Flow) -> Iterator[Finding]:
    """Launches recorded as RUNNING or RESERVED of Fireworks that have a newer launch."""
    launches = [
        launch
        for fw_id, firework in sorted(flow.fireworks.items())
        for launch in flow.launches[fw_id]
        if launch["state"] in {"RUNNING", "RESERVED"}
        and launch["launch_id"] not in firework["launches"]
        and picture.age(last_sign(launch)) > picture.lost_s
    ]
    if launches:
        fw_ids = sorted({launch["fw_id"] for launch in launches})
        said = (
            f"{are(fw_ids)} still recorded as running under an earlier launch, whose worker is gone",
            "--fix records that it ended",
        )
        yield _finding("left over", flow, fw_ids, said, launches, max(map(last_sign, launches)))


# --- what failed ------------------------------------------------------------------------------------------------------


def _fizzled(flow: Flow) -> Iterator[Finding]:
    """What failed, and keeps the Workflow from continuing; a gather requests again what its chunks left undone."""
    causes = {fw_id: cause_of(flow, fw_id) for fw_id in flow.in_state("FIZZLED") if is_in_the_way(flow, fw_id)}
    if not causes:
        return
    message = None if flow.folder is None else _read(Submissions(flow.folder).stop_message)
    if isinstance(message, str) and not all(map(is_not_imported, causes.values())):
        what, do = f"{flow.name} stopped: {message}", "fix the cause and run `activelearn submit` again"
        yield Finding(
            "stopped", what, f"{do}; failures are then counted from zero", workflow=flow.number, fw_ids=tuple(causes)
        )
        return
    for cause, fw_ids in _alike(causes).items():
        hosts = sorted({str(launch.get("host")) for fw_id in fw_ids for launch in flow.active(fw_id)[-1:]})
        where = f"on {', '.join(hosts)}" if hosts else "on a host that FireWorks did not record"
        if is_not_imported(cause):
            kind = "import"
            what = f"failed: the worker's interpreter cannot import activelearn, {where}: {cause}"
            do = "fix the environment of those workers (activelearn check -l), then --fix runs it again"
        else:
            kind = "fizzled"
            what = f"failed {where}: {cause}"
            do = "--fix runs it again; if it fails again, fix the cause"
        yield _finding(kind, flow, fw_ids, (what, do))


def is_in_the_way(flow: Flow, fw_id: int) -> bool:
    """Return whether a failure blocks others: it is the last, or they do not continue after failures.

    A worker that could not even read the Firework (its interpreter lacks a module) could not pass it on either.
    """
    children = [child for child in flow.children(fw_id) if child in flow.fireworks]
    if not children or not all(flow.goes_on_after(child, "FIZZLED") for child in children):
        return True
    waiting = all(flow.fireworks[child]["state"] in {"WAITING", "FIZZLED"} for child in children)
    return waiting and is_not_imported(cause_of(flow, fw_id))


def is_not_imported(cause: str) -> bool:
    """Return whether a stored exception says that a worker lacks a module."""
    return _NOT_IMPORTED.search(cause) is not None


def cause_of(flow: Flow, fw_id: int) -> str:
    """Return why a Firework failed: the exception that its last launch stored, without the traceback."""
    launches = flow.active(fw_id)
    stored = ((launches[-1].get("action") or {}).get("stored_data") or {}) if launches else {}
    exception = stored.get("_exception") or flow.fireworks[fw_id]["spec"].get("_exception_details") or {}
    lines = str(exception.get("_stacktrace") or "").splitlines()
    frames = [i for i, line in enumerate(lines) if line.startswith('  File "')]
    after = lines[frames[-1] + 1 :] if frames else lines
    said = next((line.strip() for line in after if line.strip() and not line.startswith(" ")), "")
    return said or "no cause was recorded (its worker was killed, or FireWorks could not read the Workflow)"


# --- interrupted completions ------------------------------------------------------------------------------------------


def _torn(picture: Picture, flow: Flow) -> Iterator[Finding]:
    """States that contradict each other: a worker died while reporting to the LaunchPad that it had finished."""
    torn = [fw_id for fw_id in flow.fireworks if _is_torn(picture, flow, fw_id)]
    if torn:
        said = ("ended without passing it on: a worker died half-way", "--fix determines what is ready now")
        yield _finding("torn", flow, sorted(torn), said)


def _is_torn(picture: Picture, flow: Flow, fw_id: int) -> bool:
    state = flow.fireworks[fw_id]["state"]
    if state in {"READY", "RESERVED", "RUNNING"}:  # its launch has ended
        ended = representative(flow.active(fw_id)) in {"COMPLETED", "FIZZLED"}
        return ended and picture.is_stale(_sign(flow, fw_id))
    if state == "FIZZLED" and is_in_the_way(flow, fw_id):
        return False  # a finding of its own
    if state in {"COMPLETED", "FIZZLED"}:  # unknown to the Workflow, or to what waits for it
        is_told = flow.document.get("fw_states", {}).get(str(fw_id), state) == state
        return picture.is_stale(_sign(flow, fw_id)) and (
            not is_told or any(_waits_in_vain(picture, flow, child) for child in flow.children(fw_id))
        )
    return False


def _waits_in_vain(picture: Picture, flow: Flow, fw_id: int) -> bool:
    if fw_id not in flow.fireworks or flow.fireworks[fw_id]["state"] != "WAITING":
        return False
    parents = [parent for parent in flow.parents(fw_id) if parent in flow.fireworks]
    return all(
        flow.goes_on_after(fw_id, flow.fireworks[parent]["state"]) and picture.is_stale(_sign(flow, parent))
        for parent in parents
    )


def _stalled(picture: Picture, flow: Flow) -> Iterator[Finding]:
    states = {firework["state"] for firework in flow.fireworks.values()}
    at_work = {"READY", "RESERVED", "RUNNING", "PAUSED", "DEFUSED", "FIZZLED"}
    if states & at_work or not picture.is_stale(flow.updated):
        return
    idle = "nothing is ready or running, but it has not ended"
    what = "everything is done, but the Workflow is not marked as completed" if states == {"COMPLETED"} else idle
    yield _of_whole("stalled", flow, what, "--fix determines what is ready", flow.updated)


# --- locks ------------------------------------------------------------------------------------------------------------


def _stuck(picture: Picture) -> set[int]:
    """Return the Workflows whose lock is stale.

    FireWorks stores no time with a lock. Its holder changes the Workflow before releasing it, and does that in less
    than a second; so a Workflow that has not changed for long, and whose lock persists while we watch, has no holder.
    """
    suspects = {
        flow.number: flow.document["updated_on"]
        for flow in picture.flows
        if flow.is_locked and picture.is_stale(flow.updated)
    }
    watch_s = min(LOCK_WATCH_S, picture.stale_s)
    deadline = time.monotonic() + watch_s
    while suspects and time.monotonic() < deadline:
        time.sleep(min(_LOOK_EVERY_S, watch_s))
        for number, updated_on in list(suspects.items()):
            held = {"nodes": number, "locked": {"$exists": True}, "updated_on": updated_on}
            if picture.launchpad.workflows.find_one(held, {"_id": 1}) is None:
                del suspects[number]
    return set(suspects)


# --- folders ----------------------------------------------------------------------------------------------------------


def _read(read: Callable[[], object]) -> object:
    """Return the state of a folder; None if it cannot be read."""
    try:
        return read()
    except (OSError, TypeError, ValueError, KeyError, ActiveLearnError):
        return None


def _misplaced(picture: Picture, flow: Flow) -> Finding | None:
    """Return the problem of the folder that a Workflow works in."""
    if "campaign" not in flow.document["metadata"] or flow.folder is None:  # a job of `activelearn machine --smoke`
        return None
    now = picture.places.get(str(flow.document["metadata"]["campaign"]))
    if now is not None and not is_same_folder(flow.folder, now):
        return Finding(
            "moved",
            f"{flow.name}: its Fireworks refer to {flow.folder}, but the folder is now {now}",
            "run `activelearn submit` for it again: it updates their path",
            workflow=flow.number,
        )
    if not flow.folder.is_dir():
        return Finding(
            "folder",
            f"{flow.name}: there is no folder {flow.folder} (any more), as seen from this machine",
            "is its disk mounted here? If it has moved, run `activelearn submit` for it at its new path. If it was "
            "deleted, workers end this Workflow quietly when they reach it; to end it immediately: lpad -l "
            f"my_launchpad.yaml defuse_wflows -i {flow.number}",
            workflow=flow.number,
        )
    current = Submissions(flow.folder).current()
    if current is not None and current.database == database_id(picture.launchpad):
        return None
    where = "to no LaunchPad (any more)" if current is None else f"to {current.launchpad}"
    return _of_whole(
        "elsewhere",
        flow,
        f"its folder {flow.folder} is submitted {where}, so nothing here may work in it",
        "--fix ends this Workflow, as would workers that reach it; to work on it from here: activelearn submit",
    )


def _forgotten(picture: Picture) -> Iterator[Finding]:
    """Campaigns that are submitted here, have not ended, and have nothing in the LaunchPad."""
    launchpad, database = picture.launchpad, database_id(picture.launchpad)
    here = getattr(launchpad, "identity", None)
    for folder in _folders_at_rest(picture):
        current = _read(Submissions(folder).current)
        is_meant = isinstance(current, Submission) and (
            current.database == database or (folder == picture.folder and current.launchpad == here)
        )
        if is_meant and _read(partial(_lacks_its_next, launchpad, folder)):
            yield Finding(
                "forgotten",
                f"{folder} is submitted here and has not ended, but the LaunchPad has nothing left to do for it",
                "run `activelearn submit` again: it continues from the products",
            )


def _folders_at_rest(picture: Picture) -> list[Path]:
    """Return the folders of campaigns all of whose Workflows are COMPLETED, and the one that was asked about."""
    launchpad = picture.launchpad
    kinds = {**OURS, "metadata.part": {"$in": ["loop", "final"]}}
    ended = launchpad.workflows.find({**kinds, "state": "COMPLETED"}, {"metadata": 1, "nodes": 1})
    latest = {document["metadata"]["campaign"]: document["nodes"][0] for document in ended}
    for campaign in launchpad.workflows.distinct("metadata.campaign", {**kinds, "state": {"$ne": "COMPLETED"}}):
        latest.pop(campaign, None)
    fireworks = launchpad.fireworks.find({"fw_id": {"$in": list(latest.values())}}, {"spec._tasks": 1})
    names = [name for name in map(folder_of, fireworks) if name is not None and picture.concerns(name)]
    return list(dict.fromkeys([*map(Path, names), *([] if picture.folder is None else [picture.folder])]))


def _lacks_its_next(launchpad: LaunchPad, folder: Path) -> bool:
    store = Store.open(folder)
    if store.submissions.stop_message() is not None or (phase := loop.next_phase(store)) is None:
        return False
    return launchpad.workflows.find_one(query_of(phase), {"_id": 1}) is None
