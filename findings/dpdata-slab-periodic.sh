#!/bin/bash
# A slab (periodic in x and y) that goes through deepmd/npy comes back as a crystal: the format knows periodic in all
# directions or in none.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check dpdata==1.1.0 ase==3.29.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - <<'EOF'
from importlib.metadata import version
from pathlib import Path

import dpdata
from ase.build import fcc111
from ase.calculators.emt import EMT

print("dpdata", version("dpdata"), "ase", version("ase"))
slab = fcc111("Cu", (1, 1, 3), vacuum=8.0)
slab.calc = EMT()
slab.get_potential_energy(), slab.get_forces()
dpdata.LabeledSystem(slab, fmt="ase/structure").to("deepmd/npy", "slab")
(back,) = dpdata.LabeledSystem("slab", fmt="deepmd/npy").to("ase/structure")
print("expected: pbc", slab.pbc.tolist(), "or a warning that it cannot be kept")
print("seen:     pbc", back.pbc.tolist(), "; a file nopbc:", Path("slab/nopbc").exists())
if back.pbc.tolist() != [True, True, True] or slab.pbc.tolist() != [True, True, False]:
    raise SystemExit("changed: the directions are kept or refused")
EOF
