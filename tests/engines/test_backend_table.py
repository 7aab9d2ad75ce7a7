"""Every backend of DeePMD-kit trains, continues after a kill, freezes and evaluates; four atoms of copper and gold."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from backends import EACH, PYTHONS, TORCH_PYTHON, machine_of, needs_torch
from campaigns import end_sessions
from ensembles import copper_gold
from pydantic import ValidationError

from activelearn.config import Dynamics, Machine, Potential, Segment, Stage, TrainingData, TrainingRun
from activelearn.engines import backends, deepmd, frozen, lammps, process
from activelearn.engines.backends import BACKENDS
from activelearn.engines.dynamics import State, run_segment, thermal_velocities
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd import TRAINER, checkpoints, training
from activelearn.engines.trainers.deepmd.settings import DeePMDTrain, LearningRate
from activelearn.errors import EngineError
from activelearn.frames import Frames
from activelearn.select.window import force_deviation

ELEMENTS = ("Cu", "Au")
#: The last rows of 50: every second one, each step has a row.
MEAN_OF = (42, 44, 46, 48, 50)
RUN = TrainingRun(n_steps=50, random_seeds=(1, 2, 3), checkpoints=True)


def settings(backend, **changes):
    plain = {
        "backend": backend,
        "descriptor": {"rcut": 3.5, "rcut_smth": 0.5, "neuron": [4, 8], "axis_neuron": 2},
        "fitting": [8, 8],
        "batch_size": 4,
        "learning_rate": {"start": 1e-2, "stop": 1e-3},
    }
    return DeePMDTrain.model_validate({**plain, **changes})


class Bench:
    """One backend with a slot, data, and a training with gold weighted and the mean of five checkpoints."""

    def __init__(self, backend, place):
        self.name, self.backend, self.place = backend, BACKENDS[backend], place
        self.slot = Slot(machine_of(backend, name="test"), place / "logs")
        self.train = settings(backend, element_weights={"Au": 4.0}, average_checkpoints=5)
        self.data = self.written(self.train, "data")
        self.folder = place / "tries" / "attempt-1"
        self.trained = self.training(self.folder)

    def written(self, train, name):
        TRAINER.write_data(self.place / name, [copper_gold()], train, ELEMENTS)
        return TrainingData(self.place / name, ELEMENTS, ((20, 20),))

    def training(self, folder, train=None, run=RUN):
        folder.mkdir(parents=True, exist_ok=True)
        return TRAINER.train(folder, train or self.train, run, self.data, self.slot)

    @cached_property
    def other(self):
        """The model of other seeds."""
        return self.training(self.place / "other", run=replace(RUN, random_seeds=(4, 5, 6))).model

    def forces(self, model):
        (found,) = TRAINER.evaluate(self.place, model, [copper_gold()], self.slot)
        return found.forces


@pytest.fixture(scope="module", params=EACH)
def bench(request, tmp_path_factory):
    pytest.importorskip("deepmd", reason="pip install 'deepmd-kit[cpu,lmp]==3.2.0'")
    process.allow_engines()
    yield Bench(request.param, tmp_path_factory.mktemp(request.param))
    end_sessions()


# --- the table --------------------------------------------------------------------------------------------------------


def test_each_suffix_is_run_by_one_session_and_each_backend_can_be_chosen():
    suffixes = [suffix for one in BACKENDS.values() for suffix in one.suffixes]
    for suffix in suffixes:
        sessions = {one.session for one in BACKENDS.values() if suffix in one.suffixes}
        assert sessions == {backends.of_model(f"a/model-0{suffix}").session}
    assert set(BACKENDS) == set(get_args(DeePMDTrain.model_fields["backend"].annotation))
    assert "backend" in TRAINER.fixed, "a campaign keeps the one that it was begun with"


def test_the_worker_knows_what_each_backend_does():
    path = Path(backends.__file__).with_name("workers") / "deepmd_session.py"
    spec = importlib.util.spec_from_file_location("deepmd_session", path)
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    sessions = {one.session for one in BACKENDS.values()}
    assert set(worker.MODULES) == set(worker.OWN_JOBS) == {*sessions, backends.PLAIN.session}
    assert all(worker.OWN_JOBS[name].keys() == {"checkpoint", "average"} for name in sessions)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("pair_style      deepmd model-0.pth model-1.pth out_file model_devi.out out_freq 2", "pytorch"),
        ("pair_style deepmd model-0.pb", "tensorflow"),
        ("pair_style      deepmd model-0.pt2", "pytorch"),
        ("pair_style hybrid/overlay deepmd a.pth b.pth dispersion/d3 original pbe 30 20", "pytorch"),
        ("pair_style lj/cut 5.0", "none"),
        ("pair_coeff * * a.pth", "none"),
    ],
)
def test_lammps_runs_in_the_session_of_its_models(line, name):
    assert backends.of_lines(["units metal", line, "run 0"]).name == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("jax", "jax: two models crash LAMMPS"),
        ("tensorflow2", "tensorflow2: "),
        ("paddle", "paddle: "),
        ("keras", "Input should be 'tensorflow', 'pytorch' or 'pytorch-exportable'"),
    ],
)
def test_a_backend_that_cannot_run_an_ensemble_is_refused_with_the_reason(name, why):
    with pytest.raises(ValidationError) as refused:
        DeePMDTrain(backend=name)
    assert why in str(refused.value)


def test_a_net_that_a_backend_cannot_freeze_is_refused_before_it_is_trained():
    train = DeePMDTrain(backend="pytorch-exportable")
    (line,) = TRAINER.impossible(train)
    assert line.startswith(
        "train.descriptor.type_one_side: false - expected true: pytorch-exportable of DeePMD-kit 3.2"
    )
    one_sided = train.descriptor.model_copy(update={"type_one_side": True})
    assert TRAINER.impossible(train.model_copy(update={"descriptor": one_sided})) == []
    assert not TRAINER.compresses(train)
    assert TRAINER.compresses(DeePMDTrain(backend="pytorch"))


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.engines
def test_the_frozen_model_is_the_one_that_was_trained(bench):
    """The loss of the last row is that of the frozen model, gold four times, to the three digits of the column."""
    alone = settings(bench.name, element_weights={"Au": 4.0})
    trained = bench.training(bench.place / "alone", alone, replace(RUN, checkpoints=False))
    truth, (found,) = copper_gold(), TRAINER.evaluate(bench.place, trained.model, [copper_gold()], bench.slot)
    fallen = 0.1  # of the learning rate, and with it of the prefactors
    weights = np.array([4.0, 1.0, 4.0, 1.0])[:, None]
    wanted = (1.0 + 999.0 * fallen) * (weights * (found.forces - truth.forces) ** 2).mean()
    wanted += (1.0 + (0.02 - 1.0) * fallen) * ((found.energy - truth.energy) ** 2).mean() / 4
    assert trained.columns == ["step", "rmse_trn", "rmse_e_trn", "rmse_f_trn", "rmse_pf_trn", "lr"]
    assert trained.curve[-1, 0] == 50
    assert trained.curve[-1, 1] == pytest.approx(np.sqrt(wanted), rel=0.02)
    assert trained.model.suffix == bench.backend.suffixes[0]
    assert trained.weights is None, "a warm start begins from the model"


@pytest.mark.engines
def test_the_same_seeds_give_the_same_model_to_the_bit_and_others_another(bench):
    again = bench.training(bench.place / "again")
    assert (bench.forces(again.model) == bench.forces(bench.trained.model)).all()
    assert (again.curve == bench.trained.curve).all()
    assert np.abs(bench.forces(bench.other) - bench.forces(bench.trained.model)).max() > 1e-3


@pytest.mark.engines
@pytest.mark.parametrize("start", [50.0, 1e300], ids=["too fast", "not a number"])
def test_a_training_that_runs_away_is_no_model_and_no_crash(bench, start):
    fast = settings(bench.name, learning_rate={"start": start, "stop": start})
    (bench.data.folder / "largest_loss.json").rename(bench.place / "kept.json")
    (bench.data.folder / "largest_loss.json").write_text("100.0")
    try:
        assert bench.training(bench.place / f"fast-{start:g}", fast) is None
    finally:
        (bench.place / "kept.json").rename(bench.data.folder / "largest_loss.json")


@pytest.mark.engines
def test_a_warm_start_begins_where_the_model_was(bench):
    still = settings(bench.name, learning_rate={"start": 1e-12, "stop": 1e-12})
    run = TrainingRun(n_steps=2, random_seeds=(7, 8, 9), start_from=bench.trained.model)
    begun = bench.training(bench.place / "warm", still, run)
    assert bench.forces(begun.model) == pytest.approx(bench.forces(bench.trained.model), abs=1e-8)


@pytest.mark.engines
def test_a_compressed_model_has_the_forces_of_the_plain_one(bench, tmp_path):
    made = TRAINER.compress(tmp_path, bench.trained.model, bench.train, bench.data, bench.slot)
    assert made.suffix == bench.trained.model.suffix
    assert bench.forces(made) == pytest.approx(bench.forces(bench.trained.model), abs=1e-6)


@pytest.mark.engines
def test_the_versions_are_those_of_the_interpreter_that_trains(bench):
    found = TRAINER.versions(bench.train, bench.slot)
    assert found["deepmd-kit"] == "3.2.0"
    assert {"lammps", "torch" if bench.name == "pytorch" else "tensorflow-cpu"} < found.keys()
    assert deepmd.versions(sys.executable, ["pytest", "no-such-package"]).keys() == {"pytest"}


#: Compiled libraries that the session of a backend has loaded, and those of others that would cost every start seconds:
#: Keras, which TensorFlow would import, brings optree, pandas and matplotlib; LAMMPS would import all backends.
LOADED = {"tensorflow": "tensorflow", "pytorch": "torch"}
NOT_LOADED = {"tensorflow": {"torch", "optree", "pandas", "matplotlib"}, "pytorch": {"tensorflow"}}


@pytest.mark.engines
def test_a_session_loads_the_libraries_of_its_backend_and_no_others(bench):
    name = bench.backend.session
    bench.forces(bench.trained.model)
    pids = [one.pid for key, one in process._sessions.items() if key[:2] == ("deepmd", name) and one.pid is not None]
    loaded = set(re.findall(r"-packages/(\w+)/", "".join(Path(f"/proc/{pid}/maps").read_text() for pid in pids)))
    assert LOADED[name] in loaded
    assert NOT_LOADED[name] & loaded == set()


@pytest.mark.engines
def test_a_segment_of_a_glass_is_driven_by_the_first_and_judged_by_both(bench, tmp_path):
    models = [str(bench.trained.model), str(bench.other)]
    what = Potential(name="DP", deepmd={"models": models}, functional="none", includes_dispersion=False)
    frame = copper_gold(1).without_labels()
    start = State(frame, thermal_velocities(frame, 100.0, np.random.default_rng(1)))
    segment = Segment(name="leg", ensemble="npt-iso", temperature_K=100.0, ps=0.01)
    dynamics = Dynamics(timestep_fs=1.0, thermo_every_ps=0.002, restart_every_ps=0.008)
    found = run_segment(what, segment, start, dynamics, tmp_path / "leg", bench.slot)
    assert found.ended == "finished"
    assert len(found.max_devi_f) == 6
    assert (found.max_devi_f > 1e-3).all()
    (told,) = TRAINER.evaluate(tmp_path, bench.trained.model, [frame], bench.slot)
    assert found.potential_energy[0] == pytest.approx(told.energy[0], abs=1e-5)


# --- checkpoints ------------------------------------------------------------------------------------------------------

#: Whether the checkpoint named first is the mean of the others; the number of tensors that differ between them.
MEAN = {
    "tensorflow": """
import sys
import numpy as np, tensorflow as tf
readers = [tf.train.load_checkpoint(name) for name in sys.argv[1:]]
found = [{n: r.get_tensor(n) for n in r.get_variable_to_shape_map() if n != "global_step"} for r in readers]
""",
    "pytorch": """
import sys
import numpy as np, torch
found = [torch.load(name + ".pt", weights_only=True)["model"] for name in sys.argv[1:]]
found = [{name: value.numpy() for name, value in one.items() if hasattr(value, "numpy")} for one in found]
""",
}
JUDGE = """
mean, *single = found
n_changing = 0
for name, value in mean.items():
    values = [one[name] for one in single]
    assert value.dtype == values[0].dtype, name
    if all((one == values[0]).all() for one in values):
        assert (value == values[0]).all(), name
    else:
        n_changing += 1
        assert np.allclose(value, np.mean(values, axis=0), rtol=1e-13, atol=1e-15), name
print("changing", n_changing)
"""


@pytest.mark.engines
def test_the_model_is_the_mean_of_its_checkpoints(bench):
    names = ["average/model.ckpt", *(f"model.ckpt-{step}" for step in MEAN_OF)]
    command = [PYTHONS[bench.name] or sys.executable, "-c", MEAN[bench.name] + JUDGE, *names]
    done = subprocess.run(command, cwd=bench.folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 20
    assert bench.trained.notes == {"averaged_steps": [*MEAN_OF]}
    assert training._dp(["freeze", "-o", f"last{bench.backend.suffixes[0]}"], bench.folder, bench.slot, bench.backend)
    last = bench.forces(bench.folder / f"last{bench.backend.suffixes[0]}")
    assert 1e-6 < np.abs(bench.forces(bench.trained.model) - last).max() < 0.5, "not that of the last checkpoint"


@pytest.mark.engines
def test_a_killed_training_goes_on_from_the_newest_whole_checkpoint(bench, tmp_path, caplog):
    """It was killed after step 48: that checkpoint is cut off, in that of step 44 one byte is another."""
    left = tmp_path / "killed" / "attempt-1"
    shutil.copytree(bench.folder, left, symlinks=True)
    for path in left.glob("model.ckpt-50*"):
        path.unlink()
    end = bench.backend.checkpoint[0]
    cut = left / f"model.ckpt-48{end}"
    cut.write_bytes(cut.read_bytes()[:-100])
    flipped = left / f"model.ckpt-44{end}"
    content = bytearray(flipped.read_bytes())
    content[len(content) // 5] ^= 1  # of the numbers, not of what lies between them
    flipped.write_bytes(content)
    (left / "lcurve.out").write_text("".join((bench.folder / "lcurve.out").open().readlines()[:-3]) + " 49  1.0")

    place = tmp_path / "place"
    place.mkdir()
    restart = TRAINER.take_over([left], place, bench.train, RUN, bench.slot)
    assert restart == "model.ckpt-46"
    assert "model.ckpt-48 is corrupt and skipped" in caplog.text
    assert checkpoints.kept(place, MEAN_OF, bench.backend) == [42, 46, 48, 50]
    trained = bench.training(place, run=replace(RUN, restart=restart))
    assert trained.resumed_from == (46,)
    assert trained.notes == {"averaged_steps": [42, 46, 48, 50]}
    steps = trained.curve[:, 0].tolist()
    assert steps == sorted(set(steps))
    assert steps[-5:] == [46, 47, 48, 49, 50]
    near = np.abs(bench.forces(trained.model) - bench.forces(bench.trained.model)).max()
    assert near < 0.5, "the same training but for the last steps"


# --- conversion -------------------------------------------------------------------------------------------------------


@pytest.mark.engines
def test_a_model_with_other_forces_than_it_was_made_from_is_refused(bench, tmp_path):
    system = next(path for path in bench.data.folder.iterdir() if path.is_dir())
    same = [bench.trained.model, bench.trained.model]
    assert training.has_same_forces(tmp_path, same, system, bench.slot, bench.backend)
    with pytest.raises(EngineError, match=r"a force differs by .* from which it was made - expected the same"):
        training.has_same_forces(tmp_path, [bench.trained.model, bench.other], system, bench.slot, bench.backend)


@pytest.mark.engines
@pytest.mark.parametrize("backend", ["pytorch"])
@pytest.mark.needs_torch
@pytest.mark.skipif(TORCH_PYTHON is None, reason=needs_torch[1].kwargs["reason"])
def test_a_model_that_has_lost_its_forces_in_silence_is_refused(backend, tmp_path):
    """What ``dp convert-backend`` makes of a .pth: a .dp, which gives NaN for every force."""
    process.allow_engines()
    bench = Bench(backend, tmp_path / "bench")
    lost = bench.folder / "lost.dp"
    arguments = ["convert-backend", str(bench.trained.model), lost.name]
    assert training._dp(arguments, bench.folder, bench.slot, bench.backend)
    system = next(path for path in bench.data.folder.iterdir() if path.is_dir())
    with pytest.raises(EngineError, match="a force differs by nan"):
        training.has_same_forces(tmp_path, [bench.trained.model, lost], system, bench.slot, bench.backend)
    end_sessions()


# --- models that are compiled -----------------------------------------------------------------------------------------


@pytest.mark.engines
@pytest.mark.needs_torch
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(TORCH_PYTHON is None, reason=needs_torch[1].kwargs["reason"])
def test_compiled_models_drive_a_walk_with_their_deviation_and_a_warm_start_begins_from_the_kept_checkpoint(tmp_path):
    """``pytorch-exportable``: g++ compiles each model when it is frozen, 25 to 120 CPU-s."""
    process.allow_engines()
    slot = Slot(Machine(name="test", python=TORCH_PYTHON), tmp_path / "logs")
    descriptor = {"rcut": 3.5, "rcut_smth": 0.5, "neuron": [4, 8], "axis_neuron": 2, "type_one_side": True}
    train = settings("pytorch-exportable", descriptor=descriptor)
    TRAINER.write_data(tmp_path / "data", [copper_gold()], train, ELEMENTS)
    data = TrainingData(tmp_path / "data", ELEMENTS, ((20, 20),))

    def trained(name, run, settings=train):
        (tmp_path / name).mkdir()
        return TRAINER.train(tmp_path / name, settings, run, data, slot)

    one = trained("one", RUN)
    assert one.model.suffix == ".pt2"
    assert one.weights == tmp_path / "one" / "model.ckpt-50.pt"
    still = train.model_copy(update={"learning_rate": LearningRate(start=1e-12, stop=1e-12)})
    same = trained("warm", TrainingRun(n_steps=2, random_seeds=(7, 8, 9), start_from=one.weights), still)
    other = trained("other", replace(RUN, random_seeds=(4, 5, 6)))

    (tmp_path / "walk").mkdir()
    start = copper_gold(1).without_labels()
    cell = lammps.write_data(tmp_path / "walk" / "conf.lmp", start, ELEMENTS)
    assert cell[0, 0] < 2 * 3.5, "a small cell: neighbours are images"
    pair = TRAINER.pair([str(one.model), str(other.model)], ELEMENTS, 2)
    stage = Stage(name="walk", ensemble="nvt", temperatures_K=(100,), n_walks=1, n_steps=20, every=2, timestep_fs=2.0)
    what = lammps.walk_input(stage, lammps.Drive(stage.conditions[0], velocity_seed=1), pair)
    walk = lammps.run_walk(tmp_path / "walk", what, start.symbols, slot)
    assert walk.ended == "finished"
    frames = Frames(start.symbols, walk.cell, walk.positions)
    first, second, third = (
        TRAINER.evaluate(tmp_path, made.model, [frames], slot)[0].forces for made in (one, other, same)
    )
    assert first == pytest.approx(walk.forces, abs=1e-6)
    assert force_deviation(np.array([first, second])) == pytest.approx(walk.max_devi_f, abs=1e-6)
    assert walk.max_devi_f.max() > 1e-3
    assert third == pytest.approx(first, abs=1e-8)
    end_sessions()


@pytest.mark.engines
def test_a_model_and_its_compressed_form_say_what_they_were_trained_with(bench, tmp_path):
    wanted = frozen.Frozen(ELEMENTS, 3.5, (20, 20))
    assert frozen.read(bench.trained.model) == wanted
    if TRAINER.compresses(bench.train):
        made = TRAINER.compress(tmp_path, bench.trained.model, bench.train, bench.data, bench.slot)
        assert frozen.read(made) == wanted


#: What `dp compress` of DeePMD-kit 3.2.0 says of one pair of elements, by backend; PyTorch of s, x, y and z.
SAID = {
    "tensorflow": "lower boundary: [-0.20515858 -0.20740163]\n[2026] DEEPMD INFO training data with upper boundary: "
    "[3.77146548 3.76922244]\n[2026-11-30 09:28:29,098] DEEPMD INFO    built lr\n",
    "pytorch": "lower boundary: [[-0.20515858 -0. -0. -0. ]\n [-0.20740163 -0. -0. -0. ]]\n[2026] DEEPMD INFO "
    "training data with upper boundary: [[3.77146548 3. 3. 3. ]\n [3.76922244 3. 3. 3. ]]\n",
}


@pytest.mark.parametrize("backend", SAID)
def test_where_the_tables_end_is_read_as_each_backend_says_it(tmp_path, backend):
    """Within the smoothing, where s(r) is not 1/r: s is 20.2 / 3.97 times that of the shortest distance there."""
    log = "training data with minimal neighbor distance: 2.395042\ntraining data with " + SAID[backend]
    (tmp_path / "dp-compress.log").write_text(log)
    (tmp_path / "input.json").write_text(json.dumps({"model": {"descriptor": {"rcut": 3.0, "rcut_smth": 0.5}}}))
    shortest, end = TRAINER.holds_from_A(tmp_path)

    def s(r):
        u = (r - 0.5) / 2.5
        return (u**3 * (-6 * u**2 + 15 * u - 10) + 1) / r

    assert shortest == 2.395042
    assert s(end) / s(shortest) == pytest.approx((5 * 4 + 0.2074) / (3.7692 + 0.2074), rel=0.002)
    (tmp_path / "dp-compress.log").write_text(log[:-60])
    assert TRAINER.holds_from_A(tmp_path) is None, "cut off"


def test_a_block_that_leaves_its_cutoffs_out_has_those_of_deepmd_and_a_hybrid_is_not_known(tmp_path):
    log = "training data with minimal neighbor distance: 2.395042\ntraining data with " + SAID["tensorflow"]
    (tmp_path / "dp-compress.log").write_text(log)

    def end_of(**descriptor):
        (tmp_path / "input.json").write_text(json.dumps({"model": {"descriptor": descriptor}}))
        return TRAINER.holds_from_A(tmp_path)

    assert end_of(type="se_e2_a") == end_of(type="se_e2_a", rcut=6.0, rcut_smth=0.5)
    assert end_of(type="hybrid", list=[]) is None
    (shortest, pairs), (_, triples) = end_of(type="se_e2_a"), end_of(type="se_e3")
    assert pairs < triples < shortest, "tables of products of two end where one has grown by the root of it"
