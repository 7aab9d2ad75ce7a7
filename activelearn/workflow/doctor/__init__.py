"""What ails a LaunchPad: workers that died in the wrong moment, locks they left, ids handed out twice, wrong clocks.

Nothing of a campaign is ever lost with a LaunchPad; what is found here only keeps workers from going on.
"""

from __future__ import annotations

from activelearn.workflow.doctor.checks import launchpad_problems
from activelearn.workflow.doctor.findings import examine
from activelearn.workflow.doctor.picture import STALE_S
from activelearn.workflow.doctor.repairs import repair
from activelearn.workflow.doctor.summary import QueueSummary, summarise
from activelearn.workflow.doctor.words import Finding

__all__ = ["STALE_S", "Finding", "QueueSummary", "examine", "launchpad_problems", "repair", "summarise"]
