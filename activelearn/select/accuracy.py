"""What is known of the true force errors of an ensemble: how reliable its verdict is.

The shares of a verdict are shares of *deviations*. Four models with the same error agree with each other, so a low
deviation alone does not show that the forces are right. Two measurements against the reference complement it:

* the held-out P99: over all atoms of the held-out frames, the 99th percentile of the length of the error vector |dF|,
  averaged over the members;
* the false-accept rate: of the accurate frames that were labelled to find out (``select.audit_frames``), the share
  whose largest force error (of the member that drove the walk) is above ``select.max_error``, with Wilson's 95 %
  interval. Frames count that were walked with the same ensemble and are accurate by the window of its last pass, so it
  is the rate of this ensemble in this window. A frame whose label was refused counts neither way.

They contradict the window if the P99 is not below f_hi (the error of one atom in a hundred is at least the deviation
from which a frame is called failed), or if the false-accept rate is above ``select.false_accept_rate`` even at the
lower end of its interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Final

from activelearn.config import Select
from activelearn.records import Iteration, Selection
from activelearn.select.verdict import p99

#: Standard normal quantile of the interval of the false-accept rate.
CONFIDENCE: Final = 0.95


def interval(k: int, n: int) -> tuple[float, float]:
    """Return Wilson's score interval of a share, from `k` of `n` independent trials.

    Parameters
    ----------
    k, n
        0 <= k <= n.

    Returns
    -------
    tuple of float
        Lower and upper end, fractions of one; (0, 1) without trials. Over all true shares it holds the true one in
        95 % of cases on average (Brown, Cai & DasGupta, Stat. Sci. 16, 101 (2001), recommend it for small `n`).
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1.0 + CONFIDENCE) / 2.0)
    share, spread = k / n, z**2 / n
    middle = share + spread / 2.0
    half = sqrt(spread * share * (1.0 - share) + spread**2 / 4.0)
    low, high = (middle - half) / (1.0 + spread), (middle + half) / (1.0 + spread)
    return (0.0 if k == 0 else low), (1.0 if k == n else high)


@dataclass(frozen=True)
class Accuracy:
    """True force errors of the ensemble that a pass explored with.

    Parameters
    ----------
    held_out_p99
        Held-out 99th percentile of |dF|, eV/Å; None if there are no held-out frames.
    n_audited, n_false
        Accurate frames that were labelled, and how many of them have an error above `max_error`.
    max_error
        Largest force error of an atom that is accepted, eV/Å.
    false_accept_rate
        Share of accepted frames that may have a larger error.
    window
        f_lo and f_hi, eV/Å.
    is_audited
        Whether accurate frames are labelled at all (``select.audit_frames``).
    """

    held_out_p99: float | None
    n_audited: int
    n_false: int
    max_error: float
    false_accept_rate: float
    window: tuple[float, float]
    is_audited: bool = False

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the false-accept rate; None without audited frames."""
        return interval(self.n_false, self.n_audited) if self.n_audited else None

    @property
    def said(self) -> str:
        """Both numbers in words."""
        known = "held-out P99 of the force error not known" if self.held_out_p99 is None else p99(self.held_out_p99)
        return f"{known}; {self.false_accepts}"

    @property
    def false_accepts(self) -> str:
        """The false-accept rate in words."""
        if self.interval is None and self.is_audited:
            return "false-accept rate not known (no accurate frame has been labelled)"
        if self.interval is None:
            return "false-accept rate not known (select.audit_frames measures it)"
        low, high = self.interval
        return (
            f"false-accept rate {100 * self.n_false / self.n_audited:.1f} % (95 % interval {100 * low:.1f} to "
            f"{100 * high:.1f} %): {self.n_false} of {self.n_audited} audited frames err by more than "
            f"{self.max_error:g} eV/Å"
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What contradicts the window: one sentence each."""
        found = []
        f_lo, f_hi = self.window
        if self.held_out_p99 is not None and self.held_out_p99 >= f_hi:
            found.append(
                f"WARNING: the held-out P99 of the force error, {self.held_out_p99:.3g} eV/Å, is not below f_hi = "
                f"{f_hi:g} eV/Å, so a deviation inside the window does not mean an error inside it: train longer, use "
                "a larger network, or require a smaller error with stop.max_force_error_p99"
            )
        if self.interval is not None and self.interval[0] > self.false_accept_rate:
            found.append(
                f"WARNING: at least {100 * self.interval[0]:.1f} % of the frames below f_lo = {f_lo:g} eV/Å err by "
                f"more than {self.max_error:g} eV/Å, and select.false_accept_rate is "
                f"{100 * self.false_accept_rate:g} %: lower f_lo, or let select.window: calibrated choose it"
            )
        return tuple(found)


def accuracy_of(records: Sequence[Iteration], settings: Select) -> Accuracy | None:
    """Return what is known of the ensemble that the last pass explored with, or None if there was no pass.

    Parameters
    ----------
    records
        Of all closed iterations, in order.
    settings
        By which the last pass was selected.
    """
    for n in range(len(records), 0, -1):
        selection = records[n - 1].selection
        if selection is not None:
            return accuracy_after(records[:n], selection, settings)
    return None


def _went_nowhere(selection: Selection) -> bool:
    """Return whether none of the stages that a pass walked was explored: it is not pooled."""
    nowhere = set(selection.unexplored_stages)
    return bool(nowhere) and {cell.stage for cell in selection.cells} <= nowhere


def accuracy_after(records: Sequence[Iteration], last: Selection, settings: Select) -> Accuracy:
    """Return what is known of the ensemble that a pass explored with.

    Parameters
    ----------
    records
        Of the closed iterations up to that of the pass, in order.
    last
        The selection of the pass.
    settings
        By which it was selected.
    """
    passes = [(record, record.selection) for record in records if record.selection is not None]
    judged = [(record, found) for record, found in passes if found is last or not _went_nowhere(found)]
    explored_with = {record.index: record.ensemble for record in records}.get(records[-1].index - 1)
    p99_now = explored_with.force_p99 if explored_with is not None else None
    errors = [
        error
        for record, found in judged[-last.n_pooled :]
        if found.f_lo >= last.f_lo  # else its audit drew from a part only
        for deviation, error in record.labelling.calibration
        if deviation < last.f_lo
    ]
    return Accuracy(
        held_out_p99=last.held_out_p99 if last.held_out_p99 is not None else p99_now,
        n_audited=len(errors),
        n_false=sum(error > settings.max_error for error in errors),
        max_error=settings.max_error,
        false_accept_rate=settings.false_accept_rate,
        window=(last.f_lo, last.f_hi),
        is_audited=settings.audit_frames > 0,
    )
