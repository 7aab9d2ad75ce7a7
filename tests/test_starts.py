"""Starts: supercells with heights, refusals that say which supercell to take, distortions by generator."""

import numpy as np
import pytest
import yaml
from ase.build import bulk
from ase.io import write
from hypothesis import given
from hypothesis import strategies as st

from activelearn.config import Perturb, System, difference, load_campaign, shipped
from activelearn.errors import ConfigError, StoreError
from activelearn.frames import Frames
from activelearn.records import Prepared, PreparedSystem
from activelearn.seeds import heights
from activelearn.starts import (
    crystal,
    distorted,
    factors_for_atoms,
    prepared_file,
    prepared_keys,
    structures,
    supercell,
    unit_cell,
)


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
        "system Cu_Fm-3m 2x2x1: perpendicular height 3.61 Å - expected at least 6 Å (initial.min_height_A, else the "
        "cutoff) - use supercell: [2, 2, 2]"
    )


def test_the_height_counts_not_the_vector(tmp_path):
    """A primitive fcc cell: vectors of a/sqrt(2) = 2.55 Å, heights of only a/sqrt(3) = 2.08 Å."""
    path = tmp_path / "primitive.extxyz"
    write(path, bulk("Cu", a=3.6))
    assert crystal(System(seed=str(path), supercell=(1, 1, 1)), 2.07).n_atoms == 1
    with pytest.raises(ConfigError, match=r"perpendicular height 2.08 Å - expected at least 2.5 Å"):
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
    with pytest.raises(ConfigError, match="is not the file that the campaign started with"):
        crystal(before.initial.systems[0], 5.1)
    assert crystal(after.initial.systems[0], 5.1).cell[0, 0, 0] == pytest.approx(7.4)


# --- a size in atoms --------------------------------------------------------------------------------------------------

COPPER = 3.6 * np.eye(3)


@pytest.mark.parametrize(
    ("n_atoms", "factors"),
    [(1, (2, 2, 2)), (32, (2, 2, 2)), (33, (2, 2, 3)), (100, (3, 3, 3)), (108, (3, 3, 3)), (500, (5, 5, 5))],
)
def test_a_supercell_by_its_atoms(n_atoms, factors):
    """Four atoms in a cube of 3.6 Å, at least 5 Å high."""
    assert tuple(sorted(factors_for_atoms(COPPER, 4, n_atoms, 5.0))) == factors


def test_a_flat_cell_is_stacked_and_not_spread():
    """3 x 3 x 12 Å: as cubic as can be is 4 x 4 x 1."""
    assert factors_for_atoms(np.diag([3.0, 3.0, 12.0]), 4, 64, 2.5) == (4, 4, 1)
    assert factors_for_atoms(np.diag([12.0, 3.0, 3.0]), 4, 64, 2.5) == (1, 4, 4)


@given(
    st.tuples(*[st.floats(2.5, 15.0)] * 3),
    st.tuples(*[st.floats(60.0, 120.0)] * 3),
    st.integers(1, 80),
    st.integers(1, 2000),
    st.floats(3.0, 8.0),
)
def test_a_size_in_atoms_is_reached_and_no_cell_is_low_or_a_needle(lengths, angles, n_cell, n_atoms, min_height):
    from ase.cell import Cell

    try:
        cell = Cell.fromcellpar([*lengths, *angles]).array
    except AssertionError:  # no such cell
        return
    if abs(np.linalg.det(cell)) < 0.1 * np.prod(lengths) or heights(cell).min() < 1.5:  # flat: angles that add up
        return
    factors = factors_for_atoms(cell, n_cell, n_atoms, min_height)
    tall = heights(cell) * np.array(factors)
    assert tall.min() >= min_height
    assert np.prod(factors) * n_cell >= n_atoms
    fewer = [np.where(np.arange(3) == k, np.maximum(np.array(factors) - 1, 1), factors) for k in range(3)]
    one = np.log(tall.max() / tall.min()) + np.prod(factors) * n_cell / n_atoms
    for less in fewer:  # no face can be taken away to any good
        lower = heights(cell) * less
        if lower.min() >= min_height and np.prod(less) * n_cell >= n_atoms:
            assert np.log(lower.max() / lower.min()) + np.prod(less) * n_cell / n_atoms >= one - 1e-12


@pytest.mark.parametrize("n_atoms", [128, 500])
def test_every_seed_has_a_fair_supercell(n_atoms):
    for path in sorted(shipped("seeds").glob("*.yaml")):
        found = crystal(System(seed=path.stem, n_atoms=n_atoms), 6.0)
        tall = heights(found.cell[0])
        assert n_atoms <= found.n_atoms <= 2 * n_atoms, path.stem
        assert 6.0 <= tall.min() <= tall.max() <= 3.01 * tall.min(), path.stem


def test_a_system_with_a_size_in_atoms():
    found = crystal(System(seed="Cu_Fm-3m", n_atoms=100), 5.0)
    assert found.formula == "Cu108"


# --- structures of a campaign -----------------------------------------------------------------------------------------


def prepared(store, iteration, systems, parts):
    store.seal_frames(prepared_file(store, iteration), parts)
    done = [
        PreparedSystem(key=s.key, name=s.name, n_structures=len(p), ended=())
        for s, p in zip(systems, parts, strict=True)
    ]
    store.seal("prepare", iteration, Prepared(iteration=iteration, systems=tuple(done)))


def relaxing(campaign):
    return campaign.model_copy(update={"initial": campaign.initial.model_copy(update={"relax": {"fmax": 0.01}})})


def test_without_relaxation_a_crystal_starts_as_it_was_published(store, campaign):
    (system,) = campaign.initial.systems
    found = structures(campaign, store, system)
    assert np.array_equal(found.cell, crystal(system, campaign.min_height_A).cell)


def test_with_relaxation_the_supercell_is_made_of_the_relaxed_cell(store, campaign):
    system = System(seed="Cu_Fm-3m", supercell=(2, 2, 3))
    campaign = relaxing(campaign)
    with pytest.raises(StoreError, match="system Cu_Fm-3m was never prepared"):
        structures(campaign, store, system)
    assert system.key not in prepared_keys(store)
    prepared(store, 0, [system], [Frames.from_ase([bulk("Cu", a=3.7, cubic=True)])])
    assert system.key in prepared_keys(store)
    found = structures(campaign, store, system)
    assert found.formula == "Cu48"
    assert np.diag(found.cell[0]) == pytest.approx([7.4, 7.4, 11.1])
    other = System(seed="Cu_Fm-3m", supercell=(2, 2, 2))
    assert other.key not in prepared_keys(store), "another supercell is another system, and prepared for itself"


def test_packings_start_as_they_are(store, campaign):
    packed = {"units": {"Cu": 1}, "n_atoms": 32, "density_g_cm3": 8.0}
    system = System(packed=packed, n_packings=2)
    frames = Frames.from_ase([bulk("Cu", a=a, cubic=True) * (2, 2, 2) for a in (3.6, 3.7)])
    prepared(store, 0, [system], [frames])
    found = structures(campaign, store, system)
    assert np.array_equal(found.cell, frames.cell)


def test_what_was_relaxed_to_a_left_handed_cell_starts_right_handed():
    cell = unit_cell(System(seed="Cu_Fm-3m"))
    left = Frames(cell.symbols, cell.cell[:, [1, 0, 2]] * np.array([[[1.0, 1.01, 1.02]]]), cell.positions)
    assert np.linalg.det(left.cell[0]) < 0
    assert np.linalg.det(supercell(System(seed="Cu_Fm-3m", supercell=(2, 2, 2)), left, 5.0).cell[0]) > 0
