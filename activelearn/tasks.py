"""How any plan is carried out: chunks, slots, claims and attempts. Loop, glass and benchmarks alike.

A station is three functions: ``plan`` (pure, complete), ``run`` (one task; the only one that needs an engine) and
``gather`` (reads the published products and seals the result). Nothing here knows what a task computes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from activelearn.config import Machine
from activelearn.engines import process
from activelearn.engines.process import Slot, check_stop, is_stopping
from activelearn.errors import ActiveLearnError, EngineError, FolderHeld, Interrupted, TaskFailed, typed
from activelearn.records import Plan, Record, Task
from activelearn.store import Claim, Folder, Lease, disk_errors
from activelearn.store.files import HOST
from activelearn.store.folder import Published
from activelearn.store.locks import HEARTBEAT_S

log = logging.getLogger(__name__)
#: Identity of this process in the count of attempts: a new run starts counting at zero.
RUN_ID: Final = f"{os.getpid()}-{time.time():.6f}"
#: With this many infrastructure failures in a row and no success the node is at fault, not the tasks. Those of all
#: slots at once count as one, because slots share the sessions of their engines.
BAD_NODE: Final = 3
_WAIT_FOR_OTHERS_S: Final = 1.0
#: Interval at which the main thread, where Python runs the signal handlers, wakes up.
_SIGNALS_S: Final = 0.2
#: The phases of a campaign: an iteration, the final models, glasses and benchmarks of them.
PhaseName = Literal["loop", "final", "study"]
#: Carries out a task and publishes its product; the last argument is where it runs.
Run = Callable[[Task, Any, int, Slot], None]


@dataclass(frozen=True)
class Attempts:
    """Who retries a task that infrastructure killed, and since when its failures count.

    Parameters
    ----------
    run_id
        Failures of this run count: of this process, or of a submission to a LaunchPad.
    elsewhere
        A failed task is left pending, for a worker on another node if there is one. Default: retried here.
    avoid_host
        Skip what has failed on this node in this run.
    """

    run_id: str = field(default_factory=lambda: RUN_ID)
    elsewhere: bool = False
    avoid_host: bool = False


@dataclass(frozen=True)
class Batching:
    """How tasks are carried out several at a time, because starting one costs more than the task itself.

    It affects no result: a task gives the same product in any batch.

    Parameters
    ----------
    divide
        ``(pending tasks, store, iteration, n_slots) -> batches``, with every task in one of them.
    run
        ``(tasks, store, iteration, slot)``: carries out a batch in order and publishes each product. An error is that
        of the first task whose product is not there.
    """

    divide: Callable[[Sequence[Task], Any, int, int], list[tuple[Task, ...]]]
    run: Callable[[Sequence[Task], Any, int, Slot], None]


@dataclass(frozen=True)
class Station:
    """One verb of the loop, of glass production or of benchmarks.

    Parameters
    ----------
    name
        Its folder in an iteration.
    plan
        ``(settings, store, iteration) -> tasks``: pure, all tasks, in a fixed order; settings: the Campaign or Study.
    run
        ``(task, store, iteration, slot)``: carries out one task and publishes its product. None: the station has no
        tasks, for it needs no engine.
    gather
        ``(settings, store, iteration) -> record``: reads the products, publishes what belongs to the result, and
        returns the record that is sealed.
    phase
        The phase of a campaign that it belongs to.
    published
        Where the product of a task is: a file of the station's folder, or an entry of the label ledger.
    is_refusable
        Whether tasks that infrastructure keeps killing may be refused, with the user's recorded consent.
    runs_models
        Whether tasks run the models: their engines are what trains them and LAMMPS.
    batching
        How several tasks are carried out at a time. None: each by itself.
    asks_reference
        Whether tasks ask the reference, or another calculator. A station that does not begins by closing their
        sessions: a network stays in memory otherwise (0.4 GB with SevenNet) while models are trained.
    """

    name: str
    plan: Callable[[Any, Any, int], list[Task]]  # (Campaign, Store, int) or (Study, StudyStore, int)
    run: Run | None
    gather: Callable[[Any, Any, int], Record]
    phase: PhaseName = "loop"
    published: Published = "file"
    is_refusable: bool = False
    runs_models: bool = False
    batching: Batching | None = None
    asks_reference: bool = False


@contextmanager
def driving(place: Folder, *, wait: bool = False) -> Iterator[None]:
    """Hold the lease of a folder; engines end on SIGINT, SIGTERM and with the block.

    Raises
    ------
    FolderHeld
        Another run holds the folder (unless we `wait`), or has taken it over.
    Interrupted
        A signal came.
    """
    process.allow_engines()
    with Lease(place.folder, wait=wait, on_lost=process.stop_engines) as lease:  # noqa: SIM117 - signals inside
        with process.stopping_on_signals() as caught:
            try:
                place.settle()
                yield
            except ActiveLearnError:
                if lease.is_lost:
                    raise FolderHeld(
                        f"{place.folder}: was taken over by another run while this process was frozen - expected one "
                        f"driver per folder - see how it continues: activelearn status {typed(place.folder)}"
                    ) from None
                if not caught:
                    raise
                raise Interrupted(caught[0]) from None
            finally:
                process.close_sessions()


def frozen_plan(station: Station, store: Folder, iteration: int, machine: Machine) -> Plan:
    """Return the plan of a station, freezing it if necessary."""
    plan = store.find_plan(station.name, iteration)
    if plan is None:
        tasks = station.plan(store.settings(iteration), store, iteration)
        plan = store.freeze_plan(station.name, iteration, tasks, machine.n_chunks(station.name))
    return plan


def carry_out(
    station: Station,
    store: Folder,
    iteration: int,
    machine: Machine,
    *,
    chunk: int | None = None,
    attempts: Attempts | None = None,
) -> None:
    """Run the pending tasks of a plan (or of one chunk of it) on all slots of the machine.

    Returns when every task of the chunk is published, by this process or another, or left to others (see
    :class:`Attempts`).

    Raises
    ------
    TaskFailed
        A task failed on infrastructure too often.
    Interrupted
        The run is to stop; what was finished is published, of walks that share a process, too.
    """
    if store.is_sealed(station.name, iteration):
        return
    plan = frozen_plan(station, store, iteration, machine)
    if station.run is None:
        return
    if not station.asks_reference:
        process.close_sessions("reference")
    work = _Work(station, station.run, store, iteration, machine.at(station.name), attempts or Attempts())
    try:
        _work_off(work, plan, plan.tasks if chunk is None else plan.chunk(chunk))
    finally:
        store.end_journal()


def _work_off(work: _Work, plan: Plan, tasks: tuple[Task, ...]) -> None:
    """Run rounds over what is pending until nothing is: tasks that others have claimed are waited for."""
    station, store, machine = work.station, work.store, work.machine
    work.leave_what_failed()
    while pending := [task for task in store.pending(plan, tasks, by=station.published) if task.id not in work.left]:
        check_stop()
        done = work.done
        work.claimed_by_others = 0
        work.fill(pending)
        n_slots = work.n_slots = min(machine.n_slots, len(work.queue))
        with ThreadPoolExecutor(n_slots, thread_name_prefix=station.name) as pool:
            logs = store.logs()
            slots = [Slot(machine, logs, index) for index in range(n_slots)]
            _wait_for([pool.submit(work.serve, slot) for slot in slots])
        if work.claimed_by_others and work.done == done:
            time.sleep(_WAIT_FOR_OTHERS_S)


def _wait_for(slots: list[Future[None]]) -> None:
    """Wait until all slots are done; raise the error of the first that has one.

    Not ``result()`` alone: a lock without a time limit sleeps through a signal that another thread was given, or that
    came just before it, and a SIGTERM would wait for the end of a training.
    """
    while wait(slots, timeout=_SIGNALS_S).not_done:
        pass
    for slot in slots:
        slot.result()


@contextmanager
def turn(store: Folder, name: str) -> Iterator[None]:
    """Wait until no other process holds it, then hold it: a gather, a decision."""
    claim = store.turn(name)
    while not claim.acquire():
        check_stop()
        time.sleep(_WAIT_FOR_OTHERS_S)
    with _held(claim):
        yield


def gather(station: Station, store: Folder, iteration: int, machine: Machine) -> None:
    """Seal the result of a station whose tasks are all published; damaged products are made again first."""
    if store.is_sealed(station.name, iteration):
        return
    with turn(store, f"{iteration:03d}-{station.name}"):
        if not store.is_sealed(station.name, iteration):  # another worker may have been first
            _seal(station, store, iteration, machine)


def _seal(station: Station, store: Folder, iteration: int, machine: Machine) -> None:
    plan = frozen_plan(station, store, iteration, machine)
    while damaged := store.damaged_products(plan):
        log.warning("%d damaged product(s) of %s moved aside; they are recomputed", len(damaged), station.name)
        carry_out(station, store, iteration, machine)
    store.seal(station.name, iteration, station.gather(store.settings(iteration), store, iteration))
    store.drop_scratch(store.shared_scratch(machine, station.name, iteration), machine)


@dataclass
class _Work:
    """The queue that the slots of one chunk share."""

    station: Station
    run: Run
    store: Folder
    iteration: int
    machine: Machine
    attempts: Attempts
    queue: deque[tuple[Task, ...]] = field(default_factory=deque)
    left: set[str] = field(default_factory=set)  # to others
    n_slots: int = 1  # that take batches from it
    in_a_row: int = 0
    done: int = 0
    claimed_by_others: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    failure: BaseException | None = None

    def leave_what_failed(self) -> None:
        """Leave to others (or to the gather's verdict) what has failed too often, and here if they asked for it."""
        if not self.attempts.elsewhere:
            return
        failed = self.store.failures_of(self.station.name, self.iteration, self.attempts.run_id)
        for task, failures in failed.items():
            is_here = self.attempts.avoid_host and any(failure["host"] == HOST for failure in failures)
            if is_here or len(failures) >= self.machine.max_attempts:
                self.left.add(task)

    def fill(self, pending: Sequence[Task]) -> None:
        """Put pending tasks into the queue, in the batches of the station."""
        batching = self.station.batching
        batches: list[tuple[Task, ...]] = [(task,) for task in pending]
        if batching is not None:
            batches = batching.divide(pending, self.store, self.iteration, self.machine.n_slots)
        with self.lock:
            self.queue.extend(batches)

    def serve(self, slot: Slot) -> None:
        """Take batches until the queue is empty; the first error stops all slots after their present one."""
        while True:
            with self.lock:
                if self.failure is not None or is_stopping() or not self.queue:
                    break
                tasks = self.queue.popleft()
            try:
                self._attempt(tasks, slot)
            except BaseException as error:
                with self.lock:
                    self.failure = self.failure or error
                raise
        check_stop()

    def _attempt(self, tasks: Sequence[Task], slot: Slot) -> None:
        with contextlib.ExitStack() as claims:
            mine = [task for task in tasks if self._is_claimed(task, claims)]
            if not mine:
                return
            try:
                with disk_errors(self.store.folder):  # also an engine's input that cannot be written
                    if self.station.batching is None:
                        self.run(mine[0], self.store, self.iteration, slot)
                    else:
                        self.station.batching.run(mine, self.store, self.iteration, slot)
                with self.lock:
                    self.done, self.in_a_row = self.done + len(mine), 0
            except EngineError as error:
                self._divide_blame(mine, error)

    def _is_claimed(self, task: Task, claims: contextlib.ExitStack) -> bool:
        """Claim a task for as long as `claims` is held; return whether this process is to carry it out."""
        claim = self.store.claim(self.station.name, self.iteration, task)
        if not claim.acquire():
            self.claimed_by_others += 1
            return False
        claims.enter_context(_held(claim))
        return not self._is_published(task)

    def _is_published(self, task: Task) -> bool:
        return self.store.is_published(self.station.name, self.iteration, task, by=self.station.published)

    def _divide_blame(self, tasks: Sequence[Task], error: EngineError) -> None:
        """Count a failure for the task that caused it, the first unpublished one; those after it are merely pending."""
        check_stop()
        left = [task for task in tasks if not self._is_published(task)]
        with self.lock:
            if len(left) < len(tasks):
                self.done, self.in_a_row = self.done + len(tasks) - len(left), 0
        if left[1:]:
            self.fill(left[1:])
        if left:
            self._retry(left[0], error)

    def _retry(self, task: Task, error: EngineError) -> None:
        name, most = self.station.name, self.machine.max_attempts
        n_failures = self.store.record_failure(name, self.iteration, task, self.attempts.run_id, str(error))
        log.warning("%s %s failed (attempt %d of %d): %s", name, task.id, n_failures, most, error)
        if n_failures >= most and refuse(self.station, self.store, self.iteration, task, n_failures):
            return
        if self.attempts.elsewhere:
            self._leave(task, error)
            return
        if n_failures >= most:
            raise TaskFailed(
                f"{name} task {task.id} failed {n_failures} times on infrastructure; everything else is safe in "
                f"{self.store.folder} - fix the cause and run the same command again"
                f"{consent_needed(self.station, self.store)}. The last time:\n{error}"
            ) from error
        with self.lock:
            self.queue.append((task,))

    def _leave(self, task: Task, error: EngineError) -> None:
        with self.lock:
            self.left.add(task.id)
            self.in_a_row += 1
            is_bad = self.in_a_row >= BAD_NODE + self.n_slots - 1
        if is_bad:
            raise TaskFailed(
                f"{self.in_a_row} tasks of {self.station.name} in a row failed on {HOST}, so the rest is left to other "
                f"nodes - to see what is wrong there: activelearn machine --smoke. The last time:\n{error}"
            ) from error


def refuse(station: Station, store: Folder, iteration: int, task: Task, n_failures: int) -> bool:
    """Give up a task that infrastructure keeps killing, if the user consented; return whether."""
    if not station.is_refusable or not store.consent.note(f"{iteration:03d}-{station.name}-{task.id}"):
        return False
    meta = {"refused": f"infrastructure failed {n_failures} times", "started": 0.0, "finished": 0.0}
    store.publish_product(station.name, iteration, task.id, {}, meta)
    return True


def consent_needed(station: Station, store: Folder) -> str:
    """Return, in brackets, the consent with which a station's failing tasks are given up; empty if there is none."""
    return f" ({store.consent.next_step()})" if station.is_refusable else ""


class _Heartbeats:
    """One thread that keeps all claims of this process fresh."""

    def __init__(self) -> None:
        self.claims: set[Claim] = set()
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None

    def add(self, claim: Claim) -> None:
        with self.lock:
            self.claims.add(claim)
            if self.thread is None:
                self.thread = threading.Thread(target=self._beat, name="claim-heartbeat", daemon=True)
                self.thread.start()

    def remove(self, claim: Claim) -> None:
        with self.lock:
            self.claims.discard(claim)

    def _beat(self) -> None:
        while True:
            time.sleep(HEARTBEAT_S)
            with self.lock:
                claims = list(self.claims)
            for claim in claims:
                with contextlib.suppress(OSError):
                    claim.heartbeat()


_heartbeats: Final = _Heartbeats()


@contextmanager
def _held(claim: Claim) -> Iterator[None]:
    _heartbeats.add(claim)
    try:
        yield
    finally:
        _heartbeats.remove(claim)
        claim.release()
