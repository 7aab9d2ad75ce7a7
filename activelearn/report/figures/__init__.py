"""Figures of a scoreboard: only those with numbers, as PNG for a talk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from activelearn.records import Scoreboard
from activelearn.report.figures import against_x, bars, curves, maps

__all__ = ["write_figures"]


def write_figures(board: Scoreboard, arrays: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw every figure for which the board has numbers.

    Parameters
    ----------
    board
        The results.
    arrays
        Of its curves: ``key/x``, ``key/y``, ``key/error``, and ``key/cell`` of maps.
    folder
        Output folder of the PNGs.

    Returns
    -------
    list of Path
        The files.
    """
    board = board.model_copy(update={"results": tuple(r for r in board.results if math.isfinite(r.value))})
    return [
        *against_x.write(board, folder),
        *bars.write(board, arrays, folder),
        *curves.write(board, arrays, folder),
        *maps.write(board, arrays, folder),
    ]
