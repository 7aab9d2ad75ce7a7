"""Frames: the one container of configurations, with or without labels.

Stacked arrays of one composition instead of a list of ``ase.Atoms``: a walk of 1,000 frames is sliced, classified and
written without a Python loop over atoms. A data set is a list of Frames. ASE and dpdata appear only at the edges.

Sign convention, stated once for the whole package: ``virial = -volume * stress`` with ASE's stress, positive in tension
(so virial = -dE/d(strain)). LAMMPS and VASP print pressures and stresses with the opposite sign of ASE's.

Convention for missing values, stated once as well: many labels have no virial (VASP's default for dynamics, a
calculator that knows energy and forces alone). Such a frame has NaN in the whole row of its virial, and where no frame
of a part has one, ``virial`` is None. Neither NaN nor zeros in its place ever reach a training or a file of another
format.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from activelearn.units import AMU_PER_A3_IN_G_PER_CM3

if TYPE_CHECKING:
    from ase import Atoms

FloatArray = NDArray[np.float64]

#: Where a frame comes from. ``walk`` is the id of the task that made it; strain is linear and 0 where undefined.
ORIGIN: Final = np.dtype(
    [
        ("iteration", np.int32),
        ("walk", "U96"),
        ("step", np.int64),
        ("temperature_K", np.float64),
        ("pressure_bar", np.float64),
        ("strain", np.float64),
        ("max_devi_f", np.float64),
    ]
)
_LABELS: Final = ("energy", "forces", "virial")
#: What :func:`pack` puts end to end, with the shape of a row; a row is a frame or, of these, an atom.
_END_TO_END: Final = {"cell": (3, 3), "positions": (3,), "energy": (), "forces": (3,), "virial": (3, 3)}
_BY_ATOM: Final = ("positions", "forces")


def make_origin(n_frames: int, **values: Any) -> NDArray[np.void]:  # noqa: ANN401 - one value per ORIGIN field
    """Return (n_frames,) origins, each field in the unit of its name.

    Parameters
    ----------
    n_frames
        How many.
    values
        Fields of :data:`ORIGIN`, (n_frames,) or one for all, in the units that their names say and, for ``max_devi_f``,
        eV/Å; fields not given are 0, ``""`` or, for ``max_devi_f``, NaN.

    Raises
    ------
    ValueError
        There is no such field, or it has another length.
    """
    origin = np.zeros(n_frames, dtype=ORIGIN)
    origin["max_devi_f"] = np.nan
    for name, value in values.items():
        origin[name] = value
    return origin


def masses_of(symbols: Iterable[str]) -> FloatArray:
    """Return (n,) standard atomic masses of elements, u: ASE's table (IUPAC), those that LAMMPS is given."""
    from ase.data import atomic_masses, atomic_numbers

    return np.array([atomic_masses[atomic_numbers[symbol]] for symbol in symbols], dtype=np.float64)


def density_of(symbols: Iterable[str], volume: FloatArray) -> FloatArray:
    """Return (n,) densities, g/cm^3, of the atoms `symbols` in cells of `volume` (n,) Å^3."""
    return np.asarray(sum(masses_of(symbols).tolist()) * AMU_PER_A3_IN_G_PER_CM3 / volume, dtype=np.float64)


def formula_of(composition: Iterable[str] | Mapping[str, int], *, ones: bool = True) -> str:
    """Return a formula in alphabetical order, such as ``Na12P4S16``.

    Parameters
    ----------
    composition
        Symbols of atoms, or how many there are by element.
    ones
        Whether a single atom is written with its 1 (``Na3P1S4``), as in the formula of a cell, or without (``Na3PS4``),
        as in that of a unit.
    """
    counts = sorted(Counter(composition).items())
    return "".join(f"{element}{n if ones or n > 1 else ''}" for element, n in counts)


@dataclass(frozen=True, eq=False)
class Frames:
    """Configurations of one composition in one atom order.

    Parameters
    ----------
    symbols
        (n_atoms,) chemical symbols.
    cell
        (n_frames, 3, 3) lattice vectors as rows, Å.
    positions
        (n_frames, n_atoms, 3) Cartesian, Å.
    pbc
        (3,) periodic or not along each lattice vector.
    energy
        (n_frames,) eV, the force-consistent one, or None.
    forces
        (n_frames, n_atoms, 3) eV/Å, or None.
    virial
        (n_frames, 3, 3) eV, ``-volume * stress``, all NaN in frames without one; None if no frame has one.
    origin
        (n_frames,) records of :data:`ORIGIN`.

    Raises
    ------
    ValueError
        A shape disagrees with (n_frames, n_atoms); the message names the field and both shapes.
    """

    symbols: tuple[str, ...]
    cell: FloatArray
    positions: FloatArray
    pbc: tuple[bool, bool, bool] = (True, True, True)
    energy: FloatArray | None = None
    forces: FloatArray | None = None
    virial: FloatArray | None = None
    origin: NDArray[np.void] = field(default_factory=lambda: make_origin(0))

    def __post_init__(self) -> None:
        object.__setattr__(self, "symbols", tuple(self.symbols))
        object.__setattr__(self, "pbc", tuple(bool(axis) for axis in self.pbc))
        for name in ("cell", "positions", *_LABELS):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, np.ascontiguousarray(value, dtype=np.float64))
        n_frames, n_atoms = len(self.positions), len(self.symbols)
        if len(self.origin) == 0 and n_frames:
            object.__setattr__(self, "origin", make_origin(n_frames))
        expected: dict[str, tuple[int, ...]] = {
            "cell": (n_frames, 3, 3),
            "positions": (n_frames, n_atoms, 3),
            "pbc": (3,),
            "energy": (n_frames,),
            "forces": (n_frames, n_atoms, 3),
            "virial": (n_frames, 3, 3),
            "origin": (n_frames,),
        }
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None and np.shape(value) != shape:
                raise ValueError(f"Frames.{name} has shape {np.shape(value)}, expected {shape}")
        if self.virial is not None and n_frames and not self.has_virial.any():
            object.__setattr__(self, "virial", None)

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        labels = [name for name in _LABELS if getattr(self, name) is not None]
        return f"Frames({self.formula}, {len(self)} frames, {', '.join(labels) or 'no labels'})"

    @property
    def n_atoms(self) -> int:
        """Number of atoms of every frame."""
        return len(self.symbols)

    @property
    def volume(self) -> FloatArray:
        """(n_frames,) cell volume, Å^3."""
        volume: FloatArray = np.abs(np.linalg.det(self.cell))
        return volume

    @property
    def masses(self) -> FloatArray:
        """(n_atoms,) standard atomic masses, u; see :func:`masses_of`."""
        return masses_of(self.symbols)

    @property
    def density(self) -> FloatArray:
        """(n_frames,) density, g/cm^3."""
        return density_of(self.symbols, self.volume)

    @property
    def formula(self) -> str:
        """Composition in Hill-free alphabetical order, such as ``Na12P4S16``."""
        return formula_of(self.symbols)

    def fractional(self) -> FloatArray:
        """Return (n_frames, n_atoms, 3) fractional coordinates, not wrapped.

        Raises
        ------
        numpy.linalg.LinAlgError
            A cell has no volume.
        """
        columns = np.linalg.solve(self.cell.transpose(0, 2, 1), self.positions.transpose(0, 2, 1))
        return np.asarray(columns.transpose(0, 2, 1), dtype=np.float64)

    def wrapped(self) -> Frames:
        """Return the same frames with all atoms in the cell along its periodic directions; labels and origins stay.

        Raises
        ------
        numpy.linalg.LinAlgError
            A cell has no volume.
        """
        shifts = np.floor(self.fractional()) * np.array(self.pbc)
        return replace(self, positions=self.positions - shifts @ self.cell)

    @property
    def has_virial(self) -> NDArray[np.bool_]:
        """(n_frames,) whether the frame has a virial."""
        if self.virial is None:
            return np.zeros(len(self), dtype=bool)
        return np.asarray(~np.isnan(self.virial).all(axis=(1, 2)))

    @property
    def is_labelled(self) -> bool:
        """Whether energy and forces are present."""
        return self.energy is not None and self.forces is not None

    def label(self, name: Literal["energy", "forces", "virial"]) -> FloatArray:
        """Return a label that is there: (n_frames,) eV, (n_frames, n_atoms, 3) eV/Å or (n_frames, 3, 3) eV.

        Raises
        ------
        ValueError
            It is not there.
        """
        value: FloatArray | None = getattr(self, name)
        if value is None:
            raise ValueError(f"Frames.{name}: missing in {self.formula}")
        return value

    def __getitem__(self, index: int | slice | Sequence[int] | NDArray[Any]) -> Frames:
        """Return the frames of `index` (an int gives one frame, still as Frames)."""
        if isinstance(index, (int, np.integer)):
            index = [int(index)]
        rows = np.arange(len(self))[index]
        taken = {name: getattr(self, name)[rows] for name in ("cell", "positions", "origin")}
        labels = {name: getattr(self, name)[rows] for name in _LABELS if getattr(self, name) is not None}
        return replace(self, **taken, **labels)

    def with_labels(self, energy: FloatArray, forces: FloatArray, virial: FloatArray | None) -> Frames:
        """Return the same configurations with these labels.

        Parameters
        ----------
        energy, forces, virial
            (n_frames,) eV, (n_frames, n_atoms, 3) eV/Å and (n_frames, 3, 3) eV or None.

        Raises
        ------
        ValueError
            A shape does not match.
        """
        return replace(self, energy=energy, forces=forces, virial=virial)

    def without_labels(self) -> Frames:
        """Return the bare configurations."""
        return replace(self, energy=None, forces=None, virial=None)

    @staticmethod
    def concatenate(parts: Sequence[Frames]) -> Frames:
        """Join frames of the same atoms; energy and forces are kept if every part has them, a virial if any has.

        Raises
        ------
        ValueError
            No parts, or the parts differ in atoms or periodicity.
        """
        if not parts:
            raise ValueError("Frames.concatenate: expected at least one part")
        first = parts[0]
        for part in parts[1:]:
            if part.symbols != first.symbols or part.pbc != first.pbc:
                raise ValueError(
                    f"Frames.concatenate: expected the same atoms and pbc, got {first.formula} {first.pbc} and "
                    f"{part.formula} {part.pbc}"
                )
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in ("cell", "positions", "origin")
        }
        for name in _LABELS:
            values = [getattr(part, name) for part in parts]
            if name == "virial" and any(value is not None for value in values):
                values = [np.full((len(p), 3, 3), np.nan) if p.virial is None else p.virial for p in parts]
            joined[name] = None if any(value is None for value in values) else np.concatenate(values)
        return replace(first, **joined)

    # --- identity -----------------------------------------------------------------------------------------------

    def structure_key(self, index: int, fingerprint: str) -> str:
        """Return the content address of frame `index` under a reference: sha256 of the exact float64 structure.

        Parameters
        ----------
        index
            Which frame.
        fingerprint
            Of the reference that labels (see :mod:`activelearn.engines.reference`).
        """
        digest = hashlib.sha256()
        digest.update(" ".join(self.symbols).encode() + bytes(self.pbc))
        digest.update(self.cell[index].astype("<f8").tobytes() + self.positions[index].astype("<f8").tobytes())
        digest.update(fingerprint.encode())
        return digest.hexdigest()

    # --- files --------------------------------------------------------------------------------------------------

    def arrays(self, prefix: str = "") -> dict[str, NDArray[Any]]:
        """Return plain arrays for an npz archive; :meth:`from_arrays` is the inverse."""
        out: dict[str, NDArray[Any]] = {
            f"{prefix}symbols": np.array(self.symbols, dtype="U3"),
            f"{prefix}pbc": np.array(self.pbc),
        }
        for name in ("cell", "positions", "origin", *_LABELS):
            value = getattr(self, name)
            if value is not None:
                out[f"{prefix}{name}"] = value
        return out

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], prefix: str = "") -> Frames:
        """Rebuild from :meth:`arrays`."""
        names = ("cell", "positions", "origin", *_LABELS)
        found = {name: arrays[prefix + name] for name in names if prefix + name in arrays}
        symbols = tuple(str(symbol) for symbol in arrays[f"{prefix}symbols"])
        return cls(symbols=symbols, pbc=tuple(arrays[f"{prefix}pbc"].tolist()), **found)

    # --- edges: ASE, deepmd, extxyz -----------------------------------------------------------------------------

    @classmethod
    def from_ase(cls, images: Atoms | Sequence[Atoms]) -> Frames:
        """Stack ASE structures of the same atoms; labels are taken if every calculator has them, a stress if any has.

        Parameters
        ----------
        images
            One structure or several (Å); labels in ASE's units and signs: eV, eV/Å, stress in eV/Å^3.

        Raises
        ------
        ValueError
            There are no images, or they differ in their atoms or periodicity.
        """
        from ase import Atoms

        images = [images] if isinstance(images, Atoms) else images
        if not images:
            raise ValueError("Frames.from_ase: expected at least one structure")
        first = images[0]
        symbols = tuple(first.get_chemical_symbols())
        for image in images:
            if tuple(image.get_chemical_symbols()) != symbols:
                raise ValueError("Frames.from_ase: expected images of the same atoms in the same order")
            if image.pbc.tolist() != first.pbc.tolist():
                raise ValueError(f"Frames.from_ase: expected images of the same pbc, got {first.pbc} and {image.pbc}")
        return cls(
            symbols=symbols,
            cell=np.array([image.cell.array for image in images]),
            positions=np.array([image.positions for image in images]),
            pbc=tuple(first.pbc.tolist()),
            **_labels_from_ase(images),
        )

    def to_ase(self) -> list[Atoms]:
        """Return ASE structures; labels sit in a SinglePointCalculator (stress as ASE has it, Voigt)."""
        from ase import Atoms
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.stress import full_3x3_to_voigt_6_stress

        images, volume, has_virial = [], self.volume, self.has_virial
        for i in range(len(self)):
            atoms = Atoms(self.symbols, positions=self.positions[i], cell=self.cell[i], pbc=self.pbc)
            atoms.info.update({name: self.origin[name][i].item() for name in ORIGIN.names or ()})
            if self.energy is not None and self.forces is not None:
                results: dict[str, Any] = {"energy": self.energy[i], "forces": self.forces[i]}
                if self.virial is not None and has_virial[i]:
                    results["stress"] = full_3x3_to_voigt_6_stress(-self.virial[i] / volume[i])
                atoms.calc = SinglePointCalculator(atoms, **results)
            images.append(atoms)
        return images


def _labels_from_ase(images: Sequence[Atoms]) -> dict[str, Any]:
    from ase.stress import voigt_6_to_full_3x3_stress

    results = [image.calc.results if image.calc is not None else {} for image in images]
    labels: dict[str, FloatArray] = {}
    if all("energy" in r and "forces" in r for r in results):
        labels["energy"] = np.array([r.get("free_energy", r["energy"]) for r in results])
        labels["forces"] = np.array([r["forces"] for r in results])
        if any("stress" in r for r in results):
            stress = [voigt_6_to_full_3x3_stress(r.get("stress", np.full(6, np.nan))) for r in results]
            labels["virial"] = -np.array(stress) * np.array([abs(i.cell.volume) for i in images])[:, None, None]
    return labels


@dataclass(frozen=True, eq=False)
class FrameLabel:
    """What the reference said about one structure.

    Parameters
    ----------
    energy
        eV, or NaN if refused.
    forces
        (n_atoms, 3) eV/Å.
    virial
        (3, 3) eV; NaN if there is none.
    refused
        Physical reason why there is no label (an SCF that did not converge ...), or None.
    started, finished
        Unix times of the computation.
    """

    energy: float
    forces: FloatArray
    virial: FloatArray
    refused: str | None = None
    started: float = 0.0
    finished: float = 0.0


# --- lists of Frames: a data set ------------------------------------------------------------------------------------


def pack(parts: Sequence[Frames]) -> dict[str, NDArray[Any]]:
    """Return the arrays of several Frames end to end; :func:`unpack` is the inverse.

    A data set of 15,000 frames has thousands of parts: arrays of their own would take longer to open than to read.
    """
    out: dict[str, NDArray[Any]] = {
        "n_frames": np.array([len(part) for part in parts], dtype=np.int64),
        "n_atoms": np.array([part.n_atoms for part in parts], dtype=np.int64),
        "symbols": np.array([symbol for part in parts for symbol in part.symbols], dtype="U3"),
        "pbc": np.array([part.pbc for part in parts], dtype=bool).reshape(-1, 3),
        "origin": np.concatenate([make_origin(0), *(part.origin for part in parts)]),
    }
    for name, shape in _END_TO_END.items():
        values = [getattr(part, name) for part in parts]
        out[name] = np.concatenate([np.empty((0, *shape))] + [v.reshape(-1, *shape) for v in values if v is not None])
        if name in _LABELS:
            out[f"has_{name}"] = np.array([value is not None for value in values], dtype=bool)
    return out


def unpack(arrays: Mapping[str, NDArray[Any]]) -> list[Frames]:
    """Rebuild the list of Frames stored by :func:`pack`."""
    n_parts, begin = len(arrays["n_frames"]), dict.fromkeys(["symbols", "origin", *_END_TO_END], 0)

    def take(name: str, n: int) -> NDArray[Any]:
        begin[name] += n
        return arrays[name][begin[name] - n : begin[name]]

    parts = []
    for i in range(n_parts):
        n, m = int(arrays["n_frames"][i]), int(arrays["n_atoms"][i])
        names = [name for name in _END_TO_END if name not in _LABELS or arrays[f"has_{name}"][i]]
        rows = {name: take(name, n * m if name in _BY_ATOM else n) for name in names}
        rows |= {name: rows[name].reshape(n, m, 3) for name in _BY_ATOM if name in rows}
        symbols = tuple(take("symbols", m).tolist())
        parts.append(Frames(symbols=symbols, pbc=tuple(arrays["pbc"][i].tolist()), origin=take("origin", n), **rows))
    return parts


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return an uncompressed npz archive; the same arrays give the same bytes (numpy fixes the dates in the zip)."""
    buffer = io.BytesIO()
    np.savez(buffer, **dict[str, Any](arrays))
    return buffer.getvalue()


def dataset_sha256(parts: Iterable[Frames], after: str = "") -> str:
    """Return the checksum of a labelled data set: atoms, cells, positions, labels and origins, in order.

    Parameters
    ----------
    parts
        The data set, or what was added to it.
    after
        Checksum of what came before: a chain, so that a growing data set is never read again for it.
    """
    for part in parts:
        digest = hashlib.sha256(after.encode())
        for name, array in sorted(part.arrays().items()):
            digest.update(name.encode() + str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        after = digest.hexdigest()
    return after


def by_composition(parts: Iterable[Frames]) -> list[Frames]:
    """Merge Frames of the same atoms in the same order; first come, first listed."""
    groups: dict[tuple[Any, ...], list[Frames]] = {}
    for part in parts:
        if len(part):
            groups.setdefault((part.symbols, part.pbc), []).append(part)
    return [Frames.concatenate(group) for group in groups.values()]
