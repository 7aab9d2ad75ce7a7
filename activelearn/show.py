"""What a person sees: live progress of `run`, the table of `status`, the closing lines."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activelearn import final_models, learning, loop, taught
from activelearn.benchmark import cited
from activelearn.config import CitedPoint, Condition
from activelearn.errors import ActiveLearnError, typed
from activelearn.records import Counts, End, Iteration, Result, Scoreboard
from activelearn.report.behind import counted, losses, value_of, with_interval
from activelearn.report.stamps import doubts
from activelearn.status import StationProgress, progress
from activelearn.store import Folder, Store, StudyStore

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_EVERY_S = 0.5


class Watcher:
    """Shows the progress of a campaign by watching its folder; a context manager with a thread of its own.

    On a terminal a live line per station (rich); elsewhere one plain line when a station begins, every ten seconds
    while it runs, and when an iteration ends.
    """

    def __init__(self, store: Folder) -> None:
        self.store = type(store)(store.folder)  # its own reader: nothing is shared with the working thread
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
        self._shown: set[int] = set()
        with contextlib.suppress(ActiveLearnError):  # such as a record that is being made again
            self._shown = {record.index for record in self.store.iterations()}
        self._began: dict[tuple[int, str], float] = {}
        self._said: dict[tuple[int, str], tuple[int, float]] = {}
        self._live: Any = None

    def __enter__(self) -> Watcher:
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(refresh_per_second=4)
            self._live.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        try:
            with contextlib.suppress(ActiveLearnError, OSError):  # how the run ended matters more than its last line
                self._look()
        finally:
            if self._live is not None:
                self._live.update("")
                self._live.stop()

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY_S):
            with contextlib.suppress(ActiveLearnError, OSError):  # the working thread reports it
                self._look()

    def _look(self) -> None:
        for record in self.store.iterations():
            if record.index not in self._shown:
                self._shown.add(record.index)
                self._print(iteration_line(record))
        now = time.monotonic()
        stations = [p for p in progress(self.store) if not p.is_sealed]
        for p in stations:
            self._began.setdefault((p.iteration, p.station), now)
        if self._live is not None:
            lines = [f"  {_progress_line(p, now - self._began[p.iteration, p.station], bar=True)}" for p in stations]
            self._live.update("\n".join(lines))
            return
        for p in stations:
            key = (p.iteration, p.station)
            done, when = self._said.get(key, (-1, 0.0))
            if done < 0 or (p.done != done and now - when > 10.0):
                self._said[key] = (p.done, now)
                self._print(_progress_line(p, now - self._began[key], bar=False))

    def _print(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(line, highlight=False)
        else:
            print(line, flush=True)


def _progress_line(p: StationProgress, seconds: float, *, bar: bool) -> str:
    drawn = f" {_bar(p.done, p.total)}" if bar else ""
    where = "study" if loop.STATIONS[p.station].phase == "study" else f"iteration {p.iteration}"
    return f"{where}  {p.station:<8}{drawn} {p.done}/{p.total}  {seconds:.0f} s"


def _bar(done: int, total: int, width: int = 30) -> str:
    full = round(width * done / max(total, 1))
    return "█" * full + "░" * (width - full)


def iteration_line(record: Iteration) -> str:
    """Return one iteration as a line."""
    what = record.selection.why if record.selection is not None else "initial data"
    parts = [f"iteration {record.index}: {what}"]
    if record.initial is not None and record.initial.failed:
        parts.append(f"{len(record.initial.failed)} of {len(record.initial.walks)} trajectories failed")
    if record.initial is not None and record.initial.driver is not None:
        moved = f"{record.initial.md_frames} frames of MD by {record.initial.driver['calculator']}"
        outside = "".join(f", {n} more {reason}" for reason, n in record.initial.refused.items())
        parts.append(f"{moved} in {record.initial.md_calls} calls{outside}")
    labelling = record.labelling
    refused = f", {sum(labelling.refused.values())} refused" if labelling.refused else ""
    if labelling.labelled or refused:
        rescued = f" ({labelling.rescued} rescued)" if labelling.rescued else ""
        parts.append(f"{labelling.labelled} labels{rescued}{refused}")
    parts.append(f"{labelling.dataset_frames} training frames")
    rmse = record.ensemble.force_rmse
    if rmse is not None:
        parts.append(f"held-out force RMSE {rmse:.3f} eV/Å")
    if any(member.compressed is not None for member in record.ensemble.members):
        parts.append("compressed models")
    if record.ensemble.trained_in == record.index:
        parts += learning.in_short(record.ensemble)
    seconds = "  ".join(f"{name} {s.wall:.0f} s" for name, s in record.seconds.items() if s.wall >= 0.5)
    return "; ".join(parts) + f"\n             {seconds}"


def end_report(store: Store, end: End) -> None:
    """Print how a campaign ended, where the time went, and the next command."""
    from activelearn import study

    records = store.iterations()
    seconds = [s for record in records for s in record.seconds.values()]
    seconds += [loop.seconds(store, station, end.iteration) for station in loop.LAST]
    wall = sum(s.wall for s in seconds)
    engine = sum(s.engine for s in seconds)
    print(end.message)
    for line in (*taught.said(store), *final_models.chosen(store, end.iteration).said):
        print(line)
    if (asked := study.of_campaign(store, store.latest_campaign())) is not None:
        study_report(study.store_of(store, end.iteration, asked))  # of the models that are kept: not always the last
    print(f"{wall:.0f} s at the stations, {100 * engine / max(wall, 1e-9):.0f} % of it in the engines")
    here, name = typed(_short(store)), store.latest_campaign().name
    print(f"next: activelearn status {here};  activelearn export {here} --to models-{name}")


def study_report(store: StudyStore, points: Sequence[CitedPoint] = ()) -> bool:
    """Print the glasses of a study with their stamps, the results, and where tables and figures are.

    Parameters
    ----------
    store
        The study.
    points
        Cited numbers of the user's CSVs.

    Returns
    -------
    bool
        Whether something that was requested was lost.
    """
    from activelearn import study

    glasses, board = study.glasses_of(store), study.scoreboard_of(store)
    for work in progress(store):
        if not work.is_sealed:
            print(f"at work: {work.station} {work.done}/{work.total}")
    for glass in glasses.glasses if glasses is not None else ():
        is_there = glass.is_finished and glass.density_g_cm3 is not None
        density = f"{glass.density_g_cm3:.2f} g/cm3" if is_there else "no density"
        melted = "" if not glass.is_finished or glass.melted in glass.stamp else f"; {glass.melted}"
        print(f"glass {glass.id}: {glass.formula}, {glass.n_atoms} atoms, {density}  [{glass.stamp}]{melted}")
    here = _short(store)
    if board is not None:
        figures = f";  figures: {here}/figures/" if board.results or board.curves else ""
        print(*result_lines(board), f"scoreboard: {here}/tables/scoreboard.md{figures}", sep="\n")
        for line in cited.said(store.study, cited.own_points(store.study, points), board.results):
            print(line)
    elif glasses is not None and any(glass.is_finished for glass in glasses.glasses):
        print(f"structures: {here}/glass/*.extxyz")
    lost = losses(board, glasses.glasses if glasses is not None else ())
    if lost is not None:
        print(f"finished with losses: {lost}")
    return lost is not None


def result_lines(board: Scoreboard) -> list[str]:
    """Return the numbers of a scoreboard, one line per potential and condition, zeros left out."""
    lines: dict[str, list[str]] = {}
    for result in board.results:
        if result.condition.keys() - {"potential", "x", "cooling_rate_K_per_ps", "porous", "crystal", "reaction"}:
            continue  # pairs and temperatures are for the tables
        row = lines.setdefault(f"{_measured(result)} ({counted(result, board.glasses)})", [])
        if value_of(result) != 0.0:
            unit = "" if result.unit == "1" else f" {result.unit}"
            doubted = f" [{', '.join(doubts(result).values())}]" if doubts(result) else ""
            row.append(f"{result.name} {with_interval(result)}{unit}{doubted}")
    return [f"{head}: {', '.join(row)}" for head, row in lines.items()] + [f"not measured: {p}" for p in board.problems]


def _measured(result: Result) -> str:
    """Return what a number is of: potential, and crystal or glass; a porous glass differs from the dense one."""
    c = result.condition
    what = c.get("crystal") or c.get("reaction") or (f"x = {c['x']:g}" if "x" in c else "")
    rate = f" {c['cooling_rate_K_per_ps']:g} K/ps" if "cooling_rate_K_per_ps" in c else ""
    return f"{c.get('potential', '')} {what}{rate}{' porous' if 'porous' in c else ''}".strip()


def _short(store: Folder) -> str:
    here = Path.cwd()
    return str(store.folder.relative_to(here) if store.folder.is_relative_to(here) else store.folder)


#: Headings of the columns of `status`; all fit into 80 characters.
_COLUMNS = (
    "it",
    "walked",
    "accur.",
    "cand.",
    "failed",
    "out",
    "labels",
    "refused",
    "data",
    "F RMSE",
    "wall s",
    "engine",
)
#: Classes of frames whose shares are shown.
_CLASSES = ("accurate", "candidate", "failed")


def console_of(width: int = 100, **how: Any) -> Console:  # noqa: ANN401 - of a Console
    """Return where tables are printed; a pipe, which has no width, gets one."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else width, **how)


def _table(title: str, texts: dict[str, int | None], numbers: Sequence[str]) -> Table:
    """Return an empty table: columns of text with their largest widths, columns of numbers."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for name, width in texts.items():
        table.add_column(name, no_wrap=True, max_width=width)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def status_table(found: dict[str, Any]) -> None:
    """Print what :func:`activelearn.status.as_dict` found as a table of 80 columns."""
    console = console_of()
    table = _table(f"{found['name']}  ({found['state']})", {}, _COLUMNS)
    for row in found["iterations"]:
        table.add_row(*_status_row(row))
    console.print(table)
    console.print("F RMSE: held-out forces, eV/Å; out: frames out of the region; engine: share of wall")
    for row in found["iterations"]:
        console.print(f"{row['index']:>2}  {', '.join(row['stages']) or 'initial'}: {row['verdict']}", soft_wrap=True)
        for note in _notes(row):
            console.print(f"      {note}", soft_wrap=True)
    matrix_table(console, found["iterations"])
    held_out_table(console, found["iterations"])
    if found["calibration"] is not None:
        console.print(_calibration_line(found["calibration"]), soft_wrap=True)
    for line in _closing_lines(found):
        console.print(line, soft_wrap=True)


def _closing_lines(found: dict[str, Any]) -> list[str]:
    """Return the current state: work, LaunchPad, stops, the verdict."""
    lines = [
        f"at work: iteration {work['iteration']} {work['station']} {work['done']}/{work['total']}"
        for work in found["at_work"]
        if not work["is_sealed"]
    ]
    if found["submitted_to"]:
        lines.append(f"submitted to {found['submitted_to']}")
    stops = [found["stopped"], *(study["stopped"] for study in found["studies"])]
    lines += [f"STOPPED: {stop}" for stop in stops if stop]
    if found["message"] and not found["converged"]:
        lines.append(found["message"])
    elif found["accuracy"]:  # and the verdict itself is above
        accuracy = found["accuracy"]
        lines += [
            f"ensemble of the pass of iteration {accuracy['iteration']}: {accuracy['said']}",
            *accuracy["warnings"],
        ]
    lines += found["teacher"]["said"] if found["teacher"] else []
    return lines + (found["final"]["said"] if found["final"] else [])


def _notes(row: dict[str, Any]) -> list[str]:
    """Return further notes on an iteration: nothing is dropped silently."""
    return [
        *(f"start {line}" for line in row["not_relaxed"]),
        *(f"initial trajectory {name}: {ended}" for name, ended in row["initial_failed"].items()),
        *(f"{n} refused: {reason}" for reason, n in row["refused"].items()),
        *row["compression"],
        *row["resumed"],
        *row["problems"],
    ]


def matrix_table(console: Console, iterations: list[dict[str, Any]]) -> None:
    """Print the coverage matrix of the last pass: stage x temperature x pressure or strain, in 80 columns.

    Stages that were not walked are included, with the frames that they are judged on.
    """
    last = next((row for row in reversed(iterations) if row["cells"]), None)
    if last is None:
        return
    numbers = ("walks", "frames", "accur.", "cand.", "failed", "out")
    table = _table(f"coverage, iteration {last['index']}", {"stage": 16, "condition": None}, numbers)
    table.add_column("along", no_wrap=True)
    for cell, is_walked in [*((c, True) for c in last["cells"]), *((c, False) for c in last["rested"])]:
        counts = Counts.model_validate(cell["counts"])
        shares = [f"{100 * counts.share(kind):.1f}%" for kind in _CLASSES]
        shown = shares if counts.in_region else ["-", "-", "-"]
        condition = str(Condition(**{name: cell[name] for name in Condition._fields}))
        along = "".join(_worst(Counts.model_validate(part)) for part in cell["along"])
        row = [str(counts.walks) if is_walked else "rests", str(counts.walked), *shown, str(counts.out_of_region)]
        table.add_row(cell["stage"], condition, *row, along)
    console.print(table)
    console.print("along: fifths of a ramp or strain, mostly a accurate, c candidate, f failed, o out of region")
    if last["rested"]:
        console.print("rests: not walked in this pass; its frames are those of passes before, by the same models")


def _worst(counts: Counts) -> str:
    """Return the letter of the largest class."""
    found = {name[0]: getattr(counts, name) for name in (*_CLASSES, "out_of_region")}
    return max(found, key=lambda letter: found[letter]) if counts.walked else "-"


def _calibration_line(found: dict[str, Any]) -> str:
    low, median, high = found["ratio"]
    return (
        f"calibration: {found['n_pairs']} labelled frames; largest force error / deviation {median:.1f} "
        f"({low:.1f} to {high:.1f} in 90 %); error above {found['max_error']:g} eV/Å: {found['false_accepts']} of "
        f"{found['n_accurate']} below f_lo = {found['f_lo']:.3g}; not above it: {found['false_rejects']} of "
        f"{found['n_candidates']} in the window"
    )


#: Columns of the table of held-out errors: heading, name in :class:`activelearn.records.Errors`, format.
_HELD_OUT = (
    ("frames", "n_frames", "d"),
    ("E MAE", "energy_mae_meV_per_atom", ".1f"),
    ("RMSE", "energy_rmse_meV_per_atom", ".1f"),
    ("F MAE", "force_mae", ".3f"),
    ("RMSE", "force_rmse", ".3f"),
    ("P95", "force_p95", ".3f"),
    ("P99", "force_p99", ".3f"),
    ("V MAE", "virial_mae_meV_per_atom", ".1f"),
    ("RMSE", "virial_rmse_meV_per_atom", ".1f"),
)


def held_out_table(console: Console, iterations: list[dict[str, Any]]) -> None:
    """Print the held-out errors of the last ensemble, in all and by composition: a table of 80 columns."""
    if not iterations or iterations[-1]["held_out"] is None:
        return
    last = iterations[-1]
    headings = [heading for heading, _, _ in _HELD_OUT]
    table = _table(f"held-out errors, models of iteration {last['trained_in']}", {"cell": 20}, headings)
    by_composition = last["held_out_by_composition"] if len(last["held_out_by_composition"]) > 1 else {}
    for cell, errors in [*by_composition.items(), ("all", last["held_out"])]:
        table.add_row(cell, *("-" if errors[name] is None else format(errors[name], how) for _, name, how in _HELD_OUT))
    console.print(table)
    console.print("E, V: meV/atom; F: eV/Å; P95, P99: of an atom's |dF|; means over the members")


def _status_row(row: dict[str, Any]) -> list[str]:
    counts = row["counts"] or {}
    in_region = sum(counts.get(kind, 0) for kind in _CLASSES)
    wall = sum(s["wall"] for s in row["seconds"].values())
    engine = sum(s["engine"] for s in row["seconds"].values())
    rmse = row["held_out_force_rmse_eV_per_A"]
    return [
        str(row["index"]),
        str(counts.get("walked", "-")),
        *(f"{100 * counts[kind] / in_region:.1f}%" if in_region else "-" for kind in _CLASSES),
        str(counts.get("out_of_region", "-")),
        str(row["labelled"]),
        str(sum(row["refused"].values())),
        str(row["dataset"]["frames"]),
        f"{rmse:.3f}" if rmse is not None else "-",
        f"{wall:.0f}",
        f"{100 * engine / wall:.0f}%" if wall > 0 else "-",
    ]
