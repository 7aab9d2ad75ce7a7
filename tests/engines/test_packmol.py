"""Packmol, the real program: images keep their distance, the seed decides, each way to fail is told apart."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.geometry import get_distances

from activelearn.config import Machine
from activelearn.engines import packmol
from activelearn.engines.packmol import OUTPUT, Piece
from activelearn.engines.process import Slot
from activelearn.errors import ConfigError, EngineError

pytestmark = pytest.mark.engines

# A bent molecule with bonds of 1.5 Å, off its origin, and an atom.
MOLECULE = Piece(("S", "O", "O"), np.array([[5.0, 5.0, 5.0], [6.5, 5.0, 5.0], [5.0, 6.5, 5.0]]), 12)
ATOM = Piece(("Na",), np.zeros((1, 3)), 20)


def packed(folder, slot, *, pieces=(ATOM, MOLECULE), box=9.5, tolerance=2.2, random_seed=1):
    return packmol.run(pieces, box_A=box, tolerance_A=tolerance, random_seed=random_seed, folder=folder, slot=slot)


def closest(parts, box):
    """Return the shortest distance between atoms of different units, all periodic images looked at."""
    unit = np.concatenate([np.repeat(np.arange(len(part)), part.shape[1]) + 1000 * i for i, part in enumerate(parts)])
    positions = np.concatenate([part.reshape(-1, 3) for part in parts])
    distance = get_distances(positions, cell=np.eye(3) * box, pbc=True)[1]
    return distance[unit[:, None] != unit[None, :]].min()


@pytest.mark.parametrize("random_seed", range(6))
def test_units_keep_their_distance_across_the_faces_too(tmp_path, slot, random_seed):
    parts = packed(tmp_path, slot, random_seed=random_seed)
    assert [part.shape for part in parts] == [(20, 1, 3), (12, 3, 3)]
    assert closest(parts, 9.5) > 0.99 * 2.2
    # The witness sees images: in a box that is not the packed one, some are close.
    assert closest(parts, 8.0) < 2.2


def test_molecules_stay_rigid_and_are_not_mirrored(tmp_path, slot):
    chiral = Piece(("P", "S", "O", "Na"), np.array([[0, 0, 0], [2.1, 0, 0], [0, 1.5, 0], [0, 0, 2.9]], float), 8)
    (found,) = packed(tmp_path, slot, pieces=[chiral], box=14.0)
    arms = found[:, 1:] - found[:, :1]
    assert np.linalg.norm(arms, axis=2) == pytest.approx(np.tile([2.1, 1.5, 2.9], (8, 1)), abs=1e-5)
    assert np.linalg.det(arms) == pytest.approx(np.full(8, 2.1 * 1.5 * 2.9), abs=1e-4)
    assert np.ptp(arms[:, 0, 0]) > 1.0, "turned at random"


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path, slot):
    def bytes_of(name, random_seed):
        packed(tmp_path / name, slot, random_seed=random_seed)
        return (tmp_path / name / OUTPUT).read_bytes()

    first = bytes_of("a", 7)
    assert bytes_of("b", 7) == first
    assert bytes_of("a", 7) == first, "in a folder that was used before"
    seeds = [0, 8, 2**31 - 3, 2**40, -1]
    assert len({first, *(bytes_of("c", seed) for seed in seeds)}) == 1 + len(seeds)
    assert bytes_of("d", -1) == bytes_of("e", -1), "-1 is not Packmol's -1, the clock"


def test_a_long_path_is_no_hindrance(tmp_path, slot):
    folder = tmp_path.joinpath(*["a-rather-long-name-of-a-folder" * 3] * 4)
    assert closest(packed(folder, slot), 9.5) > 2.1


@pytest.mark.parametrize(
    ("piece", "box", "tolerance"),
    [
        pytest.param(ATOM, 4.5, 3.5, id="no packing was found"),
        pytest.param(MOLECULE, 1.0, 2.2, id="a molecule larger than the box"),
    ],
)
def test_a_packing_that_is_not_there_is_a_fault_of_the_numbers(tmp_path, slot, piece, box, tolerance):
    said = r"could not place \d+ atoms, .* Å apart, in a box of .* - lower density_g_cm3 or tolerance_A"
    with pytest.raises(ConfigError, match=said):
        packed(tmp_path, slot, pieces=[replace(piece, count=6)], box=box, tolerance=tolerance)


def test_a_missing_program_is_the_fault_of_the_machine(tmp_path, slot, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert packmol.find(slot.machine) is None
    with pytest.raises(EngineError, match="packmol: no such program"):
        packed(tmp_path, slot)


def test_the_program_beside_the_interpreter_of_the_machine_goes_first(tmp_path, monkeypatch):
    program = tmp_path / "packmol"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert packmol.find(Machine(python=str(tmp_path / "python"))) == str(program)
    assert packmol.find(Machine()) not in {None, str(program)}


def test_an_input_that_packmol_does_not_know_is_shown_with_what_it_said(tmp_path, slot, monkeypatch):
    written = packmol.write_input

    def unknown_keyword(folder, pieces, **numbers):
        written(folder, pieces, **numbers)
        path = folder / packmol.INPUT
        path.write_text(path.read_text().replace("pbc ", "pbx "))

    monkeypatch.setattr(packmol, "write_input", unknown_keyword)
    with pytest.raises(EngineError, match="too old for `pbc`: pip install 'packmol>=21'\n") as caught:
        packed(tmp_path, slot)
    assert "Keyword not recognized: pbx" in "\n".join(caught.value.tail)


def test_a_packing_that_takes_too_long_is_the_fault_of_the_machine(tmp_path):
    hurried = Slot(Machine(walk_timeout_s=0.3), tmp_path)
    with pytest.raises(EngineError, match=r"took more than 0\.3 s"):
        packed(tmp_path, hurried, box=8.0, tolerance=4.0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text[: text.rstrip().rfind(" ")],
        lambda text: text.replace("Na ", "K  ", 1),
        lambda text: text.replace("  Na  ", "  Na  nan", 1),
        lambda text: "",
    ],
)
def test_an_output_that_is_not_whole_is_refused(tmp_path, slot, damage):
    packed(tmp_path, slot)
    path = tmp_path / OUTPUT
    path.write_text(damage(path.read_text()))
    with pytest.raises(EngineError, match="expected 56 atoms in the order of the input"):
        packmol.read_output(path, [ATOM, MOLECULE])


def test_an_output_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(EngineError, match="found 0 rows"):
        packmol.read_output(Path(tmp_path / OUTPUT), [ATOM])
