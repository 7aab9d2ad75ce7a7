"""Labels from elsewhere: copies in other formats, physics that cannot be, names that are not ASE's, torn files."""

import bz2
import gzip
import lzma
import os
import time
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from conftest import rattled_copper
from labelled_walk import outcar_text, trajectory

from activelearn import exchange
from activelearn.errors import ConfigError
from activelearn.exchange import physics, same
from activelearn.exchange.reads import Read
from activelearn.frames import Frames, make_origin
from activelearn.inherited import families
from activelearn.store import Ledger
from activelearn.writing import write_deepmd, write_extxyz

PBE = exchange.declared("functional=PBE,includes_dispersion=false,code=VASP-6.4.2")


@pytest.fixture(scope="module")
def walk():
    return trajectory()


def opened(folder):
    ledger = Ledger(folder)
    ledger.refresh()
    return ledger


def extxyz(folder, frames, name="x"):
    write_extxyz([frames], folder / f"{name}.extxyz")
    return folder / f"{name}.extxyz"


def imported(folder, *paths, identity=PBE, **options):
    n, tally = exchange.import_labels(folder / "l", paths, identity, **options)
    return n, dict(tally.counts), " ".join(tally.sentences())


def turned(frames, *, order=None, shift=0.0, digits=None):
    """The same frames in lower-triangular cells, with atoms in another order, wrapped again and rounded."""
    lower = np.linalg.cholesky(frames.cell @ frames.cell.transpose(0, 2, 1))
    turn = np.linalg.solve(frames.cell, lower)
    order = list(range(frames.n_atoms)) if order is None else order
    positions = ((frames.fractional() + shift) % 1.0) @ lower
    made = Frames(
        symbols=[frames.symbols[i] for i in order],
        cell=lower,
        positions=positions[:, order],
        energy=frames.energy,
        forces=(frames.forces @ turn)[:, order],
        virial=turn.transpose(0, 2, 1) @ frames.virial @ turn,
        origin=make_origin(len(frames), walk="other"),
    )
    return made if digits is None else replace(made, positions=made.positions.round(digits))


# --- copies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [None, [7, 0, 2, 1, 3, 6, 4, 5]])
@pytest.mark.parametrize("digits", [None, 5])
def test_a_turned_and_sorted_copy_is_the_same_label(tmp_path, walk, order, digits):
    first, copy = extxyz(tmp_path, walk), extxyz(tmp_path, turned(walk, order=order, digits=digits), "copy")
    n, counts, said = imported(tmp_path, first, copy)
    assert (n, counts) == (16, {same.COPY: 16})
    assert f"(first: {copy} frame 0, as {first} frame 0) - expected each structure once" in said
    n, counts, said = imported(tmp_path, copy)
    assert (n, counts) == (0, {same.COPY: 16})
    assert "of the ledger) - expected" in said


def test_a_shifted_copy_and_one_of_another_format_are_the_same_labels(tmp_path, walk):
    (tmp_path / "OUTCAR").write_text(outcar_text(walk))
    write_deepmd([turned(walk)], tmp_path / "dp", ["Au", "Cu"])
    shifted = extxyz(tmp_path, turned(walk, shift=0.3), "shifted")
    n, counts, _ = imported(tmp_path, tmp_path / "OUTCAR", tmp_path / "dp", shifted)
    assert (n, counts) == (16, {same.COPY: 32})


def test_a_copy_with_another_energy_is_told(tmp_path, walk):
    other = turned(replace(walk, energy=walk.energy + 0.2))
    n, counts, said = imported(tmp_path, extxyz(tmp_path, walk), extxyz(tmp_path, other, "copy"))
    assert (n, counts) == (16, {same.OTHER_ENERGY: 16})
    assert "check that the reference is the same" in said


def test_neighbours_in_a_trajectory_and_rattled_crystals_are_no_copies(tmp_path):
    slow = trajectory(12, step_fs=1.0, temperature_K=100.0)
    crystals = rattled_copper(12, amplitude=0.002)
    n, counts, _ = imported(tmp_path, extxyz(tmp_path, slow), extxyz(tmp_path, crystals, "crystals"))
    assert (n, counts) == (24, {})


def test_what_overlaps_is_one_trajectory_and_is_never_split(tmp_path, walk):
    """Another file repeats half of the frames, rotated, and continues."""
    other = turned(walk[8:], order=[7, 0, 2, 1, 3, 6, 4, 5])
    unrelated = replace(rattled_copper(3), origin=make_origin(3, walk="unrelated"))
    n, counts, _ = imported(
        tmp_path, extxyz(tmp_path, walk[:12]), extxyz(tmp_path, other, "copy"), extxyz(tmp_path, unrelated, "cu")
    )
    assert (n, counts) == (19, {same.COPY: 4})
    parts = opened(tmp_path / "l").structures(PBE["sha256"])
    assert sorted(map(len, parts)) == [3, 4, 12], "the atoms of the rest come in another order"
    assert len({str(part.origin["walk"][0]) for part in parts}) == 2
    assert families(parts) == {}, "all frames of both compositions are of one trajectory each"


def test_what_overlaps_with_the_ledger_joins_the_trajectory_there(tmp_path, walk):
    assert imported(tmp_path, extxyz(tmp_path, walk[:12]))[0] == 12
    order = [7, 0, 2, 1, 3, 6, 4, 5]
    n, counts, _ = imported(tmp_path, extxyz(tmp_path, turned(walk[8:], order=order), "copy"))
    assert (n, counts) == (4, {same.COPY: 4})
    parts = opened(tmp_path / "l").structures(PBE["sha256"])
    assert sorted(map(len, parts)) == [4, 12]
    assert families(parts) == {}


# --- physics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (lambda f: {"energy": f.energy / units.Hartree}, physics.UNITS, "as if the energy were in Hartree"),
        (lambda f: {"energy": f.energy * units.mol / units.kcal}, physics.UNITS, "the energy were in kcal/mol"),
        (lambda f: {"energy": f.energy / f.n_atoms}, physics.UNITS, "the energy were that of one atom"),
        (lambda f: {"forces": f.forces / units.Hartree * units.Bohr}, physics.UNITS, "were in Hartree/Bohr"),
        (lambda f: {"forces": f.forces * units.Bohr}, physics.UNITS, "as if the forces were in eV/Bohr"),
        (lambda f: {"forces": -f.forces}, physics.UNITS, "gradients, of the other sign"),
        (lambda f: {"energy": np.roll(f.energy, 1)}, physics.APART, "not its own"),
        (lambda f: {"forces": np.roll(f.forces, -1, axis=0)}, physics.APART, "not its own"),
        (lambda f: {"energy": f.energy[[*range(0, 16, 2), *range(1, 16, 2)]]}, physics.APART, "unexplained"),
        (lambda f: {"energy": np.full(16, f.energy[0])}, physics.APART, "100% of the energy's changes unexplained"),
        (lambda f: {"energy": f.energy * 1e198}, physics.IMPOSSIBLE, "energy per atom, eV: "),
        (lambda f: {"forces": f.forces * 1e4}, physics.IMPOSSIBLE, "force, eV/Å: "),
        (lambda f: {"virial": f.virial * 1e9}, physics.IMPOSSIBLE, "stress, GPa: "),
        (lambda f: {"cell": f.cell / 10, "positions": f.positions / 10}, physics.IMPOSSIBLE, "volume per atom, Å^3"),
        (lambda f: {"positions": np.where(np.eye(8)[1][:, None], f.positions[:, :1], f.positions)}, physics.ON_TOP,
         "atoms 0 and 1 (Cu, Cu) 0 Å apart"),
        (lambda f: {"forces": f.forces + 3.0 * (np.arange(8) > 3)[:, None]}, physics.NET_FORCE, "per atom remain"),
        (lambda f: {"forces": f.forces * (np.arange(8) > 3)[:, None]}, physics.FIXED, "4 atoms have none at all, and "),
        (lambda f: {"forces": f.forces * (np.arange(8) > 0)[:, None]}, physics.FIXED, "1 atom has none at all, and "),
        (lambda f: {"energy": np.zeros(16)}, physics.ZERO_ENERGY, "eV/Å is the largest force"),
        (lambda f: {"forces": np.zeros_like(f.forces)}, physics.ZERO_FORCES, "8 atoms"),
    ],
)  # fmt: skip
def test_what_cannot_be_true_is_refused_with_its_number(tmp_path, walk, change, reason, words):
    n, counts, said = imported(tmp_path, extxyz(tmp_path, replace(walk, **change(walk))))
    assert counts.get(reason, 0) > 8, counts
    assert n + sum(counts.values()) == 16
    assert words in said


def test_one_energy_that_is_wrong_costs_that_frame_alone(tmp_path, walk):
    off = replace(walk, energy=walk.energy + 9.0 * (np.arange(16) == 5))
    n, counts, said = imported(tmp_path, extxyz(tmp_path, off))
    assert (n, counts) == (15, {physics.OUTLIER: 1})
    assert "frame 5: +9" in said


@pytest.mark.parametrize(("step_fs", "temperature_K"), [(0.5, 50.0), (2.0, 300.0), (5.0, 3000.0), (20.0, 600.0)])
def test_true_dynamics_are_never_refused(tmp_path, step_fs, temperature_K):
    frames = trajectory(40, step_fs, temperature_K, seed=7)
    noise = np.random.default_rng(0).normal(0, 5e-4, 40)
    coarse = replace(frames, energy=frames.energy + noise, forces=frames.forces.round(3))
    for name, one in {"exact": frames, "coarse": coarse}.items():
        (tmp_path / name).mkdir()
        n, counts, said = imported(tmp_path / name, extxyz(tmp_path, one, name))
        assert (n, counts) == (40, {}), said


def test_true_crystals_rattled_and_strained_are_never_refused(tmp_path):
    for k, amplitude in enumerate((0.01, 0.1, 0.2)):
        frames = rattled_copper(20, random_seed=k, amplitude=amplitude, repeat=(2, 1, 1))
        assert imported(tmp_path / str(k), extxyz(tmp_path, frames, str(k)))[:2] == (20, {})


@pytest.mark.parametrize("virial", [1.0, 0.0, None])
def test_cells_that_change_are_never_refused_with_or_without_a_stress(virial):
    """Of an equation of state and of shear the forces do no work, so without a stress there is nothing to judge."""
    images = []
    for strain in np.linspace(-0.1, 0.1, 21):
        for deformation in (np.eye(3) * (1.0 + strain), np.eye(3) + np.outer([0, strain, 0], [1, 0, 0])):
            image = bulk("Cu", cubic=True, a=3.6)
            image.set_cell(image.cell[:] @ deformation, scale_atoms=True)
            image.calc = EMT()
            image.get_forces(), image.get_stress()
            images.append(image)
    frames = Frames.from_ase([*images[::2], *images[1::2]])
    frames = replace(frames, virial=None if virial is None else virial * frames.virial)
    assert {one.reason for one in physics.judged([Read("", frames[k]) for k in range(len(frames))])} == {None}


def test_the_drift_of_a_coarse_grid_is_taken_in_a_cell_of_one_atom_too():
    one = rattled_copper(1)[0]
    few = Frames(("Cu",), one.cell, one.positions[:, :1], energy=one.energy, forces=np.full((1, 1, 3), 0.1))
    assert [physics.judged([Read("", f)])[0].reason for f in (few, replace(few, forces=4.0 * few.forces))] == [
        None,
        physics.NET_FORCE,
    ]


def test_a_virial_that_is_not_symmetric_is_damaged(walk):
    virial = walk.virial.copy()
    virial[2, 0] = virial[2, 1]
    found = physics.judged([Read("", replace(walk, virial=virial)[k]) for k in range(4)])
    assert [one.reason for one in found] == [None, None, "damaged", None]


@pytest.mark.parametrize("kind", ["crystal", "one displaced", "one out of reach of the others"])
def test_atoms_without_a_force_by_symmetry_or_by_distance_are_never_refused(kind):
    image = bulk("Cu", cubic=True, a=3.7).repeat(4 if kind == "one displaced" else 1)
    if kind == "one displaced":
        image.positions[0, 0] += 0.2
    elif kind == "one out of reach of the others":
        image = image[:3] + Atoms("Cu", [[15.0, 15.0, 15.0]])
        image.set_cell([30.0] * 3)
        image.pbc = True
    image.calc = EMT()
    image.get_stress()
    frame = Frames.from_ase([image])
    forces = frame.forces.round(6)
    assert not forces.any(axis=2).all()
    assert physics.judged([Read("", replace(frame, forces=forces))])[0].reason is None


@pytest.mark.parametrize("pack", [gzip.open, bz2.open, lzma.open, open])
@pytest.mark.parametrize("name", ["x.extxyz", "X.EXTXYZ"])
def test_a_byte_order_mark_and_capitals_in_a_name_cost_nothing(tmp_path, walk, pack, name):
    ending = {gzip.open: ".gz", bz2.open: ".bz2", lzma.open: ".xz", open: ""}[pack]
    path = tmp_path / (name + (ending.upper() if name.isupper() else ending))
    with pack(path, "wt", encoding="utf-8-sig") as file:
        file.write(extxyz(tmp_path, walk, "plain").read_text().replace("\n", "\r\n"))
    assert imported(tmp_path, path)[:2] == (16, {})


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "x.extxyz")
    with pytest.raises(ConfigError, match=r"x.extxyz: a pipe or a device - expected a file or a folder"):
        imported(tmp_path, tmp_path / "x.extxyz")


def test_a_set_of_displacements_has_no_copies_and_takes_no_time(tmp_path):
    """All structure factors but those of the displaced atoms are alike: each is compared with all others."""
    still, rng = bulk("Cu", cubic=True, a=3.6).repeat(3), np.random.default_rng(1)
    positions = np.repeat(still.positions[None], 600, axis=0)
    for k in range(600):
        positions[k, rng.integers(len(still), size=2)] += rng.normal(0.0, 0.01, (2, 3))
    frames = Frames(
        tuple(still.symbols), np.repeat(still.cell[:][None], 600, axis=0), positions,
        energy=np.zeros(600), forces=np.zeros_like(positions),
    )  # fmt: skip
    reads, started = [Read(str(k), frames[k]) for k in range(600)], time.process_time()
    found = same.without_copies(
        [*reads, Read("again", replace(frames[7], positions=positions[7:8, ::-1]))],
        Ledger(tmp_path),
        "x",
        "",
    )
    assert [one.where for one in found if one.reason is not None] == ["again, as 7"]
    assert time.process_time() - started < 2.0, "pair by pair it takes 5 s"


# --- names, and what is torn ------------------------------------------------------------------------------------------


def renamed(folder, frames, **names):
    text = extxyz(folder, frames).read_text()
    for old, new in names.items():
        text = text.replace(f" {old}=", f" {new}=").replace(f":{old}:", f":{new}:")
    (folder / "named.extxyz").write_text(text)
    return folder / "named.extxyz"


def test_labels_under_other_names_are_found_by_keys_and_named_without_them(tmp_path, copper):
    path = renamed(tmp_path, copper, energy="REF_energy", forces="REF_forces", stress="REF_stress")
    n, counts, said = imported(tmp_path, path)
    assert (n, counts) == (0, {"no energy": 3})
    assert (
        "which has REF_energy, REF_stress, REF_forces: for example --keys energy=REF_energy,stress=REF_stress" in said
    )
    keys = "energy=REF_energy,forces=REF_forces,stress=REF_stress"
    assert imported(tmp_path, path, keys=keys)[0] == 3
    (part,) = opened(tmp_path / "l").structures(PBE["sha256"])
    for name in ("energy", "forces", "virial"):
        assert np.allclose(np.sort(getattr(part, name), axis=0), np.sort(getattr(copper, name), axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("keys", "said"),
    [("energy", "cannot be read"), ("charge=q", "cannot be read"), ("energy=a,energy=b", "cannot be read")],
)
def test_poor_keys_are_refused_with_an_example(tmp_path, copper, keys, said):
    with pytest.raises(ConfigError, match=f"{said}.*for example: --keys energy=REF_energy"):
        imported(tmp_path, extxyz(tmp_path, copper), keys=keys)


@pytest.mark.parametrize("name", ["virial", "virials"])
def test_a_virial_is_taken_and_one_that_contradicts_the_stress_is_refused(tmp_path, copper, name):
    matrix = " ".join(f"{x:.10f}" for x in copper.virial[0].ravel())
    text = extxyz(tmp_path, copper[0]).read_text()
    (tmp_path / "both.extxyz").write_text(text.replace(" energy=", f' {name}="{matrix}" energy='))
    assert imported(tmp_path, tmp_path / "both.extxyz")[0] == 1
    (tmp_path / "sign.extxyz").write_text(
        text.replace(" energy=", f' {name}="{matrix}" energy=').replace("stress", "x")
    )
    assert imported(tmp_path / "only", tmp_path / "sign.extxyz")[0] == 1
    (part,) = opened(tmp_path / "only" / "l").structures(PBE["sha256"])
    assert np.allclose(part.virial, copper.virial[:1], atol=1e-8)
    matrix = " ".join(f"{-x:.10f}" for x in copper.virial[0].ravel())
    (tmp_path / "against.extxyz").write_text(text.replace(" energy=", f' {name}="{matrix}" energy='))
    n, counts, said = imported(tmp_path / "against", tmp_path / "against.extxyz")
    assert (n, counts) == (0, {"stress against virial": 1})
    assert "GPa by the stress, " in said


@pytest.mark.parametrize(
    ("edit", "damage"),
    [
        (lambda lines: lines[:8] + lines[9:], "line 7: 4 atoms, but 3 lines of atoms"),
        (lambda lines: [*lines[:9], lines[9] + " 1.0", *lines[10:]], "line 10: 8 columns, but Properties names 7"),
        (lambda lines: [*lines[:6], "four", *lines[7:]], "line 7: 'four' instead of a number of atoms"),
        (lambda lines: [*lines[:7], lines[7] + " energy=1.0", *lines[8:]], "line 8: energy twice"),
        (lambda lines: [*lines[:9], lines[9].replace(".", "x"), *lines[10:]], "line 7: could not convert"),
    ],
)
def test_a_damaged_frame_loses_itself_alone(tmp_path, copper, edit, damage):
    lines = extxyz(tmp_path, copper).read_text().splitlines()
    (tmp_path / "bad.extxyz").write_text("\n".join(edit(lines)) + "\n")
    n, counts, said = imported(tmp_path, tmp_path / "bad.extxyz")
    assert (n, counts) == (2, {"damaged": 1})
    assert f"bad.extxyz frame 1, {damage}" in said


def test_an_empty_line_hides_nothing_of_what_follows(tmp_path, copper):
    lines = extxyz(tmp_path, copper).read_text().splitlines()
    (tmp_path / "gap.extxyz").write_text("\n".join([*lines[:6], "", *lines[6:]]) + "\n")
    assert imported(tmp_path, tmp_path / "gap.extxyz")[:2] == (3, {})


def test_raw_text_of_deepmd_is_read(tmp_path, copper):
    (system,) = write_deepmd([copper], tmp_path / "d", ["Cu"])
    for path in (system / "set.000").glob("*.npy"):
        values = np.load(path)
        np.savetxt(system / f"{path.stem}.raw", values.reshape(3, -1), fmt="%.17g")
        path.unlink()
    (system / "set.000").rmdir()
    assert imported(tmp_path, tmp_path / "d")[:2] == (3, {})
    (system / "force.raw").write_text("1 2 3\n")
    with pytest.raises(ConfigError, match=r"force.raw: 1 frames of 3 numbers - expected 3 of 12, as coord.raw has"):
        imported(tmp_path, tmp_path / "d")


def test_a_deepmd_system_may_begin_with_a_byte_order_mark(tmp_path, copper):
    (system,) = write_deepmd([copper], tmp_path / "d", ["Cu"])
    for name in ("type_map.raw", "type.raw"):
        (system / name).write_text((system / name).read_text(), encoding="utf-8-sig")
    assert imported(tmp_path, tmp_path / "d")[:2] == (3, {})


@pytest.mark.parametrize(("name", "width"), [("fparam", 1), ("aparam", 4), ("spin", 12)])
def test_energies_that_depend_on_more_than_the_structure_are_of_one_import_only_if_that_is_the_same(
    tmp_path, copper, name, width
):
    (system,) = write_deepmd([copper], tmp_path / "d", ["Cu"])
    np.save(system / "set.000" / f"{name}.npy", np.full((3, width), 0.5))
    assert imported(tmp_path, tmp_path / "d")[:2] == (3, {})
    np.save(system / "set.000" / f"{name}.npy", np.linspace(0.0, 1.0, 3 * width).reshape(3, width))
    with pytest.raises(ConfigError, match=f"{name}.npy: frames with different {name} - expected the same in all"):
        imported(tmp_path, tmp_path / "d")


def test_the_reference_that_our_export_names_holds(tmp_path, copper):
    imported(tmp_path, extxyz(tmp_path, copper))
    exchange.export_labels(opened(tmp_path / "l"), tmp_path / "dp", PBE)
    (system,) = (path.parent for path in (tmp_path / "dp").rglob("type.raw"))
    other = exchange.declared("functional=SCAN,includes_dispersion=true,code=other")
    for path in (tmp_path / "dp", system):
        with pytest.raises(
            ConfigError, match=r"labelled by VASP-6.4.2 \(PBE\).* not by other \(SCAN with dispersion\)"
        ):
            imported(tmp_path / "b", path, identity=other)
    assert imported(tmp_path / "b", tmp_path / "dp", identity=None)[0] == 3
    (tmp_path / "dp" / "reference.json").write_text('{"functional": "PBE"}')
    with pytest.raises(ConfigError, match="does not have the checksum that it names"):
        imported(tmp_path / "c", tmp_path / "dp", identity=None)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda t: t.replace("PAW_PBE Au", "PAW_PBE Ag"), "titles of Cu Ag, but VRHFIN of Cu Au"),
        (lambda t: t.replace("PAW_PBE Au", "PAW_PBE Ag", 1), "expected the same list twice"),
        (
            lambda t: t.replace("type =       6     2", "type =       6     3"),
            "NIONS = 8, but ions per type add up to 9",
        ),
    ],
)
def test_an_outcar_whose_head_contradicts_itself_is_refused(tmp_path, walk, edit, said):
    (tmp_path / "OUTCAR").write_text(edit(outcar_text(walk)))
    with pytest.raises(ConfigError, match=said):
        imported(tmp_path, tmp_path / "OUTCAR")


def test_a_poscar_beside_an_outcar_counts_if_it_is_whole(tmp_path, walk):
    (tmp_path / "OUTCAR").write_text(outcar_text(walk))
    (tmp_path / "CONTCAR").write_text("torn\n1.0\n 3.7 0")
    assert imported(tmp_path, tmp_path / "OUTCAR")[:2] == (16, {})
    (tmp_path / "POSCAR").write_text("a title\n1.0\n1 0 0\n0 1 0\n0 0 1\nAu Cu\n2 6\n")
    with pytest.raises(
        ConfigError, match=r"those of Cu6 Au2, but POSCAR next to it has Au2 Cu6 - expected the same atoms"
    ):
        imported(tmp_path, tmp_path / "OUTCAR")


def test_a_step_of_an_outcar_that_is_not_whole_loses_itself_alone(tmp_path, walk):
    lines = outcar_text(walk).splitlines()
    atom = next(k for k, line in enumerate(lines) if "TOTAL-FORCE" in line) + 2
    (tmp_path / "OUTCAR").write_text("\n".join(lines[:atom] + lines[atom + 1 :]))
    n, counts, said = imported(tmp_path, tmp_path / "OUTCAR")
    assert (n, counts) == (15, {"damaged": 1})
    assert "OUTCAR step 0: 7 rows of positions for 8 atoms" in said
