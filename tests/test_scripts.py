"""The scripts of tests/performance measure and reckon what they say."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write

from activelearn import capacity, explore
from activelearn.check import cost, pace
from activelearn.config import Machine, Speeds, TrainingRun, load_campaign, load_machine
from activelearn.engines.trainers.deepmd import inputs

HERE = Path(__file__).resolve().parent
RACE, DATA = HERE / "performance" / "race", HERE / "data" / "plan"
sys.path += [str(HERE / "performance"), str(RACE)]
import asynchrony  # noqa: E402
import begun  # noqa: E402
import dpgen_files  # noqa: E402
import meter  # noqa: E402
import sides  # noqa: E402
import table  # noqa: E402
from plan_beside_record import billed, record_of  # noqa: E402

BURN = "import time\nwhile time.process_time() < 0.5: pass\n"
#: Ends at once and leaves a daemon behind, which then works.
DAEMON = f"import os\nif os.fork(): os._exit(3)\nos.setsid()\nif os.fork(): os._exit(0)\n{BURN}"


@pytest.fixture
def race():
    return load_campaign(RACE / "quick.yaml")


# --- the race ---------------------------------------------------------------------------------------------------------


def measured(tmp_path, code, **more):
    """Measure in a process of its own: a subreaper gets the orphans of all tests."""
    child = os.fork()
    if not child:
        try:
            found = meter.measure([sys.executable, "-c", code], folder=tmp_path, log=tmp_path / "log", **more)
            (tmp_path / "found").write_text(json.dumps([found.exit_code, found.cpu_s, found.peak_MB, found.wall_s]))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return json.loads((tmp_path / "found").read_text())


def test_what_a_daemon_costs_is_counted_after_the_command_has_ended(tmp_path):
    exit_code, cpu_s, peak_MB, _ = measured(tmp_path, DAEMON)
    assert exit_code == 3
    assert 0.5 < cpu_s < 1.5
    assert 2.0 < peak_MB < 100.0


def test_a_command_is_ended_when_it_has_done_enough_and_what_it_left_with_it(tmp_path):
    sleeper = "import os, time\npid = os.fork()\nif not pid: open('pid', 'w').write(str(os.getpid()))\ntime.sleep(300)"
    exit_code, _, _, wall_s = measured(tmp_path, sleeper, until=(tmp_path / "pid").exists)
    assert exit_code == -signal.SIGTERM
    assert wall_s < 60.0
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_what_is_interrupted_leaves_no_daemon_behind(tmp_path):
    """The race continues in another folder while a daemon of DP-GEN would still work."""
    daemon = "open('part', 'w').write(str(os.getpid())); os.rename('part', 'pid')"
    code = f"import os, time\nif not os.fork():\n os.setsid()\n if not os.fork(): {daemon}\ntime.sleep(300)"

    def interrupt():
        if (tmp_path / "pid").exists():
            raise KeyboardInterrupt

    with pytest.raises(FileNotFoundError):  # no figures
        measured(tmp_path, code, until=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_results_of_one_race_are_not_taken_for_those_of_another(tmp_path):
    asked = {"campaign": "a", "slots": 2, "baseline": None}
    begun.want_the_same(tmp_path, asked)
    (tmp_path / "initial").mkdir()
    begun.want_the_same(tmp_path, asked | {"baseline": "x"})
    begun.want_the_same(tmp_path, asked)
    for change in ({"baseline": "y"}, {"slots": 4}, {"campaign": "b"}):
        ((name, value),) = change.items()
        with pytest.raises(SystemExit, match=f"was begun with {name} .*, and {value} is asked for"):
            begun.want_the_same(tmp_path, asked | change)
    (tmp_path / "race.json").unlink()
    with pytest.raises(SystemExit, match=r"race\.json: gone"):
        begun.want_the_same(tmp_path, asked)


def test_a_labeller_whose_sibling_dies_labels_its_own_frame(tmp_path):
    task = tmp_path / "task.000000"
    task.mkdir()
    write(task / "conf.poscar", bulk("Cu", cubic=True), format="vasp")
    asked = {"calculator": "ase.calculators.emt:EMT", "arguments": {}, "type_map": ["Cu"]}
    (tmp_path / "calculator.json").write_text(json.dumps(asked))
    with (task / "lock").open("w") as lock:  # as of a sibling that is at it
        fcntl.flock(lock, fcntl.LOCK_EX)
        words = [sys.executable, str(RACE / "dpgen_label.py"), str(tmp_path / "calculator.json")]
        labeller = subprocess.Popen(words, cwd=task)
        before, deadline = (task / "lock").stat().st_mtime_ns, time.monotonic() + 60.0
        while (task / "lock").stat().st_mtime_ns == before and time.monotonic() < deadline:  # opened: it has tried
            time.sleep(0.1)
        time.sleep(1.0)
        assert not (task / "out.hdf5").exists()
    try:
        assert labeller.wait(60.0) == 0
    finally:
        labeller.kill()
    assert (task / "out.hdf5").is_file()


def test_cpu_between_two_moments_is_interpolated():
    found = meter.Measured(0, 100.0, 104.0, 8.0, [(102.0, 2.0, 1.0), (104.0, 8.0, 3.0)])
    assert found.cpu_at(101.0) == pytest.approx(1.0)
    assert found.cpu_between(101.0, 103.0) == pytest.approx(4.0)
    assert (found.peak_until(103.0), found.peak_MB) == (1.0, 3.0)


def test_dpgen_trains_and_walks_as_we_do(race, tmp_path):
    (tmp_path / "start" / "data" / "000-Na12P4S16").mkdir(parents=True)
    sel = capacity.of_campaign(race)
    place = dpgen_files.Place(tmp_path / "run", tmp_path / "start", tmp_path / "bin", 2, "lmp", {})
    dpgen_files.write_all(race, sel, place)
    param = json.loads((tmp_path / "run" / "param.json").read_text())
    run = TrainingRun(race.train.n_steps, (1, 1, 1))
    ours = inputs.training_input(race.train, run, type_map=race.type_map, sel=sel, systems=())
    assert param["default_training_param"] == json.loads(json.dumps(ours))
    assert ours["learning_rate"]["type"] == "wsd"
    assert param["training_reuse_start_lr"] == race.train.learning_rate.warm_start
    assert [len(starts) for starts in param["sys_configs"]] == [3] * dpgen_files.N_PASSES
    first, second, *_ = [job["rev_mat"]["lmp"] for job in param["model_devi_jobs"]]
    assert first["V_ENS"] == ["nvt temp V_TEMP V_TEMP 0.1"]
    assert second["V_ENS"] == [*first["V_ENS"], "npt temp V_TEMP V_TEMP 0.1 tri 0 0 1"]
    assert list(second) == ["V_ENS", "V_TEMP", "V_SEED"], "put in one after the other"
    assert len(list((tmp_path / "run" / "starts").iterdir())) == 3 * dpgen_files.N_PASSES


LOG = """2026-11-28 20:00:00,500 - INFO : -------------------------iter.000000 task 00--------------------------
2026-11-28 20:00:10,500 - INFO : -------------------------iter.000000 task 04--------------------------
2026-11-28 20:00:30,500 - INFO : -------------------------iter.000000 task 06--------------------------
2026-11-28 20:00:30,600 - INFO : system 000 candidate :     60 in    369  16.26 %
2026-11-28 20:00:30,600 - INFO : system 000 failed    :      0 in    369   0.00 %
2026-11-28 20:00:30,600 - INFO : system 000 accurate  :    309 in    369  83.74 %
2026-11-28 20:01:30,600 - INFO : system 001 candidate :      3 in    738   0.41 %
"""


def test_passes_and_phases_of_dpgen_are_read_from_its_log():
    ((at, found),) = sides.passes_of(LOG).values()  # of the second, not all has been written
    assert (found.candidates, found.failed, found.frames) == (60, 0, 369)
    assert not found.is_below(0.01, 0.01)
    assert time.localtime(at).tm_sec == 30
    began = at - 30.1
    clock = meter.Measured(0, began, at + 60, 30.0, [(began + k, float(k), 1.0) for k in range(1, 91)])
    phases = list(sides._dpgens_phases(LOG, clock, at))
    assert [(one.name, one.iteration) for one in phases] == [("train", 0), ("explore", 0), ("explore", 0)]
    assert [one.wall_s for one in phases] == pytest.approx([10.0, 20.0, 0.1])
    assert [one.cpu_s for one in phases] == pytest.approx([10.0, 20.0, 0.1])


def a_run(side, cpu_s):
    """One run of two passes."""
    passes = (sides.Pass(9, 369, 49, 0), sides.Pass(18, 738, 3, 0))
    phases = (sides.Phase("train", 0, 10.0, 20.0), sides.Phase("explore", 1, 10.0, 0.27 * cpu_s))
    return sides.Run(side, True, cpu_s / 2, cpu_s, cpu_s, 900.0, passes, phases, 49, ("m.pb",), 100, 10.0, [])


def test_the_table_has_the_ratios_and_says_which_are_met(tmp_path):
    a_run("ours", 100.0).write(tmp_path / "run.json")
    runs = {"ours": [sides.Run.read(tmp_path / "run.json")], table.WHEEL: [a_run(table.WHEEL, 200.0)]}
    assert runs["ours"][0].walk_s == pytest.approx(1.0)
    said = table.lines(runs, {"ours": [{"rmse": 0.03, "p99": 0.1}]})
    assert f"| CPU to the first pass below the bounds, of {table.WHEEL} | 0.500 | 0.42 | no |" in said
    assert f"| peak memory, of {table.WHEEL} | 1.000 | 1 | yes |" in said
    assert any(line.startswith("| candidates by pass") and "13.28, 0.41" in line for line in said)


# --- asynchrony -------------------------------------------------------------------------------------------------------


def spans(*tasks):
    return [asynchrony.Span(*task) for task in tasks]


def test_a_station_waits_for_the_whole_one_before_it_and_a_label_at_once_for_its_walk():
    recorded = spans(
        (1, "explore", "a", 1.0), (1, "explore", "b", 5.0), (1, "label", "0", 3.0, "a"), (1, "train", "m", 2.0)
    )
    seconds = [one.seconds for one in recorded]
    assert asynchrony.makespan(seconds, asynchrony.by_stations(recorded), 2) == 10.0
    assert asynchrony.makespan(seconds, asynchrony.labels_at_once(recorded), 2) == 7.0
    assert asynchrony.makespan(seconds, asynchrony.labels_at_once(recorded), 1) == 11.0


def test_one_pass_behind_walks_while_the_last_models_are_trained():
    recorded = spans(
        (0, "train", "m", 4.0), (1, "explore", "a", 2.0), (1, "label", "0", 1.0, "a"), (1, "train", "m", 4.0),
        (2, "explore", "a", 2.0), (2, "train", "m", 4.0),
    )  # fmt: skip
    seconds = [one.seconds for one in recorded]
    assert asynchrony.makespan(seconds, asynchrony.by_stations(recorded), 2) == 17.0
    assert asynchrony.makespan(seconds, asynchrony.one_pass_behind(recorded), 2) == 15.0


def test_spans_of_a_finished_campaign_are_all_there(undisturbed):
    store, _ = undisturbed
    found = asynchrony.spans_of(store.folder)
    engines = {"explore", "label", "train"}
    assert engines <= {one.station for one in found}
    for station in engines:
        recorded = sum(r.seconds[station].engine_total for r in store.iterations() if station in r.seconds)
        assert sum(one.seconds for one in found if one.station == station) == pytest.approx(recorded, rel=0.02)
    walks = {(one.iteration, one.task) for one in found if one.station == "explore"}
    assert all((one.iteration, one.walk) in walks for one in found if one.station == "label" and one.iteration)


# --- check --plan -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recorded", sorted(DATA.glob("*.json")), ids=lambda path: path.stem)
def test_the_bill_is_within_a_quarter_of_what_was_recorded(recorded, monkeypatch):
    found = json.loads(recorded.read_text())
    monkeypatch.setattr(explore, "MOST_STEPS", found["most_steps"])  # walks shared processes as they did then
    file, record = HERE.parent / found["campaign"], found["stations"]
    campaign = load_campaign(file if file.exists() else found["campaign"])
    bill = billed(campaign, load_machine("local").model_copy(update={"slots": found["slots"]}), 1.0, record)
    assert {"initial", "train, first", "explore"} <= set(bill)
    for station, seconds in bill.items():
        assert seconds == pytest.approx(record[station]["engine_total"], rel=0.25), station


def test_a_record_tells_trainings_apart_and_counts_walks_by_stage(undisturbed):
    from activelearn.status import as_dict

    store, _ = undisturbed
    record = record_of(as_dict(store))
    n_members = store.campaign(0).train.n_members
    assert record["train, first"]["tasks"] == n_members
    assert sum(record["explore"]["walks"].values()) == record["explore"]["tasks"]
    found = billed(store.campaign(0), load_machine("local"), 1.0, record)
    assert {"explore", "train, first", "train, later"} <= set(found)


def test_declared_seconds_are_scaled_to_the_machine_that_asks_and_measured_ones_are_not(race, undisturbed):
    machine = load_machine("local")
    one, two = (cost.estimate(race, machine, None, slower=slower) for slower in (1.0, 2.0))
    assert [2 * i.seconds for i in one.one_pass] == pytest.approx([i.seconds for i in two.one_pass])
    store, _ = undisturbed
    campaign = store.campaign(0)
    same = [cost.estimate(campaign, machine, store, slower=slower).one_pass for slower in (1.0, 2.0)]
    assert [i.seconds for i in same[0] if i.source == "measured"] == [
        i.seconds for i in same[1] if i.source == "measured"
    ]


def test_the_pace_of_this_machine_is_taken_where_the_profile_has_one():
    took = pace.seconds(1)
    assert 0.005 < took < 5.0
    at = Machine(name="mine", slots=1, speeds=Speeds(pace_s=took))
    assert 0.2 < pace.slower(at) < 5.0
    here, declared = f"{1.5 * took:.3g} on this machine, now", f"{took:.3g} in profile mine"
    assert f"scaled by 1.5: machine.speeds.pace_s is {here}, and {declared}" in pace.said(at, 1.5)[0]
    without = Machine(name="mine", slots=1)
    (line,) = pace.said(without, pace.slower(without))
    found = re.fullmatch(
        r"declared seconds are those of profile mine.*machine\.speeds\.pace_s is (\S+) on this machine", line
    )
    assert took / 5.0 < float(found.group(1)) < 5.0 * took, "what is to be declared"
