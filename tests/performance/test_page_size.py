"""The page of a folder of the paper's size: 95 passes of 60 walks, 15,902 labels of 128 atoms; its size and seconds.

Run with ``pytest -m performance -s tests/performance/test_page_size.py``; not part of the default run. The folder is
written by the store itself (plans, products in archives, sealed results, data set), with numbers that are made up. CPU
seconds are those of one thread, imports included.
"""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
import seen_folders as made

from activelearn.config import load_campaign
from activelearn.frames import Frames, make_origin
from activelearn.page import write_page
from activelearn.records import Explored, Task
from activelearn.select.window import FrameClass
from activelearn.store import Store
from activelearn.store.files import publish_json

pytestmark = pytest.mark.performance
N_PASSES, N_WALKS, N_LABELS, N_INITIAL, N_ATOMS, LENGTH_A = 95, 60, 15_902, 500, 128, 13.7
STAGES = ("nvt", "npt")
CODE = "import sys; from pathlib import Path; from activelearn.page import write_page; write_page(Path(sys.argv[1]))"


def frames(rng, walk, n, iteration, *, is_labelled=True):
    """Frames of one walk: atoms on a lattice, displaced."""
    grid = np.stack(np.meshgrid(*[np.arange(8)] * 3), axis=-1).reshape(-1, 3)[:: 512 // N_ATOMS] * (LENGTH_A / 8)
    positions = grid + rng.normal(0.0, 0.1 + 0.3 * rng.random(), (n, N_ATOMS, 3))
    symbols = tuple(np.repeat(["Na", "P", "S", "O"], N_ATOMS // 4).tolist())
    origin = make_origin(
        n,
        iteration=iteration,
        walk=walk,
        step=20 * np.arange(n),
        temperature_K=300.0,
        max_devi_f=rng.uniform(0.1, 0.36, n),
    )
    bare = Frames(symbols, np.tile(LENGTH_A * np.eye(3), (n, 1, 1)), positions, origin=origin)
    labels = rng.normal(size=n), rng.normal(size=(n, N_ATOMS, 3)), rng.normal(size=(n, 3, 3))
    return bare.with_labels(*labels) if is_labelled else bare


def begun(folder):
    campaign = load_campaign("na3ps4o")
    stages = tuple(campaign.explore.stages[0].model_copy(update={"name": name}) for name in STAGES)
    explore = campaign.explore.model_copy(update={"stages": stages})
    initial = campaign.initial.model_copy(update={"relax": None})
    store = Store.create(folder, campaign.model_copy(update={"explore": explore, "initial": initial}))
    publish_json(store.iteration_folder(0) / "sel.json", [200] * len(campaign.type_map))
    return store, store.latest_campaign()


def initial_iteration(store, campaign, rng):
    """Initial data: a fifth is held out."""
    store.open_iteration(0, campaign)
    parts = [frames(rng, f"s{k}", 10, 0) for k in range(N_INITIAL // 10)]
    held_out = parts[::5]
    training = [part for k, part in enumerate(parts) if k % 5]
    store.seal_frames(store.chosen_file(0), [part.without_labels() for part in parts])
    store.seal_frames(store.dataset_file(0), training)
    store.seal_frames(store.held_out_file(0), held_out)
    record = made.record(0, initial=made.initial(0), labelled=N_INITIAL, frames=N_INITIAL - 10 * len(held_out))
    record = record.model_copy(
        update={"labelling": record.labelling.model_copy(update={"held_out": 10 * len(held_out)})}
    )
    closed(store, record)
    return record.labelling.dataset_frames


def closed(store, record):
    made.close(store, record)
    store.archive_products(record.index)


def one_pass(store, campaign, rng, k, n_labels, n_before):
    store.open_iteration(k, campaign)
    tasks = [
        Task(id=f"{STAGES[i % 2]}-{i:03d}", kind="walk", parameters={"stage": STAGES[i % 2]}) for i in range(N_WALKS)
    ]
    store.freeze_plan("explore", k, tasks, 1)
    parts = []
    for i, task in enumerate(tasks):
        n = n_labels // N_WALKS + (i < n_labels % N_WALKS)
        part = frames(rng, task.id, n, k)
        parts.append(part)
        arrays = {
            "max_devi_f": rng.gamma(4.0, 0.03, 200),
            "kind": np.full(200, FrameClass.ACCURATE, dtype=np.int8),
            "kept_mined": np.arange(n) < 1,
            **part.without_labels().arrays("kept/"),
            "worst_kept": np.array(int(np.argmax(part.origin["max_devi_f"]))),
            "worst_devi_f": rng.gamma(4.0, 0.02, N_ATOMS).astype(np.float32),
        }
        store.publish_product("explore", k, task.id, arrays, {"stage": task.parameters["stage"], "iteration": k})
    store.seal("explore", k, Explored(iteration=k, stages=STAGES, products={}))
    driving = {
        f"{p}/model_forces": (part.forces + rng.normal(0, 0.1, part.forces.shape)).astype(np.float32)
        for p, part in enumerate(parts)
    }
    store.seal_frames(store.chosen_file(k), [part.without_labels() for part in parts], driving)
    store.seal_frames(store.dataset_file(k), parts)
    heats = [float(t) for t in np.linspace(10, 2000, 12)]
    cells = [made.cell(s, t, accurate=400, candidate=int(rng.integers(9))) for s in STAGES for t in heats]
    walks = [made.walk(n, stage=STAGES[n % 2]) for n in range(N_WALKS)]
    found = made.selection(k, *cells, walks=walks, stages=STAGES)
    pairs = tuple((float(d), float(3 * d)) for d in rng.uniform(0.1, 0.4, n_labels))
    closed(store, made.record(k, found, calibration=pairs, labelled=n_labels, frames=n_before + n_labels))
    return n_before + n_labels


@pytest.mark.timeout(1200)
def test_the_page_of_the_paper_is_small_and_soon_written(tmp_path):
    rng = np.random.default_rng(0)
    store, campaign = begun(tmp_path / "paper")
    n_frames = initial_iteration(store, campaign, rng)
    n_left = N_LABELS - N_INITIAL
    for k in range(1, N_PASSES + 1):
        n = n_left // (N_PASSES - k + 1)
        n_frames, n_left = one_pass(store, campaign, rng, k, n, n_frames), n_left - n
    assert n_left == 0
    path, _ = write_page(store.folder)
    begin = os.times()
    wall = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", CODE, str(store.folder)], check=True, env=environment)
    end = os.times()
    cpu = end.children_user + end.children_system - begin.children_user - begin.children_system
    size = path.stat().st_size / 1e6
    text = path.read_text(encoding="utf-8")
    took = f"{cpu:.2f} s of CPU, {time.monotonic() - wall:.1f} s in all"
    print(f"\npage of {N_PASSES} passes, {N_LABELS} labels: {size:.2f} MB, {took}")
    assert "Could not be read" not in text
    for name in ("landscape", "doubted", "worst", "starts", "parity"):
        assert f'id="figure-{name}"' in text
    assert size < 5.0
    assert cpu < 3.0
