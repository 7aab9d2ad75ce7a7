"""Density: of a crystal with a known one, from the thermo rows of what is analysed, and averaged over replicas."""

import numpy as np
import pytest
from ase.build import bulk
from made_glasses import findings_of, number, planned, study_folder, study_of

from activelearn.benchmark.density import PROPERTY
from activelearn.frames import Frames

COPPER = Frames.from_ase([bulk("Cu", "fcc", a=3.6149, cubic=True)] * 4)


def test_copper_has_the_density_of_the_handbook():
    """8.935 g/cm3: that of the lattice constant 3.6149 Å at room temperature (CRC Handbook: 8.933)."""
    assert COPPER.density[0] == pytest.approx(8.935, abs=0.003)


def test_only_thermo_rows_of_analysed_segments_count(tmp_path):
    study = study_of()
    volume = COPPER.volume[0]
    store = study_folder(tmp_path, study, [COPPER], volumes=[volume * np.array([0.9, 1.0, 1.1])])
    found = findings_of(PROPERTY, study, store)
    assert number(found, "volume_per_atom").value == pytest.approx(volume / 4)
    density = number(found, "density", potential="toy (EMT)", x=0.0)
    assert density.value == pytest.approx(8.935 * np.mean(1 / np.array([0.9, 1.0, 1.1])), abs=0.003)
    assert (density.unit, density.uncertainty, density.n_samples, density.note) == ("g/cm3", None, 1, None)


def test_replicas_give_a_mean_and_its_standard_error(tmp_path):
    study = study_of()
    volumes = [COPPER.volume[0] * factor * np.array([0.99, 1.01]) for factor in (0.95, 1.0, 1.05)]
    store = study_folder(tmp_path, study, [COPPER] * 3, volumes=volumes)
    found = number(findings_of(PROPERTY, study, store), "volume_per_atom")
    assert found.value == pytest.approx(COPPER.volume[0] / 4)
    assert found.uncertainty == pytest.approx(0.05 * COPPER.volume[0] / 4 / np.sqrt(3))
    assert (found.unit, found.n_samples, found.stamp) == ("Å3", 3, "not judged")


def test_a_density_that_was_given_says_so(tmp_path):
    study = study_of()
    store = study_folder(tmp_path, study, [COPPER], volumes=[np.full(5, 47.0)])
    assert "given, not predicted" in number(findings_of(PROPERTY, study, store), "density").note


def test_a_glass_without_thermo_rows_is_a_problem_not_a_number(tmp_path):
    study = study_of()
    found = findings_of(PROPERTY, study, study_folder(tmp_path, study, [COPPER], volumes=[np.zeros(0)]))
    assert found.results == []
    assert "toy-EMT-x0-0" in found.problems[0]


def test_a_study_that_does_not_ask_plans_nothing(tmp_path):
    study = study_of(density=False)
    assert planned(PROPERTY, study, study_folder(tmp_path, study, [COPPER])) == []
