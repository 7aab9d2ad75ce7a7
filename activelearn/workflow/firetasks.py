"""Firetasks, and the Workflow of one iteration that is made of them."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from pathlib import Path
from typing import Any, Final, NoReturn

from fireworks import FireTaskBase, Firework, FWAction, LaunchPad, Workflow, explicit_serialize

from activelearn import loop, page
from activelearn.check.trial import try_study
from activelearn.config import LIGHT, Machine, load_machine
from activelearn.engines.process import close_sessions, stopping_on_signals
from activelearn.errors import ActiveLearnError, TaskFailed, Unfit
from activelearn.loop import Phase, StudyPhase
from activelearn.records import Task
from activelearn.store import Folder, Store, StudyStore, disk_errors
from activelearn.store.submission import Submissions
from activelearn.tasks import Attempts, PhaseName, Station, carry_out, consent_needed, frozen_plan, gather, refuse, turn
from activelearn.workflow.launchpads import EmbeddedLaunchPad, database_id
from activelearn.workflow.queues import queue_keys

#: Rounds of detours in a row that left as much pending as they found, before a gather gives up.
MAX_DETOURS: Final = 5


class _StationTask(FireTaskBase):  # type: ignore[misc]
    """What the Firetasks share: the campaign folder, and error handling."""

    required_params: Final = ["folder", "iteration", "part"]
    optional_params: Final = ["station", "chunk", "detours", "pending"]
    #: Set by FireWorks; None in offline mode.
    launchpad: LaunchPad | None = None

    def run_task(self, fw_spec: dict[str, Any]) -> FWAction | None:  # noqa: ARG002 - all is in the parameters
        launchpad = self.launchpad
        if isinstance(launchpad, EmbeddedLaunchPad):
            try:
                return self._in(launchpad.phase)
            except ActiveLearnError as error:
                launchpad.error = error  # the driver in this process raises it; no traceback through the rocket
                return FWAction(defuse_workflow=True)
        folder = Path(self["folder"])
        if launchpad is not None and not _is_meant(folder, launchpad):
            told = {"ended": f"{folder} is not (or no longer) worked on from here"}
            return FWAction(stored_data=told, exit=True, defuse_workflow=True)
        with stopping_on_signals() as caught:
            try:
                return self._in(None)
            except ActiveLearnError as error:
                if caught:
                    self._leave(launchpad)
                if isinstance(error, Unfit) or (isinstance(error, TaskFailed) and isinstance(self, Gather)):
                    Submissions(folder).stop(str(error))
                raise

    def _in(self, phase: Phase | None) -> FWAction | None:
        folder = Path(self["folder"])
        with disk_errors(folder):
            phase = phase or _phase_in(folder, self["iteration"], self["part"])
            return self.act(phase, load_machine(folder / "machine.yaml"))

    def _leave(self, launchpad: LaunchPad | None) -> NoReturn:
        """End this worker, and make its Firework ready for the next: the queue or the user asked it to stop."""
        close_sessions()
        if launchpad is not None:
            with contextlib.suppress(Exception):  # a lost one is found by its ping: activelearn doctor
                begun = launchpad.fireworks.find_one({"fw_id": self.fw_id})["launches"]
                launchpad.rerun_fw(self.fw_id)
                ours = {"launch_id": {"$in": begun}, "state": "RUNNING"}
                launchpad.launches.update_many(
                    ours, {"$set": {"state": "FIZZLED"}}
                )  # no launch that seems to be running
        os._exit(143)  # FireWorks would treat any exception as a failure of the task, and continue with the next

    def act(self, phase: Phase, machine: Machine) -> FWAction | None:  # noqa: ARG002
        raise TypeError(f"{type(self).__name__} is not a Firetask of its own")

    @property
    def _is_shared(self) -> bool:
        return self.launchpad is not None and not isinstance(self.launchpad, EmbeddedLaunchPad)

    def _attempts(self, store: Folder) -> Attempts:
        """Return how failures count: of the submission on a cluster, of this process otherwise."""
        submission = store.submissions.current()
        if not self._is_shared or submission is None:
            return Attempts()
        return Attempts(submission.token, elsewhere=True, avoid_host=self.get("detours", 0) % 2 == 1)


@explicit_serialize
class RunChunk(_StationTask):
    """Run chunk k of a station's plan."""

    def act(self, phase: Phase, machine: Machine) -> None:
        """Open the iteration if necessary, and carry out the chunk."""
        _begin(phase, machine)
        if self._is_shared:
            _try(phase, machine)
        station, store = loop.STATIONS[self["station"]], phase.store
        carry_out(station, store, phase.iteration, machine, chunk=self["chunk"], attempts=self._attempts(store))


@explicit_serialize
class Gather(_StationTask):
    """Seal a station, or request again what its chunks left pending."""

    def act(self, phase: Phase, machine: Machine) -> FWAction | None:
        """Seal the station; what failed, or was lost with a worker, is requested again in bounded detours."""
        _begin(phase, machine)
        station, store = loop.STATIONS[self["station"]], phase.store
        plan = frozen_plan(station, store, phase.iteration, machine)
        if pending := store.pending(plan, by=station.published):
            self._give_up(station, phase, machine, pending)
            pending = store.pending(plan, by=station.published)
        if not pending:
            gather(station, store, phase.iteration, machine)
            return None
        left = {task.id for task in pending}
        chunks = [k for k in range(plan.n_chunks) if any(task.id in left for task in plan.chunk(k))]
        is_stuck = len(pending) >= self.get("pending", len(plan.tasks))
        left_off = {"detours": self.get("detours", 0) + 1 if is_stuck else 0, "pending": len(pending)}
        work = (station.name, chunks)
        again = _station_fireworks(phase, machine, work, parents=[], is_shared=self._is_shared, **left_off)
        return FWAction(detours=[Workflow(again)])

    def _give_up(self, station: Station, phase: Phase, machine: Machine, pending: list[Task]) -> None:
        """Refuse what may be refused; raise TaskFailed where a task has no attempts left, or nothing progresses."""
        store = phase.store
        if self._is_shared and (message := store.submissions.stop_message()) is not None:
            raise TaskFailed(message)  # a chunk found an error that no retry fixes
        attempts = self._attempts(store)
        failures = store.failures_of(station.name, phase.iteration, attempts.run_id)
        hopeless = [task for task in pending if len(failures.get(task.id, [])) >= machine.max_attempts]
        failed = [task for task in hopeless if not refuse(station, store, phase.iteration, task, machine.max_attempts)]
        if failed or self.get("detours", 0) >= MAX_DETOURS:
            raise TaskFailed(_why_stopped(store, station, phase.iteration, failed or pending, failures))


def _why_stopped(
    store: Folder, station: Station, iteration: int, tasks: list[Task], failures: dict[str, list[dict[str, Any]]]
) -> str:
    """Return what keeps a station from ending: the most common cause, where, and the log."""
    head = (
        f"{len(tasks)} tasks of {station.name} in iteration {iteration} could not be completed, such as {tasks[0].id}"
    )
    tail = f"everything else is safe in {store.folder} - fix the cause and submit again"
    records = [record for task in tasks for record in failures.get(task.id, [])]
    if not records:
        return (
            f"{head}: their workers vanished (walltime? memory?) {MAX_DETOURS} times and no failure was recorded - see "
            f"the output of the jobs; {tail}"
        )
    causes = Counter(record["message"].splitlines()[0] for record in records)
    cause, n = causes.most_common(1)[0]
    example = next(record for record in reversed(records) if record["message"].startswith(cause))
    hosts = sorted({record.get("host", "?") for record in records})
    return (
        f"{head}; {len(records)} failures on {', '.join(hosts)}, {n} of them:\n  {cause}\n  log: {example['file']}\n"
        f"{tail}{consent_needed(station, store)}"
    )


@explicit_serialize
class Decide(_StationTask):
    """Close the iteration and add the Workflow of what comes next."""

    def act(self, phase: Phase, machine: Machine) -> None:
        """Write the record of the iteration; on a shared LaunchPad the next Workflow is added here."""
        with turn(phase.store, "decide"):
            phase.close()
            # The local driver starts a fresh one per iteration, and writes the page itself.
            is_over = self._is_shared and not advance(self.launchpad, phase.following(), machine)
        if is_over:
            page.log_at_end(_campaign_folder(phase), machine)


def _campaign_folder(phase: Phase) -> Path:
    """Return the folder of the campaign that a phase is of, or that of a study by itself."""
    folder = phase.store.folder
    return folder.parent if phase.name == "study" and (folder.parent / "campaign").is_dir() else folder


def _is_meant(folder: Path, launchpad: LaunchPad) -> bool:
    """Return whether the folder is (still) submitted to this LaunchPad."""
    current = Submissions(folder).current()
    return current is not None and current.database == database_id(launchpad)


def _phase_in(folder: Path, iteration: int, name: PhaseName) -> Phase:
    """Return the phase that a Firework names."""
    if name == "study":
        store = StudyStore.open(folder)
        return StudyPhase.of(store, store.study)
    return loop.phase_of(Store.open(folder), iteration, name=name)


def _begin(phase: Phase, machine: Machine) -> None:
    if not phase.is_begun:  # the study of a campaign was begun before its Workflow was added
        with turn(phase.store, "begin"):
            phase.begin(machine)


def _try(phase: Phase, machine: Machine) -> None:
    """Have the potentials of a study label small structures first, on the node: one worker does it, and leaves a note.

    Raises
    ------
    Unfit
        One of them cannot be used; the submission stops.
    """
    if not isinstance(phase, StudyPhase):
        return
    parent = Store(phase.store.folder.parent)
    own = parent.latest_campaign().label.reference if parent.campaign_files() else None
    with turn(phase.store, "try"):
        try_study(phase.store, phase.asked, machine, n_own=int(own is not None), own=own)


def whereabouts(machine: Machine, kind: str) -> dict[str, Any]:
    """Return the part of a spec that defines which workers take a kind of work, and the resources requested."""
    place = machine.place_name(kind)
    queue = {} if place is None else {"_queueadapter": queue_keys(machine.places[place].queue)}
    return {"_category": machine.category(kind), **queue}


def launch_dir(folder: Path) -> str:
    """Return the working directory of the workers of a folder."""
    return str(folder / "launches")


def is_same_folder(named: Path | str, folder: Path) -> bool:
    """Return whether the path that a Firework has for its folder leads to this one, possibly by a link."""
    try:
        return Path(named) == folder or Path(named).samefile(folder)
    except OSError:  # it no longer exists
        return False


def kind_of(spec: dict[str, Any]) -> str:
    """Return the kind of work of a Firework: the station of a chunk, or `LIGHT`."""
    task = spec["_tasks"][0]
    return str(task["station"]) if "chunk" in task else LIGHT


def _firework(
    task: type[_StationTask],
    phase: Phase,
    machine: Machine,
    *,
    parents: list[Firework],
    is_shared: bool,
    **more: Any,  # noqa: ANN401
) -> Firework:
    station = more.get("station", "decide")
    suffix = f"-{more['chunk']}" if "chunk" in more else ""
    name = f"{_name(phase)} {station} {task.__name__.lower()}{suffix}"
    kind = station if task is RunChunk else LIGHT
    spec: dict[str, Any] = {"_add_launchpad_and_fw_id": True, "_category": machine.category(kind)}
    if task is Gather:
        spec["_allow_fizzled_parents"] = True
    if is_shared:  # one folder for all: otherwise a worker leaves one for each of thousands of Fireworks
        spec |= {"_launch_dir": launch_dir(phase.store.folder), **whereabouts(machine, kind)}
    parameters = {"folder": str(phase.store.folder), "iteration": phase.iteration, "part": phase.name, **more}
    return Firework(task(parameters), spec=spec, name=name, parents=parents)


def _station_fireworks(
    phase: Phase,
    machine: Machine,
    work: tuple[str, list[int]],
    *,
    parents: list[Firework],
    is_shared: bool,
    **more: Any,  # noqa: ANN401
) -> list[Firework]:
    """Return the Fireworks of a station: one per chunk, and the gather that waits for them."""
    station, numbers = work
    detours = {"detours": more["detours"]} if "detours" in more else {}
    chunks = [
        _firework(RunChunk, phase, machine, parents=parents, is_shared=is_shared, station=station, chunk=k, **detours)
        for k in numbers
    ]
    seal = _firework(Gather, phase, machine, parents=chunks or parents, is_shared=is_shared, station=station, **more)
    return [*chunks, seal]


def _name(phase: Phase) -> str:
    return "study" if phase.name == "study" else f"iter-{phase.iteration:03d}"


def build_workflow(phase: Phase, machine: Machine, *, is_shared: bool = False) -> Workflow:
    """Return the Workflow of one iteration (or of the final models, or of a study).

    Each station is n chunks and a gather; the last Firework decides. The specs contain the folder, the iteration, the
    station and the chunk, and nothing that could grow: task ids, arrays and settings stay in the campaign folder. For a
    shared LaunchPad they also contain the resources requested from the batch system.
    """
    fireworks: list[Firework] = []
    for station in phase.stations:
        frozen = phase.store.find_plan(station.name, phase.iteration)  # of an interrupted run
        n_chunks = frozen.n_chunks if frozen is not None else machine.n_chunks(station.name)
        work = (station.name, list(range(n_chunks if station.run is not None else 0)))
        fireworks += _station_fireworks(phase, machine, work, parents=fireworks[-1:], is_shared=is_shared)
    fireworks.append(_firework(Decide, phase, machine, parents=fireworks[-1:], is_shared=is_shared))
    suffix = " final" if phase.name == "final" else ""
    return Workflow(fireworks, name=f"{phase.store.title} {_name(phase)}{suffix}", metadata=_metadata(phase))


def _metadata(phase: Phase) -> dict[str, Any]:
    stations = [station.name for station in phase.stations]
    return {"campaign": phase.store.uuid, "iteration": phase.iteration, "part": phase.name, "stations": stations}


def advance(launchpad: LaunchPad, phase: Phase | None, machine: Machine) -> bool:
    """Add the Workflow of what comes next, once; return whether there is anything left to do."""
    if phase is None:
        return False
    enter(phase, machine)
    add_once(launchpad, phase, machine)
    return True


def enter(phase: Phase, machine: Machine) -> None:
    """Begin the study of a campaign, so that its workers find all they need in its folder; all else they begin."""
    if isinstance(phase, StudyPhase):
        if phase.campaign is not None:
            phase.begin(machine)
        phase.store.save_machine(machine)


def query_of(phase: Phase) -> dict[str, Any]:
    """Return the query for the Workflow of a phase; a defused or archived one does not count."""
    query = {f"metadata.{key}": value for key, value in _metadata(phase).items()}
    return {**query, "state": {"$nin": ["DEFUSED", "ARCHIVED", "COMPLETED"]}}


def add_once(launchpad: LaunchPad, phase: Phase, machine: Machine) -> None:
    """Add the Workflow of a phase, unless the LaunchPad has it."""
    if launchpad.workflows.find_one(query_of(phase)) is None:
        is_shared = not isinstance(launchpad, EmbeddedLaunchPad)
        launchpad.add_wf(build_workflow(phase, machine, is_shared=is_shared))
