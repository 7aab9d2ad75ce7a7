"""Findings on what was explored: whether it gets quieter, where it does not, and whether walks moved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from activelearn.config import Condition
from activelearn.page.findings.rule import Noted, Rule
from activelearn.page.seen import SeenCampaign
from activelearn.records import CellCounts, Counts, Iteration, Selection
from activelearn.select.reach import went_nowhere

#: A share that is at least this fraction of an earlier one has not decreased.
_FALLEN: Final = 0.9
#: Minimum number of candidates for a finding on their cell.
_FEW_CANDIDATES: Final = 20
_OUT_OF_REGION: Final = "out of region"
_NEAR_DUPLICATE: Final = "near duplicate"


def last_pass(seen: SeenCampaign) -> Selection | None:
    """Return the selection of the last pass."""
    return next((record.selection for record in reversed(seen.records) if record.selection is not None), None)


def cell_name(cell: CellCounts) -> str:
    """Return the name of a cell of the exploration matrix: its stage and conditions."""
    return f"{cell.stage} {Condition(**{name: getattr(cell, name) for name in Condition._fields})}"


def not_accurate(counts: Counts) -> float:
    """Return the share of candidates and failed frames among those in the region."""
    return counts.share("candidate") + counts.share("failed") if counts.in_region else 0.0


def by_ensemble(records: Sequence[Iteration], stage: str) -> list[Counts]:
    """Return the counts of a stage by ensemble, with all of its passes together, in order."""
    trained_in = {record.index: record.ensemble.trained_in for record in records}
    found: dict[int, Counts] = {}
    for record in records:
        if record.selection is None:
            continue
        counts = Counts.total(cell.counts for cell in record.selection.cells if cell.stage == stage)
        if counts.in_region:
            who = trained_in.get(record.index - 1, record.index - 1)
            found[who] = found.get(who, Counts()) + counts
    return list(found.values())


def _flat(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    last = last_pass(seen)
    known = {stage.name: stage for stage in seen.campaign.explore.stages}
    for name in last.stages if last is not None else ():
        shares = [not_accurate(counts) for counts in by_ensemble(seen.records, name)]
        n = 1
        while n < len(shares) and shares[-1] >= _FALLEN * shares[-n - 1]:
            n += 1
        quiet = known[name].bounds(seen.campaign.stop).candidate_share if name in known else 0.0
        if n >= max(bound, 2) and shares[-1] >= quiet:
            said = ", ".join(f"{100 * share:.1f}" for share in shares[-n:])
            yield Noted(f"stage {name}: candidates and failed {said} % with {n} successive ensembles", n)


def _one_cell(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    last = last_pass(seen)
    cells = [cell for cell in last.cells if cell.counts.in_region] if last is not None else []
    whole = Counts.total(cell.counts for cell in cells)
    if len(cells) < 3 or whole.candidate < _FEW_CANDIDATES:
        return
    for cell in cells:
        share = 100.0 * cell.counts.candidate / whole.candidate
        walked = 100.0 * cell.counts.in_region / whole.in_region
        if share >= bound and share >= 2.0 * walked:
            what = f"{cell_name(cell)} has {share:.0f} % of the {whole.candidate} candidates of the last pass"
            yield Noted(f"{what} and {walked:.0f} % of its frames", share)


def _rescued(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    passes = [record.selection for record in seen.records if record.selection is not None]
    n = 0
    while n < len(passes) and passes[-n - 1].is_rescue:
        n += 1
    if n >= bound:
        failed = 100.0 * passes[-1].counts.share("failed")
        yield Noted(f"the last {n} passes failed nearly everywhere (the last: {failed:.0f} % of frames)", n)


def _nowhere(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    last = last_pass(seen)
    walks = [walk for walk in last.walks if walk.reach is not None] if last is not None else []
    for stage in dict.fromkeys(walk.stage for walk in walks):
        mine = [walk for walk in walks if walk.stage == stage]
        lost = [walk for walk in mine if walk.reach is not None and went_nowhere(walk.reach)]
        share = 100.0 * len(lost) / len(mine)
        if lost and share > bound:
            reach = lost[0].reach
            moved = f", such as {lost[0].id}: {reach.displacement:.2g} Å rms" if reach is not None else ""
            yield Noted(f"stage {stage}: {len(lost)} of {len(mine)} walks did not move{moved}", share)


def _broken(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    last = last_pass(seen)
    for stage in dict.fromkeys(walk.stage for walk in last.walks) if last is not None else ():
        mine = [walk for walk in last.walks if walk.stage == stage] if last is not None else []
        lost = [walk.ended for walk in mine if walk.ended != "finished" and not walk.ended.startswith(_OUT_OF_REGION)]
        share = 100.0 * len(lost) / len(mine)
        if share > bound:
            yield Noted(f"stage {stage}: {len(lost)} of {len(mine)} walks failed, such as by: {lost[0]}", share)


def _outside(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    last = last_pass(seen)
    by_design = {stage.name for stage in seen.campaign.explore.stages if stage.out_of_region_share is not None}
    for stage in dict.fromkeys(cell.stage for cell in last.cells) if last is not None else ():
        counts = (
            Counts.total(cell.counts for cell in last.cells if cell.stage == stage) if last is not None else Counts()
        )
        share = 100.0 * counts.out_of_region / max(counts.walked, 1)
        if stage not in by_design and share > bound:
            why = (
                next((w.ended for w in last.walks if w.stage == stage and w.ended.startswith(_OUT_OF_REGION)), "")
                if last is not None
                else ""
            )
            such = f", such as {why}" if why else ""
            yield Noted(f"stage {stage}: {share:.1f} % of {counts.walked} frames are outside the region{such}", share)


def _near_duplicates(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    last = last_pass(seen)
    if last is None or not (n := last.counts.candidate):
        return
    near = last.passed_over.get(_NEAR_DUPLICATE, 0)
    if 100.0 * near / n > bound:
        share = 100.0 * near / n
        yield Noted(
            f"{near} of the {n} candidates of the last pass are near duplicates of frames already chosen", share
        )


def _not_explored(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    last = last_pass(seen)
    if last is None or seen.end is None:
        return
    left = [stage.name for stage in seen.campaign.explore.stages if stage.name not in last.stages]
    if len(left) > bound:
        what = f"{len(left)} of {len(seen.campaign.explore.stages)} stages were never explored: {', '.join(left)}"
        yield Noted(what, len(left))


RULES: Final = (
    Rule(
        "not_explored",
        0,
        "stages",
        "trust",
        "the loop has ended and more than {bound} were never explored",
        "The verdict only holds for the stages that were explored.",
        "raise `stop.max_iterations`, or give the stages before it `max_passes` (`explore.stages`), and continue with"
        " `activelearn run --accept-changes`",
        _not_explored,
    ),
    Rule(
        "walks_nowhere",
        5,
        "%",
        "trust",
        "more than {bound} of the walks of a stage in the last pass moved less than matter does at their temperature",
        "Walks that do not move are always accurate and explore nothing.",
        "longer walks (`n_steps`), a smaller `temperature_damping_ps` or other `lammps` lines in `explore.stages`",
        _nowhere,
    ),
    Rule(
        "rescued_in_a_row",
        2,
        "passes",
        "accuracy",
        "at least {bound} in a row at the end failed nearly everywhere",
        "The ensemble does not survive its own walks: labels only come from the first frames of failed walks.",
        "colder or shorter walks first (`temperatures_K`, `n_steps` of `explore.stages`); `train.n_steps`; in a new "
        "campaign, initial data at these temperatures (`initial.md.temperatures_K`)",
        _rescued,
    ),
    Rule(
        "candidates_flat",
        3,
        "ensembles",
        "accuracy",
        "the share of candidates and failed frames of a stage that is not quiet did not decrease by a tenth over "
        "{bound}",
        "More labels of the same kind no longer help: the limit is the net, its training, or the region.",
        "`train.n_steps`, or a larger net (`train.fitting` of DeePMD); more labels in a pass (`select.max_frames`); a"
        " colder stage before this one (`explore.stages`)",
        _flat,
    ),
    Rule(
        "one_cell",
        50,
        "%",
        "accuracy",
        "one cell of the matrix has at least {bound} of the candidates of the last pass (20 or more), and at least "
        "twice its share of the frames",
        "The model is missing one region; walks elsewhere add little.",
        "more walks there (`n_walks`), or a separate stage in `explore.stages`; `select.max_per_cell`",
        _one_cell,
    ),
    Rule(
        "walks_broken",
        20,
        "%",
        "accuracy",
        "more than {bound} of the walks of a stage in the last pass failed (lost atoms, non-finite)",
        "Frames after the failure count as failed, and the region beyond is never explored.",
        "a smaller `timestep_fs`, or colder or shorter walks in `explore.stages`; in a new campaign, "
        "`initial.isolated` against collapsing atoms",
        _broken,
    ),
    Rule(
        "out_of_region",
        5,
        "%",
        "accuracy",
        "more than {bound} of the frames of a stage in the last pass violate a guard (stages with their own "
        "out_of_region_share are left out)",
        "Frames beyond a guard are neither classified nor learnt.",
        "`select.guards`, or `strains` and `pressures_bar` of `explore.stages`",
        _outside,
    ),
    Rule(
        "near_duplicates",
        30,
        "%",
        "cost",
        "more than {bound} of the candidates of the last pass are near duplicates of selected frames",
        "Walks repeat the same structures: MD yields little new.",
        "a larger `every` or fewer `n_walks` in `explore.stages`; more starts (`n_packings` of `explore.systems`)",
        _near_duplicates,
    ),
)
