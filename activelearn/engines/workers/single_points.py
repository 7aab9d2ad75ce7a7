"""What the workers of codes that run one structure at a time have in common: files, one run, its words, its end.

A worker such as ``espresso_job.py`` is started by path with the path of ``job.json``, carries out the jobs of
answering.py, and runs its code once for each structure, in a folder of its own that nothing was in before. What a run
was worth is decided here, in this order:

* the code was stopped by a time limit of its own: an error, which is infrastructure, since a clock never decides what
  is a label: nothing is published, and the label is tried again in a new folder;
* another version than the declared one, or several runs, wrote the output: an error, as above;
* it says that its electrons did not converge, whatever it returned: refused (SCFError);
* it says that this structure has no answer, such as two atoms at one place: refused (CalculationFailed);
* it returned anything but 0, its last line is missing, or the atoms in the output are not ours: an error, as above;
* it says that the electrons converged, and the steps that it printed are fewer than the limit: only then are the
  numbers read; NaN and stars are refused by answering.py.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from re import Pattern
from typing import Any

import answering  # type: ignore[import-not-found]  # a neighbour, by path
import numpy as np
from ase.calculators.calculator import CalculationFailed, Calculator, SCFError, all_changes

#: Time that a code has to end when it is asked to, s.
GRACE_S = 3.0
#: Number of last lines of an output that are reported if the run did not finish.
N_LAST_LINES = 8

_running: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Code:
    """A code that is run once for each structure.

    Parameters
    ----------
    name
        For messages.
    output
        Where what it says is found, in the folder of a run.
    write
        ``write(folder, atoms, request)`` writes the input and returns the arguments that the command gets.
    read
        ``read(lines, atoms, request)`` returns symbols, whether the code says that it converged, the steps of the
        electronic loop, energy (eV), forces (eV/Å) and stress (eV/Å^3, positive in tension, 3 x 3), as :class:`Said`.
    start
        The line that a run begins with, once; its group is the version.
    end
        The words at the end of a finished run.
    unconverged, impossible, stopped
        What it says of electrons that did not converge, of a structure that has no answer, and of a time limit.
    is_stdout
        Whether the output is its standard output.
    """

    name: str
    output: str
    write: Callable[..., list[str]]
    read: Callable[..., "Said"]
    start: Pattern[str]
    end: str
    unconverged: Pattern[str]
    impossible: Pattern[str]
    stopped: Pattern[str]
    is_stdout: bool = True


@dataclass(frozen=True)
class Said:
    """What an output says; see :class:`Code`. The numbers are asked for when the rest is as it must be."""

    symbols: list[str]
    is_converged: bool
    n_steps: int
    numbers: Callable[[], tuple[float, Any, Any]]


class SinglePoints(Calculator):
    """Energy (free), forces and stress by one run per call."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 - as ASE has it

    def __init__(self, code, request, folder):
        super().__init__()
        self.code, self.request, self.folder, self.n_runs = code, request, folder, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Write the input into a new folder, run, read."""
        super().calculate(atoms, properties, system_changes)
        folder = self.folder / f"run-{self.n_runs}"
        folder.mkdir()
        self.n_runs += 1
        atoms = right_handed(atoms)
        arguments = self.code.write(folder, atoms, self.request)
        return_code = run(self.code, [*self.request["command"], *arguments], folder)
        self.results = read(self.code, folder, atoms, self.request, return_code)
        for path in folder.rglob("*"):  # one by one: the folders go with the job's, which its owner removes
            if path.is_symlink() or not path.is_dir():
                path.unlink()


def right_handed(atoms):
    """Return atoms with a right-handed cell: all vectors reversed, which keeps the lattice and the axes of a mesh."""
    if np.linalg.det(atoms.cell[:]) > 0.0:
        return atoms
    turned = atoms.copy()
    turned.set_cell(-atoms.cell[:])
    return turned


def mesh(cell, spacing, pbc=(True, True, True)):
    """Return k-points along each axis by VASP's rule: one per started `spacing` (1/Å, 2 pi included)."""
    lengths = np.linalg.norm(2.0 * math.pi * np.linalg.inv(np.array(cell)), axis=0)
    return [
        max(1, math.ceil(length / spacing)) if periodic else 1 for length, periodic in zip(lengths, pbc, strict=True)
    ]


def k_points(atoms, request):
    """Return the Gamma-centred mesh of a job: the one that it names, or by its spacing."""
    return list(request["kpoints"] or mesh(atoms.cell[:], request["kspacing_per_A"], atoms.pbc))


def species(atoms):
    """Return the elements in the order in which they come first."""
    return list(dict.fromkeys(atoms.get_chemical_symbols()))


def rows_of(numbers):
    """Return lines of numbers that are read back to the bit."""
    return ["  ".join(f"{x:.17g}" for x in row) for row in numbers]


def run(code, command, folder):
    """Run a code to its end and return what it returned; a program that is not there is an error."""
    screen = folder / (code.output if code.is_stdout else "stdout.txt")
    with screen.open("wb") as said, (folder / "stderr.txt").open("wb") as errors:
        try:
            process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=errors)
        except OSError as error:
            raise RuntimeError(f"{command[0]} cannot be started: {error.strerror}") from error
        _running[:] = [process]
        try:
            return process.wait()
        finally:
            _running.clear()


def read(code, folder, atoms, request, return_code):
    """Return the results of a run, or raise why there are none; see the head of this file."""
    path = folder / code.output
    text = path.read_text(errors="replace") if path.is_file() else ""
    if found := code.stopped.search(text):
        raise RuntimeError(f"{code.name} was stopped: {' '.join(found[0].split())}")
    starts = code.start.findall(text)
    if len(starts) > 1:
        raise RuntimeError(
            f"{len(starts)} runs of {code.name} wrote one output - its processes do not see each other: start "
            "it by the MPI that it was built with"
        )
    if starts and starts[0] != request["version"]:
        raise RuntimeError(
            f"this is {code.name} {starts[0]} - expected {request['version']} ({request['where']}.version)"
        )
    for pattern, kind in ((code.unconverged, SCFError), (code.impossible, CalculationFailed)):
        if found := pattern.search(text):
            raise kind(f"{code.name} says: {' '.join(found[0].split())}")
    if return_code != 0 or code.end not in text or not starts:
        raise RuntimeError(f"{code.name} did not finish (return code {return_code}): {last_words(code, folder)}")
    found = code.read(text.splitlines(), atoms, request)
    if found.symbols != atoms.get_chemical_symbols():
        raise RuntimeError(f"the output of {code.name} is of {found.symbols}, the input is not")
    limit = request["max_scf_steps"]
    if not found.is_converged or not 0 < found.n_steps < limit:
        words = "says that it converged" if found.is_converged else "does not say that it converged"
        raise SCFError(f"the electronic loop took {found.n_steps} steps of at most {limit}, and {code.name} {words}")
    energy, forces, stress = found.numbers()
    voigt = np.array(stress, dtype=np.float64)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    return {"energy": energy, "free_energy": energy, "forces": np.array(forces, dtype=np.float64), "stress": voigt}


def last_words(code, folder):
    """Return the last lines that a code printed, of what it says and of its errors."""
    names = dict.fromkeys((code.output, "stdout.txt", "stderr.txt"))
    texts = [(folder / name).read_text(errors="replace") for name in names if (folder / name).is_file()]
    ends = [[" ".join(line.split()) for line in text.splitlines() if line.strip(" *-=%")] for text in texts]
    return " | ".join(line for lines in ends for line in lines[-N_LAST_LINES:]) or "it printed nothing"


def number(word):
    """Return a number of an output; NaN for the stars that Fortran writes if it has no room."""
    return float("nan") if "*" in word else float(word)


def table(lines, heading, pattern, n):
    """Return the numbers of the first `n` rows below the last line with a heading.

    `pattern` matches a row; its group ``x`` holds the numbers, and ``row``, where it has that, counts from 1.

    Raises
    ------
    RuntimeError
        There is no such heading, or another number of rows.
    """
    begins = [i for i, line in enumerate(lines) if heading in line]
    if not begins:
        raise RuntimeError(f"the output has no '{heading}' - expected forces and stress of every run")
    found: list[list[float]] = []
    for line in lines[begins[-1] + 1 :]:
        match = pattern.match(line)
        if match and len(found) < n:
            row = match.groupdict().get("row")
            if row is not None and int(row) != len(found) + 1:
                break
            found.append([number(word) for word in match["x"].split()])
        elif found:
            break
    if len(found) != n:
        raise RuntimeError(f"the output has {len(found)} rows below '{heading}' - expected {n}")
    return found


def end_with(parent):
    """End the code and this process when the parent is gone: the code is in a session of ours."""
    while os.getppid() == parent:
        time.sleep(0.3)
    for process in _running:  # mpirun, asked, ends its ranks, which have process groups of their own
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
    os.killpg(0, signal.SIGKILL)


def described(request):
    """Return what the dispersion depends on that is added to a code which has none."""
    return {"d3_version": answering.d3_version(request)}


def outliving(end, work):
    """Work in a child with a session of its own, so that a kill of this process (a time-out) reaches the code as well.

    A driver that is killed takes us along, unless a later driver can use its label.

    Parameters
    ----------
    end
        Called in a thread of the child with the pid of this process; ends the child when that is gone.
    work
        Called with the request and the folder of the job, returns the calculator.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's; it ends us
    driver, me, path = os.getppid(), os.getpid(), Path(sys.argv[1])
    request = json.loads(path.read_text())
    begun = answering.begin(request, path.parent)
    child = os.fork()
    if child == 0:
        os.setsid()
        threading.Thread(target=end, args=(me,), daemon=True).start()
        found = answering.answer(request, lambda request: work(request, path.parent), described)
        answering.finish(path, found, begun)
        os._exit(0)
    while os.getppid() == driver or any(one.is_awaited() for one in begun):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            sys.exit(os.waitstatus_to_exitcode(status))
        time.sleep(0.1)
    sys.exit(1)


def loaded(code, request, folder):
    """Return the calculator of a job, with D3 on top for a code that has none."""
    return answering.with_dispersion(SinglePoints(code, request, folder), request.get("d3"))


def main(code):
    """Carry out the job that the command line names."""
    outliving(end_with, lambda request, folder: loaded(code, request, folder))
