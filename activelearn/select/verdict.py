"""What a pass of exploration means: quiet, converged, to be rescued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from activelearn.config import Campaign, Select, Stop
from activelearn.records import CellCounts, Counts


def is_quiet(counts: Counts, stop: Stop, out_of_region_share: float | None = None) -> bool:
    """Return whether candidates and failed frames are both below their bounds, over enough frames and walks.

    A stage may allow another share of frames out of the region than `stop` does.
    """
    most_outside = stop.out_of_region_share if out_of_region_share is None else out_of_region_share
    return (
        counts.refused_walks == 0
        and counts.in_region >= stop.min_frames
        and counts.walks >= stop.min_walks
        and counts.share("candidate") < stop.candidate_share
        and counts.share("failed") < stop.failed_share
        and counts.out_of_region <= most_outside * counts.walked
    )


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
        The next stage joins.
    """

    quiet: tuple[str, ...]
    is_converged: bool
    is_bounded: bool
    is_advancing: bool


def judge(cells: Sequence[CellCounts], stages: Sequence[str], n_passes: int, campaign: Campaign) -> Judged:
    """Return the verdict on a pass over `stages`, the `n_passes`-th of its newest one."""
    known = {stage.name: stage for stage in campaign.explore.stages}
    quiet = tuple(
        name
        for name in stages
        if is_quiet(
            Counts.total(cell.counts for cell in cells if cell.stage == name),
            campaign.stop,
            known[name].out_of_region_share,
        )
    )
    is_quiet_all, is_last = len(quiet) == len(stages), len(stages) == len(known)
    most = known[stages[-1]].max_passes
    is_bounded = not is_quiet_all and most is not None and n_passes >= most
    return Judged(quiet, is_last and is_quiet_all, is_bounded, not is_last and (is_quiet_all or is_bounded))


def wants_rescue(counts: Counts, settings: Select, *, is_quiet: bool) -> bool:
    """Return whether a pass taught too little by its window alone.

    Nearly everything failed (or left the region), or there is nothing in the window although the pass is not quiet:
    the loop would go round without learning.
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


def why(counts: Counts, campaign: Campaign, judged: Judged, *, is_rescue: bool, n_rescued: int) -> str:
    """Return one sentence on the verdict, with its numbers."""
    shares = f"{100 * counts.share('candidate'):.1f} % candidates, {100 * counts.share('failed'):.1f} % failed"
    over = f"{shares} of {counts.in_region} frames from {counts.walks} walks"
    if counts.out_of_region:
        over += f" ({counts.out_of_region} frames out of the region)"
    if counts.refused_walks:
        over += f"; {counts.refused_walks} walks refused by consent, so the region is not whole"
    if judged.is_converged:
        return f"converged: {over}"
    if judged.is_advancing:
        return f"{'bound of the stage reached' if judged.is_bounded else 'quiet'}, the next stage joins: {over}"
    if is_rescue:
        bound = campaign.select.rescue.max_devi_f
        if n_rescued == 0:
            return f"rescue: {over}; but no early failed frame was below {bound:g} eV/Å"
        return f"rescue: {over}; {n_rescued} early failed frames below {bound:g} eV/Å are labelled, training is longer"
    return f"goes on: {over}"
