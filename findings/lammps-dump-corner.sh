#!/bin/bash
# One frame of LAMMPS, its lower corner not at the origin, as x y z and as xs ys zs: ASE gives positions with the
# corner for x and without it for xs; MDAnalysis subtracts the corner from x, and from xs, to which it was never added.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check MDAnalysis==2.11.0 ase==3.29.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - <<'EOF'
from importlib.metadata import version

import MDAnalysis
import numpy as np
from ase.io import read

print("ase", version("ase"), "MDAnalysis", version("MDAnalysis"))
head = "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS pp pp pp\n1.0 11.0\n-2.0 8.0\n3.0 13.0\n"
open("x.dump", "w").write(head + "ITEM: ATOMS id type x y z\n1 1 2.0 0.0 5.0\n2 1 6.0 4.0 9.0\n")
open("xs.dump", "w").write(head + "ITEM: ATOMS id type xs ys zs\n1 1 0.1 0.2 0.2\n2 1 0.5 0.6 0.6\n")
shift = {}
for reader in ("ase", "MDAnalysis"):
    by = {}
    for name in ("x", "xs"):
        if reader == "ase":
            by[name] = read(f"{name}.dump", format="lammps-dump-text").positions
        else:
            u = MDAnalysis.Universe(f"{name}.dump", format="LAMMPSDUMP", topology_format="LAMMPSDUMP")
            by[name] = u.atoms.positions
    print(f"{reader}: expected the same positions; seen x {by['x'].tolist()}, xs {by['xs'].tolist()}")
    shift[reader] = (by["x"] - by["xs"]).mean(axis=0)
if not all(np.allclose(found, [1.0, -2.0, 3.0], atol=1e-4) for found in shift.values()):
    raise SystemExit("changed: the two readers treat the corner in another way")
EOF
