"""Passes of one ensemble are one sample; what holds a pass back is named; held-out errors may be demanded."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_select import counts, fabricate, gathered, seal_ensemble

from activelearn import ending, explore, learning, show, status
from activelearn import passes as which
from activelearn.config import Guards, Perturb, Stop
from activelearn.records import CellCounts, Counts, Selection
from activelearn.select import pooling
from activelearn.select.pooling import pooled
from activelearn.select.verdict import held_back_by, judge, percent
from activelearn.store import Store

# --- passes of one ensemble are judged together -----------------------------------------------------------------------


def one_stage(campaign, **stop):
    explore = campaign.explore.model_copy(update={"stages": campaign.explore.stages[:1]})
    bounds = campaign.stop.model_copy(update={"min_frames": 300, "min_walks": 8, **stop})
    return campaign.model_copy(update={"explore": explore, "stop": bounds})


def walk_pass(store, campaign, iteration, n_candidates, *, stages=("cold",), n_walks=9, n_frames=41, seal=True):
    """Walk a pass with `n_candidates` in it (at most one per walk), gather it and seal it."""
    if iteration not in store.opened_iterations():
        store.open_iteration(iteration, campaign)
    walks = [
        (stages[k % len(stages)], [0.1] * (n_frames - 1) + [0.2 if k < n_candidates else 0.1], None)
        for k in range(n_walks)
    ]
    fabricate(store, campaign, walks, stages=stages, iteration=iteration)
    found = gathered(store, campaign, iteration)[0]
    if seal:
        store.seal("select", iteration, found)
    return found


@pytest.fixture
def once(tmp_path, campaign):
    """A campaign of one stage in which 6 of 369 frames were candidates, too few for a training: (Store, Campaign)."""
    campaign = one_stage(campaign)
    store = Store.create(tmp_path / "once", campaign)
    store.open_iteration(0, campaign)
    found = walk_pass(store, campaign, 1, 6)
    assert (found.n_pooled, found.pooled, found.is_converged) == (1, (), False)
    return store, campaign


def test_passes_of_one_ensemble_are_judged_together(once):
    """6 of 369, then 2 of 369: 1.08 % and not 0.54 %, which was called converged."""
    store, campaign = once
    seal_ensemble(store, 1, trained_in=0)
    found = walk_pass(store, campaign, 2, 2)
    assert found.counts == Counts(walked=369, accurate=367, candidate=2, walks=9), "its own cells are its own"
    assert found.judged == Counts(walked=738, accurate=730, candidate=8, walks=18)
    assert (found.n_pooled, found.is_converged, found.quiet_stages) == (2, False, ())
    assert found.why == (
        "continues: 1.1 % candidates, 0.0 % failed of 738 frames from 18 walks over 2 passes of one ensemble; held "
        "back by cold with 1.1 % candidates (must be below 1 %); held-out P99 of the force error 0.1 eV/Å"
    )
    assert found.chosen == 2, "what it found is labelled"
    seal_ensemble(store, 2, trained_in=0)
    again = walk_pass(store, campaign, 3, 0)
    assert (again.n_pooled, again.judged.candidate, again.judged.in_region) == (3, 8, 3 * 369)
    assert again.is_converged


def test_a_pass_of_a_newly_trained_ensemble_is_judged_alone(once):
    store, campaign = once
    seal_ensemble(store, 1)
    found = walk_pass(store, campaign, 2, 2)
    assert (found.n_pooled, found.pooled, found.is_converged) == (1, (), True)
    assert found.why.startswith("converged: 0.5 % candidates, 0.0 % failed of 369 frames from 9 walks; ")


def test_a_pass_that_is_quiet_by_itself_is_not_rescued_for_what_came_before_it(once):
    """It has no candidates and the ensemble is not quiet: another draw tells more, and a longer training does not."""
    store, campaign = once
    seal_ensemble(store, 1, trained_in=0)
    strict = one_stage(campaign, candidate_share=0.005)
    store.open_iteration(2, strict)
    found = walk_pass(store, strict, 2, 0)
    assert (found.n_pooled, found.is_converged, found.is_rescue) == (2, False, False)
    assert found.why.startswith("continues: 0.8 % candidates")


@pytest.mark.parametrize(
    "change",
    [
        {"select": {"guards": Guards(min_angle_deg=40.0)}},
        {"explore": {"start_scales": (0.98, 1.0)}},
        {"explore": {"perturb": Perturb(positions_A=0.2)}},
        {"stages": {"temperatures_K": (150.0,)}},
        {"stages": {"n_steps": 7000}},
    ],
)
def test_a_pass_that_asked_another_question_is_not_added(once, change):
    store, campaign = once
    seal_ensemble(store, 1, trained_in=0)
    (section, values), *_ = change.items()
    if section == "stages":
        stages = tuple(stage.model_copy(update=values) for stage in campaign.explore.stages)
        section, values = "explore", {"stages": stages}
    changed = campaign.model_copy(update={section: getattr(campaign, section).model_copy(update=values)})
    found = walk_pass(store, changed, 2, 2)
    assert (found.n_pooled, found.is_converged) == (1, True)


@pytest.mark.parametrize(("f_lo", "n_candidates"), [(0.15, 8), (0.25, 0), (0.05, 738), (0.1499, 8)])
def test_earlier_passes_are_counted_by_the_window_of_the_last(once, f_lo, n_candidates):
    """A calibrated window moves with every label; a pass must not be forgotten for that."""
    store, campaign = once
    seal_ensemble(store, 1, trained_in=0)
    moved = campaign.model_copy(update={"select": campaign.select.model_copy(update={"f_lo": f_lo})})
    found = walk_pass(store, moved, 2, 2)
    assert found.n_pooled == 2
    assert (found.judged.in_region, found.judged.candidate, found.judged.walks) == (738, n_candidates, 18)
    assert {cell.stage for cell in found.pooled} == {"cold"}
    assert len(found.pooled) == 1


def test_a_stage_with_a_window_of_its_own_is_counted_anew_by_it(once):
    """Of the pass 6 frames have 0.2 eV/Å: candidates by the window of all, below that of the stage."""
    store, campaign = once
    own = campaign.explore.stages[0].model_copy(update={"f_lo": 0.25})
    narrow = campaign.model_copy(update={"explore": campaign.explore.model_copy(update={"stages": (own,)})})
    for changed, n_candidates in ((campaign, 6), (narrow, 0)):
        (cell,) = pooling._recounted(changed, store, 1, (0.15, 0.35))
        assert (cell.counts.candidate, cell.counts.walked) == (n_candidates, 369)


@pytest.mark.parametrize("change", [{"max_passes": 9}, {"candidate_share": 0.05}, {"out_of_region_share": 0.5}])
def test_a_bound_is_no_other_question(once, change):
    store, campaign = once
    seal_ensemble(store, 1, trained_in=0)
    stages = tuple(stage.model_copy(update=change) for stage in campaign.explore.stages)
    changed = campaign.model_copy(update={"explore": campaign.explore.model_copy(update={"stages": stages})})
    assert walk_pass(store, changed, 2, 2).n_pooled == 2


# --- quiet stages rest until there is another ensemble ---------------------------------------------------------------


def walked(store, campaign, iteration):
    return [stage.name for stage in which.walked_stages(campaign, store, iteration)]


@pytest.fixture
def joined(tmp_path, campaign):
    """A campaign whose first stage was quiet (3 of 369), so that the second one joins: (Store, Campaign)."""
    bounds = campaign.stop.model_copy(update={"min_frames": 300, "min_walks": 8})
    campaign = campaign.model_copy(update={"stop": bounds})
    store = Store.create(tmp_path / "joined", campaign)
    store.open_iteration(0, campaign)
    first = walk_pass(store, campaign, 1, 3)
    assert (which.lets_next_join(first), first.next_stages, first.chosen) == (True, ("cold", "warm"), 3)
    seal_ensemble(store, 1, trained_in=0)
    return store, campaign


def walk_warm(store, campaign, iteration, n_candidates, *, seal=True):
    """Walk a pass of the second stage alone, judged with the first."""
    if iteration not in store.opened_iterations():
        store.open_iteration(iteration, campaign)
    walks = [("warm", [0.1] * 40 + [0.2 if k < n_candidates else 0.1], None) for k in range(9)]
    fabricate(store, campaign, walks, stages=("cold", "warm"), iteration=iteration)
    found = gathered(store, campaign, iteration)[0]
    if seal:
        store.seal("select", iteration, found)
    return found


def test_the_next_stage_is_walked_alone_and_judged_with_the_quiet_one(joined):
    """DP-GEN asks for both at once and needs a pass less; walked together the quiet stage would be walked twice."""
    store, campaign = joined
    assert walked(store, campaign, 2) == ["warm"]
    found = walk_warm(store, campaign, 2, 2)
    assert [cell.stage for cell in found.cells] == ["warm"]
    assert (found.stages, found.quiet_stages) == (("cold", "warm"), ("cold", "warm"))
    assert (found.n_pooled, found.is_converged) == (2, True)
    assert found.judged == Counts(walked=738, accurate=733, candidate=5, walks=18)
    assert {(cell.stage, cell.counts.candidate) for cell in found.cells + found.rested} == {("cold", 3), ("warm", 2)}


def test_status_tells_what_was_walked_from_what_rested(joined):
    """The cells of a pass add up to its counts; the frames of a stage that rests are shown, and not counted again."""
    store, campaign = joined
    found = walk_warm(store, campaign, 2, 2)
    row = status._found_by(found)
    assert [cell["stage"] for cell in row["cells"]] == ["warm"]
    assert [(cell["stage"], cell["counts"]["walks"]) for cell in row["rested"]] == [("cold", 9)]
    assert sum(cell["counts"]["walked"] for cell in row["cells"]) == row["counts"]["walked"]
    console = show.console_of(80, file=io.StringIO())
    show.matrix_table(console, [{"index": 2, **row}])
    lines = console.file.getvalue().splitlines()
    warm, cold = ([line.split() for line in lines if line.startswith(name)] for name in ("warm", "cold"))
    assert "9" in warm[0]
    assert "rests" not in warm[0]
    assert "rests" in cold[0]
    assert any(line.startswith("rests: not walked in this pass") for line in lines)


def test_only_what_is_not_quiet_is_walked_again_by_the_same_ensemble(joined):
    store, campaign = joined
    found = walk_warm(store, campaign, 2, 6)
    assert (found.quiet_stages, found.is_rescue, found.chosen) == (("cold",), False, 6)
    seal_ensemble(store, 2, trained_in=0)
    assert walked(store, campaign, 3) == ["warm"]
    again = walk_warm(store, campaign, 3, 1)
    assert (again.n_pooled, again.is_converged) == (3, True)
    assert again.judged == Counts(walked=3 * 369, accurate=3 * 369 - 10, candidate=10, walks=27)


def test_a_new_ensemble_walks_all_stages(joined):
    store, campaign = joined
    walk_warm(store, campaign, 2, 9)
    seal_ensemble(store, 2)
    assert walked(store, campaign, 3) == ["cold", "warm"]
    assert walk_pass(store, campaign, 3, 0, stages=("cold", "warm"), n_walks=18).n_pooled == 1


def test_a_quiet_stage_is_not_forgotten_for_one_that_went_nowhere(joined):
    """B went nowhere beside a quiet A: A rests, and is judged by what was found of it."""
    store, campaign = joined
    found = walk_warm(store, campaign, 2, 0, seal=False)
    store.seal("select", 2, found.model_copy(update={"unexplored_stages": ("warm",), "quiet_stages": ("cold",)}))
    seal_ensemble(store, 2, trained_in=0)
    assert walked(store, campaign, 3) == ["warm"]
    again = walk_warm(store, campaign, 3, 2)
    assert {(cell.stage, cell.counts.walks, cell.counts.candidate) for cell in (*again.cells, *again.rested)} == {
        ("cold", 9, 3), ("warm", 9, 2)
    }  # fmt: skip
    assert again.is_converged


def test_a_cell_that_rested_is_walked_in_full_by_the_next_ensemble(joined):
    """One quiet pass is one, however long its stage rested."""
    store, campaign = joined
    walk_warm(store, campaign, 2, 9)
    seal_ensemble(store, 2)
    cold = campaign.explore.stages[0]
    assert explore.walks_of(campaign, store, 3, cold) == [cold.n_walks] * len(cold.conditions)


def test_a_changed_campaign_is_walked_as_a_whole(joined):
    store, campaign = joined
    strict = campaign.model_copy(update={"stop": campaign.stop.model_copy(update={"candidate_share": 0.005})})
    assert walked(store, strict, 2) == ["cold", "warm"]
    found = walk_pass(store, strict, 2, 0, stages=("cold", "warm"), n_walks=18)
    assert (found.n_pooled, found.judged.candidate) == (2, 3), "what was found before is not forgotten"


@pytest.mark.parametrize("change", [{"description": "reported again"}, {"stop": {"max_iterations": 99}}])
def test_what_does_not_bear_on_a_verdict_wakes_no_stage(joined, change):
    store, campaign = joined
    if "stop" in change:
        change = {"stop": campaign.stop.model_copy(update=change["stop"])}
    assert walked(store, campaign.model_copy(update=change), 2) == ["warm"]


def test_a_stage_that_a_moved_window_makes_loud_does_not_rest(joined):
    """3 candidates of 369 by the window of before; by that of today every frame is one."""
    store, campaign = joined
    moved = campaign.model_copy(update={"select": campaign.select.model_copy(update={"f_lo": 0.05})})
    found = walk_warm(store, moved, 2, 0)
    assert (found.quiet_stages, found.judged.candidate) == ((), 738)
    seal_ensemble(store, 2, trained_in=0)
    assert walked(store, moved, 3) == ["cold", "warm"]


def test_frames_and_walks_of_pooled_passes_count_together_and_refused_walks_of_the_last_alone(once):
    store, campaign = once
    seal_ensemble(store, 1, trained_in=0)
    sealed = store.result("select", 1, Selection)
    few = one_stage(campaign, min_frames=400, min_walks=15)
    cells = [
        cell.model_copy(update={"counts": Counts(accurate=369, walked=369, walks=8, refused_walks=1)})
        for cell in sealed.cells
    ]
    now = [cells[0].model_copy(update={"counts": Counts(accurate=100, walked=100, walks=8)})]
    (together,) = pooled(now, [cells])
    assert together.counts == Counts(accurate=469, walked=469, walks=16)
    assert judge([together], ("cold",), 2, few).is_converged
    assert not judge(now, ("cold",), 2, few).is_converged


cell_counts = st.builds(
    counts, st.integers(0, 500), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(1, 9)
)
passes = st.lists(st.lists(cell_counts, min_size=3, max_size=3), min_size=1, max_size=4)


@given(passes)
def test_pooled_cells_are_the_sum_of_all_passes_cell_by_cell(found):
    cells = [
        [CellCounts(stage="a", temperature_K=100.0 * k, counts=one) for k, one in enumerate(of_pass)]
        for of_pass in found
    ]
    together = pooled(cells[0], cells[1:])
    assert [cell.temperature_K for cell in together] == [0.0, 100.0, 200.0]
    for k, cell in enumerate(together):
        assert cell.counts == Counts.total(of_pass[k] for of_pass in found)
    shares = [Counts.total(of_pass).share("candidate") for of_pass in found]
    total = Counts.total(cell.counts for cell in together)
    if all(Counts.total(of_pass).in_region for of_pass in found):
        assert min(shares) - 1e-12 <= total.share("candidate") <= max(shares) + 1e-12


# --- what holds a pass back -------------------------------------------------------------------------------------------


def test_a_pass_that_goes_on_names_the_stages_that_hold_it_back(store, campaign):
    """0.9 % in all, and one stage of the two at 1.7 %."""
    walks = 10 * [("cold", [0.1] * 30, None)] + 10 * [("warm", [0.1] * 30, None)]
    walks[-5:] = 5 * [("warm", [0.1] * 29 + [0.2], None)]
    fabricate(store, campaign, walks, stages=("cold", "warm"))
    found, _ = gathered(store, campaign)
    assert found.why.startswith(
        "continues: 0.8 % candidates, 0.0 % failed of 600 frames from 20 walks; "
        "held back by warm with 1.7 % candidates (must be below 1 %); held-out P99"
    )
    assert "cold" not in found.why


@given(cell_counts, st.integers(0, 3))
def test_counts_are_quiet_when_nothing_holds_them_back(found, refused):
    found = found.model_copy(update={"refused_walks": refused})
    stop = Stop(min_frames=200, min_walks=4)
    said = ", ".join(held_back_by(found, stop))
    for word, holds in {
        "candidates": found.share("candidate") >= 0.01,
        "failed": found.share("failed") >= 0.01,
        "out of the region": found.out_of_region > 0.05 * found.walked,
        "frames (at least 200)": found.in_region < 200,
        "walks (at least 4)": found.walks < 4,
        "refused": refused > 0,
    }.items():
        assert (word in said) is holds


def test_a_share_is_said_with_the_digits_that_tell_it_from_its_bound():
    assert percent(0.0163, 0.01) == "1.6 %"
    assert percent(0.00996, 0.01) == "0.996 %"
    assert percent(0.0104, 0.01) == "1.04 %"
    assert percent(0.01, 0.01) == "1.0 %"
    assert percent(0.0) == "0.0 %"


# --- the held-out error -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p99", "bound", "is_converged"),
    [(0.3, None, True), (0.3, 0.3, True), (0.3, 0.29, False), (None, 0.3, False), (None, None, True)],
)
def test_a_quiet_pass_is_converged_only_if_the_held_out_error_allows_it(store, campaign, p99, bound, is_converged):
    campaign = one_stage(campaign, max_force_error_p99=bound)
    seal_ensemble(store, 0, p99=p99)
    found = walk_pass(store, campaign, 1, 1)
    assert (found.is_converged, found.is_inaccurate) == (is_converged, not is_converged)
    assert found.held_out_p99 == (pytest.approx(p99) if p99 is not None else None)
    assert found.quiet_stages == ("cold",)
    assert found.chosen == (0 if is_converged else 1), "there is one more to learn"
    assert not found.is_rescue
    if not is_converged:
        how = "not known" if p99 is None else "above 0.29 eV/Å"
        assert found.why.startswith(f"quiet, but the held-out force error is {how} (stop.max_force_error_p99): 0.3 %")


# --- with models that learnt nothing ----------------------------------------------------------------------------------


def test_the_next_stage_does_not_join_a_quiet_pass_of_models_that_learnt_nothing(store, campaign, monkeypatch):
    """They walked nothing of the region as it is: with longer training the same stage is walked again."""
    quiet = walk_pass(store, one_stage(campaign), 1, 0, seal=False)
    assert quiet.is_converged
    for learnt_nothing, expected in ((True, ["cold"]), (False, ["cold", "warm"])):
        last = quiet.model_copy(update={"is_converged": False, "learnt_nothing": learnt_nothing})
        monkeypatch.setattr(which, "selections_before", lambda *_, last=last: [last])
        assert [stage.name for stage in which.stages_of(campaign, store, 2)] == expected


def test_a_bound_of_passes_does_not_end_a_pass_of_models_that_learnt_nothing(once, monkeypatch):
    """Quiet alone, but not with the previous pass: trained for longer, as advised, the campaign continues."""
    store, campaign = once
    seal_ensemble(store, 1, trained_in=0)
    first = campaign.explore.stages[0].model_copy(update={"max_passes": 2})
    bounded = campaign.model_copy(update={"explore": campaign.explore.model_copy(update={"stages": (first,)})})
    monkeypatch.setattr(learning, "learnt_nothing", lambda ensemble: ensemble.members)
    found = walk_pass(store, bounded, 2, 2)
    assert (found.learnt_nothing, found.quiet_stages) == (True, ())
    assert not found.is_bounded
    assert found.chosen == 0


@pytest.mark.parametrize(("bound", "also"), [(20, " and run again"), (1, ", raise stop.max_iterations and run again")])
def test_an_advice_at_the_last_iteration_is_to_raise_the_bound_too(campaign, bound, also):
    settings = campaign.model_copy(update={"stop": campaign.stop.model_copy(update={"max_iterations": bound})})
    assert ending._again(1, settings) == f"{also} with --accept-changes"


def test_the_bound_names_stages_that_are_not_explored_yet(store, campaign):
    """All that was explored is quiet: without their names nothing would say why it is not converged."""
    found = walk_pass(store, campaign, 1, 0)
    assert found.next_stages == ("cold", "warm")
    assert "; held back by warm, not explored yet; stages explored: cold" in ending._bound(found, campaign, 1)
    assert "warm" not in found.why


def test_changed_settings_at_the_last_iteration_are_what_holds_it_back(store, campaign):
    """Not a bound that was removed, and not nothing: the last pass had converged."""
    found = walk_pass(store, one_stage(campaign), 1, 0)
    said = ending._bound(found, campaign, 1, is_reopened=True)
    assert said.startswith("not converged after 1 iteration (stop.max_iterations)")
    assert "; held back by changed settings, by which no pass has been judged yet; stages explored: cold" in said


def test_too_few_frames_are_no_reason_for_a_rescue(once):
    """Five accurate passes that add up to enough: the fourth in a row was given up as one that failed everywhere."""
    store, _ = once
    campaign = one_stage(store.latest_campaign(), min_frames=5 * 369, candidate_share=0.1)
    found = []
    for i in range(1, 6):
        if i > 1:
            seal_ensemble(store, i - 1, trained_in=0)
            found.append(walk_pass(store, campaign, i, 0))
    assert not any(one.is_rescue for one in found)
    assert [one.is_converged for one in found] == [False, False, False, True]
    assert found[0].why.startswith("continues: 0.8 % candidates")
    assert "held back by cold with 738 frames (at least 1845)" in found[0].why
