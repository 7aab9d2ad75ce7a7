"""Outputs of CP2K, step by step: single points, molecular dynamics and relaxations.

dpdata 1.1.0 returns no virials from the block "STRESS| Analytical stress tensor" of CP2K 2023, silently, so this
reader is our own. The energy is that of the line "ENERGY| Total FORCE_EVAL", to which the forces belong; the stress is
printed positive in compression (virial = +volume * stress). The output only has the atoms of the first step: those of
the others are in ``PROJECT-pos-1.xyz`` next to it, with the energies that identify the steps, forces that went to
a separate file in ``PROJECT-frc-1.xyz``, and cells in ``PROJECT-1.cell``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from activelearn.errors import ConfigError
from activelearn.exchange.reads import Read, source
from activelearn.exchange.texts import TORN, Floats, whole_lines
from activelearn.frames import Frames, make_origin
from activelearn.units import EV_PER_A3_IN_GPA

_RUN: Final = "PROGRAM STARTED AT"
_ENERGY: Final = "ENERGY| Total FORCE_EVAL"
_FORCES: Final = re.compile(r"ATOMIC FORCES in \[(.+?)\]|FORCES\| Atomic forces \[(.+?)\]")
_ATOMIC_UNITS: Final = ("a.u.", "hartree/bohr")
_CONVERGED: Final = re.compile(r"SCF (?:run|loop) (?:(converged)|NOT converged|FAILED)")
_STRESS: Final = re.compile(r"STRESS(?:\| \w+ stress tensor| TENSOR) \[(\w+)\]")
_IN_GPA: Final = {"GPa": 1.0, "MPa": 1e-3, "kbar": 0.1, "bar": 1e-4, "atm": 1.01325e-4, "Pa": 1e-9}
_COORDINATES: Final = re.compile(r"ATOMIC COORDINATES IN angstrom", re.IGNORECASE)
_ATOM: Final = re.compile(r"\s*\d+\s+\d+\s+([A-Z][a-z]?)\s+\d+\s+(\S+)\s+(\S+)\s+(\S+)")
_CELL: Final = re.compile(r"\s*CELL\| Vector [abc] \[angstrom\]:?\s+(\S+)\s+(\S+)\s+(\S+)")
_SAYS: Final = {
    "project": re.compile(r"GLOBAL\| Project name\s+(\S+)"),
    "kind": re.compile(r"GLOBAL\| Run type\s+(\S+)"),
    "ensemble": re.compile(r"(?:MD\| Ensemble Type|ENSEMBLE TYPE\s+=)\s+(\S+)", re.IGNORECASE),
    "periodicity": re.compile(r"CELL\| Periodicity\s+(\S+)"),
}
_TITLE: Final = re.compile(r"i =\s*(\d+).*E =\s*(-?[\d.]+)")
#: The energies in the file of positions have ten decimals, Hartree.
_SAME_ENERGY: Final = 1e-9


@dataclass
class Cp2kRun:
    """Header of a run, before its first energy.

    Parameters
    ----------
    says
        Its project, type, ensemble and periodicity, as far as they are printed.
    cell
        Lattice vectors, rows, Å.
    symbols, positions
        Elements, and the positions of the first step, Å.
    """

    says: dict[str, str] = field(default_factory=dict)
    cell: list[list[float]] = field(default_factory=list)
    symbols: list[str] = field(default_factory=list)
    positions: list[list[float]] = field(default_factory=list)

    @property
    def changes_cell(self) -> bool:
        """Whether each step has its own cell."""
        return self.says.get("kind") == "CELL_OPT" or self.says.get("ensemble", "").upper().startswith(("NPT", "NPE"))


@dataclass
class Cp2kStep:
    """A printed energy, Hartree, and what follows it.

    Parameters
    ----------
    run
        Whose step it is.
    energy
        Hartree.
    is_converged
        Whether the preceding loop converged according to the output.
    is_first
        Whether it is the first step of the run.
    forces, stress
        Rows of numbers, Hartree/Bohr and GPa.
    """

    run: Cp2kRun
    energy: float
    is_converged: bool
    is_first: bool
    forces: list[list[float]] = field(default_factory=list)
    stress: list[list[float]] = field(default_factory=list)

    def take(self, line: str, lines: Iterator[str]) -> None:
        """Take a table of forces or a stress, if this line is the heading of one; its rows are the next of `lines`."""
        if found := _FORCES.search(line):
            _known(found[1] or found[2], _ATOMIC_UNITS)
            # Two merged steps have more rows than atoms, which no frame accepts.
            self.forces += _forces(lines, len(self.run.symbols))
        elif found := _STRESS.search(line):
            _known(found[1], _IN_GPA)
            self.stress += [[x * _IN_GPA[found[1]] for x in row] for row in _tensor(lines)]


class Cp2kFiles:
    """The files next to an output: positions, forces and cells of all steps of a run, by their energies.

    Parameters
    ----------
    folder
        Where they are.
    run
        Whose files.
    """

    def __init__(self, folder: Path, run: Cp2kRun) -> None:
        beginning = run.says.get("project", "")
        self._positions = _xyz(folder / f"{beginning}-pos-1.xyz", run.symbols)
        self._forces = {i: rows for i, _, rows in _xyz(folder / f"{beginning}-frc-1.xyz", run.symbols)}
        cells = folder / f"{beginning}-1.cell"
        self._has_cells = cells.is_file()
        # Step, time, nine numbers, volume.
        rows = [_numbers(line.split()) for line in whole_lines(cells)] if self._has_cells else []
        self._cells = {int(row[0]): np.array(row[2:11]).reshape(3, 3) for row in rows if len(row) == 12 and row[0] >= 0}
        self._energies = np.array([energy for _, energy, _ in self._positions])
        self._begin = 0

    def at(self, energy: float) -> tuple[Floats | None, Floats | None, Floats | None]:
        """Return positions (Å), forces (Hartree/Bohr) and cell (Å) of the step of this energy; None if missing."""
        (hits,) = np.nonzero(np.abs(self._energies[self._begin :] - energy) < _SAME_ENERGY)
        if not hits.size:
            return None, None, None
        self._begin += int(hits[0]) + 1
        i, _, positions = self._positions[self._begin - 1]
        nothing = np.full((3, 3), np.nan) if self._has_cells else None  # a row of the file of cells is missing
        return positions, self._forces.get(i), self._cells.get(i, nothing)


def read_cp2k(path: Path) -> Iterator[Read]:
    """Read the steps of a CP2K output, or of the one ``*.log`` or ``*.out`` of a folder.

    Raises
    ------
    ConfigError
        There is no energy in it.
    """
    if path.is_dir():
        found = sorted([*path.glob("*.log"), *path.glob("*.out")])
        if len(found) != 1:
            raise ConfigError(
                f"{path}: {len(found)} files *.log and *.out - expected one output of CP2K - name the file"
            )
        path = found[0]
    k, run, files = -1, None, None
    for k, step in enumerate(_steps(whole_lines(path))):
        if files is None or step.run is not run:
            run, files = step.run, Cp2kFiles(path.parent, step.run)
        try:
            yield _read(step, files, f"{path} step {k}", source(path))
        except (IndexError, ValueError):  # numbers are missing
            yield Read(f"{path} step {k}", None, TORN)
    if k < 0:
        raise ConfigError(f'{path}: contains no line "{_ENERGY}" - expected the output of a CP2K run - leave it out')


def _read(step: Cp2kStep, files: Cp2kFiles, where: str, walk: str) -> Read:
    from ase.units import Bohr, Hartree

    run = step.run
    positions, forces, cell = files.at(step.energy)
    if positions is None and step.is_first:
        positions = np.array(run.positions)
    if cell is None and (step.is_first or not run.changes_cell):
        cell = np.array(run.cell)
    if not step.is_converged:
        return Read(where, None, "SCF not converged")
    if positions is None or cell is None:
        return Read(where, None, "no positions")
    forces = np.array(step.forces) if step.forces else forces
    if forces is None:
        return Read(where, None, "no forces")
    cell, periodicity = cell.reshape(3, 3), run.says.get("periodicity", "XYZ")
    stress = np.array(step.stress).reshape(1, 3, 3) if step.stress else None
    frame = Frames(
        symbols=tuple(run.symbols),
        cell=cell[None],
        positions=positions[None],
        pbc=("X" in periodicity, "Y" in periodicity, "Z" in periodicity),
        energy=np.array([step.energy * Hartree]),
        forces=forces[None] * Hartree / Bohr,
        virial=None if stress is None else np.abs(np.linalg.det(cell)) * stress / EV_PER_A3_IN_GPA,
        origin=make_origin(1, walk=walk),
    )
    return Read(where, frame, "no stress" if stress is None and all(frame.pbc) else None)


def _steps(lines: Iterable[str]) -> Iterator[Cp2kStep]:
    """Yield the energies of an output with what follows each of them."""
    run, step, is_converged = Cp2kRun(), None, False
    lines = iter(lines)
    for line in lines:
        if _RUN in line:
            if step is not None:
                yield step
            run, step, is_converged = Cp2kRun(), None, False
        elif _ENERGY in line:
            if step is not None:
                yield step
            is_first = step is None or step.run is not run
            has_loop = "( QS )" in line
            step = Cp2kStep(run, _numbers(line.split()[-1:])[0], is_converged or not has_loop, is_first)
            is_converged = False
        elif found := _CONVERGED.search(line):
            is_converged = found[1] is not None
        elif step is None:
            _take(run, line, lines)
        else:
            step.take(line, lines)
    if step is not None:
        yield step


def _take(run: Cp2kRun, line: str, lines: Iterator[str]) -> None:
    """Read what a line before the first energy says about the run."""
    for name, pattern in _SAYS.items():
        if found := pattern.search(line):
            run.says.setdefault(name, found[1])
    if (found := _CELL.match(line)) and len(run.cell) < 3:
        run.cell.append([float(x) for x in found.groups()])
    elif _COORDINATES.search(line) and not run.symbols:
        for row in lines:
            if found := _ATOM.match(row):
                run.symbols.append(found[1])
                run.positions.append([float(x) for x in found.groups()[1:]])
            elif run.symbols:
                return


def _known(unit: str, units: Collection[str]) -> None:
    if unit not in units:
        raise ConfigError(
            f"CP2K printed forces or a stress in {unit} - expected one of {', '.join(units)} - convert them"
        )


def _forces(lines: Iterator[str], n_atoms: int) -> list[list[float]]:
    """Return the rows of a table of forces: ``1 1 Al x y z``, or ``FORCES| 1 x y z norm`` of CP2K 2024 and later.

    If some are missing, or not one per atom: a single row, which no frame accepts.
    """
    rows: list[list[float]] = []
    for line in lines:
        words = line.removeprefix(" FORCES|").split()
        if words and words[0].isdigit() and int(words[0]) == len(rows) + 1:
            rows.append(_numbers(words[1:4] if "FORCES|" in line else words[3:6]))
        elif rows or (words and words[0].isdigit()):
            break
    return rows if len(rows) == n_atoms else [[float("nan")]]


def _tensor(lines: Iterator[str]) -> list[list[float]]:
    """Return the rows x, y, z of a stress; a single row, which no frame accepts, if they are missing."""
    rows = [line.removeprefix(" STRESS|").split() for line in islice(lines, 5)]
    found = [_numbers(words[1:]) for words in rows if len(words) == 4 and words[0] in "xyzXYZ"]
    return found or [[float("nan")]]


def _numbers(words: Iterable[str]) -> list[float]:
    """Return numbers; NaN for anything else."""
    found = []
    for word in words:
        try:
            found.append(float(word))
        except ValueError:
            found.append(float("nan"))
    return found


def _xyz(path: Path, symbols: list[str]) -> list[tuple[int, float, Floats]]:
    """Return step, energy (Hartree) and rows (n_atoms, 3) of each frame of an xyz file; nothing if there is none.

    A frame with other elements than the output has NaN instead of numbers.

    Raises
    ------
    ConfigError
        It has other atoms, or frames without an energy.
    """
    found: list[tuple[int, float, Floats]] = []
    n_atoms = len(symbols)
    if not path.is_file():
        return found
    lines = whole_lines(path)
    for first in lines:
        title, rows = _TITLE.search(next(lines, "")), list(islice(lines, n_atoms))
        if not first.strip().isdigit() or int(first) != n_atoms or title is None:
            raise ConfigError(
                f"{path} frame {len(found)}: {first.strip()} atoms, title {'read' if title else 'without i and E'} "
                f"- expected the {n_atoms} atoms of the output and its energies - use the file that the run wrote"
            )
        if len(rows) == n_atoms:  # else the run was killed here
            words = [row.split() for row in rows]
            is_whole = all(len(w) == 4 and w[0] == symbol for w, symbol in zip(words, symbols, strict=True))
            numbers = np.array([_numbers(w[1:4]) for w in words]) if is_whole else np.full((n_atoms, 3), np.nan)
            found.append((int(title[1]), float(title[2]), numbers))
    return found
