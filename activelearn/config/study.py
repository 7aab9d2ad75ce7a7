"""A study: potentials, their glasses, and what is measured of both."""

from __future__ import annotations

from typing import Any

from pydantic import Field, NonNegativeInt, model_validator

from activelearn.config.benchmark import UNUSED_OF_LABEL, Benchmark, Cited
from activelearn.config.glass import Composition, Glass, Series
from activelearn.config.labelling import Label
from activelearn.config.paths import FolderPath
from activelearn.config.potential import Potential
from activelearn.config.section import Document, Name, Section


class OwnGlasses(Section):
    """Glasses that one has, which are measured instead of any that potentials would make."""

    files: tuple[FolderPath, ...] = Field(
        min_length=1,
        description="Structure files (extended XYZ or another format that ASE reads), or folders of studies.",
    )
    series: Series
    x: tuple[float, ...] | None = Field(
        default=None, min_length=1, description="Their compositions; null: any of the series."
    )

    @property
    def compositions(self) -> tuple[Composition, ...]:
        """The compositions that there may be."""
        return tuple(c for c in self.series.compositions if self.x is None or c.x in self.x)


class Study(Document):
    """A whole study; in a campaign, what follows the final models."""

    name: Name
    random_seed: NonNegativeInt = 1
    potentials: tuple[Potential, ...] = Field(description="Potentials to compare; may be empty with `glasses`.")
    glass: Glass | None = None
    glasses: OwnGlasses | None = Field(default=None, description="Existing glasses, instead of making any.")
    benchmark: Benchmark | None = None
    cited: tuple[Cited, ...] = Field(default=(), description="Published numbers that results are compared with.")

    @model_validator(mode="after")
    def _check(self) -> Study:
        slugs = [potential.slug.lower() for potential in self.potentials]
        if len(set(slugs)) < len(slugs):
            raise ValueError(f"potentials need different names, got {[p.name for p in self.potentials]}")
        if not self.potentials and self.glasses is None:
            raise ValueError("potentials: none - expected one or more, or existing `glasses`")
        if self.glass is not None and self.glasses is not None:
            raise ValueError("both glass and glasses - expected one of them: glasses to make, or existing ones")
        if self.glasses is not None and self.benchmark is None:
            raise ValueError("glasses without benchmark - expected the properties to measure on them")
        if self.glass is None and self.benchmark is None:
            raise ValueError("neither glass nor benchmark - expected at least one of them, else there is nothing to do")
        return self

    @property
    def melt_quench(self) -> Glass:
        """How its glasses are made; raises ValueError if it makes none."""
        if self.glass is None:
            raise ValueError(f"study {self.name} makes no glasses")
        return self.glass

    @property
    def of_glasses(self) -> Glass | OwnGlasses | None:
        """The section of its glasses, made or given: their series and compositions; None: it has none."""
        return self.glass or self.glasses

    @property
    def true_label(self) -> Label | None:
        """What labels frames of the paths of its glasses; None: nothing does, or there are no glasses."""
        asked = self.benchmark.force_error if self.benchmark is not None and self.of_glasses is not None else None
        asked = asked if self.potentials else None  # of which the errors would be
        return asked.label if asked is not None else None

    def computed(self) -> dict[str, Any]:
        """Return it as JSON without what affects no number: where and how its reference runs, and unused settings.

        With another interpreter for the reference it is the same study: no glass is made again.
        """
        found = self.model_dump(mode="json")
        label = self.benchmark.force_error.label if self.benchmark is not None and self.benchmark.force_error else None
        if label is not None:
            settings = found["benchmark"]["force_error"]["label"]
            for name in UNUSED_OF_LABEL:
                settings.pop(name)
            for key in label.reference.movable:
                *sections, last = key.split(".")
                within = settings["reference"]
                for section in sections:
                    within = within.get(section) or {}
                within.pop(last, None)
        return found

    def potential(self, name: str) -> Potential:
        """Return the potential of this name."""
        return next(potential for potential in self.potentials if potential.name == name)
