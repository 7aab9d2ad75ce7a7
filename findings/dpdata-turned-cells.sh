#!/bin/bash
# One structure by two roads into dpdata: read from a POSCAR it is turned (the cell becomes lower-triangular), taken
# from ASE it is not. Two data sets of one calculation then have different positions and force components.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check dpdata==1.1.0 ase==3.29.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - <<'EOF'
from importlib.metadata import version

import dpdata
import numpy as np
from ase import Atoms
from ase.io import write

print("dpdata", version("dpdata"), "ase", version("ase"))
cell = np.array([[0.0, 2.7, 2.7], [2.7, 0.0, 2.7], [2.7, 2.7, 0.0]])
silicon = Atoms("Si2", scaled_positions=[[0, 0, 0], [0.25, 0.26, 0.25]], cell=cell, pbc=True)
write("POSCAR", silicon, format="vasp")
by_file = dpdata.System("POSCAR", fmt="vasp/poscar")["cells"][0]
by_ase = dpdata.System(silicon, fmt="ase/structure")["cells"][0]
print("expected: the cell of the file by both roads,", cell.tolist())
print("seen:     vasp/poscar gives", by_file.round(3).tolist())
print("          ase/structure gives", by_ase.round(3).tolist())
is_turned = np.allclose(by_file @ by_file.T, cell @ cell.T) and abs(np.triu(by_file, 1)).max() < 1e-9
if not is_turned or not np.allclose(by_ase, cell):
    raise SystemExit("changed: both roads agree, or differ in another way")
EOF
