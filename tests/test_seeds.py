"""Seeds: every crystal is what its file says, wrong entries are refused, known answers of the pure functions."""

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import spglib
import yaml
from ase import Atoms
from ase.build import bulk
from ase.io import write
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from activelearn.config import parse_campaign, shipped
from activelearn.errors import ConfigError
from activelearn.seeds import (
    Seed,
    factors_for_height,
    heights,
    load_seed,
    load_structure,
    perturbed,
    read_seed,
    scaled,
    seed_names,
    supercell,
)

#: A second copy of the facts (facts/seed_crystals.yaml of the project, checked there by an independent script; Cu by
#: hand: 4 x 63.546 amu in (3.6149 Å)^3, nearest neighbours a/sqrt(2)):
#: id -> space group number, content of the cell, density (g/cm3), shortest distances (Å).
FACTS = {
    "Cu_Fm-3m": (225, "Cu4", 8.9353, {"Cu-Cu": 2.556}),
    "Na2O2_P-62m": (189, "Na6 O6", 2.6223, {"Na-Na": 3.041, "Na-O": 2.308, "O-O": 1.527}),
    "Na2O_Fm-3m": (225, "Na8 O4", 2.4081, {"Na-Na": 2.775, "Na-O": 2.403, "O-O": 3.924}),
    "Na2P2S6_P21m": (11, "Na4 P4 S12", 2.1204, {"Na-S": 2.86, "P-P": 2.904, "P-S": 1.961}),
    "Na2S2_P-62m": (189, "Na6 S6", 2.1389, {"Na-Na": 3.583, "Na-S": 2.822, "S-S": 2.135}),
    "Na2S2_P63mmc": (194, "Na4 S4", 2.0489, {"Na-Na": 3.641, "Na-S": 2.807, "S-S": 2.158}),
    "Na2S4_I-42d": (122, "Na16 S32", 2.1321, {"Na-Na": 3.615, "Na-S": 2.826, "S-S": 2.061}),
    "Na2S5_Pnma": (62, "Na8 S20", 2.1106, {"Na-Na": 3.829, "Na-S": 2.846, "S-S": 2.061}),
    "Na2S_Fm-3m": (225, "Na8 S4", 1.8549, {"Na-Na": 3.269, "Na-S": 2.831}),
    "Na2S_P63mmc": (194, "Na4 S2", 2.6689, {"Na-Na": 2.92, "Na-S": 2.526, "S-S": 3.867}),
    "Na2S_Pnma": (62, "Na8 S4", 2.3377, {"Na-Na": 3.039, "Na-S": 2.625, "S-S": 3.992}),
    "Na3PO2S2_Cc": (9, "Na12 O8 P4 S8", 2.2724, {"Na-O": 2.345, "O-P": 1.548, "P-S": 2.082}),
    "Na3PO2S2_Fmm2": (42, "Na12 O8 P4 S8", 2.1905, {"Na-O": 2.451, "O-P": 1.549, "P-S": 2.084}),
    "Na3PO2S2_P21": (4, "Na6 O4 P2 S4", 2.2345, {"Na-O": 2.378, "O-P": 1.547, "P-S": 2.083}),
    "Na3PO3S_R3c": (161, "Na18 O18 P6 S6", 2.4736, {"Na-O": 2.343, "O-P": 1.545, "P-S": 2.103}),
    "Na3PO4_P-421c": (114, "Na24 O32 P8", 2.7328, {"Na-O": 2.2, "O-O": 2.469, "O-P": 1.504}),
    "Na3PS3O_Cc": (9, "Na12 O4 P4 S12", 2.1739, {"Na-O": 2.375, "O-P": 1.555, "P-S": 2.063}),
    "Na3PS3O_P21": (4, "Na6 O2 P2 S6", 2.0771, {"Na-O": 2.331, "O-P": 1.555, "P-S": 2.054}),
    "Na3PS3O_R3c": (161, "Na18 O6 P6 S18", 1.8032, {"Na-O": 2.386, "O-P": 1.566, "P-S": 2.062}),
    "Na3PS4_I-43m": (217, "Na6 P2 S8", 2.2305, {"Na-S": 2.849, "P-S": 2.03, "S-S": 3.316}),
    "Na3PS4_P-421c": (114, "Na6 P2 S8", 2.2162, {"Na-S": 2.812, "P-S": 2.046, "S-S": 3.332}),
    "Na3PS4_P-421c_JACS2020": (114, "Na6 P2 S8", 2.205, {"Na-S": 2.816, "P-S": 2.049, "S-S": 3.34}),
    "Na3P_P63cm": (185, "Na18 P6", 1.7584, {"Na-Na": 3.011, "Na-P": 2.816}),
    "Na4P2O7_P212121": (19, "Na16 O28 P8", 2.5951, {"Na-O": 2.273, "O-O": 2.454, "O-P": 1.512}),
    "Na4P2S6O_P212121": (19, "Na16 O4 P8 S24", 1.9938, {"Na-O": 2.397, "O-P": 1.671, "P-S": 2.004}),
    "Na4P2S6_C2m": (12, "Na8 P4 S12", 2.1133, {"Na-S": 2.859, "P-P": 2.251, "P-S": 2.021}),
    "Na4P2S7_P212121": (19, "Na16 P8 S28", 1.95, {"Na-S": 2.729, "P-S": 2.014, "S-S": 3.195}),
    "NaPO3_P-1": (2, "Na6 O18 P6", 2.6536, {"Na-O": 2.041, "O-O": 2.317, "O-P": 1.448}),
    "NaPO3_P-1_relaxed": (2, "Na6 O18 P6", 2.6536, {"Na-O": 2.261, "O-O": 2.38, "O-P": 1.492}),
    "NaPS2O_P-1": (2, "Na6 O6 P6 S12", 1.8629, {"Na-O": 2.662, "O-P": 1.617, "P-S": 1.94}),
    "NaPS3_P-1": (2, "Na6 P6 S18", 1.9259, {"Na-S": 2.805, "P-S": 1.953, "S-S": 2.966}),
    "NaP_P212121": (19, "Na8 P8", 2.0745, {"Na-Na": 3.287, "Na-P": 2.875, "P-P": 2.238}),
    "NaS_Fm-3m_hyp": (225, "Na4 S4", 1.9412, {"Na-Na": 4.054, "Na-S": 2.866, "S-S": 4.054}),
    "Na_bcc": (229, "Na2", 1.051, {"Na-Na": 3.614}),
    "Na_fcc": (225, "Na4", 1.0532, {"Na-Na": 3.715}),
    "Na_hcp": (194, "Na2", 1.0285, {"Na-Na": 3.729}),
    "O2_C2m_MP": (12, "O4", 1.4388, {"O-O": 1.233}),
    "O2_R-3m_MP": (166, "O6", 1.4669, {"O-O": 1.234}),
    "O2_alpha_exp": (12, "O4", 1.5304, {"O-O": 1.207}),
    "P2O5_Fdd2": (43, "O40 P16", 2.7053, {"O-O": 2.398, "O-P": 1.444, "P-P": 2.781}),
    "P2O5_Pnma": (62, "O20 P8", 2.9284, {"O-O": 2.394, "O-P": 1.437, "P-P": 2.951}),
    "P4O10_R3c": (161, "O60 P24", 2.2771, {"O-O": 2.463, "O-P": 1.43, "P-P": 2.793}),
    "P4O6_P21m": (11, "O12 P8", 2.1992, {"O-O": 2.504, "O-P": 1.638, "P-P": 2.949}),
    "P4O9_R-3c": (167, "O36 P16", 2.6363, {"O-O": 2.476, "O-P": 1.43, "P-P": 2.815}),
    "P4S10_P-1": (2, "P8 S20", 2.1088, {"P-P": 3.411, "P-S": 1.894, "S-S": 3.213}),
    "P4S3_Pnma": (62, "P16 S12", 2.1045, {"P-P": 2.223, "P-S": 2.086, "S-S": 3.194}),
    "P4S6_P21m": (11, "P8 S12", 2.1939, {"P-P": 2.255, "P-S": 1.911, "S-S": 3.254}),
    "P4S7_P21c": (14, "P16 S28", 2.2027, {"P-P": 2.327, "P-S": 1.915, "S-S": 3.247}),
    "P_black_MP": (64, "P8", 2.4363, {"P-P": 2.224}),
    "P_black_exp": (64, "P8", 2.708, {"P-P": 2.224}),
    "P_violet_P2c": (13, "P84", 2.1491, {"P-P": 2.207}),
    "P_white_C2m": (12, "P16", 1.4868, {"P-P": 2.202}),
    "P_white_P-1": (2, "P24", 1.4847, {"P-P": 2.201}),
    "S8_Fddd_exp": (70, "S128", 2.0673, {"S-S": 2.036}),
    "SO2_Aea2": (41, "O8 S4", 1.9221, {"O-O": 2.463, "O-S": 1.429, "S-S": 4.246}),
    "S_Fddd_MP": (70, "S128", 1.4697, {"S-S": 2.061}),
    "S_P212121": (19, "S72", 1.6308, {"S-S": 2.059}),
    "S_P2c": (13, "S32", 1.4778, {"S-S": 2.061}),
    "S_R-3": (148, "S18", 1.6885, {"S-S": 2.074}),
}

#: Neighbours of every centre atom of the simple packings: (centre, neighbour, cutoff in Å, number).
COORDINATION = {
    "Cu_Fm-3m": ("Cu", "Cu", 3.0, 12),
    "Na2O_Fm-3m": ("O", "Na", 2.6, 8),
    "Na2S_Fm-3m": ("S", "Na", 3.2, 8),
    "Na2S_P63mmc": ("S", "Na", 3.0, 11),  # Ni2In type: 5 + 6
    "Na3PS4_I-43m": ("Na", "S", 3.5, 8),
    "NaS_Fm-3m_hyp": ("Na", "S", 3.5, 6),
    "Na_bcc": ("Na", "Na", 3.9, 8),
    "Na_fcc": ("Na", "Na", 4.5, 12),
    "Na_hcp": ("Na", "Na", 4.5, 12),
}

#: Bond lengths up to which two atoms are bonded (Å; definitions.md, 4.1).
BONDED_A = {("P", "S"): 2.5, ("O", "P"): 2.0, ("P", "P"): 2.5, ("S", "S"): 2.4, ("O", "O"): 1.7, ("O", "S"): 1.9}
#: How many bonds the atoms of an element have to others, whichever numbers occur; X is O or S.
UNITS = {
    "Na2O2_P-62m": "O-O 1",
    "Na2P2S6_P21m": "P-X 4, P-P 0, S-P 1 2",  # edge-sharing: bridging S too
    "Na2S2_P-62m": "S-S 1",
    "Na2S2_P63mmc": "S-S 1",
    "Na2S4_I-42d": "S-S 1 2",  # chains of four
    "Na2S5_Pnma": "S-S 1 2",
    "Na2S_Fm-3m": "S-S 0",
    "Na2S_P63mmc": "S-S 0",
    "Na2S_Pnma": "S-S 0",
    "Na3PO2S2_Cc": "P-S 2, P-O 2",
    "Na3PO2S2_Fmm2": "P-S 2, P-O 2",
    "Na3PO2S2_P21": "P-S 2, P-O 2",
    "Na3PO3S_R3c": "P-S 1, P-O 3",
    "Na3PO4_P-421c": "P-O 4",
    "Na3PS3O_Cc": "P-S 3, P-O 1",
    "Na3PS3O_P21": "P-S 3, P-O 1",
    "Na3PS3O_R3c": "P-S 3, P-O 1",
    "Na3PS4_I-43m": "P-S 4",
    "Na3PS4_P-421c": "P-S 4",
    "Na3PS4_P-421c_JACS2020": "P-S 4",
    "Na3P_P63cm": "P-P 0",
    "Na4P2O7_P212121": "P-O 4, O-P 1 2",
    "Na4P2S6O_P212121": "P-S 3, P-O 1, O-P 2",  # O bridges
    "Na4P2S6_C2m": "P-X 3, P-P 1",
    "Na4P2S7_P212121": "P-S 4, S-P 1 2",
    "NaPO3_P-1": "P-O 4, O-P 1 2",
    "NaPO3_P-1_relaxed": "P-O 4, O-P 1 2",
    "NaPS2O_P-1": "P-S 2, P-O 2, O-P 2, S-P 1",  # chains, O bridges
    "NaPS3_P-1": "P-S 4, S-P 1 2",
    "NaP_P212121": "P-P 2",  # helices
    "O2_C2m_MP": "O-O 1",
    "O2_R-3m_MP": "O-O 1",
    "O2_alpha_exp": "O-O 1",
    "P2O5_Fdd2": "P-O 4, O-P 1 2",
    "P2O5_Pnma": "P-O 4, O-P 1 2",
    "P4O10_R3c": "P-O 4, O-P 1 2",
    "P4O6_P21m": "P-O 3, O-P 2",
    "P4O9_R-3c": "P-O 3 4, O-P 1 2",
    "P4S10_P-1": "P-S 4, S-P 1 2",
    "P4S3_Pnma": "P-S 1 3, P-P 0 2, S-P 2",
    "P4S6_P21m": "P-S 1 3, P-P 0 1 2",
    "P4S7_P21c": "P-S 2 4, P-P 0 1",
    "P_black_MP": "P-P 3",
    "P_black_exp": "P-P 3",
    "P_violet_P2c": "P-P 3",
    "P_white_C2m": "P-P 3",
    "P_white_P-1": "P-P 3",
    "S8_Fddd_exp": "S-S 2",  # rings
    "SO2_Aea2": "S-O 2, S-S 0, O-O 0",
    "S_Fddd_MP": "S-S 2",
    "S_P212121": "S-S 2",
    "S_P2c": "S-S 2",
    "S_R-3": "S-S 2",
}

#: No crystal brings atoms nearer than this (Å); Na-S is that of Na2S at 16.6 GPa, Na-O that of a film of 1963.
FLOOR_A = {
    "P-P": 2.15, "P-S": 1.88, "O-P": 1.40, "S-S": 2.00, "O-S": 1.41, "O-O": 1.18,
    "Na-S": 2.50, "Na-O": 2.00, "Na-P": 2.75, "Na-Na": 2.70, "Cu-Cu": 2.50,
}  # fmt: skip

#: Derived, placed or hypothetical: nobody may take them for literature.
MODELS = {
    "Na3PO2S2_Cc", "Na3PO2S2_Fmm2", "Na3PO2S2_P21", "Na3PS3O_Cc", "Na3PS3O_P21", "Na3PS3O_R3c", "Na3PS4_I-43m",
    "Na4P2S6O_P212121", "Na4P2S7_P212121", "NaPS2O_P-1", "NaPS3_P-1", "NaS_Fm-3m_hyp", "O2_alpha_exp",
}  # fmt: skip

AMU_PER_A3 = 1.66053907  # in g/cm3
every_seed = pytest.mark.parametrize("name", seed_names())


@pytest.fixture
def facts() -> dict:
    """Return the raw facts of Na3PS4, to be spoiled."""
    return yaml.safe_load((shipped("seeds") / "Na3PS4_P-421c.yaml").read_text(encoding="utf-8"))


def spoilt(facts: dict, folder: Path) -> Path:
    path = folder / f"{facts.get('id', 'x')}.yaml"
    path.write_text(yaml.safe_dump(facts), encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    """Return the sentence with which a file of facts is refused, whichever step finds the fault."""
    with pytest.raises(ConfigError) as caught:
        read_seed(path).to_atoms()
    return str(caught.value)


def shortest(atoms: Atoms, cutoff: float = 4.6) -> dict[str, float]:
    first, second, distance = neighbor_list("ijd", atoms, cutoff)
    found: dict[str, float] = {}
    for i, j, d in zip(first, second, distance, strict=True):
        pair = "-".join(sorted((atoms[i].symbol, atoms[j].symbol)))
        found[pair] = min(found.get(pair, np.inf), float(d))
    return found


# --- the shipped crystals ---------------------------------------------------------------------------------------------


def test_the_shipped_seeds_are_the_known_ones():
    assert set(FACTS) == set(seed_names())
    assert seed_names() == sorted(seed_names())


@every_seed
def test_a_seed_agrees_with_its_own_checks(name):
    assert load_seed(name).problems() == []


@every_seed
def test_a_seed_says_where_it_comes_from(name):
    seed = load_seed(name)
    path = shipped("seeds") / f"{name}.yaml"
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# Seed crystal {name}: facts only.")
    assert re.search(r"\b(18|19|20)\d\d\b", seed.source), "a source has a year"
    assert not re.search(r"data_|loop_|_cell_|_atom_|_symmetry_|FIZ", text), "no CIF in disguise"


@every_seed
def test_the_kind_of_a_seed_claims_no_more_than_its_confidence(name):
    seed = load_seed(name)
    is_derived = seed.confidence.startswith("derived")
    assert (seed.kind == "model") == (name in MODELS)
    if seed.kind == "experiment":
        assert seed.confidence.startswith("verified from")
        assert not re.search(
            "relaxed|CHGNet|SevenNet|hypothetical", f"{seed.confidence} {seed.source} {seed.provenance}"
        )
    if "hypothetical" in seed.confidence or "substitution" in seed.confidence:
        assert seed.kind == "model"
    if is_derived or "PBE-relaxed" in seed.confidence:
        assert seed.kind != "experiment"
    if "CHGNet" in seed.note or "SevenNet" in seed.note:
        assert "re-relax" in seed.note
        assert seed.kind != "experiment"


@every_seed
def test_no_two_atoms_of_a_seed_are_too_near(name):
    for pair, length in shortest(load_seed(name).to_atoms()).items():
        assert length >= FLOOR_A[pair], pair


@every_seed
def test_a_seed_names_every_pair_it_binds(name):
    seed = load_seed(name)
    found = shortest(seed.to_atoms(), max(seed.checks.shortest_A.values()))
    assert set(found) <= {"-".join(sorted(pair.split("-"))) for pair in seed.checks.shortest_A}


@pytest.mark.parametrize("name", FACTS)
def test_a_seed_equals_the_second_copy_of_the_facts(name):
    number, content, density, distances = FACTS[name]
    seed, atoms = load_seed(name), load_seed(name).to_atoms()
    composition = atoms.symbols.formula.count()
    assert " ".join(f"{element}{n}" for element, n in sorted(composition.items())) == content
    assert seed.n_atoms == len(atoms)
    assert seed.elements == set(composition)
    assert atoms.pbc.all()
    assert atoms.cell.cellpar() == pytest.approx(seed.cell.parameters, abs=1e-9)
    assert atoms.get_masses().sum() / atoms.get_volume() * AMU_PER_A3 == pytest.approx(density, rel=2e-3)
    found = shortest(atoms)
    assert {pair: found[pair] for pair in distances} == pytest.approx(distances, abs=0.01)
    dataset = spglib.get_symmetry_dataset((atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers), symprec=1e-3)
    symbol = {"Pbnm": "Pnma"}.get(seed.space_group.symbol, seed.space_group.symbol)  # P4S3: axes of the paper
    assert (dataset.number, dataset.international) == (number, symbol)


@pytest.mark.parametrize("name", UNITS)
def test_the_bonded_units_are_whole(name):
    atoms = load_seed(name).to_atoms()
    first, second = neighbor_list("ij", atoms, BONDED_A)
    elements = np.array(atoms.get_chemical_symbols())
    for bond, *numbers in (unit.split() for unit in UNITS[name].split(", ")):
        centre, neighbour = bond.split("-")
        is_neighbour = np.isin(elements[second], ["O", "S"] if neighbour == "X" else [neighbour])
        counts = np.bincount(first[is_neighbour], minlength=len(atoms))[elements == centre]
        assert set(counts.tolist()) == set(map(int, numbers)), bond


@pytest.mark.parametrize("name", COORDINATION)
def test_the_packings_have_their_neighbours(name):
    centre, neighbour, cutoff, wanted = COORDINATION[name]
    atoms = load_seed(name).to_atoms()
    first, second = neighbor_list("ij", atoms, cutoff)
    elements = np.array(atoms.get_chemical_symbols())
    counts = np.bincount(first[elements[second] == neighbour], minlength=len(atoms))[elements == centre]
    assert (counts == wanted).all()


def test_an_orbit_is_the_literature_one():
    antifluorite = load_seed("Na2S_Fm-3m").to_atoms()
    sodium = antifluorite.get_scaled_positions()[np.array(antifluorite.get_chemical_symbols()) == "Na"]
    wanted = {(x, y, z) for x in (0.25, 0.75) for y in (0.25, 0.75) for z in (0.25, 0.75)}
    assert {tuple(site) for site in sodium.round(9).tolist()} == wanted


def test_a_seed_is_immutable():
    with pytest.raises(ValueError, match="frozen"):
        load_seed("Cu_Fm-3m").formula = "Ag"


def test_rebuilding_twice_gives_the_same_bits():
    first, second = (load_seed("P4S10_P-1").to_atoms() for _ in range(2))
    assert np.array_equal(first.positions, second.positions)
    assert np.array_equal(first.cell[:], second.cell[:])


# --- wrong entries ----------------------------------------------------------------------------------------------------


def test_the_facts_fixture_is_right_before_it_is_spoilt(facts, tmp_path):
    assert read_seed(spoilt(facts, tmp_path)) == load_seed("Na3PS4_P-421c")


def test_a_coordinate_off_its_special_position_is_refused(facts, tmp_path):
    facts["sites"][0]["x"] = 0.1
    said = refusal(spoilt(facts, tmp_path))
    assert "seed Na3PS4_P-421c: sites.0: Na at (0.1, 0.5, 0.92066) has an orbit of 8 atoms" in said
    assert "expected 4 (Wyckoff 4d)" in said
    assert said.endswith("compare x, y, z and hall_number with the source, then run the same command again")


def test_a_hall_number_of_another_group_is_refused(facts, tmp_path):
    facts["space_group"]["hall_number"] = 523
    said = refusal(spoilt(facts, tmp_path))
    assert "number 114, Hall symbol 'P -4 2n' - expected number 225, Hall symbol '-F 4 2 3' of hall_number 523" in said


def test_a_wrong_multiplicity_contradicts_the_formula(facts, tmp_path):
    facts["sites"][3]["wyckoff"] = "4e"
    assert "the sites hold Na6 P2 S4 - expected Na6 P2 S8 (2 Na3PS4)" in refusal(spoilt(facts, tmp_path))


def test_a_wrong_number_of_atoms_is_refused(facts, tmp_path):
    facts["n_atoms"] = 15
    assert "the sites hold 16 atoms - expected n_atoms = 15" in refusal(spoilt(facts, tmp_path))


@pytest.mark.parametrize(
    ("section", "key", "value", "sentence"),
    [
        ("cell", "a", -6.9, "cell.a: got -6.9 - expected greater than 0"),
        ("cell", "gamma", 180.0, "cell.gamma: got 180.0 - expected less than 180"),
        ("cell", "b", math.inf, "cell.b: got inf - expected a finite number"),
        ("space_group", "number", 231, "space_group.number: got 231 - expected less than or equal to 230"),
        ("space_group", "choice", "b1", "space_group.choice: unknown key"),
        ("checks", "shortest_A", {}, "checks.shortest_A: got {}"),
        ("checks", "density_g_cm3", None, "checks.density_g_cm3: got null - expected a valid number"),
    ],
)
def test_a_value_out_of_bounds_is_refused(facts, tmp_path, section, key, value, sentence):
    facts[section][key] = value
    path = spoilt(facts, tmp_path)
    said = refusal(path)
    assert re.search(rf"{re.escape(str(path))}:\d+: {re.escape(sentence)}", said)


def test_an_unknown_key_names_the_nearest(facts, tmp_path):
    facts["licence_notes"] = facts.pop("licence_note")
    said = refusal(spoilt(facts, tmp_path))
    assert "licence_notes: unknown key - did you mean 'licence_note'?" in said
    assert "licence_note: missing" in said, "every problem is told at once"


def test_an_id_that_is_not_the_name_of_the_file_is_refused(facts, tmp_path):
    path = spoilt(facts, tmp_path).rename(tmp_path / "mine.yaml")
    assert "id: got 'Na3PS4_P-421c' - expected the file's name 'mine'" in refusal(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a: [1, 2", "did not find expected"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"[1, 2]", "seed: got [1, 2]"),
        (b"", "got null"),
    ],
)
def test_a_file_that_is_no_seed_is_refused(tmp_path, content, sentence):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    said = refusal(path)
    assert sentence in said
    assert str(path) in said


def test_a_missing_file_is_refused(tmp_path):
    assert "cannot be read" in refusal(tmp_path / "none.yaml")


def test_departures_are_told_one_by_one(facts):
    facts["cell"]["a"] = facts["cell"]["b"] = 7.2
    density, *distances = Seed.model_validate(facts).problems()
    assert density.startswith("seed Na3PS4_P-421c: density 2.0660 g/cm3 - expected 2.2162 - compare with the source")
    assert len(distances) == 5
    assert all("shortest" in line for line in distances)


def test_a_higher_symmetry_than_claimed_is_told(facts):
    facts["sites"][0]["z"] = 0.0  # Na of 4d onto 4c: still an orbit of four atoms
    facts["sites"][3].update(x=0.8, y=0.8, z=0.7)  # S onto the diagonal mirror of a higher group
    assert any("spglib finds the space group" in line for line in Seed.model_validate(facts).problems())


# --- by name or by path -----------------------------------------------------------------------------------------------


def test_an_unknown_seed_names_the_nearest():
    with pytest.raises(ConfigError) as caught:
        load_seed("Na3PS4_P-421")
    assert str(caught.value) == (
        "seed Na3PS4_P-421: unknown - did you mean 'Na3PS4_P-421c' or 'Na3PS4_I-43m' or 'Na3PS4_P-421c_JACS2020'? - "
        "all of them: activelearn seeds"
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Cu", "did you mean 'Cu_Fm-3m'?"),
        ("Na2P2S6_P21n", "did you mean 'Na2P2S6_P21m'?"),
        ("S8_Fdd", "did you mean 'S8_Fddd_exp'?"),
        ("NaPS4_P-421c", "did you mean 'Na3PS4_P-421c' or "),
        ("LiCoO2", "no seed has a similar name - all of them: activelearn seeds"),
    ],
)
def test_the_hint_is_short_and_of_the_same_formula_if_there_is_one(name, hint):
    with pytest.raises(ConfigError) as caught:
        load_seed(name)
    assert hint in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_seed_is_no_path():
    with pytest.raises(ConfigError, match="unknown"):
        load_seed("../seeds/Cu_Fm-3m")


def test_a_structure_is_a_seed_by_its_id(tmp_path):
    assert load_structure("Cu_Fm-3m", tmp_path) == load_seed("Cu_Fm-3m").to_atoms()


@pytest.mark.parametrize("name", ["start.vasp", "POSCAR", "start.extxyz", "start.cif", "sub/start.extxyz"])
def test_a_structure_is_a_file_beside_the_campaign(tmp_path, name):
    atoms = load_seed("Na4P2S6_C2m").to_atoms()[::-1]
    (tmp_path / "sub").mkdir()
    write(tmp_path / name, atoms)
    for found in (load_structure(name, tmp_path), load_structure(str(tmp_path / name), Path("/nowhere"))):
        assert found.symbols.formula.count() == atoms.symbols.formula.count()
        assert found.get_volume() == pytest.approx(atoms.get_volume(), rel=1e-6)
        assert shortest(found) == pytest.approx(shortest(atoms), abs=1e-4)
        assert found.calc is None


def test_of_several_frames_the_last_is_taken(tmp_path):
    write(tmp_path / "run.extxyz", [bulk("Cu", a=a) for a in (3.5, 3.6, 3.7)])
    assert load_structure("run.extxyz", tmp_path).get_volume() == pytest.approx(3.7**3 / 4)


def test_a_seed_of_your_own_is_a_yaml_file(facts, tmp_path):
    facts["id"] = "mine"
    spoilt(facts, tmp_path)
    assert load_structure("mine.yaml", tmp_path) == load_seed("Na3PS4_P-421c").to_atoms()


def test_a_seed_of_your_own_must_agree_with_its_checks(facts, tmp_path):
    facts.update(id="mine")
    facts["sites"][3]["x"] = 0.80755  # one digit mistyped: the orbit is still one of eight
    spoilt(facts, tmp_path)
    with pytest.raises(ConfigError, match=r"seed mine: shortest P-S 2\.203 Å - expected 2\.046"):
        load_structure("mine.yaml", tmp_path)


def test_a_name_that_is_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_structure("Na3PS4", tmp_path)
    assert f"structure Na3PS4: neither a seed nor a file ({tmp_path / 'Na3PS4'})" in str(caught.value)
    assert "did you mean 'Na3PS4_" in str(caught.value)


@pytest.mark.parametrize(
    ("atoms", "sentence"),
    [
        (Atoms("Cu", cell=[3, 3, 3], pbc=(True, True, False)), "periodic along [True, True, False]"),
        (Atoms("S2", cell=[3, 3, 0], pbc=True, positions=[(0, 0, 0), (0, 0, 2)]), "a cell without volume"),
        (Atoms("S2", positions=[(0, 0, 0), (0, 0, 2)]), "no cell - expected a crystal, or a molecule in a box"),
    ],
)
def test_a_file_without_a_crystal_is_refused(tmp_path, atoms, sentence):
    write(tmp_path / "bad.extxyz", atoms)
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        load_structure("bad.extxyz", tmp_path)


def test_a_partly_occupied_site_is_refused(tmp_path):
    write(tmp_path / "split.cif", bulk("Cu", cubic=True))
    text = (tmp_path / "split.cif").read_text(encoding="utf-8")
    assert "1.0000" in text
    (tmp_path / "split.cif").write_text(text.replace("1.0000\n", "0.5000\n"), encoding="utf-8")
    with pytest.raises(ConfigError, match="partly occupied sites - expected an ordered model"):
        load_structure("split.cif", tmp_path)


@pytest.mark.parametrize("share", ["?", ".", "1.000(2)"])
def test_an_occupancy_that_is_not_given_is_one(tmp_path, share):
    write(tmp_path / "cu.cif", bulk("Cu", cubic=True))
    text = (tmp_path / "cu.cif").read_text(encoding="utf-8")
    (tmp_path / "cu.cif").write_text(text.replace("1.0000\n", f"{share}\n"), encoding="utf-8")
    assert len(load_structure("cu.cif", tmp_path)) == 4


@pytest.mark.parametrize(("share", "is_taken"), [(1.0, True), (0.0, True), (0.5, False)])
def test_occupancies_of_a_pdb_file_count_as_those_of_a_cif(tmp_path, share, is_taken):
    image = bulk("Cu", cubic=True)
    image.set_array("occupancy", np.full(4, share))
    write(tmp_path / "cu.pdb", image)
    if is_taken:
        assert len(load_structure("cu.pdb", tmp_path)) == 4
        return
    with pytest.raises(ConfigError, match=r"cu\.pdb: partly occupied sites - expected an ordered model"):
        load_structure("cu.pdb", tmp_path)


#: beta-Na3PS4 as a database has it: Na on a split site, a quarter full.
SPLIT_CIF = """data_split
_cell_length_a 6.978
_cell_length_b 6.978
_cell_length_c 6.978
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'I -4 3 m'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
P1 P 0 0 0 1
S1 S 0.16799 0.16799 0.16799 1
Na1 Na {x} 0.5 0 {occupancy}
"""


def test_a_cif_of_a_split_site_is_refused_and_an_ordered_one_read(tmp_path):
    (tmp_path / "split.cif").write_text(SPLIT_CIF.format(x=0.0606, occupancy=0.25), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"split\.cif: partly occupied sites - expected an ordered model"):
        load_structure("split.cif", tmp_path)
    (tmp_path / "ordered.cif").write_text(SPLIT_CIF.format(x=0, occupancy=1), encoding="utf-8")
    assert shortest(load_structure("ordered.cif", tmp_path)) == pytest.approx(
        shortest(load_seed("Na3PS4_I-43m").to_atoms()), abs=1e-6
    )


def test_a_molecule_is_refused_in_the_plain_format_too(tmp_path):
    (tmp_path / "so2.xyz").write_text("3\n\nS 0 0 0\nO 1.43 0 0\nO -0.7 1.25 0\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"so2\.xyz: no cell - expected a crystal, or a molecule in a box of three"):
        load_structure("so2.xyz", tmp_path)


def test_a_file_that_ase_cannot_read_is_refused(tmp_path):
    (tmp_path / "broken.cif").write_text("buy copper", encoding="utf-8")
    with pytest.raises(ConfigError, match="ASE cannot read it"):
        load_structure("broken.cif", tmp_path)


@pytest.mark.parametrize("name", ["notes.txt", "structure", "start.lmp"])
def test_a_file_whose_name_says_nothing_is_to_be_renamed(tmp_path, name):
    (tmp_path / name).write_text("buy copper", encoding="utf-8")
    with pytest.raises(ConfigError, match="expected a structure file with a telling name, such as POSCAR"):
        load_structure(name, tmp_path)


def test_importing_seeds_does_not_import_ase_or_spglib():
    code = "import sys, activelearn.seeds; print([m for m in ('ase', 'spglib') if m in sys.modules])"
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- heights and repetition -------------------------------------------------------------------------------------------

#: Cells well away from flat: a unit cell plus less than what could close it.
cells = arrays(np.float64, (3, 3), elements=st.floats(-0.3, 0.3)).map(lambda e: 5.0 * (np.eye(3) + e))


def test_heights_of_an_orthorhombic_cell_are_its_edges():
    assert heights(np.diag([3.0, 4.0, 5.0])) == pytest.approx([3.0, 4.0, 5.0])


def test_heights_of_a_hexagonal_cell():
    hexagonal = np.array([[4.0, 0.0, 0.0], [-2.0, 2.0 * math.sqrt(3.0), 0.0], [0.0, 0.0, 7.0]])
    assert heights(hexagonal) == pytest.approx([2.0 * math.sqrt(3.0), 2.0 * math.sqrt(3.0), 7.0])


def test_heights_of_the_primitive_fcc_cell_are_the_111_spacings():
    a = 3.6149
    assert heights(np.asarray(bulk("Cu", a=a).cell)) == pytest.approx(3 * [a / math.sqrt(3.0)])


def test_a_long_vector_of_a_skewed_cell_may_span_a_thin_slab():
    assert heights(np.array([[10.0, 0, 0], [0, 10.0, 0], [8.0, 0, 2.0]]))[2] == pytest.approx(2.0)


@given(cell=cells)
def test_heights_are_the_inverse_lengths_of_the_reciprocal_vectors(cell):
    assert heights(cell) == pytest.approx(1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0), rel=1e-9)


@given(cell=cells)
def test_heights_do_not_know_handedness(cell):
    assert heights(cell[[1, 0, 2]]) == pytest.approx(heights(cell)[[1, 0, 2]])


@pytest.mark.parametrize(
    "cell",
    [np.zeros((3, 3)), np.array([[1.0, 0, 0], [0, 1.0, 0], [1.0, 1.0, 0]]), np.eye(3) * np.nan, np.eye(2)],
)
def test_a_cell_without_heights_is_refused(cell):
    with pytest.raises(ConfigError, match="fix the structure"):
        heights(cell)


@given(cell=cells, least=st.floats(0.1, 40.0))
def test_factors_are_the_smallest_that_reach_the_height(cell, least):
    factors = np.array(factors_for_height(cell, least))
    reached = heights(factors[:, None] * cell)
    assert (reached >= least * (1.0 - 1e-8)).all()
    assert ((factors == 1) | (heights(cell) * (factors - 1) < least)).all(), "one less would not do"


def test_factors_of_na3ps4_for_a_cutoff_of_six():
    atoms = load_seed("Na3PS4_P-421c").to_atoms()
    assert factors_for_height(np.asarray(atoms.cell), 6.0) == (1, 1, 1)
    assert factors_for_height(np.asarray(atoms.cell), 7.0) == (2, 2, 1)
    assert factors_for_height(np.asarray(atoms.cell), 2 * 6.952) == (2, 2, 2)


@pytest.mark.parametrize("least", [0.0, -1.0, math.nan, math.inf])
def test_a_height_that_cannot_be_reached_is_refused(least):
    with pytest.raises(ConfigError, match="min_height_A: got"):
        factors_for_height(np.eye(3), least)


def test_a_supercell_holds_whole_copies():
    atoms = load_seed("Na3PS4_P-421c").to_atoms()
    big = supercell(atoms, (1, 2, 3))
    assert len(big) == 96
    assert big.get_chemical_symbols() == 6 * atoms.get_chemical_symbols()
    assert np.asarray(big.cell) == pytest.approx(np.asarray(atoms.cell) * [[1], [2], [3]])
    assert big.positions[16:32] == pytest.approx(atoms.positions + atoms.cell[2]), "the last vector runs fastest"
    assert shortest(big) == pytest.approx(shortest(atoms))
    assert len(atoms) == 16, "the argument is untouched"


@pytest.mark.parametrize("factors", [(0, 1, 1), (1, -2, 1), (1, 1, 1.5)])
def test_a_supercell_of_nothing_is_refused(factors):
    with pytest.raises(ConfigError, match="expected three integers >= 1"):
        supercell(bulk("Cu"), factors)


# --- scaling and distortion -------------------------------------------------------------------------------------------


@given(scale=st.floats(0.5, 1.5))
def test_a_scale_is_linear(scale):
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    before = atoms.copy()
    out = scaled(atoms, scale)
    assert np.asarray(out.cell) == pytest.approx(scale * np.asarray(atoms.cell))
    assert out.get_volume() == pytest.approx(scale**3 * atoms.get_volume())
    assert out.get_scaled_positions() == pytest.approx(atoms.get_scaled_positions(), abs=1e-12)
    assert atoms == before


@pytest.mark.parametrize("scale", [0.0, -0.95, math.nan, math.inf])
def test_a_scale_that_is_none_is_refused(scale):
    with pytest.raises(ConfigError, match="linear_scale: got"):
        scaled(bulk("Cu"), scale)


def strain_of(before: Atoms, after: Atoms) -> np.ndarray:
    return np.linalg.solve(np.asarray(before.cell), np.asarray(after.cell)) - np.eye(3)


@settings(max_examples=50)
@given(random_seed=st.integers(0, 2**32 - 1), f=st.floats(0.0, 0.3), p=st.floats(0.0, 0.5))
def test_a_distortion_stays_within_its_amplitudes(random_seed, f, p):
    atoms = load_seed("P4S10_P-1").to_atoms()
    before = atoms.copy()
    out = perturbed(atoms, np.random.default_rng(random_seed), positions_A=p, cell_fraction=f)
    strain = strain_of(atoms, out)
    assert strain == pytest.approx(strain.T, abs=1e-12), "no rotation"
    assert np.abs(strain).max() <= f + 1e-12
    moved = out.positions - atoms.positions @ (np.eye(3) + strain)
    assert np.abs(moved).max() <= p + 1e-9
    assert out.get_volume() > 0.0
    assert atoms == before


def test_a_distortion_fills_its_amplitudes_evenly():
    """Uniform in [-f, f] and [-p, p]: mean 0 and variance a third of the square, off-diagonal entries as well."""
    atoms, rng = supercell(bulk("Cu", cubic=True), (2, 2, 2)), np.random.default_rng(7)
    outs = [perturbed(atoms, rng, positions_A=0.01, cell_fraction=0.03) for _ in range(400)]
    strains = np.array([strain_of(atoms, out) for out in outs]) / 0.03
    assert (strains**2).mean(axis=0) == pytest.approx(np.full((3, 3), 1.0 / 3.0), abs=0.08)  # 4 sigma: 0.06
    assert strains.mean(axis=0) == pytest.approx(np.zeros((3, 3)), abs=0.15)
    moved = np.concatenate([out.positions - atoms.positions @ (np.eye(3) + strain_of(atoms, out)) for out in outs])
    assert (moved**2).mean(axis=0) == pytest.approx(np.full(3, 0.01**2 / 3.0), rel=0.05)
    assert np.abs(moved).max() == pytest.approx(0.01, rel=1e-3)


def test_the_same_generator_gives_the_same_distortion():
    first, second = (
        perturbed(bulk("Cu"), np.random.default_rng(3), positions_A=0.01, cell_fraction=0.03) for _ in range(2)
    )
    assert np.array_equal(first.positions, second.positions)
    assert np.array_equal(first.cell[:], second.cell[:])


def test_the_stream_does_not_depend_on_the_amplitudes():
    rngs = [np.random.default_rng(3) for _ in range(2)]
    for rng, amplitude in zip(rngs, (0.0, 0.02), strict=True):
        perturbed(bulk("Cu"), rng, positions_A=amplitude, cell_fraction=amplitude)
    assert rngs[0].random() == rngs[1].random()


def test_no_amplitude_no_distortion():
    atoms = bulk("Cu", cubic=True)
    out = perturbed(atoms, np.random.default_rng(3), positions_A=0.0, cell_fraction=0.0)
    assert out.positions == pytest.approx(atoms.positions, abs=1e-15)
    assert np.asarray(out.cell) == pytest.approx(np.asarray(atoms.cell))


@pytest.mark.parametrize(
    ("amplitudes", "sentence"),
    [
        ({"positions_A": -0.01, "cell_fraction": 0.03}, "positions_A: got -0.01 - expected a length >= 0"),
        ({"positions_A": math.nan, "cell_fraction": 0.03}, "positions_A: got nan"),
        ({"positions_A": 0.01, "cell_fraction": 0.34}, "cell_fraction: got 0.34 - expected 0 <= fraction < 1/3"),
        ({"positions_A": 0.01, "cell_fraction": -0.1}, "cell_fraction: got -0.1"),
    ],
)
def test_an_amplitude_out_of_bounds_is_refused(amplitudes, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        perturbed(bulk("Cu"), np.random.default_rng(3), **amplitudes)


# --- the paper's initial data -----------------------------------------------------------------------------------------


def test_the_initial_data_of_luo_et_al_are_a_preset():
    raw = yaml.safe_load((shipped("params") / "campaign" / "copper_emt.yaml").read_text(encoding="utf-8"))
    raw |= {"type_map": ["Na", "P", "S", "O"], "initial": {"preset": "luo2024"}}
    campaign = parse_campaign(raw, where="test")
    initial = campaign.initial
    assert initial.scales == (0.95, 1.0, 1.05)
    assert (initial.perturb.positions_A, initial.perturb.cell_fraction) == (0.01, 0.03)
    assert (initial.md.n_steps, initial.md.every, initial.md.temperatures_K) == (10, 1, (300.0,))
    assert initial.relax.fmax == 0.01
    assert len(initial.cells) * initial.copies == 4 * 30
    formulas = [load_seed(system.seed).formula for system in initial.systems]
    assert formulas == ["Na3PO2S2", "Na3PSO3", "Na3PS3O", "NaPS3"]
    for system, n_atoms in zip(initial.systems, (128, 384, 128, 160), strict=True):
        built = supercell(load_seed(system.seed).to_atoms(), system.supercell)
        assert len(built) == n_atoms
        assert 0.95 * heights(built.cell.array).min() * (1.0 - 0.09) > 6.0, "the most compressed copy holds the cutoff"


@pytest.mark.parametrize("name", ["x" * 3000, "~nobody-of-that-name/x.vasp", "a\0b"])
def test_a_name_that_no_file_can_have_is_no_seed(tmp_path, name):
    with pytest.raises(ConfigError, match="neither a seed nor a file"):
        load_structure(name, tmp_path)
