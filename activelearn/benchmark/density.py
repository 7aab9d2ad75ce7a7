"""Density and volume per atom: means over the thermo rows of the segments that are analysed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelearn.benchmark.per_glass import glass_of, measured, tasks_of
from activelearn.benchmark.property import Findings, Property, averaged, stamp_of
from activelearn.config import Study
from activelearn.engines.process import Slot
from activelearn.frames import FloatArray
from activelearn.records import Task
from activelearn.store import StudyStore
from activelearn.store.study import GLASS, ONCE
from activelearn.units import AMU_PER_A3_IN_G_PER_CM3


def density_g_cm3(symbols: Sequence[str], volume: FloatArray) -> FloatArray:
    """Return the density of a cell.

    Parameters
    ----------
    symbols
        Elements of its atoms; masses are the standard atomic weights in ASE (IUPAC).
    volume
        (n,) Å^3.

    Returns
    -------
    NDArray
        (n,) g/cm^3.
    """
    from ase.data import atomic_masses, atomic_numbers

    mass = sum(float(atomic_masses[atomic_numbers[symbol]]) for symbol in symbols)
    return np.asarray(mass * AMU_PER_A3_IN_G_PER_CM3 / volume, dtype=np.float64)


def plan(study: Study, store: StudyStore) -> list[Task]:
    """Return one task per glass."""
    return tasks_of("density", store) if study.benchmark is not None and study.benchmark.density else []


def run(task: Task, store: StudyStore, slot: Slot) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:  # noqa: ARG001
    """Average over the thermo rows, which are denser than the frames."""
    arrays, meta = store.read_product(GLASS, ONCE, glass_of(task, store).id)
    volume = arrays["thermo/volume"][np.isin(arrays["thermo/segment"], meta["analysed"])]
    symbols = arrays["frames/symbols"].tolist()
    if len(volume) == 0:
        return {}, {"ended": "the analysed segments have no thermo rows"}
    return {}, {
        "density_g_cm3": float(density_g_cm3(symbols, volume).mean()),
        "volume_per_atom_A3": float(volume.mean()) / len(symbols),
        "n_rows": len(volume),
        # Last digits of a volume are lost in printing, none of a barostat's steps is that small.
        "is_constant": bool(np.ptp(volume) < 1.0e-6 * volume.mean()) and len(volume) > 1,
    }


def results(study: Study, store: StudyStore, tasks: Sequence[Task]) -> Findings:  # noqa: ARG001
    """Return density and volume per atom of every condition."""
    found = Findings()
    for condition, group in measured(store, tasks, found):
        stamp = stamp_of([glass for glass, _, _ in group])
        is_constant = any(meta["is_constant"] for _, _, meta in group)
        note = "at constant volume: given, not predicted" if is_constant else None
        for name, key, unit in (("density", "density_g_cm3", "g/cm3"), ("volume_per_atom", "volume_per_atom_A3", "Å3")):
            values = [meta[key] for _, _, meta in group]
            found.results.append(averaged(name, unit, values, condition, stamp=stamp, note=note))
    return found


PROPERTY = Property("density", plan, run, results)
