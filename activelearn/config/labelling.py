"""The reference, and the criteria for accepting its labels."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    PositiveFloat,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError

from activelearn.config.bounds import of
from activelearn.config.engine import REFERENCES, engine_of
from activelearn.config.paths import Argument, FilePath, FolderPath, ProgramPath
from activelearn.config.program import Program, loads_a_file
from activelearn.config.section import Section
from activelearn.errors import ConfigError

T = TypeVar("T", bound=Section)


class D3(Section):
    """Grimme's D3 dispersion, added to a reference without dispersion; without the three-body term."""

    method: str = Field(default="PBE", description="The functional that the parameters are fitted to.")
    damping: Literal["zero"] = "zero"

    def want_parameters_of(self, functional: str) -> None:
        """Refuse a functional other than the one that the parameters are fitted to."""
        if plain_functional(self.method) != plain_functional(functional):
            raise ValueError(
                f"d3.method {self.method} on functional {functional} - expected D3 with the parameters of the "
                "functional of the reference"
            )


def _known(name: str) -> str:
    if name not in REFERENCES:
        *names, last = map(repr, REFERENCES.names())
        there = f"{', '.join(names)} or {last}"
        raise PydanticKnownError("literal_error", {"expected": f"{there} (or the package that adds it)"})
    return name


class _Keyed(NamedTuple):
    """Value of a key that is not a field."""

    key: str
    value: object


def _section(given: _Keyed) -> Section:
    settings = engine_of(given.key).settings if given.key in REFERENCES else None
    if settings is None:
        raise PydanticKnownError("extra_forbidden")
    return settings.model_validate(given.value)


class Reference(Section):
    """The reference: an ASE calculator in its own interpreter, or a code such as VASP; optionally with D3.

    Settings specific to an engine are in a section with its name, such as ``vasp``.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, PlainValidator(_section)]]
    #: Its location in a campaign, and the file of an iteration that contains its identity.
    where: ClassVar[str] = "label.reference"
    identity_file: ClassVar[str] = "reference.json"

    engine: Annotated[str, AfterValidator(_known)] = Field(
        default="ase", json_schema_extra=lambda schema: schema.update(enum=[*REFERENCES.names()])
    )
    calculator: Annotated[str | None, Program()] = Field(
        default=None, pattern=r"^[\w.]+:\w+$", description="module:Class of an ASE calculator (engine ase)."
    )
    arguments: Annotated[dict[str, Argument], Program(loads_a_file)] = Field(
        default={}, description="Keyword arguments of the class."
    )
    package: str | None = Field(default=None, description="PyPI name of the package (version, install line).")
    python: Annotated[ProgramPath | None, Program()] = Field(
        default=None, description="Python interpreter that runs it; null: this one."
    )
    command: Annotated[str | None, Program()] = Field(
        default=None,
        description="Command that starts a code: 'mpiexec -n 2 gpaw python', 'srun vasp_std', 'mpirun pw.x -nk 2'.",
    )
    weights: FilePath | None = Field(
        default=None, description="Weights to hash: a path, or package:path inside an installed package."
    )
    functional: str = Field(description="The functional that it reproduces, such as PBE; 'none' for a toy model.")
    includes_dispersion: bool = Field(description="Whether it already includes dispersion.")
    d3: D3 | None = Field(default=None, description="Dispersion to add: {method: PBE, damping: zero}.")
    stress: bool = Field(default=True, description="false: only energy and forces; labels have no virial.")
    precision: Literal["float32", "float64"] = "float64"
    deterministic: bool = Field(
        default=True, description="Whether the same input gives bitwise the same result (with one thread)."
    )

    @property
    def name(self) -> str:
        """Short description of the reference: ``sevenn.calculator:SevenNetCalculator + D3(zero)``."""
        return f"{self.calculator or self.engine}{f' + D3({self.d3.damping})' if self.d3 else ''}"

    @property
    def labels_include_dispersion(self) -> bool:
        """Whether dispersion is in the labels: in the reference itself, or added as D3."""
        return self.includes_dispersion or self.d3 is not None

    def settings(self, kind: type[T]) -> T:
        """Return the section of its engine, which is of this kind."""
        found = (self.model_extra or {})[self.engine]
        assert isinstance(found, kind)  # as declared by the engine
        return found

    @property
    def movable(self) -> tuple[str, ...]:
        """The keys that set where and how it runs, not what it computes."""
        return ("python", "command", *(f"{self.engine}.{key}" for key in engine_of(self.engine).movable))

    @classmethod
    def sections(cls) -> dict[str, type[Section]]:
        """Return the sections of the engines, except those of broken packages, which are reported when used."""
        found = {}
        for name in REFERENCES.names():
            with contextlib.suppress(ConfigError):
                found[name] = engine_of(name).settings
        return {name: settings for name, settings in found.items() if settings is not None}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema with the sections of all available engines."""
        found = handler(schema)
        own = handler.resolve_ref_schema(found)
        for name, settings in cls.sections().items():
            either = {"anyOf": [handler(settings.__pydantic_core_schema__), {"type": "null"}], "default": None}
            own["properties"][name] = {**either, "description": f"Settings of engine {name}."}
        own["additionalProperties"] = False
        return found

    @model_validator(mode="before")
    @classmethod
    def _with_the_names_of_sections(cls, given: Any) -> Any:  # noqa: ANN401 - raw YAML
        """Attach its key to a possible section; null means none (older copies of campaigns have it)."""
        if not isinstance(given, Mapping):
            return given
        fields = {key: value for key, value in given.items() if key in cls.model_fields}
        others = {key: value for key, value in given.items() if key not in fields}
        return fields | {k: _Keyed(k, v) for k, v in others.items() if v is not None or k not in REFERENCES}

    @model_validator(mode="after")
    def _says_what_its_engine_wants(self) -> Reference:
        engine = engine_of(self.engine)
        required = engine.needs | ({self.engine} if engine.settings is not None else set())
        given = {key for key in ("calculator", "command") if getattr(self, key) is not None}
        given |= {*(self.model_extra or ())}
        if given != required:
            raise ValueError(f"engine {self.engine} with {sorted(given) or 'nothing'} - expected {sorted(required)}")
        return self

    @model_validator(mode="after")
    def _has_dispersion_once(self) -> Reference:
        if self.d3 is None:
            return self
        if self.includes_dispersion:
            raise ValueError("d3 on a reference with includes_dispersion: true - expected dispersion once, not twice")
        self.d3.want_parameters_of(self.functional)
        return self

    @model_validator(mode="after")
    def _engine_has_no_objection(self) -> Reference:
        engine_of(self.engine).check_settings(self)
        return self


class Driver(Reference):
    """The driver: a fast potential that moves the atoms of initial data instead of the reference; it labels nothing."""

    where: ClassVar[str] = "initial.md.driver"
    identity_file: ClassVar[str] = "driver.json"

    functional: str = Field(
        default="none", description="The functional that it reproduces, such as PBE; its labels are not used."
    )
    includes_dispersion: bool = Field(default=False, description="Whether it already includes dispersion.")
    stress: bool = Field(default=False, description="Not needed, since the cell does not change.")


def plain_functional(functional: str) -> str:
    """Return the name of a functional in a canonical spelling."""
    return functional.replace("-", "").replace("_", "").lower()


class Label(Section):
    """The reference, and the criteria for accepting its labels."""

    reference: Reference
    max_force: Annotated[PositiveFloat, of("largest force of a label")] = Field(
        default=50.0, description="A label with a larger force on any atom is refused (eV/Å)."
    )
    max_net_force: Annotated[PositiveFloat, of("net force")] = Field(
        default=0.05, description="Largest |sum of forces| / n_atoms (eV/Å)."
    )
    max_energy_spread: Annotated[PositiveFloat, of("spread of energies")] | None = Field(
        default=5.0,
        description="Largest distance from the median energy of the formula in the iteration (eV/atom); null: any.",
    )
    ledger: FolderPath | None = Field(
        default=None, description="A shared ledger folder; null: labels/ of the campaign."
    )
