"""Diffusion: mean square displacements, D, Nernst-Einstein conductivity and activation energy (definitions 4.10).

Every finished glass runs at every temperature: equilibration, then production, both kept over kills. What is published
of a run is small: its mean square displacements, its mean volume, and the maps; positions are not kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    unwrap,
    want_kinisi,
    window_rows,
    without_drift,
)
from activelearn.benchmark.glasses import frames_of, glasses_of
from activelearn.benchmark.per_glass import glass_of
from activelearn.benchmark.property import (
    Arrays,
    Condition,
    Findings,
    Property,
    averaged,
    by_condition,
    product,
    stamp_of,
)
from activelearn.benchmark.straining import Failed, Product, kept
from activelearn.config import Diffusion, Dynamics, Potential, Segment, Study
from activelearn.config.glass import Roles
from activelearn.engines import dynamics
from activelearn.engines.process import Slot
from activelearn.frames import FloatArray, Frames
from activelearn.records import Curve, MadeGlass, Task
from activelearn.store import StudyStore
from activelearn.store.study import BENCHMARK, ONCE

NAME: Final = "diffusion"


def plan(study: Study, store: StudyStore) -> list[Task]:
    """Return one task per finished glass and temperature."""
    asked = study.benchmark.diffusion if study.benchmark is not None else None
    if asked is None:
        return []
    if asked.bayesian:
        want_kinisi()
    return [
        Task(
            id=f"{NAME}-{glass.id}-{temperature_K:g}K",
            kind=NAME,
            parameters={"glass": glass.id, "temperature_K": temperature_K},
        )
        for glass in glasses_of(store)
        for temperature_K in asked.temperatures_K
    ]


# --- one run ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trip:
    """Equilibration and production of one glass at one temperature.

    Parameters
    ----------
    potential, integration, asked
        What moves, how it is integrated, and for how long.
    temperature_K
        Of the thermostat.
    folder, slot
        Of the task; where.
    """

    potential: Potential
    integration: Dynamics
    asked: Diffusion
    temperature_K: float
    folder: Path
    slot: Slot

    def equilibrated(self, start: dynamics.State) -> dynamics.State:
        """Return the state after ``equilibrate_ps``, from the file if a kill came after it."""

        def make() -> Product:
            end = self._run(self._segment("equilibration", self.asked.equilibrate_ps, 1), start).end
            assert end is not None  # else it has raised
            return {**end.frame.arrays(), "velocities": end.velocities}, {}

        arrays, _ = kept(self.folder / "equilibrated.npz", make)
        return dynamics.State(Frames.from_arrays(arrays), arrays["velocities"])

    def production(self, start: dynamics.State) -> dynamics.Stretch:
        """Return the run whose displacements are measured."""
        timestep_fs = dynamics.timestep_of(self.potential, self.integration)
        ps, n_frames = evenly(
            self.asked.duration_ps(self.temperature_K), self.asked.n_frames, self.integration, timestep_fs
        )
        return self._run(self._segment("production", ps, n_frames), start)

    def _segment(self, name: str, ps: float, n_frames: int) -> Segment:
        return Segment(
            name=name, ensemble=self.asked.ensemble, temperature_K=self.temperature_K, ps=ps, n_frames=n_frames
        )

    def _run(self, segment: Segment, start: dynamics.State) -> dynamics.Stretch:
        folder = self.folder / segment.name
        folder.mkdir(parents=True, exist_ok=True)
        stretch = dynamics.run_segment(self.potential, segment, start, self.integration, folder, self.slot)
        if stretch.end is None:
            raise Failed(f"{segment.name}: {stretch.ended}")
        return stretch


def evenly(ps: float, n_frames: int, integration: Dynamics, timestep_fs: float) -> tuple[float, int]:
    """Return length and number of frames of a run whose frames are evenly spaced, as time origins want them.

    Frames stand on rows of the thermo table: the distance of two frames is rounded up to whole rows, and the run ends
    with its last frame, less than one such distance before `ps`.
    """
    row_ps = max(1, round(integration.thermo_every_ps * 1000.0 / timestep_fs)) * timestep_fs / 1000.0
    n_rows = max(1, round(ps / row_ps))
    stride = math.ceil(n_rows / n_frames)
    n = n_rows // stride
    return n * stride * row_ps, n


def run(task: Task, store: StudyStore, slot: Slot) -> Product:
    """Run one glass at one temperature and publish its mean square displacements and maps."""
    study, glass = store.study, glass_of(task, store)
    assert study.benchmark is not None
    assert study.benchmark.diffusion is not None
    asked, rng = study.benchmark.diffusion, store.rng(ONCE, BENCHMARK, task.id)
    if asked.bayesian:
        want_kinisi()
    temperature_K = float(task.parameters["temperature_K"])
    potential, folder = study.potential(glass.potential), store.work_folder(BENCHMARK, task.id)
    trip = Trip(potential, study.benchmark.dynamics, asked, temperature_K, folder, slot)
    final = frames_of(store, glass).final
    start = dynamics.State(final, dynamics.thermal_velocities(final, temperature_K, rng))
    try:
        stretch = trip.production(trip.equilibrated(start))
    except Failed as failed:
        return {}, {"ended": str(failed)}
    n_points = len(window_rows(len(stretch.frames), asked.window))
    if n_points < LEAST_POINTS:
        return {}, {"ended": f"{len(stretch.frames)} frames: {n_points} of them in the window, wanted {LEAST_POINTS}"}
    arrays, meta = analysed(study, stretch, random_seed=int(rng.integers(2**31)))
    return arrays, {"ended": dynamics.FINISHED, **meta, **judged(potential, stretch.max_devi_f)}


def analysed(study: Study, stretch: dynamics.Stretch, *, random_seed: int) -> Product:
    """Return what is published of a production run.

    Returns
    -------
    arrays, meta
        ``time_ps`` (n_frames,) lags; ``msd/<element>`` (n_frames,) Å^2; ``map/<label>/x|y`` and ``map/cell``, see
        :mod:`activelearn.benchmark.maps`. Meta: ``counts`` of atoms by element, ``volume_A3`` and
        ``mean_temperature_K``, ``n_ambiguous`` steps, ``bayesian`` [mean, standard deviation] of D of the carrier in
        Å^2/ps or None, ``resumed``.
    """
    from ase.data import atomic_masses, atomic_numbers

    assert study.benchmark is not None
    assert study.benchmark.diffusion is not None
    asked, roles, symbols = study.benchmark.diffusion, roles_of(study), np.array(stretch.frames.symbols)
    unwrapped = unwrap(stretch.frames)
    masses = np.array([atomic_masses[atomic_numbers[symbol]] for symbol in stretch.frames.symbols])
    positions = without_drift(unwrapped.positions, masses)
    of_element = {element: positions[:, symbols == element] for element in dict.fromkeys(stretch.frames.symbols)}
    arrays: dict[str, NDArray[Any]] = {"time_ps": stretch.frame_time_ps - stretch.frame_time_ps[0]}
    for element, atoms in of_element.items():
        msd = mean_square_displacement(atoms, single_origin=asked.single_origin)
        arrays[f"msd/{element}"] = msd.astype(np.float32)
    carrier = roles.carrier if roles.carrier in of_element else None
    if study.benchmark.maps:
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


def judged(potential: Potential, max_devi_f: FloatArray) -> dict[str, Any]:
    """Return how many rows of a run have a force deviation to judge, and the share of them at or above f_hi."""
    known = max_devi_f[np.isfinite(max_devi_f)]
    if potential.window is None or len(known) == 0:
        return {"n_judged": 0, "outside_share": None}
    return {"n_judged": len(known), "outside_share": float((known >= potential.window[1]).mean())}


def roles_of(study: Study) -> Roles:
    """Return the roles of the elements of a study that makes glasses."""
    assert study.glass is not None  # there are no tasks without glasses
    return study.glass.series.roles


# --- results ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Replicas:
    """The runs of the replicas of one glass at one temperature.

    Parameters
    ----------
    condition
        ``temperature_K`` among it.
    glasses
        With the stamp of the run beside that of the glass.
    products
        Arrays and meta of each.
    """

    condition: Condition
    glasses: list[MadeGlass]
    products: list[tuple[Arrays, dict[str, Any]]]

    @property
    def temperature_K(self) -> float:
        """Of the thermostat."""
        return float(self.condition["temperature_K"])

    @property
    def time_ps(self) -> FloatArray:
        """(n_frames,) lags, the same for all."""
        return np.asarray(self.products[0][0]["time_ps"], dtype=np.float64)

    @property
    def stamp(self) -> str | None:
        """The worst of the glasses and their runs."""
        return stamp_of(self.glasses)

    def msd(self, element: str) -> FloatArray:
        """(n_replicas, n_frames) Å^2."""
        return np.array([arrays[f"msd/{element}"] for arrays, _ in self.products], dtype=np.float64)

    def doubts(self, element: str, asked: Diffusion) -> tuple[str, ...]:
        """Return why D of an element is no number to rely on: judged by the mean over the replicas."""
        n_ambiguous = sum(meta["n_ambiguous"] for _, meta in self.products)
        steps = (f"{n_ambiguous} steps between frames too long to follow, wants more n_frames",) if n_ambiguous else ()
        return doubts(self.time_ps, self.msd(element).mean(axis=0), asked.window) + steps


@dataclass(frozen=True)
class Point:
    """A conductivity at a temperature, as the Arrhenius fit takes it."""

    replicas: Replicas
    sigma: float
    error: float | None
    is_converged: bool


def results(study: Study, store: StudyStore, tasks: Sequence[Task]) -> Findings:
    """Return D, conductivity and activation energy, averaged over replicas, with the lines and maps."""
    assert study.benchmark is not None
    assert study.benchmark.diffusion is not None
    asked, roles, found = study.benchmark.diffusion, roles_of(study), Findings()
    by_run = {(task.parameters["glass"], float(task.parameters["temperature_K"])): task for task in tasks}
    limit = study.glass.max_outside_share if study.glass is not None else 0.0
    for condition, glasses in by_condition(glasses_of(store)):
        points = []
        for temperature_K in sorted(asked.temperatures_K):
            runs = [
                (glass, by_run[glass.id, temperature_K]) for glass in glasses if (glass.id, temperature_K) in by_run
            ]
            replicas = gathered(store, runs, {**condition, "temperature_K": temperature_K}, limit, found)
            if replicas.products:
                _add_lines(found, replicas)
                points += _add_numbers(found, replicas, asked, roles)
        if points and roles.carrier is not None:
            _add_arrhenius(found, condition, points, roles.carrier)
    return found


def gathered(
    store: StudyStore,
    runs: Sequence[tuple[MadeGlass, Task]],
    condition: Condition,
    max_outside_share: float,
    found: Findings,
) -> Replicas:
    """Return the runs that came to their end; the others go to the problems of `found`."""
    glasses: list[MadeGlass] = []
    products: list[tuple[Arrays, dict[str, Any]]] = []
    for glass, task in runs:
        arrays, meta = product(store, task)
        if meta["ended"] != dynamics.FINISHED:
            found.problems.append(f"{NAME} of {glass.id} at {condition['temperature_K']:g} K: {meta['ended']}")
            continue
        products.append((arrays, meta))
        glasses.append(glass)
        if meta["n_judged"]:
            seen = {"n_judged": meta["n_judged"], "outside_share": meta["outside_share"]}
            is_trusted = meta["outside_share"] <= max_outside_share
            glasses.append(glass.model_copy(update={**seen, "is_trusted": is_trusted}))
    return Replicas(condition, glasses, products)


def _add_numbers(found: Findings, replicas: Replicas, asked: Diffusion, roles: Roles) -> list[Point]:
    """Add D of carrier and formers, and the conductivity, which is returned as a point."""
    points = []
    counts = replicas.products[0][1]["counts"]
    for element in dict.fromkeys([*([roles.carrier] if roles.carrier else []), *roles.formers]):
        if element not in counts:
            continue
        D = [
            diffusion_coefficient(replicas.time_ps, msd, asked.window, use_slope=asked.use_slope)
            for msd in replicas.msd(element)
        ]
        reasons = replicas.doubts(element, asked)
        shared: dict[str, Any] = {
            "condition": replicas.condition,
            "stamp": replicas.stamp,
            "note": f"not converged: {'; '.join(reasons)}" if reasons else None,
        }
        values = [A2_PER_PS_IN_CM2_PER_S * one for one in D]
        found.results.append(averaged(f"D_{element}", "cm2/s", values, **shared))
        if element == roles.carrier:
            _add_bayesian(found, replicas, element, shared)
            charge = roles.modifiers[element]
            sigma = [
                conductivity(one, meta["counts"][element] / meta["volume_A3"], replicas.temperature_K, charge)
                for one, (_, meta) in zip(D, replicas.products, strict=True)
            ]
            result = averaged(f"conductivity_{element}", "S/cm", sigma, **shared)
            found.results.append(result)
            points.append(Point(replicas, result.value, result.uncertainty, not reasons))
    return points


def _add_bayesian(found: Findings, replicas: Replicas, element: str, shared: Mapping[str, Any]) -> None:
    """Add kinisi's estimate: of one replica with the width of its posterior, of several with their scatter."""
    posteriors = [meta["bayesian"] for _, meta in replicas.products if meta["bayesian"] is not None]
    if not posteriors:
        return
    values = [A2_PER_PS_IN_CM2_PER_S * mean for mean, _ in posteriors]
    result = averaged(f"D_{element}_bayesian", "cm2/s", values, **shared)
    if len(posteriors) == 1:
        result = result.model_copy(update={"uncertainty": A2_PER_PS_IN_CM2_PER_S * posteriors[0][1]})
    found.results.append(result)


def _key(name: str, condition: Condition, label: str) -> str:
    return "/".join([name, *map(str, condition.values()), label])


def _add_lines(found: Findings, replicas: Replicas) -> None:
    """Add the MSD of every element, averaged over the replicas, and the maps of the first."""
    shared: dict[str, Any] = {"condition": replicas.condition, "stamp": replicas.stamp}
    for element in replicas.products[0][1]["counts"]:
        lines = replicas.msd(element)
        error = lines.std(axis=0, ddof=1) / math.sqrt(len(lines)) if len(lines) > 1 else None
        axes: dict[str, Any] = {"x_name": "t (ps)", "y_name": "MSD (Å2)"}
        key = _key("msd", replicas.condition, element)
        curve = Curve(key=key, name="msd", label=element, **axes, **shared)
        found.add_curve(curve, replicas.time_ps, lines.mean(axis=0), error)
    arrays = replicas.products[0][0]
    for name in arrays:
        label = name.removeprefix("map/").removesuffix("/x")
        if name == f"map/{label}/x":
            key = _key(maps.NAME, replicas.condition, label)
            curve = Curve(key=key, name=maps.NAME, label=label, **maps.axes_of(label), **shared)
            found.add_curve(curve, arrays[name], arrays[f"map/{label}/y"])
            found.arrays[f"{key}/cell"] = arrays["map/cell"]


def _add_arrhenius(found: Findings, condition: Condition, points: Sequence[Point], carrier: str) -> None:
    """Add the activation energy from the converged temperatures, and sigma T against 1000/T of all."""
    good = [point for point in points if point.is_converged and point.sigma > 0.0]
    poor = [point for point in points if point not in good]
    stamp = stamp_of([glass for point in good or points for glass in point.replicas.glasses])
    axes: dict[str, Any] = {"x_name": "1000/T (1/K)", "y_name": "conductivity x T (S K/cm)"}

    def add(label: str, T: FloatArray, y: FloatArray, error: FloatArray | None) -> None:
        key = _key("arrhenius", condition, label)
        curve = Curve(key=key, name="arrhenius", label=label, condition=condition, stamp=stamp, **axes)
        found.add_curve(curve, 1000.0 / T, y, error)

    for label, some in ((carrier, good), (f"{carrier} (not converged)", poor)):
        if some:
            T = np.array([point.replicas.temperature_K for point in some])
            errors = [point.error for point in some]
            error = T * np.array([e for e in errors if e is not None]) if None not in errors else None
            add(label, T, T * np.array([point.sigma for point in some]), error)
    listed = ", ".join(f"{point.replicas.temperature_K:g}" for point in good) or "no temperature"
    left_out = ", ".join(f"{point.replicas.temperature_K:g}" for point in poor)
    if len(good) < 2:
        where = ", ".join(f"{key} = {value}" for key, value in condition.items())
        found.problems.append(
            f"activation_energy_{carrier} of {where}: converged at {listed}{' K' if good else ''} - wanted two or more "
            "temperatures - longer runs, or higher temperatures"
        )
        return
    T = np.array([point.replicas.temperature_K for point in good])
    fit = arrhenius(T.tolist(), [point.sigma for point in good], [point.error for point in good])
    ends = np.array([T.min(), T.max()])
    add(f"{carrier} fit", ends, fit.sigma_T(ends), None)
    n_samples = min(len(point.replicas.products) for point in good)
    note = f"from {listed} K" + (f"; not converged: {left_out} K" if left_out else "")
    result = averaged(f"activation_energy_{carrier}", "eV", [fit.energy_eV], condition, stamp=stamp, note=note)
    found.results.append(result.model_copy(update={"uncertainty": fit.error_eV, "n_samples": n_samples}))


PROPERTY = Property(NAME, plan, run, results)
