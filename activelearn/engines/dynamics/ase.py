"""Segments driven by ASE."""

from __future__ import annotations

from pathlib import Path

from activelearn.config import Dynamics, Potential, Segment
from activelearn.engines.dynamics import State, Stretch
from activelearn.engines.process import Slot


def run_segment(
    potential: Potential, segment: Segment, start: State, dynamics: Dynamics, folder: Path, slot: Slot
) -> Stretch:
    """Run one segment; see :func:`activelearn.engines.dynamics.run_segment`."""
    raise NotImplementedError
