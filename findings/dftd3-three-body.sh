#!/bin/bash
# D3 by name and D3 by the numbers that stand for the name: the named parameters leave the three-body (ATM) term out,
# the same ones given as numbers have it, for s9 is 1 unless it is said.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check dftd3==1.7.0 ase==3.29.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - <<'EOF'
from importlib.metadata import version

from ase.build import bulk
from dftd3.ase import DFTD3

print("dftd3", version("dftd3"))
argon = bulk("Ar", "fcc", a=5.26)
# PBE with zero damping, as its authors published it
numbers = {"s6": 1.0, "s8": 0.722, "rs6": 1.217, "rs8": 1.0, "alpha6": 14.0}


def energy(**arguments):
    atoms = argon.copy()
    atoms.calc = DFTD3(damping="d3zero", **arguments)
    return atoms.get_potential_energy()


named = energy(method="PBE")
by_numbers = energy(params_tweaks=numbers)
named_with = energy(params_tweaks={"method": "PBE", "atm": True})
numbers_without = energy(params_tweaks={**numbers, "s9": 0.0})
print("expected: one energy of fcc argon, eV/atom, for method PBE and for its parameters")
print(f"seen:     {named:.5f} by name, {by_numbers:.5f} by numbers")
print(f"          {named_with:.5f} by name with atm, {numbers_without:.5f} by numbers with s9 = 0")
if abs(named - by_numbers) < 1e-3 or max(abs(named - numbers_without), abs(named_with - by_numbers)) > 1e-5:
    raise SystemExit("changed: the three-body term is on, or off, both times")
EOF
