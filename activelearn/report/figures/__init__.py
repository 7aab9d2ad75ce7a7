"""Figures of a scoreboard: only those that there are numbers for, as PNG for a talk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from activelearn.records import Scoreboard
from activelearn.report.figures import against_x, bars, curves, maps

__all__ = ["write_figures"]


def write_figures(board: Scoreboard, arrays: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw every figure that the board has numbers for.

    Parameters
    ----------
    board
        What was measured.
    arrays
        Of its curves: ``key/x``, ``key/y``, ``key/error``, and ``key/cell`` of maps.
    folder
        Where the PNGs are written.

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
