"""The codes of DP-GEN besides VASP: the fp block of pwscf, cp2k and abacus becomes a reference, key by key."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from ase.build import bulk
from ase.units import Hartree, Ry
from campaigns import in_process
from dpgen_folder import MACHINE, changed, dpgen_folder

from activelearn.config import load_campaign
from activelearn.engines import reference
from activelearn.engines.references import abacus, cp2k, espresso
from activelearn.frames import Frames

PSEUDO = Path("/usr/share/espresso/pseudo")
CP2K_DATA = Path("/usr/share/cp2k")

UPF = '<UPF version="2.0.1">\n<PP_HEADER element="Cu" functional="SLA PW PBX PBC" z_valence="11.0"/>\n'
ORBITAL = "Element                     Cu\nEnergy Cutoff(Ry)          100\n"
PW = {
    "control": {
        "calculation": "scf",
        "restart_mode": "from_scratch",
        "outdir": "./OUT",
        "tprnfor": True,
        "verbosity": "high",
    },
    "system": {
        "ecutwfc": 90,
        "ecutrho": 720,
        "occupations": "smearing",
        "smearing": "mv",
        "degauss": 0.01,
        "nosym": True,
        "vdw_corr": "dft-d3",
        "dftd3_version": 3,
        "dftd3_threebody": False,
        "_comment": "of ours",
    },
    "electrons": {"conv_thr": 1.0e-8, "mixing_beta": 0.3, "electron_maxstep": 80, "startingwfc": "atomic"},
    "kspacing": 0.2,
}
PWSCF = {"fp_style": "pwscf", "fp_params": None, "user_fp_params": PW, "fp_pp_path": "pp", "fp_pp_files": ["Cu.UPF"]}
INPUT = {
    "ecutwfc": 100,
    "basis_type": "lcao",
    "kspacing": 0.14,
    "smearing_method": "gauss",
    "smearing_sigma": "0.004",
    "scf_thr": 1.0e-8,
    "scf_nmax": 60,
    "dft_functional": "PBE",
    "gamma_only": 0,
    "mixing_type": "broyden",
    "mixing_beta": 0.4,
    "cal_force": 1,
    "cal_stress": 1,
    "symmetry": 1,
    "ks_solver": "genelpa",
    "nspin": 2,
}
ABACUS = {
    "fp_style": "abacus",
    "fp_params": None,
    "user_fp_params": INPUT,
    "fp_pp_path": "pp",
    "fp_pp_files": ["Cu.UPF"],
    "fp_orb_files": ["Cu.orb"],
}
SECTIONS = {
    "GLOBAL": {"PROJECT": "copper"},
    "FORCE_EVAL": {
        "DFT": {
            "BASIS_SET_FILE_NAME": "/opt/cp2k/data/BASIS_MOLOPT",
            "POTENTIAL_FILE_NAME": "/opt/cp2k/data/GTH_POTENTIALS",
            "MGRID": {"CUTOFF": 500, "NGRIDS": 5},
            "SCF": {
                "EPS_SCF": "1.0E-7",
                "ADDED_MOS": 60,
                "SMEAR": {"_": "ON", "METHOD": "FERMI_DIRAC", "ELECTRONIC_TEMPERATURE": 500},
                "MIXING": {"METHOD": "BROYDEN_MIXING", "ALPHA": 0.3},
            },
            "XC": {
                "XC_FUNCTIONAL": {"_": "PBE"},
                "VDW_POTENTIAL": {
                    "POTENTIAL_TYPE": "PAIR_POTENTIAL",
                    "PAIR_POTENTIAL": {
                        "TYPE": "DFTD3",
                        "PARAMETER_FILE_NAME": "dftd3.dat",
                        "REFERENCE_FUNCTIONAL": "PBE",
                        "R_CUTOFF": 16.0,
                    },
                },
            },
        },
        "SUBSYS": {"KIND": {"_": ["Cu"], "POTENTIAL": ["GTH-PBE-q11"], "BASIS_SET": ["DZVP-MOLOPT-SR-GTH"]}},
    },
}
CP2K = {"fp_style": "cp2k", "fp_params": None, "user_fp_params": SECTIONS}
SAID = {
    "pwscf": "functional=PBE,includes_dispersion=true,code=QE-7.2",
    "cp2k": "functional=PBE,includes_dispersion=true,code=CP2K-2024.1",
    "abacus": "functional=PBE,includes_dispersion=false,code=ABACUS-3.8.0",
}
VERSIONS = {
    "pwscf": ("output", "     Program PWSCF v.7.2 starts on  1Jan2026 at 10: 0: 0\n"),
    "cp2k": ("output", " CP2K| version string:                          CP2K version 2024.1\n"),
    "abacus": ("OUT.ABACUS/running_scf.log", "                              ABACUS v3.8.0\n"),
}


def folder_of(path, block, command="", output=True):
    """Write a folder of DP-GEN whose labels are by a code, with the files that it names and a first output."""
    machine = changed(MACHINE, fp__command=command)
    folder = dpgen_folder(path / "old", machine=machine, **block)
    (folder / "pp").mkdir()
    (folder / "pp" / "Cu.UPF").write_text(UPF)
    (folder / "pp" / "Cu.orb").write_text(ORBITAL)
    if output:
        name, text = VERSIONS[block["fp_style"]]
        said = folder / "iter.000000" / "02.fp" / "task.000.000000" / name
        said.parent.mkdir(parents=True)
        said.write_text(text)
    return folder


def taken(path, monkeypatch, block, *options, **more):
    """Import a folder; return what was printed and the reference."""
    monkeypatch.chdir(path)
    folder_of(path, block, **more)
    done = in_process("import-dpgen", "old", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout, load_campaign(path / "my.yaml").label.reference


def refused(path, monkeypatch, block):
    monkeypatch.chdir(path)
    folder_of(path, block)
    done = in_process("import-dpgen", "old")
    assert done.returncode == 2, done.stdout
    assert sorted(one.name for one in path.iterdir()) == ["old"]
    assert "Traceback" not in done.stderr
    return done.stderr


# --- what is taken ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [PWSCF, CP2K, ABACUS], ids=lambda one: one["fp_style"])
def test_a_run_says_by_itself_what_labelled_and_what_labels(tmp_path, monkeypatch, block):
    said, found = taken(tmp_path, monkeypatch, block)
    style = block["fp_style"]
    assert f"from DP-GEN's files: {SAID[style]}" in said
    assert (found.engine, found.functional) == ({"pwscf": "espresso"}.get(style, style), "PBE")
    assert (found.includes_dispersion, found.d3 is not None) == (False, style != "abacus")
    report = (tmp_path / "my-dpgen" / "report.md").read_text()
    assert "with --reference" not in "".join(line for line in report.splitlines() if "user_fp_params" in line)


def test_the_namelists_of_pwx_are_those_of_our_input(tmp_path, monkeypatch):
    _, found = taken(tmp_path, monkeypatch, PWSCF, command="mpirun -n 8 pw.x -nk 2 < input || :")
    assert found.command == "mpirun -n 8 pw.x -nk 2"
    keys = espresso.keys_of(found)
    theirs = {"ecutwfc": 90, "ecutrho": 720, "degauss": 0.01, "conv_thr": 1.0e-8}
    assert {key: keys[key] for key in theirs} == pytest.approx(theirs, rel=1e-12)
    same = ("occupations", "vdw_corr", "dftd3_version", "dftd3_threebody", "electron_maxstep", "mixing_beta", "nosym")
    assert [keys[key] for key in same] == ["smearing", "grimme-d3", 3, False, 80, 0.3, True]
    assert keys["smearing"] == "cold"
    settings = found.settings(espresso.Espresso)
    assert (settings.kspacing_per_A, settings.monkhorst_pack, settings.version) == (0.2, True, "7.2")
    assert espresso.files(found)["Cu"] == tmp_path / "old" / "pp" / "Cu.UPF"


def test_what_pwx_is_not_told_has_its_own_defaults(tmp_path, monkeypatch):
    plain = {"control": {}, "system": {"ecutwfc": 40}, "kspacing": 0.5}
    _, found = taken(tmp_path, monkeypatch, {**PWSCF, "user_fp_params": plain})
    keys = espresso.keys_of(found)
    assert (keys["occupations"], "smearing" in keys, "ecutrho" in keys) == ("fixed", False, False)
    assert (keys["conv_thr"], keys["electron_maxstep"], keys["nosym"]) == (pytest.approx(1.0e-6), 100, False)


def test_a_starting_magnetisation_is_a_share_of_the_valence(tmp_path, monkeypatch):
    smeared = {"occupations": "smearing", "degauss": 0.01}  # with fixed ones pw.x refuses polarised spins
    system = {"ecutwfc": 40, "nspin": 2, "starting_magnetization(1)": 0.1, **smeared}
    _, found = taken(tmp_path, monkeypatch, {**PWSCF, "user_fp_params": {**PW, "system": system}})
    settings = found.settings(espresso.Espresso)
    assert (settings.spin_polarized, settings.initial_moments) == (True, {"Cu": pytest.approx(1.1)})


def test_the_sections_of_cp2k_are_those_of_our_input(tmp_path, monkeypatch):
    _, found = taken(tmp_path, monkeypatch, CP2K, command="mpirun -n 8 cp2k.popt -i input.inp > log")
    assert found.command == "mpirun -n 8 cp2k.popt"
    settings = found.settings(cp2k.CP2K)
    assert (settings.data_dir, settings.basis_files) == ("/opt/cp2k/data", ("BASIS_MOLOPT",))
    assert (settings.basis, settings.potentials) == ({"Cu": "DZVP-MOLOPT-SR-GTH"}, {"Cu": "GTH-PBE-q11"})
    dft = cp2k.tree_of(found)["FORCE_EVAL"]["DFT"]
    cutoffs = [float(dft["MGRID"][key].removeprefix("[eV] ")) / 13.605693 for key in ("CUTOFF", "REL_CUTOFF")]
    assert cutoffs == pytest.approx([500.0, 50.0]), "Ry; the second is DP-GEN's own default"
    assert (dft["MGRID"]["NGRIDS"], dft["QS"], dft["XC"]["XC_FUNCTIONAL"]) == (
        5,
        {"EPS_DEFAULT": "1.0E-12"},
        {"_": "PBE"},
    )
    loop = dft["SCF"]
    assert (loop["MAX_SCF"], loop["EPS_SCF"], loop["ADDED_MOS"], loop["MIXING"]["ALPHA"]) == (50, 1.0e-7, 60, 0.3)
    assert loop["SMEAR"]["ELECTRONIC_TEMPERATURE"] == pytest.approx(500.0)
    pair = dft["XC"]["VDW_POTENTIAL"]["PAIR_POTENTIAL"]
    assert (pair["R_CUTOFF"], pair["CALCULATE_C9_TERM"]) == ("[angstrom] 16.0", False)
    assert settings.kpoints == (1, 1, 1)


TEMPLATE = """&GLOBAL
  PROJECT copper   ! a name
&END GLOBAL
&FORCE_EVAL
  METHOD Quickstep
  STRESS_TENSOR ANALYTICAL
  &DFT
    BASIS_SET_FILE_NAME  /opt/cp2k/data/BASIS_MOLOPT
    POTENTIAL_FILE_NAME  /opt/cp2k/data/GTH_POTENTIALS
    &MGRID
      CUTOFF [eV] 6000
    &END MGRID
    &KPOINTS
      SCHEME MONKHORST-PACK 3 3 1
    &END KPOINTS
    &SCF
      MAX_SCF 30
      &OT
        PRECONDITIONER FULL_ALL   # usual
      &END OT
    &END SCF
    &XC
      &XC_FUNCTIONAL PBE
      &END XC_FUNCTIONAL
    &END XC
  &END DFT
  &SUBSYS
    &CELL
      ABC 10 10 10
    &END CELL
    &COORD
      @include coord.xyz
    &END COORD
    &KIND Cu
      BASIS_SET ORB DZVP-MOLOPT-SR-GTH
      POTENTIAL GTH GTH-PBE-q11
    &END KIND
    &KIND O
      BASIS_SET DZVP-MOLOPT-SR-GTH
      POTENTIAL GTH-PBE-q6
    &END KIND
  &END SUBSYS
  &PRINT
    &FORCES ON
    &END FORCES
  &END PRINT
&END FORCE_EVAL
"""


def test_a_template_of_cp2k_has_its_own_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = folder_of(tmp_path, {**CP2K, "user_fp_params": None, "external_input_path": "template.inp"})
    (folder / "template.inp").write_text(TEMPLATE)
    done = in_process("import-dpgen", "old")
    assert done.returncode == 0, done.stderr
    found = load_campaign(tmp_path / "my.yaml").label.reference
    settings = found.settings(cp2k.CP2K)
    assert (settings.cutoff_eV, settings.rel_cutoff_eV) == (6000.0, pytest.approx(40.0 * 13.605693))
    assert (settings.eps_scf, settings.max_scf_steps, settings.kpoints, settings.smearing) == (
        1.0e-5,
        30,
        (3, 3, 1),
        "fixed",
    )
    assert settings.input == {"FORCE_EVAL": {"DFT": {"SCF": {"OT": {"PRECONDITIONER": "FULL_ALL"}}}}}
    assert (settings.basis, settings.potentials) == ({"Cu": "DZVP-MOLOPT-SR-GTH"}, {"Cu": "GTH-PBE-q11"})


def test_the_keys_of_abacus_are_those_of_our_input(tmp_path, monkeypatch):
    _, found = taken(tmp_path, monkeypatch, ABACUS, command="OMP_NUM_THREADS=1 mpirun -n 8 abacus | tee log")
    assert found.command == "abacus", "a line of a shell is not guessed at"
    keys = abacus.keys_of(found)
    theirs = {"ecutwfc": 100, "smearing_sigma": 0.004, "scf_thr": 1.0e-8, "scf_nmax": 60, "mixing_beta": 0.4}
    assert {key: keys[key] for key in theirs} == pytest.approx(theirs, rel=1e-12)
    words = ("basis_type", "dft_functional", "smearing_method", "mixing_type", "ks_solver")
    assert [keys[key] for key in words] == ["lcao", "PBE", "gauss", "broyden", "genelpa"]
    settings = found.settings(abacus.Abacus)
    assert settings.kspacing_per_A == pytest.approx(0.14 / 0.529177, rel=1e-6), "1/bohr to 1/Å"
    assert (settings.spin_polarized, settings.orbitals, settings.version) == (True, {"Cu": "Cu.orb"}, "3.8.0")


@pytest.mark.parametrize(
    ("keys", "outside", "mesh"),
    [
        ({"gamma_only": 1}, {"k_points": [2, 2, 2, 0, 0, 0]}, (1, 1, 1)),
        ({}, {"k_points": [2, 3, 4, 0, 0, 0], "fp_kpt_file": "KPT"}, (2, 3, 4)),
        ({}, {"fp_kpt_file": "KPT"}, (5, 3, 1)),
        ({}, {}, (1, 1, 1)),
    ],
)
def test_the_mesh_of_abacus_is_the_one_that_dpgen_writes(tmp_path, monkeypatch, keys, outside, mesh):
    monkeypatch.chdir(tmp_path)
    own = {key: value for key, value in INPUT.items() if key not in {"kspacing", "gamma_only"}} | keys
    folder = folder_of(tmp_path, {**ABACUS, "user_fp_params": own, **outside})
    (folder / "KPT").write_text("K_POINTS  // of ours\n0\nMP\n5 3 1 0 0 0\n")
    done = in_process("import-dpgen", "old")
    assert done.returncode == 0, done.stderr
    assert load_campaign(tmp_path / "my.yaml").label.reference.settings(abacus.Abacus).kpoints == mesh


def test_an_input_file_of_abacus_is_read_as_dpgen_reads_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = folder_of(tmp_path, {**ABACUS, "user_fp_params": None, "fp_incar": "INPUT", "fp_orb_files": None})
    (folder / "INPUT").write_text(
        "INPUT_PARAMETERS\necutwfc 80 # Ry\nsmearing_method fixed\nvdw_method d3_0\nkspacing 0.1\n"
    )
    done = in_process("import-dpgen", "old")
    assert done.returncode == 0, done.stderr
    found = load_campaign(tmp_path / "my.yaml").label.reference
    keys = abacus.keys_of(found)
    assert (keys["ecutwfc"], keys["basis_type"], keys["scf_thr"]) == (pytest.approx(80), "pw", 1.0e-9)
    assert (keys["vdw_method"], keys["vdw_abc"]) == ("d3_0", 0)


def test_zeros_of_an_input_file_of_abacus_ask_for_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = folder_of(tmp_path, {**ABACUS, "user_fp_params": None, "fp_incar": "INPUT", "fp_orb_files": None})
    zeros = "dft_plus_u 0\ndeepks_scf 0\nnoncolin 0\nlspinorb false\nefield_flag 0\nnelec 0.0\nkspacing 0.0\n"
    (folder / "INPUT").write_text(f"INPUT_PARAMETERS\necutwfc 80\nsmearing_method fixed\nvdw_method none\n{zeros}")
    done = in_process("import-dpgen", "old")
    assert done.returncode == 0, done.stderr
    found = load_campaign(tmp_path / "my.yaml").label.reference
    assert (found.functional, found.includes_dispersion) == ("PBE", False)
    assert found.settings(abacus.Abacus).kpoints == (1, 1, 1)


def test_one_value_beside_lists_of_sections_of_cp2k_is_not_dropped_in_silence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind = {"_": ["Cu"], "POTENTIAL": ["GTH-PBE-q11"], "BASIS_SET": ["DZVP-MOLOPT-SR-GTH"], "MAGNETIZATION": 2.0}
    force = {**SECTIONS["FORCE_EVAL"], "SUBSYS": {"KIND": kind}}
    folder_of(tmp_path, {**CP2K, "user_fp_params": {**SECTIONS, "FORCE_EVAL": force}})
    done = in_process("import-dpgen", "old")
    assert done.returncode == 2
    assert "MAGNETIZATION is one value beside lists (_, POTENTIAL, BASIS_SET) - expected a list" in done.stderr


def test_without_an_output_the_version_is_declared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path, PWSCF, output=False)
    done = in_process("import-dpgen", "old")
    assert done.returncode == 2
    assert "no output with a version, and a label needs its reference - expected --declare" in done.stderr
    done = in_process("import-dpgen", "old", "--declare", "functional=PBE,includes_dispersion=true,code=QE-6.7MaX")
    assert done.returncode == 0, done.stderr
    assert load_campaign(tmp_path / "my.yaml").label.reference.settings(espresso.Espresso).version == "6.7MaX"


def test_files_that_are_elsewhere_are_told_and_the_functional_declared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = folder_of(tmp_path, PWSCF)
    (folder / "pp" / "Cu.UPF").unlink()
    assert "its functional is not known" in in_process("import-dpgen", "old").stderr
    done = in_process("import-dpgen", "old", "--declare", "functional=PBE,includes_dispersion=true,code=QE-7.2")
    assert done.returncode == 0, done.stderr
    assert f"no file Cu.UPF in {folder / 'pp'} - put it there" in done.stdout


def test_a_reference_of_ones_own_stands_before_the_block(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path, {**CP2K, "user_fp_params": {"FORCE_EVAL": {"SUBSYS": {}}}})
    done = in_process("import-dpgen", "old", "--reference", "cp2k_pbe_d3", "--declare", SAID["cp2k"])
    assert done.returncode == 0, done.stderr
    assert (
        "user_fp_params.FORCE_EVAL" in done.stdout.split("left out: ")[-1]
        or "labels are those of --reference" in done.stdout
    )


# --- what has no counterpart ------------------------------------------------------------------------------------------


def pw(**system):
    return {**PWSCF, "user_fp_params": {**PW, "system": {**PW["system"], **system}}}


def sections(**dft):
    made = json.loads(json.dumps(SECTIONS))
    for key, value in dft.items():
        *path, last = key.split("__")
        place = made["FORCE_EVAL"]["DFT"]
        for name in path:
            place = place.setdefault(name, {})
        place[last] = value
    return {**CP2K, "user_fp_params": made}


def keys_of_abacus(**keys):
    return {**ABACUS, "user_fp_params": {**INPUT, **keys}}


PAIR = {"POTENTIAL_TYPE": "PAIR_POTENTIAL", "PAIR_POTENTIAL": {"TYPE": "DFTD3(BJ)", "REFERENCE_FUNCTIONAL": "PBE"}}
REFUSED = {
    "DP-GEN's own namelists": (
        {
            **PWSCF,
            "user_fp_params": None,
            "fp_params": {"ecut": 90, "ediff": 1e-6, "smearing": "mp", "sigma": 0.01, "kspacing": 0.2},
        },
        "fp_params: DP-GEN adds vdw_corr='TS'",
    ),
    "no cutoff": (
        pw(ecutwfc=None) | {"user_fp_params": {**PW, "system": {}}},
        "user_fp_params.system.ecutwfc: missing",
    ),
    "three bodies": (pw(dftd3_threebody=True), "vdw_corr: with the three-body term (pw.x's default)"),
    "Becke and Johnson": (pw(dftd3_version=4), "vdw_corr: dft-d3 version 4 - expected none, or dft-d3 of version 3"),
    "tetrahedra": (pw(occupations="tetrahedra"), "system.occupations: tetrahedra - expected smearing or fixed"),
    "a charge": (pw(tot_charge=1), "system.tot_charge: has no counterpart"),
    "no width": (pw(degauss=0), "system.degauss: missing, so pw.x has no width"),
    "not collinear": (pw(nspin=4), "system.nspin: 4 - expected 1 or 2"),
    "a field": (
        {**PWSCF, "user_fp_params": {**PW, "control": {"tefield": True}}},
        "user_fp_params.control.tefield: has no counterpart",
    ),
    "no namelist of pw.x": (pw(ecutwfx=3), "ecutwfx: no keys of pw.x's namelists"),
    "files for other elements": ({**PWSCF, "fp_pp_files": ["a", "b"]}, "fp_pp_files: 2 files for 1 elements"),
    "a word for a number": (pw(ecutwfc="high"), "is not in DP-GEN's format (ValueError"),
    "D3 of Becke and Johnson": (sections(XC__VDW_POTENTIAL=PAIR), "XC.VDW_POTENTIAL: expected D3 with zero damping"),
    "a shifted mesh": (
        sections(KPOINTS={"SCHEME": "MONKHORST-PACK 2 2 2"}),
        "KPOINTS.SCHEME: MONKHORST-PACK 2 2 2 - expected a Gamma-centred mesh",
    ),
    "energy windows": (sections(SCF__SMEAR={"_": "ON"}), "SCF.SMEAR: expected ON, with METHOD FERMI_DIRAC"),
    "a charge of CP2K": (sections(CHARGE=1), "DFT.CHARGE: charged cells have no counterpart"),
    "triplets": (sections(UKS="T", MULTIPLICITY=3), "DFT.MULTIPLICITY: 3 for all structures"),
    "wires": (sections(POISSON={"PERIODIC": "X"}), "DFT.POISSON: not periodic"),
    "a hybrid": (sections(XC__HF={"FRACTION": 0.25}), "its functional is not known"),
    "no basis": (
        {**CP2K, "user_fp_params": {"FORCE_EVAL": {"SUBSYS": {"KIND": {"_": ["O"], "POTENTIAL": ["GTH-PBE-q6"]}}}}},
        "SUBSYS.KIND: none for Cu",
    ),
    "an unset cutoff": (
        {**ABACUS, "user_fp_params": {"basis_type": "pw"}},
        "user_fp_params.ecutwfc: missing, and its default",
    ),
    "smearing unsaid": (
        {**ABACUS, "user_fp_params": {"ecutwfc": 50}},
        "smearing_method: missing, and its default depends",
    ),
    "spacings by axis": (keys_of_abacus(kspacing=[0.1, 0.1, 0.2]), "user_fp_params.kspacing: differs by axis"),
    "DeePKS": (keys_of_abacus(deepks_scf=1), "user_fp_params.deepks_scf: has no counterpart"),
    "second order": (keys_of_abacus(smearing_method="mp2"), "smearing_method: mp2 - expected one of"),
    "a mesh of a shift": (
        {**keys_of_abacus(kspacing=0), "k_points": [2, 2, 2, 1, 1, 1]},
        "k_points: expected a Gamma-centred mesh",
    ),
    "other parameters of D3": (keys_of_abacus(vdw_method="d3_0", vdw_s8=0.9), "vdw_s8: 0.9 - expected 0.722"),
    "no orbitals": ({**ABACUS, "fp_orb_files": None}, "fp_orb_files: 0 files for 1 elements"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_no_counterpart_is_refused_by_its_key(tmp_path, monkeypatch, kind):
    block, said = REFUSED[kind]
    assert said in refused(tmp_path, monkeypatch, block)


# --- the same numbers -------------------------------------------------------------------------------------------------


def silicon(*, cubic=False):
    atoms = bulk("Si", "diamond", 5.43, cubic=cubic)
    atoms.positions[0] += (0.08, -0.05, 0.11)
    return Frames.from_ase([atoms])


def imported(tmp_path, monkeypatch, changes, declared, files=()):
    """Import a folder of silicon (its labels are copper's, by another name) and return the reference."""
    monkeypatch.chdir(tmp_path)
    folder = dpgen_folder(tmp_path / "old", **changes)
    named = [folder / "param.json", *folder.rglob("type_map.raw")]
    for path in named:
        path.write_text(path.read_text().replace("Cu", "Si"))
    for name, text in files:
        (folder / name).write_text(text)
    done = in_process("import-dpgen", "old", "--declare", declared)
    assert done.returncode == 0, done.stderr
    found = load_campaign(tmp_path / "my.yaml").label.reference
    return found.model_copy(update={"command": {"espresso": "pw.x", "cp2k": "cp2k"}[found.engine]})


def run(folder, *command, text=""):
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, input=text, cwd=folder, capture_output=True, text=True, check=True, env=one_thread)
    return done.stdout.splitlines()


@pytest.mark.needs_espresso
def test_pwx_gives_our_label_the_energy_of_dpgens_input(tmp_path, monkeypatch, slot):
    """A mesh of even numbers, which DP-GEN shifts by half a step; one that is Gamma-centred has another energy."""
    frames = silicon()
    system = {"ecutwfc": 16, "occupations": "smearing", "smearing": "mv", "degauss": 0.01}
    block = {**PW, "system": system, "kspacing": 1.3, "electrons": {"conv_thr": 1.0e-9}}
    changes = {**PWSCF, "user_fp_params": block, "fp_pp_path": str(PSEUDO), "fp_pp_files": ["Si.pz-vbc.UPF"]}
    declared = "functional=LDA,includes_dispersion=false,code=QE-6.7MaX"
    ours = reference.label(imported(tmp_path, monkeypatch, changes, declared), frames, slot)
    atoms = frames.to_ase()[0]
    text = "\n".join(
        [
            *(
                "&control",
                "calculation='scf', outdir='./OUT', disk_io='none',",
                f"pseudo_dir='{PSEUDO}',",
                "/",
                "&system",
            ),
            *("ecutwfc=16, occupations='smearing', smearing='mv', degauss=0.01, ibrav=0, nat=2, ntyp=1,", "/"),
            *("&electrons", "conv_thr=1e-9,", "/", "ATOMIC_SPECIES", "Si 28.085 Si.pz-vbc.UPF"),
            *("CELL_PARAMETERS { angstrom }", *(f"{x:.8f} {y:.8f} {z:.8f}" for x, y, z in atoms.cell[:])),
            *("ATOMIC_POSITIONS { angstrom }", *(f"Si {x:.8f} {y:.8f} {z:.8f}" for x, y, z in atoms.positions)),
            *("K_POINTS { automatic }", "2 2 2 1 1 1", ""),
        ]
    )
    energies = []
    for changed_text in (
        text,
        text.replace("2 2 2 1 1 1", "2 2 2 0 0 0"),
        text.replace("ibrav=0", "ibrav=0, nosym=.TRUE."),
    ):
        said = run(tmp_path, "pw.x", text=changed_text)
        (line,) = (line for line in said if line.startswith("!"))
        energies.append(float(line.split("=")[1].split()[0]) * Ry)
    assert ours.energy == pytest.approx(energies[0], abs=1.0e-5)
    assert min(abs(ours.energy - other) for other in energies[1:]) > 0.01, (
        "neither Gamma-centred, nor with all symmetry off"
    )


@pytest.mark.needs_cp2k
def test_cp2k_gives_our_label_the_energy_of_dpgens_template(tmp_path, monkeypatch, slot):
    frames = silicon(cubic=True)
    atoms = frames.to_ase()[0]
    template = re.sub(
        r"    &OT.*?&END OT\n|    &KPOINTS.*?&END KPOINTS\n|    &KIND O.*?&END KIND\n", "", TEMPLATE, flags=re.DOTALL
    )
    template = template.replace("/opt/cp2k/data", str(CP2K_DATA)).replace("KIND Cu", "KIND Si").replace("q11", "q4")
    for old, new in (("[eV] 6000", "120"), ("DZVP", "SZV"), ("MAX_SCF 30", "MAX_SCF 60")):
        template = template.replace(old, new)
    changes = {**CP2K, "user_fp_params": None, "external_input_path": "template.inp"}
    declared = "functional=PBE,includes_dispersion=false,code=CP2K-2023.1"
    what = imported(tmp_path, monkeypatch, changes, declared, [("template.inp", template)])
    ours = reference.label(what, frames, slot)
    cell = "\n".join(f"{name} {x} {y} {z}" for name, (x, y, z) in zip("ABC", atoms.cell[:], strict=True))
    rows = "\n".join(f"Si {x:.10f} {y:.10f} {z:.10f}" for x, y, z in atoms.positions)
    text = template.replace("ABC 10 10 10", cell).replace("@include coord.xyz", rows)
    (tmp_path / "theirs.inp").write_text(text)
    lines = [line for line in run(tmp_path, "cp2k", "-i", "theirs.inp") if "ENERGY| Total FORCE_EVAL" in line]
    assert ours.energy == pytest.approx(float(lines[-1].split()[-1]) * Hartree, abs=1.0e-5)
