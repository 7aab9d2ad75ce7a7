"""Metadata of a frozen DeePMD model: elements, cutoffs, maximum numbers of neighbours.

They are read from the file, also for compressed models, without TensorFlow or torch (which take 6 s to import, and
may be on other nodes). A ``.pb`` is a protobuf message (``GraphDef``: field 1 is a node; of a node, 1 is its name and 5
its attributes; of a tensor, 1 is its type, 4 its bytes, 5 to 8 and 10 its values) with constants. A ``.pth`` and a
``.pt2`` are zip files, in which the section ``model`` of the training's ``input.json`` is one text: of the former in a
pickle, which is parsed and never executed.

A model uses at most `sel` nearest neighbours of each element and silently drops the others: its
forces jump where an atom enters or leaves, and all members of an ensemble agree on them, since all truncate alike. No
force deviation reveals this, so such frames must be counted.

A compressed model tabulates its embedding net in s(r), which is 1/r near an atom and falls to 0 at the cutoff, minus
its mean, over its standard deviation: fine up to the shortest distance in the data, coarse up to five times as far,
and constant beyond. Measured (two networks, a pair of atoms pushed together): forces are those of the model itself to
1e-8 eV/Å or better (float32: 1e-4) down to the end of the table, and silently wrong by eV/Å at half that distance.
"""

from __future__ import annotations

import json
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from activelearn import geometry
from activelearn.config import Potential
from activelearn.engines.references import ase
from activelearn.engines.trainers.deepmd import blocks, compression
from activelearn.frames import FloatArray, Frames

_TYPE_MAP: Final = b"model_attr/tmap"
_RCUT: Final = b"descrpt_attr/rcut"
_SEL: Final = b"descrpt_attr/sel"
_TRAINED_BY: Final = b"train_attr/training_script"
_KIND: Final = b"model_type"
_COMPRESSED: Final = b"compressed_model"
#: For tensors stored as bytes: TensorFlow's type number, and the NumPy type.
_DTYPES: Final = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}
#: A cell with this many times the neighbours that fit has collapsed.
_COLLAPSED: Final = 20
#: Magic bytes of a zip file; the entries of a ``.pt2``; maximum size in bytes of an entry that is read.
_ZIP: Final = b"PK\x03\x04"
_SCRIPT: Final = "model/extra/model_def_script.json"
_METADATA: Final = "model/extra/metadata.json"
_LARGEST_ENTRY: Final = 2**27
_UNREADABLE: Final = (
    AssertionError, AttributeError, EOFError, LookupError, NotImplementedError, OSError, OverflowError, RecursionError,
    RuntimeError, TypeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5


@dataclass(frozen=True)
class Frozen:
    """A frozen model.

    Parameters
    ----------
    type_map
        The elements that it knows, in the order of its types.
    rcut
        Cutoff, Å; 0 if not given.
    sel
        Maximum number of neighbours by element of `type_map`; for a descriptor that counts all together (DPA-1), one
        number; empty if not given, or not limited (DPA-4).
    others
        Its other cutoffs with their maximum numbers of neighbours (hybrid, DPA-2, DPA-3).
    Mflop
        Multiply-adds (millions) of one evaluation of an atom in MD, of a compressed model those of a plain one that
        takes as long; None: not known (other than se_e2_a, or a file without its training input).
    """

    type_map: tuple[str, ...]
    rcut: float = 0.0
    sel: tuple[int, ...] = ()
    others: tuple[Frozen, ...] = ()
    Mflop: float | None = field(default=None, compare=False)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is counted: each element, or all together."""
        return ("all elements",) if len(self.sel) == 1 < len(self.type_map) else self.type_map

    def overflow(self, frames: Frames) -> tuple[int, str]:
        """Return the number of frames in which an atom has more neighbours than `sel`, and the excess in the first.

        Frames with unknown elements are not counted, since the model cannot be evaluated there.
        """
        if not self.sel or not set(frames.symbols) <= set(self.type_map):
            return 0, ""
        n, first = 0, ""
        for k in range(len(frames)):  # kept frames are far apart: examining each costs no more than tracking them
            positions, cell = frames.positions[k : k + 1], frames.cell[k : k + 1]
            if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
                continue
            if not any(frames.pbc):  # a molecule may have no cell at all
                cell = np.eye(3)[None] * (np.ptp(positions, axis=1).max() + 2.0 * self.rcut)
            frame = Frames(frames.symbols, cell, positions, frames.pbc)
            words = next(filter(None, (one._beyond(frame) for one in (self, *self.others))), "")
            if words:
                n, first = n + 1, first or words
        return n, first

    def _beyond(self, frame: Frames) -> str:
        """Return the excess of neighbours of an atom within this cutoff in words; empty if there is none."""
        if len(self.sel) == 1 < len(self.type_map):
            frame = replace(frame, symbols=self.kinds * frame.n_atoms)
        most = self._most(frame, self.kinds)
        return geometry.without_room(most, self.kinds, self.sel) if (most > self.sel).any() else ""

    def _most(self, frame: Frames, kinds: tuple[str, ...]) -> FloatArray:
        """Return the largest number of neighbours by element; for a collapsed cell, too many to count, the mean."""
        density = np.array([frame.symbols.count(kind) for kind in kinds]) / frame.volume[0]
        mean = 4.0 / 3.0 * np.pi * self.rcut**3 * density
        if (mean > _COLLAPSED * np.array(self.sel)).any():
            return np.asarray(mean)
        return geometry.most_neighbours(frame, self.rcut, kinds).astype(np.float64)


def read(path: Path) -> Frozen | None:
    """Return the metadata of a frozen model, or None if it is not a readable DeePMD-kit model."""
    try:
        about = path.stat()
    except OSError:
        return None
    return _read(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=32)
def _read(path: Path, size: int, modified_ns: int) -> Frozen | None:  # noqa: ARG001 - they are part of the key
    try:
        with path.open("rb") as file:
            begin = file.read(len(_ZIP))
        return _of_zip(path) if begin == _ZIP else _of_graph(path)
    except _UNREADABLE:  # missing, truncated, or not a DeePMD-kit model
        return None


def _of_graph(path: Path) -> Frozen | None:
    """Return the metadata in the constants of a TensorFlow graph."""
    requested = (_TYPE_MAP, _RCUT, _SEL, _TRAINED_BY, _KIND)
    nodes = _fields(memoryview(path.read_bytes()))
    found = {name: _value(node) for name, node in _named(nodes) if name in requested}
    if _TYPE_MAP not in found:
        return None
    type_map = tuple(found[_TYPE_MAP][0].decode().split())
    sel = tuple(int(n) for n in found.get(_SEL, ()))
    model = _known(type_map, float(found[_RCUT][0]) if _RCUT in found else 0.0, sel)
    is_compressed = _COMPRESSED in found.get(_KIND, ())
    return replace(model, Mflop=_Mflop(found.get(_TRAINED_BY, ()), model.sel, is_compressed=is_compressed))


def _Mflop(script: Sequence[Any], sel: tuple[int, ...], *, is_compressed: bool = False) -> float | None:
    """Return the multiply-adds of an evaluation from a training input or a model block, if they are known."""
    try:
        given = json.loads(script[0])
        block = given.get("model", given)
        plain = blocks.Mflop(block, (sel,)) if sel else None
        faster = compression.faster(block, (sel,)) if is_compressed and plain is not None else None
    except _UNREADABLE:
        return None
    return plain if plain is None or faster is None else faster.Mflop(plain)


def _known(type_map: tuple[str, ...], rcut: float, sel: tuple[int, ...]) -> Frozen:
    """Return a model without a `sel` that cannot be interpreted."""
    is_known = rcut > 0.0 and (len(sel) == len(type_map) or len(sel) == 1)
    return Frozen(type_map, rcut, sel if is_known else ())


# --- PyTorch ----------------------------------------------------------------------------------------------------------


def _of_zip(path: Path) -> Frozen | None:
    """Return the metadata in the model block of a ``.pth`` or ``.pt2``, if there is one."""
    with zipfile.ZipFile(path) as archive:
        script = next((text for text in _texts(archive) if '"type_map"' in text), None)
        metadata = json.loads(_entry(archive, _METADATA)) if _METADATA in archive.namelist() else {}
    if script is None:
        return None
    block = json.loads(script)
    type_map = tuple(map(str, block["type_map"]))
    # Models frozen as a neighbour graph (.pt2 of DPA-1 and DPA-4) do not truncate neighbours.
    cuts = metadata.get("lower_input_kind", "nlist") == "nlist"
    shells = list(dict.fromkeys(_shell(type_map, one, cuts=cuts) for one in blocks.spheres(block)))
    if not any(one.sel for one in shells):
        return Frozen(type_map, max((one.rcut for one in shells), default=0.0))
    first, *others = (one for one in shells if one.sel)
    return replace(first, others=tuple(others), Mflop=None if others else _Mflop([script], first.sel))


def _shell(type_map: tuple[str, ...], sphere: blocks.Sphere, *, cuts: bool) -> Frozen:
    is_limit = cuts and sphere.keys.is_limit
    return _known(type_map, sphere.rcut, tuple(map(int, sphere.sel or ())) if is_limit else ())


def _texts(archive: zipfile.ZipFile) -> Iterator[str]:
    """Yield the texts that may be the model block."""
    names = archive.namelist()
    if _SCRIPT in names:
        yield _entry(archive, _SCRIPT).decode()
    for name in names:
        if name.count("/") == 1 and name.endswith("/data.pkl"):
            for _, argument, _ in pickletools.genops(_entry(archive, name)):
                if isinstance(argument, str) and argument.startswith("{"):
                    yield argument


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _LARGEST_ENTRY:
        raise ValueError(f"{name}: larger than any model block")
    return archive.read(name)


# --- evaluation -------------------------------------------------------------------------------------------------------


def models_of(potential: Potential) -> list[Frozen]:
    """Return the metadata of the models of a DeePMD potential, without duplicates; empty for other potentials."""
    files = potential.deepmd.models if potential.deepmd is not None else ()
    found = [read(Path(file)) for file in files]
    return list(dict.fromkeys(model for model in found if model is not None))


def unknown_to(potential: Potential, elements: Iterable[str]) -> list[str]:
    """Return which of some elements a potential does not know, if it declares its elements."""
    known = elements_of(potential)
    return sorted(set(elements) - known) if known is not None else []


def elements_of(potential: Potential) -> set[str] | None:
    """Return the elements that a potential declares; None if it does not."""
    known = [set(model.type_map) for model in models_of(potential)]
    known += [set(potential.lammps.elements)] if potential.lammps is not None else []
    of_calculator = None if potential.ase is None else ase.elements_of(potential.ase)
    known += [set(of_calculator)] if of_calculator is not None else []
    return set.intersection(*known) if known else None


def crowding(potential: Potential, parts: Iterable[Frames]) -> dict[str, Any]:
    """Return in how many frames an atom has more neighbours than the `sel` of a potential.

    Returns
    -------
    dict
        JSON-able: ``n_overflow`` frames, ``overflow_share`` of all (None for a potential without `sel`), and
        ``overflow``, by how many in the first of them: ``S 61 of 56``.
    """
    models = [model for model in models_of(potential) if model.sel]
    if not models:
        return {"n_overflow": 0, "overflow_share": None, "overflow": ""}
    n, total, first = 0, 0, ""
    for frames in parts:
        here, words = max((model.overflow(frames) for model in models), key=lambda found: found[0])
        n, total, first = n + here, total + len(frames), first or words
    return {"n_overflow": n, "overflow_share": n / total if total else 0.0, "overflow": first}


# --- protobuf ---------------------------------------------------------------------------------------------------------


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("not a protobuf message: a number of more than 64 bits")


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Yield number and value of the fields of a message; messages, strings and packed arrays as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        length, at = _varint(data, at) if kind == _BYTES else ({_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(kind, -1), at)
        if length < 0 or at + length > len(data):
            raise ValueError(f"not a protobuf message: field {number} of kind {kind} and length {length}")
        yield number, data[at : at + length]
        at += length


def _named(nodes: Iterable[tuple[int, Any]]) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the nodes of a graph by name."""
    for number, node in nodes:
        if number == 1 and isinstance(node, memoryview):
            name = next((bytes(value) for n, value in _fields(node) if n == 1 and isinstance(value, memoryview)), b"")
            yield name, node


def _value(node: memoryview) -> list[Any]:
    """Return the values of a constant."""
    for number, attribute in _fields(node):
        pair = dict(_fields(attribute)) if number == 5 else {}
        if pair.get(1) == b"value":
            tensor = dict(_fields(pair[2])).get(8)
            return _values(tensor) if tensor is not None else []
    return []


def _values(tensor: memoryview) -> list[Any]:
    """Return the values of a tensor in any storage format."""
    found: list[Any] = []
    kind = next((value for number, value in _fields(tensor) if number == 1), 0)
    for number, value in _fields(tensor):
        if number == 4 and kind in _DTYPES:
            found += np.frombuffer(value, dtype=_DTYPES[kind]).tolist()
        elif number in {5, 6}:
            found += np.frombuffer(value, dtype="<f4" if number == 5 else "<f8").tolist()
        elif number in {7, 10}:
            found += [value] if isinstance(value, int) else list(_varints(value))
        elif number == 8:
            found.append(bytes(value))
    return found


def _varints(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value
