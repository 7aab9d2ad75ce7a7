"""Contradictions between undamaged records of a ledger: found when all of it is verified, not on opening."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from activelearn.errors import Damaged
from activelearn.store.index import read_index
from activelearn.store.journal import Entry, scan


def contradictions(journals: Sequence[Path]) -> list[str]:
    """Return one sentence for each kind of contradiction of each journal: all of them are read completely.

    Numbers that are not finite in an accepted label, keys that are not those of the structures, two labels of one
    structure that differ, an index that lists other records, and copies of journals.
    """
    said: list[str] = []
    payloads: dict[str, tuple[bytes, Path]] = {}
    copies: dict[bytes, Path] = {}
    for path in journals:
        try:
            content = path.read_bytes()
        except OSError:
            continue  # compacted meanwhile, or no file: already reported
        other = copies.setdefault(hashlib.sha256(content).digest(), path)
        if other != path and content:
            said.append(f"{path}: a copy of {other.name} - expected each journal once - remove one of the two")
            continue
        records = scan(content, path).records
        found: dict[str, list[str]] = {}
        for entry, _, end in records:
            payload = content[end - entry.n_payload : end]
            first, where = payloads.setdefault(entry.key, (payload, path))
            if first != payload:
                found.setdefault(f"differ from those of the same structures in {where.name}", []).append(entry.key)
            if problem := _problem(entry, payload):
                found.setdefault(problem, []).append(entry.key)
        if not _is_indexed(path, [entry for entry, _, _ in records]):
            said.append(f"{path}.idx: lists other labels - expected the index of {path.name} - remove it")
        said += [
            f"{path}: {len(keys)} labels {problem} (the first is {keys[0][:16]}) - expected the labels as computed - "
            "restore the file from a copy, or compute them again in a new ledger"
            for problem, keys in found.items()
        ]
    return said


def _problem(entry: Entry, payload: bytes) -> str | None:
    values, n = np.frombuffer(payload, dtype="<f8"), 3 * entry.n_atoms
    virial, structure = values[1 + n : 10 + n], values[10 + n :]
    is_finite = np.isfinite(values[: 1 + n]).all() and (np.isfinite(virial).all() or np.isnan(virial).all())
    if entry.refused is None and not is_finite:
        return "have numbers that are not finite"
    if not np.isfinite(structure).all():
        return "have positions that are not finite"
    if entry.symbols and entry.reference and _key(entry, structure) != entry.key:
        return "have keys that do not match their structures"
    return None


def _key(entry: Entry, structure: np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    """Return the content address of a structure in a payload: see ``Frames.structure_key``."""
    head = entry.symbols.encode() + bytes(entry.pbc)
    return hashlib.sha256(head + structure.tobytes() + entry.reference.encode()).hexdigest()


def _is_indexed(path: Path, entries: list[Entry]) -> bool:
    """Return whether the index of a journal, if it has one that is whole, lists these records among others."""
    try:
        index = read_index(path)
    except (Damaged, FileNotFoundError):
        return True  # reported elsewhere
    if index is None or not index.is_of_journal:
        return True
    listed = {entry.key: entry for entry in index.entries}
    return all((other := listed.get(entry.key)) is not None and other[:6] == entry[:6] for entry in entries)
