"""Ensembles of model blocks for tests: trained on four cells of copper and gold, and asked by all who run them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT

from activelearn.config import TrainingRun
from activelearn.config.trainer import TrainingData
from activelearn.engines import backends, deepmd
from activelearn.engines.lammps import write_data
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd import TRAINER
from activelearn.engines.trainers.deepmd.settings import DeePMDTrain
from activelearn.frames import Frames

ELEMENTS = ("Cu", "Au")
#: Enough for every cutoff here.
ROOM = {True: (24, 24), False: (48,)}
INPUT = """units metal
{atoms}
read_data start.data
neighbor 1.0 bin
{pair}
dump forces all custom 1 forces.lammpstrj id fx fy fz
dump_modify forces sort id format float %.17g
run 0
"""


def copper_gold(n_frames=4, repeat=(1, 1, 1)):
    """Gold and copper in turn, which is neither the order of the alphabet nor that of `ELEMENTS`; EMT's labels."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(n_frames):
        atoms = bulk("Cu", cubic=True, a=3.8) * repeat
        atoms.symbols = "AuCuAuCu" * int(np.prod(repeat))
        atoms.positions += rng.uniform(-0.15, 0.15, atoms.positions.shape)
        atoms.calc = EMT()
        atoms.get_forces()
        atoms.get_stress()
        images.append(atoms)
    return Frames.from_ase(images)


class Ensemble:
    """Members of one model block, trained in `folder`."""

    def __init__(self, folder: Path, block: dict, slot: Slot, *, n_members=2, n_steps=50, **more) -> None:
        rate = {"start": 1e-2, "stop": 1e-3}
        settings = {"model": block, "batch_size": 4, "learning_rate": rate, **more}
        self.train = DeePMDTrain.model_validate(settings)
        self.slot, self.folder, self.truth = slot, folder, copper_gold(repeat=(2, 1, 1))
        self.data = TrainingData(folder / "data", ELEMENTS, self.room)
        self.data.folder.mkdir()
        TRAINER.write_data(self.data.folder, [self.truth], self.train, ELEMENTS)
        runs = [TrainingRun(n_steps, (3 * i + 1, 3 * i + 2, 3 * i + 3)) for i in range(n_members)]
        self.members = [self.trained(f"member-{i}", run) for i, run in enumerate(runs)]

    @property
    def room(self):
        """Room for the neighbours of each cutoff, or none where there is no limit."""
        if not TRAINER.limits_neighbours(self.train):
            return ()
        return tuple(ROOM[shell.counts_elements] for shell in TRAINER.shells(self.train))

    def place(self, name: str) -> Path:
        made = self.folder / name
        made.mkdir()
        return made

    def trained(self, name: str, run: TrainingRun):
        """Train one member."""
        made = TRAINER.train(self.place(name), self.train, run, self.data, self.slot)
        assert made is not None, "it diverged"
        return made

    def warm(self, name: str):
        """Continue from the first member at a rate that changes nothing."""
        first = self.members[0]
        run = TrainingRun(5, (7, 8, 9), start_from=first.weights or first.model)
        return self.trained(name, replace(run, learning_rate_factor=1e-9))

    def compressed(self, name: str) -> Path | None:
        """Return the faster form of the first member."""
        return TRAINER.compress(self.place(name), self.members[0].model, self.train, self.data, self.slot)

    def forces(self, model: Path) -> np.ndarray:
        """Return (n_frames, n_atoms, 3) forces, eV/Å, as training evaluates them."""
        (found,) = TRAINER.evaluate(self.folder, model, [self.truth], self.slot)
        return found.forces

    @property
    def models(self) -> list[Path]:
        return [member.model for member in self.members]

    def deviation(self) -> float:
        """Return the largest force deviation of the first frame, eV/Å, from the forces of each member."""
        forces = np.array([self.forces(model)[0] for model in self.models])
        return float(np.sqrt(forces.var(axis=0).sum(axis=1)).max())

    def by_lammps(self, name: str) -> tuple[np.ndarray, float]:
        """Return (n_atoms, 3) forces of the first model and the force deviation, eV/Å, by LAMMPS, of that frame."""
        place = self.place(name)
        write_data(place / "start.data", self.truth[0], ELEMENTS)
        pair = TRAINER.pair([str(model) for model in self.models], ELEMENTS, 1)
        (place / "in.lammps").write_text(INPUT.format(pair="\n".join(pair), atoms=backends.atom_style(pair)))
        job = {"job": "lammps", "input": "in.lammps"}
        backend = backends.of_model(self.models[0])
        code = deepmd.run_job(job, place, "lammps.out", self.slot, timeout_s=300.0, backend=backend)
        assert code == 0, (place / "log.lammps").read_text()
        forces = np.loadtxt(place / "forces.lammpstrj", skiprows=9)[:, 1:]
        return forces, float(np.loadtxt(place / "model_devi.out", ndmin=2)[0, 4])
