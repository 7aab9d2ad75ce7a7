"""Pairs of atoms within cutoffs, for many pairs of elements and many frames at once; and the chains they form.

Every periodic image counts separately, so that a primitive cell of eight atoms gives the same result as its supercell:
an atom may be bonded to two images of one neighbour, and to images of its own. The search is matscipy's; what follows
works on arrays over all frames, in which atom a of frame k has the number ``k * n_atoms + a``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn.frames import FloatArray, Frames

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
#: No atoms fit into a lower cell, Å.
LOWEST_A: Final = 0.3
#: Å, by pair of elements (in either order).
Cutoffs = Mapping[tuple[str, str], float]


@dataclass(frozen=True, eq=False)
class Bonds:
    """Directed pairs closer than the cutoff of their elements: each pair of atoms appears as (i, j) and as (j, i).

    Parameters
    ----------
    n_frames, n_atoms
        Of the frames that were searched.
    i, j
        (n_bonds,) atoms, numbered through all frames, ``frame * n_atoms + atom``; ascending in i.
    shift
        (n_bonds, 3) lattice vectors between them: ``r_j - r_i + shift @ cell`` is the bond. Two bonds of the same i and
        j differ in it.
    distance
        (n_bonds,) Å.
    kind
        (n_bonds,) index into `pairs`.
    pairs
        Pairs of elements that were searched for.
    cutoff
        (n_pairs,) Å; distances are below it.
    """

    n_frames: int
    n_atoms: int
    i: IntArray
    j: IntArray
    shift: IntArray
    distance: FloatArray
    kind: IntArray
    pairs: tuple[tuple[str, str], ...]
    cutoff: FloatArray

    @property
    def n_numbers(self) -> int:
        """Number of atoms of all frames together, the upper bound of i and j."""
        return self.n_frames * self.n_atoms

    def __getitem__(self, which: NDArray[Any]) -> Bonds:
        """Return the bonds of a mask or of indices."""
        return replace(self, **{name: getattr(self, name)[which] for name in ("i", "j", "shift", "distance", "kind")})


def find_bonds(frames: Frames, cutoffs: Cutoffs) -> Bonds:
    """Return all pairs of atoms closer than the cutoff of their elements.

    Parameters
    ----------
    frames
        Any cells, also smaller than a cutoff; atoms need not be wrapped.
    cutoffs
        Å, by pair of elements in either order; pairs that are not given have no bonds, and elements in no pair are
        excluded from the search.

    Returns
    -------
    Bonds
        Of all frames, in their order.

    Raises
    ------
    KeyError
        A pair contains an unknown element.
    ValueError
        A number is not finite, or a periodic cell is lower than any atom: neighbours would be missed, or endless.
    """
    _want_cells(frames)
    from ase.data import atomic_numbers
    from matscipy.neighbours import neighbour_list

    pairs = tuple(cutoffs)
    cutoff = np.array([cutoffs[pair] for pair in pairs], dtype=np.float64)
    taken = np.flatnonzero(np.isin(frames.symbols, [symbol for pair in pairs for symbol in pair]))
    numbers = np.array([atomic_numbers[frames.symbols[atom]] for atom in taken], dtype=np.int32)
    kind_of = np.zeros((len(atomic_numbers), len(atomic_numbers)), dtype=np.int64)
    for number, (a, b) in enumerate(pairs):
        kind_of[atomic_numbers[a], atomic_numbers[b]] = kind_of[atomic_numbers[b], atomic_numbers[a]] = number
    columns: list[tuple[NDArray[Any], ...]] = []
    for k in range(len(frames) if len(taken) and pairs else 0):
        i, j, d, shift = neighbour_list(
            "ijdS",
            positions=frames.positions[k, taken],
            cell=frames.cell[k],
            pbc=frames.pbc,
            numbers=numbers,
            cutoff=dict(cutoffs),
        )
        first = k * frames.n_atoms
        columns.append((taken[i] + first, taken[j] + first, shift, d, kind_of[numbers[i], numbers[j]]))
    none = np.empty(0, dtype=np.int64)
    empty = (none, none, np.empty((0, 3), dtype=np.int64), np.empty(0), none)
    i, j, shift, d, kind = (np.concatenate(column) for column in zip(empty, *columns, strict=True))
    return Bonds(
        n_frames=len(frames),
        n_atoms=frames.n_atoms,
        i=i,
        j=j,
        shift=shift,
        distance=d,
        kind=kind,
        pairs=pairs,
        cutoff=cutoff,
    )


def _want_cells(frames: Frames) -> None:
    what = f"bonds of {frames.formula}"
    if not (np.isfinite(frames.positions).all() and np.isfinite(frames.cell).all()):
        raise ValueError(f"{what}: a coordinate that is not finite - expected finite numbers - remove the frame")
    if len(frames) and all(frames.pbc):
        areas = np.linalg.norm(np.cross(np.roll(frames.cell, -1, axis=1), np.roll(frames.cell, -2, axis=1)), axis=2)
        if (frames.volume[:, None] < LOWEST_A * areas).any() or not areas.all():
            raise ValueError(f"{what}: a periodic cell lower than {LOWEST_A:g} Å - expected one that holds atoms")


def chain_sizes(bonds: Bonds) -> IntArray:
    """Return the number of atoms that bonds connect each atom to, itself included.

    A chain that crosses the whole cell has as many atoms as are in the cell.

    Returns
    -------
    NDArray
        (n_numbers,) counts, by the number of the atom.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = bonds.n_numbers
    graph = coo_array((np.ones(len(bonds.i), dtype=np.int8), (bonds.i, bonds.j)), shape=(n, n))
    _, chain = connected_components(graph, directed=False)
    sizes: IntArray = np.bincount(chain, minlength=1)[chain]
    return sizes


def sharing_pairs(bonds: Bonds, n_shared: int) -> IntArray:
    """Return the atoms j that share `n_shared` or more atoms i with one and the same other j, each once.

    A neighbour and its image are two atoms: corners shared with both are not an edge.

    Parameters
    ----------
    bonds
        From shared atoms (i) to sharing atoms (j), ascending in i.
    n_shared
        2: tetrahedra that share an edge.

    Returns
    -------
    NDArray
        (n_sharing,) indices of atoms, numbered through all frames, ascending.
    """
    _, begin, size = np.unique(bonds.i, return_index=True, return_counts=True)
    # All ordered pairs of bonds of one i: bond `first` is paired with each of the `size` bonds from `begin` on.
    first = np.repeat(np.arange(len(bonds.i)), np.repeat(size, size))
    n_partners = np.repeat(size, size)
    nth = np.arange(len(first)) - np.repeat(np.cumsum(n_partners) - n_partners, n_partners)
    second = np.repeat(np.repeat(begin, size), n_partners) + nth
    first, second = first[first != second], second[first != second]
    rows = np.column_stack((bonds.j[first], bonds.j[second], bonds.shift[second] - bonds.shift[first]))
    rows = rows[np.lexsort(rows.T)]
    is_new = np.ones(len(rows), dtype=bool)
    is_new[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    start = np.flatnonzero(is_new)
    times = np.diff(np.append(start, len(rows)))
    sharing: IntArray = np.unique(rows[start[times >= n_shared], 0])
    return sharing
