"""Foundations of SevenNet: checkpoints by the names of sevenn's own loader, and what they say of themselves.

A checkpoint is read without torch, and nothing in it is carried out: of its pickle, plain numbers, texts, lists and
mappings are taken, and every object is a blank. Nothing is downloaded: of the names those count whose files are there,
in the wheel (7net-0, 7net-0_22may2024, 7net-l3i5, 7net-mf-0) or where sevenn has put them.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from activelearn.config.files import checksum, expanded, is_file
from activelearn.engines.interpreters import folders_of

#: Name -> its file, below the folders in which sevenn looks (``pretrained_name_to_path`` of sevenn 0.13).
NAMES: Final = {
    "7net-0": "SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
    "7net-0_22may2024": "SevenNet_0__22May2024/checkpoint_sevennet_0.pth",
    "7net-l3i5": "SevenNet_l3i5/checkpoint_l3i5.pth",
    "7net-mf-0": "SevenNet_MF_0/checkpoint_sevennet_mf_0.pth",
    "7net-mf-ompa": "SevenNet_MF_ompa/checkpoint_sevennet_mf_ompa.pth",
    "7net-omat": "SevenNet_omat/checkpoint_sevennet_omat.pth",
    "7net-omni": "SevenNet_omni/checkpoint_sevennet_omni.pth",
    "7net-omni-i8": "SevenNet_omni_i8/checkpoint_sevennet_omni_i8.pth",
    "7net-omni-i12": "SevenNet_omni_i12/checkpoint_sevennet_omni_i12.pth",
}
#: Where sevenn puts what it has downloaded and cannot write into its own folder.
_CACHE: Final = "~/.cache/sevennet"
#: Bytes of the part of a checkpoint that is no weights: the largest that is read (those of the wheel have 5e4).
_LARGEST: Final = 2**24
#: What is raised by a file that is something else, or damaged.
_UNREADABLE: Final = (
    AttributeError, EOFError, ImportError, LookupError, NotImplementedError, OSError, RuntimeError, TypeError,
    ValueError, pickle.UnpicklingError, zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True)
class Foundation:
    """What a checkpoint says of itself.

    Parameters
    ----------
    elements
        That it knows.
    cutoff_A
        Of one layer of messages, Å.
    modals
        The kinds of labels that it tells apart (fidelities), such as PBE and R2SCAN; of most there is none.
    modal
        That of them which it was fine-tuned for, if it says so.
    """

    elements: frozenset[str]
    cutoff_A: float
    modals: tuple[str, ...] = ()
    modal: str | None = None


def canonical(name: str) -> str:
    """Return a name of sevenn's as :data:`NAMES` has it: it takes some spellings for one."""
    found = name.lower().replace("sevennet-", "7net-", 1)
    return "7net-0" if found in {"7net-0_11july2024", "7net-0_11jul2024"} else found


def path_of(name: str, python: str | None = None) -> Path | None:
    """Return the file of a name, for the sevenn of an interpreter (null: this one), or of a path; None: not there."""
    path = expanded(name)
    if is_file(path):
        return path.absolute()
    inside = NAMES.get(canonical(name))
    if inside is None:
        return None
    folders = [folder / "sevenn" / "pretrained_potentials" for folder in folders_of(python)]
    return next((path for folder in (*folders, expanded(_CACHE)) if is_file(path := folder / inside)), None)


def sha256_of(name: str, python: str | None) -> str | None:
    """Return the checksum of the file of a name or a path; None: not there."""
    path = path_of(name, python)
    return None if path is None else checksum(path)


def find(name: str, python: str | None = None) -> Foundation | None:
    """Return what the checkpoint of a name or a path says; None: it is not there, or is none that can be read."""
    path = path_of(name, python)
    return None if path is None else read(path)


def read(path: Path) -> Foundation | None:
    """Return what a checkpoint says; None if it is not there, or none of SevenNet's."""
    try:
        about = path.stat()
    except OSError:
        return None
    return _read(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=32)
def _read(path: Path, size: int, modified_ns: int) -> Foundation | None:  # noqa: ARG001 - they are part of the key
    try:
        config = _content(path)["config"]
        modal_map = dict(config.get("_modal_map") or {})
        return Foundation(
            elements=frozenset(map(str, config["chemical_species"])),
            cutoff_A=float(config["cutoff"]),
            modals=tuple(map(str, modal_map)),
            modal=str(config["default_modal"]) if modal_map and "default_modal" in config else None,
        )
    except _UNREADABLE:
        return None


def _content(path: Path) -> Mapping[str, Any]:
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in _names(archive) if name.count("/") == 1 and name.endswith("/data.pkl"))
        if archive.getinfo(name).file_size > _LARGEST:
            raise ValueError(f"{path}: larger than what a checkpoint says of itself ever is")
        found = _Reader(io.BytesIO(archive.read(name))).load()
    if not isinstance(found, Mapping):
        raise ValueError(f"{path}: no checkpoint of SevenNet")
    return found


def _names(archive: zipfile.ZipFile) -> Iterator[str]:
    yield from archive.namelist()
    raise ValueError("no archive of torch")


class _Blank:
    """An object of a pickle, whatever it is."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...

    def __call__(self, *_: object) -> _Blank:
        return self


class _Mapping(dict[Any, Any]):
    """A mapping of a pickle, which may have attributes."""


class _Reader(pickle.Unpickler):
    """Reads a pickle of torch without calling anything that it names."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - a class
        return _Mapping if (module, name) == ("collections", "OrderedDict") else _Blank

    def persistent_load(self, _: object) -> _Blank:
        return _Blank()
