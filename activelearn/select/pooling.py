"""Passes of one and the same ensemble are one sample: they are judged together.

An ensemble explores more than once where a pass gave fewer new frames than a training needs (``train.min_new_frames``),
and where the next stage is added to a quiet one. Each such pass is a fresh draw from the same distribution. Judged by
the last draw alone, an ensemble whose share lies just above the bound would converge as soon as one draw fell below it:
6 candidates of 369 frames, then 2 of 369, are 8 of 738, which is 1.08 % and not 0.54 %. A candidate found and labelled
but not yet learnt counts against the ensemble, because it is still unknown to the ensemble.

Passes from the same starts within the same guards are added up, stage by stage. A stage that is quiet is not walked
again by the same ensemble (:mod:`activelearn.passes`), so it is judged by the passes that it took to become so, and a
stage that is added later by its own. A pass that was classified by another window (a calibrated one moves a little with
every label) is counted again by the window of the last.

Frames are added, each counted once. Of four passes of 369 independent frames with a true share of 1.5 %, one falls
below 1 % with a probability of 58 % if each is judged alone, and of 27 % if they are added up; at 1.2 % it is 83 and
53 %. A cell that has been quiet is walked by half (``explore.quiet_passes``) and so weighs less than those beside it
that are not quiet, in one pass as in several; that changes these numbers by less than five points, and makes them
smaller.
"""

from __future__ import annotations

from collections.abc import Sequence

from activelearn.config import Campaign, Condition
from activelearn.records import CellCounts, Counts, Ensemble, Selection, Task
from activelearn.select.window import FrameClasses, count, reclassified
from activelearn.store import Store


def passes_before(
    campaign: Campaign, store: Store, iteration: int, stages: Sequence[str], window: tuple[float, float]
) -> list[tuple[CellCounts, ...]]:
    """Return the cells of the earlier passes that are judged together with the pass of `iteration`, latest first.

    Parameters
    ----------
    campaign, store
        What the iteration is sealed to, and its folder.
    iteration
        Of the pass that is to be judged.
    stages
        Names of the stages that it explored.
    window
        f_lo and f_hi that it was classified by, and by which all are counted, eV/Å.
    """
    explored_with = store.result("train", iteration - 1, Ensemble).trained_in
    asked = {name: _question(campaign, name) for name in stages}
    found = []
    for i in range(iteration - 1, explored_with, -1):
        if (earlier := store.find_result("select", i, Selection)) is None:
            continue  # a pass that only added data
        then = store.campaign(i)
        asked = {name: it for name, it in asked.items() if name in earlier.stages and _question(then, name) == it}
        if not asked:
            break
        says = asked.keys() - set(earlier.unexplored_stages)
        cells = earlier.cells if (earlier.f_lo, earlier.f_hi) == window else _recounted(campaign, store, i, window)
        if told := tuple(cell for cell in cells if cell.stage in says):
            found.append(told)
    return found


def _recounted(campaign: Campaign, store: Store, iteration: int, window: tuple[float, float]) -> tuple[CellCounts, ...]:
    """Return the cells of an earlier pass by another window; walks that were given up are left out."""
    windows = {stage.name: stage.window(window) for stage in campaign.explore.stages}
    kinds: dict[tuple[str, Condition], list[FrameClasses]] = {}
    for task in store.plan("explore", iteration).tasks:
        arrays, meta = store.read_product("explore", iteration, task.id)
        if "refused" not in meta:
            cell = cell_of(task)
            found = reclassified(arrays["kind"], arrays["max_devi_f"], windows.get(cell[0], window))
            kinds.setdefault(cell, []).append(found)
    return tuple(
        CellCounts(stage=stage, **condition._asdict(), counts=count(found))
        for (stage, condition), found in kinds.items()
    )


def cell_of(task: Task) -> tuple[str, Condition]:
    """Return the cell of the exploration matrix that a walk is of: its stage, and what is imposed on it."""
    p = task.parameters
    return str(p["stage"]), Condition(**{name: p[name] for name in Condition._fields if name in p})


def _question(campaign: Campaign, stage: str) -> tuple[object, ...]:
    """Return everything that defines where the walks of a stage start and where they may go."""
    bounds = {"max_passes": None, "candidate_share": None, "out_of_region_share": None}
    asked = campaign.stage(stage).model_copy(update=bounds)
    explore = campaign.explore
    return asked, campaign.explored_systems, explore.start_scales, explore.perturb, campaign.select.guards


def pooled(cells: Sequence[CellCounts], before: Sequence[Sequence[CellCounts]]) -> tuple[CellCounts, ...]:
    """Return the cells of a pass with the counts of those of earlier passes added, cell by cell.

    Walks that were given up count for the pass itself only: what an earlier pass did not walk, this one has. The
    fifths of a ramp or a deformation are not added up.
    """
    found = {_key(cell): cell.counts for cell in cells}
    for earlier in before:
        for cell in earlier:
            counts = cell.counts.model_copy(update={"refused_walks": 0})
            found[_key(cell)] = found.get(_key(cell), Counts()) + counts
    known = {_key(cell): cell for earlier in reversed(before) for cell in earlier}
    known.update((_key(cell), cell) for cell in cells)
    return tuple(known[key].model_copy(update={"counts": counts, "along": ()}) for key, counts in found.items())


def _key(cell: CellCounts) -> tuple[object, ...]:
    return (cell.stage, *(getattr(cell, name) for name in Condition._fields))
