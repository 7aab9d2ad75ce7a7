"""A stand-in for VASP: reads the files as VASP does, complains about wrong ones, and writes what VASP writes.

Energy, forces and stress are those of a smooth pair potential whose strength depends on the species, so that a wrong
order of atoms shows. The layout of vasprun.xml was copied from a run of VASP 6.3.0; numbers have VASP's eight digits.

usage: python fake_vasp.py MODE [RECORD]; modes: good, unconverged, stubborn, fussy, crash, swapped, cut, slow, steady
RECORD is what it saw; of mode steady, which takes 2 s, a line for each run.
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

STRENGTH = {"Na": 0.9, "P": 2.1, "S": 1.4, "O": 0.6}
CUTOFF = 4.0
KBAR = 1602.1766208  # kbar per eV/Å^3
PAPER = {
    **{"GGA": "PE", "ENCUT": "400", "KSPACING": "0.5", "EDIFF": "1e-05", "ISMEAR": "0", "SIGMA": "0.05", "ISYM": "0"},
    **{"NSW": "0", "LWAVE": ".FALSE.", "LCHARG": ".FALSE."},
}


def complain(text):
    print(text, flush=True)
    sys.exit(3)


def read_inputs():
    incar = dict(line.split(" = ", 1) for line in Path("INCAR").read_text().splitlines() if line.strip())
    lines = Path("POSCAR").read_text().splitlines()
    cell = np.array([line.split() for line in lines[2:5]], dtype=float)
    species, counts = lines[5].split(), [int(n) for n in lines[6].split()]
    if lines[7] != "Cartesian" or float(lines[1]) != 1.0 or np.linalg.det(cell) <= 0.0:
        complain("ERROR: POSCAR")
    positions = np.array([line.split() for line in lines[8 : 8 + sum(counts)]], dtype=float)
    titles = [line.split()[3] for line in Path("POTCAR").read_text().splitlines() if "TITEL" in line]
    if [title.split("_")[0] for title in titles] != species:
        complain(f"ERROR: POTCAR {titles} and POSCAR {species} are incompatible")
    if len(species) != len(set(species)):
        complain(f"ERROR: species are not grouped: {species}")
    if Path("KPOINTS").is_file() == ("KSPACING" in incar):
        complain("ERROR: neither or both of KPOINTS and KSPACING")
    for tag, value in PAPER.items():
        given = incar.get(tag, "absent").upper().replace("FALSE", ".FALSE.").replace("..", ".")  # custodian writes False
        if given != value.upper() and tag not in ("KSPACING", "ENCUT"):
            complain(f"ERROR: INCAR {tag} = {incar.get(tag)}, not the paper's {value}")
    return incar, cell, positions, species, counts


def pairs(cell, positions, symbols):
    """Return energy, forces and stress (ASE's sign, eV/Å^3) of phi = A (1 - r^2/rc^2)^3 over all images."""
    reach = np.ceil(CUTOFF * np.linalg.norm(np.linalg.inv(cell), axis=0)).astype(int)
    shifts = np.array([(i, j, k) for i in range(-reach[0], reach[0] + 1) for j in range(-reach[1], reach[1] + 1)
                       for k in range(-reach[2], reach[2] + 1)]) @ cell  # fmt: skip
    a = np.sqrt([STRENGTH[s] for s in symbols])
    energy, forces, virial = 0.0, np.zeros((len(a), 3)), np.zeros((3, 3))
    for i in range(len(a)):
        for j in range(len(a)):
            d = positions[j] + shifts - positions[i]
            r2 = (d**2).sum(axis=1)
            d, r2 = d[(r2 > 1e-12) & (r2 < CUTOFF**2)], r2[(r2 > 1e-12) & (r2 < CUTOFF**2)]
            x = 1.0 - r2 / CUTOFF**2
            energy += 0.5 * a[i] * a[j] * (x**3).sum()
            slope = a[i] * a[j] * -6.0 * x**2 / CUTOFF**2  # d phi/dr / r
            forces[i] += (slope[:, None] * d).sum(axis=0)
            virial += 0.5 * (slope[:, None, None] * d[:, :, None] * d[:, None, :]).sum(axis=0)
    return energy - 5.0 * len(a), forces, virial / np.linalg.det(cell)


def rows(array, indent="   "):
    return "\n".join(indent + "<v> " + " ".join(f"{x:16.8f}" for x in row) + " </v>" for row in array)


def box(name, cell, positions):
    scaled = positions @ np.linalg.inv(cell)
    volume = np.linalg.det(cell)
    return f""" <structure{name} >
  <crystal>
   <varray name="basis" >\n{rows(cell)}\n   </varray>
   <i name="volume"> {volume:16.8f} </i>
   <varray name="rec_basis" >\n{rows(np.linalg.inv(cell).T)}\n   </varray>
  </crystal>
  <varray name="positions" >\n{rows(scaled)}\n  </varray>
 </structure>"""


def write_outputs(incar, cell, positions, species, counts, n_steps):
    symbols = [s for s, n in zip(species, counts) for _ in range(n)]
    energy, forces, stress = pairs(cell, positions, symbols)
    atoms = "".join(f"<rc><c>{s} </c><c> {species.index(s) + 1}</c></rc>\n" for s in symbols)
    types = "".join(
        f"<rc><c> {n}</c><c>{s} </c><c> 10.0</c><c> 5.0</c><c> PAW_PBE {s} 01Jan2000 </c></rc>\n"
        for s, n in zip(species, counts)
    )
    tags = "".join(f'  <i type="string" name="{tag}">{value}</i>\n' for tag, value in incar.items())
    total = (
        f'<i name="e_fr_energy"> {energy:16.8f} </i><i name="e_wo_entrp"> {energy + 0.02:16.8f} </i>'
        f'<i name="e_0_energy"> {energy + 0.01:16.8f} </i>'
    )
    steps = f'  <scstep><time name="total"> 0.1 0.1</time><energy>{total}</energy></scstep>\n' * n_steps
    Path("vasprun.xml").write_text(f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <generator>
  <i name="program" type="string">vasp </i>
  <i name="version" type="string">6.3.0  </i>
  <i name="subversion" type="string">fake serial</i>
 </generator>
 <incar>
{tags} </incar>
 <kpoints>
  <generation param="Gamma">
   <v type="int" name="divisions"> 2 2 2 </v>
   <v name="usershift"> 0.0 0.0 0.0 </v>
  </generation>
  <varray name="kpointlist" >\n{rows(np.zeros((1, 3)))}\n  </varray>
  <varray name="weights" ><v> 1.0 </v></varray>
 </kpoints>
 <parameters>
  <separator name="electronic" >
   <i type="string" name="PREC">normal</i>
   <i name="ENMAX"> {float(incar["ENCUT"]):.8f}</i>
   <i name="NELECT"> {5.0 * len(symbols):.8f}</i>
   <i name="EDIFF"> {float(incar["EDIFF"]):.8f}</i>
   <i type="int" name="IALGO"> 38</i>
   <i type="int" name="ISMEAR"> {incar["ISMEAR"]}</i>
   <i name="SIGMA"> {float(incar["SIGMA"]):.8f}</i>
   <i type="int" name="ISPIN"> {incar["ISPIN"]}</i>
   <i type="logical" name="LREAL"> F </i>
   <i type="int" name="NELM"> {incar.get("NELM", 60)}</i>
   <i type="int" name="IBRION"> -1</i>
   <i type="int" name="NSW"> 0</i>
  </separator>
 </parameters>
 <atominfo>
  <atoms> {len(symbols)} </atoms>
  <types> {len(species)} </types>
  <array name="atoms" >
   <dimension dim="1">ion</dimension>
   <field type="string">element</field>
   <field type="int">atomtype</field>
   <set>\n{atoms}   </set>
  </array>
  <array name="atomtypes" >
   <dimension dim="1">type</dimension>
   <field type="int">atomspertype</field>
   <field type="string">element</field>
   <field>mass</field>
   <field>valence</field>
   <field type="string">pseudopotential</field>
   <set>\n{types}   </set>
  </array>
 </atominfo>
{box(' name="initialpos"', cell, positions)}
 <calculation>
{steps}{box("", cell, positions)}
  <varray name="forces" >\n{rows(forces)}\n  </varray>
  <varray name="stress" >\n{rows(-stress * KBAR)}\n  </varray>
  <energy>{total}</energy>
  <time name="totalsc"> 0.1 0.1</time>
 </calculation>
{box(' name="finalpos"', cell, positions)}
</modeling>
""")
    Path("OUTCAR").write_text(f" vasp.6.3.0 fake\n  free  energy   TOTEN  = {energy:18.8f} eV\n General timing\n")
    Path("CONTCAR").write_text(Path("POSCAR").read_text())


def main():
    mode = sys.argv[1]
    record = Path(__file__).parent / "never" if len(sys.argv) < 3 else Path(sys.argv[2])
    incar, cell, positions, species, counts = read_inputs()
    if mode == "steady":
        with record.open("a") as stream:
            stream.write(f"{hashlib.sha256(positions.tobytes()).hexdigest()} {os.getpid()}\n")
        time.sleep(2.0)
    elif len(sys.argv) > 2:
        seen = {"pid": os.getpid(), "incar": incar, "species": species, "counts": counts, "files": sorted(os.listdir())}
        record.write_text(json.dumps(seen))
    if mode == "slow":
        time.sleep(120.0)
    if mode == "crash":
        print("forrtl: severe (174): SIGSEGV, segmentation fault occurred", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    if mode == "fussy" and incar.get("LREAL") != "False":
        print("WARNING: Sub-Space-Matrix is not hermitian in DAV", flush=True)
    if mode == "swapped":
        species, counts = species[::-1], counts[::-1]
    is_converged = mode != "unconverged" and not (mode == "stubborn" and incar.get("ALGO", "Normal") != "All")
    n_most = int(incar.get("NELM", 60))
    write_outputs(incar, cell, positions, species, counts, n_steps=min(7, n_most) if is_converged else n_most)
    if mode == "cut":
        whole = Path("vasprun.xml").read_text()
        Path("vasprun.xml").write_text(whole[: len(whole) // 2])


if __name__ == "__main__":
    main()
