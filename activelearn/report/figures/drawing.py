"""Points with error bars, bars in groups, and the experiment for comparison."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from activelearn.records import Curve, Result, Scoreboard
from activelearn.report.figures.sheet import Sheet, colour, in_order, line_style, marker
from activelearn.report.figures.words import formula, plain
from activelearn.report.stamps import is_doubted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Shown = TypeVar("Shown", Result, Curve)

EXPERIMENT: Final = "experiment"
BOUND: Final = "experiment (bound)"
#: Number of letters of tick labels that fit into the width of a sheet.
_LETTERS: Final = 90


@dataclass(frozen=True)
class Look:
    """Style of a line, and its legend entry."""

    colour: str
    marker: str
    label: str
    style: str = "-"


def title_of(board: Scoreboard, what: str) -> str:
    """Return the title of a figure: the series with subscripts (or the name of the study), and what is shown."""
    series = formula(board.series) if board.series else plain(board.study)
    return f"{series}: {what}"


def main_rate(results: Iterable[Result | Curve]) -> float | str | None:
    """Return the first cooling rate: plots against composition use this one."""
    return next((r.condition["cooling_rate_K_per_ps"] for r in results if "cooling_rate_K_per_ps" in r.condition), None)


def of_main_rate(results: Sequence[Shown]) -> list[Shown]:
    """Return the results (or curves) without those of other cooling rates."""
    rate = main_rate(results)
    return [r for r in results if r.condition.get("cooling_rate_K_per_ps", rate) == rate]


def values_of(results: Iterable[Any], key: str) -> list[Any]:
    """Return the different values of a condition among results or curves: sorted; words in their order."""
    found = in_order(one.condition[key] for one in results if key in one.condition)
    return found if any(isinstance(value, str) for value in found) else sorted(found)


def named(results: Iterable[Result], name: str) -> list[Result]:
    """Return the results of a name."""
    return [r for r in results if r.name == name]


def potentials_of(board: Scoreboard, results: Iterable[Result | Curve]) -> list[str]:
    """Return the potentials of some results or curves, in the order of the scoreboard."""
    there = values_of(results, "potential")
    return [name for name in board.potentials if name in there]


def looks_of(board: Scoreboard, results: Iterable[Result | Curve] | None = None) -> dict[str, Look]:
    """Return the style of each potential of some results or curves, the same in every figure."""
    shown = board.potentials if results is None else potentials_of(board, results)
    looks = {name: Look(colour(k), marker(k), name, line_style(k)) for k, name in enumerate(board.potentials)}
    return {name: looks[name] for name in shown}


def groups_of(
    results: Iterable[Result], label: Callable[[Result], str], key: str = "potential"
) -> dict[str, dict[Any, Result]]:
    """Return results in the form for :func:`draw_bars`: by a label, and by their value of a condition."""
    groups: dict[str, dict[Any, Result]] = {}
    for result in results:
        groups.setdefault(label(result), {})[result.condition[key]] = result
    return groups


def tick_compositions(axes: Axes, values: Sequence[float]) -> None:
    """Put ticks at the compositions, if they are few."""
    if len(values) <= 5:
        axes.set_xticks(values, [f"{x:g}" for x in values])


# --- lines ------------------------------------------------------------------------------------------------------------


def draw_line(sheet: Sheet, axes: Axes, results: Sequence[Result], key: str, look: Look) -> None:
    """Draw results against a condition: error bars are standard errors, hollow markers are UNTRUSTED or NOT MELTED."""
    ordered = sorted(results, key=lambda r: float(r.condition[key]))
    x = np.array([float(r.condition[key]) for r in ordered])
    y = np.array([r.value for r in ordered])
    error = np.array([r.uncertainty or 0.0 for r in ordered])
    hollow = np.array([is_doubted(r) for r in ordered], dtype=bool)
    axes.plot(x, y, look.style, color=look.colour, zorder=2)
    if error.any():
        axes.errorbar(x, y, yerr=error, fmt="none", ecolor=look.colour, capsize=3, elinewidth=1.4, zorder=2)
    for which, face in ((~hollow, look.colour), (hollow, "white")):
        if which.any():
            style: dict[str, Any] = {"markerfacecolor": face, "markeredgecolor": look.colour, "markeredgewidth": 1.6}
            axes.plot(x[which], y[which], look.marker, zorder=3, **style)
    sheet.shows(ordered)
    label = plain(look.label) if "$^" not in look.label else look.label
    face = "white" if hollow.all() else look.colour
    sheet.name_line(label, color=look.colour, marker=look.marker, ls=look.style, mfc=face, mew=1.6, ms=7, lw=1.8)


def draw_experiment(sheet: Sheet, axes: Axes, results: Iterable[Result], key: str, mark: str = "*") -> None:
    """Draw the cited experiment of results against a condition: black and dashed; bounds as arrows."""
    cited = {float(r.condition[key]): r for r in results if r.reference_value is not None}
    points = [cited[x] for x in sorted(cited) if cited[x].reference_bound is None]
    sheet.cites(cited.values())
    if points:
        x = [float(r.condition[key]) for r in points]
        y = [float(r.reference_value or 0.0) for r in points]
        error = [r.reference_uncertainty or 0.0 for r in points]
        axes.errorbar(x, y, yerr=error if any(error) else None, fmt=f"k{mark}--", capsize=3, ms=9, lw=1.4, zorder=4)
        sheet.name_line(EXPERIMENT, color="k", marker=mark, ls="--", ms=9, lw=1.4)
    for x_bound, result in cited.items():
        if result.reference_bound is not None:
            _arrow(sheet, axes, (x_bound, float(result.reference_value or 0.0)), result.reference_bound, mark)


def _arrow(sheet: Sheet, axes: Axes, at: tuple[float, float], bound: str, mark: str) -> None:
    """Draw an arrow from a bound towards the experiment."""
    # A text of arrow shape, in points: it keeps its length whatever the axis becomes.
    axes.annotate(
        r"$\uparrow$" if bound == "above" else r"$\downarrow$",
        at,
        xytext=(0, 2 if bound == "above" else -2),
        textcoords="offset points",
        ha="center",
        va="bottom" if bound == "above" else "top",
        fontsize=20,
        zorder=5,
    )
    axes.plot(*at, color="black", marker=mark, ms=6, ls="none", zorder=5)
    if bound == "above":  # room for it in the panel
        axes.update_datalim([(at[0], 1.25 * at[1])])
        axes.autoscale_view()
    sheet.name_line(BOUND, color="k", marker=r"$\uparrow$", ls="none", ms=11)


# --- bars -------------------------------------------------------------------------------------------------------------


def draw_bars(sheet: Sheet, axes: Axes, groups: Mapping[str, Mapping[Any, Result]], looks: Mapping[Any, Look]) -> None:
    """Draw bars in groups.

    Parameters
    ----------
    sheet, axes
        Where.
    groups
        By label of the group, by key of the bar.
    looks
        By key of the bar; its order is that of the bars.
    """
    from matplotlib.patches import Patch

    width = 0.8 / len(looks)
    for k, (key, look) in enumerate(looks.items()):
        for i, group in enumerate(groups.values()):
            result = group.get(key)
            if result is None:
                continue
            x = i + (k - (len(looks) - 1) / 2.0) * width
            hollow = is_doubted(result)
            ink: dict[str, Any] = {"edgecolor": look.colour, "facecolor": "white" if hollow else look.colour}
            error: dict[str, Any] = {"yerr": result.uncertainty, "capsize": 3, "ecolor": "#333333"}
            axes.bar(x, result.value, 0.9 * width, **ink, **error, linewidth=1.8, hatch="//" if hollow else None)
            sheet.shows([result])
            sheet.name(Patch(**ink, hatch="///" if hollow else None), plain(look.label))
    axes.axhline(0.0, color="#333333", lw=0.8)
    room = 0.7 if len(groups) * len(looks) > 2 else 1.2  # a single bar must not fill the panel
    axes.set_xlim(-room, len(groups) - 1.0 + room)
    axes.set_xticks(range(len(groups)), list(groups))
    bare = [re.sub(r"[$^_{}]", "", label) for label in groups]  # without the signs of a formula
    longest = max(len(line) for label in bare for line in label.split("\n"))
    if longest * len(groups) * sheet.shape[1] > _LETTERS:
        axes.tick_params(axis="x", labelrotation=30)
        for tick in axes.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", length=0)


def mark_experiment(sheet: Sheet, axes: Axes, groups: Iterable[Iterable[Result]]) -> None:
    """Draw the cited experiment across every group of bars: a dashed line with its uncertainty, or an arrow."""
    for i, group in enumerate(groups):
        result = next((r for r in group if r.reference_value is not None), None)
        if result is None or result.reference_value is None:
            continue
        y = result.reference_value
        sheet.cites([result])
        axes.plot([i - 0.45, i + 0.45], [y, y], "k--", lw=1.6, zorder=4)
        if result.reference_bound is not None:
            _arrow(sheet, axes, (i + 0.45, y), result.reference_bound, "")
            continue
        if result.reference_uncertainty:
            error = result.reference_uncertainty
            axes.fill_between([i - 0.45, i + 0.45], y - error, y + error, color="black", alpha=0.15, lw=0, zorder=3)
        sheet.name_line(EXPERIMENT, color="k", ls="--", lw=1.6)


def print_values(axes: Axes, results: Sequence[Result]) -> None:
    """Write the value above each single bar."""
    for patch, result in zip(axes.patches, results, strict=False):
        box = patch.get_extents().transformed(axes.transData.inverted())
        axes.annotate(
            f"{result.value:#.3g}".rstrip("."),
            (box.x0 + box.width / 2.0, max(result.value + (result.uncertainty or 0.0), 0.0)),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=11,
            bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5},
            zorder=5,
        )


def say_rate(sheet: Sheet, board: Scoreboard) -> None:
    """Note the cooling rate of the glasses, if there are several."""
    rates = values_of(board.results, "cooling_rate_K_per_ps")
    if len(rates) > 1:
        sheet.note(f"Glasses quenched at {main_rate(board.results):g} K/ps.")
