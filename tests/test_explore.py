"""Explore: the plan covers the matrix, and a walk is reduced to classes, reasons and the frames worth keeping."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk

from activelearn import explore, geometry, select
from activelearn.config import Condition, Machine, Stage, Stop
from activelearn.engines.lammps import WalkOutput
from activelearn.engines.process import Slot
from activelearn.errors import StoreError
from activelearn.explore import Limits
from activelearn.frames import Frames, make_origin
from activelearn.passes import stages_of
from activelearn.records import CellCounts, Counts, Ensemble, Labelling, Member, Selection, Task
from activelearn.select import FrameClass
from activelearn.store import Store


def ensemble(store, iteration=0):
    members = tuple(Member(index=k, random_seed=k, model=f"models/{k}.pb", sha256="0", n_steps=1) for k in range(4))
    store.seal("train", iteration, Ensemble(iteration=iteration, trained_in=0, type_map=("Cu",), members=members))


def selection(store, next_stages, *, iteration=1, cells=(), **more):
    settings = {"stages": ("cold",), "quiet_stages": (), "is_converged": False, **more}
    found = Selection(
        iteration=iteration, f_lo=0.1, f_hi=0.2, cells=cells, walks=(), chosen=0, rescued=0, is_rescue=False,
        passed_over={}, next_stages=next_stages, why="", **settings,
    )  # fmt: skip
    store.seal("select", iteration, found)


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
    assert [stage.name for stage in stages_of(campaign, store, 2)] == ["cold"]


STAGES = [
    Stage(name=name, temperatures_K=(100.0,), n_walks=4, n_steps=100, every=5) for name in ("cold", "warm", "hot")
]


def staged(campaign, n, **changes):
    stages = tuple(stage.model_copy(update=changes) for stage in STAGES[:n])
    return campaign.model_copy(update={"explore": campaign.explore.model_copy(update={"stages": stages})})


def names(campaign, store, iteration):
    return [stage.name for stage in stages_of(campaign, store, iteration)]


QUIET = {"stages": ("cold", "warm"), "quiet_stages": ("cold", "warm")}


def test_a_stage_added_to_a_converged_campaign_is_walked_at_once(store, campaign):
    selection(store, ("cold", "warm"), **QUIET, is_converged=True)
    assert names(staged(campaign, 2), store, 2) == ["cold", "warm"]
    assert names(staged(campaign, 3), store, 2) == ["cold", "warm", "hot"]


def test_a_stage_added_to_a_campaign_whose_last_one_had_all_its_passes_is_walked_at_once(store, campaign):
    selection(store, ("cold", "warm"), stages=("cold", "warm"), is_bounded=True)
    assert names(staged(campaign, 3), store, 2) == ["cold", "warm", "hot"]


def test_a_stage_added_to_a_noisy_campaign_waits(store, campaign):
    selection(store, ("cold", "warm"), stages=("cold", "warm"), quiet_stages=("cold",))
    assert names(staged(campaign, 3), store, 2) == ["cold", "warm"]


def test_a_stage_that_joins_by_the_selection_brings_no_other_along(store, campaign):
    selection(store, ("cold", "warm"), quiet_stages=("cold",))
    assert names(staged(campaign, 3), store, 2) == ["cold", "warm"]


def test_stages_go_on_after_an_iteration_that_only_added_data(store, campaign):
    """Iteration 2 has no selection: what the last one said still holds."""
    selection(store, ("cold", "warm"), quiet_stages=("cold",))
    assert names(staged(campaign, 3), store, 3) == ["cold", "warm"]


def test_walks_know_their_cell_of_the_matrix_and_are_named_by_it(store, campaign):
    ensemble(store)
    changes = {"temperatures_K": (300.0,), "ramps_K": ((10.0, 2000.0),), "n_walks": 1}
    bent = staged(campaign, 1, **changes, deformations=("isotropic", "shear-xy"), strains=(0.5, -0.5))
    tasks = explore.plan(bent, store, 1)
    assert [task.id for task in tasks] == [
        f"cold-{heat}K-{mode}{sign}0.5-s0-000"
        for heat in ("300", "10-2000")
        for mode in ("isotropic", "shear-xy")
        for sign in "+-"
    ]
    assert [select.cell_of(task)[1] for task in tasks] == bent.explore.stages[0].conditions
    again = [Task.model_validate_json(task.model_dump_json()) for task in tasks]
    assert [select.cell_of(task)[1] for task in again] == bent.explore.stages[0].conditions, "through plan.json"
    pressed = staged(campaign, 1, ensemble="npt-tri", pressures_bar=(0.0, 5e4), ramps_K=((2000.0, 10.0),))
    ids = [task.id for task in explore.plan(pressed, store, 1)]
    assert ids[::4] == [f"cold-{heat}K-{p}bar-s0-000" for heat in ("100", "2000-10") for p in ("0", "50000")]


# --- walks that share a process ---------------------------------------------------------------------------------------


def batched(campaign, folder, n_slots, *stages, train=None):
    """Return the stages and numbers of the walks of each batch, such as ``a012``."""
    explored = campaign.explore.model_copy(update={"stages": tuple(stages)})
    changed = campaign.model_copy(update={"explore": explored, "train": train or campaign.train})
    store = Store.create(folder, changed)
    store.open_iteration(0, changed)
    tasks = [
        Task(id=f"{stage.name}{k:x}", kind="walk", parameters={"stage": stage.name}, inputs=("0.pb", "1.pb"))
        for stage in stages
        for k in range(stage.n_walks)
    ]
    batches = explore.batches_of(tasks, store, 0, n_slots)
    assert sorted(task.id for batch in batches for task in batch) == [task.id for task in tasks]
    return [
        "".join(sorted({task.id[0] for task in batch})) + "".join(task.id[1:] for task in batch) for batch in batches
    ]


def walks_of(name, n_walks, n_steps, every=5, **more):
    return Stage(name=name, temperatures_K=(300.0,), n_walks=n_walks, n_steps=n_steps, every=every, **more)


@pytest.mark.parametrize(
    ("n_slots", "batches"),
    [
        (1, ["a012345678"]),
        (2, ["a01234", "a5678"]),
        (3, ["a012", "a345", "a678"]),
        (8, ["a01", "a2", "a3", "a4", "a5", "a6", "a7", "a8"]),
        (64, [f"a{k}" for k in range(9)]),
    ],
)
def test_each_slot_walks_as_many_steps_in_one_process(campaign, tmp_path, n_slots, batches):
    assert batched(campaign, tmp_path / "c", n_slots, walks_of("a", 9, 200)) == batches


def test_a_process_is_left_after_so_many_steps_and_a_long_walk_has_one_of_its_own(campaign, tmp_path):
    found = batched(campaign, tmp_path / "short", 1, walks_of("a", 16, 400))
    assert [len(batch) - 1 for batch in found] == [4, 4, 4, 4], "2,000 steps at the most, evenly"
    assert batched(campaign, tmp_path / "long", 1, walks_of("a", 3, 2000)) == ["a0", "a1", "a2"]
    assert batched(campaign, tmp_path / "no two", 1, walks_of("a", 4, 1500)) == ["a0", "a1", "a2", "a3"]


def test_walks_that_write_at_the_same_steps_share_a_process(campaign, tmp_path):
    stages = (
        walks_of("a", 2, 100),
        walks_of("b", 2, 100, ensemble="npt-iso", pressures_bar=(0.0,)),
        walks_of("c", 2, 100, 10),
    )
    assert batched(campaign, tmp_path / "c", 1, *stages) == ["ab0101", "c01"]


def test_lines_of_the_users_own_and_other_models_have_a_process_for_each_walk(campaign, tmp_path):
    own = walks_of("a", 2, 100, lammps="fix extra all momentum 10 linear 1 1 1")
    assert batched(campaign, tmp_path / "c", 1, own, walks_of("b", 2, 100)) == ["a0", "a1", "b01"]


def test_a_batch_that_cannot_be_written_leaves_nothing_in_scratch(campaign, store):
    stage = campaign.explore.stages[0]
    what = {"stage": stage.name, **stage.conditions[0]._asdict(), "system": 0, "scale": 1.0}
    models = ((), ("models/gone.pb",))
    tasks = [Task(id=f"t{k}", kind="walk", parameters=what, inputs=names) for k, names in enumerate(models)]
    with pytest.raises(StoreError, match=r"gone\.pb"):
        explore.run_batch(tasks, store, 1, Slot(Machine(), store.logs()))
    assert [path for path in (store.folder / "scratch").iterdir() if path.is_dir()] == []


# --- cells that are quiet ---------------------------------------------------------------------------------------------

WALKED = Counts(walked=84, accurate=84, walks=4)
NOISY = Counts(walked=84, accurate=80, candidate=4, walks=4)
#: Four cells, four walks of 21 frames each; a stage is quiet over eight walks and 100 frames at the least.
TEMPERATURES = (100.0, 200.0, 300.0, 400.0)
STOP = Stop(min_walks=8, min_frames=100, candidate_share=0.02)


def passes(store, *rows):
    """Seal one selection per row: the counts of its cells by temperature."""
    for i, row in enumerate(rows, 1):
        cells = [CellCounts(stage="cold", temperature_K=t, counts=c) for t, c in zip(TEMPERATURES, row, strict=True)]
        selection(store, ("cold",), iteration=i, cells=tuple(cells))


def walks(store, campaign, iteration, *, stop=STOP, quiet_passes=2, scales=(1.0,), **changes):
    """Return the walks per cell of the plan."""
    wide = staged(campaign, 1, temperatures_K=TEMPERATURES, **changes)
    look = wide.explore.model_copy(update={"quiet_passes": quiet_passes, "start_scales": scales})
    wide = wide.model_copy(update={"explore": look, "stop": stop})
    store.seal("train", iteration - 1, Ensemble(iteration=iteration - 1, trained_in=0, type_map=("Cu",), members=()))
    plan = explore.plan(wide, store, iteration)
    assert len({task.id for task in plan}) == len(plan)
    assert {task.parameters["scale"] for task in plan} == set(scales), "every start is walked"
    return [sum(task.parameters["temperature_K"] == t for task in plan) for t in TEMPERATURES]


def test_a_cell_quiet_in_two_passes_gets_half_the_walks(store, campaign):
    passes(store, (WALKED, WALKED, NOISY, NOISY), (WALKED, NOISY, WALKED, NOISY))
    assert walks(store, campaign, 3) == [2, 4, 4, 4]


def test_one_quiet_pass_is_not_enough_and_null_means_never(store, campaign):
    passes(store, (WALKED,) * 4)
    assert walks(store, campaign, 2) == [4, 4, 4, 4]
    passes(store, (WALKED,) * 4, (WALKED,) * 4)
    assert walks(store, campaign, 3, quiet_passes=None) == [4, 4, 4, 4]


def test_a_cell_that_is_noisy_again_is_walked_in_full(store, campaign):
    passes(store, (WALKED,) * 4, (WALKED,) * 4, (NOISY, WALKED, WALKED, WALKED))
    assert walks(store, campaign, 3)[0] == 2
    assert walks(store, campaign, 4)[0] == 4


@pytest.mark.parametrize(
    "counts",
    [Counts(walked=84, out_of_region=84, walks=4), Counts(walked=63, accurate=63, walks=3, refused_walks=1), Counts()],
)
def test_a_cell_that_was_not_sampled_is_not_quiet(store, campaign, counts):
    passes(store, *[(counts, NOISY, NOISY, NOISY)] * 2)
    assert walks(store, campaign, 3) == [4, 4, 4, 4]


@pytest.mark.parametrize(
    ("stop", "n_starts", "least"),
    [
        ({"min_walks": 13}, 1, 13),
        ({"min_frames": 21 * 11 - 3}, 1, 11),
        ({"min_walks": 1, "min_frames": 1}, 12, 12),
        ({"min_walks": 1, "min_frames": 1}, 1, 8),
        ({"min_walks": 16}, 1, 16),
    ],
)
def test_quiet_cells_never_leave_a_stage_too_small_to_be_called_quiet(store, campaign, stop, n_starts, least):
    passes(store, (WALKED,) * 4, (WALKED,) * 4)
    scales = tuple(1.0 + 0.01 * k for k in range(n_starts))
    found = walks(store, campaign, 3, stop=STOP.model_copy(update=stop), scales=scales)
    assert sum(found) == least
    assert max(found) <= 4
    assert min(found) >= 2, "half of four, never less"


# --- starts from the data set -----------------------------------------------------------------------------------------

FROM_DATA = Task(id="melt-100K-data-000", kind="walk", parameters={
    "stage": "melt", **Condition(1400.0)._asdict(), "system": None, "scale": 1.0})  # fmt: skip


def data_set(store, *iterations):
    """Seal the training frames of some iterations."""
    total = 0
    for i, parts in enumerate(iterations):
        total += sum(len(part) for part in parts)
        store.seal_frames(store.dataset_file(i), parts)
        store.seal("label", i, Labelling(
            iteration=i, labelled=0, held_out=0, refused={}, dataset_frames=total, dataset_sha256="",
            labels_computed=0, labels_adopted=0, labels_reused=0,
        ))  # fmt: skip


def crystals(n, a=3.61, *, repeat=(2, 2, 2), iteration=0):
    cells = [bulk("Cu", a=a + 0.001 * k, cubic=True) * repeat for k in range(n)]
    return replace(Frames.from_ase(cells), origin=make_origin(n, iteration=iteration, step=range(n)))


def drawn(campaign, store, iteration, n):
    return [explore.start_of(campaign, store, iteration, FROM_DATA, np.random.default_rng(seed)) for seed in range(n)]


def test_a_start_from_the_data_set_is_any_of_its_frames_alike(store, campaign):
    """Nine frames in iteration 0 (in two parts), three in 1: each is drawn once in twelve times."""
    data_set(store, [crystals(2), crystals(7, a=3.9)], [crystals(3, a=4.2, iteration=1)], [crystals(50, a=5.0)])
    found = drawn(campaign, store, 2, 240)
    lengths = np.array([frame.cell[0, 0, 0] for frame in found])
    values, counts = np.unique(lengths.round(6), return_counts=True)
    assert len(values) == 12, "and none of iteration 2, which is not there yet when a walk of iteration 2 begins"
    assert ((counts - 20) ** 2 / 20).sum() < 31.3, "chi squared of 11 degrees of freedom: one in a thousand is above"
    assert not any(frame.is_labelled for frame in found)
    again = drawn(campaign, store, 2, 20)
    assert [frame.cell.tobytes() for frame in again] == [frame.cell.tobytes() for frame in found[:20]]


def test_no_walk_starts_from_isolated_atoms_dimers_or_low_cells(store, campaign):
    box = 15.0 * np.eye(3)[None]
    middle = np.full((1, 2, 3), 7.5)
    dimers = Frames(("Cu", "Cu"), np.repeat(box, 5, axis=0), np.repeat(middle, 5, axis=0))
    atoms = Frames(("Cu",), np.repeat(box, 5, axis=0), np.repeat(middle[:, :1], 5, axis=0))
    low = crystals(5, repeat=(1, 2, 2))
    cluster = Frames(("Cu",) * 3, box, np.zeros((1, 3, 3)), pbc=(False, False, False))
    data_set(store, [dimers, atoms, low, cluster, crystals(2)])
    assert {frame.formula for frame in drawn(campaign, store, 1, 30)} == {"Cu32"}


def test_no_walk_starts_from_a_frame_that_had_failed(store, campaign):
    """Rescued frames teach what a hole is; begun there, walks would be loud for what no better model ever visits."""
    f_hi = campaign.select.f_hi
    rescued = replace(crystals(6), origin=make_origin(6, max_devi_f=[np.nan, 0.2, f_hi - 0.01, f_hi, 0.9, np.inf]))
    data_set(store, [rescued])
    lengths = {round(frame.cell[0, 0, 0], 3) for frame in drawn(campaign, store, 1, 60)}
    assert lengths == {round(rescued.cell[k, 0, 0], 3) for k in range(3)}


def test_a_data_set_without_a_frame_to_start_from_is_said_so(store, campaign):
    data_set(store, [crystals(3, repeat=(1, 1, 1))])
    with pytest.raises(StoreError, match="no frame of the data set can be started from"):
        drawn(campaign, store, 1, 1)


def test_a_left_handed_frame_of_the_data_set_starts_right_handed(store, campaign):
    """Imported data have what they have; LAMMPS takes right-handed cells only."""
    left = crystals(1)
    left = replace(left, cell=left.cell[:, [1, 0, 2]] * np.array([[[1.0, 1.01, 1.02]]]))
    assert np.linalg.det(left.cell[0]) < 0.0
    data_set(store, [left])
    (start,) = drawn(campaign, store, 1, 1)
    assert np.linalg.det(start.cell[0]) > 0.0
    assert np.array_equal(start.positions, left.positions)
    assert sorted(map(tuple, start.cell[0])) == sorted(map(tuple, left.cell[0]))


# --- driven cells -----------------------------------------------------------------------------------------------------

CUBE = 7.22 * np.eye(3)


def drive(campaign, *, mode="isotropic", strain=0.5, n_steps=100, **guards):
    stage = Stage(name="s", temperatures_K=(300,), deformations=(mode,), strains=(strain,), n_steps=n_steps, every=5)
    loose = campaign.select.guards.model_copy(update=guards)
    bent = campaign.model_copy(update={"select": campaign.select.model_copy(update={"guards": loose})})
    (condition,) = stage.conditions
    return explore.drive_of(bent, stage, condition, CUBE, 7)


def test_a_cell_that_is_not_deformed_is_not_driven(campaign):
    found = explore.drive_of(campaign, STAGES[0], Condition(300.0), CUBE, 7)
    assert (found.final_cell, found.last_step, found.velocity_seed) == (None, None, 7)


@pytest.mark.parametrize("strain", [0.5, -0.5])
def test_the_final_cell_is_that_of_the_whole_strain(campaign, strain):
    assert drive(campaign, strain=strain).final_cell == pytest.approx((1.0 + strain) * CUBE)


@pytest.mark.parametrize(
    ("settings", "last_step"),
    [
        ({}, 40),  # (1 + 0.5 p)^3 > 1.6 from p = 0.339 on: step 35 is past it, and one frame further is walked
        ({"strain": -0.5}, 40),  # (1 - 0.5 p)^3 < 0.6 from p = 0.313
        ({"volume_ratio": (0.1, 4.0)}, None),
        ({"mode": "shear-xy"}, None),  # 63 degrees at the end
        ({"mode": "shear-xy", "strain": 2.0, "min_angle_deg": 45.0}, 60),  # tilt 1.0 at p = 0.5 is 45 degrees still
        ({"volume_ratio": (0.1, 3.374)}, 100),  # 3.375 at the very end
        ({"volume_ratio": (0.1, 3.0)}, 95),
        ({"volume_ratio": (0.1, 3.2)}, 100),
        ({"volume_ratio": (0.1, 3.2), "n_steps": 99}, 95),  # the last frame, not the last step
    ],
)
def test_a_driven_walk_ends_one_frame_past_the_guards(campaign, settings, last_step):
    assert drive(campaign, **settings).last_step == last_step


def test_a_walk_that_was_ended_at_its_guard_counts_what_was_never_walked_as_out_of_region(campaign):
    """Eight of 21 frames were walked, the last of them is past the guard."""
    arrays, meta = reduced(campaign, [0.2] * 9, cells=[*np.linspace(1.0, 1.16, 7), 1.18, 1.2])
    assert counts(arrays["kind"]) == [0, 7, 0, 14]
    assert meta["ended"].startswith("out of region: volume 1.64")
    assert meta["first_bad_step"] == 35
    assert geometry.first_outside_box(CUBE[None], campaign.select.guards) is None


# --- reducing a walk --------------------------------------------------------------------------------------------------

TASK = Task(id="cold-100K-s0-000", kind="walk", parameters={
    "stage": "cold", **Condition(100.0)._asdict(), "system": 0, "scale": 1.0})  # fmt: skip


def walk_of(deviation, *, cells=None, ended="finished", every=5):
    """A walk of four copper atoms that only breathes; forces tell the frame (x component = its number)."""
    atoms = bulk("Cu", a=3.61, cubic=True)
    n = len(deviation)
    scale = np.ones(n) if cells is None else np.array(cells)
    walk = WalkOutput(
        step=every * np.arange(n), max_devi_f=np.array(deviation, dtype=float), temperature_K=np.full(n, 100.0),
        potential_energy=np.zeros(n), pressure_bar=np.zeros(n), cell=atoms.cell.array[None] * scale[:, None, None],
        positions=atoms.positions[None] * scale[:, None, None],
        forces=np.arange(n)[:, None, None] * np.array([1.0, 0.0, 0.0]) * np.ones((1, 4, 1)), ended=ended,
        log_tail=() if ended == "finished" else ("ERROR",),
    )  # fmt: skip
    return Frames.from_ase([atoms]), walk


def reduced(campaign, deviation, *, sel=(100,), **more):
    start, walk = walk_of(deviation, **more)
    frames = explore.frames_of(campaign.stage("cold"), TASK, start, walk)
    held = (geometry.Capacity(campaign.cutoff_A, tuple(campaign.type_map), tuple(sel)),)
    limits = Limits((campaign.select.f_lo, campaign.select.f_hi), held)
    return explore.reduce_walk(campaign, TASK, walk, frames, limits, np.random.default_rng(1))


def counts(kind):
    return [int((kind == k).sum()) for k in FrameClass]


def test_a_finished_walk(campaign):
    arrays, meta = reduced(campaign, [0.1] * 19 + [0.2, 0.4])
    assert counts(arrays["kind"]) == [19, 1, 1, 0]
    assert (meta["stage"], meta["ended"], meta["first_bad_step"]) == ("cold", "finished", None)
    kept = Frames.from_arrays(arrays, "kept/")
    assert kept.origin["step"].tolist() == [95, 100]
    assert kept.origin["max_devi_f"].tolist() == [0.2, 0.4]
    assert arrays["kept_kind"].tolist() == [FrameClass.CANDIDATE, FrameClass.FAILED]
    assert set(kept.origin["walk"]) == {TASK.id}
    assert arrays["kept_model_forces"][:, 0, 0].tolist() == [19.0, 20.0], "of the same frames"
    assert not kept.is_labelled


def test_a_stage_classes_by_its_own_window(campaign):
    own = campaign.stage("cold").model_copy(update={"f_lo": 0.25})
    stages = tuple(own if stage.name == "cold" else stage for stage in campaign.explore.stages)
    narrow = campaign.model_copy(update={"explore": campaign.explore.model_copy(update={"stages": stages})})
    deviation = [0.1] * 18 + [0.2, 0.3, 0.4]
    assert counts(reduced(campaign, deviation)[0]["kind"]) == [18, 2, 1, 0]
    assert counts(reduced(narrow, deviation)[0]["kind"]) == [19, 1, 1, 0]


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
    assert counts(arrays["kind"])[FrameClass.OUT_OF_REGION] == 1


def origin_of(stage, condition, *, scale=1.0, n=21):
    task = Task(id="w", kind="walk", parameters={"stage": stage.name, **condition._asdict(), "scale": scale})
    return explore.frames_of(stage, task, *walk_of([0.1] * n, every=stage.every)).origin


def test_origins_of_a_walk():
    stage = Stage(name="s", ensemble="npt-iso", temperatures_K=(100,), pressures_bar=(5.0,), n_steps=100, every=5)
    origin = origin_of(stage, Condition(100.0, pressure_bar=5.0), scale=1.05)
    assert origin["strain"] == pytest.approx(0.05)
    assert set(zip(origin["pressure_bar"].tolist(), origin["temperature_K"].tolist(), strict=True)) == {(5.0, 100.0)}


@pytest.mark.parametrize(("begin", "end"), [(10.0, 2000.0), (2000.0, 10.0)])
def test_a_frame_of_a_ramp_says_the_temperature_that_the_thermostat_had(begin, end):
    stage = Stage(name="s", ramps_K=((begin, end),), n_steps=100, every=5)
    (condition,) = stage.conditions
    found = origin_of(stage, condition)["temperature_K"]
    assert found == pytest.approx(np.linspace(begin, end, 21))
    assert origin_of(stage, condition, n=5)["temperature_K"] == pytest.approx(found[:5]), "a walk that broke, too"


def test_a_frame_of_a_deformation_says_its_own_strain():
    stage = Stage(name="s", temperatures_K=(300,), deformations=("shear-xy",), strains=(-0.5,), n_steps=103, every=5)
    (condition,) = stage.conditions
    assert origin_of(stage, condition)["strain"] == pytest.approx(-0.5 * np.arange(21) * 5 / 103)


def test_starts_depend_on_the_generator_alone(store, campaign):
    one, two = (explore.start_of(campaign, store, 1, TASK, np.random.default_rng(4)) for _ in range(2))
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
