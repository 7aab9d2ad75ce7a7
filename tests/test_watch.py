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

from activelearn import page, watch
from activelearn.cli import report as reporting
from activelearn.cli import watch as watching
from activelearn.errors import StoreError
from activelearn.records import Task
from activelearn.status import StationProgress
from activelearn.store import Store


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
    assert "nobody drives" not in done.stdout
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
    assert found.driver.startswith("nobody drives it; activelearn run ")
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
    assert watch.look(open_store).driver.startswith("nobody drives it")


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
    assert "loads itself again every 30 s" in text
    assert "ended: " in capsys.readouterr().out
