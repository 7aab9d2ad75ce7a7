"""Submitting to a shared LaunchPad, and what its Fireworks do: on a store of MongoDB's interface in memory."""

import json
import os
import shutil
import signal

import pytest
from campaigns import SMALL, TINY
from cluster.servers import free_port
from fireworks import FWAction, FWorker

from activelearn import loop
from activelearn.config import Machine, Place, Queue, System, load_campaign
from activelearn.engines import process
from activelearn.errors import ConfigError, TaskFailed, Unfit
from activelearn.store import Store
from activelearn.workflow import (
    Gather,
    RunChunk,
    build_workflow,
    connect,
    firetasks,
    submit,
    worker,
)
from activelearn.workflow.firetasks import MAX_DETOURS
from activelearn.workflow.launchpads import database_id, identity

PLACES = {
    "cpu": Place(queue=Queue(partition="short", walltime="01:00:00", account="glass")),
    "gpu": Place(category="a100", queue=Queue(partition="gpu", gres="gpu:2"), slots=2, gpus=(0, 1)),
}
MACHINE = Machine(places=PLACES, stations={"train": "gpu", "explore": "gpu"}, chunks={"initial": 2}, **SMALL)


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "campaign", load_campaign(TINY))


def n_workflows(launchpad):
    return launchpad.workflows.count_documents({})


def test_it_is_added_once(store, memory):
    launchpad = memory()
    assert submit(store, MACHINE, launchpad) == "iteration 0 of campaign added to db.site:27017/glass"
    first = store.submissions.current()
    assert first.database == database_id(launchpad)
    assert submit(store, MACHINE, memory()).endswith("is already at db.site:27017/glass; nothing added")
    assert n_workflows(launchpad) == 1
    assert store.submissions.current() == first, "failures are still counted"


def test_a_lost_database_is_built_anew(store, memory):
    launchpad = memory()
    submit(store, MACHINE, launchpad)
    launchpad.connection.drop_database("glass")
    again = memory()
    assert submit(store, MACHINE, again).endswith("added to db.site:27017/glass again, from the products of the folder")
    assert n_workflows(again) == 1


def test_the_last_words_of_a_worker_of_a_dropped_database_complete_nothing(store, memory):
    """Launches that count from 1 again would give another Firework the id that the worker knows."""
    launchpad = memory()
    submit(store, MACHINE, launchpad)
    _, old = launchpad.checkout_fw(FWorker(), ".")
    launchpad.connection.drop_database("glass")
    submit(store, MACHINE, launchpad)
    firework, new = launchpad.checkout_fw(FWorker(), ".")
    assert new != old
    with pytest.raises(ValueError, match="No Launch exists"):
        launchpad.complete_launch(old, FWAction())
    assert launchpad.fireworks.find_one({"fw_id": firework.fw_id})["state"] == "RUNNING"


@pytest.mark.engines
def test_systems_that_were_added_since_come_before_what_is_queued(undisturbed, memory, tmp_path):
    """The queued iteration would explore; now the data of what was added are made first."""
    shutil.copytree(undisturbed[0].folder, tmp_path / "campaign")
    shutil.rmtree(tmp_path / "campaign" / "iter-002")
    (tmp_path / "campaign" / "dataset" / "iter-002.npz").unlink()
    store, launchpad = Store.open(tmp_path / "campaign"), memory()
    assert submit(store, MACHINE, launchpad) == "iteration 2 of campaign added to db.site:27017/glass"
    launchpad.reserve_fw(FWorker(), ".")  # a job waits in the queue for it
    old = store.latest_campaign()
    packed = System(packed={"units": {"Cu": 1}, "n_atoms": 24, "density_g_cm3": 6.0, "tolerance_A": 2.2})
    start = old.initial.model_copy(update={"systems": (*old.initial.systems, packed)})
    store.accept(old.model_copy(update={"initial": start}))
    assert submit(store, MACHINE, launchpad).startswith("iteration 2 of campaign added")
    states = {str(one["metadata"]["stations"]): one["state"] for one in launchpad.workflows.find({})}
    assert states == {
        "['explore', 'select', 'label', 'train']": "DEFUSED",
        "['prepare', 'initial', 'label', 'train']": "READY",
    }
    assert submit(store, MACHINE, launchpad).endswith("nothing added")


def test_what_nobody_has_taken_asks_for_what_the_profile_says_now(store, memory):
    """The first partition was a wrong one: sbatch refuses the jobs for ever."""
    launchpad = memory()
    submit(store, MACHINE, launchpad)
    taken, _ = launchpad.reserve_fw(FWorker(category="cpu"), ".")
    places = {**PLACES, "cpu": Place(category="icelake", queue=Queue(partition="long"))}
    other = MACHINE.model_copy(update={"places": places})
    said = submit(store, other, launchpad)
    specs = {one["fw_id"]: one["spec"] for one in launchpad.fireworks.find({})}
    assert specs[taken.fw_id]["_queueadapter"]["queue"] == "short"
    changed = [spec for spec in specs.values() if spec["_category"] == "icelake"]
    assert said.endswith(f"; {len(changed)} Fireworks have new settings")
    assert all(spec["_queueadapter"] == {"queue": "long", "nodes": 1, "ntasks": 1} for spec in changed)
    assert {spec["_category"] for spec in specs.values()} == {"cpu", "icelake", "a100"}
    assert submit(store, other, launchpad).endswith("; nothing added")


def test_another_launchpad_is_refused_until_the_folder_is_moved(store, memory):
    submit(store, MACHINE, memory())
    other = memory("other")
    with pytest.raises(ConfigError, match=r"was submitted to db\.site:27017/glass - expected one LaunchPad.*--move"):
        submit(store, MACHINE, other)
    assert n_workflows(other) == 0
    submit(store, MACHINE, other, move=True)
    assert n_workflows(other) == 1
    assert store.submissions.current().launchpad == "db.site:27017/other"


def test_a_folder_that_moved_is_pointed_to_by_its_fireworks_again(store, memory):
    """It was said that all is well, and the first worker ended the Workflow."""
    launchpad = memory()
    submit(store, MACHINE, launchpad)
    n = launchpad.fireworks.count_documents({})
    reserved, _ = launchpad.reserve_fw(FWorker(), ".")
    moved = Store(store.folder.rename(store.folder.with_name("moved here")))
    moved.settle()
    said = submit(moved, MACHINE, launchpad)
    assert f"{n} Fireworks now point to {moved.folder} instead of {store.folder}" in said
    specs = [one["spec"] for one in launchpad.fireworks.find({})]
    assert {spec["_tasks"][0]["folder"] for spec in specs} == {str(moved.folder)}
    assert {spec["_launch_dir"] for spec in specs} == {str(moved.folder / "launches")}
    assert launchpad.get_fw_by_id(reserved.fw_id).tasks[0]["folder"] == str(moved.folder), "as its job will read it"
    assert n_workflows(launchpad) == 1
    assert submit(moved, MACHINE, launchpad).endswith("; nothing added")


def test_what_failed_because_the_folder_had_gone_is_run_again(store, memory):
    launchpad = memory()
    submit(store, MACHINE, launchpad)
    firework, launch = launchpad.checkout_fw(FWorker(), ".")
    launchpad.complete_launch(launch, FWAction(), "FIZZLED")
    launchpad.checkout_fw(FWorker(), ".")
    moved = Store(store.folder.rename(store.folder.with_name("moved")))
    moved.settle()
    said = submit(moved, MACHINE, launchpad)
    assert ": 1 failed Fireworks run again; " in said
    assert said.endswith("; 1 of them are running at the old path: end their workers, and see: activelearn doctor")
    assert launchpad.get_fw_by_id(firework.fw_id).state == "READY"


def test_a_link_to_the_folder_is_the_folder(store, memory):
    launchpad = memory()
    submit(store, MACHINE, launchpad)
    store.folder.with_name("link").symlink_to(store.folder)
    assert submit(Store(store.folder.with_name("link")), MACHINE, launchpad).endswith("; nothing added")


def test_a_copy_leaves_the_fireworks_of_the_original_alone(store, memory):
    launchpad = memory()
    store.settle()
    submit(store, MACHINE, launchpad)
    copy = Store(shutil.copytree(store.folder, store.folder.with_name("copy")))
    copy.settle()
    assert submit(copy, MACHINE, launchpad) == "iteration 0 of copy added to db.site:27017/glass"
    folders = [one["spec"]["_tasks"][0]["folder"] for one in launchpad.fireworks.find({})]
    assert {folders.count(str(one.folder)) for one in (store, copy)} == {len(folders) // 2}


def test_one_database_by_two_names_is_one(store, memory):
    """A login node says localhost, a compute node says login1."""
    submit(store, MACHINE, memory(host="localhost"))
    assert submit(store, MACHINE, memory(host="login1")).endswith("; nothing added")


def test_a_folder_of_another_launchpad_is_left_alone_by_the_fireworks_of_this_one(store, memory):
    old = memory()
    submit(store, MACHINE, old)
    submit(store, MACHINE, memory("other"), move=True)
    for task in (RunChunk, Gather):
        firework = task({"folder": str(store.folder), "iteration": 0, "part": "loop", "station": "initial", "chunk": 0})
        firework.launchpad = old
        action = firework.run_task({})
        assert action.defuse_workflow
        assert action.exit
    assert store.opened_iterations() == []


def test_specs_say_where_and_what_the_queue_is_asked_for(store):
    built = build_workflow(loop.phase_of(store, 0), MACHINE, is_shared=True)
    specs = {fw.name: fw.spec for fw in built.fws}
    train = specs["iter-000 train runchunk-0"]
    assert train["_category"] == "a100"
    assert train["_queueadapter"] == {"queue": "gpu", "gres": "gpu:2", "nodes": 1, "ntasks": 1}
    initial = specs["iter-000 initial runchunk-1"]
    assert initial["_category"] == "cpu"
    assert initial["_queueadapter"] == {
        "queue": "short",
        "walltime": "01:00:00",
        "account": "glass",
        "nodes": 1,
        "ntasks": 1,
    }
    assert specs["iter-000 train gather"]["_category"] == "cpu", "a gather needs no GPU"
    assert train["_launch_dir"] == str(store.folder / "launches")


def test_a_local_workflow_has_no_words_for_a_queue(store):
    for firework in build_workflow(loop.phase_of(store, 0), MACHINE).fws:
        assert not {"_queueadapter", "_launch_dir"} & set(firework.spec)


# --- when it stops ----------------------------------------------------------------------------------------------------


@pytest.fixture
def failing(store, memory):
    """A gather of iteration 0 whose tasks had all their tries on two nodes; (store, launchpad, gather)."""
    launchpad = memory()
    submit(store, MACHINE, launchpad)
    loop.phase_of(store, 0).begin(MACHINE)
    station = loop.STATIONS["initial"]
    tasks = station.plan(store.campaign(0), store, 0)
    store.freeze_plan("initial", 0, tasks, 2)
    token = store.submissions.current().token
    for task in tasks[:2]:
        for message in ("cannot open shared object file\n  command: lmp", "cannot open shared object file", "odd"):
            store.record_failure("initial", 0, task, token, message)
    gather = Gather({"folder": str(store.folder), "iteration": 0, "part": "loop", "station": "initial"})
    gather.launchpad = launchpad
    return store, launchpad, gather


def test_past_its_bound_the_campaign_stops_and_names_the_commonest_cause_and_the_log(failing):
    store, _, gather = failing
    with pytest.raises(TaskFailed):
        gather.run_task({})
    said = store.submissions.stop_message()
    assert "2 tasks of initial in iteration 0 could not be completed" in said
    assert "6 failures on" in said
    assert "4 of them:\n  cannot open shared object file\n  log: " in said
    log = next(line for line in said.splitlines() if "log: " in line).split("log: ")[1]
    assert "cannot open shared object file" in json.loads(open(log).read())["message"]  # noqa: SIM115
    assert "submit again" in said


def test_what_no_retry_mends_stops_it_at_the_first_chunk(tmp_path, memory):
    text = TINY.read_text().replace("ase.calculators.emt:EMT", "ase.calculators.emt:EMTT")
    (tmp_path / "tiny.yaml").write_text(text)
    store, launchpad = Store.create(tmp_path / "c", load_campaign(tmp_path / "tiny.yaml")), memory()
    submit(store, MACHINE, launchpad)
    chunk = RunChunk(
        {"folder": str(store.folder), "iteration": 0, "part": "loop", "station": "initial", "chunk": 0, "detours": 0}
    )
    chunk.launchpad = launchpad
    with pytest.raises(Unfit, match="has no attribute 'EMTT'"):
        chunk.run_task({})
    said = store.submissions.stop_message()
    assert "has no attribute 'EMTT' - expected a class of that module" in said
    assert "\n" not in said
    assert store.failures(0) == []


def test_a_gather_asks_for_nothing_again_once_it_was_stopped(failing):
    store, _, gather = failing
    store.submissions.stop("label.reference: no such class")
    with pytest.raises(TaskFailed, match=r"^label\.reference: no such class$"):
        gather.run_task({})
    assert store.submissions.stop_message() == "label.reference: no such class"


def test_a_new_submission_takes_the_stop_away_and_runs_what_fizzled(failing):
    store, launchpad, gather = failing
    with pytest.raises(TaskFailed):
        gather.run_task({})
    before = store.submissions.current()
    fizzled = launchpad.fireworks.find_one({"name": "iter-000 prepare gather"})["fw_id"]
    launchpad.fireworks.update_one({"fw_id": fizzled}, {"$set": {"state": "FIZZLED"}})
    assert submit(store, MACHINE, launchpad).endswith("1 failed Fireworks run again")
    assert launchpad.get_fw_by_id(fizzled).state in {"READY", "WAITING"}
    assert store.submissions.stop_message() is None
    assert store.submissions.current().token != before.token, "failures are counted from zero"


def test_workers_that_vanish_again_and_again_stop_it_too(failing):
    store, _, gather = failing
    for path in (store.folder / "failures").iterdir():
        path.unlink()
    gather["detours"] = MAX_DETOURS
    with pytest.raises(TaskFailed, match=r"their workers vanished \(walltime\? memory\?\) 5 times"):
        gather.run_task({})


def test_a_detour_asks_for_the_chunks_with_pending_tasks_alone(failing):
    store, _, gather = failing
    for path in (store.folder / "failures").iterdir():
        path.unlink()
    for task in store.plan("initial", 0).chunk(1):
        store.publish_product("initial", 0, task.id, {}, {"started": 0.0, "finished": 0.0})
    (again,) = gather.run_task({}).detours
    assert [fw.name for fw in again.fws] == ["iter-000 initial runchunk-0", "iter-000 initial gather"]
    assert again.fws[0].spec["_queueadapter"]["queue"] == "short"
    assert again.fws[1].tasks[0]["detours"] == 0, "it moved"


# --- the LaunchPad ----------------------------------------------------------------------------------------------------


def test_ids_are_given_once(memory):
    one, other = memory(), memory()
    one.prepare()
    taken = [one.get_new_fw_id(3), other.get_new_fw_id(), one.get_new_fw_id(2), other.get_new_fw_id()]
    assert taken == [1, 4, 5, 7]
    first = one.get_new_launch_id()
    assert other.get_new_launch_id() == first + 1


def test_a_database_in_use_is_not_reset(store, memory):
    launchpad = memory()
    submit(store, MACHINE, launchpad)
    launchpad.fw_id_assigner.delete_many({})
    launchpad.prepare()
    assert n_workflows(launchpad) == 1


@pytest.mark.parametrize(
    ("host", "uri_mode", "found"),
    [
        ("db.site", False, "db.site:27017/glass"),
        ("mongodb+srv://me:secret@cluster.net/admin?tls=true", True, "cluster.net/glass"),
        ("mongodb://me:secret@a:1,b:2", True, "a:1,b:2/glass"),
    ],
)
def test_identity_holds_no_credentials(host, uri_mode, found):
    assert identity(host, None, "glass", uri_mode=uri_mode) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such file"),
        ("host: [", "cannot be read"),
        ("name: x", "no host or no name"),
        ("host: a\nname: b\npasword: secret", "unknown pasword"),
        ("host: a b c\nname: b\nport: many\npassword: secret", "port: FireWorks reads it as a text"),
    ],
)
def test_a_wrong_launchpad_file_is_one_line(tmp_path, text, said):
    file = tmp_path / "my_launchpad.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        connect(file)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(caught.value.problems) == 1


class Ended(BaseException):
    """This process, had it not been a test."""


def test_a_worker_waits_for_a_server_that_is_down_and_says_so(monkeypatch, caplog):
    """A job that has just done its work would find nobody to tell."""
    monkeypatch.setattr(worker, "ANSWER_S", 0.2)
    port = free_port()
    described = {"host": "127.0.0.1", "port": port, "name": "glass", "username": "me", "password": "secret"}
    launchpad = worker.PatientLaunchPad.from_dict({**described, "strm_lvl": "CRITICAL"})
    assert caplog.messages == [f"no answer from 127.0.0.1:{port}/glass within 0.2 s; waiting for it"]
    assert launchpad.connection.options.server_selection_timeout == worker.PATIENCE_S > 300.0
    theirs = {**described, "mongoclient_kwargs": {"serverSelectionTimeoutMS": 1000}}
    assert worker.PatientLaunchPad.from_dict(theirs).connection.options.server_selection_timeout == 1.0


def test_an_interrupted_worker_gives_its_firework_back(store, memory, monkeypatch):
    """SIGTERM (walltime, scancel): the Firework is ready for another worker, and this process ends."""
    launchpad = memory()
    submit(store, MACHINE, launchpad)
    firework, _ = launchpad.checkout_fw(FWorker(name="w"), str(store.folder))
    assert launchpad.get_fw_by_id(firework.fw_id).state == "RUNNING"
    (task,) = firework.tasks
    task.fw_id, task.launchpad = firework.fw_id, launchpad

    def end(code):
        raise Ended(code)

    def killed(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        process.check_stop()

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(firetasks, "_begin", killed)
    with pytest.raises(Ended, match="143"):
        task.run_task({})
    process.allow_engines()
    assert launchpad.get_fw_by_id(firework.fw_id).state == "READY"
    assert [one["state"] for one in launchpad.launches.find({})] == ["FIZZLED"], "no attempt seems to be in progress"
