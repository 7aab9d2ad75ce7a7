"""Segments in ASE: ensembles, ramps, frames, what a kill costs, how a blow-up is told from a fault; LAMMPS agrees.

Copper by effective medium theory, in a session of the worker.
"""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT as EMT_CALCULATOR

from activelearn.config import Dynamics, Machine, Potential, Segment
from activelearn.engines.dynamics import State, Stretch, run_segment, steps_of, thermal_velocities
from activelearn.engines.process import Slot
from activelearn.errors import EngineError
from activelearn.frames import Frames

pytestmark = pytest.mark.engines
slow = pytest.mark.slow

DYNAMICS = Dynamics(
    timestep_fs=4.0, temperature_damping_ps=0.1, pressure_damping_ps=0.4, thermo_every_ps=0.04, restart_every_ps=0.2
)
BAR_PER_EV_A3 = 1602176.634
COLUMNS = ("time_ps", "temperature_K", "potential_energy", "pressure_bar", "volume", "frame_time_ps")


def potential(calculator="ase.calculators.emt:EMT", arguments=None, **more):
    reference = {"calculator": calculator, "functional": "none", "includes_dispersion": False}
    return Potential.model_validate({"name": "toy", "ase": reference | {"arguments": arguments or {}}, **more})


EMT = potential()


def leg(ensemble="nvt", temperature_K=300.0, ps=2.0, **more):
    return Segment.model_validate(
        {"name": "leg", "ensemble": ensemble, "temperature_K": temperature_K, "ps": ps, **more}
    )


def fractions(frames):
    return np.linalg.solve(frames.cell.transpose(0, 2, 1), frames.positions.transpose(0, 2, 1)).transpose(0, 2, 1)


def warm(atoms, temperature_K, amplitude=0.05):
    atoms.rattle(amplitude, seed=1)
    frame = Frames.from_ase([atoms])
    return State(frame, thermal_velocities(frame, temperature_K, np.random.default_rng(3)))


def copper(temperature_K=300.0, *, turned=False, repeat=2):
    """Eight atoms: a millisecond a step, several where the cell moves (EMT rebuilds its neighbour list)."""
    atoms = bulk("Cu", a=3.7, cubic=True) * (1, 1, repeat)
    if turned:
        atoms.set_cell(
            atoms.cell[:] @ np.array([[1.0, 0.05, 0.0], [0.0, 1.0, 0.05], [-0.03, 0.0, 1.0]]), scale_atoms=True
        )
        atoms.rotate(50.0, (1.0, 2.0, -0.5), rotate_cell=True)
    return warm(atoms, temperature_K)


@pytest.fixture
def run(slot, tmp_path):
    def one(segment, start=None, dynamics=DYNAMICS, what=EMT, folder=None):
        return run_segment(what, segment, start or copper(), dynamics, folder or tmp_path / "segment", slot)

    return one


def no_engine(tmp_path):
    """A slot whose worker cannot be asked: it has no time to answer."""
    return Slot(Machine(name="none", walk_timeout_s=1e-9), tmp_path, index=7)


def same(a: Stretch, b: Stretch) -> bool:
    arrays = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in COLUMNS)
    frames = all(np.array_equal(getattr(a.frames, name), getattr(b.frames, name)) for name in ("cell", "positions"))
    frames = frames and np.array_equal(a.velocities, b.velocities)
    ends = a.end is not None and b.end is not None and np.array_equal(a.end.velocities, b.end.velocities)
    return arrays and frames and ends and np.array_equal(a.end.frame.positions, b.end.frame.positions)


# --- physics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature_K", [200.0, pytest.param(500.0, marks=slow)])
def test_nvt_has_the_temperature(run, temperature_K):
    """Over 3N - 3 degrees of freedom: with ASE's 3N it would be 14 % hotter."""
    tight = DYNAMICS.model_copy(update={"temperature_damping_ps": 0.04})
    found = run(leg(temperature_K=temperature_K, ps=8.0), copper(temperature_K), tight)
    late = found.temperature_K[len(found.temperature_K) // 8 :]
    assert (found.ended, found.resumed) == ("finished", 0)
    assert late.mean() == pytest.approx(temperature_K, rel=0.06)
    assert late.std() / late.mean() == pytest.approx(np.sqrt(2.0 / (3 * 8 - 3)), rel=0.25)
    assert found.volume == pytest.approx(2 * 3.7**3)
    assert np.isnan(found.max_devi_f).all()


@slow  # what is in the default set: test_the_first_steps_are_those_of_lammps
@pytest.mark.parametrize("mode", ["iso", "aniso", "tri"])
def test_npt_has_the_pressure_and_moves_what_it_may(run, mode):
    found = run(leg(f"npt-{mode}", 300.0, 4.0, pressure_bar=20000.0), copper(repeat=1))
    late = slice(len(found.time_ps) // 4, None)
    assert found.pressure_bar[late].mean() == pytest.approx(20000.0, abs=6000.0)
    assert found.temperature_K[late].mean() == pytest.approx(300.0, rel=0.15)
    assert found.volume[late].std() > 0.3
    on_rows = found.volume[found.frames.origin["step"] // 10]
    assert found.frames.density == pytest.approx(4 * 63.546 * 1.66053906660 / on_rows)
    lengths = np.linalg.norm(found.frames.cell, axis=2)
    a, b = (found.frames.cell[:, i] / lengths[:, i, None] for i in (0, 1))
    cosine = np.einsum("fi,fi->f", a, b)
    assert np.allclose(lengths, lengths[:, :1], rtol=1e-9) == (mode == "iso")
    assert (np.abs(np.diff(cosine)).max() > 1e-3) == (mode == "tri")
    assert (found.frames.origin["pressure_bar"] == 20000.0).all()


def test_a_ramp_is_followed(run):
    found = run(leg("nvt", 500.0, None, to_temperature_K=100.0, rate_K_per_ps=100.0), copper(500.0))
    assert found.time_ps[-1] == pytest.approx(4.0), "400 K at 100 K/ps"
    target = 500.0 - 100.0 * found.time_ps
    windows = [(found.temperature_K - target)[k : k + 50].mean() for k in (0, 50)]
    assert windows == pytest.approx([0.0] * 2, abs=40.0)
    assert found.frames.origin["temperature_K"] == pytest.approx(500.0 - 100.0 * found.frame_time_ps), "as imposed"


def test_rows_and_frames_stand_where_steps_of_puts_them(run):
    segment = leg("npt-iso", ps=1.0, n_frames=7)
    found, steps = run(segment), steps_of(segment, DYNAMICS, 4.0)
    assert found.time_ps == pytest.approx(np.arange(0, 251, 10) * 0.004)
    assert found.frames.origin["step"].tolist() == steps.frames.tolist()
    assert found.frame_time_ps == pytest.approx(steps.frames * 0.004)
    assert set(found.frames.origin["walk"]) == {"leg"}
    assert found.frames.volume == pytest.approx(found.volume[steps.frames // 10])
    assert fractions(found.frames).min() > -1e-12
    assert fractions(found.frames).max() < 1.0 + 1e-12


@pytest.mark.parametrize("turned", [False, True])
def test_a_segment_begins_where_the_one_before_ended(run, tmp_path, turned):
    first = run(leg("npt-tri", ps=0.4), copper(turned=turned), folder=tmp_path / "a")
    assert first.temperature_K[0] == pytest.approx(300.0, rel=1e-6), "velocities turn with the cell"
    second = run(leg("npt-aniso", ps=0.4), first.end, folder=tmp_path / "b")
    assert second.potential_energy[0] == pytest.approx(first.potential_energy[-1], rel=1e-9)
    assert second.temperature_K[0] == pytest.approx(first.temperature_K[-1], rel=1e-9)
    assert second.pressure_bar[0] == pytest.approx(first.pressure_bar[-1], rel=1e-6)


def test_the_table_is_the_physics_of_the_frames(run, slot):
    """Energy and pressure of the last row, from its frame and velocities with a calculator of our own."""
    from ase import units
    from ase.calculators.emt import EMT as Calculator

    start = copper()
    found = run(leg(ps=0.4), State(start.frame, start.velocities + np.array([3.0, -1.0, 0.5])))
    atoms = found.end.frame.to_ase()[0]
    atoms.calc = Calculator()
    masses, v = atoms.get_masses()[:, None], found.end.velocities
    assert (masses * v).sum(axis=0) == pytest.approx([0.0] * 3, abs=1e-9), "no drift, whatever the velocities given"
    twice_kinetic = float((masses * v**2).sum() * 1.0364269652680506e-4)
    virial = -np.trace(atoms.get_stress(voigt=False)) * atoms.get_volume()
    assert found.potential_energy[-1] == pytest.approx(atoms.get_potential_energy())
    assert found.temperature_K[-1] == pytest.approx(twice_kinetic / (21 * units.kB))
    assert found.pressure_bar[-1] == pytest.approx((twice_kinetic + virial) / (6 * 3.7**3) * BAR_PER_EV_A3, rel=1e-5)


# --- cadences and velocities ------------------------------------------------------------------------------------------


def test_frames_between_rows_leave_those_on_rows_as_they_are(run, tmp_path):
    often = DYNAMICS.model_copy(update={"frame_every_ps": 0.008, "keep_velocities": True})
    on_rows, found = run(leg(ps=0.4, n_frames=10)), run(leg(ps=0.4), dynamics=often, folder=tmp_path / "often")
    assert found.frames.origin["step"].tolist() == list(range(2, 101, 2))
    assert np.array_equal(found.frames.positions[4::5], on_rows.frames.positions)
    assert np.array_equal(found.potential_energy, on_rows.potential_energy)
    assert np.array_equal(found.velocities[-1], found.end.velocities / 1000.0)
    moved = np.diff(fractions(found.frames), axis=0)
    moved = (moved - np.rint(moved)) @ found.frames.cell[0]
    assert moved == pytest.approx(8.0 * (found.velocities[1:] + found.velocities[:-1]) / 2.0, abs=5e-3)  # fs, Å/fs
    assert on_rows.velocities is None


def test_the_velocities_of_frames_have_the_temperature(run):
    tight = {"temperature_damping_ps": 0.04, "frame_every_ps": 0.02, "keep_velocities": True}
    found = run(leg(ps=8.0), dynamics=DYNAMICS.model_copy(update=tight))
    at_once = 1e6 * (found.velocities**2).sum(axis=2).mean()  # the autocorrelation at t = 0, Å²/ps²
    wanted = 3.0 * 8.617333262e-5 * 300.0 / (63.546 * 1.0364269652680506e-4)
    assert at_once == pytest.approx(wanted * (1 - 1 / 8), rel=0.06)


# --- kills ------------------------------------------------------------------------------------------------------------


def children() -> set[int]:
    listed = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {int(word) for file in listed for word in file.read_text().split()}


def test_only_our_worker_is_killed_by_the_next_test(slot):
    """A session adds one child of ours: that is the one to kill."""
    before = children()
    run_segment(EMT, leg(ps=0.04), copper(), DYNAMICS, slot.logs / "a", slot)
    assert len(children() - before) == 1


@pytest.mark.parametrize(
    ("ensemble", "more", "n_frames"),
    [
        ("nvt", {}, 15),
        ("nvt", {"frame_every_ps": 0.012, "keep_velocities": True}, 134),
        pytest.param("npt-iso", {}, 15, marks=slow),
        pytest.param("npt-aniso", {}, 15, marks=slow),
        ("npt-tri", {}, 15),
    ],
)
def test_a_killed_segment_goes_on_as_if_nothing_had_been(run, slot, tmp_path, ensemble, more, n_frames):
    dynamics = DYNAMICS.model_copy(update=more)
    segment = leg(ensemble, 400.0, 1.6, to_temperature_K=300.0, n_frames=15, pressure_bar=100.0)
    folder, before = tmp_path / "killed", children()
    checkpoint = folder / "checkpoint.npz"

    def kill():
        deadline = time.monotonic() + 60.0
        while not checkpoint.is_file() and time.monotonic() < deadline:
            time.sleep(0.01)
        for pid in children() - before:
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(EngineError, match="worker died with return code -9"):
        run(segment, copper(400.0, repeat=1), dynamics, folder=folder)
    killer.join()
    with np.load(checkpoint) as saved:
        assert 0 < int(saved["step"]) < 400
        assert int(saved["step"]) % 50 == 0
        assert str(saved["ended"]) == ""
    found = run(segment, copper(400.0, repeat=1), dynamics, folder=folder)
    whole = run(segment, copper(400.0, repeat=1), dynamics, folder=tmp_path / "undisturbed")
    assert (found.ended, found.resumed, whole.resumed) == ("finished", 1, 0)
    assert len(found.frames) == n_frames
    assert (found.velocities is None) == (not more)
    assert same(found, whole), "bit for bit"
    again = run_segment(EMT, segment, copper(400.0, repeat=1), dynamics, folder, no_engine(tmp_path))
    assert same(again, found), "finished: read, not run"
    assert again.resumed == 1


def test_a_checkpoint_that_is_not_whole_is_not_used(run, tmp_path):
    whole = run(leg(ps=0.4))
    checkpoint = tmp_path / "segment" / "checkpoint.npz"
    checkpoint.write_bytes(checkpoint.read_bytes()[:2000])
    assert same(run(leg(ps=0.4)), whole)
    checkpoint.write_bytes(b"")
    assert same(run(leg(ps=0.4)), whole)


def test_a_checkpoint_of_a_version_that_kept_no_velocities_is_gone_on_from(run, slot, tmp_path):
    hasty, segment = Slot(Machine(name="hasty", walk_timeout_s=1.5), slot.logs), leg(ps=8.0, n_frames=40)
    run_segment(EMT, leg(ps=0.04), copper(), DYNAMICS, tmp_path / "begun", hasty)
    with pytest.raises(EngineError, match=r"no answer within 1.5 s"):
        run_segment(EMT, segment, copper(), DYNAMICS, tmp_path / "old", hasty)
    checkpoint = tmp_path / "old" / "checkpoint.npz"
    with np.load(checkpoint) as saved:
        old = {name: saved[name] for name in saved.files if name != "velocities"}
    np.savez(checkpoint, **old)
    found = run(segment, folder=tmp_path / "old")
    assert (found.ended, found.resumed, found.velocities) == ("finished", 1, None)
    assert same(found, run(segment, folder=tmp_path / "undisturbed"))


def test_a_time_out_is_a_fault_and_the_next_call_goes_on(slot, tmp_path):
    hasty = Slot(Machine(name="hasty", walk_timeout_s=1.5), slot.logs)
    run_segment(EMT, leg(ps=0.04), copper(), DYNAMICS, tmp_path / "begun", hasty)
    with pytest.raises(EngineError, match=r"no answer within 1.5 s"):
        run_segment(EMT, leg(ps=40.0), copper(), DYNAMICS, tmp_path / "segment", hasty)
    with np.load(tmp_path / "segment" / "checkpoint.npz") as saved:
        assert 0 < int(saved["step"]) < 10_000


# --- blow-ups and faults ----------------------------------------------------------------------------------------------


def failed(found, n_rows, n_frames):
    assert found.end is None
    assert (len(found.time_ps), len(found.frames), len(found.frame_time_ps)) == (n_rows, n_frames, n_frames)
    assert all(np.isfinite(a).all() for a in (found.temperature_K, found.potential_energy, found.frames.positions))


def test_what_becomes_too_hot_is_stopped_and_cut(run, tmp_path):
    start = copper()
    start.frame.positions[0, 1] = start.frame.positions[0, 0] + [1.65, 0.0, 0.0]
    fine = DYNAMICS.model_copy(update={"timestep_fs": 1.0, "thermo_every_ps": 0.002})
    found = run(leg(ps=2.0, n_frames=1000), start, fine)
    assert found.ended.startswith("too hot: ")
    hot_K, at_ps = float(found.ended.split()[2]), float(found.ended.split()[5])
    assert hot_K > 1200.0
    assert at_ps - 0.002 <= found.time_ps[-1] < at_ps < 0.5
    failed(found, len(found.time_ps), len(found.time_ps) - 1)
    assert (found.temperature_K <= 4.0 * 300.0).all()
    again = run_segment(EMT, leg(ps=2.0, n_frames=1000), start, fine, tmp_path / "segment", no_engine(tmp_path))
    assert again.ended == found.ended, "a physical end is an end"


def test_too_hot_is_relative_to_the_target_and_to_300_K(run, tmp_path):
    assert run(leg(temperature_K=900.0, ps=0.04), copper(1300.0), folder=tmp_path / "a").ended == "finished"
    assert run(leg(temperature_K=100.0, ps=0.04), copper(1100.0), folder=tmp_path / "b").ended == "finished"
    assert run(leg(temperature_K=100.0, ps=0.04), copper(1300.0), folder=tmp_path / "c").ended.startswith(
        "too hot: 1300"
    )


def test_two_atoms_on_one_site_are_the_physics(run):
    start = copper()
    start.frame.positions[0, 1] = start.frame.positions[0, 0]
    found = run(leg(), start)
    assert found.ended == "non-finite"
    failed(found, 0, 0)


@pytest.fixture
def odd(monkeypatch):
    """The worker finds the calculators of bad days."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def test_numbers_that_are_none_and_an_scf_without_end_are_the_physics(odd, run, tmp_path):
    found = run(leg(), what=potential("odd_calculators:NotFinite", {"after": 20}), folder=tmp_path / "a")
    assert found.ended == "non-finite"
    failed(found, 2, 0)
    found = run(leg(), what=potential("odd_calculators:Unconverged"), folder=tmp_path / "b")
    assert found.ended == "SCFError: no convergence in 60 steps at 0 ps"
    failed(found, 0, 0)


def test_what_a_calculator_raises_again_in_a_new_worker_is_the_physics(odd, run, tmp_path):
    found = run(leg(), what=potential("odd_calculators:Graph", {"tired_after": 30}))
    assert found.ended == "RuntimeError: after 30 structures at 0.116 ps"
    assert found.end is None
    assert len(found.time_ps) > 1, "what came before is kept"


def test_a_fault_is_an_error_and_leaves_the_segment_unfinished(odd, run, tmp_path):
    with pytest.raises(EngineError, match="licence server not found"):
        run(leg(ps=0.4), what=potential("odd_calculators:Broken"))
    assert not (tmp_path / "segment" / "checkpoint.npz").exists()
    assert run(leg(ps=0.4)).ended == "finished"


def test_atoms_in_one_another_are_the_physics(run):
    """Atoms that hardly feel each other, too slow to be hot."""
    free = potential("ase.calculators.lj:LennardJones", {"epsilon": 1e-9, "sigma": 0.2, "rc": 0.6})
    found = run(leg(temperature_K=250.0, ps=4.0, n_frames=100), copper(250.0), what=free)
    assert found.ended.startswith("overlap Cu-Cu ")
    at_ps = float(found.ended.split()[5])
    assert found.time_ps[-1] < at_ps < 4.0
    assert found.frame_time_ps[-1] < at_ps
    failed(found, len(found.time_ps), len(found.frames))


# --- the other engine -------------------------------------------------------------------------------------------------

#: The cutoff lies beyond the fourth shell of neighbours, where ASE's shift of the energy moves no atom.
ARGON = {"epsilon": 0.0103, "sigma": 3.4, "rc": 7.0, "smooth": False}
COLD = Dynamics(timestep_fs=4.0, temperature_damping_ps=0.2, thermo_every_ps=0.04, restart_every_ps=4.0)


def argon_in_both(run, segment, dynamics, tmp_path):
    from test_dynamics_lammps import LJ, direct

    start = warm(bulk("Ar", a=5.4, cubic=True) * (3, 3, 3), 40.0, 0.02)
    in_ase = run(segment, start, dynamics, potential("ase.calculators.lj:LennardJones", ARGON), tmp_path / "ase")
    in_lammps = run_segment(LJ, segment, start, dynamics, tmp_path / "lammps", Slot(direct(), tmp_path))
    return in_ase, in_lammps


@pytest.mark.parametrize("ensemble", ["nvt", "npt-iso", "npt-aniso", "npt-tri"])
def test_the_first_steps_are_those_of_lammps(run, tmp_path, ensemble):
    """Same integrator, same degrees of freedom, same damping: also where thermostat and barostat pull hard."""
    hard = COLD.model_copy(
        update={
            "timestep_fs": 2.0,
            "temperature_damping_ps": 0.02,
            "pressure_damping_ps": 1.0,
            "thermo_every_ps": 0.004,
        }
    )
    segment = leg(ensemble, 40.0, 0.04, to_temperature_K=120.0, n_frames=10, pressure_bar=5000.0 * (ensemble != "nvt"))
    ours, theirs = argon_in_both(run, segment, hard, tmp_path)
    assert ours.frames.origin["step"].tolist() == list(range(2, 21, 2))
    apart = fractions(ours.frames) - fractions(theirs.frames)
    apart -= apart[:, :1]  # LAMMPS' cell grows from its middle, ASE's from its corner
    apart = (apart - np.rint(apart)) @ theirs.frames.cell
    assert np.abs(apart).max() < 1e-4
    assert ours.volume == pytest.approx(theirs.volume, rel=2e-5)
    assert ours.pressure_bar == pytest.approx(theirs.pressure_bar, abs=2.0)
    assert np.ptp(ours.temperature_K) > 20.0
    assert ours.temperature_K == pytest.approx(theirs.temperature_K, abs=0.1)


def test_the_means_are_those_of_lammps(run, tmp_path):
    ours, theirs = argon_in_both(run, leg("nvt", 60.0, 2.0), COLD, tmp_path)
    for name, error in (("temperature_K", 1.0), ("pressure_bar", 25.0)):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert a.std() > error
        assert a.mean() == pytest.approx(b.mean(), abs=error), name


# --- ensembles --------------------------------------------------------------------------------------------------------


def ensemble(tmp_path, *factors):
    """EMT as the first member, and EMT times a factor as each of the others."""
    files = [tmp_path / f"{k}.model" for k in range(len(factors) + 1)]
    for file, factor in zip(files, (1.0, *factors), strict=True):
        file.write_text(str(factor))
    first, *others = map(str, files)
    committee = {"argument": "model", "models": others, "window": [0.01, 1.0]}
    return potential("odd_calculators:Scaled", {"model": first}, committee=committee)


def test_an_ensemble_gives_the_deviation_of_its_path_and_moves_as_its_first_member_alone(odd, run, tmp_path):
    dynamics = DYNAMICS.model_copy(update={"deviation_every_ps": 0.02})
    found = run(leg("npt-iso", ps=0.4), dynamics=dynamics, what=ensemble(tmp_path, 0.8, 1.1))
    assert same(found, run(leg("npt-iso", ps=0.4), folder=tmp_path / "alone"))
    assert found.deviation_time_ps == pytest.approx(np.arange(0, 101, 5) * 0.004)
    on_rows, on_frames = found.max_devi_f_of_rows, found.frames.origin["max_devi_f"]
    assert np.isfinite(on_rows).all()
    assert on_frames.tolist() == on_rows[found.frames.origin["step"] // 10].tolist()
    forces = []
    for atoms in found.frames.to_ase():
        atoms.calc = EMT_CALCULATOR()
        forces.append(np.linalg.norm(atoms.get_forces(), axis=1).max())
    spread = np.std([1.0, 0.8, 1.1])
    assert on_frames == pytest.approx(spread * np.array(forces), rel=1e-9)


def test_all_members_of_an_ensemble_are_loaded_once_on_a_node(odd, slot, tmp_path):
    """Each is some hundred MB and seconds, in every slot that would load it again."""
    notes = [str(tmp_path / name) for name in ("first", "second")]
    committee = {"argument": "note", "models": notes[1:], "window": [0.01, 1.0]}
    what = potential("odd_calculators:Counted", {"note": notes[0]}, committee=committee)
    two = Slot(Machine(name="two", slots=2), slot.logs)
    run_segment(what, leg(ps=0.04), copper(), DYNAMICS, tmp_path / "segment", two)
    for note in notes:
        (made, host), *used = [line.split() for line in Path(note).read_text().splitlines()]
        assert made == "made"
        assert {word for word, _ in used} == {"at"}
        assert host not in {pid for _, pid in used}, "the slots are forks of it"


def test_the_deviations_of_a_killed_segment_are_those_of_an_undisturbed_one(odd, run, slot, tmp_path):
    what, segment = ensemble(tmp_path, 0.9), leg(ps=8.0)
    hasty = Slot(Machine(name="hasty", walk_timeout_s=1.5), slot.logs)
    run_segment(what, leg(ps=0.04), copper(), DYNAMICS, tmp_path / "begun", hasty)
    with pytest.raises(EngineError, match=r"no answer within 1.5 s"):
        run_segment(what, segment, copper(), DYNAMICS, tmp_path / "killed", hasty)
    found, whole = (run(segment, what=what, folder=tmp_path / name) for name in ("killed", "undisturbed"))
    assert (found.resumed, whole.resumed) == (1, 0)
    assert same(found, whole)
    assert found.max_devi_f.tolist() == whole.max_devi_f.tolist()
    assert found.deviation_time_ps.tolist() == whole.deviation_time_ps.tolist()


def test_a_deviation_that_is_no_number_ends_the_segment(odd, run, tmp_path):
    found = run(leg(ps=0.4), what=ensemble(tmp_path, float("nan")))
    assert found.ended == "non-finite"
    assert found.end is None
