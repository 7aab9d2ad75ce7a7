"""Label: what is fit for training, one label per structure, and who is counted as what."""

from dataclasses import replace

import numpy as np
import pytest
from campaigns import dataset_summary
from conftest import rattled_copper

from activelearn import geometry
from activelearn import label as station
from activelearn.engines import reference
from activelearn.frames import FrameLabel, make_origin
from activelearn.records import Explored, InitialData, Task
from activelearn.store.files import publish_json
from activelearn.store.references import identity_sha256

SHA = identity_sha256({})


def labels_of(frames):
    return [
        FrameLabel(float(frames.energy[k]), frames.forces[k], frames.virial[k], started=1.0, finished=2.0)
        for k in range(len(frames))
    ]


@pytest.fixture
def settings(campaign):
    return campaign.label.model_copy(update={"max_force": 10.0, "max_net_force": 0.05})


FORCES = np.array([[1.0, 0, 0], [-1.0, 0, 0]])


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (FrameLabel(-1.0, FORCES, np.eye(3)), None),
        (FrameLabel(-1.0, FORCES, np.eye(3), refused="SCFError: no"), "SCFError: no"),
        (FrameLabel(np.nan, FORCES, np.eye(3)), "not finite"),
        (FrameLabel(-1.0, np.full((2, 3), np.inf), np.eye(3)), "not finite"),
        (FrameLabel(-1.0, FORCES, np.diag([1.0, np.nan, 1.0])), "not finite"),
        (FrameLabel(-1.0, FORCES, np.full((3, 3), np.nan)), None),
        (FrameLabel(-1.0, 10.0 * FORCES, np.eye(3)), None),
        (FrameLabel(-1.0, 10.1 * FORCES, np.eye(3)), "force above 10 eV/Å"),
        (FrameLabel(-1.0, FORCES + np.array([0.04, 0, 0]), np.eye(3)), None),
        (FrameLabel(-1.0, FORCES + np.array([0.06, 0, 0]), np.eye(3)), "net force above 0.05 eV/Å per atom"),
    ],
)
def test_what_is_fit_for_training(settings, label, reason):
    assert reference.refusal(label, settings) == reason


@pytest.fixture
def store(store):
    """The campaign folder with the neighbour capacity it was begun with."""
    publish_json(store.iteration_folder(0) / "sel.json", [200])
    return store


def test_frames_and_labels_are_joined_in_order_and_refusals_counted(store, campaign, copper):
    made = labels_of(copper)
    part = copper.without_labels()[[0, 1, 2, 0, 1]]
    keys = [part.structure_key(k, "f") for k in range(5)]
    store.ledger_writer.append(keys[0], made[0])
    store.ledger_writer.append(keys[1], FrameLabel(np.nan, np.full((4, 3), np.nan), np.eye(3), refused="SCFError: no"))
    store.ledger.refresh()
    good, refused = station.labelled(part, keys, store, campaign)
    assert len(good) == 1
    assert good.energy[0] == copper.energy[0]
    assert np.array_equal(good.forces[0], copper.forces[0])
    assert refused == {
        "SCFError: no": 2,
        "refused by consent after infrastructure failures": 1,
        "duplicate structure": 1,
    }, "every frame is accounted for"


def test_a_frame_that_the_models_cannot_hold_is_refused(tmp_path, store, campaign, copper):
    (store.iteration_folder(0) / "sel.json").unlink()
    publish_json(store.iteration_folder(0) / "sel.json", [20])  # fcc copper has 42 neighbours within 5 Å
    keys = [copper.structure_key(0, "f")]
    store.ledger_writer.append(keys[0], labels_of(copper)[0])
    store.ledger.refresh()
    good, refused = station.labelled(copper.without_labels()[:1], keys, store, campaign)
    assert (len(good), refused) == (0, {"more neighbours than sel holds": 1})


def test_an_energy_that_nothing_explains_is_refused(copper):
    shifted = copper.with_labels(copper.energy + np.array([0.0, 40.0, 0.0]), copper.forces, copper.virial)
    medians = station.median_energies([shifted])
    good = station.without_outliers(shifted, medians, 5.0)
    assert good.energy.tolist() == copper.energy[[0, 2]].tolist(), "10 eV/atom off"
    assert len(station.without_outliers(shifted, medians, None)) == 3
    dimer = copper[:1]
    assert station.without_outliers(dimer, {}, 5.0) is dimer, "a formula without a median (dimers) is not judged"


def fabricate(store, campaign, parts, *, iteration, held_out=()):
    publish_json(store.iteration_folder(iteration) / "reference.json", {"sha256": SHA})
    store.seal_frames(store.chosen_file(iteration), parts)
    if iteration == 0:
        store.seal("initial", 0, InitialData(iteration=0, walks=(), n_frames=0, held_out=held_out))
    return store.freeze_plan("label", iteration, station.plan(campaign, store, iteration), 1)


def test_one_task_per_frame_with_the_address_of_its_label(store, campaign, copper):
    plan = fabricate(store, campaign, [copper[:2], copper[2:]], iteration=0)
    assert [task.id for task in plan.tasks] == ["00000", "00001", "00002"]
    assert [task.parameters["key"] for task in plan.tasks] == [copper.structure_key(k, SHA) for k in range(3)]
    assert [(t.parameters["part"], t.parameters["frame"]) for t in plan.tasks] == [(0, 0), (0, 1), (1, 0)]


def test_frames_that_came_labelled_are_adopted(store, campaign, copper):
    plan = fabricate(store, campaign, [copper], iteration=0)
    for task in plan.tasks:
        station.run(task, store, 0, None)  # no slot: no engine is asked
    found = store.ledger
    found.refresh()
    assert found[plan.tasks[1].parameters["key"]].energy == copper.energy[1]
    record = station.gather(campaign, store, 0)
    assert (record.labelled, record.labels_computed, record.labels_adopted, record.labels_reused) == (3, 0, 3, 0)


def test_the_neighbours_of_walked_frames_are_not_counted_again(store, campaign, copper, monkeypatch):
    """Explore ended these walks where `sel` is full; initial data were judged by nobody. Nothing is read twice, too."""
    from test_capacity import selection_of

    searched, read = [], []
    most, read_npz = geometry.most_neighbours, station.read_npz
    monkeypatch.setattr(geometry, "most_neighbours", lambda frame, *rest: searched.append(1) or most(frame, *rest))
    monkeypatch.setattr(station, "read_npz", lambda path: read.append(path.name) or read_npz(path))
    counted = []
    for iteration in (0, 1):
        store.open_iteration(iteration, campaign)
        if iteration > 0:
            store.seal("select", iteration, selection_of(iteration, is_converged=False, why="walked"))
        plan = fabricate(store, campaign, [copper.without_labels()], iteration=iteration)
        for task, label in zip(plan.tasks, labels_of(copper), strict=True):
            store.ledger_writer.append(task.parameters["key"], label)
        record = station.gather(campaign, store, iteration)
        store.seal("label", iteration, record)
        assert (record.labelled, record.refused) == (3, {})
        counted.append(len(searched))
    assert counted == [6, 6], "planned and joined in iteration 0, never in iteration 1"
    assert read == ["chosen.npz", "chosen.npz"], "once for each iteration"


def test_whole_trajectories_are_held_out_and_counts_add_up(store, campaign, copper):
    one = replace(copper, origin=make_origin(3, walk="w0"))
    two = replace(copper, positions=copper.positions + 0.1, origin=make_origin(3, walk="w1"))
    plan = fabricate(store, campaign, [one, two], iteration=0, held_out=("w1",))
    for task in plan.tasks:
        station.run(task, store, 0, None)
    record = station.gather(campaign, store, 0)
    assert (record.labelled, record.held_out, record.dataset_frames) == (6, 3, 3)
    assert [part.origin["walk"][0] for part in store.dataset(0)] == ["w0"]
    assert [part.origin["walk"][0] for part in store.held_out(0)] == ["w1"]
    assert record.dataset_sha256 == dataset_summary(store, 0)[1]


def test_a_label_paid_for_earlier_is_reused_not_computed(store, campaign, copper):
    """Times of the first label lie long before the plan; of the second after it."""
    bare = copper.without_labels()
    before = fabricate(store, campaign, [], iteration=0)
    assert before.tasks == ()
    store.seal("label", 0, station.gather(campaign, store, 0))
    plan = fabricate(store, campaign, [bare[:2]], iteration=1)
    asked = store.planned_at("label", 1)
    spans = ((1.0, 2.0), (asked + 1.0, asked + 2.0))
    for k, (task, (started, finished)) in enumerate(zip(plan.tasks, spans, strict=True)):
        found = FrameLabel(
            float(copper.energy[k]), copper.forces[k], copper.virial[k], started=started, finished=finished
        )
        store.ledger_writer.append(task.parameters["key"], found)
    record = station.gather(campaign, store, 1)
    assert (record.labelled, record.labels_computed, record.labels_reused) == (2, 1, 1)
    assert record.dataset_frames == 2


def test_a_frame_had_failed_if_it_was_above_the_window_of_its_own_stage(store, campaign):
    """A stage with a window of its own and one without: 0.3 eV/Å is failed in the former alone."""
    first, *_ = campaign.explore.stages
    stages = (first.model_copy(update={"name": "own", "f_hi": 0.25}), first)
    campaign = campaign.model_copy(update={"explore": campaign.explore.model_copy(update={"stages": stages})})
    tasks = [Task(id=f"walk-{stage.name}", kind="walk", parameters={"stage": stage.name}) for stage in stages]
    store.open_iteration(1, campaign)
    store.freeze_plan("explore", 1, tasks, 1)
    store.seal("explore", 1, Explored(iteration=1, stages=("own", first.name), products={}))
    parts = [
        replace(rattled_copper(2), origin=make_origin(2, walk=task.id, max_devi_f=np.array([0.3, 0.4])))
        for task in tasks
    ]
    assert station._n_failed(parts, campaign, store, 1) == 3
    assert station._n_failed(parts, campaign, store, 0) == 2, "initial data have no walks: the window of all"
