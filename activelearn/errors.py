"""The hierarchy of errors: each says what happened, where, what was expected, and what to do next.

The exit code of the command line is a property of the error, so that there is no second table to disagree with it:
0 converged, 1 a fault, 2 bad input, 3 stopped without convergence, 130/143 interrupted.
"""

from __future__ import annotations

import errno
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final


def typed(path: Path | str) -> str:
    """Return a path as it is typed in a shell, for the commands that messages name."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


#: Why nothing can be written to a disk, and what to do about it.
_DISK: Final = {
    errno.ENOSPC: "the disk is full - free some space",
    errno.EDQUOT: "the disk quota is used up - free some space or ask for more",
    errno.EFBIG: "the file exceeds the size limit - raise the limit (ulimit -f)",
    errno.EROFS: "the file system is read-only - mount it writable",
    errno.EACCES: "permission denied - make the folder writable",
    errno.ENOTDIR: "there is a file where a folder is expected - move it away, or choose another path",
    errno.EEXIST: "there is a file where a folder is expected - move it away, or choose another path",
}


def disk_reason(error: OSError) -> str | None:
    """Return why nothing can be written to a disk, and what to do about it; None if the disk is not the cause."""
    return _DISK.get(error.errno or 0)


def one_line(problem: str) -> str:
    """Return a sentence with control characters escaped; indented lines may follow it."""
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f\x85\u2028\u2029]|\n(?!  )", lambda found: ascii(found[0])[1:-1], problem)


class ActiveLearnError(Exception):
    """Base of all errors that a user may see as one sentence instead of a traceback."""

    exit_code: int = 1


class ConfigError(ActiveLearnError):
    """The input is wrong: a campaign, a machine profile, a seed or an argument.

    Parameters
    ----------
    *problems
        One line each, in the form ``where: what - expected - next``.
    """

    exit_code = 2

    def __init__(self, *problems: str) -> None:
        self.problems = tuple(map(one_line, problems))
        super().__init__("\n".join(self.problems))


class StoreError(ActiveLearnError):
    """The campaign folder cannot be used: held by another driver, damaged, or full."""

    def __init__(self, problem: str) -> None:
        super().__init__(one_line(problem))


class Damaged(StoreError):
    """A published file is no longer what was published: changed, truncated, or gone."""

    exit_code = 2


class FolderHeld(StoreError):
    """Another driver holds the lease of the campaign folder."""

    exit_code = 2


class EngineError(ActiveLearnError):
    """Infrastructure failed under an engine (crash, time-out, missing binary): the task is retried, never refused.

    A *physical* failure (NaN, lost atoms, an SCF that does not converge) is not an error: it is a published product.

    Parameters
    ----------
    message
        What happened, in one sentence.
    command
        What was run.
    folder
        Where it ran.
    tail
        The last lines it printed.
    """

    def __init__(
        self, message: str, *, command: Sequence[str] = (), folder: Path | None = None, tail: Sequence[str] = ()
    ) -> None:
        self.command, self.folder, self.tail = tuple(command), folder, tuple(tail)
        lines = [message]
        if command:
            lines.append("  command: " + shlex.join(_shown(word) for word in command))
        if folder is not None:
            lines.append(f"  folder:  {folder}")
        lines += [f"  | {line}" for line in tail]
        super().__init__("\n".join(lines))


def _shown(word: str) -> str:
    """Return a word of a command for a message: of a program in it (``python -c``) the first line."""
    first, newline, _ = word.strip().partition("\n")
    return f"{first} ..." if newline else word


class Unfit(ConfigError):
    """An engine cannot do what it is set to do (no such class, no GPU, no stress ...), which no retry fixes."""


class TaskFailed(ActiveLearnError):
    """A task failed on infrastructure as often as the machine profile allows; the campaign stops here."""


class Interrupted(ActiveLearnError):
    """The user (or the queue) sent a signal to stop; everything finished is published."""

    def __init__(self, signal: int = 2) -> None:
        self.exit_code = 128 + signal
        super().__init__("stopped on request; everything finished is published - continue with the same command")


def problems_of(check: Callable[..., object], given: Iterable[tuple[object, ...]]) -> list[str]:
    """Return the problems of every call that raises a :class:`ConfigError`.

    Parameters
    ----------
    check
        What is called.
    given
        The arguments of each call.
    """
    found: list[str] = []
    for one in given:
        try:
            check(*one)
        except ConfigError as error:
            found += error.problems
    return found
