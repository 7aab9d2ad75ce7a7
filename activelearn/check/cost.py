"""Cost: what a campaign will do and how long it will take, before anything runs.

Counts are exact where the campaign fixes them (initial data, walks and frames of a pass) and upper bounds elsewhere
(labels, passes). Seconds come from the speeds that the machine profile declares, scaled to the pace of this machine
(:mod:`activelearn.check.pace`); where this campaign folder has measured a station, they are scaled to that instead.
What was neither declared nor measured is unknown, and marked as such. Operations of a DeePMD network are counted as
multiply-adds of the embedding net per neighbour and of the fitting net per atom, forward. Of models whose operations
nobody counts, such as fine-tuned foundations, the time of a label by their ASE calculator is taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from activelearn import capacity, compression, explore, initial, packing, starts
from activelearn.benchmark.parity import CHUNK
from activelearn.config import (
    Campaign,
    Crystals,
    Diffusion,
    ForceError,
    Glass,
    Initial,
    Machine,
    Parity,
    Reactions,
    Reference,
    Stage,
    property_of,
    trainer_of,
)
from activelearn.frames import Frames
from activelearn.glass import is_porous
from activelearn.inherited import NOTHING, Offer
from activelearn.records import Iteration
from activelearn.store import Store
from activelearn.units import duration

#: Time of a slot independent of the network, s (measured on the core of the profile `local`): for a gradient
#: step, an evaluation in LAMMPS and a row of its output with the deviation; for graph, freezing and test of a
#: training; for loading models into a LAMMPS process shared by short walks (:func:`activelearn.explore.processes_of`).
GRADIENT_STEP_S, EVALUATION_S, ROW_S, TRAINING_START_S, WALK_START_S = 0.0044, 0.00025, 0.0025, 1.8, 1.4
#: A network of ten times the operations takes 10**0.75 times as long in MD (quick, evening and the paper), since
#: small ones leave a core idle; in training 10 times, on top of the constant time of a step. A declared speed
#: refers to a network of 1 Mflop per atom.
GROWTH = 0.75
#: The name in `machine.speeds.start_s` of sessions that train and run models.
TRAINER = "trainer"
#: Engines whose labels scale worse than linearly with the number of atoms.
DFT = ("gpaw", "vasp", "espresso", "cp2k", "abacus", "aims")
#: Files left by a closed iteration (records, packed products, data set), apart from its models.
FILES_PER_ITERATION = 15


@dataclass(frozen=True)
class Item:
    """One pass of one station.

    Parameters
    ----------
    station
        Its name, or ``explore NAME`` for one stage.
    n_tasks
        Tasks.
    n_frames
        Frames evaluated or labels computed, if any.
    seconds
        On one slot; None if not known.
    source
        Where the seconds come from: ``measured``, ``declared``, ``default`` (:mod:`activelearn.check.speeds`) or ``not
        known``.
    """

    station: str
    n_tasks: int
    n_frames: int
    seconds: float | None
    source: str


@dataclass(frozen=True)
class Calls:
    """Evaluations in the MD of the initial data; relaxations are counted separately.

    Parameters
    ----------
    kept
        Frames that are kept and labelled.
    reference, driver
        Structures evaluated by the reference (to move the atoms or to label), and by a driver.
    """

    kept: int
    reference: int
    driver: int

    @classmethod
    def of(cls, settings: Initial) -> Calls:
        """Return those of a campaign's initial data, assuming that no trajectory fails."""
        if settings.md is None:
            return cls(0, 0, 0)
        kept, moved = settings.n_moved * settings.md.n_kept, settings.n_moved * settings.md.n_calls
        return cls(kept, moved, 0) if settings.md.driver is None else cls(kept, kept, moved)

    def __str__(self) -> str:
        """Return them as one line."""
        driver = f", and {self.driver} of the driver" if self.driver else ""
        each = f"{self.reference / max(self.kept, 1):.3g} each"
        return f"MD of initial data: {self.reference} calls of the reference for {self.kept} frames ({each}){driver}"


@dataclass(frozen=True)
class Bill:
    """The estimate of a campaign.

    Parameters
    ----------
    initial
        Once: initial data, labels, first training.
    one_pass
        One pass over all stages with the maximum number of labels of an iteration, and its training.
    final
        Once: the final models, and their glasses.
    max_passes
        stop.max_iterations.
    n_slots
        Tasks in parallel.
    files, megabytes
        At the end, at most; without models.
    calls
        For the MD of the initial data.
    apart
        Once: glasses of other potentials and benchmarks, whose time is not known in advance; not in any sum.
    dft
        The engine that labels frames of glasses, if it scales worse than linearly with the number of atoms.
    """

    initial: tuple[Item, ...]
    one_pass: tuple[Item, ...]
    final: tuple[Item, ...]
    max_passes: int
    n_slots: int
    files: int
    megabytes: float
    calls: Calls
    apart: tuple[Item, ...] = ()
    dft: str | None = None

    @property
    def is_declared(self) -> bool:
        """Whether any of its times are declared values."""
        items = (*self.initial, *self.one_pass, *self.final, *self.apart)
        return any(item.source == "declared" and item.seconds for item in items)

    @property
    def has_defaults(self) -> bool:
        """Whether any of its seconds come from a speed that was not declared for this machine."""
        return any(i.source == "default" for i in (*self.initial, *self.one_pass, *self.final, *self.apart))


def estimate(
    campaign: Campaign, machine: Machine, store: Store | None, offer: Offer = NOTHING, *, slower: float = 1.0
) -> Bill:
    """Return the bill of a campaign.

    Parameters
    ----------
    campaign, machine
        What runs, and where.
    store
        The campaign folder if it exists; its measured times are used.
    offer
        What its ledger offers.
    slower
        How much slower this machine is than the one whose speeds are declared (:mod:`activelearn.check.pace`).
    """
    meter = _Meter(campaign, machine, store.iterations() if store is not None else [], offer, slower)
    n_initial = _n_initial_labels(campaign)
    warm = campaign.train.warm_n_steps if campaign.train.warm_start else None
    first = [
        *_preparation(campaign, meter),
        *_initial(campaign, meter, n_initial),
        *meter.teacher(),
        meter.training("train", campaign.train.n_steps),
    ]
    if campaign.initial.drives_itself:
        first.append(meter.training("train again", warm or campaign.train.n_steps))
    one_pass = (
        *meter.walks(campaign.explore.stages),
        meter.labels("label", campaign.select.max_frames, meter.chosen_n_atoms),
        meter.training("train", warm or campaign.train.n_steps),
    )
    final = meter.final_models()
    final += [] if campaign.glass is None else [_glasses(campaign.glass, meter)]
    n_labels = offer.n + n_initial + campaign.stop.max_iterations * campaign.select.max_frames
    # Positions, labels and ledger: about 4 float64 vectors per atom in the data set, in chosen.npz and in the ledger.
    megabytes = n_labels * meter.n_atoms * 3 * 8 * 8 / 1e6
    files = (campaign.stop.max_iterations + 1) * FILES_PER_ITERATION
    calls = Calls.of(campaign.initial)
    passes = campaign.stop.max_iterations
    whole, apart = (tuple(first), one_pass, tuple(final)), tuple(_apart(campaign, meter))
    labelled = any(item.station == "force_error" and item.seconds is not None for item in apart)
    return Bill(*whole, passes, machine.n_slots, files, megabytes, calls, apart, _dft(campaign) if labelled else None)


def network_Mflop(campaign: Campaign, labelled: Sequence[Frames] = ()) -> float | None:
    """Return the multiply-adds (millions) of one forward evaluation of one atom, or None if they are not known.

    Parameters
    ----------
    campaign
        With its networks and systems.
    labelled
        The densest structures of the labels that it starts with.
    """
    return trainer_of(campaign.train).Mflop(campaign.train, capacity.of_campaign(campaign, labelled))


class _Meter:
    """Declared seconds per task, scaled to measurements."""

    def __init__(
        self, campaign: Campaign, machine: Machine, records: list[Iteration], offer: Offer, slower: float
    ) -> None:
        self.campaign, self.machine, self.records, self.slower = campaign, machine, records, slower
        self.offer = offer
        self.started: set[str] = set()
        #: Mean number of atoms of the cells of the initial data, or else of the structures from which walks start.
        self.n_atoms = self._mean_n_atoms()
        self.sel = capacity.of_campaign(campaign, offer.densest)
        self.Mflop = network_Mflop(campaign, offer.densest)
        stages = campaign.explore.stages
        self.faster = trainer_of(campaign.train).faster(campaign.train, self.sel)
        self.is_faster = compression.is_worth_it(campaign, self.sel, stages, self.n_atoms)
        #: Effective multiply-adds of an evaluation in MD, of models of the loop and of the final models.
        fast_Mflop = compression.Mflop(campaign, self.sel)
        self.walked_Mflop = fast_Mflop if self.is_faster and fast_Mflop is not None else self.Mflop
        is_fast = self.is_faster or campaign.final.compress
        self.final_Mflop = fast_Mflop if is_fast and fast_Mflop is not None else self.Mflop

    def _mean_n_atoms(self) -> float:
        systems = self.campaign.initial.systems or self.campaign.explored_systems
        sizes = [starts.n_atoms(self.campaign, system) for system in systems for _ in range(system.n_packings)]
        sizes = sizes or [frame.n_atoms for frame in self.offer.frames]
        return sum(sizes) / len(sizes)

    def walked_n_atoms(self, stage: Stage) -> float:
        """Return the mean number of atoms of the walks of a stage, which uses its systems in turn."""
        systems = self.campaign.explored_systems
        taken = systems if stage.systems is None else [systems[k] for k in stage.systems]
        if stage.start != "systems" or not taken:
            return self.n_atoms
        return sum(starts.n_atoms(self.campaign, system) for system in taken) / len(taken)

    @property
    def chosen_n_atoms(self) -> float:
        """Mean number of atoms of the frames of one pass over all stages."""
        n_frames = [s.n_walks * len(s.conditions) * s.n_frames for s in self.campaign.explore.stages]
        sizes = [self.walked_n_atoms(stage) for stage in self.campaign.explore.stages]
        return sum(n * size for n, size in zip(n_frames, sizes, strict=True)) / sum(n_frames)

    def _item(
        self,
        station: str,
        n_tasks: int,
        n_frames: int,
        each_s: float | None,
        once_s: float = 0.0,
        *,
        like: str | None = None,
    ) -> Item:
        """Return an item of tasks with declared times: `each_s` per task, and `once_s` once.

        With `like`, the declared time is scaled by the ratio measured for that station; else by its own.
        """
        name = like or station.partition(" ")[0]
        declared = None if each_s is None else each_s * n_tasks + once_s
        ratio, per_task = self._measured_over_declared(name), self.measured_per_task(name)
        if declared is not None and ratio is not None:
            return Item(station, n_tasks, n_frames, declared * ratio, "measured")
        if per_task is not None and like is None:
            return Item(station, n_tasks, n_frames, per_task * n_tasks, "measured")
        if declared is not None:
            return Item(station, n_tasks, n_frames, declared * self.slower, "declared")
        return Item(station, n_tasks, n_frames, None, "not known")

    def measured_per_task(self, station: str) -> float | None:
        seconds = [record.seconds[station] for record in self.records if station in record.seconds]
        n_tasks = sum(s.n_tasks for s in seconds)
        return sum(s.engine_total for s in seconds) / n_tasks if n_tasks else None

    def _measured_over_declared(self, station: str) -> float | None:
        """Return the ratio of measured to declared time of a station; None where not known."""
        found = [(self._declared_of(record, station), record) for record in self.records]
        known = [(declared, record.seconds[station].engine_total) for declared, record in found if declared]
        return sum(measured for _, measured in known) / sum(declared for declared, _ in known) if known else None

    def _declared_of(self, record: Iteration, station: str) -> float | None:
        """Return the declared seconds of the trainings or walks of one iteration, which differ; else None."""
        n_tasks = record.seconds[station].n_tasks if station in record.seconds else 0
        if station == "train" and n_tasks:
            each = self._training_s(record.ensemble.members[0].n_steps)
            return None if each is None else each * n_tasks + self._sessions_s(TRAINER, n_tasks) * (record.index == 0)
        if station == "explore" and n_tasks and record.selection is not None:
            stages = {stage.name: stage for stage in self.campaign.explore.stages}
            walked = [stages[walk.stage] for walk in record.selection.walks if walk.stage in stages]
            known = [moving_s for stage in walked if (moving_s := self._walk_s(stage)) is not None]
            each_s = (sum(known) + sum(self._loading_s(walked).values())) / len(known) if known else None
            return None if each_s is None else each_s * n_tasks
        return None

    def _sessions_s(self, engine: str, n_tasks: int) -> float:
        """Return the seconds that slots wait for an engine, which is started once."""
        return self.machine.speeds.start_s.get(engine, 0.0) * min(self.machine.n_slots, n_tasks)

    def _first_sessions_s(self, engine: str, n_tasks: int) -> float:
        """Return the same for the first item that uses an engine; later items find it started."""
        if engine in self.started:
            return 0.0
        self.started.add(engine)
        return self._sessions_s(engine, n_tasks)

    def call_s(self, reference: Reference) -> float | None:
        """Seconds per call of a reference or a driver for a cell of mean size."""
        speeds = self.machine.speeds.label_s_per_atom
        per_atom = speeds.get(reference.calculator or "") or speeds.get(reference.engine)
        return None if per_atom is None else per_atom * self.n_atoms

    def labels(self, station: str, n: int, n_atoms: float | None = None) -> Item:
        """Labels of cells of mean size or of the given number of atoms, in which the time is linear."""
        return self.reference_work(station, n, n, 1.0 if n_atoms is None else n_atoms / self.n_atoms)

    def reference_work(
        self, station: str, n_tasks: int, n_frames: int, evaluations: float, by: Reference | None = None
    ) -> Item:
        """Tasks with `n` evaluations of the reference (or of a driver) each."""
        reference = by or self.campaign.label.reference
        each_s = self.call_s(reference)
        once_s = self._first_sessions_s(reference.calculator or reference.engine, n_tasks)
        return self._item(station, n_tasks, n_frames, None if each_s is None else each_s * evaluations, once_s)

    def training(self, station: str, n_steps: int, *, like: str | None = None) -> Item:
        n = self.campaign.train.n_members
        return self._item(station, n, 0, self._training_s(n_steps), self._first_sessions_s(TRAINER, n), like=like)

    def teacher(self) -> list[Item]:
        """Its trainings and its walks: what they take is not known before the first."""
        teacher = self.campaign.teacher
        if teacher is None:
            return []
        n_walks = teacher.n_walks * len(teacher.md.temperatures_K)
        trainings = self._item("teach", teacher.train.n_members, 0, None)
        return [trainings, self._item("distil", n_walks + 1, teacher.n_frames, None)]

    def _evaluation_s(self) -> float | None:
        """Return the seconds an atom of one evaluation of a model whose operations are not counted."""
        calculator = trainer_of(self.campaign.train).calculator(Path("model"))["calculator"]
        return self.machine.speeds.label_s_per_atom.get(calculator) if self.Mflop is None else None

    def _training_s(self, n_steps: int) -> float | None:
        train, speed = self.campaign.train, self.machine.speeds.train_Mflop_per_s
        trainer = trainer_of(train)
        atoms = trainer.batch_frames(train, self.n_atoms) * self.n_atoms
        if (evaluation_s := self._evaluation_s()) is not None and trainer.step_evaluations is not None:
            return TRAINING_START_S + n_steps * atoms * trainer.step_evaluations * evaluation_s
        if speed is None or self.Mflop is None:
            return None
        each = TRAINING_START_S + n_steps * (GRADIENT_STEP_S + atoms * self.Mflop / speed)
        return each + (self.faster.making_s if self.is_faster and self.faster is not None else 0.0)

    def final_models(self) -> list[Item]:
        """Final models trained from scratch, and compression of models that the loop has not compressed."""
        campaign, train = self.campaign, self.campaign.train
        made = []
        if campaign.final.n_steps is not None:
            made.append(self.training("final", campaign.final.n_steps, like="train"))
        if campaign.final.compress and not self.is_faster and self.faster is not None:
            declared = None if self.machine.speeds.train_Mflop_per_s is None else self.faster.making_s
            made.append(self._item("final compression", train.n_members, 0, declared, like="train"))
        return made

    def walks(self, stages: Sequence[Stage]) -> Iterator[Item]:
        """Yield the stages of one pass."""
        n_walks = [stage.n_walks * len(stage.conditions) for stage in stages]
        loading_s = self._loading_s([stage for stage, n in zip(stages, n_walks, strict=True) for _ in range(n)])
        for stage, n in zip(stages, n_walks, strict=True):
            name, once_s = f"explore {stage.name}", loading_s[stage.name]
            yield self._item(name, n, n * stage.n_frames, self._walk_s(stage), once_s)

    def _walk_s(self, stage: Stage) -> float | None:
        return self._dynamics_s(stage.n_steps, stage.n_frames, self.walked_n_atoms(stage), self.walked_Mflop)

    def _loading_s(self, walked: Sequence[Stage]) -> dict[str, float]:
        """Return the seconds in which the walks of each stage load models, which the walks of one process share.

        Parameters
        ----------
        walked
            The stage of each walk, in the order of the plan.
        """
        trainer, train = trainer_of(self.campaign.train), self.campaign.train
        models = [f"{i}{trainer.suffix(train)}" for i in range(train.n_members)]
        n_slots = self.machine.at(explore.STATION.name).n_slots
        processes = explore.processes_of(self.campaign, [(stage, models) for stage in walked], n_slots)
        n_walks, found = Counter(processes), dict.fromkeys((stage.name for stage in walked), 0.0)
        for stage, process in zip(walked, processes, strict=True):
            found[stage.name] += WALK_START_S / n_walks[process]
        return found

    def dynamics(self, station: str, n_tasks: int, n_steps: float, n_rows: float, n_atoms: int) -> Item:
        """Tasks of MD in LAMMPS, deviation at every row, by the first ensemble (initial data) or the final one."""
        is_first = station == initial.STATION.name
        each_s = self._dynamics_s(n_steps, n_rows, n_atoms, self.walked_Mflop if is_first else self.final_Mflop)
        return self._item(station, n_tasks, 0, each_s, like=None if is_first else explore.STATION.name)

    def _dynamics_s(self, n_steps: float, n_rows: float, n_atoms: float, Mflop: float | None) -> float | None:
        """Seconds of MD with the deviation of the ensemble at every row."""
        speed = self.machine.speeds.md_Mflop_per_s
        evaluations = n_steps + n_rows * (self.campaign.train.n_members - 1)
        if (evaluation_s := self._evaluation_s()) is not None:
            return evaluations * n_atoms * evaluation_s + n_rows * ROW_S
        if speed is None or Mflop is None:
            return None
        return evaluations * (EVALUATION_S + n_atoms * float(Mflop**GROWTH) / speed) + n_rows * ROW_S


def _glasses(glass: Glass, meter: _Meter) -> Item:
    """Return the melt-quenches of the campaign's own models; speeds of other potentials are not declared."""
    rates = glass.cooling_rates_K_per_ps or (None,)
    ps = sum(segment.duration_ps for rate in rates for segment in glass.schedule(rate)) / len(rates)
    if glass.pore is not None:  # some of the compositions continue with a pore
        n_porous = sum(glass.pore.x is None or c.x in glass.pore.x for c in glass.compositions)
        ps += sum(segment.duration_ps for segment in glass.pore.segments) * n_porous / len(glass.compositions)
    n_atoms = packing.n_atoms(packing.of_glass(glass, glass.compositions[0]))
    integration = glass.dynamics
    every_ps = integration.deviation_every_ps or integration.thermo_every_ps
    steps, rows = ps * 1000.0 / integration.timestep_fs, ps / every_ps
    return meter.dynamics("glass", len(glass.compositions) * len(rates) * glass.n_replicas, steps, rows, n_atoms)


def _apart(campaign: Campaign, meter: _Meter) -> Iterator[Item]:
    """Yield the glasses of other potentials and the benchmarks of all, as far as they are planned."""
    asked, made = campaign.benchmark, campaign.glass
    n_potentials, n_glasses = 1 + len(campaign.potentials), 0
    if made is not None:
        n_each = len(made.cooling_rates_K_per_ps or (None,)) * made.n_replicas
        n_porous = sum(made.pore is not None and is_porous(made.pore, c) for c in made.compositions)
        n_glasses = n_each * (len(made.compositions) + n_porous)
        if campaign.potentials:
            yield Item(
                "glass of others", len(campaign.potentials) * n_each * len(made.compositions), 0, None, "not known"
            )
    for name, settings in asked.asked.items() if asked is not None else ():
        if property_of(name).needs_glass and made is None:
            continue
        n = n_glasses
        if isinstance(settings, Crystals | Reactions):
            n = len(settings.seeds)
        elif isinstance(settings, Parity):
            n = ceil(settings.max_frames / CHUNK)
        elif isinstance(settings, Diffusion):
            n *= len(settings.temperatures_K)
        if isinstance(settings, ForceError) and made is not None:
            yield _labels_of_glasses(settings, made, n_potentials * n_glasses, campaign, meter)
            continue
        yield Item(name, n_potentials * n, 0, None, "not known")


def _labels_of_glasses(asked: ForceError, glass: Glass, n_glasses: int, campaign: Campaign, meter: _Meter) -> Item:
    """Return the labels of frames of paths, each with the atoms of a glass; time is linear in the number of atoms."""
    n, what = n_glasses * asked.n_frames, (asked.label or campaign.label).reference
    n_atoms = packing.n_atoms(packing.of_glass(glass, glass.compositions[0]))
    is_own = what == campaign.label.reference
    measured = meter.measured_per_task("label") if is_own else None
    declared, n_mean = meter.call_s(what), n * n_atoms / meter.n_atoms  # labels of cells of mean size
    if measured is not None:
        return Item("force_error", n, n, n_mean * measured, "measured")
    if declared is not None:
        return Item("force_error", n, n, n_mean * declared * meter.slower, "declared")
    return Item("force_error", n, n, None, "not known")


def _dft(campaign: Campaign) -> str | None:
    """Return the engine that labels frames of glasses if it is a DFT code, which does not scale linearly."""
    asked = campaign.benchmark.asked.get("force_error") if campaign.benchmark is not None else None
    engine = ((asked.label if isinstance(asked, ForceError) else None) or campaign.label).reference.engine
    return engine if engine in DFT else None


def _preparation(campaign: Campaign, meter: _Meter) -> list[Item]:
    required = [s for s in campaign.systems if starts.wants_preparation(campaign, s)]
    n_tasks = sum(system.n_packings for system in required)
    most = [relax.max_steps for relax in (campaign.initial.relax, campaign.initial.relax_packed) if relax is not None]
    return [meter.reference_work("prepare", n_tasks, 0, max(most, default=0))] if n_tasks else []


def _initial(campaign: Campaign, meter: _Meter, n_labels: int) -> list[Item]:
    settings, md = campaign.initial, campaign.initial.md
    made = []
    if settings.n_still and md is None:
        made.append(meter._item("initial", settings.n_still, n_labels, 0.0))
    if settings.n_moved and md is not None:
        n_kept = settings.n_moved * md.n_kept
        if md.driver == "self":
            n_atoms = round(meter.n_atoms)
            made.append(meter.dynamics("initial", settings.n_moved, md.n_calls, 0, n_atoms))
        else:
            made.append(meter.reference_work("initial", settings.n_moved, n_kept, md.n_calls, md.driver))
        n_labels -= n_kept if md.driver is None else 0  # they are part of the MD
    return made + ([meter.labels("label", n_labels)] if n_labels else [])


def _n_initial_labels(campaign: Campaign) -> int:
    settings = campaign.initial
    n_isolated = sum(
        1 if len(symbols) == 1 or settings.isolated is None else len(settings.isolated.distances)
        for symbols in initial.isolated(campaign)
    )
    return settings.n_frames + n_isolated


def lines(bill: Bill) -> list[str]:
    """Return the bill as a table of plain lines."""
    out = [f"{'':<24}{'tasks':>8}{'frames':>10}{'slot time':>12}  source"]
    whole: float | None = 0.0
    for title, items, n_times in (
        ("initial data, once", bill.initial, 1),
        ("one pass over all stages", bill.one_pass, bill.max_passes),
        ("final models and glass, once", bill.final, 1),
    ):
        if not items:
            continue
        known = [item.seconds for item in items if item.seconds is not None]
        total = sum(known) if len(known) == len(items) else None
        out.append(f"{title}: {_of_slots(total, bill.n_slots)}")
        out += [
            f"  {i.station:<22}{i.n_tasks:>8}{i.n_frames or '':>10}{_duration(i.seconds):>12}  {i.source}"
            for i in items
        ]
        whole = None if whole is None or total is None else whole + n_times * total
    most = f"at most {bill.max_passes} passes"
    if bill.apart:
        out.append("benchmarks and glasses of other potentials, once, not in the totals:")
        out += [f"  {i.station:<22}{i.n_tasks:>8}{i.n_frames or '':>10}{_duration(i.seconds):>12}" for i in bill.apart]
    if bill.dft is not None:
        out.append(f"force_error: assumed to be linear in the number of atoms; {bill.dft} takes longer for large cells")
    if whole is None:
        out.append(f"{most}; the total is not known - declare machine.speeds, or start the run, which measures them")
    else:
        out.append(f"{most}: {_of_slots(whole, bill.n_slots)}")
    if bill.calls.kept:
        out.append(str(bill.calls))
    out.append(f"at most {bill.files} files and {bill.megabytes:.0f} MB, without models")
    return out


def _of_slots(seconds: float | None, n_slots: int) -> str:
    """Return a sum in words; the wall time is a little longer when a last task runs alone."""
    if seconds is None:
        return "not known"
    return f"{_duration(seconds)} on one slot, {_duration(seconds / n_slots)} on {n_slots} slots"


def _duration(seconds: float | None) -> str:
    return "not known" if seconds is None else duration(seconds, 1)
