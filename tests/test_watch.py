"""``activelearn watch``: what stands in a folder now, what is left and by what; nothing is written."""

import json
import os
import re
import signal
import subprocess
import time
from dataclasses import replace

import pytest
import seen_folders as made
from campaigns import command, in_process
from test_html_page import unpacked
from test_study import GLASS

from activelearn import page, watch
from activelearn.check import cost, speeds
from activelearn.check import left as left_of
from activelearn.check.left import Ahead, BillAhead
from activelearn.cli import report as reporting
from activelearn.cli import watch as watching
from activelearn.config import Benchmark, Glass, load_machine
from activelearn.errors import ConfigError, StoreError
from activelearn.records import Task
from activelearn.status import StationProgress
from activelearn.store import Store
from activelearn.watch import Left


@pytest.fixture
def finished(tmp_path):
    return unpacked("49996e5-quickstart.tar.gz", tmp_path)


@pytest.fixture
def open_store(tmp_path):
    """A campaign whose walks are planned: two of four are published, one is claimed by this process."""
    store = Store.create(tmp_path / "open", made.campaign())
    store.open_iteration(0, store.latest_campaign())
    tasks = [Task(id=f"w{k}", kind="walk", parameters={"stage": "warm"}) for k in range(4)]
    store.freeze_plan("initial", 0, tasks, 1)
    for task in tasks[:2]:
        store.publish_product("initial", 0, task.id, {}, {})
    claim = store.claim("initial", 0, tasks[2])
    assert claim.acquire()
    yield store
    claim.release()


def listing(folder):
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


def test_a_finished_campaign_says_how_it_ended_and_nothing_is_written(finished):
    before = listing(finished)
    done = in_process("watch", finished, "--once")
    assert done.returncode == 0, done.stderr
    assert "ended: converged" in done.stdout
    assert re.search(r"benchmark +study +\d+/\d+ .* done", done.stdout)
    assert "not running" not in done.stdout
    assert listing(finished) == before


def test_an_open_one_tells_who_works_at_what(open_store):
    found = watch.look(Store.open(open_store.folder))
    ((progress, _, left),) = found.stations
    assert (progress.done, progress.total) == (2, 4)
    assert "from the 2 done" in left.basis
    (worker,) = found.workers
    assert (worker.task, worker.stage, worker.station) == ("w2", "warm", "initial")
    assert str(os.getpid()) in worker.where
    assert not worker.is_silent
    assert found.driver.startswith("not running; activelearn run ")
    assert not found.is_over
    done = in_process("watch", open_store.folder, "--once")
    assert re.search(r"initial +iteration 0 +2/4", done.stdout)
    assert re.search(rf"{os.getpid()} +initial +w2 +warm", done.stdout)


def test_a_worker_that_died_is_not_at_work(open_store):
    path = open_store.claim("initial", 0, Task(id="w2", kind="walk", parameters={})).path
    path.write_text(json.dumps({**json.loads(path.read_text()), "started": "0"}))
    assert watch.look(open_store).workers == ()


def test_a_worker_elsewhere_is_silent_when_its_heartbeat_stops(open_store):
    path = open_store.claim("initial", 0, Task(id="w2", kind="walk", parameters={})).path
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": "node7"}))
    assert [one.is_silent for one in watch.look(open_store).workers] == [False]
    os.utime(path, (time.time() - 900.0,) * 2)
    (worker,) = watch.look(open_store).workers
    assert worker.is_silent
    assert worker.where.startswith("node7 ")


def test_what_changes_is_told_and_nothing_else(open_store):
    first = watch.look(open_store)
    assert first.changes(None)
    assert watch.look(open_store).changes(first) == []
    open_store.publish_product("initial", 0, "w2", {}, {})
    (line,) = watch.look(open_store).changes(first)
    assert line.startswith("iteration 0  initial 3/4; left: ")


def test_what_is_left_is_taken_from_the_station_or_else_from_an_earlier_pass(open_store):
    now = open_store.planned_at("initial", 0) + 100.0
    records = [made.record(0, spent={"initial": made.seconds(wall=80.0, engine=80.0, total=320.0, tasks=8)})]
    few, many = (StationProgress(0, "initial", done, 40, is_sealed=False) for done in (3, 20))
    assert watch._left_of(few, open_store, records, now) == (300.0, "at 10 s a task, as in iteration 0")
    assert watch._left_of(many, open_store, records, now) == (100.0, "from the 20 done in 100 s")
    none = replace(few, done=0)
    late = now + 400.0
    assert watch._left_of(none, open_store, records, late).seconds is None, "not 0 s, which it never is"
    assert "longer than the 7 min that iteration 0 suggests" in str(watch._left_of(none, open_store, records, late))
    assert watch._left_of(few, open_store, records, late) == (
        pytest.approx(37 * 500.0 / 3),
        "slower than iteration 0: 3 done in 8 min",
    )
    assert watch._left_of(none, open_store, [], now) == (None, "not known yet")


def test_a_night_without_a_driver_is_no_time_of_the_tasks(open_store):
    planned = open_store.planned_at("initial", 0)
    (sessions := open_store.folder / "sessions").mkdir()
    for name, began, last_sign in (("a", planned - 5.0, planned + 60.0), ("b", planned + 36_000.0, planned + 36_010.0)):
        (sessions / name).write_text(repr(began))
        os.utime(sessions / name, (last_sign, last_sign))
    progress = StationProgress(0, "initial", 20, 40, is_sealed=False)
    left = watch._left_of(progress, open_store, [], planned + 36_040.0)
    assert left.seconds == pytest.approx(100.0, abs=0.01)


def test_a_lease_that_is_released_while_it_is_looked_at_is_nobodys(open_store, monkeypatch):
    holder = {"host": "node7", "pid": 7, "since": 0.0}
    monkeypatch.setattr(watch.Claim, "holder", lambda claim: dict(holder) if claim.path.name == "lease.json" else None)
    assert watch.look(open_store).driver.startswith("not running; ")


# --- what is left to the end ------------------------------------------------------------------------------------------

MORE = "then at most 6 more passes (stop.max_iterations)"
AHEAD = BillAhead(
    one_pass=60.0,
    sources=("declared",),
    after=(
        Ahead("final", 100.0, ("measured",), ()),
        Ahead("glass", 200.0, ("declared",), ()),
        Ahead("benchmark", 0.0, (), ("density", "rdf")),
    ),
)


@pytest.fixture
def left(open_store, monkeypatch):
    """A function that gives the lines on what is left, with this bill and after so many passes."""

    def lines(*records, bill=AHEAD, **left):
        monkeypatch.setattr(watch, "ahead", lambda _: bill)
        at_work = {"initial": Left(10.0, "done"), "label": Left(20.0, "done"), "train": Left(30.0, "done")} | left
        stations = [(StationProgress(0, name, 1, 2, is_sealed=False), 0.0, one) for name, one in at_work.items() if one]
        return watch._left_lines(open_store, records, stations)

    made_max = open_store.latest_campaign().stop.max_iterations
    assert made_max == 6
    monkeypatch.setattr(open_store, "is_sealed", lambda name, _: name == "prepare")
    return lines


def test_the_end_is_a_bound_by_the_bill_before_any_pass_is_closed(left):
    assert left() == [
        "left of iteration 0: 60 s (see its stations)",
        f"{MORE}: 6 min (at 60 s each, declared, as `check --plan` has a pass over all stages)",
        f"then {', '.join(map(str, AHEAD.after))}, as `check --plan` has it",
        "to the end: at most about 12 min, and what is not known: density, rdf",
    ]


def test_what_follows_is_said_with_its_source_and_what_nobody_knows():
    said = ["final models 100 s (measured)", "glasses 3 min (declared)", "benchmarks (not known: density, rdf)"]
    assert list(map(str, AHEAD.after)) == said
    assert (
        str(replace(AHEAD.after[1], unknown=("glass of others",)))
        == "glasses 3 min (declared; not known: glass of others)"
    )


def test_passes_that_are_closed_are_the_pace_of_those_to_come(left):
    walked = [made.record(k, made.selection(k), spent={"explore": made.seconds(wall=100.0 * k)}) for k in (1, 2, 3, 4)]
    lines = left(*walked)
    assert "then at most 6 more passes (stop.max_iterations): 30 min (at 5 min each, the mean of the last 3)" in lines
    assert lines[-1].startswith("to the end: at most about 36 min")


def test_what_nobody_knows_is_named_and_in_no_sum(left):
    lines = left(bill=BillAhead(has_queues=True), train=Left(None, "not known yet"))
    assert lines == [
        "left of iteration 0: not known yet",
        "then at most 6 more passes (stop.max_iterations): not known yet",
        "to the end: not known yet (iteration 0, at most 6 more passes (stop.max_iterations))",
    ]
    lines = left(bill=replace(AHEAD, has_queues=True), train=Left(None, "not known yet"))
    assert lines[-1] == (
        "to the end: at most about 11 min, and what is not known: iteration 0, density, rdf; waiting in queues is not "
        "counted"
    )


def test_the_bill_of_a_real_campaign_is_that_of_check_plan(tmp_path):
    glass = Glass.model_validate(GLASS | {"n_replicas": 3})
    campaign = made.campaign(glass=glass, benchmark=Benchmark.model_validate({"density": True, "network": None}))
    store = Store.create(tmp_path / "c", campaign)
    (tmp_path / "c" / "machine.yaml").write_text("name: two\nslots: 2\n")
    bill = left_of.ahead(store)
    assert [one.station for one in bill.after] == ["final", "glass", "benchmark"]
    final, glasses, benchmarks = bill.after
    assert (final.sources, glasses.sources) == (("default",), ("default",))
    asked, _ = speeds.filled(load_machine(str(tmp_path / "c" / "machine.yaml")), campaign)
    item = next(one for one in cost.estimate(campaign, asked, store).final if one.station == "glass")
    assert glasses.seconds == pytest.approx(item.seconds * 2 / 3), "three glasses on two slots take two rounds"
    assert "density" in benchmarks.unknown
    assert bill.one_pass > 0.0
    assert not bill.has_queues


def test_a_station_after_the_loop_has_the_time_of_the_bill_until_it_has_its_own():
    progress = StationProgress(0, "glass", 0, 2, is_sealed=False)
    not_known = Left(None, "not known yet")
    assert watch._at_work(progress, 50.0, not_known, AHEAD).seconds == 150.0
    assert watch._at_work(progress, 250.0, not_known, AHEAD).seconds is None, "longer than the bill: not known"
    assert watch._at_work(progress, 50.0, Left(70.0, "its own"), AHEAD).seconds == 70.0


def test_a_bill_that_cannot_be_made_is_none_and_the_look_goes_on(open_store, monkeypatch):
    def fails(*_, **__):
        raise ConfigError("no systems")

    left_of._ahead.cache_clear()
    monkeypatch.setattr(cost, "estimate", fails)
    assert left_of.ahead(open_store) == BillAhead()
    lines = watch.look(open_store).left
    assert lines[-1].startswith("to the end: ")


def test_ctrl_c_ends_it_well(open_store):
    words = command("watch", open_store.folder, "--every-s", "0.5")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("campaign copper")
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


def test_what_moves_while_it_is_read_is_read_again():
    failures = [StoreError("gone"), OSError(5, "moved")]

    def read():
        if failures:
            raise failures.pop()
        return "read"

    assert watching.patient(read, pause_s=0.0) == "read"
    failures[:] = [StoreError("gone")] * 3
    with pytest.raises(StoreError, match="gone"):
        watching.patient(read, pause_s=0.0)


def test_what_is_no_campaign_is_refused(tmp_path):
    done = in_process("watch", tmp_path)
    assert done.returncode == 2
    assert f"{tmp_path}: no campaign here" in done.stderr


def test_a_followed_page_loads_itself_again_until_the_campaign_ends(finished, monkeypatch, capsys):
    still = watch.look(Store.open(finished))
    looks = [replace(still, is_over=False), replace(still, is_over=False), still]
    written = []

    def write(folder, to, bounds, **more):
        written.append(more.get("refresh_s"))
        return page_written(folder, to, bounds, **more)

    page_written = page.write_page
    monkeypatch.setattr(page, "write_page", write)
    monkeypatch.setattr(watch, "look", lambda _: looks.pop(0))
    monkeypatch.setattr(reporting.time, "sleep", lambda _: None)
    reporting.report(finished, follow=True, every_s=30.0)
    assert written == [30.0, None], "nothing had changed at the second look"
    assert 'http-equiv="refresh"' not in (finished / "report.html").read_text(encoding="utf-8")
    page_written(finished, None, None, refresh_s=30.0)
    text = (finished / "report.html").read_text(encoding="utf-8")
    assert '<meta http-equiv="refresh" content="30">' in text
    assert "reloads every 30 s" in text
    assert "ended: " in capsys.readouterr().out
