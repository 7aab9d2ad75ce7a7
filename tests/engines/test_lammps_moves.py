"""LAMMPS itself, without a model: what the input of a walk makes of the cell, the thermostat and a user's own lines.

`pair_style zero` stands in for the models: nothing pulls at the atoms, so what moves is what the input drives.
"""

import re

import numpy as np
import pytest
from ase.build import bulk
from campaigns import end_sessions

from activelearn import explore
from activelearn.config import Condition, Guards, Machine, Stage, System, load_campaign
from activelearn.engines import deepmd, lammps, process
from activelearn.engines.lammps import Drive
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd import TRAINER
from activelearn.explore import Limits
from activelearn.frames import Frames
from activelearn.geometry import deformed
from activelearn.records import Task
from activelearn.select import FrameClass
from activelearn.starts import crystal

pytestmark = pytest.mark.engines
MODES = ["isotropic", "uniaxial-x", "uniaxial-y", "uniaxial-z", "shear-xy", "shear-xz", "shear-yz"]
#: So cold that atoms only move with their cell.
FROZEN_K = 1e-9


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    process.allow_engines()
    yield Slot(Machine(name="test", slots=1), tmp_path_factory.mktemp("logs"))
    end_sessions()


@pytest.fixture
def walk(slot, tmp_path):
    """Return a function that runs an input without a model: (whole output, the cell that LAMMPS started with)."""

    def run(stage, start, drive, type_map, *, fake_deviation=False):
        text = lammps.walk_input(stage, drive, TRAINER.pair(["none.pb"], type_map, stage.every)).text
        text = re.sub(r"pair_style .*", "pair_style zero 6.0", text)
        (tmp_path / "in.lammps").write_text(re.sub(r"pair_coeff .*", "pair_coeff * *", text))
        job = {"job": "lammps", "input": "in.lammps"}
        code = deepmd.run_job(job, tmp_path, "lammps.out", slot, timeout_s=60.0)
        assert code == 0, (tmp_path / "log.lammps").read_text()[-600:]
        steps, cells, positions, _ = lammps.read_dump(tmp_path / "walk.lammpstrj", start.n_atoms)
        if fake_deviation:
            rows = "".join(f"{step} 0 0 0 0.01 0 0\n" for step in steps)
            (tmp_path / "model_devi.out").write_text(rows)
        return steps, cells, positions

    return run


def sheared_copper():
    """Copper with the tilts that a walk of its own may have left; the cell is not lower triangular."""
    atoms = bulk("Cu", a=3.615, cubic=True) * (2, 2, 2)
    atoms.set_cell(atoms.cell.array @ np.array([[1.0, 0.05, 0.1], [0.3, 1.1, 0.02], [-0.25, 0.4, 0.9]]), True)
    return Frames.from_ase([atoms])


STARTS = {
    "P4S10_P-1": lambda: crystal(System(seed="P4S10_P-1", supercell=(1, 1, 1)), 6.0),
    "sheared copper": sheared_copper,
}


def bent(mode, strain, *, n_steps=20, every=5, temperature=FROZEN_K):
    return Stage(
        name="bent", temperatures_K=(temperature,), deformations=(mode,), strains=(strain,), n_steps=n_steps,
        every=every, timestep_fs=2.0,
    )  # fmt: skip


def guarded(volume_ratio):
    """The copper campaign with guards of its own on the volume."""
    campaign = load_campaign("copper_emt")
    settings = campaign.select.model_copy(update={"guards": Guards(volume_ratio=volume_ratio)})
    return campaign.model_copy(update={"select": settings})


def drive_of(stage, start, tmp_path, type_map, volume_ratio=(0.01, 100.0)):
    cell = lammps.write_data(tmp_path / "conf.lmp", start, type_map)
    (condition,) = stage.conditions
    return explore.drive_of(guarded(volume_ratio), stage, condition, cell, 7), cell


@pytest.mark.parametrize("strain", [0.5, -0.5])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", list(STARTS))
def test_the_cell_is_driven_to_F_h0_and_the_atoms_go_along(walk, tmp_path, name, mode, strain):
    """At the start, half way and at the end; fractions of the cell do not change: the atoms move affinely."""
    start = STARTS[name]()
    type_map = sorted(set(start.symbols))
    stage = bent(mode, strain)
    drive, h0 = drive_of(stage, start, tmp_path, type_map)
    steps, cells, positions = walk(stage, start, drive, type_map)
    assert steps.tolist() == [0, 5, 10, 15, 20]
    assert cells == pytest.approx(deformed(h0, mode, strain, steps / 20), abs=1e-6)
    assert cells[-1] == pytest.approx(drive.final_cell, abs=1e-6)
    fractions = np.linalg.solve(cells.transpose(0, 2, 1), positions.transpose(0, 2, 1)).transpose(0, 2, 1)
    there = lammps.lower_triangular(start.cell[0], start.positions[0])[1] @ np.linalg.inv(h0)
    shift = fractions - there
    assert shift == pytest.approx(np.rint(shift), abs=1e-6)


def test_a_tilt_beyond_half_a_length_is_not_flipped(walk, tmp_path):
    """Without `flip no` LAMMPS takes the box back beyond half a length: another lattice vector, another strain."""
    start = STARTS["P4S10_P-1"]()
    stage = bent("shear-xy", 1.5)
    drive, h0 = drive_of(stage, start, tmp_path, ["P", "S"])
    _, cells, _ = walk(stage, start, drive, ["P", "S"])
    tilts = cells[:, 1, 0] / cells[:, 0, 0]
    assert np.abs(tilts).max() > 1.0
    assert tilts == pytest.approx((h0[1, 0] + 1.5 * h0[1, 1] * np.linspace(0, 1, 5)) / h0[0, 0], abs=1e-7)


@pytest.mark.parametrize("mode", ["isotropic", "shear-yz"])
def test_a_walk_that_is_ended_early_has_the_cells_of_the_whole_one(walk, tmp_path, mode):
    start = STARTS["P4S10_P-1"]()
    stage = bent(mode, 0.4)
    drive, _ = drive_of(stage, start, tmp_path, ["P", "S"])
    _, whole, _ = walk(stage, start, drive, ["P", "S"])
    shorter = Drive(drive.condition, drive.velocity_seed, drive.final_cell, last_step=10)
    steps, cells, _ = walk(stage, start, shorter, ["P", "S"])
    assert steps.tolist() == [0, 5, 10]
    assert cells == pytest.approx(whole[:3], abs=1e-12)


def reduced(stage, start, drive, tmp_path, volume_ratio):
    """Read and reduce a walk that was run in `tmp_path`, as explore.run does."""
    campaign = guarded(volume_ratio)
    explored = campaign.explore.model_copy(update={"stages": (stage,)})
    campaign = campaign.model_copy(update={"explore": explored})
    last = stage.n_steps if drive.last_step is None else drive.last_step
    found = lammps.read_walk(tmp_path, return_code=0, n_steps=last - last % stage.every, n_atoms=start.n_atoms)
    parameters = {"stage": stage.name, **drive.condition._asdict(), "system": 0, "scale": 1.0}
    task = Task(id="w", kind="walk", parameters=parameters)
    frames = explore.frames_of(stage, task, start, found)
    rng = np.random.default_rng(1)
    return explore.reduce_walk(campaign, task, found, frames, Limits((0.1, 0.2)), rng)


@pytest.mark.parametrize("k", range(8))
def test_a_walk_that_meets_its_guard_exactly_at_a_frame_ends_there_or_one_frame_later(walk, tmp_path, k):
    """Half of 1.2 is a volume of 1.6 but for the last digits, and those of LAMMPS are not ours: nothing is failed."""
    a = 7.22 + 0.01 * k
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.set_cell([[a, 0.0, 0.0], [1.1 + 0.003 * k, a, 0.0], [-2.3, 0.7, a]], scale_atoms=True)
    start = Frames.from_ase([atoms])
    stage = bent("uniaxial-x", 1.2)
    drive, _ = drive_of(stage, start, tmp_path, ["Cu"], (0.6, 1.6))
    walk(stage, start, drive, ["Cu"], fake_deviation=True)
    kind = reduced(stage, start, drive, tmp_path, (0.6, 1.6))[0]["kind"]
    assert kind[:2].tolist() == [FrameClass.ACCURATE] * 2
    assert kind[2] in {FrameClass.ACCURATE, FrameClass.OUT_OF_REGION}
    assert kind[3:].tolist() == [FrameClass.OUT_OF_REGION] * 2


# --- ramps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("begin", "end"), [(50.0, 800.0), (800.0, 50.0)])
def test_the_thermostat_goes_from_one_temperature_to_the_other(walk, tmp_path, begin, end):
    """An ideal gas on a tight thermostat follows its target, half way as well as at the end."""
    start = Frames.from_ase([bulk("Cu", cubic=True) * (4, 4, 4)])
    stage = Stage(
        name="ramp", ramps_K=((begin, end),), n_steps=2000, every=100, timestep_fs=1.0, temperature_damping_ps=0.05
    )
    (condition,) = stage.conditions
    lammps.write_data(tmp_path / "conf.lmp", start, ["Cu"])
    steps, _, _ = walk(stage, start, Drive(condition, 7), ["Cu"])
    thermo = lammps.read_thermo(tmp_path / "log.lammps")
    found = np.array([thermo[int(step)][0] for step in steps])
    target = begin + (end - begin) * steps / 2000
    assert found[0] == pytest.approx(begin)
    assert np.abs(found - target).max() < 0.15 * max(begin, end)
    assert np.corrcoef(found, target)[0, 1] > 0.97


# --- lines of the user's own ------------------------------------------------------------------------------------------

OWN = """# a comment of mine
variable        twice equal 2*${temperature}   # K
fix             md all nvt temp ${temperature} ${to_temperature} $(50.0*v_timestep)
print           "at ${every} ${temperature} ${to_temperature} ${pressure} ${timestep} &
${n_steps} ${seed} ${twice}"
"""


def test_lines_of_the_users_own_get_their_variables(walk, tmp_path):
    start = Frames.from_ase([bulk("Cu", cubic=True) * (2, 2, 2)])
    stage = Stage(
        name="own", ensemble="custom", ramps_K=((300.0, 600.0),), pressures_bar=(2.5e4,), n_steps=20, every=5,
        timestep_fs=2.0, lammps=OWN,
    )  # fmt: skip
    (condition,) = stage.conditions
    lammps.write_data(tmp_path / "conf.lmp", start, ["Cu"])
    steps, cells, _ = walk(stage, start, Drive(condition, 4711), ["Cu"])
    assert steps.tolist() == [0, 5, 10, 15, 20], "the bookkeeping is ours"
    assert np.ptp(cells, axis=0).max() == 0.0
    (row,) = [line.split() for line in (tmp_path / "log.lammps").read_text().splitlines() if line.startswith("at ")]
    assert [float(word) for word in row[1:]] == [5.0, 300.0, 600.0, 2.5e4, 0.002, 20.0, 4712.0, 600.0]
    thermo = lammps.read_thermo(tmp_path / "log.lammps")
    assert thermo[20][0] != thermo[0][0], "the thermostat of mine is at work"


def test_lines_of_the_users_own_join_an_ensemble_of_ours(walk, tmp_path):
    """Atoms that are held, and a group: anything that does not integrate."""
    start = Frames.from_ase([bulk("Cu", cubic=True) * (2, 2, 2)])
    lines = "group left id <= 16\nfix still left setforce 0 0 0\nvelocity left set 0 0 0\n"
    stage = Stage(name="own", temperatures_K=(300,), n_steps=20, every=5, lammps=lines)
    (condition,) = stage.conditions
    lammps.write_data(tmp_path / "conf.lmp", start, ["Cu"])
    steps, _, _ = walk(stage, start, Drive(condition, 4711), ["Cu"])
    assert len(steps) == 5
    moved = lammps.read_dump(tmp_path / "walk.lammpstrj", 32)[2]
    assert np.ptp(moved[:, 16:], axis=0).max() > 0.01
    assert np.ptp(moved[:, :16], axis=0).max() < 1e-12, "those on the left stay"


def test_a_second_integrator_is_refused():
    """LAMMPS only warns, and moves every atom twice a step."""
    with pytest.raises(
        ValueError, match=r"contains an integrator \(nve\), and so does ensemble nvt: .* ensemble custom"
    ):
        Stage(name="own", temperatures_K=(300,), n_steps=20, lammps="fix md all nve\n")
    with pytest.raises(ValueError, match="needs an integrator in `lammps`"):
        Stage(name="own", ensemble="custom", temperatures_K=(300,), n_steps=20, lammps="group x type 1")
    assert Condition(300.0).mode is None
