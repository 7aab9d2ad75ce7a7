"""One job for FHI-aims, started as ``python aims_job.py JOB.json``; writes result.json beside it.

The energy is the "Electronic free energy" of the last summary, to which forces and stress belong; not "Total energy
corrected", which is extrapolated to zero width and which ASE takes for a metal. The stress is in eV/Å^3, positive in
tension. Atoms are in the caller's order.
"""

import re
from pathlib import Path

import numpy as np
import single_points  # type: ignore[import-not-found]  # a neighbour, by path

XYZ = r"(?P<x>(?:\s+[-+.\dEeNna*]+){3})\s*"
FORCE = re.compile(rf"\s*\|\s+(?P<row>\d+){XYZ}$")
STRESS = re.compile(rf"\s*\|\s+[xyz]{XYZ}\|\s*$")
ATOM = re.compile(r"\s*\|\s+\d+:\s+Species\s+([A-Z][a-z]?)\s")
STEP = re.compile(r"\s*Begin self-consistency iteration #\s*(\d+)")
ENERGY = re.compile(r"\s*\| Electronic free energy\s*:\s*(\S+) eV\s*$")


def write(folder, atoms, request):
    """Write geometry.in and control.in, with the species defaults below it; FHI-aims takes no arguments."""
    keys = {**request["input"], "spin": "collinear" if request["spin"] else "none"}
    keys["k_grid"] = " ".join(map(str, single_points.k_points(atoms, request)))
    lines = [f"{key} {word(value)}" for key, value in keys.items()]
    texts = [Path(request["species"][kind]).read_text(errors="replace") for kind in single_points.species(atoms)]
    (folder / "control.in").write_text("\n".join([*lines, "", *texts]))
    geometry = [f"lattice_vector {row}" for row in single_points.rows_of(atoms.cell[:])]
    for symbol, row in zip(atoms.get_chemical_symbols(), single_points.rows_of(atoms.positions), strict=True):
        geometry.append(f"atom {row} {symbol}")
        if request["spin"]:
            geometry.append(f"initial_moment {request['moments'].get(symbol, 1.0)}")
    (folder / "geometry.in").write_text("\n".join([*geometry, ""]))
    return []


def word(value):
    """Return a value as control.in has it."""
    return {True: ".true.", False: ".false."}[value] if isinstance(value, bool) else value


def read(lines, atoms, _request):
    """Return what an output of FHI-aims says."""
    n = len(atoms)
    symbols = [found[1] for line in lines if (found := ATOM.match(line))][:n]
    steps = [int(found[1]) for line in lines if (found := STEP.match(line))]
    n_said = sum("Self-consistency cycle converged." in line for line in lines)
    is_converged = n_said == 1 and steps == list(range(1, len(steps) + 1))

    def numbers():
        energies = [found[1] for line in lines if (found := ENERGY.match(line))]
        if not energies:
            raise RuntimeError("the output has no 'Electronic free energy' - expected the summary at its end")
        forces = single_points.table(lines, "Total atomic forces (unitary forces", FORCE, n)
        stress = single_points.table(lines, "Analytical stress tensor - Symmetrized", STRESS, 3)
        return single_points.number(energies[-1]), np.array(forces), np.array(stress)

    return single_points.Said(symbols, is_converged, len(steps), numbers)


CODE = single_points.Code(
    name="FHI-aims",
    output="aims.out",
    write=write,
    read=read,
    start=re.compile(r"^\s*(?:FHI-aims version\s*:|Version)\s+(\S+)", re.MULTILINE),
    end="Have a nice day.",
    unconverged=re.compile(r".*(?:SCF cycle not converged|SELF-CONSISTENCY CYCLE DID NOT CONVERGE).*", re.IGNORECASE),
    impossible=re.compile(r".*atoms.* (?:too close|on top of each other).*", re.IGNORECASE),
    stopped=re.compile(r".*(?:wall ?time limit|time limit reached).*", re.IGNORECASE),
)


if __name__ == "__main__":
    single_points.main(CODE)
