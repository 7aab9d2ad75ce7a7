"""Explore: LAMMPS walks driven by the ensemble, reduced where they are made to what selection may want."""

from __future__ import annotations

from typing import Any

import numpy as np

from activelearn import geometry, select, starts
from activelearn.config import Campaign, Stage
from activelearn.engines import lammps
from activelearn.engines.process import Slot
from activelearn.frames import FloatArray, Frames, make_origin
from activelearn.records import Ensemble, Explored, Selection, Task
from activelearn.store import Store
from activelearn.store.files import file_sha256
from activelearn.tasks import Station


def stages_of(campaign: Campaign, store: Store, iteration: int) -> list[Stage]:
    """Return the stages of this pass: the first one, and then what the last selection asked for.

    Stages are cumulative: a pass over the last stage walks the earlier ones too, with the same ensemble, so that
    convergence is a statement on the whole region.
    """
    if iteration <= 1:
        return [campaign.explore.stages[0]]
    names = store.result("select", iteration - 1, Selection).next_stages
    known = [stage for stage in campaign.explore.stages if stage.name in names]
    return known or [campaign.explore.stages[0]]  # all were renamed by an accepted change: begin anew


def plan(campaign: Campaign, store: Store, iteration: int) -> list[Task]:
    """One task per walk: stage x temperature x pressure x replica; a pass deals out all starts."""
    ensemble = store.result("train", iteration - 1, Ensemble)
    models = tuple(member.model for member in ensemble.members)
    n_systems = len(campaign.explore.systems or campaign.initial.systems)
    tasks = []
    for stage in stages_of(campaign, store, iteration):
        systems = stage.systems or tuple(range(n_systems))
        starts = [(system, scale) for scale in campaign.explore.start_scales for system in systems]
        for cell, (temperature_K, pressure_bar) in enumerate(stage.cells):
            for walk in range(stage.n_walks):
                system, scale = starts[(cell * stage.n_walks + walk + iteration) % len(starts)]
                parameters = {
                    "stage": stage.name,
                    "temperature_K": temperature_K,
                    "pressure_bar": pressure_bar,
                    "system": system,
                    "scale": scale,
                }
                pressure = "" if pressure_bar is None else f"-{pressure_bar:g}bar"
                name = f"{stage.name}-{temperature_K:g}K{pressure}-s{system}-{walk:03d}"
                tasks.append(Task(id=name, kind="walk", parameters=parameters, inputs=models))
    return tasks


def start_of(campaign: Campaign, task: Task, rng: np.random.Generator) -> Frames:
    """Return the starting frame of a walk: a perturbed crystal."""
    systems = campaign.explore.systems or campaign.initial.systems
    crystal = starts.crystal(systems[task.parameters["system"]], campaign.min_height_A)
    return starts.distorted(crystal, campaign.explore.perturb, rng, scale=task.parameters["scale"])


def run(task: Task, store: Store, iteration: int, slot: Slot) -> None:
    """Run one walk and publish its deviations, its classes and the frames that selection may want."""
    campaign = store.campaign(iteration)
    stage = campaign.stage(task.parameters["stage"])
    rng = store.rng(iteration, "explore", task.id)
    start = start_of(campaign, task, rng)
    folder = store.scratch(slot.machine, f"{iteration:03d}", task.id)
    lammps.write_data(folder / "conf.lmp", start, campaign.type_map)
    text = lammps.walk_input(
        stage,
        models=[str(store.folder / model) for model in task.inputs],
        type_map=campaign.type_map,
        temperature_K=task.parameters["temperature_K"],
        pressure_bar=task.parameters["pressure_bar"],
        velocity_seed=int(rng.integers(1, 2**31 - 1)),
    )
    walk, started, finished = lammps.timed_walk(folder, text, start.symbols, slot)
    arrays, meta = reduce_walk(campaign, task, walk, frames_of(task, start, walk), rng=rng, sel=store.sel())
    meta |= {"started": started, "finished": finished, "iteration": iteration}
    store.publish_product("explore", iteration, task.id, arrays, meta)
    store.drop_scratch(folder, slot.machine)


def frames_of(task: Task, start: Frames, walk: lammps.WalkOutput) -> Frames:
    """Return the whole frames of a walk with their origin."""
    origin = make_origin(
        len(walk.step),
        walk=task.id,
        step=walk.step,
        temperature_K=task.parameters["temperature_K"],
        pressure_bar=task.parameters["pressure_bar"] or 0.0,
        strain=task.parameters["scale"] - 1.0,
        max_devi_f=walk.max_devi_f,
    )
    return Frames(start.symbols, walk.cell, walk.positions, start.pbc, origin=origin)


def reduce_walk(
    campaign: Campaign,
    task: Task,
    walk: lammps.WalkOutput,
    frames: Frames,
    *,
    rng: np.random.Generator,
    sel: tuple[int, ...],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Classify every planned frame of a walk and keep candidates and, for a rescue, its earliest failed frames.

    Returns
    -------
    arrays
        ``step``, ``max_devi_f``, ``temperature_K``, ``potential_energy``, ``volume`` of the whole frames; ``kind`` of
        every planned frame (:class:`activelearn.select.Kind`); the kept Frames under ``kept/``.
    meta
        How it ended.
    """
    stage = campaign.stage(task.parameters["stage"])
    outside = _outside(campaign, frames, walk.max_devi_f, sel)
    kind = select.classify_walk(
        walk.max_devi_f,
        n_planned=stage.n_frames,
        window=(campaign.select.f_lo, campaign.select.f_hi),
        outside_from=None if outside is None else outside[0],
        is_broken=walk.ended != "finished",
    )
    kept = select.worth_keeping(kind[: len(walk.step)], walk.max_devi_f, campaign.select, rng)
    arrays = {
        "step": walk.step,
        "max_devi_f": walk.max_devi_f,
        "temperature_K": walk.temperature_K,
        "potential_energy": walk.potential_energy,
        "volume": frames.volume,
        "kind": kind,
        "kept_kind": kind[kept],
        **frames[kept].arrays("kept/"),
    }
    ended = walk.ended if outside is None else f"out of region: {outside[1]}"
    if outside is not None and walk.ended != "finished":
        ended += f"; later {walk.ended}"
    bad_step = None if ended == "finished" else _first_bad_step(stage, walk, outside)
    return arrays, {"stage": stage.name, "ended": ended, "first_bad_step": bad_step, "log_tail": list(walk.log_tail)}


def _first_bad_step(stage: Stage, walk: lammps.WalkOutput, outside: tuple[int, str] | None) -> int:
    if outside is not None:
        return int(walk.step[outside[0]])
    return 0 if len(walk.step) == 0 else int(walk.step[-1]) + stage.every


def _outside(
    campaign: Campaign, frames: Frames, max_devi_f: FloatArray, sel: tuple[int, ...]
) -> tuple[int, str] | None:
    """Return the first frame past a geometry guard or past `sel`, and why.

    Neighbours are counted where an overflow would matter or show: in every frame that may be labelled, in the densest
    and in the last.
    """
    if len(frames) == 0:
        return None
    outside = geometry.first_outside(frames, campaign.select.guards)
    inside = frames[: outside[0]] if outside is not None else frames
    if len(inside):
        densest = int(np.argmin(inside.volume))
        may_be_labelled = np.flatnonzero(max_devi_f[: len(inside)] >= campaign.select.f_lo).tolist()
        for k in sorted({densest, len(inside) - 1, *may_be_labelled}):
            most = geometry.most_neighbours(inside[k], campaign.train.descriptor.rcut, campaign.type_map)
            if (most > np.array(sel)).any():
                return k, f"{most.tolist()} neighbours within the cutoff, sel holds {list(sel)}"
    return outside


def gather(campaign: Campaign, store: Store, iteration: int) -> Explored:
    """Seal the list of walks; selection reads their products by it."""
    plan = store.plan("explore", iteration)
    assert plan is not None  # gather is called after the plan was carried out
    products = {task.id: file_sha256(store.product("explore", iteration, task.id)) for task in plan.tasks}
    stages = tuple(stage.name for stage in stages_of(campaign, store, iteration))
    return Explored(iteration=iteration, stages=stages, products=products)


STATION = Station("explore", plan, run, gather)
