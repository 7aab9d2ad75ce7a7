#!/bin/bash
# tblite takes periodic cells and has no k-points: the energy per atom of a crystal depends on the cell it is written
# in, with no warning.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check tblite==0.8.0 ase==3.29.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - <<'EOF'
from importlib.metadata import version

from ase.build import bulk
from tblite.ase import TBLite

print("tblite", version("tblite"))
energies = []
for repeat in (1, 2):
    atoms = bulk("LiF", "rocksalt", a=4.03, cubic=True) * (repeat, repeat, repeat)
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    energies.append(atoms.get_potential_energy() / len(atoms))
print("expected: one energy per atom for LiF in its cell of 8 atoms and in 2 x 2 x 2 of them, or a word about k-points")
print(f"seen:     {energies[0]:.4f} and {energies[1]:.4f} eV/atom")
if abs(energies[0] - energies[1]) < 0.1:
    raise SystemExit("changed: the energy per atom does not depend on the cell")
EOF
