"""D3(zero) on top of a reference: the derivative of its own energy, once and not twice, on the right functional."""

import importlib.metadata
import importlib.util

import numpy as np
import pytest
from ase.calculators.emt import EMT
from campaigns import end_sessions
from conftest import rattled_copper
from pydantic import ValidationError

from activelearn.config import Machine, Reference, ReferenceMD
from activelearn.engines import process, reference
from activelearn.engines.process import Slot
from activelearn.frames import Frames

needs_dftd3 = pytest.mark.skipif(
    importlib.util.find_spec("dftd3") is None, reason="pip install 'activelearn[local]' (dftd3)"
)


def emt(d3=None, **settings):
    given = {"calculator": "ase.calculators.emt:EMT", "package": "ase", "functional": "PBE", **settings}
    return Reference.model_validate({"includes_dispersion": False, **given, "d3": d3})


#: Of the worker: with the sharp cutoff that is dftd3's default the virial is not the derivative of the energy.
CUTOFF = {"disp2": 50.2, "cn": 20.0, "width2": 4.0}
BARE, WITH_D3 = emt(), emt({"method": "PBE", "damping": "zero"})


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    process.allow_engines()
    yield Slot(Machine(name="test"), tmp_path_factory.mktemp("logs"))
    end_sessions()


@needs_dftd3
def test_the_sum_is_emt_and_dispersion(copper, slot):
    from dftd3.ase import DFTD3

    for k in (0, 1, 0):  # another structure in between leaves no trace
        atoms = copper[k].without_labels().to_ase()[0]
        parts = []
        for calculator in (EMT(), DFTD3(method="PBE", damping="d3zero", realspace_cutoff=CUTOFF)):
            atoms.calc = calculator
            parts.append((atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)))
        found = reference.label(WITH_D3, copper[k], slot)
        assert found.energy == parts[0][0] + parts[1][0]
        assert np.array_equal(found.forces, parts[0][1] + parts[1][1])
        assert found.virial == pytest.approx(-(parts[0][2] + parts[1][2]) * copper.volume[k], abs=1e-12)
        assert parts[1][0] < -0.1


@needs_dftd3
def test_forces_and_virial_are_derivatives_of_the_sum(slot):
    frame = rattled_copper(1, random_seed=7).without_labels()
    what, h = WITH_D3, 1e-4
    found = reference.label(what, frame, slot)

    def slope(displace):
        plus, minus = (reference.label(what, displace(sign * h), slot).energy for sign in (1.0, -1.0))
        return (plus - minus) / (2.0 * h)

    for atom, axis in ((0, 0), (3, 1)):

        def shift(step, atom=atom, axis=axis):
            positions = frame.positions.copy()
            positions[0, atom, axis] += step
            return Frames(frame.symbols, frame.cell, positions)

        assert found.forces[atom, axis] == pytest.approx(-slope(shift), abs=1e-5)
    for i, j in ((0, 0), (1, 2)):

        def strain(step, i=i, j=j):
            f = np.eye(3)
            f[i, j] += step / 2.0
            f[j, i] += step / 2.0
            return Frames(frame.symbols, frame.cell @ f, frame.positions @ f)

        assert found.virial[i, j] == pytest.approx(-slope(strain), abs=1e-5)


@needs_dftd3
def test_the_three_body_term_is_off(copper):
    from dftd3.interface import DispersionModel, ZeroDampingParam

    atoms = copper[0].to_ase()[0]
    model = DispersionModel(atoms.numbers, atoms.positions / 0.529177, atoms.cell[:] / 0.529177, atoms.pbc)
    given = ZeroDampingParam(method="PBE")
    spelt = {s9: ZeroDampingParam(s6=1.0, s8=0.722, rs6=1.217, rs8=1.0, alp=14.0, s9=s9) for s9 in (0.0, 1.0)}
    energy = model.get_dispersion(given, grad=False)["energy"]
    assert energy == pytest.approx(model.get_dispersion(spelt[0.0], grad=False)["energy"], rel=1e-10)
    assert energy != pytest.approx(model.get_dispersion(spelt[1.0], grad=False)["energy"], rel=1e-4)


@needs_dftd3
def test_dynamics_feel_the_dispersion(copper, slot):
    md = ReferenceMD(n_steps=2, every=1, timestep_fs=4.0, friction_per_ps=10.0)
    runs = [
        reference.molecular_dynamics(what, copper[0], md, temperature_K=300.0, random_seed=1, slot=slot)[0]
        for what in (BARE, WITH_D3)
    ]
    assert not np.array_equal(runs[0].positions[2], runs[1].positions[2])
    last = reference.label(WITH_D3, runs[1][2], slot)
    assert runs[1].energy[2] == pytest.approx(last.energy, abs=1e-10)


@needs_dftd3
def test_the_fingerprint_says_dispersion_and_is_what_it_was_without(slot):
    bare, summed = (reference.fingerprint(what, slot) for what in (BARE, WITH_D3))
    assert "d3" not in bare
    assert bare["includes_dispersion"] is False
    assert summed["includes_dispersion"] is True
    version = {"dftd3": importlib.metadata.version("dftd3"), "cutoff_A": CUTOFF}
    assert summed["d3"] == {"method": "PBE", "damping": "zero", "version": version}
    assert bare["sha256"] != summed["sha256"]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"includes_dispersion": True}, "expected dispersion once, not twice"),
        (
            {"functional": "r2SCAN"},
            "d3.method PBE on functional r2SCAN - expected D3 with the parameters of the functional",
        ),
        ({"functional": "none"}, "d3.method PBE on functional none"),
        ({"d3": {"method": "PBE", "damping": "bj"}}, "Input should be 'zero'"),
    ],
)
def test_dispersion_twice_or_on_another_functional_is_refused(settings, sentence):
    with pytest.raises(ValidationError, match=sentence):
        emt(**{"d3": {"method": "PBE"}, **settings})


def test_a_reference_says_whether_its_labels_include_dispersion():
    found = [
        emt(),
        emt({"method": "PBE"}),
        emt(includes_dispersion=True),
        emt({"method": "r2SCAN"}, functional="r2scan"),
    ]
    assert [one.labels_include_dispersion for one in found] == [False, True, True, True]
    assert found[1].name == "ase.calculators.emt:EMT + D3(zero)"
