"""Explore: walks driven by the ensemble, reduced where they are made to what selection may need."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from activelearn import capacity, descriptor, geometry, select, starts
from activelearn.config import Campaign, Condition, Stage, Stop, Trainer, trainer_of
from activelearn.engines import lammps, links, walks
from activelearn.engines.dynamics import ase
from activelearn.engines.lammps import Drive
from activelearn.engines.process import Slot
from activelearn.errors import EngineError, StoreError
from activelearn.frames import FloatArray, Frames, make_origin
from activelearn.passes import selections_before, stages_of, walked_stages
from activelearn.records import Counts, Ensemble, Explored, Selection, Task
from activelearn.store import Store
from activelearn.store.files import file_sha256
from activelearn.tasks import Batching, Station

#: Most steps of the walks of one LAMMPS process together, unless one alone has more. Loading the models costs as much
#: as about 500 of them; and kill -9 ends the process, however many of its walks were nearly done.
MOST_STEPS: Final = 2000


def plan(campaign: Campaign, store: Store, iteration: int) -> list[Task]:
    """One task per walk: stage that is walked x cell of its matrix x replica; a pass deals out all starts."""
    ensemble = store.result("train", iteration - 1, Ensemble)
    tasks = []
    for stage in walked_stages(campaign, store, iteration):
        starts_of_stage = _starts(campaign, stage)
        walk_of_stage = 0
        for condition, n_walks in zip(stage.conditions, walks_of(campaign, store, iteration, stage), strict=True):
            for walk in range(n_walks):
                system, scale = starts_of_stage[(walk_of_stage + iteration) % len(starts_of_stage)]
                walk_of_stage += 1
                start = {"system": system, "scale": scale}
                parameters = {"stage": stage.name, **condition._asdict(), **start}
                origin = "data" if system is None else f"s{system}"
                name = f"{stage.name}-{condition}-{origin}-{walk:03d}"
                tasks.append(Task(id=name, kind="walk", parameters=parameters, inputs=ensemble.drivers))
    return tasks


def _starts(campaign: Campaign, stage: Stage) -> list[tuple[int | None, float]]:
    """Return (system, linear scale) of every start of a stage; a start from the data set has no system."""
    if stage.start == "dataset":
        return [(None, 1.0)]
    systems = stage.systems or tuple(range(len(campaign.explored_systems)))
    return [(system, scale) for scale in campaign.explore.start_scales for system in systems]


def walks_of(campaign: Campaign, store: Store, iteration: int, stage: Stage) -> list[int]:
    """Return the walks of every cell of a stage: half where the last passes were quiet.

    Never so few that the stage as a whole could not be called quiet, or that a start is left out.
    """
    n_walks = [stage.n_walks] * len(stage.conditions)
    if campaign.explore.quiet_passes is None:
        return n_walks
    stop = campaign.stop
    least = max(len(_starts(campaign, stage)), stop.min_walks, -(-stop.min_frames // stage.n_frames))
    quiet = cells_below_bounds(selections_before(store, iteration, campaign.explore.quiet_passes), campaign)
    for i, condition in enumerate(stage.conditions):
        spare = sum(n_walks) - least
        if (stage.name, *condition) in quiet and spare > 0:
            n_walks[i] -= min(stage.n_walks // 2, spare)
    return n_walks


def cells_below_bounds(passes: Sequence[Selection], campaign: Campaign) -> set[tuple[Any, ...]]:
    """Return (stage, *condition) of the cells that were below the bounds in all of the last passes.

    None if there are too few passes. One cell has too few walks to be called quiet by itself, as a stage is: its shares
    of candidates and failed frames count alone.
    """
    if len(passes) < (campaign.explore.quiet_passes or 0) or not passes:
        return set()

    stages = {stage.name: stage for stage in campaign.explore.stages}  # a stage of then may be gone

    def quiet(selection: Selection) -> set[tuple[Any, ...]]:
        if selection.learnt_nothing:
            return set()  # quiet for a reason that says nothing of the cell
        explored = stages.keys() - set(selection.unexplored_stages)
        return {
            (cell.stage, *(getattr(cell, name) for name in Condition._fields))
            for cell in selection.cells
            if cell.stage in explored and _is_below_bounds(cell.counts, stages[cell.stage].bounds(campaign.stop))
        }

    return set.intersection(*(quiet(selection) for selection in passes))


def _is_below_bounds(counts: Counts, stop: Stop) -> bool:
    is_sampled = counts.in_region > 0 and counts.refused_walks == 0
    shares = counts.share("candidate") < stop.candidate_share and counts.share("failed") < stop.failed_share
    return is_sampled and shares


def start_of(campaign: Campaign, store: Store, iteration: int, task: Task, rng: np.random.Generator) -> Frames:
    """Return the starting frame of a walk: a distorted crystal or packing, or a frame of the data set."""
    index = task.parameters["system"]
    if index is None:
        return _from_dataset(campaign, store, iteration, rng)
    found = starts.structures(campaign, store, campaign.explored_systems[index])
    frame = found[int(rng.integers(len(found)))] if len(found) > 1 else found
    return starts.distorted(frame, campaign.explore.perturb, rng, scale=task.parameters["scale"])


def _from_dataset(campaign: Campaign, store: Store, iteration: int, rng: np.random.Generator) -> Frames:
    """Return a frame of the data set as it was when the iteration began, each equally likely.

    Isolated atoms and dimers, and cells lower than the cutoff, are not starts; nor is a frame that had failed when it
    was labelled: a bad potential took its atoms where no walk of a better one goes.
    """
    counts = np.array([store.n_training_frames(i) for i in range(iteration)])
    for _ in range(1000):
        where = int(rng.choice(iteration, p=counts / counts.sum()))
        parts = store.frames(store.dataset_file(where))
        sizes = np.array([len(part) for part in parts])
        part = parts[int(rng.choice(len(parts), p=sizes / sizes.sum()))]
        frame = part[int(rng.integers(len(part)))].without_labels()
        has_failed = frame.origin["max_devi_f"][0] >= campaign.select.f_hi  # NaN, of initial data, has not
        if starts.is_fit(frame, campaign.min_height_A) and not has_failed:
            return starts.right_handed(frame)
    raise StoreError(
        f"{store.folder}: no frame of the data set can be started from (in each, a cell height is below the cutoff, or "
        "the frame had failed)"
    )


def drive_of(campaign: Campaign, stage: Stage, condition: Condition, cell: FloatArray, velocity_seed: int) -> Drive:
    """Return what drives a walk that starts in a LAMMPS cell (3, 3), Å.

    A driven cell leaves the guards at a known step, so the walk ends there: everything beyond is out of the region.
    """
    if condition.mode is None or condition.strain is None:
        return Drive(condition, velocity_seed)
    progress = np.arange(stage.n_frames) * stage.every / stage.n_steps
    cells = geometry.deformed(cell, condition.mode, condition.strain, np.append(progress, 1.0))
    outside = geometry.first_outside_box(cells[:-1], campaign.select.guards)
    # One frame further: exactly at the guard the last digits decide, and the walk must contain a frame that is past it.
    last_step = None if outside is None else min(outside[0] + 1, stage.n_frames - 1) * stage.every
    return Drive(condition, velocity_seed, final_cell=cells[-1], last_step=last_step)


def batches_of(tasks: Sequence[Task], store: Store, iteration: int, n_slots: int) -> list[tuple[Task, ...]]:
    """Return pending walks by the LAMMPS process that they share (:func:`processes_of`)."""
    campaign = store.campaign(iteration)
    found = [(campaign.stage(task.parameters["stage"]), task.inputs) for task in tasks]
    batches: dict[Hashable, list[Task]] = {}
    for task, process in zip(tasks, processes_of(campaign, found, n_slots), strict=True):
        batches.setdefault(process, []).append(task)
    return [tuple(batch) for batch in batches.values()]


def processes_of(campaign: Campaign, pending: Sequence[tuple[Stage, Sequence[str]]], n_slots: int) -> list[Hashable]:
    """Return the LAMMPS process of each pending walk: neighbours in the plan share one, with equal steps per slot.

    Long walks have one each, as loading the models is negligible beside them. The result of a walk does not depend on
    it.

    Parameters
    ----------
    campaign
        Its trainer and elements.
    pending
        The stage of each walk, and the names of its models.
    n_slots
        Number of tasks that run at the same time.
    """
    trainer = trainer_of(campaign.train)
    n_steps = np.array([stage.n_steps for stage, _ in pending])
    n_batches = n_slots * math.ceil(n_steps.sum() / (n_slots * MOST_STEPS))
    share = (np.cumsum(n_steps) - n_steps) * n_batches // max(1, n_steps.sum())
    processes: list[Hashable] = []
    begun: dict[Hashable, tuple[int, int]] = {}
    for i, (stage, models) in enumerate(pending):
        pair = trainer.pair_of_walks(models, campaign.type_map, stage.every)
        if not (trainer.writes_deviation and walks.may_share(stage, pair)):
            processes.append(i)
            continue
        neighbours = (int(share[i]), *pair)
        part, steps = begun.get(neighbours, (0, 0))
        if steps and steps + stage.n_steps > MOST_STEPS:
            part, steps = part + 1, 0
        begun[neighbours] = part, steps + stage.n_steps
        processes.append((part, *neighbours))
    return processes


def run(task: Task, store: Store, iteration: int, slot: Slot) -> None:
    """Run one walk and publish its deviations, its classes and the frames that selection may need."""
    run_batch([task], store, iteration, slot)


def run_batch(tasks: Sequence[Task], store: Store, iteration: int, slot: Slot) -> None:
    """Run walks of :func:`batches_of` in order and publish each of them, as :func:`run` does with one."""
    campaign = store.campaign(iteration)
    trainer = trainer_of(campaign.train)
    left: list[_Begun] = []
    try:
        for task in tasks:
            left.append(_Begun.of(task, store, campaign, iteration, slot))  # noqa: PERF401 - those before one that fails
        first = left[0]
        pair = trainer.pair_of_walks(first.models, campaign.type_map, first.walk.stage.every)
        limits = Limits(select.window_of(campaign, store, iteration), capacity.of_models(campaign, store))
        if trainer.writes_deviation and walks.may_share(first.walk.stage, pair):
            outputs = walks.run_walks([one.walk for one in left], pair, len(campaign.type_map), slot)
        else:
            outputs = (_alone(one, pair, store, trainer, slot) for one in tuple(left))
        for walk, started, finished in outputs:
            one = left[0]
            frames = frames_of(one.walk.stage, one.task, one.start, walk)
            arrays, meta = reduce_walk(campaign, one.task, walk, frames, limits, one.rng)
            meta |= {"started": started, "finished": finished, "iteration": iteration}
            store.publish_product("explore", iteration, one.task.id, arrays, meta)
            store.drop_scratch(one.walk.folder, slot.machine)
            left.pop(0)
    except BaseException as error:  # a full disk, too
        has_failed = isinstance(error, EngineError)
        for one in left[has_failed:]:  # but not that of a walk that failed: its logs say why
            store.drop_scratch(one.walk.folder, slot.machine)
        raise


@dataclass(frozen=True)
class _Begun:
    """A walk whose input is written: its task, its start, its models by their names, and its random numbers."""

    task: Task
    start: Frames
    walk: walks.Walk
    models: list[str]
    rng: np.random.Generator

    @classmethod
    def of(cls, task: Task, store: Store, campaign: Campaign, iteration: int, slot: Slot) -> _Begun:
        stage, rng = campaign.stage(task.parameters["stage"]), store.rng(iteration, "explore", task.id)
        start = start_of(campaign, store, iteration, task, rng)
        folder = store.scratch(slot.machine, f"{iteration:03d}", task.id)
        try:
            cell = lammps.write_data(folder / "conf.lmp", start, campaign.type_map)
            drive = drive_of(campaign, stage, select.cell_of(task)[1], cell, int(rng.integers(1, 2**31 - 1)))
            models = links.link_models([store.model(model) for model in task.inputs], folder)
        except BaseException:
            store.drop_scratch(folder, slot.machine)
            raise
        return cls(task, start, walks.Walk(folder, stage, drive, cell, start.n_atoms), models, rng)


def _alone(
    one: _Begun, pair: Sequence[str], store: Store, trainer: Trainer[Any], slot: Slot
) -> tuple[lammps.WalkOutput, float, float]:
    """Run one walk that shares no process; return it with the times at which its engines started and finished."""
    stage, folder, drive = one.walk.stage, one.walk.folder, one.walk.drive
    models = [store.model(model) for model in one.task.inputs]
    if not trainer.runs_in_lammps:
        calculator, started = ase.Walker(**trainer.calculator(models[0]), python=slot.machine.python), time.time()
        walk = ase.run_walk(calculator, stage, drive, one.start, folder, slot)
    else:
        what = lammps.walk_input(stage, drive, pair, has_deviation=trainer.writes_deviation)
        walk, started, finished = lammps.timed_walk(folder, what, one.start.symbols, slot)
        if trainer.writes_deviation:
            return walk, started, finished
    return with_deviation(walk, one.start, trainer, models, folder, slot), started, time.time()


def with_deviation(
    walk: lammps.WalkOutput, start: Frames, trainer: Trainer[Any], models: Sequence[Path], folder: Path, slot: Slot
) -> lammps.WalkOutput:
    """Return a walk with the force deviation of the ensemble, evaluated by each model on all of its frames.

    It is cut before the first frame whose deviation is not finite, like a walk whose deviation LAMMPS writes.

    Parameters
    ----------
    walk, start
        As LAMMPS wrote it, or ASE without forces, and the frame that it began at; forces that it lacks are the first
        model's.
    trainer, models
        What evaluates, and the ensemble.
    folder, slot
        Where.
    """
    if len(walk.step) == 0:
        return walk
    frames = Frames(start.symbols, walk.cell, walk.positions, start.pbc)
    predicted = trainer.evaluate_all(folder, models, [frames], slot)
    forces = np.array([part.label("forces") for (part,) in predicted])
    with np.errstate(invalid="ignore"):  # of infinite forces
        devi_f = select.atomic_deviation(forces)
    max_devi_f, driving = devi_f.max(axis=-1), np.where(np.isnan(walk.forces), forces[0], walk.forces)
    whole = replace(walk, max_devi_f=max_devi_f, devi_f=devi_f, forces=driving)
    is_finite = np.isfinite(max_devi_f)
    return whole if is_finite.all() else whole.until(int(np.argmin(is_finite)), "non-finite")


def frames_of(stage: Stage, task: Task, start: Frames, walk: lammps.WalkOutput) -> Frames:
    """Return the whole frames of a walk with their origin; temperature and strain are those imposed at the step."""
    _, condition = select.cell_of(task)
    progress = walk.step / stage.n_steps
    to_K = condition.temperature_K if condition.to_temperature_K is None else condition.to_temperature_K
    origin = make_origin(
        len(walk.step),
        walk=task.id,
        step=walk.step,
        temperature_K=condition.temperature_K + progress * (to_K - condition.temperature_K),
        pressure_bar=condition.pressure_bar or 0.0,
        strain=task.parameters["scale"] - 1.0 if condition.strain is None else condition.strain * progress,
        max_devi_f=walk.max_devi_f,
    )
    return Frames(start.symbols, walk.cell, walk.positions, start.pbc, origin=origin)


@dataclass(frozen=True)
class Limits:
    """What a walk is judged by.

    Parameters
    ----------
    window
        f_lo and f_hi, eV/Å, of stages that have none of their own.
    capacities
        Most neighbours that the models hold.
    """

    window: tuple[float, float]
    capacities: tuple[geometry.Capacity, ...] = ()


def reduce_walk(
    campaign: Campaign,
    task: Task,
    walk: lammps.WalkOutput,
    frames: Frames,
    limits: Limits,
    rng: np.random.Generator,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Classify every planned frame of a walk and keep what selection may need (:func:`select.worth_keeping`).

    Returns
    -------
    arrays
        ``step``, ``max_devi_f``, ``temperature_K``, ``potential_energy``, ``volume`` of the whole frames; ``kind`` of
        every planned frame (:class:`activelearn.select.FrameClass`); of the kept frames: the Frames under ``kept/``,
        ``kept_kind``, ``kept_mined``, ``kept_model_forces`` (of the model that drove the walk, eV/Å) and, where the
        picker needs it, ``kept_descriptor``. Where the deviation of each atom is known, ``worst_kept`` and
        ``worst_devi_f``: which of the kept frames has the largest deviation, and (n_atoms,) those of its atoms, eV/Å.
    meta
        How it ended, and how far it came (:func:`select.reach.measure`).
    """
    stage = campaign.stage(task.parameters["stage"])
    outside = _outside(campaign, frames, limits.capacities)
    kind = select.classify_walk(
        walk.max_devi_f,
        n_planned=stage.n_frames,
        window=stage.window(limits.window),
        outside_from=None if outside is None else outside[0],
        is_broken=walk.ended != "finished",
    )
    kept = select.worth_keeping(kind, walk.max_devi_f, campaign.select, rng)
    arrays = {
        "step": walk.step,
        "max_devi_f": walk.max_devi_f,
        "temperature_K": walk.temperature_K,
        "potential_energy": walk.potential_energy,
        "volume": frames.volume,
        "kind": kind,
        "kept_kind": kind[kept],
        "kept_mined": np.isin(kept, select.mined(kind, campaign.select)),
        "kept_model_forces": walk.forces[kept].astype(np.float32),
        **frames[kept].arrays("kept/"),
    }
    if campaign.select.needs_descriptor:
        arrays["kept_descriptor"] = descriptor.of_frames(frames[kept], campaign.type_map)
    if len(kept) and walk.devi_f is not None:
        worst = int(np.argmax(walk.max_devi_f[kept]))
        arrays |= {"worst_kept": np.array(worst), "worst_devi_f": walk.devi_f[kept[worst]].astype(np.float32)}
    ended = walk.ended if outside is None else f"out of region: {outside[1]}"
    if outside is not None and walk.ended != "finished":
        ended += f"; later {walk.ended}"
    bad_step = None if ended == "finished" else _first_bad_step(stage, walk, outside)
    meta = {"stage": stage.name, "ended": ended, "first_bad_step": bad_step, "log_tail": list(walk.log_tail)}
    reach = select.reach.measure(frames, walk.temperature_K, stage)
    return arrays, meta | {"reach": None if reach is None else reach.model_dump()}


def _first_bad_step(stage: Stage, walk: lammps.WalkOutput, outside: tuple[int, str] | None) -> int:
    if outside is not None:
        return int(walk.step[outside[0]])
    return 0 if len(walk.step) == 0 else int(walk.step[-1]) + stage.every


def _outside(campaign: Campaign, frames: Frames, held: Sequence[geometry.Capacity]) -> tuple[int, str] | None:
    """Return the first frame past a geometry guard or past what the models hold, and why."""
    if len(frames) == 0:
        return None
    outside = geometry.first_outside(frames, campaign.select.guards)
    for one in held:
        inside = frames[: outside[0]] if outside is not None else frames
        outside = one.first_overflow(inside) or outside
    return outside


def gather(campaign: Campaign, store: Store, iteration: int) -> Explored:
    """Seal the list of walks and the stages they are judged with; selection reads their products by it."""
    tasks = store.plan("explore", iteration).tasks
    products = {task.id: file_sha256(store.product("explore", iteration, task.id)) for task in tasks}
    stages = tuple(stage.name for stage in stages_of(campaign, store, iteration))
    return Explored(iteration=iteration, stages=stages, products=products)


STATION = Station(
    "explore", plan, run, gather, is_refusable=True, runs_models=True, batching=Batching(batches_of, run_batch)
)
