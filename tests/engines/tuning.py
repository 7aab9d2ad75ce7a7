"""What tests of trainers share that fine-tune: rattled copper by EMT, and a place for each training."""

from conftest import rattled_copper

from activelearn.config import Machine
from activelearn.config.trainer import TrainingData
from activelearn.engines.process import Slot


class Bench:
    """Labelled copper, and what a trainer makes of it.

    Parameters
    ----------
    folder
        Where everything is done.
    trainer, settings
        What is tried; the latter makes a section ``train`` of keys.
    machine
        Where.
    """

    def __init__(self, folder, trainer, settings, machine=None):
        self.folder, self.trainer, self.settings = folder, trainer, settings
        self.slot = Slot(machine or Machine(name="test"), folder / "logs")
        self.truth = rattled_copper(4)
        self.n = 0

    def place(self):
        self.n += 1
        made = self.folder / f"place-{self.n}"
        made.mkdir()
        return made

    def data(self, parts=None, **more):
        folder = self.place()
        self.trainer.write_data(folder, parts or [self.truth], self.settings(**more), ("Cu",))
        return TrainingData(folder, ("Cu",), ())

    def trained(self, run, data=None, place=None, **more):
        data = data or self.data(**more)
        return self.trainer.train(place or self.place(), self.settings(**more), run, data, self.slot)

    def evaluated(self, model, frames=None):
        (found,) = self.trainer.evaluate(self.place(), model, [frames or self.truth], self.slot)
        return found
