"""ASE calculators that do what engines do on bad days; found by the worker through PYTHONPATH."""

import builtins
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator, SCFError, all_changes
from ase.calculators.emt import EMT
from ase.neighborlist import neighbor_list
from ase.stress import voigt_6_to_full_3x3_stress


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


class Single(EMT):
    """A network in single precision: an energy of one number in an array, a full stress; it prints at each step."""

    def __init__(self, shape=(1,)):
        super().__init__()
        self.shape = shape

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        found = self.results
        found["energy"] = np.full(self.shape, found["energy"], dtype=np.float32)
        found["free_energy"] = found["energy"]
        found["forces"] = found["forces"].astype(np.float32)
        found["stress"] = voigt_6_to_full_3x3_stress(found["stress"]).astype(np.float32)
        print("step done")


class Mistaken(EMT):
    """Stress or forces in another unit, of another sign, or of another shape."""

    def __init__(self, stress=1.0, forces=1.0, kind=""):
        super().__init__()
        self.factors, self.kind = (stress, forces), kind

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        found = self.results
        found["stress"] = found["stress"] * self.factors[0]
        found["forces"] = found["forces"] * self.factors[1]
        if self.kind == "trace":
            found["stress"] = np.repeat([found["stress"][:3].mean(), 0.0], 3)
        elif self.kind == "virial":
            found["stress"] = found["stress"] * atoms.get_volume()
        elif self.kind == "rough":
            noise = 0.5 * np.sin(1.0e6 * (atoms.get_volume() + atoms.positions.sum()))
            found["free_energy"] = found["energy"] = found["energy"] + noise
        elif self.kind == "few forces":
            found["forces"] = found["forces"][:-1]
        elif self.kind == "stress of atoms":
            found["stress"] = np.repeat(found["stress"][None], len(atoms), axis=0)
        elif self.kind == "net force":
            found["forces"] = found["forces"] + 0.2
        elif self.kind == "stale":
            found["free_energy"] = found["energy"] = -1.0
        elif self.kind == "two energies":
            found["free_energy"] = found["energy"] = np.array([1.0, 2.0])


class Graph(EMT):
    """A graph network that cannot make a graph of an atom without neighbours, and says where that object is."""

    def __init__(self, reach=5.0, tired_after=None):
        super().__init__()
        self.reach, self.tired_after, self.n_calls = reach, tired_after, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        self.n_calls += 1
        if self.tired_after is not None and self.n_calls > self.tired_after:
            raise RuntimeError(f"after {self.tired_after} structures")
        if len(np.unique(neighbor_list("i", atoms, self.reach))) < len(atoms):
            raise ValueError(f"isolated atom in {object()}")
        super().calculate(atoms, properties, system_changes)


class Hopeless(EMT):
    """Raises on every structure."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        raise KeyError("Cu")


class Raises(EMT):
    """Cannot be constructed, in the words of a library."""

    def __init__(self, kind="RuntimeError", text=""):
        raise getattr(builtins, kind)(text)


class OnceOnly(EMT):
    """Fails in the worker that made the note, and in no other."""

    def __init__(self, note):
        super().__init__()
        self.is_first = not Path(note).exists()
        Path(note).touch()

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if self.is_first:
            raise RuntimeError("internal state")
        super().calculate(atoms, properties, system_changes)


class Gpu(EMT):
    """Finds out at its first step that there is no GPU."""

    def __init__(self, device="cpu"):
        super().__init__()

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        raise AssertionError("Torch not compiled with CUDA enabled")


class MinimumImage(EMT):
    """Needs cells of more than twice its cutoff."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if min(atoms.cell.lengths()) < 6.0:
            raise ValueError("cell smaller than twice the cutoff")
        super().calculate(atoms, properties, system_changes)


class Reads(EMT):
    """Starts a code that reads what it finds on standard input, as mpirun does."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        subprocess.run(["cat"], stdout=subprocess.DEVNULL, check=True)
        super().calculate(atoms, properties, system_changes)


class Ends(EMT):
    """A code that ends the interpreter when its input displeases it."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        sys.exit("bad input")


def factory():
    """Return what is no calculator."""
    return "a string"


def one_of(which, **arguments):
    """Return any of these, so that a test file asks one worker for all of them."""
    return globals()[which](**arguments)


class Counted(EMT):
    """Notes who makes it and who computes with it."""

    def __init__(self, note):
        super().__init__()
        self.note = Path(note)
        self.tell("made")

    def tell(self, what):
        with self.note.open("a") as stream:
            stream.write(f"{what} {os.getpid()}\n")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        self.tell("at")
        super().calculate(atoms, properties, system_changes)


class HungWhileLoading(Counted):
    """Hangs where no thread and no handler of a signal runs, as a library does that waits for a disk."""

    def __init__(self, note):
        super().__init__(note)
        ctypes.PyDLL(None).sleep(600)


class CountedWithAThread(Counted):
    """Begins a thread when it is made, as CUDA does."""

    def __init__(self, note):
        super().__init__(note)
        threading.Thread(target=threading.Event().wait, daemon=True).start()


class Scaled(EMT):
    """EMT times the number in a file, as members of an ensemble differ."""

    def __init__(self, model):
        super().__init__()
        self.factor = float(Path(model).read_text())

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        for name in ("energy", "free_energy", "energies", "forces", "stress"):
            if name in self.results:
                self.results[name] = self.results[name] * self.factor
