"""A campaign of the paper's size with engines that do nothing: what the house itself costs over 95 iterations.

Everything but the engines is real: FireWorks on the embedded LaunchPad, plans, claims, products, ledger, selection,
data set, training folders, records. Run with ``pytest -m performance -s tests/performance/test_replay.py``; it prints
one line per ten iterations.
"""

import os
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import idle_engines
import pytest
from campaigns import dataset_summary

from activelearn import loop, workflow
from activelearn.config import Campaign, Machine, load_campaign
from activelearn.store import Lease, Store, verify

pytestmark = [pytest.mark.performance, pytest.mark.timeout(1800)]

#: Of Luo et al., J. Mater. Chem. A 12, 33518 (2024): passes, labels, and labels before the first pass.
N_ITERATIONS, N_LABELS, N_INITIAL = 95, 15_902, 4 * 3 * 10 * 11
#: Walks of a pass; each has 101 frames of 128 atoms or a few more.
N_WALKS = 80
MACHINE = Machine(name="replay", slots=2, min_free_disk_GB=0.0)


def paper_size(n_iterations: int, **select) -> Campaign:
    """Return the paper's campaign on cells of ~128 atoms, with one stage of 80 walks that is never quiet."""
    paper = load_campaign("na3ps4o").model_dump()
    crystals = [system for system in paper["explore"]["systems"] if system["seed"] is not None]
    for system in (*crystals, *paper["initial"]["systems"]):
        system.update(supercell=None, n_atoms=128)
    stage = {
        "name": "nvt",
        "temperatures_K": (10, 100, 300, 500),
        "n_walks": N_WALKS // 4,
        "n_steps": 2000,
        "every": 20,
    }
    n_chosen = -(-(N_LABELS - N_INITIAL) // N_ITERATIONS)
    paper["initial"]["isolated"] = None
    paper["explore"] |= {"systems": crystals, "stages": (stage,)}
    paper["select"] |= {"max_frames": n_chosen, "max_per_cell": None, "max_per_walk": 8} | select
    paper["stop"]["max_iterations"] = n_iterations
    return Campaign.model_validate(paper)


@dataclass(frozen=True)
class Row:
    """Clocks and folder when an iteration was closed: files and MB without models, CPU time without the engines'."""

    iteration: int
    wall_s: float
    cpu_s: float
    files: int
    megabytes: float
    rss_MB: float


def measured(store, iteration: int) -> Row:
    """Return the row of this moment."""
    sizes = [path.stat().st_size for path in store.folder.rglob("*") if path.is_file() and path.parent.name != "models"]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Row(
        iteration=iteration,
        wall_s=time.perf_counter(),
        cpu_s=time.process_time() - idle_engines.spent[0],
        files=len(sizes),
        megabytes=sum(sizes) / 1e6,
        rss_MB=pages * os.sysconf("SC_PAGESIZE") / 1e6,
    )


@pytest.fixture
def replay(tmp_path, monkeypatch):
    """Run a campaign with idle engines; return its store, how it ended, and a row per iteration (first row: before)."""
    idle_engines.install(monkeypatch)

    def run(campaign):
        store = Store.create(tmp_path / "campaign", campaign)
        rows, close = [measured(store, -1)], loop.CampaignPhase.close

        def close_and_measure(step):
            close(step)
            if step.name == "loop":
                rows.append(measured(step.store, step.iteration))

        monkeypatch.setattr(loop.CampaignPhase, "close", close_and_measure)
        with Lease(store.folder):
            end = workflow.run_local(store, MACHINE)
        rows.append(measured(store, end.iteration + 1))
        return store, end, rows

    return run


def show(rows: list[Row], every: int) -> None:
    """Print a table: one line per group of iterations, iteration 0 and the final models separately."""
    print("\n iterations   wall s/it    CPU s/it   files      MB   RSS MB")
    marks = [-1, 0, *range(every, rows[-2].iteration, every), rows[-2].iteration, rows[-1].iteration]
    for begin, end in pairwise(marks):
        before, after = rows[begin + 1], rows[end + 1]
        n = end - begin
        wall, cpu = (after.wall_s - before.wall_s) / n, (after.cpu_s - before.cpu_s) / n
        name = "initial" if end == 0 else "final" if after is rows[-1] else f"{begin + 1}-{end}"
        print(f"{name:>11} {wall:11.2f} {cpu:11.2f} {after.files:7d} {after.megabytes:7.0f} {after.rss_MB:8.0f}")
    total, cpu = rows[-1].wall_s - rows[0].wall_s, rows[-1].cpu_s - rows[0].cpu_s
    print(f"        all {total:11.0f} {cpu:11.0f} (s in all; the idle engines: {idle_engines.spent[0]:.0f} CPU s)")


def cost(rows: list[Row], first: int, last: int) -> tuple[float, float]:
    """Return wall and CPU seconds per iteration from the end of `first` to the end of `last`."""
    before, after, n = rows[first + 1], rows[last + 1], last - first
    return (after.wall_s - before.wall_s) / n, (after.cpu_s - before.cpu_s) / n


def test_a_campaign_of_the_papers_size_is_kept_in_minutes_files_and_megabytes(replay):
    store, end, rows = replay(paper_size(N_ITERATIONS))
    show(rows, 10)
    assert end.iteration == N_ITERATIONS
    assert len(store.ledger) >= N_LABELS
    assert dataset_summary(store, N_ITERATIONS)[1] == store.iterations()[-1].labelling.dataset_sha256
    assert rows[-1].wall_s - rows[0].wall_s < 600.0
    assert rows[-1].files < 2000
    assert rows[-1].megabytes < 1000.0
    early, late = cost(rows, 10, 20), cost(rows, N_ITERATIONS - 10, N_ITERATIONS)
    print(f"the last ten iterations against 11-20: wall x {late[0] / early[0]:.2f}, CPU x {late[1] / early[1]:.2f}")
    assert late[1] < 1.5 * early[1]
    wall, cpu = time.perf_counter(), time.process_time()
    found = verify(Store.open(store.folder))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"status --verify: {found.n_files} files, {found.n_bytes / 1e6:.0f} MB: {wall:.1f} s, {cpu:.1f} CPU-s")
    assert found.problems == []
    assert wall < 60.0


def test_diverse_picks_cost_little_more(replay):
    _, end, rows = replay(paper_size(20, pick="diverse"))
    show(rows, 5)
    assert end.iteration == 20
