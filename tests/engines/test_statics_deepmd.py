"""Statics of a DeePMD model, and of what fails: no half-made calculator stays, no path is in a fingerprint."""

import importlib.util

import numpy as np
import pytest
from ase.build import bulk
from campaigns import end_sessions

from activelearn.config import Machine, Potential, Relax
from activelearn.engines import process, reference
from activelearn.engines.process import Slot
from activelearn.errors import EngineError
from activelearn.frames import Frames

pytestmark = pytest.mark.engines

needs_dftd3 = pytest.mark.skipif(
    importlib.util.find_spec("dftd3") is None, reason="pip install 'activelearn[local]' (dftd3)"
)
PHYSICS = {"functional": "PBE", "includes_dispersion": False}


def statics(**what):
    return Potential.model_validate({"name": "toy", **PHYSICS, **what}).statics()


ARGON = {"pair_style": "lj/cut 7.0", "pair_coeff": ["* * 0.0103 3.4"], "elements": ["Ar"]}


def turned(symbol, a, repeat=(1, 1, 2)):
    """Rattled, strained and turned: no axis of the cell lies along x."""
    atoms = bulk(symbol, "fcc", a=a, cubic=True) * repeat
    atoms.rattle(0.1, seed=1)
    shear = np.array([[1.0, 0.05, 0.0], [0.0, 1.0, 0.05], [-0.03, 0.0, 1.0]])
    atoms.set_cell(atoms.cell[:] @ shear, scale_atoms=True)
    atoms.rotate(50.0, (1.0, 2.0, -0.5), rotate_cell=True)
    return Frames.from_ase([atoms])


COPPER = turned("Cu", 3.65)


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    process.allow_engines()
    yield Slot(Machine(name="test"), tmp_path_factory.mktemp("logs"))
    end_sessions()


@pytest.fixture(scope="module")
def model(undisturbed):
    """A model of a campaign, of copper."""
    store = undisturbed[0]
    return str(store.folder / store.iterations()[-1].ensemble.members[0].model)


def same(a, b):
    return a.energy == b.energy and np.array_equal(a.forces, b.forces) and np.array_equal(a.virial, b.virial)


# --- a model ----------------------------------------------------------------------------------------------------------


def test_forces_and_virial_of_a_model_are_derivatives(model, slot):
    """The net is of float32, so h is not small."""
    what, h = statics(deepmd={"models": [model]}), 2e-3
    found = reference.label(what, COPPER, slot)

    def energy(strain, dx=0.0):
        positions = COPPER.positions.copy()
        positions[0, -1, 0] += dx
        grown = np.eye(3) + strain
        return reference.label(what, Frames(COPPER.symbols, COPPER.cell @ grown, positions @ grown), slot).energy

    zero = np.zeros((3, 3))
    assert found.forces[-1, 0] == pytest.approx(-(energy(zero, h) - energy(zero, -h)) / (2 * h), abs=5e-3)
    for i, j in ((0, 0), (1, 2)):
        strain = zero.copy()
        strain[i, j] += h / 2
        strain[j, i] += h / 2
        assert found.virial[i, j] == pytest.approx(-(energy(strain) - energy(-strain)) / (2 * h), abs=0.05)
    assert same(reference.label(what, COPPER, slot), found), "to the bit, whatever stood there in between"


def test_a_model_gives_by_deepmd_what_it_gives_in_lammps(model, slot):
    """Order of atoms, units and the sign of the virial, by two programs that share the file alone."""
    style = {"pair_style": f"deepmd {model}", "pair_coeff": ["* * Cu"], "elements": ["Cu"]}
    a = reference.label(statics(deepmd={"models": [model]}), COPPER, slot)
    b = reference.label(statics(lammps=style), COPPER, slot)
    assert np.abs(a.virial).max() > 0.1
    assert a.energy == pytest.approx(b.energy, rel=1e-6)
    assert a.forces == pytest.approx(b.forces, abs=1e-4)
    assert a.virial == pytest.approx(b.virial, abs=1e-3)


@needs_dftd3
def test_dispersion_is_laid_over_a_model(model, slot):
    from dftd3.ase import DFTD3

    bare = reference.label(statics(deepmd={"models": [model]}), COPPER, slot)
    found = reference.label(statics(deepmd={"models": [model]}, d3={"method": "PBE"}), COPPER, slot)
    atoms = COPPER.to_ase()[0]
    cutoff = {"disp2": 50.2, "cn": 20.0, "width2": 4.0}  # of the worker
    atoms.calc = DFTD3(method="PBE", damping="d3zero", realspace_cutoff=cutoff)
    assert atoms.get_potential_energy() < -0.1
    assert found.energy == pytest.approx(bare.energy + atoms.get_potential_energy(), rel=1e-12)
    assert found.forces == pytest.approx(bare.forces + atoms.get_forces(), abs=1e-9)
    stress = atoms.get_stress(voigt=False)
    assert found.virial == pytest.approx(bare.virial - stress * COPPER.volume[0], abs=1e-9)


def test_a_model_relaxes_positions_and_cell(model, slot):
    """To wherever so small a model has its minimum."""
    found, ended, _, _ = reference.relax(
        statics(deepmd={"models": [model]}), COPPER, Relax(fmax=0.05, max_steps=200), slot
    )
    assert ended == "relaxed"
    assert np.abs(found.forces).max() < 0.05
    assert np.abs(found.virial).max() < 0.05 * 8, "per atom, by the same fmax"


def test_the_fingerprint_of_a_model_is_its_content(model, slot):
    found = reference.fingerprint(statics(deepmd={"models": [model]}), slot)
    assert found["arguments"]["model"].startswith("sha256:")
    assert found["version"].startswith("3.")


# --- what fails -------------------------------------------------------------------------------------------------------


def test_a_fault_leaves_no_half_made_calculator_behind(slot):
    """An element without an atom type stops LAMMPS half way through its set-up."""
    what = statics(lammps=ARGON)
    argon = turned("Ar", 5.4)
    stranger = Frames((*argon.symbols[:-1], "Kr"), argon.cell, argon.positions)
    for _ in range(2):
        with pytest.raises(EngineError, match="KeyError: 'Kr'"):
            reference.label(what, stranger, slot)
        assert reference.label(what, argon, slot).refused is None


def test_a_line_that_lammps_does_not_understand_is_an_error_in_its_words(slot):
    argon = turned("Ar", 5.4)
    with pytest.raises(EngineError, match="lj/cutt"):
        reference.label(statics(lammps=ARGON | {"pair_style": "lj/cutt 7.0"}), argon, slot)
    assert reference.label(statics(lammps=ARGON), argon, slot).refused is None


def test_the_fingerprint_of_a_pair_style_holds_the_content_of_its_files_and_no_path(slot, tmp_path):
    (tmp_path / "cu.table").write_text("one")
    lines = [f"* * {tmp_path}/cu.table ENTRY"]
    what = statics(lammps={"pair_style": "table linear 10", "pair_coeff": lines, "elements": ["Cu"]})
    one = reference.fingerprint(what, slot)
    assert str(tmp_path) not in str(one)
    assert one["version"] != "unknown"
    (tmp_path / "cu.table").write_text("two")
    assert reference.fingerprint(what, slot)["sha256"] != one["sha256"]
