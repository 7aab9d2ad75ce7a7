"""The label ledger: append-only, checksummed, fsynced journals, addressed by content.

A label is never computed twice. Its key is the hash of the exact float64 structure and the fingerprint
of the reference. Each writer has a journal of its own, so no two processes ever write one file; a record that was
truncated by a kill is recognised by its checksum and ignored. At the end of an iteration the journals of a campaign are
compacted into one (one file per label would break the file budget; one batch at the end would lose labels).

A ledger describes itself: each label is stored with its structure, and ``references/<sha16>.json`` describes each
reference once. So labels outlive the campaign that computed them: they are listed, exported, imported, and start other
campaigns. The bytes of a record are in :mod:`activelearn.store.journal`.

Damage is never ignored silently. On opening, indexes are verified (:mod:`activelearn.store.index`), and journals
without one are read whole; a record is verified when it is read, before a campaign counts it as computed
(:meth:`Ledger.holds`), or by :meth:`Ledger.verify`. A damaged record counts as not computed, is reported
(:meth:`Ledger.damage`, and as a warning) and computed again; its file is left as it is, because a copy may restore it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from activelearn.errors import Damaged, StoreError
from activelearn.frames import FrameLabel, Frames
from activelearn.store.compaction import compact, damaged_parts, publish_journal, whole
from activelearn.store.contradictions import contradictions
from activelearn.store.files import HOST, disk_errors, fsync_folder, unique_suffix
from activelearn.store.index import SUFFIX, publish_index, read_index
from activelearn.store.journal import (
    CLOSED,
    Entry,
    Scan,
    begins_with_note,
    encode,
    frames_of,
    label_of,
    note,
    scan,
)
from activelearn.store.locks import process_started, this_process
from activelearn.store.references import REFERENCES, publish_reference, read_references, reference_file
from activelearn.store.version import format_of, stamp

log = logging.getLogger(__name__)
T = TypeVar("T")
#: What to do where labels are damaged.
_AGAIN: Final = (
    "what is lost counts as not computed, and is computed again where a campaign needs it; to recover it, restore the "
    "file from a copy"
)


class Ledger:
    """All labels of a folder of journals, as one mapping from key to label.

    Parameters
    ----------
    folder
        The journals; it may be shared by several campaigns.
    warn
        Whether damage is logged when it is found; not needed by callers that print :meth:`damage`.
    """

    def __init__(self, folder: Path, *, warn: bool = True) -> None:
        format_of(folder)
        self.folder = folder
        self._warn = log.warning if warn else log.debug
        self._entries: dict[str, Entry] = {}
        self._more: dict[str, list[Entry]] = {}  # later records of the same keys, used if the first is damaged
        self._read_to: dict[str, int] = {}
        self._whole: set[str] = set()
        self._said: dict[str, list[str]] = {}  # of each journal, what is wrong with it
        self._lost: dict[str, Entry] = {}  # records that were found damaged, or gone, when they were read
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Look for new records; only what was appended since the last time is read."""
        with self._lock:
            if not self.folder.is_dir():
                return
            listed = sorted(self.folder.glob("*.seg*"))
            for path in listed:
                if path.suffix == ".seg":
                    self._take(path)
            for path in listed:
                journal = path.with_suffix("")
                if path.name.endswith(f".seg{SUFFIX}") and not journal.exists() and path.exists():  # in this order
                    self._say(journal, f"{journal}: gone - expected the journal that {path.name} lists - {_AGAIN}")

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
        """Read one label.

        Raises
        ------
        StoreError
            Its record is damaged, and there is no other one.
        """
        if (found := self._read(key, Entry.read)) is None:
            raise StoreError(f"{_damaged([self._lost[key]])}; run the same command again")
        return found

    def find(self, key: str) -> FrameLabel | None:
        """Return one label, or None if there is none.

        Raises
        ------
        StoreError
            Its record is damaged.
        """
        return self[key] if key in self._entries or key in self._lost else None

    def holds(self, key: str) -> bool:
        """Return whether there is an undamaged record of a key, verified once per process."""
        if key not in self._whole and key in self._entries:
            self._read(key, Entry.read_numbers)
        return key in self._entries

    def frame(self, key: str) -> Frames | None:
        """Read one label with its structure, as one frame (the record must have a structure); None if it is damaged."""
        entry = self._entries[key]
        numbers = self._read(key, Entry.read_numbers)
        return None if numbers is None else frames_of([entry], [numbers])

    # --- what is in it ----------------------------------------------------------------------------------------------

    def keys(self) -> list[str]:
        """Return the keys of all records, sorted."""
        return sorted(self._entries)

    def entries(self, *, ordered: bool = True) -> list[Entry]:
        """Return the headers of all records, optionally in the order of their keys."""
        return [*self._entries.values()] if not ordered else [self._entries[key] for key in self.keys()]

    def references(self) -> dict[str, dict[str, Any]]:
        """Return the identities of the references that labelled, by their sha256; only undamaged ones."""
        known, said = read_references(self.folder)
        for line in said:
            self._say(self.folder / REFERENCES, line)
        return known

    def damage(self) -> list[str]:
        """Return what is wrong with the ledger as read so far, one sentence each: files, records, references."""
        known = self.references()
        families = {entry.family for entry in self._entries.values()}
        for sha in sorted({family.reference for family in families} - {"", *known}):
            if not (path := reference_file(self.folder, sha)).exists():
                self._say(
                    path,
                    f"{path}: gone - expected the identity of what labelled - restore the file from a copy; until then "
                    "the origin of its labels is unknown, and they are not exported",
                )
        return [*(line for lines in self._said.values() for line in lines), *self._lost_by_journal()]

    def verify(self) -> list[str]:
        """Read and compare everything: :meth:`damage`, and contradictions between undamaged records."""
        self.refresh()
        for key in self.keys():
            self._read(key, Entry.read_numbers)
        return [*self.damage(), *contradictions(sorted(self.folder.glob("*.seg")))]

    def structures(self, reference: str) -> list[Frames]:
        """Return all accepted labels of a reference with their structures.

        Parameters
        ----------
        reference
            sha256 of its identity.

        Returns
        -------
        list of Frames
            One for each composition and trajectory, labelled, in the order of their keys: the same labels give the same
            list, independent of who wrote them and when. ``origin.walk`` is ``ledger-`` and the beginning of the first
            key, so that frames of one trajectory (near-duplicates) can be kept together; records that do not know
            theirs count as one trajectory of that composition.
        """
        families: dict[tuple[object, ...], list[Entry]] = {}
        for entry in self.entries():
            if entry.reference == reference and entry.symbols and entry.refused is None:
                families.setdefault((entry.symbols, entry.pbc, entry.walk), []).append(entry)
        names: dict[tuple[str, str], str] = {}  # one trajectory, even if its atoms are in two orders
        return [part for entries in families.values() if (part := self._family(entries, names)) is not None]

    def _family(self, entries: list[Entry], names: dict[tuple[str, str], str]) -> Frames | None:
        there = {e: numbers for e in entries if (numbers := self._read(e.key, Entry.read_numbers)) is not None}
        if not there:
            return None
        first, joined = entries[0], frames_of([*there], [*there.values()])
        origin = joined.origin.copy()
        origin["walk"] = names.setdefault((first.formula, first.walk or first.symbols), f"ledger-{first.key[:12]}")
        return replace(joined, origin=origin)

    def _read(self, key: str, what: Callable[[Entry], T]) -> T | None:
        """Read what an entry says, or None if all records of its key are damaged.

        A journal that was compacted meanwhile is looked up again.
        """
        while (entry := self._entries.get(key)) is not None:
            try:
                found = what(entry)
            except FileNotFoundError:
                fresh = Ledger(self.folder)  # swapped in one step: another thread never sees an empty ledger
                fresh._warn = self._warn
                fresh.refresh()
                with self._lock:
                    self._entries, self._more, self._read_to = fresh._entries, fresh._more, fresh._read_to
                    self._said |= fresh._said
                    if key not in self._entries:
                        self._lose(entry)
            except Damaged:
                with self._lock:
                    if self._entries.get(key) is entry:
                        self._lose(entry)
            else:
                self._whole.add(key)
                return found
        return None

    def _lose(self, entry: Entry) -> None:
        """Remove a record; the next one of its key is used, if there is one."""
        if all(other.journal != entry.journal for other in self._lost.values()):
            self._warn(_damaged([entry]))
        self._lost[entry.key] = entry
        self._entries.pop(entry.key, None)
        if more := self._more.get(entry.key):
            self._entries[entry.key] = more.pop(0)

    def _lost_by_journal(self) -> list[str]:
        lost: dict[Path, list[Entry]] = {}
        for entry in sorted(self._lost.values(), key=lambda entry: (entry.journal, entry.start)):
            lost.setdefault(entry.journal, []).append(entry)
        return [_damaged(entries) for entries in lost.values()]

    # --- journals ---------------------------------------------------------------------------------------------------

    def _say(self, journal: Path, sentence: str) -> None:
        said = self._said.setdefault(journal.name, [])
        if sentence not in said:
            said.append(sentence)
            self._warn(sentence)

    def _add(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if self._entries.setdefault(entry.key, entry) is not entry:
                self._more.setdefault(entry.key, []).append(entry)

    def _take(self, path: Path) -> None:
        """Read what is new in a journal: all of it from its index, or what was appended to it."""
        try:
            size, begin = path.stat().st_size, self._read_to.get(path.name)
            if begin is not None and size <= begin:
                return
            index, is_ended = None, False
            if begin is None:
                try:
                    index = read_index(path)
                except Damaged as error:
                    is_ended = True
                    self._say(
                        path, f"{error} - expected the index of {path.name} - remove it: the journal is read without it"
                    )
                if index is not None and index.is_of_journal:
                    self._add(index.entries)
                    self._read_to[path.name] = size
                    return
            found, damaged = self._scan(path, begin or 0, is_ended=is_ended or index is not None)
        except FileNotFoundError:
            return  # compacted between the listing and the reading: its records are in the new journal
        except OSError as error:
            self._say(path, f"{path}: cannot be read ({error.strerror}) - expected a journal of labels - {_AGAIN}")
            return
        if index is not None:
            there = {entry.key for entry, _, _ in found.records}
            n_lost = sum(entry.key not in there for entry in index.entries)
            damaged = [
                f"{n_lost} of the {len(index.entries)} labels that its index lists are not in it",
                *damaged,
            ]
        if damaged:
            self._say(
                path, f"{path}: damaged or truncated: {', '.join(damaged)} - expected it as it was written - {_AGAIN}"
            )

    def _scan(self, path: Path, begin: int, *, is_ended: bool) -> tuple[Scan, list[str]]:
        """Read a journal from `begin` on, record by record; return what is there, and where it is damaged."""
        with path.open("rb") as stream:
            first = stream.read(4)
            stream.seek(begin)
            content = stream.read()
        found = scan(content, path, begin)
        self._add(entry for entry, _, _ in found.records)
        self._read_to[path.name] = begin + found.end
        parts = damaged_parts(content, found, may_be_cut_off=begins_with_note(first) and not is_ended)
        said = [f"bytes {begin + start} to {begin + end}" for start, end in parts[:1]]
        return found, said + ([f"and {len(parts) - 1} more places"] if len(parts) > 1 else [])

    def compact(self, prefix: str) -> None:
        """Merge the journals of one campaign: see :func:`activelearn.store.compaction.compact`.

        Parameters
        ----------
        prefix
            Of the journal names of this campaign.
        """
        compact(self.folder, prefix)


def _damaged(entries: Sequence[Entry]) -> str:
    """Return the message on damaged records of one journal."""
    n, first = len(entries), entries[0]
    what = f"{n} records are damaged, the first" if n > 1 else "a record is damaged, that"
    return f"{first.journal}: {what} at byte {first.start} - expected the labels as they were written - {_AGAIN}"


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
                if self._stream.write(record) < len(record):  # unbuffered: a disk that fills up truncates a write
                    raise OSError(errno.ENOSPC, "a record was cut off")
                os.fsync(self._stream.fileno())
            except OSError:
                # Anything after a truncated record would never be read: the next label gets a new journal.
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
        """Close the journal; without room for the closing note it is not compacted."""
        with self._lock:
            stream, self._stream = self._stream, None
            if stream is None:
                return
            path = self._folder / Path(stream.name).name
            with contextlib.suppress(OSError, StoreError):
                stream.write(CLOSED)
                os.fsync(stream.fileno())
                if (found := whole(path, path.read_bytes())) is not None:
                    publish_index(path, [entry for entry, _, _ in found.records])
            stream.close()


def publish_labels(folder: Path, prefix: str, labelled: Iterable[Frames], reference: Mapping[str, Any]) -> int:
    """Publish many labels at once: all of them or, if killed, none.

    Parameters
    ----------
    folder
        The ledger; made if missing.
    prefix
        Of the journal's name.
    labelled
        Frames with energy and forces, and a virial if there is one; ``origin.walk`` is the trajectory they come from.
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
        publish_journal(_new_segment(folder, prefix), chunks)
    return len(chunks)


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes of this host left in a ledger (it may be in no campaign)."""
    for path in [*folder.glob(".*"), *folder.glob(f"{REFERENCES}/.*")]:
        found = re.fullmatch(rf"\..+\.{re.escape(HOST)}-(\d+)-[0-9a-f]{{12}}", path.name)
        if found and not process_started(int(found[1])):
            path.unlink(missing_ok=True)


def _new_segment(folder: Path, prefix: str) -> Path:
    return folder / f"{prefix}-{time.strftime('%Y%m%dT%H%M%S')}-{unique_suffix()}.seg"
