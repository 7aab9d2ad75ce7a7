"""deepmd/npy systems, plain and mixed: numpy arrays, taken as they stand, to the bit.

In a mixed set each frame has its own types (``real_atom_types.npy``), and frames of fewer atoms may be filled up with
virtual ones at the end: type -1, no force (``atom_numb_pad`` of dpdata). They are dropped. Arrays that contradict each
other are refused: which of the two is right nobody can know.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from activelearn.errors import ConfigError
from activelearn.exchange.reads import Read, source
from activelearn.frames import Frames, make_origin

Floats = NDArray[np.float64]
Types = NDArray[np.int64]

#: The types of a mixed set, frame by frame.
_MIXED = "real_atom_types.npy"
_MEND = "write the system again with the program that made it"


def read_deepmd(path: Path) -> Iterator[Read]:
    """Read all systems below a folder.

    Raises
    ------
    ConfigError
        There is none, or its arrays contradict each other.
    """
    systems = sorted(file.parent for file in path.rglob("type.raw"))
    if not systems:
        raise ConfigError(f"{path}: no type.raw in it - wanted a folder of deepmd/npy systems - check the path")
    for system in systems:
        folders = sorted(system.glob("set.*"))
        if not folders:
            raise ConfigError(f"{system}: no set.* in it - wanted deepmd/npy, not raw text - convert it with dpdata")
        mixed = [folder for folder in folders if (folder / _MIXED).is_file()]
        plain = [folder for folder in folders if folder not in mixed]
        if mixed and plain:
            raise ConfigError(
                f"{plain[0]}: no {_MIXED}, which {mixed[0]} has - wanted it in every set of a mixed system, for it "
                f"says which elements the atoms are - {_MEND}"
            )
        for folder in folders:
            yield from _read_set(system, folder)


def _read_set(system: Path, folder: Path) -> Iterator[Read]:
    kinds = (system / "type_map.raw").read_text().split() if (system / "type_map.raw").is_file() else []
    found = _arrays(folder)
    coordinates = found.pop("coord")
    n = len(coordinates)
    is_periodic = "box" in found and not (system / "nopbc").is_file()
    types = _types(system, folder, n, coordinates.shape[1] // 3, kinds)

    for k in range(n):
        (real,) = np.nonzero(types[k] >= 0)
        where = f"{folder} frame {k}"
        forces = found["force"][k].reshape(-1, 3) if "force" in found else None
        if forces is not None and forces[len(real) :].any():
            raise ConfigError(f"{where}: forces on atoms of type -1, which are none - wanted zeros - {_MEND}")
        frame = Frames(
            symbols=tuple(kinds[kind] if kinds else "X" for kind in types[k, real]),
            cell=found["box"][k].reshape(1, 3, 3) if "box" in found else np.zeros((1, 3, 3)),
            positions=coordinates[k].reshape(-1, 3)[None, real],
            pbc=(is_periodic, is_periodic, is_periodic),
            energy=found["energy"][k].reshape(1) if "energy" in found else None,
            forces=None if forces is None else forces[None, real],
            virial=found["virial"][k].reshape(1, 3, 3) if "virial" in found else None,
            origin=make_origin(1, walk=source(system)),
        )
        yield Read(where, frame)


def _arrays(folder: Path) -> dict[str, Floats]:
    """Return the arrays of a set that are there, one row a frame, their shapes checked against coord.npy."""
    found: dict[str, Floats] = {}
    for name in ("coord", "box", "energy", "force", "virial"):
        if name != "coord" and not (folder / f"{name}.npy").is_file():
            continue
        values = np.load(folder / f"{name}.npy", allow_pickle=False).astype(np.float64)
        found[name] = values.reshape(len(values), -1)
    n, width = found["coord"].shape
    if width % 3:
        raise ConfigError(f"{folder}/coord.npy: {width} numbers a frame - wanted three an atom - {_MEND}")
    for name, wanted in {"box": 9, "energy": 1, "force": width, "virial": 9}.items():
        shape = found[name].shape if name in found else (n, wanted)
        if shape != (n, wanted):
            raise ConfigError(
                f"{folder}/{name}.npy: {shape[0]} frames of {shape[1]} numbers - wanted {n} of {wanted}, as coord.npy "
                f"has positions - {_MEND}"
            )
    return found


def _types(system: Path, folder: Path, n: int, n_atoms: int, kinds: list[str]) -> Types:
    """Return the (n, n_atoms) types, checked: numbers of type_map.raw, and -1 for what fills up a frame at its end."""
    path = system / "type.raw"
    types: Types = np.loadtxt(path, dtype=np.int64, ndmin=1)
    if types.shape != (n_atoms,):
        raise ConfigError(
            f"{path}: types of {types.size} atoms, but {folder}/coord.npy has positions of {n_atoms} - wanted the same "
            f"number - {_MEND}"
        )
    types, lowest = types[None, :].repeat(n, axis=0), 0
    if (mixed := folder / _MIXED).is_file():
        path, plain, lowest = mixed, types, -1
        types = _real_types(path, (n, n_atoms))
        if plain.any() and (types != plain).any():
            raise ConfigError(
                f"{path}: other types than in {system}/type.raw - wanted zeros there, as a mixed set has - {_MEND}"
            )
    highest = len(kinds) - 1 if kinds else types.max(initial=0)  # without names no frame is fit, and each says so
    wrong = types[(types < lowest) | (types > highest)]
    if wrong.size:
        raise ConfigError(
            f"{path}: type {wrong[0]} - wanted 0 to {highest}, for type_map.raw has {len(kinds)} names - {_MEND}"
        )
    if (np.diff(types < 0, axis=1) & (types[:, :-1] < 0)).any():
        raise ConfigError(f"{path}: type -1 before a real atom - wanted it at the end of a frame only - {_MEND}")
    return types


def _real_types(path: Path, shape: tuple[int, int]) -> Types:
    found = np.load(path, allow_pickle=False)
    if found.shape != shape or (np.round(found) != found).any():  # NaN is not itself
        raise ConfigError(
            f"{path}: {found.dtype} of shape {found.shape} - wanted {shape[0]} frames of {shape[1]} whole numbers, as "
            f"coord.npy has positions - {_MEND}"
        )
    types: Types = found.astype(np.int64)
    return types
