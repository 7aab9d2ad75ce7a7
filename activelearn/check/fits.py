"""Ranks, slots, CPUs and GPUs of a place: whether what runs side by side in one job fits into what the job asks for."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from activelearn.config import Campaign, Machine, Place, Study
from activelearn.config.machine import n_cpus, n_gpus

#: What starts ranks, by the name of the program.
_MPI: Final = re.compile(r"(mpirun|mpiexec|orterun|prterun)([.\w-]*)")
#: Options that say how many ranks there are, and how many CPUs each has.
_RANKS: Final = {"mpi": ("-n", "-np", "--np", "--n", "-c"), "srun": ("-n", "--ntasks")}
_CPUS: Final = {"mpi": (), "srun": ("-c", "--cpus-per-task")}
_THREADS: Final = "OMP_NUM_THREADS"
_GPUS: Final = ("-G", "--gpus", "--gpus-per-task", "--gres")
#: Stations whose tasks ask the reference, and those whose tasks run LAMMPS.
_LABELLING: Final = ("prepare", "initial", "label")
_WALKING: Final = ("explore", "glass", "benchmark")


@dataclass(frozen=True)
class Started:
    """What a command starts: ranks, CPUs of each, and GPUs in all; None: it does not say."""

    ranks: int | None = None
    cpus: int | None = None
    gpus: int | None = None


def started(command: str | None) -> Started:
    """Return what a command (``mpirun -n 32 vasp_std``, ``srun --ntasks=1 --cpus-per-task=4``) says that it starts."""
    words = shlex.split(command or "")
    names = [Path(word).name for word in words]
    at = next((i for i, name in enumerate(names) if name == "srun" or _MPI.fullmatch(name)), None)
    if at is None:
        return Started()
    kind, options = ("srun" if names[at] == "srun" else "mpi"), words[at + 1 :]
    ranks, cpus = _value(options, _RANKS[kind]), _value(options, _CPUS[kind])
    gpus = next((n for n in map(n_gpus, _values(options, _GPUS)) if n is not None), None) if kind == "srun" else None
    return Started(_number(ranks), _number(cpus or _threads_in(words)), gpus)


def _threads_in(words: Sequence[str]) -> str | None:
    """Return the threads of a rank as a command says them: ``env OMP_NUM_THREADS=4``, ``-genv OMP_NUM_THREADS 4``."""
    return _value(words, (_THREADS,)) or next(
        (word.partition("=")[2] for word in words if word.startswith(f"{_THREADS}=")), None
    )


def _values(options: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """Yield the values of options: ``--name=value``, ``--name value``, ``-n value`` and ``-nvalue``."""
    for i, word in enumerate(options):
        for name in names:
            if word == name and i + 1 < len(options):
                yield options[i + 1]
            elif name.startswith("--") and word.startswith(f"{name}="):
                yield word.partition("=")[2]
            elif len(name) == 2 and re.fullmatch(rf"{name}\d+", word):
                yield word[2:]


def _value(options: Sequence[str], names: Sequence[str]) -> str | None:
    return next(_values(options, names), None)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


# --- what contradicts -------------------------------------------------------------------------------------------------


def contradictions(asked: Campaign | Study, machine: Machine) -> list[str]:
    """Return one line for each place whose ranks, slots, CPUs or GPUs contradict."""
    problems = [line for name, place in machine.places.items() for line in _gpus(name, place, machine)]
    for (name, command), stations in _by_place(asked, machine).items():
        n = machine.places[name].queue.n_cpus if name is not None else None
        if n is not None:
            of = ", ".join(stations)
            problems += _of_station(of, command, machine.at(stations[0]), n, f"machine.places.{name}")
    return list(dict.fromkeys(problems))


def crowded(asked: Campaign | Study, machine: Machine) -> list[str]:
    """Return one line for each command that takes more CPUs here than there are: possible, and slow."""
    if machine.places or machine.launcher:
        return []
    return [
        line
        for (_, command), stations in _by_place(asked, machine).items()
        if started(command).ranks is not None
        for line in _of_station(", ".join(stations), command, machine, n_cpus(), "machine")
    ]


def _by_place(asked: Campaign | Study, machine: Machine) -> dict[tuple[str | None, str | None], list[str]]:
    """Return the stations by the place where they run and the command that starts their engine."""
    found: dict[tuple[str | None, str | None], list[str]] = {}
    for station, command in _commands(asked, machine):
        found.setdefault((machine.place_name(station), command), []).append(station)
    return found


def _commands(asked: Campaign | Study, machine: Machine) -> Iterator[tuple[str, str | None]]:
    """Yield stations, each with the command that starts its engine; None: the engine is one process."""
    if isinstance(asked, Campaign):
        yield from ((station, asked.label.reference.command) for station in _LABELLING)
        yield from ((station, None) for station in ("train", "final"))
    force_error = asked.benchmark.force_error if asked.benchmark is not None else None
    if force_error is not None and force_error.label is not None and force_error.label.reference.command is not None:
        yield "benchmark", force_error.label.reference.command
    is_study = isinstance(asked, Study) or asked.glass is not None or asked.benchmark is not None
    for station in _WALKING:
        if is_study if station != "explore" else isinstance(asked, Campaign):
            yield station, machine.at(station).lammps


def _of_station(station: str, command: str | None, machine: Machine, n: int, where: str) -> Iterator[str]:
    """Yield what does not fit into the `n` CPUs of a job."""
    step, engine, threads = started(machine.launcher), started(command), _threads(machine.environment)
    of_step = None if step.ranks is None and step.cpus is None else (step.ranks or 1) * (step.cpus or 1)
    of_engine = (engine.ranks or 1) * max(engine.cpus or 1, threads)
    said = f"{command!r}" if command is not None and engine.ranks is not None else "an engine"
    said += f" with OMP_NUM_THREADS={threads}" if threads > 1 else ""
    if of_step is not None and of_engine > of_step:
        yield (
            f"{where}.launcher: {machine.launcher!r} gives a task {of_step} CPUs, and at station {station} {said} "
            f"takes {of_engine} - expected as many as it starts - say --cpus-per-task={of_engine} in the launcher, or "
            "start fewer"
        )
        return
    each = max(of_step or 1, of_engine)
    slots = machine.slots if machine.slots is not None else n
    if each > n:
        yield (
            f"{where}: at station {station} {said} takes {each} CPUs, and a job has {n} - expected at most as many - "
            f"start {n} or fewer, or ask for more (queue.cpus_per_task)"
        )
    elif slots * each > n:
        given = f"{slots} slots" if machine.slots is not None else f"{slots} slots (null: one for each CPU)"
        yield (
            f"{where}.slots: {given}, and at station {station} {said} takes {each} CPU{'s' if each > 1 else ''} in "
            f"each: {slots * each} of the {n} that a job has - expected at most {n} - write slots: {n // each}, or ask "
            "for more CPUs (queue.cpus_per_task)"
        )


def _threads(environment: Mapping[str, str]) -> int:
    return _number(environment.get(_THREADS)) or 1


def _gpus(name: str, place: Place, machine: Machine) -> Iterator[str]:
    """Yield which GPUs are used that a job does not ask for."""
    asked, where = place.queue.n_gpus, f"machine.places.{name}"
    used = place.gpus if place.gpus is not None else machine.gpus
    if asked is not None and used and max(used) >= asked:
        yield (
            f"{where}.gpus: {list(used)}, and a job asks for {asked} (queue.gres {place.queue.gres}), which are "
            f"counted from 0 - expected {list(range(asked))} or fewer - correct one of the two"
        )
    step = started(place.launcher if place.launcher is not None else machine.launcher).gpus
    slots = place.slots if place.slots is not None else machine.slots
    if asked is not None and step is not None and step > asked:
        yield (
            f"{where}.launcher: takes {step} GPUs for each task, and a job asks for {asked} (queue.gres "
            f"{place.queue.gres}) - expected at most {asked} - ask for more, or take fewer"
        )
    elif asked is not None and step is not None and slots is not None and step * slots > asked:
        yield (
            f"{where}.slots: {slots} slots, whose launcher takes {step} GPU{'s' if step > 1 else ''} for each, and a "
            f"job asks for {asked} (queue.gres {place.queue.gres}) - expected at most {asked} - write slots: "
            f"{asked // step}, or ask for more"
        )
