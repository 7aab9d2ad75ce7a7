"""Coordination of the modifiers by the anions with the same radii for a whole series and all potentials."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from activelearn.benchmark.bonds import find_bonds
from activelearn.benchmark.property import ELEMENT, Context, Findings, Observable, Product, Property
from activelearn.benchmark.replicas import NO_FRAMES, measured
from activelearn.config import Series
from activelearn.engines.process import Slot
from activelearn.errors import ConfigError
from activelearn.frames import FloatArray, Frames
from activelearn.records import Task


def shell_cutoffs(series: Series) -> dict[tuple[str, str], float]:
    """Return the radius of the shell of every modifier and anion, Å.

    Raises
    ------
    ConfigError
        A pair of modifier and anion has none.
    """
    found: dict[tuple[str, str], float] = {}
    for modifier in series.roles.modifiers:
        for anion in series.roles.anions:
            cutoff = series.cutoff_A(modifier, anion)
            if cutoff is None:
                raise ConfigError(
                    f"series {series.name}: cutoffs_A: no {modifier}-{anion} - expected the radius of the "
                    f"shell of every modifier and anion - add {{{modifier}-{anion}: ...}}"
                )
            found[modifier, anion] = cutoff
    return found


def coordination(frames: Frames, cutoffs: dict[tuple[str, str], float]) -> dict[str, FloatArray]:
    """Return the number of anions around the modifiers, by pair such as ``Na-S``.

    Parameters
    ----------
    frames
        Any cells, including small ones: every periodic image counts.
    cutoffs
        Radii (Å) of (modifier, anion).

    Returns
    -------
    dict
        (n_frames,) mean number of these anions within the radius of an atom of the modifier; pairs whose modifier is
        absent are left out.
    """
    bonds = find_bonds(frames, cutoffs)
    symbols = np.array(frames.symbols)
    frame, is_at = bonds.i // frames.n_atoms, symbols[bonds.i % frames.n_atoms]
    found: dict[str, FloatArray] = {}
    for kind, (modifier, anion) in enumerate(bonds.pairs):
        n_modifiers = int((symbols == modifier).sum())
        if n_modifiers:
            counts = np.bincount(frame[(bonds.kind == kind) & (is_at == modifier)], minlength=len(frames))
            found[f"{modifier}-{anion}"] = counts / n_modifiers
    return found


def plan(asked: bool, context: Context) -> list[Task]:
    """Return one task per glass."""
    shell_cutoffs(context.series)  # a radius that is missing is missed before anything runs
    return context.tasks_of("coordination")


def run(task: Task, asked: bool, context: Context, slot: Slot) -> Product:
    """Return ``Na-S`` ... (n_analysed,) of one glass, see :func:`coordination`."""
    frames = context.path_of(task).analysed_frames
    if len(frames) == 0:
        return {}, {"ended": NO_FRAMES}
    return dict(coordination(frames, shell_cutoffs(context.series))), {}


def results(asked: bool, context: Context, tasks: Sequence[Task]) -> Findings:
    """Average over replicas: ``Na_coordination`` by all anions, and of it the share of each, ``Na_S_share``."""
    series, radii = context.series, shell_cutoffs(context.series)
    findings = Findings()
    for replicas in measured(context, tasks, findings):
        for modifier in series.roles.modifiers:
            pairs = {f"{modifier}-{anion}": anion for anion in series.roles.anions}
            if not all(pair in arrays for arrays in replicas.arrays for pair in pairs):
                continue  # a composition without this modifier
            note = ", ".join(f"r({m}-{anion}) = {r:g} Å" for (m, anion), r in radii.items() if m == modifier)
            counts = [{pair: float(arrays[pair].mean()) for pair in pairs} for arrays in replicas.arrays]
            totals = [sum(one.values()) for one in counts]
            findings.results.append(replicas.result(f"{modifier}_coordination", "1", totals, note))
            for pair, anion in pairs.items():
                if len(pairs) > 1 and all(totals):
                    shares = [100.0 * one[pair] / total for one, total in zip(counts, totals, strict=True)]
                    findings.results.append(replicas.result(f"{modifier}_{anion}_share", "%", shares, note))
    return findings


PROPERTY = Property(
    "coordination",
    bool,
    run,
    results,
    plan,
    observables={
        rf"{ELEMENT}_coordination": Observable("1", high=100.0),
        rf"{ELEMENT}_{ELEMENT}_share": Observable("%", high=100.0),
    },
)
