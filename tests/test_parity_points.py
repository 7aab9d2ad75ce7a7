"""Points of the parity figures: energies, forces and, of frames that have one, virials per atom."""

import numpy as np
import pytest
import yaml
from ase.calculators.emt import EMT
from campaigns import cli, machine_file
from test_html_page import Read

from activelearn import page
from activelearn.benchmark.parity import SideBySide, compared
from activelearn.config import trainer_of
from activelearn.page.pictures import glasses
from activelearn.records import Ensemble
from activelearn.writing import write_extxyz


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


@pytest.mark.engines
def test_a_page_has_parity_plots_of_deepmd_against_the_labels_of_a_campaign(undisturbed, slot, tmp_path):
    """Held-out frames; the virial is that of the model, and of EMT: -stress times volume, per atom."""
    store, _ = undisturbed
    frames = [part[k] for part in store.held_out(2) for k in range(len(part))]
    models = [store.model(member.model) for member in store.result("final", 2, Ensemble).members]
    write_extxyz(frames, tmp_path / "held-out.xyz")
    physics = {"functional": "none", "includes_dispersion": False}
    potential = {"name": "DP", "deepmd": {"models": [str(model) for model in models]}, **physics}
    study = {"name": "parity", "potentials": [potential], "benchmark": {"parity": {"frames": "held-out.xyz"}}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(study))
    words = ("benchmark", "--study", "s.yaml", "--machine", machine_file(tmp_path / "m.yaml", slots=1), "--folder", "s")
    done = cli(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (seen,) = page.look(tmp_path / "s").studies
    drawn = {curve.name: curve for curve in seen.board.curves}
    (predicted,) = trainer_of(store.campaign(2).train).evaluate_all(
        tmp_path, models[:1], [frame.without_labels() for frame in frames], slot
    )
    virials = [], []
    for frame, model in zip(frames, predicted, strict=True):
        (atoms,) = frame.without_labels().to_ase()
        atoms.calc = EMT()
        stress = atoms.get_stress(voigt=False)
        virials[0].append(-stress * atoms.get_volume() / len(atoms))
        virials[1].append(model.virial[0] / len(atoms))
    key = drawn["parity_virial"].key
    for side, values, tolerance in zip("xy", virials, (1e-6, 1e-5), strict=True):
        np.testing.assert_allclose(seen.curves[f"{key}/{side}"], np.ravel(values), atol=tolerance)
    assert np.ptp(virials[0]) > 0.1, "strains of 2 % are no rounding"
    figures = {figure.name: figure for figure in glasses.figures(seen)}
    units = {"energy": "eV/atom", "force": "eV/Å", "virial": "eV/atom"}
    for kind, unit in units.items():
        (figure,) = [one for name, one in figures.items() if name.startswith(f"parity-{kind}")]
        assert f"({unit})" in figure.picture
        n = len(seen.curves[drawn[f"parity_{kind}"].key + "/x"])
        assert figure.caption.startswith(f"Against held-out.xyz, {n} points (RMSE "), figure.caption
        assert f" {'eV/Å' if kind == 'force' else 'meV/atom'}, {len(frames)} frames)" in figure.caption
    text = (tmp_path / "s" / "report.html").read_text(encoding="utf-8")
    assert Read(text).wrong == []
    assert "Virials against the reference: DP" in text
