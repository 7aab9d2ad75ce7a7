"""Which stages a pass walks: the first one, and then what the last selection asked for."""

from __future__ import annotations

from activelearn.config import Campaign, Stage
from activelearn.records import Selection
from activelearn.store import Store


def stages_of(campaign: Campaign, store: Store, iteration: int) -> list[Stage]:
    """Return the stages of this pass: the first one, and then what the last selection asked for.

    Stages are cumulative: a pass over the last stage walks the earlier ones too, with the same ensemble, so that
    convergence is a statement on the whole region. A stage that was added to the campaign joins when those before it
    are quiet or have had all their passes.
    """
    before = selections_before(store, iteration, 1)
    stages = campaign.explore.stages
    if not before:
        return [stages[0]]
    last = before[0]
    known = [i for i, stage in enumerate(stages) if stage.name in last.next_stages]
    n = max(known, default=0) + 1  # all were renamed by an accepted change: begin anew
    walked = {stage.name for stage in stages[:n]}
    is_through = last.is_bounded or (walked == set(last.quiet_stages) and not last.learnt_nothing)
    if walked == set(last.stages) and is_through:
        n += 1
    return list(stages[:n])


def selections_before(store: Store, iteration: int, n: int) -> list[Selection]:
    """Return the last `n` selections before an iteration, latest first (passes that only add data have none)."""
    found: list[Selection] = []
    for i in range(iteration - 1, 0, -1):
        if len(found) == n:
            break
        if (selection := store.find_result("select", i, Selection)) is not None:
            found.append(selection)
    return found
