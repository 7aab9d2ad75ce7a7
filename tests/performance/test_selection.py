"""What diverse selection costs late in a campaign of the papers' size: 95 iterations of 167 labels, 128 atoms.

Run with ``pytest -m performance -s``; not part of the default run, for machines are noisy.
"""

import time

import numpy as np
import pytest

from activelearn import descriptor
from activelearn.config import Select
from activelearn.frames import Frames
from activelearn.select.anchors import anchors, array_name
from activelearn.select.picking import Pool, pick

pytestmark = pytest.mark.performance
N_LABELS, N_ATOMS, N_POOL = 167, 128, 10_000
TYPES = ("Na", "P", "S", "O")


def test_diverse_picks_stay_cheap_over_95_iterations(store, campaign):
    rng = np.random.default_rng(1)
    campaign = campaign.model_copy(update={"type_map": TYPES})
    size = descriptor.size(TYPES)
    part = Frames(("Na",) * N_ATOMS, np.tile(10 * np.eye(3), (N_LABELS, 1, 1)), np.zeros((N_LABELS, N_ATOMS, 3)))
    pool = rng.random((N_POOL, size), dtype=np.float32)
    index = np.arange(N_POOL)
    print("\niteration  anchors  read  pick (CPU-s)")
    for k in range(96):
        if k in {1, 24, 48, 72, 95}:
            begin = time.process_time()
            before = anchors(campaign, store, k)
            read = time.process_time()
            taken, _ = pick(Pool(index, index, rng.random(N_POOL), pool, before), Select(pick="diverse"), N_LABELS, rng)
            end = time.process_time()
            print(f"{k:9d} {len(before):8d} {read - begin:9.2f} {end - read:9.2f}")
            assert len(before) == k * N_LABELS
            assert len(taken) == N_LABELS
            assert end - begin < 10.0
        described = rng.random((N_LABELS, size), dtype=np.float32)
        store.seal_frames(store.chosen_file(k), [part], {array_name(campaign): described})
