"""Density and volume per atom: means over the thermo rows of the segments that are analysed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from activelearn.benchmark.property import Context, Findings, Observable, Product, Property
from activelearn.benchmark.replicas import measured
from activelearn.engines.process import Slot
from activelearn.frames import density_of
from activelearn.records import Task


def run(task: Task, asked: bool, context: Context, slot: Slot) -> Product:
    """Average over the thermo rows, which are denser than the frames."""
    path = context.path_of(task)
    volume, symbols = path.analysed_thermo.volume, path.frames.symbols
    if len(volume) == 0:
        return {}, {"ended": "the analysed segments have no thermo rows"}
    return {}, {
        "density_g_cm3": float(density_of(symbols, volume).mean()),
        "volume_per_atom_A3": float(volume.mean()) / len(symbols),
        "n_rows": len(volume),
        # Last digits of a volume are lost in printing, but no step of a barostat is that small.
        "is_constant": bool(np.ptp(volume) < 1.0e-6 * volume.mean()) and len(volume) > 1,
    }


def results(asked: bool, context: Context, tasks: Sequence[Task]) -> Findings:
    """Return density and volume per atom of every condition."""
    found = Findings()
    for replicas in measured(context, tasks, found):
        is_constant = any(meta["is_constant"] for meta in replicas.metas)
        note = "at constant volume: given, not predicted" if is_constant else None
        for name, key, unit in (("density", "density_g_cm3", "g/cm3"), ("volume_per_atom", "volume_per_atom_A3", "Å3")):
            values = [meta[key] for meta in replicas.metas]
            found.results.append(replicas.result(name, unit, values, note))
    return found


PROPERTY = Property(
    "density",
    bool,
    run,
    results,
    observables={"density": Observable("g/cm3", high=30.0), "volume_per_atom": Observable("Å3", high=1000.0)},
)
