"""Volume of relaxed crystals against experiment: cell and positions are relaxed to zero stress at 0 K."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import gcd
from pathlib import Path
from typing import Any, Final

import numpy as np

from activelearn import seeds
from activelearn.benchmark.elements import unknown_elements
from activelearn.benchmark.property import Condition, Context, Findings, Observable, Product, Property
from activelearn.benchmark.replicas import stamped
from activelearn.benchmark.straining import pressure_GPa
from activelearn.config import Crystals, Reactions, Relax
from activelearn.engines import frozen, reference
from activelearn.engines.process import Slot
from activelearn.errors import EngineError
from activelearn.frames import FloatArray, Frames
from activelearn.records import Result, Task
from activelearn.starts import right_handed

NAME: Final = "crystals"
_RELAXED: Final = "relaxed"


def formula_units(symbols: Sequence[str]) -> int:
    """Return the number of formula units in a cell: the greatest common divisor of its elements' counts."""
    counts = np.unique(symbols, return_counts=True)[1]
    return int(reduce(gcd, counts.tolist()))


def lattice(cell: FloatArray) -> tuple[float, ...]:
    """Return a, b, c (Å) and alpha, beta, gamma (degrees) of a (3, 3) cell, rows lattice vectors."""
    from ase.cell import Cell

    return tuple(Cell(cell).cellpar().tolist())


# --- the property -----------------------------------------------------------------------------------------------------


def plan(asked: Crystals, context: Context) -> list[Task]:
    """One task per potential and crystal."""
    return relaxations(NAME, asked, context)


def relaxations(name: str, asked: Crystals | Reactions, context: Context) -> list[Task]:
    """Return one task per potential and crystal, for the property of a name."""
    return [
        Task(
            id=f"{name}-{potential.slug}-{k:02d}-{Path(crystal).name}",
            kind=name,
            parameters={"potential": potential.name, "crystal": crystal},
        )
        for potential in context.study.potentials
        for k, crystal in enumerate(asked.seeds)
    ]


def run(task: Task, asked: Crystals | Reactions, context: Context, slot: Slot) -> Product:
    """Relax one crystal with one potential."""
    potential, crystal = context.potential_of(task), context.store.places.now(str(task.parameters["crystal"]))
    statics = potential.statics(slot.machine.python)
    unit = right_handed(Frames.from_ase([seeds.load_structure(crystal, Path())]).without_labels())
    factors = seeds.factors_for_height(unit.cell[0], asked.min_height_A)
    start = Frames.from_ase([seeds.supercell(unit.to_ase()[0], factors)]).without_labels()
    try:
        relax = Relax(fmax=asked.fmax, max_steps=asked.max_steps)
        frame, ended, _, _ = reference.relax(statics, start, relax, slot)
    except EngineError:
        unknown = unknown_elements(statics, start.symbols, slot)
        if not unknown:
            raise
        return {}, {"ended": f"the potential does not know {', '.join(unknown)}"}
    if frame is None:
        return {}, {"ended": ended}
    if not np.isfinite(frame.volume).all():
        return {}, {"ended": "non-finite cell"}
    return {**frame.arrays("relaxed/"), **start.arrays("start/")}, {
        "ended": ended,
        "is_relaxed": ended == _RELAXED,
        "factors": list(factors),
        "pressure_GPa": float(pressure_GPa(frame)[0]),
        **frozen.crowding(potential, [start, frame]),
        **facts(crystal, unit.symbols),
    }


def facts(crystal: str, symbols: Sequence[str]) -> dict[str, Any]:
    """Return formula units in the unit cell, kind and source: of a seed from its file, otherwise as far as known."""
    if crystal in seeds.seed_names():
        seed = seeds.load_seed(crystal)
    elif Path(crystal).suffix in {".yaml", ".yml"}:
        seed = seeds.read_seed(Path(crystal))
    else:
        return {"formula_units": formula_units(symbols), "kind": "structure file", "source": ""}
    return {"formula_units": seed.formula_units, "kind": seed.kind, "source": seed.source}


def results(asked: Crystals, context: Context, tasks: Sequence[Task]) -> Findings:
    """Return volume per formula unit, its deviation from experiment, and density of every crystal."""
    findings = Findings()
    for task in tasks:
        arrays, meta = context.product(task)
        given = str(task.parameters["crystal"])
        crystal = given if given in seeds.seed_names() else Path(given).stem
        condition: Condition = {"potential": task.parameters["potential"], "crystal": crystal}
        if arrays:
            relaxed, start = Frames.from_arrays(arrays, "relaxed/"), Frames.from_arrays(arrays, "start/")
            findings.results += compared(relaxed, start, meta, condition)
        else:
            findings.lacks(NAME, f"crystal {crystal} with {condition['potential']}", condition, meta["ended"])
    return findings


def compared(relaxed: Frames, start: Frames, meta: dict[str, Any], condition: Condition) -> tuple[Result, ...]:
    """Return the results of one crystal.

    Parameters
    ----------
    relaxed, start
        One frame each; `start` has the published cell.
    meta
        ``is_relaxed``, ``ended``, ``pressure_GPa``; ``factors`` of the supercell; ``formula_units``, ``kind`` and
        ``source`` of the unit cell.
    condition
        Of the results.
    """
    n_units = int(meta["formula_units"]) * int(np.prod(meta["factors"]))
    volume, published = float(relaxed.volume[0]), float(start.volume[0])
    density, published_density = (float(frame.density[0]) for frame in (relaxed, start))
    is_experiment = meta["kind"] == "experiment"
    note, stamp = _note(relaxed, start, meta), stamped(None, [meta])

    def result(name: str, value: float, unit: str, reference_value: float) -> Result:
        return Result(
            name=name,
            value=value,
            unit=unit,
            uncertainty=None,
            n_samples=1,
            condition=condition,
            reference_value=reference_value if is_experiment else None,
            reference_source=meta["source"] if is_experiment else None,
            stamp=stamp,
            note=note,
        )

    found = (
        result("crystal_volume_A3", volume / n_units, "Å3", published / n_units),
        result("crystal_density", density, "g/cm3", published_density),
    )
    if not is_experiment:
        return found
    return (*found, result("crystal_volume", 100.0 * (volume / published - 1.0), "%", 0.0))


def _note(relaxed: Frames, start: Frames, meta: dict[str, Any]) -> str:
    """Return the note of the results: how far it was relaxed, and the cells."""
    factors = np.array([*meta["factors"], 1, 1, 1])
    cells = [
        "{:.3f} {:.3f} {:.3f} Å {:.1f} {:.1f} {:.1f}°".format(*(np.array(lattice(f.cell[0])) / factors))
        for f in (relaxed, start)
    ]
    how = "" if meta["is_relaxed"] else f"{meta['ended']}, {meta['pressure_GPa']:.2f} GPa left; "
    return f"{how}0 K; cell {cells[0]} ({meta['kind']}: {cells[1]})"


_OF: Final = ("crystal",)
PROPERTY = Property(
    NAME,
    Crystals,
    run,
    results,
    plan,
    needs_glass=False,
    observables={
        "crystal_volume_A3": Observable("Å3", of=_OF),
        "crystal_density": Observable("g/cm3", high=30.0, of=_OF),
        "crystal_volume": Observable("%", low=-100.0, of=_OF),
    },
)
