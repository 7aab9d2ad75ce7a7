"""Walks of exploration driven by ASE, of models that LAMMPS does not run: copper by EMT, in a session of the worker."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from activelearn import explore, geometry
from activelearn.config import Stage, load_campaign
from activelearn.engines.dynamics import ase
from activelearn.engines.lammps import Drive
from activelearn.frames import Frames

pytestmark = pytest.mark.engines
CAMPAIGN = load_campaign("copper_emt")
WALKER = ase.Walker(calculator="ase.calculators.emt:EMT", package="ase")


def stage_of(**more):
    steps = {"n_walks": 1, "n_steps": 40, "every": 4, "timestep_fs": 2.0}
    return Stage.model_validate({"name": "walk", "temperatures_K": [300], **steps, **more})


def start_of(repeat=2, turned=True):
    atoms = bulk("Cu", cubic=True) * repeat
    if turned:
        atoms.rotate(30, (1, 2, 3), rotate_cell=True)
    atoms.rattle(0.05, seed=1)
    return Frames.from_ase([atoms])


def walked(stage, slot, tmp_path, *, start=None, name="one", seed=7, **more):
    (tmp_path / name).mkdir()
    drive = Drive(stage.conditions[0], velocity_seed=seed, **more)
    return ase.run_walk(WALKER, stage, drive, start or start_of(), tmp_path / name, slot)


def test_a_walk_has_a_row_for_each_frame_and_is_the_same_again(slot, tmp_path):
    stage = stage_of()
    walk = walked(stage, slot, tmp_path)
    assert walk.ended == "finished"
    assert walk.step.tolist() == list(range(0, 41, 4))
    assert walk.positions.shape == walk.forces.shape == (11, 32, 3)
    assert np.isnan(walk.forces).all()
    assert np.isnan(walk.max_devi_f).all()
    assert walk.temperature_K[0] == pytest.approx(300.0)
    assert walk.temperature_K[1:].max() > 100.0
    assert np.ptp(walk.potential_energy) > 0.1
    again, other = (walked(stage, slot, tmp_path, name=f"again-{seed}", seed=seed) for seed in (7, 8))
    assert (again.positions == walk.positions).all()
    assert np.abs(other.positions - walk.positions).max() > 0.01


def test_the_cell_is_driven_to_the_strain_and_the_atoms_with_it(slot, tmp_path):
    """In 100 steps of 0.01 fs the atoms do not move by themselves."""
    stage = stage_of(n_steps=100, every=20, timestep_fs=0.01, deformations=["shear-xy"], strains=[0.2])
    start = start_of()
    cell, _ = ase.lower_triangular(start.cell[0], start.positions[0])
    drive = explore.drive_of(CAMPAIGN, stage, stage.conditions[0], cell, 7)
    walk = walked(stage, slot, tmp_path, start=start, final_cell=drive.final_cell)
    assert walk.ended == "finished"
    driven = geometry.deformed(cell, "shear-xy", 0.2, walk.step / 100)
    np.testing.assert_allclose(walk.cell, driven, atol=1e-10)
    fractions = Frames(start.symbols, walk.cell, walk.positions).fractional()
    moved = fractions - fractions[0]
    assert np.abs(moved - np.round(moved)).max() < 1e-3
    assert np.ptp(walk.potential_energy) > 1.0


def test_a_deformation_that_ends_early_goes_as_far_as_the_whole_one_would_have(slot, tmp_path):
    stage = stage_of(n_steps=100, every=20, timestep_fs=0.01, deformations=["uniaxial-x"], strains=[0.5])
    cell, _ = ase.lower_triangular(start_of().cell[0], start_of().positions[0])
    final = geometry.deformed(cell, "uniaxial-x", 0.5, np.ones(1))[0]
    walk = walked(stage, slot, tmp_path, final_cell=final, last_step=40)
    assert walk.step.tolist() == [0, 20, 40]
    assert np.linalg.det(walk.cell[-1]) / np.linalg.det(cell) == pytest.approx(1.2)


def test_a_ramp_heats_and_a_barostat_moves_the_cell(slot, tmp_path):
    hot = stage_of(temperatures_K=[], ramps_K=[[100, 1500]], n_steps=400, every=40, temperature_damping_ps=0.02)
    walk = walked(hot, slot, tmp_path)
    assert walk.temperature_K[-3:].mean() > 700.0
    pressed = stage_of(ensemble="npt-iso", pressures_bar=[200_000], n_steps=400, every=40, pressure_damping_ps=0.2)
    walk = walked(pressed, slot, tmp_path, name="pressed")
    volumes = np.linalg.det(walk.cell)
    assert volumes[-1] < 0.97 * volumes[0]
    assert walk.pressure_bar[-1] > walk.pressure_bar[0] + 50_000


def test_a_walk_that_blows_up_ends_with_its_last_whole_row(slot, tmp_path):
    atoms = bulk("Cu", cubic=True) * 2
    atoms.positions[1] = atoms.positions[0] + (0.4, 0.0, 0.0)
    walk = walked(stage_of(n_steps=200), slot, tmp_path, start=Frames.from_ase([atoms]))
    assert walk.ended.startswith("too hot: ")
    assert len(walk.step) < 51
    assert all(np.isfinite(rows).all() for rows in (walk.positions, walk.cell, walk.temperature_K))
    assert walk.log_tail == (walk.ended,)


class TwoPotentials:
    """EMT and EMT with forces that are 0.1 eV/Å larger along x."""

    def evaluate_all(self, folder, models, parts, slot):
        (frames,) = parts
        images = frames.to_ase()
        forces = []
        for atoms in images:
            atoms.calc = EMT()
            forces.append(atoms.get_forces())
        first = np.array(forces)
        return [
            [frames.with_labels(np.zeros(len(frames)), some, None)]
            for some in (first, first + np.array([0.1, 0.0, 0.0]))
        ]


def test_its_deviation_and_its_forces_are_those_of_the_ensemble(slot, tmp_path):
    start = start_of()
    walk = walked(stage_of(), slot, tmp_path, start=start)
    whole = explore.with_deviation(walk, start, TwoPotentials(), ["a", "b"], tmp_path, slot)
    np.testing.assert_allclose(whole.max_devi_f, 0.05, rtol=1e-9)
    atoms = Frames(start.symbols, walk.cell, walk.positions)[3].to_ase()[0]
    atoms.calc = EMT()
    np.testing.assert_allclose(whole.forces[3], atoms.get_forces(), atol=1e-9)
    assert atoms.get_potential_energy() == pytest.approx(walk.potential_energy[3], abs=1e-9)
