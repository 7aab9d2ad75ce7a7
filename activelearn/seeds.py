"""Seed crystals: facts from the literature in ``seeds/*.yaml``, rebuilt into structures to start from.

A seed is a space group (by Hall number, so that setting and origin are unambiguous), a cell and an asymmetric unit.
Nothing else is needed: the symmetry operations that spglib lists for the Hall number, applied to the sites, give the
conventional cell. Checks on the rebuilt crystal (density, shortest distances) are in the same file, so that a typing
error is found by ``activelearn check`` and not by a force field.

The second half of the module holds the pure functions that turn a crystal into starting structures: repetition,
scaling and random distortion. Each returns a new ``Atoms``; none changes its argument.
"""

from __future__ import annotations

import difflib
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from activelearn.config import Section, shipped
from activelearn.config.files import expanded, is_file, read_yaml
from activelearn.config.messages import validated
from activelearn.config.section import Element, Pair
from activelearn.errors import ConfigError
from activelearn.frames import FloatArray, Frames
from activelearn.structures import read_structures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ase import Atoms

#: Two images of a site closer than this (Å) are one atom.
SAME_SITE_A: Final = 0.05
#: A site with less than this is partly occupied.
FULL: Final = 0.999
#: How far a rebuilt crystal may deviate from the checks of its file: density (relative), distance (Å), symmetry (Å).
DENSITY_TOLERANCE: Final = 2.0e-3
DISTANCE_TOLERANCE_A: Final = 0.01
SYMMETRY_TOLERANCE_A: Final = 1.0e-3
#: At a third, three shears of one sign can take the volume of a perturbed cell to zero.
CELL_FRACTION_LIMIT: Final = 1.0 / 3.0

Angle = Annotated[float, Field(gt=0.0, lt=180.0)]


class SpaceGroup(Section):
    """A space group in one definite setting."""

    symbol: str = Field(description="Hermann-Mauguin symbol, for people.")
    number: int = Field(ge=1, le=230, description="Number in the International Tables.")
    hall_number: int = Field(ge=1, le=530, description="spglib's number of the setting; the crystal is built from it.")
    hall_symbol: str = Field(description="Hall symbol of the same setting, as a cross-check.")


class UnitCell(Section):
    """The conventional cell: lengths in Å, angles in degrees."""

    a: PositiveFloat
    b: PositiveFloat
    c: PositiveFloat
    alpha: Angle
    beta: Angle
    gamma: Angle

    @property
    def parameters(self) -> tuple[float, float, float, float, float, float]:
        """a, b, c (Å), alpha, beta, gamma (degrees)."""
        return self.a, self.b, self.c, self.alpha, self.beta, self.gamma


class AtomSite(Section):
    """One atom of the asymmetric unit, in fractional coordinates."""

    element: Element
    wyckoff: str = Field(pattern=r"^[1-9][0-9]*[A-Za-z]$", description="Multiplicity and letter, such as 8e.")
    x: float
    y: float
    z: float

    @property
    def multiplicity(self) -> int:
        """Number of atoms of the site in the conventional cell."""
        return int(self.wyckoff[:-1])


class Checks(Section):
    """Checks on the rebuilt crystal."""

    density_g_cm3: PositiveFloat
    shortest_A: dict[Pair, PositiveFloat] = Field(min_length=1, description="Shortest distance by pair of elements.")


class Seed(Section):
    """A crystal to start from, as facts: the content of one file of ``seeds/``.

    Raises
    ------
    pydantic.ValidationError
        If a field is missing, unknown or out of bounds, or if formula, formula units, sites and number of atoms
        contradict each other; :func:`read_seed` turns it into a :class:`~activelearn.errors.ConfigError`.
    """

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", description="The name of the file without .yaml.")
    formula: str = Field(pattern=r"^([A-Z][a-z]?[0-9]*)+$", description="Formula unit, such as Na3PS4.")
    name: str = Field(min_length=1, description="Phase, mineral or form, in words.")
    kind: Literal["experiment", "calculated", "model"] = Field(
        description="experiment: coordinates refined from diffraction; calculated: relaxed by DFT or a potential; "
        "model: derived, placed or hypothetical, not to be cited."
    )
    space_group: SpaceGroup
    cell: UnitCell
    sites: tuple[AtomSite, ...] = Field(min_length=1, description="Asymmetric unit.")
    formula_units: PositiveInt = Field(description="Z: formula units in the conventional cell.")
    n_atoms: PositiveInt = Field(description="Atoms in the conventional cell.")
    source: str = Field(min_length=1, description="Where the structure was published.")
    provenance: str = Field(min_length=1, description="Where the numbers were taken from.")
    licence_note: str = Field(min_length=1, description="Why the numbers may be redistributed.")
    confidence: str = Field(min_length=1, description="How reliable the numbers are.")
    note: str = ""
    checks: Checks

    @property
    def elements(self) -> frozenset[str]:
        """Symbols of the elements in the crystal."""
        return frozenset(site.element for site in self.sites)

    @model_validator(mode="after")
    def _composition_adds_up(self) -> Seed:
        from ase.formula import Formula

        there: Counter[str] = Counter()
        for site in self.sites:
            there[site.element] += site.multiplicity
        expected = Counter({element: n * self.formula_units for element, n in Formula(self.formula).count().items()})
        if there != expected:
            raise ValueError(
                f"the sites hold {_counted(there)} - expected {_counted(expected)} "
                f"({self.formula_units} {self.formula})"
            )
        if there.total() != self.n_atoms:
            raise ValueError(f"the sites hold {there.total()} atoms - expected n_atoms = {self.n_atoms}")
        return self

    def to_atoms(self) -> Atoms:
        """Rebuild the conventional cell by the symmetry operations of the Hall number.

        Returns
        -------
        Atoms
            Periodic, `n_atoms` atoms in the order of the sites, positions inside the cell, first lattice vector along
            x; without calculator.

        Raises
        ------
        ConfigError
            If number or Hall symbol do not belong to the Hall number, or if the orbit of a site does not have as many
            atoms as its Wyckoff position.
        """
        import spglib
        from ase import Atoms
        from ase.cell import Cell

        self._check_setting()
        operations = spglib.get_symmetry_from_database(self.space_group.hall_number) or {}
        cell = Cell.fromcellpar(self.cell.parameters)
        symbols: list[str] = []
        positions: list[FloatArray] = []
        for i, site in enumerate(self.sites):
            orbit = _orbit(site, operations["rotations"], operations["translations"], np.asarray(cell))
            if len(orbit) != site.multiplicity:
                raise ConfigError(
                    f"seed {self.id}: sites.{i}: {site.element} at ({site.x}, {site.y}, {site.z}) has an orbit of "
                    f"{len(orbit)} atoms - expected {site.multiplicity} (Wyckoff {site.wyckoff}) - compare x, y, z and "
                    "hall_number with the source, then run the same command again"
                )
            symbols += [site.element] * len(orbit)
            positions.append(orbit)
        return Atoms(symbols, scaled_positions=np.concatenate(positions), cell=cell, pbc=True)

    def problems(self) -> list[str]:
        """Rebuild the crystal and report where it deviates from the checks of its file.

        Returns
        -------
        list of str
            One line per deviation of the density (more than 0.2 %), of a shortest distance (0.01 Å) or of the space
            group that spglib finds (within 1e-3 Å); empty if all agree.

        Raises
        ------
        ConfigError
            If the crystal cannot be rebuilt; see :meth:`to_atoms`.
        """
        after = "compare with the source, then run the same command again"
        return [f"seed {self.id}: {line} - {after}" for line in self._departures(self.to_atoms())]

    def _departures(self, atoms: Atoms) -> Iterator[str]:
        import spglib
        from ase.neighborlist import neighbor_list

        density = float(Frames.from_ase(atoms).density[0])
        checked = self.checks.density_g_cm3
        if abs(density - checked) > DENSITY_TOLERANCE * checked:
            yield f"density {density:.4f} g/cm3 - expected {checked:.4f}"
        elements = np.array(atoms.get_chemical_symbols())
        first, second, distance = neighbor_list("ijd", atoms, max(self.checks.shortest_A.values()) + 0.5)
        for pair, length in self.checks.shortest_A.items():
            a, b = pair.split("-")
            found = distance[(elements[first] == a) & (elements[second] == b)].min(initial=np.inf)
            if abs(found - length) > DISTANCE_TOLERANCE_A:
                yield f"shortest {pair} {found:.3f} Å - expected {length:.3f}"
        crystal = (atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers)
        dataset = spglib.get_symmetry_dataset(crystal, symprec=SYMMETRY_TOLERANCE_A)
        group = "none" if dataset is None else f"{dataset.international} ({dataset.number})"
        if dataset is None or dataset.number != self.space_group.number:
            expected = f"{self.space_group.symbol} ({self.space_group.number})"
            yield f"spglib finds the space group {group} - expected {expected}"

    def _check_setting(self) -> None:
        import spglib

        group, known = self.space_group, spglib.get_spacegroup_type(self.space_group.hall_number)
        if known is None or (group.number, group.hall_symbol) != (known.number, known.hall_symbol):
            there = "nothing" if known is None else f"number {known.number}, Hall symbol {known.hall_symbol!r}"
            raise ConfigError(
                f"seed {self.id}: space_group: number {group.number}, Hall symbol {group.hall_symbol!r} - expected "
                f"{there} of hall_number {group.hall_number} - fix one of the three, then run the same command again"
            )


def seed_names() -> list[str]:
    """Return the ids of the shipped seeds, sorted."""
    return sorted(path.stem for path in shipped("seeds").glob("*.yaml"))


def load_seed(name: str) -> Seed:
    """Return a shipped seed by its id.

    Raises
    ------
    ConfigError
        If there is no such seed (the closest names are listed), or its file is wrong.
    """
    if name not in seed_names():
        raise ConfigError(f"seed {name}: unknown - {_nearest_seeds(name)} - all of them: activelearn seeds")
    return read_seed(shipped("seeds") / f"{name}.yaml")


def read_seed(path: Path) -> Seed:
    """Read one YAML file of facts, shipped or the user's own.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not YAML, breaks the format, or its id is not the name of the file; one line
        per problem.
    """
    seed = validated(Seed, read_yaml(path), str(path))
    if seed.id != path.stem:
        raise ConfigError(f"{path}: id: got {seed.id!r} - expected the file's name {path.stem!r} - rename one of them")
    return seed


def load_structure(name_or_path: str, folder: Path) -> Atoms:
    """Return a starting structure: a seed by its id, or a file.

    Parameters
    ----------
    name_or_path
        The id of a shipped seed (it takes precedence over a file of the same name); or a path, taken from `folder` if
        it is relative: a seed of your own (.yaml, .yml), which must agree with its own checks, or any file that ASE
        reads, of which the last frame is taken.
    folder
        Where relative paths start, such as the folder of the campaign's YAML.

    Returns
    -------
    Atoms
        Elements, positions, cell and periodicity only; no calculator, constraints or velocities.

    Raises
    ------
    ConfigError
        If it is neither a seed nor a file, if the file cannot be read, if a seed of your own is wrong, or if there is
        no fully periodic crystal in the file (no atoms, no volume, open directions, partly occupied sites).
    """
    names = seed_names()
    if name_or_path in names:
        return load_seed(name_or_path).to_atoms()
    path = (folder / expanded(name_or_path)).absolute()
    if not is_file(path):
        raise ConfigError(
            f"structure {path.name}: neither a seed nor a file ({path}) - {_nearest_seeds(path.name)} - "
            "pick a seed (all of them: activelearn seeds) or give the path of a file, then run the same command again"
        )
    if path.suffix not in {".yaml", ".yml"}:
        return _read_file(path)
    seed = read_seed(path)
    problems = seed.problems()
    if problems:
        raise ConfigError(*problems)
    return seed.to_atoms()


def heights(cell: FloatArray) -> FloatArray:
    """Return the perpendicular heights of a cell: height_i = V / |a_j x a_k|.

    Parameters
    ----------
    cell
        (3, 3) Å, rows are lattice vectors, of either handedness.

    Returns
    -------
    NDArray
        (3,) Å: the distance between the two faces that the i-th lattice vector joins; what a cutoff must be compared
        with, because a long vector of a skewed cell may span a thin slab.

    Raises
    ------
    ConfigError
        If the cell is not (3, 3), not finite, or without volume.
    """
    vectors = np.asarray(cell, dtype=np.float64)
    if vectors.shape != (3, 3) or not np.isfinite(vectors).all():
        raise ConfigError(f"cell: got {vectors.tolist()} - expected three finite vectors in Å - fix the structure")
    normals = np.cross(np.roll(vectors, -1, axis=0), np.roll(vectors, -2, axis=0))
    volume = abs(float(vectors[0] @ normals[0]))
    if volume <= 1.0e-12 * float(np.linalg.norm(vectors, axis=1).prod()):
        raise ConfigError(f"cell: {vectors.tolist()} has no volume - expected independent vectors - fix the structure")
    return np.asarray(volume / np.linalg.norm(normals, axis=1), dtype=np.float64)


def factors_for_height(cell: FloatArray, min_height_A: float) -> tuple[int, int, int]:
    """Return the smallest repetition whose perpendicular heights all reach `min_height_A`.

    Repeating a cell n times along a lattice vector multiplies that height by n and leaves the other two alone, so
    each factor is the ratio rounded up (one part in 1e9 is forgiven).

    Parameters
    ----------
    cell
        (3, 3) Å, rows are lattice vectors.
    min_height_A
        The smallest height required, > 0.

    Raises
    ------
    ConfigError
        If `min_height_A` is not positive and finite, or the cell is wrong; see :func:`heights`.
    """
    if not (np.isfinite(min_height_A) and min_height_A > 0.0):
        raise ConfigError(f"min_height_A: got {min_height_A} - expected a length > 0 such as the cutoff in Å - fix it")
    a, b, c = (max(1, int(np.ceil(ratio - 1.0e-9 * ratio))) for ratio in min_height_A / heights(cell))
    return a, b, c


def supercell(atoms: Atoms, factors: tuple[int, int, int]) -> Atoms:
    """Repeat a structure along its lattice vectors.

    Parameters
    ----------
    atoms
        (n_atoms,) periodic structure.
    factors
        Repetitions along a, b, c, each >= 1.

    Returns
    -------
    Atoms
        (n_atoms * product of factors,), whole copies one after the other, the last lattice vector running fastest.

    Raises
    ------
    ConfigError
        If `factors` are not three positive integers.
    """
    if any(int(n) != n or n < 1 for n in factors):
        raise ConfigError(f"supercell: got {list(factors)} - expected three integers >= 1 such as [2, 2, 2] - fix it")
    out: Atoms = atoms.repeat(factors)
    return out


def scaled(atoms: Atoms, linear_scale: float) -> Atoms:
    """Multiply the lattice vectors by `linear_scale`; the atoms move along (fractional coordinates are kept).

    The scale is linear: 0.95 makes lengths 0.95 and the volume 0.857 of what they were.

    Raises
    ------
    ConfigError
        If `linear_scale` is not positive and finite.
    """
    if not (np.isfinite(linear_scale) and linear_scale > 0.0):
        raise ConfigError(f"linear_scale: got {linear_scale} - expected a positive factor such as 0.95 - fix it")
    out: Atoms = atoms.copy()
    out.set_cell(np.asarray(atoms.cell) * linear_scale, scale_atoms=True)
    return out


def perturbed(atoms: Atoms, rng: np.random.Generator, *, positions_A: float, cell_fraction: float) -> Atoms:
    """Distort a structure at random: first the cell, the atoms moving along, then each atom.

    With f = `cell_fraction`, p = `positions_A`, rows of h the lattice vectors and r the positions,

        h' = h (1 + E),    r' = r (1 + E) + u,

    E symmetric, its six independent entries (off-diagonal ones too: E_xy itself, not E_xy/2) uniform in [-f, f), and
    u (n_atoms, 3) uniform in [-p, p) per Cartesian coordinate, so an atom moves by at most sqrt(3) p beside the strain.
    A strain without rotation keeps the lengths of the lattice vectors within a factor 1 +- 3 f. It follows the initial
    data of the papers, which state 0.01 Å and 3 % of the cell vectors but not the distribution.

    Parameters
    ----------
    atoms
        (n_atoms,) periodic structure.
    rng
        Six numbers are drawn for E (xx, yy, zz, yz, xz, xy), then 3 n_atoms for u (atom by atom, x, y, z), also if f
        or p is zero: the stream does not depend on the amplitudes.
    positions_A
        p >= 0.
    cell_fraction
        0 <= f < 1/3, so that the cell cannot collapse.

    Raises
    ------
    ConfigError
        If an amplitude is out of its bounds.
    """
    _check_amplitudes(positions_A, cell_fraction)
    xx, yy, zz, yz, xz, xy = rng.uniform(-1.0, 1.0, size=6) * cell_fraction
    strain = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    out: Atoms = atoms.copy()
    out.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + strain), scale_atoms=True)
    out.positions += rng.uniform(-1.0, 1.0, size=(len(atoms), 3)) * positions_A
    return out


def _check_amplitudes(positions_A: float, cell_fraction: float) -> None:
    if not (np.isfinite(positions_A) and positions_A >= 0.0):
        raise ConfigError(f"positions_A: got {positions_A} - expected a length >= 0 such as 0.01 Å - fix it")
    if not 0.0 <= cell_fraction < CELL_FRACTION_LIMIT:
        raise ConfigError(f"cell_fraction: got {cell_fraction} - expected 0 <= fraction < 1/3 such as 0.03 - fix it")


def _nearest_seeds(name: str) -> str:
    """Return a hint with the closest names of seeds, at most three: of the same formula if there is one."""
    names = seed_names()
    same = [one for one in names if one.partition("_")[0] == name.partition("_")[0]]
    close = difflib.get_close_matches(name, same or names, n=3, cutoff=0.0 if same else 0.5)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else "no seed has a similar name"


def _counted(composition: Counter[str]) -> str:
    return " ".join(f"{element}{n}" for element, n in sorted(composition.items()))


def _orbit(site: AtomSite, rotations: NDArray[np.int32], translations: FloatArray, cell: FloatArray) -> FloatArray:
    """Return the images of a site, each once: (n_images, 3) fractional, in [0, 1), in the order of the operations.

    `rotations` (n_operations, 3, 3) and `translations` (n_operations, 3) act on fractional coordinates, `cell` (3, 3)
    Å measures how far two images are apart.
    """
    images = (rotations @ np.array([site.x, site.y, site.z]) + translations) % 1.0
    apart = images[:, None] - images[None, :]
    apart -= np.rint(apart)
    same = np.linalg.norm(apart @ cell, axis=2) < SAME_SITE_A
    return np.asarray(images[same.argmax(axis=1) == np.arange(len(images))], dtype=np.float64)


def _read_file(path: Path) -> Atoms:
    """Read the last frame of a file by ASE and refuse what is not a fully periodic, fully occupied crystal."""
    from ase import Atoms
    from ase.io.formats import UnknownFileTypeError

    try:
        with warnings.catch_warnings():  # such as that CASTEP is not installed
            warnings.simplefilter("ignore")
            atoms = read_structures(path, "-1")[-1]
    except UnknownFileTypeError:
        raise ConfigError(
            f"{path}: ASE recognizes the format neither by the name nor by the first lines - expected a structure file "
            "with a telling name, such as POSCAR, my.vasp, my.cif, my.extxyz, geometry.in - rename it, then run the "
            "same command again"
        ) from None
    except Exception as error:
        raise ConfigError(
            f"{path}: ASE cannot read it ({type(error).__name__}: {error}) - expected a structure such as CIF, POSCAR "
            "or extxyz - convert it, then run the same command again"
        ) from error
    _want_finite(atoms, path)
    for wrong, what, expected in (
        (len(atoms) == 0, "no atoms", "a crystal"),
        (atoms.cell.rank == 0, "no cell", "a crystal, or a molecule in a box of three lattice vectors"),
        (atoms.cell.rank < 3, "a cell without volume", "three independent lattice vectors"),
        (not atoms.pbc.all(), f"periodic along {atoms.pbc.tolist()}", "a cell periodic in all three directions"),
        (_partly_occupied(atoms), "partly occupied sites", "an ordered model with every site full or empty"),
    ):
        if wrong:
            raise ConfigError(f"{path}: {what} - expected {expected} - fix the file, then run the same command again")
    return Atoms(atoms.get_chemical_symbols(), positions=atoms.get_positions(), cell=atoms.cell, pbc=True)


def _want_finite(atoms: Atoms, path: Path) -> None:
    """Refuse NaN and infinity in the cell and the positions; the first one is reported."""
    for what, rows in (("lattice vector", atoms.cell.array), ("atom", atoms.positions)):
        if len(lost := np.flatnonzero(~np.isfinite(rows).all(axis=1))):
            raise ConfigError(
                f"{path}: {what} {lost[0]} (from 0) is {rows[lost[0]].tolist()} Å, as in {len(lost)} of {len(rows)} - "
                "expected finite numbers - fix the file, then run the same command again"
            )


def _partly_occupied(atoms: Atoms) -> bool:
    """Say whether ASE has noted a site that is shared or not full (of a CIF it silently keeps one element).

    A text is the ``.`` or ``?`` of a CIF, for which 1 is meant; in PDB files zeros stand for all atoms of a program
    that does not know occupancies.
    """
    occupancy: dict[str, dict[str, float | str]] = atoms.info.get("occupancy", {})
    given = [share for site in occupancy.values() for share in site.values() if not isinstance(share, str)]
    by_atom = np.asarray(atoms.arrays.get("occupancy", 1.0), dtype=np.float64)
    is_shared = any(len(site) > 1 for site in occupancy.values())
    return is_shared or min(given, default=1.0) < FULL or bool(((by_atom > 0.0) & (by_atom < FULL)).any())
