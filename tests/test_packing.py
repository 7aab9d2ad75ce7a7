"""Packing: exact stoichiometry, exact density, whole molecules, and a refusal in words for what cannot be."""

import hashlib
import time
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers
from ase.io import read, write
from ase.neighborlist import neighbor_list
from hypothesis import given, reject
from hypothesis import strategies as st
from pydantic import ValidationError

from activelearn import packing
from activelearn.config import Packed, shipped
from activelearn.errors import ConfigError, EngineError
from activelearn.frames import Frames

engines = pytest.mark.engines


def thiophosphate(**more):
    return Packed(**{"units": {"Na2S": 1.5, "P2S5": 0.5}, "n_atoms": 64, "density_g_cm3": 2.0, **more})


# --- how many ---------------------------------------------------------------------------------------------------------

#: Na3PS4-xOx, 200 formula units (Luo et al. 2024): x, units, atoms.
NA3PS4 = [
    (0.00, {"Na2S": 300, "P2S5": 100}, {"Na": 600, "P": 200, "S": 800}),
    (0.15, {"Na2S": 300, "P2S5": 94, "P2O5": 6}, {"Na": 600, "P": 200, "S": 770, "O": 30}),
    (0.30, {"Na2S": 300, "P2S5": 88, "P2O5": 12}, {"Na": 600, "P": 200, "S": 740, "O": 60}),
    (0.60, {"Na2S": 300, "P2S5": 76, "P2O5": 24}, {"Na": 600, "P": 200, "S": 680, "O": 120}),
]


def without_zeros(units):
    return {formula: amount for formula, amount in units.items() if amount > 1e-9}


@pytest.mark.parametrize(("x", "units", "atoms"), NA3PS4)
def test_the_glasses_of_na3ps4_oxysulfide_have_1600_atoms_exactly(x, units, atoms):
    mixture = without_zeros({"Na2S": 1.5, "P2S5": 0.5 - x / 5, "P2O5": x / 5})
    assert packing.solve(mixture, 1600) == units
    exact = Packed(units=mixture, n_units=200, density_g_cm3=2.0)
    assert packing.counts_of(exact) == units
    volume = packing.box_of(exact) ** 3
    densities = packing.number_densities(exact)
    assert {element: round(n * volume, 6) for element, n in densities.items()} == atoms


@pytest.mark.parametrize("half_steps", range(11))
def test_the_glasses_of_na4p2s7_oxysulfide_are_exact_with_120_formula_units(half_steps):
    x = half_steps / 2
    mixture = without_zeros({"Na2S": 2, "P2S5": 1 - x / 5, "P2O5": x / 5})
    counts = packing.counts_of(Packed(units=mixture, n_units=120, density_g_cm3=2.0))
    assert counts == without_zeros({"Na2S": 240, "P2S5": 120 - 24 * x, "P2O5": 24 * x})
    atoms = Counter()
    for formula, n in counts.items():
        atoms.update({element: n * m for element, m in Counter(Atoms(formula).get_chemical_symbols()).items()})
    assert atoms == without_zeros({"Na": 480, "P": 240, "S": 120 * (7 - x), "O": 120 * x})
    assert atoms.total() == 1560
    assert packing.solve(mixture, 1560) == counts


@given(
    st.lists(st.fractions(min_value=Fraction(1, 40), max_value=9, max_denominator=40), min_size=2, max_size=3),
    st.integers(200, 500_000),
)
def test_the_ratio_is_exact_and_the_size_is_the_nearest(amounts, n_atoms):
    units = dict(zip(("Na2S", "P2S5", "SiO2"), amounts, strict=False))
    floats = {formula: float(amount) for formula, amount in units.items()}
    size = {"Na2S": 3, "P2S5": 7, "SiO2": 3}
    try:
        counts = packing.solve(floats, n_atoms)
    except ConfigError:
        reject()
    assert len({Fraction(counts[formula]) / amount for formula, amount in units.items()}) == 1
    total = sum(size[formula] * n for formula, n in counts.items())
    step = total // np.gcd.reduce([*counts.values()])
    assert total % step == 0
    assert abs(total - n_atoms) <= step / 2 or total == step
    assert abs(total - n_atoms) <= 0.25 * n_atoms


def test_a_size_that_stoichiometry_does_not_allow_is_refused_with_those_it_does():
    units = {"Na2S": 1.5, "P2S5": 0.47, "P2O5": 0.03}
    with pytest.raises(ConfigError, match=r"n_atoms = 128: .* - expected one of 800, 1600, 2400 .*multiples of 800"):
        packing.solve(units, 128)
    with pytest.raises(ConfigError, match="one of 800, 1600"):
        packing.solve(units, 1150)
    assert packing.solve(units, 1001) == {"Na2S": 150, "P2S5": 47, "P2O5": 3}


def test_units_are_not_cut_into_parts():
    assert packing.counts_of(thiophosphate(n_atoms=None, n_units=16)) == {"Na2S": 24, "P2S5": 8}
    with pytest.raises(ConfigError, match="n_units = 15: would cut units into parts - expected a multiple of 2"):
        packing.counts_of(thiophosphate(n_atoms=None, n_units=15))


@pytest.mark.parametrize("amount", [0.33333, 2**0.5, 1e-5])
def test_an_amount_that_is_no_simple_fraction_is_refused(amount):
    with pytest.raises(ConfigError, match=r"units\.P2S5: .* expected an integer or a fraction .* such as 0\.85"):
        packing.solve({"Na2S": 1.0, "P2S5": amount}, 1000)


@pytest.mark.parametrize("formula", ["Xy2O", "X2O"])
def test_an_element_that_does_not_exist_is_refused(formula):
    with pytest.raises(ConfigError, match=f"units.{formula}: no element X"):
        packing.describe(thiophosphate(units={formula: 1}))


# --- the section ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_units": 3}, "got both of n_atoms and n_units - expected exactly one"),
        ({"n_atoms": None}, "got none of n_atoms and n_units - expected exactly one"),
        ({"units": {}}, "at least 1 item"),
        ({"units": {"Na2S": 0}}, "greater than 0"),
        ({"units": {"na2s": 1}}, "should match pattern"),
        ({"units": {"Na0": 1}}, "should match pattern"),
        ({"density_g_cm3": -1}, "greater than 0"),
        ({"tolerance_A": 0}, "greater than 0"),
        ({"geometry": {"P2O5": "a.xyz"}}, r"geometry contains P2O5 - expected formulas of units: \['Na2S', 'P2S5'\]"),
        ({"sha256": {"P2O5": "0"}}, "sha256 contains P2O5"),
        ({"density": 2.0}, "Extra inputs"),
    ],
)
def test_a_section_that_says_nothing_packable_is_refused(change, said):
    with pytest.raises(ValidationError, match=said):
        thiophosphate(**change)


def test_check_has_one_line_to_print():
    assert (
        packing.describe(thiophosphate(n_atoms=128))
        == "Na48P16S64 (128 atoms, 16 x [1.5 Na2S + 0.5 P2S5], 2.00 g/cm3, box 14.5 Å)"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"tolerance_A": 3.3},
            "would fill 7[0-9]% of the box - expected at most 64% .* lower density_g_cm3 or",
        ),
        ({"density_g_cm3": 9.0}, "9 g/cm3 .* lower density_g_cm3"),
        ({"n_atoms": 16}, r"a box of 7\.2 Å is too small for a unit 6\.3 Å long .* expected 8\.3 Å - raise n_atoms"),
        ({"n_atoms": None, "n_units": 2}, "raise n_units"),
    ],
)
def test_what_has_no_room_is_refused_before_packmol_searches(change, said):
    with pytest.raises(ConfigError, match=said):
        packing.describe(thiophosphate(**change))


def test_the_volume_that_spheres_cover_counts_their_overlap_once():
    radius, apart = 1.3, 1.0
    alone = 4.0 / 3.0 * np.pi * radius**3
    lens = np.pi * (2 * radius - apart) ** 2 * (apart**2 + 4 * apart * radius) / (12 * apart)  # two equal spheres
    assert packing._covered(np.zeros((1, 3)), radius) == pytest.approx(alone, rel=0.02)
    pair = np.array([[0.0, 0.0, 0.0], [0.0, apart, 0.0]])
    assert packing._covered(pair, radius) == pytest.approx(2 * alone - lens, rel=0.02)


# --- geometries -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "bridging", "terminal", "cutoff"),
    [("P2S5", (2.07, 2.15), (1.88, 2.06), 2.5), ("P2O5", (1.58, 1.66), (1.43, 1.53), 2.0)],
)
def test_a_shipped_unit_is_two_groups_that_share_a_corner(formula, bridging, terminal, cutoff):
    path = shipped("params") / "units" / f"{formula}.xyz"
    assert "SevenNet" in path.read_text().splitlines()[1], "says where it comes from"
    unit = read(path)
    symbols = np.array(unit.get_chemical_symbols())
    i, j, d = neighbor_list("ijd", unit, cutoff)
    assert {tuple(sorted(pair)) for pair in zip(symbols[i], symbols[j], strict=True)} == {
        tuple(sorted(("P", formula[2])))
    }
    bonds = np.bincount(i, minlength=7)
    assert sorted(bonds[symbols == "P"]) == [3, 3]
    assert sorted(bonds[symbols != "P"]) == [1, 1, 1, 1, 2]
    is_bridge = np.maximum(bonds[i] * (symbols[i] != "P"), bonds[j] * (symbols[j] != "P")) == 2
    assert bridging[0] <= d[is_bridge].min() <= d[is_bridge].max() <= bridging[1]
    assert terminal[0] <= d[~is_bridge].min() <= d[~is_bridge].max() <= terminal[1]


@pytest.fixture
def water(tmp_path):
    path = tmp_path / "water.xyz"
    write(path, Atoms("HOH", positions=[[0.76, 0.59, 0.0], [0.0, 0.0, 0.0], [-0.76, 0.59, 0.0]]))
    return path


@engines
def test_a_geometry_of_ones_own_is_packed_whole_and_a_unit_without_one_as_atoms(tmp_path, slot, water):
    own = Packed(units={"H2O": 1}, n_units=20, density_g_cm3=0.9, geometry={"H2O": str(water)})
    bare = own.model_copy(update={"geometry": {}})
    for packed, lengths in ((own, {0.96}), (bare, set())):
        frame = packing.pack(packed, random_seed=1, folder=tmp_path / "packmol", slot=slot)
        assert frame.symbols == ("H",) * 40 + ("O",) * 20
        assert {round(d, 2) for d in neighbor_list("d", frame.to_ase()[0], 1.2)} == lengths


@pytest.mark.parametrize(
    ("formula", "content", "said"),
    [
        ("H2O2", None, "holds H2O - expected H2O2 - fix"),
        ("H2O", "no structure", "cannot be read .* expected an xyz file"),
        ("H2O", "", "cannot be read"),
        ("H2O", "3\n\nO 0 0 0.1\nH 0 1 0\nH 1 0 0\n", "is not the file that the campaign started with"),
    ],
)
def test_a_wrong_geometry_is_refused(water, formula, content, said):
    sha256 = hashlib.sha256(water.read_bytes()).hexdigest()
    if content is not None:
        water.write_text(content)
    files = {"geometry": {formula: str(water)}, "sha256": {formula: sha256}}
    with pytest.raises(ConfigError, match=said):
        packing.describe(Packed(units={formula: 1}, n_units=20, density_g_cm3=0.9, **files))


def test_a_geometry_that_is_not_there_is_refused(tmp_path):
    missing = {"H2O": str(tmp_path / "none.xyz")}
    with pytest.raises(ConfigError, match=r"geometry\.H2O: .*none\.xyz: cannot be read"):
        packing.describe(Packed(units={"H2O": 1}, n_units=20, density_g_cm3=0.9, geometry=missing))


# --- packing ----------------------------------------------------------------------------------------------------------


@engines
@pytest.mark.parametrize("random_seed", [1, 2, 3])
def test_a_packed_cell_has_its_density_its_distances_and_its_molecules_whole(tmp_path, slot, random_seed):
    packed = Packed(units={"Na2S": 2, "P2S5": 0.5, "P2O5": 0.5}, n_atoms=130, density_g_cm3=2.1, tolerance_A=2.3)
    frame = packing.pack(packed, random_seed=random_seed, folder=tmp_path / "packmol", slot=slot)
    assert (len(frame), frame.n_atoms, frame.pbc, frame.is_labelled) == (1, 130, (True, True, True), False)
    assert list(frame.symbols) == sorted(frame.symbols)
    assert frame.formula == "Na40O25P20S45"
    edge = frame.cell[0, 0, 0]
    assert np.array_equal(frame.cell[0], np.eye(3) * edge)
    mass = sum(atomic_masses[atomic_numbers[symbol]] for symbol in frame.symbols)
    assert mass / frame.volume[0] / 0.602214076 == pytest.approx(2.1, rel=1e-8), "g/cm3 by Avogadro's number"
    assert frame.positions.min() >= 0.0
    assert frame.positions.max() < edge
    # All P-S below 2.2 Å and P-O below 2.0 Å are bonds of the five P2S5 and the five P2O5: two PX3 that share an X.
    atoms = frame.to_ase()[0]
    symbols = np.array(frame.symbols)
    bonds = neighbor_list("ijd", atoms, {("P", "S"): 2.2, ("P", "O"): 2.0})
    neighbours = [Counter(symbols[bonds[1][bonds[0] == i]]) for i in range(130)]
    assert Counter(tuple(n.items()) for n, s in zip(neighbours, symbols, strict=True) if s == "P") == {
        (("S", 3),): 10,
        (("O", 3),): 10,
    }
    assert Counter(n["P"] for n, s in zip(neighbours, symbols, strict=True) if s == "S") == {0: 20, 1: 20, 2: 5}
    assert Counter(n["P"] for n, s in zip(neighbours, symbols, strict=True) if s == "O") == {1: 20, 2: 5}
    i, j = neighbor_list("ij", atoms, 0.9 * 2.3)
    assert all("P" in {symbols[a], symbols[b]} for a, b in zip(i, j, strict=True)), "nothing short but bonds"


@engines
def test_the_same_seed_gives_the_same_cell_bit_for_bit(tmp_path, slot):
    first, again, other = (
        packing.pack(thiophosphate(), random_seed=seed, folder=tmp_path / name, slot=slot)
        for seed, name in ((11, "a"), (11, "b"), (12, "a"))
    )
    assert first.structure_key(0, "") == again.structure_key(0, "") != other.structure_key(0, "")


def test_units_left_too_close_by_a_packmol_that_says_success_are_refused():
    frame = Frames(("Na", "S", "S"), np.eye(3)[None] * 10.0, np.array([[[0.2, 5, 5], [9.0, 5, 5], [7.5, 5, 5]]]))
    packing._want_apart(frame, np.array([0, 0, 1]), 1.4)
    packing._want_apart(frame, np.array([0, 0, 0]), 1.8)
    with pytest.raises(EngineError, match=r"left Na-S 1\.20 Å apart - expected at least 1\.80 Å"):
        packing._want_apart(frame, np.array([0, 1, 1]), 1.8)


@engines
@pytest.mark.performance
def test_a_glass_of_1600_atoms_is_packed_in_seconds(tmp_path, slot):
    units = {"Na2S": 1.5, "P2S5": 0.47, "P2O5": 0.03}
    packed = Packed(units=units, n_units=200, density_g_cm3=2.0)
    started = time.perf_counter()
    frame = packing.pack(packed, random_seed=1, folder=tmp_path, slot=slot)
    seconds = time.perf_counter() - started
    print(f"1600 atoms packed in {seconds:.1f} s")
    assert frame.formula == "Na600O30P200S770"
    assert seconds < 30.0
