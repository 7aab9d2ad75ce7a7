"""Pictures of trainings: learning curves of all members, and the composition of the data set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from activelearn.page.landscape import ORIGINS, Landscape
from activelearn.page.markup import Figure, Numbers
from activelearn.page.products import MemberCurve
from activelearn.page.seen import SeenCampaign
from activelearn.page.svg import N_COLOURS, Axis, Plot, axis_of

#: Drawn columns of a learning curve, the first one present, with their labels.
_DRAWN: Final = (("rmse_f_trn", "force RMSE of a batch (eV/Å)"), ("rmse_trn", "loss of a batch"))
_ORIGINS: Final = ("initial data", "from the window", "rescued", "held out")


def figures(seen: SeenCampaign) -> Iterator[Figure]:
    """Yield the figures."""
    for station in dict.fromkeys(one.station for one in seen.curves):
        found = [one for one in seen.curves if one.station == station]
        if (figure := _curves(found)) is not None:
            yield figure
    if seen.records:
        yield _dataset(seen)
    if seen.landscape is not None:
        yield _landscape(seen.landscape)


def _curves(found: list[MemberCurve]) -> Figure | None:
    column, name = next(((c, n) for c, n in _DRAWN if c in found[0].columns), (None, ""))
    if column is None:
        return None
    lines = [(one, one.rows[:, 0], one.rows[:, one.columns.index(column)]) for one in found if column in one.columns]
    x = axis_of("step", [steps for _, steps, _ in lines])
    plot = Plot(x, axis_of(name, [values for _, _, values in lines], is_log=True), f"Learning curves: {name}")
    for one, steps, values in lines:
        told = f"member {one.member}: {values[-1]:.3g} at step {int(steps[-1])}"
        plot.line(steps, values, f"c{one.member % N_COLOURS}", told, label=f"member {one.member}")
    first = found[0]
    what = "final models" if first.station == "final" else f"iteration {first.iteration}"
    rows = [(one.member, int(s), float(v)) for one, steps, values in lines for s, v in zip(steps, values, strict=True)]
    return Figure(
        name=f"learning-{first.station}",
        title=f"Learning curves, {what}",
        caption=f"{name[0].upper()}{name[1:]} of every member; each point is one batch, so it scatters.",
        picture=plot.svg(),
        numbers=Numbers(f"learning-{first.station}", ("member", "step", name), rows),
    )


def _dataset(seen: SeenCampaign) -> Figure:
    rows = []
    total = 0
    for record in seen.records:
        labelling = record.labelling
        new = labelling.dataset_frames - total
        total = labelling.dataset_frames
        is_walked = record.selection is not None
        rescued = labelling.rescued if is_walked else 0
        parts = (0 if is_walked else new, new - rescued if is_walked else 0, rescued, labelling.held_out)
        rows.append((record.index, *parts, sum(labelling.refused.values()), total))
    tops = np.array([sum(row[1:5]) for row in rows], dtype=np.float64)
    y = axis_of("frames labelled", [tops], zero=True)
    plot = Plot(Axis("iteration", rows[0][0] - 0.6, rows[-1][0] + 0.6), y, "Frames labelled by iteration and origin")
    for row in rows:
        low = 0.0
        for name, n in zip(_ORIGINS, row[1:5], strict=True):
            style = f"f{ORIGINS.index(name)}"  # the same as among the points of the landscape
            if n > 0:
                plot.box((row[0] - 0.4, row[0] + 0.4), (low, low + n), style, f"iteration {row[0]}: {n} frames, {name}")
                plot.name(name, style)
            low += n
    columns = ("iteration", *_ORIGINS, "refused", "training frames, all so far")
    return Figure(
        name="dataset",
        title="What was labelled",
        caption="Frames by iteration and origin; held-out frames are never trained on.",
        picture=plot.svg(),
        numbers=Numbers("dataset", columns, rows),
    )


def _landscape(found: Landscape) -> Figure:
    names = [
        f"{rank} component ({100.0 * share:.0f} % of the variance)"
        for rank, share in zip(("first", "second"), found.shares, strict=True)
    ]
    x, y = (axis_of(name, [found.at[:, k]]) for k, name in enumerate(names))
    plot = Plot(x, y, "The data set in two dimensions of its descriptor", height=430.0)
    for k, origin in enumerate(ORIGINS):
        mine = np.flatnonzero(found.origin == k)
        if len(mine):
            told = [f"{found.formula[i]}, iteration {found.iteration[i]}: {origin}" for i in mine]
            plot.points(found.at[mine, 0], found.at[mine, 1], f"f{k} faint", told, r=3.5)
            plot.name(origin, f"f{k}")
    shown = len(found.origin)
    drawn = "" if shown == found.n_frames else f" {shown} of {found.n_frames} frames are drawn, evenly spread."
    rows = [
        (ORIGINS[found.origin[i]], int(found.iteration[i]), found.formula[i], float(a), float(b))
        for i, (a, b) in enumerate(found.at)
    ]
    return Figure(
        name="landscape",
        title="Where the data lie",
        caption="Every point is a frame: its radial descriptor along the two directions in which frames differ most "
        f"(dimensionless). Far from all others: seen once. Held out: how far from them the errors are measured.{drawn}",
        picture=plot.svg(),
        numbers=Numbers(
            "landscape", ("origin", "iteration", "formula", "first component (1)", "second component (1)"), rows
        ),
    )
