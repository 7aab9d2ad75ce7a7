#!/bin/bash
# A mixed set that dpdata pads (atom_numb_pad) has atoms that are none: type -1, at the origin, at the end. dpdata 1.1.0
# drops them when it reads; 0.2.21 cannot read the set at all; and who looks the elements up with numpy, as the format
# invites to, gets atoms of the last element of type_map.raw without an error.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
for version in 1.1.0 0.2.21; do
  python3 -m venv "$work/$version"
  "$work/$version/bin/pip" install -q --disable-pip-version-check "dpdata==$version" numpy==2.4.6
done
cd "$work"
cat > write.py <<'EOF'
import dpdata
import numpy as np

rng = np.random.default_rng(0)
systems = []
for n_sodium in (3, 6):
    types = np.array([0] * n_sodium + [2] * 2)
    n = len(types)
    systems.append(
        dpdata.LabeledSystem(
            data={
                "atom_names": ["Na", "P", "S"], "atom_numbs": [n_sodium, 0, 2], "atom_types": types,
                "orig": np.zeros(3), "cells": 8.0 * np.eye(3)[None], "coords": rng.uniform(0.5, 7.5, (1, n, 3)),
                "energies": np.array([-3.0 * n]), "forces": rng.normal(size=(1, n, 3)), "nopbc": False,
            }
        )
    )
dpdata.MultiSystems(*systems).to("deepmd/npy/mixed", "set", atom_numb_pad=8)
EOF
cat > read.py <<'EOF'
from importlib.metadata import version

import dpdata

found = dpdata.MultiSystems(type_map=["Na", "P", "S"])
try:
    found.load_systems_from_file("set/8", fmt="deepmd/npy/mixed")
    formulas = ", ".join(sorted(found.systems))
except Exception as error:
    formulas = f"{type(error).__name__}: {error}"
print(f"dpdata {version('dpdata')}: {formulas}")
EOF
1.1.0/bin/python -W ignore write.py
echo "expected: Na3S2 and Na6S2, with any reader"
{
  1.1.0/bin/python -W ignore read.py
  0.2.21/bin/python -W ignore read.py
  1.1.0/bin/python - <<'EOF'
import numpy as np

names = np.array(open("set/8/type_map.raw").read().split())
types = np.load("set/8/set.000/real_atom_types.npy")
print("numpy: " + ", ".join("".join(f"{kind}{(names[row] == kind).sum()}" for kind in names) for row in types))
EOF
} | tee seen
grep -q "^dpdata 1.1.0: Na3P0S2, Na6P0S2$" seen && grep -q "^dpdata 0.2.21: DataError" seen && grep -q "^numpy: .*Na3P0S5" seen || {
  echo "changed: padded sets are read in another way"
  exit 1
}
