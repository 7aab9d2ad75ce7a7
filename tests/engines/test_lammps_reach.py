"""Walks that LAMMPS really walked: matter moves, and what was held, or had no time, or no heat, went nowhere.

A Lennard-Jones copper stands in for the models, so that it takes a second and not a training.
"""

import re

import numpy as np
import pytest
from ase.build import bulk
from campaigns import end_sessions

from activelearn import explore
from activelearn.config import Machine, Perturb, Stage
from activelearn.engines import deepmd, lammps, process
from activelearn.engines.lammps import Drive
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd import TRAINER
from activelearn.frames import Frames
from activelearn.geometry import deformed
from activelearn.records import Task
from activelearn.select import reach
from activelearn.starts import distorted

pytestmark = pytest.mark.engines
COPPER = bulk("Cu", a=3.61, cubic=True) * (3, 3, 3)
NVE = {"ensemble": "custom", "lammps": "fix md all nve"}
FROZEN = "fix hold all setforce 0 0 0\nvelocity all set 0 0 0"
HALF_FROZEN = "region low block INF INF INF INF INF 5\ngroup low region low\nfix hold low setforce 0 0 0\n"


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    process.allow_engines()
    yield Slot(Machine(name="test", slots=1), tmp_path_factory.mktemp("logs"))
    end_sessions()


@pytest.fixture
def walked(slot, tmp_path):
    """Return a function that walks a stage of the given keys: how far it came."""

    def run(*, perturb=0.05, **keys):
        stage = Stage(**{"name": "s", "temperatures_K": (300,), "n_steps": 200, "every": 5, "timestep_fs": 2.0, **keys})
        (condition, *_) = stage.conditions
        rng = np.random.default_rng(5)
        start = distorted(Frames.from_ase([COPPER]), Perturb(positions_A=perturb, cell_fraction=0.0), rng, scale=1.0)
        cell = lammps.write_data(tmp_path / "conf.lmp", start, ["Cu"])
        final = None
        if condition.mode is not None:
            final = deformed(cell, condition.mode, condition.strain, np.array([0.0, 1.0]))[-1]
        drive = Drive(condition, 77, final_cell=final)
        text = lammps.walk_input(stage, drive, TRAINER.pair(["none.pb"], ["Cu"], stage.every)).text
        text = re.sub(r"pair_style .*", "pair_style lj/cut 5.0", text)
        (tmp_path / "in.lammps").write_text(re.sub(r"pair_coeff .*", "pair_coeff * * 0.2047 2.331", text))
        job = {"job": "lammps", "input": "in.lammps"}
        code = deepmd.run_job(job, tmp_path, "lammps.out", slot, timeout_s=60.0)
        thermo = lammps.read_thermo(tmp_path / "log.lammps")
        rows = "".join(f"{step} 0 0 0 0.01 0 0\n" for step in thermo)  # lj/cut has no deviation
        (tmp_path / "model_devi.out").write_text(rows)
        last = stage.n_steps - stage.n_steps % stage.every
        found = lammps.read_walk(tmp_path, return_code=code, n_steps=last, n_atoms=start.n_atoms)
        task = Task(id="w", kind="walk", parameters={"stage": "s", **condition._asdict(), "scale": 1.0})
        return reach.measure(explore.frames_of(stage, task, start, found), found.temperature_K, stage)

    return run


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"temperatures_K": (10,), "perturb": 0.0},
        {"temperatures_K": (1500,), "n_steps": 1000},
        {"n_steps": 20, "every": 2},
        {**NVE, "perturb": 0.0},
        {"temperature_damping_ps": 1000.0, "perturb": 0.0},
        {"ensemble": "npt-tri", "pressures_bar": (0.0,)},
        {"deformations": ("shear-xy",), "strains": (0.3,)},
        {"lammps": HALF_FROZEN + "velocity low set 0 0 0"},
        {"temperatures_K": (), "ramps_K": ((300.0, 600.0),)},
        {"lammps": "mass 1 400.0", "timestep_fs": 4.0},
    ],
)
def test_matter_that_moves_is_explored_by_a_wide_margin(walked, keys):
    found = walked(**keys)
    assert not reach.went_nowhere(found)
    assert found.displacement > 5.0 * reach.LEAST_FLIGHT * found.flight
    assert found.temperature_K > 3.0 * reach.LEAST_HEAT * found.imposed_K, "NVE keeps half"


@pytest.mark.parametrize(
    "keys",
    [
        {"timestep_fs": 0.002},
        {"n_steps": 5},
        {"lammps": FROZEN},
        {**NVE, "lammps": f"fix md all nve\n{FROZEN}"},
        {"ensemble": "custom", "lammps": "fix still all momentum 1 linear 1 1 1"},
        {"lammps": "fix drag all viscous 1.0"},
        {"temperatures_K": (), "ramps_K": ((10.0, 2000.0),), "temperature_damping_ps": 100.0, "perturb": 0.0},
    ],
)
def test_what_went_nowhere_is_told_from_it_by_a_wide_margin(walked, keys):
    found = walked(**keys)
    assert reach.went_nowhere(found)
    is_short = found.walked_fs < reach.SHORTEST_WALK_FS / 1.9
    is_still = found.displacement < reach.LEAST_FLIGHT * found.flight / 5.0
    is_cold = found.temperature_K < reach.LEAST_HEAT * found.imposed_K / 5.0
    assert is_short or is_still or is_cold, found
