"""Numbers as text with eight decimals, many at once: what ``"%16.8f" % number`` gives, to the byte."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: Characters of a number: seven before the point (sign and blanks, too), the point, eight after it.
WIDTH: Final = 16
#: From here on there is no room for the digits before the point.
LIMIT: Final = 1.0e5


def fixed_point(numbers: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return (n, 16) characters of (n,) numbers of any unit, as ``%16.8f`` writes them.

    Parameters
    ----------
    numbers
        (n,) of any unit.

    Raises
    ------
    ValueError
        A number is not finite, or 1e5 or larger: it may need more than 16 characters.
    """
    if not bool((np.abs(numbers) < LIMIT).all()):
        raise ValueError("fixed_point: expected finite numbers below 1e5")
    scaled = np.abs(numbers) * 1.0e8
    rounded = np.rint(scaled)
    whole, rest = np.divmod(rounded.astype(np.int64), 100_000_000)
    left, right = np.divmod(rest, 10_000)
    wholes, digits = _tables()
    text = np.empty((len(numbers), WIDTH), dtype=np.uint8)
    text[:, :7] = wholes[whole + np.signbit(numbers) * (len(wholes) // 2)]
    text[:, 7] = ord(".")
    text[:, 8:12], text[:, 12:] = digits[left], digits[right]
    # Half-way cases, where the product above may have been rounded to the other side of the half.
    unsure = np.abs(np.abs(scaled - rounded) - 0.5) <= 4.0 * np.spacing(scaled)
    for k in np.flatnonzero(unsure):
        text[k] = np.frombuffer(f"{numbers[k]:16.8f}".encode(), dtype=np.uint8)
    return text


@lru_cache(maxsize=1)
def _tables() -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the characters of whole numbers with their sign, first all positive ones, and of four digits."""
    n = int(LIMIT) + 1
    wholes = "".join(f"{sign}{k}".rjust(7) for sign in ("", "-") for k in range(n))
    digits = "".join(f"{k:04d}" for k in range(10_000))
    return _characters(wholes, 7), _characters(digits, 4)


def _characters(text: str, width: int) -> NDArray[Any]:
    return np.frombuffer(text.encode(), dtype=np.uint8).reshape(-1, width)
