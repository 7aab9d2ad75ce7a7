"""The same campaign through FireWorks on the embedded LaunchPad: the records of the plain loop, and the edge itself."""

import json
import os
import shutil
from pathlib import Path

import pytest
from campaigns import SMALL, TINY, dataset_summary, end_sessions, unpack_products
from fireworks import Firework, FWAction, FWorker, Workflow
from fireworks.core.rocket_launcher import launch_rocket

from activelearn import loop, workflow
from activelearn.config import Machine, load_campaign
from activelearn.engines import process
from activelearn.errors import ConfigError, StoreError, TaskFailed
from activelearn.store import Lease, Store
from activelearn.workflow import (
    MAX_DETOURS,
    Decide,
    EmbeddedLaunchPad,
    Gather,
    RunChunk,
    advance,
    build_workflow,
    firetasks,
)

CHUNKS = {"initial": 2, "explore": 3, "label": 4, "train": 2, "final": 2}
#: What may differ between two runs of one campaign: clocks, and names that hold a clock.
OF_THE_CLOCK = {"seconds", "products", "seal"}


def record_of(store: Store, iteration: int) -> dict:
    """Return the record of an iteration without times; models by what they predict, for their bytes may differ."""
    record = json.loads(store.iteration_file(iteration).read_text())
    for name in OF_THE_CLOCK:
        record.pop(name)
    for part in (record["initial"], record["selection"]):
        for walk in part["walks"] if part is not None else []:
            walk.pop("sha256")  # of the product, which holds the times of its engine
    for member in record["ensemble"]["members"]:
        for name in ("model", "sha256"):
            member.pop(name)
    return record


@pytest.fixture
def store(tmp_path):
    """A campaign that has not begun."""
    found = Store.create(tmp_path / "campaign", load_campaign(TINY))
    found.save_machine(Machine(slots=2, chunks=CHUNKS, **SMALL))
    return found


@pytest.fixture
def at_label(undisturbed, tmp_path):
    """A copy of the tiny campaign that stands before the labels of iteration 1: nothing of it is sealed or labelled."""
    folder = tmp_path / "copy"
    shutil.copytree(undisturbed[0].folder, folder)
    unpack_products(folder / "iter-001")
    for name in ("iter-001/label", "iter-001/train", "iter-002", "labels"):
        shutil.rmtree(folder / name)
    for name in ("iter-001/iteration.json", "dataset/iter-001.npz", "dataset/iter-002.npz"):
        (folder / name).unlink()
    found = Store.open(folder)
    found.save_machine(Machine(slots=1, **SMALL))
    return found


@pytest.fixture
def sessions():
    process.allow_engines()
    yield
    end_sessions()


def launch(launchpad: EmbeddedLaunchPad, tmp_path: Path) -> bool:
    """Launch one Firework in an empty folder, and raise what it raised."""
    folder = tmp_path / f"launch-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    here = Path.cwd()
    os.chdir(folder)
    try:
        found = bool(launch_rocket(launchpad, FWorker(name="test"), strm_lvl="CRITICAL"))
    finally:
        os.chdir(here)
    if launchpad.error is not None:
        raise launchpad.error
    return found


# --- the whole campaign -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def through_fireworks(tmp_path_factory):
    """The tiny campaign through run_local, in chunks, from a folder with files that FireWorks would obey."""
    folder = tmp_path_factory.mktemp("through-fireworks")
    here = folder / "cwd"
    here.mkdir()
    (here / "FWAction.json").write_text(json.dumps({"exit": True, "defuse_workflow": True, "stored_data": {}}))
    (here / "FW_config.yaml").write_text("QUEUE_JOBNAME_MAXLEN: 1\nALWAYS_CREATE_NEW_BLOCK: true\n")
    store = Store.create(folder / "campaign", load_campaign(TINY))
    process.allow_engines()
    saved = Path.cwd()
    os.chdir(here)
    try:
        with Lease(store.folder):
            end = workflow.run_local(store, Machine(slots=2, chunks=CHUNKS, **SMALL))
        where = Path.cwd()
    finally:
        os.chdir(saved)
        end_sessions()
    return store, end, here, where


@pytest.mark.engines
def test_it_ends_as_the_plain_loop_does(undisturbed, through_fireworks):
    assert through_fireworks[1] == undisturbed[1]


@pytest.mark.engines
@pytest.mark.parametrize("iteration", [0, 1, 2])
def test_the_records_are_those_of_the_plain_loop(undisturbed, through_fireworks, iteration):
    assert record_of(through_fireworks[0], iteration) == record_of(undisturbed[0], iteration)


@pytest.mark.engines
def test_the_data_set_is_that_of_the_plain_loop_to_the_bit_whatever_the_chunks(undisturbed, through_fireworks):
    assert dataset_summary(through_fireworks[0], 2) == dataset_summary(undisturbed[0], 2)
    assert through_fireworks[0].plan("label", 1).n_chunks == 4
    assert undisturbed[0].plan("label", 1).n_chunks == 1


@pytest.mark.engines
def test_the_folder_is_that_of_the_plain_loop(undisturbed, through_fireworks):
    """The same products; models and segments by number, for their names are checksums and clocks."""

    def listing(store: Store) -> list[str]:
        paths = (path.relative_to(store.folder) for path in store.folder.rglob("*") if path.is_file())
        return sorted(str(path) for path in paths if path.parts[0] not in {"models", "labels", "sessions", "scratch"})

    plain = listing(undisturbed[0])
    assert listing(through_fireworks[0]) == sorted([*plain, "machine.yaml"])
    for name in ("models", "labels"):
        n_files = [len(list((found[0].folder / name).iterdir())) for found in (undisturbed, through_fireworks)]
        assert n_files[0] == n_files[1], name


@pytest.mark.engines
def test_stray_files_of_fireworks_in_the_working_directory_do_nothing(through_fireworks):
    _, _, here, where = through_fireworks
    assert where == here
    assert sorted(path.name for path in here.iterdir()) == ["FWAction.json", "FW_config.yaml"]


@pytest.mark.engines
def test_a_finished_campaign_runs_to_the_same_end_at_once(through_fireworks):
    store, end, _, _ = through_fireworks
    before = store.iteration_file(2).stat().st_mtime_ns
    assert workflow.run_local(Store(store.folder), Machine(slots=2, **SMALL)) == end
    assert store.iteration_file(2).stat().st_mtime_ns == before


# --- what a Workflow is -----------------------------------------------------------------------------------------------


def test_a_workflow_is_chunks_gathers_and_a_decision(store):
    built = build_workflow(loop.next_phase(store), Machine(chunks=CHUNKS))
    names = [fw.name for fw in built.fws]
    assert names == [
        "iter-000 prepare runchunk-0",
        "iter-000 prepare gather",
        "iter-000 initial runchunk-0",
        "iter-000 initial runchunk-1",
        "iter-000 initial gather",
        *[f"iter-000 label runchunk-{k}" for k in range(4)],
        "iter-000 label gather",
        *[f"iter-000 train runchunk-{k}" for k in range(2)],
        "iter-000 train gather",
        "iter-000 decide decide",
    ]
    parents = {
        fw.name: sorted(p.name for p in built.fws if fw.fw_id in built.links.get(p.fw_id, [])) for fw in built.fws
    }
    assert parents["iter-000 prepare runchunk-0"] == []
    assert parents["iter-000 initial runchunk-1"] == ["iter-000 prepare gather"]
    assert parents["iter-000 initial gather"] == ["iter-000 initial runchunk-0", "iter-000 initial runchunk-1"]
    assert parents["iter-000 label runchunk-3"] == ["iter-000 initial gather"]
    assert len(parents["iter-000 label gather"]) == 4
    assert parents["iter-000 decide decide"] == ["iter-000 train gather"]
    stations = ["prepare", "initial", "label", "train"]
    assert built.metadata == {"campaign": store.uuid, "iteration": 0, "part": "loop", "stations": stations}


def test_select_has_no_chunk(undisturbed):
    store = undisturbed[0]
    built = build_workflow(loop.phase_of(store, 2), Machine())
    assert [fw.name for fw in built.fws if "select" in fw.name] == ["iter-002 select gather"]


def test_an_iteration_of_added_systems_has_the_stations_of_the_first(undisturbed, tmp_path):
    """And its Firetasks, which know only its number, find the same: before it is open and afterwards."""
    shutil.copytree(undisturbed[0].folder, tmp_path / "copy")
    store = Store.open(tmp_path / "copy")
    old = store.latest_campaign()
    systems = (*old.initial.systems, old.initial.systems[0].model_copy(update={"supercell": (2, 2, 3)}))
    more = {"initial": old.initial.model_copy(update={"systems": systems})}
    store.accept(old.model_copy(update={**more, "stop": old.stop.model_copy(update={"max_iterations": 4})}))
    step = loop.next_phase(store)
    assert (step.iteration, step.stations) == (3, loop.FIRST)
    gathers = [fw.name for fw in build_workflow(step, Machine()).fws if fw.name.endswith("gather")]
    assert gathers == [f"iter-003 {name} gather" for name in ("prepare", "initial", "label", "train")]
    store.open_iteration(3, store.latest_campaign())
    store.accept(old)
    assert loop.phase_of(Store(store.folder), 3).stations == loop.FIRST


def test_a_spec_names_a_place_and_nothing_that_could_grow(undisturbed):
    """Folder, iteration, station, chunk: no task ids, arrays or settings, and the same size however many tasks."""
    store = undisturbed[0]
    built = build_workflow(loop.phase_of(store, 1), Machine(chunks=CHUNKS))
    ids = {task.id for station in ("explore", "train") for task in store.plan(station, 1).tasks}
    for fw in built.fws:
        spec = fw.to_dict()["spec"]
        assert set(spec) <= {"_tasks", "_add_launchpad_and_fw_id", "_category", "_allow_fizzled_parents"}
        (task,) = spec["_tasks"]
        assert set(task) <= {"_fw_name", "folder", "iteration", "part", "station", "chunk", "detours"}
        assert all(isinstance(value, str | int | bool) for value in task.values())
        text = json.dumps(fw.to_dict(), default=str)
        assert len(text) < 1500
        assert not [task_id for task_id in ids if task_id in text]


def test_only_gathers_allow_fizzled_parents(store):
    for fw in build_workflow(loop.next_phase(store), Machine(chunks=CHUNKS)).fws:
        assert fw.spec.get("_allow_fizzled_parents", False) == fw.name.endswith("gather")


def test_fireworks_can_load_the_firetasks_by_name(store):
    """A worker that cannot import a task fizzles its whole queue."""
    built = build_workflow(loop.next_phase(store), Machine(chunks=CHUNKS))
    again = Workflow.from_dict(json.loads(json.dumps(built.to_dict(), default=str)))
    kinds = {type(fw.tasks[0]) for fw in again.fws}
    assert kinds == {RunChunk, Gather, Decide}
    for kind in kinds:
        assert kind._fw_name == f"{{{{activelearn.workflow.firetasks.{kind.__name__}}}}}"


# --- the LaunchPad ----------------------------------------------------------------------------------------------------


def test_the_embedded_launchpads_are_apart_and_leave_fireworks_as_it_was():
    import fireworks.core.launchpad as module

    before = module.MongoClient, module.GRIDFS_FALLBACK_COLLECTION
    first, second = EmbeddedLaunchPad(), EmbeddedLaunchPad()
    assert (module.MongoClient, module.GRIDFS_FALLBACK_COLLECTION) == before
    first.add_wf(Workflow([Firework(RunChunk({"folder": "/", "iteration": 0, "part": "loop"}))]))
    assert first.fireworks.count_documents({}) == 1
    assert second.fireworks.count_documents({}) == 0


def test_the_next_workflow_is_added_once(store):
    launchpad = EmbeddedLaunchPad()
    machine = Machine(chunks=CHUNKS)
    assert advance(launchpad, loop.next_phase(store), machine)
    assert advance(launchpad, loop.next_phase(store), machine)
    assert launchpad.workflows.count_documents({}) == 1


def test_campaigns_share_a_launchpad(store, tmp_path):
    other = Store.create(tmp_path / "other", load_campaign(TINY))
    launchpad = EmbeddedLaunchPad()
    for one in (store, other, store, other):
        assert advance(launchpad, loop.next_phase(one), Machine())
    assert launchpad.workflows.count_documents({}) == 2


def test_nothing_is_added_for_a_campaign_that_has_ended(undisturbed):
    launchpad = EmbeddedLaunchPad()
    assert not advance(launchpad, loop.next_phase(undisturbed[0]), Machine())
    assert launchpad.workflows.count_documents({}) == 0


# --- the Firetasks ----------------------------------------------------------------------------------------------------


def parameters(store: Store, **more) -> dict:
    return {"folder": str(store.folder), "iteration": 1, "part": "loop", "station": "label", **more}


def test_a_gather_asks_again_for_what_is_pending(at_label):
    action = Gather(parameters(at_label)).run_task({})
    assert isinstance(action, FWAction)
    (again,) = action.detours
    assert [fw.name for fw in again.fws] == ["iter-001 label runchunk-0", "iter-001 label gather"]
    assert again.fws[1].tasks[0]["detours"] == 1
    assert not at_label.is_sealed("label", 1)


def test_a_gather_gives_up_after_its_last_detour(at_label):
    with pytest.raises(TaskFailed, match=r"8 tasks of label in iteration 1 could not .*their workers vanished"):
        Gather(parameters(at_label, detours=MAX_DETOURS)).run_task({})


def test_a_detour_takes_up_what_a_lost_chunk_left(at_label, tmp_path, sessions, undisturbed):
    """A chunk that fizzled ran nothing; its gather still runs, and the detour labels the rest."""
    launchpad = EmbeddedLaunchPad()
    step = loop.phase_of(at_label, 1)
    lost = Firework(RunChunk(parameters(at_label, station="nowhere", chunk=0)), name="lost")
    gather = Firework(
        Gather(parameters(at_label)), spec={"_allow_fizzled_parents": True}, parents=[lost], name="gather"
    )
    launchpad.add_wf(Workflow([lost, gather], metadata={"iteration": step.iteration}))
    while launch(launchpad, tmp_path):
        pass
    assert at_label.is_sealed("label", 1)
    # what a detour hangs in has the state of a run that went well, but for the chunk that is lost
    states = sorted(fw["state"] for fw in launchpad.fireworks.find({}, {"state": True}))
    assert states == ["COMPLETED", "COMPLETED", "COMPLETED", "FIZZLED"]
    assert dataset_summary(at_label, 1) == dataset_summary(undisturbed[0], 1)


def test_an_error_of_ours_is_raised_as_itself(store, monkeypatch):
    def fail(*_args, **_more):
        raise TaskFailed("walk 7 failed 3 times")

    monkeypatch.setattr(firetasks, "carry_out", fail)
    monkeypatch.setattr(loop.CampaignPhase, "begin", lambda *_: None)
    here = Path.cwd()
    with pytest.raises(TaskFailed, match="walk 7 failed 3 times"):
        workflow.run_local(store, Machine(**SMALL))
    assert Path.cwd() == here


def test_a_fault_of_the_program_is_reported_with_its_traceback(store, monkeypatch):
    def fail(*_args, **_more):
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr(firetasks, "carry_out", fail)
    monkeypatch.setattr(loop.CampaignPhase, "begin", lambda *_: None)
    with pytest.raises(StoreError, match=r"(?s)nothing that was published is lost.*nobody thought of this"):
        workflow.run_local(store, Machine(**SMALL))


def test_a_campaign_that_is_gone_is_said_so(tmp_path):
    with pytest.raises(ConfigError, match="no campaign here"):
        RunChunk({"folder": str(tmp_path / "gone"), "iteration": 0, "part": "loop"}).run_task({})


def test_the_driver_needs_mongomock(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "mongomock", None)
    with pytest.raises(ConfigError, match=r"mongomock: not installed .* pip install"):
        EmbeddedLaunchPad()
