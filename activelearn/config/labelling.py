"""The reference: what labels, and what makes a label acceptable."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveFloat

from activelearn.config.section import Section


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
