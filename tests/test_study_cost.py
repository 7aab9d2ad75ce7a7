"""The YAML of a study is checked and priced as that of a campaign: `check study.yaml --plan`."""

import re

import pytest
import yaml
from campaigns import in_process, machine_file

from activelearn.check.study_cost import study_lines
from activelearn.config import Machine, is_study, load_study

EMT = {"calculator": "ase.calculators.emt:EMT", "functional": "none", "includes_dispersion": False}
COPPER = {
    "name": "copper",
    "title": "Cu",
    "compositions": [{"x": 0.0, "units": {"Cu": 1}, "density_g_cm3": 8.5}],
    "roles": {"formers": {"Cu": 1}, "anions": ["O"]},
    "cutoffs_A": {"Cu-O": 2.2},
}
SEGMENTS = [
    {"name": "melt", "temperature_K": 2000, "ps": 1.0},
    {"name": "glass", "temperature_K": 300, "ps": 0.5, "is_analysed": True},
]
STUDY = {
    "name": "copper",
    "potentials": [{"name": "EMT", "ase": EMT}],
    "glass": {"series": COPPER, "n_atoms": 32, "n_replicas": 3, "segments": SEGMENTS},
    "benchmark": {
        "network": None,
        "coordination": False,
        "free_volume": False,
        "elastic": {},
        "diffusion": {"temperatures_K": [300, 400], "ps": 1.0, "equilibrate_ps": 0.5},
    },
}


def study_file(folder, **changes):
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}))
    return path


def machine_with(speed):
    speeds = {"label_s_per_atom": {"ase.calculators.emt:EMT": speed}} if speed else {}
    return Machine.model_validate({"slots": 2, "speeds": speeds})


def line(lines, name):
    (found,) = [re.split(r"  +", one.strip()) for one in lines if one.strip().startswith(name)]
    return found


def test_tasks_and_steps_are_exact_and_time_is_what_was_declared(tmp_path):
    lines = study_lines(load_study(study_file(tmp_path)), machine_with(0.001))
    assert line(lines, "glass EMT") == ["glass EMT", "3", "4500", "2.4 min"]  # 4500 steps x 32 atoms x 1 ms
    assert line(lines, "diffusion") == ["diffusion", "6", "9000", "4.8 min"]
    assert line(lines, "elastic") == ["elastic", "3", "not known"]
    assert line(lines, "density") == ["density", "3", "moments"]
    assert any("7.2 min of one slot, 3.6 min on 2 slots" in one for one in lines)
    assert any(one.startswith("1 of 5 lines are unknown and not included") for one in lines)


def test_what_nobody_declared_is_not_known(tmp_path):
    lines = study_lines(load_study(study_file(tmp_path)), machine_with(None))
    assert line(lines, "glass EMT")[-1] == "not known"
    assert not any("NaN" in one or "None" in one for one in lines)


def test_a_slower_machine_takes_longer(tmp_path):
    lines = study_lines(load_study(study_file(tmp_path)), machine_with(0.001), slower=2.0)
    assert line(lines, "glass EMT")[-1] == "4.8 min"


def test_check_takes_a_study_and_says_what_to_type(tmp_path):
    path = study_file(tmp_path)
    done = in_process("check", path, "--plan", "--folder", tmp_path / "s")
    assert done.returncode == 0, done.stderr
    assert "glasses: 3 of Cu" in done.stdout
    assert "glass EMT" in done.stdout
    assert done.stdout.rstrip().endswith(f"ok: activelearn benchmark --study {path} --folder {tmp_path / 's'}")
    assert not (tmp_path / "s").exists(), "nothing was begun"
    done = in_process("check", path, "--slots", 1)
    assert done.stdout.rstrip().endswith(f"ok: activelearn benchmark --study {path} --slots 1")
    done = in_process("check", path, "--try")
    assert (done.returncode, "a study - expected a campaign with --try" in done.stderr) == (2, True)


def test_check_says_what_is_wrong_with_a_study(tmp_path):
    done = in_process("check", study_file(tmp_path, potentials=[]), "--machine", machine_file(tmp_path / "m.yaml"))
    assert (done.returncode, "potentials: none - expected one or more" in done.stderr) == (2, True)
    done = in_process("check", study_file(tmp_path, nonsense=1))
    assert (done.returncode, "nonsense" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("data", "is_one"),
    [({"potentials": []}, True), ({"glasses": {}}, True), ({"type_map": [], "potentials": []}, False), ([], False)],
)
def test_which_yaml_is_a_study(data, is_one, tmp_path):
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(data))
    assert is_study(tmp_path / "x.yaml") == is_one


def test_presets_are_campaigns():
    assert not is_study("quickstart")
