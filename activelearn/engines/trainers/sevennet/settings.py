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
    """The learning rate, which decays exponentially from start to stop over a training."""

    start: Rate = 1.0e-3
    stop: Rate = 1.0e-5
    warm_start: Rate | None = Field(default=None, description="Start of a warm-started training; null: start.")

    @model_validator(mode="after")
    def _check(self) -> FineTuningRate:
        for name in ("start", "warm_start"):
            value = getattr(self, name)
            if value is not None and value < self.stop:
                raise ValueError(f"stop = {self.stop:g} is above {name} = {value:g} - expected a decreasing rate")
        return self


class SevenNetTrain(Train):
    """An ensemble of fine-tuned SevenNets: members differ in the order of the data, and by `weight_noise`."""

    trainer: Literal["sevennet"] = "sevennet"
    foundation: Annotated[FilePath, Program(loads_a_file)] = Field(
        default="7net-0",
        description="Foundation that every member starts from: a name known to sevenn, or the path of a checkpoint.",
    )
    modal: str | None = Field(
        default=None, description="For a foundation with several modals (7net-mf-0: PBE, R2SCAN): that of the labels."
    )
    n_steps: GradientSteps = Field(default=1000, description="Gradient steps, not epochs.")
    batch_size: Annotated[PositiveInt, of("number of frames a batch")] = 4
    learning_rate: FineTuningRate = FineTuningRate()
    force_weight: Weight = Field(
        default=1.0, description="Weight of the forces (eV/Å) in the loss; that of the energy (eV per atom) is 1."
    )
    stress_weight: Weight = Field(default=0.01, description="Weight of the stress (kbar) in the loss.")
    shift: Literal["refit", "keep"] = Field(
        default="refit",
        description="Energies of the elements: fitted to the labels before the first step, or those of the foundation.",
    )
    weight_noise: Share = Field(
        default=0.0,
        lt=0.5,
        description="Standard deviation of random factors on the weights, which make the members differ at the start.",
    )
