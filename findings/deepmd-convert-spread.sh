#!/bin/bash
# A model of the PyTorch backend turned into TensorFlow's: its training leaves the spread of the atomic energies in the model (out_std),
# a number that PyTorch only keeps and TensorFlow multiplies every atomic energy by. Here the spread is 4, in a model written with numpy,
# so that PyTorch needs not be installed; `dp --pt train` wrote 3.98 for small cells of Cu and Cu-Au, and its forces came out 3.98 times as large.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "deepmd-kit[cpu]==3.2.0" ase==3.29.0 numpy==2.4.6
cd "$work"
cat > write.py <<'EOS'
import copy

import numpy as np
from deepmd.dpmodel.model.model import get_model
from deepmd.dpmodel.utils.serialization import save_dp_model

block = {
    "type_map": ["Cu", "Au"],
    "descriptor": {"type": "se_e2_a", "sel": [60, 60], "rcut": 4.5, "rcut_smth": 0.5, "neuron": [8, 16], "axis_neuron": 4, "seed": 1},
    "fitting_net": {"type": "ener", "neuron": [16, 16], "seed": 1},
}
model = get_model(copy.deepcopy(block)).serialize()
for name, spread in (("one", 1.0), ("four", 4.0)):
    model["@variables"] = {"out_bias": np.array([[[-3.5], [-3.3]]]), "out_std": np.full((1, 2, 1), spread)}
    save_dp_model(f"{name}.dp", {"model": model, "model_def_script": block, "backend": "DPModel"})
EOS
cat > compare.py <<'EOS'
from importlib.metadata import version

import numpy as np
from ase.build import bulk
from deepmd.infer import DeepPot

crystal = bulk("Cu", cubic=True, a=3.7).repeat(2)
places = crystal.positions + np.random.default_rng(1).normal(0, 0.1, (32, 3))
types = [0, 1] * 16


def energy(file):
    return DeepPot(file).eval(places.reshape(1, -1), crystal.cell.array.reshape(1, -1), types)[0].item()


print("deepmd-kit", version("deepmd-kit"))
print("expected: one energy of 32 atoms, eV, before and after `dp convert-backend model.dp model.pb`, whatever the spread")
differences = []
for name in ("one", "four"):
    before, after = energy(f"{name}.dp"), energy(f"{name}.pb")
    differences.append(after - before)
    print(f"seen:     spread {name}: {before:.4f} and {after:.4f}")
# four times the energy without the bias of 16 Cu and 16 Au, instead of once
bias = 16 * (-3.5 - 3.3)
if abs(differences[0]) > 1e-6 or abs(differences[1] - 3 * (energy("four.dp") - bias)) > 1e-6:
    raise SystemExit("changed: see findings/README.md")
EOS
export TF_CPP_MIN_LOG_LEVEL=3 OMP_NUM_THREADS=1
venv/bin/python -W ignore write.py 2> write.log
for name in one four; do venv/bin/dp convert-backend "$name.dp" "$name.pb" > "$name.log" 2>&1; done
venv/bin/python -W ignore compare.py 2> compare.log
