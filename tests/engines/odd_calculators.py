"""ASE calculators that do what engines do on bad days; found by the worker through PYTHONPATH."""

import os
import signal
import sys
import time

import numpy as np
from ase.calculators.calculator import Calculator, SCFError, all_changes
from ase.calculators.emt import EMT


class Unconverged(EMT):
    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        raise SCFError("no convergence in 60 steps")


class KohnShamConvergenceError(Exception):
    """GPAW's own: no relative of ASE's SCFError."""


class UnconvergedInWordsOfItsOwn(EMT):
    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        raise KohnShamConvergenceError("did not converge")


class Free(Calculator):
    """An ideal gas: no forces at all."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3)), "stress": np.zeros(6)}


class NotFinite(EMT):
    """NaN forces; with `after` > 0 only from that call on (in the middle of an MD)."""

    def __init__(self, after=0):
        super().__init__()
        self.after = after

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.after -= 1
        if self.after < 0:
            self.results["forces"] = np.full_like(self.results["forces"], np.nan)


class Broken(EMT):
    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        raise OSError("licence server not found")


class Dies(EMT):
    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


class Chatty(EMT):
    """Prints to standard output, which belongs to the answers."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        print("SCF step 1: -1.0", flush=True)
        os.system("echo from a child process")
        super().calculate(atoms, properties, system_changes)


class Slow(EMT):
    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        time.sleep(60.0)


class Smeared(EMT):
    """An energy extrapolated to zero smearing, which is not the one that the forces belong to."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["free_energy"] = self.results["energy"] - 1.0


class Settings(EMT):
    """Takes any keyword arguments."""

    def __init__(self, **settings):
        super().__init__()


class NoStress(EMT):
    """Energy and forces only, as a model trained without stress has."""

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012 - as ASE has it

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, ["energy"], system_changes)
        self.results.pop("stress", None)


class NoForces(EMT):
    """An energy, and nothing else."""

    implemented_properties = ("energy",)
