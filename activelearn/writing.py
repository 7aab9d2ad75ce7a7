"""Frames written for other programs: deepmd/npy systems and extended XYZ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn.fixed_point import LIMIT, WIDTH, fixed_point
from activelearn.frames import ORIGIN, FloatArray, Frames, by_composition


def _by_virial(part: Frames) -> list[NDArray[np.intp]]:
    """Return the numbers of the frames that have a virial, and of those that have none; of the two those not empty."""
    return [rows for rows in (np.flatnonzero(part.has_virial), np.flatnonzero(~part.has_virial)) if len(rows)]


def write_deepmd(parts: Iterable[Frames], folder: Path, type_map: Sequence[str]) -> list[Path]:
    """Write labelled frames as deepmd/npy, one folder per composition (two if some of its frames have no virial).

    Frames without a virial are systems of their own, without ``virial.npy``: DeePMD leaves them out of that term of the
    loss (zeros in their place would bias the models).

    Parameters
    ----------
    parts
        Labelled Frames.
    folder
        Parent of the folders written (made if missing).
    type_map
        Order of the elements in ``type.raw``.

    Returns
    -------
    list of Path
        The system folders.
    """
    import dpdata

    systems = []
    groups = [part[rows] for part in by_composition(parts) for rows in _by_virial(part)]
    for i, part in enumerate(groups):
        if part.energy is None or part.forces is None:
            raise ValueError(f"write_deepmd: expected labelled frames, {part.formula} has none")
        data: dict[str, Any] = {
            "atom_names": list(type_map),
            "atom_numbs": [part.symbols.count(kind) for kind in type_map],
            "atom_types": np.array([list(type_map).index(symbol) for symbol in part.symbols]),
            "orig": np.zeros(3),
            "cells": part.cell,
            "coords": part.positions,
            "energies": part.energy,
            "forces": part.forces,
            "nopbc": not any(part.pbc),
        }
        if part.virial is not None:
            data["virials"] = part.virial
        target = folder / f"{i:03d}-{part.formula}"
        dpdata.LabeledSystem(data=data).to("deepmd/npy", str(target), set_size=len(part), prec=np.float64)
        systems.append(target)
    return systems


#: How many frames are turned into text at once.
_AT_ONCE: Final = 64


@dataclass(frozen=True)
class Dialect:
    """How a program names labels in extended XYZ.

    Parameters
    ----------
    energy, forces, stress
        The names.
    is_virial
        Whether `stress` is the virial, eV, and not the stress with ASE's sign, eV/Å^3.
    has_origin
        Whether walk, step and so on of a frame are also written.
    alone
        What is written for an isolated atom.
    """

    energy: str = "energy"
    forces: str = "forces"
    stress: str = "stress"
    is_virial: bool = False
    has_origin: bool = False
    alone: str = ""


#: What ASE writes, and our own origin.
OURS: Final = Dialect(has_origin=True)
#: By program. MACE 0.3: the defaults of ``--energy_key`` and the like; NequIP 0.5 and later: what ASE's reader makes of
#: it (``nequip/data/ase.py``); GPUMD: ``src/main_nep/structure.cu``, where virial is -volume * stress, as here.
DIALECTS: Final = {
    "mace": Dialect("REF_energy", "REF_forces", "REF_stress", alone="config_type=IsolatedAtom"),
    "nequip": Dialect(),
    "gpumd": Dialect(forces="force", stress="virial", is_virial=True),
}


def write_extxyz(parts: Iterable[Frames], path: Path, dialect: Dialect = OURS) -> None:
    """Write frames as extended XYZ with energy, forces, stress (ASE's sign) and origin: what ASE's writer writes.

    To the byte what ``ase.io.write(path, part.to_ase())`` gives, ten times as fast; or with the names that another
    program expects.
    """
    with path.open("w", encoding="utf-8") as stream:
        for part in parts:
            stream.writelines(_extxyz(part, dialect))


def _extxyz(part: Frames, dialect: Dialect) -> Iterator[str]:
    """Yield each frame as extended XYZ."""
    from ase.io.extxyz import key_val_dict_to_str  # quoting of a text is left to ASE

    tables, stresses = [part.positions], None
    if part.energy is not None and part.forces is not None:
        tables.append(part.forces)
        if part.virial is not None:
            stress = part.virial if dialect.is_virial else -part.virial / part.volume[:, None, None]
            stresses = (stress + stress.transpose(0, 2, 1)) / 2
    properties = "species:S:1:pos:R:3" + (f":{dialect.forces}:R:3" if len(tables) > 1 else "")
    pbc = " ".join("T" if axis else "F" for axis in part.pbc)
    origin = {name: part.origin[name].tolist() for name in ORIGIN.names or () if dialect.has_origin}
    quoted = {walk: key_val_dict_to_str({"walk": walk}) for walk in set(origin.get("walk", ()))}
    for k in range(len(part)):
        info = [f'Lattice="{_spaced(part.cell[k])}" Properties={properties}']
        info += [quoted[values[k]] if name == "walk" else f"{name}={values[k]}" for name, values in origin.items()]
        info += [dialect.alone] if dialect.alone and part.n_atoms == 1 else []
        if part.energy is not None and len(tables) > 1:
            info.append(f"{dialect.energy}={part.energy[k]}")
        if stresses is not None and np.isfinite(stresses[k]).all():
            info.append(f'{dialect.stress}="{_spaced(stresses[k])}"')
        if k % _AT_ONCE == 0:
            rows = _rows(part.symbols, np.concatenate([table[k : k + _AT_ONCE] for table in tables], axis=2))
        yield f'{part.n_atoms}\n{" ".join(info)} pbc="{pbc}"\n' + rows[k % _AT_ONCE]


def _rows(symbols: Sequence[str], numbers: FloatArray) -> list[str]:
    """Return by frame one line an atom: its symbol and its (n_frames, n_atoms, n) numbers with eight decimals."""
    if not bool((np.abs(numbers) < LIMIT).all()):
        columns = " ".join(["%16.8f"] * numbers.shape[2])
        pattern = "".join(f"{symbol:<2} {columns}\n" for symbol in symbols)
        return [pattern % tuple(table.ravel().tolist()) for table in numbers]
    n_frames, n_atoms, n = numbers.shape
    text = np.full((n_frames, n_atoms, 3 + n * (WIDTH + 1)), ord(" "), dtype=np.uint8)
    text[:, :, :3] = np.array([f"{symbol:<3}".encode() for symbol in symbols]).view(np.uint8).reshape(n_atoms, 3)
    cells = text[:, :, 3:].reshape(n_frames, n_atoms, n, WIDTH + 1)
    cells[..., :WIDTH] = fixed_point(numbers.ravel()).reshape(n_frames, n_atoms, n, WIDTH)
    cells[:, :, -1, WIDTH] = ord("\n")
    return [table.tobytes().decode() for table in text]


def _spaced(matrix: FloatArray) -> str:
    return " ".join(map(str, matrix.ravel().tolist()))
