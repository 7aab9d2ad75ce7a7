"""Packages that are installed and at fault: said to those who ask for their names, no harm to others."""

import os
import subprocess
import sys

import pytest
import yaml
from campaigns import cli, environment, machine_file, tiny
from test_engines_of_others import MODULE as ENGINE
from test_study import COPPER, DYNAMICS, SEGMENTS

EMT = {"calculator": "ase.calculators.emt:EMT", "functional": "none", "includes_dispersion": False}
STUDY = {
    "name": "copper",
    "potentials": [{"name": "EMT", "ase": EMT}],
    "glass": {"series": COPPER, "n_atoms": 32, "n_replicas": 1, "dynamics": DYNAMICS, "segments": SEGMENTS},
    "benchmark": {"network": None, "coordination": False, "free_volume": False},
}
#: Package -> its module, and what it adds.
PACKAGES = {
    "dead": ("import nothing_such\n", {"references": "dead", "properties": "deadly"}),
    "one": (ENGINE, {"references": "pairs", "properties": "pairs"}),
    "two": (ENGINE, {"references": "pairs", "properties": "pairs"}),
    "thief": (ENGINE, {"references": "gpaw", "properties": "rdf"}),
    "wrong": ("ENGINE = 3\n", {"references": "wrong", "properties": "wrongly"}),
}


@pytest.fixture
def installed(tmp_path):
    """Returns the environment of a user who has installed packages of the table."""

    def environment_with(*names):
        for name in names:
            source, points = PACKAGES[name]
            info = tmp_path / "site" / f"{name}-1.0.dist-info"
            info.mkdir(parents=True)
            (tmp_path / "site" / f"{name}_module.py").write_text(source)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            lines = [f"[activelearn.{group}]\n{added} = {name}_module:ENGINE\n" for group, added in points.items()]
            (info / "entry_points.txt").write_text("".join(lines))
        env = environment()
        return {**env, "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), env["PYTHONPATH"]])}

    return environment_with


def asked(group, name, env):
    """Return what is said to somebody who asks for a name."""
    of = {
        "references": "from activelearn.config import engine_of as f",
        "properties": "from activelearn.config import property_of as f",
    }
    code = f"{of[group]}\ntry:\n    f({name!r})\nexcept Exception as error:\n    print(type(error).__name__, error)"
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("group", ["references", "properties"])
@pytest.mark.parametrize(
    ("packages", "name", "sentence"),
    [
        (["dead"], "dead", "of dead 1.0) cannot be imported (ModuleNotFoundError: No module named 'nothing_such')"),
        (["one", "two"], "pairs", "1.0 adds 'pairs', which "),
        (
            ["thief"],
            "gpaw",
            "thief 1.0 adds 'gpaw', which activelearn itself has - wanted another name - uninstall one",
        ),
        (["wrong"], "wrong", "(wrong_module:ENGINE of wrong 1.0) is a int - wanted a "),
        ([], "nobody", "nobody: not in activelearn."),
    ],
)
def test_who_asks_is_told_which_package_is_at_fault(installed, group, packages, name, sentence):
    name = {"dead": "deadly", "gpaw": "rdf", "wrong": "wrongly"}.get(name, name) if group == "properties" else name
    said = asked(group, name, installed(*packages))
    assert said.startswith("ConfigError ")
    assert sentence.replace("'gpaw'", repr(name)) in said


def test_a_study_that_asks_for_none_of_theirs_is_carried_out(installed, tmp_path):
    env = installed("dead", "one", "two", "wrong")
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(STUDY))
    words = ("--machine", machine_file(tmp_path / "machine.yaml", slots=1), "--folder", "study")
    done = cli("benchmark", "--study", tmp_path / "s.yaml", *words, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "study" / "tables" / "scoreboard.md").is_file()


def test_a_misspelt_key_of_a_benchmark_is_still_what_is_said(installed, tmp_path):
    env = installed("dead", "one", "two", "wrong")
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({**STUDY, "benchmark": {"rdff": {}}}))
    words = ("--machine", machine_file(tmp_path / "machine.yaml"), "--check")
    done = cli("benchmark", "--study", tmp_path / "s.yaml", *words, cwd=tmp_path, env=env)
    assert done.returncode == 2
    assert "benchmark.rdff: unknown key - did you mean 'rdf'?" in done.stderr


def test_a_campaign_with_a_reference_of_ours_is_checked(installed, tmp_path):
    words = ("check", tiny(tmp_path / "c.yaml"), "--machine", machine_file(tmp_path / "machine.yaml"))
    done = cli(*words, cwd=tmp_path, env=installed("dead", "one", "two", "thief"))
    assert done.returncode == 0, done.stderr


def test_a_misspelt_key_of_a_reference_is_still_what_is_said(installed, tmp_path):
    path = tiny(tmp_path / "c.yaml", label__reference__weight="x")
    words = ("check", path, "--machine", machine_file(tmp_path / "machine.yaml"))
    done = cli(*words, cwd=tmp_path, env=installed("dead", "one", "two", "thief"))
    assert done.returncode == 2
    assert "label.reference.weight: unknown key - did you mean 'weights'?" in done.stderr
