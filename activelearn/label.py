"""Label: the reference's energies and forces, each paid for once, each validated or refused with a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from activelearn import geometry, inherited, select
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


def labelled(part: Frames, keys: list[str], store: Store, campaign: Campaign) -> tuple[Frames, dict[str, int]]:
    """Return the frames of `part` that have an acceptable label, with it, and the refusals by reason."""
    refused: dict[str, int] = {}
    rcut, sel = campaign.train.descriptor.rcut, np.array(store.sel())
    rows, labels, seen = [], [], set()
    for k, key in enumerate(keys):
        label = store.ledger.find(key)
        reason = "refused by consent after infrastructure failures" if label is None else refusal(label, campaign.label)
        if key in seen:
            reason = "duplicate structure"
        if reason is None and (geometry.most_neighbours(part[k], rcut, campaign.type_map) > sel).any():
            reason = "more neighbours than sel holds"  # training would drop them in silence
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


def median_energies(parts: Sequence[Frames]) -> dict[str, float]:
    """Return the median energy per atom (eV) by formula; isolated atoms and dimers differ by design and have none."""
    energies: dict[str, list[float]] = {}
    for part in parts:
        if part.energy is not None and part.n_atoms > 2:
            energies.setdefault(part.formula, []).extend((part.energy / part.n_atoms).tolist())
    return {formula: float(np.median(values)) for formula, values in energies.items()}


def without_outliers(part: Frames, medians: Mapping[str, float], spread: float | None) -> Frames:
    """Return the frames whose energy per atom is within `spread` (eV) of the median of their formula.

    A calculation that converged to the wrong electronic state has fine forces and an energy that nothing explains.
    """
    if spread is None or part.energy is None or part.formula not in medians:
        return part
    return part[np.flatnonzero(np.abs(part.energy / part.n_atoms - medians[part.formula]) <= spread)]


@dataclass
class _Collected:
    """What the labels of an iteration gave."""

    training: list[Frames] = field(default_factory=list)
    held_out: list[Frames] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    calibration: list[tuple[float, float]] = field(default_factory=list)

    def refuse(self, reason: str, n: int) -> None:
        if n:
            self.refused[reason] = self.refused.get(reason, 0) + n


def _collect(campaign: Campaign, store: Store, iteration: int, keys: Mapping[int, list[str]]) -> _Collected:
    """Join frames and labels in plan order; held-out trajectories apart."""
    is_initial = store.is_sealed("initial", iteration)
    held_names = set(store.result("initial", iteration, InitialData).held_out) if is_initial else set()
    parts = _chosen(store.chosen_file(iteration))
    beside, _ = read_npz(store.chosen_file(iteration))  # the forces that drove the chosen frames, if a model did
    found = [labelled(part, keys[p], store, campaign) for p, part in enumerate(parts)]
    medians = median_energies([good for good, _ in found])
    out = _Collected()
    for p, (fit, reasons) in enumerate(found):
        good = without_outliers(fit, medians, campaign.label.max_energy_spread)
        for reason, n in reasons.items():
            out.refuse(reason, n)
        out.refuse("energy per atom far from that of its formula", len(fit) - len(good))
        if f"{p}/model_forces" in beside and good.forces is not None:
            driving = beside[f"{p}/model_forces"][np.isin(parts[p].origin["step"], good.origin["step"])]
            out.calibration += select.pairs(good.origin["max_devi_f"], driving, good.forces)
        if len(good):
            (out.held_out if str(good.origin["walk"][0]) in held_names else out.training).append(good)
    return out


def gather(campaign: Campaign, store: Store, iteration: int) -> Labelling:
    """Join frames and labels in plan order, set the held-out trajectories aside, publish the data set."""
    plan = store.plan("label", iteration)
    assert plan is not None  # gather is called after the plan was carried out
    keys: dict[int, list[str]] = {}
    for task in plan.tasks:
        keys.setdefault(task.parameters["part"], []).append(task.parameters["key"])
    store.ledger.refresh()
    found = _collect(campaign, store, iteration, keys)
    store.seal_frames(store.dataset_file(iteration), found.training)
    if store.is_sealed("initial", iteration):
        store.seal_frames(store.held_out_file(iteration), found.held_out)
    asked = store.planned_at("label", iteration)
    spans = {key: store.ledger.span(key) for group in keys.values() for key in group if key in store.ledger}
    paid = [key for key, (started, finished) in spans.items() if finished > max(started, asked)]
    came = _inherited(store.chosen_file(iteration))  # from the ledger, where they are found again: reused, not adopted
    adopted = sum(
        len(q) for p, q in enumerate(_chosen(store.chosen_file(iteration))) if q.is_labelled and p not in came
    )
    last = store.result("label", iteration - 1, Labelling) if iteration > 0 else None
    n_new = sum(len(part) for part in found.training)
    f_hi = select.window_of(campaign, store, iteration)[1]
    rescued = sum(int((part.origin["max_devi_f"] >= f_hi).sum()) for part in found.training)
    return Labelling(
        iteration=iteration,
        labelled=n_new + (n_held_out := sum(len(part) for part in found.held_out)),
        held_out=n_held_out,
        refused=found.refused,
        rescued=rescued,
        dataset_frames=n_new + (last.dataset_frames if last is not None else 0),
        dataset_sha256=dataset_sha256(found.training, after=last.dataset_sha256 if last is not None else ""),
        labels_computed=len(paid),
        labels_adopted=adopted,
        labels_reused=len(plan.tasks) - len(paid) - adopted,
        calibration=tuple(found.calibration),
    )


STATION = Station("label", plan, run, gather)
