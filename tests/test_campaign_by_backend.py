"""A whole campaign by each backend of DeePMD-kit: to convergence, exported, run elsewhere, and killed ten times."""

import importlib.util
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from backends import DPA, EACH, PYTHONS, machine_of, needs_dpa, needs_torch
from campaigns import SMALL, dataset_summary, end_sessions, environment, machine_file, run_plain, tiny
from lives import counts_of, kill_group, n_done, start, wait_until

from activelearn.engines import lammps, process
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd import TRAINER
from activelearn.export import export
from activelearn.frames import Frames
from activelearn.select.window import force_deviation
from activelearn.store import Store

pytestmark = [pytest.mark.engines, pytest.mark.timeout(1800)]
#: The tiny campaign, which learns enough to converge once it has been given labels.
CHANGES = {
    "train__n_steps": 300,
    "select__f_hi": 0.5,
    "stop__candidate_share": 0.1,
    "stop__failed_share": 0.05,
    "stop__max_iterations": 5,
}
#: Backends, and a model of another kind on one of them.
KINDS = [*EACH, pytest.param("dpa", marks=needs_dpa)]


def changes_of(kind):
    """Return the changes of the tiny campaign for a backend, or for a DPA."""
    return CHANGES | (DPA if kind == "dpa" else {"train__backend": kind})


@pytest.fixture(scope="module", params=KINDS)
def converged(request, tmp_path_factory):
    """A campaign by one backend, or of a DPA, through the plain loop: (kind, Store, End)."""
    backend = request.param
    folder = tmp_path_factory.mktemp(backend)
    campaign = tiny(folder / "tiny.yaml", **changes_of(backend))
    return backend, *run_plain(folder / "c", campaign, machine_of(backend, slots=2, **SMALL))


@pytest.fixture(scope="module")
def exported(converged, tmp_path_factory):
    """Its export: (backend, folder)."""
    backend, store, _ = converged
    folder = tmp_path_factory.mktemp("exported") / "m"
    export(store, folder)
    return backend, folder


def python_of(backend):
    return Path(PYTHONS[backend] or sys.executable)


def run(*words, cwd, **more):
    return subprocess.run(
        [*map(str, words)], cwd=cwd, env=environment(**more), capture_output=True, text=True, timeout=900, check=False
    )


def test_it_learns_from_labels_and_converges(converged):
    backend, store, end = converged
    assert end.converged, end.message
    records = store.iterations()
    assert len(records) >= 3, "an ensemble was trained on what the loop had labelled"
    assert sum(record.labelling.labelled for record in records[1:]) > 0
    members = [member for record in records for member in record.ensemble.members]
    suffix = ".pb" if backend == "tensorflow" else ".pth"
    assert {Path(member.model).suffix for member in members} == {suffix}
    assert {member.attempts for member in members} == {1}
    versions = records[-1].ensemble.versions
    assert {"deepmd-kit", "lammps", "tensorflow-cpu" if backend == "tensorflow" else "torch"} == versions.keys()


def test_lammps_runs_the_export_with_the_deviation_of_its_members(exported, tmp_path):
    """By the ``lmp`` of the interpreter, in a process of its own; members are evaluated on the frames dumped."""
    backend, folder = exported
    done = run(python_of(backend).with_name("lmp"), "-in", "in.lammps", cwd=folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert len(lammps.read_deviation(folder / "model_devi.out")) == 6
    dump = (
        "dump full all custom 20 full.lammpstrj id type x y z fx fy fz\ndump_modify full sort id format float %.17g\n"
    )
    text = (folder / "in.lammps").read_text()
    (folder / "in.full").write_text(text.replace("\nrun ", f"\n{dump}run "))
    done = run(python_of(backend).with_name("lmp"), "-in", "in.full", cwd=folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    steps, cell, positions, forces = lammps.read_dump(folder / "full.lammpstrj", 32)
    assert steps.tolist() == [0, 20, 40, 60, 80, 100]

    process.allow_engines()
    slot, frames = Slot(machine_of(backend), tmp_path / "logs"), Frames(("Cu",) * 32, cell, positions)
    last = "frozen-" if backend == "dpa" else "compressed-"  # attention cannot be tabulated
    models = sorted(path for path in folder.iterdir() if path.name.startswith(last))
    members = np.array([TRAINER.evaluate(tmp_path, model, [frames], slot)[0].forces for model in models])
    end_sessions()
    assert len(members) == 2
    assert members[0] == pytest.approx(forces, abs=1e-6), "the first drives"
    theirs = lammps.read_deviation(folder / "model_devi.out")
    assert force_deviation(members) == pytest.approx([theirs[int(step)] for step in steps], abs=1e-6)
    assert force_deviation(members).max() > 1e-3


def test_the_ase_script_of_the_export_runs(exported, tmp_path):
    """In an interpreter without ASE it is that of the tests, which is Python alone."""
    backend, folder = exported
    (tmp_path / "ase").symlink_to(Path(importlib.util.find_spec("ase").origin).parent)
    done = run(python_of(backend), "ase_example.py", cwd=folder, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "after 10 steps" in done.stdout


# --- kill -9 ----------------------------------------------------------------------------------------------------------

#: Where the ten kills fall: station, iteration, tasks published before, and how long after that at the most (s).
KILLS = (
    ("initial", 0, 2, 0.5),
    ("train", 0, 0, 4.0),
    ("train", 0, 0, 20.0),
    ("train", 0, 1, 20.0),
    ("explore", 1, 0, 10.0),
    ("explore", 1, 2, 2.0),
    ("label", 1, 1, 0.3),
    ("train", 1, 0, 20.0),
    ("train", 1, 1, 10.0),
    ("train", 2, 1, 5.0),
)


KILLED = [
    pytest.param("tensorflow", marks=pytest.mark.slow),
    pytest.param("pytorch", marks=needs_torch),
    pytest.param("dpa", marks=needs_dpa),
]


@pytest.mark.parametrize("converged", KILLED, indirect=True)
def test_ten_kills_change_no_bit_of_the_data_set_nor_of_the_models(converged, tmp_path):
    """Kill -9 of the whole group, slots changed each time, one thread; of TensorFlow chaos/test_kill.py, too."""
    backend, undisturbed, _ = converged
    last = undisturbed.iterations()[-1].index
    campaign = tiny(tmp_path / "tiny.yaml", **changes_of(backend))
    store = Store(tmp_path / "c")

    def begin(k):
        machine = machine_file(tmp_path / f"machine-{k}.yaml", slots=1 + k % 2, python=PYTHONS[backend])
        return start(campaign, store.folder, "--machine", machine)

    def is_there(station, iteration, n_before):
        return (store.folder / "campaign" / "uuid").exists() and n_done(store, station, iteration) >= n_before

    rng = np.random.default_rng(20261130)
    kills = [*KILLS[:-1], ("explore", 2, 1, 0.3)] if backend != "pytorch" else KILLS  # converged by then
    for k, (station, iteration, n_before, longest_s) in enumerate(kills):
        running = begin(k)
        wait_until(partial(is_there, station, iteration, n_before), running, timeout_s=900.0, what=station)
        time.sleep(float(rng.uniform(0.0, longest_s)))
        assert running.poll() is None, (tmp_path / "output.txt").read_text()
        kill_group(running)
    assert begin(len(kills)).wait(900) == 0, (tmp_path / "output.txt").read_text()

    store = Store(store.folder)
    assert dataset_summary(store, last) == dataset_summary(undisturbed, last)
    assert counts_of(store) == counts_of(undisturbed)
    if backend != "tensorflow":  # whose frozen models differ in their metadata
        assert models_of(store) == models_of(undisturbed)
    assert not list(store.folder.glob("claims/*"))
    assert not (store.folder / "lease.json").exists()
    assert "Traceback" not in (tmp_path / "output.txt").read_text()


def models_of(store: Store) -> list[str]:
    """Return the checksums of all models; those of PyTorch hold no time and no path."""
    return [member.sha256 for record in store.iterations() for member in record.ensemble.members]
