"""JSON lines to a worker and back: several threads send requests, and each waits for its own answer."""

from __future__ import annotations

import contextlib
import itertools
import json
import select
import threading
import time
from collections.abc import Iterator, Mapping
from queue import Empty, SimpleQueue
from typing import IO, Any, Final

_POLL_S: Final = 0.1


class Answers:
    """The pending answers of a running worker.

    Each request has a number (``id``), which its answer repeats; the first line, which reports readiness, has 0.

    Parameters
    ----------
    requests, answers
        Standard input and output of the worker; the output is read by a dedicated thread, which closes it.
    """

    def __init__(self, requests: IO[bytes], answers: IO[bytes]) -> None:
        self._requests, self._answers = requests, answers
        self._waiting: dict[int, SimpleQueue[dict[str, Any] | None]] = {0: SimpleQueue()}
        self._numbers = itertools.count(1)
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._have_ended = False
        #: Output that was not an answer, after which nothing is read.
        self.nonsense: str | None = None
        threading.Thread(target=self._read, name="answers", daemon=True).start()

    @contextlib.contextmanager
    def asked(self, message: Mapping[str, Any]) -> Iterator[int]:
        """Send a request; yield the number of its answer, to be awaited within the block."""
        number = next(self._numbers)
        with self._lock:
            self._waiting[number] = SimpleQueue()
            if self._have_ended:
                self._waiting[number].put(None)
        try:
            self.send({**message, "id": number})
            yield number
        finally:
            with self._lock:
                del self._waiting[number]

    def send(self, message: Mapping[str, Any], *, patience_s: float | None = None) -> bool:
        """Write one line. A dead worker is detected when waiting for an answer.

        A worker that does not read, since it is loading, can have as many pending requests as its pipe holds. With
        `patience_s`, which is meant for short lines, waiting is limited; return whether the line was written.
        """
        line = json.dumps(message).encode() + b"\n"
        if not self._sending.acquire(timeout=-1 if patience_s is None else patience_s):
            return False
        try:
            if patience_s is not None and not self._has_room(patience_s):
                return False
            self._requests.write(line)
            self._requests.flush()
        except (OSError, ValueError):  # ValueError: it has been closed
            self._end()
        finally:
            self._sending.release()
        return True

    def _has_room(self, patience_s: float) -> bool:
        poll = select.poll()
        poll.register(self._requests, select.POLLOUT)
        return bool(poll.poll(1000.0 * patience_s))

    def wait(self, number: int, timeout_s: float, stop: threading.Event) -> dict[str, Any] | None:
        """Return an answer, or None if there will be none, since the worker has died or `stop` is set.

        Raises
        ------
        TimeoutError
            There was no answer in time.
        """
        deadline = time.monotonic() + timeout_s
        while not stop.is_set():
            with contextlib.suppress(Empty):
                return self._waiting[number].get(timeout=_POLL_S)
            if time.monotonic() > deadline:
                raise TimeoutError
        return None

    def _read(self) -> None:
        """Pass each answer to the waiting thread, until the worker closes its output."""
        with self._answers:
            for line in self._answers:
                if not line.endswith(b"\n"):  # it was killed while writing
                    break
                try:
                    answer = dict(json.loads(line))
                    number = answer.pop("id")
                except (ValueError, TypeError, KeyError):
                    self.nonsense = line[:200].decode(errors="replace").rstrip("\n")
                    break
                with self._lock:
                    if number in self._waiting:  # answers that come too late are dropped
                        self._waiting[number].put(answer)
        self._end()

    def _end(self) -> None:
        with self._lock:
            self._have_ended = True
            for one in self._waiting.values():
                one.put(None)
