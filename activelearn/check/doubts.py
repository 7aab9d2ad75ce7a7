"""What of a campaign cannot be, and what is hardly meant: numbers out of bounds, and numbers that contradict others."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Final

import numpy as np

from activelearn import starts
from activelearn.config import Campaign, Machine, System, bounds, trainer_of
from activelearn.config.section import Document
from activelearn.frames import Frames
from activelearn.select import reach

#: More frames than this are not kept of the initial data, or of one pass.
MOST_FRAMES: Final = 100_000_000
#: More pairs than this of one cell are not counted by `check`, which does so several times: a second each.
MOST_PAIRS: Final = 10_000_000


def judged(campaign: Campaign, machine: Machine) -> tuple[list[str], list[str]]:
    """Return what cannot be, and what is unusual; nothing is built for it, whatever the numbers are."""
    problems, unusual = out_of_bounds(campaign, machine)
    trainer = trainer_of(campaign.train)
    unusual += [*_stages(campaign), *_strange_guards(campaign), *trainer.unusual(campaign.train)]
    md = campaign.initial.md
    if md is not None and md.every > md.n_steps:
        unusual.append(
            f"initial.md.every: {md.every} of n_steps = {md.n_steps} steps - usual is a smaller one: nothing but the "
            "starts is kept"
        )
    impossible = [*_empty(campaign), *trainer.impossible(campaign.train), *_slow(campaign), *_too_many(campaign)]
    impossible += [] if trainer.runs_in_lammps else _lines_for_lammps(campaign)
    if campaign.teacher is not None:
        its, train = trainer_of(campaign.teacher.train), campaign.teacher.train
        impossible += [f"teacher.{line}" for line in its.impossible(train)]
        unusual += [f"teacher.{line}" for line in its.unusual(train)]
    return [*problems, *impossible], unusual


def out_of_bounds(given: Document, machine: Machine) -> tuple[list[str], list[str]]:
    """Return the impossible and the unusual numbers of a campaign or a study, and of where it runs."""
    found = [*bounds.outliers(given), *bounds.outliers(machine, "machine")]
    return [str(o) for o in found if not o.is_possible], [str(o) for o in found if o.is_possible]


def short_walks(campaign: Campaign) -> list[str]:
    """Return one line for each stage whose walks end before anything has moved."""
    return [
        f"explore.stages.{i} ({stage.name}): walks of {reach.walk_fs(stage):g} fs, {reach.times(stage)} - wanted at "
        f"least {reach.SHORTEST_WALK_FS:g} fs, for a vibration takes about 100 fs and nothing would have moved - raise "
        "timestep_fs (1 to 2 fs is usual) or n_steps"
        for i, stage in enumerate(campaign.explore.stages)
        if reach.walk_fs(stage) < reach.SHORTEST_WALK_FS
    ]


def too_large(campaign: Campaign, system: System) -> str | None:
    """Return why the supercell of a seed is too large to be built, or None."""
    cell = starts.unit_cell(system)
    factors = starts.factors(system, cell, campaign.min_height_A)
    n_atoms, most = cell.n_atoms * prod(factors), bounds.of("number of atoms of a labelled cell").possible[1]
    if n_atoms <= most:
        return None
    return (
        f"system {system.seed} {'x'.join(map(str, factors))}: {n_atoms} atoms - wanted at most {most:g} in a cell that "
        "is labelled - lower supercell, n_atoms or initial.min_height_A"
    )


def too_dense(campaign: Campaign, frame: Frames) -> str | None:
    """Return why the neighbours of a crystal are not counted, or None: pairs are estimated from density and cutoff."""
    guards = campaign.select.guards
    reach_A = max(campaign.cutoff_A, *guards.min_distances_A.values(), 0.0)
    scale = min(1.0, *campaign.initial.scales, *campaign.explore.start_scales)
    volume = float(abs(np.linalg.det(frame.cell[0]))) * scale**3 * guards.volume_ratio[0]
    n_each = frame.n_atoms * 4.0 / 3.0 * np.pi * reach_A**3 / volume
    most = min(MOST_PAIRS / frame.n_atoms, bounds.of("number of neighbours").possible[1])
    if n_each <= most:
        return None
    return (
        f"train: about {n_each:.2g} neighbours of each atom of {frame.formula} within {reach_A:g} Å, "
        f"at the densest that scales and select.guards allow - wanted at most {most:.2g} - lower rcut or the number "
        "of atoms, raise volume_ratio, or mend the cell"
    )


def _empty(campaign: Campaign) -> Iterator[str]:
    """Yield the lists that have nothing, or the same twice, in them."""
    scales = campaign.explore.start_scales
    for where, values in (("initial.scales", campaign.initial.scales), ("explore.start_scales", scales)):
        if not values:
            yield f"{where}: is empty - wanted one scale or more, 1.0 is the crystal - leave it out, or name them"
    if len({f"{scale:g}" for scale in scales}) < len(scales):
        yield f"explore.start_scales: {list(scales)} - wanted different ones - name each once"
    for i, stage in enumerate(campaign.explore.stages):
        if stage.systems == ():
            yield f"explore.stages.{i}.systems: is empty - wanted numbers of systems - leave it out for all of them"


def _slow(campaign: Campaign) -> Iterator[str]:
    """Yield a wish for a faster form that the models do not have."""
    if campaign.train.compress == "always" and not trainer_of(campaign.train).compresses(campaign.train):
        yield (
            f"train.compress: always - wanted models that have a faster form, and those of trainer "
            f"{campaign.train.trainer} with these settings have none - leave it out"
        )


def _lines_for_lammps(campaign: Campaign) -> list[str]:
    """Return the stages that are LAMMPS' alone, of a campaign whose walks are driven by ASE."""
    return [
        f"explore.stages.{i}.lammps: lines for LAMMPS - wanted none: models of trainer {campaign.train.trainer} are "
        "driven by ASE - leave them out, and take ensemble nvt or npt-*"
        for i, stage in enumerate(campaign.explore.stages)
        if stage.lammps.strip()
    ]


def _too_many(campaign: Campaign) -> Iterator[str]:
    """Yield products that are too large, and a training that would never begin."""
    counted = {"initial: copies x scales x systems x temperatures x frames": campaign.initial.n_frames}
    for i, stage in enumerate(campaign.explore.stages):
        n = stage.n_walks * len(stage.conditions) * stage.n_frames
        counted[f"explore.stages.{i} ({stage.name}): walks x conditions x frames"] = n
    for what, n in counted.items():
        if n > MOST_FRAMES:
            yield f"{what}: {n:.3g} frames - wanted at most {MOST_FRAMES:.1g} - lower one of them, or raise `every`"
    most = campaign.select.max_frames * campaign.stop.max_iterations
    if campaign.train.min_new_frames > most:
        yield (
            f"train.min_new_frames: {campaign.train.min_new_frames} - wanted no more than the campaign may ever "
            f"choose, {most} (select.max_frames x stop.max_iterations), or nothing is trained again - lower it"
        )


def unknown_in_guards(campaign: Campaign) -> list[str]:
    """Return the guards of what is no element."""
    from ase.data import atomic_numbers

    return [
        f"select.guards.min_distances_A.{pair}: {element} is no element - wanted chemical symbols - mend it"
        for pair in campaign.select.guards.min_distances_A
        for element in dict.fromkeys(pair.split("-"))
        if not atomic_numbers.get(element)
    ]


def _strange_guards(campaign: Campaign) -> Iterator[str]:
    guards = campaign.select.guards.min_distances_A
    for pair in guards:
        if strangers := [element for element in dict.fromkeys(pair.split("-")) if element not in campaign.type_map]:
            yield (
                f"select.guards.min_distances_A.{pair}: guards {', '.join(strangers)} - usual are elements of "
                f"type_map, {list(campaign.type_map)}"
            )


def _stages(campaign: Campaign) -> Iterator[str]:
    for i, stage in enumerate(campaign.explore.stages):
        walk_ps = reach.walk_fs(stage) / 1000.0
        if stage.ramps_K and stage.ensemble != "custom" and stage.temperature_damping_ps > walk_ps:
            yield (
                f"explore.stages.{i} ({stage.name}): temperature_damping_ps = {stage.temperature_damping_ps:g} is "
                f"longer than a walk ({walk_ps:g} ps) - usual is a shorter one, else the atoms do not follow ramps_K"
            )
