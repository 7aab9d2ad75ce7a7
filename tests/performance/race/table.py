"""The table of the race: medians over the rounds, and the ratios with their targets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sides import Run, median

WHEEL, BARE = "dpgen, wheel's lmp", "dpgen, bare lmp"
#: Errors of the ensemble of one run: ``rmse`` and ``p99`` of the force, mean over the members, eV/Å.
Errors = Mapping[str, float]


@dataclass(frozen=True)
class Wanted:
    """A target: the largest ratio of ours to another side's."""

    what: str
    of: str
    other: str
    most: float


WANTED = (
    Wanted("CPU to the first pass below the bounds", "cpu_s", WHEEL, 0.42),
    Wanted("CPU to the first pass below the bounds", "cpu_s", BARE, 0.67),
    Wanted("wall time to the first pass below the bounds", "wall_s", WHEEL, 0.28),
    Wanted("CPU of one walk", "walk_s", WHEEL, 0.08),
    Wanted("CPU of one walk", "walk_s", BARE, 0.35),
    Wanted("peak memory", "peak_MB", WHEEL, 1.0),
    Wanted("peak memory", "peak_MB", BARE, 1.0),
    Wanted("CPU to the first pass below the bounds", "cpu_s", "baseline", 0.5),
)


def lines(runs: Mapping[str, Sequence[Run]], errors: Mapping[str, Sequence[Errors]]) -> list[str]:
    """Return the table of all sides and that of the ratios, in Markdown.

    Parameters
    ----------
    runs
        The rounds of each side.
    errors
        Held-out errors of each of them.
    """
    sides = list(runs)
    out = [f"| medians of {max(map(len, runs.values()))} | {' | '.join(sides)} |", "|---" * (len(sides) + 1) + "|"]
    for what, value in _rows(errors):
        out.append(f"| {what} | {' | '.join(value(side, runs[side]) for side in sides)} |")
    out += ["", "| ours / other side | measured | target, at most | |", "|---|---|---|---|"]
    for wanted in WANTED:
        if "ours" in runs and wanted.other in runs:
            found = median(runs["ours"], wanted.of) / median(runs[wanted.other], wanted.of)
            verdict = "yes" if found <= wanted.most else "no"
            out.append(f"| {wanted.what}, of {wanted.other} | {found:.3f} | {wanted.most:g} | {verdict} |")
    if "ours" in errors and "baseline" in errors:
        ours, theirs = (_mean(errors[side], "p99") for side in ("ours", "baseline"))
        out += ["", f"Held-out P99 of ours {ours:.3f} eV/Å, of the baseline {theirs:.3f}: " + _same_state(ours, theirs)]
    return out


def _same_state(ours: float, theirs: float) -> str:
    return "at least the same state." if ours <= theirs else "not the same state, and the ratio of CPU says nothing."


def _mean(errors: Sequence[Errors], name: str) -> float:
    return statistics.median(one[name] for one in errors)


def _rows(errors: Mapping[str, Sequence[Errors]]) -> list[tuple[str, Callable[[str, Sequence[Run]], str]]]:
    """Return the rows: what stands at their left, and the cell of a side."""

    def number(of: str, form: str) -> Callable[[str, Sequence[Run]], str]:
        return lambda _, runs: format(median(runs, of), form)

    def phase(name: str) -> Callable[[str, Sequence[Run]], str]:
        return lambda _, runs: f"{statistics.median(run.cpu_of(name) for run in runs):.1f}"

    def error(name: str) -> Callable[[str, Sequence[Run]], str]:
        return lambda side, _: f"{_mean(errors[side], name):.4f}" if side in errors else ""

    return [
        ("below the bounds", lambda _, runs: ", ".join("yes" if run.is_below else "no" for run in runs)),
        ("candidates by pass, % (first round)", lambda _, runs: _shares(runs[0])),
        ("walks; labels (first round)", lambda _, runs: f"{sum(p.walks for p in runs[0].passes)}; {runs[0].labels}"),
        ("held-out force RMSE, eV/Å, mean over the members", error("rmse")),
        ("held-out P99 of the force error, eV/Å", error("p99")),
        ("CPU to the first pass below the bounds, s", number("cpu_s", ".1f")),
        ("of it trainings", phase("train")),
        ("of it exploration, with its selection", phase("explore")),
        ("of it labels", phase("label")),
        ("CPU of the whole command, s", number("whole_cpu_s", ".1f")),
        ("wall time to the first pass below the bounds, s", number("wall_s", ".1f")),
        ("CPU of one walk, s", number("walk_s", ".2f")),
        ("peak memory (PSS), MB", number("peak_MB", ".0f")),
        ("files; MB on disk", lambda _, runs: f"{median(runs, 'files'):.0f}; {median(runs, 'megabytes'):.1f}"),
    ]


def _shares(run: Run) -> str:
    return ", ".join(f"{100 * one.candidates / max(one.frames, 1):.2f}" for one in run.passes)
