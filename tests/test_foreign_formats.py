"""Labels from what people have: each format gives the known energy, forces and virial, or says why it gives none."""

import gzip
import shutil
from pathlib import Path

import dpdata
import foreign_outputs as written
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import write
from typer.testing import CliRunner

from activelearn import exchange
from activelearn.cli import app
from activelearn.errors import ConfigError
from activelearn.exchange import physics
from activelearn.exchange.files import format_of, read
from activelearn.exchange.foreign import names
from activelearn.frames import Frames

PBE = exchange.declared("functional=PBE,includes_dispersion=false,code=any")
N = 3


def computed(order=("Cu", "Au", "Cu", "Cu")):
    """Three steps of an alloy in triclinic cells, labelled by EMT: all components of the stress differ."""
    rng = np.random.default_rng(4)
    images = []
    for _ in range(N):
        atoms = bulk("Cu", cubic=True)
        atoms.symbols = order
        atoms.set_cell(4.05 * np.eye(3) @ (np.eye(3) + rng.uniform(-0.05, 0.05, (3, 3))), scale_atoms=True)
        atoms.positions += rng.uniform(-0.1, 0.1, (4, 3))
        atoms.calc = EMT()
        atoms.get_forces(), atoms.get_stress()
        images.append(atoms)
    return images


@pytest.fixture(scope="module")
def truth():
    return Frames.from_ase(computed())


@pytest.fixture(scope="module")
def one_cell(truth):
    """The same three steps with new labels in one cell, as in a run at constant volume."""
    images = computed()
    for image in images:
        image.set_cell(images[0].cell)
        image.get_forces(), image.get_stress()
    return Frames.from_ase(images)


def text_file(name, make):
    def put(folder, frames, **how):
        (folder / name).write_text(make(frames, **how))
        return folder / name

    return put


def cp2k_run(folder, frames, skip=(), **how):
    (folder / "run-pos-1.xyz").write_text(written.cp2k_xyz(frames, skip))
    (folder / "run-1.cell").write_text(written.cp2k_cells(frames))
    return text_file("run.log", written.cp2k)(folder, frames, **how)


def abacus_run(folder, frames, **how):
    written.abacus(folder / "run", frames, **how)
    return folder / "run"


#: Format, what makes its files, how far its numbers are rounded.
OUTPUTS = {
    "vasprun": (text_file("vasprun.xml", written.vasprun), 2e-7),
    "qe": (text_file("pw.out", written.pwscf), 5e-6),
    "cp2k": (cp2k_run, 3e-6),
    "aims": (text_file("aims.out", written.aims), 2e-6),
    "gpaw": (text_file("gpaw.txt", written.gpaw), 1e-5),
    "abacus": (abacus_run, 1e-7),
}
WITH_STRESS = [name for name in OUTPUTS if name != "cp2k"]
WITH_LOOPS = [name for name in OUTPUTS if name != "gpaw"]


def grouped(frames, kind):
    """The atoms in the order that the format has them in (ABACUS: by element)."""
    order = [1, 0, 2, 3] if kind == "abacus" else [0, 1, 2, 3]
    return Frames(
        tuple(frames.symbols[i] for i in order), frames.cell, frames.positions[:, order],
        energy=frames.energy, forces=frames.forces[:, order], virial=frames.virial,
    )  # fmt: skip


def agree(found, wanted, tolerance, names=("cell", "positions", "energy", "forces", "virial")):
    assert [one.frame.symbols for one in found] == [wanted.symbols] * len(wanted)
    for k, one in enumerate(found):
        for name in names:
            got, expected = getattr(one.frame, name)[0], getattr(wanted, name)[k]
            # rounding, and the volume that a rounded stress is multiplied by
            limit = tolerance * (10 * wanted.volume[k] if name == "virial" else 10)
            assert np.allclose(got, expected, rtol=2e-7, atol=limit), (name, k, got, expected)


# --- known answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OUTPUTS)
def test_the_free_energy_the_forces_and_the_virial_are_those_of_each_step(tmp_path, truth, kind):
    make, rounding = OUTPUTS[kind]
    frames = grouped(truth, kind)
    path = make(tmp_path, frames)
    assert format_of(path) == kind
    found = list(read(path, kind))
    assert [one.reason for one in found] == [None] * N
    agree(found, frames, rounding)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_they_come_into_a_ledger_and_are_known_the_second_time(tmp_path, truth, kind, capsys):
    path = OUTPUTS[kind][0](tmp_path, grouped(truth, kind))
    assert exchange.import_labels(tmp_path / "l", [path], PBE)[0] == N
    n, tally = exchange.import_labels(tmp_path / "l", [path], PBE)
    assert (n, tally.counts) == (0, {"in the ledger already": N})
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("k", range(N))
@pytest.mark.parametrize("kind", WITH_LOOPS)
def test_a_step_whose_loop_did_not_converge_is_no_label_and_shifts_no_other(tmp_path, truth, kind, k):
    make, rounding = OUTPUTS[kind]
    frames = grouped(truth, kind)
    found = read(make(tmp_path, frames, unconverged=k), kind)
    assert sorted(one.reason or "" for one in found) == ["", "", "SCF not converged"]
    agree([one for one in found if one.reason is None], frames[[i for i in range(N) if i != k]], rounding)


@pytest.mark.parametrize("kind", WITH_STRESS)
def test_a_run_without_stress_says_so_and_has_no_zeros(tmp_path, truth, kind):
    make, rounding = OUTPUTS[kind]
    frames = grouped(truth, kind)
    found = read(make(tmp_path, frames, has_stress=False), kind)
    assert [(one.reason, one.frame.virial) for one in found] == [("no stress", None)] * N
    agree(found, frames, rounding, ("cell", "positions", "energy", "forces"))


@pytest.mark.parametrize("kind", [name for name in OUTPUTS if name != "abacus"])
def test_an_output_that_breaks_off_anywhere_loses_its_last_step_at_most(tmp_path, truth, kind):
    """Wherever it is cut, all that comes out is the truth, and the steps before the cut do come out."""
    make, rounding = OUTPUTS[kind]
    path = make(tmp_path, truth)
    text = path.read_text()
    for share in np.linspace(0.02, 0.995, 40):
        path.write_text(text[: int(share * len(text))])
        try:
            found = read(path, kind)
        except ConfigError as error:
            assert str(path) in str(error)  # noqa: PT017 - and nothing else is raised
            assert share < 0.6
            continue
        good = [one for one in found if one.reason is None and physics.unfit(one.frame) is None]
        assert len(good) >= (2 if share > 0.75 else 0)
        agree(good, truth[: len(good)], rounding)


@pytest.mark.parametrize(("kind", "row"), [("qe", "total   stress"), ("aims", "|  x  "), ("gpaw", "Stress tensor")])
def test_a_row_of_the_stress_that_is_there_twice_costs_that_step_alone(tmp_path, truth, kind, row):
    make, rounding = OUTPUTS[kind]
    path = make(tmp_path, truth)
    lines = path.read_text().splitlines(keepends=True)
    k = [i for i, line in enumerate(lines) if row in line][1] + (kind != "aims")
    path.write_text("".join([*lines[:k], lines[k], *lines[k:]]))
    found = read(path, kind)
    assert [one.reason for one in found] == [None, "not whole", None]
    agree([found[0], found[2]], truth[[0, 2]], rounding)


def test_a_number_that_a_row_of_the_cell_lost_costs_that_step_alone(tmp_path, truth):
    """ASE takes the number of grid points for the third component."""
    make, rounding = OUTPUTS["gpaw"]
    path = make(tmp_path, truth)
    lines = path.read_text().splitlines(keepends=True)
    k = [i for i, line in enumerate(lines) if "1. axis:" in line][1]
    words = lines[k].split()
    lines[k] = " ".join([*words[:4], *words[5:]]) + "\n"
    path.write_text("".join(lines))
    found = read(path, "gpaw")
    assert [one.reason for one in found] == [None, "not whole", None]
    agree([found[0], found[2]], truth[[0, 2]], rounding)


def test_what_a_vasprun_loses_behind_a_torn_tag_is_told(tmp_path, truth):
    path = OUTPUTS["vasprun"][0](tmp_path, truth)
    begin, end = path.read_text().rsplit("<calculation>", 1)
    path.write_text(f"{begin}<calculation>{end.replace('</v>', '', 1)}")
    assert [one.reason for one in read(path, "vasprun")] == [None, None, "not finished"]


@pytest.mark.parametrize("kind", [name for name in OUTPUTS if name != "abacus"])
def test_a_compressed_output_is_read_as_it_is(tmp_path, truth, kind):
    path = OUTPUTS[kind][0](tmp_path, truth)
    packed = tmp_path / f"{path.name}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert format_of(packed) == kind
    assert len(read(packed, kind)) == N


@pytest.mark.parametrize("kind", OUTPUTS)
def test_the_file_of_another_code_is_refused_in_a_sentence(tmp_path, truth, kind):
    for other, (make, _) in OUTPUTS.items():
        if other != kind:
            (tmp_path / other).mkdir()
            path = make(tmp_path / other, truth)
            with pytest.raises(ConfigError, match=r"^\S+: .* - expected .* - .+$") as error:
                read(path, kind)
            assert str(path) in str(error.value)


# --- VASP -------------------------------------------------------------------------------------------------------------


def test_the_energy_of_a_vasprun_at_pressure_is_without_the_pressure_times_volume(tmp_path, truth):
    path = text_file("vasprun.xml", written.vasprun)(tmp_path, truth, pstress_kbar=50.0)
    agree(read(path, "vasprun"), truth, 2e-7)


def test_a_vasprun_with_the_trace_of_the_stress_alone_is_refused(tmp_path, truth):
    path = text_file("vasprun.xml", written.vasprun)(tmp_path, truth, isif=1)
    assert {one.reason for one in read(path, "vasprun")} == {"only the trace of the stress"}


def test_steps_of_a_force_field_in_a_vasprun_are_no_labels(tmp_path, truth):
    text = written.vasprun(truth)
    first = text.index("<calculation>") + len("<calculation>\n")
    (tmp_path / "vasprun.xml").write_text(text[:first] + text[text.index("<structure>") :])
    assert [one.reason for one in read(tmp_path / "vasprun.xml", "vasprun")] == [
        "of a machine-learned force field", None, None,
    ]  # fmt: skip


# --- Quantum ESPRESSO -------------------------------------------------------------------------------------------------


def test_a_hybrid_run_gives_the_energy_of_its_last_outer_loop(tmp_path, truth):
    text = written.pwscf(truth[:1])
    line = next(line for line in text.splitlines() if line.startswith("!"))
    early = line.replace("= ", "=9", 1)
    (tmp_path / "pw.out").write_text(text.replace(line, f"{early}\n{line.replace('!   ', '!!  ')}"))
    agree(read(tmp_path / "pw.out", "qe"), truth[:1], 5e-6)


def test_two_runs_in_one_output_keep_their_cells(tmp_path, truth):
    (tmp_path / "pw.out").write_text("".join(written.pwscf(truth[k]) for k in range(N)))
    agree(read(tmp_path / "pw.out", "qe"), truth, 5e-6)


# --- CP2K -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"version": 2025}, {"stress_unit": "bar"}, {"kind": "GEO_OPT"}])
def test_the_outputs_of_other_versions_and_units_of_cp2k_are_read(tmp_path, truth, how):
    agree(read(cp2k_run(tmp_path, truth, **how), "cp2k"), truth, 3e-6)


def test_a_single_point_of_cp2k_needs_no_other_file(tmp_path, truth):
    path = text_file("sp.out", written.cp2k)(tmp_path, truth[:1], kind="ENERGY_FORCE")
    agree(read(path, "cp2k"), truth[:1], 3e-6)
    assert (
        dpdata.LabeledSystem(str(path), fmt="cp2k/output").data.get("virials") is None
    )  # why the reader is our own: if this fails, look at dpdata again


def test_steps_of_cp2k_without_positions_are_refused_and_not_given_those_of_others(tmp_path, one_cell):
    path = text_file("run.log", written.cp2k)(tmp_path, one_cell)
    assert [one.reason for one in read(path, "cp2k")] == [None, "no positions", "no positions"]
    path = cp2k_run(tmp_path, one_cell, skip=(1,))
    found = read(path, "cp2k")
    assert [one.reason for one in found] == [None, "no positions", None]
    agree([found[0], found[2]], one_cell[[0, 2]], 3e-6)


def test_a_run_of_cp2k_whose_cell_changes_wants_the_file_of_cells(tmp_path, truth):
    path = cp2k_run(tmp_path, truth, kind="CELL_OPT")
    (tmp_path / "run-1.cell").unlink()
    assert [one.reason for one in read(path, "cp2k")] == [None, "no positions", "no positions"]


def test_positions_of_other_atoms_beside_an_output_of_cp2k_are_refused(tmp_path, truth):
    path = cp2k_run(tmp_path, truth)
    (tmp_path / "run-pos-1.xyz").write_text("2\n i = 0, time = 0.0, E = -1.0\nCu 0 0 0\nCu 1 1 1\n")
    with pytest.raises(ConfigError, match=r"run-pos-1.xyz frame 0: 2 atoms.* expected the 4 atoms"):
        read(path, "cp2k")


# --- FHI-aims ---------------------------------------------------------------------------------------------------------


def test_forces_of_fhi_aims_with_constraints_in_them_are_refused(tmp_path, truth):
    path = text_file("aims.out", written.aims)(tmp_path, truth, constrained=True)
    assert {one.reason for one in read(path, "aims")} == {"forces without those on fixed atoms"}


# --- ABACUS -----------------------------------------------------------------------------------------------------------


def test_a_single_point_of_abacus_converged_or_not(tmp_path, truth):
    frames = grouped(truth, "abacus")[:1]
    agree(read(abacus_run(tmp_path, frames, kind="scf"), "abacus"), frames, 1e-7)
    shutil.rmtree(tmp_path / "run")
    path = abacus_run(tmp_path, frames, kind="scf", unconverged=0)
    assert [one.reason for one in read(path, "abacus/scf")] == ["SCF not converged"]


def test_a_block_of_the_stress_that_is_missing_in_one_step_of_abacus_is_said(tmp_path, truth):
    path = abacus_run(tmp_path, grouped(truth, "abacus"))
    dump = path / "OUT.ABACUS" / "MD_dump"
    parts = dump.read_text().split("VIRIAL (kbar)\n")
    parts[2] = "\n".join(parts[2].splitlines()[3:]) + "\n"
    dump.write_text("VIRIAL (kbar)\n".join(parts[:2]) + parts[2] + "VIRIAL (kbar)\n" + parts[3])
    with pytest.raises(ConfigError, match="MD_dump: step 1 does not have the lines and columns of the first one"):
        read(path, "abacus")


# --- SIESTA -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "kind"), [(1, "siesta/output"), (N, "siesta/aimd_output")])
def test_siesta_gives_the_free_energy_and_the_virial_with_our_sign(tmp_path, truth, n, kind):
    path = text_file("siesta.out", written.siesta)(tmp_path, truth[:n])
    agree(read(path, kind), truth[:n], 5e-6)
    data = dpdata.LabeledSystem(str(path), fmt=kind).data  # why: if this fails, look at dpdata again
    assert np.allclose(data["virials"], -truth.virial[:n], atol=1e-3)


def test_a_step_of_siesta_that_did_not_converge_is_no_label(tmp_path, truth):
    path = text_file("siesta.out", written.siesta)(tmp_path, truth, unconverged=1)
    assert [one.reason for one in read(path, "siesta/aimd_output")] == [None, "SCF not converged", None]


# --- OpenMX -----------------------------------------------------------------------------------------------------------


def test_steps_that_dpdata_gives_although_they_did_not_converge_are_refused(tmp_path, truth):
    """OpenMX: DATA.dat and DATA.md; dpdata warns, but hands them out."""
    (tmp_path / "a.dat").write_text(
        "Atoms.Number 4\n"
        "<Atoms.SpeciesAndCoordinates\n" + "".join(f" {i + 1} {s} 0 0 0 1 1\n" for i, s in enumerate(truth.symbols))
        + "Atoms.SpeciesAndCoordinates>\n"
    )  # fmt: skip
    text = ""
    for k in range(N):
        cell = " ".join(f"{x:.6f}" for x in truth.cell[k].ravel())
        text += (
            f"4\ntime= {k}.0 (fs) Energy= {truth.energy[k]:.6f} (Hartree) Cell_Vectors= {cell} scf_conv={int(k != 1)}\n"
        )
        for s, x, f in zip(truth.symbols, truth.positions[k], truth.forces[k], strict=True):
            text += f"{s} {' '.join(f'{v:.6f}' for v in (*x, *f))}\n"
    (tmp_path / "a.md").write_text(text)
    with pytest.raises(ConfigError, match=r"a: dpdata reports unconverged steps \(SCF not converged!\)"):
        read(tmp_path / "a", "openmx/md")


# --- libraries --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run.traj", "run.db", "run.json"])
def test_files_of_ase_keep_the_forces_on_fixed_atoms(tmp_path, truth, name):
    images = computed()
    for image in images:
        image.set_constraint(FixAtoms([0]))
    write(tmp_path / name, images)
    kinds = (
        ["ase/traj"] * name.endswith("traj") + ["ase/db"] * name.endswith("db") + ["ase/json"] * name.endswith("json")
    )
    agree(read(tmp_path / name, kinds[0]), truth, 1e-9)
    assert name.endswith("json") or format_of(tmp_path / name) == kinds[0]


def systems_of(frames):
    return dpdata.LabeledSystem(
        data={
            "atom_names": ["Au", "Cu"], "atom_numbs": [1, 3], "orig": np.zeros(3),
            "atom_types": np.array([0 if symbol == "Au" else 1 for symbol in frames.symbols]),
            "cells": frames.cell, "coords": frames.positions, "energies": frames.energy,
            "forces": frames.forces, "virials": frames.virial,
        }
    )  # fmt: skip


def test_hdf5_of_one_system_and_of_several_some_without_virials(tmp_path, truth):
    whole, poor = systems_of(truth), systems_of(truth)
    whole.to("deepmd/hdf5", str(tmp_path / "one.hdf5"))
    assert format_of(tmp_path / "one.hdf5") == "deepmd/hdf5"
    agree(read(tmp_path / "one.hdf5", "deepmd/hdf5"), truth, 1e-9)
    import h5py

    poor.data.pop("virials")
    with h5py.File(tmp_path / "two.h5", "w") as file:
        whole.to("deepmd/hdf5", file.create_group("a"))
        poor.to("deepmd/hdf5", file.create_group("b"))
    found = read(tmp_path / "two.h5", "deepmd/hdf5")
    assert [one.reason for one in found] == [None] * N + ["no stress"] * N
    agree(found[:N], truth, 1e-9)


def test_frames_of_dpdata_without_a_cell_are_not_periodic(tmp_path, truth):
    system = systems_of(truth)
    system.data["nopbc"] = True
    system.to("deepmd/hdf5", str(tmp_path / "one.hdf5"))
    n, tally = exchange.import_labels(tmp_path / "l", [tmp_path / "one.hdf5"], PBE)
    assert (n, tally.counts) == (0, {"not periodic": N})


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.hdf5", b"no hdf5", "deepmd/hdf5"),
        ("a.traj", b"no traj", "ase/traj"),
        ("a.db", b"SQLite", "ase/db"),
        ("a.log", b"nothing", "gaussian/log"),
        ("a.log", b"", "siesta/output"),
        ("a.log", b"", "ase/castep-castep"),
        ("a.gpw", b"- of Ulm", "ase/gpw"),
        ("MOVEMENT", b"4 atoms", "pwmat/movement"),
        ("a.out", b"Program PWSCF", "qe"),
        ("a.xml", b"<modeling>", "vasprun"),
        ("a.out", b" ENERGY| Total FORCE_EVAL ( FIST ) energy", "cp2k"),
    ],
)
def test_what_a_library_cannot_read_is_told_in_a_sentence_and_nothing_else(tmp_path, name, content, kind, capsys):
    (tmp_path / name).write_bytes(content)
    for path in (tmp_path / name, tmp_path / "none"):
        with pytest.raises(ConfigError, match=r"^\S+: .* - expected .* - .+$") as error:
            exchange.import_labels(tmp_path / "l", [path], PBE, kind)
        assert str(path) in str(error.value)
    assert capsys.readouterr() == ("", "")


def test_every_format_of_the_libraries_answers_with_a_sentence(tmp_path, truth):
    """Whatever the name, a file that is not of it is no crash."""
    (tmp_path / "notes.txt").write_text("4\nnothing in it\n1 2 3\n")
    assert len(names()) > 60
    for kind in names():
        try:
            n = exchange.import_labels(tmp_path / "l", [tmp_path / "notes.txt"], PBE, kind)[0]
        except ConfigError as error:
            assert "notes.txt" in str(error), (kind, error)  # noqa: PT017 - and nothing else is raised
        else:
            assert n == 0, kind


def test_an_unknown_format_names_those_that_look_like_it(tmp_path):
    result = CliRunner().invoke(
        app, ["labels", "import", str(tmp_path), "x", "--declare", "functional=a,includes_dispersion=true,code=b",
              "--format", "qe/pw"],
    )  # fmt: skip
    assert isinstance(result.exception, ConfigError)
    assert "--format qe/pw: no such format of labels" in str(result.exception)
    assert "did you mean qe/pw/scf" in str(result.exception)


def test_the_page_names_every_format_of_ours():
    page = (Path(__file__).parent.parent / "docs" / "labels.md").read_text()
    assert [name for name in ("extxyz", "deepmd", "outcar", "npz", *OUTPUTS) if f"`{name}`" not in page] == []
