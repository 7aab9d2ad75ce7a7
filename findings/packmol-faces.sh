#!/bin/bash
# A box packed by Packmol with pbc is not uniform: molecules are kept whole inside the cell, so a layer at each face is
# short of atoms, although there is no wall.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check packmol==21.2.3 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - <<'EOF'
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from sys import executable

import numpy as np

print("packmol", version("packmol"))
packmol = shutil.which("packmol", path=str(Path(executable).parent))
Path("carbon_dioxide.xyz").write_text("3\n\nO -1.16 0 0\nC 0 0 0\nO 1.16 0 0\n")
length, n, n_boxes, layer, boxes = 20.0, 60, 12, 1.0, []
for seed in range(1, n_boxes + 1):
    Path("pack.inp").write_text(
        f"tolerance 2.0\nfiletype xyz\noutput packed.xyz\nseed {seed}\npbc 0 0 0 {length} {length} {length}\n"
        f"structure carbon_dioxide.xyz\n number {n}\nend structure\n"
    )
    with Path("pack.inp").open() as lines:
        done = subprocess.run([packmol], stdin=lines, capture_output=True, text=True)
    assert "Success!" in done.stdout, done.stdout[-300:]
    x = np.array([line.split()[1:4] for line in Path("packed.xyz").read_text().splitlines()[2:]], dtype=float)
    boxes.append(x.reshape(n, 3, 3))
x = np.concatenate(boxes)  # molecule, atom (O, C, O), direction
half = np.abs(x[:, 0] - x[:, 2]) / 2.0
expected = (2.0 * half / length).sum()  # faces that molecules anywhere in the cell, turned as these are, would cross
crossing = int(((x.min(axis=1) < -0.1) | (x.max(axis=1) > length + 0.1)).sum())
depth = np.minimum(x[:, 1], length - x[:, 1])
share = (depth < layer).mean() / (2.0 * layer / length)
print(f"expected: {expected:.0f} of {len(x)} molecules across a periodic face; the share of carbon near the faces is 1")
print(f"seen:     {crossing} across a face by more than 0.1 A; the {layer} A at the faces have {share:.2f} of their share")
if crossing > 0.2 * expected or share > 0.85:
    raise SystemExit("changed: molecules cross the faces")
EOF
