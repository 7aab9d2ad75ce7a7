"""The faults: what may happen to a node, a disk, a clock, a program or a person in the middle of a campaign."""

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import MappingProxyType

from lives import alive_in, calculations, kill_group
from underfire import HERE, PATIENCE_S, Fault, Missed, Over, UnderFire, begun_in_vain

from activelearn import loop
from activelearn.store.files import is_whole

DAY_S = 86_400.0
EVERYWHERE = ("initial", "train", "explore", "label", "final")
ENGINES = ("train", "explore", "final")
REFERENCE = ("initial", "label")


def wait_for(condition, what: str) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.02)


def stopped(life: UnderFire, code: int | set[int], *words: str) -> None:
    """Wait until the driver has ended, and see that it ended as it should and said why."""
    found = life.ended()
    if found == 3:
        raise Over
    said = life.output()[life.read_to :]
    assert found in ({code} if isinstance(code, int) else code), f"exit code {found}, expected {code}: {said[-1500:]}"
    assert not words or any(word in said for word in words), f"not said: {words}: {said[-1500:]}"


# --- signals ----------------------------------------------------------------------------------------------------------


def kill_driver(life: UnderFire, rng) -> None:
    """The driver alone is killed; the same command may come at once, or when its engines have seen that it is gone."""
    life.running.kill()
    life.running.wait()
    life.begun = begun_in_vain(life.store)
    if rng.random() < 0.5:
        stopped(life, -signal.SIGKILL)


def terminate_driver(life: UnderFire, _rng) -> None:
    life.running.terminate()
    stopped(life, 143, "stopped on request")


def lose_node(life: UnderFire, _rng) -> None:
    kill_group(life.running)
    stopped(life, -signal.SIGKILL)


def signal_worker(life: UnderFire, rng, number: int) -> None:
    send(one_of(life, rng, life.workers), number)
    told_of_it(life)


def signal_engine(life: UnderFire, rng, number: int) -> None:
    send(one_of(life, rng, life.engines), number)
    told_of_it(life)


def told_of_it(life: UnderFire) -> None:
    """Wait until the driver has noticed what was done to an engine, if it will: one that was idle is not missed."""
    deadline = time.monotonic() + 3.0
    while life.n_failures() == life.n_failed and life.is_running() and time.monotonic() < deadline:
        time.sleep(0.02)


def send(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        raise Missed from None


def one_of(life: UnderFire, rng, processes) -> int:
    """Wait for a process of the driver's that can be struck, and return it."""
    found: list[int] = []

    def is_there() -> bool:
        found[:] = processes()
        return bool(found) or not life.is_running()

    wait_for(is_there, "a process to strike")
    if not found:
        raise Missed
    return int(rng.choice(found))


# --- disks ------------------------------------------------------------------------------------------------------------


def mounted(where: Path, options: str) -> None:
    """Change how the small disk is mounted; what the kernel refuses for a moment is tried again."""
    last = None
    for _ in range(100):
        last = subprocess.run(["mount", "-o", f"remount,{options}", where], capture_output=True, text=True, check=False)
        if last.returncode == 0:
            return
        time.sleep(0.05)
    raise AssertionError(f"mount -o remount,{options}: {last.stderr}")


def fill_disk(life: UnderFire, rng) -> None:
    """The disk is full, or all but some pages; then it is enlarged."""
    free = int(rng.integers(0, 4)) * 4096
    for _ in range(100):  # what is written meanwhile may make it too small
        used = shutil.disk_usage(life.disk).used
        done = subprocess.run(
            ["mount", "-o", f"remount,size={(used + free) // 1024}k", life.disk], capture_output=True, check=False
        )
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    try:
        stopped(life, 1, "disk is full", "No space left on device")
    finally:
        mounted(life.disk, "size=256m")


def forbid_writing(life: UnderFire, _rng) -> None:
    """All folders of the campaign lose their write permission; then they get it back."""
    folders = [life.store.folder, *(path for path in life.store.folder.rglob("*") if path.is_dir())]
    modes = {}
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):  # a scratch folder that has gone
            modes[folder] = stat.S_IMODE(folder.stat().st_mode)
            folder.chmod(0o555)
    try:
        stopped(life, 1, "permission denied")
    finally:
        for folder, mode in modes.items():
            if folder.is_dir():
                folder.chmod(mode)


def freeze_disk(life: UnderFire, _rng) -> None:
    """The file system comes back read-only, as after an error of a disk; then it is mounted writable."""
    mounted(life.disk, "ro")
    try:
        life.begin()
        stopped(life, 2, "Read-only file system")  # found by the check, before anything runs
    finally:
        mounted(life.disk, "rw,size=256m")


# --- damaged files ----------------------------------------------------------------------------------------------------


def cut_product(life: UnderFire, rng) -> None:
    """A product that its station has not sealed yet is cut short; it is made again."""
    products = [
        path
        for plan in life.store.folder.glob("iter-*/*/plan.json")
        if not plan.with_name("result.json").is_file()
        for path in sorted(plan.parent.glob("*.npz"))
    ]
    if not products:
        raise Missed
    path = products[int(rng.integers(len(products)))]
    life.destroy(lambda: cut(path, rng), str(path.relative_to(life.store.folder)))
    assert not is_whole(path)
    life.begin()
    wait_for(lambda: sealed_again(life, path), "a product that was cut short is made again")
    assert f"damaged product(s) of {path.parent.name} moved aside" in life.output()
    assert list(path.parent.glob(f"{path.name}.damaged-*"))


def sealed_again(life: UnderFire, path: Path) -> bool:
    assert life.is_running() or life.running.returncode == 3, life.output()[-1500:]
    return (path.parent / "result.json").is_file()


def cut_ledger(life: UnderFire, rng) -> None:
    """The last label of a segment of the station at work is cut short; it alone is paid for again."""
    segments = sorted((life.store.folder / "labels").glob("*.seg"))
    segments = [path for path in segments if "-00000000T" not in path.name]  # that of the iterations before
    if life.at_work() != "label" or not segments:
        raise Missed
    path = segments[int(rng.integers(len(segments)))]
    life.destroy(lambda: os.truncate(path, path.stat().st_size - int(rng.integers(1, 700))))


def lose_half_a_plan(life: UnderFire, rng) -> None:
    """A plan is truncated: the user is told to remove it, does so, and it is made again."""
    plans = [
        path for path in life.store.folder.glob("iter-*/*/plan.json") if not path.with_name("result.json").is_file()
    ]
    if not plans:
        raise Missed
    life.destroy(lambda: cut(plans[0], rng), str(plans[0].relative_to(life.store.folder)))
    life.begin()
    stopped(life, 1, f"{plans[0]}: damaged")
    assert "remove this file" in life.output()
    plans[0].unlink()


def cut_sealed(life: UnderFire, rng) -> None:
    """What a station is to read next is cut short: this is said, the user restores it from a copy."""
    path = needed_next(life, rng)
    copy = life.here / "copy"
    shutil.copy2(path, copy)
    cut(path, rng)
    try:
        life.begin()
        stopped(life, 1, path.name)
    finally:
        os.replace(shutil.copy2(copy, path.with_name("restored")), path)


def needed_next(life: UnderFire, rng) -> Path:
    """Return a sealed file that the station at work cannot do without."""
    folder, station = life.store.folder, life.at_work()
    iteration = life.store.opened_iterations()[-1]
    if rng.random() < 0.3:
        return folder / str(rng.choice(["campaign/000.yaml", f"iter-{iteration:03d}/campaign.yaml"]))
    if station == "label":
        return life.store.chosen_file(iteration)
    if station == "explore" and (plan := life.store.find_plan("explore", iteration)) is not None:
        return folder / plan.tasks[0].inputs[0]
    if station == "train":
        return life.store.dataset_file(iteration)
    raise Missed


def cut(path: Path, rng) -> None:
    os.truncate(path, int(rng.integers(0, path.stat().st_size)))


# --- clocks -----------------------------------------------------------------------------------------------------------


def jump_clock(life: UnderFire, rng) -> None:
    """The clock jumps; what was stamped before it, the living heartbeats, are as much older or younger then."""
    jump_s = float(rng.choice([-3650, -1, -0.05, 0.05, 1, 3650])) * DAY_S
    life.clock.write_text(str(jump_s))
    for path in [life.store.folder / "lease.json", *life.store.folder.glob("claims/*.json")]:
        with contextlib.suppress(FileNotFoundError):
            now = path.stat().st_mtime
            os.utime(path, (now - jump_s, now - jump_s))


def leave_heartbeats(life: UnderFire, rng) -> None:
    """Another node has died with the lease and the next tasks in hand; by its clock that was yesterday, or tomorrow."""
    folder, stamp = life.store.folder, time.time() + float(rng.choice([-1, 1])) * DAY_S
    holder = {"host": "another-node", "pid": 1, "started": "1", "token": "theirs", "since": stamp}
    station, iteration = life.at_work(), life.store.opened_iterations()[-1]
    plan = life.store.find_plan(station, iteration)
    tasks = life.store.pending(plan, by=loop.STATIONS[station].published)[:2] if plan is not None else []
    locks = [folder / "lease.json", *(life.store.claim(station, iteration, task).path for task in tasks)]
    for path in locks:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(holder))
        os.utime(path, (stamp, stamp))
    life.begin()

    def is_free() -> bool:
        assert life.is_running() or life.running.returncode == 3, life.output()[-1500:]
        return not any(path.is_file() and "theirs" in path.read_text() for path in locks)

    wait_for(is_free, "the locks of a dead node are broken")


# --- races ------------------------------------------------------------------------------------------------------------


def race_workers(life: UnderFire, rng) -> None:
    """Two workers without a driver take up the same station at once; in half of the cases one of them is killed."""
    station, iteration = life.at_work(), life.store.opened_iterations()[-1]
    if life.store.find_plan(station, iteration) is None:
        raise Missed
    before = calculations(life.log)
    rivals = [rival(life, station, iteration) for _ in range(2)]
    is_killed = rng.random() < 0.5
    if is_killed:
        claims = life.store.folder / "claims"
        wait_for(lambda: held_by(claims, rivals[0].pid) or rivals[0].poll() is not None, "a claim of the rival")
        time.sleep(float(rng.uniform(0.0, 0.5)))
        kill_group(rivals[0])
    for one in rivals:
        assert one.wait(PATIENCE_S) in {0, -signal.SIGKILL}, life.output()[-1500:]
    assert rivals[1].returncode == 0
    assert not life.store.pending(life.store.plan(station, iteration), by=loop.STATIONS[station].published), (
        "the one that lives did all of it"
    )
    computed = calculations(life.log) - before
    twice = [digest for digest in life.tasks if computed[digest] > 1]
    assert len(twice) <= is_killed, f"{len(twice)} tasks were carried out by both of two workers"


def held_by(claims: Path, pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return any(f'"pid": {pid},' in path.read_text() for path in claims.glob("[0-9]*.json"))
    return False


def rival(life: UnderFire, station: str, iteration: int) -> subprocess.Popen:
    """Start a worker that has only the folder, one slot."""
    words = [sys.executable, HERE / "rival.py", life.store.folder, station, str(iteration), life.machine(slots=1)]
    with (life.here / "output.txt").open("ab") as log:
        return subprocess.Popen(
            [str(word) for word in (*life.words, *words)],
            cwd=life.here,
            env=life.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def race_drivers(life: UnderFire, _rng) -> None:
    """The command is given twice at the same moment: one drives, the other says who does."""
    first = life.begin()
    second = life.begin()
    wait_for(lambda: first.poll() is not None or second.poll() is not None, "one of two drivers gives way")
    loser, life.running = (first, second) if first.poll() is not None else (second, first)
    assert loser.returncode == 2, f"{loser.returncode}: {life.output()[-1500:]}"
    assert f"driven by process {life.running.pid} on" in life.output()
    assert life.is_running() or life.running.returncode == 3


# --- programs ---------------------------------------------------------------------------------------------------------


def hang(life: UnderFire, rng) -> None:
    """An engine hangs: lmp sleeps and does not hear SIGTERM, or the worker of the reference stands still."""
    if life.at_work() == "explore":
        deaf = script(life.here / "lmp-deaf", "#!/bin/sh\ntrap '' TERM\nexec sleep 600\n")
        life.begin(lammps=str(deaf), walk_timeout_s=1.0, max_attempts=2)
        stopped(life, 1, "lmp-deaf took more than")
        assert "failed 2 times on infrastructure" in life.output()
        return
    n_failures, computed = life.n_failures(), calculations(life.log).total()
    life.begin(label_timeout_s=10.0)
    wait_for(  # it computes: to start, it may take ten minutes
        lambda: calculations(life.log).total() > computed or life.at_work() not in REFERENCE or not life.is_running(),
        "a worker that computes",
    )
    if life.at_work() not in REFERENCE:
        raise Missed
    worker = one_of(life, rng, lambda: life.workers(b"calculator_session.py"))
    send(worker, signal.SIGSTOP)
    wait_for(
        lambda: life.n_failures() > n_failures or life.at_work() not in REFERENCE or not life.is_running(),
        "a worker that hangs is found out",
    )
    if life.n_failures() == n_failures:  # it was idle
        raise Missed
    assert "no answer within 10 s" in life.output()
    assert worker not in alive_in(life.running.pid), "a worker that hangs is ended"


def lose_lmp(life: UnderFire, rng) -> None:
    """The node has no lmp: the profile names none, or a wrapper finds none; then this is fixed."""
    if life.at_work() == "explore" and rng.random() < 0.7:
        wrapper = script(life.here / "lmp-lost", '#!/bin/sh\nexec /no/such/lmp "$@"\n')
        life.begin(lammps=str(wrapper), max_attempts=2)
        stopped(life, 1, "failed 2 times on infrastructure")
        assert "/no/such/lmp" in life.output()
        return
    life.begin(lammps="/no/such/lmp")
    stopped(life, 2, "no program '/no/such/lmp'")


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def with_signal(strike, number: int):
    return lambda life, rng: strike(life, rng, number)


_FAULTS = (
    Fault("driver SIGKILL", kill_driver, EVERYWHERE),
    Fault("driver SIGTERM", terminate_driver, EVERYWHERE),
    Fault("node lost", lose_node, EVERYWHERE),
    Fault("worker SIGKILL", with_signal(signal_worker, signal.SIGKILL), EVERYWHERE),
    Fault("worker SIGTERM", with_signal(signal_worker, signal.SIGTERM), EVERYWHERE),
    Fault("dp or lmp SIGKILL", with_signal(signal_engine, signal.SIGKILL), ENGINES, costs=0),
    Fault("dp or lmp SIGTERM", with_signal(signal_engine, signal.SIGTERM), ENGINES, costs=0),
    Fault("disk full", fill_disk, EVERYWHERE),
    Fault("folders not writable", forbid_writing, EVERYWHERE),
    Fault("disk read-only", freeze_disk, EVERYWHERE, at_rest=True, costs=0),
    Fault("product cut short", cut_product, ("initial", "explore", "train"), at_rest=True, least=1, costs=0),
    Fault("ledger cut short", cut_ledger, ("label",), at_rest=True, least=1, costs=0),
    Fault("plan cut short", lose_half_a_plan, EVERYWHERE, at_rest=True, costs=0),
    Fault("sealed file cut short", cut_sealed, ("train", "explore", "label"), at_rest=True, costs=0),
    Fault("clock jumps", jump_clock, EVERYWHERE, costs=0),
    Fault("heartbeats off by a day", leave_heartbeats, EVERYWHERE, at_rest=True, costs=0),
    Fault("two workers", race_workers, EVERYWHERE, at_rest=True, costs=1),
    Fault("two drivers", race_drivers, EVERYWHERE, at_rest=True, costs=0),
    Fault("engine hangs", hang, ("initial", "explore", "label"), at_rest=True),
    Fault("lmp missing", lose_lmp, ("explore", "label"), at_rest=True, costs=0),
)
#: All kinds, by name.
FAULTS = MappingProxyType({fault.name: fault for fault in _FAULTS})
#: Those that want a small disk to be mounted.
WANT_DISK = ("disk full", "disk read-only")
#: Those for which the modes of files must count.
WANT_MODES = ("folders not writable",)
