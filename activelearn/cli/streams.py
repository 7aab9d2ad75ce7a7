"""Standard output and error: in any encoding, closed, or on a full disk.

Output must not end a campaign. A command that works in a folder continues when its output can no longer be
written (a `tee` that ended, a closed terminal, a full disk), and says so once on standard error. A command
whose only result is its output ends at once: quietly if nobody reads it, as `cat` does, else with a message.
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

#: Replacements for characters that the encoding lacks.
_PLAIN: Final = {"Å": "A", "°": " deg", "±": "+-", "³": "3", "→": "->", "█": "#", "░": ".", "…": "..."}
#: Exit code of a command whose reader has gone: that of a program ended by SIGPIPE.
_UNREAD: Final = 141


class _Outlet(io.FileIO):
    """A stream that discards what is written to it after it has failed once.

    Attributes
    ----------
    is_all
        Whether the printed output is the only result of the command.
    """

    is_all = False
    _has_failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Write, or end a command whose only result is its output."""
        size = memoryview(data).nbytes
        if self._has_failed:
            return size
        try:
            while (written := super().write(data)) is None:  # a non-blocking pipe that is full
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
        if self.fileno() == 1:  # a failure of stderr cannot be reported
            what = "is closed" if is_unread else f"cannot be written ({error.strerror})"
            if self.is_all:
                print(
                    f"error: standard output: {what} - expected a writable output - choose another",
                    file=sys.stderr,
                )
                sys.exit(1)
            print(f"standard output {what}: output from now on is lost, and nothing else", file=sys.stderr)


def prepare() -> None:
    """Replace the standard streams by ones that never stop a command by themselves; call this once, first."""
    for descriptor in range(3):  # else the next file opened would take its number and be printed to
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    codecs.register_error("plain", _plain)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if (stream := getattr(sys, name)) is getattr(sys, f"__{name}__"):  # None where it was closed from the start
            setattr(sys, name, _opened(descriptor, stream))


def _opened(descriptor: int, before: TextIO | None) -> TextIO:
    encoding = before.encoding if before is not None else "utf-8"
    by_line = before is None or bool(before.line_buffering)
    outlet = io.BufferedWriter(_Outlet(descriptor, "w", closefd=False))
    return io.TextIOWrapper(outlet, encoding=encoding, errors="plain", line_buffering=by_line)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII replacements for what the terminal encoding lacks; an error handler of codecs."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    known = "".join(_PLAIN.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in text)
    return known, error.end


def is_all() -> None:
    """Make this command end as soon as its output cannot be written, since it does nothing else."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _Outlet):
        raw.is_all = True


def flush() -> None:
    """Write buffered output; the last chance to report that it cannot be written."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
