"""FireWorks at the edge: one Workflow per iteration, chunks as Fireworks, and an embedded LaunchPad for one machine.

The only module that imports fireworks. A Firetask holds no science: it names a station of the campaign folder and calls
the functions of the plain loop. The LaunchPad only schedules; whatever it forgets is rebuilt from the folder.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import fireworks.core.launchpad
import fireworks.core.rocket
from fireworks import FireTaskBase, Firework, FWAction, FWorker, LaunchPad, Workflow, explicit_serialize
from fireworks.core.rocket_launcher import launch_rocket

from activelearn import loop, study
from activelearn.config import Machine, load_machine
from activelearn.engines.process import check_stop, is_stopping
from activelearn.errors import ActiveLearnError, ConfigError, StoreError, TaskFailed
from activelearn.loop import Part, Step
from activelearn.records import End
from activelearn.store import Folder, Store, StudyStore, disk_errors
from activelearn.store.study import ONCE
from activelearn.tasks import carry_out, frozen_plan, gather

#: How often a gather Firework asks again for what is pending before it gives up.
MAX_DETOURS: Final = 3
_QUIET: Final = "CRITICAL"


class EmbeddedLaunchPad(LaunchPad):  # type: ignore[misc]
    """A LaunchPad in the memory of this process (mongomock); nobody else can see it, and nothing is lost with it.

    Parameters
    ----------
    store
        The campaign or the study that the driver has open: its Firetasks share it, so what is sealed is read once and
        not by each of them. None: they open their folder themselves.

    Attributes
    ----------
    error
        What a Firetask raised, as it was raised.
    """

    def __init__(self, store: Folder | None = None) -> None:
        try:
            import mongomock
        except ImportError as error:
            raise ConfigError(
                "mongomock: not installed - wanted for the embedded LaunchPad - pip install 'activelearn[local]'"
            ) from error
        self.store = store
        self.error: ActiveLearnError | None = None
        module = fireworks.core.launchpad
        saved = module.MongoClient, module.GRIDFS_FALLBACK_COLLECTION
        module.MongoClient, module.GRIDFS_FALLBACK_COLLECTION = mongomock.MongoClient, None
        try:
            super().__init__(strm_lvl=_QUIET)
        finally:
            module.MongoClient, module.GRIDFS_FALLBACK_COLLECTION = saved
        self.reset("", require_password=False)

    def ping_launch(self, launch_id: int, ptime: Any = None, checkpoint: Any = None) -> None:  # noqa: ANN401
        """Do nothing: the heartbeat thread would race with completion (mongomock is not atomic there)."""


class _StationTask(FireTaskBase):  # type: ignore[misc]
    """What the Firetasks share: the campaign folder, and how an error leaves."""

    required_params: Final = ["folder", "iteration", "part"]
    optional_params: Final = ["station", "chunk", "detours"]

    def run_task(self, fw_spec: dict[str, Any]) -> FWAction:  # noqa: ARG002 - all is in the parameters
        folder = Path(self["folder"])
        launchpad = getattr(self, "launchpad", None)  # FireWorks gives it; there is none in offline mode
        try:
            with disk_errors(folder):
                opened = launchpad.store if isinstance(launchpad, EmbeddedLaunchPad) else None
                store = opened or _open(folder, self["part"])
                return self.act(
                    store, _step(store, self["iteration"], self["part"]), load_machine(folder / "machine.yaml")
                )
        except ActiveLearnError as error:
            if not isinstance(launchpad, EmbeddedLaunchPad):
                raise
            launchpad.error = error  # the driver in this process raises it; no traceback through the rocket
            return FWAction(defuse_workflow=True)

    def act(self, store: Folder, step: Step, machine: Machine) -> FWAction | None:  # noqa: ARG002
        raise TypeError(f"{type(self).__name__} is not a Firetask of its own")


@explicit_serialize
class RunChunk(_StationTask):
    """Run chunk k of a station's plan."""

    def act(self, store: Folder, step: Step, machine: Machine) -> None:
        """Open the iteration if it is not, and carry out the chunk."""
        _begin(store, step, machine)
        carry_out(loop.STATIONS[self["station"]], store, step.iteration, machine, chunk=self["chunk"])


@explicit_serialize
class Gather(_StationTask):
    """Seal a station, or ask again for what its chunks left pending."""

    def act(self, store: Folder, step: Step, machine: Machine) -> FWAction | None:
        """Seal the station; parents that fizzled leave tasks pending, which a bounded detour takes up."""
        _begin(store, step, machine)
        station, tried = loop.STATIONS[self["station"]], self.get("detours", 0)
        plan = frozen_plan(station, store, step.iteration, machine)
        if store.is_sealed(station.name, step.iteration) or not (pending := store.pending(plan)):
            gather(station, store, step.iteration, machine)
            return None
        if tried >= MAX_DETOURS:
            raise TaskFailed(
                f"{len(pending)} tasks of {station.name} in iteration {step.iteration} are still pending after {tried} "
                f"more rounds, such as {pending[0].id} - see failures/ in {store.folder} - mend the cause and run again"
            )
        again = _station_fireworks(store, step, station.name, plan.n_chunks, parents=[], detours=tried + 1)
        return FWAction(detours=[Workflow(again)])


@explicit_serialize
class Decide(_StationTask):
    """Close the iteration and add the Workflow of what comes next."""

    def act(self, store: Folder, step: Step, machine: Machine) -> None:
        """Write the record of the iteration; on a shared LaunchPad the next Workflow is added here."""
        if isinstance(store, StudyStore):
            study.write_report(store)
            return
        assert isinstance(store, Store)  # the one or the other
        loop.close(store, step)
        if not isinstance(self.launchpad, EmbeddedLaunchPad):  # the local driver starts a fresh one per iteration
            advance(self.launchpad, store, machine)


def _open(folder: Path, part: Part) -> Folder:
    return StudyStore.open(folder) if part == "study" else Store.open(folder)


def _step(store: Folder, iteration: int, part: Part) -> Step:
    if isinstance(store, StudyStore):
        return Step(ONCE, study.stations(store.study), "study", store)
    assert isinstance(store, Store)  # the one or the other
    return loop.step_of(store, iteration, part=part)


def _begin(store: Folder, step: Step, machine: Machine) -> None:
    if isinstance(store, Store):  # a study was begun before its Workflow was added
        loop.begin(store, step, machine)


def _firework(task: type[_StationTask], store: Folder, step: Step, parents: list[Firework], **more: Any) -> Firework:  # noqa: ANN401
    station = more.get("station", "decide")
    part = f"-{more['chunk']}" if "chunk" in more else ""
    name = f"{_name(step)} {station} {task.__name__.lower()}{part}"
    spec = {"_add_launchpad_and_fw_id": True, "_category": station}
    if task is Gather:
        spec["_allow_fizzled_parents"] = True
    parameters = {"folder": str(store.folder), "iteration": step.iteration, "part": step.part, **more}
    return Firework(task(parameters), spec=spec, name=name, parents=parents)


def _station_fireworks(
    store: Folder, step: Step, station: str, n_chunks: int, parents: list[Firework], *, detours: int = 0
) -> list[Firework]:
    chunks = [
        _firework(RunChunk, store, step, parents, station=station, chunk=k)
        for k in range(n_chunks if station != "select" else 0)
    ]
    return [*chunks, _firework(Gather, store, step, chunks or parents, station=station, detours=detours)]


def _name(step: Step) -> str:
    return "study" if step.part == "study" else f"iter-{step.iteration:03d}"


def build_workflow(store: Folder, step: Step, machine: Machine) -> Workflow:
    """Return the Workflow of one iteration (or of the final models, or of a study).

    Each station is n chunks and a gather; the last Firework decides. The specs carry the folder, the iteration, the
    station and the chunk, and nothing that could grow: task ids, arrays and settings stay in the campaign folder.
    """
    fireworks: list[Firework] = []
    for station in step.stations:
        frozen = store.plan(station.name, step.iteration)  # of an interrupted run
        n_chunks = frozen.n_chunks if frozen is not None else machine.n_chunks(station.name)
        fireworks += _station_fireworks(store, step, station.name, n_chunks, parents=fireworks[-1:])
    fireworks.append(_firework(Decide, store, step, fireworks[-1:]))
    whose = store.latest_campaign() if isinstance(store, Store) else store.settings(step.iteration)
    return Workflow(fireworks, name=f"{whose.name} {_name(step)}", metadata=_metadata(store, step))


def _metadata(store: Folder, step: Step) -> dict[str, Any]:
    return {"campaign": store.uuid, "iteration": step.iteration, "part": step.part}


def advance(launchpad: LaunchPad, store: Store, machine: Machine) -> bool:
    """Add the Workflow of what comes next, once; return whether there is anything left to do."""
    step = loop.next_step(store)
    if step is None:
        return False
    _add_once(launchpad, _enter(store, step, machine), step, machine)
    return True


def _enter(store: Store, step: Step, machine: Machine) -> Folder:
    """Return the folder that a step works in; a study is begun, so that its workers find all they need in it."""
    if step.place is None:
        return store
    loop.begin(store, step, machine)
    step.place.save_machine(machine)
    return step.place


def _add_once(launchpad: LaunchPad, place: Folder, step: Step, machine: Machine) -> None:
    query = {f"metadata.{key}": value for key, value in _metadata(place, step).items()}
    if launchpad.workflows.find_one(query) is None:
        launchpad.add_wf(build_workflow(place, step, machine))


def run_local(store: Store, machine: Machine) -> End:
    """Drive a campaign to its end in this process, through a fresh in-memory LaunchPad per iteration.

    Raises
    ------
    ActiveLearnError
        Whatever a task raised: a failure past its bound, an interruption, a full disk.
    """
    store.save_machine(machine)
    with _quiet_logs(), _empty_working_directory():
        while (step := loop.next_step(store)) is not None:
            check_stop()
            _run_through(_enter(store, step, machine), step, machine)
    end = loop.verdict(store)
    assert end is not None  # nothing is left to do only after a verdict
    return end


def run_study(place: StudyStore, machine: Machine) -> None:
    """Drive a study that was begun to its end in this process, as :func:`run_local` does a campaign."""
    place.save_machine(machine)
    with _quiet_logs(), _empty_working_directory():
        _run_through(place, _step(place, ONCE, "study"), machine)


def _run_through(place: Folder, step: Step, machine: Machine) -> None:
    launchpad = EmbeddedLaunchPad(place)
    _add_once(launchpad, place, step, machine)
    _launch_all(launchpad)


@contextlib.contextmanager
def _quiet_logs() -> Iterator[None]:
    """Keep FireWorks' own log from drowning ours."""
    for name in ("launchpad", "rocket.launcher"):
        logging.getLogger(name).disabled = True
    yield


def _launch_all(launchpad: EmbeddedLaunchPad) -> None:
    worker = FWorker(name="activelearn-local")
    while not is_stopping() and launch_rocket(launchpad, worker, strm_lvl=_QUIET):
        if launchpad.error is not None:
            raise launchpad.error
        _raise_fault(launchpad)  # at once: the gather after it would go on, and hide it behind detours
    check_stop()


def _raise_fault(launchpad: EmbeddedLaunchPad) -> None:
    fizzled = launchpad.fireworks.find_one({"state": "FIZZLED"})
    if fizzled is not None:  # an error that is not one of ours: a fault in the program
        trace = launchpad.get_fw_by_id(fizzled["fw_id"]).launches[-1].action.stored_data["_exception"]["_stacktrace"]
        raise StoreError(f"{fizzled['name']} failed; nothing that was published is lost. Please report this:\n{trace}")


@contextlib.contextmanager
def _empty_working_directory() -> Iterator[None]:
    """Work in an empty folder: a stray FWAction.json or FW_config.yaml in the user's own would be obeyed."""
    here = Path.cwd()
    saved = fireworks.core.rocket.PRINT_FW_JSON
    with tempfile.TemporaryDirectory(prefix="activelearn-") as folder:
        os.chdir(folder)
        fireworks.core.rocket.PRINT_FW_JSON = False
        try:
            yield
        finally:
            fireworks.core.rocket.PRINT_FW_JSON = saved
            os.chdir(here)
