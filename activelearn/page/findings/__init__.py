"""Findings: rules over the records of a campaign and its studies, each with its value, bound, reason and remedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from activelearn.page.findings import accuracy, costs, exploration, glasses, labels, training
from activelearn.page.findings.rule import STAKES, PageFinding, Rule, bounds_of, findings_by, quantity
from activelearn.page.seen import Seen

#: All rules, in the order of docs/report.md.
RULES: Final[tuple[Rule, ...]] = (
    *exploration.RULES,
    *accuracy.RULES,
    *training.RULES,
    *labels.RULES,
    *glasses.RULES,
    *costs.RULES,
)


def findings_of(seen: Seen, bounds: Mapping[str, float] | None = None) -> list[PageFinding]:
    """Return the findings of a folder, the most severe first.

    Parameters
    ----------
    seen
        Data read from it.
    bounds
        By key of the rule; None: the defaults.
    """
    return findings_by(RULES, seen, bounds if bounds is not None else bounds_of((), RULES))


__all__ = ["RULES", "STAKES", "PageFinding", "Rule", "bounds_of", "findings_of", "quantity"]
