"""Maps of diffusion: how far each former has moved, and where the carrier moves (Luo et al. 2024, Fig. 5a and S4).

A map is a :class:`~activelearn.records.Curve` of name ``map`` whose arrays are not a line. All lengths are in Å, all
times inside the window that D is fitted in (10-19 ns of 20 ns), all positions relative to the centre of mass of the
cell; every path begins inside the mean cell (``key/cell``, (3, 3)) and continues across its boundaries. By label:

``P displacement``
    x (n_atoms, 3) position at the start of the window; y (n_atoms,) length of the displacement up to its end.
``P paths``, ``Na paths``
    x (n_lines, n_points, 3) positions; y (n_lines, n_points) displacement from the first point. Of formers all (at
    most :data:`MAX_LINES`), of the carrier the :data:`N_FASTEST` that move farthest, the farthest first.
``Na density``
    x (n_a, n_b, 2) middles of the bins along the first two lattice vectors, as x and y; y (n_a, n_b) carriers per Å^2,
    averaged over time and summed along the third lattice vector.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn.frames import FloatArray

NAME: Final = "map"
MAX_LINES: Final = 250
N_FASTEST: Final = 12
N_POINTS: Final = 60
#: Width of a bin of the density, Å, and the most of them along a lattice vector.
BIN_A: Final = 0.5
MAX_BINS: Final = 100


def wrapped(positions: FloatArray, cell: FloatArray) -> FloatArray:
    """Return positions (..., 3) brought into the cell (3, 3), rows lattice vectors; all in Å."""
    fractional = positions @ np.linalg.inv(cell)
    return np.asarray((fractional - np.floor(fractional)) @ cell)


def displacements(unwrapped: FloatArray) -> FloatArray:
    """Return (n_atoms, n_frames) distances of atoms from where they are in the first frame, Å."""
    return np.asarray(np.linalg.norm(unwrapped - unwrapped[0], axis=2).T)


def displacement_map(unwrapped: FloatArray, cell: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return positions at the start (n_atoms, 3), wrapped, and lengths of the displacements at the end (n_atoms,), Å.

    Parameters
    ----------
    unwrapped, cell
        (n_frames, n_atoms, 3) and (3, 3), the mean cell; Å.
    """
    return wrapped(unwrapped[0], cell), np.asarray(np.linalg.norm(unwrapped[-1] - unwrapped[0], axis=1))


def paths(unwrapped: FloatArray, cell: FloatArray, atoms: NDArray[np.integer[Any]]) -> tuple[FloatArray, FloatArray]:
    """Return the paths of some atoms as lines of at most :data:`N_POINTS` points that begin inside the cell.

    Parameters
    ----------
    unwrapped
        (n_frames, n_atoms, 3) Å.
    cell
        (3, 3) mean cell, Å.
    atoms
        (n_lines,) indices of the atoms.

    Returns
    -------
    lines, lengths
        (n_lines, n_points, 3) positions and (n_lines, n_points) displacements from the first point, Å.
    """
    points = np.unique(np.round(np.linspace(0, len(unwrapped) - 1, N_POINTS)).astype(np.int64))
    lines = unwrapped[points][:, atoms]
    lines = lines + (wrapped(lines[0], cell) - lines[0])
    return np.asarray(lines.transpose(1, 0, 2)), displacements(lines)


def fastest(unwrapped: FloatArray, n: int = N_FASTEST) -> NDArray[np.int64]:
    """Return the indices (n,) of the atoms that move farthest from their start, the farthest first.

    Parameters
    ----------
    unwrapped
        (n_frames, n_atoms, 3) Å.
    n
        How many, at most all.
    """
    return np.argsort(-displacements(unwrapped).max(axis=1), kind="stable")[:n]


def density_map(unwrapped: FloatArray, cell: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the mean density of atoms, seen along the third lattice vector.

    Parameters
    ----------
    unwrapped, cell
        (n_frames, n_atoms, 3) and (3, 3), the mean cell; Å.

    Returns
    -------
    middles, density
        (n_a, n_b, 2) Å and (n_a, n_b) atoms per Å^2; its sum times the area of a bin is the number of atoms.
    """
    fractional = unwrapped @ np.linalg.inv(cell)
    fractional -= np.floor(fractional)
    n_bins = np.clip(np.round(np.linalg.norm(cell[:2], axis=1) / BIN_A).astype(int), 4, MAX_BINS)
    unit_square = ((0.0, 1.0), (0.0, 1.0))
    counts, _, _ = np.histogram2d(
        fractional[..., 0].ravel(), fractional[..., 1].ravel(), bins=n_bins.tolist(), range=unit_square
    )
    area = float(np.linalg.norm(np.cross(cell[0], cell[1]))) / n_bins.prod()
    a, b = np.meshgrid(*((np.arange(n) + 0.5) / n for n in n_bins), indexing="ij")
    middles = (a[..., None] * cell[0] + b[..., None] * cell[1])[..., :2]
    return middles, np.asarray(counts / (len(unwrapped) * area))


def maps_of(
    of_element: dict[str, FloatArray], cell: FloatArray, formers: list[str], carrier: str | None
) -> dict[str, NDArray[np.float32]]:
    """Return all maps of a run, as ``label/x`` and ``label/y``.

    Parameters
    ----------
    of_element
        (n_frames, n_atoms, 3) Å of each element, inside the window.
    cell
        (3, 3) mean cell, Å.
    formers, carrier
        Elements that have maps; no carrier: None.

    Returns
    -------
    dict
        Shapes and units as described in the docstring of this module: paths (n_lines, n_points, 3) and
        (n_lines, n_points), Å.
    """
    found: dict[str, tuple[FloatArray, FloatArray]] = {}
    for former in formers:
        atoms = np.arange(of_element[former].shape[1])[:MAX_LINES]
        found[f"{former} displacement"] = displacement_map(of_element[former], cell)
        found[f"{former} paths"] = paths(of_element[former], cell, atoms)
    if carrier is not None:
        found[f"{carrier} paths"] = paths(of_element[carrier], cell, fastest(of_element[carrier]))
        found[f"{carrier} density"] = density_map(of_element[carrier], cell)
    return {
        f"{label}/{axis}": array.astype(np.float32)
        for label, arrays in found.items()
        for axis, array in zip("xy", arrays, strict=True)
    }


def axes_of(label: str) -> tuple[str, str]:
    """Return the names of x and y of the curve of a map."""
    if label.endswith("density"):
        return "x, y (Å)", "atoms per area (1/Å2)"
    return "x, y, z (Å)", "displacement (Å)"
