"""Files that a campaign names: found beside its YAML whatever they are called, and missed by `check`, with the line."""

import warnings

import pytest
import yaml
from ase.build import bulk
from ase.io import write
from campaigns import environment, machine_file, tiny
from typer.testing import CliRunner

from activelearn import starts
from activelearn.check import check, check_study
from activelearn.cli import app
from activelearn.config import Machine, Reference, load_campaign, load_study
from activelearn.engines import reference
from activelearn.engines.process import Slot
from activelearn.errors import ConfigError

LOCAL = Machine(min_free_disk_GB=0.0)
FORMATS = {"XDATCAR": "vasp-xdatcar", "geometry.in": "aims", "Cu.vasp": "vasp", "CONTCAR-relaxed": "vasp"}


def checked(here, monkeypatch, **changes):
    """What `check` says of the tiny campaign in `here`, asked from elsewhere."""
    tiny(here / "c.yaml", **changes)
    monkeypatch.chdir(here.parent)
    machine_file(here.parent / "m.yaml")
    arguments = ["check", str(here / "c.yaml"), "--machine", "m.yaml"]
    return CliRunner().invoke(app, arguments, env=environment())


@pytest.mark.parametrize(
    "name", ["POSCAR", "CONTCAR-relaxed", "XDATCAR", "geometry.in", "Cu.vasp", "a.cif", "a.xyz", "POSCAR.gz"]
)
def test_a_structure_file_of_any_name_is_a_seed_that_check_and_run_read_alike(tmp_path, monkeypatch, name):
    here = tmp_path / "mine"
    here.mkdir()
    kind = {"a.xyz": "extxyz", "POSCAR.gz": "vasp"}.get(name, FORMATS.get(name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(here / name, bulk("Cu", cubic=True), format=kind)
    done = checked(here, monkeypatch, initial__systems=[{"seed": name}])
    assert (done.exit_code, "systems: Cu32 (32 atoms)" in done.output) == (0, True), done.output
    campaign = load_campaign(here / "c.yaml")
    monkeypatch.chdir("/")  # as FireWorks does
    (system,) = campaign.systems
    assert (system.seed, len(system.sha256)) == (str(here / name), 64)
    assert starts.crystal(system, campaign.min_height_A).formula == "Cu32"


def test_a_structure_file_is_never_taken_from_where_the_command_is_given(tmp_path, monkeypatch):
    """It would pass `check`, and workers, who are elsewhere, would not find it."""
    (tmp_path / "mine").mkdir()
    write(tmp_path / "a.cif", bulk("Cu", cubic=True))
    done = checked(tmp_path / "mine", monkeypatch, initial__systems=[{"seed": "a.cif"}])
    with pytest.raises(ConfigError, match=r"c.yaml:\d+: initial.systems.0: structure a.cif: neither a seed nor a file"):
        raise done.exception


def test_the_id_of_a_shipped_seed_goes_before_a_file_of_its_name(tmp_path, monkeypatch):
    write(tmp_path / "Cu_Fm-3m", bulk("Al", cubic=True), format="vasp")
    tiny(tmp_path / "c.yaml", initial__systems=[{"seed": "Cu_Fm-3m"}])
    assert load_campaign(tmp_path / "c.yaml").systems[0].seed == "Cu_Fm-3m"


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "key", "named"),
    [
        ({"model": "mine.pth"}, "model", "mine.pth"),
        ({"model_paths": ["mace-0.model", "mace-1.model"]}, "model_paths.1", "mace-1.model"),
        ({"model_paths": "/nowhere/model"}, "model_paths", "/nowhere/model"),
        ({"deep": {"checkpoint_path": "./step-100"}}, "deep.checkpoint_path", "./step-100"),
        ({"potential": "~/no such/ni.jit"}, "potential", "~/no such/ni.jit"),
    ],
)
def test_a_model_that_is_missing_is_found_by_check_with_its_line(tmp_path, monkeypatch, arguments, key, named):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mace-0.model").touch()
    (tmp_path / "mine.pth").touch()  # where the command is given, which nobody means
    done = checked(tmp_path / "mine", monkeypatch, label__reference__arguments=arguments)
    with pytest.raises(ConfigError, match=rf"c.yaml:\d+: label.reference.arguments.{key}: no file {named} - expected"):
        raise done.exception


@pytest.mark.parametrize(
    "arguments",
    [
        {"model": "medium-mpa-0", "version": "0.3.0", "device": "cpu"},
        {"model": "https://example.org/a.model"},
        {"log_file": "/tmp/lammps.log", "directory": "./scratch"},
        {"lmpcmds": ["pair_style eam", "pair_coeff 1 1 Cu_u3.eam"]},
    ],
)
def test_what_is_the_name_of_a_model_or_no_model_at_all_is_not_looked_for(tmp_path, monkeypatch, arguments):
    (tmp_path / "mine").mkdir()
    done = checked(tmp_path / "mine", monkeypatch, label__reference__arguments=arguments)
    assert done.exit_code == 0, done.exception


def test_a_cluster_may_have_models_that_are_not_here_but_none_by_a_relative_path(tmp_path):
    def lines(model):
        campaign = load_campaign(tiny(tmp_path / "c.yaml", label__reference__arguments={"model": model}))
        return check(campaign, LOCAL, tmp_path / "run", here=False).problems

    assert lines("/scratch/models/mine.pth") == []
    assert lines("mine.pth")[0].startswith("label.reference.arguments.model: no file mine.pth")


def test_no_fingerprint_is_made_of_a_model_that_is_missing(tmp_path):
    """Its name would be sealed in place of its checksum, and the folder refuse the file once it is there."""
    what = Reference(calculator="ase.calculators.emt:EMT", package="ase", functional="none", includes_dispersion=False)
    gone = what.model_copy(update={"arguments": {"model": str(tmp_path / "gone.pth")}})
    with pytest.raises(ConfigError, match=r"arguments.model: no file .*gone.pth - expected a model file"):
        reference.fingerprint(gone, Slot(LOCAL, tmp_path))
    (tmp_path / "gone.pth").write_bytes(b"weights")
    assert reference.fingerprint(gone, Slot(LOCAL, tmp_path))["arguments"]["model"].startswith("sha256:")


def test_weights_are_never_taken_from_where_the_command_is_given(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "best").touch()
    done = checked(tmp_path / "mine", monkeypatch, label__reference__weights="best")
    with pytest.raises(ConfigError, match=r"c.yaml:\d+: label.reference.weights: no file best"):
        raise done.exception
    (tmp_path / "mine" / "best").touch()
    assert checked(tmp_path / "mine", monkeypatch, label__reference__weights="best").exit_code == 0


def test_a_potcar_that_is_missing_is_found_without_a_vasp(tmp_path):
    settings = {"version": "6.4.2", "potcar_dir": "potcars", "potcars": {"Cu": "Cu_pv"}}
    what = {"engine": "vasp", "command": "no-such-vasp", "functional": "PBE", "includes_dispersion": False}
    data = yaml.safe_load(tiny(tmp_path / "c.yaml").read_text())
    data["label"]["reference"] = {**what, "vasp": settings}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(data))
    problems = check(load_campaign(tmp_path / "c.yaml"), LOCAL, tmp_path / "run").problems
    wanted = f"label.reference.vasp.potcars.Cu: no file {tmp_path}/potcars/Cu_pv/POTCAR"
    assert any(line.startswith(wanted) for line in problems), problems


def test_files_of_a_study_are_missed_beside_it_not_where_the_command_is_given(tmp_path, monkeypatch):
    home = tmp_path / "mine"
    home.mkdir()
    for name in ("held-out.extxyz", "crystal.cif"):
        write(tmp_path / name, bulk("Cu", cubic=True))
    measured = {"parity": {"frames": "held-out.extxyz"}, "crystals": {"seeds": ["crystal.cif"]}}
    study = {"name": "s", "potentials": ["emt"], "benchmark": measured}
    (home / "s.yaml").write_text(yaml.safe_dump(study))
    monkeypatch.chdir(tmp_path)
    problems = check_study(load_study(home / "s.yaml"), LOCAL).problems
    assert [line.split(":")[0] for line in problems] == ["benchmark.crystals.seeds", "benchmark.parity.frames"]
