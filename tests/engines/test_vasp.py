"""VASP as a reference, against a stand-in that checks its input files; its output is read as pymatgen reads VASP's."""

import importlib.util
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from activelearn.config import Machine, Reference, ReferenceMD, Relax
from activelearn.engines import process, reference
from activelearn.engines.process import Slot
from activelearn.engines.references import vasp
from activelearn.errors import ConfigError, EngineError
from activelearn.frames import Frames

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("custodian") is None, reason="pip install 'activelearn[local]' (custodian)"
)
FAKE = Path(__file__).parent.parent / "data" / "vasp" / "fake_vasp.py"
SYMBOLS = ("S", "Na", "P", "S", "Na", "S")
POTCAR = """  PAW_PBE {name} 01Jan2000
   5.00000000000000
 parameters from PSCTR are:
   VRHFIN ={element}: s2p3
   LEXCH  = PE
   EATOM  =   100.0000 eV,    7.0000 Ry

   TITEL  = {titel} {name} 01Jan2000
   LULTRA =        F    use ultrasoft PP ?
   RPACOR =    1.300    partial core radius
   POMASS =   10.000; ZVAL   =    5.000    mass and valenz
   RCORE  =    1.500    outmost cutoff radius
   RWIGS  =    1.500; RWIGS  =    0.794    wigner-seitz radius (au A)
   ENMAX  =  250.000; ENMIN  =  190.000 eV
   EAUG   =  500.000
END of PSCTR-controll parameters
 local part
   98.0  0.1  0.2
 End of Dataset
"""


def by_path(path):
    """Import a script that is started by path."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    sys.path.insert(0, str(path.parent))  # as Python does
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = before
    return module


@pytest.fixture(scope="module")
def worker():
    return by_path(Path(process.__file__).with_name("workers") / "vasp_job.py")


@pytest.fixture
def in_process(worker, monkeypatch, tmp_path):
    """Carry out the worker's jobs in this process: it imports pymatgen once, not for each label."""

    def run_job(command, request, slot):
        folder = tmp_path / f"job-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        request = json.loads(json.dumps(request))
        answer = worker.single_points.answering.answer(request, lambda request: worker.Vasp(request, folder))
        if "error" in answer:
            raise EngineError(answer["error"])
        return answer

    monkeypatch.setattr(worker, "POLL_S", 0.05)
    monkeypatch.setattr(vasp, "run_job", run_job)


@pytest.fixture(scope="module")
def potcar_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("potpaw")
    for name, element, titel in (
        *(("Na_pv", "Na", "PAW_PBE"), ("P", "P", "PAW_PBE"), ("S", "S", "PAW_PBE"), ("O", "O", "PAW_PBE")),
        *(("Na_sv", "K", "PAW_PBE"), ("Na_lda", "Na", "PAW")),
    ):
        (folder / name).mkdir()
        (folder / name / "POTCAR").write_text(
            POTCAR.format(name=name.replace("Na", element), element=element, titel=titel)
        )
    return folder


@pytest.fixture
def slot(tmp_path):
    process.allow_engines()
    return Slot(Machine(name="test", label_timeout_s=60.0), tmp_path / "logs")


@pytest.fixture
def make(potcar_dir, tmp_path):
    """Return a maker of references to the stand-in; what it saw is in seen.json."""

    def made(mode="good", *, command=None, d3=None, **settings):
        settings = {
            "version": "6.3.0",
            "potcar_dir": str(potcar_dir),
            "potcars": {"Na": "Na_pv", "P": "P", "S": "S", "O": "O"},
            **settings,
        }
        command = command or f"{sys.executable} {FAKE} {mode} {tmp_path / 'seen.json'}"
        return Reference(
            engine="vasp", command=command, functional="PBE", includes_dispersion=False, d3=d3, vasp=settings
        )

    return made


@pytest.fixture
def frame():
    """Na2PS3 in a triclinic cell, the species mixed."""
    rng = np.random.default_rng(3)
    cell = np.array([[5.1, 0.0, 0.0], [0.7, 4.9, 0.0], [-0.4, 0.6, 5.3]])
    return Frames(SYMBOLS, cell[None], rng.uniform(0.0, 1.0, (1, 6, 3)) @ cell)


def moved(frame, positions=None, cell=None):
    return Frames(
        frame.symbols, frame.cell if cell is None else cell, frame.positions if positions is None else positions
    )


# --- a good run -------------------------------------------------------------------------------------------------------


def test_a_label_has_the_papers_files_and_forces_in_the_callers_order(make, frame, slot, tmp_path):
    """The stand-in's strength depends on the species: forces of another atom would not be these."""
    found = reference.label(make(d3={"method": "PBE"}), frame, slot)
    assert found.refused is None
    energy, forces, stress = by_path(FAKE).pairs(frame.cell[0], frame.positions[0], SYMBOLS)
    assert found.energy == pytest.approx(energy, abs=1e-7)
    assert found.forces == pytest.approx(forces, abs=1e-7)
    assert found.virial == pytest.approx(-stress * frame.volume[0], abs=1e-6)
    assert np.abs(found.virial).min() > 1e-3
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["species"] == ["Na", "P", "S"]
    assert seen["counts"] == [2, 1, 3]
    assert {"INCAR", "POSCAR", "POTCAR"} <= set(seen["files"])
    assert "KPOINTS" not in seen["files"], "KSPACING says it"
    assert seen["incar"] == {
        "GGA": "PE", "ENCUT": "400", "KSPACING": "0.5", "EDIFF": "1e-05", "ISMEAR": "0", "SIGMA": "0.05",
        "ISPIN": "1", "ISYM": "0", "NSW": "0", "LWAVE": ".FALSE.", "LCHARG": ".FALSE.", "IVDW": "11",
    }  # fmt: skip
    assert list((tmp_path / "logs").iterdir()) == [], "scratch goes away with the answer"


def test_the_stand_in_is_an_honest_engine(frame):
    """Its forces and stress are the derivatives of its energy, else the tests here would prove nothing."""
    pairs, h = by_path(FAKE).pairs, 1e-5
    _, forces, stress = pairs(frame.cell[0], frame.positions[0], SYMBOLS)
    energies = []
    for sign in (1.0, -1.0):
        positions = frame.positions[0].copy()
        positions[2, 1] += sign * h
        strain = np.eye(3)
        strain[0, 2] += sign * h
        energies.append(
            (
                pairs(frame.cell[0], positions, SYMBOLS)[0],
                pairs(frame.cell[0] @ strain, frame.positions[0] @ strain, SYMBOLS)[0],
            )
        )
    slope = (np.array(energies[0]) - energies[1]) / (2.0 * h)
    assert slope[0] == pytest.approx(-forces[2, 1], abs=1e-6)
    assert slope[1] == pytest.approx(stress[0, 2] * frame.volume[0], abs=1e-6)


def test_tags_of_ones_own_spin_by_elements_and_a_mesh(make, frame, slot, in_process, tmp_path):
    oxygen = Frames(("O", "O"), 6.0 * np.eye(3)[None], [[[0, 0, 0], [1.21, 0, 0]]])
    mine = make(incar={"ENCUT": 520, "NCORE": 4}, incar_for={"O": {"ISPIN": 2}}, kpoints=(2, 2, 1))
    for structure, spin in ((oxygen, "2"), (frame, "1")):
        assert reference.label(mine, structure, slot).refused is None
        seen = json.loads((tmp_path / "seen.json").read_text())
        assert seen["incar"]["ISPIN"] == spin
        assert seen["incar"]["ENCUT"] == "520"
        assert "IVDW" not in seen["incar"]
        assert "KPOINTS" in seen["files"]


def test_a_run_that_gave_a_label_leaves_no_file_and_one_that_did_not_leaves_them_all(
    make, frame, slot, in_process, tmp_path
):
    reference.label(make(), frame, slot)
    reference.label(make("unconverged", max_corrections=1), frame, slot)
    good, bad = sorted(tmp_path.glob("job-*/run-0"))
    assert list(good.iterdir()) == []
    assert {"INCAR", "OUTCAR", "vasprun.xml"} <= {path.name for path in bad.iterdir()}


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [({"ISIF": 1}, "ISIF 0 or 1"), ({"ISIF": "1"}, "ISIF 0 or 1"), ({"ML_LMLFF": True}, "ML_LMLFF, VASP's")],
)
def test_tags_that_spoil_a_label_are_refused_before_any_job(make, tags, sentence):
    for given in ({"incar": tags}, {"incar_for": {"O": tags}}):
        with pytest.raises(ValueError, match=sentence):
            make(**given)
    assert make(incar={"ISIF": 2, "ML_LMLFF": False})


@pytest.mark.parametrize("tag", ["LUSE_VDW", "LVDW"])
def test_a_tag_that_adds_dispersion_which_the_reference_denies_is_refused(make, tag):
    for given in ({"incar": {tag: True}}, {"incar_for": {"O": {tag: True}}}):
        with pytest.raises(ValueError, match=f"{tag} adds dispersion, and includes_dispersion is false - expected tr"):
            make(**given)
    assert make(incar={tag: False})


def test_a_left_handed_cell_is_written_as_a_right_handed_one(make, frame, slot, in_process):
    mirrored = moved(frame, cell=frame.cell[:, [1, 0, 2]])
    one, other = (reference.label(make(), f, slot) for f in (frame, mirrored))
    assert other.energy == pytest.approx(one.energy, abs=1e-6)
    assert other.virial == pytest.approx(one.virial, abs=1e-6)


def test_a_recorded_run_is_read_as_ase_reads_it(worker):
    """Independent witness of signs and units: VASP 6.3.0's own vasprun.xml, which comes with ASE."""
    import ase
    from ase import units
    from ase.io import read

    recorded = Path(ase.__file__).parent / "test" / "testdata" / "vasp" / "vasprun_pstress.xml"
    if not recorded.is_file():
        pytest.skip("this ASE came without its test data")
    atoms = read(recorded)
    found = worker.read(recorded.parent, atoms, np.arange(2), "6.3.0", None, name=recorded.name)
    enthalpy = atoms.get_potential_energy(force_consistent=True) + 0.1 * units.GPa * atoms.get_volume()  # PSTRESS = 1
    assert found["free_energy"] == pytest.approx(enthalpy, abs=1e-6)
    assert found["forces"] == pytest.approx(atoms.get_forces())
    assert found["stress"] == pytest.approx(atoms.get_stress())
    assert abs(found["stress"]).max() > 0.01


def test_dynamics_and_relaxation_run_through_single_points(make, frame, slot, in_process):
    md = ReferenceMD(n_steps=2, every=1, timestep_fs=1.0, friction_per_ps=10.0)
    frames, ended, *_ = reference.molecular_dynamics(make(), frame, md, temperature_K=300.0, random_seed=1, slot=slot)
    assert ended == "finished"
    single = reference.label(make(), moved(frame, frames.positions[2:]), slot)
    assert frames.energy[2] == pytest.approx(single.energy, abs=1e-6)
    assert frames.forces[2] == pytest.approx(single.forces, abs=1e-6)
    relaxed, ended, *_ = reference.relax(make(), frame, Relax(fmax=0.01, max_steps=2, cell=False), slot)
    assert ended == "not relaxed in 2 steps"
    assert relaxed.energy[0] < reference.label(make(), frame, slot).energy


# --- what is refused --------------------------------------------------------------------------------------------------


def test_an_unconverged_scf_is_refused_after_what_custodian_tried(make, frame, slot, in_process):
    found = reference.label(make("unconverged"), frame, slot)
    assert found.refused.startswith(
        "SCFError: the electronic loop did not converge in 60 iterations, NELM = 60 (custodian tried: Unconverged"
    )
    assert np.isnan(found.energy)


@pytest.mark.parametrize(("nelm", "is_label"), [(8, True), (7, False), (1, False)])
def test_a_loop_that_used_up_its_iterations_is_refused_even_if_it_converged_in_the_last(
    make, frame, slot, in_process, nelm, is_label
):
    """The stand-in needs seven; NELM is that of the run, not VASP's own default."""
    found = reference.label(make(incar={"NELM": nelm}, max_corrections=1), frame, slot)
    assert (found.refused is None) == is_label
    if not is_label:
        assert f"did not converge in {nelm} iterations, NELM = {nelm} (custodian tried: " in found.refused


def test_one_iteration_of_an_exact_diagonalisation_is_no_converged_loop(
    make, frame, slot, in_process, worker, tmp_path
):
    """Pymatgen says that it is: it takes ALGO = Exact with NELM = 1 for the second step of a GW calculation."""
    from pymatgen.io.vasp.outputs import Vasprun

    found = reference.label(make(incar={"ALGO": "Exact", "NELM": 1}), frame, slot)
    assert found.refused.startswith("SCFError: the electronic loop did not converge in 1 iterations, NELM = 1")
    (run,) = tmp_path.glob("job-*/run-0/vasprun.xml")
    assert Vasprun(str(run), parse_potcar_file=False).converged_electronic


def test_what_custodian_saves_by_another_algorithm_is_a_label(make, frame, slot, in_process, tmp_path):
    found = reference.label(make("stubborn"), frame, slot)
    assert json.loads((tmp_path / "seen.json").read_text())["incar"]["ALGO"] == "All"
    assert found.refused is None
    assert found.energy == reference.label(make(), frame, slot).energy


def test_what_custodian_saves_by_another_level_of_theory_is_refused(make, frame, slot, in_process):
    found = reference.label(make("fussy", incar={"LREAL": "Auto"}), frame, slot)
    assert found.refused == "CalculationFailed: custodian changed the level of theory: LREAL Auto -> False"


# --- infrastructure ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "sentence"),
    [
        ("crash", "SIGSEGV, segmentation fault"),
        ("cut", "Validation failed: VasprunXMLValidator"),
        ("swapped", r"vasprun.xml is of \['S', 'S', 'S', 'P', 'Na', 'Na'\], POSCAR is not"),
    ],
)
def test_a_crash_and_unreadable_output_are_engine_errors(make, frame, slot, in_process, mode, sentence):
    with pytest.raises(EngineError, match=sentence):
        reference.label(make(mode), frame, slot)


def test_another_version_than_declared_is_an_engine_error(make, frame, slot, in_process):
    with pytest.raises(EngineError, match=r"this is VASP 6.3.0 - expected 6.4.2"):
        reference.label(make(version="6.4.2"), frame, slot)


def test_a_missing_executable_is_an_engine_error(make, frame, slot):
    with pytest.raises(EngineError, match="no_such_vasp: no such program"):
        reference.label(make(command="no_such_vasp -n 4"), frame, slot)


@pytest.mark.slow
def test_a_time_out_ends_vasp_itself(make, frame, tmp_path):
    """Custodian starts VASP in a session of its own, where no signal to our group reaches it."""
    process.allow_engines()
    hasty = Slot(Machine(label_timeout_s=20.0), tmp_path / "logs")
    with pytest.raises(EngineError, match="took more than 20 s"):
        reference.label(make("slow"), frame, hasty)
    pid = json.loads((tmp_path / "seen.json").read_text())["pid"]
    deadline = time.monotonic() + 5.0
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()


# --- POTCARs and the fingerprint --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Na_gw", r"potcars.Na: no file .*Na_gw/POTCAR - expected the POTCAR of Na"),
        ("Na_sv", r"potcars.Na: .*Na_sv/POTCAR is of PAW_PBE K_sv 01Jan2000 - expected one of Na"),
        ("Na_lda", r"potcars.Na: .* is PAW - expected PAW_PBE for functional PBE"),
    ],
)
def test_a_missing_or_foreign_potcar_is_found_before_any_job(make, slot, name, sentence):
    with pytest.raises(ConfigError, match=sentence):
        reference.fingerprint(make(potcars={"Na": name}), slot)


def test_an_element_without_potcar_is_a_config_error(make, frame, slot):
    with pytest.raises(ConfigError, match=r"potcars: none for P - expected the POTCAR of every element"):
        reference.label(make(potcars={"Na": "Na_pv", "S": "S"}), frame, slot)


def test_the_fingerprint_has_not_changed(make, slot):
    """A ledger of before the engines had a module each is as good as ever."""
    named = {"potcars": {"Na": "Na_pv", "S": "S"}, "incar": {"ENCUT": 520}, "incar_for": {"S": {"ISPIN": 2}}}
    found = reference.fingerprint(make(version="6.4.2", kpoints=(2, 2, 1), d3={"method": "PBE"}, **named), slot)
    assert found["sha256"] == "3c3a5ac41377fbb0a4d70ba9513ebe42c46299626808542be3a5fab28f493448"


def test_the_fingerprint_is_of_tags_and_potcars_not_of_places_and_processes(make, slot, potcar_dir, tmp_path):
    plain = reference.fingerprint(make(), slot)
    assert str(potcar_dir) not in json.dumps(plain)
    assert plain["arguments"]["potcars"]["Na"]["titel"] == "PAW_PBE Na_pv 01Jan2000"
    same = [make("crash"), make(incar={"NCORE": 4, "KPAR": 2})]
    assert [reference.fingerprint(one, slot)["sha256"] for one in same] == [plain["sha256"]] * 2
    for_oxygen = [make(incar_for={"O": {"ISPIN": 2, **more}}) for more in ({}, {"NCORE": 1})]
    assert len({reference.fingerprint(one, slot)["sha256"] for one in for_oxygen}) == 1
    assert reference.fingerprint(make(incar_for={"O": {"NCORE": 1}}), slot) == plain
    for folder in potcar_dir.iterdir():
        (tmp_path / "other" / folder.name).mkdir(parents=True)
        (tmp_path / "other" / folder.name / "POTCAR").write_text((folder / "POTCAR").read_text())
    assert reference.fingerprint(make(potcar_dir=str(tmp_path / "other")), slot) == plain
    (tmp_path / "other" / "P" / "POTCAR").write_text(POTCAR.format(name="P", element="P", titel="PAW_PBE") + "\n")
    others = [
        make(potcar_dir=str(tmp_path / "other")),
        make(incar={"ENCUT": 520}),
        make(incar_for={"O": {"ISPIN": 2}}),
        make(kpoints=(2, 2, 2)),
        make(version="6.4.2"),
        make(d3={"method": "PBE"}),
    ]
    sums = {reference.fingerprint(one, slot)["sha256"] for one in others} | {plain["sha256"]}
    assert len(sums) == len(others) + 1
    assert reference.fingerprint(others[-1], slot)["includes_dispersion"] is True
