"""Several walks in one LAMMPS process: models are loaded once, and every walk is bitwise identical to one run alone.

Loading four models and their first step cost more than a walk of 200 steps. One input thus continues from walk to walk:
the atoms are deleted, the box becomes that of the next ``conf.lmp``, and its atoms are added. The first walk starts in
the same way, in an empty box. This makes results bitwise identical: to add atoms, ``read_data`` converts coordinates to
fractions of the cell and back, which differs in the last digit from reading without a box.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from activelearn.config import Stage
from activelearn.engines import backends, lammps
from activelearn.engines.lammps import Drive, WalkOutput
from activelearn.engines.process import Slot
from activelearn.errors import EngineError, Interrupted
from activelearn.frames import FloatArray


@dataclass(frozen=True, eq=False)
class Walk:
    """One of several walks; see :func:`activelearn.engines.lammps.write_data` for the ``conf.lmp`` in its folder.

    Parameters
    ----------
    folder
        Its own folder, with a plain name, next to those of the others; the models are linked there.
    stage, drive
        Its conditions.
    cell
        (3, 3) initial LAMMPS cell, Å.
    n_atoms
        Number of atoms.
    """

    folder: Path
    stage: Stage
    drive: Drive
    cell: FloatArray
    n_atoms: int

    @property
    def last_row(self) -> int:
        """The last written step."""
        n_steps = lammps.steps_of(self.stage, self.drive)
        return n_steps - n_steps % self.stage.every

    @property
    def log(self) -> Path:
        """The file that LAMMPS opens when the previous walk has ended."""
        return self.folder / "log.lammps"


def may_share(stage: Stage, pair: Sequence[str]) -> bool:
    """Return whether a walk of a stage, with these lines for the ensemble, may share a process with others.

    The user's lines would persist in later walks, and models must be bitwise reproducible in later walks.
    """
    return not stage.lammps.strip() and backends.of_lines(pair).is_stateless


def run_walks(
    walks: Sequence[Walk], pair: Sequence[str], n_types: int, slot: Slot
) -> Iterator[tuple[WalkOutput, float, float]]:
    """Run walks in order; yield each with the Unix times at which it started and finished.

    A walk that failed physically has ended LAMMPS, too: later walks continue in a new process.

    Parameters
    ----------
    walks
        The walks to run.
    pair
        The lines that declare the ensemble, which writes its deviation to ``model_devi.out``.
    n_types
        Number of atom types.
    slot
        Where they run.

    Raises
    ------
    EngineError
        See :func:`activelearn.engines.lammps.run_walk`; for the first walk that was not yielded.
    Interrupted
        A stop was requested; completed walks have been yielded.
    """
    left = list(walks)
    while left:
        for found in _process(left, pair, n_types, slot):
            yield found
            left = left[1:]


def _process(
    walks: Sequence[Walk], pair: Sequence[str], n_types: int, slot: Slot
) -> Iterator[tuple[WalkOutput, float, float]]:
    """Run walks in one process, in the folder of the first; yield the completed ones."""
    folder, code = walks[0].folder, 0
    failure: EngineError | Interrupted | None = None
    started = time.time()
    try:
        code = lammps.run_input(folder, input_of(walks, pair, n_types), slot, n_walks=len(walks))
    except (EngineError, Interrupted) as error:  # a time-out, a dead session, a stop: the walks before it are complete
        failure = error
    finished = time.time()
    n_begun = len(walks) if failure is None and code == 0 else max(1, sum(walk.log.is_file() for walk in walks))
    begun = walks[:n_begun]
    _share_out(folder, begun)
    times = [started, *_ends(begun, started, finished)]
    for i, walk in enumerate(begun):
        is_last = i == n_begun - 1
        code_of_it = code if is_last else 0
        try:
            if failure is not None and is_last:
                raise _failure_of(walk, failure, len(walks))
            found = lammps.read_walk(walk.folder, return_code=code_of_it, n_steps=walk.last_row, n_atoms=walk.n_atoms)
        except EngineError:  # to find the cause, this walk is run alone, with identical results
            (walk.folder / "in.lammps").write_text(input_of([walk], pair, n_types), encoding="utf-8")
            raise
        yield found, times[i], times[i + 1]


def _failure_of(walk: Walk, error: EngineError | Interrupted, n_walks: int) -> EngineError | Interrupted:
    """Return the error of a process as that of its current walk, whose folder is kept."""
    if isinstance(error, Interrupted) or n_walks == 1:
        return error
    what = f"{str(error).splitlines()[0]} - {n_walks} walks in one process, with walk_timeout_s for each"
    return EngineError(what, command=["lmp", "-in", "in.lammps"], folder=walk.folder, tail=error.tail)


def _ends(walks: Sequence[Walk], started: float, finished: float) -> list[float]:
    """Return the end times of walks, by the clock of their logs, within the lifetime of their process."""
    ends = [walk.log.stat().st_mtime for walk in walks[:-1] if walk.log.is_file()]
    ends += [finished] * (len(walks) - len(ends))
    return [float(end) for end in np.maximum.accumulate(np.clip(ends, started, finished))]


def _share_out(folder: Path, walks: Sequence[Walk]) -> None:
    """Give each walk its rows of the common ``model_devi.out``, and the last one the output of the process.

    A walk starts at its row of step 0. Rows lost to a full disk are the last ones.
    """
    if len(walks) == 1:
        return
    path = folder / "model_devi.out"
    head: list[str] = []
    parts: list[list[str]] = []
    for line in path.read_text(errors="replace").splitlines(keepends=True) if path.is_file() else ():
        words = line.split()
        if words[:1] == ["0"]:
            parts.append([])
        (parts[-1] if parts else head).append(line)
    for i, walk in enumerate(walks):
        (walk.folder / path.name).write_text("".join([*head, *(parts[i] if i < len(parts) else [])]))
    if (folder / "lammps.out").is_file():
        shutil.copyfile(folder / "lammps.out", walks[-1].folder / "lammps.out")


def input_of(walks: Sequence[Walk], pair: Sequence[str], n_types: int) -> str:
    """Return the input of walks; it runs in the folder of the first, with paths of the others relative to it.

    The initial box has no meaning; it only declares the atom types.
    """
    head = [
        "units           metal",
        "boundary        p p p",
        backends.atom_style(pair),
        "box             tilt large",
        "region          empty prism 0 1 0 1 0 1 0 0 0 units box",
        f"create_box      {n_types} empty",
        "neighbor        1.0 bin",
        *pair,
    ]
    parts = [_lines_of(walk, "" if i == 0 else f"../{walk.folder.name}/") for i, walk in enumerate(walks)]
    for part, walk in zip(parts[1:], walks, strict=False):
        part[:0] = _ending(walk)
    return "\n".join([*head, *(line for part in parts for line in part), ""])


def _lines_of(walk: Walk, place: str) -> list[str]:
    """Return the lines of one walk with its files below `place` (empty: where LAMMPS runs)."""
    stage, drive = walk.stage, walk.drive
    (xx, _, _), (xy, yy, _), (xz, yz, zz) = walk.cell
    lengths = " ".join(f"{axis} final 0 {length:.17g}" for axis, length in zip("xyz", (xx, yy, zz), strict=True))
    return [
        *([f"log             {place}log.lammps"] if place else []),
        f"# one walk of stage {stage.name}",
        f"change_box      all {lengths} xy final {xy:.17g} xz final {xz:.17g} yz final {yz:.17g} units box",
        "reset_timestep  0",
        f"read_data       {place}conf.lmp add append",
        *lammps.walk_lines(stage, drive, place=place),
        lammps.run_line(stage, drive),
    ]


def _ending(walk: Walk) -> list[str]:
    """Return the lines that remove a walk, leaving the models and an empty box."""
    fixes = [line.split()[1] for line in lammps.dynamics_of(walk.stage, walk.drive)]
    return [
        "undump          walk",
        *(f"unfix           {name}" for name in fixes),
        "delete_atoms    group all compress yes",
    ]
