"""What a begun campaign still takes after its open pass: by the bill of ``check --plan``, for ``activelearn watch``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Final

from activelearn.check import cost, speeds
from activelearn.check.cost import Bill, Item
from activelearn.config import Machine, load_machine
from activelearn.errors import ActiveLearnError
from activelearn.store import Store
from activelearn.units import duration

#: Items of a bill after the loop, by the station that they are of; all others are benchmarks.
_STATIONS: Final = {
    "final": "final",
    "final compression": "final",
    "glass": "glass",
    "glass of others": "glass",
}
#: Stations after the loop as they are named to the user.
AFTER: Final = {"final": "final models", "glass": "glasses", "benchmark": "benchmarks"}


@dataclass(frozen=True)
class Ahead:
    """A station after the loop that has not begun.

    Parameters
    ----------
    station
        ``final``, ``glass`` or ``benchmark``.
    seconds
        Wall-clock time of what is known of it, s.
    sources
        Where that comes from (:class:`activelearn.check.cost.Item`).
    unknown
        Items whose time nobody has declared or measured.
    """

    station: str
    seconds: float
    sources: tuple[str, ...]
    unknown: tuple[str, ...]

    def __str__(self) -> str:
        """Return it in words, such as ``glasses 12 min (declared)``."""
        name, lacking = AFTER[self.station], ", ".join(self.unknown)
        if not self.sources:
            return f"{name} (not known: {lacking})" if lacking else f"{name} (moments)"
        known = f"{name} {duration(self.seconds)} ({', '.join(self.sources)}"
        return f"{known}; not known: {lacking})" if lacking else f"{known})"


@dataclass(frozen=True)
class BillAhead:
    """What the bill says of a campaign that runs.

    Parameters
    ----------
    one_pass
        Wall-clock time of a pass over all stages, s; None: not known.
    sources
        Where that comes from.
    after
        Stations after the loop that have anything to do.
    has_queues
        Whether its jobs wait in queues, which no bill counts.
    """

    one_pass: float | None = None
    sources: tuple[str, ...] = ()
    after: tuple[Ahead, ...] = ()
    has_queues: bool = False


def ahead(store: Store) -> BillAhead:
    """Return what the bill says of what is ahead; nothing where there is none.

    Speeds that no station of the campaign has measured are those of the machine profile of its last run, unscaled: what
    looks on may be another machine.
    """
    try:
        return _ahead(store.folder, len(store.iterations()), store.latest_campaign().sha256)
    except (ActiveLearnError, ArithmeticError):  # such as of a campaign that has no systems but those of its ledger
        return BillAhead()


@lru_cache(maxsize=4)
def _ahead(folder: Path, n_closed: int, sha256: str) -> BillAhead:  # noqa: ARG001 - what a bill depends on
    store = Store.open(folder)
    path, campaign = folder / "machine.yaml", store.latest_campaign()
    machine = load_machine(str(path)) if path.is_file() else Machine()
    bill = _whole(cost.estimate(campaign, machine, store), store, machine)
    grouped: dict[str, list[Item]] = {}
    for item in (*bill.final, *bill.apart):
        grouped.setdefault(_STATIONS.get(item.station, "benchmark"), []).append(item)
    after = tuple(_of(name, grouped[name], machine.at(name).n_slots) for name in AFTER if name in grouped)
    known = [_wall(item, machine.at(item.station.partition(" ")[0]).n_slots) for item in bill.one_pass]
    one_pass = None if None in known else sum(seconds or 0.0 for seconds in known)
    return BillAhead(one_pass, _sources(bill.one_pass), after, bool(machine.places))


def _whole(bill: Bill, store: Store, machine: Machine) -> Bill:
    """Return a bill with the default speeds where the profile declares none."""
    filled, said = speeds.filled(machine, store.latest_campaign())
    return speeds.with_defaults(bill, cost.estimate(store.latest_campaign(), filled, store)) if said else bill


def _of(station: str, items: Sequence[Item], n_slots: int) -> Ahead:
    known = [item for item in items if item.seconds is not None]
    seconds = sum(_wall(item, n_slots) or 0.0 for item in known)
    unknown = tuple(item.station for item in items if item.seconds is None)
    return Ahead(station, seconds, _sources(known), unknown)


def _wall(item: Item, n_slots: int) -> float | None:
    """Return the wall-clock time of the tasks of an item, s: in rounds, for a task runs on one slot."""
    if item.seconds is None or item.n_tasks == 0:
        return item.seconds
    return ceil(item.n_tasks / n_slots) * item.seconds / item.n_tasks


def _sources(items: Iterable[Item]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item.source for item in items if item.seconds))
