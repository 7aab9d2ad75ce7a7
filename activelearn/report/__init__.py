"""Stub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from activelearn.records import Scoreboard


def write_tables(board: Scoreboard, folder: Path) -> list[Path]:
    return []


def write_figures(board: Scoreboard, arrays: Mapping[str, Any], folder: Path) -> list[Path]:
    return []
