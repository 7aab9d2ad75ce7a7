"""Starts: supercells with heights, refusals that say which supercell to take, distortions by generator."""

import numpy as np
import pytest
import yaml
from ase.build import bulk
from ase.io import write

from activelearn.config import Perturb, System, difference, load_campaign
from activelearn.errors import ConfigError
from activelearn.seeds import heights
from activelearn.starts import crystal, distorted


def test_the_smallest_supercell_that_reaches_the_height():
    found = crystal(System(seed="Cu_Fm-3m"), 5.0)
    assert found.formula == "Cu32", "a = 3.6149 Å: twice along each"
    assert heights(found.cell[0]).min() >= 5.0
    assert found.pbc == (True, True, True)
    assert not found.is_labelled


def test_a_supercell_that_is_given_is_taken():
    found = crystal(System(seed="Cu_Fm-3m", supercell=(2, 2, 3)), 7.2)
    assert found.n_atoms == 48
    assert np.diag(found.cell[0]) == pytest.approx([2 * 3.6149, 2 * 3.6149, 3 * 3.6149])


def test_a_height_below_the_bound_is_refused_with_the_supercell_to_take():
    with pytest.raises(ConfigError) as caught:
        crystal(System(seed="Cu_Fm-3m", supercell=(2, 2, 1)), 6.0)
    assert str(caught.value) == (
        "system Cu_Fm-3m 2x2x1: perpendicular height 3.61 Å - wanted at least 6 Å (initial.min_height_A, else the "
        "cutoff) - use supercell: [2, 2, 2]"
    )


def test_the_height_counts_not_the_vector(tmp_path):
    """A primitive fcc cell: vectors of a/sqrt(2) = 2.55 Å, heights of only a/sqrt(3) = 2.08 Å."""
    path = tmp_path / "primitive.extxyz"
    write(path, bulk("Cu", a=3.6))
    assert crystal(System(seed=str(path), supercell=(1, 1, 1)), 2.07).n_atoms == 1
    with pytest.raises(ConfigError, match=r"perpendicular height 2.08 Å - wanted at least 2.5 Å"):
        crystal(System(seed=str(path), supercell=(1, 1, 1)), 2.5)


def test_an_unknown_seed_names_the_nearest():
    with pytest.raises(ConfigError, match=r"did you mean 'Cu_Fm-3m'\?"):
        crystal(System(seed="Cu_Fm3m"), 5.0)


def test_distortion_scales_then_perturbs_by_the_generator_alone():
    start = crystal(System(seed="Cu_Fm-3m"), 5.0)
    before = start.positions.copy()
    still = distorted(start, Perturb(positions_A=0.0, cell_fraction=0.0), np.random.default_rng(1), scale=0.95)
    assert still.cell == pytest.approx(0.95 * start.cell)
    assert still.positions == pytest.approx(0.95 * start.positions)
    perturb = Perturb(positions_A=0.05, cell_fraction=0.02)
    one, two = (distorted(start, perturb, np.random.default_rng(7), scale=1.0) for _ in range(2))
    assert np.array_equal(one.positions, two.positions)
    assert np.array_equal(one.cell, two.cell)
    other = distorted(start, perturb, np.random.default_rng(8), scale=1.0)
    assert not np.array_equal(one.positions, other.positions)
    fractional = one.positions[0] @ np.linalg.inv(one.cell[0]) @ start.cell[0] - start.positions[0]
    assert 0.01 < np.abs(fractional).max() < 0.06
    assert np.array_equal(start.positions, before), "the crystal is shared and must not change"


def test_a_left_handed_cell_is_the_same_crystal_right_handed(tmp_path):
    """LAMMPS takes right-handed cells only; POSCARs of either hand are about."""
    path = tmp_path / "left.extxyz"
    atoms = bulk("Cu", cubic=True).repeat((1, 2, 3))
    atoms.positions += np.random.default_rng(1).normal(0, 0.1, atoms.positions.shape)
    atoms.set_cell(atoms.cell[[0, 2, 1]])
    assert np.linalg.det(atoms.cell) < 0
    write(path, atoms)
    found = crystal(System(seed=str(path), supercell=(2, 1, 1)), 3.0)
    assert np.linalg.det(found.cell[0]) > 0
    there = found.to_ase()[0].get_all_distances(mic=True)
    assert np.allclose(np.sort(there), np.sort(atoms.repeat((2, 1, 1)).get_all_distances(mic=True)))


def test_a_structure_file_is_part_of_the_campaign(tmp_path):
    """An edited file shows as a changed campaign, and is not read in silence by one that is under way."""
    path = tmp_path / "mine.extxyz"
    write(path, bulk("Cu", cubic=True))
    data = yaml.safe_load(load_campaign("copper_emt").to_yaml())
    data["initial"]["systems"] = [{"seed": "mine.extxyz"}]
    (tmp_path / "campaign.yaml").write_text(yaml.safe_dump(data))
    before = load_campaign(tmp_path / "campaign.yaml")
    assert crystal(before.initial.systems[0], 5.0).n_atoms == 32
    write(path, bulk("Cu", a=3.7, cubic=True))
    after = load_campaign(tmp_path / "campaign.yaml")
    assert [line.split(":")[0] for line in difference(before, after)] == ["initial.systems.0.sha256"]
    with pytest.raises(ConfigError, match="is not the file that the campaign began with"):
        crystal(before.initial.systems[0], 5.1)
    assert crystal(after.initial.systems[0], 5.1).cell[0, 0, 0] == pytest.approx(7.4)
