"""The data set in two dimensions: the descriptors of its frames, along the two directions in which they differ most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from activelearn import descriptor, select
from activelearn.config import Campaign
from activelearn.frames import FloatArray, Frames
from activelearn.records import Iteration
from activelearn.store import Store

#: Where a frame of the data set is from, in the order in which they are drawn.
ORIGINS: Final = ("initial data", "from the window", "mined", "rescued", "held out")
#: The colour of each, the same in all pictures; no two that are compared differ in hue alone.
COLOURS: Final = {"initial data": "f0", "from the window": "f1", "mined": "f6", "rescued": "f2", "held out": "f3"}
#: Frames that are placed at the most, by what they are of; each takes 1.5 ms.
_MOST: Final = {"initial": 50, "held out": 40, "walked": 120}
#: Iterations whose frames are placed at the most.
_MOST_ITERATIONS: Final = 12


@dataclass(frozen=True, eq=False)
class Landscape:
    """Frames of the data set in the plane.

    Parameters
    ----------
    origin
        (n,) index into :data:`ORIGINS`.
    iteration
        (n,) that labelled the frame.
    formula
        Of each frame.
    at
        (n, 2) distances of descriptors along the two directions (dimensionless).
    shares
        Of the variance of all descriptors, along the first and the second direction.
    n_frames
        Training and held-out frames in all; those that are placed are spread evenly over them.
    """

    origin: NDArray[np.intp]
    iteration: NDArray[np.intp]
    formula: tuple[str, ...]
    at: FloatArray
    shares: tuple[float, float]
    n_frames: int


def landscape_of(store: Store, campaign: Campaign, records: Sequence[Iteration]) -> Landscape | None:
    """Return the frames of a data set in the plane; None if there are fewer than three."""
    if not records:
        return None
    placed = [*_initial(store, records), *_walked(store, records)]
    if len(placed) < 3:
        return None
    vectors = np.concatenate([descriptor.of_frames(frame, campaign.type_map) for _, _, frame in placed])
    at, shares = principal(vectors.astype(np.float64))
    held_out = sum(record.labelling.held_out for record in records)
    return Landscape(
        origin=np.array([ORIGINS.index(origin) for origin, _, _ in placed]),
        iteration=np.array([index for _, index, _ in placed]),
        formula=tuple(frame.formula for _, _, frame in placed),
        at=at,
        shares=shares,
        n_frames=records[-1].labelling.dataset_frames + held_out,
    )


def principal(vectors: FloatArray) -> tuple[FloatArray, tuple[float, float]]:
    """Return points along the two principal components, and the shares of the variance along each.

    Parameters
    ----------
    vectors
        (n, n_components), of any unit.

    Returns
    -------
    at, shares
        (n, 2) of the same unit, and two numbers from 0 to 1; 0 where the vectors do not differ.
    """
    centred = vectors - vectors.mean(axis=0)
    left, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])  # else those of a decomposition are open
    total = float((sizes**2).sum())
    at, shares = np.zeros((len(vectors), 2)), np.zeros(2)
    n = min(2, len(sizes))
    at[:, :n] = (left * sizes * signs)[:, :n]
    if total > 0.0:
        shares[:n] = sizes[:n] ** 2 / total
    return at, (float(shares[0]), float(shares[1]))


def _spread(parts: Sequence[Frames], most: int) -> list[Frames]:
    """Return a limited number of frames, evenly spread over some parts."""
    places = [(part, k) for part in parts for k in range(len(part))]
    chosen = np.unique(np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(int)) if places else ()
    return [places[k][0][places[k][1]] for k in chosen]


def _initial(store: Store, records: Sequence[Iteration]) -> Iterator[tuple[str, int, Frames]]:
    made = [record.index for record in records if record.selection is None]
    parts = [(index, part) for index in made for part in store.training(index)]
    yield from (
        ("initial data", int(frame.origin["iteration"][0]), frame)
        for frame in _spread([part for _, part in parts], _MOST["initial"])
    )
    held_out = store.held_out(records[-1].index)
    yield from (
        ("held out", int(frame.origin["iteration"][0]), frame) for frame in _spread(held_out, _MOST["held out"])
    )


def _walked(store: Store, records: Sequence[Iteration]) -> Iterator[tuple[str, int, Frames]]:
    walked = [record for record in records if record.selection is not None and record.labelling.labelled]
    every = -(-len(walked) // _MOST_ITERATIONS) or 1
    shown = walked[::-1][::every]
    for record in reversed(shown):
        f_hi = select.f_hi_by_walk(store.campaign(record.index), store, record.index)
        for frame in _spread(store.training(record.index), _MOST["walked"] // len(shown)):
            if float(frame.origin["max_devi_f"][0]) >= f_hi[str(frame.origin["walk"][0])]:
                yield "rescued", record.index, frame
            else:
                yield "mined" if _is_mined(store, record.index, frame) else "from the window", record.index, frame


def _is_mined(store: Store, iteration: int, frame: Frames) -> bool:
    """Return whether a frame is one of the last sane ones of a walk that failed."""
    walk, step = str(frame.origin["walk"][0]), int(frame.origin["step"][0])
    arrays, _ = store.read_some("explore", iteration, walk, ["kept_mined", "kept/origin"])
    if "kept_mined" not in arrays:
        return False
    return bool(arrays["kept_mined"][arrays["kept/origin"]["step"] == step].any())
