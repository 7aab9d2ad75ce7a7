"""A look at a folder from outside: what its workers do now, how far they are, and when they may be done.

Records, plans and claims are read, and nothing is written: whose folder it is, and on which machine its workers are,
does not matter.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from activelearn import loop
from activelearn.check.left import AFTER, Ahead, BillAhead, ahead
from activelearn.ending import verdict
from activelearn.errors import typed
from activelearn.records import Iteration, Seconds
from activelearn.status import StationProgress, progress
from activelearn.store import Claim, Folder, Store, StudyStore
from activelearn.store.files import HOST
from activelearn.store.locks import STALE_AFTER_S, is_copied, namespace, process_started
from activelearn.units import duration

if TYPE_CHECKING:
    from rich.console import Group

#: Tasks of a station that are enough to tell how fast it goes, in slots.
_ROUNDS: Final = 1.0
#: Number of workers listed by name; of the others only the number is shown.
_MOST_WORKERS: Final = 16
#: Number of passes whose mean time predicts that of the next ones.
_PASSES: Final = 3


class ClaimHolder(NamedTuple):
    """Who holds the claim of a task."""

    where: str
    station: str
    task: str
    stage: str
    seconds: float
    is_silent: bool


class Left(NamedTuple):
    """Seconds that something may still take, and what that is taken from; None: not known."""

    seconds: float | None
    basis: str

    def __str__(self) -> str:
        return f"{duration(self.seconds)} ({self.basis})" if self.seconds else self.basis


@dataclass(frozen=True)
class Glance:
    """One look at a folder.

    Parameters
    ----------
    title
        What it is.
    state
        What comes next, or how it ended.
    driver
        Who drives it.
    last
        The last closed iteration, in words; "": none is closed.
    stations
        Those of the open iteration (or the study), with the time since their plan (s) and what is left.
    workers
        Who works at what.
    left
        Of the pass, of the passes after it at most, of what follows, and to the end.
    is_over
        Whether nothing is left to be done.
    """

    title: str
    state: str
    driver: str
    last: str
    stations: tuple[tuple[StationProgress, float, Left], ...]
    workers: tuple[ClaimHolder, ...]
    left: tuple[str, ...]
    is_over: bool

    def changes(self, before: Glance | None) -> list[str]:
        """Return a line for each thing that is other than in an earlier look; None: for each thing."""
        found = [self.last] if self.last and (before is None or self.last != before.last) else []
        known = {(p.iteration, p.station): p for p, _, _ in before.stations} if before is not None else {}
        found += [
            f"{_where(p)}  {p.station} {p.done}/{p.total}" + ("" if p.is_sealed else f"; left: {left}")
            for p, _, left in self.stations
            if known.get((p.iteration, p.station)) != p
        ]
        if before is None or self.state != before.state:
            found.append(self.state)
        return found


def look(store: Folder) -> Glance:
    """Return what a folder says now.

    Raises
    ------
    StoreError
        Its records are damaged.
    """
    records = store.iterations()
    now, open_stations = time.time(), progress(store)
    places = dict(_places(store))
    stations = tuple(
        (p, now - places[p.station].planned_at(p.station, p.iteration), _left_of(p, places[p.station], records, now))
        for p in open_stations
    )
    is_over = _is_over(store)
    return Glance(
        title=f"{'campaign' if isinstance(store, Store) else 'study'} {store.title}  {store.folder}",
        state=_state(store, is_over=is_over),
        driver=_driver(store, now, is_over=is_over),
        last=_last(records),
        stations=stations,
        workers=tuple(_workers(places, open_stations, now)),
        left=() if is_over else tuple(_left_lines(store, records, stations)),
        is_over=is_over,
    )


def _places(store: Folder) -> list[tuple[str, Folder]]:
    """Return the folder of each station that has a plan."""
    return [
        (name, folder)
        for folder, iteration in store.at_work()
        for name in loop.STATIONS
        if folder.find_plan(name, iteration) is not None
    ]


def _where(p: StationProgress) -> str:
    return "study" if loop.STATIONS[p.station].phase == "study" else f"iteration {p.iteration}"


def _is_over(store: Folder) -> bool:
    if isinstance(store, Store):
        return loop.next_phase(store) is None
    from activelearn import study

    return isinstance(store, StudyStore) and study.is_done(store, store.study)


def _state(store: Folder, *, is_over: bool) -> str:
    end = verdict(store) if isinstance(store, Store) and store.iterations() else None
    if is_over:
        return f"ended: {end.message}" if end is not None else "ended"
    stopped = store.submissions.stop_message()
    if stopped:
        return f"stopped: {stopped}"
    phase = loop.next_phase(store) if isinstance(store, Store) else None
    if phase is None:
        return "its glasses and benchmarks are open"
    what = {"loop": f"iteration {phase.iteration} is open", "final": "the loop has ended; the final models are open"}
    return what.get(phase.name, "the models are final; glasses and benchmarks are open")


def _last(records: Sequence[Iteration]) -> str:
    """Return the last closed iteration in words: what its walks found, its labels, its errors."""
    if not records:
        return ""
    record = records[-1]
    parts = []
    if (found := record.selection) is not None:
        candidates, failed = (100.0 * found.counts.share(kind) for kind in ("candidate", "failed"))
        parts.append(f"{', '.join(found.stages)}: {candidates:.1f} % candidates, {failed:.1f} % failed")
    labelling = record.labelling
    n_refused = sum(labelling.refused.values())
    parts.append(f"{labelling.labelled} labels" + (f" ({n_refused} refused)" if n_refused else ""))
    parts.append(f"{labelling.dataset_frames} training frames")
    if record.ensemble.force_rmse is not None:
        parts.append(f"held-out force RMSE {record.ensemble.force_rmse:.3f} eV/Å")
    return f"iteration {record.index} closed: {'; '.join(parts)}"


# --- who works --------------------------------------------------------------------------------------------------------


def _silent_s(holder: Mapping[str, Any], claim: Claim, now: float) -> float | None:
    """Return for how long nothing was heard of the holder of a lock, s; None: it is gone, or the lock is."""
    if "pid" not in holder or is_copied(holder.get("place"), claim.path):
        return None
    if holder.get("host") == HOST and holder.get("pids") == namespace():
        return 0.0 if process_started(int(holder["pid"])) == holder.get("started") else None
    try:
        return now - claim.path.stat().st_mtime
    except FileNotFoundError:  # released in the meantime
        return None


def _driver(store: Folder, now: float, *, is_over: bool) -> str:
    claim = Claim(store.folder / "lease.json")
    if (holder := claim.holder()) and (silent := _silent_s(holder, claim, now)) is not None:
        who = f"driven by process {holder.get('pid', '?')} on {holder.get('host', '?')}"
        since = duration(max(0.0, now - float(holder.get("since", now))))
        return f"{who} for {since}" + (f"; no sign of it for {duration(silent)}" if silent > STALE_AFTER_S else "")
    submission = store.submissions.current()
    if submission is not None:
        return f"submitted to {submission.launchpad}"
    if is_over:
        return ""
    how = "run" if isinstance(store, Store) else "glass"
    return f"not running; activelearn {how} ... --folder {typed(store.folder)} continues it"


def _workers(places: Mapping[str, Folder], stations: Sequence[StationProgress], now: float) -> list[ClaimHolder]:
    found = []
    for p in stations:
        if p.is_sealed or not (store := places[p.station]).folder.joinpath("claims").is_dir():
            continue
        for task in store.plan(p.station, p.iteration).tasks:
            claim = store.claim(p.station, p.iteration, task)
            if not (holder := claim.holder()):
                continue
            if (silent := _silent_s(holder, claim, now)) is not None:
                where = f"{holder.get('host', '?')} {holder.get('pid', '?')}"
                since = max(0.0, now - float(holder.get("since", now)))
                stage = str(task.parameters.get("stage", ""))
                found.append(ClaimHolder(where, p.station, task.id, stage, since, silent > STALE_AFTER_S))
    return found


# --- what is left -----------------------------------------------------------------------------------------------------


def _earlier(records: Sequence[Iteration], station: str) -> tuple[int, Seconds] | None:
    """Return the last closed iteration that had tasks at a station, and what they took."""
    found = ((r.index, r.seconds[station]) for r in reversed(records) if station in r.seconds)
    return next(((index, spent) for index, spent in found if spent.n_tasks > 0 and spent.wall > 0.0), None)


def _left_of(p: StationProgress, store: Folder, records: Sequence[Iteration], now: float) -> Left:
    """Return what is left of an open station: by its own tasks, or (where too few are done) by those of an earlier."""
    if p.is_sealed:
        return Left(0.0, "done")
    if p.done == p.total:
        return Left(0.0, "tasks done, being gathered")
    elapsed = store.seconds(p.station, p.iteration, [], now).wall  # a night without a driver is no work
    before = _earlier(records, p.station)
    if p.done >= max(2.0, _ROUNDS * _n_at_once(before)):
        done = f"from the {p.done} done in {duration(elapsed)}"
        return Left((p.total - p.done) * elapsed / p.done, done)
    if before is not None:
        index, spent = before
        each = spent.wall / spent.n_tasks
        if p.total * each > elapsed:
            return Left(p.total * each - elapsed, f"at {each:.3g} s a task, as in iteration {index}")
        if p.done:
            slower = f"slower than iteration {index}: {p.done} done in {duration(elapsed)}"
            return Left((p.total - p.done) * elapsed / p.done, slower)
        return Left(None, f"not known: longer than the {duration(p.total * each)} that iteration {index} suggests")
    return Left(None, "not known yet")


def _n_at_once(before: tuple[int, Seconds] | None) -> float:
    """Return how many tasks were at work at a time: a round of them must be done before their pace is known."""
    return 2.0 if before is None else before[1].engine_total / max(before[1].engine, 1.0e-9)


def _left_lines(
    store: Folder, records: Sequence[Iteration], stations: Sequence[tuple[StationProgress, float, Left]]
) -> list[str]:
    """Return what is left of the pass at work, of those after it at the most, of what follows, and in all."""
    phase = loop.next_phase(store) if isinstance(store, Store) else None
    if not isinstance(store, Store) or phase is None:
        return []
    bill = ahead(store)
    if phase.name == "loop":
        open_ = _left_of_pass(store, phase, records, {p.station: left for p, _, left in stations})
        parts = [open_, *_passes_left(store, phase.iteration, records, bill)]
    else:
        parts = [
            _at_work(p, since, left, bill) for p, since, left in stations if p.station in AFTER and not p.is_sealed
        ]
    seen = {p.station for p, _, _ in stations}
    later = [one for one in bill.after if one.station not in seen and (phase.name != "study" or one.station != "final")]
    lines = [f"left of {part.what}: {part.said}" for part in parts[:1] if phase.name == "loop"]
    lines += [f"then {part.what}: {part.said}" for part in parts[1:] if phase.name == "loop"]
    if later:
        lines.append(f"then {', '.join(map(str, later))}, as `check --plan` has it")
    return [*lines, _in_all(parts, later, bill)]


def _at_work(p: StationProgress, since: float, left: Left, bill: BillAhead) -> ToCome:
    """Return what is left of a station after the loop: by its own tasks, or else by the bill as long as that lasts."""
    billed = next((one.seconds for one in bill.after if one.station == p.station and not one.unknown), 0.0)
    seconds = billed - since if left.seconds is None and billed > since else left.seconds
    return ToCome(AFTER[p.station], seconds, left.basis)


class ToCome(NamedTuple):
    """What comes before the end: its name, the seconds that it may take (None: not known), and what says so."""

    what: str
    seconds: float | None
    basis: str

    @property
    def said(self) -> str:
        """The seconds with their basis."""
        return "not known yet" if self.seconds is None else f"{duration(self.seconds)} ({self.basis})"


def _left_of_pass(store: Store, phase: loop.Phase, records: Sequence[Iteration], known: Mapping[str, Left]) -> ToCome:
    """Return what is left of the open pass: by its stations at work, and those of earlier passes."""
    names = [s.name for s in phase.stations if s.name not in known and not store.is_sealed(s.name, phase.iteration)]
    to_come = {name: _earlier(records, name) for name in names}
    parts = [left.seconds for left in known.values()]
    parts += [None if before is None else before[1].wall for name, before in to_come.items() if name != "select"]
    later = ", ".join(name for name in to_come if name != "select")
    basis = f"{later} as in iteration {records[-1].index}" if later and records else "see its stations"
    seconds = None if None in parts else sum(part or 0.0 for part in parts)
    return ToCome(f"iteration {phase.iteration}", seconds, basis)


def _passes_left(store: Store, iteration: int, records: Sequence[Iteration], bill: BillAhead) -> list[ToCome]:
    """Return the passes after the open one, all that there may be."""
    n_left = store.latest_campaign().stop.max_iterations - iteration
    if n_left <= 0:
        return []
    walls = [sum(s.wall for s in r.seconds.values()) for r in records if r.selection is not None][-_PASSES:]
    pace, by = bill.one_pass, f"{', '.join(bill.sources)}, as `check --plan` has a pass over all stages"
    if walls:
        pace, by = sum(walls) / len(walls), f"the mean of the last {len(walls)}"
    what = f"at most {n_left} more pass{'es' if n_left > 1 else ''} (stop.max_iterations)"
    if pace is None:
        return [ToCome(what, None, "")]
    return [ToCome(what, n_left * pace, f"at {duration(pace)} each, {by}")]


def _in_all(parts: Sequence[ToCome], later: Sequence[Ahead], bill: BillAhead) -> str:
    """Return the sum of what is known, and what is in no sum."""
    known = sum(part.seconds or 0.0 for part in parts) + sum(one.seconds for one in later)
    unknown = [part.what for part in parts if part.seconds is None]
    unknown += [name for one in later for name in one.unknown]
    if not known:
        return f"to the end: not known yet ({', '.join(unknown) or 'almost done'})"
    at_most = "at most about" if len(parts) > 1 else "about"
    text = f"to the end: {at_most} {duration(known)}"
    text += f", and what is not known: {', '.join(unknown)}" if unknown else ""
    return text + ("; waiting in queues is not counted" if bill.has_queues else "")


# --- how it is shown --------------------------------------------------------------------------------------------------


def table(found: Glance) -> Group:
    """Return a look as a table for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    lines = [found.title, found.state, found.driver, found.last]
    parts: list[Text | Table] = [Text(line) for line in lines if line]
    if found.stations:
        stations = Table(box=None, padding=(0, 2, 0, 0))
        for name in ("station", "where", "done", "since", "left"):
            stations.add_column(name, justify="right" if name in {"done", "since"} else "left")
        for p, elapsed, left in found.stations:
            row = (p.station, _where(p), f"{p.done}/{p.total}", duration(elapsed), str(left))
            stations.add_row(*map(Text, row))
        parts.append(stations)
    if found.workers:
        workers = Table(box=None, padding=(0, 2, 0, 0))
        for name in ("worker", "station", "task", "stage", "since"):
            workers.add_column(name, overflow="fold")
        for one in found.workers[:_MOST_WORKERS]:
            silent = " (no sign of it since)" if one.is_silent else ""
            row = (one.where, one.station, one.task, one.stage, duration(one.seconds) + silent)
            workers.add_row(*map(Text, row))
        parts.append(workers)
        if len(found.workers) > _MOST_WORKERS:
            parts.append(Text(f"and {len(found.workers) - _MOST_WORKERS} more"))
    return Group(*parts, *(Text(line) for line in found.left))
