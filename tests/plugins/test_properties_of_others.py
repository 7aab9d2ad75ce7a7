"""A property of another package: found by its entry point, measured with its own settings, in table and figure."""

import csv
import os
import subprocess
import sys

import pytest
import yaml
from campaigns import cli, environment, machine_file
from test_study import COPPER, DYNAMICS, SEGMENTS

from activelearn.config import Study
from activelearn.store import StudyStore

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "former-distance"
version = "1.2"

[project.entry-points."activelearn.properties"]
former_distance = "former_distance:PROPERTY"

[tool.setuptools]
py-modules = ["former_distance"]
"""
MODULE = '''
"""Distance of a former to its nearest neighbour."""

import numpy as np
from pydantic import PositiveFloat

from activelearn.analysis import find_bonds, mean_and_error
from activelearn.benchmark.property import Findings, Property
from activelearn.benchmark.replicas import NO_FRAMES, measured
from activelearn.config import Section


class FormerDistance(Section):
    """How far is looked."""

    cutoff_A: PositiveFloat = 5.0


def run(task, asked, context, slot):
    frames = context.path_of(task).analysed_frames
    if len(frames) == 0:
        return {}, {"ended": NO_FRAMES}
    formers = list(context.glass.series.roles.formers)
    bonds = find_bonds(frames, {(a, b): asked.cutoff_A for a in formers for b in frames.symbols})
    nearest = np.full(bonds.n_numbers, np.inf)
    np.minimum.at(nearest, bonds.i, bonds.distance)
    return {"nearest": nearest[np.isin(np.tile(frames.symbols, len(frames)), formers)]}, {}


def results(asked, context, tasks):
    found = Findings()
    edges = np.linspace(0.0, asked.cutoff_A, 26)
    for replicas in measured(context, tasks, found):
        nearest = [arrays["nearest"] for arrays in replicas.arrays]
        note = f"within {asked.cutoff_A:g} Å"
        found.results.append(replicas.result("former_distance", "Å", [float(one.mean()) for one in nearest], note))
        shares = [100.0 * np.histogram(one, edges)[0] / len(one) for one in nearest]
        curve = replicas.curve("former_distances", "formers", ("r (Å)", "share of formers (%)"))
        found.add_curve(curve, (edges[1:] + edges[:-1]) / 2, *mean_and_error(shares))
    return found


PROPERTY = Property("former_distance", FormerDistance, run, results)
'''
STUDY = {
    "name": "plugged",
    "potentials": [
        {
            "name": "EMT",
            "ase": {"calculator": "ase.calculators.emt:EMT", "functional": "none", "includes_dispersion": False},
        }
    ],
    "glass": {"series": COPPER, "n_atoms": 32, "n_replicas": 2, "dynamics": DYNAMICS, "segments": SEGMENTS},
    "benchmark": {
        "rdf": None,
        "network": None,
        "coordination": False,
        "free_volume": False,
        "former_distance": {"cutoff_A": 4.0},
    },
}


@pytest.fixture(scope="module")
def plugged(tmp_path_factory):
    """The environment of a user who has installed the package."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "former_distance.py").write_text(MODULE)
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", target]
    subprocess.run([sys.executable, "-m", "pip", "install", *offline, source], check=True)
    return environment(PYTHONPATH=os.fspath(target))


def study_file(folder, **measured):
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(STUDY | {"benchmark": STUDY["benchmark"] | measured}))
    return file


def benchmark(folder, env, *words, **measured):
    file, machine = study_file(folder, **measured), machine_file(folder / "machine.yaml", slots=1)
    words = ["benchmark", "--study", file, "--machine", machine, "--folder", "study", *words]
    return cli(*words, cwd=folder, env=env)


@pytest.mark.engines
def test_it_is_measured_and_stands_in_the_tables_and_in_a_figure(plugged, tmp_path):
    done = benchmark(tmp_path, plugged)
    assert done.returncode == 0, done.stdout + done.stderr
    place = StudyStore(tmp_path / "study")
    rows = list(csv.DictReader((place.folder / "tables" / "results.csv").open(encoding="utf-8")))
    assert [row["name"] for row in rows] == ["density", "volume_per_atom", "former_distance"], "after ours"
    (row,) = [row for row in rows if row["name"] == "former_distance"]
    assert 2.0 < float(row["value"]) < 2.8, "copper"
    assert (row["unit"], row["n"], row["note"]) == ("Å", "2", "within 4 Å")
    assert float(row["uncertainty"]) > 0.0
    assert "former_distance" in (place.folder / "tables" / "scoreboard.md").read_text()
    assert (place.folder / "figures" / "former-distances_formers.png").is_file()
    sealed = yaml.safe_load((place.folder / "study.yaml").read_text())
    assert sealed["benchmark"]["former_distance"] == {"cutoff_A": 4.0}
    again = benchmark(tmp_path, plugged)
    assert again.returncode == 0, again.stderr
    without = cli("status", place.folder, "--json", cwd=tmp_path)  # the package is gone
    assert (without.returncode, without.stdout) == (2, "")
    assert "rename or remove it, or install the package that adds it" in without.stderr
    assert "Traceback" not in without.stderr


def test_what_is_wrong_with_its_settings_is_said_with_the_keys_that_it_has(plugged, tmp_path):
    done = benchmark(tmp_path, plugged, "--check", former_distance={"cutof_A": 4.0, "cutoff_A": -1.0}, rdff={})
    assert done.returncode == 2
    assert "benchmark.former_distance.cutof_A: unknown key - did you mean 'cutoff_A'?" in done.stderr
    assert "benchmark.former_distance.cutoff_A: got -1.0 - expected greater than 0" in done.stderr
    assert "benchmark.rdff: unknown key - did you mean 'rdf'?" in done.stderr


@pytest.mark.parametrize("nothing", [None, False])
def test_null_or_false_is_not_measured(plugged, tmp_path, nothing):
    done = benchmark(tmp_path, plugged, "--check", former_distance=nothing)
    assert done.returncode == 0, done.stderr
    assert "measured: density, maps;" in done.stdout
    assert "former_distance" in benchmark(tmp_path, plugged, "--check").stdout


def test_without_the_package_its_key_is_unknown(tmp_path):
    done = benchmark(tmp_path, environment(), "--check")
    assert done.returncode == 2
    assert "benchmark.former_distance: unknown key" in done.stderr


ROUND = """
import json, sys, yaml
from activelearn.config import Study
study = Study.model_validate(yaml.safe_load(open(sys.argv[1])))
again = Study.model_validate(yaml.safe_load(study.to_yaml()))
schema = Study.model_json_schema()["$defs"]["Benchmark"]
copied = Study.model_validate(study)
print(again == study == copied, again.sha256 == study.sha256, [*study.benchmark.asked])
print({"rdf", "former_distance"} <= schema["properties"].keys(), schema["additionalProperties"])
print(study.benchmark.asked["former_distance"])
"""


def test_the_resolved_study_read_back_is_equal_and_the_schema_has_it(plugged, tmp_path):
    words = [sys.executable, "-c", ROUND, study_file(tmp_path)]
    done = subprocess.run(words, env=plugged, capture_output=True, text=True, check=True)
    assert done.stdout == "True True ['density', 'former_distance']\nTrue False\ncutoff_A=4.0\n"


def test_the_schema_of_ours_alone_has_no_room_for_other_keys():
    schema = Study.model_json_schema()["$defs"]["Benchmark"]
    assert schema["additionalProperties"] is False
    assert "former_distance" not in schema["properties"]
