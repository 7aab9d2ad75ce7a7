"""Pictures of a study: the path of each glass with its deviation, and the lines that were measured."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from activelearn.frames import FloatArray, density_of
from activelearn.page.findings.glasses import where_outside
from activelearn.page.markup import Figure, Html, Numbers, joined, tag
from activelearn.page.seen import SeenPath, SeenStudy
from activelearn.page.svg import N_COLOURS, Axis, Plot, axis_of, drawing, stacked
from activelearn.records import Curve, MadeGlass, Result
from activelearn.report.behind import error_of, interval
from activelearn.report.stamps import stamp_of

#: Maximum number of points drawn of a path or line.
_MOST_POINTS: Final = 400
_MOST_LINES: Final = 12
#: Lines that are drawn: name, title of the figure, and range in ångström or ps.
_LINES: Final = {
    "rdf": "pair distribution functions",
    "msd": "mean square displacements",
    "arrhenius": "conductivity",
    "stress_strain": "stress and strain",
}
#: What is compared with the reference.
_PARITY: Final = {"parity_energy": "energies", "parity_force": "forces", "parity_virial": "virials"}


def figures(seen: SeenStudy) -> Iterator[Figure]:
    """Yield the figures."""
    for k, group in enumerate(_groups(seen)):
        yield _path(seen, group, k)
    curves = seen.board.curves if seen.board is not None else ()
    quench = [c for c in curves if c.name == "evolution" and c.x_name.startswith("T")]
    for name in dict.fromkeys(c.y_name for c in quench):
        yield from _lines(seen, [c for c in quench if c.y_name == name], f"units on cooling: {name}", "evolution")
    for name, title in _LINES.items():
        yield from _lines(seen, [c for c in curves if c.name == name], title, name)
    for name in _PARITY:
        yield from (_parity(seen, c) for c in curves if c.name == name and f"{c.key}/x" in seen.curves)


def _groups(seen: SeenStudy) -> list[list[MadeGlass]]:
    """Return the glasses whose path is known, grouped as replicas."""
    found: dict[tuple[object, ...], list[MadeGlass]] = {}
    for glass in seen.glasses:
        if glass.id in seen.paths and len(seen.paths[glass.id].thermo):
            key = (glass.potential, glass.x, glass.cooling_rate_K_per_ps, glass.is_porous)
            found.setdefault(key, []).append(glass)
    return list(found.values())


def _said(glass: MadeGlass) -> str:
    rate = "" if glass.cooling_rate_K_per_ps is None else f", {glass.cooling_rate_K_per_ps:g} K/ps"
    return f"{glass.formula}, {glass.potential}, x = {glass.x:g}{rate}{', porous' if glass.is_porous else ''}"


def _thinned(n: int) -> NDArray[np.intp]:
    return np.unique(np.linspace(0, max(n - 1, 0), min(n, _MOST_POINTS)).round().astype(np.intp))


def _path(seen: SeenStudy, group: list[MadeGlass], k: int) -> Figure:
    paths = [(glass, seen.paths[glass.id]) for glass in group]
    longest = max(float(path.times_ps.max()) for _, path in paths)
    x = Axis("time (ps)", 0.0, longest or 1.0)
    window = seen.windows.get(group[0].potential)
    symbols = {glass.id: _symbols(glass.formula) for glass in group}
    panels: list[tuple[str, Callable[[MadeGlass, SeenPath], FloatArray], bool]] = [
        ("temperature (K)", lambda _, path: path.thermo.temperature_K, False),
        ("density (g/cm³)", lambda glass, path: density_of(symbols[glass.id], path.thermo.volume), False),
    ]
    if any(np.isfinite(path.thermo.max_devi_f).any() for _, path in paths):
        panels.append(("force deviation (eV/Å)", lambda _, path: path.thermo.max_devi_f, True))
    parts: list[Html] = []
    top = 0.0
    for name, of, is_log in panels:
        values = [of(glass, path) for glass, path in paths]
        ends = [np.array(window)] if is_log and window is not None else []
        plot = Plot(x, axis_of(name, [*values, *ends], is_log=is_log), name, width=900.0, height=190.0)
        if is_log and window is not None:
            plot.window(*window, along="y")
        for (glass, path), value in zip(paths, values, strict=True):
            rows = _shown(value, is_log=is_log)
            style, is_last = f"c{glass.replica % N_COLOURS}", name == panels[-1][0]
            told = f"{glass.id}: {glass.stamp}"
            label = f"replica {glass.replica}" if is_last else None
            plot.line(path.times_ps[rows], value[rows], f"{style} thin", told, label=label)
        if name == panels[0][0]:
            _name_segments(plot, paths[0][1])
        parts.append(tag("g", plot.inner(), transform=f"translate(0 {top:.0f})"))
        top += plot.full_height
    rows_ = [_glass_row(seen, glass) for glass in group]
    columns = ("glass", "atoms", "ended", "density (g/cm³)", "outside the window (%)", "where outside", "melt")
    title = f"Path of {_said(group[0])}"
    return Figure(
        name=f"path-{_file(seen.name)}-{k}",
        title=title,
        caption="Temperature, density and force deviation from the packing to the glass, one line per replica; "
        "shaded: the trust window.",
        picture=drawing(joined(parts), 900.0, top, title),
        numbers=Numbers(f"glasses-{k}", columns, rows_),
        is_wide=True,
    )


def _shown(value: FloatArray, *, is_log: bool) -> NDArray[np.intp]:
    """Return the rows that are drawn: for a deviation, the evaluated ones."""
    known = np.flatnonzero(np.isfinite(value)) if is_log else np.arange(len(value))
    return np.asarray(known[_thinned(len(known))], dtype=np.intp) if len(known) else np.empty(0, dtype=np.intp)


def _symbols(formula: str) -> list[str]:
    found = re.findall(r"([A-Z][a-z]?)(\d*)", formula)
    return [element for element, n in found for _ in range(int(n or 1))]


def _name_segments(plot: Plot, path: SeenPath) -> None:
    for i, name in enumerate(path.segments):
        mine = path.times_ps[path.thermo.segment == i]
        if len(mine):
            plot.mark(float(mine.min()), along="x", name=name, row=i % 2)


def _glass_row(seen: SeenStudy, glass: MadeGlass) -> tuple[str | float | None, ...]:
    window, path = seen.windows.get(glass.potential), seen.paths.get(glass.id)
    where = where_outside(path, window[1]) if window is not None and path is not None else ""
    share = None if glass.outside_share is None else 100.0 * glass.outside_share
    return (glass.id, glass.n_atoms, glass.ended, glass.density_g_cm3, share, where, glass.melted)


def glasses_table(seen: SeenStudy) -> Numbers:
    """Return the table of all glasses, including failed ones."""
    columns = ("glass", "potential", "formula", "atoms", "ended", "density (g/cm³)", "trust", "melt", "time (s)")
    rows = [
        (g.id, g.potential, g.formula, g.n_atoms, g.ended, g.density_g_cm3, g.trust, g.melted, g.seconds)
        for g in seen.glasses
    ]
    return Numbers(f"glasses-{_file(seen.name)}", columns, rows)


def results_table(seen: SeenStudy) -> Numbers:
    """Return every number of the scoreboard with its unit, interval, source and stamp."""
    columns = (
        *("potential", "condition", "property", "value", "± (standard error)", "unit", "n", "interval"),
        *("cited", "± (cited)", "source", "stamp", "note"),
    )
    rows = []
    for one in seen.board.results if seen.board is not None else ():
        condition = {key: value for key, value in one.condition.items() if key != "potential"}
        of = ", ".join(
            f"{key} = {value:g}" if isinstance(value, float) else str(value) for key, value in condition.items()
        )
        bound = f"{one.reference_bound} " if one.reference_bound else ""
        cited: str | float | None = one.reference_value
        if bound and one.reference_value is not None:
            cited = f"{bound}{one.reference_value:g}"
        unit = "" if one.unit == "1" else one.unit
        rows.append(
            (
                *(str(one.condition.get("potential", "")), of, one.name, one.value, error_of(one), unit, one.n_samples),
                *(interval(one), cited, one.reference_uncertainty, one.reference_source or "no cited value"),
                *(stamp_of(one) or "", one.note or ""),
            )
        )
    return Numbers(f"results-{_file(seen.name)}", columns, rows)


# --- lines of the scoreboard ------------------------------------------------------------------------------------------


def _lines(seen: SeenStudy, curves: Sequence[Curve], title: str, name: str) -> Iterator[Figure]:
    """Yield a figure per condition: lines by label, without those that are zero throughout."""
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        if f"{curve.key}/x" in seen.curves and np.any(np.abs(seen.curves[f"{curve.key}/y"]) > 0.0):
            of = ", ".join(
                f"{key} = {value:g}" if isinstance(value, float) else str(value)
                for key, value in curve.condition.items()
                if key != "segment"
            )
            groups.setdefault(of, []).append(curve)
    for k, (of, mine) in enumerate(list(groups.items())[:_MOST_LINES]):
        found = _deviations_on_cooling(seen, mine[0]) if name == "evolution" else []
        x = axis_of(mine[0].x_name, [*(seen.curves[f"{c.key}/x"] for c in mine), *(t for _, t, _ in found)])
        y = axis_of(mine[0].y_name, [seen.curves[f"{c.key}/y"] for c in mine])
        plot = Plot(x, y, f"{title}, {of}")
        rows: list[tuple[str | float | None, ...]] = []
        for i, curve in enumerate(mine):
            xs, ys = seen.curves[f"{curve.key}/x"], seen.curves[f"{curve.key}/y"]
            errors = seen.curves.get(f"{curve.key}/error")
            rows += [
                (curve.label, float(a), float(b), None if errors is None else float(errors[j]))
                for j, (a, b) in enumerate(zip(xs, ys, strict=True))
            ]
            order = np.argsort(xs, kind="stable")
            plot.line(
                xs[order], ys[order], f"c{i % N_COLOURS}", f"{curve.label}: {curve.stamp or ''}", label=curve.label
            )
        below = _below(seen, mine[0], x, found) if found else None
        yield Figure(
            name=f"{name}-{_file(seen.name)}-{_file(mine[0].y_name)}-{k}",
            title=f"{title[0].upper()}{title[1:]}",
            caption=f"{of}{_stamps(mine)}" + ("; below: force deviation and trust window" if below is not None else ""),
            picture=plot.svg() if below is None else stacked(plot, below),
            numbers=Numbers(f"{name}-{k}", ("line", mine[0].x_name, mine[0].y_name, "± (standard error)"), rows),
        )


def _deviations_on_cooling(seen: SeenStudy, curve: Curve) -> list[tuple[MadeGlass, FloatArray, FloatArray]]:
    """Return temperature (n,) K and force deviation (n,) eV/Å of each glass of a curve, in the segment of the curve."""
    found = []
    for glass in seen.glasses:
        path, of = seen.paths.get(glass.id), {"potential": glass.potential, "x": glass.x}
        segment = str(curve.condition.get("segment", ""))
        if path is None or segment not in path.segments or any(curve.condition.get(k, v) != v for k, v in of.items()):
            continue
        if curve.condition.get("cooling_rate_K_per_ps") not in {None, glass.cooling_rate_K_per_ps}:
            continue
        rows = path.thermo
        mine = np.flatnonzero((rows.segment == path.segments.index(segment)) & np.isfinite(rows.max_devi_f))
        mine = mine[_thinned(len(mine))] if len(mine) else mine
        if len(mine):
            found.append((glass, rows.temperature_K[mine], rows.max_devi_f[mine]))
    return found


def _below(seen: SeenStudy, curve: Curve, x: Axis, found: Sequence[tuple[MadeGlass, FloatArray, FloatArray]]) -> Plot:
    """Return the plot of force deviations over temperature, with the trust window."""
    window = seen.windows.get(str(curve.condition.get("potential")))
    ends = [np.array(window)] if window is not None else []
    y = axis_of("force deviation (eV/Å)", [*(deviation for *_, deviation in found), *ends], is_log=True)
    plot = Plot(x, y, "force deviation", height=200.0)
    if window is not None:
        plot.window(*window, along="y")
    for glass, temperature, deviation in found:
        style = f"f{glass.replica % N_COLOURS}"
        plot.points(temperature, deviation, f"{style} faint", r=1.8)
        plot.name(f"replica {glass.replica}", style)
    return plot


def _stamps(curves: Sequence[Curve]) -> str:
    stamps = list(dict.fromkeys(c.stamp for c in curves if c.stamp))
    return f" [{'; '.join(stamps)}]" if stamps else ""


def _parity(seen: SeenStudy, curve: Curve) -> Figure:
    x, y = seen.curves[f"{curve.key}/x"], seen.curves[f"{curve.key}/y"]
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    room = 0.03 * (high - low) or 1.0
    axis = (low - room, high + room)
    plot = Plot(Axis(curve.x_name, *axis), Axis(curve.y_name, *axis), curve.y_name, height=470.0)
    edges = np.linspace(*axis, 61)
    counts, _, _ = np.histogram2d(x, y, bins=(edges, edges))
    top = float(np.log1p(counts.max()))
    for i, j in np.argwhere(counts > 0):
        n = int(counts[i, j])
        box = (float(edges[i]), float(edges[i + 1])), (float(edges[j]), float(edges[j + 1]))
        plot.box(*box, "heat", f"{n} points", fill_opacity=round(0.2 + 0.8 * float(np.log1p(n)) / top, 2))
    plot.line(np.array(axis), np.array(axis), "c6", "potential = reference")
    what = _PARITY[curve.name]
    return Figure(
        name=f"{_file(curve.name)}-{_file(seen.name)}-{_file(curve.label)}",
        title=f"{what.capitalize()} against the reference: {curve.label}",
        caption=f"{_against(seen, curve)}, {len(x)} points{_errors(seen, curve)}; darker: more points.",
        picture=plot.svg(),
    )


def _measured(seen: SeenStudy, curve: Curve, measure: str) -> Result | None:
    """Return the error of what a parity plot shows; of energies, less the shift per element."""
    name = f"{curve.name.removeprefix('parity_')}_{measure}"
    name += "_shifted" if curve.name == "parity_energy" else ""
    results = seen.board.results if seen.board is not None else ()
    return next((one for one in results if one.name == name and one.condition == curve.condition), None)


def _against(seen: SeenStudy, curve: Curve) -> str:
    """Return which frames a parity plot is of."""
    found = _measured(seen, curve, "rmse")
    said = found.note.split(";")[0] if found is not None and found.note else "against labelled frames"
    return f"{said[0].upper()}{said[1:]}"


def _errors(seen: SeenStudy, curve: Curve) -> str:
    """Return the errors of all frames that a parity plot is of, with their unit."""
    rmse, mae = (_measured(seen, curve, measure) for measure in ("rmse", "mae"))
    if rmse is None or mae is None:
        return ""
    return f" (RMSE {rmse.value:.3g}, MAE {mae.value:.3g} {rmse.unit}, {rmse.n_samples} frames)"


def _file(text: str) -> str:
    """Return text as part of a file name or anchor."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()
