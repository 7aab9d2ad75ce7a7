#!/bin/bash
# An output of CP2K 2023 with its stress, read by dpdata: energy and forces come, virials don't, and nothing is said. The
# reader looks for the heading "STRESS TENSOR [GPa" of older versions; 2023.1 writes "STRESS| Analytical stress tensor [GPa]".
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check dpdata==1.1.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'EOF'
import warnings
from importlib.metadata import version
from pathlib import Path

import dpdata

EDGE, STRESS, EV_PER_A3_IN_GPA = 4.0, 5.0, 160.2176634  # Å; GPa, positive in compression
START = """ DBCSR| Multiplication driver                                               BLAS
 CP2K| version string:                                          CP2K version 2023.1
 CELL| Volume [angstrom^3]:                                             64.000000
 CELL| Vector a [angstrom]:       4.000000     0.000000     0.000000   |a| =     4.000000
 CELL| Vector b [angstrom]:       0.000000     4.000000     0.000000   |b| =     4.000000
 CELL| Vector c [angstrom]:       0.000000     0.000000     4.000000   |c| =     4.000000
  1. Atomic kind: Al                                    Number of atoms:       1

 MODULE QUICKSTEP: ATOMIC COORDINATES IN ANGSTROM

   Atom Kind Element         X             Y             Z       Z(eff)     Mass

      1    1 Al   13       0.000000      0.000000      0.000000   3.000000  26.981539

  *** SCF run converged in    12 steps ***

 ENERGY| Total FORCE_EVAL ( QS ) energy [a.u.]:               -2.000000000000000

 ATOMIC FORCES in [a.u.]

 # Atom   Kind   Element          X              Y              Z
      1      1      Al          0.00000000     0.00000000     0.00000000
 SUM OF ATOMIC FORCES           0.00000000     0.00000000     0.00000000     0.00000000

"""
NEW = """ STRESS| Analytical stress tensor [GPa]
 STRESS|                        x                   y                   z
 STRESS|      x       5.00000000000E+00   0.00000000000E+00   0.00000000000E+00
 STRESS|      y       0.00000000000E+00   5.00000000000E+00   0.00000000000E+00
 STRESS|      z       0.00000000000E+00   0.00000000000E+00   5.00000000000E+00
 STRESS| 1/3 Trace                                            5.00000000000E+00

"""
OLD = """ STRESS TENSOR [GPa]

            X               Y               Z
  X       5.00000000      0.00000000      0.00000000
  Y       0.00000000      5.00000000      0.00000000
  Z       0.00000000      0.00000000      5.00000000

"""
print("dpdata", version("dpdata"))
virial = {}
for name, block in (("old", OLD), ("2023.1", NEW)):
    Path(f"{name}.out").write_text(START + block)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data = dpdata.LabeledSystem(f"{name}.out", fmt="cp2k/output").data
    virial[name] = None if data.get("virials") is None else float(data["virials"][0, 0, 0])
    print(f"{name} heading: {len(data['energies'])} energy, forces {data['forces'].shape}, {len(said)} warnings")
expected = STRESS / EV_PER_A3_IN_GPA * EDGE**3
print(f"expected: virial {expected:.4f} eV on the diagonal from both")
print(f"seen:     {virial['old']} from the old heading, {virial['2023.1']} from that of 2023.1")
if virial["2023.1"] is not None or abs(virial["old"] - expected) > 1e-3:
    raise SystemExit("changed: dpdata reads the stress of CP2K 2023")
EOF
