"""Select: accurate, candidate or failed by the force deviation of the ensemble, and what is picked from the window.

Everything but the station and the calibration is numpy on plain arrays; any station may import it.
"""

from __future__ import annotations

from activelearn.select.anchors import anchors, array_name
from activelearn.select.calibration import Summary, fit, force_error, pairs, summary, window_of
from activelearn.select.keeping import mined, worth_keeping
from activelearn.select.picking import Pool, pick
from activelearn.select.station import STATION, gather, plan, run
from activelearn.select.verdict import is_quiet, wants_rescue
from activelearn.select.window import Kind, KindArray, classify, classify_walk, count, force_deviation

__all__ = [
    "STATION",
    "Kind",
    "KindArray",
    "Pool",
    "Summary",
    "anchors",
    "array_name",
    "classify",
    "classify_walk",
    "count",
    "fit",
    "force_deviation",
    "force_error",
    "gather",
    "is_quiet",
    "mined",
    "pairs",
    "pick",
    "plan",
    "run",
    "summary",
    "wants_rescue",
    "window_of",
    "worth_keeping",
]
