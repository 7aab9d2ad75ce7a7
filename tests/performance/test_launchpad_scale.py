"""10^4 Fireworks in one LaunchPad on a wire-protocol server: what a Firework costs, and whether it grows.

Run with ``ACTIVELEARN_SECANTUS=.../secantusd-py pytest -m performance -s``. Workflows of our shape (500 walks and 500
labels an iteration, 100 chunks each, 4 models) are added, claimed and finished one by one, as workers do. The LaunchPad
is filled before with finished ones: copies, document by document, of one that really ran.

What grows is the server's part, of it `findAndModify` alone, which in SecantusDB reads the whole collection although
FireWorks has indexed what it asks for; `find` by the same keys stays as fast as it was. Our own part must not grow.
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
#: Fireworks of a Workflow that are claimed and finished one by one.
N_MEASURED = 10
#: Finished Workflows in the LaunchPad when one is measured: none, a few, and as many as make 10^4 Fireworks.
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


class Finished:
    """A Workflow taken out of the LaunchPad, as it is when all of it is completed: a mould for the ones before us."""

    def __init__(self, launchpad: SharedLaunchPad, nodes: list[int]) -> None:
        everything = {"fw_id": {"$in": nodes}}
        self.workflow = launchpad.workflows.find_one({"nodes": nodes[0]}, {"_id": False})
        self.workflow["state"] = "COMPLETED"
        self.fireworks = list(launchpad.fireworks.find(everything, {"_id": False}))
        self.launch = launchpad.launches.find_one({**everything, "state": "COMPLETED"}, {"_id": False})

    def add_to(self, launchpad: SharedLaunchPad) -> None:
        """Add a copy, under ids of its own."""
        n = len(self.fireworks)
        shift = launchpad.get_new_fw_id(n) - min(self.workflow["nodes"])
        first = launchpad._new_id("next_launch_id", n)
        fireworks, launches = [], []
        for k, firework in enumerate(self.fireworks):
            ids = {"fw_id": firework["fw_id"] + shift, "launches": [first + k]}
            fireworks.append({**firework, **ids, "state": "COMPLETED"})
            launches.append({**self.launch, "fw_id": ids["fw_id"], "launch_id": first + k})
        launchpad.fireworks.insert_many(fireworks)
        launchpad.launches.insert_many(launches)
        launchpad.workflows.insert_one({**self.workflow, **self._shifted(shift)})

    def _shifted(self, shift: int) -> dict:
        links = {
            key: {str(int(k) + shift): [other + shift for other in others] for k, others in self.workflow[key].items()}
            for key in ("links", "parent_links")
        }
        states = {str(int(k) + shift): "COMPLETED" for k in self.workflow["fw_states"]}
        return {**links, "nodes": [k + shift for k in self.workflow["nodes"]], "fw_states": states}


def take_out(launchpad: SharedLaunchPad, nodes: list[int]) -> None:
    """Delete a Workflow that was measured and is half done."""
    launchpad.workflows.delete_many({"nodes": {"$in": nodes}})
    for collection in (launchpad.fireworks, launchpad.launches):
        collection.delete_many({"fw_id": {"$in": nodes}})


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
    step = loop.CampaignPhase(iteration, loop.LOOP, store)
    n = len(build_workflow(step, SHAPE, is_shared=True).fws)
    with cost.of("submit", n):
        ids = launchpad.add_wf(build_workflow(step, SHAPE, is_shared=True))
    with cost.of("claim", N_MEASURED):
        claimed = [launchpad.checkout_fw(worker, str(store.folder)) for _ in range(N_MEASURED)]
    assert {firework.fw_id for firework, _ in claimed} <= set(ids.values())
    with cost.of("finish", N_MEASURED):
        for _, launch in claimed:
            launchpad.complete_launch(launch, FWAction(), "COMPLETED")
    return sorted(ids.values())


def test_our_part_of_a_firework_costs_as_much_among_ten_thousand_as_among_two_hundred(server, store, tmp_path):
    launchpad = connect(server.launchpad_file(tmp_path))
    launchpad.prepare()
    rows, mould = [], None
    print("\nms per Firework: CPU here + CPU of the server (wall)")
    print(f"{'in the LaunchPad':>16} {'submit':>24} {'claim':>24} {'finish':>24}  server MB  disk MB")
    for iteration, n_before in enumerate(N_BEFORE):
        while launchpad.workflows.count_documents({}) < n_before:
            mould.add_to(launchpad)
        cost = Cost(server)
        nodes = measure(launchpad, store, iteration, cost)
        rows.append((launchpad.fireworks.count_documents({}), cost.rows))
        cells = " ".join(f"{a:7.2f} +{b:7.1f} ({c:6.1f})" for a, b, c in cost.rows.values())
        sizes = f"{memory_MB(server.process.pid):9.0f}  {disk_MB(server.folder / 'db'):7.1f}"
        print(f"{rows[-1][0]:>16} {cells}  {sizes}", flush=True)
        mould = mould or Finished(launchpad, nodes)
        take_out(launchpad, nodes)
    assert rows[-1][0] >= N_FIREWORKS
    first, last = rows[0][1], rows[-1][1]
    for what in ("submit", "claim", "finish"):
        assert last[what][0] < 2 * first[what][0] + 5.0, f"{what}: our own part grows with the LaunchPad"
