"""Keys of `train` that shape a training: what DeePMD makes of them, on four atoms of copper and gold."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from campaigns import end_sessions
from ensembles import copper_gold
from pydantic import ValidationError

from activelearn.config import Campaign, Machine, TrainingRun
from activelearn.engines import process
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd import checkpoints, inputs, training
from activelearn.engines.trainers.deepmd.inputs import averaged_steps
from activelearn.engines.trainers.deepmd.settings import DeePMDTrain, Descriptor, LearningRate, Prefactors
from activelearn.engines.trainers.deepmd.training import Weights
from activelearn.errors import EngineError
from activelearn.writing import write_deepmd

ELEMENTS = ("Cu", "Au")
SMALL = DeePMDTrain(
    descriptor=Descriptor(rcut=3.5, rcut_smth=0.5, neuron=(4, 8), axis_neuron=2),
    fitting=(8, 8),
    batch_size=4,
    learning_rate=LearningRate(start=1e-2, stop=1e-3),
)
RUN = TrainingRun(n_steps=50, random_seeds=(1, 2, 3))
#: Steps of the checkpoints whose mean is taken: every second row of the learning curve, which has one for each step.
MEAN_OF = (42, 44, 46, 48, 50)


def changed(**changes):
    return DeePMDTrain.model_validate({**SMALL.model_dump(), **changes})


def rate(shape, **more):
    return {"shape": shape, "start": 1e-2, "stop": 1e-3, **more}


KEYS = changed(learning_rate=rate("cosine"), element_weights={"Au": 4.0}, average_checkpoints=5)


@pytest.fixture(scope="module")
def keeping(tmp_path_factory):
    """A slot with a session for all trainings here."""
    pytest.importorskip("deepmd", reason="pip install 'deepmd-kit[cpu,lmp]==3.2.0'")
    process.allow_engines()
    yield Slot(Machine(name="test"), tmp_path_factory.mktemp("logs"))
    end_sessions()


def set_up(train, folder, run=RUN):
    """Return the input of a training on four frames in `folder`."""
    folder.mkdir(parents=True)
    systems = write_deepmd([copper_gold()], folder / "data", ELEMENTS)
    inputs.write_element_weights(systems, train, ELEMENTS)
    paths = [str(path) for path in systems]
    return inputs.training_input(train, run, type_map=ELEMENTS, sel=((20, 20),), systems=paths)


@pytest.fixture(scope="module")
def weighted(tmp_path_factory, keeping):
    """A training with a cosine, gold weighted and the mean of five checkpoints: (folder, input, frozen model)."""
    folder = tmp_path_factory.mktemp("weighted") / "attempt-1"
    setting = set_up(KEYS, folder, replace(RUN, checkpoints=True))
    frozen = training.train_member(folder, setting, keeping, largest_loss=1e9, weights=Weights(average=MEAN_OF))
    assert training._dp(["freeze", "-o", "last.pb"], folder, keeping)
    return folder, setting, frozen


# --- the learning rate ------------------------------------------------------------------------------------------------


@pytest.mark.engines
def test_deepmd_lets_the_learning_rate_fall_along_a_cosine(weighted):
    _, curve = training.learning_curve(weighted[0] / "lcurve.out")
    step, found = curve[:, 0], curve[:, -1]
    assert step.tolist() == list(range(51))
    assert found == pytest.approx(1e-3 + 0.5 * 9e-3 * (1 + np.cos(np.pi * step / 50)), rel=0.051), "two digits"
    assert (np.diff(found) <= 0).all()


@pytest.mark.engines
@pytest.mark.parametrize("decay_type", [None, "inverse_linear"])
def test_deepmd_warms_up_stays_and_decays(tmp_path, keeping, decay_type):
    """A fifth of the steps up, two fifths down."""
    train = changed(learning_rate=rate("wsd", warmup_ratio=0.2, decay_phase_ratio=0.4, decay_type=decay_type))
    setting = set_up(train, tmp_path / "run")
    assert training.train_member(tmp_path / "run", setting, keeping, largest_loss=1e9) is not None
    _, curve = training.learning_curve(tmp_path / "run" / "lcurve.out")
    step, found = curve[:, 0], curve[:, -1]
    wanted = np.interp(step, [0, 10, 50], [0, 1e-2, 1e-2])
    down = (step[step > 30] - 30) / 20
    wanted[step > 30] = 1 / (1e2 + 9e2 * down) if decay_type else 1e-3 + 0.5 * 9e-3 * (1 + np.cos(np.pi * down))
    assert found == pytest.approx(wanted, rel=0.051)
    assert (np.diff(found[10:]) <= 0).all()


def made(run=RUN, **changes):
    return inputs.training_input(changed(**changes), run, type_map=ELEMENTS, sel=((20, 20),), systems=["data"])


def test_an_exponential_has_a_hundred_steps_and_the_others_have_none():
    assert made()["learning_rate"] == {"type": "exp", "start_lr": 1e-2, "stop_lr": 1e-3, "decay_steps": 1}
    assert made(replace(RUN, n_steps=2000))["learning_rate"]["decay_steps"] == 20
    assert made(learning_rate=rate("cosine"))["learning_rate"] == {"type": "cosine", "start_lr": 1e-2, "stop_lr": 1e-3}
    assert made(learning_rate=rate("wsd"))["learning_rate"] == {
        "type": "wsd", "start_lr": 1e-2, "stop_lr": 1e-3, "decay_phase_ratio": 0.1, "decay_type": "cosine",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (rate("exp", decay_phase_ratio=0.2), "decay_phase_ratio is for shape: wsd, not for exp"),
        (rate("exp", decay_type="linear"), "decay_type is for shape: wsd, not for exp"),
        (rate("wsd", warmup_ratio=0.95), "warmup_ratio = 0.95 and decay_phase_ratio = 0.1 exceed the whole"),
        (rate("wsd", decay_phase_ratio=0.0), "greater than 0"),
        (rate("cosine", warmup_ratio=1.0), "less than 1"),
        (rate("exponential"), "'exp', 'cosine' or 'wsd'"),
    ],
)
def test_a_learning_rate_that_cannot_be_is_refused(wrong, said):
    with pytest.raises(ValidationError, match=said):
        changed(learning_rate=wrong)


def test_a_warm_start_may_have_an_end_of_its_own():
    warm = replace(RUN, start_from=Path("last.pb"))

    def ends(run, **more):
        found = made(run, learning_rate=rate("cosine", **more))["learning_rate"]
        return found["start_lr"], found["stop_lr"]

    both = {"warm_start": 5e-3, "warm_stop": 2e-4}
    assert ends(warm, **both) == (5e-3, 2e-4)
    assert ends(RUN, **both) == (1e-2, 1e-3)
    assert ends(warm, warm_start=5e-3) == (5e-3, 1e-3)
    assert ends(warm, warm_stop=2e-4) == (1e-2, 2e-4)
    assert ends(warm, warm_start=5e-4) == (5e-4, 5e-4), "it never rises"


@pytest.mark.parametrize(
    ("start", "stop", "stops"),
    [
        (1e-2, 1e-3, (3e-4, 9e-5, 2.7e-5)),
        (1e-2, 5e-3, (1.5e-3, 4.5e-4, 1.35e-4)),
        (1e-2, 1e-2, (3e-3, 9e-4, 2.7e-4)),
        (1e-2, 1e-4, (1e-4, 9e-5, 2.7e-5)),
        (1e-3, 3.51e-8, (3.51e-8,) * 3),
    ],
)
def test_after_a_divergence_the_end_stays_below_the_start_as_far_as_planned(start, stop, stops):
    """Not below a tenth of it, that is; what lies lower than that stays."""
    for factor, wanted in zip((0.3, 0.09, 0.027), stops, strict=True):
        slower = replace(RUN, learning_rate_factor=factor)
        for shape in ("exp", "cosine", "wsd"):
            found = made(slower, learning_rate=rate(shape) | {"start": start, "stop": stop})["learning_rate"]
            assert (found["start_lr"], found["stop_lr"]) == pytest.approx((start * factor, wanted))


# --- weights of elements ----------------------------------------------------------------------------------------------


def test_weights_that_are_all_one_are_no_weights_to_the_byte():
    plain = json.dumps(made(), indent=1)
    for same in ({}, {"Cu": 1.0}, {"Cu": 1.0, "Au": 1.0}):
        assert json.dumps(made(element_weights=same), indent=1) == plain
    assert "pref_pf" not in plain


def test_the_loss_has_each_force_error_as_often_as_is_said():
    """The two terms of DeePMD together: prefactor x mean(weight x error^2), also for weights below 1."""
    force = Prefactors(force=(1000.0, 10.0)).model_dump()
    for weights in ({"Au": 4.0}, {"Au": 0.25}, {"Cu": 2.0, "Au": 3.0}, {"Cu": 0.5, "Au": 0.5}):
        loss = made(prefactors=force, element_weights=weights)["loss"]
        floor = min(weights.get(element, 1.0) for element in ELEMENTS)
        for element in ELEMENTS:
            beyond = weights.get(element, 1.0) - floor
            for end, prefactor in (("start", 1000.0), ("limit", 10.0)):
                total = loss[f"{end}_pref_f"] + loss.get(f"{end}_pref_pf", 0.0) * beyond
                assert total == pytest.approx(prefactor * weights.get(element, 1.0))


def test_the_factors_of_the_atoms_stand_in_the_order_of_the_atoms(tmp_path):
    set_up(KEYS, tmp_path / "weighted")
    (found,) = (tmp_path / "weighted").rglob("atom_pref.npy")
    assert np.load(found).tolist() == [[3.0, 0.0, 3.0, 0.0]] * 4
    set_up(SMALL, tmp_path / "plain")
    assert not list((tmp_path / "plain").rglob("atom_pref.npy"))


@pytest.mark.engines
def test_the_loss_that_deepmd_reports_is_the_weighted_one(weighted, keeping):
    """At the last row, of the last weights on all four frames; the energy's part as DeePMD defines it."""
    folder, setting, _ = weighted
    truth = copper_gold()
    (found,) = training.evaluate(folder, folder / "last.pb", [truth], keeping)
    loss, fallen = setting["loss"], 0.1
    force = 1.0 + (1000.0 - 1.0) * fallen
    energy = loss["limit_pref_e"] + (loss["start_pref_e"] - loss["limit_pref_e"]) * fallen
    weights = np.array([4.0, 1.0, 4.0, 1.0])[:, None]
    wanted = force * (weights * (found.forces - truth.forces) ** 2).mean()
    wanted += energy * ((found.energy - truth.energy) ** 2).mean() / 4
    names, curve = training.learning_curve(folder / "lcurve.out")
    assert names == ["step", "rmse_trn", "rmse_e_trn", "rmse_f_trn", "rmse_pf_trn", "lr"]
    assert curve[-1, 1] == pytest.approx(np.sqrt(wanted), rel=0.006), "the column has three digits"
    plain = np.sqrt(force * ((found.forces - truth.forces) ** 2).mean())
    assert abs(curve[-1, 1] / plain - 1.0) > 0.1, "without the weights it would be another"


def test_the_bound_of_the_loss_has_the_weights_too(copper):
    plain, heavy = SMALL, changed(element_weights={"Cu": 9.0})
    assert inputs.loss_bound(heavy, [copper]) == pytest.approx(3.0 * inputs.loss_bound(plain, [copper]))


def test_an_element_that_the_models_do_not_know_is_refused(campaign):
    data = campaign.model_dump()
    data["train"]["element_weights"] = {"P": 4.0}
    with pytest.raises(
        ValidationError, match=r"train.element_weights names P - expected elements of type_map, \['Cu'\]"
    ):
        Campaign.model_validate(data)


# --- the mean of checkpoints ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_steps", "n", "steps"),
    [
        (50, 5, MEAN_OF),
        (2000, 10, tuple(range(1280, 2001, 80))),
        (2013, 3, (1840, 1920, 2000)),
        (500_000, 2, (480_000, 500_000)),
        (180_000, 2, (175_000, 180_000)),
        (25, 20, tuple(range(6, 26))),
        (3, 5, (1, 2, 3)),
    ],
)
def test_which_checkpoints_are_taken_and_that_deepmd_writes_and_keeps_them(n_steps, n, steps):
    for resumable in (False, True):
        run = replace(RUN, n_steps=n_steps, checkpoints=resumable)
        training = made(run, average_checkpoints=n)["training"]
        assert averaged_steps(changed(average_checkpoints=n), n_steps) == steps
        every, kept = training["save_freq"], training["max_ckpt_keep"]
        assert every % training["disp_freq"] == 0, "DeePMD looks at no other step"
        written = [*range(every, n_steps + 1, every), *([n_steps] if n_steps % every else [])]
        assert set(steps) <= set(written[-kept:])
    assert averaged_steps(SMALL, n_steps) == ()


MEAN = """
import sys
import numpy as np, tensorflow as tf
mean, *single = [tf.train.load_checkpoint(name) for name in sys.argv[1:]]
n_changing = 0
for name, shape in single[0].get_variable_to_shape_map().items():
    found, values = mean.get_tensor(name), [one.get_tensor(name) for one in single]
    assert found.dtype == values[0].dtype, name
    if all((value == values[0]).all() for value in values):
        assert (found == values[0]).all(), name
    elif name == "global_step":
        assert found == values[-1], found
    else:
        n_changing += 1
        assert np.allclose(found, np.mean(values, axis=0), rtol=1e-13, atol=1e-15), name
print("changing", n_changing)
"""


@pytest.mark.engines
def test_the_model_is_the_mean_of_its_checkpoints_always_the_same(weighted, keeping):
    folder, _, frozen = weighted
    names = ["average/model.ckpt", *(f"model.ckpt-{step}" for step in MEAN_OF)]
    done = subprocess.run(
        [sys.executable, "-c", MEAN, *names], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 20
    written = {path.name: path.read_bytes() for path in (folder / "average").iterdir()}
    training._average([f"model.ckpt-{step}" for step in MEAN_OF], folder, keeping)
    assert {path.name: path.read_bytes() for path in (folder / "average").iterdir()} == written
    training._average(["model.ckpt-50"] * 3, folder, keeping)
    same = (folder / "average" / "model.ckpt.data-00000-of-00001").read_bytes()
    assert same == (folder / "model.ckpt-50.data-00000-of-00001").read_bytes(), (
        "the mean of one is that one, to the bit"
    )
    (mean,) = training.evaluate(folder, frozen, [copper_gold()], keeping)
    (last,) = training.evaluate(folder, folder / "last.pb", [copper_gold()], keeping)
    assert 1e-6 < np.abs(mean.forces - last.forces).max() < 0.5, "the frozen model is not that of the last checkpoint"


@pytest.mark.engines
def test_a_resumed_training_has_the_mean_of_what_a_kill_has_left(weighted, tmp_path, keeping, caplog):
    """It was killed after step 46; the checkpoint of step 44 is damaged, and that of 42 is taken along."""
    folder, setting, _ = weighted
    tries = tmp_path / "tries"
    shutil.copytree(folder, tries / "killed" / "attempt-1", symlinks=True)
    for path in [*tries.rglob("model.ckpt-48.*"), *tries.rglob("model.ckpt-50.*")]:
        path.unlink()
    (half,) = tries.rglob("model.ckpt-44.data-*")
    half.write_bytes(half.read_bytes()[:-100])
    place = tmp_path / "place"
    place.mkdir()
    restart = checkpoints.take_over([*tries.glob("*/attempt-1")], place, keeping, MEAN_OF)
    assert restart == "model.ckpt-46"
    average = checkpoints.kept(place, MEAN_OF)
    assert average == [42, 46, 48, 50]
    assert checkpoints.resumed_from(place) == (46,)
    assert "the model is the mean of 4 checkpoints, not of 5" in caplog.text
    weights = Weights(restart=restart, average=average)
    assert training.train_member(place, setting, keeping, largest_loss=1e9, weights=weights) == place / "frozen.pb"
    assert (place / "average" / "model.ckpt.index").is_file()


def test_after_a_second_kill_the_later_restart_counts(tmp_path):
    """From step 46 first; then that checkpoint was damaged, and from 42: 44 and 46 are written again."""
    (tmp_path / "resumed.json").write_text("[46, 42]")
    (tmp_path / "model.ckpt-42.index").touch()
    assert checkpoints.kept(tmp_path, MEAN_OF) == [*MEAN_OF]
    (tmp_path / "resumed.json").write_text("[42, 46]")
    assert checkpoints.kept(tmp_path, MEAN_OF) == [42, 48, 50]


@pytest.mark.engines
def test_a_mean_of_a_checkpoint_that_is_not_there_is_an_error(weighted, keeping):
    with pytest.raises(EngineError, match=r"the average of the checkpoints model\.ckpt-50 to model\.ckpt-51 ended"):
        training._average(["model.ckpt-50", "model.ckpt-51"], weighted[0], keeping)
