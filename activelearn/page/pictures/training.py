"""Pictures of trainings: learning curves of all members, and the composition of the data set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

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
        for k, (name, n) in enumerate(zip(_ORIGINS, row[1:5], strict=True)):
            if n > 0:
                plot.box(
                    (row[0] - 0.4, row[0] + 0.4), (low, low + n), f"f{k}", f"iteration {row[0]}: {n} frames, {name}"
                )
                plot.name(name, f"f{k}")
            low += n
    columns = ("iteration", *_ORIGINS, "refused", "training frames, all so far")
    return Figure(
        name="dataset",
        title="What was labelled",
        caption="Frames by iteration and origin; held-out frames are never trained on.",
        picture=plot.svg(),
        numbers=Numbers("dataset", columns, rows),
    )
