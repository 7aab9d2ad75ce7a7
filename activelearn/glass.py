"""Glass: pack, relax, melt, quench, and cut a pore, with any potential; judged by the ensemble along the whole path.

Luo et al., J. Mater. Chem. A 12, 33518 (2024); Bertani & Pedone, Solid State Sci. 174, 108204 (2026). All potentials of
a study begin a replica with the same packing and the same velocities. Every segment is a stretch of its own with
restart files, and what is finished is read, not run again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from activelearn import given, packing, starts
from activelearn.config import Composition, Glass, OwnGlasses, Pore, Potential, Relax, Segment, Study, System
from activelearn.engines import dynamics, frozen, reference
from activelearn.engines.dynamics import FINISHED, State, Stretch
from activelearn.engines.process import Slot
from activelearn.errors import ConfigError
from activelearn.frames import Frames, formula_of
from activelearn.melting import melt_of
from activelearn.records import Glasses, MadeGlass, Melt, Task
from activelearn.stamping import is_trusted
from activelearn.store import StudyStore
from activelearn.store.files import publish, publish_npz, read_npz
from activelearn.store.glass_product import (
    GlassPath,
    GlassProduct,
    Thermo,
    made_id,
    no_frames,
    publish_glass,
    read_glass,
)
from activelearn.store.study import GLASS, ONCE
from activelearn.tasks import Station

#: Smallest perpendicular height of a crystal that is melted, Å.
MIN_HEIGHT_A: Final = 8.0


def plan(study: Study, store: StudyStore, iteration: int) -> list[Task]:  # noqa: ARG001 - pure: nothing is looked up
    """One task per potential, composition, cooling rate and replica; of glasses that are given one for each."""
    if study.glasses is not None:
        return given.plan(study.glasses)
    glass = study.melt_quench
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


# --- one glass --------------------------------------------------------------------------------------------------------


def run(task: Task, store: StudyStore, iteration: int, slot: Slot) -> None:  # noqa: ARG001 - a study has none
    """Make one glass (and its porous variant) and publish it; one that is given is published as it is."""
    if store.study.glasses is not None:
        publish_glass(store, task.id, given.of_task(task, store.study.glasses).read())
        return
    study, glass = store.study, store.study.melt_quench
    potential = study.potential(task.parameters["potential"])
    composition = next(c for c in glass.compositions if c.x == task.parameters["x"])
    folder = store.work_folder(GLASS, task.id)
    begin = _relaxed_packing(task, store, composition, folder, slot)
    schedule = glass.schedule(task.parameters["cooling_rate_K_per_ps"])
    rng = store.rng(ONCE, GLASS, f"velocities/{composition.x:g}/{task.parameters['replica']}")
    start = State(begin, dynamics.thermal_velocities(begin, schedule[0].temperature_K, rng))
    dense, porous = _follow(potential, schedule, start, folder / "dense", glass, slot), None
    if glass.pore is not None and is_porous(glass.pore, composition) and dense.end is not None:
        hollow = with_pore(dense.end, glass.pore.diameter_A, composition, glass)
        velocities = dynamics.thermal_velocities(hollow, glass.pore.segments[0].temperature_K, rng)
        start = State(hollow, velocities)
        porous = _follow(potential, glass.pore.segments, start, folder / "pore", glass, slot)
    publish_glass(store, task.id, GlassProduct(dense, porous))
    store.drop_work(GLASS, task.id, slot.machine)


def is_porous(pore: Pore, composition: Composition) -> bool:
    """Return whether a pore is cut into the glasses of a composition."""
    return pore.x is None or composition.x in pore.x


def _relaxed_packing(task: Task, store: StudyStore, composition: Composition, folder: Path, slot: Slot) -> Frames:
    """Return the packing without its worst contacts: relaxed by the potential itself; survives a kill."""
    kept = folder / "start.npz"
    if not kept.is_file():
        glass, replica = store.study.melt_quench, task.parameters["replica"]
        seed = int(store.rng(ONCE, GLASS, f"packing/{composition.x:g}/{replica}").integers(1, 2**31 - 1))
        if composition.crystal is None:
            scratch = store.scratch(slot.machine, GLASS, task.id)
            packed = packing.pack(packing.of_glass(glass, composition), random_seed=seed, folder=scratch, slot=slot)
            store.drop_scratch(scratch, slot.machine)
        else:
            packed = crystal_of(glass, composition)
        calculator = store.study.potential(task.parameters["potential"]).statics(slot.machine.python)
        relax = Relax(fmax=glass.relax.fmax, max_steps=glass.relax.max_steps, cell=False)
        found, *_ = reference.relax(calculator, packed, relax, slot)
        publish_npz(kept, (packed if found is None else found.without_labels()).arrays(), {})
    return Frames.from_arrays(read_npz(kept)[0])


def crystal_of(glass: Glass, composition: Composition) -> Frames:
    """Return the crystal that is melted instead of a packing: a supercell of about as many atoms, at the density.

    Raises
    ------
    ConfigError
        There is no such crystal, or its composition differs.
    """
    assert composition.crystal is not None  # asked of such compositions only
    atoms = packing.atoms_of(packing.counts_of(packing.of_glass(glass, composition)))
    system = System(seed=composition.crystal, n_atoms=atoms.total())
    frame = starts.crystal(system, MIN_HEIGHT_A)
    found, unit = Counter(frame.symbols), unit_of(composition, glass)
    if any(found[element] * unit.total() != n * found.total() for element, n in unit.items()):
        raise ConfigError(
            f"crystal {composition.crystal}: is {frame.formula} - expected {formula_of(unit, ones=False)}, the "
            "composition - choose another"
        )
    scale = float(np.cbrt(frame.density[0] / composition.density_g_cm3))
    return Frames(frame.symbols, frame.cell * scale, frame.positions * scale, frame.pbc)


def _follow(
    potential: Potential, segments: Sequence[Segment], start: State, folder: Path, glass: Glass, slot: Slot
) -> GlassPath:
    """Run the segments one after the other, up to the end or to where one fails."""
    stretches: list[Stretch] = []
    for i, segment in enumerate(segments):
        place = folder / f"{i:02d}-{segment.name}"
        place.mkdir(parents=True, exist_ok=True)
        stretch = dynamics.run_segment(potential, segment, start, glass.dynamics, place, slot)
        stretches.append(stretch)
        if stretch.end is None:
            break
        start = stretch.end
    return _path(segments, stretches, potential)


def _path(segments: Sequence[Segment], stretches: Sequence[Stretch], potential: Potential) -> GlassPath:
    """Put the stretches of a schedule end to end; they are fewer than its segments if the last one failed."""
    last, kept = stretches[-1], [stretch.frames for stretch in stretches if len(stretch.frames)]
    columns = {
        name: np.concatenate([getattr(stretch, name) for stretch in stretches])
        for name in ("time_ps", "temperature_K", "potential_energy", "pressure_bar", "volume")
    }
    columns["max_devi_f"] = np.concatenate([stretch.max_devi_f_of_rows for stretch in stretches])
    velocities = [stretch.velocities for stretch in stretches if len(stretch.frames) and stretch.velocities is not None]
    deviations = np.concatenate([stretch.max_devi_f for stretch in stretches])
    n_judged, outside_share, above_f_lo_share = dynamics.judged(deviations, potential.window)
    return GlassPath(
        segments=tuple(segment.name for segment in segments),
        analysed=tuple(i for i, segment in enumerate(segments) if segment.is_analysed),
        ended=FINISHED if last.ended == FINISHED else f"{segments[len(stretches) - 1].name}: {_death(last)}",
        frames=Frames.concatenate(kept) if kept else no_frames(),
        frame_segment=np.repeat(np.arange(len(stretches)), [len(stretch.frames) for stretch in stretches]),
        frame_time_ps=np.concatenate([stretch.frame_time_ps for stretch in stretches]),
        thermo=Thermo(np.repeat(np.arange(len(stretches)), [len(s.time_ps) for s in stretches]), **columns),
        frame_velocities=np.concatenate(velocities) if velocities else None,
        end=last.end.frame if last.end is not None else None,
        end_velocities=last.end.velocities if last.end is not None else None,
        n_judged=n_judged,
        outside_share=outside_share,
        above_f_lo_share=above_f_lo_share,
        **frozen.crowding(potential, kept),
        resumed=sum(stretch.resumed for stretch in stretches),
        seconds=sum(stretch.finished - stretch.started for stretch in stretches),
        started=stretches[0].started,
        finished=last.finished,
    )


def _death(last: Stretch) -> str:
    """Return why a stretch ended, with the time of its last whole row where the reason has none."""
    rows = last.time_ps
    return last.ended if " at " in last.ended or not len(rows) else f"{last.ended} after {rows[-1]:g} ps"


# --- the pore ---------------------------------------------------------------------------------------------------------


def with_pore(frame: Frames, diameter_A: float, composition: Composition, glass: Glass) -> Frames:
    """Return a frame with a sphere cut out of its middle, in the exact stoichiometry of its composition.

    All atoms in the sphere go; then, element by element, as few more as restore whole formula units, nearest to the
    pore first (Luo et al. 2024 remove "atoms near it").

    Raises
    ------
    ConfigError
        Nothing would be left around the pore.
    """
    away = frame.fractional()[0] - 0.5
    away -= np.round(away)
    distance = np.linalg.norm(away @ frame.cell[0], axis=1)
    symbols = np.array(frame.symbols)
    unit = unit_of(composition, glass)
    kept = distance > diameter_A / 2.0
    n_units = min((int((symbols[kept] == element).sum()) // n for element, n in unit.items()), default=0)
    if n_units == 0 or diameter_A >= 2.0 * distance.max():
        raise ConfigError(
            f"glass.pore.diameter_A: {diameter_A:g} Å leaves nothing of {frame.formula} - expected a smaller pore, or "
            "more atoms"
        )
    for element, n in unit.items():
        candidates = np.flatnonzero(kept & (symbols == element))
        surplus = len(candidates) - n_units * n
        nearest = candidates[np.argsort(distance[candidates], kind="stable")]
        kept[nearest[:surplus]] = False
    return Frames(tuple(symbols[kept].tolist()), frame.cell, frame.positions[:, kept], frame.pbc)


def unit_of(composition: Composition, glass: Glass) -> Counter[str]:
    """Return the smallest whole formula unit of a composition, atoms by element."""
    atoms = packing.atoms_of(packing.counts_of(packing.of_glass(glass, composition)))
    divisor = int(np.gcd.reduce(list(atoms.values())))
    return Counter({element: n // divisor for element, n in atoms.items()})


# --- sealing ----------------------------------------------------------------------------------------------------------


def gather(study: Study, store: StudyStore, iteration: int) -> Glasses:
    """Seal what was made, with its stamps; write final structures and thermo tables for people and their programs."""
    if study.glasses is not None:
        return Glasses(glasses=tuple(_given(study.glasses, store)))
    made = []
    for task in store.plan(GLASS, iteration).tasks:
        product = read_glass(store, task.id)
        melt = melt_of(product.dense, study.melt_quench)
        made.append(_record(study, store, task, product.dense, melt))
        if product.judged_porous is not None:
            made.append(_record(study, store, task, product.judged_porous, melt, is_porous=True))
        elif _wants_pore(study.melt_quench, task):
            made.append(_never_cut(made[-1]))
    return Glasses(glasses=tuple(made))


def _given(section: OwnGlasses, store: StudyStore) -> Iterator[MadeGlass]:
    """Yield what is known of glasses that were given, and write their last structures."""
    for task in store.plan(GLASS, ONCE).tasks:
        product = read_glass(store, task.id)
        for record in given.of_task(task, section).records:
            path = product.dense if record.id == task.id else product.porous
            end, file = (None if path is None else path.end), f"{record.id}.extxyz"
            if end is not None:
                publish(store.station_folder(GLASS, ONCE) / file, _extxyz(end.wrapped(), record))
            yield record.model_copy(update={"structure": f"{GLASS}/{file}" if end is not None else ""})


def _record(
    study: Study, store: StudyStore, task: Task, path: GlassPath, melt: Melt, *, is_porous: bool = False
) -> MadeGlass:
    glass, end = study.melt_quench, path.end
    composition = next(c for c in glass.compositions if c.x == task.parameters["x"])
    atoms = packing.atoms_of(packing.counts_of(packing.of_glass(glass, composition)))
    name = made_id(task.id, is_porous=is_porous)
    made = MadeGlass(
        id=name,
        potential=task.parameters["potential"],
        x=composition.x,
        replica=task.parameters["replica"],
        cooling_rate_K_per_ps=task.parameters["cooling_rate_K_per_ps"],
        is_porous=is_porous,
        formula=end.formula if end is not None else formula_of(atoms),
        n_atoms=end.n_atoms if end is not None else atoms.total(),
        ended=path.ended,
        density_g_cm3=float(end.density[0]) if end is not None else None,
        n_judged=path.n_judged,
        outside_share=path.outside_share,
        above_f_lo_share=path.above_f_lo_share,
        n_overflow=path.n_overflow,
        overflow_share=path.overflow_share,
        overflow=path.overflow,
        is_trusted=is_trusted(path.outside_share, path.n_overflow, glass.max_outside_share) and path.is_finished,
        melt=melt,
        resumed=path.resumed,
        structure=f"{GLASS}/{name}.extxyz" if end is not None else "",
        seconds=path.seconds,
    )
    folder = store.station_folder(GLASS, ONCE)
    if end is not None:
        _replace(folder / f"{name}.extxyz", _extxyz(end, made))
    publish(folder / f"{name}-thermo.csv", _thermo_csv(path))
    return made


def _replace(path: Path, content: bytes) -> None:
    """Publish a file that is derived from products; a file of an older version lacks stamps of this one."""
    if not publish(path, content) and path.read_bytes() != content:
        path.unlink()
        publish(path, content)


def _wants_pore(glass: Glass, task: Task) -> bool:
    composition = next(c for c in glass.compositions if c.x == task.parameters["x"])
    return glass.pore is not None and is_porous(glass.pore, composition)


def _never_cut(dense: MadeGlass) -> MadeGlass:
    """Return the porous glass that was planned of a dense one that died."""
    name = made_id(dense.id, is_porous=True)
    return dense.model_copy(
        update={"id": name, "is_porous": True, "ended": f"{dense.ended}, before the pore was cut", "seconds": 0.0}
    )


def _extxyz(frame: Frames, made: MadeGlass) -> bytes:
    import io

    from ase.io import write

    atoms = frame.to_ase()[0]
    names = ("id", "potential", "x", "replica", "cooling_rate_K_per_ps", "density_g_cm3", "stamp", "melted")
    atoms.info = {name: value for name in names if (value := getattr(made, name)) is not None}
    stream = io.StringIO()
    write(stream, atoms, format="extxyz")
    return stream.getvalue().encode()


def _thermo_csv(path: GlassPath) -> bytes:
    rows = path.thermo
    columns = (rows.time_ps, rows.temperature_K, rows.potential_energy, rows.pressure_bar, rows.volume, rows.max_devi_f)
    lines = ["segment,time_ps,temperature_K,potential_energy_eV,pressure_bar,volume_A3,max_devi_f_eV_per_A"]
    for i, *row in zip(rows.segment, *columns, strict=True):
        lines.append(",".join([path.segments[int(i)], *(f"{value:.8g}" for value in row)]))
    return ("\n".join(lines) + "\n").encode()


STATION: Final = Station(GLASS, plan, run, gather, phase="study", runs_models=True, asks_reference=True)
