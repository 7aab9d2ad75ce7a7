"""Train and initial: errors with known answers, when a training is planned, and which trajectories are held out."""

import hashlib
import io
import json
import os
import re
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from campaigns import end_sessions
from conftest import rattled_copper
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from activelearn import initial, prediction, show, status, train, trees
from activelearn.config import Machine, TrainingRun, trainer_of
from activelearn.engines import process
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd import inputs, training
from activelearn.engines.trainers.deepmd.settings import Descriptor, LearningRate, Prefactors
from activelearn.errors import ConfigError, EngineError
from activelearn.frames import Frames
from activelearn.records import Ensemble, Errors, Iteration, Labelling, Member, Selection, Task
from activelearn.store import Store
from activelearn.store.files import publish_json
from activelearn.writing import write_deepmd


def test_errors_by_hand(copper):
    """Four atoms: +0.4 eV on every energy is 100 meV/atom; forces off by ±0.3 in one component of three."""
    shift = np.zeros_like(copper.forces)
    shift[..., 0] = 0.3 * np.array([1, -1, 1, -1])
    predicted = replace(copper, energy=copper.energy + 0.4, forces=copper.forces + shift, virial=copper.virial + 0.02)
    found = prediction.errors([predicted[:1], predicted[1:]], [copper[:1], copper[1:]])
    assert found.n_frames == 3
    assert found.energy_rmse_meV_per_atom == pytest.approx(100.0)
    assert found.energy_mae_meV_per_atom == pytest.approx(100.0)
    assert found.force_rmse == pytest.approx(0.3 / np.sqrt(3.0))
    assert found.force_mae == pytest.approx(0.1)
    assert found.virial_rmse_meV_per_atom == pytest.approx(5.0)
    assert found.virial_mae_meV_per_atom == pytest.approx(5.0)
    assert found.force_p95 == found.force_p99 == pytest.approx(0.3), "of the length of the error vector"
    assert prediction.errors([], []) is None
    bare = replace(copper, virial=None)
    assert prediction.errors([predicted], [bare]).virial_rmse_meV_per_atom is None


def test_percentiles_are_those_of_the_error_vectors_of_atoms(copper):
    """12 atoms, one of them off by (3, 4, 0) eV/Å: between the 11th and the 12th, linearly."""
    forces = copper.forces.copy()
    forces[2, 1] += (3.0, 4.0, 0.0)
    found = prediction.errors([replace(copper, forces=forces)], [copper])
    assert found.force_p95 == pytest.approx(5.0 * (0.95 * 11 - 10))
    assert found.force_p99 == pytest.approx(5.0 * (0.99 * 11 - 10))


def test_errors_by_composition(copper):
    big = rattled_copper(2, repeat=(2, 1, 1))
    off = replace(copper, energy=copper.energy + 0.4)
    found = prediction.errors_by_composition([off[:1], big, off[1:]], [copper[:1], big, copper[1:]])
    assert list(found) == ["Cu4", "Cu8"]
    assert (found["Cu4"].n_frames, found["Cu8"].n_frames) == (3, 2)
    assert found["Cu4"].energy_mae_meV_per_atom == pytest.approx(100.0)
    assert (found["Cu8"].energy_mae_meV_per_atom, found["Cu8"].force_p99) == (0.0, 0.0)
    assert prediction.errors_by_composition([], []) == {}


def test_the_mean_over_the_members(copper):
    one = prediction.errors([replace(copper, energy=copper.energy + 0.4)], [copper])
    two = prediction.errors([replace(copper, energy=copper.energy + 0.8, virial=None)], [copper])
    found = Errors.mean([one, two])
    assert (found.n_frames, found.energy_rmse_meV_per_atom) == (3, pytest.approx(150.0))
    assert found.virial_mae_meV_per_atom == 0.0, "of those that have it"
    assert Errors.mean([]) is None


def held_out_row(copper, n_compositions):
    one = prediction.errors([replace(copper, energy=copper.energy + 3.2, forces=copper.forces + 9.0)], [copper])
    formulas = [f"Na{96 + k}O120P96S216" for k in range(n_compositions)]
    found = one.model_copy(update={"n_frames": 12345}).model_dump()
    return {"trained_in": 94, "held_out": found, "held_out_by_composition": dict.fromkeys(formulas, found)}


@pytest.mark.parametrize("n_compositions", [1, 3])
def test_the_table_of_held_out_errors_has_80_columns(copper, n_compositions):
    console = Console(file=io.StringIO(), width=100)
    show.held_out_table(console, [held_out_row(copper, n_compositions)])
    lines = console.file.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert len(lines) == 3 + (1 if n_compositions == 1 else 1 + n_compositions)
    assert "P99" in lines[1]
    assert "15.588" in lines[-2], "the length of (9, 9, 9)"


def test_without_held_out_frames_there_is_no_table(copper):
    console = Console(file=io.StringIO(), width=100)
    show.held_out_table(console, [])
    show.held_out_table(console, [{"held_out": None}])
    assert console.file.getvalue() == ""


@pytest.mark.engines
def test_status_has_the_held_out_errors_of_the_ensemble_and_by_composition(undisturbed):
    store, _ = undisturbed
    for record, row in zip(store.iterations(), status.as_dict(store)["iterations"], strict=True):
        members = [member.held_out for member in record.ensemble.members]
        for name in ("energy_mae_meV_per_atom", "force_p95", "force_p99", "virial_mae_meV_per_atom"):
            assert row["held_out"][name] == pytest.approx(np.mean([getattr(found, name) for found in members]))
        assert row["held_out"]["force_rmse"] < row["held_out"]["force_p95"] < row["held_out"]["force_p99"]
        assert row["held_out_by_composition"] == {"Cu32": row["held_out"]}


@pytest.mark.engines
def test_the_learning_curve_of_every_member_is_kept_with_the_names_of_its_columns(undisturbed):
    store, _ = undisturbed
    for record in store.iterations():
        for member in record.ensemble.members:
            arrays, meta = store.read_product("train", record.index, f"member-{member.index}")
            columns, curve = meta["learning_curve_columns"], arrays["learning_curve"]
            assert columns == ["step", "rmse_trn", "rmse_e_trn", "rmse_f_trn", "lr"]
            assert (curve[0, 0], curve[-1, 0], curve.shape[1]) == (0, member.n_steps, len(columns))


def labelling(store, iteration, frames, refused=None):
    record = Labelling(
        iteration=iteration, labelled=frames, held_out=0, refused=refused or {}, dataset_frames=frames,
        dataset_sha256="0", labels_computed=0, labels_adopted=0, labels_reused=0,
    )  # fmt: skip
    store.seal("label", iteration, record)
    publish_json(store.iteration_folder(0) / "sel.json", [60])


def passed(store, **verdict):
    settings = {
        "is_rescue": False, "quiet_stages": (), "next_stages": ("cold",), "is_converged": False, **verdict
    }  # fmt: skip
    found = Selection(
        iteration=1, f_lo=0.1, f_hi=0.2, stages=("cold",), cells=(), walks=(), chosen=0, rescued=0, passed_over={},
        why="", **settings,
    )  # fmt: skip
    store.seal("select", 1, found)
    members = tuple(Member(index=k, random_seed=1, model=f"m/{k}.pb", sha256="0", n_steps=1) for k in range(4))
    store.seal("train", 0, Ensemble(iteration=0, trained_in=0, type_map=("Cu",), members=members))


def test_the_first_training_has_members_that_differ_in_their_seeds_only(store, campaign):
    labelling(store, 0, 10)
    tasks = train.plan(campaign, store, 0)
    assert [task.id for task in tasks] == [f"member-{k}" for k in range(4)]
    assert len({tuple(task.parameters["random_seeds"]) for task in tasks}) == 4
    assert {task.parameters["n_steps"] for task in tasks} == {300}
    assert {task.inputs for task in tasks} == {()}
    assert train.plan(campaign, store, 0) == tasks, "pure"


def test_the_first_training_begins_with_the_weights_of_models_that_are_named(store, campaign, tmp_path):
    labelling(store, 0, 10)
    for k in range(4):
        (tmp_path / f"{k}.pb").write_bytes(b"model %d" % k)
    names = tuple(str(tmp_path / f"{k}.pb") for k in range(4))
    settings = campaign.train.model_copy(update={"start_from": names, "warm_n_steps": 70})
    tasks = train.plan(campaign.model_copy(update={"train": settings}), store, 0)
    assert [store.model(*task.inputs).read_bytes() for task in tasks] == [b"model %d" % k for k in range(4)]
    assert {(task.parameters["warm"], task.parameters["n_steps"]) for task in tasks} == {(True, 70)}
    assert settings.trains_like(settings.model_copy(update={"start_from": None})), "where it began is no other training"
    assert "start_from" not in campaign.train.model_dump(), "so that campaigns without it keep their checksum"


@pytest.mark.parametrize(
    ("names", "changes", "said"),
    [
        (("0.pb",), {}, "1 models for 4 members - expected one per member"),
        (("0.pb", "1.pb", "2.pb", "3.pth"), {}, "3.pth - expected .pb"),
        (("0.pb", "1.pb", "2.pb", "gone.pb"), {}, "no file gone.pb"),
        (("0.pb", "1.pb", "2.pb", "3.pb"), {"sel": None}, "train.descriptor.sel is determined automatically"),
    ],
)
def test_models_that_cannot_be_a_start_are_told(campaign, tmp_path, monkeypatch, names, changes, said):
    monkeypatch.chdir(tmp_path)
    for name in ("0.pb", "1.pb", "2.pb", "3.pb", "3.pth"):
        Path(name).touch()
    settings = campaign.train
    descriptor = settings.descriptor.model_copy(update={"sel": (60,), **changes})
    found = trainer_of(settings).impossible(settings.model_copy(update={"start_from": names, "descriptor": descriptor}))
    assert any(said in line for line in found), found


def test_nothing_to_train_on_is_refused_with_the_reasons(store, campaign):
    labelling(store, 0, 0, {"net force above 0.05 eV/Å per atom": 7})
    with pytest.raises(
        ConfigError, match=r"no initial frame can be trained on \(7 net force above 0.05 eV/Å per atom\)"
    ):
        train.plan(campaign, store, 0)


JOINED = {"quiet_stages": ("cold",), "next_stages": ("cold", "warm")}


@pytest.mark.parametrize(
    ("new", "verdict", "n_tasks", "n_steps"),
    [
        (5, {}, 4, 600),
        (0, {}, 0, None),
        (5, {"is_converged": True}, 0, None),
        (5, {"is_rescue": True}, 4, 900),
        (0, {"is_rescue": True}, 0, None),
        (5, JOINED, 0, None),  # learnt with what warm finds
        (5, {"next_stages": ("cold", "warm"), "is_bounded": True}, 4, 600),  # not quiet, and has had all its passes
    ],
)
def test_when_a_training_is_planned(store, campaign, new, verdict, n_tasks, n_steps):
    labelling(store, 0, 10)
    labelling(store, 1, 10 + new)
    passed(store, **verdict)
    tasks = train.plan(campaign, store, 1)
    assert len(tasks) == n_tasks
    assert {task.parameters["n_steps"] for task in tasks} == ({n_steps} if n_tasks else set())
    assert [task.inputs for task in tasks] == [(f"m/{k}.pb",) for k in range(n_tasks)], "warm: each from its own"


def test_what_a_quiet_pass_found_is_learnt_if_no_other_pass_may_follow(store, campaign):
    """Labels were paid for it; without a final training the models would never see them."""
    last = campaign.model_copy(update={"stop": campaign.stop.model_copy(update={"max_iterations": 1})})
    labelling(store, 0, 10)
    labelling(store, 1, 15)
    passed(store, **JOINED)
    assert len(train.plan(last, store, 1)) == 4


def test_few_new_frames_wait_unless_it_is_a_rescue(store, campaign):
    patient = campaign.model_copy(update={"train": campaign.train.model_copy(update={"min_new_frames": 6})})
    labelling(store, 0, 10)
    labelling(store, 1, 15)
    passed(store)
    assert train.plan(patient, store, 1) == []


def test_few_new_frames_are_learnt_where_the_shares_are_low_enough_and_the_errors_are_not(store, campaign):
    """Nothing else can lower them; and where there is nothing new, other settings of the training can."""
    patient = campaign.model_copy(update={"train": campaign.train.model_copy(update={"min_new_frames": 6})})
    labelling(store, 0, 10)
    labelling(store, 1, 12)
    passed(store, is_inaccurate=True)
    assert len(train.plan(patient, store, 1)) == 4


def test_other_settings_are_tried_where_the_errors_are_too_large(store, campaign):
    longer = campaign.model_copy(update={"train": campaign.train.model_copy(update={"warm_n_steps": 900})})
    labelling(store, 0, 10)
    labelling(store, 1, 10)
    passed(store, is_inaccurate=True)
    assert train.plan(campaign, store, 1) == [], "the same settings on the same data run the same command again"
    assert {task.parameters["n_steps"] for task in train.plan(longer, store, 1)} == {900}


def test_a_cold_start_has_no_input_and_the_full_length(store, campaign):
    cold = campaign.model_copy(update={"train": campaign.train.model_copy(update={"warm_start": False})})
    labelling(store, 0, 10)
    labelling(store, 1, 15)
    passed(store)
    tasks = train.plan(cold, store, 1)
    assert {task.parameters["n_steps"] for task in tasks} == {300}
    assert {task.inputs for task in tasks} == {()}


def test_initial_data_of_added_systems_are_learnt_at_once_however_few(store, campaign):
    """Their iteration makes initial data and explores nothing."""
    patient = campaign.model_copy(update={"train": campaign.train.model_copy(update={"min_new_frames": 6})})
    labelling(store, 0, 10)
    labelling(store, 1, 12)
    members = tuple(Member(index=k, random_seed=1, model=f"m/{k}.pb", sha256="0", n_steps=1) for k in range(4))
    store.seal("train", 0, Ensemble(iteration=0, trained_in=0, type_map=("Cu",), members=members))
    tasks = train.plan(patient, store, 1)
    assert {task.parameters["n_steps"] for task in tasks} == {600}
    assert len(tasks) == 4


def test_an_empty_training_passes_the_ensemble_on(store, campaign):
    labelling(store, 0, 10)
    labelling(store, 1, 10)
    passed(store)
    store.freeze_plan("train", 1, train.plan(campaign, store, 1), 1)
    found = train.gather(campaign, store, 1)
    assert (found.iteration, found.trained_in) == (1, 0)
    assert len(found.members) == 4


# --- divergence -------------------------------------------------------------------------------------------------------


def member_task(**parameters):
    planned = {"index": 0, "n_steps": 600, "random_seeds": [11, 22, 33], "warm": True, "up_to": 0} | parameters
    return Task(id="member-0", kind="train", parameters=planned, inputs=("models/last.pb",) * planned["warm"])


def test_what_is_tried_after_a_divergence_is_fresh_slower_and_determined_by_the_task(campaign):
    """Warm for 600 steps from an old model; the campaign's cold trainings have 300 steps."""
    planned, *anew = train.attempts(campaign, member_task(), Path("models/last.pb"))
    assert (planned.n_steps, planned.random_seeds, planned.warm) == (600, (11, 22, 33), True)
    assert planned.learning_rate_factor == 1.0
    assert [run.learning_rate_factor for run in anew] == pytest.approx([0.3, 0.09, 0.027])
    assert not any(run.warm for run in anew)
    assert {run.n_steps for run in anew} == {600}
    assert {run.n_steps for run in [*train.attempts(campaign, member_task(n_steps=20))][1:]} == {300}, "in full"
    assert len({run.random_seeds for run in [planned, *anew]}) == 4
    assert [*train.attempts(campaign, member_task(), Path("models/last.pb"))] == [planned, *anew]
    other = [*train.attempts(campaign, member_task(random_seeds=[11, 22, 34]))]
    assert not {run.random_seeds for run in other} & {run.random_seeds for run in anew}


def trainable(tmp_path, campaign, *, type_map=("Cu",), **changes):
    """Return a campaign folder whose data set stands, with tiny nets and `changes` of the training."""
    nets = {"descriptor": Descriptor(rcut=4.0, rcut_smth=0.5, neuron=(4, 8), axis_neuron=2), "fitting": (16, 16)}
    settings = campaign.train.model_copy(update={**nets, **changes})
    changed = campaign.model_copy(update={"train": settings, "type_map": type_map})
    store = Store.create(tmp_path / "trainable", changed)
    store.open_iteration(0, store.latest_campaign())
    publish_json(store.iteration_folder(0) / "sel.json", [80] * len(type_map))
    store.seal_frames(store.dataset_file(0), [rattled_copper(6)])
    store.seal_frames(store.held_out_file(0), [rattled_copper(2, random_seed=1)])
    labelling(store, 0, 6)
    return store


def test_members_share_their_data_and_data_that_scratch_has_kept_from_before_is_not_taken(tmp_path, campaign):
    """A campaign that was set back gets other data for the same iteration."""
    slot = Slot(Machine(name="test", keep_scratch=True), tmp_path)
    store = trainable(tmp_path, campaign)
    first = train.training_data(campaign, store, "train", 0, slot)
    assert train.training_data(campaign, store, "train", 0, slot) == first
    assert len(list((tmp_path / "trainable" / "scratch").rglob("energy.npy"))) == 1
    store.sealed("label", 0).unlink()
    store.dataset_file(0).unlink()
    again = Store.open(store.folder)
    again.seal_frames(again.dataset_file(0), [rattled_copper(3)])
    again.seal("label", 0, store.result("label", 0, Labelling).model_copy(update={"dataset_sha256": "1"}))
    other = train.training_data(campaign, again, "train", 0, slot)
    assert other.folder != first.folder
    (system,) = (path for path in other.folder.iterdir() if path.is_dir())
    assert len(np.load(system / "set.000" / "energy.npy")) == 3


def test_data_with_weights_of_elements_are_other_data(tmp_path, campaign):
    """The weights stand in the data set: scratch that is kept from before they were set is not taken."""
    slot = Slot(Machine(name="test", keep_scratch=True), tmp_path)
    store = trainable(tmp_path, campaign)

    def written(**changes):
        settings = campaign.train.model_copy(update=changes)
        changed = campaign.model_copy(update={"train": settings, "type_map": ("Cu", "Au")})
        folder = train.training_data(changed, store, "train", 0, slot).folder
        (system,) = (path for path in folder.iterdir() if path.is_dir())
        return system, float((folder / "largest_loss.json").read_text())

    plain, bound = written()
    assert written(element_weights={}) == (plain, bound)
    assert not list(plain.rglob("atom_pref.npy"))
    heavy, higher = written(element_weights={"Cu": 4.0})
    assert higher == pytest.approx(2.0 * bound)
    assert np.load(heavy / "set.000" / "atom_pref.npy").tolist() == [[3.0] * 4] * 6
    assert written(prefactors=Prefactors(force=(1.0, 1.0)))[1] == pytest.approx(bound / np.sqrt(1000.0))
    assert len({plain, heavy, written(element_weights={"Cu": 5.0})[0]}) == 3


@pytest.fixture(scope="module")
def keeping(tmp_path_factory):
    """A slot with a session for all trainings here; scratch folders stay."""
    pytest.importorskip("deepmd", reason="pip install 'deepmd-kit[cpu,lmp]==3.2.0'")
    process.allow_engines()
    yield Slot(Machine(name="test", keep_scratch=True), tmp_path_factory.mktemp("logs"))
    end_sessions()


@pytest.mark.engines
def test_a_diverged_training_is_ended_early(tmp_path, campaign, keeping):
    """A million steps would take an hour; the first look at the learning curve ends them."""
    settings = campaign.train.model_copy(update={"learning_rate": LearningRate(start=1e6)})
    parts = [rattled_copper(6)]
    systems = [str(path) for path in write_deepmd(parts, tmp_path / "data", ["Cu"])]
    run = TrainingRun(n_steps=1_000_000, random_seeds=(1, 2, 3))
    setting = inputs.training_input(settings, run, type_map=["Cu"], sel=((90,),), systems=systems)
    setting["training"]["disp_freq"] = 50
    bound = inputs.loss_bound(settings, parts)
    began = time.monotonic()
    assert training.train_member(tmp_path, setting, keeping, largest_loss=bound) is None
    assert time.monotonic() - began < 60.0
    _, curve = training.learning_curve(tmp_path / "lcurve.out")
    assert curve[:, 1].max() > bound


@pytest.mark.engines
def test_a_member_that_diverges_again_and_again_stops_the_campaign_with_what_to_do(tmp_path, campaign, keeping, caplog):
    """In float32 everything overflows, and DeePMD ends by itself: a matter of the learning rate, not of the node."""
    store = trainable(tmp_path, campaign, learning_rate=LearningRate(start=1e12), precision="float32")
    with pytest.raises(ConfigError, match=r"^train.learning_rate.start: member-0 diverged 4 times.* - lower it"):
        train.run(member_task(n_steps=300, warm=False), store, 0, keeping)
    assert "train member-0 diverged at 0.027 of its learning rate (4 of 4)" in caplog.text
    assert not store.product("train", 0, "member-0").exists()
    logs = [path.read_text() for path in store.folder.glob("scratch/*/attempt-*/dp-train.log")]
    assert ["NaN detected" in text for text in logs] == [True] * 4


@pytest.mark.engines
def test_a_member_that_diverged_is_trained_anew_and_the_record_says_so(tmp_path, campaign, keeping):
    """Learning rates 60, 18, 5.4, 1.62: the first blows the energy up, the last does not; each ends at a tenth.

    All keys of the training are in use: the copper of copper and gold counts four times, the model is a mean.
    """
    store = trainable(
        tmp_path, campaign, type_map=("Cu", "Au"), element_weights={"Cu": 4.0}, average_checkpoints=4,
        learning_rate=LearningRate(shape="cosine", start=60.0, stop=6.0),
    )  # fmt: skip
    train.run(member_task(n_steps=100, warm=False), store, 0, keeping)
    arrays, meta = store.read_product("train", 0, "member-0")
    member = Member.model_validate(meta["member"])
    assert member.attempts in (2, 3, 4)
    assert member.learning_rate_factor == pytest.approx(0.3 ** (member.attempts - 1))
    assert (member.n_steps, member.random_seed != 33) == (300, True), "in full, with seeds of its own"
    assert member.by_composition == {"Cu4": member.held_out}
    assert meta["learning_curve_columns"] == ["step", "rmse_trn", "rmse_e_trn", "rmse_f_trn", "rmse_pf_trn", "lr"]
    assert meta["averaged_steps"] == [264, 276, 288, 300]
    curve = arrays["learning_curve"]
    assert (curve.shape[1], curve[-1, 0]) == (6, 300)
    assert curve[[0, -1], 5] == pytest.approx(np.array([60.0, 6.0]) * member.learning_rate_factor, rel=0.05)


# --- checkpoints ------------------------------------------------------------------------------------------------------


LONG = {"n_steps": 1000, "warm": False}


def steps_of_checkpoints(store, but_not=(), name="model.ckpt-*.index"):
    tries = [path for path in store.folder.glob("checkpoints/*/*") if path not in but_not]
    found = [path.resolve() for one in tries for path in one.glob(f"attempt-1/{name}")]
    return sorted(int(path.stem.removeprefix("model.ckpt-")) for path in found)


def killed_in_the_middle(store, slot, victim):
    """Start a training and SIGKILL `victim` ("dp" or its "session") at the 2nd checkpoint; return those that are there.

    The link of the newest, which dp sets when that is whole, tells.
    """
    failed = []

    def train_it():
        with pytest.raises(EngineError) as caught:
            train.run(member_task(**LONG), store, 0, slot)
        failed.append(str(caught.value))

    old = set(store.folder.glob("checkpoints/*/*"))
    thread = threading.Thread(target=train_it)
    thread.start()
    until, first = time.monotonic() + 120.0, None
    while time.monotonic() < until:
        newest = steps_of_checkpoints(store, old, "model.ckpt.meta")
        first = first or newest
        if newest != first:
            break
        time.sleep(0.01)
    key = ("deepmd", "tensorflow", "", *slot.key)  # sessions of other slots may live on, too
    worker = process._sessions[key].pid
    (child,) = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    os.kill({"session": worker, "dp": int(child)}[victim], signal.SIGKILL)
    thread.join(120.0)
    assert {"session": "the worker died with return code -9", "dp": "ended with return code -9"}[victim] in failed[0]
    return steps_of_checkpoints(store, old)


@pytest.mark.engines
def test_a_killed_training_goes_on_from_its_last_checkpoint_and_the_record_says_so(tmp_path, campaign, keeping):
    """Killed twice; the second time the newest checkpoint is damaged, and the one before it is taken."""
    slot = Slot(Machine(name="test", checkpoints=True), keeping.logs)
    store = trainable(tmp_path, campaign)
    first = killed_in_the_middle(store, slot, "dp")
    assert len(first) >= 2
    assert all(step % 100 == 0 and 0 < step < 1000 for step in first)
    (old,) = store.folder.glob("checkpoints/*/*")
    second = killed_in_the_middle(store, slot, "session")
    assert not old.exists(), "its checkpoint was taken over"
    assert second[0] in first[-2:], "the last that was whole: SIGKILL may have come while one was written"
    (newest,) = store.folder.glob(f"checkpoints/*/*/attempt-1/model.ckpt-{second[-1]}.data-*")
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    newest.write_bytes(damaged)

    train.run(member_task(**LONG), store, 0, slot)
    arrays, meta = store.read_product("train", 0, "member-0")
    member = Member.model_validate(meta["member"])
    assert meta["resumed_from"] == list(member.resumed_from) == [second[0], second[-2]]
    assert (member.n_steps, member.attempts, member.random_seed) == (1000, 1, 33)
    (log,) = store.folder.glob("checkpoints/*/*/attempt-1/dp-train.log")
    trained = [int(step) for step in re.findall(r"Batch +(\d+): trn", log.read_text())]
    assert trained == list(range(second[-2], 1001, 20)), "steps before the checkpoint are not done again"
    curve = arrays["learning_curve"]
    assert curve[:, 0].tolist() == list(range(0, 1001, 20)), "no step is there twice, none is missing"
    assert (np.diff(curve[:, 4]) <= 0).all(), "the learning rate continues"
    assert curve[curve[:, 0] >= second[0], 1].max() < 0.5 * curve[0, 1], "and so do the weights"


def test_status_says_which_models_are_not_bit_for_bit(store):
    labelling(store, 0, 10)
    members = tuple(
        Member(index=k, random_seed=1, model=f"m/{k}.pb", sha256="0", n_steps=1, resumed_from=(400, 700) if k else ())
        for k in range(2)
    )
    ensemble = Ensemble(iteration=0, trained_in=0, type_map=("Cu",), members=members)
    record = Iteration(
        index=0, campaign_sha256="0", ensemble=ensemble, labelling=store.result("label", 0, Labelling),
        versions={}, seconds={}, products={},
    )  # fmt: skip
    line = "training of member 1 resumed from step 400, 700, not bit for bit"
    assert show._notes(status._iteration(record)) == [line]
    passed_on = record.model_copy(update={"index": 1})
    assert show._notes(status._iteration(passed_on)) == [], "said once, where they were trained"


@pytest.mark.engines
def test_with_every_checkpoint_damaged_the_training_starts_anew(tmp_path, campaign, keeping):
    slot = Slot(Machine(name="test", checkpoints=True), keeping.logs)
    store = trainable(tmp_path, campaign)
    task = member_task(n_steps=100, warm=False)
    left = trees.make(train._tries(store.campaign(0), store, "train", task) / "killed") / "attempt-2"
    left.mkdir()
    for suffix in ("index", "meta", "data-00000-of-00001"):
        (left / f"model.ckpt-50.{suffix}").write_bytes(b"half of it")
    train.run(task, store, 0, slot)
    arrays, meta = store.read_product("train", 0, "member-0")
    member = Member.model_validate(meta["member"])
    assert "resumed_from" not in meta
    assert (member.resumed_from, member.attempts) == ((), 2), "the first attempt had diverged before the kill"
    assert arrays["learning_curve"][0, 0] == 0


def test_checkpoints_of_before_there_were_other_trainers_are_still_found(tmp_path, campaign):
    """They were kept under the checksum of a section without these keys; and compression has no say in a training."""
    store = trainable(tmp_path, campaign)
    task, settings = member_task(), store.campaign(0)
    here = train._tries(settings, store, "train", task)
    later = {"trainer", "backend", "model", "compress"}
    before = {k: v for k, v in settings.train.model_dump(mode="json").items() if k not in later}
    content = [task.model_dump(mode="json"), before, store.result("label", 0, Labelling).dataset_sha256]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    assert here.name.endswith(digest[:12])
    for change, is_same in (({"compress": "always"}, True), ({"backend": "pytorch"}, False)):
        changed = settings.model_copy(update={"train": settings.train.model_copy(update=change)})
        assert (train._tries(changed, store, "train", task) == here) is is_same


def test_checkpoints_of_other_data_or_settings_are_not_taken(tmp_path, campaign):
    """A campaign that was set back trains the same member on something else."""
    store = trainable(tmp_path, campaign)
    task, settings = member_task(), store.campaign(0)
    here = train._tries(settings, store, "train", task)
    assert train._tries(settings, store, "train", task) == here
    slower = settings.train.model_copy(update={"learning_rate": LearningRate(start=1e-4)})
    others = {
        train._tries(settings.model_copy(update={"train": slower}), store, "train", task),
        train._tries(settings, store, "final", task),
        train._tries(settings, store, "train", member_task(n_steps=601)),
    }
    store.sealed("label", 0).unlink()
    again = Store.open(store.folder)
    again.seal("label", 0, store.result("label", 0, Labelling).model_copy(update={"dataset_sha256": "1"}))
    others.add(train._tries(settings, again, "train", task))
    assert len(others) == 4
    assert here not in others


def test_when_the_ensemble_is_sealed_its_checkpoints_go(store, campaign):
    labelling(store, 0, 10)
    labelling(store, 1, 10)
    passed(store)
    store.freeze_plan("train", 1, train.plan(campaign, store, 1), 1)
    (trees.make(store.folder / "checkpoints") / "001-train-member-0" / "x").mkdir(parents=True)
    train.gather(campaign, store, 1)
    assert not (store.folder / "checkpoints").exists()


# --- sel ----------------------------------------------------------------------------------------------------------


def test_no_candidate_with_more_neighbours_than_sel_holds_is_kept(campaign):
    """DeePMD drops the rest in silence. All frames are candidates; the one in the middle is squeezed by 10 %."""
    from test_explore import reduced  # a walk by hand

    arrays, meta = reduced(campaign, [0.2] * 21, cells=[1.0] * 10 + [0.9] + [1.0] * 10, sel=(50,))
    assert meta["ended"] == "out of region: [54] neighbours within the cutoff, sel holds [50]"
    kept = Frames.from_arrays(arrays, "kept/")
    assert kept.origin["step"].tolist() == list(range(0, 50, 5))
    roomy, _ = reduced(campaign, [0.2] * 21, cells=[1.0] * 10 + [0.9] + [1.0] * 10, sel=(54,))
    assert len(Frames.from_arrays(roomy, "kept/")) == 21


# --- initial ----------------------------------------------------------------------------------------------------------


def test_the_plan_of_the_initial_data_has_one_task_per_copy(store, campaign):
    tasks = initial.plan(campaign, store, 0)
    assert len(tasks) == len({task.id for task in tasks}) == 3 * 2 * 4
    assert tasks[0].id == "s0-x0.98-100K-000"
    static = campaign.model_copy(update={"initial": campaign.initial.model_copy(update={"md": None})})
    assert [task.id for task in initial.plan(static, store, 0)][:1] == ["s0-x0.98-static-000"]


@given(
    sizes=st.lists(st.integers(1, 12), max_size=6),
    fraction=st.floats(0, 1),
    random_seed=st.integers(0, 99),
    shuffled=st.randoms(use_true_random=False),
)
def test_held_out_trajectories_are_some_of_every_system_never_all(sizes, fraction, random_seed, shuffled):
    pairs = [(f"s{s}-{k}", f"s{s}") for s, n in enumerate(sizes) for k in range(n)]
    shuffled.shuffle(pairs)
    system_of = dict(pairs)
    picked = initial.held_out_walks(system_of, fraction, np.random.default_rng(random_seed))
    assert picked == [name for name in system_of if name in set(picked)], "in the order of the plan"
    for s, n in enumerate(sizes):
        of_system = sum(system_of[name] == f"s{s}" for name in picked)
        if fraction == 0.0 or n == 1:
            assert of_system == 0
        else:
            assert of_system == min(max(round(fraction * n), 1), n - 1)


def test_another_seed_holds_out_other_trajectories():
    system_of = {f"w{k}": "0" for k in range(20)}
    picks = {tuple(initial.held_out_walks(system_of, 0.2, np.random.default_rng(k))) for k in range(5)}
    assert len(picks) > 1
