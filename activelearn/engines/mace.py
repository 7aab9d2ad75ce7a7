"""MACE's own training program, run in MACE's own interpreter: a foundation model goes on with a campaign's data.

Naive fine-tuning as in Bertani & Pedone, Solid State Sci. 174, 108204 (2026): all weights move, no replay of the
foundation's data. A killed run goes on from MACE's last checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from activelearn.engines.process import Slot, run_command
from activelearn.errors import ConfigError, EngineError
from activelearn.frames import Frames

#: Where MACE looks for labels, so that nobody's results are mistaken for them.
_KEYS: Final = {"energy": "REF_energy", "forces": "REF_forces", "stress": "REF_stress"}


@dataclass(frozen=True)
class FineTuning:
    """How a foundation model is trained on.

    Parameters
    ----------
    foundation
        Its checkpoint (.model).
    name
        Of the new model.
    n_epochs, learning_rate, batch_size
        Of the training.
    device
        cpu or cuda.
    atomic_energies
        ``E0s`` of MACE: estimated (the foundation's, shifted to the labels by least squares), foundation, average, or a
        table such as ``{11: -1.2, 16: -0.9}`` (eV).
    random_seed
        Of the order of the data.
    timeout_s
        Wall-clock limit, s.
    options
        More words for ``mace_run_train``, such as ``--ema``.
    """

    foundation: Path
    name: str
    n_epochs: int = 50
    learning_rate: float = 1.0e-4
    batch_size: int = 4
    device: str = "cpu"
    atomic_energies: str = "estimated"
    random_seed: int = 1
    timeout_s: float = 7 * 24 * 3600.0
    options: tuple[str, ...] = ()


def write_xyz(parts: Sequence[Frames], path: Path) -> int:
    """Write labelled frames as MACE reads them; return how many."""
    from ase.io import write

    images = []
    for part in parts:
        for atoms in part.to_ase():
            results = atoms.calc.results
            atoms.info = {_KEYS["energy"]: results["energy"]}
            if len(atoms) == 1:
                atoms.info["config_type"] = "IsolatedAtom"
            if "stress" in results and atoms.pbc.all():
                atoms.info[_KEYS["stress"]] = atoms.get_stress(voigt=False)
            atoms.arrays[_KEYS["forces"]] = results["forces"]
            atoms.calc = None
            images.append(atoms)
    write(path, images, format="extxyz")
    return len(images)


def command(python: str, how: FineTuning, folder: Path, *, has_stress: bool) -> list[str]:
    """Return the command; every file of it stands in `folder`."""
    words = {
        "name": how.name,
        "foundation_model": how.foundation,
        "multiheads_finetuning": False,
        "train_file": folder / "train.xyz",
        "valid_file": folder / "valid.xyz",
        "energy_key": _KEYS["energy"],
        "forces_key": _KEYS["forces"],
        "E0s": how.atomic_energies,
        "max_num_epochs": how.n_epochs,
        "lr": how.learning_rate,
        "batch_size": how.batch_size,
        "valid_batch_size": how.batch_size,
        "device": how.device,
        "default_dtype": "float64",
        "seed": how.random_seed,
        "model_dir": folder,
        "work_dir": folder / "mace",
        **({"stress_key": _KEYS["stress"], "loss": "stress", "compute_stress": True} if has_stress else {}),
    }
    return [python, "-m", "mace.cli.run_train", *(f"--{key}={value}" for key, value in words.items()), *how.options]


def begin(folder: Path, how: FineTuning) -> Path:
    """Make the folder of a training, or go on in it; return its log, by which it is known again.

    Raises
    ------
    ConfigError
        It has something else under the names that would be written.
    """
    log = folder / "mace.log"
    names = ("train.xyz", "valid.xyz", "potential.yaml", f"{how.name}.model")
    taken = [name for name in names if os.path.lexists(folder / name)]
    if taken and not log.is_file():
        raise ConfigError(
            f"{folder}: has {', '.join(taken)} in it, and no mace.log of a training to go on with - expected a new "
            "folder, for nothing is overwritten - choose another --to"
        )
    folder.mkdir(parents=True, exist_ok=True)
    log.touch()
    return log


def finetune(
    python: str, how: FineTuning, train: Sequence[Frames], held_out: Sequence[Frames], folder: Path, slot: Slot
) -> Path:
    """Train a foundation model on labelled frames, or go on where an earlier call was killed.

    Parameters
    ----------
    python
        Interpreter with mace-torch.
    how
        The settings.
    train, held_out
        Labelled Frames; the second for validation only.
    folder
        Where everything is written; the model is ``<folder>/<name>.model``.
    slot
        Where it runs.

    Raises
    ------
    EngineError
        The training ended without a model.
    """
    log = begin(folder, how)
    write_xyz(train, folder / "train.xyz")
    write_xyz(held_out, folder / "valid.xyz")
    has_stress = any(part.virial is not None and all(part.pbc) for part in train)  # of others MACE weighs none
    words = command(python, how, folder, has_stress=has_stress)
    if any((folder / "mace").rglob("*.pt")):
        words.append("--restart_latest")
    done = run_command(words, folder, log=log, timeout_s=how.timeout_s, slot=slot)
    model = folder / f"{how.name}.model"
    if done.return_code != 0 or not model.is_file():
        raise EngineError(
            f"mace_run_train ended with return code {done.return_code}"
            + ("" if model.is_file() else " and left no model"),
            command=words,
            folder=folder,
            tail=done.tail,
        )
    return model
