"""Parity: zero against itself, a known shift found again, known errors measured, and frames that give no answer."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from carried import UNCONVERGED, one_worker, with_reference
from conftest import rattled_copper
from made_glasses import findings_of, number, planned, run_one, study_of

from activelearn.benchmark import parity
from activelearn.errors import ConfigError
from activelearn.frames import Frames, pack
from activelearn.store import StudyStore
from activelearn.store.files import publish_npz
from activelearn.writing import write_extxyz


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    with one_worker(tmp_path_factory.mktemp("logs")) as made:
        yield made


ELEMENTS = ("Cu", "Ni")


def rattled(n_frames=3, n_nickel=1, random_seed=0):
    """Skewed cells of copper and nickel, labelled by EMT."""
    images = []
    for k in range(n_frames):
        rng = np.random.default_rng([random_seed, k])
        atoms = bulk("Cu", cubic=True)
        atoms.symbols[:n_nickel] = "Ni"
        atoms.set_cell(atoms.cell[:] @ (np.eye(3) + rng.uniform(-0.03, 0.03, (3, 3))), scale_atoms=True)
        atoms.positions += rng.uniform(-0.1, 0.1, (4, 3))
        atoms.calc = EMT()
        atoms.get_forces()
        atoms.get_stress()
        images.append(atoms)
    return Frames.from_ase(images)


def shifted(frames, copper, nickel):
    """The same labels from a reference with another zero of energy."""
    shift = copper * frames.symbols.count("Cu") + nickel * frames.symbols.count("Ni")
    return frames.with_labels(frames.energy - shift, frames.forces, frames.virial)


def measured(tmp_path, slot, study, parts=None):
    store = StudyStore.create(tmp_path / "study", study)
    if parts is not None:
        publish_npz(store.folder / parity.HELD_OUT, pack(parts), {})
    return findings_of(parity.PROPERTY, study, store, slot)


# --- arrays -----------------------------------------------------------------------------------------------------------


def side_by_side(n_frames=40, random_seed=0):
    rng = np.random.default_rng(random_seed)
    counts = rng.integers(1, 6, (n_frames, 2))
    n = int(counts.sum())
    energy, forces = rng.normal(size=(n_frames, 2)), rng.normal(size=(n, 2, 3))
    return parity.SideBySide(ELEMENTS, counts, energy, forces, rng.normal(size=(n_frames, 2, 3, 3)))


def test_errors_are_those_of_the_training_station():
    """One definition in the house: the held-out errors of a model and its parity are the same numbers."""
    from activelearn.prediction import errors

    reference, potential = rattled(4, 1), rattled(4, 1, random_seed=9)
    known = errors([potential], [reference])
    counts = np.array([[3, 1]] * 4)
    forces = np.stack([reference.forces.reshape(-1, 3), potential.forces.reshape(-1, 3)], axis=1)
    pairs = parity.SideBySide(
        ELEMENTS,
        counts,
        np.stack([reference.energy, potential.energy], axis=1),
        forces,
        np.stack([reference.virial, potential.virial], axis=1),
    )
    found = {name: value for name, value, _, _ in pairs.errors()}
    assert found["energy_mae"] == pytest.approx(known.energy_mae_meV_per_atom)
    assert found["energy_rmse"] == pytest.approx(known.energy_rmse_meV_per_atom)
    assert found["force_mae"] == pytest.approx(known.force_mae)
    assert found["force_rmse"] == pytest.approx(known.force_rmse)
    assert found["force_p95"] == pytest.approx(known.force_p95)
    assert found["force_p99"] == pytest.approx(known.force_p99)
    assert found["virial_mae"] == pytest.approx(known.virial_mae_meV_per_atom)
    assert found["virial_rmse"] == pytest.approx(known.virial_rmse_meV_per_atom)


def test_the_shift_of_every_element_is_found_again():
    counts = np.array([[3, 1], [1, 1], [5, 2]])
    assert parity.element_shifts(counts @ np.array([-3.2, 0.7]), counts) == pytest.approx([-3.2, 0.7])


def test_one_composition_still_has_its_mean_shift_removed():
    """Elements cannot be told apart there; their sum can."""
    counts = np.array([[3, 1]] * 5)
    difference = 8.0 + np.array([0.1, -0.1, 0.2, -0.2, 0.0])
    assert counts[0] @ parity.element_shifts(difference, counts) == pytest.approx(8.0)


def test_thinning_keeps_the_worst_points_and_no_point_twice():
    rng = np.random.default_rng(0)
    x = np.arange(40_000, dtype=float)
    y = x + rng.normal(size=x.size)
    y[[17, 31_000]] += 50.0
    few_x, few_y = parity.thinned(x, y, rng)
    assert len(few_x) == len(set(few_x.tolist())) == parity.MAX_POINTS
    assert {17.0, 31_000.0} <= set(few_x.tolist())
    assert np.array_equal(few_y, y[few_x.astype(int)])
    assert parity.thinned(x[:10], y[:10], rng)[0] is not None


def test_frames_without_virial_are_left_out_of_its_error_only():
    pairs = side_by_side()
    pairs.virial[:30] = np.nan
    n_of = {name: n for name, _, _, n in pairs.errors()}
    assert n_of["virial_mae"] == 10
    assert n_of["force_mae"] == n_of["energy_mae"] == 40


# --- the property -----------------------------------------------------------------------------------------------------


def test_a_potential_has_no_error_against_its_own_labels(slot, tmp_path):
    """The held-out set of a campaign; cells are skewed."""
    parts = [rattled(3, 1), rattled(2, 2)]
    found = measured(tmp_path, slot, study_of(parity={}), parts)
    for result in found.results:
        assert result.value == pytest.approx(0.0, abs=1e-9), result.name
        assert result.n_samples == 5
        assert result.note.startswith("against the campaign's held-out set")
    names = [f"{kind}_{measure}" for kind in ("energy", "force", "virial") for measure in ("mae", "rmse")]
    assert set(names) <= {result.name for result in found.results}
    force, energy = (next(c for c in found.curves if c.name == f"parity_{kind}") for kind in ("force", "energy"))
    assert found.arrays[f"{force.key}/x"].size == 5 * 4 * 3
    assert found.arrays[f"{energy.key}/y"] == pytest.approx(found.arrays[f"{energy.key}/x"])
    assert found.problems == []


def test_a_reference_with_another_zero_of_energy_is_seen_with_and_without_it(slot, tmp_path):
    """From an extxyz; labels in it have 8 decimals."""
    parts = [shifted(rattled(3, n), -1.5, 2.0) for n in (1, 2)]
    write_extxyz(parts, tmp_path / "labelled.xyz")
    found = measured(tmp_path, slot, study_of(parity={"frames": str(tmp_path / "labelled.xyz")}))
    wanted = 1000.0 * (abs(-1.5 * 3 + 2.0) / 4 + abs(-1.5 * 2 + 2.0 * 2) / 4) / 2
    assert number(found, "energy_mae").value == pytest.approx(wanted, abs=1e-3)
    result = number(found, "energy_mae_shifted")
    assert result.value == pytest.approx(0.0, abs=1e-3)
    assert (result.unit, result.n_samples) == ("meV/atom", 6)
    assert result.note == "against labelled.xyz; less Cu -1.5000, Ni +2.0000 eV/atom"
    assert number(found, "force_mae").value == pytest.approx(0.0, abs=1e-6)


def test_frames_are_dealt_to_tasks_of_a_hundred_and_thinned_evenly(tmp_path):
    study = study_of(parity={"max_frames": 205})
    store = StudyStore.create(tmp_path, study)
    frames = rattled_copper(1)[np.zeros(600, dtype=int)]
    publish_npz(store.folder / parity.HELD_OUT, pack([frames]), {})
    spans = [(t.parameters["begin"], t.parameters["end"]) for t in planned(parity.PROPERTY, study, store)]
    assert spans == [(0, 100), (100, 200), (200, 205)]


def test_frames_of_unknown_elements_are_named_and_the_others_measured(slot, tmp_path):
    sodium = Frames(["Na"], 4.0 * np.eye(3)[None], np.zeros((1, 1, 3)), energy=[0.0], forces=np.zeros((1, 1, 3)))
    found = measured(tmp_path, slot, study_of(parity={}), [sodium, rattled(2, 1), sodium])
    assert found.problems == ["parity of toy (EMT): 2 frames without: the potential does not know Na"]
    assert number(found, "force_mae").n_samples == 2


def test_refused_labels_are_named_and_leave_no_number(slot, tmp_path):
    study = with_reference(study_of(parity={}), UNCONVERGED)
    found = measured(tmp_path, slot, study, [rattled(2)])
    assert found.results == []
    assert found.problems == ["parity of toy (EMT): 2 frames without: SCFError: no convergence in 60 steps"]


def test_a_frame_that_the_potential_raises_on_is_lost_with_its_reason(slot, tmp_path):
    alone = Frames(["Cu"], 12.0 * np.eye(3)[None], np.zeros((1, 1, 3)), energy=[0.0], forces=np.zeros((1, 1, 3)))
    graph = UNCONVERGED.model_copy(update={"calculator": "odd_calculators:Graph"})
    found = measured(tmp_path, slot, with_reference(study_of(parity={}), graph), [alone, rattled(2, 1)])
    why = "the reference raises ValueError: isolated atom in <object object at 0x>"
    assert found.problems == [f"parity of toy (EMT): 1 frames without: {why}"]
    assert number(found, "force_mae").n_samples == 2


def test_without_frames_the_scoreboard_says_so(slot, tmp_path):
    found = measured(tmp_path, slot, study_of(parity={}))
    assert found.results == []
    assert "no frames" in found.problems[0]


def test_a_file_that_changes_or_has_no_labels_is_refused(slot, tmp_path):
    file = tmp_path / "labelled.xyz"
    study = study_of(parity={"frames": str(file)})
    store = StudyStore.create(tmp_path / "study", study)
    with pytest.raises(ConfigError, match=r"no file .*labelled\.xyz"):
        planned(parity.PROPERTY, study, store)
    write_extxyz([rattled(2)], file)
    task = planned(parity.PROPERTY, study, store)[0]
    write_extxyz([rattled(2).without_labels()], file)
    with pytest.raises(ConfigError, match="not the file that this study started with"):
        run_one(parity.PROPERTY, task, store, slot)
    with pytest.raises(ConfigError, match="frame 0 has no energy or no forces"):
        planned(parity.PROPERTY, study, store)


def test_a_study_that_does_not_ask_plans_nothing(tmp_path):
    study = study_of()
    assert planned(parity.PROPERTY, study, StudyStore.create(tmp_path, study)) == []
