"""Initial data: crystals, scaled, perturbed, and moved by a short molecular dynamics with the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from activelearn import starts
from activelearn.config import Campaign
from activelearn.engines import reference
from activelearn.engines.process import Slot
from activelearn.frames import Frames, make_origin
from activelearn.records import InitialData, Task, WalkRecord
from activelearn.store import Store
from activelearn.store.files import file_sha256
from activelearn.tasks import Station


def plan(campaign: Campaign, store: Store, iteration: int) -> list[Task]:
    """One task per perturbed copy: system x scale x temperature x copy."""
    tasks = []
    for system, scale, temperature_K in campaign.initial.cells:
        warmth = "static" if temperature_K is None else f"{temperature_K:g}K"
        for copy in range(campaign.initial.copies):
            parameters = {"system": system, "scale": scale, "temperature_K": temperature_K}
            name = f"s{system}-x{scale:g}-{warmth}-{copy:03d}"
            tasks.append(Task(id=name, kind="perturbed", parameters=parameters))
    return tasks


def run(task: Task, store: Store, iteration: int, slot: Slot) -> None:
    """Perturb a crystal and, if the campaign says so, move it by reference MD; publish the frames."""
    campaign = store.campaign(iteration)
    rng = store.rng(iteration, "initial", task.id)
    p, settings = task.parameters, campaign.initial
    crystal = starts.crystal(settings.systems[p["system"]], campaign.min_height_A)
    frames: Frames | None = starts.distorted(crystal, settings.perturb, rng, scale=p["scale"])
    meta = {"ended": "finished", "started": 0.0, "finished": 0.0}
    if settings.md is not None and frames is not None:
        reference.want_identity(campaign.label.reference, slot, store.fingerprint(iteration)["sha256"])
        frames, meta["ended"], meta["started"], meta["finished"] = reference.molecular_dynamics(
            campaign.label.reference,
            frames,
            settings.md,
            temperature_K=p["temperature_K"],
            random_seed=int(rng.integers(2**31)),
            slot=slot,
        )
    arrays = {}
    if frames is not None:
        origin = make_origin(
            len(frames),
            iteration=iteration,
            walk=task.id,
            step=frames.origin["step"],
            temperature_K=p["temperature_K"] or 0.0,
            strain=p["scale"] - 1.0,
        )
        arrays = replace(frames, origin=origin).arrays()
    store.publish_product("initial", iteration, task.id, arrays, meta)


def held_out_walks(names: Sequence[str], fraction: float, rng: np.random.Generator) -> list[str]:
    """Choose whole trajectories for validation, never frames: those of one short MD are near-duplicates.

    Parameters
    ----------
    names
        All trajectories, in plan order.
    fraction
        Share to set aside; if it is above 0, at least one, and never all.
    rng
        Random numbers.
    """
    wanted = round(fraction * len(names))
    if fraction > 0.0:
        wanted = min(max(wanted, 1), len(names) - 1)
    picked = rng.choice(len(names), size=max(wanted, 0), replace=False)
    return [names[i] for i in sorted(picked)]


def gather(campaign: Campaign, store: Store, iteration: int) -> InitialData:
    """Collect the frames in plan order and choose the held-out trajectories."""
    plan = store.plan("initial", iteration)
    assert plan is not None  # gather is called after the plan was carried out
    parts, walks = [], []
    for task in plan.tasks:
        path = store.product("initial", iteration, task.id)
        arrays, meta = store.read_product("initial", iteration, task.id)
        if arrays:
            parts.append(Frames.from_arrays(arrays))
        walks.append(WalkRecord(id=task.id, stage="initial", ended=meta["ended"], sha256=file_sha256(path)))
    store.seal_frames(store.chosen_file(iteration), parts)
    names = [str(part.origin["walk"][0]) for part in parts]
    rng = store.rng(iteration, "initial", "held-out")
    return InitialData(
        iteration=iteration,
        walks=tuple(walks),
        n_frames=sum(len(part) for part in parts),
        held_out=tuple(held_out_walks(names, campaign.initial.held_out_fraction, rng)),
    )


STATION = Station("initial", plan, run, gather)
