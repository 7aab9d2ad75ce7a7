"""Bulk modulus from the pressure under hydrostatic strain (Luo et al. 2024; definitions 4.8).

At 0 K the last frame of a glass is relaxed to zero stress, strained, and its positions relaxed at each strain; at a
temperature the last frame is strained as it is, and the pressure is an average over NVT dynamics. Strains are linear,
so B = -dP/d ln V = -(1/3) dP/de.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn.benchmark.glasses import frames_of
from activelearn.benchmark.per_glass import Measured, glass_of, measured, tasks_of
from activelearn.benchmark.property import Condition, Findings, Property, averaged, stamp_of
from activelearn.benchmark.straining import (
    Failed,
    Product,
    Relaxer,
    kept,
    pressure_GPa,
    strained,
    unrelaxed_note,
)
from activelearn.config import BulkModulus, Dynamics, Potential, Segment, Study
from activelearn.engines import dynamics
from activelearn.engines.process import Slot
from activelearn.frames import FloatArray, Frames
from activelearn.records import Curve, Result, Task
from activelearn.store import StudyStore
from activelearn.store.study import BENCHMARK, ONCE

NAME: Final = "bulk_modulus"
_BAR_PER_GPA: Final = 1.0e4


def fit(strain: FloatArray, pressure: FloatArray) -> tuple[float, float]:
    """Return the bulk modulus and its standard error from the slope of a line through P(e).

    Parameters
    ----------
    strain
        (n,) linear strains of all three axes, n >= 3.
    pressure
        (n,) positive in compression; the modulus has its unit.

    Returns
    -------
    modulus, error
        -(1/3) of the slope, and a third of the slope's standard error by the scatter about the line.
    """
    e = strain - strain.mean()
    slope = float(e @ pressure / (e @ e))
    scatter = pressure - pressure.mean() - slope * e
    error = np.sqrt(scatter @ scatter / (len(e) - 2) / (e @ e))
    return -slope / 3.0, float(error) / 3.0


def relaxed_pressures(
    relaxer: Relaxer, start: Frames, strains: Sequence[float]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return strain and pressure (GPa) of a structure at 0 K, relaxed to zero stress before it is strained.

    Raises
    ------
    Failed
        The potential gave no finite numbers.
    """
    free, is_relaxed = relaxer.relaxed("zero-stress", start, relax_cell=True)
    pressures, n_unrelaxed = [], int(not is_relaxed)
    for strain in strains:
        frame, is_relaxed = relaxer.relaxed(f"strain{strain:+g}", strained(free, strain * np.eye(3)))
        pressures.append(float(pressure_GPa(frame)[0]))
        n_unrelaxed += not is_relaxed
    return {"strain": np.array(strains), "pressure_GPa": np.array(pressures)}, {"n_unrelaxed": n_unrelaxed}


@dataclass(frozen=True)
class Thermal:
    """Runs of dynamics with one potential, each done once."""

    potential: Potential
    integration: Dynamics
    folder: Path
    slot: Slot

    def leg(self, name: str, segment: Segment, start: dynamics.State) -> tuple[dynamics.State, float]:
        """Return where a run ends, and its mean pressure, GPa."""
        folder = self.folder / name / segment.name
        folder.mkdir(parents=True, exist_ok=True)

        def make() -> Product:
            found = dynamics.run_segment(self.potential, segment, start, self.integration, folder, self.slot)
            if found.end is None:
                raise Failed(f"{name}, {segment.name}: {found.ended}")
            # The first row belongs to the run before.
            pressure = np.array(found.pressure_bar[1:].mean() / _BAR_PER_GPA)
            return {**found.end.frame.arrays(), "velocities": found.end.velocities, "pressure_GPa": pressure}, {}

        arrays, _ = kept(folder.with_suffix(".npz"), make)
        return dynamics.State(Frames.from_arrays(arrays), arrays["velocities"]), float(arrays["pressure_GPa"])


def averaged_pressures(
    run: Thermal, start: Frames, asked: BulkModulus, rng: np.random.Generator
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return strain and mean pressure (GPa, the atoms' motion included) of NVT dynamics at ``asked.temperature_K``.

    All strains begin with the same velocities.

    Raises
    ------
    Failed
        A run blew up.
    """
    assert asked.temperature_K is not None  # else the structure is relaxed
    velocities = dynamics.thermal_velocities(start, asked.temperature_K, rng)
    legs = [
        Segment(name=name, temperature_K=asked.temperature_K, ps=ps, n_frames=1)
        for name, ps in (("equilibrate", asked.equilibrate_ps), ("average", asked.average_ps))
    ]
    pressures = []
    for strain in asked.strains:
        state, pressure = dynamics.State(strained(start, strain * np.eye(3)), velocities), float("nan")
        for leg in legs:
            state, pressure = run.leg(f"strain{strain:+g}", leg, state)
        pressures.append(pressure)
    return {"strain": np.array(asked.strains), "pressure_GPa": np.array(pressures)}, {}


# --- the property -----------------------------------------------------------------------------------------------------


def plan(study: Study, store: StudyStore) -> list[Task]:
    """One task per glass."""
    is_asked = study.benchmark is not None and study.benchmark.bulk_modulus is not None
    return tasks_of(NAME, store) if is_asked else []


def run(task: Task, store: StudyStore, slot: Slot) -> Product:
    """Return strain and pressure of one glass."""
    benchmark = store.study.benchmark
    assert benchmark is not None
    assert benchmark.bulk_modulus is not None
    asked, glass = benchmark.bulk_modulus, glass_of(task, store)
    potential, start = store.study.potential(glass.potential), frames_of(store, glass).final
    folder = store.work_folder(BENCHMARK, task.id)
    try:
        if asked.temperature_K is None:
            statics = potential.statics(slot.machine.python)
            relaxer = Relaxer(statics, slot, asked.fmax, asked.max_steps, folder)
            arrays, meta = relaxed_pressures(relaxer, start, asked.strains)
        else:
            thermal = Thermal(potential, benchmark.dynamics, folder, slot)
            arrays, meta = averaged_pressures(thermal, start, asked, store.rng(ONCE, BENCHMARK, task.id))
    except Failed as failed:
        return {}, {"ended": str(failed)}
    return arrays, {"ended": dynamics.FINISHED, **meta}


def results(study: Study, store: StudyStore, tasks: Sequence[Task]) -> Findings:
    """Average over replicas."""
    assert study.benchmark is not None
    assert study.benchmark.bulk_modulus is not None
    temperature_K = study.benchmark.bulk_modulus.temperature_K or 0.0
    findings = Findings()
    for condition, group in measured(store, tasks, findings):
        _add(findings, {**condition, "temperature_K": temperature_K}, group)
    return findings


def _add(findings: Findings, condition: Condition, group: Sequence[Measured]) -> None:
    strain = group[0][1]["strain"]
    stress = -np.array([arrays["pressure_GPa"] for _, arrays, _ in group])
    stamp = stamp_of([glass for glass, _, _ in group])
    fits = [fit(strain, -line) for line in stress]
    findings.results.append(_result(condition, stamp, strain, fits, unrelaxed_note(meta for _, _, meta in group)))
    key = "-".join(["stress_strain", *(f"{value}" for value in condition.values())])
    label = f"x = {condition['x']:g}"
    curve = Curve(
        key=key,
        name="stress_strain",
        label=label,
        x_name="linear strain (%)",
        y_name="mean stress (GPa)",
        condition=condition,
        stamp=stamp,
    )
    error = stress.std(axis=0, ddof=1) / np.sqrt(len(stress)) if len(stress) > 1 else None
    findings.add_curve(curve, 100.0 * strain, stress.mean(axis=0), error)


def _result(
    condition: Condition, stamp: str | None, strain: FloatArray, fits: Sequence[tuple[float, float]], more: str
) -> Result:
    how = f"NVT at {condition['temperature_K']:g} K" if condition["temperature_K"] else "0 K, strained from zero stress"
    note = f"{how}, linear strains {strain.min():+.2%} to {strain.max():+.2%}{more}"
    moduli = [modulus for modulus, _ in fits]
    result = averaged("bulk_modulus", "GPa", moduli, condition, stamp=stamp, note=note)
    if len(fits) > 1:
        return result
    return result.model_copy(update={"uncertainty": fits[0][1], "note": f"{note}; error of the fit"})


PROPERTY = Property(NAME, plan, run, results)
