"""Free volume: packings of spheres whose share is known, cells of any shape, and the radii of the ions."""

import numpy as np
import pytest
from ase.build import bulk
from made_glasses import findings_of, number, study_folder, study_of

from activelearn import seeds
from activelearn.benchmark.free_volume import PROPERTY, free_share, ionic_radii
from activelearn.config.glass import Roles
from activelearn.frames import Frames

ROLES = Roles(formers={"P": 3}, anions=("S", "O"), modifiers={"Na": 1})


@pytest.mark.parametrize("at", [(0.0, 0.0, 0.0), (0.31, -0.2, 7.77)])
def test_touching_spheres_on_a_simple_cubic_lattice_fill_pi_over_six(at):
    share = free_share(3.7 * np.eye(3), np.array([at]), np.array([1.85]), grid_A=0.06)
    assert share == pytest.approx(1 - np.pi / 6, abs=1.5e-3)


def test_touching_spheres_on_an_fcc_lattice_fill_74_percent_in_the_skewed_primitive_cell():
    cell = bulk("Cu", "fcc", a=4.0).cell.array
    share = free_share(cell, np.full((1, 3), 0.013), np.array([np.sqrt(2.0)]), grid_A=0.06)  # not on the grid
    assert share == pytest.approx(1 - np.pi / np.sqrt(18), abs=1.5e-3)


def test_two_spheres_that_overlap_fill_their_union():
    """Lens of two unit spheres at distance 1: pi (4 + 1) (2 - 1)^2 / 12."""
    positions = np.array([[2.0, 2.0, 2.0], [2.6, 2.8, 2.0]])
    share = free_share(6.0 * np.eye(3), positions, np.ones(2), grid_A=0.06)
    assert (1 - share) * 6.0**3 == pytest.approx(8 / 3 * np.pi - 5 / 12 * np.pi, rel=3e-3)


def test_the_grid_agrees_with_every_distance_computed():
    """Of every voxel centre the nearest atom, by ASE; two kinds of radii in a skewed cell smaller than the spheres."""
    from ase.geometry import get_distances

    rng = np.random.default_rng(3)
    cell = np.array([[3.0, 0.0, 0.0], [1.1, 2.6, 0.0], [-0.7, 0.9, 3.3]])
    positions, radii = rng.uniform(-4, 4, (3, 3)), np.array([0.7, 1.1, 0.7])
    n = np.ceil(np.linalg.norm(cell, axis=1) / 0.3).astype(int)
    centres = (np.indices(n).reshape(3, -1).T + 0.5) / n @ cell
    _, distances = get_distances(centres, positions, cell=cell, pbc=True)
    assert free_share(cell, positions, radii, grid_A=0.3) == (distances >= radii).all(axis=1).mean()


def test_a_probe_sees_less_of_a_crystal_and_a_swollen_crystal_has_more():
    atoms = seeds.load_seed("Na3PS4_P-421c").to_atoms()
    radius = ionic_radii(atoms.symbols, ROLES)
    radii = np.array([radius[symbol] for symbol in atoms.symbols])
    plain = free_share(atoms.cell.array, atoms.positions, radii)
    probed = free_share(atoms.cell.array, atoms.positions, radii + 0.5)
    swollen = free_share(1.05 * atoms.cell.array, 1.05 * atoms.positions, radii)
    assert 0.0 < probed < plain < swollen < 0.6


def test_radii_are_those_that_shannon_printed():
    assert ionic_radii(["Na", "P", "S", "O"], ROLES) == {"Na": 1.02, "O": 1.40, "P": 0.17, "S": 1.84}
    silicate = Roles(formers={"Si": 4}, anions=("O",), modifiers={"Li": 1, "Ca": 2})
    assert ionic_radii(["Li", "Ca", "Si", "O"], silicate) == {"Ca": 1.0, "Li": 0.76, "O": 1.40, "Si": 0.26}


def test_an_element_without_a_role_is_refused():
    with pytest.raises(ValueError, match="no ionic radius of Cl"):
        ionic_radii(["Na", "Cl"], ROLES)


def test_the_property_averages_frames_and_replicas_and_names_its_radii(tmp_path):
    study = study_of()
    atoms = seeds.load_seed("Na3PS4_P-421c").to_atoms()
    replicas = [Frames.from_ase([atoms] * 4), Frames.from_ase([seeds.scaled(atoms, 1.02)] * 4)]
    found = findings_of(PROPERTY, study, study_folder(tmp_path, study, replicas))
    result = number(found, "free_volume", x=0.0)
    radii = np.array([ionic_radii(atoms.symbols, ROLES)[symbol] for symbol in atoms.symbols])
    shares = [100 * free_share(frames.cell[0], frames.positions[0], radii) for frames in replicas]
    assert result.value == pytest.approx(np.mean(shares))
    assert result.uncertainty == pytest.approx(abs(shares[1] - shares[0]) / 2)
    assert (result.unit, result.n_samples) == ("%", 2)
    assert result.note == ("outside Shannon's ionic radii (Na 1.02, P 0.17, S 1.84 Å), probe 0 Å, grid 0.25 Å")


def test_a_glass_of_unknown_ions_is_a_problem_not_a_number(tmp_path):
    study = study_of()
    copper = Frames.from_ase([bulk("Cu", cubic=True)] * 2)
    found = findings_of(PROPERTY, study, study_folder(tmp_path, study, [copper]))
    assert found.results == []
    assert "no ionic radius of Cu" in found.problems[0]
