"""Small inputs of each kind that DP-GEN's examples have: each comes over, or is refused with the key and the reason."""

import pytest
from campaigns import in_process
from conftest import rattled_copper
from dpgen_folder import EMT, PARAM, dpgen_folder, write_system

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
