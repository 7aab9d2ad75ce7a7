"""A campaign is a program: what a YAML from elsewhere names is run only with the user's consent, given once."""

import os
import shutil
import sys
from types import SimpleNamespace
from typing import Annotated

import pytest
import yaml
from campaigns import TINY, cli, environment, machine_file, tiny
from typer.testing import CliRunner

from activelearn.check import trust
from activelearn.cli import app
from activelearn.config import (
    Machine,
    Potential,
    Program,
    Section,
    Study,
    load_campaign,
    load_glass,
    load_machine,
    load_study,
    preset_names,
    programs,
    shipped,
)
from activelearn.config.files import noting_files
from activelearn.errors import ActiveLearnError
from activelearn.store import Store, StudyStore

#: What a program of others leaves behind when it is run.
RAN = "ran"


@pytest.fixture
def elsewhere(tmp_path):
    """A folder that is not below the working folder, with a program in it."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    tool = folder / "tool.sh"
    tool.write_text(f"#!/bin/sh\ntouch {tmp_path / RAN}\nexit 1\n")
    tool.chmod(0o755)
    return folder


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The working folder of a user whose record of what he trusts is empty."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def activelearn(work, monkeypatch):
    """The command line, in this process."""

    def run(*words):
        words = [str(word) for word in words]
        monkeypatch.setattr(sys, "argv", ["activelearn", *words])
        done = CliRunner().invoke(app, words)
        error = done.exception if isinstance(done.exception, ActiveLearnError) else None
        code = done.exit_code if error is None else error.exit_code
        return SimpleNamespace(returncode=code, stdout=done.stdout, stderr=str(error or ""))

    return run


def wanted(done, *keys_and_values):
    """Assert that the command asks for consent to these, a line each."""
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if "would run with your permissions" in line]
    assert len(lines) == len(keys_and_values), done.stderr
    for line, told in zip(lines, keys_and_values, strict=True):
        assert told in line
        assert line.endswith(" --trust")


def names_of(file, load=load_campaign, section="campaign"):
    """Return what a YAML names and needs consent for, as ``key value``."""
    return [f"{one.key} {one.value}" for one in trust.lacking(trust.read_noted(lambda: load(file), file, section)[1])]


# --- whose file it is -------------------------------------------------------------------------------------------------


@pytest.mark.engines
def test_an_interpreter_that_a_yaml_from_elsewhere_names_is_not_run_without_consent(
    activelearn, work, elsewhere, tmp_path
):
    file = tiny(elsewhere / "theirs.yaml", label__reference__python="./tool.sh")
    line = file.read_text().splitlines().index("    python: ./tool.sh") + 1
    wanted(
        cli("run", file, cwd=work, env=environment(), timeout=60),
        f"error: {file}:{line}: label.reference.python: {elsewhere / 'tool.sh'}: would run with your permissions, and "
        f"{file} is not in this folder - expected your consent, once per value - read that file, then run: "
        f"activelearn run {file} --trust",
    )
    wanted(activelearn("submit", file, "-l", "none.yaml"), "label.reference.python")
    assert not (tmp_path / RAN).exists()


@pytest.mark.engines
def test_consent_is_given_once_for_a_content(activelearn, elsewhere, tmp_path):
    file = tiny(elsewhere / "theirs.yaml", label__reference__python="./tool.sh")
    assert f"trusted: {file}:" in activelearn("run", file, "--trust").stdout
    assert (tmp_path / RAN).exists()
    again = activelearn("run", file)
    assert "rights" not in again.stderr
    assert "the worker died" in again.stderr, "it is run, and is no Python"
    tiny(file, label__reference__python="./tool.sh", label__reference__calculator="another:Class")
    wanted(activelearn("run", file), "label.reference.calculator: another:Class")


def test_a_yaml_of_ones_own_in_this_folder_or_below_needs_no_consent(work):
    assert names_of(tiny(work / "mine.yaml", label__reference__calculator="mine:Class")) == []
    (work / "inputs").mkdir()
    file = tiny(work / "inputs" / "mine.yaml", label__reference__calculator="mine:Class")
    assert names_of(file) == []
    assert names_of("inputs/mine.yaml") == []
    os.chdir(work / "inputs")
    assert names_of("mine.yaml") == []
    os.chdir("..")
    (work / "other").mkdir()
    os.chdir("other")
    assert names_of("../inputs/mine.yaml") == ["label.reference.calculator mine:Class"]


def test_a_link_is_as_what_it_leads_to(work, elsewhere):
    theirs = tiny(elsewhere / "theirs.yaml", label__reference__calculator="theirs:Class")
    (work / "link.yaml").symlink_to(theirs)
    assert names_of("link.yaml") == ["label.reference.calculator theirs:Class"]


def test_a_file_that_everybody_may_write_is_not_ones_own(work):
    file = tiny(work / "mine.yaml", label__reference__calculator="mine:Class")
    file.chmod(0o664)
    assert names_of(file) == [], "a umask of 002"
    file.chmod(0o666)
    assert names_of(file) == ["label.reference.calculator mine:Class"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_owner_is_not_ones_own(work):
    file = tiny(work / "mine.yaml", label__reference__calculator="mine:Class")
    os.chown(file, 4711, -1)
    assert trust.doubt_of(file) == f"{file} is owned by user 4711"
    assert names_of(file) == ["label.reference.calculator mine:Class"]


# --- what is named ----------------------------------------------------------------------------------------------------


def test_what_presets_name_needs_no_consent_wherever_it_stands(elsewhere, work):
    presets = [name for name in preset_names("campaign") if names_of(name)]
    assert presets == []
    assert names_of(TINY) == []
    assert names_of(tiny(elsewhere / "theirs.yaml", label__reference=EMT)) == []


EMT = {"calculator": "ase.calculators.emt:EMT", "functional": "none", "includes_dispersion": False}


@pytest.mark.parametrize(
    ("reference", "named"),
    [
        ({"engine": "gpaw", "gpaw": {}, "command": "mpiexec -n 2 /tmp/x/gpaw python"}, ["command"]),
        ({**EMT, "arguments": {"model": "/x/weights.pth", "device": "cpu"}}, ["arguments.model"]),
        (
            {**EMT, "arguments": {"models": ["a.pt", "b/c"], "asap_cutoff": True}},
            ["arguments.models.0", "arguments.models.1"],
        ),
        ({**EMT, "python": "~/venv/bin/python"}, ["python"]),
        ({**EMT, "python": "$HOME/venv/bin/python"}, ["python"]),
        ({**EMT, "calculator": "os:system"}, ["calculator"]),
    ],
)
def test_interpreters_commands_classes_and_models_are_programs(elsewhere, work, reference, named):
    reference = {"functional": "PBE", "includes_dispersion": False, **reference}
    file = tiny(elsewhere / "theirs.yaml", label__reference=reference)
    assert [one.partition(" ")[0] for one in names_of(file)] == [f"label.reference.{key}" for key in named]


def test_a_machine_profile_of_others_is_a_program(activelearn, elsewhere):
    place = {"setup": ["module load cuda"], "environment": {"LD_PRELOAD": "x.so"}, "launcher": "time"}
    file = machine_file(elsewhere / "m.yaml", lammps="mpirun -n 2 lmp", places={"cpu": place})
    keys = ("machine.lammps", "setup.0: module load cuda", "environment.LD_PRELOAD: x.so", "launcher: time")
    done = activelearn("machine", "--smoke", "--machine", file)
    wanted(done, *sorted((key.removeprefix("machine.") for key in keys), key=lambda key: "lammps" in key))
    wanted(activelearn("run", "copper_emt", "--machine", file), *([""] * len(keys)))
    assert names_of(machine_file(elsewhere / "n.yaml", slots=2), load_machine, "machine") == []


@pytest.mark.parametrize("command", ["glass", "benchmark"])
def test_a_potential_of_others_is_a_program(activelearn, elsewhere, command):
    file = elsewhere / "p.yaml"
    file.write_text(yaml.safe_dump({"name": "A", "ase": {"preset": "emt", "python": "./tool.sh"}}))
    wanted(activelearn(command, file, "--series", "na3ps4o"), f"{file}:3: ase.python: {elsewhere / 'tool.sh'}")


def test_a_study_names_what_its_files_name(activelearn, elsewhere, work):
    (elsewhere / "p.yaml").write_text(yaml.safe_dump({"name": "A", "ase": {"preset": "emt", "python": "./tool.sh"}}))
    study = {"name": "s", "benchmark": "crystals"}
    for potential in (
        str(elsewhere / "p.yaml"),
        {"preset": str(elsewhere / "p.yaml"), "ase": {"deterministic": False}},
    ):
        (work / "study.yaml").write_text(yaml.safe_dump({**study, "potentials": [potential]}))
        wanted(activelearn("benchmark", "--study", "study.yaml"), f"ase.python: {elsewhere / 'tool.sh'}")


def test_labels_that_are_imported_with_a_reference_of_others_want_consent(activelearn, elsewhere, tmp_path):
    file = tiny(elsewhere / "theirs.yaml", label__reference__python="./tool.sh")
    wanted(activelearn("labels", "import", "L", "x.extxyz", "--reference", file), f"{file}:40: reference.python")
    assert not (tmp_path / RAN).exists()


def test_frozen_models_and_pair_styles_that_load_models_are_programs():
    physics = {"functional": "none", "includes_dispersion": False}

    def of(line, coefficients="* * Cu.eam.alloy Cu"):
        style = {"pair_style": line, "pair_coeff": [coefficients], "elements": ["Cu"]}
        return [value for _, value in programs(Potential(name="a", lammps=style, **physics))]

    assert of("eam/alloy") == []
    assert of("hybrid/overlay grace zbl 1.0 2.0") == ["hybrid/overlay grace zbl 1.0 2.0"]
    assert of("mliap model linear x.mliap descriptor sna y") == ["mliap model linear x.mliap descriptor sna y"]
    assert of("e3gnn", "* * '/a b/c.pt' Cu") == ["* * '/a b/c.pt' Cu"]
    deepmd = Potential(name="a", deepmd={"models": ["a.pb", "b.pb"]}, **physics)
    assert [value for _, value in programs(deepmd)] == ["a.pb", "b.pb"]


def test_an_engine_of_another_package_marks_its_programs_in_the_same_way(campaign):
    class Licensed(Section):
        server: Annotated[str | None, Program()] = None
        basis: str = "small"

    reference = campaign.label.reference.model_copy(update={"theirs": Licensed(server="./serve.sh")})
    assert (("theirs", "server"), "./serve.sh") in list(programs(reference))
    assert [value for _, value in programs(reference)] == ["ase.calculators.emt:EMT", "./serve.sh"]


def test_nothing_but_potentials_machines_and_references_names_programs(campaign):
    glass = load_glass("quick")
    study = Study(name="s", potentials=[Potential(name="EMT", ase=campaign.label.reference)], glass=glass)
    assert [at for at, _ in programs(study)] == [("potentials", 0, "ase", "calculator")]
    assert [at for at, _ in programs(campaign)] == [("label", "reference", "calculator")]
    assert list(programs(Machine())) == []


# --- what was begun, and the record -----------------------------------------------------------------------------------


def test_a_campaign_that_was_begun_in_a_folder_of_ones_own_goes_on_without_being_asked_for(work, elsewhere):
    file = tiny(elsewhere / "theirs.yaml", label__reference__calculator="theirs:Class")
    chosen, named = trust.read_noted(lambda: load_campaign(file), file, "campaign")
    folder = work / "runs" / "c"
    assert len(trust.lacking(named, folder)) == 1
    Store.create(folder, chosen)
    assert trust.lacking(named, folder) == []
    folder.chmod(0o777)
    assert len(trust.lacking(named, folder)) == 1


def test_a_study_that_was_begun_in_a_folder_of_ones_own_goes_on_without_being_asked_for(work, elsewhere):
    potential = {"name": "A", "ase": {**EMT, "calculator": "theirs:Class"}}
    file = elsewhere / "s.yaml"
    file.write_text(yaml.safe_dump({"name": "s", "benchmark": "crystals", "potentials": [potential]}))
    study, named = trust.read_noted(lambda: load_study(file), file, "study")
    assert [one.place for one in trust.lacking(named, work / "s")] == [f"{file}:5"]
    StudyStore.create(work / "s", study)
    assert trust.lacking(named, work / "s") == []


def test_no_path_through_the_presets_makes_a_preset_of_a_file(work, elsewhere):
    tiny(elsewhere / "theirs.yaml", label__reference__calculator="theirs:Class")
    roundabout = shipped("params") / os.path.relpath(elsewhere / "theirs.yaml", shipped("params").resolve())
    assert names_of(roundabout) == ["label.reference.calculator theirs:Class"]


def test_the_models_of_a_campaign_folder_of_ones_own_need_no_consent_wherever_it_is(elsewhere, work):
    potential = Potential(name="a", deepmd={"models": ["a.pb"]}, functional="none", includes_dispersion=False)

    def doubted():
        return trust.lacking(trust.read_noted(lambda: potential, elsewhere, "potential")[1])

    assert doubted() == []
    elsewhere.chmod(0o777)
    assert [one.value for one in doubted()] == ["a.pb"]


def test_a_damaged_record_is_told_in_a_line(activelearn, elsewhere, tmp_path):
    file = tiny(elsewhere / "theirs.yaml", label__reference__python="./tool.sh")
    activelearn("run", file, "--trust")
    (record,) = (tmp_path / "state" / "activelearn").iterdir()
    record.write_text(record.read_text().replace("tool.sh", "fool.sh"))
    done = activelearn("run", file)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"{record}: damaged" in line
    assert "remove it and use --trust again" in line


def test_a_record_that_cannot_be_written_is_told_and_nothing_is_run(activelearn, elsewhere, tmp_path):
    file = tiny(elsewhere / "theirs.yaml", label__reference__python="./tool.sh")
    (tmp_path / "state").write_text("a file")
    done = activelearn("run", file, "--trust")
    assert done.returncode == 1
    assert "a file where a folder is expected" in done.stderr
    assert not (tmp_path / RAN).exists()


def test_check_says_what_would_be_run(activelearn, work, elsewhere):
    file = tiny(work / "mine.yaml", label__reference__calculator="logged_emt:LoggedEMT")
    machine_file(work / "m.yaml")
    mine = activelearn("check", file, "--machine", "m.yaml").stdout
    assert "programs run with your permissions: label.reference.calculator logged_emt:LoggedEMT\n" in mine
    assert mine.splitlines()[-1].startswith("ok: activelearn run")
    assert "--trust" not in mine
    shutil.move(file, elsewhere / "theirs.yaml")
    theirs = activelearn("check", elsewhere / "theirs.yaml", "--machine", "m.yaml").stdout
    assert "logged_emt:LoggedEMT; needs --trust" in theirs
    assert theirs.rstrip().endswith("--trust")


def test_files_are_noted_only_where_that_is_asked_for(work):
    with noting_files() as files:
        load_machine("local")
    load_machine("slurm")
    assert [file.stem for file in files] == ["local"]
