"""How many labels the pickers `random` and `diverse` need for the same error: one pool, one reference, paired seeds.

Written down before the first full run, and not changed by what came out:

* Question. The P99 of the force error (length of the error vector of each atom) on held-out reference trajectories,
  against the number n of picked labels. How many does `diverse` need for the error that `random` has at n = 160?
* System and reference. Crystalline Na3PS4, 32 atoms, linear scales 0.97, 1.00 and 1.03; SevenNet-0.
* Pool. What the loop meets after its initial data: four quick nets that learnt 42 frames of reference MD at 300 K
  drive 90 NVT walks (0.2 ps) at 300-900 K; the loop's own selection (window 0.15-0.35 eV/Å, its rescue) takes up to
  400 frames, all of which are labelled. The pool is the same for all pickers and seeds.
* Held out. Twelve reference MD trajectories (three scales; 300, 500, 700 and 900 K) of starts of their own: none of
  their frames is in the pool. The first 0.1 ps of each is left out.
* Picks. In rounds of 20 as the loop makes them: what was picked before, and the initial data, are anchors. Pickers with
  the settings they are shipped with: `diverse` draws a quarter at random. n = 20, 40, 80, 160 are nested.
* Training. One quick net (preset, 1500 steps), from scratch, on initial and picked frames; for one seed and n the
  weights and batches of both pickers start from the same random numbers. n = 0 shows what is there to be learnt.
* Answer. Mean and standard error over the seeds; the P99 is linear in log n between the sizes, the first crossing
  counts, for `random` by the same rule; 95 % intervals from a paired bootstrap over the seeds (2000 resamples).

What it cannot say: the pool is fixed, while in the loop better labels also change what is met next; one crystal is no
glass; the seeds vary picks and nets, not the pool.

Run with ``pytest -m performance -s -k label_efficiency``. Labels, walks and trainings are kept in the folder that the
variable ACTIVELEARN_CACHE names, if it is set: what stands is not computed again.
"""

import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from activelearn import descriptor, explore, initial, label, loop, prediction, prepare, select, train
from activelearn.config import Campaign, Machine, Select, parse_campaign
from activelearn.engines import process
from activelearn.engines.trainers.deepmd import inputs
from activelearn.frames import Frames
from activelearn.records import Task
from activelearn.select.picking import Pool, pick
from activelearn.store import Lease, Store
from activelearn.tasks import Station, carry_out, gather
from activelearn.writing import write_deepmd

PICKERS = ("random", "diverse")
#: Frames per round; every size is a multiple of it.
ROUND = 20
#: What comes before this step of a held-out trajectory is not yet thermal (25 x 4 fs).
EQUILIBRATION_STEPS = 25
MACHINE = Machine(name="test", slots=2, min_free_disk_GB=0.0)
CAMPAIGN = {
    "name": "label-efficiency",
    "random_seed": 2024,
    "type_map": ["Na", "P", "S"],
    "initial": {
        "systems": [{"seed": "Na3PS4_P-421c", "supercell": [2, 1, 1]}],
        "scales": [0.97, 1.0, 1.03],
        "perturb": {"positions_A": 0.05, "cell_fraction": 0.0},
        "copies": 2,
        "md": {"n_steps": 30, "every": 5, "timestep_fs": 4.0, "temperatures_K": [300], "friction_per_ps": 20.0},
        "held_out_fraction": 0.0,
    },
    "explore": {
        "start_scales": [0.97, 1.0, 1.03],
        "stages": [
            {"name": "nvt", "temperatures_K": [300, 450, 600, 750, 900], "n_steps": 100, "every": 5, "timestep_fs": 2.0}
        ],
    },
    "select": {"f_lo": 0.15, "f_hi": 0.35, "max_frames": 400},
    "label": {"preset": "sevennet_0"},
    "train": {"preset": "quick"},
}


@dataclass(frozen=True)
class Design:
    """How large the experiment is; the defaults are those of the question."""

    n_seeds: int = 6
    sizes: tuple[int, ...] = (20, 40, 80, 160)
    n_steps: int = 1500
    walks_per_temperature: int = 18
    held_out_K: tuple[int, ...] = (300, 500, 700, 900)
    held_out_steps: int = 75

    def pool_campaign(self) -> Campaign:
        """Return the campaign whose first pass makes the pool."""
        data = json.loads(json.dumps(CAMPAIGN))
        data["explore"]["stages"][0]["n_walks"] = self.walks_per_temperature
        data["train"]["n_steps"] = self.n_steps
        return parse_campaign(data, where="label efficiency")

    def held_out_campaign(self) -> Campaign:
        """Return the campaign whose initial data are held out: other random numbers, longer and hotter MD."""
        data = json.loads(json.dumps(CAMPAIGN)) | {"random_seed": 4048}
        data["explore"]["stages"][0]["n_walks"] = 1
        md = {"temperatures_K": list(self.held_out_K), "n_steps": self.held_out_steps}
        data["initial"] |= {"copies": 1, "md": data["initial"]["md"] | md}
        return parse_campaign(data, where="label efficiency, held out")


# --- pool and held-out frames -----------------------------------------------------------------------------------------


def carried_out(folder: Path, campaign: Campaign, *iterations: tuple[Station, ...]) -> Store:
    """Carry out the stations of each iteration; the folder is named after the campaign, and what stands is kept."""
    store = Store.create(folder / f"{campaign.name}-{campaign.sha256[:12]}", campaign)
    with Lease(store.folder):
        for iteration, stations in enumerate(iterations):
            loop.CampaignPhase(iteration, stations, store).begin(MACHINE)
            for station in stations:
                carry_out(station, store, iteration, MACHINE)
                gather(station, store, iteration, MACHINE)
    return store


def prepared(folder: Path, design: Design) -> Store:
    """Return the folder of the pool (data set of iteration 1), beside it the held-out frames."""
    store = carried_out(folder, design.pool_campaign(), loop.FIRST, (explore.STATION, select.STATION, label.STATION))
    if not store.held_out_file(1).is_file():
        apart = carried_out(folder, design.held_out_campaign(), (prepare.STATION, initial.STATION))
        trajectories = [
            Frames.from_arrays(apart.read_product("initial", 0, task.id)[0]) for task in apart.plan("initial", 0).tasks
        ]
        store.seal_frames(store.held_out_file(1), [t[t.origin["step"] >= EQUILIBRATION_STEPS] for t in trajectories])
    return store


def pool_frames(store: Store) -> Frames:
    """Return the labelled pool."""
    return Frames.concatenate(store.frames(store.dataset_file(1)))


# --- picks and trainings ----------------------------------------------------------------------------------------------


def growing_picks(pool: Pool, picker: str, n: int, rng: np.random.Generator) -> list[int]:
    """Return `n` frames of the pool, round after round; each round keeps away from all before it."""
    settings = Select(pick=picker)
    chosen: list[int] = []
    while len(chosen) < n:
        left = np.setdiff1d(np.arange(len(pool)), chosen)
        anchors = np.concatenate([pool.anchors, pool.descriptor[chosen]])
        rest = Pool(pool.walk[left], pool.cell[left], pool.max_devi_f[left], pool.descriptor[left], anchors)
        taken, _ = pick(rest, settings, ROUND, rng)
        assert len(taken) == ROUND, "the pool is too small, or too much of it is near duplicates"
        chosen += left[taken].tolist()
    return chosen


def planned(store: Store, design: Design) -> list[Task]:
    """One training per seed, picker and size, and one per seed without picks."""
    campaign, frames = store.campaign(1), pool_frames(store)
    anchors = [descriptor.of_frames(part, campaign.type_map) for part in store.dataset(0)]
    walk = np.unique(frames.origin["walk"], return_inverse=True)[1]
    pool = Pool(
        walk=walk,
        cell=np.zeros_like(walk),  # no cap looks at it
        max_devi_f=frames.origin["max_devi_f"],
        descriptor=descriptor.of_frames(frames, campaign.type_map),
        anchors=np.concatenate(anchors),
    )
    tasks = []
    for seed in range(design.n_seeds):
        for picker in PICKERS:
            picks = growing_picks(pool, picker, max(design.sizes), store.rng(1, "pick", f"{picker}-{seed}"))
            for n in (0, *design.sizes) if picker == PICKERS[0] else design.sizes:
                rng = store.rng(1, "grid", f"{seed}-{n}")  # the same for both pickers
                parameters = {
                    "n_steps": design.n_steps,
                    "random_seeds": rng.integers(1, 2**31 - 1, size=3).tolist(),
                    "warm": False,
                    "picks": picks[:n],
                }
                tasks.append(Task(id=name_of(seed, picker, n), kind="train", parameters=parameters))
    return tasks


def name_of(seed: int, picker: str, n: int) -> str:
    """Return the name of a training."""
    return f"{seed}-{picker if n else 'none'}-{n}"


def grid_station(tasks: list[Task]) -> Station:
    """Return the trainings as a station, named after all that they depend on: other picks are another station."""
    name = "grid-" + hashlib.sha256(json.dumps([task.model_dump() for task in tasks]).encode()).hexdigest()[:12]

    def run(task: Task, store: Store, iteration: int, slot: process.Slot) -> None:
        folder = store.scratch(MACHINE, task.id)
        found, attempts = trained(task, store, folder, slot)
        meta = {"force_p99": found.force_p99, "force_rmse": found.force_rmse, "attempts": attempts}
        store.publish_product(name, iteration, task.id, {}, meta)
        store.drop_scratch(folder, MACHINE)

    return Station(name, lambda *_: tasks, run, lambda *_: None)


def trained(task: Task, store: Store, folder: Path, slot: process.Slot):
    """Train on initial and picked frames as the loop does; return the held-out errors and the number of trainings."""
    campaign, held_out = store.campaign(1), store.held_out(1)
    parts = [*store.dataset(0), pool_frames(store)[np.array(task.parameters["picks"], dtype=np.intp)]]
    systems = [str(path) for path in write_deepmd(parts, folder / "data", campaign.type_map)]
    bound = inputs.loss_bound(campaign.train, parts)
    for attempt, training in enumerate(train.attempts(campaign, task), 1):
        place = folder / f"attempt-{attempt}"
        place.mkdir()
        setting = inputs.training_input(
            campaign.train, training, type_map=campaign.type_map, sel=store.sel(), systems=systems
        )
        frozen = training.train_member(place, setting, slot, largest_loss=bound)
        if frozen is not None:
            return prediction.errors(training.evaluate(place, frozen, held_out, slot), held_out), attempt
    raise AssertionError(f"{task.id} diverged at every learning rate")


@dataclass(frozen=True)
class Outcome:
    """What came out: arrays (n_seeds,) without picks and (n_seeds, n_sizes) by picker, eV/Å."""

    design: Design
    before: dict[str, np.ndarray]
    after: dict[str, dict[str, np.ndarray]]
    retrained: int
    n_pool: int
    n_held_out: int


def label_efficiency(folder: Path, design: Design) -> Outcome:
    """Carry the experiment out, or read what stands of it."""
    process.allow_engines()
    try:
        store = prepared(folder, design)
        station = grid_station(planned(store, design))
        with Lease(store.folder):
            carry_out(station, store, 1, MACHINE)
    finally:
        process.close_sessions()

    def meta(seed: int, picker: str, n: int) -> dict:
        return store.read_product(station.name, 1, name_of(seed, picker, n))[1]

    seeds, metrics = range(design.n_seeds), ("force_p99", "force_rmse")
    return Outcome(
        design=design,
        before={m: np.array([meta(s, "none", 0)[m] for s in seeds]) for m in metrics},
        after={
            m: {p: np.array([[meta(s, p, n)[m] for n in design.sizes] for s in seeds]) for p in PICKERS}
            for m in metrics
        },
        retrained=sum(store.read_product(station.name, 1, t.id)[1]["attempts"] > 1 for t in station.plan()),
        n_pool=len(pool_frames(store)),
        n_held_out=sum(len(part) for part in store.held_out(1)),
    )


# --- the answer -------------------------------------------------------------------------------------------------------


def labels_needed(sizes, errors, target: float) -> float:
    """Return where a curve, linear in log n between the sizes, first comes down to `target`; inf if it never does.

    The smallest size if it is there already: then this is an upper bound.
    """
    if errors[0] <= target:
        return float(sizes[0])
    for k in range(1, len(sizes)):
        if errors[k] <= target:
            share = (errors[k - 1] - target) / (errors[k - 1] - errors[k])
            return float(sizes[k - 1] * (sizes[k] / sizes[k - 1]) ** share)
    return math.inf


def resampled(n_seeds: int, n: int = 2000) -> np.ndarray:
    """Return (n, n_seeds) seeds drawn with replacement: the same rows for both pickers, for they are paired."""
    return np.random.default_rng(1).integers(n_seeds, size=(n, n_seeds))


def interval(values) -> tuple[float, float]:
    """Return the central 95 %; values may be infinite."""
    low, high = np.quantile(np.array(values), (0.025, 0.975), method="inverted_cdf")
    return float(low), float(high)


def answer(outcome: Outcome, metric: str) -> dict[str, tuple[float, float, float]]:
    """Return value and 95 % interval of the labels needed by each picker for the last error of `random`."""
    curves, sizes = outcome.after[metric], outcome.design.sizes

    def needed(seeds) -> list[float]:
        mean = {p: curves[p][seeds].mean(axis=0) for p in PICKERS}
        return [labels_needed(sizes, mean[p], mean["random"][-1]) for p in PICKERS]

    drawn = np.array([needed(rows) for rows in resampled(outcome.design.n_seeds)])
    best = needed(np.arange(outcome.design.n_seeds))
    return {p: (best[i], *interval(drawn[:, i])) for i, p in enumerate(PICKERS)}


def table(outcome: Outcome, metric: str) -> str:
    """Return the table of one metric, meV/Å."""
    design, curves = outcome.design, {p: 1000 * a for p, a in outcome.after[metric].items()}
    root = math.sqrt(design.n_seeds)
    before = 1000 * outcome.before[metric]
    lines = [
        f"{metric} on held-out trajectories, meV/Å (mean ± standard error, {design.n_seeds} seeds)",
        "| labels picked | random | diverse | diverse - random, paired [95 %] |",
        "|---|---|---|---|",
        f"| 0 | {before.mean():.0f} ± {before.std(ddof=1) / root:.0f} | | |",
    ]
    for k, n in enumerate(design.sizes):
        cells = [f"{curves[p][:, k].mean():.0f} ± {curves[p][:, k].std(ddof=1) / root:.0f}" for p in PICKERS]
        gap = curves["diverse"][:, k] - curves["random"][:, k]
        low, high = interval(gap[resampled(design.n_seeds)].mean(axis=1))
        lines.append(f"| {n} | {cells[0]} | {cells[1]} | {gap.mean():+.0f} [{low:+.0f}, {high:+.0f}] |")
    for picker, found in answer(outcome, metric).items():
        needed, fewest, most = (f"{'<= ' if n == design.sizes[0] else ''}{n:.0f}" for n in found)
        lines.append(f"{picker}: {needed} labels [{fewest}, {most}] for what random has at {design.sizes[-1]}")
    return "\n".join(lines)


@pytest.mark.performance
@pytest.mark.timeout(3600)
def test_label_efficiency_of_random_and_diverse_picks(tmp_path):
    """The table is the product: nothing is asserted on who wins."""
    outcome = label_efficiency(Path(os.environ.get("ACTIVELEARN_CACHE") or tmp_path), Design())
    print(f"\npool of {outcome.n_pool} frames, {outcome.n_held_out} held out, {outcome.retrained} retrained")
    for metric in outcome.after:
        print(table(outcome, metric))
    assert outcome.n_pool >= 300
    for picker in PICKERS:
        p99 = outcome.after["force_p99"][picker][:, -1]
        assert p99.mean() < outcome.before["force_p99"].mean(), f"{picker} picks teach something"


# --- the arithmetic of the answer -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "target", "needed"),
    [
        ([8.0, 6.0, 4.0], 4.0, 80.0),
        ([8.0, 6.0, 4.0], 5.0, 40.0 * math.sqrt(2.0)),
        ([8.0, 4.0, 5.0], 5.0, 20.0 * 2.0**0.75),  # the first crossing counts
        ([4.0, 3.0, 2.0], 5.0, 20.0),
        ([8.0, 7.0, 6.0], 5.0, math.inf),
    ],
)
def test_labels_needed_are_interpolated_in_log_n(errors, target, needed):
    assert labels_needed((20, 40, 80), errors, target) == pytest.approx(needed)


def test_equal_pickers_need_equal_labels_and_a_better_one_fewer():
    rng = np.random.default_rng(0)
    design = Design(n_seeds=6)
    same = 1.0 - 0.1 * np.log(design.sizes) + rng.normal(0, 0.02, (6, 4))
    for gain, is_fewer in ((0.0, False), (0.1 * math.log(2.0), True)):  # half the labels
        outcome = Outcome(design, {}, {"force_p99": {"random": same, "diverse": same - gain}}, 0, 0, 0)
        found = answer(outcome, "force_p99")
        assert (found["diverse"][2] < 160.0) is is_fewer
        if is_fewer:
            assert found["diverse"][0] == pytest.approx(80.0, rel=0.15)
        else:
            assert found["diverse"] == found["random"]


def test_picks_grow_by_rounds_and_never_repeat():
    rng = np.random.default_rng(2)
    points = rng.normal(size=(200, 2)).astype(np.float32)
    index = np.arange(200)
    pool = Pool(index, index, np.full(200, 0.2), points, points[:3] + 10.0)
    for picker in PICKERS:
        chosen = growing_picks(pool, picker, 60, np.random.default_rng(3))
        assert len(set(chosen)) == len(chosen) == 60
        assert growing_picks(pool, picker, 40, np.random.default_rng(3)) == chosen[:40], "sizes are nested"
