"""One fine-tuned model of a campaign's data set, outside its loop: the second paper's FT-MP0, from any campaign.

It is a training as of a member of an ensemble (:mod:`activelearn.engines.trainers.finetuning`), on the training frames.
Errors of the foundation and of the model are measured on held-out trajectories, and a potential's YAML is written.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from activelearn import prediction
from activelearn.config import Campaign, Machine, TrainingData, TrainingRun, trainer_of
from activelearn.config.files import checksum
from activelearn.config.yaml12 import dump
from activelearn.engines.process import Slot
from activelearn.engines.trainers.finetuning import FineTuner
from activelearn.engines.trainers.finetuning.settings import FineTuned
from activelearn.errors import ConfigError, typed
from activelearn.frames import Frames, dataset_sha256
from activelearn.store import Store
from activelearn.store.files import file_sha256, publish, replace_json

#: Held-out frames that the errors are measured on.
MAX_JUDGED: Final = 50
#: By it a training is known again.
_ASKED: Final = "finetune.json"
_POTENTIAL: Final = "potential.yaml"


def n_steps_of(store: Store, epochs: float, batch_size: int) -> int:
    """Return the gradient steps of a number of epochs on the data set of a campaign."""
    n_frames = sum(len(part) for part in store.dataset(_last(store)))
    return max(1, math.ceil(epochs * n_frames / batch_size))


def finetune(
    store: Store, train: FineTuned, to: Path, machine: Machine, name: str, random_seed: int = 1
) -> tuple[Path, dict[str, float]]:
    """Fine-tune a foundation on the data set of a campaign, or continue to do so.

    Parameters
    ----------
    store
        The campaign, ended or not: the data set as it stands.
    train
        How: the section of a trainer that fine-tunes.
    to
        Folder to write; a training that was killed continues in it.
    machine
        Interpreter of the trainer, and time-outs.
    name
        Of the new potential.
    random_seed
        Of the order of the data.

    Returns
    -------
    potential, errors
        The YAML of the new potential, and force RMSE (eV/Å) on held-out frames ``before`` and ``after``.

    Raises
    ------
    ConfigError
        The foundation or the data set is not there, or the training diverged.
    """
    trainer, last = trainer_of(train), _last(store)
    campaign, parts, held_out = store.campaign(last), store.dataset(last), judged(store.held_out(last))
    if not isinstance(trainer, FineTuner):
        raise ConfigError(f"train.trainer: {train.trainer} fine-tunes no foundation - expected mace or sevennet")
    wrong = trainer.impossible(train) + trainer.contradictions(train, campaign.type_map)
    if wrong := wrong or trainer.problems(train, machine):
        raise ConfigError(*wrong)
    if not held_out:
        raise ConfigError(f"{store.folder}: has no held-out frames - expected initial.held_out_fraction above 0")
    model, slot = to / f"{name}{trainer.suffix(train)}", Slot(machine, to / "logs")
    n_frames = sum(len(part) for part in parts)
    _begin(to, model, _asked(trainer, train, parts, machine.python, random_seed))
    slot.logs.mkdir(exist_ok=True)
    before = trainer.evaluate_foundation(slot.logs, train, held_out, slot)  # reports errors in it first
    if not model.is_file():
        data = TrainingData(to / "data", campaign.type_map, ())
        data.folder.mkdir(exist_ok=True)
        trainer.write_data(data.folder, parts, train, campaign.type_map)
        publish(model, _trained(trainer, train, data, slot, random_seed).read_bytes())
    after = trainer.evaluate(slot.logs, model, held_out, slot)
    found = {"before": before, "after": after}
    errors = {when: prediction.errors_of(labels, held_out).force_rmse for when, labels in found.items()}
    said = _potential(trainer, model, campaign, machine)
    head = f"# Fine-tuned from {Path(train.foundation).name} on {n_frames} frames of campaign {store.folder.name}.\n"
    (to / _POTENTIAL).write_text(head + dump({"name": name, "ase": said}), encoding="utf-8")
    return to / _POTENTIAL, errors


def _asked(
    trainer: FineTuner[Any], train: FineTuned, parts: list[Frames], python: str | None, random_seed: int
) -> dict[str, Any]:
    """Return what a training depends on, JSON-able."""
    foundation = trainer.path_of(train.foundation, python)
    return {
        "train": train.model_dump(mode="json"),
        "seed": random_seed,
        "n_frames": sum(len(part) for part in parts),
        "foundation": None if foundation is None else checksum(foundation),
        "data": dataset_sha256(parts),
        "replay": trainer.data_key(train),
    }


def _potential(trainer: FineTuner[Any], model: Path, campaign: Campaign, machine: Machine) -> dict[str, Any]:
    """Return a model as the ASE calculator of a potential; it is next to the YAML, even if both are moved."""
    said = trainer.potential([str(model)], [file_sha256(model)], campaign.type_map, (0.0, 0.0))["ase"]
    label = campaign.label.reference
    return {
        **said,
        "weights": model.name,
        "arguments": {**said["arguments"], trainer.argument: model.name},
        "functional": label.functional,
        "includes_dispersion": label.labels_include_dispersion,
        **({} if machine.python is None else {"python": machine.python}),
    }


def judged(parts: list[Frames]) -> list[Frames]:
    """Return at most MAX_JUDGED evenly spaced frames."""
    frames = [part[k] for part in parts for k in range(len(part))]
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(MAX_JUDGED, len(frames))).astype(int))
    return [frames[k] for k in chosen]


def _last(store: Store) -> int:
    """Return the last closed iteration of a campaign."""
    if records := store.iterations():
        return records[-1].index
    raise ConfigError(
        f"{store.folder}: has no data set yet - expected a closed iteration - see: activelearn status "
        f"{typed(store.folder)}"
    )


def _begin(to: Path, model: Path, asked: dict[str, Any]) -> None:
    """Make the folder of a training, or continue in it.

    Raises
    ------
    ConfigError
        It has something else in it.
    """
    file, next_ = to / _ASKED, "choose another --to"
    taken = [name for name in (model.name, _POTENTIAL) if os.path.lexists(to / name)]
    if taken and not file.is_file():
        raise ConfigError(
            f"{to}: contains {', '.join(taken)}, but no {_ASKED} of a training to continue - expected a new folder, "
            f"since nothing is overwritten - {next_}"
        )
    before = json.loads(file.read_text()) if file.is_file() else {}
    now = json.loads(json.dumps(asked))
    if any(now.get(key) != value for key, value in before.items()):  # an older version has fewer
        raise ConfigError(f"{to}: was started with other settings or data - expected those of {file} - {next_}")
    to.mkdir(parents=True, exist_ok=True)
    if not file.is_file():
        replace_json(file, asked)


def _trained(trainer: FineTuner[Any], train: FineTuned, data: TrainingData, slot: Slot, random_seed: int) -> Path:
    """Return the model of a training next to its data; it continues from the newest checkpoint of a killed one."""
    left = sorted(data.folder.parent.glob("training-*"))
    place = data.folder.parent / f"training-{len(left)}"
    place.mkdir()
    run = TrainingRun(train.n_steps, (random_seed,) * 3, checkpoints=True)
    restart = trainer.take_over(left, place, train, run, slot)
    found = trainer.train(place, train, replace(run, restart=restart), data, slot)
    if found is None:
        raise ConfigError(
            f"{place}: the training diverged - expected {trainer.stays} - lower --learning-rate, and choose another "
            "--to"
        )
    return found.model
