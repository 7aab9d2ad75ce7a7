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
PYTHONS = {"tensorflow": None, "pytorch": TORCH_PYTHON, "dpa": TORCH_PYTHON}
needs_dpa = [pytest.mark.needs_dpa, *needs_torch[1:]]
#: For pytest.mark.parametrize and fixtures.
EACH = ["tensorflow", pytest.param("pytorch", marks=needs_torch)]


def machine_of(backend: str, **settings) -> Machine:
    """Return a machine whose interpreter has a backend."""
    return Machine(python=PYTHONS[backend], **settings)


#: A campaign by the smallest DPA that DeePMD-kit 3.2 trains on a CPU (DPA-1, one layer of attention), on PyTorch.
DPA = {
    "train__backend": "pytorch",
    "train__model": {
        "descriptor": {
            "type": "dpa1", "rcut": 4.0, "rcut_smth": 0.5, "neuron": [4, 8], "axis_neuron": 2, "attn": 8,
            "attn_layer": 1, "tebd_input_mode": "strip",
        },
        "fitting_net": {"neuron": [16, 16]},
    },
    **dict.fromkeys(("train__descriptor", "train__fitting", "train__precision")),
}  # fmt: skip
