"""Verifying: every published file of a campaign or a study is read completely and verified.

That is what ``activelearn status --verify`` does. A file that a sealed result has the checksum of must have it; any
other is checked against itself: an npz by the CRC-32 of its arrays, a YAML document by its first line, a JSON document
by its seal, a model by its name. Nothing is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from activelearn.errors import ActiveLearnError
from activelearn.store.campaign import Store, read_accepted
from activelearn.store.files import archived, gone, read_json, read_npz
from activelearn.store.folder import PACK, Folder
from activelearn.store.ledger import Ledger
from activelearn.store.study import ONCE

#: Files in a folder that are not published: claims and leases, scratch, figures.
_NOT_PUBLISHED: Final = frozenset(
    (
        "scratch",
        "checkpoints",
        "launches",
        "work",
        "tables",
        "figures",
        "claims",
        "begun",
        "sessions",
        "labels",
        "lease.json",
    )
)


@dataclass
class Verified:
    """What was found.

    Parameters
    ----------
    problems
        One sentence each.
    n_files, n_bytes
        How much was read and verified, including the label ledger.
    """

    problems: list[str] = field(default_factory=list)
    n_files: int = 0
    n_bytes: int = 0

    def add(self, problem: str) -> None:
        """Record a problem, once."""
        if problem not in self.problems:
            self.problems.append(problem)

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Record what is raised, and continue."""
        try:
            yield
        except ActiveLearnError as error:
            self.add(str(error))


def verify(store: Folder) -> Verified:
    """Verify a folder, the studies in it and its label ledger."""
    found = Verified()
    _verify(store, found)
    if isinstance(store, Store):
        with found.noting():
            for one in store.studies():
                _verify(one, found)
        with found.noting():
            _verify_ledger(store.ledger, found)
        with found.noting():
            _want_labels(store, store.opened_iterations(), found)
    return found


def _verify_ledger(ledger: Ledger, found: Verified) -> None:
    for problem in ledger.verify():
        found.add(problem)
    for path in ledger.folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # merged meanwhile
            if path.is_file():
                found.n_files, found.n_bytes = found.n_files + 1, found.n_bytes + path.stat().st_size


def _verify(store: Folder, found: Verified) -> None:
    with found.noting():
        store.identity.read()
    iterations = [ONCE]
    if isinstance(store, Store):
        with found.noting():
            store.latest_campaign()
        with found.noting():
            iterations = store.opened_iterations()
        with found.noting():
            store.iterations()
    for path in _published(store.folder):
        with found.noting(), contextlib.suppress(FileNotFoundError):  # a note that was removed meanwhile
            found.n_bytes += path.stat().st_size
            found.n_files += 1
            _checks(store, path)
    for k in iterations:
        for result in store.station_folder("-", k).parent.glob("*/result.json"):
            with found.noting():
                for name in store.seals(result):
                    _want_there(store.folder / name)
        with found.noting():
            store.settings(k)
        if isinstance(store, Store):
            _verify_iteration(store, k, found)


def _verify_iteration(store: Store, iteration: int, found: Verified) -> None:
    with found.noting():
        store.fingerprint(iteration)
    with found.noting():
        if (store.iteration_folder(iteration) / "driver.json").exists():
            store.fingerprint(iteration, "driver.json")
    with found.noting():
        for station in store.stations_of(iteration):
            store.is_sealed(station, iteration)
    with found.noting():
        if store.is_sealed("label", iteration):
            store.training(iteration)
            store.held_out_of(iteration)
    models: list[str] = []
    with found.noting():
        models = store.models_of(iteration)
    for name in models:
        with found.noting():
            store.model(name)


def _want_labels(store: Store, iterations: list[int], found: Verified) -> None:
    """Require every computed label to be in the ledger: a journal lost with its index would go unnoticed."""
    folders = {store.ledger.folder, *(store.ledger_of(store.campaign(k)) for k in iterations)}
    ledgers = [Ledger(folder, warn=False) for folder in folders]
    for ledger in ledgers:
        ledger.refresh()
    refused = store.consent.refused
    for k in iterations:
        tasks = store.plan("label", k).tasks if store.is_sealed("label", k) else ()
        keys = [str(task.parameters["key"]) for task in tasks if f"{k:03d}-label-{task.id}" not in refused]
        if n := sum(all(key not in ledger for ledger in ledgers) for key in keys):
            found.add(
                f"{store.ledger.folder}: {n} of the {len(keys)} labels of iteration {k} are not in it - expected all "
                "that were computed - restore its journals from a copy; the data set is complete without them"
            )


def _published(folder: Path) -> list[Path]:
    """Return the files that were published in a folder, without those of studies in it."""
    return sorted(
        path
        for top in folder.iterdir()
        if top.name not in _NOT_PUBLISHED and not top.name.startswith((".", "study-"))
        for path in ([top] if top.is_file() else top.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    )


def _want_there(path: Path) -> None:
    if not path.is_file() and (path.exists() or not path.with_name(PACK).is_file()):  # or a folder in its place
        raise gone(path)


def _checks(store: Folder, path: Path) -> None:
    """Verify a file."""
    readers: dict[str, Callable[[Path], object]] = {".npz": read_npz, ".json": read_json}
    if path.name == "result.json":
        store.document(path)
    elif path.name == PACK:
        _check_pack(store, path)
    elif path.parent == store.folder / "models" and isinstance(store, Store):
        store.model(str(path.relative_to(store.folder)))
    elif store.seal_of(path) is not None:
        store.whole(path)
    elif path.parent == store.folder / "campaign" and path.suffix == ".yaml":
        read_accepted(path)
    elif path.suffix in readers:
        readers[path.suffix](path)


def _check_pack(store: Folder, pack: Path) -> None:
    """Read all products of a pack, and require all that were sealed."""
    folder = pack.parent.relative_to(store.folder)
    own = (Path(name) for name in store.seals(pack.with_name("result.json")))
    sealed = {path.name for path in own if path.parent == folder and path.suffix == ".npz"}
    for name in sorted(sealed.union(archived(pack))):
        if not (pack.parent / name).exists():
            product = store.unpacked(pack, name)  # compared with its checksum, if it was sealed
            if name not in sealed:
                read_npz(*product)
