"""Starting structures as Frames: a system of the campaign as a supercell, scaled and distorted."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from activelearn import seeds
from activelearn.config import Perturb, System
from activelearn.errors import ConfigError
from activelearn.frames import Frames


@lru_cache(maxsize=64)
def crystal(system: System, min_height_A: float) -> Frames:
    """Return the supercell of a system as one frame.

    Raises
    ------
    ConfigError
        The seed is unknown, or a perpendicular height of the supercell is below `min_height_A` (Å).
    """
    if system.sha256 is not None:
        _want_unchanged(system)
    atoms = seeds.load_structure(system.seed, Path.cwd())
    factors = system.supercell or seeds.factors_for_height(atoms.cell.array, min_height_A)
    built = seeds.supercell(atoms, factors)
    lowest = float(seeds.heights(built.cell.array).min())
    if lowest < min_height_A:
        wanted = seeds.factors_for_height(atoms.cell.array, min_height_A)
        raise ConfigError(
            f"system {system.seed} {'x'.join(map(str, factors))}: perpendicular height {lowest:.2f} Å - wanted at "
            f"least {min_height_A:g} Å (initial.min_height_A, else the cutoff) - use supercell: {list(wanted)}"
        )
    frame = Frames.from_ase([built]).without_labels()
    if np.linalg.det(frame.cell[0]) < 0.0:  # LAMMPS wants a right-handed cell; the crystal is the same
        frame = replace(frame, cell=frame.cell[:, [1, 0, 2]])
    return frame


def _want_unchanged(system: System) -> None:
    """Refuse a structure file that is not the one the campaign began with: later walks would start elsewhere."""
    path = Path(system.seed)
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no such file"
    if found != system.sha256:
        raise ConfigError(
            f"system {system.seed}: is not the file that the campaign began with (sha256 {found}) - wanted sha256 "
            f"{system.sha256} - restore it, or run with --accept-changes to start later walks from the new one"
        )


def distorted(frame: Frames, perturb: Perturb, rng: np.random.Generator, *, scale: float) -> Frames:
    """Return a copy of one frame, scaled linearly by `scale` and then randomly distorted."""
    atoms = seeds.scaled(frame.to_ase()[0], scale)
    atoms = seeds.perturbed(atoms, rng, positions_A=perturb.positions_A, cell_fraction=perturb.cell_fraction)
    return Frames.from_ase([atoms]).without_labels()
