"""Background of a number: its interval, the replicas of those planned; or why there is no number."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from activelearn.records import MadeGlass, Result, Scoreboard
from activelearn.report.stamps import is_unstable

#: Relative standard error below which it is due to rounding.
_ROUNDING: Final = 1.0e-10
#: Conditions of numbers that do not belong to a glass.
OF_NO_GLASS: Final = frozenset({"crystal", "reaction"})
#: Units of numbers whose size is about one, also where they are zero.
_OF_SIZE_ONE: Final = ("1", "%")


def number(value: float) -> str:
    """Return a number with four significant digits, or two and a power of ten if it is tiny or huge."""
    if not math.isfinite(value):
        return "not finite"
    if value != 0.0 and not 1.0e-3 <= abs(value) < 1.0e5:
        return f"{value:.2e}"
    return f"{value:.4g}"


def value_of(result: Result) -> float:
    """Return the value, with rounding errors of zero removed."""
    return 0.0 if result.unit in _OF_SIZE_ONE and abs(result.value) < _ROUNDING else result.value


def error_of(result: Result) -> float | None:
    """Return the standard error: 0 if the replicas are identical within rounding."""
    error = result.uncertainty
    if error is None or not math.isfinite(error):
        return None
    size = max(abs(result.value), 1.0 if result.unit in _OF_SIZE_ONE else 0.0)
    return 0.0 if error <= _ROUNDING * size else error


def interval(result: Result) -> str:
    """Return a description of the interval of a number: the column of that name in results.csv."""
    error, n = error_of(result), result.n_samples
    if error is None:
        what = "crystal" if "crystal" in result.condition else "replica" if "x" in result.condition else "value"
        return "no interval: one " + what if n == 1 else f"no interval: of {n} frames at once"
    if n == 1:
        return "error of the fit"
    if error == 0.0:
        return f"0: {n} identical replicas"
    return f"standard error of {n} replicas"


def with_interval(result: Result) -> str:
    """Return ``2.05 ± 0.03``; for identical replicas ``2.05 ± 0``, and for a single value the value."""
    error = error_of(result)
    said = "" if error is None else " ± 0" if error == 0.0 else f" ± {error:.2g}"
    return f"{number(value_of(result))}{said}"


def counted(result: Result, glasses: Iterable[MadeGlass]) -> str:
    """Return ``n = 2 of 3``, and the kind of interval, if it is not a scatter of replicas."""
    n, planned = result.n_samples, n_planned(result, glasses)
    of = f" of {planned}" if planned is not None else ""
    error = error_of(result)
    more = ", no interval" if error is None else ", error of the fit" if n == 1 else ""
    more = ", identical" if error == 0.0 and n > 1 else more
    return f"n = {n}{of}{more}"


def n_planned(result: Result, glasses: Iterable[MadeGlass]) -> int | None:
    """Return the planned number of replicas of a number; for a series the largest of a composition."""
    if not {*OF_NO_GLASS, "replica"}.isdisjoint(result.condition):  # of one crystal, or of frames
        return None
    found = Counter(glass.x for glass in glasses if is_of(glass, result.condition))
    if "x" not in result.condition and result.measured_by == "parity":
        return None
    return max(found.values(), default=None)


def is_of(glass: MadeGlass, condition: Mapping[str, Any]) -> bool:
    """Return whether a glass matches the condition of a number."""
    return (
        condition.get("potential", glass.potential) == glass.potential
        and condition.get("x", glass.x) == glass.x
        and condition.get("cooling_rate_K_per_ps", glass.cooling_rate_K_per_ps) == glass.cooling_rate_K_per_ps
        and condition.get("replica", glass.replica) == glass.replica
        and ("porous" in condition) == glass.is_porous
    )


def deaths(glasses: Sequence[MadeGlass]) -> str | None:
    """Return how many glasses failed, and the main reason: ``2 of 3 glasses died in melt: lost atoms after 1.2 ps``."""
    lost = [glass for glass in glasses if not glass.is_finished]
    if not lost:
        return None
    reasons = Counter(glass.ended for glass in lost)
    (first, n), *others = reasons.most_common()
    some = f", {n} of them" if others else ""
    return f"{len(lost)} of {len(glasses)} glass{'es' if len(glasses) > 1 else ''} died{some} in {first}"


def why_none(board: Scoreboard, measured_by: str | None, condition: Mapping[str, Any]) -> str | None:
    """Return why there is no number under a condition; None if nothing failed there."""
    glasses = [glass for glass in board.glasses if is_of(glass, condition)]
    if OF_NO_GLASS.isdisjoint(condition) and glasses and all(not glass.is_finished for glass in glasses):
        return deaths(glasses)
    failed = [
        one.why
        for one in board.missing
        if one.measured_by == measured_by
        and all(one.condition.get(key) == condition[key] for key in condition.keys() & one.condition.keys())
    ]
    if failed:
        again = f" ({len(failed)} times)" if failed.count(failed[0]) > 1 else ""
        return f"{failed[0]}{again}"
    return None


def losses(board: Scoreboard | None, glasses: Sequence[MadeGlass]) -> str | None:
    """Return the losses of a study in one line; None if everything was measured."""
    said = [deaths(glasses)]
    if board is not None and board.missing:
        what = Counter(one.measured_by for one in board.missing)
        said.append("not measured: " + ", ".join(f"{name} ({n} times)" if n > 1 else name for name, n in what.items()))
    return "; ".join(filter(None, said)) or None


def averaged(results: Iterable[Result]) -> list[Result]:
    """Return the results that may be averaged."""
    return [result for result in results if math.isfinite(result.value) and not is_unstable(result)]
