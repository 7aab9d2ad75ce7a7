"""Extended XYZ: frames are read by ASE, after checking where they start and end and what their columns are.

ASE stops at the first empty line, drops columns without a name, uses the last of two equal keys, and three of the
six numbers of an asymmetric stress, all silently. Frames are therefore separated here, by the line that
names the columns, and an inconsistent frame affects only itself.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn.errors import ConfigError
from activelearn.exchange.reads import Read, from_atoms, source
from activelearn.structures import opened
from activelearn.units import EV_PER_A3_IN_GPA

if TYPE_CHECKING:
    from ase import Atoms

#: Labels, and possible names of each, in the order in which they are looked for.
NAMES: Final = {
    "energy": ("free_energy", "energy"),
    "forces": ("forces", "force"),
    "stress": ("stress",),
    "virial": ("virial", "virials"),
}
_LABEL_LIKE: Final = re.compile(r"(?i)energy|forces?$|stress|virials?$")
#: Keys of a frame other than labels; for duplicates of other keys, ASE's last one is accepted.
_FRAME: Final = {"lattice", "properties", "pbc"}
_OF_A_REFERENCE: Final = re.compile(r"(?i)(ref|dft)_?(energy|forces|stress|virial)$")
_COLUMNS: Final = re.compile(r"\bProperties\s*=\s*\"?([^\s\"]+)|\bLattice\s*=")
_KEY: Final = re.compile(r"([A-Za-z_][\w-]*)\s*=")
_QUOTED: Final = re.compile(r"\"[^\"]*\"|'[^']*'|\{[^}]*\}|\[[^]]*\]")
_BY_DEFAULT: Final = "species:S:1:pos:R:3"
#: Relative and absolute (eV) tolerance between stress and virial of one frame, for rounding in two formats.
_RELATIVE, _ABSOLUTE = 1.0e-3, 1.0e-3


def parsed_keys(text: str) -> dict[str, str]:
    """Return the names of labels from ``energy=REF_energy,forces=REF_forces``.

    Raises
    ------
    ConfigError
        One is not a label, or has no name.
    """
    pairs = [[side.strip() for side in part.partition("=")[::2]] for part in text.split(",") if part.strip()]
    found = dict(pairs)
    if not pairs or len(found) < len(pairs) or not set(found) <= set(NAMES) or not all(found.values()):
        raise ConfigError(
            f"--keys {text}: cannot be read - expected names of {', '.join(NAMES)}, each once - for example: "
            "--keys energy=REF_energy,forces=REF_forces,virial=REF_virial"
        )
    return found


@dataclass
class _Chunk:
    """The lines of one frame: its first line, the line that names its columns, and its atoms."""

    number: int  # of its first line, from 1
    head: str
    comment: str
    atoms: list[str] = field(default_factory=list)

    def damage(self) -> str | None:
        """Return the inconsistency of its lines, or None."""
        if not self.head.strip().isdigit():
            return f"line {self.number}: {self.head.strip()[:40]!r} instead of a number of atoms"
        if len(self.atoms) != int(self.head):
            return f"line {self.number}: {int(self.head)} atoms, but {len(self.atoms)} lines of atoms"
        keys = [key.lower() for key in _KEY.findall(_QUOTED.sub("''", self.comment))]
        twice = sorted({key for key in keys if keys.count(key) > 1 and (key in _FRAME or _LABEL_LIKE.search(key))})
        if twice:
            return f"line {self.number + 1}: {twice[0]} twice"
        named = _COLUMNS.findall(self.comment)
        fields = next((name for name in named if name), _BY_DEFAULT).split(":")
        if len(fields) % 3 or not all(n.isdigit() for n in fields[2::3]):
            return f"line {self.number + 1}: Properties cannot be read"
        width = sum(int(n) for n in fields[2::3])
        for k, line in enumerate(self.atoms):
            if len(line.split()) != width:
                return f"line {self.number + 2 + k}: {len(line.split())} columns, but Properties names {width}"
        return None


def read_extxyz(path: Path, keys: Mapping[str, str] | None = None) -> Iterator[Read]:
    """Read the frames of an extended XYZ.

    Parameters
    ----------
    path
        The file, compressed or not.
    keys
        Names of labels in the file that are not ASE's: see :func:`parsed_keys`.

    Raises
    ------
    ConfigError
        There is no frame in it.
    """
    k = -1
    with opened(path) as lines:
        for k, chunk in enumerate(_chunks(path, lines)):
            where = f"{path} frame {k}"
            if (damage := chunk.damage()) is not None:
                yield Read(f"{where}, {damage}", None, "damaged")
                continue
            try:
                image, problem = _image(chunk, keys or {})
            except Exception as error:  # noqa: BLE001 - of ASE's parser: any kind
                yield Read(f"{where}, line {chunk.number}: {error}", None, "damaged")
                continue
            if problem is not None:
                yield Read(f"{where}, line {chunk.number + 1}: {problem[1]}", None, problem[0])
                continue
            frame, reason = from_atoms(image, source(path))
            unused = _unused(image, keys or {}) if reason is not None else ""
            yield Read(where + unused, frame, reason)
    if k < 0:
        raise ConfigError(
            f"{path}: cannot be read as extxyz, contains no line with Properties= or Lattice= - expected extended XYZ, "
            "as written by ASE - write it again, or give another --format; nothing was imported"
        )


def _chunks(path: Path, lines: Iterator[str]) -> Iterator[_Chunk]:
    """Yield the frames: each starts on the line before the one that names its columns."""
    chunk: _Chunk | None = None
    last: tuple[int, str] | None = None  # a line that starts a frame if the next one says so
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if _COLUMNS.search(line):
            if chunk is not None:
                yield chunk
            chunk, last = _Chunk(*(last or (number, "")), line), None
            continue
        if last is not None:
            _keep(path, chunk, last)
        last = (number, line)
    if last is not None and chunk is not None:
        chunk.atoms.append(last[1])
    if chunk is not None:
        yield chunk


def _keep(path: Path, chunk: _Chunk | None, line: tuple[int, str]) -> None:
    if chunk is None:
        raise ConfigError(
            f"{path}: cannot be read as extxyz, line {line[0]} is not a frame - expected a number of atoms, a line "
            "with Lattice= and Properties=, and the atoms - write it again; nothing was imported"
        )
    chunk.atoms.append(line[1])


def _image(chunk: _Chunk, keys: Mapping[str, str]) -> tuple[Atoms, tuple[str, str] | None]:
    """Return the frame as ASE's structure with the labels where ASE has them; and any objection.

    An objection is a key of the refusals, with the numbers.
    """
    from ase.io import iread
    from ase.io.extxyz import key_val_str_to_dict

    text = f"{chunk.head}{chunk.comment}" + "".join(chunk.atoms)
    image = next(iread(io.StringIO(text), ":", format="extxyz"))
    there = key_val_str_to_dict(chunk.comment) | image.arrays
    if image.calc is not None:
        there = image.calc.results | there  # a stress as in the file: nine numbers
    found: dict[str, Any] = {}
    for label, names in NAMES.items():
        expected = (keys[label],) if label in keys else names
        if label in keys and keys[label] not in there:
            return image, (f"no {label}", f"no {keys[label]}, which --keys names")
        values = [np.asarray(there[name], dtype=np.float64) for name in expected if there.get(name) is not None]
        if len(values) > 1 and label != "energy" and not np.array_equal(values[0], values[1]):
            return image, ("two values of one label", f"{' and '.join(expected)} differ")
        if values:
            found[label] = values[0]
    return image, _second(found, there, keys) or _set(image, found)


def _second(found: Mapping[str, Any], there: Mapping[str, Any], keys: Mapping[str, str]) -> tuple[str, str] | None:
    """Return which label of the reference is duplicated with other numbers."""
    for name, value in there.items():
        match = _OF_A_REFERENCE.match(name)
        label = match[2].lower() if match else ""
        if label in found and label not in keys and not np.array_equal(np.ravel(value), np.ravel(found[label])):
            return "two values of one label", f"{label} and {name} differ, --keys {label}={name} takes the latter"
    return None


def _set(image: Atoms, found: dict[str, Any]) -> tuple[str, str] | None:
    """Put labels into the calculator of a structure, with a virial as a stress; return any objection."""
    sizes = {"energy": 1, "forces": 3 * len(image), "stress": 9, "virial": 9}
    for label, values in found.items():
        if values.size != sizes[label]:
            more = ": the order of six is not known" if values.size == 6 else ""
            return "damaged", f"{values.size} numbers for {label}, expected {sizes[label]}{more}"
    volume = image.cell.volume
    stresses: dict[str, NDArray[np.float64]] = {}
    if "stress" in found:
        stresses["stress"] = found["stress"].reshape(3, 3)
    if "virial" in found and volume > 0.0:
        stresses["virial"] = -found["virial"].reshape(3, 3) / volume
    for label, stress in stresses.items():
        if _differ(stress, stress.T, volume):
            return "damaged", f"{label} is not symmetric"
    if len(stresses) == 2 and _differ(stresses["stress"], stresses["virial"], volume):
        gpa = {name: EV_PER_A3_IN_GPA * float(np.trace(values)) / 3.0 for name, values in stresses.items()}
        told = f"a third of the trace is {gpa['stress']:.4g} GPa by the stress, {gpa['virial']:.4g} GPa by the virial"
        return "stress against virial", told
    image.calc = _calculator(image, found, next(iter(stresses.values()), None))
    return None


def _calculator(image: Atoms, found: Mapping[str, Any], stress: NDArray[np.float64] | None) -> Any:  # noqa: ANN401 - ASE's, or None
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.stress import full_3x3_to_voigt_6_stress

    results: dict[str, Any] = {} if stress is None else {"stress": full_3x3_to_voigt_6_stress(stress)}
    if "energy" in found:
        results["energy"] = float(found["energy"].reshape(()))
    if "forces" in found:
        results["forces"] = found["forces"].reshape(-1, 3)
    return SinglePointCalculator(image, **results) if results else None


def _differ(one: NDArray[np.float64], other: NDArray[np.float64], volume: float) -> bool:
    return not np.allclose(
        one * volume, other * volume, rtol=0, atol=_ABSOLUTE + _RELATIVE * np.abs(one * volume).max(), equal_nan=True
    )


def _unused(image: Atoms, keys: Mapping[str, str]) -> str:
    """Return unused label keys of a frame, with the option that uses them."""
    known = {name for names in NAMES.values() for name in names} | set(keys.values())
    names = [name for name in (*image.info, *image.arrays) if _LABEL_LIKE.search(name) and name not in known]
    taken = {label: name for name in names for label in NAMES if name.lower().rstrip("s").endswith(label.rstrip("s"))}
    option = ",".join(f"{label}={name}" for label, name in taken.items())
    return f", which has {', '.join(names)}: for example --keys {option}" if option else ""
