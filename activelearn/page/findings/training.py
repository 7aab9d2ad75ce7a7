"""Findings on trainings: whether they learnt, were long enough, and whether one member is an outlier."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from activelearn import learning
from activelearn.page.findings.rule import Noted, Rule
from activelearn.page.seen import SeenCampaign
from activelearn.records import Ensemble


def _last(seen: SeenCampaign) -> Ensemble | None:
    return seen.records[-1].ensemble if seen.records else None


def _nothing(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    ensemble = _last(seen)
    for member in ensemble.members if ensemble is not None else ():
        left = learning.unexplained(member)
        if left is not None and 100.0 * left >= bound:
            what = f"member {member.index}: force RMSE is {100 * left:.0f} % of the RMS of the forces"
            yield Noted(f"{what} after {member.n_steps} steps", 100.0 * left)


def _falling(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    ensemble = _last(seen)
    if ensemble is None:
        return
    fell = learning.fall(ensemble)
    left = [share for m in ensemble.members if (share := learning.unexplained(m)) is not None]
    if fell is not None and fell >= bound and left and float(np.mean(left)) >= learning.UNDONE:
        n_steps = max(member.n_steps for member in ensemble.members)
        what = f"the force error was still decreasing at the end of {n_steps} steps: early {fell:.2f} times late"
        yield Noted(what, fell, f"raise `train.n_steps` ({n_steps})")


def _apart(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    ensemble = _last(seen)
    known = [(m.index, m.held_out.force_rmse) for m in ensemble.members if m.held_out is not None] if ensemble else []
    for index, rmse in known if len(known) > 2 else ():
        others = float(np.median([value for k, value in known if k != index]))
        if others > 0.0 and rmse >= bound * others:
            what = f"member {index}: held-out force RMSE {rmse:.3f} eV/Å, median of the others {others:.3f} eV/Å"
            yield Noted(what, rmse / others)


def _diverged(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    ensemble = _last(seen)
    again = {m.index: m.attempts - 1 for m in ensemble.members if m.attempts > 1} if ensemble is not None else {}
    if sum(again.values()) > bound:
        who = ", ".join(f"member {k} ({n} times)" for k, n in again.items())
        yield Noted(f"trainings diverged and were restarted: {who}", sum(again.values()))


RULES: Final = (
    Rule(
        "learnt_nothing",
        100 * learning.NOTHING,
        "%",
        "trust",
        "the error of a member is at least {bound} of the RMS of the forces",
        "Models that all predict almost zero forces agree with each other: their deviation is meaningless.",
        "raise `train.n_steps`, or correct the other settings of `train`",
        _nothing,
    ),
    Rule(
        "training_falling",
        learning.FALLING,
        "times",
        "accuracy",
        "the force error over steps from 10 to 30 % of the last training is at least {bound} that of its second "
        "half (median over the members), and at least a quarter of the RMS of the forces remains",
        "The learning rate ended before the training was converged.",
        "raise `train.n_steps`",
        _falling,
    ),
    Rule(
        "member_apart",
        1.5,
        "times",
        "accuracy",
        "the held-out force RMSE of one member is at least {bound} the median of the others",
        "The deviation of the ensemble is then the error of that member.",
        "raise `train.n_steps`; lower `train.learning_rate.start`; look at its learning curve",
        _apart,
    ),
    Rule(
        "training_diverged",
        0,
        "trainings",
        "cost",
        "more than {bound} of the last ensemble diverged and were restarted",
        "Each costs a whole training, and the retry uses a lower learning rate.",
        "lower `train.learning_rate.start`",
        _diverged,
    ),
)
