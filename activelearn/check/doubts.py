"""Impossible and suspicious values of a campaign: numbers out of bounds, and numbers that contradict others."""

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

#: Largest number of frames of the initial data, or of one pass.
MOST_FRAMES: Final = 100_000_000
#: Largest number of pairs of one cell that `check` counts, which it does several times; a second each.
MOST_PAIRS: Final = 10_000_000


def judged(campaign: Campaign, machine: Machine) -> tuple[list[str], list[str]]:
    """Return impossible and unusual values; no structure is built for this, however large the numbers are."""
    problems, unusual = out_of_bounds(campaign, machine)
    trainer = trainer_of(campaign.train)
    unusual += [*_stages(campaign), *_strange_guards(campaign), *trainer.unusual(campaign.train)]
    md = campaign.initial.md
    if md is not None and md.every > md.n_steps:
        unusual.append(
            f"initial.md.every: {md.every} of n_steps = {md.n_steps} steps - usual is a smaller number, else only the "
            "starts are kept"
        )
    impossible = [*_empty(campaign), *trainer.impossible(campaign.train), *_slow(campaign), *_too_many(campaign)]
    impossible += [] if trainer.runs_in_lammps else _lines_for_lammps(campaign)
    if campaign.teacher is not None:
        its, train = trainer_of(campaign.teacher.train), campaign.teacher.train
        impossible += [f"teacher.{line}" for line in its.impossible(train)]
        unusual += [f"teacher.{line}" for line in its.unusual(train)]
    return [*problems, *impossible], unusual


def out_of_bounds(given: Document, machine: Machine) -> tuple[list[str], list[str]]:
    """Return the impossible and the unusual numbers of a campaign or a study, and of its machine."""
    found = [*bounds.outliers(given), *bounds.outliers(machine, "machine")]
    return [str(o) for o in found if not o.is_possible], [str(o) for o in found if o.is_possible]


def short_walks(campaign: Campaign) -> list[str]:
    """Return one line for each stage whose walks are too short for atoms to move."""
    return [
        f"explore.stages.{i} ({stage.name}): walks of {reach.walk_fs(stage):g} fs, {reach.times(stage)} - expected at "
        f"least {reach.SHORTEST_WALK_FS:g} fs, since a vibration takes about 100 fs and the atoms would hardly move - "
        "raise timestep_fs (1 to 2 fs is usual) or n_steps"
        for i, stage in enumerate(campaign.explore.stages)
        if reach.walk_fs(stage) < reach.SHORTEST_WALK_FS
    ]


def too_large(campaign: Campaign, system: System) -> str | None:
    """Return why the supercell of a seed is too large to build, or None."""
    cell = starts.unit_cell(system)
    factors = starts.factors(system, cell, campaign.min_height_A)
    n_atoms, most = cell.n_atoms * prod(factors), bounds.of("number of atoms of a labelled cell").possible[1]
    if n_atoms <= most:
        return None
    return (
        f"system {system.seed} {'x'.join(map(str, factors))}: {n_atoms} atoms - expected at most {most:g} in a "
        "labelled cell - lower supercell, n_atoms or initial.min_height_A"
    )


def too_dense(campaign: Campaign, frame: Frames) -> str | None:
    """Return why the neighbours of a crystal are too many to count, estimated from density and cutoff, or None."""
    guards = campaign.select.guards
    reach_A = max(campaign.cutoff_A, *guards.min_distances_A.values(), 0.0)
    scale = min(1.0, *campaign.initial.scales, *campaign.explore.start_scales)
    volume = float(abs(np.linalg.det(frame.cell[0]))) * scale**3 * guards.volume_ratio[0]
    n_each = frame.n_atoms * 4.0 / 3.0 * np.pi * reach_A**3 / volume
    most = min(MOST_PAIRS / frame.n_atoms, bounds.of("number of neighbours").possible[1])
    if n_each <= most:
        return None
    return (
        f"train: about {n_each:.2g} neighbours per atom of {frame.formula} within {reach_A:g} Å, at the highest "
        f"density that scales and select.guards allow - expected at most {most:.2g} - lower rcut or the number of "
        "atoms, raise volume_ratio, or fix the cell"
    )


def _empty(campaign: Campaign) -> Iterator[str]:
    """Yield the lists that are empty or contain duplicates."""
    scales = campaign.explore.start_scales
    for where, values in (("initial.scales", campaign.initial.scales), ("explore.start_scales", scales)):
        if not values:
            yield f"{where}: is empty - expected one or more scales (1.0 is the crystal) - leave it out, or list some"
    if len({f"{scale:g}" for scale in scales}) < len(scales):
        yield f"explore.start_scales: {list(scales)} - expected different values - list each once"
    for i, stage in enumerate(campaign.explore.stages):
        if stage.systems == ():
            yield f"explore.stages.{i}.systems: is empty - expected numbers of systems - leave it out for all systems"


def _slow(campaign: Campaign) -> Iterator[str]:
    """Yield a request for compressed models that the trainer does not have."""
    if campaign.train.compress == "always" and not trainer_of(campaign.train).compresses(campaign.train):
        yield (
            f"train.compress: always - expected models that can be compressed, but those of trainer "
            f"{campaign.train.trainer} with these settings cannot - leave it out"
        )


def _lines_for_lammps(campaign: Campaign) -> list[str]:
    """Return the stages that need LAMMPS, of a campaign whose walks are driven by ASE."""
    return [
        f"explore.stages.{i}.lammps: lines for LAMMPS - expected none, since models of trainer "
        f"{campaign.train.trainer} are driven by ASE - leave them out, and use ensemble nvt or npt-*"
        for i, stage in enumerate(campaign.explore.stages)
        if stage.lammps.strip()
    ]


def _too_many(campaign: Campaign) -> Iterator[str]:
    """Yield products that are too large, and a training that would never start."""
    counted = {"initial: copies x scales x systems x temperatures x frames": campaign.initial.n_frames}
    for i, stage in enumerate(campaign.explore.stages):
        n = stage.n_walks * len(stage.conditions) * stage.n_frames
        counted[f"explore.stages.{i} ({stage.name}): walks x conditions x frames"] = n
    for what, n in counted.items():
        if n > MOST_FRAMES:
            yield f"{what}: {n:.3g} frames - expected at most {MOST_FRAMES:.1g} - lower one of them, or raise `every`"
    most = campaign.select.max_frames * campaign.stop.max_iterations
    if campaign.train.min_new_frames > most:
        yield (
            f"train.min_new_frames: {campaign.train.min_new_frames} - expected at most what the campaign can "
            f"select, {most} (select.max_frames x stop.max_iterations), else no model is ever retrained - lower it"
        )


def unknown_in_guards(campaign: Campaign) -> list[str]:
    """Return the guards of something that is not an element."""
    from ase.data import atomic_numbers

    return [
        f"select.guards.min_distances_A.{pair}: {element} is not an element - expected chemical symbols - fix it"
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
                f"longer than a walk ({walk_ps:g} ps) - usual is a shorter time, else the atoms do not follow ramps_K"
            )
