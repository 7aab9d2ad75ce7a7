"""Commands and sessions: time-outs, missing programs, workers that die, stops, and no orphans after kill -9."""

import json
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
from activelearn.engines import process
from activelearn.engines.process import ONE_THREAD, Session, Slot, run_command, session, tail_of, worker_command
from activelearn.errors import EngineError, Interrupted


@pytest.fixture(autouse=True)
def running():
    process.allow_engines()
    yield
    process.close_sessions()
    process.allow_engines()


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def wait_until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def python(code):
    return [sys.executable, "-c", textwrap.dedent(code)]


# --- commands ---------------------------------------------------------------------------------------------------------


def test_a_command_ends_with_its_code_and_the_tail_of_its_log(tmp_path):
    code = "import sys; print('one'); print('two', file=sys.stderr); print('libcudart.so: no'); sys.exit(3)"
    done = run_command(python(code), tmp_path, log=tmp_path / "log", timeout_s=30)
    assert done.return_code == 3
    assert sorted(done.tail) == ["one", "two"], "both streams, without the loader's noise"


def test_a_signal_is_a_negative_code(tmp_path):
    done = run_command(python("import os; os.kill(os.getpid(), 11)"), tmp_path, log=tmp_path / "log", timeout_s=30)
    assert done.return_code == -11


def test_a_command_runs_in_its_folder_with_one_thread_and_our_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    code = "import os; print(os.getcwd(), os.environ['OMP_NUM_THREADS'], os.environ['EXTRA'])"
    done = run_command(python(code), tmp_path, log=tmp_path / "log", timeout_s=30, env={"EXTRA": "yes"})
    assert done.tail == [f"{tmp_path} 1 yes"]
    assert set(ONE_THREAD.values()) - {"2"} == {"1"}


def test_a_command_reads_nothing_from_our_standard_input(tmp_path):
    done = run_command(python("import sys; print(repr(sys.stdin.read()))"), tmp_path, log=tmp_path / "l", timeout_s=30)
    assert done.tail == ["''"]


def test_a_time_out_kills_and_says_so(tmp_path):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with pytest.raises(EngineError) as caught:
        run_command(python(code), tmp_path, log=tmp_path / "log", timeout_s=0.7)
    assert "took more than 0.7 s - raise the time-out in the machine profile" in str(caught.value)
    assert caught.value.folder == tmp_path
    (pid,) = caught.value.tail
    assert not is_alive(int(pid))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "no-such-program",
            "no-such-program: no such program - expected it on the PATH - correct its name, or install it",
        ),
        ("moved", "moved: cannot be started"),
    ],
)
@pytest.mark.parametrize("has_setpriv", [True, False])
def test_a_program_that_is_missing_or_none(tmp_path, monkeypatch, name, sentence, has_setpriv):
    (tmp_path / "moved").write_text("#!/of/a/venv/that/was/moved/bin/python\n")
    (tmp_path / "moved").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    if not has_setpriv:
        monkeypatch.setattr(process, "_setpriv", lambda: None)
    with pytest.raises(EngineError, match=sentence):
        run_command([name], tmp_path, log=tmp_path / "log", timeout_s=1)
    with pytest.raises(EngineError, match=sentence):
        Session([name], log=tmp_path / "log").request({}, timeout_s=1)


def test_the_tail_of_a_long_log(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"\xff\n" + b"".join(f"line {k}\n\n".encode() for k in range(20_000)))
    assert tail_of(log, 3) == ["line 19997", "line 19998", "line 19999"]
    assert tail_of(tmp_path / "none") == []


def test_a_stop_ends_a_command_and_refuses_the_next(tmp_path):
    threading.Timer(0.4, process.stop_engines).start()
    begin = time.monotonic()
    with pytest.raises(Interrupted):
        run_command(["sleep", "60"], tmp_path, log=tmp_path / "log", timeout_s=100)
    assert time.monotonic() - begin < 5.0
    with pytest.raises(Interrupted):
        run_command(["true"], tmp_path, log=tmp_path / "log", timeout_s=100)
    process.allow_engines()
    assert run_command(["true"], tmp_path, log=tmp_path / "log", timeout_s=100).return_code == 0


# --- sessions ---------------------------------------------------------------------------------------------------------

WORKER = """
import json, os, sys, time
print(json.dumps({"id": 0, "ready": True}), flush=True)
n = 0
for line in sys.stdin:
    request = json.loads(line)
    n += 1
    job = request["job"]
    if job == "die":
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), 9)
    if job == "deaf":
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if job == "sleep":
        time.sleep(60)
    if job == "garbage":
        print("module loaded: intel", flush=True)
        continue
    if job == "error":
        print(json.dumps({"id": request["id"], "error": "OSError: boom"}), flush=True)
        continue
    if job == "half":
        print(json.dumps({"id": request["id"], "n": n})[:8], end="", flush=True)
        os.kill(os.getpid(), 9)
    if job == "slowly":
        text = json.dumps({"id": request["id"], "n": n})
        for character in text + "\\n":
            sys.stdout.write(character)
            sys.stdout.flush()
            time.sleep(0.01)
        continue
    if job == "large":
        print(json.dumps({"id": request["id"], "data": "x" * 3_000_000}), flush=True)
        continue
    print(json.dumps({"id": request["id"], "n": n, "pid": os.getpid(), "echo": request.get("text")}), flush=True)
"""


@pytest.fixture
def worker(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    made = Session([sys.executable, str(tmp_path / "worker.py")], log=tmp_path / "logs" / "log")
    yield made
    made.close()


def test_a_session_answers_and_stays(worker):
    first = worker.request({"job": "x", "text": "é\n"}, timeout_s=30)
    second = worker.request({"job": "x"}, timeout_s=30)
    assert (first["n"], second["n"]) == (1, 2)
    assert first["pid"] == second["pid"]
    assert first["echo"] == "é\n"
    assert worker.request({"job": "slowly"}, timeout_s=30) == {"n": 3}, "an answer in pieces"
    assert len(worker.request({"job": "large"}, timeout_s=30)["data"]) == 3_000_000


def test_a_large_request_goes_through(worker):
    assert len(worker.request({"job": "x", "text": "y" * 3_000_000}, timeout_s=30)["echo"]) == 3_000_000


def test_a_worker_that_dies_is_an_engine_error_and_the_next_request_starts_another(worker):
    before = worker.request({"job": "x"}, timeout_s=30)["pid"]
    with pytest.raises(EngineError) as caught:
        worker.request({"job": "die"}, timeout_s=30)
    assert "the worker died with return code -9" in str(caught.value)
    assert caught.value.tail == ("last words",)
    after = worker.request({"job": "x"}, timeout_s=30)
    assert after["n"] == 1
    assert after["pid"] != before


def test_a_worker_that_is_killed_in_the_middle_of_its_answer_has_died(worker):
    with pytest.raises(EngineError, match="the worker died with return code -9"):
        worker.request({"job": "half"}, timeout_s=30)


def test_a_worker_that_was_killed_between_two_requests_is_started_again(worker):
    before = worker.request({"job": "x"}, timeout_s=30)["pid"]
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: not is_alive(before))
    assert worker.request({"job": "x"}, timeout_s=30)["pid"] != before


def test_an_error_in_the_answer_leaves_the_worker_alive(worker):
    before = worker.request({"job": "x"}, timeout_s=30)["pid"]
    with pytest.raises(EngineError, match="OSError: boom"):
        worker.request({"job": "error"}, timeout_s=30)
    assert worker.request({"job": "x"}, timeout_s=30)["pid"] == before


def test_no_answer_in_time_kills_the_worker(worker):
    before = worker.request({"job": "x"}, timeout_s=30)["pid"]
    with pytest.raises(EngineError, match=r"no answer within 0.5 s - raise the time-out in the machine profile"):
        worker.request({"job": "sleep"}, timeout_s=0.5)
    assert not is_alive(before)
    assert worker.request({"job": "x"}, timeout_s=30)["n"] == 1, "the late answer can never be taken for another's"


def test_a_worker_past_its_time_that_ignores_sigterm_dies(worker):
    worker.slot = Slot(Machine(grace_s=0.3), worker.log.parent)
    pid = worker.request({"job": "deaf"}, timeout_s=30)["pid"]
    with pytest.raises(EngineError, match=r"no answer within 0.5 s .* SIGKILL after 0.3 s"):
        worker.request({"job": "sleep"}, timeout_s=0.5)
    assert not is_alive(pid)


def test_what_is_no_answer_is_an_engine_error(worker):
    with pytest.raises(EngineError, match="not an answer: 'module loaded: intel' - expected only JSON"):
        worker.request({"job": "garbage"}, timeout_s=30)
    assert worker.request({"job": "x"}, timeout_s=30)["n"] == 1


def test_a_worker_that_cannot_start_says_why(tmp_path):
    (tmp_path / "w.py").write_text("import nonsense_module\n")
    with pytest.raises(EngineError) as caught:
        Session([sys.executable, str(tmp_path / "w.py")], log=tmp_path / "log").request({}, timeout_s=30)
    assert "the worker died with return code 1" in str(caught.value)
    assert "No module named 'nonsense_module'" in caught.value.tail[-1]
    (tmp_path / "w.py").write_text("import json; print(json.dumps({'id': 0, 'error': 'cannot import deepmd-kit'}))\n")
    with pytest.raises(EngineError, match="cannot import deepmd-kit"):
        Session([sys.executable, str(tmp_path / "w.py")], log=tmp_path / "log").request({}, timeout_s=30)


def test_a_worker_that_does_not_come_up_in_time(tmp_path):
    slow = Session(python("import time; time.sleep(60)"), log=tmp_path / "log", start_timeout_s=0.5)
    with pytest.raises(EngineError, match=r"no answer within 0.5 s"):
        slow.request({}, timeout_s=30)


def test_a_start_that_fails_fails_once_for_all_that_wait_for_it(tmp_path):
    hung = Session(["sh", "-c", "echo begun >> starts; exec sleep 60"], log=tmp_path / "log", start_timeout_s=1.0)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(hung.request, {}, timeout_s=30) for _ in range(4)]
        for one in asked:
            with pytest.raises(EngineError, match=r"no answer within 1 s"):
                one.result()
    assert (tmp_path / "starts").read_text() == "begun\n"
    with pytest.raises(EngineError):
        hung.request({}, timeout_s=30)
    assert (tmp_path / "starts").read_text() == 2 * "begun\n", "who comes later tries again"


def test_a_worker_that_does_not_read_any_more_is_ended_with_requests_of_others_in_its_pipe(tmp_path):
    """More than the pipe holds: one of them is being written when the first is past its time."""
    code = """
        import json, sys, time
        print(json.dumps({"id": 0, "ready": True}), flush=True)
        time.sleep(600)
    """
    slot = Slot(Machine(grace_s=0.3), tmp_path)
    loading = Session(python(code), log=tmp_path / "log", slot=slot, ends_jobs=True)
    with ThreadPoolExecutor(10) as pool:
        asked = [pool.submit(loading.request, {"text": 9000 * "x"}, timeout_s=1.0) for _ in range(10)]
        try:
            failures = [str(one.exception(timeout=30)).splitlines()[0] for one in asked]
        finally:
            process.stop_engines()  # or the pool would wait for ever
    assert any("no answer within 1 s" in failure for failure in failures)
    assert {failure[:10] for failure in failures} == {"no answer ", "the worker"}


def test_a_stop_ends_a_running_request_and_its_process(worker):
    pid = worker.request({"job": "x"}, timeout_s=30)["pid"]
    threading.Timer(0.4, process.stop_engines).start()
    begin = time.monotonic()
    with pytest.raises(Interrupted):
        worker.request({"job": "sleep"}, timeout_s=100)
    assert time.monotonic() - begin < 5.0
    assert not is_alive(pid)
    process.allow_engines()
    assert worker.request({"job": "x"}, timeout_s=30)["n"] == 1


def test_sessions_are_kept_by_their_key_until_closed(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)

    def make():
        return Session([sys.executable, str(tmp_path / "worker.py")], log=tmp_path / "log")

    one = session(("a", "0"), make)
    assert session(("a", "0"), make) is one
    assert session(("a", "1"), make) is not one
    pid = one.request({"job": "x"}, timeout_s=30)["pid"]
    process.close_sessions()
    assert not is_alive(pid)
    assert session(("a", "0"), make) is not one


@pytest.mark.parametrize("launcher", [None, "sh -c '\"$@\"; exit' sh"], ids=["alone", "under a parent that lives on"])
def test_a_killed_driver_leaves_no_orphan(tmp_path, launcher):
    """kill -9 of the driver, while its worker is idle and while it is in the middle of a job."""
    driver = f"""
        import sys, threading
        from pathlib import Path
        from activelearn.config import Machine
        from activelearn.engines.process import Session, Slot, worker_command
        here = Path({str(tmp_path)!r})
        slot = Slot(Machine(launcher={launcher!r}), here)
        worker = Session(worker_command("calculator_session.py", None), log=here / "log", slot=slot)
        cell = [[3, 0, 0], [0, 3, 0], [0, 0, 3]]
        one = {{"symbols": ["Cu"], "positions": [[0, 0, 0]], "cell": cell, "pbc": [True] * 3}}
        request = {{"job": "label", "arguments": {{}}, "structure": one}}
        worker.request({{**request, "calculator": "ase.calculators.emt:EMT"}}, timeout_s=60)
        print(worker.pid, flush=True)  # of the worker or its launcher, which ends after it
        worker.request({{**request, "calculator": sys.argv[1]}}, timeout_s=60)
        threading.Event().wait()
    """
    for calculator in ("ase.calculators.emt:EMT", "odd_calculators:Slow"):
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent)}
        parent = subprocess.Popen([*python(driver), calculator], stdout=subprocess.PIPE, env=env)
        pid = int(parent.stdout.readline())
        time.sleep(0.3)
        assert is_alive(pid)
        parent.kill()
        parent.wait()
        wait_until(lambda pid=pid: not is_alive(pid), 3.0)
        parent.stdout.close()


def test_worker_commands():
    assert worker_command("calculator_session.py", None)[0] == sys.executable
    command = worker_command("calculator_session.py", "/opt/other/bin/python")
    assert command[0] == "/opt/other/bin/python"
    assert Path(command[1]).is_file()


# --- slots: environment, GPUs, launchers ------------------------------------------------------------------------------

#: A worker of one request, and a command as well: the last line of its output are the variables that it was asked for.
SHOW = """
    import json, os, sys
    print(json.dumps({"id": 0, "ready": True}), flush=True)
    sys.stdin.readline()
    print(json.dumps({**{name: os.environ.get(name) for name in sys.argv[1:]}, "id": 1}), flush=True)
"""
#: A stand-in for srun: what it starts is no child of the caller's session, and outlives a launcher that is killed.
LAUNCHER = """
    import pathlib, signal, subprocess, sys
    here = pathlib.Path(sys.argv[1])
    child = subprocess.Popen(sys.argv[2:], start_new_session=True)
    (here / "child").write_text(str(child.pid))
    def end(number, frame):
        (here / "asked").touch()
        child.kill()
    signal.signal(signal.SIGTERM, end)
    sys.exit(child.wait())
"""


def seen(tmp_path, slot, *names, env=None):
    """Return variables as a program in a slot sees them, once as a command and once as a worker."""
    command = [*python(SHOW), *names]
    done = run_command(command, tmp_path, log=tmp_path / "seen", timeout_s=30, env=env, slot=slot)
    worker = Session(command, log=tmp_path / "log", env=env, slot=slot)
    found = worker.request({}, timeout_s=30)
    worker.close()
    assert {**found, "id": 1} == json.loads(done.tail[-1])
    return found


@pytest.mark.parametrize(
    ("settings", "devices", "growth"),
    [
        ({"slots": 4, "gpus": (0, 2)}, ["0", "2", "0", "2"], "true"),
        ({"slots": 2, "gpus": (3, 1)}, ["3", "1"], None),
        ({"slots": 3, "gpus": ()}, ["", "", ""], None),
        ({"slots": 2}, ["7", "7"], "true"),
        ({"slots": 1}, ["7"], None),
    ],
)
def test_slots_take_turns_on_the_gpus(tmp_path, monkeypatch, settings, devices, growth):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)
    machine = Machine(**settings)
    names = ("CUDA_VISIBLE_DEVICES", "TF_FORCE_GPU_ALLOW_GROWTH")
    found = [seen(tmp_path, Slot(machine, tmp_path, index), *names) for index in range(machine.n_slots)]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in found] == devices
    assert {one["TF_FORCE_GPU_ALLOW_GROWTH"] for one in found} == {growth}
    preallocate = Slot(machine, tmp_path).environment.get("XLA_PYTHON_CLIENT_PREALLOCATE")
    assert preallocate == ("false" if growth else None)


def test_the_machine_has_variables_for_every_engine_and_an_engine_has_the_last_word(tmp_path):
    slot = Slot(Machine(environment={"SITE": "here", "OMP_NUM_THREADS": "4", "BOTH": "machine"}, slots=1), tmp_path)
    found = seen(tmp_path, slot, "SITE", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BOTH", env={"BOTH": "engine"})
    assert found == {"SITE": "here", "OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "1", "BOTH": "engine"}


def test_a_launcher_stands_before_commands_and_sessions(tmp_path):
    slot = Slot(Machine(launcher="env 'LAUNCHED=by env'", environment={"A": "1"}, slots=1), tmp_path)
    assert seen(tmp_path, slot, "LAUNCHED", "A") == {"LAUNCHED": "by env", "A": "1"}
    assert run_command(["sh", "-c", "exit 3"], tmp_path, log=tmp_path / "l", timeout_s=9, slot=slot).return_code == 3
    (tmp_path / "worker.py").write_text(WORKER)
    worker = Session([sys.executable, str(tmp_path / "worker.py")], log=tmp_path / "log", slot=slot)
    assert worker.request({"job": "x"}, timeout_s=30)["n"] == 1
    worker.close()


def test_a_launcher_that_is_missing_is_named_and_what_it_starts_is_its_own_business(tmp_path):
    nowhere = Slot(Machine(launcher="no-such-srun --exact"), tmp_path)
    with pytest.raises(EngineError, match="no-such-srun: no such program - expected it on the PATH"):
        run_command(["true"], tmp_path, log=tmp_path / "log", timeout_s=9, slot=nowhere)
    there = Slot(Machine(launcher="env"), tmp_path)  # the program may be on the nodes only
    done = run_command(["no-such-program"], tmp_path, log=tmp_path / "log", timeout_s=9, slot=there)
    assert done.return_code == 127
    assert "no-such-program" in done.tail[-1]


@pytest.mark.parametrize("is_deaf", [False, True])
def test_past_its_time_a_command_is_asked_and_then_killed(tmp_path, is_deaf):
    code = f"""
        import os, signal, sys, time
        def end(number, frame):
            print("asked", flush=True)
            {"" if is_deaf else "sys.exit(0)"}
        signal.signal(signal.SIGTERM, end)
        print(os.getpid(), flush=True)
        while True:
            time.sleep(60)
    """
    slot = Slot(Machine(grace_s=0.5), tmp_path)
    begin = time.monotonic()
    with pytest.raises(EngineError, match=r"took more than 1 s .* SIGKILL after 0.5 s") as caught:
        run_command(python(code), tmp_path, log=tmp_path / "log", timeout_s=1.0, slot=slot)
    pid, asked = caught.value.tail
    assert asked == "asked"
    assert not is_alive(int(pid))
    assert (time.monotonic() - begin >= 1.5) == is_deaf


def test_a_stop_does_not_wait_for_the_grace_of_an_engine_here(tmp_path):
    slot = Slot(Machine(grace_s=60.0), tmp_path)
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
    threading.Timer(1.0, process.stop_engines).start()
    begin = time.monotonic()
    with pytest.raises(Interrupted):  # it comes within the grace
        run_command(python(code), tmp_path, log=tmp_path / "log", timeout_s=0.5, slot=slot)
    assert time.monotonic() - begin < 5.0


@pytest.fixture
def launched(tmp_path):
    """A slot whose launcher starts things out of reach, and writes down when it was asked to end them."""
    (tmp_path / "launcher.py").write_text(textwrap.dedent(LAUNCHER))
    return Slot(Machine(launcher=f"{sys.executable} {tmp_path}/launcher.py {tmp_path}", grace_s=5.0), tmp_path)


def child_of(launched):
    """Return the process id of what the launcher started, when it has."""
    file = launched.logs / "child"
    wait_until(lambda: file.is_file() and file.read_text())
    return int(file.read_text())


@pytest.mark.parametrize("how", ["time-out", "stop"])
def test_a_launcher_is_asked_to_end_what_it_started(launched, how):
    if how == "stop":
        threading.Timer(0.7, process.stop_engines).start()
    with pytest.raises(EngineError if how == "time-out" else Interrupted):
        run_command(["sleep", "60"], launched.logs, log=launched.logs / "log", timeout_s=0.7, slot=launched)
    assert (launched.logs / "asked").exists()
    assert not is_alive(child_of(launched))


def test_a_deaf_launcher_dies_after_the_grace(tmp_path):
    deaf = "import os, signal, sys; signal.signal(15, signal.SIG_IGN); os.execvp(sys.argv[1], sys.argv[1:])"
    (tmp_path / "deaf.py").write_text(deaf)
    slot = Slot(Machine(launcher=f"{sys.executable} {tmp_path}/deaf.py", grace_s=0.5), tmp_path)
    threading.Timer(0.5, process.stop_engines).start()
    begin = time.monotonic()
    with pytest.raises(Interrupted):
        run_command(["sleep", "60"], tmp_path, log=tmp_path / "log", timeout_s=99, slot=slot)
    assert 0.9 < time.monotonic() - begin < 5.0


def test_a_slot_with_a_launcher_has_one_session_at_a_time(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)

    def ask(name, slot):
        def make():
            return Session([sys.executable, str(tmp_path / "worker.py")], log=tmp_path / name, slot=slot)

        return session((name, *slot.key), make).request({"job": "x"}, timeout_s=30)["pid"]

    one, other = (Slot(Machine(launcher="env"), tmp_path, index) for index in range(2))
    pid, elsewhere = ask("deepmd", one), ask("deepmd", other)
    assert ask("deepmd", one) == pid
    second = ask("reference", one)
    assert [is_alive(x) for x in (pid, second, elsewhere)] == [False, True, True]
    run_command(["true"], tmp_path, log=tmp_path / "log", timeout_s=9, slot=one)
    assert not is_alive(second)
    here = Slot(Machine(), tmp_path)
    pid = ask("deepmd", here)
    ask("reference", here)
    run_command(["true"], tmp_path, log=tmp_path / "log", timeout_s=9, slot=here)
    assert is_alive(pid), "without a launcher nobody has to leave"


def test_sessions_of_another_place_are_others(tmp_path):
    here = Slot(Machine(gpus=()), tmp_path)
    assert here.key == Slot(Machine(gpus=(), name="other"), tmp_path).key
    others = (Machine(gpus=(0,)), Machine(gpus=(), launcher="env"), Machine(gpus=(), environment={"A": "1"}))
    assert len({here.key, *(Slot(other, tmp_path).key for other in others)}) == 4


@pytest.mark.skipif(process._setpriv() is None, reason="no setpriv of util-linux")
@pytest.mark.parametrize("launcher", [None, "LAUNCHER"], ids=["alone", "launched"])
def test_a_command_does_not_outlive_a_killed_driver(tmp_path, launched, launcher):
    driver = f"""
        from pathlib import Path
        from activelearn.config import Machine
        from activelearn.engines.process import Slot, run_command
        here = Path({str(tmp_path)!r})
        slot = Slot(Machine(launcher={launcher and launched.machine.launcher!r}), here)
        run_command(["sh", "-c", "echo $$ > pid; exec sleep 60"], here, log=here / "log", timeout_s=99, slot=slot)
    """
    parent = subprocess.Popen(python(driver), start_new_session=True)
    wait_until(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text(), 20.0)
    pid = int((tmp_path / "pid").read_text())
    assert is_alive(pid)
    parent.kill()
    parent.wait()
    wait_until(lambda: not is_alive(pid), 2.0)


def test_without_setpriv_commands_run_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_setpriv", lambda: None)
    assert run_command(["sh", "-c", "exit 5"], tmp_path, log=tmp_path / "log", timeout_s=9).return_code == 5


@pytest.mark.parametrize("reason", ["busybox: unknown option", None])
def test_a_setpriv_that_cannot_do_it_is_not_used(tmp_path, monkeypatch, reason):
    if reason is not None:
        (tmp_path / "setpriv").write_text(f"#!/bin/sh\necho '{reason}'\nexit 1\n")
        (tmp_path / "setpriv").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert process._setpriv.__wrapped__() is None
