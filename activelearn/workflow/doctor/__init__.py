"""Diagnosis of a LaunchPad: workers that died at the wrong moment, stale locks, duplicate ids, wrong clocks.

No data of a campaign are ever lost with a LaunchPad; the faults found here only keep workers from continuing.
"""

from __future__ import annotations

from activelearn.workflow.doctor.checks import launchpad_problems
from activelearn.workflow.doctor.findings import examine
from activelearn.workflow.doctor.picture import STALE_S
from activelearn.workflow.doctor.repairs import repair
from activelearn.workflow.doctor.summary import QueueSummary, summarise
from activelearn.workflow.doctor.words import Finding

__all__ = ["STALE_S", "Finding", "QueueSummary", "examine", "launchpad_problems", "repair", "summarise"]
