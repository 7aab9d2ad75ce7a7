"""Findings: rules over records with one bound, and a message if the bound is exceeded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Literal, NamedTuple

from activelearn.errors import ConfigError
from activelearn.page.seen import Seen, SeenCampaign, SeenStudy
from activelearn.report.behind import number

#: Severity, highest first: whether numbers can be trusted, how good they are, what they cost.
Stake = Literal["trust", "accuracy", "cost"]
STAKES: Final[tuple[Stake, ...]] = ("trust", "accuracy", "cost")

_NONE: Final[Mapping[str, float]] = {}


class Noted(NamedTuple):
    """One case where a bound is exceeded: a sentence with its numbers, the value, and the remedy."""

    what: str
    number: float
    fix: str | None = None


@dataclass(frozen=True)
class Rule:
    """A rule over records.

    Parameters
    ----------
    key
        Name by which the bound is set: ``--bound key=number``.
    bound, unit
        The default, and its unit.
    stake
        Severity.
    when
        The condition, with the bound as ``{bound}``.
    why
        Its meaning.
    fix
        The command or YAML key that fixes it.
    of_campaign, of_study
        Functions that look for it, with the bound: in a campaign, in each of its studies.
    """

    key: str
    bound: float
    unit: str
    stake: Stake
    when: str
    why: str
    fix: str
    of_campaign: Callable[[SeenCampaign, float], Iterable[Noted]] | None = None
    of_study: Callable[[SeenStudy, float], Iterable[Noted]] | None = None

    def found(self, seen: Seen, bound: float) -> list[PageFinding]:
        """Return the cases in a folder that exceed the bound."""
        noted: list[Noted] = []
        if self.of_campaign is not None and seen.campaign is not None:
            noted += self.of_campaign(seen.campaign, bound)
        if self.of_study is not None:
            noted += [one for study in seen.studies for one in self.of_study(study, bound)]
        return [PageFinding(self, one.what, one.number, bound, one.fix or self.fix) for one in noted]

    def said(self, bound: float | None = None) -> str:
        """Return the condition in words, with its bound."""
        return self.when.format(bound=quantity(self.bound if bound is None else bound, self.unit))


@dataclass(frozen=True)
class PageFinding:
    """A finding.

    Parameters
    ----------
    rule
        The rule.
    what
        A sentence with the numbers.
    number, bound
        The value, and the bound that it exceeds, in the unit of the rule.
    fix
        The command or key that fixes it.
    """

    rule: Rule
    what: str
    number: float
    bound: float
    fix: str


def quantity(value: float, unit: str) -> str:
    """Return a number with its unit."""
    return f"{number(value)} {unit}".strip()


def bounds_of(given: Sequence[str], rules: Sequence[Rule], of_machine: Mapping[str, float] = _NONE) -> dict[str, float]:
    """Return the bounds of all rules by key: of ``--bound key=number``, else of the machine profile, else the default.

    Raises
    ------
    ConfigError
        There is no such rule, or it is not a number.
    """
    bounds = {rule.key: rule.bound for rule in rules}
    for key, bound in of_machine.items():
        _want_known(key, bounds, f"report.bounds.{key} of the machine profile")
        bounds[key] = bound
    for text in given:
        key, _, value = text.partition("=")
        _want_known(key, bounds, f"--bound {text}")
        bounds[key] = _number(text, value)
    return bounds


def _want_known(key: str, bounds: Mapping[str, float], where: str) -> None:
    if key not in bounds:
        near = get_close_matches(key, bounds, n=1)
        there = f"did you mean {near[0]}?" if near else f"available: {', '.join(bounds)}"
        raise ConfigError(f"{where}: no finding of that name - expected key=number - {there}")


def _number(text: str, value: str) -> float:
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise ConfigError(f"--bound {text}: not a number - expected key=number - such as --bound labels_refused=10")
    return found


def findings_by(rules: Iterable[Rule], seen: Seen, bounds: Mapping[str, float]) -> list[PageFinding]:
    """Return the findings, the most severe first."""
    found = [one for rule in rules for one in rule.found(seen, bounds[rule.key])]
    return sorted(found, key=lambda one: STAKES.index(one.rule.stake))
