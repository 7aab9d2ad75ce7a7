"""Potentials as YAML: presets declare their physics, paths become absolute and hashed, a fault is one sentence."""

import hashlib

import pytest
import yaml
from pydantic import ValidationError

from activelearn.config import D3, Potential, Reference, load_potential, preset_names
from activelearn.config.potential import DEEPMD_SUFFIXES, NOT_DRIVEN
from activelearn.config.section import SEALED
from activelearn.engines.backends import BACKENDS
from activelearn.errors import ConfigError

CALCULATOR = {"calculator": "ase.calculators.emt:EMT", "functional": "PBE", "includes_dispersion": False}
STYLE = {"pair_style": "lj/cut 7.0", "pair_coeff": ["* * 0.0103 3.4"], "elements": ["Ar"]}
PHYSICS = {"functional": "PBE", "includes_dispersion": False}
SHIPPED_WEIGHTS = {"SevenNet-0", "SevenNet-0 + D3", "SevenNet-l3i5", "CHGNet", "CHGNet + D3", "DIEP"}


@pytest.fixture
def written(tmp_path):
    """Write a potential, and the files it names, into a folder; return the YAML's path."""

    def write(files=("a.pb", "b.pb", "a.pth", "a.dp", "a.pte", "a.frozen"), **data):
        for name in files:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"content of {name}")
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"name": "mine", **data}))
        return tmp_path / "mine.yaml"

    return write


def refusal(path):
    """The one sentence that a YAML is refused with."""
    with pytest.raises(ConfigError) as caught:
        load_potential(path)
    (sentence,) = caught.value.problems
    assert str(path) in sentence
    return sentence


def sha256_of(content):
    return hashlib.sha256(content.encode()).hexdigest()


# --- presets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", preset_names("potential"))
def test_every_preset_loads_and_is_read_back(name):
    potential = load_potential(name)
    assert potential.statics().model_dump() == potential.ase.model_dump()
    assert potential.ase.functional
    assert (" + D3(zero)" in potential.physics) == name.endswith("_d3")
    assert Potential.model_validate(potential.model_dump(mode="json")) == potential


def test_presets_have_different_names_and_those_with_shipped_weights_hash_them():
    potentials = [load_potential(name) for name in preset_names("potential")]
    assert len({potential.slug.lower() for potential in potentials}) == len(potentials)
    assert {potential.name for potential in potentials if potential.ase.weights} == SHIPPED_WEIGHTS


def test_a_preset_that_is_not_there_names_its_neighbour():
    with pytest.raises(ConfigError, match="did you mean 'sevennet_0_d3'"):
        load_potential("sevenet_0_d3")


# --- a potential of one's own -----------------------------------------------------------------------------------------


def test_models_beside_the_yaml_are_absolute_and_hashed(written, tmp_path, monkeypatch):
    path = written(deepmd={"models": ["a.pb", "b.pb"], "window": [0.15, 0.35]}, **PHYSICS, d3={"method": "PBE"})
    monkeypatch.chdir(tmp_path.parent)  # wherever it is called from
    found = load_potential(path)
    assert found.deepmd.models == (str(tmp_path / "a.pb"), str(tmp_path / "b.pb"))
    assert found.deepmd.sha256 == (sha256_of("content of a.pb"), sha256_of("content of b.pb"))
    assert (found.window, found.physics) == ((0.15, 0.35), "PBE + D3(zero)")
    statics = found.statics("/venv/bin/python")
    assert (statics.calculator, statics.arguments) == ("deepmd.calculator:DP", {"model": str(tmp_path / "a.pb")})
    assert (statics.python, statics.d3, statics.functional) == ("/venv/bin/python", D3(), "PBE")


def test_a_checkpoint_and_its_interpreter_are_paths_from_the_yaml(written, tmp_path):
    settings = {"python": "venv/bin/python", "arguments": {"model_paths": "deep/my.model"}, "functional": "r2SCAN"}
    found = load_potential(written(["venv/bin/python", "deep/my.model"], ase={"preset": "mace", **settings})).ase
    assert found.python == str(tmp_path / "venv/bin/python")
    assert found.arguments == {
        "model_paths": str(tmp_path / "deep/my.model"), "device": "cpu", "default_dtype": "float64",
    }  # fmt: skip
    assert (found.functional, found.package) == ("r2SCAN", "mace-torch")


def test_files_in_lines_for_lammps_are_absolute_and_hashed(written, tmp_path):
    style = {"pair_style": "hybrid/overlay eam/alloy lj/cut 7.0", "elements": ["Cu", "Ar"]}
    lines = ["* * eam/alloy cu.eam.alloy Cu NULL", "2 2 lj/cut 1.03e-2 3.4", "1 2 lj/cut 1.e-3 3."]
    found = load_potential(written(["cu.eam.alloy"], lammps={**style, "pair_coeff": lines}, **PHYSICS)).lammps
    assert found.pair_coeff == (f"* * eam/alloy {tmp_path}/cu.eam.alloy Cu NULL", *lines[1:])
    assert found.files_sha256 == {f"{tmp_path}/cu.eam.alloy": sha256_of("content of cu.eam.alloy")}
    assert found.pair_style == style["pair_style"]


def test_a_pair_style_has_statics_by_the_same_lines():
    statics = Potential.model_validate(
        {"name": "LJ", "lammps": STYLE | {"elements": ["Kr", "Ar"]}, **PHYSICS}
    ).statics()
    assert statics.arguments["lmpcmds"] == ["pair_style lj/cut 7.0", "pair_coeff * * 0.0103 3.4"]
    assert statics.arguments["atom_types"] == {"Kr": 1, "Ar": 2}


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ase": CALCULATOR, "lammps": STYLE}, "of ase, deepmd and lammps - expected exactly one"),
        ({}, "got none of ase, deepmd and lammps - expected exactly one"),
        ({"ase": CALCULATOR, "d3": {"method": "PBE"}}, "d3 next to ase - expected it inside `ase`"),
        ({"ase": CALCULATOR, "functional": "PBE"}, "functional next to ase - expected it inside `ase`"),
        ({"lammps": STYLE}, "expected functional (PBE, r2SCAN, none ...) and includes_dispersion"),
        ({"lammps": STYLE, "functional": "PBE"}, "and includes_dispersion (true or false)"),
        ({"ase": {"calculator": "a.b:C", "includes_dispersion": False}}, "missing - expected the functional"),
        # dispersion once, with the parameters of the functional
        ({"ase": {**CALCULATOR, "includes_dispersion": True, "d3": {}}}, "dispersion once, not twice"),
        ({"ase": {**CALCULATOR, "functional": "r2SCAN", "d3": {}}}, "d3.method PBE on functional r2SCAN - expected D3"),
        ({"ase": {"preset": "gfn2_xtb", "d3": {}}}, "dispersion once, not twice"),
        ({"lammps": STYLE, **PHYSICS, "includes_dispersion": True, "d3": {}}, "dispersion once, not twice"),
        ({"deepmd": {"models": ["a.pb"]}, **PHYSICS, "functional": "r2SCAN", "d3": {}}, "PBE on functional r2SCAN"),
        # files
        ({"deepmd": {"models": ["a.pb", "c.pb"]}, **PHYSICS}, "deepmd.models: c.pb: no such file - expected a frozen"),
        ({"ase": {"preset": "mace", "arguments": {"model_paths": "my.model"}}}, "model_paths: my.model: no such file"),
        ({"lammps": STYLE | {"pair_coeff": ["* * Cu.eam Ar"]}, **PHYSICS}, "lammps.pair_coeff: Cu.eam: no such file"),
        # ensembles
        ({"deepmd": {"models": ["a.pb"], "window": [0.1, 0.3]}, **PHYSICS}, "expected an ensemble of two or more"),
        ({"deepmd": {"models": ["a.pb", "b.pb"], "window": [0.3, 0.1]}, **PHYSICS}, "expected f_lo below f_hi"),
        ({"deepmd": {"models": ["a.pb", "b.pb", "a.pb"]}, **PHYSICS}, "models contains duplicates"),
        ({"deepmd": {"models": ["a.pb", "a.pth"]}, **PHYSICS}, "models end in .pb and .pth - expected one format"),
        ({"deepmd": {"models": ["a.dp"]}, **PHYSICS}, "a.dp: its forces are silently NaN"),
        ({"deepmd": {"models": ["a.pte"]}, **PHYSICS}, "a.pte: LAMMPS does not read that format - expected .pb, "),
        ({"deepmd": {"models": ["a.frozen"]}, **PHYSICS}, "a.frozen: DeePMD-kit recognises formats by suffix, and"),
        # what is none
        ({"ase": {"preset": "gpaw_pbe"}}, "ase.engine gpaw - expected an ASE calculator"),
        ({"ase": CALCULATOR, "models": ["a.pb"]}, "models: unknown key"),
        ({"ase": CALCULATOR, "name": "../up"}, "name: got '../up' - expected"),
        ({"lammps": STYLE | {"pair_coeff": ["* * 1 1; shell ls"]}, **PHYSICS}, "lammps.pair_coeff.0: got"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_in_one_sentence(written, given, said):
    assert said in refusal(written(**given))


def test_models_end_as_the_backends_that_run_them_say():
    assert tuple(dict.fromkeys(suffix for one in BACKENDS.values() for suffix in one.suffixes)) == DEEPMD_SUFFIXES
    assert not set(NOT_DRIVEN) & set(DEEPMD_SUFFIXES)


def test_a_potential_that_a_folder_has_is_read_whatever_it_is():
    given = {"name": "old", "deepmd": {"models": ["model.frozen"]}, **PHYSICS}
    assert Potential.model_validate(given, context=SEALED).deepmd.models == ("model.frozen",)


def test_a_preset_of_a_calculator_that_is_not_there_is_named(written):
    with pytest.raises(ConfigError, match="label sevenet_0: neither a YAML file nor a preset - did you mean"):
        load_potential(written(ase={"preset": "sevenet_0"}))


def test_one_model_under_two_names_is_no_ensemble(written, tmp_path):
    path = written(deepmd={"models": ["a.pb", "b.pb"]}, **PHYSICS)
    (tmp_path / "b.pb").write_text("content of a.pb")
    assert "models contains duplicates" in refusal(path)


def test_a_potential_without_dispersion_says_so_and_cannot_have_it_twice():
    with pytest.raises(ValidationError, match="once, not twice"):
        Potential.model_validate({"name": "x", "ase": {**CALCULATOR, "includes_dispersion": True, "d3": {}}})
    assert Potential.model_validate({"name": "x", "ase": {**CALCULATOR, "d3": {}}}).physics == "PBE + D3(zero)"
    assert Potential.model_validate({"name": "x", "ase": CALCULATOR}).physics == "PBE"


# --- of a campaign ----------------------------------------------------------------------------------------------------


def test_the_ensemble_of_a_campaign_may_be_a_calculator_and_its_model_follows():
    labelled = Reference.model_validate({**CALCULATOR, "d3": {"method": "PBE"}})
    said = {"ase": {"calculator": "a:B", "arguments": {"model": "models/0.pth", "modal": "PBE"}, "package": "a"}}
    made = Potential.learnt("mine", {"ase": {**said["ase"], "weights": "models/0.pth"}}, labelled)
    assert made.physics == "PBE with dispersion", "in its labels, and so in what was learnt from them"
    moved = made.with_files(lambda file: f"/there/{file}").ase
    assert (moved.arguments, moved.weights) == ({"model": "/there/models/0.pth", "modal": "PBE"}, "/there/models/0.pth")
    assert Potential.learnt("mine", said, labelled).with_files(str.upper).ase.arguments["model"] == "models/0.pth"
    others = Potential.model_validate({"name": "x", "ase": {**CALCULATOR, "weights": "pack:inside"}})
    assert others.with_files(str.upper) == others, "weights inside a package are no file of the campaign"
    lammps = Potential.learnt("mine", {"lammps": STYLE}, labelled)
    assert (lammps.functional, lammps.includes_dispersion) == ("PBE", True)


def test_the_other_members_of_an_ensemble_of_calculators_follow_and_are_hashed(written, tmp_path):
    first = {**CALCULATOR, "arguments": {"model": "a.pth"}, "weights": "a.pth"}
    others = {"argument": "model", "models": ["b.pth"], "window": [0.1, 0.3]}
    files, here = ("a.pth", "b.pth"), str(tmp_path / "b.pth")
    made = load_potential(written(files, ase=first, committee=others))
    assert made.window == (0.1, 0.3)
    assert made.others == [{"model": here}]
    assert made.files == {here: sha256_of("content of b.pth")}
    assert made.with_files(str.upper).others == [{"model": here.upper()}]
    assert (made.statics("/its/python").python, made.statics().python) == ("/its/python", None)
    alone = load_potential(written(files, ase=first))
    assert alone.statics("/its/python").python is None
    said = refusal(written(files, ase=first, committee={**others, "models": ["c.pth"]}))
    assert "committee.models: c.pth: no such file - expected the file of a member" in said
    said = refusal(written(files, ase=first, committee={**others, "argument": "path"}))
    assert "committee.argument path - expected an argument of `ase`" in said
