"""One job for Quantum ESPRESSO's pw.x, started as ``python espresso_job.py JOB.json``; writes result.json beside it.

The energy is that of the line with "!", the free energy F = E - TS, to which forces and stress belong. The stress is in
Ry/bohr^3, positive in compression. Atoms are in the caller's order. Pseudopotentials are linked into the folder of
the run under short names, so that no path is too long for pw.x.
"""

import re
from pathlib import Path

import numpy as np
import single_points  # type: ignore[import-not-found]  # a neighbour, by path
from ase import units
from ase.data import atomic_masses, atomic_numbers
from ase.io.espresso_namelist.namelist import Namelist

XYZ = r"(?P<x>(?:\s+\S+){3})\s*$"
FORCE = re.compile(rf"\s*atom\s+(?P<row>\d+)\s+type\s+\d+\s+force\s+={XYZ}")
STRESS = re.compile(r"(?P<x>(?:\s+\S+){3})(?:\s+\S+){3}\s*$")
SITE = re.compile(r"\s*(\d+)\s+([A-Z][a-z]?)\S*\s+tau\(")
ENERGY = re.compile(r"!!?\s+total energy\s+=")
LOOP, STEP = "Self-consistent Calculation", re.compile(r"\s*iteration #")
CONVERGED = re.compile(r"\s*convergence has been achieved in\s+(\d+) iterations")
#: Columns of a number that Fortran printed without a space before a minus sign.
GLUED = re.compile(r"(?<=\d)-(?=\d)")


def write(folder, atoms, request):
    """Write pw.in, and links to the pseudopotentials; return the arguments of pw.x."""
    kinds = single_points.species(atoms)
    keys = dict(request["input"])
    keys |= {"nat": len(atoms), "ntyp": len(kinds)}
    if request["spin"]:
        keys["nspin"] = 2
        for i, kind in enumerate(kinds):
            share = request["moments"].get(kind, 1.0) / request["valences"][kind]
            keys[f"starting_magnetization({i + 1})"] = float(np.clip(share, -1.0, 1.0))
    namelists = Namelist(keys)
    namelists.to_nested("pw")
    lines = [namelists.to_string(), "ATOMIC_SPECIES"]
    for kind in kinds:
        source = Path(request["pseudopotentials"][kind])
        (folder / f"{kind}{source.suffix}").symlink_to(source)
        lines.append(f"{kind} {atomic_masses[atomic_numbers[kind]]} {kind}{source.suffix}")
    lines += ["CELL_PARAMETERS angstrom", *single_points.rows_of(atoms.cell[:]), "ATOMIC_POSITIONS angstrom"]
    positions = single_points.rows_of(atoms.positions)
    lines += [f"{symbol} {row}" for symbol, row in zip(atoms.get_chemical_symbols(), positions, strict=True)]
    mesh = single_points.k_points(atoms, request)
    shifts = [int(request["monkhorst_pack"] and n % 2 == 0) for n in mesh]
    lines += ["K_POINTS automatic", " ".join(map(str, [*mesh, *shifts])), ""]
    (folder / "pw.in").write_text("\n".join(lines))
    return ["-in", "pw.in"]


def read(lines, atoms, _request):
    """Return what an output of pw.x says.

    A hybrid functional has several loops: each must have converged, and the loop around them. Sites are printed twice
    (in units of the lattice, too) with ``verbosity: high``.
    """
    n = len(atoms)
    sites = {found[1]: found[2] for line in lines if (found := SITE.match(line))}
    begins = [i for i, line in enumerate(lines) if LOOP in line]
    loops = [lines[i:j] for i, j in zip(begins, [*begins[1:], len(lines)], strict=True)]
    steps = [sum(STEP.match(line) is not None for line in loop) for loop in loops]
    said = [[int(found[1]) for line in loop if (found := CONVERGED.match(line))] for loop in loops]
    is_whole = len(loops) == 1 or any("EXX self-consistency reached" in line for line in lines)
    is_converged = is_whole and bool(loops) and said == [[k] for k in steps]

    def numbers():
        energies = [line.split("=")[1].split()[0] for line in lines if ENERGY.match(line)]  # hybrids have several
        plain = [GLUED.sub(" -", line) for line in lines]
        forces = single_points.table(plain, "Forces acting on atoms", FORCE, n)
        stress = single_points.table(plain, "total   stress", STRESS, 3)
        return (
            single_points.number(energies[-1]) * units.Ry,
            np.array(forces) * units.Ry / units.Bohr,
            -np.array(stress) * units.Ry / units.Bohr**3,
        )

    return single_points.Said([*sites.values()], is_converged, max(steps, default=0), numbers)


CODE = single_points.Code(
    name="pw.x",
    output="pw.out",
    write=write,
    read=read,
    start=re.compile(r"Program PWSCF v\.(\S+) starts"),
    end="JOB DONE.",
    unconverged=re.compile(r"convergence NOT achieved after.*|.*too many bands are not converged.*"),
    impossible=re.compile(r".*atoms #.*(?:overlap|differ by lattice vector).*|.*charge is wrong.*"),
    stopped=re.compile(r"Maximum CPU time exceeded|Program stopped by user request"),
)


if __name__ == "__main__":
    single_points.main(CODE)
