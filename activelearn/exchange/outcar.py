"""OUTCARs of VASP, ionic step by ionic step: numbers by ASE's parsers, validity by ours.

A step is a label if its electronic loop ended before NELM iterations were used up. The line ``aborting loop because
EDIFF is reached`` is no proof: VASP 5.4.4 prints it in both cases. An OUTCAR may hold several runs (concatenated
with ``cat``), each with its own atoms and NELM, and steps of VASP's own force field, which are not labels.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from activelearn.errors import ConfigError
from activelearn.exchange.reads import Read, from_atoms, source
from activelearn.structures import opened

#: VASP's default if NELM is not in the file.
NELM: Final = 60

_RUN: Final = re.compile(r"\s*\bvasp\.\d+\.\d+\.\d")
_ITERATION: Final = re.compile(r"-\s*Iteration\s+(?P<step>\d+|\*+)\(\s*(?P<n>\d+|\*+)\)")
_REACHED: Final = "aborting loop because EDIFF is reached"
_CELL: Final = "direct lattice vectors"
#: Rows of numbers with nine decimals, of cells up to hundreds of Å: direct times reciprocal is one to within this.
_RECIPROCAL: Final = 1.0e-3
_SIGN: Final = re.compile(r"(\d)-")
_RULE: Final = re.compile(r"\s*-{10,}")
_FORCES: Final = "TOTAL-FORCE"
_END: Final = "FREE ENERGIE OF THE ION-ELECTRON SYSTEM"
_ML_END: Final = f"ML {_END}"
#: Lines that follow the heading of the energies and hold them.
_N_ENERGY_LINES: Final = 4


@dataclass
class IonicStep:
    """One ionic step as written by VASP.

    Parameters
    ----------
    run
        Which run of the file, from 0.
    header
        What its run wrote before the first electronic iteration.
    lines
        The step itself, from its first iteration to its energy; empty for a force field's.
    n_iterations
        Electronic iterations.
    is_reached
        Whether VASP says that EDIFF was reached.
    has_forces
        Whether positions and forces are printed (with NWRITE = 0 those of some steps only).
    is_force_field
        Whether it is from a machine-learned force field, not from DFT.
    is_torn
        Whether it is incomplete.
    number
        Number of the ionic step, as counted by VASP; empty if not known.
    """

    run: int
    header: list[str]
    lines: list[str] = field(default_factory=list)
    n_iterations: int = 0
    is_reached: bool = False
    has_forces: bool = False
    is_force_field: bool = False
    is_torn: bool = False
    number: str = ""
    _n_left: int = 0  # remaining lines of the energies, once they have started

    def take(self, line: str) -> bool:
        """Add a line; return whether it is the last one of the step."""
        self.lines.append(line)
        self.is_reached |= _REACHED in line
        self.has_forces |= _FORCES in line
        if _END in line:
            self._n_left = _N_ENERGY_LINES
            return False
        self._n_left -= 1
        return self._n_left == 0

    def tag(self, name: str, default: int) -> int:
        """Return an integer tag as the run printed it; the last of several, which VASP used."""
        found = re.findall(rf"\b{name}\s*=\s*(\d+)", "".join(line for line in self.header if name in line))
        return int(found[-1]) if found else default

    def damage(self, n_atoms: int) -> str | None:
        """Return which of its blocks is incomplete, or None, since the parser accepts any lines after a heading."""
        atoms = self._numbers(_FORCES, 2)
        if len(atoms) != n_atoms:
            return f"{len(atoms)} rows of positions for {n_atoms} atoms"
        widths = sorted({len(row) for row in atoms})
        if len(widths) > 1 or widths[0] % 3:
            return f"rows of {' and '.join(map(str, widths))} columns for positions and forces"
        try:
            cell = np.array(self._numbers(_CELL, 1), dtype=np.float64)
        except ValueError:
            cell = np.zeros((0, 6))
        if cell.shape != (3, 6) or np.abs(cell[:, :3] @ cell[:, 3:].T - np.eye(3)).max() > _RECIPROCAL:
            return "lattice vectors that do not match the reciprocal ones"
        return None if "TOTEN" in self._block(_END, 2)[0] else "no TOTEN where it should be"

    def _numbers(self, heading: str, skip: int) -> list[list[str]]:
        return [_SIGN.sub(r"\1 -", line).split() for line in self._block(heading, skip)]

    def _block(self, heading: str, skip: int) -> list[str]:
        """Return the rows of the last block of this heading: up to a rule or an empty line."""
        start = max((k + skip for k, line in enumerate(self.lines) if heading in line), default=len(self.lines))
        return list(itertools.takewhile(lambda line: line.strip() and not _RULE.match(line), self.lines[start:])) or [
            ""
        ]

    @property
    def reason(self) -> str | None:
        """Why it is not a label, or None."""
        if self.is_torn:
            return "not finished"
        if self.is_force_field:
            return "of a machine-learned force field"
        if not self.is_reached or self.n_iterations >= self.tag("NELM", NELM):
            return "SCF not converged"
        if not self.has_forces:
            return "no forces"
        return "only the trace of the stress" if self.tag("ISIF", 2) == 1 else None


def read_outcar(path: Path) -> Iterator[Read]:
    """Read the ionic steps of VASP; the energy is TOTEN, the free energy that is consistent with the forces.

    Raises
    ------
    ConfigError
        There is no finished ionic step in it.
    """
    from ase.io.vasp_parsers.vasp_outcar_parsers import OutcarChunkParser

    parser, run, n_finished = None, -1, 0
    with opened(path) as lines:
        for k, step in enumerate(steps(lines)):
            where, n_finished = f"{path} step {k}", n_finished + (not step.is_torn)
            if step.reason is not None:
                yield Read(where, None, step.reason)
                continue
            if parser is None or step.run != run:
                run, header = step.run, _header(path, step.header)
                parser = OutcarChunkParser(header)
            if (damage := step.damage(header["natoms"])) is not None:
                yield Read(f"{where}: {damage}", None, "damaged")
                continue
            try:
                image = parser.build(step.lines)
            except Exception as error:  # noqa: BLE001 - of ASE's parser: any kind
                yield Read(f"{where}: {error}", None, "damaged")
                continue
            yield Read(where, *from_atoms(image, source(path, f"#{run + 1}" if run else "")))
    if n_finished == 0:
        raise ConfigError(f"{path}: contains no finished ionic step - expected an OUTCAR of a run - leave it out")


def _header(path: Path, lines: list[str]) -> dict[str, Any]:
    """Return the atoms of a run from its header, checked for consistency and with the POSCAR next to it."""
    from ase.io.vasp_parsers.vasp_outcar_parsers import OutcarHeaderParser

    titles = [line.split(":", 1)[1].strip() for line in lines if line.lstrip().startswith("POTCAR:")]
    half = len(titles) // 2
    if titles[:half] != titles[half:]:
        raise ConfigError(
            f"{path}: its POTCARs are {'; '.join(titles)} - expected the same list twice, as written by VASP - leave "
            "it out"
        )
    try:
        header: dict[str, Any] = OutcarHeaderParser().build(lines)
    except Exception as error:
        raise ConfigError(
            f"{path}: its header does not define its atoms ({error}) - expected as many POTCARs as ions per type "
            "- leave it out; nothing was imported"
        ) from error
    symbols = header["symbols"]
    elements = re.findall(r"VRHFIN\s*=\s*([A-Z][a-z]?)", "".join(line for line in lines if "VRHFIN" in line))
    kinds, others = ([kind for kind, _ in _blocks(names, [1] * len(names))] for names in (symbols, elements))
    if elements and kinds != others:
        raise ConfigError(
            f"{path}: its POTCARs have the titles of {' '.join(kinds)}, but VRHFIN of {' '.join(others)} - expected "
            "the same elements in the same order - leave it out; nothing was imported"
        )
    declared = re.search(r"NIONS\s*=\s*(\d+)", "".join(line for line in lines if "NIONS" in line))
    if declared and int(declared[1]) != len(symbols):
        raise ConfigError(
            f"{path}: NIONS = {declared[1]}, but ions per type add up to {len(symbols)} - expected the same number - "
            "leave it out; nothing was imported"
        )
    ours = _blocks(symbols, [1] * len(symbols))
    for name in ("POSCAR", "CONTCAR"):
        theirs = _poscar_blocks(path.absolute().parent / name)
        is_same_system = Counter(dict(ours)) == Counter(dict(theirs)) or [n for _, n in ours] == [n for _, n in theirs]
        if theirs and theirs != ours and is_same_system:
            raise ConfigError(
                f"{path}: its POTCARs are those of {_words(ours)}, but {name} next to it has {_words(theirs)} - "
                "expected the same atoms in the same order, since VASP identifies them by the POTCARs - compute it "
                "again, or import it from another folder if the two do not belong together"
            )
    return header


def _blocks(kinds: Iterable[str], numbers: Iterable[int]) -> list[tuple[str, int]]:
    """Return elements with their numbers of atoms, adjacent ones of one element as one block."""
    pairs = itertools.groupby(zip(kinds, numbers, strict=True), key=lambda pair: pair[0])
    return [(kind, sum(n for _, n in group)) for kind, group in pairs]


def _words(blocks: Iterable[tuple[str, int]]) -> str:
    return " ".join(f"{kind}{n}" for kind, n in blocks)


def _poscar_blocks(path: Path) -> list[tuple[str, int]]:
    """Return the elements of lines 6 and 7 of a POSCAR; empty if not given (VASP 4, a truncated file)."""
    try:
        with opened(path) as lines:
            kinds, numbers = (line.split() for line in itertools.islice(lines, 5, 7))
        return _blocks([kind.split("_")[0].split("/")[0] for kind in kinds], [int(n) for n in numbers])
    except (OSError, ValueError):
        return []


def steps(lines: Iterable[str]) -> Iterator[IonicStep]:
    """Yield the ionic steps of an OUTCAR, including those of a force field and incomplete ones."""
    run, header, step = 0, list[str](), None
    is_header = True
    for line in lines:
        if _RUN.match(line) or (not is_header and _RUN.search(line)):  # after the rest of a line truncated by a kill
            yield from _torn(step)
            run, header, step, is_header = run + (not is_header), [], None, True
        iteration, is_ml_end = _ITERATION.search(line), _ML_END in line
        is_header = is_header and iteration is None and not is_ml_end
        if is_header:
            header.append(line)
        elif is_ml_end:
            yield IonicStep(run, header, is_force_field=True)
            if step is not None:
                step.lines.clear()  # of them, some are the force field's
        elif iteration:
            if step is not None and step.number != iteration["step"]:
                yield from _torn(step)
                step = None
            step = step or IonicStep(run, header, number=iteration["step"])
            n = iteration["n"]  # asterisks on Fortran overflow
            step.n_iterations = int(n) if n.isdigit() else step.n_iterations + 1
        if step is None or is_ml_end:
            continue
        if step.take(line):
            yield step
            step = None
    yield from _torn(step)


def _torn(step: IonicStep | None) -> Iterator[IonicStep]:
    if step is not None:
        step.is_torn = True
        yield step
