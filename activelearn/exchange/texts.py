"""Text files of other codes: checks for incomplete steps."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from activelearn.errors import ConfigError
from activelearn.structures import opened

Floats = NDArray[np.float64]

#: Why a step is not a label if numbers are missing or unreadable (a key of activelearn.exchange.REFUSALS).
TORN: Final = "not whole"
#: Exceptions of parsers at such a step.
TEARS: Final = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, TypeError, ValueError)
_DECIMAL: Final = re.compile(r"-?\d*\.\d+(?:[eE][+-]?\d+)?(?![\w.*])")
#: Relative tolerance of equal components of a printed stress, which may differ in the last of six digits or so.
_LAST_DIGIT, _ROUNDING = 2.0e-6, 1.0e-3


@contextmanager
def readable(path: Path, kind: str) -> Iterator[None]:
    """Report any failure within as a file that is not of this format, or incomplete."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        first = error.__cause__ or error  # for our own products: the cause, not the message about it
        cause = " ".join(str(first).split()) or "it stops without a message, as for left-handed cells or missing arrays"
        raise ConfigError(
            f"{path}: cannot be read as {kind} ({type(first).__name__}: {cause[:200]}) - expected a complete file of "
            "that format - fix it, leave it out or give another --format; nothing was imported"
        ) from error


def whole_lines(path: Path) -> Iterator[str]:
    """Yield the complete lines of a text file, since a number in a truncated last line may lack digits."""
    with opened(path) as lines:
        yield from (line for line in lines if line.endswith("\n"))


def are_numbered(lines: Sequence[str], heading: str, row: re.Pattern[str], first: int, n: int | None = None) -> bool:
    """Return whether the rows below each line with `heading` have the numbers `first`, `first` + 1 ... (`n` of them).

    If a row is missing or duplicated, parsers that count lines assign values to the wrong atoms.

    Parameters
    ----------
    lines
        Lines of the step.
    heading
        Text of the line above a table.
    row
        Pattern of a row; its first group is the number.
    first
        Number of the first row.
    n
        Required number of rows; None: at least one.
    """
    for i, line in enumerate(lines):
        if heading not in line:
            continue
        found: list[int] = []
        for below in lines[i + 1 :]:
            if match := row.match(below):
                found.append(int(match[1]))
            elif found:
                break
        if not found or found != list(range(first, first + (n or len(found)))):
            return False
    return True


def are_there_twice(lines: Sequence[str], *headings: str) -> bool:
    """Return whether one of the headings occurs more than once, that is, whether two steps are merged."""
    return any(sum(heading in line for line in lines) > 1 for heading in headings)


def are_symmetric(lines: Sequence[str], heading: str) -> bool:
    """Return whether each line with `heading` is followed by three rows of a symmetric tensor, in one or two units."""
    for i, line in enumerate(lines):
        if heading in line:
            below = (_DECIMAL.findall(row) for row in lines[i + 1 :])
            rows = list(itertools.takewhile(bool, itertools.dropwhile(lambda row: not row, below)))
            if len(rows) != 3 or {len(row) for row in rows} not in ({3}, {6}):
                return False
            tensor = np.array([row[:3] for row in rows], dtype=np.float64)
            if np.abs(tensor - tensor.T).max() > _LAST_DIGIT + _ROUNDING * np.abs(tensor).max():
                return False
    return True


def number(text: str | None) -> float:
    """Return a number; NaN for the asterisks of a Fortran overflow."""
    return float("nan") if text is None or "*" in text else float(text)
