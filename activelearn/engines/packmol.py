"""Packmol: writes its input, runs it, and reads the positions of the molecules.

L. Martinez, R. Andrade, E. G. Birgin, J. M. Martinez, J. Comput. Chem. 30, 2157 (2009). Its ``pbc`` keyword (since
20.15) keeps the atoms of different molecules apart across the faces of the box as well: measured on 21.2.3, no pair
below the distance in 150 packings. It ignores a molecule's own images, so a box must not be smaller than the molecule.
Molecules stay whole inside the box, so its outer layer is depleted (0.76 of its share of centres within 1 Å of a
face, ``findings/packmol-faces.sh``): a melt loses this, an unrelaxed packing does not.

Signatures (measured on 21.2.3): a packing that was not found ends with return code 173 and ``ENDED WITHOUT PERFECT
PACKING``, and its best attempt is written nevertheless; a molecule that does not fit into the box ends with 173 and
``unable to put the molecules``; a keyword unknown to an older version with ``Keyword not recognized``. An
output is valid only with return code 0 and ``Success!``. The same input and seed give the same bytes; seed -1 would be
the clock.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from activelearn.config import Machine
from activelearn.engines.process import Slot, run_command, tail_of
from activelearn.errors import ConfigError, EngineError
from activelearn.frames import FloatArray

INPUT, OUTPUT, LOG = "packmol.inp", "packed.xyz", "packmol.log"
#: Messages of Packmol when there is no such packing, due to the input and not to the machine.
IMPOSSIBLE: Final = ("ENDED WITHOUT PERFECT PACKING", "unable to put the molecules")
_LARGEST_SEED: Final = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Piece:
    """A rigid molecule or a single atom, and the number of copies.

    Parameters
    ----------
    symbols
        (n,) chemical symbols.
    positions
        (n, 3) Å, about any origin.
    count
        Number of copies to pack.
    """

    symbols: tuple[str, ...]
    positions: FloatArray
    count: int


def find(machine: Machine) -> str | None:
    """Return the path of the program: next to the machine's interpreter or ours, or on the PATH; None if not found."""
    beside = [str(Path(python).parent) for python in (machine.python, sys.executable) if python]
    return shutil.which("packmol", path=os.pathsep.join([*beside, os.environ.get("PATH", "")]))


def write_input(folder: Path, pieces: Sequence[Piece], *, box_A: float, tolerance_A: float, random_seed: int) -> None:
    """Write ``packmol.inp`` and one xyz file per piece; names are relative, since Packmol truncates long paths."""
    lines = [f"tolerance {tolerance_A:.9g}", f"seed {1 + random_seed % _LARGEST_SEED}", "filetype xyz"]
    lines += [f"output {OUTPUT}", f"pbc 0.0 0.0 0.0 {box_A:.9f} {box_A:.9f} {box_A:.9f}"]
    for i, piece in enumerate(pieces):
        atoms = [
            f"{symbol} {x:.9f} {y:.9f} {z:.9f}"
            for symbol, (x, y, z) in zip(piece.symbols, piece.positions, strict=True)
        ]
        (folder / f"piece-{i}.xyz").write_text("\n".join([str(len(atoms)), "piece", *atoms]) + "\n")
        lines += [f"structure piece-{i}.xyz", f"  number {piece.count}", "end structure"]
    (folder / INPUT).write_text("\n".join(lines) + "\n")


def run(
    pieces: Sequence[Piece], *, box_A: float, tolerance_A: float, random_seed: int, folder: Path, slot: Slot
) -> list[FloatArray]:
    """Pack copies of `pieces` into a periodic cube.

    Parameters
    ----------
    pieces
        What to pack.
    box_A
        Edge of the cube, Å.
    tolerance_A
        Shortest distance between atoms of different copies, Å.
    random_seed
        The same seed gives the same packing.
    folder
        Working directory (created if missing).
    slot
        Where it runs; the time-out is that of a walk.

    Returns
    -------
    list
        By piece (count, n, 3) Cartesian positions, Å, not wrapped into the box.

    Raises
    ------
    ConfigError
        Packmol found no such packing.
    EngineError
        Packmol is missing, too old, crashed, took too long, or its output is truncated.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (OUTPUT, LOG):
        (folder / name).unlink(missing_ok=True)
    write_input(folder, pieces, box_A=box_A, tolerance_A=tolerance_A, random_seed=random_seed)
    command = [find(slot.machine) or "packmol", "-i", INPUT]
    done = run_command(command, folder, log=folder / LOG, timeout_s=slot.machine.walk_timeout_s, slot=slot)
    n_atoms = sum(piece.count * len(piece.symbols) for piece in pieces)
    _want_success(folder, done.return_code, f"{n_atoms} atoms, {tolerance_A:g} Å apart, in a box of {box_A:.2f} Å")
    return read_output(folder / OUTPUT, pieces)


def _want_success(folder: Path, return_code: int, what: str) -> None:
    said = (folder / LOG).read_text(errors="replace")
    if return_code == 0 and "Success!" in said:
        return
    if any(signature in said for signature in IMPOSSIBLE):
        raise ConfigError(
            f"packing: Packmol could not place {what} - expected a looser packing - lower density_g_cm3 or "
            "tolerance_A, or use more atoms (molecules need space); near the limit, another random_seed may work"
        )
    how = f"signal {-return_code}" if return_code < 0 else f"return code {return_code}"
    hint = " - it is too old for `pbc`: pip install 'packmol>=21'" if "Keyword not recognized" in said else ""
    raise EngineError(
        f"Packmol ended with {how}{hint}", command=["packmol", "-i", INPUT], folder=folder, tail=tail_of(folder / LOG)
    )


def read_output(path: Path, pieces: Sequence[Piece]) -> list[FloatArray]:
    """Return the positions by piece, (count, n, 3) Å.

    Raises
    ------
    EngineError
        The file is incomplete, or its atoms are not those of `pieces`.
    """
    symbols = [symbol for piece in pieces for symbol in piece.symbols * piece.count]
    rows = [line.split() for line in path.read_text().splitlines()[2:]] if path.is_file() else []
    try:
        positions = np.array([row[1:4] for row in rows], dtype=np.float64).reshape(-1, 3)
    except ValueError:
        positions = np.empty((0, 3))
    if len(positions) != len(symbols) or [row[0] for row in rows] != symbols or not np.isfinite(positions).all():
        raise EngineError(
            f"{path}: expected {len(symbols)} atoms in the order of the input, found {len(rows)} rows - is the disk "
            "full?"
        )
    ends = np.cumsum([piece.count * len(piece.symbols) for piece in pieces])
    parts = np.split(positions, ends[:-1])
    return [part.reshape(piece.count, -1, 3) for part, piece in zip(parts, pieces, strict=True)]
