"""Outputs of Quantum ESPRESSO (pw.x), FHI-aims and GPAW: numbers by ASE's parsers, validity by ours.

The energy is the one consistent with the forces: the line with "!" of pw.x, the electronic free energy of FHI-aims
(dpdata takes the energy without the entropy), the free energy of GPAW (ASE takes the one extrapolated to zero width).
A file is first split into steps, so that each energy stays with its forces and an unreadable step does not affect
others.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from activelearn.errors import ConfigError
from activelearn.exchange.reads import Read, from_atoms, source
from activelearn.exchange.texts import TEARS, TORN, are_numbered, are_symmetric, are_there_twice, whole_lines

# --- Quantum ESPRESSO -------------------------------------------------------------------------------------------------

_PW_RUN: Final = "Program PWSCF"
_PW_ATOMS: Final = "ATOMIC_POSITIONS"
_PW_LOOP: Final = re.compile(r"iteration #|Self-consistent Calculation")
_PW_ENERGY: Final = re.compile(r"^(!!?)\s+total energy\s+=")
_PW_FORCES: Final = "Forces acting on atoms"
_PW_NOT_CONVERGED: Final = "convergence NOT achieved"
#: Sections that ASE would read as well, not needed here: bands, moments.
_PW_UNUSED: Final = re.compile(
    r"End of (self-consistent|band structure) calculation|number of k points=|Magnetic moment per site|"
    r"the Fermi energy is|highest occupied|Debye|Computed dipole"
)
_PW_CELL: Final = "CELL_PARAMETERS"
#: Lines before the atoms of a step that contain its cell; ASE looks at the fifth of them for the heading, and takes the
#: first cell of the run if it is missing.
_N_CELL_LINES: Final = 6
_N_PW_CELL: Final = 5
_XYZ: Final = r"(?:\s+-?\d+\.\d+(?:[eE][+-]?\d+)?){3}"
_PW_FORCE_ROW: Final = re.compile(rf"\s*atom\s+(\d+)\s+type\s+\d+\s+force\s+={_XYZ}\s*$")
_PW_TAU_ROW: Final = re.compile(r"\s*(?=\d+\s+\S+\s+tau\(\s*(\d+)\))\d+\s+(\S+)")
_PW_STRESS: Final = "total   stress"
_PW_TOTAL: Final = "!    total energy"


def read_pwscf(path: Path) -> Iterator[Read]:
    """Read the steps of an output of pw.x: single points, relaxations and molecular dynamics.

    Raises
    ------
    ConfigError
        It is not an output of pw.x, or has no finished step.
    """
    k = 0
    has_cells = any(_PW_CELL in line for line in whole_lines(path))
    for header, step in _pwscf_steps(path):
        energies = [i for i, line in enumerate(step) if _PW_ENERGY.match(line)]
        is_converged = not any(_PW_NOT_CONVERGED in line for line in step)
        if is_converged and not energies and not any(_PW_FORCES in line for line in step):
            continue  # only atoms, before the first loop or at the end of a relaxation
        where = f"{path} step {k}"
        k += 1
        if not is_converged:
            yield Read(where, None, "SCF not converged")
        elif not energies:
            yield Read(where, None, "no energy")
        else:  # hybrid functionals have an energy for each outer loop; the last one counts
            number = step[energies[-1]].lstrip("!")
            lines = [line for i, line in enumerate(step) if i not in energies[:-1] and not _PW_UNUSED.search(line)]
            lines = [f"!    {number.lstrip()}" if _PW_ENERGY.match(line) else line for line in lines]
            is_whole = _pwscf_is_whole(header, step, has_cells)
            yield _pwscf_read([*header, *lines], where, source(path)) if is_whole else Read(where, None, TORN)
    if k == 0:
        raise ConfigError(f"{path}: contains no finished step of pw.x - expected its output - leave it out")


def _pwscf_steps(path: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the header of a run and the lines that belong to one set of atoms."""
    header, step, is_header, is_run = list[str](), list[str](), False, False
    for line in whole_lines(path):
        if _PW_RUN in line:
            if is_run:
                yield header, step
            header, step, is_header, is_run = [line], [], True, True
        elif is_header and not _PW_LOOP.search(line):
            header += [] if _PW_UNUSED.search(line) else [line]
        elif is_run:
            is_header = False
            if _PW_ATOMS in line:
                yield header, step
                step = [x for x in step[-_N_CELL_LINES:] if not _PW_ENERGY.match(x)]
            step.append(line)
    if is_run:
        yield header, step


def _pwscf_is_whole(header: list[str], step: list[str], has_cells: bool) -> bool:
    """Return whether atoms, forces and cell of a step are where ASE looks for them."""
    atoms = next((i for i, line in enumerate(step) if _PW_ATOMS in line), None)
    if has_cells and atoms is not None and not (atoms >= _N_PW_CELL and _PW_CELL in step[atoms - _N_PW_CELL]):
        return False
    is_hybrid = any(line.startswith("!!") for line in step)
    if (
        not are_symmetric(step, _PW_STRESS)
        or are_there_twice(step, _PW_FORCES, _PW_STRESS)
        or (not is_hybrid and are_there_twice(step, _PW_TOTAL))
    ):
        return False
    below = [line.split()[0] for line in takewhile(str.strip, step[atoms + 1 :])] if atoms is not None else []
    n = sum(_PW_TAU_ROW.match(line) is not None for line in header)
    above = [found[2] for line in header if (found := _PW_TAU_ROW.match(line))]
    if (atoms is not None and below[:n] != above) or below[n:] not in ([], ["End"]):
        return False
    return are_numbered(header, "positions (alat units)", _PW_TAU_ROW, 1, n) and are_numbered(
        [line for line in step if line.strip()], _PW_FORCES, _PW_FORCE_ROW, 1, n
    )


def _pwscf_read(lines: list[str], where: str, walk: str) -> Read:
    from ase.io.espresso import read_espresso_out

    try:
        (image,) = read_espresso_out(io.StringIO("".join(lines)), slice(-1, None))
        return Read(where, *from_atoms(image, walk))
    except TEARS:
        return Read(where, None, TORN)


# --- FHI-aims ---------------------------------------------------------------------------------------------------------

_AIMS_ENERGY: Final = re.compile(r"\| Electronic free energy\s*:\s*(\S+) eV\s*$")
_AIMS_CONVERGED: Final = "Self-consistency cycle converged"
#: What precedes the atoms of a step; the first step has those of the input.
_AIMS_ATOMS: Final = (
    "as used in the preceding time step",
    "Updated atomic structure",
    "was used in the preceding time step",
)
_AIMS_ROW: Final = re.compile(rf"\s*\|\s+(\d+){_XYZ}\s*$")
_AIMS_STRESS: Final = "stress tensor - Symmetrized"
_AIMS_CONSTRAINED: Final = "relaxation constraints were applied"


def read_aims(path: Path) -> Iterator[Read]:
    """Read the steps of an output of FHI-aims.

    Raises
    ------
    ConfigError
        It is not an output of FHI-aims, or has no finished step.
    """
    from ase.io import ParseError
    from ase.io.aims import AimsParseError, get_aims_out_chunks, get_header_chunk

    k = 0
    lines = whole_lines(path)
    try:
        head = get_header_chunk(lines)
        summary = {"initial_atoms": head.initial_atoms, "n_atoms": head.n_atoms, "constraints": []}
    except (*TEARS, ParseError, AimsParseError) as error:
        raise ConfigError(f"{path}: contains no loop of FHI-aims - expected its output - leave it out") from error
    # A short output lacks parts of ASE's own summary (bands, k-points).
    header = SimpleNamespace(is_relaxation=head.is_relaxation, header_summary=summary)
    for chunk in get_aims_out_chunks(lines, header):
        energies = [found[1] for line in chunk.lines if (found := _AIMS_ENERGY.search(line))]
        is_converged = any(_AIMS_CONVERGED in line for line in chunk.lines)
        if not energies and not is_converged and k:
            continue  # what follows the last step
        where = f"{path} step {k}"
        k += 1
        if not is_converged:
            yield Read(where, None, "SCF not converged")
        elif any(_AIMS_CONSTRAINED in line for line in chunk.lines):
            yield Read(where, None, "forces without those on fixed atoms")
        elif k > 1 and not any(words in line for words in _AIMS_ATOMS for line in chunk.lines):
            yield Read(where, None, TORN)  # ASE would use the first atoms instead
        else:
            yield _aims_read(chunk, energies, where, source(path))
    if k == 0:
        raise ConfigError(f"{path}: contains no finished step of FHI-aims - expected its output - leave it out")


def _aims_read(chunk: Any, energies: list[str], where: str, walk: str) -> Read:  # noqa: ANN401 - ASE has no types
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io.aims import AimsParseError

    is_whole = are_numbered(chunk.lines, "Total atomic forces", _AIMS_ROW, 1, chunk.n_atoms)
    is_whole = is_whole and are_symmetric(chunk.lines, _AIMS_STRESS)
    if not is_whole or are_there_twice(chunk.lines, "Total atomic forces", _AIMS_STRESS):
        return Read(where, None, TORN)
    try:
        image, forces, stress = chunk._atoms.copy(), chunk.forces, chunk.stress  # `chunk.atoms` reads bands too
        results = {"energy": float(energies[-1])} if energies else {}
        image.set_constraint()
        image.calc = SinglePointCalculator(image, **results, forces=forces, stress=stress)
        return Read(where, *from_atoms(image, walk))
    except (*TEARS, AimsParseError):
        return Read(where, None, TORN)


# --- GPAW -------------------------------------------------------------------------------------------------------------

#: Lines of a cell: its heading, the names of the columns, three vectors.
_N_GPAW_CELL_LINES: Final = 5
_GPAW_CELL: Final = "Unit cell:\n"
_GPAW_ENERGY: Final = "Energy contributions relative to"
_GPAW_ROW: Final = re.compile(rf"\s*(\d+)\s+[A-Z][a-z]?{_XYZ}\s*(?:\(|$)")
_GPAW_AXIS: Final = re.compile(rf"\s*\d\. axis:\s+(?:yes|no){_XYZ}\s+\d+\s+\d+\.\d+\s*$")


def read_gpaw(path: Path) -> Iterator[Read]:
    """Read the steps of a text output of GPAW.

    Raises
    ------
    ConfigError
        It is not an output of GPAW, or has no finished step.
    """
    k = 0
    n_cells = sum(line == _GPAW_CELL for line in whole_lines(path))
    for block in _gpaw_steps(path):
        if block[:1] != ["Positions:\n"]:
            continue  # the part before the first step
        where = f"{path} step {k}"
        k += 1
        energy = next((i for i, line in enumerate(block) if _GPAW_ENERGY in line), None)
        if energy is None:
            yield Read(where, None, "not finished")
            continue
        is_own = _GPAW_CELL in block[:energy]
        yield _gpaw_read(block, where, source(path)) if is_own or n_cells == 1 else Read(where, None, TORN)
    if k == 0:
        raise ConfigError(f"{path}: contains no energy - expected the text output of a GPAW run - leave it out")


def _gpaw_steps(path: Path) -> Iterator[list[str]]:
    """Yield the lines from one set of positions to the next, with their cell."""
    block, cell = list[str](), list[str]()
    for line in whole_lines(path):
        if line == "Positions:\n":
            yield [*block, *cell]
            block = []
        block.append(line)
        if _GPAW_CELL in block[-_N_GPAW_CELL_LINES:]:
            cell = block[block.index(_GPAW_CELL) :]
    yield [*block, *cell]


def _gpaw_read(block: list[str], where: str, walk: str) -> Read:
    from ase.io.gpaw_out import read_gpaw_out
    from ase.stress import full_3x3_to_voigt_6_stress

    n = len(list(takewhile(_GPAW_ROW.match, block[1:])))
    is_whole = all(are_numbered(block, heading, _GPAW_ROW, 0, n) for heading in ("Positions:", "Forces in eV/Ang:"))
    is_whole = is_whole and are_symmetric(block, "Stress tensor:")
    is_whole = is_whole and all(_GPAW_AXIS.match(line) for line in block if ". axis:" in line)
    if not is_whole or are_there_twice(block, _GPAW_ENERGY, "Stress tensor:", "Forces in eV/Ang:"):
        return Read(where, None, TORN)
    try:
        (image,) = read_gpaw_out(io.StringIO("".join(block)), slice(None))
        results, parts = image.calc.results, image.calc.energy_contributions
        # A correction for dispersion is the same for both energies.
        without = image.calc.parameters.get("uncorrected_energy", results["energy"])
        results["free_energy"] = parts["free energy"] + results["energy"] - without
        if results.get("stress") is not None:
            results["stress"] = full_3x3_to_voigt_6_stress(np.array(results["stress"]))
        return Read(where, *from_atoms(image, walk))
    except TEARS:
        return Read(where, None, TORN)
