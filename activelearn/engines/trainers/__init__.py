"""Trainers, which train the models of an ensemble; defined in :class:`activelearn.config.Trainer`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activelearn.config import Trainer
from activelearn.errors import ConfigError

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


def calculator_of(trainer: Trainer[Any], model: Path) -> Calculator:
    """Return a model as an ASE calculator, in this process.

    Raises
    ------
    ConfigError
        The package of the calculator is not installed for this interpreter.
    """
    said = trainer.calculator(model)
    module, _, name = said["calculator"].partition(":")
    try:
        kind = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(
            f"{model.name}: no {said['package']} in this interpreter ({error}) - needed for a calculator - pip "
            "install 'activelearn[local]'"
        ) from error
    # mace takes a string for a pattern, in which brackets are no brackets.
    found: Calculator = kind(
        **{key: model if value == str(model) else value for key, value in said["arguments"].items()}
    )
    return found
