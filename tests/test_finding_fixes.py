"""What helps against a finding, and what the page says comes next: keys that `check` accepts, and commands that run."""

import copy
import html
import re
import shlex
import shutil

import pytest
import typer.main
import yaml
from campaigns import SMALL, cli, environment, machine_file, tiny
from test_findings import CASES, found, models_in
from test_html_page import Read, unpacked

from activelearn import page
from activelearn.check import check
from activelearn.cli import app
from activelearn.config import Campaign, Machine, load_campaign
from activelearn.config.training import default_train
from activelearn.engines.trainers.mace.settings import MaceTrain
from activelearn.engines.trainers.sevennet.settings import SevenNetTrain
from activelearn.page.findings import RULES

GLASS = {
    "series": {
        "name": "copper",
        "title": "Cu",
        "compositions": [{"x": 0.0, "units": {"Cu": 1}, "density_g_cm3": 8.5}],
        "roles": {"formers": {"Cu": 1}, "anions": ["O"]},
        "cutoffs_A": {"Cu-O": 2.2},
    },
    "n_atoms": 32,
    "segments": [
        {"name": "melt", "temperature_K": 1500, "ps": 1.0, "n_frames": 20},
        {"name": "quench", "temperature_K": 1500, "to_temperature_K": 300, "rate_K_per_ps": 500.0, "n_frames": 20},
        {"name": "glass", "temperature_K": 300, "ps": 1.0, "n_frames": 20, "is_analysed": True},
    ],
}
BENCHMARK = {"density": True, "network": None, "coordination": False, "free_volume": False}
COLDER = {"name": "colder", "ensemble": "nvt", "temperatures_K": [100], "n_walks": 4, "n_steps": 20, "every": 2}
PACKED = {"packed": {"units": {"Cu": 1}, "n_atoms": 32, "density_g_cm3": 8.0}, "n_packings": 3}
FORCE_ERROR = {"n_frames": 20}
STEPS = {"train.n_steps": 90}
NET = {"train.fitting": [32, 32]}
CALIBRATED = {"select.f_lo": 0.08, "select.window": "calibrated"}
IN_STAGE = "explore.stages.0."
CALM = {f"{IN_STAGE}temperatures_K": [150], f"{IN_STAGE}n_steps": 18}
ROOM = {"train.descriptor.sel": [80], "label.ledger": "labels"}
LATER = {"explore.stages.1": COLDER}
#: What somebody sets who does as a finding says. Of a list, its number; the profile of the machine is `machine`.
DONE = {
    "not_explored": {"stop.max_iterations": 9, f"{IN_STAGE}max_passes": 2},
    "walks_nowhere": {
        f"{IN_STAGE}n_steps": 40,
        f"{IN_STAGE}temperature_damping_ps": 0.05,
        f"{IN_STAGE}lammps": "fix drag all viscous 0.01",
    },
    "rescued_in_a_row": {**CALM, **STEPS, "initial.md.temperatures_K": [200]},
    "candidates_flat": {**STEPS, **NET, "select.max_frames": 12, **LATER},
    "one_cell": {f"{IN_STAGE}n_walks": 8, "select.max_per_cell": 4},
    "walks_broken": {f"{IN_STAGE}timestep_fs": 1.0, "initial.isolated": {"atoms": True}},
    "out_of_region": {
        "select.guards": {"min_distance_fraction": 0.6},
        f"{IN_STAGE}ensemble": "npt-iso",
        f"{IN_STAGE}pressures_bar": [0.0],
        "explore.stages.1": COLDER,
        "explore.stages.1.deformations": ["isotropic"],
        "explore.stages.1.strains": [0.05],
    },
    "near_duplicates": {
        f"{IN_STAGE}every": 4,
        f"{IN_STAGE}n_walks": 2,
        "explore.systems": [PACKED],
        "explore.systems.0.n_packings": 4,
        "stop.min_walks": 2,
        "stop.min_frames": 10,
    },
    "held_out_p99": {**STEPS, **NET, "stop.max_force_error_p99": 0.2},
    "false_accepts": CALIBRATED,
    "error_per_deviation": {**CALIBRATED, "benchmark.force_error": FORCE_ERROR},
    "interval_wide": {"select.audit_frames": 4},
    "element_error": {"train.element_weights": {"Cu": 2}},
    "element_deviation": {"train.element_weights": {"Cu": 2}},
    "composition_error": {"explore.systems": [PACKED], "initial.systems.1": PACKED},
    "energy_shift": {"train.prefactors.energy": [0.1, 1.0], "initial.isolated": {"atoms": True}},
    "held_out_few": {"initial.held_out_fraction": 0.3, "initial.copies": 4},
    "held_out_rises": {**STEPS, **NET, "train.warm_n_steps": 40, "train.warm_start": False},
    "learnt_nothing": STEPS,
    "training_falling": STEPS,
    "member_apart": {**STEPS, "train.learning_rate.start": 5.0e-3},
    "training_diverged": {"train.learning_rate.start": 5.0e-3},
    "stress_energy": {"label.reference.stress": False},
    "labels_refused": {
        "label.max_force": 30.0,
        "label.max_net_force": 0.1,
        "label.max_energy_spread": 5.0,
        "label.reference.precision": "float64",
    },
    "no_virial": {"label.reference.stress": True},
    "sel_full": ROOM,
    "initial_failed": {
        "initial.md.timestep_fs": 2.0,
        "initial.md.temperatures_K": [200],
        "initial.perturb.positions_A": 0.03,
    },
    "glass_outside": LATER,
    "crowded": ROOM,
    "not_melted": {"glass.segments.0.ps": 2.0, "glass.segments.0.temperature_K": 1800},
    "true_error": {**STEPS, **NET, **LATER},
    "glass_died": {"glass.dynamics.timestep_fs": 1.0, "glass.relax.max_steps": 500, **LATER},
    "replicas_disagree": {
        "glass.n_replicas": 5,
        "glass.segments.1.rate_K_per_ps": 250.0,
        "glass.segments.0.ps": 2.0,
    },
    "beside_experiment": {"benchmark.crystals": {"seeds": ["Cu_Fm-3m"]}},
    "not_measured": {"benchmark.rdf": None},
    "disk_free": {"machine.scratch": "/tmp"},
    "time_outside": {
        f"{IN_STAGE}n_walks": 2,
        f"{IN_STAGE}n_steps": 40,
        "stop.min_walks": 2,
        "label.ledger": "labels",
        "machine.scratch": "/tmp",
    },
    "slots_idle": {"machine.slots": 1, f"{IN_STAGE}n_walks": 8, "train.n_members": 4},
    "infrastructure": {f"machine.{name}_timeout_s": 7200.0 for name in ("walk", "label", "train")},
    "folder_files": {"machine.keep_scratch": False},
    "folder_size": {
        "select.max_frames": 4,
        "glass.segments.0.n_frames": 10,
        "glass.dynamics.keep_velocities": False,
    },
}  # fmt: skip


def fixes(rule):
    """Return what a rule says that helps, and what its findings say."""
    return {rule.fix, *(one.fix for one in found(rule.key, CASES[rule.key][0]))}


def coded(fix):
    return re.findall(r"`([^`]+)`", fix)


def keys_of(fix):
    """Return dotted keys of a campaign, or of `machine`, by what is in backticks and is no command; a value is cut off.

    A key by itself is one of a section that the same sentence names, or of the machine profile.
    """
    words = [one.partition(":")[0] for one in coded(fix) if not one.startswith("activelearn ")]
    whole = [word for word in words if word.split(".")[0] in Campaign.model_fields]
    leads = {}
    for word in words:
        places = [word] if word in whole else [f"{section}.{word}" for section in whole]
        leads[word] = [place for place in places if leads_somewhere(Campaign, place)]
        if word in Machine.model_fields and "machine profile" in fix:
            leads[word].append(f"machine.{word}")
    return leads


def leads_somewhere(model, key):
    """Whether a dotted key leads somewhere in a section, through lists and what may be null."""
    name, _, rest = key.partition(".")
    field = model.model_fields.get(name)
    if field is None or not rest:
        return field is not None
    inner = [type(default_train())] if name == "train" else models_in(field.annotation)
    return any(leads_somewhere(one, rest) for one in inner)


def plain(dotted):
    """Return a dotted key without the numbers of lists."""
    return ".".join(part for part in dotted.split(".") if not part.isdigit())


def placed(data, dotted, value):
    *sections, last = [int(part) if part.isdigit() else part for part in dotted.split(".")]
    for section in sections:
        data = data[section] if isinstance(section, int) else data.setdefault(section, {})
    if isinstance(last, int):
        data.insert(last, value)
    else:
        data[last] = value


def loaded(folder, changes):
    """Return the tiny campaign with a glass, and a machine profile, both with these changes, as they are read."""
    file = tiny(folder / "c.yaml", glass=copy.deepcopy(GLASS), benchmark=dict(BENCHMARK))
    whole = {**yaml.safe_load(file.read_text()), "machine": dict(SMALL)}
    whole["initial"].setdefault("relax", None)
    for dotted, value in changes.items():
        placed(whole, dotted, copy.deepcopy(value))
    machine = Machine.model_validate(whole.pop("machine"))
    file.write_text(yaml.safe_dump(whole))
    return load_campaign(file), machine


def test_what_every_finding_says_is_tried():
    assert sorted(DONE) == sorted(rule.key for rule in RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.key)
def test_every_key_in_backticks_is_one(rule):
    for fix in fixes(rule):
        assert {word: places for word, places in keys_of(fix).items() if not places} == {}
        outside = re.sub(r"`[^`]+`", "", fix)
        assert re.findall(r"\b\w+_\w+\b|\w+\.\w+|--\w+", outside) == [], "a key or option without backticks"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.key)
def test_every_key_that_is_named_is_set_and_no_other(rule):
    tried = {plain(dotted) for dotted in DONE[rule.key]}
    needed_too = {"stop.min_walks", "stop.min_frames", "explore.systems", "explore.stages"}
    needed_too |= {f"explore.stages.{name}" for name in ("ensemble", "deformations")}
    named = {}
    for fix in fixes(rule):
        named |= keys_of(fix)
    for word, places in named.items():
        assert any(one == place or one.startswith(f"{place}.") for one in tried for place in places), word
    every = {place for places in named.values() for place in places}
    alien = [one for one in tried - needed_too if not any(one == p or one.startswith(f"{p}.") for p in every)]
    assert alien == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.key)
def test_who_does_as_a_finding_says_has_a_campaign_that_check_accepts(rule, tmp_path):
    before = loaded(tmp_path, {})
    after = loaded(tmp_path, DONE[rule.key])
    assert check(*before, tmp_path / "run", here=False).problems == []
    assert check(*after, tmp_path / "run", here=False).problems == []
    if rule.key not in {"no_virial", "folder_files", "labels_refused"}:  # whose values are the default
        assert after != before


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.key)
def test_a_value_that_is_named_is_taken_by_its_key(rule, tmp_path):
    for fix in fixes(rule):
        for text in (one for one in coded(fix) if ": " in one):
            ((key, value),) = yaml.safe_load(text).items()
            (place,) = [one for one in keys_of(fix)[key] if one.startswith("machine.") or "." in one]
            value = {"Cu": 2} if key == "train.element_weights" else value
            campaign, machine = loaded(tmp_path, {place: value})
            assert check(campaign, machine, tmp_path / "run", here=False).problems == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.key)
def test_a_key_of_one_trainer_alone_is_said_to_be_its(rule):
    for fix in fixes(rule):
        for key, of in re.findall(r"`(train\.[\w.]+)(?::[^`]*)?`( of DeePMD)?", fix):
            everywhere = all(leads_somewhere(one, key.removeprefix("train.")) for one in (MaceTrain, SevenNetTrain))
            assert everywhere is not bool(of), key


def test_the_commands_that_findings_name_are_commands_with_such_options():
    commands = typer.main.get_command(app).commands
    named = {one for rule in RULES for fix in fixes(rule) for one in coded(fix) if one.startswith("activelearn ")}
    assert len(named) >= 4
    for line in named:
        _, name, *options = line.split()
        there = {word for parameter in commands[name].params for word in parameter.opts}
        assert set(options) <= there, line


def test_check_try_compares_stress_and_energy_as_the_finding_says(tmp_path):
    wrong = {"calculator": "odd_calculators:Mistaken", "arguments": {"stress": -1.0}, "functional": "none"}
    tiny(tmp_path / "c.yaml", label__reference={**wrong, "includes_dispersion": False})
    machine_file(tmp_path / "machine.yaml")
    known = environment()["PYTHONPATH"]
    env = environment(PYTHONPATH=f"{known}:{known}/engines")
    done = cli("check", "c.yaml", "--try", "--trust", "--machine", "machine.yaml", cwd=tmp_path, env=env)
    assert done.returncode == 2
    assert "stress" in done.stderr


# --- what comes next --------------------------------------------------------------------------------------------------


def next_commands(folder):
    """Return the commands under *Next* on the page of a folder."""
    text = page.write_page(folder)[0].read_text(encoding="utf-8")
    assert Read(text).wrong == []
    (box,) = re.findall(r'<div class="next">.*?</div>', text, flags=re.DOTALL)
    lines = [html.unescape(one) for one in re.findall(r"<code>(.*?)</code>", box)]
    return [line for line in lines if line.split()[0] in {"activelearn", "cp"}]


def given(line, cwd, *more):
    """Give a line as it stands on the page, from the folder above that of the campaign."""
    words = shlex.split(line)
    if words[0] == "cp":
        return shutil.copy(cwd / words[1], cwd / words[2])
    return cli(*words[1:], *more, cwd=cwd, env=environment())


@pytest.mark.engines
def test_a_campaign_that_stopped_runs_on_by_the_commands_of_its_page(ended, tmp_path):
    folder = shutil.copytree(ended[0], tmp_path / "it's a campaign")
    copied, run = next_commands(folder)
    given(copied, tmp_path)
    more = ("--machine", machine_file(tmp_path / "machine.yaml", slots=2, report=False))
    same = given(run, tmp_path, *more)
    assert same.returncode == ended[1].returncode, same.stderr
    file = tmp_path / "next.yaml"
    changed = file.read_text().replace("max_iterations: 2", "max_iterations: 3")
    assert changed != file.read_text()
    file.write_text(changed)
    longer = given(run, tmp_path, *more)
    assert longer.returncode == 3, longer.stderr
    assert (folder / "iter-003" / "iteration.json").is_file()


@pytest.mark.engines
def test_a_campaign_that_is_not_finished_is_continued_by_the_command_of_its_page(ended, tmp_path):
    folder = shutil.copytree(ended[0], tmp_path / "c")
    (folder / "iter-002" / "final" / "result.json").unlink()
    (folder / "iter-002" / "iteration.json").unlink()
    (line,) = next_commands(folder)
    done = given(line, tmp_path, "--machine", machine_file(tmp_path / "machine.yaml", slots=2, report=False))
    assert done.returncode == 3, done.stderr
    assert (folder / "iter-002" / "iteration.json").is_file()


def test_a_converged_campaign_is_exported_by_the_command_of_its_page(tmp_path):
    folder = unpacked("49996e5-quickstart.tar.gz", tmp_path)
    lines = next_commands(folder)
    if not lines:  # a finding about trust comes first
        pytest.fail("the page proposes no command")
    done = given(lines[0], tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models" / "model_card.md").is_file()
