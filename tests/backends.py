"""The backends of DeePMD-kit that tests are given one by one, and the interpreter that has the second."""

import os

import pytest

from activelearn.config import Machine

#: Interpreter with ``deepmd-kit[torch,lmp]``.
TORCH_PYTHON = os.environ.get("ACTIVELEARN_TORCH_PYTHON")
needs_torch = [
    pytest.mark.needs_torch,
    pytest.mark.skipif(
        TORCH_PYTHON is None, reason="ACTIVELEARN_TORCH_PYTHON names no interpreter with DeePMD-kit's PyTorch backend"
    ),
]
PYTHONS = {"tensorflow": None, "pytorch": TORCH_PYTHON}
#: For pytest.mark.parametrize and fixtures.
EACH = ["tensorflow", pytest.param("pytorch", marks=needs_torch)]


def machine_of(backend: str, **settings) -> Machine:
    """Return a machine whose interpreter has a backend."""
    return Machine(python=PYTHONS[backend], **settings)
