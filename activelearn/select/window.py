"""The trust window: accurate, candidate or failed, by the force deviation of the ensemble.

The deviation of a frame is eps = max_i sqrt( (1/M) sum_k |F_ik - <F_i>|^2 ) over M members, in the population form: the
column ``max_devi_f`` of LAMMPS' model_devi.out (Zhang et al., Comput. Phys. Commun. 253, 107206 (2020), eq. 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from activelearn.frames import FloatArray
from activelearn.records import Counts

FrameClasses = NDArray[np.int8]


class FrameClass(IntEnum):
    """Class of a frame with respect to the trust window."""

    ACCURATE = 0
    CANDIDATE = 1
    FAILED = 2
    OUT_OF_REGION = 3


def force_deviation(forces: FloatArray) -> FloatArray:
    """Return (n_frames,) max over atoms of the standard deviation of the force over the ensemble, eV/Å.

    Parameters
    ----------
    forces
        (n_members, n_frames, n_atoms, 3), eV/Å.
    """
    return np.asarray(atomic_deviation(forces).max(axis=-1))


def atomic_deviation(forces: FloatArray) -> FloatArray:
    """Return (n_frames, n_atoms) standard deviations of the force on each atom over the ensemble, eV/Å.

    Parameters
    ----------
    forces
        (n_members, n_frames, n_atoms, 3), eV/Å.
    """
    spread = forces - forces.mean(axis=0, keepdims=True)
    deviation: FloatArray = np.sqrt((spread**2).sum(axis=-1).mean(axis=0))
    return deviation


def classify(max_devi_f: FloatArray, f_lo: float, f_hi: float) -> FrameClasses:
    """Return the class of each frame: accurate < f_lo <= candidate < f_hi <= failed; not finite is failed.

    Parameters
    ----------
    max_devi_f
        (n_frames,) eV/Å.
    f_lo, f_hi
        The trust window, eV/Å.
    """
    classes = np.full(len(max_devi_f), FrameClass.FAILED, dtype=np.int8)
    classes[max_devi_f < f_hi] = FrameClass.CANDIDATE
    classes[max_devi_f < f_lo] = FrameClass.ACCURATE
    return classes


def classify_walk(
    max_devi_f: FloatArray,
    *,
    n_planned: int,
    window: tuple[float, float],
    outside_from: int | None,
    is_broken: bool = False,
) -> FrameClasses:
    """Return the class of every *planned* frame of a walk.

    Frames that a walk never reached because it broke (lost atoms, NaN) are failed, as are all after the first that is
    not finite, however healthy they look; frames from `outside_from` on are out of the region, reached or not.

    Parameters
    ----------
    max_devi_f
        (n_whole,) of the frames reached, eV/Å.
    n_planned
        Frames that the walk should have.
    window
        f_lo, f_hi in eV/Å.
    outside_from
        First frame past a geometry guard, or None.
    is_broken
        Whether the walk broke off (lost atoms, NaN): then frames never reached are failed even past a guard.
    """
    classes = np.full(n_planned, FrameClass.FAILED, dtype=np.int8)
    bad = np.flatnonzero(~np.isfinite(max_devi_f))
    n_good = min(len(max_devi_f) if len(bad) == 0 else int(bad[0]), n_planned)
    classes[:n_good] = classify(max_devi_f[:n_good], *window)
    if outside_from is not None:
        classes[outside_from : len(max_devi_f) if is_broken else n_planned] = FrameClass.OUT_OF_REGION
    return classes


def reclassified(classes: FrameClasses, max_devi_f: FloatArray, window: tuple[float, float]) -> FrameClasses:
    """Return the classes of a walk by another window; frames out of the region or never reached keep their class.

    Parameters
    ----------
    classes
        (n_planned,) from :func:`classify_walk`.
    max_devi_f
        (n_whole,) of the frames reached, eV/Å.
    window
        f_lo, f_hi in eV/Å.
    """
    outside = np.flatnonzero(classes == FrameClass.OUT_OF_REGION)
    return classify_walk(
        max_devi_f,
        n_planned=len(classes),
        window=window,
        outside_from=int(outside[0]) if len(outside) else None,
        is_broken=bool(classes[-1] == FrameClass.FAILED),
    )


def count(kinds: Sequence[FrameClasses]) -> Counts:
    """Return the counts of some walks."""
    joined = np.concatenate([*kinds, np.empty(0, dtype=np.int8)])
    totals = {one.name.lower(): int((joined == one).sum()) for one in FrameClass}
    return Counts(walked=len(joined), walks=len(kinds), **totals)
