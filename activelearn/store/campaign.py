"""Store: the layout of a campaign folder, and access to it.

::

    format.json                  see :mod:`activelearn.store.version`
    campaign/000.yaml ...        resolved campaigns; a later one was accepted with --accept-changes
    campaign/uuid, place.json    see :mod:`activelearn.store.identity`
    campaign/moved.json          see :mod:`activelearn.store.places`
    machine.yaml                 the machine profile of the last run (not hashed)
    iter-000/campaign.yaml       the campaign this iteration is sealed to
    iter-000/reference.json      fingerprint of what labels
    iter-000/driver.json         fingerprint of what moves the atoms of initial data, if that is not the reference
    iter-000/<station>/plan.json, <task>.npz, result.json
    iter-000/iteration.json      the record of the iteration
    dataset/iter-000.npz, held-out-000.npz
    dataset/taught-000.npz, taught-held-out-000.npz     what a teacher has labelled (see :mod:`activelearn.taught`)
    labels/*.seg   models/      claims/   failures/   sessions/   lease.json   scratch/
    submitted.json stopped.json  of a campaign on a LaunchPad (see :mod:`activelearn.store.submission`)
    consent*.json refused/       what the user allowed to be given up, and what has been
    checkpoints/ of running trainings, with machine.checkpoints
    begun/                       labels that outlive a driver that was killed alone (see :mod:`activelearn.store.begun`)
    launches/                    working directory of the workers of a LaunchPad; empty
    report.html                  what :mod:`activelearn.page` writes, again on each request
    study-<iteration>/           glasses and benchmarks of the final models (see :mod:`activelearn.store.study`)
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from activelearn.config import Campaign, Machine, Room, here, parse_campaign
from activelearn.config.yaml12 import as_written
from activelearn.errors import Damaged
from activelearn.frames import Frames, dataset_sha256
from activelearn.records import Ensemble, Iteration, Labelling, Task
from activelearn.store import begun
from activelearn.store.files import (
    RESTORE,
    archive_files,
    damaged,
    file_sha256,
    gone,
    is_whole,
    publish,
    publish_yaml,
    read_archived,
    read_json,
    read_object,
    read_record,
    read_yaml,
    want_sealed,
    with_sum,
)
from activelearn.store.folder import PACK, Folder, Published
from activelearn.store.identity import Identity
from activelearn.store.ledger import Ledger, LedgerWriter
from activelearn.store.places import Places
from activelearn.store.references import identity_sha256
from activelearn.store.study import ONCE, StudyStore
from activelearn.store.version import migrate

#: A file that an iteration has left, by its path in the campaign folder; the group that is there is the index.
_OF_ITERATION: Final = re.compile(
    r"iter-(\d{3,})/.*|dataset/(?:iter|held-out|taught|taught-held-out)-(\d{3,})\.npz|study-(\d{3})(?:-\d+)?/study\.yaml"
)
#: How the last line of an accepted campaign begins.
_NUMBER: Final = "# accepted as number "
#: What only an iteration that was opened has in its folder.
_OPENED: Final = ("iteration.json", "chosen.npz", "*/plan.json", "*/result.json")


class Store(Folder):
    """One campaign folder.

    Parameters
    ----------
    folder
        Its path; made absolute, because FireWorks changes the working directory.
    """

    names = ("dataset", "models", "checkpoints", "refused", "launches", "consent*.json", "iter-*", "study-*")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._ledger: Ledger | None = None
        self._writer: LedgerWriter | None = None
        self._campaigns: dict[int, Campaign] = {}
        self._records: dict[int, Iteration] = {}
        self._products: dict[Path, dict[str, str]] = {}
        self._fingerprints: dict[Path, dict[str, Any]] = {}
        self._whole_models: set[str] = set()
        self.places = Places(self.folder / "campaign" / "moved.json")
        self._opening = threading.Lock()  # slots are threads that share one ledger and one journal

    # --- opening ------------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, folder: Path, campaign: Campaign) -> Store:
        """Start a campaign in `folder` (or open it if the same campaign is there).

        Raises
        ------
        ConfigError
            The folder has files of something else that the campaign would overwrite.
        """
        store = cls(folder)
        file = store.folder / "campaign" / "000.yaml"
        store.begin_with(file, _numbered(file, campaign))
        return store

    missing = (
        "no campaign here - expected a campaign folder - start one with: activelearn run CAMPAIGN --folder {folder}"
    )

    @property
    def identity(self) -> Identity:
        """The identity of the campaign."""
        return Identity(self.folder, "campaign")

    @property
    def title(self) -> str:
        """The name of the campaign."""
        return self.latest_campaign().name

    def studies(self, iteration: int | None = None) -> list[StudyStore]:
        """Return the studies that follow the models of an iteration (None: of any), in order."""
        of = "*" if iteration is None else f"{iteration:03d}*"
        stores = (StudyStore(path) for path in sorted(self.folder.glob(f"study-{of}")) if path.is_dir())
        return [store for store in stores if store.is_begun()]

    def at_work(self) -> list[tuple[Folder, int]]:
        """Return where stations are running: the last iteration, and the studies of its models."""
        opened = self.opened_iterations()
        return [(self, opened[-1]), *((place, ONCE) for place in self.studies(opened[-1]))] if opened else []

    def settle(self) -> None:
        """Prepare the folder, its labels and its studies for writing: see :meth:`Folder.settle`."""
        super().settle()
        if (self.folder / "labels").is_dir():
            migrate(self.folder / "labels")
        for place in self.studies():
            place.settle()

    def is_begun(self) -> bool:
        """Return whether there is a campaign in the folder."""
        return bool(self.campaign_files())

    def campaign_files(self) -> list[Path]:
        """Return the resolved campaigns, oldest first.

        Raises
        ------
        Damaged
            One is gone, and another would be used in its place.
        """
        found = sorted((self.folder / "campaign").glob("[0-9][0-9][0-9].yaml"))
        if not found and any(self.folder.glob("iter-*/campaign.yaml")):
            raise gone(self.folder / "campaign" / "000.yaml")
        for k, path in enumerate(found):
            if path.name != f"{k:03d}.yaml":
                raise gone(path.with_name(f"{k:03d}.yaml"))
        return found

    def latest_campaign(self) -> Campaign:
        """Return the campaign that the next iteration will be sealed to.

        Raises
        ------
        Damaged
            It is damaged, or the one that the last iteration was sealed to is no longer among the accepted ones.
        """
        files, opened = self.campaign_files(), self.opened_iterations()
        if opened:
            last = read_yaml(self.iteration_folder(opened[-1]) / "campaign.yaml")
            known = [read_accepted(file) for file in reversed(files)]
            # Another version writes the same campaign with other keys: then the meaning is compared.
            if last not in known and _parsed(last) not in map(_parsed, known):
                raise gone(self.folder / "campaign" / f"{len(files):03d}.yaml")
        return self.places.of_sealed(_parsed(read_accepted(files[-1])))

    def as_begun(self, campaign: Campaign) -> Campaign:
        """Return a campaign as it is read now, with the paths under which this folder knows moved files."""
        return self.places.of_given(campaign, self._accepted())

    def follow(self, campaign: Campaign) -> None:
        """Use the current location of files of the campaign that have moved (call only with the lease held)."""
        if self.places.note(campaign, self._accepted()):
            self._campaigns.clear()

    def _accepted(self) -> list[Campaign]:
        """Return the campaigns as they were accepted, the last one first."""
        return [_parsed(read_accepted(file)) for file in reversed(self.campaign_files())]

    def accept(self, campaign: Campaign) -> None:
        """Make `campaign` that of all iterations not yet open (call only with the lease held)."""
        opened = self.opened_iterations()
        sealed_first = ("reference.json", "driver.json", "sel.json")
        for path in (path for name in sealed_first for path in self.folder.glob(f"iter-*/{name}")):
            if int(path.parent.name[5:]) not in opened:  # left by a run that died while opening an iteration
                path.unlink(missing_ok=True)
        file = self.folder / "campaign" / f"{len(self.campaign_files()):03d}.yaml"
        publish_yaml(file, _numbered(file, campaign))

    # --- iterations ---------------------------------------------------------------------------------------------------

    def iteration_folder(self, iteration: int) -> Path:
        """Return the folder of an iteration."""
        return self.folder / f"iter-{iteration:03d}"

    def station_folder(self, station: str, iteration: int) -> Path:
        """Return the folder of a station in an iteration."""
        return self.iteration_folder(iteration) / station

    def opened_iterations(self) -> list[int]:
        """Return the iterations that have been opened, in order.

        Raises
        ------
        Damaged
            One is gone that others were built on, or that has left data.
        """
        opened, left = set[int](), set[int]()
        for place in self.folder.glob("iter-*"):  # in one pass, as it is called many times in each iteration
            if (k := self._iteration_of(place / "campaign.yaml")) is None:
                continue
            if (place / "campaign.yaml").exists():
                opened.add(k)
            elif any(next(place.glob(name), None) for name in _OPENED):
                left.add(k)
        for path in (*self.folder.glob("dataset/*.npz"), *self.folder.glob("study-*/study.yaml")):
            left |= {k for k in [self._iteration_of(path)] if k is not None}
        for k in sorted(set(range(max(opened | left, default=-1) + 1)) - opened):
            path = self.iteration_folder(k) / "campaign.yaml"
            if not path.is_file():  # it may have been opened meanwhile
                raise gone(path)
        return sorted(opened)

    def _iteration_of(self, path: Path) -> int | None:
        """Return the iteration that a file belongs to, or None."""
        match = _OF_ITERATION.fullmatch(str(path).removeprefix(f"{self.folder}/"))
        return None if match is None else int(match[match.lastindex or 0])

    def open_iteration(self, iteration: int, campaign: Campaign) -> None:
        """Seal an iteration to `campaign` (the first to do so wins)."""
        publish_yaml(self.iteration_folder(iteration) / "campaign.yaml", campaign.to_yaml())

    def campaign(self, iteration: int) -> Campaign:
        """Return the campaign that `iteration` is sealed to."""
        if iteration not in self._campaigns:
            sealed = read_yaml(self.whole(self.iteration_folder(iteration) / "campaign.yaml"))
            self._campaigns[iteration] = self.places.of_sealed(_parsed(sealed))
        return self._campaigns[iteration]

    def settings(self, iteration: int) -> Campaign:
        """Return the campaign that `iteration` is sealed to."""
        return self.campaign(iteration)

    def chosen_file(self, iteration: int) -> Path:
        """Return the file of the frames that are to be labelled in an iteration, in the order of the data set."""
        return self.iteration_folder(iteration) / "chosen.npz"

    def sel(self) -> Room:
        """Return the neighbour capacities by type that the campaign fixed when it began, of each shell of its models.

        The file of one shell holds its list, that of several a list of lists.
        """
        path = self.iteration_folder(0) / "sel.json"
        if not path.exists():
            raise gone(path)
        found = read_json(self.whole(path))
        lists = found if isinstance(found, list) and all(isinstance(one, list) for one in found) else [found]
        if not all(isinstance(one, list) and all(type(n) is int for n in one) for one in lists):
            raise damaged(path, f"it is {str(found)[:40]}", "a list of whole numbers")
        return tuple(tuple(one) for one in lists)

    def fingerprint(self, iteration: int, name: str = "reference.json") -> dict[str, Any]:
        """Return the identity of the reference that labels in an iteration; its ``sha256`` goes into every key.

        ``driver.json`` instead is that of what moves the atoms of its initial data, if it has one.
        """
        path = self.iteration_folder(iteration) / name
        if path in self._fingerprints:
            return self._fingerprints[path]
        if not path.exists():
            raise gone(path)
        found = read_object(self.whole(path), sha256=str)
        if found["sha256"] != identity_sha256(found):
            raise damaged(path, "checksum mismatch: its content does not have the sha256 in it")
        if iteration in self.opened_iterations():  # sealed: read once
            self._fingerprints[path] = found
        return found

    def iteration_file(self, iteration: int) -> Path:
        """Return the path of the record of an iteration."""
        return self.iteration_folder(iteration) / "iteration.json"

    def iterations(self) -> list[Iteration]:
        """Return the records of all closed iterations, in order.

        Raises
        ------
        Damaged
            A record is, or is gone while a later one is there.
        """
        opened = self.opened_iterations()
        for i in opened:
            if i not in self._records and self.iteration_file(i).exists():
                self._records[i] = self._record(i)  # closed: read once
        for i in range(max(self._records, default=0)):
            if i not in self._records:
                raise Damaged(
                    f"{self.iteration_file(i)}: gone - expected the record of iteration {i} - run the same command "
                    "(activelearn run) again: it is rebuilt from the sealed results"
                )
        return [self._records[i] for i in sorted(self._records)]

    def _record(self, iteration: int) -> Iteration:
        found = read_record(path := self.iteration_file(iteration), Iteration)
        if found.index != iteration:
            raise damaged(path, f"it is the record of iteration {found.index}")
        self.whole(path.with_name("campaign.yaml"))  # in force then, whether or not it is read again
        return found

    def document(self, path: Path) -> dict[str, Any]:
        """Return a sealed result as it is in its file; that of a closed iteration has the checksum in its record.

        Raises
        ------
        Damaged
            Checksum mismatch.
        """
        if (sha256 := self._sums(path.parent.parent).get(path.parent.name)) is not None:
            want_sealed(path, sha256)
        return super().document(path)

    def stations_of(self, iteration: int) -> list[str]:
        """Return the stations in the record of an iteration; none before it is closed."""
        return list(self._sums(self.iteration_folder(iteration)))

    def _sums(self, folder: Path) -> dict[str, str]:
        """Return the checksums of the results of an iteration by station; none before it is closed."""
        record = folder / "iteration.json"
        if record not in self._products and record.is_file():
            products = read_object(record).get("products")
            self._products[record] = products if isinstance(products, dict) else {}
        return self._products.get(record, {})

    def is_sealed(self, station: str, iteration: int) -> bool:
        """Return whether a station of an iteration is finished.

        Raises
        ------
        Damaged
            It was, and its result is gone.
        """
        if super().is_sealed(station, iteration):
            return True
        if station in self._sums(self.iteration_folder(iteration)):
            raise gone(self.sealed(station, iteration))
        return False

    def beside(self, iteration: int) -> list[str]:
        """Return which published files of an iteration are in no station's folder (patterns)."""
        names = (
            "campaign.yaml",
            "reference.json",
            "driver.json",
            "sel.json",
            "chosen.npz",
            "starts.npz",
            "relaxed.npz",
        )
        return [*(f"iter-{iteration:03d}/{name}" for name in names), f"dataset/*-{iteration:03d}.npz"]

    def results_of(self, path: Path) -> Iterable[Path]:
        """Return the sealed results of the iteration that a file belongs to."""
        iteration = self._iteration_of(path)
        return () if iteration is None else self.iteration_folder(iteration).glob("*/result.json")

    # --- products -----------------------------------------------------------------------------------------------------

    def _without_entry(self, tasks: Iterable[Task], by: Published) -> list[Task]:
        """Return the tasks whose product is not in the ledger: a task's `key` is its content address there."""
        if by == "file":
            return list(tasks)
        self.ledger.refresh()  # others may have published in the meantime
        return [task for task in tasks if not self.ledger.holds(str(task.parameters["key"]))]

    def archive_products(self, iteration: int) -> None:
        """Pack the products of each station of a closed iteration into one file, to limit the number of files.

        A kill in between leaves both, and the next run continues from there.
        """
        if not self.iteration_file(iteration).is_file():
            return
        for plan_file in sorted(self.iteration_folder(iteration).glob("*/plan.json")):
            folder = plan_file.parent
            products = sorted(folder.glob("*.npz"))
            if products and self.is_sealed(folder.name, iteration):
                for path in products:  # before the first of them is touched
                    if not is_whole(self.whole(path)):
                        raise damaged(path, "it cannot be read", "it intact, to pack it")
                publish(folder / PACK, archive_files(products))
                for path in products:
                    if read_archived(folder / PACK, path.name).getvalue() != path.read_bytes():
                        raise damaged(folder / PACK, f"checksum mismatch of its {path.name}")
                    path.unlink()

    def publish_model(self, file: Path) -> tuple[str, str]:
        """Publish a model file under its checksum; return (path relative to the folder, sha256)."""
        sha = file_sha256(file)
        target = self.folder / "models" / f"{sha[:16]}{file.suffix}"
        if not target.is_file():
            publish(target, file.read_bytes())
        return str(target.relative_to(self.folder)), sha

    def models_of(self, iteration: int) -> list[str]:
        """Return the names of all models that an iteration has passed on, or that were made final after it."""
        found = [self.find_result(station, iteration, Ensemble) for station in ("teach", "train", "final")]
        members = [m for one in found if one is not None for m in (*one.members, *one.of_loop)]
        return [name for m in members for name in (m.model, m.compressed, m.weights) if name is not None]

    def model(self, name: str) -> Path:
        """Return a published model; its name is its checksum, which is verified once per process.

        Raises
        ------
        StoreError
            It is damaged, which an engine might not notice.
        """
        path = self.folder / name
        if name not in self._whole_models:
            if not path.is_file() or not file_sha256(path).startswith(path.stem):
                raise Damaged(f"{path}: damaged or gone - expected the model that its checksum names - {RESTORE}")
            self._whole_models.add(name)
        return path

    def sweep(self, machine: Machine) -> None:
        """Remove what killed runs left behind, and pack what they had closed (call only with the lease held)."""
        super().sweep(machine)
        begun.sweep(self.folder, self.ledger)
        for iteration in self.opened_iterations():
            self.archive_products(iteration)

    # --- data set -----------------------------------------------------------------------------------------------------

    def dataset_file(self, iteration: int) -> Path:
        """Return the file of the training frames that `iteration` added."""
        return self.folder / "dataset" / f"iter-{iteration:03d}.npz"

    def held_out_file(self, iteration: int) -> Path:
        """Return the file of the validation frames that the initial data of an iteration set aside."""
        return self.folder / "dataset" / f"held-out-{iteration:03d}.npz"

    def taught_file(self, iteration: int) -> Path:
        """Return the file of the training frames that the teacher of an iteration labelled."""
        return self.folder / "dataset" / f"taught-{iteration:03d}.npz"

    def taught_held_out_file(self, iteration: int) -> Path:
        """Return the file of the validation frames of an iteration, as its teacher labels them."""
        return self.folder / "dataset" / f"taught-held-out-{iteration:03d}.npz"

    def held_out(self, up_to: int) -> list[Frames]:
        """Return the validation set: fixed, except for systems that were added to a running campaign."""
        return [part for i in range(up_to + 1) for part in self.held_out_of(i)]

    def held_out_of(self, iteration: int) -> list[Frames]:
        """Return the validation frames that the initial data of an iteration set aside; none if it had no such data."""
        path = self.held_out_file(iteration)
        label = self.find_result("label", iteration, Labelling)
        return self.frames(path) if path.exists() or (label is not None and label.held_out) else []

    def n_training_frames(self, iteration: int) -> int:
        """Return how many training frames an iteration added."""
        before = self.result("label", iteration - 1, Labelling).dataset_frames if iteration > 0 else 0
        return self.result("label", iteration, Labelling).dataset_frames - before

    def dataset(self, up_to: int) -> list[Frames]:
        """Return all training frames of the iterations 0 ... `up_to`, in the order (iteration, walk, step)."""
        return [part for i in range(up_to + 1) for part in self.training(i)]

    def training(self, iteration: int) -> list[Frames]:
        """Return the training frames that an iteration added, in the order (walk, step).

        Raises
        ------
        Damaged
            They do not match what was sealed.
        """
        path = self.dataset_file(iteration)
        parts = self.frames(path)
        label = self.find_result("label", iteration, Labelling)
        if label is not None and self.seal_of(path) is None:  # sealed by an earlier version: by its frames
            before = self.result("label", iteration - 1, Labelling).dataset_sha256 if iteration > 0 else ""
            with_sum(path, dataset_sha256(parts, after=before), label.dataset_sha256)
        return parts

    # --- labels -------------------------------------------------------------------------------------------------------

    @property
    def ledger(self) -> Ledger:
        """The label ledger of this campaign (its own, or the shared one that the campaign names)."""
        with self._opening:
            if self._ledger is None:
                self._ledger = Ledger(self.ledger_of(self.latest_campaign()))
                self._ledger.refresh()
                self._ledger.damage()  # is logged
            return self._ledger

    @property
    def ledger_writer(self) -> LedgerWriter:
        """The journal that this process appends to."""
        with self._opening:
            if self._writer is None:
                self._writer = LedgerWriter(self.ledger_of(self.latest_campaign()), self.uuid[:8])
            return self._writer

    def end_journal(self) -> None:
        """Close the journal that this process appends to; the next label opens a new one."""
        if self._writer is not None:
            self._writer.close()

    def compact_labels(self) -> None:
        """Merge this campaign's journals; only between stations, when nothing is writing."""
        self.end_journal()
        self.ledger.compact(self.uuid[:8])

    def ledger_of(self, campaign: Campaign) -> Path:
        """Return the ledger that a campaign names (it may have moved with the folder), or the one of this folder."""
        shared = campaign.label.ledger
        if not shared:
            return self.folder / "labels"
        return self.identity.beside(Path(here(shared)).expanduser().absolute())


def _numbered(file: Path, campaign: Campaign) -> str:
    """Return a campaign for one of the files of those that were accepted; the last line says for which."""
    return f"{campaign.to_yaml()}{_NUMBER}{file.stem}\n"


def read_accepted(file: Path) -> str:
    """Return an accepted campaign as it was resolved.

    Raises
    ------
    Damaged
        Checksum mismatch, or it is in the place of another one.
    """
    text = read_yaml(file)
    body, _, last = text.rstrip("\n").rpartition("\n")
    if not last.startswith(_NUMBER):  # of an earlier version
        return text
    if (number := last.removeprefix(_NUMBER)) != file.stem:
        raise damaged(file, f"it is number {number} of the campaigns that were accepted")
    return f"{body}\n"


@lru_cache(maxsize=8)
def _parsed(text: str) -> Campaign:
    """Return a resolved campaign; cached, as each Firework asks for it."""
    where = "a campaign of the folder"
    return parse_campaign(as_written(text, where), where=where, is_sealed=True)
