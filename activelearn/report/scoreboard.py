"""Tables of a scoreboard: potentials x properties, and every number of every condition.

``scoreboard.md`` is for reading, ``scoreboard.csv`` and ``.json`` for further use, ``results.csv`` has all numbers.
Every cell has a value with its interval and number of replicas, or why there is none. If an experiment is
cited, a potential gets its mean absolute error (MAE) over the compositions (or crystals) for which the experiment is
known; if not, the table shows "no cited value" and the number itself.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from activelearn.records import Experiment, MadeGlass, Quoted, Result, Scoreboard
from activelearn.report.behind import deaths, error_of, interval, is_of, n_planned, number
from activelearn.report.cells import AXES, Cell, Row
from activelearn.report.stamps import by_potential, legend, stamp_of
from activelearn.stamping import NOT_JUDGED

NO_CITED_VALUE: Final = "no cited value"
#: Condition of numbers of a single glass, which are listed with the glasses, not in a separate row.
_REPLICA: Final = "replica"
#: Conditions as columns, in this order; others follow.
_CONDITIONS: Final = ("x", "crystal", "reaction", "temperature_K", "pair", "within", "cooling_rate_K_per_ps", "porous")
#: Texts of conditions in row labels.
_SAID: Final = {
    "temperature_K": "{:g} K",
    "cooling_rate_K_per_ps": "{:g} K/ps",
    "porous": "porous",
    "within": "within {}",
    "pair": "{}",
    "reaction": "{}",
}
#: Conditions that distinguish rows even if there is only one.
_ALWAYS_SAID: Final = ("pair", "reaction")


# --- rows -------------------------------------------------------------------------------------------------------------


def rows_of(results: Sequence[Result]) -> list[Row]:
    """Return the rows of the scoreboard, in the order of the results."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    varying = _varying(results)
    for result in results:
        condition = _said(result.condition, {key for name, key in varying if name == result.name})
        groups.setdefault((result.name, result.unit, condition), []).append(result)
    return [Row(*key, tuple(group), group[0].measured_by) for key, group in groups.items()]


def _all_rows(board: Scoreboard) -> list[Row]:
    """Return the rows of results, of cited numbers without results, and one per requested property without any."""
    rows = rows_of(board.results)
    known = {row.measured_by for row in rows}
    for one in board.unmet:
        k = next((k for k, row in enumerate(rows) if _is_in(one, row)), None)
        row = rows.pop(k) if k is not None else Row(one.name, one.unit, _said(one.condition), (), one.measured_by)
        rows.insert(k if k is not None else len(rows), replace(row, unmet=(*row.unmet, one)))
    known |= {row.name for row in rows}
    return rows + [Row(name, "", "", (), name) for name in board.asked if name not in known]


def _is_in(one: Experiment, row: Row) -> bool:
    """Return whether a cited number belongs in a row: the same quantity for other compositions (or crystals)."""
    first = row.results[0].condition if row.results else row.unmet[0].condition
    same = all(first.get(key) == value for key, value in one.condition.items() if key not in AXES)
    axes = {key for key in AXES if key in first} == {key for key in AXES if key in one.condition}
    return (row.name, row.unit) == (one.name, one.unit) and same and axes and "porous" not in first


def _said(condition: Mapping[str, Any], keys: Container[str] | None = None) -> str:
    """Return a condition in words, without compositions and crystals."""
    return ", ".join(
        _SAID.get(key, f"{key} {{}}").format(condition[key])
        for key in sorted(condition, key=_order)
        if (key not in AXES if keys is None else key in keys)
    )


def _varying(results: Sequence[Result]) -> set[tuple[str, str]]:
    """Return names of results, and conditions that distinguish their rows; pairs and reactions always do."""
    seen: dict[tuple[str, str], set[Any]] = {}
    keys = {key for result in results for key in result.condition} - {"potential", *AXES}
    for result, key in itertools.product(results, keys):
        seen.setdefault((result.name, key), set()).add(result.condition.get(key))
    return {one for one, values in seen.items() if len(values) > 1 or (one[1] in _ALWAYS_SAID and values != {None})}


def _order(key: str) -> tuple[int, str]:
    return (_CONDITIONS.index(key) if key in _CONDITIONS else len(_CONDITIONS), key)


# --- files ------------------------------------------------------------------------------------------------------------


def write_tables(board: Scoreboard, folder: Path) -> list[Path]:
    """Write scoreboard.csv, .json and .md, and results.csv.

    Returns
    -------
    list of Path
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    of_conditions = tuple(result for result in board.results if _REPLICA not in result.condition)
    rows = _all_rows(board.model_copy(update={"results": of_conditions}))
    paths = [folder / name for name in ("scoreboard.md", "scoreboard.csv", "scoreboard.json", "results.csv")]
    paths[0].write_text(markdown(board, rows), encoding="utf-8")
    _write_csv(paths[1], _scores(board, rows))
    document = {
        "study": board.study,
        "series": board.series,
        "potentials": {
            name: {"physics": board.physics.get(name), "version": board.versions.get(name)} for name in board.potentials
        },
        "scores": _scores(board, rows),
        "other simulations": [one.model_dump() for one in board.quoted],
        "problems": list(board.problems),
        "glasses": _glasses(board),
    }
    text = json.dumps(_finite(document), indent=1, ensure_ascii=False, allow_nan=False)
    paths[2].write_text(text + "\n", encoding="utf-8")
    _write_csv(paths[3], _numbers(board, rows))
    return paths


def _scores(board: Scoreboard, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return one mapping per potential and property, including those without a number."""
    return [
        {
            "potential": potential,
            "property": row.name,
            "condition": row.condition,
            "unit": row.unit,
            "MAE": cell.mae if cell.mae is not None else "; ".join(cell.bounds) or _no_mae(row, cell),
            "n_cited": len(cell.errors),
            "bounds": "; ".join(cell.bounds),
            "smallest": cell.range[0] if cell.range is not None else None,
            "largest": cell.range[1] if cell.range is not None else None,
            "n": len(cell.results),
            "experiment": row.experiment or NO_CITED_VALUE,
            "sources": "; ".join(row.sources),
            "stamp": cell.stamp or "",
            "said": cell.text.replace("**", ""),
        }
        for row, potential in itertools.product(rows, board.potentials)
        for cell in [row.of(potential, board)]
    ]


def _no_mae(row: Row, cell: Cell) -> str:
    if not row.sources:
        return NO_CITED_VALUE
    return "none: UNSTABLE" if cell.n_unstable else "none: no value where one is cited"


def _numbers(board: Scoreboard, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return one mapping per result, and one per missing number, with the reason."""
    results = board.results
    keys = sorted({key for result in results for key in result.condition} - {"potential"} | {"x"}, key=_order)
    found = [
        {
            "potential": result.condition.get("potential", ""),
            **{key: result.condition.get(key, "") for key in keys},
            "name": result.name,
            "value": result.value if math.isfinite(result.value) else None,
            "uncertainty": error_of(result),
            "unit": result.unit,
            "n": result.n_samples,
            "n planned": n_planned(result, board.glasses),
            "interval": interval(result),
            "reference value": result.reference_value,
            "reference uncertainty": result.reference_uncertainty,
            "reference bound": result.reference_bound,
            "reference source": result.reference_source or NO_CITED_VALUE,
            "stamp": stamp_of(result),
            "note": result.note,
            "why none": "" if math.isfinite(result.value) else "not finite",
        }
        for result in results
    ]
    for row, potential in itertools.product(rows, board.potentials):
        for condition, why in row.of(potential, board).lacks:
            if why != "not finite":  # it is listed above
                of = {key: condition.get(key, "") for key in keys}
                found.append(
                    {"potential": potential, **of, "name": row.name, "unit": row.unit, "n": 0, "why none": why}
                )
    return found


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        if rows:
            columns = dict.fromkeys(key for row in rows for key in row)
            writer = csv.DictWriter(stream, list(columns), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def _finite(data: Any) -> Any:  # noqa: ANN401 - JSON
    """Return the document with null for NaN, which JSON does not have."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


# --- Markdown ---------------------------------------------------------------------------------------------------------


def markdown(board: Scoreboard, rows: Sequence[Row]) -> str:
    """Return the readable table: head, glasses, cited properties, the others, pairs, stamps, sources, problems."""
    cited = [row for row in rows if row.sources]
    others = [row for row in rows if not row.sources]
    pairs = [row for row in others if row.results and "pair" in row.results[0].condition]
    plain = [row for row in others if row not in pairs]
    sources = list(dict.fromkeys(source for row in cited for source in row.sources))
    parts = [f"# Scoreboard: {board.study}"]
    parts += [f"Series: {board.series}"] if board.series else []
    parts.append(_head(board))
    parts += _section("Beside experiment", cited, board, sources)
    parts += _section("Properties with no cited value", plain, board, sources)
    parts += _section("Pairs of elements, no cited value", pairs, board, sources)
    parts += ["\n\n".join([_READING, *legend(board.results)])]
    if board.glasses:
        glasses = _glasses(board)
        parts += ["## Glasses", _table([*glasses[0]], [[*glass.values()] for glass in glasses])]
    if sources:
        parts += ["## Sources", "\n".join(f"{i}. {source}" for i, source in enumerate(sources, 1))]
    if board.quoted:
        parts += ["## What other simulations found (not experiment)", _quoted(board.quoted)]
    if board.problems:
        parts += ["## Could not be measured", "\n".join(f"- {problem}" for problem in board.problems)]
    return "\n\n".join(parts) + "\n"


_READING: Final = (
    "MAE: mean absolute error over the compositions (or crystals) with a cited experiment, n of them; then the value ± "
    "standard error over n of the replicas planned, or the smallest to the largest over all compositions. "
    "`results.csv` has all numbers."
)
_GLASS: Final = (
    "glass",
    "potential",
    "x",
    "K/ps",
    "replica",
    "porous",
    "ended",
    "outside the window",
    "melt",
    "density (g/cm3)",
)
#: An additional column if forces on frames of the paths were compared with a reference.
_FORCE_ERROR: Final = "true force error (eV/Å)"


def _head(board: Scoreboard) -> str:
    stamps = by_potential(board.results)
    lines = []
    for name in board.potentials:
        glasses = [glass for glass in board.glasses if glass.potential == name]
        n_made = sum(glass.is_finished for glass in glasses)
        made = f"{n_made} of {len(glasses)}" + (f" ({deaths(glasses)})" if n_made < len(glasses) else "")
        of_each = (board.physics.get(name, "not known"), board.versions.get(name, "not known"))
        lines.append([name, *of_each, made if glasses else "none asked for", stamps.get(name, "no path")])
    return _table(["potential", "physics", "version", "glasses made", "stamp"], lines)


def _glasses(board: Scoreboard) -> list[dict[str, str]]:
    """Return the cells of each glass, by column, including failed ones."""
    found = [dict(zip(_GLASS, _glass(glass), strict=True)) for glass in board.glasses]
    mine = [r for r in board.results if r.measured_by == "force_error" and _REPLICA in r.condition]
    for glass, line in zip(board.glasses, found, strict=True) if mine else ():
        line[_FORCE_ERROR] = _force_error([r for r in mine if is_of(glass, r.condition)])
    return found


def _force_error(results: Sequence[Result]) -> str:
    """Return the true error along one path in words, with the force deviation."""
    if not results:
        return "none"
    of = {result.name.removeprefix("force_error_"): number(result.value) for result in results}
    beside = [f"the largest of a frame {of['per_deviation']} x its deviation (median)"] if "per_deviation" in of else []
    beside += filter(None, [(results[0].note or "").partition("; ")[2]])
    said = f"RMSE {of['rmse']}, P99 {of['p99']}, largest {of['max']} ({results[0].n_samples} frames)"
    return "; ".join([said, *beside])


def _glass(glass: MadeGlass) -> list[str]:
    """Return one line about a glass, also if it failed."""
    judged = glass.trust if glass.is_finished else NOT_JUDGED
    if not glass.is_finished and glass.outside_share is not None and glass.n_judged:
        judged = f"{100 * glass.outside_share:.1f} % of frames until then"
    rate = "as written" if glass.cooling_rate_K_per_ps is None else f"{glass.cooling_rate_K_per_ps:g}"
    ended = "finished" if glass.is_finished else glass.stamp
    density = "none: it died" if glass.density_g_cm3 is None or not glass.is_finished else number(glass.density_g_cm3)
    porous = "yes" if glass.is_porous else "no"
    melt, x = glass.melted, f"{glass.x:g}"
    return [glass.id, glass.potential, x, rate, str(glass.replica), porous, ended, judged, melt, density]


def _section(title: str, rows: Sequence[Row], board: Scoreboard, sources: Sequence[str]) -> list[str]:
    if not rows:
        return []
    lines = []
    for row in rows:
        numbers = ", ".join(str(sources.index(source) + 1) for source in row.sources)
        cited = f"{row.experiment} [{numbers}]" if numbers else NO_CITED_VALUE
        lines.append([row.label, row.unit, cited, *(row.of(potential, board).text for potential in board.potentials)])
    return [f"## {title}", _table(["property", "unit", "experiment", *board.potentials], lines)]


def _quoted(quoted: Sequence[Quoted]) -> str:
    def conditions(one: Quoted) -> str:
        return ", ".join(
            _SAID.get(key, f"{key} = {{}}").format(one.condition[key]) for key in sorted(one.condition, key=_order)
        )

    return _table(
        ["property", "at", "value", "unit", "source"],
        [[one.name, conditions(one) or "the series", number(one.value), one.unit, one.source] for one in quoted],
    )


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(head), line("---" for _ in head), *(line(cells) for cells in lines)])
