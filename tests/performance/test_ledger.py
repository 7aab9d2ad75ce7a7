"""What a ledger of the papers' size costs: 15,902 labels of 128 atoms that describe themselves.

Run with ``pytest -m performance -s``; not part of the default run, for machines are noisy.
"""

import statistics
import time
from pathlib import Path

import numpy as np
import pytest
from campaigns import cli

from activelearn import exchange
from activelearn.frames import FrameLabel, Frames, make_origin
from activelearn.store import Ledger, LedgerWriter
from activelearn.store.ledger import publish_labels

pytestmark = pytest.mark.performance
N_LABELS, N_ATOMS = 15_902, 128
IDENTITY = exchange.declared("functional=PBE,includes_dispersion=false,code=x")
SHA = IDENTITY["sha256"]


def walks(n_labels=N_LABELS, n_atoms=N_ATOMS, n_frames=50, random_seed=0):
    rng = np.random.default_rng(random_seed)
    symbols = ("Na",) * (3 * n_atoms // 8) + ("P",) * (n_atoms // 8) + ("S",) * (n_atoms // 2)
    for first in range(0, n_labels, n_frames):
        n = min(n_frames, n_labels - first)
        yield Frames(
            symbols,
            cell=np.tile(np.eye(3) * 14.0, (n, 1, 1)),
            positions=rng.uniform(0, 14.0, (n, n_atoms, 3)),
            energy=rng.normal(size=n),
            forces=rng.normal(size=(n, n_atoms, 3)),
            virial=rng.normal(size=(n, 3, 3)),
            origin=make_origin(n, walk=f"w{random_seed}-{first}"),
        )


def timed(name, act):
    start = time.perf_counter()
    out = act()
    seconds = time.perf_counter() - start
    print(f"{name}: {seconds:.2f} s")
    return out, seconds


def opened(folder):
    ledger = Ledger(folder)
    ledger.refresh()
    return ledger


def test_a_ledger_of_the_papers_size_is_quick_and_small(tmp_path):
    print()
    parts = list(walks())
    _, imported = timed("publish at once", lambda: publish_labels(tmp_path, "import", parts, IDENTITY))
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) / 1e6
    ledger, indexed = timed("open, the index verified", lambda: opened(tmp_path))
    problems, verified = timed("verify: every record, key and number", ledger.verify)
    found, read = timed("structures", lambda: ledger.structures(SHA))
    _, again = timed("refresh when nothing is new", ledger.refresh)
    print(f"{size:.0f} MB in {sum(path.is_file() for path in tmp_path.rglob('*'))} files")
    assert len(ledger) == sum(len(part) for part in found) == N_LABELS
    assert len(found) == len(parts)
    assert size < 250.0
    assert problems == []
    assert (indexed < 1.0, verified < 60.0) == (True, True)
    for path in tmp_path.glob("*.idx"):
        path.unlink()
    scanned = timed("open without index, every record verified", lambda: opened(tmp_path))[1]
    assert scanned < 3.0
    assert (imported < 30.0, read < 30.0, again < 0.1) == (True, True, True)


def test_appending_costs_an_fsync_and_little_more(tmp_path):
    writer, part, n = LedgerWriter(tmp_path, "me"), next(walks(50)), 50
    labels = [FrameLabel(float(part.energy[k]), part.forces[k], part.virial[k]) for k in range(n)]
    start = time.process_time()
    for k in range(n):
        writer.append(part.structure_key(k, SHA), labels[k], part[k], IDENTITY)
    cpu = 1000 * (time.process_time() - start) / n
    writer.close()
    print(f"\nappend: {cpu:.2f} CPU-ms a label")
    assert cpu < 5.0


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("n_atoms", [8, 64])
def test_extended_xyz_takes_at_most_three_times_as_long_as_npz(tmp_path, n_atoms):
    """10^5 labels, both formats three times in turns: the median of each."""
    n = 100_000
    publish_labels(tmp_path / "l", "import", walks(n, n_atoms), IDENTITY)
    seconds = {"npz": [], "extxyz": []}
    for turn in range(3):
        for kind, spent in seconds.items():
            to = tmp_path / f"{turn}.{kind}"
            begin = time.process_time()
            assert exchange.export_labels(opened(tmp_path / "l"), to, IDENTITY) == n
            spent.append(time.process_time() - begin)
            to.unlink()
    npz, extxyz = (statistics.median(seconds[kind]) for kind in ("npz", "extxyz"))
    print(f"\n{n} labels of {n_atoms} atoms: npz {npz:.1f}, extxyz {extxyz:.1f} CPU-s: {extxyz / npz:.1f} times")
    assert extxyz <= 3.0 * npz


@pytest.mark.timeout(3600)
def test_a_million_labels_are_opened_in_ten_seconds_and_listed_in_twelve(tmp_path):
    """Of 24 atoms, imported in twenty parts."""
    for k in range(20):
        publish_labels(tmp_path, "import", walks(50_000, 24, random_seed=k), IDENTITY)
    ledger, seconds = timed("open", lambda: opened(tmp_path))
    assert len(ledger) == 1_000_000
    del ledger
    done, listed = timed("activelearn labels list", lambda: cli("labels", "list", str(tmp_path), cwd=Path.cwd()))
    assert "1000000 labels, 0 refused" in done.stdout
    assert (seconds < 10.0, listed < 12.0) == (True, True)
