"""What a ledger of the papers' size costs: 15,902 labels of 128 atoms that describe themselves.

Run with ``pytest -m performance -s``; not part of the default run, for machines are noisy.
"""

import time

import numpy as np
import pytest

from activelearn.frames import FrameLabel, Frames, make_origin
from activelearn.store import Ledger, LedgerWriter
from activelearn.store.ledger import publish_labels

pytestmark = pytest.mark.performance
N_LABELS, N_ATOMS = 15_902, 128
IDENTITY = {"sha256": "ab" * 32, "functional": "PBE"}


def walks(n_frames=50):
    rng = np.random.default_rng(0)
    symbols = ("Na",) * 48 + ("P",) * 16 + ("S",) * 64
    for first in range(0, N_LABELS, n_frames):
        n = min(n_frames, N_LABELS - first)
        yield Frames(
            symbols,
            cell=np.tile(np.eye(3) * 14.0, (n, 1, 1)),
            positions=rng.uniform(0, 14.0, (n, N_ATOMS, 3)),
            energy=rng.normal(size=n),
            forces=rng.normal(size=(n, N_ATOMS, 3)),
            virial=rng.normal(size=(n, 3, 3)),
            origin=make_origin(n, walk=f"w{first}"),
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
    ledger, scanned = timed("scan, every record verified", lambda: opened(tmp_path))
    found, read = timed("structures", lambda: ledger.structures(IDENTITY["sha256"]))
    _, again = timed("refresh when nothing is new", ledger.refresh)
    print(f"{size:.0f} MB in {sum(path.is_file() for path in tmp_path.rglob('*'))} files")
    assert len(ledger) == sum(len(part) for part in found) == N_LABELS
    assert len(found) == len(parts)
    assert size < 250.0
    assert scanned < 3.0
    assert (imported < 30.0, read < 30.0, again < 0.1) == (True, True, True)


def test_appending_costs_an_fsync_and_little_more(tmp_path):
    writer, part, n = LedgerWriter(tmp_path, "me"), next(walks(50)), 50
    labels = [FrameLabel(float(part.energy[k]), part.forces[k], part.virial[k]) for k in range(n)]
    start = time.process_time()
    for k in range(n):
        writer.append(part.structure_key(k, IDENTITY["sha256"]), labels[k], part[k], IDENTITY)
    cpu = 1000 * (time.process_time() - start) / n
    writer.close()
    print(f"\nappend: {cpu:.2f} CPU-ms a label")
    assert cpu < 5.0
