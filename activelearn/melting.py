"""Did it melt: how far the network formers of a glass moved in the melt that it was quenched from.

A "melt" in which they stay where they were is a hot crystal, or the packing, and so is the glass; or it was too short
to tell. Anything that moves beside them (a fast ion, anions that rotate about their former) is no sign of melting. The
bounds are in :mod:`activelearn.stamping`.
"""

from __future__ import annotations

import numpy as np

from activelearn.config import Glass
from activelearn.frames import FloatArray, Frames
from activelearn.records import Melt
from activelearn.stamping import TOLERANCE_A, has_melted
from activelearn.store.glass_product import GlassPath
from activelearn.trajectory import CannotFollow, unwrap, without_drift


def melt_of(path: GlassPath, glass: Glass) -> Melt:
    """Return how far the formers of a glass moved, from the first frame that was kept of its melt to the last.

    Not from the packing or crystal itself: rearranged contacts and the onset of vibrations are not melting.
    A glass without formers is judged by all of its atoms.
    """
    present = set(path.frames.symbols)
    formers = tuple(element for element in glass.series.roles.formers if element in present)
    melt = glass.melt
    if not melt:
        why = "no segment is held at the highest temperature before a colder one, and none is marked is_melt"
        return Melt(formers=formers, is_melted=None, why=why)
    names = " and ".join(glass.segments[i].name for i in melt)
    died_in = path.ended.partition(": ")[0]
    if not path.is_finished and died_in in path.segments[: melt[-1] + 1]:
        return Melt(formers=formers, is_melted=None, why=f"it died before the end of {names}")
    rows = np.flatnonzero((path.frame_segment >= melt[0]) & (path.frame_segment <= melt[-1]))
    if len(rows) < 2:
        why = f"{len(rows)} frame{'s' if len(rows) != 1 else ''} kept of {names}, needs n_frames of 2 or more"
        return Melt(formers=formers, is_melted=None, why=why)
    try:
        moved_A = displacements(path.frames[rows], formers)
    except CannotFollow as reason:
        return Melt(formers=formers, is_melted=None, why=f"{names}: {reason}")
    msd_A2, overlap = float((moved_A**2).mean()), float((moved_A <= TOLERANCE_A).mean())
    times = path.times_ps[rows]
    return Melt(
        formers=formers,
        is_melted=has_melted(msd_A2, overlap),
        ps=float(times[-1] - times[0]),
        msd_A2=msd_A2,
        overlap=overlap,
    )


def displacements(frames: Frames, formers: tuple[str, ...]) -> FloatArray:
    """Return (n_formers,) distances of the formers from where they were in the first frame, in the last, Å.

    The drift of the centre of mass of all atoms is removed. Atoms are followed across the boundaries by minimum images
    from frame to frame: one that moves more than half a cell in between is assigned to a wrong image.

    Parameters
    ----------
    frames
        Consecutive frames, Å, wrapped or not; cells may be triclinic.
    formers
        Elements; (): all atoms.

    Raises
    ------
    CannotFollow
        The lattice vectors of a frame cannot be matched with those of the one before.
    """
    positions = without_drift(unwrap(frames).positions, frames.masses)
    is_former = np.isin(frames.symbols, formers or tuple(set(frames.symbols)))
    return np.asarray(np.linalg.norm(positions[-1] - positions[0], axis=1)[is_former])
