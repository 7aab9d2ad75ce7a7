"""Anchors: the descriptors of the frames that earlier iterations chose, which diverse picks avoid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from activelearn import descriptor
from activelearn.config import Campaign
from activelearn.store import Store
from activelearn.store.files import publish_npz, read_array, read_npz


def array_name(campaign: Campaign) -> str:
    """Return the name of the descriptors beside the chosen frames: it says their layout."""
    return "descriptor/" + "-".join(campaign.type_map)


def anchors(campaign: Campaign, store: Store, iteration: int) -> NDArray[np.float32]:
    """Return (n_frames, n) descriptors of all frames chosen before `iteration`, those refused at labelling included.

    They are dimensionless (:mod:`activelearn.descriptor`). One array is read per iteration and no frame. Frames that
    were chosen without a descriptor (initial data, passes under another picker) get theirs now, once, in a file beside
    them.
    """
    name = array_name(campaign)
    parts = [_none(campaign)]
    for k in range(iteration):
        found = read_array(store.whole(store.chosen_file(k)), name)
        parts.append(_computed(campaign, store, k) if found is None else found)
    return np.concatenate(parts)


def _computed(campaign: Campaign, store: Store, iteration: int) -> NDArray[np.float32]:
    name = array_name(campaign)
    path = store.iteration_folder(iteration) / f"{name.replace('/', '-')}.npz"
    if not path.is_file():
        frames = store.frames(store.chosen_file(iteration))
        found = [descriptor.of_frames(part, campaign.type_map) for part in frames]
        publish_npz(path, {name: np.concatenate([_none(campaign), *found])}, {})
    return read_npz(path)[0][name]  # the first process to publish wins


def _none(campaign: Campaign) -> NDArray[np.float32]:
    return np.empty((0, descriptor.size(campaign.type_map)), dtype=np.float32)
