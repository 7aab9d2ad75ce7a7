"""What sections `train` have in common whose members are fine-tuned from a foundation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from activelearn.config.bounds import of
from activelearn.config.paths import FilePath
from activelearn.config.section import Section, Share
from activelearn.config.training import GradientSteps, Train

Rate = Annotated[PositiveFloat, of("learning rate")]
Weight = Annotated[NonNegativeFloat, of("prefactor of the loss")]
FramesOfStep = Annotated[PositiveInt, of("number of frames a batch")]


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
                raise ValueError(f"stop = {self.stop:g} is above {name} = {value:g} - expected a decreasing rate")
        return self


class Replay(Section):
    """Structures that are learnt along with the labels, so that the foundation does not forget what it knows."""

    file: FilePath = Field(description="Structures that ASE reads, such as extended XYZ.")
    labels: Literal["foundation", "own"] = Field(
        default="foundation",
        description="Whose: those that the foundation gives them before the first step, or those of the file, which a "
        "second head learns (of MACE).",
    )
    n_frames: FramesOfStep = Field(default=1, description="Number per step, in addition to batch_size labelled frames.")


class FineTuned(Train):
    """An ensemble of fine-tuned foundations: members differ in the order of the data, and by `weight_noise`."""

    foundation: str
    n_steps: GradientSteps = Field(default=1000, description="Gradient steps, not epochs.")
    batch_size: FramesOfStep = 4
    learning_rate: FineTuningRate = FineTuningRate()
    force_weight: Weight = Field(
        default=1.0, description="Weight of the forces (eV/Å) in the loss; that of the energy (eV/atom) is 1."
    )
    stress_weight: Weight = Field(default=0.01, description="Weight of the stress (kbar) in the loss.")
    shift: Literal["refit", "keep"] = Field(
        default="refit",
        description="Energies of the elements: fitted to the labels before the first step, or the foundation's.",
    )
    weight_noise: Share = Field(
        default=0.0,
        lt=0.5,
        description="Standard deviation of the factors on the weights, by which each member begins apart.",
    )
    replay: Replay | None = None
