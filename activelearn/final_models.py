"""Final models: those of the loop, or others trained from scratch for longer, whichever are better on held-out frames.

Both are sealed, and which of them a campaign passes on is decided when they are requested: ``final.keep`` may be
changed afterwards, and nothing is trained again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from activelearn.config import Campaign
from activelearn.learning import mean_errors, problems_of
from activelearn.records import Ensemble, Errors, Member
from activelearn.store import Store


@dataclass(frozen=True)
class FinalChoice:
    """The final models of a campaign.

    Parameters
    ----------
    ensemble
        Those that are exported and used for glasses and benchmarks.
    is_of_loop
        Whether they are the last ensemble of the loop although others were trained from scratch.
    is_from_scratch
        Whether others were trained from scratch at all.
    said
        Result of the comparison, and the problems of a training that was too short; empty without one.
    is_worse
        Whether the models trained from scratch are worse than those of the loop.
    """

    ensemble: Ensemble
    is_of_loop: bool = False
    is_from_scratch: bool = False
    said: tuple[str, ...] = ()
    is_worse: bool = False


def chosen(store: Store, iteration: int) -> FinalChoice:
    """Return the final models of a campaign whose final station is sealed in `iteration`.

    ``final.keep`` counts as the latest accepted campaign has it. Folders of older versions have no second set that is
    ready to be exported: their models stay the ones trained from scratch, and the comparison is still reported.
    """
    final = store.result("final", iteration, Ensemble)
    if store.campaign(iteration).final.n_steps is None:
        return FinalChoice(final)
    loop = store.result("train", iteration, Ensemble)
    comparison, is_worse = compared(final.members, loop.members, loop.trained_in)
    keeps_better = store.latest_campaign().final.keep == "better" and len(final.of_loop) > 0
    if is_worse and keeps_better:
        kept = loop.model_copy(update={"members": final.of_loop})
        is_bound = iteration >= store.latest_campaign().stop.max_iterations
        what_to_do = (
            f"raise final.n_steps ({final.members[0].n_steps}){' and stop.max_iterations' if is_bound else ''} and run "
            "again with --accept-changes; or use the others with final.keep: trained (they are not trained again)"
        )
        said = f"{comparison}; the models of iteration {loop.trained_in} are kept - {what_to_do}"
        return FinalChoice(kept, is_of_loop=True, is_from_scratch=True, said=(said,), is_worse=True)
    said = f"{comparison}; the final models are kept{' nevertheless' if is_worse else ''}"
    problems = _problems(final, iteration)
    return FinalChoice(final, is_from_scratch=True, said=(said, *problems), is_worse=is_worse)


def _problems(final: Ensemble, iteration: int) -> list[str]:
    trained = final.model_copy(update={"trained_in": iteration})
    return [f"final models: {line}" for line in problems_of(trained, steps="final.n_steps")]


def compared(final: Sequence[Member], loop: Sequence[Member], trained_in: int) -> tuple[str, bool]:
    """Compare models trained from scratch with those of the loop on the held-out frames.

    The force RMSE and the 99th percentile of the force error, each averaged over the members, are worse or better if
    they differ by more than the spread between members: the standard deviation, root mean square of the two ensembles'.
    For four members that is 1.4 standard errors of the difference of two means, so that two ensembles of equal worth
    are called different one time in five (either way), at the cost of keeping one that is as good. Worse is an
    ensemble that is worse in one of the two figures and better in none.

    Parameters
    ----------
    final, loop
        The members of both.
    trained_in
        Iteration of those of the loop.

    Returns
    -------
    tuple
        The result in words, and whether the models trained from scratch are worse.
    """
    one, other = mean_errors(final), mean_errors(loop)
    steps, of_loop = final[0].n_steps, f"those of iteration {trained_in} ({loop[0].n_steps} steps)"
    if one is None or other is None:
        return f"final models ({steps} steps) and {of_loop} are not compared: no held-out frames", False
    if one.n_frames != other.n_frames:
        return (
            f"final models ({steps} steps) and {of_loop} are not compared: held-out frames have been added since",
            False,
        )
    figures = [("held-out force RMSE", *_figure(final, loop, lambda errors: errors.force_rmse))]
    if one.force_p99 is not None and other.force_p99 is not None:
        figures.append(("P99", *_figure(final, loop, lambda errors: errors.force_p99 or 0.0)))
    signs = [int(np.sign(a - b)) if abs(a - b) > spread else 0 for _, a, b, spread in figures]
    is_worse = max(signs) > 0 and min(signs) >= 0
    verdict = "worse than" if is_worse else "better than" if min(signs) < 0 and max(signs) <= 0 else "about as good as"
    numbers = ", ".join(f"{name} {a:.3f} against {b:.3f} (spread {spread:.3f})" for name, a, b, spread in figures)
    return f"final models ({steps} steps) are {verdict} {of_loop}: {numbers} eV/Å", is_worse


def _figure(
    final: Sequence[Member], loop: Sequence[Member], of: Callable[[Errors], float]
) -> tuple[float, float, float]:
    """Return the means of a figure over two ensembles, and the spread between members."""
    one, other = (np.array([of(m.held_out) for m in members if m.held_out is not None]) for members in (final, loop))
    spreads = [float(values.var(ddof=1)) if len(values) > 1 else 0.0 for values in (one, other)]
    return float(one.mean()), float(other.mean()), float(np.sqrt(np.mean(spreads)))


def without_choice(campaign: Campaign) -> Campaign:
    """Return a campaign without its ``final.keep``, which never asks for work: for a comparison of two."""
    return campaign.model_copy(update={"final": campaign.final.model_copy(update={"keep": "better"})})
