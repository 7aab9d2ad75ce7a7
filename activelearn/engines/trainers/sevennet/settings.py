"""The section ``train`` of a campaign whose members are fine-tuned from a foundation of SevenNet."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from activelearn.config.bounds import of
from activelearn.config.paths import FilePath
from activelearn.config.program import Program, loads_a_file
from activelearn.config.section import Section, Share
from activelearn.config.training import GradientSteps, Train

Rate = Annotated[PositiveFloat, of("learning rate")]
Weight = Annotated[NonNegativeFloat, of("prefactor of the loss")]


class FineTuningRate(Section):
    """The learning rate, which falls exponentially from start to stop over the steps of a training."""

    start: Rate = 1.0e-3
    stop: Rate = 1.0e-5
    warm_start: Rate | None = Field(default=None, description="Start of a warm-started training; null: start.")

    @model_validator(mode="after")
    def _check(self) -> FineTuningRate:
        for name in ("start", "warm_start"):
            value = getattr(self, name)
            if value is not None and value < self.stop:
                raise ValueError(f"stop = {self.stop:g} is above {name} = {value:g} - expected a rate that falls")
        return self


class SevenNetTrain(Train):
    """An ensemble of fine-tuned SevenNets: members differ in the order of the data, and by `weight_noise`."""

    trainer: Literal["sevennet"] = "sevennet"
    foundation: Annotated[FilePath, Program(loads_a_file)] = Field(
        default="7net-0", description="What every member begins as: a name of sevenn's, or the path of a checkpoint."
    )
    modal: str | None = Field(
        default=None, description="Of a foundation that knows several (7net-mf-0: PBE, R2SCAN): that of the labels."
    )
    n_steps: GradientSteps = Field(default=1000, description="Gradient steps, not epochs.")
    batch_size: Annotated[PositiveInt, of("number of frames a batch")] = 4
    learning_rate: FineTuningRate = FineTuningRate()
    force_weight: Weight = Field(default=1.0, description="Of the forces (eV/Å) in the loss; of eV an atom it is 1.")
    stress_weight: Weight = Field(default=0.01, description="Of the stress (kbar) in the loss.")
    shift: Literal["refit", "keep"] = Field(
        default="refit",
        description="Energies of the elements: fitted to the labels before the first step, or the foundation's.",
    )
    weight_noise: Share = Field(
        default=0.0,
        lt=0.5,
        description="Standard deviation of the factors on the weights, by which each member begins apart.",
    )
