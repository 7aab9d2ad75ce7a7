"""LAMMPS: what is written is what ASE reads, and every way a walk can end is told apart on recorded runs."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.geometry import get_distances
from ase.io import read
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from activelearn.config import Condition, Machine, Stage
from activelearn.engines import lammps
from activelearn.engines.lammps import (
    Drive,
    WalkInput,
    lower_triangular,
    read_deviation,
    read_dump,
    read_thermo,
    read_walk,
    run_walk,
    walk_input,
    write_data,
)
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd import TRAINER
from activelearn.errors import EngineError
from activelearn.frames import Frames

DATA = Path(__file__).resolve().parent.parent / "data" / "lammps"


def case(name):
    return json.loads((DATA / name / "case.json").read_text())


def walk_of(name, folder=None, **more):
    found = case(name)
    last = found["n_steps"] - found["n_steps"] % found["every"]
    settings = {"return_code": found["return_code"], "n_steps": last, "n_atoms": found["n_atoms"], **more}
    return read_walk(folder or DATA / name, **settings)


@pytest.fixture
def copy_of(tmp_path):
    def copy(name):
        return Path(shutil.copytree(DATA / name, tmp_path / name))

    return copy


# --- writing ----------------------------------------------------------------------------------------------------------

cells = arrays(np.float64, (3, 3), elements=st.floats(-8, 8)).filter(
    lambda cell: abs(np.linalg.det(cell)) > 1.0 and np.linalg.cond(cell) < 1e4
)


@given(cells, arrays(np.float64, (4, 3), elements=st.floats(-10, 10)))
def test_a_rotation_into_the_frame_of_lammps_keeps_all_distances(cell, positions):
    if np.linalg.det(cell) < 0:
        cell = cell[[1, 0, 2]]
    lower, rotated = lower_triangular(cell, positions)
    assert np.array_equal(lower, np.tril(lower)), "exactly lower triangular"
    assert (np.diag(lower) > 0).all()
    assert lower @ lower.T == pytest.approx(cell @ cell.T, abs=1e-9), "lengths and angles of the cell"
    assert np.linalg.det(lower) == pytest.approx(np.linalg.det(cell))
    assert rotated @ rotated.T == pytest.approx(positions @ positions.T, abs=1e-9), "a rotation, atoms along"
    fractions = np.linalg.solve(cell.T, positions.T)
    assert np.linalg.solve(lower.T, rotated.T) == pytest.approx(fractions, abs=1e-7)


@pytest.mark.parametrize("cell", [np.diag([1.0, 1.0, -1.0]), np.diag([1.0, 1.0, 0.0]), np.eye(3)[[1, 0, 2]]])
def test_a_cell_that_lammps_cannot_hold_is_refused(cell):
    with pytest.raises(
        ValueError, match="a left-handed or flat cell cannot be given to LAMMPS; swap two lattice vectors"
    ):
        lower_triangular(cell, np.zeros((1, 3)))


@pytest.mark.parametrize("cubic", [True, False])
def test_the_data_file_is_read_back_by_ase(tmp_path, cubic):
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=cubic) * (2, 1, 1)
    atoms.rattle(0.1, seed=3)
    frame = Frames.from_ase([atoms])
    write_data(tmp_path / "conf.lmp", frame, ["Cl", "K", "Na"])
    back = read(tmp_path / "conf.lmp", format="lammps-data", atom_style="atomic", units="metal")
    assert back.get_chemical_symbols() == atoms.get_chemical_symbols(), "by the masses; order kept"
    assert back.cell.cellpar() == pytest.approx(atoms.cell.cellpar(), rel=1e-14)
    ours = get_distances(atoms.positions, cell=atoms.cell, pbc=True)[1]
    theirs = get_distances(back.positions, cell=back.cell, pbc=True)[1]
    assert theirs == pytest.approx(ours, abs=1e-12)
    assert "3 atom types" in (tmp_path / "conf.lmp").read_text()


def test_the_data_file_keeps_every_digit(tmp_path):
    cell, positions = np.diag([5.0 + 1e-15, 6.1, 7.3])[None], np.array([[[1 / 3, np.pi, 2**0.5]]])
    write_data(tmp_path / "conf.lmp", Frames(("Cu",), cell, positions), ["Cu"])
    numbers = (tmp_path / "conf.lmp").read_text().splitlines()[-1].split()[2:]
    assert [float(number) for number in numbers] == [1 / 3, np.pi, 2**0.5]


def text_of(temperature=300.0, pressure=None, **stage):
    settings = {"name": "s", "temperatures_K": (300.0,), "n_steps": 100, "every": 5, "timestep_fs": 2.0, **stage}
    drive = Drive(Condition(temperature, pressure_bar=pressure), velocity_seed=77)
    stage = Stage(**settings)
    return walk_input(stage, drive, TRAINER.pair(["/m/0.pb", "/m/1.pb"], ["Na", "P"], stage.every)).text


def lines_of(text):
    return {line.split()[0]: " ".join(line.split()[1:]) for line in text.splitlines() if line and line[0] != "#"}


def test_the_input_of_an_nvt_walk():
    lines = lines_of(text_of())
    assert lines["units"] == "metal"
    assert lines["pair_style"] == "deepmd /m/0.pb /m/1.pb out_file model_devi.out out_freq 5"
    assert lines["pair_coeff"] == "* * Na P"
    assert lines["velocity"] == "all create 300 77 dist gaussian mom yes"
    assert lines["fix"] == "dynamics all nvt temp 300 300 0.1"
    assert lines["timestep"] == "0.002", "ps"
    assert (lines["thermo"], lines["run"]) == ("5", "100")
    assert lines["dump"].startswith("walk all custom 5 ")


@pytest.mark.parametrize("mode", ["iso", "aniso", "tri"])
def test_the_input_of_an_npt_walk(mode):
    stage = {"ensemble": f"npt-{mode}", "pressures_bar": (0.0, 5.0e4), "pressure_damping_ps": 0.5}
    lines = lines_of(text_of(pressure=5.0e4, **stage))
    assert lines["fix"] == f"dynamics all npt temp 300 300 0.1 {mode} 50000 50000 0.5"
    assert f"{mode} 0 0 0.5" in text_of(pressure=0.0, **stage), "zero pressure is a pressure"


# --- recorded walks ---------------------------------------------------------------------------------------------------


def test_a_healthy_walk():
    walk = walk_of("healthy")
    assert walk.ended == "finished"
    assert walk.log_tail == ()
    assert walk.step.tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert walk.forces == pytest.approx(np.load(DATA / "healthy" / "forces.npz")["forces"][0], abs=1e-6), "model 0"
    assert walk.temperature_K[0] == pytest.approx(300.0)
    for name in ("max_devi_f", "potential_energy", "pressure_bar"):
        assert getattr(walk, name).shape == (7,)
        assert np.isfinite(getattr(walk, name)).all()
    images = read(DATA / "healthy" / "walk.lammpstrj", index=":", format="lammps-dump-text")
    assert len(images) == 7
    for k, image in enumerate(images):
        assert walk.cell[k] == pytest.approx(image.cell.array, abs=1e-10)
        assert walk.positions[k] == pytest.approx(image.positions, abs=1e-10)
    start = read(DATA / "healthy" / "conf.lmp", format="lammps-data", atom_style="atomic")
    moved = np.linalg.solve(start.cell.T, (walk.positions[0] - start.positions).T)
    assert moved == pytest.approx(np.rint(moved), abs=1e-9), "in the order of the start, wrapped into the cell"


def test_a_triclinic_walk_whose_last_step_is_no_frame():
    """15 steps, every 4: LAMMPS prints step 15 to its log, but a frame it is not. ASE is the witness of the box."""
    walk = walk_of("triclinic")
    assert walk.ended == "finished"
    assert walk.step.tolist() == [0, 4, 8, 12]
    images = read(DATA / "triclinic" / "walk.lammpstrj", index=":", format="lammps-dump-text")
    for k, image in enumerate(images):
        assert walk.cell[k] == pytest.approx(image.cell.array, abs=1e-10)
        assert walk.positions[k] == pytest.approx(image.positions - image.get_celldisp().ravel(), abs=1e-10)
    volumes = [read_thermo(DATA / "triclinic" / "log.lammps")[step][3] for step in walk.step]
    assert np.abs(np.linalg.det(walk.cell)) == pytest.approx(volumes, rel=1e-7)
    start = read(DATA / "triclinic" / "conf.lmp", format="lammps-data", atom_style="atomic")
    inside = np.linalg.solve(start.cell.T, (walk.positions[0] - start.positions).T)
    assert inside == pytest.approx(np.rint(inside), abs=1e-9), "wrapped, and nothing else"


def test_the_thermo_table_and_the_deviations_are_read_by_their_columns():
    thermo = read_thermo(DATA / "triclinic" / "log.lammps")
    assert sorted(thermo) == [0, 4, 8, 12, 15]
    assert thermo[4] == [186.24754, -6.0963417, 11848.722, 178.5318]
    assert read_deviation(DATA / "hot" / "model_devi.out")[20] == 7.517407e-01


def test_a_walk_far_too_hot_is_finished_for_lammps_and_shows_in_the_deviation():
    walk = walk_of("hot")
    assert walk.ended == "finished"
    assert walk.temperature_K[0] == pytest.approx(20_000)
    assert (walk.max_devi_f[2:] > 0.35).all()


def test_lost_atoms_end_a_walk_after_its_good_rows():
    walk = walk_of("lost")
    assert walk.ended == "lost atoms"
    assert walk.step.tolist() == [0], "the row at step 4 has a deviation but neither thermo nor positions"
    assert any("ERROR: Lost atoms" in line for line in walk.log_tail)


def test_nothing_after_a_nan_is_believed():
    """Two atoms on one site: rc 0, a NaN row at step 0, then deviations of 0.0 that would count as accurate."""
    deviations = read_deviation(DATA / "nan" / "model_devi.out")
    assert np.isnan(deviations[0])
    assert deviations[5] == 0.0
    walk = walk_of("nan")
    assert walk.ended == "non-finite"
    assert len(walk.step) == len(walk.positions) == len(walk.max_devi_f) == 0
    assert walk.cell.shape == (0, 3, 3)


@pytest.mark.parametrize("file", ["log.lammps", "model_devi.out", "walk.lammpstrj"])
def test_a_row_that_is_not_finite_cuts_the_walk_whichever_file_it_is_in(copy_of, file):
    folder = copy_of("healthy")
    lines = (folder / file).read_text().splitlines()
    if file == "walk.lammpstrj":
        at = 3 * 41 + 9 + 5  # frame 3, sixth atom
        lines[at] = re.sub(r"\S+$", "-nan", lines[at])
    else:
        at = next(i for i, line in enumerate(lines) if re.match(r"\s+6\s+\S+\s+\S+\s+\S+\s+\S+", line))
        words = lines[at].split()
        words[1 if file == "log.lammps" else 4] = "nan"
        lines[at] = " ".join(words)
    (folder / file).write_text("\n".join(lines) + "\n")
    walk = walk_of("healthy", folder)
    assert walk.ended == "non-finite"
    assert walk.step.tolist() == [0, 2, 4]


@pytest.mark.parametrize("file", ["log.lammps", "model_devi.out", "walk.lammpstrj"])
@pytest.mark.parametrize("return_code", [0, 1])
def test_output_that_is_cut_off(copy_of, file, return_code):
    """In the middle of a number. With rc 0 the machine is to blame (try again); after lost atoms it is the last row."""
    folder = copy_of("healthy")
    text = (folder / file).read_text()
    whole = text.index("ITEM: TIMESTEP\n8\n") if file == "walk.lammpstrj" else re.search(r"\n\s+8\s", text).start() + 1
    rest = text[whole:]
    inside = whole + (len("ITEM: TIMESTEP\n8\n") + 900 if file == "walk.lammpstrj" else len(rest.split("\n")[0]) - 3)
    (folder / file).write_text(text[:inside])
    if return_code == 0:
        with pytest.raises(EngineError, match="LAMMPS finished, but its output is truncated"):
            walk_of("healthy", folder)
        return
    with (folder / "lammps.out").open("a") as log:
        log.write("ERROR: Lost atoms: original 32 current 30 (src/thermo.cpp:1)\n")
    walk = walk_of("healthy", folder, return_code=1)
    assert walk.ended == "lost atoms"
    assert walk.step.tolist() == [0, 2, 4, 6], "a number that lost its last digits is not read"


def test_a_walk_that_wrote_nothing_and_says_finished_is_an_engine_error(tmp_path):
    with pytest.raises(EngineError, match="truncated"):
        read_walk(tmp_path, return_code=0, n_steps=10, n_atoms=2)
    assert read_dump(tmp_path / "none", 2)[1].shape == (0, 3, 3)


@pytest.mark.parametrize(
    ("return_code", "what"), [(-11, "signal 11"), (245, "return code 245"), (-9, "signal 9"), (137, "return code 137")]
)
@pytest.mark.parametrize("name", ["healthy", "lost"])
def test_a_crash_is_infrastructure_whatever_the_log_says(name, return_code, what):
    with pytest.raises(EngineError, match=f"LAMMPS ended with {what}"):
        walk_of(name, return_code=return_code)


def test_an_unknown_pair_style_is_not_the_physics():
    with pytest.raises(EngineError) as caught:
        walk_of("unknown-style")
    assert "LAMMPS ended with return code 1" in str(caught.value)
    assert any("Unrecognized pair style 'deepmdd'" in line for line in caught.value.tail)
    assert caught.value.folder == DATA / "unknown-style"


@pytest.mark.parametrize("sentence", lammps.PHYSICAL_ERRORS)
def test_every_physical_error_is_recognised(tmp_path, sentence):
    (tmp_path / "log.lammps").write_text(f"ERROR on proc 0: {sentence} - simulation unstable (src/x.cpp:1)\n")
    assert read_walk(tmp_path, return_code=1, n_steps=10, n_atoms=2).ended == sentence.lower()


# --- running: a stand-in for the binary that lays down a recorded walk ------------------------------------------------


@pytest.fixture
def recorded(tmp_path):
    """Return a slot whose LAMMPS copies a recorded case into its working directory and ends as that one did."""

    def make(name):
        script = tmp_path / "lmp"
        copy = f"cp {DATA / name}/log.lammps {DATA / name}/*.out {DATA / name}/*.lammpstrj ."
        script.write_text(f'#!/bin/sh\n{copy}\necho "$@" > arguments\nexit {case(name)["return_code"]}\n')
        script.chmod(0o755)
        folder = tmp_path / "walk"
        folder.mkdir()
        return folder, Slot(Machine(lammps=f"{script} -nocite"), tmp_path)

    return make


@pytest.mark.parametrize(
    ("name", "ended"),
    [("healthy", "finished"), ("triclinic", "finished"), ("lost", "lost atoms"), ("nan", "non-finite")],
)
def test_a_walk_is_run_and_read(recorded, name, ended):
    folder, slot = recorded(name)
    text = WalkInput((DATA / name / "in.lammps").read_text(), every=case(name)["every"], n_steps=case(name)["n_steps"])
    walk = run_walk(folder, text, ["Cu"] * case(name)["n_atoms"], slot)
    assert walk.ended == ended
    assert (folder / "arguments").read_text() == "-nocite -in in.lammps -log log.lammps -screen none\n"


def test_the_recorded_inputs_are_what_we_write_today():
    stage = Stage(name="walk", temperatures_K=(300.0,), n_steps=12, every=2, timestep_fs=2.0)
    drive = Drive(Condition(300.0), velocity_seed=4711)
    text = walk_input(stage, drive, TRAINER.pair([f"m{i}.pb" for i in range(4)], ["Cu"], stage.every))
    assert text.text == (DATA / "healthy" / "in.lammps").read_text()
