"""Samples: the smallest structure at hand of each set of elements, on which a reference or a potential is tried."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from activelearn import packing, starts
from activelearn.config import Campaign, Packed, System
from activelearn.engines.trial import Sample
from activelearn.frames import Frames
from activelearn.geometry import lattice


def of_campaign(
    campaign: Campaign, offered: Iterable[Frames] = (), systems: Sequence[System] | None = None
) -> list[Sample]:
    """Return the samples of a campaign, the smallest first.

    Parameters
    ----------
    campaign
        Its systems; a packing whose elements no crystal has is represented by a lattice.
    offered
        Labelled structures that it starts with, if it has no systems.
    systems
        Only these systems; None: all.
    """
    found: list[Sample] = []
    systems = campaign.systems if systems is None else systems
    for system in systems:
        if system.packed is None:
            cell = starts.unit_cell(system)
            found.append(Sample(cell, starts.supercell(system, cell, campaign.min_height_A)))
    found += [Sample(frame.without_labels()) for frame in offered]
    packed = [system.packed for system in systems if system.packed is not None]
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
