"""Quantum ESPRESSO as a reference: real runs of pw.x where it is installed; what it says, from a recorded run."""

import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from engines.real_codes import in_process, moved, slope, strained, worker

from activelearn.config import Machine, Reference, ReferenceMD
from activelearn.engines import process, reference
from activelearn.engines.process import Slot
from activelearn.engines.references import espresso, single_point
from activelearn.errors import ConfigError, EngineError
from activelearn.exchange.outputs import read_pwscf
from activelearn.frames import Frames

#: Where Debian's package quantum-espresso-data has its pseudopotentials.
PSEUDO = Path("/usr/share/espresso/pseudo")
RECORDED = Path(__file__).parent.parent / "data" / "espresso" / "si2.out"
needs_espresso = pytest.mark.skipif(
    shutil.which("pw.x") is None or not (PSEUDO / "Si.pz-vbc.UPF").is_file(),
    reason="no pw.x with pseudopotentials: apt-get install quantum-espresso quantum-espresso-data",
)
UPF = """<UPF version="2.0.1">
<PP_HEADER element="{element}" pseudo_type="NC" functional="{functional}" z_valence="4.000E+00" mesh_size="3"/>
</UPF>
"""
UPF_1 = """<PP_HEADER>
   0                   Version Number
  {element}                   Element
   NC                  Norm - Conserving pseudopotential
    F                  Nonlinear Core Correction
 {functional}   PBE  Exchange-Correlation functional
    4.00000000000      Z valence
</PP_HEADER>
"""


@pytest.fixture(scope="module")
def job():
    return worker("espresso_job")


@pytest.fixture
def slot(tmp_path):
    process.allow_engines()
    return Slot(Machine(name="test", label_timeout_s=120.0), tmp_path / "logs")


@pytest.fixture
def pseudo_dir(tmp_path):
    """UPF files with a head and no potential."""
    folder = tmp_path / "pseudo"
    folder.mkdir()
    for name, text in (
        ("Si.UPF", UPF.format(element="Si", functional="PBE")),
        ("C.UPF", UPF.format(element="C ", functional=" SLA  PW   PBX  PBC ")),
        ("C1.UPF", UPF_1.format(element="C", functional="SLA  PW   PBE  PBE")),
        ("Si-lda.UPF", UPF.format(element="Si", functional=" SLA  PZ   NOGX NOGC")),
        ("Si.vdb", "not a UPF file"),
    ):
        (folder / name).write_text(text)
    return folder


def pbe(pseudo_dir, command="pw.x", d3=None, **settings):
    """A reference to files that have no potential."""
    files = {"Si": "Si.UPF", "C": "C.UPF"}
    settings = {"version": "6.7MaX", "pseudo_dir": str(pseudo_dir), "pseudopotentials": files, **settings}
    what = {"engine": "espresso", "command": command, "functional": "PBE", "includes_dispersion": False, "d3": d3}
    return Reference(**what, espresso={"ecut_eV": 400.0, **settings})


def silicon():
    """Two atoms far from their places, in a sheared cell that is not along the axes; smearing matters."""
    cell = 2.7 * np.array([[0.02, 1.0, 0.97], [1.0, 0.0, 1.0], [1.03, 1.0, 0.0]])
    return Frames(("Si", "Si"), cell[None], [[[0.15, 0.05, -0.06], [1.4, 1.3, 1.4]]])


def lda(**settings):
    """A reference for real runs: a cutoff at which the stress of a fixed basis is the derivative (44 Ry)."""
    settings = {"ecut_eV": 600.0, "kspacing_per_A": 1.2, "smearing_eV": 0.4, "convergence_eV": 1e-8, **settings}
    files = {"Si": "Si.pz-vbc.UPF", "Al": "Al.pz-vbc.UPF"}
    where = {"version": "6.7MaX", "pseudo_dir": str(PSEUDO), "pseudopotentials": files}
    what = {"engine": "espresso", "command": "pw.x", "functional": "LDA", "includes_dispersion": False}
    return Reference(**what, espresso={**where, **settings})


# --- real runs --------------------------------------------------------------------------------------------------------


@pytest.mark.needs_espresso
@needs_espresso
def test_forces_and_stress_are_the_derivatives_of_the_free_energy(job, slot, monkeypatch, tmp_path):
    in_process(job, single_point, monkeypatch, tmp_path)
    what, frame = lda(kpoints=(2, 1, 1)), silicon()
    label = reference.label(what, frame, slot)
    assert label.refused is None
    assert label.forces.sum(axis=0) == pytest.approx(np.zeros(3), abs=1e-3)
    along = slope(what, lambda step: moved(frame, 0, 0, step), 0.01, slot)
    assert label.forces[0, 0] == pytest.approx(-along, abs=2e-3)
    assert abs(along) > 0.3
    left = [path for path in (tmp_path / "job-0").rglob("*") if not path.is_dir()]
    assert left == [], "a run that gave a label leaves no file"
    for i, j in ((0, 0), (1, 2)):
        work = slope(what, lambda step, i=i, j=j: strained(frame, i, j, step), 0.01, slot)
        assert label.virial[i, j] == pytest.approx(-work, abs=0.03)
        assert abs(work) > 0.5


def run_by_hand(job, folder, frame, what):
    """Return the results of one run, what the importer reads of it, and the output."""
    settings = what.settings(espresso.Espresso)
    request = {
        **settings.model_dump(), "input": espresso.keys_of(what), "spin": False, "where": "here", "command": ["pw.x"],
        "pseudopotentials": {"Si": str(PSEUDO / "Si.pz-vbc.UPF")},
    }  # fmt: skip
    folder.mkdir()
    atoms = frame.to_ase()[0]
    arguments = job.write(folder, atoms, request)
    code = job.single_points.run(job.CODE, ["pw.x", *arguments], folder)
    (other,) = read_pwscf(folder / "pw.out")
    text = (folder / "pw.out").read_text()
    return job.single_points.read(job.CODE, folder, atoms, request, code), other, text


@pytest.mark.needs_espresso
@needs_espresso
def test_the_energy_is_the_one_without_which_the_forces_do_not_fit(job, tmp_path):
    """F = E - TS, the line with "!", and not E, at a width where the two differ; another reader (ASE's) agrees."""
    what, frame, h = lda(ecut_eV=300.0, smearing_eV=1.0, kspacing_per_A=0.9), silicon(), 0.01
    found, other, text = run_by_hand(job, tmp_path / "here", frame, what)
    assert other.reason is None
    assert other.frame.energy[0] == pytest.approx(found["energy"], rel=2e-7)  # ASE's Ry is of 2006
    assert other.frame.forces[0] == pytest.approx(found["forces"], abs=1e-6)
    voigt = -other.frame.virial[0][[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] / frame.volume[0]
    assert voigt == pytest.approx(found["stress"], abs=1e-5)
    assert job.single_points.mesh(frame.cell[0], 0.9) == [3, 3, 3]
    assert "number of k points=    14 " in text, "of 27: Gamma, and one of each pair k, -k"
    free, internal = [], []
    for sign in (-1.0, 1.0):
        there, _, text = run_by_hand(job, tmp_path / f"at {sign:g}", moved(frame, 0, 0, sign * h), what)
        free.append(there["energy"])
        internal.append(float(text.split("internal energy E=F+TS")[1].split()[1]) * units.Ry)
    force = found["forces"][0, 0]
    assert -(free[1] - free[0]) / (2.0 * h) == pytest.approx(force, abs=3e-3)
    assert abs((internal[1] - internal[0]) / (2.0 * h) + force) > 0.02


@pytest.mark.needs_espresso
@needs_espresso
def test_the_order_of_atoms_is_the_callers(slot):
    """Aluminium and silicon mixed, and sorted: the same forces on the same atoms."""
    rng = np.random.default_rng(7)
    cell = 4.0 * np.eye(3)[None] + 0.1 * rng.normal(size=(1, 3, 3))
    positions = np.array([[0, 0, 0], [2, 2, 0], [2, 0, 2], [0, 2, 2]]) + rng.normal(0.0, 0.1, (4, 3))
    order = [1, 3, 0, 2]
    symbols = ("Si", "Al", "Si", "Al")
    what = lda(ecut_eV=180.0, kpoints=(1, 1, 1))
    mixed = reference.label(what, Frames(symbols, cell, positions[None]), slot)
    grouped = reference.label(what, Frames([symbols[i] for i in order], cell, positions[order][None]), slot)
    assert grouped.forces == pytest.approx(mixed.forces[order], abs=2e-4)
    assert grouped.energy == pytest.approx(mixed.energy, abs=1e-5)


@pytest.mark.needs_espresso
@needs_espresso
def test_dispersion_is_that_of_another_program(slot):
    """D3(zero) of pw.x against the dftd3 package: energy, forces and virial are theirs to a part in 500."""
    from dftd3.ase import DFTD3

    frame = silicon()
    files = {"pseudopotentials": {"Si": "Si.pbe-rrkj.UPF"}, "ecut_eV": 200.0, "kpoints": (1, 1, 1)}
    plain, with_d3 = (
        Reference(**{**lda(**files).model_dump(), "functional": "PBE", "d3": d3}) for d3 in (None, {"method": "PBE"})
    )
    without, whole = (reference.label(one, frame, slot) for one in (plain, with_d3))
    atoms = frame.to_ase()[0]
    atoms.calc = DFTD3(method="PBE", damping="d3zero")
    assert whole.energy - without.energy == pytest.approx(atoms.get_potential_energy(), rel=2e-3)
    assert whole.forces - without.forces == pytest.approx(atoms.get_forces(), abs=4e-4)
    virial = -atoms.get_stress(voigt=False) * frame.volume[0]
    assert whole.virial - without.virial == pytest.approx(virial, abs=5e-3 * np.abs(virial).max())


@pytest.mark.needs_espresso
@needs_espresso
def test_an_scf_that_does_not_converge_or_uses_up_its_steps_is_refused(slot):
    found = reference.label(lda(max_scf_steps=3), silicon(), slot)
    assert found.refused.startswith("SCFError: pw.x says: convergence NOT achieved after 3 iterations")
    assert np.isnan(found.energy)


@pytest.mark.needs_espresso
@needs_espresso
def test_spins_are_polarised_where_it_is_said(slot):
    """Silicon has none, so the energy stays; a lone atom has, and gains energy."""
    plain, spin = lda(ecut_eV=200.0), lda(ecut_eV=200.0, spin_polarized_for=("Si",))
    cell = Frames(("Si",), 7.0 * np.eye(3)[None], [[[0.1, 0.2, 0.3]]])
    without, polarised = (reference.label(what, cell, slot) for what in (plain, spin))
    assert polarised.energy < without.energy - 0.2


@pytest.mark.needs_espresso
@needs_espresso
def test_a_left_handed_cell_has_the_same_label_with_all_the_words_of_the_code(slot):
    frame = silicon()
    mirrored = Frames(frame.symbols, frame.cell[:, [1, 0, 2]], frame.positions)
    high = {"input": {"verbosity": "high"}}
    one = reference.label(lda(ecut_eV=200.0, kpoints=(1, 2, 1)), frame, slot)
    other = reference.label(lda(ecut_eV=200.0, kpoints=(2, 1, 1), **high), mirrored, slot)
    assert other.energy == pytest.approx(one.energy, abs=1e-4)
    assert other.forces == pytest.approx(one.forces, abs=1e-3)


@pytest.mark.needs_espresso
@needs_espresso
def test_dynamics_run_through_single_points_in_folders_of_their_own(job, slot, monkeypatch, tmp_path):
    in_process(job, single_point, monkeypatch, tmp_path)
    md = ReferenceMD(n_steps=2, every=1, timestep_fs=1.0, friction_per_ps=10.0)
    what = lda(ecut_eV=150.0, kpoints=(1, 1, 1))
    frames, ended, *_ = reference.molecular_dynamics(what, silicon(), md, temperature_K=300.0, random_seed=1, slot=slot)
    assert (ended, len(frames)) == ("finished", 3)
    assert len(list((tmp_path / "job-0").iterdir())) == 3


@pytest.mark.needs_espresso
@needs_espresso
def test_another_version_than_declared_is_an_engine_error(slot):
    with pytest.raises(EngineError, match=r"this is pw.x 6.7MaX - expected 7.2 \(label.reference.espresso.version\)"):
        reference.label(lda(version="7.2", ecut_eV=100.0, kpoints=(1, 1, 1)), silicon(), slot)


# --- what an output is worth ------------------------------------------------------------------------------------------


@pytest.fixture
def outcome(job, tmp_path):
    """Return what is made of a recorded output after a change."""

    def made(change=lambda text: text, return_code=0, symbols="Si2", **request):
        (tmp_path / "pw.out").write_text(change(RECORDED.read_text()))
        atoms = Atoms(symbols, cell=4.0 * np.eye(3), pbc=True)
        request = {"version": "6.7MaX", "max_scf_steps": 100, "where": "label.reference.espresso", **request}
        return job.single_points.read(job.CODE, tmp_path, atoms, request, return_code)

    return made


def test_the_recorded_run_is_read(outcome):
    found = outcome()
    assert found["energy"] == found["free_energy"] == pytest.approx(-15.63870925 * units.Ry)
    assert found["forces"][1, 0] == pytest.approx(0.02679233 * units.Ry / units.Bohr)
    assert found["stress"][[0, 3]] == pytest.approx(np.array([-0.00018053, -0.00047694]) * units.Ry / units.Bohr**3)


@pytest.mark.parametrize(
    ("change", "return_code", "words"),
    [
        (lambda text: text[: text.index("!    total")], 0, "did not finish"),
        (lambda text: text, 137, "return code 137"),
        (lambda text: text.replace("JOB DONE", "JOB"), 0, "did not finish"),
        (lambda text: "Maximum CPU time exceeded\n" + text, 2, "pw.x was stopped: Maximum CPU time exceeded"),
        (lambda text: text + text, 0, "2 runs of pw.x wrote one output"),
        (lambda text: text.replace("PWSCF v.6.7MaX", "PWSCF v.7.1"), 0, "this is pw.x 7.1 - expected 6.7MaX"),
        (lambda text: text.replace("           Si  tau(   2)", "           C   tau(   2)"), 0, r"is of \['Si', 'C'\]"),
        (lambda text: text.replace("Forces acting on atoms", "Forces"), 0, "no 'Forces acting on atoms'"),
        (lambda text: text.replace("     atom    2 type", "     atom    3 type"), 0, "1 rows below"),
    ],
)
def test_what_is_cut_killed_or_of_something_else_is_an_error(outcome, change, return_code, words):
    with pytest.raises(RuntimeError, match=words):
        outcome(change, return_code)


def test_a_loop_that_ends_otherwise_than_it_counts_is_refused(outcome, job):
    refused = job.single_points.SCFError
    for change, limit in (
        (lambda text: text, 8),  # it took eight
        (lambda text: text.replace("achieved in   8", "achieved in   9"), 100),
        (lambda text: text.replace("     convergence has been achieved in   8 iterations\n", ""), 100),
    ):
        with pytest.raises(refused, match="the electronic loop took 8 steps of at most"):
            outcome(change, max_scf_steps=limit)
    with pytest.raises(refused, match="convergence NOT achieved after 8"):
        outcome(lambda text: text.replace("has been achieved in   8", "NOT achieved after   8"), return_code=2)


def test_stars_and_numbers_that_are_none_become_nan_which_no_label_has(outcome):
    assert np.isnan(outcome(lambda text: text.replace("-0.02679233", "***********"))["forces"][0, 0])
    nan = outcome(lambda text: re.sub(r"(!    total energy +=).*", r"\1 NaN", text))
    assert np.isnan(nan["energy"])


def test_numbers_without_a_space_between_them_are_told_apart(outcome):
    glued = outcome(lambda text: text.replace("    0.00000016    0.00000008", "  100.00000016-100.00000008"))
    assert glued["forces"][0, 1:] == pytest.approx(np.array([100.0, -100.0]) * units.Ry / units.Bohr, abs=1e-4)


# --- what is wrong before any job -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"version": 6.7}, "6.7 is a number to YAML"),
        ({"input": {"ecutwfc": 30.0}}, "ecutwfc is espresso.ecut_eV"),
        ({"input": {"starting_magnetization(1)": 1.0}}, r"starting_magnetization is espresso.spin_polarized"),
        ({"input": {"mixing_betta": 0.3}}, "mixing_betta: no keys of pw.x's namelists"),
        (
            {"input": {"xdm": True}},
            "espresso.input: xdm adds dispersion, and includes_dispersion is false - expected tr",
        ),
        ({"input": {"remove_rigid_rot": True}}, "remove_rigid_rot is none: forces stay as computed"),
        ({"xc": "SCAN"}, "espresso.xc SCAN but functional PBE"),
        ({"ecut_density_eV": 500.0}, "below four times ecut_eV"),
        ({"smearing": "fixed", "spin_polarized_for": ["Si"]}, "wants the moment of the cell"),
        ({"spin_polarized_for": ["O-Na"]}, "in alphabetical order: Na-O"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(pseudo_dir, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        pbe(pseudo_dir, **settings)


def test_a_functional_without_words_is_refused(pseudo_dir):
    known = pbe(pseudo_dir).model_dump()
    with pytest.raises(ValueError, match=r"functional r2SCAN has no name in engine espresso \(blyp, lda"):
        Reference(**{**known, "functional": "r2SCAN"})
    assert Reference(**{**known, "functional": "SCAN", "espresso": {**known["espresso"], "xc": "scan"}})


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Si.upf", r"pseudopotentials.Si: no file .*Si.upf - expected the UPF file of Si"),
        ("C.UPF", r"C.UPF is of C - expected one of Si"),
        ("Si-lda.UPF", r"Si-lda.UPF is for SLA PZ NOGX NOGC - expected PBE \(PBE, SLA PW PBE PBE, SLA PW PBX PBC\)"),
        ("Si.vdb", "no PP_HEADER with an element"),
    ],
)
def test_a_missing_or_foreign_pseudopotential_is_found_before_any_job(pseudo_dir, slot, name, sentence):
    what = pbe(pseudo_dir, pseudopotentials={"Si": name})
    with pytest.raises(ConfigError, match=sentence):
        reference.fingerprint(what, slot)
    (problem,) = espresso.ENGINE.problems(what, slot.machine, "label.reference")
    assert problem.startswith("label.reference.espresso.pseudopotentials.Si: ")


def test_an_element_without_a_pseudopotential_is_a_config_error(pseudo_dir, slot):
    what = pbe(pseudo_dir, command="true", pseudopotentials={"C": "C.UPF"})
    with pytest.raises(ConfigError, match=r"label.reference.espresso.pseudopotentials: none for Si"):
        reference.label(what, silicon(), slot)


def test_heads_of_both_versions_of_upf_are_read(pseudo_dir, slot):
    for name in ("C.UPF", "C1.UPF"):
        assert reference.fingerprint(pbe(pseudo_dir, pseudopotentials={"C": name}), slot)


def test_a_program_that_mpirun_is_to_start_is_looked_for(pseudo_dir):
    def problems(command, **machine):
        return espresso.ENGINE.problems(pbe(pseudo_dir, command=command), Machine(**machine), "label.reference")

    (line,) = problems("mpirun -n 4 /opt/none/pw.x -nk 2")
    assert line.startswith("label.reference.command: no program '/opt/none/pw.x' on the PATH, which mpirun is to start")
    assert problems("apptainer exec qe.sif pw.x") == problems("srun /opt/none/pw.x", launcher="srun") == []


def test_a_missing_executable_is_an_engine_error(pseudo_dir, slot):
    with pytest.raises(EngineError, match=r"no_such_pw.x: no such program"):
        reference.label(pbe(pseudo_dir, command="no_such_pw.x"), silicon(), slot)


def test_the_input_has_our_settings_in_rydberg_and_the_fingerprint_has_no_path(pseudo_dir, slot):
    what = pbe(pseudo_dir, d3={"method": "PBE"}, smearing="cold", ecut_density_eV=3200.0, input={"mixing_beta": 0.3})
    keys = espresso.keys_of(what)
    assert keys["ecutwfc"] == pytest.approx(29.39946, abs=1e-5)
    assert keys["ecutrho"] == pytest.approx(8 * keys["ecutwfc"])
    assert keys["degauss"] == pytest.approx(0.0036749, abs=1e-7)
    assert keys["conv_thr"] == pytest.approx(7.34986e-7, rel=1e-5)
    words = ("smearing", "nosym", "mixing_beta", "dftd3_version", "dftd3_threebody", "calculation")
    assert [keys[word] for word in words] == ["cold", True, 0.3, 3, False, "scf"]
    found = reference.fingerprint(what, slot)
    assert str(pseudo_dir) not in str(found)
    assert found["includes_dispersion"] is True
    others = [
        pbe(pseudo_dir), pbe(pseudo_dir, ecut_eV=500.0), pbe(pseudo_dir, version="7.2"),
        pbe(pseudo_dir, kpoints=(2, 2, 2)), pbe(pseudo_dir, pseudopotentials={"C": "C1.UPF"}),
        pbe(pseudo_dir, input={"mixing_beta": 0.2}), what,
    ]  # fmt: skip
    assert len({reference.fingerprint(one, slot)["sha256"] for one in others}) == len(others)
    moved_there = pseudo_dir.rename(pseudo_dir.with_name("elsewhere"))
    assert reference.fingerprint(pbe(moved_there, command="srun pw.x"), slot) == reference.fingerprint(
        pbe(moved_there), slot
    )


def test_spins_and_moments_are_written_as_shares_of_the_valence(job, pseudo_dir, tmp_path):
    atoms = Frames(("Si", "C"), 4.0 * np.eye(3)[None], [[[0, 0, 0], [2, 2, 2]]]).to_ase()[0]
    files = {kind: str(pseudo_dir / f"{kind}.UPF") for kind in ("C", "Si")}
    request = {
        "input": espresso.keys_of(pbe(pseudo_dir)), "spin": True, "moments": {"C": 6.0}, "kpoints": [2, 1, 1],
        "monkhorst_pack": False, "valences": {"Si": 4.0, "C": 4.0}, "pseudopotentials": files,
    }  # fmt: skip
    assert job.write(tmp_path, atoms, request) == ["-in", "pw.in"]
    text = " ".join((tmp_path / "pw.in").read_text().split())
    for words in (
        "starting_magnetization(1) = 0.25 starting_magnetization(2) = 1.0", "nat = 2 ntyp = 2", "nspin = 2",
        "Si 28.085 Si.UPF C 12.011 C.UPF", "K_POINTS automatic 2 1 1 0 0 0", "calculation = 'scf'",
    ):  # fmt: skip
        assert words in text
    assert (tmp_path / "Si.UPF").read_text() == (pseudo_dir / "Si.UPF").read_text()


def test_a_left_handed_cell_is_written_as_a_right_handed_one_with_the_axes_of_its_mesh(job):
    atoms = silicon().to_ase()[0]
    mirrored = atoms.copy()
    mirrored.set_cell(atoms.cell[:][[1, 0, 2]])
    turned = job.single_points.right_handed(mirrored).cell[:]
    assert np.linalg.det(turned) > 0.0
    assert np.array_equal(turned, -mirrored.cell[:]), "each vector is where it was, for kpoints: [2, 1, 1] counts them"
    assert np.array_equal(job.single_points.right_handed(atoms).cell[:], atoms.cell[:])


@pytest.mark.slow
def test_a_time_out_ends_the_code_itself(pseudo_dir, tmp_path):
    """It is in a session of its own, where no signal to our group reaches it."""
    process.allow_engines()
    sleeper = tmp_path / "pw.sh"
    sleeper.write_text(f"#!/bin/sh\necho $$ > {tmp_path / 'pid'}\nexec sleep 300\n")
    sleeper.chmod(0o755)
    hasty = Slot(Machine(label_timeout_s=20.0), tmp_path / "logs")
    with pytest.raises(EngineError, match="took more than 20 s"):
        reference.label(pbe(pseudo_dir, command=str(sleeper)), silicon(), hasty)
    pid = (tmp_path / "pid").read_text().strip()
    deadline = time.monotonic() + 10.0
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()
