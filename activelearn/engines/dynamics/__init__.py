"""Molecular dynamics of one segment with any potential: LAMMPS if possible, else ASE, with the same protocol.

Both integrate Nosé-Hoover chains of three (for the cell Martyna, Tuckerman, Tobias and Klein's), with the damping times
of :class:`activelearn.config.Dynamics`; both write restart files and continue from them after a kill.
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

#: How a completed segment ended.
FINISHED = "finished"
#: Divisor from Å/ps to Å/fs.
FS_PER_PS: Final = 1000.0


@dataclass(frozen=True, eq=False)
class State:
    """State at the start or end of a segment.

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
    """Output of a segment, up to its end or its failure.

    Parameters
    ----------
    time_ps
        (n,) since the start of the segment, every `thermo_every_ps`, including 0.
    temperature_K, potential_energy, pressure_bar, volume
        (n,) K, eV, bar (positive in compression), Å^3.
    deviation_time_ps, max_devi_f
        (n_deviations,) ps since the start, including 0, and force deviation of the ensemble, eV/Å; empty for one
        without an ensemble.
    frames
        The evenly spaced frames of :class:`Steps`, without labels, including the last (not the start); wrapped; origin:
        ``walk`` the segment, ``step``, ``temperature_K`` and ``pressure_bar`` imposed, ``max_devi_f`` (NaN where none
        was evaluated).
    frame_time_ps
        (n_frames,) of the frames.
    velocities
        (n_frames, n_atoms, 3) Å/fs, of the frames; None unless ``dynamics.keep_velocities``.
    end
        Where the next segment starts; None if it failed.
    ended
        "finished", or the reason why not: "non-finite", "lost atoms", "too hot: 8200 K at 3.1 ps" ...
    resumed
        Number of continuations from a restart file.
    started, finished
        Unix times of the engine's work; after a restart, those of the last part.
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
    """A segment in MD steps: its three intervals are independent of each other.

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

    Unless they have their own intervals, frames are rounded to whole rows and the deviation is evaluated on rows:
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
    """Return whether LAMMPS drives a potential; pure ASE calculators are driven by ASE."""
    return potential.ase is None


def timestep_of(potential: Potential, dynamics: Dynamics) -> float:
    """Return the time step of a potential, fs."""
    return potential.timestep_fs or dynamics.timestep_fs


def thermal_velocities(frame: Frames, temperature_K: float, rng: np.random.Generator) -> FloatArray:
    """Return Maxwell-Boltzmann velocities (n_atoms, 3), Å/ps, without drift and at exactly the temperature.

    Both engines start from these, so that a replica starts identically with every potential.
    """
    masses = frame.masses
    v = rng.normal(size=(frame.n_atoms, 3)) / np.sqrt(masses)[:, None]
    v -= (masses[:, None] * v).sum(axis=0) / masses.sum()
    kinetic = 0.5 * (masses[:, None] * v**2).sum() * AMU_A2_PER_PS2_IN_EV
    degrees = max(1, 3 * frame.n_atoms - 3)
    target = 0.5 * degrees * BOLTZMANN_EV_PER_K * temperature_K
    return np.asarray(v * np.sqrt(target / kinetic)) if kinetic > 0.0 else v


def judged(max_devi_f: FloatArray, window: tuple[float, float] | None) -> tuple[int, float | None, float | None]:
    """Evaluate a run by the force deviation of its ensemble: the single rule behind every stamp.

    Parameters
    ----------
    max_devi_f
        (n,) eV/Å, one number per evaluation.
    window
        Trust window (f_lo, f_hi), eV/Å; None: the potential has none.

    Returns
    -------
    n_judged, outside_share, above_f_lo_share
        Number of evaluated deviations, and their shares at or above f_hi and f_lo. A non-finite deviation counts as
        outside if others are finite: the models have lost the atoms. (0, None, None) without a window or an
        ensemble.
    """
    if window is None or not np.isfinite(max_devi_f).any():
        return 0, None, None
    above_f_lo, outside = (float((~(max_devi_f < bound)).mean()) for bound in window)
    return len(max_devi_f), outside, above_f_lo


def run_segment(
    potential: Potential, segment: Segment, start: State, dynamics: Dynamics, folder: Path, slot: Slot
) -> Stretch:
    """Run one segment, or continue it from its last restart file.

    Parameters
    ----------
    potential, segment, dynamics
        The potential, the conditions, and the integration.
    start
        Positions, cell and velocities at its start.
    folder
        Folder of this segment only, kept across kills: it contains restart files, and the output until the end.
    slot
        Where it runs.

    Raises
    ------
    EngineError
        Infrastructure failed; the progress is kept in the folder. A physical failure is reported in ``ended``.
    """
    from activelearn.engines.dynamics import ase, lammps

    run = lammps.run_segment if runs_in_lammps(potential) else ase.run_segment
    return run(potential, segment, start, dynamics, folder, slot)
