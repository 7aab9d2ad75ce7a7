"""Network and coordination as properties: replicas, cutoffs, crossings and evolution, from glasses made by hand."""

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list
from made_glasses import findings_of, glass_path, planned

from activelearn.benchmark import coordination, network
from activelearn.benchmark.census import bond_cutoffs
from activelearn.config import Study
from activelearn.errors import ConfigError
from activelearn.frames import Frames, make_origin
from activelearn.records import Glasses, MadeGlass
from activelearn.seeds import load_seed, perturbed
from activelearn.store import StudyStore
from activelearn.store.glass_product import GlassProduct, publish_glass, read_glass
from activelearn.store.study import BENCHMARK, GLASS, ONCE

CUTOFFS = {("P", "P"): 2.5, ("P", "S"): 2.5, ("P", "O"): 2.0, ("S", "S"): 2.4, ("S", "O"): 1.9, ("O", "O"): 1.7}

SERIES = {
    "name": "made_up",
    "title": "Na4P2S7-xOx",
    "compositions": [{"x": float(x), "units": {"Na2S": 2, "P2S5": 1}, "density_g_cm3": 2.0} for x in (0, 1, 3)],
    "roles": {"formers": {"P": 3}, "anions": ["S", "O"], "modifiers": {"Na": 1}},
    "cutoffs_A": {"-".join(pair): cutoff for pair, cutoff in CUTOFFS.items()} | {"Na-S": 3.5, "Na-O": 3.0},
}
SEGMENTS = [
    {"name": "melt", "temperature_K": 1500, "ps": 2, "n_frames": 2},
    {"name": "quench", "temperature_K": 1500, "to_temperature_K": 300, "rate_K_per_ps": 100, "n_frames": 3},
    {"name": "room", "temperature_K": 300, "ps": 2, "n_frames": 2, "is_analysed": True},
]
STUDY = {
    "name": "test",
    "potentials": [
        {
            "name": "toy",
            "ase": {"calculator": "ase.calculators.emt:EMT", "functional": "none", "includes_dispersion": False},
        }
    ],
    "glass": {"series": SERIES, "n_atoms": 104, "n_replicas": 2, "segments": SEGMENTS},
    "benchmark": {},
}


def study_of(**over):
    return Study.model_validate({**STUDY, **over})


def oxygen_in(atoms, n_bridging, n_terminal):
    """Na4P2S7 with oxygen in these numbers of bridging and terminal sites."""
    out = atoms.copy()
    n_formers = np.bincount(neighbor_list("i", atoms, {("P", "S"): 2.5}), minlength=len(atoms))
    out.symbols[np.flatnonzero((atoms.symbols == "S") & (n_formers == 2))[:n_bridging]] = "O"
    out.symbols[np.flatnonzero((atoms.symbols == "S") & (n_formers == 1))[:n_terminal]] = "O"
    for k in np.flatnonzero(out.symbols == "O"):  # P-O bonds are shorter
        near = [m for m in np.flatnonzero(atoms.symbols == "P") if atoms.get_distance(k, m, mic=True) < 2.5]
        to = np.mean([atoms.get_distance(k, m, mic=True, vector=True) for m in near], axis=0)
        out.positions[k] += to if len(near) == 2 else 0.25 * to
    return out


@pytest.fixture
def made(tmp_path):
    """A store with finished glasses of three compositions, two replicas each, that differ in one bridge at x = 1."""
    crystal = load_seed("Na4P2S7_P212121").to_atoms()
    oxygen = {0.0: ((0, 0), (0, 0)), 1.0: ((1, 3), (2, 3)), 3.0: ((4, 20), (4, 20))}
    return store_of(tmp_path, {x: [oxygen_in(crystal, *sites) for sites in both] for x, both in oxygen.items()})


def store_of(folder, structures):
    """A store with finished glasses that look like these structures: {x: one for each replica}."""
    store = StudyStore.create(folder / "study", study_of())
    glasses = []
    for x, replicas in structures.items():
        for replica, atoms in enumerate(replicas):
            glass = MadeGlass(
                id=f"toy-x{x:g}-r{replica}",
                potential="toy",
                x=x,
                replica=replica,
                formula=str(atoms.symbols),
                n_atoms=len(atoms),
                ended="finished",
                n_judged=7,
                outside_share=0.5,
                is_trusted=False,
            )
            glasses.append(glass)
            publish(store, glass, atoms, np.random.default_rng(replica))
    store.seal(GLASS, ONCE, Glasses(glasses=tuple(glasses)))
    return store


def publish(store, glass, atoms, rng):
    images = [perturbed(atoms, rng, positions_A=0.02, cell_fraction=0.0) for _ in range(7)]
    images[0].positions[atoms.symbols == "P"] += 3.0  # torn from their anions
    origin = make_origin(7, temperature_K=[1500, 1500, 1500, 900, 300, 300, 300])
    frames = Frames.from_ase(images)
    frames = Frames(frames.symbols, frames.cell, frames.positions, origin=origin)
    path = glass_path(
        frames,
        frames.volume,
        segments=("melt", "quench", "room"),
        analysed=(2,),
        frame_segment=np.array([0, 0, 1, 1, 1, 2, 2]),
        frame_time_ps=np.array([1.0, 2, 0, 6, 12, 1, 2]),
    )
    publish_glass(store, glass.id, GlassProduct(path))


def test_results_are_averages_over_replicas_with_their_error_stamp_and_sensitivity(made):
    found = findings_of(network.PROPERTY, made.study, made)
    at = {(r.name, r.condition["x"]): r for r in found.results if "x" in r.condition}
    assert (at["P1", 0.0].value, at["P1", 0.0].uncertainty, at["P1", 0.0].n_samples) == (100, 0, 2)
    assert at["P1", 0.0].unit == "%"
    assert at["P1", 0.0].stamp == "UNTRUSTED: 50.0 % of frames outside the window"
    assert at["P1", 0.0].note == "±0.1 Å: +0 / +0"
    assert at["charge_rule", 0.0].value == pytest.approx(0.0)
    assert at["charge_rule", 0.0].unit == "1"
    # One replica has one oxygen in four bridges, the other two: the error is half their difference.
    assert at["BO", 1.0].value == pytest.approx(100 * 1.5 / 28)
    assert at["BO", 1.0].uncertainty == pytest.approx(100 * 0.5 / 28)
    names = {r.name for r in found.results}
    assert {"P0", "P1", "P2", "P3", "P1P", "P3c", "P2ES", "P2_corner", "P_other", "former_chains"} <= names
    assert {"S_in_chains", "BO", "BS", "NBO", "NBS", "free_O", "free_S", "charge_rule"} <= names
    assert not {"P4", "bridging_rule"} & names


def test_bridging_anions_cross_where_the_mean_curves_do(made):
    found = findings_of(network.PROPERTY, made.study, made)
    crossing = {r.name: r for r in found.results if r.name.startswith("crossing")}
    # O - S of four bridges: -4, -1 (mean of -2 and 0), +4 at x = 0, 1, 3.
    assert crossing["crossing_BO_BS"].value == pytest.approx(1 + 2 * 1 / 5)
    assert crossing["crossing_BO_BS"].uncertainty == pytest.approx(2 / 25 * 4 * 1.0)
    assert crossing["crossing_BO_BS"].condition == {"potential": "toy"}
    # Of 24 terminal sites 0, 3, 20 are oxygen: differences -24, -18, 16.
    assert crossing["crossing_NBO_NBS"].value == pytest.approx(1 + 2 * 18 / 34)
    assert found.problems == []


def test_what_cannot_be_measured_is_said(tmp_path):
    """No crossing where oxygen never takes over; five neighbours in one of two analysed frames, or in both."""
    crystal = load_seed("Na4P2S7_P212121").to_atoms()
    five = crystal.copy()
    k = int(np.flatnonzero(five.symbols == "P")[0])
    five.positions[np.flatnonzero(five.symbols == "Na")[0]] = five.positions[k] + [1.0, 1.0, 0.4]
    five.symbols[np.flatnonzero(five.symbols == "Na")[0]] = "O"
    store = store_of(tmp_path, {0.0: [crystal, five], 1.0: [five, five]})
    found = findings_of(network.PROPERTY, store.study, store)
    rule = [r for r in found.results if r.name == "charge_rule"]
    assert [(r.condition["x"], r.n_samples, r.note) for r in rule] == [
        (0.0, 1, "±0.1 Å: +0 / +0; of 50 % of the frames")
    ]
    assert found.problems == [
        "charge_rule of toy, x = 1.0: not applicable: a P of more than 4 neighbours in every frame",
        "crossing_BO_BS of toy: no crossing within the series",
        "crossing_NBO_NBS of toy: no crossing within the series",
    ]


def test_the_evolution_is_drawn_against_temperature_where_it_falls_and_against_time_elsewhere(made):
    found = findings_of(network.PROPERTY, made.study, made)
    lines = [c for c in found.curves if c.name == "evolution" and c.label == "P1" and c.condition["x"] == 0.0]
    assert [(c.condition["segment"], c.x_name) for c in lines] == [
        ("melt", "t (ps)"),
        ("quench", "T (K)"),
        ("room", "t (ps)"),
    ]
    melt, quench, _ = (found.arrays[f"{c.key}/y"] for c in lines)
    assert melt[0] < 100  # torn
    assert melt[1:] == pytest.approx(100)
    assert quench == pytest.approx(100)
    assert found.arrays[f"{lines[1].key}/x"].tolist() == [1500, 900, 300]
    assert len({c.key for c in found.curves}) == len(found.curves)
    sizes = next(c for c in found.curves if c.name == "chain_sizes" and c.label == "S")
    assert found.arrays[f"{sizes.key}/x"].tolist() == [2, 3]
    assert found.arrays[f"{sizes.key}/y"].tolist() == [0, 0]


def test_coordination_of_the_modifier_and_its_shares(made):
    found = findings_of(coordination.PROPERTY, made.study, made)
    at = {(r.name, r.condition["x"]): r for r in found.results}
    assert at["Na_coordination", 0.0].note == "r(Na-S) = 3.5 Å, r(Na-O) = 3 Å"
    assert at["Na_S_share", 0.0].value == 100
    assert at["Na_S_share", 3.0].value + at["Na_O_share", 3.0].value == pytest.approx(100)
    frames = read_glass(made, "toy-x0-r0").dense.frames[5:]
    by_ase = [len(neighbor_list("i", a, {("Na", "S"): 3.5})) / 2 / 16 for a in frames.to_ase()]
    assert made.read_product(BENCHMARK, ONCE, "coordination-toy-x0-r0")[0]["Na-S"] == pytest.approx(by_ase)


def test_coordination_of_antifluorite_in_the_primitive_cell():
    sites, cell = [[0, 0, 0], [0.25] * 3, [0.75] * 3], 3.263 * (1 - np.eye(3))
    primitive = Atoms("SNa2", scaled_positions=sites, cell=cell, pbc=True)
    for atoms in (primitive, primitive.repeat((3, 2, 2))):
        found = coordination.coordination(Frames.from_ase([atoms]), {("Na", "S"): 3.5, ("Na", "O"): 3.0})
        assert {pair: value.tolist() for pair, value in found.items()} == {"Na-S": [4.0], "Na-O": [0.0]}


def test_a_cutoff_that_is_missing_is_said_and_nothing_is_planned_that_is_not_asked_for(tmp_path):
    few = {**SERIES, "cutoffs_A": {"P-S": 2.5, "Na-S": 3.5}}
    study = study_of(glass={**STUDY["glass"], "series": few})
    store = StudyStore.create(tmp_path / "few", study)
    with pytest.raises(ConfigError, match="cutoffs_A: no P-O - expected the cutoff of every former and anion"):
        planned(network.PROPERTY, study, store)
    with pytest.raises(ConfigError, match="cutoffs_A: no Na-O - expected the radius"):
        planned(coordination.PROPERTY, study, store)
    none = study_of(benchmark={"network": None, "coordination": False})
    assert planned(network.PROPERTY, none, store) == planned(coordination.PROPERTY, none, store) == []
    assert planned(network.PROPERTY, study_of(), store) == []  # no glass yet


def test_cutoffs_are_shifted_together():
    series = study_of().glass.series
    longer = bond_cutoffs(series, 0.1)
    assert longer == {pair: pytest.approx(CUTOFFS.get(pair, CUTOFFS.get(pair[::-1])) + 0.1) for pair in longer}
    assert len(longer) == 6
