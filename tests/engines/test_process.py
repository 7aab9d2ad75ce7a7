"""Commands and sessions: time-outs, missing programs, workers that die, stops, and no orphans after kill -9."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from activelearn.engines import process
from activelearn.engines.process import ONE_THREAD, Session, run_command, session, tail_of, worker_command
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
        ("no-such-program", "no-such-program: no such program - wanted it on the PATH - see: activelearn check"),
        ("noise", "cannot be started"),
    ],
)
def test_a_program_that_is_missing_or_none(tmp_path, monkeypatch, name, sentence):
    (tmp_path / "noise").write_bytes(b"\x7fELFnot")
    (tmp_path / "noise").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(EngineError, match=sentence):
        run_command([name], tmp_path, log=tmp_path / "log", timeout_s=1)


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
print(json.dumps({"ready": True}), flush=True)
n = 0
for line in sys.stdin:
    request = json.loads(line)
    n += 1
    job = request["job"]
    if job == "die":
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), 9)
    if job == "sleep":
        time.sleep(60)
    if job == "garbage":
        print("module loaded: intel", flush=True)
        continue
    if job == "error":
        print(json.dumps({"error": "OSError: boom"}), flush=True)
        continue
    if job == "slowly":
        text = json.dumps({"n": n})
        for character in text + "\\n":
            sys.stdout.write(character)
            sys.stdout.flush()
            time.sleep(0.01)
        continue
    if job == "large":
        print(json.dumps({"data": "x" * 3_000_000}), flush=True)
        continue
    print(json.dumps({"n": n, "pid": os.getpid(), "echo": request.get("text")}), flush=True)
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


def test_what_is_no_answer_is_an_engine_error(worker):
    with pytest.raises(EngineError, match="not an answer: 'module loaded: intel' - wanted JSON only"):
        worker.request({"job": "garbage"}, timeout_s=30)
    assert worker.request({"job": "x"}, timeout_s=30)["n"] == 1


def test_a_worker_that_cannot_start_says_why(tmp_path):
    (tmp_path / "w.py").write_text("import nonsense_module\n")
    with pytest.raises(EngineError) as caught:
        Session([sys.executable, str(tmp_path / "w.py")], log=tmp_path / "log").request({}, timeout_s=30)
    assert "the worker died with return code 1" in str(caught.value)
    assert "No module named 'nonsense_module'" in caught.value.tail[-1]
    (tmp_path / "w.py").write_text("import json; print(json.dumps({'error': 'cannot import deepmd-kit'}))\n")
    with pytest.raises(EngineError, match="cannot import deepmd-kit"):
        Session([sys.executable, str(tmp_path / "w.py")], log=tmp_path / "log").request({}, timeout_s=30)


def test_a_worker_that_does_not_come_up_in_time(tmp_path):
    slow = Session(python("import time; time.sleep(60)"), log=tmp_path / "log", start_timeout_s=0.5)
    with pytest.raises(EngineError, match=r"no answer within 0.5 s"):
        slow.request({}, timeout_s=30)


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


@pytest.mark.parametrize("script", ["ase_worker.py"])
def test_a_killed_driver_leaves_no_orphan(tmp_path, script):
    """kill -9 of the driver, while its worker is idle and while it is in the middle of a job."""
    driver = f"""
        import sys, threading
        from pathlib import Path
        from activelearn.engines.process import Session, worker_command
        worker = Session(worker_command({script!r}, None), log=Path({str(tmp_path)!r}) / "log")
        cell = [[3, 0, 0], [0, 3, 0], [0, 0, 3]]
        one = {{"symbols": ["Cu"], "positions": [[0, 0, 0]], "cell": cell, "pbc": [True] * 3}}
        request = {{"job": "label", "arguments": {{}}, "structure": one}}
        worker.request({{**request, "calculator": "ase.calculators.emt:EMT"}}, timeout_s=60)
        print(worker._process.pid, flush=True)
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
    assert worker_command("ase_worker.py", None)[0] == sys.executable
    command = worker_command("ase_worker.py", "/opt/other/bin/python")
    assert command[0] == "/opt/other/bin/python"
    assert Path(command[1]).is_file()
