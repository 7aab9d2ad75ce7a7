"""Outside programs: one-off commands, and sessions (workers that import their heavy libraries once).

The only module that starts processes. Every process is known here, runs in the process group of the driver (so that
``kill -9`` of the group takes all), uses one thread (SevenNet gives identical bits at one thread, not at two), and is
ended when :func:`stop_engines` is called from a signal handler.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from activelearn.config import Machine
from activelearn.errors import EngineError, Interrupted

#: One thread per worker process, for every threading library that an engine may use.
ONE_THREAD: Final[dict[str, str]] = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_INTRA_OP_PARALLELISM_THREADS": "1",
    "TF_INTER_OP_PARALLELISM_THREADS": "1",
    "DP_INTRA_OP_PARALLELISM_THREADS": "1",
    "DP_INTER_OP_PARALLELISM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}
_POLL_S: Final = 0.1
_halt = threading.Event()
_living: set[subprocess.Popen[Any]] = set()
_sessions: dict[tuple[str, ...], Session] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Slot:
    """A place on the machine where one task runs at a time.

    Parameters
    ----------
    machine
        The machine profile.
    logs
        Folder of the logs of its sessions.
    index
        0 ... n_slots - 1; sessions are kept per slot.
    """

    machine: Machine
    logs: Path
    index: int = 0


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    return_code: int
    tail: list[str] = field(default_factory=list)


def stop_engines() -> None:
    """End all engines now; tasks that wait for them raise Interrupted. Safe to call in a signal handler."""
    _halt.set()
    for process in list(_living):
        with contextlib.suppress(OSError):
            process.kill()


def is_stopping() -> bool:
    """Return whether :func:`stop_engines` was called."""
    return _halt.is_set()


def allow_engines() -> None:
    """Forget an earlier stop (a new run in the same process)."""
    _halt.clear()


def check_stop() -> None:
    """Raise Interrupted if the run is to stop."""
    if _halt.is_set():
        raise Interrupted("stopped on request; everything finished is published - go on with the same command")


def tail_of(path: Path, n_lines: int = 20) -> list[str]:
    """Return the last lines of a log, without the loader noise that every engine prints."""
    if not path.is_file():
        return []
    noise = ("libcudart", "implib-gen", "absl::InitializeLog", "oneDNN custom operations", "cuda")
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 64_000))
        lines = stream.read().decode(errors="replace").splitlines()
    return [line for line in lines if line.strip() and not any(word in line for word in noise)][-n_lines:]


def _start(
    command: Sequence[str],
    folder: Path,
    log: Path,
    env: Mapping[str, str],
    *,
    stdin: int,
    stdout: int | None,
) -> subprocess.Popen[Any]:
    check_stop()
    if shutil.which(command[0]) is None:
        raise EngineError(
            f"{command[0]}: no such program - wanted it on the PATH - see: activelearn check", command=command
        )
    with log.open("ab") as stream:
        try:
            process = subprocess.Popen(
                list(command),
                cwd=folder,
                env={**os.environ, **ONE_THREAD, **env},
                stdin=stdin,
                stdout=stream if stdout is None else stdout,
                stderr=stream,
            )
        except OSError as error:  # not a program, no memory for a fork ...
            raise EngineError(f"{command[0]}: cannot be started ({error})", command=command, folder=folder) from error
    _living.add(process)
    if _halt.is_set():  # the stop came between the check and the start
        process.kill()
    return process


def run_command(
    command: Sequence[str], folder: Path, *, log: Path, timeout_s: float, env: Mapping[str, str] | None = None
) -> Finished:
    """Run a program to its end.

    Parameters
    ----------
    command
        Program and arguments.
    folder
        Working directory.
    log
        Where its output goes (appended).
    timeout_s
        Wall-clock limit, s.
    env
        Variables on top of ours.

    Raises
    ------
    EngineError
        The program is missing or exceeded its time.
    Interrupted
        The run is to stop.
    """
    process = _start(command, folder, log, env or {}, stdin=subprocess.DEVNULL, stdout=None)
    try:
        deadline = time.monotonic() + timeout_s
        while process.poll() is None:
            if time.monotonic() > deadline:
                raise EngineError(
                    f"{command[0]} took more than {timeout_s:g} s - raise the time-out in the machine profile if it "
                    "wants more",
                    command=command,
                    folder=folder,
                    tail=tail_of(log),
                )
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_S)
        check_stop()
        return Finished(process.returncode, tail_of(log))
    finally:
        _end(process)


def _end(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    _living.discard(process)


class Session:
    """A persistent worker process that answers JSON lines; it pays for its imports once.

    Parameters
    ----------
    command
        The worker.
    log
        Where its standard error goes.
    env
        Variables on top of ours.
    start_timeout_s
        Time for its imports, s.
    """

    def __init__(
        self, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, start_timeout_s: float = 600.0
    ) -> None:
        self.command, self.log = list(command), log
        self._env = dict(env or {})
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[Any] | None = None
        self._buffer = b""

    def request(self, message: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """Send one request and wait for its answer; the worker is started if it is not there.

        Raises
        ------
        EngineError
            The worker died, did not answer in time, or reported an error of its own (``error`` in the answer).
        Interrupted
            The run is to stop.
        """
        check_stop()
        if self._process is None or self._process.poll() is not None:
            self._restart()
        answer = self._exchange(message, timeout_s)
        if "error" in answer:
            raise EngineError(str(answer["error"]), command=self.command, tail=answer.get("tail", tail_of(self.log)))
        return answer

    def close(self) -> None:
        """End the worker."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def _restart(self) -> None:
        self.close()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._buffer = b""
        self._process = _start(
            self.command, self.log.parent, self.log, self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        answer = self._read(self._start_timeout_s)
        if "error" in answer:
            self.close()
            raise EngineError(str(answer["error"]), command=self.command, tail=tail_of(self.log))

    def _exchange(self, message: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            self._raise_death()
        return self._read(timeout_s)

    def _read(self, timeout_s: float) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            if _halt.is_set():
                self.close()
                check_stop()
            if time.monotonic() > deadline:
                self.close()
                raise EngineError(
                    f"no answer within {timeout_s:g} s - raise the time-out in the machine profile if it wants more",
                    command=self.command,
                    tail=tail_of(self.log),
                )
            if select.select([descriptor], [], [], _POLL_S)[0]:
                piece = os.read(descriptor, 1 << 20)
                if not piece:
                    self._raise_death()
                self._buffer += piece
        line, self._buffer = self._buffer.split(b"\n", 1)
        try:
            answer: dict[str, Any] = dict(json.loads(line))
        except (ValueError, TypeError) as error:
            self.close()
            said = line[:200].decode(errors="replace")
            raise EngineError(
                f"not an answer: {said!r} - wanted JSON only on the standard output of the worker (a wrapper or a "
                "start-up file that prints?)",
                command=self.command,
                tail=tail_of(self.log),
            ) from error
        return answer

    def _raise_death(self) -> None:
        process = self._process
        assert process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5.0)
        code = process.returncode
        self.close()
        check_stop()
        raise EngineError(f"the worker died with return code {code}", command=self.command, tail=tail_of(self.log))


def session(key: tuple[str, ...], make: Callable[[], Session]) -> Session:
    """Return the session of `key`, made on first use; it lives until :func:`close_sessions`."""
    with _lock:
        if key not in _sessions:
            _sessions[key] = make()
        return _sessions[key]


def close_sessions() -> None:
    """End all sessions of this process."""
    with _lock:
        for one in _sessions.values():
            one.close()
        _sessions.clear()


def worker_command(script: str, python: str | None) -> list[str]:
    """Return the command of a worker script of this folder in an interpreter (null: this one)."""
    return [python or sys.executable, str(Path(__file__).with_name(script))]
