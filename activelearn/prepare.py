"""Prepare: crystals relaxed with the reference, and amorphous starts packed by Packmol and relaxed."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from activelearn import packing, starts
from activelearn.config import Campaign, Relax, System
from activelearn.engines import reference
from activelearn.engines.process import Slot
from activelearn.errors import TaskFailed
from activelearn.frames import Frames, make_origin
from activelearn.records import Prepared, PreparedSystem, Task
from activelearn.store import Store
from activelearn.tasks import Station

#: Prefix of the labelled frames of the path in what a task publishes.
_PATH: Final = "path/"


def systems_of(campaign: Campaign, store: Store, iteration: int) -> list[System]:
    """Return the systems that this iteration prepares: those that need it and that no earlier one has prepared."""
    required = [system for system in campaign.systems if starts.wants_preparation(campaign, system)]
    there = starts.prepared_keys(store) if required and iteration > 0 else ()
    return [system for system in required if system.key not in there]


def plan(campaign: Campaign, store: Store, iteration: int) -> list[Task]:
    """One task per crystal or packing."""
    tasks = []
    for system in systems_of(campaign, store, iteration):
        for k in range(system.n_packings):
            parameters = {"key": system.key, "packing": k}
            tasks.append(Task(id=f"{system.key}-{k:03d}", kind="prepare", parameters=parameters))
    return tasks


def run(task: Task, store: Store, iteration: int, slot: Slot) -> None:
    """Pack or load one structure, relax it, and publish it."""
    campaign = store.campaign(iteration)
    system = next(system for system in campaign.systems if system.key == task.parameters["key"])
    if system.packed is not None:
        folder = store.scratch(slot.machine, f"{iteration:03d}", task.id)
        random_seed = int(store.rng(iteration, "prepare", task.id).integers(1, 2**31 - 1))
        start = packing.pack(system.packed, random_seed=random_seed, folder=folder, slot=slot)
        store.drop_scratch(folder, slot.machine)
        settings = campaign.initial.relax_packed
    else:
        start, settings = starts.unit_cell(system), campaign.initial.relax
    relaxed, meta = _relaxed(campaign, store, iteration, start, settings, slot=slot)
    arrays = {}
    if relaxed is not None:
        origin = make_origin(len(relaxed), iteration=iteration, walk=task.id, step=relaxed.origin["step"])
        path = replace(relaxed, origin=origin)[:-1]
        arrays = {**relaxed[-1].without_labels().arrays(), **(path.arrays(_PATH) if len(path) else {})}
    store.publish_product("prepare", iteration, task.id, arrays, meta)


def _relaxed(
    campaign: Campaign, store: Store, iteration: int, start: Frames, settings: Relax | None, *, slot: Slot
) -> tuple[Frames | None, dict[str, str | float]]:
    if settings is None:
        return start, {"ended": "as packed", "started": 0.0, "finished": 0.0}
    what = campaign.label.reference
    reference.want_identity(what, slot, store.fingerprint(iteration)["sha256"])
    relaxed, ended, started, finished = reference.relax(what, start, settings, slot)
    return relaxed, {"ended": ended, "started": started, "finished": finished}


def gather(campaign: Campaign, store: Store, iteration: int) -> Prepared:
    """Seal the structures, by system.

    Raises
    ------
    TaskFailed
        The reference cannot handle a structure, so nothing could start from it.
    """
    done, parts = [], []
    paths: list[Frames] = []
    for system in systems_of(campaign, store, iteration):
        frames, ended, begun = [], [], len(paths)
        for k in range(system.n_packings):
            arrays, meta = store.read_product("prepare", iteration, f"{system.key}-{k:03d}")
            if not arrays:
                raise TaskFailed(
                    f"initial: system {system.name} could not be relaxed by the reference ({meta['ended']}) - expected "
                    "a structure to start from - leave out the system, or set initial.relax or relax_packed to null"
                )
            frames.append(Frames.from_arrays(arrays))
            if f"{_PATH}positions" in arrays:
                paths.append(Frames.from_arrays(arrays, _PATH))
            ended.append(str(meta["ended"]))
        joined = Frames.concatenate(frames)
        parts.append(joined)
        n_path = sum(map(len, paths[begun:]))
        done.append(
            PreparedSystem(
                key=system.key, name=system.name, n_structures=len(joined), ended=tuple(ended), n_path=n_path
            )
        )
    if paths:
        store.seal_frames(starts.paths_file(store, iteration), paths)
    store.seal_frames(starts.prepared_file(store, iteration), parts)
    return Prepared(iteration=iteration, systems=tuple(done))


STATION = Station("prepare", plan, run, gather, asks_reference=True)
