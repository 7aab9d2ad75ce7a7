"""A trajectory followed across the boundaries of its cell, and without the drift of its centre of mass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from activelearn.errors import ActiveLearnError
from activelearn.frames import FloatArray, Frames

#: A step longer than this share of the cell may as well have been one in the opposite direction.
AMBIGUOUS_STEP: Final = 0.4


class CannotFollow(ActiveLearnError):
    """A trajectory whose atoms cannot be distinguished from their images; the message says where and why."""


@dataclass(frozen=True, eq=False)
class Unwrapped:
    """A trajectory whose atoms are followed across the boundaries.

    Parameters
    ----------
    positions
        (n_frames, n_atoms, 3) Å, in the mean cell.
    cell
        (3, 3) mean cell, Å, by the lattice vectors of the first frame.
    n_ambiguous
        Steps of single atoms from one frame to the next that are longer than 0.4 of the cell along an axis: their
        direction is a guess, and more frames are needed.
    """

    positions: FloatArray
    cell: FloatArray
    n_ambiguous: int


def unwrap(frames: Frames) -> Unwrapped:
    """Follow atoms across the periodic boundaries of a cell that may move (NPT).

    Steps between frames are taken as minimum images in fractional coordinates, summed up, and multiplied by the mean
    cell: so a cell whose volume fluctuates displaces no atom. Where the lattice is described by other vectors from some
    frame on (LAMMPS flips a cell that tilts too far), all frames are taken in those of the first.

    Parameters
    ----------
    frames
        Consecutive frames, Å, wrapped or not; cells may be triclinic.

    Raises
    ------
    CannotFollow
        From one frame to the next the cell changes by too much to be distinguished from another choice of lattice
        vectors.
    """
    cells = _in_first_vectors(frames.cell)
    fractional = frames.positions @ np.linalg.inv(cells)  # not Frames.fractional: MSDs keep their last bits
    steps = np.diff(fractional, axis=0)
    steps -= np.round(steps) * np.array(frames.pbc)
    is_long = np.abs(steps) * np.array(frames.pbc) > AMBIGUOUS_STEP
    n_ambiguous = int(np.count_nonzero(is_long.any(axis=2)))
    fractional[1:] = fractional[:1] + np.cumsum(steps, axis=0)
    cell = cells.mean(axis=0)
    return Unwrapped(fractional @ cell, cell, n_ambiguous)


def _in_first_vectors(cell: FloatArray) -> FloatArray:
    """Return the cells (n_frames, 3, 3), Å, of one lattice by the vectors that follow from those of the first frame.

    From one frame to the next, new vectors are whole numbers of the old ones (as rows: new = M old, |det M| = 1), apart
    from the strain of a step; without a flip M is one.
    """
    change = cell[1:] @ np.linalg.inv(cell[:-1])
    whole = np.rint(change)
    is_clear = (np.abs(change - whole) <= AMBIGUOUS_STEP).all(axis=(1, 2)) & np.isclose(abs(np.linalg.det(whole)), 1.0)
    if not is_clear.all():
        k = int(np.argmin(is_clear))
        before, after = cell[k : k + 2].round(2).tolist()
        raise CannotFollow(
            f"frames {k} and {k + 1}: the cell changes from {before} to {after} Å, too much to follow its atoms, "
            "needs more n_frames"
        )
    carried = cell.copy()
    for k in reversed(np.flatnonzero((whole != np.eye(3)).any(axis=(1, 2))).tolist()):
        carried[k + 1 :] = np.rint(np.linalg.inv(whole[k])) @ carried[k + 1 :]
    return carried


def without_drift(unwrapped: FloatArray, masses: FloatArray) -> FloatArray:
    """Return positions relative to the centre of mass of all atoms, which stays where it was in the first frame.

    Parameters
    ----------
    unwrapped
        (n_frames, n_atoms, 3) Å, of all atoms.
    masses
        (n_atoms,) of any unit; u here.

    Returns
    -------
    FloatArray
        (n_frames, n_atoms, 3) Å.
    """
    centre = np.einsum("tai,a->ti", unwrapped, masses) / masses.sum()
    return np.asarray(unwrapped - (centre - centre[0])[:, None, :])
