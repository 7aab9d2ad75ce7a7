"""Figures of bars: crystals against experiment, quench rates side by side, sizes of chains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from activelearn.records import Curve, Result, Scoreboard
from activelearn.report.figures.curves import Arrays, main_curves
from activelearn.report.figures.drawing import (
    Look,
    draw_bars,
    groups_of,
    looks_of,
    named,
    potentials_of,
    title_of,
    values_of,
)
from activelearn.report.figures.sheet import Sheet, colour, ends, grid_for, in_order, marker
from activelearn.report.figures.words import axis, file_part, formula, plain, word

_RATE = "cooling_rate_K_per_ps"


def write(board: Scoreboard, arrays: Arrays, folder: Path) -> Iterator[Path]:
    """Write the figures for which there are results."""
    yield from _crystals(board, folder)
    yield from _rates(board, folder)
    yield from _chain_sizes(board, arrays, folder)


def _crystals(board: Scoreboard, folder: Path) -> Iterator[Path]:
    """Draw the deviation of relaxed volumes from experiment."""
    mine = [
        r.model_copy(update={"value": 100.0 * (r.value / r.reference_value - 1.0)})
        for r in named(board.results, "crystal_volume_A3")
        if r.reference_value
    ]
    if not mine:
        return
    sheet = Sheet(board, "Relaxed crystals: volume against experiment")
    axes = sheet.panel()
    draw_bars(sheet, axes, groups_of(mine, lambda r: _crystal(str(r.condition["crystal"]))), looks_of(board, mine))
    axes.set_ylabel("volume minus experiment (%)")
    sheet.cites(mine)
    axes.margins(y=0.12)
    yield sheet.finish(folder / "crystals.png")


def _crystal(seed: str) -> str:
    """Return the name of a seed on two lines: formula and space group."""
    name, _, group = seed.partition("_")
    return f"{formula(name)}\n{plain(group.replace('_', ' '))}"


# --- quench rates -----------------------------------------------------------------------------------------------------


def _rates(board: Scoreboard, folder: Path) -> Iterator[Path]:
    """Draw shares side by side for every cooling rate, one panel per potential, one figure per composition."""
    rates = values_of(board.results, _RATE)
    mine = [r for r in board.results if _RATE in r.condition and "porous" not in r.condition]
    if len(rates) < 2:
        return
    looks = {rate: Look(colour(k), marker(k), f"{rate:g} K/ps") for k, rate in enumerate(rates)}
    plain_rows = [r for r in mine if not {"pair", "temperature_K"} & r.condition.keys()]
    shares = in_order(r.name for r in plain_rows if r.unit == "%" and _is_unit(r.name) and r.value > 0.0)
    for x in values_of(mine, "x"):
        some = [r for r in plain_rows if r.condition["x"] == x]
        potentials = potentials_of(board, some)
        if shares and potentials:
            sheet = Sheet(board, title_of(board, f"quench rates, x = {x:g}"), grid_for(len(potentials)), is_shared=True)
            for potential in potentials:
                axes = sheet.panel(plain(potential) if len(potentials) > 1 else None)
                of_one = [r for r in some if r.condition["potential"] == potential]
                groups = {word(name): {r.condition[_RATE]: r for r in named(of_one, name)} for name in shares}
                draw_bars(sheet, axes, groups, looks)
            sheet.label("", "share (%)")
            yield sheet.finish(folder / f"rates_{file_part(x)}.png")
    yield from _rates_of_bulk(board, mine, looks, folder)


def _is_unit(name: str) -> bool:
    return word(name) != name.replace("_", " ") and name != "free_volume" and not name.endswith(("_share", "_corner"))


def _rates_of_bulk(
    board: Scoreboard, mine: Sequence[Result], looks: Mapping[Any, Look], folder: Path
) -> Iterator[Path]:
    """Draw quantities other than shares: density, moduli, free volume; one panel each, bars per potential and x.

    For several potentials, only both ends of the series.
    """
    names = [name for name in ("density", "free_volume", "youngs_modulus", "bulk_modulus") if named(mine, name)]
    if not names:
        return
    sheet = Sheet(board, title_of(board, "quench rates"), grid_for(len(names)))
    several = len(values_of(mine, "potential")) > 1

    def label(result: Result) -> str:
        x, potential = result.condition["x"], str(result.condition["potential"])
        return f"x = {x:g}" + (f", {plain(potential)}" if several else "")

    for name in names:
        axes, of_name = sheet.panel(), named(mine, name)
        xs = ends(values_of(of_name, "x"))
        some = [r for r in of_name if not several or r.condition["x"] in xs]
        draw_bars(sheet, axes, groups_of(some, label, _RATE), looks)
        axes.set_ylabel(axis(name, of_name[0].unit))
    yield sheet.finish(folder / "rates.png")


# --- chains -----------------------------------------------------------------------------------------------------------


def _chain_sizes(board: Scoreboard, arrays: Arrays, folder: Path) -> Iterator[Path]:
    """Draw how many atoms are in chains of which size: a panel per composition, a colour per potential."""
    curves = main_curves(board, "chain_sizes")
    for label in in_order(c.label for c in curves):
        mine = [c for c in curves if c.label == label]
        xs = values_of([c for c in mine if float(arrays[f"{c.key}/y"].max(initial=0.0)) > 0.0], "x")
        if not xs:
            continue
        sheet = Sheet(board, title_of(board, f"chains of {label}"), grid_for(len(xs)), is_shared=True)
        sizes = sorted({int(size) for c in mine for size in arrays[f"{c.key}/x"]})
        for x in xs:
            axes = sheet.panel(f"x = {x:g}")
            some = [c for c in mine if c.condition["x"] == x]
            groups = {str(size): _of_size(some, arrays, size) for size in sizes}
            draw_bars(sheet, axes, groups, looks_of(board, mine))
        sheet.label(f"{label} atoms in the chain", mine[0].y_name)
        yield sheet.finish(folder / f"chain_sizes_{file_part(label)}.png")


def _of_size(curves: Sequence[Curve], arrays: Arrays, size: int) -> dict[str, Result]:
    """Return the share of one size of chain of every potential, as results, from which bars are drawn."""
    found = {}
    for curve in curves:
        at = (arrays[f"{curve.key}/x"] == size).nonzero()[0]
        error = arrays.get(f"{curve.key}/error")
        if len(at):
            found[str(curve.condition["potential"])] = Result(
                name=curve.name,
                value=float(arrays[f"{curve.key}/y"][at[0]]),
                unit="%",
                uncertainty=None if error is None else float(error[at[0]]),
                n_samples=1,
                condition=curve.condition,
                stamp=curve.stamp,
            )
    return found
