"""The ``input.json`` of DeePMD-kit, and the loss above which a training has diverged.

Zhang et al., Phys. Rev. Lett. 120, 143001 (2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from activelearn.config.trainer import Room, TrainingRun
from activelearn.engines.backends import BACKENDS
from activelearn.engines.trainers.deepmd import blocks
from activelearn.engines.trainers.deepmd.settings import WSD_DECAY, DeePMDTrain, LearningRate, Prefactors
from activelearn.frames import Frames

#: A training has diverged when its loss is this many times that of a net which predicts zero forces. Healthy ones
#: overshoot it up to three times, diverged ones a thousand times and more (by the energy: their forces vanish).
DIVERGED: Final = 100.0
#: Name of the learning curve.
CURVE: Final = "lcurve.out"
#: With checkpoints, one is written at every n-th row of the learning curve (DeePMD checks at no other step).
ROWS_PER_CHECKPOINT: Final = 5
#: Folder of the average of checkpoints.
AVERAGE: Final = "average"


def training_input(
    train: DeePMDTrain, run: TrainingRun, *, type_map: Sequence[str], sel: Room, systems: Sequence[str]
) -> dict[str, Any]:
    """Return the ``input.json`` of one member.

    Parameters
    ----------
    train
        The section of the campaign.
    run
        Settings of this member.
    type_map
        Order of the elements.
    sel
        Maximum number of neighbours of each shell.
    systems
        Folders of training data.
    """
    display = _rows_every(run.n_steps)
    return {
        "model": blocks.filled(train.block, type_map, sel, run.random_seeds),
        "learning_rate": _learning_rate(train.learning_rate, run),
        "loss": _loss(train.prefactors, [train.label_weight(element) for element in type_map]),
        "training": {
            "training_data": {"systems": list(systems), "batch_size": train.batch_size},
            "numb_steps": run.n_steps,
            "seed": run.random_seeds[2],
            "disp_file": CURVE,
            "disp_freq": display,
            **_saving(train, run),
        },
    }


def _learning_rate(rate: LearningRate, run: TrainingRun) -> dict[str, Any]:
    """Return the decay of the learning rate, which never rises: after a divergence the end is lowered with the start.

    The end is kept as long as it is at most a tenth of the start (or the planned ratio, if larger).
    """
    planned = (rate.warm_start if run.warm else None) or rate.start
    stop = (rate.warm_stop if run.warm else None) or rate.stop
    start = planned * run.learning_rate_factor
    if run.learning_rate_factor < 1.0:
        stop = min(stop, start * max(stop / planned, 0.1))
    found: dict[str, Any] = {"type": rate.shape, "start_lr": start, "stop_lr": min(stop, start)}
    if rate.shape == "exp":
        found["decay_steps"] = max(1, min(5000, run.n_steps // 100))
    if rate.shape == "wsd":
        found["decay_phase_ratio"] = rate.decay_phase_ratio or WSD_DECAY
        found["decay_type"] = rate.decay_type or "cosine"
    if rate.warmup_ratio:
        found["warmup_ratio"] = rate.warmup_ratio
    return found


def _loss(prefactors: Prefactors, weights: Sequence[float]) -> dict[str, Any]:
    """Return the loss: DeePMD adds a term with a factor per atom to the force term, which has the smallest weight.

    Both are means over all components of squared errors; the factors are those of :func:`write_element_weights`.
    """
    loss: dict[str, Any] = {"type": "ener"}
    floor = min(weights)
    force = (prefactors.force[0] * floor, prefactors.force[1] * floor)
    for letter, pair in zip("efv", (prefactors.energy, force, prefactors.virial), strict=True):
        loss[f"start_pref_{letter}"], loss[f"limit_pref_{letter}"] = pair
    if max(weights) > floor:
        loss["start_pref_pf"], loss["limit_pref_pf"] = prefactors.force
    return loss


def write_element_weights(systems: Sequence[Path], train: DeePMDTrain, type_map: Sequence[str]) -> None:
    """Write the weight of each atom's force error in excess of the smallest weight, if elements differ.

    Parameters
    ----------
    systems
        Folders of deepmd/npy; each gets an ``atom_pref.npy`` next to its forces, shape (n_frames, n_atoms), or as the
        backend requires.
    train
        The section of the campaign.
    type_map
        Order of the elements.
    """
    beyond = np.array([train.label_weight(element) for element in type_map])
    beyond -= beyond.min()
    if not beyond.any():
        return
    for system in systems:
        of_atoms = beyond[np.loadtxt(system / "type.raw", dtype=int, ndmin=1)]
        of_atoms = np.repeat(of_atoms, BACKENDS[train.backend].atom_weights)
        for energies in system.glob("set.*/energy.npy"):
            n_frames = len(np.load(energies))
            np.save(energies.with_name("atom_pref.npy"), np.tile(of_atoms, (n_frames, 1)))


def _rows_every(n_steps: int) -> int:
    """Return the steps between two rows of the learning curve."""
    return max(1, min(1000, n_steps // 50))


def _averaging_rows(n_steps: int) -> int:
    """Return the number of rows of the learning curve between averaged checkpoints."""
    rows = max(1, n_steps // 25 // _rows_every(n_steps))
    return rows if rows < ROWS_PER_CHECKPOINT else rows - rows % ROWS_PER_CHECKPOINT


def averaged_steps(train: DeePMDTrain, n_steps: int) -> tuple[int, ...]:
    """Return the steps of the averaged checkpoints in ascending order: every n_steps/25, backwards from the last.

    Empty if the model is the last checkpoint alone; fewer than requested in a shorter training.
    """
    if train.average_checkpoints is None:
        return ()
    every = _averaging_rows(n_steps) * _rows_every(n_steps)
    return tuple(range(every, n_steps + 1, every))[-train.average_checkpoints :]


def _saving(train: DeePMDTrain, run: TrainingRun) -> dict[str, int]:
    """Return when checkpoints are written (DeePMD does so only at rows of the learning curve) and how many are kept."""
    display = _rows_every(run.n_steps)
    steps = averaged_steps(train, run.n_steps)
    if not steps:
        return {"save_freq": ROWS_PER_CHECKPOINT * display if run.checkpoints else run.n_steps}
    rows = _averaging_rows(run.n_steps)
    every = display * (min(rows, ROWS_PER_CHECKPOINT) if run.checkpoints else rows)
    return {"save_freq": every, "max_ckpt_keep": (run.n_steps - steps[0]) // every + 2}  # and one after the last row


def loss_bound(train: DeePMDTrain, parts: Sequence[Frames]) -> float:
    """Return the bound on the square root of the loss (``rmse_trn``) above which a training has diverged.

    It is derived from the data and not from the curve: batches of isolated atoms or perfect crystals have no forces, so
    the best loss so far may be close to zero.
    """
    squares = []
    for part in parts:
        if part.forces is not None:
            weights = np.array([train.label_weight(symbol) for symbol in part.symbols])
            squares.append((part.forces**2 * weights[:, None]).ravel())
    force_rms = float(np.sqrt(np.concatenate(squares).mean()))
    return DIVERGED * max(1.0, float(np.sqrt(train.prefactors.force[0]))) * max(0.1, force_rms)
