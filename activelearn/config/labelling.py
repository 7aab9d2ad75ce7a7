"""The reference: what labels, and what makes a label acceptable."""

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
    """Grimme's D3 dispersion, added to a reference that has none; the three-body term is off."""

    method: str = Field(default="PBE", description="The functional that its parameters are for.")
    damping: Literal["zero"] = "zero"

    def want_parameters_of(self, functional: str) -> None:
        """Refuse to be added to another functional than the one that its parameters are for."""
        if plain_functional(self.method) != plain_functional(functional):
            raise ValueError(
                f"d3.method {self.method} on functional {functional} - wanted D3 with the parameters of the functional "
                "that it is added to"
            )


def _known(name: str) -> str:
    if name not in REFERENCES:
        *names, last = map(repr, REFERENCES.names())
        there = f"{', '.join(names)} or {last}"
        raise PydanticKnownError("literal_error", {"expected": f"{there} (or the package that adds it)"})
    return name


class _Keyed(NamedTuple):
    """What stands under a key that is no field."""

    key: str
    value: object


def _section(given: _Keyed) -> Section:
    settings = engine_of(given.key).settings if given.key in REFERENCES else None
    if settings is None:
        raise PydanticKnownError("extra_forbidden")
    return settings.model_validate(given.value)


class Reference(Section):
    """What labels: an ASE calculator in its own interpreter, or a code such as VASP; each with D3 if it has none.

    What an engine alone has stands in a section of its name, such as ``vasp``.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, PlainValidator(_section)]]
    #: Where it stands in a campaign, and the file of an iteration that has its identity.
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
        default=None, description="Interpreter to run it in; null: this one."
    )
    command: Annotated[str | None, Program()] = Field(
        default=None,
        description="How a code is started: 'mpiexec -n 2 gpaw python', 'srun vasp_std', 'mpirun -n 4 pw.x -nk 2'.",
    )
    weights: FilePath | None = Field(
        default=None, description="Weights to be hashed: a path, or package:path inside an installed package."
    )
    functional: str = Field(description="What it reproduces, such as PBE; 'none' for a toy.")
    includes_dispersion: bool = Field(description="Whether dispersion is already in it.")
    d3: D3 | None = Field(default=None, description="Dispersion to be added: {method: PBE, damping: zero}.")
    stress: bool = Field(
        default=True, description="false: it has energy and forces only, and its labels have no virial."
    )
    precision: Literal["float32", "float64"] = "float64"
    deterministic: bool = Field(default=True, description="Same input, same bits (at one thread).")

    @property
    def name(self) -> str:
        """What labels, in two words: ``sevenn.calculator:SevenNetCalculator + D3(zero)``."""
        return f"{self.calculator or self.engine}{f' + D3({self.d3.damping})' if self.d3 else ''}"

    @property
    def labels_include_dispersion(self) -> bool:
        """Whether dispersion is in the labels: in the reference itself, or added as D3."""
        return self.includes_dispersion or self.d3 is not None

    def settings(self, kind: type[T]) -> T:
        """Return the section of its engine, which is of this kind."""
        found = (self.model_extra or {})[self.engine]
        assert isinstance(found, kind)  # what the engine says of itself
        return found

    @property
    def movable(self) -> tuple[str, ...]:
        """The keys that say where and how it runs, not what it computes."""
        return ("python", "command", *(f"{self.engine}.{key}" for key in engine_of(self.engine).movable))

    @classmethod
    def sections(cls) -> dict[str, type[Section]]:
        """Return the sections of the engines, but for those of broken packages, which are told to who asks for them."""
        found = {}
        for name in REFERENCES.names():
            with contextlib.suppress(ConfigError):
                found[name] = engine_of(name).settings
        return {name: settings for name, settings in found.items() if settings is not None}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema with the sections of all engines that are there."""
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
        """Put its key to what may be a section; null is none (older copies of campaigns have it)."""
        if not isinstance(given, Mapping):
            return given
        fields = {key: value for key, value in given.items() if key in cls.model_fields}
        others = {key: value for key, value in given.items() if key not in fields}
        return fields | {k: _Keyed(k, v) for k, v in others.items() if v is not None or k not in REFERENCES}

    @model_validator(mode="after")
    def _says_what_its_engine_wants(self) -> Reference:
        engine = engine_of(self.engine)
        wanted = engine.needs | ({self.engine} if engine.settings is not None else set())
        given = {key for key in ("calculator", "command") if getattr(self, key) is not None}
        given |= {*(self.model_extra or ())}
        if given != wanted:
            raise ValueError(f"engine {self.engine} with {sorted(given) or 'nothing'} - wanted {sorted(wanted)} of it")
        return self

    @model_validator(mode="after")
    def _has_dispersion_once(self) -> Reference:
        if self.d3 is None:
            return self
        if self.includes_dispersion:
            raise ValueError("d3 on a reference with includes_dispersion: true - wanted dispersion once, not twice")
        self.d3.want_parameters_of(self.functional)
        return self

    @model_validator(mode="after")
    def _engine_has_no_objection(self) -> Reference:
        engine_of(self.engine).check_settings(self)
        return self


class Driver(Reference):
    """What moves the atoms of the initial data in place of the reference: any fast potential. It labels nothing."""

    where: ClassVar[str] = "initial.md.driver"
    identity_file: ClassVar[str] = "driver.json"

    functional: str = Field(default="none", description="What it reproduces, such as PBE; its labels are not used.")
    includes_dispersion: bool = Field(default=False, description="Whether dispersion is already in it.")
    stress: bool = Field(default=False, description="Not asked for: the cell does not change.")


def plain_functional(functional: str) -> str:
    """Return the name of a functional without the marks that people write differently."""
    return functional.replace("-", "").replace("_", "").lower()


class Label(Section):
    """The reference and what makes one of its labels acceptable."""

    reference: Reference
    max_force: Annotated[PositiveFloat, of("largest force of a label")] = Field(
        default=50.0, description="A larger force on any atom refuses the label (eV/Å)."
    )
    max_net_force: Annotated[PositiveFloat, of("net force")] = Field(
        default=0.05, description="Largest |sum of forces| / n_atoms (eV/Å)."
    )
    max_energy_spread: Annotated[PositiveFloat, of("spread of energies")] | None = Field(
        default=5.0, description="Farthest from the median of its formula in the iteration (eV/atom); null: any."
    )
    ledger: FolderPath | None = Field(
        default=None, description="A shared ledger folder; null: labels/ of the campaign."
    )
