"""Label: the reference's energies and forces, each paid for once, each validated or refused with a reason."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from activelearn import inherited, select
from activelearn.config import Campaign
from activelearn.config import Label as LabelSettings
from activelearn.engines import reference
from activelearn.engines.process import Slot
from activelearn.frames import Frames, Label, dataset_sha256
from activelearn.records import InitialData, Labelling, Task
from activelearn.store import Store
from activelearn.store.files import read_npz
from activelearn.tasks import Station


@lru_cache(maxsize=4)
def _chosen(path: Path) -> tuple[Frames, ...]:
    """Return the frames to be labelled; read once per process, for every label task wants one of them."""
    from activelearn.frames import unpack

    return tuple(unpack(read_npz(path)[0]))


@lru_cache(maxsize=4)
def _inherited(path: Path) -> dict[int, dict[str, Any]]:
    """Return who labelled the parts that came from the ledger; read once per process."""
    return inherited.sealed_references(path)


def _reference(store: Store, iteration: int, part: int) -> dict[str, Any]:
    """Return the identity of what labels, or labelled, the frames of a part: it stands with their labels."""
    return _inherited(store.chosen_file(iteration)).get(part) or store.fingerprint(iteration)


def plan(campaign: Campaign, store: Store, iteration: int) -> list[Task]:
    """One task per chosen frame; its key is the content address of its label in the ledger."""
    tasks: list[Task] = []
    for p, part in enumerate(_chosen(store.chosen_file(iteration))):
        fingerprint = _reference(store, iteration, p)["sha256"]
        for k in range(len(part)):
            parameters = {"part": p, "frame": k, "key": part.structure_key(k, fingerprint)}
            tasks.append(Task(id=f"{len(tasks):05d}", kind="label", parameters=parameters))
    return tasks


def run(task: Task, store: Store, iteration: int, slot: Slot) -> None:
    """Label one frame and append it to the ledger; one that came labelled (reference MD, a ledger) is adopted."""
    p = task.parameters
    frame = _chosen(store.chosen_file(iteration))[p["part"]][p["frame"]]
    if frame.energy is not None and frame.forces is not None and frame.virial is not None:
        found = Label(float(frame.energy[0]), frame.forces[0], frame.virial[0])
    else:
        what = store.campaign(iteration).label.reference
        reference.want_identity(what, slot, store.fingerprint(iteration)["sha256"])
        found = reference.label(what, frame, slot)
    store.ledger_writer.append(p["key"], found, frame, _reference(store, iteration, p["part"]))


def refusal(label: Label, settings: LabelSettings) -> str | None:
    """Return why a label is not fit for training, or None.

    Parameters
    ----------
    label
        From the ledger.
    settings
        Holds the caps (eV/Å).
    """
    if label.refused is not None:
        return label.refused
    if not (np.isfinite(label.energy) and np.isfinite(label.forces).all() and np.isfinite(label.virial).all()):
        return "not finite"
    largest = float(np.linalg.norm(label.forces, axis=1).max())
    if largest > settings.max_force:
        return f"force above {settings.max_force:g} eV/Å"
    net = float(np.linalg.norm(label.forces.sum(axis=0))) / len(label.forces)
    if net > settings.max_net_force:
        return f"net force above {settings.max_net_force:g} eV/Å per atom"
    return None


def labelled(part: Frames, keys: list[str], store: Store, settings: LabelSettings) -> tuple[Frames, dict[str, int]]:
    """Return the frames of `part` that have an acceptable label, with it, and the refusals by reason."""
    refused: dict[str, int] = {}
    rows, labels, seen = [], [], set()
    for k, key in enumerate(keys):
        label = store.ledger.find(key)
        reason = "refused by consent after infrastructure failures" if label is None else refusal(label, settings)
        if key in seen:
            reason = "duplicate structure"
        if reason is not None or label is None:
            refused[str(reason)] = refused.get(str(reason), 0) + 1
            continue
        seen.add(key)
        rows.append(k)
        labels.append(label)
    bare = part.without_labels()[np.array(rows, dtype=np.intp)]
    shape = (len(rows), part.n_atoms, 3)
    return bare.with_labels(
        np.array([label.energy for label in labels], dtype=np.float64),
        np.array([label.forces for label in labels]).reshape(shape),
        np.array([label.virial for label in labels]).reshape(len(rows), 3, 3),
    ), refused


def gather(campaign: Campaign, store: Store, iteration: int) -> Labelling:
    """Join frames and labels in plan order, set the held-out trajectories aside, publish the data set."""
    plan = store.plan("label", iteration)
    assert plan is not None  # gather is called after the plan was carried out
    is_initial = store.is_sealed("initial", iteration)
    held_names = set(store.result("initial", iteration, InitialData).held_out) if is_initial else set()
    keys: dict[int, list[str]] = {}
    for task in plan.tasks:
        keys.setdefault(task.parameters["part"], []).append(task.parameters["key"])
    training: list[Frames] = []
    held_out: list[Frames] = []
    refused: dict[str, int] = {}
    calibration: list[tuple[float, float]] = []
    beside, _ = read_npz(store.chosen_file(iteration))  # the forces that drove the chosen frames, if a model did
    store.ledger.refresh()
    for p, part in enumerate(_chosen(store.chosen_file(iteration))):
        good, reasons = labelled(part, keys[p], store, campaign.label)
        for reason, n in reasons.items():
            refused[reason] = refused.get(reason, 0) + n
        if f"{p}/model_forces" in beside and good.forces is not None:
            driving = beside[f"{p}/model_forces"][np.isin(part.origin["step"], good.origin["step"])]
            calibration += select.pairs(good.origin["max_devi_f"], driving, good.forces)
        if len(good):
            (held_out if str(good.origin["walk"][0]) in held_names else training).append(good)
    store.seal_frames(store.dataset_file(iteration), training)
    if is_initial:
        store.seal_frames(store.held_out_file(iteration), held_out)
    asked = store.planned_at("label", iteration)
    spans = {key: store.ledger.span(key) for group in keys.values() for key in group if key in store.ledger}
    paid = [key for key, (started, finished) in spans.items() if finished > max(started, asked)]
    came = _inherited(store.chosen_file(iteration))  # from the ledger, where they are found again: reused, not adopted
    adopted = sum(
        len(q) for p, q in enumerate(_chosen(store.chosen_file(iteration))) if q.is_labelled and p not in came
    )
    parts = store.dataset(iteration)
    f_hi = select.window_of(campaign, store, iteration)[1]
    rescued = sum(int((part.origin["max_devi_f"] >= f_hi).sum()) for part in training)
    return Labelling(
        iteration=iteration,
        labelled=sum(len(part) for part in [*training, *held_out]),
        held_out=sum(len(part) for part in held_out),
        refused=refused,
        rescued=rescued,
        dataset_frames=sum(len(part) for part in parts),
        dataset_sha256=dataset_sha256(parts),
        labels_computed=len(paid),
        labels_adopted=adopted,
        labels_reused=len(plan.tasks) - len(paid) - adopted,
        calibration=tuple(calibration),
    )


STATION = Station("label", plan, run, gather)
