"""The verdict: whether and how a campaign has ended, in words with the numbers, or whether it continues."""

from __future__ import annotations

from collections.abc import Sequence

from activelearn import capacity, geometry, initial, learning, prepare, select
from activelearn.config import Campaign, trainer_of
from activelearn.errors import StoreError
from activelearn.final_models import without_choice
from activelearn.records import End, Iteration, Selection
from activelearn.store import Store


def ended(store: Store) -> End:
    """Return how a campaign ended; StoreError if it has not."""
    end = verdict(store)
    if end is None:
        raise StoreError(f"{store.folder}: the campaign has not ended - expected one that has - continue running it")
    return end


def verdict(store: Store) -> End | None:
    """Return how the campaign ended, or None if it continues.

    An ended campaign continues when an accepted change requires it: a raised bound, another region or window after it
    has converged, any change at all after it was given up.
    """
    records = store.iterations()
    if not records or records[-1].selection is None:
        return None
    last, selection = records[-1], records[-1].selection
    settings = store.latest_campaign()
    again = _again(last.index, settings)
    is_reopened = _is_reopened(store, last.index, settings)
    is_changed = _is_changed(store, last.index, settings)
    if selection.is_converged and not is_reopened:
        return _end(store, records, selection, selection.why, exit_code=0)
    if _is_stuck(selection) and not is_changed:
        return _end(store, records, selection, f"{selection.why} - change explore.stages{again}")
    has_learnt = last.ensemble.trained_in == last.index
    is_same_training = store.campaign(last.index).train.trains_like(settings.train)
    if selection.learnt_nothing and not has_learnt and is_same_training and not is_reopened:
        return _end(store, records, selection, _unlearnt(last, selection, settings))
    if (rescues := _rescues_in_a_row(store, records, settings)) > settings.select.rescue.max_in_a_row:
        return _end(store, records, selection, _hopeless(selection, rescues, settings, again))
    is_last = {stage.name for stage in settings.explore.stages} == set(selection.stages)
    if selection.is_bounded and is_last and not is_reopened:
        return _end(store, records, selection, _stage_bound(selection, store.campaign(last.index), again))
    if selection.is_inaccurate and not has_learnt and not is_changed:
        return _end(store, records, selection, _inaccurate(selection, settings, again))
    if last.index >= settings.stop.max_iterations:
        sealed_to = store.campaign(last.index)
        return _end(store, records, selection, _bound(selection, sealed_to, last.index, is_reopened=is_reopened))
    return None


def _end(store: Store, records: Sequence[Iteration], selection: Selection, headline: str, exit_code: int = 3) -> End:
    """Return how a campaign ended: a headline, what is known of the true errors, and what no pass can fix."""
    last = records[-1].index
    accuracy = select.accuracy_after(records, selection, store.campaign(last).select)
    held_out = selection.held_out_p99
    is_said = held_out is not None and select.p99(held_out) in headline
    said = "; ".join((headline, accuracy.false_accepts if is_said else accuracy.said, *accuracy.warnings))
    problems = _problems(records[-1])
    message = said + _without_room(store, records) + ("" if problems in headline else problems)
    return End(converged=exit_code == 0, iteration=last, exit_code=exit_code, message=message)


def _rescues_in_a_row(store: Store, records: Sequence[Iteration], settings: Campaign) -> int:
    """Return how many consecutive passes, up to and including the last, were rescued with the current settings."""
    rescues = 0
    for record in reversed(records):
        if record.selection is None or not record.selection.is_rescue or _is_changed(store, record.index, settings):
            break
        rescues += 1
    return rescues


def _is_stuck(selection: Selection) -> bool:
    """Return whether a pass made no progress and left nothing to label or walk: the next would be the same."""
    is_idle = selection.chosen + selection.rescued == 0 and selection.next_stages == selection.stages
    return bool(selection.unexplored_stages) and is_idle


def _is_reopened(store: Store, last: int, latest: Campaign) -> bool:
    """Return whether the verdict of iteration `last` is void for the latest campaign: other region, end or data."""

    def question(campaign: Campaign) -> tuple[object, ...]:
        systems = campaign.explore.systems or campaign.initial.systems
        stop = campaign.stop.model_copy(update={"max_iterations": 1})
        return systems, campaign.explore, campaign.select, stop, without_choice(campaign).final

    return question(store.campaign(last)) != question(latest) or has_new_data(store, last + 1)


def _is_changed(store: Store, iteration: int, latest: Campaign) -> bool:
    """Return whether an iteration had other settings than the latest ones.

    Campaigns are compared as they are read, not their checksums: a key that did not exist when the folder was written
    has its default.
    """
    return without_choice(store.campaign(iteration)) != without_choice(latest)


def _problems(last: Iteration) -> str:
    """Return the closing note on problems of the training of the last ensemble."""
    return "".join(f"; {line}" for line in learning.problems_of(last.ensemble))


def _again(last: int, settings: Campaign) -> str:
    """Return how advice ends: with one more iteration if the campaign has used all that it may have."""
    also = ", raise stop.max_iterations" if last >= settings.stop.max_iterations else ""
    return f"{also} and run again with --accept-changes"


def _unlearnt(last: Iteration, selection: Selection, settings: Campaign) -> str:
    also = ", raise stop.max_iterations" if last.index >= settings.stop.max_iterations else ""
    return f"{selection.why}{_problems(last)}{also}, and run again with --accept-changes"


def _bound(selection: Selection, settings: Campaign, n: int, *, is_reopened: bool = False) -> str:
    c = selection.judged
    failed = f"{c.failed} failed frames ({100 * c.share('failed'):.1f} %)"
    outside = f"; {c.out_of_region} more were out of the region" if c.out_of_region else ""
    pooled = f", {selection.n_pooled} passes of one ensemble together" if selection.n_pooled > 1 else ""
    loud = select.held_back(selection, settings)
    if is_reopened:  # what held it back then may be no bound any more
        loud = ["changed settings, by which no pass has been judged yet"]
    held_back = f"; held back by {'; '.join(loud)}" if loud else ""
    return (
        f"not converged after {n} iteration{'s' if n > 1 else ''} (stop.max_iterations): {c.candidate} candidates "
        f"({100 * c.share('candidate'):.1f} %) and {failed} were left of {c.in_region}{outside}{pooled}{held_back}; "
        f"stages explored: {', '.join(selection.stages)} - raise stop.max_iterations (and, if the shares do not fall, "
        "make explore.stages colder or shorter) and run again with --accept-changes"
    )


def _stage_bound(selection: Selection, settings: Campaign, again: str) -> str:
    return (
        f"not converged: the last stage had all its passes (max_passes), and not all stages are quiet "
        f"({'; '.join(select.held_back(selection, settings))}) - raise max_passes of explore.stages{again}"
    )


def _inaccurate(selection: Selection, settings: Campaign, again: str) -> str:
    bound = f"stop.max_force_error_p99 = {settings.stop.max_force_error_p99:g} eV/Å"
    if selection.held_out_p99 is None:
        return (
            f"not converged: {bound} is required, and there are no held-out frames to measure the force error on - "
            f"remove the key{again}, or start again with initial.held_out_fraction above 0 "
            "and another --folder (with label.ledger no label is computed twice)"
        )
    found = select.over(selection.judged, selection.n_pooled, settings.stop)
    return (
        f"not converged: the held-out P99 of the force error is above {bound}, and exploration finds nothing to label "
        f"({found}) - train longer (train.n_steps, train.warm_n_steps), {trainer_of(settings.train).larger} or lower "
        f"select.f_lo{again}"
    )


def _hopeless(selection: Selection, n: int, settings: Campaign, again: str) -> str:
    c = selection.counts
    return (
        f"{n} passes in a row failed almost everywhere (last: {c.failed} failed and {c.out_of_region} out of region of "
        f"{c.walked} frames) and rescuing did not help - change one of: explore.stages (colder, shorter walks), "
        "initial.copies and initial.md (more data at these temperatures), train.n_steps (longer), "
        f"{trainer_of(settings.train).smoother} -{again.removeprefix(',')}"
    )


def _without_room(store: Store, records: Sequence[Iteration]) -> str:
    """Return the closing note on what no further pass can fix: added systems whose labels were refused for `sel`.

    Such a folder was made before these systems were refused at `check`.
    """
    added = (r for r in records if r.initial is not None and r.index > 0 and r.initial.driver is None)
    n = sum(record.labelling.refused.get(geometry.NO_ROOM, 0) for record in added)
    if n == 0:
        return ""
    return (
        f"; no further pass can help with the added systems, of which {n} labels were refused: they have "
        f"{geometry.NO_ROOM}, and it is fixed - for them, {capacity.new_campaign(store.latest_campaign(), store)}"
    )


def has_new_data(store: Store, iteration: int) -> bool:
    """Return whether an iteration makes initial data.

    Those of systems, isolated atoms or dimers that were added, and of copies that the first models are to move.
    """
    is_open = (store.iteration_folder(iteration) / "campaign.yaml").is_file()
    campaign = store.campaign(iteration) if is_open else store.latest_campaign()
    was_planned = store.plan_file(prepare.STATION.name, iteration).is_file()
    return was_planned or bool(
        initial.new_systems(campaign, store, iteration)
        or initial.new_isolated(campaign, store, iteration)
        or initial.waiting_systems(campaign, store, iteration)
        or prepare.systems_of(campaign, store, iteration)
    )
