"""Energies, forces, stress and relaxation of every kind of potential, by the one door of the reference."""

import importlib.util

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.neighborlist import neighbor_list
from campaigns import end_sessions

from activelearn.config import Machine, Potential, Relax
from activelearn.engines import process, reference
from activelearn.engines.process import Slot
from activelearn.frames import Frames

pytestmark = pytest.mark.engines
needs_dftd3 = pytest.mark.skipif(
    importlib.util.find_spec("dftd3") is None, reason="pip install 'activelearn[local]' (dftd3)"
)

#: Two kinds of atoms, listed in another order than that of the alphabet.
SALT = {
    "pair_style": "lj/cut 6.0",
    "pair_coeff": ["1 1 0.01 2.8", "2 2 0.03 3.2", "1 2 0.02 2.5"],
    "elements": ["S", "Na"],
}
D3 = {"method": "PBE", "damping": "zero"}


def styled(style, d3=None):
    return Potential.model_validate(
        {"name": "LJ", "lammps": style, "functional": "PBE", "includes_dispersion": False, "d3": d3}
    )


ARGON = styled({"pair_style": "lj/cut 7.0", "pair_coeff": ["* * 0.0103 3.4"], "elements": ["Ar"]})


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    process.allow_engines()
    yield Slot(Machine(name="test"), tmp_path_factory.mktemp("logs"))
    end_sessions()


def argon(repeat=3, random_seed=1):
    """Sheared, in an orientation that is not LAMMPS', atoms outside the cell."""
    atoms = bulk("Ar", a=5.5, cubic=True) * (repeat, repeat, repeat)
    shear = np.array([[1.0, 0.05, 0.0], [0.0, 1.0, 0.1], [-0.08, 0.0, 1.0]])
    atoms.set_cell(atoms.cell[:] @ shear, scale_atoms=True)
    atoms.rotate(50.0, (1.0, 2.0, -0.5), rotate_cell=True)
    atoms.rattle(0.1, seed=random_seed)
    atoms.positions[0] += 2.0 * atoms.cell[0] - atoms.cell[2]
    return Frames.from_ase([atoms])


def rocksalt():
    atoms = bulk("NaS", "rocksalt", a=5.4, cubic=True) * (2, 2, 2)
    atoms.rattle(0.05, seed=2)
    del atoms[[1, 3]]
    shear = np.array([[1.0, 0.02, 0.0], [0.0, 1.0, 0.03], [0.04, 0.0, 1.0]])
    atoms.set_cell(atoms.cell[:] @ shear, scale_atoms=True)
    return Frames.from_ase([atoms])


def strained(frame, strain):
    """The frame after x -> (1 + strain) x."""
    grow = np.eye(3) + strain
    return Frames(frame.symbols, frame.cell @ grow, frame.positions @ grow)


def derivatives_are_right(what, frame, slot, *, h=1e-4, rel=1e-4):
    """Forces and virial of a structure are the derivatives of its energy, to `rel` of the largest."""
    found = reference.label(what, frame, slot)
    for atom, axis in ((0, 0), (5, 2)):
        ends = []
        for sign in (1.0, -1.0):
            moved = frame.positions.copy()
            moved[0, atom, axis] += sign * h
            ends.append(reference.label(what, Frames(frame.symbols, frame.cell, moved), slot).energy)
        assert found.forces[atom, axis] == pytest.approx(
            -(ends[0] - ends[1]) / (2.0 * h), abs=rel * np.abs(found.forces).max()
        )
    for i, j in ((0, 0), (0, 1), (1, 2), (2, 2)):
        strain = np.zeros((3, 3))
        strain[i, j] += 0.5 * h
        strain[j, i] += 0.5 * h
        ends = [reference.label(what, strained(frame, sign * strain), slot).energy for sign in (1.0, -1.0)]
        assert found.virial[i, j] == pytest.approx(
            -(ends[0] - ends[1]) / (2.0 * h), abs=rel * np.abs(found.virial).max()
        ), (i, j)
    return found


def test_argon_in_lammps_is_argon_in_ase(slot):
    """ASE shifts the energy of every pair by that at the cutoff; forces and stress are the same."""
    for frame in (argon(), argon(2)):  # the second: fewer atoms, images beyond the nearest
        found = reference.label(ARGON.statics(), frame, slot)
        atoms = frame.to_ase()[0]
        atoms.calc = LennardJones(epsilon=0.0103, sigma=3.4, rc=7.0, smooth=False)
        fall = (3.4 / 7.0) ** 6
        n_pairs = len(neighbor_list("i", atoms, 7.0)) / 2
        assert found.energy == pytest.approx(
            atoms.get_potential_energy() + n_pairs * 4.0 * 0.0103 * (fall**2 - fall), rel=1e-10
        )
        assert found.forces == pytest.approx(atoms.get_forces(), abs=1e-9)
        assert found.virial == pytest.approx(-atoms.get_stress(voigt=False) * atoms.get_volume(), rel=1e-6)  # units


def test_a_label_of_lammps_depends_on_nothing_before_it(slot):
    first = reference.label(ARGON.statics(), argon(), slot)
    reference.label(ARGON.statics(), argon(2), slot)
    again = reference.label(ARGON.statics(), argon(), slot)
    assert again.energy == first.energy
    assert np.array_equal(again.forces, first.forces)


def smooth(d3=None):
    """Without the step of the energy at the cutoff, which a difference of energies would see."""
    return styled({**SALT, "pair_style": "lj/smooth/linear 6.0"}, d3).statics()


def test_forces_and_virial_of_lammps_are_derivatives(slot):
    derivatives_are_right(smooth(), rocksalt(), slot)


@needs_dftd3
def test_dispersion_comes_on_top_of_lammps(slot):
    bare = reference.label(smooth(), rocksalt(), slot)
    both = derivatives_are_right(smooth(D3), rocksalt(), slot, rel=1e-3)
    assert both.energy < bare.energy - 1.0


def test_lammps_relaxes_positions_and_cell(slot):
    """Face-centred argon with neighbours up to 7 Å: all atoms home, no stress, cubic again."""
    frame, ended, _, _ = reference.relax(
        styled({**ARGON.lammps.model_dump(), "pair_style": "lj/smooth/linear 7.0"}).statics(),
        argon(2),
        Relax(fmax=1e-4, max_steps=500),
        slot,
    )
    assert ended == "relaxed"
    assert np.abs(frame.virial).max() < 1e-2
    metric = frame.cell[0] @ frame.cell[0].T
    assert metric == pytest.approx(np.eye(3) * metric[0, 0], rel=1e-3, abs=0.1)


def test_two_pair_styles_in_one_session_are_kept_apart(slot):
    deep = styled({"pair_style": "lj/cut 7.0", "pair_coeff": ["* * 0.0206 3.4"], "elements": ["Ar"]})
    shallow, twice = (reference.label(what.statics(), argon(), slot) for what in (ARGON, deep))
    assert twice.energy == pytest.approx(2.0 * shallow.energy)
    assert reference.label(ARGON.statics(), argon(), slot).energy == shallow.energy


def test_two_atoms_on_one_site_are_refused_and_the_session_goes_on(slot):
    whole = reference.label(ARGON.statics(), argon(), slot)
    positions = argon().positions.copy()
    positions[0, 1] = positions[0, 2]
    broken = reference.label(ARGON.statics(), Frames(argon().symbols, argon().cell, positions), slot)
    assert "non-finite" in broken.refused
    assert reference.label(ARGON.statics(), argon(), slot).energy == whole.energy
