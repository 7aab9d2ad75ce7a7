"""Kill -9 of the driver alone: the labels that its workers have begun are finished, and none is computed again."""

import collections
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from campaigns import SMALL, TESTS, TINY, end_sessions, environment, machine_file, tiny
from engines.test_vasp import POTCAR
from lives import (
    LOGGED,
    alive_in,
    calculations,
    keys_in_segments,
    kill_group,
    start,
    wait_for_the_end_of,
    wait_until,
)

from activelearn import trees
from activelearn.config import Machine, Reference, load_campaign
from activelearn.engines import process, reference
from activelearn.engines.process import Slot
from activelearn.frames import FrameLabel, Frames
from activelearn.store import Store
from activelearn.store.begun import Begun, sweep
from activelearn.store.files import publish_json
from activelearn.store.locks import process_started

pytestmark = [pytest.mark.engines, pytest.mark.timeout(300)]

#: A driver of the label station of iteration 0, as the command line drives a campaign.
DRIVER = """
    import json, sys
    from pathlib import Path
    from activelearn import label
    from activelearn.config import Machine
    from activelearn.store import Store
    from activelearn.tasks import carry_out, driving
    from activelearn.errors import Interrupted
    store, machine = Store.open(Path(sys.argv[1])), Machine(**json.loads(sys.argv[2]))
    try:
        with driving(store):
            store.sweep(machine)
            carry_out(label.STATION, store, 0, machine)
    except Interrupted as stop:
        sys.exit(stop.exit_code)
"""


class Labels:
    """Structures to be labelled by a reference that logs what it computes, and the driver that has it done."""

    def __init__(self, here: Path, frames: Frames, what: dict, *, log: Path, label_s: float) -> None:
        self.here, self.log, self.label_s, self.running, self.n = here, log, label_s, None, len(frames)
        campaign = load_campaign(TINY)
        settings = campaign.label.model_copy(update={"reference": Reference(**what)})
        campaign = campaign.model_copy(update={"label": settings, "type_map": ("Cu", "S")})
        self.store = Store.create(here / "c", campaign)
        self.store.open_iteration(0, campaign)
        self.store.seal_frames(self.store.chosen_file(0), [frames])
        process.allow_engines()
        try:
            identity = reference.fingerprint(settings.reference, Slot(Machine(**SMALL), here / "logs"))
        finally:
            end_sessions()
        publish_json(self.store.iteration_folder(0) / "reference.json", identity)
        publish_json(self.store.iteration_folder(0) / "sel.json", [999] * len(campaign.type_map))

    def drive(self, *, slots: int = 2, **settings) -> subprocess.Popen:
        """Start the driver, or the next one."""
        machine = json.dumps({**SMALL, "slots": slots, "label_timeout_s": 60.0, **settings})
        env = environment(LOGGED_EMT=str(self.log), LOGGED_EMT_SLEEP=str(self.label_s))
        env["PYTHONPATH"] = os.pathsep.join([env["PYTHONPATH"], str(TESTS / "data" / "gpaw_stand_in")])
        with (self.here / "output.txt").open("ab") as out:
            self.running = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(DRIVER), str(self.store.folder), machine],
                cwd=self.here,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        return self.running

    def begun(self) -> collections.Counter:
        """Return how often each structure was begun."""
        return calculations(self.log)

    def wait_for(self, n: int) -> None:
        """Wait until `n` labels were begun."""
        wait_until(lambda: sum(self.begun().values()) >= n, self.running, what=f"{n} labels begun")

    def kill_alone(self) -> int:
        """Kill -9 the driver and nothing else; return its session."""
        self.running.kill()
        self.running.wait()
        return self.running.pid

    def assert_done(self, *, again: int = 0) -> None:
        """Each structure has its label, `again` of them were computed twice, and nothing is left."""
        assert self.running.wait(120) == 0, self.said()
        wait_for_the_end_of(self.running.pid)
        keys = keys_in_segments(self.store.folder / "labels")
        plan = self.store.plan("label", 0)
        assert sorted(keys) == sorted(task.parameters["key"] for task in plan.tasks)
        assert sum(self.begun().values()) - len(self.begun()) == again
        assert len(self.begun()) == self.n
        assert self.kept() == []
        assert not [path for path in self.store.folder.glob("scratch/*") if path.is_dir()]
        assert "Traceback" not in self.said()

    def kept(self) -> list[str]:
        return [path.suffix for path in sorted(self.store.folder.glob("begun/*"))]

    def said(self) -> str:
        return (self.here / "output.txt").read_text()


def copper(n=4) -> Frames:
    rng = np.random.default_rng(5)
    cell = 3.6 * np.eye(3)
    fcc = 1.8 * np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return Frames(("Cu",) * 4, np.repeat(cell[None], n, axis=0), fcc + rng.normal(0.0, 0.05, (n, 4, 3)))


@pytest.fixture
def emt(tmp_path):
    """A session in each slot, labels of 1 s."""
    return Labels(tmp_path, copper(), LOGGED, log=tmp_path / "log", label_s=1.0)


@pytest.fixture
def vasp(tmp_path):
    """A process under custodian for each of two labels, 2 s of VASP."""
    pytest.importorskip("custodian", reason="pip install 'activelearn[local]' (custodian)")
    (tmp_path / "potpaw" / "S").mkdir(parents=True)
    (tmp_path / "potpaw" / "S" / "POTCAR").write_text(POTCAR.format(name="S", element="S", titel="PAW_PBE"))
    fake, log = TESTS / "data" / "vasp" / "fake_vasp.py", tmp_path / "log"
    settings = {"version": "6.3.0", "potcar_dir": str(tmp_path / "potpaw"), "potcars": {"S": "S"}}
    what = {"engine": "vasp", "command": f"{sys.executable} {fake} steady {log}", "vasp": settings}
    frames = copper(2)
    sulphur = Frames(("S",) * 4, 1.3 * frames.cell, 1.3 * frames.positions)
    return Labels(tmp_path, sulphur, {**what, "functional": "PBE", "includes_dispersion": False}, log=log, label_s=2.0)


GPAW = {"engine": "gpaw", "command": sys.executable, "functional": "PBE", "includes_dispersion": False, "gpaw": {}}


@pytest.fixture
def gpaw(tmp_path):
    """A process for each of two labels, 1.5 s of a stand-in for GPAW."""
    stand_in = os.pathsep.join([str(TESTS), str(TESTS / "data" / "gpaw_stand_in")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", stand_in)
        return Labels(tmp_path, copper(2), GPAW, log=tmp_path / "log", label_s=1.5)


# --- a whole campaign -------------------------------------------------------------------------------------------------


def test_a_campaign_whose_driver_is_killed_alone_and_restarted_at_once_computes_no_label_twice(tmp_path):
    """Killed in the third of 8 labels of 3 s, two at a time; then Ctrl-C, which leaves nothing behind."""
    campaign = tiny(tmp_path / "tiny.yaml", label__reference=LOGGED, initial__md=None, initial__copies=4)
    store, log = Store(tmp_path / "c"), tmp_path / "log"
    arguments = (campaign, store.folder, "--machine", machine_file(tmp_path / "m.yaml", slots=2))
    logged = {"LOGGED_EMT": str(log), "LOGGED_EMT_AFTER_TRIAL_IN": str(store.folder)}
    first = start(*arguments, env=environment(**logged, LOGGED_EMT_SLEEP="3.0"))
    wait_until(lambda: sum(calculations(log).values()) >= 4, first, what="labels")
    first.kill()
    first.wait()
    second = start(*arguments, env=environment(**logged, LOGGED_EMT_SLEEP="0.1"))
    wait_until(lambda: store.sealed("label", 0).is_file(), second, what="all labels")
    os.killpg(second.pid, signal.SIGINT)
    assert second.wait(20) == 130
    for driver in (first, second):
        wait_for_the_end_of(driver.pid)
    assert set(calculations(log).values()) == {1}
    assert len(calculations(log)) == 8
    assert list(store.folder.glob("begun/*")) == []


# --- sessions ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_workers_of_a_killed_driver_end_with_their_label_and_the_next_driver_adopts_it(emt):
    emt.drive()
    emt.wait_for(3)
    session = emt.kill_alone()
    assert len(alive_in(session)) == 3, "two at their labels, and the one that they are forks of"
    wait_for_the_end_of(session, timeout_s=emt.label_s + 3.0)
    assert ".json" in emt.kept()
    assert ".note" not in emt.kept()
    emt.drive(slots=1)
    emt.assert_done()


def test_a_worker_that_is_killed_after_its_driver_costs_its_label(emt):
    """The next driver waits for it, sees it die, and computes the label."""
    emt.label_s = 20.0
    emt.drive()
    emt.wait_for(2)
    session = emt.kill_alone()
    emt.label_s = 0.0
    emt.drive()
    wait_until(lambda: "waiting for it" in emt.said(), emt.running, what="the word that it waits")
    for pid in alive_in(session):
        os.kill(pid, signal.SIGKILL)
    emt.assert_done(again=2)


@pytest.mark.parametrize(
    "damage",
    ["flipped", *(pytest.param(one, marks=pytest.mark.slow) for one in ("cut", "of another label", "of another size"))],
)
def test_a_kept_label_that_is_damaged_is_computed_again(emt, damage):
    emt.drive(slots=1)
    emt.wait_for(2)
    wait_for_the_end_of(emt.kill_alone(), timeout_s=emt.label_s + 3.0)
    (kept,) = emt.store.folder.glob("begun/*.json")
    content = bytearray(kept.read_bytes())
    if damage == "cut":
        kept.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        kept.write_bytes(content)
    elif damage == "of another label":
        done = emt.store.ledger.keys()[0]
        keys = [task.parameters["key"] for task in emt.store.plan("label", 0).tasks]
        kept.rename(kept.with_name(f"{next(key for key in keys if key not in {done, kept.stem})}.json"))
    else:
        rewrite(kept, lambda found: found["answer"]["forces"].pop())
    emt.label_s = 0.0
    emt.drive()
    emt.assert_done(again=1)


def rewrite(kept: Path, change) -> None:
    """Change what a kept file says, with its checksum."""
    found = json.loads(kept.read_bytes().partition(b"\n")[2])
    change(found)
    kept.write_bytes(summed(json.dumps(found)))


def summed(text: str) -> bytes:
    """Return a text below its checksum."""
    return f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}".encode()


@pytest.mark.slow
def test_a_label_that_was_kept_is_the_one_that_would_have_been_published(emt):
    """The same bits, and the time that the worker took."""
    emt.drive(slots=1)
    emt.wait_for(2)
    wait_for_the_end_of(emt.kill_alone(), timeout_s=emt.label_s + 3.0)
    (kept,) = emt.store.folder.glob("begun/*.json")
    emt.drive()
    emt.assert_done()
    ledger = Store.open(emt.store.folder).ledger
    started, finished = ledger.span(kept.stem)
    assert emt.label_s < finished - started < emt.label_s + 1.0
    task = next(t for t in emt.store.plan("label", 0).tasks if t.parameters["key"] == kept.stem)
    process.allow_engines()
    try:
        what = emt.store.campaign(0).label.reference
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(TESTS))
            patch.setenv("LOGGED_EMT", str(emt.here / "other-log"))
            slot = Slot(Machine(**SMALL), emt.here / "logs")
            anew = reference.label(what, copper()[task.parameters["frame"]], slot)
    finally:
        end_sessions()
    assert ledger[kept.stem].forces.tobytes() == anew.forces.tobytes()
    assert ledger[kept.stem].energy == anew.energy


def test_ctrl_c_ends_a_worker_that_is_waited_for_too(emt):
    emt.label_s = 20.0
    emt.drive()
    emt.wait_for(2)
    session = emt.kill_alone()
    second = emt.drive()
    wait_until(lambda: emt.said().count("waiting for it") == 2, second, what="the word that it waits")
    os.killpg(second.pid, signal.SIGINT)
    assert second.wait(10) == 130
    for driver in (session, second.pid):
        wait_for_the_end_of(driver)
    assert emt.kept() == []
    assert sum(emt.begun().values()) == 2


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_labels_leaves_nothing_behind(emt):
    emt.label_s = 20.0
    emt.drive()
    emt.wait_for(2)
    os.killpg(emt.running.pid, signal.SIGINT)
    assert emt.running.wait(10) == 130
    wait_for_the_end_of(emt.running.pid)
    assert emt.kept() == []


@pytest.mark.slow
def test_a_label_of_a_killed_driver_ends_at_its_time_limit(emt):
    emt.label_s = 30.0
    emt.drive(slots=1, label_timeout_s=4.0)
    emt.wait_for(1)
    wait_for_the_end_of(emt.kill_alone(), timeout_s=8.0)
    assert emt.kept() == [".note"]
    emt.label_s = 0.0
    emt.drive()
    emt.assert_done(again=1)


# --- engines with a process for each label ----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["vasp", "gpaw"])
def test_a_job_outlives_its_driver_and_its_label_is_adopted(engine, request):
    labels = request.getfixturevalue(engine)
    labels.drive()
    labels.wait_for(2)
    labels.kill_alone()
    labels.drive()
    labels.assert_done()


@pytest.mark.slow
def test_a_job_that_ends_without_a_driver_leaves_its_label(vasp):
    vasp.drive()
    vasp.wait_for(2)
    wait_for_the_end_of(vasp.kill_alone(), timeout_s=15.0)
    assert vasp.kept() == [".json", ".json"]
    vasp.drive()
    vasp.assert_done()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["emt", "vasp", "gpaw"])
def test_with_the_whole_group_nothing_goes_on(engine, request):
    """At most the label of each slot is computed again."""
    labels = request.getfixturevalue(engine)
    labels.drive()
    labels.wait_for(2)
    kill_group(labels.running)
    n_begun = sum(labels.begun().values())
    time.sleep(labels.label_s + 0.5)
    pids = [int(line.split()[1]) for line in labels.log.read_text().splitlines()]
    assert [pid for pid in pids if process_started(pid)] == []
    assert sum(labels.begun().values()) == n_begun
    assert ".json" not in labels.kept()
    labels.drive()
    labels.assert_done(again=2)


@pytest.mark.slow
def test_a_structure_that_was_chosen_twice_is_not_waited_for(tmp_path, monkeypatch):
    """Two slots are at one label side by side, as they always were, and neither ends the job of the other."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS / "data" / "gpaw_stand_in")]))
    twice = Labels(tmp_path, copper(1)[np.array([0, 0])], GPAW, log=tmp_path / "log", label_s=1.5)
    assert twice.drive().wait(60) == 0
    assert twice.store.failures(0) == []
    assert list(twice.begun().values()) == [2]
    assert "waiting" not in twice.said()
    assert twice.kept() == []


# --- notes ------------------------------------------------------------------------------------------------------------


def note(store, key, **says) -> Path:
    path = store.folder / "begun" / f"{key}.note"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"host": os.uname().nodename, "pid": 2**22 + 1, "started": "1", "token": "t", **says}))
    return path


def test_a_worker_on_another_host_is_judged_by_its_signs_of_life(store):
    path = note(store, "k", host="elsewhere")
    assert Begun(store.folder, "k").worker()["host"] == "elsewhere"
    os.utime(path, (time.time() - 200.0, time.time() - 200.0))
    assert Begun(store.folder, "k").worker() is None
    assert not path.exists()


def test_notes_of_the_dead_and_labels_that_are_published_are_swept_away(store, copper):
    note(store, "dead")
    note(store, "torn").write_text("")
    living = note(store, "living", pid=os.getpid(), started=process_started(os.getpid()))
    for key in ("published", "wanted", "damaged"):
        content = summed(json.dumps({"key": key, "folder": None, "answer": {"refused": "no"}}))
        (store.folder / "begun" / f"{key}.json").write_bytes(content[: -1 if key == "damaged" else None])
    store.ledger_writer.append("published", FrameLabel(float(copper.energy[0]), copper.forces[0], copper.virial[0]))
    store.ledger.refresh()
    sweep(store.folder, store.ledger)
    assert {path.name for path in (store.folder / "begun").iterdir()} == {living.name, "wanted.json"}


def test_the_scratch_of_a_job_at_work_is_not_swept_away(store):
    working, dead = (trees.make(store.logs() / name) for name in ("label-0-1", "label-1-1"))
    note(store, "a", pid=os.getpid(), started=process_started(os.getpid()), folder=str(working))
    note(store, "b", folder=str(dead))
    (store.folder / "scratch" / "session-reference-0.log").touch()
    store.sweep(Machine(**SMALL))
    assert {path.name for path in (store.folder / "scratch").iterdir()} == {trees.MARK, "label-0-1"}


def test_the_scratch_of_a_job_at_work_stays_when_its_folder_is_reached_by_another_path(store, tmp_path):
    """The job was begun by one path of the folder, and the next run has come by a link."""
    working = trees.make(store.logs() / "label-0-1")
    note(store, "a", pid=os.getpid(), started=process_started(os.getpid()), folder=str(working))
    (tmp_path / "link").symlink_to(store.folder)
    Store.open(tmp_path / "link").sweep(Machine(**SMALL))
    assert working.is_dir()
