"""A sheet: one figure with its title, panels, legend outside of them, and footer lines about its numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from activelearn.records import Curve, Result, Scoreboard
from activelearn.report.behind import deaths, is_of
from activelearn.report.figures.words import plain, word
from activelearn.report.stamps import CAVEAT, by_potential, doubts, is_unstable, worst
from activelearn.stamping import NOT_MELTED, UNSTABLE, UNTRUSTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, safe for colour blindness; black is kept for experiment, yellow is too pale for lines.
PALETTE: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
MARKERS: Final = "osD^vPX<>*"
LINES: Final = ("-", "--", ":", "-.")
WIDE: Final = (10.0, 5.625)  # inches, 16:9
TALL: Final = (10.0, 7.5)  # 4:3
DPI: Final = 200
RED: Final = "#C00000"
GREY: Final = "#555555"
#: Curves that do not belong to a glass.
_OF_NO_GLASS: Final = {"parity_force", "parity_energy", "parity_virial"}
_FOOT_POINTS: Final = 9.5
_CHARACTERS: Final = 118  # of a foot line
_STYLE: Final[Any] = {  # its keys are Literals of matplotlib's version
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12.0,
    "axes.titlesize": 12.0,
    "axes.labelsize": 12.0,
    "xtick.labelsize": 11.0,
    "ytick.labelsize": 11.0,
    "legend.fontsize": 11.0,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "lines.markersize": 7.0,
    "mathtext.default": "regular",
}


def colour(k: int) -> str:
    """Return the k-th colour of the palette, cyclically."""
    return PALETTE[k % len(PALETTE)]


def marker(k: int) -> str:
    """Return the k-th marker."""
    return MARKERS[k % len(MARKERS)]


def line_style(k: int) -> str:
    """Return a line style that changes whenever the colours repeat."""
    return LINES[(k // len(PALETTE)) % len(LINES)]


class Sheet:
    """One figure.

    Parameters
    ----------
    board
        Source of the numbers; what is missing is listed in the footer.
    title
        Title of the figure.
    shape
        Rows and columns of panels; unused panels are left blank by :meth:`finish`.
    is_shared
        All panels have the same axes: ticks and labels only at the left and below (:meth:`label`).
    """

    def __init__(
        self, board: Scoreboard, title: str, shape: tuple[int, int] = (1, 1), *, is_shared: bool = False
    ) -> None:
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        self.board, self.title = board, title
        with rc_context(_STYLE):
            self.figure: Figure = Figure(figsize=WIDE if shape[0] < 2 else TALL, dpi=DPI)
            grid = self.figure.subplots(*shape, squeeze=False, sharex=is_shared, sharey=is_shared)
        self.shape, self._is_shared = shape, is_shared
        self.panels: list[Axes] = list(grid.flat)
        self._shown: list[Result | Curve] = []
        self._legend: dict[str, Any] = {}
        self._notes: list[str] = []
        self._sources: dict[str, None] = {}
        self.n_used = 0

    def panel(self, title: str | None = None) -> Axes:
        """Return the next panel."""
        axes = self.panels[self.n_used]
        self.n_used += 1
        if title:
            axes.set_title(title, fontsize=_STYLE["axes.titlesize"])
        return axes

    def label(self, x: str, y: str) -> None:
        """Name the axes: below the last panel of every column and next to every row (of many rows the middle one)."""
        rows, columns = self.shape
        for k, axes in enumerate(self.panels[: self.n_used]):
            is_last, is_first = k + columns >= self.n_used, k % columns == 0
            if is_last:
                axes.set_xlabel(x)
            if is_first and (rows < 3 or k // columns == rows // 2):
                axes.set_ylabel(y)
            if self._is_shared:
                axes.tick_params(axis="x", which="both", labelbottom=is_last)
                axes.tick_params(axis="y", which="both", labelleft=is_first)

    def shows(self, results: Iterable[Result | Curve]) -> None:
        """Record what is drawn, for stamps in the footer."""
        self._shown += list(results)

    def cites(self, results: Iterable[Result]) -> None:
        """Record whose experiment is drawn, for sources in the footer."""
        self._sources |= dict.fromkeys(r.reference_source for r in results if r.reference_source)

    def note(self, text: str) -> None:
        """Add a line to the footer."""
        if text not in self._notes:
            self._notes.append(text)

    def name(self, handle: Any, label: str) -> None:  # noqa: ANN401 - an artist or a container of them
        """Add an entry to the legend, once."""
        self._legend.setdefault(label, handle)

    def name_line(self, label: str, **style: Any) -> None:  # noqa: ANN401 - of a Line2D
        """Add a line of some style to the legend, once."""
        from matplotlib.lines import Line2D

        self.name(Line2D([], [], **style), label)

    def finish(self, path: Path) -> Path:
        """Lay it out and write it as PNG."""
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        for axes in self.panels[self.n_used :]:
            axes.set_axis_off()
        with rc_context(_STYLE):
            FigureCanvasAgg(self.figure)
            height = self.figure.get_size_inches()[1]
            self.figure.text(0.015, 1.0 - 0.15 / height, self.title, fontsize=15, va="top", fontweight="bold")
            foot, top = self._foot(), self._legend_row()
            # Compressed: panels with equal axes are close together.
            self.figure.set_layout_engine("compressed", rect=(0.01, foot, 0.98, top - foot), w_pad=0.08, h_pad=0.06)
            path.parent.mkdir(parents=True, exist_ok=True)
            self.figure.savefig(path, dpi=DPI, metadata={"Software": "activelearn"})
        return path

    def _legend_row(self) -> float:
        """Draw the legend between title and panels, in as few rows as possible; return the top of the panels."""
        height = float(self.figure.get_size_inches()[1])
        top = 1.0 - 0.55 / height
        labels = sorted(self._legend, key=lambda label: label.startswith("experiment"))  # it comes last
        n = len(labels)
        for n_columns in range(n, 0, -1):
            # A legend is filled column by column, but read row by row.
            by_row = [labels[k] for column in range(n_columns) for k in range(column, n, n_columns)]
            legend = self.figure.legend(
                [self._legend[label] for label in by_row],
                by_row,
                loc="upper left",
                bbox_to_anchor=(0.01, top),
                ncols=n_columns,
                borderpad=0.0,
                columnspacing=1.6,
            )
            legend.set_in_layout(False)
            extent = legend.get_window_extent()
            if extent.width < 0.97 * self.figure.bbox.width or n_columns == 1:
                return top - float(extent.height / self.figure.bbox.height) - 0.16 / height
            legend.remove()
        return top

    def _foot(self) -> float:
        """Write the footer from below; return its height (fraction of the figure)."""
        lines = [(f"Experiment: {'; '.join(self._sources)}.", "black")] if self._sources else []
        lines += [(line, GREY) for line in self._notes]
        stamps = by_potential(self._shown)
        unjudged = [name for name, stamp in stamps.items() if stamp == "not judged"]
        if unjudged:
            lines.append((f"Not judged (no ensemble): {', '.join(unjudged)}.", GREY))
        for name, stamp in stamps.items():
            if any(kind in stamp for kind in (UNSTABLE, NOT_MELTED, UNTRUSTED)):
                share = "the largest share; " if UNTRUSTED in stamp or NOT_MELTED in stamp else ""
                of = f"{self._unstable(name)}; " if UNSTABLE in stamp else ""
                lines.append((f"{name}: {stamp} ({of}{share}hollow or dashed).", RED))
            elif name not in unjudged:
                lines.append((f"{name}: {stamp}.", GREY))
        lines += [(line, RED) for line in (*self._caveats(), *self._absent())]
        wrapped = [(plain(part), ink) for line, ink in lines for part in textwrap.wrap(line, _CHARACTERS)]
        height = float(self.figure.get_size_inches()[1])
        step = 1.25 * _FOOT_POINTS / 72.0 / height
        for k, (line, ink) in enumerate(reversed(wrapped)):
            weight = "bold" if ink == RED else "normal"
            y = 0.08 / height + k * step
            self.figure.text(0.015, y, line, fontsize=_FOOT_POINTS, color=ink, fontweight=weight, va="bottom")
        return 0.12 / height + len(wrapped) * step

    def _unstable(self, potential: str) -> str:
        """Return the names of UNSTABLE drawn results of a potential."""
        mine = (one for one in self._shown if one.condition.get("potential") == potential and is_unstable(one))
        return ", ".join(in_order(word(one.name) for one in mine))

    def _caveats(self) -> Iterator[str]:
        """Yield caveats of drawn numbers; those of a conductivity have a separate line."""
        found: dict[str, list[str]] = {}
        for one in self._shown:
            if not one.name.startswith("conductivity_") and (said := doubts(one).get(CAVEAT)):
                found.setdefault(said, []).append(f"{one.condition.get('potential')}: {word(one.name)}")
        yield from (f"{said[:1].upper()}{said[1:]}: {'; '.join(in_order(of))}." for said, of in found.items())

    def _absent(self) -> Iterator[str]:
        """Yield what the figure lacks: failed glasses, potentials without a number, failed measurements."""
        board, names = self.board, {one.name for one in self._shown}
        places = [{k: v for k, v in one.condition.items() if k != "potential"} for one in self._shown]
        places = [place for place in places if "crystal" not in place and names.isdisjoint(_OF_NO_GLASS)]
        all_of_it: tuple[Result | Curve, ...] = (*board.results, *board.curves)
        there = {one.condition.get("potential") for one in all_of_it if one.name in names}
        for potential in board.potentials:
            mine = [g for g in board.glasses if g.potential == potential and any(is_of(g, place) for place in places)]
            if said := deaths(mine):
                yield f"{potential}: {said}."
            elif potential not in there:
                yield f"{potential}: not measured, see the tables."
        by = {one.measured_by for one in self._shown if isinstance(one, Result)}
        failed = [f"{one.condition.get('potential')}: {one.why}" for one in board.missing if one.measured_by in by]
        if failed:
            yield f"Not measured: {failed[0]}" + (f" (and {len(failed) - 1} more)." if len(failed) > 1 else ".")


def grid_for(n: int) -> tuple[int, int]:
    """Return rows and columns for `n` panels: one row up to three, then as square as possible."""
    if n <= 3:
        return 1, max(1, n)
    columns = 2 if n == 4 else 3 if n <= 9 else 4
    return -(-n // columns), columns


def widened(axes: Axes, share: float = 0.06) -> None:
    """Add a margin around the points of a panel, so that markers at the ends are complete."""
    axes.margins(x=share, y=0.08)


def in_order(values: Iterable[Any]) -> list[Any]:
    """Return the different values in the order they come."""
    return list(dict.fromkeys(values))


def ends(values: Sequence[Any]) -> list[Any]:
    """Return the first and the last."""
    return in_order([values[0], values[-1]])


def suffix(curves: Iterable[Curve]) -> str:
    """Return the suffix of the label of a doubted line: `` (UNTRUSTED)``, `` (NOT MELTED, UNTRUSTED)``."""
    stamp = worst(curve.stamp for curve in curves) or ""
    said = [kind for kind in (UNSTABLE, NOT_MELTED, UNTRUSTED) if kind in stamp]
    return f" ({', '.join(said)})" if said else ""
