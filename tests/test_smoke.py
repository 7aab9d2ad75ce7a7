"""`activelearn machine --smoke`: what is there, and in a sentence what is wrong, here and through a LaunchPad."""

import dataclasses
import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from campaigns import machine_file, run_plain, tiny
from fireworks import FWorker
from fireworks.core.rocket_launcher import launch_rocket
from typer.testing import CliRunner

from activelearn.check import agreement, smoke
from activelearn.check.agreement import Standard
from activelearn.check.smoke import Probe, at_login, probe, wants_of
from activelearn.cli import app
from activelearn.config import Machine, load_campaign, load_machine
from activelearn.engines import process
from activelearn.errors import ConfigError, EngineError
from activelearn.workflow import EmbeddedLaunchPad
from activelearn.workflow.smoke import sent

#: At `cpu` nothing needs deepmd-kit, so a probe takes a moment.
CPU = dict.fromkeys(("prepare", "initial", "label", "light"), "cpu")

SEVENNET = {"trainer": "sevennet", "n_members": 2, "n_steps": 6}


def two_places(cpu=None, **settings) -> Machine:
    places = {"gpu": {"gpus": [], "slots": 1}, "cpu": {"slots": 1, **(cpu or {})}}
    return Machine.model_validate({"min_free_disk_GB": 0.0, "places": places, "stations": CPU, **settings})


@pytest.fixture(autouse=True)
def engines_allowed():
    process.allow_engines()


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A node with two GPUs, as far as a program can say so."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "nvidia-smi"
    program.write_text('#!/bin/sh\nfor i in 0 1; do echo "GPU $i: NVIDIA A100-SXM4-40GB (UUID: GPU-1234)"; done\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")


# --- here -------------------------------------------------------------------------------------------------------------


@pytest.mark.engines
def test_lammps_is_started_as_a_walk_starts_it(tmp_path):
    seen = probe(Machine(slots=1, min_free_disk_GB=0.0), "local", tmp_path)
    assert seen.problems == ()
    assert " 20" in seen.lammps  # 22 Jul 2025
    assert seen.versions.keys() >= {"activelearn", "fireworks", "deepmd-kit", "lammps", "ase"}
    assert seen.python == sys.executable
    assert (seen.n_slots, seen.cuda_visible_devices) == (1, (None,))
    assert abs(seen.file_clock_s) < 5.0
    assert seen.seconds > 0.0
    assert list(tmp_path.iterdir()) == []


def test_the_places_of_the_presets_have_the_stations_that_they_are_for():
    stations = load_machine("slurm").stations_by_place()
    assert set(stations) == {"cpu", "gpu"}
    assert {"train", "final", "explore", "glass", "benchmark"} == set(stations["gpu"])
    assert {"label", "initial", "prepare", "light"} == set(stations["cpu"])
    assert load_machine("workstation").stations_by_place().keys() == {"gpu", "cpu"}
    assert list(Machine().stations_by_place()) == ["local"]


def test_a_place_that_only_labels_is_not_asked_for_lammps(tmp_path):
    seen = probe(two_places(), "cpu", tmp_path)
    assert (seen.problems, seen.lammps) == ((), "")
    assert Probe.from_dict(seen.to_dict()) == seen


def test_a_place_where_the_first_models_move_atoms_is_asked_for_deepmd(tmp_path):
    """Nothing else of the campaign matters, and LAMMPS is not started: nothing here runs walks."""
    site = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(site)], check=True)
    bare = two_places({"python": str(site / "bin" / "python")})
    campaign = load_campaign(tiny(tmp_path / "tiny.yaml", initial__md__driver="self"))
    wants = wants_of(campaign)
    assert wants_of(load_campaign("quickstart"))["driving"] == []
    assert probe(bare, "cpu", tmp_path).problems == ()
    (problem,) = probe(bare, "cpu", tmp_path, wants=wants).problems
    assert "has no deepmd-kit" in problem
    assert "initial (initial.md.driver: self)" in problem
    seen = probe(two_places(), "cpu", tmp_path, wants=wants)
    assert (seen.problems, seen.lammps) == ((), "")


def test_where_another_trainer_trains_its_package_is_asked_for_and_not_deepmd(tmp_path):
    """The place has neither; LAMMPS is not started, for ASE drives the walks."""
    site = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(site)], check=True)
    wants = wants_of(load_campaign(tiny(tmp_path / "tiny.yaml", train=SEVENNET)))
    where = {"python": str(site / "bin" / "python"), "slots": 1}
    places = Machine.model_validate({"places": {"gpu": where, "cpu": {"slots": 1}}, "stations": CPU})
    seen = probe(places, "gpu", tmp_path, wants=wants)
    (problem,) = seen.problems
    assert "has no sevenn - needed for train.trainer: sevennet - pip install 'sevenn>=0.11'" in problem
    assert probe(places, "cpu", tmp_path, wants=wants).problems == ()
    here = probe(Machine(slots=1, min_free_disk_GB=0.0), "local", tmp_path, wants=wants)
    assert (here.problems, here.lammps, here.trains_by) == ((), "", ())
    assert here.versions.keys() >= {"sevenn", "torch", "e3nn"}


def test_the_command_looks_for_what_a_campaign_wants(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    places = {"gpu": {"lammps": "false", "slots": 1}, "cpu": {"slots": 1, "python": str(tmp_path / "venv/bin/python")}}
    machine = machine_file(tmp_path / "machine.yaml", places=places, stations=CPU)
    campaign = tiny(tmp_path / "tiny.yaml", initial__md__driver="self")
    words = ["machine", "--smoke", "--machine", str(machine), "--folder", str(tmp_path), "--trust"]
    for more, n in ((), 0), (("--campaign", str(campaign)), 1):
        done = CliRunner().invoke(app, [*words, *more])
        assert str(done.exception).count("for initial (initial.md.driver: self)") == n


def test_slots_take_turns_on_the_gpus_that_the_node_has(tmp_path, nvidia_smi):
    seen = probe(two_places({"gpus": [0, 1], "slots": 2}), "cpu", tmp_path)
    assert seen.problems == ()
    assert seen.gpus == ("GPU 0: NVIDIA A100-SXM4-40GB", "GPU 1: NVIDIA A100-SXM4-40GB")
    assert seen.cuda_visible_devices == ("0", "1")


def test_a_gpu_that_the_node_has_not_is_said(tmp_path, nvidia_smi):
    (problem,) = probe(two_places({"gpus": [2]}), "cpu", tmp_path).problems
    assert "assigns CUDA device 2, but nvidia-smi shows 2" in problem
    assert "gres" in problem


@pytest.mark.parametrize(
    ("cpu", "said"),
    [
        ({"python": "/no/such/python"}, "/no/such/python: no such program"),
        ({"python": "/bin/false"}, "the interpreter of the engines ended with return code 1"),
        ({"launcher": "no-such-srun --exact"}, "no-such-srun: no such program"),
        ({"slots": 4096}, "4096 slots on"),
    ],
)
def test_what_would_keep_the_engines_from_running_is_said_with_place_and_host(tmp_path, cpu, said):
    seen = probe(two_places(cpu), "cpu", tmp_path)
    assert len(seen.problems) == 1
    assert seen.problems[0].startswith(f"cpu ({seen.host}): ")
    assert said in seen.problems[0]


def test_a_lammps_that_does_not_start_is_said(tmp_path):
    (problem,) = probe(two_places(lammps="false"), "gpu", tmp_path).problems
    assert "LAMMPS ended with return code 1" in problem


def test_a_folder_that_the_node_does_not_see_is_said(tmp_path):
    (problem,) = probe(two_places(), "cpu", tmp_path / "elsewhere").problems
    assert "is not visible from this node" in problem
    (problem,) = probe(two_places(), "cpu", tmp_path, token="1234").problems
    assert "is another folder on this node" in problem


def test_the_command_prints_a_table_and_says_what_is_wrong(tmp_path, monkeypatch):
    """Without -l it looks at every place from here, in the order in which a campaign comes to them."""
    monkeypatch.chdir(tmp_path)
    places = {"gpu": {"lammps": "false", "slots": 1}, "cpu": {"slots": 1, "gpus": [0]}}
    machine = machine_file(tmp_path / "machine.yaml", places=places, stations=CPU)
    done = CliRunner().invoke(app, ["machine", "--smoke", "--machine", str(machine), "--folder", str(tmp_path)])
    assert isinstance(done.exception, EngineError)
    assert "deepmd-kit" in done.output
    assert [line.split()[0] for line in done.output.splitlines()[:2]] == ["place", "cpu"]
    assert [line.split()[0] for line in str(done.exception).splitlines() if line[0] != " "] == ["cpu", "gpu"]


RECORD = """
import os, sys

def note(what):
    line = f"{what} {os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}\\n"
    file = os.open(os.environ["RECORDED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, line.encode())
    os.close(file)

def seen(event, arguments):
    if event == "ctypes.dlopen" and "lammps" in str(arguments[0]):
        note("walk")
    if event == "open" and arguments[0] == "input.json":
        note("training")

note("python")
sys.addaudithook(seen)
"""


@pytest.mark.slow
@pytest.mark.engines
def test_each_walk_and_training_has_the_gpu_of_its_slot(tmp_path, nvidia_smi):
    """Real ones: a `sitecustomize` of their interpreter notes the variable when LAMMPS is loaded and dp train reads."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(RECORD)
    recorded = tmp_path / "recorded"
    variables = {"PYTHONPATH": str(tmp_path / "site"), "RECORDED": str(recorded)}
    machine = Machine(slots=2, gpus=[0, 1], environment=variables, min_free_disk_GB=0.0)
    assert probe(machine, "local", tmp_path).cuda_visible_devices == ("0", "1")
    recorded.unlink()
    once = {"max_iterations": 1, "candidate_share": 0.0, "min_frames": 4, "min_walks": 1}
    run_plain(tmp_path / "c", tiny(tmp_path / "tiny.yaml", stop=once), machine)
    lines = [tuple(line.split()) for line in recorded.read_text().splitlines()]
    sessions = {pid for what, pid, _ in lines if what == "python"}
    for kind in ("walk", "training"):
        found = {(pid, device) for what, pid, device in lines if what == kind and pid not in sessions}
        assert len({pid for pid, _ in found}) == len(found) >= 2, "a process has one GPU throughout"
        assert {device for _, device in found} == {"0", "1"}
    assert {device for what, _, device in lines if what == "python"} == {"0", "1"}  # of the labels of each slot, too


# --- forces of one frame ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def login(tmp_path_factory):
    """What the login node writes: a model that DeePMD-kit trained here, and its forces."""
    process.allow_engines()
    return at_login(Machine(slots=1), {}, tmp_path_factory.mktemp("login"))


def disturbed(login, folder, *, force_eV_A=0.0, **changes):
    """Return a copy of what the login node wrote, with another force and other changes."""
    shutil.copytree(login.parent, folder)
    standard = Standard.read(login)
    forces = [list(row) for row in standard.forces]
    forces[3][1] += force_eV_A
    return dataclasses.replace(standard, forces=forces, **changes).write(folder)


def at_gpu(login, folder):
    process.allow_engines()
    return probe(two_places(), "gpu", folder, login=lambda: login)


@pytest.mark.engines
def test_forces_of_a_place_are_those_of_the_login_node(login, tmp_path):
    standard = Standard.read(login)
    assert standard.largest > 0.05
    assert standard.device
    assert standard.versions.keys() >= {"deepmd-kit", "numpy"}
    seen = at_gpu(login, tmp_path)
    assert seen.problems == ()
    difference = float(seen.compared.split()[3])
    assert difference < agreement.SAME_FORCES
    assert f"those of {standard.host}" in seen.compared


@pytest.mark.engines
def test_other_forces_are_a_problem_that_names_what_differs(login, tmp_path, monkeypatch):
    """The first are evaluated; what is said of others needs no evaluation of its own, and no other start of LAMMPS."""
    same = Standard.read(login).versions
    seen = at_gpu(disturbed(login, tmp_path / "a", force_eV_A=2e-5), tmp_path)
    (problem,) = seen.problems
    assert "forces differ by 2.0e-05 eV/Å" in problem
    assert "same versions; devices" in problem
    assert " 20" in seen.lammps
    monkeypatch.setattr(smoke, "_start_lammps", lambda *_, **__: {"lammps": seen.lammps})
    monkeypatch.setattr(agreement, "_forces", lambda *_: np.array(Standard.read(login).forces))
    other = {**same, "numpy": "1.0.1"}
    (problem,) = at_gpu(disturbed(login, tmp_path / "b", force_eV_A=-1.0, versions=other), tmp_path).problems
    assert f"numpy {same['numpy']} here, 1.0.1 there; devices" in problem
    assert "deepmd-kit" not in problem.partition("expected")[2].partition(" - ")[2].partition("; devices")[0]
    seen = at_gpu(disturbed(login, tmp_path / "c", force_eV_A=5e-6), tmp_path)
    assert (seen.problems, seen.compared.split()[3]) == ((), "5.0e-06")
    (problem,) = at_gpu(disturbed(login, tmp_path / "d", force_eV_A=float("nan")), tmp_path).problems
    assert "differ by inf" in problem


@pytest.mark.engines
def test_a_model_that_the_node_cannot_evaluate_is_a_problem(login, tmp_path):
    file = disturbed(login, tmp_path / "a", versions={"deepmd-kit": "9.9"})
    (file.parent / Standard.read(file).model).write_bytes(b"no model")
    (problem,) = at_gpu(file, tmp_path).problems
    assert "cannot be evaluated" in problem
    assert "here, 9.9 there" in problem


@pytest.mark.engines
def test_where_the_login_node_has_no_engines_it_is_said_and_nothing_fails(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    bare = two_places(python=str(tmp_path / "venv" / "bin" / "python"))
    file = at_login(bare, {}, tmp_path)
    assert "deepmd" in Standard.read(file).why_not
    seen = at_gpu(file, tmp_path)
    assert seen.problems == ()
    assert "forces are not compared" in seen.compared


@pytest.mark.engines
def test_the_command_fails_on_other_forces_and_prints_the_difference(login, tmp_path, monkeypatch):
    def wrong(_machine, _wants, folder):
        return disturbed(login, folder / "login", force_eV_A=1e-3)

    monkeypatch.setattr(smoke, "at_login", wrong)
    machine = machine_file(tmp_path / "machine.yaml", slots=1)
    done = CliRunner().invoke(app, ["machine", "--smoke", "--machine", str(machine), "--folder", str(tmp_path)])
    assert isinstance(done.exception, EngineError)
    assert "test: forces differ by 1.0e-03 eV/Å" in done.output
    assert "expected less than 1.0e-05 eV/Å" in str(done.exception)


@pytest.mark.slow
@pytest.mark.engines
def test_the_trainer_of_a_campaign_is_compared_with_its_own_elements(tmp_path):
    wants = wants_of(load_campaign(tiny(tmp_path / "tiny.yaml", train=SEVENNET)))
    file = at_login(Machine(slots=1), wants, tmp_path)
    assert json.loads(file.read_text())["frame"]["symbols"] == ["Cu"] * 8
    seen = probe(Machine(slots=1, min_free_disk_GB=0.0), "local", tmp_path, wants=wants, login=lambda: file)
    assert seen.problems == ()
    assert float(seen.compared.split()[3]) < agreement.SAME_FORCES


# --- through a LaunchPad ----------------------------------------------------------------------------------------------


@pytest.fixture
def launchpad(tmp_path, monkeypatch):
    """One in this process; whatever rockets do to the working directory is undone."""
    monkeypatch.chdir(tmp_path)
    return EmbeddedLaunchPad()


def work(launchpad, category: str) -> None:
    launch_rocket(launchpad, FWorker(category=category), strm_lvl="CRITICAL")


def test_each_place_gets_one_job_with_its_category_and_queue(launchpad, tmp_path):
    with sent(load_machine("slurm"), launchpad, tmp_path, tmp_path / "my_launchpad.yaml"):
        fireworks = {one["name"]: one["spec"] for one in launchpad.fireworks.find({})}
        assert fireworks.keys() == {"smoke cpu", "smoke gpu"}
        assert fireworks["smoke gpu"]["_category"] == "gpu"
        assert fireworks["smoke gpu"]["_queueadapter"]["gres"] == "gpu:1"
        assert launchpad.workflows.count_documents({"metadata.activelearn": "smoke"}) == 2
    assert launchpad.workflows.count_documents({}) == launchpad.fireworks.count_documents({}) == 0


def test_what_a_worker_saw_comes_back(launchpad, tmp_path, monkeypatch):
    wants = wants_of(load_campaign(tiny(tmp_path / "tiny.yaml", initial__md__driver="self", train=SEVENNET)))
    (tmp_path / "tiny.yaml").unlink()
    with sent(two_places(), launchpad, tmp_path, tmp_path / "my_launchpad.yaml", wants=wants) as jobs:
        asked = [one["spec"]["_tasks"][0]["wants"] for one in launchpad.fireworks.find({})]
        assert asked == [wants] * 2
        assert (wants["driving"], wants["train"]["trainer"]) == (["prepare", "initial"], "sevennet")
        del jobs.fireworks["gpu"]
        work(launchpad, "cpu")
        found = jobs.wait(60.0)
    assert found["cpu"].problems == ()
    assert found["cpu"].versions["activelearn"]
    monkeypatch.chdir(tmp_path)
    assert list(tmp_path.iterdir()) == [], "what the jobs need is taken away when all have reported"


@pytest.mark.engines
def test_the_job_compares_forces_with_those_that_were_written_for_it(login, launchpad, tmp_path):
    def prepare(ours):
        disturbed(login, ours / "login", force_eV_A=1e-4).rename(ours / agreement.FILE)
        (ours / "login" / Standard.read(login).model).rename(ours / Standard.read(login).model)

    with sent(two_places(), launchpad, tmp_path, tmp_path / "my_launchpad.yaml", prepare=prepare) as jobs:
        work(launchpad, "gpu")
        work(launchpad, "cpu")
        found = jobs.wait(60.0)
    (problem,) = found["gpu"].problems
    assert "forces differ by 1.0e-04 eV/Å" in problem
    assert (found["cpu"].problems, found["cpu"].compared) == ((), "")


def test_a_place_that_nobody_works_for_is_named_with_what_to_type(launchpad, tmp_path):
    (tmp_path / "my_fworker_gpu.yaml").touch()
    (tmp_path / "my_qadapter_gpu.yaml").touch()
    with sent(two_places(), launchpad, tmp_path, tmp_path / "my_launchpad.yaml") as jobs:
        said = jobs.wait(0.0)
    assert "no job of category gpu was taken within 0 s" in said["gpu"]
    files = f"-l {tmp_path}/my_launchpad.yaml -w {tmp_path}/my_fworker_gpu.yaml"
    assert f"activelearn qlaunch -r -d 10 {files}" in said["gpu"]
    assert "activelearn rlaunch" in said["cpu"]


def test_a_worker_that_cannot_run_the_job_is_quoted_and_its_output_kept(launchpad, tmp_path, monkeypatch):
    def fail(*_more, **_settings):
        raise ImportError("No module named 'ase'")

    monkeypatch.setattr(smoke, "probe", fail)
    with sent(two_places(), launchpad, tmp_path, tmp_path / "my_launchpad.yaml") as jobs:
        work(launchpad, "gpu")
        work(launchpad, "cpu")
        said = jobs.wait(5.0)
    assert "the job ended with: ImportError: No module named 'ase'" in said["cpu"]
    assert list(tmp_path.glob("activelearn-smoke-*"))


def test_a_job_that_waits_in_the_queue_is_named_with_its_number(launchpad, tmp_path):
    with sent(two_places(), launchpad, tmp_path, tmp_path / "my_launchpad.yaml") as jobs:
        _, launch_id = launchpad.reserve_fw(FWorker(category="cpu"), str(tmp_path))
        launchpad.set_reservation_id(launch_id, "4711")
        said = jobs.wait(0.0)
    assert "job 4711 has not reported" in said["cpu"]
    assert "squeue -j 4711" in said["cpu"]


def test_a_job_that_waits_is_shown_by_the_program_of_its_batch_system(launchpad, tmp_path):
    machine = Machine(places={"cpu": {"queue": {"system": "lsf", "partition": "night"}}})
    with sent(machine, launchpad, tmp_path, tmp_path / "my_launchpad.yaml") as jobs:
        _, launch_id = launchpad.reserve_fw(FWorker(category="cpu"), str(tmp_path))
        launchpad.set_reservation_id(launch_id, "4711")
        said = jobs.wait(0.0)
    assert "bjobs 4711: either" in said["cpu"]


def test_a_node_whose_clock_is_off_is_said(launchpad, tmp_path, monkeypatch):
    real = smoke.probe
    late = lambda *a, **k: dataclasses.replace(real(*a, **k), time=time.time() - 3600.0)  # noqa: E731
    monkeypatch.setattr(smoke, "probe", late)
    with sent(two_places(), launchpad, tmp_path, tmp_path / "my_launchpad.yaml") as jobs:
        del jobs.fireworks["gpu"]
        work(launchpad, "cpu")
        (problem,) = jobs.wait(60.0)["cpu"].problems
    assert "its clock is -36" in problem


def test_without_a_launchpad_file_the_error_says_how_to_get_one(tmp_path):
    done = CliRunner().invoke(app, ["machine", "--smoke", "-l", str(tmp_path / "my_launchpad.yaml")])
    assert isinstance(done.exception, ConfigError)
    assert "activelearn machine --init slurm" in str(done.exception)
