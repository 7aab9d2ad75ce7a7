"""What the house itself costs: CPU-milliseconds per task and per Firework, with stations that do nothing.

Run with ``pytest -m performance -s``; not part of the default run, for machines are noisy.
"""

import time
from dataclasses import replace

import numpy as np
import pytest

from activelearn import loop, workflow
from activelearn.config import Machine, load_campaign
from activelearn.engines.process import Slot
from activelearn.frames import FrameLabel
from activelearn.records import Explored, Task
from activelearn.store import Store, verify
from activelearn.store.files import publish_json
from activelearn.tasks import carry_out, gather

pytestmark = pytest.mark.performance
N_TASKS = 500


@pytest.fixture
def store(tmp_path):
    campaign = load_campaign("copper_emt")
    store = Store.create(tmp_path / "campaign", campaign)
    store.open_iteration(0, campaign)
    return store


def idle_station(name, run):
    tasks = [Task(id=f"{k:05d}", kind="idle", parameters={"key": f"{k:064d}"}) for k in range(N_TASKS)]
    return replace(
        loop.STATIONS[name],
        plan=lambda *_: tasks,
        run=run,
        gather=lambda *_: Explored(iteration=0, stages=(), products={}),
        batching=None,
    )


def publish_product(task: Task, store: Store, iteration: int, slot: Slot) -> None:
    store.publish_product("explore", iteration, task.id, {"x": np.zeros(100)}, {"started": 0.0, "finished": 0.0})


def publish_label(task: Task, store: Store, iteration: int, slot: Slot) -> None:
    store.ledger_writer.append(task.parameters["key"], FrameLabel(0.0, np.zeros((32, 3)), np.zeros((3, 3))))


@pytest.mark.parametrize(("name", "run"), [("explore", publish_product), ("label", publish_label)])
def test_a_task_costs_a_few_milliseconds(store, name, run):
    station, machine = idle_station(name, run), Machine(slots=2)
    cpu, wall = time.process_time(), time.perf_counter()
    carry_out(station, store, 0, machine)
    gather(station, store, 0, machine)
    cpu, wall = 1000 * (time.process_time() - cpu) / N_TASKS, 1000 * (time.perf_counter() - wall) / N_TASKS
    print(f"\n{name}: {cpu:.2f} CPU-ms and {wall:.2f} ms a task (plan, claim, publish with fsync, gather)")
    assert cpu < 5.0


def test_a_firework_costs_some_tens_of_milliseconds(store, monkeypatch):
    monkeypatch.setattr(workflow.firetasks._StationTask, "run_task", lambda self, spec: None)
    launchpad = workflow.EmbeddedLaunchPad()
    cpu = time.process_time()
    workflow.advance(launchpad, loop.next_phase(store), Machine())
    n = launchpad.fireworks.count_documents({})
    workflow.drive._launch_all(launchpad)
    cpu = 1000 * (time.process_time() - cpu) / n
    print(f"\n{n} Fireworks of an iteration: {cpu:.1f} CPU-ms each")
    assert launchpad.fireworks.count_documents({"state": "COMPLETED"}) == n
    assert cpu < 60.0


def test_a_packed_product_costs_as_little_as_one_that_is_a_file(store):
    """However many there are: the list of a pack is read once."""
    n, folder = 2000, store.station_folder("explore", 0)
    store.freeze_plan("explore", 0, [Task(id=f"{k:05d}", kind="idle", parameters={}) for k in range(n)], 1)
    for k in range(n):
        store.publish_product("explore", 0, f"{k:05d}", {"x": np.zeros(100)}, {"started": 0.0, "finished": 0.0})
    store.seal("explore", 0, Explored(iteration=0, stages=(), products={}))
    publish_json(store.iteration_file(0), {})
    for what, act in (
        ("packing", lambda: store.archive_products(0)),
        ("reading", lambda: [store.read_product("explore", 0, f"{k:05d}") for k in range(n)]),
        ("verifying", lambda: verify(store)),
    ):
        cpu = time.process_time()
        act()
        cpu = 1000 * (time.process_time() - cpu) / n
        print(f"\n{what} of {n} products: {cpu:.2f} CPU-ms each")
        assert cpu < 2.0
    assert [path.name for path in folder.glob("*.zip")] == ["products.zip"]
