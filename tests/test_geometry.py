"""Geometry guards against distances and angles made by hand; neighbour counts against the shells of fcc."""

import numpy as np
import pytest
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii
from ase.neighborlist import primitive_neighbor_list
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from activelearn.config import Guards
from activelearn.errors import ConfigError
from activelearn.frames import Frames
from activelearn.geometry import (
    cell_angles,
    deformation,
    deformed,
    first_outside,
    first_outside_box,
    first_overflow,
    first_too_close,
    most_neighbours,
    neighbour_capacity,
    shortest_allowed,
)
from activelearn.seeds import heights


def too_close(frame, guards):
    """The closest pair of one frame, if the guards do not allow it."""
    found = first_too_close(frame, guards)
    assert found is None or found[0] == 0
    return None if found is None else found[1]


def dimer(distance, *, symbols=("P", "S"), at=0.0, cell=10.0, pbc=(True, True, True)):
    """Two atoms `distance` apart along x, the first at x = `at`, wrapped into a cubic cell."""
    positions = np.array([[[at, 1.0, 1.0], [(at + distance) % cell, 1.0, 1.0]]])
    return Frames(symbols, np.eye(3)[None] * cell, positions, pbc)


def test_allowed_distances_are_a_fraction_of_the_radii_unless_given():
    guards = Guards(min_distance_fraction=0.5, min_distances_A={"S-P": 1.7, "Na-O": 1.9})
    allowed = shortest_allowed(guards.model_dump_json(), ("Na", "P", "S"))
    r = [covalent_radii[atomic_numbers[kind]] for kind in ("Na", "P", "S")]
    assert allowed[0, 1] == allowed[1, 0] == pytest.approx(0.5 * (r[0] + r[1]))
    assert allowed[1, 2] == allowed[2, 1] == 1.7, "the order of the pair does not matter"
    assert allowed[2, 2] == pytest.approx(r[2])


@pytest.mark.parametrize("at", [0.0, 4.0, 9.5])
def test_a_pair_too_close_is_named_also_across_the_boundary(at):
    guards = Guards(min_distances_A={"P-S": 1.5})
    assert too_close(dimer(1.51, at=at), guards) is None
    assert too_close(dimer(1.49, at=at), guards) == "P-S 1.49 Å"
    assert too_close(dimer(1.02, at=at, symbols=("S", "P")), guards) == "P-S 1.02 Å"


def test_an_open_boundary_is_no_neighbour():
    guards = Guards(min_distances_A={"P-S": 1.5})
    assert too_close(dimer(9.0, at=0.0), guards) == "P-S 1.00 Å"
    assert too_close(dimer(9.0, at=0.0, pbc=(False, True, True)), guards) is None


def test_an_atom_is_guarded_against_its_own_image():
    frame = Frames(("Na",), np.diag([1.5, 9.0, 9.0])[None], np.zeros((1, 1, 3)))
    assert too_close(frame, Guards()) == "Na-Na 1.50 Å"


def test_the_worst_pair_is_named():
    positions = np.array([[[1.0, 0, 0], [2.0, 0, 0], [5.0, 0, 0], [5.7, 0, 0]]])
    frame = Frames(("Na", "Na", "S", "S"), np.eye(3)[None] * 20, positions)
    assert too_close(frame, Guards()) == "S-S 0.70 Å"


def test_no_guard_no_refusal():
    assert too_close(dimer(0.01), Guards(min_distance_fraction=0.0)) is None


@given(st.floats(0.3, 3.0), st.floats(0.0, 10.0))
def test_the_guard_is_exactly_at_its_distance(distance, at):
    refused = too_close(dimer(distance, at=at), Guards(min_distances_A={"P-S": 1.5}))
    if abs(distance - 1.5) > 1e-9:
        assert (refused is not None) == (distance < 1.5)


def walk(*cells, symbols=("Cu",)):
    return Frames(symbols, np.array(cells, dtype=float), np.zeros((len(cells), 1, 3)))


def test_the_volume_is_compared_with_the_start():
    cube = 5.0 * np.eye(3)
    guards = Guards(volume_ratio=(0.6, 1.6), min_distance_fraction=0.0)
    assert first_outside(walk(cube, 0.85 * cube, 1.16 * cube), guards) is None, "0.61 and 1.56"
    assert first_outside(walk(cube, cube, 0.84 * cube, cube), guards) == (2, "volume 0.59 of the start")
    assert first_outside(walk(cube, 1.18 * cube), guards) == (1, "volume 1.64 of the start")


def sheared(gamma_deg):
    g = np.radians(gamma_deg)
    return np.array([[5.0, 0, 0], [5 * np.cos(g), 5 * np.sin(g), 0], [0, 0, 5.0 / np.sin(g)]])


@pytest.mark.parametrize(("gamma", "where"), [(31.0, None), (29.0, 1), (149.0, None), (151.0, 1)])
def test_angles_on_both_sides(gamma, where):
    found = first_outside(walk(sheared(90.0), sheared(gamma)), Guards(min_distance_fraction=0.0))
    assert found == (None if where is None else (where, f"cell angles [90.0, 90.0, {gamma}] deg"))


def test_a_close_pair_ends_a_walk_at_its_frame():
    frames = Frames.concatenate([dimer(2.0), dimer(1.9), dimer(0.9), dimer(2.0)])
    assert first_outside(frames, Guards()) == (2, "P-S 0.90 Å")


@given(st.floats(40, 140), st.floats(50, 130), st.floats(50, 130))
def test_angles_are_those_of_ase(alpha, beta, gamma):
    from ase.cell import Cell

    try:
        cell = Cell.fromcellpar([4.0, 5.0, 6.0, alpha, beta, gamma])
    except AssertionError:  # no such cell
        return
    if cell.volume > 1.0:
        assert cell_angles(cell.array[None])[0] == pytest.approx(cell.angles(), abs=1e-6)


# --- neighbours -------------------------------------------------------------------------------------------------------

#: fcc shells: distance in units of the lattice constant, neighbours up to and with it.
FCC = [(0.7071, 12), (1.0, 18), (1.2247, 42), (1.4142, 54), (1.5811, 78), (1.7321, 86)]


@pytest.mark.parametrize(("shell", "neighbours"), FCC)
def test_neighbours_of_fcc_by_shell(shell, neighbours):
    frame = Frames.from_ase([bulk("Cu", a=3.6)])
    assert most_neighbours(frame, 3.6 * (shell + 0.01), ["Cu"]).tolist() == [neighbours]


def test_neighbours_are_counted_by_element_of_the_neighbour():
    """Rocksalt: six of the other kind at a/2; twelve of the own kind at a/sqrt(2)."""
    frame = Frames.from_ase([bulk("NaCl", "rocksalt", a=5.6)])
    assert most_neighbours(frame, 2.9, ["Cl", "Na"]).tolist() == [6, 6]
    assert most_neighbours(frame, 4.0, ["Cl", "K", "Na"]).tolist() == [12, 0, 12]


def test_the_most_crowded_atom_counts():
    positions = np.array([[[5.0, 5, 5], [6.0, 5, 5], [4.0, 5, 5]]])
    frame = Frames(("P", "S", "S"), 20 * np.eye(3)[None], positions)
    assert most_neighbours(frame, 1.5, ["P", "S"]).tolist() == [1, 2]


def test_capacity_is_that_of_the_squeezed_crystal_and_a_tenth_more():
    frame = Frames.from_ase([bulk("Cu", a=3.6)])
    capacity = {
        ratio: neighbour_capacity([frame], rcut=3.8, volume_ratio=ratio, type_map=["Cu"]) for ratio in (2.0, 1.0, 0.6)
    }
    assert capacity[1.0] == (20,), "18 neighbours, 19.8, rounded up to four"
    assert capacity[2.0] == capacity[1.0], "never for a thinner crystal than the given one"
    squeezed = 3.6 * 0.6 ** (1 / 3)  # 3.036 Å: 3.8 Å holds the shell at 1.2247 a = 3.72 Å
    assert 1.2247 * squeezed < 3.8 < 1.4142 * squeezed
    assert capacity[0.6] == (48,), "42 neighbours, 46.2, rounded up to four"


def test_capacity_takes_the_largest_of_all_structures_and_leaves_room_for_absent_elements():
    structures = [Frames.from_ase([bulk("Cu", a=3.6)]), Frames.from_ase([bulk("Ag", a=4.1)])]
    found = neighbour_capacity(structures, rcut=3.0, volume_ratio=1.0, type_map=["Ag", "Cu", "Au"])
    assert found == (16, 16, 16)


def test_an_element_that_the_type_map_lacks_is_refused():
    frame = Frames.from_ase([bulk("NaCl", "rocksalt", a=5.6)])
    with pytest.raises(ConfigError, match="type_map: lacks Cl of Cl1Na1 - expected all elements - add them"):
        neighbour_capacity([frame], rcut=3.0, volume_ratio=1.0, type_map=["Na"])


# --- neighbours against ASE's -----------------------------------------------------------------------------------------


def is_a_cell(cell):
    """Small and skewed it may be (heights from 1.5 Å on, angles down to a few degrees), but no sheet or needle."""
    return abs(np.linalg.det(cell)) > 1.0 and heights(cell).min() > 1.5


skewed = arrays(np.float64, (3, 3), elements=st.floats(-5, 5)).map(lambda a: a + 4.0 * np.eye(3)).filter(is_a_cell)
places = arrays(np.float64, (5, 3), elements=st.floats(-1, 2))


@settings(max_examples=50)
@given(skewed, places, st.sampled_from([(True, True, True), (True, True, False), (False, False, False)]))
def test_neighbours_of_small_and_skewed_cells_are_those_of_ase(cell, fractions, pbc):
    """Cells lower than the cutoff, of either hand, atoms outside of them: every image counts."""
    symbols = ("P", "S", "S", "P", "Na")
    frame = Frames(symbols, cell[None], (fractions @ cell)[None], pbc)
    i, j, d = primitive_neighbor_list("ijd", pbc, cell, frame.positions[0], 4.01)
    assume(not (np.abs(d - 4.0) < 1e-9).any())  # on the cutoff itself the last bit decides
    i, j = i[d < 4.0], j[d < 4.0]
    kinds = ["Na", "P", "S"]
    wanted = np.zeros((5, 3), dtype=int)
    for a, b in zip(i, j, strict=True):
        wanted[a, kinds.index(symbols[b])] += 1
    assert most_neighbours(frame, 4.0, kinds).tolist() == wanted.max(axis=0).tolist()


@settings(max_examples=50)
@given(skewed, places)
def test_the_closest_pair_of_small_and_skewed_cells_is_that_of_ase(cell, fractions):
    frame = Frames(("S",) * 5, cell[None], (fractions @ cell)[None])
    guards = Guards(min_distances_A={"S-S": 2.0})
    d = primitive_neighbor_list("d", frame.pbc, cell, frame.positions[0], 2.01)
    assume(not (np.abs(d - 2.0) < 1e-9).any())
    d = d[d < 2.0]
    assert too_close(frame, guards) == (None if len(d) == 0 else f"S-S {d.min():.2f} Å")


@pytest.mark.parametrize("pbc", [(True, True, True), (False, False, False)])
def test_two_atoms_on_one_site_are_neighbours(pbc):
    """A distance of zero is the closest of all, not a sign that it is the same atom."""
    frame = Frames(("S", "P"), 10.0 * np.eye(3)[None], np.full((1, 2, 3), 5.0), pbc)
    assert too_close(frame, Guards()) == "P-S 0.00 Å"
    assert most_neighbours(frame, 3.0, ["P", "S"]).tolist() == [1, 1]


def test_an_atom_far_outside_its_cell_is_wrapped():
    near = dimer(1.02, at=9.5)
    far = Frames(near.symbols, near.cell, near.positions + np.array([[[50.0, -30.0, 0.0], [0.0, 0.0, 70.0]]]))
    assert too_close(far, Guards()) == too_close(near, Guards()) == "P-S 1.02 Å"


@pytest.mark.parametrize("amplitude_A", [0.05, 0.3])
@pytest.mark.parametrize("quantile", [0.5, 0.95, 1.0])
def test_the_first_overflow_of_a_walk_is_that_of_counting_every_frame(amplitude_A, quantile):
    """Frames are passed over where no neighbour can have come near enough: not one too many, wrapped atoms or not."""
    rng = np.random.default_rng(3)
    symbols, n = ("Na", "P", "S", "S") * 6, 40
    steps = rng.normal(0.0, amplitude_A, (n, 24, 3))
    strain = np.linspace(0.0, -0.2, n)[:, None, None] * np.array([[1.0, 0.3, 0.0], [0.0, 0.0, 0.2], [0.0, 0.0, 0.5]])
    cell = np.array([[9.0, 0.0, 0.0], [1.0, 8.0, 0.0], [-1.0, 2.0, 8.5]]) @ (np.eye(3) + strain)
    fractions = (rng.random((24, 3)) + (np.cumsum(steps, axis=0) @ np.linalg.inv(cell[0]))) % 1.0
    frames = Frames(symbols, cell, fractions @ cell)
    kinds = ["Na", "P", "S"]
    most = np.array([most_neighbours(frames[k], 4.0, kinds) for k in range(n)])
    sel = np.quantile(most, quantile, axis=0).astype(int).tolist()
    full = np.flatnonzero((most > sel).any(axis=1))
    found = first_overflow(frames, 4.0, kinds, sel)
    assert (found is None) == (len(full) == 0)
    if quantile < 0.9:
        assert found is not None
    if found is not None:
        assert (found[0], found[1].tolist()) == (full[0], most[full[0]].tolist())


# --- deformation ------------------------------------------------------------------------------------------------------

MODES = ["isotropic", "uniaxial-x", "uniaxial-y", "uniaxial-z", "shear-xy", "shear-xz", "shear-yz"]
#: A triclinic cell as LAMMPS has it: (xx, 0, 0), (xy, yy, 0), (xz, yz, zz).
TRICLINIC = np.array([[8.0, 0.0, 0.0], [-2.0, 7.0, 0.0], [1.5, 2.5, 9.0]])


@pytest.mark.parametrize("strain", [0.5, -0.5, 0.01])
@pytest.mark.parametrize("mode", MODES)
def test_volumes_of_deformed_cells(mode, strain):
    (final,) = deformed(TRICLINIC, mode, strain, np.array([1.0]))
    power = {"isotropic": 3, "uniaxial": 1, "shear": 0}[mode.split("-")[0]]
    ratio = np.linalg.det(final) / np.linalg.det(TRICLINIC)
    assert ratio == pytest.approx((1.0 + strain) ** power, rel=1e-12)
    assert np.linalg.det(deformation(mode, strain)) == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("mode", "final"),
    [
        ("isotropic", [[12.0, 0, 0], [-3.0, 10.5, 0], [2.25, 3.75, 13.5]]),
        ("uniaxial-x", [[12.0, 0, 0], [-3.0, 7.0, 0], [2.25, 2.5, 9.0]]),
        ("uniaxial-y", [[8.0, 0, 0], [-2.0, 10.5, 0], [1.5, 3.75, 9.0]]),
        ("uniaxial-z", [[8.0, 0, 0], [-2.0, 7.0, 0], [1.5, 2.5, 13.5]]),
        ("shear-xy", [[8.0, 0, 0], [-2.0 + 3.5, 7.0, 0], [1.5 + 1.25, 2.5, 9.0]]),
        ("shear-xz", [[8.0, 0, 0], [-2.0, 7.0, 0], [1.5 + 4.5, 2.5, 9.0]]),
        ("shear-yz", [[8.0, 0, 0], [-2.0, 7.0, 0], [1.5, 2.5 + 4.5, 9.0]]),
    ],
)
def test_the_box_of_a_deformed_triclinic_cell_by_hand(mode, final):
    """By half: x scales xx, xy and xz; y scales yy and yz; a shear xy moves b by half of b_y, and c by half of c_y."""
    half_way, whole = deformed(TRICLINIC, mode, 0.5, np.array([0.5, 1.0]))
    assert whole == pytest.approx(np.array(final))
    assert half_way == pytest.approx((TRICLINIC + np.array(final)) / 2.0), "linear in time"
    assert np.array_equal(whole, np.tril(whole)), "what LAMMPS can hold"


@given(st.sampled_from(MODES), st.floats(-0.8, 2.0), arrays(np.float64, 3, elements=st.floats(-3, 3)))
def test_every_lattice_point_moves_as_the_continuum_does(mode, strain, n):
    """Small print of F: u = n h0 goes to F u, whichever lattice vector it is made of."""
    (final,) = deformed(TRICLINIC, mode, strain, np.array([1.0]))
    u = n @ TRICLINIC
    moved = u.copy()
    axes = {"x": 0, "y": 1, "z": 2}
    kind, _, directions = mode.partition("-")
    if kind == "shear":  # the plane at height h slides by strain times h
        moved[axes[directions[0]]] += strain * u[axes[directions[1]]]
    else:
        stretched = [axes[directions]] if directions else [0, 1, 2]
        moved[stretched] *= 1.0 + strain
    assert n @ final == pytest.approx(moved, abs=1e-12)


# --- guards of the box alone ------------------------------------------------------------------------------------------


@given(
    st.sampled_from(MODES),
    st.floats(-0.6, 1.5).filter(lambda strain: abs(strain) > 0.01),
    st.floats(0.3, 0.95),
    st.floats(1.05, 3.0),
    st.floats(20.0, 70.0),
)
def test_the_box_leaves_its_guards_where_the_frames_do(mode, strain, low, high, angle):
    """Step by step by the definition, with angles by ASE; and as first_outside has it for frames with far atoms."""
    from ase.cell import Cell

    guards = Guards(volume_ratio=(low, high), min_angle_deg=angle, min_distance_fraction=0.0)
    cells = deformed(np.diag([6.0, 7.0, 8.0]), mode, strain, np.linspace(0.0, 1.0, 21))
    found = first_outside_box(cells, guards)
    frames = Frames(("Cu",), cells, np.zeros((21, 1, 3)))
    assert first_outside(frames, guards) == found
    for k, cell in enumerate(map(Cell, cells)):
        ratio, angles = cell.volume / 336.0, cell.angles()
        is_outside = not low <= ratio <= high or angles.min() < angle or angles.max() > 180.0 - angle
        if is_outside:
            assert found is not None
            assert found[0] == k
            return
    assert found is None


def test_a_pair_that_is_too_close_is_found_before_the_box_leaves():
    cells = deformed(10.0 * np.eye(3), "isotropic", 0.5, np.linspace(0.0, 1.0, 11))
    positions = np.tile(np.array([[1.0, 1, 1], [3.0, 1, 1]]), (11, 1, 1))
    positions[2, 1, 0] = 1.9
    frames = Frames(("S", "S"), cells, positions)
    guards = Guards(volume_ratio=(0.5, 1.6))
    assert first_outside_box(cells, guards) == (4, "volume 1.73 of the start")
    assert first_outside(frames, guards) == (2, "S-S 0.90 Å")
    assert first_outside(frames[3:], Guards(volume_ratio=(0.5, 1.2))) == (2, "volume 1.28 of the start")
