"""The analyses on their own: ASE's atoms in, a known number out."""

import subprocess
import sys

import numpy as np
import pytest
from ase.build import bulk
from ase.spacegroup import crystal

from activelearn import analysis
from activelearn.config import Roles
from activelearn.frames import Frames

SILICA = Roles(formers={"Si": 4}, anions=("O",))


def test_it_has_what_it_names_each_with_a_docstring():
    assert set(analysis.__all__) <= set(dir(analysis))
    assert all(getattr(analysis, name).__doc__ for name in analysis.__all__)


def test_it_brings_no_heavy_library_along():
    heavy = "{'ase', 'matscipy', 'pymatgen', 'matplotlib', 'tensorflow', 'torch', 'fireworks', 'scipy'}"
    line = f"import sys, activelearn.analysis; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_first_shell_of_copper_has_twelve_atoms_at_its_distance():
    found = analysis.pair_distribution(Frames.from_ase([bulk("Cu", a=3.6)]), bin_A=0.02, r_max_A=6.0)
    peak, minimum = analysis.first_shell(found.r, found.g[0, 0])
    assert peak == pytest.approx(3.6 / np.sqrt(2.0), abs=0.02)
    assert analysis.number_within(found.edges, found.coordination[0, 0], minimum) == pytest.approx(12.0)


def test_rock_salt_has_six_neighbours():
    salt = Frames.from_ase([bulk("NaCl", "rocksalt", a=5.64)])
    assert analysis.coordination(salt, {("Na", "Cl"): 3.2})["Na-Cl"].tolist() == [6.0]
    assert len(analysis.find_bonds(salt, {("Na", "Cl"): 3.2}).i) == 12


def test_cristobalite_is_made_of_units_with_four_bridges():
    sites = [(0.125, 0.125, 0.125), (0.0, 0.0, 0.0)]
    silica = crystal(("Si", "O"), sites, spacegroup=227, setting=2, cellpar=[7.16] * 3 + [90] * 3)
    found = analysis.network(Frames.from_ase([silica]), {("Si", "O"): 2.0}, SILICA)
    assert found.values["Si4"].tolist() == found.values["BO"].tolist() == [100.0]


def test_touching_spheres_leave_a_quarter_of_the_cell():
    copper = Frames.from_ase([bulk("Cu", a=4.0, cubic=True)])
    radii = np.full(4, 4.0 / np.sqrt(8.0))
    share = analysis.free_volume(copper.cell[0], copper.positions[0], radii, grid_A=0.05)
    assert share == pytest.approx(1.0 - np.pi / np.sqrt(18.0), abs=0.003)
    assert analysis.ionic_radii(["Si", "O"], SILICA)["O"] == 1.40


def test_what_flies_freely_goes_as_the_square_of_time_across_the_boundaries():
    atoms = bulk("Cu", a=4.0, cubic=True)
    images = []
    for k in range(20):
        image = atoms.copy()
        image.positions[0] += [0.5 * k, 0.0, 0.0]
        image.wrap()
        images.append(image)
    unwrapped = analysis.unwrap(Frames.from_ase(images))
    msd = analysis.mean_square_displacement(unwrapped.positions[:, :1])
    assert msd == pytest.approx((0.5 * np.arange(20)) ** 2)
    at_rest = analysis.without_drift(unwrapped.positions, np.ones(4))
    assert at_rest.mean(axis=1) == pytest.approx(np.tile(at_rest[0].mean(axis=0), (20, 1)))


def test_a_line_of_displacements_has_its_diffusion_coefficient_and_activation_energy():
    time_ps = np.arange(100.0)
    assert analysis.diffusion_coefficient(time_ps, 6.0 * 0.25 * time_ps, (0.5, 0.95)) == pytest.approx(0.25)
    T = np.array([300.0, 400.0, 500.0])
    sigma = [analysis.conductivity(np.exp(-0.3 / (8.617333262e-5 * t)), 0.02, t) for t in T]
    assert analysis.arrhenius(T.tolist(), sigma).energy_eV == pytest.approx(0.3)


def test_pressures_and_stresses_give_the_moduli_that_they_were_made_with():
    strain = np.array([-0.01, 0.0, 0.01])
    assert analysis.bulk_modulus(strain, -3.0 * 40.0 * strain) == (pytest.approx(40.0), pytest.approx(0.0))
    bulk_GPa, shear_GPa = 40.0, 15.0
    c = np.diag([2.0 * shear_GPa] * 3 + [shear_GPa] * 3)
    c[:3, :3] += bulk_GPa - 2.0 / 3.0 * shear_GPa
    stress = np.stack([0.005 * c.T, -0.005 * c.T], axis=1)
    assert analysis.stiffness(stress, 0.005) == pytest.approx(c)
    found = analysis.elastic_moduli(c)
    assert (found.bulk, found.shear) == (pytest.approx(bulk_GPa), pytest.approx(shear_GPa))


def test_replicas_have_a_mean_and_its_standard_error():
    mean, error = analysis.mean_and_error([[1.0, 2.0], [3.0, 2.0]])
    assert (mean.tolist(), error.tolist()) == ([2.0, 2.0], [1.0, 0.0])
    assert analysis.mean_and_error([1.0])[1] is None


def moving(pbc):
    """An atom that moves by 0.7 of a cell along x from one frame to the next, and one at rest."""
    frames = [bulk("Cu", a=4.0, cubic=True)[:2] for _ in range(3)]
    for k, image in enumerate(frames):
        image.pbc = pbc
        image.positions[0] = [2.8 * k, 0.0, 0.0]
    return Frames.from_ase(frames)


def test_only_periodic_directions_have_images():
    free = analysis.unwrap(moving((False, True, True)))
    assert free.positions[:, 0, 0] == pytest.approx([0.0, 2.8, 5.6])
    assert free.n_ambiguous == 0
    assert analysis.unwrap(moving(True)).positions[:, 0, 0] == pytest.approx([0.0, -1.2, -2.4])


def test_images_of_different_periodicity_are_not_stacked():
    slab = bulk("Cu", cubic=True)
    slab.pbc = (True, True, False)
    with pytest.raises(ValueError, match="same pbc"):
        Frames.from_ase([bulk("Cu", cubic=True), slab])


LINE = np.arange(100.0)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: analysis.diffusion_coefficient(LINE[:50], LINE, (0.5, 0.95)), "at 50 times"),
        (lambda: analysis.diffusion_coefficient(np.sort([*LINE[:-1], 5.0]), LINE, (0.5, 0.95)), "evenly spaced"),
        (lambda: analysis.diffusion_coefficient(LINE**1.1, LINE, (0.5, 0.95)), "evenly spaced"),
        (lambda: analysis.diffusion_coefficient(LINE, LINE, (0.95, 0.5)), "0 points in the window"),
        (lambda: analysis.diffusion_coefficient(LINE, LINE, (0.5, 0.51)), "1 points in the window"),
        (lambda: analysis.mean_square_displacement(np.zeros((5, 0, 3))), "of 0 atoms in 5 frames"),
        (lambda: analysis.conductivity(0.1, 0.02, 0.0), "above 0 K"),
        (lambda: analysis.arrhenius([300.0, 300.0], [1.0, 2.0]), "two or more temperatures"),
        (lambda: analysis.arrhenius([300.0, 400.0], [1.0, -2.0]), "positive numbers"),
        (lambda: analysis.arrhenius([300.0, 400.0], [1.0, np.nan]), "positive numbers"),
        (lambda: analysis.bulk_modulus(np.array([0.0, 0.01]), np.array([0.0, -1.0])), "2 points"),
        (lambda: analysis.bulk_modulus(np.zeros(3), np.zeros(3)), "at different strains"),
        (lambda: analysis.pair_distribution(moving(True)[:0]), "no frames"),
    ],
)
def test_what_has_no_answer_is_refused(ask, said):
    with pytest.raises(ValueError, match=said):
        ask()


def odd(positions=0.0, cell=1.0):
    """Copper, one of whose atoms, or the third lattice vector, is moved."""
    copper = bulk("Cu", a=4.0, cubic=True)
    copper.positions[0, 0] += positions
    copper.set_cell(copper.cell[:] * [[1.0], [1.0], [cell]])
    return Frames.from_ase(copper)


@pytest.mark.parametrize("frames", [odd(np.nan), odd(np.inf), odd(cell=np.nan), odd(cell=1e-9)])
def test_a_frame_that_cannot_be_is_refused_and_neither_counted_without_its_atoms_nor_searched_for_ever(frames):
    """An atom at NaN has no neighbours: the others would be counted without it, in silence."""
    with pytest.raises(ValueError, match=r"not finite|lower than"):
        analysis.find_bonds(frames, {("Cu", "Cu"): 3.0})
    with pytest.raises(ValueError, match=r"not finite|lower than"):
        analysis.network(frames, {("Cu", "Cu"): 3.0}, Roles(formers={"Cu": 1}, anions=("O",)))


def test_g_of_r_and_free_volume_of_a_coordinate_that_is_not_a_number_are_refused():
    frames = odd(np.nan)
    with pytest.raises(ValueError, match="not finite"):
        analysis.pair_distribution(frames)
    with pytest.raises(ValueError, match="not finite"):
        analysis.free_volume(frames.cell[0], frames.positions[0], np.ones(4))


def test_moduli_of_a_stiffness_that_is_not_quite_symmetric_are_those_of_its_symmetric_part():
    c = np.diag([3.0, 3.0, 3.0, 1.0, 1.0, 1.0])
    c[0, 1], c[1, 0] = 1.2, 0.8
    assert analysis.elastic_moduli(c) == analysis.elastic_moduli(c.T)
