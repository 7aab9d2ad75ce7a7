"""Crystals: copper's known lattice, seeds against what they publish, and crystals that a potential cannot relax."""

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from carried import EMT_REFERENCE, UNCONVERGED, one_worker, with_reference
from made_glasses import findings_of, number, planned, run_one, study_of

from activelearn import seeds
from activelearn.benchmark import crystals
from activelearn.benchmark.elements import unknown_elements
from activelearn.config import load_benchmark
from activelearn.errors import Unfit
from activelearn.frames import Frames, make_origin
from activelearn.store import StudyStore


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    with one_worker(tmp_path_factory.mktemp("logs")) as made:
        yield made


SPRINGS = EMT_REFERENCE.model_copy(
    update={
        "calculator": "ase.calculators.lj:LennardJones",
        "arguments": {"epsilon": 0.1, "sigma": 3.0, "rc": 7.0, "smooth": True},
    }
)


def measured(tmp_path, slot, study):
    store = StudyStore.create(tmp_path / "study", study)
    return findings_of(crystals.PROPERTY, study, store, slot)


def test_copper_relaxes_to_the_lattice_constant_of_emt(slot, tmp_path):
    """3.59 Å (ASE's EMT); from a stretched primitive cell, of a file, whose source nobody knows."""
    write(tmp_path / "copper.cif", bulk("Cu", "fcc", a=3.75))
    study = study_of(crystals={"seeds": [str(tmp_path / "copper.cif")], "min_height_A": 4.0, "fmax": 1e-3})
    found = measured(tmp_path, slot, study)
    volume = number(found, "crystal_volume_A3", crystal="copper", potential="toy (EMT)")
    assert (4.0 * volume.value) ** (1.0 / 3.0) == pytest.approx(3.59, abs=0.005)
    assert (volume.unit, volume.reference_value, volume.reference_source) == ("Å3", None, None)
    assert "structure file" in volume.note
    assert "2.538 2.538 2.538 Å 60.0" in volume.note  # the edge of the primitive cell, not of the supercell
    assert number(found, "crystal_density").value == pytest.approx(63.546 * 1.66053907 / volume.value, rel=1e-6)
    assert [result.name for result in found.results] == ["crystal_volume_A3", "crystal_density"]


def test_an_experiment_is_the_reference_and_a_model_is_not(slot, tmp_path):
    """Volumes per formula unit beside those of the seeds' files; one step is no relaxation, and says so."""
    names = ["Na2S_Fm-3m", "Na2O2_P-62m", "Na2S_Pnma"]
    kinds = {name: seeds.load_seed(name).kind for name in names}
    assert kinds == {"Na2S_Fm-3m": "experiment", "Na2O2_P-62m": "calculated", "Na2S_Pnma": "calculated"}
    study = with_reference(study_of(crystals={"seeds": names, "max_steps": 1, "min_height_A": 3.0}), SPRINGS)
    found = measured(tmp_path, slot, study)
    for name in names:
        seed = seeds.load_seed(name)
        volume = number(found, "crystal_volume_A3", crystal=name)
        published = seed.to_atoms().get_volume() / seed.formula_units
        assert volume.value == pytest.approx(published, rel=0.1)
        assert "not relaxed in 1 steps" in volume.note
        if seed.kind == "experiment":
            assert volume.reference_value == pytest.approx(published)
            assert volume.reference_source == seed.source
            deviation = number(found, "crystal_volume", crystal=name)
            assert deviation.value == pytest.approx(100.0 * (volume.value / published - 1.0))
            assert (deviation.unit, deviation.reference_value) == ("%", 0.0)
        else:
            assert volume.reference_value is None
    assert sum(result.name == "crystal_volume" for result in found.results) == 1


def test_peroxide_is_counted_in_formula_units_of_its_seed():
    """Na2O2, not NaO; of a file there is only the greatest common divisor."""
    assert crystals.formula_units(["Na"] * 6 + ["O"] * 6) == 6
    assert crystals.formula_units(["Na"] * 4 + ["P"] * 2 + ["S"] * 7) == 1
    start = Frames(["Na"] * 2 + ["O"] * 2, 4.0 * np.eye(3)[None], np.zeros((1, 4, 3)), origin=make_origin(1))
    meta = {"kind": "model", "source": "", "formula_units": 1, "factors": [1, 1, 1], "is_relaxed": True}
    volume, _ = crystals.compared(start, start, meta, {"potential": "a", "crystal": "b"})
    assert volume.value == pytest.approx(64.0)


def test_an_element_that_a_potential_does_not_know_is_a_problem(slot, tmp_path):
    """EMT knows no sodium and no sulphur; the next crystal is still measured."""
    write(tmp_path / "copper.cif", bulk("Cu", "fcc", a=3.6))
    study = study_of(crystals={"seeds": ["Na2S_Fm-3m", str(tmp_path / "copper.cif")], "min_height_A": 3.0})
    found = measured(tmp_path, slot, study)
    assert found.problems == ["crystal Na2S_Fm-3m with toy (EMT): the potential does not know Na, S"]
    assert {result.condition["crystal"] for result in found.results} == {"copper"}


def test_a_machine_that_fails_on_everything_is_no_unknown_element(slot, tmp_path):
    """No such module: no retry fixes that, and it is not a verdict on the crystal."""
    broken = EMT_REFERENCE.model_copy(update={"calculator": "no_such_module:Nothing"})
    with pytest.raises(Unfit, match="no_such_module"):
        unknown_elements(broken, ["Cu"], slot)
    assert unknown_elements(EMT_REFERENCE, ["Cu", "Na", "O"], slot) == ("Na",)
    study = with_reference(study_of(crystals={"seeds": ["Na2S_Fm-3m"]}), broken)
    store = StudyStore.create(tmp_path, study)
    with pytest.raises(Unfit, match="no_such_module"):
        run_one(crystals.PROPERTY, planned(crystals.PROPERTY, study, store)[0], store, slot)


def test_a_calculation_that_does_not_converge_is_a_problem(slot, tmp_path):
    study = with_reference(study_of(crystals={"seeds": ["Na2S_Fm-3m"]}), UNCONVERGED)
    found = measured(tmp_path, slot, study)
    assert found.results == []
    assert found.problems == ["crystal Na2S_Fm-3m with toy (EMT): SCFError: no convergence in 60 steps"]


def test_a_study_that_does_not_ask_plans_nothing(tmp_path):
    study = study_of()
    assert planned(crystals.PROPERTY, study, StudyStore.create(tmp_path, study)) == []


def test_files_of_a_benchmark_are_taken_from_the_folder_of_its_yaml(tmp_path):
    """A worker of a queue has another working directory than who wrote the YAML."""
    (tmp_path / "copper.cif").write_text("")
    (tmp_path / "labelled.xyz").write_text("")
    yaml = tmp_path / "mine.yaml"
    yaml.write_text("crystals: {seeds: [Na2S_Fm-3m, copper.cif]}\nparity: {frames: labelled.xyz}\n")
    found = load_benchmark(yaml)
    assert found.crystals.seeds == ("Na2S_Fm-3m", str(tmp_path / "copper.cif"))
    assert found.parity.frames == str(tmp_path / "labelled.xyz")
