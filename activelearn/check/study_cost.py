"""The bill of a study by itself: tasks and MD steps, which are exact, and the time of what somebody has declared.

A potential that is an ASE calculator is asked once for each step of MD: `machine.speeds.label_s_per_atom` says how
long that takes. Other potentials, and what properties do beside MD, have no declared speed: their time is not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from activelearn import packing
from activelearn.benchmark.parity import CHUNK
from activelearn.config import (
    BulkModulus,
    Crystals,
    Diffusion,
    Dynamics,
    ForceError,
    Glass,
    Machine,
    Parity,
    Potential,
    Reactions,
    Segment,
    Study,
    property_of,
)
from activelearn.engines import dynamics
from activelearn.given import read
from activelearn.glass import is_porous
from activelearn.units import duration


@dataclass(frozen=True)
class StudyItem:
    """What is done with one potential, or with all: tasks, steps of MD in all, and seconds of one slot if known."""

    what: str
    n_tasks: int
    n_steps: int = 0
    seconds: float | None = None

    def __str__(self) -> str:
        """Return it as a line of the table."""
        known = "not known" if self.seconds is None else duration(self.seconds, 1) if self.seconds else "moments"
        return f"  {self.what:<32}{self.n_tasks:>8}{self.n_steps or '':>14}{known:>12}"


def study_lines(study: Study, machine: Machine, slower: float = 1.0) -> list[str]:
    """Return the bill of a study as a table of plain lines.

    Parameters
    ----------
    study, machine
        What, and where.
    slower
        How many times as long this machine takes as the one whose speeds are declared (:mod:`activelearn.check.pace`).
    """
    items = [*_glasses(study, machine, slower), *_measured(study, machine, slower)]
    known = [item.seconds for item in items if item.seconds is not None]
    out = [f"{'':<34}{'tasks':>8}{'MD steps':>14}{'slot time':>12}", *map(str, items)]
    n_slots = machine.at("glass").n_slots
    if known:
        sides = f"{duration(sum(known), 1)} of one slot, {duration(sum(known) / n_slots, 1)} on {n_slots} slots"
        out.append(f"declared (machine.speeds of profile {machine.name}): {sides}")
    if len(known) < len(items):
        why = "no speed is declared for them - declare machine.speeds.label_s_per_atom of an ASE calculator, or measure"
        out.append(f"{len(items) - len(known)} of {len(items)} lines are unknown and not included: {why} one glass")
    return out


def _glasses(study: Study, machine: Machine, slower: float) -> Iterator[StudyItem]:
    if study.glasses is not None:
        yield StudyItem("existing glasses", sum(map(len, read(study.glasses))), 0, 0.0)
    if (glass := study.glass) is None:
        return
    rates = glass.cooling_rates_K_per_ps or (None,)
    for potential in study.potentials:
        n_steps, atom_steps = 0, 0
        for composition in glass.compositions:
            n_atoms = packing.n_atoms(packing.of_glass(glass, composition))
            pore = glass.pore.segments if glass.pore is not None and is_porous(glass.pore, composition) else ()
            steps = sum(_steps(potential, glass.dynamics, (*glass.schedule(rate), *pore)) for rate in rates)
            n_steps += glass.n_replicas * steps
            atom_steps += glass.n_replicas * steps * n_atoms
        n = len(glass.compositions) * len(rates) * glass.n_replicas
        yield StudyItem(f"glass {potential.name}", n, n_steps, _seconds(potential, machine, atom_steps, slower))


def _steps(potential: Potential, integration: Dynamics, segments: tuple[Segment, ...]) -> int:
    fs = dynamics.timestep_of(potential, integration)
    return sum(dynamics.steps_of(segment, integration, fs).n_steps for segment in segments)


def _seconds(potential: Potential, machine: Machine, atom_steps: int, slower: float) -> float | None:
    """Return the seconds of a number of steps times atoms, if declared."""
    calculator = potential.ase.calculator if potential.ase is not None else None
    each = machine.speeds.label_s_per_atom.get(calculator or "")
    return None if each is None else each * atom_steps * slower


def _measured(study: Study, machine: Machine, slower: float) -> Iterator[StudyItem]:
    """Yield what is measured: a task of each glass, crystal or piece of frames; of diffusion the steps, too."""
    asked, n_glasses = study.benchmark, _n_glasses(study)
    for name, settings in asked.asked.items() if asked is not None else ():
        one = property_of(name)
        if one.needs_glass and study.of_glasses is None:
            continue
        each = len(study.potentials) if one.runs_potential or not one.needs_glass else 1
        n = n_glasses * (each if study.glasses is not None else len(study.potentials))
        if isinstance(settings, Crystals | Reactions):
            n = len(settings.seeds) * len(study.potentials)
        elif isinstance(settings, Parity):
            n = ceil(settings.max_frames / CHUNK) * len(study.potentials)
        elif isinstance(settings, ForceError):
            n *= settings.n_frames
        elif isinstance(settings, Diffusion):
            n *= len(settings.temperatures_K)
        n_steps = _steps_of(settings, study, n)
        analysed = None if one.runs_potential or not one.needs_glass else 0.0
        yield StudyItem(name, n, n_steps, _of_all(study, machine, n_steps, slower) if n_steps else analysed)


def _of_all(study: Study, machine: Machine, n_steps: int, slower: float) -> float | None:
    """Return the seconds of steps that all potentials share evenly, on glasses of mean size."""
    glass = study.glass
    if glass is None:
        return None
    sizes = [packing.n_atoms(packing.of_glass(glass, one)) for one in glass.compositions]
    each = n_steps * sum(sizes) / len(sizes) / len(study.potentials)
    seconds = [_seconds(potential, machine, round(each), slower) for potential in study.potentials]
    return sum(one for one in seconds if one is not None) if None not in seconds else None


def _steps_of(settings: object, study: Study, n: int) -> int:
    """Return the MD steps of a property, at the time step that all potentials have by default."""
    assert study.benchmark is not None
    fs = study.benchmark.dynamics.timestep_fs
    if isinstance(settings, Diffusion):
        ps = [settings.equilibrate_ps + settings.duration_ps(T) for T in settings.temperatures_K]
        return round(n / len(ps) * sum(ps) * 1000.0 / fs)
    if isinstance(settings, BulkModulus) and settings.temperature_K is not None:
        return round(n * len(settings.strains) * (settings.equilibrate_ps + settings.average_ps) * 1000.0 / fs)
    return 0


def _n_glasses(study: Study) -> int:
    """Return the glasses of one potential, porous ones too; or all that are given."""
    if study.glasses is not None:
        return sum(len(glass.records) for glasses in read(study.glasses) for glass in glasses)
    glass: Glass | None = study.glass
    if glass is None:
        return 0
    n_porous = sum(glass.pore is not None and is_porous(glass.pore, c) for c in glass.compositions)
    return (len(glass.compositions) + n_porous) * len(glass.cooling_rates_K_per_ps or (None,)) * glass.n_replicas
