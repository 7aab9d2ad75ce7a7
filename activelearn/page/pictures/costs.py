"""The picture of costs: where the time went, iteration by iteration and station by station."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from activelearn.page.markup import Figure, Numbers
from activelearn.page.seen import SeenCampaign
from activelearn.page.svg import N_COLOURS, Axis, Plot, axis_of
from activelearn.units import duration

#: Stations that took less than this fraction of the longest iteration are not drawn.
_SLIVER: Final = 1.0e-3


def figures(seen: SeenCampaign) -> Iterator[Figure]:
    """Yield the figure."""
    if not seen.records:
        return
    walls = np.array([sum(s.wall for s in record.seconds.values()) for record in seen.records])
    unit, size = next(
        (u, s) for u, s in (("h", 3600.0), ("min", 60.0), ("s", 1.0)) if walls.max() >= 2.0 * s or s == 1.0
    )
    stations = list(dict.fromkeys(name for record in seen.records for name in record.seconds))
    y = axis_of(f"time at the stations ({unit})", [walls / size], zero=True)
    first, last = seen.records[0].index, seen.records[-1].index
    plot = Plot(Axis("iteration", first - 0.6, last + 0.6), y, "Where the time went", width=1000.0)
    rows = []
    for record in seen.records:
        low = 0.0
        for name, spent in record.seconds.items():
            style = f"f{stations.index(name) % N_COLOURS}"
            busy = spent.engine_total / spent.engine if spent.engine > 0.0 else 0.0
            rows.append(
                (record.index, name, spent.wall, spent.engine, spent.other, spent.engine_total, busy, spent.n_tasks)
            )
            told = (
                f"iteration {record.index}, {name}: {duration(spent.wall)}, {spent.n_tasks} tasks, {busy:.1f} in "
                "parallel"
            )
            for part, more, what in (
                (min(spent.engine, spent.wall), "", "in the engines"),
                (spent.other, " outside", "outside them"),
            ):
                if part >= _SLIVER * walls.max():
                    where = (record.index - 0.4, record.index + 0.4), (low / size, (low + part) / size)
                    plot.box(*where, f"{style}{more}", f"{told}; {duration(part)} {what}")
                    plot.name(name, style)
                low += part
    columns = (
        "iteration",
        "station",
        "wall (s)",
        "engines (s)",
        "outside (s)",
        "engine work (s)",
        "tasks at a time",
        "tasks",
    )
    yield Figure(
        name="time",
        title="Where the time went",
        caption="Wall-clock time at the stations of each iteration; pale: outside the engines (planning, reading, "
        "waiting). Time between two runs is not counted.",
        picture=plot.svg(),
        numbers=Numbers("time", columns, rows),
        is_wide=True,
    )
