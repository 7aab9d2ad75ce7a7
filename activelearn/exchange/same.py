"""Detection of duplicate structures: in another format, rotated, wrapped, or with reordered atoms.

Formats round (OUTCAR five decimals, extended XYZ eight), dpdata rotates cells to lower-triangular form, others
sort atoms by element. To the ledger these are different structures: one would be counted twice, and might validate the
other.

Copies are found by invariants of rotation, wrapping, translation and order of atoms: the lengths and angles
of the cell, and the structure factors of each element at the thirteen shortest waves of the cell. Only frames that
agree in these are compared atom by atom.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from activelearn.exchange.physics import BLOCK, MIN_DISTANCE, is_label
from activelearn.exchange.reads import Read, with_walk
from activelearn.frames import Frames
from activelearn.store import Ledger

Floats = NDArray[np.float64]

#: Largest distance of atoms of two copies, Å; smaller than between any two steps of a trajectory.
NEAR: Final = 3.0e-4
#: Tolerance of invariants of copies: Å for the cell, structure factors relative to the root of the number of atoms.
TOLERANCE: Final = 1.0e-3
#: Width of the bins in which copies are searched: so wide that usually only one has to be searched.
_WIDTH: Final = 4.0 * TOLERANCE
#: Tolerance of energies of two copies: eV, and relative (conversion factors of two codes).
ENERGY, RELATIVE_ENERGY = 1.0e-4, 1.0e-7

#: Reasons, as in the refusals.
COPY: Final = "the same structure in another format or orientation"
OTHER_ENERGY: Final = "the same structure in another format or orientation, with another energy"

_LOWER: Final = np.tril_indices(3)
#: Miller indices: one of each pair (h, -h). The bins use the last three, (1 0 0) among them, and the volume.
_MILLER: Final = np.array([h for h in itertools.product((-1, 0, 1), repeat=3) if h > (0, 0, 0)], dtype=np.float64)


@dataclass(frozen=True)
class _Seen:
    """A known structure, its location, and its trajectory; empty if that cannot be joined."""

    frame: Frames
    fractions: Floats  # (n_atoms, 3) of its atoms
    where: str
    walk: str


class _Drawers:
    """Structures of one composition, which are recognised in any orientation and order."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, ...], tuple[Floats, list[_Seen]]] = {}

    def find(self, one: _Seen, numbers: Floats) -> _Seen | None:
        """Return the structure that this one copies; if there is none, it is added.

        `numbers` are the invariants: a row of :func:`_invariants`.
        """
        shared = numbers[:4]
        keys = itertools.product(
            *np.floor([(shared - TOLERANCE) / _WIDTH, (shared + TOLERANCE) / _WIDTH]).T.astype(int)
        )
        for key in dict.fromkeys(keys):
            if (drawer := self._seen.get(key)) is not None:
                rows, seen = drawer
                hits = np.flatnonzero(np.abs(rows[: len(seen)] - numbers).max(axis=1) < TOLERANCE)
                if hits.size and (copied := _copied(one, [seen[k] for k in hits])) is not None:
                    return copied
        key = tuple(np.floor(shared / _WIDTH).astype(int))
        rows, seen = self._seen.get(key, (numbers[None], []))
        if len(seen) == len(rows):
            rows = np.concatenate([rows, rows])  # the second half is spare
        rows[len(seen)] = numbers
        seen.append(one)
        self._seen[key] = rows, seen
        return None


def _invariants(frames: Frames) -> Floats:
    """Return the invariants, one row per frame: four numbers for the bins, the lower cell (Å), all factors."""
    lower = np.linalg.cholesky(frames.cell @ frames.cell.transpose(0, 2, 1))[:, _LOWER[0], _LOWER[1]]
    waves = np.exp(2.0j * np.pi * frames.fractional() @ _MILLER.T)
    symbols = np.array(frames.symbols)
    factors = [np.abs(waves[:, symbols == kind].sum(axis=1)) for kind in sorted(set(frames.symbols))]
    scaled = np.concatenate(factors, axis=1) / np.sqrt(frames.n_atoms)
    last = len(_MILLER)
    return np.concatenate([scaled[:, last - 3 : last], lower[:, :1], lower, scaled], axis=1)


def _all_invariants(frames: Mapping[int, Frames]) -> dict[int, Floats]:
    """Return the same as for single frames, computed for many at once."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for k, frame in frames.items():
        alike.setdefault(frame.symbols, []).append(k)
    found: dict[int, Floats] = {}
    for rows in alike.values():
        for block in np.array_split(rows, -(-len(rows) // BLOCK)):
            found.update(zip(block.tolist(), _invariants(Frames.concatenate([frames[k] for k in block])), strict=True))
    return found


def _copied(one: _Seen, others: list[_Seen]) -> _Seen | None:
    """Return the first of these, with similar cells, whose atoms have the same fractional coordinates in any order."""
    cell = one.frame.cell[0]
    apart = np.stack([other.fractions for other in others]) - one.fractions
    is_ordered = np.array([other.frame.symbols == one.frame.symbols for other in others])
    here, moved = (_longest(x, cell) for x in (apart, apart - apart[:, :1]))
    for k, other in enumerate(others):
        if is_ordered[k] and (here[k] < NEAR or moved[k] < NEAR):
            return other
        # Where each atom is nearest to itself, no other order can do better.
        if not (is_ordered[k] and here[k] < MIN_DISTANCE / 2.0) and _is_permuted(one, other):
            return other
    return None


def _longest(apart: Floats, cell: Floats) -> Floats:
    longest: Floats = np.linalg.norm((apart - np.round(apart)) @ cell, axis=-1).max(axis=-1)
    return longest


def _is_permuted(one: _Seen, other: _Seen) -> bool:
    a, b = (np.where((x := s.fractions - np.floor(s.fractions)) < 1.0, x, 0.0) for s in (one, other))
    kinds, others = np.array(one.frame.symbols), np.array(other.frame.symbols)
    for kind in set(one.frame.symbols):
        mine, theirs = a[kinds == kind], b[others == kind]
        nearest = cKDTree(theirs, boxsize=1.0).query(mine)[1]
        if len(set(nearest)) < len(mine) or _longest(mine - theirs[nearest], one.frame.cell[0]) > NEAR:
            return False
    return True


def without_copies(reads: Sequence[Read], ledger: Ledger, reference: str, prefix: str) -> list[Read]:
    """Return the frames; one that copies an earlier one, or one in the ledger, has the reason.

    The rest of its trajectory is joined with that of the copied frame, since both are parts of one. Identical
    structures are not handled here.

    Parameters
    ----------
    reads
        All frames, in their order; those with a reason are skipped.
    ledger
        Existing labels.
    reference
        sha256 of the reference: labels of other references are ignored.
    prefix
        Prefix of imported trajectories in the ledger.
    """
    found = list(reads)
    fit = {k: r.frame for k, r in enumerate(reads) if r.frame is not None and is_label(r)}
    drawers = {tuple(sorted(symbols)): _Drawers() for symbols in {frame.symbols for frame in fit.values()}}
    entries = ledger.entries()
    exact = {entry.key for entry in entries}
    alike = [e for e in entries if e.reference == reference and tuple(sorted(e.symbols.split())) in drawers]
    there = {
        ~k: frame
        for k, entry in enumerate(alike)
        if entry.refused is None and (frame := ledger.frame(entry.key)) is not None
    }
    numbers = _all_invariants(there | fit)
    for k, frame in there.items():
        entry = alike[~k]
        walk = entry.walk.removeprefix(prefix) if entry.walk.startswith(prefix) else ""
        one = _Seen(frame, frame.fractional()[0], f"label {entry.key[:12]} of the ledger", walk)
        drawers[tuple(sorted(frame.symbols))].find(one, numbers[k])
    joined: dict[str, str] = {}
    for k, frame in fit.items():
        key = frame.structure_key(0, reference)
        if key in exact:
            continue
        exact.add(key)
        where, walk = reads[k].where, str(frame.origin["walk"][0])
        first = drawers[tuple(sorted(frame.symbols))].find(_Seen(frame, frame.fractional()[0], where, walk), numbers[k])
        if first is None:
            continue
        reason = COPY if _is_same_energy(frame, first.frame) else OTHER_ENERGY
        found[k] = replace(reads[k], where=f"{where}, as {first.where}", reason=reason)
        if first.walk and _root(joined, first.walk) != _root(joined, walk):
            joined[_root(joined, walk)] = _root(joined, first.walk)
    return [_moved(one, joined) for one in found] if joined else found


def _is_same_energy(one: Frames, other: Frames) -> bool:
    a, b = float(one.label("energy")[0]), float(other.label("energy")[0])
    return abs(a - b) <= ENERGY + RELATIVE_ENERGY * abs(a)


def _root(joined: dict[str, str], walk: str) -> str:
    while walk in joined:
        walk = joined[walk]
    return walk


def _moved(one: Read, joined: dict[str, str]) -> Read:
    walk = "" if one.frame is None else str(one.frame.origin["walk"][0])
    return (
        replace(one, frame=with_walk(one.frame, _root(joined, walk)))
        if one.frame is not None and walk in joined
        else one
    )
