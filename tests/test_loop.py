"""The plain loop for real: DeePMD, LAMMPS and EMT on a tiny copper campaign, without FireWorks."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from campaigns import TINY, dataset_summary

from activelearn import explore, loop, prediction, trees
from activelearn.config import Machine
from activelearn.errors import StoreError
from activelearn.frames import dataset_sha256
from activelearn.records import Ensemble, Explored, InitialData, Labelling, Selection
from activelearn.select import FrameClass
from activelearn.select.window import force_deviation
from activelearn.store import Store
from activelearn.store.campaign import read_accepted
from activelearn.store.files import file_sha256, read_archived

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def store(undisturbed):
    return undisturbed[0]


@pytest.fixture(scope="module")
def records(store):
    return store.iterations()


def test_it_stops_at_the_bound_and_says_how_many_candidates_are_left(undisturbed, records):
    end = undisturbed[1]
    counts = records[-1].selection.counts
    assert (end.converged, end.iteration, end.exit_code) == (False, 2, 3)
    assert f"{counts.candidate} candidates" in end.message
    assert "stop.max_iterations" in end.message
    assert "--accept-changes" in end.message


def test_every_iteration_has_a_record_of_its_stations(store, records):
    assert [record.index for record in records] == [0, 1, 2]
    assert list(records[0].seconds) == ["prepare", "initial", "label", "train"]
    for record in records[1:]:
        assert list(record.seconds) == ["explore", "select", "label", "train"]
    for record in records:
        assert record.campaign_sha256 == store.campaign(record.index).sha256
        assert record.infrastructure_failures == 0
        assert {"activelearn", "deepmd-kit", "lammps", "numpy", "ase", "ase.calculators.emt:EMT"} <= set(
            record.versions
        )
        for station, sha256 in record.products.items():
            assert file_sha256(store.sealed(station, record.index)) == sha256


def test_the_counts_add_up(records):
    for record in records[1:]:
        counts = record.selection.counts
        assert counts.walked == 4 * 11
        assert counts.walks == 4
        assert counts.accurate + counts.candidate + counts.failed + counts.out_of_region == counts.walked
        assert counts == sum((cell.counts for cell in record.selection.cells[1:]), record.selection.cells[0].counts)
        assert record.selection.chosen + sum(record.selection.passed_over.values()) == counts.candidate


def test_every_chosen_frame_is_labelled_or_refused(records):
    for record in records[1:]:
        labelling = record.labelling
        chosen = record.selection.chosen + record.selection.rescued
        assert 0 < chosen <= 8
        assert labelling.labelled + sum(labelling.refused.values()) == chosen
        assert labelling.labels_computed == chosen
        assert labelling.labels_reused == 0
        assert labelling.held_out == 0


def test_frames_of_reference_md_come_labelled(records):
    labelling = records[0].labelling
    assert labelling.labelled == 6 * 3
    assert labelling.held_out == 3
    assert (labelling.labels_computed, labelling.labels_adopted) == (0, 18)


def test_the_data_set_grows_by_what_was_labelled(store, records):
    frames = 0
    for record in records:
        frames += record.labelling.labelled - record.labelling.held_out
        assert record.labelling.dataset_frames == frames
        assert dataset_summary(store, record.index) == (frames, record.labelling.dataset_sha256)
        assert dataset_sha256(store.dataset(record.index)) == record.labelling.dataset_sha256


def test_the_order_of_the_data_set_is_iteration_walk_step(store):
    parts = store.dataset(2)
    rank = {0: [task.id for task in store.plan("initial", 0).tasks]}
    rank |= {i: [task.id for task in store.plan("explore", i).tasks] for i in (1, 2)}
    places = []
    for part in parts:
        (iteration,), (walk,) = set(part.origin["iteration"].tolist()), set(part.origin["walk"].tolist())
        places += [(iteration, rank[iteration].index(walk), step) for step in part.origin["step"].tolist()]
    assert places == sorted(places)
    assert len(set(places)) == len(places)
    assert {place[0] for place in places} == {0, 1, 2}


def test_held_out_trajectories_are_whole_and_never_trained_on(store):
    held_out = store.held_out(2)
    named = store.result("initial", 0, InitialData).held_out
    assert [str(part.origin["walk"][0]) for part in held_out] == list(named)
    assert all(len(part) == 3 for part in held_out)
    trained = [part for part in store.dataset(2) if part.origin["iteration"][0] == 0]
    assert not {str(part.origin["walk"][0]) for part in trained} & set(named)
    structures = {p.positions[k].tobytes() for p in held_out for k in range(len(p))}
    assert not structures & {p.positions[k].tobytes() for p in store.dataset(2) for k in range(len(p))}


def test_chosen_frames_lie_in_the_window_they_were_chosen_by(store, records):
    for record in records[1:]:
        for part in store.frames(store.dataset_file(record.index)):
            eps = part.origin["max_devi_f"]
            assert ((eps >= record.selection.f_lo) & (eps < record.selection.f_hi)).all()


def test_selection_counts_what_the_walks_hold(store, records):
    for record in records[1:]:
        kinds = []
        for task_id, sha256 in store.result("explore", record.index, Explored).products.items():
            packed = store.product("explore", record.index, task_id).with_name("products.zip")
            assert hashlib.sha256(read_archived(packed, f"{task_id}.npz").read()).hexdigest() == sha256
            arrays, meta = store.read_product("explore", record.index, task_id)
            assert meta["ended"] == "finished"
            assert arrays["step"].tolist() == list(range(0, 21, 2))
            kinds.append(arrays["kind"])
        counts = record.selection.counts
        assert int((np.concatenate(kinds) == FrameClass.CANDIDATE).sum()) == counts.candidate
        assert int((np.concatenate(kinds) == FrameClass.FAILED).sum()) == counts.failed


def test_the_models_stand_under_their_checksums(store, records):
    for record in records:
        assert record.ensemble.trained_in == record.index
        assert len(record.ensemble.members) == 2
        assert len({member.random_seed for member in record.ensemble.members}) == 2
        for member in record.ensemble.members:
            assert file_sha256(store.folder / member.model) == member.sha256
            assert member.n_steps == 60
            assert member.held_out.n_frames == 3
            assert 0.0 < member.held_out.force_rmse < 1.0
    final = store.result("final", 2, Ensemble)
    assert [m.sha256 for m in final.members] == [m.sha256 for m in records[-1].ensemble.members]
    for member in final.members:
        assert file_sha256(store.folder / member.compressed) == member.compressed_sha256


def test_training_makes_it_better(records):
    assert records[-1].ensemble.force_rmse < records[0].ensemble.force_rmse


def test_the_seconds_are_those_of_the_stations(store, records):
    for record in records:
        for name, spent in record.seconds.items():
            assert 0.0 <= spent.engine <= spent.wall + 1e-6, name
            assert spent.engine <= spent.engine_total + 1e-6 <= 2 * spent.wall + 1e-3, name  # two slots
        assert record.seconds["train"].engine > 0.9 * record.seconds["train"].wall
    end = loop.seconds(store, loop.STATIONS["final"], 2)
    assert end.n_tasks == 2
    assert end.engine > 0


def test_an_iteration_is_sealed_to_the_campaign_it_was_opened_with(store):
    for i in (0, 1, 2):
        assert (store.iteration_folder(i) / "campaign.yaml").read_text().endswith(store.latest_campaign().to_yaml())
    assert read_accepted(store.folder / "campaign" / "000.yaml") == store.latest_campaign().to_yaml()


def test_the_plan_can_be_made_again_and_is_the_frozen_one(store):
    for station, iteration in (("initial", 0), ("label", 0), ("train", 0), ("explore", 2), ("label", 2), ("train", 2)):
        again = loop.STATIONS[station].plan(store.campaign(iteration), store, iteration)
        assert tuple(again) == store.plan(station, iteration).tasks


def test_sealed_results_can_be_gathered_again(store):
    """A gather is a function of the products: done again it says the same (what it publishes stands already)."""
    for station, iteration in (("select", 1), ("train", 1), ("select", 2)):
        campaign = store.campaign(iteration)
        assert loop.STATIONS[station].gather(campaign, store, iteration) == store.result(
            station, iteration, {"select": Selection, "train": Ensemble}[station]
        )


def test_the_start_of_a_walk_is_the_same_whenever_it_is_made(store):
    task = store.plan("explore", 1).tasks[0]
    campaign = store.campaign(1)
    starts = [explore.start_of(campaign, store, 1, task, store.rng(1, "explore", task.id)) for _ in range(2)]
    assert starts[0].positions.tobytes() == starts[1].positions.tobytes()
    other = explore.start_of(campaign, store, 1, task, store.rng(2, "explore", task.id))
    assert starts[0].positions.tobytes() != other.positions.tobytes()


def test_a_finished_campaign_has_nothing_to_do(store):
    assert loop.next_phase(Store(store.folder)) is None


def test_a_record_that_was_removed_is_made_anew_from_what_is_sealed(store, tmp_path):
    copy = Store.open(shutil.copytree(store.folder, tmp_path / "copy"))
    before = copy.iterations()[1]
    copy.iteration_file(1).unlink()
    copy = Store.open(copy.folder)
    assert loop.next_phase(copy) == loop.CampaignPhase(1, loop.LOOP, copy)
    loop.run_campaign(copy, Machine())
    assert copy.iterations()[1] == before
    assert copy.opened_iterations() == store.opened_iterations()


def test_what_later_iterations_were_built_upon_is_never_computed_again(store, tmp_path):
    copy = Store.open(shutil.copytree(store.folder, tmp_path / "copy"))
    copy.iteration_file(1).unlink()
    copy.sealed("train", 1).unlink()
    with pytest.raises(StoreError, match=r"iter-001/train/result\.json: gone - .* restore it"):
        loop.next_phase(copy)


def test_nothing_is_left_behind(store):
    assert not list((store.folder / "claims").iterdir())
    assert not (store.folder / "lease.json").exists()
    assert not [path for path in store.folder.rglob(".*") if path.is_file() and path.name != trees.MARK]
    assert not [path for path in (store.folder / "scratch").iterdir() if path.is_dir()]
    assert sum(path.is_file() for path in store.folder.rglob("*")) < 100


def test_labels_are_in_one_segment_at_the_end(store, records):
    assert len(list((store.folder / "labels").glob("*.seg"))) == 1
    assert len(store.ledger) == sum(record.labelling.labelled for record in records)


def test_the_records_are_plain_json(store):
    for i in (0, 1, 2):
        data = json.loads(store.iteration_file(i).read_text())
        assert data["index"] == i
        assert Labelling.model_validate(data["labelling"])


def test_errors_of_perfect_predictions_are_zero(store):
    parts = store.held_out(2)
    found = prediction.errors(parts, parts)
    assert found.n_frames == 3
    assert (found.force_rmse, found.energy_rmse_meV_per_atom, found.virial_rmse_meV_per_atom) == (0.0, 0.0, 0.0)
    assert prediction.errors([], []) is None


def test_deviation_of_equal_members_is_zero():
    forces = np.random.default_rng(1).normal(size=(1, 3, 5, 3)).repeat(4, axis=0)
    assert force_deviation(forces) == pytest.approx(np.zeros(3), abs=1e-15)


def test_the_campaign_of_these_tests_is_the_file(store):
    assert store.latest_campaign().name == "tiny_copper"
    assert TINY.is_file()
