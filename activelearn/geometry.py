"""Geometry guards and neighbour counts: what is still inside the exploration region, and what `sel` must hold."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from activelearn.config import Guards
from activelearn.errors import ConfigError
from activelearn.frames import FloatArray, Frames


@lru_cache
def shortest_allowed(guards_json: str, kinds: tuple[str, ...]) -> FloatArray:
    """Return the (n_kinds, n_kinds) matrix of shortest allowed distances, Å.

    Parameters
    ----------
    guards_json
        The guards as JSON (hashable).
    kinds
        Elements, in the order of the matrix.
    """
    from ase.data import atomic_numbers, covalent_radii

    guards = Guards.model_validate_json(guards_json)
    radii = np.array([covalent_radii[atomic_numbers[kind]] for kind in kinds])
    allowed: FloatArray = guards.min_distance_fraction * (radii[:, None] + radii[None, :])
    for pair, distance in guards.min_distances_A.items():
        a, _, b = pair.partition("-")
        if a in kinds and b in kinds:
            i, j = kinds.index(a), kinds.index(b)
            allowed[i, j] = allowed[j, i] = distance
    return allowed


def too_close(frame: Frames, guards: Guards) -> str | None:
    """Return the pair of a one-frame Frames that is closer than the guards allow, such as ``P-S 1.02 Å``, or None."""
    from ase.neighborlist import primitive_neighbor_list

    kinds = tuple(sorted(set(frame.symbols)))
    allowed = shortest_allowed(guards.model_dump_json(), kinds)
    kind = np.array([kinds.index(symbol) for symbol in frame.symbols])
    if allowed.max() <= 0.0:
        return None
    i, j, d = primitive_neighbor_list("ijd", frame.pbc, frame.cell[0], frame.positions[0], float(allowed.max()))
    bad = np.flatnonzero(d < allowed[kind[i], kind[j]])
    if len(bad) == 0:
        return None
    worst = bad[np.argmin(d[bad])]
    pair = "-".join(sorted((frame.symbols[i[worst]], frame.symbols[j[worst]])))
    return f"{pair} {d[worst]:.2f} Å"


def first_outside(frames: Frames, guards: Guards) -> tuple[int, str] | None:
    """Return the first frame outside the guards and why, or None.

    The volume is compared with that of the first frame; angles are those of the cell.
    """
    ratio = frames.volume / frames.volume[0]
    angles = cell_angles(frames.cell)
    low, high = guards.volume_ratio
    for k in range(len(frames)):
        if not low <= ratio[k] <= high:
            return k, f"volume {ratio[k]:.2f} of the start"
        if angles[k].min() < guards.min_angle_deg or angles[k].max() > 180.0 - guards.min_angle_deg:
            return k, f"cell angles {angles[k].round(1).tolist()} deg"
        pair = too_close(frames[k], guards)
        if pair is not None:
            return k, pair
    return None


def cell_angles(cell: FloatArray) -> FloatArray:
    """Return (n_frames, 3) cell angles alpha, beta, gamma in degrees of (n_frames, 3, 3) cells."""
    unit = cell / np.linalg.norm(cell, axis=2, keepdims=True)
    cosines = np.stack([(unit[:, b] * unit[:, c]).sum(axis=1) for b, c in ((1, 2), (0, 2), (0, 1))], axis=1)
    angles: FloatArray = np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))
    return angles


def most_neighbours(frame: Frames, rcut: float, type_map: Sequence[str]) -> NDArray[np.int64]:
    """Return, by element of `type_map`, the most neighbours that any atom has within `rcut` (Å)."""
    from ase.neighborlist import primitive_neighbor_list

    i, j = primitive_neighbor_list("ij", frame.pbc, frame.cell[0], frame.positions[0], rcut)
    kind = np.array([list(type_map).index(symbol) for symbol in frame.symbols])
    counts = np.zeros((frame.n_atoms, len(type_map)), dtype=np.int64)
    np.add.at(counts, (i, kind[j]), 1)
    most: NDArray[np.int64] = counts.max(axis=0)
    return most


def neighbour_capacity(
    structures: Sequence[Frames], *, rcut: float, volume_ratio: float, type_map: Sequence[str]
) -> tuple[int, ...]:
    """Return `sel` for the densest cells that the guards allow.

    Overflow silently drops neighbours, and a warm start needs the same `sel` throughout, so it is fixed once: every
    structure is compressed to `volume_ratio` of its volume, a tenth is added for thermal motion, and the numbers are
    rounded up to multiples of four.

    Raises
    ------
    ConfigError
        A structure has an element that `type_map` has not.
    """
    most = np.zeros(len(type_map))
    for frame in structures:
        unknown = sorted(set(frame.symbols) - set(type_map))
        if unknown:
            raise ConfigError(
                f"type_map: lacks {', '.join(unknown)} of {frame.formula} - wanted all elements - add them"
            )
        scale = min(1.0, volume_ratio) ** (1.0 / 3.0)
        squeezed = Frames(frame.symbols, frame.cell[:1] * scale, frame.positions[:1] * scale, frame.pbc)
        most = np.maximum(most, most_neighbours(squeezed, rcut, type_map))
    return tuple(int(4 * np.ceil(1.1 * max(n, 1) / 4)) for n in most)
