"""Points of the parity figures: energies, forces and, of frames that have one, virials per atom."""

import numpy as np
import pytest

from activelearn.benchmark.parity import SideBySide, compared


def pairs(has_virial):
    rng = np.random.default_rng(2)
    virial = rng.normal(size=(3, 2, 3, 3))
    virial[~np.array(has_virial)] = np.nan
    return SideBySide(("P", "S"), np.array([[1, 4]] * 3), rng.normal(size=(3, 2)), rng.normal(size=(15, 2, 3)), virial)


def points(found, name):
    (curve,) = [curve for curve in found.curves if curve.name == name]
    return curve, found.arrays[f"{curve.key}/x"], found.arrays[f"{curve.key}/y"]


def test_virials_are_compared_per_atom_where_both_have_one():
    made = pairs([True, False, True])
    curve, x, y = points(compared(made, {"potential": "toy"}, "", np.random.default_rng(0)), "parity_virial")
    assert x == pytest.approx(made.virial[[0, 2], 0].ravel() / 5)
    assert y == pytest.approx(made.virial[[0, 2], 1].ravel() / 5)
    assert curve.x_name == "reference: virial component (eV/atom)"


def test_without_virials_there_is_no_such_figure():
    found = compared(pairs([False] * 3), {"potential": "toy"}, "", np.random.default_rng(0))
    assert [curve.name for curve in found.curves] == ["parity_force", "parity_energy"]
