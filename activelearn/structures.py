"""Structure files, read by ASE without what its reader of XYZ passes over in silence.

ASE stops at the first empty line between two frames of an XYZ file, whatever follows, and leaves a ``virial`` among the
remarks on a frame. The labels of an import have a reader of their own, which is stricter (:mod:`activelearn.exchange`).
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms

_OPENERS: Final[dict[str, Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
#: ASE's names of XYZ, extended or not.
_XYZ: Final = ("extxyz", "xyz")


def opened(path: Path) -> IO[str]:
    """Open a text file, which may end with .gz, .bz2 or .xz; bytes that are not text are replaced, a BOM is skipped."""
    found: IO[str] = _OPENERS.get(path.suffix.lower(), open)(path, "rt", encoding="utf-8-sig", errors="replace")
    return found


def read_structures(path: Path, index: str = ":") -> list[Atoms]:
    """Return structures of a file in any format that ASE reads, with their labels as ASE has them (eV, Å, eV/Å^3).

    Parameters
    ----------
    path
        The file, compressed or not.
    index
        Which structures, as ASE has it: ``":"`` all, ``"-1"`` the last one.

    Raises
    ------
    Exception
        Of any kind: ASE cannot read it.
    """
    from ase.io import read
    from ase.io.formats import filetype

    kind = filetype(str(path))
    if kind in _XYZ:
        with opened(path) as lines:
            found = read(io.StringIO("".join(_without_gaps(lines))), index=index, format=kind)
    else:
        found = read(path, index=index, do_not_split_by_at_sign=True)
    images: list[Atoms] = found if isinstance(found, list) else [found]
    for image in images:
        _add_stress(image)
    return images


def _without_gaps(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of an XYZ file without the empty ones between its frames."""
    left = iter(lines)
    for line in left:
        if line.strip():
            yield line
            yield from islice(left, int(line) + 1 if line.strip().isdigit() else 0)


def _add_stress(image: Atoms) -> None:
    """Give a structure with a virial (eV, ``-volume * stress``) in place of a stress that stress."""
    from ase.stress import full_3x3_to_voigt_6_stress

    virial: Any = image.info.get("virial", image.info.get("virials"))
    results = {} if image.calc is None else image.calc.results
    if results and "stress" not in results and np.size(virial) == 9 and image.cell.rank == 3:
        stress = -np.asarray(virial, dtype=np.float64).reshape(3, 3) / image.cell.volume
        results["stress"] = full_3x3_to_voigt_6_stress(stress)
