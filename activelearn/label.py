"""Label: the reference's energies and forces, each computed once, each validated or refused with a reason."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn import capacity, geometry, inherited, pressures, samples, select
from activelearn.config import Campaign
from activelearn.engines import reference
from activelearn.engines.jobs import clear
from activelearn.engines.process import Slot, check_stop
from activelearn.errors import EngineError
from activelearn.frames import FrameLabel, Frames, dataset_sha256, unpack
from activelearn.records import InitialData, Labelling, Task
from activelearn.store import Store, begun
from activelearn.store.begun import Begun
from activelearn.store.files import read_npz
from activelearn.store.journal import label_of
from activelearn.tasks import Station

log = logging.getLogger(__name__)
#: Interval at which a worker that is waited for is polled, s.
_LOOK_S: Final = 0.2


@dataclass(frozen=True)
class _Chosen:
    """The frames to be labelled, and what is sealed beside them.

    Parameters
    ----------
    parts
        Frames of one walk each.
    model_forces
        By part: (n_frames, n_atoms, 3) eV/Å of the model that drove the walk.
    references
        By part: who labelled what came from the ledger.
    """

    parts: tuple[Frames, ...]
    model_forces: dict[int, NDArray[np.float32]]
    references: dict[int, dict[str, Any]]


def _chosen(store: Store, iteration: int) -> _Chosen:
    """Return what is to be labelled."""
    return _read_chosen(store.whole(store.chosen_file(iteration)))


@lru_cache(maxsize=4)
def _read_chosen(path: Path) -> _Chosen:
    """Return the same; sealed, so read once per process: every label task needs one frame."""
    arrays, _ = read_npz(path)
    parts = tuple(unpack(arrays))
    forces = {p: arrays[name] for p in range(len(parts)) if (name := f"{p}/model_forces") in arrays}
    return _Chosen(parts, forces, inherited.sealed_references(arrays))


def _reference(store: Store, iteration: int, part: int) -> dict[str, Any]:
    """Return the identity of what labels, or labelled, the frames of a part: it is stored with their labels."""
    return _chosen(store, iteration).references.get(part) or store.fingerprint(iteration)


def _is_walked(store: Store, iteration: int) -> bool:
    """Return whether the frames come from walks: explore ends these where `sel` does not hold the neighbours.

    Initial data, and labels that were inherited with them, have not been checked.
    """
    return store.is_sealed("select", iteration)


def plan(campaign: Campaign, store: Store, iteration: int) -> list[Task]:
    """One task per chosen frame; its key is the content address of its label in the ledger.

    A frame that would be refused for its neighbours gets no label, unless it came with one; it is still counted.
    """
    tasks: list[Task] = []
    is_walked = _is_walked(store, iteration)
    for p, part in enumerate(_chosen(store, iteration).parts):
        fingerprint = _reference(store, iteration, p)["sha256"]
        for k in range(len(part)):
            if not is_walked and label_of(part, k) is None and not capacity.has_room(part[k], campaign, store):
                continue
            parameters = {"part": p, "frame": k, "key": part.structure_key(k, fingerprint)}
            tasks.append(Task(id=f"{len(tasks):05d}", kind="label", parameters=parameters))
    return tasks


def run(task: Task, store: Store, iteration: int, slot: Slot) -> None:
    """Label one frame and append it to the ledger; one that came labelled (reference MD, a ledger) is adopted."""
    p = task.parameters
    frame = _chosen(store, iteration).parts[p["part"]][p["frame"]]
    one: Begun | None = None
    found = label_of(frame, 0)
    if found is None:
        one = Begun(store.folder, p["key"])
        found = _taken_up(one, frame.n_atoms, slot) or _computed(one, frame, store, iteration, slot)
    store.ledger_writer.append(p["key"], found, frame, _reference(store, iteration, p["part"]))
    if one is not None:
        one.forget()
        if one.folder is not None:
            clear(one.folder, slot)


def _computed(one: Begun, frame: Frames, store: Store, iteration: int, slot: Slot) -> FrameLabel:
    """Have the reference label a frame; the worker keeps the label if this process does not publish it."""
    campaign = store.campaign(iteration)
    what = campaign.label.reference
    sealed = store.fingerprint(iteration)["sha256"]
    reference.want_identity(what, slot, sealed)
    try:
        found = reference.label(
            what,
            frame,
            slot,
            keep=one.request(slot.machine.label_timeout_s),
            witnesses=lambda: [sample.frame for sample in samples.of_campaign(campaign)],
        )
        reference.want_identity(what, slot, sealed)  # a new worker may have given it
    except BaseException:
        one.leave()
        raise
    return found


def _taken_up(one: Begun, n_atoms: int, slot: Slot) -> FrameLabel | None:
    """Return the label that a killed driver had started, or None; a worker that still computes it is waited for.

    A computation that is no longer waited for ends, because its note is removed.
    """
    deadline, is_told = time.monotonic() + slot.machine.label_timeout_s, False
    try:
        while (answer := one.answer()) is None and (worker := one.orphan()) and time.monotonic() < deadline:
            if not is_told:
                log.warning(
                    "a label that a killed run had started is still being computed by process %s on %s; waiting for it",
                    worker["pid"],
                    worker.get("host"),
                )
                is_told = True
            check_stop()
            time.sleep(_LOOK_S)
        answer = answer or one.answer()  # it was kept, and then the note was taken away
        return None if answer is None else reference.to_label(answer, n_atoms)
    except EngineError as error:
        log.warning("a label that a killed run had started is computed again: %s", error)
        one.forget()
        return None
    finally:
        one.dismiss()


def labelled(
    part: Frames, keys: Sequence[str | None], store: Store, campaign: Campaign, *, is_walked: bool = False
) -> tuple[Frames, Counter[str]]:
    """Return the frames of `part` that have an acceptable label, with it, and the refusals by reason.

    Parameters
    ----------
    part
        Frames that were chosen.
    keys
        Of their labels; None: refused for its neighbours when the labels were planned.
    store, campaign
        Ledger and `sel`; what is acceptable.
    is_walked
        Their neighbours were counted where the walk was made.
    """
    refused: Counter[str] = Counter()
    rows, labels, seen = [], [], set()
    for k, key in enumerate(keys):
        if key is None:
            refused[geometry.NO_ROOM] += 1
            continue
        label = store.ledger.find(key)
        by_consent = "refused by consent after infrastructure failures"
        reason = by_consent if label is None else reference.refusal(label, campaign.label)
        if key in seen:
            reason = "duplicate structure"
        if reason is None and not is_walked and not capacity.has_room(part[k], campaign, store):
            reason = geometry.NO_ROOM
        if reason is not None or label is None:
            refused[str(reason)] += 1
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
        if part.energy is not None and len(part) and part.n_atoms > 2:
            energies.setdefault(part.formula, []).extend((part.energy / part.n_atoms).tolist())
    return {formula: float(np.median(values)) for formula, values in energies.items()}


def without_outliers(part: Frames, medians: Mapping[str, float], spread: float | None) -> Frames:
    """Return the frames whose energy per atom is within `spread` (eV) of the median of their formula.

    A calculation that converged to the wrong electronic state has correct forces and an energy far from all others.
    """
    if spread is None or part.energy is None or part.formula not in medians:
        return part
    return part[np.flatnonzero(np.abs(part.energy / part.n_atoms - medians[part.formula]) <= spread)]


@dataclass
class _Collected:
    """The outcome of the labels of an iteration."""

    training: list[Frames] = field(default_factory=list)
    held_out: list[Frames] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    calibration: list[tuple[float, float]] = field(default_factory=list)


def _collect(campaign: Campaign, store: Store, iteration: int, keys: Mapping[int, Mapping[int, str]]) -> _Collected:
    """Join frames and labels in plan order; held-out trajectories apart."""
    initial = store.find_result("initial", iteration, InitialData)
    held_names = set() if initial is None else set(initial.held_out)
    chosen, is_walked = _chosen(store, iteration), _is_walked(store, iteration)
    found = [
        labelled(part, [keys.get(p, {}).get(k) for k in range(len(part))], store, campaign, is_walked=is_walked)
        for p, part in enumerate(chosen.parts)
    ]
    medians = median_energies([good for good, _ in found])
    out = _Collected()
    for p, (fit, reasons) in enumerate(found):
        good = without_outliers(fit, medians, campaign.label.max_energy_spread)
        out.refused.update(reasons)
        if n_far := len(fit) - len(good):
            out.refused["energy per atom far from that of its formula"] += n_far
        if p in chosen.model_forces and good.forces is not None:
            driving = chosen.model_forces[p][np.isin(chosen.parts[p].origin["step"], good.origin["step"])]
            out.calibration += select.pairs(good.origin["max_devi_f"], driving, good.forces)
        if len(good):
            (out.held_out if str(good.origin["walk"][0]) in held_names else out.training).append(good)
    return out


def gather(campaign: Campaign, store: Store, iteration: int) -> Labelling:
    """Join frames and labels in plan order, set the held-out trajectories aside, publish the data set."""
    plan = store.plan("label", iteration)
    keys: dict[int, dict[int, str]] = {}
    for task in plan.tasks:
        keys.setdefault(task.parameters["part"], {})[task.parameters["frame"]] = task.parameters["key"]
    store.ledger.refresh()
    begun.sweep(store.folder, store.ledger)
    found = _collect(campaign, store, iteration, keys)
    store.seal_frames(store.dataset_file(iteration), found.training)
    if store.is_sealed("initial", iteration):
        store.seal_frames(store.held_out_file(iteration), found.held_out)
    asked = store.planned_at("label", iteration)
    spans = {key: store.ledger.span(key) for group in keys.values() for key in group.values() if key in store.ledger}
    paid = [key for key, (started, finished) in spans.items() if finished > max(started, asked)]
    chosen = _chosen(store, iteration)  # what came from the ledger is found there again: reused
    adopted = sum(len(q) for p, q in enumerate(chosen.parts) if q.is_labelled and p not in chosen.references)
    last = store.result("label", iteration - 1, Labelling) if iteration > 0 else None
    n_new = sum(len(part) for part in found.training)
    n_without = sum(int((~part.has_virial).sum()) for part in found.training)
    if last is None:
        for line in pressures.notes(campaign, n_without, n_new, "training frames"):
            log.warning("%s", line)
    rescued = _n_failed(found.training, campaign, store, iteration)
    return Labelling(
        iteration=iteration,
        labelled=n_new + (n_held_out := sum(len(part) for part in found.held_out)),
        held_out=n_held_out,
        refused=found.refused,
        rescued=rescued,
        dataset_frames=n_new + (last.dataset_frames if last is not None else 0),
        dataset_sha256=dataset_sha256(found.training, after=last.dataset_sha256 if last is not None else ""),
        dataset_without_virial=n_without + (last.dataset_without_virial if last is not None else 0),
        labels_computed=len(paid),
        labels_adopted=adopted,
        labels_reused=len(plan.tasks) - len(paid) - adopted,
        calibration=tuple(found.calibration),
    )


def _n_failed(parts: Sequence[Frames], campaign: Campaign, store: Store, iteration: int) -> int:
    """Return how many of the frames had failed, each by the window of the stage that found it."""
    f_hi = select.f_hi_by_walk(campaign, store, iteration)
    origins = (one for part in parts for one in zip(part.origin["walk"], part.origin["max_devi_f"], strict=True))
    return sum(bool(deviation >= f_hi[str(walk)]) for walk, deviation in origins)


STATION = Station("label", plan, run, gather, published="ledger", is_refusable=True, asks_reference=True)
