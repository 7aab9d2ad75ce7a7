"""Folder: plans, products, sealed results, claims and scratch, the same for a campaign and for a study.

A station's folder contains ``plan.json, <task>.npz, result.json``.

A sealed result contains the checksums of all files that it consists of or was made from, and one of itself (``files``
and ``seal`` in ``result.json``): sealed files are accessed through :meth:`Folder.whole`. Results of earlier versions
have neither, and are read as they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from activelearn import trees
from activelearn.config import Machine
from activelearn.errors import ConfigError, StoreError, typed
from activelearn.frames import Frames, pack, unpack
from activelearn.records import Iteration, Plan, Record, Seconds, Task
from activelearn.store.begun import folders_at_work
from activelearn.store.consent import Consent
from activelearn.store.files import (
    HOST,
    as_record,
    damaged,
    disk_errors,
    file_sha256,
    gone,
    is_whole,
    publish_json,
    publish_npz,
    publish_yaml,
    read_archived,
    read_meta,
    read_npz,
    read_object,
    read_record,
    read_some,
    replace_json,
    sealed,
    unique_suffix,
    want_sealed,
    with_sum,
)
from activelearn.store.identity import Identity
from activelearn.store.locks import Claim
from activelearn.store.submission import Submissions
from activelearn.store.version import format_of, migrate, stamp

log = logging.getLogger(__name__)
R = TypeVar("R", bound=Record)
F = TypeVar("F", bound="Folder")
#: Where the product of a task is published: a file of its station's folder, or an entry of the label ledger.
Published = Literal["file", "ledger"]
#: The products of a station in one file, once its iteration is closed.
PACK: Final = "products.zip"
#: Key of the checksums in a sealed result.
_FILES: Final = "files"
#: The names of our temporary files: .name.host-pid-uuid (see :func:`~activelearn.store.files.unique_suffix`).
_TEMPORARY: Final = re.compile(r"\..+\..+-\d+-[0-9a-f]{12}")
#: What every kind of folder contains from its first run on, in addition to the names specific to the kind.
_NAMES: Final = (
    "machine.yaml",
    "lease.json",
    "submitted.json",
    "unusual-*.json",
    "tried-*.json",
    "stopped.json",
    "claims",
    "begun",
    "failures",
    "sessions",
)


class Folder(ABC):
    """A folder in which stations work.

    Parameters
    ----------
    folder
        Its path; made absolute, because FireWorks changes the working directory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._plans: dict[Path, Plan] = {}
        self._results: dict[Path, Record] = {}
        self._seals: dict[Path, dict[str, str]] = {}
        self.submissions = Submissions(self.folder)
        self.consent = Consent(self.folder)
        format_of(self.folder)  # nothing is read of a folder that a newer version wrote

    #: Message where there is no folder of this kind.
    missing: ClassVar[str]
    #: Further names that this kind of folder writes or removes (patterns); scratch folders have marks.
    names: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def open(cls: type[F], folder: Path) -> F:
        """Open an existing folder of this kind.

        Raises
        ------
        ConfigError
            There is none.
        """
        found = cls(folder)
        if not found.is_begun():
            raise ConfigError(f"{folder}: {cls.missing.format(folder=typed(folder))}")
        return found

    # --- what a kind of folder defines ----------------------------------------------------------------------------

    @property
    @abstractmethod
    def identity(self) -> Identity:
        """The identity of the folder."""

    @property
    def uuid(self) -> str:
        """Identity, the same wherever the folder is moved; a copy of the folder gets a new one."""
        return self.identity.read()

    @property
    @abstractmethod
    def title(self) -> str:
        """The name of the campaign or of the study."""

    @abstractmethod
    def at_work(self) -> list[tuple[Folder, int]]:
        """Return where stations are running: (folder, iteration) of what was opened last, including studies."""

    def iterations(self) -> list[Iteration]:
        """Return the records of all closed iterations, in order; a study has none."""
        return []

    @abstractmethod
    def settings(self, iteration: int) -> Any:  # noqa: ANN401 - a Campaign or a Study: what its stations are given
        """Return the settings that the stations of an iteration are carried out with."""

    @abstractmethod
    def station_folder(self, station: str, iteration: int) -> Path:
        """Return the folder of a station in an iteration."""

    def rng(self, iteration: int, station: str, task: str = "") -> np.random.Generator:
        """Return the random numbers of one task: a function of (random_seed, iteration, station, task)."""
        name = f"{self.settings(iteration).random_seed}/{iteration}/{station}/{task}"
        return np.random.default_rng(np.frombuffer(hashlib.sha256(name.encode()).digest(), dtype=np.uint32).tolist())

    @abstractmethod
    def is_begun(self) -> bool:
        """Return whether there is a campaign, or a study, in the folder."""

    def begin_with(self, file: Path, text: str) -> None:
        """Start with a resolved YAML document, unless there is one; the uuid comes first, in case of a kill.

        Raises
        ------
        ConfigError
            The folder belongs to something else.
        """
        self.want_free_names()
        if not self.is_begun():
            stamp(self.folder)
            self.identity.begin()
            publish_yaml(file, text)

    def want_free_names(self) -> None:
        """Refuse to start where something else uses our names: it would be overwritten or removed.

        Raises
        ------
        ConfigError
            The folder belongs to something else.
        """
        taken = sorted({path.name for name in (*_NAMES, *self.names) for path in self.folder.glob(name)})
        if taken and not self.is_begun():  # in this order: what another process has just started is ours
            raise ConfigError(
                f"{self.folder}: contains {', '.join(taken)}, not made by activelearn - expected a folder without "
                "(files of these names are written and removed) - choose another --folder, or move them away"
            )

    def end_journal(self) -> None:  # noqa: B027 - most folders append to nothing
        """Close what this process appends to, if anything."""

    def settle(self) -> None:
        """Prepare the folder for writing: migrate its format, give a copy its own identity (with the lease held).

        Raises
        ------
        StoreError
            The identity is damaged.
        """
        migrate(self.folder)
        why = self.identity.settle(is_known_elsewhere=self.submissions.current() is not None)
        if why is not None:
            self.submissions.withdraw()  # the submission is of the folder that this one was copied from
            log.warning("%s: gets a new identity, because %s", self.folder, why)

    # --- plans --------------------------------------------------------------------------------------------------------

    def plan_file(self, station: str, iteration: int) -> Path:
        """Return the path of a station's frozen plan."""
        return self.station_folder(station, iteration) / "plan.json"

    def find_plan(self, station: str, iteration: int) -> Plan | None:
        """Return the frozen plan, or None if there is none yet."""
        path = self.plan_file(station, iteration)
        if path not in self._plans and path.exists():
            found = read_record(self.whole(path), Plan)
            if (found.station, found.iteration) != (station, iteration):
                raise damaged(path, f"it is the plan of {found.station} in iteration {found.iteration}")
            self._plans[path] = found  # frozen: read once
        return self._plans.get(path)

    def plan(self, station: str, iteration: int) -> Plan:
        """Return the frozen plan of a station; StoreError if it is gone."""
        found = self.find_plan(station, iteration)
        if found is None:
            raise gone(self.plan_file(station, iteration))
        return found

    def planned_at(self, station: str, iteration: int) -> float:
        """Return when the plan was frozen (Unix time): anything computed earlier was not computed for it."""
        return self.plan_file(station, iteration).stat().st_mtime

    def freeze_plan(self, station: str, iteration: int, tasks: Sequence[Task], n_chunks: int) -> Plan:
        """Freeze the complete plan once; later callers get the frozen one."""
        if len({task.id for task in tasks}) < len(tasks):
            raise StoreError(f"plan of {station} in iteration {iteration} names a task twice; please report this")
        plan = Plan(station=station, iteration=iteration, n_chunks=n_chunks, tasks=tuple(tasks))
        publish_json(self.plan_file(station, iteration), sealed(plan.model_dump(mode="json")))
        return self.plan(station, iteration)

    # --- products -----------------------------------------------------------------------------------------------------

    def product(self, station: str, iteration: int, task_id: str) -> Path:
        """Return the path of a task's product."""
        return self.station_folder(station, iteration) / f"{task_id}.npz"

    def is_published(self, station: str, iteration: int, task: Task, *, by: Published = "file") -> bool:
        """Return whether the task's product is published (in the ledger: or refused with the user's consent)."""
        return task not in self._without_entry([task], by) or self.product(station, iteration, task.id).is_file()

    def pending(self, plan: Plan, tasks: Iterable[Task] | None = None, *, by: Published = "file") -> list[Task]:
        """Return the tasks of a plan that are not published, in order; none once its result is sealed."""
        if self.is_sealed(plan.station, plan.iteration):
            return []
        left = self._without_entry(plan.tasks if tasks is None else tasks, by)
        return [task for task in left if not self.product(plan.station, plan.iteration, task.id).is_file()]

    def _without_entry(self, tasks: Iterable[Task], by: Published) -> list[Task]:  # noqa: ARG002
        """Return the tasks whose product is not in the ledger; those of most folders are files."""
        return list(tasks)

    def read_product(
        self, station: str, iteration: int, task_id: str
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the arrays and the meta of a product, packed or not."""
        return read_npz(*self._published(station, iteration, task_id))

    def read_some(
        self, station: str, iteration: int, task_id: str, names: Sequence[str]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the arrays of these names, (n, ...) of any unit, that a product has, and its meta."""
        path, packed = self._published(station, iteration, task_id)
        return read_some(path, names, packed)

    def read_meta(self, station: str, iteration: int, task_id: str) -> dict[str, Any]:
        """Return the meta of a product alone."""
        return read_meta(*self._published(station, iteration, task_id))

    def _published(self, station: str, iteration: int, task_id: str) -> tuple[Path, io.BytesIO | None]:
        path = self.product(station, iteration, task_id)
        packed = path.with_name(PACK)
        if path.exists() or not packed.is_file():
            return self.whole(path), None
        return self.unpacked(packed, path.name)

    def unpacked(self, pack: Path, name: str) -> tuple[Path, io.BytesIO]:
        """Return the path of a packed product, used in messages, and its content, as it was sealed."""
        content, path = read_archived(pack, name), pack / name
        if (sha256 := self.seal_of(pack.with_name(name))) is not None:
            with_sum(path, hashlib.sha256(content.getbuffer()).hexdigest(), sha256)
        return path, content

    def publish_product(
        self, station: str, iteration: int, task_id: str, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]
    ) -> bool:
        """Publish a task's one product file; False if another process was first."""
        return publish_npz(self.product(station, iteration, task_id), arrays, meta)

    def damaged_products(self, plan: Plan) -> list[Task]:
        """Read every product; move those that cannot be read aside, and return their tasks (pending again)."""
        torn = []
        for task in plan.tasks:
            path = self.product(plan.station, plan.iteration, task.id)
            if path.is_file() and not is_whole(path):
                path.rename(path.with_name(f"{path.name}.damaged-{unique_suffix()}"))
                torn.append(task)
        return torn

    # --- sealed results -----------------------------------------------------------------------------------------------

    def sealed(self, station: str, iteration: int) -> Path:
        """Return the path of a station's sealed result."""
        return self.station_folder(station, iteration) / "result.json"

    def is_sealed(self, station: str, iteration: int) -> bool:
        """Return whether a station of an iteration is finished.

        Raises
        ------
        Damaged
            Its products are packed, so it was finished, but its result is gone.
        """
        path = self.sealed(station, iteration)
        if path.exists():
            return True
        if path.with_name(PACK).exists():
            raise gone(path)
        return False

    def seal(self, station: str, iteration: int, result: Record) -> None:
        """Seal a station's result; later stations read only this, and files whose checksums it contains."""
        files = {str(path.relative_to(self.folder)): file_sha256(path) for path in self.sealed_with(station, iteration)}
        document = {**result.model_dump(mode="json"), _FILES: files}
        publish_json(self.sealed(station, iteration), sealed(document))

    def sealed_with(self, station: str, iteration: int) -> list[Path]:
        """Return the files whose checksums a result contains: its plan and products, and files beside the station."""
        folder = self.station_folder(station, iteration)
        beside = [path for name in self.beside(iteration) for path in self.folder.glob(name)]
        return sorted({*beside, *folder.glob("plan.json"), *folder.glob("*.npz"), *folder.glob("*.extxyz")})

    @abstractmethod
    def beside(self, iteration: int) -> list[str]:
        """Return which published files of an iteration are in no station's folder (patterns)."""

    @abstractmethod
    def results_of(self, path: Path) -> Iterable[Path]:
        """Return the sealed results that may have the checksum of a file of this folder."""

    def document(self, path: Path) -> dict[str, Any]:
        """Return a sealed result as it is in its file, without the checksums."""
        found = read_object(path)
        self._seals[path] = as_record(path, {"files": found.pop(_FILES, {})}, _Sealed).files
        return found

    def seals(self, path: Path) -> dict[str, str]:
        """Return the checksums in a sealed result, by paths relative to the folder; none from earlier versions."""
        if path not in self._seals:
            self.document(path)
        return self._seals[path]

    def seal_of(self, path: Path) -> str | None:
        """Return the sealed checksum of a file; None: not sealed yet, or by an earlier version."""
        name = str(path.relative_to(self.folder))
        return next((sums[name] for one in self.results_of(path) if name in (sums := self.seals(one))), None)

    def whole(self, path: Path) -> Path:
        """Return a file of this folder as it was sealed.

        Raises
        ------
        Damaged
            It is not.
        """
        sha256 = self.seal_of(path)
        return path if sha256 is None else want_sealed(path, sha256)

    def result(self, station: str, iteration: int, model: type[R]) -> R:
        """Return a sealed result; StoreError if it is gone."""
        path = self.sealed(station, iteration)
        found = self._results.get(path)
        if not isinstance(found, model):
            try:
                found = as_record(path, self.document(path), model)
            except FileNotFoundError:
                raise gone(path) from None
            if getattr(found, "iteration", iteration) != iteration:
                raise damaged(path, "it is the result of another iteration")
            self._results[path] = found  # sealed: read once
        return found

    def find_result(self, station: str, iteration: int, model: type[R]) -> R | None:
        """Return a sealed result, or None if the station is not sealed (or was not part of the iteration)."""
        return self.result(station, iteration, model) if self.is_sealed(station, iteration) else None

    def seal_frames(self, path: Path, parts: Sequence[Frames], extra: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Publish a list of Frames (a selection, a data set), and arrays that :func:`read_array` finds beside them."""
        publish_npz(path, {**pack(parts), **(extra or {})}, {})

    def frames(self, path: Path) -> list[Frames]:
        """Read a list of Frames."""
        path = self.whole(path)
        arrays = read_npz(path)[0]
        try:
            return unpack(arrays)
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise damaged(path, f"its arrays are not frames: {error}") from error

    # --- claims, attempts, scratch ------------------------------------------------------------------------------------

    def claim(self, station: str, iteration: int, task: Task) -> Claim:
        """Return the (not yet acquired) claim of a task."""
        return Claim(self.folder / "claims" / f"{iteration:03d}-{station}-{task.id}.json")

    def turn(self, name: str) -> Claim:
        """Return the (not yet acquired) claim on something that only one process may do at a time."""
        return Claim(self.folder / "claims" / f"turn-{name}.json")

    def record_failure(self, station: str, iteration: int, task: Task, run_id: str, message: str) -> int:
        """Record an infrastructure failure; return how often the task has failed in this run."""
        folder, name = self.folder / "failures", f"{iteration:03d}-{station}-{task.id}"
        record = {"session": run_id, "task": task.id, "host": HOST, "time": time.time(), "message": message}
        publish_json(folder / f"{name}.{unique_suffix()}.json", record)
        return sum(_failure(path)["session"] == run_id for path in folder.glob(f"{name}.*.json"))

    def failures_of(self, station: str, iteration: int, run_id: str) -> dict[str, list[dict[str, Any]]]:
        """Return the infrastructure failures of a station in one run, oldest first, by the task's id."""
        found: dict[str, list[dict[str, Any]]] = {}
        for path in (self.folder / "failures").glob(f"{iteration:03d}-{station}-*.json"):
            record = {**_failure(path), "file": str(path)}
            if record["session"] == run_id and "task" in record:
                found.setdefault(record["task"], []).append(record)
        return {task: sorted(records, key=lambda record: record["time"]) for task, records in found.items()}

    def failures(self, iteration: int) -> list[dict[str, Any]]:
        """Return all infrastructure failures of an iteration."""
        return [_failure(path) for path in sorted((self.folder / "failures").glob(f"{iteration:03d}-*.json"))]

    def sweep(self, machine: Machine) -> None:
        """Remove what killed runs left behind: temporary files and scratch (call only with the lease held)."""
        if not machine.keep_scratch:
            self._clear_scratch(machine)
        for path in self.folder.glob("claims/*.json"):  # of a task that was published just before the kill
            Claim(path).break_stale()
        for pattern in (".*", "*/.*", "*/*/.*"):
            for path in self.folder.glob(pattern):
                if _TEMPORARY.fullmatch(path.name) and path.is_file():
                    path.unlink(missing_ok=True)

    def _clear_scratch(self, machine: Machine) -> None:
        busy = folders_at_work(self.folder)  # of labels that outlived the driver that had started them
        for area in {self._scratch_area(machine), self.folder / "scratch"}:
            left = [path.name for path in trees.clear(area, area.parent, busy)]
            if left:
                names = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
                log.warning(
                    "%s: not marked as made by activelearn (an earlier version made no marks), so left alone: %s - "
                    "remove it by hand if it is not needed",
                    area,
                    names,
                )

    def scratch(self, machine: Machine, *names: str) -> Path:
        """Make and return a fresh scratch folder."""
        folder = self._scratch_area(machine) / "-".join([*names, unique_suffix()])
        with disk_errors(folder):
            trees.make(folder.parent)
            return trees.make(folder)

    def shared_scratch(self, machine: Machine, station: str, iteration: int) -> Path:
        """Make and return the scratch folder that the tasks of a station share, until the station is sealed."""
        folder = self._scratch_area(machine) / f"shared-{iteration:03d}-{station}"
        with disk_errors(folder):
            trees.make(folder.parent)
            return trees.make(folder)

    def drop_scratch(self, folder: Path, machine: Machine) -> None:
        """Remove a scratch folder, unless the machine profile keeps them."""
        if not machine.keep_scratch:
            trees.remove(folder, self._scratch_area(machine))

    def logs(self) -> Path:
        """Make and return the folder of the logs of engines, in the scratch of this folder itself."""
        with disk_errors(self.folder):
            return trees.make(self.folder / "scratch")

    def _scratch_area(self, machine: Machine) -> Path:
        """Return where the scratch folders of this folder, and of no other, are."""
        return Path(machine.scratch).expanduser() / self.uuid[:8] if machine.scratch else self.folder / "scratch"

    # --- time and the machine -----------------------------------------------------------------------------------------

    def save_machine(self, machine: Machine) -> None:
        """Store the machine profile for workers that know only the folder."""
        replace_json(self.folder / "machine.yaml", machine.model_dump(mode="json"))

    def seconds(self, station: str, iteration: int, spans: Sequence[tuple[float, float]], until: float) -> Seconds:
        """Return where the time of a station went.

        Parameters
        ----------
        station, iteration
            Which.
        spans
            (started, finished) of the engine work of every task, Unix times.
        until
            When the station was sealed.
        """
        started = self.planned_at(station, iteration)
        alive = [(max(a, started), min(b, until)) for a, b in self._sessions(until)]
        work = [(max(a, started), min(b, until)) for a, b in spans if min(b, until) > max(a, started)]
        total = sum(b - a for a, b in work)
        # The last heartbeat of a killed driver is some seconds old; where there was work, there was a driver.
        return Seconds(wall=_union([*alive, *work]), engine=_union(work), engine_total=total, n_tasks=len(spans))

    def _sessions(self, now: float) -> list[tuple[float, float]]:
        """Return when drivers were alive: from the text (start) and the heartbeat (end) of each session file."""
        spans = []
        for path in sorted((self.folder / "sessions").glob("*")):
            with contextlib.suppress(ValueError, OSError):
                spans.append((float(path.read_text()), path.stat().st_mtime))
        if spans:  # the calling session is alive
            spans[-1] = (spans[-1][0], max(spans[-1][1], now))
        return spans or [(0.0, now)]


class _Sealed(Record):
    files: dict[str, str]


def _failure(path: Path) -> dict[str, Any]:
    return read_object(path, session=str, time=float)


def _union(spans: Sequence[tuple[float, float]]) -> float:
    """Return the length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        if end > max(start, reached):
            total += end - max(start, reached)
            reached = end
    return total
