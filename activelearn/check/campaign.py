"""Check a campaign."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from activelearn import capacity, compression, geometry, inherited, initial, packing, pressures, starts, study
from activelearn.check import doubts, fits, smoke, trials
from activelearn.check.glass import choice, far_sizes, series_of
from activelearn.check.programs import (
    Checked,
    asked,
    folder_problems,
    model_problems,
    place_problems,
    program_problems,
)
from activelearn.check.roles import doubtful_series
from activelearn.check.study import check_study
from activelearn.config import Campaign, Driver, Initial, Machine, Packed, Potential, Reference, engine_of, trainer_of
from activelearn.config.trainer import DEFAULT
from activelearn.errors import ConfigError
from activelearn.frames import Frames
from activelearn.store import Folder, Store


def check(campaign: Campaign, machine: Machine, folder: Path, *, here: bool = True) -> Checked:
    """Return the problems and the plan of a campaign whose YAML has been validated.

    Parameters
    ----------
    campaign, machine
        What runs, and where.
    folder
        The campaign folder, existing or not.
    here
        Whether the engines run on this machine; on the nodes of a cluster they are checked by `activelearn machine
        --smoke`.
    """
    impossible, unusual = doubts.judged(campaign, machine)
    unusual += [*far_sizes(campaign.glass), *doubtful_series(campaign.glass), *fits.crowded(campaign, machine)]
    if impossible:
        return Checked(impossible, unusual=unusual)
    systems = [*_systems(campaign, "initial"), *_systems(campaign, "explore")]
    crystals = [found for found in systems if isinstance(found, Frames)]
    problems = [found for found in systems if isinstance(found, str)]
    problems += fits.contradictions(campaign, machine)
    problems += [*doubts.unknown_in_guards(campaign), *_elements(campaign, crystals)]
    dense = [line for frame in dict.fromkeys(crystals) if (line := doubts.too_dense(campaign, frame)) is not None]
    if dense:
        return Checked(problems + dense, unusual=unusual)
    problems += [*doubts.short_walks(campaign), *_outside(campaign, crystals)]
    problems += model_problems(campaign, here=here)
    problems += program_problems(campaign, machine) if here else []
    problems += _finding_bounds(machine)
    for what in asked(campaign):
        problems += _unknown(what, crystals)
    inheritance: list[str] = []
    changes: list[str] = []
    offer = inherited.NOTHING
    if wrong := folder_problems(folder, machine) or _names(Store(folder)):
        problems += wrong  # the content of the folder, if any, is not examined
    else:
        problems += place_problems(campaign, folder, machine) if here else []
        problems += _room(campaign, folder)
        wrong, changes = _changes(campaign, folder)
        problems += wrong
        wrong, inheritance, offer = inherits(campaign, folder)
        problems += wrong
    problems += _stages(campaign, offer)
    problems += _teacher(campaign, offer)
    after = _study(campaign, machine, here=here)
    problems += after.problems
    problems += trials.problems_of_stages(campaign, machine) if here and not problems else []
    inheritance += [f"note: {line}" for line in trainer_of(campaign.train).notes(campaign.train, machine)]
    inheritance += [] if here else [*trials.not_tried(campaign), *_driven_by_itself(campaign, machine)]
    facts = [] if problems else [*_facts(campaign, machine, crystals, folder, offer), *inheritance, *after.facts]
    return Checked(list(dict.fromkeys(problems)), facts, unusual, changes, offer)


def _finding_bounds(machine: Machine) -> list[str]:
    """Return which bound of the machine profile is of no finding."""
    if not machine.finding_bounds:
        return []
    from activelearn.page.findings import RULES, bounds_of

    try:
        bounds_of((), RULES, machine.finding_bounds)
    except ConfigError as error:
        return [str(error)]
    return []


def _driven_by_itself(campaign: Campaign, machine: Machine) -> list[str]:
    """Return a note for each place of a cluster whose only need of models is to move atoms in the initial data."""
    models = {machine.place_name(name) for name in smoke.MODEL_STATIONS}
    package = trainer_of(campaign.train).calculator(Path("model"))["package"]
    at: dict[str | None, list[str]] = {}
    for name in smoke.wants_of(campaign)["driving"]:
        if (place := machine.place_name(name)) not in models:
            at.setdefault(place, []).append(name)
    look = "activelearn machine --smoke --campaign YAML"
    return [
        f"note: initial.md.driver: self needs {package} at place {place}, too ({', '.join(names)}): check it with "
        f"{look}"
        for place, names in at.items()
    ]


def _changes(campaign: Campaign, folder: Path) -> tuple[list[str], list[str]]:
    """Return changes of a started campaign that are not allowed, and changes that are."""
    if not any(folder.glob("iter-*")):
        return [], []
    from activelearn import loop

    try:
        return [], loop.changed(Store(folder), campaign)
    except ConfigError as error:
        return list(error.problems), []


def inherits(campaign: Campaign, folder: Path) -> tuple[list[str], list[str], inherited.Offer]:
    """Return problems and facts about labels that join before anything runs, and what the ledger offers."""
    problems: list[str] = []
    facts: list[str] = []
    offer, store = inherited.NOTHING, Store(folder)
    if campaign.initial.from_ledger and store.is_sealed("initial", 0):
        offer = inherited.joined(store)
        facts.append(f"from the ledger: {offer.n} labels that joined at the start of the campaign")
    elif campaign.initial.from_ledger:
        ledger = inherited.ledger_of(campaign, folder)
        try:
            offer = inherited.offered(campaign, ledger, None)
        except ConfigError as error:
            return list(error.problems), [], offer
        problems = initial.lacking(campaign, offer)
        facts += inherited.said(offer, campaign, ledger.references())
    notes = pressures.notes(campaign, offer.n_without_virial, offer.n, "labels of the ledger")
    notes += pressures.notes_of_reference(campaign)
    return problems, [*facts, *(f"note: {line}" for line in notes)], offer


def _study(campaign: Campaign, machine: Machine, *, here: bool) -> Checked:
    """Check what follows the final models, while these do not exist yet."""
    if not study.asks_for_study(campaign):
        return Checked()
    reference, select, trainer = campaign.label.reference, campaign.select, trainer_of(campaign.train)
    models = [f"../models/{i}{trainer.suffix(campaign.train)}" for i in range(campaign.train.n_members)]
    said = trainer.potential(models, (), campaign.type_map, (select.f_lo, select.f_hi))
    stand_in = Potential.learnt(campaign.name, said, reference)
    found = check_study(study.planned(campaign, stand_in), machine, here=here, of_campaign=campaign.type_map)
    problems, made = [*found.problems], campaign.glass
    known, units = set(campaign.type_map), [unit for one in made.compositions for unit in one.units] if made else []
    if made is not None and (lacking := packing.elements_of(units) - known):
        next_ = choice([one.keys for one in series_of(known, made)], known)
        problems.append(
            f"glass.series: contains {', '.join(sorted(lacking))} - expected elements of type_map - {next_}"
        )
    return Checked(problems, [line for line in found.facts if not line.startswith("machine ")])


def _systems(campaign: Campaign, section: str) -> Iterator[Frames | str]:
    """Yield the crystals of a section and the problems of its systems."""
    systems = campaign.initial.systems if section == "initial" else campaign.explore.systems or ()
    for i, system in enumerate(systems):
        where = f"{section}.systems.{i}"
        try:
            if system.packed is None and (large := doubts.too_large(campaign, system)) is not None:
                yield f"{where}: {large}"
            elif system.packed is None:
                yield starts.crystal(system, campaign.min_height_A)
            else:
                yield from (f"{where}: {problem}" for problem in _packing(campaign, system.packed))
        except ConfigError as error:
            yield f"{where}: {error}"


def _packing(campaign: Campaign, packed: Packed) -> Iterator[str]:
    """Yield the problems of a packing; raise ConfigError if it cannot be packed at all."""
    said, box = packing.describe(packed), packing.box_of(packed)
    if box < campaign.min_height_A:
        yield (
            f"{said}: a box of {box:.2f} Å - expected at least {campaign.min_height_A:g} Å (initial.min_height_A, else "
            "the cutoff) - raise n_atoms or n_units"
        )
    lacking = sorted(set(packing.number_densities(packed)) - set(campaign.type_map))
    if lacking:
        yield f"{said}: type_map lacks {', '.join(lacking)} - expected every element of the systems - add them"


def _outside(campaign: Campaign, crystals: list[Frames]) -> list[str]:
    """Return which starting structures are already outside the exploration region."""
    return [
        f"select.guards: {frame.formula} is outside from the start ({outside[1]}) - expected guards that include the "
        "crystals - loosen them"
        for frame in dict.fromkeys(crystals)
        if (outside := geometry.first_outside(frame, campaign.select.guards)) is not None
    ]


def _room(campaign: Campaign, folder: Path) -> list[str]:
    """Return the systems whose labels would all be refused: they have more neighbours than `sel` holds."""
    store = Store(folder)
    found = []
    try:
        if capacity.sealed(campaign, store) is not None:
            return capacity.problems(store.as_begun(campaign), store)
        for system in campaign.systems:
            found += [line] if (line := capacity.too_small(campaign, system)) else []
    except ConfigError:
        return found  # no such structure, or an element is missing, which is reported elsewhere
    return found


def _names(place: Folder) -> list[str]:
    """Return the error about a folder in which something else uses our file names."""
    try:
        place.want_free_names()
    except ConfigError as error:
        return [str(error)]
    return []


def _elements(campaign: Campaign, crystals: list[Frames]) -> list[str]:
    from ase.data import atomic_numbers

    unknown = [kind for kind in campaign.type_map if not atomic_numbers.get(kind)]
    problems = [
        f"type_map: {kind} is not an element - expected chemical symbols such as Na - fix it" for kind in unknown
    ]
    return problems + [
        f"type_map: lacks {', '.join(lacking)} of {frame.formula} - expected every element of the systems - "
        f"type_map: {[*campaign.type_map, *lacking]}"
        for frame in crystals
        if (lacking := sorted(set(frame.symbols) - set(campaign.type_map)))
    ]


def _unknown(what: Reference, crystals: list[Frames]) -> list[str]:
    """Return which elements of the crystals a reference or a driver lacks, if that is known without starting it."""
    known = engine_of(what.engine).elements(what)
    lacking = sorted({kind for frame in crystals for kind in frame.symbols} - known) if known is not None else []
    if not lacking:
        return []
    if what.calculator is None:
        here = f"{what.where}.{what.engine}: no data for {', '.join(lacking)}"
        return [f"{here} - expected the data of every element of the systems - add them, or correct the systems"]
    here = f"{what.where}.calculator: {what.name} does not know {', '.join(lacking)}"
    return [f"{here} - expected all elements of the systems - choose another"]


def _has_held_out(campaign: Campaign, offer: inherited.Offer) -> bool:
    """Return whether trajectories can be set aside for validation."""
    settings = campaign.initial
    n_alike = settings.copies * len(settings.cells) / max(1, len(settings.systems))
    return settings.held_out_fraction > 0.0 and (n_alike >= 2 or offer.has_held_out)


def _teacher(campaign: Campaign, offer: inherited.Offer) -> list[str]:
    """Return why a teacher could not be measured, or could not label what the models learn."""
    if campaign.teacher is None:
        return []
    found = []
    if not _has_held_out(campaign, offer):
        found.append(
            "teacher: there will be no held-out frames to measure it on - expected initial.held_out_fraction above 0 "
            "and at least two initial trajectories of a system - raise them"
        )
    if trainer_of(campaign.teacher.train).limits_neighbours(campaign.teacher.train):
        found.append(
            f"teacher.train.trainer: models of {campaign.teacher.train.trainer} hold a fixed number of neighbours "
            "(sel), which is that of the students - expected a trainer without, such as sevennet - choose another"
        )
    return found


def _stages(campaign: Campaign, offer: inherited.Offer) -> Iterator[str]:
    stop = campaign.stop
    n_systems = len(campaign.explored_systems)
    settings = campaign.initial
    if stop.max_force_error_p99 is not None and not _has_held_out(campaign, offer):
        yield (
            f"stop.max_force_error_p99: {stop.max_force_error_p99:g} eV/Å applies to held-out frames, and there "
            "will be none - expected initial.held_out_fraction above 0 and at least two initial trajectories of a "
            "system - raise them, or remove the key"
        )
    for i, stage in enumerate(campaign.explore.stages):
        n_walks = stage.n_walks * len(stage.conditions)
        n_frames = n_walks * stage.n_frames
        n_starts = len(stage.systems or range(n_systems)) * len(campaign.explore.start_scales)
        n_starts = 1 if stage.start == "dataset" else n_starts
        if n_walks < n_starts:
            yield (
                f"explore.stages.{i} ({stage.name}): {n_walks} walks per pass for {n_starts} starts (systems x "
                f"start_scales) - expected a walk from every start, else no pass can be quiet - raise n_walks to "
                f"{-(-n_starts // len(stage.conditions))}"
            )
        if n_walks < stop.min_walks or n_frames < stop.min_frames:
            yield (
                f"explore.stages.{i} ({stage.name}): {n_frames} frames from {n_walks} walks per pass - expected at "
                f"least stop.min_frames = {stop.min_frames} and stop.min_walks = {stop.min_walks}, else no single pass "
                "can be quiet - raise n_walks or n_steps, or lower these two"
            )
    is_first_still = settings.md is None or settings.drives_itself
    if settings.systems and is_first_still and settings.n_still < 2 and not offer.n:
        yield "initial.copies: only one frame - expected at least 2, for training and validation - raise copies"


def _relaxations(campaign: Campaign) -> Iterator[str]:
    """Yield what is relaxed before it is used as a start."""
    required = [system for system in campaign.systems if starts.wants_preparation(campaign, system)]
    for relax, what, n in (
        (campaign.initial.relax, "crystals", sum(1 for s in required if s.packed is None)),
        (campaign.initial.relax_packed, "packings", sum(s.n_packings for s in required if s.packed is not None)),
    ):
        if relax is not None and n:
            of = f"{relax.fmax:g} eV/Å ({'cell and positions' if relax.cell else 'positions'})"
            every = relax.frame_every_A
            kept = "" if every is None else f"; a frame every {every:g} Å of the paths is initial data"
            yield f"prepare: {n} {what} relaxed to {of} in at most {relax.max_steps} steps{kept}"


def _copies(initial_data: Initial) -> str:
    """Return the number of copies of the systems, and what moves them."""
    md, parts = initial_data.md, []
    if initial_data.n_still:
        parts.append(f"{initial_data.n_still} structures")
    if md is not None:
        mover = md.driver.name if isinstance(md.driver, Driver) else "a model trained on these" if md.driver else ""
        parts.append(f"{initial_data.n_moved} trajectories{f' moved by {mover}' if mover else ''}")
    return " and ".join(parts)


def _atoms_of(offer: inherited.Offer) -> float | None:
    """Return the mean number of atoms of the frames from which a campaign without systems starts."""
    sizes = [frame.n_atoms for frame in offer.frames if frame.n_atoms > 2]
    return sum(sizes) / len(sizes) if sizes else None


def _facts(
    campaign: Campaign, machine: Machine, crystals: list[Frames], folder: Path, offer: inherited.Offer
) -> list[str]:
    reference = campaign.label.reference
    names = [f"{c.formula} ({c.n_atoms} atoms)" for c in dict.fromkeys(crystals)]
    names += [f"{s.n_packings} x {packing.describe(s.packed)}" for s in campaign.systems if s.packed is not None]
    facts = [
        f"systems: {', '.join(names) or 'none, walks start from labelled structures'}",
        *_relaxations(campaign),
        f"initial: {_copies(campaign.initial)}, {campaign.initial.n_frames} labels by {reference.name} "
        f"({reference.functional})"
        if campaign.initial.cells
        else f"initial: {offer.n} existing labels",
    ]
    if alone := initial.isolated(campaign):
        n_atoms = sum(len(symbols) == 1 for symbols in alone)
        distances = campaign.initial.isolated.distances if campaign.initial.isolated is not None else ()
        facts.append(f"isolated: {n_atoms} atoms, {len(alone) - n_atoms} dimers at {len(distances)} distances")
    for stage in campaign.explore.stages:
        n_walks = stage.n_walks * len(stage.conditions)
        f_lo, f_hi = stage.window((campaign.select.f_lo, campaign.select.f_hi))
        window = f", window {f_lo:g} to {f_hi:g} eV/Å" if stage.has_window else ""
        facts.append(
            f"stage {stage.name}: {stage.ensemble}, {stage.matrix}; {n_walks} walks of {stage.n_steps} steps, "
            f"{n_walks * stage.n_frames} frames per pass{window}"
        )
    window = f"{campaign.select.f_lo:g} to {campaign.select.f_hi:g} eV/Å"
    facts.append(f"window: {window}, at most {campaign.select.max_frames} labels per iteration")
    sel = capacity.sealed(campaign, Store(folder)) or capacity.of_campaign(campaign, offer.densest)
    held = [
        f"sel {dict(zip(one.kinds, one.sel, strict=True))} within {one.rcut:g} Å"
        for one in geometry.capacities(campaign.train, campaign.type_map, sel)
    ]
    if (teacher := campaign.teacher) is not None:
        facts.append(
            f"teacher: {teacher.train.n_members} members by {teacher.train.trainer}, trained on these labels for "
            f"{teacher.train.n_steps} steps; it labels up to {teacher.n_frames} frames of "
            f"{teacher.n_walks * len(teacher.md.temperatures_K)} walks of {teacher.md.n_steps} steps, those below a "
            f"deviation of {teacher.max_devi_f:g} eV/Å"
        )
    by = "" if campaign.train.trainer == DEFAULT else f" by {campaign.train.trainer}"
    facts.append(", ".join([f"ensemble: {campaign.train.n_members} members{by}", *held]))
    if explores := compression.said(campaign, sel, _atoms_of(offer)):
        facts.append(explores)
    return [*facts, *capacity.limits(campaign, campaign.systems, sel), str(machine)]
