"""Compression: whether the faster form of the models drives the walks, and whether that form is the same model.

Tables in place of a network (Lu et al., J. Chem. Theory Comput. 18, 5559 (2022)) take some seconds a member to make and
are no faster for a small one. What is won is estimated when a training is planned, from atoms, steps and the size of
the network alone, and stands in its plan: a time that was measured would differ from run to run, and with the form of
the models the last digits of every walk.

Before a faster form is used its forces are compared with those of the plain one; if they differ, the plain one drives.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from activelearn import starts
from activelearn.config import Campaign, Faster, Room, Stage, TrainingData, trainer_of
from activelearn.engines.process import Slot, check_stop
from activelearn.errors import EngineError
from activelearn.frames import Frames
from activelearn.records import Member
from activelearn.store import Store

log = logging.getLogger(__name__)
#: Multiply-adds (millions) a second of a network in LAMMPS, on the core that `Faster` was measured on.
MFLOP_PER_S: Final = 1400.0
#: The two forms are the same model if no force component differs by more than this share of select.f_lo: the standard
#: deviation over the members then moves by less than that share, and no frame changes its class for it.
MOST_DIFFERENT: Final = 0.01
#: Without held-out frames, forces are compared on so many frames of the data set at the most.
MOST_FRAMES: Final = 20
#: What fails is tried so often before the plain form is taken: a training is not repeated for it.
MAX_ATTEMPTS: Final = 2


# --- what is planned --------------------------------------------------------------------------------------------------


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
    saved = saved_s(campaign, sel, stages, n_atoms)
    made = _faster(campaign, sel)
    return saved is not None and made is not None and saved > train.n_members * made.seconds


def saved_s(campaign: Campaign, sel: Room, stages: Sequence[Stage], n_atoms: float | None = None) -> float | None:
    """Return the CPU seconds that the faster form saves a pass over `stages`; None if that is not known."""
    made, plain = _faster(campaign, sel), trainer_of(campaign.train).Mflop(campaign.train, sel)
    if made is None or plain is None:
        return None
    work = sum(evaluated_atoms(campaign, stage, n_atoms) for stage in stages)
    return work * (plain - made.Mflop) / MFLOP_PER_S


def evaluated_atoms(campaign: Campaign, stage: Stage, n_atoms: float | None = None) -> float:
    """Return how many times a pass evaluates an atom in one stage: at each step one member, at each frame the others.

    Systems count alike, for starts are dealt out in turn.
    """
    of_stage = [campaign.explored_systems[i] for i in stage.systems or ()] or campaign.explored_systems
    sizes = [starts.n_atoms(campaign, system) for system in of_stage] or [n_atoms or 0.0]
    evaluations = stage.n_steps + stage.n_frames * (campaign.train.n_members - 1)
    return stage.n_walks * len(stage.conditions) * evaluations * sum(sizes) / len(sizes)


def _faster(campaign: Campaign, sel: Room) -> Faster | None:
    return trainer_of(campaign.train).faster(campaign.train, sel)


# --- what is done -----------------------------------------------------------------------------------------------------


def compressed(
    campaign: Campaign, store: Store, member: Member, data: TrainingData, up_to: int, folder: Path, slot: Slot
) -> Member:
    """Return a member with its faster form, published, or with the reason why the plain one goes on alone.

    Parameters
    ----------
    campaign, store
        Whose models they are.
    member
        Trained and published.
    data
        What it was trained on: the distances in it set the range of the tables.
    up_to
        Iteration of the data set.
    folder
        Scratch folder of this alone.
    slot
        Where.
    """
    for attempt in range(1, MAX_ATTEMPTS + 1):
        place = folder / f"compress-{attempt}"
        place.mkdir()
        try:
            return _compared(campaign, store, member, data, up_to, place, slot)
        except EngineError as error:
            check_stop()
            log.warning("compressing member %d failed (%d of %d): %s", member.index, attempt, MAX_ATTEMPTS, error)
            why = str(error).splitlines()[0]
    return _plain(member, why)


def _compared(
    campaign: Campaign, store: Store, member: Member, data: TrainingData, up_to: int, folder: Path, slot: Slot
) -> Member:
    """Make the faster form once, and publish it if it is the same model.

    Raises
    ------
    EngineError
        It cannot be made, or not be evaluated.
    """
    trainer, plain = trainer_of(campaign.train), store.model(member.model)
    made = trainer.compress(folder, plain, campaign.train, data, slot)
    if made is None:
        return _plain(member, "its trainer made no faster form")
    frames = probes(store, up_to)
    difference = largest_difference(*(trainer.evaluate(folder, model, frames, slot) for model in (plain, made)))
    if not difference <= MOST_DIFFERENT * campaign.select.f_lo:  # nan is not <= anything
        what = f"its forces differ by {difference:.3g} eV/Å from those of the plain model"
        return _plain(member, f"{what}, wanted at most {MOST_DIFFERENT:g} of select.f_lo")
    name, sha256 = store.publish_model(made)
    found: dict[str, Any] = {
        "compressed": name,
        "compressed_sha256": sha256,
        "compressed_force_difference": difference,
        "compressed_holds_from_A": trainer.holds_from_A(folder),
    }
    return member.model_copy(update=found)


def _plain(member: Member, why: str) -> Member:
    log.warning("member %d is not compressed (%s): the plain model is used, which is slower", member.index, why)
    return member.model_copy(update={"not_compressed": why})


def probes(store: Store, up_to: int) -> list[Frames]:
    """Return the frames that two forms of a model are compared on: those held out, or some of the data set."""
    if held_out := store.held_out(up_to):
        return held_out
    parts = store.dataset(up_to)
    return [part[-1:] for part in parts[:: -(-len(parts) // MOST_FRAMES)]]


def largest_difference(one: Sequence[Frames], other: Sequence[Frames]) -> float:
    """Return the largest difference of a force component, eV/Å; nan if a force is not finite."""
    pairs = zip(one, other, strict=True)
    return float(np.max([np.max(np.abs(np.subtract(a.forces, b.forces))) for a, b in pairs]))
