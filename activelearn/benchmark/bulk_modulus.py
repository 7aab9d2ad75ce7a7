"""Bulk modulus from the pressure under hydrostatic strain (Luo et al. 2024).

At 0 K the last frame of a glass is relaxed to zero stress, strained, and its positions relaxed at each strain; at a
temperature the last frame is strained as it is, and the pressure is an average over NVT dynamics. Strains are linear,
so B = -dP/d ln V = -(1/3) dP/de.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from activelearn.benchmark.property import Context, Findings, Observable, Product, Property
from activelearn.benchmark.replicas import Replicas, mean_and_error, measured
from activelearn.benchmark.straining import (
    Failed,
    Relaxer,
    crowding,
    kept,
    pressure_GPa,
    strained,
    unrelaxed_note,
)
from activelearn.config import BulkModulus, Dynamics, Potential, Segment
from activelearn.engines import dynamics
from activelearn.engines.process import Slot
from activelearn.frames import FloatArray, Frames
from activelearn.records import Result, Task

NAME: Final = "bulk_modulus"
_BAR_PER_GPA: Final = 1.0e4


def fit(strain: FloatArray, pressure: FloatArray) -> tuple[float, float]:
    """Return the bulk modulus and its standard error from the slope of a line through P(e).

    Parameters
    ----------
    strain
        (n,) linear strains of all three axes, a pure number, n >= 3.
    pressure
        (n,) positive in compression; of any unit (GPa here), which the modulus has.

    Returns
    -------
    modulus, error
        -(1/3) of the slope, and a third of the slope's standard error by the scatter about the line.

    Raises
    ------
    ValueError
        There are fewer than three points, or all have one strain.
    """
    if len(strain) < 3 or not np.ptp(strain) > 0.0:
        raise ValueError(f"bulk modulus of {len(strain)} points - expected three or more at different strains")
    e = strain - strain.mean()
    slope = float(e @ pressure / (e @ e))
    scatter = pressure - pressure.mean() - slope * e
    error = np.sqrt(scatter @ scatter / (len(e) - 2) / (e @ e))
    return -slope / 3.0, float(error) / 3.0


def relaxed_pressures(relaxer: Relaxer, start: Frames, strains: Sequence[float]) -> Product:
    """Return strain and pressure (GPa) of a structure at 0 K, relaxed to zero stress before it is strained.

    Raises
    ------
    Failed
        The potential returned non-finite numbers.
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
    """MD runs with one potential, each done once."""

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
    run: Thermal, start: Frames, asked: BulkModulus, temperature_K: float, rng: np.random.Generator
) -> Product:
    """Return strain and mean pressure (GPa, the atoms' motion included) of NVT dynamics at a temperature.

    All strains begin with the same velocities.

    Raises
    ------
    Failed
        A run failed.
    """
    velocities = dynamics.thermal_velocities(start, temperature_K, rng)
    legs = [
        Segment(name=name, temperature_K=temperature_K, ps=ps, n_frames=1)
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


def run(task: Task, asked: BulkModulus, context: Context, slot: Slot) -> Product:
    """Return strain and pressure of one glass."""
    potential, folder = context.potential_of(task), context.folder(task)
    start = context.path_of(task).last
    try:
        if asked.temperature_K is None:
            statics = potential.statics(slot.machine.python)
            relaxer = Relaxer(statics, slot, asked.fmax, asked.max_steps, folder)
            arrays, meta = relaxed_pressures(relaxer, start, asked.strains)
            meta |= crowding(potential, folder)
        else:
            thermal = Thermal(potential, context.benchmark.dynamics, folder, slot)
            arrays, meta = averaged_pressures(thermal, start, asked, asked.temperature_K, context.rng(task.id))
            meta |= crowding(potential, folder, "*/*.npz")
    except Failed as failed:
        return {}, {"ended": str(failed)}
    return arrays, {"ended": dynamics.FINISHED, **meta}


def results(asked: BulkModulus, context: Context, tasks: Sequence[Task]) -> Findings:
    """Average over replicas."""
    findings = Findings()
    for replicas in measured(context, tasks, findings, temperature_K=asked.temperature_K or 0.0):
        strain = replicas.arrays[0]["strain"]
        stress = -np.array([arrays["pressure_GPa"] for arrays in replicas.arrays])
        modulus = _modulus(replicas, strain, [fit(strain, -line) for line in stress])
        findings.results.append(modulus)
        key = "-".join(["stress_strain", *map(str, replicas.condition.values())])
        axes = ("linear strain (%)", "mean stress (GPa)")
        curve = replicas.curve("stress_strain", f"x = {replicas.condition['x']:g}", axes, key)
        curve = curve.model_copy(update={"stamp": modulus.stamp})
        findings.add_curve(curve, 100.0 * strain, *mean_and_error(stress))
    return findings


def _modulus(replicas: Replicas, strain: FloatArray, fits: Sequence[tuple[float, float]]) -> Result:
    at = replicas.condition["temperature_K"]
    how = f"NVT at {at:g} K" if at else "0 K, strained from zero stress"
    note = f"{how}, linear strains {strain.min():+.2%} to {strain.max():+.2%}{unrelaxed_note(replicas.metas)}"
    n = sum(modulus <= 0.0 for modulus, _ in fits)
    unstable = f"{n} of {len(fits)} with no positive bulk modulus" if n else None
    result = replicas.result("bulk_modulus", "GPa", [modulus for modulus, _ in fits], note, unstable)
    if len(fits) > 1:
        return result
    return result.model_copy(update={"uncertainty": fits[0][1], "note": f"{note}; error of the fit"})


PROPERTY = Property(
    NAME,
    BulkModulus,
    run,
    results,
    runs_potential=True,
    observables={NAME: Observable("GPa", high=2000.0, of=("x", "temperature_K"))},
    temperatures_K=lambda asked: (asked.temperature_K or 0.0,),
)
