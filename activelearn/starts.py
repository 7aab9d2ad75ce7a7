"""Starting structures as Frames: a system of the campaign as a supercell or a packing, scaled and distorted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np

from activelearn import packing, seeds
from activelearn.config import Campaign, Perturb, System, here
from activelearn.errors import ConfigError, StoreError
from activelearn.frames import FloatArray, Frames
from activelearn.records import Prepared
from activelearn.store import Store

#: How many cells and supercells are kept: more than a campaign has systems.
_CACHED: Final = 2048


def crystal(system: System, min_height_A: float) -> Frames:
    """Return the supercell of a seed or a file, as it was published, as one frame.

    Raises
    ------
    ConfigError
        The seed is unknown, or a perpendicular height of the supercell is below `min_height_A` (Å).
    """
    return supercell(system, unit_cell(system), min_height_A)


def n_atoms(campaign: Campaign, system: System) -> int:
    """Return how many atoms the cell of a system has."""
    if system.packed is not None:
        return packing.n_atoms(system.packed)
    return crystal(system, campaign.min_height_A).n_atoms


def unit_cell(system: System) -> Frames:
    """Return the cell of a seed or a file as one frame."""
    if system.seed is None:
        raise ValueError(f"system {system.name} has no cell: a packing is made by the prepare station")
    if system.sha256 is not None:
        _want_unchanged(system)
    return _read(here(system.seed), system.sha256)


@lru_cache(maxsize=_CACHED)
def _read(seed: str, sha256: str | None) -> Frames:  # noqa: ARG001 - the checksum is part of the key
    return Frames.from_ase([seeds.load_structure(seed, Path())]).without_labels()


@lru_cache(maxsize=_CACHED)
def supercell(system: System, cell: Frames, min_height_A: float) -> Frames:
    """Return the repetition of a unit cell that the system asks for, as one frame; cached, as every walk needs it."""
    repeats = factors(system, cell, min_height_A)
    built = seeds.supercell(cell.to_ase()[0], repeats)
    lowest = float(seeds.heights(built.cell.array).min())
    if lowest < min_height_A:
        required = seeds.factors_for_height(cell.cell[0], min_height_A)
        raise ConfigError(
            f"system {system.seed} {'x'.join(map(str, repeats))}: perpendicular height {lowest:.2f} Å - expected at "
            f"least {min_height_A:g} Å (initial.min_height_A, else the cutoff) - use supercell: {list(required)}"
        )
    return right_handed(Frames.from_ase([built]).without_labels())


def factors(system: System, cell: Frames, min_height_A: float) -> tuple[int, int, int]:
    """Return the repetitions along a, b and c of a unit cell that the system asks for."""
    array = cell.cell[0]
    if system.n_atoms is not None:
        return factors_for_atoms(array, cell.n_atoms, system.n_atoms, min_height_A)
    return system.supercell or seeds.factors_for_height(array, min_height_A)


def right_handed(frame: Frames) -> Frames:
    """Return one frame with a right-handed cell, as LAMMPS requires; the structure is the same."""
    if np.linalg.det(frame.cell[0]) < 0.0:
        frame = replace(frame, cell=frame.cell[:, [1, 0, 2]])
    return frame


def is_fit(frame: Frames, min_height_A: float) -> bool:
    """Return whether molecular dynamics may start from one frame of a data set.

    Isolated atoms and dimers are not starts, nor are cells with a perpendicular height below `min_height_A` (Å).
    """
    is_matter = frame.n_atoms > 2 and all(frame.pbc)
    return is_matter and float(seeds.heights(frame.cell[0]).min()) >= min_height_A


def factors_for_atoms(cell: FloatArray, n_cell: int, n_atoms: int, min_height_A: float) -> tuple[int, int, int]:
    """Return the repetitions with at least `n_atoms` atoms and heights: as few more and as cubic as possible.

    Parameters
    ----------
    cell
        (3, 3) lattice vectors as rows, Å.
    n_cell
        Atoms in it.
    n_atoms
        Smallest number of atoms.
    min_height_A
        Smallest perpendicular height, Å.
    """
    heights = seeds.heights(cell)
    least = seeds.factors_for_height(cell, min_height_A)
    most = [max(low, int(np.ceil(2.0 * (n_atoms / n_cell) ** (1 / 3))) + 1) for low in least]

    def cost(factors: tuple[int, ...]) -> float:
        tall = heights * np.array(factors)
        return float(np.log(tall.max() / tall.min()) + np.prod(factors) * n_cell / n_atoms)

    ranges = [range(low, high + 1) for low, high in zip(least, most, strict=True)]
    enough = [f for f in product(*ranges) if np.prod(f) * n_cell >= n_atoms]
    a, b, c = min(enough, key=cost) if enough else least
    return a, b, c


def _want_unchanged(system: System) -> None:
    """Refuse a structure file that is not the one the campaign started with: later walks would start elsewhere."""
    path = Path(here(system.seed or ""))
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no such file"
    if found != system.sha256:
        raise ConfigError(
            f"system {path}: is not the file that the campaign started with (sha256 {found}) - expected sha256 "
            f"{system.sha256} - restore it, or run with --accept-changes to start later walks from the new one"
        )


def distorted(frame: Frames, perturb: Perturb, rng: np.random.Generator, *, scale: float) -> Frames:
    """Return a copy of one frame, scaled linearly by `scale` and then randomly distorted."""
    atoms = seeds.scaled(frame.to_ase()[0], scale)
    atoms = seeds.perturbed(atoms, rng, positions_A=perturb.positions_A, cell_fraction=perturb.cell_fraction)
    return Frames.from_ase([atoms]).without_labels()


# --- what the prepare station made ------------------------------------------------------------------------------------


def wants_preparation(campaign: Campaign, system: System) -> bool:
    """Return whether a system is relaxed or packed before anything starts from it."""
    return system.packed is not None or campaign.initial.relax is not None


def structures(campaign: Campaign, store: Store, system: System) -> Frames:
    """Return what starts from a system: one supercell, or its packings.

    Raises
    ------
    StoreError
        The system needs a preparation that has not been carried out.
    """
    if not wants_preparation(campaign, system):
        return crystal(system, campaign.min_height_A)
    for frames, key in _prepared(store):
        if key == system.key:
            return frames if system.packed is not None else supercell(system, frames, campaign.min_height_A)
    raise StoreError(f"{store.folder}: system {system.name} was never prepared; please report this")


def prepared_keys(store: Store) -> set[str]:
    """Return the keys of the systems that earlier iterations have prepared."""
    return {key for _, key in _prepared(store)}


def prepared_file(store: Store, iteration: int) -> Path:
    """Return the file of the structures that the prepare station of an iteration made."""
    return store.iteration_folder(iteration) / "starts.npz"


def paths_file(store: Store, iteration: int) -> Path:
    """Return the file of the labelled frames of relaxations, one part each; absent if none are kept."""
    return store.iteration_folder(iteration) / "relaxed.npz"


def paths(store: Store, iteration: int) -> list[Frames]:
    """Return the labelled frames of the relaxations of an iteration, one part each; none if the campaign keeps none.

    The record decides, not the file, which another node may not see yet.

    Raises
    ------
    StoreError
        They are missing or damaged.
    """
    done = store.find_result("prepare", iteration, Prepared)
    n = 0 if done is None else sum(system.n_path for system in done.systems)
    return store.frames(paths_file(store, iteration)) if n else []


def _prepared(store: Store) -> Iterator[tuple[Frames, str]]:
    for sealed in sorted(store.folder.glob("iter-*/prepare/result.json"), reverse=True):
        yield from _sealed_structures(store.folder, int(sealed.parent.parent.name[5:]))


@lru_cache(maxsize=64)
def _sealed_structures(folder: Path, iteration: int) -> tuple[tuple[Frames, str], ...]:
    """Return structures and keys of one sealed prepare station; sealed, so read once per process."""
    store = Store(folder)
    systems = store.result("prepare", iteration, Prepared).systems
    parts = store.frames(prepared_file(store, iteration))
    return tuple((part, system.key) for part, system in zip(parts, systems, strict=True))
