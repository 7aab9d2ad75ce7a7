"""One job for VASP under custodian, started as ``python vasp_job.py JOB.json``; writes result.json next to it.

The jobs are those of answering.py (label, md, relax), with a calculator that runs one single point per call in a
folder of its own. Files are written with the species grouped, as POTCAR requires; forces are returned in the caller's
order.

A label is refused, with its reason, if the electronic loop used up its iterations (NELM), if custodian gave up on
errors that VASP itself reported, or if it saved the run by changing anything but how the SCF is iterated. A crash, a
missing program or unreadable output is an error: infrastructure.
"""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import single_points  # type: ignore[import-not-found]  # a neighbour, by path
from ase import units
from ase.calculators.calculator import CalculationFailed, Calculator, SCFError, all_changes

#: Tags that affect the SCF iteration, not the converged result: custodian may change them.
ITERATION_TAGS = {
    *("ALGO", "IALGO", "ISEARCH", "TIME", "NELM", "NELMIN", "NELMDL", "ICHARG", "ISTART", "LPLANE", "NSIM"),
    *("AMIX", "BMIX", "AMIN", "AMIX_MAG", "BMIX_MAG", "IMIX", "MAXMIX", "WC", "INIMIX", "MIXPRE"),
    *("NBANDS", "NCORE", "NPAR", "KPAR", "LSCALAPACK", "POTIM", "IBRION"),
}
#: Polling interval of custodian in seconds, and polls between checks of the output.
POLL_S, LOOKS = 0.5, 120

_running: list[Any] = []  # the VaspJob whose process must not outlive us


class Vasp(Calculator):
    """Energy (free), forces and stress by one VASP run per call."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 - as ASE has it

    def __init__(self, request, folder):
        super().__init__()
        self.request, self.folder, self.n_runs = request, folder, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Write the files, run, check custodian's changes, read."""
        super().calculate(atoms, properties, system_changes)
        folder = self.folder / f"run-{self.n_runs}"
        folder.mkdir()
        self.n_runs += 1
        order = grouped(atoms.get_chemical_symbols(), list(self.request["potcars"]))
        write_inputs(folder, atoms, order, self.request)
        before = contents(folder)
        gave_up = run_under_custodian(folder, self.request)
        self.results = read(folder, atoms, order, self.request["version"], gave_up)
        changed = forbidden_changes(before, contents(folder))
        if changed:
            raise CalculationFailed(f"custodian changed the level of theory: {', '.join(changed)}")
        for path in folder.iterdir():  # one by one: the folder is removed with the job's by its owner
            if path.is_symlink() or not path.is_dir():
                path.unlink()


def grouped(symbols, elements):
    """Return the order of atoms that groups species in the order of `elements`, stable within a species."""
    return np.argsort([elements.index(symbol) for symbol in symbols], kind="stable")


def write_inputs(folder, atoms, order, request):
    """Write INCAR, POSCAR, POTCAR and, if a mesh is given, KPOINTS."""
    symbols = [atoms.symbols[i] for i in order]
    species = list(dict.fromkeys(symbols))
    cell = single_points.right_handed(atoms).cell[:]  # as VASP needs it
    numbers = single_points.rows_of([*cell, *atoms.positions[order]])
    counts = " ".join(str(symbols.count(element)) for element in species)
    lines = ["activelearn", "1.0", *numbers[:3], " ".join(species), counts, "Cartesian", *numbers[3:]]
    (folder / "POSCAR").write_text("\n".join(lines) + "\n")
    (folder / "POTCAR").write_bytes(b"".join(Path(request["potcars"][element]).read_bytes() for element in species))
    titles = [line.split()[3] for line in (folder / "POTCAR").read_text("latin-1").splitlines() if "TITEL" in line]
    if [title.split("_")[0] for title in titles] != species:
        raise RuntimeError(f"POTCAR is for {titles}, POSCAR for {species}")
    (folder / "INCAR").write_text("".join(f"{tag} = {written(value)}\n" for tag, value in request["incar"].items()))
    if request["kpoints"]:
        mesh = " ".join(str(n) for n in request["kpoints"])
        (folder / "KPOINTS").write_text(f"activelearn\n0\nGamma\n{mesh}\n0 0 0\n")


def written(value):
    """Return the value of a tag in VASP's format."""
    if isinstance(value, bool):
        return ".TRUE." if value else ".FALSE."
    return " ".join(map(written, value)) if isinstance(value, list) else str(value)


def contents(folder):
    """Return what defines the calculation: the tags of INCAR and the contents of the other input files."""
    from pymatgen.io.vasp.inputs import Incar

    files = {
        name: (folder / name).read_bytes() for name in ("POSCAR", "POTCAR", "KPOINTS") if (folder / name).is_file()
    }
    return {**files, **Incar.from_file(folder / "INCAR")}


def forbidden_changes(before, after):
    """Return what custodian changed that affects the result, one phrase each."""
    keys = [key for key in {**before, **after} if key not in ITERATION_TAGS and before.get(key) != after.get(key)]
    files = ("POSCAR", "POTCAR", "KPOINTS")
    return [key if key in files else f"{key} {before.get(key)} -> {after.get(key)}" for key in keys]


def run_under_custodian(folder, request):
    """Run VASP to its end; return why custodian gave up, or None."""
    from custodian import custodian
    from custodian.vasp import handlers, jobs, validators

    job = jobs.VaspJob(request["command"], backup=False, auto_gamma=False)
    _running[:] = [job]
    runner = custodian.Custodian(
        [
            handlers.VaspErrorHandler(),
            handlers.UnconvergedErrorHandler(),
            handlers.NonConvergingErrorHandler(),
            handlers.PositiveEnergyErrorHandler(),
        ],
        [job],
        validators=[validators.VasprunXMLValidator()],
        max_errors=request["max_corrections"],
        polling_time_step=POLL_S,
        monitor_freq=LOOKS,
        directory=str(folder),
    )
    try:
        runner.run()
    except (custodian.NonRecoverableError, custodian.MaxCorrectionsError, custodian.MaxCorrectionsPerJobError):
        errors = [name for entry in runner.run_log for fix in entry["corrections"] for name in fix["errors"]]
        return ", ".join(dict.fromkeys(map(str, errors)))
    except custodian.CustodianError as error:
        raise RuntimeError(f"{error.message} {last_words(folder)}") from error
    finally:
        _running.clear()
    return None


def last_words(folder):
    """Return the last lines of what VASP printed."""
    text = "".join(
        (folder / name).read_text(errors="replace") for name in ("vasp.out", "std_err.txt") if (folder / name).is_file()
    )
    return " | ".join(text.splitlines()[-5:])


def read(folder, atoms, order, version, gave_up, name="vasprun.xml"):
    """Return the results of a run, in the caller's order of atoms.

    The energy is VASP's free energy (TOTEN), to which forces and stress belong. VASP's stress is in kbar and positive
    in compression; ASE's is in eV/Å^3 and positive in tension.
    """
    from pymatgen.io.vasp.outputs import Vasprun

    try:
        run = Vasprun(str(folder / name), parse_dos=False, parse_eigen=False, parse_potcar_file=False)
    except Exception as error:
        if gave_up is None:
            raise
        raise CalculationFailed(f"custodian gave up: {gave_up}") from error
    n_iterations, nelm = len(run.ionic_steps[-1]["electronic_steps"]), int(run.parameters.get("NELM", 60))
    if not 0 < n_iterations < nelm:  # pymatgen's converged_electronic has exceptions: ALGO = Exact, LEPSILON, ML_LMLFF
        raise SCFError(
            f"the electronic loop did not converge in {n_iterations} iterations, NELM = {nelm} (custodian tried: "
            f"{gave_up or 'nothing'})"
        )
    if gave_up is not None:
        raise CalculationFailed(f"custodian gave up: {gave_up}")
    if run.vasp_version.split()[0] != version:
        raise RuntimeError(f"this is VASP {run.vasp_version} - expected {version} (label.reference.vasp.version)")
    if run.atomic_symbols != [atoms.symbols[i] for i in order]:
        raise RuntimeError(f"vasprun.xml is of {run.atomic_symbols}, POSCAR is not")
    last = run.ionic_steps[-1]
    energy = float(last["e_fr_energy"])
    forces = np.empty((len(atoms), 3))
    forces[order] = last["forces"]
    stress = -0.1 * units.GPa * np.array(last["stress"])
    voigt = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    return {"energy": energy, "free_energy": energy, "forces": forces, "stress": voigt}


def end_with(parent):
    """End VASP and this process when the parent is gone, since custodian starts VASP in its own session."""
    while os.getppid() == parent:
        time.sleep(0.3)
    for job in _running:
        with contextlib.suppress(AttributeError, ProcessLookupError):
            os.killpg(job._vasp_process.pid, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    single_points.outliving(end_with, Vasp)
