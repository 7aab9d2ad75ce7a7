"""Forces of one frame at two places: a tiny model is trained at one, and evaluated at both.

What differs between two installations of the same programs is found before a campaign mixes their labels and models.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from activelearn import trees
from activelearn.config import Train, trainer_of
from activelearn.config.trainer import Room, TrainingData, TrainingRun
from activelearn.engines.process import Slot
from activelearn.errors import EngineError
from activelearn.frames import FloatArray, Frames
from activelearn.geometry import lattice

#: Largest difference of a force component, eV/Å; relative to the largest component where that exceeds 1 eV/Å.
SAME_FORCES: Final = 1e-5
#: What :meth:`Standard.write` writes.
FILE: Final = "login-node.json"
_N_FRAMES: Final = 8
_N_STEPS: Final = 10
#: Density, 1/Å3 (neighbours are 2.8 Å apart), and largest displacement, Å, of the frame.
_DENSITY: Final = 0.0456
_RATTLE_A: Final = 0.25


@dataclass(frozen=True)
class Standard:
    """The forces to compare with, or why there are none.

    Parameters
    ----------
    host, device, versions
        Where they were evaluated: node, CPU and GPUs, and versions of the engines' packages.
    model
        Name of the model, a file beside :data:`FILE`.
    frame
        ``symbols``, ``cell`` (3, 3) and ``positions`` (n_atoms, 3), Å.
    forces
        (n_atoms, 3), eV/Å.
    why_not
        Why there are none; empty if there are.
    """

    host: str
    device: str = ""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    model: str = ""
    frame: dict[str, Any] = dataclasses.field(default_factory=dict)
    forces: list[list[float]] = dataclasses.field(default_factory=list)
    why_not: str = ""

    def write(self, folder: Path) -> Path:
        """Write it to a folder that has its model; return the file."""
        path = folder / FILE
        path.write_text(json.dumps(dataclasses.asdict(self)))
        return path

    @classmethod
    def read(cls, path: Path) -> Standard:
        """Return what :meth:`write` wrote."""
        return cls(**json.loads(path.read_text()))

    def difference(self, model: Path, train: Train, slot: Slot) -> float:
        """Return the largest difference of a force component on a slot, eV/Å (inf where one is not finite)."""
        frame = Frames(
            tuple(self.frame["symbols"]),
            np.array([self.frame["cell"]], dtype=np.float64),
            np.array([self.frame["positions"]], dtype=np.float64),
        )
        found = float(np.abs(_forces(model, frame, train, slot) - np.array(self.forces)).max())
        return found if math.isfinite(found) else math.inf

    @property
    def largest(self) -> float:
        """Largest force component, eV/Å."""
        return float(np.abs(self.forces).max())

    @property
    def tolerance(self) -> float:
        """Largest difference of forces that are the same, eV/Å."""
        return SAME_FORCES * max(1.0, self.largest)

    def what_differs(self, device: str, versions: Mapping[str, str]) -> str:
        """Return in words what differs at another place, given its CPU and GPUs and the versions of its packages."""
        names = sorted(self.versions.keys() | versions.keys())
        of = [(name, versions.get(name, "none"), self.versions.get(name, "none")) for name in names]
        libraries = [f"{name} {here} here, {there} there" for name, here, there in of if here != there]
        return f"{', '.join(libraries) or 'same versions'}; devices: {device} here, {self.device} there"


def standard(where: Standard, train: Train, type_map: Sequence[str], slot: Slot, folder: Path) -> Standard:
    """Train a model, write it to `folder`, and return its forces of one frame.

    Parameters
    ----------
    where
        What the slot is; without forces.
    train, type_map
        The settings of the ensemble (a few steps are trained), and its elements.
    slot
        Where it runs.
    folder
        Where the model is written.

    Raises
    ------
    EngineError
        The training or the evaluation failed.
    """
    parts = list(_labelled(type_map))
    found = _trained(train, parts, type_map, slot)
    model = folder / f"model{found.suffix}"
    shutil.copyfile(found, model)
    frame = parts[0].without_labels()
    forces = _forces(model, frame, train, slot)
    if not np.isfinite(forces).all():
        raise EngineError(
            "the forces of a tiny model are not finite - expected finite forces - see python in the profile"
        )
    structure = {
        "symbols": list(frame.symbols),
        "cell": frame.cell[0].tolist(),
        "positions": frame.positions[0].tolist(),
    }
    return dataclasses.replace(where, model=model.name, frame=structure, forces=forces.tolist())


def _labelled(type_map: Sequence[str]) -> Iterator[Frames]:
    """Yield frames of a disturbed lattice, labelled with a Lennard-Jones potential, which knows every element."""
    from ase.calculators.lj import LennardJones

    rng = np.random.default_rng(21)
    for _ in range(_N_FRAMES):
        atoms = lattice(type_map, _DENSITY).to_ase()[0]
        atoms.positions += rng.uniform(-_RATTLE_A, _RATTLE_A, atoms.positions.shape)
        atoms.calc = LennardJones(sigma=2.4, epsilon=0.1, rc=5.0)
        atoms.get_forces()
        atoms.get_stress()
        yield Frames.from_ase(atoms)


def _trained(train: Train, parts: Sequence[Frames], type_map: Sequence[str], slot: Slot) -> Path:
    """Return a model after a few steps, in the folder of the slot."""
    trainer = trainer_of(train)
    data = TrainingData(trees.make(slot.logs / "data"), tuple(type_map), _room(train, type_map))
    trainer.write_data(data.folder, parts, train, type_map)
    found = trainer.train(trees.make(slot.logs / "train"), train, TrainingRun(_N_STEPS, (1, 2, 3)), data, slot)
    if found is None:
        raise EngineError("the training of a tiny model diverged - expected a finite loss - see train in the campaign")
    return found.model


def _room(train: Train, type_map: Sequence[str]) -> Room:
    """Return more neighbours than any atom of the frames has."""
    trainer = trainer_of(train)
    if not trainer.limits_neighbours(train):
        return ()
    room = []
    for shell in trainer.shells(train):
        most = math.ceil(4.0 / 3.0 * math.pi * (shell.rcut + 2.0 * _RATTLE_A) ** 3 * _DENSITY) + 8
        room.append(shell.sel or (most,) * (len(type_map) if shell.counts_elements else 1))
    return tuple(room)


def _forces(model: Path, frame: Frames, train: Train, slot: Slot) -> FloatArray:
    """Return the forces (n_atoms, 3) of a model on a slot, eV/Å."""
    place = trees.make(slot.logs / "forces")
    (found,) = trainer_of(train).evaluate(place, model, [frame], slot)
    return np.asarray(found.label("forces")[0], dtype=np.float64)
