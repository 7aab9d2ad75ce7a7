"""Train: an ensemble of DeePMD models that differ in the random seed only; and the final models of a campaign.

A warm start (``train.warm_start``) takes the weights of the same member of the last ensemble and nothing else: Adam's
moments and the step count begin anew, the learning rate falls again from ``learning_rate.warm_start`` over
``warm_n_steps``, the data are all frames so far. It wants the same networks and the same `sel`, which is why `sel` is
fixed when a campaign begins; other networks start cold. The final models always start cold.

A training that diverges is physics, not infrastructure: the member is trained anew with a lower learning rate.

A killed training starts from zero. With ``checkpoints`` of the machine profile it goes on from the last one instead,
for trainings longer than a walltime: the member says from which steps, and its model is no longer bit for bit that of
an undisturbed run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn import final_models, geometry, learning, prediction, trees
from activelearn.config import Campaign
from activelearn.engines import checkpoints, deepmd
from activelearn.engines.process import Slot
from activelearn.errors import ConfigError
from activelearn.records import Ensemble, Labelling, Member, Selection, Task
from activelearn.store import Store
from activelearn.store.files import unique_suffix
from activelearn.tasks import Station
from activelearn.writing import write_deepmd

log = logging.getLogger(__name__)
#: A diverged member is trained anew from fresh weights with this factor on the start of the learning rate ...
SLOWER: Final = 0.3
#: ... until it has had so many trainings.
MAX_ATTEMPTS: Final = 4

Curve = NDArray[np.float64]
#: Where the loss bound stands beside the training data.
_BOUND: Final = "largest_loss.json"
_writing: Final = threading.Lock()


def plan(campaign: Campaign, store: Store, iteration: int) -> list[Task]:
    """One task per member, or none if there is too little to learn: then the last ensemble is passed on."""
    if iteration == 0:
        _want_data(store)
        return _member_tasks(campaign, store, iteration, n_steps=campaign.train.n_steps, last=None)
    last = store.result("train", iteration - 1, Ensemble)
    selection = store.find_result("select", iteration, Selection)  # None: initial data of added systems were made
    is_rescue = selection is not None and selection.is_rescue
    now, before = (store.result("label", i, Labelling).dataset_frames for i in (iteration, last.trained_in))
    new = now - before  # since that ensemble was trained
    if selection is not None and selection.learnt_nothing:  # it stopped here: only other settings are tried anew
        is_changed = new > 0 or store.campaign(last.trained_in).train != campaign.train
        n_steps = campaign.train.n_steps
        return _member_tasks(campaign, store, iteration, n_steps=n_steps, last=None) if is_changed else []
    # The shares are low enough and the errors are not: what little there is is learnt, and other settings are tried.
    is_inaccurate = selection is not None and selection.is_inaccurate
    has_other_settings = is_inaccurate and store.campaign(last.trained_in).train != campaign.train
    if (new == 0 and not has_other_settings) or (selection is not None and selection.is_converged):
        return []
    if new < campaign.train.min_new_frames and selection is not None and not is_rescue and not is_inaccurate:
        return []
    warm = last if campaign.train.warm_start and _same_networks(campaign, store, last) else None
    n_steps = (campaign.train.warm_n_steps if warm else None) or campaign.train.n_steps
    if is_rescue:
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
        too_full = labelling.refused.get(geometry.NO_ROOM, 0) > sum(labelling.refused.values()) / 2
        mend = "mend initial, the reference or label.max_force and max_net_force"
        mend = "leave train.descriptor.sel out, or raise it" if too_full else mend
        raise ConfigError(
            f"label: no initial frame is fit for training ({reasons}) - wanted at least one - {mend}, and start anew "
            f"with another --folder (with label.ledger: {store.folder / 'labels'} no label is paid for twice)"
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


def _setting(campaign: Campaign, store: Store, run: deepmd.TrainingRun, systems: Sequence[Path]) -> dict[str, Any]:
    paths = [str(path) for path in systems]
    return deepmd.training_input(campaign.train, run, type_map=campaign.type_map, sel=store.sel(), systems=paths)


def attempts(campaign: Campaign, task: Task) -> Iterator[deepmd.TrainingRun]:
    """Yield the trainings of one member: the planned one, and what is tried each time one has diverged.

    That is a cold start of full length, with random seeds derived from the planned ones and a lower learning rate.
    """
    p = task.parameters
    yield deepmd.TrainingRun(p["n_steps"], tuple(p["random_seeds"]), p["warm"])
    for k in range(1, MAX_ATTEMPTS):
        rng = np.random.default_rng([*p["random_seeds"], k])
        seeds = tuple(rng.integers(1, 2**31 - 1, size=len(p["random_seeds"])).tolist())
        n_steps = max(p["n_steps"], campaign.train.n_steps)
        yield deepmd.TrainingRun(n_steps, seeds, learning_rate_factor=SLOWER**k)


def training_data(campaign: Campaign, store: Store, station: str, up_to: int, slot: Slot) -> tuple[list[Path], float]:
    """Return the data set as deepmd/npy systems, and the loss beyond which a training on it has diverged.

    Written once for all members (at paper size it is hundreds of MB), in scratch: first come, first to publish. Its
    name is the checksum of the data and of the settings that they and the bound are made with, for scratch that is
    kept may be older than a campaign that was set back.
    """
    folder = store.shared_scratch(slot.machine, station, up_to) / _data_name(campaign, store, up_to)
    with _writing:
        if not folder.is_dir():
            parts = store.dataset(up_to)
            work = store.scratch(slot.machine, f"data-{up_to:03d}")
            made = work / folder.name
            made.mkdir()
            systems = write_deepmd(parts, made, campaign.type_map)
            deepmd.write_element_weights(systems, campaign.train, campaign.type_map)
            (made / _BOUND).write_text(json.dumps(deepmd.loss_bound(campaign.train, parts)))
            trees.rename(made, folder)  # unless another process was first
            store.drop_scratch(work, slot.machine)
    return sorted(path for path in folder.iterdir() if path.is_dir()), float(json.loads((folder / _BOUND).read_text()))


def _data_name(campaign: Campaign, store: Store, up_to: int) -> str:
    sha256 = store.result("label", up_to, Labelling).dataset_sha256
    train = campaign.train
    content = [sha256, campaign.type_map, train.element_weights or {}, train.prefactors.force[0]]
    return f"data-{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]}"


def _checkpoints(store: Store) -> Path:
    """Return where trainings keep their checkpoints: beside the products, for scratch may be one node's own disk."""
    return store.folder / "checkpoints"


def _tries(campaign: Campaign, store: Store, station: str, task: Task) -> Path:
    """Return the folder of the tries of one training: the same member on the same data with the same settings."""
    up_to = task.parameters["up_to"]
    data = store.result("label", up_to, Labelling).dataset_sha256
    content = [task.model_dump(mode="json"), campaign.train.model_dump(mode="json"), data]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return _checkpoints(store) / f"{up_to:03d}-{station}-{task.id}-{digest[:12]}"


Trial = tuple[int, deepmd.TrainingRun, Path, str | None]


def _anew(campaign: Campaign, task: Task, folder: Path) -> Iterator[Trial]:
    """Yield what is tried, in turn: number, training, folder and the checkpoint in it to go on from (none)."""
    for attempt, training in enumerate(attempts(campaign, task), 1):
        place = folder / f"attempt-{attempt}"
        place.mkdir()
        yield attempt, training, place, None


def _resumed(campaign: Campaign, task: Task, tries: Path, slot: Slot) -> Iterator[Trial]:
    """Yield the same from where a killed training has left off; what it has left goes when it is taken over."""
    trees.make(tries.parent)
    left = checkpoints.left_by(tries, slot) or checkpoints.Left(attempt=1)
    folder = tries / unique_suffix()
    for attempt, training in enumerate(attempts(campaign, task), 1):
        if attempt < left.attempt:
            continue
        place = trees.make(folder) / f"attempt-{attempt}"
        place.mkdir()
        average = deepmd.averaged_steps(campaign.train, training.n_steps)
        restart = left.take_over(place, slot, average) if attempt == left.attempt else None
        for old in tries.iterdir():
            if old != folder:
                trees.remove(old, tries)
        if restart is not None:
            log.warning("train %s goes on from %s (remove %s to start it anew)", task.id, restart, tries)
        yield attempt, replace(training, checkpoints=True), place, restart


def _trained(
    campaign: Campaign, store: Store, station: str, task: Task, folder: Path, slot: Slot
) -> tuple[Member, dict[str, Curve], dict[str, Any]]:
    """Train, freeze, test and publish one model; return it as a member, its learning curve, and the curve's columns."""
    held_out = store.held_out(task.parameters["up_to"])
    systems, bound = training_data(campaign, store, station, task.parameters["up_to"], slot)
    trials = _anew(campaign, task, folder)
    if slot.machine.checkpoints:
        trials = _resumed(campaign, task, _tries(campaign, store, station, task), slot)
    for attempt, training, place, restart in trials:
        setting = _setting(campaign, store, training, systems)
        start = store.model(task.inputs[0]) if training.warm else None
        average = checkpoints.kept(place, deepmd.averaged_steps(campaign.train, training.n_steps))
        weights = deepmd.Weights(start, restart, average)
        frozen = deepmd.train_member(place, setting, slot, largest_loss=bound, weights=weights)
        predicted = deepmd.evaluate(place, frozen, held_out, slot) if frozen is not None else []
        if frozen is not None and all(np.isfinite(part.forces).all() for part in predicted if part.forces is not None):
            break
        rate = setting["learning_rate"]["start_lr"]
        log.warning("train %s diverged from learning rate %.3g (%d of %d)", task.id, rate, attempt, MAX_ATTEMPTS)
    else:
        raise _diverged(task)
    columns, curve = deepmd.learning_curve(place / deepmd.CURVE)
    model, sha256 = store.publish_model(frozen)
    member = Member(
        index=task.parameters["index"],
        random_seed=training.random_seeds[2],
        model=model,
        sha256=sha256,
        n_steps=training.n_steps,
        attempts=attempt,
        learning_rate_factor=training.learning_rate_factor,
        resumed_from=checkpoints.resumed_from(place),
        held_out=prediction.errors(predicted, held_out),
        by_composition=prediction.errors_by_composition(predicted, held_out),
    )
    meta: dict[str, Any] = {"learning_curve_columns": columns}
    if average:
        meta["averaged_steps"] = average
    if member.resumed_from:
        meta["resumed_from"] = list(member.resumed_from)
    return member, {"learning_curve": curve}, meta


def _diverged(task: Task) -> ConfigError:
    """Return the error of a member that diverged at every learning rate: to try again would do the same again."""
    return ConfigError(
        f"train.learning_rate.start: {task.id} diverged {MAX_ATTEMPTS} times, the last time from "
        f"{SLOWER ** (MAX_ATTEMPTS - 1):g} of it - wanted a training whose loss stays finite and below "
        f"{deepmd.DIVERGED:g} times that of no force at all - lower it, choose float64, lower label.max_force if a "
        "label is absurd, and start anew with another --folder (with label.ledger no label is paid for twice)"
    )


def run(task: Task, store: Store, iteration: int, slot: Slot) -> None:
    """Train, freeze and test one member; publish its model and then the product that names it."""
    campaign = store.campaign(iteration)
    folder = store.scratch(slot.machine, f"{iteration:03d}", "train", task.id)
    with deepmd.stopwatch() as span:
        member, arrays, meta = _trained(campaign, store, "train", task, folder, slot)
    meta |= {"member": member.model_dump(mode="json"), **span}
    store.publish_product("train", iteration, task.id, arrays, meta)
    store.drop_scratch(folder, slot.machine)


def _members(store: Store, station: str, iteration: int, kind: str = "train") -> tuple[Member, ...]:
    tasks = [task for task in store.plan(station, iteration).tasks if task.kind == kind]
    metas = [store.read_meta(station, iteration, task.id) for task in tasks]
    members = tuple(Member.model_validate(meta["member"]) for meta in metas)
    return learning.with_curves(members, tasks, store, station, iteration) if kind == "train" else members


def gather(campaign: Campaign, store: Store, iteration: int) -> Ensemble:
    """Seal the ensemble that the next iteration explores with."""
    trees.remove(_checkpoints(store), store.folder)
    members = _members(store, "train", iteration)
    if not members:
        last = store.result("train", iteration - 1, Ensemble)
        return last.model_copy(update={"iteration": iteration})
    ensemble = Ensemble(iteration=iteration, trained_in=iteration, type_map=campaign.type_map, members=members)
    for line in learning.problems_of(ensemble):
        log.warning("%s", line)
    return ensemble


STATION = Station("train", plan, run, gather, runs_models=True)


# --- the final models -------------------------------------------------------------------------------------------------


def plan_final(campaign: Campaign, store: Store, iteration: int) -> list[Task]:
    """One task per member: a longer training if the campaign wants one, and compression.

    Models trained anew may turn out to be worse than those of the loop, which are compressed beside them then.
    """
    last = store.result("train", iteration, Ensemble)
    is_anew = campaign.final.n_steps is not None
    anew: list[Task] = []
    if campaign.final.n_steps is not None:
        anew = _member_tasks(campaign, store, iteration, n_steps=campaign.final.n_steps, last=None)
    if not campaign.final.compress:
        return anew
    name = "of-loop" if is_anew else "member"
    return anew + [
        Task(id=f"{name}-{m.index}", kind="compress", parameters={"index": m.index}, inputs=(m.model,))
        for m in last.members
    ]


def run_final(task: Task, store: Store, iteration: int, slot: Slot) -> None:
    """Train anew (if planned) and compress; publish the models and then the product that names them."""
    campaign = store.campaign(iteration)
    folder = store.scratch(slot.machine, "final", task.id)
    arrays: dict[str, Curve] = {}
    meta: dict[str, Any] = {}
    with deepmd.stopwatch() as span:
        if task.kind == "train":
            member, arrays, meta = _trained(campaign, store, "final", task, folder, slot)
        else:
            member = store.result("train", iteration, Ensemble).members[task.parameters["index"]]
        if campaign.final.compress:
            compressed, sha256 = store.publish_model(_compressed(campaign, store, iteration, member, folder, slot))
            member = member.model_copy(update={"compressed": compressed, "compressed_sha256": sha256})
    meta |= {"member": member.model_dump(mode="json"), **span}
    store.publish_product("final", iteration, task.id, arrays, meta)
    store.drop_scratch(folder, slot.machine)


def _compressed(campaign: Campaign, store: Store, iteration: int, member: Member, folder: Path, slot: Slot) -> Path:
    """Compress a member; the shortest distance in the data sets the range of the table."""
    systems, _ = training_data(campaign, store, "final", iteration, slot)
    setting = _setting(campaign, store, deepmd.TrainingRun(1, (1, 1, 1)), systems)
    return deepmd.compress(folder, store.model(member.model), setting, slot)


def gather_final(_: Campaign, store: Store, iteration: int) -> Ensemble:
    """Seal the models that are exported: those trained anew with those of the loop, or the latter alone."""
    trees.remove(_checkpoints(store), store.folder)
    last = store.result("train", iteration, Ensemble)
    of_loop = _members(store, "final", iteration, "compress") or last.members
    anew = _members(store, "final", iteration)
    ready = last.model_copy(update={"iteration": iteration, "members": of_loop})
    if not anew:
        return ready
    if final_models.compared(anew, last.members, last.trained_in)[1]:
        log.warning("final models are worse than those of iteration %d on the held-out frames", last.trained_in)
    return ready.model_copy(update={"members": anew, "of_loop": of_loop})


FINAL_STATION = Station("final", plan_final, run_final, gather_final, phase="final", runs_models=True)
