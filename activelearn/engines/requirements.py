"""Requirements of the backends of DeePMD-kit that an interpreter lacks, as found on disk.

Nothing is started or imported: this takes milliseconds, whereas importing torch takes seconds.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from configparser import ConfigParser, Error
from pathlib import Path
from typing import Final

from activelearn.config import Machine
from activelearn.engines.backends import BACKENDS, Backend
from activelearn.engines.interpreters import folders_of, has_module, lacking_deepmd, root_of, version_of

#: Library of the sessions of a backend, and its key in the build settings of DeePMD-kit.
_LIBRARY: Final = {"tensorflow": "tensorflow", "pytorch": "torch"}
_COMPILED: Final = {"pytorch": "pt_version"}
#: The CUDA runtime that the PyTorch part of DeePMD-kit 3.2 is linked with, also for CPUs; torch ships another.
_CUDART: Final = "libcudart.so.12"
_INSTALL_CUDART: Final = "pip install nvidia-cuda-runtime-cu12"
#: Stations of a campaign that train or run models.
_OF_CAMPAIGN: Final = ("train", "explore")


def problems(
    backend: Backend, machine: Machine, *, where: str, compiles: bool = False, stations: Sequence[str] = _OF_CAMPAIGN
) -> list[str]:
    """Return what a backend lacks on this machine, one line each.

    Parameters
    ----------
    backend
        The backend.
    machine
        The whole profile.
    where
        What needs it: ``train.backend: pytorch``.
    compiles
        Whether a model is compiled when it is frozen (``.pt2``).
    stations
        Stations that need it.
    """
    found: list[str] = []
    for here in [machine.at(station) for station in stations]:
        if root_of(here.python) is not None:  # else there is no interpreter that could lack anything
            found += _of_library(backend, here, where)
    if not found and compiles and _must_have_compiler(machine) and _compiler() is None:
        found.append(
            f"{where}: its models are compiled when they are frozen (.pt2), and there is no g++ on the PATH - expected "
            "a C++ compiler - apt-get install g++, or CXX=/path/to/one"
        )
    return list(dict.fromkeys(found))


def notes(backend: Backend, machine: Machine) -> list[str]:
    """Return notes on the interpreter of a non-default backend, and on what it or `lmp` would lack.

    For engines on other nodes there is no other check: a named interpreter is on a disk that is visible here, or is
    not examined.
    """
    library = _LIBRARY[backend.session]
    found = []
    for here in [machine.at(station) for station in _OF_CAMPAIGN]:
        missing = lacking_deepmd(here) if library == "tensorflow" else []
        if lacks := [*missing, *_of_library(backend, here, f"train.backend: {backend.name}")] if _is_seen(here) else []:
            found += lacks
            continue
        if library == "tensorflow" or root_of(here.python) is None:
            continue
        versions = [f"{name} {version_of(name, here.python) or '(not seen)'}" for name in ("deepmd-kit", library)]
        found.append(f"{_named(here)} trains and runs the models: {', '.join(versions)}; others keep this interpreter")
        if machine.lammps is None and _lacks_cudart(here):
            found.append(
                f"{_named(here)} has no {_CUDART}: the models run here, and not by `lmp` from a shell - to export "
                f"them: {_INSTALL_CUDART}, into it"
            )
    return list(dict.fromkeys(found))


def trains_by(python: str | None, versions: Mapping[str, str]) -> tuple[str, ...]:
    """Return the backends that an interpreter (null: this one) has, by the versions that it reports."""
    compiled = compiled_with(BACKENDS["pytorch"], python)
    is_fit = "torch" in versions and (compiled is None or _fits(versions["torch"], compiled))
    has = {"tensorflow": bool({"tensorflow", "tensorflow-cpu"} & versions.keys()), "pytorch": is_fit}
    return tuple(name for name, one in BACKENDS.items() if has[one.session])


def compiled_with(backend: Backend, python: str | None) -> str | None:
    """Return the version of a library that DeePMD-kit was compiled with; empty: without it; None: not given."""
    for folder in folders_of(python):
        settings = ConfigParser(strict=False, interpolation=None)
        try:
            settings.read(folder / "deepmd" / "lib" / "run_config.ini")
            return settings["CONFIG"][_COMPILED[backend.session]].strip()
        except (KeyError, OSError, UnicodeDecodeError, Error):
            continue
    return None


def _of_library(backend: Backend, machine: Machine, where: str) -> Iterator[str]:
    """Yield problems if an interpreter lacks the library, or has another version than DeePMD-kit needs."""
    library, python = _LIBRARY[backend.session], machine.python
    own = f"expected {backend.install}" if backend.session == "tensorflow" else "expected a separate interpreter for it"
    if backend.session == "tensorflow" and not has_module("deepmd", python):
        return  # reported with the engines, with the same remedy
    if not has_module(library, python):
        yield f"{where}: {_named(machine)} has no {library} - {own} - {_install(backend)}"
        return
    if not has_module("deepmd", python):
        yield f"{where}: {_named(machine)} has no deepmd - {own} - {_install(backend)}"
        return
    if backend.session not in _COMPILED:
        return
    there, compiled = version_of(library, python), compiled_with(backend, python)
    if compiled == "":
        yield f"{where}: the deepmd-kit of {_named(machine)} was built without {library} - {own} - {_install(backend)}"
    elif there is not None and compiled is not None and not _fits(there, compiled):
        deepmd = version_of("deepmd-kit", python) or ""
        yield (
            f"{where}: {_named(machine)} has {library} {there}, and its deepmd-kit {deepmd} was compiled with "
            f"{compiled} - {own} - {_install(backend)}"
        )
    elif machine.lammps is not None and _is_of(machine.lammps, python) and _lacks_cudart(machine):
        yield (
            f"machine.lammps: {machine.lammps} fails to start with models of PyTorch, since {_named(machine)} has "
            f"no {_CUDART} - needed on a CPU, too - {_INSTALL_CUDART}, into it; or leave machine.lammps out"
        )


def _is_seen(machine: Machine) -> bool:
    return machine.python is not None and root_of(machine.python) is not None


def _fits(there: str, compiled: str) -> bool:
    """Return whether a library is of the release (2.11 of 2.11.0+cpu) that something was compiled with."""
    return there.partition("+")[0].split(".")[:2] == compiled.split(".")[:2]


def _named(machine: Machine) -> str:
    return machine.python or "this interpreter"


def _install(backend: Backend) -> str:
    if backend.session == "tensorflow":
        return backend.install
    line = backend.install.partition(", in ")[0]
    return f"python3 -m venv torch-venv && torch-venv/bin/{line}, and machine.python: torch-venv/bin/python"


def _is_of(command: str, python: str | None) -> bool:
    """Return whether a command starts a program of an interpreter's environment."""
    words = shlex.split(command)
    program = shutil.which(words[-1]) if words else None
    root = root_of(python)
    return program is not None and root is not None and Path(program).absolute().is_relative_to(root)


def _lacks_cudart(machine: Machine) -> bool:
    beside = [path for folder in folders_of(machine.python) for path in folder.glob(f"nvidia/*/lib/{_CUDART}")]
    paths = {**os.environ, **machine.environment}.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    return not beside and not any((Path(path) / _CUDART).exists() for path in paths if path)


def _must_have_compiler(machine: Machine) -> bool:
    """Return whether this PATH matters, which is not so if other nodes train."""
    return machine.launcher is None and not machine.places


def _compiler() -> str | None:
    return shutil.which((os.environ.get("CXX", "").split() or ["g++"])[0])
