"""Compression: when it is planned, that both forms are compared, and that the plain model is used where they differ."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from campaigns import SMALL, end_sessions
from conftest import rattled_copper

from activelearn import capacity, compression, explore, initial, train
from activelearn.check import check, cost
from activelearn.config import Faster, Machine, Speeds, TrainingData, load_campaign, load_machine
from activelearn.engines import process
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd import TRAINER, training
from activelearn.errors import EngineError
from activelearn.records import Ensemble, Member
from activelearn.store import Store

# --- what is planned --------------------------------------------------------------------------------------------------


def planned(name, **changes):
    """Return whether a shipped campaign walks with compressed models in a pass over all stages, and what it says."""
    campaign = load_campaign(name)
    campaign = campaign.model_copy(update={"train": campaign.train.model_copy(update=changes)})
    sel = capacity.of_campaign(campaign)
    return compression.is_worth_it(campaign, sel, campaign.explore.stages), compression.said(campaign, sel)


@pytest.mark.parametrize("name", ["na3ps4o", "na3ps4o_mlip"])
def test_the_network_of_the_paper_walks_compressed(name):
    is_compressed, said = planned(name)
    assert is_compressed
    assert said.startswith("explores with compressed models")
    assert "MB of files an iteration" in said
    assert "MB more memory a slot" in said


@pytest.mark.parametrize("name", ["quickstart", "copper_emt", "mini_na3ps4o"])
def test_small_networks_walk_as_they_are(name):
    is_compressed, said = planned(name)
    assert not is_compressed
    assert said.startswith("explores with plain models: compressed ones would save")


def test_evening_walks_as_it_is_by_its_own_wish():
    is_compressed, said = planned("evening")
    assert not is_compressed
    assert "train.compress: never" in said
    assert planned("evening", compress="auto")[1].startswith("explores with compressed models from stage hot on")


@pytest.mark.parametrize(("wish", "is_compressed"), [("always", True), ("never", False)])
def test_a_wish_comes_before_the_estimate(wish, is_compressed):
    for name in ("quickstart", "na3ps4o"):
        found, said = planned(name, compress=wish)
        assert found is is_compressed
        assert f"train.compress: {wish}" in said


def test_it_is_decided_anew_as_stages_are_added(monkeypatch):
    """A table that costs as much as the first of two stages saves pays in a pass over both."""
    campaign = load_campaign("quickstart")
    sel, stages = capacity.of_campaign(campaign), campaign.explore.stages
    work = [compression.evaluated_atoms(campaign, stage) for stage in stages]
    worth_s = work[0] / 1e6 / compression.MARGIN
    monkeypatch.setattr(TRAINER, "faster", lambda *_: Faster(1.0, worth_s / campaign.train.n_members))
    assert not compression.is_worth_it(campaign, sel, stages[:1])
    assert compression.is_worth_it(campaign, sel, stages[:2])
    assert f"explores with compressed models from stage {stages[1].name} on" in compression.said(campaign, sel)


def test_the_work_of_a_stage_is_one_member_at_each_step_and_all_at_each_frame():
    campaign = load_campaign("copper_emt")
    stage, n_members = campaign.explore.stages[0], campaign.train.n_members
    n_walks = stage.n_walks * len(stage.conditions)
    n_atoms = [system.supercell[0] * system.supercell[1] * system.supercell[2] * 4 for system in campaign.systems]
    wanted = n_walks * (stage.n_steps + stage.n_frames * (n_members - 1)) * np.mean(n_atoms)
    assert compression.evaluated_atoms(campaign, stage) == pytest.approx(wanted)


def test_the_bill_has_faster_walks_and_what_they_cost(tmp_path):
    machine = Machine(speeds=Speeds(md_Mflop_per_s=1000.0, train_Mflop_per_s=1000.0))
    campaign = load_campaign("na3ps4o_mlip")
    never = campaign.model_copy(update={"train": campaign.train.model_copy(update={"compress": "never"})})
    fast, slow = (cost.estimate(one, machine, None).one_pass for one in (campaign, never))
    assert all(a.seconds < 0.6 * b.seconds for a, b in zip(fast[:-2], slow[:-2], strict=True)), "explore"
    made = TRAINER.faster(campaign.train, capacity.of_campaign(campaign)).making_s
    assert fast[-1].seconds - slow[-1].seconds == pytest.approx(campaign.train.n_members * made)


def test_models_without_a_faster_form_are_refused_it_and_explore_plain(tmp_path, monkeypatch):
    monkeypatch.setattr(TRAINER, "compresses", lambda _: False)
    campaign, machine = load_campaign("na3ps4o_mlip"), load_machine()
    assert planned("na3ps4o_mlip") == (False, None)
    always = campaign.model_copy(update={"train": campaign.train.model_copy(update={"compress": "always"})})
    assert any(line.startswith("train.compress: always - ") for line in check(always, machine, tmp_path).problems)
    assert not any("compress" in line for line in check(campaign, machine, tmp_path).problems)


def test_check_says_what_it_explores_with(tmp_path):
    facts = check(load_campaign("na3ps4o_mlip"), load_machine(), tmp_path / "run").facts
    assert [line for line in facts if line.startswith("explores with compressed models")]


def test_another_wish_is_no_other_training(campaign):
    never = campaign.train.model_copy(update={"compress": "never"})
    longer = never.model_copy(update={"n_steps": never.n_steps + 1})
    assert campaign.train.trains_like(never)
    assert not campaign.train.trains_like(longer)


# --- what drives ------------------------------------------------------------------------------------------------------


def member(index=0, **more):
    return Member(index=index, random_seed=1, model=f"m/{index}.pb", sha256=f"{index}", n_steps=1, **more)


FAST = {"compressed": "m/fast.pb", "compressed_sha256": "f"}


def test_the_faster_form_drives_wherever_there_is_one(store, campaign):
    """One member has it, the others do not; a warm start begins from the plain model in either case."""
    members = (member(0, **FAST, compressed_force_difference=1e-9, compressed_holds_from_A=(2.0, 0.4)), member(1))
    ensemble = Ensemble(iteration=0, trained_in=0, type_map=("Cu",), members=members)
    store.seal("train", 0, ensemble)
    assert ensemble.drivers == ("m/fast.pb", "m/1.pb")
    assert [m.start for m in members] == ["m/0.pb", "m/1.pb"]
    assert {task.inputs for task in explore.plan(campaign, store, 1)} == {ensemble.drivers}
    (said,) = ensemble.compression
    assert said == (
        "1 of 2 models are compressed: forces within 1e-09 eV/Å of those of the plain ones; made for distances from "
        "2.00 Å on, tables down to 0.40 Å"
    )


def test_the_faster_form_of_the_first_models_moves_the_atoms_of_initial_data(tmp_path, campaign):
    initial_data = campaign.initial.model_copy(update={"md": campaign.initial.md.model_copy(update={"driver": "self"})})
    driven = campaign.model_copy(update={"initial": initial_data})
    store = Store.create(tmp_path / "campaign", driven)
    store.open_iteration(0, driven)
    (tmp_path / "fast.pb").write_text("fast")
    name, sha256 = store.publish_model(tmp_path / "fast.pb")
    members = (member(0, compressed=name, compressed_sha256=sha256), member(1))
    store.seal("train", 0, Ensemble(iteration=0, trained_in=0, type_map=("Cu",), members=members))
    driver = initial.driver_of(driven, store, 1, Machine(**SMALL))
    assert driver.arguments == {"model": str(store.folder / name)}


def test_final_models_are_compressed_where_that_was_not_done_in_the_loop(store, campaign):
    members = (member(0, **FAST), member(1), member(2, not_compressed="its forces differ"))
    store.seal("train", 1, Ensemble(iteration=1, trained_in=1, type_map=("Cu",), members=members))
    tasks = train.plan_final(campaign, store, 1)
    assert [task.id for task in tasks] == ["member-1"]
    store.freeze_plan("final", 1, tasks, 1)
    made = member(1, compressed="m/1-fast.pb", compressed_sha256="1f")
    store.publish_product("final", 1, "member-1", {}, {"member": made.model_dump(mode="json")})
    found = train.gather_final(campaign, store, 1)
    assert found.drivers == ("m/fast.pb", "m/1-fast.pb", "m/2.pb"), "in their order"
    assert found.compression[1:] == ("member 2 is not compressed: its forces differ",)


# --- what is done -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(undisturbed, tmp_path_factory):
    """A copy of the tiny campaign, its slot, and the last data as its trainer reads them."""
    here = tmp_path_factory.mktemp("trained")
    store = Store(shutil.copytree(undisturbed[0].folder, here / "campaign"))
    process.allow_engines()
    slot = Slot(Machine(**SMALL), here)
    yield store, slot, train.training_data(store.campaign(2), store, "final", 2, slot)
    end_sessions()


def plain_member(store):
    found = store.result("train", 2, Ensemble).members[0]
    assert found.compressed is None
    return found


@pytest.mark.engines
def test_both_forms_are_the_same_model_and_the_range_of_the_table_is_told(trained, tmp_path):
    store, slot, data = trained
    found = compression.compressed(plain_member(store), store, 2, data, tmp_path, slot)
    assert found.not_compressed is None
    assert store.model(found.compressed).is_file()
    assert 0.0 <= found.compressed_force_difference < 1e-6
    shortest, end = found.compressed_holds_from_A
    parts = store.dataset(2)
    distances = [frame.get_all_distances(mic=True) for part in parts for frame in part.to_ase()]
    assert shortest == pytest.approx(min(d[np.triu_indices(len(d), 1)].min() for d in distances), abs=1e-4)
    assert 0.3 < end < 1.2


@pytest.mark.engines
def test_forces_are_those_of_the_network_down_to_the_end_of_the_table_and_wrong_below(trained, tmp_path):
    """Two atoms of a crystal are pushed together: what `holds_from_A` tells is where the table ends, in truth."""
    store, slot, data = trained
    campaign, model = store.campaign(2), store.model(plain_member(store).model)
    made = TRAINER.compress(tmp_path, model, campaign.train, data, slot)
    _, end = TRAINER.holds_from_A(tmp_path)
    frame = rattled_copper(1)

    def difference(distance):
        positions = frame.positions.copy()
        positions[0, 1] = positions[0, 0] + np.array([distance, 0.0, 0.0])
        near = [replace(frame, positions=positions)]
        forms = [TRAINER.evaluate(tmp_path, one, near, slot) for one in (model, made)]
        scale = np.abs(forms[0][0].forces).max()
        return compression.largest_difference(*forms) / scale

    assert difference(1.02 * end) < 1e-4
    assert difference(0.5 * end) > 1e-2


@pytest.mark.engines
def test_a_model_that_cannot_be_compressed_goes_on_as_it_is(trained, tmp_path, caplog):
    """`dp compress` finds no data; the training is not repeated for it."""
    store, slot, data = trained
    (tmp_path / "empty").mkdir()
    nothing = TrainingData(tmp_path / "empty", data.type_map, data.sel)
    found = compression.compressed(plain_member(store), store, 2, nothing, tmp_path, slot)
    assert found.compressed is None
    assert found.driver == found.model
    assert found.not_compressed == "its program refuses it: see the log"
    assert "dp compress ended with return code 1" in caplog.text
    assert "the plain model is used" in caplog.text


@pytest.mark.engines
def test_a_fault_of_the_machine_says_nothing_of_the_model(trained, tmp_path):
    """A time-out, twice, is no reason to walk with the plain model: the task is tried again."""
    store, slot, data = trained
    hasty = replace(slot, machine=slot.machine.model_copy(update={"train_timeout_s": 1e-3}))
    with pytest.raises(EngineError):
        compression.compressed(plain_member(store), store, 2, data, tmp_path, hasty)


@pytest.mark.parametrize("wrong", [np.nan, 0.002])
def test_a_form_with_other_forces_is_not_used(store, campaign, tmp_path, monkeypatch, wrong, caplog):
    """Not a number as well: a conversion may lose all forces and say nothing. The bound is a hundredth of f_lo."""
    frames = rattled_copper(2)
    (tmp_path / "plain.pb").write_text("plain")
    name, sha256 = store.publish_model(tmp_path / "plain.pb")
    store.seal_frames(store.dataset_file(0), [frames])
    store.seal_frames(store.held_out_file(0), [frames])

    def evaluate(_, model, parts, slot):
        off = 0.0 if model.name.startswith(sha256[:16]) else wrong
        return [part.with_labels(part.energy, part.forces + off, part.virial) for part in parts]

    asked = []

    def compress(folder, *_, finer):
        asked.append(finer)
        (folder / "fast.pb").write_text("fast")
        return folder / "fast.pb"

    monkeypatch.setattr(TRAINER, "evaluate", evaluate)
    monkeypatch.setattr(TRAINER, "compress", compress)
    plain = Member(index=3, random_seed=1, model=name, sha256=sha256, n_steps=1)
    data = TrainingData(tmp_path, ("Cu",), ())
    slot = Slot(Machine(**SMALL), tmp_path)
    found = compression.compressed(plain, store, 0, data, tmp_path, slot)
    assert found.compressed is None
    assert asked == [False, True]
    assert f"its forces differ by {wrong:.3g} eV/Å from those of the plain model" in found.not_compressed
    assert "member 3 is not compressed" in caplog.text
    ensemble = Ensemble(iteration=0, trained_in=0, type_map=("Cu",), members=(found,))
    assert ensemble.compression == (f"member 3 is not compressed: {found.not_compressed}",)


def test_a_table_that_ends_inside_the_region_is_not_used(store, campaign, tmp_path, monkeypatch):
    frames = rattled_copper(2)
    (tmp_path / "plain.pb").write_text("plain")
    name, sha256 = store.publish_model(tmp_path / "plain.pb")
    store.seal_frames(store.dataset_file(0), [frames])
    monkeypatch.setattr(TRAINER, "evaluate", lambda folder, model, parts, slot: list(parts))
    monkeypatch.setattr(TRAINER, "compress", lambda folder, model, *_, **__: model)
    monkeypatch.setattr(TRAINER, "holds_from_A", lambda _: (2.3, 1.9))
    plain = Member(index=0, random_seed=1, model=name, sha256=sha256, n_steps=1)
    data = TrainingData(tmp_path, ("Cu",), ())
    found = compression.compressed(plain, store, 0, data, tmp_path, Slot(Machine(**SMALL), tmp_path))
    assert "its table ends at 1.90 Å, and select.guards allow 1.58 Å" in found.not_compressed


@pytest.mark.engines
@pytest.mark.parametrize(("station", "is_compressed"), [("train", False), ("final", True)])
def test_a_plan_of_an_older_version_goes_on_as_it_did(trained, tmp_path, station, is_compressed):
    """Its tasks do not say whether to compress: members of the loop are not, final ones as ``final`` has it."""
    store, slot, _ = trained
    task = store.plan("train", 0).tasks[0]
    old = {key: value for key, value in task.parameters.items() if key != "compress"}
    assert old != task.parameters
    found, _, meta = train._trained(
        store.campaign(0), store, station, task.model_copy(update={"parameters": old}), tmp_path, slot
    )
    assert (found.compressed is not None) is is_compressed
    assert ("compress_s" in meta) is is_compressed


def test_without_a_log_the_range_is_not_known(tmp_path):
    assert training.holds_from_A(tmp_path) is None
