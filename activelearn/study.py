"""A study carried out: glasses, then benchmarks, then tables and figures; on its own, or as the end of a campaign."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from activelearn import final_models, glass, report, select
from activelearn.benchmark import cited, force_error
from activelearn.benchmark import station as benchmark
from activelearn.config import (
    UNUSED_OF_LABEL,
    Benchmark,
    Campaign,
    Label,
    Machine,
    Potential,
    Study,
    trainer_of,
    with_cited,
)
from activelearn.config.files import is_file
from activelearn.engines import reference
from activelearn.engines.process import Slot
from activelearn.errors import ConfigError, StoreError, typed
from activelearn.frames import pack
from activelearn.records import Experiment, Glasses, Scoreboard
from activelearn.store import Store, StudyStore, disk_errors, read_npz
from activelearn.store.files import RESTORE, file_sha256, publish_json, publish_npz, read_object, sealed
from activelearn.store.study import BENCHMARK, GLASS, ONCE
from activelearn.tasks import Station


def stations(study: Study) -> tuple[Station, ...]:
    """Return the stations that a study goes through."""
    asked = ((study.of_glasses, glass.STATION), (study.benchmark, benchmark.STATION))
    return tuple(station for section, station in asked if section is not None)


# --- of a campaign ----------------------------------------------------------------------------------------------------


def potential_of(store: Store, *, models: Path | None = None) -> Potential:
    """Return the final ensemble of a campaign as a potential: models, window, functional and dispersion of the labels.

    Parameters
    ----------
    store
        The campaign.
    models
        Folder that the models are named by; null: their absolute path.

    Raises
    ------
    ConfigError
        The campaign has no final models yet.
    """
    opened = store.opened_iterations()
    last = opened[-1] if opened else 0
    if not store.is_sealed("final", last):
        raise ConfigError(
            f"{store.folder}: has no final models yet - expected a campaign that has ended - see: activelearn status "
            f"{typed(store.folder)}"
        )
    ensemble, campaign = final_models.chosen(store, last).ensemble, store.campaign(last)
    trainer, files = trainer_of(campaign.train), tuple(ensemble.drivers)
    if not trainer.runs_in_lammps:  # it may ask the first what it is
        files = tuple(str(store.folder / file) for file in files)
    sums = [member.driver_sha256 for member in ensemble.members]
    said = trainer.potential(files, sums, campaign.type_map, select.last_window(campaign, store))
    # Arguments of a calculator that are files have absolute paths, and are followed where they move.
    where = store.folder if models is None or "ase" in said else models
    return Potential.learnt(campaign.name, said, campaign.label.reference).with_files(lambda file: str(where / file))


def of_campaign(store: Store, campaign: Campaign) -> Study | None:
    """Return what follows the final models, or None if the campaign asks for nothing."""
    # Models are named from the study's folder, so that a campaign's folder may be moved.
    return planned(campaign, potential_of(store, models=Path(".."))) if asks_for_study(campaign) else None


def asks_for_study(campaign: Campaign) -> bool:
    """Return whether a campaign continues with glasses or benchmarks."""
    return campaign.glass is not None or campaign.benchmark is not None


def planned(campaign: Campaign, potential: Potential) -> Study:
    """Return what a campaign asks of its potential (and of the others that it names)."""
    study = Study(
        name=campaign.name,
        random_seed=campaign.random_seed,
        potentials=(potential, *campaign.potentials),
        glass=campaign.glass,
        benchmark=_with_reference(campaign.benchmark, campaign.label),
    )
    return with_cited(study)


def _with_reference(asked: Benchmark | None, label: Label) -> Benchmark | None:
    """Return what is measured, with the reference of a campaign where it names none (and without what is not used)."""
    if asked is None or asked.force_error is None or asked.force_error.label is not None:
        return asked
    measured = asked.force_error.model_copy(
        update={"label": label.model_copy(update={key: Label.model_fields[key].default for key in UNUSED_OF_LABEL})}
    )
    return asked.model_copy(update={"force_error": measured})


def store_of(store: Store, iteration: int, study: Study) -> StudyStore:
    """Return the folder of the study of an iteration's final models; another study of the same models has another."""
    names = (f"study-{iteration:03d}" + (f"-{n}" if n > 1 else "") for n in count(1))
    stores = (StudyStore(store.folder / name) for name in names)
    return next(one for one in stores if not one.is_begun() or one.is_of(study))


# --- carrying out -----------------------------------------------------------------------------------------------------


def is_done(store: StudyStore, study: Study) -> bool:
    """Return whether everything of a study is sealed."""
    return store.study_file.is_file() and all(store.is_sealed(station.name, ONCE) for station in stations(study))


def begin(store: StudyStore, study: Study, machine: Machine, campaign: Store | None = None) -> None:
    """Start a study: the identity of its potentials is determined, so a missing package is found before any job.

    Raises
    ------
    ConfigError
        A potential, or the file of a crystal or a molecule, is not the one that the study started with.
    StoreError
        A frozen model is damaged, which an engine might not notice.
    """
    StudyStore.create(store.folder, study)
    store.follow(study)
    for potential in store.study.potentials:
        _want_whole_models(potential)
    slot = Slot(machine, store.logs())
    found: dict[str, Any] = {
        potential.name: reference.fingerprint(potential.statics(machine.python), slot)
        for potential in store.study.potentials
    }
    if changed := _changed(store, "potentials.json", found):
        raise ConfigError(
            f"{store.folder}: {', '.join(changed)} is not what this study started with (see potentials.json) - "
            "expected the same version and weights for all its numbers - install them again, or choose another "
            "--folder"
        )
    _want_same_structures(store)
    _want_same_reference(store, machine, campaign)
    parts = campaign.held_out(campaign.opened_iterations()[-1]) if campaign is not None else []
    if parts and not (store.folder / "held-out.npz").is_file():
        publish_npz(store.folder / "held-out.npz", pack(parts), {})


def _changed(store: StudyStore, file: str, found: Mapping[str, Any]) -> list[str]:
    """Seal what a study starts with under a name in its folder, and return what has changed since."""
    publish_json(store.folder / file, sealed(dict(found)))
    begun = read_object(store.whole(store.folder / file))
    return [name for name, identity in begun.items() if found.get(name) != identity]


def _want_same_structures(store: StudyStore) -> None:
    """Seal the content of crystals and molecules that are files; refuse a changed one."""
    found = {name: file_sha256(path) if is_file(path) else None for name, path in store.structures().items()}
    if not found:
        return
    if changed := _changed(store, "structures.json", found):
        raise ConfigError(
            f"{store.folder}: {', '.join(changed)} is not what this study started with - expected the same content for "
            "all its numbers - restore the file, or choose another --folder"
        )


def _want_same_reference(store: StudyStore, machine: Machine, campaign: Store | None) -> None:
    """Seal which reference labels frames of the paths of glasses; refuse a different one.

    A campaign's own is the one that labelled in its last iteration: another version of it measures something else.
    """
    label = store.study.true_label
    if label is None:
        return
    what, is_new = label.reference, not store.reference_file.is_file()
    is_lent = campaign is not None and _lends_its_reference(campaign.latest_campaign())
    where = None if is_lent else force_error.REFERENCE
    found = reference.fingerprint(what, Slot(machine.at(BENCHMARK), store.logs()), where)
    if campaign is not None and is_lent and is_new:
        last = campaign.opened_iterations()[-1]
        began = campaign.fingerprint(last)
        if found["sha256"] != began["sha256"]:
            now, then = (f"{one['version']} (weights sha256 {one['weights_sha256']})" for one in (found, began))
            raise ConfigError(
                f"{campaign.folder}: benchmark.force_error: {what.name} is now {now}, and the labels of iteration "
                f"{last} are from {then} - expected the one that the models were trained on - install that version "
                "again, or name another reference for the frames in benchmark.force_error.label"
            )
    if changed := _changed(store, store.reference_file.name, {what.name: found}):
        raise ConfigError(
            f"{store.folder}: {', '.join(changed)} is not what this study started with (see reference.json) - expected "
            "the same version and weights for all its labels - install them again, or choose another --folder"
        )


def _lends_its_reference(campaign: Campaign) -> bool:
    """Return whether a campaign's own reference labels frames of the paths of its glasses."""
    asked = campaign.benchmark.force_error if campaign.benchmark is not None else None
    return asked is not None and asked.label is None


def _want_whole_models(potential: Potential) -> None:
    for file, sha256 in potential.files.items():
        if not Path(file).is_file() or file_sha256(Path(file)) != sha256:
            raise StoreError(
                f"{file}: damaged or gone - expected the model of {potential.name} with the sha256 {sha256[:16]}... "
                f"that this study started with - {RESTORE}"
            )


def glasses_of(store: StudyStore) -> Glasses | None:
    """Return the glasses of a study, if they are sealed."""
    return store.find_result(GLASS, ONCE, Glasses)


def scoreboard_of(store: StudyStore) -> Scoreboard | None:
    """Return the scoreboard of a study with the glasses behind it, if it is sealed."""
    board, glasses = store.find_result(BENCHMARK, ONCE, Scoreboard), glasses_of(store)
    if board is None:
        return None
    made = glasses.glasses if glasses is not None else ()
    unmet: tuple[Experiment, ...] = ()
    with suppress(ConfigError):  # such as a package that is gone: what was measured is still there
        unmet = cited.unmet(store.study, board.results)
    return board.model_copy(update={"glasses": made, "unmet": unmet})


def write_report(store: StudyStore) -> list[Path]:
    """Write tables and figures of a sealed study; they are written again each time and may be deleted."""
    board = scoreboard_of(store)
    if board is None:
        return []
    arrays = read_npz(store.whole(benchmark.curves_file(store)))[0]
    with disk_errors(store.folder):
        tables = report.write_tables(board, store.folder / "tables")
        return tables + report.write_figures(board, arrays, store.folder / "figures")
