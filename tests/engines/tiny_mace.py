"""Writes an untrained MACE of a few thousand weights; run by path in an interpreter that has mace-torch.

python tiny_mace.py FILE ELEMENT,ELEMENT [HEAD,HEAD]
"""

import os
import sys

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # e3nn's own constants want it

import numpy as np
import torch
from ase.data import atomic_numbers
from e3nn import o3
from mace import modules


def made(elements, heads, channels="8x0e", cutoff=4.0, mlp=8):
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(1)
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    numbers = sorted(atomic_numbers[element] for element in elements)
    return modules.ScaleShiftMACE(
        r_max=cutoff,
        num_bessel=6,
        num_polynomial_cutoff=5,
        max_ell=2,
        interaction_cls=block,
        interaction_cls_first=block,
        num_interactions=2,
        num_elements=len(numbers),
        hidden_irreps=o3.Irreps(channels),
        MLP_irreps=o3.Irreps(f"{mlp}x0e"),
        gate=torch.nn.functional.silu,
        atomic_energies=np.zeros((len(heads), len(numbers))),
        avg_num_neighbors=12.0,
        atomic_numbers=numbers,
        correlation=2,
        radial_type="bessel",
        atomic_inter_scale=[1.0] * len(heads),
        atomic_inter_shift=[0.0] * len(heads),
        heads=heads,
    )


if __name__ == "__main__":
    names = sys.argv[3].split(",") if len(sys.argv) > 3 else ["Default"]
    torch.save(made(sys.argv[2].split(","), names), sys.argv[1])
