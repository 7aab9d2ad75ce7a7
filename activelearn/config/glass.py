"""Glass: a composition series, how it is melted and quenched, and the roles of its atoms in the network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from activelearn.config.bounds import of
from activelearn.config.packing import Formula, Packed
from activelearn.config.paths import FilePath, StructurePath
from activelearn.config.section import (
    Element,
    ForceLeft,
    Fraction,
    Name,
    Pair,
    Section,
    Temperature,
    want_different,
    want_pairs_once,
)

Interval = Annotated[PositiveFloat, of("interval")]


class Roles(Section):
    """Role of each element in the glass network."""

    formers: dict[Element, Annotated[PositiveInt, of("charge of an ion")]] = Field(
        min_length=1,
        description="Network formers and the charge of their units without bridges: {P: 3} (PS4 3-), {Si: 4}.",
    )
    anions: tuple[Element, ...] = Field(min_length=1, description="Divalent anions, such as [S, O].")
    modifiers: dict[Element, Annotated[PositiveInt, of("charge of an ion")]] = Field(
        default={}, description="Modifiers and their charge: {Na: 1}."
    )
    carrier: Element | None = Field(default=None, description="The conducting ion.")
    coordination: Annotated[PositiveInt, of("coordination number")] = Field(
        default=4, description="Coordination number of a former that is not a defect."
    )

    @model_validator(mode="after")
    def _check(self) -> Roles:
        twice = sorted((set(self.formers) & set(self.anions)) | (set(self.modifiers) & {*self.formers, *self.anions}))
        if twice:
            raise ValueError(f"{', '.join(twice)} has two roles - expected one: former, anion or modifier")
        if self.carrier is not None and self.carrier not in self.modifiers:
            raise ValueError(f"carrier {self.carrier} - expected one of the modifiers {sorted(self.modifiers)}")
        return self


class Composition(Section):
    """One member of a series."""

    x: float = Field(description="Coordinate on the axis of the series.")
    units: dict[Formula, Annotated[PositiveFloat, of("amount of a unit")]] = Field(
        min_length=1, description="Amounts, such as {Na2S: 2, P2S5: 1}."
    )
    density_g_cm3: Annotated[PositiveFloat, of("density")] = Field(
        description="Density of the packing that the melt starts from (an NVT quench keeps it)."
    )
    crystal: StructurePath | None = Field(
        default=None, description="Melt this seed (or structure file), scaled to the density, instead of a packing."
    )


class Series(Section):
    """Compositions along one axis, with the roles of their elements and the cutoffs of the analysis."""

    name: Name
    title: str = Field(description="Title in figures, such as Na4P2S7-xOx.")
    compositions: tuple[Composition, ...] = Field(min_length=1)
    roles: Roles
    cutoffs_A: dict[Pair, Annotated[PositiveFloat, of("cutoff of a bond or shell")]] = Field(
        description="Bonds by pair, {P-S: 2.5}, and coordination shells, {Na-S: 3.5} (Å); pairs not listed have none."
    )
    geometry: dict[Formula, FilePath] = Field(default={}, description="xyz files of units packed as rigid molecules.")

    @model_validator(mode="after")
    def _check(self) -> Series:
        want_different("x", [composition.x for composition in self.compositions])
        want_pairs_once("cutoffs_A", self.cutoffs_A)
        return self

    def cutoff_A(self, a: str, b: str) -> float | None:
        """Return the cutoff of a pair of elements, Å, or None."""
        return self.cutoffs_A.get(f"{a}-{b}", self.cutoffs_A.get(f"{b}-{a}"))


class Segment(Section):
    """One leg of a schedule: an ensemble at a temperature, or along a ramp, for a time or at a rate."""

    name: Name
    ensemble: Literal["nvt", "npt-iso", "npt-aniso", "npt-tri"] = "nvt"
    temperature_K: Temperature
    to_temperature_K: Temperature | None = Field(default=None, description="At the end of a linear ramp.")
    pressure_bar: Annotated[float, of("pressure")] = Field(default=0.0, description="Pressure for npt-*.")
    ps: Annotated[PositiveFloat, of("duration")] | None = Field(default=None, description="Duration (ps).")
    rate_K_per_ps: Annotated[PositiveFloat, of("cooling rate")] | None = Field(
        default=None, description="Rate of a ramp, instead of `ps`."
    )
    n_frames: Annotated[int, of("number of frames kept")] = Field(
        default=20, ge=1, description="Frames kept for the analyses, evenly spaced, including the last."
    )
    is_analysed: bool = Field(default=False, description="Density, g(r), network ... are averaged over its frames.")
    is_melt: bool = Field(
        default=False,
        description="The melt, which must lose memory of its start; if none is marked: the hottest hold.",
    )

    @model_validator(mode="after")
    def _check(self) -> Segment:
        if (self.ps is None) == (self.rate_K_per_ps is None):
            raise ValueError("expected exactly one of ps and rate_K_per_ps")
        if self.rate_K_per_ps is not None and (
            self.to_temperature_K is None or self.to_temperature_K == self.temperature_K
        ):
            raise ValueError("rate_K_per_ps needs a ramp: to_temperature_K, different from temperature_K")
        return self

    @property
    def end_K(self) -> float:
        """Final temperature."""
        return self.temperature_K if self.to_temperature_K is None else self.to_temperature_K

    @property
    def duration_ps(self) -> float:
        """Duration, ps."""
        if self.ps is not None:
            return self.ps
        assert self.rate_K_per_ps is not None  # one of the two
        return abs(self.end_K - self.temperature_K) / self.rate_K_per_ps

    @property
    def is_quench(self) -> bool:
        """Whether it cools at a rate that can be replaced by another."""
        return self.rate_K_per_ps is not None and self.end_K < self.temperature_K

    @property
    def is_npt(self) -> bool:
        """Whether the cell changes."""
        return self.ensemble != "nvt"


class Dynamics(Section):
    """Integration of the equations of motion, the same for every potential."""

    timestep_fs: Annotated[PositiveFloat, of("time step")] = 1.0
    temperature_damping_ps: Annotated[PositiveFloat, of("thermostat damping")] = 0.1
    pressure_damping_ps: Annotated[PositiveFloat, of("barostat damping")] = 1.0
    thermo_every_ps: Interval = Field(default=0.1, description="Interval of rows of the thermo table.")
    deviation_every_ps: Interval | None = Field(
        default=None,
        description="Interval of evaluations of the force deviation; null: on every row of the thermo table.",
    )
    frame_every_ps: Interval | None = Field(
        default=None,
        description="Interval of kept frames, the last included; null: n_frames per segment, on thermo rows.",
    )
    keep_velocities: bool = Field(default=False, description="Store velocities of kept frames as well.")
    restart_every_ps: Interval = Field(
        default=10.0, description="Interval of restart files: the most that a kill can cost."
    )
    max_temperature_factor: Annotated[PositiveFloat, of("factor on a temperature")] = Field(
        default=4.0, description="A run hotter than this factor times the larger of target and 300 K has blown up."
    )


class Pore(Section):
    """A sphere cut out of the glass with stoichiometry restored (Luo et al. 2024), and the segments that follow."""

    diameter_A: Annotated[PositiveFloat, of("diameter of a pore")] = 14.0
    segments: tuple[Segment, ...] = Field(min_length=1)
    x: tuple[float, ...] | None = Field(
        default=None, min_length=1, description="Only for these compositions; null: for all."
    )


class Relaxing(Section):
    """Removal of close contacts of the packing before dynamics start."""

    fmax: ForceLeft = Field(default=1.0, description="Force convergence criterion (eV/Å).")
    max_steps: Annotated[PositiveInt, of("number of relaxation steps")] = 200


class Glass(Section):
    """Melt-quench of a series: cells, replicas, schedule."""

    series: Series
    x: tuple[float, ...] | None = Field(default=None, min_length=1, description="Only these compositions; null: all.")
    n_atoms: Annotated[PositiveInt, of("number of atoms of a glass")] | None = Field(
        default=None,
        description="Target number of atoms; each x uses the nearest number with exact stoichiometry.",
    )
    n_units: Annotated[PositiveInt, of("number of formula units of a glass")] | None = Field(
        default=None,
        description="Target number of formula units (the amounts of `units`); x uses the nearest with whole units.",
    )
    n_replicas: Annotated[PositiveInt, of("number of replicas")] = 5
    tolerance_A: Annotated[PositiveFloat, of("distance of packed units")] = Field(
        default=2.0, description="Packmol tolerance (Å)."
    )
    relax: Relaxing = Relaxing()
    dynamics: Dynamics = Dynamics()
    segments: tuple[Segment, ...] = Field(min_length=1)
    cooling_rates_K_per_ps: tuple[Annotated[PositiveFloat, of("cooling rate")], ...] = Field(
        default=(), description="Make every glass once per rate, which replaces the rates of cooling ramps."
    )
    pore: Pore | None = None
    max_outside_share: Annotated[Fraction, of("share of a path")] = Field(
        default=0.05, description="A path with a larger share of frames above f_hi makes the glass UNTRUSTED."
    )
    note: str = Field(default="", description="Source of the schedule, and its assumptions.")

    @model_validator(mode="after")
    def _check(self) -> Glass:
        if (self.n_atoms is None) == (self.n_units is None):
            raise ValueError("expected exactly one of n_atoms and n_units")
        known = {composition.x for composition in self.series.compositions}
        unknown = sorted({*(self.x or ()), *((self.pore.x or ()) if self.pore else ())} - known)
        if unknown:
            raise ValueError(f"x = {unknown} - expected compositions of series {self.series.name}: {sorted(known)}")
        legs = (*self.segments, *(self.pore.segments if self.pore else ()))
        names = [leg.name for leg in legs]
        if len(set(names)) < len(names):
            raise ValueError(f"segments need different names, got {names}")
        shortest = min(legs, key=lambda leg: leg.duration_ps)
        if (self.dynamics.deviation_every_ps or 0.0) > shortest.duration_ps:
            raise ValueError(
                f"dynamics.deviation_every_ps {self.dynamics.deviation_every_ps:g} in a segment {shortest.name} of "
                f"{shortest.duration_ps:g} ps, so that only its first frame would be evaluated - expected a shorter "
                "interval"
            )
        if not any(segment.is_analysed for segment in self.segments):
            raise ValueError("no segment with is_analysed: true - expected one, such as the last at 300 K")
        if self.pore is not None and any(segment.is_melt for segment in self.pore.segments):
            raise ValueError(
                "pore.segments with is_melt: true - expected it only in the segments that make the dense glass"
            )
        want_different("cooling_rates_K_per_ps", self.cooling_rates_K_per_ps)
        if self.cooling_rates_K_per_ps and not any(s.is_quench for s in self.segments):
            raise ValueError("cooling_rates_K_per_ps needs a cooling ramp with rate_K_per_ps")
        return self

    @property
    def compositions(self) -> tuple[Composition, ...]:
        """The compositions that are made."""
        return tuple(c for c in self.series.compositions if self.x is None or c.x in self.x)

    @property
    def melt(self) -> tuple[int, ...]:
        """Indices of the segments of the melt, in order; empty if not known.

        These are the marked ones, or else the holds at the highest temperature before a colder segment.
        """
        hottest = max(max(s.temperature_K, s.end_K) for s in self.segments)
        cools = [any(later.end_K < hottest for later in self.segments[i:]) for i in range(len(self.segments))]
        marked = [i for i, segment in enumerate(self.segments) if segment.is_melt]
        held = [i for i, s in enumerate(self.segments) if s.temperature_K == s.end_K == hottest and cools[i]]
        found = marked or held
        return tuple(range(found[0], found[-1] + 1)) if found else ()

    def packed(self, composition: Composition) -> Packed:
        """Return what Packmol packs for a composition."""
        geometry = {formula: path for formula, path in self.series.geometry.items() if formula in composition.units}
        return Packed(
            units=composition.units,
            n_atoms=self.n_atoms,
            n_units=self.n_units,
            density_g_cm3=composition.density_g_cm3,
            tolerance_A=self.tolerance_A,
            geometry=geometry,
        )

    def schedule(self, cooling_rate_K_per_ps: NonNegativeFloat | None = None) -> tuple[Segment, ...]:
        """Return the segments, with cooling ramps at the given rate."""
        return tuple(
            s.model_copy(update={"rate_K_per_ps": cooling_rate_K_per_ps})
            if cooling_rate_K_per_ps is not None and s.is_quench
            else s
            for s in self.segments
        )
