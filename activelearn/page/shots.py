"""Structures that a page shows: where the campaign starts, the worst frame, what was refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from activelearn import starts
from activelearn.config import Campaign
from activelearn.engines import reference
from activelearn.frames import FloatArray, Frames, unpack
from activelearn.records import Iteration
from activelearn.store import Store
from activelearn.store.files import read_npz

#: Number of structures shown of each kind; the page holds their coordinates.
MOST: Final = 6


@dataclass(frozen=True, eq=False)
class Shot:
    """One structure.

    Parameters
    ----------
    name
        In the list it is chosen from.
    said
        What it is.
    frame
        One frame, Å.
    values
        (n_atoms,) by which atoms are coloured, eV/Å; None: by element.
    """

    name: str
    said: str
    frame: Frames
    values: FloatArray | None = None


def starts_of(store: Store, campaign: Campaign) -> tuple[Shot, ...]:
    """Return what the first systems of a campaign start from: its supercell, or the first of its packings."""
    found = []
    for system in campaign.explored_systems[:MOST]:
        made = starts.structures(campaign, store, system)
        more = f", the first of {len(made)}" if len(made) > 1 else ""
        found.append(Shot(system.name, f"{made.formula}, {made.n_atoms} atoms{more}", made[0]))
    return tuple(found)


def refused_of(store: Store, records: Sequence[Iteration]) -> tuple[Shot, ...]:
    """Return frames that were chosen and not added to the data set, those of the last iterations, with the reason."""
    found: list[Shot] = []
    for record in reversed(records):
        if len(found) < MOST and record.labelling.refused:
            found += _refused_in(store, record.index)[: MOST - len(found)]
    return tuple(found)


def _refused_in(store: Store, iteration: int) -> list[Shot]:
    parts = [*store.training(iteration), *store.held_out_of(iteration)]
    kept = {key for part in parts for key in _keys(part)}
    keys = {
        (task.parameters["part"], task.parameters["frame"]): str(task.parameters["key"])
        for task in store.plan("label", iteration).tasks
    }
    settings = store.campaign(iteration).label
    found = []
    for p, part in enumerate(unpack(read_npz(store.whole(store.chosen_file(iteration)))[0])):
        for k, (walk, step) in enumerate(_keys(part)):
            if (walk, step) in kept or not np.isfinite(part.positions[k]).all():
                continue
            label = store.ledger.find(keys[p, k]) if (p, k) in keys else None
            why = reference.refusal(label, settings) if label is not None else "no label"
            said = f"{part.formula}, {part.n_atoms} atoms: {why or 'not taken, see the counts'}"
            found.append(Shot(f"iteration {iteration}, {walk}, step {step}", said, part[k].without_labels()))
    return found


def _keys(part: Frames) -> list[tuple[str, int]]:
    return list(zip(map(str, part.origin["walk"]), map(int, part.origin["step"]), strict=True))
