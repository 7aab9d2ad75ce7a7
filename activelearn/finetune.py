"""Fine-tuning of a foundation MACE on a campaign's data set: the FT-MP0 of Bertani & Pedone (2026), from any campaign.

Trained on the training frames, validated on the held-out trajectories; the errors of the model before and after are
measured on the latter by the calculator itself, and a potential's YAML is written that `benchmark` takes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from activelearn import prediction
from activelearn.config import Machine, Reference
from activelearn.config.yaml12 import dump
from activelearn.engines import mace, reference
from activelearn.engines.mace import FineTuning
from activelearn.engines.process import Slot
from activelearn.errors import ConfigError, typed
from activelearn.frames import Frames
from activelearn.store import Store

#: Held-out frames that the errors are measured on.
MAX_JUDGED = 50


def finetune(store: Store, how: FineTuning, python: str, to: Path, machine: Machine) -> tuple[Path, dict[str, float]]:
    """Fine-tune a foundation model on the data set of a campaign, or continue it.

    Parameters
    ----------
    store
        The campaign, ended or not: its current data set.
    how
        Model and settings of the training.
    python
        Interpreter with mace-torch.
    to
        Folder to write; a training that was killed continues in it.
    machine
        Time-outs.

    Returns
    -------
    potential, errors
        The YAML of the new potential, and force RMSE (eV/Å) on held-out frames ``before`` and ``after``.

    Raises
    ------
    ConfigError
        There is no such model, or no data set yet.
    """
    if not how.foundation.is_file():
        raise ConfigError(
            f"foundation model {how.foundation}: no such file - expected a MACE checkpoint (.model) - download one (no "
            "package ships it)"
        )
    records = store.iterations()
    if not records:
        raise ConfigError(
            f"{store.folder}: has no data set yet - expected a closed iteration - see: activelearn status "
            f"{typed(store.folder)}"
        )
    last = records[-1].index
    train, held_out = store.dataset(last), store.held_out(last)
    if not held_out:
        raise ConfigError(f"{store.folder}: has no held-out frames - expected initial.held_out_fraction above 0")
    file, slot = to / "potential.yaml", Slot(machine, to / "logs")
    mace.begin(to, how)
    label = store.campaign(last).label.reference
    declared = {"functional": label.functional, "includes_dispersion": label.labels_include_dispersion}
    foundation = _calculator(how.foundation, python, how, declared)
    before = _force_rmse(foundation, held_out, slot)  # first: faults of the model are reported before the training
    if not (to / f"{how.name}.model").is_file():
        mace.finetune(python, how, train, held_out, to, slot)
    after = _calculator(to / f"{how.name}.model", python, how, declared)
    errors = {"before": before, "after": _force_rmse(after, held_out, slot)}
    settings = after.model_dump(mode="json", exclude_defaults=True)
    settings["arguments"]["model_paths"] = f"{how.name}.model"  # beside this YAML, wherever both are moved
    settings["python"] = python
    n_frames = sum(len(part) for part in train)
    head = f"# Fine-tuned from {how.foundation.name} on {n_frames} frames of campaign {store.folder.name}.\n"
    file.write_text(head + dump({"name": how.name, "ase": settings}), encoding="utf-8")
    return file, errors


def _calculator(model: Path, python: str, how: FineTuning, declared: dict[str, object]) -> Reference:
    return Reference.model_validate(
        {
            "calculator": "mace.calculators:MACECalculator",
            "arguments": {"model_paths": str(model.absolute()), "device": how.device, "default_dtype": "float64"},
            "package": "mace-torch",
            "python": python,
            **declared,
        }
    )


def _force_rmse(calculator: Reference, parts: list[Frames], slot: Slot) -> float:
    """Return the force RMSE per component over (at most MAX_JUDGED) evenly spaced labelled frames, eV/Å."""
    frames = [part[k] for part in parts for k in range(len(part))]
    chosen = [frames[k] for k in np.unique(np.linspace(0, len(frames) - 1, min(MAX_JUDGED, len(frames))).astype(int))]
    labels = [reference.label(calculator, frame.without_labels(), slot) for frame in chosen]
    found = [
        frame.with_labels(np.array([label.energy]), label.forces[None], None)
        for frame, label in zip(chosen, labels, strict=True)
    ]
    return prediction.errors_of(found, chosen).force_rmse


def settings(foundation: Path, name: str | None, **given: object) -> FineTuning:
    """Return the settings with what was given, and the defaults for what is None."""
    known = {key: value for key, value in given.items() if value is not None}
    return replace(FineTuning(foundation.absolute(), name or f"FT-{foundation.stem}"), **known)  # type: ignore[arg-type]
