"""The true error of forces along a path: frames spread over it, errors that are known, refusals counted, a kill."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from ase.calculators.emt import EMT
from carried import UNCONVERGED, alloy, one_worker, with_reference
from made_glasses import (
    findings_of,
    glass_path,
    number,
    planned,
    results_of,
    run_one,
    sealed_reference,
    study_folder,
    study_of,
)

from activelearn.benchmark import force_error, station
from activelearn.benchmark.force_error import AlongPath, spread
from activelearn.check.cost import estimate
from activelearn.check.cost import lines as cost_lines
from activelearn.check.study import check_study
from activelearn.config import Campaign, Machine, Speeds, find_campaign, load_benchmark, load_campaign
from activelearn.errors import ConfigError
from activelearn.frames import Frames
from activelearn.records import Glasses
from activelearn.report import write_tables
from activelearn.store.files import publish_json, read_object, replace_json
from activelearn.store.study import BENCHMARK, GLASS, ONCE
from activelearn.study import planned as study_of_campaign
from activelearn.tasks import frozen_plan

EMT_ITSELF = {"calculator": "ase.calculators.emt:EMT", "functional": "none", "includes_dispersion": False}
#: Metals that EMT knows, pulled together by soft spheres instead.
SPHERES = EMT_ITSELF | {"calculator": "ase.calculators.lj:LennardJones", "arguments": {"sigma": 2.3, "epsilon": 0.1}}


def label(reference=EMT_ITSELF, **more):
    return {"reference": reference, **more}


def path_frames(n_frames=6, random_seed=0) -> Frames:
    """Rattled alloys with the force deviation of an ensemble that is nowhere to be seen."""
    rng = np.random.default_rng(random_seed)
    frames = alloy(1)[np.zeros(n_frames, dtype=int)]
    frames = replace(frames, positions=frames.positions + rng.normal(0.0, 0.05, frames.positions.shape))
    frames.origin["max_devi_f"] = np.linspace(0.1, 0.6, n_frames)
    return frames


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    with one_worker(tmp_path_factory.mktemp("logs")) as made:
        yield made


def emt_forces(frames):
    """(n_frames, n_atoms, 3) eV/Å, by ASE in this process."""
    return np.array([EMT().get_forces(atoms) for atoms in frames.to_ase()])


# --- which frames, and what is said of them ---------------------------------------------------------------------------


def test_frames_are_spread_over_the_time_of_the_path_not_over_what_was_kept_of_it():
    many = path_frames()[np.zeros(105, dtype=int)]
    path = glass_path(many, many.volume)
    segment, times = np.repeat([0, 1], [5, 100]), np.concatenate([np.arange(2.0, 12.0, 2.0), np.linspace(0.1, 10, 100)])
    thermo = replace(path.thermo, segment=np.array([0, 1]), time_ps=np.array([10.0, 10.0]))
    thermo = replace(thermo, **dict.fromkeys(("temperature_K", "pressure_bar", "volume", "max_devi_f"), np.zeros(2)))
    path = replace(path, thermo=thermo, frame_segment=segment, frame_time_ps=times)
    assert path.times_ps[[0, 4, 5, -1]] == pytest.approx([2.0, 10.0, 10.1, 20.0])
    assert spread(path, 10) == [0, 1, 2, 3, 4, 24, 44, 64, 84, 104]
    assert spread(path, 1000) == list(range(105)), "each once"


def test_errors_and_deviations_are_told_side_by_side():
    error = np.zeros((3, 4, 3))
    error[0, 1], error[1, 2], error[2, 3] = [0.3, 0.4, 0.0], [0.0, 0.0, 0.2], [0.1, 0.0, 0.0]
    found = AlongPath(error, np.array([0.25, 0.4, np.nan]))
    assert found.largest == pytest.approx([0.5, 0.2, 0.1])
    assert found.numbers[0] == pytest.approx(np.sqrt((0.25 + 0.04 + 0.01) / 36))
    assert found.numbers[2] == pytest.approx(0.5)
    assert found.per_deviation == pytest.approx((2.0 + 0.5) / 2)
    assert (
        found.beyond(0.35)
        == "at or above f_hi 1 of 3 frames by their error, 1 of 2 by the deviation, where there is one"
    )
    broken = AlongPath(error, np.array([np.inf, 0.4, np.nan]))
    assert broken.beyond(0.35).endswith("by their error, 2 of 2 by the deviation, where there is one"), "not finite"
    assert broken.per_deviation == pytest.approx(0.5)
    assert AlongPath(error, np.full(3, np.nan)).beyond(0.35).endswith("1 of 3 frames by their error, no deviation")
    assert AlongPath(error, np.full(3, np.nan)).per_deviation is None


# --- the property -----------------------------------------------------------------------------------------------------


def test_a_potential_has_no_error_against_itself_and_the_known_one_against_another(slot, tmp_path):
    frames = path_frames()
    itself = study_of(force_error={"label": label()})
    found = findings_of(force_error.PROPERTY, itself, study_folder(tmp_path / "a", itself, [frames]), slot)
    assert {r.value for r in found.results} == {0.0}
    other = study_of(force_error={"n_frames": 6, "label": label(SPHERES)})
    store = study_folder(tmp_path / "b", other, [frames, path_frames(6, 5)])
    found = findings_of(force_error.PROPERTY, other, store, slot)
    from ase.calculators.lj import LennardJones

    truth = np.array([LennardJones(sigma=2.3, epsilon=0.1).get_forces(atoms) for atoms in frames.to_ase()])
    error = emt_forces(frames) - truth
    length = np.linalg.norm(error, axis=2)
    wanted = {
        "rmse": np.sqrt((error**2).mean()),
        "p99": np.percentile(length, 99),
        "max": length.max(),
        "per_deviation": np.median(length.max(axis=1) / frames.origin["max_devi_f"]),
    }
    for name, value in wanted.items():
        of_one = number(found, f"force_error_{name}", replica=0)
        assert (of_one.value, of_one.n_samples) == (pytest.approx(value, rel=1e-6), 6)
        both = [r for r in found.results if r.name == f"force_error_{name}" and "replica" in r.condition]
        mean = next(r for r in found.results if r.name == f"force_error_{name}" and "replica" not in r.condition)
        assert (mean.value, mean.n_samples) == (pytest.approx(np.mean([r.value for r in both])), 2)
        assert mean.uncertainty > 0.0
    assert not found.problems


def test_tables_say_the_true_error_of_every_glass_beside_its_deviation(slot, tmp_path):
    study = study_of(force_error={"n_frames": 2, "label": label(SPHERES)}, rdf=None, network=None, coordination=False)
    store = study_folder(tmp_path / "study", study, [path_frames(), path_frames(6, 5)])
    publish_json(store.folder / "potentials.json", {})
    sealed_reference(study, store, slot)
    tasks = frozen_plan(station.STATION, store, ONCE, slot.machine).tasks
    assert [t.id for t in tasks if t.kind == "force_error"] == [
        f"force_error-toy-EMT-x0-{r}-00{k}" for r in (0, 1) for k in (0, 1)
    ]
    for task in tasks:
        station.run(task, store, ONCE, slot)
    board = station.gather(study, store, ONCE)
    glasses = store.result(GLASS, ONCE, Glasses).glasses
    write_tables(board.model_copy(update={"glasses": glasses}), tmp_path)
    text = (tmp_path / "scoreboard.md").read_text()
    head = next(line for line in text.splitlines() if line.startswith("| glass |"))
    assert head.endswith("| true force error (eV/Å) |")
    largest = f"{number(board, 'force_error_max', replica=1).value:.4g}"
    line = next(line for line in text.splitlines() if line.startswith("| toy-EMT-x0-1 |"))
    assert f"largest {largest} (2 frames); the largest of a frame " in line
    assert "x its deviation (median) |" in line
    assert text.count("| force_error_rmse |") == 1, "replicas stand with the glasses"
    rows = [row for row in csv.DictReader((tmp_path / "results.csv").open()) if row["name"] == "force_error_rmse"]
    assert [(row["n"], row["n planned"]) for row in rows] == [("2", ""), ("2", ""), ("2", "2")], "frames, then replicas"


def test_labels_that_are_no_good_are_counted_with_their_reason_and_the_others_measured(slot, tmp_path):
    frames = path_frames()
    frames.positions[0, 1] = frames.positions[0, 0] + [1.2, 0.0, 0.0]
    study = study_of(force_error={"n_frames": 6, "label": label(max_force=8.0)})
    store = study_folder(tmp_path / "study", study, [frames])
    found = findings_of(force_error.PROPERTY, study, store, slot)
    assert (found.problems, found.missing) == ([], []), "all numbers are there"
    of_one = number(found, "force_error_rmse", replica=0)
    assert of_one.n_samples == 5
    assert of_one.note.endswith("; 1 of 6 frames without: the reference: force above 8 eV/Å")
    broken = with_reference(study, UNCONVERGED)
    store = study_folder(tmp_path / "broken", broken, [path_frames()])
    found = findings_of(force_error.PROPERTY, broken, store, slot)
    assert found.results == []
    assert "frames without: the potential: " in found.problems[0]
    assert [one.measured_by for one in found.missing] == ["force_error"]


def test_a_deviation_that_was_not_finite_is_none_that_was_not_evaluated(slot, tmp_path):
    frames = path_frames(3)
    frames.origin["max_devi_f"] = [np.nan, np.inf, 0.2]
    study = study_of(force_error={"n_frames": 3, "label": label()})
    store = study_folder(tmp_path / "study", study, [frames])
    sealed_reference(study, store, slot)
    found = [run_one(force_error.PROPERTY, t, store, slot)[1] for t in planned(force_error.PROPERTY, study, store)]
    assert [meta["max_devi_f"] for meta in found] == [None, np.inf, pytest.approx(0.2)]


def test_what_the_reference_does_not_know_is_said_and_another_version_refused(slot, tmp_path):
    study = study_of(force_error={"n_frames": 2, "label": label(EMT_ITSELF)})
    spheres = study.benchmark.force_error.label.reference.model_validate(SPHERES)
    study = with_reference(study, spheres)
    frames = replace(path_frames(2), symbols=("Cu", "Cu", "Cu", "Ag", "Ag", "Fe"))  # EMT knows no iron
    store = study_folder(tmp_path / "study", study, [frames])
    found = findings_of(force_error.PROPERTY, study, store, slot)
    assert found.problems == ["force_error of toy-EMT-x0-0: 2 of 2 frames without: the reference does not know Fe"]
    sealed = read_object(store.reference_file)
    replace_json(store.reference_file, {name: one | {"sha256": "of before"} for name, one in sealed.items()})
    (task, _) = planned(force_error.PROPERTY, study, store)
    with pytest.raises(ConfigError, match=r"which is not what this study is sealed with .* of reference.json and run"):
        run_one(force_error.PROPERTY, task, store, slot)


def test_after_a_kill_only_the_frames_without_a_product_are_labelled(slot, tmp_path):
    study = study_of(force_error={"n_frames": 3, "label": label(SPHERES)})
    store, whole = (study_folder(tmp_path / name, study, [path_frames()]) for name in ("killed", "whole"))
    wanted = findings_of(force_error.PROPERTY, study, whole, slot)
    sealed_reference(study, store, slot)
    tasks = planned(force_error.PROPERTY, study, store)
    store.publish_product(BENCHMARK, ONCE, tasks[1].id, *run_one(force_error.PROPERTY, tasks[1], store, slot))
    left = [task for task in reversed(tasks) if not store.is_published(BENCHMARK, ONCE, task)]
    assert [task.id for task in left] == [tasks[2].id, tasks[0].id]
    for task in left:  # in any order
        store.publish_product(BENCHMARK, ONCE, task.id, *run_one(force_error.PROPERTY, task, store, slot))
    assert results_of(force_error.PROPERTY, study, store, tasks) == wanted


# --- who labels, and what it costs ------------------------------------------------------------------------------------


def test_a_study_without_a_reference_is_refused_and_told_how_to_name_one(tmp_path):
    study = study_of(force_error={})
    found = check_study(study, Machine(), here=False)
    assert force_error.NO_REFERENCE in found.problems
    with pytest.raises(ConfigError, match="a preset of params/label/, such as label: sevennet_0"):
        planned(force_error.PROPERTY, study, study_folder(tmp_path / "study", study, [path_frames()]))
    (tmp_path / "mine.yaml").write_text("force_error: {n_frames: 5, label: emt}\n")
    asked = load_benchmark(tmp_path / "mine.yaml").force_error
    assert (asked.n_frames, asked.label.reference.calculator) == (5, "ase.calculators.emt:EMT")
    given = study.model_copy(update={"benchmark": study.benchmark.model_copy(update={"force_error": asked})})
    assert force_error.NO_REFERENCE not in check_study(given, Machine(), here=False).problems


def asking(n_frames=20) -> Campaign:
    """The quickstart, asking for it."""
    found = load_campaign(find_campaign("quickstart"))
    data = found.model_dump(mode="json")
    data["benchmark"]["force_error"] = {"n_frames": n_frames}
    return Campaign.model_validate(data)


def test_a_campaign_has_its_reference_do_it_and_the_plan_says_what_that_costs():
    campaign = asking()
    study = study_of_campaign(campaign, study_of(density=True).potentials[0])
    asked = study.benchmark.force_error
    assert asked.label.reference == campaign.label.reference
    assert asked.label.ledger is None
    speed = Machine(speeds=Speeds(label_s_per_atom={campaign.label.reference.calculator: 0.005}))
    (item,) = [item for item in estimate(campaign, speed, None).apart if item.station == "force_error"]
    n_glasses = campaign.glass.n_replicas * len(campaign.glass.compositions)
    assert item.n_tasks == item.n_frames == 20 * n_glasses
    assert item.seconds == pytest.approx(20 * n_glasses * 0.005 * 128, rel=0.3), "about 128 atoms each"
    known, unknown = (
        next(line for line in cost_lines(estimate(campaign, machine, None)) if "force_error" in line)
        for machine in (speed, Machine())
    )
    assert "not known" not in known
    assert "not known" in unknown
