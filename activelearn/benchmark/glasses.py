"""The glasses of a study, as the analyses want them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelearn.frames import FloatArray, Frames
from activelearn.records import Glasses, MadeGlass
from activelearn.store import StudyStore
from activelearn.store.study import GLASS, ONCE, PORE


@dataclass(frozen=True, eq=False)
class GlassFrames:
    """The kept frames of one glass, from the melt to the last segment.

    Parameters
    ----------
    all
        Frames of all segments, in order.
    analysed
        Of them, those of the segments that are analysed.
    segment
        (n_frames,) name of the segment of each of all frames.
    time_ps
        (n_frames,) since the start of its segment.
    thermo
        Columns of the thermo table, see :mod:`activelearn.glass`.
    """

    all: Frames
    analysed: Frames
    segment: NDArray[np.str_]
    time_ps: FloatArray
    thermo: dict[str, NDArray[Any]]

    @property
    def final(self) -> Frames:
        """The last frame."""
        return self.all[-1:]


def glasses_of(store: StudyStore) -> tuple[MadeGlass, ...]:
    """Return the glasses that were finished; none if the study makes none."""
    if not store.is_sealed(GLASS, ONCE):
        return ()
    return store.result(GLASS, ONCE, Glasses).made


def frames_of(store: StudyStore, glass: MadeGlass) -> GlassFrames:
    """Read the product of a glass; that of a porous one stands in the product of the dense one it was cut from."""
    arrays, meta = store.read_product(GLASS, ONCE, glass.id.removesuffix("-pore") if glass.is_porous else glass.id)
    if glass.is_porous:
        arrays = {key.removeprefix(PORE): value for key, value in arrays.items() if key.startswith(PORE)}
        meta = meta["pore"]
    frames = Frames.from_arrays(arrays, "frames/")
    index = arrays["frame_segment"]
    is_analysed = np.flatnonzero(np.isin(index, meta["analysed"]))
    return GlassFrames(
        all=frames,
        analysed=frames[is_analysed],
        segment=np.array(meta["segments"])[index],
        time_ps=arrays["frame_time_ps"],
        thermo={key.removeprefix("thermo/"): value for key, value in arrays.items() if key.startswith("thermo/")},
    )
