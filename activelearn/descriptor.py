"""Descriptor: one vector per frame, so that frames are compared by their atomic environments, not by their numbers.

Per atom and per element of the neighbour, a radial histogram; over the atoms of an element, its mean and its standard
deviation. So the layout is fixed by ``type_map`` alone (every ordered pair of elements has its block, empty or not),
and the vector is invariant under rotation, translation, reflection, permutation of like atoms and repetition of the
cell: small and large cells, and all compositions of a campaign, compare. The mean holds composition, density and bond
lengths; the deviation distinguishes order from disorder, and one broken environment among many (it grows as the square
root of their share, the mean as the share).

Distances are Euclidean and dimensionless. On Na3PS4 (64 atoms, SevenNet-0 MD): 0.012 between frames 1 fs apart at 300 K
(0.02 at 1000 K, 32 atoms), 0.26 between thermally independent ones (0.5 at 1000 K), 0.36 if one of the 32 P-S bonds is
stretched by 1.2 Å, 1.0 if the crystal is compressed by 3 % in length. Thermal distances go as the root of the
temperature and as one over the root of the number of atoms.

Why not SOAP: DScribe would be one more compiled dependency for some hundred picks, and its vectors for four elements
have thousands of components; the angles that a radial histogram lacks show in the second shell. The neighbours are
matscipy's (128 atoms: 1 ms; ASE's list: 19 ms), the rest is numpy; 1.5 ms a frame of 128 atoms in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from activelearn.frames import FloatArray, Frames

DescriptorArray = NDArray[np.float32]

#: Neighbours within this distance count (Å): two to three shells. Not the cutoff of the network: frames are compared
#: here, and their descriptors stay valid whatever is trained.
CUTOFF_A: Final = 6.0
#: The histogram begins here (Å); shorter distances are past every geometry guard.
SHORTEST_A: Final = 0.5
#: Splines per ordered pair of elements.
N_BINS: Final = 8


def size(type_map: Sequence[str]) -> int:
    """Return the length of the vector: mean and deviation of N_BINS numbers per ordered pair of elements."""
    return 2 * N_BINS * len(type_map) ** 2


def of_frames(frames: Frames, type_map: Sequence[str], rcut: float = CUTOFF_A) -> DescriptorArray:
    """Return (n_frames, :func:`size`) descriptors.

    Parameters
    ----------
    frames
        Periodic or not.
    type_map
        All elements of the campaign: the layout.
    rcut
        Cutoff, Å.
    """
    from matscipy.neighbours import neighbour_list

    kind = np.array([list(type_map).index(symbol) for symbol in frames.symbols], dtype=np.intp)
    shape = (len(frames), len(type_map), 2, len(type_map), N_BINS)
    found = np.zeros(shape, dtype=np.float32)
    for f in range(len(frames)):
        i, j, d = neighbour_list("ijd", cell=frames.cell[f], positions=frames.positions[f], pbc=frames.pbc, cutoff=rcut)
        histogram = _histograms(i, j, d, kind, shape[1], rcut)
        for element in np.unique(kind):
            of_element = histogram[kind == element]
            found[f, element] = of_element.mean(axis=0), of_element.std(axis=0)
    return found.reshape(len(frames), size(type_map))


def _histograms(
    i: NDArray[np.intp], j: NDArray[np.intp], d: FloatArray, kind: NDArray[np.intp], n_kinds: int, rcut: float
) -> FloatArray:
    """Return (n_atoms, n_kinds, N_BINS): neighbours by element and distance.

    A neighbour counts in three bins by quadratic B-splines (smooth, and sensitive to a shift everywhere, unlike cosines
    at their maxima). A bin at distance r is divided by (r / 2 Å)^2, as its population in a homogeneous system grows:
    else the far shells, of many neighbours and little force, would drown the bonds.
    """
    width = (rcut - SHORTEST_A) / (N_BINS + 2)  # a spline spans three widths: all end smoothly at the cutoff
    place = (d - SHORTEST_A) / width
    first = np.floor(place).astype(np.intp)
    t = place - first
    weights = (0.5 * (1.0 - t) ** 2, 0.5 + t - t * t, 0.5 * t * t)
    histogram = np.zeros(len(kind) * n_kinds * N_BINS)
    row = (i * n_kinds + kind[j]) * N_BINS
    for k, weight in enumerate(weights):
        column = first - 2 + k
        inside = (column >= 0) & (column < N_BINS)
        histogram += np.bincount((row + column)[inside], weight[inside], len(histogram))
    centre = SHORTEST_A + width * (np.arange(N_BINS) + 1.5)
    scaled: FloatArray = histogram.reshape(len(kind), n_kinds, N_BINS) * (2.0 / centre) ** 2
    return scaled
