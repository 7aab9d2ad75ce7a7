"""Segments: how labels stand in the files of a ledger, record by record.

Record: ``b"ALB1" | header length (u4) | payload length (u8) | sha256(header + payload)[:16] | header JSON | payload``.
The payload is little-endian float64: energy, forces (n_atoms, 3), virial (3, 3; NaN if there is none) and, if the
record describes itself, cell (3, 3) and positions (n_atoms, 3). The header then has the symbols, the periodicity, the
trajectory that the structure comes from, and the checksum of the reference's identity. Records of early ledgers have no
structure.

A journal begins with a note of the process that writes it and ends with a note that it was closed: ``b"ALBN" | length
(u4) | sha256[:16] | JSON``. One that was published whole has the second alone. Segments of earlier versions have none.

Every record is verified when its journal is scanned, not only the last one of a killed writer: a damaged label is
absent from the start, so it is computed anew instead of failing when it is needed. It costs little: 15,902 labels of
128 atoms (109 MB) are read, verified and indexed in 0.4 s (tests/performance/test_ledger.py).
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from activelearn.frames import FrameLabel, Frames, formula_of

_MAGIC: Final = b"ALB1"
_HEAD: Final = struct.Struct("<4sIQ16s")
_ENERGY: Final = struct.Struct("<d")
_NOTE_MAGIC: Final = b"ALBN"
_NOTE_HEAD: Final = struct.Struct("<4sI16s")


def note(data: Mapping[str, Any]) -> bytes:
    """Return a note about a journal, to stand between its records."""
    text = json.dumps(data).encode()
    return _NOTE_HEAD.pack(_NOTE_MAGIC, len(text), hashlib.sha256(text).digest()[:16]) + text


#: The last bytes of a journal to which nobody will append any more.
CLOSED: Final = note({"closed": True})


def writer_of(content: bytes) -> dict[str, Any]:
    """Return the process that its first note says a journal is written by; {} if there is none, or it is damaged."""
    if len(content) < _NOTE_HEAD.size:
        return {}
    magic, length, checksum = _NOTE_HEAD.unpack_from(content)
    text = content[_NOTE_HEAD.size : _NOTE_HEAD.size + length]
    if magic != _NOTE_MAGIC or hashlib.sha256(text).digest()[:16] != checksum:
        return {}
    return dict(json.loads(text).get("writer", {}))


@dataclass(frozen=True)
class Entry:
    """What the header of a record says, and where its numbers are.

    Parameters
    ----------
    key
        Content address: see :meth:`activelearn.frames.Frames.structure_key`.
    journal, offset, n_payload
        The file, where the numbers begin in it, and their length in bytes.
    n_atoms
        Number of atoms.
    energy
        eV; NaN if refused.
    refused
        Physical reason why there is no label, or None.
    started, finished
        Unix times of the computation (equal if it was adopted or imported).
    symbols, pbc
        Of the structure; empty if the record has none (an early ledger).
    walk
        Trajectory that the structure comes from: frames of one are near-duplicates. Empty if not known.
    reference
        sha256 of the reference's identity; empty if the record has none.
    has_virial
        Whether the label has a virial.
    """

    key: str
    journal: Path
    offset: int
    n_payload: int
    n_atoms: int
    energy: float
    refused: str | None
    started: float
    finished: float
    symbols: str = ""
    pbc: tuple[bool, ...] = ()
    walk: str = ""
    reference: str = ""
    has_virial: bool = True

    @property
    def formula(self) -> str:
        """Composition such as ``Na12P4S16``; empty if the record has no structure."""
        return _formula(self.symbols)

    def _values(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        with self.journal.open("rb") as stream:
            stream.seek(self.offset)
            return np.frombuffer(stream.read(self.n_payload), dtype="<f8").astype(np.float64)

    def read(self) -> FrameLabel:
        """Read the label.

        Raises
        ------
        FileNotFoundError
            The journal was compacted meanwhile.
        """
        values, n = self._values(), 3 * self.n_atoms
        return FrameLabel(
            energy=float(values[0]),
            forces=values[1 : 1 + n].reshape(-1, 3),
            virial=values[1 + n : 10 + n].reshape(3, 3),
            refused=self.refused,
            started=self.started,
            finished=self.finished,
        )

    def read_frame(self) -> Frames:
        """Read the structure with its label as one frame (the record must have a structure)."""
        values, n = self._values(), 3 * self.n_atoms
        return Frames(
            symbols=tuple(self.symbols.split()),
            cell=values[10 + n : 19 + n].reshape(1, 3, 3),
            positions=values[19 + n :].reshape(1, -1, 3),
            pbc=(self.pbc[0], self.pbc[1], self.pbc[2]),
            energy=values[:1],
            forces=values[1 : 1 + n].reshape(1, -1, 3),
            virial=values[1 + n : 10 + n].reshape(1, 3, 3),
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


def records(content: bytes, path: Path, offset: int = 0) -> Iterator[tuple[Entry, int, int]]:
    """Yield (entry, start, end) of every whole record; what is cut off or damaged is passed over.

    A damaged record costs that record only: the search goes on at the next magic number (and its checksum decides).

    Parameters
    ----------
    content
        Of the journal, from `offset` on.
    path
        The journal.
    offset
        Where `content` begins in it; ``start`` and ``end`` are positions in `content`.
    """
    view = memoryview(content)
    at = content.find(_MAGIC)
    while 0 <= at <= len(content) - _HEAD.size:
        _, n_header, n_payload, checksum = _HEAD.unpack_from(content, at)
        begin = at + _HEAD.size
        end = begin + n_header + n_payload
        if end > len(content) or hashlib.sha256(view[begin:end]).digest()[:16] != checksum:
            at = content.find(_MAGIC, at + 1)
            continue
        header = json.loads(content[begin : begin + n_header])
        numbers = begin + n_header
        energy = _ENERGY.unpack_from(content, numbers)[0]
        yield _entry(header, energy, path, offset + numbers, n_payload), at, end
        at = content.find(_MAGIC, end)


def _entry(header: dict[str, Any], energy: float, path: Path, offset: int, n_payload: int) -> Entry:
    shared = {name: sys.intern(str(header.get(name, ""))) for name in ("symbols", "walk", "reference")}
    return Entry(
        key=header["key"],
        journal=path,
        offset=offset,
        n_payload=n_payload,
        n_atoms=header["n_atoms"],
        energy=energy,
        refused=header["refused"],
        started=header["started"],
        finished=header["finished"],
        pbc=tuple(header.get("pbc", ())),
        has_virial=bool(header.get("has_virial", True)),
        **shared,
    )
