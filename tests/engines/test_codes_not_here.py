"""ABACUS and FHI-aims as references, against stand-ins that check their input; no such code ran here."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from engines.real_codes import in_process, worker

from activelearn.config import Machine, Reference
from activelearn.engines import process, reference
from activelearn.engines.process import Slot
from activelearn.engines.references import abacus, aims, single_point
from activelearn.errors import ConfigError, EngineError
from activelearn.exchange import outputs
from activelearn.frames import Frames

DATA = Path(__file__).parent.parent / "data"
SYMBOLS = ("S", "Na", "P", "S", "Na", "S")
UPF = '<PP_HEADER element="{}" functional="{}" z_valence="5.0"/>\n'
CODES = ("abacus", "aims")
NAMES = {"abacus": "ABACUS", "aims": "FHI-aims"}


@pytest.fixture(scope="module")
def pairs():
    """Return energy, forces and stress as the stand-ins have them; they are derivatives (test_vasp.py)."""
    spec = importlib.util.spec_from_file_location("fake_vasp", DATA / "vasp" / "fake_vasp.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pairs


@pytest.fixture(scope="module")
def workers():
    return {code: worker(f"{code}_job") for code in CODES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pseudopotentials, orbitals and species defaults that have a head and no numbers."""
    where = tmp_path_factory.mktemp("files")
    for number, kind in ((8, "O"), (11, "Na"), (15, "P"), (16, "S")):
        (where / f"{kind}.upf").write_text(UPF.format(kind, "PBE"))
        (where / f"{kind}.orb").write_text(f"-----\nElement                     {kind}\nEnergy Cutoff(Ry) 100\n")
        (where / f"{number:02d}_{kind}_default").write_text(f"  species        {kind}\n    nucleus {number}\n")
    (where / "lda.upf").write_text(UPF.format("Na", "PZ"))
    return where


@pytest.fixture
def make(folder):
    """Return a maker of references to the stand-ins."""

    def made(code, mode="lts", *, functional="PBE", d3=None, command=None, **settings):
        files = {kind: f"{kind}.upf" for kind in ("Na", "P", "S")}
        own = {
            "abacus": {"version": "3.8.0", "pseudo_dir": str(folder), "pseudopotentials": files, "ecut_eV": 400.0},
            "aims": {
                "version": "221103",
                "species_dir": str(folder),
                "species": ["Na", "P", "S"],
                "kpoints": [2, 2, 2],
            },
        }[code]
        command = command or f"{sys.executable} {DATA / code / f'fake_{code}.py'} {mode}"
        what = {"engine": code, "command": command, "functional": functional, "includes_dispersion": False, "d3": d3}
        return Reference(**what, **{code: {**own, **settings}})

    return made


@pytest.fixture
def slot(tmp_path):
    process.allow_engines()
    return Slot(Machine(name="test", label_timeout_s=60.0), tmp_path / "logs")


@pytest.fixture
def quick(workers, monkeypatch, tmp_path):
    """Carry out the jobs in this process, by the worker of a code."""

    def prepared(code):
        in_process(workers[code], single_point, monkeypatch, tmp_path)

    return prepared


@pytest.fixture
def frame():
    """Na2PS3 in a triclinic cell, the species mixed."""
    rng = np.random.default_rng(3)
    cell = np.array([[5.1, 0.0, 0.0], [0.7, 4.9, 0.0], [-0.4, 0.6, 5.3]])
    return Frames(SYMBOLS, cell[None], rng.uniform(0.0, 1.0, (1, 6, 3)) @ cell)


def agrees(label, frame, pairs):
    """Hold a label against what the stand-in computed: energy, forces in the caller's order, virial with its sign."""
    energy, forces, stress = pairs(frame.cell[0], frame.positions[0], frame.symbols)
    assert label.refused is None
    assert label.energy == pytest.approx(energy, abs=1e-7)
    assert label.forces == pytest.approx(forces, abs=1e-6)
    assert label.virial == pytest.approx(-stress * frame.volume[0], abs=1e-4)


@pytest.mark.parametrize(
    "words", [("abacus", "lts", "3.8.0"), ("abacus", "new", "3.9.0.17"), ("aims", "good", "221103")]
)
def test_a_label_has_the_free_energy_and_forces_in_the_callers_order(make, frame, slot, pairs, words):
    """The stand-in's strength depends on the species; its other energies are 0.1 and 0.2 eV higher."""
    code, mode, version = words
    agrees(reference.label(make(code, mode, version=version), frame, slot), frame, pairs)
    assert list((slot.logs).iterdir()) == [], "scratch goes away with the answer"


def test_a_left_handed_cell_and_orbitals(make, frame, slot, pairs, quick, folder):
    mirrored = Frames(frame.symbols, frame.cell[:, [1, 0, 2]], frame.positions)
    orbitals = {kind: f"{kind}.orb" for kind in ("Na", "P", "S")}
    quick("abacus")
    what = make("abacus", basis="lcao", orbital_dir=str(folder), orbitals=orbitals)
    agrees(reference.label(what, mirrored, slot), frame, pairs)
    quick("aims")
    agrees(reference.label(make("aims", "good"), mirrored, slot), frame, pairs)


def test_the_output_of_aims_is_read_as_the_importer_reads_it(make, frame, slot, quick, monkeypatch):
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # the output stays
    quick("aims")
    label = reference.label(make("aims", "good"), frame, slot)
    (path,) = slot.logs.parent.rglob("aims.out")
    (other,) = outputs.read_aims(path)
    assert other.frame.energy[0] == pytest.approx(label.energy)
    assert other.frame.forces[0] == pytest.approx(label.forces)
    assert other.frame.virial[0] == pytest.approx(label.virial, abs=1e-5)


@pytest.mark.parametrize("code", CODES)
def test_an_scf_that_does_not_converge_or_uses_up_its_steps_is_refused(make, frame, slot, quick, code):
    quick(code)
    said = reference.label(make(code, "unconverged"), frame, slot).refused
    assert said.startswith(f"SCFError: {NAMES[code]} says: ")
    counted = reference.label(make(code, max_scf_steps=9 if code == "abacus" else 11), frame, slot).refused
    assert "steps of at most" in counted


@pytest.mark.parametrize("code", CODES)
def test_numbers_that_are_none_are_refused(make, frame, slot, quick, code):
    quick(code)
    found = reference.label(make(code, "nan"), frame, slot)
    assert found.refused == "CalculationFailed: non-finite energy, forces or stress"


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize(
    "wrong",
    [
        ("cut", {}, "did not finish"),
        ("swapped", {}, "is of .*, the input is not"),
        ("good", {"version": "1.0"}, r"this is .* - expected 1.0 \(label.reference"),
        ("good", {"command": "false"}, r"did not finish \(return code 1\)"),
    ],
)
def test_what_is_cut_or_of_something_else_is_an_engine_error(make, frame, slot, quick, code, wrong):
    mode, settings, sentence = wrong
    quick(code)
    with pytest.raises(EngineError, match=sentence):
        reference.label(make(code, mode, **settings), frame, slot)


def test_dispersion_is_the_codes_own_or_that_of_dftd3(make, frame, slot, quick, pairs):
    keys = abacus.keys_of(make("abacus", d3={"method": "PBE"}))
    assert [keys[f"vdw_{key}"] for key in ("method", "s8", "a1", "abc")] == ["d3_0", 0.722, 1.217, 0]
    what = make("aims", "good", d3={"method": "PBE"})
    found = reference.fingerprint(what, slot)
    assert {"dftd3", "cutoff_A"} <= found["d3"]["version"].keys()
    quick("aims")
    label = reference.label(what, frame, slot)
    assert label.energy < pairs(frame.cell[0], frame.positions[0], frame.symbols)[0] - 0.1


@pytest.mark.parametrize(
    ("code", "settings", "sentence"),
    [
        ("abacus", {"input": {"ecutwfc": 60}}, "ecutwfc is abacus.ecut_eV"),
        ("abacus", {"basis": "lcao"}, "abacus.basis lcao with orbitals of no element"),
        ("abacus", {"functional": "revPBE"}, r"functional revPBE has no name in engine abacus \(blyp"),
        ("abacus", {"xc": "blyp"}, "abacus.xc blyp but functional PBE - expected the same"),
        ("aims", {"input": {"xc": "pbe"}}, "aims.input: xc is aims.xc"),
        ("aims", {"xc": "pw-lda"}, "aims.xc pw-lda but functional PBE - expected the same"),
        ("aims", {"xc": "dfauto scan"}, "aims.xc dfauto scan but functional PBE - expected the same"),
        (
            "aims",
            {"input": {"many_body_dispersion": ""}},
            "many_body_dispersion adds dispersion, and includes_dispersion",
        ),
        (
            "aims",
            {"input": {"vdw_correction_hirshfeld": True}},
            "vdw_correction_hirshfeld adds dispersion, and include",
        ),
        ("aims", {"functional": "HSE06"}, r"functional HSE06 has no name in engine aims \(b3lyp"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(make, code, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(code, **settings)


@pytest.mark.parametrize(
    ("code", "settings", "sentence"),
    [
        ("abacus", {"pseudopotentials": {"Na": "none.upf"}}, "pseudopotentials.Na: no file"),
        ("abacus", {"pseudopotentials": {"Na": "lda.upf"}}, "lda.upf is for PZ - expected PBE"),
        ("aims", {"species": ["Na", "Cl"]}, "species.Cl: no file .*17_Cl_default"),
    ],
)
def test_missing_data_are_found_before_any_job(make, slot, code, settings, sentence):
    what = make(code, **settings)
    with pytest.raises(ConfigError, match=sentence):
        reference.fingerprint(what, slot)
    engine = {"abacus": abacus, "aims": aims}[code].ENGINE
    (line,) = engine.problems(what, slot.machine, "label.reference")
    assert sentence.partition(":")[0].partition(" ")[0] in line


@pytest.mark.parametrize("code", CODES)
def test_the_fingerprint_is_of_data_and_settings_not_of_places(make, slot, folder, code):
    first = reference.fingerprint(make(code), slot)
    assert str(folder) not in str(first)
    assert reference.fingerprint(make(code, command="srun code"), slot) == first
    others = [make(code, smearing_eV=0.1), make(code, spin_polarized_for=["O"]), make(code, version="9"),
              make(code, input={"mixing_beta": 0.1} if code == "abacus" else {"charge": 0.0})]  # fmt: skip
    assert len({first["sha256"], *(reference.fingerprint(one, slot)["sha256"] for one in others)}) == 5


def test_moments_are_written_per_species_and_per_atom(make, workers, tmp_path, folder):
    atoms = Frames(("Na", "O", "Na"), 5.0 * np.eye(3)[None], [np.eye(3)]).to_ase()[0]
    common = {"spin": True, "moments": {"O": 2.0}, "kpoints": [1, 1, 1]}
    files = {"pseudopotentials": {kind: str(folder / f"{kind}.upf") for kind in ("Na", "O")},
             "species": {"Na": str(folder / "11_Na_default"), "O": str(folder / "08_O_default")}}  # fmt: skip
    for code, module in (("abacus", abacus), ("aims", aims)):
        (tmp_path / code).mkdir()
        keys = {"input": module.keys_of(make(code))}
        workers[code].write(tmp_path / code, atoms, {**common, **files, **keys})
    stru = " ".join((tmp_path / "abacus" / "STRU").read_text().split())
    assert "Cartesian Na 1.0 2 1 0 0 0 0 0 0 0 1 0 0 0 O 2.0 1 0 1 0 0 0 0" in stru
    assert "nspin 2" in (tmp_path / "abacus" / "INPUT").read_text()
    geometry = (tmp_path / "aims" / "geometry.in").read_text().splitlines()[3:]
    assert [line.split()[-1] for line in geometry] == ["Na", "1.0", "O", "2.0", "Na", "1.0"]
    assert "spin collinear" in (tmp_path / "aims" / "control.in").read_text()
