"""MACE's own training program, run in MACE's own interpreter: fine-tunes a foundation model on a campaign's data.

Naive fine-tuning as in Bertani & Pedone, Solid State Sci. 174, 108204 (2026): all weights change, no replay of the
foundation's data. A killed run continues from MACE's last checkpoint.
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

#: Keys in which MACE looks for labels, distinct from results of calculators.
_KEYS: Final = {"energy": "REF_energy", "forces": "REF_forces", "stress": "REF_stress"}


@dataclass(frozen=True)
class FineTuning:
    """Settings of a fine-tuning.

    Parameters
    ----------
    foundation
        Its checkpoint (.model).
    name
        Name of the new model.
    n_epochs, learning_rate, batch_size
        Settings of the training.
    device
        cpu or cuda.
    atomic_energies
        ``E0s`` of MACE: estimated (the foundation's, shifted to the labels by least squares), foundation, average, or a
        table such as ``{11: -1.2, 16: -0.9}`` (eV).
    random_seed
        Seed for the order of the data.
    timeout_s
        Wall-clock limit, s.
    options
        Additional arguments of ``mace_run_train``, such as ``--ema``.
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
    """Write labelled frames in MACE's format; return their number."""
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
    """Return the command; all of its files are in `folder`."""
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
    """Create the folder of a training, or continue in it; return its log, by which it is recognised.

    Raises
    ------
    ConfigError
        It contains other files with the names to be written.
    """
    log = folder / "mace.log"
    names = ("train.xyz", "valid.xyz", "potential.yaml", f"{how.name}.model")
    taken = [name for name in names if os.path.lexists(folder / name)]
    if taken and not log.is_file():
        raise ConfigError(
            f"{folder}: contains {', '.join(taken)}, but no mace.log of a training to continue - expected a new "
            "folder, since nothing is overwritten - choose another --to"
        )
    folder.mkdir(parents=True, exist_ok=True)
    log.touch()
    return log


def finetune(
    python: str, how: FineTuning, train: Sequence[Frames], held_out: Sequence[Frames], folder: Path, slot: Slot
) -> Path:
    """Train a foundation model on labelled frames, or continue where an earlier call was killed.

    Parameters
    ----------
    python
        Interpreter with mace-torch.
    how
        The settings.
    train, held_out
        Labelled Frames; the second only for validation.
    folder
        Output folder; the model is ``<folder>/<name>.model``.
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
    has_stress = any(part.virial is not None and all(part.pbc) for part in train)  # MACE ignores the stress of others
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
