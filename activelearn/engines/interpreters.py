"""What an interpreter has, ours or another one."""

from __future__ import annotations

import importlib.util

from activelearn import trees
from activelearn.engines.process import run_command
from activelearn.errors import ActiveLearnError


def has_module(module: str, python: str | None) -> bool:
    """Return whether an interpreter (null: this one) has a module."""
    if python is None:
        return importlib.util.find_spec(module) is not None
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    with trees.temporary() as folder:
        try:
            done = run_command([python, "-c", code], folder, log=folder / "log", timeout_s=20.0)
        except ActiveLearnError:
            return False
    return done.return_code == 0
