"""g(r): ideal gas, shells of crystals, and the same numbers as MDAnalysis and freud in cells of any shape."""

import warnings

import numpy as np
import pytest
from ase.build import bulk
from ase.neighborlist import neighbor_list
from made_glasses import findings_of, number, planned, study_folder, study_of

from activelearn import seeds
from activelearn.benchmark.rdf import PROPERTY, first_shell, number_within, pair_distribution, pairs_of
from activelearn.frames import Frames

#: Dimensions as MDAnalysis has them (lengths, angles), float32.
CELLS = {
    "orthogonal": np.array([17.3, 19.1, 21.7, 90, 90, 90], dtype=np.float32),
    "triclinic": np.array([18.3, 19.1, 21.7, 72, 81, 64], dtype=np.float32),
}
BIN_A, N_BINS = 0.1, 75


def gas(n_atoms, cell, *, n_frames=1, random_seed=0, symbols=("Na", "S")):
    rng = np.random.default_rng(random_seed)
    positions = rng.random((n_frames, n_atoms, 3)) @ cell
    return Frames(tuple(np.resize(symbols, n_atoms)), np.tile(cell, (n_frames, 1, 1)), positions)


def crystal(name, repeat=(1, 1, 1)):
    return Frames.from_ase([seeds.load_seed(name).to_atoms() * repeat])


# --- known answers ----------------------------------------------------------------------------------------------------


def test_an_ideal_gas_has_g_of_one_within_its_statistics():
    """Counts are Poissonian: their residuals have the variance 1 (standard error of that over 4 x 60 shells: 0.09)."""
    frames = gas(600, np.array([[20.0, 0, 0], [7, 19, 0], [-4, 6, 21]]), n_frames=4)
    found = pair_distribution(frames, bin_A=0.1)
    shells = 4 / 3 * np.pi * np.diff(found.edges**3)
    for a, b, once in ((0, 1, 1.0), (0, 0, 0.5)):
        ideal = 1.0 if a != b else 299 / 300
        expected = ideal * once * 4 * 300 * 300 / frames.volume[0] * shells
        residuals = ((found.g[a, b] / ideal - 1.0) * np.sqrt(expected))[expected > 20]
        assert abs(residuals.mean()) < 4 / np.sqrt(len(residuals))
        assert 0.6 < residuals.var() < 1.5


def test_fcc_shells_are_12_6_24_12_in_any_cell_and_beyond_half_of_it():
    """The primitive cell has one atom: all its neighbours are images of itself."""
    for atoms in (bulk("Cu", a=4.0), bulk("Cu", a=4.0, cubic=True), bulk("Cu", a=4.0) * (3, 2, 2)):
        found = pair_distribution(Frames.from_ase([atoms]), bin_A=0.1, r_max_A=6.0)
        running = [number_within(found.edges, found.coordination[0, 0], r) for r in (2.7, 3.0, 4.1, 5.0, 5.7)]
        assert running == pytest.approx([0, 12, 18, 42, 54])


def test_first_shells_of_na3ps4_are_those_of_the_crystal():
    """Four S round P at 2.04 to 2.06 Å; to each S its one P."""
    found = pair_distribution(crystal("Na3PS4_P-421c", (2, 2, 2)), bin_A=0.05)
    p, s = (found.elements.index(e) for e in ("P", "S"))
    peak, minimum = first_shell(found.r, found.g[p, s])
    assert peak == pytest.approx(2.05, abs=0.03)
    assert 2.3 < minimum < 3.6
    assert number_within(found.edges, found.coordination[p, s], 2.5) == pytest.approx(4.0)
    assert number_within(found.edges, found.coordination[s, p], 2.5) == pytest.approx(1.0)


def test_all_images_are_counted_in_a_cell_smaller_than_the_range():
    """Against ASE's neighbour list: 16 atoms, cutoff larger than the cell, triclinic, atoms outside the cell."""
    cell = np.array([[5.0, 0, 0], [2.2, 6.0, 0], [-1.7, 2.5, 5.5]])
    frames = gas(16, cell, symbols=("Na", "S", "S"))
    frames = Frames(frames.symbols, frames.cell, frames.positions + np.array([13.0, -40.0, 2.0]))
    found = pair_distribution(frames, bin_A=0.25, r_max_A=8.0)
    i, j, d = neighbor_list("ijd", frames.to_ase()[0], 8.0)
    kind = np.array([found.elements.index(e) for e in frames.symbols])
    for a, b in np.ndindex(2, 2):
        counts, _ = np.histogram(d[(kind[i] == a) & (kind[j] == b)], found.edges)
        np.testing.assert_allclose(found.coordination[a, b], counts.cumsum() / (kind == a).sum(), rtol=1e-12)


def test_the_range_is_half_the_smallest_height_of_all_frames():
    cells = np.array([np.diag([20.0, 14.0, 18.0]), np.diag([12.02, 14.0, 18.0])])
    frames = Frames(("Na", "S"), cells, np.tile([[0.0, 0, 0], [1, 1, 1]], (2, 1, 1)))
    assert pair_distribution(frames, bin_A=0.05).edges[-1] == pytest.approx(6.0)


# --- independent witnesses --------------------------------------------------------------------------------------------


def frames_away_from_edges(shape, n_atoms=260):
    """Return frames without a distance within 2e-4 Å of the edge of a shell: rounding to float32 moves no count.

    The positions are float32, with which both programs begin; the cell is the one that MDAnalysis makes.
    """
    from MDAnalysis.lib.mdamath import triclinic_vectors

    cell = triclinic_vectors(CELLS[shape]).astype(np.float64)
    frames = gas(n_atoms, cell, n_frames=2, random_seed=5)
    positions = frames.positions.astype(np.float32).astype(np.float64)
    keep = np.ones(n_atoms, dtype=bool)
    for k in range(2):
        i, _, d = neighbor_list("ijd", frames.to_ase()[k], BIN_A * (N_BINS + 1))
        keep[i[abs(d - BIN_A * np.rint(d / BIN_A)) < 2e-4]] = False
    assert keep.sum() > 60
    symbols = tuple(np.array(frames.symbols)[keep])
    return Frames(symbols, frames.cell, positions[:, keep])


@pytest.mark.parametrize("shape", CELLS)
@pytest.mark.parametrize(("a", "b"), [("Na", "S"), ("S", "S")])
def test_g_agrees_with_mdanalysis(shape, a, b):
    """To 1e-6. InterRDF counts an atom itself unless blocks of one are excluded, and then divides by N (N - 1)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import MDAnalysis as mda
        from MDAnalysis.analysis.rdf import InterRDF

        frames = frames_away_from_edges(shape)
        universe = mda.Universe.empty(frames.n_atoms, trajectory=True)
        universe.add_TopologyAttr("name", list(frames.symbols))
        universe.load_new(frames.positions.astype(np.float32), dimensions=np.tile(CELLS[shape], (2, 1)))
        groups = [universe.select_atoms(f"name {element}") for element in (a, b)]
        theirs = InterRDF(
            *groups, nbins=N_BINS, range=(0.0, BIN_A * N_BINS), exclusion_block=(1, 1) if a == b else None
        ).run()
    ours = pair_distribution(frames, BIN_A, BIN_A * N_BINS)
    i, j = (ours.elements.index(element) for element in (a, b))
    n = frames.symbols.count(a)
    factor = (n - 1) / n if a == b else 1.0
    assert ours.g[i, j].max() > 1.0
    np.testing.assert_allclose(ours.r, theirs.results.bins, rtol=1e-12)
    np.testing.assert_allclose(ours.g[i, j], factor * theirs.results.rdf, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shape", CELLS)
@pytest.mark.parametrize(("a", "b"), [("Na", "S"), ("S", "S")])
def test_g_agrees_with_freud(shape, a, b):
    """To 1e-4, for freud computes in float32. Its mode 'exact' divides by N/V as we do; the origin is the middle."""
    import freud

    frames = frames_away_from_edges(shape)
    box = freud.box.Box.from_matrix(frames.cell[0].T)
    np.testing.assert_allclose(box.to_matrix().T, frames.cell[0], atol=1e-5)
    theirs = freud.density.RDF(bins=N_BINS, r_max=BIN_A * N_BINS, normalization_mode="exact")
    symbols = np.array(frames.symbols)
    query = {"mode": "ball", "r_max": BIN_A * N_BINS, "exclude_ii": a == b}
    for k in range(2):
        points = box.wrap(frames.positions[k])
        theirs.compute((box, points[symbols == b]), points[symbols == a], neighbors=query, reset=False)
    ours = pair_distribution(frames, BIN_A, BIN_A * N_BINS)
    i, j = (ours.elements.index(element) for element in (a, b))
    np.testing.assert_allclose(ours.g[i, j], theirs.rdf, atol=1e-4, rtol=1e-4)
    # freud's running number is per point it searched from, too.
    np.testing.assert_allclose(ours.coordination[i, j], theirs.n_r, rtol=1e-4)


# --- first shells -----------------------------------------------------------------------------------------------------

R = np.arange(0.025, 8.0, 0.05)


def bump(at, width, height, r=R):
    return height * np.exp(-0.5 * ((r - at) / width) ** 2)


def test_the_first_peak_is_found_between_bins_and_the_minimum_where_g_is_lowest():
    def g(r):
        return bump(2.87, 0.2, 3.0, r) + 1.2 / (1.0 + np.exp((4.2 - r) / 0.25))

    peak, minimum = first_shell(R, g(R))
    fine = np.arange(3.0, 4.5, 0.001)
    assert peak == pytest.approx(2.87, abs=0.01)
    assert minimum == pytest.approx(fine[np.argmin(g(fine))], abs=0.1)  # smoothing moves a skewed minimum


def test_the_minimum_of_an_empty_gap_is_its_middle():
    g = bump(2.05, 0.06, 12.0) * (abs(R - 2.05) < 0.3) + 1.2 * (R > 3.2)
    assert first_shell(R, g)[1] == pytest.approx((2.35 + 3.2) / 2, abs=0.06)


@pytest.mark.parametrize(
    ("g", "expected"),
    [
        (np.zeros_like(R), (None, None)),
        (0.9 * (R > 3.0), (None, None)),
        (0.5 * R, (None, None)),
        (bump(3.0, 0.2, 2.0), (pytest.approx(3.0, abs=0.01), None)),
    ],
    ids=["empty", "never above the mean", "still rising", "no second shell"],
)
def test_what_is_not_there_is_not_found(g, expected):
    assert first_shell(R, g) == expected


# --- the property -----------------------------------------------------------------------------------------------------


def rattled(random_seed, *, scale=1.0, n_frames=4):
    rng = np.random.default_rng(random_seed)
    one = Frames.from_ase([seeds.scaled(seeds.load_seed("Na3PS4_P-421c").to_atoms() * (2, 2, 2), scale)])
    noise = rng.normal(0.0, 0.05, (n_frames, one.n_atoms, 3))
    return Frames(one.symbols, np.tile(one.cell, (n_frames, 1, 1)), one.positions + noise)


def test_replicas_give_peaks_coordination_and_lines_with_errors(tmp_path):
    study = study_of()
    replicas = [rattled(1), rattled(2, scale=0.99), rattled(3)]
    found = findings_of(PROPERTY, study, study_folder(tmp_path, study, replicas))
    assert found.problems == []
    peak = number(found, "rdf_peak", pair="P-S")
    assert peak.value == pytest.approx(2.05, abs=0.03)
    assert (peak.unit, peak.n_samples) == ("Å", 3)
    assert 0.0 < peak.uncertainty < 0.02
    bonded = number(found, "coordination_number", pair="P-S", within="2.5 Å")
    assert bonded.value == pytest.approx(4.0)
    assert bonded.note == "S around P"
    assert number(found, "coordination_number", pair="P-S", within="first minimum").value == pytest.approx(4.0)
    assert number(found, "coordination_number", pair="Na-S", within="3.5 Å").note == "S around Na"
    lines = [curve for curve in found.curves if curve.name == "rdf"]
    assert [curve.label for curve in lines] == ["Na-Na", "Na-P", "Na-S", "P-P", "P-S", "S-S"]
    assert len({curve.key for curve in found.curves}) == 12
    n = {name: len(found.arrays[f"{lines[0].key}/{name}"]) for name in ("x", "y", "error")}
    assert len(set(n.values())) == 1  # as far as the smallest replica reaches
    each = [pair_distribution(frames[2:]) for frames in replicas]
    expected = np.mean([one.g[1, 2, : n["x"]] for one in each], axis=0)
    np.testing.assert_allclose(found.arrays[f"{lines[4].key}/y"], expected)


def test_a_pair_is_named_as_among_the_cutoffs_else_by_roles():
    series = study_of().glass.series
    assert pairs_of(["Na", "O", "P", "S"], series)[:5] == [
        ("Na", "Na"),
        ("Na", "P"),
        ("Na", "S"),
        ("Na", "O"),
        ("P", "P"),
    ]
    turned = series.model_copy(update={"cutoffs_A": {"S-P": 2.5}})
    assert pairs_of(["P", "S"], turned) == [("P", "P"), ("S", "P"), ("S", "S")]
    assert pairs_of(["Zn", "Cu"], series) == [("Cu", "Cu"), ("Cu", "Zn"), ("Zn", "Zn")]


def test_bin_and_range_are_those_of_the_study(tmp_path):
    study = study_of(rdf={"bin_A": 0.2, "r_max_A": 9.0})
    found = findings_of(PROPERTY, study, study_folder(tmp_path, study, [rattled(1)]))
    r = found.arrays[f"{found.curves[0].key}/x"]
    assert (len(r), r[0]) == (45, pytest.approx(0.1))
    assert f"{found.curves[0].key}/error" not in found.arrays  # of one replica there is none
    assert planned(PROPERTY, study_of(rdf=None), None) == []
