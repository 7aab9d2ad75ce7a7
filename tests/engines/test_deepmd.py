"""DeePMD: the training input holds the campaign's numbers, and a recorded learning curve is read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from activelearn.config import Descriptor, LearningRate, Prefactors, Train
from activelearn.engines import deepmd
from activelearn.engines.deepmd import TrainingRun, learning_curve, library_environment, training_input

DATA = Path(__file__).resolve().parent.parent / "data" / "deepmd"

TRAIN = Train(
    descriptor=Descriptor(rcut=5.5, rcut_smth=0.7, neuron=(4, 8), axis_neuron=3, type_one_side=True),
    fitting=(20, 30),
    precision="float32",
    batch_size="auto:64",
    learning_rate=LearningRate(start=3e-3, stop=1e-6, warm_start=5e-4),
    prefactors=Prefactors(energy=(0.1, 2.0), force=(500.0, 3.0), virial=(0.5, 0.6)),
)
RUN = TrainingRun(n_steps=1000, random_seeds=(11, 22, 33))


def made(train=TRAIN, run=RUN):
    return training_input(train, run, type_map=("Na", "P"), sel=(8, 12), systems=["/d/000", "/d/001"])


def test_the_model_is_that_of_the_campaign():
    model = made()["model"]
    assert model["type_map"] == ["Na", "P"]
    d = model["descriptor"]
    assert (d["type"], d["sel"], d["rcut"], d["rcut_smth"]) == ("se_e2_a", [8, 12], 5.5, 0.7)
    assert (d["neuron"], d["axis_neuron"], d["type_one_side"], d["precision"]) == ([4, 8], 3, True, "float32")
    assert (model["fitting_net"]["neuron"], model["fitting_net"]["precision"]) == ([20, 30], "float32")


def test_the_three_random_seeds_are_where_randomness_is():
    found = made()
    assert found["model"]["descriptor"]["seed"] == 11
    assert found["model"]["fitting_net"]["seed"] == 22
    assert found["training"]["seed"] == 33
    other = made(run=replace(RUN, random_seeds=(1, 2, 3)))
    for place in (("model", "descriptor"), ("model", "fitting_net"), ("training",)):
        a, b = found, other
        for key in place:
            a, b = a[key], b[key]
        b["seed"] = a["seed"]
    assert found == other, "members differ in nothing else"


def test_loss_and_learning_rate():
    found = made()
    assert found["loss"] == {
        "type": "ener", "start_pref_e": 0.1, "limit_pref_e": 2.0, "start_pref_f": 500.0, "limit_pref_f": 3.0,
        "start_pref_v": 0.5, "limit_pref_v": 0.6,
    }  # fmt: skip
    assert (found["learning_rate"]["start_lr"], found["learning_rate"]["stop_lr"]) == (3e-3, 1e-6)
    assert made(run=replace(RUN, warm=True))["learning_rate"]["start_lr"] == 5e-4
    cold = TRAIN.model_copy(update={"learning_rate": LearningRate(start=3e-3)})
    assert made(cold, replace(RUN, warm=True))["learning_rate"]["start_lr"] == 3e-3


@pytest.mark.parametrize(("n_steps", "decay"), [(50, 1), (1000, 10), (500_000, 5000), (4_000_000, 5000)])
def test_the_decay_of_the_learning_rate_is_smooth_also_in_short_trainings(n_steps, decay):
    found = made(run=replace(RUN, n_steps=n_steps))
    assert found["learning_rate"]["decay_steps"] == decay
    assert found["training"]["numb_steps"] == n_steps


def test_data_and_batches():
    data = made()["training"]["training_data"]
    assert data == {"systems": ["/d/000", "/d/001"], "batch_size": "auto:64"}


@pytest.mark.engines
def test_deepmd_itself_accepts_the_input():
    """Its own argument check, strict: an unknown or missing key is an error."""
    pytest.importorskip("deepmd", reason="pip install 'deepmd-kit[cpu,lmp]==3.2.0'")
    from deepmd.utils.argcheck import normalize

    accepted = normalize(made())
    assert accepted["model"]["descriptor"]["rcut"] == 5.5


def test_a_recorded_learning_curve():
    names, rows = learning_curve(DATA / "lcurve" / "lcurve.out")
    assert names == ["step", "rmse_trn", "rmse_e_trn", "rmse_f_trn", "lr"]
    assert rows[0].tolist() == [0.0, 15.1, 0.866, 0.478, 0.003]
    assert rows.shape[1] == len(names)
    assert (np.diff(rows[:, 0]) > 0).all()
    assert (np.diff(rows[:, 4]) <= 0).all(), "the learning rate never rises"


def test_a_curve_that_ends_in_nan_is_read_and_the_divergence_has_its_sentence(tmp_path):
    (tmp_path / "lcurve.out").write_text("#  step  rmse_trn\n 0 1.0\n 10 nan\n")
    _, rows = learning_curve(tmp_path / "lcurve.out")
    assert np.isnan(rows[1, 1])
    error = deepmd.diverged(tmp_path, "member-1")
    assert "training member-1 diverged (errors not finite) - wanted a smaller train.learning_rate.start" in str(error)
    assert error.tail[-1].split() == ["10", "nan"]


def test_a_stopwatch():
    with deepmd.stopwatch() as span:
        assert set(span) == {"started"}
    assert span["started"] <= span["finished"]


@pytest.mark.engines
def test_the_libraries_of_the_plugin_are_found():
    pytest.importorskip("deepmd", reason="pip install 'deepmd-kit[cpu,lmp]==3.2.0'")
    found = library_environment(None)
    assert Path(found["LAMMPS_PLUGIN_PATH"]).is_dir()
    assert found["LAMMPS_PLUGIN_PATH"] in found["LD_LIBRARY_PATH"].split(":")
