"""Check a study: its potentials, its glasses, what it measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Final

from activelearn import given, seeds
from activelearn.benchmark import cited, force_error, parity, reactions
from activelearn.benchmark.census import bond_cutoffs
from activelearn.benchmark.coordination import shell_cutoffs
from activelearn.check import fits
from activelearn.check.doubts import out_of_bounds
from activelearn.check.glass import check_glass, far_sizes, strangers
from activelearn.check.programs import (
    Checked,
    dispersion_problems,
    engine_problems,
    launcher_problems,
    packmol_problems,
    reference_problems,
)
from activelearn.check.roles import doubtful_series
from activelearn.check.trials import problems_of_potential
from activelearn.config import (
    UNUSED_OF_LABEL,
    Benchmark,
    CitedPoint,
    Label,
    Machine,
    Potential,
    Study,
    preset_names,
    property_of,
)
from activelearn.config.benchmark import PROPERTIES
from activelearn.config.files import is_file
from activelearn.engines import backends, frozen, requirements
from activelearn.engines.interpreters import has_module
from activelearn.errors import ActiveLearnError, ConfigError
from activelearn.store.files import file_sha256

#: Sections of a study.
_STATIONS: Final = ("glass", "benchmark")


def check_study(
    study: Study,
    machine: Machine,
    *,
    here: bool = True,
    points: Sequence[CitedPoint] = (),
    of_campaign: Sequence[str] = (),
) -> Checked:
    """Return the problems and the plan of a study whose YAML has been validated.

    Parameters
    ----------
    study, machine
        What runs, and where.
    here
        Engines run on this machine.
    points
        Cited numbers of the user's CSVs.
    of_campaign
        Elements of a campaign, if its models are the first potential; parity is then measured on its held-out set.
    """
    impossible, unusual = out_of_bounds(study, machine)
    unusual += [*far_sizes(study.glass), *doubtful_series(study.of_glasses), *fits.crowded(study, machine)]
    if impossible:
        return Checked(impossible, unusual=unusual)
    wants_lammps = any(potential.ase is None for potential in study.potentials)
    problems: list[str] = []
    if here and wants_lammps:
        wants_deepmd = any(potential.deepmd is not None for potential in study.potentials)
        problems += engine_problems(machine, wants_deepmd=wants_deepmd)
    elif here:
        problems += launcher_problems(machine)
    facts = []
    problems += fits.contradictions(study, machine)
    for potential in study.potentials:
        problems += _potential(potential, machine) if here else []
        facts.append(f"potential {potential.name}: {potential.physics}, {_driver(potential)}")
    if here and not problems:
        for i, potential in enumerate(study.potentials):
            is_to_come = bool(of_campaign) and i == 0 and not potential.files
            problems += problems_of_potential(potential, machine) if potential.lammps and not is_to_come else []
    if study.glasses is not None:
        said, wrong = _given(study)
        facts, problems = facts + said, problems + wrong
    if study.glass is not None:
        problems += packmol_problems(machine) if here else []
        said, wrong = check_glass(study, study.glass)
        facts, problems = facts + said, problems + wrong
    more, wrong = _benchmark(study, of_campaign, machine if here else None)
    points = cited.own_points(study, points)
    problems = list(dict.fromkeys([*problems, *wrong, *cited.problems(study, points)]))
    more += cited.said(study, points)
    return Checked(problems, [] if problems else [*facts, str(machine), *more], unusual)


def _driver(potential: Potential) -> str:
    if potential.ase is not None:
        n = 1 + len(potential.others)
        return f"{n} members{_judged(potential)}, MD by ASE" if n > 1 else "MD by ASE"
    if potential.deepmd is None:
        return "MD by LAMMPS"
    n, judged = len(potential.deepmd.models), _judged(potential)
    held = "".join(f", {_room(model)}" for model in frozen.models_of(potential))
    return f"{n} DeePMD model{'s' if n > 1 else ''}{judged}{held}, MD by LAMMPS"


def _judged(potential: Potential) -> str:
    """Return by what the paths of an ensemble are judged, in words."""
    window = potential.window
    return f", window {window[0]:g} to {window[1]:g} eV/Å" if window is not None else ", deviation not monitored"


def _room(model: frozen.Frozen) -> str:
    """Return the maximum number of neighbours of a model, as stored in it."""
    if not model.sel:
        why = "its descriptor has no sel, or does not truncate"
        return f"of {', '.join(model.type_map)}, with unlimited neighbours ({why})"
    return "sel " + " and ".join(map(_sphere, (model, *model.others)))


def _sphere(model: frozen.Frozen) -> str:
    held = ", ".join(f"{kind} {n}" for kind, n in zip(model.kinds, model.sel, strict=True))
    return f"{held} within {model.rcut:g} Å"


def _potential(potential: Potential, machine: Machine) -> list[str]:
    where = f"potential {potential.name}"
    files = potential.deepmd.models if potential.deepmd is not None else ()
    missing = [file for file in files if not is_file(Path(file)) and not file.startswith("..")]
    if missing:
        return [f"{where}: no file {missing[0]} - expected a frozen model - check the path"]
    if potential.d3 is not None and potential.deepmd is not None and not has_module("dftd3", machine.python):
        return [f"{where}: no dftd3 here - needed for the dispersion - pip install dftd3"]
    if potential.ase is None and not has_module("ase", machine.python):
        return [
            f"{where}: {machine.python} has no ase - needed for energies and relaxations - pip install ase, into it"
        ]
    if files and not files[0].startswith(".."):  # existing, not those that a campaign is still to make
        form = f"{where}: models {Path(files[0]).suffix}"
        lacks = requirements.problems(backends.of_model(files[0]), machine, where=form, stations=_STATIONS)
        if lacks:
            return lacks
    wrong = dispersion_problems(potential.d3, where)
    return wrong or reference_problems(potential.statics(machine.python), machine, where)


def _cutoffs(study: Study) -> list[str]:
    """Return the cutoffs that the analyses of the glasses will want and the series does not have."""
    asked, glass = study.benchmark, study.of_glasses
    problems: list[str] = []
    if asked is None or glass is None:
        return []
    for is_asked, wants in ((asked.network is not None, bond_cutoffs), (asked.coordination, shell_cutoffs)):
        try:
            if is_asked:
                wants(glass.series)
        except ConfigError as error:
            problems += error.problems
    return problems


def _crystals(study: Study, of_campaign: Sequence[str]) -> tuple[list[str], dict[str, str], list[str]]:
    """Return notes on crystals that potentials do not know, unmeasurable properties with reasons, and problems."""
    asked = study.benchmark
    if asked is None:
        return [], {}, []
    elements, problems = _elements(asked)
    notes, known = [], []
    for i, potential in enumerate(study.potentials):
        of_potential = set(of_campaign) if of_campaign and i == 0 else frozen.elements_of(potential)
        unknown = {
            name: one
            for name, kinds in elements.items()
            if of_potential is not None and (one := sorted(kinds - of_potential))
        }
        known.append(elements.keys() - unknown.keys())
        if unknown:
            said = ", ".join(f"{Path(name).stem} ({', '.join(kinds)})" for name, kinds in unknown.items())
            notes.append(
                f"note: potential {potential.name} does not know all elements of these crystals, left out: {said}"
            )
    return notes, {} if problems else _of_nothing(asked, known), problems


def _elements(asked: Benchmark) -> tuple[dict[str, set[str]], list[str]]:
    """Return the elements of the relaxed crystals, by seed or file, and the problems of sections that need them."""
    elements: dict[str, set[str]] = {}
    problems: list[str] = []
    for name in asked.crystals.seeds if asked.crystals is not None else ():
        try:
            elements[name] = set(seeds.load_structure(name, Path()).get_chemical_symbols())
        except ConfigError as error:
            problems += [f"benchmark.crystals.seeds: {line}" for line in error.problems]
    if asked.reactions is not None:
        try:
            found = reactions.elements_of(asked.reactions)
        except ConfigError as error:
            return elements, [*problems, *error.problems]
        elements |= {asked.reactions.structure(name): set(of_unit) for name, of_unit in found.items()}
        problems += reactions.unbalanced(asked.reactions, found)
    return elements, problems


def _of_nothing(asked: Benchmark, known: Sequence[Set[str]]) -> dict[str, str]:
    """Return what cannot be measured with any potential, with the reason; `known`: the crystals that each knows."""
    found = {}
    if asked.crystals is not None and all(names.isdisjoint(asked.crystals.seeds) for names in known):
        found["crystals"] = "no crystal of known elements"
    if asked.reactions is not None:
        required = [{*map(asked.reactions.structure, (*e.left, *e.right))} for e in asked.reactions.equations.values()]
        if not any(one <= names for one in required for names in known):
            found["reactions"] = "no reaction of crystals of known elements"
    return found


def _nothing(named: Sequence[str], without: Sequence[str], of_nothing: Mapping[str, str]) -> str:
    """Return why nothing would be measured, and what helps."""
    if without:
        return (
            f"{', '.join(without)} need a potential to run - expected one, or properties that need none - add "
            "--potentials, or use --benchmark structure"
        )
    if of_nothing:
        return (
            f"{' and '.join(of_nothing.values())} - expected something to measure - name a file of labelled frames, "
            "other crystals, or glasses (--series)"
        )
    return (
        f"{', '.join(named) or 'everything is switched off'} - expected glasses, or a property that needs none - add "
        f"--series {' or '.join(preset_names('series'))} (in a YAML: glass), or use --benchmark crystals"
    )


def _runs(name: str) -> bool:
    """Return whether a property runs a potential: with each glass, or with crystals and labelled frames."""
    one = property_of(name)
    return bool(one.runs_potential or (not one.needs_glass and name in PROPERTIES.built_in))


def _given(study: Study) -> tuple[list[str], list[str]]:
    """Return what is read of glasses that one has, and what is wrong with them, and with potentials that are run."""
    assert study.glasses is not None
    try:
        facts = given.said(study.glasses)
    except ActiveLearnError as error:
        return [], list(error.problems) if isinstance(error, ConfigError) else [str(error)]
    return facts, list(strangers(study, study.glasses))


def _label(label: Label | None, machine: Machine | None) -> list[str]:
    """Return the problems of the reference that labels frames of glasses; it is looked for if a machine is given."""
    if label is None:
        return [force_error.NO_REFERENCE]
    unused = (name for name in UNUSED_OF_LABEL if getattr(label, name) != Label.model_fields[name].default)
    problems = [
        f"benchmark.force_error.label.{name}: is not used here - expected only reference, max_force and max_net_force "
        "- leave it out"
        for name in unused
    ]
    if machine is not None:
        problems += reference_problems(label.reference, machine.at("benchmark"), force_error.REFERENCE)
    return problems


def _parity_frames(frames: str) -> list[str]:
    """Return the problems of a file of labelled frames, which is read: it would be missed after the glasses else."""
    path = Path(frames)
    if not (path.is_absolute() and is_file(path)):
        return [f"benchmark.parity.frames: no file {frames} - expected labelled frames (extxyz) - check the path"]
    try:
        parity.labelled_frames(path, file_sha256(path))
    except ConfigError as error:
        return list(error.problems)
    return []


def _benchmark(study: Study, of_campaign: Sequence[str], machine: Machine | None) -> tuple[list[str], list[str]]:
    """Return facts and problems of what is measured; the reference is looked for if a machine is given."""
    asked, problems = study.benchmark, []
    if asked is None:
        return [], []
    left_out, of_no_crystal, wrong = _crystals(study, of_campaign)
    problems += wrong
    frames = asked.parity.frames if asked.parity is not None else None
    problems += _parity_frames(frames) if frames is not None else []
    diffusion = asked.diffusion
    if diffusion is not None and diffusion.bayesian and not has_module("kinisi", None):
        problems.append(
            "benchmark.diffusion.bayesian: kinisi is not installed - needed for this estimate - pip install kinisi"
        )
    problems += _cutoffs(study)
    if asked.force_error is not None and study.of_glasses is not None and study.potentials:
        problems += _label(asked.force_error.label, machine)
    named = [name for name, value in asked if name != "dynamics" and value]
    has_glasses, is_run = study.of_glasses is not None, bool(study.potentials)
    lacking = [n for n in named if not has_glasses and (n == "maps" or property_of(n).needs_glass)]
    without = [n for n in named if not is_run and (n == "maps" or _runs(n))]
    of_nothing = {}
    if asked.parity is not None and frames is None and not of_campaign:
        of_nothing["parity"] = "no labelled frames (parity.frames)"
    of_nothing |= of_no_crystal
    measured = ", ".join(name for name in named if name not in (*lacking, *without, *of_nothing))
    if not measured:
        problems.append(f"benchmark: nothing would be measured: {_nothing(named, without, of_nothing)}")
    facts = [f"measured: {measured}; {len(study.cited)} cited values to compare with"]
    if lacking:
        facts.append(f"note: not measured, since no glass is made (glass, or --series): {', '.join(lacking)}")
    if runs := [name for name in without if name != "maps"]:  # which are of diffusion
        facts.append(f"note: not measured, since no potential is given to run (--potentials): {', '.join(runs)}")
    if "parity" in of_nothing:
        facts.append("note: parity is not measured, since there are no labelled frames (benchmark.parity.frames)")
    facts += left_out
    return facts, problems
