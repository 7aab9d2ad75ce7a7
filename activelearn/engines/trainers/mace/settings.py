"""The section ``train`` of a campaign whose members are fine-tuned from a foundation of MACE."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from activelearn.config.paths import FilePath
from activelearn.config.program import Program, loads_a_file
from activelearn.engines.trainers.finetuning.settings import FineTuned, FineTuningRate, Weight


class MaceTrain(FineTuned):
    """An ensemble of fine-tuned MACEs: members differ in the order of the data, and by `weight_noise`."""

    trainer: Literal["mace"] = "mace"
    foundation: Annotated[FilePath, Program(loads_a_file)] = Field(
        description="What every member begins as: the path of a model of MACE (.model). It is a pickle, and so a "
        "program: it is loaded in the interpreter that trains, and nowhere else."
    )
    head: str | None = Field(default=None, description="For a foundation with several heads: that of the labels.")
    learning_rate: FineTuningRate = FineTuningRate(start=1.0e-4, stop=1.0e-6)
    force_weight: Weight = Field(
        default=100.0, description="Weight of the squared force errors ((eV/Å)^2) in the loss."
    )
    stress_weight: Weight = Field(
        default=1.0, description="Weight of the squared stress errors ((eV/Å^3)^2) in the loss."
    )
    precision: Literal["float32", "float64"] = Field(
        default="float64",
        description="Precision of the training and the models: walks in float32 take about half the time.",
    )
