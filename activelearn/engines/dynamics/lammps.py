"""Segments driven by LAMMPS.

Every start of LAMMPS works in a folder of its own, ``part-000``, ``part-001`` ...; nothing of an earlier part is
written over. A part that begins at a restart file overrules what the parts before it wrote from that step on, so that
rows and frames are those of one trajectory.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from activelearn.config import Dynamics, Guards, Potential, Segment
from activelearn.engines import lammps
from activelearn.engines.dynamics import FINISHED, State, Stretch, steps_of, timestep_of
from activelearn.engines.dynamics.lammps_input import Run, elements_of, segment_input
from activelearn.engines.process import Slot
from activelearn.errors import EngineError
from activelearn.frames import FloatArray, Frames, make_origin
from activelearn.geometry import first_too_close

#: A restart file begins and ends with this.
_MAGIC: Final = b"LammpS RestartT\0"
#: Its header has the units (flag 4, length, "metal") right before the step (flag 5).
_BEFORE_STEP: Final = struct.pack("=ii6si", 4, 6, b"metal\0", 5)
_ENDED: Final = "ended.json"


def run_segment(
    potential: Potential, segment: Segment, start: State, dynamics: Dynamics, folder: Path, slot: Slot
) -> Stretch:
    """Run one segment; see :func:`activelearn.engines.dynamics.run_segment`.

    Cells are in LAMMPS' orientation (:func:`activelearn.engines.lammps.lower_triangular`).
    """
    symbols, folder = start.frame.symbols, folder.absolute()  # LAMMPS runs in a process that works elsewhere
    steps = steps_of(segment, dynamics, timestep_of(potential, dynamics))
    run = Run(potential, segment, dynamics, steps, tuple(elements_of(potential, symbols)))
    record = folder / _ENDED
    if record.is_file():
        return _stretch(run, symbols, folder, _End(**json.loads(record.read_text())))
    folder.mkdir(parents=True, exist_ok=True)
    lammps.write_data(folder / "conf.lmp", start.frame, run.elements, start.velocities)
    begun, restart = _newest_restart(run, folder, start.frame.n_atoms)
    part = folder / f"part-{len(_part_folders(folder)):03d}"
    part.mkdir()
    later = [*(step for step in run.steps.frames if step > begun), run.steps.n_steps + 1]  # next() wants one to come
    (part / "frames.steps").write_text("".join(f"{step}\n" for step in later))
    started = time.time()
    begins_at = None if restart is None else f"../{restart.relative_to(folder)}"
    text = segment_input(run, "../conf.lmp", begins_at, begun)
    end = _End(lammps.run_input(part, text, slot), started, time.time())
    stretch = _stretch(run, symbols, folder, end)
    # Only what could be read is finished: output that was cut off is made again from the last restart file.
    unfinished = record.with_suffix(".tmp")
    unfinished.write_text(json.dumps(vars(end)))
    os.replace(unfinished, record)
    return stretch


@dataclass(frozen=True)
class _End:
    """How the last part of LAMMPS ended."""

    return_code: int
    started: float
    finished: float


# --- what the parts wrote ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Frame:
    """One frame of the dump."""

    cell: FloatArray
    positions: FloatArray
    velocities: FloatArray


@dataclass(frozen=True)
class _Part:
    """What one start of LAMMPS wrote: whole rows and frames by step."""

    folder: Path
    n_atoms: int
    has_deviation: bool

    @cached_property
    def rows(self) -> dict[int, list[float]]:
        """Temperature, energy, pressure, volume and force deviation (NaN: there is none)."""
        thermo = lammps.read_thermo(self.folder / "log.lammps")
        if not self.has_deviation:
            return {step: [*row, np.nan] for step, row in thermo.items()}
        deviation = lammps.read_deviation(self.folder / "model_devi.out")
        return {step: [*row, deviation[step]] for step, row in thermo.items() if step in deviation}

    @cached_property
    def frames(self) -> dict[int, _Frame]:
        """Frames of the dump."""
        steps, *arrays = lammps.read_dump(self.folder / "frames.lammpstrj", self.n_atoms)
        return {int(step): _Frame(*frame) for step, *frame in zip(steps, *arrays, strict=True)}

    @property
    def begun(self) -> int | None:
        """Its first step; None if it did not come to one."""
        return min(self.rows, default=None)


def _part_folders(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*"))


def _parts(run: Run, folder: Path, n_atoms: int) -> list[_Part]:
    deepmd = run.potential.deepmd
    has_deviation = deepmd is not None and len(deepmd.models) > 1
    return [_Part(part, n_atoms, has_deviation) for part in _part_folders(folder)]


def _merged(parts: Sequence[_Part]) -> tuple[dict[int, list[float]], dict[int, _Frame]]:
    """Return rows and frames of one trajectory.

    The first row of a part is that of the restart file's step; its frame, if any, is of the part before.
    """
    rows: dict[int, list[float]] = {}
    frames: dict[int, _Frame] = {}
    for part in parts:
        begun = part.begun
        if begun is not None:
            rows = {step: row for step, row in rows.items() if step < begun} | part.rows
            frames = {step: frame for step, frame in frames.items() if step <= begun} | part.frames
    return rows, frames


def _newest_restart(run: Run, folder: Path, n_atoms: int) -> tuple[int, Path | None]:
    """Return step and path of the restart file to go on from; (0, None) to begin.

    It is whole (a kill may have come while it was written), of the trajectory that later parts went on with, and
    nothing before it is missing (a full disk loses rows, and may have room again for the restart file).
    """
    parts = _parts(run, folder, n_atoms)
    rows, frames = _merged(parts)
    found: list[tuple[int, Path]] = []
    overruled = run.steps.n_steps  # from here on by a later part; the last step is no place to go on from
    for part in reversed(parts):
        for path in sorted(part.folder.glob("restart.*")):
            step = restart_step(path)
            if step is not None and (step < run.steps.n_steps and step <= overruled):
                found.append((step, path))
        overruled = overruled if part.begun is None else min(overruled, part.begun)
    for step, path in sorted(found, reverse=True):
        has_rows = all(row in rows for row in range(0, step, run.steps.thermo_every))
        if has_rows and all(int(frame) in frames for frame in run.steps.frames if frame <= step):
            return step, path
    return 0, None


def restart_step(path: Path) -> int | None:
    """Return the step of a restart file in units metal, or None if it is not whole."""
    content = path.read_bytes()
    at = content.find(_BEFORE_STEP, 0, 4096)
    if not (content.startswith(_MAGIC) and content.endswith(_MAGIC)) or at < 0:
        return None
    return int(struct.unpack_from("=q", content, at + len(_BEFORE_STEP))[0])


# --- what they mean ---------------------------------------------------------------------------------------------------


def _stretch(run: Run, symbols: Sequence[str], folder: Path, end: _End) -> Stretch:
    """Read a segment that LAMMPS has come to the end of, up to the first row or frame that cannot be."""
    parts = _parts(run, folder, len(symbols))
    last = parts[-1].folder
    tail = lammps.log_tail(last)
    reason = lammps.why_ended(end.return_code, tail, last)
    rows, by_step = _merged(parts)
    step, table, wrong = _judged(run, rows)
    step, frames, wrong = _judged_frames(run, symbols, step, by_step, wrong)
    ended = wrong or reason
    is_whole = len(step) > 0 and step[-1] == run.steps.n_steps and len(frames) == len(run.steps.frames)
    if ended == FINISHED and not is_whole:
        raise EngineError("LAMMPS finished, but its output is cut off (is the disk full?)", folder=last, tail=tail)
    table = table[: len(step)]
    time_ps: FloatArray = step.astype(np.float64) * run.timestep_ps
    on_row = np.searchsorted(step, frames.origin["step"])
    frames.origin["max_devi_f"] = table[on_row, 4]
    return Stretch(
        time_ps=time_ps,
        temperature_K=table[:, 0],
        potential_energy=table[:, 1],
        pressure_bar=table[:, 2],
        volume=table[:, 3],
        max_devi_f=table[:, 4],
        frames=frames,
        frame_time_ps=time_ps[on_row],
        end=_state(symbols, by_step[run.steps.n_steps]) if ended == FINISHED else None,
        ended=ended,
        resumed=sum(bool(part.begun) for part in parts),
        started=end.started,
        finished=end.finished,
    )


def _judged(run: Run, rows: Mapping[int, list[float]]) -> tuple[NDArray[np.int64], FloatArray, str | None]:
    """Return the steps and rows (n, 5) before the first that is missing or cannot be, and what is wrong with that."""
    wanted = range(0, run.steps.n_steps + 1, run.steps.thermo_every)
    n = next((i for i, step in enumerate(wanted) if step not in rows), len(wanted))
    step = np.array(wanted[:n], dtype=np.int64)
    table = np.array([rows[i] for i in wanted[:n]], dtype=np.float64).reshape(n, 5)
    checked = table if run.potential.deepmd is not None and len(run.potential.deepmd.models) > 1 else table[:, :4]
    is_finite = np.asarray(np.isfinite(checked).all(axis=1))
    hottest = np.array([run.hottest_K(i) for i in wanted[:n]])
    bad = np.flatnonzero(~is_finite | (table[:, 0] > hottest))
    if len(bad) == 0:
        return step, table, None
    k = int(bad[0])
    wrong = f"too hot: {table[k, 0]:.0f} K at {step[k] * run.timestep_ps:g} ps" if is_finite[k] else "non-finite"
    return step[:k], table[:k], wrong


def _judged_frames(
    run: Run, symbols: Sequence[str], step: NDArray[np.int64], by_step: Mapping[int, _Frame], wrong: str | None
) -> tuple[NDArray[np.int64], Frames, str | None]:
    """Return the steps and frames before the first frame that cannot be, and what is wrong with that, if anything."""
    kept = [int(i) for i in run.steps.frames if len(step) and i <= step[-1] and int(i) in by_step]
    found = [by_step[i] for i in kept]
    shape = (len(kept), len(symbols), 3)
    frames = Frames(
        tuple(symbols),
        np.array([frame.cell for frame in found]).reshape(-1, 3, 3),
        np.array([frame.positions for frame in found]).reshape(shape),
        origin=make_origin(len(kept), walk=run.segment.name, step=kept, pressure_bar=_imposed_bar(run.segment)),
    )
    frames.origin["temperature_K"] = [run.target_K(i) for i in kept]
    is_finite = np.isfinite(frames.positions).all(axis=(1, 2)) & np.isfinite(frames.cell).all(axis=(1, 2))
    if not is_finite.all():
        k = int(np.argmin(is_finite))
        frames, step, wrong = frames[:k], step[step < kept[k]], "non-finite"
    close = first_too_close(frames, Guards())
    if close is not None:
        k, pair = close
        frames, step, wrong = frames[:k], step[step < kept[k]], f"overlap {pair} at {kept[k] * run.timestep_ps:g} ps"
    return step, _wrapped(frames), wrong


def _imposed_bar(segment: Segment) -> float:
    return segment.pressure_bar if segment.is_npt else 0.0


def _wrapped(frames: Frames) -> Frames:
    """Return the frames with all atoms in the cell: LAMMPS wraps only when it builds its neighbour list."""
    fractions = np.linalg.solve(frames.cell.transpose(0, 2, 1), frames.positions.transpose(0, 2, 1)).transpose(0, 2, 1)
    return Frames(
        frames.symbols, frames.cell, frames.positions - np.floor(fractions) @ frames.cell, origin=frames.origin
    )


def _state(symbols: Sequence[str], last: _Frame) -> State:
    return State(Frames(tuple(symbols), last.cell[None], last.positions[None]), last.velocities)
