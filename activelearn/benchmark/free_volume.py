"""Free volume: the share of a cell outside the ions, on a grid.

The ions are spheres with the effective ionic radii of R. D. Shannon, Acta Cryst. A 32 (1976) 751-767, as tabulated in
pymatgen: anions and modifiers in sixfold coordination (Na+ 1.02, O2- 1.40, S2- 1.84 Å), formers in that of their roles
(P5+ 0.17 Å in fourfold). With van der Waals radii no free volume would remain in an ionic glass. A probe of radius p
increases all radii by p: the remaining volume is where its centre can be; p = 0 is the plain void. Neither paper
reports a number or radii: only the trend in x can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from activelearn import seeds
from activelearn.benchmark.property import Context, Findings, Observable, Product, Property
from activelearn.benchmark.replicas import NO_FRAMES, measured
from activelearn.config.glass import Roles
from activelearn.engines.process import Slot
from activelearn.frames import FloatArray
from activelearn.records import Task

#: Largest edge of a voxel, Å.
GRID_A: Final = 0.25
#: Radius of the probe, Å.
PROBE_A: Final = 0.0
#: Number of distances computed at a time.
_AT_A_TIME: Final = 100_000
_ROMAN: Final = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")


def free_share(cell: FloatArray, positions: FloatArray, radii: FloatArray, grid_A: float = GRID_A) -> float:
    """Return the share of a periodic cell of any shape that no sphere covers: of the voxels, those with a free centre.

    Parameters
    ----------
    cell
        (3, 3) Å, rows are lattice vectors.
    positions
        (n_atoms, 3) Å.
    radii
        (n_atoms,) Å, including that of the probe.
    grid_A
        Largest edge of a voxel, Å; voxels are parallel to the cell.

    Returns
    -------
    float
        Between 0 and 1, a pure number.

    Raises
    ------
    ValueError
        A number is not finite.
    """
    if not (np.isfinite(positions).all() and np.isfinite(radii).all()):
        raise ValueError("free volume: a position or radius that is not finite - expected finite numbers")
    n_voxels = np.ceil(np.linalg.norm(cell, axis=1) / grid_A).astype(int)
    voxel = cell / n_voxels[:, None]
    is_free = np.ones(int(n_voxels.prod()), dtype=bool)
    home, inside = np.divmod(np.linalg.solve(voxel.T, positions.T).T, 1.0)  # its voxel, and where in it an atom is
    for radius in np.unique(radii):
        steps = _steps_within(voxel, float(radius))
        members = np.flatnonzero(radii == radius)
        for some in np.array_split(members, 1 + len(members) * len(steps) // _AT_A_TIME):
            away = (steps[None] + 0.5 - inside[some, None]) @ voxel
            is_covered = np.einsum("ask,ask->as", away, away) < radius**2
            # Voxels are taken modulo the cell, which covers all periodic images.
            x, y, z = np.moveaxis((home[some, None].astype(int) + steps[None])[is_covered] % n_voxels, -1, 0)
            is_free[(x * n_voxels[1] + y) * n_voxels[2] + z] = False
    return float(is_free.mean())


def _steps_within(voxel: FloatArray, radius: float) -> NDArray[np.int64]:
    """Return the (n, 3) steps to all voxels whose centre may be within `radius` of an atom somewhere in its voxel."""
    n = np.ceil(radius / seeds.heights(voxel)).astype(int) + 1
    steps = np.stack(np.meshgrid(*(np.arange(-k, k + 1) for k in n), indexing="ij"), axis=-1).reshape(-1, 3)
    corners = np.stack(np.meshgrid(*[[-0.5, 0.5]] * 3), axis=-1).reshape(-1, 3) @ voxel
    near: NDArray[np.int64] = steps[
        np.linalg.norm(steps @ voxel, axis=1) < radius + np.linalg.norm(corners, axis=1).max()
    ]
    return near


def ionic_radii(symbols: Sequence[str], roles: Roles) -> dict[str, float]:
    """Return Shannon's effective ionic radius of every element, Å, as described in the docstring of this module.

    Parameters
    ----------
    symbols
        Of the atoms.
    roles
        They define charge and coordination.

    Raises
    ------
    ValueError
        An element has no role, or no radius is tabulated.
    """
    from pymatgen.core import Species

    charges = {former: 2 * roles.coordination - charge for former, charge in roles.formers.items()}
    charges |= {**dict.fromkeys(roles.anions, -2), **roles.modifiers}
    radii = {}
    for symbol in sorted(set(symbols)):
        number = _ROMAN[roles.coordination] if symbol in roles.formers else "VI"
        try:
            radii[symbol] = float(Species(symbol, charges[symbol]).get_shannon_radius(number, radius_type="ionic"))
        except KeyError:
            raise ValueError(f"no ionic radius of {symbol} with its role in the glass") from None
    return radii


def run(task: Task, asked: bool, context: Context, slot: Slot) -> Product:
    """Average over the analysed frames of a glass."""
    frames = context.path_of(task).analysed_frames
    try:
        radii = ionic_radii(frames.symbols, context.series.roles)
    except ValueError as error:
        return {}, {"ended": str(error)}
    if len(frames) == 0:
        return {}, {"ended": NO_FRAMES}
    grown = np.array([radii[symbol] + PROBE_A for symbol in frames.symbols])
    shares = np.array([free_share(*frame, grown) for frame in zip(frames.cell, frames.positions, strict=True)])
    return {"shares": shares}, {"radii_A": radii, "free_volume": 100.0 * float(shares.mean())}


def results(asked: bool, context: Context, tasks: Sequence[Task]) -> Findings:
    """Return the free volume of every condition."""
    found = Findings()
    for replicas in measured(context, tasks, found):
        radii = ", ".join(f"{element} {radius:.2f}" for element, radius in replicas.metas[0]["radii_A"].items())
        note = f"outside Shannon's ionic radii ({radii} Å), probe {PROBE_A:g} Å, grid {GRID_A:g} Å"
        found.results.append(
            replicas.result("free_volume", "%", [meta["free_volume"] for meta in replicas.metas], note)
        )
    return found


PROPERTY = Property("free_volume", bool, run, results, observables={"free_volume": Observable("%", high=100.0)})
