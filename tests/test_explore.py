"""Explore: the plan covers the matrix, and a walk is reduced to classes, reasons and the frames worth keeping."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk

from activelearn import explore
from activelearn.engines.lammps import WalkOutput
from activelearn.frames import Frames
from activelearn.records import Counts, Ensemble, Member, Selection, Task
from activelearn.select import Kind


def ensemble(store, iteration=0):
    members = tuple(Member(index=k, random_seed=k, model=f"models/{k}.pb", sha256="0", n_steps=1) for k in range(4))
    store.seal("train", iteration, Ensemble(iteration=iteration, trained_in=0, type_map=("Cu",), members=members))


def selection(store, next_stages):
    found = Selection(
        iteration=1, f_lo=0.1, f_hi=0.2, stages=("cold",), cells=(), walks=(), chosen=0, rescued=0, is_rescue=False,
        passed_over={}, quiet_stages=(), next_stages=next_stages, is_converged=False, why="",
    )  # fmt: skip
    store.seal("select", 1, found)


def with_stages(campaign, **changes):
    stages = tuple(stage.model_copy(update=changes) for stage in campaign.explore.stages)
    return campaign.model_copy(update={"explore": campaign.explore.model_copy(update={"stages": stages})})


def test_the_first_pass_walks_the_first_stage_with_the_whole_ensemble(store, campaign):
    ensemble(store)
    tasks = explore.plan(campaign, store, 1)
    assert [task.id for task in tasks] == [f"cold-100K-s0-00{k}" for k in range(4)]
    assert {task.inputs for task in tasks} == {tuple(f"models/{k}.pb" for k in range(4))}


def test_stages_are_cumulative_and_every_cell_is_walked(store, campaign):
    ensemble(store, 1)
    selection(store, ("cold", "warm"))
    wide = with_stages(campaign, ensemble="npt-iso", temperatures_K=(100.0, 300.0), pressures_bar=(0.0, 1e4))
    wide = wide.model_copy(update={"explore": wide.explore.model_copy(update={"start_scales": (0.9, 1.1)})})
    tasks = explore.plan(wide, store, 2)
    assert len(tasks) == len({task.id for task in tasks}) == 2 * 2 * 2 * 4
    cells = {(t.parameters["stage"], t.parameters["temperature_K"], t.parameters["pressure_bar"]) for t in tasks}
    assert len(cells) == 8
    for cell in cells:
        of_cell = [
            t
            for t in tasks
            if (t.parameters["stage"], t.parameters["temperature_K"], t.parameters["pressure_bar"]) == cell
        ]
        assert sorted(t.parameters["scale"] for t in of_cell) == [0.9, 0.9, 1.1, 1.1], "starts are dealt evenly"
    assert explore.plan(wide, store, 2) == tasks, "pure"


def test_stages_that_were_renamed_begin_anew(store, campaign):
    selection(store, ("gone",))
    assert [stage.name for stage in explore.stages_of(campaign, store, 2)] == ["cold"]


# --- reducing a walk --------------------------------------------------------------------------------------------------

TASK = Task(id="cold-100K-s0-000", kind="walk", parameters={
    "stage": "cold", "temperature_K": 100.0, "pressure_bar": None, "system": 0, "scale": 1.0})  # fmt: skip


def reduced(campaign, deviation, *, cells=None, ended="finished", sel=(100,)):
    atoms = bulk("Cu", a=3.61, cubic=True)
    n = len(deviation)
    scale = np.ones(n) if cells is None else np.array(cells)
    walk = WalkOutput(
        step=5 * np.arange(n), max_devi_f=np.array(deviation, dtype=float), temperature_K=np.full(n, 100.0),
        potential_energy=np.zeros(n), pressure_bar=np.zeros(n), cell=atoms.cell.array[None] * scale[:, None, None],
        positions=atoms.positions[None] * scale[:, None, None], ended=ended,
        log_tail=() if ended == "finished" else ("ERROR",),
    )  # fmt: skip
    start = Frames.from_ase([atoms])
    frames = explore.frames_of(TASK, start, walk)
    return explore.reduce_walk(campaign, TASK, walk, frames, rng=np.random.default_rng(1), sel=sel)


def counts(kind):
    return [int((kind == k).sum()) for k in Kind]


def test_a_finished_walk(campaign):
    arrays, meta = reduced(campaign, [0.1] * 19 + [0.2, 0.4])
    assert counts(arrays["kind"]) == [19, 1, 1, 0]
    assert (meta["stage"], meta["ended"], meta["first_bad_step"]) == ("cold", "finished", None)
    kept = Frames.from_arrays(arrays, "kept/")
    assert kept.origin["step"].tolist() == [95, 100]
    assert kept.origin["max_devi_f"].tolist() == [0.2, 0.4]
    assert arrays["kept_kind"].tolist() == [Kind.CANDIDATE, Kind.FAILED]
    assert set(kept.origin["walk"]) == {TASK.id}
    assert not kept.is_labelled


def test_a_walk_that_broke_counts_what_it_never_reached_as_failed(campaign):
    arrays, meta = reduced(campaign, [0.1, 0.2], ended="lost atoms")
    assert counts(arrays["kind"]) == [1, 1, 19, 0]
    assert (meta["ended"], meta["first_bad_step"], meta["log_tail"]) == ("lost atoms", 10, ["ERROR"])


def test_a_walk_that_never_began(campaign):
    arrays, meta = reduced(campaign, [], ended="non-finite")
    assert counts(arrays["kind"]) == [0, 0, 21, 0]
    assert meta["first_bad_step"] == 0
    assert len(Frames.from_arrays(arrays, "kept/")) == 0


def test_a_walk_that_leaves_the_region_is_counted_apart_from_there_on(campaign):
    arrays, meta = reduced(campaign, [0.2] * 21, cells=[1.0] * 10 + [0.8] * 11)
    assert counts(arrays["kind"]) == [0, 10, 0, 11]
    assert meta["ended"] == "out of region: volume 0.51 of the start"
    assert meta["first_bad_step"] == 50
    assert len(Frames.from_arrays(arrays, "kept/")) == 10, "nothing past the guard is ever labelled"


def test_more_neighbours_than_sel_holds_leave_the_region(campaign):
    arrays, meta = reduced(campaign, [0.1] * 21, cells=[1.0] * 20 + [0.9], sel=(50,))
    assert meta["ended"].startswith("out of region: [")
    assert meta["ended"].endswith("neighbours within the cutoff, sel holds [50]")
    assert "54" in meta["ended"], "42 neighbours within 5 Å, 54 in the squeezed crystal"
    assert counts(arrays["kind"])[Kind.OUT_OF_REGION] == 1


def test_origins_of_a_walk(campaign):
    task = TASK.model_copy(update={"parameters": {**TASK.parameters, "scale": 1.05, "pressure_bar": 5.0}})
    walk = WalkOutput(
        np.array([0]),
        np.array([0.1]),
        *(np.zeros(1) for _ in range(3)),
        np.eye(3)[None],
        np.zeros((1, 1, 3)),
        "finished",
    )
    origin = explore.frames_of(task, Frames(("Cu",), np.eye(3)[None], np.zeros((1, 1, 3))), walk).origin[0]
    assert origin["strain"] == pytest.approx(0.05)
    assert (origin["pressure_bar"], origin["temperature_K"]) == (5.0, 100.0)


def test_starts_depend_on_the_generator_alone(campaign):
    one, two = (explore.start_of(campaign, TASK, np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(one.positions, two.positions)
    assert replace(one, origin=two.origin).structure_key(0, "f") == two.structure_key(0, "f")
    assert Counts().walked == 0


@pytest.mark.parametrize(("n_walks", "n_cells", "n_starts"), [(3, 3, 9), (2, 10, 20), (4, 5, 12), (1, 7, 7), (5, 2, 3)])
def test_a_pass_walks_every_start(store, campaign, n_walks, n_cells, n_starts):
    """Else a pass could be called quiet over a region that was never walked."""
    ensemble(store)
    temperatures = tuple(100.0 + 10.0 * k for k in range(n_cells))
    wide = with_stages(campaign, temperatures_K=temperatures, n_walks=n_walks)
    scales = tuple(0.9 + 0.01 * k for k in range(n_starts))
    wide = wide.model_copy(update={"explore": wide.explore.model_copy(update={"start_scales": scales})})
    tasks = explore.plan(wide, store, 1)
    assert {task.parameters["scale"] for task in tasks} == set(scales)
