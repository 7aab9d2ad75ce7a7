"""One job for CP2K (Quickstep), started as ``python cp2k_job.py JOB.json``; writes result.json beside it.

The energy is that of the line "ENERGY| Total FORCE_EVAL", the free energy with the electronic entropy, to which forces
and stress belong. The stress is in GPa, positive in compression. Atoms are in the caller's order. k-points: the
scheme MacDonald with a shift of half a step where a number is even, which makes the mesh Gamma-centred in every
version; a mesh of one point is Gamma without the section of k-points.
"""

import re
from pathlib import Path

import numpy as np
import single_points  # type: ignore[import-not-found]  # a neighbour, by path
from ase import units

#: Rows of a table of forces: up to 2023 "1 1 Si x y z", from 2024 "FORCES| 1 x y z norm".
XYZ = r"(?P<x>(?:\s+[-+.\dEeNna*]+){3})"
FORCE = re.compile(rf"\s*(?:FORCES\|\s+)?(?P<row>\d+)(?:\s+\d+\s+[A-Z][a-z]?)?{XYZ}(?:\s+\S+)?\s*$")
FORCES = re.compile(r"ATOMIC FORCES in \[(.+?)\]|FORCES\| Atomic forces \[(.+?)\]")
STRESS = re.compile(r"STRESS\| Analytical stress tensor \[(\w+)\]")
STRESS_ROW = re.compile(rf"\s*(?:STRESS\|)?\s+[xyz]{XYZ}\s*$")
ENERGY = re.compile(r"\s*ENERGY\| Total FORCE_EVAL \( QS \) energy \[(.+?)\]:?\s+(\S+)")
ATOM = re.compile(r"\s*\d+\s+\d+\s+([A-Z][a-z]?)\s+\d+(?:\s+-?\d+\.\d+){3}")
CONVERGED = re.compile(r"\*\*\* SCF run converged in\s+(\d+) steps \*\*\*")
STEP = re.compile(r"\s*(\d+)\s+[A-Z]\S*(?:\s+[A-Z]\S*)?\s+\d\.\d+E[-+]\d+\s")
IN_ATOMIC = ("a.u.", "hartree", "hartree/bohr")


def write(folder, atoms, request):
    """Write label.inp and the entries of basis sets and potentials; return the arguments of CP2K."""
    kinds = single_points.species(atoms)
    for name, key in (("BASIS", "basis"), ("POTENTIAL", "potentials")):
        (folder / name).write_text("".join(request["data"][kind][key] for kind in kinds))
    if request["d3_file"]:
        (folder / "dftd3.dat").symlink_to(Path(request["d3_file"]))
    tree = request["input"]
    dft = tree["FORCE_EVAL"]["DFT"]
    if request["spin"]:
        dft["UKS"] = True
        dft["MULTIPLICITY"] = multiplicity(atoms.get_chemical_symbols(), request)
        if dft["SCF"].get("ADDED_MOS") == -1:  # all there are, of both spins
            dft["SCF"]["ADDED_MOS"] = "-1 -1"
    mesh = single_points.k_points(atoms, request)
    if mesh != [1, 1, 1]:
        shifts = [0.0 if n % 2 else 0.5 / n for n in mesh]
        scheme = " ".join(["MACDONALD", *map(str, mesh), *(f"{x:.17g}" for x in shifts)])
        dft["KPOINTS"] = {"SCHEME": scheme}
    cell, rows = (single_points.rows_of(numbers) for numbers in (atoms.cell[:], atoms.positions))
    symbols = atoms.get_chemical_symbols()
    tree["FORCE_EVAL"]["SUBSYS"] = {
        "CELL": {**dict(zip("ABC", cell, strict=True)), "PERIODIC": "XYZ"},
        "COORD": {"": [f"{symbol} {row}" for symbol, row in zip(symbols, rows, strict=True)]},
        "KIND": [
            {
                "_": kind,
                "BASIS_SET": request["basis"][kind],
                "POTENTIAL": request["potentials"][kind],
                **({"MAGNETIZATION": request["moments"].get(kind, 1.0)} if request["spin"] else {}),
            }
            for kind in kinds
        ],
    }
    (folder / "label.inp").write_text("\n".join([*lines_of(tree), ""]))
    return ["-i", "label.inp"]


def multiplicity(symbols, request):
    """Return 2S + 1 of the sum of the initial moments, or of the next larger one that this number of electrons has.

    The second line of a potential holds its electrons by angular momentum. With smeared occupations the moment is free
    to change from there on; with fixed ones it stays.
    """
    texts = {kind: request["data"][kind]["potentials"] for kind in set(symbols)}
    electrons = {kind: sum(int(word) for word in text.splitlines()[1].split()) for kind, text in texts.items()}
    n_electrons = sum(electrons[symbol] for symbol in symbols)
    moment = round(sum(request["moments"].get(symbol, 1.0) for symbol in symbols))
    return abs(moment) + 1 + (n_electrons - moment) % 2


def lines_of(tree, indent=""):
    """Yield the lines of an input: sections between & and &END, "_" the parameter of one, a list one line each."""
    for key, values in tree.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, dict):
                yield f"{indent}&{key} {value.get('_', '')}".rstrip()
                yield from lines_of({name: part for name, part in value.items() if name != "_"}, indent + "  ")
                yield f"{indent}&END {key}"
            else:
                word = {True: ".TRUE.", False: ".FALSE."}[value] if isinstance(value, bool) else value
                yield f"{indent}{key} {word}".rstrip() if key else f"{indent}{word}"


def read(lines, atoms, _request):
    """Return what an output of CP2K says.

    The steps are those of the last loop (outer loops restart the count); what the words say must be what was counted.
    """
    n = len(atoms)
    symbols = symbols_of(lines)
    said = [int(found[1]) for line in lines if (found := CONVERGED.search(line))]
    steps = [int(found[1]) for line in lines if (found := STEP.match(line))]
    is_converged = bool(said) and bool(steps) and said[-1] == steps[-1]

    def numbers():
        energies = [found for line in lines if (found := ENERGY.match(line))]
        if not energies:
            raise RuntimeError("the output has no 'ENERGY| Total FORCE_EVAL ( QS )' - expected the energy of Quickstep")
        forces = next((found for line in lines if (found := FORCES.search(line))), None)
        stress = next((found for line in lines if (found := STRESS.search(line))), None)
        units_said = [energies[-1][1], forces and (forces[1] or forces[2]), stress and stress[1]]
        if forces is None or stress is None or {*units_said[:2]} - {*IN_ATOMIC} or units_said[2] != "GPa":
            raise RuntimeError(f"energy, forces, stress in {units_said} - expected atomic units and GPa")
        table = single_points.table
        return (
            single_points.number(energies[-1][2]) * units.Hartree,
            np.array(table(lines, forces[0], FORCE, n)) * units.Hartree / units.Bohr,
            -np.array(table(lines, stress[0], STRESS_ROW, 3)) * units.GPa,
        )

    return single_points.Said(symbols, is_converged, steps[-1] if steps else 0, numbers)


def symbols_of(lines):
    """Return the elements of the table of coordinates, the first one."""
    found = []
    begin = next((i for i, line in enumerate(lines) if "ATOMIC COORDINATES IN" in line.upper()), len(lines))
    for line in lines[begin + 1 :]:
        if match := ATOM.match(line):
            found.append(match[1])
        elif found:
            break
    return found


CODE = single_points.Code(
    name="CP2K",
    output="label.out",
    write=write,
    read=read,
    start=re.compile(r"CP2K\| version string:\s+CP2K version (\S+)"),
    end="PROGRAM ENDED AT",
    unconverged=re.compile(r"SCF (?:run|loop) NOT converged|outer SCF loop FAILED to converge"),
    impossible=re.compile(r"(?!)"),
    stopped=re.compile(r"exceeded requested execution time|external exit", re.IGNORECASE),
)


if __name__ == "__main__":
    single_points.main(CODE)
