"""The formats that labels come in, and how a file of each is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from activelearn.errors import ConfigError
from activelearn.exchange.cp2k import read_cp2k
from activelearn.exchange.deepmd_npy import read_deepmd
from activelearn.exchange.foreign import read_abacus, reader
from activelearn.exchange.outcar import read_outcar
from activelearn.exchange.outputs import read_aims, read_gpaw, read_pwscf
from activelearn.exchange.reads import Read, from_atoms, source, with_walk
from activelearn.exchange.texts import opened
from activelearn.exchange.vasprun import read_vasprun
from activelearn.frames import unpack
from activelearn.store import read_npz


def format_of(path: Path) -> str:
    """Return the format that the name of a file stands for.

    Raises
    ------
    ConfigError
        There is no such file, or its name says nothing.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such file - wanted labelled structures - check the path")
    if path.is_dir():
        return "abacus" if (path / "INPUT").is_file() else "deepmd"
    if path.suffix in {".extxyz", ".xyz"}:
        return "extxyz"
    if path.suffix == ".npz":
        return "npz"
    if "OUTCAR" in path.name:
        return "outcar"
    if path.suffix in BY_SUFFIX:
        return BY_SUFFIX[path.suffix]
    with opened(path) as text:
        beginning = text.read(_N_BEGINNING)
    for words, kind in BY_WORDS.items():
        if words in beginning:
            return kind
    raise ConfigError(
        f"{path}: the name does not tell the format, nor does the beginning - wanted one of {', '.join(FORMATS)} - "
        "give --format"
    )


def read(path: Path, kind: str) -> list[Read]:
    """Return the frames of a file of this format.

    Raises
    ------
    ConfigError
        It cannot be read.
    """
    try:
        return list(reader(kind, FORMATS)(path))
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{path}: cannot be read as {kind} ({type(error).__name__}: {error}) - wanted a whole file of that format "
            "- mend it, leave it out or give another --format; nothing was imported"
        ) from error


def _read_extxyz(path: Path) -> Iterator[Read]:
    from ase.io import iread

    for k, image in enumerate(iread(path, ":", format="extxyz", do_not_split_by_at_sign=True)):
        frame, reason = from_atoms(image, source(path))
        yield Read(f"{path} frame {k}", frame, reason)


def _read_npz(path: Path) -> Iterator[Read]:
    for p, part in enumerate(unpack(read_npz(path)[0])):
        for k in range(len(part)):
            yield Read(f"{path} part {p} frame {k}", with_walk(part[k], str(part.origin["walk"][k]) or source(path)))


FORMATS: Final[dict[str, Callable[[Path], Iterator[Read]]]] = {
    "extxyz": _read_extxyz,
    "deepmd": read_deepmd,
    "outcar": read_outcar,
    "npz": _read_npz,
    "vasprun": read_vasprun,
    "qe": read_pwscf,
    "cp2k": read_cp2k,
    "aims": read_aims,
    "gpaw": read_gpaw,
    "abacus": read_abacus,
}
#: What other names stand for.
BY_SUFFIX: Final = {
    **dict.fromkeys((".h5", ".hdf5"), "deepmd/hdf5"),
    **{f".{name}": f"ase/{name}" for name in ("traj", "db", "gpw")},
}
#: What the beginning of an output tells.
BY_WORDS: Final = {
    "<modeling>": "vasprun",
    "Program PWSCF": "qe",
    "CP2K|": "cp2k",
    "Invoking FHI-aims": "aims",
    "|__ |  _|___|_____|": "gpaw",
}
#: Characters of it.
_N_BEGINNING: Final = 65_536
