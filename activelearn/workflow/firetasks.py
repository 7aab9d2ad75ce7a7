"""Firetasks, and the Workflow of one iteration that is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from fireworks import FireTaskBase, Firework, FWAction, LaunchPad, Workflow, explicit_serialize

from activelearn import loop, study
from activelearn.config import Machine, load_machine
from activelearn.errors import ActiveLearnError, TaskFailed
from activelearn.loop import Part, Step
from activelearn.store import Folder, Store, StudyStore, disk_errors
from activelearn.store.study import ONCE
from activelearn.tasks import carry_out, frozen_plan, gather
from activelearn.workflow.launchpads import EmbeddedLaunchPad

#: How often a gather Firework asks again for what is pending before it gives up.
MAX_DETOURS: Final = 3


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
                    store, step_of(store, self["iteration"], self["part"]), load_machine(folder / "machine.yaml")
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


def step_of(store: Folder, iteration: int, part: Part) -> Step:
    """Return the step that a Firework names."""
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
    add_once(launchpad, enter(store, step, machine), step, machine)
    return True


def enter(store: Store, step: Step, machine: Machine) -> Folder:
    """Return the folder that a step works in; a study is begun, so that its workers find all they need in it."""
    if step.place is None:
        return store
    loop.begin(store, step, machine)
    step.place.save_machine(machine)
    return step.place


def add_once(launchpad: LaunchPad, place: Folder, step: Step, machine: Machine) -> None:
    """Add the Workflow of a step, unless the LaunchPad has it."""
    query = {f"metadata.{key}": value for key, value in _metadata(place, step).items()}
    if launchpad.workflows.find_one(query) is None:
        launchpad.add_wf(build_workflow(place, step, machine))
