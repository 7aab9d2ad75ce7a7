"""What the doctor finds in a LaunchPad after deaths at bad moments, and that work continues after its repair.

States are made by FireWorks' own calls, on a store of MongoDB's interface in memory; then they are aged.
"""

import dataclasses
import logging
import os
import re
import shlex
import stat
import sys
import time

import fireworks.core.launchpad
import mongomock
import pytest
import yaml
from campaigns import SMALL, TINY, cli
from doctored import Killed, Note, add, age, die, notes, states, work
from environments import environment
from fireworks import Firework, FWAction, FWorker, Workflow, fw_config
from fireworks.user_objects.queue_adapters.common_adapter import CommonAdapter
from typer.testing import CliRunner

from activelearn.cli import app
from activelearn.cli.cluster import _is_ours
from activelearn.config import Machine, load_campaign
from activelearn.store import Store
from activelearn.store.submission import Submissions
from activelearn.units import duration
from activelearn.workflow import RunChunk, SharedLaunchPad, submit
from activelearn.workflow.doctor import checks, examine, findings, launchpad_problems, picture, repair, summarise

OLD = 1000.0
PASSWORD = "s3same-open"


@pytest.fixture
def launchpad(monkeypatch, tmp_path):
    client = mongomock.MongoClient()
    monkeypatch.setattr(fireworks.core.launchpad, "MongoClient", lambda *_, **__: client)
    monkeypatch.setattr(fireworks.core.launchpad, "GRIDFS_FALLBACK_COLLECTION", None)
    monkeypatch.setattr(findings, "LOCK_WATCH_S", 0.1)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))  # no squeue
    monkeypatch.delenv("FW_CONFIG_FILE", raising=False)
    work_folder = tmp_path / "work"
    work_folder.mkdir()
    monkeypatch.chdir(work_folder)
    return SharedLaunchPad.from_dict({"host": "db", "name": "glass", "password": PASSWORD, "strm_lvl": "CRITICAL"})


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "copper"


@pytest.fixture
def ids(launchpad, folder):
    return add(launchpad, folder)


def look(launchpad, **more):
    return examine(launchpad, **{"stale_s": 300.0, "lost_s": 600.0, **more})


def kinds(launchpad, **more):
    return [one.kind for one in look(launchpad, **more)]


def claim(launchpad, fw_id):
    """Take a Firework as a worker does; return the id of its launch.

    Which one a worker would get is left open by FireWorks: it gives the smallest id to what was made last.
    """
    return launchpad.checkout_fw(FWorker(), ".", fw_id=fw_id)[1]


def all_done(launchpad):
    return set(states(launchpad).values()) == {"COMPLETED"}


# --- health -----------------------------------------------------------------------------------------------------------


def test_a_fresh_a_half_done_and_a_finished_workflow_are_healthy(launchpad, ids):
    assert look(launchpad) == []
    work(launchpad, 2)
    age(launchpad, 200.0)  # it waits for workers
    assert look(launchpad) == []
    work(launchpad)
    assert all_done(launchpad)
    assert look(launchpad) == []


def test_the_summary_tells_who_does_what_and_who_is_missing(launchpad, folder, ids):
    launch = claim(launchpad, ids["chunk0"])
    told = summarise(launchpad)
    assert told.workflows == (("copper iter-001", str(folder)),)
    assert told.counts == {"cpu": {"WAITING": 2, "READY": 1, "RUNNING": 1}}
    assert told.n_completed == 0
    assert 0.0 <= told.last_activity_s < 10.0
    launchpad.complete_launch(launch, FWAction(), "COMPLETED")
    age(launchpad, OLD)
    assert summarise(launchpad, folder.with_name("other")).workflows == ()


def test_fireworks_that_no_worker_of_their_category_takes_are_told_with_what_starts_one(launchpad, ids, tmp_path):
    (tmp_path / "my_fworker_cpu.yaml").touch()
    age(launchpad, 200.0)
    assert look(launchpad) == [], "just submitted"
    age(launchpad, OLD)
    (found,) = look(launchpad, file=tmp_path / "my_launchpad.yaml")
    assert (found.kind, found.repairable) == ("idle", False)
    assert found.what == (
        "2 READY Fireworks of category cpu have waited for 20 min, and no worker of this category has taken any "
        "(categories of the workers seen so far: none)"
    )
    assert found.next.startswith("start one: activelearn rlaunch -l ")
    assert found.next.endswith("(unless a job of it is pending in the queue: without -r, qlaunch leaves no trace here)")
    assert f"-w {tmp_path / 'my_fworker_cpu.yaml'}" in found.next


def refuse(tmp_path, monkeypatch, words, log="workers_cpu.log", program="sbatch"):
    """Have FireWorks submit a job to a queue that refuses it; its log is that of `activelearn qlaunch`."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "bin" / program).write_text(f"#!/bin/sh\necho {shlex.quote(words)} >&2\nexit 1\n")
    (tmp_path / "bin" / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    (tmp_path / "script").write_text("#!/bin/bash\n")
    logger = logging.getLogger("qadapter.SLURM")
    handler = logging.FileHandler(tmp_path / log)
    handler.addFilter(_is_ours)
    logger.addHandler(handler)
    try:
        CommonAdapter("SLURM", logdir=str(tmp_path)).submit_to_queue(str(tmp_path / "script"))
    finally:
        logger.removeHandler(handler)
        handler.close()


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("sbatch: error: invalid partition specified: cpuu", "queue.partition"),
        ("sbatch: error: Invalid account or account/partition combination specified", "queue.account"),
        ("sbatch: error: Requested time limit is invalid (missing or exceeds some limit)", "queue.walltime"),
        ("sbatch: error: Batch job submission failed: Invalid generic resource (gres) specification", "queue.gres"),
        ("sbatch: error: Memory specification can not be satisfied", "queue.memory_GB"),
        ("sbatch: error: Requested node configuration is not available", "queue.cpus_per_task, memory_GB, gres"),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit", "lower the number after -m of qlaunch"),
        ("qsub: Unknown queue", "queue.partition"),
        ("cpuu: No such queue. Job not submitted.", "queue.partition"),
        ("something new, it's odd", "correct queue of the place of cpu"),
    ],
)
def test_jobs_that_the_queue_keeps_refusing_are_told_in_its_own_words(
    launchpad, ids, tmp_path, monkeypatch, words, key
):
    file = tmp_path / "my_launchpad.yaml"
    assert look(launchpad, file=file) == []
    refuse(tmp_path, monkeypatch, words)
    (found,) = look(launchpad, file=file)
    assert (found.kind, found.repairable) == ("refused", False)
    assert found.what == f"2 READY Fireworks of category cpu: the queue refuses the job: {words!r} (workers_cpu.log)"
    assert key in found.next
    age(launchpad, OLD)
    assert [one.kind for one in look(launchpad, file=file)] == ["refused"], "and not that nobody is there"
    with (tmp_path / "workers_cpu.log").open("a") as log:
        log.write("Job submission was successful and job_id is 7\n")
    assert [one.kind for one in look(launchpad, file=file)] == ["idle"], "the last one was taken"


def test_a_refusal_of_long_ago_or_of_another_place_is_none(launchpad, ids, tmp_path, monkeypatch):
    refuse(tmp_path, monkeypatch, "sbatch: error: invalid partition", log="workers_gpu.log")
    assert look(launchpad, file=tmp_path / "my_launchpad.yaml") == []
    refuse(tmp_path, monkeypatch, "sbatch: error: invalid partition")
    os.utime(tmp_path / "workers_cpu.log", (1.0, 1.0))
    assert look(launchpad, file=tmp_path / "my_launchpad.yaml") == []


def add_theirs(launchpad, category):
    """Add Workflows that are not ours."""
    firework = Firework(Note(folder="/", name="x"), {"_category": category})
    launchpad.add_wf(Workflow([firework], metadata={"whose": "theirs"}))


def worker(category):
    return FWorker(name="w", category=category)


@pytest.mark.parametrize("category", ["cpu", ["gpu", "cpu"], ""])
def test_a_worker_that_is_at_work_or_was_just_now_is_no_reason_for_an_alarm(launchpad, ids, category):
    age(launchpad, OLD)
    launch = launchpad.checkout_fw(worker(category), ".", fw_id=ids["chunk0"])[1]
    assert look(launchpad) == []
    launchpad.complete_launch(launch, FWAction(), "COMPLETED")
    assert look(launchpad) == [], "it looks for the next one"
    age(launchpad, OLD)
    (found,) = look(launchpad)
    assert (
        "1 READY Firework of category cpu has waited for 33 min, and no worker of this category has taken any for 17"
        in found.what
    )


def test_a_job_in_the_queue_is_a_worker(launchpad, ids):
    _, launch = launchpad.reserve_fw(worker("cpu"), ".", fw_id=ids["chunk0"])
    launchpad.set_reservation_id(launch, 4711)
    age(launchpad, 100 * OLD)
    assert look(launchpad) == []


def test_a_worker_of_another_category_helps_nobody(launchpad, ids):
    add_theirs(launchpad, "gpu")
    age(launchpad, OLD)
    launchpad.checkout_fw(worker("gpu"), ".")
    (found,) = look(launchpad)
    assert "2 READY Fireworks of category cpu" in found.what
    assert found.what.endswith("(categories of the workers seen so far: gpu)")


def test_a_worker_that_is_busy_with_another_campaign_is_no_reason_for_an_alarm(launchpad, ids):
    add_theirs(launchpad, "cpu")
    age(launchpad, OLD)
    launchpad.checkout_fw(worker("cpu"), ".", fw_id=max(one["fw_id"] for one in launchpad.fireworks.find({})))
    assert look(launchpad) == []


def test_a_user_who_buries_workers_early_is_told_that_they_may_live(launchpad, ids):
    assert "one that is silent for 5 min may be alive" in summarise(launchpad, lost_s=300.0).notes[-1]


def test_a_campaign_that_moved_is_told_from_one_that_is_gone(launchpad, tmp_path):
    """Asked about at its new place, it was healthy."""
    store = Store.create(tmp_path / "c", load_campaign(TINY))
    submit(store, Machine(**SMALL), launchpad)
    moved = Store(store.folder.rename(tmp_path / "moved"))
    (gone,) = look(launchpad)
    assert gone.kind == "folder"
    assert "If it has moved, run `activelearn submit` for it at its new path" in gone.next
    (found,) = look(launchpad, folder=moved.folder)
    assert found.kind == "moved"
    assert f"its Fireworks refer to {store.folder}, but the folder is now {moved.folder}" in found.what
    moved.settle()
    submit(moved, Machine(**SMALL), launchpad)
    assert look(launchpad, folder=moved.folder) == look(launchpad) == []


def test_an_empty_database_and_a_folder_that_nobody_knows_are_told(launchpad, folder, ids):
    other = folder.with_name("other")
    assert summarise(launchpad, other).notes == (f"it has nothing to do for {other}",)
    launchpad.connection.drop_database("glass")
    assert "its database is empty" in summarise(launchpad).notes[0]


def test_workflows_of_others_are_none_of_our_business(launchpad):
    launchpad.prepare()
    launchpad.add_wf(Workflow([Firework(Note(folder="/", name="x"))], metadata={"whose": "a colleague"}))
    claim(launchpad, 1)
    launchpad.workflows.update_one({}, {"$set": {"locked": True}})
    age(launchpad, 10 * OLD)
    assert look(launchpad) == []


def test_a_job_of_the_smoke_test_is_ours(launchpad):
    launchpad.prepare()
    launchpad.add_wf(Workflow([Firework(Note(folder="/", name="x"))], metadata={"activelearn": "smoke"}))
    claim(launchpad, 1)
    age(launchpad, OLD)
    assert kinds(launchpad) == ["lost"]


# --- workers that died ------------------------------------------------------------------------------------------------


def test_a_worker_dies_between_claim_and_launch(launchpad, ids, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(launchpad, "get_new_launch_id", die)
        with pytest.raises(Killed):
            claim(launchpad, ids["chunk0"])
    assert look(launchpad) == [], "it may be at it"
    age(launchpad, OLD)
    (found,) = look(launchpad)
    assert (found.kind, found.fw_ids, found.repairable) == ("reserved", (ids["chunk0"],), True)
    assert f"Firework {ids['chunk0']} (chunk0) is claimed by a worker that died before it started" in found.what
    work(launchpad)
    assert states(launchpad)["gather"] == "WAITING"
    assert repair(launchpad, [found]) == [f"reserved: ready again: {ids['chunk0']}"]
    assert look(launchpad) == []
    work(launchpad)
    assert all_done(launchpad)


def test_a_worker_dies_after_its_launch_and_before_the_firework_knows_of_it(launchpad, ids, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(launchpad, "_upsert_fws", die)
        with pytest.raises(Killed):
            claim(launchpad, ids["chunk0"])
    age(launchpad, OLD)
    assert kinds(launchpad) == ["reserved", "left over"]
    repair(launchpad, look(launchpad))
    assert look(launchpad) == []
    work(launchpad)
    assert all_done(launchpad)


def queue_of(tmp_path, *jobs):
    (tmp_path / "bin").mkdir(exist_ok=True)
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text("#!/bin/sh\n" + "".join(f"echo {job}\n" for job in jobs))
    squeue.chmod(0o755)


def test_a_reservation_without_a_job_goes_back(launchpad, ids, tmp_path):
    _, launch = launchpad.reserve_fw(FWorker(), ".", fw_id=ids["chunk0"])
    age(launchpad, OLD)
    assert "no job was submitted" in look(launchpad)[0].what
    launchpad.set_reservation_id(launch, 4711)
    assert look(launchpad) == [], "no squeue: nobody knows"
    assert any("neither squeue, bjobs nor qstat answers" in note for note in summarise(launchpad).notes)
    queue_of(tmp_path, 4710, 4711)
    assert look(launchpad) == []
    queue_of(tmp_path, 4710)
    found = look(launchpad)
    assert [one.kind for one in found] == ["reserved"]
    assert "the queue no longer knows" in found[0].what
    repair(launchpad, found)
    assert {one["state"] for one in launchpad.launches.find({})} == {"FIZZLED"}
    work(launchpad)
    assert all_done(launchpad)


def test_a_queue_that_does_not_answer_says_nothing(launchpad, ids, tmp_path):
    _, launch = launchpad.reserve_fw(FWorker(), ".", fw_id=ids["chunk0"])
    launchpad.set_reservation_id(launch, 4711)
    age(launchpad, OLD)
    queue_of(tmp_path)
    (tmp_path / "bin" / "squeue").write_text("#!/bin/sh\necho slurm_load_jobs error >&2\nexit 1\n")
    assert look(launchpad) == []


def test_a_worker_dies_while_it_works(launchpad, ids):
    launches = claim(launchpad, ids["chunk0"]), claim(launchpad, ids["chunk1"])
    age(launchpad, OLD)
    launchpad.ping_launch(launches[1])
    (found,) = look(launchpad)
    assert (found.kind, found.fw_ids) == ("lost", (ids["chunk0"],))
    assert "without a sign of life for 17 min" in found.what
    assert repair(launchpad, [found]) == [f"lost: ready again: {ids['chunk0']}"]
    assert look(launchpad) == [], "neither is its launch left over"
    launchpad.complete_launch(launches[1], FWAction(), "COMPLETED")
    work(launchpad)
    assert all_done(launchpad)


def test_who_shows_a_sign_of_life_before_the_repair_is_spared(launchpad, ids):
    launch = claim(launchpad, ids["chunk0"])
    age(launchpad, OLD)
    found = look(launchpad)
    launchpad.ping_launch(launch)
    assert repair(launchpad, found) == ["lost: nothing left to do: 1 RUNNING"]
    assert states(launchpad)["chunk0"] == "RUNNING"


def test_a_running_one_whose_job_is_gone_needs_no_long_wait(launchpad, ids, tmp_path):
    _, launch = launchpad.reserve_fw(FWorker(), ".", fw_id=ids["chunk0"])
    launchpad.set_reservation_id(launch, 4711)
    claim(launchpad, ids["chunk0"])
    age(launchpad, 400.0)
    queue_of(tmp_path, 4711)
    assert look(launchpad) == []
    queue_of(tmp_path)
    assert kinds(launchpad) == ["lost"]


def test_how_long_silence_may_last_follows_from_the_pings(launchpad, ids, monkeypatch):
    claim(launchpad, ids["chunk0"])
    age(launchpad, OLD)
    assert look(launchpad, lost_s=None) == [], "by default workers ping every hour"
    assert any("ping every 60 min" in note for note in summarise(launchpad).notes)
    monkeypatch.setattr(fw_config, "PING_TIME_SECS", 60)
    assert kinds(launchpad, lost_s=None) == ["lost"]


def test_a_launch_of_an_earlier_try_is_noted_as_ended(launchpad, ids):
    claim(launchpad, ids["chunk0"])
    launchpad.rerun_fw(ids["chunk0"])  # as `lpad rerun_fws` of a user who saw that its node had gone
    assert look(launchpad) == [], "that worker may be alive"
    work(launchpad, 2)
    age(launchpad, OLD)
    found = look(launchpad)
    assert [(one.kind, one.fw_ids) for one in found] == [("left over", (ids["chunk0"],))]
    assert repair(launchpad, found) == ["left over: 1 recorded as ended"]
    assert kinds(launchpad) == ["idle"], "what is ready waits for a worker"
    work(launchpad)
    assert all_done(launchpad)


# --- locks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def locked(launchpad, ids, monkeypatch):
    """A worker has written that chunk0 is done, and died before the Workflow was; it held the lock."""
    launch = claim(launchpad, ids["chunk0"])
    age(launchpad, OLD)
    with monkeypatch.context() as patch:
        patch.setattr(launchpad, "_update_wf", lambda wf, updated: die())
        with pytest.raises(Killed):
            launchpad.complete_launch(launch, FWAction(), "COMPLETED")
    launchpad.workflows.update_one({}, {"$set": {"locked": True}})
    return launchpad


def test_a_lock_that_is_left_over_is_taken_away(locked):
    found = look(locked)
    assert [one.kind for one in found] == ["lock"]
    assert "all others wait for it" in found[0].what
    assert repair(locked, found) == ["lock: removed; the states are determined again"]
    assert states(locked)["chunk0"] == "COMPLETED"
    assert look(locked) == []
    work(locked)
    assert all_done(locked)


def test_a_lock_that_somebody_gives_back_is_none_of_ours(locked, monkeypatch):
    monkeypatch.setattr(findings.time, "sleep", lambda _: locked.workflows.update_one({}, {"$unset": {"locked": True}}))
    assert "lock" not in kinds(locked)


def test_a_lock_of_a_moment_ago_is_left_alone(launchpad, ids):
    launchpad.workflows.update_one({}, {"$set": {"locked": True}})
    assert look(launchpad) == []


def test_a_workflow_that_is_being_changed_is_left_alone(launchpad, ids):
    claim(launchpad, ids["chunk0"])
    age(launchpad, OLD)
    found = look(launchpad)
    launchpad.workflows.update_one({}, {"$set": {"locked": True}})
    assert "is being changed" in repair(launchpad, found)[0]
    assert states(launchpad)["chunk0"] == "RUNNING"


# --- failures ---------------------------------------------------------------------------------------------------------


def test_failures_are_told_by_their_cause_and_run_again(launchpad, folder, ids):
    (folder / "break-gather").write_text("disk full\n  command: lmp\n  | tail")
    work(launchpad)
    assert states(launchpad)["gather"] == "FIZZLED"
    (found,) = look(launchpad)
    assert (found.kind, found.fw_ids) == ("fizzled", (ids["gather"],))
    assert found.what.endswith(": RuntimeError: disk full")
    (folder / "break-gather").unlink()
    assert repair(launchpad, [found]) == [f"fizzled: ready again: {ids['gather']}"]
    work(launchpad)
    assert all_done(launchpad)
    assert notes(folder).count("chunk0") == 1


def test_a_failed_chunk_that_the_gather_takes_care_of_is_only_told(launchpad, folder, ids):
    (folder / "break-chunk0").write_text("no licence")
    work(launchpad, 2)
    age(launchpad, OLD)
    assert kinds(launchpad) == ["idle"]
    assert "1 failed chunk, to be requested again: RuntimeError: no licence" in " ".join(summarise(launchpad).notes)
    work(launchpad)
    assert states(launchpad)["decide"] == "COMPLETED"


def test_a_campaign_that_stopped_says_why(launchpad, folder, ids):
    (folder / "break-gather").write_text("3 tasks could not be done")
    work(launchpad)
    Submissions(folder).stop("3 tasks of label in iteration 1 could not be done: lmp: no such program")
    (found,) = look(launchpad)
    assert (found.kind, found.repairable) == ("stopped", False)
    assert "lmp: no such program" in found.what
    assert "`activelearn submit` again" in found.next


def test_a_worker_that_cannot_import_activelearn_is_named_and_its_failures_run_again(launchpad, ids):
    theirs = {"spec._tasks.0._fw_name": "{{no_such_module.Note}}"}
    ours = launchpad.fireworks.find_one({"fw_id": 1})["spec"]["_tasks"][0]["_fw_name"]
    launchpad.fireworks.update_many({}, {"$set": theirs})
    work(launchpad)
    assert states(launchpad)["chunk0"] == states(launchpad)["chunk1"] == "FIZZLED"
    age(launchpad, OLD)
    (found,) = look(launchpad)
    assert (found.kind, found.fw_ids) == ("import", (ids["chunk1"], ids["chunk0"]))
    assert "the worker's interpreter cannot import activelearn" in found.what
    assert "No module named 'no_such_module'" in found.what
    launchpad.fireworks.update_many({}, {"$set": {"spec._tasks.0._fw_name": ours}})  # the environment is fixed
    assert repair(launchpad, [found]) == [f"import: ready again: {ids['chunk1']}, {ids['chunk0']}"]
    work(launchpad)
    assert all_done(launchpad)


def test_an_import_that_fails_while_the_task_runs_is_named_with_the_host(launchpad, folder, ids):
    (folder / "break-decide").write_text("cannot import name 'tasks' from 'activelearn'")
    work(launchpad)
    (found,) = look(launchpad)
    assert found.kind == "import"
    assert f"activelearn, on {launchpad.launches.find_one({})['host']}" in found.what


# --- ids --------------------------------------------------------------------------------------------------------------


def test_ids_that_were_given_out_twice_are_found_and_not_repaired(launchpad, folder, ids):
    launchpad.fw_id_assigner.update_one({}, {"$set": {"next_fw_id": 3}})  # what a store without isolation does
    add(launchpad, folder.with_name("second"))
    found = [one for one in look(launchpad) if one.kind == "ids"]
    assert [one.what for one in found] == [
        "copper iter-001: Firework ids that were assigned twice: 3, 4",
        "second iter-001: Firework ids that were assigned twice: 3, 4",
    ]
    assert not any(one.repairable for one in found)
    assert "nothing is lost" in found[0].next


def test_launches_that_share_an_id_and_fireworks_that_are_missing_are_found(launchpad, ids):
    claim(launchpad, ids["chunk0"])
    launchpad.launches.drop_indexes()
    twin = launchpad.launches.find_one({})
    del twin["_id"]
    launchpad.launches.insert_one(twin)
    launchpad.fireworks.delete_one({"fw_id": 4})
    told = " / ".join(one.what for one in look(launchpad) if one.kind == "ids")
    assert re.search(r"launch ids that were assigned twice: \d+", told)
    assert "Fireworks of the Workflow that are not in the database: 4" in told


def test_a_counter_that_lags_behind_is_found(launchpad, ids):
    launchpad.fw_id_assigner.update_one({}, {"$set": {"next_fw_id": 4}})
    (found,) = look(launchpad)
    assert "the next Firework would get an id that is already in use (the largest in use is 4)" in found.what


# --- completions that were cut short ----------------------------------------------------------------------------------


def test_a_worker_dies_after_it_noted_the_end_of_its_launch(launchpad, ids, monkeypatch):
    launch = claim(launchpad, ids["chunk0"])
    with monkeypatch.context() as patch:
        patch.setattr(launchpad, "_refresh_wf", die)
        with pytest.raises(Killed):
            launchpad.complete_launch(launch, FWAction(), "COMPLETED")
    assert look(launchpad) == []
    age(launchpad, OLD)
    found = look(launchpad)
    assert [one.kind for one in found] == ["torn"]
    repair(launchpad, found)
    assert states(launchpad)["chunk0"] == "COMPLETED"
    work(launchpad)
    assert all_done(launchpad)


def test_a_worker_dies_between_the_fireworks_and_the_workflow_and_the_detour_is_not_lost(
    launchpad, folder, ids, monkeypatch
):
    (folder / "detour-gather").touch()
    work(launchpad, 2)
    whole = SharedLaunchPad._update_wf

    def half(self, workflow, updated):
        if workflow.id_fw[ids["gather"]].state != "COMPLETED":
            return whole(self, workflow, updated)
        self._upsert_fws([workflow.id_fw[fw_id] for fw_id in updated])
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SharedLaunchPad, "_update_wf", half)
        with pytest.raises(Killed):
            work(launchpad, 1)
    launchpad.workflows.update_one({}, {"$set": {"locked": True}})
    assert launchpad.fireworks.count_documents({}) == 5, "the detour is there, and in no Workflow"
    age(launchpad, OLD)
    (folder / "detour-gather").touch()  # requested again, a gather asks for what is still pending
    repair(launchpad, look(launchpad))
    assert look(launchpad) == []
    launchpad.fireworks.delete_many({"fw_id": 5})  # no name of ours; see the test of strays
    work(launchpad)
    assert all_done(launchpad)
    assert notes(folder)[-3:] == ["gather", "detour", "decide"]


def test_a_child_that_waits_for_parents_that_are_done_gets_ready(launchpad, ids):
    work(launchpad, 2)
    launchpad.fireworks.update_one({"fw_id": ids["gather"]}, {"$set": {"state": "WAITING"}})
    launchpad.workflows.update_one({}, {"$set": {f"fw_states.{ids['gather']}": "WAITING"}})
    assert look(launchpad) == []
    age(launchpad, OLD)
    found = look(launchpad)
    assert [one.kind for one in found] == ["torn"]
    assert repair(launchpad, found) == [f"torn: ready now: {ids['gather']}"]
    work(launchpad)
    assert all_done(launchpad)


def test_a_workflow_in_which_nothing_is_to_be_done_is_worked_out_anew(launchpad, ids):
    launchpad.fireworks.update_many({}, {"$set": {"state": "WAITING"}})
    age(launchpad, OLD)
    found = look(launchpad)
    assert [one.kind for one in found] == ["stalled"]
    assert repair(launchpad, found) == [f"stalled: ready now: {ids['chunk1']}, {ids['chunk0']}"]
    work(launchpad)
    assert all_done(launchpad)


def test_a_workflow_that_is_done_and_does_not_know_it_is_told(launchpad, ids):
    """Its last worker died before the state of the Workflow itself was written; a campaign would not be seen to end."""
    work(launchpad)
    launchpad.workflows.update_one({}, {"$set": {"state": "RUNNING"}})
    age(launchpad, OLD)
    found = look(launchpad)
    assert [one.kind for one in found] == ["stalled"]
    assert "everything is done, but the Workflow is not marked as completed" in found[0].what
    assert repair(launchpad, found) == ["stalled: the states are determined again"]
    assert launchpad.workflows.find_one({})["state"] == "COMPLETED"
    assert look(launchpad) == []


def test_fireworks_in_no_workflow_are_removed(launchpad, folder, ids, monkeypatch):
    task = RunChunk({"folder": str(folder), "iteration": 1, "part": "loop", "station": "label", "chunk": 0})
    workflow = Workflow([Firework(task), Firework(task)])
    monkeypatch.setattr(workflow, "to_db_dict", die)
    with pytest.raises(Killed):
        launchpad.add_wf(workflow)
    assert look(launchpad) == [], "it may be on the way"
    age(launchpad, OLD)
    found = look(launchpad)
    assert [(one.kind, one.fw_ids) for one in found] == [("stray", (5, 6)), ("idle", ())]
    assert look(launchpad, folder=folder.with_name("other")) == []
    assert repair(launchpad, found) == ["stray: 2 removed"]
    work(launchpad)
    assert all_done(launchpad)


# --- folders ----------------------------------------------------------------------------------------------------------


def test_an_interpreter_that_lacks_what_trains_is_told(launchpad, tmp_path):
    python = environment(tmp_path / "venv", torch="2.11.0")
    store = Store.create(tmp_path / "c", load_campaign(TINY))
    submit(store, Machine(**SMALL, python=str(python)), launchpad)
    (found,) = look(launchpad)
    assert (found.kind, found.repairable) == ("engines", False)
    assert f": train.backend: tensorflow: {python} has no tensorflow - expected " in found.what
    assert found.next == "pip install 'deepmd-kit[cpu,lmp]==3.2.0'"
    for there in (None, str(tmp_path / "elsewhere" / "python")):
        submit(store, Machine(**SMALL, python=there), launchpad)
        assert look(launchpad) == [], "the workers' own, or on a disk that is not seen here"


def test_a_folder_that_is_gone_is_told(launchpad, folder, ids):
    folder.rename(folder.with_name("moved"))
    (found,) = look(launchpad)
    assert (found.kind, found.repairable) == ("folder", False)
    assert str(folder) in found.what
    assert "lpad -l my_launchpad.yaml defuse_wflows -i 1" in found.next


def test_a_folder_that_is_submitted_elsewhere_ends_here(launchpad, folder, ids):
    Submissions(folder).submit("db2:27017/glass", "another")
    claim(launchpad, ids["chunk0"])
    (found,) = look(launchpad)
    assert found.kind == "elsewhere"
    assert "is submitted to db2:27017/glass" in found.what
    repair(launchpad, [found])
    assert set(states(launchpad).values()) == {"DEFUSED"}
    assert look(launchpad) == []


def test_a_workflow_that_failed_and_is_submitted_elsewhere_ends_here_too(launchpad, folder, ids):
    (folder / "break-decide").write_text("disk full")
    work(launchpad)
    Submissions(folder).submit("db2:27017/glass", "another")
    repair(launchpad, look(launchpad))
    assert sorted(states(launchpad).values()) == ["COMPLETED", "COMPLETED", "COMPLETED", "DEFUSED"]
    assert look(launchpad) == []


def test_a_folder_that_run_took_over_is_told(launchpad, folder, ids):
    Submissions(folder).withdraw()
    assert "is submitted to no LaunchPad (any more)" in look(launchpad)[0].what


def test_a_campaign_of_which_the_launchpad_knows_nothing_any_more_is_told(launchpad, tmp_path):
    store = Store.create(tmp_path / "campaign", load_campaign(TINY))
    machine = Machine(**SMALL)
    submit(store, machine, launchpad)
    assert look(launchpad, folder=store.folder) == []
    launchpad.workflows.update_many({}, {"$set": {"state": "COMPLETED"}})
    launchpad.fireworks.update_many({}, {"$set": {"state": "COMPLETED"}})
    assert [(one.kind, one.repairable) for one in look(launchpad)] == [("forgotten", False)]
    submit(store, machine, launchpad)
    assert look(launchpad) == []
    launchpad.connection.drop_database("glass")
    assert kinds(launchpad, folder=store.folder) == ["forgotten"]
    submit(store, machine, launchpad)
    assert look(launchpad, folder=store.folder) == []


# --- settings and clocks ----------------------------------------------------------------------------------------------


def test_a_stray_fw_config_is_found(launchpad, tmp_path, monkeypatch):
    ours = tmp_path / "FW_config.yaml"
    ours.write_text("PING_TIME_SECS: 60\n")
    monkeypatch.setenv("FW_CONFIG_FILE", str(ours))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert look(launchpad) == []
    (tmp_path / "work" / "FW_config.yaml").write_text("PING_TIME_SECS: 3600\n")
    (found,) = look(launchpad)
    assert f"{tmp_path / 'work' / 'FW_config.yaml'} takes precedence over {ours}" in found.what
    (tmp_path / "work" / "FW_config.yaml").unlink()
    ours.unlink()
    assert "no such file" in look(launchpad)[0].what


@pytest.mark.parametrize("text", ["NOT_A_KEY: 1\n", "PING_TIME_SECS: [\n", "- 60\n"])
def test_an_fw_config_that_fireworks_does_not_take_is_named_by_every_command(tmp_path, text):
    config = tmp_path / "FW_config.yaml"
    config.write_text(text)
    done = cli("rlaunch", "-l", "my_launchpad.yaml", "singleshot", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {config}: FireWorks does not accept it (")
    assert len(done.stderr.splitlines()) == 1


def test_settings_that_take_the_living_for_dead_are_found(launchpad, monkeypatch):
    monkeypatch.setattr(fw_config, "RUN_EXPIRATION_SECS", 3600)
    monkeypatch.setattr(fw_config, "RAPIDFIRE_SLEEP_SECS", 0)
    told = [one.what for one in look(launchpad)]
    assert "considers live workers lost" in told[0]
    assert "without a pause" in told[1]


def test_offline_mode_with_a_monty_that_breaks_it_is_found(launchpad, ids):
    launchpad.add_offline_run(1, 1, "chunk0")
    (found,) = look(launchpad)
    assert "offline mode" in found.what
    assert "activelearn rlaunch" in found.next


def test_a_host_whose_clock_is_ahead_is_named(launchpad, ids):
    claim(launchpad, ids["chunk0"])
    age(launchpad, -3000.0)
    (found,) = look(launchpad)
    host = launchpad.launches.find_one({})["host"]
    assert f"{host} has written a timestamp 50 min in the future" in found.what


@pytest.mark.parametrize(("ahead", "said"), [(400.0, "7 min ahead of"), (-6.0, "6 s behind")])
def test_ages_are_judged_by_the_clock_of_the_server(launchpad, ids, monkeypatch, ahead, said):
    def server_clock(_):
        return picture.Clock(now=time.time() - ahead, ahead_s=ahead, latency_s=0.001)

    monkeypatch.setattr(picture, "read_clock", server_clock)
    claim(launchpad, ids["chunk0"])
    age(launchpad, 700.0)  # by our clock it is lost; by that of the server it is not, if ours is ahead
    found = look(launchpad)
    assert said in found[0].what
    assert [one.kind for one in found[1:]] == ([] if ahead > 0 else ["lost"])


def test_times_have_the_unit_that_a_person_would_take():
    assert [duration(s) for s in (1.2, 119.0, 300.0, 7300.0, 200_000.0)] == ["1 s", "119 s", "5 min", "2 h", "2 d"]


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_no_password_is_in_any_message(launchpad, folder, ids):
    uri = f"mongodb://me:{PASSWORD}@db/?authSource=admin"
    (folder / "break-gather").write_text(f"no answer from {uri}, {PASSWORD}")
    work(launchpad)
    found = look(launchpad)
    Submissions(folder).stop(f"no answer from {uri} with {PASSWORD}")
    found += look(launchpad)
    (folder / "break-chunk0").write_text(uri)
    launchpad.rerun_fw(ids["chunk0"])
    work(launchpad, 1)
    said = [*map(dataclasses.asdict, found), dataclasses.asdict(summarise(launchpad)), *repair(launchpad, found)]
    assert [one.kind for one in found] == ["fizzled", "stopped"]
    assert "no answer from mongodb://db" in str(said)
    assert PASSWORD not in str(said)


# --- check -l ---------------------------------------------------------------------------------------------------------


def test_a_password_that_others_may_read_is_a_problem(launchpad, tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "worker_problems", lambda _: [])
    monkeypatch.setattr(checks, "connect", lambda _: launchpad)
    path = tmp_path / "my launchpad.yaml"
    path.write_text(yaml.safe_dump({"host": "db", "name": "glass", "password": PASSWORD}))
    path.chmod(0o640)
    problems, facts = launchpad_problems(path, Machine())
    assert problems == [
        f"{path}: contains a password, and others may read it (mode 640) - expected mode 600 - chmod 600 '{path}'"
    ]
    assert facts[0].startswith("LaunchPad db:27017/glass: MongoDB 5.0.5, ")
    assert "its database is empty" in facts[1]
    path.write_text(yaml.safe_dump({"host": f"mongodb://me:{PASSWORD}@db/", "name": "glass", "uri_mode": True}))
    assert len(launchpad_problems(path, Machine())[0]) == 1
    path.write_text(yaml.safe_dump({"host": "db", "name": "glass"}))
    assert launchpad_problems(path, Machine())[0] == [], "nothing to hide"
    path.chmod(stat.S_IRUSR)
    assert launchpad.db.list_collection_names() == [], "a check leaves nothing behind"


@pytest.mark.parametrize(("ahead", "who"), [(-600.0, "the server"), (600.0, "this machine"), (4.0, None)])
def test_a_clock_that_is_ahead_is_a_problem(launchpad, tmp_path, monkeypatch, ahead, who):
    clock = picture.Clock(now=time.time() - ahead, ahead_s=ahead, latency_s=0.001)
    monkeypatch.setattr(checks, "read_clock", lambda _: clock)
    monkeypatch.setattr(checks, "worker_problems", lambda _: [])
    monkeypatch.setattr(checks, "connect", lambda _: launchpad)
    problems, _ = launchpad_problems(tmp_path / "my_launchpad.yaml", Machine())
    assert [f"the clock of {who} is 10 min ahead" in one for one in problems] == ([] if who is None else [True])


def test_a_launchpad_that_is_not_there_is_one_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "worker_problems", lambda _: [])
    problems, facts = launchpad_problems(tmp_path / "none.yaml", Machine())
    assert len(problems) == 1
    assert "no such file" in problems[0]
    assert facts == []


def test_an_interpreter_that_imports_us_only_here_is_a_problem(tmp_path, monkeypatch):
    assert checks.worker_problems(Machine(name="site")) == []
    (tmp_path / "activelearn").mkdir()
    (tmp_path / "activelearn" / "__init__.py").write_text("raise ImportError('built for another machine')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (problem,) = checks.worker_problems(Machine(name="site"))
    assert sys.executable in problem
    assert "ImportError: built for another machine - expected" in problem
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert "no such program" in checks.worker_problems(Machine())[0]


def test_the_command_says_in_one_line_that_there_is_no_such_launchpad(tmp_path):
    done = CliRunner().invoke(app, ["doctor", "-l", str(tmp_path / "none.yaml")])
    assert "no such file" in str(done.exception)
    assert done.exception.exit_code == 2
