#!/bin/bash
# An ASE trajectory with fixed atoms, read by dpdata: the forces on the fixed atoms are labels of zero, although the
# file has what was computed.
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
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read, write

print("dpdata", version("dpdata"), "ase", version("ase"))
atoms = bulk("Cu", cubic=True) * (2, 1, 1)
atoms.rattle(0.1, seed=1)
atoms.calc = EMT()
atoms.set_constraint(FixAtoms([0]))
atoms.get_forces(), atoms.get_stress()
write("run.traj", atoms)

stored = read("run.traj").calc.results["forces"][0]
label = dpdata.LabeledSystem("run.traj", fmt="ase/traj")["forces"][0][0]
print("expected: the force on atom 0 that the calculator stored,", stored.round(3))
print("seen:     the label of atom 0 is", label)
if np.any(label != 0.0) or np.linalg.norm(stored) < 0.1:
    raise SystemExit("changed: dpdata keeps the forces on fixed atoms")
EOF
