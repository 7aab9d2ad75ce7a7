"""No false convergence and no stall: passes in which nearly everything failed or left the region."""

import shutil

import numpy as np
import pytest
from campaigns import SMALL, resealed, run_plain, tiny, unpack_products

from activelearn import loop, select
from activelearn.config import Machine
from activelearn.records import Explored, Labelling, Selection
from activelearn.select import FrameClass
from activelearn.store import Store, read_npz
from activelearn.store.files import publish_npz

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def rescued(tmp_path_factory):
    """A campaign whose training is far too short for its window; it may be rescued once: (Store, End)."""
    folder = tmp_path_factory.mktemp("rescued")
    campaign = tiny(
        folder / "tiny.yaml",
        train__n_steps=4,
        train__warm_start=False,
        select={
            "f_lo": 0.001,
            "f_hi": 0.002,
            "max_frames": 10,
            "rescue": {"max_devi_f": 5.0, "frames_per_walk": 2, "train_factor": 2.5, "max_in_a_row": 1},
        },
        stop__max_iterations=9,
        final__compress=False,
    )
    return run_plain(folder / "campaign", campaign, Machine(slots=2, **SMALL))


def test_a_pass_that_failed_almost_everywhere_is_recognised_and_says_so(rescued):
    selection = rescued[0].iterations()[1].selection
    assert selection.is_rescue
    assert not selection.is_converged
    assert selection.counts.share("failed") > 0.9
    assert selection.why.startswith("rescue: ")
    assert "; 8 early failed frames below 5 eV/Å are labelled, training is longer" in selection.why


def test_rescued_frames_are_counted_and_labelled(rescued):
    store = rescued[0]
    record = store.iterations()[1]
    assert record.selection.rescued == 4 * 2  # two of each walk
    assert record.labelling.rescued == 8
    assert record.labelling.labelled == record.selection.rescued + record.selection.chosen
    assert record.labelling.dataset_frames == store.iterations()[0].labelling.dataset_frames + record.labelling.labelled


def test_the_earliest_failed_frames_of_every_walk_are_taken(rescued):
    store = rescued[0]
    for part in store.frames(store.dataset_file(1)):
        arrays, _ = store.read_product("explore", 1, str(part.origin["walk"][0]))
        first = arrays["step"][np.flatnonzero(arrays["kind"] == FrameClass.FAILED)[:2]]
        assert part.origin["step"].tolist() == first.tolist()
        assert (part.origin["max_devi_f"] < 5.0).all()


def test_training_after_a_rescue_is_longer(rescued):
    records = rescued[0].iterations()
    assert {member.n_steps for member in records[0].ensemble.members} == {4}
    assert {member.n_steps for member in records[1].ensemble.members} == {10}


def test_what_rescuing_cannot_mend_stops_with_exit_3_and_names_what_to_change(rescued):
    store, end = rescued
    assert (end.converged, end.exit_code, end.iteration) == (False, 3, 2)
    assert end.message.startswith("2 passes in a row failed almost everywhere")
    for key in ("explore.stages", "initial.copies", "train.n_steps", "train.descriptor.rcut_smth", "--accept-changes"):
        assert key in end.message
    assert len(store.iterations()) == 3


def test_after_a_change_it_goes_on(rescued, tmp_path):
    """The message says: change this and run again. So the change must let it continue; without a change it does not."""
    shutil.copytree(rescued[0].folder, tmp_path / "c")
    store = Store(tmp_path / "c")
    assert loop.next_phase(store) is None
    settings = store.latest_campaign()
    store.accept(settings.model_copy(update={"train": settings.train.model_copy(update={"n_steps": 100})}))
    step = loop.next_phase(store)
    assert step is not None
    assert (step.iteration, step.name) == (3, "loop")
    assert loop.verdict(store) is None


def test_a_reason_for_every_frame_that_was_not_taken(rescued):
    for record in rescued[0].iterations()[1:]:
        selection = record.selection
        assert selection.chosen + sum(selection.passed_over.values()) == selection.counts.candidate


def test_every_labelled_frame_of_a_walk_calibrates_its_deviation(rescued):
    """Deviation and true error of real walks: as many pairs as labels, finite, and those of the frames in the data."""
    store = rescued[0]
    labelling = store.iterations()[1].labelling
    assert len(labelling.calibration) == labelling.labelled > 0
    parts = store.frames(store.dataset_file(1))
    deviation = np.concatenate([part.origin["max_devi_f"] for part in parts])
    assert [d for d, _ in labelling.calibration] == pytest.approx(deviation.tolist(), abs=1e-4)
    largest = max(np.linalg.norm(part.forces, axis=-1).max() for part in parts)
    errors = np.array([error for _, error in labelling.calibration])
    assert (errors > 0.0).all()
    assert errors.max() < 10.0 * max(largest, 1.0)
    found = select.summary(store)
    assert found.n_pairs >= len(labelling.calibration)


# --- verdicts on passes that were tampered with -----------------------------------------------------------------------


def judged(undisturbed, folder, change) -> tuple[Store, Selection]:
    """Return a copy of the tiny campaign whose second pass was changed (kind by kind), and what selection says of it.

    The bounds of convergence are the usual ones here: below 1 % of both.
    """
    shutil.copytree(undisturbed.folder, folder)
    store = Store(folder)
    iteration = folder / "iter-002"
    unpack_products(iteration)
    for name in ("select", "label", "train", "final"):
        shutil.rmtree(iteration / name)
    (iteration / "chosen.npz").unlink()
    (iteration / "iteration.json").unlink()
    campaign = store.campaign(2)
    stop = campaign.stop.model_copy(update={"candidate_share": 0.01, "failed_share": 0.01})
    for path in sorted((iteration / "explore").glob("warm*.npz")):
        arrays, meta = read_npz(path)
        kind = arrays["kind"].copy()
        kind[...] = change(kind)
        kept = np.isin(arrays["kept_kind"], []) if (kind == FrameClass.OUT_OF_REGION).all() else slice(None)
        arrays["kind"] = kind
        arrays["kept_kind"] = np.full_like(arrays["kept_kind"], kind[0])[kept]
        for name in ("kept/positions", "kept/cell", "kept/origin"):
            arrays[name] = arrays[name][kept]
        path.unlink()
        publish_npz(path, arrays, meta)
    store = resealed(store, "explore", 2, Explored)
    return store, select.STATION.gather(campaign.model_copy(update={"stop": stop}), store, 2)


def test_a_pass_that_is_all_accurate_converges(undisturbed, tmp_path):
    """The other tests of this kind mean something only if this one holds."""
    _, selection = judged(undisturbed[0], tmp_path / "c", lambda kind: FrameClass.ACCURATE)
    assert selection.is_converged
    assert selection.chosen == selection.rescued == 0


@pytest.mark.parametrize("kind", [FrameClass.FAILED, FrameClass.OUT_OF_REGION, FrameClass.CANDIDATE])
def test_a_pass_of_nothing_accurate_never_converges(undisturbed, tmp_path, kind):
    _, selection = judged(undisturbed[0], tmp_path / "c", lambda _: kind)
    assert not selection.is_converged
    assert selection.quiet_stages == ()
    assert selection.is_rescue == (kind != FrameClass.CANDIDATE)
    assert not selection.why.startswith("converged")


def test_a_pass_that_left_the_region_has_no_share_of_its_own(undisturbed, tmp_path):
    """Half of every walk past the guards: what is left is accurate, and still nobody says 'converged'."""

    def leave(kind):
        out = np.full_like(kind, FrameClass.ACCURATE)
        out[len(out) // 2 :] = FrameClass.OUT_OF_REGION
        return out

    _, selection = judged(undisturbed[0], tmp_path / "c", leave)
    assert selection.counts.share("candidate") == selection.counts.share("failed") == 0.0
    assert not selection.is_converged
    assert "frames out of the region" in selection.why


def test_nothing_in_the_window_but_too_many_failed_is_a_rescue_not_a_stall(undisturbed, tmp_path):
    def some_fail(kind):
        out = np.full_like(kind, FrameClass.ACCURATE)
        out[0] = FrameClass.FAILED
        return out

    _, selection = judged(undisturbed[0], tmp_path / "c", some_fail)
    assert selection.is_rescue
    assert selection.rescued > 0
    assert not selection.is_converged


def test_a_stage_with_too_few_walks_is_never_quiet(undisturbed, tmp_path):
    store, _ = judged(undisturbed[0], tmp_path / "c", lambda kind: FrameClass.ACCURATE)
    few = store.campaign(2).stop.model_copy(update={"min_walks": 5, "candidate_share": 0.01})
    store.chosen_file(2).unlink()
    assert not select.STATION.gather(store.campaign(2).model_copy(update={"stop": few}), store, 2).is_converged


def test_a_converged_campaign_with_a_new_region_goes_on(undisturbed, tmp_path):
    """Convergence is a statement on a region: add a stage, and it no longer holds."""
    store, selection = judged(undisturbed[0], tmp_path / "c", lambda kind: FrameClass.ACCURATE)
    store.seal("select", 2, selection)
    record = undisturbed[0].iterations()[2].model_copy(update={"selection": selection, "products": {}})
    store.iteration_file(2).write_text(record.model_dump_json())
    end = loop.verdict(store)
    assert end is not None
    assert (end.converged, end.exit_code) == (True, 0)
    settings = store.latest_campaign()
    hot = settings.explore.stages[0].model_copy(update={"name": "hot", "temperatures_K": (600.0,)})
    explore = settings.explore.model_copy(update={"stages": (*settings.explore.stages, hot)})
    stop = settings.stop.model_copy(update={"max_iterations": 5})
    store.accept(settings.model_copy(update={"stop": stop}))
    assert loop.verdict(store) is not None, "a higher bound asks nothing new of a converged campaign"
    store.accept(settings.model_copy(update={"explore": explore, "stop": stop}))
    assert loop.verdict(store) is None


def test_an_ensemble_is_passed_on_when_there_is_nothing_new_to_learn(undisturbed, tmp_path):
    store, selection = judged(undisturbed[0], tmp_path / "c", lambda kind: FrameClass.ACCURATE)
    store.seal("select", 2, selection)
    labelling = undisturbed[0].result("label", 1, Labelling)
    store.seal("label", 2, labelling.model_copy(update={"iteration": 2, "labelled": 0}))
    assert loop.STATIONS["train"].plan(store.campaign(2), store, 2) == []
