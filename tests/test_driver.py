"""Initial MD by a driver: what it is, what it costs, what of it is kept, and that a kill changes nothing."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from campaigns import SMALL, cli, dataset_summary, end_sessions, environment, machine_file, run_plain, tiny
from lives import LOGGED, calculations, kill_group, n_done, start, wait_until

from activelearn import export, initial, label, loop, prepare
from activelearn.check import check, cost
from activelearn.check.trial import try_campaign, try_in
from activelearn.config import Campaign, Driver, Machine, ReferenceMD, System, load_campaign
from activelearn.ending import has_new_data
from activelearn.engines import process, reference
from activelearn.errors import ConfigError, Unfit
from activelearn.records import InitialData, Labelling
from activelearn.show import iteration_line
from activelearn.status import _iteration
from activelearn.store import Store
from activelearn.tasks import carry_out, gather

ENGINES = Path(__file__).parent / "engines"
PARAMS = Path(__file__).parent.parent / "params"
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


def test_a_model_that_a_driver_names_is_taken_from_the_folder_of_the_yaml(tmp_path):
    (tmp_path / "nep.pt").write_text("a model")
    nep = {"calculator": "fast:NEP", "arguments": {"model": "nep.pt"}}
    campaign = driven(tmp_path, nep)
    assert campaign.initial.md.driver.arguments == {"model": str(tmp_path / "nep.pt")}
    store = Store.create(tmp_path / "c", campaign)
    (tmp_path / "nep.pt").unlink()
    assert store.latest_campaign() == campaign, "status reads the folder without it"


def written(path, campaign):
    path.write_text(campaign.to_yaml())
    return path


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        ("emtt", "did you mean 'emt'?"),
        ("selff", "did you mean 'self'?"),
        (3, "got 3 - expected a mapping"),
        ({"preset": "nothing"}, "neither a YAML file nor a preset"),
        ({"calculatr": "a:B"}, "initial.md.driver.calculatr: unknown key - did you mean 'calculator'?"),
        ({"arguments": {}}, "initial.md.driver: engine ase with nothing - expected ['calculator']"),
    ],
)
def test_what_is_no_driver_is_told_in_one_line(tmp_path, driver, said):
    with pytest.raises(ConfigError) as told:
        driven(tmp_path, driver)
    (line,) = told.value.problems
    assert said in line


def test_check_wants_the_drivers_package(tmp_path):
    campaign = driven(tmp_path, {"calculator": "no_such_module:Fast"})
    (problem,) = check(campaign, MACHINE, tmp_path / "c").problems
    assert problem.startswith("initial.md.driver.calculator: this interpreter has no no_such_module - expected")


def test_check_tells_the_elements_and_the_model_that_a_driver_lacks(tmp_path):
    reference = {**LOGGED, "calculator": "ase.calculators.lj:LennardJones"}
    crystal = [{"seed": "Na3PS4_P-421c"}]
    campaign = driven(tmp_path, "emt", label__reference=reference, type_map=["Na", "P", "S"], initial__systems=crystal)
    problems = check(campaign, MACHINE, tmp_path / "c").problems
    assert problems[0].startswith("initial.md.driver.calculator: ase.calculators.emt:EMT does not know Na, P, S - ")
    campaign = driven(tmp_path, {**MORSE, "arguments": {"model": "models/nep.pt"}})
    (problem,) = check(campaign, MACHINE, tmp_path / "c", here=False).problems
    assert problem.startswith("initial.md.driver.arguments.model: no file models/nep.pt - expected a model file")


def test_check_wants_deepmd_where_the_first_models_move_atoms(tmp_path):
    """The place's interpreter may be another than that of the models: its folders say what it has."""
    (tmp_path / "venv" / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    (tmp_path / "venv" / "pyvenv.cfg").write_text("include-system-site-packages = false\n")
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    machine = Machine(places={"gpu": {}, "cpu": {"python": str(python)}}, stations={"initial": "cpu"}, **SMALL)
    assert check(driven(tmp_path, MORSE), machine, tmp_path / "c").problems == []
    (problem,) = check(driven(tmp_path, "self"), machine, tmp_path / "c").problems
    assert problem.startswith(f"machine.place cpu, python: {python} has no deepmd - needed at station initial for in")


def test_the_schema_knows_the_names_that_a_driver_may_have(tmp_path):
    found = Campaign.model_json_schema()["$defs"]["ReferenceMD"]["properties"]["driver"]["anyOf"]
    (names,) = [one["enum"] for one in found if "enum" in one]
    presets = {path.stem for folder in ("label", "potential") for path in (PARAMS / folder).glob("*.yaml")}
    assert set(names) == {"self", *presets}
    assert {"$ref": "#/$defs/Driver"} in found
    assert {"type": "null"} in found
    (file,) = [one["pattern"] for one in found if "pattern" in one]
    assert re.search(file, "my/nep.yaml")


@pytest.mark.engines
def test_a_driver_that_cannot_move_a_system_is_found_by_a_trial(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ENGINES))
    process.allow_engines()
    for name, said in (
        ("Gpu", "expected the GPU that it requests"),
        ("Hopeless", "KeyError"),
        ("NoForces", "expected energy and forces"),
    ):
        with pytest.raises(Unfit, match=rf"^initial.md.driver: odd_calculators:{name}: .*{said}"):
            try_campaign(driven(tmp_path, {"calculator": f"odd_calculators:{name}"}), MACHINE, tmp_path / "c")
    assert try_campaign(driven(tmp_path, MORSE), MACHINE, tmp_path / "c")[-1].endswith("the driver work")


@pytest.mark.engines
def test_run_tries_a_driver_while_it_has_atoms_to_move(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ENGINES))
    process.allow_engines()
    store = Store.create(tmp_path / "c", driven(tmp_path, {"calculator": "odd_calculators:Hopeless"}))
    with pytest.raises(Unfit, match=r"^initial.md.driver: odd_calculators:Hopeless"):
        try_in(store, MACHINE)
    assert len(list(store.folder.glob("tried-*.json"))) == 1, "the reference has passed"
    store.accept(driven(tmp_path, MORSE))
    assert try_in(store, MACHINE) == try_in(store, MACHINE) == []
    assert len(list(store.folder.glob("tried-*.json"))) == 2
    end_sessions()


def test_check_says_that_a_campaign_that_drives_itself_wants_deepmd_where_its_initial_data_are_made(tmp_path):
    places = {"cpu": {}, "gpu": {}}
    models = dict.fromkeys(("explore", "train", "final", "glass", "benchmark"), "gpu")
    for driver, more, at in (
        ("self", {}, ["prepare, initial"]),
        (MORSE, {}, []),
        ("self", {"initial": "gpu"}, ["prepare"]),
        ("self", {"initial": "gpu", "prepare": "gpu"}, []),
    ):
        machine = Machine(places=places, stations=models | more, **SMALL)
        found = check(driven(tmp_path, driver), machine, tmp_path / "c", here=False)
        told = [line for line in found.facts if "needs deepmd-kit at place cpu" in line]
        look = "check it with activelearn machine --smoke --campaign YAML"
        assert [line.partition("too ")[2] for line in told] == [f"({names}): {look}" for names in at], found


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
        end_sessions()
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
@pytest.mark.parametrize("every", [1, 5])
def test_md_that_explodes_ends_at_its_last_frame_and_is_a_failure(tmp_path, slot, copper, every):
    """Without a check the atoms are nowhere (NaN) after a few steps, without neighbours, with finite forces of zero."""
    arguments = {"epsilon": 1.0e4, "r0": 3.2, "rho0": 30.0, "rcut1": 1.3, "rcut2": 1.6}
    md = ReferenceMD(n_steps=5, every=every, timestep_fs=4.0)
    told = {"temperature_K": 300.0, "random_seed": 1, "slot": slot}
    frames, ended, *_ = reference.molecular_dynamics(Driver(**MORSE | {"arguments": arguments}), copper[:1], md, **told)
    assert list(frames.origin["step"]) == [0]
    assert ended.startswith("CalculationFailed: ")
    assert ended.endswith("(after step 0)")


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
    end_sessions()
    frames, *_ = reference.molecular_dynamics(Driver(calculator="odd_calculators:NoStress"), copper[:1], md, **told)
    assert len(frames) == 3
    with pytest.raises(ConfigError, match=r"driver: odd_calculators:NoForces: .* expected energy and forces"):
        reference.molecular_dynamics(Driver(calculator="odd_calculators:NoForces"), copper[:1], md, **told)
    end_sessions()


# --- driver: self -----------------------------------------------------------------------------------------------------


#: The relaxation of the crystal, with the cell: two steps at the least.
SELF = {
    "initial__md__driver": "self",
    "initial__relax": {"fmax": 0.01, "max_steps": 20},
    "label__reference": LOGGED,
    "train__n_steps": 20,
}


@pytest.fixture(scope="module")
def self_driven_calls(tmp_path_factory):
    """The two iterations of initial data, up to the labels of the second, and what the reference computed at each."""
    folder = tmp_path_factory.mktemp("self")
    campaign = load_campaign(tiny(folder / "tiny.yaml", **SELF))
    store = Store.create(folder / "c", campaign)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOGGED_EMT", str(folder / "calls.txt"))
        patch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
        calls = carried_out(store, loop.FIRST)
        loop.next_phase(store).close()
        shutil.copytree(store.folder, folder / "after-0")
        calls |= carried_out(store, loop.FIRST[:-1])
    return store, calls


def carried_out(store, stations):
    """Carry out stations of what comes next; return how many calculations the reference logged at each."""
    step, calls, log = loop.next_phase(store), {}, Path(os.environ["LOGGED_EMT"])
    assert step.stations == loop.FIRST
    process.allow_engines()
    end_sessions()  # of references that log elsewhere
    step.begin(MACHINE)
    for station in stations:
        before = sum(calculations(log).values())
        carry_out(station, store, step.iteration, MACHINE)
        gather(station, store, step.iteration, MACHINE)
        calls[step.iteration, station.name] = sum(calculations(log).values()) - before
    end_sessions()
    return calls


@pytest.fixture(scope="module")
def self_driven(self_driven_calls):
    return self_driven_calls[0]


@pytest.mark.engines
def test_a_campaign_that_drives_itself_calls_the_reference_for_relaxations_and_for_each_frame_once(self_driven_calls):
    store, calls = self_driven_calls
    moved = store.result("initial", 1, InitialData)
    assert calls.pop((0, "prepare")) > 1, "relaxations are counted apart"
    assert calls == {
        (0, "initial"): 0,
        (0, "label"): 6,
        (0, "train"): 0,
        (1, "prepare"): 0,
        (1, "initial"): 0,
        (1, "label"): moved.md_frames,
    }
    assert moved.md_calls == 66, "those of the first model"


@pytest.mark.engines
def test_the_first_models_drive_the_md_of_the_copies_that_come_after(self_driven):
    (still,) = self_driven.iterations()
    moved = self_driven.result("initial", 1, InitialData)
    assert (still.initial.n_frames, still.initial.md_frames, still.initial.driver) == (6, 0, None)
    assert (moved.n_frames, moved.md_calls) == (moved.md_frames, 66)
    assert moved.md_frames + moved.refused.get("out of region", 0) == 18
    assert moved.driver["arguments"] == {"model": f"sha256:{still.ensemble.members[0].sha256}"}
    assert len(moved.held_out) == 1
    labelling = self_driven.result("label", 1, Labelling)
    assert labelling.labels_computed == moved.md_frames
    assert labelling.dataset_frames > still.labelling.dataset_frames
    assert not has_new_data(self_driven, 2)


@pytest.mark.engines
def test_the_first_models_are_asked_who_they_are_by_the_interpreter_that_moves_the_atoms(tmp_path, self_driven):
    """On a cluster the one of the profile may have no deepmd-kit, or not be there at all."""
    shutil.copytree(self_driven.folder.with_name("after-0"), tmp_path / "c")
    cpu = {"python": sys.executable}
    machine = Machine(python="/no/such/python", places={"gpu": {}, "cpu": cpu}, stations={"initial": "cpu"}, **SMALL)
    step = loop.next_phase(Store(tmp_path / "c"))
    process.allow_engines()
    step.begin(machine)
    end_sessions()
    asked, sealed = (store.fingerprint(1, Driver.identity_file) for store in (step.store, self_driven))
    assert asked == sealed


def test_run_and_status_say_what_drove_and_what_it_was_asked(undisturbed):
    record = undisturbed[0].iterations()[0]
    assert " frames of MD by " not in iteration_line(record)
    who = {"calculator": "a:Fast", "version": "1.0", "sha256": "0" * 64, "weights_sha256": None, "arguments": {}}
    more = {"driver": who, "md_frames": 16, "refused": {"out of region": 2}}
    driven_by = record.model_copy(update={"initial": record.initial.model_copy(update=more)})
    assert "16 frames of MD by a:Fast in 66 calls, 2 more out of region" in iteration_line(driven_by)
    told = _iteration(driven_by)["initial_md"]
    assert told["driver"] == {"calculator": "a:Fast", "version": "1.0", "sha256": "0" * 64}
    assert (told["calls"], told["frames"], told["refused"]) == (66, 16, {"out of region": 2})


def test_systems_that_are_added_are_labelled_as_they_are_and_moved_one_iteration_later(tmp_path):
    first = driven(tmp_path, "self")
    systems = (*first.initial.systems, System(seed="Cu_Fm-3m", supercell=(2, 2, 3)))
    more = first.model_copy(update={"initial": first.initial.model_copy(update={"systems": systems})})
    store = Store.create(tmp_path / "c", first)
    planned = []
    for iteration, campaign in enumerate((first, more, more, more)):
        store.open_iteration(iteration, campaign)
        planned.append({task.id.rpartition("-")[0] for task in initial.plan(campaign, store, iteration)})
    assert planned[0] == {"s0-x0.98-static", "s0-x1.02-static"}
    assert planned[1] == {"s0-x0.98-300K", "s0-x1.02-300K", "s1-x0.98-static", "s1-x1.02-static"}
    assert planned[2] == {"s1-x0.98-300K", "s1-x1.02-300K"}
    assert planned[3] == set()


@pytest.mark.engines
def test_the_plan_of_a_campaign_that_drives_itself_counts_both_trainings(tmp_path):
    campaign = driven(tmp_path, "self")
    found = check(campaign, MACHINE, tmp_path / "c")
    assert found.problems == []
    assert any(
        "initial: 6 structures and 6 trajectories moved by a model trained on these, 24 labels" in f
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


def is_at(store, station, n, iteration=0):
    return (store.folder / "campaign" / "uuid").exists() and n_done(store, station, iteration) >= n


def killed_at(moments, campaign, folder, env=None):
    """Run a campaign by the command line, killed -9 at (station, iteration, tasks published); return its folder."""
    store, machine = Store(folder / "c"), machine_file(folder / "machine.yaml", slots=2)
    for station, iteration, n in moments:
        running = start(campaign, store.folder, "--machine", machine, env=env)
        wait_until(lambda at=(store, station, n, iteration): is_at(*at), running, what=station)
        assert running.poll() is None, (folder / "output.txt").read_text()
        kill_group(running)
    return store


@pytest.mark.engines
def test_kills_in_md_and_in_labels_cost_one_label_of_each_slot_and_change_no_bit(tmp_path, logged):
    campaign = tiny(tmp_path / "tiny.yaml", initial__md__driver=MORSE, label__reference=LOGGED)
    undisturbed = initial_data(load_campaign(campaign), tmp_path / "undisturbed")
    calls = tmp_path / "killed.txt"
    env = environment(LOGGED_EMT=str(calls), LOGGED_EMT_SLEEP="0.1")
    moments = (("initial", 0, 1), ("label", 0, 3), ("train", 0, 0))
    store = Store(killed_at(moments, campaign, tmp_path, env).folder)
    assert dataset_summary(store, 0) == dataset_summary(undisturbed, 0)
    times, wanted = calculations(calls), calculations(logged)  # those of the trial are none of the data
    assert wanted.keys() <= times.keys()
    assert sum(times[structure] for structure in wanted) - len(wanted) <= 2


@pytest.mark.engines
def test_a_kill_while_the_first_models_move_atoms_changes_no_bit_of_what_is_labelled(tmp_path, logged, self_driven):
    shutil.copytree(self_driven.folder.with_name("after-0"), tmp_path / "c")
    killed = killed_at((("initial", 1, 2),), tiny(tmp_path / "tiny.yaml", **SELF), tmp_path)
    assert 2 <= n_done(killed, "initial", 1) < 6
    store = Store(killed.folder)
    store.sweep(MACHINE)
    carried_out(store, loop.FIRST[:-1])
    assert dataset_summary(store, 1) == dataset_summary(self_driven, 1)


@pytest.mark.engines
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("driver", [MORSE, "self"])
def test_a_whole_campaign_is_the_same_bit_for_bit_when_it_is_killed(tmp_path, driver):
    campaign = tiny(tmp_path / "tiny.yaml", initial__md__driver=driver)
    undisturbed, _ = run_plain(tmp_path / "undisturbed", campaign, Machine(slots=2, **SMALL))
    moments = (("initial", 0, 1), ("label", 0, 1), ("train", 0, 1))
    moments += (("initial", 1, 1), ("label", 1, 1)) if driver == "self" else ()
    store = Store(killed_at(moments, campaign, tmp_path).folder)
    ended = cli("run", campaign, "--folder", store.folder, "--machine", tmp_path / "machine.yaml", cwd=tmp_path)
    assert ended.returncode == 3, ended.stderr
    assert dataset_summary(Store(store.folder), 2) == dataset_summary(undisturbed, 2)
    export.export(Store(store.folder), tmp_path / "models")
    card = (tmp_path / "models" / "model_card.md").read_text()
    name = driver["calculator"] if driver == MORSE else "deepmd.calculator:DP"
    assert f"MD of the initial data: by {name} 3." in card
