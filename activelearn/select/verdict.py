"""The verdict on a pass of exploration: quiet, converged, to be rescued."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from activelearn.config import Campaign, Select, Stop
from activelearn.records import CellCounts, Counts, Selection


def held_back_by(counts: Counts, stop: Stop) -> list[str]:
    """Return what keeps counts from being quiet, each with its number and its bound; empty if they are quiet.

    Quiet: candidates and failed frames are both below their bounds, over enough frames and walks, and no more frames
    are out of the region than allowed. A stage may have bounds of its own (:meth:`activelearn.config.Stage.bounds`).
    """
    found = []
    for kind, word, bound in (
        ("candidate", "candidates", stop.candidate_share),
        ("failed", "failed", stop.failed_share),
    ):
        if counts.share(kind) >= bound:
            found.append(f"{percent(counts.share(kind), bound)} {word} (must be below {100 * bound:g} %)")
    if counts.out_of_region > stop.out_of_region_share * counts.walked:
        outside = percent(counts.out_of_region / counts.walked, stop.out_of_region_share)
        found.append(f"{outside} out of the region (at most {100 * stop.out_of_region_share:g} %)")
    if counts.in_region < stop.min_frames:
        found.append(f"{counts.in_region} frames (at least {stop.min_frames})")
    if counts.walks < stop.min_walks:
        found.append(f"{counts.walks} walks (at least {stop.min_walks})")
    if counts.refused_walks:
        found.append(f"{counts.refused_walks} walks refused by consent")
    return found


def percent(share: float, bound: float | None = None) -> str:
    """Return a share in per cent, with enough digits to distinguish it from `bound` (0.996 % from 1 %).

    Parameters
    ----------
    share, bound
        Fractions of one.
    """
    for digits in (1, 2, 3, 4):
        said = f"{100 * share:.{digits}f}"
        if bound is None or share == bound or float(said) != round(100 * bound, 10):
            break
    return f"{said} %"


@dataclass(frozen=True)
class Judged:
    """The verdict on a pass.

    Parameters
    ----------
    quiet
        Names of the stages that are quiet.
    is_converged
        All stages of the campaign were explored, and all are quiet.
    is_bounded
        The newest stage is not quiet, but has had all the passes it may have.
    is_advancing
        The next stage is added.
    is_inaccurate
        All stages of the campaign are quiet, but the held-out error is above its bound or not known.
    """

    quiet: tuple[str, ...]
    is_converged: bool
    is_bounded: bool
    is_advancing: bool
    is_inaccurate: bool = False


def judge(
    cells: Sequence[CellCounts],
    stages: Sequence[str],
    n_passes: int,
    campaign: Campaign,
    held_out_p99: float | None = None,
    *,
    unexplored: Collection[str] = (),
) -> Judged:
    """Return the verdict on a pass over `stages`, the `n_passes`-th of its newest one.

    Parameters
    ----------
    cells
        Counts to be judged: of the pass, or of all passes of its ensemble.
    stages
        Names of the stages explored.
    n_passes
        How many passes the newest of them has had.
    campaign
        Holds the bounds.
    held_out_p99
        Held-out 99th percentile of the force error of the ensemble, eV/Å; None if it is not known.
    unexplored
        Names of the stages whose walks went nowhere: not quiet, whatever their counts.
    """
    known = {stage.name: stage for stage in campaign.explore.stages}
    loud = _loud(cells, stages, campaign)
    quiet = tuple(name for name in stages if name not in loud and name not in unexplored)
    is_quiet_all, is_last = len(quiet) == len(stages), len(stages) == len(known)
    most = known[stages[-1]].max_passes
    is_bounded = not is_quiet_all and most is not None and n_passes >= most
    bound = campaign.stop.max_force_error_p99
    is_accurate = bound is None or (held_out_p99 is not None and held_out_p99 <= bound)
    return Judged(
        quiet=quiet,
        is_converged=is_last and is_quiet_all and is_accurate,
        is_bounded=is_bounded,
        is_advancing=not is_last and (is_quiet_all or is_bounded),
        is_inaccurate=is_last and is_quiet_all and not is_accurate,
    )


def _loud(cells: Sequence[CellCounts], stages: Sequence[str], campaign: Campaign) -> dict[str, str]:
    """Return the stages that are not quiet, each with what keeps it from being so."""
    found = {}
    for name in stages:
        counts = Counts.total(cell.counts for cell in cells if cell.stage == name)
        reasons = held_back_by(counts, campaign.stage(name).bounds(campaign.stop))
        if reasons:
            found[name] = ", ".join(reasons)
    return found


def held_back(selection: Selection, campaign: Campaign) -> list[str]:
    """Return everything that prevents convergence: first each stage that is not quiet, with numbers and bounds.

    Parameters
    ----------
    selection
        The pass.
    campaign
        What it was sealed to.
    """
    found = _not_quiet(selection, campaign)
    found += [f"{name}, whose walks went nowhere" for name in selection.unexplored_stages]
    if selection.learnt_nothing:
        found.append("models that learnt nothing")
    if selection.is_inaccurate:
        found.append(f"the held-out force error (stop.max_force_error_p99: {campaign.stop.max_force_error_p99:g} eV/Å)")
    missing = [stage.name for stage in campaign.explore.stages if stage.name not in selection.stages]
    return found + [f"{name}, not explored yet" for name in missing]


def _not_quiet(selection: Selection, campaign: Campaign) -> list[str]:
    loud = _loud(selection.pooled or selection.cells, selection.stages, campaign)
    return [f"{name} with {reasons}" for name, reasons in loud.items()]


def wants_rescue(counts: Counts, settings: Select, *, is_quiet: bool) -> bool:
    """Return whether a pass taught too little by its window alone.

    Nearly everything failed (or left the region), or there is nothing in the window although the pass is not quiet:
    the loop would repeat without learning.
    """
    lost = (counts.failed + counts.out_of_region) / max(counts.walked, 1)
    return lost > settings.rescue.failed_share or (counts.candidate == 0 and not is_quiet)


def inside_by_design(cells: Sequence[CellCounts], campaign: Campaign) -> Counts:
    """Return the counts of a pass without the frames that left the region in stages that are meant to leave it."""
    allowed = {stage.name for stage in campaign.explore.stages if stage.out_of_region_share is not None}
    return Counts.total(
        c.counts.model_copy(update={"walked": c.counts.in_region, "out_of_region": 0})
        if c.stage in allowed
        else c.counts
        for c in cells
    )


def over(counts: Counts, n_pooled: int, stop: Stop) -> str:
    """Return the shares that were judged and what they are shares of; `n_pooled` passes of one ensemble together."""
    candidate, failed = (
        percent(counts.share(kind), bound)
        for kind, bound in (("candidate", stop.candidate_share), ("failed", stop.failed_share))
    )
    said = f"{candidate} candidates, {failed} failed of {counts.in_region} frames from {counts.walks} walks"
    if n_pooled > 1:
        said += f" over {n_pooled} passes of one ensemble"
    if counts.out_of_region:
        said += f" ({counts.out_of_region} frames out of the region)"
    return said


def why(selection: Selection, campaign: Campaign, judged: Judged, *, unexplored: str = "", unlearnt: str = "") -> str:
    """Return one sentence on the verdict, with its numbers.

    Parameters
    ----------
    selection
        What was found and chosen; its own `why` is not used.
    campaign
        Holds the bounds.
    judged
        The verdict.
    unexplored
        Which stages went nowhere, and why; empty if none did.
    unlearnt
        Which models learnt nothing, so that a quiet pass is no convergence; empty if all learnt.
    """
    headline = _headline(selection, campaign, judged, unexplored, unlearnt)
    if loud := _not_quiet(selection, campaign):  # the headline covers the rest
        headline += f"; held back by {'; '.join(loud)}"
    return headline if selection.held_out_p99 is None else f"{headline}; {p99(selection.held_out_p99)}"


def p99(held_out: float) -> str:
    """Return the wording for a held-out 99th percentile of the force error (eV/Å)."""
    return f"held-out P99 of the force error {held_out:.3g} eV/Å"


def _headline(selection: Selection, campaign: Campaign, judged: Judged, unexplored: str, unlearnt: str) -> str:
    counts, stop = selection.judged, campaign.stop
    found = over(counts, selection.n_pooled, stop)
    if counts.refused_walks:
        found += f"; {counts.refused_walks} walks refused by consent, so the region is incomplete"
    if unexplored:
        return f"not explored: {unexplored} ({found}){'; the next stage joins' if judged.is_advancing else ''}"
    if unlearnt:
        return f"not converged, though quiet, for {unlearnt}: {found}"
    if judged.is_converged:
        return f"converged: {found}"
    if judged.is_inaccurate:
        how = "not known" if selection.held_out_p99 is None else f"above {stop.max_force_error_p99:g} eV/Å"
        return f"quiet, but the held-out force error is {how} (stop.max_force_error_p99): {found}"
    if judged.is_advancing:
        return f"{'bound of the stage reached' if judged.is_bounded else 'quiet'}, the next stage joins: {found}"
    if selection.is_rescue:
        bound = campaign.select.rescue.max_devi_f
        if selection.rescued == 0:
            return f"rescue: {found}; but no early failed frame was below {bound:g} eV/Å"
        longer = ", training is longer" if campaign.select.rescue.train_factor > 1.0 else ""
        return f"rescue: {found}; {selection.rescued} early failed frames below {bound:g} eV/Å are labelled{longer}"
    return f"continues: {found}"
