"""Check: errors before jobs.

Finds the problems of a campaign or a study in seconds; one line each, ``where: what - expected - next``.
"""

from __future__ import annotations

from activelearn.check.campaign import check, inherits
from activelearn.check.glass import resized
from activelearn.check.programs import Checked, name_problems
from activelearn.check.study import check_study

__all__ = ["Checked", "check", "check_study", "inherits", "name_problems", "resized"]
