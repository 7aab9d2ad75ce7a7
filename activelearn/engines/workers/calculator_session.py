"""A session that labels structures with any ASE calculator, in any interpreter that has numpy and ase.

Started by path; never imports activelearn. One JSON object per line on standard input, one per line on standard
output (see answering.py); whatever a calculator prints goes to standard error, and it finds nothing to read.
"""

import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import answering  # type: ignore[import-not-found]  # a neighbour, by path

_calculators: dict[str, Any] = {}
_begun: list[Any] = []  # the label that is under way, or whose answer the driver may not have published


def load(request):
    """Return the calculator of ``module:Class`` and keyword arguments: loaded once, forgetful of earlier structures."""
    spec = {name: request.get(name) for name in ("calculator", "arguments", "d3")}
    key = json.dumps(spec, sort_keys=True)
    if key not in _calculators:
        module, name = spec["calculator"].split(":")
        make = getattr(importlib.import_module(module), name)
        one_thread()
        made = make(**spec["arguments"])
        if not hasattr(made, "get_forces"):
            raise TypeError(f"{spec['calculator']} makes a {type(made).__name__}, which is no ASE calculator")
        _calculators[key] = with_numbers(answering.with_dispersion(made, spec["d3"]))
        one_thread()
    answering.forget(_calculators[key])
    return _calculators[key]


def with_numbers(calculator):
    """Have a calculator give energies as numbers: ASE's optimizers cannot print an array of one."""
    energy = calculator.get_potential_energy
    calculator.get_potential_energy = lambda *args, **more: answering.number(energy(*args, **more))
    return calculator


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
        "d3_version": answering.d3_version(request),
    }


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


def watch_driver(parent, driver):
    """End this process when the driver is gone (kill -9), also in the middle of a job, unless that is to be kept.

    Under a launcher such as srun the parent lives on; but then nobody holds the other end of its requests any more.
    """
    requests = select.poll()
    requests.register(driver, 0)  # nothing but a hang-up, which is always reported
    while os.getppid() == parent and not requests.poll(1000):
        pass
    for begun in _begun:  # the main thread keeps it, which takes its note away
        begun.watch()
    os._exit(1)


def main():
    """Answer requests until standard input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's; it ends us
    requests, out = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # a code that a calculator starts, such as mpirun, would swallow them
    os.dup2(2, 1)
    threading.Thread(target=watch_driver, args=(os.getppid(), requests.fileno()), daemon=True).start()
    out.write(json.dumps({"id": 0, "ready": True}) + "\n")
    out.flush()
    found = {}
    for line in requests:
        request = json.loads(line)
        with contextlib.suppress(OSError):  # a full disk is the driver's to report
            _begun[:] = []
            _begun[:] = answering.begin(request)
        found = answering.answer(request, load, describe)
        if answering.FAILURES & found.keys():
            _calculators.clear()  # what failed may be half made; the next request finds a new one
        try:
            out.write(json.dumps({**found, "id": request["id"]}) + "\n")
            out.flush()
        except BrokenPipeError:
            break
    for begun in _begun:  # its note stands: no driver has published it
        begun.keep(found)


if __name__ == "__main__":
    main()
