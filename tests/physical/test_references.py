"""The shipped references on rattled Na3PS4: forces and virial are the derivatives of the energy, with D3 too."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from activelearn import seeds
from activelearn.config import Machine
from activelearn.config.reading import load_label
from activelearn.engines import process, reference
from activelearn.engines.process import Slot
from activelearn.frames import Frames

pytestmark = [pytest.mark.engines, pytest.mark.physical]
PRESETS = {"sevennet_0": "sevenn", "sevennet_0_d3": "dftd3", "sevennet_l3i5": "sevenn", "chgnet": "chgnet"}


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    process.allow_engines()
    yield Slot(Machine(name="test"), tmp_path_factory.mktemp("logs"))
    process.close_sessions()


@pytest.fixture(scope="module")
def frame():
    crystal = Frames.from_ase([seeds.load_structure("Na3PS4_P-421c", Path())])
    rng = np.random.default_rng(1)
    return Frames(crystal.symbols, crystal.cell, crystal.positions + rng.normal(0.0, 0.05, crystal.positions.shape))


@pytest.mark.parametrize("preset", PRESETS)
def test_forces_and_virial_are_derivatives_of_the_energy(slot, frame, preset):
    """Single precision: the differences are taken wide (h) and trusted to 2 %."""
    if importlib.util.find_spec(PRESETS[preset]) is None:
        pytest.skip(f"pip install {PRESETS[preset]}")
    what, h = load_label(preset).reference, 0.01
    found = reference.label(what, frame, slot)

    def slope(displaced):
        plus, minus = (reference.label(what, displaced(sign * h), slot).energy for sign in (1.0, -1.0))
        return (plus - minus) / (2.0 * h)

    def moved(step):
        positions = frame.positions.copy()
        positions[0, 6, 0] += step
        return Frames(frame.symbols, frame.cell, positions)

    assert found.forces[6, 0] == pytest.approx(-slope(moved), rel=0.02)
    for i, j in ((0, 0), (2, 2), (0, 1)):

        def strained(step, i=i, j=j):
            f = np.eye(3)
            f[i, j] += step / 4.0
            f[j, i] += step / 4.0
            return Frames(frame.symbols, frame.cell @ f, frame.positions @ f)

        assert found.virial[i, j] == pytest.approx(-2.0 * slope(strained), rel=0.02, abs=0.01), (i, j)


def test_d3_adds_what_dftd3_says(slot, frame):
    """The label with D3 minus the one without is the dispersion of the structure."""
    dftd3 = pytest.importorskip("dftd3.ase")
    bare, summed = (
        reference.label(load_label(name).reference, frame, slot) for name in ("sevennet_0", "sevennet_0_d3")
    )
    atoms = frame.to_ase()[0]
    cutoff = {"disp2": 50.2, "cn": 20.0, "width2": 4.0}
    atoms.calc = dftd3.DFTD3(method="PBE", damping="d3zero", realspace_cutoff=cutoff)
    assert summed.energy - bare.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    assert summed.forces - bare.forces == pytest.approx(atoms.get_forces(), abs=1e-4)
    assert -3.6 < atoms.get_potential_energy() < -3.2
