"""How fast networks are counted, on one core: all of the analysis, and of it the search for pairs.

Run with ``pytest -m performance -s``; not part of the default run, for machines are noisy. CPU seconds, best of five.
"""

import time

import numpy as np
import pytest

from activelearn.benchmark.bonds import find_bonds
from activelearn.benchmark.census import census
from activelearn.config import Roles
from activelearn.frames import Frames
from activelearn.seeds import load_seed, perturbed, scaled, supercell

pytestmark = pytest.mark.performance
ROLES = Roles(formers={"P": 3}, anions=("S", "O"), modifiers={"Na": 1})
CUTOFFS = {("P", "P"): 2.5, ("P", "S"): 2.5, ("P", "O"): 2.0, ("S", "S"): 2.4, ("S", "O"): 1.9, ("O", "O"): 1.7}
N_FRAMES = 50


def glass_like():
    """1560 atoms of Na4P2(S, O)7, sites of the anions mixed, squeezed and displaced until all units abound."""
    rng = np.random.default_rng(1)
    atoms = supercell(load_seed("Na4P2S7_P212121").to_atoms(), (3, 2, 5))
    assert len(atoms) == 1560
    sulfur = rng.permutation(np.flatnonzero(atoms.symbols == "S"))
    atoms.symbols[sulfur[: len(sulfur) // 4]] = "O"
    atoms = scaled(atoms, 0.9)
    images = [perturbed(atoms, rng, positions_A=0.5, cell_fraction=0.02) for _ in range(N_FRAMES)]
    return Frames.from_ase(images)


def rate(work, frames):
    """Atoms per CPU second."""
    seconds = []
    for _ in range(5):
        begin = time.process_time()
        work()
        seconds.append(time.process_time() - begin)
    return len(frames) * frames.n_atoms / min(seconds)


def test_networks_are_counted_at_two_hundred_thousand_atoms_a_second():
    frames = glass_like()
    counted = census(frames, CUTOFFS, ROLES).values
    assert counted["S_in_chains"].mean() > 1.0  # there is something to count
    assert counted["P2"].mean() > 1.0
    pairs = rate(lambda: find_bonds(frames, CUTOFFS), frames)
    whole = rate(lambda: census(frames, CUTOFFS, ROLES), frames)
    print(f"\natoms per CPU second: analysis {whole:.3g}, of it the search for pairs {pairs:.3g}")
    print(f"for orientation, all pairs of all elements below 3.5 Å: matscipy {rate(*_by_matscipy(frames)):.3g}")
    assert whole > 2.0e5


def test_the_search_for_pairs_beside_freud():
    """The same pairs, P-S below 2.5 Å, in the same orthorhombic cells, one thread; freud in float32."""
    freud = pytest.importorskip("freud")
    freud.parallel.set_num_threads(1)
    frames = glass_like()
    cell = np.broadcast_to(np.diag(frames.cell[0].diagonal()), frames.cell.shape)  # freud needs its own triclinic form
    frames = Frames(frames.symbols, cell, frames.positions)
    symbols = np.array(frames.symbols)
    former, anion = np.flatnonzero(symbols == "P"), np.flatnonzero(symbols == "S")
    n_pairs = []

    def by_freud():
        n_pairs.clear()
        for k in range(len(frames)):
            box = freud.box.Box(*frames.cell[k].diagonal())
            query = freud.locality.AABBQuery(box, box.wrap(frames.positions[k, anion] - frames.cell[k].sum(axis=0) / 2))
            points = box.wrap(frames.positions[k, former] - frames.cell[k].sum(axis=0) / 2)
            n_pairs.append(len(query.query(points, {"r_max": 2.5}).toNeighborList()))

    def by_bonds():
        return find_bonds(frames, {("P", "S"): 2.5})

    theirs, ours = rate(by_freud, frames), rate(by_bonds, frames)
    print(f"\nP-S pairs, atoms per CPU second: bonds {ours:.3g}, freud {theirs:.3g}, ratio {ours / theirs:.2f}")
    assert sum(n_pairs) == pytest.approx(len(by_bonds().i) / 2, abs=2)  # float32 at the cutoff


def _by_matscipy(frames):
    from matscipy.neighbours import neighbour_list

    def search():
        for k in range(len(frames)):
            neighbour_list("ijd", positions=frames.positions[k], cell=frames.cell[k], pbc=frames.pbc, cutoff=3.5)

    return search, frames
