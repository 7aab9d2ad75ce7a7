"""Studies: after a campaign through the same FireWorks edge, and on their own from the command line."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from campaigns import cli, end_sessions, machine_file
from conftest import made_once
from test_glass import direct

from activelearn import loop, study
from activelearn.config import Benchmark, Glass, Machine, Potential, load_series
from activelearn.engines import process
from activelearn.errors import ConfigError, StoreError, Unfit
from activelearn.records import End
from activelearn.show import end_report
from activelearn.store import Store, StudyStore
from activelearn.workflow import build_workflow, run_local

COPPER = {
    "name": "copper",
    "title": "Cu",
    "compositions": [{"x": 0.0, "units": {"Cu": 1}, "density_g_cm3": 8.5}],
    "roles": {"formers": {"Cu": 1}, "anions": ["O"]},
    "cutoffs_A": {"Cu-O": 2.2},
}
SEGMENTS = [
    {"name": "melt", "temperature_K": 300, "ps": 0.02, "n_frames": 2},
    {"name": "glass", "ensemble": "npt-iso", "temperature_K": 100, "ps": 0.02, "n_frames": 4, "is_analysed": True},
]
DYNAMICS = {"timestep_fs": 1.0, "thermo_every_ps": 0.005}
GLASS = {"series": COPPER, "n_atoms": 32, "n_replicas": 2, "dynamics": DYNAMICS, "segments": SEGMENTS}
MEASURED = {
    "parity": {"max_frames": 3},
    "force_error": {"n_frames": 2},
    "network": None,
    "coordination": False,
    "free_volume": False,
}
#: Soft spheres, so that any packing is a liquid: the machinery without the minutes.
SOFT = {
    "name": "Soft (LJ)",
    "lammps": {"pair_style": "lj/cut 6.0", "pair_coeff": ["* * 0.05 2.3"], "elements": ["Na", "P", "S"]},
    "functional": "none",
    "includes_dispersion": False,
}
TINY_GLASS = {
    "series": "na3ps4o",
    "x": [0.0],
    "n_atoms": 64,
    "n_replicas": 1,
    "dynamics": {"timestep_fs": 1.0, "thermo_every_ps": 0.01},
    "segments": [
        {"name": "melt", "temperature_K": 600, "ps": 0.05, "n_frames": 2},
        {"name": "glass", "ensemble": "npt-iso", "temperature_K": 300, "ps": 0.05, "n_frames": 5, "is_analysed": True},
    ],
}


@pytest.fixture(scope="session")
def followed(undisturbed, tmp_path_factory):
    """The finished tiny campaign, asked for a glass and a benchmark, to which it goes on by itself: (Store, End).

    Nobody may write into it.
    """

    def make(folder):
        store = Store.open(shutil.copytree(undisturbed[0].folder, folder / "c"))
        assert loop.next_phase(store) is None
        glass, measured = Glass.model_validate(GLASS), Benchmark.model_validate(MEASURED)
        store.accept(store.latest_campaign().model_copy(update={"glass": glass, "benchmark": measured}))
        process.allow_engines()
        try:
            return run_local(store, Machine(slots=2, min_free_disk_GB=0.0)).model_dump_json()
        finally:
            end_sessions()

    folder, end = made_once(tmp_path_factory, "followed", make)
    return Store.open(folder / "c"), End.model_validate_json(end)


@pytest.mark.engines
class TestAfterACampaign:
    def test_the_verdict_stays_that_of_the_campaign_and_nothing_is_left_to_do(self, followed):
        store, end = followed
        assert end.iteration == 2
        assert loop.next_phase(store) is None

    def test_the_study_has_glasses_judged_by_the_final_ensemble(self, followed):
        place = StudyStore.open(followed[0].folder / "study-002")
        made = study.glasses_of(place).glasses
        assert [glass.id for glass in made] == ["tiny-copper-x0-r0", "tiny-copper-x0-r1"] or len(made) == 2
        assert all(glass.n_judged > 0 and glass.outside_share is not None for glass in made)
        assert all(glass.n_atoms == 32 for glass in made)
        assert [(glass.n_overflow, glass.overflow_share) for glass in made] == [(0, 0.0)] * 2, "every frame was counted"

    def test_its_scoreboard_has_parity_with_the_held_out_frames(self, followed):
        place = StudyStore.open(followed[0].folder / "study-002")
        board = study.scoreboard_of(place)
        names = {result.name for result in board.results}
        assert {"force_rmse", "energy_mae"} <= names
        assert not [problem for problem in board.problems if "parity" in problem]
        assert (place.folder / "tables" / "scoreboard.md").is_file()

    def test_its_scoreboard_has_the_true_error_of_each_glass_by_the_reference_of_the_campaign(self, followed):
        place = StudyStore.open(followed[0].folder / "study-002")
        board = study.scoreboard_of(place)
        of_each = [r for r in board.results if r.name == "force_error_rmse" and "replica" in r.condition]
        assert [r.n_samples for r in of_each] == [2, 2]
        assert all(0.0 < r.value < 5.0 for r in of_each)
        emt = json.loads((place.folder / "reference.json").read_text())["ase.calculators.emt:EMT"]
        by = f"against ase.calculators.emt:EMT {emt['version']} ({emt['functional']}); at or above f_hi "
        assert all(r.note.startswith(by) for r in of_each)
        ratios = [r for r in board.results if r.name == "force_error_per_deviation"]
        assert [r.condition.get("replica") for r in ratios] == [0, 1, None], "beside the deviation, and their mean"

    def test_another_version_of_its_reference_than_that_of_its_labels_is_refused(self, followed, tmp_path, monkeypatch):
        store = followed[0]
        asked = study.of_campaign(store, store.latest_campaign())
        asked = asked.model_copy(update={"potentials": StudyStore.open(store.folder / "study-002").study.potentials})
        began = store.fingerprint(2)
        monkeypatch.setattr(store, "fingerprint", lambda _: began | {"version": "0.1", "sha256": "of before"})
        process.allow_engines()
        with pytest.raises(ConfigError, match=r"EMT is now .* and the labels of iteration 2 .* 0\.1 \(weights"):
            study.begin(StudyStore(tmp_path / "s"), asked, Machine(), store)
        assert not (tmp_path / "s" / "reference.json").exists()
        end_sessions()

    def test_its_other_potentials_are_tried_before_its_first_job(self, followed, tmp_path, monkeypatch):
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "engines"))
        shutil.copytree(followed[0].folder, tmp_path / "copy")
        store = Store.open(tmp_path / "copy")
        ase = {"calculator": "odd_calculators:Gpu", "functional": "none", "includes_dispersion": False}
        other = Potential.model_validate({"name": "other", "ase": ase})
        store.accept(store.latest_campaign().model_copy(update={"potentials": (other,)}))
        process.allow_engines()
        with pytest.raises(Unfit, match=r"^potential other: odd_calculators:Gpu: .* expected the GPU"):
            run_local(store, Machine(slots=1, min_free_disk_GB=0.0))
        end_sessions()
        place = loop.next_phase(store).store
        assert place.is_begun()
        assert not list(place.folder.glob("*/plan.json")), "no job of it began"

    def test_models_are_found_from_the_folder_wherever_it_is(self, followed, tmp_path):
        moved = tmp_path / "moved"
        shutil.copytree(followed[0].folder, moved)
        place = StudyStore.open(moved / "study-002")
        assert all(model.startswith(str(moved)) for model in place.study.potentials[0].deepmd.models)
        assert loop.next_phase(Store.open(moved)) is None

    def test_another_glass_of_the_same_models_gets_a_folder_of_its_own(self, followed, tmp_path):
        copy = tmp_path / "copy"
        shutil.copytree(followed[0].folder, copy)
        store = Store.open(copy)
        glass = Glass.model_validate(GLASS | {"n_replicas": 1})
        store.accept(store.latest_campaign().model_copy(update={"glass": glass}))
        step = loop.next_phase(store)
        assert (step.name, step.store.folder.name) == ("study", "study-002-2")

    def test_the_end_reports_the_study_that_is_asked_for_and_not_the_last_one_made(self, followed, tmp_path, capsys):
        """A choice of final models that was taken back has left a study of the others behind."""
        copy = tmp_path / "copy"
        shutil.copytree(followed[0].folder, copy)
        store = Store.open(copy)
        asked = store.latest_campaign()
        store.accept(asked.model_copy(update={"glass": Glass.model_validate(GLASS | {"n_replicas": 1})}))
        place = loop.next_phase(store).store
        StudyStore.create(place.folder, study.of_campaign(store, store.latest_campaign()))
        store.accept(asked)
        end_report(store, loop.verdict(store))
        said = capsys.readouterr().out
        assert "study-002/tables/scoreboard.md" in said
        assert place.folder.name not in said

    def test_its_stations_are_dealt_out_in_chunks_as_those_of_the_loop_are(self, followed, tmp_path):
        shutil.copytree(
            followed[0].folder / "study-002", tmp_path / "study-002", ignore=shutil.ignore_patterns("plan.json")
        )
        place = StudyStore.open(tmp_path / "study-002")
        step = loop.StudyPhase.of(place, place.study)
        built = build_workflow(step, Machine(chunks={"glass": 2, "benchmark": 3}))
        names = [firework.name for firework in built.fws]
        assert names.count("study glass gather") == names.count("study benchmark gather") == 1
        assert [name for name in names if "runchunk" in name] == [
            "study glass runchunk-0",
            "study glass runchunk-1",
            *(f"study benchmark runchunk-{k}" for k in range(3)),
        ]
        stations = ["glass", "benchmark"]
        assert built.metadata == {"campaign": place.uuid, "iteration": 0, "part": "study", "stations": stations}

    def test_a_damaged_model_is_no_potential(self, followed, tmp_path):
        shutil.copytree(followed[0].folder, tmp_path / "copy")
        place = StudyStore.open(tmp_path / "copy/study-002")
        model = Path(place.study.potentials[0].deepmd.models[1])
        model.write_bytes(model.read_bytes()[:-1] + b"?")
        with pytest.raises(StoreError, match=rf"{model.name}: damaged or gone - expected the model of tiny_copper"):
            study.begin(place, study.of_campaign(followed[0], followed[0].latest_campaign()), Machine())

    def test_half_a_stored_study_is_refused(self, followed, tmp_path):
        shutil.copy(followed[0].folder / "study-002/study.yaml", tmp_path)
        text = (tmp_path / "study.yaml").read_bytes()
        (tmp_path / "study.yaml").write_bytes(text[: len(text) // 2])
        with pytest.raises(StoreError, match=r"study\.yaml: damaged"):
            StudyStore.open(tmp_path).is_of(study.of_campaign(followed[0], followed[0].latest_campaign()))

    def test_a_campaign_folder_is_a_potential(self, followed):
        potential = study.potential_of(followed[0])
        assert len(potential.deepmd.models) == len(potential.deepmd.sha256) >= 2
        assert potential.window == (followed[0].campaign(2).select.f_lo, followed[0].campaign(2).select.f_hi)

    def test_a_campaign_without_final_models_is_none_yet(self, store):
        with pytest.raises(ConfigError, match="no final models yet"):
            study.potential_of(store)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A benchmark of two soft potentials from the command line."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "soft.yaml").write_text(yaml.safe_dump(SOFT))
    hard = {**SOFT, "name": "Hard (LJ)", "lammps": {**SOFT["lammps"], "pair_coeff": ["* * 0.05 2.5"]}}
    (folder / "hard.yaml").write_text(yaml.safe_dump(hard))
    (folder / "glass.yaml").write_text(yaml.safe_dump(TINY_GLASS))
    (folder / "points.csv").write_text(
        "property,value,unit,source,series,x,uncertainty\ndensity,2.1,g/cm3,my own balance,na3ps4o,0.0,0.05\n"
    )
    machine_file(folder / "machine.yaml", slots=2)
    words = "benchmark --potentials soft.yaml hard.yaml --series na3ps4o --x 0 --glass glass.yaml --cited points.csv"
    words += " --machine machine.yaml --folder study"
    return folder, words.split()


@pytest.mark.engines
class TestAlone:
    def test_one_command_makes_the_scoreboard(self, alone):
        folder, words = alone
        done = cli(*words, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert "glasses: 2 of Na3PS4-xOx (2 potentials" in done.stdout
        assert "glass Soft-LJ-x0-r0: Na24P8S32, 64 atoms" in done.stdout
        assert "not judged" in done.stdout
        rows = list(csv.DictReader((folder / "study" / "tables" / "results.csv").open()))
        densities = [row for row in rows if row["name"] == "density"]
        assert {row["potential"] for row in densities} == {"Soft (LJ)", "Hard (LJ)"}
        assert {row["reference source"] for row in densities} == {"my own balance"}
        assert list((folder / "study" / "figures").glob("*.png"))

    def test_the_same_command_again_computes_nothing(self, alone):
        folder, words = alone
        before = {path: path.stat().st_mtime_ns for path in (folder / "study").rglob("*.npz")}
        done = cli(*words, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert {path: path.stat().st_mtime_ns for path in (folder / "study").rglob("*.npz")} == before

    def test_another_study_in_the_same_folder_is_refused(self, alone):
        folder, words = alone
        done = cli(*words, "--replicas", "2", cwd=folder)
        assert done.returncode == 2
        assert "contains another study" in done.stderr

    def test_a_structure_can_be_read_by_anything(self, alone):
        from ase.io import read

        atoms = read(alone[0] / "study" / "glass" / "Soft-LJ-x0-r0.extxyz")
        assert (len(atoms), atoms.info["potential"]) == (64, "Soft (LJ)")
        assert np.all(atoms.pbc)

    def test_the_numbers_are_json_too(self, alone):
        assert json.loads((alone[0] / "study" / "tables" / "scoreboard.json").read_text())

    def test_status_knows_a_study(self, alone):
        said = cli("status", "study", cwd=alone[0]).stdout
        assert "glass Soft-LJ-x0-r0" in said
        assert "scoreboard:" in said
        found = json.loads(cli("status", "study", "--json", cwd=alone[0]).stdout)
        assert (found["state"], len(found["glasses"])) == ("ended", 2)


#: A pore cut into the tiny glass, and everything measured of both, in runs as short as can be.
POROUS = {
    "name": "porous",
    "potentials": [SOFT],
    "glass": TINY_GLASS
    | {
        "pore": {
            "diameter_A": 6.0,
            "segments": [{"name": "hollow", "temperature_K": 300, "ps": 0.05, "n_frames": 5, "is_analysed": True}],
        }
    },
    "benchmark": {
        "bulk_modulus": {"strains": [-0.01, 0.0, 0.01], "max_steps": 5},
        "elastic": {"max_steps": 5},
        "diffusion": {"ps": 0.2, "equilibrate_ps": 0.02, "n_frames": 20, "temperatures_K": [300.0]},
        "dynamics": {"timestep_fs": 1.0, "thermo_every_ps": 0.01},
    },
}


@pytest.fixture(scope="module")
def porous(tmp_path_factory):
    """A whole study of a glass with a pore from the command line: (folder, CompletedProcess)."""
    folder = tmp_path_factory.mktemp("porous")
    (folder / "study.yaml").write_text(yaml.safe_dump(POROUS))
    machine_file(folder / "machine.yaml", slots=2, lammps=direct().lammps)
    done = cli("benchmark", "--study", "study.yaml", "--folder", "study", "--machine", "machine.yaml", cwd=folder)
    return folder, done


@pytest.mark.engines
class TestWithAPore:
    def test_every_property_is_measured_of_the_dense_and_of_the_porous_glass(self, porous):
        folder, done = porous
        assert done.returncode == 0, done.stderr
        board = study.scoreboard_of(StudyStore.open(folder / "study"))
        names = {"density", "rdf_peak", "free_volume", "P0", "Na_coordination", "bulk_modulus", "C11", "D_Na"}
        for is_porous in (False, True):
            of_it = {result.name for result in board.results if ("porous" in result.condition) == is_porous}
            assert names <= of_it, board.problems
        assert all(np.isfinite(result.value) for result in board.results)
        assert {problem.split(" of ")[0] for problem in board.problems} <= {"activation_energy_Na", "charge_rule"}

    def test_the_density_of_the_porous_glass_is_that_of_its_atoms_in_the_cell_of_the_dense_one(self, porous):
        """The pore is followed at constant volume, so it is the density of the final structure, too."""
        place = StudyStore.open(porous[0] / "study")
        dense, hollow = study.glasses_of(place).glasses
        assert (hollow.id, hollow.n_atoms < dense.n_atoms == 64) == ("Soft-LJ-x0-r0-pore", True)
        found = {"porous" in r.condition: r for r in study.scoreboard_of(place).results if r.name == "density"}
        assert found[True].value == pytest.approx(hollow.density_g_cm3, rel=1e-6)
        assert found[True].value == pytest.approx(dense.density_g_cm3 * hollow.n_atoms / 64, rel=1e-6)
        assert found[True].note == "at constant volume: given, not predicted"

    def test_tables_and_figures_show_both(self, porous):
        rows = list(csv.DictReader((porous[0] / "study" / "tables" / "results.csv").open()))
        assert {row["porous"] for row in rows if row["name"] == "density"} == {"", "yes"}
        assert list((porous[0] / "study" / "figures").glob("*.png"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["glass"], "no potential - expected at least one"),
        (["glass", "nothing"], "nor a preset"),
        (["glass", "model.pb"], "does not state its physics"),
        (["glass", "soft.yaml", "--series", "na4p2s7o", "--x", "a"], "not numbers"),
        (["glass", "soft.yaml", "--series", "na3ps4o", "--atoms", "128"], "exact stoichiometry are far from it"),
        (["glass", "soft.yaml", "--series", "na4p2s7o", "--x", "0.5"], "does not know O"),
        (["glass", "soft.yaml", "--series", "na4p2s7o", "--x", "7"], "expected compositions of series"),
        (["benchmark", "soft.yaml", "--study", "soft.yaml"], "leave them out"),
        (["benchmark", "soft.yaml", "--cited", "no.csv"], "cannot be read"),
        (["benchmark", "broken.yaml"], "exactly one"),
        (["benchmark", "soft.yaml", "--benchmark", "structures"], "structure"),
        (["benchmark", "soft.yaml", "--series", "bare.yaml", "--atoms", "64"], "Na-S"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(tmp_path, words, said):
    (tmp_path / "soft.yaml").write_text(yaml.safe_dump(SOFT))
    (tmp_path / "model.pb").write_bytes(b"")
    (tmp_path / "broken.yaml").write_text("name: broken\nfunctional: PBE\n")
    bare = load_series("na3ps4o").model_dump(mode="json", exclude={"cutoffs_A"}) | {
        "cutoffs_A": {"P-S": 2.5, "P-O": 2.0}
    }
    bare["compositions"] = bare["compositions"][:1]
    (tmp_path / "bare.yaml").write_text(yaml.safe_dump(bare))
    done = cli(*words, "--check", cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert not (tmp_path / "runs").exists()
