"""Learning: whether a training learnt anything, and whether a longer one would have learnt more.

Both are read from what a training leaves behind, and reported wherever its models are. A campaign whose models
learnt nothing does not converge: models that all predict forces close to zero agree with each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from activelearn import prediction
from activelearn.records import Ensemble, Errors, Member, Task
from activelearn.store import Store

#: A model learnt nothing if its force RMSE is at least this share of the RMS of the forces.
NOTHING: Final = 0.7
#: A training was cut short if its force error early on was at least this multiple of that at its end, ...
FALLING: Final = 1.3
#: ... and at least this share of the RMS of the forces is left.
UNDONE: Final = 0.25
#: What is early and what is the end, in shares of the steps.
EARLY: Final = (0.1, 0.3)
END: Final = (0.5, 1.0)
_FORCES: Final = "rmse_f_trn"


def of_curve(columns: Sequence[str], curve: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Return how far the force error fell on the way to the end of a training, and the error at its end.

    The last rows alone say nothing. The learning rate has decayed by then, so the curve of a training that was cut at a
    tenth is as flat at its end as that of a complete one: it stops because the rate is nearly zero, not because there
    is no more to learn. A training of the right length has done most of its work while the rate is high; in one that is
    too short the error keeps falling until the rate has decayed. Hence the ratio of the error over the steps from 10 to
    30 % to that over the second half, as medians, because a row of the curve is the error of one batch.

    Parameters
    ----------
    columns
        Names of the columns of the learning curve.
    curve
        Its rows, shape (n_rows, n_columns), in the units of DeePMD-kit's ``lcurve.out``: errors of forces in eV/Å.

    Returns
    -------
    tuple
        Early error divided by late error (1 for a flat curve), and the late error in eV/Å, per component; None if the
        curve has no force error or too few rows.
    """
    if _FORCES not in columns or len(curve) == 0 or curve[-1, 0] <= 0:
        return None, None
    share, error = curve[:, 0] / curve[-1, 0], curve[:, list(columns).index(_FORCES)]
    early = error[(share >= EARLY[0]) & (share <= EARLY[1])]
    end = error[(share >= END[0]) & (share <= END[1])]
    last = float(np.median(end))
    return (float(np.median(early)) / last if len(early) >= 3 and last > 0.0 else None), last


def with_curves(
    members: Sequence[Member], tasks: Sequence[Task], store: Store, station: str, iteration: int
) -> tuple[Member, ...]:
    """Return the members of a station with what their learning curves say.

    Parameters
    ----------
    members, tasks
        The members and the trainings that made them, in the same order.
    store
        The campaign; the products of `tasks` are published in it.
    station, iteration
        Where: ``train`` or ``final``, and of which iteration.
    """
    found = []
    for member, task in zip(members, tasks, strict=True):
        arrays, meta = store.read_product(station, iteration, task.id)
        fall, last = of_curve(meta["learning_curve_columns"], arrays["learning_curve"])
        more = {"force_fall": fall, "training_force_rmse": last}
        if member.held_out is None:
            more["training_force_rms"] = prediction.force_rms(store.dataset(iteration))
        found.append(member.model_copy(update=more))
    return tuple(found)


def unexplained(member: Member) -> float | None:
    """Return force RMSE / RMS of the forces of a member: 1 for a model that predicts none; None: not known.

    On the held-out frames; without any, on the batches of the second half of the training.
    """
    rmse, rms = member.training_force_rmse, member.training_force_rms
    if member.held_out is not None:
        rmse, rms = member.held_out.force_rmse, member.held_out.force_rms_of_reference
    return rmse / rms if rmse is not None and rms else None


def learnt_nothing(ensemble: Ensemble) -> tuple[Member, ...]:
    """Return the members that learnt nothing: 0.7 of the RMS of the forces (or more) is left as error.

    At 0.7 half of the variance of the forces is left unexplained. Held-out force RMSE by RMS of the forces, measured:
    270 frames of glassy Na3PS4 with the nets of `quickstart`: 0.88 after 40 steps, 0.82 after 150, 0.73 after 250,
    0.49 after 400, 0.28 after 700, 0.21 after the 1500 of the preset, 0.18 after 5000, 0.13 after 15000;
    `copper_emt`, iteration 0: 0.93 after 30 steps, 0.55 after 100, 0.27 to 0.52 after the 300 of the preset (five
    random seeds), 0.18 after 1000. So a preset cut to a tenth is reported, and none that is complete.
    """
    return tuple(member for member in ensemble.members if (unexplained(member) or 0.0) >= NOTHING)


def fall(ensemble: Ensemble) -> float | None:
    """Return the median over the members of how far the force error fell on the way to the end; None: not known."""
    known = [member.force_fall for member in ensemble.members if member.force_fall is not None]
    return float(np.median(known)) if known else None


def is_cut_short(ensemble: Ensemble) -> bool:
    """Return whether a longer training with the same schedule would help much.

    The force error fell by 1.3 or more on the way to the end (median over the members), and 0.25 or more of the RMS of
    the forces is left (mean): below that, a falling error only means fine-tuning. Measured, as fall (left):
    `quickstart` 1.38 (0.49) after 400 steps, 1.40 (0.28) after 700, 1.01 (0.21) after the 1500 of the preset, 1.08
    (0.20) after 2500; `copper_emt` 1.03 (0.41), warm starts 1.44 (0.17) and 1.15 (0.14), none of them too short for its
    purpose; the toy of the tests, 60 steps, 1.72 (0.51). One member's fall scatters by 0.3 (batches of two frames), so
    a single curve proves little, and a training that is merely not the longest is not reported.
    """
    fell, left = fall(ensemble), [share for m in ensemble.members if (share := unexplained(m)) is not None]
    return fell is not None and fell >= FALLING and bool(left) and float(np.mean(left)) >= UNDONE


def in_short(ensemble: Ensemble) -> list[str]:
    """Return the problems of an ensemble in a few words each, for use within a longer line."""
    found = []
    if lost := learnt_nothing(ensemble):
        found.append(f"{_named(lost)} learnt nothing")
    elif is_cut_short(ensemble):
        found.append("training cut short")
    return found


def problems_of(ensemble: Ensemble, *, steps: str = "train.n_steps") -> list[str]:
    """Return what is wrong with the training of an ensemble: a sentence each, with figures and what to do.

    Parameters
    ----------
    ensemble
        Of the loop or final; one of an older version, that has no figures to judge by, has no problems.
    steps
        The key of the campaign that made the training as long as it is.
    """
    n_steps = max((member.n_steps for member in ensemble.members), default=0)
    if lost := learnt_nothing(ensemble):
        shares = [share for member in lost if (share := unexplained(member)) is not None]
        rms = lost[0].training_force_rms if lost[0].held_out is None else lost[0].held_out.force_rms_of_reference
        whose = "its" if len(lost) == 1 else "their"
        where = "on the training batches" if lost[0].held_out is None else "on the held-out frames"
        found = (
            f"{_named(lost)} of iteration {ensemble.trained_in} learnt nothing: {whose} force RMSE {where} is "
            f"{_range(shares, '.2f')} of the RMS of the forces, {rms:.3g} eV/Å, where 1 means to predict no force - "
            f"raise {steps} ({n_steps}), or correct its other settings (train)"
        )
        return [found]
    if not is_cut_short(ensemble):
        return []
    found = (
        f"the training of iteration {ensemble.trained_in} was cut short: its force error was still falling when the "
        f"learning rate had decayed (steps from 10 to 30 %: {fall(ensemble):.2f} times that of the second half) - "
        f"raise {steps} ({n_steps})"
    )
    return [found]


def is_judged(ensemble: Ensemble) -> bool:
    """Return whether it is known for every member if it learnt anything."""
    return all(unexplained(member) is not None for member in ensemble.members)


def mean_errors(members: Sequence[Member]) -> Errors | None:
    """Return the held-out errors, averaged over the members; None if one of them has none."""
    found = [member.held_out for member in members if member.held_out is not None]
    return Errors.mean(found) if len(found) == len(members) else None


def _named(members: Sequence[Member]) -> str:
    indices = ", ".join(str(member.index) for member in members)
    return f"member {indices}" if len(members) == 1 else f"members {indices}"


def _range(values: Sequence[float], how: str) -> str:
    low, high = format(min(values), how), format(max(values), how)
    return low if low == high else f"{low} to {high}"
