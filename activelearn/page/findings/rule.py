"""What a finding is: a rule over records with one bound, and what it says where the bound is passed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Literal, NamedTuple

from activelearn.errors import ConfigError
from activelearn.page.seen import Seen, SeenCampaign, SeenStudy
from activelearn.report.behind import number

#: What is at stake, the gravest first: whether numbers can be believed, how good they are, what they cost.
Stake = Literal["trust", "accuracy", "cost"]
STAKES: Final[tuple[Stake, ...]] = ("trust", "accuracy", "cost")


class Noted(NamedTuple):
    """One place where a bound is passed: a sentence with its numbers, the number, and what helps there."""

    what: str
    number: float
    fix: str | None = None


@dataclass(frozen=True)
class Rule:
    """A rule over records.

    Parameters
    ----------
    key
        By which the bound is set: ``--bound key=number``.
    bound, unit
        The default, and what it is counted in.
    stake
        What is at stake.
    when
        When it is found, with the bound as ``{bound}``.
    why
        What it means.
    fix
        The command or the key of the YAML that changes it.
    of_campaign, of_study
        What looks for it, with the bound: in a campaign, in each of its studies.
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
        """Return what of a folder passes the bound."""
        noted: list[Noted] = []
        if self.of_campaign is not None and seen.campaign is not None:
            noted += self.of_campaign(seen.campaign, bound)
        if self.of_study is not None:
            noted += [one for study in seen.studies for one in self.of_study(study, bound)]
        return [PageFinding(self, one.what, one.number, bound, one.fix or self.fix) for one in noted]

    def said(self, bound: float | None = None) -> str:
        """Return when it is found, in words with its bound."""
        return self.when.format(bound=quantity(self.bound if bound is None else bound, self.unit))


@dataclass(frozen=True)
class PageFinding:
    """What was found.

    Parameters
    ----------
    rule
        The rule.
    what
        A sentence with the numbers.
    number, bound
        What was found, and the bound that it passes, in the unit of the rule.
    fix
        The command or key that changes it.
    """

    rule: Rule
    what: str
    number: float
    bound: float
    fix: str


def quantity(value: float, unit: str) -> str:
    """Return a number with its unit."""
    return f"{number(value)} {unit}".strip()


def bounds_of(given: Sequence[str], rules: Sequence[Rule]) -> dict[str, float]:
    """Return the bounds of all rules by key, those of ``--bound key=number`` in the place of defaults.

    Raises
    ------
    ConfigError
        There is no such rule, or it is no number.
    """
    bounds = {rule.key: rule.bound for rule in rules}
    for text in given:
        key, _, value = text.partition("=")
        if key not in bounds:
            near = get_close_matches(key, bounds, n=1)
            there = f"did you mean {near[0]}?" if near else f"there are: {', '.join(bounds)}"
            raise ConfigError(f"--bound {text}: no finding of that name - expected key=number - {there}")
        bounds[key] = _number(text, value)
    return bounds


def _number(text: str, value: str) -> float:
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise ConfigError(f"--bound {text}: no number - expected key=number - such as --bound labels_refused=10")
    return found


def findings_by(rules: Iterable[Rule], seen: Seen, bounds: Mapping[str, float]) -> list[PageFinding]:
    """Return what is found, the gravest first."""
    found = [one for rule in rules for one in rule.found(seen, bounds[rule.key])]
    return sorted(found, key=lambda one: STAKES.index(one.rule.stake))
