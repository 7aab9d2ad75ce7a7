"""Pictures of what was explored: the matrix pass by pass, and the force deviations with the window."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from activelearn.page.findings.exploration import cell_name, last_pass
from activelearn.page.markup import Figure, Html, Numbers, joined, tag
from activelearn.page.products import EDGES
from activelearn.page.seen import SeenCampaign
from activelearn.page.svg import N_COLOURS, Axis, Plot, axis_of, drawing
from activelearn.records import CellCounts, Counts

_CELL: Final = (46.0, 22.0)  # pixels
#: Maximum number of passes side by side; of more, only every n-th and the last are shown.
_MOST_PASSES: Final = 40
#: Heat maps wider than this use the full width, pixels.
_WIDE: Final = 900.0
_SHARES: Final = (("candidate", "candidates", "heat"), ("failed", "failed", "heat2"))


def figures(seen: SeenCampaign) -> Iterator[Figure]:
    """Yield the figures."""
    cells = _matrix(seen)
    for kind, word, style in _SHARES if cells else ():
        yield _heat_map(cells, kind, word, style)
    if seen.deviations:
        yield _deviations(seen)


def _matrix(seen: SeenCampaign) -> dict[int, list[CellCounts]]:
    """Return the cells by pass."""
    found = {r.index: list(r.selection.cells) for r in seen.records if r.selection is not None}
    every = -(-len(found) // _MOST_PASSES)
    kept = set(list(found)[::-1][::every]) if found else set()
    return {index: cells for index, cells in found.items() if index in kept}


def counts_table(seen: SeenCampaign) -> Numbers:
    """Return the counts of every cell and pass."""
    rows = [
        (
            r.index,
            cell_name(cell),
            cell.counts.walks,
            cell.counts.walked,
            *(100.0 * cell.counts.share(kind) if cell.counts.in_region else None for kind in ("accurate", "candidate")),
            100.0 * cell.counts.share("failed") if cell.counts.in_region else None,
            cell.counts.out_of_region,
        )
        for r in seen.records
        if r.selection is not None
        for cell in r.selection.cells
    ]
    columns = ("iteration", "cell", "walks", "frames", "accurate (%)", "candidates (%)", "failed (%)", "out of region")
    return Numbers("matrix", columns, rows)


def _heat_map(passes: dict[int, list[CellCounts]], kind: str, word: str, style: str) -> Figure:
    by_name = {index: {cell_name(cell): cell.counts for cell in cells} for index, cells in passes.items()}
    names = list(dict.fromkeys(name for cells in by_name.values() for name in cells))
    top = max((c.share(kind) for cells in by_name.values() for c in cells.values() if c.in_region), default=0.0)
    width, height = _CELL
    left = 12.0 + 6.8 * max(len(name) for name in names)
    parts: list[Html] = []
    for row, name in enumerate(names):
        y = 8.0 + row * height
        parts.append(tag("text", name, x=left - 8.0, y=y + 15.0, class_="tick end"))
        for column, (index, cells) in enumerate(by_name.items()):
            if name in cells:
                at = (left + column * width, y)
                parts.append(_square(cells[name], kind, top, style, at, f"iteration {index}, {name}"))
    bottom = 8.0 + len(names) * height
    for column, index in enumerate(by_name):
        parts.append(tag("text", index, x=left + (column + 0.5) * width, y=bottom + 15.0, class_="tick mid"))
    parts.append(tag("text", "iteration", x=left + len(by_name) * width / 2.0, y=bottom + 33.0, class_="name mid"))
    size = (left + len(by_name) * width + 12.0, bottom + 42.0)
    title = f"Share of {word} by iteration and cell of the exploration matrix"
    return Figure(
        name=f"matrix-{kind}",
        title=f"{word.capitalize()} by pass and cell",
        caption=f"Share of {word} among the frames in the region, %; empty: not walked, since it was quiet.",
        picture=drawing(joined(parts), max(size[0], 480.0), size[1], title),
        is_wide=size[0] > _WIDE,
    )


def _square(counts: Counts, kind: str, top: float, style: str, at: tuple[float, float], where: str) -> Html:
    x, y = at
    place = {"x": x + 1.0, "y": y + 1.0, "width": _CELL[0] - 2.0, "height": _CELL[1] - 2.0}
    if not counts.in_region:
        told = f"{where}: no frame in the region ({counts.out_of_region} out of it)"
        return tag("g", tag("title", told), tag("rect", class_="none", **place))
    share = counts.share(kind)
    told = f"{where}: {100 * share:.2f} % ({getattr(counts, kind)} of {counts.in_region} frames, {counts.walks} walks)"
    told += f"; accurate {100 * counts.share('accurate'):.2f} %"
    ink = 0.75 * math.sqrt(share / top) if top > 0.0 else 0.0
    text = f"{100 * share:.1f}" if share else "0"
    return tag(
        "g",
        tag("title", told),
        tag("rect", class_="edge", **place),
        tag("rect", class_=style, fill_opacity=round(ink, 3), **place),
        tag("text", text, x=f"{x + _CELL[0] / 2:.1f}", y=f"{y + 15:.1f}", class_="cell mid"),
    )


# --- deviations -------------------------------------------------------------------------------------------------------


def _deviations(seen: SeenCampaign) -> Figure:
    found = seen.deviations
    last = max(one.iteration for one in found)
    shares = {one: one.counts / max(int(one.counts.sum()), 1) * 100.0 for one in found}
    middles = np.sqrt(EDGES[:-1] * EDGES[1:])
    x = Axis("force deviation of a frame (eV/Å)", float(EDGES[0]), float(EDGES[-1]), is_log=True)
    plot = Plot(x, axis_of("share of frames (%)", list(shares.values()), zero=True), "Distribution of force deviations")
    selection = last_pass(seen)
    if selection is not None:
        plot.window(selection.f_lo, selection.f_hi, along="x")
    stages = list(dict.fromkeys(one.stage for one in found if one.iteration == last))
    for one, share in shares.items():
        style = f"c{stages.index(one.stage) % N_COLOURS}"
        is_last = one.iteration == last
        label = f"{one.stage}" if is_last else None
        told = f"{one.stage}, iteration {one.iteration}: {int(one.counts.sum())} frames"
        plot.line(middles, share, style if is_last else f"{style} thin", told, label=label)
    rows = [
        (one.iteration, one.stage, float(low), float(high), int(n))
        for one in found
        for low, high, n in zip(EDGES[:-1], EDGES[1:], one.counts, strict=True)
        if n
    ]
    return Figure(
        name="deviations",
        title="Force deviations and the trust window",
        caption=f"Frames of the last pass (iteration {last}) by stage; thin: of the first pass that walked it. "
        "Frames left of the window are accurate, inside candidates, right of it failed; what is beyond an end of the "
        "axis is counted at that end.",
        picture=plot.svg(),
        numbers=Numbers("deviations", ("iteration", "stage", "from (eV/Å)", "to (eV/Å)", "frames"), rows),
    )
