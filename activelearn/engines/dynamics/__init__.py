"""Molecular dynamics of one segment with any potential: LAMMPS where it can, ASE otherwise, by the same protocol.

Both integrate Nosé-Hoover chains of three (for the cell Martyna, Tuckerman, Tobias and Klein's), with the damping times
of :class:`activelearn.config.Dynamics`; both write restart files, and go on from them after a kill.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from activelearn.config import Dynamics, Potential, Segment
from activelearn.engines.process import Slot
from activelearn.frames import FloatArray, Frames
from activelearn.units import AMU_A2_PER_PS2_IN_EV, BOLTZMANN_EV_PER_K

#: What a segment is called that came to its end.
FINISHED = "finished"
#: What divides Å/ps into Å/fs.
FS_PER_PS: Final = 1000.0


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
    deviation_time_ps, max_devi_f
        (n_deviations,) ps since the start, 0 included, and force deviation of the ensemble, eV/Å; empty of a potential
        without one.
    frames
        The evenly spaced frames of :class:`Steps`, without labels, the last included (not the start); wrapped; origin:
        ``walk`` the segment, ``step``, ``temperature_K`` and ``pressure_bar`` imposed, ``max_devi_f`` (NaN where none
        was evaluated).
    frame_time_ps
        (n_frames,) of the frames.
    velocities
        (n_frames, n_atoms, 3) Å/fs, of the frames; None unless ``dynamics.keep_velocities``.
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
    deviation_time_ps: FloatArray
    max_devi_f: FloatArray
    frames: Frames
    frame_time_ps: FloatArray
    velocities: FloatArray | None
    end: State | None
    ended: str
    resumed: int
    started: float
    finished: float

    @property
    def max_devi_f_of_rows(self) -> FloatArray:
        """(n,) force deviation on the rows of the thermo table, eV/Å; NaN where none was evaluated."""
        found = np.full(len(self.time_ps), np.nan)
        _, rows, at = np.intersect1d(self.time_ps, self.deviation_time_ps, assume_unique=True, return_indices=True)
        found[rows] = self.max_devi_f[at]
        return found


@dataclass(frozen=True)
class Steps:
    """A segment in MD steps: its three cadences know nothing of each other.

    Parameters
    ----------
    n_steps
        Of the segment: a multiple of `thermo_every`.
    thermo_every, deviation_every, restart_every
        Steps between rows, between force deviations, and between restart files (these on rows).
    frames
        (n_frames,) steps at which frames are kept, the last one included.
    """

    n_steps: int
    thermo_every: int
    deviation_every: int
    restart_every: int
    frames: NDArray[np.int64]


def steps_of(segment: Segment, dynamics: Dynamics, timestep_fs: float) -> Steps:
    """Return a segment in steps: at least one; rows, deviations, frames and restarts as near as steps allow.

    Unless they have a cadence of their own, frames are rounded to whole rows and the deviation is evaluated on rows:
    every kept frame has its thermo and its deviation.
    """
    per_ps = 1000.0 / timestep_fs
    thermo = max(1, round(dynamics.thermo_every_ps * per_ps))
    n_rows = max(1, round(segment.duration_ps * per_ps / thermo))
    if segment.duration_ps * per_ps < thermo:
        thermo = max(1, round(segment.duration_ps * per_ps))
    n_steps, deviation = n_rows * thermo, thermo
    if dynamics.deviation_every_ps is not None:
        deviation = max(1, round(dynamics.deviation_every_ps * per_ps))
    if dynamics.frame_every_ps is not None:
        frames = np.arange(n_steps, 0, -max(1, round(dynamics.frame_every_ps * per_ps)))[::-1]
    else:
        n_frames = min(segment.n_frames, n_rows)
        frames = thermo * np.unique(np.round(np.linspace(n_rows / n_frames, n_rows, n_frames)).astype(np.int64))
    restart = max(1, round(dynamics.restart_every_ps * per_ps / thermo)) * thermo
    return Steps(n_steps, thermo, deviation, restart, frames)


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
    masses = frame.masses
    v = rng.normal(size=(frame.n_atoms, 3)) / np.sqrt(masses)[:, None]
    v -= (masses[:, None] * v).sum(axis=0) / masses.sum()
    kinetic = 0.5 * (masses[:, None] * v**2).sum() * AMU_A2_PER_PS2_IN_EV
    degrees = max(1, 3 * frame.n_atoms - 3)
    wanted = 0.5 * degrees * BOLTZMANN_EV_PER_K * temperature_K
    return np.asarray(v * np.sqrt(wanted / kinetic)) if kinetic > 0.0 else v


def judged(max_devi_f: FloatArray, window: tuple[float, float] | None) -> tuple[int, float | None, float | None]:
    """Judge a run by the force deviation of its ensemble: the one rule behind every stamp.

    Parameters
    ----------
    max_devi_f
        (n,) eV/Å, one number per evaluation.
    window
        Trust window (f_lo, f_hi), eV/Å; None: the potential has none.

    Returns
    -------
    n_judged, outside_share, above_f_lo_share
        How many were judged, and the shares of them at or above f_hi and f_lo. A deviation that is not finite counts as
        outside where others are finite: the models have lost the atoms. (0, None, None) without a window or an
        ensemble.
    """
    if window is None or not np.isfinite(max_devi_f).any():
        return 0, None, None
    above_f_lo, outside = (float((~(max_devi_f < bound)).mean()) for bound in window)
    return len(max_devi_f), outside, above_f_lo


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
