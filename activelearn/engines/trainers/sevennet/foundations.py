"""Foundations of SevenNet: checkpoints by the names of sevenn's own loader, with their metadata.

A checkpoint is read without torch, and nothing in it is executed: its pickle is parsed into numbers, strings,
lists and mappings, with None in place of every object. Nothing is downloaded: names are known
if their files exist, in the wheel (7net-0, 7net-0_22may2024, 7net-l3i5, 7net-mf-0) or where sevenn has put them.
"""

from __future__ import annotations

import pickletools
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
#: Where sevenn stores downloads if it cannot write into its own folder.
_CACHE: Final = "~/.cache/sevennet"
#: Largest metadata of a checkpoint that is read, bytes (those of the wheel have 5e4).
_LARGEST: Final = 2**24
#: Exceptions raised by other or corrupt files.
_UNREADABLE: Final = (
    AttributeError, EOFError, LookupError, NotImplementedError, OSError, RuntimeError, TypeError, ValueError,
    zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True)
class Foundation:
    """Metadata of a checkpoint.

    Parameters
    ----------
    elements
        Known elements.
    cutoff_A
        Cutoff of one message-passing layer, Å.
    modals
        The kinds of labels that it distinguishes (fidelities), such as PBE and R2SCAN; usually none.
    modal
        The one that it was fine-tuned for, if given.
    """

    elements: frozenset[str]
    cutoff_A: float
    modals: tuple[str, ...] = ()
    modal: str | None = None


def canonical(name: str) -> str:
    """Return a name of sevenn as spelled in :data:`NAMES`; sevenn accepts several spellings."""
    found = name.lower().replace("sevennet-", "7net-", 1)
    return "7net-0" if found in {"7net-0_11july2024", "7net-0_11jul2024"} else found


def path_of(name: str, python: str | None = None) -> Path | None:
    """Return the file of a name, for the sevenn of an interpreter (null: this one), or of a path; None if missing."""
    path = expanded(name)
    if is_file(path):
        return path.absolute()
    inside = NAMES.get(canonical(name))
    if inside is None:
        return None
    folders = [folder / "sevenn" / "pretrained_potentials" for folder in folders_of(python)]
    return next((path for folder in (*folders, expanded(_CACHE)) if is_file(path := folder / inside)), None)


def sha256_of(name: str, python: str | None) -> str | None:
    """Return the checksum of the file of a name or a path; None if missing."""
    path = path_of(name, python)
    return None if path is None else checksum(path)


def find(name: str, python: str | None = None) -> Foundation | None:
    """Return the metadata of the checkpoint of a name or a path; None if missing or unreadable."""
    path = path_of(name, python)
    return None if path is None else read(path)


def read(path: Path) -> Foundation | None:
    """Return the metadata of a checkpoint; None if missing, or not one of SevenNet's."""
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
            raise ValueError(f"{path}: metadata larger than that of any checkpoint")
        found = _taken_apart(archive.read(name))
    if not isinstance(found, Mapping):
        raise ValueError(f"{path}: not a checkpoint of SevenNet")
    return found


def _names(archive: zipfile.ZipFile) -> Iterator[str]:
    yield from archive.namelist()
    raise ValueError("not an archive of torch")


_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_MARK: Final = object()


def _taken_apart(pickled: bytes) -> Any:  # noqa: ANN401 - of any kind
    """Return the contents of a pickle: strings, numbers, lists, tuples and mappings, with None for all objects."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for code, argument, _ in pickletools.genops(pickled):
        before, after = [one.name for one in code.stack_before], code.stack_after
        if code.name in _CONSTANTS:
            stack.append(_CONSTANTS[code.name])
        elif code.name == "MARK":
            stack.append(_MARK)
        elif "PUT" in code.name or code.name == "MEMOIZE":
            memo[len(memo) if argument is None else int(argument)] = stack[-1]
        elif argument is not None and code.name.endswith("GET"):
            stack.append(memo[int(argument)])
        elif not before and after:
            stack.append({} if code.name == "EMPTY_DICT" else [] if code.name == "EMPTY_LIST" else argument)
        elif before and code.name != "STOP":
            _carry_out(code.name, before, len(after), stack)
    return stack[-1]


def _carry_out(name: str, before: list[str], n_after: int, stack: list[Any]) -> None:
    """Apply an operation to a stack, as far as it builds lists, tuples and mappings."""
    n_fixed = before.index("mark") if "mark" in before else len(before)
    given: list[Any] = []
    while "mark" in before and (top := stack.pop()) is not _MARK:
        given.insert(0, top)
    fixed = [stack.pop() for _ in range(n_fixed)][::-1]
    target = fixed[0] if fixed else None
    values = given or fixed[1:]
    if name.startswith("SETITEM") and isinstance(target, dict):
        target.update({key: value for key, value in zip(values[::2], values[1::2], strict=True) if _is_plain(key)})
        stack.append(target)
    elif name.startswith("APPEND") and isinstance(target, list):
        target.extend(values)
        stack.append(target)
    elif name.startswith("TUPLE"):
        stack.append(tuple(given or fixed))
    else:
        stack.extend([None] * n_after)


def _is_plain(key: object) -> bool:
    return isinstance(key, str | int)
