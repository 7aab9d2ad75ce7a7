"""The trial before the first job, once per campaign; and a check that runs nothing."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from ase.build import bulk
from campaigns import TESTS, TINY, cli, end_sessions, environment, tiny

from activelearn import loop, samples, study
from activelearn.check.study import check_study
from activelearn.check.trial import try_campaign, try_in, try_study
from activelearn.config import (
    Machine,
    Potential,
    Study,
    load_campaign,
    load_glass,
    load_potential,
    load_series,
    parse_campaign,
    shipped,
)
from activelearn.engines import process
from activelearn.errors import ConfigError, Unfit
from activelearn.store import Store, StudyStore
from activelearn.tasks import carry_out, gather

ODD = str(TESTS / "engines")


@pytest.fixture(autouse=True)
def odd(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ODD)
    process.allow_engines()
    yield
    end_sessions()


def campaign_of(calculator="ase.calculators.emt:EMT", **changes):
    data = yaml.safe_load(TINY.read_text()) | changes
    data["label"]["reference"] |= {"calculator": calculator}
    return parse_campaign(data, where="tiny")


# --- check ------------------------------------------------------------------------------------------------------------


def test_check_starts_nothing_that_the_campaign_names(tmp_path):
    tool = tmp_path / "tool.sh"
    tool.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    tool.chmod(0o755)
    for reference in (
        {"calculator": "ase.calculators.emt:EMT", "python": str(tool)},
        {"engine": "gpaw", "command": str(tool), "gpaw": {}},
    ):
        physics = {"functional": "PBE", "includes_dispersion": False}
        file = tiny(tmp_path / "tiny.yaml", label__reference=reference | physics)
        done = cli("check", file, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert not (tmp_path / "ran").exists()


def test_check_tells_the_elements_that_emt_lacks(tmp_path):
    file = tmp_path / "tiny.yaml"
    data = yaml.safe_load(TINY.read_text()) | {"type_map": ["Na", "P", "S"]}
    data["initial"]["systems"] = [{"seed": "Na3PS4_P-421c"}]
    file.write_text(yaml.safe_dump(data))
    done = cli("check", file, cwd=tmp_path)
    assert done.returncode == 2
    assert "label.reference.calculator: ase.calculators.emt:EMT does not know Na, P, S - expected" in done.stderr


def test_check_with_try_tells_what_the_reference_cannot_do_and_leaves_its_log(tmp_path):
    file = tiny(tmp_path / "tiny.yaml", label__reference__calculator="odd_calculators:Gpu")
    env = environment(PYTHONPATH=ODD)
    assert cli("check", file, cwd=tmp_path, env=env).returncode == 0
    done = cli("check", file, "--try", cwd=tmp_path, env=env)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "Torch not compiled with CUDA enabled - expected the GPU that it requests" in line
    log = Path(line.split("traceback: ")[1].split()[0])
    assert "Traceback" in log.read_text()
    log.unlink()
    assert not (tmp_path / "runs").exists()


def test_check_with_try_says_that_it_works(tmp_path):
    found = try_campaign(campaign_of(), Machine(), tmp_path / "c")
    assert found == ["tried: the reference works"]
    assert not (tmp_path / "c").exists()


def test_labels_that_the_campaign_would_refuse_are_told_before_they_are_paid(tmp_path):
    data = campaign_of("odd_calculators:Mistaken").model_dump(mode="json")
    data["label"]["reference"]["arguments"] = {"kind": "net force"}
    with pytest.raises(Unfit, match=r"labels none .* Cu4 .*: net force above 0.05 eV/Å per atom - expected"):
        try_campaign(parse_campaign(data, where="tiny"), Machine(), tmp_path / "c")


def test_a_calculator_in_this_folder_is_found_where_pythonpath_names_the_folder(tmp_path):
    (tmp_path / "my_calc.py").write_text("from ase.calculators.emt import EMT as Mine\n")
    file = tiny(tmp_path / "tiny.yaml", label__reference__calculator="my_calc:Mine")
    done = cli("check", file, cwd=tmp_path, env=environment(PYTHONPATH=ODD))
    assert done.returncode == 2
    assert f"my_calc.py is in this folder; use: export PYTHONPATH={tmp_path}" in done.stderr
    done = cli("check", file, "--try", cwd=tmp_path, env=environment(PYTHONPATH="."))
    assert done.returncode == 0, done.stderr


# --- run --------------------------------------------------------------------------------------------------------------


def test_run_tries_first_and_prints_a_line_and_a_corrected_campaign_is_taken_as_it_is(tmp_path):
    file, env = tmp_path / "tiny.yaml", environment(PYTHONPATH=ODD)
    for name in ("Hopeless", "Gpu"):
        tiny(file, label__reference__calculator=f"odd_calculators:{name}")
        done = cli("run", file, "--folder", "c", cwd=tmp_path, env=env)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: label.reference: odd_calculators:{name}: ")
        assert not list((tmp_path / "c").glob("iter-*"))


def test_a_trial_that_passed_is_remembered(tmp_path):
    store = Store.create(tmp_path / "c", campaign_of())
    said = []
    assert try_in(store, Machine(), said.append) == []
    assert said == ["trying label.reference on small structures first: ase.calculators.emt:EMT"]
    (note,) = store.folder.glob("tried-*.json")
    end_sessions()
    labels = store.logs() / "session-reference-0.log"
    labels.unlink()
    assert try_in(store, Machine(), said.append) == []
    assert len(said) == 1
    note.write_text(note.read_text()[:20])
    assert try_in(store, Machine()) == [], "a damaged note is none"
    assert json.loads(note.read_text())["passed"]


def test_a_campaign_that_has_ended_is_not_tried(undisturbed, tmp_path):
    shutil.copytree(undisturbed[0].folder, tmp_path / "c")
    store = Store(tmp_path / "c")
    assert try_in(store, Machine()) == []
    assert not list(store.folder.glob("tried-*.json"))


def test_another_reference_is_tried_anew(tmp_path):
    one, two = (campaign_of(name) for name in ("ase.calculators.emt:EMT", "odd_calculators:Hopeless"))
    store = Store.create(tmp_path / "c", one)
    try_in(store, Machine())
    store.accept(two)
    with pytest.raises(Unfit, match="KeyError"):
        try_in(store, Machine())


def test_a_study_tries_its_potentials_and_remembers_it(tmp_path):
    glass = load_glass("quick", n_atoms=128, x=[0.0])
    physics = {"functional": "none", "includes_dispersion": False}
    for calculator, is_right in (("ase.calculators.morse:MorsePotential", True), ("odd_calculators:Gpu", False)):
        potential = Potential.model_validate({"name": "one", "ase": {"calculator": calculator, **physics}})
        asked = Study(name="s", potentials=(potential,), glass=glass)
        store = StudyStore.create(tmp_path / calculator.partition(":")[2], asked)
        study.begin(store, asked, Machine())
        if is_right:
            said = []
            for _ in range(2):
                try_study(store, asked, Machine(), said.append)
            assert said == ["trying on small structures first: one"]
        else:
            with pytest.raises(Unfit, match=r"^potential one: .* expected the GPU"):
                try_study(store, asked, Machine())
        assert bool(list(store.folder.glob("tried-*.json"))) == is_right


def test_a_study_tries_what_labels_frames_of_its_glasses_before_they_are_made(tmp_path):
    """EMT knows no Na: it was asked for the first time when all glasses had been made."""
    physics = {"functional": "none", "includes_dispersion": False}
    morse = {"name": "one", "ase": {"calculator": "ase.calculators.morse:MorsePotential", **physics}}
    data = {"name": "s", "potentials": [morse], "glass": load_glass("quick", n_atoms=128, x=[0.0]).model_dump()}
    for calculator, is_right in (("ase.calculators.morse:MorsePotential", True), ("ase.calculators.emt:EMT", False)):
        label = {"reference": {"calculator": calculator, **physics}}
        asked = Study.model_validate(data | {"benchmark": {"force_error": {"label": label}}})
        store = StudyStore.create(tmp_path / calculator.partition(":")[2], asked)
        study.begin(store, asked, Machine())
        said = []
        if is_right:
            for _ in range(2):
                try_study(store, asked, Machine(), said.append)
            assert said == [f"trying on small structures first: one, {calculator}"]
            assert try_study(store, asked, Machine(), said.append, n_own=1, own=asked.true_label.reference) == []
            assert len(said) == 1, "the campaign's own has labelled already"
        else:
            wrong = r"^benchmark.force_error.label.reference: ase.calculators.emt:EMT: raises .* on "
            for given in ({}, {"n_own": 1}):
                with pytest.raises(Unfit, match=wrong):
                    try_study(store, asked, Machine(), **given)


def test_check_with_try_tries_what_labels_frames_of_glasses(tmp_path):
    emt = {"calculator": "ase.calculators.emt:EMT", "functional": "mine", "includes_dispersion": False}
    asked = {
        "glass": load_glass("quick", n_atoms=128, x=[0.0]).model_dump(mode="json"),
        "benchmark": {"force_error": {"label": {"reference": emt}}},
    }
    with pytest.raises(Unfit, match=r"^benchmark.force_error.label.reference: ase.calculators.emt:EMT: raises .* on "):
        try_campaign(campaign_of(**asked), Machine(), tmp_path / "c")
    asked["benchmark"]["force_error"] = {}
    assert try_campaign(campaign_of(**asked), Machine(), tmp_path / "c") == ["tried: the reference works"]


def test_a_study_goes_on_with_another_interpreter_for_what_labels_frames_of_its_glasses(tmp_path):
    """All glasses were made again in another folder; a number that it computes by is another study."""
    physics = {"functional": "none", "includes_dispersion": False}
    morse = {"name": "one", "ase": {"calculator": "ase.calculators.morse:MorsePotential", **physics}}
    data = {"name": "s", "potentials": [morse], "glass": load_glass("quick", n_atoms=128, x=[0.0]).model_dump()}

    def asking(reference=(), **label):
        what = {"calculator": "ase.calculators.lj:LennardJones", **physics, **dict(reference)}
        return Study.model_validate(data | {"benchmark": {"force_error": {"label": {"reference": what, **label}}}})

    store = StudyStore.create(tmp_path / "s", asking())
    again = asking({"python": sys.executable}, max_energy_spread=2.0)
    assert store.is_of(again)
    study.begin(store, again, Machine())
    assert StudyStore.open(store.folder).study.true_label.reference.python == sys.executable, "a worker knows it, too"
    text = store.study_file.read_bytes()
    study.begin(store, asking(), Machine())
    assert StudyStore.open(store.folder).study.true_label == asking().true_label, "the last one counts"
    assert store.study_file.read_bytes() == text
    for other in (asking({"arguments": {"sigma": 2.0}}), asking(max_force=9.0)):
        assert not store.is_of(other)
    (line,) = [line for line in check_study(again, Machine(), here=False).problems if "max_energy_spread" in line]
    assert line.startswith("benchmark.force_error.label.max_energy_spread: is not used here - expected ")


def test_a_study_is_of_the_content_of_its_crystals_and_molecules(tmp_path):
    files = [tmp_path / name for name in ("c.cif", "P2S5.xyz")]
    bulk("Cu").write(files[0])
    shutil.copyfile(shipped("params") / "units" / "P2S5.xyz", files[1])
    series = load_series("na3ps4o").model_copy(update={"geometry": {"P2S5": str(files[1])}})
    glass = load_glass("quick", n_atoms=128, x=[0.0]).model_copy(update={"series": series})
    asked = Study(
        name="s", potentials=(load_potential("emt"),), glass=glass, benchmark={"crystals": {"seeds": [str(files[0])]}}
    )
    store = StudyStore.create(tmp_path / "s", asked)
    study.begin(store, asked, Machine())
    for file in files:
        before = file.read_bytes()
        file.write_bytes(before.replace(b".", b".1"))
        with pytest.raises(ConfigError, match=rf"{file} is not what this study started with"):
            study.begin(store, asked, Machine())
        file.write_bytes(before)
        study.begin(store, asked, Machine())
    (store.folder / "structures.json").unlink()
    study.begin(store, asked, Machine())
    assert (store.folder / "structures.json").is_file(), "a folder of before is sealed to what is there"


# --- retries ----------------------------------------------------------------------------------------------------------


def test_a_task_that_no_retry_mends_is_tried_once(tmp_path):
    store = Store.create(tmp_path / "c", campaign_of("odd_calculators:Gpu"))
    loop.next_phase(store).begin(Machine())
    carry_out(loop.STATIONS["prepare"], store, 0, Machine())
    with pytest.raises(Unfit, match="expected the GPU"):
        carry_out(loop.STATIONS["initial"], store, 0, Machine(slots=1))
    assert store.failures(0) == []


def test_isolated_atoms_that_the_reference_cannot_take_are_refused_and_counted(tmp_path):
    changes = yaml.safe_load(TINY.read_text())["initial"] | {
        "isolated": {"atoms": True, "dimers": False},
        "md": None,
        "copies": 2,
    }
    store = Store.create(tmp_path / "c", campaign_of("odd_calculators:Graph", initial=changes))
    (note,) = try_in(store, Machine())
    assert "not labelled: Cu1 (1 atoms)" in note
    loop.next_phase(store).begin(Machine())
    for name in ("prepare", "initial", "label"):
        station = loop.STATIONS[name]
        carry_out(station, store, 0, Machine(slots=1))
        gather(station, store, 0, Machine(slots=1))
    found = store.result("label", 0, loop.Labelling)
    assert dict(found.refused) == {"the reference raises ValueError: isolated atom in <object object at 0x>": 1}
    assert store.failures(0) == []


# --- samples ----------------------------------------------------------------------------------------------------------


def test_a_sample_of_each_set_of_elements_is_its_smallest_structure():
    found = [sample.frame for sample in samples.of_campaign(load_campaign("na3ps4o"))]
    kinds = [frozenset(frame.symbols) for frame in found]
    assert len(set(kinds)) == len(kinds)
    assert set().union(*kinds) == {"Na", "P", "S", "O"}
    assert max(frame.n_atoms for frame in found) < 60


def test_a_lattice_stands_for_a_packing():
    frame = samples.lattice(["O", "Na", "P"], 0.05)
    assert (frame.n_atoms, set(frame.symbols)) == (8, {"Na", "O", "P"})
    assert frame.n_atoms / frame.volume[0] == pytest.approx(0.05)
    assert samples.lattice([f"{k}" for k in range(9)], 0.05).n_atoms == 27
