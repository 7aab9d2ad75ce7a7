"""Strained cells: shared by bulk modulus and elastic constants.

Long work is stored in the task's folder step by step, so that a kill costs one relaxation and not all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from activelearn.benchmark.property import Product
from activelearn.config import Potential, Reference, Relax
from activelearn.engines import frozen
from activelearn.engines import reference as engine
from activelearn.engines.process import Slot
from activelearn.frames import FloatArray, Frames
from activelearn.store import read_npz
from activelearn.store.files import publish_npz
from activelearn.units import EV_PER_A3_IN_GPA

#: Rows and columns of the six Voigt components, in ASE's order: xx, yy, zz, yz, xz, xy.
VOIGT: Final = ((0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1))


class Failed(Exception):
    """A structure on which the potential failed physically; the message says where and why."""


def strained(frames: Frames, strain: FloatArray) -> Frames:
    """Return bare frames deformed by F = 1 + strain, the atoms moving along.

    Parameters
    ----------
    frames
        Any cells.
    strain
        (3, 3), pure number; symmetric, so that nothing rotates.
    """
    deformation = np.eye(3) + strain
    bare = frames.without_labels()
    return replace(bare, cell=bare.cell @ deformation.T, positions=bare.positions @ deformation.T)


def stress_GPa(frames: Frames) -> FloatArray:
    """Return (n_frames, 6) stress of labelled frames, GPa, positive in tension: xx, yy, zz, yz, xz, xy.

    It is -virial/volume, see :mod:`activelearn.frames`.
    """
    stress: FloatArray = -frames.label("virial")[:, VOIGT[0], VOIGT[1]] / frames.volume[:, None] * EV_PER_A3_IN_GPA
    return stress


def pressure_GPa(frames: Frames) -> FloatArray:
    """Return (n_frames,) pressure of labelled frames, GPa, positive in compression: -(s_xx + s_yy + s_zz)/3."""
    return np.asarray(-stress_GPa(frames)[:, :3].mean(axis=1))


def kept(file: Path, make: Callable[[], Product]) -> Product:
    """Return the result of `make`, from the file if it was made before a kill."""
    if not file.is_file():
        publish_npz(file, *make())
    return read_npz(file)


@dataclass(frozen=True)
class Relaxer:
    """Relaxations with one potential, each done once.

    Parameters
    ----------
    reference, slot
        The potential, and where it runs.
    fmax
        Force convergence criterion, eV/Å.
    max_steps
        Largest number of steps of one relaxation.
    folder
        Of the task.
    """

    reference: Reference
    slot: Slot
    fmax: float
    max_steps: int
    folder: Path

    def relaxed(self, name: str, start: Frames, *, relax_cell: bool = False) -> tuple[Frames, bool]:
        """Return one frame after relaxation, with labels, and whether it came below `fmax`.

        Parameters
        ----------
        name
            Of the relaxation, different for each in the task.
        start
            One frame.
        relax_cell
            Also relax the cell to zero stress.

        Raises
        ------
        Failed
            The potential returned non-finite numbers.
        """

        def make() -> Product:
            settings = Relax(fmax=self.fmax, max_steps=self.max_steps, cell=relax_cell)
            frame, ended, _, _ = engine.relax(self.reference, start, settings, self.slot)
            if frame is None:
                raise Failed(f"{name}: {ended}")
            return frame.arrays(), {"is_relaxed": ended == "relaxed"}

        arrays, meta = kept(self.folder / f"{name}.npz", make)
        return Frames.from_arrays(arrays), bool(meta["is_relaxed"])


def crowding(potential: Potential, folder: Path, pattern: str = "*.npz") -> dict[str, Any]:
    """Return in how many of the structures in a task's folder neighbours were dropped."""
    found = [Frames.from_arrays(read_npz(file)[0]) for file in sorted(folder.glob(pattern))]
    return frozen.crowding(potential, found)


def unrelaxed_note(metas: Iterable[Mapping[str, Any]]) -> str:
    """Return a note on relaxations that did not finish; empty if all did."""
    n = sum(int(meta.get("n_unrelaxed", 0)) for meta in metas)
    return f"; {n} relaxation{'s' if n > 1 else ''} not finished in the steps allowed" if n else ""
