"""Train and initial: errors with known answers, when a training is planned, and which trajectories are held out."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activelearn import initial, train
from activelearn.errors import ConfigError
from activelearn.records import Ensemble, Labelling, Member, Selection


def test_errors_by_hand(copper):
    """Four atoms: +0.4 eV on every energy is 100 meV/atom; forces off by ±0.3 in one component of three."""
    shift = np.zeros_like(copper.forces)
    shift[..., 0] = 0.3 * np.array([1, -1, 1, -1])
    predicted = replace(copper, energy=copper.energy + 0.4, forces=copper.forces + shift, virial=copper.virial + 0.02)
    found = train.errors([predicted[:1], predicted[1:]], [copper[:1], copper[1:]])
    assert found.n_frames == 3
    assert found.energy_rmse_meV_per_atom == pytest.approx(100.0)
    assert found.energy_mae_meV_per_atom == pytest.approx(100.0)
    assert found.force_rmse == pytest.approx(0.3 / np.sqrt(3.0))
    assert found.force_mae == pytest.approx(0.1)
    assert found.virial_rmse_meV_per_atom == pytest.approx(5.0)
    assert train.errors([], []) is None
    bare = replace(copper, virial=None)
    assert train.errors([predicted], [bare]).virial_rmse_meV_per_atom is None


def labelling(store, iteration, frames, refused=None):
    record = Labelling(
        iteration=iteration, labelled=frames, held_out=0, refused=refused or {}, dataset_frames=frames,
        dataset_sha256="0", labels_computed=0, labels_adopted=0, labels_reused=0,
    )  # fmt: skip
    store.seal("label", iteration, record)


def passed(store, *, is_converged=False, is_rescue=False):
    found = Selection(
        iteration=1, f_lo=0.1, f_hi=0.2, stages=("cold",), cells=(), walks=(), chosen=0, rescued=0,
        is_rescue=is_rescue, passed_over={}, quiet_stages=(), next_stages=("cold",), is_converged=is_converged, why="",
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


def test_nothing_to_train_on_is_refused_with_the_reasons(store, campaign):
    labelling(store, 0, 0, {"net force above 0.05 eV/Å per atom": 7})
    with pytest.raises(
        ConfigError, match=r"no initial frame is fit for training \(7 net force above 0.05 eV/Å per atom\)"
    ):
        train.plan(campaign, store, 0)


@pytest.mark.parametrize(
    ("new", "verdict", "n_tasks", "n_steps"),
    [
        (5, {}, 4, 600),
        (0, {}, 0, None),
        (5, {"is_converged": True}, 0, None),
        (5, {"is_rescue": True}, 4, 900),
        (0, {"is_rescue": True}, 0, None),
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


def test_few_new_frames_wait_unless_it_is_a_rescue(store, campaign):
    patient = campaign.model_copy(update={"train": campaign.train.model_copy(update={"min_new_frames": 6})})
    labelling(store, 0, 10)
    labelling(store, 1, 15)
    passed(store)
    assert train.plan(patient, store, 1) == []


def test_a_cold_start_has_no_input_and_the_full_length(store, campaign):
    cold = campaign.model_copy(update={"train": campaign.train.model_copy(update={"warm_start": False})})
    labelling(store, 0, 10)
    labelling(store, 1, 15)
    passed(store)
    tasks = train.plan(cold, store, 1)
    assert {task.parameters["n_steps"] for task in tasks} == {300}
    assert {task.inputs for task in tasks} == {()}


def test_an_empty_training_passes_the_ensemble_on(store, campaign):
    labelling(store, 0, 10)
    labelling(store, 1, 10)
    passed(store)
    store.freeze_plan("train", 1, train.plan(campaign, store, 1), 1)
    found = train.gather(campaign, store, 1)
    assert (found.iteration, found.trained_in) == (1, 0)
    assert len(found.members) == 4


# --- initial ----------------------------------------------------------------------------------------------------------


def test_the_plan_of_the_initial_data_has_one_task_per_copy(store, campaign):
    tasks = initial.plan(campaign, store, 0)
    assert len(tasks) == len({task.id for task in tasks}) == 3 * 2 * 4
    assert tasks[0].id == "s0-x0.98-100K-000"
    static = campaign.model_copy(update={"initial": campaign.initial.model_copy(update={"md": None})})
    assert [task.id for task in initial.plan(static, store, 0)][:1] == ["s0-x0.98-static-000"]


@given(n=st.integers(0, 30), fraction=st.floats(0, 1), random_seed=st.integers(0, 99))
def test_held_out_trajectories_are_some_never_all(n, fraction, random_seed):
    names = [f"w{k}" for k in range(n)]
    picked = initial.held_out_walks(names, fraction, np.random.default_rng(random_seed))
    assert set(picked) <= set(names)
    assert sorted(picked, key=names.index) == picked, "in the order of the plan"
    assert len(set(picked)) == len(picked)
    if fraction == 0.0 or n <= 1:
        assert picked == []
    else:
        assert 1 <= len(picked) <= n - 1
        assert len(picked) == min(max(round(fraction * n), 1), n - 1)
