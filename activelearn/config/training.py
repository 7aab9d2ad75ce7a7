"""The ensemble of DeePMD models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from activelearn.config.section import BatchRule, Section


class Descriptor(Section):
    """DeePMD se_e2_a (Zhang et al., NeurIPS 31, 2018)."""

    rcut: PositiveFloat = Field(default=6.0, description="Cutoff (Å).")
    rcut_smth: PositiveFloat = Field(default=2.0, description="Where smoothing starts (Å).")
    sel: tuple[PositiveInt, ...] | None = Field(
        default=None, description="Most neighbours by type; null: from the densest cell that the guards allow."
    )
    neuron: tuple[PositiveInt, ...] = (25, 50, 100)
    axis_neuron: PositiveInt = 16
    type_one_side: bool = False

    @model_validator(mode="after")
    def _check(self) -> Descriptor:
        if self.rcut_smth >= self.rcut:
            raise ValueError(f"rcut_smth = {self.rcut_smth:g} Å must be below rcut = {self.rcut:g} Å")
        return self


class LearningRate(Section):
    """Exponential decay."""

    start: PositiveFloat = 1.0e-3
    stop: PositiveFloat = 3.51e-8
    warm_start: PositiveFloat | None = Field(default=None, description="Start of a warm-started training.")


class Prefactors(Section):
    """(start, limit) of the loss prefactors."""

    energy: tuple[NonNegativeFloat, NonNegativeFloat] = (0.02, 1.0)
    force: tuple[NonNegativeFloat, NonNegativeFloat] = (1000.0, 1.0)
    virial: tuple[NonNegativeFloat, NonNegativeFloat] = (0.0, 0.0)


class Train(Section):
    """The ensemble: members differ in the random seed only."""

    n_members: int = Field(default=4, ge=2)
    descriptor: Descriptor = Descriptor()
    fitting: tuple[PositiveInt, ...] = (240, 240, 240)
    precision: Literal["float32", "float64"] = "float64"
    n_steps: PositiveInt = 500_000
    batch_size: PositiveInt | BatchRule = Field(
        default="auto:32", description="Frames a batch, or auto:N for >= N atoms."
    )
    learning_rate: LearningRate = LearningRate()
    prefactors: Prefactors = Prefactors()
    warm_start: bool = Field(default=False, description="Start from the previous iteration's members.")
    warm_n_steps: PositiveInt | None = Field(default=None, description="Steps of a warm start; null: n_steps.")
    min_new_frames: PositiveInt = Field(default=1, description="Fewer new frames wait for the next training.")


class FinalModels(Section):
    """What is done with the last ensemble."""

    n_steps: PositiveInt | None = Field(default=None, description="Train anew for so many steps; null: keep it.")
    compress: bool = True
