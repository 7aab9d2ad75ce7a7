"""Initial MD by a driver: what it is, what it costs, what of it is kept, and that a kill changes nothing."""

from pathlib import Path

import pytest
import yaml
from campaigns import SMALL, cli, dataset_summary, environment, machine_file, run_plain, tiny
from lives import LOGGED, calculations, kill_group, n_done, start, wait_until

from activelearn import export, initial, label, loop, prepare
from activelearn.check import check, cost
from activelearn.config import Driver, Machine, ReferenceMD, load_campaign
from activelearn.engines import process, reference
from activelearn.errors import ConfigError
from activelearn.records import InitialData, Labelling
from activelearn.show import iteration_line
from activelearn.status import as_dict
from activelearn.store import Store
from activelearn.tasks import carry_out, gather

ENGINES = Path(__file__).parent / "engines"
MACHINE = Machine(slots=1, **SMALL)
#: Copper, near enough: another lattice constant, other frequencies.
MORSE = {
    "calculator": "ase.calculators.morse:MorsePotential",
    "arguments": {"epsilon": 0.35, "r0": 2.8, "rho0": 3.9, "rcut1": 1.3, "rcut2": 1.6},
    "package": "ase",
}


def driven(path, driver, **changes):
    return load_campaign(tiny(path / "tiny.yaml", initial__md__driver=driver, **changes))


# --- what it is -------------------------------------------------------------------------------------------------------


def test_a_campaign_without_a_driver_is_the_one_that_it_was(tmp_path):
    """Neither what is sealed of it nor its checksum knows the key; null is none."""
    without, null = load_campaign(tiny(tmp_path / "tiny.yaml")), driven(tmp_path, None)
    assert without == null
    assert "driver" not in without.model_dump()["initial"]["md"]
    assert "driver" not in without.to_yaml()
    assert driven(tmp_path, "self").sha256 != without.sha256 == null.sha256


def test_a_driver_is_a_preset_a_potential_of_the_users_or_a_calculator(tmp_path):
    emt = Driver(calculator="ase.calculators.emt:EMT", package="ase")
    for name in ("emt", {"preset": "emt"}, emt.model_dump(mode="json")):
        assert driven(tmp_path, name).initial.md.driver == emt
    style = {"pair_style": "lj/cut 5.0", "pair_coeff": ["1 1 0.4 2.3"], "elements": ["Cu"]}
    mine = {"name": "LJ", "lammps": style, "functional": "none", "includes_dispersion": False}
    (tmp_path / "lj.yaml").write_text(yaml.safe_dump(mine))
    lj = driven(tmp_path, "lj.yaml").initial.md.driver
    assert lj.calculator == "ase.calculators.lammpslib:LAMMPSlib"
    assert lj.arguments["lmpcmds"] == ["pair_style lj/cut 5.0", "pair_coeff 1 1 0.4 2.3"]
    (tmp_path / "soft.yaml").write_text(yaml.safe_dump({"reference": {**LOGGED, "arguments": {"asap_cutoff": True}}}))
    assert driven(tmp_path, "soft.yaml").initial.md.driver.arguments == {"asap_cutoff": True}
    read_back = load_campaign(written(tmp_path / "again.yaml", driven(tmp_path, "lj.yaml")))
    assert read_back.initial.md.driver == lj


def written(path, campaign):
    path.write_text(campaign.to_yaml())
    return path


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        ("emtt", "did you mean 'emt'?"),
        ("selff", "did you mean 'self'?"),
        (3, "got 3 - wanted a mapping"),
        ({"preset": "nothing"}, "neither a YAML file nor a preset"),
        ({"calculater": "a:B"}, "initial.md.driver.calculater: unknown key - did you mean 'calculator'?"),
        ({"arguments": {}}, "initial.md.driver: engine ase with nothing - wanted ['calculator'] of it"),
    ],
)
def test_what_is_no_driver_is_told_in_one_line(tmp_path, driver, said):
    with pytest.raises(ConfigError) as told:
        driven(tmp_path, driver)
    (line,) = told.value.problems
    assert said in line


def test_check_wants_the_drivers_package(tmp_path):
    campaign = driven(tmp_path, {"calculator": "no_such_module:Fast"})
    problems = check(campaign, MACHINE, tmp_path / "c").problems
    assert problems == [
        "initial.md.driver.calculator: this interpreter has no no_such_module - wanted no_such_module:Fast - pip install "
        "no_such_module"
    ]


# --- what it costs ----------------------------------------------------------------------------------------------------


def initial_data(campaign, folder):
    """Make and label the initial data of a campaign; return its folder."""
    process.allow_engines()
    store = Store.create(folder, campaign)
    loop.phase_of(store, 0).begin(MACHINE)
    try:
        for station in (prepare.STATION, initial.STATION, label.STATION):
            carry_out(station, store, 0, MACHINE)
            gather(station, store, 0, MACHINE)
    finally:
        process.close_sessions()
    return store


@pytest.fixture
def logged(tmp_path, monkeypatch):
    """The file in which a logging reference notes what it is asked for."""
    monkeypatch.setenv("LOGGED_EMT", str(tmp_path / "calls.txt"))
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    return tmp_path / "calls.txt"


@pytest.mark.engines
@pytest.mark.parametrize(("driver", "per_frame"), [(MORSE, 1.0), (None, 11.0 / 3.0)])
def test_with_a_driver_the_reference_is_called_once_for_each_frame_that_is_kept(tmp_path, logged, driver, per_frame):
    campaign = driven(tmp_path, driver, label__reference=LOGGED)
    store = initial_data(campaign, tmp_path / "c")
    made = store.result("initial", 0, InitialData)
    times = calculations(logged)
    assert made.md_frames == made.n_frames == 6 * 3
    assert made.md_calls == 6 * 11
    assert sum(times.values()) == made.md_frames * per_frame
    assert set(times.values()) == {1}, "no structure twice"
    labelling = store.result("label", 0, Labelling)
    assert (labelling.labels_computed, labelling.labels_adopted) == ((18, 0) if driver else (0, 18))
    assert labelling.labelled == 18
    assert (made.driver is None) == (driver is None)
    planned = cost.estimate(campaign, MACHINE, None).calls
    assert (planned.kept, planned.reference, planned.driver) == (18, sum(times.values()), 66 if driver else 0)


# --- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.engines
def test_frames_of_a_driver_outside_the_region_are_refused_and_counted(tmp_path, logged):
    """A driver that pulls the atoms together: the start and what comes before the first bad frame is labelled."""
    collapsing = {**MORSE, "arguments": {"epsilon": 400.0, "r0": 1.4, "rho0": 2.0, "rcut1": 2.0, "rcut2": 2.5}}
    campaign = driven(tmp_path, collapsing, label__reference=LOGGED, initial__md__every=1)
    store = initial_data(campaign, tmp_path / "c")
    made = store.result("initial", 0, InitialData)
    assert made.refused["out of region"] > 0
    assert made.md_frames + made.refused["out of region"] == 6 * 11
    assert made.md_frames >= 6, "the starts are not the driver's"
    assert len(made.failed) == 6
    assert all(walk.ended.startswith("out of region: Cu-Cu ") for walk in made.failed)
    labelling = store.result("label", 0, Labelling)
    assert sum(calculations(logged).values()) == made.md_frames == labelling.labelled + sum(labelling.refused.values())


@pytest.mark.engines
def test_forces_of_the_reference_above_the_cap_refuse_a_frame_of_the_driver(tmp_path, logged):
    campaign = driven(tmp_path, MORSE, label__reference=LOGGED, label__max_force=1.0)
    store = initial_data(campaign, tmp_path / "c")
    labelling = store.result("label", 0, Labelling)
    assert labelling.refused.keys() == {"force above 1 eV/Å"}
    assert labelling.labelled + labelling.refused["force above 1 eV/Å"] == 18


@pytest.mark.engines
def test_where_the_driver_fails_at_once_the_start_is_labelled(tmp_path, logged, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{environment()['PYTHONPATH']}:{ENGINES}")
    campaign = driven(tmp_path, {"calculator": "odd_calculators:Unconverged"}, label__reference=LOGGED)
    store = initial_data(campaign, tmp_path / "c")
    made = store.result("initial", 0, InitialData)
    assert {walk.ended for walk in made.walks} == {"SCFError: no convergence in 60 steps"}
    assert (made.md_frames, made.md_calls) == (6, 6)
    assert store.result("label", 0, Labelling).labelled == 6


@pytest.mark.engines
def test_another_driver_than_the_sealed_one_moves_nothing(tmp_path, slot):
    one, other = Driver(**MORSE), Driver(**{**MORSE, "arguments": {"r0": 2.7}})
    sealed = reference.fingerprint(one, slot)["sha256"]
    reference.want_identity(one, slot, sealed)
    with pytest.raises(ConfigError, match=r"^initial.md.driver: .* install the version of iter-\*/driver.json"):
        reference.want_identity(other, slot, sealed)


@pytest.mark.engines
def test_a_driver_needs_no_stress_but_forces(tmp_path, slot, copper, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ENGINES))
    md = ReferenceMD(n_steps=2, every=1)
    told = {"temperature_K": 300.0, "random_seed": 1, "slot": slot}
    process.close_sessions()
    frames, *_ = reference.molecular_dynamics(Driver(calculator="odd_calculators:NoStress"), copper[:1], md, **told)
    assert len(frames) == 3
    with pytest.raises(ConfigError, match=r"^initial.md.driver: odd_calculators:NoForces: .* wanted energy and forces"):
        reference.molecular_dynamics(Driver(calculator="odd_calculators:NoForces"), copper[:1], md, **told)
    process.close_sessions()


# --- driver: self -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def self_driven(tmp_path_factory):
    folder = tmp_path_factory.mktemp("self")
    path = tiny(folder / "tiny.yaml", initial__md__driver="self")
    return run_plain(folder / "c", path, Machine(slots=2, **SMALL))


@pytest.mark.engines
def test_the_first_models_drive_the_md_of_the_copies_that_come_after(self_driven):
    store, end = self_driven
    still, moved, explored = store.iterations()
    assert [record.selection is None for record in store.iterations()] == [True, True, False]
    assert (still.initial.n_frames, still.initial.md_frames, still.initial.driver) == (6, 0, None)
    assert (moved.initial.n_frames, moved.initial.md_frames, moved.initial.md_calls) == (18, 18, 66)
    first = still.ensemble.members[0]
    assert moved.initial.driver["arguments"] == {"model": f"sha256:{first.sha256}"}
    assert moved.labelling.labels_computed == 18
    assert moved.labelling.dataset_frames == still.labelling.dataset_frames + moved.labelling.labelled - 3
    assert moved.ensemble.trained_in == 1
    assert len(moved.initial.held_out) == 1
    assert explored.index == end.iteration == 2


@pytest.mark.engines
def test_what_drove_is_said_by_run_status_and_the_model_card(self_driven, tmp_path):
    store, _ = self_driven
    assert "18 frames of MD by deepmd.calculator:DP in 66 calls" in iteration_line(store.iterations()[1])
    told = as_dict(store)["iterations"][1]["initial_md"]
    assert (told["calls"], told["frames"], told["driver"]["calculator"]) == (66, 18, "deepmd.calculator:DP")
    export.export(store, tmp_path / "models")
    card = (tmp_path / "models" / "model_card.md").read_text()
    assert "MD of the initial data: by deepmd.calculator:DP" in card
    assert store.iterations()[0].ensemble.members[0].sha256 in card


@pytest.mark.engines
def test_the_plan_of_a_campaign_that_drives_itself_counts_both_trainings(tmp_path):
    campaign = driven(tmp_path, "self")
    found = check(campaign, MACHINE, tmp_path / "c")
    assert found.problems == []
    assert any(
        "initial: 6 structures and 6 trajectories moved by a model trained on those, 24 labels" in f
        for f in found.facts
    )
    bill = cost.estimate(campaign, MACHINE, None)
    assert [(i.station, i.n_tasks) for i in bill.initial] == [
        ("initial", 6),
        ("label", 24),
        ("train", 2),
        ("train again", 2),
    ]
    assert "MD of initial data: 18 calls of the reference for 18 frames (1 each), and 66 of the driver" in cost.lines(
        bill
    )


# --- kill -9 ----------------------------------------------------------------------------------------------------------


@pytest.mark.engines
def test_kills_in_md_and_labels_change_no_bit_of_the_data(tmp_path, monkeypatch):
    """Kill -9 in the MD of the driver, in the labels of its frames, and in the training; then to the end."""
    changes = {"initial__md__driver": MORSE, "stop__max_iterations": 1, "label__reference": LOGGED}
    campaign = tiny(tmp_path / "tiny.yaml", **changes)
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    monkeypatch.setenv("LOGGED_EMT", str(tmp_path / "undisturbed.txt"))
    undisturbed, _ = run_plain(tmp_path / "undisturbed", campaign, Machine(slots=2, **SMALL))
    store = Store(tmp_path / "c")
    env = environment(LOGGED_EMT=str(tmp_path / "calls.txt"), LOGGED_EMT_SLEEP="0.1")
    machine = machine_file(tmp_path / "machine.yaml", slots=2)
    for station, n in (("initial", 1), ("label", 3)):
        running = start(campaign, store.folder, "--machine", machine, env=env)
        wait_until(lambda s=station, n=n: is_at(store, s, n), running, what=station)
        assert running.poll() is None, (tmp_path / "output.txt").read_text()
        kill_group(running)
    ended = cli("run", campaign, "--folder", store.folder, "--machine", machine, cwd=tmp_path, env=env)
    assert ended.returncode == 3, ended.stderr
    assert dataset_summary(Store(store.folder), 1) == dataset_summary(undisturbed, 1)
    times = calculations(tmp_path / "calls.txt")
    assert times.keys() == calculations(tmp_path / "undisturbed.txt").keys()
    assert sum(times.values()) - len(times) <= 2, "at most the one label of each slot is paid for twice"


def is_at(store, station, n):
    return (store.folder / "campaign" / "uuid").exists() and n_done(store, station, 0) >= n
