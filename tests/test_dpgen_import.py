"""``activelearn import-dpgen``: a folder of DP-GEN becomes a campaign that can be checked and run."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from campaigns import in_process
from conftest import rattled_copper
from dpgen_folder import EMT, MACHINE, PARAM, changed, contents, dpgen_folder, write_system

from activelearn import exchange
from activelearn.check import check
from activelearn.config import Machine, load_campaign, load_machine
from activelearn.errors import ConfigError
from activelearn.exchange import dpgen
from activelearn.exchange.deepmd_npy import read_deepmd
from activelearn.exchange.dpgen import stages, training
from activelearn.exchange.dpgen.labelling import Incar
from activelearn.exchange.dpgen.told import DpgenReport, row_of
from activelearn.store import Ledger

HERE = Machine(name="test", slots=2, min_free_disk_GB=0.0)


def taken(tmp_path, monkeypatch, *options, **changes):
    """Import a folder with changes of param.json; return what was printed and the campaign."""
    tmp_path.mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path)
    dpgen_folder(tmp_path / "old", **changes)
    words = options or ("--reference", "emt", "--declare", EMT)
    done = in_process("import-dpgen", "old", "--to", "my.yaml", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout, load_campaign(tmp_path / "my.yaml")


def refused(tmp_path, monkeypatch, **changes):
    """Return what is said of a folder that cannot come over; nothing is written then."""
    monkeypatch.chdir(tmp_path)
    dpgen_folder(tmp_path / "old", **changes)
    done = in_process("import-dpgen", "old", "--to", "my.yaml", "--reference", "emt", "--declare", EMT)
    assert done.returncode == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]
    return done.stderr


# --- the whole --------------------------------------------------------------------------------------------------------


def test_a_folder_becomes_a_campaign_that_check_accepts(tmp_path, monkeypatch):
    said, campaign = taken(tmp_path, monkeypatch)
    found = check(campaign, HERE, tmp_path / "runs" / "my")
    assert found.problems == []
    assert "9 labels of EMT (none) taken from 3 places" in said
    assert any("initial: 9 existing labels" in fact for fact in found.facts)
    assert [stage.name for stage in campaign.explore.stages] == ["job-00-to-01", "job-02"]
    first, second = campaign.explore.stages
    assert (first.ensemble, first.temperatures_K, first.systems, first.n_steps, first.every) == (
        *("nvt", (200.0, 400.0), (0, 1)),
        *(20, 2),
    )
    assert (second.ensemble, second.pressures_bar, second.systems) == ("npt-tri", (1.0, 5000.0), (0, 1, 2))
    assert (first.timestep_fs, first.temperature_damping_ps, second.pressure_damping_ps) == (2.0, 0.1, 0.5)
    assert (campaign.select.f_lo, campaign.select.f_hi, campaign.select.max_frames) == (0.1, 0.3, 20)
    assert (campaign.train.n_members, campaign.train.n_steps, campaign.train.min_new_frames) == (2, 60, 2)
    assert said.endswith("next: activelearn check my.yaml --machine my-dpgen/machine.yaml\n")


def test_nothing_of_the_folder_is_touched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = contents(dpgen_folder(tmp_path / "old"))
    assert in_process("import-dpgen", "old", "--reference", "emt", "--declare", EMT).returncode == 0
    assert contents(tmp_path / "old") == before


def test_the_command_line_of_the_next_step_says_ok(tmp_path, monkeypatch):
    taken(tmp_path, monkeypatch)
    done = in_process("check", "my.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("ok: activelearn run my.yaml")


def test_yaml_in_place_of_json_gives_the_same(tmp_path, monkeypatch):
    _, campaign = taken(tmp_path, monkeypatch)
    other = dpgen_folder(tmp_path / "yaml")
    for name, content in (("param", PARAM), ("machine", MACHINE)):
        (other / f"{name}.json").unlink()
        (other / f"{name}.yaml").write_text(yaml.safe_dump(content))
    done = in_process("import-dpgen", "yaml", "--to", "yaml/../my2.yaml", "--reference", "emt", "--declare", EMT)
    assert done.returncode == 0, done.stderr
    again = load_campaign(tmp_path / "my2.yaml")
    assert (again.explore.stages, again.select, again.train) == (
        *(campaign.explore.stages, campaign.select),
        campaign.train,
    )


def test_what_is_there_is_not_overwritten(tmp_path, monkeypatch):
    taken(tmp_path, monkeypatch)
    done = in_process("import-dpgen", "old", "--to", "my.yaml", "--reference", "emt", "--declare", EMT)
    assert done.returncode == 2
    assert "my.yaml: exists - expected a new name" in done.stderr


def test_the_report_tells_each_key_with_its_reason(tmp_path, monkeypatch):
    taken(tmp_path, monkeypatch, fp_task_maximum=5)
    text = (tmp_path / "my-dpgen" / "report.md").read_text()
    assert "| `fp_task_max` | changed | select.max_frames | limit of labelled frames per iteration" in text
    assert "| `fp_task_maximum` | left out |  | not a known key of DP-GEN 0.10 to 0.14" in text
    assert "| `model_devi_skip` | left out |  | asks for nothing |" in text
    assert "`default_training_param.model.descriptor._comment`" in text
    keys = {key for key, _ in dpgen.told.leaves(json.loads((tmp_path / "old" / "param.json").read_text()))}
    assert [key for key in keys if f"`{key}`" not in text] == []


def test_labels_of_the_reference_itself_have_its_own_fingerprint(tmp_path, monkeypatch):
    _, campaign = taken(tmp_path, monkeypatch, "--reference", "emt", "--same")
    assert campaign.initial.from_ledger is True
    ledger = Ledger(tmp_path / "my-dpgen" / "labels")
    ledger.refresh()
    (identity,) = ledger.references().values()
    assert identity["calculator"] == "ase.calculators.emt:EMT"
    assert check(campaign, HERE, tmp_path / "runs" / "my").problems == []


def test_a_reference_may_be_a_yaml_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = {
        "calculator": "ase.calculators.emt:EMT",
        "package": "ase",
        "functional": "none",
        "includes_dispersion": False,
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"reference": own, "max_force": 30.0}))
    dpgen_folder(tmp_path / "old")
    done = in_process("import-dpgen", "old", "--reference", "mine.yaml", "--declare", EMT)
    assert done.returncode == 0, done.stderr
    label = load_campaign(tmp_path / "my.yaml").label
    assert (label.reference.calculator, label.max_force) == ("ase.calculators.emt:EMT", 30.0)
    assert label.ledger == str(tmp_path / "my-dpgen" / "labels")


def test_only_jobs_that_are_not_done_become_stages_if_that_is_asked_for(tmp_path, monkeypatch):
    options = ("--reference", "emt", "--declare", EMT, "--remaining")
    _, campaign = taken(tmp_path, monkeypatch, *options)
    assert [stage.name for stage in campaign.explore.stages] == ["job-01", "job-02"]


# --- single keys ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_devi_engine": "gromacs"}, "model_devi_engine: other than lammps"),
        ({"use_relative": True, "epsilon": 1.0}, "use_relative: deviations relative to the force"),
        ({"model_devi_nopbc": True}, "model_devi_nopbc: all structures are periodic"),
        ({"use_ele_temp": 1}, "use_ele_temp: networks with an electron temperature have no counterpart"),
        (
            {"lmp_d3": {"enable": True, "functional": "pbe"}},
            "lmp_d3.enable: walks with dispersion on top of the models",
        ),
        ({"train_backend": "jax"}, "train_backend: jax has no counterpart"),
        ({"type_map": ["HW"]}, "type_map: HW - expected chemical elements"),
        ({"default_training_param__loss__type": "tensor"}, "default_training_param.loss.type: tensor - expected ener"),
        ({"default_training_param__training__numb_steps": None}, "no numb_steps in its training"),
        ({"model_devi_jobs": [{"sys_idx": [0], "trj_freq": 2, "template": {"plm": "in"}}]}, "no job is left"),
        ({"init_data_sys": ["gone"], "sys_configs": [["gone"], ["gone"]]}, None),
    ],
    ids=lambda one: next(iter(one)) if isinstance(one, dict) else "",
)
def test_what_cannot_be_expressed_is_refused_with_where_and_why(tmp_path, monkeypatch, changes, said):
    if said is None:  # three labels of the iteration are left, so walks begin at them
        _, campaign = taken(tmp_path, monkeypatch, **changes)
        assert {stage.start for stage in campaign.explore.stages} == {"dataset"}
        return
    found = refused(tmp_path, monkeypatch, **changes)
    assert said in found
    assert "param.json" in found


@pytest.mark.parametrize(
    "changes",
    [
        {"model_devi_jobs": [{"sys_idx": 0}]},
        {"model_devi_jobs": "all"},
        {"numb_models": "four"},
        {"default_training_param": 3},
        {"sys_configs": 7},
        {"init_data_sys": 5},
        {"model_devi_f_trust_lo": "low"},
        {"default_training_param__model": {"descriptor": {"type": "no_such"}, "fitting_net": {}}},
        {"default_training_param__model__descriptor__rcut": -4.0},
        {"fp_task_max": [5]},
    ],
    ids=str,
)
def test_an_input_that_dpgen_would_not_take_is_refused_in_a_sentence(tmp_path, monkeypatch, changes):
    said = refused(tmp_path, monkeypatch, **changes)
    assert said.startswith("error: ")
    assert "param.json" in said
    assert "Traceback" not in said
    assert ".activelearn-" not in said


@pytest.mark.parametrize("machine", [{"train": 5}, {"train": {"machine": 1}}, {"fp": [{"resources": "x"}]}], ids=str)
def test_a_machine_that_dpgen_would_not_take_is_no_traceback(tmp_path, monkeypatch, machine):
    monkeypatch.chdir(tmp_path)
    dpgen_folder(tmp_path / "old", machine=machine)
    done = in_process("import-dpgen", "old", "--reference", "emt", "--declare", EMT)
    assert done.returncode in {0, 2}
    assert "Traceback" not in done.stderr


def test_a_list_of_different_networks_is_refused_and_one_of_equal_ones_is_not(tmp_path, monkeypatch):
    block = PARAM["default_training_param"]
    other = changed(block, model__descriptor__rcut=5.0)
    assert "a list of different networks" in refused(tmp_path, monkeypatch, default_training_param=[block, other])
    seeds = [changed(block, model__descriptor__seed=k) for k in range(2)]
    _, campaign = taken(tmp_path / "again", monkeypatch, default_training_param=seeds)
    assert campaign.train.model["descriptor"]["rcut"] == 4.0


def test_windows_by_system_and_job_are_those_of_stages(tmp_path, monkeypatch):
    job = PARAM["model_devi_jobs"][0]
    jobs = [{**job, "sys_idx": [0, 1]}, {**job, "model_devi_f_trust_hi": 0.4}]
    _, campaign = taken(
        *(tmp_path, monkeypatch),
        model_devi_f_trust_lo={"0": 0.1, "1": 0.05},
        model_devi_f_trust_hi=[0.2, 0.3],
        model_devi_jobs=jobs,
    )
    assert (campaign.select.f_lo, campaign.select.f_hi) == (0.05, 0.4)
    found = [(stage.name, stage.systems, stage.f_lo, stage.f_hi) for stage in campaign.explore.stages]
    assert found == [("job-00-a", (0, 1), 0.1, 0.2), ("job-00-b", (2,), 0.05, 0.3), ("job-01", (0, 1), 0.1, 0.4)]
    assert check(campaign, HERE, tmp_path / "runs" / "my").problems == []


def test_a_job_that_cannot_be_a_stage_is_left_out_and_told(tmp_path, monkeypatch):
    job = PARAM["model_devi_jobs"][0]
    jobs = [job, {**job, "nbeads": 4}, {**job, "ensemble": "nph"}, {**job, "nsteps": 50, "template": {"lmp": "in"}}]
    said, campaign = taken(tmp_path, monkeypatch, model_devi_jobs=jobs)
    assert [stage.name for stage in campaign.explore.stages] == ["job-00"]
    assert "model_devi_jobs 1 left out: nbeads has no counterpart" in said
    assert "model_devi_jobs 2 left out: ensemble nph - expected one of" in said
    assert "model_devi_jobs 3 left out: no template" in said


TEMPLATE = """variable NSTEPS equal V_NSTEPS
variable TEMP equal V_TEMP
units metal
boundary p p p
atom_style atomic
box tilt large
if "${restart} > 0" then "read_restart dpgen.restart.*" else "read_data conf.lmp"
mass 1 63.5
pair_style deepmd
pair_coeff * *
if "${restart} == 0" then "velocity all create ${TEMP} 256788"
fix 1 all V_ENS
LINES
timestep 0.001  # ps
thermo 10
dump dpgen_dump
run ${NSTEPS} upto
"""


def of_template(tmp_path, monkeypatch, values, lines=""):
    """Import a folder whose only job is of a template; return what was printed and the stages."""
    job = {"sys_idx": [0], "trj_freq": 5, "template": {"lmp": "in.lmp"}, "rev_mat": {"lmp": values}}
    folder = dpgen_folder(tmp_path / "old", model_devi_jobs=[PARAM["model_devi_jobs"][0], job])
    (folder / "in.lmp").write_text(TEMPLATE.replace("LINES", lines))
    monkeypatch.chdir(tmp_path)
    done = in_process("import-dpgen", "old", "--reference", "emt", "--declare", EMT)
    assert done.returncode == 0, done.stderr
    return done.stdout, load_campaign(tmp_path / "my.yaml").explore.stages[1:]


def test_a_plain_template_becomes_stages_for_all_its_values(tmp_path, monkeypatch):
    ensembles = ["nvt temp V_TEMP V_TEMP 0.1", "npt temp V_TEMP V_TEMP 0.1 tri 0 0 1"]
    values = {"V_ENS": ensembles, "V_TEMP": [150, 300], "V_NSTEPS": [100]}
    _, (first, second) = of_template(tmp_path, monkeypatch, values)
    assert (first.name, first.ensemble, first.temperatures_K) == ("job-01-a", "nvt", (150.0, 300.0))
    assert (second.name, second.ensemble, second.pressures_bar) == ("job-01-b", "npt-tri", (0.0,))
    assert (first.n_steps, first.every, first.timestep_fs, second.pressure_damping_ps) == (100, 5, 1.0, 1.0)
    assert first.lammps == ""


def test_a_template_that_heats_becomes_a_ramp_and_its_other_fixes_lines(tmp_path, monkeypatch):
    values = {"V_ENS": ["nvt temp V_TEMP 900 0.1"], "V_TEMP": [100, 300], "V_NSTEPS": [100]}
    _, (stage,) = of_template(tmp_path, monkeypatch, values, "fix still all momentum 10 linear 1 1 1")
    assert (stage.ramps_K, stage.lammps) == (((100.0, 900.0), (300.0, 900.0)), "fix still all momentum 10 linear 1 1 1")


def test_a_template_with_an_integrator_of_its_own_is_custom(tmp_path, monkeypatch):
    values = {"V_ENS": ["nve"], "V_TEMP": [300], "V_NSTEPS": [100]}
    _, (stage,) = of_template(tmp_path, monkeypatch, values, "fix heat all langevin 300 300 0.1 48279")
    assert (stage.ensemble, stage.temperatures_K) == ("custom", (300.0,))
    assert stage.lammps == "fix 1 all nve\nfix heat all langevin 300 300 0.1 48279"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("fix mc all atom/swap 1 1 29494 300 types 1 2", "lines that no stage may have"),
        ("minimize 0 1e-3 100 100", "'minimize 0 1e-3 100 100', which no stage supports"),
        ("run 50", "which no stage supports"),
        ("pair_style hybrid/overlay deepmd zbl 1 2", "expected pair_style deepmd, since DP-GEN puts its models there"),
        ("change_box all x scale 1.1", "change_box all x scale 1.1 - expected change_box all triclinic"),
        ('if "${TEMP} > 10" then "fix 9 all nve"', "which no stage supports"),
    ],
)
def test_a_template_that_does_more_is_left_out_and_told_why(tmp_path, monkeypatch, lines, said):
    values = {"V_ENS": ["nvt temp V_TEMP V_TEMP 0.1"], "V_TEMP": [300], "V_NSTEPS": [100]}
    printed, stages_left = of_template(tmp_path, monkeypatch, values, lines)
    assert stages_left == ()
    (line,) = (
        line for line in printed.splitlines() if line.startswith("model_devi_jobs 1 left out: its template in.lmp")
    )
    assert said in line


@pytest.mark.parametrize(("mass", "lines"), [("2.014", "mass 1 2.014"), ("63.5", "")])
def test_masses_of_a_template_count_and_not_mass_map(tmp_path, monkeypatch, mass, lines):
    values = {"V_ENS": ["nvt temp V_TEMP V_TEMP 0.1"], "V_TEMP": [300], "V_NSTEPS": [100]}
    job = {"sys_idx": [0], "trj_freq": 5, "template": {"lmp": "in.lmp"}, "rev_mat": {"lmp": values}}
    folder = dpgen_folder(tmp_path / "old", model_devi_jobs=[job], mass_map=[70.0])
    (folder / "in.lmp").write_text(TEMPLATE.replace("LINES", "").replace("mass 1 63.5", f"mass 1 {mass}"))
    monkeypatch.chdir(tmp_path)
    done = in_process("import-dpgen", "old", "--reference", "emt", "--declare", EMT)
    assert done.returncode == 0, done.stderr
    assert [stage.lammps for stage in load_campaign(tmp_path / "my.yaml").explore.stages] == [lines]


def test_more_windows_than_letters_are_stages_with_numbers(tmp_path, monkeypatch):
    n = 30
    lower = {str(k): round(0.1 + 0.001 * k, 3) for k in range(n)}
    job = {**PARAM["model_devi_jobs"][0], "sys_idx": [f"0:{n}"]}
    changes = {"model_devi_f_trust_lo": lower, "sys_configs": [["POSCAR-10"]] * n, "model_devi_jobs": [job]}
    _, campaign = taken(tmp_path, monkeypatch, **changes)
    assert [stage.name for stage in campaign.explore.stages] == [f"job-00-{k:03d}" for k in range(n)]
    assert campaign.explore.stages[-1].f_lo == lower["29"]


def test_a_batch_of_atoms_is_that_of_dpgen(tmp_path, monkeypatch):
    _, campaign = taken(tmp_path, monkeypatch, init_batch_size="auto:64", sys_batch_size=["auto:64", "auto:64"])
    assert campaign.train.batch_size == "auto:64"


def test_nve_and_isotopes_become_lines_of_lammps_that_check_tries(tmp_path, monkeypatch):
    job = {**PARAM["model_devi_jobs"][0], "ensemble": "nve"}
    _, campaign = taken(tmp_path, monkeypatch, model_devi_jobs=[job], mass_map=[70.0])
    (stage,) = campaign.explore.stages
    assert (stage.ensemble, stage.lammps) == ("custom", "mass 1 70\nfix md all nve")
    assert stages.mass_lines({"type_map": ["H", "C", "O"], "mass_map": [2, 12, 16]}) == ["mass 1 2"]


def test_jobs_that_ask_for_the_same_of_other_systems_become_one_stage(tmp_path, monkeypatch):
    job = PARAM["model_devi_jobs"][0]
    jobs = [job, {**job, "sys_idx": [1]}, {**job, "nsteps": 40}, job]
    _, campaign = taken(tmp_path, monkeypatch, model_devi_jobs=jobs)
    first, second, third = campaign.explore.stages
    assert (first.name, first.systems, first.n_steps) == ("job-00-to-01", (0, 1, 2), 20)
    assert (second.name, second.n_steps) == ("job-02", 40)
    assert (third.name, third.systems) == ("job-03", (0, 1))


def test_the_training_block_is_taken_as_it_is(tmp_path, monkeypatch):
    reuse = {"training_reuse_iter": 1, "training_reuse_stop_batch": 40, "training_reuse_start_lr": 0.002}
    _, campaign = taken(tmp_path, monkeypatch, **reuse, dp_compress=True, init_batch_size=[2], sys_batch_size=[2, 2])
    train = campaign.train
    block = PARAM["default_training_param"]["model"]
    assert train.model["descriptor"] == {
        key: value for key, value in block["descriptor"].items() if key not in {"seed", "_comment"}
    }
    assert (train.warm_start, train.warm_n_steps, train.learning_rate.warm_start) == (True, 40, 0.002)
    assert (train.learning_rate.start, train.learning_rate.stop) == (0.01, 1.0e-4)
    assert (train.prefactors.energy, train.prefactors.force) == ((0.02, 1.0), (1000.0, 50.0))
    assert (train.compress, train.batch_size) == ("always", 2)


def test_a_decay_rate_says_where_the_learning_rate_ends():
    report = DpgenReport()
    rate = {"start_lr": 1.0e-3, "decay_rate": 0.95, "decay_steps": 5000}
    assert training._learning_rate(rate, 400_000, report)["stop"] == pytest.approx(1.0e-3 * 0.95**80, rel=1.0e-5)
    assert training._learning_rate({"start_lr": 1.0e-3}, 400_000, report)["stop"] == 1.0e-8
    assert report.refused == []


def test_ranges_of_systems_are_read_as_dpgen_reads_them():
    assert stages.expanded([0, "2:5", "5:10:2"]) == (0, 2, 3, 4, 5, 7, 9)


def test_the_last_ensemble_is_where_the_first_training_begins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = dpgen_folder(tmp_path / "old")
    for k in range(2):
        member = folder / "iter.000001" / "00.train" / f"{k:03d}"
        member.mkdir(parents=True)
        (member / "frozen_model.pb").write_bytes(b"a model %d" % k)
        (member / "frozen_model_compressed.pb").write_bytes(b"tables")
        (member.parent / f"graph.{k:03d}.pb").symlink_to(f"{k:03d}/frozen_model_compressed.pb")
    done = in_process("import-dpgen", "old", "--reference", "emt", "--declare", EMT)
    assert "the first training starts from the weights of iter.000001 of DP-GEN" in done.stdout
    campaign = load_campaign(tmp_path / "my.yaml")
    assert [Path(name).read_bytes() for name in campaign.train.start_from] == [b"a model 0", b"a model 1"]
    assert check(campaign, HERE, tmp_path / "runs" / "my").problems == []


def test_models_of_a_network_that_counts_its_neighbours_are_no_start(tmp_path, monkeypatch):
    network = changed(PARAM["default_training_param"], model__descriptor__sel="auto")
    monkeypatch.chdir(tmp_path)
    folder = dpgen_folder(tmp_path / "old", default_training_param=network)
    (folder / "iter.000000" / "00.train").mkdir()
    for k in range(2):
        (folder / "iter.000000" / "00.train" / f"graph.{k:03d}.pb").write_bytes(b"a model")
    done = in_process("import-dpgen", "old", "--reference", "emt", "--declare", EMT)
    assert "the last ensemble is not used as a start: its network has an automatic sel" in done.stdout
    assert load_campaign(tmp_path / "my.yaml").train.start_from is None


# --- labels -----------------------------------------------------------------------------------------------------------


def test_labels_of_single_precision_are_read_from_the_text_beside_them(tmp_path):
    frames = rattled_copper(2, random_seed=3)
    write_system(tmp_path / "double", frames)
    write_system(tmp_path / "single", frames, np.float32)
    for name in ("double", "single"):
        reads = [*read_deepmd(tmp_path / name)]
        energies = np.array([one.frame.label("energy")[0] for one in reads])
        assert np.array_equal(energies, frames.label("energy")), name
    (tmp_path / "single" / "coord.raw").write_text("0 0 0\n")  # of another number of frames: what it is nobody knows
    (first, _) = read_deepmd(tmp_path / "single")
    assert first.frame.label("energy")[0] == np.float32(frames.label("energy")[0])


def test_outputs_that_dpgen_had_not_gathered_are_labels_too(tmp_path, monkeypatch):
    folder = dpgen_folder(tmp_path / "old")
    fp = folder / "iter.000001" / "02.fp"
    import dpdata

    for k, name in enumerate(("task.000.000000", "task.000.000001")):
        atoms = rattled_copper(1, random_seed=40 + k, repeat=(2, 2, 2)).to_ase()[0]
        (fp / name).mkdir(parents=True)
        dpdata.LabeledSystem(atoms, fmt="ase/structure").to("deepmd/hdf5", str(fp / name / "out.hdf5"))
    (fp / "task.000.000002").mkdir()
    (fp / "task.000.000002" / "out.hdf5").write_bytes(b"cut short")
    monkeypatch.chdir(tmp_path)
    done = in_process("import-dpgen", "old", "--reference", "emt", "--declare", EMT)
    assert done.returncode == 0, done.stderr
    assert "11 labels of EMT (none) taken from 6 places" in done.stdout
    assert "2 of them from outputs that DP-GEN had not collected" in done.stdout
    assert "not read: " in done.stdout


def test_each_iteration_and_system_is_a_trajectory_of_its_own(tmp_path, monkeypatch):
    """All iterations have a data.000: under one name none of them could ever be held out."""
    monkeypatch.chdir(tmp_path)
    folder = dpgen_folder(tmp_path / "old")
    write_system(folder / "iter.000001" / "02.fp" / "data.000", rattled_copper(3, random_seed=8, repeat=(2, 2, 2)))
    assert in_process("import-dpgen", "old", "--reference", "emt", "--declare", EMT).returncode == 0
    ledger = Ledger(tmp_path / "my-dpgen" / "labels")
    ledger.refresh()
    walks = {entry.walk for entry in ledger.entries()}
    assert walks == {
        *(f"import-data/init/walk-{k}/000-Cu4" for k in range(2)),
        *(f"import-iter.00000{k}/02.fp/data.000" for k in range(2)),
    }


def test_systems_without_names_of_elements_have_those_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = dpgen_folder(tmp_path / "old")
    for path in folder.rglob("type_map.raw"):
        path.unlink()
    done = in_process("import-dpgen", "old", "--reference", "emt", "--declare", EMT)
    assert "9 labels of EMT" in done.stdout


def test_a_folder_without_labels_has_initial_data_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = dpgen_folder(tmp_path / "old", init_data_sys=[])
    for path in sorted((folder / "iter.000000").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    done = in_process("import-dpgen", "old", "--reference", "emt", "--declare", EMT)
    assert done.returncode == 0, done.stderr
    campaign = load_campaign(tmp_path / "my.yaml")
    assert (len(campaign.initial.systems), campaign.initial.from_ledger) == (3, False)
    assert check(campaign, HERE, tmp_path / "runs" / "my").problems == []


def test_cells_lower_than_the_cutoff_lower_the_bound(tmp_path, monkeypatch):
    network = changed(PARAM["default_training_param"], model__descriptor__rcut=8.0)
    _, campaign = taken(tmp_path, monkeypatch, default_training_param=network)
    assert campaign.initial.min_height_A == pytest.approx(7.0, abs=0.4)


# --- VASP -------------------------------------------------------------------------------------------------------------

INCAR = """SYSTEM = bulk   # a name
PREC = A ; ENCUT = 520
EDIFF = 1D-6
ISMEAR = 0
SIGMA = 0.03
GGA = PE
IVDW = 11
LWAVE = .FALSE.
KSPACING = 0.16
KGAMMA = .TRUE.
NSW = 0
IBRION = -1
MAGMOM = 4*0.6
"""


@pytest.fixture
def vasp(tmp_path, monkeypatch):
    """A folder of a VASP run; POTCARs with a title alone."""
    monkeypatch.chdir(tmp_path)
    machine = changed(MACHINE, fp__command="mpirun -n 16 vasp_std || :")
    keys = {"fp_style": "vasp", "fp_params": None, "fp_incar": "INCAR", "fp_pp_path": ".", "fp_pp_files": ["POTCAR_Cu"]}
    folder = dpgen_folder(tmp_path / "old", machine=machine, **keys)
    (folder / "INCAR").write_text(INCAR)
    (folder / "POTCAR_Cu").write_text("   TITEL  = PAW_PBE Cu 22Jun2005\n")
    return folder


def test_a_vasp_run_says_by_itself_what_labelled_and_what_labels(vasp, tmp_path):
    task = vasp / "iter.000000" / "02.fp" / "task.000.000000"
    task.mkdir()
    (task / "OUTCAR").write_text(" vasp.5.4.4.18Apr17-6-g9f103f2a35 (build Jan 1 2020) complex\n")
    done = in_process("import-dpgen", "old")
    assert done.returncode == 0, done.stderr
    assert "functional=PBE,includes_dispersion=true,code=VASP-5.4.4" in done.stdout
    campaign = load_campaign(tmp_path / "my.yaml")
    reference = campaign.label.reference
    assert (reference.engine, reference.command, reference.functional) == ("vasp", "mpirun -n 16 vasp_std", "PBE")
    assert (reference.d3.method, reference.includes_dispersion) == ("PBE", False)
    settings = reference.model_extra["vasp"]
    assert settings.incar == {
        "PREC": "A",
        "ENCUT": 520,
        "EDIFF": 1.0e-6,
        "ISMEAR": 0,
        "SIGMA": 0.03,
        "KSPACING": 0.16,
        "KGAMMA": True,
        "MAGMOM": "4*0.6",
    }
    assert settings.version == "5.4.4"
    assert (tmp_path / "my-dpgen" / "potcars" / "Cu" / "POTCAR").resolve() == vasp / "POTCAR_Cu"
    problems = check(campaign, HERE, tmp_path / "runs" / "my").problems
    assert [one for one in problems if "vasp_std" not in one and "mpirun" not in one and "custodian" not in one] == []


def test_a_vasp_run_without_an_output_wants_its_version(vasp):
    done = in_process("import-dpgen", "old")
    assert done.returncode == 2
    assert "no OUTCAR with a version, and a label needs its reference - expected --declare" in done.stderr
    done = in_process("import-dpgen", "old", "--declare", "functional=PBE,includes_dispersion=true,code=VASP-6.4.2")
    assert done.returncode == 0, done.stderr


def test_vasps_own_defaults_are_written_out_where_ours_are_others(vasp, tmp_path):
    (vasp / "INCAR").write_text("ENCUT = 400\nKSPACING = 0.2\n")
    done = in_process("import-dpgen", "old", "--declare", "functional=PBE,includes_dispersion=false,code=VASP-6.4.2")
    assert done.returncode == 0, done.stderr
    tags = load_campaign(tmp_path / "my.yaml").label.reference.model_extra["vasp"].incar
    assert (tags["EDIFF"], tags["ISMEAR"], tags["SIGMA"]) == (1.0e-4, 1, 0.2)
    assert "EDIFF = 0.0001, ISMEAR = 1, SIGMA = 0.2 written out" in done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ENCUT = 400\nIVDW = 12\n", "IVDW = 12 - expected none, or 11"),
        ("KSPACING = 0.2\n", "no ENCUT, which VASP would take from the POTCARs"),
    ],
)
def test_an_incar_that_cannot_be_expressed_is_refused(vasp, text, said):
    (vasp / "INCAR").write_text(text)
    done = in_process("import-dpgen", "old", "--declare", "functional=PBE,includes_dispersion=false,code=VASP-6.4.2")
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    ("tags", "functional"),
    [
        ({}, "PBE"),
        ({"GGA": "PS"}, "PBEsol"),
        ({"METAGGA": "R2SCAN"}, "r2SCAN"),
        ({"LHFCALC": True, "HFSCREEN": 0.2}, "HSE06"),
        ({"LHFCALC": True}, "PBE0"),
        ({"LDAU": True}, "PBE+U"),
    ],
)
def test_the_functional_follows_from_the_tags(tags, functional):
    assert Incar(tags).functional == functional


def test_other_codes_want_their_reference_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dpgen_folder(tmp_path / "old", fp_style="siesta", fp_params={"ecut": 300, "ediff": 1e-4})
    done = in_process("import-dpgen", "old")
    assert done.returncode == 2
    assert "fp_style: fp_style siesta does not determine its functional" in done.stderr
    assert "fp_style: siesta is not supported - expected a reference for new labels" in done.stderr


# --- machines ---------------------------------------------------------------------------------------------------------

SLURM = {
    "batch_type": "Slurm",
    "context_type": "SSHContext",
    "local_root": "./",
    "remote_root": "/scratch/me",
    "remote_profile": {"hostname": "cluster", "username": "me", "password": "hunter2"},
}
RESOURCES = {
    "number_node": 1,
    "cpu_per_node": 8,
    "gpu_per_node": 2,
    "queue_name": "gpu",
    "group_size": 4,
    "para_deg": 2,
    "custom_flags": ["#SBATCH --time=96:0:0", "#SBATCH --mem=40G", "#SBATCH -A chem", "#SBATCH --exclusive"],
    "source_list": ["/opt/deepmd/env.sh"],
    "module_list": ["cuda/12.2"],
    "envs": {"KMP_BLOCKTIME": 0, "PATH": "/opt/vasp/bin:$PATH", "API_TOKEN": "hunter2"},
}


def machines_of(**changes):
    kinds = {kind: {"command": "lmp -i input.lammps -v restart 0", "machine": SLURM, "resources": RESOURCES} for kind in
             ("train", "model_devi", "fp")}  # fmt: skip
    return changed({"api_version": "1.0", **kinds}, **changes)


def test_a_slurm_machine_becomes_a_profile_of_three_places(tmp_path, monkeypatch):
    said, _ = taken(tmp_path, monkeypatch, machine=machines_of(train__command="dp"))
    profile = load_machine(str(tmp_path / "my-dpgen" / "machine.yaml"))
    place = profile.places["model_devi"]
    assert (place.queue.partition, place.queue.walltime, place.queue.memory_GB) == ("gpu", "4-00:00:00", 40.0)
    assert (place.queue.account, place.queue.gres, place.queue.cpus_per_task) == ("chem", "gpu:2", 8)
    assert (place.gpus, place.slots, place.lammps) == ((0, 1), 2, None)
    assert place.setup == ("module load cuda/12.2", "source /opt/deepmd/env.sh", 'export PATH="/opt/vasp/bin:$PATH"')
    assert place.environment == {"KMP_BLOCKTIME": "0"}
    assert {profile.place_name(s) for s in ("train", "final")} == {"train"}
    assert (profile.place_name("explore"), profile.place_name("label")) == ("model_devi", "fp")
    assert "add by hand, if needed: #SBATCH --exclusive" in said
    (line,) = (line for line in said.splitlines() if "looks like a secret" in line)
    assert line.startswith("  left out: train.resources.envs.API_TOKEN, ")


def test_no_password_leaves_the_machine_file(tmp_path, monkeypatch):
    said, _ = taken(tmp_path, monkeypatch, machine=machines_of())
    written = [path.read_bytes() for path in (tmp_path / "my-dpgen").rglob("*") if path.is_file()]
    assert "hunter2" not in said
    assert not any(b"hunter2" in content for content in written)


@pytest.mark.parametrize(
    ("batch", "flag", "walltime"),
    [("LSF", "#BSUB -W 12:00", "12:00:00"), ("PBS", "#PBS -l walltime=10:00:00", "10:00:00")],
)
def test_pbs_and_lsf_have_the_words_of_their_queues(tmp_path, monkeypatch, batch, flag, walltime):
    machine = {"batch_type": batch, "context_type": "LocalContext", "local_root": "./"}
    kinds = {f"{kind}__machine": machine for kind in ("train", "model_devi", "fp")}
    flags = {f"{kind}__resources__custom_flags": [flag] for kind in ("train", "model_devi", "fp")}
    said, _ = taken(tmp_path, monkeypatch, machine=machines_of(**kinds, **flags))
    profile = load_machine(str(tmp_path / "my-dpgen" / "machine.yaml"))
    assert (profile.places["fp"].queue.system, profile.places["fp"].queue.walltime) == (batch.lower(), walltime)
    assert "the profile has the options of the queue" not in said  # machine --init writes the adapters of both


def test_a_batch_system_without_adapters_says_so(tmp_path, monkeypatch):
    machine = {"batch_type": "SGE", "context_type": "LocalContext", "local_root": "./"}
    kinds = {f"{kind}__machine": machine for kind in ("train", "model_devi", "fp")}
    said, _ = taken(tmp_path, monkeypatch, machine=machines_of(**kinds))
    assert "batch_type sge: the profile has the options of the queue" in said


def test_a_shell_becomes_a_profile_without_a_queue(tmp_path, monkeypatch):
    taken(tmp_path, monkeypatch, machine=changed(MACHINE, train__resources__para_deg=4))
    profile = load_machine(str(tmp_path / "my-dpgen" / "machine.yaml"))
    assert (profile.at("train").n_slots, profile.at("explore").n_slots) == (4, 1)


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (machines_of(fp__machine={"batch_type": "Bohrium"}), "batch_type bohrium of fp has no counterpart"),
        ({"train_machine": {"machine_type": "slurm"}, "train_command": "dp"}, "the form of before api_version 1.0"),
        (None, "no machine.json: no machine profile was made"),
    ],
)
def test_where_no_profile_can_be_made_the_campaign_is_there_all_the_same(tmp_path, monkeypatch, machine, said):
    found, _ = taken(tmp_path, monkeypatch, machine=machine)
    assert said in found
    assert not (tmp_path / "my-dpgen" / "machine.yaml").exists()


# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_folder_without_its_input_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"contains no param.json - expected the input of dpgen run"):
        dpgen.read_folder(tmp_path)
    with pytest.raises(ConfigError, match="no such folder"):
        dpgen.read_folder(tmp_path / "gone")
    (tmp_path / "param.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        dpgen.read_folder(tmp_path)


def test_an_input_of_another_name_is_found_if_it_is_the_only_one(tmp_path):
    folder = dpgen_folder(tmp_path / "old")
    (folder / "param.json").rename(folder / "run_param.json")
    assert dpgen.read_folder(folder).param_file.name == "run_param.json"
    (folder / "param2.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"param2.json, run_param.json - expected one param file"):
        dpgen.read_folder(folder)
    assert dpgen.read_folder(folder, "run_param.json").n_done == 1


def test_same_without_a_reference_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dpgen_folder(tmp_path / "old")
    done = in_process("import-dpgen", "old", "--same")
    assert done.returncode == 2
    assert "--same: states that --reference made the labels - expected --reference" in done.stderr


def test_what_labelled_is_in_the_ledger_by_its_name(tmp_path, monkeypatch):
    taken(tmp_path, monkeypatch)
    ledger = Ledger(tmp_path / "my-dpgen" / "labels")
    ledger.refresh()
    (identity,) = ledger.references().values()
    assert exchange.name_of(identity) == "EMT (none)"
    assert row_of(dpgen.told.PARAM, "fp_style") is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"numb_models": 2.5},
        {"fp_task_max": 10.5},
        {"model_devi_jobs": [{**PARAM["model_devi_jobs"][0], "nsteps": 20.5}]},
        {"model_devi_jobs": [{**PARAM["model_devi_jobs"][0], "trj_freq": 1.5}]},
    ],
)
def test_a_fraction_in_place_of_a_whole_number_is_not_cut_off(tmp_path, monkeypatch, changes):
    assert ".5 is not a whole number) - expected an input" in refused(tmp_path, monkeypatch, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fp_task_max": 0}, "select.max_frames: got 0 - expected greater than 0"),
        ({"model_devi_jobs": [{**PARAM["model_devi_jobs"][0], "sys_idx": [-1]}]}, "sys_idx -1 - expected numbers of"),
        ({"model_devi_jobs": [{**PARAM["model_devi_jobs"][0], "sys_idx": ["-2:0"]}]}, "sys_idx -2 - expected numbers"),
    ],
)
def test_a_number_that_would_mean_something_else_here_is_refused(tmp_path, monkeypatch, changes, said):
    assert said in refused(tmp_path, monkeypatch, **changes)


@pytest.mark.timeout(60)
def test_models_are_not_looked_for_beyond_the_first_that_is_missing(tmp_path, monkeypatch):
    said, _ = taken(tmp_path, monkeypatch, numb_models=10**9)
    assert "no 1000000000 frozen models" in said


def test_a_key_that_is_written_twice_is_refused_and_a_byte_order_mark_is_not(tmp_path, monkeypatch):
    taken(tmp_path, monkeypatch)
    file = tmp_path / "old" / "param.json"
    text = file.read_text()
    words = ("--reference", "emt", "--declare", EMT)
    file.write_text(text, encoding="utf-8-sig")
    assert in_process("import-dpgen", "old", "--to", "bom.yaml", *words).returncode == 0
    file.write_text(text.replace('"numb_models": 2', '"numb_models": 2, "numb_models": 4'))
    done = in_process("import-dpgen", "old", "--to", "twice.yaml", *words)
    assert done.returncode == 2
    assert "param.json: cannot be read as JSON (numb_models is written twice) - expected an input" in done.stderr
    assert not (tmp_path / "twice.yaml").exists()
