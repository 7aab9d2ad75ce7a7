"""LAMMPS: writes the input of a walk, runs it, and reads the output.

Signatures of failure (measured): lost atoms end with return code 1 after valid rows; a walk far too hot
ends with return code 0; normal-looking rows may follow a NaN row. A walk is therefore cut at its first non-finite or
missing row, whatever the return code says. A crash by signal (-11, or 245 through the `lmp` wrapper) is infrastructure.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from activelearn.config import Condition, Stage
from activelearn.engines import backends, deepmd
from activelearn.engines.process import Slot, run_command, tail_of
from activelearn.errors import EngineError
from activelearn.frames import FloatArray, Frames, masses_of

#: Messages of LAMMPS when the physics, not the machine, has failed.
PHYSICAL_ERRORS: Final = (
    "Lost atoms",
    "Non-numeric",
    "Out of range atoms",
    "Atom coords are out of range",
    "Simulation domain is invalid",
    "Box bounds are invalid",
    "Fix npt/nph has tilted box too far",
    "not numeric",
    "box too small",
    "Too many neighbor bins",
    "Neighbor list overflow",
    "Cannot create neighbor list",
)
#: The fix that stores the forces of the model, since fixes of a stage may change those of the atoms.
OF_MODEL: Final = "model_forces"
#: Random numbers of fixes (Marsaglia) need a seed up to 900,000,000.
LARGEST_SEED: Final = 899_999_999
#: Smallest plausible height and largest plausible edge of a cell of a frame, Å.
LOWEST_A, LONGEST_A = 0.1, 1e5
#: Header of each frame of a dump, except the step and the numbers.
_HEADS: Final = re.compile(
    "ITEM: TIMESTEP\nITEM: NUMBER OF ATOMS\n[0-9]+\nITEM: BOX BOUNDS( xy xz yz)? pp pp pp\n"
    "ITEM: ATOMS id type x y z (f|v)x \\2y \\2z ?"
)
_DEVIATION: Final = ("step", "max_devi_v", "min_devi_v", "avg_devi_v", "max_devi_f", "min_devi_f", "avg_devi_f")
#: The column of the deviation of the first atom, before those of the others, which have no names.
_OF_ATOMS: Final = "atm_devi_f(N)"
_THERMO: Final = ("step", "temp", "pe", "press", "vol")


@dataclass(frozen=True, eq=False)
class WalkOutput:
    """The valid part of a walk: n rows, all finite, in step order.

    Parameters
    ----------
    step
        (n,) LAMMPS steps.
    max_devi_f
        (n,) force deviation of the ensemble, eV/Å; NaN if not written by LAMMPS.
    temperature_K, potential_energy, pressure_bar
        (n,) thermodynamic output (K, eV, bar in LAMMPS' sign: positive in compression).
    cell, positions
        (n, 3, 3) and (n, n_atoms, 3), Å; atoms wrapped into the cell, in the order of the start.
    forces
        (n, n_atoms, 3) forces of the model that drives the walk, eV/Å.
    ended
        ``finished``, or why the walk ended before its last step.
    log_tail
        Last lines of the log if it did not finish.
    devi_f
        (n, n_atoms) force deviation of each atom, whose largest is `max_devi_f`, eV/Å; None: not written.
    """

    step: NDArray[np.int64]
    max_devi_f: FloatArray
    temperature_K: FloatArray
    potential_energy: FloatArray
    pressure_bar: FloatArray
    cell: FloatArray
    positions: FloatArray
    forces: FloatArray
    ended: str
    log_tail: tuple[str, ...] = ()
    devi_f: FloatArray | None = None

    def until(self, n: int, ended: str) -> WalkOutput:
        """Return the first n rows, with the reason for ending there."""
        rows = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _OF_THE_END}
        rows = {name: None if row is None else row[:n] for name, row in rows.items()}
        return WalkOutput(**rows, ended=ended, log_tail=self.log_tail)


#: Fields of a walk that are not arrays of rows.
_OF_THE_END: Final = frozenset({"ended", "log_tail"})


def lower_triangular(cell: FloatArray, positions: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Rotate a cell into LAMMPS' frame (a along x, b in the xy plane), atoms along with it.

    Parameters
    ----------
    cell
        (3, 3) lattice vectors as rows, Å.
    positions
        (n_atoms, 3), Å.

    Returns
    -------
    cell, positions
        (3, 3) lower-triangular and (n_atoms, 3), Å.

    Raises
    ------
    ValueError
        The cell is left-handed.
    """
    if np.linalg.det(cell) <= 0:
        raise ValueError("a left-handed or flat cell cannot be given to LAMMPS; swap two lattice vectors")
    q, r = np.linalg.qr(cell.T)
    signs = np.sign(np.diag(r))
    rotated = (r * signs[:, None]).T
    return rotated * np.tri(3), positions @ (q * signs)


def write_data(path: Path, frame: Frames, type_map: Sequence[str], velocities: FloatArray | None = None) -> FloatArray:
    """Write one frame as a LAMMPS data file in full float64 precision; return the (3, 3) cell that LAMMPS gets, Å.

    Velocities (n_atoms, 3), Å/ps, are rotated along with the cell.
    """
    cell, positions = lower_triangular(frame.cell[0], frame.positions[0])
    (xx, _, _), (xy, yy, _), (xz, yz, zz) = cell
    lines = ["activelearn", "", f"{frame.n_atoms} atoms", f"{len(type_map)} atom types", ""]
    lines += [f"0 {length:.17g} {axis}lo {axis}hi" for axis, length in zip("xyz", (xx, yy, zz), strict=True)]
    lines += [f"{xy:.17g} {xz:.17g} {yz:.17g} xy xz yz", "", "Masses", ""]
    masses = zip(type_map, masses_of(type_map), strict=True)
    lines += [f"{i} {mass:.6f}  # {kind}" for i, (kind, mass) in enumerate(masses, 1)]
    lines += ["", "Atoms  # atomic", ""]
    for i, (symbol, (x, y, z)) in enumerate(zip(frame.symbols, positions, strict=True), 1):
        lines.append(f"{i} {list(type_map).index(symbol) + 1} {x:.17g} {y:.17g} {z:.17g}")
    if velocities is not None:
        rotated = lower_triangular(frame.cell[0], velocities)[1]
        lines += ["", "Velocities", "", *(f"{i} {x:.17g} {y:.17g} {z:.17g}" for i, (x, y, z) in enumerate(rotated, 1))]
    path.write_text("\n".join(lines) + "\n")
    return cell


@dataclass(frozen=True)
class Drive:
    """Conditions of one walk.

    Parameters
    ----------
    condition
        The cell of the stage's matrix.
    velocity_seed
        Random seed of the initial velocities.
    final_cell
        (3, 3) LAMMPS cell (:func:`lower_triangular`) that a deformation reaches after the stage's `n_steps`, Å; None
        if the cell is not driven.
    last_step
        Last step before the driven cell violates the guards; None: the end of the walk.
    """

    condition: Condition
    velocity_seed: int
    final_cell: FloatArray | None = None
    last_step: int | None = None


@dataclass(frozen=True)
class WalkInput:
    """The LAMMPS input of one walk.

    Parameters
    ----------
    text
        The input text.
    every
        Steps between written rows.
    n_steps
        Steps that it runs.
    has_deviation
        Whether ``model_devi.out`` is written.
    """

    text: str
    every: int
    n_steps: int
    has_deviation: bool = True

    @property
    def last_row(self) -> int:
        """The last step that is written."""
        return self.n_steps - self.n_steps % self.every


def walk_input(stage: Stage, drive: Drive, pair: Sequence[str], *, has_deviation: bool = True) -> WalkInput:
    """Return the LAMMPS input of one walk; see :func:`write_data` for its ``conf.lmp``.

    Parameters
    ----------
    stage, drive
        Its conditions.
    pair
        The lines that declare the ensemble (:meth:`activelearn.config.Trainer.pair`).
    has_deviation
        Whether they write the force deviation to ``model_devi.out``.
    """
    text = input_of(stage, drive, pair, run_line(stage, drive))
    return WalkInput(text, stage.every, steps_of(stage, drive), has_deviation)


def steps_of(stage: Stage, drive: Drive) -> int:
    """Return the steps that a walk runs."""
    return stage.n_steps if drive.last_step is None else min(drive.last_step, stage.n_steps)


def run_line(stage: Stage, drive: Drive) -> str:
    """Return the command that runs a walk; if it ends early, ramps and strains are those of the whole walk."""
    n_steps = steps_of(stage, drive)
    return f"run             {n_steps}" + (f" start 0 stop {stage.n_steps}" if n_steps < stage.n_steps else "")


def input_of(stage: Stage, drive: Drive, pair: Sequence[str], run: str) -> str:
    """Return the input of a walk with any potential, and any command that runs it."""
    potential = "\n".join(pair)
    walk = "\n".join(walk_lines(stage, drive))
    return f"""# one walk of stage {stage.name}
units           metal
boundary        p p p
{backends.atom_style(pair)}
box             tilt large
read_data       conf.lmp
neighbor        1.0 bin
{potential}
{walk}
{run}
"""


def walk_lines(stage: Stage, drive: Drive, place: str = "") -> list[str]:
    """Return the lines of a walk between atoms and run; its dump is written below `place`."""
    lines = [*_variables(stage, drive), *dynamics_of(stage, drive), *stage.lammps.splitlines()]
    forces, named = "fx fy fz", ""
    if stage.lammps.strip():  # of the potential, without what thermostats and forces of the user's lines add
        lines.insert(0, f"fix {OF_MODEL} all store/force")
        forces = " ".join(f"f_{OF_MODEL}[{k}]" for k in (1, 2, 3))
        named = " colname 6 fx colname 7 fy colname 8 fz"
    return [
        f"velocity        all create {drive.condition.temperature_K:g} {drive.velocity_seed} dist gaussian mom yes",
        f"timestep        {stage.timestep_fs / 1000.0:g}",
        *lines,
        f"thermo          {stage.every}",
        "thermo_style    custom step temp pe press vol",
        "thermo_modify   flush yes",
        f"dump            walk all custom {stage.every} {place}walk.lammpstrj id type x y z {forces}",
        f"dump_modify     walk sort id format float %.17g flush yes{named}",
    ]


def dynamics_of(stage: Stage, drive: Drive) -> list[str]:
    """Return the fixes of the stage's ensemble; a custom ensemble has its own."""
    if stage.ensemble == "custom":
        return []
    start_K, to_K, pressure_bar = drive.condition[:3]
    end_K = start_K if to_K is None else to_K
    fix = f"fix dynamics all nvt temp {start_K:g} {end_K:g} {stage.temperature_damping_ps:g}"
    if pressure_bar is not None:
        mode = stage.ensemble.removeprefix("npt-")
        fix = fix.replace(" nvt ", " npt ")
        fix += f" {mode} {pressure_bar:g} {pressure_bar:g} {stage.pressure_damping_ps:g}"
    if drive.final_cell is None:
        return [fix]
    # All six box parameters together: `fix deform x` alone would keep the tilts, and the strain would not be uniaxial.
    (xx, _, _), (xy, yy, _), (xz, yz, zz) = drive.final_cell
    lengths = " ".join(f"{axis} final 0 {length:.17g}" for axis, length in zip("xyz", (xx, yy, zz), strict=True))
    tilts = f"xy final {xy:.17g} xz final {xz:.17g} yz final {yz:.17g}"
    return [f"fix strain all deform 1 {lengths} {tilts} remap x units box flip no", fix]


def _variables(stage: Stage, drive: Drive) -> list[str]:
    """Return the variables that the user's lines may refer to."""
    if not stage.lammps:
        return []
    condition = drive.condition
    values = {
        "temperature": condition.temperature_K,
        "to_temperature": condition.temperature_K if condition.to_temperature_K is None else condition.to_temperature_K,
        "pressure": condition.pressure_bar or 0.0,
        "timestep": stage.timestep_fs / 1000.0,
        "n_steps": stage.n_steps,
        "every": stage.every,
        "seed": 1 + drive.velocity_seed % LARGEST_SEED,
    }
    return [f"variable        {name} index {value:.10g}" for name, value in values.items()]


def timed_walk(folder: Path, what: WalkInput, symbols: Sequence[str], slot: Slot) -> tuple[WalkOutput, float, float]:
    """Return :func:`run_walk` with the Unix times at which the engine started and finished."""
    started = time.time()
    walk = run_walk(folder, what, symbols, slot)
    return walk, started, time.time()


def run_walk(folder: Path, what: WalkInput, symbols: Sequence[str], slot: Slot) -> WalkOutput:
    """Run an input in `folder` (its ``conf.lmp`` is there) and read the walk.

    Raises
    ------
    EngineError
        LAMMPS crashed, took too long, or stopped with an error that is not the physics'.
    """
    code = run_input(folder, what.text, slot)
    return read_walk(
        folder, return_code=code, n_steps=what.last_row, n_atoms=len(symbols), has_deviation=what.has_deviation
    )


def run_input(folder: Path, text: str, slot: Slot, *, n_walks: int = 1) -> int:
    """Run an input of `n` walks as ``in.lammps`` of `folder`; return the return code (negative: a signal)."""
    (folder / "in.lammps").write_text(text, encoding="utf-8")
    machine, timeout_s = slot.machine, slot.machine.walk_timeout_s * n_walks
    if machine.lammps is None:
        job = {"job": "lammps", "input": "in.lammps"}
        backend = backends.of_lines(text.splitlines())
        return deepmd.run_job(job, folder, "lammps.out", slot, timeout_s=timeout_s, backend=backend)
    command = [*shlex.split(machine.lammps), "-in", "in.lammps", "-log", "log.lammps", "-screen", "none"]
    log = folder / "lammps.out"
    return run_command(command, folder, log=log, timeout_s=timeout_s, slot=slot).return_code


def read_walk(folder: Path, *, return_code: int, n_steps: int, n_atoms: int, has_deviation: bool = True) -> WalkOutput:
    """Read ``log.lammps``, ``model_devi.out`` and ``walk.lammpstrj`` up to the first incomplete row.

    `n_steps` is the last written step; without `has_deviation` there is no ``model_devi.out``. A walk that
    LAMMPS reports as finished but whose finite rows end earlier was truncated by the machine (a
    full disk), not by the physics.

    Raises
    ------
    EngineError
        See :func:`run_walk`.
    """
    tail = log_tail(folder)
    reason = why_ended(return_code, tail, folder)
    thermo = read_thermo(folder / "log.lammps")
    rows_of_deviation = _deviation_rows(folder / "model_devi.out", n_atoms) if has_deviation else {}
    of_frames = {step: row[0] for step, row in rows_of_deviation.items()}
    deviation = of_frames if has_deviation else dict.fromkeys(thermo, np.nan)
    steps, cell, positions, forces = read_dump(folder / "walk.lammpstrj", n_atoms)
    good: list[int] = []
    is_finite = True
    expected = sorted(thermo.keys() & deviation.keys())
    for i, (step, due) in enumerate(zip(steps, expected, strict=False)):
        if step != due or not np.isclose(np.linalg.det(cell[i]), thermo[due][3], rtol=1e-5, equal_nan=True):
            break  # one of the three lacks it, or the log has another cell
        row = [*thermo[int(step)], *([deviation[int(step)]] if has_deviation else [])]
        is_finite = bool(np.isfinite(row).all() and all(np.isfinite(a[i]).all() for a in (positions, cell, forces)))
        if not is_finite:
            break
        good.append(i)
    steps = steps[good]
    if reason == "finished" and (len(steps) == 0 or steps[-1] != n_steps):
        if is_finite:
            raise EngineError(
                "LAMMPS finished, but its output is truncated (is the disk full?)", folder=folder, tail=tail
            )
        reason = "non-finite"
    rows = np.array([thermo[int(step)] for step in steps]).reshape(len(steps), len(_THERMO) - 1)
    return WalkOutput(
        step=steps,
        max_devi_f=np.array([deviation[int(step)] for step in steps], dtype=np.float64),
        temperature_K=rows[:, 0],
        potential_energy=rows[:, 1],
        pressure_bar=rows[:, 2],
        cell=cell[good],
        positions=positions[good],
        forces=forces[good],
        ended=reason,
        log_tail=() if reason == "finished" else tuple(tail),
        devi_f=_of_atoms([rows_of_deviation[int(step)][1:] for step in steps] if has_deviation else [], n_atoms),
    )


def _of_atoms(rows: Sequence[Sequence[float]], n_atoms: int) -> FloatArray | None:
    """Return the deviations of the atoms (n, n_atoms) of rows that all have them; else None."""
    return np.array(rows, dtype=np.float64) if rows and all(len(row) == n_atoms for row in rows) else None


def log_tail(folder: Path) -> list[str]:
    """Return the last lines of output of LAMMPS and its libraries in `folder`."""
    return tail_of(folder / "log.lammps") + tail_of(folder / "lammps.out", 5)


def why_ended(return_code: int, tail: Sequence[str], folder: Path) -> str:
    """Return "finished" or the physical failure.

    Raises
    ------
    EngineError
        The failure is not physical.
    """
    text = "\n".join(tail)
    if return_code == 0:
        return "finished"
    if return_code > 0 and return_code < 128:
        for signature in PHYSICAL_ERRORS:
            if signature.lower() in text.lower():
                return signature.lower()
    what = f"signal {-return_code}" if return_code < 0 else f"return code {return_code}"
    said = next((f": {line[line.index('ERROR') :]}" for line in reversed(tail) if "ERROR" in line), "")
    raise EngineError(f"LAMMPS ended with {what}{said}", command=["lmp", "-in", "in.lammps"], folder=folder, tail=tail)


def _whole_lines(path: Path) -> list[str]:
    """Return the complete lines of a file that may be missing or truncated; half a line would be a wrong number."""
    text = path.read_text(errors="replace") if path.is_file() else ""
    return text[: text.rfind("\n") + 1].splitlines()


def _by_step(rows: Iterable[list[str]]) -> dict[int, list[float]]:
    """Return numbers by the step before them, without incomplete and duplicate rows."""
    found: dict[int, list[float]] = {}
    words: dict[int, list[str]] = {}
    for step, *row in rows:
        if re.fullmatch("[0-9]+", step):
            if words.setdefault(int(step), row) != row:
                found.pop(int(step), None)  # it is not known which of the two is right
                continue
            with contextlib.suppress(ValueError):
                found[int(step)] = [float(word) for word in row]
    return found


def read_thermo(log: Path) -> dict[int, list[float]]:
    """Return {step: [temperature K, potential energy eV, pressure bar, volume Å^3]} of a log's thermo tables."""
    rows: list[list[str]] = []
    inside = False
    for line in _whole_lines(log):
        words = line.split()
        if [word.lower() for word in words] == ["step", "temp", "poteng", "press", "volume"]:
            inside = True
        elif inside and len(words) == len(_THERMO):
            rows.append(words)
        elif line.startswith("Loop time"):
            inside = False
    return _by_step(rows)


def read_deviation(path: Path) -> dict[int, float]:
    """Return {step: max_devi_f in eV/Å} of a model_devi.out; DeePMD-kit names its columns, but not after a restart."""
    return {step: row[0] for step, row in _deviation_rows(path, 0).items()}


def _deviation_rows(path: Path, n_atoms: int) -> dict[int, list[float]]:
    """Return {step: [max_devi_f, and where it is written the deviation of each of `n_atoms` atoms]}, eV/Å."""
    lines = [line.split() for line in _whole_lines(path)]
    columns = lines[0][1:] if lines and lines[0][:1] == ["#"] else list(_DEVIATION)
    n_columns = len(columns)
    if columns[-1:] == [_OF_ATOMS]:  # one name for the columns of all atoms
        n_columns += n_atoms - 1
    if columns[:1] != ["step"] or "max_devi_f" not in columns:
        return {}
    at, named = columns.index("max_devi_f") - 1, len(columns) - 1 - (columns[-1] == _OF_ATOMS)
    rows = _by_step(words for words in lines if len(words) == n_columns)
    return {step: [row[at], *row[named:]] for step, row in rows.items()}


def read_dump(path: Path, n_atoms: int) -> tuple[NDArray[np.int64], FloatArray, FloatArray, FloatArray]:
    """Return steps (n,), cells (n, 3, 3), positions and vectors (n, n_atoms, 3) of a dump, complete frames only.

    Its columns are id, type, x, y, z (Å) and those of the vectors: forces of a walk (eV/Å), velocities of a segment
    (Å/ps). Frames after the first one that is incomplete or out of order are dropped.
    """
    steps, cells, atoms = [-1], [], []
    lines = _whole_lines(path)
    n_lines = 9 + n_atoms
    for start in range(0, len(lines) - n_lines + 1, n_lines):
        block = lines[start : start + n_lines]
        try:
            bounds = np.array([line.split() for line in block[5:8]], dtype=np.float64)
            rows = np.array([line.split() for line in block[9:]], dtype=np.float64).reshape(n_atoms, 8)
            step = int(block[1])
        except ValueError:
            break  # a truncated block
        heads = "\n".join([block[0], *block[2:5], block[8]])
        is_whole = _HEADS.fullmatch(heads) and int(block[3]) == n_atoms and bounds.shape[1] in (2, 3)
        if not is_whole or step <= steps[-1] or (rows[:, 0] != np.arange(n_atoms) + 1).any():
            break
        origin, cell = _box(bounds)
        if not _is_box(cell):
            break
        steps.append(step)
        cells.append(cell)
        atoms.append(rows[:, 2:] - np.array([*origin, 0.0, 0.0, 0.0]))
    values = np.array(atoms).reshape(-1, n_atoms, 6)
    return np.array(steps[1:], dtype=np.int64), np.array(cells).reshape(-1, 3, 3), values[:, :, :3], values[:, :, 3:]


def _is_box(cell: FloatArray) -> bool:
    """Return whether atoms fit into a cell (3, 3); a non-finite one is reported by the reader."""
    if not np.isfinite(cell).all():
        return True
    lengths = np.diag(cell)
    with np.errstate(all="ignore"):
        return bool(
            (lengths > 0.0).all()
            and (np.abs(cell) < LONGEST_A).all()
            and (np.linalg.norm(np.linalg.inv(cell), axis=0) < 1.0 / LOWEST_A).all()
        )


def _box(bounds: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return origin and cell from the BOX BOUNDS of a dump (their lo and hi enclose the tilted box)."""
    xy, xz, yz = bounds[:, 2] if bounds.shape[1] == 3 else (0.0, 0.0, 0.0)
    low = bounds[:, 0] - np.array([min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0])
    high = bounds[:, 1] - np.array([max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0])
    lengths = high - low
    return low, np.array([[lengths[0], 0.0, 0.0], [xy, lengths[1], 0.0], [xz, yz, lengths[2]]])
