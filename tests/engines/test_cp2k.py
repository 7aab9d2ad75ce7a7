"""CP2K as a reference: real runs where it is installed; what it says, from a recorded run."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from engines.real_codes import in_process, moved, slope, strained, worker

from activelearn.config import Machine, Reference, load_label
from activelearn.engines import process, reference
from activelearn.engines.process import Slot
from activelearn.engines.references import cp2k, single_point
from activelearn.errors import ConfigError, EngineError
from activelearn.exchange.cp2k import read_cp2k
from activelearn.frames import Frames

#: Where Debian's package cp2k-data has basis sets and pseudopotentials.
DATA = Path(os.environ.get("CP2K_DATA_DIR", "/usr/share/cp2k"))
RECORDED = Path(__file__).parent.parent / "data" / "cp2k" / "si2.out"
needs_cp2k = pytest.mark.skipif(
    shutil.which("cp2k") is None or not (DATA / "BASIS_MOLOPT").is_file(), reason="no CP2K: apt-get install cp2k"
)
BASIS = """# made up
Si SZV-MOLOPT-SR-GTH SZV-MOLOPT-SR-GTH-q4
 1
 2 0 1 4 1 1
     1.2  -0.32 0.04
C  DZVP-MOLOPT-SR-GTH
 1
 2 0 1 5 2 2
     5.6 -0.10
! the end
"""
POTENTIALS = """Si GTH-PBE-q4 GTH-PBE
    2    2
     0.44    1    -6.26
C GTH-PBE-q4
    2    2
     0.34    2    -8.80
"""


@pytest.fixture(scope="module")
def job():
    return worker("cp2k_job")


@pytest.fixture
def slot(tmp_path):
    process.allow_engines()
    return Slot(Machine(name="test", label_timeout_s=280.0), tmp_path / "logs")


@pytest.fixture
def data_dir(tmp_path):
    """Files of data as CP2K has them, with numbers that are none."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, text in (("BASIS_MOLOPT", BASIS), ("GTH_POTENTIALS", POTENTIALS), ("dftd3.dat", "")):
        (folder / name).write_text(text)
    return folder


def made_up(data_dir, command="cp2k", functional="PBE", d3=None, **settings):
    """A reference to data that CP2K could not use."""
    own = {
        "version": "2023.1", "data_dir": str(data_dir), "basis": {"Si": "SZV-MOLOPT-SR-GTH", "C": "DZVP-MOLOPT-SR-GTH"},
        "potentials": {"Si": "GTH-PBE-q4", "C": "GTH-PBE-q4"}, **settings,
    }  # fmt: skip
    what = {"engine": "cp2k", "command": command, "functional": functional, "includes_dispersion": False, "d3": d3}
    return Reference(**what, cp2k=own)


def pbe(d3=None, **settings):
    """A reference for real runs, as small as they may be."""
    small = {"basis": {"Si": "SZV-MOLOPT-SR-GTH"}, "potentials": {"Si": "GTH-PBE-q4"}, "cutoff_eV": 1500.0}
    settings = {"rel_cutoff_eV": 400.0, "kpoints": (2, 1, 1), "smearing_eV": 0.8, "eps_scf": 1e-7, **settings}
    return made_up(DATA, d3=d3, **{**small, **settings})


def silicon():
    """Two atoms far from their places, in a sheared cell that is not along the axes; smearing matters."""
    cell = 2.7 * np.array([[0.02, 1.0, 0.97], [1.0, 0.0, 1.0], [1.03, 1.0, 0.0]])
    return Frames(("Si", "Si"), cell[None], [[[0.15, 0.05, -0.06], [1.4, 1.3, 1.4]]])


# --- real runs --------------------------------------------------------------------------------------------------------


@pytest.mark.needs_cp2k
@needs_cp2k
def test_forces_and_stress_are_the_derivatives_of_the_energy(job, slot, monkeypatch, tmp_path):
    """With a Gamma-centred mesh of k-points; the files are gone, but for those that another reader is given below."""
    in_process(job, single_point, monkeypatch, tmp_path)
    what, frame = pbe(), silicon()
    label = reference.label(what, frame, slot)
    assert label.refused is None
    along = slope(what, lambda step: moved(frame, 0, 0, step), 0.01, slot)
    assert label.forces[0, 0] == pytest.approx(-along, abs=1e-3)
    assert abs(along) > 0.3
    work = slope(what, lambda step: strained(frame, 1, 2, step), 0.01, slot)
    assert label.virial[1, 2] == pytest.approx(-work, abs=0.01)
    assert abs(work) > 3.0
    assert [path for path in (tmp_path / "job-0").rglob("*") if not path.is_dir()] == []


def by_hand(job, folder, what, frame, **more):
    """Return the results of one run, and the file of its output."""
    settings = what.settings(cp2k.CP2K)
    request = {
        **settings.model_dump(), "input": cp2k.tree_of(what), "spin": False, "where": "here", "moments": {},
        "data": {"Si": cp2k.entries(what, "Si")}, "d3_file": str(DATA / "dftd3.dat") if what.d3 else None, **more,
    }  # fmt: skip
    folder.mkdir()
    atoms = frame.to_ase()[0]
    code = job.single_points.run(job.CODE, ["cp2k", *job.write(folder, atoms, request)], folder)
    return job.single_points.read(job.CODE, folder, atoms, request, code), folder / "label.out"


@pytest.mark.needs_cp2k
@needs_cp2k
def test_a_real_output_is_read_as_the_importer_reads_it_and_dispersion_is_that_of_another_program(job, tmp_path):
    """Our reader of whole trajectories; the dftd3 package. CP2K ends coordination numbers earlier (EPS_CN)."""
    from dftd3.ase import DFTD3

    frame = silicon()
    found, path = by_hand(job, tmp_path / "run", pbe(d3={"method": "PBE"}, kpoints=(1, 1, 1)), frame)
    (other,) = read_cp2k(path)
    assert other.reason is None
    assert other.frame.energy[0] == pytest.approx(found["energy"], abs=1e-6)
    assert other.frame.forces[0] == pytest.approx(found["forces"], abs=1e-6)
    voigt = -other.frame.virial[0][[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] / frame.volume[0]
    assert voigt == pytest.approx(found["stress"], abs=1e-4)  # its cell has three decimals
    atoms = frame.to_ase()[0]
    atoms.calc = DFTD3(method="PBE", damping="d3zero")
    dispersion = float(path.read_text().split("Dispersion energy:")[1].split()[0]) * units.Hartree
    assert dispersion == pytest.approx(atoms.get_potential_energy(), rel=5e-3)


@pytest.mark.needs_cp2k
@needs_cp2k
def test_an_scf_that_does_not_converge_is_refused(slot):
    found = reference.label(pbe(max_scf_steps=3, kpoints=(1, 1, 1)), silicon(), slot)
    assert found.refused.startswith("SCFError: CP2K says: SCF run NOT converged")
    assert np.isnan(found.energy)


@pytest.mark.needs_cp2k
@needs_cp2k
def test_spins_are_polarised_where_it_is_said(job, tmp_path):
    """An atom alone keeps two unpaired electrons."""
    lone = Frames(("Si",), 6.0 * np.eye(3)[None], [[[0.1, 0.2, 0.3]]])
    what = pbe(cutoff_eV=1000.0, kpoints=(1, 1, 1), smearing_eV=0.1)
    _, path = by_hand(job, tmp_path / "run", what, lone, spin=True, moments={"Si": 2.0})
    moment = float(path.read_text().split("Integrated absolute spin density")[-1].split(":")[1].split()[0])
    assert moment > 1.5


# --- what an output is worth ------------------------------------------------------------------------------------------


@pytest.fixture
def outcome(job, tmp_path):
    """Return what is made of a recorded output after a change."""

    def made(change=lambda text: text, return_code=0, **request):
        (tmp_path / "label.out").write_text(change(RECORDED.read_text()))
        atoms = Atoms("Si2", cell=4.0 * np.eye(3), pbc=True)
        request = {"version": "2023.1", "max_scf_steps": 100, "where": "label.reference.cp2k", **request}
        return job.single_points.read(job.CODE, tmp_path, atoms, request, return_code)

    return made


def test_the_recorded_run_is_read(outcome):
    found = outcome()
    assert found["energy"] == found["free_energy"] == pytest.approx(-7.661743649465710 * units.Hartree)
    rows = [line for line in RECORDED.read_text().splitlines() if line.split()[:3] == ["1", "1", "Si"]]
    x = float(next(line for line in rows if len(line.split()) == 6).split()[3])
    assert found["forces"][0, 0] == pytest.approx(x * units.Hartree / units.Bohr)
    (row,) = [line for line in RECORDED.read_text().splitlines() if line.startswith(" STRESS|      x  ")][:1]
    assert found["stress"][0] == pytest.approx(-float(row.split()[2]) * units.GPa)


def test_the_tables_of_later_versions_are_read(outcome):
    """From 2024 on forces stand in hartree/bohr below another heading, with their length."""

    def later(text):
        head, table = text.split(" ATOMIC FORCES in [a.u.]\n")
        rows = [line.split() for line in table.splitlines() if line.split()[2:3] == ["Si"]][:2]
        lines = [f" FORCES| {int(row[0])} {' '.join(row[3:])} 1.0E-01" for row in rows]
        below = table[table.index(" SUM OF ATOMIC FORCES") :]
        return "\n".join([f"{head} FORCES| Atomic forces [hartree/bohr]", " FORCES| Atom x y z |f|", *lines, below])

    assert outcome(later)["forces"] == pytest.approx(outcome()["forces"])


@pytest.mark.parametrize(
    ("change", "return_code", "words"),
    [
        (lambda text: text[: text.index(" ENERGY|")], 0, "did not finish"),
        (lambda text: text, 137, "return code 137"),
        (lambda text: text + " *** exceeded requested execution time: 10 seconds\n", 0, "CP2K was stopped"),
        (lambda text: text + text, 0, "2 runs of CP2K wrote one output"),
        (
            lambda text: text.replace("CP2K version 2023.1", "CP2K version 9.1", 1),
            0,
            "this is CP2K 9.1 - expected 2023.1",
        ),
        (lambda text: text.replace("    2    1 Si   14", "    2    1 C     6"), 0, r"is of \['Si', 'C'\]"),
        (lambda text: text.replace("tensor [GPa]", "tensor [bar]"), 0, "expected atomic units and GPa"),
        (lambda text: text.replace("      2      1      Si  ", "      3      1      Si  "), 0, "1 rows below"),
    ],
)
def test_what_is_cut_killed_or_of_something_else_is_an_error(outcome, change, return_code, words):
    with pytest.raises(RuntimeError, match=words):
        outcome(change, return_code)


def test_a_loop_that_ends_otherwise_than_it_counts_is_refused(outcome, job):
    refused, steps = job.single_points.SCFError, 11
    for change, limit in (
        (lambda text: text, steps),
        (lambda text: text.replace("converged in    11 steps", "converged in    12 steps"), 100),
        (lambda text: text.replace("*** SCF run converged in    11 steps ***", ""), 100),
    ):
        with pytest.raises(refused, match=f"the electronic loop took {steps} steps of at most"):
            outcome(change, max_scf_steps=limit)
    with pytest.raises(refused, match="SCF run NOT converged"):
        outcome(lambda text: text.replace("SCF run converged in    11 steps", "SCF run NOT converged"), return_code=1)


def test_stars_become_nan_which_no_label_has(outcome):
    line = next(row for row in RECORDED.read_text().splitlines() if row.startswith("      1      1      Si"))
    starred = " ".join([*line.split()[:3], "************", *line.split()[4:]])
    assert np.isnan(outcome(lambda text: text.replace(line, starred))["forces"][0, 0])


# --- what is wrong before any job -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"version": 2023.1}, "2023.1 is a number to YAML"),
        (
            {"input": {"force_eval": {"dft": {"scf": {"max_scf": 7}}}}},
            "force_eval/dft/scf/max_scf is cp2k.max_scf_steps",
        ),
        ({"input": {"MOTION": {"MD": {"STEPS": 5}}}}, "motion is a single point here"),
        (
            {"input": {"FORCE_EVAL": [1, 2]}},
            r"cp2k.input: FORCE_EVAL is \[1, 2\] - expected a mapping, since it is a sec",
        ),
        (
            {"input": {"force_eval": {"dft": {"scf": "x"}}}},
            "cp2k.input: scf is x - expected a mapping, since it is a s",
        ),
        ({"input": {"ext_restart": {"RESTART_FILE_NAME": "x"}}}, "EXT_RESTART - expected sections of GLOBAL and FORCE"),
        (
            {"input": {"FORCE_EVAL": {"RESCALE_FORCES": {"MAX_FORCE": 0.1}}}},
            "rescale_forces is none: forces are the sl",
        ),
        ({"input": {"FORCE_EVAL": {"DFT": {"XC": {"XC_FUNCTIONAL": {"_": "BLYP"}}}}}}, "BLYP but functional PBE"),
        (
            {"input": {"force_eval": {"dft": {"xc": {"xc_functional": "Pade"}}}}},
            "Pade but functional PBE - expected the",
        ),
        (
            {"input": {"FORCE_EVAL": {"DFT": {"XC": {"VDW_POTENTIAL": {"POTENTIAL_TYPE": "NON_LOCAL"}}}}}},
            "vdw_potential adds dispersion, and includes_dispersion is false - expected true, or d3 in its place",
        ),
        ({"potentials": {"Si": "GTH-PADE-q4", "C": "GTH-PBE-q4"}}, "GTH-PADE-q4 is not for PBE by its name"),
        ({"potentials": {"Si": "GTH-PBE-q4"}}, "cp2k.basis and cp2k.potentials differ in C"),
        ({"functional": "HSE06"}, r"functional HSE06 has no name in engine cp2k \(blyp, lda, pbe, pbesol"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(data_dir, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        made_up(data_dir, **settings)


def test_a_functional_in_words_of_ones_own(data_dir):
    hybrid = {"FORCE_EVAL": {"DFT": {"XC": {"XC_FUNCTIONAL": {"PBE": {"SCALE_X": 0.75}}}}}}
    tree = cp2k.tree_of(made_up(data_dir, functional="HSE06", input=hybrid))
    assert tree["FORCE_EVAL"]["DFT"]["XC"]["XC_FUNCTIONAL"] == {"PBE": {"SCALE_X": 0.75}}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"basis": {"Si": "TZVP", "C": "DZVP-MOLOPT-SR-GTH"}}, r"cp2k.basis.Si: no TZVP of Si in BASIS_MOLOPT"),
        ({"potentials": {"Si": "GTH-PBE-q14", "C": "GTH-PBE-q4"}}, r"cp2k.potentials.Si: no GTH-PBE-q14 of Si"),
        ({"basis_files": ["BASIS_NEW"]}, r"no file .*/BASIS_NEW - expected a file of CP2K's data"),
    ],
)
def test_a_missing_entry_is_found_before_any_job(data_dir, slot, settings, sentence):
    what = made_up(data_dir, **settings)
    with pytest.raises(ConfigError, match=sentence):
        reference.fingerprint(what, slot)
    assert cp2k.ENGINE.problems(what, slot.machine, "label.reference")


def test_an_element_without_data_is_a_config_error(data_dir, slot):
    only = {"basis": {"C": "DZVP-MOLOPT-SR-GTH"}, "potentials": {"C": "GTH-PBE-q4"}}
    with pytest.raises(ConfigError, match=r"label.reference.cp2k.basis: none for Si"):
        reference.label(made_up(data_dir, command="true", **only), silicon(), slot)


def test_a_program_or_parameters_of_d3_that_are_not_there_are_found(data_dir):
    (data_dir / "dftd3.dat").unlink()
    what = made_up(data_dir, command="mpirun -n 2 /opt/none/cp2k.psmp", d3={"method": "PBE"})
    program, d3 = cp2k.ENGINE.problems(what, Machine(), "label.reference")
    assert "no program '/opt/none/cp2k.psmp' on the PATH, which mpirun is to start" in program
    assert "dftd3.dat - expected the parameters of D3" in d3


def test_the_input_is_what_the_settings_say(job, data_dir, tmp_path):
    more = {"force_eval": {"dft": {"qs": {"eps_default": 1e-12}, "print": {"mulliken": {"_": "off"}}}}}
    what = made_up(data_dir, d3={"method": "PBE"}, smearing_eV=0.05, input=more)
    atoms = Atoms("CSiC", positions=np.eye(3), cell=[4.0, 5.0, 9.0], pbc=True)
    request = {
        **what.settings(cp2k.CP2K).model_dump(), "input": cp2k.tree_of(what), "spin": True, "moments": {"C": 2.0},
        "data": {kind: cp2k.entries(what, kind) for kind in ("C", "Si")}, "d3_file": str(data_dir / "dftd3.dat"),
    }  # fmt: skip
    assert job.write(tmp_path, atoms, request) == ["-i", "label.inp"]
    text = (tmp_path / "label.inp").read_text()
    flat = " ".join(text.split())
    for words in (
        "&MGRID CUTOFF [eV] 8000.0 REL_CUTOFF [eV] 800.0 &END MGRID",
        "SCHEME MACDONALD 4 3 2 0.125 0 0.25", "&SMEAR ON METHOD FERMI_DIRAC ELECTRONIC_TEMPERATURE 580.2",
        "UKS .TRUE.", "&QS EPS_DEFAULT 1e-12 &END QS", "&MULLIKEN off &END MULLIKEN",
        "&XC_FUNCTIONAL PBE &END XC_FUNCTIONAL", "R_CUTOFF [angstrom] 50.2", "CALCULATE_C9_TERM .FALSE.",
        "A 4 0 0 B 0 5 0 C 0 0 9 PERIODIC XYZ", "&COORD C 1 0 0 Si 0 1 0 C 0 0 1 &END COORD",
        "&KIND C BASIS_SET DZVP-MOLOPT-SR-GTH POTENTIAL GTH-PBE-q4 MAGNETIZATION 2.0 &END KIND",
        "&KIND Si BASIS_SET SZV-MOLOPT-SR-GTH POTENTIAL GTH-PBE-q4 MAGNETIZATION 1.0 &END KIND",
    ):  # fmt: skip
        assert words in flat, words
    assert (tmp_path / "BASIS").read_text().splitlines()[0] == "C DZVP-MOLOPT-SR-GTH"
    assert "the end" not in (tmp_path / "BASIS").read_text()
    assert "-6.26" in (tmp_path / "POTENTIAL").read_text()


def test_the_fingerprint_is_of_entries_and_settings_not_of_places(data_dir, slot):
    first = reference.fingerprint(made_up(data_dir), slot)
    assert str(data_dir) not in str(first)
    path = data_dir / "BASIS_MOLOPT"
    path.write_text(path.read_text().replace("# made up", "# another comment\nB SZV-GTH\n 1\n"))
    assert reference.fingerprint(made_up(data_dir, command="srun cp2k.psmp"), slot) == first
    others = [made_up(data_dir, cutoff_eV=9000.0), made_up(data_dir, eps_scf=1e-7), made_up(data_dir, version="2024.1"),
              made_up(data_dir, input={"FORCE_EVAL": {"DFT": {"QS": {"EPS_DEFAULT": 1e-14}}}})]  # fmt: skip
    sums = {reference.fingerprint(one, slot)["sha256"] for one in others}
    path.write_text(path.read_text().replace("-0.32", "-0.33"))
    assert len({*sums, first["sha256"], reference.fingerprint(made_up(data_dir), slot)["sha256"]}) == 6


def test_a_missing_executable_is_an_engine_error(data_dir, slot):
    with pytest.raises(EngineError, match="no_such_cp2k: no such program"):
        reference.label(made_up(data_dir, command="no_such_cp2k"), silicon(), slot)


@pytest.mark.needs_cp2k
@needs_cp2k
def test_the_preset_names_entries_that_debians_cp2k_has(slot):
    what = load_label("cp2k_pbe_d3").reference
    found = reference.fingerprint(what, slot)
    assert sorted(found["arguments"]["data"]) == ["Na", "O", "P", "S"]
    assert len(found["d3"]["version"]["dftd3.dat"]) == 64
