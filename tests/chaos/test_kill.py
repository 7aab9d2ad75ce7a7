"""Real kills of a real campaign: whatever happens, the same command continues to the same data set, bit for bit."""

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from campaigns import (
    BIN,
    SMALL,
    TINY,
    cli,
    dataset_summary,
    end_sessions,
    machine_file,
    run_plain,
    tiny,
    unpack_products,
)
from lives import HardLife, alive_in, assert_tidy, keys_in_segments, start, wait_for_the_end_of, wait_until

from activelearn import explore, label, loop
from activelearn.config import Machine, load_campaign
from activelearn.engines import process
from activelearn.errors import EngineError
from activelearn.records import Ensemble
from activelearn.store import Claim, Lease, Store, read_npz
from activelearn.store.journal import CLOSED
from activelearn.tasks import carry_out, gather

pytestmark = [pytest.mark.engines, pytest.mark.timeout(900)]


def back_to(store: Store, folder: Path, iteration: int, station: str) -> Store:
    """Copy a campaign and forget everything after the products of a station; its products stand, its seal is gone."""
    shutil.copytree(store.folder, folder)
    unpack_products(folder / f"iter-{iteration:03d}")
    later = list(loop.STATIONS) if station == "initial" else ["explore", "select", "label", "train", "final"]
    for name in later[later.index(station) + 1 :]:
        shutil.rmtree(folder / f"iter-{iteration:03d}" / name, ignore_errors=True)
    for name in (f"{station}/result.json", "iteration.json"):
        (folder / f"iter-{iteration:03d}" / name).unlink()
    if station == "explore":
        (folder / f"iter-{iteration:03d}" / "chosen.npz").unlink()
    (folder / "dataset" / f"iter-{iteration:03d}.npz").unlink()
    shutil.rmtree(folder / "scratch", ignore_errors=True)
    return Store(folder)


# --- kill -9 ----------------------------------------------------------------------------------------------------------

#: Where the five kills fall: station, iteration, tasks published before, and how long after that at the most (s). That
#: of explore falls when one process has come to its second walk.
KILLS = (
    ("initial", 0, 2, 0.5),
    ("train", 0, 0, 8.0),
    ("explore", 1, 0, 0.05),
    ("label", 1, 2, 0.2),
    ("final", 2, 0, 6.0),
)


def test_five_kills_cost_nothing_but_time(undisturbed, tmp_path):
    """Kill -9 of the whole group at five random moments, slots and chunks changed each time; then to the end."""
    rng = np.random.default_rng(20261122)
    life = HardLife(tmp_path)
    struck = set()
    for station, iteration, n_before, longest_s in KILLS:
        running = life.begin()
        wait_until(partial(planned_and_done, life, station, iteration, n_before), running, what=station)
        if station == "explore":
            wait_until(partial(second_walk_begun, life, iteration), running, what="a process that continues")
        time.sleep(float(rng.uniform(0.0, longest_s)))
        assert running.poll() is None, (tmp_path / "output.txt").read_text()
        struck.add(life.kill(running))
    assert len(struck) >= 3, "the kills are spread over the stations"
    assert life.begin().wait(300) == 3, (tmp_path / "output.txt").read_text()
    life.assert_nothing_lost(undisturbed[0], len(KILLS))


def planned_and_done(life: HardLife, station: str, iteration: int, n_before: int) -> bool:
    return life.n_done(station, iteration) >= n_before


def second_walk_begun(life: HardLife, iteration: int) -> bool:
    """Return whether a process of LAMMPS is at a walk that it did not begin with."""
    logs = (life.store.folder / "scratch").glob(f"{iteration:03d}-warm-*/log.lammps")
    return any(not log.with_name("in.lammps").exists() for log in logs)


@pytest.mark.slow
@pytest.mark.parametrize("random_seed", [1, 2])
def test_kills_at_any_moment(undisturbed, tmp_path, random_seed):
    """Thirty runs are killed after up to 14 s, start-up included, wherever that is; then to the end."""
    rng = np.random.default_rng(random_seed)
    life = HardLife(tmp_path)
    n_kills = 0
    for _ in range(30):
        running = life.begin()
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert running.wait(float(rng.uniform(0.2, 14.0))) == 3
            break
        life.kill(running)
        n_kills += 1
    assert life.begin().wait(300) == 3, (tmp_path / "output.txt").read_text()
    assert n_kills >= 5
    life.assert_nothing_lost(undisturbed[0], n_kills)


def test_a_kill_between_training_and_compression_changes_nothing(tmp_path):
    """Walks are driven by compressed models, so the data set hangs on their last digits, too."""
    few = {"train__compress": "always", "stop__max_iterations": 1}
    undisturbed, _ = run_plain(
        tmp_path / "undisturbed", tiny(tmp_path / "always.yaml", **few), Machine(slots=2, **SMALL)
    )
    members = undisturbed.result("train", 0, Ensemble).members
    walk = undisturbed.plan("explore", 1).tasks[0]
    assert walk.inputs == tuple(member.compressed for member in members)
    end_sessions()
    life = HardLife(tmp_path, **few)
    running = life.begin()
    begun = life.store.folder / "scratch"
    wait_until(lambda: any(begun.glob("000-train-*/attempt-1/compress-1")), running, what="compression")
    assert life.kill(running) == "train"
    assert life.begin().wait(300) == 3, (tmp_path / "output.txt").read_text()
    life.assert_nothing_lost(undisturbed, 1)


# --- signals, two drivers ---------------------------------------------------------------------------------------------


def at_work_on_training(store: Store):
    """Return a condition: a training of iteration 0 has begun in a new scratch folder."""
    before = set(store.folder.glob("scratch/000-train-*/attempt-1/input.json"))
    return lambda: bool(set(store.folder.glob("scratch/000-train-*/attempt-1/input.json")) - before)


def test_ctrl_c_sigterm_and_two_drivers(tmp_path):
    """SIGINT (130) and SIGTERM (143) end the engines at once; a second driver says who holds the folder, or waits."""
    campaign, machine = tiny(tmp_path / "tiny.yaml"), machine_file(tmp_path / "m.yaml", slots=2)
    folder = tmp_path / "c"
    store = Store(folder)
    first = start(campaign, folder, "--machine", machine)
    wait_until(at_work_on_training(store), first)

    refused = cli("run", campaign, "--folder", folder, "--machine", machine, cwd=tmp_path)
    assert refused.returncode == 2
    assert f"driven by process {first.pid} on {os.uname().nodename} since" in refused.stderr
    assert "--wait" in refused.stderr
    waiting = start(campaign, folder, "--machine", machine, "--wait")

    products = {path: path.stat().st_mtime_ns for path in (folder / "iter-000").rglob("*") if path.is_file()}
    begin = time.monotonic()
    os.killpg(first.pid, signal.SIGINT)  # what a terminal does on Ctrl-C
    assert first.wait(10) == 130
    wait_for_the_end_of(first.pid)
    assert time.monotonic() - begin < 5.0
    assert "stopped on request" in (tmp_path / "output.txt").read_text()

    wait_until(at_work_on_training(store), waiting)
    assert waiting.poll() is None
    assert json.loads((folder / "lease.json").read_text())["pid"] == waiting.pid
    begin = time.monotonic()
    waiting.terminate()  # the driver alone, as a queue may do
    assert waiting.wait(10) == 143
    wait_for_the_end_of(waiting.pid)
    assert time.monotonic() - begin < 5.0
    assert {path: path.stat().st_mtime_ns for path in products} == products, "what was finished stands"
    assert not (folder / "lease.json").exists()
    assert "Traceback" not in (tmp_path / "output.txt").read_text()


def test_ctrl_c_while_waiting_for_another_driver(tmp_path):
    folder = tmp_path / "c"
    store = Store.create(folder, load_campaign(TINY))
    with Lease(store.folder):
        waiting = start(TINY, folder, "--machine", machine_file(tmp_path / "m.yaml"), "--wait")
        said = tmp_path / "output.txt"
        wait_until(lambda: "waiting for its end" in said.read_text(), waiting, what="the word that it waits")
        assert waiting.poll() is None
        os.killpg(waiting.pid, signal.SIGINT)
        assert waiting.wait(60) == 130
    assert "Traceback" not in (tmp_path / "output.txt").read_text()


def test_the_engines_end_with_a_driver_that_is_killed_alone(tmp_path):
    """Kill -9 of the driver only: its workers see that their parent is gone."""
    folder = tmp_path / "c"
    running = start(TINY, folder, "--machine", machine_file(tmp_path / "m.yaml", slots=2))
    wait_until(at_work_on_training(Store(folder)), running)
    wait_until(lambda: len(alive_in(running.pid)) > 2, running, what="the driver, its session and a training")
    running.kill()
    running.wait()
    wait_for_the_end_of(running.pid, timeout_s=15.0)


# --- damaged files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def sessions():
    process.allow_engines()
    yield
    end_sessions()


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped"])
def test_a_damaged_product_is_made_again(undisturbed, tmp_path, sessions, damage):
    store = back_to(undisturbed[0], tmp_path / "c", 2, "explore")
    path = sorted((store.folder / "iter-002" / "explore").glob("warm*.npz"))[2]
    before, _ = read_npz(path)
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    elif damage == "empty":
        content.clear()
    else:
        content[content.index(b"positions.npy") + 400] ^= 0xFF
    path.write_bytes(content)
    machine = Machine(slots=1, **SMALL)
    gather(explore.STATION, store, 2, machine)
    after, _ = read_npz(path)
    assert {name: array.tobytes() for name, array in after.items()} == {n: a.tobytes() for n, a in before.items()}
    assert len(list(path.parent.glob("*.damaged-*"))) == 1
    gather(loop.STATIONS["select"], store, 2, machine)
    chosen = [read_npz(found.chosen_file(2))[0] for found in (store, undisturbed[0])]
    assert {n: a.tobytes() for n, a in chosen[0].items()} == {n: a.tobytes() for n, a in chosen[1].items()}


@pytest.mark.parametrize("n_bytes", [1, 700])
def test_a_ledger_that_was_cut_off_costs_one_label(undisturbed, tmp_path, sessions, n_bytes):
    store = back_to(undisturbed[0], tmp_path / "c", 2, "label")
    (segment,) = (store.folder / "labels").glob("*.seg")
    segment.write_bytes(segment.read_bytes().removesuffix(CLOSED)[:-n_bytes])
    plan = store.plan("label", 2)
    assert len(store.pending(plan, by="ledger")) == 1
    machine = Machine(slots=2, **SMALL)
    carry_out(label.STATION, store, 2, machine)
    gather(label.STATION, store, 2, machine)
    assert dataset_summary(store, 2) == dataset_summary(undisturbed[0], 2)
    store.compact_labels()
    keys = keys_in_segments(store.folder / "labels")
    assert len(keys) == len(set(keys)) == len(undisturbed[0].ledger)


def test_a_lost_ledger_is_paid_for_again_and_gives_the_same(undisturbed, tmp_path, sessions):
    store = back_to(undisturbed[0], tmp_path / "c", 2, "label")
    shutil.rmtree(store.folder / "labels")
    machine = Machine(slots=2, **SMALL)
    carry_out(label.STATION, store, 2, machine)
    gather(label.STATION, store, 2, machine)
    assert dataset_summary(store, 2) == dataset_summary(undisturbed[0], 2)


def test_a_kill_while_the_campaign_folder_is_made_leaves_it_usable(tmp_path):
    """The uuid stands before the campaign: a folder with one and not the other can be begun again."""
    (tmp_path / "c" / "campaign").mkdir(parents=True)
    (tmp_path / "c" / "campaign" / "uuid").write_text("0123456789abcdef0123456789abcdef")
    store = Store.create(tmp_path / "c", load_campaign(TINY))
    assert store.uuid == "0123456789abcdef0123456789abcdef"
    assert store.latest_campaign() == load_campaign(TINY)


def test_the_claim_of_a_dead_driver_is_swept_away_and_that_of_a_living_one_is_not(tmp_path):
    """Killed between the publication of a task and the release of its claim: nobody would ask for it again."""
    store = Store.create(tmp_path / "c", load_campaign(TINY))
    folder = store.folder / "claims"
    living = Claim(folder / "001-label-00001.json")
    assert living.acquire()
    dead = json.loads(living.path.read_text()) | {"pid": 2**22 + 1, "token": "theirs"}
    (folder / "001-label-00002.json").write_text(json.dumps(dead))
    store.sweep(Machine(**SMALL))
    assert [path.name for path in folder.iterdir()] == ["001-label-00001.json"]


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """Mount a tmpfs of 16 MB; yield (mount point, function that resizes it)."""
    where = tmp_path / "disk"
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", where], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mount is not permitted here (needs root)")

    def resize(n_bytes: int) -> None:
        size = f"remount,size={max(n_bytes // 1024, 1)}k"
        subprocess.run(["mount", "-o", size, where], check=True)

    yield where, resize
    subprocess.run(["umount", "-l", where], check=True)


@pytest.mark.parametrize("free", [0, 4_096, 8_192, 16_384, 65_536])
def test_a_full_disk_is_a_sentence_and_then_the_same_data_set(undisturbed, small_disk, free):
    """It fills up at the lease, at a label or in a training; enlarged, the same command continues."""
    where, resize = small_disk
    store = back_to(undisturbed[0], where / "c", 2, "label")
    shutil.rmtree(store.folder / "labels")
    machine = machine_file(where / "m.yaml", slots=2)
    shutil.copy(TINY, where / "tiny.yaml")
    used = shutil.disk_usage(where).used
    resize(used + free)
    arguments = ("run", where / "tiny.yaml", "--folder", where / "c", "--machine", machine)
    done = cli(*arguments, cwd=where.parent)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "disk is full" in done.stderr or "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Please report" not in done.stderr
    if free != 16_384:  # one of them goes all the way
        return
    resize(16 << 20)
    done = cli(*arguments, cwd=where.parent)
    assert done.returncode == 3, done.stdout + done.stderr
    assert dataset_summary(store, 2) == dataset_summary(undisturbed[0], 2)
    assert_tidy(store)


# --- engines that crash -----------------------------------------------------------------------------------------------


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def one_walk_left(undisturbed, tmp_path):
    """A copy of the tiny campaign in which one walk of the last pass is still to be run."""
    store = back_to(undisturbed[0], tmp_path / "c", 2, "explore")
    sorted((store.folder / "iter-002" / "explore").glob("warm*.npz"))[1].unlink()
    return store


def test_a_lammps_that_segfaults_is_tried_again_and_then_a_stop(one_walk_left, undisturbed, tmp_path):
    store = one_walk_left
    always = script(tmp_path / "lmp-always", "#!/bin/sh\nkill -SEGV $$\n")
    machine = machine_file(tmp_path / "always.yaml", slots=2, lammps=str(always))
    done = cli("run", TINY, "--folder", store.folder, "--machine", machine, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "explore task warm-200K-s0-001 failed 3 times on infrastructure" in done.stderr
    assert "LAMMPS ended with signal 11" in done.stderr
    assert "run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    assert not store.is_sealed("explore", 2)

    once = f"#!/bin/sh\nif [ ! -e {tmp_path}/crashed ]; then touch {tmp_path}/crashed; kill -SEGV $$; fi\n"
    good = script(tmp_path / "lmp-once", once + f'exec {BIN / "lmp"} "$@"\n')
    machine = machine_file(tmp_path / "once.yaml", slots=2, lammps=str(good))
    done = cli("run", TINY, "--folder", store.folder, "--machine", machine, cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "(attempt 1 of 3)" in done.stderr
    record = store.iterations()[-1]
    assert record.infrastructure_failures == 4
    assert record.selection.counts == undisturbed[0].iterations()[-1].selection.counts
    assert dataset_summary(store, 2) == dataset_summary(undisturbed[0], 2)


def test_a_walk_that_takes_too_long_is_infrastructure(one_walk_left, tmp_path):
    store = one_walk_left
    slow = script(tmp_path / "lmp-slow", "#!/bin/sh\nexec sleep 600\n")
    settings = {"slots": 1, "lammps": str(slow), "walk_timeout_s": 0.5, "max_attempts": 2}
    machine = machine_file(tmp_path / "slow.yaml", **settings)
    done = cli("run", TINY, "--folder", store.folder, "--machine", machine, cwd=tmp_path)
    assert done.returncode == 1
    assert "failed 2 times on infrastructure" in done.stderr
    assert "took more than 0.5 s - raise the time-out in the machine profile" in done.stderr
    assert not store.is_sealed("explore", 2), "wall-clock never changes science"


def test_walks_that_cannot_be_run_are_given_up_with_recorded_consent(one_walk_left, tmp_path, undisturbed):
    """The walk is out, the pass is judged by the others, and the consent is on record."""
    store = one_walk_left
    always = script(tmp_path / "lmp-always", "#!/bin/sh\nkill -SEGV $$\n")
    machine = machine_file(tmp_path / "always.yaml", slots=1, lammps=str(always), max_attempts=1)
    arguments = ("run", TINY, "--folder", store.folder, "--machine", machine, "--refuse-infrastructure-failures", 1)
    done = cli(*arguments, cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert json.loads((store.folder / "consent.json").read_text())["n"] == 1
    record = store.iterations()[-1]
    assert record.selection.counts.walks == 3
    assert record.selection.counts.walked == 33
    assert record.infrastructure_failures == 1


def test_a_program_that_is_not_there_is_named_before_any_job(one_walk_left, tmp_path):
    machine = machine_file(tmp_path / "m.yaml", lammps="/no/such/lmp")
    done = cli("run", TINY, "--folder", one_walk_left.folder, "--machine", machine, cwd=tmp_path)
    assert done.returncode == 2
    assert "machine.lammps: no program '/no/such/lmp'" in done.stderr


def test_a_reference_that_dies_is_tried_again(undisturbed, tmp_path, monkeypatch):
    """The session of the reference is killed in the middle of a label: a new one takes the task up."""
    store = back_to(undisturbed[0], tmp_path / "c", 2, "label")
    shutil.rmtree(store.folder / "labels")
    process.allow_engines()
    machine = Machine(slots=1, **SMALL)
    original, killed = label.reference.label, []

    def kill_the_worker(reference, frame, slot, **keep):
        if not killed:
            killed.append(slot.index)
            for session in process._sessions.values():
                os.kill(session.pid, signal.SIGKILL)
                session.close()  # as who waits for an answer does
            raise EngineError("the worker died with return code -9")
        return original(reference, frame, slot, **keep)

    try:
        label.reference.label(store.campaign(2).label.reference, store.frames(store.chosen_file(2))[0][0], _slot(store))
        monkeypatch.setattr(label.reference, "label", kill_the_worker)
        carry_out(label.STATION, store, 2, machine)
    finally:
        end_sessions()
    assert killed == [0]
    assert len(store.failures(2)) == 1
    gather(label.STATION, store, 2, machine)
    assert dataset_summary(store, 2) == dataset_summary(undisturbed[0], 2)


def _slot(store: Store) -> process.Slot:
    return process.Slot(Machine(slots=1, **SMALL), store.folder / "scratch")


def test_the_calculator_of_these_tests_is_emt(tmp_path, monkeypatch):
    """Its labels are EMT's, and it writes one line per structure."""
    from ase.build import bulk
    from ase.calculators.emt import EMT
    from logged_emt import LoggedEMT

    monkeypatch.setenv("LOGGED_EMT", str(tmp_path / "log"))
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.calc = LoggedEMT()
    forces, stress = atoms.get_forces(), atoms.get_stress()
    atoms.calc = EMT()
    assert np.array_equal(forces, atoms.get_forces())
    assert np.array_equal(stress, atoms.get_stress())
    assert len((tmp_path / "log").read_text().splitlines()) == 1
