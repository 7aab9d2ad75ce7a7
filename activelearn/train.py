"""Train: an ensemble of DeePMD models that differ in the random seed only; and the final models of a campaign."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelearn.config import Campaign
from activelearn.engines import deepmd
from activelearn.engines.process import Slot
from activelearn.errors import ConfigError
from activelearn.frames import Frames, write_deepmd
from activelearn.records import Ensemble, Errors, Labelling, Member, Selection, Task
from activelearn.store import Store
from activelearn.tasks import Station

Curve = NDArray[np.float64]


def errors(predicted: Sequence[Frames], reference: Sequence[Frames]) -> Errors | None:
    """Return the errors of predictions against labels, or None without frames.

    Energies and virials per atom (meV/atom), forces per component (eV/Å).
    """
    if not reference:
        return None
    e, f, v = [], [], []
    for p, r in zip(predicted, reference, strict=True):
        assert p.energy is not None
        assert r.energy is not None
        assert p.forces is not None
        assert r.forces is not None
        e.append((p.energy - r.energy) / r.n_atoms * 1000.0)
        f.append((p.forces - r.forces).ravel())
        if p.virial is not None and r.virial is not None:
            v.append((p.virial - r.virial).ravel() / r.n_atoms * 1000.0)
    de, df = np.concatenate(e), np.concatenate(f)
    return Errors(
        n_frames=len(de),
        energy_rmse_meV_per_atom=float(np.sqrt((de**2).mean())),
        energy_mae_meV_per_atom=float(np.abs(de).mean()),
        force_rmse=float(np.sqrt((df**2).mean())),
        force_mae=float(np.abs(df).mean()),
        virial_rmse_meV_per_atom=float(np.sqrt((np.concatenate(v) ** 2).mean())) if v else None,
    )


def _new_frames(store: Store, iteration: int, trained_in: int) -> int:
    """Return how many training frames came since the ensemble of `trained_in` was trained."""
    before = store.result("label", trained_in, Labelling).dataset_frames
    return store.result("label", iteration, Labelling).dataset_frames - before


def plan(campaign: Campaign, store: Store, iteration: int) -> list[Task]:
    """One task per member, or none if there is too little to learn: then the last ensemble is passed on."""
    if iteration == 0:
        _want_data(store)
        return _member_tasks(campaign, store, iteration, n_steps=campaign.train.n_steps, last=None)
    last = store.result("train", iteration - 1, Ensemble)
    selection = store.result("select", iteration, Selection)
    new = _new_frames(store, iteration, last.trained_in)
    if selection.is_converged or new == 0 or (new < campaign.train.min_new_frames and not selection.is_rescue):
        return []
    warm = last if campaign.train.warm_start and _same_networks(campaign, store, last) else None
    n_steps = (campaign.train.warm_n_steps if warm else None) or campaign.train.n_steps
    if selection.is_rescue:
        n_steps = round(n_steps * campaign.select.rescue.train_factor)
    return _member_tasks(campaign, store, iteration, n_steps=n_steps, last=warm)


def _same_networks(campaign: Campaign, store: Store, last: Ensemble) -> bool:
    """Return whether the last weights fit the networks of `campaign` (an accepted change may have enlarged them)."""
    before, now = store.campaign(last.trained_in).train, campaign.train
    return (before.descriptor, before.fitting, before.precision) == (now.descriptor, now.fitting, now.precision)


def _want_data(store: Store) -> None:
    """Refuse to train on nothing: the engine would say so in its own way, three times."""
    labelling = store.result("label", 0, Labelling)
    if labelling.dataset_frames == 0:
        reasons = ", ".join(f"{n} {reason}" for reason, n in labelling.refused.items()) or "the reference MD failed"
        raise ConfigError(
            f"label: no initial frame is fit for training ({reasons}) - wanted at least one - mend initial, the "
            f"reference or label.max_force and max_net_force, and start anew with another --folder (with label.ledger: "
            f"{store.folder / 'labels'} no label is paid for twice)"
        )


def _member_tasks(
    campaign: Campaign, store: Store, iteration: int, *, n_steps: int, last: Ensemble | None
) -> list[Task]:
    tasks = []
    for index in range(campaign.train.n_members):
        rng = store.rng(iteration, "train", f"member-{index}")
        start = last.members[index].model if last is not None and index < len(last.members) else None
        parameters: dict[str, Any] = {
            "index": index,
            "n_steps": n_steps,
            "random_seeds": rng.integers(1, 2**31 - 1, size=3).tolist(),
            "warm": start is not None,
            "up_to": iteration,
        }
        inputs = () if start is None else (start,)
        tasks.append(Task(id=f"member-{index}", kind="train", parameters=parameters, inputs=inputs))
    return tasks


def _setting(campaign: Campaign, store: Store, parameters: dict[str, Any], systems: Sequence[Path]) -> dict[str, Any]:
    return deepmd.training_input(
        campaign.train,
        deepmd.TrainingRun(parameters["n_steps"], tuple(parameters["random_seeds"]), parameters["warm"]),
        type_map=campaign.type_map,
        sel=store.sel(),
        systems=[str(path) for path in systems],
    )


def _trained(campaign: Campaign, store: Store, task: Task, folder: Path, slot: Slot) -> tuple[Member, Curve]:
    """Train, freeze, test and publish one model; return it as a member, and its learning curve."""
    p = task.parameters
    systems = write_deepmd(store.dataset(p["up_to"]), folder / "data", campaign.type_map)
    start = store.folder / task.inputs[0] if task.inputs else None
    frozen = deepmd.train_member(folder, _setting(campaign, store, p, systems), slot, start_from=start)
    _, curve = deepmd.learning_curve(folder / "lcurve.out")
    held_out = store.frames(store.held_out_file)
    found = errors(deepmd.evaluate(folder, frozen, held_out, slot), held_out)
    if not np.isfinite(curve[-1]).all() or (found is not None and not np.isfinite(found.force_rmse)):
        raise deepmd.diverged(folder, task.id)
    model, sha256 = store.publish_model(frozen)
    seed, n_steps = p["random_seeds"][2], p["n_steps"]
    member = Member(index=p["index"], random_seed=seed, model=model, sha256=sha256, n_steps=n_steps, held_out=found)
    return member, curve


def run(task: Task, store: Store, iteration: int, slot: Slot) -> None:
    """Train, freeze and test one member; publish its model and then the product that names it."""
    campaign = store.campaign(iteration)
    folder = store.scratch(slot.machine, f"{iteration:03d}", "train", task.id)
    with deepmd.stopwatch() as span:
        member, curve = _trained(campaign, store, task, folder, slot)
    meta = {"member": member.model_dump(mode="json"), **span}
    store.publish_product("train", iteration, task.id, {"learning_curve": curve}, meta)
    store.drop_scratch(folder, slot.machine)


def _members(store: Store, station: str, iteration: int) -> tuple[Member, ...]:
    plan = store.plan(station, iteration)
    assert plan is not None  # gather is called after the plan was carried out
    metas = [store.read_product(station, iteration, task.id)[1] for task in plan.tasks]
    return tuple(Member.model_validate(meta["member"]) for meta in metas)


def gather(campaign: Campaign, store: Store, iteration: int) -> Ensemble:
    """Seal the ensemble that the next iteration explores with."""
    members = _members(store, "train", iteration)
    if not members:
        last = store.result("train", iteration - 1, Ensemble)
        return last.model_copy(update={"iteration": iteration})
    return Ensemble(iteration=iteration, trained_in=iteration, type_map=campaign.type_map, members=members)


STATION = Station("train", plan, run, gather)


# --- the final models -------------------------------------------------------------------------------------------------


def plan_final(campaign: Campaign, store: Store, iteration: int) -> list[Task]:
    """One task per member: a longer training if the campaign wants one, and compression."""
    last = store.result("train", iteration, Ensemble)
    if campaign.final.n_steps is not None:
        return _member_tasks(campaign, store, iteration, n_steps=campaign.final.n_steps, last=None)
    if not campaign.final.compress:
        return []
    return [
        Task(id=f"member-{m.index}", kind="compress", parameters={"index": m.index}, inputs=(m.model,))
        for m in last.members
    ]


def run_final(task: Task, store: Store, iteration: int, slot: Slot) -> None:
    """Train anew (if planned) and compress; publish the models and then the product that names them."""
    campaign = store.campaign(iteration)
    folder = store.scratch(slot.machine, "final", task.id)
    with deepmd.stopwatch() as span:
        if task.kind == "train":
            member, _ = _trained(campaign, store, task, folder, slot)
        else:
            member = store.result("train", iteration, Ensemble).members[task.parameters["index"]]
        if campaign.final.compress:
            compressed, sha256 = store.publish_model(_compressed(campaign, store, iteration, member, folder, slot))
            member = member.model_copy(update={"compressed": compressed, "compressed_sha256": sha256})
    store.publish_product("final", iteration, task.id, {}, {"member": member.model_dump(mode="json"), **span})
    store.drop_scratch(folder, slot.machine)


def _compressed(campaign: Campaign, store: Store, iteration: int, member: Member, folder: Path, slot: Slot) -> Path:
    """Compress a member; the shortest distance in the data sets the range of the table."""
    systems = write_deepmd(store.dataset(iteration), folder / "data-compress", campaign.type_map)
    parameters = {"n_steps": 1, "random_seeds": [1, 1, 1], "warm": False}
    return deepmd.compress(folder, store.folder / member.model, _setting(campaign, store, parameters, systems), slot)


def gather_final(campaign: Campaign, store: Store, iteration: int) -> Ensemble:
    """Seal the ensemble that is exported."""
    last = store.result("train", iteration, Ensemble)
    members = _members(store, "final", iteration) or last.members
    return Ensemble(iteration=iteration, trained_in=last.trained_in, type_map=campaign.type_map, members=members)


FINAL_STATION = Station("final", plan_final, run_final, gather_final)
