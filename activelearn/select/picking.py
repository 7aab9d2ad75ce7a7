"""Pick: which candidates are labelled, at random or far from each other, under the caps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from activelearn.config import Select
from activelearn.frames import FloatArray
from activelearn.select.keeping import Indices

#: Descriptors against which the pool is measured at a time (memory: this times the pool, 8 bytes each).
_BLOCK = 256


@dataclass(frozen=True, eq=False)
class Pool:
    """The frames that may be picked.

    Parameters
    ----------
    walk, cell
        (n_frames,) which walk and which cell of the matrix each frame is of.
    max_devi_f
        (n_frames,) eV/Å.
    descriptor
        (n_frames, n) of :mod:`activelearn.descriptor`, or None if frames are not compared.
    anchors
        (n_anchors, n) descriptors of the frames that were chosen before.
    """

    walk: Indices
    cell: Indices
    max_devi_f: FloatArray
    descriptor: NDArray[np.float32] | None = None
    anchors: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.walk)


class _Picks:
    """The picks so far: what the caps still allow, and how far every frame of the pool is from everything chosen."""

    def __init__(self, pool: Pool, settings: Select, room: int) -> None:
        self.pool = pool
        self.room = room
        self.taken: list[int] = []
        caps = (("cap per walk", pool.walk, settings.max_per_walk), ("cap per cell", pool.cell, settings.max_per_cell))
        self._caps = [(reason, group, cap) for reason, group, cap in caps if cap is not None]
        self._used: dict[str, Counter[int]] = {reason: Counter() for reason, _, _ in self._caps}
        self._full = {reason: np.zeros(len(pool), dtype=bool) for reason, _, _ in self._caps}
        self._too_near = settings.duplicate_distance**2
        self.distance2 = np.full(len(pool), np.inf)
        if pool.descriptor is not None:
            self._scratch = np.empty_like(pool.descriptor)
            if len(pool) and pool.anchors is not None and len(pool.anchors):
                self.distance2 = nearest2(pool.descriptor, pool.anchors)

    def take(self, i: int) -> None:
        """Choose frame `i`."""
        self.taken.append(i)
        for reason, group, cap in self._caps:
            self._used[reason][int(group[i])] += 1
            if self._used[reason][int(group[i])] >= cap:
                self._full[reason] |= group == group[i]
        if self.pool.descriptor is not None:
            np.subtract(self.pool.descriptor, self.pool.descriptor[i], out=self._scratch)
            np.minimum(self.distance2, np.einsum("ij,ij->i", self._scratch, self._scratch), out=self.distance2)

    def refusal(self, i: int) -> str | None:
        """Return why frame `i` may not be chosen (any more), or None."""
        for reason, full in self._full.items():
            if full[i]:
                return reason
        if self.distance2[i] < self._too_near:
            return "near duplicate"
        return "cap per iteration" if len(self.taken) >= self.room else None

    def allowed(self) -> NDArray[np.bool_]:
        """Return (n_frames,) which frames may still be chosen, as far as caps and distances are concerned."""
        free = self.distance2 >= self._too_near
        free[self.taken] = False
        for full in self._full.values():
            free &= ~full
        return free


def pick(pool: Pool, settings: Select, room: int, rng: np.random.Generator) -> tuple[Indices, dict[str, int]]:
    """Choose frames under the caps per walk, per cell of the matrix and per iteration.

    ``random``: in random order. ``diverse``: a share at random first, so that what is labelled stays an unbiased sample
    of the window (of its errors, for the calibration); then always the frame farthest from everything chosen, now or in
    earlier iterations, beginning with the one of largest deviation if nothing was ever chosen (farthest-point sampling:
    Eldar et al., IEEE Trans. Image Process. 6, 1305 (1997)). Near duplicates are passed over by both.

    Parameters
    ----------
    pool
        The frames.
    settings
        Holds picker and caps.
    room
        How many may be chosen in all.
    rng
        Random numbers.

    Returns
    -------
    chosen
        Sorted indices.
    passed_over
        Frames not chosen, by reason.
    """
    picks = _Picks(pool, settings, room)
    if settings.pick == "diverse":
        _at_random(picks, rng, round(settings.random_share * min(room, len(pool))))
        _farthest(picks)
        left = [picks.refusal(i) for i in np.setdiff1d(np.arange(len(pool)), picks.taken).tolist()]
    else:
        left = _at_random(picks, rng, room)
    passed_over = Counter(reason for reason in left if reason is not None)
    return np.array(sorted(picks.taken), dtype=np.intp), dict(passed_over)


def _at_random(picks: _Picks, rng: np.random.Generator, n: int) -> list[str | None]:
    """Choose up to `n` frames in random order; return why the others were not chosen."""
    left: list[str | None] = []
    for i in rng.permutation(len(picks.pool)).tolist():
        refusal = picks.refusal(i)
        if refusal is None and len(picks.taken) < n:
            picks.take(i)
        else:
            left.append(refusal)
    return left


def _farthest(picks: _Picks) -> None:
    """Choose the frame farthest from all chosen ones, until there is no room or none is allowed."""
    is_first = not picks.taken and not np.isfinite(picks.distance2).any()
    while len(picks.taken) < picks.room:
        free = picks.allowed()
        if not free.any():
            return
        measure = picks.pool.max_devi_f if is_first else picks.distance2
        picks.take(int(np.argmax(np.where(free, measure, -np.inf))))
        is_first = False


def nearest2(pool: NDArray[np.float32], anchors: NDArray[np.float32]) -> FloatArray:
    """Return (n_frames,) the squared distance of each row of `pool` to its nearest anchor, dimensionless.

    Both are descriptors, (n_frames, n) and (n_anchors, n) (:mod:`activelearn.descriptor`).
    As |x|^2 + min_a (|a|^2 - 2 a.x), one matrix product per block of anchors, in single precision: about the mean of
    the pool, where the cancellation costs some 1e-6 of a squared distance that matters from 1e-3 on.
    """
    origin = pool.mean(axis=0, dtype=np.float64).astype(np.float32)
    here = pool - origin
    with_one = np.concatenate([here.T, np.ones((1, len(pool)), dtype=np.float32)])
    found = np.full(len(pool), np.inf)
    for start in range(0, len(anchors), _BLOCK):
        there = anchors[start : start + _BLOCK] - origin
        norm2 = np.einsum("ij,ij->i", there, there)[:, None]
        np.minimum(found, (np.concatenate([-2.0 * there, norm2], axis=1) @ with_one).min(axis=0), out=found)
    nearest: FloatArray = np.maximum(found + np.einsum("ij,ij->i", here, here), 0.0)
    return nearest
