"""The trial: the calculators of a campaign or a study label a few small structures before the first job.

A passed trial is recorded in the folder by the fingerprint of the reference, so that continuing costs nothing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from activelearn import given, inherited, initial, loop, packing, samples, seeds, trees
from activelearn.benchmark.force_error import REFERENCE
from activelearn.check import potential_speeds
from activelearn.check.potential_speeds import Speed
from activelearn.check.study_cost import n_atoms
from activelearn.config import (
    Campaign,
    Driver,
    Dynamics,
    Glass,
    Label,
    Machine,
    OwnGlasses,
    Packed,
    Potential,
    Reference,
    Study,
)
from activelearn.engines import process
from activelearn.engines.process import Slot
from activelearn.engines.reference import fingerprint
from activelearn.engines.reference import refusal as refusal_of
from activelearn.engines.trial import Outcome, Sample, tried
from activelearn.engines.trials import made_up
from activelearn.errors import ActiveLearnError, EngineError, TaskFailed, Unfit
from activelearn.frames import Frames
from activelearn.store import Folder, Store, StudyStore
from activelearn.store.files import read_object, replace_json, sealed
from activelearn.study import is_done, planned

#: Number of structures, smallest first, of which a code that is started by a command labels one.
_EXPENSIVE: Final = 3


def try_campaign(campaign: Campaign, machine: Machine, folder: Path) -> list[str]:
    """Try reference, driver and potentials of a campaign that may not have started; return notes.

    Raises
    ------
    Unfit
        One line per problem. The log of the worker is then kept and named.
    """
    what, at = campaign.label.reference, machine.at("label")
    found = Outcome()
    with _kept_if_it_fails() as logs:
        _identity(what, Slot(at, logs))
        found.add(_try_reference(campaign, *_asked(campaign, Store(folder), what), Slot(at, logs)))
        if (driver := _driver(campaign)) is not None:
            slot = Slot(machine.at(initial.STATION.name), logs)
            _identity(driver, slot)
            found.add(tried(driver, *_moved(campaign, driver), slot, driver.where))
        who = "the reference works" if driver is None else "the reference and the driver work"
        for potential in campaign.potentials:
            study = planned(campaign, potential)
            found.add(_try_potential(potential, study, machine, logs))
        if (label := _other_label(campaign)) is not None:
            _identity(label.reference, Slot(machine.at("benchmark"), logs), REFERENCE)
            found.add(_try_label(label, _lattices_of(campaign.glass), machine, logs))
        found.want_none()
    return [*found.notes, f"tried: {who}"]


def try_in(store: Store, machine: Machine, say: Callable[[str], None] = lambda _: None) -> list[str]:
    """Try reference and driver of a campaign in its folder, except those that have passed or are no longer needed.

    Parameters
    ----------
    store, machine
        The folder, and where it runs.
    say
        Called when a trial begins, which loads a model and may take minutes.

    Raises
    ------
    Unfit
        One line per problem.
    """
    phase = loop.next_phase(store)
    if phase is None or phase.name != "loop":
        return []
    campaign = store.latest_campaign()
    what, slot = campaign.label.reference, Slot(machine.at("label"), store.logs())
    opened = store.opened_iterations()
    identity = store.fingerprint(opened[-1]) if opened else _identity(what, slot)
    chosen, compares = _asked(campaign, store, what)
    passed = _Passed(store, [identity["sha256"], what.python], chosen)
    notes = []
    if not passed:
        say(f"trying {what.where} on small structures first: {what.name}")
        notes = passed.note(_try_reference(campaign, chosen, compares, slot))
    return notes + _try_driver(store, phase, campaign, machine)


def _try_driver(store: Store, phase: loop.Phase, campaign: Campaign, machine: Machine) -> list[str]:
    """Try the driver of the initial data, unless it has passed before or has no atoms to move."""
    name, i = initial.STATION.name, phase.iteration
    driver = _driver(campaign)
    if driver is None or initial.STATION not in phase.stations or store.is_sealed(name, i):
        return []
    if not initial.new_systems(campaign, store, i):
        return []
    slot = Slot(machine.at(name), store.logs())
    is_begun = (store.iteration_folder(i) / driver.identity_file).is_file()
    identity = store.fingerprint(i, driver.identity_file) if is_begun else _identity(driver, slot)
    chosen, compares = _moved(campaign, driver)
    passed = _Passed(store, [identity["sha256"], driver.python, driver.where], chosen)
    return [] if passed else passed.note(tried(driver, chosen, compares, slot, driver.where))


def _driver(campaign: Campaign) -> Driver | None:
    """Return the driver of the initial data, if it exists before the campaign has models."""
    md = campaign.initial.md
    return md.driver if md is not None and isinstance(md.driver, Driver) else None


def _moved(campaign: Campaign, driver: Driver) -> tuple[list[Sample], bool]:
    """Return the structures of the trial of a driver, and whether derivatives are compared."""
    chosen = samples.of_campaign(campaign, systems=campaign.initial.systems)
    return (chosen, True) if driver.command is None else (chosen[:_EXPENSIVE], False)


def try_study(
    store: StudyStore,
    study: Study,
    machine: Machine,
    say: Callable[[str], None] = lambda _: None,
    *,
    n_own: int = 0,
    own: Reference | None = None,
) -> list[str]:
    """Try the potentials of a study and the reference that labels frames of its glasses, unless they passed before.

    Parameters
    ----------
    store, study, machine
        The folder, the study, and where it runs.
    say
        Called when a trial begins.
    n_own
        The first `n_own` are the campaign's own models, which have already run.
    own
        The campaign's own reference, which has already labelled.

    Raises
    ------
    Unfit
        One line per problem.
    """
    new, label = store.study.potentials[n_own:], store.study.true_label
    label = None if label is not None and label.reference == own else label
    if is_done(store, study) or not (new or label):
        return []
    identities: list[object] = [read_object(store.whole(store.folder / "potentials.json"))]
    chosen = [sample for one in new for sample in _samples_of(study, one.statics(machine.python))]
    lattices, names = _lattices_of(study.of_glasses), [one.name for one in new] if chosen else []
    if label is not None:
        identities += [store.reference(label.reference.name)["sha256"], label.reference.python]
        chosen, names = chosen + lattices, [*names, label.reference.name]
    passed, found = _Passed(store, identities, chosen), Outcome()
    if passed:
        return []
    if names:
        say(f"trying on small structures first: {', '.join(names)}")
    for potential in new:
        found.add(_try_potential(potential, study, machine, store.logs()))
    if label is not None:
        found.add(_try_label(label, lattices, machine, store.logs()))
    return passed.note(found)


def try_potentials(
    study: Study, machine: Machine, say: Callable[[str], None] = lambda _: None
) -> tuple[list[str], dict[str, Speed]]:
    """Try the potentials of a study that may not have begun, and measure how fast each of them is.

    Returns
    -------
    notes
        Of the trial; also on potentials whose speed could not be measured.
    speeds
        By the name of a potential.

    Raises
    ------
    Unfit
        One line per problem.
    """
    found, speeds, timed = Outcome(), dict[str, Speed](), _timed(study)
    asked = study.benchmark
    integration = study.glass.dynamics if study.glass is not None else asked.dynamics if asked else Dynamics()
    with _kept_if_it_fails() as logs:
        for potential in study.potentials:
            say(f"trying on small structures: {potential.name}")
            found.add(_try_potential(potential, study, machine, logs))
        found.want_none()
        for potential in study.potentials if timed is not None else ():
            assert timed is not None
            try:
                speeds[potential.name] = potential_speeds.tried(potential, integration, timed, machine, logs)
            except ActiveLearnError as error:
                found.notes.append(f"note: {potential.name}: its speed was not measured: {str(error).splitlines()[0]}")
    return found.notes, speeds


def _timed(study: Study) -> Frames | None:
    """Return the structure on which potentials are timed: a glass of mean size, or the smallest crystal."""
    asked, size = study.benchmark, n_atoms(study)
    if study.glasses is not None:
        product = next(glass for glasses in given.read(study.glasses) for glass in glasses).read()
        return product.dense.last.without_labels()
    if study.glass is not None:
        made = packing.of_glass(study.glass, study.glass.compositions[0])
        kinds = list(packing.atoms_of(packing.counts_of(made)).elements())
        mixed = [kinds[i] for i in np.random.default_rng(1).permutation(len(kinds))]
        return made_up(mixed, packing.box_of(made))
    if asked is None or not size:
        return None
    section = asked.crystals or asked.reactions
    cells = [Frames.from_ase([seeds.load_structure(name, Path.cwd())]).without_labels() for name in asked.structures]
    cell = min(cells, key=lambda one: one.n_atoms)
    factors = seeds.factors_for_height(cell.cell[0], section.min_height_A if section is not None else 0.0)
    return Frames.from_ase([seeds.supercell(cell.to_ase()[0], factors)]).without_labels()


def _other_label(campaign: Campaign) -> Label | None:
    """Return the reference that labels frames of a campaign's glasses, if it is not the campaign's own."""
    asked = campaign.benchmark.force_error if campaign.benchmark is not None and campaign.glass is not None else None
    if asked is None or asked.label is None or asked.label.reference == campaign.label.reference:
        return None
    return asked.label


def _try_label(label: Label, lattices: Sequence[Sample], machine: Machine, logs: Path) -> Outcome:
    """Try the reference that labels frames of glasses, which would else be used only when all glasses are made."""
    what, slot = label.reference, Slot(machine.at("benchmark"), logs)
    chosen = lattices if what.command is None else lattices[:_EXPENSIVE]
    return tried(what, chosen, what.command is None, slot, REFERENCE, partial(refusal_of, settings=label))


class _Passed:
    """The record of a passed trial; a corrupt or missing one means that there was none."""

    def __init__(self, store: Folder, identity: Sequence[object], chosen: Sequence[Sample]) -> None:
        keys = [sample.frame.structure_key(0, "") for sample in chosen]
        name = hashlib.sha256(json.dumps([identity, keys], sort_keys=True).encode()).hexdigest()[:12]
        self.path = store.folder / f"tried-{name}.json"

    def __bool__(self) -> bool:
        try:
            return read_object(self.path).get("passed") is True
        except (FileNotFoundError, ActiveLearnError):
            return False

    def note(self, found: Outcome) -> list[str]:
        """Record a passed trial and return its notes; raise Unfit with its problems."""
        found.want_none()
        replace_json(self.path, sealed({"passed": True, "notes": found.notes}))
        return found.notes


def _identity(what: Reference, slot: Slot, where: str | None = None) -> dict[str, Any]:
    """Return the identity of a reference; raise Unfit with one line if this fails."""
    try:
        return fingerprint(what, slot, where)
    except EngineError as error:
        said = str(error).splitlines()[0]
        advice = f"try: {what.command}" if what.command is not None else f"see its log: {slot.logs}"
        raise Unfit(
            f"{where or what.where}: {what.name}: {said} - expected it to start and report its version - {advice}"
        ) from error


def _asked(campaign: Campaign, store: Store, what: Reference) -> tuple[list[Sample], bool]:
    """Return the structures of a trial, and whether derivatives are compared (not for codes started by a command)."""
    offered: tuple[Frames, ...] = ()
    if not campaign.systems:
        is_joined = store.is_sealed("initial", 0)
        ledger = inherited.ledger_of(campaign, store.folder)
        offered = (inherited.joined(store) if is_joined else inherited.offered(campaign, ledger, None)).frames
    chosen = samples.of_campaign(campaign, offered)
    if what.command is not None:
        return chosen[:_EXPENSIVE], False
    if (settings := campaign.initial.isolated) is not None:
        alone = {len(symbols): symbols for symbols in reversed(initial.isolated(campaign))}
        frames = [initial.isolated_frames(settings, alone[n])[-1] for n in sorted(alone)]
        chosen += [Sample(frame, is_optional=True) for frame in frames]
    return chosen, True


def _try_reference(campaign: Campaign, chosen: Sequence[Sample], compares: bool, slot: Slot) -> Outcome:
    """Try the reference of a campaign; a label that would be refused counts as failed."""
    refusal = partial(refusal_of, settings=campaign.label)
    return tried(campaign.label.reference, chosen, compares, slot, "label.reference", refusal)


def _try_potential(potential: Potential, study: Study, machine: Machine, logs: Path) -> Outcome:
    """Try one potential on structures of the study."""
    what = potential.statics(machine.python)
    chosen, slot = _samples_of(study, what), Slot(machine.at("benchmark"), logs)
    if not chosen:
        return Outcome()
    return tried(what, chosen, what.command is None, slot, f"potential {potential.name}")


def _samples_of(study: Study, what: Reference) -> list[Sample]:
    """Return a lattice for each composition of glasses, and crystals, some of whose elements a potential may lack."""
    asked = study.benchmark
    named = asked.structures if asked is not None else ()
    cells = [Frames.from_ase([seeds.load_structure(name, Path.cwd())]).without_labels() for name in named]
    crystals = samples.smallest([Sample(cell, is_optional=True) for cell in cells])
    chosen = _lattices_of(study.of_glasses) + crystals
    return chosen if what.command is None else chosen[:_EXPENSIVE]


def _lattices_of(glass: Glass | OwnGlasses | None) -> list[Sample]:
    """Return a lattice of each set of elements of glasses."""
    packings = [
        glass.packed(one)
        if isinstance(glass, Glass)
        else Packed(units=one.units, n_atoms=packing.smallest_size(one.units), density_g_cm3=one.density_g_cm3)
        for one in (glass.compositions if glass is not None else ())
    ]
    return samples.lattices(packings, [])


@contextmanager
def _kept_if_it_fails() -> Iterator[Path]:
    """Yield a folder for logs, with engines allowed; it is removed unless a message refers to a log in it."""
    process.allow_engines()
    with trees.temporary() as logs, process.stopping_on_signals():
        try:
            yield logs
        except Unfit as error:
            raise Unfit(*(_with_kept_log(line, logs) for line in error.problems)) from None
        except TaskFailed as error:
            raise TaskFailed("\n".join(_with_kept_log(line, logs) for line in str(error).splitlines())) from None
        finally:
            process.close_sessions()


def _with_kept_log(line: str, logs: Path) -> str:
    for log in logs.rglob("*.log"):
        if str(log) in line:
            with tempfile.NamedTemporaryFile(prefix="activelearn-trial-", suffix=".log", delete=False) as kept:
                shutil.copyfile(log, kept.name)
            return line.replace(str(log), kept.name)
    return line
