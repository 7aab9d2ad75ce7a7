"""Capacity: how many neighbours by element (`sel`) the models of a campaign must hold, and which systems they cannot.

`sel` is fixed when a campaign begins. A system that is added later and has more neighbours would have every label
computed and then refused, so it is refused before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from activelearn import geometry, packing, starts
from activelearn.config import Campaign, System
from activelearn.errors import ConfigError
from activelearn.frames import FloatArray, Frames
from activelearn.store import Store

#: Share of the cutoff.
_WELL_WITHIN: Final = 0.95


def of_campaign(campaign: Campaign, labelled: Sequence[Frames] = ()) -> tuple[int, ...]:
    """Return `sel`, the campaign's own or that of the densest cell the guards allow.

    Parameters
    ----------
    campaign
        Its systems, guards and cutoff.
    labelled
        The densest structures of the labels that it begins with; they count if it has no initial systems (of a campaign
        that has some, labels that `sel` does not hold are passed over).
    """
    descriptor = campaign.train.descriptor
    if descriptor.sel is not None:
        return descriptor.sel
    structures = [starts.unit_cell(s) for s in campaign.systems if s.packed is None]
    structures += labelled if not campaign.initial.systems else []
    densities = [packing.number_densities(s.packed) for s in campaign.systems if s.packed is not None]
    return geometry.neighbour_capacity(
        structures,
        rcut=descriptor.rcut,
        volume_ratio=campaign.select.guards.volume_ratio[0] * _start_ratio(campaign),
        type_map=campaign.type_map,
        densities=densities,
    )


def sealed(campaign: Campaign, store: Store) -> tuple[int, ...] | None:
    """Return the `sel` that a campaign has fixed, by element; None if it has not begun, or has other elements.

    That these cannot be changed is said where changes are accepted.
    """
    has_begun = 0 in store.opened_iterations() and store.campaign(0).type_map == campaign.type_map
    return store.sel() if has_begun else None


def has_room(frame: Frames, campaign: Campaign, store: Store) -> bool:
    """Return whether the models hold the neighbours of one frame; training would drop them in silence."""
    return _holds(store.sel(), frame, campaign.train.descriptor.rcut, campaign)


def is_hopeless(frame: Frames, campaign: Campaign, store: Store) -> bool:
    """Return whether one frame has too many neighbours well within the cutoff: no short dynamics brings it back."""
    return not _holds(store.sel(), frame, _WELL_WITHIN * campaign.train.descriptor.rcut, campaign)


def _holds(sel: Sequence[int], frame: Frames, rcut: float, campaign: Campaign) -> bool:
    return not bool((geometry.most_neighbours(frame, rcut, campaign.type_map) > np.array(sel)).any())


def _start_ratio(campaign: Campaign) -> float:
    """Return the volume of the densest cell that is labelled or walked from, as a share of the published one."""
    scales = (*(campaign.initial.scales if campaign.initial.systems else ()), *campaign.explore.start_scales)
    return float(min(1.0, *scales) ** 3)


def needed(campaign: Campaign, system: System, *, compressed: bool = False) -> FloatArray:
    """Return (n_elements,) the number of neighbours that the densest start of a system needs room for.

    They are counted in the unit cell: every atom of a supercell has as many.

    Parameters
    ----------
    campaign
        Cutoff, scales and guards.
    system
        A crystal (a tenth is added for thermal motion) or a packing (three standard deviations).
    compressed
        As far as the guards allow, instead of as it starts.
    """
    structures = [] if system.packed is not None else [starts.unit_cell(system)]
    most, _ = geometry.most_when_densest(
        structures,
        rcut=campaign.train.descriptor.rcut,
        volume_ratio=_start_ratio(campaign) * (campaign.select.guards.volume_ratio[0] if compressed else 1.0),
        type_map=campaign.type_map,
        densities=[packing.number_densities(system.packed)] if system.packed is not None else [],
    )
    return most * (geometry.THERMAL if system.packed is None else 1.0)


def added_systems(campaign: Campaign, store: Store) -> list[System]:
    """Return the systems of a campaign that no iteration of its folder was opened with."""
    opened = store.opened_iterations()
    known = {system.key for system in store.campaign(opened[-1]).systems} if opened else set()
    return [system for system in campaign.systems if system.key not in known]


def problems(campaign: Campaign, store: Store) -> list[str]:
    """Return why systems that are added to a running campaign cannot be learnt, in a sentence each.

    What counts is the densest cell that would be labelled, not the densest that the guards allow: frames of walks that
    are compressed further than `sel` holds are out of the region, and cost no label. `check` says where that is so.
    """
    sel = sealed(campaign, store)
    if sel is None:
        return []
    fixed = f"{store.folder / 'iter-000' / 'sel.json'} fixes it for the whole campaign"
    without = " and without train.descriptor.sel" if campaign.train.descriptor.sel is not None else ""
    return [
        f"systems: {system.name} has more neighbours within {campaign.train.descriptor.rcut:g} Å than sel holds "
        f"({lacks}), and {fixed} - wanted systems that the models can learn, for the labels of this one would be "
        f"refused - leave it out, or {anew(campaign, store)}{without}"
        for system in added_systems(campaign, store)
        if (lacks := geometry.without_room(needed(campaign, system), campaign.type_map, sel))
    ]


def anew(campaign: Campaign, store: Store) -> str:
    """Return how to begin another campaign that has room, on the labels of this one."""
    ledger = store.ledger_of(campaign)
    return (
        f"start anew with another --folder, with label.ledger: {ledger} and initial.from_ledger: true (no label is "
        "paid for twice)"
    )


def want_room(campaign: Campaign, store: Store) -> None:
    """Refuse systems that are added to a running campaign and that its models cannot hold, before any label of them.

    Raises
    ------
    ConfigError
        See :func:`problems`.
    """
    if found := problems(campaign, store):
        raise ConfigError(*found)


def limits(campaign: Campaign, systems: Sequence[System], sel: Sequence[int]) -> Iterator[str]:
    """Yield the systems that `sel` does not hold as far as the guards let walks compress them, or not at all."""
    for system in systems:
        compressed = geometry.without_room(needed(campaign, system, compressed=True), campaign.type_map, sel)
        if not compressed:
            continue
        if lacks := geometry.without_room(needed(campaign, system), campaign.type_map, sel):
            yield f"note: sel does not hold {system.name} ({lacks}): its labels are refused and its walks end at once"
        else:
            yield (
                f"note: sel does not hold {system.name} at the densest that select.guards allow ({compressed}): walks "
                "that are compressed so far are out of the region there"
            )


def too_small(campaign: Campaign, system: System) -> str | None:
    """Return why a `sel` of the user's own does not hold a first system, or None.

    Of a crystal the published structure is looked at, and that at its smallest scale; of a packing the mean, which is
    all that is known for certain.
    """
    d = campaign.train.descriptor
    if d.sel is None:
        return None
    for ratio in (1.0, _start_ratio(campaign)):
        if system.packed is None:
            cell = starts.unit_cell(system)
            most, _ = geometry.most_when_densest([cell], rcut=d.rcut, volume_ratio=ratio, type_map=campaign.type_map)
        else:
            density = packing.number_densities(system.packed)
            sphere = 4.0 / 3.0 * np.pi * d.rcut**3 / ratio
            most = sphere * np.array([density.get(kind, 0.0) for kind in campaign.type_map])
        if lacks := geometry.without_room(most, campaign.type_map, d.sel):
            is_packed = system.packed is not None
            name = system.name if is_packed else starts.crystal(system, campaign.min_height_A).formula
            scaled = f" at the scale {np.cbrt(ratio):g}" if ratio < 1.0 else ""
            n = np.ceil(most - 1.0e-9).astype(int).tolist()
            return (
                f"train.descriptor.sel: {list(d.sel)} is too small for {name}, which has {n} neighbours within "
                f"{d.rcut:g} Å{scaled} ({lacks}) - wanted room for compressed cells too - leave sel out: "
                "it is found then"
            )
    return None
