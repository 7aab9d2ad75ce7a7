"""Segments: how labels are stored in the files of a ledger, record by record.

Record: ``b"ALB1" | header length (u4) | payload length (u8) | sha256(header + payload)[:16] | header JSON | payload``.
The payload is little-endian float64: energy, forces (n_atoms, 3), virial (3, 3; NaN if there is none) and, if the
record describes itself, cell (3, 3) and positions (n_atoms, 3). The header then has the symbols, the periodicity, the
trajectory that the structure comes from, and the checksum of the reference's identity. Records of early ledgers have no
structure.

A journal begins with a note on the process that writes it and ends with a note that it was closed: ``b"ALBN" | length
(u4) | sha256[:16] | JSON``. One that was published whole has only the second. Segments of earlier versions have none.

Beside a closed journal there is its index (:mod:`activelearn.store.index`), so that opening reads no payload; each
record is verified when it is read. A journal without an index (its writer is running, was killed, or is of an earlier
version) is scanned, and every byte of it must belong to a complete record or note: anything else is damage, except for
an incomplete last record. Scanning costs little: 15,902 labels of 128 atoms (109 MB) are read, verified and indexed in
0.4 s (tests/performance/test_ledger.py).
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from activelearn.errors import Damaged
from activelearn.frames import FrameLabel, Frames, formula_of

_MAGIC: Final = b"ALB1"
_HEAD: Final = struct.Struct("<4sIQ16s")
_ENERGY: Final = struct.Struct("<d")
_NOTE_MAGIC: Final = b"ALBN"
_NOTE_HEAD: Final = struct.Struct("<4sI16s")
_ELEMENT: Final = re.compile(re.escape(_MAGIC) + b"|" + re.escape(_NOTE_MAGIC))


def note(data: Mapping[str, Any]) -> bytes:
    """Return a note about a journal, to be placed between its records."""
    text = json.dumps(data).encode()
    return _NOTE_HEAD.pack(_NOTE_MAGIC, len(text), hashlib.sha256(text).digest()[:16]) + text


#: The last bytes of a journal that will not be appended to any more.
CLOSED: Final = note({"closed": True})


def writer_of(content: bytes) -> dict[str, Any]:
    """Return the process that writes a journal, from its first note; {} if there is none, or it is damaged."""
    if len(content) < _NOTE_HEAD.size:
        return {}
    magic, length, checksum = _NOTE_HEAD.unpack_from(content)
    text = content[_NOTE_HEAD.size : _NOTE_HEAD.size + length]
    if magic != _NOTE_MAGIC or hashlib.sha256(text).digest()[:16] != checksum:
        return {}
    return dict(json.loads(text).get("writer", {}))


class Family(NamedTuple):
    """What the records of one trajectory have in common.

    Parameters
    ----------
    symbols, pbc
        Of the structures; empty if the records have none (an early ledger).
    walk
        Trajectory that the structures come from: frames of one are near-duplicates. Empty if not known.
    reference
        sha256 of the reference's identity; empty if the records have none.
    """

    symbols: str = ""
    pbc: tuple[bool, ...] = ()
    walk: str = ""
    reference: str = ""


class Entry(NamedTuple):
    """The header of a record, and its position.

    Parameters
    ----------
    key
        Content address: see :meth:`activelearn.frames.Frames.structure_key`.
    journal, start, offset, n_payload
        The file, where the record and its numbers begin in it, and how long these are, in bytes.
    n_atoms
        Number of atoms.
    energy
        eV; NaN if refused.
    refused
        Physical reason why there is no label, or None.
    started, finished
        Unix times of the computation (equal if it was adopted or imported).
    has_virial
        Whether the label has a virial.
    family
        What it has in common with the other records of its trajectory.
    """

    key: str
    journal: Path
    start: int
    offset: int
    n_payload: int
    n_atoms: int
    energy: float
    refused: str | None
    started: float
    finished: float
    has_virial: bool
    family: Family

    @property
    def symbols(self) -> str:
        """Chemical symbols of the structure with blanks between them; empty if the record has none."""
        return self.family.symbols

    @property
    def pbc(self) -> tuple[bool, ...]:
        """Periodicity of the structure along each lattice vector; empty if the record has none."""
        return self.family.pbc

    @property
    def walk(self) -> str:
        """Trajectory that the structure comes from; empty if not known."""
        return self.family.walk

    @property
    def reference(self) -> str:
        """sha256 of the reference's identity; empty if the record has none."""
        return self.family.reference

    @property
    def formula(self) -> str:
        """Composition such as ``Na12P4S16``; empty if the record has no structure."""
        return _formula(self.symbols)

    def read_numbers(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Read the (19 + 6 n_atoms,) numbers of the record, eV and Å, and verify its checksum: see :func:`frames_of`.

        Raises
        ------
        FileNotFoundError
            The journal was compacted meanwhile.
        Damaged
            The record is corrupt.
        """
        with self.journal.open("rb") as stream:
            stream.seek(self.start)
            content = stream.read(self.offset - self.start + self.n_payload)
        found = _record(content, 0, self.journal, self.start)
        if found is None or found[0][:6] != self[:6]:
            raise Damaged(f"{self.journal}: the record at byte {self.start} is damaged")
        return np.frombuffer(content, dtype="<f8", offset=self.offset - self.start).astype(np.float64)

    def read(self) -> FrameLabel:
        """Read the label: see :meth:`read_numbers`."""
        values, n = self.read_numbers(), 3 * self.n_atoms
        return FrameLabel(
            energy=float(values[0]),
            forces=values[1 : 1 + n].reshape(-1, 3),
            virial=values[1 + n : 10 + n].reshape(3, 3),
            refused=self.refused,
            started=self.started,
            finished=self.finished,
        )


def frames_of(entries: Sequence[Entry], numbers: Sequence[np.ndarray[Any, np.dtype[np.float64]]]) -> Frames:
    """Return the structures of records of one composition (they must have structures) with their labels.

    Parameters
    ----------
    entries
        The records.
    numbers
        (19 + 6 n_atoms,) of each: energy (eV), forces (eV/Å), virial (eV), cell and positions (Å), end to end.
    """
    first, values, n = entries[0], np.array(numbers), 3 * entries[0].n_atoms
    return Frames(
        symbols=tuple(first.symbols.split()),
        cell=values[:, 10 + n : 19 + n].reshape(-1, 3, 3),
        positions=values[:, 19 + n :].reshape(len(entries), -1, 3),
        pbc=(first.pbc[0], first.pbc[1], first.pbc[2]),
        energy=values[:, 0],
        forces=values[:, 1 : 1 + n].reshape(len(entries), -1, 3),
        virial=values[:, 1 + n : 10 + n].reshape(-1, 3, 3),
    )


@lru_cache(maxsize=256)
def _formula(symbols: str) -> str:
    return formula_of(symbols.split())


def label_of(part: Frames, k: int) -> FrameLabel | None:
    """Return the label that frame `k` came with, with or without a virial; None if it has none."""
    if part.energy is None or part.forces is None:
        return None
    virial = np.full((3, 3), np.nan) if part.virial is None else part.virial[k]
    return FrameLabel(float(part.energy[k]), part.forces[k], virial)


def encode(key: str, label: FrameLabel, structure: Frames | None, *, walk: str = "", reference: str = "") -> bytes:
    """Return one record.

    Parameters
    ----------
    key
        Content address.
    label
        Of the structure; NaN with a reason if refused.
    structure
        The one frame that it belongs to, or None.
    walk
        Trajectory that the structure comes from.
    reference
        sha256 of the identity of the reference.
    """
    header: dict[str, Any] = {
        "key": key,
        "n_atoms": len(label.forces),
        "refused": label.refused,
        "started": label.started,
        "finished": label.finished,
    }
    values = [np.array([label.energy]), label.forces.ravel(), label.virial.ravel()]
    if structure is not None:
        header |= {"symbols": " ".join(structure.symbols), "pbc": structure.pbc, "walk": walk}
        values += [structure.cell[0].ravel(), structure.positions[0].ravel()]
    if reference:
        header["reference"] = reference
    if label.refused is None and np.isnan(label.virial).all():
        header["has_virial"] = False
    head, payload = json.dumps(header).encode(), np.concatenate(values).astype("<f8").tobytes()
    checksum = hashlib.sha256(head + payload).digest()[:16]
    return _HEAD.pack(_MAGIC, len(head), len(payload), checksum) + head + payload


# --- scanning ---------------------------------------------------------------------------------------------------------


@dataclass
class Scan:
    """What a part of a journal holds; positions are bytes from the beginning of that part.

    Parameters
    ----------
    records
        (entry, start, end) of every whole record.
    damaged
        (start, end) of what is neither a whole record nor a note, except for what follows the last of these.
    end
        Where the last whole record or note ends.
    """

    records: list[tuple[Entry, int, int]] = field(default_factory=list)
    damaged: list[tuple[int, int]] = field(default_factory=list)
    end: int = 0


def scan(content: bytes, path: Path, offset: int = 0) -> Scan:
    """Find every whole record; a damaged one costs that record only.

    After damage the search continues at the next magic number (and its checksum decides).

    Parameters
    ----------
    content
        Of the journal, from `offset` on.
    path
        The journal.
    offset
        Where `content` begins in it.
    """
    found, at = Scan(), 0
    while at < len(content):
        record = _record(content, at, path, offset)
        end = _note_end(content, at) if record is None else record[1]
        if end is None:
            following = _ELEMENT.search(content, at + 1)
            at = following.start() if following else len(content)
            continue
        if at > found.end:
            found.damaged.append((found.end, at))
        if record is not None:
            found.records.append((record[0], at, end))
        at = found.end = end
    return found


def is_cut_off(content: bytes, at: int) -> bool:
    """Return whether there is the beginning of an incomplete record or note at `at`."""
    rest = content[at:]
    if _NOTE_MAGIC.startswith(rest[:4]):
        return len(rest) < _NOTE_HEAD.size or _NOTE_HEAD.unpack_from(rest)[1] > len(rest) - _NOTE_HEAD.size
    if not _MAGIC.startswith(rest[:4]):
        return False
    if len(rest) < _HEAD.size:
        return True
    _, n_header, n_payload, _ = _HEAD.unpack_from(rest)
    header = rest[_HEAD.size : _HEAD.size + n_header]
    if len(rest) >= _HEAD.size + n_header + n_payload:
        return False
    return len(header) < n_header or _is_header(header, n_payload)


def begins_with_note(content: bytes) -> bool:
    """Return whether a journal was started by a writer: one that was published whole begins with a record."""
    return _NOTE_MAGIC.startswith(content[:4])


def _is_header(header: bytes, n_payload: int) -> bool:
    try:
        found = json.loads(header)
        return n_payload in _payload_sizes(found["n_atoms"])
    except (ValueError, TypeError, KeyError):
        return False


def _payload_sizes(n_atoms: int) -> tuple[int, int]:
    """Return how many bytes the numbers of a record have, without and with a structure."""
    return 8 * (10 + 3 * n_atoms), 8 * (19 + 6 * n_atoms)


def _note_end(content: bytes, at: int) -> int | None:
    """Return where the note that begins at `at` ends; None if there is no complete one."""
    begin = at + _NOTE_HEAD.size
    if not content.startswith(_NOTE_MAGIC, at) or begin > len(content):
        return None
    _, length, checksum = _NOTE_HEAD.unpack_from(content, at)
    text = content[begin : begin + length]
    return begin + length if hashlib.sha256(text).digest()[:16] == checksum else None


def _record(content: bytes, at: int, path: Path, offset: int) -> tuple[Entry, int] | None:
    """Return the record that begins at `at`, and where it ends; None if there is no complete one."""
    begin = at + _HEAD.size
    if not content.startswith(_MAGIC, at) or begin > len(content):
        return None
    _, n_header, n_payload, checksum = _HEAD.unpack_from(content, at)
    numbers, end = begin + n_header, begin + n_header + n_payload
    if end > len(content) or hashlib.sha256(memoryview(content)[begin:end]).digest()[:16] != checksum:
        return None
    header = json.loads(content[begin:numbers])
    if n_payload not in _payload_sizes(header["n_atoms"]):
        return None
    entry = Entry(
        key=header["key"],
        journal=path,
        start=offset + at,
        offset=offset + numbers,
        n_payload=n_payload,
        n_atoms=header["n_atoms"],
        energy=_ENERGY.unpack_from(content, numbers)[0],
        refused=header["refused"],
        started=header["started"],
        finished=header["finished"],
        has_virial=bool(header.get("has_virial", True)),
        family=_family(
            header.get("symbols", ""),
            tuple(header.get("pbc", ())),
            header.get("walk", ""),
            header.get("reference", ""),
        ),
    )
    return entry, end


@lru_cache(maxsize=4096)
def _family(symbols: str, pbc: tuple[bool, ...], walk: str, reference: str) -> Family:
    return Family(symbols, pbc, walk, reference)
