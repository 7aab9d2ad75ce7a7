"""Where a campaign starts and where it looks: systems, initial data, stages of exploration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from activelearn.config.section import Fraction, Name, Section, want_different


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
        want_different("scales", self.scales)
        want_different("md.temperatures_K", self.md.temperatures_K if self.md is not None else ())
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
            want_different(name, getattr(self, name))
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
