"""What of a campaign is hardly meant: walks that would go nowhere, and numbers in the units of other programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from activelearn.config import Campaign, Train
from activelearn.select import reach

#: Linear scales of a cell beyond these (a volume of 1/8 or 8 times) are asked about.
USUAL_SCALES: Final = (0.5, 2.0)
#: A larger pressure is asked about, bar (1000 GPa).
USUAL_PRESSURE_BAR: Final = 1.0e7
#: A learning rate that starts higher is asked about. Tiny nets on EMT copper (wsd, 600 steps) left 0.06 of the RMS of
#: the forces as error from 0.02, 0.04 from 0.1, 0.58 from 0.3; at 1.0 some predict no force at all, with a finite loss.
USUAL_RATE: Final = 0.1


def short_walks(campaign: Campaign) -> list[str]:
    """Return one line for each stage whose walks end before anything has moved."""
    return [
        f"explore.stages.{i} ({stage.name}): walks of {reach.walk_fs(stage):g} fs, {reach.times(stage)} - wanted at "
        f"least {reach.SHORTEST_WALK_FS:g} fs, for a vibration takes about 100 fs and nothing would have moved - raise "
        "timestep_fs (1 to 2 fs is usual) or n_steps"
        for i, stage in enumerate(campaign.explore.stages)
        if reach.walk_fs(stage) < reach.SHORTEST_WALK_FS
    ]


def notes(campaign: Campaign) -> list[str]:
    """Return one line for each number that is allowed, but unusual."""
    found = [*_stages(campaign)]
    md = campaign.initial.md
    if md is not None and md.timestep_fs < reach.SMALLEST_TIMESTEP_FS:
        found.append(f"initial.md: timestep_fs = {md.timestep_fs:g} {reach.in_ps(md.timestep_fs)}")
    starts = {"initial.scales": campaign.initial.scales, "explore.start_scales": campaign.explore.start_scales}
    for where, scales in starts.items():
        if odd := [scale for scale in scales if not USUAL_SCALES[0] <= scale <= USUAL_SCALES[1]]:
            found.append(f"{where}: {odd} are factors on the lengths of the cell, 1.0 is the crystal: not per cent")
    found += _learning_rates(campaign.train)
    return [f"note: {line}" for line in found]


def _learning_rates(train: Train) -> list[str]:
    rate = train.learning_rate
    ends = [("start", rate.start, "stop", rate.stop)]
    if train.warm_start:
        first = ("start", rate.start) if rate.warm_start is None else ("warm_start", rate.warm_start)
        last = ("stop", rate.stop) if rate.warm_stop is None else ("warm_stop", rate.warm_stop)
        ends.append((*first, *last))
    high = [
        f"train.learning_rate: {begin} = {start:g} is so high that hardly anything is learnt; 0.001 to 0.02 is usual"
        for begin, start in dict.fromkeys((begin, start) for begin, start, _, _ in ends)
        if start > USUAL_RATE
    ]
    return high + [
        f"train.learning_rate: {end} = {stop:g} is above {begin} = {start:g}; the rate never rises, so it would stay "
        f"at {start:g}"
        for begin, start, end, stop in dict.fromkeys(ends)
        if stop > start
    ]


def _stages(campaign: Campaign) -> Iterator[str]:
    for i, stage in enumerate(campaign.explore.stages):
        where = f"explore.stages.{i} ({stage.name})"
        walk_ps = reach.walk_fs(stage) / 1000.0
        if stage.timestep_fs < reach.SMALLEST_TIMESTEP_FS:
            yield f"{where}: {reach.times(stage)}"
        if stage.ramps_K and stage.ensemble != "custom" and stage.temperature_damping_ps > walk_ps:
            yield (
                f"{where}: temperature_damping_ps = {stage.temperature_damping_ps:g} is longer than a walk "
                f"({walk_ps:g} ps), so the atoms do not follow ramps_K"
            )
        if odd := [pressure for pressure in stage.pressures_bar if abs(pressure) > USUAL_PRESSURE_BAR]:
            said = ", ".join(f"{pressure:g} bar = {pressure / 1.0e4:g} GPa" for pressure in odd)
            yield f"{where}: pressures_bar are in bar: {said}, more than in the centre of a planet; was Pa meant?"
