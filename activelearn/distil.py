"""Distil: the teacher walks from training frames and labels what its members agree on.

The teacher is a committee that was trained on the labels of the reference (:data:`activelearn.train.TEACHER_STATION`).
Its first member drives NVT dynamics; all members label the frames; the label is their mean. A frame counts if its force
deviation is below ``teacher.max_devi_f``, if the guards and `sel` hold it, and if its label is acceptable as one of the
reference would have to be. The held-out trajectories are labelled, too: how far the teacher is from the reference
there, and the students from the teacher, is what a distillation is judged by.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from activelearn import capacity, geometry, prediction, select, starts, taught
from activelearn.config import Campaign, Driver, trainer_of
from activelearn.engines import reference
from activelearn.engines.process import Slot
from activelearn.errors import ConfigError
from activelearn.frames import FloatArray, Frames, dataset_sha256, make_origin, pack, unpack
from activelearn.records import Ensemble, Task, WalkRecord
from activelearn.store import Store
from activelearn.store.files import file_sha256
from activelearn.store.journal import label_of
from activelearn.tasks import Station
from activelearn.taught import Taught

#: Of the task that labels the held-out trajectories.
HELD_OUT: Final = "held-out"


def committee(predicted: Sequence[Sequence[Frames]]) -> tuple[list[Frames], list[FloatArray]]:
    """Return what a committee says of frames: the mean of its labels, and their force deviations.

    Parameters
    ----------
    predicted
        By member: the same parts in the same order, labelled.

    Returns
    -------
    parts, deviations
        Parts with mean energy (eV), forces (eV/Å) and virial (eV); by part (n_frames,) force deviation, eV/Å.
    """
    parts, deviations = [], []
    for members in zip(*predicted, strict=True):
        forces = np.array([one.label("forces") for one in members])
        energy = np.mean([one.label("energy") for one in members], axis=0)
        virials = [one.virial for one in members if one.virial is not None]
        virial = np.mean(virials, axis=0) if len(virials) == len(members) else None
        parts.append(members[0].with_labels(energy, forces.mean(axis=0), virial))
        deviations.append(select.force_deviation(forces))
    return parts, deviations


def plan(campaign: Campaign, store: Store, iteration: int) -> list[Task]:
    """One task per walk (temperature x replica), and one for the held-out trajectories."""
    assert campaign.teacher is not None  # or the phase would not have the station
    models = tuple(member.model for member in store.result("teach", iteration, Ensemble).members)
    _want_start(campaign, store, iteration)
    tasks = [
        Task(
            id=f"{temperature_K:g}K-{k:03d}",
            kind="walk",
            parameters={"temperature_K": temperature_K},
            inputs=models,
        )
        for temperature_K in campaign.teacher.md.temperatures_K
        for k in range(campaign.teacher.n_walks)
    ]
    if store.held_out(iteration):
        tasks.append(Task(id=HELD_OUT, kind=HELD_OUT, inputs=models))
    return tasks


def _fit_frames(campaign: Campaign, store: Store, iteration: int) -> list[tuple[int, int]]:
    """Return (part, frame) of the training frames that a walk may begin at."""
    return [
        (p, k)
        for p, part in enumerate(store.training(iteration))
        for k in range(len(part))
        if starts.is_fit(part[k], campaign.min_height_A)
    ]


def _want_start(campaign: Campaign, store: Store, iteration: int) -> None:
    """Refuse a data set in which no walk can begin."""
    if not _fit_frames(campaign, store, iteration):
        raise ConfigError(
            f"teacher: no training frame is a start for its walks - expected cells with every perpendicular height at "
            f"least {campaign.min_height_A:g} Å (initial.min_height_A, else the cutoff) - use larger cells, or remove "
            "the section, and start from scratch with another --folder"
        )


def run(task: Task, store: Store, iteration: int, slot: Slot) -> None:
    """Carry out one walk and label its frames, or label the held-out trajectories."""
    campaign, started = store.campaign(iteration), time.time()
    folder = store.scratch(slot.machine, f"{iteration:03d}", "distil", task.id)
    models = [store.model(name) for name in task.inputs]
    arrays: dict[str, Any]
    meta: dict[str, Any] = {"ended": "finished"}
    if task.kind == HELD_OUT:
        parts, deviations = _labelled(campaign, models, store.held_out(iteration), folder, slot)
        arrays = {**pack(parts), "max_devi_f": np.concatenate(deviations)}
    else:
        frames, meta = _walk(task, campaign, store, models[0], iteration, slot)
        arrays = {}
        if frames is not None:
            (labelled,), (deviation,) = _labelled(campaign, models, [frames], folder, slot)
            good, refused = _acceptable(labelled, deviation, campaign, store)
            meta["refused"] = dict(refused + Counter(meta["refused"]))
            identity = _identity(campaign, store, iteration)
            for k in range(len(good)):
                if (label := label_of(good, k)) is not None:
                    store.ledger_writer.append(good.structure_key(k, identity["sha256"]), label, good[k], identity)
            arrays = good.arrays() if len(good) else {}
    meta |= {"started": started, "finished": time.time()}
    store.publish_product("distil", iteration, task.id, arrays, meta)
    store.drop_scratch(folder, slot.machine)


def _labelled(
    campaign: Campaign, models: Sequence[Path], parts: Sequence[Frames], folder: Path, slot: Slot
) -> tuple[list[Frames], list[FloatArray]]:
    trainer = trainer_of(campaign.of_teacher.train)
    return committee(trainer.evaluate_all(folder, models, [part.without_labels() for part in parts], slot))


def _walk(
    task: Task, campaign: Campaign, store: Store, model: Path, iteration: int, slot: Slot
) -> tuple[Frames | None, dict[str, Any]]:
    """Move a training frame by the first member; return the frames within the guards, and how it went."""
    assert campaign.teacher is not None  # or there would be no such task
    rng = store.rng(iteration, "distil", task.id)
    fit = _fit_frames(campaign, store, iteration)
    p, k = fit[int(rng.integers(len(fit)))]
    start = starts.right_handed(store.training(iteration)[p][k].without_labels())
    trainer = trainer_of(campaign.of_teacher.train)
    frames, ended, _, _ = reference.molecular_dynamics(
        Driver(**trainer.calculator(model), python=slot.machine.python),
        start,
        campaign.teacher.md,
        temperature_K=task.parameters["temperature_K"],
        random_seed=int(rng.integers(2**31)),
        slot=slot,
    )
    meta: dict[str, Any] = {"ended": ended, "evaluated": 0, "refused": {}}
    if frames is None or len(frames) < 2:
        return None, meta
    frames = frames[1:]  # the first is a training frame
    meta["evaluated"] = len(frames)
    outside = geometry.first_outside(frames, campaign.select.guards)
    if outside is not None:
        meta |= {"ended": f"out of region: {outside[1]}", "refused": {"out of region": len(frames) - outside[0]}}
        frames = frames[: outside[0]]
    origin = make_origin(
        len(frames),
        iteration=iteration,
        walk=f"distil-{task.id}",
        step=frames.origin["step"],
        temperature_K=task.parameters["temperature_K"],
    )
    return (replace(frames.without_labels(), origin=origin) if len(frames) else None), meta


def _acceptable(part: Frames, deviation: FloatArray, campaign: Campaign, store: Store) -> tuple[Frames, Counter[str]]:
    """Return the frames whose labels count, with their deviations, and the others by reason."""
    assert campaign.teacher is not None
    bound, refused, rows = campaign.teacher.max_devi_f, Counter[str](), []
    for k in range(len(part)):
        label = label_of(part, k)
        reason = None if label is None else reference.refusal(label, campaign.label)
        if reason is None and not deviation[k] < bound:  # nor is NaN
            reason = f"force deviation at or above {bound:g} eV/Å"
        if reason is None and not capacity.has_room(part[k], campaign, store):
            reason = geometry.NO_ROOM
        if reason is None:
            rows.append(k)
        else:
            refused[reason] += 1
    origin = part.origin.copy()
    origin["max_devi_f"] = deviation
    return replace(part, origin=origin)[np.array(rows, dtype=np.intp)], refused


def _identity(campaign: Campaign, store: Store, iteration: int) -> dict[str, Any]:
    return taught.identity_of(store.fingerprint(iteration), campaign, store.result("teach", iteration, Ensemble))


def gather(campaign: Campaign, store: Store, iteration: int) -> Taught:
    """Publish what the teacher has labelled, and measure it against the reference on the held-out trajectories."""
    assert campaign.teacher is not None
    parts, walks, refused, evaluated = [], [], Counter[str](), 0
    held_out: list[Frames] = []
    deviation: FloatArray = np.zeros(0)
    for task in store.plan("distil", iteration).tasks:
        arrays, meta = store.read_product("distil", iteration, task.id)
        if task.kind == HELD_OUT:
            deviation = arrays.pop("max_devi_f")
            held_out = unpack(arrays)
            continue
        if arrays:
            parts.append(Frames.from_arrays(arrays))
        refused.update(meta["refused"])
        evaluated += meta["evaluated"]
        path = store.product("distil", iteration, task.id)
        walks.append(WalkRecord(id=task.id, stage="distil", ended=meta["ended"], sha256=file_sha256(path)))
    store.seal_frames(store.taught_file(iteration), parts)
    store.seal_frames(store.taught_held_out_file(iteration), held_out)
    truth = store.held_out(iteration)
    pairs: list[tuple[float, float]] = []
    for mine, its in zip(held_out, truth, strict=True):
        some = deviation[len(pairs) : len(pairs) + len(mine)]
        pairs += select.pairs(some, mine.label("forces"), its.label("forces"))
    return Taught(
        iteration=iteration,
        identity=_identity(campaign, store, iteration),
        walks=tuple(walks),
        max_devi_f=campaign.teacher.max_devi_f,
        evaluated=evaluated,
        labelled=sum(len(part) for part in parts),
        refused=dict(refused),
        sha256=dataset_sha256(parts),
        held_out=prediction.errors(held_out, truth),
        calibration=tuple(pairs),
    )


STATION = Station("distil", plan, run, gather, runs_models=True, asks_reference=True)
