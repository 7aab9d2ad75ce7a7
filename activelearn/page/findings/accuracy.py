"""Findings on true errors: held-out frames, the calibration, elements and compositions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from activelearn.page.findings.rule import Noted, Rule
from activelearn.page.products import Doubted, Residual
from activelearn.page.seen import SeenCampaign
from activelearn.records import Ensemble, Errors

#: Minimum number of atoms of an element, or frames of a composition, for a finding.
_FEW_ATOMS: Final = 50
_FEW_FRAMES: Final = 5
#: Energy errors whose MAE is at least this fraction of their RMSE are a constant shift. (Normal ones: 0.80.)
_ALIKE: Final = 0.95


def by_composition(ensemble: Ensemble) -> dict[str, Errors]:
    """Return the held-out errors by formula of the cell, means over the members."""
    members = ensemble.members
    formulas = members[0].by_composition if members else {}
    found = {
        name: Errors.mean([m.by_composition[name] for m in members if name in m.by_composition]) for name in formulas
    }
    return {name: errors for name, errors in found.items() if errors is not None}


def _last(seen: SeenCampaign) -> Ensemble | None:
    return seen.records[-1].ensemble if seen.records else None


def _p99(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    known = seen.accuracy
    if known is None or known.held_out_p99 is None:
        return
    f_hi = known.window[1]
    if known.held_out_p99 >= bound * f_hi:
        what = f"held-out P99 of the force error {known.held_out_p99:.3g} eV/Å, f_hi {f_hi:g} eV/Å"
        yield Noted(what, known.held_out_p99 / f_hi)


def _false_accepts(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    known = seen.accuracy
    if known is None or known.interval is None:
        return
    if known.interval[0] > bound * known.false_accept_rate:
        yield Noted(known.false_accepts, known.interval[0] / known.false_accept_rate)


def _wide(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    known = seen.accuracy
    if known is None or known.interval is None:
        return
    width = 100.0 * (known.interval[1] - known.interval[0])
    if width > bound:
        yield Noted(f"the 95 % interval is {width:.0f} points wide: {known.false_accepts}", width)


def _ratio(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    known = seen.calibration
    if known is not None and known.ratio[1] > bound:
        low, middle, high = known.ratio
        what = (
            f"the largest force error of a frame is {middle:.1f} times its deviation ({low:.1f} to {high:.1f} in 90 %)"
        )
        yield Noted(f"{what}, in {known.n_pairs} labelled frames", middle)


def _element(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    if (found := seen.residual) is not None:
        where = f"frames labelled in iteration {found.iteration}"
        yield from _one_element("force error", found, bound, where)


def _element_deviation(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    if (found := seen.doubted) is not None:
        where = f"worst kept frames of the walks of pass {found.iteration}"
        yield from _one_element("force deviation", found, bound, where)


def _one_element(what: str, found: Residual | Doubted, bound: float, where: str) -> Iterator[Noted]:
    """Yield each element whose force errors, or deviations, are this many times those of all others."""
    for element in dict.fromkeys(found.symbols.tolist()):
        mine = found.symbols == element
        if mine.sum() < _FEW_ATOMS or (~mine).sum() < _FEW_ATOMS:
            continue
        own, others = found.rms(mine), found.rms(~mine)
        if others > 0.0 and own / others >= bound:
            said = f"{what} of {element} {own:.3f} eV/Å rms, of all others {others:.3f} eV/Å ({where})"
            yield Noted(said, own / others, _more(element))


def _more(element: str) -> str:
    """Return what helps against one element that dominates."""
    return f"`train.element_weights: {{{element}: 2}}` of DeePMD, or more data around {element}"


def _composition(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    ensemble = _last(seen)
    found = by_composition(ensemble) if ensemble is not None else {}
    known = {name: errors for name, errors in found.items() if errors.n_frames >= _FEW_FRAMES}
    for name, errors in known.items():
        others = [one.force_rmse for other, one in known.items() if other != name]
        if others and errors.force_rmse >= bound * float(np.mean(others)):
            mean = float(np.mean(others))
            what = f"held-out force RMSE of {name} {errors.force_rmse:.3f} eV/Å, of the others {mean:.3f} eV/Å"
            yield Noted(what, errors.force_rmse / mean)


def _shift(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    ensemble = _last(seen)
    found = by_composition(ensemble) if ensemble is not None else {}
    for name, errors in found.items() if len(found) > 1 else ():
        mae, rmse = errors.energy_mae_meV_per_atom, errors.energy_rmse_meV_per_atom
        if errors.n_frames >= _FEW_FRAMES and mae >= bound and mae >= _ALIKE * rmse:
            what = f"energies of {name} are off by {mae:.1f} meV/atom, by a constant shift (RMSE {rmse:.1f} meV/atom)"
            yield Noted(f"{what}, in {errors.n_frames} held-out frames", mae)


def _few(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    ensemble = _last(seen)
    if ensemble is None:
        return
    n = ensemble.held_out.n_frames if ensemble.held_out is not None else 0
    if n < bound:
        yield Noted(f"{n} held-out frames: their P99 and RMSE are uncertain", n)


def _rises(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    trained = [r.ensemble for r in seen.records if r.ensemble.trained_in == r.index and r.ensemble.held_out is not None]
    if not trained:
        return
    n = trained[-1].held_out.n_frames if trained[-1].held_out is not None else 0
    alike = [one for one in trained if one.held_out is not None and one.held_out.n_frames == n]
    values = [(one.held_out.force_rmse, one.trained_in) for one in alike if one.held_out is not None]
    best, where = min(values)
    if values[-1][0] >= bound * best:
        what = f"held-out force RMSE {values[-1][0]:.3f} eV/Å, after {best:.3f} eV/Å in iteration {where}"
        yield Noted(what, values[-1][0] / best)


RULES: Final = (
    Rule(
        "held_out_p99",
        1.0,
        "f_hi",
        "trust",
        "the held-out 99th percentile of the force error is at least {bound}",
        "One atom in a hundred errs by as much as the deviation at which a frame counts as failed: a deviation inside "
        "the window does not mean an error inside it.",
        "raise `train.n_steps`, or use a larger net (`train.fitting` of DeePMD); `stop.max_force_error_p99` requires "
        "a lower error",
        _p99,
    ),
    Rule(
        "false_accepts",
        1.0,
        "select.false_accept_rate",
        "trust",
        "the lower end of the 95 % interval of the false-accept rate is above {bound}",
        "More frames are classified as accurate than are accurate.",
        "lower `select.f_lo`, or `select.window: calibrated`",
        _false_accepts,
    ),
    Rule(
        "error_per_deviation",
        3.0,
        "times",
        "trust",
        "the force error of the frames labelled last is, in the median, more than {bound} their force deviation",
        "The members agree with each other more than with the reference: the deviation underestimates the error.",
        "lower `select.f_lo`, or `select.window: calibrated`; read errors from held-out frames and "
        "`benchmark.force_error`",
        _ratio,
    ),
    Rule(
        "interval_wide",
        20,
        "points",
        "accuracy",
        "the 95 % interval of the false-accept rate is wider than {bound}",
        "Too few accurate frames were labelled to tell how many of them are accurate.",
        "raise `select.audit_frames`",
        _wide,
    ),
    Rule(
        "element_error",
        2.0,
        "times",
        "accuracy",
        "the force error of one element is at least {bound} that of all others, on frames labelled last (50 "
        "atoms of each or more)",
        "One element dominates the error, and so the deviation.",
        "`train.element_weights` of DeePMD",
        _element,
    ),
    Rule(
        "element_deviation",
        2.0,
        "times",
        "accuracy",
        "the force deviation of one element is at least {bound} that of all others, rms over the worst kept frame of "
        "each walk of the last pass (50 atoms of each or more)",
        "One element decides which frames are candidates; the others are hardly tested.",
        "`train.element_weights` of DeePMD",
        _element_deviation,
    ),
    Rule(
        "composition_error",
        2.0,
        "times",
        "accuracy",
        "the held-out force RMSE of one composition is at least {bound} the mean of the others",
        "The model is worse for one composition, which a mean over all hides.",
        "more walks for it (`explore.systems`); in a new campaign, more initial data (`initial.systems`)",
        _composition,
    ),
    Rule(
        "energy_shift",
        5.0,
        "meV/atom",
        "accuracy",
        "the held-out energies of one of several compositions are off by at least {bound}, by a constant shift (MAE "
        "at least 0.95 of the RMSE)",
        "A constant shift between compositions does not affect forces, but energies across compositions.",
        "more data for it; `train.prefactors.energy` of DeePMD; in a new campaign, `initial.isolated` for the "
        "energies of atoms",
        _shift,
    ),
    Rule(
        "held_out_few",
        30,
        "frames",
        "accuracy",
        "fewer than {bound} are held out",
        "A 99th percentile over a few frames is the error of a few atoms.",
        "in a new campaign, a larger `initial.held_out_fraction` or more `initial.copies` (the held-out set of a "
        "campaign is fixed)",
        _few,
    ),
    Rule(
        "held_out_rises",
        1.2,
        "times",
        "accuracy",
        "the held-out force RMSE of the last training is at least {bound} the lowest of the trainings before",
        "Recent training data degrade what was learnt before.",
        "`train.n_steps` (`train.warm_n_steps` after the first); `train.warm_start: false`; a larger net "
        "(`train.fitting` of DeePMD)",
        _rises,
    ),
)
