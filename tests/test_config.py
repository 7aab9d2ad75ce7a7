"""Config: every shipped file loads, what is written is read back, and each mistake gets its sentence."""

import re

import pytest
import yaml
from campaigns import tiny
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from activelearn import config
from activelearn.config import (
    Condition,
    FilePath,
    FolderPath,
    Machine,
    Stage,
    System,
    difference,
    load_campaign,
    load_machine,
    nearest,
    parse_campaign,
    preset_names,
    shipped,
)
from activelearn.config.paths import written
from activelearn.errors import ConfigError

SMALL = """
name: small
type_map: [Cu]
initial: {systems: [{seed: Cu_Fm-3m}]}
explore: {stages: [{name: cold, temperatures_K: [100], n_steps: 100}]}
label: {reference: {calculator: "ase.calculators.emt:EMT", functional: none, includes_dispersion: false}}
"""


COLD = {"name": "cold", "temperatures_K": [100], "n_steps": 100}


def small(**changes):
    """The smallest campaign as raw data; keys with dots are set inside."""
    data = yaml.safe_load(SMALL)
    for key, value in changes.items():
        *folders, last = key.split("__")
        inner = data
        for folder in folders:
            inner = inner[int(folder)] if isinstance(inner, list) else inner.setdefault(folder, {})
        inner[last] = value
    return data


def refusal(**changes):
    with pytest.raises(ConfigError) as caught:
        parse_campaign(small(**changes), where="x.yaml")
    assert caught.value.exit_code == 2
    return str(caught.value)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", preset_names("campaign"))
def test_every_campaign_preset_loads_and_is_read_back(name):
    campaign = load_campaign(name)
    assert parse_campaign(yaml.safe_load(campaign.to_yaml()), where="copy") == campaign
    assert parse_campaign(yaml.safe_load(campaign.to_yaml()), where="copy").sha256 == campaign.sha256


@pytest.mark.parametrize("name", preset_names("machine"))
def test_every_machine_preset_loads(name):
    assert load_machine(name).name


@pytest.mark.parametrize("section", config.PRESET_SECTIONS)
def test_every_section_preset_loads_with_its_section_alone(section):
    for name in preset_names(section):
        data = small()
        data[section] = {"preset": name}
        assert parse_campaign(data, where=name)


def test_every_file_of_params_is_somebodys_preset():
    studies = {"potential", "series", "glass", "benchmark", "cited"}
    known = {"campaign", "machine", *config.PRESET_SECTIONS, *studies}
    assert {path.parent.name for path in shipped("params").rglob("*.yaml")} <= known


def test_defaults_are_those_of_the_papers():
    campaign = parse_campaign(small(), where="x")
    assert (campaign.select.f_lo, campaign.select.f_hi) == (0.15, 0.35)
    assert campaign.train.n_members == 4
    descriptor = campaign.train.descriptor
    assert (descriptor.rcut, descriptor.rcut_smth, descriptor.neuron) == (6.0, 2.0, (25, 50, 100))
    assert campaign.train.fitting == (240, 240, 240)
    assert campaign.initial.scales == (0.95, 1.0, 1.05)
    assert campaign.min_height_A == 6.0


# --- mistakes and their sentences -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"select__flo": 0.1}, "x.yaml: select.flo: unknown key - did you mean 'f_lo'? - rename or remove it"),
        ({"train__learning_rate__type": "wsd"}, "train.learning_rate.type: unknown key - did you mean 'shape'?"),
        ({"selects": {}}, "x.yaml: selects: unknown key - did you mean 'select'?"),
        (
            {"explore__stages__0__temperature_K": 3},
            "explore.stages.0.temperature_K: unknown key - did you mean 'temperatures_K'?",
        ),
        ({"label__reference__weight": "x"}, "label.reference.weight: unknown key - did you mean 'weights'?"),
        (
            {"train": {"trainer": "sevennet", "foundation": "7net-0", "descriptor": {}}},
            "train.descriptor: unknown key here - another kind of train has it - remove it, or choose that kind",
        ),
        ({"train__descriptor__zzz": 1}, "train.descriptor.zzz: unknown key - one of: axis_neuron, neuron, rcut"),
        ({"random_seed": "seven"}, "x.yaml: random_seed: got 'seven' - expected a valid integer"),
        ({"train__n_steps": 1.5}, "train.n_steps: got 1.5 - expected a valid integer"),
        ({"train__n_steps": -1}, "train.n_steps: got -1 - expected greater than 0 - fix it"),
        ({"train__n_members": 1}, "train.n_members: got 1 - expected greater than or equal to 2"),
        ({"stop__candidate_share": 1.5}, "stop.candidate_share: got 1.5 - expected less than or equal to 1"),
        (
            {"select": {"f_lo": 0.35, "f_hi": 0.35}},
            "select: f_lo = 0.35 eV/Å must be below f_hi = 0.35 eV/Å - fix it and run: activelearn check x.yaml",
        ),
        ({"select": {"f_lo": float("inf")}}, "select.f_lo: got inf - expected a finite number"),
        (
            {"explore__stages__0__ensemble": "nve"},
            "explore.stages.0.ensemble: got 'nve' - expected 'nvt', 'npt-iso', 'npt-aniso', 'npt-tri' or 'custom'",
        ),
        ({"explore__stages__0__pressures_bar": [1.0]}, "pressures_bar requires ensemble npt-*"),
        ({"explore__stages__0__ensemble": "npt-iso"}, "ensemble npt-* needs pressures_bar, for example [0.0]"),
        ({"explore__stages__0__n_steps": 9}, "n_steps = 9 must be at least every = 10"),
        (
            {"explore__stages__0__temperatures_K": []},
            "explore.stages.0: needs temperatures_K, such as [300], or ramps_K, such as [[10, 2000]]",
        ),
        (
            {"explore__stages__0__temperatures_K": [300, 300]},
            "temperatures_K needs different numbers (to six digits), got [300.0, 300.0]",
        ),
        (
            {"explore__stages__0__ramps_K": [[10, 2000], [10, 2000.0001]]},
            "deformations and ramps_K need different entries",
        ),
        ({"explore__stages__0__ramps_K": [[0, 2000]]}, "explore.stages.0.ramps_K.0.0: got 0 - expected greater than 0"),
        (
            {"explore__stages__0__deformations": ["shear-yx"]},
            "explore.stages.0.deformations.0: got 'shear-yx' - expected 'isotropic', 'uniaxial-x'",
        ),
        (
            {"explore__stages__0__strains": [0.5, 0.0]},
            "strains are linear and must be nonzero and above -0.9",
        ),
        ({"explore__stages__0__strains": [-0.91]}, "strains are linear and must be nonzero and above -0.9"),
        ({"explore__stages__0__strains": [0.5, 0.5]}, "strains needs different numbers (to six digits)"),
        (
            {"explore__stages": [{**COLD, "deformations": ["isotropic"], "strains": []}]},
            "deformations need strains, such as [0.5, -0.5]",
        ),
        (
            {"explore__stages": [{**COLD, "deformations": ["isotropic"], "ensemble": "npt-iso", "pressures_bar": [0]}]},
            "deformations drive the cell, so they need ensemble nvt, got npt-iso",
        ),
        ({"explore__stages__0__ensemble": "custom"}, "ensemble custom needs an integrator in `lammps`"),
        (
            {"explore__stages__0__lammps": "fix wall all wall/reflect xlo EDGE\nrun 10"},
            "explore.stages.0.lammps: line 2 'run 10': the command run is not allowed in a stage - expected one of",
        ),
        ({"explore__stages__0__name": "a/b"}, "explore.stages.0.name: got 'a/b' - expected"),
        ({"explore__stages__0__systems": [1]}, "explore stage cold names system 1 of 1 (from 0)"),
        (
            {"explore__stages__0__f_lo": 0.01},
            "has the window 0.01 to 0.35 eV/Å - expected it to be within that of select, 0.15 to 0.35",
        ),
        ({"explore__stages__0__f_lo": 0.3, "explore__stages__0__f_hi": 0.2}, "has the window 0.3 to 0.2 eV/Å"),
        (
            {"explore__stages__0__f_lo": 0.2, "select__window": "calibrated"},
            "explore stage cold has its own window, but select.window: calibrated determines one for all",
        ),
        ({"initial__scales": [1.0, 1.0]}, "scales needs different numbers"),
        ({"initial__systems": []}, "initial: systems is empty - expected at least one, or from_ledger: true"),
        ({"initial__systems": [{}]}, "a system is either a `seed` (crystal or file) or `packed` (amorphous)"),
        (
            {"initial__systems": [{"seed": "x", "packed": {"units": {"Cu": 1}, "n_atoms": 9, "density_g_cm3": 8}}]},
            "a system is either a `seed` (crystal or file) or `packed` (amorphous)",
        ),
        (
            {"initial__systems": [{"seed": "x", "supercell": [1, 1, 1], "n_atoms": 9}]},
            "supercell and n_atoms both set the size: give only one of them",
        ),
        ({"initial__systems": [{"seed": "x", "n_packings": 2}]}, "n_packings applies only to a `packed` system"),
        (
            {"initial__systems": [{"n_atoms": 9, "packed": {"units": {"Cu": 1}, "n_atoms": 9, "density_g_cm3": 8}}]},
            "supercell and n_atoms belong to a seed; the size of a packing is set in `packed`",
        ),
        ({"initial__isolated": {"distances": [1.0, 1.0]}}, "isolated.distances needs different numbers"),
        ({"initial__isolated": {"dimers": ["CuCu"]}}, "initial.isolated.dimers"),
        (
            {"select__guards": {"min_distances_A": {"P-S": 1.5, "Cu-S": 2.0, "S-P": 1.6}}},
            "select.guards: min_distances_A names a pair twice (P-S and S-P) - expected each once",
        ),
        (
            {"initial__isolated": {"dimers": ["Cu-Cu", "Cu-Cu"]}},
            "initial.isolated: isolated.dimers names a pair twice (Cu-Cu and Cu-Cu) - expected each once",
        ),
        ({"type_map": ["Cu", "Cu"]}, "type_map names an element twice: ['Cu', 'Cu']"),
        ({"train__descriptor__sel": [1, 2]}, "train.descriptor.sel has 2 numbers for 1 elements"),
        ({"train__descriptor__rcut": 2.0}, "train.descriptor: rcut_smth = 2 Å must be below rcut = 2 Å"),
        ({"train__batch_size": "many"}, "train.batch_size"),
        ({"select__guards": {"volume_ratio": [1.6, 0.6]}}, "volume_ratio = [1.6, 0.6] must enclose 1"),
        ({"select__guards": {"min_distances_A": {"PS": 1.5}}}, "select.guards.min_distances_A.PS"),
        ({"label__reference__calculator": "EMT"}, "label.reference.calculator: got 'EMT' - expected"),
    ],
)
def test_a_mistake_gets_its_sentence(changes, sentence):
    assert sentence in refusal(**changes)


def test_what_is_missing_is_described():
    data = small()
    del data["label"]["reference"]["functional"]
    del data["name"]
    with pytest.raises(ConfigError) as caught:
        parse_campaign(data, where="x.yaml")
    assert len(caught.value.problems) == 2, "one line per problem"
    assert "x.yaml: label.reference.functional: missing - expected the functional that it reproduces" in str(
        caught.value
    )
    assert "x.yaml: name: missing - expected a value for name - add it" in str(caught.value)


def test_a_stage_without_a_window_of_its_own_does_not_say_so():
    """Campaigns of before keep their checksum."""
    (stage,) = parse_campaign(small(), where="x").explore.stages
    assert {"f_lo", "f_hi"} & stage.model_dump().keys() == set()
    assert stage.model_copy(update={"f_lo": 0.2}).model_dump()["f_lo"] == 0.2


def test_two_stages_of_one_name_are_refused():
    data = small()
    data["explore"]["stages"] *= 2
    with pytest.raises(ConfigError, match="stages need different names"):
        parse_campaign(data, where="x")


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_what_is_no_mapping_is_refused(data):
    with pytest.raises(ConfigError, match=r"x.yaml: not a mapping - expected keys such as name"):
        parse_campaign(data, where="x.yaml")


def test_bad_yaml_is_refused_with_its_line(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("name: x\ntype_map: [Cu\ninitial: {}\n")
    with pytest.raises(ConfigError, match=re.escape(f"{path}:3: ") + ".* - expected YAML - fix that line"):
        load_campaign(path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(ConfigError, match=r"bad.yaml:1: cannot be read, not UTF-8 .* - check the path"):
        load_campaign(path)


def test_unknown_names_name_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match=r"coper_emt: neither a YAML file nor a preset - did you mean 'copper_emt'\?"):
        load_campaign("coper_emt")
    with pytest.raises(
        ConfigError, match=r"no such file - expected a campaign's YAML - write one with: activelearn init"
    ):
        load_campaign(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"machine locl: neither a YAML file nor a preset - did you mean 'local'\?"):
        load_machine("locl")
    assert "train.preset: unknown preset 'nonesuch'" in refusal(train={"preset": "nonesuch"})
    assert nearest("abc", []) == "one of: none there"


def test_a_machine_with_an_unknown_key_is_refused(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text("slot: 3\n")
    with pytest.raises(ConfigError, match=r"m.yaml:1: slot: unknown key - did you mean 'slots'\?"):
        load_machine(path)


def test_sections_are_immutable():
    with pytest.raises(ValueError, match="frozen"):
        Machine().slots = 3


# --- presets ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def presets(tmp_path, monkeypatch):
    (tmp_path / "params" / "train").mkdir(parents=True)
    (tmp_path / "params" / "train" / "fast.yaml").write_text(
        "n_steps: 100\ndescriptor: {rcut: 5.0, neuron: [4, 8]}\nprefactors: {force: [10.0, 1.0]}\n"
    )
    monkeypatch.setattr(config.files, "shipped", lambda name: tmp_path / name)


@pytest.mark.parametrize("section", ["initial", "explore", "label", "train"])
def test_the_name_alone_is_the_preset(section):
    name = preset_names(section)[0]
    assert parse_campaign(small(**{section: name}), where="x") == parse_campaign(
        small(**{section: {"preset": name}}), where="x"
    )
    assert f"{section}.preset: unknown preset 'nonesuch'" in refusal(**{section: "nonesuch"})


def test_a_preset_is_taken_and_single_keys_override_it(presets):
    given_keys = {"preset": "fast", "n_members": 3, "descriptor": {"rcut": 4.5}, "prefactors": {"force": [20.0, 2.0]}}
    campaign = parse_campaign(small(train=given_keys), where="x")
    train = campaign.train
    assert (train.n_steps, train.n_members) == (100, 3)
    assert (train.descriptor.rcut, train.descriptor.neuron) == (4.5, (4, 8))
    assert train.prefactors.force == (20.0, 2.0), "lists are replaced, not merged"
    assert "preset" not in campaign.to_yaml()
    spelt_out = {"n_steps": 100, "n_members": 3, "descriptor": {"rcut": 4.5, "neuron": [4, 8]}}
    plain = parse_campaign(small(train={**spelt_out, "prefactors": {"force": [20.0, 2.0]}}), where="x")
    assert plain == campaign
    assert plain.sha256 == campaign.sha256


# --- paths ------------------------------------------------------------------------------------------------------------


def test_relative_paths_start_at_the_campaign_file(tmp_path, monkeypatch):
    """Workers run in other working directories (FireWorks changes it): a relative path there would be another file."""
    home = tmp_path / "mine"
    home.mkdir()
    for name in ("POSCAR.vasp", "w.pth"):
        (home / name).touch()
    data = small(label__ledger="../labels", label__reference__weights="w.pth")
    data["initial"]["systems"] = [{"seed": "POSCAR.vasp"}, {"seed": "Cu_Fm-3m"}, {"seed": "unknown"}]
    data["label"]["reference"]["arguments"] = {"model": "./w.pth", "device": "cpu", "n": 3}
    (home / "c.yaml").write_text(yaml.safe_dump(data))
    monkeypatch.chdir(home)
    found = load_campaign("c.yaml")
    monkeypatch.chdir(tmp_path)
    assert load_campaign(home / "c.yaml") == found
    assert [s.seed for s in found.initial.systems] == [str(home / "POSCAR.vasp"), "Cu_Fm-3m", str(home / "unknown")]
    assert found.label.ledger == str(home / "../labels")
    assert found.label.reference.weights == str(home / "w.pth")
    assert found.label.reference.arguments == {"model": str(home / "w.pth"), "device": "cpu", "n": 3}
    (home / "m.yaml").write_text("scratch: fast\n")
    assert load_machine(home / "m.yaml").scratch == str(home / "fast")


def test_the_path_of_a_preset_is_taken_from_its_folder_and_then_from_that_of_its_user(tmp_path):
    """A string knows where it stands, also when it has become part of another file."""
    for name in ("a/own.xyz", "b/users.xyz", "a/both.xyz", "b/both.xyz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    adapter = TypeAdapter(list[FilePath])
    names = ["own.xyz", "users.xyz", "both.xyz", "./nobodys.xyz"]
    found = written(written(names, tmp_path / "a" / "preset.yaml"), tmp_path / "b" / "c.yaml")
    expected = [str(tmp_path / name) for name in ("a/own.xyz", "b/users.xyz", "a/both.xyz")]
    assert adapter.validate_python(found) == [*expected, "./nobodys.xyz"]
    assert {type(one) for one in adapter.validate_python(found)} == {str}
    assert adapter.validate_python(names) == names, "what no file says is as it is said"
    assert TypeAdapter(FolderPath).validate_python(found[-1]) == str(tmp_path / "b" / "nobodys.xyz")


def test_strings_of_a_file_are_plain_ones_in_a_campaign(tmp_path):
    data = small(label__reference__arguments={"deep": [{"a": "b"}], "name": "c"}, description="d")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(data))

    def kinds(value):
        if isinstance(value, dict):
            return {kind for item in value.items() for part in item for kind in kinds(part)}
        return {kind for item in value for kind in kinds(item)} if isinstance(value, list | tuple) else {type(value)}

    assert kinds(load_campaign(tmp_path / "c.yaml").model_dump()) <= {str, int, float, bool, type(None)}


def test_a_copy_that_names_every_engine_is_read():
    """Campaigns that were resolved before the engines had a section each hold a null for the others."""
    data = small()
    data["label"]["reference"] |= {"gpaw": None, "vasp": None}
    assert parse_campaign(data, where="x") == parse_campaign(small(), where="x")


# --- hash and difference ----------------------------------------------------------------------------------------------


def leaves(data, prefix=()):
    if isinstance(data, dict):
        for key, value in data.items():
            yield from leaves(value, (*prefix, key))
    else:
        yield prefix, data


def changed(value):
    """Another value of the same type that stays valid nearly everywhere."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return (value * 1.0001 or 0.001) if isinstance(value, float) else None


def test_the_hash_ignores_no_number_of_the_campaign(campaign):
    data = campaign.model_dump(mode="json")
    seen, tried = {campaign.sha256}, 0
    for path, value in leaves(data):
        if changed(value) is None:
            continue
        other = yaml.safe_load(yaml.safe_dump(data))
        inner = other
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = changed(value)
        seen.add(parse_campaign(other, where="x").sha256)
        tried += 1
    assert tried > 40
    assert len(seen) == tried + 1
    assert "slots" not in campaign.to_yaml(), "the machine is no part of the campaign"


@given(st.permutations(list(yaml.safe_load(SMALL))))
def test_the_hash_does_not_depend_on_the_order_of_keys(order):
    data = small()
    assert parse_campaign({k: data[k] for k in order}, where="x").sha256 == parse_campaign(data, where="x").sha256


def test_the_difference_names_each_changed_key_once(campaign):
    assert difference(campaign, campaign) == []
    stages = [campaign.explore.stages[0].model_copy(update={"n_walks": 9}), *campaign.explore.stages[1:]]
    new = campaign.model_copy(
        update={
            "select": campaign.select.model_copy(update={"f_lo": 0.2, "max_per_walk": 3}),
            "explore": campaign.explore.model_copy(update={"stages": tuple(stages)}),
            "type_map": ("Cu", "Ag"),
        }
    )
    assert sorted(difference(campaign, new)) == [
        "explore.stages.0.n_walks: 4 -> 9",
        "select.f_lo: 0.15 -> 0.2",
        "select.max_per_walk: None -> 3",
        "type_map: ['Cu'] -> ['Cu', 'Ag']",
    ]


def test_a_key_that_came_or_went_is_said_so(campaign):
    shorter = campaign.model_copy(
        update={"explore": campaign.explore.model_copy(update={"stages": campaign.explore.stages[:1]})}
    )
    assert "explore.stages.1.name: warm -> (not set)" in difference(campaign, shorter)
    assert "explore.stages.1.name: (not set) -> warm" in difference(shorter, campaign)


# --- what sections work out -------------------------------------------------------------------------------------------


def test_cells_of_the_matrix():
    stage = Stage(name="s", ensemble="npt-iso", temperatures_K=(1, 2), pressures_bar=(0, 5), n_steps=105, every=10)
    pressed = [Condition(t, pressure_bar=p) for t in (1.0, 2.0) for p in (0.0, 5.0)]
    assert stage.conditions == pressed
    assert stage.n_frames == 11, "steps 0, 10 ... 100"
    assert Stage(name="s", temperatures_K=(1,), n_steps=10).conditions == [Condition(1.0)]


def test_cells_of_a_matrix_of_ramps_and_deformations():
    stage = Stage(
        name="s", temperatures_K=(300,), ramps_K=((10, 2000),), deformations=("isotropic", "shear-xz"), n_steps=100
    )
    heats = [(300.0, None), (10.0, 2000.0)]
    cells = [(*heat, None, m, e) for heat in heats for m in ("isotropic", "shear-xz") for e in (0.5, -0.5)]
    assert stage.conditions == cells
    assert [str(condition) for condition in stage.conditions[3:6]] == [
        "300K-shear-xz-0.5",
        "10-2000K-isotropic+0.5",
        "10-2000K-isotropic-0.5",
    ]
    assert str(Condition(300.0, pressure_bar=50000.0)) == "300K-50000bar"


def test_a_ramp_alone_is_a_matrix():
    stage = Stage(name="s", ensemble="npt-aniso", ramps_K=((2000, 10), (10, 2000)), pressures_bar=(0, 1), n_steps=100)
    assert [str(c) for c in stage.conditions] == ["2000-10K-0bar", "2000-10K-1bar", "10-2000K-0bar", "10-2000K-1bar"]


def test_the_key_of_a_system_is_all_that_is_said_of_it(campaign):
    """What was prepared is found by it, so it must not change by itself, nor stay when anything else is asked for."""
    one = System(seed="Cu_Fm-3m")
    same = System.model_validate_json(one.model_dump_json())
    others = [
        System(seed="Cu_Fm-3m", n_atoms=100),
        System(seed="Cu_Fm-3m", supercell=(2, 2, 2)),
        System(seed="Cu_Fm-3m", sha256="0"),
        System(packed={"units": {"Cu": 1}, "n_atoms": 50, "density_g_cm3": 8.0}),
        System(packed={"units": {"Cu": 1}, "n_atoms": 50, "density_g_cm3": 8.0}, n_packings=2),
    ]
    assert one.key == same.key
    assert len({system.key for system in [one, *others]}) == 6
    assert [system.name for system in others[2:4]] == ["Cu_Fm-3m", "1Cu"]


def test_every_system_is_named_once(campaign):
    apart = campaign.explore.model_copy(update={"systems": (*campaign.initial.systems, System(seed="Cu_Fm-3m"))})
    assert len(campaign.systems) == 1
    assert [s.seed for s in campaign.model_copy(update={"explore": apart}).systems] == ["Cu_Fm-3m"] * 2


def test_cells_of_the_initial_data(campaign):
    assert campaign.initial.cells == [(0, s, t) for s in (0.98, 1.0, 1.02) for t in (100.0, 400.0)]
    static = campaign.initial.model_copy(update={"md": None})
    assert static.cells == [(0, s, None) for s in (0.98, 1.0, 1.02)]


def test_machine_slots_and_chunks(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2})
    assert Machine().n_slots == 3
    assert Machine(slots=2).n_slots == 2
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "2")  # of its job, where Slurm does not bind jobs to their CPUs
    assert Machine().n_slots == 2
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "64")
    assert Machine().n_slots == 3
    assert Machine(chunks={"explore": 4}).n_chunks("explore") == 4
    assert Machine().n_chunks("label") == 1


def test_a_command_with_an_open_quote_is_refused():
    with pytest.raises(ValidationError, match="cannot be split into words"):
        Machine(launcher="srun --comment='x")


def test_what_is_wanted_is_said_in_the_words_of_yaml(tmp_path):
    data = yaml.safe_load(tiny(tmp_path / "c.yaml").read_text())
    data["train"]["batch_size"] = 0
    data["explore"]["stages"][0] |= {"temperatures_K": 300, "temps": [1]}
    data["select"] = None
    data["initial"]["systems"][0]["supercell"] = [2, 2]
    data |= {"type_map": ["cu"], **{f"k{i}": 1 for i in range(60)}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    with pytest.raises(ConfigError) as refused:
        load_campaign(tmp_path / "c.yaml")
    said = str(refused.value)
    for words in (
        "train.batch_size: got 0 - expected greater than 0 or a valid string - fix it",
        "explore.stages.0.temperatures_K: got 300 - expected a list - fix it",
        "explore.stages.0.temps: unknown key - did you mean 'temperatures_K'?",
        "select: got null - expected a mapping - fix it",
        "initial.systems.0.supercell.2: missing - expected a value for item 3",
        "type_map.0: got 'cu' - expected a text that fits '^[A-Z][a-z]?$' - fix it",
    ):
        assert words in said
    assert said.endswith(f"{tmp_path / 'c.yaml'}: 16 more problems")


def test_messages_name_the_file_as_it_is_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(SMALL.replace("name:", "names:"))
    (tmp_path / "m.yaml").write_text("slots: none")
    for load, file in ((load_campaign, "my.yaml"), (load_machine, "m.yaml")):
        with pytest.raises(ConfigError, match=rf"(?m)^{file}:\d+: "):
            load(file)


@pytest.mark.parametrize("name", ["my_calc.Mine", "./my_calc.py:Mine", "emt"])
def test_how_a_calculator_is_named_is_told_in_words(name):
    wanted = "expected module:Class, such as ase.calculators.emt:EMT - fix it"
    assert f"label.reference.calculator: got '{name}' - {wanted}" in refusal(label__reference__calculator=name)
