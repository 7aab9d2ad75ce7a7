"""Glass: pack, relax, melt, quench, and cut a pore, with any potential; judged by the ensemble along the whole path.

Luo et al., J. Mater. Chem. A 12, 33518 (2024); Bertani & Pedone, Solid State Sci. 174, 108204 (2026). All potentials of
a study begin a replica with the same packing and the same velocities. Every segment is a stretch of its own with
restart files, and what is finished is read, not run again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn import packing, starts
from activelearn.config import Composition, Glass, Pore, Potential, Segment, Study, System
from activelearn.engines import dynamics, reference
from activelearn.engines.dynamics import FINISHED, State, Stretch
from activelearn.engines.process import Slot
from activelearn.errors import ConfigError
from activelearn.frames import FloatArray, Frames
from activelearn.records import Glasses, MadeGlass, Task
from activelearn.store import StudyStore
from activelearn.store.files import publish, publish_npz, read_npz
from activelearn.store.study import GLASS, ONCE, PORE
from activelearn.tasks import Station

#: Smallest perpendicular height of a crystal that is melted, Å.
MIN_HEIGHT_A: Final = 8.0
_THERMO: Final = ("time_ps", "temperature_K", "potential_energy", "pressure_bar", "volume", "max_devi_f")


def plan(study: Study, store: StudyStore, iteration: int) -> list[Task]:  # noqa: ARG001 - pure: nothing is looked up
    """One task per potential, composition, cooling rate and replica."""
    glass = _glass(study)
    tasks = []
    for potential in study.potentials:
        for composition in glass.compositions:
            for rate in glass.cooling_rates_K_per_ps or (None,):
                for replica in range(glass.n_replicas):
                    speed = "" if rate is None else f"-{rate:g}Kps"
                    tasks.append(
                        Task(
                            id=f"{potential.slug}-x{composition.x:g}{speed}-r{replica}",
                            kind=GLASS,
                            parameters={
                                "potential": potential.name,
                                "x": composition.x,
                                "cooling_rate_K_per_ps": rate,
                                "replica": replica,
                            },
                        )
                    )
    return tasks


def _glass(study: Study) -> Glass:
    assert study.glass is not None  # the station runs only where the study asks for glasses
    return study.glass


# --- one glass --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Path:
    """Segments carried out, one after the other, up to the end or to where one failed."""

    segments: tuple[Segment, ...]
    stretches: tuple[Stretch, ...]

    @property
    def ended(self) -> str:
        last = self.stretches[-1]
        return last.ended if last.ended == FINISHED else f"{self.segments[len(self.stretches) - 1].name}: {last.ended}"


def run(task: Task, store: StudyStore, iteration: int, slot: Slot) -> None:
    """Make one glass (and its porous variant) and publish it."""
    study, glass = store.study, _glass(store.study)
    potential = study.potential(task.parameters["potential"])
    composition = next(c for c in glass.compositions if c.x == task.parameters["x"])
    folder = store.work_folder(GLASS, task.id)
    begin = _relaxed_packing(task, store, composition, folder, slot)
    schedule = glass.schedule(task.parameters["cooling_rate_K_per_ps"])
    rng = store.rng(ONCE, GLASS, f"velocities/{composition.x:g}/{task.parameters['replica']}")
    start = State(begin, dynamics.thermal_velocities(begin, schedule[0].temperature_K, rng))
    path = _follow(potential, schedule, start, folder / "dense", glass, slot)
    arrays, meta = _product(path, potential)
    if glass.pore is not None and _is_porous(glass.pore, composition) and path.ended == FINISHED:
        hollow = with_pore(_end_of(path).frame, glass.pore.diameter_A, composition, glass)
        velocities = dynamics.thermal_velocities(hollow, glass.pore.segments[0].temperature_K, rng)
        more = _follow(potential, glass.pore.segments, State(hollow, velocities), folder / "pore", glass, slot)
        pore_arrays, pore_meta = _product(more, potential)
        arrays |= {PORE + key: value for key, value in pore_arrays.items()}
        meta |= {"pore": pore_meta, "finished": pore_meta["finished"]}
    store.publish_product(GLASS, iteration, task.id, arrays, meta)
    store.drop_work(GLASS, task.id, slot.machine)


def _is_porous(pore: Pore, composition: Composition) -> bool:
    return pore.x is None or composition.x in pore.x


def _relaxed_packing(task: Task, store: StudyStore, composition: Composition, folder: Path, slot: Slot) -> Frames:
    """Return the packing without its worst contacts: the potential's own relaxation, kept over a kill."""
    kept = folder / "start.npz"
    if not kept.is_file():
        glass, replica = _glass(store.study), task.parameters["replica"]
        seed = int(store.rng(ONCE, GLASS, f"packing/{composition.x:g}/{replica}").integers(1, 2**31 - 1))
        if composition.crystal is None:
            scratch = store.scratch(slot.machine, GLASS, task.id)
            packed = packing.pack(glass.packed(composition), random_seed=seed, folder=scratch, slot=slot)
            store.drop_scratch(scratch, slot.machine)
        else:
            packed = crystal_of(glass, composition)
        calculator = store.study.potential(task.parameters["potential"]).statics(slot.machine.python)
        relax = glass.relax
        found, *_ = reference.relax(
            calculator, packed, fmax=relax.fmax, max_steps=relax.max_steps, relax_cell=False, slot=slot
        )
        publish_npz(kept, (packed if found is None else found.without_labels()).arrays(), {})
    return Frames.from_arrays(read_npz(kept)[0])


def crystal_of(glass: Glass, composition: Composition) -> Frames:
    """Return the crystal that is melted instead of a packing: a supercell of about as many atoms, at the density.

    Raises
    ------
    ConfigError
        There is no such crystal, or it has another composition.
    """
    assert composition.crystal is not None  # asked of such compositions only
    atoms = packing.atoms_of(packing.counts_of(glass.packed(composition)))
    system = System(seed=composition.crystal, n_atoms=atoms.total())
    frame = starts.crystal(system, MIN_HEIGHT_A)
    found, unit = Counter(frame.symbols), _unit(composition, glass)
    if any(found[element] * unit.total() != n * found.total() for element, n in unit.items()):
        wanted = "".join(f"{element}{n if n > 1 else ''}" for element, n in sorted(unit.items()))
        raise ConfigError(
            f"crystal {composition.crystal}: is {frame.formula} - wanted {wanted}, the composition - choose another"
        )
    scale = float(np.cbrt(dynamics.density(frame)[0] / composition.density_g_cm3))
    return Frames(frame.symbols, frame.cell * scale, frame.positions * scale, frame.pbc)


def _follow(
    potential: Potential, segments: Sequence[Segment], start: State, folder: Path, glass: Glass, slot: Slot
) -> _Path:
    stretches: list[Stretch] = []
    for i, segment in enumerate(segments):
        place = folder / f"{i:02d}-{segment.name}"
        place.mkdir(parents=True, exist_ok=True)
        stretch = dynamics.run_segment(potential, segment, start, glass.dynamics, place, slot)
        stretches.append(stretch)
        if stretch.end is None:
            break
        start = stretch.end
    return _Path(tuple(segments), tuple(stretches))


def _end_of(path: _Path) -> State:
    end = path.stretches[-1].end
    assert end is not None  # asked of finished paths only
    return end


def _product(path: _Path, potential: Potential) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return arrays and meta of a path; what they are stands in :mod:`activelearn.benchmark.glasses`."""
    parts = [stretch.frames for stretch in path.stretches if len(stretch.frames)]
    arrays: dict[str, NDArray[Any]] = {}
    if parts:
        arrays |= Frames.concatenate(parts).arrays("frames/")
        arrays["frame_segment"] = np.concatenate(
            [np.full(len(s.frames), i, dtype=np.int64) for i, s in enumerate(path.stretches)]
        )
        arrays["frame_time_ps"] = np.concatenate([s.frame_time_ps for s in path.stretches])
    arrays["thermo/segment"] = np.concatenate(
        [np.full(len(s.time_ps), i, dtype=np.int64) for i, s in enumerate(path.stretches)]
    )
    for name in _THERMO:
        arrays[f"thermo/{name}"] = np.concatenate([getattr(s, name) for s in path.stretches])
    if path.ended == FINISHED:
        end = _end_of(path)
        arrays |= {"final_velocities": end.velocities, **end.frame.arrays("final/")}
    n_judged, share = outside(arrays["thermo/max_devi_f"], potential.window)
    return arrays, {
        "ended": path.ended,
        "segments": [segment.name for segment in path.segments],
        "analysed": [i for i, segment in enumerate(path.segments) if segment.is_analysed],
        "n_judged": n_judged,
        "outside_share": share,
        "resumed": sum(stretch.resumed for stretch in path.stretches),
        "seconds": sum(stretch.finished - stretch.started for stretch in path.stretches),
        "started": path.stretches[0].started,
        "finished": path.stretches[-1].finished,
    }


def outside(max_devi_f: FloatArray, window: tuple[float, float] | None) -> tuple[int, float | None]:
    """Return how many rows of a path were judged, and the share of them at or above f_hi; None without an ensemble.

    A deviation that is not finite counts as outside where others are finite: the models have lost the atoms.
    """
    if window is None or not np.isfinite(max_devi_f).any():
        return 0, None
    is_outside = ~(max_devi_f < window[1])
    return len(max_devi_f), float(is_outside.mean())


# --- the pore ---------------------------------------------------------------------------------------------------------


def with_pore(frame: Frames, diameter_A: float, composition: Composition, glass: Glass) -> Frames:
    """Return a frame with a sphere cut out of its middle, in the exact stoichiometry of its composition.

    All atoms in the sphere go; then, element by element, as few more as bring the counts back to whole formula units,
    nearest to the pore first (Luo et al. 2024 remove "atoms near it").

    Raises
    ------
    ConfigError
        Nothing would be left around the pore.
    """
    cell, positions = frame.cell[0], frame.positions[0]
    fractional = positions @ np.linalg.inv(cell)
    away = fractional - 0.5
    away -= np.round(away)
    distance = np.linalg.norm(away @ cell, axis=1)
    symbols = np.array(frame.symbols)
    wanted = _unit(composition, glass)
    kept = distance > diameter_A / 2.0
    n_units = min((int((symbols[kept] == element).sum()) // n for element, n in wanted.items()), default=0)
    if n_units == 0 or diameter_A >= 2.0 * distance.max():
        raise ConfigError(
            f"glass.pore.diameter_A: {diameter_A:g} Å leaves nothing of {frame.formula} - wanted a smaller pore, or "
            "more atoms"
        )
    for element, n in wanted.items():
        candidates = np.flatnonzero(kept & (symbols == element))
        surplus = len(candidates) - n_units * n
        nearest = candidates[np.argsort(distance[candidates], kind="stable")]
        kept[nearest[:surplus]] = False
    return Frames(tuple(symbols[kept].tolist()), frame.cell, frame.positions[:, kept], frame.pbc)


def _unit(composition: Composition, glass: Glass) -> Counter[str]:
    """Return the smallest whole formula unit of a composition, atoms by element."""
    atoms = packing.atoms_of(packing.counts_of(glass.packed(composition)))
    divisor = int(np.gcd.reduce(list(atoms.values())))
    return Counter({element: n // divisor for element, n in atoms.items()})


# --- sealing ----------------------------------------------------------------------------------------------------------


def gather(study: Study, store: StudyStore, iteration: int) -> Glasses:
    """Seal what was made, with its stamps; write final structures and thermo tables for people and their programs."""
    plan = store.plan(GLASS, iteration)
    assert plan is not None  # gather is called after the plan was carried out
    made = []
    for task in plan.tasks:
        arrays, meta = store.read_product(GLASS, iteration, task.id)
        made.append(_record(study, store, task, arrays, meta))
        if "pore" in meta:
            inner = {key.removeprefix(PORE): value for key, value in arrays.items() if key.startswith(PORE)}
            made.append(_record(study, store, task, inner, _porous_meta(meta)))
    return Glasses(glasses=tuple(made))


def _porous_meta(meta: dict[str, Any]) -> dict[str, Any]:
    """Return the meta of a porous glass: judged by the worse of its own path and that of the dense one it is cut from.

    Of both together the share would be small, and the stamp wrong: a melt is long, and all that is measured may be
    outside the window after it.
    """
    worse = max(meta, meta["pore"], key=lambda path: path["outside_share"] or 0.0)
    return {**meta["pore"], "is_porous": True, **{key: worse[key] for key in ("n_judged", "outside_share")}}


def _record(
    study: Study, store: StudyStore, task: Task, arrays: dict[str, NDArray[Any]], meta: dict[str, Any]
) -> MadeGlass:
    glass, share, is_porous = _glass(study), meta["outside_share"], bool(meta.get("is_porous"))
    composition = next(c for c in glass.compositions if c.x == task.parameters["x"])
    atoms = packing.atoms_of(packing.counts_of(glass.packed(composition)))
    final = Frames.from_arrays(arrays, "final/") if "final/positions" in arrays else None
    name = task.id + ("-pore" if is_porous else "")
    made = MadeGlass(
        id=name,
        potential=task.parameters["potential"],
        x=composition.x,
        replica=task.parameters["replica"],
        cooling_rate_K_per_ps=task.parameters["cooling_rate_K_per_ps"],
        is_porous=is_porous,
        formula=final.formula if final is not None else "".join(f"{e}{n}" for e, n in sorted(atoms.items())),
        n_atoms=final.n_atoms if final is not None else atoms.total(),
        ended=meta["ended"],
        density_g_cm3=float(dynamics.density(final)[0]) if final is not None else None,
        n_judged=meta["n_judged"],
        outside_share=share,
        is_trusted=None if share is None else share <= glass.max_outside_share and meta["ended"] == FINISHED,
        resumed=meta["resumed"],
        structure=f"{GLASS}/{name}.extxyz" if final is not None else "",
        seconds=meta["seconds"],
    )
    folder = store.station_folder(GLASS, ONCE)
    if final is not None:
        publish(folder / f"{name}.extxyz", _extxyz(final, made))
    publish(folder / f"{name}-thermo.csv", _thermo_csv(arrays, meta["segments"]))
    return made


def _extxyz(frame: Frames, made: MadeGlass) -> bytes:
    import io

    from ase.io import write

    atoms = frame.to_ase()[0]
    names = ("id", "potential", "x", "replica", "cooling_rate_K_per_ps", "density_g_cm3", "stamp")
    atoms.info = {name: value for name in names if (value := getattr(made, name)) is not None}
    stream = io.StringIO()
    write(stream, atoms, format="extxyz")
    return stream.getvalue().encode()


def _thermo_csv(arrays: dict[str, NDArray[Any]], segments: Sequence[str]) -> bytes:
    rows = zip(*(arrays[f"thermo/{name}"] for name in ("segment", *_THERMO)), strict=True)
    lines = ["segment,time_ps,temperature_K,potential_energy_eV,pressure_bar,volume_A3,max_devi_f_eV_per_A"]
    lines += [",".join([segments[int(i)], *(f"{value:.8g}" for value in row)]) for i, *row in rows]
    return ("\n".join(lines) + "\n").encode()


# --- before anything runs ---------------------------------------------------------------------------------------------


def check(study: Study) -> tuple[list[str], list[str]]:
    """Return what will be made, in lines, and what is wrong with it."""
    glass, facts, problems = _glass(study), [], []
    for composition in glass.compositions:
        try:
            facts.append(f"glass x = {composition.x:g}: {_start_words(glass, composition)}")
            if glass.pore is not None and _is_porous(glass.pore, composition):
                facts.append(f"glass x = {composition.x:g}: {_pore_words(glass.pore, composition, glass)}")
        except ConfigError as error:
            problems += [f"glass x = {composition.x:g}: {line}" for line in error.problems]
    facts += list(_schedules(study))
    facts.append(_count(study))
    return facts, problems + list(_wrong_averages(glass)) + list(_strangers(study))


def _start_words(glass: Glass, composition: Composition) -> str:
    if composition.crystal is None:
        return packing.describe(glass.packed(composition))
    frame, density = crystal_of(glass, composition), composition.density_g_cm3
    return f"{frame.formula} ({frame.n_atoms} atoms, the crystal {composition.crystal} at {density:.2f} g/cm3)"


def _pore_words(pore: Pore, composition: Composition, glass: Glass) -> str:
    """Return what a pore takes.

    Raises
    ------
    ConfigError
        Half of the glass would be gone: what is left is no glass with a pore in it.
    """
    packed, unit = glass.packed(composition), _unit(composition, glass)
    box, n_atoms = packing.box_of(packed), packing.atoms_of(packing.counts_of(packed)).total()
    n_inside = math.pi * pore.diameter_A**3 / 6.0 / box**3 * n_atoms
    n_gone = math.ceil(n_inside / unit.total()) * unit.total()
    name = "".join(f"{element}{n if n > 1 else ''}" for element, n in sorted(unit.items()))
    if pore.diameter_A >= box or 2 * n_gone > n_atoms:
        raise ConfigError(
            f"glass.pore: a sphere of {pore.diameter_A:g} Å in a box of {box:.1f} Å, and what restores whole {name}, "
            f"take {n_gone} of {n_atoms} atoms - wanted half of the glass left - raise n_atoms, or lower diameter_A"
        )
    return f"pore of {pore.diameter_A:g} Å holds about {n_inside:.0f} atoms; whole {name} go, {n_gone} atoms or more"


def _schedules(study: Study) -> Iterator[str]:
    """Yield one line per path that a glass may take, with its steps: potentials may have time steps of their own."""
    glass = _glass(study)
    timesteps = sorted({dynamics.timestep_of(potential, glass.dynamics) for potential in study.potentials})
    rates = glass.cooling_rates_K_per_ps
    paths = [(f"schedule at {rate:g} K/ps", glass.schedule(rate)) for rate in rates] or [("schedule", glass.segments)]
    if glass.pore is not None:
        paths.append(("schedule of the pore", glass.pore.segments))
    for name, segments in paths:
        ps = sum(segment.duration_ps for segment in segments)
        steps = [sum(dynamics.steps_of(s, glass.dynamics, fs).n_steps for s in segments) for fs in timesteps]
        counted = " or ".join(f"{n:,} steps of {fs:g} fs" for n, fs in zip(steps, timesteps, strict=True))
        yield f"{name}: {'; '.join(map(_words, segments))} = {ps:g} ps, {counted}"


def _count(study: Study) -> str:
    glass = _glass(study)
    each = glass.n_replicas * (len(glass.cooling_rates_K_per_ps) or 1) * len(study.potentials)
    n_compositions = len(glass.compositions)
    n_porous = sum(glass.pore is not None and _is_porous(glass.pore, c) for c in glass.compositions) * each
    factors = {
        "potential": len(study.potentials),
        "composition": n_compositions,
        "replica": glass.n_replicas,
        "cooling rate": len(glass.cooling_rates_K_per_ps),
    }
    counted = ", ".join(f"{n} {what}{'s' if n > 1 else ''}" for what, n in factors.items() if n)
    again = f", {n_porous} of them once more with a pore" if n_porous else ""
    return f"glasses: {each * n_compositions} of {glass.series.title} ({counted}){again}"


def _words(segment: Segment) -> str:
    ramp = f" to {segment.end_K:g}" if segment.to_temperature_K is not None else ""
    pressure = f" {segment.pressure_bar:g} bar" if segment.is_npt else ""
    analysed = ", analysed" if segment.is_analysed else ""
    return (
        f"{segment.name} {segment.ensemble} {segment.temperature_K:g}{ramp} K{pressure} "
        f"{segment.duration_ps:g} ps{analysed}"
    )


def _wrong_averages(glass: Glass) -> Iterator[str]:
    """Yield what would be averaged over, and should not be; and a pore of which nothing would be measured."""
    pore = glass.pore.segments if glass.pore is not None else ()
    for segment in (*glass.segments, *pore):
        if segment.is_analysed and segment.end_K != segment.temperature_K:
            yield (
                f"glass.segments: {segment.name} is analysed while it goes from {segment.temperature_K:g} to "
                f"{segment.end_K:g} K - wanted averages at one temperature - analyse a segment after it"
            )
    if pore and not any(segment.is_analysed for segment in pore):
        yield "glass.pore.segments: none has is_analysed: true - wanted one, such as the last"


def _strangers(study: Study) -> Iterator[str]:
    """Yield the potentials that do not know an element of the series."""
    glass = _glass(study)
    elements = {e for c in glass.compositions for unit in c.units for e in packing.atoms_of({unit: 1})}
    for potential in study.potentials:
        known = set(potential.lammps.elements) if potential.lammps is not None else elements
        if elements - known:
            yield (
                f"potential {potential.name}: does not know {', '.join(sorted(elements - known))} of series "
                f"{glass.series.name} - wanted all its elements - choose other x, or another potential"
            )


STATION: Final = Station(GLASS, plan, run, gather)
