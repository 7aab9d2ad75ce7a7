"""Samples: the smallest structure at hand of each set of elements, on which a reference or a potential is tried."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from activelearn import packing, starts
from activelearn.config import Campaign, Packed
from activelearn.engines.trial import Sample
from activelearn.engines.trials import made_up
from activelearn.frames import Frames


def of_campaign(campaign: Campaign, offered: Iterable[Frames] = ()) -> list[Sample]:
    """Return the samples of a campaign, the smallest first.

    Parameters
    ----------
    campaign
        Whose systems; a packing that no crystal has the elements of is stood for by a lattice.
    offered
        Labelled structures that it begins with, if it has no systems.
    """
    found: list[Sample] = []
    for system in campaign.systems:
        if system.packed is None:
            cell = starts.unit_cell(system)
            found.append(Sample(cell, starts.supercell(system, cell, campaign.min_height_A)))
    found += [Sample(frame.without_labels()) for frame in offered]
    packed = [system.packed for system in campaign.systems if system.packed is not None]
    return smallest(found) + lattices(packed, [sample.frame for sample in found])


def smallest(samples: Sequence[Sample]) -> list[Sample]:
    """Return the smallest sample of each set of elements, the smallest first."""
    by_elements: dict[frozenset[str], Sample] = {}
    for sample in sorted(samples, key=lambda one: one.frame.n_atoms):
        by_elements.setdefault(frozenset(sample.frame.symbols), sample)
    return list(by_elements.values())


def lattices(packings: Iterable[Packed], there: Iterable[Frames]) -> list[Sample]:
    """Return a lattice for each set of elements of packings that no structure has."""
    known = {frozenset(frame.symbols) for frame in there}
    found = []
    for packed in packings:
        densities = packing.number_densities(packed)
        if frozenset(densities) not in known:
            known.add(frozenset(densities))
            found.append(Sample(lattice(densities, sum(densities.values())), is_made_up=True))
    return found


def lattice(elements: Collection[str], density: float) -> Frames:
    """Return elements in turn on a simple cubic lattice of at least eight sites, at a number density (1/Å3)."""
    n = max(2, math.ceil(len(elements) ** (1 / 3) - 1e-9))
    kinds = [sorted(elements)[k % len(elements)] for k in range(n**3)]
    return made_up(kinds, n * float(np.cbrt(1.0 / density)))
