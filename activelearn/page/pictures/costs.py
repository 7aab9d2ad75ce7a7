"""The picture of costs: where the time went, iteration by iteration and station by station."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from activelearn.page.markup import Figure, Numbers
from activelearn.page.seen import SeenCampaign
from activelearn.page.svg import N_COLOURS, Axis, Plot, axis_of, stacked
from activelearn.records import Seconds
from activelearn.units import duration

#: Stations that took less than this fraction of the longest iteration are not drawn.
_SLIVER: Final = 1.0e-3
_NONE: Final = Seconds(wall=0.0, engine=0.0, engine_total=0.0, n_tasks=0)


def figures(seen: SeenCampaign) -> Iterator[Figure]:
    """Yield the figure."""
    if not seen.records:
        return
    stations = list(dict.fromkeys(name for record in seen.records for name in record.seconds))
    x = Axis("iteration", seen.records[0].index - 0.6, seen.records[-1].index + 0.6)
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
    rows = [
        (record.index, name, s.wall, s.engine, s.other, s.engine_total, _at_a_time(s), s.n_tasks)
        for record in seen.records
        for name, s in record.seconds.items()
    ]
    below = "" if seen.slots is None else f" (of {seen.slots} slots in the last run)"
    yield Figure(
        name="time",
        title="Where the time went",
        caption="Wall-clock time at the stations of each iteration; pale: outside the engines (planning, reading, "
        f"waiting). Below: tasks at a time, while any was at work{below}. Time between two runs is not counted.",
        picture=stacked(_times(seen, stations, x), _in_parallel(seen, stations, x)),
        numbers=Numbers("time", columns, rows),
        is_wide=True,
    )


def _at_a_time(spent: Seconds) -> float:
    """Return how many tasks were at work on average, while any was."""
    return spent.engine_total / spent.engine if spent.engine > 0.0 else 0.0


def _times(seen: SeenCampaign, stations: list[str], x: Axis) -> Plot:
    """Return the plot of the times at the stations, one above the other in every iteration."""
    walls = np.array([sum(s.wall for s in record.seconds.values()) for record in seen.records])
    unit, size = next(
        (u, s) for u, s in (("h", 3600.0), ("min", 60.0), ("s", 1.0)) if walls.max() >= 2.0 * s or s == 1.0
    )
    y = axis_of(f"time at the stations ({unit})", [walls / size], zero=True)
    plot = Plot(x, y, "Where the time went", width=1000.0)
    for record in seen.records:
        low = 0.0
        for name, spent in record.seconds.items():
            style = f"f{stations.index(name) % N_COLOURS}"
            told = f"iteration {record.index}, {name}: {duration(spent.wall)}, {spent.n_tasks} tasks"
            told += f", {_at_a_time(spent):.1f} in parallel"
            for part, more, what in (
                (min(spent.engine, spent.wall), "", "in the engines"),
                (spent.other, " outside", "outside them"),
            ):
                if part >= _SLIVER * walls.max():
                    where = (record.index - 0.4, record.index + 0.4), (low / size, (low + part) / size)
                    plot.box(*where, f"{style}{more}", f"{told}; {duration(part)} {what}")
                    plot.name(name, style)
                low += part
    return plot


def _in_parallel(seen: SeenCampaign, stations: list[str], x: Axis) -> Plot:
    """Return the plot of the tasks at a time, by station, with the number of slots."""
    found = {
        name: [(r.index, _at_a_time(r.seconds[name])) for r in seen.records if r.seconds.get(name, _NONE).engine > 0.0]
        for name in stations
    }
    drawn = {name: np.array(values, dtype=np.float64) for name, values in found.items() if values}
    slots = [] if seen.slots is None else [np.array([float(seen.slots)])]
    y = axis_of("tasks at a time", [*(values[:, 1] for values in drawn.values()), *slots], zero=True)
    plot = Plot(x, y, "Tasks at a time", width=1000.0, height=200.0)
    if seen.slots is not None:
        plot.mark(float(seen.slots), along="y", name="slots")
    for name, values in drawn.items():
        k = stations.index(name) % N_COLOURS
        told = [f"iteration {int(i)}, {name}: {n:.1f} tasks at a time" for i, n in values]
        plot.line(values[:, 0], values[:, 1], f"c{k} thin", name)
        plot.points(values[:, 0], values[:, 1], f"f{k}", told, r=3.5)
    return plot
