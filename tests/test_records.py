"""Records: what is sealed is read back equal, nothing unknown slips in, and sums and shares are what they say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from activelearn.records import (
    CellCounts,
    Counts,
    End,
    Ensemble,
    Errors,
    Member,
    Plan,
    Seconds,
    Selection,
    Task,
    WalkRecord,
)

numbers = st.integers(0, 1000)
some_counts = st.builds(
    Counts, accurate=numbers, candidate=numbers, failed=numbers, out_of_region=numbers, walks=numbers
)


def member(index, force_rmse):
    held_out = None
    if force_rmse is not None:
        held_out = Errors(
            n_frames=3, energy_rmse_meV_per_atom=1, energy_mae_meV_per_atom=1, force_rmse=force_rmse, force_mae=0.1
        )
    return Member(index=index, random_seed=1, model="models/x.pb", sha256="0", n_steps=10, held_out=held_out)


@given(st.lists(some_counts, max_size=4))
def test_counts_add_up_field_by_field(parts):
    total = Counts.total(parts)
    for name in Counts.model_fields:
        assert getattr(total, name) == sum(getattr(part, name) for part in parts)


@given(some_counts)
def test_shares_are_of_the_frames_in_the_region(counts):
    assert counts.in_region == counts.accurate + counts.candidate + counts.failed
    shares = [counts.share(kind) for kind in ("accurate", "candidate", "failed")]
    assert sum(shares) == pytest.approx(1.0)
    if counts.in_region:
        assert counts.share("candidate") == counts.candidate / counts.in_region, "out of the region does not count"


def test_no_frame_in_the_region_is_all_failed():
    assert (Counts(walked=5, out_of_region=5).share("failed"), Counts().share("candidate")) == (1.0, 0.0)


def test_records_are_immutable_and_closed():
    task = Task(id="a", kind="walk")
    with pytest.raises(ValidationError, match="frozen"):
        task.id = "b"
    with pytest.raises(ValidationError, match="Extra inputs"):
        Task(id="a", kind="walk", colour="red")
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        Plan(station="x", iteration=0, n_chunks=0, tasks=())


def test_a_selection_is_read_back_equal():
    counts = Counts(walked=10, accurate=8, candidate=1, failed=1, walks=2)
    selection = Selection(
        iteration=3, f_lo=0.1, f_hi=0.2, stages=("cold",),
        cells=(CellCounts(stage="cold", temperature_K=100.0, counts=counts),) * 2,
        walks=(WalkRecord(id="w", stage="cold", ended="lost atoms", first_bad_step=3, log_tail=("E",), sha256="0"),),
        chosen=1, rescued=0, is_rescue=False, passed_over={"cap per walk": 2}, quiet_stages=(), next_stages=("cold",),
        is_converged=False, why="goes on",
    )  # fmt: skip
    assert Selection.model_validate_json(selection.model_dump_json()) == selection
    assert selection.counts == Counts.total([counts, counts])


def test_the_error_of_an_ensemble_is_the_mean_over_its_members():
    def ensemble(*values):
        members = tuple(member(i, value) for i, value in enumerate(values))
        return Ensemble(iteration=0, trained_in=0, type_map=("Cu",), members=members)

    assert ensemble(0.1, 0.3).force_rmse == pytest.approx(0.2)
    assert ensemble(None, 0.3).force_rmse == pytest.approx(0.3)
    assert ensemble(None).force_rmse is None


def test_time_that_is_not_engine_time():
    assert Seconds(wall=10.0, engine=7.5, engine_total=14.0, n_tasks=2).other == 2.5
    assert Seconds(wall=1.0, engine=1.1, engine_total=1.1, n_tasks=1).other == 0.0, "clocks differ a little"


def test_an_end_is_read_back():
    end = End(converged=False, iteration=6, exit_code=3, message="not converged")
    assert End.model_validate_json(end.model_dump_json()) == end
