"""Calibration: how the force deviation relates to the true force error, measured on every labelled frame.

The fixed window (the papers') says at which deviation a frame is accurate; the calibrated one, at which *error* of the
force on any atom, and for which share of the worse frames a wrong verdict is tolerated. With the ratio r = error /
deviation of the frames labelled last, the error of a frame below f_lo = max_error / q is above ``max_error`` with a
probability of at most the false-accept rate, q being the conformal quantile of r: the value of rank
ceil((n + 1)(1 - rate)) among n (Angelopoulos & Bates, arXiv:2107.07511, section 1). That holds for exchangeable frames.
Candidates are not quite like the accurate frames, and the ensemble has been trained since; hence
``select.audit_frames``, with which false accepts are measured and not only extrapolated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from activelearn.config import Campaign, Select
from activelearn.frames import FloatArray
from activelearn.records import Labelling, Selection
from activelearn.store import Store

#: (force deviation, true largest force error), both in eV/Å.
Pair = tuple[float, float]

#: A window is calibrated from at least this many pairs ...
MIN_PAIRS: Final = 50
#: ... from this many last iterations that labelled anything: older ensembles were worse.
LAST_LABELLED: Final = 3


def force_error(model_forces: NDArray[Any], reference_forces: NDArray[Any]) -> FloatArray:
    """Return (n_frames,) the largest error of the force vector over the atoms, eV/Å.

    Parameters
    ----------
    model_forces
        (n_frames, n_atoms, 3) of the model that drove the walk (member 0), eV/Å.
    reference_forces
        (n_frames, n_atoms, 3) of the label, eV/Å.
    """
    error: FloatArray = np.linalg.norm(np.subtract(model_forces, reference_forces), axis=-1).max(axis=-1)
    return error


def pairs(deviation: FloatArray, model_forces: NDArray[Any], reference_forces: NDArray[Any]) -> tuple[Pair, ...]:
    """Return (deviation, :func:`force_error`) of each frame, eV/Å to four digits, for the record.

    Parameters
    ----------
    deviation
        (n_frames,) force deviation, eV/Å.
    model_forces, reference_forces
        (n_frames, n_atoms, 3) eV/Å, as :func:`force_error` takes them.
    """
    error = force_error(model_forces, reference_forces)
    return tuple((round(float(d), 4), round(float(e), 4)) for d, e in zip(deviation, error, strict=True))


def fit(found: Sequence[Pair], settings: Select) -> tuple[float, float] | None:
    """Return f_lo and f_hi (eV/Å) for the false-accept rate and the largest error of `settings`, or None.

    f_hi keeps its ratio to f_lo in the fixed window, and stays below the deviation up to which frames are rescued.
    None if the pairs are too few: less than :data:`MIN_PAIRS`, or than the rate needs.
    """
    ratios = np.sort([error / deviation for deviation, error in found if deviation > 0.0])
    rank = ceil((len(ratios) + 1) * (1.0 - settings.false_accept_rate))
    if len(ratios) < MIN_PAIRS or rank > len(ratios) or ratios[rank - 1] <= 0.0:
        return None
    wide = settings.f_hi / settings.f_lo
    f_lo = min(settings.max_error / float(ratios[rank - 1]), 0.999 * settings.rescue.max_devi_f / wide)
    return float(f"{f_lo:.4g}"), float(f"{f_lo * wide:.4g}")


def last_pairs(store: Store, iteration: int) -> list[Pair]:
    """Return the pairs of the last iterations before `iteration` that have any; iteration 0 has no model to judge."""
    groups: list[tuple[Pair, ...]] = []
    for k in range(iteration - 1, 0, -1):
        found = store.result("label", k, Labelling).calibration
        if found:
            groups.append(found)
        if len(groups) == LAST_LABELLED:
            break
    return [pair for group in reversed(groups) for pair in group]


def window_of(campaign: Campaign, store: Store, iteration: int) -> tuple[float, float]:
    """Return f_lo and f_hi (eV/Å) of an iteration: as its selection was sealed with.

    Before that (for its walks) a pure function of the campaign and of earlier sealed results; the calibrated window is
    the fixed one until there are enough pairs.
    """
    if (sealed := store.find_result("select", iteration, Selection)) is not None:
        return sealed.f_lo, sealed.f_hi
    settings = campaign.select
    fixed = settings.f_lo, settings.f_hi
    if settings.window == "fixed":
        return fixed
    return fit(last_pairs(store, iteration), settings) or fixed


def f_hi_by_walk(campaign: Campaign, store: Store, iteration: int) -> Mapping[str, float]:
    """Return the deviation from which on a frame has failed, eV/Å, by its walk: some stages have their own."""
    window = window_of(campaign, store, iteration)
    own = {stage.name: stage.window(window)[1] for stage in campaign.explore.stages if stage.has_window}
    found: dict[str, float] = defaultdict(lambda: window[1])
    if own and store.is_sealed("explore", iteration):
        walks = store.plan("explore", iteration).tasks
        found |= {task.id: own.get(task.parameters["stage"], window[1]) for task in walks}
    return found


def last_window(campaign: Campaign, store: Store) -> tuple[float, float]:
    """Return f_lo and f_hi (eV/Å) that the last pass was judged by, which also apply to the models after it.

    Those of the campaign if there was no pass.
    """
    for iteration in reversed(store.opened_iterations()):
        if (found := store.find_result("select", iteration, Selection)) is not None:
            return found.f_lo, found.f_hi
    return campaign.select.f_lo, campaign.select.f_hi


class CalibrationSummary(NamedTuple):
    """How well the deviation predicts the error, on the frames labelled last; eV/Å."""

    n_pairs: int
    f_lo: float
    f_hi: float
    max_error: float
    #: Quantiles 5, 50 and 95 % of error / deviation.
    ratio: tuple[float, float, float]
    #: Labelled frames below f_lo, and those of them whose error is nevertheless above max_error.
    n_accurate: int
    false_accepts: int
    #: Labelled frames in the window, and those of them whose error is not above max_error.
    n_candidates: int
    false_rejects: int


def summary(store: Store) -> CalibrationSummary | None:
    """Return the state of the calibration for the iteration that comes next, or None while there is nothing."""
    opened = store.opened_iterations()
    sealed = [k for k in opened if k > 0 and store.is_sealed("label", k)]
    if not sealed:
        return None
    campaign = store.latest_campaign()
    found = np.array(last_pairs(store, sealed[-1] + 1)).reshape(-1, 2)
    if not (found[:, 0] > 0.0).any():  # members that agree to the last digit have no ratio
        return None
    f_lo, f_hi = window_of(campaign, store, sealed[-1] + 1)
    deviation, error = found.T
    is_wrong = error > campaign.select.max_error
    is_accurate, is_candidate = deviation < f_lo, (deviation >= f_lo) & (deviation < f_hi)
    low, median, high = np.quantile(error[deviation > 0.0] / deviation[deviation > 0.0], (0.05, 0.5, 0.95)).tolist()
    return CalibrationSummary(
        n_pairs=len(found),
        f_lo=f_lo,
        f_hi=f_hi,
        max_error=campaign.select.max_error,
        ratio=(low, median, high),
        n_accurate=int(is_accurate.sum()),
        false_accepts=int((is_accurate & is_wrong).sum()),
        n_candidates=int(is_candidate.sum()),
        false_rejects=int((is_candidate & ~is_wrong).sum()),
    )
