"""Folder: plans, products, sealed results, claims and scratch, the same for a campaign and for a study.

What stands where in a station's folder: ``plan.json, <task>.npz, result.json``.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from activelearn.config import Machine
from activelearn.errors import StoreError
from activelearn.frames import Frames, pack, unpack
from activelearn.records import Plan, Record, Seconds, Task
from activelearn.store.consent import Consent
from activelearn.store.files import (
    HOST,
    RESTORE,
    disk_errors,
    is_whole,
    publish_json,
    publish_npz,
    read_json,
    read_meta,
    read_npz,
    replace_json,
    unique_suffix,
    unpack_file,
)
from activelearn.store.locks import Claim
from activelearn.store.submission import Submissions

R = TypeVar("R", bound=Record)
#: How the names of our temporary files end: host-pid-uuid (see :func:`~activelearn.store.files.unique_suffix`).
_TEMPORARY: Final = re.compile(r"-\d+-[0-9a-f]{12}$")


class Folder(ABC):
    """Where stations do their work.

    Parameters
    ----------
    folder
        Its path; made absolute, for FireWorks changes the working directory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._plans: dict[Path, Plan] = {}
        self._results: dict[Path, Record] = {}
        self.submissions = Submissions(self.folder)
        self.consent = Consent(self.folder)

    # --- what a kind of folder says of itself ---------------------------------------------------------------------

    @property
    @abstractmethod
    def uuid(self) -> str:
        """Identity, the same wherever the folder is moved."""

    @abstractmethod
    def settings(self, iteration: int) -> Any:  # noqa: ANN401 - a Campaign or a Study: what its stations are given
        """Return what the stations of an iteration are carried out by."""

    @abstractmethod
    def station_folder(self, station: str, iteration: int) -> Path:
        """Return the folder of a station in an iteration."""

    def rng(self, iteration: int, station: str, task: str = "") -> np.random.Generator:
        """Return the random numbers of one task: a function of (random_seed, iteration, station, task)."""
        name = f"{self.settings(iteration).random_seed}/{iteration}/{station}/{task}"
        return np.random.default_rng(np.frombuffer(hashlib.sha256(name.encode()).digest(), dtype=np.uint32).tolist())

    def end_segment(self) -> None:  # noqa: B027 - most folders append to nothing
        """Close what this process appends to, if it appends to anything."""

    # --- plans --------------------------------------------------------------------------------------------------------

    def plan(self, station: str, iteration: int) -> Plan | None:
        """Return the frozen plan, or None if nobody has planned yet."""
        path = self.station_folder(station, iteration) / "plan.json"
        if path not in self._plans and path.is_file():
            self._plans[path] = Plan.model_validate(read_json(path))  # frozen: read once
        return self._plans.get(path)

    def planned_at(self, station: str, iteration: int) -> float:
        """Return when the plan was frozen (Unix time): what was computed before it was not computed for it."""
        return (self.station_folder(station, iteration) / "plan.json").stat().st_mtime

    def freeze_plan(self, station: str, iteration: int, tasks: Sequence[Task], n_chunks: int) -> Plan:
        """Freeze the complete plan once; whoever comes later gets the frozen one."""
        if len({task.id for task in tasks}) < len(tasks):
            raise StoreError(f"plan of {station} in iteration {iteration} names a task twice; please report this")
        plan = Plan(station=station, iteration=iteration, n_chunks=n_chunks, tasks=tuple(tasks))
        publish_json(self.station_folder(station, iteration) / "plan.json", plan.model_dump(mode="json"))
        frozen = self.plan(station, iteration)
        assert frozen is not None  # just published, by us or by who was first
        return frozen

    # --- products -----------------------------------------------------------------------------------------------------

    def product(self, station: str, iteration: int, task_id: str) -> Path:
        """Return the path of a task's product."""
        return self.station_folder(station, iteration) / f"{task_id}.npz"

    def is_published(self, station: str, iteration: int, task: Task, *, look_again: bool = False) -> bool:  # noqa: ARG002
        """Return whether the task's product stands; with `look_again`, what others have published meanwhile counts."""
        return self.product(station, iteration, task.id).is_file()

    def pending(self, plan: Plan, tasks: Iterable[Task] | None = None) -> list[Task]:
        """Return the tasks of a plan that are not published, in order; none once its result is sealed."""
        if self.is_sealed(plan.station, plan.iteration):
            return []
        chosen = plan.tasks if tasks is None else tasks
        return [task for task in chosen if not self.is_published(plan.station, plan.iteration, task)]

    def read_product(
        self, station: str, iteration: int, task_id: str
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the arrays and the meta of a product, packed or not."""
        return read_npz(self._published(station, iteration, task_id))

    def read_meta(self, station: str, iteration: int, task_id: str) -> dict[str, Any]:
        """Return the meta of a product alone."""
        return read_meta(self._published(station, iteration, task_id))

    def _published(self, station: str, iteration: int, task_id: str) -> Path | io.BytesIO:
        path = self.product(station, iteration, task_id)
        packed = path.with_name("products.zip")
        return unpack_file(packed, path.name) if packed.is_file() and not path.is_file() else path

    def publish_product(
        self, station: str, iteration: int, task_id: str, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]
    ) -> bool:
        """Publish a task's one product file; False if somebody was first."""
        return publish_npz(self.product(station, iteration, task_id), arrays, meta)

    def damaged_products(self, plan: Plan) -> list[Task]:
        """Read every product; put those that cannot be read aside, and return their tasks (pending again)."""
        damaged = []
        for task in plan.tasks:
            path = self.product(plan.station, plan.iteration, task.id)
            if path.is_file() and not is_whole(path):
                path.rename(path.with_name(f"{path.name}.damaged-{unique_suffix()}"))
                damaged.append(task)
        return damaged

    # --- sealed results -----------------------------------------------------------------------------------------------

    def sealed(self, station: str, iteration: int) -> Path:
        """Return the path of a station's sealed result."""
        return self.station_folder(station, iteration) / "result.json"

    def is_sealed(self, station: str, iteration: int) -> bool:
        """Return whether a station of an iteration is done for good."""
        return self.sealed(station, iteration).is_file()

    def seal(self, station: str, iteration: int, result: Record) -> None:
        """Seal a station's result; what comes later reads only this."""
        publish_json(self.sealed(station, iteration), result.model_dump(mode="json"))

    def result(self, station: str, iteration: int, model: type[R]) -> R:
        """Return a sealed result; StoreError if it is gone."""
        path = self.sealed(station, iteration)
        found = self._results.get(path)
        if not isinstance(found, model):
            try:
                found = model.model_validate(read_json(path))
            except FileNotFoundError:
                raise StoreError(f"{path}: gone - wanted this part of the campaign - {RESTORE}") from None
            self._results[path] = found  # sealed: read once
        return found

    def seal_frames(self, path: Path, parts: Sequence[Frames], extra: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Publish a list of Frames (a selection, a data set), and arrays that :func:`read_array` finds beside them."""
        publish_npz(path, {**pack(parts), **(extra or {})}, {})

    def frames(self, path: Path) -> list[Frames]:
        """Read a list of Frames."""
        return unpack(read_npz(path)[0])

    # --- claims, attempts, scratch ------------------------------------------------------------------------------------

    def claim(self, station: str, iteration: int, task: Task) -> Claim:
        """Return the (not yet acquired) claim of a task."""
        return Claim(self.folder / "claims" / f"{iteration:03d}-{station}-{task.id}.json")

    def turn(self, name: str) -> Claim:
        """Return the (not yet acquired) claim of what only one process may do at a time."""
        return Claim(self.folder / "claims" / f"turn-{name}.json")

    def record_failure(self, station: str, iteration: int, task: Task, session: str, message: str) -> int:
        """Record an infrastructure failure; return how often the task has failed in this session."""
        folder, name = self.folder / "failures", f"{iteration:03d}-{station}-{task.id}"
        record = {"session": session, "task": task.id, "host": HOST, "time": time.time(), "message": message}
        publish_json(folder / f"{name}.{unique_suffix()}.json", record)
        return sum(read_json(path)["session"] == session for path in folder.glob(f"{name}.*.json"))

    def failures_of(self, station: str, iteration: int, session: str) -> dict[str, list[dict[str, Any]]]:
        """Return the infrastructure failures of a station in one session, oldest first, by the task's id."""
        found: dict[str, list[dict[str, Any]]] = {}
        for path in (self.folder / "failures").glob(f"{iteration:03d}-{station}-*.json"):
            record = {**read_json(path), "file": str(path)}
            if record["session"] == session and "task" in record:
                found.setdefault(record["task"], []).append(record)
        return {task: sorted(records, key=lambda record: record["time"]) for task, records in found.items()}

    def failures(self, iteration: int) -> list[dict[str, Any]]:
        """Return all infrastructure failures of an iteration."""
        return [read_json(path) for path in sorted((self.folder / "failures").glob(f"{iteration:03d}-*.json"))]

    def sweep(self, machine: Machine) -> None:
        """Remove what killed runs left behind: temporary files and scratch (call it only with the lease held)."""
        if not machine.keep_scratch:
            shutil.rmtree(self._scratch_root(machine), ignore_errors=True)
        for path in self.folder.glob("claims/*.json"):  # of a task that was published just before the kill
            Claim(path).break_stale()
        for pattern in (".*", "*/.*", "*/*/.*"):
            for path in self.folder.glob(pattern):
                if _TEMPORARY.search(path.name) and path.is_file():
                    path.unlink(missing_ok=True)

    def scratch(self, machine: Machine, *names: str) -> Path:
        """Make and return a fresh scratch folder."""
        folder = self._scratch_root(machine) / "-".join([*names, unique_suffix()])
        with disk_errors(folder):
            folder.mkdir(parents=True)
        return folder

    def shared_scratch(self, machine: Machine, station: str, iteration: int) -> Path:
        """Return the scratch folder that the tasks of a station may share; it goes when the station is sealed."""
        return self._scratch_root(machine) / f"shared-{iteration:03d}-{station}"

    def drop_scratch(self, folder: Path, machine: Machine) -> None:
        """Remove a scratch folder, unless the machine profile keeps them."""
        if not machine.keep_scratch:
            shutil.rmtree(folder, ignore_errors=True)

    def _scratch_root(self, machine: Machine) -> Path:
        return Path(machine.scratch).expanduser() / self.uuid[:8] if machine.scratch else self.folder / "scratch"

    # --- time and the machine -----------------------------------------------------------------------------------------

    def save_machine(self, machine: Machine) -> None:
        """Leave the machine profile for workers that know only the folder."""
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
        # The last heartbeat of a killed driver is some seconds old; where there was work there was a driver.
        return Seconds(wall=_union([*alive, *work]), engine=_union(work), engine_total=total, n_tasks=len(spans))

    def _sessions(self, now: float) -> list[tuple[float, float]]:
        """Return when drivers were alive: from the text (start) and the heartbeat (end) of each session file."""
        spans = []
        for path in sorted((self.folder / "sessions").glob("*")):
            with contextlib.suppress(ValueError, OSError):
                spans.append((float(path.read_text()), path.stat().st_mtime))
        if spans:  # the session that asks is alive now
            spans[-1] = (spans[-1][0], max(spans[-1][1], now))
        return spans or [(0.0, now)]


def _union(spans: Sequence[tuple[float, float]]) -> float:
    """Return the length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        if end > max(start, reached):
            total += end - max(start, reached)
            reached = end
    return total
