"""`activelearn doctor` and `check -l` as a user types them, on a real wire server after real deaths."""

import datetime
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from campaigns import TINY, cli, machine_file
from cluster.relay import Relay
from cluster.servers import free_port
from cluster.workers import Submitted, wait_for
from doctored import age

pytestmark = [pytest.mark.needs_mongo, pytest.mark.timeout(300)]
HERE = Path(__file__).resolve().parent
#: Our workers ping every hour; what is silent for so long is taken for dead, s.
SILENCE_S = 1
#: Of one trajectory of initial data: the start and 10 steps.
N_LABELS = 11


def doctor(ours: Submitted, *more):
    """``activelearn doctor``."""
    return cli("doctor", "-l", ours.file, "--stale-after-s", SILENCE_S, *more, cwd=ours.here, timeout=60)


def treated(ours: Submitted):
    """What the doctor says of an accident, what --fix says, and the states after it."""
    found = doctor(ours)
    return SimpleNamespace(found=found, fixed=doctor(ours, "--fix"), states=ours.states())


def die_at(ours: Submitted, where: str) -> None:
    """Have a worker killed there."""
    done = subprocess.run(
        [sys.executable, HERE / "dying_worker.py", ours.file, where],
        cwd=ours.here,
        env=ours.environment(),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    time.sleep(SILENCE_S)


def fail_to_import(ours: Submitted) -> None:
    """Have FireWorks' own rlaunch try, by an interpreter that has all of ours but activelearn."""
    packages = ours.here / "packages"
    packages.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "activelearn" not in entry.name:
            (packages / entry.name).symlink_to(entry)
    code = "from fireworks.scripts.rlaunch_run import rlaunch; rlaunch()"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, "-l", ours.file, "singleshot"],
        cwd=packages.parent,
        env={**os.environ, "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert ours.states()["FIZZLED"] == 1


def kill_in_a_chunk(ours: Submitted) -> list[str]:
    """Kill a worker in the second of the two trajectories of a chunk; return the structures it had computed."""
    worker = ours.start_worker(LOGGED_EMT_SLEEP="0.2")
    n = N_LABELS + 2
    wait_for(lambda: len(ours.calculations()) > n or worker.poll() is not None, timeout_s=60, what=f"{n} labels")
    os.killpg(worker.pid, signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL
    time.sleep(SILENCE_S)
    return list(ours.calculations())


@pytest.fixture(scope="module")
def accidents(mongo, tmp_path_factory):
    """Iteration 0 of the tiny campaign, through two treatments: of one accident, and of three at a time."""
    ours = Submitted(tmp_path_factory.mktemp("doctored"), mongo, slots=1, chunks={"initial": 3})
    assert ours.submit().returncode == 0
    fail_to_import(ours)
    unimportable = treated(ours)
    assert ours.start_worker("--nlaunches", 2).wait(60) == 0, ours.said()  # to the chunks of `initial`
    die_at(ours, "claim")
    computed = kill_in_a_chunk(ours)
    die_at(ours, "lock")
    three = treated(ours)
    left = sum(n for state, n in ours.states().items() if state != "COMPLETED")
    assert ours.start_worker("--nlaunches", left).wait(120) == 0, ours.said()
    return SimpleNamespace(ours=ours, unimportable=unimportable, three=three, computed=computed)


def assert_told(accident, *sentences):
    assert accident.found.returncode == 1, accident.found.stderr
    for sentence in sentences:
        assert re.search(sentence, accident.found.stdout), accident.found.stdout
    assert "healthy" not in accident.found.stdout


@pytest.mark.engines
def test_a_worker_without_activelearn_is_named(accidents):
    assert_told(
        accidents.unimportable,
        r"import: tiny_copper iter-000: Firework \d+ \(iter-000 prepare runchunk-0\) failed: the worker's interpreter "
        r"cannot import activelearn, .*: ModuleNotFoundError: No module named 'activelearn'",
        r"next: fix the environment of those workers",
    )


@pytest.mark.engines
def test_a_claim_of_a_worker_that_was_killed_before_it_began_is_found(accidents):
    assert_told(
        accidents.three,
        r"reserved: tiny_copper iter-000: Firework \d+ \(iter-000 initial runchunk-\d\) is claimed by a worker that "
        r"died before it started\n  next: --fix lets another worker do it",
    )


@pytest.mark.engines
def test_a_chunk_whose_worker_was_killed_is_found(accidents):
    assert_told(
        accidents.three,
        r"lost: tiny_copper iter-000: Firework \d+ \(iter-000 initial runchunk-\d\) is running on "
        rf"{re.escape(socket.gethostname())}, without a sign of life for \d+ s\n  next: --fix lets another "
        r"worker do it; what is published is not computed twice",
    )


@pytest.mark.engines
def test_a_lock_of_a_worker_that_was_killed_while_it_held_it_is_found(accidents):
    assert_told(accidents.three, r"lock: tiny_copper iter-000: a worker died while it held the lock of the Workflow")


@pytest.mark.engines
def test_fix_repairs_all_of_it(accidents):
    for one in (accidents.unimportable, accidents.three):
        assert one.fixed.returncode == 0, one.fixed.stdout + one.fixed.stderr
        assert one.fixed.stdout.endswith("healthy\n")
        assert "may be alive" in one.fixed.stdout, "--stale-after-s is shorter than the pings"
    assert re.search(r"--fix import: ready again: \d+\n", accidents.unimportable.fixed.stdout)
    assert re.search(
        r"--fix lock: removed; ready now: (\d+)\n--fix reserved: nothing left to do: 1 READY\n"
        r"--fix lost: ready again: \d+\n",
        accidents.three.fixed.stdout,
    )
    assert accidents.unimportable.states == {"READY": 1, "WAITING": 10}
    assert accidents.three.states == {"COMPLETED": 3, "READY": 2, "WAITING": 6}


@pytest.mark.engines
def test_a_worker_finishes_what_was_repaired_and_no_published_label_is_computed_again(accidents):
    ours = accidents.ours
    assert [one.index for one in ours.store.iterations()] == [0]
    assert ours.launchpad.workflows.find_one({"metadata.iteration": 0})["state"] == "COMPLETED"
    twice = [structure for structure, n in ours.calculations().items() if n > 1]
    assert twice == accidents.computed[N_LABELS:], "the trajectory that was under way, and not the published one"
    after = doctor(ours, "--folder", ours.folder)
    assert after.returncode == 0, after.stdout
    assert ours.files_with(ours.mongo.password) == []
    assert {path.name for path in ours.here.glob("workers/*/*")} == {"output"}, "no folder for each Firework"


def test_a_campaign_that_waits_for_workers_of_a_category_is_not_healthy(mongo, tmp_path):
    ours = Submitted(tmp_path, mongo, slots=1)
    assert ours.submit().returncode == 0
    assert doctor(ours).stdout.endswith("healthy\n"), "just submitted"
    age(ours.launchpad, 1000.0)
    waiting = doctor(ours, "--fix")
    assert waiting.returncode == 1
    assert re.search(
        r"idle: 1 READY Firework of category prepare has waited for \d+ min, and no worker of this category "
        r"has taken any "
        rf"\(categories of the workers seen so far: none\)\n  next: start one: activelearn rlaunch -l {ours.file} ",
        waiting.stdout,
    ), waiting.stdout


# --- check -l ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def check(mongo, tmp_path):
    """``activelearn check -l``, with changes to my_launchpad.yaml; the one problem that it tells."""
    file = mongo.launchpad_file(tmp_path)

    def check(**changes):
        file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **changes}))
        done = cli("check", TINY, "-l", file, "--machine", machine_file(tmp_path / "m.yaml"), cwd=tmp_path, timeout=60)
        assert mongo.password not in done.stdout + done.stderr
        return done

    return check


def problem_of(done) -> str:
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.count(" - ") == 2, "what - expected - next"
    return line


@pytest.fixture
def relay(mongo):
    made = Relay(mongo.host, mongo.port)
    yield made
    made.stop()


def test_check_tells_what_server_it_is_and_what_to_type_next(check, relay):
    done = check(port=relay.port)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"LaunchPad 127.0.0.1:{relay.port}/test_\w+: MongoDB [\d.]+, [\d.]+ ms per request", done.stdout)
    assert "ok: activelearn submit" in done.stdout


def test_check_tells_that_nobody_answers(check):
    port = free_port()
    told = problem_of(check(port=port, mongoclient_kwargs={"serverSelectionTimeoutMS": 500}))
    assert f"no answer from 127.0.0.1:{port}/test_" in told
    assert "within 0.5 s" in told
    assert "start it, or fix host and port" in told


def test_check_tells_that_the_password_is_wrong(check):
    told = problem_of(check(password="a-guess"))
    assert "authentication failed at" in told
    assert "fix username, password and authsource" in told
    assert "a-guess" not in told


def test_check_tells_that_a_clock_is_ahead(check, relay):
    relay.changes = lambda answer: {"localTime": answer["localTime"] - datetime.timedelta(minutes=10)}
    told = problem_of(check(port=relay.port))
    assert "the clock of this machine is 10 min ahead of that of the server" in told
    assert "by NTP" in told


def test_check_tells_that_the_server_is_too_old(check, relay):
    relay.changes = lambda _: {"minWireVersion": 0, "maxWireVersion": 6}  # MongoDB 3.6
    told = problem_of(check(port=relay.port))
    assert "is too old" in told
    assert re.search(r"expected MongoDB \d\.\d or newer", told)
