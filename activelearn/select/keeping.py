"""What a walk keeps of its frames: those that selection may need, chosen where the walk is made."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from activelearn.config import Select
from activelearn.frames import FloatArray
from activelearn.select.window import FrameClass, FrameClasses

Indices = NDArray[np.intp]


def mined(classes: FrameClasses, settings: Select) -> Indices:
    """Return the last candidates before a failed walk failed: on the way to the hole of the potential, but still sane.

    Parameters
    ----------
    classes
        (n_planned,) of every planned frame of the walk, including those that a broken walk never reached.
    settings
        Holds how many (``rescue.mined_per_walk``).
    """
    if not (classes == FrameClass.FAILED).any():
        return np.empty(0, dtype=np.intp)
    first_bad = int(np.argmax(classes >= FrameClass.FAILED))
    most = min(settings.rescue.mined_per_walk, _most_candidates(settings))
    sane = np.flatnonzero(classes[:first_bad] == FrameClass.CANDIDATE)
    return sane[len(sane) - min(most, len(sane)) :]


def worth_keeping(classes: FrameClasses, max_devi_f: FloatArray, settings: Select, rng: np.random.Generator) -> Indices:
    """Return the frames of a walk that selection may need, in step order.

    Candidates: at most as many as one iteration may label, those of :func:`mined` first, the others at random. The
    earliest failed frames below the rescue bound, for a pass that needs rescue: labels are most informative on the way
    into a hole of the potential. And, if the campaign audits, some accurate frames.

    Parameters
    ----------
    classes
        (n_planned,) of every planned frame.
    max_devi_f
        (n_reached,) of the frames reached, eV/Å.
    settings
        Caps and bounds.
    rng
        Random numbers.
    """
    certain = mined(classes, settings)
    candidates = np.setdiff1d(np.flatnonzero(classes == FrameClass.CANDIDATE), certain)
    room = _most_candidates(settings) - len(certain)
    if len(candidates) > room:
        candidates = rng.choice(candidates, room, replace=False)
    beyond = np.flatnonzero(~(max_devi_f < settings.rescue.max_devi_f))
    way_in = classes[: beyond[0] if len(beyond) else len(max_devi_f)]
    failed = np.flatnonzero(way_in == FrameClass.FAILED)[: settings.rescue.frames_per_walk]
    accurate = np.flatnonzero(classes == FrameClass.ACCURATE)
    if len(accurate) > settings.audit_frames:
        accurate = rng.choice(accurate, settings.audit_frames, replace=False)
    return np.unique(np.concatenate([certain, candidates, failed, accurate]))


def _most_candidates(settings: Select) -> int:
    """Return how many candidates of one walk can be chosen at all."""
    return min(settings.max_frames, settings.max_per_walk or settings.max_frames)
