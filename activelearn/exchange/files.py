"""The formats of labels, and how to read each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from activelearn.errors import ConfigError
from activelearn.exchange.cp2k import read_cp2k
from activelearn.exchange.deepmd_npy import read_deepmd
from activelearn.exchange.extxyz import read_extxyz
from activelearn.exchange.foreign import read_abacus, reader
from activelearn.exchange.outcar import read_outcar
from activelearn.exchange.outputs import read_aims, read_gpaw, read_pwscf
from activelearn.exchange.reads import Read, source, with_walk
from activelearn.exchange.texts import readable
from activelearn.exchange.vasprun import read_vasprun
from activelearn.frames import unpack
from activelearn.store import read_npz
from activelearn.structures import opened


def format_of(path: Path) -> str:
    """Return the format of a file by its name.

    Raises
    ------
    ConfigError
        There is no such file, or its format is unknown.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such file - expected labelled structures - check the path")
    if path.is_dir():
        return "abacus" if (path / "INPUT").is_file() else "deepmd"
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if {".extxyz", ".xyz"} & {*suffixes}:
        return "extxyz"
    if suffixes[-1:] == [".npz"]:
        return "npz"
    if "OUTCAR" in path.name:
        return "outcar"
    if suffixes and suffixes[-1] in BY_SUFFIX:
        return BY_SUFFIX[suffixes[-1]]
    with opened(path) as text:
        beginning = text.read(_N_BEGINNING)
    for words, kind in BY_WORDS.items():
        if words in beginning:
            return kind
    raise ConfigError(
        f"{path}: format not recognised by name or content - expected one of {', '.join(FORMATS)} - give --format"
    )


def read(path: Path, kind: str, keys: Mapping[str, str] | None = None) -> list[Read]:
    """Return the frames of a file of this format.

    Parameters
    ----------
    path
        The file or folder.
    kind
        One of :data:`FORMATS`.
    keys
        Names of labels that are not ASE's: see :func:`activelearn.exchange.extxyz.parsed_keys`.

    Raises
    ------
    ConfigError
        It cannot be read, or names are given for a format with fixed names.
    """
    if keys and kind != "extxyz":
        raise ConfigError(f"{path}: --keys given for {kind} - expected them only for extxyz - leave them out")
    with readable(path, kind):
        return list(read_extxyz(path, keys) if keys else reader(kind, FORMATS)(path))


def _read_npz(path: Path) -> Iterator[Read]:
    arrays = read_npz(path)[0]
    n, m = arrays["n_frames"], arrays["n_atoms"]
    lengths = {"symbols": m.sum(), "pbc": len(n), "origin": n.sum(), "cell": n.sum(), "positions": (n * m).sum()}
    for name, of_a_part in {"energy": n, "forces": n * m, "virial": n}.items():
        lengths[name] = of_a_part[arrays[f"has_{name}"]].sum()
    for name, expected in lengths.items():
        if len(arrays[name]) != expected or min(n.min(initial=0), m.min(initial=0)) < 0:
            raise ConfigError(
                f"{path}: {len(arrays[name])} rows of {name} - expected {expected}, from n_frames and n_atoms - "
                "export it again"
            )
    for p, part in enumerate(unpack(arrays)):
        for k in range(len(part)):
            yield Read(f"{path} part {p} frame {k}", with_walk(part[k], str(part.origin["walk"][k]) or source(path)))


FORMATS: Final[dict[str, Callable[[Path], Iterator[Read]]]] = {
    "extxyz": read_extxyz,
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
#: Synonyms.
BY_SUFFIX: Final = {
    **dict.fromkeys((".h5", ".hdf5"), "deepmd/hdf5"),
    **{f".{name}": f"ase/{name}" for name in ("traj", "db", "gpw")},
}
#: Formats by the beginning of an output.
BY_WORDS: Final = {
    "<modeling>": "vasprun",
    "Program PWSCF": "qe",
    "CP2K|": "cp2k",
    "Invoking FHI-aims": "aims",
    "|__ |  _|___|_____|": "gpaw",
}
#: Number of its characters.
_N_BEGINNING: Final = 65_536
