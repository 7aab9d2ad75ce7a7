"""What the tests of properties that run a potential share: one worker, the odd calculators, a property carried out."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from campaigns import end_sessions

from activelearn.config import Machine, Reference
from activelearn.engines import process
from activelearn.engines.deepmd import library_environment
from activelearn.engines.process import Slot
from activelearn.frames import Frames

EMT_REFERENCE = Reference(calculator="ase.calculators.emt:EMT", functional="none", includes_dispersion=False)
#: Fails on every structure as a calculator does that does not converge; see tests/engines/odd_calculators.py.
UNCONVERGED = EMT_REFERENCE.model_copy(update={"calculator": "odd_calculators:Unconverged"})


@contextmanager
def one_worker(logs):
    """A slot whose worker serves all tests of a file; it finds the odd calculators, and LAMMPS its libraries."""
    process.allow_engines()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "engines"))
        patch.setenv("LD_LIBRARY_PATH", library_environment(None)["LD_LIBRARY_PATH"])
        yield Slot(Machine(name="test"), logs)
        end_sessions()


def with_reference(study, reference, name=None):
    """Return the study with another calculator behind its potential."""
    potential = study.potentials[0].model_copy(update={"ase": reference, "name": name or study.potentials[0].name})
    return study.model_copy(update={"potentials": (potential,)})


def alloy(random_seed):
    """Six atoms in a skewed cell, none of them at a centre of symmetry: every strain needs its own relaxation."""
    rng = np.random.default_rng(random_seed)
    atoms = bulk("Cu", "fcc", a=3.75) * (3, 2, 1)
    atoms.symbols = rng.permutation(["Cu", "Cu", "Cu", "Ag", "Ag", "Au"])
    return Frames.from_ase([atoms])
