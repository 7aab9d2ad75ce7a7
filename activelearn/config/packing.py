"""Amorphous cells: what is packed, how much, and at which density."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from activelearn.config.bounds import of
from activelearn.config.paths import FilePath
from activelearn.config.section import Section

Formula = Annotated[str, Field(pattern=r"^([A-Z][a-z]?([1-9][0-9]*)?)+$")]


class Packed(Section):
    """Formula units packed at random into a periodic cube."""

    units: dict[Formula, Annotated[PositiveFloat, of("amount of a unit")]] = Field(
        min_length=1, description="Relative amounts by formula, such as {Na2S: 1.5, P2S5: 0.5}."
    )
    n_atoms: Annotated[PositiveInt, of("number of atoms of a labelled cell")] | None = Field(
        default=None, description="Target number of atoms; the nearest number with exact stoichiometry is used."
    )
    n_units: Annotated[PositiveInt, of("number of formula units of a labelled cell")] | None = Field(
        default=None, description="Exact multiple of the amounts of `units`; instead of n_atoms."
    )
    density_g_cm3: Annotated[PositiveFloat, of("density")] = Field(
        description="Density of the cell (g/cm3), kept exactly."
    )
    tolerance_A: Annotated[PositiveFloat, of("distance of packed units")] = Field(
        default=2.0, description="Packmol's shortest distance between atoms of different units (Å)."
    )
    geometry: dict[Formula, FilePath] = Field(
        default={},
        description="xyz files of units packed as rigid molecules; they take precedence over those of params/units/. "
        "A unit without any is packed as single atoms.",
    )
    sha256: dict[Formula, str] = Field(
        default={}, description="Checksums of these files; filled in when a campaign is read."
    )

    @model_validator(mode="after")
    def _check(self) -> Packed:
        if (self.n_atoms is None) == (self.n_units is None):
            got = "none" if self.n_atoms is None else "both"
            raise ValueError(f"got {got} of n_atoms and n_units - expected exactly one")
        for name, files in (("geometry", self.geometry), ("sha256", self.sha256)):
            strangers = sorted(set(files) - set(self.units))
            if strangers:
                raise ValueError(
                    f"{name} contains {', '.join(strangers)} - expected formulas of units: {[*self.units]}"
                )
        return self
