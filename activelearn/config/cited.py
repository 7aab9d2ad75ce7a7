"""Read a user's digitised points from a CSV, as written by spreadsheets in several languages.

Whatever is unambiguous is read: comma, semicolon or tab between the cells, a decimal comma in a file of semicolons
or tabs, capitals in the header, ``g/cm^3``, UTF-8 (with a BOM or without), UTF-16 and Windows-1252. Anything else is
refused with its line, so that no number is ever misread.
"""

from __future__ import annotations

import codecs
import csv
import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from activelearn.config.benchmark import Cited
from activelearn.config.messages import nearest, validated
from activelearn.config.yaml12 import MAX_BYTES
from activelearn.errors import ConfigError

_COLUMNS: Final = tuple(name for name in Cited.model_fields if name != "status")
_NEEDED: Final = ("property", "value", "unit", "source")
_NUMBERS: Final = ("value", "uncertainty", "x", "temperature_K")
_NUMBER: Final = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_SEPARATORS: Final = ",;\t"
#: Other spellings of a unit: the number is the same.
_SPELT: Final = {
    "gcm-3": "g/cm3", "g/cc": "g/cm3", "Scm-1": "S/cm", "cm2s-1": "cm2/s", "A": "Å", "Ang": "Å", "Angstrom": "Å",
    "angstrom": "Å", "A3": "Å3", "Ang3": "Å3", "Angstrom3": "Å3", "angstrom3": "Å3", "percent": "%", "-": "1",
}  # fmt: skip
#: A minus or hyphen as written by a word processor.
_DASHES: Final = str.maketrans("\u2212\u2013\u2010\u2011", "----")


@dataclass(frozen=True)
class CitedPoint:
    """A cited number and its location: ``mine.csv:4``."""

    where: str
    number: Cited


def load_points(path: Path) -> tuple[CitedPoint, ...]:
    """Read a user's digitised points from a CSV.

    Parameters
    ----------
    path
        Columns property, value, unit, source, and where applicable uncertainty, series, x, crystal, reaction,
        temperature_K, pair (such as Na-S), bound (above or below). Empty cells are missing values; lines with ``#``
        are skipped.

    Raises
    ------
    ConfigError
        It cannot be read, has no points, a column is unknown or missing, or a number is invalid; with the line.
    """
    lines = [(i, line) for i, line in enumerate(re.split("\r\n|\r|\n", _text(path)), 1) if line.strip()]
    lines = [(i, line) for i, line in lines if not line.startswith("#")]
    if len(lines) < 2:
        raise ConfigError(
            f"{path}: no points - expected a header line ({', '.join(_NEEDED)} ...) and one line per point - see "
            "params/cited/README.md"
        )
    separator = max(_SEPARATORS, key=lambda mark: _n_known(lines[0][1], mark))
    header = [_column(name, f"{path}:{lines[0][0]}") for name in _cells(*lines[0], separator, path)]
    if missing := [name for name in _NEEDED if name not in header]:
        raise ConfigError(f"{path}:{lines[0][0]}: no column {', '.join(missing)} - expected it in the header - add it")
    if len(set(header)) < len(header):
        raise ConfigError(f"{path}:{lines[0][0]}: duplicate column - expected each column once - remove one")
    rows = [(i, cells) for i, line in lines[1:] if any(cells := _cells(i, line, separator, path))]
    has_points = any("." in cells[k] for _, cells in rows for k in _numeric(header) if k < len(cells))
    decimal = "." if separator == "," or has_points else ","
    return tuple(_point(dict(zip(header, _whole(cells, header, f"{path}:{i}"), strict=True)), decimal, f"{path}:{i}")
                 for i, cells in rows)  # fmt: skip


def _text(path: Path) -> str:
    """Return the text of a file in any of the encodings of spreadsheets."""
    expected = f"expected a CSV with columns {', '.join(name for name in _COLUMNS if name != 'kind')}"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: {path.stat().st_size / 1e6:.0f} MB - {expected} - check the path")
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}) - {expected} - check the path") from error
    is_16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if is_16 else ("utf-8-sig", "cp1252"):
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        odd = next(
            (k for k, mark in enumerate(text) if unicodedata.category(mark) == "Cc" and mark not in "\t\r\n"), None
        )
        if odd is not None:
            line = len(re.findall("\r\n|\r|\n", text[:odd])) + 1
            raise ConfigError(f"{path}:{line}: has the character {text[odd]!r} - {expected} - save it as CSV (UTF-8)")
        # All kinds of spaces are equal: some spreadsheets put narrow ones into numbers.
        return "".join(" " if unicodedata.category(mark) == "Zs" else mark for mark in text)
    raise ConfigError(f"{path}: neither UTF-8 nor Windows-1252 - {expected} - save it as CSV (UTF-8)")


def _cells(i: int, line: str, separator: str, path: Path) -> list[str]:
    try:
        (cells,) = csv.reader([line], delimiter=separator, strict=True)
    except csv.Error:
        expected = "expected complete cells, in quotes if they contain a separator or a quote"
        raise ConfigError(f"{path}:{i}: unbalanced quotes - {expected} - fix it") from None
    return [cell.strip() for cell in cells]


def _n_known(line: str, separator: str) -> int:
    return sum(word.strip(' "').lower() in {name.lower() for name in _COLUMNS} for word in line.split(separator))


def _column(name: str, where: str) -> str:
    for column in _COLUMNS:
        if name.lower() == column.lower():
            return column
    raise ConfigError(f"{where}: column {name!r} - {nearest(name.lower(), [*_COLUMNS])} - rename or remove it")


def _numeric(header: list[str]) -> Iterator[int]:
    return (k for k, name in enumerate(header) if name in _NUMBERS)


def _whole(cells: list[str], header: list[str], where: str) -> list[str]:
    """Return the cells of a row, one per column."""
    while len(cells) > len(header) and not cells[-1]:
        cells = cells[:-1]
    if len(cells) != len(header):
        what = f"{len(cells)} cells, {'more' if len(cells) > len(header) else 'fewer'} than the {len(header)} columns"
        expected = "expected one cell per column, with decimal points, and quotes around cells that contain a comma"
        raise ConfigError(f"{where}: {what} - {expected} - fix it")
    return cells


def _point(row: dict[str, str], decimal: str, where: str) -> CitedPoint:
    given: dict[str, Any] = {name: cell for name, cell in row.items() if cell}
    for name in _NUMBERS:
        if name in given:
            given[name] = _number(given[name], decimal, f"{where}: {name}")
    if "pair" in given:
        given["pair"] = tuple(word.strip() for word in given["pair"].translate(_DASHES).split("-"))
    if "unit" in given:
        given["unit"] = unit(given["unit"])
    return CitedPoint(where, validated(Cited, {**given, "status": "user"}, where, are_texts=True))


def _number(text: str, decimal: str, where: str) -> float:
    plain = text.translate(_DASHES)
    plain = plain.replace(",", ".") if decimal == "," else plain
    value = float(plain) if _NUMBER.fullmatch(plain) else math.nan
    if not math.isfinite(value):
        expected = (
            f"expected one number with a decimal {'comma' if decimal == ',' else 'point'}, no thousands separator"
        )
        raise ConfigError(f"{where}: got {text[:60]!r} - {expected}, no unit and no ± - fix it")
    return value


def unit(text: str) -> str:
    """Return a unit in the form used in tables: ``g/cm^3``, ``g cm-3`` and ``g/cm³`` are ``g/cm3``."""
    bare = re.sub(r"[\s^*·]", "", unicodedata.normalize("NFKC", text).translate(_DASHES))
    return _SPELT.get(bare, bare)
