"""The stages of exploration, and the cells of their matrix."""

from __future__ import annotations

from itertools import product
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from activelearn.config import lammps_lines
from activelearn.config.bounds import of
from activelearn.config.exploring import Perturb, System
from activelearn.config.section import (
    ForceDeviation,
    Name,
    Section,
    Share,
    Temperature,
    is_sealed,
    want_different,
)
from activelearn.config.selecting import QuietShare, Stop

Mode = Literal["isotropic", "uniaxial-x", "uniaxial-y", "uniaxial-z", "shear-xy", "shear-xz", "shear-yz"]
Strain = float


class Condition(NamedTuple):
    """Conditions of a walk, one cell of a stage's matrix: K, bar; strain is linear (tilt / height in shear)."""

    temperature_K: float
    to_temperature_K: float | None = None
    pressure_bar: float | None = None
    mode: str | None = None
    strain: float | None = None

    def __str__(self) -> str:
        """Return a short name, such as ``10-2000K``, ``300K-5000bar`` or ``300K-shear-xy+0.5``."""
        ramp = "" if self.to_temperature_K is None else f"-{self.to_temperature_K:g}"
        pressure = "" if self.pressure_bar is None else f"-{self.pressure_bar:g}bar"
        strain = "" if self.mode is None else f"-{self.mode}{self.strain:+g}"
        return f"{self.temperature_K:g}{ramp}K{pressure}{strain}"


class Stage(Section):
    """One block of the exploration matrix: starts x temperature (or ramp) x pressure (or strain) x replica."""

    name: Name
    ensemble: Literal["nvt", "npt-iso", "npt-aniso", "npt-tri", "custom"] = "nvt"
    temperatures_K: tuple[Temperature, ...] = Field(default=(), description="Walks at constant temperature.")
    ramps_K: tuple[tuple[Temperature, Temperature], ...] = Field(
        default=(), description="Heating and cooling ramps, [from, to], linear over the walk."
    )
    pressures_bar: tuple[Annotated[float, of("pressure")], ...] = Field(
        default=(), description="For npt-* (and custom): one walk per pressure."
    )
    deformations: tuple[Mode, ...] = Field(
        default=(), description="NVT with continuous deformation of the cell, h(t) = F(t) h0; one walk per mode."
    )
    strains: tuple[Annotated[Strain, of("strain of a walk")], ...] = Field(
        default=(0.5, -0.5), description="Strains at the end of a deformation; linear: 0.5 is a length x 1.5."
    )
    start: Literal["systems", "dataset"] = Field(
        default="systems", description="Walks start from a perturbed system, or from a frame of the data set."
    )
    n_walks: Annotated[PositiveInt, of("number of walks")] = Field(
        default=2, description="Walks per cell of the matrix in each pass."
    )
    n_steps: Annotated[PositiveInt, of("number of MD steps")] = Field(description="MD steps of a walk.")
    timestep_fs: Annotated[PositiveFloat, of("time step")] = 1.0
    every: Annotated[PositiveInt, of("number of steps between frames")] = Field(
        default=10, description="Evaluate the deviation every n-th step."
    )
    systems: tuple[NonNegativeInt, ...] | None = Field(default=None, description="Which of explore.systems; null: all.")
    temperature_damping_ps: Annotated[PositiveFloat, of("thermostat damping")] = 0.1
    pressure_damping_ps: Annotated[PositiveFloat, of("barostat damping")] = 1.0
    lammps: str = Field(
        default="",
        description="Your own LAMMPS lines, inserted before `run`; with ensemble custom they include the integrator. "
        "Variables: ${temperature} ${to_temperature} ${pressure} ${timestep} ${n_steps} ${every} ${seed}.",
    )
    candidate_share: QuietShare | None = Field(
        default=None,
        description="Overrides stop.candidate_share; models are less accurate for hot liquids than for crystals.",
    )
    out_of_region_share: Share | None = Field(
        default=None, description="Overrides stop.out_of_region_share; large deformations leave the region by design."
    )
    max_passes: Annotated[PositiveInt, of("number of passes")] | None = Field(
        default=None,
        description="Number of passes after which the next stage joins, quiet or not; null: when this one is quiet.",
    )
    f_lo: ForceDeviation | None = Field(
        default=None, description="Overrides select.f_lo, and is not below it (eV/Å); with select.window: fixed."
    )
    f_hi: ForceDeviation | None = Field(
        default=None, description="Overrides select.f_hi, and is not above it (eV/Å); with select.window: fixed."
    )

    @model_serializer(mode="wrap")
    def _without_a_window_that_is_not_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit bounds that are not set, so that campaigns without them keep their checksum."""
        found: dict[str, Any] = handler(self)
        return {key: value for key, value in found.items() if value is not None or key not in {"f_lo", "f_hi"}}

    @field_validator("strains")
    @classmethod
    def _check_strains(cls, strains: tuple[float, ...]) -> tuple[float, ...]:
        if any(not -0.9 <= strain <= 9.0 or strain == 0.0 for strain in strains):
            raise ValueError(
                f"strains are linear and must be nonzero and above -0.9 (a tenth of the length), got {list(strains)}"
            )
        return strains

    @field_validator("lammps")
    @classmethod
    def _check_lammps(cls, text: str, info: ValidationInfo) -> str:
        if not is_sealed(info):
            lammps_lines.check_lines(text)
        return text

    @model_validator(mode="after")
    def _check_integrator(self, info: ValidationInfo) -> Stage:
        if is_sealed(info):
            return self
        styles = [command.style for command in lammps_lines.commands(self.lammps) if command.words[0] == "fix"]
        theirs = [style for style in styles if style in lammps_lines.INTEGRATORS]
        if theirs and self.ensemble != "custom":
            raise ValueError(
                f"`lammps` contains an integrator ({theirs[0]}), and so does ensemble {self.ensemble}: the atoms would "
                "be moved twice per step - choose ensemble custom or remove that fix"
            )
        if self.ensemble == "custom" and not styles:
            raise ValueError("ensemble custom needs an integrator in `lammps`, such as: fix md all nve")
        return self

    @model_validator(mode="after")
    def _check(self) -> Stage:
        if not self.temperatures_K and not self.ramps_K:
            raise ValueError("needs temperatures_K, such as [300], or ramps_K, such as [[10, 2000]]")
        if self.ensemble == "nvt" and self.pressures_bar:
            raise ValueError("pressures_bar requires ensemble npt-*; remove it or choose npt-iso")
        if self.ensemble.startswith("npt") and not self.pressures_bar:
            raise ValueError("ensemble npt-* needs pressures_bar, for example [0.0]")
        if self.deformations and self.ensemble != "nvt":
            raise ValueError(f"deformations drive the cell, so they need ensemble nvt, got {self.ensemble}")
        if self.deformations and not self.strains:
            raise ValueError("deformations need strains, such as [0.5, -0.5]")
        if self.n_steps < self.every:
            raise ValueError(f"n_steps = {self.n_steps} must be at least every = {self.every}")
        for name in ("temperatures_K", "pressures_bar", "strains"):
            want_different(name, getattr(self, name))
        ramps = {f"{start:g}-{end:g}" for start, end in self.ramps_K}
        if len(set(self.deformations)) < len(self.deformations) or len(ramps) < len(self.ramps_K):
            raise ValueError("deformations and ramps_K need different entries")
        return self

    @property
    def conditions(self) -> list[Condition]:
        """Every cell of the matrix: temperatures and ramps x pressures, or x modes of deformation x strains."""
        heats = [*((t, None) for t in self.temperatures_K), *self.ramps_K]
        if self.deformations:
            return [Condition(a, b, None, m, s) for (a, b), m, s in product(heats, self.deformations, self.strains)]
        return [Condition(a, b, p) for (a, b), p in product(heats, self.pressures_bar or (None,))]

    @property
    def matrix(self) -> str:
        """The axes of the matrix in words."""
        heats = [f"{t:g}" for t in self.temperatures_K] + [f"{a:g} to {b:g}" for a, b in self.ramps_K]
        parts = [f"{', '.join(heats)} K"]
        if self.pressures_bar:
            parts.append(f"{', '.join(f'{p:g}' for p in self.pressures_bar)} bar")
        if self.deformations:
            parts.append(f"{', '.join(self.deformations)} to {', '.join(f'{s:+g}' for s in self.strains)}")
        return " x ".join(parts) + (", from frames of the data set" if self.start == "dataset" else "")

    @property
    def n_frames(self) -> int:
        """Frames that one walk should evaluate (including step 0)."""
        return self.n_steps // self.every + 1

    @property
    def has_window(self) -> bool:
        """Whether it has its own bound of the trust window."""
        return self.f_lo is not None or self.f_hi is not None

    def window(self, window: tuple[float, float]) -> tuple[float, float]:
        """Return f_lo and f_hi (eV/Å) that classify its frames: its own, or else those of the pass."""
        f_lo, f_hi = window
        return (f_lo if self.f_lo is None else self.f_lo), (f_hi if self.f_hi is None else self.f_hi)

    def bounds(self, stop: Stop) -> Stop:
        """Return `stop` with the bounds that the stage overrides."""
        own = {"candidate_share": self.candidate_share, "out_of_region_share": self.out_of_region_share}
        return stop.model_copy(update={key: share for key, share in own.items() if share is not None})


class Explore(Section):
    """The exploration by molecular dynamics, which looks for structures that the ensemble does not know."""

    systems: tuple[System, ...] | None = Field(default=None, description="null: those of `initial`.")
    start_scales: tuple[Annotated[PositiveFloat, of("scale of lengths")], ...] = Field(
        default=(1.0,), description="Linear scales of the starting cells."
    )
    perturb: Perturb = Perturb(positions_A=0.05, cell_fraction=0.0)
    stages: tuple[Stage, ...] = Field(min_length=1)
    quiet_passes: Annotated[PositiveInt, of("number of passes")] | None = Field(
        default=2,
        description="A cell that is quiet in this many consecutive passes gets half the walks; null: never.",
    )

    @model_validator(mode="after")
    def _check(self) -> Explore:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages need different names, got {names}")
        return self
