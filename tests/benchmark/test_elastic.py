"""Elastic constants: formulas against pymatgen, crystals against their own energy and published numbers."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from carried import EMT_REFERENCE, UNCONVERGED, alloy, one_worker, with_reference
from made_glasses import findings_of, number, planned, study_folder, study_of

from activelearn.benchmark import elastic
from activelearn.benchmark.straining import VOIGT, Relaxer, pressure_GPa, strained, stress_GPa
from activelearn.config import Potential
from activelearn.frames import Frames
from activelearn.units import EV_PER_A3_IN_GPA


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    with one_worker(tmp_path_factory.mktemp("logs")) as made:
        yield made


COPPER = Frames.from_ase([bulk("Cu", "fcc", a=3.65)])  # the primitive cell: no right angle in it

SILICON = """Si Si Si 2.1683 2.0951 1.80 21.0 1.20 -0.333333333333 7.049556277 0.6022245584 4.0 0.0 0.0"""


def relaxer(reference, slot, folder, fmax=1e-4, max_steps=500):
    return Relaxer(reference, slot, fmax, max_steps, folder)


def positive_definite(random_seed):
    """A stiffness without any symmetry, GPa."""
    m = np.random.default_rng(random_seed).normal(size=(6, 6))
    return m @ m.T * 10.0 + 20.0 * np.eye(6)


# --- formulas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("random_seed", range(5))
def test_hill_means_are_those_of_pymatgen(random_seed):
    from pymatgen.analysis.elasticity import ElasticTensor

    c = positive_definite(random_seed)
    found, known = elastic.moduli(c), ElasticTensor.from_voigt(c)
    assert found.bulk_voigt == pytest.approx(known.k_voigt)
    assert found.bulk_reuss == pytest.approx(known.k_reuss)
    assert found.shear_voigt == pytest.approx(known.g_voigt)
    assert found.shear_reuss == pytest.approx(known.g_reuss)
    assert found.youngs == pytest.approx(known.y_mod / 1e9)
    assert found.poisson == pytest.approx(known.homogeneous_poisson)


def test_an_isotropic_solid_has_the_moduli_it_was_made_of():
    """Voigt and Reuss agree there, and Lamé's constants give E and nu by themselves."""
    lame, shear = 50.0, 30.0
    c = np.diag([2.0 * shear] * 3 + [shear] * 3)
    c[:3, :3] += lame
    found = elastic.moduli(c)
    assert found.bulk_voigt == pytest.approx(found.bulk_reuss) == pytest.approx(lame + 2 * shear / 3)
    assert found.youngs == pytest.approx(shear * (3 * lame + 2 * shear) / (lame + shear))
    assert found.poisson == pytest.approx(lame / (2 * (lame + shear)))
    c11, c12, c44 = elastic.cubic_means(c)
    assert c44 == pytest.approx((c11 - c12) / 2)


def test_stiffness_is_read_in_the_order_stress_then_strain():
    """From stresses that obey s_i = s0_i + sum_j C_ij d_j with a C that is not symmetric."""
    c = np.random.default_rng(1).normal(size=(6, 6))
    stress = np.array([[7.0 + c[:, j] * d for d in (0.01, -0.01)] for j in range(6)])
    assert elastic.stiffness(stress, 0.01) == pytest.approx(c)


def test_voigt_strains_are_engineering_strains():
    """In ASE's order; x of a point moves by gamma/2 times its y, and y by gamma/2 times its x."""
    assert elastic.voigt_strain(1, 0.02) == pytest.approx(np.diag([0.0, 0.02, 0.0]))
    shear = elastic.voigt_strain(5, 0.02)
    assert shear[0, 1] == shear[1, 0] == 0.01
    assert np.count_nonzero(shear) == 2
    assert list(zip(*VOIGT, strict=True)) == [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]


def test_stress_and_pressure_have_ases_signs(copper):
    """Of EMT copper in a skewed cell, in GPa; a virial has the other sign and the volume in it."""
    atoms = copper.to_ase()[0]
    atoms.calc = EMT()
    assert stress_GPa(copper[0])[0] == pytest.approx(atoms.get_stress() * EV_PER_A3_IN_GPA)
    assert pressure_GPa(copper[0])[0] == pytest.approx(-atoms.get_stress()[:3].sum() / 3 * EV_PER_A3_IN_GPA)


# --- crystals ---------------------------------------------------------------------------------------------------------


def energy_derivative(frame, strain):
    """Second derivative of EMT's energy by a strain, per volume, GPa: knows nothing of stress."""

    def energy(sign):
        atoms = strained(frame, sign * strain).to_ase()[0]
        atoms.calc = EMT()
        return atoms.get_potential_energy()

    h = np.abs(strain).max()
    return (energy(1) - 2.0 * energy(0) + energy(-1)) / h**2 / frame.volume[0] * EV_PER_A3_IN_GPA


def test_copper_has_the_elastic_constants_of_its_energy(slot, tmp_path):
    """C11, C12 and C44 of EMT copper from second derivatives of the energy, in the primitive (triclinic) cell."""
    arrays, meta = elastic.relaxed_stiffness(relaxer(EMT_REFERENCE, slot, tmp_path), COPPER, 0.002)
    free = Frames.from_arrays(dict(np.load(tmp_path / "zero-stress.npz")))
    h = 1e-3
    c11 = energy_derivative(free, np.diag([h, 0, 0]))
    c11_plus_c12 = energy_derivative(free, np.diag([h, h, 0])) / 2.0
    shear = np.zeros((3, 3))
    shear[1, 2] = shear[2, 1] = h
    c44 = energy_derivative(free, shear) / 4.0  # gamma = 2 h
    found = elastic.cubic_means(arrays["stiffness"])
    assert found == pytest.approx((c11, c11_plus_c12 - c11, c44), rel=2e-3)
    assert meta["asymmetry_GPa"] < 0.05
    assert abs(meta["pressure_GPa"]) < 0.01
    assert meta["n_unrelaxed"] == 0
    by_axis = np.diag(arrays["stiffness"])
    assert np.ptp(by_axis[:3]) < 0.1
    assert np.ptp(by_axis[3:]) < 0.1


def test_argon_obeys_cauchys_relation(slot, tmp_path):
    """Pair forces between centres of symmetry at zero stress: C12 = C44."""
    lj = {"epsilon": 0.0104, "sigma": 3.40, "rc": 10.0, "smooth": True}
    argon = EMT_REFERENCE.model_copy(update={"calculator": "ase.calculators.lj:LennardJones", "arguments": lj})
    start = Frames.from_ase([bulk("Ar", "fcc", a=5.26)])
    arrays, _ = elastic.relaxed_stiffness(relaxer(argon, slot, tmp_path, fmax=1e-6), start, 0.001)
    c11, c12, c44 = elastic.cubic_means(arrays["stiffness"])
    assert c12 == pytest.approx(c44, rel=2e-3)
    assert c11 > c12 > 1.0


@pytest.mark.engines
def test_silicon_of_stillinger_and_weber_has_its_published_constants(slot, tmp_path):
    """C11 151.4, C12 76.4 and C44 56.4 GPa (Cowley, PRL 60 (1988) 2379); atoms that do not relax give C44 = 117."""
    (tmp_path / "Si.sw").write_text(SILICON)
    style = {"pair_style": "sw", "pair_coeff": [f"* * {tmp_path / 'Si.sw'} Si"], "elements": ["Si"]}
    potential = Potential(name="SW", lammps=style, functional="none", includes_dispersion=False)
    start = Frames.from_ase([bulk("Si", "diamond", a=5.43)])
    arrays, _ = elastic.relaxed_stiffness(relaxer(potential.statics(), slot, tmp_path, fmax=1e-4), start, 0.005)
    assert elastic.cubic_means(arrays["stiffness"]) == pytest.approx((151.4, 76.4, 56.4), abs=0.5)


# --- the property -----------------------------------------------------------------------------------------------------


def test_replicas_of_a_glass_give_moduli_with_errors(slot, tmp_path):
    study = study_of(elastic={"fmax": 0.01})
    store = study_folder(tmp_path, study, [alloy(0), alloy(1)])
    found = findings_of(elastic.PROPERTY, study, store, slot)
    names = ["C11", "C12", "C44", "bulk_modulus_hill", "shear_modulus", "youngs_modulus", "poisson_ratio"]
    assert [result.name for result in found.results] == names
    bulk_modulus, shear = number(found, "bulk_modulus_hill"), number(found, "shear_modulus")
    assert bulk_modulus.n_samples == 2
    assert bulk_modulus.uncertainty > 0.0
    assert bulk_modulus.condition == {"potential": "toy (EMT)", "x": 0.0, "temperature_K": 0.0}
    assert bulk_modulus.stamp == "not judged"
    assert bulk_modulus.note == "0 K"
    assert "if isotropic" in number(found, "C44").note
    assert number(found, "C11").value > number(found, "C12").value
    assert 50.0 < bulk_modulus.value < 250.0
    assert 0.0 < shear.value < bulk_modulus.value
    assert found.problems == []


def test_a_structure_that_is_not_stable_says_so(slot, tmp_path):
    """Bcc copper by EMT is a saddle point: a tetragonal strain lowers its energy."""
    study = study_of(elastic={})
    store = study_folder(tmp_path, study, [Frames.from_ase([bulk("Cu", "bcc", a=2.88)])])
    found = findings_of(elastic.PROPERTY, study, store, slot)
    assert {result.stamp.split(" (")[0] for result in found.results} == {"UNSTABLE: 1 of 1 not positive definite"}


def test_a_physical_failure_is_a_problem_and_a_short_relaxation_a_note(slot, tmp_path):
    study = study_of(elastic={"fmax": 1e-5, "max_steps": 1})
    store = study_folder(tmp_path / "short", study, [alloy(0)])
    assert "13 relaxations not finished" in number(findings_of(elastic.PROPERTY, study, store, slot), "C11").note
    study = with_reference(study, UNCONVERGED)
    found = findings_of(elastic.PROPERTY, study, study_folder(tmp_path / "odd", study, [alloy(0)]), slot)
    assert found.results == []
    assert found.problems == ["elastic of toy-EMT-x0-0: zero-stress: SCFError: no convergence in 60 steps"]


def test_what_was_relaxed_before_a_kill_is_not_relaxed_again(slot, tmp_path):
    """The kept answer is used even where the reference would now fail."""
    first, again = relaxer(EMT_REFERENCE, slot, tmp_path).relaxed("one", COPPER, relax_cell=True)
    kept, is_relaxed = relaxer(UNCONVERGED, slot, tmp_path).relaxed("one", COPPER, relax_cell=True)
    assert np.array_equal(kept.cell, first.cell)
    assert is_relaxed
    assert again


def test_a_study_that_does_not_ask_plans_nothing(tmp_path):
    study = study_of()
    assert planned(elastic.PROPERTY, study, study_folder(tmp_path, study, [COPPER])) == []
