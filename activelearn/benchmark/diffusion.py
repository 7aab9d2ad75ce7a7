"""Diffusion: mean square displacements, D, Nernst-Einstein conductivity and activation energy.

Every finished glass runs at every temperature: equilibration, then production, both of which survive kills. Little of a
run is published: its mean square displacements, its mean volume, and the maps; positions are not kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn.benchmark import maps
from activelearn.benchmark.displacement import (
    A2_PER_PS_IN_CM2_PER_S,
    LEAST_POINTS,
    arrhenius,
    bayesian_diffusion,
    conductivity,
    diffusion_coefficient,
    doubts,
    mean_square_displacement,
    want_kinisi,
    window_rows,
)
from activelearn.benchmark.property import ELEMENT, Condition, Context, Findings, Observable, Product, Property
from activelearn.benchmark.replicas import Replicas, by_condition, mean_and_error, over, replicas_of
from activelearn.benchmark.straining import Failed, kept
from activelearn.config import Diffusion, Dynamics, Potential, Roles, Segment
from activelearn.engines import dynamics, frozen
from activelearn.engines.process import Slot
from activelearn.frames import FloatArray, Frames
from activelearn.records import Result, Task
from activelearn.trajectory import CannotFollow, unwrap, without_drift

NAME: Final = "diffusion"


def plan(asked: Diffusion, context: Context) -> list[Task]:
    """Return one task per finished glass and temperature."""
    if asked.bayesian:
        want_kinisi()
    return [
        Task(
            id=f"{NAME}-{glass.id}-{temperature_K:g}K",
            kind=NAME,
            parameters={"glass": glass.id, "temperature_K": temperature_K},
        )
        for glass in context.glasses
        for temperature_K in asked.temperatures_K
    ]


# --- one run ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trip:
    """Equilibration and production of one glass at one temperature.

    Parameters
    ----------
    potential, integration, asked
        The potential, the integrator, and the duration.
    temperature_K
        Of the thermostat.
    folder, slot
        Of the task; where it runs.
    """

    potential: Potential
    integration: Dynamics
    asked: Diffusion
    temperature_K: float
    folder: Path
    slot: Slot

    def equilibrated(self, start: dynamics.State) -> dynamics.State:
        """Return the state after ``equilibrate_ps``, from the file if a kill followed."""

        def make() -> Product:
            _, end = self._run("equilibration", self.asked.equilibrate_ps, 1, start)
            return {**end.frame.arrays(), "velocities": end.velocities}, {}

        arrays, _ = kept(self.folder / "equilibrated.npz", make)
        return dynamics.State(Frames.from_arrays(arrays), arrays["velocities"])

    def production(self, start: dynamics.State) -> dynamics.Stretch:
        """Return the run whose displacements are measured."""
        timestep_fs = dynamics.timestep_of(self.potential, self.integration)
        ps, n_frames = evenly(
            self.asked.duration_ps(self.temperature_K), self.asked.n_frames, self.integration, timestep_fs
        )
        return self._run("production", ps, n_frames, start)[0]

    def _run(
        self, name: str, ps: float, n_frames: int, start: dynamics.State
    ) -> tuple[dynamics.Stretch, dynamics.State]:
        """Run a segment to its end; return it and where the next one starts."""
        segment = Segment(
            name=name, ensemble=self.asked.ensemble, temperature_K=self.temperature_K, ps=ps, n_frames=n_frames
        )
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        stretch = dynamics.run_segment(self.potential, segment, start, self.integration, folder, self.slot)
        if stretch.end is None:
            raise Failed(f"{name}: {stretch.ended}")
        return stretch, stretch.end


def evenly(ps: float, n_frames: int, integration: Dynamics, timestep_fs: float) -> tuple[float, int]:
    """Return length and number of frames of a run whose frames are evenly spaced, for averages over time origins.

    Frames coincide with rows of the thermo table: the interval of frames is rounded up to whole rows, and the run ends
    with its last frame, less than one such interval before `ps`.
    """
    row_ps = max(1, round(integration.thermo_every_ps * 1000.0 / timestep_fs)) * timestep_fs / 1000.0
    n_rows = max(1, round(ps / row_ps))
    stride = math.ceil(n_rows / n_frames)
    n = n_rows // stride
    return n * stride * row_ps, n


def run(task: Task, asked: Diffusion, context: Context, slot: Slot) -> Product:
    """Run one glass at one temperature and publish its mean square displacements and maps."""
    if asked.bayesian:
        want_kinisi()
    potential, rng = context.potential_of(task), context.rng(task.id)
    temperature_K = float(task.parameters["temperature_K"])
    trip = Trip(potential, context.benchmark.dynamics, asked, temperature_K, context.folder(task), slot)
    last = context.path_of(task).last
    start = dynamics.State(last, dynamics.thermal_velocities(last, temperature_K, rng))
    try:
        stretch = trip.production(trip.equilibrated(start))
        n_frames, n_points = len(stretch.frames), len(window_rows(len(stretch.frames), asked.window))
        if n_points < LEAST_POINTS:
            raise Failed(f"{n_frames} frames: {n_points} of them in the window, expected {LEAST_POINTS}")
        arrays, meta = analysed(asked, context, stretch, random_seed=int(rng.integers(2**31)))
    except (Failed, CannotFollow) as failed:
        return {}, {"ended": str(failed)}
    n_judged, outside_share, above_f_lo_share = dynamics.judged(stretch.max_devi_f, potential.window)
    judged = {"n_judged": n_judged, "outside_share": outside_share, "above_f_lo_share": above_f_lo_share}
    judged |= frozen.crowding(potential, [stretch.frames])
    return arrays, {"ended": dynamics.FINISHED, **meta, **judged}


def analysed(asked: Diffusion, context: Context, stretch: dynamics.Stretch, *, random_seed: int) -> Product:
    """Return the arrays and meta to publish of a production run.

    Returns
    -------
    arrays, meta
        ``time_ps`` (n_frames,) lags; ``msd/<element>`` (n_frames,) Å^2; ``map/<label>/x|y`` and ``map/cell``, see
        :mod:`activelearn.benchmark.maps`. Meta: ``counts`` of atoms by element, ``volume_A3`` and
        ``mean_temperature_K``, ``n_ambiguous`` steps, ``bayesian`` [mean, standard deviation] of D of the carrier in
        Å^2/ps or None, ``resumed``.


    Raises
    ------
    CannotFollow
        The atoms cannot be followed from frame to frame; see :func:`unwrap`.
    """
    roles, symbols = context.series.roles, np.array(stretch.frames.symbols)
    unwrapped = unwrap(stretch.frames)
    positions = without_drift(unwrapped.positions, stretch.frames.masses)
    of_element = {element: positions[:, symbols == element] for element in dict.fromkeys(stretch.frames.symbols)}
    arrays: dict[str, NDArray[Any]] = {"time_ps": stretch.frame_time_ps - stretch.frame_time_ps[0]}
    for element, atoms in of_element.items():
        msd = mean_square_displacement(atoms, single_origin=asked.single_origin)
        arrays[f"msd/{element}"] = msd.astype(np.float32)
    carrier = roles.carrier if roles.carrier in of_element else None
    if context.benchmark.maps:
        rows = window_rows(len(positions), asked.window)
        inside = {element: atoms[rows] for element, atoms in of_element.items()}
        formers = [former for former in roles.formers if former in of_element]
        found = maps.maps_of(inside, unwrapped.cell, formers, carrier)
        arrays |= {f"map/{name}": array for name, array in found.items()}
        arrays["map/cell"] = unwrapped.cell
    bayesian = None
    if asked.bayesian and carrier is not None:
        interval_ps = float(arrays["time_ps"][1])
        bayesian = bayesian_diffusion(of_element[carrier], interval_ps, asked.window, random_seed)
    return arrays, {
        "counts": {element: atoms.shape[1] for element, atoms in of_element.items()},
        "volume_A3": float(stretch.frames.volume.mean()),
        "mean_temperature_K": float(stretch.temperature_K.mean()),
        "n_ambiguous": unwrapped.n_ambiguous,
        "bayesian": bayesian,
        "resumed": stretch.resumed,
    }


# --- results ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Runs:
    """The runs of the replicas of one glass at one temperature (``temperature_K`` among the condition)."""

    replicas: Replicas
    asked: Diffusion

    @property
    def temperature_K(self) -> float:
        """Of the thermostat."""
        return float(self.replicas.condition["temperature_K"])

    @property
    def counts(self) -> dict[str, int]:
        """Atoms by element."""
        return dict(self.replicas.metas[0]["counts"])

    @property
    def time_ps(self) -> FloatArray:
        """(n_frames,) lags, ps, the same for all."""
        return np.asarray(self.replicas.arrays[0]["time_ps"], dtype=np.float64)

    def msd(self, element: str) -> FloatArray:
        """(n_replicas, n_frames) Å^2."""
        return np.array([arrays[f"msd/{element}"] for arrays in self.replicas.arrays], dtype=np.float64)

    def note(self, element: str) -> str | None:
        """Return why D of an element is unreliable, judged by the mean over the replicas."""
        reasons = doubts(self.time_ps, self.msd(element).mean(axis=0), self.asked.window)
        n_ambiguous = sum(meta["n_ambiguous"] for meta in self.replicas.metas)
        if n_ambiguous:
            reasons += (f"{n_ambiguous} steps between frames too long to follow, needs more n_frames",)
        return f"not converged: {'; '.join(reasons)}" if reasons else None


@dataclass(frozen=True)
class Point:
    """A conductivity at a temperature, for the Arrhenius fit."""

    runs: Runs
    sigma: float
    error: float | None
    is_converged: bool


def results(asked: Diffusion, context: Context, tasks: Sequence[Task]) -> Findings:
    """Return D, conductivity and activation energy, averaged over replicas, with the lines and maps."""
    roles, found = context.series.roles, Findings()
    by_run = {(task.parameters["glass"], float(task.parameters["temperature_K"])): task for task in tasks}
    for condition, glasses in by_condition(context.glasses):
        points = []
        for temperature_K in sorted(asked.temperatures_K):
            mine = [(g, by_run[g.id, temperature_K]) for g in glasses if (g.id, temperature_K) in by_run]
            replicas = replicas_of(context, mine, {**condition, "temperature_K": temperature_K}, found)
            if len(replicas):
                runs = Runs(replicas, asked)
                _add_lines(found, runs)
                points += _add_numbers(found, runs, roles)
        if points and roles.carrier is not None:
            _add_arrhenius(found, condition, points, roles.carrier)
    return found


def _add_numbers(found: Findings, runs: Runs, roles: Roles) -> list[Point]:
    """Add D of carrier and formers, and the conductivity, which is returned as a point."""
    points, window, replicas = [], runs.asked.window, runs.replicas
    for element in dict.fromkeys([*([roles.carrier] if roles.carrier else []), *roles.formers]):
        if element not in runs.counts:
            continue
        D = [
            diffusion_coefficient(runs.time_ps, msd, window, use_slope=runs.asked.use_slope)
            for msd in runs.msd(element)
        ]
        note = runs.note(element)
        found.results.append(_diffusivity(replicas, f"D_{element}", D, note))
        if element == roles.carrier:
            _add_bayesian(found, replicas, element, note)
            charge = roles.modifiers[element]
            sigma = [
                conductivity(one, meta["counts"][element] / meta["volume_A3"], runs.temperature_K, charge)
                for one, meta in zip(D, replicas.metas, strict=True)
            ]
            result = replicas.result(f"conductivity_{element}", "S/cm", sigma, note)
            found.results.append(result)
            points.append(Point(runs, result.value, result.uncertainty, note is None))
    return points


def _diffusivity(replicas: Replicas, name: str, values: Sequence[float], note: str | None) -> Result:
    """Return the mean of diffusion coefficients in Å^2/ps."""
    return replicas.result(name, "cm2/s", [A2_PER_PS_IN_CM2_PER_S * one for one in values], note)


def _add_bayesian(found: Findings, replicas: Replicas, element: str, note: str | None) -> None:
    """Add kinisi's estimate: with the width of its posterior for one replica, with the scatter for several."""
    posteriors = [meta["bayesian"] for meta in replicas.metas if meta["bayesian"] is not None]
    if not posteriors:
        return
    result = _diffusivity(replicas, f"D_{element}_bayesian", [mean for mean, _ in posteriors], note)
    if len(posteriors) == 1:
        result = result.model_copy(update={"uncertainty": A2_PER_PS_IN_CM2_PER_S * posteriors[0][1]})
    found.results.append(result)


def _add_lines(found: Findings, runs: Runs) -> None:
    """Add the MSD of every element, averaged over the replicas, and the maps of the first."""
    replicas = runs.replicas
    for element in runs.counts:
        curve = replicas.curve("msd", element, ("t (ps)", "MSD (Å2)"))
        found.add_curve(curve, runs.time_ps, *mean_and_error(runs.msd(element)))
    arrays = replicas.arrays[0]
    for name in arrays:
        label = name.removeprefix("map/").removesuffix("/x")
        if name == f"map/{label}/x":
            curve = replicas.curve(maps.NAME, label, maps.axes_of(label))
            found.add_curve(curve, arrays[name], arrays[f"map/{label}/y"])
            found.arrays[f"{curve.key}/cell"] = arrays["map/cell"]


def _add_arrhenius(found: Findings, condition: Condition, points: Sequence[Point], carrier: str) -> None:
    """Add the activation energy from the converged temperatures, and sigma T against 1000/T of all."""
    good = [point for point in points if point.is_converged and point.sigma > 0.0]
    poor = [point for point in points if point not in good]
    used = over([point.runs.replicas for point in good or points], condition)

    def add(label: str, T: FloatArray, y: FloatArray, error: FloatArray | None) -> None:
        curve = used.curve("arrhenius", label, ("1000/T (1/K)", "conductivity x T (S K/cm)"))
        found.add_curve(curve, 1000.0 / T, y, error)

    for label, some in ((carrier, good), (f"{carrier} (not converged)", poor)):
        if some:
            T = np.array([point.runs.temperature_K for point in some])
            errors = [point.error for point in some]
            error = T * np.array([e for e in errors if e is not None]) if None not in errors else None
            add(label, T, T * np.array([point.sigma for point in some]), error)
    listed = ", ".join(f"{point.runs.temperature_K:g}" for point in good) or "no temperature"
    left_out = ", ".join(f"{point.runs.temperature_K:g}" for point in poor)
    if len(good) < 2:
        where = ", ".join(f"{key} = {value}" for key, value in condition.items())
        found.problems.append(
            f"activation_energy_{carrier} of {where}: converged at {listed}{' K' if good else ''} - expected two or "
            "more temperatures - longer runs, or higher temperatures"
        )
        return
    T = np.array([point.runs.temperature_K for point in good])
    fit = arrhenius(T.tolist(), [point.sigma for point in good], [point.error for point in good])
    ends = np.array([T.min(), T.max()])
    add(f"{carrier} fit", ends, fit.sigma_T(ends), None)
    n_samples = min(len(point.runs.replicas) for point in good)
    note = f"from {listed} K" + (f"; not converged: {left_out} K" if left_out else "")
    result = used.result(f"activation_energy_{carrier}", "eV", [fit.energy_eV], note)
    found.results.append(result.model_copy(update={"uncertainty": fit.error_eV, "n_samples": n_samples}))


_OF: Final = ("x", "temperature_K")
PROPERTY = Property(
    NAME,
    Diffusion,
    run,
    results,
    plan,
    runs_potential=True,
    observables={
        rf"D_{ELEMENT}(?:_bayesian)?": Observable("cm2/s", high=1.0, of=_OF),
        rf"conductivity_{ELEMENT}": Observable("S/cm", high=1.0e3, of=_OF),
        rf"activation_energy_{ELEMENT}": Observable("eV", high=20.0),
    },
    temperatures_K=lambda asked: asked.temperatures_K,
)
