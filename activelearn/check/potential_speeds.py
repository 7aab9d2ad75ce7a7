"""Speeds of potentials: what one evaluation of an atom takes with any of them, and where that number comes from.

In this order: the glasses that the study's folder already has, a trial run on this machine (`check --plan --try`), what
the machine profile declares, and the speeds of the profile `local`. MD and static evaluations count alike.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from activelearn.check.cost import EVALUATION_S, GROWTH
from activelearn.config import Dynamics, Machine, Potential, Relax, Segment, Study, load_machine
from activelearn.config.machine import n_cpus
from activelearn.engines import dynamics, frozen, reference
from activelearn.engines.process import Slot
from activelearn.errors import TaskFailed
from activelearn.frames import Frames
from activelearn.store import StudyStore
from activelearn.store.glass_product import read_glass
from activelearn.store.study import GLASS, ONCE

MEASURED, DECLARED, DEFAULT = "measured", "declared", "default"
#: The profile whose speeds are the defaults, and the calculator that stands for others without a speed.
_OF, _USUAL = "local", "sevenn.calculator:SevenNetCalculator"
#: The key of `machine.speeds.label_s_per_atom` for pair styles that are not in it, and of any DeePMD model.
_LAMMPS, _DEEPMD = "lammps", "deepmd.calculator:DP"
#: A trial run: steps of its first part, whose time is that of starting; least and most seconds of the second.
_FIRST_STEPS, _LEAST_S, _MOST_STEPS = 5, 1.0, 20_000
_TRIAL_K: Final = 300.0
#: Its start is a lattice, from which the largest forces are taken.
_RELAX: Final = Relax(fmax=1.0, max_steps=30, cell=False)
#: It may become as hot as it likes: its time counts, and not where its atoms are.
_ANY_FACTOR: Final = 1.0e6
#: Glasses of fewer evaluations took longer to start than to run: they say nothing about other work.
_LEAST_EVALUATIONS: Final = 2000


@dataclass(frozen=True)
class Speed:
    """What a potential takes.

    Parameters
    ----------
    each_s, once_s
        Seconds of one slot per evaluation: of an atom, and of the whole cell.
    source
        ``measured``, ``declared`` or ``default``.
    said
        Where it comes from, in words.
    n_evaluations
        Of glasses in a folder: what it was measured in, with what starting the engine took.
    """

    each_s: float
    once_s: float
    source: str
    said: str
    n_evaluations: float = math.inf

    def seconds(self, n_evaluations: float, n_atoms: float) -> float:
        """Return the seconds of evaluations of cells with `n_atoms` atoms."""
        return n_evaluations * (self.once_s + n_atoms * self.each_s)


def speeds_of(
    study: Study, machine: Machine, of_folder: Mapping[str, Speed], tried: Mapping[str, Speed], slower: float
) -> dict[str, Speed]:
    """Return the speed of every potential of a study, by its name.

    Parameters
    ----------
    study, machine
        What runs, and where.
    of_folder, tried
        Speeds from :func:`of_folder` and :func:`tried`, by name.
    slower
        How much slower this machine is than the one whose speeds are declared (:mod:`activelearn.check.pace`).
    """
    found = {}
    for potential in study.potentials:
        known = of_folder.get(potential.name)
        if known is None or known.n_evaluations < _LEAST_EVALUATIONS:
            known = tried.get(potential.name)
        found[potential.name] = known or _said(potential, machine, slower)
    return found


def evaluations(potential: Potential, integration: Dynamics, segments: Sequence[Segment]) -> tuple[int, int]:
    """Return the MD steps of segments, and the evaluations of a model: the other members at each force deviation."""
    fs = dynamics.timestep_of(potential, integration)
    steps = [dynamics.steps_of(segment, integration, fs) for segment in segments]
    n_steps = sum(one.n_steps for one in steps)
    n_others = len(potential.others) if potential.deepmd is None else len(potential.deepmd.models) - 1
    return n_steps, n_steps + n_others * sum(one.n_steps // one.deviation_every + 1 for one in steps)


# --- measured in the folder ------------------------------------------------------------------------------------------


def of_folder(study: Study, store: StudyStore | None) -> dict[str, Speed]:
    """Return the speeds of potentials whose glasses a folder has, by name; None: it has not begun."""
    found = {
        potential.name: _of_glasses(study, potential, store) for potential in study.potentials if store is not None
    }
    return {name: speed for name, speed in found.items() if speed is not None}


def _of_glasses(study: Study, potential: Potential, store: StudyStore | None) -> Speed | None:
    """Return the speed of the glasses that a folder has of a potential; one that failed has an unknown length."""
    section, plan = study.glass, store.find_plan(GLASS, ONCE) if store is not None else None
    if section is None or store is None or plan is None:
        return None
    n, seconds, work, n_evaluations = 0, 0.0, 0.0, 0.0
    for task in plan.tasks:
        if task.parameters.get("potential") != potential.name or not store.is_published(GLASS, ONCE, task):
            continue
        made = read_glass(store, task.id)
        schedule = section.schedule(task.parameters["cooling_rate_K_per_ps"])
        pore = section.pore.segments if section.pore is not None else ()
        for path, segments in ((made.dense, schedule), (made.porous, pore)):
            if path is not None and path.is_finished and not path.resumed:
                each = evaluations(potential, section.dynamics, segments)[1]
                n, seconds, n_evaluations = n + 1, seconds + path.seconds, n_evaluations + each
                work += each * len(path.last.symbols)
    if not work:
        return None
    said = f"{n} {'glass' if n == 1 else 'glasses'} in the folder"
    return Speed(seconds / work, 0.0, MEASURED, said, n_evaluations / n)


# --- measured now ----------------------------------------------------------------------------------------------------


def tried(potential: Potential, integration: Dynamics, start: Frames, machine: Machine, folder: Path) -> Speed:
    """Return the speed of a short run with a potential: as the study runs it, without force deviations.

    Parameters
    ----------
    potential, integration
        The potential, and how it is integrated.
    start
        One frame with about as many atoms as those of the study.
    machine, folder
        Where; an empty folder.

    Raises
    ------
    EngineError
        It cannot be run.
    TaskFailed
        The run ended early, so that its time says nothing.
    """
    slot, fs = Slot(machine.at(GLASS), folder), dynamics.timestep_of(potential, integration)
    relaxed, *_ = reference.relax(potential.statics(machine.python), start, _RELAX, slot)
    begin = start if relaxed is None else relaxed[-1:].without_labels()
    velocities = dynamics.thermal_velocities(begin, _TRIAL_K, np.random.default_rng(1))
    alone, how = _alone(potential), integration.model_copy(update={"max_temperature_factor": _ANY_FACTOR})

    def seconds(n_steps: int) -> float:
        place = folder / f"{potential.slug}-{n_steps}"
        segment = Segment(name="trial", temperature_K=_TRIAL_K, ps=n_steps * fs / 1000.0, n_frames=1)
        run = dynamics.run_segment(alone, segment, dynamics.State(begin, velocities), how, place, slot)
        if run.ended != dynamics.FINISHED:
            raise TaskFailed(
                f"potential {potential.name}: its speed was not measured: the trial run ended: {run.ended}"
            )
        return run.finished - run.started

    seconds(1)  # an engine that starts, and compiles
    n_steps, begin_s = 4 * _FIRST_STEPS, seconds(_FIRST_STEPS)
    taken_s = seconds(n_steps) - begin_s
    if taken_s < _LEAST_S:
        each_s = max(taken_s / (n_steps - _FIRST_STEPS), _LEAST_S / _MOST_STEPS)
        n_steps = _FIRST_STEPS + round(_LEAST_S / each_s)
        taken_s = seconds(n_steps) - begin_s
    if taken_s <= 0.0:
        raise TaskFailed(f"{n_steps} steps took no longer than {_FIRST_STEPS}: this machine is too busy")
    load, n = os.getloadavg()[0], n_cpus()
    busy = f", at a load of {load:.0f} on {n} CPUs: it takes longer than on an idle machine" if load > n + 1 else ""
    said = f"{n_steps} steps of {start.n_atoms} atoms now{busy}"
    return Speed(taken_s / (n_steps - _FIRST_STEPS) / start.n_atoms, 0.0, MEASURED, said)


def _alone(potential: Potential) -> Potential:
    """Return the first member of an ensemble."""
    models = potential.deepmd
    if models is not None:
        only = {"models": models.models[:1], "sha256": models.sha256[:1], "window": None}
        models = models.model_copy(update=only)
    return potential.model_copy(update={"committee": None, "deepmd": models})


# --- declared, or by default -----------------------------------------------------------------------------------------


def _said(potential: Potential, machine: Machine, slower: float) -> Speed:
    """Return what a machine profile declares of a potential, or else the profile `local`."""
    usual = load_machine(_OF)
    for profile, source in ((machine, DECLARED), (usual, DEFAULT)):
        named = _by_name(potential, profile) or _by_size(potential, profile)
        if named is not None:
            said, each_s, once_s = named
            of = f"profile {profile.name}, {said}"
            return Speed(each_s * slower, once_s * slower, source, of)
    key = _LAMMPS if potential.lammps is not None else _USUAL
    each_s = usual.speeds.label_s_per_atom[key]
    return Speed(each_s * slower, 0.0, DEFAULT, f"nobody has declared it; as {key} in profile {usual.name}")


def _by_name(potential: Potential, machine: Machine) -> tuple[str, float, float] | None:
    """Return the seconds of an evaluation of an atom that a profile has under the name of a calculator or style."""
    known = machine.speeds.label_s_per_atom
    if potential.lammps is not None:
        key = potential.lammps.pair_style.split()[0]
    else:
        key = _DEEPMD if potential.ase is None else potential.ase.calculator or ""
    return (f"label_s_per_atom of {key}", known[key], 0.0) if key in known else None


def _by_size(potential: Potential, machine: Machine) -> tuple[str, float, float] | None:
    """Return the same of a DeePMD model by the size of its network; of a size nobody knows that of 1 Mflop."""
    speed = machine.speeds.md_Mflop_per_s
    if potential.deepmd is None or speed is None:
        return None
    model = frozen.read(Path(potential.deepmd.models[0]))
    Mflop = model.Mflop if model is not None else None
    size = "1 Mflop an atom assumed" if Mflop is None else f"{Mflop:.3g} Mflop an atom"
    return f"md_Mflop_per_s ({size})", float((1.0 if Mflop is None else Mflop) ** GROWTH) / speed, EVALUATION_S


def said(potential: Potential, speed: Speed, n_atoms: float) -> str:
    """Return the speed of a potential in a line, with how it is declared if it was not measured."""
    each = speed.seconds(1.0, n_atoms) / n_atoms
    return f"{potential.name}: {each:.2g} s an evaluation of an atom ({speed.source}: {speed.said})"
