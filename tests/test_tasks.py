"""How plans are carried out, shown on a toy station without any engine: once each, retried, refused, interrupted."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import activelearn as al
from activelearn import loop
from activelearn import tasks as tasks_module
from activelearn.config import Machine, load_campaign
from activelearn.engines import process
from activelearn.errors import ConfigError, EngineError, FolderHeld, Interrupted, StoreError, TaskFailed
from activelearn.loop import STATIONS
from activelearn.records import End, Explored, Plan, Task
from activelearn.store import Claim, Lease
from activelearn.store.files import HOST
from activelearn.store.locks import process_started
from activelearn.tasks import BAD_NODE, Attempts, Batching, carry_out, frozen_plan, gather, turn


@pytest.fixture(autouse=True)
def running():
    process.allow_engines()
    yield
    process.allow_engines()


class Toy:
    """A station whose tasks publish their name; `script` gives, by task, what its runs do one after the other."""

    def __init__(self, name="explore", n_tasks=6, script=None, seconds=0.0):
        self.name, self.n_tasks, self.script, self.seconds = name, n_tasks, script or {}, seconds
        self.runs, self.slots, self.at_once, self.most_at_once = [], set(), 0, 0
        self.lock = threading.Lock()
        self.station = replace(STATIONS[name], plan=self.plan, run=self.run, gather=self.gather, batching=None)

    def plan(self, campaign, store, iteration):
        return [Task(id=f"t{k}", kind="toy", parameters={"k": k}) for k in range(self.n_tasks)]

    def run(self, task, store, iteration, slot):
        with self.lock:
            self.runs.append(task.id)
            self.slots.add(slot.index)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            deeds = self.script.get(task.id, [])
            deed = deeds.pop(0) if deeds else None
        try:
            time.sleep(self.seconds)
            if deed is not None:
                deed()
            store.publish_product(self.name, iteration, task.id, {"k": np.array(task.parameters["k"])}, {})
        finally:
            with self.lock:
                self.at_once -= 1

    def gather(self, campaign, store, iteration):
        products = {task.id: "x" for task in store.plan(self.name, iteration).tasks}
        return Explored(iteration=iteration, stages=(), products=products)


class Batched(Toy):
    """A toy that carries out its tasks by threes; `batches` are those that were begun, by the numbers of tasks."""

    def __init__(self, **more):
        super().__init__(**more)
        self.batches = []
        self.station = replace(self.station, batching=Batching(self.divide, self.run_batch))

    def divide(self, tasks, store, iteration, n_slots):
        return [tuple(tasks[k : k + 3]) for k in range(0, len(tasks), 3)]

    def run_batch(self, tasks, store, iteration, slot):
        self.batches.append("".join(task.id[1:] for task in tasks))
        for task in tasks:
            self.run(task, store, iteration, slot)


def fails(error):
    def deed():
        raise error

    return deed


def published(store, toy, iteration=1):
    return sorted(path.stem for path in store.station_folder(toy.name, iteration).glob("t*.npz"))


# --- plain runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 2, 8])
def test_every_task_is_done_once(store, slots):
    toy = Toy(seconds=0.01)
    carry_out(toy.station, store, 1, Machine(slots=slots))
    assert sorted(toy.runs) == published(store, toy) == [f"t{k}" for k in range(6)]
    assert toy.most_at_once <= slots
    assert toy.slots <= set(range(slots))
    assert list((store.folder / "claims").iterdir()) == [], "claims are given back"
    carry_out(toy.station, store, 1, Machine(slots=slots))
    assert len(toy.runs) == 6, "resume does nothing that is done"


def test_slots_work_side_by_side(store):
    barrier = threading.Barrier(3, timeout=10.0)  # passes only if three tasks are at work at once
    toy = Toy(n_tasks=3, script={f"t{k}": [barrier.wait] for k in range(3)})
    carry_out(toy.station, store, 1, Machine(slots=3))
    assert toy.most_at_once == 3


def test_only_what_is_pending_is_run(store):
    toy = Toy()
    frozen_plan(toy.station, store, 1, Machine())
    store.publish_product("explore", 1, "t2", {}, {})
    carry_out(toy.station, store, 1, Machine(slots=2))
    assert sorted(toy.runs) == ["t0", "t1", "t3", "t4", "t5"]


def test_a_sealed_station_is_left_alone(store):
    toy = Toy()
    store.seal("explore", 1, Explored(iteration=1, stages=(), products={}))
    carry_out(toy.station, store, 1, Machine())
    gather(toy.station, store, 1, Machine())
    assert toy.runs == []


def test_an_empty_plan_is_carried_out(store):
    toy = Toy(n_tasks=0)
    carry_out(toy.station, store, 1, Machine())
    gather(toy.station, store, 1, Machine())
    assert store.is_sealed("explore", 1)


def test_a_plan_that_was_frozen_by_somebody_else_counts(store):
    store.freeze_plan("explore", 1, [Task(id="t5", kind="toy", parameters={"k": 5})], 3)
    toy = Toy()
    assert frozen_plan(toy.station, store, 1, Machine(chunks={"explore": 9})).n_chunks == 3
    carry_out(toy.station, store, 1, Machine())
    assert toy.runs == ["t5"]


@given(n_tasks=st.integers(0, 40), n_chunks=st.integers(1, 50))
def test_chunks_cover_the_plan_once_and_evenly(n_tasks, n_chunks):
    planned = [Task(id=f"t{k}", kind="toy") for k in range(n_tasks)]
    plan = Plan(station="x", iteration=0, n_chunks=n_chunks, tasks=tuple(planned))
    chunks = [plan.chunk(k) for k in range(n_chunks)]
    assert sorted(task.id for chunk in chunks for task in chunk) == sorted(task.id for task in planned)
    sizes = [len(chunk) for chunk in chunks]
    assert max(sizes) - min(sizes) <= 1


def test_a_chunk_runs_its_own_tasks_only(store):
    toy, two = Toy(), Machine(slots=2, chunks={"explore": 2})
    carry_out(toy.station, store, 1, two, chunk=1)
    assert sorted(toy.runs) == ["t1", "t3", "t5"]
    carry_out(toy.station, store, 1, two, chunk=0)
    assert len(published(store, toy)) == 6


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_task_that_infrastructure_killed_is_run_again(store):
    toy = Toy(script={"t1": [fails(EngineError("node lost")), fails(EngineError("node lost"))]})
    carry_out(toy.station, store, 1, Machine(slots=2, max_attempts=3))
    assert toy.runs.count("t1") == 3
    assert len(published(store, toy)) == 6
    assert [f["message"] for f in store.failures(1)] == ["node lost", "node lost"], "each is on record"


def test_past_its_bound_the_campaign_stops_with_a_message_and_the_rest_is_safe(store):
    toy = Toy(n_tasks=3, script={"t0": 9 * [fails(EngineError("no licence", command=["vasp"]))]})
    with pytest.raises(TaskFailed) as caught:
        carry_out(toy.station, store, 1, Machine(slots=1, max_attempts=2))
    text = str(caught.value)
    assert f"explore task t0 failed 2 times on infrastructure; everything else is safe in {store.folder}" in text
    assert "fix the cause and run the same command again" in text
    assert "--refuse-infrastructure-failures" in text
    assert "no licence\n  command: vasp" in text
    assert published(store, toy) == ["t1", "t2"], "failures wait at the end of the queue"
    assert list((store.folder / "claims").iterdir()) == []


def test_a_new_run_counts_its_attempts_anew(store, monkeypatch):
    toy = Toy(n_tasks=1, script={"t0": 3 * [fails(EngineError("x"))]})
    with pytest.raises(TaskFailed):
        carry_out(toy.station, store, 1, Machine(slots=1, max_attempts=2))
    monkeypatch.setattr(tasks_module, "RUN_ID", "another run")
    carry_out(toy.station, store, 1, Machine(slots=1, max_attempts=2))
    assert published(store, toy) == ["t0"]


@pytest.mark.parametrize("name", ["explore", "label"])
def test_with_consent_such_a_task_is_refused_on_record(store, name):
    store.consent.give(9, "yes")
    toy = Toy(name=name, n_tasks=2, script={"t0": 9 * [fails(EngineError("x"))]})
    toy.plan = lambda *_: [Task(id=f"t{k}", kind="toy", parameters={"k": k, "key": f"key{k}"}) for k in range(2)]
    carry_out(replace(toy.station, plan=toy.plan), store, 1, Machine(slots=1, max_attempts=2))
    from activelearn.store import read_npz

    _, meta = read_npz(store.product(name, 1, "t0"))
    assert meta["refused"] == "infrastructure failed 2 times"
    assert published(store, toy) == ["t0", "t1"]


def test_a_training_is_never_refused(store):
    store.consent.give(9, "yes")
    toy = Toy(name="train", n_tasks=1, script={"t0": 9 * [fails(EngineError("x"))]})
    with pytest.raises(TaskFailed):
        carry_out(toy.station, store, 1, Machine(max_attempts=2))


def test_a_fault_of_the_program_stops_all_slots_and_is_raised_as_it_is(store):
    toy = Toy(n_tasks=50, seconds=0.01, script={"t3": [fails(ZeroDivisionError("a bug"))]})
    with pytest.raises(ZeroDivisionError, match="a bug"):
        carry_out(toy.station, store, 1, Machine(slots=2))
    assert len(toy.runs) < 20, "the others stop after their present task"
    assert list((store.folder / "claims").iterdir()) == []


def test_a_full_disk_is_not_tried_again(store):
    toy = Toy(n_tasks=1, script={"t0": [fails(OSError(28, "No space left on device"))]})
    with pytest.raises(StoreError, match="the disk is full"):
        carry_out(toy.station, store, 1, Machine())
    assert store.failures(1) == []


def test_a_stop_ends_the_work_after_the_present_tasks(store):
    toy = Toy(n_tasks=50, script={"t1": [process.stop_engines]})
    with pytest.raises(Interrupted, match="everything finished is published"):
        carry_out(toy.station, store, 1, Machine(slots=1))
    assert published(store, toy) == ["t0", "t1"]
    assert Interrupted().exit_code == 130
    process.allow_engines()
    carry_out(toy.station, store, 1, Machine(slots=2))
    assert len(published(store, toy)) == 50
    assert len(toy.runs) == 50, "nothing was done twice"


def test_a_task_that_dies_by_the_stop_is_no_failure(store):
    def deed():
        process.stop_engines()
        raise EngineError("killed")

    toy = Toy(n_tasks=2, script={"t0": [deed]})
    with pytest.raises(Interrupted):
        carry_out(toy.station, store, 1, Machine(slots=1))
    assert store.failures(1) == []


def test_a_signal_that_another_thread_was_given_stops_the_run_at_once(store):
    """A lock without a time limit would sleep through it, and the run would continue to the end of a training."""
    begun = time.monotonic()

    def signalled():
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        while not process.is_stopping() and time.monotonic() - begun < 20.0:
            time.sleep(0.01)

    toy = Toy(n_tasks=1, script={"t0": [signalled]})
    with process.stopping_on_signals() as caught, pytest.raises(Interrupted):
        carry_out(toy.station, store, 1, Machine(slots=1))
    assert caught == [signal.SIGTERM]
    assert time.monotonic() - begun < 10.0


# --- batches ----------------------------------------------------------------------------------------------------------


def test_tasks_are_carried_out_in_the_batches_of_their_station(store):
    toy = Batched(n_tasks=7, seconds=0.01)
    carry_out(toy.station, store, 1, Machine(slots=8))
    assert sorted(toy.batches) == ["012", "345", "6"]
    assert len(toy.runs) == len(published(store, toy)) == 7
    assert len(toy.slots) <= 3, "no slot without a batch"
    assert list((store.folder / "claims").iterdir()) == []


def test_in_a_batch_the_first_task_that_is_not_published_has_failed_and_those_after_it_have_not(store):
    toy = Batched(n_tasks=4, script={"t1": 2 * [fails(EngineError("node lost"))]})
    carry_out(toy.station, store, 1, Machine(slots=1, max_attempts=3))
    assert toy.batches == ["012", "3", "2", "1", "1"], "the rest continues, and what failed is retried automatically"
    assert [failure["task"] for failure in store.failures(1)] == ["t1", "t1"]
    assert published(store, toy) == ["t0", "t1", "t2", "t3"]


def test_what_was_published_before_an_error_counts_as_done_by_this_node(store):
    toy = Batched(n_tasks=9, script={f"t{k}": [fails(EngineError("x"))] for k in (1, 4, 7)})
    carry_out(toy.station, store, 1, Machine(slots=1), attempts=elsewhere())
    assert published(store, toy) == ["t0", "t2", "t3", "t5", "t6", "t8"], "three failures, but not in a row"


def test_of_a_batch_only_what_nobody_else_has_is_carried_out(store, monkeypatch):
    monkeypatch.setattr(tasks_module, "_WAIT_FOR_OTHERS_S", 0.05)
    toy = Batched(n_tasks=3)
    claim = store.claim("explore", 1, frozen_plan(toy.station, store, 1, Machine()).tasks[1])
    assert claim.acquire()
    theirs = [partial(store.publish_product, "explore", 1, "t1", {}, {}), claim.release]
    toy.script["t2"] = [lambda: [deed() for deed in theirs]]
    carry_out(toy.station, store, 1, Machine(slots=1))
    assert toy.batches == ["02"]
    assert published(store, toy) == ["t0", "t1", "t2"]


def test_every_task_of_a_batch_is_claimed_until_its_end(store):
    seen = []
    toy = Batched(n_tasks=3)
    toy.script["t2"] = [lambda: seen.extend((store.folder / "claims").glob("*.json"))]
    carry_out(toy.station, store, 1, Machine(slots=1))
    assert len(seen) == 3


def test_a_stop_leaves_the_rest_of_a_batch_pending(store):
    def deed():
        process.stop_engines()
        raise EngineError("killed")

    toy = Batched(n_tasks=6, script={"t1": [deed]})
    with pytest.raises(Interrupted):
        carry_out(toy.station, store, 1, Machine(slots=1))
    assert store.failures(1) == []
    assert published(store, toy) == ["t0"]


# --- claims and gathering ---------------------------------------------------------------------------------------------


def test_tasks_claimed_by_another_living_process_are_waited_for(store, monkeypatch):
    """Another process holds t1; we do the rest and wait until its product stands; we never run it ourselves."""
    monkeypatch.setattr(tasks_module, "_WAIT_FOR_OTHERS_S", 0.05)
    toy = Toy(n_tasks=3)
    plan = frozen_plan(toy.station, store, 1, Machine())
    claim = store.claim("explore", 1, plan.tasks[1])
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        claim.path.parent.mkdir()
        holder = {"host": HOST, "pid": other.pid, "started": process_started(other.pid), "token": "theirs"}
        claim.path.write_text(json.dumps(holder))
        later = threading.Timer(0.5, store.publish_product, ("explore", 1, "t1", {}, {}))
        later.start()
        begin = time.monotonic()
        carry_out(toy.station, store, 1, Machine(slots=2))
        assert time.monotonic() - begin >= 0.4
    finally:
        other.kill()
        other.wait()
    assert sorted(toy.runs) == ["t0", "t2"]
    assert published(store, toy) == ["t0", "t1", "t2"]


def test_the_task_of_a_process_that_dies_is_taken_over(store, monkeypatch):
    monkeypatch.setattr(tasks_module, "_WAIT_FOR_OTHERS_S", 0.05)
    toy = Toy(n_tasks=2)
    plan = frozen_plan(toy.station, store, 1, Machine())
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.4)"])
    claim = store.claim("explore", 1, plan.tasks[0])
    claim.path.parent.mkdir()
    holder = {"host": HOST, "pid": other.pid, "started": process_started(other.pid), "token": "theirs"}
    claim.path.write_text(json.dumps(holder))
    reaper = threading.Thread(target=other.wait)
    reaper.start()
    carry_out(toy.station, store, 1, Machine(slots=1))
    reaper.join()
    assert toy.runs == ["t1", "t0"]


def test_two_workers_on_one_plan_do_not_run_a_task_twice(store, monkeypatch):
    monkeypatch.setattr(tasks_module, "_WAIT_FOR_OTHERS_S", 0.05)
    toy = Toy(n_tasks=12, seconds=0.02)
    workers = [threading.Thread(target=carry_out, args=(toy.station, store, 1, Machine(slots=2))) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(toy.runs) == sorted(published(store, toy)) == sorted(f"t{k}" for k in range(12))


def test_claims_are_held_and_kept_fresh_while_a_task_runs(store, monkeypatch):
    monkeypatch.setattr(tasks_module, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(tasks_module, "_heartbeats", tasks_module._Heartbeats())
    seen = []

    def deed():
        (path,) = (store.folder / "claims").glob("*.json")
        assert not Claim(path).acquire()
        os.utime(path, (1.0, 1.0))
        time.sleep(0.3)
        seen.append(path.stat().st_mtime)

    toy = Toy(n_tasks=1, script={"t0": [deed]})
    carry_out(toy.station, store, 1, Machine(slots=1))
    assert seen[0] > 1.0


def test_gather_seals_and_makes_damaged_products_again(store):
    toy = Toy(n_tasks=3)
    carry_out(toy.station, store, 1, Machine())
    path = store.product("explore", 1, "t1")
    path.write_bytes(path.read_bytes()[:50])
    gather(toy.station, store, 1, Machine())
    assert toy.runs.count("t1") == 2
    assert store.is_sealed("explore", 1)
    gather(toy.station, store, 1, Machine())
    assert len(toy.runs) == 4


# --- on a cluster: what fails is left to others -----------------------------------------------------------------------


def elsewhere(token="s1", **more):
    return Attempts(token, elsewhere=True, **more)


def test_on_a_cluster_a_failed_task_is_left_to_others_and_the_rest_is_done(store):
    toy = Toy(n_tasks=4, script={"t1": [fails(EngineError("no licence here"))]})
    carry_out(toy.station, store, 1, Machine(slots=1), attempts=elsewhere())
    assert toy.runs == ["t0", "t1", "t2", "t3"], "it is not tried again here and now"
    assert published(store, toy) == ["t0", "t2", "t3"]
    (failure,) = store.failures_of("explore", 1, "s1")["t1"]
    assert (failure["host"], failure["message"]) == (HOST, "no licence here")


def test_a_node_where_everything_fails_is_left_soon(store):
    toy = Toy(n_tasks=9, script={f"t{k}": [fails(EngineError("lmp: no such program"))] for k in range(9)})
    with pytest.raises(
        TaskFailed, match=rf"{BAD_NODE} tasks of explore in a row failed on {HOST}.*\n.*no such program"
    ):
        carry_out(toy.station, store, 1, Machine(slots=1), attempts=elsewhere())
    assert len(toy.runs) == BAD_NODE


def test_a_session_that_takes_the_tasks_of_all_slots_along_does_not_condemn_a_node(store):
    together = threading.Barrier(6)

    def died():
        together.wait(20.0)
        raise EngineError("the worker died with return code -9")

    toy = Toy(n_tasks=9, script={f"t{k}": [died] for k in range(6)})
    carry_out(toy.station, store, 1, Machine(slots=6), attempts=elsewhere())
    assert published(store, toy) == ["t6", "t7", "t8"]


def test_failures_between_successes_do_not_condemn_a_node(store):
    toy = Toy(n_tasks=8, script={f"t{k}": [fails(EngineError("x"))] for k in range(0, 8, 2)})
    carry_out(toy.station, store, 1, Machine(slots=1), attempts=elsewhere())
    assert published(store, toy) == ["t1", "t3", "t5", "t7"]


def test_a_node_leaves_alone_what_failed_on_it_if_others_shall_try_first(store):
    toy = Toy(n_tasks=2, script={"t0": [fails(EngineError("x"))]})
    carry_out(toy.station, store, 1, Machine(slots=1), attempts=elsewhere())
    carry_out(toy.station, store, 1, Machine(slots=1), attempts=elsewhere(avoid_host=True))
    assert toy.runs == ["t0", "t1"]
    carry_out(toy.station, store, 1, Machine(slots=1), attempts=elsewhere())
    assert published(store, toy) == ["t0", "t1"]


def test_what_had_all_its_tries_is_left_to_the_gather_and_a_new_submission_counts_anew(store):
    toy = Toy(n_tasks=1, script={"t0": 2 * [fails(EngineError("x"))]})
    machine = Machine(slots=1, max_attempts=2)
    for _ in range(4):
        carry_out(toy.station, store, 1, machine, attempts=elsewhere())
    assert toy.runs == ["t0", "t0"]
    carry_out(toy.station, store, 1, machine, attempts=elsewhere("s2"))
    assert published(store, toy) == ["t0"]


def test_one_at_a_time_takes_its_turn(store):
    order = []

    def second():
        with turn(store, "decide"):
            order.append("second")

    with turn(store, "decide"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert list((store.folder / "claims").iterdir()) == []


# --- from Python ------------------------------------------------------------------------------------------------------


def test_a_campaign_is_run_from_python_under_its_lease(tmp_path, monkeypatch):
    campaign, folder, seen = load_campaign("copper_emt"), tmp_path / "run", []
    end = End(converged=True, iteration=1, exit_code=0, message="converged")

    def through(store, machine):
        seen.append((store.latest_campaign(), machine.name))
        with pytest.raises(FolderHeld), Lease(store.folder):
            pass
        return end

    monkeypatch.setattr(loop, "run_campaign", through)
    assert al.run(campaign, folder) == al.run(campaign, folder, Machine(name="here")) == end
    assert not (folder / "lease.json").exists()
    assert "campaign copper" in (folder / "report.html").read_text(encoding="utf-8"), "the page is written at the end"
    changed = campaign.model_copy(update={"stop": campaign.stop.model_copy(update={"max_iterations": 99})})
    (folder / "iter-000").mkdir()
    with pytest.raises(ConfigError, match="--accept-changes"):
        al.run(changed, folder)
    assert al.run(changed, folder, accept_changes=True) == end
    assert seen == [(campaign, "local"), (campaign, "here"), (changed, "local")]


def test_what_a_station_is_stands_in_it():
    natures = {name: (s.phase, s.run is not None, s.published, s.is_refusable) for name, s in STATIONS.items()}
    assert natures == {
        "prepare": ("loop", True, "file", False),
        "initial": ("loop", True, "file", False),
        "explore": ("loop", True, "file", True),
        "select": ("loop", False, "file", False),
        "label": ("loop", True, "ledger", True),
        "teach": ("loop", True, "file", False),
        "distil": ("loop", True, "file", False),
        "train": ("loop", True, "file", False),
        "final": ("final", True, "file", False),
        "glass": ("study", True, "file", False),
        "benchmark": ("study", True, "file", False),
    }
    models = {"explore", "teach", "distil", "train", "final", "glass", "benchmark"}
    assert {name for name, s in STATIONS.items() if s.runs_models} == models
    asking = {"prepare", "initial", "label", "distil", "glass", "benchmark"}
    assert {name for name, s in STATIONS.items() if s.asks_reference} == asking


@pytest.mark.parametrize(("name", "stays"), [("initial", True), ("explore", False)])
def test_a_station_that_asks_no_reference_begins_by_closing_its_sessions(store, name, stays):
    """Those of the models stay, since importing TensorFlow again in each iteration costs more than they hold."""
    answer = "print(json.dumps({'id': json.loads(line)['id']}), flush=True)"
    code = f"import json, sys\nprint(json.dumps({{'id': 0}}), flush=True)\nfor line in sys.stdin: {answer}"
    log = store.folder / "log"
    sessions = [
        process.session((role, name), lambda: process.Session([sys.executable, "-c", code], log=log))
        for role in ("reference", "deepmd")
    ]
    try:
        for one in sessions:
            one.request({}, timeout_s=60.0)
        toy = Toy(name, n_tasks=1)
        toy.station = replace(toy.station, run=lambda *_: (toy.run(*_), pids.extend(one.pid for one in sessions)))
        pids = []
        carry_out(toy.station, store, 1, Machine(slots=1))
        assert [pid is not None for pid in pids] == [stays, True]
    finally:
        process.close_sessions("reference")
        sessions[1].close()
