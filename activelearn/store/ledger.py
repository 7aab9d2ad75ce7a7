"""The label ledger: append-only, checksummed, fsynced journals, addressed by content.

A label once paid for is never paid for again. Its key is the hash of the exact float64 structure and the fingerprint
of the reference. Each writer has a journal of its own, so no two processes ever write one file; a record that was cut
off by a kill is recognised by its checksum and ignored. At the end of an iteration the journals of a campaign are
compacted into one (one file per label would break the file budget; one batch at the end would lose labels).

A ledger describes itself: with each label stands its structure, and ``references/<sha16>.json`` says once for each
reference what labelled. So labels outlive the campaign that paid for them: they are listed, exported, imported, and
start other campaigns. The bytes of a record are in :mod:`activelearn.store.journal`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from activelearn.frames import FrameLabel, Frames
from activelearn.store.files import HOST, disk_errors, fsync_folder, publish, publish_json, read_json, unique_suffix
from activelearn.store.journal import CLOSED, Entry, encode, label_of, note, records, writer_of
from activelearn.store.locks import is_gone, process_started, this_process
from activelearn.store.version import format_of, stamp

T = TypeVar("T")
#: Segments smaller than this (bytes) are merged by :meth:`Ledger.compact`.
COMPACT_BELOW: Final = 32_000_000
_REFERENCES: Final = "references"
#: Instead of the time, in the names of compacted journals.
_COMPACTED: Final = "00000000T000000"


class Ledger:
    """All labels of a folder of journals, as one mapping from key to label.

    Parameters
    ----------
    folder
        The journals; it may be shared by several campaigns.
    """

    def __init__(self, folder: Path) -> None:
        format_of(folder)
        self.folder = folder
        self._entries: dict[str, Entry] = {}
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
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def refusal(self, key: str) -> str | None:
        """Return why this structure has no label, or None if it has one."""
        return self._entries[key].refused

    def span(self, key: str) -> tuple[float, float]:
        """Return when its computation started and finished (Unix times; equal if it was adopted)."""
        entry = self._entries[key]
        return entry.started, entry.finished

    def __getitem__(self, key: str) -> FrameLabel:
        """Read one label."""
        return self._read(key, Entry.read)

    def find(self, key: str) -> FrameLabel | None:
        """Return one label, or None if there is none."""
        return self[key] if key in self._entries else None

    # --- what is in it ----------------------------------------------------------------------------------------------

    def keys(self) -> list[str]:
        """Return the keys of all records, sorted."""
        return sorted(self._entries)

    def entries(self) -> list[Entry]:
        """Return what the headers of all records say, in the order of their keys."""
        return [self._entries[key] for key in self.keys()]

    def references(self) -> dict[str, dict[str, Any]]:
        """Return the identities of the references that labelled, by their sha256."""
        found = [read_json(path) for path in sorted((self.folder / _REFERENCES).glob("*.json"))]
        return {str(identity["sha256"]): identity for identity in found}

    def structures(self, reference: str) -> list[Frames]:
        """Return all accepted labels of a reference with their structures.

        Parameters
        ----------
        reference
            sha256 of its identity.

        Returns
        -------
        list of Frames
            One for each composition and trajectory, labelled, in the order of their keys: the same labels give the
            same list, whoever wrote them when. ``origin.walk`` is ``ledger-`` and the beginning of the first key, so
            that frames of one trajectory (near-duplicates) can be kept together; records that do not know theirs
            count as one trajectory of that composition.
        """
        families: dict[tuple[object, ...], list[Entry]] = {}
        for entry in self.entries():
            if entry.reference == reference and entry.symbols and entry.refused is None:
                families.setdefault((entry.symbols, entry.pbc, entry.walk), []).append(entry)
        return [self._family(entries) for entries in families.values()]

    def _family(self, entries: list[Entry]) -> Frames:
        joined = Frames.concatenate([self._read(entry.key, Entry.read_frame) for entry in entries])
        origin = joined.origin.copy()
        origin["walk"] = f"ledger-{entries[0].key[:12]}"
        return replace(joined, origin=origin)

    def _read(self, key: str, what: Callable[[Entry], T]) -> T:
        """Read what an entry says; a journal that was compacted meanwhile is looked up anew."""
        try:
            return what(self._entries[key])
        except FileNotFoundError:
            fresh = Ledger(self.folder)  # swapped in whole: another thread never sees an empty ledger
            fresh.refresh()
            with self._lock:
                self._entries, self._read_to = fresh._entries, fresh._read_to
            return what(self._entries[key])

    # --- journals ---------------------------------------------------------------------------------------------------

    def _scan(self, path: Path) -> None:
        offset = begin = self._read_to.get(path.name, 0)
        try:
            if path.stat().st_size <= offset:
                return
            with path.open("rb") as stream:
                stream.seek(offset)
                content = stream.read()
        except FileNotFoundError:
            return  # compacted between the listing and the reading: its records are in the new journal
        for entry, _, end in records(content, path, begin):
            self._entries.setdefault(entry.key, entry)
            offset = begin + end
        self._read_to[path.name] = offset

    def compact(self, prefix: str) -> None:
        """Merge the journals of one campaign that nobody writes to any more into one, and remove the old ones.

        A journal stays as it is while its writer may append to it: until it has closed it, or is gone for sure. That
        cannot be known of a process on another host that was killed, nor of a journal of an earlier version: they stay.

        Parameters
        ----------
        prefix
            Of the journal names of this campaign.
        """
        # A large journal is left as it is, so that a long campaign does not write all its labels anew each time.
        seen: set[str] = set()
        chunks: list[bytes] = []
        old: list[Path] = []
        try:
            for path in sorted(self.folder.glob(f"{prefix}-*.seg")):
                content = path.read_bytes() if path.stat().st_size < COMPACT_BELOW else b""
                if not _is_ended(path, content):
                    continue
                content = path.read_bytes()  # whose writer is gone may have written between the first look and its end
                old.append(path)
                for entry, start, end in records(content, path):
                    if entry.key not in seen:
                        seen.add(entry.key)
                        chunks.append(content[start:end])
        except FileNotFoundError:
            return  # somebody else compacts the same labels at this moment
        if len(old) < 2:
            return
        # Named so that it comes before all journals of writers: of two records of one key the elder stays the first.
        publish(self.folder / f"{prefix}-{_COMPACTED}-{unique_suffix()}.seg", b"".join([*chunks, CLOSED]))
        for path in old:
            path.unlink(missing_ok=True)
        fsync_folder(self.folder)

    def verify(self) -> list[str]:  # a stand-in until Ledger.verify is merged
        """Return what is damaged."""
        return []


def _is_ended(path: Path, content: bytes) -> bool:
    """Return whether nobody will ever append to a journal: it was closed, or compacted, or its writer is gone."""
    if not content:
        return False
    is_compacted = f"-{_COMPACTED}-" in path.name  # of an earlier version, too
    return is_compacted or content.endswith(CLOSED) or is_gone(writer_of(content))


class LedgerWriter:
    """Appends labels to a new journal of its own, one fsync per label; thread-safe.

    Parameters
    ----------
    folder
        The ledger.
    prefix
        Of the journal's name: the campaign it belongs to.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self._folder, self._prefix = folder, prefix
        self._stream: IO[bytes] | None = None
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def append(
        self, key: str, label: FrameLabel, structure: Frames | None = None, reference: Mapping[str, Any] | None = None
    ) -> None:
        """Publish one label; when this returns, it survives any kill.

        Parameters
        ----------
        key
            Content address of the structure under the reference.
        label
            Accepted, or refused with a reason.
        structure
            The one frame that is labelled, with its origin; without it the label can be reused but never exported.
        reference
            Identity of the reference, with its ``sha256`` (see :func:`activelearn.engines.reference.fingerprint`).
        """
        walk = ""
        if structure is not None and structure.origin["walk"][0]:
            walk = f"{self._prefix}-{structure.origin['iteration'][0]:03d}-{structure.origin['walk'][0]}"
        sha = "" if reference is None else str(reference["sha256"])
        record = encode(key, label, structure, walk=walk, reference=sha)
        with self._lock, disk_errors(self._folder):
            if reference is not None and sha not in self._known:
                publish_reference(self._folder, reference)
                self._known.add(sha)
            if self._stream is None:
                self._stream = self._open()
            try:
                if self._stream.write(record) < len(record):  # unbuffered: a disk that fills up cuts a write short
                    raise OSError(errno.ENOSPC, "a record was cut off")
                os.fsync(self._stream.fileno())
            except OSError:
                # What follows a record that was cut off would never be read: the next label gets a new journal.
                stream, self._stream = self._stream, None
                with contextlib.suppress(OSError):
                    stream.close()
                raise

    def _open(self) -> IO[bytes]:
        self._folder.mkdir(parents=True, exist_ok=True)
        format_of(self._folder)
        stamp(self._folder)
        path = _new_segment(self._folder, self._prefix)
        stream = path.open("xb", buffering=0)
        try:
            stream.write(note({"writer": this_process()}))
            fsync_folder(self._folder)
        except OSError:
            stream.close()
            raise
        return stream

    def close(self) -> None:
        """End the journal; without room for the note that it has ended it stays one that is not compacted."""
        with self._lock:
            if self._stream is not None:
                with contextlib.suppress(OSError):
                    self._stream.write(CLOSED)
                    os.fsync(self._stream.fileno())
                self._stream.close()
                self._stream = None


def publish_labels(folder: Path, prefix: str, labelled: Iterable[Frames], reference: Mapping[str, Any]) -> int:
    """Publish many labels at once: all of them or, if we are killed, none.

    Parameters
    ----------
    folder
        The ledger; made if missing.
    prefix
        Of the journal's name.
    labelled
        Frames with energy, forces and virial; ``origin.walk`` is the trajectory they come from.
    reference
        Identity of what labelled them, with its ``sha256``.

    Returns
    -------
    int
        How many records were written.
    """
    sha = str(reference["sha256"])
    chunks = []
    for part in labelled:
        for k in range(len(part)):
            if (label := label_of(part, k)) is None:
                raise ValueError(f"{part.formula} has no label to be imported")
            walk = f"{prefix}-{part.origin['walk'][k]}"
            chunks.append(encode(part.structure_key(k, sha), label, part[k], walk=walk, reference=sha))
    sweep(folder)
    if chunks:
        format_of(folder)
        stamp(folder)
        publish_reference(folder, reference)
        publish(_new_segment(folder, prefix), b"".join([*chunks, CLOSED]))
    return len(chunks)


def publish_reference(folder: Path, identity: Mapping[str, Any]) -> None:
    """Publish who labelled, once per reference: before its first label, so that no label is without it."""
    path = folder / _REFERENCES / f"{str(identity['sha256'])[:16]}.json"
    if not path.is_file():
        publish_json(path, dict(identity))


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes of this host left in a ledger (it may be in no campaign)."""
    for path in [*folder.glob(".*"), *folder.glob(f"{_REFERENCES}/.*")]:
        found = re.fullmatch(rf"\..+\.{re.escape(HOST)}-(\d+)-[0-9a-f]{{12}}", path.name)
        if found and not process_started(int(found[1])):
            path.unlink(missing_ok=True)


def _new_segment(folder: Path, prefix: str) -> Path:
    return folder / f"{prefix}-{time.strftime('%Y%m%dT%H%M%S')}-{unique_suffix()}.seg"
