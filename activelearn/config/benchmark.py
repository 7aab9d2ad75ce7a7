"""What is measured with a potential: crystals, its glasses, and comparison with experiment.

A property may also come from another package, or have no field here: its settings are in the section under its
name as well, and are validated by the class that the property names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from pydantic import (
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from activelearn.config.bounds import of
from activelearn.config.glass import Dynamics
from activelearn.config.labelling import Label
from activelearn.config.paths import FilePath, StructurePath
from activelearn.config.section import (
    Element,
    ForceLeft,
    Name,
    Section,
    Share,
    Temperature,
    is_sealed,
    want_different,
)
from activelearn.errors import ConfigError
from activelearn.plugins import Group

#: Formula units of a crystal in a reaction.
Amount = Annotated[PositiveFloat, of("amount of a unit")]

#: Every property, in the order of the tables; those of other packages follow.
PROPERTIES: Final = Group(
    "activelearn.properties",
    {
        name: f"activelearn.benchmark.{name}:PROPERTY"
        for name in (
            "parity",
            "force_error",
            "crystals",
            "reactions",
            "density",
            "free_volume",
            "rdf",
            "network",
            "coordination",
            "bulk_modulus",
            "elastic",
            "diffusion",
        )
    },
    "activelearn.benchmark.property:Property",
)


def property_of(name: str) -> Any:  # noqa: ANN401 - a Property, which this floor cannot name
    """Return the :class:`~activelearn.benchmark.property.Property` of a name.

    Raises
    ------
    ConfigError
        There is none, it cannot be imported, or its own name differs.
    """
    found = PROPERTIES.find(name)
    if found.name != name or (name not in PROPERTIES.built_in and name in Benchmark.model_fields):
        raise ConfigError(
            f"{PROPERTIES.name}: {name} is the property {found.name!r} - expected the same name in the entry point and "
            "the property, and not one of our keys - report it to the package that adds it"
        )
    return found


class Crystals(Section):
    """Volume of relaxed crystals compared with experiment."""

    seeds: tuple[StructurePath, ...] = Field(
        min_length=1, description="Seeds (see `activelearn seeds`) or structure files."
    )
    fmax: ForceLeft = Field(
        default=0.002, description="Force convergence criterion, also for stress x volume per atom (eV/Å)."
    )
    max_steps: Annotated[PositiveInt, of("number of relaxation steps")] = 500
    min_height_A: Annotated[PositiveFloat, of("height of a cell")] = Field(
        default=6.0, description="Smallest perpendicular height of the cell (Å)."
    )


class Reaction(Section):
    """A balanced reaction: crystals by name, and the number of formula units of each, such as ``P4S10: 0.25``."""

    left: dict[str, Amount] = Field(min_length=1, description="Reactants: formula units of each crystal.")
    right: dict[str, Amount] = Field(min_length=1, description="Products: formula units of each crystal.")


class Reactions(Section):
    """Energies of reactions from relaxed crystals: whether a potential gets the sign right, before any glass."""

    equations: dict[Name, Reaction] = Field(min_length=1, description="Reactions by name, as used in the tables.")
    crystals: dict[Name, StructurePath] = Field(
        default={},
        description="Names used in the equations for seeds or structure files; a seed is also known by its id.",
    )
    fmax: ForceLeft = Field(
        default=0.02, description="Force convergence criterion, also for stress x volume per atom (eV/Å)."
    )
    max_steps: Annotated[PositiveInt, of("number of relaxation steps")] = 500
    min_height_A: Annotated[PositiveFloat, of("height of a cell")] = Field(
        default=6.0, description="Smallest perpendicular height of the cell (Å)."
    )

    def structure(self, name: str) -> str:
        """Return the seed or file that a name in an equation refers to."""
        return self.crystals.get(name, name)

    @property
    def seeds(self) -> tuple[str, ...]:
        """Seeds and files of all equations, each once."""
        names = (name for one in self.equations.values() for name in (*one.left, *one.right))
        return tuple(dict.fromkeys(map(self.structure, names)))


class Rdf(Section):
    """g_ab(r) and first-shell coordination."""

    bin_A: Annotated[PositiveFloat, of("bin of distances")] = 0.05
    r_max_A: Annotated[PositiveFloat, of("range of distances")] | None = Field(
        default=None, description="null: half the smallest height."
    )


class BulkModulus(Section):
    """Slope of pressure versus hydrostatic strain (Luo et al. 2024)."""

    strains: tuple[Annotated[float, of("elastic strain")], ...] = Field(
        default=(-0.01, -0.005, 0.0, 0.005, 0.01), min_length=3, description="Linear: 0.01 is a length x 1.01."
    )
    temperature_K: Temperature | None = Field(default=None, description="NVT averages; null: relaxed, at 0 K.")
    equilibrate_ps: Annotated[PositiveFloat, of("duration")] = 5.0
    average_ps: Annotated[PositiveFloat, of("duration")] = 20.0
    fmax: ForceLeft = Field(default=0.002, description="Force convergence criterion at 0 K (eV/Å).")
    max_steps: Annotated[PositiveInt, of("number of relaxation steps")] = 500

    @field_validator("strains")
    @classmethod
    def _are_small(cls, strains: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(strains)) < 3 or any(abs(s) > 0.05 for s in strains):
            raise ValueError(f"strains {list(strains)} - expected three or more different values within +-0.05")
        if max(strains) - min(strains) < 1.0e-3:
            raise ValueError(f"strains {list(strains)} - expected a range of 0.001 or more, since small ones are noise")
        return strains


class Elastic(Section):
    """C_ij from six strains, relaxed positions; B, G, E and nu by Hill."""

    strain: Annotated[float, of("elastic strain")] = Field(default=0.005, ge=1.0e-4, le=0.02)
    fmax: ForceLeft = Field(
        default=0.001,
        description="Force convergence criterion (eV/Å). Small strains excite small forces: at 0.01 a metallic "
        "glass came out 10 % too stiff.",
    )
    max_steps: Annotated[PositiveInt, of("number of relaxation steps")] = 500


class Diffusion(Section):
    """Mean square displacement, diffusion coefficient, Nernst-Einstein conductivity, Arrhenius fit."""

    temperatures_K: tuple[Temperature, ...] = Field(default=(333.0, 363.0, 393.0, 423.0, 473.0), min_length=1)
    ps: Annotated[PositiveFloat, of("duration")] = Field(default=20_000.0, description="Length of a run.")
    ps_below: dict[float, Annotated[PositiveFloat, of("duration")]] = Field(
        default={}, description="Longer runs at low temperatures: {390: 50000} is 50 ns below 390 K."
    )
    equilibrate_ps: Annotated[PositiveFloat, of("duration")] = 50.0
    ensemble: Literal["nvt", "npt-iso"] = "npt-iso"
    n_frames: Annotated[PositiveInt, of("number of frames kept")] = Field(
        default=2000, description="Frames kept per run."
    )
    window: tuple[Share, Share] = Field(default=(0.50, 0.95), description="Part of the run to which a line is fitted.")
    single_origin: bool = Field(default=False, description="Use one time origin, as in the papers, instead of many.")
    use_slope: bool = Field(default=True, description="D = slope/6; false: MSD/(6t), as the papers print it.")
    bayesian: bool = Field(default=False, description="Add kinisi's Bayesian estimate (needs `pip install kinisi`).")

    def duration_ps(self, temperature_K: float) -> float:
        """Return the length of a run at a temperature, ps."""
        return max([self.ps, *(ps for below, ps in self.ps_below.items() if temperature_K < below)])

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Diffusion:
        if is_sealed(info):
            return self
        want_different("temperatures_K", self.temperatures_K)
        first, last = (share * (self.n_frames - 1) for share in self.window)
        n = max(0, math.floor(last + 1.0e-9) - max(1, math.ceil(first - 1.0e-9)) + 1)
        if n < 3:
            raise ValueError(
                f"window {list(self.window)} holds {n} of {self.n_frames} frames - expected [from, to] in shares of "
                "the run, with three frames or more between them"
            )
        return self


class Network(Section):
    """P^n, bridging anions, chains and defects; also along the quench."""

    cutoff_shift_A: Annotated[NonNegativeFloat, of("shift of a cutoff")] = Field(
        default=0.1, description="Results are also given for cutoffs +- this shift."
    )
    evolution: bool = Field(default=True, description="Follow them through the whole schedule, including the liquid.")


class Parity(Section):
    """Errors of energy, forces and virial on labelled frames."""

    frames: FilePath | None = Field(
        default=None, description="extxyz with labels; null: the held-out set of the campaign."
    )
    max_frames: Annotated[PositiveInt, of("number of frames kept")] = 500


#: Keys of a campaign's `label` that do not apply to frames of glasses.
UNUSED_OF_LABEL: Final = ("ledger", "max_energy_spread")


class ForceError(Section):
    """True error of the forces along the path of every glass, next to the deviation of its ensemble."""

    n_frames: Annotated[PositiveInt, of("number of frames kept")] = Field(
        default=20, description="Frames of each path that are labelled, evenly spaced in time."
    )
    label: Label | None = Field(
        default=None, description="Reference that labels them, as in `label` of a campaign; null: that of the campaign."
    )


class Benchmark(Section):
    """What is measured; null: not measured. Properties of other packages are added under their names."""

    model_config = ConfigDict(extra="allow")

    parity: Parity | None = None
    force_error: ForceError | None = None
    crystals: Crystals | None = None
    reactions: Reactions | None = None
    density: bool = True
    rdf: Rdf | None = Rdf()
    network: Network | None = Network()
    coordination: bool = True
    free_volume: bool = True
    bulk_modulus: BulkModulus | None = None
    elastic: Elastic | None = None
    diffusion: Diffusion | None = None
    maps: bool = Field(
        default=True, description="Maps of displacements of formers and paths of the carrier (diffusion)."
    )
    dynamics: Dynamics = Field(default=Dynamics(), description="MD settings of the runs that properties need.")

    @model_validator(mode="wrap")
    @classmethod
    def _check_added(cls, data: Any, handler: ModelWrapValidatorHandler[Benchmark]) -> Benchmark:  # noqa: ANN401 - raw
        """Validate the settings of added properties along with the others, and refuse unknown ones."""
        if isinstance(data, dict) and cls is Benchmark and (more := data.keys() - cls.model_fields):
            data = data | {key: None for key in more if data[key] is False}
            data = dict(_with_added(more).model_validate(data))
        return handler(data)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema with the settings of all available properties."""
        found = handler(schema)
        own = handler.resolve_ref_schema(found)
        for name in PROPERTIES.names():
            if name not in cls.model_fields:
                kind = property_of(name).settings
                one = {"type": "boolean"} if kind is bool else handler(kind.__pydantic_core_schema__)
                own["properties"][name] = {"anyOf": [one, {"type": "null"}], "default": None}
        own["additionalProperties"] = False
        return found

    @classmethod
    def sections(cls) -> dict[str, type[Section]]:
        """Return the settings of added properties, for hints; an empty section for one without settings, or broken."""
        return {name: _section_of(name) for name in PROPERTIES.names() if name not in cls.model_fields}

    @property
    def asked(self) -> dict[str, Section | bool]:
        """Settings of what is measured, by property, in the order of the tables."""
        given = dict(self)
        added = sorted({*(self.model_extra or ())} - PROPERTIES.built_in.keys())
        return {name: given[name] for name in [*PROPERTIES.built_in, *added] if given.get(name)}

    @property
    def structures(self) -> tuple[str, ...]:
        """Crystals that are relaxed: seeds by id and files by path, each once."""
        names = (name for one in (self.crystals, self.reactions) if one is not None for name in one.seeds)
        return tuple(dict.fromkeys(names))


def _section_of(name: str) -> type[Section]:
    try:
        found = property_of(name).settings
    except ConfigError:  # reported when it is used
        return Section
    return Section if found is bool else found


class _Strict(Benchmark):
    model_config = ConfigDict(extra="forbid")


def _with_added(keys: Iterable[str]) -> type[Benchmark]:
    """Return the section with fields for the keys that are added properties."""
    names = [key for key in keys if key in PROPERTIES]
    sections: dict[str, Any] = {name: (property_of(name).settings | None, None) for name in names}
    return create_model("Benchmark", __base__=_Strict, **sections)


class Cited(Section):
    """A published number: from experiment, or from another simulation."""

    property: str = Field(description="Name of the result it belongs to, such as density or P1.")
    value: float
    uncertainty: NonNegativeFloat | None = None
    bound: Literal["above", "below"] | None = Field(
        default=None, description="The value is only a bound: the true value is above (or below) it."
    )
    unit: str
    source: str = Field(min_length=3, description="Where it is published.")
    kind: Literal["experiment", "simulation"] = "experiment"
    status: Literal["text", "memory_high", "computed", "user"] = Field(
        description="How the number was obtained; values from memory (memory_low) do not belong here."
    )
    series: Name | None = None
    x: float | None = Field(default=None, description="Composition; null with a series: the series as a whole.")
    crystal: str | None = Field(default=None, description="Seed, for a property of a crystal.")
    reaction: str | None = Field(default=None, description="Name of the reaction, for a reaction energy.")
    temperature_K: Temperature | None = None
    pair: tuple[Element, Element] | None = None
