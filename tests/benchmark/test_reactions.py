"""Reactions: the energy of an alloy against a scan of its lattice constant, Hess' law, and what cannot react."""

import shutil

import pytest
import yaml
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from carried import EMT_REFERENCE, one_worker, with_reference
from made_glasses import findings_of, number, planned, results_of, run_one, study_of
from scipy.optimize import minimize_scalar

from activelearn import seeds
from activelearn.benchmark import cited, reactions
from activelearn.benchmark.property import Context
from activelearn.check import check_study
from activelearn.config import CitedPoint, Machine, load_benchmark, load_label, load_potential
from activelearn.config.benchmark import Cited
from activelearn.config.reading import load_study, with_cited
from activelearn.records import Scoreboard
from activelearn.report.scoreboard import markdown, rows_of
from activelearn.store import StudyStore
from activelearn.store.study import BENCHMARK, ONCE

SALT = {"left": {"Na2S_Fm-3m": 1}, "right": {"Na2S_Pnma": 1}}


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    with one_worker(tmp_path_factory.mktemp("logs")) as made:
        yield made


@pytest.fixture(scope="module")
def metals(tmp_path_factory):
    """Files of copper, gold and Cu3Au, none at its lattice constant in EMT."""
    folder = tmp_path_factory.mktemp("metals")
    return {name: str(write_to(folder / f"{name}.cif", cell(name, a))) for name, a in STARTS.items()}


STARTS = {"Cu": 3.7, "Au": 4.0, "Cu3Au": 3.8}


def cell(name, a):
    """Two atoms or more: a cube of copper, of gold, or of copper with gold at its corners."""
    atoms = bulk("Au" if name == "Au" else "Cu", "fcc", a=a, cubic=True)
    if name == "Cu3Au":
        atoms.symbols[0] = "Au"
    return atoms


def write_to(path, atoms):
    write(path, atoms)
    return path


def asked(metals, equations, **more):
    return {"crystals": metals, "equations": equations, "min_height_A": 3.5, "fmax": 1e-3, **more}


def scanned(name):
    """Energy of a cube at the best lattice constant, by a scan that knows nothing of forces."""

    def energy(a):
        atoms = cell(name, a)
        atoms.calc = EMT()
        return atoms.get_potential_energy()

    return minimize_scalar(energy, bounds=(3.4, 4.3), method="bounded", options={"xatol": 1e-5}).fun


ALLOY = {"left": {"Cu": 3, "Au": 1}, "right": {"Cu3Au": 1}}


def test_an_alloy_forms_with_the_energy_of_a_scan_of_lattice_constants(metals, slot, tmp_path):
    study = study_of(
        reactions=asked(metals, {"alloy": ALLOY, "back": {"left": {"Cu3Au": 2}, "right": {"Cu": 6, "Au": 2}}})
    )
    found = findings_of(reactions.PROPERTY, study, StudyStore.create(tmp_path / "s", study), slot)
    alloy = number(found, "reaction_energy", reaction="alloy", potential="toy (EMT)")
    assert alloy.value == pytest.approx(scanned("Cu3Au") - 3 * scanned("Cu") / 4 - scanned("Au") / 4, abs=1e-4)
    assert alloy.value < -0.03
    assert number(found, "reaction_energy", reaction="back").value == pytest.approx(-2.0 * alloy.value)
    assert (alloy.unit, alloy.uncertainty, alloy.n_samples, alloy.reference_value) == ("eV", None, 1, None)
    assert alloy.note.startswith("3 Cu + Au -> Cu3Au, 0 K; Cu (structure file) relaxed, ")
    assert "not relaxed" not in alloy.note


def test_a_crystal_of_several_reactions_is_relaxed_once_for_each_potential(metals, tmp_path):
    study = study_of(reactions=asked(metals, {"alloy": ALLOY, "nothing": {"left": {"Cu": 1}, "right": {"Cu": 1}}}))
    other = study.potentials[0].model_copy(update={"name": "other"})
    study = study.model_copy(update={"potentials": (*study.potentials, other)})
    tasks = planned(reactions.PROPERTY, study, StudyStore.create(tmp_path / "s", study))
    wanted = [(p, metals[c]) for p in ("toy (EMT)", "other") for c in ("Cu", "Au", "Cu3Au")]
    assert [(t.parameters["potential"], t.parameters["crystal"]) for t in tasks] == wanted
    assert len({t.id for t in tasks}) == len(tasks)


def test_what_was_not_relaxed_says_so_with_the_force_and_pressure_left(metals, slot, tmp_path):
    study = study_of(reactions=asked(metals, {"alloy": ALLOY}, max_steps=1))
    found = findings_of(reactions.PROPERTY, study, StudyStore.create(tmp_path / "s", study), slot)
    note = number(found, "reaction_energy").note
    assert "Cu3Au (structure file) not relaxed in 1 steps, " in note
    assert note.endswith(" GPa left")
    assert "§" in markdown(board_of(study, found), rows_of(found.results))


def test_a_reaction_with_an_element_that_a_potential_does_not_know_is_a_problem_and_the_others_stay(
    metals, slot, tmp_path
):
    """EMT knows no sodium and no sulphur."""
    study = study_of(reactions=asked(metals, {"salt": SALT, "alloy": ALLOY}))
    found = findings_of(reactions.PROPERTY, study, StudyStore.create(tmp_path / "s", study), slot)
    why = "Na2S_Fm-3m, Na2S_Pnma: the potential does not know Na, S"
    assert found.problems == [f"reaction salt with toy (EMT): {why}"]
    assert [one.condition for one in found.missing] == [{"potential": "toy (EMT)", "reaction": "salt"}]
    assert [one.condition["reaction"] for one in found.results] == ["alloy"]


def board_of(study, found):
    found = {
        "results": tuple(one.model_copy(update={"measured_by": "reactions"}) for one in found.results),
        "missing": tuple(found.missing),
        "problems": tuple(found.problems),
    }
    names = tuple(potential.name for potential in study.potentials)
    return Scoreboard(study="s", potentials=names, physics={}, versions={}, curves=(), asked=("reactions",), **found)


def test_each_reaction_has_a_row_and_a_potential_that_cannot_says_why(metals, slot, tmp_path):
    study = study_of(reactions=asked(metals, {"alloy": ALLOY}))
    ignorant = with_reference(
        study, EMT_REFERENCE.model_copy(update={"calculator": "odd_calculators:Unconverged"}), "odd"
    )
    study = study.model_copy(update={"potentials": (*study.potentials, *ignorant.potentials)})
    found = findings_of(reactions.PROPERTY, study, StudyStore.create(tmp_path / "s", study), slot)
    board = board_of(study, found)
    (row,) = rows_of(board.results)
    assert row.label == "reaction_energy (alloy)", "the name stands there though there is only one"
    assert "none: Cu, Au, Cu3Au: SCFError: no convergence in 60 steps" in row.of("odd", board).text
    assert row.of("toy (EMT)", board).text.endswith("(n = 1, no interval)")


# --- before any job ---------------------------------------------------------------------------------------------------


def problems_of(tmp_path=None, **given):
    study = study_of(density=False, free_volume=False, rdf=None, network=None, coordination=False, reactions=given)
    study = study.model_copy(update={"potentials": (load_potential("sevennet_0"),), "glass": None})
    return check_study(study, Machine(), here=False).problems


def test_a_reaction_that_does_not_balance_is_refused_with_the_elements_that_do_not():
    wrong = {"left": {"Na4P2S7_P212121": 1}, "right": {"Na3PS4_P-421c": 1, "Na2P2S6_P21m": 2}}
    (line,) = problems_of(equations={"edge": wrong, "salt": SALT})
    assert line == (
        "benchmark.reactions.equations.edge: Na4P2S7_P212121 -> Na3PS4_P-421c + 2 Na2P2S6_P21m is not balanced: "
        "Na 4 -> 5, P 2 -> 3, S 7 -> 10 - expected the same number of atoms of each element on both sides "
        "(Na4P2S7_P212121 is Na4P2S7, Na3PS4_P-421c is Na3PS4, Na2P2S6_P21m is NaPS3) - fix the coefficients"
    )
    wrong["right"]["Na2P2S6_P21m"] = 1
    assert problems_of(equations={"edge": wrong}) == []


def test_a_third_of_a_formula_unit_in_three_digits_does_not_balance():
    """It would shift the energy by a thousandth of a formula unit: tens of meV."""
    third = {"left": {"P4S3_Pnma": 0.333}, "right": {"P_black_exp": 4 / 3, "S8_Fddd_exp": 1}}
    (line,) = problems_of(equations={"third": third})
    assert "P 1.332 -> 1.33333, S 0.999 -> 1" in line
    third["left"] = {"P4S3_Pnma": 1 / 3}
    assert problems_of(equations={"third": third}) == []


def test_a_crystal_that_is_none_is_told_with_the_nearest(tmp_path):
    (line,) = problems_of(equations={"salt": {"left": {"Na2S_Fm3m": 1}, "right": {"Na2S_Pnma": 1}}})
    assert line.startswith(
        "benchmark.reactions.equations: Na2S_Fm3m: neither a seed nor a name in reactions.crystals - "
    )
    assert "Na2S_Fm-3m" in line
    (line,) = problems_of(
        crystals={"mine": str(tmp_path / "gone.cif")}, equations={"a": {"left": {"mine": 1}, "right": {"mine": 1}}}
    )
    assert line.startswith("benchmark.reactions.crystals: structure gone.cif: neither a seed nor a file")


def test_reactions_that_no_potential_knows_are_refused():
    study = study_of(
        density=False,
        free_volume=False,
        rdf=None,
        network=None,
        coordination=False,
        reactions={"equations": {"salt": SALT}},
    )
    study = study.model_copy(update={"potentials": (load_potential("emt"),), "glass": None})
    (line,) = check_study(study, Machine(), here=False).problems
    assert line.startswith("benchmark: nothing would be measured: no reaction of crystals of known elements - ")


def test_the_shipped_reactions_balance_and_the_last_is_the_difference_of_two():
    shipped = load_benchmark("reactions").reactions
    assert list(reactions.unbalanced(shipped, reactions.elements_of(shipped))) == []
    of = {name: reactions.coefficients(one) for name, one in shipped.equations.items()}
    crystals = {name for one in of.values() for name in one}
    for name in crystals:
        difference = of["oxygen_chain"].get(name, 0.0) - of["sulfur_chain"].get(name, 0.0)
        assert of["oxygen_minus_sulfur"].get(name, 0.0) == difference
    derived = {name for name in crystals if seeds.load_seed(shipped.structure(name)).kind == "model"}
    assert derived == {"Na4P2S7", "Na4P2S6O", "NaPS3", "NaPS2O"}


def test_files_of_reactions_are_taken_from_the_folder_of_their_yaml_and_sealed(tmp_path):
    (tmp_path / "copper.cif").write_text("")
    given = tmp_path / "mine.yaml"
    given.write_text("reactions: {crystals: {Cu: copper.cif}, equations: {a: {left: {Cu: 1}, right: {Cu: 1}}}}\n")
    found = load_benchmark(given)
    assert found.structures == (str(tmp_path / "copper.cif"),)
    study = study_of().model_copy(update={"benchmark": found})
    assert list(StudyStore.create(tmp_path / "s", study).structures()) == [str(tmp_path / "copper.cif")]


def test_a_study_whose_crystals_move_after_they_were_planned_has_its_energies(metals, slot, tmp_path):
    """The frozen plan names the places of before."""
    home = tmp_path / "here"
    home.mkdir()
    for name, path in metals.items():
        shutil.copy(path, home / f"{name}.cif")
    files = {name: f"{name}.cif" for name in metals}
    potential = {"name": "EMT", "ase": {"preset": "emt"}}
    data = {"name": "s", "potentials": [potential], "benchmark": {"reactions": asked(files, {"alloy": ALLOY})}}
    (home / "study.yaml").write_text(yaml.safe_dump(data))
    begun = StudyStore.create(home / "run", load_study(home / "study.yaml"))
    tasks = reactions.plan(begun.study.benchmark.reactions, Context(begun.study, begun))
    there = home.rename(tmp_path / "there")
    store = StudyStore(there / "run")
    store.follow(load_study(there / "study.yaml"))
    for task in tasks:
        store.publish_product(BENCHMARK, ONCE, task.id, *run_one(reactions.PROPERTY, task, store, slot))
    found = results_of(reactions.PROPERTY, store.study, store, tasks)
    assert number(found, "reaction_energy").value < -0.03


def test_a_cited_energy_stands_beside_its_reaction(metals, tmp_path):
    study = study_of(reactions={"equations": {"salt": SALT}})
    given = {"property": "reaction_energy", "value": 0.1, "unit": "eV", "source": "my DFT", "status": "user"}
    of_salt, of_none, nameless = (Cited(**given, **more) for more in ({"reaction": "salt"}, {"reaction": "no"}, {}))
    points = [CitedPoint(f"mine.csv:{k}", one) for k, one in enumerate((of_salt, of_none), 2)]
    assert list(cited.problems(study, points)) == []
    assert cited.said(study, points)[1] == "cited, not used: mine.csv:3: reaction = no: the study has salt"
    (wrong,) = cited.problems(study, [CitedPoint("mine.csv:4", nameless)])
    assert wrong.endswith("is of a reaction - expected the column reaction - add its name in the equations")
    assert of_salt in with_cited(study, [of_salt, of_none]).cited


# --- a universal potential --------------------------------------------------------------------------------------------


@pytest.mark.engines
def test_sevennet_finds_the_form_of_na3ps4_that_is_stable_in_the_cold(slot, tmp_path):
    """Tetragonal below 261 degrees C, cubic above (Jansen & Henseler 1992); 16 atoms each."""
    equations = {"cool": {"left": {"Na3PS4_I-43m": 1}, "right": {"Na3PS4_P-421c": 1}}}
    study = study_of(reactions={"equations": equations, "fmax": 0.1})
    study = with_reference(study, load_label("sevennet_0").reference, "SevenNet-0")
    found = findings_of(reactions.PROPERTY, study, StudyStore.create(tmp_path / "s", study), slot)
    cool = number(found, "reaction_energy", reaction="cool")
    assert -0.2 < cool.value < 0.0, cool.note
