"""HTML and SVG by small functions: whatever is not :class:`Html` is text, and escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

#: Elements without content.
_VOID: Final = {"meta", "br", "hr", "link", "input"}
#: Longer text in a cell of a table is broken into lines of a width of its own.
_LONG: Final = 24
_LONGER: Final = 100


class Html(str):
    """Text that is already HTML; contents of files or user input only enter it through :func:`tag`."""

    __slots__ = ()


#: Content of an element: text is escaped; None is omitted.
Child = str | int | float | None | Iterable["Child"]


def tag(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """Return an element.

    Parameters
    ----------
    name
        Name of the element.
    children
        Its content; text that is not :class:`Html` is escaped.
    attributes
        ``class_`` is ``class``, ``data_v`` is ``data-v``; None and False: omitted, True: without a value.
    """
    given = "".join(
        f" {_name(key)}" if value is True else f' {_name(key)}="{html.escape(_text(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Html:
    """Return the concatenated children, escaped."""
    parts = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Html):
            parts.append(str(child))
        elif isinstance(child, str | int | float):
            parts.append(html.escape(_text(child), quote=False))
        else:
            parts.append(str(joined(*child)))
    return Html("".join(parts))


def coded(text: str) -> Html:
    """Return text whose parts in backticks, keys and commands, are set as code."""
    return joined(tag("code", part) if k % 2 else part for k, part in enumerate(text.split("`")))


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _text(value: str | float) -> str:
    """Return a number in compact form, and text unchanged."""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


# --- tables -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Numbers:
    """A table: what each column is, with its unit, and rows of text and numbers.

    Parameters
    ----------
    name
        Name of the downloaded file.
    columns
        Headings.
    rows
        Cells; None is an empty cell.
    """

    name: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str | float | None]]


def rows_of(numbers: Numbers) -> str:
    """Return how many rows a table has, in words."""
    n = len(numbers.rows)
    return f"{n} row{'' if n == 1 else 's'}"


def table(numbers: Numbers, caption: str | None = None) -> Html:
    """Return a table that can be sorted by its headings and downloaded as CSV, by the script of the page."""
    head = tag("tr", [tag("th", column, scope="col") for column in numbers.columns])
    body = [tag("tr", [_cell(cell) for cell in row]) for row in numbers.rows]
    title = tag("caption", caption) if caption else None
    whole = tag("table", title, tag("thead", head), tag("tbody", body), data_name=numbers.name)
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption or numbers.name)


def _cell(cell: str | float | None) -> Html:
    if cell is None:
        return tag("td", "")
    if isinstance(cell, str):
        return tag("td", cell, class_="t x" if len(cell) > _LONGER else "t" if len(cell) > _LONG else None)
    shown = f"{cell:,}".replace(",", "\u202f") if isinstance(cell, int) else f"{cell:.4g}"
    return tag("td", shown, class_="n", data_v=repr(cell))


# --- figures ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """A figure with its description, and its numbers as a table.

    Parameters
    ----------
    name
        Name for links and downloads.
    title, caption
        What it shows, and how to read it.
    picture
        SVG.
    numbers
        The data; None: in a table elsewhere.
    is_wide
        Whether it uses the full width.
    """

    name: str
    title: str
    caption: str
    picture: Html
    numbers: Numbers | None = None
    is_wide: bool = False

    def html(self) -> Html:
        """Return it as an element."""
        behind = None
        if self.numbers is not None:
            behind = tag("details", tag("summary", f"numbers ({rows_of(self.numbers)})"), table(self.numbers))
        return tag(
            "figure",
            tag("figcaption", tag("h3", self.title), tag("p", self.caption)),
            tag("div", self.picture, class_="scroll picture", tabindex="0", role="region", aria_label=self.title),
            behind,
            id=f"figure-{self.name}",
            data_name=self.name,
            class_="wide" if self.is_wide else None,
        )
