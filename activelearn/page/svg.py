"""SVG drawings that take their colours from the page, for light and dark mode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from activelearn.frames import FloatArray
from activelearn.page.markup import Html, joined, tag

#: Colours of lines; each line also has its own dash pattern.
N_COLOURS: Final = 7
_LEFT, _RIGHT, _TOP, _BOTTOM = 70.0, 14.0, 12.0, 46.0
#: Additional labelled ticks between powers of ten of a logarithmic axis.
_STEPS: Final = (1.0, 2.0, 5.0)


def nice_ticks(low: float, high: float, n: int = 6) -> list[float]:
    """Return about `n` round numbers from `low` to `high`."""
    span = high - low
    if not span > 0.0 or not math.isfinite(span):
        return [low]
    raw = span / max(n, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(step * power for step in (1.0, 2.0, 2.5, 5.0, 10.0) if step * power >= raw * (1.0 - 1.0e-9))
    first = math.ceil(low / step - 1.0e-9)
    return [0.0 if k == 0 else k * step for k in range(first, math.floor(high / step + 1.0e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers of a logarithmic axis from `low` to `high`: powers of ten, and 2 and 5 if there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = _STEPS if len(powers) <= 4 else _STEPS[:1]
    return [v for p in powers for step in steps if low * (1 - 1e-9) <= (v := step * 10.0**p) <= high * (1 + 1e-9)]


@dataclass(frozen=True)
class Axis:
    """An axis: its name with the unit, its range, and whether it is logarithmic."""

    name: str
    low: float
    high: float
    is_log: bool = False

    def share(self, value: FloatArray | float) -> FloatArray:
        """Return the positions of values (n,) in any unit along the axis, 0 to 1 (dimensionless), clipped."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.is_log:
                found = np.log(np.asarray(value) / self.low) / math.log(self.high / self.low)
            else:
                found = (np.asarray(value) - self.low) / (self.high - self.low)
        return np.asarray(np.clip(np.nan_to_num(found, nan=0.0, neginf=-0.02, posinf=1.02), -0.02, 1.02))

    @property
    def ticks(self) -> list[float]:
        """Its ticks."""
        if self.is_log:
            return log_ticks(self.low, self.high)
        found = nice_ticks(self.low, self.high)
        return [value for value in found if value.is_integer()] if self.name == "iteration" else found


def axis_of(name: str, values: Sequence[FloatArray], *, is_log: bool = False, zero: bool = False) -> Axis:
    """Return an axis that holds all finite values, with some margin.

    Parameters
    ----------
    name
        With the unit.
    values
        Arrays (n,) in the units of the name.
    is_log
        Then only positive values count.
    zero
        Whether it starts at zero.
    """
    every = np.concatenate([np.ravel(one) for one in values]) if values else np.empty(0)
    every = every[np.isfinite(every) & ((every > 0.0) | (not is_log))]
    if len(every) == 0:
        return Axis(name, 0.1 if is_log else 0.0, 1.0, is_log)
    low, high = float(every.min()), float(every.max())
    if is_log:
        return Axis(name, low / 1.15, high * 1.15, is_log=True)
    low = min(low, 0.0) if zero else low
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return Axis(name, low if zero and low == 0.0 else low - room, high + room)


def compact(value: float) -> str:
    """Return a tick's label."""
    if value != 0.0 and (abs(value) >= 1.0e5 or abs(value) < 1.0e-3):
        mantissa, exponent = f"{value:.5e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.6g}"


@dataclass
class Plot:
    """Axes with their contents.

    Parameters
    ----------
    x, y
        The axes.
    title
        Description for screen readers.
    width, height
        In pixels at their natural size.
    """

    x: Axis
    y: Axis
    title: str
    width: float = 560.0
    height: float = 320.0
    parts: list[Html] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)
    names: list[Html] = field(default_factory=list)

    def px(self, value: FloatArray | float) -> FloatArray:
        """Return the positions of values (n,) in the unit of x, pixels (dimensionless)."""
        return np.asarray(_LEFT + self.x.share(value) * (self.width - _LEFT - _RIGHT))

    def py(self, value: FloatArray | float) -> FloatArray:
        """Return the positions of values (n,) in the unit of y, pixels (dimensionless)."""
        return np.asarray(self.height - _BOTTOM - self.y.share(value) * (self.height - _TOP - _BOTTOM))

    def name(self, label: str, style: str) -> None:
        """Add an entry to the legend, once: a line, or a filled box if the style starts with ``f``."""
        if (label, style) not in self.legend:
            self.legend.append((label, style))

    def line(self, x: FloatArray, y: FloatArray, style: str, said: str = "", *, label: str | None = None) -> None:
        """Draw a line through points; it is broken at NaN.

        Parameters
        ----------
        x, y
            (n,) in the units of the axes.
        style
            Classes.
        said
            Tooltip.
        label
            Legend entry; None: not in the legend.
        """
        points = zip(self.px(x).tolist(), self.py(y).tolist(), self._has_place(x, y).tolist(), strict=True)
        path, is_on = [], False
        for px, py, whole in points:
            if whole:
                path.append(f"{'L' if is_on else 'M'}{px:.1f} {py:.1f}")
            is_on = whole
        self.parts.append(tag("path", tag("title", said) if said else None, d="".join(path), class_=f"line {style}"))
        if label is not None:
            self.name(label, style)

    def _has_place(self, x: FloatArray, y: FloatArray) -> NDArray[np.bool_]:
        """Return which points (n,) in the units of the axes are numbers that the axes have: a NaN is nowhere."""
        return np.isfinite(x) & np.isfinite(y) & ((np.asarray(y) > 0.0) | (not self.y.is_log))

    def points(self, x: FloatArray, y: FloatArray, style: str, said: Sequence[str] = (), *, r: float = 3.0) -> None:
        """Draw points; one that is NaN is left out.

        Parameters
        ----------
        x, y
            (n,) in the units of the axes.
        style
            Classes.
        said
            Tooltips; (): none.
        r
            Radius, pixels.
        """
        px, py = self.px(x), self.py(y)
        for k in np.flatnonzero(self._has_place(x, y)).tolist():
            told = tag("title", said[k]) if said else None
            self.parts.append(tag("circle", told, cx=f"{px[k]:.1f}", cy=f"{py[k]:.1f}", r=r, class_=f"dot {style}"))

    def box(self, x: tuple[float, float], y: tuple[float, float], style: str, said: str = "", **more: float) -> None:
        """Draw a rectangle between two values of each axis."""
        x0, x1 = sorted(self.px(np.array(x)).tolist())
        y0, y1 = sorted(self.py(np.array(y)).tolist())
        size = {"x": f"{x0:.1f}", "y": f"{y0:.1f}", "width": f"{x1 - x0:.1f}", "height": f"{y1 - y0:.1f}"}
        told = tag("title", said) if said else None
        self.parts.append(tag("rect", told, class_=style, **size, **more))

    def window(self, f_lo: float, f_hi: float, *, along: str) -> None:
        """Shade the trust window along an axis, and label its ends."""
        axis, other = (self.x, self.y) if along == "x" else (self.y, self.x)
        whole, shown = (other.low, other.high), (max(f_lo, axis.low), min(f_hi, axis.high))
        if shown[0] < shown[1]:
            boxes = (shown, whole) if along == "x" else (whole, shown)
            self.box(*boxes, "window", f"the trust window, {f_lo:g} to {f_hi:g} eV/Å")
        for value, name in ((f_lo, "f_lo"), (f_hi, "f_hi")):
            self.mark(value, along=along, name=name)

    def mark(self, value: float, *, along: str, name: str = "", row: int = 0) -> None:
        """Draw a thin line at a value of an axis, across the plot, and its name in one of two rows; none beyond it."""
        axis = self.x if along == "x" else self.y
        if not axis.low <= value <= axis.high:
            return
        if along == "x":
            x = float(self.px(value))
            where = {"x1": x, "x2": x, "y1": _TOP, "y2": self.height - _BOTTOM}
            is_left = x + 6.5 * len(name) + 6.0 < self.width
            at = (x + 3.0, "mark") if is_left else (x - 3.0, "mark end")
            text = tag("text", name, x=at[0], y=_TOP + 10.0 + 13.0 * row, class_=at[1])
        else:
            y = float(self.py(value))
            where = {"x1": _LEFT, "x2": self.width - _RIGHT, "y1": y, "y2": y}
            text = tag("text", name, x=self.width - _RIGHT - 3.0, y=y - 4.0, class_="mark end")
        self.parts.append(tag("line", class_="rule", **{k: f"{v:.1f}" for k, v in where.items()}))
        self.names.append(text)

    def svg(self) -> Html:
        """Return the drawing."""
        return drawing(self.inner(), self.width, self.full_height, self.title)

    def inner(self) -> Html:
        """Return the contents of the drawing, for use in another drawing."""
        return joined(self._frame(), tag("g", self.parts), self.names, self._legend_rows())

    @property
    def full_height(self) -> float:
        """The height with the legend below, pixels."""
        return self.height + 18.0 * len(self._legend_rows())

    def _frame(self) -> Html:
        bottom, right = self.height - _BOTTOM, self.width - _RIGHT
        parts: list[Html] = []
        for value in self.x.ticks:
            x = f"{float(self.px(value)):.1f}"
            parts.append(tag("line", x1=x, x2=x, y1=_TOP, y2=bottom, class_="grid"))
            parts.append(tag("text", compact(value), x=x, y=bottom + 16.0, class_="tick mid"))
        for value in self.y.ticks:
            y = float(self.py(value))
            parts.append(tag("line", x1=_LEFT, x2=right, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid"))
            parts.append(tag("text", compact(value), x=_LEFT - 7.0, y=f"{y + 4.0:.1f}", class_="tick end"))
        middle, up = (_LEFT + right) / 2.0, (_TOP + bottom) / 2.0
        parts.append(tag("text", self.x.name, x=middle, y=bottom + 36.0, class_="name mid"))
        turned = f"translate(15 {up:.1f}) rotate(-90)"
        parts.append(tag("text", self.y.name, transform=turned, class_="name mid"))
        parts.append(tag("path", d=f"M{_LEFT} {_TOP}V{bottom}H{right}", class_="axis"))
        return joined(parts)

    def _legend_rows(self) -> list[Html]:
        rows, x, y = [], _LEFT, self.height + 8.0
        parts: list[Html] = []
        for label, style in self.legend:
            width = 34.0 + 6.6 * len(label)
            if parts and x + width > self.width - _RIGHT:
                rows.append(joined(parts))
                parts, x, y = [], _LEFT, y + 18.0
            if style.startswith("f"):
                parts.append(tag("rect", x=x + 4.0, y=y - 5.0, width=12.0, height=10.0, class_=style))
            else:
                parts.append(tag("line", x1=x, x2=x + 20.0, y1=y, y2=y, class_=f"line {style}"))
            parts.append(tag("text", label, x=x + 25.0, y=y + 4.0, class_="tick"))
            x += width
        return [*rows, joined(parts)] if parts else rows


def drawing(inner: Html, width: float, height: float, title: str) -> Html:
    """Return a whole SVG, with a description for screen readers."""
    size = {"viewBox": f"0 0 {width:.0f} {height:.0f}", "width": f"{width:.0f}", "height": f"{height:.0f}"}
    attributes = " ".join(f'{key}="{value}"' for key, value in size.items())
    begin = Html(f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {attributes}>')
    return joined(begin, tag("title", title), inner, Html("</svg>"))


def stacked(upper: Plot, lower: Plot) -> Html:
    """Return one drawing of two plots, one above the other."""
    moved = tag("g", lower.inner(), transform=f"translate(0 {upper.full_height:.0f})")
    height = upper.full_height + lower.full_height
    return drawing(joined(upper.inner(), moved), upper.width, height, upper.title)
