"""Picking: caps and their reasons, an honest random share, the farthest points, near duplicates, and the cost."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activelearn.config import Select
from activelearn.select.picking import Pool, nearest2, pick

rng_of = np.random.default_rng


def pool_of(walk, cell=None, points=None, anchors=None, deviation=None) -> Pool:
    """Frames told apart by points in a plane (a descriptor of two numbers)."""
    walk = np.array(walk, dtype=np.intp)
    cell = walk if cell is None else np.array(cell, dtype=np.intp)
    deviation = np.full(len(walk), 0.2) if deviation is None else np.array(deviation, dtype=np.float64)
    points, anchors = (None if x is None else np.array(x, dtype=np.float32).reshape(-1, 2) for x in (points, anchors))
    return Pool(walk, cell, deviation, points, anchors)


def plane(points, **more) -> Pool:
    return pool_of(np.arange(len(points)), points=points, **more)


FAR = Select(pick="diverse", random_share=0.0, min_descriptor_distance=0.0)

# --- caps -------------------------------------------------------------------------------------------------------------

frames = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(-3, 3), st.integers(-3, 3)), max_size=40)
pickers = st.sampled_from(["random", "diverse"])


@given(
    frames, pickers, st.none() | st.integers(1, 4), st.none() | st.integers(1, 6), st.integers(0, 20), st.integers(0, 9)
)
def test_picks_respect_every_cap_and_count_the_rest(pool, picker, per_walk, per_cell, room, random_seed):
    walk, cell = np.array([f[0] for f in pool], dtype=np.intp), np.array([f[1] for f in pool], dtype=np.intp)
    whole = pool_of(walk, cell, [f[2:] for f in pool], anchors=[[0, 0]])
    settings = Select(pick=picker, max_per_walk=per_walk, max_per_cell=per_cell, min_descriptor_distance=0.0)
    taken, passed_over = pick(whole, settings, room, rng_of(random_seed))
    assert (np.diff(taken) > 0).all()
    assert len(taken) <= room
    assert max(np.bincount(walk[taken], minlength=1)) <= (per_walk or np.inf)
    assert max(np.bincount(cell[taken], minlength=1)) <= (per_cell or np.inf)
    assert len(taken) + sum(passed_over.values()) == len(pool), "nothing is dropped in silence"
    again, _ = pick(whole, settings, room, rng_of(random_seed))
    assert taken.tolist() == again.tolist(), "the same generator, the same choice"
    if per_walk is None and per_cell is None:
        assert len(taken) == min(room, len(pool))
    left = np.setdiff1d(np.arange(len(pool)), taken)
    if len(taken) < room:  # room is left, so whatever was passed over met a cap of its walk or cell
        full_walks = [w for w in range(5) if (walk[taken] == w).sum() == per_walk]
        full_cells = [c for c in range(3) if (cell[taken] == c).sum() == per_cell]
        assert all(walk[i] in full_walks or cell[i] in full_cells for i in left)


@given(frames, st.integers(0, 20), st.floats(0.1, 3.0), pickers)
def test_no_two_picks_are_near_duplicates(pool, room, apart, picker):
    points = np.array([f[2:] for f in pool], dtype=np.float32).reshape(-1, 2)
    settings = Select(pick=picker, min_descriptor_distance=apart)
    taken, passed_over = pick(plane(points, anchors=[[0.2, 0.1]]), settings, room, rng_of(1))
    chosen = np.vstack([[[0.2, 0.1]], points[taken]])
    between = np.linalg.norm(chosen[:, None] - chosen[None], axis=-1) + 1e9 * np.eye(len(chosen))
    assert between.min() > apart - 1e-3
    assert len(taken) + sum(passed_over.values()) == len(pool)
    if len(taken) < room:
        assert set(passed_over) <= {"near duplicate"}
        left = np.delete(points, taken, axis=0)
        assert (np.linalg.norm(left[:, None] - chosen[None], axis=-1).min(axis=1) < apart + 1e-3).all()


def test_picks_are_random_and_even():
    """60 frames, room for 6: each is taken a tenth of the time (binomial, 4 sigma)."""
    rng, n = rng_of(5), 2000
    hits = np.zeros(60)
    for _ in range(n):
        hits[pick(pool_of(np.zeros(60)), Select(), 6, rng)[0]] += 1
    assert np.abs(hits / n - 0.1).max() < 4 * np.sqrt(0.09 / n)


def test_reasons_of_passing_over():
    walk = pool_of(np.zeros(5))
    assert pick(walk, Select(max_per_walk=2), 9, rng_of(1))[1] == {"cap per walk": 3}
    assert pick(walk, Select(max_per_cell=1), 9, rng_of(1))[1] == {"cap per cell": 4}
    assert pick(walk, Select(), 2, rng_of(1))[1] == {"cap per iteration": 3}
    assert pick(walk, Select(), 9, rng_of(1))[1] == {}
    same = plane(np.zeros((5, 2)))
    for picker in ("random", "diverse"):
        settings = Select(pick=picker, min_descriptor_distance=0.1)
        assert pick(same, settings, 9, rng_of(1))[1] == {"near duplicate": 4}
    assert pick(same, Select(), 9, rng_of(1))[1] == {}, "the random picker does not look unless it is told to"


@pytest.mark.parametrize(
    ("settings", "distance", "needed"),
    [
        ({}, 0.0, False),
        ({"min_descriptor_distance": 0.2}, 0.2, True),
        ({"pick": "diverse"}, 0.03, True),
        ({"pick": "diverse", "min_descriptor_distance": 0.0}, 0.0, True),
    ],
)
def test_who_looks_for_near_duplicates_and_wants_descriptors(settings, distance, needed):
    assert Select(**settings).duplicate_distance == distance
    assert Select(**settings).needs_descriptor is needed


def test_an_audit_that_leaves_no_room_for_candidates_is_refused():
    with pytest.raises(ValueError, match="audit_frames = 9 must be below max_frames = 9, of which they are a part"):
        Select(audit_frames=9, max_frames=9)


# --- farthest points --------------------------------------------------------------------------------------------------


def test_the_first_picks_are_the_extremes():
    """From the frame of largest deviation to the far ends, and then to the middle."""
    line = plane([[x, 0.0] for x in range(11)], deviation=[0.2] * 3 + [0.3] + [0.2] * 7)
    assert pick(line, FAR, 1, rng_of(1))[0].tolist() == [3]
    assert pick(line, FAR, 3, rng_of(1))[0].tolist() == [0, 3, 10]
    assert pick(line, FAR, 4, rng_of(1))[0].tolist() == [0, 3, 6, 10]


def test_picks_keep_away_from_what_was_chosen_before():
    line = plane([[x, 0.0] for x in range(11)], anchors=[[0.0, 0.0], [1.0, 0.0]], deviation=[0.3] + [0.2] * 10)
    assert pick(line, FAR, 1, rng_of(1))[0].tolist() == [10]
    assert pick(line, FAR, 2, rng_of(1))[0].tolist() == [5, 10]


def test_a_cap_sends_the_next_pick_elsewhere():
    points = [[0.0, 0.0], [10.0, 0.0], [10.0, 1.0], [4.0, 0.0]]
    pool = pool_of([0, 1, 1, 2], points=points, anchors=[[0.0, 0.0]])
    settings = FAR.model_copy(update={"max_per_walk": 1})
    taken, passed_over = pick(pool, settings, 2, rng_of(1))
    assert taken.tolist() == [2, 3]
    assert passed_over == {"cap per walk": 1, "cap per iteration": 1}


def test_every_cluster_is_covered_where_random_misses_some():
    """1000 frames in 20 clusters, of which one holds nine tenths: the papers' case of a walk that lingers."""
    rng = rng_of(7)
    cluster = np.where(rng.random(1000) < 0.9, 0, rng.integers(1, 20, 1000))
    points = 10.0 * rng.permutation(400)[cluster, None] + np.zeros((1, 2)) + rng.normal(0.0, 0.1, (1000, 2))
    covered = {
        picker: len(set(cluster[pick(plane(points), settings, 20, rng_of(2))[0]].tolist()))
        for picker, settings in (("random", Select()), ("diverse", FAR))
    }
    assert covered["diverse"] == len(set(cluster.tolist())) == 20
    assert covered["random"] < 8


def test_the_random_share_of_diverse_picks_is_an_honest_sample():
    """Half at random: a frame in the crowd is taken as often as one at the rim by that half (binomial, 5 sigma)."""
    points = np.array([[x, 0.0] for x in range(40)])
    settings = FAR.model_copy(update={"random_share": 0.5})
    hits, n = np.zeros(40), 1500
    rng = rng_of(3)
    for _ in range(n):
        taken, _ = pick(plane(points), settings, 8, rng)
        assert len(taken) == 8
        hits[taken] += 1
    assert (hits / n > 0.1 - 5 * np.sqrt(0.09 / n)).all(), "every frame at least by the random half: 4 of 40"
    none = FAR.model_copy(update={"random_share": 1.0})
    assert (
        pick(plane(points), none, 8, rng_of(1))[0].tolist() == pick(plane(points), Select(), 8, rng_of(1))[0].tolist()
    )


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 600))
def test_distances_to_the_anchors_are_those_by_hand(random_seed, n_pool, n_anchors):
    rng = rng_of(random_seed)
    pool = (100.0 + rng.normal(size=(n_pool, 5))).astype(np.float32)
    anchors = np.vstack([(100.0 + rng.normal(size=(n_anchors, 5))).astype(np.float32), pool[:1]])
    exact = ((pool[:, None].astype(float) - anchors[None].astype(float)) ** 2).sum(axis=-1).min(axis=1)
    assert nearest2(pool, anchors) == pytest.approx(exact, abs=1e-4)


def test_200_of_20_000_are_picked_in_two_seconds():
    rng = rng_of(1)
    pool = Pool(np.arange(20_000), np.arange(20_000), rng.random(20_000), rng.random((20_000, 256), dtype=np.float32))
    begin = time.process_time()
    taken, _ = pick(pool, Select(pick="diverse"), 200, rng)
    assert len(taken) == 200
    assert time.process_time() - begin < 2.0
