"""Which stages a pass is judged on, and which of them it walks.

Stages are added one after the other, each when those before it are quiet. Nothing is trained in between, so a stage
that is quiet rests until there is another ensemble: the pass of the next stage walks that stage alone, and is judged
together with the passes before it (:mod:`activelearn.select.pooling`). What was found in a quiet pass waits for the
next training.
"""

from __future__ import annotations

from activelearn.config import Campaign, Stage
from activelearn.records import Ensemble, Selection
from activelearn.store import Store


def stages_of(campaign: Campaign, store: Store, iteration: int) -> list[Stage]:
    """Return the stages that this pass is judged on: the first one, and then those that the last selection requested.

    Stages are cumulative: each new ensemble walks the earlier ones too, so that convergence is a statement about one
    ensemble on the whole region. A stage that was added to the campaign is included when those before it are quiet or
    have had all their passes.
    """
    before = selections_before(store, iteration, 1)
    stages = campaign.explore.stages
    if not before:
        return [stages[0]]
    last = before[0]
    known = [i for i, stage in enumerate(stages) if stage.name in last.next_stages]
    n = max(known, default=0) + 1  # all were renamed by an accepted change: start again
    walked = {stage.name for stage in stages[:n]}
    is_through = last.is_bounded or (walked == set(last.quiet_stages) and not last.learnt_nothing)
    if walked == set(last.stages) and is_through:
        n += 1
    return list(stages[:n])


def walked_stages(campaign: Campaign, store: Store, iteration: int) -> list[Stage]:
    """Return the stages that this pass walks: those it is judged on, except where its ensemble was found quiet.

    Where the requirements on a pass have changed all are walked: what was quiet may no longer be.
    """
    stages, before = stages_of(campaign, store, iteration), selections_before(store, iteration, 1)
    if not before or before[0].learnt_nothing or not before[0].quiet_stages:
        return stages
    last, ensemble = before[0], store.result("train", iteration - 1, Ensemble)
    if ensemble.trained_in >= last.iteration or _asked(store.campaign(last.iteration)) != _asked(campaign):
        return stages
    return [stage for stage in stages if stage.name not in last.quiet_stages] or stages


def _asked(campaign: Campaign) -> tuple[object, ...]:
    """Return what a pass is judged by."""
    stop = campaign.stop.model_copy(update={"max_iterations": 1})
    return campaign.explored_systems, campaign.explore, campaign.select, stop


def lets_next_join(selection: Selection) -> bool:
    """Return whether all stages of a pass are quiet, so that the next one is walked before anything is trained."""
    is_quiet = set(selection.quiet_stages) == set(selection.stages)
    return is_quiet and len(selection.next_stages) > len(selection.stages)


def selections_before(store: Store, iteration: int, n: int) -> list[Selection]:
    """Return the last `n` selections before an iteration, latest first (passes that only add data have none)."""
    found: list[Selection] = []
    for i in range(iteration - 1, 0, -1):
        if len(found) == n:
            break
        if (selection := store.find_result("select", i, Selection)) is not None:
            found.append(selection)
    return found
