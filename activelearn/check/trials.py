"""Trial of a user's LAMMPS lines, on a few atoms before anything expensive runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from activelearn import packing, starts, trees
from activelearn.check.programs import launcher_problems
from activelearn.config import Campaign, Machine, Potential, Stage, lammps_lines
from activelearn.engines.process import Slot
from activelearn.engines.trials import Trial, made_up, try_potential, try_stage
from activelearn.errors import ActiveLearnError
from activelearn.frames import Frames


def problems_of_stages(campaign: Campaign, machine: Machine) -> list[str]:
    """Return LAMMPS' errors on the lines of the stages, each tried on atoms of the stage's first system."""
    found = []
    for i, stage in enumerate(campaign.explore.stages):
        if stage.lammps.strip():
            where = f"explore.stages.{i}.lammps"
            try_it = partial(try_stage, stage, _start(campaign, stage), campaign.type_map)
            trial = _tried(where, machine.at("explore"), try_it)
            found += [trial] if isinstance(trial, str) else []
            if isinstance(trial, Trial):
                line, said = _typed(stage, trial), trial.said
                expected = "expected lines that LAMMPS accepts"
                found.append(f"{where}: {line}: LAMMPS says: {said} - {expected} - fix it (docs.lammps.org)")
    return found


def problems_of_potential(potential: Potential, machine: Machine) -> list[str]:
    """Return LAMMPS' errors on a pair style and its coefficients."""
    where = f"potential {potential.name}"
    trial = _tried(where, machine.at("glass"), partial(try_potential, potential))
    if isinstance(trial, Trial):
        of = f" (at: {trial.line})" if trial.line.startswith("pair_") else ""
        expected = "expected a pair_style and pair_coeff that LAMMPS accepts for these elements"
        return [f"{where}: LAMMPS says: {trial.said}{of} - {expected} - fix the section lammps (docs.lammps.org)"]
    return [trial] if trial is not None else []


def not_tried(campaign: Campaign) -> list[str]:
    """Return a note if stages have lines and LAMMPS is on another machine."""
    stages = [stage.name for stage in campaign.explore.stages if stage.lammps.strip()]
    where = "since LAMMPS is on the nodes of the cluster; `activelearn check` tries them there"
    return [f"note: the lammps lines of {', '.join(stages)} were not tried, {where}"] if stages else []


def _start(campaign: Campaign, stage: Stage) -> Frames:
    """Return a start of a walk; for a packing, its atoms are put on a lattice instead."""
    systems = campaign.explored_systems
    if not systems:
        return made_up(16 * campaign.type_map)
    system = systems[(stage.systems or (0,))[0]]
    if system.packed is None:
        return starts.right_handed(starts.crystal(system, campaign.min_height_A))
    counts = packing.atoms_of(packing.counts_of(system.packed))
    return made_up(list(counts.elements()), packing.box_of(system.packed))


def _tried(where: str, machine: Machine, try_it: Callable[[Slot], Trial | None]) -> Trial | str | None:
    """Return LAMMPS' errors, or one line on why it could not run."""
    if launcher_problems(machine):
        return None  # reported already; nothing can be started
    # What a launcher starts may run on another node.
    place = Path(machine.scratch).expanduser() if machine.scratch else Path.cwd() if machine.launcher else None
    with trees.temporary(place if place is not None and place.is_dir() else None) as folder:
        try:
            return try_it(Slot(machine, folder))
        except ActiveLearnError as error:
            return f"{where}: {str(error).splitlines()[0]}"


def _typed(stage: Stage, trial: Trial) -> str:
    """Return the line that LAMMPS stopped at as it is typed in the stage."""
    for command in lammps_lines.commands(stage.lammps):
        if trial.line.split()[:2] == list(command.words[:2]):
            return f"line {command.number} {command.typed!r}"
    return "its lines"
