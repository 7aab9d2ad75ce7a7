"""Outside programs: one-off commands, and sessions (workers that import their heavy libraries once).

The only module that starts processes. Every process is known here, runs in the process group of the driver (so that
``kill -9`` of the group takes all), uses one thread (SevenNet gives identical bits at one thread, not at two), and is
ended when :func:`stop_engines` is called from a signal handler. With a driver that is killed alone all end at once, but
for those that are at a label: they go on to the end of it (see :mod:`activelearn.store.begun`).

A slot may have a launcher, such as ``srun``. What it starts runs elsewhere, under another parent, and ends well only if
the launcher lives to end it (measured with Slurm 22.05: with srun killed by -9 together with its process group, the
step stays on the node until the job ends; SIGTERM to srun kills the step at once). So a launcher has a process group of
its own, is asked before it is killed, and is asked by the kernel should the driver die.
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
#: Several that share a GPU: each takes what it needs instead of all there is.
SHARED_GPU: Final[dict[str, str]] = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
_POLL_S: Final = 0.1
#: Time for a worker to notice, on the other side of a launcher, that there is nobody to answer.
_HANG_UP_S: Final = 1.0
#: Time for a worker to tell that one of its jobs has been killed.
_REAP_S: Final = 10.0
#: What setpriv returns, as shells do, when it could not become the program.
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
        """The words in front of every command, such as those of ``srun``."""
        return shlex.split(self.machine.launcher or "")

    @property
    def environment(self) -> dict[str, str]:
        """The variables of its engines: the machine's, and the GPU whose turn it is."""
        gpus = self.machine.gpus
        n_gpus = 1 if gpus is None else len(gpus)  # what is visible may be one
        shared = SHARED_GPU if 0 < n_gpus < self.machine.n_slots else {}
        return {**shared, **self.machine.environment, **self.own}

    @property
    def own(self) -> dict[str, str]:
        """Those variables in which it differs from its neighbours."""
        gpus = self.machine.gpus
        if gpus is None:
            return {}
        return {"CUDA_VISIBLE_DEVICES": _devices_of_job(gpus)[self.index % len(gpus)] if gpus else ""}

    @property
    def host(self) -> Slot:
        """The slot that keeps a session which all slots of a node share: the first, with a launcher each its own."""
        return self if self.launcher else replace(self, index=0)

    @property
    def key(self) -> tuple[str, ...]:
        """What sessions are kept by: a slot of the same index may be elsewhere at another station."""
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
    """End all engines now; tasks that wait for them raise Interrupted. Safe to call in a signal handler.

    A launcher is asked to end what it started; the thread that waits for it kills it after the grace.
    """
    _halt.set()
    for engine in list(_living):
        engine.stop()


def is_stopping() -> bool:
    """Return whether :func:`stop_engines` was called."""
    return _halt.is_set()


def allow_engines() -> None:
    """Forget an earlier stop (a new run in the same process)."""
    _halt.clear()


def check_stop() -> None:
    """Raise Interrupted if the run is to stop."""
    if _halt.is_set():
        raise Interrupted


def tail_of(path: Path, n_lines: int = 20) -> list[str]:
    """Return the last lines of a log, without the loader noise that every engine prints."""
    if not path.is_file():
        return []
    noise = ("libcudart", "implib-gen", "absl::InitializeLog", "oneDNN custom operations", "cuda")
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 64_000))
        lines = stream.read().decode(errors="replace").splitlines()
    return [line for line in lines if line.strip() and not any(word in line for word in noise)][-n_lines:]


class _Engine:
    """A process that runs, and how it is ended."""

    def __init__(self, process: subprocess.Popen[Any], slot: Slot | None) -> None:
        self.process = process
        self.is_launched = slot is not None and bool(slot.launcher)
        self._grace_s = _grace_s(slot)

    @cached_property
    def answers(self) -> Answers:
        """What it answers, if it is a worker."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        return Answers(self.process.stdin, self.process.stdout)

    def stop(self) -> None:
        """End it without waiting, also in a signal handler."""
        with contextlib.suppress(OSError):
            if self.is_launched:
                self.process.terminate()
            else:
                self.process.kill()

    def end(self, *, asking: bool = False) -> None:
        """End it and wait for that; a launcher is always asked first."""
        process = self.process
        if (
            self.is_launched and process.stdin is not None
        ):  # a worker ends with its requests, and srun does not complain
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
        if process.stdin is not None:  # its standard output is closed by who reads it
            with contextlib.suppress(OSError):
                process.stdin.close()
        _living.discard(self)


def _grace_s(slot: Slot | None) -> float:
    return (Machine() if slot is None else slot.machine).grace_s


def _overdue(timeout_s: float, slot: Slot | None) -> str:
    return (
        f"{timeout_s:g} s - raise the time-out in the machine profile if it wants more (it was sent SIGTERM, to be "
        f"followed by SIGKILL after {_grace_s(slot):g} s of grace)"
    )


@cache
def _setpriv() -> str | None:
    """Return the path of util-linux's setpriv, if there is one here that works."""
    path = shutil.which("setpriv")
    if path is None:
        return None
    trial = subprocess.run([path, "--pdeathsig", "KILL", "--", "true"], capture_output=True, check=False)
    return path if trial.returncode == 0 else None


@dataclass(frozen=True)
class _Program:
    """What is to be started: words, where, and with which variables."""

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
        """Start it as a command, which ends with the thread that waits for it, even if that is killed by -9.

        One that is lasting sees to its own end; under a launcher none is.
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
        near = {"PYTHONSAFEPATH": ""}  # a worker imports its neighbours
        env = {**os.environ, **near, **ONE_THREAD, **(self.slot.environment if self.slot else {}), **self.env}
        if shutil.which(words[0], path=env.get("PATH")) is None:
            raise EngineError(
                f"{words[0]}: no such program - wanted it on the PATH - correct its name, or install it", command=words
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
            except OSError as error:  # not a program, no memory for a fork ...
                raise self.not_started(str(error)) from error
        engine = _Engine(process, self.slot)
        _living.add(engine)
        if _halt.is_set():  # the stop came between the check and the start
            engine.stop()
        return engine

    def not_started(self, why: str) -> EngineError:
        """Return the error of a program that is there and cannot be run."""
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
        Where its output goes (appended).
    timeout_s
        Wall-clock limit, s; past it SIGTERM, and SIGKILL after the machine's grace.
    env
        Variables on top of ours and of the slot's.
    slot
        Whose launcher starts it; None: it runs right here, with our variables.

    Raises
    ------
    EngineError
        The program is missing or exceeded its time.
    Interrupted
        The run is to stop.
    """
    return _run(_Program(list(command), folder, log, env or {}, slot), timeout_s)


def run_lasting(command: Sequence[str], folder: Path, *, log: Path, timeout_s: float, slot: Slot) -> Finished:
    """Run a program to its end, as :func:`run_command` does; if we alone are killed it goes on, and ends by itself."""
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
    """A persistent worker process that answers JSON lines; it pays for its imports once.

    Several threads may ask it; whether it does several jobs at a time is the worker's affair (see
    :class:`activelearn.engines.answers.Answers` for the lines).

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
    slot
        Whose launcher starts it; None: it runs right here, with our variables.
    ends_jobs
        Whether the worker sends a job a signal if it is asked to (``{"end": id, "signal": number}``), so that it need
        not end itself when a job is past its time.
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
        """Send one request and wait for its answer; the worker is started if it is not there.

        Raises
        ------
        EngineError
            The worker died, did not answer in time, or reported an error of its own (``error`` in the answer).
        Interrupted
            The run is to stop.
        """
        engine = self._started()
        with engine.answers.asked(message) as number:
            answer = self._answer(engine, number, timeout_s)
        if "error" in answer:
            raise EngineError(str(answer["error"]), command=self.command, tail=answer.get("tail", tail_of(self.log)))
        return answer

    @property
    def pid(self) -> int | None:
        """The process of the worker, or of its launcher; None: there is none that lives."""
        engine = self._engine
        return None if engine is None or engine.process.poll() is not None else engine.process.pid

    def close(self, *, asking: bool = False) -> None:
        """End the worker; `asking` grants it the machine's grace."""
        with self._lock:
            if self._engine is not None:
                self._drop(self._engine, asking=asking)

    def _drop(self, engine: _Engine, *, asking: bool = False) -> None:
        """End a worker, which may have been replaced by now."""
        with self._lock:
            if self._engine is engine:
                self._engine = None
        engine.end(asking=asking)

    def _started(self) -> _Engine:
        """Return the worker, a new one if there is none that lives; all that come meanwhile wait for it.

        They share its error, too: one after the other, each would wait for as long as a start may take.
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
            f"not an answer: {said!r} - wanted JSON only on the standard output of the worker (a wrapper or a start-up "
            "file that prints?)"
        )

    def _has_ended(self, engine: _Engine, number: int) -> bool:
        """Have the worker end one of its jobs, which is asked before it is killed; return whether that was done."""
        for word, patience_s in ((signal.SIGTERM, _grace_s(self.slot)), (signal.SIGKILL, _REAP_S)):
            if not engine.answers.send({"end": number, "signal": int(word)}, patience_s=patience_s):
                return False
            with contextlib.suppress(TimeoutError):
                return engine.answers.wait(number, patience_s, _halt) is not None
        return False

    def _error(self, what: str) -> EngineError:
        return EngineError(what, command=self.command, tail=tail_of(self.log))


def session(key: tuple[str, ...], make: Callable[[], Session]) -> Session:
    """Return the session of `key`, made on first use; it lives until :func:`close_sessions`."""
    with _lock:
        if key not in _sessions:
            _sessions[key] = make()
        return _sessions[key]


def _vacate(slot: Slot | None) -> None:
    """End the sessions of a slot with a launcher before it starts something else.

    Slurm gives a step its CPU for as long as the step lives: with an idle session in every slot, a second one, or a
    command, would wait for ever.
    """
    if slot is None or not slot.launcher:
        return
    with _lock:
        idle = [one for one in _sessions.values() if one.slot is not None and one.slot.index == slot.index]
    for one in idle:
        one.close()


def close_sessions(role: str | None = None) -> None:
    """End all sessions of this process, or those whose key begins with a role."""
    with _lock:
        _closings[role] += 1
        closing = [_sessions.pop(key) for key in [*_sessions] if role in {None, key[0]}]
    for one in closing:  # not with the lock: who starts a session takes its lock first, and then this one
        one.close()


def lives(role: str, slot: Slot) -> tuple[int, ...]:
    """Return what is another once the sessions of a role were closed, or a worker of the slot is another."""
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
    """End the engines on SIGINT or SIGTERM; the list holds the signal that came. A second one ends this process."""
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
