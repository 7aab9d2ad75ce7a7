#!/bin/bash
# A key of pw.x that is misspelt in the input_data of ASE: write_espresso_in leaves it out, and says nothing. The run then
# has pw.x's default in its place. Namelist.to_nested warns of keys without a namelist, but not unless it is asked to.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check ase==3.29.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'EOF'
import io
import warnings
from importlib.metadata import version

from ase.build import bulk
from ase.io.espresso import write_espresso_in

print("ase", version("ase"))
asked = {"ecutwfc": 40.0, "mixing_betta": 0.2, "convthr": 1e-10, "ecut_rho": 400.0}
text = io.StringIO()
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    write_espresso_in(text, bulk("Si"), input_data=asked, pseudopotentials={"Si": "Si.UPF"}, kpts=(2, 2, 2))
written = {line.split("=")[0].strip() for line in text.getvalue().splitlines() if "=" in line}
lost = sorted(asked.keys() - written)
print("expected: the keys that pw.x does not have are refused, or told")
print(f"seen:     {', '.join(lost)} are not in the input, {len(said)} warnings")
if lost != ["convthr", "ecut_rho", "mixing_betta"] or said:
    raise SystemExit("changed: ASE tells of keys that pw.x does not have")
EOF
