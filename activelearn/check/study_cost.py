"""The bill of a study by itself: tasks and MD steps, which are exact, and the time that they take.

The time is that of the evaluations of each potential, times its speed (:mod:`activelearn.check.potential_speeds`);
relaxations are billed to their bound. What a folder has done of a property is measured, and scaled to all of its tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import ceil
from pathlib import Path
from typing import Final

import numpy as np

from activelearn import packing, seeds
from activelearn.benchmark.parity import CHUNK
from activelearn.check import potential_speeds
from activelearn.check.cost import TRAINER, WALK_START_S
from activelearn.check.potential_speeds import DECLARED, DEFAULT, MEASURED, Speed
from activelearn.check.speeds import label_s
from activelearn.config import (
    BulkModulus,
    Crystals,
    Diffusion,
    Elastic,
    ForceError,
    Machine,
    Parity,
    Potential,
    Reactions,
    Segment,
    Study,
    load_machine,
    property_of,
)
from activelearn.config.benchmark import PROPERTIES
from activelearn.frames import Frames
from activelearn.given import read
from activelearn.glass import is_porous
from activelearn.starts import right_handed
from activelearn.store import StudyStore
from activelearn.store.study import BENCHMARK, ONCE
from activelearn.units import duration

#: Sources, the best first: a sum is as good as its worst part.
_SOURCES: Final = (MEASURED, DECLARED, DEFAULT)
#: Relaxations of a glass: of the cell, and of each strain (six, in both directions).
_N_ELASTIC: Final = 13


@dataclass(frozen=True)
class StudyItem:
    """What is done with one potential, or with all.

    Parameters
    ----------
    what
        Its name.
    n_tasks, n_steps
        Tasks, and steps of MD in all of them.
    seconds
        Of one slot; None if not known.
    source
        Where they come from; empty for moments and what is not known.
    is_bound
        Whether they are at most these: relaxations may end earlier.
    """

    what: str
    n_tasks: int
    n_steps: int = 0
    seconds: float | None = None
    source: str = ""
    is_bound: bool = False

    def __str__(self) -> str:
        """Return it as a line of the table."""
        known = "not known" if self.seconds is None else duration(self.seconds, 1) if self.seconds else "moments"
        most = ", at most" if self.is_bound else ""
        return f"  {self.what:<32}{self.n_tasks:>8}{self.n_steps or '':>14}{known:>12}  {self.source}{most}".rstrip()


@dataclass(frozen=True)
class _Work:
    """What a property takes with one potential: of each of its tasks the evaluations and the atoms."""

    n_tasks: float
    n_steps: int
    evaluations: float
    n_atoms: float
    is_bound: bool = False


#: What a property takes with each potential.
_OfPotential = Callable[[Potential], _Work]


def study_lines(
    study: Study,
    machine: Machine,
    slower: float = 1.0,
    *,
    store: StudyStore | None = None,
    tried: Mapping[str, Speed] | None = None,
) -> list[str]:
    """Return the bill of a study as a table of plain lines.

    Parameters
    ----------
    study, machine
        What, and where.
    slower
        How many times as long this machine takes as the one whose speeds are declared (:mod:`activelearn.check.pace`).
    store
        Its folder, if it has begun: what it took so far is measured.
    tried
        Speeds of potentials that were measured for this bill, by name.
    """
    made = potential_speeds.of_folder(study, store)
    speeds = potential_speeds.speeds_of(study, machine, made, tried or {}, slower)
    bill = _Bill(study, machine, slower, speeds, made, {} if store is None else _done(store))
    items = [*bill.glasses(), *bill.properties()]
    known = [item.seconds for item in items if item.seconds is not None]
    out = [f"{'':<34}{'tasks':>8}{'MD steps':>14}{'slot time':>12}  source", *map(str, items)]
    n_slots = machine.at("glass").n_slots
    if known:
        sides = f"{duration(sum(known), 1)} of one slot, {duration(sum(known) / n_slots, 1)} on {n_slots} slots"
        most = "at most " if any(item.is_bound for item in items) else ""
        out.append(f"in all: {most}{sides}")
    if len(known) < len(items):
        out.append(f"{len(items) - len(known)} of {len(items)} lines are unknown and not included")
    if any(item.seconds and item.source for item in items):
        out += [potential_speeds.said(one, bill.speeds[one.name], bill.n_atoms) for one in study.potentials]
    return out


class _Bill:
    """What a study does, and how long each potential takes for it."""

    def __init__(
        self,
        study: Study,
        machine: Machine,
        slower: float,
        speeds: Mapping[str, Speed],
        made: Mapping[str, Speed],
        done: Mapping[str, Sequence[float]],
    ) -> None:
        self.study, self.machine, self.slower = study, machine, slower
        self.speeds, self.made, self.done = speeds, made, done
        self.n_atoms = n_atoms(study)

    def glasses(self) -> Iterator[StudyItem]:
        """Yield the glasses: those that exist, or of each potential its melt-quenches and what they start with."""
        if self.study.glasses is not None:
            yield StudyItem("existing glasses", sum(map(len, read(self.study.glasses))), 0, 0.0)
        for potential in self.study.potentials if self.study.glass is not None else ():
            works = list(self._melted(potential))
            n, speed = sum(round(one.n_tasks) for one in works), self.speeds[potential.name]
            relaxed = [_Work(one.n_tasks, 0, self.study.melt_quench.relax.max_steps, one.n_atoms) for one in works]
            yield StudyItem(
                f"packing {potential.name}", n, 0, self._seconds(speed, relaxed), speed.source, is_bound=True
            )
            seconds = self._seconds(self.made.get(potential.name, speed), works)
            if potential.name not in self.made:
                seconds += self._start_s(potential, n)
            source = MEASURED if potential.name in self.made else speed.source
            yield StudyItem(f"glass {potential.name}", n, sum(one.n_steps for one in works), seconds, source)

    def _melted(self, potential: Potential) -> Iterator[_Work]:
        glass = self.study.melt_quench
        rates = glass.cooling_rates_K_per_ps or (None,)
        for composition in glass.compositions:
            size = packing.n_atoms(packing.of_glass(glass, composition))
            pore = glass.pore.segments if glass.pore is not None and is_porous(glass.pore, composition) else ()
            for rate in rates:
                segments = (*glass.schedule(rate), *pore)
                n_steps, n = potential_speeds.evaluations(potential, glass.dynamics, segments)
                yield _Work(glass.n_replicas, glass.n_replicas * n_steps, n, size)

    def properties(self) -> Iterator[StudyItem]:
        """Yield what is measured: a task of each glass, crystal or piece of frames; of diffusion the steps, too."""
        asked = self.study.benchmark
        for name, settings in asked.asked.items() if asked is not None else ():
            one = property_of(name)
            if one.needs_glass and self.study.of_glasses is None:
                continue
            if isinstance(settings, Parity) and settings.frames is None:
                continue
            each = self._work(settings)
            if each is None:  # an analysis of frames that are there
                n = self._n_glasses() * (1 if self.study.glasses is not None else len(self.study.potentials))
                is_ours = name in PROPERTIES.built_in and not one.runs_potential and one.needs_glass
                yield self._measured(StudyItem(name, n, 0, 0.0 if is_ours else None))
                continue
            works = {potential.name: each(potential) for potential in self.study.potentials}
            parts = [self._seconds(self.speeds[name], [work]) for name, work in works.items() if work.n_atoms]
            is_known = len(parts) == len(works)
            source = max((self.speeds[name].source for name in works), key=_SOURCES.index, default="")
            item = StudyItem(
                name,
                round(sum(work.n_tasks for work in works.values())),
                sum(work.n_steps for work in works.values()),
                sum(parts) if is_known else None,
                source if is_known else "",
                is_bound=any(work.is_bound for work in works.values()),
            )
            yield self._measured(self._with_labels(settings, item) if isinstance(settings, ForceError) else item)

    def _measured(self, item: StudyItem) -> StudyItem:
        """Return an item with the time that a folder has for its tasks, if it has any."""
        if (took := self.done.get(item.what)) is None:
            return item
        return StudyItem(item.what, item.n_tasks, item.n_steps, item.n_tasks * sum(took) / len(took), MEASURED)

    def _with_labels(self, asked: ForceError, item: StudyItem) -> StudyItem:
        """Return the item with the labels of its reference, linear in the number of atoms."""
        if asked.label is None or item.seconds is None:
            return item
        seconds, source = label_s(asked.label.reference, self.machine)
        if seconds is None:
            return StudyItem(item.what, item.n_tasks)
        both = item.seconds + item.n_tasks * self.n_atoms * seconds * self.slower
        return StudyItem(item.what, item.n_tasks, 0, both, max(source, item.source, key=_SOURCES.index))

    def _work(self, settings: object) -> _OfPotential | None:
        """Return what a property takes with a potential; None: it runs none, or nobody knows."""
        n, size = self._n_glasses(), self.n_atoms
        if isinstance(settings, Crystals | Reactions):
            sizes = [_n_atoms_of(one, settings.min_height_A) for one in settings.seeds]
            relaxed = _Work(len(sizes), 0, settings.max_steps, sum(sizes) / max(len(sizes), 1), is_bound=True)
            return lambda _: relaxed
        if isinstance(settings, Parity):
            n_chunks = ceil(settings.max_frames / CHUNK)
            size_of_first = _first_n_atoms(str(settings.frames))
            frames = _Work(n_chunks, 0, settings.max_frames / n_chunks, size_of_first, is_bound=True)
            return lambda _: frames
        if isinstance(settings, ForceError):
            return lambda _: _Work(n * settings.n_frames, 0, 1.0, size)
        if isinstance(settings, Elastic):
            return lambda _: _Work(n, 0, _N_ELASTIC * settings.max_steps, size, is_bound=True)
        if isinstance(settings, BulkModulus) and settings.temperature_K is None:
            return lambda _: _Work(n, 0, (1 + len(settings.strains)) * settings.max_steps, size, is_bound=True)
        if isinstance(settings, BulkModulus | Diffusion):
            return partial(self._dynamics, settings)
        return None

    def _dynamics(self, settings: BulkModulus | Diffusion, potential: Potential) -> _Work:
        """Return the runs of a property with a potential: of each glass one per temperature, or per strain."""
        assert self.study.benchmark is not None
        if isinstance(settings, Diffusion):
            runs = [(settings.equilibrate_ps, settings.duration_ps(T), T) for T in settings.temperatures_K]
            n_tasks = self._n_glasses() * len(runs)
        else:
            temperature_K = settings.temperature_K or 0.0
            runs = [(settings.equilibrate_ps, settings.average_ps, temperature_K)] * len(settings.strains)
            n_tasks = self._n_glasses()
        segments = [Segment(name="run", temperature_K=T, ps=ps) for *both, T in runs for ps in both]
        n_steps, evaluations = potential_speeds.evaluations(potential, self.study.benchmark.dynamics, segments)
        each = self._n_glasses() / max(n_tasks, 1)
        return _Work(n_tasks, self._n_glasses() * n_steps, evaluations * each, self.n_atoms)

    @staticmethod
    def _seconds(speed: Speed, works: Sequence[_Work]) -> float:
        return sum(one.n_tasks * speed.seconds(one.evaluations, one.n_atoms) for one in works)

    def _start_s(self, potential: Potential, n_tasks: int) -> float:
        """Return the seconds in which slots wait for an engine, which is started once, and segments for its models."""
        known = {**load_machine("local").speeds.start_s, **self.machine.speeds.start_s}
        key = TRAINER if potential.deepmd is not None else potential.ase.calculator if potential.ase is not None else ""
        n_segments = len(self.study.melt_quench.segments) if potential.deepmd is not None else 0
        once_s = known.get(key or "", 0.0) * min(self.machine.at("glass").n_slots, n_tasks)
        return (once_s + WALK_START_S * n_tasks * n_segments) * self.slower

    def _n_glasses(self) -> int:
        """Return the glasses of one potential, porous ones too; or all that are given."""
        if self.study.glasses is not None:
            return sum(len(glass.records) for glasses in read(self.study.glasses) for glass in glasses)
        if (glass := self.study.glass) is None:
            return 0
        n_porous = sum(glass.pore is not None and is_porous(glass.pore, c) for c in glass.compositions)
        return (len(glass.compositions) + n_porous) * len(glass.cooling_rates_K_per_ps or (None,)) * glass.n_replicas


def n_atoms(study: Study) -> float:
    """Return the mean number of atoms of the glasses of a study, or else of its crystals; 0 if it has neither."""
    if study.glasses is not None:
        sizes = [
            float(record.n_atoms) for glasses in read(study.glasses) for glass in glasses for record in glass.records
        ]
    elif study.glass is not None:
        sizes = [float(packing.n_atoms(packing.of_glass(study.glass, one))) for one in study.glass.compositions]
    else:
        asked = study.benchmark
        sections = (asked.crystals, asked.reactions) if asked is not None else ()
        sizes = [_n_atoms_of(name, one.min_height_A) for one in sections if one is not None for name in one.seeds]
    return sum(sizes) / len(sizes) if sizes else 0.0


@lru_cache(maxsize=256)
def _n_atoms_of(crystal: str, min_height_A: float) -> float:
    """Return the atoms of the supercell of a crystal that is relaxed."""
    unit = right_handed(Frames.from_ase([seeds.load_structure(crystal, Path())]).without_labels())
    return float(unit.n_atoms * np.prod(seeds.factors_for_height(unit.cell[0], min_height_A)))


def _first_n_atoms(frames: str) -> float:
    """Return the atoms of the first of labelled frames; 0 if it cannot be read, which is reported elsewhere."""
    from ase.io import read as read_structure

    try:
        return float(len(read_structure(frames, index=0)))
    except Exception:  # noqa: BLE001 - whatever a reader of ASE stumbles over
        return 0.0


def _done(store: StudyStore) -> dict[str, list[float]]:
    """Return the seconds of the published tasks of each property."""
    plan, found = store.find_plan(BENCHMARK, ONCE), dict[str, list[float]]()
    for task in plan.tasks if plan is not None else ():
        if store.is_published(BENCHMARK, ONCE, task):
            meta = store.read_meta(BENCHMARK, ONCE, task.id)
            found.setdefault(task.kind, []).append(float(meta["finished"]) - float(meta["started"]))
    return found
