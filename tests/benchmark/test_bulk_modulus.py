"""Bulk modulus: the fit, copper against its own C_ij and its own energy, replicas, and what goes wrong."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from carried import EMT_REFERENCE, UNCONVERGED, alloy, one_worker, with_reference
from made_glasses import findings_of, number, planned, run_one, study_folder, study_of

from activelearn.benchmark import bulk_modulus, elastic
from activelearn.benchmark.straining import Relaxer, strained
from activelearn.config import Potential
from activelearn.frames import Frames
from activelearn.units import EV_PER_A3_IN_GPA


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    with one_worker(tmp_path_factory.mktemp("logs")) as made:
        yield made


COPPER = Frames.from_ase([bulk("Cu", "fcc", a=3.62) * (2, 1, 1)])  # triclinic, and not cubic
STRAINS = np.array([-0.01, -0.005, 0.0, 0.005, 0.01])


# --- the fit ----------------------------------------------------------------------------------------------------------


def test_the_modulus_is_a_third_of_the_slope_whatever_the_pressure_at_rest():
    modulus, error = bulk_modulus.fit(STRAINS, 0.7 - 3.0 * 25.0 * STRAINS)
    assert modulus == pytest.approx(25.0)
    assert error == pytest.approx(0.0, abs=1e-9)


def test_the_error_of_the_fit_is_that_of_scipy():
    from scipy.stats import linregress

    pressure = -60.0 * STRAINS + np.random.default_rng(0).normal(0.0, 0.1, 5)
    known = linregress(STRAINS, pressure)
    assert bulk_modulus.fit(STRAINS, pressure) == pytest.approx((-known.slope / 3.0, known.stderr / 3.0))


# --- 0 K --------------------------------------------------------------------------------------------------------------


def test_copper_gives_the_curvature_of_its_energy_and_that_of_its_elastic_constants(slot, tmp_path):
    """B = V d2E/dV2 by EMT's energy alone, within 0.5 %; and (C11 + 2 C12)/3 within 1 %."""
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    arrays, _ = bulk_modulus.relaxed_pressures(
        Relaxer(EMT_REFERENCE, slot, 1e-4, 200, tmp_path / "b"), COPPER, STRAINS.tolist()
    )
    found, error = bulk_modulus.fit(arrays["strain"], arrays["pressure_GPa"])
    free = Frames.from_arrays(dict(np.load(tmp_path / "b" / "zero-stress.npz")))

    def energy(e):
        atoms = strained(free, e * np.eye(3)).to_ase()[0]
        atoms.calc = EMT()
        return atoms.get_potential_energy()

    h = 1e-3
    curvature = (energy(h) - 2.0 * energy(0.0) + energy(-h)) / h**2 / free.volume[0] / 9.0 * EV_PER_A3_IN_GPA
    assert found == pytest.approx(curvature, rel=5e-3)
    assert error < 0.03 * found  # the line does not know of the curvature
    c, _ = elastic.relaxed_stiffness(Relaxer(EMT_REFERENCE, slot, 1e-4, 200, tmp_path / "c"), COPPER, 0.002)
    assert found == pytest.approx(elastic.moduli(c["stiffness"]).bulk, rel=0.01)


def test_where_atoms_relax_it_still_is_that_of_the_elastic_constants(slot, tmp_path):
    """Of a skewed cell without symmetry hydrostatic strain gives Voigt's sum of the relaxed C_ij, within 1 %."""
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    start = alloy(0)
    arrays, meta = bulk_modulus.relaxed_pressures(
        Relaxer(EMT_REFERENCE, slot, 1e-3, 200, tmp_path / "b"), start, STRAINS.tolist()
    )
    found, _ = bulk_modulus.fit(arrays["strain"], arrays["pressure_GPa"])
    c, _ = elastic.relaxed_stiffness(Relaxer(EMT_REFERENCE, slot, 1e-3, 200, tmp_path / "c"), start, 0.005)
    assert found == pytest.approx(elastic.moduli(c["stiffness"]).bulk_voigt, rel=0.01)
    assert meta["n_unrelaxed"] == 0


def test_replicas_give_a_mean_and_a_curve_with_errors(slot, tmp_path):
    study = study_of(bulk_modulus={"strains": [-0.01, 0.0, 0.01]})
    found = findings_of(
        bulk_modulus.PROPERTY, study, study_folder(tmp_path, study, [alloy(0), alloy(1), alloy(2)]), slot
    )
    result = number(found, "bulk_modulus", x=0.0, temperature_K=0.0)
    assert (result.unit, result.n_samples, result.stamp) == ("GPa", 3, "not judged")
    assert result.uncertainty > 0.0
    assert result.note == "0 K, strained from zero stress, linear strains -1.00% to +1.00%"
    (curve,) = found.curves
    stress = found.arrays[f"{curve.key}/y"]
    assert found.arrays[f"{curve.key}/x"] == pytest.approx([-1.0, 0.0, 1.0])
    assert stress[0] < stress[1] < stress[2]  # tension is positive
    assert stress[1] == pytest.approx(0.0, abs=0.2)
    assert (stress[2] - stress[0]) / 0.02 / 3.0 == pytest.approx(result.value)
    assert found.arrays[f"{curve.key}/error"].shape == (3,)


def test_of_one_glass_the_error_is_that_of_the_fit(slot, tmp_path):
    study = study_of(bulk_modulus={"strains": [-0.02, 0.0, 0.02], "max_steps": 1, "fmax": 1e-6})
    result = number(
        findings_of(bulk_modulus.PROPERTY, study, study_folder(tmp_path, study, [alloy(0)]), slot), "bulk_modulus"
    )
    assert 0.0 < result.uncertainty < 0.2 * result.value
    assert result.note.endswith("4 relaxations not finished in the steps allowed; error of the fit")


def test_a_glass_on_which_the_potential_fails_is_a_problem(slot, tmp_path):
    study = with_reference(study_of(bulk_modulus={}), UNCONVERGED)
    found = findings_of(bulk_modulus.PROPERTY, study, study_folder(tmp_path, study, [COPPER]), slot)
    assert (found.results, found.curves) == ([], [])
    assert found.problems == ["bulk_modulus of toy-EMT-x0-0: zero-stress: SCFError: no convergence in 60 steps"]


# --- at a temperature -------------------------------------------------------------------------------------------------


@pytest.mark.engines
def test_cold_argon_has_the_modulus_of_argon_at_rest(slot, tmp_path):
    """NVT averages at 2 K about the zero of stress, against relaxed cells; a second run takes all from its folder."""
    style = {"pair_style": "lj/smooth 8.0 10.0", "pair_coeff": ["1 1 0.0104 3.40"], "elements": ["Ar"]}
    potential = Potential(name="toy (EMT)", lammps=style, functional="none", includes_dispersion=False)
    asked = {"strains": [-0.01, 0.0, 0.01], "equilibrate_ps": 0.3, "average_ps": 1.0, "fmax": 1e-4}
    argon, moduli = Frames.from_ase([bulk("Ar", "fcc", a=5.24, cubic=True) * (2, 2, 2)]), {}
    for temperature_K in (None, 2.0):
        study = study_of(bulk_modulus={**asked, "temperature_K": temperature_K})
        study = study.model_copy(update={"potentials": (potential,)})
        store = study_folder(tmp_path / f"{temperature_K}", study, [argon])
        found = findings_of(bulk_modulus.PROPERTY, study, store, slot)
        moduli[temperature_K] = number(found, "bulk_modulus", temperature_K=temperature_K or 0.0)
        if temperature_K is None:
            (free,) = store.folder.glob("work/*/zero-stress.npz")
            argon = Frames.from_arrays(dict(np.load(free))).without_labels()
    assert moduli[2.0].value == pytest.approx(moduli[None].value, rel=0.05)
    assert moduli[2.0].note.startswith("NVT at 2 K")
    task = planned(bulk_modulus.PROPERTY, study, store)[0]
    again, meta = run_one(bulk_modulus.PROPERTY, task, store, slot=None)  # nothing is left to run
    assert bulk_modulus.fit(again["strain"], again["pressure_GPa"])[0] == pytest.approx(moduli[2.0].value)
    assert meta["ended"] == "finished"
