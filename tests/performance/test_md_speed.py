"""Molecular dynamics through a segment against plain `lmp` with the very same input, models and start.

Run with ``pytest -m performance -s tests/performance/test_md_speed.py``. The models are those of the tiny campaign
(trained on the spot), or an ensemble for Na, P and S of one's own: ``ACTIVELEARN_MODELS=m0.pb:m1.pb:m2.pb:m3.pb``.

Three kinds of runs alternate: a segment through the package; `lmp` with the input that the segment wrote; and `lmp`
with an input written by hand, which leaves out what a segment does more (restart files, the halt on overheating, the
thermo file). Compared is the loop of LAMMPS in CPU time (wall time times its "% CPU use"), the fastest run of each
kind, the least disturbed one, standing for it. Beside it are printed wall times, start-up included, and what LAMMPS
itself says that everything but the forces takes: there alone lies what a segment does more than the input by hand.
"""

import os
import re
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from activelearn.config import Dynamics, Machine, Potential, Segment, System
from activelearn.engines import deepmd, lammps, process
from activelearn.engines.dynamics import State, run_segment, thermal_velocities
from activelearn.engines.process import Slot
from activelearn.frames import Frames
from activelearn.starts import crystal

pytestmark = [pytest.mark.performance, pytest.mark.engines, pytest.mark.timeout(3600)]

#: Rounds; a run of each kind in every round.
ROUNDS = 8
WANTED = 0.98
LMP = str(Path(sys.executable).with_name("lmp"))
N_STEPS, N_FRAMES, EVERY = 2000, 20, 20
PLAIN = """
units metal
atom_style atomic
box tilt large
read_data conf.lmp
neighbor 1.0 bin
pair_style deepmd {models} out_file model_devi.out out_freq {every}
pair_coeff * * {elements}
fix 1 all npt temp 300 200 0.1 iso 0 0 1
timestep 0.001
thermo_style custom step temp pe press vol
thermo {every}
dump 1 all custom {dump} walk.lammpstrj id type x y z vx vy vz
dump_modify 1 sort id
run {n_steps}
"""


@pytest.fixture(scope="module")
def models(request):
    given = os.environ.get("ACTIVELEARN_MODELS")
    if given:
        return [str(Path(model).absolute()) for model in given.split(":")]
    store = request.getfixturevalue("undisturbed")[0]
    return [str(store.folder / member.model) for member in store.iterations()[-1].ensemble.members]


@pytest.fixture(scope="module")
def start():
    if os.environ.get("ACTIVELEARN_MODELS"):
        frame = crystal(System(seed="Na3PS4_P-421c", supercell=(2, 2, 2)), 6.0)
    else:
        frame = Frames.from_ase([bulk("Cu", cubic=True).repeat(3)])
    return State(frame, thermal_velocities(frame, 300.0, np.random.default_rng(1)))


def timing_of(log, wall_s):
    """Seconds: the loop (CPU), the loop (wall), all of it (wall), and of the loop what is not the forces (wall)."""
    text = log.read_text()
    loop = float(re.search(r"Loop time of (\S+)", text).group(1))
    share = float(re.search(r"([\d.]+)% CPU use", text).group(1)) / 100.0
    forces = float(re.search(r"\nPair +\| *(\S+)", text).group(1))
    return loop * share, loop, wall_s, loop - forces


def plain(folder, text, inputs):
    """One run of `lmp` itself, in a process of its own, with copies of the files that its input reads."""
    folder.mkdir()
    for file in inputs:
        shutil.copy(file, folder)
    began = time.monotonic()
    code = lammps.run_input(folder, text, Slot(Machine(name="plain", lammps=LMP), folder))
    assert code == 0, (folder / "lammps.out").read_text()[-2000:]
    return timing_of(folder / "log.lammps", time.monotonic() - began)


def test_a_segment_is_as_fast_as_plain_lmp(models, start, tmp_path):
    process.allow_engines()
    slot = Slot(Machine(name="test", slots=1), tmp_path)
    what = Potential(name="DP", deepmd={"models": models}, functional="none", includes_dispersion=False)
    segment = Segment(
        name="s", ensemble="npt-iso", temperature_K=300.0, to_temperature_K=200.0, ps=N_STEPS / 1000, n_frames=N_FRAMES
    )
    dynamics = Dynamics(thermo_every_ps=EVERY / 1000, restart_every_ps=N_STEPS / 4000)
    elements = " ".join(sorted(set(start.frame.symbols)))
    began = time.monotonic()
    deepmd.run_job({"job": "lammps", "input": os.devnull}, tmp_path, "none.out", slot, timeout_s=600.0)
    print(
        f"\nsession started once in {time.monotonic() - began:.1f} s; {start.frame.n_atoms} atoms, {len(models)} models"
    )
    by_hand = PLAIN.format(
        models=" ".join(models), elements=elements, every=EVERY, dump=N_STEPS // N_FRAMES, n_steps=N_STEPS
    )
    runs = {"by hand": [], "same input": [], "ours": []}
    for k in range(ROUNDS):
        began = time.monotonic()
        found = run_segment(what, segment, start, dynamics, tmp_path / f"ours-{k}", slot)
        part = tmp_path / f"ours-{k}" / "part-000"
        runs["ours"].append(timing_of(part / "log.lammps", time.monotonic() - began))
        assert found.ended == "finished"
        inputs = [tmp_path / f"ours-{k}" / "conf.lmp", part / "frames.steps"]
        same_input = (part / "in.lammps").read_text().replace("../conf.lmp", "conf.lmp")
        runs["same input"].append(plain(tmp_path / f"same-{k}", same_input, inputs))
        runs["by hand"].append(plain(tmp_path / f"hand-{k}", by_hand, inputs[:1]))
    process.close_sessions()
    least = {kind: [min(run[i] for run in of_kind) for i in range(4)] for kind, of_kind in runs.items()}
    for i, name in enumerate(("loop, CPU s", "loop, wall s", "all, wall s", "loop without forces, wall s")):
        ours = least["ours"][i]
        others = "  ".join(f"{kind} {least[kind][i]:8.3f} ({least[kind][i] / ours:.3f} x)" for kind in list(runs)[:2])
        print(f"{name:<28} ours {ours:8.3f}  {others}")
    assert least["same input"][0] / least["ours"][0] >= WANTED
