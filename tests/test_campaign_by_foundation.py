"""A whole campaign of a fine-tuned foundation: to convergence, killed on the way, exported, a glass made by it."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from campaigns import cli, environment, machine_file, tiny
from lives import counts_of, kill_group, n_done, start, wait_until

from activelearn.config.files import checksum
from activelearn.engines.trainers.sevennet import foundations
from activelearn.store import Store, StudyStore
from activelearn.study import glasses_of

MACE_PYTHON = os.environ.get("ACTIVELEARN_MACE_PYTHON")
#: What labels: a sibling of the foundation, trained on the same data, so that a few steps teach it.
SIBLING = {
    "calculator": "sevenn.calculator:SevenNetCalculator",
    "arguments": {"model": "7net-0_22may2024", "device": "cpu"},
    "package": "sevenn",
    "functional": "PBE",
    "includes_dispersion": False,
    "precision": "float32",
}
#: Four atoms of copper, so that a step of MD takes 30 ms.
CHANGES = {
    "name": "tuned",
    "train": {
        "trainer": "sevennet",
        "n_members": 2,
        "n_steps": 10,
        "batch_size": 2,
        "learning_rate": {"start": 1.0e-3, "stop": 1.0e-4, "warm_start": 5.0e-4},
        "warm_start": True,
        "warm_n_steps": 20,
    },
    "initial": {
        "systems": [{"seed": "Cu_Fm-3m", "supercell": [1, 1, 1]}],
        "min_height_A": 3.0,
        "scales": [1.0],
        "perturb": {"positions_A": 0.05, "cell_fraction": 0.01},
        "copies": 4,
        "held_out_fraction": 0.25,
    },
    "explore__stages": [
        {"name": "hot", "temperatures_K": [600], "n_walks": 2, "n_steps": 20, "every": 2, "timestep_fs": 2.0},
    ],
    "label": {"reference": SIBLING},
    "select": {"f_lo": 0.01, "f_hi": 0.5, "max_frames": 4},
    "stop": {"max_iterations": 4, "candidate_share": 0.25, "failed_share": 0.05, "min_frames": 10, "min_walks": 2},
}
GLASS = {
    "series": {
        "name": "copper",
        "title": "Cu",
        "compositions": [{"x": 0.0, "units": {"Cu": 1}, "density_g_cm3": 8.5}],
        "roles": {"formers": {"Cu": 1}, "anions": ["O"]},
        "cutoffs_A": {"Cu-O": 2.2},
    },
    "n_atoms": 16,
    "n_replicas": 1,
    "relax": {"fmax": 1.0, "max_steps": 5},
    "dynamics": {"timestep_fs": 1.0, "thermo_every_ps": 0.005},
    "segments": [
        {"name": "melt", "temperature_K": 300, "ps": 0.01, "n_frames": 2},
        {"name": "glass", "ensemble": "npt-iso", "temperature_K": 100, "ps": 0.01, "n_frames": 2, "is_analysed": True},
    ],
}
BENCHMARK = {"rdf": None, "network": None, "coordination": False, "free_volume": False, "maps": False}


def run(campaign, machine, folder, *more):
    return cli("run", campaign, "--machine", machine, "--folder", folder, *more, cwd=folder.parent, timeout=900)


@pytest.fixture(scope="module")
def converged(tmp_path_factory):
    """The campaign, carried out: its folder, the YAML, the machine, what was printed."""
    place = tmp_path_factory.mktemp("tuned")
    campaign, machine = tiny(place / "c.yaml", **CHANGES), machine_file(place / "m.yaml", slots=1)
    done = run(campaign, machine, place / "c")
    assert done.returncode == 0, done.stdout + done.stderr
    return Store.open(place / "c"), campaign, machine, done.stdout


@pytest.mark.engines
@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestACampaign:
    def test_it_learns_what_its_members_disagreed_on_and_converges(self, converged):
        store, _, _, said = converged
        assert "converged: " in said
        records = store.iterations()
        assert len(records) >= 3
        assert sum(record.labelling.labelled for record in records[1:]) > 0
        sha256 = checksum(foundations.path_of("7net-0"))
        assert {record.ensemble.versions["foundation"] for record in records} == {f"7net-0 sha256 {sha256}"}
        assert {member.attempts for record in records for member in record.ensemble.members} == {1}
        first, last = (record.ensemble.members[0].held_out.force_rmse for record in (records[0], records[-1]))
        assert last < first
        meta, arrays = store.read_product("explore", 1, store.plan("explore", 1).tasks[0].id)[::-1]
        assert meta["ended"] == "finished"
        assert (arrays["max_devi_f"] > 1e-4).all()
        assert np.isfinite(arrays["kept_model_forces"]).all()

    def test_kill_9_costs_nothing_but_time(self, converged, tmp_path):
        whole, campaign, machine, _ = converged
        store = Store(tmp_path / "c")
        running = start(campaign, store.folder, "--machine", machine)
        wait_until(lambda: n_done(store, "train", 1) == 1, running, timeout_s=600.0, what="a member of iteration 1")
        kill_group(running)
        assert not store.is_sealed("train", 1), "in the midst of it"
        done = run(campaign, machine, store.folder)
        assert done.returncode == 0, done.stdout + done.stderr
        resumed = Store.open(store.folder)
        assert counts_of(resumed) == counts_of(whole)
        models = [[member.sha256 for member in one.iterations()[-1].ensemble.members] for one in (resumed, whole)]
        assert models[0] == models[1]

    def test_its_export_runs_in_ase(self, converged, tmp_path):
        done = cli("export", converged[0].folder, "--to", tmp_path / "m", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "&& python ase_example.py" in done.stdout
        names = sorted(path.name for path in (tmp_path / "m").iterdir())
        assert {"sevennet-0.pth", "sevennet-1.pth", "start.extxyz", "ase_example.py", "model_card.md"} < set(names)
        assert not {"in.lammps", "start.lmp"} & set(names)
        card = (tmp_path / "m" / "model_card.md").read_text()
        assert f"foundation 7net-0 sha256 {checksum(foundations.path_of('7net-0'))}" in card
        words = [sys.executable, "ase_example.py"]
        ran = subprocess.run(words, cwd=tmp_path / "m", env=environment(), capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert "after 10 steps" in ran.stdout

    def test_its_glass_is_checked_and_made_where_the_folder_is_now(self, converged, tmp_path):
        store, campaign, machine, _ = converged
        subprocess.run(["cp", "-a", store.folder, tmp_path / "moved here"], check=True)
        data = yaml.safe_load(campaign.read_text())
        (tmp_path / "c.yaml").write_text(yaml.safe_dump({**data, "glass": GLASS, "benchmark": BENCHMARK}))
        words = ("--machine", machine, "--folder")
        checked = cli("check", tmp_path / "c.yaml", *words, tmp_path / "new", cwd=tmp_path)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert "potential tuned: PBE, 2 members, window 0.01 to 0.5 eV/Å, MD by ASE" in checked.stdout
        done = run(tmp_path / "c.yaml", machine, tmp_path / "moved here", "--accept-changes")
        assert done.returncode == 0, done.stdout + done.stderr
        (place,) = Store.open(tmp_path / "moved here").folder.glob("study-*")
        (potential,) = StudyStore.open(place).study.potentials
        assert potential.ase.weights == potential.ase.arguments["model"]
        (made,) = glasses_of(StudyStore.open(place)).glasses
        assert made.n_judged == 6, "three rows of each of two segments"
        assert made.is_trusted == (made.outside_share <= 0.05)
        assert made.stamp != "not judged"
        assert Path(potential.ase.weights).parent.parent == tmp_path / "moved here"
        driver = converged[0].iterations()[-1].ensemble.members[0]
        assert hashlib.sha256(Path(potential.ase.weights).read_bytes()).hexdigest() == driver.sha256
        (tmp_path / "moved here").rename(tmp_path / "once more")
        again = run(tmp_path / "c.yaml", machine, tmp_path / "once more")
        assert again.returncode == 0, again.stdout + again.stderr
        assert len([*(tmp_path / "once more").glob("study-*")]) == 1, "it is the same study"


#: A MACE that knows nothing yet, so that what its members learn is EMT; walks are short, for they begin in the dark.
BY_MACE = {
    **CHANGES,
    "name": "maced",
    "train": {
        "trainer": "mace",
        "n_members": 2,
        "n_steps": 150,
        "batch_size": 2,
        "learning_rate": {"start": 1.0e-2, "stop": 1.0e-4, "warm_start": 5.0e-3},
        "force_weight": 10.0,
        "warm_start": True,
    },
    "label": {
        "reference": {"calculator": "ase.calculators.emt:EMT", "functional": "none", "includes_dispersion": False}
    },
    "select": {"f_lo": 0.05, "f_hi": 1.0, "max_frames": 4},
    "stop": {"max_iterations": 1, "min_frames": 10, "min_walks": 2},
    "glass": GLASS,
    "benchmark": BENCHMARK,
}


@pytest.mark.engines
@pytest.mark.slow
@pytest.mark.needs_mace
@pytest.mark.skipif(MACE_PYTHON is None, reason="ACTIVELEARN_MACE_PYTHON names no interpreter with mace-torch")
@pytest.mark.timeout(1800)
def test_a_campaign_of_fine_tuned_MACEs_goes_to_a_glass_in_their_own_interpreter(tmp_path):
    model, script = tmp_path / "tiny.model", Path(__file__).parent / "engines" / "tiny_mace.py"
    subprocess.run([MACE_PYTHON, script, model, "Cu"], check=True, capture_output=True, env=environment())
    changes = {**BY_MACE, "train": {**BY_MACE["train"], "foundation": str(model)}}
    campaign = tiny(tmp_path / "c.yaml", **changes)
    done = run(campaign, machine_file(tmp_path / "m.yaml", slots=1, python=MACE_PYTHON), tmp_path / "c")
    assert done.returncode in {0, 3}, done.stdout + done.stderr
    store = Store.open(tmp_path / "c")
    first = store.iterations()[0]
    assert first.ensemble.versions["mace-torch"] == "0.3.16"
    assert first.ensemble.versions["foundation"].startswith("tiny.model sha256 ")
    arrays = store.read_product("explore", 1, store.plan("explore", 1).tasks[0].id)[0]
    assert (arrays["max_devi_f"] > 1e-4).all()
    (place,) = store.folder.glob("study-*")
    (potential,) = StudyStore.open(place).study.potentials
    assert (potential.ase.python, potential.ase.precision, len(potential.others)) == (None, "float64", 1)
    (made,) = glasses_of(StudyStore.open(place)).glasses
    assert made.n_judged > 0
    assert made.is_trusted is not None
