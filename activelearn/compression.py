"""Compression: whether the faster form of the models drives the walks, and whether that form is the same model.

Tables in place of a network (Lu et al., J. Chem. Theory Comput. 18, 5559 (2022)) take some seconds a member to make and
are no faster for a small one. The gain is estimated when a training is planned, from atoms, steps and the size of
the network alone, and recorded in its plan: a measured time would differ from run to run, and with the form of
the models the last digits of every walk.

Before a faster form is used its forces are compared with those of the plain one; if they differ, the plain one drives.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from activelearn import geometry, starts
from activelearn.config import Campaign, Room, Stage, TrainingData, trainer_of
from activelearn.engines.process import Slot, check_stop
from activelearn.errors import EngineError
from activelearn.frames import Frames
from activelearn.records import Member
from activelearn.store import Store
from activelearn.units import duration

log = logging.getLogger(__name__)
#: The saving must be at least this multiple of the cost: the estimate is off by up to this factor for small networks.
MARGIN: Final = 2.0
#: The two forms are the same model if no force component differs by more than this share of select.f_lo: the standard
#: deviation over the members then moves by less than that share, and no frame changes its class because of it.
MOST_DIFFERENT: Final = 0.01
#: Without held-out frames, forces are compared on at most this many frames of the data set.
MOST_FRAMES: Final = 20
#: Number of attempts before the plain form is used instead: a training is not repeated for it.
MAX_ATTEMPTS: Final = 2


# --- what is planned --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Savings:
    """What the faster form of all members saves in one pass, and what it costs to make, CPU s."""

    saved: float
    cost: float

    @property
    def is_gain(self) -> bool:
        """Whether the saving is worth the cost."""
        return self.saved > MARGIN * self.cost

    def __str__(self) -> str:
        """Return them in words."""
        return f"{duration(self.saved)} of CPU time a pass and cost {duration(self.cost)}"


def is_worth_it(campaign: Campaign, sel: Room, stages: Sequence[Stage], n_atoms: float | None = None) -> bool:
    """Return whether the models of a campaign are compressed for a pass over `stages`.

    Parameters
    ----------
    campaign
        ``train.compress``, networks, and how much the stages walk if no cell of them is quiet.
    sel
        Most neighbours of each shell.
    stages
        Those of the pass.
    n_atoms
        Of a start from the data set, where the campaign names no system.
    """
    train = campaign.train
    if train.compress == "never" or not trainer_of(train).compresses(train):
        return False
    if train.compress == "always":
        return True
    found = savings(campaign, sel, stages, n_atoms)
    return found is not None and found.is_gain


def savings(campaign: Campaign, sel: Room, stages: Sequence[Stage], n_atoms: float | None = None) -> Savings | None:
    """Return what the faster form saves and costs in a pass over `stages`; None if that is not known."""
    train = campaign.train
    faster = trainer_of(train).faster(train, sel)
    if faster is None:
        return None
    work = sum(evaluated_atoms(campaign, stage, n_atoms) for stage in stages)
    return Savings(work * faster.saved_us / 1e6, train.n_members * faster.making_s)


def Mflop(campaign: Campaign, sel: Room) -> float | None:
    """Return the multiply-adds (millions) that take as long as one evaluation of an atom by the faster form, in MD.

    None if they are not known, or there is no such form.
    """
    trainer, train = trainer_of(campaign.train), campaign.train
    if not trainer.compresses(train):
        return None
    plain, faster = trainer.Mflop(train, sel), trainer.faster(train, sel)
    return None if plain is None or faster is None else faster.Mflop(plain)


def evaluated_atoms(campaign: Campaign, stage: Stage, n_atoms: float | None = None) -> float:
    """Return how many times a pass evaluates an atom in one stage: at each step one member, at each frame the others.

    Systems count alike, for starts are dealt out in turn.
    """
    of_stage = [campaign.explored_systems[i] for i in stage.systems or ()] or campaign.explored_systems
    is_of_data = stage.start == "dataset" and n_atoms is not None
    sizes: list[float] = [] if is_of_data else [starts.n_atoms(campaign, system) for system in of_stage]
    sizes = sizes or [n_atoms or 0.0]
    evaluations = stage.n_steps + stage.n_frames * (campaign.train.n_members - 1)
    return stage.n_walks * len(stage.conditions) * evaluations * sum(sizes) / len(sizes)


def said(campaign: Campaign, sel: Room, n_atoms: float | None = None) -> str | None:
    """Return what a campaign explores with, and why, in a line; None: its models have only one form."""
    train, trainer = campaign.train, trainer_of(campaign.train)
    if not trainer.compresses(train):
        return None
    if train.compress == "never":
        return "explores with plain models (train.compress: never)"
    faster = trainer.faster(train, sel)
    size = ""
    if faster is not None and faster.file_MB:
        more, disk = train.n_members * faster.memory_MB, train.n_members * faster.file_MB
        size = f"; about {disk:.0f} MB of files an iteration, {more:.0f} MB more memory a slot"
    if train.compress == "always":
        return f"explores with compressed models (train.compress: always){size}"
    stages = campaign.explore.stages
    found = [savings(campaign, sel, stages[: i + 1], n_atoms) for i in range(len(stages))]
    first = next((i for i, one in enumerate(found) if one is not None and one.is_gain), None)
    last = found[-1]
    if last is None:
        return "explores with plain models: it is not known what compressed ones would save (train.compress: auto)"
    if first is None:
        return (
            f"explores with plain models: compressed ones would save {last}, not {MARGIN:g} times as much "
            "(train.compress: auto)"
        )
    since = "" if first == 0 else f" from stage {stages[first].name} on"
    return f"explores with compressed models{since}: they save {last} (train.compress: auto){size}"


# --- what is done -----------------------------------------------------------------------------------------------------


def compressed(member: Member, store: Store, up_to: int, data: TrainingData, folder: Path, slot: Slot) -> Member:
    """Return a member with its faster form, published, or with the reason why only the plain one is used.

    Parameters
    ----------
    member
        Trained and published.
    store, up_to
        The campaign, and the iteration of its data set.
    data
        What it was trained on: the distances in it set the range of the tables.
    folder
        Scratch folder.
    slot
        Where.

    Raises
    ------
    EngineError
        The machine failed, twice; a model that its program refuses is used as it is.
    """
    for attempt in range(1, MAX_ATTEMPTS + 1):
        place = folder / f"compress-{attempt}"
        place.mkdir()
        try:
            return _compared(member, store, up_to, data, place, slot)
        except EngineError as error:
            check_stop()
            log.warning("compressing member %d failed (%d of %d): %s", member.index, attempt, MAX_ATTEMPTS, error)
            if attempt == MAX_ATTEMPTS:
                raise  # a time-out, a signal, a dead session: the machine's fault, and the task is tried again
    raise AssertionError("unreachable: the last attempt returns or raises")


def _compared(member: Member, store: Store, up_to: int, data: TrainingData, folder: Path, slot: Slot) -> Member:
    """Make the faster form, a finer one if its forces differ, and publish it if it is the same model.

    Raises
    ------
    EngineError
        It cannot be made, or not be evaluated.
    """
    campaign = store.campaign(up_to)
    trainer, plain = trainer_of(campaign.train), store.model(member.model)
    frames = probes(store, up_to)
    of_plain = trainer.evaluate(folder, plain, frames, slot)
    for finer in (False, True):
        place = folder / ("finer" if finer else "first")
        place.mkdir()
        made = trainer.compress(place, plain, campaign.train, data, slot, finer=finer)
        if made is None:
            return _plain(member, "its program refuses it: see the log")
        difference = largest_difference(of_plain, trainer.evaluate(place, made, frames, slot))
        if difference <= MOST_DIFFERENT * campaign.select.f_lo:  # nan is not <= anything
            break
    else:
        what = f"its forces differ by {difference:.3g} eV/Å from those of the plain model"
        return _plain(member, f"{what}, expected at most {MOST_DIFFERENT:g} of select.f_lo")
    holds_from_A = trainer.holds_from_A(place)
    least_A = float(geometry.shortest_allowed(campaign.select.guards.model_dump_json(), campaign.type_map).min())
    if holds_from_A is not None and least_A < holds_from_A[1]:
        return _plain(member, f"its table ends at {holds_from_A[1]:.2f} Å, and select.guards allow {least_A:.2f} Å")
    name, sha256 = store.publish_model(made)
    found: dict[str, Any] = {
        "compressed": name,
        "compressed_sha256": sha256,
        "compressed_force_difference": difference,
        "compressed_holds_from_A": holds_from_A,
    }
    return member.model_copy(update=found)


def _plain(member: Member, why: str) -> Member:
    log.warning("member %d is not compressed (%s): the plain model is used instead (slower)", member.index, why)
    return member.model_copy(update={"not_compressed": why})


def probes(store: Store, up_to: int) -> list[Frames]:
    """Return the frames that two forms of a model are compared on: those held out, or some of the data set."""
    if held_out := store.held_out(up_to):
        return held_out
    parts = store.dataset(up_to)
    return [part[-1:] for part in parts[:: -(-len(parts) // MOST_FRAMES)]]


def largest_difference(one: Sequence[Frames], other: Sequence[Frames]) -> float:
    """Return the largest difference of a force component, eV/Å; nan if a force is not finite."""
    forces = [(a.forces, b.forces) for a, b in zip(one, other, strict=True)]
    return float(np.max([np.max(np.abs(a - b)) for a, b in forces if a is not None and b is not None]))
