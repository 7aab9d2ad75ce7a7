"""Initial data: crystals, scaled, perturbed, and moved by a short MD of the reference, or of a faster driver."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations_with_replacement

import numpy as np

from activelearn import capacity, geometry, inherited, starts
from activelearn.config import Campaign, Driver, Isolated, Machine, trainer_of
from activelearn.engines import reference
from activelearn.engines.process import Slot
from activelearn.errors import typed
from activelearn.frames import Frames, make_origin, unpack
from activelearn.records import Ensemble, InitialData, Task, WalkRecord
from activelearn.store import Store
from activelearn.store.files import file_sha256, read_npz
from activelearn.tasks import Station


def lacking(campaign: Campaign, offer: inherited.Offer) -> list[str]:
    """Return why a campaign without initial systems cannot begin with the labels that its ledger offers."""
    if campaign.initial.systems:
        return []
    there = f"initial.systems: there are none, and of the labels in {offer.ledger}"
    if offer.n < 2:
        why = f" (others have {', '.join(offer.lacking)}, which type_map lacks)" if offer.lacking else ""
        expected = "expected at least 2 of label.reference, or of those that initial.from_ledger names"
        see = f"see: activelearn labels list {typed(offer.ledger or '.')}"
        return [
            f"{there} {offer.n or 'none'} can join{why} - {expected} - {see}; to add more: activelearn labels import"
        ]
    from_data = any(stage.start == "dataset" for stage in campaign.explore.stages)
    if from_data and not any(starts.is_fit(frame, campaign.min_height_A) for frame in offer.frames):
        least = f"{campaign.min_height_A:g} Å (initial.min_height_A, else the cutoff)"
        expected = f"expected cells with every perpendicular height at least {least}"
        advice = "name explore.systems and leave out start: dataset, or lower the cutoff of the models"
        return [f"{there} none is a start for walks - {expected} - {advice}"]
    return []


def new_systems(campaign: Campaign, store: Store, iteration: int) -> list[int]:
    """Return which systems get initial data in an iteration: all at first, later those that were added since."""
    systems = campaign.initial.systems
    if iteration == 0:
        return list(range(len(systems)))
    before = {system.key for system in store.campaign(iteration - 1).initial.systems}
    return [i for i, system in enumerate(systems) if system.key not in before]


def new_isolated(campaign: Campaign, store: Store, iteration: int) -> list[tuple[str, ...]]:
    """Return the isolated atoms and dimers of an iteration: all at first, later those that were added since."""
    before = [] if iteration == 0 else isolated(store.campaign(iteration - 1))
    return [symbols for symbols in isolated(campaign) if symbols not in before]


def waiting_systems(campaign: Campaign, store: Store, iteration: int) -> list[int]:
    """Return which systems the models of the iteration before are to move (driver self): those that were new in it."""
    if iteration == 0 or not campaign.initial.drives_itself:
        return []
    before = store.campaign(iteration - 1)
    if not before.initial.drives_itself:
        return []
    keys = {before.initial.systems[i].key for i in new_systems(before, store, iteration - 1)}
    return [i for i, system in enumerate(campaign.initial.systems) if system.key in keys]


def driver_of(campaign: Campaign, store: Store, iteration: int, machine: Machine) -> Driver | None:
    """Return what moves the atoms of an iteration's initial data in place of the reference; None: nothing does."""
    md = campaign.initial.md
    if md is None or md.driver is None:
        return None
    if isinstance(md.driver, Driver):
        return md.driver
    if not waiting_systems(campaign, store, iteration):
        return None
    first = store.result("train", iteration - 1, Ensemble).members[0]
    trainer = trainer_of(store.campaign(iteration - 1).train)
    return Driver(**trainer.calculator(store.model(first.driver)), python=machine.python)


def plan(campaign: Campaign, store: Store, iteration: int) -> list[Task]:
    """One task per perturbed copy (system x scale x temperature x copy), and per isolated atom or dimer.

    Where the first models are to drive the MD, copies that are labelled as they are come first, and one iteration
    later, when there are models, those that are moved.
    """
    tasks = []
    new, waiting = new_systems(campaign, store, iteration), waiting_systems(campaign, store, iteration)
    for system, scale, temperature_K in campaign.initial.cells:
        is_later = temperature_K is not None and campaign.initial.drives_itself
        if system not in (waiting if is_later else new):
            continue
        warmth = "static" if temperature_K is None else f"{temperature_K:g}K"
        for copy in range(campaign.initial.copies):
            parameters = {"system": system, "scale": scale, "temperature_K": temperature_K, "copy": copy}
            name = f"s{system}-x{scale:g}-{warmth}-{copy:03d}"
            tasks.append(Task(id=name, kind="perturbed", parameters=parameters))
    tasks += [
        Task(id="isolated-" + "-".join(symbols), kind="isolated", parameters={"symbols": list(symbols)})
        for symbols in new_isolated(campaign, store, iteration)
    ]
    return tasks


def isolated(campaign: Campaign) -> list[tuple[str, ...]]:
    """Return the isolated atoms and dimers of a campaign, as tuples of their elements."""
    settings = campaign.initial.isolated
    if settings is None:
        return []
    atoms: list[tuple[str, ...]] = [(kind,) for kind in campaign.type_map] if settings.atoms else []
    if isinstance(settings.dimers, tuple):
        return [*atoms, *(tuple(pair.split("-")) for pair in settings.dimers)]
    return [*atoms, *(combinations_with_replacement(campaign.type_map, 2) if settings.dimers else ())]


def isolated_frames(settings: Isolated, symbols: Sequence[str]) -> Frames:
    """Return one frame of an atom, or one per distance of a dimer, in the middle of a cubic box."""
    from ase.data import atomic_numbers, covalent_radii

    reach = sum(covalent_radii[atomic_numbers[symbol]] for symbol in symbols)
    distances = np.array(settings.distances if len(symbols) == 2 else [0.0]) * reach
    positions = np.full((len(distances), len(symbols), 3), settings.box_A / 2.0)
    positions[:, -1, 0] += distances
    cell = np.tile(np.eye(3) * settings.box_A, (len(distances), 1, 1))
    return Frames(tuple(symbols), cell, positions)


def run(task: Task, store: Store, iteration: int, slot: Slot) -> None:
    """Perturb a structure and, if the campaign asks for it, run MD; publish the frames."""
    campaign = store.campaign(iteration)
    meta: dict[str, str | float] = {"ended": "finished", "started": 0.0, "finished": 0.0}
    if task.kind == "isolated" and campaign.initial.isolated is not None:
        found = isolated_frames(campaign.initial.isolated, task.parameters["symbols"])
        origin = make_origin(len(found), iteration=iteration, walk=task.id, step=range(len(found)))
        store.publish_product("initial", iteration, task.id, replace(found, origin=origin).arrays(), meta)
        return
    rng = store.rng(iteration, "initial", task.id)
    p = task.parameters
    start = _start(campaign, store, task, rng)
    frames: Frames | None = start
    if p["temperature_K"] is not None and capacity.is_hopeless(start, campaign, store):
        meta["ended"] = geometry.NO_ROOM  # every label along the way would be refused: the start alone is counted
    elif p["temperature_K"] is not None:
        frames, moved = _moved(task, start, store, iteration, slot, random_seed=int(rng.integers(2**31)))
        meta |= moved
    arrays = {}
    if frames is not None:
        origin = make_origin(
            len(frames),
            iteration=iteration,
            walk=task.id,
            step=frames.origin["step"],
            temperature_K=p["temperature_K"] or 0.0,
            strain=p["scale"] - 1.0,
        )
        arrays = replace(frames, origin=origin).arrays()
    store.publish_product("initial", iteration, task.id, arrays, meta)


def _moved(
    task: Task, start: Frames, store: Store, iteration: int, slot: Slot, *, random_seed: int
) -> tuple[Frames | None, dict[str, str | float]]:
    """Move one frame by MD; return what is kept, and how it went. Frames of a driver have no labels yet."""
    campaign = store.campaign(iteration)
    assert campaign.initial.md is not None  # or no task would have a temperature
    driver = driver_of(campaign, store, iteration, slot.machine)
    what = driver or campaign.label.reference
    reference.want_identity(what, slot, store.fingerprint(iteration, what.identity_file)["sha256"])
    frames, ended, started, finished = reference.molecular_dynamics(
        what,
        start,
        campaign.initial.md,
        temperature_K=task.parameters["temperature_K"],
        random_seed=random_seed,
        slot=slot,
    )
    calls = 1 if frames is None else int(frames.origin["step"][-1]) + 1
    meta: dict[str, str | float] = {"ended": ended, "started": started, "finished": finished, "calls": calls}
    if driver is None:
        return frames, meta
    if frames is None:
        return start, meta  # what the driver cannot do may be no problem for the reference
    outside = geometry.first_outside(frames[1:], campaign.select.guards) if len(frames) > 1 else None
    if outside is not None:
        n_kept = 1 + outside[0]
        step = frames.origin["step"][n_kept]
        meta |= {"ended": f"out of region: {outside[1]} (at step {step})", "outside": len(frames) - n_kept}
        frames = frames[:n_kept]
    return frames.without_labels(), meta


def _start(campaign: Campaign, store: Store, task: Task, rng: np.random.Generator) -> Frames:
    """Return a system's structure (the copies take turns at its packings), scaled and distorted."""
    found = starts.structures(campaign, store, campaign.initial.systems[task.parameters["system"]])
    start = found[task.parameters["copy"] % len(found)]
    return starts.distorted(start, campaign.initial.perturb, rng, scale=task.parameters["scale"])


def held_out_walks(system_of: Mapping[str, str], fraction: float, rng: np.random.Generator) -> list[str]:
    """Choose whole trajectories for validation, never frames: those of one short MD are near-duplicates.

    Every system has its share, so that every composition is validated and every composition is trained on.

    Parameters
    ----------
    system_of
        The system of each trajectory, in plan order.
    fraction
        Share of each system to set aside; if it is above 0, at least one trajectory and never all: none of a system
        that has only one.
    rng
        Random numbers.
    """
    if fraction == 0.0:
        return []
    picked: set[str] = set()
    for system in dict.fromkeys(system_of.values()):
        names = [name for name in system_of if system_of[name] == system]
        n_picked = min(max(round(fraction * len(names)), 1), len(names) - 1)
        picked.update(names[i] for i in rng.choice(len(names), size=n_picked, replace=False))
    return [name for name in system_of if name in picked]


def gather(campaign: Campaign, store: Store, iteration: int) -> InitialData:
    """Collect the frames in plan order and choose the held-out trajectories."""
    parts, walks, system_of = [], [], {}
    moved: Counter[str] = Counter()
    for task in store.plan("initial", iteration).tasks:
        path = store.product("initial", iteration, task.id)
        arrays, meta = store.read_product("initial", iteration, task.id)
        if arrays:
            parts.append(Frames.from_arrays(arrays))
            system_of[task.id] = str(task.parameters.get("system", task.id))
        if "calls" in meta:
            moved.update(calls=meta["calls"], outside=meta.get("outside", 0), frames=len(parts[-1]) if arrays else 0)
        walks.append(WalkRecord(id=task.id, stage="initial", ended=meta["ended"], sha256=file_sha256(path)))
    parts += starts.paths(store, iteration)  # trained on, never held out: all copies start near their ends
    chosen = store.chosen_file(iteration)
    joining = inherited.from_ledger(campaign, store, iteration, parts) if iteration == 0 else inherited.Inherited()
    store.seal_frames(chosen, [*parts, *joining.parts], joining.beside(len(parts)))
    arrays, _ = read_npz(chosen)  # the first process to seal wins, whatever the ledger contains by now
    parts, references = unpack(arrays), inherited.sealed_references(arrays)
    system_of.update(inherited.families([parts[p] for p in references]))
    rng = store.rng(iteration, "initial", "held-out")
    is_driven = (store.iteration_folder(iteration) / Driver.identity_file).is_file()
    return InitialData(
        iteration=iteration,
        walks=tuple(walks),
        n_frames=sum(len(part) for part in parts),
        held_out=tuple(held_out_walks(system_of, campaign.initial.held_out_fraction, rng)),
        from_ledger=sum(len(parts[p]) for p in references),
        passed_over=inherited.sealed_passed_over(arrays),
        mixed_references=tuple(
            sorted({identity["sha256"] for identity in references.values()} - {store.fingerprint(iteration)["sha256"]})
        ),
        driver=store.fingerprint(iteration, Driver.identity_file) if is_driven else None,
        md_calls=moved["calls"],
        md_frames=moved["frames"],
        refused={"out of region": moved["outside"]} if moved["outside"] else {},
    )


STATION = Station("initial", plan, run, gather, asks_reference=True)
