#!/bin/bash
# An output of SIESTA, read by dpdata: the virial has the wrong sign. SIESTA prints its stress positive in tension, and the
# pressure below it, minus a third of the trace, says so; dpdata multiplies the stress by the volume.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check dpdata==1.1.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - <<'EOF'
from importlib.metadata import version
from pathlib import Path

import dpdata
import numpy as np

STRESS, EDGE, EV_PER_A3_IN_KBAR = 0.01, 4.0, 1602.176634  # pulled at: eV/Å^3, Å
rows = [[STRESS, 0, 0], [0, STRESS, 0], [0, 0, STRESS]]


def table(array):
    return "".join(f"     {x:12.6f}{y:12.6f}{z:12.6f}\n" for x, y, z in array)


step = (
    "outcoor: Atomic coordinates (Ang):\n    0.00000000    0.00000000    0.00000000   1       1  Cu\n\n"
    "outcell: Unit cell vectors (Ang):\n" + table(EDGE * np.eye(3)) + "\n"
    "siesta: E_KS(eV) =            -100.0000\n\n"
    "siesta: Atomic forces (eV/Ang):\n     1    0.000000    0.000000    0.000000\n"
    "----------------------------------------\n\n"
    "siesta: Stress tensor (static) (eV/Ang**3):\n" + table(rows) + "\n"
    f"siesta: Pressure (static): {-STRESS * EV_PER_A3_IN_KBAR:19.8f}  kBar\n\n"
)
Path("siesta.out").write_text(
    "redata: Number of Atomic Species                  =    1\n"
    "Species number:   1 Atomic number:   29 Label: Cu\n"
    "initatomlists: Number of atoms, orbitals, and projectors:      1    15    16\n\n" + 2 * step
)
print("dpdata", version("dpdata"))
virial = dpdata.LabeledSystem("siesta.out", fmt="siesta/aimd_output")["virials"][0]
pressure = float(next(x for x in Path("siesta.out").read_text().splitlines() if "Pressure" in x).split()[-2])
expected = pressure / EV_PER_A3_IN_KBAR * EDGE**3
print(f"expected: the pressure of the file, {pressure:.4f} kbar, times the volume: virial {expected:.4f} eV on the diagonal")
print(f"seen:     virial {virial[0, 0]:.4f} eV")
if not np.allclose(virial, -expected * np.eye(3), atol=1e-6):
    raise SystemExit("changed: the virial of SIESTA is no longer of the opposite sign")
EOF
