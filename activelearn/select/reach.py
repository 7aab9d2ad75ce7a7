"""How far a walk came: whether its atoms moved as expected at the imposed temperature, or stood still.

A walk that goes nowhere is accurate throughout, because the ensemble sees its own start again and again: such a pass
would be called quiet although nothing was explored. Three figures show it, the latter two over the second half of the
frames:

* the time that was walked;
* the root-mean-square displacement from the start, compared with the distance that free atoms of that temperature
  cover in :data:`FLIGHT_FS`. Both are weighted by mass, so that heavy and light atoms count alike; drift and the strain
  of the cell are removed. Their ratio hardly depends on temperature: it is how long atoms fly before they turn back;
* the temperature compared with the imposed one. NVE from a crystal at rest keeps half of it, by equipartition.

Measured in LAMMPS (displacement / flight; temperature / imposed): Cu, W and Si at 1 to 1300 K, NVT, NPT, NVE, deformed,
half frozen 1.5 to 44; 0.39 to 2.2. In reference MD of Na3PS4 by SevenNet-0 at 100 to 900 K 3.6 to 5.9. Diamond, the
stiffest of all, in NVE 0.38; 0.50. Cu with forces and velocities set to zero, without an integrator or under nve/limit
0 to 0.045; under a viscous drag 1.3; 0.0003. A ramp from 10 to 2000 K with a thermostat of 100 ps 0.034 of the imposed
temperature, of 0.1 ps (in 20 ps) 0.98. The distortion of a start counts as heat: 0.05 Å are 75 K in copper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from activelearn.config import Condition, Stage
from activelearn.config.bounds import of
from activelearn.frames import FloatArray, Frames
from activelearn.records import Reach
from activelearn.units import AMU_A2_PER_PS2_IN_EV, BOLTZMANN_EV_PER_K

#: The displacement of a walk is compared with that of free flight in this time, fs.
FLIGHT_FS: Final = 10.0
#: A walk whose displacement is a smaller share of that flight went nowhere.
LEAST_FLIGHT: Final = 0.075
#: A walk with less than this share of the imposed temperature went nowhere.
LEAST_HEAT: Final = 0.1
#: A walk planned shorter than this, a fraction of a vibration, goes nowhere, fs.
SHORTEST_WALK_FS: Final = 20.0


def measure(frames: Frames, temperature_K: FloatArray, stage: Stage) -> Reach | None:
    """Return how far a walk came; None where it cannot be known.

    That is where there is one atom, where the walk broke off (or left the region) before :data:`SHORTEST_WALK_FS`, or
    where a figure is not finite (a temperature of NaN).

    Parameters
    ----------
    frames
        The n whole frames of the walk, wrapped, step 0 first; ``temperature_K`` of their origin is the imposed one.
    temperature_K
        (n,) measured temperature, K.
    stage
        Of the walk.
    """
    n = len(frames)
    elapsed_fs = float(frames.origin["step"][-1]) * stage.timestep_fs if n else 0.0
    if n < 2 or frames.n_atoms < 2 or (n < stage.n_frames and elapsed_fs < SHORTEST_WALK_FS):
        return None
    imposed_K = frames.origin["temperature_K"]
    late = slice(n // 2, None)
    figures = {
        "walked_fs": elapsed_fs,
        "displacement": np.sqrt((_displacement(frames)[late] ** 2).mean()),
        "flight": _flight(frames, float(imposed_K[0])),
        "temperature_K": temperature_K[late].mean(),
        "imposed_K": imposed_K[late].mean(),
    }
    if not np.isfinite(list(figures.values())).all():
        return None
    return Reach(**{name: _rounded(value) for name, value in figures.items()})


def _rounded(value: float) -> float:
    """Return a figure to be sealed and read by people: six digits."""
    return float(f"{value:.6g}")


def _displacement(frames: Frames) -> FloatArray:
    """Return the (n,) mass-weighted rms displacement from the first frame, Å; without drift and strain of the cell."""
    fractional = frames.positions @ np.linalg.inv(frames.cell)
    steps = np.diff(fractional, axis=0)
    moved = np.concatenate([np.zeros_like(fractional[:1]), np.cumsum(steps - np.rint(steps), axis=0)]) @ frames.cell
    masses = frames.masses
    moved = moved - np.average(moved, axis=1, weights=masses)[:, None]
    squares: FloatArray = np.average((moved**2).sum(axis=2), axis=1, weights=masses)
    return np.sqrt(squares)


def _flight(frames: Frames, temperature_K: float) -> float:
    """Return the mass-weighted rms distance of free flight in :data:`FLIGHT_FS`, Å."""
    mass = frames.masses.sum() * AMU_A2_PER_PS2_IN_EV
    speed = np.sqrt(3.0 * (frames.n_atoms - 1) * BOLTZMANN_EV_PER_K * temperature_K / mass)  # Å/ps
    return float(speed) * FLIGHT_FS / 1000.0


def went_nowhere(reach: Reach) -> bool:
    """Return whether a walk was too short, stood still, or stayed far colder than imposed."""
    return _is_short(reach) or _stood_still(reach) or _stayed_cold(reach)


def _is_short(reach: Reach) -> bool:
    return reach.walked_fs < SHORTEST_WALK_FS


def _stood_still(reach: Reach) -> bool:
    return reach.displacement < LEAST_FLIGHT * reach.flight


def _stayed_cold(reach: Reach) -> bool:
    return reach.temperature_K < LEAST_HEAT * reach.imposed_K


def unexplored(
    walks: Mapping[tuple[str, Condition], Sequence[Reach | None]], stages: Sequence[Stage]
) -> dict[str, str]:
    """Return the stages with a cell of the matrix most of whose walks went nowhere, each with a clause that says why.

    Parameters
    ----------
    walks
        Of every cell (stage, condition), how far its walks came; None where that is not known: such a walk is not
        counted.
    stages
        Of the campaign.
    """
    known = {stage.name: stage for stage in stages}
    found: dict[str, str] = {}
    for (name, condition), reaches in walks.items():
        judged = [reach for reach in reaches if reach is not None]
        lost = [reach for reach in judged if went_nowhere(reach)]
        if 2 * len(lost) > len(judged) and name not in found:
            middle = sorted(lost, key=lambda reach: reach.displacement)[len(lost) // 2]
            found[name] = (
                f"stage {name} went nowhere at {condition} in {len(lost)} of {len(judged)} walks: {_figures(middle)}; "
                f"likely cause: {_cause(middle, known[name])}"
            )
    return found


def _figures(reach: Reach) -> str:
    said = []
    if _is_short(reach):
        said.append(f"{reach.walked_fs:g} fs walked, where a vibration takes about 100 fs")
    if _is_short(reach) or _stood_still(reach):
        said.append(
            f"rms displacement {reach.displacement:.2g} Å, where free atoms cover {reach.flight:.2g} Å in "
            f"{FLIGHT_FS:g} fs"
        )
    if _stayed_cold(reach):
        said.append(f"reached {reach.temperature_K:.3g} K of {reach.imposed_K:.4g} K")
    return "; ".join(said)


def _cause(reach: Reach, stage: Stage) -> str:
    if _is_short(reach):
        return times(stage)
    causes = []
    if stage.lammps:
        causes.append(
            "its own `lammps` lines hold, slow or cool the atoms (setforce, velocity, viscous, no integrator)"
        )
    if _stayed_cold(reach) and not _stood_still(reach) and stage.ensemble != "custom":
        causes.append(f"temperature_damping_ps = {stage.temperature_damping_ps:g} for {reach.walked_fs / 1000.0:g} ps")
    return " or ".join(causes) or times(stage)


def walk_fs(stage: Stage) -> float:
    """Return the time from the first to the last planned frame of a walk, fs."""
    return _rounded((stage.n_frames - 1) * stage.every * stage.timestep_fs)


def times(stage: Stage) -> str:
    """Return the time of a walk in words, with a warning if the time step is very small."""
    return f"n_steps = {stage.n_steps} of timestep_fs = {of('time step').said(stage.timestep_fs)}"
