"""The section ``train`` of a campaign whose members are fine-tuned from a foundation of SevenNet."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from activelearn.config.paths import FilePath
from activelearn.config.program import Program, loads_a_file
from activelearn.engines.trainers.finetuning.settings import FineTuned


class SevenNetTrain(FineTuned):
    """An ensemble of fine-tuned SevenNets: members differ in the order of the data, and by `weight_noise`."""

    trainer: Literal["sevennet"] = "sevennet"
    foundation: Annotated[FilePath, Program(loads_a_file)] = Field(
        default="7net-0",
        description="Foundation that every member starts from: a name known to sevenn, or the path of a checkpoint.",
    )
    modal: str | None = Field(
        default=None, description="For a foundation with several modals (7net-mf-0: PBE, R2SCAN): that of the labels."
    )
