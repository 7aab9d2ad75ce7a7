"""Where a campaign starts: its systems and its initial data."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from activelearn.config.bounds import of
from activelearn.config.files import preset_names
from activelearn.config.labelling import Driver
from activelearn.config.packing import Packed
from activelearn.config.paths import StructurePath
from activelearn.config.section import (
    ForceLeft,
    Fraction,
    Pair,
    Section,
    Temperature,
    is_sealed,
    want_different,
    want_pairs_once,
)

Repetitions = Annotated[PositiveInt, of("number of repetitions")]


class System(Section):
    """A start of walks or initial data: a crystal, or an amorphous packing."""

    seed: StructurePath | None = Field(
        default=None, description="Id of a seed (see `activelearn seeds`), or a file that ASE can read: CIF, POSCAR ..."
    )
    packed: Packed | None = Field(default=None, description="Formula units packed at a density by Packmol.")
    n_packings: Annotated[PositiveInt, of("number of packings")] = Field(
        default=1, description="Number of different packings of a `packed` system."
    )
    supercell: tuple[Repetitions, Repetitions, Repetitions] | None = Field(
        default=None, description="Repetitions along a, b, c; null: the smallest with every height >= min_height_A."
    )
    n_atoms: Annotated[PositiveInt, of("number of atoms of a labelled cell")] | None = Field(
        default=None,
        description="Instead of `supercell`: the smallest cell, as cubic as possible, with at least this many atoms.",
    )
    sha256: str | None = Field(
        default=None,
        description="Checksum of the file; filled in when a campaign is read, to make it part of the campaign.",
    )

    @model_validator(mode="after")
    def _check(self) -> System:
        if (self.seed is None) == (self.packed is None):
            raise ValueError(
                "a system is either a `seed` (crystal or file) or `packed` (amorphous), exactly one of them"
            )
        if self.packed is not None and (self.supercell or self.n_atoms):
            raise ValueError("supercell and n_atoms belong to a seed; the size of a packing is set in `packed`")
        if self.packed is None and self.n_packings > 1:
            raise ValueError("n_packings applies only to a `packed` system")
        if self.supercell is not None and self.n_atoms is not None:
            raise ValueError("supercell and n_atoms both set the size: give only one of them")
        return self

    @property
    def key(self) -> str:
        """Short checksum of the whole system, by which its preparations are found."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        """Short human-readable name."""
        if self.packed is not None:
            return "+".join(f"{n:g}{formula}" for formula, n in self.packed.units.items())
        return Path(self.seed or "").name


class Relax(Section):
    """Relaxation with the reference before a structure is used."""

    fmax: ForceLeft = Field(default=0.01, description="Force convergence criterion (eV/Å).")
    max_steps: Annotated[PositiveInt, of("number of relaxation steps")] = 300
    cell: bool = Field(default=True, description="Relax the cell as well.")
    frame_every_A: Annotated[PositiveFloat, of("displacement between frames of a relaxation")] | None = Field(
        default=None,
        description="Train also on the path of the relaxation, which the reference has computed anyway: on its first "
        "frame, and on one whenever an atom has moved this far (Å) since the last of them; null: not.",
    )

    @model_serializer(mode="wrap")
    def _without_what_is_not_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit the frames of the path if there are none, so that campaigns without them keep their checksum."""
        found: dict[str, Any] = handler(self)
        return {key: value for key, value in found.items() if key != "frame_every_A" or value is not None}


class Isolated(Section):
    """Isolated atoms and dimers in a large box: they prevent atoms from collapsing onto each other."""

    atoms: bool = Field(default=True, description="Each isolated element (not every reference can compute it).")
    dimers: bool | tuple[Pair, ...] = Field(default=True, description="true: every pair of elements; or a list.")
    distances: tuple[Annotated[PositiveFloat, of("distance in sums of covalent radii")], ...] = Field(
        default=(0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0),
        description="Distances in units of the sum of the covalent radii.",
    )
    box_A: Annotated[PositiveFloat, of("edge of the box of isolated atoms")] = Field(
        default=15.0, description="Edge of the cubic box (Å)."
    )

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Isolated:
        want_different("isolated.distances", self.distances)
        if isinstance(self.dimers, tuple) and not is_sealed(info):
            want_pairs_once("isolated.dimers", self.dimers)
        return self


class Perturb(Section):
    """Random distortion of a starting structure."""

    positions_A: Annotated[NonNegativeFloat, of("displacement")] = Field(
        default=0.01, description="Largest displacement per Cartesian axis (Å)."
    )
    cell_fraction: Annotated[NonNegativeFloat, of("strain of a distortion")] = Field(
        default=0.03, description="Largest entry of the symmetric strain."
    )


def _kind_of_driver(given: object) -> str:
    """Return which of the two kinds a driver is, so that problems are reported only for that kind."""
    return "self" if isinstance(given, str) else "driver"


_DRIVER = Annotated[Driver, Tag("driver")]
_SELF = Annotated[Literal["self"], Tag("self")]


def _with_names(schema: dict[str, Any]) -> None:
    """Add to the schema what a YAML may name, which has replaced the name when a campaign is validated."""
    names = ["self", *sorted({*preset_names("label"), *preset_names("potential")})]
    file = {"type": "string", "pattern": r"\.ya?ml$", "description": "A file in the form of such a preset."}
    calculator, null = schema["anyOf"]
    mapping = next(one for one in calculator["oneOf"] if "$ref" in one)
    schema["anyOf"] = [mapping, {"type": "string", "enum": names}, file, null]


class ReferenceMD(Section):
    """Short molecular dynamics with the reference itself or with a driver; every kept frame is labelled."""

    n_steps: Annotated[PositiveInt, of("number of MD steps")] = 10
    every: Annotated[PositiveInt, of("number of steps between frames")] = Field(
        default=1, description="Keep every n-th step."
    )
    timestep_fs: Annotated[PositiveFloat, of("time step")] = 1.0
    temperatures_K: tuple[Temperature, ...] = Field(default=(300.0,), min_length=1)
    friction_per_ps: Annotated[PositiveFloat, of("friction")] = Field(
        default=10.0, description="Langevin friction (1/ps)."
    )
    driver: Annotated[_DRIVER | _SELF, Discriminator(_kind_of_driver)] | None = Field(
        default=None,
        json_schema_extra=_with_names,
        description="Moves the atoms, while the reference labels only the kept frames: a preset of params/label/ or "
        "params/potential/, a YAML like one, or an ASE calculator as in label.reference; self: a model trained on the "
        "perturbed copies; null: the reference itself, at every step.",
    )

    @model_serializer(mode="wrap")
    def _without_what_is_not_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit the driver if there is none, so that campaigns without it keep their checksum."""
        found: dict[str, Any] = handler(self)
        return found if self.driver is not None else {key: found[key] for key in found if key != "driver"}

    @property
    def n_kept(self) -> int:
        """Frames kept of a complete trajectory, including its start."""
        return self.n_steps // self.every + 1

    @property
    def n_calls(self) -> int:
        """Force evaluations of a complete trajectory, including its start."""
        return self.n_steps // self.every * self.every + 1


class Initial(Section):
    """Initial data: crystals and packings, relaxed, scaled, perturbed, and moved by short MD."""

    systems: tuple[System, ...] = Field(default=(), description="May be empty with from_ledger.")
    relax: Relax | None = Field(default=None, description="Relax crystals with the reference first; null: do not.")
    relax_packed: Relax | None = Field(
        default=Relax(fmax=0.5, max_steps=100, cell=False), description="The same for packings; null: as packed."
    )
    isolated: Isolated | None = Field(default=None, description="Isolated atoms and dimers; null: none.")
    min_height_A: Annotated[PositiveFloat, of("height of a cell")] | None = Field(
        default=None, description="Smallest perpendicular height of a cell (Å); null: the cutoff of the descriptor."
    )
    scales: tuple[Annotated[PositiveFloat, of("scale of lengths")], ...] = Field(
        default=(0.95, 1.0, 1.05), description="Linear scale factors."
    )
    perturb: Perturb = Perturb()
    copies: Annotated[PositiveInt, of("number of copies")] = Field(
        default=10, description="Perturbed copies per system, scale (and MD temperature)."
    )
    md: ReferenceMD | None = Field(default=ReferenceMD(), description="null: label only the perturbed frames.")
    held_out_fraction: Annotated[Fraction, of("share of held-out frames")] = Field(
        default=0.15, description="Share of the initial trajectories kept for validation, never trained on."
    )
    from_ledger: bool | tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{6,64}$")], ...] = Field(
        default=False,
        description="true: use labels of the same reference in label.ledger; a list: of these references, too.",
    )

    @model_validator(mode="after")
    def _check(self) -> Initial:
        if not self.systems and not self.from_ledger:
            raise ValueError(
                "systems is empty - expected at least one, or from_ledger: true to start with the labels of "
                "label.ledger"
            )
        want_different("scales", self.scales)
        want_different("md.temperatures_K", self.md.temperatures_K if self.md is not None else ())
        return self

    @property
    def cells(self) -> list[tuple[int, float, float | None]]:
        """(system, scale, MD temperature) of every family of copies; None: they are labelled without MD."""
        temperatures: tuple[float | None, ...] = () if self.md is None else self.md.temperatures_K
        if self.md is None or self.drives_itself:
            temperatures = (None, *temperatures)
        return [(i, s, t) for i in range(len(self.systems)) for s in self.scales for t in temperatures]

    @property
    def drives_itself(self) -> bool:
        """Whether the first models move the atoms (driver self)."""
        return self.md is not None and self.md.driver == "self"

    @property
    def n_moved(self) -> int:
        """Trajectories of MD."""
        return self.copies * sum(temperature_K is not None for *_, temperature_K in self.cells)

    @property
    def n_still(self) -> int:
        """Copies that are labelled without MD."""
        return self.copies * len(self.cells) - self.n_moved

    @property
    def n_frames(self) -> int:
        """Frames that are labelled if no trajectory fails, excluding isolated atoms and dimers."""
        return self.n_still + (0 if self.md is None else self.n_moved * self.md.n_kept)
