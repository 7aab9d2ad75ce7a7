"""Molecular dynamics of one segment with any potential: LAMMPS where it can, ASE otherwise, by the same protocol.

Both integrate Nosé-Hoover chains of three (for the cell Martyna, Tuckerman, Tobias and Klein's), with the damping times
of :class:`activelearn.config.Dynamics`; both write restart files, and go on from them after a kill.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from activelearn.config import Dynamics, Potential, Segment
from activelearn.engines.process import Slot
from activelearn.frames import FloatArray, Frames
from activelearn.units import AMU_A2_PER_PS2_IN_EV, AMU_PER_A3_IN_G_PER_CM3, BOLTZMANN_EV_PER_K

#: What a segment is called that came to its end.
FINISHED = "finished"


@dataclass(frozen=True, eq=False)
class State:
    """Where a segment starts from, or ends.

    Parameters
    ----------
    frame
        One frame without labels; any cell.
    velocities
        (n_atoms, 3) Å/ps.
    """

    frame: Frames
    velocities: FloatArray


@dataclass(frozen=True, eq=False)
class Stretch:
    """What a segment left, up to its end or to where it failed.

    Parameters
    ----------
    time_ps
        (n,) since the start of the segment, every `thermo_every_ps`, 0 included.
    temperature_K, potential_energy, pressure_bar, volume
        (n,) K, eV, bar (positive in compression), Å^3.
    max_devi_f
        (n,) force deviation of the ensemble, eV/Å; NaN where there is none.
    frames
        ``segment.n_frames`` evenly spaced frames without labels, the last included (not the start); wrapped; origin:
        ``walk`` the segment, ``step``, ``temperature_K`` and ``pressure_bar`` imposed, ``max_devi_f``.
    frame_time_ps
        (n_frames,) of the frames.
    end
        Where the next segment starts; None if it failed.
    ended
        "finished", or why not: "non-finite", "lost atoms", "too hot: 8200 K at 3.1 ps" ...
    resumed
        How often it went on from a restart file.
    started, finished
        Unix times of the engine's work; after a resumption those of the last part.
    """

    time_ps: FloatArray
    temperature_K: FloatArray
    potential_energy: FloatArray
    pressure_bar: FloatArray
    volume: FloatArray
    max_devi_f: FloatArray
    frames: Frames
    frame_time_ps: FloatArray
    end: State | None
    ended: str
    resumed: int
    started: float
    finished: float


@dataclass(frozen=True)
class Steps:
    """A segment in MD steps.

    Parameters
    ----------
    n_steps
        Of the segment: a multiple of nothing but itself.
    thermo_every, restart_every
        Steps between rows, and between restart files.
    frames
        (n_frames,) steps at which frames are kept, the last one included.
    """

    n_steps: int
    thermo_every: int
    restart_every: int
    frames: NDArray[np.int64]


def steps_of(segment: Segment, dynamics: Dynamics, timestep_fs: float) -> Steps:
    """Return a segment in steps: at least one; rows and restarts as near as steps allow, frames on rows.

    Frames are rounded to whole rows, so that every kept frame has its thermo and its deviation.
    """
    per_ps = 1000.0 / timestep_fs
    thermo = max(1, round(dynamics.thermo_every_ps * per_ps))
    n_rows = max(1, round(segment.duration_ps * per_ps / thermo))
    if segment.duration_ps * per_ps < thermo:
        thermo = max(1, round(segment.duration_ps * per_ps))
    n_frames = min(segment.n_frames, n_rows)
    rows = np.unique(np.round(np.linspace(n_rows / n_frames, n_rows, n_frames)).astype(np.int64))
    restart = max(1, round(dynamics.restart_every_ps * per_ps / thermo)) * thermo
    return Steps(n_rows * thermo, thermo, restart, rows * thermo)


def runs_in_lammps(potential: Potential) -> bool:
    """Return whether LAMMPS drives a potential; anything that is only an ASE calculator is driven by ASE."""
    return potential.ase is None


def timestep_of(potential: Potential, dynamics: Dynamics) -> float:
    """Return the time step of a potential, fs."""
    return potential.timestep_fs or dynamics.timestep_fs


def thermal_velocities(frame: Frames, temperature_K: float, rng: np.random.Generator) -> FloatArray:
    """Return Maxwell-Boltzmann velocities (n_atoms, 3), Å/ps, without drift and at exactly the temperature.

    Both engines start from these, so that a replica begins alike with every potential.
    """
    from ase.data import atomic_masses, atomic_numbers

    masses = np.array([atomic_masses[atomic_numbers[symbol]] for symbol in frame.symbols])
    v = rng.normal(size=(frame.n_atoms, 3)) / np.sqrt(masses)[:, None]
    v -= (masses[:, None] * v).sum(axis=0) / masses.sum()
    kinetic = 0.5 * (masses[:, None] * v**2).sum() * AMU_A2_PER_PS2_IN_EV
    degrees = max(1, 3 * frame.n_atoms - 3)
    wanted = 0.5 * degrees * BOLTZMANN_EV_PER_K * temperature_K
    return np.asarray(v * np.sqrt(wanted / kinetic)) if kinetic > 0.0 else v


def density(frame: Frames) -> FloatArray:
    """Return the density of every frame, g/cm^3."""
    from ase.data import atomic_masses, atomic_numbers

    mass = sum(float(atomic_masses[atomic_numbers[symbol]]) for symbol in frame.symbols)
    return np.asarray(mass * AMU_PER_A3_IN_G_PER_CM3 / frame.volume, dtype=np.float64)


def run_segment(
    potential: Potential, segment: Segment, start: State, dynamics: Dynamics, folder: Path, slot: Slot
) -> Stretch:
    """Run one segment, or go on with it from its last restart file.

    Parameters
    ----------
    potential, segment, dynamics
        What moves, how, and how it is integrated.
    start
        Positions, cell and velocities at its start.
    folder
        Of this segment alone, kept over kills: restart files stand in it, and its output until it is finished.
    slot
        Where.

    Raises
    ------
    EngineError
        Infrastructure failed; what was reached is in the folder. A physical failure is in ``ended``.
    """
    from activelearn.engines.dynamics import ase, lammps

    run = lammps.run_segment if runs_in_lammps(potential) else ase.run_segment
    return run(potential, segment, start, dynamics, folder, slot)
