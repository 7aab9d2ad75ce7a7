"""The YAML of a study is checked and priced as that of a campaign: `check study.yaml --plan`."""

import re
from pathlib import Path

import pytest
import yaml
from campaigns import in_process, machine_file
from test_html_page import unpacked

from activelearn.check import cost
from activelearn.check.study_cost import study_lines
from activelearn.config import Machine, is_study, load_machine, load_study
from activelearn.engines import frozen
from activelearn.store import Store, StudyStore
from activelearn.store.glass_product import glasses_of
from activelearn.units import duration

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
    assert line(lines, "glass EMT") == ["glass EMT", "3", "4500", "2.4 min", "declared"]  # 4500 steps x 32 atoms x 1 ms
    assert line(lines, "diffusion") == ["diffusion", "6", "9000", "4.8 min", "declared"]
    assert line(lines, "elastic") == ["elastic", "3", "10.4 min", "declared, at most"]  # 13 x 500 evaluations each
    assert line(lines, "packing EMT") == ["packing EMT", "3", "19 s", "declared, at most"]
    assert line(lines, "density") == ["density", "3", "moments"]
    assert any("at most 17.9 min of one slot, 9.0 min on 2 slots" in one for one in lines)
    assert any(one.startswith("EMT: 0.001 s an evaluation of an atom (declared: profile") for one in lines)


def test_what_nobody_declared_has_a_default_and_says_so(tmp_path):
    lines = study_lines(load_study(study_file(tmp_path)), machine_with(None))
    assert line(lines, "glass EMT")[-2:] == ["1 s", "default"]
    assert any("(default: profile local, label_s_per_atom of ase.calculators.emt:EMT)" in one for one in lines)
    other = {**EMT, "calculator": "nobody.calculators:KnowsIt"}
    lines = study_lines(load_study(study_file(tmp_path, potentials=[{"name": "X", "ase": other}])), machine_with(None))
    assert line(lines, "glass X")[-1] == "default"
    assert any(
        "X: 0.0049 s an evaluation of an atom (default: nobody has declared it; as sevenn" in one for one in lines
    )


def test_each_kind_of_potential_has_its_price(tmp_path):
    physics = {"functional": "none", "includes_dispersion": False}
    style = {"pair_style": "lj/cut 6.0", "pair_coeff": ["* * 0.4 2.3"], "elements": ["Cu"]}
    models = [str(tmp_path / f"{k}.pb") for k in range(3)]
    for model in models:
        Path(model).write_text(model)
    potentials = [
        {"name": "EMT", "ase": EMT},
        {"name": "LJ", "lammps": style, **physics},
        {"name": "DP", "deepmd": {"models": models, "window": [0.1, 0.3]}, **physics},
    ]
    study = load_study(study_file(tmp_path, potentials=potentials, benchmark={"rdf": None, "network": None}))
    speeds = {"label_s_per_atom": {"lj/cut": 2.0e-4}, "md_Mflop_per_s": 1000.0, "start_s": {"trainer": 3.0}}
    lines = study_lines(study, Machine.model_validate({"slots": 1, "speeds": speeds}))
    assert line(lines, "glass LJ")[-2:] == ["29 s", "declared"]  # 4500 x 32 x 0.2 ms
    # 3 glasses x (1500 steps + 2 others at 17 rows) x (32 atoms x 1 ms + 0.25 ms), 3 s, and 1.4 s for 6 segments
    assert line(lines, "glass DP")[-2:] == ["2.7 min", "declared"]
    assert line(lines, "glass EMT")[-1] == "default"
    assert any("md_Mflop_per_s (1 Mflop an atom assumed)" in one for one in lines), "no size can be read from the files"


def test_crystals_parity_and_labels_of_frames_have_a_price(tmp_path):
    from ase.build import bulk
    from ase.io import write

    write(tmp_path / "frames.extxyz", [bulk("Cu", cubic=True)])
    asked = {
        "crystals": {"seeds": [str(tmp_path / "frames.extxyz")], "min_height_A": 7.0, "max_steps": 100},
        "parity": {"frames": str(tmp_path / "frames.extxyz"), "max_frames": 250},
        "force_error": {"n_frames": 4, "label": {"reference": EMT}},
        "bulk_modulus": {"max_steps": 50},
    }
    lines = study_lines(load_study(study_file(tmp_path, benchmark=asked)), machine_with(0.001))
    assert line(lines, "crystals") == ["crystals", "1", "3 s", "declared, at most"]  # 32 atoms x 100 steps
    assert line(lines, "parity") == ["parity", "3", "1 s", "declared, at most"]  # 250 frames of 4 atoms
    assert line(lines, "force_error") == ["force_error", "12", "1 s", "declared"]  # twice 12 x 32
    assert line(lines, "bulk_modulus") == ["bulk_modulus", "3", "29 s", "declared, at most"]  # 3 x 6 x 50 x 32


def test_a_slower_machine_takes_longer(tmp_path):
    lines = study_lines(load_study(study_file(tmp_path)), machine_with(0.001), slower=2.0)
    assert line(lines, "glass EMT")[-2] == "4.8 min"


def test_the_bill_of_a_recorded_study_beside_what_it_took(tmp_path):
    """The quickstart's glass: two DeePMD models, recorded on a machine of two cores."""
    store = StudyStore.open(unpacked("49996e5-quickstart.tar.gz", tmp_path) / "study-002")
    (glass,) = glasses_of(store)
    own = load_machine("local").model_copy(update={"slots": 1})
    _, n, steps, declared_s, source = line(study_lines(store.study, own), "glass quickstart")
    assert (n, steps, source) == ("1", "40", "declared")
    assert 0.4 * glass.seconds < float(declared_s.removesuffix(" s")) < 2.5 * glass.seconds
    lines = study_lines(store.study, own, store=store)
    assert line(lines, "glass quickstart")[-2:] == [f"{glass.seconds:.0f} s", "measured"]
    assert line(lines, "density")[-1] == "measured"
    assert line(lines, "packing quickstart")[-1] == "declared, at most", "of 40 steps nothing else follows"
    model = frozen.read(Path(store.study.potentials[0].deepmd.models[0]))
    campaign = Store.open(store.folder.parent).latest_campaign()
    assert model.Mflop == pytest.approx(cost.network_Mflop(campaign))


def test_try_measures_the_speed_and_a_run_then_takes_as_long(tmp_path):
    """The whole of it in real: EMT by ASE, a pair style by LAMMPS; times vary with what else the machine does."""
    potentials = [
        {"name": "EMT", "ase": EMT},
        {
            "name": "LJ",
            "functional": "none",
            "includes_dispersion": False,
            "lammps": {"pair_style": "lj/cut 6.0", "pair_coeff": ["* * 0.4 2.3"], "elements": ["Cu"]},
        },
    ]
    segments = [{"name": "glass", "temperature_K": 300, "ps": 3.0, "is_analysed": True}]
    glass = {"series": COPPER, "n_atoms": 108, "n_replicas": 1, "segments": segments}
    asked = {"network": None, "coordination": False, "free_volume": False}
    path = study_file(tmp_path, potentials=potentials, glass=glass, benchmark=asked)
    options = ("--folder", tmp_path / "s", "--machine", machine_file(tmp_path / "m.yaml", slots=1))
    done = in_process("check", path, "--plan", "--try", *options)
    assert done.returncode == 0, done.stderr
    assert "tried: the potentials work" in done.stdout
    found = re.findall(
        r"^(EMT|LJ): (\S+) s an evaluation of an atom \(measured: \d+ steps of 108 atoms", done.stdout, re.M
    )
    each = {name: float(seconds) for name, seconds in found}
    assert set(each) == {"EMT", "LJ"}, done.stdout
    done = in_process("benchmark", "--study", path, *options)
    assert done.returncode == 0, done.stderr
    store = StudyStore.open(tmp_path / "s")
    took = {one.potential: one.seconds for one in glasses_of(store)}
    for name, seconds in took.items():  # LAMMPS starts, too
        assert 0.1 * seconds < 3000 * 108 * each[name] + (1.0 if name == "LJ" else 0.0) < 10.0 * seconds, (
            name,
            took,
            each,
        )
    done = in_process("check", path, "--plan", *options)
    lines = done.stdout.splitlines()
    assert line(lines, "glass EMT")[-2:] == [duration(took["EMT"], 1), "measured"]
    assert line(lines, "rdf")[-1] == "measured"


def test_where_the_engines_are_elsewhere_there_is_a_bill_and_then_what_is_missing(tmp_path):
    missing = {**EMT, "calculator": "nobody.calculators:KnowsIt"}
    done = in_process("check", study_file(tmp_path, potentials=[{"name": "X", "ase": missing}]), "--plan")
    assert done.returncode == 2
    assert "glass X" in done.stdout
    assert done.stdout.rstrip().endswith("a machine that has what is missing here:")
    assert "nobody" in done.stderr


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
