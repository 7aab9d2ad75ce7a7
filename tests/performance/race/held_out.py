"""Held-out errors of ensembles, all by one program: DeePMD-kit's DeepPot, in an interpreter that has it.

``python held_out.py FRAMES.npz MODEL...`` prints JSON: of each model the root mean square of the force error (per
component) and the 99th percentile of its length over atoms, eV/Å. FRAMES.npz has, for each composition i, ``symbols_i``
(n_atoms,), ``cell_i`` (n, 3, 3) and ``positions_i`` (n, n_atoms, 3) in Å, and ``forces_i`` (n, n_atoms, 3) in eV/Å.
"""

import json
import sys

import numpy as np
from deepmd.infer import DeepPot


def errors_of(model, frames):
    """Return the force errors of one model."""
    potential = DeepPot(model)
    kinds, differences = potential.get_type_map(), []
    for i in range(sum(name.startswith("forces_") for name in frames.files)):
        symbols, cell, positions, forces = (
            frames[f"{name}_{i}"] for name in ("symbols", "cell", "positions", "forces")
        )
        types = [kinds.index(symbol) for symbol in symbols]
        predicted = potential.eval(positions.reshape(len(positions), -1), cell.reshape(len(cell), 9), types)[1]
        differences.append((predicted.reshape(forces.shape) - forces).reshape(-1, 3))
    difference = np.concatenate(differences)
    lengths = np.linalg.norm(difference, axis=1)
    return {"rmse": float(np.sqrt((difference**2).mean())), "p99": float(np.percentile(lengths, 99.0))}


with np.load(sys.argv[1]) as given:
    print(json.dumps({model: errors_of(model, given) for model in sys.argv[2:]}))
