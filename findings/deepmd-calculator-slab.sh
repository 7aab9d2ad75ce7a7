#!/bin/bash
# A slab (periodic in x and y) in ASE's calculator of DeePMD-kit: the direction that is not periodic counts as periodic as soon
# as any other does, and the two faces of the slab feel each other across the cell's border.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "deepmd-kit[cpu]==3.2.0" ase==3.29.0 numpy==2.4.6
cd "$work"
cat > write.py <<'EOF'
import json
import pathlib

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT

folder = pathlib.Path("data/set.000")
folder.mkdir(parents=True)
rng, rows = np.random.default_rng(0), []
for _ in range(8):
    atoms = bulk("Cu", cubic=True)
    atoms.positions += rng.normal(0, 0.1, (4, 3))
    atoms.calc = EMT()
    rows.append((atoms.positions.ravel(), np.array(atoms.cell).ravel(), atoms.get_potential_energy(), atoms.get_forces().ravel()))
np.savetxt("data/type.raw", np.zeros(4, dtype=int), fmt="%d")
pathlib.Path("data/type_map.raw").write_text("Cu\n")
for name, values in zip(("coord", "box", "energy", "force"), zip(*rows)):
    np.save(folder / f"{name}.npy", np.array(values))
setting = {
    "model": {
        "type_map": ["Cu"],
        "descriptor": {"type": "se_e2_a", "sel": [60], "rcut": 5.0, "rcut_smth": 1.0, "neuron": [8, 16], "axis_neuron": 4, "seed": 1},
        "fitting_net": {"neuron": [16, 16], "seed": 1},
    },
    "learning_rate": {"type": "exp", "start_lr": 1e-2, "stop_lr": 1e-4, "decay_steps": 50},
    "loss": {"start_pref_e": 1, "limit_pref_e": 1, "start_pref_f": 100, "limit_pref_f": 1},
    "training": {"training_data": {"systems": ["data"], "batch_size": 4}, "numb_steps": 200, "seed": 1, "disp_freq": 100},
}
pathlib.Path("input.json").write_text(json.dumps(setting))
EOF
cat > slab.py <<'EOF'
from importlib.metadata import version

from ase.build import fcc100
from deepmd.calculator import DP

print("deepmd-kit", version("deepmd-kit"), "ase", version("ase"))
slab = fcc100("Cu", (2, 2, 3), a=3.6, vacuum=1.0)
slab.pbc, slab.calc = (True, True, False), DP(model="model.pb")
tight = slab.get_potential_energy()
slab.center(vacuum=20.0, axis=2)
wide = slab.get_potential_energy()
slab.center(vacuum=1.0, axis=2)
slab.pbc = True
crystal = slab.get_potential_energy()
print("expected: periodic in x and y, the height of the cell says nothing: one energy with 1 and with 20 Å of room above")
print(f"seen:     {tight:.4f} and {wide:.4f} eV; periodic in all directions, with 1 Å: {crystal:.4f} eV")
if abs(tight - wide) < 1e-3 or abs(tight - crystal) > 1e-6:
    raise SystemExit("changed: see findings/README.md")
EOF
export TF_CPP_MIN_LOG_LEVEL=3 OMP_NUM_THREADS=1
venv/bin/python write.py
venv/bin/dp train input.json --skip-neighbor-stat > train.log 2>&1
venv/bin/dp freeze -o model.pb > freeze.log 2>&1
venv/bin/python -W ignore slab.py 2> slab.log
