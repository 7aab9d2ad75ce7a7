"""A campaign with all of its sections."""

from __future__ import annotations

from typing import Any

from pydantic import Field, NonNegativeInt, SerializerFunctionWrapHandler, model_serializer, model_validator

from activelearn.config.benchmark import Benchmark
from activelearn.config.exploring import Initial, System
from activelearn.config.glass import Glass
from activelearn.config.labelling import Label
from activelearn.config.potential import Potential
from activelearn.config.section import Document, Element, Name
from activelearn.config.selecting import Select, Stop
from activelearn.config.stages import Explore, Stage
from activelearn.config.teaching import Teacher
from activelearn.config.trainer import trainer_of
from activelearn.config.training import AnyTrain, FinalModels, default_train


class Campaign(Document):
    """A whole campaign."""

    name: Name
    description: str = ""
    random_seed: NonNegativeInt = 1
    type_map: tuple[Element, ...] = Field(min_length=1, description="Elements in the order of the models' atom types.")
    initial: Initial
    explore: Explore
    select: Select = Select()
    label: Label
    train: AnyTrain = Field(default_factory=default_train)
    teacher: Teacher | None = Field(
        default=None,
        description="A model that learns from the reference, then labels in its place for `train`; null: none.",
    )
    stop: Stop = Stop()
    final: FinalModels = FinalModels()
    glass: Glass | None = Field(default=None, description="Melt-quench with the final models; null: none.")
    benchmark: Benchmark | None = Field(default=None, description="Properties to measure with them; null: nothing.")
    potentials: tuple[Potential, ...] = Field(
        default=(), description="Other potentials for the same glass and benchmark."
    )

    @model_validator(mode="before")
    @classmethod
    def _walks_from_labels(cls, given: Any) -> Any:  # noqa: ANN401 - raw YAML
        """Start walks from frames of the data set if there are no systems, unless a stage sets its start."""
        try:
            explore = given["explore"]
            if given["initial"].get("systems") or explore.get("systems"):
                return given
            stages = [{"start": "dataset", **stage} for stage in explore["stages"]]
        except (TypeError, KeyError, AttributeError):
            return given  # its problems are reported by its fields
        return {**given, "explore": {**explore, "stages": stages}}

    @model_validator(mode="after")
    def _check(self) -> Campaign:
        if len(set(self.type_map)) < len(self.type_map):
            raise ValueError(f"type_map names an element twice: {list(self.type_map)}")
        for line in trainer_of(self.train).contradictions(self.train, self.type_map):
            raise ValueError(line)
        if self.teacher is not None:
            for line in trainer_of(self.teacher.train).contradictions(self.teacher.train, self.type_map):
                raise ValueError(f"teacher.{line}")
        relax = self.initial.relax
        if not self.label.reference.stress and relax is not None and relax.cell:
            raise ValueError(
                "initial.relax.cell: true relaxes to zero stress, but label.reference.stress is false: there is "
                "none - expected initial.relax.cell: false, or a reference with stress"
            )
        n_systems = len(self.explored_systems)
        for stage in self.explore.stages:
            if not n_systems and stage.start == "systems":
                raise ValueError(
                    f"explore stage {stage.name} starts from systems, but there are none - expected start: dataset "
                    "(walks from the labelled structures), or explore.systems"
                )
            if stage.systems and max(stage.systems) >= n_systems:
                raise ValueError(
                    f"explore stage {stage.name} names system {max(stage.systems)} of {n_systems} (from 0)"
                )
        return self

    @model_validator(mode="after")
    def _check_windows(self) -> Campaign:
        """Require the window of a stage to be within that of `select`: below that, a frame is accurate in any stage."""
        whole = self.select.f_lo, self.select.f_hi
        for stage in self.explore.stages:
            f_lo, f_hi = stage.window(whole)
            if stage.has_window and self.select.window != "fixed":
                raise ValueError(
                    f"explore stage {stage.name} has its own window, but select.window: {self.select.window} "
                    "determines one for all - expected select.window: fixed, or no f_lo and f_hi in stages"
                )
            if not whole[0] <= f_lo < f_hi <= whole[1]:
                raise ValueError(
                    f"explore stage {stage.name} has the window {f_lo:g} to {f_hi:g} eV/Å - expected it to be within "
                    f"that of select, {whole[0]:g} to {whole[1]:g} - widen select.f_lo and f_hi, or narrow the stage's"
                )
        return self

    @model_serializer(mode="wrap")
    def _without_a_teacher_that_is_not_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave the teacher out if there is none: campaigns without one keep their checksum."""
        found: dict[str, Any] = handler(self)
        return found if self.teacher is not None else {key: found[key] for key in found if key != "teacher"}

    @property
    def of_teacher(self) -> Campaign:
        """The campaign whose models are those of its teacher, which has none itself.

        Raises
        ------
        ValueError
            There is no teacher.
        """
        if self.teacher is None:
            raise ValueError(f"campaign {self.name} has no teacher")
        return self.model_copy(update={"train": self.teacher.train, "teacher": None})

    @property
    def min_height_A(self) -> float:
        """Smallest perpendicular height of a cell, Å."""
        return self.initial.min_height_A or self.cutoff_A

    @property
    def cutoff_A(self) -> float:
        """The longest cutoff of the models, Å."""
        return max(shell.rcut for shell in trainer_of(self.train).shells(self.train))

    @property
    def systems(self) -> list[System]:
        """Every system that is used as a start, those of the initial data first, each once."""
        return list({s.key: s for s in (*self.initial.systems, *self.explored_systems)}.values())

    @property
    def explored_systems(self) -> tuple[System, ...]:
        """The systems from which walks start."""
        return self.explore.systems or self.initial.systems

    def stage(self, name: str) -> Stage:
        """Return the stage of this name."""
        return next(stage for stage in self.explore.stages if stage.name == name)
