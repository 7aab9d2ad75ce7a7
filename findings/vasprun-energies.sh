#!/bin/bash
# One vasprun.xml, two energies: pymatgen's final_energy and ASE's get_potential_energy() are those extrapolated to zero
# smearing, dpdata's is the free energy. The forces are those of the free energy only, so labels that came by the other
# roads do not fit their forces, and a data set made by two roads has two zeros of energy.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check \
  pymatgen-core==2026.10.16 ase==3.29.0 dpdata==1.1.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - <<'EOF'
from importlib.metadata import version
from pathlib import Path

import dpdata
from ase.io import read
from pymatgen.io.vasp.outputs import Vasprun

FREE, WITHOUT_ENTROPY, ZERO_SMEARING = -7.50, -7.40, -7.45


def array(name, rows):
    lines = "".join("<v>" + " ".join(f"{x:.8f}" for x in row) + "</v>" for row in rows)
    return f'<varray name="{name}">{lines}</varray>'


def diagonal(x):
    return [[x, 0, 0], [0, x, 0], [0, 0, x]]


def field(kinds):
    return "".join(f'<field type="{kind}">{name}</field>' for name, kind in kinds)


structure = (
    f'<crystal>{array("basis", diagonal(4.0))}<i name="volume">64.0</i>{array("rec_basis", diagonal(0.25))}</crystal>'
    + array("positions", [[0, 0, 0], [0.5, 0.5, 0.48]])
)
energy = (
    f'<energy><i name="e_fr_energy">{FREE}</i><i name="e_wo_entrp">{WITHOUT_ENTROPY}</i>'
    f'<i name="e_0_energy">{ZERO_SMEARING}</i></energy>'
)
atoms = (
    '<atoms>2</atoms><types>1</types><array name="atoms"><dimension dim="1">ion</dimension>'
    + field([("element", "string"), ("atomtype", "int")])
    + "<set><rc><c>Fe</c><c>1</c></rc><rc><c>Fe</c><c>1</c></rc></set></array>"
    + '<array name="atomtypes"><dimension dim="1">type</dimension>'
    + field([("atomspertype", "int"), ("element", "string"), ("mass", "float"), ("valence", "float")])
    + field([("pseudopotential", "string")])
    + "<set><rc><c>2</c><c>Fe</c><c>55.8</c><c>8.0</c><c>PAW_PBE Fe 06Sep2000</c></rc></set></array>"
)
tags = "".join(f'<i type="int" name="{n}">{x}</i>' for n, x in (("NELM", 60), ("NSW", 0), ("IBRION", -1), ("ISPIN", 1)))
Path("vasprun.xml").write_text(
    '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>'
    '<generator><i name="program" type="string">vasp</i><i name="version" type="string">6.3.0</i></generator>'
    '<incar><i type="string" name="PREC">normal</i></incar>'
    f'<kpoints>{array("kpointlist", [[0, 0, 0]])}{array("weights", [[1]])}</kpoints>'
    f'<parameters><separator name="electronic">{tags}</separator></parameters><atominfo>{atoms}</atominfo>'
    f'<structure name="initialpos">{structure}</structure>'
    f"<calculation><scstep>{energy}</scstep><structure>{structure}</structure>"
    f'{array("forces", [[0, 0, -0.3], [0, 0, 0.3]])}{array("stress", diagonal(1.0))}{energy}</calculation>'
    f'<structure name="finalpos">{structure}</structure></modeling>\n'
)
print("pymatgen-core", version("pymatgen-core"), "ase", version("ase"), "dpdata", version("dpdata"))
seen = {
    "pymatgen final_energy": float(Vasprun("vasprun.xml", parse_dos=False, parse_eigen=False, parse_potcar_file=False).final_energy),
    "ase get_potential_energy()": float(read("vasprun.xml").get_potential_energy()),
    "dpdata energies": float(dpdata.LabeledSystem("vasprun.xml", fmt="vasp/xml")["energies"][0]),
}
print(f"expected: one energy, of the three in the file the free one, {FREE} eV, to which the forces belong")
for road, value in seen.items():
    print(f"seen:     {value} eV by {road}")
if list(seen.values()) != [ZERO_SMEARING, ZERO_SMEARING, FREE]:
    raise SystemExit("changed: the three roads give other energies")
EOF
