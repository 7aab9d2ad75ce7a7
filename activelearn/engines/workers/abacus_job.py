"""One job for ABACUS, started as ``python abacus_job.py JOB.json``; writes result.json beside it.

Read is ``OUT.label/running_scf.log``, of version 3 (LTS) and of the versions after it, whose words are others. The
energy is that of "!FINAL_ETOT_IS", the free energy E_KohnSham with the term -TS, to which forces and stress belong; not
"E_KS(sigma->0)". The stress is in kbar, positive in compression. STRU has the species grouped; forces go back in the
caller's order. dpdata reads the same numbers, but not the line "!FINAL_ETOT_IS", which alone has all digits, and has no
word on steps and versions.
"""

import re
from pathlib import Path

import numpy as np
import single_points  # type: ignore[import-not-found]  # a neighbour, by path
from ase import units
from ase.data import atomic_masses, atomic_numbers

XYZ = r"(?P<x>(?:\s+[-+.\dEeNnaAiIfF*]+){3})\s*$"
FORCE = re.compile(rf"\s*(?P<kind>[A-Z][a-z]?)\d+{XYZ}")
STRESS = re.compile(XYZ)
STEP = re.compile(r"\s*(?:PW|LCAO)\s+ALGORITHM\s+-+\s+ION=\s*\d+\s+ELEC=\s*(\d+)|.*#ELEC ITER#\s+(\d+)")
CONVERGED = re.compile(r"charge density convergence is achieved|#SCF IS CONVERGED#")
ENERGY = re.compile(r"\s*!FINAL_ETOT_IS\s+(\S+)\s+eV")


def grouped(atoms):
    """Return the order of atoms in which the species are grouped; within one nothing moves."""
    kinds = single_points.species(atoms)
    return np.argsort([kinds.index(symbol) for symbol in atoms.get_chemical_symbols()], kind="stable")


def write(folder, atoms, request):
    """Write INPUT, STRU, KPT and links to pseudopotentials and orbitals; ABACUS takes no arguments."""
    kinds, symbols = single_points.species(atoms), atoms.get_chemical_symbols()
    keys = {**request["input"], "ntype": len(kinds), "nspin": 2 if request["spin"] else 1}
    (folder / "INPUT").write_text("\n".join(["INPUT_PARAMETERS", *(f"{k} {word(v)}" for k, v in keys.items()), ""]))
    lines = ["ATOMIC_SPECIES"]
    for kind in kinds:
        (folder / f"{kind}.upf").symlink_to(Path(request["pseudopotentials"][kind]))
        lines.append(f"{kind} {atomic_masses[atomic_numbers[kind]]} {kind}.upf")
    if "orbitals" in request:
        lines += ["", "NUMERICAL_ORBITAL", *(f"{kind}.orb" for kind in kinds)]
        for kind in kinds:
            (folder / f"{kind}.orb").symlink_to(Path(request["orbitals"][kind]))
    # Lengths are in units of the lattice constant, which is 1 Å, in Bohr.
    lines += ["", "LATTICE_CONSTANT", f"{1.0 / units.Bohr:.17g}", "", "LATTICE_VECTORS"]
    lines += [*single_points.rows_of(atoms.cell[:]), "", "ATOMIC_POSITIONS", "Cartesian"]
    rows = single_points.rows_of(atoms.positions)
    for kind in kinds:
        own = [row for symbol, row in zip(symbols, rows, strict=True) if symbol == kind]
        moment = request["moments"].get(kind, 1.0) if request["spin"] else 0.0
        lines += ["", kind, f"{moment}", f"{len(own)}", *(f"{row} 0 0 0" for row in own)]
    (folder / "STRU").write_text("\n".join([*lines, ""]))
    mesh = " ".join(map(str, single_points.k_points(atoms, request)))
    (folder / "KPT").write_text(f"K_POINTS\n0\nGamma\n{mesh} 0 0 0\n")
    return []


def word(value):
    """Return a value as INPUT has it."""
    return int(value) if isinstance(value, bool) else value


def read(lines, atoms, _request):
    """Return what a log of ABACUS says."""
    n, order = len(atoms), grouped(atoms)
    begin = max((i for i, line in enumerate(lines) if "TOTAL-FORCE" in line), default=len(lines))
    rows = [found["kind"] for line in lines[begin:] if (found := FORCE.match(line))][:n]
    symbols = [""] * n
    for i, kind in zip(order, rows, strict=False):
        symbols[i] = kind
    steps = [int(found[1] or found[2]) for line in lines if (found := STEP.match(line))]
    n_said = sum(CONVERGED.search(line) is not None for line in lines)
    is_converged = n_said == 1 and steps == list(range(1, len(steps) + 1))

    def numbers():
        energies = [found[1] for line in lines if (found := ENERGY.match(line))]
        if len(energies) != 1:
            raise RuntimeError(f"the log of ABACUS has {len(energies)} lines with '!FINAL_ETOT_IS' - expected one")
        forces = np.empty((n, 3))
        forces[order] = single_points.table(lines, "TOTAL-FORCE (eV/Angstrom)", FORCE, n)
        (heading,) = [line for line in lines if "TOTAL-STRESS (KBAR)" in line.upper()][-1:] or ["TOTAL-STRESS (KBAR)"]
        stress = single_points.table(lines, heading, STRESS, 3)
        return single_points.number(energies[0]), forces, -0.1 * units.GPa * np.array(stress)

    return single_points.Said(symbols, is_converged, len(steps), numbers)


CODE = single_points.Code(
    name="ABACUS",
    output="OUT.label/running_scf.log",
    write=write,
    read=read,
    start=re.compile(r"^\s+ABACUS v(\S+)", re.MULTILINE),
    end="Total  Time  :",
    unconverged=re.compile(r".*(?:convergence has not been achieved|SCF IS NOT CONVERGED).*", re.IGNORECASE),
    impossible=re.compile(r".*two atoms are too close.*", re.IGNORECASE),
    stopped=re.compile(r"(?!)"),
    is_stdout=False,
)


if __name__ == "__main__":
    single_points.main(CODE)
