"""What is measured of a potential: crystals, the glasses it made, and what is known from experiment."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from activelearn.config.glass import Dynamics
from activelearn.config.section import Element, Fraction, Name, Section


class Crystals(Section):
    """Volume of relaxed crystals against experiment."""

    seeds: tuple[str, ...] = Field(min_length=1, description="Seeds (see `activelearn seeds`) or structure files.")
    fmax: PositiveFloat = Field(
        default=0.002, description="Largest force (and stress x volume per atom) that may be left (eV/Å)."
    )
    max_steps: PositiveInt = 500
    min_height_A: PositiveFloat = Field(default=6.0, description="Smallest perpendicular height of the cell (Å).")


class Rdf(Section):
    """g_ab(r) and first-shell coordination."""

    bin_A: PositiveFloat = 0.05
    r_max_A: PositiveFloat | None = Field(default=None, description="null: half the smallest height.")


class BulkModulus(Section):
    """Slope of pressure against hydrostatic strain (Luo et al. 2024)."""

    strains: tuple[float, ...] = Field(
        default=(-0.01, -0.005, 0.0, 0.005, 0.01), min_length=3, description="Linear: 0.01 is a length x 1.01."
    )
    temperature_K: PositiveFloat | None = Field(default=None, description="NVT averages; null: relaxed, at 0 K.")
    equilibrate_ps: PositiveFloat = 5.0
    average_ps: PositiveFloat = 20.0
    fmax: PositiveFloat = Field(default=0.002, description="At 0 K: largest force that may be left (eV/Å).")
    max_steps: PositiveInt = 500

    @field_validator("strains")
    @classmethod
    def _are_small(cls, strains: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(strains)) < 3 or any(abs(s) > 0.05 for s in strains):
            raise ValueError(f"strains {list(strains)} - wanted three or more different ones within +-0.05")
        return strains


class Elastic(Section):
    """C_ij from six strains, relaxed positions; B, G, E and nu by Hill."""

    strain: float = Field(default=0.005, gt=0.0, le=0.02)
    fmax: PositiveFloat = Field(
        default=0.001,
        description="Largest force that may be left (eV/Å). So small a strain excites small forces: at 0.01 a metallic "
        "glass came out 10 % too stiff.",
    )
    max_steps: PositiveInt = 500


class Diffusion(Section):
    """Mean square displacement, diffusion coefficient, Nernst-Einstein conductivity, Arrhenius fit."""

    temperatures_K: tuple[PositiveFloat, ...] = Field(default=(333.0, 363.0, 393.0, 423.0, 473.0), min_length=1)
    ps: PositiveFloat = Field(default=20_000.0, description="Length of a run.")
    ps_below: dict[float, PositiveFloat] = Field(
        default={}, description="Longer runs at low temperatures: {390: 50000} is 50 ns below 390 K."
    )
    equilibrate_ps: PositiveFloat = 50.0
    ensemble: Literal["nvt", "npt-iso"] = "npt-iso"
    n_frames: PositiveInt = Field(default=2000, description="Frames kept of a run.")
    window: tuple[Fraction, Fraction] = Field(default=(0.50, 0.95), description="Of the run, where a line is fitted.")
    single_origin: bool = Field(default=False, description="One time origin, as in the papers, instead of many.")
    use_slope: bool = Field(default=True, description="D = slope/6; false: MSD/(6t), as the papers print it.")
    bayesian: bool = Field(default=False, description="Also kinisi's estimate (wants `pip install kinisi`).")

    def duration_ps(self, temperature_K: float) -> float:
        """Return the length of a run at a temperature, ps."""
        return max([self.ps, *(ps for below, ps in self.ps_below.items() if temperature_K < below)])


class Network(Section):
    """P^n, bridging anions, chains and defects; also along the quench."""

    cutoff_shift_A: NonNegativeFloat = Field(default=0.1, description="Results are given for cutoffs -+ this, too.")
    evolution: bool = Field(default=True, description="Through the whole schedule, in the liquid too.")


class Parity(Section):
    """Errors of energy, forces and virial against labelled frames."""

    frames: str | None = Field(default=None, description="extxyz with labels; null: the held-out set of the campaign.")
    max_frames: PositiveInt = 500


class Benchmark(Section):
    """What is measured; null: not."""

    parity: Parity | None = None
    crystals: Crystals | None = None
    density: bool = True
    rdf: Rdf | None = Rdf()
    network: Network | None = Network()
    coordination: bool = True
    free_volume: bool = True
    bulk_modulus: BulkModulus | None = None
    elastic: Elastic | None = None
    diffusion: Diffusion | None = None
    maps: bool = Field(default=True, description="Displacements of formers and paths of the carrier (diffusion).")
    dynamics: Dynamics = Field(default=Dynamics(), description="Of the runs that properties want.")


class Cited(Section):
    """A number from outside: of an experiment, or of another simulation."""

    property: str = Field(description="Name of the result it belongs to, such as density or P1.")
    value: float
    uncertainty: NonNegativeFloat | None = None
    bound: Literal["above", "below"] | None = Field(
        default=None, description="The value is only a bound: what was measured lies above (or below) it."
    )
    unit: str
    source: str = Field(min_length=3, description="Where it is printed.")
    kind: Literal["experiment", "simulation"] = "experiment"
    status: Literal["text", "memory_high", "computed", "user"] = Field(
        description="How the number was got; what is only remembered (memory_low) does not belong here."
    )
    series: Name | None = None
    x: float | None = Field(default=None, description="Composition; null with a series: of the series as a whole.")
    crystal: str | None = Field(default=None, description="Seed, of a property of a crystal.")
    temperature_K: PositiveFloat | None = None
    pair: tuple[Element, Element] | None = None
