"""Train: an ensemble of models that differ in the random seed only; and the final models of a campaign.

What trains them is a trainer (:class:`activelearn.config.Trainer`), the same steps whichever it is.

A warm start (``train.warm_start``) takes the weights of the same member of the last ensemble and nothing else: Adam's
moments and the step count are reset, the learning rate falls again from ``learning_rate.warm_start`` over
``warm_n_steps``, the data are all frames so far. It needs the same networks and the same `sel`, which is why `sel` is
fixed when a campaign begins; other networks start cold. The final models always start cold. The first ensemble may
begin with the weights of models from elsewhere (``train.start_from``), which are published as models of the campaign.

A teacher (``teacher.train``) is an ensemble that is trained in the same way, once, before the models of iteration 0;
what it has labelled by then they learn beside the data set.

A training that diverges is physics, not infrastructure: the member is trained again with a lower learning rate.

A killed training starts from zero. With ``checkpoints`` of the machine profile it is resumed from the last one instead,
for trainings longer than a walltime: the member records from which steps, and its model is no longer bit for bit that
of an undisturbed run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn import compression, final_models, geometry, learning, passes, prediction, taught, trees
from activelearn.config import Campaign, TrainingData, TrainingRun, trainer_of
from activelearn.engines.process import Slot
from activelearn.errors import ConfigError
from activelearn.frames import Frames
from activelearn.records import Ensemble, Labelling, Member, Selection, Task
from activelearn.store import Store
from activelearn.store.files import unique_suffix
from activelearn.tasks import Station

log = logging.getLogger(__name__)
#: A diverged member is trained again from random weights with this factor on the start of the learning rate ...
SLOWER: Final = 0.3
#: ... at most this many times in all.
MAX_ATTEMPTS: Final = 4

Curve = NDArray[np.float64]
_writing: Final = threading.Lock()


def plan(campaign: Campaign, store: Store, iteration: int) -> list[Task]:
    """One task per member, or none if there is too little to learn: then the last ensemble is passed on."""
    if iteration == 0:
        _want_data(campaign, store)
        given = [store.publish_model(file)[0] for file in trainer_of(campaign.train).begins_from(campaign.train)]
        n_steps = (campaign.train.warm_n_steps if given else None) or campaign.train.n_steps
        return _member_tasks(campaign, store, iteration, n_steps=n_steps, starts=given)
    last = store.result("train", iteration - 1, Ensemble)
    selection = store.find_result("select", iteration, Selection)  # None: initial data of added systems were made
    is_rescue = selection is not None and selection.is_rescue
    now, before = (store.result("label", i, Labelling).dataset_frames for i in (iteration, last.trained_in))
    new = now - before  # since that ensemble was trained
    if selection is not None and selection.learnt_nothing:  # it stopped here: it is only retried with other settings
        is_changed = new > 0 or not store.campaign(last.trained_in).train.trains_like(campaign.train)
        n_steps = campaign.train.n_steps
        return _member_tasks(campaign, store, iteration, n_steps=n_steps) if is_changed else []
    # The shares are low enough and the errors are not: the few new frames are used, and other settings are tried.
    is_inaccurate = selection is not None and selection.is_inaccurate
    has_other_settings = is_inaccurate and not store.campaign(last.trained_in).train.trains_like(campaign.train)
    if (new == 0 and not has_other_settings) or (selection is not None and selection.is_converged):
        return []
    has_another = iteration < campaign.stop.max_iterations
    if selection is not None and has_another and passes.lets_next_join(selection):
        return []  # what it found waits for what the next stage finds
    if new < campaign.train.min_new_frames and selection is not None and not is_rescue and not is_inaccurate:
        return []
    warm = last if campaign.train.warm_start and _same_networks(campaign, store, last) else None
    n_steps = (campaign.train.warm_n_steps if warm else None) or campaign.train.n_steps
    if is_rescue:
        n_steps = round(n_steps * campaign.select.rescue.train_factor)
    starts = () if warm is None else [member.start for member in warm.members]
    return _member_tasks(campaign, store, iteration, n_steps=n_steps, starts=starts)


def _same_networks(campaign: Campaign, store: Store, last: Ensemble) -> bool:
    """Return whether the last weights fit the networks of `campaign` (an accepted change may have enlarged them)."""
    before, now = store.campaign(last.trained_in).train, campaign.train
    return before.trainer == now.trainer and trainer_of(now).same_networks(before, now)


def _want_data(campaign: Campaign, store: Store) -> None:
    """Refuse to train on nothing: the engine would fail with its own message, three times."""
    labelling = store.result("label", 0, Labelling)
    if labelling.dataset_frames == 0:
        reasons = ", ".join(f"{n} {reason}" for reason, n in labelling.refused.items()) or "the reference MD failed"
        too_full = labelling.refused.get(geometry.NO_ROOM, 0) > sum(labelling.refused.values()) / 2
        advice = "fix initial, the reference or label.max_force and max_net_force"
        keys = " and ".join(shell.where for shell in trainer_of(campaign.train).shells(campaign.train))
        advice = f"leave {keys} out, or raise it" if too_full else advice
        raise ConfigError(
            f"label: no initial frame can be trained on ({reasons}) - expected at least one - {advice}, and start "
            f"again with another --folder (with label.ledger: {store.folder / 'labels'} no label is computed twice)"
        )


def _member_tasks(
    campaign: Campaign,
    store: Store,
    iteration: int,
    *,
    n_steps: int,
    starts: Sequence[str] = (),
    compress: bool | None = None,
) -> list[Task]:
    """Return one training for each member; null `compress`: its faster form is made if that pays in the next pass.

    Members beyond the models of `starts` begin from random weights.
    """
    if compress is None:
        compress = _pays(campaign, store, iteration)
    tasks = []
    for index in range(campaign.train.n_members):
        rng = store.rng(iteration, "train", f"member-{index}")
        start = starts[index] if index < len(starts) else None
        parameters: dict[str, Any] = {
            "index": index,
            "n_steps": n_steps,
            "random_seeds": rng.integers(1, 2**31 - 1, size=3).tolist(),
            "warm": start is not None,
            "up_to": iteration,
            "compress": compress,
        }
        inputs = () if start is None else (start,)
        tasks.append(Task(id=f"member-{index}", kind="train", parameters=parameters, inputs=inputs))
    return tasks


def _pays(campaign: Campaign, store: Store, iteration: int) -> bool:
    """Return whether the pass after an iteration walks with compressed models."""
    n_atoms, stages = None, passes.stages_of(campaign, store, iteration + 1)
    if campaign.train.compress == "auto" and any(stage.start == "dataset" for stage in stages):
        sizes = [(len(part), part.n_atoms) for part in store.dataset(iteration) if part.n_atoms > 2]
        n_atoms = sum(n * size for n, size in sizes) / max(1, sum(n for n, _ in sizes))
    return compression.is_worth_it(campaign, store.sel(), stages, n_atoms)


def attempts(campaign: Campaign, task: Task, start: Path | None = None) -> Iterator[TrainingRun]:
    """Yield the trainings of one member: the planned one, and what is tried each time one has diverged.

    Each is a cold start of full length, with random seeds derived from the planned ones and a lower learning rate.
    """
    p = task.parameters
    yield TrainingRun(p["n_steps"], tuple(p["random_seeds"]), start)
    for k in range(1, MAX_ATTEMPTS):
        rng = np.random.default_rng([*p["random_seeds"], k])
        seeds = tuple(rng.integers(1, 2**31 - 1, size=len(p["random_seeds"])).tolist())
        n_steps = max(p["n_steps"], campaign.train.n_steps)
        yield TrainingRun(n_steps, seeds, learning_rate_factor=SLOWER**k)


def training_data(campaign: Campaign, store: Store, station: str, up_to: int, slot: Slot) -> TrainingData:
    """Return the data set as the trainer reads it.

    Written once for all members (at paper size it is hundreds of MB), in scratch, by whichever process is first. Its
    name is the checksum of the data and of the settings that it is made with, because scratch that is kept may be older
    than a campaign that was reset.
    """
    folder = store.shared_scratch(slot.machine, station, up_to) / _data_name(campaign, store, up_to)
    with _writing:
        if not folder.is_dir():
            parts = [*store.dataset(up_to), *taught.learnt_beside(campaign, store)]
            work = store.scratch(slot.machine, f"data-{up_to:03d}")
            made = work / folder.name
            made.mkdir()
            trainer_of(campaign.train).write_data(made, parts, campaign.train, campaign.type_map)
            trees.rename(made, folder)  # unless another process was first
            store.drop_scratch(work, slot.machine)
    return TrainingData(folder, campaign.type_map, store.sel())


def _data_name(campaign: Campaign, store: Store, up_to: int) -> str:
    sha256 = store.result("label", up_to, Labelling).dataset_sha256
    train = campaign.train
    content = [sha256, campaign.type_map, train.trainer, trainer_of(train).data_key(train), *_beside(campaign, store)]
    return f"data-{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]}"


def _beside(campaign: Campaign, store: Store) -> list[str]:
    """Return the checksum of what is learnt beside the data set; names without it are those of older versions."""
    sha256 = taught.sha256_beside(campaign, store)
    return [] if sha256 is None else [sha256]


def _checkpoints(store: Store) -> Path:
    """Return where trainings keep their checkpoints: beside the products, for scratch may be one node's own disk."""
    return store.folder / "checkpoints"


#: Keys of the section, with the values that say nothing new.
_LATER_KEYS: Final = (("trainer", "deepmd"), ("backend", "tensorflow"), ("model", None), ("replay", None))


def _tries(campaign: Campaign, store: Store, station: str, task: Task) -> Path:
    """Return the folder of the tries of one training: the same member on the same data with the same settings."""
    up_to = task.parameters["up_to"]
    data = store.result("label", up_to, Labelling).dataset_sha256
    train = campaign.train.model_dump(mode="json", exclude={"compress"})
    # A training that was killed before these keys existed can be resumed.
    train = {key: value for key, value in train.items() if (key, value) not in _LATER_KEYS}
    content = [task.model_dump(mode="json"), train, data, *_beside(campaign, store)]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return _checkpoints(store) / f"{up_to:03d}-{station}-{task.id}-{digest[:12]}"


#: Number of the attempt, what is trained, and where.
Trial = tuple[int, TrainingRun, Path]


def _from_scratch(campaign: Campaign, task: Task, start: Path | None, folder: Path) -> Iterator[Trial]:
    """Yield what is tried, in turn."""
    for attempt, training in enumerate(attempts(campaign, task, start), 1):
        place = folder / f"attempt-{attempt}"
        place.mkdir()
        yield attempt, training, place


def _resumed(campaign: Campaign, task: Task, start: Path | None, tries: Path, slot: Slot) -> Iterator[Trial]:
    """Yield the same from where a killed training stopped; its files are removed when they are taken over."""
    trees.make(tries.parent)
    trainer = trainer_of(campaign.train)
    begun = {path: int(path.name.removeprefix("attempt-")) for path in tries.glob("*/attempt-*")}
    last = max(begun.values(), default=1)  # those before it have diverged
    left = [path for path, attempt in begun.items() if attempt == last]
    folder = tries / unique_suffix()
    for attempt, training in enumerate(attempts(campaign, task, start), 1):
        if attempt < last:
            continue
        place = trees.make(folder) / f"attempt-{attempt}"
        place.mkdir()
        restart = None
        if attempt == last and left:
            restart = trainer.take_over(left, place, campaign.train, training, slot)
        for old in tries.iterdir():
            if old != folder:
                trees.remove(old, tries)
        if restart is not None:
            log.warning("train %s is resumed from %s (remove %s to start it from scratch)", task.id, restart, tries)
        yield attempt, replace(training, checkpoints=True, restart=restart), place


def _trained(
    campaign: Campaign, store: Store, station: str, task: Task, folder: Path, slot: Slot
) -> tuple[Member, dict[str, Curve], dict[str, Any]]:
    """Train, test and publish one model; return it as a member, its learning curve, and the curve's columns."""
    trainer, held_out = trainer_of(campaign.train), store.held_out(task.parameters["up_to"])
    data = training_data(campaign, store, station, task.parameters["up_to"], slot)
    versions = trainer.versions(campaign.train, slot)
    start = store.model(task.inputs[0]) if task.parameters["warm"] else None
    trials = _from_scratch(campaign, task, start, folder)
    if slot.machine.checkpoints:
        trials = _resumed(campaign, task, start, _tries(campaign, store, station, task), slot)
    for attempt, training, place in trials:
        trained = trainer.train(place, campaign.train, training, data, slot)
        predicted = trainer.evaluate(place, trained.model, held_out, slot) if trained is not None else []
        if trained is not None and _is_finite(predicted):
            break
        factor = training.learning_rate_factor
        log.warning("train %s diverged at %.3g of its learning rate (%d of %d)", task.id, factor, attempt, MAX_ATTEMPTS)
    else:
        raise _diverged(campaign, task)
    notes = dict(trained.notes)
    model, sha256 = store.publish_model(trained.model)
    member = Member(
        index=task.parameters["index"],
        random_seed=training.random_seeds[2],
        model=model,
        sha256=sha256,
        weights=None if trained.weights is None else store.publish_model(trained.weights)[0],
        n_steps=training.n_steps,
        attempts=attempt,
        learning_rate_factor=training.learning_rate_factor,
        resumed_from=trained.resumed_from,
        held_out=prediction.errors(predicted, held_out),
        against_teacher=taught.errors_against_teacher(campaign, store, predicted),
        by_composition=prediction.errors_by_composition(predicted, held_out),
    )
    if task.parameters.get("compress", station == "final" and _compresses(campaign)):  # not in plans of old folders
        begun = time.monotonic()
        member = compression.compressed(member, store, task.parameters["up_to"], data, place, slot)
        notes["compress_s"] = round(time.monotonic() - begun, 1)
    meta = {"learning_curve_columns": trained.columns, "versions": versions, **notes}
    if member.resumed_from:
        meta["resumed_from"] = list(member.resumed_from)
    return member, {"learning_curve": trained.curve}, meta


def _is_finite(predicted: Sequence[Frames]) -> bool:
    return all(np.isfinite(part.forces).all() for part in predicted if part.forces is not None)


def _diverged(campaign: Campaign, task: Task) -> ConfigError:
    """Return the error of a member that diverged at every learning rate: a retry would do the same."""
    trainer, advice = trainer_of(campaign.train), "change the settings"
    where, times = "train", f"{MAX_ATTEMPTS} times"
    if trainer.learning_rate is not None:
        where, advice = trainer.learning_rate, "lower it, choose float64"
        times += f", the last time from {SLOWER ** (MAX_ATTEMPTS - 1):g} of it"
    return ConfigError(
        f"{where}: {task.id} diverged {times} - expected {trainer.stays} - {advice}, lower label.max_force if a label "
        "is absurd, and start again with another --folder (with label.ledger no label is computed twice)"
    )


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """Yield a dict that holds ``started`` and ``finished`` (Unix times) when the block is left."""
    span = {"started": time.time()}
    yield span
    span["finished"] = time.time()


def run(task: Task, store: Store, iteration: int, slot: Slot) -> None:
    """Train, freeze and test one member; publish its model and then the product that names it."""
    _run(store.campaign(iteration), "train", task, store, iteration, slot)


def _run(campaign: Campaign, station: str, task: Task, store: Store, iteration: int, slot: Slot) -> None:
    folder = store.scratch(slot.machine, f"{iteration:03d}", station, task.id)
    with stopwatch() as span:
        member, arrays, meta = _trained(campaign, store, station, task, folder, slot)
    meta |= {"member": member.model_dump(mode="json"), **span}
    store.publish_product(station, iteration, task.id, arrays, meta)
    store.drop_scratch(folder, slot.machine)


def _members(store: Store, station: str, iteration: int, kind: str = "train") -> tuple[Member, ...]:
    tasks = [task for task in store.plan(station, iteration).tasks if task.kind == kind]
    metas = [store.read_meta(station, iteration, task.id) for task in tasks]
    members = tuple(Member.model_validate(meta["member"]) for meta in metas)
    return learning.with_curves(members, tasks, store, station, iteration) if kind == "train" else members


def _versions(store: Store, station: str, iteration: int) -> dict[str, str]:
    """Return the versions that the members of an iteration were trained with; of several, all."""
    found: dict[str, set[str]] = {}
    for task in store.plan(station, iteration).tasks:
        for name, version in store.read_meta(station, iteration, task.id).get("versions", {}).items():
            found.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(versions)) for name, versions in found.items()}


def gather(campaign: Campaign, store: Store, iteration: int) -> Ensemble:
    """Seal the ensemble that the next iteration explores with."""
    trees.remove(_checkpoints(store), store.folder)
    members = _members(store, "train", iteration)
    if not members:
        last = store.result("train", iteration - 1, Ensemble)
        return last.model_copy(update={"iteration": iteration})
    return _ensemble(campaign, store, "train", iteration, members)


def _ensemble(campaign: Campaign, store: Store, station: str, iteration: int, members: tuple[Member, ...]) -> Ensemble:
    """Return an ensemble that was trained; problems of its trainings are logged."""
    ensemble = Ensemble(
        iteration=iteration,
        trained_in=iteration,
        type_map=campaign.type_map,
        members=members,
        versions=_versions(store, station, iteration),
    )
    for line in learning.problems_of(ensemble):
        log.warning("%s%s", "teacher: " if station == "teach" else "", line)
    return ensemble


STATION = Station("train", plan, run, gather, runs_models=True)


# --- the teacher ------------------------------------------------------------------------------------------------------


def plan_teacher(campaign: Campaign, store: Store, iteration: int) -> list[Task]:
    """One task per member, on the labels of the reference alone."""
    _want_data(campaign, store)
    n_steps = campaign.of_teacher.train.n_steps
    return _member_tasks(campaign.of_teacher, store, iteration, n_steps=n_steps, compress=False)


def run_teacher(task: Task, store: Store, iteration: int, slot: Slot) -> None:
    """Train and test one member of the teacher; publish its model and then the product that names it."""
    _run(store.campaign(iteration).of_teacher, "teach", task, store, iteration, slot)


def gather_teacher(campaign: Campaign, store: Store, iteration: int) -> Ensemble:
    """Seal the teacher."""
    trees.remove(_checkpoints(store), store.folder)
    return _ensemble(campaign, store, "teach", iteration, _members(store, "teach", iteration))


TEACHER_STATION = Station("teach", plan_teacher, run_teacher, gather_teacher, runs_models=True)


# --- the final models -------------------------------------------------------------------------------------------------


def plan_final(campaign: Campaign, store: Store, iteration: int) -> list[Task]:
    """One task per member: a longer training if the campaign asks for one, and compression unless that is done.

    Models trained from scratch may be worse than those of the loop, which are therefore compressed beside them.
    """
    last, steps = store.result("train", iteration, Ensemble), campaign.final.n_steps
    is_compressed = _compresses(campaign)
    trained: list[Task] = []
    if steps is not None:
        trained = _member_tasks(campaign, store, iteration, n_steps=steps, compress=is_compressed)
    if not is_compressed:
        return trained
    name = "member" if steps is None else "of-loop"
    return trained + [
        Task(id=f"{name}-{m.index}", kind="compress", parameters={"index": m.index}, inputs=(m.model,))
        for m in last.members
        if m.compressed is None and m.not_compressed is None
    ]


def _compresses(campaign: Campaign) -> bool:
    return campaign.final.compress and trainer_of(campaign.train).compresses(campaign.train)


def run_final(task: Task, store: Store, iteration: int, slot: Slot) -> None:
    """Train from scratch (if planned) and compress; publish the models and then the product that names them."""
    campaign = store.campaign(iteration)
    folder = store.scratch(slot.machine, "final", task.id)
    arrays: dict[str, Curve] = {}
    meta: dict[str, Any] = {}
    with stopwatch() as span:
        if task.kind == "train":
            member, arrays, meta = _trained(campaign, store, "final", task, folder, slot)
        else:
            member = store.result("train", iteration, Ensemble).members[task.parameters["index"]]
            data = training_data(campaign, store, "final", iteration, slot)
            member = compression.compressed(member, store, iteration, data, folder, slot)
    meta |= {"member": member.model_dump(mode="json"), **span}
    store.publish_product("final", iteration, task.id, arrays, meta)
    store.drop_scratch(folder, slot.machine)


def gather_final(_: Campaign, store: Store, iteration: int) -> Ensemble:
    """Seal the models that are exported: those trained from scratch with those of the loop, or the latter alone."""
    trees.remove(_checkpoints(store), store.folder)
    last = store.result("train", iteration, Ensemble)
    compressed = {member.index: member for member in _members(store, "final", iteration, "compress")}
    of_loop = tuple(compressed.get(member.index, member) for member in last.members)
    trained = _members(store, "final", iteration)
    ready = last.model_copy(update={"iteration": iteration, "members": of_loop})
    if not trained:
        return ready
    if final_models.compared(trained, last.members, last.trained_in)[1]:
        log.warning("final models are worse than those of iteration %d on the held-out frames", last.trained_in)
    return ready.model_copy(update={"members": trained, "of_loop": of_loop})


FINAL_STATION = Station("final", plan_final, run_final, gather_final, phase="final", runs_models=True)
