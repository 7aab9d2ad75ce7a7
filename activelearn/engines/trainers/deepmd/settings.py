"""The section ``train`` of a campaign whose models are DeePMD-kit's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails

from activelearn.config.bounds import of
from activelearn.config.paths import FilePath, absolute
from activelearn.config.program import Program
from activelearn.config.section import BatchRule, Element, Section, Share
from activelearn.config.training import Train
from activelearn.engines.backends import BACKENDS, UNFIT
from activelearn.engines.trainers.deepmd.blocks import TABLES
from activelearn.engines.trainers.deepmd.shapes import misshapen

Rate = Annotated[PositiveFloat, of("learning rate")]
Prefactor = Annotated[NonNegativeFloat, of("prefactor of the loss")]
#: Share of the steps in which ``wsd`` decays by default: that of DeePMD-kit.
WSD_DECAY: Final = 0.1


class Descriptor(Section):
    """DeePMD se_e2_a (Zhang et al., NeurIPS 31, 2018)."""

    rcut: Annotated[PositiveFloat, of("cutoff of the descriptor")] = Field(default=6.0, description="Cutoff (Å).")
    rcut_smth: Annotated[PositiveFloat, of("start of the smoothing")] = Field(
        default=2.0, description="Start of the smoothing (Å)."
    )
    sel: tuple[Annotated[PositiveInt, of("number of neighbours")], ...] | None = Field(
        default=None,
        description="Maximum number of neighbours by type; null: from the densest cell that the guards allow.",
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
    """Decay from start to stop; the names of the shapes are those of DeePMD-kit's ``learning_rate.type``."""

    shape: Literal["exp", "cosine", "wsd"] = Field(
        default="exp", description="exp: exponential; cosine: half a cosine; wsd: constant, then a short decay."
    )
    start: Rate = 1.0e-3
    stop: Rate = 3.51e-8
    warm_start: Rate | None = Field(default=None, description="Start of a warm-started training; null: start.")
    warm_stop: Rate | None = Field(default=None, description="End of a warm-started training; null: stop.")
    warmup_ratio: Annotated[float, of("share")] = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="Share of the steps in which the rate first rises from 0 to start (warmup).",
    )
    decay_phase_ratio: Share | None = Field(
        default=None, gt=0.0, description="Share of the steps in which wsd decays; null: 0.1."
    )
    decay_type: Literal["cosine", "linear", "inverse_linear"] | None = Field(
        default=None,
        description="How wsd decays; null: cosine. inverse_linear is DeePMD-kit's default: from 1 to 0.01 it reaches "
        "0.1 after 9 % of the decay.",
    )

    @model_validator(mode="after")
    def _check(self) -> LearningRate:
        decay = self.decay_phase_ratio
        for name in ("decay_phase_ratio", "decay_type"):
            if getattr(self, name) is not None and self.shape != "wsd":
                raise ValueError(f"{name} is for shape: wsd, not for {self.shape} - leave it out")
        if self.shape == "wsd" and self.warmup_ratio + (decay or WSD_DECAY) > 1.0:
            raise ValueError(
                f"warmup_ratio = {self.warmup_ratio:g} and decay_phase_ratio = {decay or WSD_DECAY:g} exceed "
                "the whole training - lower one of them"
            )
        return self


class Prefactors(Section):
    """(start, limit) of the loss prefactors."""

    energy: tuple[Prefactor, Prefactor] = (0.02, 1.0)
    force: tuple[Prefactor, Prefactor] = (1000.0, 1.0)
    virial: tuple[Prefactor, Prefactor] = (0.0, 0.0)


def _of_an_ensemble(backend: object) -> object:
    """Refuse backends of DeePMD-kit that cannot drive an ensemble, with the reason."""
    why = UNFIT.get(backend) if isinstance(backend, str) else None
    if why is not None:
        raise ValueError(f"{backend}: {why} - expected {' or '.join(BACKENDS)}")
    return backend


BackendName = Annotated[Literal["tensorflow", "pytorch", "pytorch-exportable"], BeforeValidator(_of_an_ensemble)]


def _plain(value: Any, key: object = None) -> Any:  # noqa: ANN401 - raw YAML
    """Return raw YAML as JSON types: lists and plain strings, with absolute paths of existing tables."""
    if isinstance(value, Mapping):
        return {name: _plain(item, name) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return str(absolute(value) if key in TABLES else value)
    return value


def _as_block(given: Any) -> Any:  # noqa: ANN401 - raw YAML
    """Return a readable model block, or raise its problems, each at its key."""
    if not isinstance(given, Mapping):
        return given
    block = _plain(given)
    wrong = [*misshapen(block)]
    if wrong:
        raise ValidationError.from_exception_data("model", [_detail(one.at, one.value, one.said) for one in wrong])
    return block


def _detail(at: tuple[str | int, ...], value: Any, said: str) -> InitErrorDetails:  # noqa: ANN401 - raw YAML
    text = f"{at[-1]} is {said}" if said.startswith("missing") else said
    return {"type": "value_error", "loc": at, "input": value, "ctx": {"error": ValueError(text)}}


ModelBlock = Annotated[dict[str, Any], BeforeValidator(_as_block)]
#: The short form of a model block.
_SHORT: Final = ("descriptor", "fitting", "precision")


class DeePMDTrain(Train):
    """An ensemble of DeePMD-kit."""

    trainer: Literal["deepmd"] = "deepmd"
    backend: BackendName = Field(
        default="tensorflow",
        description="Backend of DeePMD-kit; tensorflow is smallest and fastest on a CPU. The others need a separate "
        "interpreter, machine.python.",
    )
    model: ModelBlock | None = Field(
        default=None,
        description="Any model of DeePMD-kit, as in `model` of its input.json; null: se_e2_a with the next three "
        "keys. Without seeds; sel omitted or auto: from the densest cell that the guards allow.",
    )
    descriptor: Descriptor = Descriptor()
    fitting: tuple[Annotated[PositiveInt, of("width of a layer")], ...] = (240, 240, 240)
    precision: Literal["float32", "float64"] = "float64"
    batch_size: Annotated[PositiveInt, of("number of frames a batch")] | BatchRule = Field(
        default="auto:32", description="Frames per batch, or auto:N for >= N atoms."
    )
    learning_rate: LearningRate = LearningRate()
    prefactors: Prefactors = Prefactors()
    element_weights: dict[Element, Annotated[PositiveFloat, of("weight of an element")]] | None = Field(
        default=None, description="Weight of the squared force error of an element in the loss; others: 1."
    )
    average_checkpoints: Annotated[int, of("number of checkpoints")] | None = Field(
        default=None,
        ge=2,
        le=20,
        description="Number of last checkpoints, n_steps/25 apart, that the model averages; null: only the last.",
    )
    start_from: Annotated[tuple[FilePath, ...] | None, Program()] = Field(
        default=None,
        description="Frozen models of the same network, one per member, with which the first ensemble starts (a "
        "warm start); null: random weights.",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_form(cls, given: Any) -> Any:  # noqa: ANN401 - raw YAML
        """Refuse the short form together with a model block; null removes what a preset sets."""
        if not isinstance(given, Mapping) or given.get("model") is None:
            return given
        beside = [name for name in _SHORT if given.get(name) is not None]
        if beside:
            raise ValueError(
                f"model defines the networks, and {', '.join(beside)} define{'s' * (len(beside) == 1)} them again "
                f"- expected only one of them - leave {'them' if len(beside) > 1 else 'it'} out (from a preset: "
                f"{beside[0]}: null)"
            )
        return {name: value for name, value in given.items() if name not in _SHORT}

    @model_serializer(mode="wrap")
    def _of_one_form(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return it without the short form if that is unused, and without models to start from if there are none.

        Campaigns without them keep their checksum.
        """
        made: dict[str, Any] = handler(self)
        left_out = {*(_SHORT if self.model is not None else ()), *(("start_from",) if self.start_from is None else ())}
        return {name: value for name, value in made.items() if name not in left_out}

    @property
    def block(self) -> dict[str, Any]:
        """The model block, also for the short form, without the settings of the campaign and the members."""
        if self.model is not None:
            return self.model
        d = self.descriptor
        return {
            "descriptor": {
                "type": "se_e2_a",
                "sel": "auto" if d.sel is None else list(d.sel),
                "rcut": d.rcut,
                "rcut_smth": d.rcut_smth,
                "neuron": list(d.neuron),
                "axis_neuron": d.axis_neuron,
                "type_one_side": d.type_one_side,
                "resnet_dt": False,
                "precision": self.precision,
            },
            "fitting_net": {"neuron": list(self.fitting), "resnet_dt": True, "precision": self.precision},
        }

    def trains_like(self, other: Train) -> bool:
        """Return whether trainings with these settings and with `other` are equal, ignoring initial weights."""
        first = {"start_from": other.start_from} if isinstance(other, DeePMDTrain) else {}
        return super(DeePMDTrain, self.model_copy(update=first)).trains_like(other)

    def label_weight(self, element: str) -> float:
        """Return the weight of the squared force error of an element in the loss."""
        return (self.element_weights or {}).get(element, 1.0)
