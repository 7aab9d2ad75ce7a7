"""Standard output and error: in any encoding, closed, or on a full disk.

What prints is no reason for a campaign to end. A command that works in a folder goes on when its output cannot be
written any more (a `tee` that ended, a closed terminal, a full disk), and says so once on standard error. A command
whose output is all that it gives ends at once: quietly if nobody reads on, as `cat` does, else with a sentence.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: How signs are written where the encoding has none for them.
_PLAIN: Final = {"Å": "A", "°": " deg", "±": "+-", "³": "3", "→": "->", "█": "#", "░": ".", "…": "..."}
#: Exit code of a command whose reader has gone: that of a program that SIGPIPE ends.
_UNREAD: Final = 141


class _Outlet(io.FileIO):
    """A stream that takes what is written for written when it has failed once.

    Attributes
    ----------
    is_all
        Whether what is printed is all that the command gives.
    """

    is_all = False
    _has_failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Write, or end a command whose output this is all about."""
        size = memoryview(data).nbytes
        if self._has_failed:
            return size
        try:
            while (written := super().write(data)) is None:  # a pipe that does not block, and is full
                select.select([], [self], [])
        except OSError as error:
            self._has_failed = True
            self._told(error)
            return size
        return written

    def _told(self, error: OSError) -> None:
        is_unread = error.errno == errno.EPIPE
        if self.is_all and is_unread:
            sys.exit(_UNREAD)
        if self.fileno() == 1:  # of the other one there is nowhere to say it
            what = "is closed" if is_unread else f"cannot be written ({error.strerror})"
            if self.is_all:
                print(
                    f"error: standard output: {what} - wanted a place for what is printed - choose another",
                    file=sys.stderr,
                )
                sys.exit(1)
            print(f"standard output {what}: what is printed from now on is lost, and nothing else", file=sys.stderr)


def prepare() -> None:
    """Make the standard streams ones that never stop a command by themselves; call it once, first of all."""
    for descriptor in range(3):  # a file that took the number of one would be printed into
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    codecs.register_error("plain", _plain)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if (stream := getattr(sys, name)) is getattr(sys, f"__{name}__"):  # none, where it was closed from the first
            setattr(sys, name, _opened(descriptor, stream))


def _opened(descriptor: int, before: TextIO | None) -> TextIO:
    encoding = before.encoding if before is not None else "utf-8"
    by_line = before is None or bool(before.line_buffering)
    outlet = io.BufferedWriter(_Outlet(descriptor, "w", closefd=False))
    return io.TextIOWrapper(outlet, encoding=encoding, errors="plain", line_buffering=by_line)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Return in plain words what the encoding of a terminal lacks, as an error handler of codecs."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    known = "".join(_PLAIN.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in text)
    return known, error.end


def is_all() -> None:
    """Have this command end as soon as what it prints cannot be written: it does nothing else."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _Outlet):
        raw.is_all = True


def flush() -> None:
    """Write what is printed and waits; the last chance to say that it cannot be written."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
