"""The section ``teacher`` of a campaign: a fast potential that learns from the reference and labels in its place."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt, model_validator

from activelearn.config.bounds import of
from activelearn.config.exploring import ReferenceMD
from activelearn.config.section import ForceDeviation, Section, want_different
from activelearn.config.training import AnyTrain


class Teacher(Section):
    """A committee that is trained on the labels of the reference, and then labels frames of its own walks.

    Walks begin at training frames; the first member drives them. The label is the mean over the members, and counts
    where these agree.
    """

    train: AnyTrain = Field(description="How it is trained, as `train`: {preset: sevennet_finetune}.")
    max_devi_f: ForceDeviation = Field(
        default=0.3, description="Frames with a force deviation of the committee below this are labelled (eV/Å)."
    )
    n_walks: Annotated[PositiveInt, of("number of walks")] = Field(default=2, description="At each temperature.")
    md: ReferenceMD = Field(
        default=ReferenceMD(n_steps=400, every=20, timestep_fs=2.0, temperatures_K=(300.0, 600.0, 1000.0)),
        description="Of a walk: NVT dynamics, as initial.md.",
    )

    @model_validator(mode="after")
    def _drives_its_walks(self) -> Teacher:
        if self.md.driver is not None:
            raise ValueError("md.driver: the first member of the teacher drives its walks - expected no driver")
        want_different("md.temperatures_K", self.md.temperatures_K)
        if self.md.every > self.md.n_steps:
            raise ValueError(
                f"md.every = {self.md.every} of n_steps = {self.md.n_steps} steps - expected a smaller one"
            )
        return self

    @property
    def n_frames(self) -> int:
        """Frames of its walks, if all of them come to their ends; where one begins is a training frame already."""
        return self.n_walks * len(self.md.temperatures_K) * (self.md.n_kept - 1)
