"""Select: three classes that cover and exclude each other, what walks keep, the verdicts, and LAMMPS as witness."""

import itertools
import json
import time
from pathlib import Path

import numpy as np
import pytest
from campaigns import resealed
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from activelearn import descriptor, select
from activelearn.config import Rescue, Select, Stop
from activelearn.engines.lammps import read_deviation, read_dump
from activelearn.frames import Frames, make_origin
from activelearn.records import CellCounts, Counts, Ensemble, Errors, Explored, Member, Selection, Task
from activelearn.select import FrameClass, classify_walk, mined, worth_keeping
from activelearn.select.anchors import anchors, array_name
from activelearn.select.verdict import held_back_by, judge, wants_rescue
from activelearn.select.window import classify, count, force_deviation, reclassified
from activelearn.store.files import file_sha256, read_array

DATA = Path(__file__).parent / "data" / "lammps"
deviations = arrays(
    np.float64, st.integers(0, 30), elements=st.floats(0.0, 2.0) | st.sampled_from([np.nan, np.inf, 0.15, 0.35])
)


# --- the deviation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["healthy", "triclinic"])
def test_the_deviation_is_that_of_lammps(case):
    """Four frozen models, evaluated one by one by deepmd.infer on the dumped frames, against model_devi.out."""
    n_atoms = json.loads((DATA / case / "case.json").read_text())["n_atoms"]
    with np.load(DATA / case / "forces.npz") as stored:
        found = force_deviation(stored["forces"])
    steps = read_dump(DATA / case / "walk.lammpstrj", n_atoms)[0]
    theirs = read_deviation(DATA / case / "model_devi.out")
    assert len(found) == len(steps) >= 4
    assert found == pytest.approx([theirs[int(step)] for step in steps], rel=1e-5)


def test_the_deviation_of_two_members_by_hand():
    """Forces ±(3, 4, 0)/2 about their mean on the second atom: a deviation of 2.5, whatever the mean."""
    forces = np.zeros((2, 1, 2, 3))
    forces[0, 0, 1] = [1.5, 2.0, 0.0]
    forces[1, 0, 1] = [-1.5, -2.0, 0.0]
    assert force_deviation(forces + 7.0) == pytest.approx([2.5])
    assert force_deviation(forces[:1]) == pytest.approx([0.0])


@given(arrays(np.float64, (4, 2, 3, 3), elements=st.floats(-10, 10)), st.permutations(range(4)))
def test_the_deviation_does_not_know_the_order_of_members_nor_the_frame_of_axes(forces, order):
    q, _ = np.linalg.qr(np.array([[1.0, 2.0, 0.5], [0.0, 1.0, 3.0], [2.0, 0.0, 1.0]]))
    assert force_deviation(forces[list(order)] @ q) == pytest.approx(force_deviation(forces), abs=1e-9)


def test_a_member_that_is_not_finite_makes_the_frame_so():
    forces = np.zeros((4, 2, 3, 3))
    forces[2, 1, 0, 0] = np.nan
    found = force_deviation(forces)
    assert found[0] == 0.0
    assert np.isnan(found[1])
    assert classify(found, 0.15, 0.35).tolist() == [FrameClass.ACCURATE, FrameClass.FAILED]


# --- the classes ------------------------------------------------------------------------------------------------------


@given(deviations)
def test_the_classes_are_disjoint_and_cover(deviation):
    kind = classify(deviation, 0.15, 0.35)
    accurate, candidate = deviation < 0.15, (deviation >= 0.15) & (deviation < 0.35)
    failed = ~(deviation < 0.35)
    assert (accurate.astype(int) + candidate + failed == 1).all()
    assert (kind == FrameClass.ACCURATE).tolist() == accurate.tolist()
    assert (kind == FrameClass.CANDIDATE).tolist() == candidate.tolist()
    assert (kind == FrameClass.FAILED).tolist() == failed.tolist()
    counts = count([kind])
    assert counts.accurate + counts.candidate + counts.failed == counts.walked == len(deviation)


@given(deviations, st.floats(0.01, 0.3), st.floats(0.0, 0.3), st.floats(0.0, 0.3))
def test_wider_bounds_never_make_a_frame_worse(deviation, f_lo, width, more):
    kind = classify(deviation, f_lo, f_lo + width + 0.01)
    assert (classify(deviation, f_lo, f_lo + width + 0.01 + more) <= kind).all(), "monotone in f_hi"
    raised = min(f_lo + more, f_lo + width)
    assert (classify(deviation, raised, f_lo + width + 0.01) <= kind).all(), "monotone in f_lo"


@given(deviations, st.integers(0, 40), st.none() | st.integers(0, 40))
def test_every_planned_frame_of_a_walk_has_one_class(deviation, n_planned, outside_from):
    kind = classify_walk(deviation, n_planned=n_planned, window=(0.15, 0.35), outside_from=outside_from)
    assert len(kind) == n_planned
    end = n_planned if outside_from is None else min(outside_from, n_planned)
    assert (kind[end:] == FrameClass.OUT_OF_REGION).all()
    bad = next((i for i, d in enumerate(deviation) if not np.isfinite(d)), len(deviation))
    good = min(bad, end)
    assert kind[:good].tolist() == classify(deviation[:good], 0.15, 0.35).tolist()
    assert (kind[good:end] == FrameClass.FAILED).all(), "after the first NaN everything is failed, however healthy"


def test_healthy_rows_after_a_nan_are_failed():
    kind = classify_walk(np.array([0.1, 0.2, np.nan, 0.1, 0.2]), n_planned=6, window=(0.15, 0.35), outside_from=None)
    assert kind.tolist() == [FrameClass.ACCURATE, FrameClass.CANDIDATE] + 4 * [FrameClass.FAILED]


def test_a_walk_that_was_never_walked_is_failed():
    assert classify_walk(np.empty(0), n_planned=3, window=(0.1, 0.2), outside_from=None).tolist() == 3 * [
        FrameClass.FAILED
    ]


# --- what is kept -----------------------------------------------------------------------------------------------------


@given(deviations, st.integers(1, 5), st.integers(1, 4))
def test_what_is_kept(deviation, max_frames, per_walk):
    settings = Select(max_frames=max_frames, rescue=Rescue(frames_per_walk=per_walk, max_devi_f=1.0))
    kind = classify(deviation, 0.15, 0.35)
    kept = worth_keeping(kind, deviation, settings, np.random.default_rng(1))
    assert (np.diff(kept) > 0).all(), "step order, each once"
    n_candidates = int((kind == FrameClass.CANDIDATE).sum())
    assert (kind[kept] == FrameClass.CANDIDATE).sum() == min(n_candidates, max_frames)
    rescued = kept[kind[kept] == FrameClass.FAILED]
    way_in = list(itertools.takewhile(lambda i: deviation[i] < 1.0, range(len(kind))))
    early = [i for i in way_in if kind[i] == FrameClass.FAILED][:per_walk]
    assert rescued.tolist() == early, "the earliest failed frames before the deviation left the rescue bound"
    assert len(kept) == len(rescued) + min(n_candidates, max_frames)


@given(deviations, st.integers(0, 40), st.none() | st.integers(0, 40), st.integers(0, 6), st.integers(1, 5))
def test_the_last_sane_frames_of_a_walk_that_failed_are_kept(deviation, n_more, outside_from, per_walk, max_frames):
    """`n_more` frames were never reached. Whatever the thinning, the way to the hole is kept."""
    n_planned = len(deviation) + n_more
    kind = classify_walk(
        deviation, n_planned=n_planned, window=(0.15, 0.35), outside_from=outside_from, is_broken=n_more > 0
    )
    settings = Select(max_frames=max_frames, rescue=Rescue(mined_per_walk=per_walk, max_devi_f=1.0))
    found = mined(kind, settings)
    kept = worth_keeping(kind, deviation, settings, np.random.default_rng(1))
    assert set(found) <= set(kept)
    assert (kept < len(deviation)).all(), "a frame that was not reached cannot be kept"
    assert (kind[kept] == FrameClass.CANDIDATE).sum() == min((kind == FrameClass.CANDIDATE).sum(), max_frames)
    if FrameClass.FAILED not in kind:
        assert len(found) == 0, "a walk that did not fail has no way to a hole"
        return
    sane = list(itertools.takewhile(lambda i: kind[i] < FrameClass.FAILED, range(n_planned)))
    way = [i for i in sane if kind[i] == FrameClass.CANDIDATE]
    most = min(per_walk, max_frames)
    assert found.tolist() == way[len(way) - min(most, len(way)) :]


def test_thinning_does_not_lose_the_way_to_the_hole():
    kind = np.array([FrameClass.CANDIDATE] * 500 + [FrameClass.FAILED] * 10, dtype=np.int8)
    settings = Select(max_frames=20)
    for random_seed in range(5):
        kept = worth_keeping(kind, np.full(510, 2.0), settings, np.random.default_rng(random_seed))
        assert len(kept) == 20
        assert kept[-5:].tolist() == [495, 496, 497, 498, 499]


def test_accurate_frames_are_kept_only_for_an_audit():
    kind = np.zeros(100, dtype=np.int8)
    assert len(worth_keeping(kind, np.zeros(100), Select(), np.random.default_rng(1))) == 0
    kept = worth_keeping(kind, np.zeros(100), Select(audit_frames=6), np.random.default_rng(1))
    assert len(kept) == len(set(kept)) == 6


def test_a_million_deviations_are_classified_and_counted_in_a_second():
    rows = np.random.default_rng(1).exponential(0.2, 1_000_000)
    begin = time.process_time()
    kinds = [
        classify_walk(walk, n_planned=len(walk), window=(0.15, 0.35), outside_from=None)
        for walk in rows.reshape(1000, -1)
    ]
    found = count([*kinds, classify(rows, 0.15, 0.35)])
    assert time.process_time() - begin < 1.0
    assert found.walked == 2_000_000
    assert found.candidate == 2 * ((rows >= 0.15) & (rows < 0.35)).sum()


# --- verdicts ---------------------------------------------------------------------------------------------------------


def counts(accurate=0, candidate=0, failed=0, out=0, walks=8):
    walked = accurate + candidate + failed + out
    return Counts(walked=walked, accurate=accurate, candidate=candidate, failed=failed, out_of_region=out, walks=walks)


@pytest.mark.parametrize(
    ("found", "quiet", "why"),
    [
        (counts(1000), True, "all accurate"),
        (counts(199), False, "too few frames"),
        (counts(200), True, "just enough frames"),
        (counts(190, out=40), False, "too few frames in the region"),
        (counts(1000, walks=7), False, "too few walks"),
        (counts(991, candidate=9), True, "0.9 % candidates"),
        (counts(990, candidate=10), False, "1 % is not below 1 %"),
        (counts(991, failed=9), True, "0.9 % failed"),
        (counts(990, failed=10), False, "1 % failed"),
        (counts(950, out=50), True, "a twentieth out of the region"),
        (counts(949, out=51), False, "more than a twentieth out of the region"),
        (counts(1000).model_copy(update={"refused_walks": 1}), False, "a part of the region was never walked"),
        (counts(0, out=1000), False, "everything out of the region"),
        (counts(), False, "nothing"),
    ],
)
def test_quiet(found, quiet, why):
    assert (held_back_by(found, Stop()) == []) is quiet, why


def test_a_stage_may_have_bounds_of_its_own(campaign):
    """A melt is quiet at 4 % if it says 5 %; a crystal beside it is judged by `stop`."""
    found = counts(960, candidate=40)
    stages = [{"name": name, "temperatures_K": [300], "n_steps": 100} for name in ("crystal", "melt")]
    stages[1]["candidate_share"] = 0.05
    campaign = campaign.model_copy(update={"explore": type(campaign.explore)(stages=stages)})
    cells = [CellCounts(stage=name, temperature_K=300.0, counts=found) for name in ("crystal", "melt")]
    judged = judge(cells, ("crystal", "melt"), 1, campaign)
    assert (judged.quiet, judged.is_converged) == (("melt",), False)
    assert judge(cells[1:], ("melt",), 1, campaign).quiet == ("melt",)
    said = held_back_by(counts(940, candidate=60), campaign.stage("melt").bounds(campaign.stop))
    assert said == ["6.0 % candidates (must be below 5 %)"]
    assert campaign.stage("melt").bounds(campaign.stop).failed_share == campaign.stop.failed_share


@pytest.mark.parametrize(
    ("found", "rescue", "why"),
    [
        (counts(49, candidate=1, failed=50), False, "half failed is not more than half"),
        (counts(49, candidate=0, failed=51), True, "more than half failed"),
        (counts(40, candidate=9, failed=30, out=21), True, "failed and out of region together"),
        (counts(90, candidate=10), False, "the window has something"),
        (counts(900, out=100), True, "nothing to label, and too much out of the region to be quiet"),
        (counts(990, failed=10), True, "nothing in the window and 1 % failed: the loop would learn nothing"),
        (counts(995, failed=5), False, "failed below its bound"),
        (counts(), True, "no frames at all"),
        (counts(out=10), True, "all out of the region"),
    ],
)
def test_rescue(found, rescue, why):
    assert wants_rescue(found, Select(), is_quiet=not held_back_by(found, Stop())) is rescue, why


@given(deviations, st.integers(0, 40), st.none() | st.integers(0, 30), st.booleans())
def test_a_walk_that_is_classified_again_gives_what_the_other_window_had_given(deviation, n_more, outside, broken):
    n_planned = len(deviation) + n_more + 1
    outside = None if outside is None or outside >= max(len(deviation), 1) else outside
    how = {"n_planned": n_planned, "outside_from": outside, "is_broken": broken}
    first = classify_walk(deviation, window=(0.15, 0.35), **how)
    assert (reclassified(first, deviation, (0.15, 0.35)) == first).all()
    assert (reclassified(first, deviation, (0.3, 1.2)) == classify_walk(deviation, window=(0.3, 1.2), **how)).all()


def test_a_walk_that_broke_after_it_left_the_region_did_not_just_leave_it():
    deviation = np.array([0.1, 0.1, 0.1])
    kinds = {"n_planned": 6, "window": (0.15, 0.35), "outside_from": 2}
    left = classify_walk(deviation, **kinds, is_broken=False)
    broke = classify_walk(deviation, **kinds, is_broken=True)
    assert left.tolist() == [FrameClass.ACCURATE] * 2 + [FrameClass.OUT_OF_REGION] * 4
    assert broke.tolist() == [FrameClass.ACCURATE] * 2 + [FrameClass.OUT_OF_REGION] + [FrameClass.FAILED] * 3


# --- the station on fabricated walks ----------------------------------------------------------------------------------


def fabricate(store, campaign, walks, stages=("cold",), iteration=1, *, describe=None, systems=(), reach=None):
    """Publish walks as explore does. `walks`: (stage, deviations, outside_from) each; frames carry their step in x.

    `systems` says at which system each walk began; `describe` gives the descriptors of the frames of a walk from its
    number and the steps. `reach` says how far each walk came.
    """
    tasks = []
    for i, (stage, _, _) in enumerate(walks):
        p = {"stage": stage, "temperature_K": 100.0, "pressure_bar": None, "scale": 1.0}
        p["system"] = systems[i] if systems else 0
        tasks.append(Task(id=f"{stage}-{i:03d}", kind="walk", parameters=p))
    store.freeze_plan("explore", iteration, tasks, 1)
    for task, (stage, deviation, outside) in zip(tasks, walks, strict=True):
        devi = np.array(deviation, dtype=np.float64)
        n = len(devi)
        positions = np.zeros((n, 1, 3))
        positions[:, 0, 0] = np.arange(n)
        frames = Frames(
            ("Cu",),
            np.tile(np.eye(3), (n, 1, 1)),
            positions,
            origin=make_origin(n, walk=task.id, step=np.arange(n), max_devi_f=devi),
        )
        window = select.window_of(campaign, store, iteration)
        kind = classify_walk(devi, n_planned=n, window=window, outside_from=outside)
        kept = worth_keeping(kind, devi, campaign.select, np.random.default_rng(0))
        arrays = {
            "max_devi_f": devi,
            "kind": kind,
            "kept_kind": kind[kept],
            "kept_mined": np.isin(kept, mined(kind, campaign.select)),
            "kept_model_forces": np.zeros((len(kept), 1, 3), dtype=np.float32) + kept[:, None, None],
            **frames[kept].arrays("kept/"),
        }
        if describe is not None:
            arrays["kept_descriptor"] = describe(tasks.index(task), kept).astype(np.float32)
        meta = {"stage": stage, "ended": "finished", "first_bad_step": None, "log_tail": [], "iteration": iteration}
        if reach is not None:
            meta["reach"] = reach.model_dump()
        store.publish_product("explore", iteration, task.id, arrays, meta)
    if not store.is_sealed("train", iteration - 1):
        seal_ensemble(store, iteration - 1)
    products = {task.id: file_sha256(store.product("explore", iteration, task.id)) for task in tasks}
    store.seal("explore", iteration, Explored(iteration=iteration, stages=stages, products=products))


def seal_ensemble(store, iteration, *, trained_in=None, p99=0.1):
    """Seal the models that the pass after `iteration` is walked with; `p99`: held-out, of both members."""
    trained_in = iteration if trained_in is None else trained_in
    errors = {"n_frames": 9, "energy_rmse_meV_per_atom": 1.0, "energy_mae_meV_per_atom": 1.0, "force_rmse": 0.03}
    held_out = None if p99 is None else Errors(**errors, force_mae=0.02, force_p99=p99)
    model = {"random_seed": 1, "model": "models/0.pb", "sha256": "0", "n_steps": 1, "held_out": held_out}
    members = tuple(Member(index=k, **model) for k in range(2))
    found = Ensemble(iteration=iteration, trained_in=trained_in, type_map=("Cu",), members=members)
    store.seal("train", iteration, found)


def gathered(store, campaign, iteration=1) -> tuple[Selection, list[Frames]]:
    found = select.STATION.gather(campaign, store, iteration)
    assert Selection.model_validate_json(found.model_dump_json()) == found
    return found, store.frames(store.chosen_file(iteration))


def test_it_goes_on_while_there_are_candidates(store, campaign):
    fabricate(store, campaign, 4 * [("cold", [0.1] * 20 + [0.2] * 5, None)])
    found, chosen = gathered(store, campaign)
    assert found.counts == Counts(walked=100, accurate=80, candidate=20, walks=4)
    assert found.why.startswith("continues: 20.0 % candidates, 0.0 % failed of 100 frames from 4 walks")
    assert not found.is_converged
    assert not found.is_rescue
    assert (found.chosen, found.rescued, found.passed_over) == (20, 0, {})
    assert found.next_stages == ("cold",)
    assert [frames.origin["step"].tolist() for frames in chosen] == 4 * [[20, 21, 22, 23, 24]]
    assert all((frames.origin["iteration"] == 1).all() for frames in chosen)
    assert [frames.origin["walk"][0] for frames in chosen] == [f"cold-00{i}" for i in range(4)], "order of the plan"


def test_the_cap_counts_what_it_passes_over(store, campaign):
    fabricate(store, campaign, 4 * [("cold", [0.1] * 20 + [0.2] * 30, None)])
    found, chosen = gathered(store, campaign)
    assert found.chosen == campaign.select.max_frames == sum(len(frames) for frames in chosen) == 60
    assert found.passed_over == {"cap per iteration": 60}


def test_a_quiet_stage_lets_the_next_one_join(store, campaign):
    fabricate(store, campaign, 4 * [("cold", [0.1] * 25, None)])
    found, chosen = gathered(store, campaign)
    assert not found.is_converged
    assert found.quiet_stages == ("cold",)
    assert found.next_stages == ("cold", "warm")
    assert found.why.startswith("quiet, the next stage joins")
    assert chosen == []


def test_all_stages_quiet_is_converged(store, campaign):
    walks = 4 * [("cold", [0.1] * 25, None)] + 4 * [("warm", [0.1] * 150, None)]
    walks[-1] = ("warm", [0.1] * 149 + [0.2], None)
    fabricate(store, campaign, walks, stages=("cold", "warm"))
    found, chosen = gathered(store, campaign)
    assert found.is_converged
    assert not found.is_rescue
    assert found.why.startswith("converged: ")
    assert found.passed_over == {"converged": 1}
    assert chosen == []


def test_an_earlier_stage_that_is_loud_again_prevents_convergence(store, campaign):
    walks = 4 * [("cold", [0.1] * 24 + [0.2], None)] + 4 * [("warm", [0.1] * 25, None)]
    fabricate(store, campaign, walks, stages=("cold", "warm"))
    found, _ = gathered(store, campaign)
    assert not found.is_converged
    assert found.quiet_stages == ("warm",)
    assert found.next_stages == ("cold", "warm")


def test_everything_failed_is_rescued_from_the_way_into_the_hole(store, campaign):
    fabricate(store, campaign, 4 * [("cold", [0.1, 0.2, 0.4, 0.9, 1.4, 1.6] + [np.nan] * 14, None)])
    found, chosen = gathered(store, campaign)
    assert found.is_rescue
    assert found.why.startswith("rescue: ")
    assert (found.chosen, found.rescued) == (4, 12)
    assert all(frames.origin["step"].tolist() == [1, 2, 3, 4] for frames in chosen), "candidate, then below 1.5 eV/Å"
    assert found.counts == Counts(walked=80, accurate=4, candidate=4, failed=72, walks=4)


def test_everything_out_of_region_is_never_converged(store, campaign):
    walks = 4 * [("cold", [0.1] * 25, 1)] + 4 * [("warm", [0.1] * 250, 1)]
    fabricate(store, campaign, walks, stages=("cold", "warm"))
    found, chosen = gathered(store, campaign)
    assert not found.is_converged
    assert found.is_rescue
    assert found.quiet_stages == ()
    assert chosen == []
    assert found.counts.out_of_region == 4 * 24 + 4 * 249
    assert "frames out of the region" in found.why


def test_a_walk_refused_by_consent_is_on_the_record(store, campaign):
    """Infrastructure killed it too often and the user allowed it to be refused: counted with its reason, not lost."""
    fabricate(store, campaign, 4 * [("cold", [0.1] * 20 + [0.2] * 5, None)])
    path = store.product("explore", 1, "cold-002")
    path.unlink()
    store.publish_product(
        "explore", 1, "cold-002", {}, {"refused": "infrastructure failed 3 times", "started": 0.0, "finished": 0.0}
    )
    store = resealed(store, "explore", 1, Explored)
    found, _ = gathered(store, campaign)
    assert found.counts.walks == 3
    assert [walk.id for walk in found.walks] == [f"cold-00{i}" for i in range(4)]
    assert found.walks[2].ended == "refused: infrastructure failed 3 times"


def test_the_choice_is_the_same_every_time(store, campaign):
    fabricate(store, campaign, 4 * [("cold", [0.2] * 30, None)])
    first, chosen = gathered(store, campaign)
    store.chosen_file(1).unlink()
    again, chosen_again = gathered(store, campaign)
    assert first == again
    steps = [frames.origin["step"].tolist() for frames in chosen]
    assert steps == [frames.origin["step"].tolist() for frames in chosen_again]


def test_mined_frames_are_counted_among_the_chosen(store, campaign):
    fabricate(store, campaign, 3 * [("cold", [0.2] * 8 + [0.1] * 30, None)] + [("cold", [0.2] * 8 + [0.9] * 2, None)])
    found, chosen = gathered(store, campaign)
    assert not found.is_rescue
    assert (found.chosen, found.mined, found.rescued) == (32, 5, 0)
    assert sum(len(frames) for frames in chosen) == 32


def test_the_forces_that_drove_a_chosen_frame_stand_beside_it(store, campaign):
    fabricate(store, campaign, 4 * [("cold", [0.1] * 20 + [0.2] * 30, None)])
    _, chosen = gathered(store, campaign)
    for p, frames in enumerate(chosen):
        forces = read_array(store.chosen_file(1), f"{p}/model_forces")
        assert forces.shape == (len(frames), 1, 3)
        assert (forces[:, 0, 0] == frames.origin["step"]).all()


# --- diverse picks over iterations ------------------------------------------------------------------------------------


def on_a_line(walk, steps):
    """Walks 100 apart, frames 1 apart, in the first of the descriptor's numbers."""
    out = np.zeros((len(steps), descriptor.size(("Cu",))))
    out[:, 0] = 100.0 * walk + steps
    return out


def diverse(campaign, **changes):
    update = {"pick": "diverse", "random_share": 0.0, "max_frames": 2, **changes}
    rescue = campaign.select.rescue.model_copy(update={"mined_per_walk": 0})
    settings = campaign.select.model_copy(update={**update, "rescue": rescue})
    return campaign.model_copy(update={"select": settings})


def steps_of(chosen):
    return {(str(part.origin["walk"][0]), int(step)) for part in chosen for step in part.origin["step"]}


def test_diverse_picks_keep_away_from_those_of_earlier_iterations(store, campaign):
    """Two walks; what the first pass chose, at the ends, sends the second pass to the middle, and so on."""
    store.seal_frames(store.chosen_file(0), [])
    wide = diverse(campaign)
    walks = [("cold", [0.2] * 2, None), ("cold", [0.2] * 2, None), ("cold", [0.2, 0.3], None)]
    fabricate(store, wide, walks, describe=on_a_line)
    found, chosen = gathered(store, wide)
    assert steps_of(chosen) == {("cold-002", 1), ("cold-000", 0)}, "largest deviation, then the farthest from it"
    assert found.passed_over == {"cap per iteration": 4}
    store.open_iteration(2, wide)
    fabricate(store, wide, walks, iteration=2, describe=on_a_line)
    found, chosen = gathered(store, wide, 2)
    assert ("cold-001", 1) in steps_of(chosen) or ("cold-001", 0) in steps_of(chosen), "100 from both"
    assert found.passed_over == {"cap per iteration": 2, "near duplicate": 2}
    name = array_name(wide)
    beside = [read_array(store.chosen_file(k), name) for k in (1, 2)]
    assert anchors(wide, store, 3).tolist() == np.concatenate(beside).tolist()


def test_frames_chosen_without_descriptor_get_theirs_once(store, campaign, copper):
    """The initial data: described when a diverse pick first needs it, in a file next to it."""
    store.seal_frames(store.chosen_file(0), [copper[:2], copper[2:]])
    found = anchors(campaign, store, 1)
    assert np.array_equal(found, descriptor.of_frames(copper, ("Cu",)))
    (beside,) = store.iteration_folder(0).glob("descriptor*.npz")
    stamp = beside.stat().st_mtime_ns
    assert np.array_equal(anchors(campaign, store, 1), found)
    assert beside.stat().st_mtime_ns == stamp


def test_a_product_without_descriptors_is_described_when_it_is_read(store, campaign):
    """One atom in a cell looks the same wherever it is: all but one frame are near duplicates."""
    store.seal_frames(store.chosen_file(0), [])
    fabricate(store, diverse(campaign, max_frames=9), 4 * [("cold", [0.2] * 3, None)])
    found, _ = gathered(store, diverse(campaign, max_frames=9))
    assert (found.chosen, found.passed_over) == (1, {"near duplicate": 11})


def test_in_a_rescue_failed_frames_keep_away_from_the_candidates_chosen(store, campaign):
    store.seal_frames(store.chosen_file(0), [])
    wide = diverse(campaign, max_frames=2)
    fabricate(store, wide, [("cold", [0.2] + [0.5] * 4 + [2.0] * 40, None)], describe=on_a_line)
    found, chosen = gathered(store, wide)
    assert found.is_rescue
    assert (found.chosen, found.rescued) == (1, 1)
    assert steps_of(chosen) == {("cold-000", 0), ("cold-000", 4)}, "the failed frame farthest from the candidate"


def test_select_has_no_tasks(store, campaign):
    assert select.STATION.plan(campaign, store, 1) == []
    assert select.STATION.run is None


def test_a_system_that_is_lost_is_rescued_although_the_pass_is_not(store, campaign):
    """A glass beside a crystal that is known: without it no frame of the glass would ever be labelled."""
    walks = 3 * [("cold", [0.1] * 24 + [0.2], None)] + [("cold", [0.8] * 25, None)]
    fabricate(store, campaign, walks, systems=(0, 0, 0, 1))
    found, chosen = gathered(store, campaign)
    assert not found.is_rescue, "a quarter of the frames failed"
    assert (found.chosen, found.rescued) == (3, campaign.select.rescue.frames_per_walk)
    assert [part.origin["walk"][0] for part in chosen if (part.origin["max_devi_f"] > 0.35).any()] == ["cold-003"]


def test_candidates_leave_room_for_what_failed(store, campaign):
    walks = 3 * [("cold", [0.2] * 25, None)] + 20 * [("cold", [0.8] * 25, None)]
    fabricate(store, campaign, walks, systems=(0, 0, 0) + 20 * (1,))
    found, _ = gathered(store, campaign)
    assert found.is_rescue
    assert campaign.select.max_frames == 60
    assert (found.chosen, found.rescued) == (30, 30), "half of the room each (rescue.share)"
    assert found.passed_over == {"cap per iteration": 45}
