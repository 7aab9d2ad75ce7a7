"""Amorphous cells: formula units in exact stoichiometry, packed by Packmol into a cube of exact density.

A unit with a geometry of its own (a file of the user's, or one of ``params/units/``) is packed as a rigid molecule,
any other as single atoms: P2S5 goes in as S2P-S-PS2, Na2S as two Na and one S. Such a cell is a start, not a glass: it
needs to be relaxed and melted.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from activelearn.config import Composition, Glass, Packed, here, shipped
from activelearn.engines import packmol
from activelearn.engines.packmol import Piece
from activelearn.engines.process import Slot
from activelearn.errors import ConfigError, EngineError
from activelearn.frames import FloatArray, Frames, formula_of, masses_of
from activelearn.units import AMU_PER_A3_IN_G_PER_CM3

if TYPE_CHECKING:
    from ase import Atoms

#: Relative amounts are fractions with denominators up to this, apart from the rounding of a sum of floats.
LARGEST_DENOMINATOR: Final = 1000
AMOUNT_TOLERANCE: Final = 1.0e-9
#: How far the nearest stoichiometric number of atoms may be from the one aimed at.
SIZE_TOLERANCE: Final = 0.25
#: Random close packing of equal spheres, as a share of the volume: the densest disordered packing.
FULL: Final = 0.64
#: A packing is accepted if no two units are closer than this times the tolerance.
DISTANCE_SLACK: Final = 0.9


# --- how many ---------------------------------------------------------------------------------------------------------


def solve(units: Mapping[str, float], n_atoms: int) -> dict[str, int]:
    """Return how many of each unit make the cell of exact stoichiometry whose size is nearest to `n_atoms`.

    Parameters
    ----------
    units
        Relative amounts by formula: integers, or fractions with a denominator up to 1000.
    n_atoms
        Target number of atoms.

    Raises
    ------
    ConfigError
        An amount is no such fraction, or the nearest size differs by more than 25 %; the possible ones are listed.
    """
    counts = _smallest(units)
    size = atoms_of(counts).total()
    multiple = nearest_size(n_atoms, size) // size
    if not is_near(multiple * size, n_atoms):
        below = max(1, n_atoms // size)
        possible = ", ".join(str(k * size) for k in range(below, below + 3))
        raise ConfigError(
            f"packing {_mixture(units)}: n_atoms = {n_atoms}: no exact stoichiometry within {SIZE_TOLERANCE:.0%} - "
            f"expected one of {possible} ... (multiples of {size}) - take one of them, or rounder amounts"
        )
    return {formula: n * multiple for formula, n in counts.items()}


def smallest_size(units: Mapping[str, float]) -> int:
    """Return the number of atoms of the smallest cell of exact stoichiometry; every other one has a multiple of it."""
    return atoms_of(_smallest(units)).total()


def of_glass(glass: Glass, composition: Composition) -> Packed:
    """Return what is packed for a glass: the cell of exact stoichiometry nearest to the requested size.

    However far that is: the compositions of a series have different cells, of 16 and of 800 atoms, say.
    """
    packed = glass.packed(composition)
    if packed.n_units is not None:
        return packed.model_copy(update={"n_units": nearest_size(packed.n_units, _amounts(packed.units)[1])})
    assert packed.n_atoms is not None
    return packed.model_copy(update={"n_atoms": nearest_size(packed.n_atoms, smallest_size(packed.units))})


def nearest_size(n: int, smallest: int) -> int:
    """Return the multiple of the smallest size (in atoms or units) that is nearest to `n`; of two the smaller."""
    below = max(1, n // smallest)
    return smallest * min((below, below + 1), key=lambda k: abs(k * smallest - n))


def is_near(n_atoms: int, asked: int) -> bool:
    """Return whether a cell is close enough to the requested size."""
    return abs(n_atoms - asked) <= SIZE_TOLERANCE * asked


def _smallest(units: Mapping[str, float]) -> dict[str, int]:
    """Return how many of each unit make the smallest cell of exact stoichiometry."""
    amounts, whole = _amounts(units)
    shared = math.gcd(*(int(amount * whole) for amount in amounts.values()))
    return {formula: int(amount * whole) // shared for formula, amount in amounts.items()}


def counts_of(packed: Packed) -> dict[str, int]:
    """Return how many of each unit are packed.

    Raises
    ------
    ConfigError
        There is no whole number of each; see :func:`solve`.
    """
    if packed.n_atoms is not None:
        return solve(packed.units, packed.n_atoms)
    assert packed.n_units is not None
    amounts, whole = _amounts(packed.units)
    if packed.n_units % whole:
        raise ConfigError(
            f"packing {_mixture(packed.units)}: n_units = {packed.n_units}: would cut units into parts - expected a "
            f"multiple of {whole} - take one, or rounder amounts"
        )
    return {formula: int(amount * packed.n_units) for formula, amount in amounts.items()}


def _amounts(units: Mapping[str, float]) -> tuple[dict[str, Fraction], int]:
    """Return the amounts as fractions, and the smallest number that makes them all whole."""
    amounts = {}
    for formula, amount in units.items():
        found = Fraction(amount).limit_denominator(LARGEST_DENOMINATOR)
        if abs(float(found) - amount) > AMOUNT_TOLERANCE * amount:
            raise ConfigError(
                f"packing: units.{formula}: got {amount:g} - expected an integer or a fraction with a denominator up "
                f"to {LARGEST_DENOMINATOR}, such as 0.85 - multiply all amounts until they are integers"
            )
        amounts[formula] = found
    return amounts, math.lcm(*(amount.denominator for amount in amounts.values()))


def _mixture(units: Mapping[str, float]) -> str:
    return " + ".join(f"{amount:g} {formula}" for formula, amount in units.items())


def _composition(formula: str) -> Counter[str]:
    """Return the atoms of a formula unit by element."""
    from ase.data import atomic_numbers
    from ase.formula import Formula

    found = Counter(Formula(formula).count())
    unknown = sorted(element for element in found if not atomic_numbers.get(element))  # ASE's X is number 0
    if unknown:
        raise ConfigError(f"packing: units.{formula}: no element {', '.join(unknown)} - expected a formula - fix it")
    return found


def atoms_of(counts: Mapping[str, int]) -> Counter[str]:
    """Return the atoms of the given numbers of formula units, by element."""
    atoms: Counter[str] = Counter()
    for formula, n in counts.items():
        atoms.update({element: n * m for element, m in _composition(formula).items()})
    return atoms


def elements_of(units: Iterable[str]) -> set[str]:
    """Return the elements of formula units."""
    return set(atoms_of(dict.fromkeys(units, 1)))


def box_of(packed: Packed) -> float:
    """Return the edge of the cube, Å, that gives exactly the density."""
    atoms = atoms_of(counts_of(packed))
    mass = sum(each * n for each, n in zip(masses_of(atoms).tolist(), atoms.values(), strict=True))
    return float(np.cbrt(mass * AMU_PER_A3_IN_G_PER_CM3 / packed.density_g_cm3))


def n_atoms(packed: Packed) -> int:
    """Return how many atoms a packing has."""
    return atoms_of(counts_of(packed)).total()


def number_densities(packed: Packed) -> dict[str, float]:
    """Return the number density by element, 1/Å^3."""
    volume = box_of(packed) ** 3
    return {element: n / volume for element, n in sorted(atoms_of(counts_of(packed)).items())}


def describe(packed: Packed) -> str:
    """Return one line such as ``Na48P16S64 (128 atoms, 16 x [1.5 Na2S + 0.5 P2S5], 2.00 g/cm3, box 14.5 Å)``.

    Raises
    ------
    ConfigError
        It cannot be packed: no such stoichiometry, a wrong geometry, or no room.
    """
    counts = counts_of(packed)
    box = box_of(packed)
    _want_room(packed, _pieces(packed, counts), box)
    atoms = atoms_of(counts)
    amounts, _ = _amounts(packed.units)
    first, n = next(iter(counts.items()))
    times = n / amounts[first]
    return (
        f"{formula_of(atoms)} ({atoms.total()} atoms, {float(times):g} x [{_mixture(packed.units)}], "
        f"{packed.density_g_cm3:.2f} g/cm3, box {box:.1f} Å)"
    )


# --- what -------------------------------------------------------------------------------------------------------------


def molecule(formula: str, packed: Packed) -> Atoms | None:
    """Return the geometry of a unit, or None if it is packed as single atoms.

    Raises
    ------
    ConfigError
        The file cannot be read, has other atoms than the formula, or is not the one the campaign started with.
    """
    own = packed.geometry.get(formula)
    path = Path(here(own)) if own is not None else shipped("params") / "units" / f"{formula}.xyz"
    if own is None and not path.is_file():
        return None
    from ase import Atoms
    from ase.io import read

    where = f"packing: geometry.{formula}: {path}"
    try:
        content = path.read_bytes()
        found = read(path, format="xyz", index=-1, do_not_split_by_at_sign=True)
    except Exception as error:
        raise ConfigError(
            f"{where}: cannot be read ({type(error).__name__}: {error}) - expected an xyz file - fix it"
        ) from error
    assert isinstance(found, Atoms)
    expected, sha256 = _composition(formula), packed.sha256.get(formula)
    if Counter(found.get_chemical_symbols()) != expected:
        raise ConfigError(
            f"{where}: holds {found.get_chemical_formula()} - expected {formula} - fix the file or the key"
        )
    if sha256 is not None and sha256 != hashlib.sha256(content).hexdigest():
        raise ConfigError(
            f"{where}: is not the file that the campaign started with - expected sha256 {sha256} - restore it"
        )
    return found


def _pieces(packed: Packed, counts: Mapping[str, int]) -> list[Piece]:
    """Return single atoms by element, then molecules in the order of the units."""
    ions: Counter[str] = Counter()
    molecules = []
    for formula, n in counts.items():
        found = molecule(formula, packed)
        if found is None:
            ions.update(atoms_of({formula: n}))
        else:
            molecules.append(Piece(tuple(found.get_chemical_symbols()), found.get_positions(), n))
    return [Piece((element,), np.zeros((1, 3)), n) for element, n in sorted(ions.items())] + molecules


def _want_room(packed: Packed, pieces: list[Piece], box: float) -> None:
    """Refuse a box in which no packing exists, before Packmol searches for one in vain."""
    filled = sum(piece.count * _covered(piece.positions, packed.tolerance_A / 2.0) for piece in pieces) / box**3
    if filled > FULL:
        raise ConfigError(
            f"packing {_mixture(packed.units)}: {packed.density_g_cm3:g} g/cm3 with all units {packed.tolerance_A:g} Å "
            f"apart would fill {filled:.0%} of the box - expected at most {FULL:.0%} (random close packing) - lower "
            "density_g_cm3 or tolerance_A"
        )
    apart = (piece.positions[:, None] - piece.positions[None, :] for piece in pieces)
    longest = max(float(np.linalg.norm(vectors, axis=2).max()) for vectors in apart)
    if box < longest + packed.tolerance_A:
        raise ConfigError(
            f"packing {_mixture(packed.units)}: a box of {box:.1f} Å is too small for a unit {longest:.1f} Å long and "
            f"its periodic image {packed.tolerance_A:g} Å off - expected {longest + packed.tolerance_A:.1f} Å - raise "
            f"{'n_atoms' if packed.n_units is None else 'n_units'}"
        )


def _covered(positions: FloatArray, radius: float) -> float:
    """Return the volume, Å^3, that spheres about the atoms of a unit cover together (on a grid, to about 1 %)."""
    low, high = positions.min(axis=0) - radius, positions.max(axis=0) + radius
    step = radius / 12.0
    axes = [np.arange(a + step / 2.0, b, step) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    inside = np.zeros(grid.shape[:3], dtype=bool)
    for position in positions:
        inside |= ((grid - position) ** 2).sum(axis=-1) < radius**2
    return float(inside.sum() * step**3)


# --- packing ----------------------------------------------------------------------------------------------------------


def pack(packed: Packed, *, random_seed: int, folder: Path, slot: Slot) -> Frames:
    """Pack one cell.

    Parameters
    ----------
    packed
        What is packed, how much, how tightly.
    random_seed
        The same one gives the same cell, bit for bit.
    folder
        Scratch folder of Packmol (made if missing; left to the caller).
    slot
        Where it runs.

    Returns
    -------
    Frames
        One frame without labels: a periodic cube of exactly the density, atoms inside it, ordered by element and,
        within an element, by unit (single atoms before those of molecules).

    Raises
    ------
    ConfigError
        It cannot be packed: no such stoichiometry, a wrong geometry, no room, or nothing found.
    EngineError
        Packmol failed, or left units closer than 0.9 of the tolerance.
    """
    pieces, box = _pieces(packed, counts_of(packed)), box_of(packed)
    _want_room(packed, pieces, box)
    placed = packmol.run(
        pieces, box_A=box, tolerance_A=packed.tolerance_A, random_seed=random_seed, folder=folder, slot=slot
    )
    symbols = np.array([symbol for piece in pieces for symbol in piece.symbols * piece.count])
    unit = np.repeat(
        np.arange(sum(piece.count for piece in pieces)),
        [len(piece.symbols) for piece in pieces for _ in range(piece.count)],
    )
    order = np.argsort(symbols, kind="stable")
    positions = np.concatenate([part.reshape(-1, 3) for part in placed])[order] % box
    frame = Frames(tuple(symbols[order].tolist()), np.eye(3)[None] * box, positions[None])
    _want_apart(frame, unit[order], DISTANCE_SLACK * packed.tolerance_A)
    return frame


def _want_apart(frame: Frames, unit: NDArray[np.int64], distance_A: float) -> None:
    """Refuse a packing in which two units touch (their own images are far off: see :func:`_want_room`).

    Parameters
    ----------
    frame
        One frame.
    unit
        (n_atoms,) which unit an atom belongs to.
    distance_A
        Shortest distance allowed, Å.
    """
    from ase.neighborlist import primitive_neighbor_list

    i, j, d = primitive_neighbor_list("ijd", frame.pbc, frame.cell[0], frame.positions[0], distance_A)
    apart = unit[i] != unit[j]
    if apart.any():
        worst = np.argmin(np.where(apart, d, np.inf))
        pair = f"{frame.symbols[i[worst]]}-{frame.symbols[j[worst]]}"
        raise EngineError(
            f"Packmol says success, but left {pair} {d[worst]:.2f} Å apart - expected at least {distance_A:.2f} Å - is "
            "this version right? pip install 'packmol>=21'"
        )
