"""What asynchrony would save: recorded tasks of finished campaigns, scheduled on other numbers of slots.

``python tests/performance/asynchrony.py FOLDER...`` reads start and end of every task of the loop from campaign folders
(products and ledger have them) and puts the durations on 1 to 32 slots, each task in the order of its plan on the slot
that is free first, three times:

* *stations*: as the loop does it, a station begins when all tasks of the one before it have ended;
* *labels at once*: a label begins when its own walk has ended, a training when all labels are in. A bound from below,
  for the diverse picks of a pass need all its walks;
* *one pass behind*: in addition, a pass walks with the previous models while those of the last labels are trained.
  A bound from below on another algorithm: what such walks find is found by models that know less.

Plans, gathers and what engines take to start on a slot that had none are left out: they are the same three times. A
task takes as long as it did where it was recorded, on however many cores.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from activelearn import label
from activelearn.records import Task
from activelearn.store import Store

SLOTS = (1, 2, 4, 8, 16, 32)
#: A pass in this order; those of iteration 0 stand where they are.
STATIONS = ("prepare", "initial", "explore", "label", "train")


@dataclass(frozen=True)
class Span:
    """One task that took time.

    Parameters
    ----------
    iteration, station, task
        What.
    seconds
        How long.
    walk
        Of a label: the walk of the same iteration that its frame comes from, if that is known.
    """

    iteration: int
    station: str
    task: str
    seconds: float
    walk: str = ""

    @property
    def group(self) -> tuple[int, int]:
        """Iteration and station, in the order of the loop."""
        return self.iteration, STATIONS.index(self.station)


def spans_of(folder: Path) -> list[Span]:
    """Return the tasks of the loop that took time, in the order of the plans."""
    store = Store.open(folder)
    found = []
    for iteration in store.opened_iterations():
        for station in STATIONS:
            if station not in store.stations_of(iteration) or not store.is_sealed(station, iteration):
                continue
            for task in store.plan(station, iteration).tasks:
                started, finished = _span(store, station, iteration, task)
                if finished > max(started, 0.0):
                    walk = _walk(store, iteration, task) if station == "label" else ""
                    found.append(Span(iteration, station, task.id, finished - started, walk))
    return found


def _span(store: Store, station: str, iteration: int, task: Task) -> tuple[float, float]:
    """Return the Unix times of start and end; equal if the product was there before, such as a label of a ledger."""
    if station != "label":
        meta = store.read_meta(station, iteration, task.id)
        return meta["started"], meta["finished"]
    key = str(task.parameters["key"])
    started, finished = store.ledger.span(key) if key in store.ledger else (0.0, 0.0)
    return (started, finished) if finished > store.planned_at("label", iteration) else (0.0, 0.0)


def _walk(store: Store, iteration: int, task: Task) -> str:
    part = label._chosen(store, iteration).parts[task.parameters["part"]]
    return str(part.origin["walk"][task.parameters["frame"]])


def groups(spans: Sequence[Span]) -> list[list[int]]:
    """Return the numbers of the tasks of each station of each iteration, in the order of the loop."""
    found: dict[tuple[int, int], list[int]] = {}
    for i, span in enumerate(spans):
        found.setdefault(span.group, []).append(i)
    return [found[key] for key in sorted(found)]


def by_stations(spans: Sequence[Span]) -> list[set[int]]:
    """Return what each task waits for, where every station waits for the one before it."""
    waits: list[set[int]] = [set() for _ in spans]
    ordered = groups(spans)
    for before, now in pairwise(ordered):
        for i in now:
            waits[i] = set(before)
    return waits


def labels_at_once(spans: Sequence[Span]) -> list[set[int]]:
    """Return the same where a label waits for its own walk alone."""
    waits = by_stations(spans)
    walks = {(s.iteration, s.task): i for i, s in enumerate(spans) if s.station == "explore"}
    for i, span in enumerate(spans):
        if span.station == "label" and (span.iteration, span.walk) in walks:
            waits[i] = {walks[span.iteration, span.walk]}
        if span.station == "train":  # walks without a label end before it, too
            waits[i] |= {j for j, s in enumerate(spans) if s.iteration == span.iteration and s.station == "explore"}
    return waits


def one_pass_behind(spans: Sequence[Span]) -> list[set[int]]:
    """Return the same where a pass does not wait for the training of the pass before it, but for that of two before."""
    waits = labels_at_once(spans)
    for i, span in enumerate(spans):
        if span.station == "explore" and span.iteration > 1:
            mine = [s for s in spans if s.iteration < span.iteration]
            last = max(
                (s.iteration for s in mine if s.station == "train" and s.iteration < span.iteration - 1), default=0
            )
            waits[i] = {
                j
                for j, s in enumerate(spans)
                if (s.station == "train" and s.iteration <= last)
                or (s.station in ("explore", "label") and s.iteration == span.iteration - 1)
            }
        if span.station == "train":  # of one ensemble after the other
            waits[i] |= {j for j, s in enumerate(spans) if s.station == "train" and s.iteration < span.iteration}
    return waits


def makespan(seconds: Sequence[float], waits: Sequence[set[int]], n_slots: int) -> float:
    """Return when the last task ends, s: of those that may run the first in order takes the slot that is free first."""
    left = [set(one) for one in waits]
    followers: list[list[int]] = [[] for _ in seconds]
    for i, one in enumerate(waits):
        for j in one:
            followers[j].append(i)
    ready = [i for i, one in enumerate(left) if not one]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < n_slots:
            i = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds[i], i))
        now, i = heapq.heappop(running)
        for j in followers[i]:
            left[j].discard(i)
            if not left[j]:
                heapq.heappush(ready, j)
    return now


def table(spans: Sequence[Span]) -> list[str]:
    """Return the times on each number of slots, in Markdown."""
    seconds = [span.seconds for span in spans]
    ways = {"stations": by_stations, "labels at once": labels_at_once, "one pass behind": one_pass_behind}
    out = ["| slots | " + " | ".join(f"{name}, s (saved)" for name in ways) + " |", "|---" * (len(ways) + 1) + "|"]
    for n in SLOTS:
        found = [makespan(seconds, way(spans), n) for way in ways.values()]
        out.append(f"| {n} | " + " | ".join(f"{t:.0f} ({100 * (1 - t / found[0]):.0f} %)" for t in found) + " |")
    return out


if __name__ == "__main__":
    for name in sys.argv[1:]:
        recorded = spans_of(Path(name))
        print(f"\n{name}: {len(recorded)} tasks, {sum(s.seconds for s in recorded):.0f} s of one slot\n")
        print("\n".join(table(recorded)))
