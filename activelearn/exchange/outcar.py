"""OUTCARs of VASP, ionic step by ionic step: the numbers by ASE's parsers, what they are worth by ours.

A step is a label if its electronic loop ended before NELM iterations were used up. The line ``aborting loop because
EDIFF is reached`` is no proof: VASP 5.4.4 prints it in both cases. An OUTCAR may hold several runs (put one after the
other with ``cat``), each with atoms and NELM of its own, and steps of VASP's own force field, which are no labels.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from activelearn.errors import ConfigError
from activelearn.exchange.reads import Read, from_atoms, source

#: What VASP takes if NELM is not in the file.
NELM: Final = 60
#: How a file is opened, by the end of its name.
_OPENERS: Final[dict[str, Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}

_RUN: Final = re.compile(r"\s*\bvasp\.\d+\.\d+\.\d")
_ITERATION: Final = re.compile(r"-\s*Iteration\s+(?P<step>\d+|\*+)\(\s*(?P<n>\d+|\*+)\)")
_REACHED: Final = "aborting loop because EDIFF is reached"
_FORCES: Final = "TOTAL-FORCE"
_END: Final = "FREE ENERGIE OF THE ION-ELECTRON SYSTEM"
_ML_END: Final = f"ML {_END}"
#: Lines that follow the heading of the energies and hold them.
_N_ENERGY_LINES: Final = 4


@dataclass
class IonicStep:
    """One ionic step as VASP wrote it.

    Parameters
    ----------
    run
        Which run of the file, from 0.
    header
        What its run wrote before the first electronic iteration.
    lines
        The step itself, from its first iteration to its energy; none of a force field's.
    n_iterations
        Electronic iterations.
    is_reached
        Whether VASP says that EDIFF was reached.
    has_forces
        Whether positions and forces are printed (with NWRITE = 0 those of some steps only).
    is_force_field
        Whether a machine-learned force field made it, not the electrons.
    """

    run: int
    header: list[str]
    lines: list[str] = field(default_factory=list)
    n_iterations: int = 0
    is_reached: bool = False
    has_forces: bool = False
    is_force_field: bool = False
    _n_left: int = 0  # lines of the energies that are still to come, once they have begun

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
        """Return an integer tag as the run printed it; of several the last, which VASP worked with."""
        found = re.findall(rf"\b{name}\s*=\s*(\d+)", "".join(line for line in self.header if name in line))
        return int(found[-1]) if found else default

    @property
    def reason(self) -> str | None:
        """Why it is no label, or None."""
        if self.is_force_field:
            return "of a machine-learned force field"
        if not self.is_reached or self.n_iterations >= self.tag("NELM", NELM):
            return "SCF not converged"
        if not self.has_forces:
            return "no forces"
        return "only the trace of the stress" if self.tag("ISIF", 2) == 1 else None


def read_outcar(path: Path) -> Iterator[Read]:
    """Read the ionic steps of VASP; the energy is TOTEN, the free energy that the forces belong to.

    Raises
    ------
    ConfigError
        There is no finished ionic step in it.
    """
    from ase.io.vasp_parsers.vasp_outcar_parsers import OutcarChunkParser, OutcarHeaderParser

    parser, run, k = None, -1, -1
    with _OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8", errors="replace") as lines:
        for k, step in enumerate(steps(lines)):
            where = f"{path} step {k}"
            if step.reason is not None:
                yield Read(where, None, step.reason)
                continue
            if parser is None or step.run != run:
                run, parser = step.run, OutcarChunkParser(OutcarHeaderParser().build(step.header))
            yield Read(where, *from_atoms(parser.build(step.lines), source(path, f"#{run + 1}" if run else "")))
    if k < 0:
        raise ConfigError(f"{path}: no finished ionic step in it - wanted an OUTCAR of a run - leave it out")


def steps(lines: Iterable[str]) -> Iterator[IonicStep]:
    """Yield the finished ionic steps of an OUTCAR, those of a force field too; one that breaks off is passed over."""
    run, header, step = 0, list[str](), None
    is_header = True
    for line in lines:
        if _RUN.match(line) or (not is_header and _RUN.search(line)):  # behind the rest of a line, if a kill cut it
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
            step = step or IonicStep(run, header)
            n = iteration["n"]  # stars, if Fortran had no room
            step.n_iterations = int(n) if n.isdigit() else step.n_iterations + 1
        if step is None or is_ml_end:
            continue
        if step.take(line):
            yield step
            step = None
