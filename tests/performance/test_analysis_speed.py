"""What analyses cost beside freud and MDAnalysis: the same numbers of the same frames, side by side, on one core.

Run with ``pytest -m performance -s``; not part of the default run, for machines are noisy. Times are CPU seconds of all
threads: what a busy neighbour takes does not count, and a second thread would not look like speed.
"""

import itertools
import time
import warnings

import numpy as np
import pytest

from activelearn.benchmark.displacement import mean_square_displacement
from activelearn.benchmark.rdf import pair_distribution
from activelearn.frames import Frames

pytestmark = pytest.mark.performance
#: A glass of the papers: Na, P, S, O at about 0.05 atoms/Å^3; r as far as (nearly) half the cell.
N_ATOMS, LENGTH_A, BIN_A, N_BINS = 1600, 31.7, 0.05, 316
N_FRAMES = {"ours": 50, "freud": 5, "MDAnalysis": 3}


def glass():
    rng = np.random.default_rng(1)
    symbols = tuple(np.repeat(["Na", "P", "S", "O"], [600, 200, 600, 200]).tolist())
    cell = np.tile(LENGTH_A * np.eye(3), (max(N_FRAMES.values()), 1, 1))
    return Frames(symbols, cell, rng.uniform(0, LENGTH_A, (len(cell), N_ATOMS, 3)))


def seconds(function, *arguments):
    begin = time.process_time()
    answer = function(*arguments)
    return time.process_time() - begin, answer


def show(title, costs):
    """The first is ours."""
    print(f"\n{title:60s}          x ours")
    for name, cost in costs.items():
        print(f"{name:52s} {cost:8.4f} {cost / next(iter(costs.values())):8.1f}")


def rdf_of_freud(frames, *, is_partial):
    import freud

    freud.parallel.set_num_threads(1)
    box = freud.box.Box.cube(LENGTH_A)
    symbols = np.array(frames.symbols)
    kinds = sorted(set(frames.symbols)) if is_partial else [None]
    of_kind = {kind: np.flatnonzero(symbols == kind) if is_partial else np.arange(N_ATOMS) for kind in kinds}
    answers = {}
    for a, b in itertools.combinations_with_replacement(kinds, 2):
        answers[a, b] = rdf = freud.density.RDF(bins=N_BINS, r_max=BIN_A * N_BINS)
        query = {"mode": "ball", "r_max": BIN_A * N_BINS, "exclude_ii": a == b}
        for positions in frames.positions - LENGTH_A / 2:
            rdf.compute((box, positions[of_kind[b]]), positions[of_kind[a]], neighbors=query, reset=False)
    return {pair: rdf.rdf for pair, rdf in answers.items()}


def rdf_of_mdanalysis(frames):
    import MDAnalysis as mda
    from MDAnalysis.analysis.rdf import InterRDF

    universe = mda.Universe.empty(frames.n_atoms, trajectory=True)
    universe.add_TopologyAttr("name", list(frames.symbols))
    dimensions = np.tile([LENGTH_A] * 3 + [90.0] * 3, (len(frames), 1))
    universe.load_new(frames.positions.astype(np.float32), dimensions=dimensions)
    groups = {kind: universe.select_atoms(f"name {kind}") for kind in sorted(set(frames.symbols))}
    answers = {}
    for a, b in itertools.combinations_with_replacement(groups, 2):
        exclusion = (1, 1) if a == b else None
        rdf = InterRDF(
            groups[a], groups[b], nbins=N_BINS, range=(0.0, BIN_A * N_BINS), exclusion_block=exclusion, backend="serial"
        )
        answers[a, b] = rdf.run().results.rdf
    return answers


def test_all_partial_g_of_a_glass_are_not_slower_than_those_of_freud():
    frames = glass()
    pair_distribution(frames[:1])  # imports
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rdf_of_freud(frames[:1], is_partial=False)
        rdf_of_mdanalysis(frames[:1])
        ours, answer = seconds(pair_distribution, frames, BIN_A, BIN_A * N_BINS)
        total, _ = seconds(lambda: rdf_of_freud(frames[: N_FRAMES["freud"]], is_partial=False))
        freud, theirs = seconds(lambda: rdf_of_freud(frames[: N_FRAMES["freud"]], is_partial=True))
        mdanalysis, _ = seconds(rdf_of_mdanalysis, frames[: N_FRAMES["MDAnalysis"]])
    per_frame = {
        "ours, 10 partial": ours / N_FRAMES["ours"],
        "freud, 10 partial": freud / N_FRAMES["freud"],
        "freud, total only": total / N_FRAMES["freud"],
        "MDAnalysis, 10 partial": mdanalysis / N_FRAMES["MDAnalysis"],
    }
    show(f"g(r), {N_ATOMS} atoms, r < {BIN_A * N_BINS:.2f} Å: CPU-s per frame", per_frame)
    same = pair_distribution(frames[: N_FRAMES["freud"]], BIN_A, BIN_A * N_BINS)
    i, j = (same.elements.index(kind) for kind in ("P", "S"))
    assert abs(same.g[i, j] - theirs["P", "S"])[40:].max() < 0.01  # the same thing was computed (float32 moves counts)
    assert answer.g.shape == (4, 4, N_BINS)
    assert per_frame["ours, 10 partial"] < per_frame["freud, 10 partial"]
    assert per_frame["ours, 10 partial"] < per_frame["freud, total only"]


def msd_of_freud(walk):
    import freud

    freud.parallel.set_num_threads(1)
    return freud.msd.MSD(mode="window").compute(walk).msd


def msd_of_mdanalysis(walk):
    """Its Fourier method needs tidynamics; the direct sum does not, for which one atom in 50 is enough."""
    import MDAnalysis as mda
    from MDAnalysis.analysis.msd import EinsteinMSD

    universe = mda.Universe.empty(walk.shape[1], trajectory=True)
    universe.load_new(walk.astype(np.float32))
    return EinsteinMSD(universe, fft=False).run().results.timeseries


def test_mean_square_displacements_of_2000_frames_are_not_slower_than_those_of_freud():
    n_frames, some = 2000, slice(None, None, 50)
    walk = np.random.default_rng(2).normal(0.0, 0.1, (n_frames, N_ATOMS, 3)).cumsum(axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mean_square_displacement(walk[:20])
        msd_of_freud(walk[:20])
        msd_of_mdanalysis(walk[:20, some])
        ours, answer = seconds(mean_square_displacement, walk)
        freud, theirs = seconds(msd_of_freud, walk)
        mdanalysis, direct = seconds(msd_of_mdanalysis, walk[:, some])
    costs = {"ours": ours, "freud (window)": freud, "MDAnalysis (direct, 1 atom in 50, x 50)": 50 * mdanalysis}
    show(f"MSD, {N_ATOMS} atoms x {n_frames} frames, all time origins: CPU-s", costs)
    np.testing.assert_allclose(answer, theirs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(mean_square_displacement(walk[:, some]), direct, rtol=1e-4, atol=1e-4)
    assert ours < freud
