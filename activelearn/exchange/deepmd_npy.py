"""deepmd/npy systems, plain and mixed, and deepmd/raw: numbers are read exactly.

In a mixed set each frame has its own types (``real_atom_types.npy``), and frames with fewer atoms may be padded with
virtual ones at the end: type -1, no force (``atom_numb_pad`` of dpdata). They are dropped. Arrays that contradict each
other are refused, since it cannot be known which of the two is right.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn.errors import ConfigError
from activelearn.exchange.reads import Read, source
from activelearn.frames import Frames, make_origin

Floats = NDArray[np.float64]
Types = NDArray[np.int64]

#: The types of a mixed set, frame by frame.
_MIXED = "real_atom_types.npy"
_REWRITE = "write the system again with the program that made it"


def systems_in(path: Path) -> list[Path]:
    """Return the systems in a folder, itself included, in the order of their names; links are followed, each once."""
    found: list[Path] = []
    seen: set[str] = set()
    for folder, below, files in os.walk(path, followlinks=True, onerror=_unreadable):
        if (real := os.path.realpath(folder)) in seen:  # a second link, or one to a folder above it
            below.clear()
            continue
        seen.add(real)
        if "type.raw" in files:
            found.append(Path(folder))
    return sorted(found)


def _unreadable(error: OSError) -> None:
    raise ConfigError(
        f"{error.filename}: cannot be read ({error.strerror}) - expected a folder of deepmd/npy systems - change its "
        "permissions, or leave it out; nothing was imported"
    ) from error


def read_deepmd(path: Path, kinds: Sequence[str] = ()) -> Iterator[Read]:
    """Read all systems below a folder.

    Parameters
    ----------
    path
        A system, or a folder of systems.
    kinds
        Elements by type, for a system without ``type_map.raw``.

    Raises
    ------
    ConfigError
        There is none, or its arrays contradict each other.
    """
    systems = systems_in(path)
    if not systems:
        raise ConfigError(f"{path}: contains no type.raw - expected a folder of deepmd/npy systems - check the path")
    parameters: dict[str, set[bytes]] = {}
    for system in systems:
        folders = sorted(folder for folder in system.glob("set.*") if folder.is_dir())
        if not folders and not (system / "coord.raw").is_file():
            raise ConfigError(
                f"{system}: contains no set.* and no coord.raw - expected deepmd/npy or deepmd/raw - {_REWRITE}"
            )
        mixed = [folder for folder in folders if (folder / _MIXED).is_file()]
        plain = [folder for folder in folders if folder not in mixed]
        if mixed and plain:
            raise ConfigError(
                f"{plain[0]}: no {_MIXED}, which {mixed[0]} has - expected it in every set of a mixed system, since it "
                f"defines the elements of the atoms - {_REWRITE}"
            )
        for folder in [system] if not mixed and _is_rounded(system, folders) else folders or [system]:
            _want_one_state(system, folder, parameters)
            yield from _read_set(system, folder, kinds)


#: What an energy depends on besides the structure: of a frame, and of each atom.
_OF_FRAMES, _OF_ATOMS = ("fparam",), ("aparam", "spin")


def _want_one_state(system: Path, folder: Path, seen: dict[str, set[bytes]]) -> None:
    """Refuse frames whose energies depend on something that differs between them and that no model here is told.

    Parameters
    ----------
    system, folder
        Its files.
    seen
        Values of the sets before this one, which are added to: of each parameter, and of each parameter and system.
    """
    for name in (*_OF_FRAMES, *_OF_ATOMS):
        path = folder / (name + _suffix(folder))
        if not path.is_file():
            continue
        values = _loaded(path, np.float64, 2)
        place = name if name in _OF_FRAMES else f"{name} of {system}"
        found = seen.setdefault(place, set())
        found |= {row.tobytes() for row in np.atleast_1d(values)}
        if len(found) > 1:
            raise ConfigError(
                f"{path}: frames with different {name} - expected the same in all frames of an import, since models "
                "here see structures only - select those of one value (such as one electronic temperature)"
            )


def _is_rounded(system: Path, folders: Sequence[Path]) -> bool:
    """Return whether the sets of a system are rounded to float32, with the same frames next to them as text.

    Older versions of dpdata wrote float32 by default, which DP-GEN does not change: an energy of 500 eV
    is rounded to 3e-5 eV. It writes raw files, too, which have all digits.
    """
    raw = system / "coord.raw"
    if not raw.is_file() or not folders or not all((folder / "coord.npy").is_file() for folder in folders):
        return False
    arrays = [_loaded(folder / "coord.npy", np.float64, 2) for folder in folders]
    if not all(array.dtype == np.float32 for array in arrays):
        return False
    with raw.open("rb") as lines:
        return sum(1 for _ in lines) == sum(len(array) for array in arrays)


def _read_set(system: Path, folder: Path, by_type: Sequence[str]) -> Iterator[Read]:
    has_kinds = (system / "type_map.raw").is_file()
    kinds = (system / "type_map.raw").read_text(encoding="utf-8-sig").split() if has_kinds else [*by_type]
    if len(set(kinds)) < len(kinds):
        raise ConfigError(f"{system}/type_map.raw: {' '.join(kinds)} - expected each element once - {_REWRITE}")
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
            raise ConfigError(f"{where}: forces on virtual atoms of type -1 - expected zeros - {_REWRITE}")
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


#: Of each array the shape of one frame, with -1 for the atoms.
_SHAPES: Final[dict[str, tuple[int, ...]]] = {
    "coord": (-1, 3),
    "box": (3, 3),
    "energy": (1,),
    "force": (-1, 3),
    "virial": (3, 3),
}


def _suffix(folder: Path) -> str:
    return ".npy" if folder.match("set.*") else ".raw"


def _arrays(folder: Path) -> dict[str, Floats]:
    """Return the arrays of a set that are there, one row a frame, their shapes checked against coord.npy."""
    suffix = _suffix(folder)
    there = {name: folder / (name + suffix) for name in _SHAPES if (folder / (name + suffix)).is_file()}
    if "coord" not in there:
        raise ConfigError(f"{folder}: contains no coord{suffix} - expected the positions - {_REWRITE}")
    found = {name: _rows(path, _SHAPES[name]) for name, path in there.items()}
    n, width = found["coord"].shape
    if width % 3:
        raise ConfigError(f"{there['coord']}: {width} numbers per frame - expected three per atom - {_REWRITE}")
    for name, expected in {"box": 9, "energy": 1, "force": width, "virial": 9}.items():
        shape = found[name].shape if name in found else (n, expected)
        if shape != (n, expected):
            raise ConfigError(
                f"{there[name]}: {shape[0]} frames of {shape[1]} numbers - expected {n} of {expected}, as "
                f"{there['coord'].name} has positions - {_REWRITE}"
            )
    return found


def _rows(path: Path, of_a_frame: tuple[int, ...]) -> Floats:
    """Return an array with one row a frame, read from npy or raw text."""
    values = _loaded(path, np.float64, 2 if len(of_a_frame) > 1 else 1)
    if values.dtype.kind != "f" or values.dtype.itemsize < 4:  # bytes: half precision has three digits
        raise ConfigError(f"{path}: numbers of kind {values.dtype} - expected float64 or float32 - {_REWRITE}")
    if values.ndim == 0 or (values.ndim > 2 and values.shape[2:] != of_a_frame[1:]):
        raise ConfigError(
            f"{path}: shape {values.shape} - expected frames of {' x '.join(map(str, of_a_frame))} (-1: the atoms) "
            f"- {_REWRITE}"
        )
    rows: Floats = values.reshape(len(values), int(np.prod(values.shape[1:]))).astype(np.float64)
    return rows


def _loaded(path: Path, dtype: type, n_dimensions: int) -> NDArray[Any]:
    try:
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of an empty file, which is reported elsewhere
            return np.loadtxt(path, dtype=dtype, ndmin=n_dimensions, encoding="utf-8-sig")  # type: ignore[call-overload,no-any-return]
    except (ValueError, EOFError, OSError, TypeError) as error:
        what = "a numpy array" if path.suffix == ".npy" else "numbers"
        raise ConfigError(f"{path}: cannot be read as {what} ({error}) - expected {what} - {_REWRITE}") from error


def _types(system: Path, folder: Path, n: int, n_atoms: int, kinds: list[str]) -> Types:
    """Return the (n, n_atoms) types, checked: numbers of type_map.raw, and -1 for padding at the end of a frame."""
    path, suffix = system / "type.raw", _suffix(folder)
    types: Types = _loaded(path, np.int64, 1)
    if types.shape != (n_atoms,):
        raise ConfigError(
            f"{path}: types of {types.size} atoms, but {folder}/coord{suffix} has positions of {n_atoms} - expected "
            f"the same number - {_REWRITE}"
        )
    types, lowest = types[None, :].repeat(n, axis=0), 0
    if (mixed := folder / _MIXED).is_file():
        path, plain, lowest = mixed, types, -1
        types = _real_types(path, (n, n_atoms))
        if plain.any() and (types != plain).any():
            raise ConfigError(
                f"{path}: other types than in {system}/type.raw - expected zeros there, as in a mixed set - {_REWRITE}"
            )
    highest = len(kinds) - 1 if kinds else types.max(initial=0)  # without names no frame is valid, and each is reported
    wrong = types[(types < lowest) | (types > highest)]
    if wrong.size:
        raise ConfigError(
            f"{path}: type {wrong[0]} - expected 0 to {highest}, since type_map.raw has {len(kinds)} names - {_REWRITE}"
        )
    if (np.diff(types < 0, axis=1) & (types[:, :-1] < 0)).any():
        raise ConfigError(f"{path}: type -1 before a real atom - expected it only at the end of a frame - {_REWRITE}")
    return types


def _real_types(path: Path, shape: tuple[int, int]) -> Types:
    found = _loaded(path, np.int64, 2)
    if found.dtype.kind not in "iuf" or found.shape != shape or (np.round(found) != found).any():  # NaN is not itself
        raise ConfigError(
            f"{path}: {found.dtype} of shape {found.shape} - expected {shape[0]} frames of {shape[1]} whole numbers, "
            f"as coord.npy has positions - {_REWRITE}"
        )
    types: Types = found.astype(np.int64)
    return types
