"""Store: the layout of a campaign folder, and what may be asked of it.

::

    campaign/000.yaml ...        resolved campaigns; a later one was accepted with --accept-changes
    machine.yaml                 the machine profile of the last run (not hashed)
    iter-000/campaign.yaml       the campaign this iteration is sealed to
    iter-000/reference.json      fingerprint of what labels
    iter-000/<station>/plan.json, <task>.npz, result.json
    iter-000/iteration.json      the record of the iteration
    dataset/iter-000.npz, held-out-000.npz
    labels/*.seg   models/*.pb   claims/   failures/   sessions/   lease.json   scratch/
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from activelearn.config import Campaign, Machine, parse_campaign
from activelearn.errors import ConfigError, StoreError
from activelearn.frames import Frames, dataset_sha256, pack, unpack
from activelearn.records import Iteration, Plan, Record, Seconds, Task
from activelearn.store.files import (
    disk_errors,
    file_sha256,
    is_whole,
    pack_files,
    publish,
    publish_json,
    publish_npz,
    read_json,
    read_meta,
    read_npz,
    unique_suffix,
    unpack_file,
)
from activelearn.store.ledger import Ledger, LedgerWriter
from activelearn.store.locks import Claim

R = TypeVar("R", bound=Record)
#: Product names of label tasks carry the content address; the ledger is asked instead of the folder.
LABEL: Final = "label"
#: How the names of our temporary files end: host-pid-uuid (see :func:`~activelearn.store.files.unique_suffix`).
_TEMPORARY: Final = re.compile(r"-\d+-[0-9a-f]{12}$")


class Store:
    """One campaign folder.

    Parameters
    ----------
    folder
        Its path; made absolute, for FireWorks changes the working directory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._ledger: Ledger | None = None
        self._writer: LedgerWriter | None = None
        self._campaigns: dict[int, Campaign] = {}
        self._plans: dict[Path, Plan] = {}
        self._records: dict[int, Iteration] = {}
        self._results: dict[Path, Record] = {}
        self._n_frames: dict[int, int] = {}
        self._opening = threading.Lock()  # slots are threads: one ledger and one segment for all of them

    # --- opening ----------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, folder: Path, campaign: Campaign) -> Store:
        """Start a campaign in `folder` (or open it if the same campaign is there)."""
        store = cls(folder)
        if not store.campaign_files():  # the uuid first: where there is a campaign there is a uuid, whenever we die
            publish(store.folder / "campaign" / "uuid", uuid.uuid4().hex.encode())
            publish(store.folder / "campaign" / "000.yaml", campaign.to_yaml().encode())
        return store

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Open an existing campaign folder.

        Raises
        ------
        ConfigError
            There is no campaign in `folder`.
        """
        store = cls(folder)
        if not store.campaign_files():
            raise ConfigError(
                f"{folder}: no campaign here - wanted a campaign folder - start one with: activelearn run CAMPAIGN "
                f"--folder {folder}"
            )
        return store

    @property
    def uuid(self) -> str:
        """Identity of the campaign, the same wherever the folder is moved."""
        return (self.folder / "campaign" / "uuid").read_text()

    def campaign_files(self) -> list[Path]:
        """Return the resolved campaigns, oldest first."""
        return sorted((self.folder / "campaign").glob("*.yaml"))

    def latest_campaign(self) -> Campaign:
        """Return the campaign that the next iteration will be sealed to."""
        return _read_campaign(self.campaign_files()[-1])

    def accept(self, campaign: Campaign) -> None:
        """Make `campaign` the one of all iterations that are not open yet (call it only with the lease held)."""
        opened = self.opened_iterations()
        for path in (*self.folder.glob("iter-*/reference.json"), *self.folder.glob("iter-*/sel.json")):
            if int(path.parent.name[5:]) not in opened:  # left by a run that died while it opened an iteration
                path.unlink(missing_ok=True)
        publish(self.folder / "campaign" / f"{len(self.campaign_files()):03d}.yaml", campaign.to_yaml().encode())

    def save_machine(self, machine: Machine) -> None:
        """Leave the machine profile for workers that know only the folder."""
        temporary = self.folder / f".machine.{unique_suffix()}"
        with disk_errors(self.folder):
            temporary.write_text(json.dumps(machine.model_dump(mode="json"), indent=1))
            os.replace(temporary, self.folder / "machine.yaml")  # a profile is not a product: the last one counts

    # --- iterations and stations ------------------------------------------------------------------------------------

    def iteration_folder(self, iteration: int) -> Path:
        """Return the folder of an iteration."""
        return self.folder / f"iter-{iteration:03d}"

    def station_folder(self, station: str, iteration: int) -> Path:
        """Return the folder of a station in an iteration."""
        return self.iteration_folder(iteration) / station

    def opened_iterations(self) -> list[int]:
        """Return the iterations that have been opened, in order."""
        return sorted(int(path.parent.name[5:]) for path in self.folder.glob("iter-*/campaign.yaml"))

    def open_iteration(self, iteration: int, campaign: Campaign) -> None:
        """Seal an iteration to `campaign` (the first to do so wins)."""
        publish(self.iteration_folder(iteration) / "campaign.yaml", campaign.to_yaml().encode())

    def campaign(self, iteration: int) -> Campaign:
        """Return the campaign that `iteration` is sealed to."""
        if iteration not in self._campaigns:
            self._campaigns[iteration] = _read_campaign(self.iteration_folder(iteration) / "campaign.yaml")
        return self._campaigns[iteration]

    def rng(self, iteration: int, station: str, task: str = "") -> np.random.Generator:
        """Return the random numbers of one task: a function of (campaign random_seed, iteration, station, task)."""
        name = f"{self.campaign(iteration).random_seed}/{iteration}/{station}/{task}"
        return np.random.default_rng(np.frombuffer(hashlib.sha256(name.encode()).digest(), dtype=np.uint32).tolist())

    def chosen_file(self, iteration: int) -> Path:
        """Return the file of the frames that are to be labelled in an iteration, in the order of the data set."""
        return self.iteration_folder(iteration) / "chosen.npz"

    def sel(self) -> tuple[int, ...]:
        """Return the neighbour capacities by type that the campaign fixed when it began."""
        return tuple(read_json(self.iteration_folder(0) / "sel.json"))

    def fingerprint(self, iteration: int) -> dict[str, Any]:
        """Return the identity of the reference that labels in an iteration; its ``sha256`` goes into every key."""
        found = read_json(self.iteration_folder(iteration) / "reference.json")
        assert isinstance(found, dict)
        return found

    # --- plans ------------------------------------------------------------------------------------------------------

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

    # --- products ---------------------------------------------------------------------------------------------------

    def product(self, station: str, iteration: int, task_id: str) -> Path:
        """Return the path of a task's product."""
        return self.station_folder(station, iteration) / f"{task_id}.npz"

    def is_published(self, station: str, iteration: int, task: Task, *, look_again: bool = False) -> bool:
        """Return whether the task's product stands (for labels: in the ledger, or refused by the user's consent).

        With `look_again`, labels that others have published meanwhile are seen too.
        """
        if station == LABEL and look_again:
            self.ledger.refresh()
        if station == LABEL and str(task.parameters["key"]) in self.ledger:
            return True
        return self.product(station, iteration, task.id).is_file()

    def pending(self, plan: Plan, tasks: Iterable[Task] | None = None) -> list[Task]:
        """Return the tasks of a plan that are not published, in order; none once its result is sealed."""
        if self.is_sealed(plan.station, plan.iteration):
            return []
        if plan.station == LABEL:
            self.ledger.refresh()
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

    def pack_products(self, iteration: int) -> None:
        """Pack the products of each station of a closed iteration into one file: the file budget of long campaigns.

        A kill in between leaves both, and the next run goes on from there.
        """
        if not self.iteration_file(iteration).is_file():
            return
        for plan_file in sorted(self.iteration_folder(iteration).glob("*/plan.json")):
            folder = plan_file.parent
            products = sorted(folder.glob("*.npz"))
            if products and self.is_sealed(folder.name, iteration):
                publish(folder / "products.zip", pack_files(products))
                for path in products:
                    path.unlink()

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

    def publish_model(self, file: Path) -> tuple[str, str]:
        """Publish a model file under its checksum; return (path relative to the folder, sha256)."""
        sha = file_sha256(file)
        target = self.folder / "models" / f"{sha[:16]}{file.suffix}"
        if not target.is_file():
            publish(target, file.read_bytes())
        return str(target.relative_to(self.folder)), sha

    # --- sealed results ---------------------------------------------------------------------------------------------

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
        """Return a sealed result."""
        path = self.sealed(station, iteration)
        found = self._results.get(path)
        if not isinstance(found, model):
            found = model.model_validate(read_json(path))
            self._results[path] = found  # sealed: read once
        return found

    def seal_frames(self, path: Path, parts: Sequence[Frames], extra: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Publish a list of Frames (a selection, a data set), and arrays that :func:`read_array` finds beside them."""
        publish_npz(path, {**pack(parts), **(extra or {})}, {})

    def frames(self, path: Path) -> list[Frames]:
        """Read a list of Frames."""
        return unpack(read_npz(path)[0])

    # --- data set ---------------------------------------------------------------------------------------------------

    def dataset_file(self, iteration: int) -> Path:
        """Return the file of the training frames that `iteration` added."""
        return self.folder / "dataset" / f"iter-{iteration:03d}.npz"

    def held_out_file(self, iteration: int) -> Path:
        """Return the file of the validation frames that the initial data of an iteration set aside."""
        return self.folder / "dataset" / f"held-out-{iteration:03d}.npz"

    def held_out(self, up_to: int) -> list[Frames]:
        """Return the validation set: fixed, but for the systems that were added to a running campaign."""
        files = [self.held_out_file(i) for i in range(up_to + 1)]
        return [part for file in files if file.is_file() for part in self.frames(file)]

    def n_training_frames(self, iteration: int) -> int:
        """Return how many training frames an iteration added."""
        return self._count(iteration) - (self._count(iteration - 1) if iteration > 0 else 0)

    def _count(self, iteration: int) -> int:
        if iteration not in self._n_frames:
            self._n_frames[iteration] = int(read_json(self.sealed(LABEL, iteration))["dataset_frames"])
        return self._n_frames[iteration]

    def dataset(self, up_to: int) -> list[Frames]:
        """Return all training frames of the iterations 0 ... `up_to`, in the order (iteration, walk, step)."""
        return [part for i in range(up_to + 1) for part in self.frames(self.dataset_file(i))]

    def dataset_summary(self, up_to: int) -> tuple[int, str]:
        """Return the number of training frames and the checksum of the data set."""
        parts = self.dataset(up_to)
        return sum(len(part) for part in parts), dataset_sha256(parts)

    # --- labels -----------------------------------------------------------------------------------------------------

    @property
    def ledger(self) -> Ledger:
        """The label ledger of this campaign (its own, or the shared one that the campaign names)."""
        with self._opening:
            if self._ledger is None:
                self._ledger = Ledger(self._ledger_folder())
                self._ledger.refresh()
            return self._ledger

    @property
    def ledger_writer(self) -> LedgerWriter:
        """The segment that this process appends to."""
        with self._opening:
            if self._writer is None:
                self._writer = LedgerWriter(self._ledger_folder(), self.uuid[:8])
            return self._writer

    def end_segment(self) -> None:
        """Close the segment that this process appends to; the next label opens a new one."""
        if self._writer is not None:
            self._writer.close()

    def compact_labels(self) -> None:
        """Merge this campaign's segments; only between stations, when nobody is writing."""
        self.end_segment()
        self.ledger.compact(self.uuid[:8])

    def _ledger_folder(self) -> Path:
        shared = self.latest_campaign().label.ledger
        return Path(shared).expanduser().absolute() if shared else self.folder / "labels"

    # --- claims, attempts, scratch ----------------------------------------------------------------------------------

    def claim(self, station: str, iteration: int, task: Task) -> Claim:
        """Return the (not yet acquired) claim of a task."""
        return Claim(self.folder / "claims" / f"{iteration:03d}-{station}-{task.id}.json")

    def record_failure(self, station: str, iteration: int, task: Task, session: str, message: str) -> int:
        """Record an infrastructure failure; return how often the task has failed in this session."""
        folder = self.folder / "failures"
        name = f"{iteration:03d}-{station}-{task.id}"
        record = {"session": session, "time": time.time(), "message": message}
        publish_json(folder / f"{name}.{unique_suffix()}.json", record)
        return sum(read_json(path)["session"] == session for path in folder.glob(f"{name}.*.json"))

    def failures(self, iteration: int) -> list[dict[str, Any]]:
        """Return all infrastructure failures of an iteration."""
        return [read_json(path) for path in sorted((self.folder / "failures").glob(f"{iteration:03d}-*.json"))]

    def consent(self, text: str) -> None:
        """Record that the user allows tasks to be refused after infrastructure failures."""
        publish_json(self.folder / "consent.json", {"text": text, "time": time.time()})

    @property
    def has_consent(self) -> bool:
        """Whether the user allows tasks to be refused after infrastructure failures."""
        return (self.folder / "consent.json").is_file()

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

    def sweep(self, machine: Machine) -> None:
        """Remove what killed runs left behind: temporary files and scratch (call it only with the lease held)."""
        if not machine.keep_scratch:
            shutil.rmtree(self._scratch_root(machine), ignore_errors=True)
        for path in self.folder.glob("claims/*.json"):  # of a task that was published just before the kill
            Claim(path).break_stale()
        for iteration in self.opened_iterations():
            self.pack_products(iteration)
        for pattern in (".*", "*/.*", "*/*/.*"):
            for path in self.folder.glob(pattern):
                if _TEMPORARY.search(path.name) and path.is_file():
                    path.unlink(missing_ok=True)

    # --- time and records -------------------------------------------------------------------------------------------

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

    def iteration_file(self, iteration: int) -> Path:
        """Return the path of the record of an iteration."""
        return self.iteration_folder(iteration) / "iteration.json"

    def iterations(self) -> list[Iteration]:
        """Return the records of all closed iterations, in order."""
        for i in self.opened_iterations():
            if i not in self._records and self.iteration_file(i).is_file():
                self._records[i] = Iteration.model_validate(read_json(self.iteration_file(i)))  # closed: read once
        return [self._records[i] for i in sorted(self._records)]


def _read_campaign(path: Path) -> Campaign:
    return _parsed(path.read_text(encoding="utf-8"))


@lru_cache(maxsize=8)
def _parsed(text: str) -> Campaign:
    """Return a resolved campaign; each Firework asks for it anew, and it is the same all along."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return parse_campaign(yaml.load(text, Loader=loader), where="a campaign of the folder")  # both loaders are safe


def _union(spans: Sequence[tuple[float, float]]) -> float:
    """Return the length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        if end > max(start, reached):
            total += end - max(start, reached)
            reached = end
    return total
