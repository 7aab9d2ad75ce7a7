"""Capacity: how many neighbours by element (`sel`) the models of a campaign must hold, and which systems they cannot.

`sel` is fixed when a campaign begins. A system that is added later and has more neighbours would have every label
computed and then refused, so it is refused before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from activelearn import geometry, packing, starts
from activelearn.config import Campaign, Room, Shell, System, trainer_of
from activelearn.errors import ConfigError
from activelearn.frames import FloatArray, Frames
from activelearn.geometry import Capacity
from activelearn.store import Store

#: Share of the cutoff.
_WELL_WITHIN: Final = 0.95


def of_campaign(campaign: Campaign, labelled: Sequence[Frames] = ()) -> Room:
    """Return `sel` of each shell, the campaign's own or that of the densest cell the guards allow; () of no limit.

    Parameters
    ----------
    campaign
        Its systems, guards and cutoff.
    labelled
        The densest structures of the labels that it begins with; they count if it has no initial systems (of a campaign
        that has some, labels that `sel` does not hold are passed over).
    """
    trainer = trainer_of(campaign.train)
    if not trainer.limits_neighbours(campaign.train):
        return ()
    shells = trainer.shells(campaign.train)
    if all(shell.sel is not None for shell in shells):
        return tuple(shell.sel for shell in shells if shell.sel is not None)
    structures = [starts.unit_cell(s) for s in campaign.systems if s.packed is None]
    structures += labelled if not campaign.initial.systems else []
    densities = [packing.number_densities(s.packed) for s in campaign.systems if s.packed is not None]
    return tuple(
        shell.sel
        or geometry.neighbour_capacity(
            structures,
            rcut=shell.rcut,
            volume_ratio=campaign.select.guards.volume_ratio[0] * _start_ratio(campaign),
            type_map=geometry.kinds_of(shell, campaign.type_map),
            densities=densities,
        )
        for shell in shells
    )


def sealed(campaign: Campaign, store: Store) -> Room | None:
    """Return the `sel` that a campaign has fixed, by shell; None if it has none, or other elements or shells.

    Where changes are accepted, the user is told that these cannot be changed.
    """
    begun = store.campaign(0) if 0 in store.opened_iterations() else None
    is_same = begun is not None and begun.type_map == campaign.type_map and _form(begun) == _form(campaign)
    return store.sel() if is_same else None


def _form(campaign: Campaign) -> list[bool]:
    return [shell.counts_elements for shell in trainer_of(campaign.train).shells(campaign.train)]


def of_models(campaign: Campaign, store: Store) -> tuple[Capacity, ...]:
    """Return how many neighbours the models of a campaign hold."""
    return geometry.capacities(campaign.train, campaign.type_map, store.sel())


def has_room(frame: Frames, campaign: Campaign, store: Store) -> bool:
    """Return whether the models hold the neighbours of one frame; training would silently drop them."""
    return all(capacity.holds(frame) for capacity in of_models(campaign, store))


def is_hopeless(frame: Frames, campaign: Campaign, store: Store) -> bool:
    """Return whether one frame has too many neighbours well within the cutoff: no short dynamics brings it back."""
    return not all(capacity.holds(frame, within=_WELL_WITHIN) for capacity in of_models(campaign, store))


def _start_ratio(campaign: Campaign) -> float:
    """Return the volume of the densest cell that is labelled or walked from, as a share of the published one."""
    scales = (*(campaign.initial.scales if campaign.initial.systems else ()), *campaign.explore.start_scales)
    return float(min(1.0, *scales) ** 3)


def needed(campaign: Campaign, system: System, capacity: Capacity, *, compressed: bool = False) -> FloatArray:
    """Return (n_kinds,) the number of neighbours that the densest start of a system needs room for.

    They are counted in the unit cell: every atom of a supercell has as many.

    Parameters
    ----------
    campaign
        Cutoff, scales and guards.
    system
        A crystal (a tenth is added for thermal motion) or a packing (three standard deviations).
    capacity
        What they are counted by, and within which cutoff.
    compressed
        As far as the guards allow, instead of as it starts.
    """
    structures = [] if system.packed is not None else [starts.unit_cell(system)]
    most, _ = geometry.most_when_densest(
        structures,
        rcut=capacity.rcut,
        volume_ratio=_start_ratio(campaign) * (campaign.select.guards.volume_ratio[0] if compressed else 1.0),
        type_map=capacity.kinds,
        densities=[packing.number_densities(system.packed)] if system.packed is not None else [],
    )
    return most * (geometry.THERMAL if system.packed is None else 1.0)


def added_systems(campaign: Campaign, store: Store) -> list[System]:
    """Return the systems of a campaign that no iteration of its folder was opened with."""
    opened = store.opened_iterations()
    known = {system.key for system in store.campaign(opened[-1]).systems} if opened else set()
    return [system for system in campaign.systems if system.key not in known]


def problems(campaign: Campaign, store: Store) -> list[str]:
    """Return why systems that are added to a running campaign cannot be learnt, one sentence each.

    The densest cell that would be labelled counts, not the densest that the guards allow: frames of walks that
    are compressed further than `sel` holds are out of the region and cost no label. `check` reports where that is the
    case.
    """
    sel = sealed(campaign, store)
    if sel is None:
        return []
    fixed = f"{store.folder / 'iter-000' / 'sel.json'} fixes it for the whole campaign"
    shells = trainer_of(campaign.train).shells(campaign.train)
    without = "".join(f" and without {shell.where}" for shell in shells if shell.sel is not None)
    return [
        f"systems: {system.name} has more neighbours within {capacity.rcut:g} Å than sel holds ({lacks}), and {fixed} "
        "- expected systems that the models can learn (the labels of this one would be refused) - leave it out, or "
        f"{new_campaign(campaign, store)}{without}"
        for system in added_systems(campaign, store)
        for capacity in geometry.capacities(campaign.train, campaign.type_map, sel)
        if (lacks := capacity.lacks(needed(campaign, system, capacity)))
    ]


def new_campaign(campaign: Campaign, store: Store) -> str:
    """Return how to start another campaign that has room, with the labels of this one."""
    ledger = store.ledger_of(campaign)
    return (
        f"start again with another --folder, with label.ledger: {ledger} and initial.from_ledger: true (no label is "
        "computed twice)"
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


def limits(campaign: Campaign, systems: Sequence[System], sel: Room) -> Iterator[str]:
    """Yield the systems that `sel` does not hold as far as the guards let walks compress them, or not at all."""
    for system in systems:
        for capacity in geometry.capacities(campaign.train, campaign.type_map, sel):
            compressed = capacity.lacks(needed(campaign, system, capacity, compressed=True))
            if not compressed:
                continue
            if lacks := capacity.lacks(needed(campaign, system, capacity)):
                yield (
                    f"note: sel does not hold {system.name} ({lacks}): its labels are refused and its walks end at once"
                )
            else:
                yield (
                    f"note: sel does not hold {system.name} at the densest that select.guards allow ({compressed}): "
                    "walks compressed that far leave the region"
                )


def too_small(campaign: Campaign, system: System) -> str | None:
    """Return why a `sel` of the user's own does not hold a first system, or None.

    Of a crystal the published structure and that at its smallest scale are considered; of a packing the mean, which is
    all that is known for certain.
    """
    shells = trainer_of(campaign.train).shells(campaign.train)
    return next((said for shell in shells if (said := _too_small(campaign, system, shell)) is not None), None)


def _too_small(campaign: Campaign, system: System, shell: Shell) -> str | None:
    if shell.sel is None:
        return None
    kinds = geometry.kinds_of(shell, campaign.type_map)
    for ratio in (1.0, _start_ratio(campaign)):
        if system.packed is None:
            cell = starts.unit_cell(system)
            most, _ = geometry.most_when_densest([cell], rcut=shell.rcut, volume_ratio=ratio, type_map=kinds)
        else:
            sphere = 4.0 / 3.0 * np.pi * shell.rcut**3 / ratio
            most = sphere * geometry.densities_of(packing.number_densities(system.packed), kinds)
        if lacks := geometry.without_room(most, kinds, shell.sel):
            is_packed = system.packed is not None
            name = system.name if is_packed else starts.crystal(system, campaign.min_height_A).formula
            scaled = f" at the scale {np.cbrt(ratio):g}" if ratio < 1.0 else ""
            n = np.ceil(most - 1.0e-9).astype(int).tolist()
            return (
                f"{shell.where}: {list(shell.sel)} is too small for {name}, which has {n} neighbours within "
                f"{shell.rcut:g} Å{scaled} ({lacks}) - expected room for compressed cells too - leave out sel to have "
                "it determined automatically"
            )
    return None
