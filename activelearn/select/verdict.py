"""What a pass of exploration means: quiet, converged, to be rescued."""

from __future__ import annotations

from activelearn.config import Campaign, Select, Stop
from activelearn.records import Counts


def is_quiet(counts: Counts, stop: Stop) -> bool:
    """Return whether candidates and failed frames are both below their bounds, over enough frames and walks."""
    return (
        counts.refused_walks == 0
        and counts.in_region >= stop.min_frames
        and counts.walks >= stop.min_walks
        and counts.share("candidate") < stop.candidate_share
        and counts.share("failed") < stop.failed_share
        and counts.out_of_region <= stop.out_of_region_share * counts.walked
    )


def wants_rescue(counts: Counts, settings: Select, *, is_quiet: bool) -> bool:
    """Return whether a pass taught too little by its window alone.

    Nearly everything failed (or left the region), or there is nothing in the window although the pass is not quiet:
    the loop would go round without learning.
    """
    lost = (counts.failed + counts.out_of_region) / max(counts.walked, 1)
    return lost > settings.rescue.failed_share or (counts.candidate == 0 and not is_quiet)


def why(
    counts: Counts, campaign: Campaign, *, is_converged: bool, is_rescue: bool, is_advancing: bool, n_rescued: int
) -> str:
    """Return one sentence on the verdict, with its numbers."""
    shares = f"{100 * counts.share('candidate'):.1f} % candidates, {100 * counts.share('failed'):.1f} % failed"
    over = f"{shares} of {counts.in_region} frames from {counts.walks} walks"
    if counts.out_of_region:
        over += f" ({counts.out_of_region} frames out of the region)"
    if counts.refused_walks:
        over += f"; {counts.refused_walks} walks refused by consent, so the region is not whole"
    if is_converged:
        return f"converged: {over}"
    if is_advancing:
        return f"quiet, the next stage joins: {over}"
    if is_rescue:
        bound = campaign.select.rescue.max_devi_f
        if n_rescued == 0:
            return f"rescue: {over}; but no early failed frame was below {bound:g} eV/Å"
        return f"rescue: {over}; {n_rescued} early failed frames below {bound:g} eV/Å are labelled, training is longer"
    return f"goes on: {over}"
