"""Networks: known answers of crystals and molecules in any cells, and a slow witness."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list
from ase.spacegroup import crystal
from hypothesis import given, settings
from hypothesis import strategies as st

from activelearn.benchmark.bonds import chain_sizes, find_bonds
from activelearn.benchmark.census import census
from activelearn.config import Roles
from activelearn.frames import Frames
from activelearn.seeds import factors_for_height, load_seed, perturbed, seed_names, supercell

ROLES = Roles(formers={"P": 3}, anions=("S", "O"), modifiers={"Na": 1}, carrier="Na")
CUTOFFS = {("P", "P"): 2.5, ("P", "S"): 2.5, ("P", "O"): 2.0, ("S", "S"): 2.4, ("S", "O"): 1.9, ("O", "O"): 1.7}
SILICATE = Roles(formers={"Si": 4}, anions=("O",), modifiers={"Na": 1})
#: The table of the definitions: every other share of a unit or an anion is zero.
KNOWN = {
    "Na3PS4_P-421c": {"P0": 100, "NBS": 100},
    "Na3PS4_I-43m": {"P0": 100, "NBS": 100},
    "Na3PO4_P-421c": {"P0": 100, "NBO": 100},
    "Na3PO3S_R3c": {"P0": 100, "NBS": 25, "NBO": 75},
    "Na4P2O7_P212121": {"P1": 100, "BO": 100 / 7, "NBO": 600 / 7},
    "Na4P2S7_P212121": {"P1": 100, "BS": 100 / 7, "NBS": 600 / 7},
    "Na4P2S6_C2m": {"P1": 100, "P1P": 100, "NBS": 100},
    "Na2P2S6_P21m": {"P2": 100, "P2ES": 100, "BS": 100 / 3, "NBS": 200 / 3},
    "NaPO3_P-1_relaxed": {"P2": 100, "P2_corner": 100, "BO": 100 / 3, "NBO": 200 / 3},
    "P4S10_P-1": {"P3": 100, "BS": 60, "NBS": 40},
    "P2O5_Fdd2": {"P3": 100, "BO": 60, "NBO": 40},
    "P2O5_Pnma": {"P3": 100, "BO": 60, "NBO": 40},
    "P4O6_P21m": {"P3": 100, "P3c": 100, "BO": 100},
    "Na2S5_Pnma": {"free_S": 100, "free_S_in_chains": 100, "S_in_chains": 100, "S_chain_length": 5},
    "Na2S4_I-42d": {"free_S": 100, "free_S_in_chains": 100, "S_in_chains": 100, "S_chain_length": 4},
    "Na2S2_P63mmc": {"free_S": 100, "free_S_in_chains": 100, "S_in_chains": 100, "S_chain_length": 2},
    "Na2S_Fm-3m": {"free_S": 100},
    "Na2O2_P-62m": {"free_O": 100, "free_O_in_chains": 100, "O_in_chains": 100, "O_chain_length": 2},
    "SO2_Aea2": {"free_S": 100 / 3, "free_O": 200 / 3, "O-S_bonds": 100},
}


def of_atoms(atoms, roles=ROLES, cutoffs=CUTOFFS):
    """Counts of one structure, as plain numbers."""
    return {name: float(value[0]) for name, value in census(Frames.from_ase([atoms]), cutoffs, roles).values.items()}


def told(values):
    """What is neither nothing nor undefined."""
    return {name: value for name, value in values.items() if np.isfinite(value) and abs(value) > 1e-12}


def in_box(symbols, positions, side=15.0):
    return Atoms(symbols, positions=positions, cell=[side] * 3, pbc=True)


# --- crystals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("repeat", [(1, 1, 1), (2, 1, 3)], ids=["as it is", "supercell"])
def test_crystals_give_the_known_answers(name, repeat):
    assert told(of_atoms(supercell(load_seed(name).to_atoms(), repeat))) == pytest.approx(KNOWN[name])


def test_the_sum_of_charges_is_exact_for_every_crystal_of_sodium_and_phosphorus():
    seeds = {name: load_seed(name).to_atoms() for name in seed_names()}
    found = {name: of_atoms(atoms) for name, atoms in seeds.items() if {"Na", "P"} <= set(atoms.symbols)}
    assert len(found) == 22
    assert {name: values["charge_rule"] for name, values in found.items()} == pytest.approx(dict.fromkeys(found, 0.0))
    assert {name: values["bridging_rule"] for name, values in found.items()} == pytest.approx(dict.fromkeys(found, 0.0))


def test_the_sum_of_charges_sees_what_is_not_balanced_and_does_not_judge_five_neighbours():
    atoms = supercell(load_seed("Na3PS4_P-421c").to_atoms(), (2, 2, 2))
    less = atoms.copy()
    del less[np.flatnonzero(atoms.symbols == "Na")[:16]]  # one of three
    assert of_atoms(less)["charge_rule"] == pytest.approx(1.0)
    five = in_box("PS5", [[0, 0, 0], [2, 0, 0], [-2, 0, 0], [0, 2, 0], [0, -2, 0], [0, 0, 2]])
    assert np.isnan(of_atoms(five)["charge_rule"])
    assert of_atoms(five)["P_other"] == 100


def skewed(atoms):
    """The same crystal in another primitive cell: long, flat, and turned about no axis of the crystal."""
    out = atoms.copy()
    out.set_cell(np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1]]) @ atoms.cell[:])
    out.rotate(37.0, (1.0, 2.0, 3.0), rotate_cell=True)
    return out


def unwrapped(atoms):
    out = atoms.copy()
    out.positions += np.random.default_rng(1).integers(-3, 4, (len(atoms), 3)) @ atoms.cell[:]
    return out


def shuffled(atoms):
    return atoms[np.random.default_rng(2).permutation(len(atoms))]


@pytest.mark.parametrize("change", [skewed, unwrapped, shuffled], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ["Na4P2O7_P212121", "Na2P2S6_P21m", "NaPO3_P-1_relaxed", "P4S10_P-1", "Na2S4_I-42d"])
def test_it_does_not_matter_how_a_crystal_is_written_down(name, change):
    atoms = perturbed(load_seed(name).to_atoms(), np.random.default_rng(3), positions_A=0.03, cell_fraction=0.01)
    changed = change(atoms)
    assert of_atoms(changed) == pytest.approx(of_atoms(atoms), nan_ok=True)
    assert told(of_atoms(changed)) == pytest.approx(KNOWN[name])


def test_quartz_is_all_four_bridges():
    quartz = crystal(
        ["Si", "O"],
        [(0.4697, 0.0, 1 / 3), (0.2669, 0.4135, 0.7858)],
        spacegroup=152,
        cellpar=[4.9134, 4.9134, 5.4052, 90, 90, 120],
    )
    found = of_atoms(quartz, SILICATE, {("Si", "O"): 2.0})
    assert found["Si4"] == found["BO"] == 100
    assert (found["charge_rule"], found["Si_other"], found["Si3c"]) == (0, 0, 0)


# --- molecules ------------------------------------------------------------------------------------------------------


def test_a_pair_of_phosphorus_is_p1p_only_without_bridges_and_with_three_anions_each():
    ends = [[-0.7, 1.9, 0], [-0.7, -0.95, 1.6], [-0.7, -0.95, -1.6]]
    whole = {"P1": 100, "P1P": 100, "NBS": 100, "charge_rule": 2}  # P2S6 4-
    s3p_ps3 = [[0, 0, 0], [2.2, 0, 0], *ends, *([2.2 - x, y, z] for x, y, z in ends)]
    assert told(of_atoms(in_box("P2S6", s3p_ps3))) == pytest.approx(whole)
    one_lost = told(of_atoms(in_box("P2S5", s3p_ps3[:-1])))
    assert one_lost["P1"] == 100
    assert one_lost["P3c"] == 50
    assert "P1P" not in one_lost


def test_three_phosphorus_in_a_row_are_a_chain_and_two_are_none():
    sulfur = [[-0.7, 1.9, 0], [-0.7, -1.9, 0], [2.2, 0, 2], [2.2, 0, -2], [5.1, 1.9, 0], [5.1, -1.9, 0]]
    row = in_box("P3S6", [[0, 0, 0], [2.2, 0, 0], [4.4, 0, 0], *sulfur])
    found = census(Frames.from_ase([row]), CUTOFFS, ROLES)
    assert told(of_atoms(row)) == pytest.approx(
        {"P1": 200 / 3, "P2": 100 / 3, "P2_corner": 100 / 3, "P3c": 200 / 3, "former_chains": 100, "NBS": 100}
        | {"charge_rule": 5 / 3}
    )
    assert found.chains["P"].tolist() == [[0, 0, 0, 100]]
    del row[[2, 7, 8]]
    assert of_atoms(row)["former_chains"] == 0


def test_three_coordinate_and_missing_neighbours_are_told_apart():
    pyramid = [[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2]]
    found = told(of_atoms(in_box("PS3", pyramid)))
    assert found == pytest.approx({"P0": 100, "P3c": 100, "NBS": 100, "charge_rule": 3})
    assert of_atoms(in_box("PS2", pyramid[:3]))["P_other"] == 100


def test_chains_of_sulfur_keep_the_class_of_their_atoms():
    """A P-S-S-S tail: the S on phosphorus is non-bridging and in the chain, the two others are free and in it."""
    tail = in_box("PS5", [[0, 0, 0], [2, 0, 0], [3, 1.8, 0], [5, 1.8, 0], [0, 2, 0], [0, 0, 2]])
    found = told(of_atoms(tail))
    assert (found["NBS"], found["free_S"], found["free_S_in_chains"]) == pytest.approx((60, 40, 40))
    assert found["charge_rule"] == pytest.approx(3)  # PS4 3- with two neutral S more
    assert (found["S_in_chains"], found["S_chain_length"], found["S_chains_of_three"]) == pytest.approx((60, 3, 100))


def test_anions_on_three_formers_are_bridging_and_a_defect():
    star = in_box("OP3", [[0, 0, 0], [1.6, 0, 0], [-0.8, 1.4, 0], [-0.8, -1.4, 0]])
    found = of_atoms(star)
    assert (found["BO"], found["three_bonded_anions"], found["P1"]) == (100, 100, 100)
    assert np.isnan(found["bridging_rule"])


def test_the_sum_of_charges_takes_in_an_anion_on_three_formers():
    """P3O10 5-: one O on three PO3, and five sodium."""
    turns = [np.array([np.cos(a), np.sin(a), 0.0]) for a in (0.0, 2 * np.pi / 3, -2 * np.pi / 3)]
    oxygen = [1.6 * out + 1.5 * np.array(tip) for out in turns for tip in (0.5 * out, [0, 0, 1], [0, 0, -1])]
    atoms = in_box("OP3O9", [np.zeros(3), *(1.6 * out for out in turns), *oxygen])
    atoms.positions[4::3] += 0.7 * np.array(turns)
    atoms += in_box("Na5", [[8, 8, 2.0 * k] for k in range(5)])
    found = told(of_atoms(atoms))
    assert found == pytest.approx({"P1": 100, "BO": 10, "NBO": 90, "three_bonded_anions": 10})


def test_units_are_named_by_their_former_in_a_glass_of_two():
    roles = Roles(formers={"Si": 4, "P": 3}, anions=("S", "O"), modifiers={"Na": 1})
    cutoffs = CUTOFFS | {("Si", "O"): 2.0, ("Si", "S"): 2.6, ("Si", "P"): 2.6}
    ends = [[-0.6, 1.4, 0], [-0.6, -0.7, 1.2], [-0.6, -0.7, -1.2]]
    other = [[3.2 - 1.3 * x, 1.3 * y, 1.3 * z] for x, y, z in ends]
    atoms = in_box("SiPO4S3", [[0, 0, 0], [3.2, 0, 0], [1.6, 0, 0], *ends, *other])
    atoms += in_box("Na5", [[10, 10, 2.0 * k] for k in range(5)])
    found = told(of_atoms(atoms, roles, cutoffs))
    assert found == pytest.approx({"Si1": 100, "P1": 100, "BO": 100 / 7, "NBO": 300 / 7, "NBS": 300 / 7})


# --- images in small cells ------------------------------------------------------------------------------------------


def chain_of(n_cells, bridges):
    """One P per 3.2 Å along x, bonded to its images by one or two S, with two S at its sides or none."""
    sulfur = [*[[1.6, 1.4, 0], [1.6, -1.4, 0]][:bridges], [0, -1.2, 1.6], [0, -1.2, -1.6]]
    unit = Atoms(f"PS{len(sulfur)}", positions=[[0, 0, 0], *sulfur], cell=[3.2, 12, 12], pbc=True)
    return unit.repeat((n_cells, 1, 1))


@pytest.mark.parametrize("n_cells", [1, 2, 3, 5])
def test_edges_are_told_from_corners_even_if_all_neighbours_are_images(n_cells):
    """In cells of one and two the one neighbour is met on both sides: two corners with it are no edge."""
    corners = of_atoms(chain_of(n_cells, bridges=1))
    assert (corners["P2"], corners["P2ES"], corners["P2_corner"]) == (100, 0, 100)
    assert corners["BS"] == pytest.approx(100 / 3)
    edges = of_atoms(chain_of(n_cells, bridges=2))
    assert (edges["P4"], edges["P2ES"], edges["BS"]) == pytest.approx((100, 100, 50))


@pytest.mark.parametrize("name", ["Na2S5_Pnma", "P4S3_Pnma", "NaPO3_P-1", "Na_bcc", "SO2_Aea2"])
def test_bonds_are_those_of_ase_images_and_all(name):
    atoms = unwrapped(load_seed(name).to_atoms())
    cutoffs = CUTOFFS | {("Na", "S"): 3.5, ("Na", "Na"): 6.5, ("P", "Na"): 7.0}  # beyond the cell
    bonds = find_bonds(Frames.from_ase([atoms, atoms]), cutoffs)
    i, j, shift = neighbor_list("ijS", atoms, {pair: cutoff - 1e-9 for pair, cutoff in cutoffs.items()})
    witness = Counter(zip(i, j, *shift.T, strict=True))
    for begin in (0, len(atoms)):
        mine = (bonds.i >= begin) & (bonds.i < begin + len(atoms))
        assert Counter(zip(bonds.i[mine] - begin, bonds.j[mine] - begin, *bonds.shift[mine].T, strict=True)) == witness
    i, j = bonds.i % len(atoms), bonds.j % len(atoms)
    vectors = atoms.positions[j] - atoms.positions[i] + bonds.shift @ atoms.cell[:]
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(bonds.distance)
    for kind, pair in enumerate(bonds.pairs):
        of_kind = bonds.kind == kind
        ends = zip(atoms.symbols[i[of_kind]], atoms.symbols[j[of_kind]], strict=True)
        assert {frozenset(both) for both in ends} <= {frozenset(pair)}
        assert (bonds.distance[of_kind] < cutoffs[pair]).all()


def test_nothing_is_found_where_nothing_is():
    sodium = Frames.from_ase([load_seed("Na_bcc").to_atoms()])
    assert len(find_bonds(sodium, CUTOFFS).i) == 0
    assert census(sodium, CUTOFFS, ROLES).values == {}
    assert census(sodium[:0], CUTOFFS, ROLES).values == {}
    assert chain_sizes(find_bonds(sodium, CUTOFFS)).tolist() == [1, 1]


def test_many_frames_are_counted_as_one_by_one(monkeypatch):
    """Also if they are taken in blocks, and the longest chains of the blocks differ."""
    rng = np.random.default_rng(4)
    crystal = load_seed("Na2S5_Pnma").to_atoms()
    frames = Frames.from_ase(
        [perturbed(crystal, rng, positions_A=a, cell_fraction=0.0) for a in (0.0, 0.9, 0.4, 0, 0.6)]
    )
    monkeypatch.setattr("activelearn.benchmark.census._BLOCK_ATOMS", 2 * len(crystal))
    whole, parts = (
        census(frames, CUTOFFS, ROLES),
        [census(frame, CUTOFFS, ROLES) for frame in (frames[k] for k in range(5))],
    )
    for name, values in whole.values.items():
        assert values == pytest.approx([part.values[name][0] for part in parts], nan_ok=True)
    for k, part in enumerate(parts):
        shorter = part.chains["S"][0]
        assert whole.chains["S"][k][: len(shorter)].tolist() == shorter.tolist()
    assert whole.chains["S"].sum(axis=1) == pytest.approx(100)


# --- a witness that goes from atom to atom --------------------------------------------------------------------------


def witness(atoms):
    """Count units and anions by loops over atoms; in cells of 10 Å (two bonds there, two back) images are no matter."""
    symbols = atoms.get_chemical_symbols()
    near = {k: set() for k in range(len(atoms))}
    for a, b in zip(*neighbor_list("ij", atoms, CUTOFFS), strict=True):
        near[a].add(b)
    formers = [k for k, s in enumerate(symbols) if s == "P"]
    anions = [k for k, s in enumerate(symbols) if s in "SO"]
    of = {k: {m for m in near[k] if symbols[m] == "P"} for k in near}
    bound = {k: near[k] - of[k] for k in near}
    bridges = {k: {m for m in bound[k] if len(of[m]) > 1} for k in formers}
    n = {k: len(bridges[k]) + len(of[k]) for k in formers}
    edge = {k for a, b in combinations(formers, 2) if len(bound[a] & bound[b]) > 1 for k in (a, b)}
    half = {k for k in formers if len(of[k]) == 1 and not bridges[k] and len(bound[k]) == 3}
    c = {k: len(near[k]) for k in formers}
    masks = {f"P{m}": [n[k] == m for k in formers] for m in range(4)}
    masks |= {
        "P4": [n[k] > 3 for k in formers],
        "P1P": [k in half and of[k] <= half for k in formers],
        "P3c": [c[k] == 3 for k in formers],
        "P2ES": [k in edge for k in formers],
        "P2_corner": [n[k] == 2 and k not in edge for k in formers],
        "P_other": [c[k] not in (3, 4) for k in formers],
    }
    for s in "SO":
        masks[f"B{s}"] = [symbols[k] == s and len(of[k]) > 1 for k in anions]
        masks[f"NB{s}"] = [symbols[k] == s and len(of[k]) == 1 for k in anions]
        masks[f"free_{s}"] = [symbols[k] == s and not of[k] for k in anions]
    masks["three_bonded_anions"] = [len(of[k]) > 2 for k in anions]
    masks["O-S_bonds"] = [any(symbols[m] != symbols[k] for m in bound[k]) for k in anions]
    found = {name: 100 * np.mean(mask) for name, mask in masks.items()}
    for s in "PS":
        sizes = chains(near, [k for k, symbol in enumerate(symbols) if symbol == s])
        n_in = sum(size for size in sizes if size > (2 if s == "P" else 1))
        if sizes:
            found["former_chains" if s == "P" else "S_in_chains"] = 100 * n_in / sum(sizes)
    return found


def chains(near, members):
    """Sizes of the connected parts of a graph, by walking it."""
    left, sizes = set(members), []
    while left:
        part, edge = set(), {left.pop()}
        while edge:
            part |= edge
            edge = {m for k in edge for m in near[k]} & left
            left -= edge
        sizes.append(len(part))
    return sizes


@settings(max_examples=60)
@given(
    st.sampled_from(["Na4P2S6O_P212121", "P4S7_P21c", "Na2P2S6_P21m", "P4O9_R-3c", "Na3PS3O_R3c"]),
    st.integers(0, 2**31),
    st.floats(0.0, 0.8),
    st.floats(0.8, 1.05),
)
def test_random_structures_are_counted_as_a_walk_from_atom_to_atom_counts_them(name, random_seed, amplitude, scale):
    atoms = load_seed(name).to_atoms()
    atoms.set_cell(atoms.cell[:] * scale, scale_atoms=True)
    atoms = supercell(atoms, factors_for_height(atoms.cell[:], 10.1))
    rng = np.random.default_rng(random_seed)
    atoms.positions += rng.uniform(-amplitude, amplitude, atoms.positions.shape)
    atoms.symbols[rng.permutation(np.flatnonzero(np.isin(atoms.symbols, ["S", "O"])))[::3]] = "O"
    counted = of_atoms(atoms)
    expected = witness(atoms)
    assert {key: counted[key] for key in expected} == pytest.approx(expected)
    assert sum(counted[f"P{n}"] for n in range(5)) == pytest.approx(100)
    assert sum(counted[f"{kind}{s}"] for kind in ("B", "NB", "free_") for s in "SO") == pytest.approx(100)
    assert np.isnan(counted["bridging_rule"]) or counted["bridging_rule"] == pytest.approx(0)
