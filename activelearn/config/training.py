"""The ensemble: what is the same for all trainers. What each adds is its own ``settings``, found by ``trainer``."""

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
    """The ensemble: members differ in the random seed only."""

    trainer: str = Field(default="deepmd", description="What trains it: a name of activelearn.trainers.")
    n_members: Annotated[int, of("number of models")] = Field(default=4, ge=2)
    n_steps: GradientSteps = 500_000
    warm_start: bool = Field(default=False, description="Start from the previous iteration's members.")
    warm_n_steps: GradientSteps | None = Field(default=None, description="Steps of a warm start; null: n_steps.")
    min_new_frames: NumberOfLabels = Field(default=1, description="Fewer new frames wait for the next training.")
    compress: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="Explore with compressed models: auto where it pays, by atoms and size of the network alone.",
    )

    def label_weight(self, element: str) -> float:  # noqa: ARG002 - of trainers that weigh elements
        """Return how many times the squared force error of an element counts in the loss."""
        return 1.0

    def trains_like(self, other: Train) -> bool:
        """Return whether a training with these settings is that with `other`: what drives walks has no say in it."""
        return self.model_copy(update={"compress": other.compress}) == other

    @classmethod
    def kinds(cls) -> dict[str, type[Train]]:
        """Return the sections of all trainers that are there, by name."""
        from activelearn.config.trainer import all_trainers

        return {name: found.settings for name, found in all_trainers()}

    @classmethod
    def alternatives(cls) -> list[type[Section]]:
        """Return the sections that may stand in its place."""
        return [*cls.kinds().values()] if cls is Train else []

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema of the sections of all trainers that are there."""
        if cls is not Train:
            return handler(schema)
        return {"anyOf": [handler(kind.__pydantic_core_schema__) for kind in cls.kinds().values()]}


def _of_its_trainer(given: Any, _: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Train:  # noqa: ANN401 - raw YAML
    """Return a section `train` as that of the trainer that it names."""
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
    """Return the section of a campaign that has none."""
    from activelearn.config.trainer import DEFAULT, TRAINERS

    made: Train = TRAINERS.find(DEFAULT).settings()
    return made


class FinalModels(Section):
    """What is done with the last ensemble."""

    n_steps: GradientSteps | None = Field(default=None, description="Train anew for so many steps; null: keep it.")
    compress: bool = True
    keep: Literal["better", "trained"] = Field(
        default="better",
        description="Of models trained anew and those of the loop: the better by the held-out set, or the former.",
    )
