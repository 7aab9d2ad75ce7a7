"""Segments driven by LAMMPS.

Every start of LAMMPS works in its own folder, ``part-000``, ``part-001`` ...; nothing of an earlier part is
overwritten. A part that starts from a restart file supersedes the earlier parts from that step on, so that
rows and frames belong to one trajectory.
"""

from __future__ import annotations

import json
import math
import os
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import Final

import numpy as np

from activelearn.config import Dynamics, Guards, Potential, Segment
from activelearn.engines import lammps
from activelearn.engines.dynamics import FINISHED, FS_PER_PS, State, Stretch, steps_of, timestep_of
from activelearn.engines.dynamics.lammps_input import Run, elements_of, segment_input
from activelearn.engines.links import with_plain_names
from activelearn.engines.process import Slot
from activelearn.errors import EngineError
from activelearn.frames import FloatArray, Frames
from activelearn.geometry import first_too_close

#: A restart file starts and ends with this.
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
    symbols, folder = start.frame.symbols, folder.absolute()  # LAMMPS runs in another working directory
    steps = steps_of(segment, dynamics, timestep_of(potential, dynamics))
    run = Run(potential, segment, dynamics, steps, tuple(elements_of(potential, symbols)))
    record = folder / _ENDED
    if record.is_file():
        return _stretch(run, symbols, folder, _End(**json.loads(record.read_text())))
    folder.mkdir(parents=True, exist_ok=True)
    lammps.write_data(folder / "conf.lmp", start.frame, run.elements, start.velocities)
    begun, restart = _newest_restart(run, folder, start.frame.n_atoms)
    part = folder / f"part-{len(list(folder.glob('part-*'))):03d}"
    part.mkdir()
    later = [*(step for step in run.steps.frames if step > begun), run.steps.n_steps + 1]  # next() needs a later one
    (part / "frames.steps").write_text("".join(f"{step}\n" for step in later))
    started = time.time()
    begins_at = None if restart is None else f"../{restart.relative_to(folder)}"
    told = replace(run, potential=with_plain_names(potential, part))
    text = segment_input(told, "../conf.lmp", begins_at, begun)
    end = _End(lammps.run_input(part, text, slot), started, time.time())
    stretch = _stretch(run, symbols, folder, end)
    # Only readable output is complete: truncated output is computed again from the last restart file.
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


# --- output of the parts ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Frame:
    """One frame of the dump."""

    cell: FloatArray
    positions: FloatArray
    velocities: FloatArray


@dataclass(frozen=True)
class _Part:
    """Output of one start of LAMMPS: complete rows and frames by step."""

    folder: Path
    n_atoms: int

    @cached_property
    def rows(self) -> dict[int, list[float]]:
        """Temperature, energy, pressure and volume."""
        return lammps.read_thermo(self.folder / "log.lammps")

    @cached_property
    def deviations(self) -> dict[int, float]:
        """Force deviations of an ensemble."""
        return lammps.read_deviation(self.folder / "model_devi.out")

    @cached_property
    def frames(self) -> dict[int, _Frame]:
        """Frames of the dump."""
        steps, *arrays = lammps.read_dump(self.folder / "frames.lammpstrj", self.n_atoms)
        return {int(step): _Frame(*frame) for step, *frame in zip(steps, *arrays, strict=True)}

    @property
    def begun(self) -> int | None:
        """Its first step; None if it has none."""
        return min(self.rows, default=None)


@dataclass(frozen=True)
class _Written:
    """Rows, force deviations and frames of one trajectory by step, and what is expected of them."""

    run: Run
    rows: dict[int, list[float]] = field(default_factory=dict)
    deviations: dict[int, float] = field(default_factory=dict)
    frames: dict[int, _Frame] = field(default_factory=dict)

    def overruled_by(self, part: _Part) -> _Written:
        """Return the remaining output, updated by that of a part.

        The first row of a part is at the step of the restart file, whose frame, if any, is in the part before.
        """
        begun = part.begun
        if begun is None:
            return self
        rows = {step: row for step, row in self.rows.items() if step < begun} | part.rows
        deviations = {step: value for step, value in self.deviations.items() if step < begun} | part.deviations
        frames = {step: frame for step, frame in self.frames.items() if step <= begun} | part.frames
        return _Written(self.run, rows, deviations, frames)

    def row_steps(self, stop: int) -> range:
        """Return the steps before `stop` that need a row."""
        return range(0, stop, self.run.steps.thermo_every)

    def deviation_steps(self, stop: int) -> range:
        """Return the steps before `stop` that need a force deviation; none without an ensemble."""
        deepmd = self.run.potential.deepmd
        return range(0, stop if deepmd is not None and len(deepmd.models) > 1 else 0, self.run.steps.deviation_every)

    def missing(self) -> int:
        """Return the first step whose row or force deviation is missing, or the one after the last."""
        end = self.run.steps.n_steps + 1
        gaps = [step for step in self.row_steps(end) if step not in self.rows]
        return min([*gaps, *(step for step in self.deviation_steps(end) if step not in self.deviations), end])

    def wrong(self, stop: int) -> tuple[int, str | None]:
        """Return the first step before `stop` with unphysical numbers, and why; `stop` and None if there is none."""
        for step in sorted({*self.row_steps(stop), *self.deviation_steps(stop)}):
            row = self.rows.get(step, [])
            if not all(map(math.isfinite, [*row, self.deviations.get(step, 0.0)])):
                return step, "non-finite"
            if row and row[0] > self.run.hottest_K(step):
                return step, f"too hot: {row[0]:.0f} K at {step * self.run.timestep_ps:g} ps"
        return stop, None


def _parts(folder: Path, n_atoms: int) -> list[_Part]:
    return [_Part(part, n_atoms) for part in sorted(folder.glob("part-*"))]


def _merged(run: Run, parts: Sequence[_Part]) -> _Written:
    return reduce(_Written.overruled_by, parts, _Written(run))


def _newest_restart(run: Run, folder: Path, n_atoms: int) -> tuple[int, Path | None]:
    """Return step and path of the restart file to continue from; (0, None) to start from scratch.

    It is complete (a kill may interrupt writing), belongs to the trajectory that later parts continued, and
    nothing before it is missing (a full disk loses rows, but may have space again for the restart file).
    """
    parts = _parts(folder, n_atoms)
    written = _merged(run, parts)
    found: list[tuple[int, Path]] = []
    overruled = run.steps.n_steps  # superseded from here on by a later part; the last step is no starting point
    for part in reversed(parts):
        for path in sorted(part.folder.glob("restart.*")):
            step = restart_step(path)
            if step is not None and (step < run.steps.n_steps and step <= overruled):
                found.append((step, path))
        overruled = overruled if part.begun is None else min(overruled, part.begun)
    for step, path in sorted(found, reverse=True):
        if step <= written.missing() and all(i in written.frames for i in run.steps.frames.tolist() if i <= step):
            return step, path
    return 0, None


def restart_step(path: Path) -> int | None:
    """Return the step of a restart file in units metal, or None if it is incomplete."""
    content = path.read_bytes()
    at = content.find(_BEFORE_STEP, 0, 4096)
    if not (content.startswith(_MAGIC) and content.endswith(_MAGIC)) or at < 0:
        return None
    step = int(struct.unpack_from("=q", content, at + len(_BEFORE_STEP))[0])
    return step if step > 0 else None


# --- interpretation ---------------------------------------------------------------------------------------------------


def _stretch(run: Run, symbols: Sequence[str], folder: Path, end: _End) -> Stretch:
    """Read a segment that LAMMPS has completed, up to the first unphysical row or frame."""
    parts = _parts(folder, len(symbols))
    last = parts[-1].folder
    tail = lammps.log_tail(last)
    reason = lammps.why_ended(end.return_code, tail, last)
    written = _merged(run, parts)
    stop, wrong = written.wrong(written.missing())
    stop, frames, wrong = _judged_frames(symbols, written, stop, wrong)
    ended = wrong or reason
    is_whole = stop > run.steps.n_steps and len(frames) == len(run.steps.frames)
    if ended == FINISHED and not is_whole:
        raise EngineError("LAMMPS finished, but its output is truncated (is the disk full?)", folder=last, tail=tail)
    rows, deviated = written.row_steps(stop), written.deviation_steps(stop)
    table = np.array([written.rows[step] for step in rows], dtype=np.float64).reshape(-1, 4)
    kept = frames.origin["step"].tolist()
    frames.origin["max_devi_f"] = [written.deviations.get(step, np.nan) for step in kept]
    velocities = np.array([written.frames[step].velocities for step in kept]).reshape(frames.positions.shape)
    return Stretch(
        time_ps=np.array(rows) * run.timestep_ps,
        temperature_K=table[:, 0],
        potential_energy=table[:, 1],
        pressure_bar=table[:, 2],
        volume=table[:, 3],
        deviation_time_ps=np.array(deviated) * run.timestep_ps,
        max_devi_f=np.array([written.deviations[step] for step in deviated], dtype=np.float64),
        frames=frames,
        frame_time_ps=frames.origin["step"] * run.timestep_ps,
        velocities=velocities / FS_PER_PS if run.dynamics.keep_velocities else None,
        end=_state(symbols, written.frames[run.steps.n_steps]) if ended == FINISHED else None,
        ended=ended,
        resumed=sum(bool(part.begun) for part in parts),
        started=end.started,
        finished=end.finished,
    )


def _judged_frames(
    symbols: Sequence[str], written: _Written, stop: int, wrong: str | None
) -> tuple[int, Frames, str | None]:
    """Return the frames before the first unphysical one, with the step and problem of that one, if any."""
    run = written.run
    kept = [step for step in run.steps.frames.tolist() if step < stop and step in written.frames]
    found = [written.frames[step] for step in kept]
    shape = (len(kept), len(symbols), 3)
    frames = Frames(
        tuple(symbols),
        np.array([frame.cell for frame in found]).reshape(-1, 3, 3),
        np.array([frame.positions for frame in found]).reshape(shape),
        origin=run.origin_of(kept),
    )
    is_finite = np.isfinite(frames.positions).all(axis=(1, 2)) & np.isfinite(frames.cell).all(axis=(1, 2))
    if not is_finite.all():
        k = int(np.argmin(is_finite))
        frames, stop, wrong = frames[:k], kept[k], "non-finite"
    close = first_too_close(frames, Guards())
    if close is not None:
        k, pair = close
        frames, stop, wrong = frames[:k], kept[k], f"overlap {pair} at {kept[k] * run.timestep_ps:g} ps"
    return stop, frames.wrapped(), wrong  # LAMMPS wraps only when it builds its neighbour list


def _state(symbols: Sequence[str], last: _Frame) -> State:
    return State(Frames(tuple(symbols), last.cell[None], last.positions[None]), last.velocities)
