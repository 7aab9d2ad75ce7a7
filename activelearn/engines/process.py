"""Outside programs: one-off commands, and sessions (workers that import their heavy libraries once).

The only module that starts processes. Every process is tracked here, runs in the process group of the driver (so that
``kill -9`` of the group takes all), uses one thread (SevenNet is bitwise reproducible with one, not with two), and is
ended when :func:`stop_engines` is called from a signal handler. If only the driver is killed, all end at once, except
those that are computing a label, which they complete (see :mod:`activelearn.store.begun`).

A slot may have a launcher, such as ``srun``. What it starts runs elsewhere, under another parent, and ends well only if
the launcher is alive to end it (measured with Slurm 22.05: with srun killed by -9 together with its process group, the
step stays on the node until the job ends; SIGTERM to srun kills the step at once). So it has its own process group,
gets SIGTERM before SIGKILL, and gets SIGTERM from the kernel if the driver dies.
"""

from __future__ import annotations

import contextlib
import copy
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

from activelearn.config import Machine
from activelearn.engines.answers import Answers
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
#: For processes that share a GPU: each allocates what it needs instead of everything.
SHARED_GPU: Final[dict[str, str]] = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
_POLL_S: Final = 0.1
#: Time for a worker behind a launcher to notice that its driver is gone.
_HANG_UP_S: Final = 1.0
#: Time for a worker to report that one of its jobs has been killed.
_REAP_S: Final = 10.0
#: Return code of setpriv, as of shells, if it cannot execute the program.
_NOT_EXECUTED: Final = (126, 127)
_halt = threading.Event()
_living: set[_Engine] = set()
_sessions: dict[tuple[str, ...], Session] = {}
_closings: Final[Counter[str | None]] = Counter()  # how often sessions were closed, by role
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
        0 ... n_slots - 1.
    """

    machine: Machine
    logs: Path
    index: int = 0

    @property
    def launcher(self) -> list[str]:
        """The words in front of every command, such as ``srun`` with options."""
        return shlex.split(self.machine.launcher or "")

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of its engines: the machine's, and its GPU."""
        gpus = self.machine.gpus
        n_gpus = 1 if gpus is None else len(gpus)  # there may be one visible
        shared = SHARED_GPU if 0 < n_gpus < self.machine.n_slots else {}
        return {**shared, **self.machine.environment, **self.own}

    @property
    def own(self) -> dict[str, str]:
        """The variables in which it differs from other slots."""
        gpus = self.machine.gpus
        if gpus is None:
            return {}
        return {"CUDA_VISIBLE_DEVICES": _devices_of_job(gpus)[self.index % len(gpus)] if gpus else ""}

    @property
    def host(self) -> Slot:
        """The slot that keeps a session shared by all slots of a node: the first; with a launcher, each its own."""
        return self if self.launcher else replace(self, index=0)

    @property
    def key(self) -> tuple[str, ...]:
        """Key of sessions: a slot with the same index may be elsewhere at another station."""
        return (str(self.index), *self.launcher, *(f"{name}={value}" for name, value in self.environment.items()))


def _devices_of_job(gpus: Sequence[int]) -> list[str]:
    """Return the devices that a profile numbers, as this job may name them.

    A batch system that does not hide the GPUs of other jobs says in CUDA_VISIBLE_DEVICES which are ours (``2,3``, or
    ``GPU-8f...``), and a profile counts them from 0: the first of them is ours then, and not the first of the node.
    """
    ours = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    named = [str(gpu) for gpu in gpus]
    if set(named) <= set(ours) or max(gpus) >= len(ours):
        return named
    return [ours[gpu] for gpu in gpus]


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    return_code: int
    tail: list[str] = field(default_factory=list)


def stop_engines() -> None:
    """End all engines now; tasks waiting for them raise Interrupted. Safe to call in a signal handler.

    A launcher is asked to end what it started; the thread that waits for it kills it after the grace period.
    """
    _halt.set()
    for engine in list(_living):
        engine.stop()


def is_stopping() -> bool:
    """Return whether :func:`stop_engines` was called."""
    return _halt.is_set()


def allow_engines() -> None:
    """Reset an earlier stop (for a new run in the same process)."""
    _halt.clear()


def check_stop() -> None:
    """Raise Interrupted if a stop was requested."""
    if _halt.is_set():
        raise Interrupted


def tail_of(path: Path, n_lines: int = 20) -> list[str]:
    """Return the last lines of a log, without the loader messages that every engine prints."""
    if not path.is_file():
        return []
    noise = ("libcudart", "implib-gen", "absl::InitializeLog", "oneDNN custom operations", "cuda")
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 64_000))
        lines = stream.read().decode(errors="replace").splitlines()
    return [line for line in lines if line.strip() and not any(word in line for word in noise)][-n_lines:]


class _Engine:
    """A running process, and how to end it."""

    def __init__(self, process: subprocess.Popen[Any], slot: Slot | None) -> None:
        self.process = process
        self.is_launched = slot is not None and bool(slot.launcher)
        self._grace_s = _grace_s(slot)

    @cached_property
    def answers(self) -> Answers:
        """Its answers, if it is a worker."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        return Answers(self.process.stdin, self.process.stdout)

    def stop(self) -> None:
        """End it without waiting; safe in a signal handler."""
        with contextlib.suppress(OSError):
            if self.is_launched:
                self.process.terminate()
            else:
                self.process.kill()

    def end(self, *, asking: bool = False) -> None:
        """End it and wait; a launcher always gets SIGTERM first."""
        process = self.process
        if (
            self.is_launched and process.stdin is not None
        ):  # a worker ends when its input closes, without errors from srun
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                process.stdin.close()
                process.wait(_HANG_UP_S)
        if process.poll() is None and (asking or self.is_launched):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self._grace_s)
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdin is not None:  # its standard output is closed by its reader
            with contextlib.suppress(OSError):
                process.stdin.close()
        _living.discard(self)


def _grace_s(slot: Slot | None) -> float:
    return (Machine() if slot is None else slot.machine).grace_s


def _overdue(timeout_s: float, slot: Slot | None) -> str:
    return (
        f"{timeout_s:g} s - raise the time-out in the machine profile if it needs more (it was sent SIGTERM, to be "
        f"followed by SIGKILL after {_grace_s(slot):g} s)"
    )


@cache
def _setpriv() -> str | None:
    """Return the path of a working setpriv of util-linux, if there is one."""
    path = shutil.which("setpriv")
    if path is None:
        return None
    trial = subprocess.run([path, "--pdeathsig", "KILL", "--", "true"], capture_output=True, check=False)
    return path if trial.returncode == 0 else None


@dataclass(frozen=True)
class _Program:
    """What to start: words, folder, environment variables."""

    command: list[str]
    folder: Path
    log: Path
    env: Mapping[str, str]
    slot: Slot | None
    is_lasting: bool = False

    @property
    def launcher(self) -> list[str]:
        return [] if self.slot is None else self.slot.launcher

    def run(self) -> _Engine:
        """Start it as a command, which ends with the thread that waits for it, even after kill -9.

        A lasting command ends by itself; under a launcher there are none.
        """
        setpriv = None if self.is_lasting and not self.launcher else _setpriv()
        how = [] if setpriv is None else [setpriv, "--pdeathsig", "TERM" if self.launcher else "KILL", "--"]
        return self._start(how, stdin=subprocess.DEVNULL, stdout=None)

    def serve(self) -> _Engine:
        """Start it as a worker, which ends when its standard input does."""
        return self._start([], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def _start(self, how: Sequence[str], *, stdin: int, stdout: int | None) -> _Engine:
        check_stop()
        words = [*self.launcher, *self.command]
        near = {"PYTHONSAFEPATH": ""}  # a worker imports modules next to it
        env = {**os.environ, **near, **ONE_THREAD, **(self.slot.environment if self.slot else {}), **self.env}
        if shutil.which(words[0], path=env.get("PATH")) is None:
            raise EngineError(
                f"{words[0]}: no such program - expected it on the PATH - correct its name, or install it",
                command=words,
            )
        with self.log.open("ab") as stream:
            try:
                process = subprocess.Popen(
                    [*how, *words],
                    cwd=self.folder,
                    env=env,
                    stdin=stdin,
                    stdout=stream if stdout is None else stdout,
                    stderr=stream,
                    start_new_session=bool(self.launcher),
                )
            except OSError as error:  # not executable, no memory for a fork ...
                raise self.not_started(str(error)) from error
        engine = _Engine(process, self.slot)
        _living.add(engine)
        if _halt.is_set():  # a stop came between check and start
            engine.stop()
        return engine

    def not_started(self, why: str) -> EngineError:
        """Return the error for a program that exists but cannot be run."""
        return EngineError(f"{self.command[0]}: cannot be started ({why})", command=self.command, folder=self.folder)


def run_command(
    command: Sequence[str],
    folder: Path,
    *,
    log: Path,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    slot: Slot | None = None,
) -> Finished:
    """Run a program to its end.

    Parameters
    ----------
    command
        Program and arguments.
    folder
        Working directory.
    log
        File to which its output is appended.
    timeout_s
        Wall-clock limit, s; then SIGTERM, and SIGKILL after the machine's grace period.
    env
        Environment variables in addition to ours and the slot's.
    slot
        Slot whose launcher starts it; None: it runs here, with our variables.

    Raises
    ------
    EngineError
        The program is missing or exceeded its time.
    Interrupted
        A stop was requested.
    """
    return _run(_Program(list(command), folder, log, env or {}, slot), timeout_s)


def run_lasting(command: Sequence[str], folder: Path, *, log: Path, timeout_s: float, slot: Slot) -> Finished:
    """Run a program to its end, as :func:`run_command` does; if only we are killed, it continues and ends by itself."""
    return _run(_Program(list(command), folder, log, {}, slot, is_lasting=True), timeout_s)


def _run(program: _Program, timeout_s: float) -> Finished:
    command, folder, log, slot = program.command, program.folder, program.log, program.slot
    _vacate(slot)
    engine = program.run()
    process = engine.process
    try:
        deadline = time.monotonic() + timeout_s
        while process.poll() is None and not _halt.is_set():
            if time.monotonic() > deadline:
                engine.end(asking=True)
                check_stop()
                raise EngineError(
                    f"{command[0]} took more than {_overdue(timeout_s, slot)}",
                    command=command,
                    folder=folder,
                    tail=tail_of(log),
                )
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_S)
        check_stop()
    finally:
        engine.end()
    done = Finished(process.returncode, tail_of(log))
    if done.return_code in _NOT_EXECUTED and done.tail and done.tail[-1].startswith("setpriv: "):
        raise program.not_started(done.tail[-1].removeprefix("setpriv: "))
    return done


class Session:
    """A persistent worker process that answers JSON lines; imports happen once.

    Several threads may use it; whether it runs several jobs in parallel is up to the worker (see
    :class:`activelearn.engines.answers.Answers` for the lines).

    Parameters
    ----------
    command
        Command of the worker.
    log
        File for its standard error.
    env
        Environment variables in addition to ours.
    start_timeout_s
        Time-out of its imports, s.
    slot
        Slot whose launcher starts it; None: it runs here, with our variables.
    ends_jobs
        Whether the worker can signal a job on request (``{"end": id, "signal": number}``), so that it does not have
        to end itself when a job exceeds its time.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        start_timeout_s: float = 600.0,
        slot: Slot | None = None,
        ends_jobs: bool = False,
    ) -> None:
        self.command, self.log, self.slot = list(command), log, slot
        self._env = dict(env or {})
        self._start_timeout_s = start_timeout_s
        self._ends_jobs = ends_jobs
        self._engine: _Engine | None = None
        self._lock = threading.RLock()
        self._failures: list[EngineError] = []  # of starts

    def request(self, message: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """Send one request and wait for its answer; the worker is started if necessary.

        Raises
        ------
        EngineError
            The worker died, did not answer in time, or reported an error (``error`` in the answer).
        Interrupted
            A stop was requested.
        """
        engine = self._started()
        with engine.answers.asked(message) as number:
            answer = self._answer(engine, number, timeout_s)
        if "error" in answer:
            raise EngineError(str(answer["error"]), command=self.command, tail=answer.get("tail", tail_of(self.log)))
        return answer

    @property
    def pid(self) -> int | None:
        """The process of the worker, or of its launcher; None if none is alive."""
        engine = self._engine
        return None if engine is None or engine.process.poll() is not None else engine.process.pid

    def close(self, *, asking: bool = False) -> None:
        """End the worker; `asking` grants it the machine's grace period."""
        with self._lock:
            if self._engine is not None:
                self._drop(self._engine, asking=asking)

    def _drop(self, engine: _Engine, *, asking: bool = False) -> None:
        """End a worker, which may already have been replaced."""
        with self._lock:
            if self._engine is engine:
                self._engine = None
        engine.end(asking=asking)

    def _started(self) -> _Engine:
        """Return the worker, starting a new one if none is alive; other callers wait for it.

        They share its error, too; else each would wait for a whole start time-out in turn.
        """
        n_failures = len(self._failures)
        with self._lock:
            check_stop()
            if len(self._failures) > n_failures:
                raise copy.copy(self._failures[-1])
            if self._engine is None or self._engine.process.poll() is not None:
                self.close()
                try:
                    self._engine = self._start()
                except EngineError as error:
                    self._failures.append(error)
                    raise
            return self._engine

    def _start(self) -> _Engine:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        _vacate(self.slot)
        engine = _Program(self.command, self.log.parent, self.log, self._env, self.slot).serve()
        answer = self._answer(engine, 0, self._start_timeout_s)
        if "error" in answer:
            self._drop(engine)
            raise self._error(str(answer["error"]))
        return engine

    def _answer(self, engine: _Engine, number: int, timeout_s: float) -> dict[str, Any]:
        try:
            answer = engine.answers.wait(number, timeout_s, _halt)
        except TimeoutError:
            if number == 0 or not self._ends_jobs or not self._has_ended(engine, number):
                self._drop(engine, asking=True)
            check_stop()
            raise self._error(f"no answer within {_overdue(timeout_s, self.slot)}") from None
        if answer is not None:
            return answer
        process, said = engine.process, engine.answers.nonsense
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.0 if _halt.is_set() or said is not None else 5.0)
        code = process.returncode
        self._drop(engine)
        check_stop()
        if said is None:
            raise self._error(f"the worker died with return code {code}")
        raise self._error(
            f"not an answer: {said!r} - expected only JSON on the standard output of the worker (a wrapper or a "
            "start-up file that prints?)"
        )

    def _has_ended(self, engine: _Engine, number: int) -> bool:
        """Let the worker end one of its jobs, with SIGTERM before SIGKILL; return whether it did."""
        for word, patience_s in ((signal.SIGTERM, _grace_s(self.slot)), (signal.SIGKILL, _REAP_S)):
            if not engine.answers.send({"end": number, "signal": int(word)}, patience_s=patience_s):
                return False
            with contextlib.suppress(TimeoutError):
                return engine.answers.wait(number, patience_s, _halt) is not None
        return False

    def _error(self, what: str) -> EngineError:
        return EngineError(what, command=self.command, tail=tail_of(self.log))


def session(key: tuple[str, ...], make: Callable[[], Session]) -> Session:
    """Return the session of `key`, created on first use; it lives until :func:`close_sessions`."""
    with _lock:
        if key not in _sessions:
            _sessions[key] = make()
        return _sessions[key]


def _vacate(slot: Slot | None) -> None:
    """End the sessions of a slot with a launcher before it starts something else.

    Slurm reserves a CPU for a step while the step lives: with an idle session in every slot, a second one, or a
    command, would wait forever.
    """
    if slot is None or not slot.launcher:
        return
    with _lock:
        idle = [one for one in _sessions.values() if one.slot is not None and one.slot.index == slot.index]
    for one in idle:
        one.close()


def close_sessions(role: str | None = None) -> None:
    """End all sessions of this process, or those whose key starts with a role."""
    with _lock:
        _closings[role] += 1
        closing = [_sessions.pop(key) for key in [*_sessions] if role in {None, key[0]}]
    for one in closing:  # without the lock: starting a session acquires its lock first, then this one
        one.close()


def lives(role: str, slot: Slot) -> tuple[int, ...]:
    """Return a value that changes when the sessions of a role are closed or a worker of the slot is replaced."""
    with _lock:
        n_closings = _closings[None] + _closings[role]
        sessions = [one for key, one in _sessions.items() if key[0] == role]
    indices = {slot.index, slot.host.index}
    pids = [one.pid for one in sessions if one.slot is not None and one.slot.index in indices]
    return (n_closings, *(pid for pid in pids if pid is not None))


def worker_command(script: str, python: str | None) -> list[str]:
    """Return the command of a script of ``workers/`` (or of a path) in an interpreter (null: this one)."""
    return [python or sys.executable, str(Path(__file__).with_name("workers") / script)]


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[list[int]]:
    """End the engines on SIGINT or SIGTERM; the list holds the signal received. A second one ends this process."""
    caught: list[int] = []

    def stop(number: int, _frame: object) -> None:
        if caught:
            os._exit(128 + number)
        caught.append(number)
        stop_engines()

    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    saved = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)
