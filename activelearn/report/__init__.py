"""Tables and figures of a scoreboard, drawn again each time from records alone."""

from __future__ import annotations

from activelearn.report.figures import write_figures
from activelearn.report.scoreboard import write_tables

__all__ = ["write_figures", "write_tables"]
