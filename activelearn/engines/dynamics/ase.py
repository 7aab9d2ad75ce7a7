"""Segments and walks driven by ASE: any calculator, in the session that also does its statics.

The worker keeps the whole state of a segment in one file of its folder, the checkpoint; see
``workers/calculator_dynamics.py``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from activelearn.config import Driver, Dynamics, Guards, Potential, Segment, Stage
from activelearn.engines import lammps
from activelearn.engines.dynamics import (
    FINISHED,
    FS_PER_PS,
    State,
    Stretch,
    steps_of,
    thermal_velocities,
    timestep_of,
)
from activelearn.engines.dynamics.lammps_input import COLDEST_TARGET, Run
from activelearn.engines.lammps import Drive, WalkOutput, lower_triangular
from activelearn.engines.process import Slot
from activelearn.engines.reference import carried_out, structure
from activelearn.engines.references import ase
from activelearn.errors import EngineError
from activelearn.frames import Frames
from activelearn.geometry import first_too_close

_CHECKPOINT: Final = "checkpoint.npz"
#: A walk hotter than this factor times its target has blown up; later frames are far outside any region.
_BLOWN_UP: Final = 20.0


def run_segment(
    potential: Potential, segment: Segment, start: State, dynamics: Dynamics, folder: Path, slot: Slot
) -> Stretch:
    """Run one segment; see :func:`activelearn.engines.dynamics.run_segment`.

    It starts in LAMMPS' orientation (:func:`activelearn.engines.lammps.lower_triangular`).
    """
    run = Run(potential, segment, dynamics, steps_of(segment, dynamics, timestep_of(potential, dynamics)), ())
    checkpoint = folder.absolute() / _CHECKPOINT  # the worker works elsewhere
    saved = _read(checkpoint)
    if saved is None or not str(saved["ended"]):
        folder.mkdir(parents=True, exist_ok=True)
        statics = potential.statics(slot.machine.python)
        answer = carried_out(statics, start.frame, slot, partial(_ask, run, start, checkpoint, slot))
        saved = _read(checkpoint)
        if saved is None or str(saved["ended"]) != answer.get("ended"):
            raise EngineError(f"no checkpoint of a segment that ended: {answer.get('refused', answer)}", folder=folder)
    return _stretch(run, start.frame.symbols, saved)


class Walker(Driver):
    """The member of an ensemble that drives a walk."""

    where: ClassVar[str] = "train.trainer"


def run_walk(calculator: Walker, stage: Stage, drive: Drive, start: Frames, folder: Path, slot: Slot) -> WalkOutput:
    """Run one walk of exploration; see :class:`activelearn.engines.lammps.WalkOutput`.

    It has neither deviations nor forces (NaN), which the ensemble evaluates later.

    Parameters
    ----------
    calculator
        What drives it.
    stage, drive
        Its conditions; not a stage with LAMMPS lines.
    start
        One frame; its cell becomes that of LAMMPS.
    folder
        Scratch folder of the walk.
    slot
        Where it runs.

    Raises
    ------
    EngineError
        Infrastructure failed. A physical failure is reported in ``ended``.
    """
    checkpoint = folder.absolute() / _CHECKPOINT
    request = {**_walk_request(stage, drive, start), "checkpoint": str(checkpoint), "only": True}
    ask = partial(ase.ask, calculator, "dynamics", slot, timeout_s=slot.machine.walk_timeout_s, **request)
    answer = carried_out(calculator, start, slot, ask)
    saved = _read(checkpoint)
    if saved is None or str(saved["ended"]) != answer.get("ended"):
        raise EngineError(f"no checkpoint of a walk that ended: {answer.get('refused', answer)}", folder=folder)
    return _walked(stage, start.symbols, saved)


def _walk_request(stage: Stage, drive: Drive, start: Frames) -> dict[str, Any]:
    """Return the request for a walk, without its storage."""
    temperature_K, to_K, pressure_bar = drive.condition[:3]
    cell, positions = lower_triangular(start.cell[0], start.positions[0])
    frame = Frames(start.symbols, cell[None], positions[None])
    n_steps = lammps.steps_of(stage, drive)
    velocities = thermal_velocities(frame, temperature_K, np.random.default_rng(drive.velocity_seed))
    return {
        "structure": structure(frame),
        "velocities": velocities.tolist(),
        "ensemble": stage.ensemble,
        "temperature_K": temperature_K,
        "end_K": temperature_K if to_K is None else to_K,
        "pressure_bar": pressure_bar or 0.0,
        "timestep_fs": stage.timestep_fs,
        "temperature_damping_ps": stage.temperature_damping_ps,
        "pressure_damping_ps": stage.pressure_damping_ps,
        "n_steps": n_steps,
        "n_steps_of_ramp": stage.n_steps,
        "final_cell": None if drive.final_cell is None else drive.final_cell.tolist(),
        "thermo_every": stage.every,
        "restart_every": n_steps + 1,  # a killed walk starts from scratch
        "frames": list(range(0, n_steps + 1, stage.every)),
        "keep_velocities": False,
        "max_temperature_factor": _BLOWN_UP,
        "coldest_target_K": COLDEST_TARGET,
    }


def _walked(stage: Stage, symbols: Sequence[str], saved: Mapping[str, NDArray[Any]]) -> WalkOutput:
    """Return the complete rows of a finished walk: those with a frame."""
    n = min(len(saved["rows"]), len(saved["cells"]))
    temperature_K, energy, pressure_bar, _ = saved["rows"][:n].T
    frames = Frames(tuple(symbols), saved["cells"][:n], saved["positions"][:n]).wrapped()
    ended = str(saved["ended"])
    return WalkOutput(
        step=np.arange(n, dtype=np.int64) * stage.every,
        max_devi_f=np.full(n, np.nan),
        temperature_K=temperature_K,
        potential_energy=energy,
        pressure_bar=pressure_bar,
        cell=frames.cell,
        positions=frames.positions,
        forces=np.full(frames.positions.shape, np.nan),
        ended=ended,
        log_tail=() if ended == FINISHED else (ended,),
    )


def _ask(run: Run, start: State, checkpoint: Path, slot: Slot, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Let the worker run or continue the segment."""
    s, d = run.segment, run.dynamics
    cell, positions = lower_triangular(start.frame.cell[0], start.frame.positions[0])
    _, velocities = lower_triangular(start.frame.cell[0], start.velocities)
    return ase.ask(
        run.potential.statics(slot.machine.python),
        "dynamics",
        slot,
        timeout_s=slot.machine.walk_timeout_s,
        structure=structure(Frames(start.frame.symbols, cell[None], positions[None])),
        velocities=velocities.tolist(),
        ensemble=s.ensemble,
        temperature_K=s.temperature_K,
        end_K=s.end_K,
        pressure_bar=s.pressure_bar,
        timestep_fs=run.timestep_ps * 1000.0,
        temperature_damping_ps=d.temperature_damping_ps,
        pressure_damping_ps=d.pressure_damping_ps,
        n_steps=run.steps.n_steps,
        thermo_every=run.steps.thermo_every,
        restart_every=run.steps.restart_every,
        frames=run.steps.frames.tolist(),
        keep_velocities=d.keep_velocities,
        max_temperature_factor=d.max_temperature_factor,
        coldest_target_K=COLDEST_TARGET,
        others=run.potential.others,
        deviation_every=run.steps.deviation_every,
        checkpoint=str(checkpoint),
        **more,
    )


def _read(checkpoint: Path) -> dict[str, NDArray[Any]] | None:
    """Return the contents of a checkpoint; None if it is missing or corrupt."""
    try:
        with checkpoint.open("rb") as stream, np.load(stream) as archive:
            return dict(archive)
    except (FileNotFoundError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _stretch(run: Run, symbols: Sequence[str], saved: Mapping[str, NDArray[Any]]) -> Stretch:
    """Return a segment that has ended, up to the first frame with overlapping atoms."""
    ended, table = str(saved["ended"]), saved["rows"]
    step = np.arange(len(table), dtype=np.int64) * run.steps.thermo_every
    origin = run.origin_of(run.steps.frames[: len(saved["cells"])].tolist())
    deviated, max_devi_f = saved.get("deviations", np.empty((0, 2))).T  # an earlier version evaluated none
    known = dict(zip(deviated.tolist(), max_devi_f.tolist(), strict=True))
    origin["max_devi_f"] = [known.get(step, np.nan) for step in origin["step"].tolist()]
    frames = Frames(tuple(symbols), saved["cells"], saved["positions"], origin=origin).wrapped()
    close = first_too_close(frames, Guards())
    if close is not None:
        k, pair = close
        at = int(frames.origin["step"][k])
        frames, step, ended = frames[:k], step[step < at], f"overlap {pair} at {at * run.timestep_ps:g} ps"
        deviated, max_devi_f = deviated[deviated < at], max_devi_f[deviated < at]
    table = table[: len(step)]
    last = Frames(tuple(symbols), saved["last_cell"][None], saved["last_positions"][None])
    return Stretch(
        time_ps=step.astype(np.float64) * run.timestep_ps,
        temperature_K=table[:, 0],
        potential_energy=table[:, 1],
        pressure_bar=table[:, 2],
        volume=table[:, 3],
        deviation_time_ps=deviated * run.timestep_ps,
        max_devi_f=max_devi_f,
        frames=frames,
        frame_time_ps=frames.origin["step"] * run.timestep_ps,
        velocities=saved["velocities"][: len(frames)] / FS_PER_PS if run.dynamics.keep_velocities else None,
        end=State(last, saved["last_velocities"]) if ended == FINISHED else None,
        ended=ended,
        resumed=int(saved["resumed"]),
        started=float(saved["started"]),
        finished=float(saved["finished"]),
    )
