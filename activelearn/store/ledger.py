"""The label ledger: append-only, checksummed, fsynced segments, addressed by content.

A label once paid for is never paid for again. Its key is the hash of the exact float64 structure and the fingerprint
of the reference. Each writer has a segment of its own, so no two processes ever write one file; a record that was cut
off by a kill is recognised by its checksum and ignored. At the end of an iteration the segments of a campaign are
compacted into one (one file per label would break the file budget; one batch at the end would lose labels).

Record: ``b"ALB1" | header length (u4) | payload length (u8) | sha256(header + payload)[:16] | header JSON | payload``,
where the payload is energy, forces and virial as little-endian float64.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from activelearn.frames import Label
from activelearn.store.files import disk_errors, fsync_folder, publish, unique_suffix

_MAGIC: Final = b"ALB1"
#: Segments smaller than this (bytes) are merged by :meth:`Ledger.compact`.
COMPACT_BELOW: Final = 32_000_000
_HEAD: Final = struct.Struct("<4sIQ16s")


@dataclass(frozen=True)
class _Place:
    """Where a record is, and its header."""

    segment: Path
    offset: int
    n_payload: int
    n_atoms: int
    refused: str | None
    started: float
    finished: float


class Ledger:
    """All labels of a folder of segments, as one mapping from key to label.

    Parameters
    ----------
    folder
        The segments; it may be shared by several campaigns.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[str, _Place] = {}
        self._read_to: dict[str, int] = {}
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Look for new records; only what was appended since the last time is read."""
        with self._lock:
            if not self.folder.is_dir():
                return
            for path in sorted(self.folder.glob("*.seg")):
                self._scan(path)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def refusal(self, key: str) -> str | None:
        """Return why this structure has no label, or None if it has one."""
        return self._places[key].refused

    def span(self, key: str) -> tuple[float, float]:
        """Return when its computation started and finished (Unix times; equal if it was adopted)."""
        place = self._places[key]
        return place.started, place.finished

    def __getitem__(self, key: str) -> Label:
        """Read one label (a segment that was compacted meanwhile is looked up anew)."""
        try:
            return self._read(self._places[key])
        except FileNotFoundError:
            fresh = Ledger(self.folder)  # swapped in whole: another thread never sees an empty ledger
            fresh.refresh()
            with self._lock:
                self._places, self._read_to = fresh._places, fresh._read_to
            return self._read(self._places[key])

    def find(self, key: str) -> Label | None:
        """Return one label, or None if there is none."""
        return self[key] if key in self._places else None

    def _read(self, place: _Place) -> Label:
        with place.segment.open("rb") as stream:
            stream.seek(place.offset)
            values = np.frombuffer(stream.read(place.n_payload), dtype="<f8")
        return Label(
            energy=float(values[0]),
            forces=values[1 : 1 + 3 * place.n_atoms].reshape(-1, 3).copy(),
            virial=values[1 + 3 * place.n_atoms :].reshape(3, 3).copy(),
            refused=place.refused,
            started=place.started,
            finished=place.finished,
        )

    def _scan(self, path: Path) -> None:
        offset = self._read_to.get(path.name, 0)
        try:
            if path.stat().st_size <= offset:
                return
            with path.open("rb") as stream:
                for key, place, _, end in _records(stream, path, offset):
                    self._places.setdefault(key, place)
                    offset = end
        except FileNotFoundError:
            return  # compacted between the listing and the reading: its records are in the new segment
        self._read_to[path.name] = offset

    def compact(self, prefix: str) -> None:
        """Merge the segments of one campaign into one and remove the old ones.

        Parameters
        ----------
        prefix
            Of the segment names of this campaign. Nobody may be writing to them (its stations are sealed).
        """
        # A large segment is left as it is, so that a long campaign does not write all its labels anew each time.
        old = [path for path in sorted(self.folder.glob(f"{prefix}*.seg")) if path.stat().st_size < COMPACT_BELOW]
        if len(old) < 2:
            return
        seen: set[str] = set()
        chunks: list[bytes] = []
        for path in old:
            content = path.read_bytes()
            with path.open("rb") as stream:
                for key, _, start, end in _records(stream, path, 0):
                    if key not in seen:
                        seen.add(key)
                        chunks.append(content[start:end])
        # Named so that it comes before all segments of writers: of two records of one key the elder stays the first.
        publish(self.folder / f"{prefix}-00000000T000000-{unique_suffix()}.seg", b"".join(chunks))
        for path in old:
            path.unlink(missing_ok=True)
        fsync_folder(self.folder)


def _records(stream: IO[bytes], path: Path, offset: int) -> Iterator[tuple[str, _Place, int, int]]:
    """Yield (key, place, start, end) of every whole record from `offset` on; what is cut off or damaged is passed over.

    A damaged record costs that record only: the search goes on at the next magic number (and its checksum decides).
    """
    stream.seek(offset)
    content = stream.read()
    at = content.find(_MAGIC)
    while 0 <= at <= len(content) - _HEAD.size:
        _, n_header, n_payload, checksum = _HEAD.unpack_from(content, at)
        begin = at + _HEAD.size
        end = begin + n_header + n_payload
        body = content[begin:end]
        if end > len(content) or hashlib.sha256(body).digest()[:16] != checksum:
            at = content.find(_MAGIC, at + 1)
            continue
        header = json.loads(body[:n_header])
        key = header.pop("key")
        place = _Place(segment=path, offset=offset + begin + n_header, n_payload=n_payload, **header)
        yield key, place, offset + at, offset + end
        at = content.find(_MAGIC, end)


class LedgerWriter:
    """Appends labels to a new segment of its own, one fsync per label; thread-safe.

    Parameters
    ----------
    folder
        The ledger.
    prefix
        Of the segment's name: the campaign it belongs to.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self._folder, self._prefix = folder, prefix
        self._stream: IO[bytes] | None = None
        self._lock = threading.Lock()

    def append(self, key: str, label: Label) -> None:
        """Publish one label; when this returns, it survives any kill."""
        payload = np.concatenate([[label.energy], label.forces.ravel(), label.virial.ravel()]).astype("<f8").tobytes()
        fields: Mapping[str, Any] = asdict(label)
        header = json.dumps(
            {
                "key": key,
                "n_atoms": len(label.forces),
                **{name: fields[name] for name in ("refused", "started", "finished")},
            }
        ).encode()
        checksum = hashlib.sha256(header + payload).digest()[:16]
        record = _HEAD.pack(_MAGIC, len(header), len(payload), checksum) + header + payload
        with self._lock, disk_errors(self._folder):
            if self._stream is None:
                self._stream = self._open()
            try:
                if self._stream.write(record) < len(record):  # unbuffered: a disk that fills up cuts a write short
                    raise OSError(errno.ENOSPC, "a record was cut off")
                os.fsync(self._stream.fileno())
            except OSError:
                # What follows a record that was cut off would never be read: the next label gets a new segment.
                stream, self._stream = self._stream, None
                with contextlib.suppress(OSError):
                    stream.close()
                raise

    def _open(self) -> IO[bytes]:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._prefix}-{time.strftime('%Y%m%dT%H%M%S')}-{unique_suffix()}.seg"
        stream = path.open("xb", buffering=0)
        fsync_folder(self._folder)
        return stream

    def close(self) -> None:
        """End the segment."""
        with self._lock:
            if self._stream is not None:
                self._stream.close()
                self._stream = None
