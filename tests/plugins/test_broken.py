"""Packages that are installed and at fault: said to those who ask for their names, no harm to others."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml
from campaigns import cli, environment, machine_file, tiny
from test_engines_of_others import MODULE as ENGINE
from test_page import PAGE
from test_study import COPPER, DYNAMICS, SEGMENTS

from activelearn.config import Shell, Train, Trained, Trainer, TrainingData, TrainingRun
from activelearn.errors import ConfigError

EMT = {"calculator": "ase.calculators.emt:EMT", "functional": "none", "includes_dispersion": False}
STUDY = {
    "name": "copper",
    "potentials": [{"name": "EMT", "ase": EMT}],
    "glass": {"series": COPPER, "n_atoms": 32, "n_replicas": 1, "dynamics": DYNAMICS, "segments": SEGMENTS},
    "benchmark": {"network": None, "coordination": False, "free_volume": False},
}
#: The trainer of the page about plug-ins, but for one answer.
ODD = """
import numpy as np
from my_trainer import Pairs

class Odd(Pairs):
    def {}

ENGINE = Odd()
"""
RAISES = "train(self, *args):\n        return {}['weight']"
NO_NUMBERS = """evaluate(self, folder, model, parts, slot):
        return [part.with_labels(part.energy, part.forces * np.nan, None) for part in parts]"""
#: Package -> its module, and what it adds.
PACKAGES = {
    "dead": ("import nothing_such\n", {"references": "dead", "properties": "deadly", "trainers": "dead"}),
    "one": (ENGINE, {"references": "pairs", "properties": "pairs", "trainers": "pairs"}),
    "two": (ENGINE, {"references": "pairs", "properties": "pairs", "trainers": "pairs"}),
    "thief": (ENGINE, {"references": "gpaw", "properties": "rdf"}),
    "usurper": (ENGINE, {"trainers": "deepmd"}),
    "raising": (ODD.format(RAISES), {"trainers": "odd"}),
    "nan": (ODD.format(NO_NUMBERS), {"trainers": "odd"}),
    "wrong": ("ENGINE = 3\n", {"references": "wrong", "properties": "wrongly", "trainers": "wrong"}),
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
        "trainers": "from activelearn.config import TRAINERS\nf = TRAINERS.find",
    }
    code = f"{of[group]}\ntry:\n    f({name!r})\nexcept Exception as error:\n    print(type(error).__name__, error)"
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("group", ["references", "properties", "trainers"])
@pytest.mark.parametrize(
    ("packages", "name", "sentence"),
    [
        (["dead"], "dead", "of dead 1.0) cannot be imported (ModuleNotFoundError: No module named 'nothing_such')"),
        (["one", "two"], "pairs", "1.0 adds 'pairs', which "),
        (
            ["thief"],
            "gpaw",
            "thief 1.0 adds 'gpaw', which activelearn itself has - expected another name - uninstall one",
        ),
        (["wrong"], "wrong", "(wrong_module:ENGINE of wrong 1.0) is a int - expected a "),
        ([], "nobody", "nobody: not in activelearn."),
    ],
)
def test_who_asks_is_told_which_package_is_at_fault(installed, group, packages, name, sentence):
    theirs = {"properties": {"dead": "deadly", "gpaw": "rdf", "wrong": "wrongly"}, "trainers": {"gpaw": "deepmd"}}
    if group == "trainers" and packages == ["thief"]:
        packages, sentence = ["usurper"], sentence.replace("thief", "usurper")
    name = theirs.get(group, {}).get(name, name)
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


# --- a trainer that can be imported, but is wrong ---------------------------------------------------------------------


class Whole(Trainer[Train]):
    """All answers are as the contract requires, but useless."""

    settings = Train

    def shells(self, train):
        return (Shell(5.0, "train.cutoff_A"),)

    def write_data(self, folder, parts, train, type_map):
        pass

    def train(self, folder, train, run, data, slot):
        (folder / "model.none").touch()
        return Trained(folder / "model.none", ["step"], np.zeros((0, 1)))

    def evaluate(self, folder, model, parts, slot):
        return [part.with_labels(part.energy, part.forces, None) for part in parts]

    def pair(self, models, type_map, every):
        return ["pair_style zero 5.0", "pair_coeff * *"]

    def calculator(self, model):
        return {"calculator": "ase.calculators.emt:EMT", "arguments": {}, "package": "ase"}

    def potential(self, models, sha256, type_map, window):
        return {"lammps": {"pair_style": "zero 5.0", "pair_coeff": ["* *"], "elements": type_map}}


def answers(trainer, folder, frames):
    """Ask a trainer everything, in the order of a campaign."""
    train, data = Train(), TrainingData(folder, ("Cu",), ())
    found = [trainer.shells(train), trainer.impossible(train), trainer.same_networks(train, train)]
    trainer.write_data(folder, [frames], train, ("Cu",))
    found.append(trainer.train(folder, train, TrainingRun(1, (1, 2, 3)), data, None))
    found.append(trainer.evaluate(folder, folder / "model.none", [frames], None))
    found += [trainer.pair(["a"], ("Cu",), 1), trainer.calculator(folder / "a")]
    return [*found, trainer.potential(["a"], ["0"], ("Cu",), (0.1, 0.2)), trainer.versions(train, None)]


def raising(*_):
    return {}["weight"]


@pytest.mark.parametrize(
    ("name", "answer", "sentence"),
    [
        ("shells", lambda *_: (), "returns () - expected a tuple of one Shell or more"),
        ("impossible", lambda *_: "no", "returns str - expected a list of lines"),
        ("same_networks", lambda *_: None, "returns NoneType - expected True or False"),
        ("write_data", raising, "raises KeyError: 'weight' (test_broken.py, line "),
        ("train", lambda *_: "model", "returns str - expected a Trained, or None if the training diverged"),
        (
            "train",
            lambda _, folder, *more: Trained(folder / "a.pb", ["step"], np.zeros((0, 1))),
            "returns the model a.pb",
        ),
        ("evaluate", lambda *_: None, "returns NoneType - expected the parts that it was given with energy and forces"),
        ("evaluate", lambda *_: [], "returns frames other than it was given"),
        (
            "evaluate",
            lambda _, folder, model, parts, slot: [p.without_labels() for p in parts],
            "without energy or forces",
        ),
        ("pair", lambda *_: [], "returns no line - expected pair_style and pair_coeff"),
        ("calculator", lambda *_: {}, "returns {} - expected calculator, arguments, package"),
        ("potential", lambda *_: None, "returns NoneType - expected the keys of a potential"),
        ("versions", lambda *_: 1.0, "returns float - expected versions by package"),
    ],
)
def test_an_answer_against_the_contract_is_a_sentence(tmp_path, copper, name, answer, sentence):
    assert len(answers(Whole(), tmp_path, copper)) == 9, "all is well without it"
    odd = type("Odd", (Whole,), {"__module__": "odd", name: answer})()
    with pytest.raises(ConfigError) as said:
        answers(odd, tmp_path, copper)
    assert str(said.value).startswith(f"train.trainer: odd:Odd.{name} ")
    assert sentence in str(said.value)
    assert str(said.value).endswith("report it to that package")


def test_a_trainer_without_settings_is_no_trainer():
    with pytest.raises(TypeError, match=r"^Bare has no settings - expected a subclass"):
        type("Bare", (Whole,), {"settings": dict})


def test_a_trainer_without_lines_for_lammps_says_that_it_is_driven_by_ase():
    own = {name: value for name, value in vars(Whole).items() if not name.startswith("__") and name != "pair"}
    with pytest.raises(TypeError, match=r"^Bare has no pair - expected the lines of LAMMPS, or runs_in_lammps = False"):
        type("Bare", (Trainer,), own)
    driven = type("Driven", (Trainer,), {**own, "runs_in_lammps": False, "__module__": "odd"})()
    assert driven.pair(["a", "b"], ("Cu",), 5) == []


def test_predictions_that_are_not_one_for_each_model_are_told(tmp_path, copper):
    odd = type("Odd", (Whole,), {"__module__": "odd", "evaluate_all": lambda *_: [[]]})()
    with pytest.raises(
        ConfigError, match=r"odd:Odd.evaluate_all returns list - expected a list for each of the models"
    ):
        odd.evaluate_all(tmp_path, [tmp_path / "a", tmp_path / "b"], [copper], None)


@pytest.mark.parametrize(
    ("package", "sentence"),
    [
        ("raising", "train.trainer: odd_module:Odd.train raises KeyError: 'weight' (odd_module.py, line 7) - expected"),
        ("nan", "train: member-0 diverged 4 times - expected a training whose loss stays finite"),
    ],
)
def test_a_campaign_with_a_broken_trainer_ends_in_a_sentence(installed, tmp_path, package, sentence):
    env, site = installed(package), tmp_path / "site"
    (site / "my_trainer.py").write_text(re.search(r"^# my_trainer.py\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[1])
    campaign = tiny(tmp_path / "c.yaml", train={"trainer": "odd", "cutoff_A": 4.5}, initial__md=None)
    words = ("--machine", machine_file(tmp_path / "machine.yaml", slots=1), "--folder", tmp_path / "c")
    done = cli("run", campaign, *words, cwd=tmp_path, env=env)
    assert done.returncode == 2
    assert sentence.replace("odd_module", f"{package}_module") in done.stderr
    assert "Traceback" not in done.stderr
