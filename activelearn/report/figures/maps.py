"""Pictures of diffusion, seen along the third lattice vector: displacements, paths, densities (Luo et al. 2024).

Curves of name ``map`` carry pictures, see :mod:`activelearn.benchmark.maps`: the last word of the label says which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from activelearn.records import Curve, Scoreboard
from activelearn.report.figures.curves import Arrays, arranged, main_curves, said, split
from activelearn.report.figures.drawing import title_of, values_of
from activelearn.report.figures.sheet import Sheet, grid_for, in_order, suffix
from activelearn.report.figures.words import file_part, units

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable


def write(board: Scoreboard, arrays: Arrays, folder: Path) -> Iterator[Path]:
    """Write one figure per map, at the highest temperature; a panel per composition (or potential)."""
    for label in in_order(c.label for c in main_curves(board, "map")):
        mine = [c for c in main_curves(board, "map") if c.label == label]
        top = values_of(mine, "temperature_K")[-1]
        mine = [c for c in mine if c.condition["temperature_K"] == top]
        how = arranged(mine)
        for value, some in split(mine, how.panels):
            sheet = _sheet(board, arrays, some, how.colours)
            end = f"_{file_part(value)}" if how.panels else ""
            yield sheet.finish(folder / f"map_{file_part(label)}{end}.png")


def _sheet(board: Scoreboard, arrays: Arrays, curves: Sequence[Curve], key: str) -> Sheet:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    first = curves[0]
    more = [said("temperature_K", first.condition["temperature_K"])]
    more += [said(k, first.condition[k]) for k in ("x", "potential") if k != key and len(values_of(curves, k)) == 1]
    sheet = Sheet(board, ", ".join([title_of(board, first.label), *more]), grid_for(len(curves)), is_shared=True)
    # One bright atom must not make all others dark.
    top = max(float(np.percentile(arrays[f"{c.key}/y"], 99.0)) for c in curves)
    scale = ScalarMappable(Normalize(0.0, top or 1.0), colormaps["viridis"])
    for curve in curves:
        axes = sheet.panel(said(key, curve.condition[key]) + suffix([curve]).replace(" ", "\n"))
        _picture(axes, curve, arrays, scale)
        axes.set(aspect="equal")
        sheet.shows([curve])
    sheet.label("x (Å)", "y (Å)")
    sheet.figure.colorbar(scale, ax=sheet.panels[: sheet.n_used], label=units(first.y_name), shrink=0.9, extend="max")
    return sheet


def _picture(axes: Axes, curve: Curve, arrays: Arrays, scale: ScalarMappable) -> None:
    from matplotlib.collections import LineCollection

    norm: Any = scale.norm
    x, y, cell = arrays[f"{curve.key}/x"], arrays[f"{curve.key}/y"], arrays.get(f"{curve.key}/cell")
    if curve.label.endswith("density"):
        axes.pcolormesh(x[..., 0], x[..., 1], y, norm=norm, cmap=scale.cmap, shading="nearest", rasterized=True)
    elif curve.label.endswith("paths"):
        for line, length in zip(x[..., :2], y, strict=True):
            segments = np.stack([line[:-1], line[1:]], axis=1)
            path = LineCollection(list(segments), norm=norm, cmap=scale.cmap, linewidths=1.3)
            path.set_array(length[1:])
            axes.add_collection(path)
        axes.autoscale_view()
    else:
        ordered = np.argsort(y)  # the farthest on top
        axes.scatter(x[ordered, 0], x[ordered, 1], 28, y[ordered], norm=norm, cmap=scale.cmap, lw=0)
    if cell is not None:
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) @ cell[:2, :2]
        axes.plot(*corners.T, color="#555555", lw=0.9)
