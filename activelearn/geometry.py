"""Geometry guards, neighbour counts, a lattice: what is inside the exploration region, and what `sel` must hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn.config import Guards, Room, Shell, Train, trainer_of
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


def first_too_close(frames: Frames, guards: Guards) -> tuple[int, str] | None:
    """Return the first frame with a pair that is closer than the guards allow, and its closest pair, or None.

    The pair is in words, such as ``P-S 1.02 Å``.
    """
    from matscipy.neighbours import neighbour_list

    kinds = tuple(sorted(set(frames.symbols)))
    allowed = shortest_allowed(guards.model_dump_json(), kinds)
    kind = np.array([kinds.index(symbol) for symbol in frames.symbols])
    cutoff = float(allowed.max())
    for k in range(len(frames) if cutoff > 0.0 else 0):
        i, j, d = neighbour_list(
            "ijd", cell=frames.cell[k], positions=frames.positions[k], pbc=frames.pbc, cutoff=cutoff
        )
        bad = np.flatnonzero(d < allowed[kind[i], kind[j]])
        if len(bad):
            worst = bad[np.argmin(d[bad])]
            pair = "-".join(sorted((frames.symbols[i[worst]], frames.symbols[j[worst]])))
            return k, f"{pair} {d[worst]:.2f} Å"
    return None


def first_outside(frames: Frames, guards: Guards) -> tuple[int, str] | None:
    """Return the first frame outside the guards and why, or None.

    The volume is compared with that of the first frame; angles are those of the cell.
    """
    outside = first_outside_box(frames.cell, guards)
    return first_too_close(frames if outside is None else frames[: outside[0]], guards) or outside


def cell_angles(cell: FloatArray) -> FloatArray:
    """Return (n_frames, 3) cell angles alpha, beta, gamma, degrees, of (n_frames, 3, 3) cells, Å."""
    unit = cell / np.linalg.norm(cell, axis=2, keepdims=True)
    cosines = np.stack([(unit[:, b] * unit[:, c]).sum(axis=1) for b, c in ((1, 2), (0, 2), (0, 1))], axis=1)
    return np.asarray(np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0))))


#: In place of the elements where all together are counted.
ANY: Final = ("all elements",)


def _kinds(frame: Frames, type_map: Sequence[str]) -> NDArray[np.int64]:
    """Return (n_atoms,) the place of each atom's element in `type_map`."""
    if tuple(type_map) == ANY:
        return np.zeros(frame.n_atoms, dtype=np.int64)
    return np.array([list(type_map).index(symbol) for symbol in frame.symbols], dtype=np.int64)


def neighbour_counts(frame: Frames, rcut: float, type_map: Sequence[str]) -> NDArray[np.int64]:
    """Return (n_atoms, n_elements) how many neighbours of each element of `type_map` an atom has within `rcut` (Å).

    With :data:`ANY` in place of elements, (n_atoms, 1) of all together.
    """
    from matscipy.neighbours import neighbour_list

    i, j = neighbour_list("ij", cell=frame.cell[0], positions=frame.positions[0], pbc=frame.pbc, cutoff=rcut)
    kind, n_kinds = _kinds(frame, type_map), len(type_map)
    counts: NDArray[np.int64] = np.bincount(i * n_kinds + kind[j], minlength=frame.n_atoms * n_kinds)
    return counts.reshape(frame.n_atoms, n_kinds)


def most_neighbours(frame: Frames, rcut: float, type_map: Sequence[str]) -> NDArray[np.int64]:
    """Return (n_elements,), in the order of `type_map`, the most neighbours that any atom has within `rcut` (Å)."""
    return np.asarray(neighbour_counts(frame, rcut, type_map).max(axis=0), dtype=np.int64)


#: The reason by which such a frame is refused, in every record.
NO_ROOM: Final = "more neighbours than sel holds"


def without_room(most: NDArray[Any], type_map: Sequence[str], sel: Sequence[int]) -> str:
    """Return the elements with more neighbours than `sel` holds: ``S 61 of 56, O 5 of 4``; empty if all fit.

    Parameters
    ----------
    most
        (n_elements,) largest number of neighbours of each element, not necessarily whole.
    type_map, sel
        (n_elements,) the elements, and how many neighbours of each there is room for.
    """
    needed = np.ceil(np.asarray(most) - 1.0e-9).astype(np.int64)
    each = zip(type_map, needed.tolist(), sel, strict=True)
    return ", ".join(f"{kind} {n} of {room}" for kind, n, room in each if n > room)


#: How much farther than the cutoff :func:`first_overflow` looks, Å.
_SKIN: Final = 3.0


def first_overflow(
    frames: Frames, rcut: float, type_map: Sequence[str], sel: Sequence[int]
) -> tuple[int, NDArray[np.int64]] | None:
    """Return the first frame of a walk in which an atom has more neighbours than `sel` holds, and the most by element.

    Every frame is covered, but few are examined: each examination gives the distance of the first neighbour for which
    there is no room, and until the atoms have moved far enough for it to come within the cutoff, no frame can overflow.

    Parameters
    ----------
    frames
        Consecutive frames.
    rcut
        Cutoff, Å.
    type_map, sel
        (n_elements,) the elements, and how many neighbours of each there is room for.

    Returns
    -------
    tuple or None
        The index of the frame, and (n_elements,) the most neighbours of each element in it.
    """
    k = 0
    while k < len(frames):
        reach = _first_without_room(frames[k], rcut + _SKIN, type_map, sel)
        if reach <= rcut:
            return k, most_neighbours(frames[k], rcut, type_map)
        unsafe = np.flatnonzero(_farthest_before(frames[k:], rcut) >= reach)
        k += max(1, int(unsafe[0])) if len(unsafe) else len(frames)
    return None


def _first_without_room(frame: Frames, cutoff: float, type_map: Sequence[str], sel: Sequence[int]) -> float:
    """Return the smallest distance (Å) of a neighbour that `sel` has no room for, at most `cutoff`."""
    from matscipy.neighbours import neighbour_list

    i, j, d = neighbour_list("ijd", cell=frame.cell[0], positions=frame.positions[0], pbc=frame.pbc, cutoff=cutoff)
    kind, n_kinds = _kinds(frame, type_map), len(type_map)
    group = i * n_kinds + kind[j]
    n_of_group = np.bincount(group, minlength=frame.n_atoms * n_kinds)
    room = np.tile(np.array(sel), frame.n_atoms)
    full = np.flatnonzero(n_of_group > room)
    if len(full) == 0:
        return cutoff
    sorted_d = d[np.lexsort((d, group))]
    begin = np.cumsum(n_of_group) - n_of_group
    return float(sorted_d[begin[full] + room[full]].min())


def _farthest_before(frames: Frames, rcut: float) -> FloatArray:
    """Return (n_frames,) the largest distance in frame 0 of two atoms that are within `rcut` in each frame, Å.

    With fractions s and cells h (rows), a distance vector v of frame t was v h_t^-1 h_0 less how far the two atoms have
    moved against the lattice, in the metric of h_0.
    """
    fractions = frames.fractional()
    moved = fractions - fractions[0]
    moved -= np.round(moved) * np.array(frames.pbc)  # a dump wraps atoms into the cell
    lengths = np.linalg.norm(moved @ frames.cell[0], axis=2)
    two_farthest = np.partition(lengths, -2, axis=1)[:, -2:] if lengths.shape[1] > 1 else 2.0 * lengths
    back = np.linalg.norm(np.linalg.solve(frames.cell, frames.cell[:1]), ord=2, axis=(1, 2))
    farthest: FloatArray = back * rcut + two_farthest.sum(axis=1)
    return farthest


def densities_of(density: Mapping[str, float], type_map: Sequence[str]) -> FloatArray:
    """Return (n_elements,) number densities (1/Å^3) in the order of `type_map`; with :data:`ANY`, of all together."""
    if tuple(type_map) == ANY:
        return np.array([sum(density.values())])
    return np.array([density.get(kind, 0.0) for kind in type_map])


def most_when_densest(
    structures: Sequence[Frames],
    *,
    rcut: float,
    volume_ratio: float,
    type_map: Sequence[str],
    densities: Sequence[Mapping[str, float]] = (),
) -> tuple[FloatArray, float]:
    """Return the most neighbours within `rcut` (Å) in cells compressed to `volume_ratio` of their volume.

    Of amorphous packings, which do not exist yet, only the number densities by element (1/Å^3) are known: three
    standard deviations of a random arrangement are added to the mean.

    Returns
    -------
    most, in_all
        (n_elements,) of each element, and of all elements together: what an element would have if it took the place of
        every atom.

    Raises
    ------
    ConfigError
        A structure has an element that is not in `type_map`.
    """
    most, in_all = np.zeros(len(type_map)), 0.0
    for frame in structures:
        unknown = sorted(set(frame.symbols) - set(type_map))
        if unknown and tuple(type_map) != ANY:
            raise ConfigError(
                f"type_map: lacks {', '.join(unknown)} of {frame.formula} - expected all elements - add them"
            )
        here, here_in_all = _most_when_squeezed(frame, rcut, min(1.0, volume_ratio), tuple(type_map))
        most, in_all = np.maximum(most, here), max(in_all, here_in_all)
    sphere = 4.0 / 3.0 * np.pi * rcut**3 / min(1.0, volume_ratio)
    for density in densities:
        mean = sphere * densities_of(density, type_map)
        most = np.maximum(most, mean + 3.0 * np.sqrt(mean))
        in_all = max(in_all, float(mean.sum() + 3.0 * np.sqrt(mean.sum())))
    return most, in_all


@lru_cache(maxsize=4096)
def _most_when_squeezed(
    frame: Frames, rcut: float, volume_ratio: float, type_map: tuple[str, ...]
) -> tuple[NDArray[np.int64], float]:
    """Return the most neighbours of one structure by element and in all; counted once and cached."""
    scale = volume_ratio ** (1.0 / 3.0)
    squeezed = Frames(frame.symbols, frame.cell[:1] * scale, frame.positions[:1] * scale, frame.pbc)
    counts = neighbour_counts(squeezed, rcut, type_map)
    return counts.max(axis=0), float(counts.sum(axis=1).max())


#: What thermal motion adds to the neighbours of a crystal.
THERMAL: Final = 1.1


def neighbour_capacity(
    structures: Sequence[Frames],
    *,
    rcut: float,
    volume_ratio: float,
    type_map: Sequence[str],
    densities: Sequence[Mapping[str, float]] = (),
) -> tuple[int, ...]:
    """Return `sel` for the densest cells that the guards allow.

    Overflow silently drops neighbours, and a warm start needs the same `sel` throughout, so it is fixed once: every
    structure is compressed to `volume_ratio` of its volume (:func:`most_when_densest`), a tenth is added for thermal
    motion, and the numbers are rounded up to multiples of four.

    An element that none of the structures and packings has may come with a system that is added later. It gets the room
    it would need if it took the place of every atom where they are packed most densely: enough for any compound of it
    with no more atoms in a volume than the first systems have, and no promise for a denser one (an oxide after
    sulfides, a close-packed metal after a salt). Elements that are there get what they need, and no more.

    Raises
    ------
    ConfigError
        A structure has an element that is not in `type_map`.
    """
    most, in_all = most_when_densest(
        structures, rcut=rcut, volume_ratio=volume_ratio, type_map=type_map, densities=densities
    )
    present = {symbol for frame in structures for symbol in frame.symbols}
    present |= {kind for density in densities for kind, n in density.items() if n > 0.0}
    present |= {*ANY}
    most = np.where([kind in present for kind in type_map], most, in_all)
    return tuple(int(4 * np.ceil(THERMAL * max(n, 1) / 4)) for n in most)


@dataclass(frozen=True)
class Capacity:
    """How many neighbours within a cutoff a model holds; beyond that it silently drops the farthest.

    Parameters
    ----------
    rcut
        Cutoff, Å.
    kinds
        Elements, or :data:`ANY`.
    sel
        (n_kinds,) most neighbours.
    """

    rcut: float
    kinds: tuple[str, ...]
    sel: tuple[int, ...]

    def holds(self, frame: Frames, *, within: float = 1.0) -> bool:
        """Return whether one frame has no more neighbours, within this share of the cutoff."""
        return not bool((most_neighbours(frame, within * self.rcut, self.kinds) > np.array(self.sel)).any())

    def lacks(self, most: NDArray[Any]) -> str:
        """Return of what there are more than fit, of `most` (n_kinds,) neighbours, counts; see :func:`without_room`."""
        return without_room(most, self.kinds, self.sel)

    def first_overflow(self, frames: Frames) -> tuple[int, str] | None:
        """Return the first frame of a walk with more neighbours, and what it has; see :func:`first_overflow`."""
        full = first_overflow(frames, self.rcut, self.kinds, self.sel)
        if full is None:
            return None
        return full[0], f"{full[1].tolist()} neighbours within the cutoff, sel holds {list(self.sel)}"


def kinds_of(shell: Shell, type_map: Sequence[str]) -> tuple[str, ...]:
    """Return what the neighbours of a shell are counted by."""
    return tuple(type_map) if shell.counts_elements else ANY


def capacities(train: Train, type_map: Sequence[str], sel: Room) -> tuple[Capacity, ...]:
    """Return what the models of a campaign hold, by the `sel` that it has fixed; none hold any number."""
    shells = trainer_of(train).shells(train) if sel else ()
    return tuple(Capacity(shell.rcut, kinds_of(shell, type_map), most) for shell, most in zip(shells, sel, strict=True))


#: The entry (row, column) of the displacement gradient that a shear drives.
_SHEARS: Final = {"shear-xy": (0, 1), "shear-xz": (0, 2), "shear-yz": (1, 2)}


def deformation(mode: str, strain: float) -> FloatArray:
    """Return F (3, 3), a pure number, of a homogeneous deformation; lattice vectors as rows become ``cell @ F.T``.

    Parameters
    ----------
    mode
        ``isotropic``, ``uniaxial-x`` (y, z) or ``shear-xy`` (xz, yz).
    strain
        Linear: 0.5 is a length x 1.5 (isotropic: all three); in shear the tilt over the height, so that every vector
        moves by strain times its height along the first axis of the mode.
    """
    gradient = np.zeros((3, 3))
    if mode == "isotropic":
        np.fill_diagonal(gradient, strain)
    elif mode.startswith("uniaxial-"):
        axis = "xyz".index(mode[-1])
        gradient[axis, axis] = strain
    else:
        gradient[_SHEARS[mode]] = strain
    return np.eye(3) + gradient


def deformed(cell: FloatArray, mode: str, strain: float, progress: FloatArray) -> FloatArray:
    """Return the cells (n, 3, 3) of a deformation that is linear in time, at `progress` (n,) from 0 to 1, Å."""
    gradient = deformation(mode, strain) - np.eye(3)
    driven: FloatArray = cell @ (np.eye(3) + progress[:, None, None] * gradient).transpose(0, 2, 1)
    return driven


def first_outside_box(cell: FloatArray, guards: Guards) -> tuple[int, str] | None:
    """Return the first of (n, 3, 3) cells, Å, that is past the volume or the angle guards, and why, or None.

    Volumes are judged by their ratio to that of the first cell, angles in degrees.
    """
    volume = np.abs(np.linalg.det(cell))
    ratio = volume / volume[0]
    angles = cell_angles(cell)
    low, high = guards.volume_ratio
    is_sheared = (angles.min(axis=1) < guards.min_angle_deg) | (angles.max(axis=1) > 180.0 - guards.min_angle_deg)
    bad = np.flatnonzero((ratio < low) | (ratio > high) | is_sheared)
    if len(bad) == 0:
        return None
    k = int(bad[0])
    if not low <= ratio[k] <= high:
        return k, f"volume {ratio[k]:.2f} of the start"
    return k, f"cell angles {angles[k].round(1).tolist()} deg"


def lattice(elements: Collection[str], density: float) -> Frames:
    """Return elements in turn on a simple cubic lattice of at least eight sites, at a number density (1/Å3)."""
    n = 2
    while n**3 < len(elements):
        n += 1
    sites = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float64)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    edge = float(np.cbrt(1.0 / density))
    kinds = [sorted(elements)[k % len(elements)] for k in range(n**3)]
    return Frames(tuple(kinds), n * edge * np.eye(3)[None], (sites * edge)[None])
