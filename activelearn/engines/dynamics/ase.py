"""Segments driven by ASE: any calculator, in the session that also does its statics.

The worker keeps all there is of a segment in one file of its folder, the checkpoint; see
``workers/calculator_dynamics.py``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn.config import Dynamics, Guards, Potential, Segment
from activelearn.engines.dynamics import FINISHED, FS_PER_PS, State, Stretch, steps_of, timestep_of
from activelearn.engines.dynamics.lammps_input import COLDEST_TARGET, Run
from activelearn.engines.lammps import lower_triangular
from activelearn.engines.process import Slot
from activelearn.engines.reference import carried_out, structure
from activelearn.engines.references import ase
from activelearn.errors import EngineError
from activelearn.frames import Frames
from activelearn.geometry import first_too_close

_CHECKPOINT: Final = "checkpoint.npz"


def run_segment(
    potential: Potential, segment: Segment, start: State, dynamics: Dynamics, folder: Path, slot: Slot
) -> Stretch:
    """Run one segment; see :func:`activelearn.engines.dynamics.run_segment`.

    It begins in LAMMPS' orientation (:func:`activelearn.engines.lammps.lower_triangular`).
    """
    run = Run(potential, segment, dynamics, steps_of(segment, dynamics, timestep_of(potential, dynamics)), ())
    checkpoint = folder.absolute() / _CHECKPOINT  # the worker works elsewhere
    saved = _read(checkpoint)
    if saved is None or not str(saved["ended"]):
        folder.mkdir(parents=True, exist_ok=True)
        answer = carried_out(potential.statics(), start.frame, slot, partial(_ask, run, start, checkpoint, slot))
        saved = _read(checkpoint)
        if saved is None or str(saved["ended"]) != answer.get("ended"):
            raise EngineError(f"no checkpoint of a segment that ended: {answer.get('refused', answer)}", folder=folder)
    return _stretch(run, start.frame.symbols, saved)


def _ask(run: Run, start: State, checkpoint: Path, slot: Slot, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Have the worker run the segment, or go on with it."""
    s, d = run.segment, run.dynamics
    cell, positions = lower_triangular(start.frame.cell[0], start.frame.positions[0])
    _, velocities = lower_triangular(start.frame.cell[0], start.velocities)
    return ase.ask(
        run.potential.statics(),
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
        checkpoint=str(checkpoint),
        **more,
    )


def _read(checkpoint: Path) -> dict[str, NDArray[Any]] | None:
    """Return what is in a checkpoint; None if there is none that is whole."""
    try:
        with checkpoint.open("rb") as stream, np.load(stream) as archive:
            return dict(archive)
    except (FileNotFoundError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _stretch(run: Run, symbols: Sequence[str], saved: Mapping[str, NDArray[Any]]) -> Stretch:
    """Return a segment that has ended, up to the first frame whose atoms are in one another."""
    ended, table = str(saved["ended"]), saved["rows"]
    step = np.arange(len(table), dtype=np.int64) * run.steps.thermo_every
    origin = run.origin_of(run.steps.frames[: len(saved["cells"])].tolist())
    frames = Frames(tuple(symbols), saved["cells"], saved["positions"], origin=origin).wrapped()
    close = first_too_close(frames, Guards())
    if close is not None:
        k, pair = close
        at = int(frames.origin["step"][k])
        frames, step, ended = frames[:k], step[step < at], f"overlap {pair} at {at * run.timestep_ps:g} ps"
    table = table[: len(step)]
    last = Frames(tuple(symbols), saved["last_cell"][None], saved["last_positions"][None])
    return Stretch(
        time_ps=step.astype(np.float64) * run.timestep_ps,
        temperature_K=table[:, 0],
        potential_energy=table[:, 1],
        pressure_bar=table[:, 2],
        volume=table[:, 3],
        deviation_time_ps=np.empty(0),
        max_devi_f=np.empty(0),
        frames=frames,
        frame_time_ps=frames.origin["step"] * run.timestep_ps,
        velocities=saved["velocities"][: len(frames)] / FS_PER_PS if run.dynamics.keep_velocities else None,
        end=State(last, saved["last_velocities"]) if ended == FINISHED else None,
        ended=ended,
        resumed=int(saved["resumed"]),
        started=float(saved["started"]),
        finished=float(saved["finished"]),
    )
