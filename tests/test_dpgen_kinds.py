"""Small inputs of each kind that DP-GEN's examples have: each comes over, or is refused with the key and the reason."""

import contextlib
import shutil
import tarfile

import pytest
from campaigns import in_process
from conftest import rattled_copper
from dpgen_folder import EMT, PARAM, dpgen_folder, write_system

from activelearn import trees
from activelearn.check import check
from activelearn.config import Machine, load_campaign
from activelearn.exchange.deepmd_npy import read_deepmd
from activelearn.exchange.dpgen.given import leaves
from activelearn.exchange.dpgen.param_keys import PARAM as TABLE
from activelearn.exchange.dpgen.told import row_of

HERE = Machine(name="test", slots=2, min_free_disk_GB=0.0)
JOB = PARAM["model_devi_jobs"][0]
OLD_JOB = {"sys_idx": [0], "Ts": [50], "Ps": [1.0], "t_freq": 2, "nsteps": 20, "ens": "npt", "s_t": True, "_idx": "00"}
#: By kind: changes of param.json, and what is said where it is refused (None: it comes over).
KINDS = {
    "vasp by INCAR": (
        {"fp_style": "vasp", "fp_params": None, "fp_pp_path": ".", "fp_pp_files": ["POTCAR"], "fp_incar": "INCAR"},
        None,
    ),
    "vasp of DP-GEN 0.x": (
        {
            "fp_style": "vasp",
            "fp_params": {"ecut": 600, "ediff": 1e-6, "kspacing": 0.16, "user_vasp_params": {"NPAR": 4}},
        },
        None,
    ),
    "keys of before 0.10": ({"model_devi_jobs": [OLD_JOB], "model_devi_taut": 0.2, "model_devi_neidelay": 10}, None),
    "pwscf": ({"fp_style": "pwscf", "user_fp_params": {"system": {"ecutwfc": 110}, "kspacing": 0.2}}, None),
    "cp2k": ({"fp_style": "cp2k", "user_fp_params": {"FORCE_EVAL": {"SUBSYS": {"KIND": {"_": ["Cu"]}}}}}, None),
    "cp2k by an input": ({"fp_style": "cp2k", "external_input_path": "template.inp"}, None),
    "abacus": (
        {"fp_style": "abacus", "fp_incar": "INPUT", "fp_orb_files": ["Cu.orb"], "k_points": [1, 1, 1, 0, 0, 0]},
        None,
    ),
    "siesta": ({"fp_style": "siesta", "fp_params": {"ecut": 300, "mixingWeight": 0.05, "NumberPulay": 5}}, None),
    "pwmat": ({"fp_style": "pwmat", "fp_params": {"in.atom": "atom.config", "ecut": 60, "e_error": 1e-4}}, None),
    "custom": ({}, None),
    "systems of LAMMPS": ({"sys_format": "lammps/lmp"}, None),
    "a warm ensemble": (
        {"training_init_model": True, "training_reuse_iter": 1, "training_reuse_old_ratio": "auto", "numb_models": 4},
        None,
    ),
    "budgets by accuracy": (
        {"fp_accurate_soft_threshold": 0.8, "fp_accurate_threshold": 0.9, "ratio_failed": 0.2},
        None,
    ),
    "adaptive levels": (
        {"model_devi_adapt_trust_lo": True, "model_devi_numb_candi_f": 20, "model_devi_perc_candi_f": 5.0},
        None,
    ),
    "virials too": ({"model_devi_v_trust_lo": 0.1, "model_devi_v_trust_hi": [0.2, 0.3]}, None),
    "path integrals": ({"model_devi_jobs": [{**JOB, "nbeads": 4}]}, "no job is left that can be a stage"),
    "clusters for gaussian": (
        {
            "fp_style": "gaussian",
            "use_clusters": True,
            "cluster_cutoff": 3.5,
            "fp_params": {"keywords": "force b3lyp/6-31g"},
        },
        "use_clusters: all structures are periodic",
    ),
    "relative deviations": ({"use_relative": True, "epsilon": 1.0}, "use_relative: deviations relative to the force"),
    "electron temperatures": ({"use_ele_temp": 2}, "use_ele_temp: networks with an electron temperature"),
    "gromacs": (
        {"model_devi_engine": "gromacs", "gromacs_settings": {"mdp_filename": "md.mdp"}, "sys_charges": [0, 1]},
        "model_devi_engine: other than lammps",
    ),
    "amber": (
        {
            "model_devi_engine": "amber",
            "fp_style": "amber/diff",
            "parm7": ["a.parm7"],
            "low_level": "MNDOD",
            "r": [[0.4]],
        },
        "model_devi_engine: other than lammps",
    ),
    "calypso": (
        {"model_devi_engine": "calypso", "vsc": False, "model_devi_jobs": [{"times": [0], "NameOfAtoms": ["Cu"]}]},
        "model_devi_engine: other than lammps",
    ),
    "D3 in LAMMPS": (
        {"lmp_d3": {"enable": True, "functional": "pbe", "cutoff": 10.0}},
        "lmp_d3.enable: walks with dispersion",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_of_each_kind_comes_over_or_says_why_not(tmp_path, monkeypatch, kind):
    changes, said = KINDS[kind]
    monkeypatch.chdir(tmp_path)
    folder = dpgen_folder(tmp_path / "old", **changes)
    if changes.get("sys_format") == "lammps/lmp":
        import dpdata

        for path in sorted((folder / "starts").iterdir()):
            dpdata.System(str(path), fmt="vasp/poscar").to("lammps/lmp", str(path))
    done = in_process("import-dpgen", "old", "--reference", "emt", "--declare", EMT)
    if said is not None:
        assert done.returncode == 2
        assert said in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert check(load_campaign(tmp_path / "my.yaml"), HERE, tmp_path / "runs" / "my").problems == []
    assert "not a known key of DP-GEN" not in done.stdout


def test_every_key_of_these_inputs_has_its_row():
    keys = {key for changes, _ in KINDS.values() if changes for key, _ in leaves(changes)}
    assert [key for key in sorted(keys) if row_of(TABLE, key) is None] == []


def test_the_data_of_each_iteration_are_a_trajectory_of_their_own_to_labels_import_too(tmp_path):
    """All of them are called 02.fp/data.000: by folder and name alone they were one."""
    folder = dpgen_folder(tmp_path / "old")
    write_system(folder / "iter.000001" / "02.fp" / "data.000", rattled_copper(2, random_seed=8, repeat=(2, 2, 2)))
    walks = [str(one.frame.origin["walk"][0]) for one in read_deepmd(folder)]
    assert len({walk for walk in walks if walk.startswith("walk-")}) == 2, "elsewhere: its name and its folder's"
    assert walks.count("iter.000000/02.fp/data.000") == 3
    assert walks.count("iter.000001/02.fp/data.000") == 2
    assert not any(str(tmp_path) in walk for walk in walks), "no more of the path"


# --- folders that something happened to ------------------------------------------------------------------------------

ROW = "{step} 1e-3 1e-4 1e-3 {f} 1e-2 5e-2\n"


def _walk(folder, name="task.000.000000"):
    place = folder / "iter.000000" / "01.model_devi" / name
    place.mkdir(parents=True)
    lists = folder / "iter.000000" / "02.fp"
    for word in ("rest_accurate", "rest_failed"):
        (lists / f"{word}.shuffled.000.out").write_text("")
    (lists / "candidate.shuffled.000.out").write_text("iter.000000/01.model_devi/task.000.000000 2\n")
    return place / "model_devi.out"


def _pack(path):
    with tarfile.open(path.with_name(f"{path.name}.tar.gz"), "w:gz") as archive:
        archive.add(path, path.name)
    shutil.rmtree(path)


def _cur_job(folder):
    _walk(folder).write_text(ROW.format(step=2, f=0.2))
    (folder / "iter.000000" / "01.model_devi" / "cur_job.json").write_text("{")


def _list(folder, text):
    _walk(folder).write_text(ROW.format(step=2, f=0.2))
    (folder / "iter.000000" / "02.fp" / "candidate.shuffled.000.out").write_text(text)


def _link(folder):
    for name in ("walk-0", "walk-1"):
        shutil.move(folder / "data" / "init" / name, folder / name)
        (folder / "data" / "init" / name).symlink_to(folder / name)
    (folder / "data" / "init" / "all").symlink_to(folder / "data")


def _output(folder, system):
    """Write the output of a task of a system, as a run with fp_style custom has it."""
    import dpdata

    task = folder / "iter.000000" / "02.fp" / f"task.{system}.000000"
    write_system(folder / "made", rattled_copper(1, random_seed=51, repeat=(2, 2, 2)))
    task.mkdir()
    dpdata.LabeledSystem(str(folder / "made"), fmt="deepmd/npy").to("deepmd/hdf5", str(task / "out.hdf5"))
    shutil.rmtree(folder / "made")


def _half_written(folder):
    data = folder / "iter.000000" / "02.fp" / "data.000"
    shutil.rmtree(data / "set.000")
    (data / "force.raw").unlink()


#: What happened to a folder, and what is said; its nine labels come over all the same, if the last is true.
HURT = {
    "as it is": (lambda f: _walk(f).write_text(ROW.format(step=2, f=0.2)), "frames of 1 of 1 (iteration, system)", 9),
    "a deviation is NaN": (
        lambda f: _walk(f).write_text(ROW.format(step=0, f="nan") + ROW.format(step=2, f=0.2)),
        "iteration 0, system 0: 0 accurate, 1 candidate, 1 failed (DP-GEN's lists: 0 accurate, 1 candidate, 0 failed)",
        9,
    ),
    "a row is cut": (
        lambda f: _walk(f).write_text(ROW.format(step=2, f=0.2) + "4 1e-3 1"),
        "model_devi.out: cannot be read (",
        9,
    ),
    "columns are missing": (
        lambda f: _walk(f).write_text("0 1 2\n"),
        "model_devi.out: has 3 columns - expected step and six deviations",
        9,
    ),
    "a step is NaN": (
        lambda f: _walk(f).write_text(ROW.format(step="nan", f=0.2)),
        "expected step and six deviations",
        9,
    ),
    "a list is cut": (
        lambda f: _list(f, "task.000.0000"),
        "iter.000000, system 000: its frames are not classified again",
        9,
    ),
    "a list has words": (
        lambda f: _list(f, "task x"),
        "iter.000000, system 000: its frames are not classified again",
        9,
    ),
    "cur_job.json is cut": (_cur_job, "iter.000000, system 000: its frames are not classified again", 9),
    "a folder of walks is not DP-GEN's": (
        lambda f: _walk(f, "task.old").write_text(ROW.format(step=2, f=0.2)),
        "9 labels of EMT (none) taken from 3 places",
        9,
    ),
    "iterations are empty": (
        lambda f: [(f / f"iter.{k:06d}").mkdir() for k in (1, 2)],
        "9 labels of EMT (none) taken from 3 places",
        9,
    ),
    "an iteration is packed": (
        lambda f: _pack(f / "iter.000000"),
        "iter.000000.tar.gz: is packed, and labels in it are not taken - unpack it",
        6,
    ),
    "data are packed": (
        lambda f: _pack(f / "iter.000000" / "02.fp" / "data.000"),
        "iter.000000/02.fp/data.000.tar.gz: is packed, and labels in it are not taken - unpack it",
        6,
    ),
    "systems are links": (_link, "9 labels of EMT (none) taken from 3 places", 9),
    "one system was collected": (lambda f: _output(f, "001"), "1 of them from outputs that DP-GEN had not", 10),
    "a collected system has outputs": (lambda f: _output(f, "000"), "9 labels of EMT (none) taken from 3 places", 9),
    "a system was being written": (
        lambda f: (_half_written(f), _output(f, "000")),
        "1 of them from outputs that DP-GEN had not",
        7,
    ),
    "a system was being written, and no output is left": (_half_written, "3 frames not taken: no forces", 6),
    "the record is empty": (lambda f: (f / "record.dpgen").write_text(""), "9 labels of EMT (none) taken", 9),
    "iterations are elsewhere": (
        lambda f: (f / "record.dpgen").write_text("3 8\n"),
        "record.dpgen: iterations 1 to 3 are done, and not all are here",
        9,
    ),
}


@pytest.mark.parametrize("kind", HURT)
def test_what_happened_to_a_folder_is_told_and_costs_no_label(tmp_path, monkeypatch, kind):
    hurt, said, n_labels = HURT[kind]
    monkeypatch.chdir(tmp_path)
    hurt(dpgen_folder(tmp_path / "old"))
    done = in_process("import-dpgen", "old", "--reference", "emt", "--declare", EMT)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    assert f"{n_labels} labels of EMT (none) taken" in done.stdout


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mass_map": [63.5, 16.0]}, "mass_map: expected auto, or one mass per element of type_map"),
        ({"mass_map": "heavy"}, "mass_map: expected auto, or one mass per element of type_map"),
        ({"model_devi_f_trust_lo": [0.1]}, "model_devi_f_trust_lo: none for system 1 - expected one for every system"),
        ({"model_devi_f_trust_hi": {"0": 0.3}}, "model_devi_f_trust_hi: none for system 1"),
        ({"init_data_sys": "init"}, "init_data_sys: 'init' - expected a list"),
        ({"model_devi_jobs": [{**JOB, "temps": 300}]}, "model_devi_jobs.temps: 300 - expected a list"),
        ({"model_devi_jobs": [{**JOB, "ensemble": "npt"}]}, "(model_devi_jobs 0 left out: without press)"),
        ({"default_training_param": {"use_smooth": True, "stop_batch": 9}}, "the flat form of DeePMD-kit 0.x"),
    ],
    ids=str,
)
def test_lists_that_are_too_short_are_refused_by_their_key(tmp_path, monkeypatch, changes, said):
    monkeypatch.chdir(tmp_path)
    dpgen_folder(tmp_path / "old", **changes)
    done = in_process("import-dpgen", "old", "--reference", "emt", "--declare", EMT)
    assert done.returncode == 2
    assert said in done.stderr
    assert "param.json" in done.stderr


@pytest.mark.parametrize("name", ["old [1]", "ol*d ?", "größe 2"])
def test_the_name_of_a_folder_is_no_pattern(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    dpgen_folder(tmp_path / name)
    done = in_process("import-dpgen", name, "--reference", "emt", "--declare", EMT)
    assert done.returncode == 0, done.stderr
    assert [stage.systems for stage in load_campaign(tmp_path / "my.yaml").explore.stages] == [(0, 1), (0, 1, 2)]


def test_labels_import_follows_links_too(tmp_path):
    folder = dpgen_folder(tmp_path / "old")
    n = sum(1 for _ in read_deepmd(folder / "data"))
    _link(folder)
    assert sum(1 for _ in read_deepmd(folder / "data")) == n


def test_an_import_that_was_killed_at_its_end_is_finished_by_the_same_command(tmp_path, monkeypatch):
    """Between the two names, of the folder and of the campaign: without the second nothing could be run."""
    monkeypatch.chdir(tmp_path)
    dpgen_folder(tmp_path / "old")
    rename = trees.rename

    def kill(made, to):
        if to.name == "my.yaml":
            raise KeyboardInterrupt
        return rename(made, to)

    words = ("import-dpgen", "old", "--reference", "emt", "--declare", EMT)
    with monkeypatch.context() as killed, contextlib.suppress(KeyboardInterrupt):
        killed.setattr(trees, "rename", kill)
        in_process(*words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my-dpgen", "old"]
    ledger = {path: path.read_bytes() for path in (tmp_path / "my-dpgen" / "labels").rglob("*") if path.is_file()}
    other = in_process(*words, "--remaining")
    assert other.returncode == 2
    assert "my-dpgen: is of an import with other options or inputs that was killed" in other.stderr
    done = in_process(*words)
    assert done.returncode == 0, done.stderr
    assert check(load_campaign(tmp_path / "my.yaml"), HERE, tmp_path / "runs" / "my").problems == []
    assert {path: path.read_bytes() for path in ledger} == ledger
    again = in_process(*words)
    assert again.returncode == 2
    assert "exists - expected a new name" in again.stderr
