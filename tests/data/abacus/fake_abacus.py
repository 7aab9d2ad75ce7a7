"""A stand-in for ABACUS: reads INPUT, STRU and KPT, complains about wrong ones, and writes a log as ABACUS does.

Energy, forces and stress are those of fake_vasp.py, whose strength depends on the species. The words of the log are
those of version 3.8 (mode lts) or of the versions after 3.9 (mode new); see ORIGIN.md.

usage: python fake_abacus.py MODE
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "vasp"))
from fake_vasp import KBAR, pairs

BOHR = 0.529177210903
RY = 13.605693122994


def complain(text):
    print(f"ERROR: {text}", flush=True)
    sys.exit(1)


def read_inputs():
    """Return keys, cell (Å), symbols and positions (Å)."""
    first, *lines = Path("INPUT").read_text().splitlines()
    if first != "INPUT_PARAMETERS":
        complain("INPUT")
    keys = dict(line.split(maxsplit=1) for line in lines if line.strip())
    blocks, name = {}, None
    for line in Path("STRU").read_text().splitlines():
        if line.strip().isupper() and "_" in line:
            name = line.strip()
            blocks[name] = []
        elif line.strip():
            blocks[name].append(line.split())
    unit = float(blocks["LATTICE_CONSTANT"][0][0]) * BOHR
    cell = unit * np.array(blocks["LATTICE_VECTORS"], dtype=float)
    kinds = [words[0] for words in blocks["ATOMIC_SPECIES"]]
    if blocks["ATOMIC_POSITIONS"][0] != ["Cartesian"] or len(kinds) != int(keys["ntype"]):
        complain("STRU")
    rows, symbols, positions = blocks["ATOMIC_POSITIONS"][1:], [], []
    while rows:
        kind, n = rows[0][0], int(rows[2][0])
        symbols += [kind] * n
        positions += [[float(x) for x in row[:3]] for row in rows[3 : 3 + n]]
        rows = rows[3 + n :]
    if list(dict.fromkeys(symbols)) != kinds:
        complain("species of STRU out of order")
    for words in blocks["ATOMIC_SPECIES"]:
        if f'element="{words[0]}"' not in Path(words[2]).read_text():
            complain(f"pseudopotential of {words[0]}")
    kpt = Path("KPT").read_text().split()
    if kpt[:3] != ["K_POINTS", "0", "Gamma"] or kpt[6:] != ["0", "0", "0"]:
        complain("KPT")
    return keys, cell, symbols, unit * np.array(positions)


def check(keys):
    """Complain of keys that no label has."""
    wanted = {"calculation": "scf", "cal_force": "1", "cal_stress": "1", "symmetry": "0", "suffix": "label"}
    for key, value in wanted.items():
        if keys.get(key) != value:
            complain(f"{key} {keys.get(key)}")
    if keys["basis_type"] == "lcao" and not Path("Na.orb").is_file():
        complain("no orbitals")
    if abs(float(keys["ecutwfc"]) * RY - 400.0) > 1e-3 or abs(float(keys["smearing_sigma"]) * RY - 0.05) > 1e-6:
        complain("ecutwfc or smearing_sigma")


def rows(array, names=None):
    lines = ("".join(f"{x:21.10f}" for x in row) for row in array)
    return "\n".join(f"{name:>10}{line}" for name, line in zip(names or [""] * len(array), lines))


def log(mode, keys, cell, symbols, positions):
    """Return the log of a run."""
    is_new, limit = mode == "new", int(keys["scf_nmax"])
    n_steps = limit if mode == "unconverged" else min(9, limit)
    energy, forces, stress = pairs(cell, positions, symbols)
    names = [f"{symbol}{symbols[: i + 1].count(symbol)}" for i, symbol in enumerate(symbols)]
    if mode == "swapped":
        names = names[::-1]
    text = f"\n                              ABACUS v{'3.9.0.17' if is_new else '3.8.0'}\n\n"
    for k in range(1, n_steps + 1):
        head = f" --> #ION MOVE#         1  #ELEC ITER#{k:10d}" if is_new else f" LCAO ALGORITHM --------------- ION=   1  ELEC={k:4d}-----"
        text += f"\n{head}\n E_KohnSham {energy / RY:20.10f} {energy:20.10f}\n"
        text += f" E_KS(sigma->0) {(energy + 0.1) / RY:20.10f} {energy + 0.1:20.10f}\n E_entropy(-TS) -0.0147 -0.2000\n"
    if mode == "unconverged":
        text += "\n !! convergence has not been achieved @_@\n"
    else:
        text += "\n #SCF IS CONVERGED#\n" if is_new else f"\n charge density convergence is achieved\n final etot is {energy:.8f} eV\n"
    force, kbar = ("#TOTAL-FORCE (eV/Angstrom)#", "#TOTAL-STRESS (kbar)#") if is_new else ("TOTAL-FORCE (eV/Angstrom)", "TOTAL-STRESS (KBAR)")
    line, columns = " " + 73 * "-", f" {'Atoms':>9}{'Force_x':>21}{'Force_y':>21}{'Force_z':>21}\n {73 * '-'}\n"
    text += f"\n {force}\n{line}\n{columns if is_new else ''}{rows(forces, names)}\n{line}\n"
    text += f"\n {kbar}\n{line}\n{rows(-stress * KBAR)}\n{line}\n TOTAL-PRESSURE: {-np.trace(stress) * KBAR / 3:.6f} KBAR\n"
    text += f"\n --------------------------------------------\n !FINAL_ETOT_IS {energy:.16f} eV\n --------------------------------------------\n"
    if mode == "nan":
        text = text.replace(f"{forces[0][0]:21.10f}", f"{'nan':>21}")
    end = "\n Start  Time  : Thu Jul 28 14:26:15 2022\n Finish Time  : Thu Jul 28 14:26:46 2022\n Total  Time  : 0 h 0 mins 31 secs \n"
    return text + ("" if mode == "cut" else end)


def main():
    mode = sys.argv[1]
    keys, cell, symbols, positions = read_inputs()
    check(keys)
    out = Path("OUT.label")
    out.mkdir()
    (out / "running_scf.log").write_text(log(mode, keys, cell, symbols, positions))
    print(" SEE INFORMATION IN : OUT.label/")


if __name__ == "__main__":
    main()
