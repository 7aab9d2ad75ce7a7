"""What is sealed to disk: tasks, plans, counts, selections, ensembles, iterations, results.

All are frozen pydantic models, so the JSON on disk is validated when it is read back, and the report and ``status``
read nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from activelearn import stamping


class Record(BaseModel):
    """Base of all records: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Task(Record):
    """One unit of work: a walk, a label, a training."""

    id: str = Field(description="Unique in its plan; the name of the product and of the claim.")
    kind: str = Field(description="Which function of the station runs it.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Small JSON values; no arrays.")
    inputs: tuple[str, ...] = Field(default=(), description="Input files, relative to the campaign folder.")


class Plan(Record):
    """All tasks of one station in one iteration, done or not, in their fixed order."""

    station: str
    iteration: int
    n_chunks: int = Field(ge=1, description="Number of Fireworks that share the tasks.")
    tasks: tuple[Task, ...]

    def chunk(self, k: int) -> tuple[Task, ...]:
        """Return the tasks of chunk `k`: every n_chunks-th, so that chunks are even; none beyond the last chunk."""
        return self.tasks[k :: self.n_chunks] if k < self.n_chunks else ()


class Counts(Record):
    """Frames of one cell of the exploration matrix (or a sum of cells)."""

    walked: int = Field(default=0, description="Frames evaluated, out-of-region ones included.")
    accurate: int = 0
    candidate: int = 0
    failed: int = 0
    out_of_region: int = Field(default=0, description="Past a geometry guard: counted separately, not in the shares.")
    walks: int = 0
    refused_walks: int = Field(default=0, description="Walks given up with the user's consent, without any result.")

    @property
    def in_region(self) -> int:
        """Frames that count for the shares."""
        return self.accurate + self.candidate + self.failed

    def share(self, kind: str) -> float:
        """Return the share of `kind` among the frames in the region; 1.0 for ``failed`` if there is none at all."""
        if self.in_region == 0:
            return 1.0 if kind == "failed" else 0.0
        return float(getattr(self, kind)) / self.in_region

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in type(self).model_fields})

    @staticmethod
    def total(parts: Iterable[Counts]) -> Counts:
        """Return the sum of `parts`."""
        out = Counts()
        for part in parts:
            out = out + part
        return out


class CellCounts(Record):
    """Counts of one cell of the matrix: stage x temperature (or ramp) x pressure (or deformation)."""

    stage: str
    temperature_K: float
    to_temperature_K: float | None = Field(default=None, description="At the end of a ramp.")
    pressure_bar: float | None = None
    mode: str | None = Field(default=None, description="How the cell was deformed.")
    strain: float | None = Field(default=None, description="At the end of the deformation; linear.")
    counts: Counts
    along: tuple[Counts, ...] = Field(default=(), description="The same by fifths of a ramp or deformation.")


class Reach(Record):
    """How far a walk came, over the second half of its frames; see :mod:`activelearn.select.reach`."""

    walked_fs: float = Field(description="Time from the first to the last whole frame.")
    displacement: float = Field(
        description="Root mean square from the start (Å), weighted by mass, without drift and strain of the cell."
    )
    flight: float = Field(description="The same for free atoms at the start's temperature in 10 fs (Å).")
    temperature_K: float = Field(description="Mean.")
    imposed_K: float = Field(description="Mean of the imposed temperature.")


class WalkRecord(Record):
    """How one walk ended."""

    id: str
    stage: str
    ended: str = Field(description="'finished', or why not: 'lost atoms', 'non-finite', 'out of region' ...")
    first_bad_step: int | None = None
    log_tail: tuple[str, ...] = ()
    sha256: str = Field(description="Of the product file.")
    reach: Reach | None = Field(default=None, description="Of a walk of exploration; null: not known.")


class PreparedSystem(Record):
    """What was done with one system before anything started from it."""

    key: str = Field(description="Of the system, as the campaign has it.")
    name: str
    n_structures: int
    ended: tuple[str, ...] = Field(description="How each relaxation ended.")
    n_path: int = Field(default=0, description="Labelled frames that were kept of the paths of its relaxations.")


class Prepared(Record):
    """The structures that relaxation and packing made."""

    iteration: int
    systems: tuple[PreparedSystem, ...]


class InitialData(Record):
    """What the initial station made."""

    iteration: int
    walks: tuple[WalkRecord, ...]
    n_frames: int
    held_out: tuple[str, ...] = Field(description="Trajectories set aside for validation.")
    from_ledger: int = Field(default=0, description="Of the frames, those that came with a label from the ledger.")
    passed_over: dict[str, int] = Field(default={}, description="Labels of the ledger that were not used, by reason.")
    mixed_references: tuple[str, ...] = Field(
        default=(), description="sha256 of other references whose labels were used, as initial.from_ledger asks."
    )

    driver: dict[str, Any] | None = Field(
        default=None, description="Identity of what moved the atoms; null: the reference, or nothing was moved."
    )
    md_calls: int = Field(
        default=0, description="Structures of MD whose forces were computed: by the driver, else by the reference."
    )
    md_frames: int = Field(default=0, description="Of them, those that were kept, to be labelled by the reference.")
    refused: dict[str, int] = Field(default={}, description="Frames of the driver that were not kept, by reason.")

    @property
    def failed(self) -> tuple[WalkRecord, ...]:
        """Trajectories that failed physically; their frames before the failure are in the data."""
        return tuple(walk for walk in self.walks if walk.ended != "finished")


class Explored(Record):
    """The walks of one pass, sealed."""

    iteration: int
    stages: tuple[str, ...] = Field(description="The stages that the pass is judged on.")
    products: dict[str, str] = Field(description="sha256 of the product of every walk, in plan order.")


class Selection(Record):
    """What one pass of exploration found and what was chosen from it."""

    iteration: int
    f_lo: float
    f_hi: float
    stages: tuple[str, ...] = Field(
        description="What it is judged on: walked, or found quiet before with this ensemble."
    )
    cells: tuple[CellCounts, ...] = Field(description="What was walked in this pass.")
    walks: tuple[WalkRecord, ...]
    chosen: int = Field(description="Candidates chosen to be labelled.")
    mined: int = Field(default=0, description="Of them, the last frames of walks before they failed.")
    rescued: int = Field(description="Early frames of failed walks chosen to be labelled.")
    audited: int = Field(default=0, description="Accurate frames chosen, to measure how many of them truly are.")
    is_rescue: bool = Field(description="Nearly everything failed: rescued frames were used and training is longer.")
    passed_over: dict[str, int] = Field(description="Candidates not chosen, by reason.")
    quiet_stages: tuple[str, ...] = Field(description="Stages whose candidate and failed shares are below the bounds.")
    unexplored_stages: tuple[str, ...] = Field(
        default=(), description="Stages whose walks did not move or were never heated: never quiet."
    )
    next_stages: tuple[str, ...] = Field(description="The stages that the next pass explores.")
    is_converged: bool
    is_bounded: bool = Field(default=False, description="The newest stage is not quiet, but has had all its passes.")
    learnt_nothing: bool = Field(
        default=False, description="All stages are quiet, but the models learnt nothing: not converged."
    )
    why: str = Field(description="One sentence on the verdict.")
    n_pooled: int = Field(default=1, description="Passes of one ensemble that were judged together, this one included.")
    pooled: tuple[CellCounts, ...] = Field(
        default=(), description="The cells of these passes added up, if there is more than one: what was judged."
    )
    held_out_p99: float | None = Field(
        default=None,
        description="Held-out 99th percentile of |dF| of the ensemble that was explored with, mean over the members "
        "(eV/Å).",
    )
    is_inaccurate: bool = Field(
        default=False,
        description="All stages are quiet, but held_out_p99 is above stop.max_force_error_p99 (or not known).",
    )

    @property
    def counts(self) -> Counts:
        """The whole pass."""
        return Counts.total(cell.counts for cell in self.cells)

    @property
    def rested(self) -> tuple[CellCounts, ...]:
        """The pooled cells of the stages that were not walked."""
        walked = {cell.stage for cell in self.cells}
        return tuple(cell for cell in self.pooled if cell.stage not in walked)

    @property
    def judged(self) -> Counts:
        """The counts that the verdict is based on, of this pass or of all passes that were judged with it."""
        return Counts.total(cell.counts for cell in self.pooled or self.cells)


class Labelling(Record):
    """The data set after one iteration's labels."""

    iteration: int
    labelled: int = Field(description="Frames added to the data set in this iteration (held-out ones included).")
    held_out: int = Field(description="Of them, frames set aside for validation: whole trajectories.")
    refused: dict[str, int] = Field(description="Frames refused, by reason.")
    rescued: int = Field(default=0, description="Of the labelled frames, how many were rescued.")
    dataset_frames: int = Field(description="Training frames, all iterations so far.")
    dataset_sha256: str
    dataset_without_virial: int = Field(default=0, description="Of the training frames, those without a virial.")
    labels_computed: int = Field(description="Labels computed by the reference in this iteration.")
    labels_adopted: int = Field(description="Labels that came with the frames of reference MD.")
    labels_reused: int = Field(description="Labels found in the ledger: computed earlier.")
    calibration: tuple[tuple[float, float], ...] = Field(
        default=(), description="Of each labelled frame of a walk: force deviation, true largest force error (eV/Å)."
    )


class Errors(Record):
    """Errors on a set of frames: root mean square, mean absolute, and percentiles."""

    n_frames: int
    energy_rmse_meV_per_atom: float
    energy_mae_meV_per_atom: float
    force_rmse: float = Field(description="Per component, eV/Å.")
    force_mae: float = Field(description="Per component, eV/Å.")
    force_p95: float | None = Field(
        default=None, description="95th percentile over all atoms of the length of the error vector |dF|, eV/Å."
    )
    force_p99: float | None = Field(default=None, description="The same, 99th percentile, eV/Å.")
    virial_rmse_meV_per_atom: float | None = Field(default=None, description="Per component.")
    virial_mae_meV_per_atom: float | None = Field(default=None, description="Per component.")
    force_rms_of_reference: float | None = Field(
        default=None, description="RMS of the reference forces about zero, per component, eV/Å."
    )

    @staticmethod
    def mean(parts: Sequence[Errors]) -> Errors | None:
        """Return the mean over the members of an ensemble, all of them on the same frames; None without members."""
        if not parts:
            return None
        values: dict[str, float | None] = {}
        for name in Errors.model_fields:
            known = [value for part in parts if (value := getattr(part, name)) is not None]
            values[name] = sum(known) / len(known) if known else None
        return Errors.model_validate(values | {"n_frames": parts[0].n_frames})


class Member(Record):
    """One model of the ensemble."""

    index: int
    random_seed: int
    model: str = Field(description="Frozen model, relative to the campaign folder.")
    sha256: str
    weights: str | None = Field(default=None, description="What a warm start starts from, if not the model.")
    n_steps: int
    attempts: int = Field(default=1, description="Number of trainings: all but the last diverged.")
    learning_rate_factor: float = Field(default=1.0, description="On the start of the learning rate, after divergence.")
    resumed_from: tuple[int, ...] = Field(
        default=(), description="Steps at which a killed training was resumed from a checkpoint: not bit for bit."
    )
    held_out: Errors | None = None
    against_teacher: Errors | None = Field(default=None, description="On the same frames, where there is a teacher.")
    by_composition: dict[str, Errors] = Field(default={}, description="Held-out errors by formula of the cell.")
    compressed: str | None = Field(default=None, description="The compressed model, which drives MD.")
    compressed_sha256: str | None = None
    compressed_force_difference: float | None = Field(
        default=None, description="Largest difference of a force component between the two forms, eV/Å."
    )
    compressed_holds_from_A: tuple[float, float] | None = Field(
        default=None, description="Shortest distance of the training data, and the one below which the table ends."
    )
    not_compressed: str | None = Field(default=None, description="Why the compressed model is not used.")
    force_fall: float | None = Field(
        default=None,
        description="Force error early in the training divided by that at its end: see activelearn.learning.",
    )
    training_force_rmse: float | None = Field(
        default=None, description="On the batches of the second half of the training (median), eV/Å."
    )
    training_force_rms: float | None = Field(
        default=None, description="RMS of the reference forces of the training frames, eV/Å, if none is held out."
    )

    @property
    def start(self) -> str:
        """What the next warm start begins from."""
        return self.weights or self.model

    @property
    def driver(self) -> str:
        """The file that drives MD, which is the compressed form if there is one."""
        return self.compressed or self.model

    @property
    def driver_sha256(self) -> str:
        """Its checksum."""
        return self.compressed_sha256 or self.sha256


class Ensemble(Record):
    """The models that one iteration passes on."""

    iteration: int
    trained_in: int = Field(description="Iteration in which they were trained (an empty training passes them on).")
    type_map: tuple[str, ...]
    members: tuple[Member, ...]
    versions: dict[str, str] = Field(default={}, description="Versions of the packages that they were trained with.")
    of_loop: tuple[Member, ...] = Field(
        default=(),
        description="Where final models were trained from scratch: those of the loop, ready to be exported.",
    )

    @property
    def drivers(self) -> tuple[str, ...]:
        """The files that drive MD with the ensemble, which are the compressed forms if there are any."""
        return tuple(member.driver for member in self.members)

    @property
    def held_out(self) -> Errors | None:
        """Held-out errors, averaged over the members that have any."""
        return Errors.mean([member.held_out for member in self.members if member.held_out is not None])

    @property
    def force_rmse(self) -> float | None:
        """Held-out force RMSE, averaged over the members, eV/Å."""
        return None if self.held_out is None else self.held_out.force_rmse

    @property
    def force_p99(self) -> float | None:
        """Held-out 99th percentile of the force error ``|dF|`` of an atom, averaged over the members, eV/Å."""
        return None if self.held_out is None else self.held_out.force_p99

    @property
    def compression(self) -> tuple[str, ...]:
        """One line if members drive MD in their faster form, and one for each that should and does not."""
        fast = [m for m in self.members if m.compressed is not None]
        found = []
        if fast:
            differences = [m.compressed_force_difference for m in fast if m.compressed_force_difference is not None]
            how = f": forces within {max(differences):.1g} eV/Å of those of the plain ones" if differences else ""
            if ranges := [m.compressed_holds_from_A for m in fast if m.compressed_holds_from_A is not None]:
                exact, least = (max(distances) for distances in zip(*ranges, strict=True))
                how += f"; made for distances from {exact:.2f} Å on, tables down to {least:.2f} Å"
            found.append(f"{len(fast)} of {len(self.members)} models are compressed{how}")
        refused = [m for m in self.members if m.not_compressed is not None]
        return (*found, *(f"member {m.index} is not compressed: {m.not_compressed}" for m in refused))

    @property
    def resumed(self) -> tuple[str, ...]:
        """One line for each member whose training was killed and resumed from a checkpoint."""
        return tuple(
            f"training of member {m.index} resumed from step {', '.join(map(str, m.resumed_from))}, not bit for bit"
            for m in self.members
            if m.resumed_from
        )


class Seconds(Record):
    """Where the time of one station went (wall-clock; stopped time between two runs is not counted)."""

    wall: float = Field(description="Time in which a driver worked on this station.")
    engine: float = Field(description="Of it, time in which at least one engine was running.")
    engine_total: float = Field(description="Summed over all tasks, so up to n_slots times `engine`.")
    n_tasks: int

    @property
    def other(self) -> float:
        """Wall time that is not engine time (bookkeeping, planning, reading, waiting)."""
        return max(0.0, self.wall - self.engine)


class Iteration(Record):
    """``iteration.json``: everything the report needs to know of one iteration."""

    index: int
    campaign_sha256: str
    versions: dict[str, str]
    selection: Selection | None = None
    prepared: Prepared | None = Field(default=None, description="Where there was initial data: its relaxed starts.")
    initial: InitialData | None = Field(default=None, description="Where there was any: its trajectories.")
    labelling: Labelling
    ensemble: Ensemble
    seconds: dict[str, Seconds]
    infrastructure_failures: int = 0
    products: dict[str, str] = Field(description="Sealed result files and their sha256.")


class End(Record):
    """How a campaign ended."""

    converged: bool
    iteration: int
    exit_code: int
    message: str


class Melt(Record):
    """How far the network formers of a glass moved in its melt; :mod:`activelearn.stamping` has the bounds."""

    formers: tuple[str, ...] = Field(description="Elements; (): the glass has none, so all atoms.")
    is_melted: bool | None = Field(description="None: not known, see `why`.")
    ps: float | None = Field(default=None, description="From the first frame kept of the melt to the last.")
    msd_A2: float | None = Field(default=None, description="Mean square displacement over that time, Å^2.")
    overlap: float | None = Field(default=None, description="Share of them within 1 Å of where they were.")
    why: str = Field(default="", description="Why nothing is known.")

    @property
    def said(self) -> str:
        """Whether it melted, in words."""
        if self.msd_A2 is None or self.overlap is None:
            return f"not known whether it melted: {self.why}"
        found = stamping.moved(self.formers, self.msd_A2, self.overlap, self.ps)
        return found if self.is_melted else f"{stamping.NOT_MELTED}: {found}"


class MadeGlass(Record):
    """One glass: how it was made and whether its path can be trusted."""

    id: str
    potential: str
    x: float
    replica: int
    cooling_rate_K_per_ps: float | None = None
    is_porous: bool = False
    formula: str
    n_atoms: int
    ended: str = Field(description="'finished', or why not: 'non-finite', 'too hot' ...")
    density_g_cm3: float | None = Field(default=None, description="Of the final structure.")
    n_judged: int = Field(default=0, description="Frames with a force deviation; 0 without an ensemble and its window.")
    outside_share: float | None = Field(default=None, description="Of them, those at or above f_hi.")
    above_f_lo_share: float | None = Field(default=None, description="At or above f_lo; None: of an older glass, too.")
    n_overflow: int = Field(default=0, description="Kept frames with more neighbours than the models hold.")
    overflow_share: float | None = Field(
        default=None, description="Of the kept frames; None: the potential has no sel."
    )
    overflow: str = Field(default="", description="By how many in the first of them: 'S 61 of 56'.")
    is_trusted: bool | None = Field(
        default=None, description="None: not judged, since there is no ensemble (and no neighbour was dropped)."
    )
    melt: Melt | None = Field(default=None, description="Whether it melted; None: made by an older version.")
    resumed: int = Field(default=0, description="How often a segment was resumed from a restart file.")
    structure: str = Field(default="", description="extxyz of the final structure, relative to the study folder.")
    seconds: float = 0.0

    @property
    def is_finished(self) -> bool:
        """Whether its whole schedule was carried out."""
        return self.ended == "finished"

    @property
    def melted(self) -> str:
        """Whether it melted, in words, also where that is not known."""
        return self.melt.said if self.melt is not None else "not known whether it melted: made by an older version"

    @property
    def trust(self) -> str:
        """Whether its path can be trusted, in words."""
        if self.is_trusted is None:
            return stamping.NOT_JUDGED
        said = [stamping.crowded(self.overflow, self.overflow_share or 0.0)] if self.n_overflow else []
        if self.outside_share is not None or not said:
            said.insert(0, stamping.outside(self.outside_share or 0.0, self.above_f_lo_share))
        return ("" if self.is_trusted else f"{stamping.UNTRUSTED}: ") + "; ".join(said)

    @property
    def stamp(self) -> str:
        """The mark on its numbers in every table and figure, or where and why it died."""
        if not self.is_finished:
            return f"died in {self.ended}"
        is_as_it_was = self.melt is not None and self.melt.is_melted is False
        return f"{self.melted}; {self.trust}" if is_as_it_was else self.trust


class Glasses(Record):
    """All glasses of a study."""

    glasses: tuple[MadeGlass, ...]

    @property
    def made(self) -> tuple[MadeGlass, ...]:
        """Those that were finished."""
        return tuple(glass for glass in self.glasses if glass.is_finished)

    @property
    def lost(self) -> tuple[MadeGlass, ...]:
        """Those that were not finished, on which nothing is measured."""
        return tuple(glass for glass in self.glasses if not glass.is_finished)


class Result(Record):
    """One number of a benchmark, with all that makes it a result."""

    name: str = Field(description="Such as density, P1, bulk_modulus, D_Na.")
    value: float
    unit: str = Field(description="'1' for a pure number, '%' for a share.")
    uncertainty: float | None = Field(description="Standard error over replicas; None of a single value.")
    n_samples: int = Field(description="Replicas (or frames, where the name says so).")
    condition: dict[str, str | float] = Field(
        description="potential, and what applies of x, temperature_K, crystal, pair, cooling_rate_K_per_ps, porous."
    )
    reference_value: float | None = None
    reference_uncertainty: float | None = None
    reference_bound: Literal["above", "below"] | None = Field(
        default=None,
        description="Only a bound is known: the experimental value is above (or below) the reference value.",
    )
    reference_source: str | None = None
    stamp: str | None = Field(default=None, description="NOT MELTED ..., UNTRUSTED ...: see MadeGlass.stamp.")
    note: str | None = Field(default=None, description="Such as 'not converged: MSD grows as t^0.4'.")
    measured_by: str | None = Field(default=None, description="The property of the benchmark; None: of an old study.")


class Missing(Record):
    """A requested measurement that failed."""

    measured_by: str = Field(description="The property of the benchmark.")
    condition: dict[str, str | float] = Field(description="As of a Result.")
    why: str


class Curve(Record):
    """One line of a figure; its numbers are in ``curves.npz`` under ``key/x``, ``key/y`` and ``key/error``."""

    key: str
    name: str = Field(description="Such as rdf, msd, evolution, displacement.")
    label: str = Field(description="Such as P-S, Na, P1.")
    x_name: str = Field(description="With its unit: r (Å), t (ps), T (K).")
    y_name: str
    condition: dict[str, str | float]
    stamp: str | None = None


class Quoted(Record):
    """A number from another simulation: listed beside a study, never treated as experiment."""

    name: str
    value: float
    unit: str
    condition: dict[str, str | float]
    source: str


class Experiment(Quoted):
    """A cited experiment without a result to compare with: its quantity was not measured, or its glass died."""

    uncertainty: float | None = None
    bound: Literal["above", "below"] | None = None
    measured_by: str = Field(description="The property of the benchmark.")


class Scoreboard(Record):
    """Everything that a study has measured: what tables and figures are made of."""

    study: str
    series: str | None = None
    potentials: tuple[str, ...]
    physics: dict[str, str] = Field(description="Functional and dispersion of each potential.")
    versions: dict[str, str]
    results: tuple[Result, ...]
    curves: tuple[Curve, ...]
    quoted: tuple[Quoted, ...] = ()
    problems: tuple[str, ...] = Field(default=(), description="What could not be measured, and why.")
    asked: tuple[str, ...] = Field(default=(), description="Properties that were requested; (): of an old study.")
    missing: tuple[Missing, ...] = Field(default=(), description="Measurements that failed, by their condition.")
    glasses: tuple[MadeGlass, ...] = Field(
        default=(), description="All that were planned; added from their own record when a board is read."
    )
    unmet: tuple[Experiment, ...] = Field(
        default=(), description="Experiments on requested properties that have no result; added when a board is read."
    )
