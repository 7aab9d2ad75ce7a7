"""Frames: shapes refused by message, identities of slicing, files that give back every bit, signs by finite strain."""

import hashlib
import io
import re
from dataclasses import replace

import dpdata
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from activelearn.fixed_point import fixed_point
from activelearn.frames import (
    ORIGIN,
    Frames,
    by_composition,
    dataset_sha256,
    density_of,
    formula_of,
    make_origin,
    masses_of,
    npz_bytes,
    pack,
    unpack,
)
from activelearn.writing import write_deepmd, write_extxyz

NAMES = ("cell", "positions", "energy", "forces", "virial", "origin")


def same(a: Frames, b: Frames) -> bool:
    """Equal to the bit, NaN included."""
    if a.symbols != b.symbols or a.pbc != b.pbc:
        return False
    for name in NAMES:
        x, y = getattr(a, name), getattr(b, name)
        if (x is None) != (y is None) or (
            x is not None and (x.dtype, x.shape, x.tobytes()) != (y.dtype, y.shape, y.tobytes())
        ):
            return False
    return True


@st.composite
def some_frames(draw, n_frames=None, symbols=None):
    n = draw(st.integers(0, 5)) if n_frames is None else n_frames
    symbols = symbols or tuple(draw(st.lists(st.sampled_from(["Na", "P", "S", "O"]), min_size=1, max_size=4)))
    numbers = st.floats(width=64)
    labels = draw(st.booleans())
    return Frames(
        symbols,
        draw(arrays(np.float64, (n, 3, 3), elements=numbers)),
        draw(arrays(np.float64, (n, len(symbols), 3), elements=numbers)),
        energy=draw(arrays(np.float64, n, elements=numbers)) if labels else None,
        forces=draw(arrays(np.float64, (n, len(symbols), 3), elements=numbers)) if labels else None,
        virial=draw(arrays(np.float64, (n, 3, 3), elements=numbers)) if labels and draw(st.booleans()) else None,
        origin=make_origin(n, walk=draw(st.text("abc-0", max_size=5)), step=np.arange(n), iteration=3),
    )


# --- construction -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("cell", np.eye(3), "Frames.cell has shape (3, 3), expected (2, 3, 3)"),
        ("positions", np.zeros((2, 4, 3)), "Frames.positions has shape (2, 4, 3), expected (2, 3, 3)"),
        ("pbc", (True, False), "Frames.pbc has shape (2,), expected (3,)"),
        ("energy", np.zeros(3), "Frames.energy has shape (3,), expected (2,)"),
        ("energy", np.zeros((2, 1)), "Frames.energy has shape (2, 1), expected (2,)"),
        ("forces", np.zeros((2, 3)), "Frames.forces has shape (2, 3), expected (2, 3, 3)"),
        ("virial", np.zeros((2, 6)), "Frames.virial has shape (2, 6), expected (2, 3, 3)"),
        ("origin", make_origin(1), "Frames.origin has shape (1,), expected (2,)"),
    ],
)
def test_a_wrong_shape_is_refused_by_name_and_both_shapes(field, value, sentence):
    right = {"symbols": ("Na", "P", "S"), "cell": np.tile(np.eye(3), (2, 1, 1)), "positions": np.zeros((2, 3, 3))}
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Frames(**{**right, field: value})


def test_arrays_become_contiguous_float64_and_origins_are_filled():
    frames = Frames(["Cu"], np.eye(3, dtype=np.float32)[None], [[[0, 0, 0]]], pbc=np.array([1, 0, 1]))
    assert frames.cell.dtype == frames.positions.dtype == np.float64
    assert frames.positions.flags.c_contiguous
    assert frames.pbc == (True, False, True)
    assert frames.symbols == ("Cu",)
    assert frames.origin.dtype == ORIGIN
    assert np.isnan(frames.origin["max_devi_f"][0])
    assert frames.origin["walk"][0] == ""
    assert not frames.is_labelled


def test_volume_and_formula():
    cell = np.array([[[2.0, 0, 0], [1.0, 3.0, 0], [0.5, 0.5, 4.0]]])
    frames = Frames(("S", "Na", "Na"), np.concatenate([cell, -cell]), np.zeros((2, 3, 3)))
    assert frames.volume == pytest.approx([24.0, 24.0])
    assert frames.formula == "Na2S1"
    assert frames.n_atoms == 3


# --- slicing ----------------------------------------------------------------------------------------------------------


@given(frames=some_frames(), cut=st.integers(0, 5))
def test_what_is_cut_and_joined_is_what_was(frames, cut):
    assert same(Frames.concatenate([frames[:cut], frames[cut:]]), frames)


@given(frames=some_frames(n_frames=4), order=st.permutations(range(4)))
def test_a_permutation_and_its_inverse(frames, order):
    assert same(frames[list(order)][np.argsort(order)], frames)
    joined = Frames.concatenate([frames[i] for i in order])
    assert same(joined, frames[list(order)])


@given(frames=some_frames(n_frames=4), mask=arrays(bool, 4))
def test_a_mask_takes_what_its_indices_take(frames, mask):
    assert same(frames[mask], frames[np.flatnonzero(mask)])
    assert len(frames[mask]) == mask.sum()


def test_one_frame_is_still_frames(copper):
    assert same(copper[-1], copper[2:3])
    assert same(copper[np.int64(1)], copper[1:2])
    with pytest.raises(IndexError):
        copper[3]


def test_a_slice_is_a_copy(copper):
    part = copper[:1]
    part.positions[:] = 0.0
    part.origin["iteration"] = 9
    assert np.abs(copper.positions[0]).max() > 0
    assert copper.origin["iteration"][0] == 0


def test_energy_and_forces_are_kept_if_every_part_has_them_and_a_virial_if_any_has(copper):
    joined = Frames.concatenate([copper, replace(copper, virial=None)])
    assert joined.has_virial.tolist() == [True] * 3 + [False] * 3
    assert np.isnan(joined.virial[3:]).all()
    assert np.array_equal(joined.virial[:3], copper.virial)
    assert joined[3:].virial is None, "where no frame of a part has one, there is no array"
    assert not Frames.concatenate([copper, copper.without_labels()]).is_labelled


def test_parts_of_other_atoms_are_refused(copper):
    other = replace(copper, symbols=("Ag",) * 4)
    with pytest.raises(ValueError, match=r"same atoms and pbc, got Cu4 .* and Ag4"):
        Frames.concatenate([copper, other])
    with pytest.raises(ValueError, match="same atoms and pbc"):
        Frames.concatenate([copper, replace(copper, pbc=(True, True, False))])
    with pytest.raises(ValueError, match="at least one part"):
        Frames.concatenate([])


# --- npz --------------------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(parts=st.lists(some_frames(), max_size=3))
def test_an_archive_gives_back_every_bit(parts):
    with np.load(io.BytesIO(npz_bytes(pack(parts))), allow_pickle=False) as archive:
        back = unpack(dict(archive.items()))
    assert len(back) == len(parts)
    assert all(same(a, b) for a, b in zip(parts, back, strict=True))


def test_the_same_arrays_give_the_same_bytes(copper, monkeypatch):
    first = npz_bytes(pack([copper, copper[:1]]))
    monkeypatch.setattr("time.time", lambda: 4.0e9)
    assert npz_bytes(pack([copper[:], copper[:1]])) == first


# --- identity ---------------------------------------------------------------------------------------------------------


def test_the_key_is_the_hash_of_the_stored_numbers(copper):
    """Computed again by hand, so that keys of old ledgers stay what they are."""
    text = b"Cu Cu Cu Cu" + b"\x01\x01\x01" + copper.cell[1].tobytes() + copper.positions[1].tobytes() + b"finger"
    assert copper.structure_key(1, "finger") == hashlib.sha256(text).hexdigest()


@given(
    which=st.sampled_from(["cell", "positions"]), place=st.integers(0, 8), direction=st.sampled_from([np.inf, -np.inf])
)
def test_any_last_bit_changes_the_key(which, place, direction):
    frames = Frames(("Na", "P", "S"), np.arange(9.0).reshape(1, 3, 3), np.linspace(0, 1, 9).reshape(1, 3, 3))
    changed = getattr(frames, which).copy()
    changed.reshape(-1)[place] = np.nextafter(changed.reshape(-1)[place], direction)
    assert replace(frames, **{which: changed}).structure_key(0, "f") != frames.structure_key(0, "f")


def test_symbols_periodicity_and_reference_change_the_key_and_nothing_else_does(copper):
    key = copper.structure_key(0, "f")
    others = [
        replace(copper, symbols=("Ag", "Cu", "Cu", "Cu")).structure_key(0, "f"),
        replace(copper, symbols=("Cu", "Ag", "Cu", "Cu")).structure_key(0, "f"),
        replace(copper, pbc=(True, True, False)).structure_key(0, "f"),
        copper.structure_key(0, "g"),
        copper.structure_key(1, "f"),
        key,
    ]
    assert len(set(others)) == len(others)
    assert copper.without_labels()[:1].structure_key(0, "f") == key
    assert replace(copper, origin=make_origin(3, walk="w")).structure_key(0, "f") == key


def test_the_checksum_of_a_data_set_sees_every_array(copper):
    first = dataset_sha256([copper])
    assert dataset_sha256([copper[:]]) == first
    seen = {first, dataset_sha256([copper, copper]), dataset_sha256([copper[::-1]]), dataset_sha256([])}
    for name in NAMES:
        changed = getattr(copper, name).copy()
        if name == "origin":
            changed["step"][0] += 1
        else:
            changed.reshape(-1)[0] = np.nextafter(changed.reshape(-1)[0], np.inf)
        seen.add(dataset_sha256([replace(copper, **{name: changed})]))
    seen.add(dataset_sha256([replace(copper, symbols=("Ag", "Cu", "Cu", "Cu"))]))
    seen.add(dataset_sha256([copper.without_labels()]))
    assert len(seen) == 4 + len(NAMES) + 2


# --- geometry ---------------------------------------------------------------------------------------------------------

SKEWED = np.array([[5.0, 0.0, 0.0], [2.0, 6.0, 0.0], [-1.0, 0.5, 7.0]])


@given(arrays(np.float64, (2, 3, 3), elements=st.floats(-3.0, 3.0)))
def test_fractional_coordinates_are_those_of_ase_and_wrapping_moves_by_lattice_vectors(fractions):
    cells = SKEWED * np.array([1.0, 1.1])[:, None, None]
    frames = Frames(("Na", "P", "S"), cells, fractions @ cells, origin=make_origin(2, step=[3, 4]))
    for found, atoms in zip(frames.fractional(), frames.to_ase(), strict=True):
        assert found == pytest.approx(atoms.get_scaled_positions(wrap=False), abs=1e-12)
    wrapped = frames.wrapped()
    assert wrapped.fractional().min() > -1e-12
    assert wrapped.fractional().max() < 1.0 + 1e-12
    moved = wrapped.fractional() - frames.fractional()
    assert moved == pytest.approx(np.rint(moved), abs=1e-12)
    assert wrapped.origin["step"].tolist() == [3, 4]


def test_an_open_direction_is_not_wrapped_and_labels_stay(copper):
    away = replace(copper, positions=copper.positions + 2.0 * copper.cell.sum(axis=1)[:, None], pbc=(True, False, True))
    wrapped = away.wrapped()
    inside, before = wrapped.fractional(), away.fractional()
    assert inside[:, :, 1] == pytest.approx(before[:, :, 1])
    assert inside[:, :, [0, 2]].max() < 1.0 + 1e-12
    assert np.array_equal(wrapped.forces, copper.forces)


def test_the_density_is_mass_over_volume():
    salt = Frames.from_ase(bulk("NaCl", "rocksalt", a=5.64, cubic=True))
    assert salt.density == pytest.approx([2.164], abs=0.003), "halite"
    assert salt.masses.sum() == pytest.approx(4 * (22.98977 + 35.45), abs=0.01)
    assert salt.density.tolist() == density_of(salt.symbols, salt.volume).tolist()
    assert masses_of(["H", "Cl"]).tolist() == pytest.approx([1.008, 35.45])


def test_formula_and_what_is_shown_of_frames(copper):
    symbols = ("S", "Na", "P", "Na", "S")
    assert formula_of(symbols) == "Na2P1S2"
    assert formula_of({"S": 4, "P": 1, "Na": 3}, ones=False) == "Na3PS4"
    assert repr(copper) == f"Frames({copper.formula}, {len(copper)} frames, energy, forces, virial)"
    assert repr(Frames(symbols, np.eye(3)[None], np.zeros((1, 5, 3)))) == "Frames(Na2P1S2, 1 frames, no labels)"


# --- ASE --------------------------------------------------------------------------------------------------------------


def test_ase_and_back(copper):
    back = Frames.from_ase(copper.to_ase())
    for name in ("cell", "positions", "energy", "forces"):
        assert np.array_equal(getattr(back, name), getattr(copper, name)), name
    assert back.virial == pytest.approx(copper.virial, rel=1e-13)
    assert copper.to_ase()[1].info["step"] == 0


def test_one_structure_of_ase_is_one_frame_and_none_is_refused(copper):
    atoms = copper.to_ase()[0]
    assert same(Frames.from_ase(atoms), Frames.from_ase([atoms]))
    with pytest.raises(ValueError, match="expected at least one structure"):
        Frames.from_ase([])


def test_images_of_other_atoms_are_refused():
    with pytest.raises(ValueError, match="images of the same atoms in the same order"):
        Frames.from_ase([bulk("Cu"), bulk("Ag")])


def test_labels_are_taken_only_if_every_image_has_them():
    with_calculator, without = bulk("Cu"), bulk("Cu")
    with_calculator.calc = EMT()
    with_calculator.get_forces()
    assert not Frames.from_ase([with_calculator, without]).is_labelled
    alone = Frames.from_ase([with_calculator])
    assert alone.is_labelled
    assert alone.virial is not None
    del with_calculator.calc.results["stress"]
    assert Frames.from_ase([with_calculator]).virial is None


def test_the_free_energy_is_the_one_for_training(copper):
    atoms = copper.to_ase()[0]
    atoms.calc.results["free_energy"] = -7.0
    assert Frames.from_ase([atoms]).energy == pytest.approx([-7.0])


def test_the_virial_is_minus_the_strain_derivative_of_the_energy(copper):
    """virial = -dE/d(strain), by central differences of EMT's energy along six strains: not by any stress."""
    atoms = copper.to_ase()[0]
    eps = 1e-5
    found = np.zeros((3, 3))
    for i in range(3):
        for j in range(i, 3):
            energies = []
            for sign in (1.0, -1.0):
                strain = np.eye(3)
                strain[i, j] += sign * eps / 2
                strain[j, i] += sign * eps / 2
                strained = atoms.copy()
                strained.set_cell(atoms.cell[:] @ strain, scale_atoms=True)
                strained.calc = EMT()
                energies.append(strained.get_potential_energy())
            found[i, j] = found[j, i] = -(energies[0] - energies[1]) / (2 * eps)
    assert copper.virial[0] == pytest.approx(found, abs=1e-5)
    assert np.abs(found).max() > 0.1


# --- deepmd and extxyz ------------------------------------------------------------------------------------------------


def labelled(symbols, n_frames, random_seed, *, virial=True):
    rng = np.random.default_rng(random_seed)
    n = len(symbols)
    return Frames(
        symbols,
        5.0 * np.eye(3) + rng.normal(size=(n_frames, 3, 3)),
        rng.normal(size=(n_frames, n, 3)),
        energy=rng.normal(size=n_frames),
        forces=rng.normal(size=(n_frames, n, 3)),
        virial=rng.normal(size=(n_frames, 3, 3)) if virial else None,
    )


def test_deepmd_folders_hold_every_composition_in_its_atom_order(tmp_path):
    """Read back by numpy (file by file) and by dpdata; S comes first in the type_map and last in the atoms."""
    type_map = ("S", "P", "Na")
    parts = [
        labelled(("Na", "P", "S", "Na"), 2, 1),
        labelled(("P", "S"), 3, 2),
        labelled(("Na", "P", "S", "Na"), 1, 3),
        labelled(("S", "P"), 1, 4),
    ]
    systems = write_deepmd(parts, tmp_path / "data", type_map)
    assert [path.name for path in systems] == ["000-Na2P1S1", "001-P1S1", "002-P1S1"]
    wanted = [Frames.concatenate([parts[0], parts[2]]), parts[1], parts[3]]
    for path, part in zip(systems, wanted, strict=True):
        assert (path / "type_map.raw").read_text().split() == list(type_map)
        kinds = np.loadtxt(path / "type.raw", dtype=int, ndmin=1)
        assert [type_map[kind] for kind in kinds] == list(part.symbols)
        n = len(part)
        for file, array in (
            ("box", part.cell),
            ("coord", part.positions),
            ("force", part.forces),
            ("energy", part.energy),
            ("virial", part.virial),
        ):
            stored = np.load(path / "set.000" / f"{file}.npy")
            assert stored.dtype == np.float64
            assert np.array_equal(stored.reshape(n, -1), array.reshape(n, -1)), file
        back = dpdata.LabeledSystem(str(path), fmt="deepmd/npy")
        assert back["energies"] == pytest.approx(part.energy)
        names = [back["atom_names"][kind] for kind in back["atom_types"]]
        assert sorted(names) == sorted(part.symbols)


def test_deepmd_without_virial_has_no_virial_file(tmp_path):
    (system,) = write_deepmd([labelled(("Na",), 2, 5, virial=False)], tmp_path, ("Na",))
    assert not (system / "set.000" / "virial.npy").exists()


def test_deepmd_wants_labels(tmp_path, copper):
    with pytest.raises(ValueError, match="expected labelled frames, Cu4 has none"):
        write_deepmd([copper.without_labels()], tmp_path, ("Cu",))


def test_frames_of_the_same_atoms_are_merged_in_order_of_appearance(copper):
    silver = replace(copper, symbols=("Ag",) * 4)
    merged = by_composition([copper[:1], silver, copper[:0], copper[1:]])
    assert [part.symbols[0] for part in merged] == ["Cu", "Ag"]
    assert same(merged[0], copper)


def test_extxyz_holds_energies_forces_stress_and_origin(tmp_path, copper):
    frames = replace(copper, origin=make_origin(3, walk="cold-100K-s0-000", step=[0, 5, 10], iteration=2))
    path = tmp_path / "frames.extxyz"
    write_extxyz([frames[:2]], path)
    write_extxyz([frames[:2], frames[2:]], path)  # replaces, never appends to an old file
    images = read(path, index=":")
    assert len(images) == 3
    back = Frames.from_ase(images)
    assert back.energy == pytest.approx(copper.energy)
    assert back.forces == pytest.approx(copper.forces, abs=1e-7)
    assert back.virial == pytest.approx(copper.virial, abs=1e-6)
    assert [image.info["step"] for image in images] == [0, 5, 10]
    assert images[0].info["walk"] == "cold-100K-s0-000"


def test_a_label_that_is_not_there_is_missed(copper):
    assert copper.label("forces") is copper.forces
    with pytest.raises(ValueError, match=r"Frames\.virial: missing in Cu4"):
        copper.without_labels().label("virial")


def test_extended_xyz_is_to_the_byte_what_ase_writes(tmp_path):
    """Signs, blanks, quotes, half-way cases and numbers too large for the columns."""
    from ase.io import write

    rng = np.random.default_rng(0)
    parts = []
    for symbols, walk in ((("Na", "S", "P"), "a b=c"), (("O",), ""), (("O", "H"), 'x"{')):
        shape = (70, len(symbols), 3)
        positions = rng.normal(size=shape) * 10.0 ** rng.uniform(-9, 4, size=shape)
        positions[:20] = np.round(positions[:20] * 2**12) / 2**12
        forces = np.where(rng.random(shape) < 0.1, -0.0, rng.normal(size=shape))
        cell, virial, energy = rng.normal(size=(70, 3, 3)), rng.normal(size=(70, 3, 3)), rng.normal(size=70) * 1e17
        origin = make_origin(70, walk=walk, step=np.arange(70), temperature_K=300.0)
        part = Frames(symbols, cell, positions, (True, True, False), energy, forces, virial, origin)
        parts += [part, part.without_labels()]
    parts.append(replace(parts[1], positions=parts[1].positions * 1e6))
    write_extxyz(parts, tmp_path / "ours.extxyz")
    for part in parts:
        write(tmp_path / "ase.extxyz", part.to_ase(), format="extxyz", append=True)
    assert (tmp_path / "ours.extxyz").read_bytes() == (tmp_path / "ase.extxyz").read_bytes()


@given(st.lists(st.floats(-99999.0, 99999.0) | st.integers(-(2**30), 2**30).map(lambda n: n / 2**14), min_size=1))
def test_fixed_point_writes_what_printf_writes(numbers):
    text = fixed_point(np.array(numbers, dtype=np.float64))
    assert [row.tobytes().decode() for row in text] == [f"{number:16.8f}" for number in numbers]
