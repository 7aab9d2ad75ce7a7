"""The trainer mace, with the real mace-torch in an interpreter of its own (ACTIVELEARN_MACE_PYTHON).

No foundation MACE is in a registry: a tiny one is trained here, and nothing is said of its quality.
"""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from campaigns import end_sessions, in_process, machine_file, tiny
from conftest import rattled_copper
from pydantic import ValidationError
from tuning import Bench

from activelearn import finetune
from activelearn.config import Label, Machine, TrainingRun, load_potential
from activelearn.engines import process, reference
from activelearn.engines.trainers.mace import TRAINER
from activelearn.engines.trainers.mace.settings import MaceTrain
from activelearn.errors import ConfigError
from activelearn.frames import Frames

PYTHON = os.environ.get("ACTIVELEARN_MACE_PYTHON")
RUN = TrainingRun(n_steps=12, random_seeds=(1, 2, 3))
STILL = {"start": 1e-14, "stop": 1e-14}


def settings(foundation="none.model", **more):
    given = {"batch_size": 2, "learning_rate": {"start": 5e-3, "stop": 1e-3}, "foundation": str(foundation)}
    return MaceTrain.model_validate({**given, **more})


def rms(differences):
    return float(np.sqrt(np.mean(np.square(differences))))


# --- before anything runs ---------------------------------------------------------------------------------------------


def test_a_foundation_that_is_not_there_or_none_is_said(tmp_path):
    with pytest.raises(ValidationError, match="foundation"):
        MaceTrain.model_validate({})
    (line,) = TRAINER.impossible(settings("none.model"))
    assert line.startswith("train.foundation: none.model: no such file - expected a model of MACE (.model) - download")
    (tmp_path / "a.model").write_bytes(b"nothing")
    (line,) = TRAINER.impossible(settings(tmp_path / "a.model"))
    assert (
        line
        == "train.foundation: a.model is not a checkpoint of MACE - expected one as written by mace - check the path"
    )


def test_an_interpreter_without_mace_is_named(tmp_path):
    (line,) = TRAINER.problems(settings(), Machine())
    assert "this interpreter has no mace-torch - needed for train.trainer: mace - python3 -m venv" in line


def test_a_replay_is_read_before_anything_runs(tmp_path):
    (tmp_path / "a.model").write_bytes(b"nothing")
    lines = [
        TRAINER.impossible(settings(tmp_path / "a.model", replay={"file": str(tmp_path / name)}))[-1]
        for name in ("none.xyz", "a.model")
    ]
    assert "train.replay.file: no file" in lines[0]
    assert "a.model cannot be read" in lines[1]


def test_every_structure_of_a_replay_is_looked_at_before_anything_runs(tmp_path):
    (tmp_path / "a.model").write_bytes(b"nothing")
    good = bulk("Cu", cubic=True)
    good.calc = SinglePointCalculator(good, energy=1.0, forces=np.zeros((4, 3)))
    torn, mute, silent = good.copy(), good.copy(), good.copy()
    torn.positions[2, 1] = np.nan
    silent.calc = SinglePointCalculator(silent, energy=np.nan, forces=np.zeros((4, 3)))

    def said(labels, *images):
        write(tmp_path / "r.xyz", list(images), format="extxyz")
        replay = {"file": str(tmp_path / "r.xyz"), "labels": labels}
        return TRAINER.impossible(settings(tmp_path / "a.model", replay=replay))[1:]

    assert said("own", good, good) == []
    assert said("foundation", good, mute) == []
    for labels, bad in (("own", torn), ("foundation", torn), ("own", silent)):
        (line,) = said(labels, good, bad)
        assert line.startswith("train.replay.file: r.xyz has a number that is not finite in structure 1 (from 0) - ")
    (line,) = said("own", good, mute)
    assert "r.xyz has Cu4 without energy or forces - expected both of every structure" in line


# --- trained for real -------------------------------------------------------------------------------------------------


def written(path, *words):
    """Write an untrained MACE."""
    script = Path(__file__).parent / "tiny_mace.py"
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([PYTHON, script, path, *words], check=True, capture_output=True, env=env)
    return path


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    process.allow_engines()
    folder = tmp_path_factory.mktemp("mace")
    made = Bench(folder, TRAINER, settings, Machine(name="test", python=PYTHON))
    made.random = written(folder / "random.model", "Cu,Au")
    yield made
    end_sessions()


@pytest.fixture(scope="module")
def foundation(bench):
    """What members begin as: copper by EMT, squeezed and stretched, so that it has a repulsion to forget."""
    n_steps = replace(RUN, n_steps=200)
    parts = [bench.truth, squeezed(6)]
    trained = bench.trained(n_steps, bench.data(parts), foundation=bench.random, force_weight=10.0)
    return shutil.copyfile(trained.model, bench.folder / "foundation.model")


def squeezed(n_frames):
    """Copper whose atoms come close, labelled by EMT."""
    from ase.calculators.emt import EMT

    rng, images = np.random.default_rng(8), []
    for k in range(n_frames):
        atoms = bulk("Cu", cubic=True, a=3.61 * (0.80 + 0.05 * (k % 4)))
        atoms.positions += rng.normal(scale=0.05, size=(4, 3))
        atoms.calc = EMT()
        atoms.get_forces()
        atoms.get_stress()
        images.append(atoms)
    return Frames.from_ase(images)


@pytest.fixture(scope="module")
def replay(bench):
    path = bench.folder / "replay.xyz"
    write(path, squeezed(4).without_labels().to_ase())
    return path


pytest_real = [
    pytest.mark.engines,
    pytest.mark.timeout(900),
    pytest.mark.needs_mace,
    pytest.mark.skipif(PYTHON is None, reason="ACTIVELEARN_MACE_PYTHON names no interpreter with mace-torch"),
]


class TestTraining:
    pytestmark = pytest_real

    def test_what_a_model_says_is_read_without_torch_and_without_running_it(self, bench):
        found = TRAINER.read(bench.random)
        assert (found.elements, found.cutoff_A, found.kinds, found.precision) == ({"Cu", "Au"}, 4.0, (), "float64")
        assert TRAINER.impossible(settings(bench.random)) == []
        (line,) = TRAINER.contradictions(settings(bench.random), ("Cu", "Po"))
        assert "random.model does not know Po" in line
        (line,) = TRAINER.impossible(settings(bench.random, head="mp"))
        assert line.startswith("train.head: mp, and random.model has no heads")

    def test_labels_are_learnt_and_the_calculator_says_the_same(self, bench, foundation):
        before, after = (bench.evaluated(model) for model in (bench.random, foundation))
        assert rms(after.forces - bench.truth.forces) < 0.5 * rms(before.forces - bench.truth.forces)
        model = bench.folder / "run [1]" / "a*.model"  # mace takes a path for a pattern
        model.parent.mkdir()
        shutil.copyfile(foundation, model)
        said = {**TRAINER.calculator(model), "python": PYTHON, "functional": "none", "includes_dispersion": False}
        by = Label.model_validate({"reference": said}).reference
        label = reference.label(by, bench.truth[1].without_labels(), bench.slot)
        assert label.energy == pytest.approx(after.energy[1], abs=1e-6)
        np.testing.assert_allclose(label.forces, after.forces[1], atol=1e-6)
        np.testing.assert_allclose(label.virial, after.virial[1], atol=1e-5)

    def test_its_virial_is_learnt_with_the_sign_of_ours(self, bench, foundation):
        """Labels of a model itself leave no error at the first step; with the other sign they do."""
        own = bench.evaluated(foundation)
        wrong = own.with_labels(own.energy, own.forces, -own.virial)
        one = replace(RUN, n_steps=1)
        rows = [
            bench.trained(one, bench.data([part]), foundation=foundation, learning_rate=STILL).curve[0]
            for part in (own, wrong)
        ]
        assert (rows[0][1:4] < 1e-5).all()
        assert rows[1][3] > 1.0

    def test_the_same_seeds_give_the_same_model_also_over_a_kill(self, bench, foundation):
        run, data = replace(RUN, checkpoints=True), bench.data()
        whole = bench.trained(run, data, foundation=foundation)
        left = bench.place()
        shutil.copytree(whole.model.parent, left, dirs_exist_ok=True)
        for name in ("checkpoint-10.pth", "model.model"):
            (left / name).unlink()
        place = bench.place()
        restart = TRAINER.take_over([left], place, settings(), run, bench.slot)
        assert restart == "checkpoint-5.pth"
        resumed = bench.trained(replace(run, restart=restart), data, place, foundation=foundation)
        assert resumed.resumed_from == (5,)
        assert (resumed.curve == whole.curve).all()
        forces = [bench.evaluated(one.model).forces for one in (whole, resumed)]
        assert (forces[0] == forces[1]).all()
        other = bench.trained(replace(RUN, random_seeds=(1, 2, 4)), data, foundation=foundation)
        assert np.abs(bench.evaluated(other.model).forces - forces[0]).max() > 1e-4

    def test_a_replay_keeps_what_the_labels_do_not_show(self, bench, foundation, replay):
        """Members tuned on calm copper forget the forces of squeezed copper; by a replay they remember them."""
        calm, known = bench.evaluated(foundation), bench.evaluated(foundation, squeezed(4)).forces
        softer = calm.with_labels(calm.energy - 8.0, 0.5 * calm.forces, None)
        run, off = replace(RUN, n_steps=60), []
        for more in ({}, {"replay": {"file": str(replay), "n_frames": 2}}):
            given = {"foundation": foundation, **more}
            trained = bench.trained(run, bench.data([softer], **given), **given)
            off.append(rms(bench.evaluated(trained.model, squeezed(4)).forces - known))
            assert trained.notes.get("replay_frames") == (4 if more else None)
            assert trained.notes["shift_eV"]["Cu"] == pytest.approx(-2.0, abs=0.01)
        assert off[1] < 0.5 * off[0]

    def test_a_replay_with_labels_of_its_own_is_learnt_by_a_second_head(self, bench, foundation, replay):
        path = bench.folder / "labelled.xyz"
        write(path, squeezed(4).to_ase())
        replayed = {"file": str(path), "labels": "own", "n_frames": 2}
        given = {"foundation": foundation, "replay": replayed}
        still = bench.trained(replace(RUN, n_steps=1), bench.data(**given), learning_rate=STILL, shift="keep", **given)
        frames = squeezed(3)
        same, before = (bench.evaluated(model, frames) for model in (still.model, foundation))
        np.testing.assert_allclose(same.forces, before.forces, atol=1e-8)
        np.testing.assert_allclose(same.energy, before.energy, atol=1e-8)
        assert TRAINER.read(still.model).kinds == (), "one head is left"
        trained = bench.trained(RUN, bench.data(**given), **given)
        assert np.isfinite(trained.curve).all()
        with pytest.raises(ConfigError, match="has Cu4 without energy or forces - expected both of every structure"):
            bench.data(foundation=foundation, replay={**replayed, "file": str(replay)})

    def test_a_head_of_several_is_named_and_alone_is_kept(self, bench):
        both = written(bench.folder / "both.model", "Cu,Au", "mp,omat")
        (line,) = TRAINER.impossible(settings(both))
        assert "train.head: both.model knows mp, omat, and none is named - expected that of the labels" in line
        trained = bench.trained(replace(RUN, n_steps=2), foundation=both, head="omat", precision="float32")
        found = TRAINER.read(trained.model)
        assert (found.kinds, found.precision) == ((), "float32")
        assert TRAINER.potential(["a", "b"], ("1", "2"), ("Cu",), (0.1, 0.2))["committee"]["argument"] == "model_paths"

    def test_members_of_one_ensemble_are_evaluated_in_one_process(self, bench, foundation):
        parts = [rattled_copper(2).without_labels(), rattled_copper(1, repeat=(2, 1, 1)).without_labels()]
        models = [foundation, bench.random]
        both = TRAINER.worker.evaluate(bench.place(), models, parts, bench.slot, most_atoms=8)
        for model, found in zip(models, both, strict=True):
            alone = TRAINER.evaluate(bench.place(), model, parts, bench.slot)
            for part, other in zip(found, alone, strict=True):
                np.testing.assert_allclose(part.forces, other.forces, atol=1e-9)

    def test_a_learning_rate_that_is_far_too_high_is_told_from_a_training(self, bench, foundation):
        rate = {"start": 10.0, "stop": 10.0}
        assert bench.trained(replace(RUN, n_steps=40), foundation=foundation, learning_rate=rate) is None

    def test_versions_have_the_checksum_of_the_foundation_and_no_path(self, bench, foundation):
        found = TRAINER.versions(settings(foundation), bench.slot)
        assert found.keys() == {"mace-torch", "torch", "e3nn", "foundation"}
        assert found["foundation"].startswith("foundation.model sha256 ")

    def test_check_reads_it_and_a_yaml_from_elsewhere_wants_trust(self, bench, foundation, tmp_path):
        section = {"trainer": "mace", "n_members": 2, "n_steps": 6, "foundation": str(foundation)}
        campaign = tiny(tmp_path / "c.yaml", train=section)
        machine = machine_file(tmp_path / "m.yaml", python=PYTHON)
        done = in_process("check", campaign, "--machine", machine, "--folder", tmp_path / "c")
        assert done.returncode == 0, done.stderr
        assert "ensemble: 2 members by mace" in done.stdout

    def test_finetune_writes_a_potential_that_benchmark_takes_and_goes_on(self, bench, foundation, tmp_path):
        machine, store = bench.slot.machine, Campaign(tmp_path)
        train = settings(foundation, n_steps=40, learning_rate={"start": 5e-3, "stop": 1e-4})
        potential, errors = finetune.finetune(store, train, tmp_path / "to", machine, "FT-tiny")
        assert errors["after"] < 0.7 * errors["before"]
        found = load_potential(potential)
        assert (found.name, found.physics, found.ase.python) == ("FT-tiny", "none", PYTHON)
        assert found.ase.arguments["model_paths"] == str(tmp_path / "to" / "FT-tiny.model")
        assert yaml.safe_load(potential.read_text())["ase"]["arguments"]["model_paths"] == "FT-tiny.model"
        assert finetune.finetune(store, train, tmp_path / "to", machine, "FT-tiny")[1] == errors, "read, not trained"
        with pytest.raises(
            ConfigError, match=r"started with other settings or data - expected those of .*finetune.json"
        ):
            finetune.finetune(store, settings(foundation), tmp_path / "to", machine, "FT-tiny")


class Campaign:
    """What finetune asks of a store."""

    def __init__(self, folder):
        self.folder = folder

    def iterations(self):
        return [type("Record", (), {"index": 0})]

    def dataset(self, _last):
        return [hot_copper(24, 1)]

    def held_out(self, _last):
        return [hot_copper(8, 2)]

    def campaign(self, _last):
        reference = type("Reference", (), {"functional": "none", "labels_include_dispersion": False})
        label = type("Label", (), {"reference": reference})
        return type("Campaign", (), {"label": label, "type_map": ("Cu",)})


def hot_copper(n_frames, seed):
    """Copper that is rattled more than what the foundation has seen."""
    from ase.calculators.emt import EMT

    rng, images = np.random.default_rng(seed), []
    for _ in range(n_frames):
        atoms = bulk("Cu", cubic=True, a=3.7)
        atoms.positions += rng.normal(scale=0.15, size=(4, 3))
        atoms.calc = EMT()
        atoms.get_forces()
        atoms.get_stress()
        images.append(atoms)
    return Frames.from_ase(images)


@pytest.mark.parametrize("name", ["potential.yaml", "ft.model"])
def test_nothing_of_somebody_else_is_written_over(tmp_path, name, monkeypatch):
    """Such as a model of the folder that one is in, with --to ."""
    monkeypatch.setattr(TRAINER, "impossible", lambda _: [])
    monkeypatch.setattr(TRAINER, "problems", lambda *_: [])
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=f"contains {name}, but no finetune.json"):
        finetune.finetune(Campaign(tmp_path), settings(), tmp_path, Machine(), "ft")
    assert (tmp_path / name).read_text() == "mine"


def test_a_killed_training_does_not_go_on_with_other_data_of_the_same_size(tmp_path, monkeypatch):
    def killed(*_):
        raise RuntimeError("killed")

    monkeypatch.setattr(TRAINER, "impossible", lambda _: [])
    monkeypatch.setattr(TRAINER, "problems", lambda *_: [])
    monkeypatch.setattr(TRAINER, "evaluate_foundation", killed)
    (tmp_path / "replay.xyz").write_text("one")
    train = settings(replay={"file": str(tmp_path / "replay.xyz")})
    store = Campaign(tmp_path)
    for _ in range(2):  # it goes on with the same
        with pytest.raises(RuntimeError, match="killed"):
            finetune.finetune(store, train, tmp_path / "to", Machine(), "ft")
    (tmp_path / "replay.xyz").write_text("two")
    with pytest.raises(ConfigError, match="started with other settings or data"):
        finetune.finetune(store, train, tmp_path / "to", Machine(), "ft")
    (tmp_path / "replay.xyz").write_text("one")
    monkeypatch.setattr(store, "dataset", lambda _last: [hot_copper(24, 3)])
    with pytest.raises(ConfigError, match="started with other settings or data"):
        finetune.finetune(store, train, tmp_path / "to", Machine(), "ft")


def test_a_missing_model_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="no such file - expected a model of MACE"):
        finetune.finetune(Campaign(tmp_path), settings(), tmp_path / "to", Machine(), "ft")
