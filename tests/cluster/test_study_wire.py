"""A study by itself through `activelearn submit` and `activelearn rlaunch`, on a MongoDB wire-protocol server."""

import subprocess
from types import SimpleNamespace

import pytest
import yaml
from campaigns import cli, command, environment, machine_file
from test_html_page import Read

from activelearn import loop
from activelearn.store import StudyStore
from activelearn.workflow import connect

pytestmark = [pytest.mark.needs_mongo, pytest.mark.timeout(600)]
EMT = {"calculator": "ase.calculators.emt:EMT", "functional": "none", "includes_dispersion": False}
STUDY = {
    "name": "copper",
    "potentials": [{"name": "EMT", "ase": EMT}],
    "glass": {
        "series": {
            "name": "copper",
            "title": "Cu",
            "compositions": [{"x": 0.0, "units": {"Cu": 1}, "density_g_cm3": 8.5}],
            "roles": {"formers": {"Cu": 1}, "anions": ["O"]},
            "cutoffs_A": {"Cu-O": 2.2},
        },
        "n_atoms": 32,
        "n_replicas": 2,
        "dynamics": {"timestep_fs": 1.0, "thermo_every_ps": 0.005},
        "segments": [
            {"name": "melt", "temperature_K": 300, "ps": 0.02, "n_frames": 2},
            {"name": "glass", "temperature_K": 100, "ps": 0.02, "n_frames": 4, "is_analysed": True},
        ],
    },
    "benchmark": {"network": None, "coordination": False, "free_volume": False, "elastic": {"max_steps": 20}},
}


def study_file(folder, **changes):
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}))
    return path


def worker(here, file):
    """``activelearn rlaunch rapidfire`` until nothing is left to do."""
    folder = here / "worker"
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        command("rlaunch", "-l", file, "rapidfire", "--sleep", "0"),
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def both(mongo, tmp_path_factory):
    """The same study, once by `benchmark --study` here and once submitted, twice, and worked off."""
    here = tmp_path_factory.mktemp("study")
    study, machine = study_file(here), machine_file(here / "machine.yaml", slots=1, chunks={"glass": 2})
    file = mongo.launchpad_file(here)
    local = cli("benchmark", "--study", study, "--folder", "local", "--machine", machine, cwd=here)
    assert local.returncode == 0, local.stderr
    words = ("submit", study, "-l", file, "--machine", machine, "--folder", here / "far")
    told = [cli(*words, cwd=here) for _ in range(2)]
    n_fireworks = connect(file).fireworks.count_documents({})
    said = worker(here, file)
    told.append(cli(*words, cwd=here))
    return SimpleNamespace(here=here, told=told, n_fireworks=n_fireworks, said=said, file=file)


@pytest.mark.engines
def test_submit_takes_a_study_and_adds_it_once(both):
    first, second, third = both.told
    assert [one.returncode for one in both.told] == [0, 0, 0], [one.stderr for one in both.told]
    assert "study copper: glass and benchmarks of far added to" in first.stdout
    assert "nothing added" in second.stdout
    assert "nothing left to do: all of it is measured" in third.stdout
    assert both.n_fireworks == 2 + 1 + 1 + 1 + 1, "two chunks of glasses, one of benchmarks, two gathers, the end"


@pytest.mark.engines
def test_the_submitted_study_equals_the_local_one(both):
    assert both.said.returncode == 0, both.said.stdout + both.said.stderr
    for name in ("results.csv", "scoreboard.csv", "scoreboard.md"):
        far, near = ((both.here / place / "tables" / name).read_text() for place in ("far", "local"))
        assert far == near, name
    assert "elastic" in (both.here / "far" / "tables" / "scoreboard.md").read_text() or "C11" in far
    states = connect(both.file).fireworks.distinct("state")
    assert states == ["COMPLETED"]


@pytest.mark.engines
def test_both_end_with_a_page(both):
    for place in ("local", "far"):
        read = Read((both.here / place / "report.html").read_text(encoding="utf-8"))
        assert (read.wrong, read.open) == ([], [])
        assert "2 of 2 glasses made" in "".join(read.data)


@pytest.mark.engines
def test_a_run_here_takes_a_submitted_study_over(both, mongo, tmp_path):
    file, machine = mongo.launchpad_file(tmp_path), machine_file(tmp_path / "machine.yaml", slots=1)
    study = study_file(tmp_path, benchmark={"rdf": {}, "network": None, "coordination": False, "free_volume": False})
    words = ("submit", study, "-l", file, "--machine", machine, "--folder", tmp_path / "far")
    assert cli(*words, cwd=tmp_path).returncode == 0
    done = cli("benchmark", "--study", study, "--folder", "far", "--machine", machine, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "was submitted to" in done.stdout
    assert worker(tmp_path, file).returncode == 0
    assert not {"READY", "WAITING", "RUNNING", "FIZZLED"} & set(connect(file).fireworks.distinct("state"))


@pytest.mark.engines
def test_a_potential_that_cannot_be_used_is_found_on_the_node_before_the_first_glass(mongo, tmp_path):
    """Known of campaigns, and not of studies: submit called no trial of their potentials."""
    file, machine = mongo.launchpad_file(tmp_path), machine_file(tmp_path / "machine.yaml", slots=1)
    gpu = {"name": "other", "ase": {**EMT, "calculator": "odd_calculators:Gpu"}}
    study = study_file(tmp_path, potentials=[gpu])
    engines = environment()["PYTHONPATH"] + "/engines"
    env = environment(PYTHONPATH=f"{environment()['PYTHONPATH']}:{engines}")
    words = ("submit", study, "-l", file, "--machine", machine, "--folder", tmp_path / "far", "--trust")
    done = cli(*words, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    (tmp_path / "w").mkdir()
    subprocess.run(
        command("rlaunch", "-l", file, "rapidfire", "--sleep", "0"),
        cwd=tmp_path / "w", env=env, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    store = StudyStore.open(tmp_path / "far")
    assert "potential other" in store.submissions.stop_message()
    assert not list(store.folder.glob("glass/*.npz"))
    assert loop.StudyPhase.of(store, store.study).is_begun
