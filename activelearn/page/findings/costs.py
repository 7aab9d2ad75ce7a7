"""Findings on costs: time outside the engines, idle slots, broken infrastructure, files and disk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from activelearn.page.findings.rule import Noted, Rule
from activelearn.page.seen import SeenCampaign
from activelearn.records import Seconds
from activelearn.units import duration

#: Less time than this is start-up.
_SHORT_S: Final = 60.0


def by_station(seen: SeenCampaign) -> dict[str, Seconds]:
    """Return where the time went, all iterations together, by station."""
    found: dict[str, Seconds] = {}
    for record in seen.records:
        for name, spent in record.seconds.items():
            have = found.get(name, Seconds(wall=0.0, engine=0.0, engine_total=0.0, n_tasks=0))
            found[name] = Seconds(
                wall=have.wall + spent.wall,
                engine=have.engine + spent.engine,
                engine_total=have.engine_total + spent.engine_total,
                n_tasks=have.n_tasks + spent.n_tasks,
            )
    return found


def _outside(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    spent = by_station(seen)
    wall, other = sum(one.wall for one in spent.values()), sum(one.other for one in spent.values())
    if wall >= _SHORT_S and 100.0 * other / wall > bound:
        most = max(spent, key=lambda name: spent[name].other)
        what = f"{duration(other)} of {duration(wall)} at the stations are outside the engines"
        yield Noted(f"{what}, most of it in {most} ({duration(spent[most].other)})", 100.0 * other / wall)


def _idle(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    spent = by_station(seen)
    busy = {name: one.engine_total / one.engine for name, one in spent.items() if one.engine >= _SHORT_S}
    known = seen.slots or max((math.ceil(value - 0.05) for value in busy.values()), default=1)
    for name, value in busy.items():
        if spent[name].n_tasks >= 2 * known and 100.0 * value / known < bound:
            what = f"{name}: {value:.1f} of {known} slots in use, while any was ({duration(spent[name].engine)})"
            yield Noted(what, 100.0 * value / known)


def _infrastructure(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    n = sum(record.infrastructure_failures for record in seen.records)
    tasks = sum(spent.n_tasks for spent in by_station(seen).values())
    if n and tasks and 100.0 * n / tasks > bound:
        yield Noted(f"{n} attempts at {tasks} tasks were lost to crashes, time-outs or nodes", 100.0 * n / tasks)


def _files(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    if seen.disk is not None and seen.disk.n_files > bound:
        yield Noted(f"{seen.disk.n_files} files in the folder", seen.disk.n_files)


def _size(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    if seen.disk is not None and seen.disk.n_bytes / 1e9 > bound:
        models = seen.disk.n_bytes_models / 1e9
        yield Noted(f"{seen.disk.n_bytes / 1e9:.2f} GB, plus {models:.2f} GB of models", seen.disk.n_bytes / 1e9)


def _free(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    if seen.disk is not None and seen.disk.n_bytes_free / 1e9 < bound:
        free = seen.disk.n_bytes_free / 1e9
        yield Noted(f"{free:.1f} GB are free on the disk of the folder", free)


RULES: Final = (
    Rule(
        "disk_free",
        2,
        "GB",
        "cost",
        "less than {bound} are free on the disk of the folder",
        "A full disk stops the run; nothing published is lost.",
        "free some space, or set `scratch` of the machine profile to another disk; `activelearn run` continues where "
        "it stopped",
        _free,
    ),
    Rule(
        "time_outside",
        20,
        "%",
        "cost",
        "more than {bound} of the time at the stations is outside the engines (of a minute or more)",
        "Planning, reading and waiting take time from labels and MD.",
        "fewer and longer walks (`n_walks`, `n_steps` of `explore.stages`); `label.ledger`, and `scratch` of the "
        "machine profile, on a fast disk; check the station named",
        _outside,
    ),
    Rule(
        "slots_idle",
        50,
        "%",
        "cost",
        "fewer than {bound} of the slots were in use at a station with two or more tasks per slot, while any was",
        "Slots wait for the longest task of the station.",
        "`activelearn run --slots` (or `slots` of the machine profile); more `n_walks` in `explore.stages`; "
        "`train.n_members` a multiple of the slots",
        _idle,
    ),
    Rule(
        "infrastructure",
        2,
        "%",
        "cost",
        "attempts lost to crashes, time-outs or nodes exceed {bound} of the tasks",
        "Each of them is repeated work.",
        "see failures/ in the folder; `walk_timeout_s`, `label_timeout_s` and `train_timeout_s` of the machine "
        "profile; `activelearn doctor` on a cluster",
        _infrastructure,
    ),
    Rule(
        "folder_files",
        2000,
        "files",
        "cost",
        "there are more than {bound} in the folder, without scratch",
        "Many files are slow to copy and to list on a network file system.",
        "products of closed iterations are packed by the next `activelearn run`; `keep_scratch: false` of the machine"
        " profile removes restart files of glasses",
        _files,
    ),
    Rule(
        "folder_size",
        1.0,
        "GB",
        "cost",
        "the folder has more than {bound}, without models and scratch",
        "It is copied and backed up as a whole.",
        "fewer `select.max_frames`; fewer `n_frames` of `glass.segments`; `glass.dynamics.keep_velocities: false`",
        _size,
    ),
)
