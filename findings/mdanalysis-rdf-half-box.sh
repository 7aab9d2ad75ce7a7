#!/bin/bash
# g(r) beyond half of the box by MDAnalysis: each pair is counted once, at its nearest image, and nothing is said.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check MDAnalysis==2.11.0 ase==3.29.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - <<'EOF'
from importlib.metadata import version

import MDAnalysis
from ase.build import bulk
from ase.neighborlist import neighbor_list
from MDAnalysis.analysis.rdf import InterRDF

print("MDAnalysis", version("MDAnalysis"), "ase", version("ase"))
silicon = bulk("Si", cubic=True)  # 8 atoms, 5.43 A
n = len(silicon)
universe = MDAnalysis.Universe.empty(n, trajectory=True)
universe.atoms.positions = silicon.positions
universe.dimensions = [*silicon.cell.lengths(), 90.0, 90.0, 90.0]
found = InterRDF(universe.atoms, universe.atoms, nbins=500, range=(0.0, 5.0), exclusion_block=(1, 1)).run().results
for r in (2.6, 5.0):
    seen = found.count[found.bins <= r].sum() / n
    exact = len(neighbor_list("i", silicon, r)) / n
    print(f"expected: {exact:.0f} neighbours of a silicon atom within {r} A; seen: {seen:.0f}")
if (round(seen), round(exact)) != (7, 28):
    raise SystemExit("changed: images beyond half of the box are counted, or refused")
EOF
