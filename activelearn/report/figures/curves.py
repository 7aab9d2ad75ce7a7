"""Figures of lines: g(r), mean square displacement, Arrhenius, stress-strain, units through the quench, parity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from activelearn.records import Curve, Scoreboard
from activelearn.report.figures.drawing import Look, looks_of, named, of_main_rate, title_of, values_of
from activelearn.report.figures.sheet import Sheet, colour, ends, grid_for, in_order, line_style, marker, suffix
from activelearn.report.figures.words import file_part, plain, units, word
from activelearn.report.stamps import is_doubted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Arrays = Mapping[str, Any]

#: Conditions that distinguish lines: the first that varies gets colours, the next panels, the last figures.
_KEYS: Final = ("x", "temperature_K", "potential")
_SAID: Final = {"potential": "{}", "x": "x = {:g}", "temperature_K": "{:g} K"}
#: Names of curves with their own figures, or (running coordination) deliberately none.
_KNOWN: Final = {
    *("rdf", "running_coordination", "msd", "arrhenius", "stress_strain", "evolution", "chain_sizes", "map"),
    *("parity_force", "parity_energy", "parity_virial"),
}
#: g(r) is shown up to here, Å.
_FAR_A: Final = 10.0


def write(board: Scoreboard, arrays: Arrays, folder: Path) -> Iterator[Path]:
    """Write the figures for which there are curves."""
    yield from _rdf(board, arrays, folder)
    for element in in_order(c.label for c in main_curves(board, "msd")):
        mine = [c for c in main_curves(board, "msd") if c.label == element]
        if any(r.name == f"D_{element}" for r in board.results):
            yield from _lines(
                board, arrays, mine, folder / f"msd_{file_part(element)}", f"mean square displacement of {element}"
            )
    yield from _lines(board, arrays, main_curves(board, "arrhenius"), folder / "arrhenius", "conductivity")
    yield from _lines(board, arrays, main_curves(board, "stress_strain"), folder / "stress_strain", "stress and strain")
    yield from _evolution(board, arrays, folder)
    yield from _parity(board, arrays, folder)
    yield from _others(board, arrays, folder)


def main_curves(board: Scoreboard, name: str) -> list[Curve]:
    """Return the curves of a name of dense glass at the first cooling rate."""
    return of_main_rate([c for c in board.curves if c.name == name and "porous" not in c.condition])


# --- how lines are told apart -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arrangement:
    """Which condition gets colours, which panels, which figures of their own; None if nothing varies."""

    colours: str
    panels: str | None
    files: str | None


def arranged(curves: Sequence[Curve], keys: Sequence[str] = _KEYS) -> Arrangement:
    """Return how some curves are distinguished."""
    varying = [key for key in keys if len(values_of(curves, key)) > 1]
    if "x" not in varying:  # for one composition potentials are compared
        varying.sort(key=lambda key: key != "potential")
    padded = [*varying, None, None, None]
    return Arrangement(varying[0] if varying else "potential", padded[1], padded[2])


def said(key: str, value: Any) -> str:  # noqa: ANN401 - a value of a condition
    """Return a condition in words."""
    return plain(_SAID[key].format(value))


def looks(board: Scoreboard, curves: Sequence[Curve], key: str) -> dict[Any, Look]:
    """Return the styles of the values of a condition."""
    if key == "potential":
        return {**looks_of(board)}
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    values = values_of(curves, key)
    shades = colormaps["viridis"](
        np.linspace(0.0, 0.9, len(values))
    )  # ordered, and distinguishable with colour blindness
    return {v: Look(to_hex(shades[k]), marker(k), said(key, v)) for k, v in enumerate(values)}


def split(curves: Sequence[Curve], key: str | None) -> list[tuple[Any, list[Curve]]]:
    """Return the curves by a condition; all together without one."""
    if key is None:
        return [(None, list(curves))]
    return [(value, [c for c in curves if c.condition.get(key) == value]) for value in values_of(curves, key)]


def draw(sheet: Sheet, axes: Axes, curve: Curve, arrays: Arrays, look: Look, *, is_said: bool = False) -> None:
    """Draw one curve with a band of its standard error; for a doubted glass it is dashed, and labelled so."""
    x, y, error = arrays[f"{curve.key}/x"], arrays[f"{curve.key}/y"], arrays.get(f"{curve.key}/error")
    style, face = ("--", "white") if is_doubted(curve) else (look.style, look.colour)
    few = len(x) <= 12
    shape: dict[str, Any] = {"color": look.colour, "ls": style}
    if few:
        shape |= {"marker": look.marker, "markerfacecolor": face, "markeredgewidth": 1.5}
    axes.plot(x, y, lw=1.5, **shape)
    if error is not None and few:
        axes.errorbar(x, y, yerr=error, fmt="none", ecolor=look.colour, capsize=3, elinewidth=1.3)
    elif error is not None:
        axes.fill_between(x, y - error, y + error, color=look.colour, alpha=0.25, lw=0)
    sheet.shows([curve])
    sheet.name_line(look.label + ("" if is_said else suffix([curve])), lw=1.8, markersize=7, **shape)


def _others(board: Scoreboard, arrays: Arrays, folder: Path) -> Iterator[Path]:
    """Draw curves without a specific figure, one figure per label, with axes and title from the curve."""
    for name, label in in_order((c.name, c.label) for c in board.curves if c.name not in _KNOWN):
        mine = [c for c in main_curves(board, name) if c.label == label]
        title = f"{word(name)}, {plain(label)}"
        yield from _lines(board, arrays, mine, folder / f"{file_part(name)}_{file_part(label)}", title)


def _lines(board: Scoreboard, arrays: Arrays, curves: Sequence[Curve], path: Path, what: str) -> Iterator[Path]:
    """Draw curves as they are arranged by what varies among them."""
    from matplotlib.ticker import MaxNLocator

    if not curves:
        return
    how = arranged(curves)
    fixed = [key for key in _KEYS if len(values_of(curves, key)) == 1 and key != "potential"]
    for value, some in split(curves, how.files):
        more = [said(key, some[0].condition[key]) for key in fixed]
        more += [said(how.files, value)] if how.files else []
        panels = split(some, how.panels)
        sheet = Sheet(board, ", ".join([title_of(board, what), *more]), grid_for(len(panels)), is_shared=True)
        for place, of_panel in panels:
            axes = sheet.panel(said(how.panels, place) if how.panels else None)
            of_key = looks(board, curves, how.colours)
            for curve in of_panel:
                _draw_one(sheet, axes, curve, arrays, of_key[curve.condition[how.colours]])
            axes.xaxis.set_major_locator(MaxNLocator(4 if len(panels) > 1 else 8, steps=[1, 2, 5, 10]))
            if of_panel[0].name == "arrhenius":
                axes.set_yscale("log")
        sheet.label(units(some[0].x_name), units(some[0].y_name))
        if any("not converged" in c.label for c in some):
            sheet.note("Crosses: diffusion not converged, left out of the fit.")
        end = f"_{file_part(value)}{'K' if how.files == 'temperature_K' else ''}" if how.files else ""
        yield sheet.finish(path.with_name(f"{path.name}{end}.png"))


def _draw_one(sheet: Sheet, axes: Axes, curve: Curve, arrays: Arrays, look: Look) -> None:
    """Draw a curve; of an Arrhenius plot the fit as a line, and its points as points."""
    if curve.name != "arrhenius":
        draw(sheet, axes, curve, arrays, look)
        return
    x, y, error = arrays[f"{curve.key}/x"], arrays[f"{curve.key}/y"], arrays.get(f"{curve.key}/error")
    face = "white" if is_doubted(curve) else look.colour
    if curve.label.endswith(" fit"):
        axes.plot(x, y, "-", color=look.colour, lw=1.4, zorder=1)
    elif "not converged" in curve.label:
        axes.errorbar(x, y, yerr=error, fmt="x", color=look.colour, ms=9, mew=2, capsize=3)
    else:
        axes.errorbar(x, y, yerr=error, fmt=look.marker, color=look.colour, mfc=face, mew=1.6, capsize=3)
    sheet.shows([curve])
    label = look.label + suffix([curve])
    sheet.name_line(label, color=look.colour, marker=look.marker, mfc=face, ms=7, mew=1.6)


# --- g(r) -------------------------------------------------------------------------------------------------------------


def _rdf(board: Scoreboard, arrays: Arrays, folder: Path) -> Iterator[Path]:
    """Draw g(r), a panel per pair: compositions for every potential, and potentials at both ends of the series."""
    curves = main_curves(board, "rdf")
    if not curves:
        return
    potentials, xs = values_of(curves, "potential"), values_of(curves, "x")
    requested: list[tuple[str, Any, str, str]] = []  # value of which condition, what has colours, name of the file
    if len(potentials) > 1 or len(xs) == 1:
        requested += [("x", x, "potential", f"_x{file_part(x)}" if len(xs) > 1 else "") for x in ends(xs)]
    if len(xs) > 1:
        requested += [("potential", p, "x", f"_{file_part(p)}" if len(potentials) > 1 else "") for p in potentials]
    for key, value, colours, end in requested:
        some = [c for c in curves if c.condition[key] == value]
        title = title_of(board, f"pair distribution functions, {said(key, value)}")
        yield _pairs(board, arrays, some, colours, title).finish(folder / f"rdf{end}.png")


def _pairs(board: Scoreboard, arrays: Arrays, curves: Sequence[Curve], key: str, title: str) -> Sheet:
    from matplotlib.ticker import MaxNLocator

    pairs = in_order(c.label for c in curves)
    sheet = Sheet(board, title, grid_for(len(pairs)))
    of_key = looks(board, curves, key)
    for pair in pairs:
        axes = sheet.panel(pair)
        for curve in curves:
            if curve.label == pair:
                draw(sheet, axes, curve, arrays, of_key[curve.condition[key]])
        axes.set_xlim(1.0, min(_FAR_A, max(float(arrays[f"{c.key}/x"][-1]) for c in curves)))
        axes.set_ylim(bottom=0.0)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    sheet.label(curves[0].x_name, curves[0].y_name)
    return sheet


# --- through the quench -----------------------------------------------------------------------------------------------


def _evolution(board: Scoreboard, arrays: Arrays, folder: Path) -> Iterator[Path]:
    """Draw the units while it cools, from the melt at the left: a colour per unit, a panel per potential (or x).

    With several of both, as in the papers: both ends of the series.
    """
    curves = [c for c in main_curves(board, "evolution") if c.x_name.startswith("T") and "_corner" not in c.label]
    for y_name in in_order(c.y_name for c in curves):
        mine = [c for c in curves if c.y_name == y_name]
        seen = {c.label for c in mine if arrays[f"{c.key}/y"].max(initial=0.0) >= 1.0}  # others are a line at zero
        labels = [label for label in in_order(c.label for c in mine) if label in seen]
        of_label = {label: Look(colour(k), marker(k), word(label), line_style(k)) for k, label in enumerate(labels)}
        xs, potentials = values_of(mine, "x"), values_of(mine, "potential")
        for x in (ends(xs) if len(potentials) > 1 else [None]) if labels else []:
            some = [c for c in mine if x is None or c.condition["x"] == x]
            key, other = ("potential", x) if len(potentials) > 1 or len(xs) == 1 else ("x", potentials[0])
            panels = split(some, key)
            more = said("x", xs[0] if x is None else x) if key == "potential" else said("potential", other)
            what = y_name.removeprefix("share of ").removesuffix(" (%)")
            sheet = Sheet(
                board, f"{title_of(board, f'{what} on cooling')}, {more}", grid_for(len(panels)), is_shared=True
            )
            for place, of_panel in panels:
                axes = sheet.panel(said(key, place) + suffix(of_panel))
                for curve in of_panel:
                    if curve.label in of_label:
                        draw(sheet, axes, curve, arrays, of_label[curve.label], is_said=True)
            sheet.panels[0].set_ylim(bottom=0.0)
            sheet.panels[0].invert_xaxis()
            sheet.label(mine[0].x_name, y_name)
            end = f"_x{file_part(x)}" if x is not None and len(xs) > 1 else ""
            yield sheet.finish(folder / f"cooling_{file_part(what)}{end}.png")


# --- parity -----------------------------------------------------------------------------------------------------------


def _parity(board: Scoreboard, arrays: Arrays, folder: Path) -> Iterator[Path]:
    """Draw points of potential against reference, a panel per potential, with its errors over all points."""
    for name, of, mae, rmse in (
        ("parity_force", "forces", "force_mae", "force_rmse"),
        ("parity_energy", "energies", "energy_mae_shifted", "energy_rmse_shifted"),
        ("parity_virial", "virials", "virial_mae", "virial_rmse"),
    ):
        curves = [c for c in board.curves if c.name == name]
        if not curves:
            continue
        sheet = Sheet(board, f"{of.capitalize()} against the reference", grid_for(len(curves)), is_shared=True)
        points = [(arrays[f"{c.key}/x"], arrays[f"{c.key}/y"]) for c in curves]
        low, high = min(float(np.min(p)) for p in points), max(float(np.max(p)) for p in points)
        room = 0.05 * (high - low or 1.0)
        limits = (low - room, high + room)
        for curve, (x, y) in zip(curves, points, strict=True):
            potential = str(curve.condition["potential"])
            of_potential = [r for r in board.results if r.condition.get("potential") == potential]
            errors = [
                f"{measure} {r.value:.3g} {r.unit}"
                for measure, key in (("MAE", mae), ("RMSE", rmse))
                for r in named(of_potential, key)
            ]
            axes = sheet.panel("\n".join([plain(potential), *errors]))
            axes.plot(limits, limits, "k-", lw=1.0, zorder=1)
            axes.plot(x, y, ".", color=looks_of(board)[potential].colour, ms=4, alpha=0.4, mew=0, zorder=2)
            axes.set(xlim=limits, ylim=limits, aspect="equal")
            sheet.shows([curve])
        sheet.label(_folded(curves[0].x_name), _folded(curves[0].y_name))
        if "less a shift per element" in curves[0].y_name:
            sheet.note("Energies of the potentials less a shift per element, fitted: their zeros differ.")
        yield sheet.finish(folder / f"{name}.png")


def _folded(name: str) -> str:
    """Return the label of an axis on two lines: whose, and what; the shift of energies is in the footer."""
    return units(name.replace(": ", ":\n").replace(" less a shift per element", ""))
