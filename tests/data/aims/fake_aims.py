"""A stand-in for FHI-aims: reads control.in and geometry.in, complains about wrong ones, prints as FHI-aims does.

Energy, forces and stress are those of fake_vasp.py, whose strength depends on the species.

usage: python fake_aims.py MODE
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "vasp"))
from fake_vasp import pairs

HARTREE = 27.211386245988


def complain(text):
    print(f"  *** {text}", flush=True)
    sys.exit(1)


def read_inputs():
    """Return keys, cell (Å), symbols and positions (Å)."""
    lines = [line.split() for line in Path("control.in").read_text().splitlines() if line.strip()]
    species = [words[1] for words in lines if words[0] == "species"]
    head = lines[: next(i for i, words in enumerate(lines) if words[0] == "species")]
    keys = {words[0]: " ".join(words[1:]) for words in head}
    geometry = [line.split() for line in Path("geometry.in").read_text().splitlines()]
    cell = np.array([words[1:4] for words in geometry if words[0] == "lattice_vector"], dtype=float)
    atoms = [words for words in geometry if words[0] == "atom"]
    symbols = [words[4] for words in atoms]
    if sorted(set(symbols)) != sorted(species) or len(cell) != 3:
        complain(f"species {species} of control.in, {symbols} of geometry.in")
    wanted = {"compute_forces": ".true.", "compute_analytical_stress": ".true.", "xc": "pbe", "k_grid": "2 2 2"}
    for key, value in wanted.items():
        if keys.get(key) != value:
            complain(f"{key} {keys.get(key)}")
    if keys["occupation_type"] != "gaussian 0.05":
        complain(keys["occupation_type"])
    return keys, cell, symbols, np.array([words[1:4] for words in atoms], dtype=float)


def bar(text):
    return f"  |{text:<67}|\n"


def main():
    mode = sys.argv[1]
    keys, cell, symbols, positions = read_inputs()
    limit = int(keys["sc_iter_limit"])
    energy, forces, stress = pairs(cell, positions, symbols)
    print("------------------------------------------------------------\n          Invoking FHI-aims ...\n")
    print(f"  FHI-aims version      : 221103\n  Commit number         : 7a1f4d8\n\n  | Number of atoms                   :{len(symbols):9d}\n  Input geometry:\n  | Unit cell:")
    for row in cell:
        print("  |" + "".join(f"{x:16.8f}" for x in row))
    print("  | Atomic structure:\n  |       Atom                x [A]            y [A]            z [A]")
    for i, (symbol, row) in enumerate(zip(symbols[::-1] if mode == "swapped" else symbols, positions)):
        print(f"  |{i + 1:5d}: Species {symbol:<14}" + "".join(f"{x:17.8f}" for x in row))
    n_steps = limit if mode == "unconverged" else min(11, limit)
    for k in range(1, n_steps + 1):
        print(f"\n          Begin self-consistency iteration #{k:5d}\n")
        print(f"  | Electronic free energy        : {energy / HARTREE:20.8f} Ha {energy:20.8f} eV")
    if mode == "unconverged":
        print("\n  *** scf_solver: SCF cycle not converged.\n")
        sys.exit(1)
    print("\n  Self-consistency cycle converged.\n")
    edge = f"  +{67 * '-'}+\n"
    tensor = edge + bar("              Analytical stress tensor - Symmetrized")
    tensor += bar("                  Cartesian components [eV/A**3]") + edge
    tensor += bar("                x                y                z") + bar("")
    for name, row in zip("xyz", stress):
        tensor += bar(f"  {name} " + "".join(f"{x:17.8f}" for x in row))
    print(tensor + bar("") + bar(f"  Pressure:  {-np.trace(stress) / 3:17.8f}   [eV/A**3]"))
    print("  Energy and forces in a compact form:")
    print(f"  | Total energy uncorrected      : {energy + 0.2:25.15E} eV")
    print(f"  | Total energy corrected        : {energy + 0.1:25.15E} eV  <-- do not rely on this value for anything")
    print(f"  | Electronic free energy        : {energy:25.15E} eV")
    print("  Total atomic forces (unitary forces cleaned) [eV/Ang]:")
    for i, row in enumerate(forces):
        numbers = ["NaN"] * 3 if mode == "nan" and i == 0 else [f"{x:.15E}" for x in row]
        print(f"  |{i + 1:5d}" + "".join(f"{x:>30}" for x in numbers))
    if mode != "cut":
        print("\n\n          Have a nice day.\n------------------------------------------------------------")


if __name__ == "__main__":
    main()
