"""Findings on glasses and benchmarks: trust along the path, the melt, replicas, true errors, experiment."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from activelearn.page.findings.rule import Noted, Rule
from activelearn.page.seen import SeenPath, SeenStudy
from activelearn.records import MadeGlass, Result
from activelearn.stamping import MAX_OVERLAP, MIN_MSD_A2

#: Number of blocks of the rows of a glass, whose scatter gives the error of their mean.
_BLOCKS: Final = 5
#: Relative deviation from experiment below which a result is not reported, however small its error.
_NEAR: Final = 0.02


def where_outside(path: SeenPath, f_hi: float) -> str:
    """Return where on its path a glass left the window: the first such row, and shares by segment.

    Parameters
    ----------
    path
        Path of the glass.
    f_hi
        Upper deviation threshold, eV/Å.
    """
    rows = path.thermo
    is_judged = ~np.isnan(rows.max_devi_f)
    out = is_judged & ~(rows.max_devi_f < f_hi)
    if not out.any():
        return ""
    first = int(np.flatnonzero(out)[0])
    at = f"first in {path.segments[int(rows.segment[first])]} at {path.times_ps[first]:.1f} ps, "
    at += f"{rows.temperature_K[first]:.0f} K"
    shares = [
        f"{name} {100 * out[mine].sum() / is_judged[mine].sum():.1f} %"
        for i, name in enumerate(path.segments)
        if (mine := rows.segment == i).any() and out[mine].any()
    ]
    return f"{at}; by segment: {', '.join(shares)}"


def mean_and_block_error(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the mean of a series and its standard error from five blocks; None if too short, or constant.

    Parameters
    ----------
    values
        (n_rows,) consecutive values, in any unit.
    """
    if len(values) < 4 * _BLOCKS:
        return None
    blocks = np.array([block.mean() for block in np.array_split(values, _BLOCKS)])
    error = float(blocks.std(ddof=1) / math.sqrt(_BLOCKS))
    return (float(values.mean()), error) if error > 1.0e-9 * abs(float(values.mean())) else None


def _outside(seen: SeenStudy, bound: float) -> Iterator[Noted]:
    for glass in seen.glasses:
        if glass.outside_share is None or 100.0 * glass.outside_share <= bound:
            continue
        window, path = seen.windows.get(glass.potential), seen.paths.get(glass.id)
        where = where_outside(path, window[1]) if window is not None and path is not None else ""
        what = f"{glass.id}: {100 * glass.outside_share:.1f} % of {glass.n_judged} frames at or above f_hi"
        yield Noted(f"{what}; {where}" if where else what, 100.0 * glass.outside_share)


def _crowded(seen: SeenStudy, bound: float) -> Iterator[Noted]:
    for glass in seen.glasses:
        share = 100.0 * (glass.overflow_share or 0.0)
        if share > bound:
            what = f"{glass.id}: more neighbours than sel holds ({glass.overflow}) in {share:.1f} % of frames"
            yield Noted(what, share)


def _not_melted(seen: SeenStudy, bound: float) -> Iterator[Noted]:
    for glass in seen.glasses:
        melt = glass.melt
        if not glass.is_finished or melt is None or melt.msd_A2 is None or melt.overlap is None:
            continue
        moved = math.sqrt(melt.msd_A2)
        if moved < bound or melt.overlap >= MAX_OVERLAP:
            who = "/".join(melt.formers) or "all atoms"
            what = f"{glass.id}: in its melt {who} moved {moved:.2f} Å rms"
            yield Noted(f"{what}, {100 * melt.overlap:.0f} % are within 1 Å of their starting positions", moved)


def _died(seen: SeenStudy, bound: float) -> Iterator[Noted]:
    lost = [glass for glass in seen.glasses if not glass.is_finished]
    if len(lost) > bound:
        what = (
            f"{len(lost)} of {len(seen.glasses)} glasses of {seen.name} failed, such as {lost[0].id} in {lost[0].ended}"
        )
        yield Noted(what, len(lost))


def _groups(glasses: Sequence[MadeGlass]) -> list[list[MadeGlass]]:
    """Return the finished glasses, grouped as replicas."""
    found: dict[tuple[object, ...], list[MadeGlass]] = {}
    for glass in glasses:
        if glass.is_finished:
            key = (glass.potential, glass.x, glass.cooling_rate_K_per_ps, glass.is_porous, glass.formula)
            found.setdefault(key, []).append(glass)
    return list(found.values())


def _disagree(seen: SeenStudy, bound: float) -> Iterator[Noted]:
    for group in _groups(seen.glasses):
        each = []
        for glass in group:
            path = seen.paths.get(glass.id)
            if path is None or glass.density_g_cm3 is None:
                continue
            volume = path.thermo.volume[np.isin(path.thermo.segment, path.analysed)]
            if (found := mean_and_block_error(volume)) is not None:
                each.append(found)
        if len(each) < 2:
            continue
        means, errors = (np.array(side) for side in zip(*each, strict=True))
        mean = float(np.average(means, weights=errors**-2.0))
        apart = math.sqrt(float((((means - mean) / errors) ** 2).sum()) / (len(each) - 1))
        if apart >= bound:
            spread = 100.0 * float(means.std(ddof=1)) / mean
            what = (
                f"{len(each)} replicas of {group[0].formula} ({group[0].potential}, x = {group[0].x:g}): volumes differ"
            )
            yield Noted(f"{what} by {spread:.1f} % (standard deviation), {apart:.1f} times their own errors", apart)


def _true_error(seen: SeenStudy, bound: float) -> Iterator[Noted]:
    for one in _results(seen, "force_error_p99"):
        window = seen.windows.get(str(one.condition.get("potential")))
        if window is not None and one.value >= bound * window[1]:
            what = f"P99 of the true force error {one.value:.3g} eV/Å on the path at x = {one.condition.get('x', 0):g}"
            yield Noted(f"{what}, f_hi {window[1]:g} eV/Å", one.value / window[1])


def _results(seen: SeenStudy, name: str | None = None) -> list[Result]:
    """Return the results of a name, except those of single replicas."""
    results = seen.board.results if seen.board is not None else ()
    return [one for one in results if (name is None or one.name == name) and "replica" not in one.condition]


def _not_measured(seen: SeenStudy, bound: float) -> Iterator[Noted]:
    missing = seen.board.missing if seen.board is not None else ()
    if len(missing) > bound:
        what = f"{len(missing)} measurements of {seen.name} failed, such as {missing[0].measured_by}: {missing[0].why}"
        yield Noted(what, len(missing))


def _beside_experiment(seen: SeenStudy, bound: float) -> Iterator[Noted]:
    for one in _results(seen):
        cited, error = one.reference_value, one.uncertainty
        if cited is None or one.reference_bound is not None or error is None or not math.isfinite(one.value):
            continue
        sigma = math.hypot(error, one.reference_uncertainty or 0.0)
        if sigma > 0.0 and abs(one.value - cited) >= max(bound * sigma, _NEAR * abs(cited)):
            items = one.condition.items()
            where = ", ".join(f"{k} = {v:g}" if isinstance(v, float) else str(v) for k, v in items)
            what = f"{one.name} {one.value:.3g} ± {error:.2g} {one.unit} ({where}), cited {cited:.3g}"
            within = f" ± {one.reference_uncertainty:.2g}" if one.reference_uncertainty else ""
            yield Noted(f"{what}{within} {one.unit}", abs(one.value - cited) / sigma)


RULES: Final = (
    Rule(
        "glass_outside",
        5,
        "%",
        "trust",
        "more than {bound} of the frames of a glass's path are at or above f_hi",
        "The path left the region that the potential knows; values measured on the glass may be artefacts.",
        "explore that temperature and density (a stage in `explore.stages` like the segment named), continue with "
        "`activelearn run --accept-changes`, then make new glasses",
        of_study=_outside,
    ),
    Rule(
        "crowded",
        0,
        "%",
        "trust",
        "more than {bound} of the kept frames of a glass have more neighbours than sel holds",
        "Neighbours are silently dropped by all members alike, which no deviation shows.",
        "a larger `train.descriptor.sel` of DeePMD in a new campaign (with `label.ledger`, no label is computed twice)",
        of_study=_crowded,
    ),
    Rule(
        "not_melted",
        math.sqrt(MIN_MSD_A2),
        "Å",
        "trust",
        "the network formers of a glass moved less than {bound} rms in its melt, or half of them are within 1 Å of "
        "their starting positions",
        "The melt, and so the glass, remembers the packing or crystal.",
        "melt longer (`ps`) or hotter (`temperature_K`) in `glass.segments`",
        of_study=_not_melted,
    ),
    Rule(
        "true_error",
        1.0,
        "f_hi",
        "trust",
        "the 99th percentile of the true force error along paths of glasses is at least {bound}",
        "On the path of the glass, true errors are as large as the deviation threshold for failed frames.",
        "raise `train.n_steps`, or use a larger net (`train.fitting` of DeePMD); walks at these temperatures and "
        "densities (`explore.stages`)",
        of_study=_true_error,
    ),
    Rule(
        "glass_died",
        0,
        "glasses",
        "trust",
        "more than {bound} of a study did not finish",
        "Values are measured only on the others.",
        "a smaller `glass.dynamics.timestep_fs`, more `max_steps` of `glass.relax`, or a potential that knows the "
        "melt (`explore.stages`)",
        of_study=_died,
    ),
    Rule(
        "replicas_disagree",
        3,
        "times",
        "accuracy",
        "the volumes of replicas scatter by at least {bound} their own errors (five blocks of the analysed rows)",
        "Each glass is trapped in its own structure: quote the error over replicas, and use enough of them.",
        "more `glass.n_replicas`; a slower quench (`rate_K_per_ps`) or a longer melt (`ps`) in `glass.segments`",
        of_study=_disagree,
    ),
    Rule(
        "beside_experiment",
        3,
        "standard errors",
        "accuracy",
        "a result with an error is at least {bound} from the cited experiment, and 2 % of it or more",
        "Beyond its scatter: the reference, the model or the glass differs from experiment.",
        "see stamp and note of the value; compare the reference's own volume of crystals (`benchmark.crystals`)",
        of_study=_beside_experiment,
    ),
    Rule(
        "not_measured",
        0,
        "measurements",
        "accuracy",
        "more than {bound} of a study failed",
        "They are listed in the tables with their reasons.",
        "see the reasons below the tables of the study, and the settings of `benchmark`",
        of_study=_not_measured,
    ),
)
