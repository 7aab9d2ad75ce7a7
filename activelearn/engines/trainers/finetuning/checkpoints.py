"""What a file of torch says of itself, without torch: its pickle is read, and nothing in it is carried out.

In the place of every object and every function that it names stands an inert one, which keeps what it is given.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: Bytes of the part of a file that is no weights: the largest that is read (SevenNets have 5e4, MACEs up to some 1e6).
LARGEST: Final = 2**26
#: What is raised by a file that is something else, or damaged.
UNREADABLE: Final = (
    AttributeError, EOFError, ImportError, LookupError, MemoryError, NotImplementedError, OSError, OverflowError,
    RecursionError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile,
)  # fmt: skip
_KINDS: Final = {"LongStorage": "<i8", "IntStorage": "<i4", "DoubleStorage": "<f8", "FloatStorage": "<f4"}


@dataclass(frozen=True)
class Foundation:
    """What the file of a foundation says of itself.

    Parameters
    ----------
    elements
        That it knows.
    cutoff_A
        Of one layer of messages, Å.
    kinds
        The kinds of labels that it tells apart (modals, heads), such as PBE and R2SCAN; none of one that does not.
    kind
        That of them which it was fine-tuned for, if it says so.
    precision
        Of its weights, if it says so.
    """

    elements: frozenset[str]
    cutoff_A: float
    kinds: tuple[str, ...] = ()
    kind: str | None = None
    precision: str | None = None


class Inert:
    """Stands for an object: what it was called with, its attributes, and its items."""

    name: str = ""

    def __new__(cls, *given: Any, **_: Any) -> Inert:  # noqa: ANN401 - anything
        """Keep what a class or a function is called with."""
        made = object.__new__(cls)
        made.given, made.state, made.items = given, {}, {}
        return made

    given: tuple[Any, ...]
    state: Any
    items: dict[Any, Any]

    def __setstate__(self, state: Any) -> None:  # noqa: ANN401 - anything
        """Keep its attributes."""
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:  # noqa: ANN401 - anything
        """Keep an item, as of an ordered mapping."""
        self.items[key] = value

    def append(self, _: Any) -> None:  # noqa: ANN401 - anything
        """Take what a list would."""

    def extend(self, _: Any) -> None:  # noqa: ANN401 - anything
        """Take what a list would."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - as the base says
        return type("Inert", (Inert,), {"name": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:  # noqa: ANN401 - as the base says
        return pid


class Content:
    """What is in a file of torch.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    OSError, ValueError, ...
        One of :data:`UNREADABLE`: it is not a checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in _names(archive) if name.count("/") == 1 and name.endswith("/data.pkl"))
            self._folder = name.rpartition("/")[0]
            if archive.getinfo(name).file_size > LARGEST:
                raise ValueError(f"{path}: larger than what a model says of itself ever is")
            self.root = _Reader(io.BytesIO(archive.read(name))).load()

    def numbers(self, tensor: Any) -> NDArray[Any]:  # noqa: ANN401 - of any kind
        """Return the numbers (n,) of a small contiguous tensor of :meth:`root`, in a row, of any unit."""
        storage, offset, shape = tensor.given[:3]
        _, kind, key, _, n = storage
        dtype = np.dtype(_KINDS[kind.name.rpartition(".")[2]])
        if not (isinstance(key, str) and key.isalnum() and int(n) * dtype.itemsize < LARGEST):
            raise ValueError(f"{self.path}: no tensor that can be read")
        with zipfile.ZipFile(self.path) as archive:
            found = np.frombuffer(archive.read(f"{self._folder}/data/{key}"), dtype=dtype)
        return found[int(offset) : int(offset) + int(np.prod(shape, dtype=np.int64))]


def part(value: Any, *keys: str) -> Any:  # noqa: ANN401 - anything
    """Return what stands in a mapping, or among the attributes or items of an object, by a row of keys."""
    for key in keys:
        if isinstance(value, Inert):
            value = value.state if isinstance(value.state, Mapping) and key in value.state else value.items
        value = value[key]
    return value


def asked(path: Path, about: Callable[[Content], Foundation]) -> Foundation | None:
    """Return what `about` finds in a file; None if it is not there, or is none of those."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return _asked(path, about, seen.st_size, seen.st_mtime_ns)


@lru_cache(maxsize=32)
def _asked(path: Path, about: Callable[[Content], Foundation], size: int, modified_ns: int) -> Foundation | None:  # noqa: ARG001 - they are part of the key
    try:
        return about(Content(path))
    except UNREADABLE:
        return None


def _names(archive: zipfile.ZipFile) -> Iterator[str]:
    yield from archive.namelist()
    raise ValueError("no archive of torch")
