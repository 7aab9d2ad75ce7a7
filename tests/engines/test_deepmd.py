"""DeePMD: the training input holds the campaign's numbers, and a recorded learning curve is read."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from activelearn.config import TrainingRun, load_campaign
from activelearn.config.reading import find_campaign
from activelearn.engines import deepmd
from activelearn.engines.deepmd import library_environment
from activelearn.engines.trainers.deepmd import inputs
from activelearn.engines.trainers.deepmd.inputs import training_input
from activelearn.engines.trainers.deepmd.settings import DeePMDTrain, Descriptor, LearningRate, Prefactors
from activelearn.engines.trainers.deepmd.training import learning_curve
from activelearn.train import stopwatch

DATA = Path(__file__).resolve().parent.parent / "data" / "deepmd"

TRAIN = DeePMDTrain(
    descriptor=Descriptor(rcut=5.5, rcut_smth=0.7, neuron=(4, 8), axis_neuron=3, type_one_side=True),
    fitting=(20, 30),
    precision="float32",
    batch_size="auto:64",
    learning_rate=LearningRate(start=3e-3, stop=1e-6, warm_start=5e-4),
    prefactors=Prefactors(energy=(0.1, 2.0), force=(500.0, 3.0), virial=(0.5, 0.6)),
)
RUN = TrainingRun(n_steps=1000, random_seeds=(11, 22, 33))


def made(train=TRAIN, run=RUN):
    return training_input(train, run, type_map=("Na", "P"), sel=((8, 12),), systems=["/d/000", "/d/001"])


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
    assert made(run=replace(RUN, start_from=Path("last.pb")))["learning_rate"]["start_lr"] == 5e-4
    cold = TRAIN.model_copy(update={"learning_rate": LearningRate(start=3e-3)})
    assert made(cold, replace(RUN, start_from=Path("last.pb")))["learning_rate"]["start_lr"] == 3e-3


def test_after_a_divergence_the_learning_rate_starts_lower_and_never_below_its_end():
    rate = made(run=replace(RUN, learning_rate_factor=0.3))["learning_rate"]
    assert rate["start_lr"] == pytest.approx(9e-4)
    assert rate["stop_lr"] == 1e-6
    rate = made(run=replace(RUN, learning_rate_factor=1e-5))["learning_rate"]
    assert (rate["start_lr"], rate["stop_lr"]) == pytest.approx((3e-8, 3e-9))


def test_the_preset_paper_is_the_training_of_the_paper(tmp_path):
    """Luo et al., J. Mater. Chem. A 12, 33518 (2024), Computational method; the rest are DeePMD's defaults."""
    data = yaml.safe_load(find_campaign("quickstart").read_text())
    data |= {"type_map": ["Na", "P", "S", "O"], "train": {"preset": "paper"}}
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump(data))
    train = load_campaign(tmp_path / "paper.yaml").train
    found = training_input(
        train,
        TrainingRun(train.n_steps, (1, 11, 21)),
        type_map=["Na", "P", "S", "O"],
        sel=((40, 16, 52, 4),),
        systems=["DATA/train"],
    )
    assert train.n_members == 4
    assert found == {
        "model": {
            "type_map": ["Na", "P", "S", "O"],
            "descriptor": {
                "type": "se_e2_a", "sel": [40, 16, 52, 4], "rcut": 6.0, "rcut_smth": 2.0, "neuron": [25, 50, 100],
                "axis_neuron": 16, "type_one_side": False, "resnet_dt": False, "precision": "float64", "seed": 1,
            },
            "fitting_net": {"neuron": [240, 240, 240], "resnet_dt": True, "precision": "float64", "seed": 11},
        },
        "learning_rate": {"type": "exp", "start_lr": 1e-3, "stop_lr": 3.51e-8, "decay_steps": 5000},
        "loss": {
            "type": "ener", "start_pref_e": 0.02, "limit_pref_e": 1.0, "start_pref_f": 1000.0, "limit_pref_f": 1.0,
            "start_pref_v": 0.02, "limit_pref_v": 1.0,
        },
        "training": {
            "training_data": {"systems": ["DATA/train"], "batch_size": "auto:32"}, "numb_steps": 500_000, "seed": 21,
            "disp_file": "lcurve.out", "disp_freq": 1000, "save_freq": 500_000,
        },
    }  # fmt: skip


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


@pytest.fixture(scope="module")
def worker():
    """The worker script as a module; what it runs heavy libraries for is inside its functions."""
    path = Path(deepmd.__file__).with_name("workers") / "deepmd_session.py"
    spec = importlib.util.spec_from_file_location("deepmd_session", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HEAD = "#  step      rmse_trn    rmse_e_trn   lr\n"


@pytest.mark.parametrize(
    ("rows", "diverged"),
    [
        ("", False),
        (" 0 9.0 1.0 0.1\n 10 99.0 1.0 0.1\n", False),
        (" 0 9.0 1.0 0.1\n 10 101.0 1.0 0.1\n", True),
        (" 0 9.0 1.0 0.1\n 10 nan nan 0.1\n", True),
        (" 0 9.0 1.0 0.1\n 10 inf 1.0 0.1\n", True),
        (" 0 9.0 1.0 0.1\n 10 1e9 1.0 0.1\n 20 9.0 1.0 0.1\n", True),  # it came back: nobody can know what it is worth
        (" 0 9.0 1.0 0.1\n 10 101.0", False),  # half a row
    ],
)
def test_a_learning_curve_that_runs_away_is_seen(worker, tmp_path, rows, diverged):
    curve = worker.LearningCurve(tmp_path / "lcurve.out", 100.0)
    assert not curve.has_diverged(), "there is no file yet"
    (tmp_path / "lcurve.out").write_text(HEAD + rows)
    assert curve.has_diverged() is diverged


def test_a_learning_curve_is_read_once_and_half_a_row_when_it_is_whole(worker, tmp_path):
    path = tmp_path / "lcurve.out"
    path.write_text(HEAD + " 0 9.0 1.0 0.1\n 10 10")
    curve = worker.LearningCurve(path, 100.0)
    assert not curve.has_diverged()
    assert curve.n_read == len(HEAD + " 0 9.0 1.0 0.1\n")
    with path.open("a") as stream:
        stream.write("1.0 1.0 0.1\n")
    assert curve.has_diverged()
    assert curve.n_read == path.stat().st_size


def test_the_bound_of_the_loss_is_a_hundred_times_that_of_no_force_at_all(copper):
    paper = DeePMDTrain(prefactors=Prefactors(force=(1000.0, 1.0)))
    parts = [copper[:1], copper[1:]]
    no_force = np.sqrt(1000.0 * (copper.forces**2).mean())
    assert inputs.loss_bound(paper, parts) == pytest.approx(100.0 * no_force)
    at_rest = replace(copper, forces=np.zeros_like(copper.forces))
    assert inputs.loss_bound(paper, [at_rest]) == pytest.approx(100.0 * np.sqrt(1000.0) * 0.1), "a perfect crystal"


def test_a_stopwatch():
    with stopwatch() as span:
        assert set(span) == {"started"}
    assert span["started"] <= span["finished"]


@pytest.mark.engines
def test_the_libraries_of_the_plugin_are_found():
    pytest.importorskip("deepmd", reason="pip install 'deepmd-kit[cpu,lmp]==3.2.0'")
    found = library_environment(None)
    assert Path(found["LAMMPS_PLUGIN_PATH"]).is_dir()
    assert found["LAMMPS_PLUGIN_PATH"] in found["LD_LIBRARY_PATH"].split(":")
