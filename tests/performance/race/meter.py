"""What a command and all its descendants cost, those that daemonise too: CPU seconds, wall time, peak memory.

This process becomes the *child subreaper* (prctl(2)): a process whose parent has ended is handed to it and not to init,
so that none escapes the count. CPU time is user + system time of what has ended, from getrusage(2), and of what lives,
from /proc. Memory is the sum of the proportional set sizes (PSS), which counts shared pages once.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: prctl(2): PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG.
SUBREAPER, PDEATHSIG = 36, 1
EVERY_S = 0.5
#: Descendants may end by themselves for so long after the command has.
PATIENCE_S = 20.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """What a command cost.

    Parameters
    ----------
    exit_code
        Of the command; negative: the signal that ended it.
    began, ended
        Unix times.
    cpu_s
        User and system time of the command and all its descendants.
    series
        Rows of Unix time, CPU s since the start, sum of proportional set sizes in MB.
    """

    exit_code: int
    began: float
    ended: float
    cpu_s: float
    series: list[tuple[float, float, float]]

    @property
    def peak_MB(self) -> float:
        """Largest sum of proportional set sizes, MB."""
        return self.peak_until(self.series[-1][0])

    def peak_until(self, moment: float) -> float:
        """Return the same up to a Unix time."""
        return max((MB for at, _, MB in self.series if at <= moment), default=0.0)

    @property
    def wall_s(self) -> float:
        """Wall time, s."""
        return self.ended - self.began

    def cpu_at(self, moment: float) -> float:
        """Return the CPU s from the start to a Unix time, interpolated."""
        before = (self.began, 0.0)
        for at, cpu_s, _ in self.series:
            if at >= moment:
                share = (moment - before[0]) / (at - before[0]) if at > before[0] else 1.0
                return before[1] + max(0.0, share) * (cpu_s - before[1])
            before = (at, cpu_s)
        return before[1]

    def cpu_between(self, begin: float, end: float) -> float:
        """Return the CPU s between two Unix times."""
        return self.cpu_at(end) - self.cpu_at(begin)


def measure(
    command: Sequence[str],
    *,
    folder: Path,
    log: Path,
    environment: Mapping[str, str] | None = None,
    until: Callable[[], bool] = lambda: False,
) -> Measured:
    """Run a command and return what it cost.

    Parameters
    ----------
    command
        Program and arguments.
    folder
        Where it runs.
    log
        Gets its output.
    environment
        Variables in addition to those of this process.
    until
        Asked twice a second; once it says yes, the command is ended (SIGTERM), and then what it has left.

    An exception, as by Ctrl-C, ends all of it at once; a kill of this process ends the command, but not its daemons.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    spent_before, began = _ended_s(), time.time()
    with log.open("ab") as stream:
        main = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdout=stream,
            stderr=stream,
            preexec_fn=lambda: libc.prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0),  # noqa: PLW1509 - there is one thread
        )
    try:
        series, ended = _watched(main, spent_before, until)
    finally:
        while living := _below(os.getpid()):  # none unless it was interrupted
            _signal(living, signal.SIGKILL)
            _reap(main.pid)
            time.sleep(0.01)
    return Measured(main.returncode, began, ended, _ended_s() - spent_before, series)


def _watched(
    main: subprocess.Popen[bytes], spent_before: float, until: Callable[[], bool]
) -> tuple[list[tuple[float, float, float]], float]:
    """Watch a command until it and all its descendants have ended; return the series, and when it ended itself."""
    series: list[tuple[float, float, float]] = []
    ended = stopped = None
    while True:
        if (exit_code := _reap(main.pid)) is not None:
            main.returncode, ended = exit_code, time.time()
        living = _below(os.getpid())
        series.append((time.time(), _ended_s() - spent_before + sum(living.values()), sum(map(_pss_MB, living))))
        if ended is not None and not living:
            return series, ended
        if ended is None and stopped is None and until():
            stopped = time.time()
            main.terminate()
        _end_left_overs(living, since=ended or stopped, is_asked=ended is not None and stopped is not None)
        time.sleep(EVERY_S)


def _end_left_overs(living: Mapping[int, float], *, since: float | None, is_asked: bool) -> None:
    """End what lives on after the command: at once if it was to be ended, without mercy when the patience is over."""
    if since is not None and time.time() - since > PATIENCE_S:
        _signal(living, signal.SIGKILL)
    elif is_asked:
        _signal(living, signal.SIGTERM)


def _reap(main: int) -> int | None:
    """Collect whatever has ended; return the exit code of the command if it is among it."""
    exit_code = None
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[0] == main:
                exit_code = os.waitstatus_to_exitcode(found[1])
    return exit_code


def _ended_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _below(ancestor: int) -> dict[int, float]:
    """Return the CPU s of each living descendant, with those of its own children that it has waited for."""
    children: dict[int, list[tuple[int, float]]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                words = (entry / "stat").read_text().rpartition(")")[2].split()
                spent_s = sum(map(int, words[11:15])) / TICKS_PER_S
                children.setdefault(int(words[1]), []).append((int(entry.name), spent_s))
    found, waiting = {}, [ancestor]
    while waiting:
        for pid, spent_s in children.get(waiting.pop(), []):
            found[pid] = spent_s
            waiting.append(pid)
    return found


def _pss_MB(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024.0
    return 0.0


def _signal(pids: Mapping[int, float], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
