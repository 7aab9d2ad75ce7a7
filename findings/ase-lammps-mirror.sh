#!/bin/bash
# A left-handed cell written for LAMMPS by ASE becomes its mirror image, without a word: energies do not show it, but
# left and right molecules, and the direction of a screw axis, are exchanged.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check ase==3.29.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - <<'EOF'
from importlib.metadata import version

import numpy as np
from ase import Atoms
from ase.io import read, write

print("ase", version("ase"))
cell = np.array([[6.0, 0.0, 0.0], [0.3, 0.2, 6.0], [0.1, 6.5, 0.2]])
molecule = [[3.0, 3.0, 3.0], [4.1, 3.0, 3.0], [2.6, 4.3, 3.0], [2.5, 2.3, 4.5]]  # C, H, F, Cl
atoms = Atoms("CHFCl", positions=molecule, cell=cell, pbc=True)
write("atoms.data", atoms, format="lammps-data", specorder=["C", "H", "F", "Cl"])
back = read("atoms.data", format="lammps-data", style="atomic")


def hand(atoms):
    return "right" if np.linalg.det(atoms.get_distances(0, [1, 2, 3], mic=True, vector=True)) > 0.0 else "left"


print("determinant of the cell:", round(np.linalg.det(cell), 1))
print(f"expected: C, H, F, Cl stays {hand(atoms)}-handed (the cell turned), or an error")
print(f"seen:     {hand(back)}-handed")
if hand(back) == hand(atoms):
    raise SystemExit("changed: the molecule keeps its hand")
EOF
