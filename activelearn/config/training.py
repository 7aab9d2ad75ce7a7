"""The ensemble: settings common to all trainers. Each trainer adds its own ``settings``, found by ``trainer``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    PositiveInt,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails

from activelearn.config.bounds import of
from activelearn.config.section import NumberOfLabels, Section

GradientSteps = Annotated[PositiveInt, of("number of gradient steps")]


class Train(Section):
    """The ensemble: members differ only in the random seed."""

    trainer: str = Field(default="deepmd", description="The trainer: a name of activelearn.trainers.")
    n_members: Annotated[int, of("number of models")] = Field(default=4, ge=2)
    n_steps: GradientSteps = 500_000
    warm_start: bool = Field(default=False, description="Start from the previous iteration's members.")
    warm_n_steps: GradientSteps | None = Field(default=None, description="Steps of a warm start; null: n_steps.")
    min_new_frames: NumberOfLabels = Field(
        default=1, description="Models are retrained once this many new frames have accumulated."
    )
    compress: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="Explore with compressed models; auto: if it pays off, judged by atoms and network size alone.",
    )

    def label_weight(self, element: str) -> float:  # noqa: ARG002 - of trainers that weigh elements
        """Return the weight of the squared force error of an element in the loss."""
        return 1.0

    def trains_like(self, other: Train) -> bool:
        """Return whether trainings with these settings and with `other` are equal, ignoring what only affects walks."""
        return self.model_copy(update={"compress": other.compress}) == other

    @classmethod
    def kinds(cls) -> dict[str, type[Train]]:
        """Return the sections of all available trainers, by name."""
        from activelearn.config.trainer import all_trainers

        return {name: found.settings for name, found in all_trainers()}

    @classmethod
    def alternatives(cls) -> list[type[Section]]:
        """Return the sections that may replace it."""
        return [*cls.kinds().values()] if cls is Train else []

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema of the sections of all available trainers."""
        if cls is not Train:
            return handler(schema)
        return {"anyOf": [handler(kind.__pydantic_core_schema__) for kind in cls.kinds().values()]}


def _of_its_trainer(given: Any, _: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Train:  # noqa: ANN401 - raw YAML
    """Return a section `train` as the section of the trainer that it names."""
    from activelearn.config.trainer import DEFAULT, TRAINERS

    if isinstance(given, Train):
        return given
    name = given.get("trainer", DEFAULT) if isinstance(given, Mapping) else DEFAULT
    if not isinstance(name, str) or name not in TRAINERS:
        *names, last = map(repr, TRAINERS.names())
        there = f"{', '.join(names)} or {last}" if names else last
        expected = {"expected": f"{there} (or the package that adds it)"}
        wrong: InitErrorDetails = {"type": "literal_error", "loc": ("trainer",), "input": name, "ctx": expected}
        raise ValidationError.from_exception_data("train", [wrong])
    made: Train = TRAINERS.find(name).settings.model_validate(given, context=info.context)
    return made


#: A field that holds the section `train` of any trainer.
AnyTrain = Annotated[SerializeAsAny[Train], WrapValidator(_of_its_trainer)]


def default_train() -> Train:
    """Return the default section of a campaign."""
    from activelearn.config.trainer import DEFAULT, TRAINERS

    made: Train = TRAINERS.find(DEFAULT).settings()
    return made


class FinalModels(Section):
    """What happens to the last ensemble."""

    n_steps: GradientSteps | None = Field(
        default=None, description="Number of steps to train from scratch; null: keep the ensemble."
    )
    compress: bool = True
    keep: Literal["better", "trained"] = Field(
        default="better",
        description="Use the better of final and loop models on the held-out set, or always the final models.",
    )
