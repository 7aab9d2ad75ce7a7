"""The descriptor of a frame: what it does not see, what it sees, and what it costs."""

import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from activelearn import descriptor
from activelearn.config.selecting import DUPLICATE_DISTANCE
from activelearn.frames import Frames
from activelearn.seeds import load_structure

TYPES = ("Na", "P", "S", "O")


def of(atoms: Atoms, type_map=TYPES) -> np.ndarray:
    return descriptor.of_frames(Frames.from_ase([atoms]), type_map)[0]


@pytest.fixture(scope="module")
def crystal() -> Atoms:
    atoms = load_structure("Na3PS4_P-421c", Path())
    atoms.rattle(0.1, seed=1)
    return atoms


def distance(one: Atoms, two: Atoms) -> float:
    return float(np.linalg.norm(of(one) - of(two)))


# --- what it does not see ---------------------------------------------------------------------------------------------


@hypothesis_settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_rotation_translation_reflection_and_order_are_not_seen(crystal, random_seed):
    rng = np.random.default_rng(random_seed)
    turn = Rotation.random(random_state=random_seed % 2**32).as_matrix() * rng.choice([-1.0, 1.0])
    moved = crystal[rng.permutation(len(crystal))]
    moved.set_cell(moved.cell.array @ turn)
    moved.positions = moved.positions @ turn + rng.uniform(-20.0, 20.0, 3)
    assert of(moved) == pytest.approx(of(crystal), abs=1e-5)
    moved.wrap()
    assert of(moved) == pytest.approx(of(crystal), abs=1e-5)


@pytest.mark.parametrize("repeat", [(2, 1, 1), (1, 2, 3), (2, 2, 2)])
def test_repetition_of_the_cell_is_not_seen(crystal, repeat):
    assert of(crystal.repeat(repeat)) == pytest.approx(of(crystal), abs=1e-5)


def test_another_choice_of_lattice_vectors_is_not_seen(crystal):
    other = crystal.copy()
    other.set_cell(np.array([[1, 0, 0], [1, 1, 0], [-1, 2, 1]]) @ crystal.cell.array)
    assert of(other) == pytest.approx(of(crystal), abs=1e-5)


# --- what it sees -----------------------------------------------------------------------------------------------------


def test_the_mean_counts_neighbours_by_hand():
    """fcc copper: 12 neighbours at a / sqrt(2), 6 at a, 24 at a sqrt(3/2) ... each in three bins of sum one."""
    atoms, n = bulk("Cu", a=3.6, cubic=True), descriptor.N_BINS
    mean, spread = of(atoms, ("Cu",)).reshape(2, n)
    width = (descriptor.CUTOFF_A - descriptor.SHORTEST_A) / (n + 2)
    centre = descriptor.SHORTEST_A + width * (np.arange(n) + 1.5)
    shells = {3.6 / np.sqrt(2): 12, 3.6: 6, 3.6 * np.sqrt(1.5): 24, 3.6 * np.sqrt(2): 12, 3.6 * np.sqrt(2.5): 24}
    x = (np.array([*shells])[None, :] - centre[:, None]) / width  # the quadratic B-spline, written out
    spline = np.where(np.abs(x) < 0.5, 0.75 - x**2, np.where(np.abs(x) < 1.5, 0.5 * (1.5 - np.abs(x)) ** 2, 0.0))
    assert mean == pytest.approx(spline @ np.array([*shells.values()]) * (2.0 / centre) ** 2, rel=1e-5)
    assert spread == pytest.approx(0.0, abs=1e-6)


def test_the_layout_is_that_of_the_type_map(crystal):
    """Elements that are not there leave their blocks empty, so all compositions compare."""
    found = of(crystal).reshape(4, 2, 4, descriptor.N_BINS)
    assert found.size == descriptor.size(TYPES)
    assert (found[3] == 0.0).all()
    assert (found[:, :, 3] == 0.0).all()
    assert (found[:3, 0, :3].max(axis=-1) > 0.0).all()
    same = of(crystal, ("O", "S", "P", "Na")).reshape(found.shape)[::-1, :, ::-1]
    assert same == pytest.approx(found)


def test_a_small_move_is_a_small_distance_and_a_larger_one_a_larger(crystal):
    moved = [crystal.copy() for _ in range(3)]
    for atoms, amplitude in zip(moved, (0.001, 0.05, 0.3), strict=True):
        atoms.positions += amplitude * np.random.default_rng(3).uniform(-1, 1, crystal.positions.shape)
    tiny, small, large = (distance(crystal, atoms) for atoms in moved)
    assert tiny < DUPLICATE_DISTANCE < small < large


def test_it_is_smooth_where_a_neighbour_passes_a_bin_or_the_cutoff():
    apart = [Atoms("Cu2", [[0, 0, 0], [d, 0, 0]], cell=[30, 30, 30], pbc=True) for d in np.arange(0.6, 6.5, 0.001)]
    found = np.array([of(atoms, ("Cu",)) for atoms in apart])
    steps = np.linalg.norm(np.diff(found, axis=0), axis=1)
    assert steps.max() < 0.05
    assert steps[:4000].min() > 0.0, "and nowhere deaf (up to 4.6 Å)"
    assert np.linalg.norm(found[-1]) == 0.0, "beyond the cutoff"


def test_one_stretched_bond_among_32_is_seen_through_noise_on_all_atoms(crystal):
    """One of 32 P-S bonds by 1.2 Å, against all 64 atoms rattled by 0.02 Å."""
    atoms = crystal.repeat((2, 2, 1))
    broken, rattled = atoms.copy(), atoms.copy()
    p = atoms.symbols.indices()["P"][0]
    sulphur = atoms.symbols.indices()["S"]
    s = sulphur[np.argmin(atoms.get_distances(p, sulphur, mic=True))]
    broken.set_distance(p, s, atoms.get_distance(p, s, mic=True) + 1.2, fix=0, mic=True)
    rattled.rattle(0.02, seed=5)
    assert distance(atoms, broken) > 2.0 * distance(atoms, rattled) > 2.0 * DUPLICATE_DISTANCE


def test_isolated_atoms_have_a_descriptor_too():
    lone = Atoms("P", [[5, 5, 5]], cell=[10, 10, 10], pbc=False)
    assert (of(lone) == 0.0).all()
    pair = Atoms("PS", [[5, 5, 5], [7, 5, 5]], cell=[10, 10, 10], pbc=False)
    assert of(pair).any()


def test_many_frames_at_once_are_those_one_by_one(copper):
    found = descriptor.of_frames(copper, ("Cu",))
    assert found.shape == (3, descriptor.size(("Cu",)))
    assert found.dtype == np.float32
    assert np.array_equal(found, [descriptor.of_frames(copper[k], ("Cu",))[0] for k in range(3)])
    assert descriptor.of_frames(copper[:0], ("Cu",)).shape == (0, descriptor.size(("Cu",)))


def test_a_frame_of_128_atoms_takes_less_than_5_ms(crystal):
    frames = Frames.from_ase([crystal.repeat((2, 2, 2))] * 10)
    assert frames.n_atoms == 128
    seconds = []
    for _ in range(3):
        begin = time.process_time()
        descriptor.of_frames(frames, TYPES)
        seconds.append((time.process_time() - begin) / len(frames))
    assert min(seconds) < 0.005
