"""Figures against composition: density and moduli, volumes, units, bridging anions, coordination, chains, conductivity.

For a single composition, the potentials are compared as bars.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from activelearn.records import Result, Scoreboard
from activelearn.report.figures.drawing import (
    Look,
    draw_bars,
    draw_experiment,
    draw_line,
    groups_of,
    looks_of,
    mark_experiment,
    named,
    of_main_rate,
    potentials_of,
    print_values,
    say_rate,
    tick_compositions,
    title_of,
    values_of,
)
from activelearn.report.figures.sheet import Sheet, colour, grid_for, in_order, line_style, marker, widened
from activelearn.report.figures.words import axis, file_part, plain, word

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_X = "x"
_T = "temperature_K"


def write(board: Scoreboard, folder: Path) -> Iterator[Path]:
    """Write the figures for which there are results."""
    results = [r for r in of_main_rate(board.results) if _X in r.condition and "pair" not in r.condition]
    names = in_order(r.name for r in results)
    bulk = "bulk_modulus" if "bulk_modulus" in names else "bulk_modulus_hill"
    modifiers = [m.group(1) for name in names if (m := re.fullmatch(r"([A-Z][a-z]?)_coordination", name))]
    shares = [name for name in names if any(re.fullmatch(f"{m}_[A-Z][a-z]?_share", name) for m in modifiers)]
    chains = [name for name in names if re.fullmatch(r"[A-Z][a-z]?_(in_chains|chain_length|chains_of_three)", name)]
    for file, what, requested in (
        ("density_moduli", "density and elastic moduli", ["density", "youngs_modulus", bulk]),
        ("volume", "volume", ["volume_per_atom", "free_volume"]),
        ("coordination", "coordination of the modifier", [f"{m}_coordination" for m in modifiers] + shares[:1]),
        ("chains", "chains", [*chains, "former_chains"]),
    ):
        if panels := [name for name in requested if any(r.value for r in named(results, name))]:
            title = title_of(board, what if len(panels) > 1 else word(panels[0]))
            yield singles(board, results, panels, title).finish(folder / f"{file}.png")
    for former in in_order(_former(r) for r in results if _former(r)):
        yield from _of_former(board, results, former, folder)
    anions = [name.removeprefix("free_") for name in names if re.fullmatch(r"free_[A-Z][a-z]?", name)]
    kinds = {f"{kind}{anion}" for anion in anions for kind in ("B", "NB")}
    if bridging := [name for name in names if name in kinds and any(r.value for r in named(results, name))]:
        sheet = shares_of(board, results, bridging, title_of(board, "bridging and non-bridging anions"), "anions")
        yield sheet.finish(folder / "bridging.png")
    for name in names:
        if name.startswith("conductivity_") and any(r.value > 0.0 for r in named(results, name)):
            yield _conductivity(board, named(results, name)).finish(folder / f"{file_part(name)}.png")


def _former(result: Result) -> str:
    """Return the former whose unit this is (P of P0), or nothing: C11 is in GPa and not a share."""
    found = re.fullmatch(r"([A-Z][a-z]?)[0-9]", result.name)
    return found.group(1) if found and result.unit == "%" else ""


def _of_former(board: Scoreboard, results: Sequence[Result], former: str, folder: Path) -> Iterator[Path]:
    present = {r.name for r in results if r.value > 0.0}
    pair = f"{former}1{former}"
    units = [*(f"{former}{n}" for n in range(10)), pair]
    defects = [f"{former}3c", f"{former}2c", f"{former}2ES", f"{former}_other", "former_chains"]
    for what, of, requested in (("units", "of", units), ("defects", "around", defects)):
        if names := [name for name in requested if name in present]:
            sheet = shares_of(board, results, names, title_of(board, f"{what} {of} {former}"), former)
            if pair in names:
                sheet.note(f"{pair} is part of {former}1.")
            yield sheet.finish(folder / f"{what}_{former}.png")


# --- one property a panel ---------------------------------------------------------------------------------------------


def singles(board: Scoreboard, results: Sequence[Result], names: Sequence[str], title: str) -> Sheet:
    """Draw one panel per property, one colour per potential; dotted: the porous glass."""
    sheet = Sheet(board, title, grid_for(len(names)))
    say_rate(sheet, board)
    for name in names:
        mine = named(results, name)
        axes = sheet.panel()
        axes.set_ylabel(axis(name, mine[0].unit))
        if len(values_of(mine, _X)) > 1:
            _lines(sheet, axes, mine, looks_of(board), _X)
            axes.set_xlabel(_X)
        else:
            _side_by_side(sheet, axes, mine, looks_of(board, mine))
    return sheet


def _lines(sheet: Sheet, axes: Axes, mine: Sequence[Result], looks: dict[str, Look], key: str) -> None:
    for potential, look in looks.items():
        for porous in (False, True):
            of_one = [r for r in mine if r.condition["potential"] == potential and ("porous" in r.condition) == porous]
            if of_one:
                shown = Look(look.colour, look.marker, f"{potential}, porous", ":") if porous else look
                draw_line(sheet, axes, of_one, key, shown)
    draw_experiment(sheet, axes, mine, key)
    tick_compositions(axes, values_of(mine, key))
    widened(axes)


def _side_by_side(sheet: Sheet, axes: Axes, mine: Sequence[Result], looks: dict[str, Look]) -> None:
    x = float(mine[0].condition[_X])
    groups = groups_of(mine, lambda r: f"x = {x:g}" + ("\nporous" if "porous" in r.condition else ""))
    draw_bars(sheet, axes, groups, looks)
    print_values(axes, [g[name] for name in looks for g in groups.values() if name in g])
    mark_experiment(sheet, axes, [g.values() for g in groups.values()])
    axes.margins(y=0.12)


# --- several shares a panel -------------------------------------------------------------------------------------------


def shares_of(board: Scoreboard, results: Sequence[Result], names: Sequence[str], title: str, of: str) -> Sheet:
    """Draw several shares against x, one panel per potential; for one composition: groups of bars."""
    mine = [r for r in results if r.name in names and "porous" not in r.condition]
    potentials = potentials_of(board, mine)
    xs = values_of(mine, _X)
    if len(xs) == 1:
        sheet = Sheet(board, f"{title}, x = {xs[0]:g}")
        axes = sheet.panel()
        groups = {word(name): {r.condition["potential"]: r for r in named(mine, name)} for name in names}
        draw_bars(sheet, axes, groups, looks_of(board, mine))
        mark_experiment(sheet, axes, [g.values() for g in groups.values()])
        axes.set_ylabel(f"share of {of} (%)")
        say_rate(sheet, board)
        return sheet
    sheet = Sheet(board, title, grid_for(len(potentials)), is_shared=True)
    for potential in potentials:
        axes = sheet.panel(plain(potential))
        for k, name in enumerate(names):
            of_one = [r for r in named(mine, name) if r.condition["potential"] == potential]
            if of_one:
                draw_line(sheet, axes, of_one, _X, Look(colour(k), marker(k), word(name), line_style(k)))
                draw_experiment(sheet, axes, of_one, _X, marker(k))
        tick_compositions(axes, xs)
        widened(axes)
    sheet.label(_X, f"share of {of} (%)")
    say_rate(sheet, board)
    return sheet


# --- conductivity -----------------------------------------------------------------------------------------------------


def _conductivity(board: Scoreboard, results: Sequence[Result]) -> Sheet:
    """Draw conductivity against x, one panel per temperature; for one composition: against temperature."""
    mine = [r for r in results if r.value > 0.0]
    several_x = len(values_of(mine, _X)) > 1
    temperatures = values_of(mine, _T)
    name = mine[0].name
    title = title_of(board, word(name)) + ("" if several_x else f", x = {mine[0].condition[_X]:g}")
    sheet = Sheet(board, title, grid_for(len(temperatures)) if several_x else (1, 1))
    for T in temperatures if several_x else [None]:
        axes = sheet.panel(f"{T:g} K" if T is not None else None)
        axes.set_yscale("log")
        some = [r for r in mine if T is None or r.condition[_T] == T]
        _lines(sheet, axes, some, looks_of(board), _X if several_x else _T)
    sheet.label(_X if several_x else "T (K)", axis(name, mine[0].unit))
    for said, some in (
        ("Diffusion not converged", [r for r in mine if r.note and r.note.startswith("not converged")]),
        ("Not above zero and not shown", [r for r in results if r.value <= 0.0]),
    ):
        for T in values_of(some, _T):
            potentials = in_order(str(r.condition["potential"]) for r in some if r.condition[_T] == T)
            sheet.note(f"{said} at {T:g} K: {', '.join(potentials)}.")
    say_rate(sheet, board)
    return sheet
