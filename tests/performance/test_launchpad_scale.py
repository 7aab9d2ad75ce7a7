"""10^4 Fireworks in one LaunchPad on a wire-protocol server: what a Firework costs, and whether it grows.

Run with ``ACTIVELEARN_SECANTUS=.../secantusd-py pytest -m performance -s``. Workflows of our shape (500 walks and 500
labels an iteration, 100 chunks each, 4 models) are added, claimed and finished one by one, as workers do. Between those
that are measured, the LaunchPad is filled with copies of finished ones, document by document.
"""

import os
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster.servers import Missing, MongoServer
from fireworks import FWAction, FWorker

from activelearn import loop
from activelearn.config import Machine, load_campaign
from activelearn.store import Store
from activelearn.workflow import SharedLaunchPad, build_workflow, connect

pytestmark = [pytest.mark.performance, pytest.mark.needs_mongo, pytest.mark.timeout(3600)]
SHAPE = Machine(name="test", chunks={"explore": 100, "label": 100, "train": 4})
N_FIREWORKS = 10_000
#: Fireworks of a Workflow that are claimed and finished one by one; the rest is finished by writing documents.
N_MEASURED = 100
#: Workflows in the LaunchPad when one is measured: none, a few, and as many as make 10^4 Fireworks.
N_BEFORE = (0, 5, 12, 24, 47)
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_of(pid: int) -> float:
    """CPU-seconds of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def memory_MB(pid: int) -> float:
    """Resident memory of a process."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def disk_MB(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


class Cost:
    """CPU of this process and of the server, and wall-clock time, in ms per Firework."""

    def __init__(self, server: MongoServer) -> None:
        self.server = server
        self.rows: dict[str, tuple[float, float, float]] = {}

    @contextmanager
    def of(self, what: str, n: int):
        ours, theirs, wall = time.process_time(), cpu_of(self.server.process.pid), time.perf_counter()
        yield
        spent = time.process_time() - ours, cpu_of(self.server.process.pid) - theirs, time.perf_counter() - wall
        self.rows[what] = tuple(1000 * seconds / n for seconds in spent)


def finish_the_rest(launchpad: SharedLaunchPad, nodes: list[int]) -> None:
    """Write that all Fireworks of a Workflow are completed, with the launch of a finished one for each."""
    like = launchpad.launches.find_one({"state": "COMPLETED"}, {"_id": False})
    rest = [one["fw_id"] for one in launchpad.fireworks.find({"fw_id": {"$in": nodes}, "state": {"$ne": "COMPLETED"}})]
    first = launchpad._new_id("next_launch_id", len(rest))
    launches = [{**like, "fw_id": fw_id, "launch_id": first + k} for k, fw_id in enumerate(rest)]
    launchpad.launches.insert_many([dict(launch) for launch in launches])
    for launch in launches:
        changed = {"state": "COMPLETED", "launches": [launch["launch_id"]]}
        launchpad.fireworks.update_one({"fw_id": launch["fw_id"]}, {"$set": changed})
    states = {f"fw_states.{fw_id}": "COMPLETED" for fw_id in nodes}
    launchpad.workflows.update_one({"nodes": nodes[0]}, {"$set": {"state": "COMPLETED", **states}})


def copy(launchpad: SharedLaunchPad, nodes: list[int]) -> None:
    """Add a copy of a finished Workflow, under ids of its own."""
    workflow = launchpad.workflows.find_one({"nodes": nodes[0]}, {"_id": False})
    fireworks = list(launchpad.fireworks.find({"fw_id": {"$in": nodes}}, {"_id": False}))
    launches = list(launchpad.launches.find({"fw_id": {"$in": nodes}}, {"_id": False}))
    shift = launchpad.get_new_fw_id(len(nodes)) - min(nodes)
    first = min(launch["launch_id"] for launch in launches)
    span = max(launch["launch_id"] for launch in launches) - first + 1
    ahead = launchpad._new_id("next_launch_id", span) - first
    for one in fireworks:
        one["fw_id"] += shift
        one["launches"] = [k + ahead for k in one["launches"]]
    for one in launches:
        one["fw_id"] += shift
        one["launch_id"] += ahead
    links = {
        key: {str(int(k) + shift): [child + shift for child in to] for k, to in workflow[key].items()}
        for key in ("links", "parent_links")
    }
    states = {str(int(k) + shift): state for k, state in workflow["fw_states"].items()}
    changed = {"nodes": [k + shift for k in workflow["nodes"]], "fw_states": states}
    launchpad.fireworks.insert_many(fireworks)
    launchpad.launches.insert_many(launches)
    launchpad.workflows.insert_one({**workflow, **links, **changed})


@pytest.fixture
def server(tmp_path):
    try:
        found = MongoServer(tmp_path / "server")
    except Missing as missing:
        pytest.skip(str(missing))
    yield found
    found.stop()


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "campaign", load_campaign("copper_emt"))


def measure(launchpad: SharedLaunchPad, store: Store, iteration: int, cost: Cost) -> list[int]:
    """Add the Workflow of an iteration, claim and finish the first of its Fireworks; return the ids of all of them."""
    worker = FWorker(category=["explore", "label"])
    step = loop.Step(iteration, loop.LOOP)
    n = len(build_workflow(store, step, SHAPE, is_shared=True).fws)
    with cost.of("submit", n):
        ids = launchpad.add_wf(build_workflow(store, step, SHAPE, is_shared=True))
    with cost.of("claim", N_MEASURED):
        claimed = [launchpad.checkout_fw(worker, str(store.folder)) for _ in range(N_MEASURED)]
    assert {firework.fw_id for firework, _ in claimed} <= set(ids.values())
    with cost.of("finish", N_MEASURED):
        for _, launch in claimed:
            launchpad.complete_launch(launch, FWAction(), "COMPLETED")
    return sorted(ids.values())


def test_a_firework_costs_as_much_in_the_last_workflow_as_in_the_first(server, store, tmp_path):
    launchpad = connect(server.launchpad_file(tmp_path))
    launchpad.prepare()
    rows, finished, n_workflows = [], [], 0
    for iteration, n_before in enumerate(N_BEFORE):
        while n_workflows < n_before:
            copy(launchpad, finished)
            n_workflows += 1
        cost = Cost(server)
        before = launchpad.fireworks.count_documents({})
        finished = measure(launchpad, store, iteration, cost)
        finish_the_rest(launchpad, finished)
        n_workflows += 1
        rows.append((before, cost.rows, memory_MB(server.process.pid), disk_MB(server.folder / "db")))
    print(f"\n{len(finished)} Fireworks a Workflow; ms per Firework: CPU here + CPU of the server (wall)")
    print(f"{'in the LaunchPad':>16} {'submit':>20} {'claim':>20} {'finish':>20}  server MB  disk MB")
    for before, spent, memory, disk in rows:
        cells = " ".join(f"{a:6.1f} +{b:5.1f} ({c:5.1f})" for a, b, c in spent.values())
        print(f"{before:>16} {cells}  {memory:9.0f}  {disk:7.1f}")
    total = launchpad.fireworks.count_documents({})
    print(f"in the end: {total} Fireworks in {launchpad.workflows.count_documents({})} Workflows")
    assert total >= N_FIREWORKS
    first, last = rows[0][1], rows[-1][1]
    for what in ("submit", "claim", "finish"):
        assert sum(last[what][:2]) < 3 * sum(first[what][:2]) + 10.0, f"{what} grows with the LaunchPad"
