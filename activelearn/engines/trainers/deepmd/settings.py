"""The section ``train`` of a campaign whose models are DeePMD-kit's."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from activelearn.config.bounds import of
from activelearn.config.section import BatchRule, Element, Section, Share
from activelearn.config.training import Train
from activelearn.engines.backends import BACKENDS, UNFIT

Rate = Annotated[PositiveFloat, of("learning rate")]
Prefactor = Annotated[NonNegativeFloat, of("prefactor of the loss")]
#: Share of the steps in which ``wsd`` decays unless one is named: DeePMD-kit's own.
WSD_DECAY: Final = 0.1


class Descriptor(Section):
    """DeePMD se_e2_a (Zhang et al., NeurIPS 31, 2018)."""

    rcut: Annotated[PositiveFloat, of("cutoff of the descriptor")] = Field(default=6.0, description="Cutoff (Å).")
    rcut_smth: Annotated[PositiveFloat, of("start of the smoothing")] = Field(
        default=2.0, description="Where smoothing starts (Å)."
    )
    sel: tuple[Annotated[PositiveInt, of("number of neighbours")], ...] | None = Field(
        default=None, description="Most neighbours by type; null: from the densest cell that the guards allow."
    )
    neuron: tuple[Annotated[PositiveInt, of("width of a layer")], ...] = (25, 50, 100)
    axis_neuron: Annotated[PositiveInt, of("number of axis neurons")] = 16
    type_one_side: bool = False

    @model_validator(mode="after")
    def _check(self) -> Descriptor:
        if self.rcut_smth >= self.rcut:
            raise ValueError(f"rcut_smth = {self.rcut_smth:g} Å must be below rcut = {self.rcut:g} Å")
        return self


class LearningRate(Section):
    """Its fall from start to stop; the names of the shapes are those of DeePMD-kit's ``learning_rate.type``."""

    shape: Literal["exp", "cosine", "wsd"] = Field(
        default="exp", description="exp: exponential; cosine: half a cosine; wsd: constant, then a short decay."
    )
    start: Rate = 1.0e-3
    stop: Rate = 3.51e-8
    warm_start: Rate | None = Field(default=None, description="Start of a warm-started training; null: start.")
    warm_stop: Rate | None = Field(default=None, description="End of a warm-started training; null: stop.")
    warmup_ratio: Annotated[float, of("share")] = Field(
        default=0.0, ge=0.0, lt=1.0, description="Share of the steps in which the rate first rises from 0 to start."
    )
    decay_phase_ratio: Share | None = Field(
        default=None, gt=0.0, description="Share of the steps in which wsd decays; null: 0.1."
    )
    decay_type: Literal["cosine", "linear", "inverse_linear"] | None = Field(
        default=None,
        description="How wsd decays; null: cosine. inverse_linear is DeePMD-kit's own default: from 1 to 0.01 it is "
        "at 0.1 after 9 % of the decay.",
    )

    @model_validator(mode="after")
    def _check(self) -> LearningRate:
        decay = self.decay_phase_ratio
        for name in ("decay_phase_ratio", "decay_type"):
            if getattr(self, name) is not None and self.shape != "wsd":
                raise ValueError(f"{name} is for shape: wsd, not for {self.shape} - leave it out")
        if self.shape == "wsd" and self.warmup_ratio + (decay or WSD_DECAY) > 1.0:
            raise ValueError(
                f"warmup_ratio = {self.warmup_ratio:g} and decay_phase_ratio = {decay or WSD_DECAY:g} are more than "
                "the whole training - lower one of them"
            )
        return self


class Prefactors(Section):
    """(start, limit) of the loss prefactors."""

    energy: tuple[Prefactor, Prefactor] = (0.02, 1.0)
    force: tuple[Prefactor, Prefactor] = (1000.0, 1.0)
    virial: tuple[Prefactor, Prefactor] = (0.0, 0.0)


def _of_an_ensemble(backend: object) -> object:
    """Refuse what DeePMD-kit has and an ensemble cannot be driven with, and say why."""
    why = UNFIT.get(backend) if isinstance(backend, str) else None
    if why is not None:
        raise ValueError(f"{backend}: {why} - wanted {' or '.join(BACKENDS)}")
    return backend


BackendName = Annotated[Literal["tensorflow", "pytorch", "pytorch-exportable"], BeforeValidator(_of_an_ensemble)]


class DeePMDTrain(Train):
    """An ensemble of DeePMD-kit."""

    trainer: Literal["deepmd"] = "deepmd"
    backend: BackendName = Field(
        default="tensorflow",
        description="What computes; the smallest and fastest on a CPU is tensorflow. The others want an interpreter of "
        "their own, machine.python.",
    )
    descriptor: Descriptor = Descriptor()
    fitting: tuple[Annotated[PositiveInt, of("width of a layer")], ...] = (240, 240, 240)
    precision: Literal["float32", "float64"] = "float64"
    batch_size: Annotated[PositiveInt, of("number of frames a batch")] | BatchRule = Field(
        default="auto:32", description="Frames a batch, or auto:N for >= N atoms."
    )
    learning_rate: LearningRate = LearningRate()
    prefactors: Prefactors = Prefactors()
    element_weights: dict[Element, Annotated[PositiveFloat, of("weight of an element")]] | None = Field(
        default=None, description="How many times the squared force error of an element counts in the loss; others: 1."
    )
    average_checkpoints: Annotated[int, of("number of checkpoints")] | None = Field(
        default=None,
        ge=2,
        le=20,
        description="The model is the mean of the last so many checkpoints, n_steps/25 apart; null: the last.",
    )

    def label_weight(self, element: str) -> float:
        """Return how many times the squared force error of an element counts in the loss."""
        return (self.element_weights or {}).get(element, 1.0)
