"""The trust window, the guards, the picks, and when the loop ends."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    model_validator,
)

from activelearn.config.bounds import of
from activelearn.config.section import (
    ForceDeviation,
    Fraction,
    NumberOfLabels,
    Pair,
    Section,
    Share,
    is_sealed,
    want_pairs_once,
)

QuietShare = Annotated[Fraction, of("share that is called quiet")]
#: Between neighbouring femtoseconds of MD and thermally independent frames (see :mod:`activelearn.descriptor`).
DUPLICATE_DISTANCE: Final = 0.03


class Guards(Section):
    """What counts as inside the exploration region; a frame beyond ends its walk."""

    min_distance_fraction: Annotated[NonNegativeFloat, of("fraction of covalent distances")] = Field(
        default=0.6, description="Shortest allowed distance, as a fraction of the sum of the covalent radii."
    )
    min_distances_A: dict[Pair, Annotated[PositiveFloat, of("shortest distance")]] = Field(
        default={}, description="By pair, such as {P-S: 1.5} (Å)."
    )
    volume_ratio: tuple[
        Annotated[PositiveFloat, of("ratio of volumes")], Annotated[PositiveFloat, of("ratio of volumes")]
    ] = Field(default=(0.6, 1.6), description="Allowed volume relative to the walk's start.")
    min_angle_deg: Annotated[PositiveFloat, of("cell angle")] = Field(
        default=30.0, description="Smallest cell angle; the largest is 180 minus it."
    )

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Guards:
        low, high = self.volume_ratio
        if not low < 1.0 < high:
            raise ValueError(f"volume_ratio = [{low:g}, {high:g}] must enclose 1, the start of a walk")
        if not is_sealed(info):
            want_pairs_once("min_distances_A", self.min_distances_A)
        return self


class Rescue(Section):
    """What is taken from walks that failed, and what happens when nearly every frame of a pass did."""

    failed_share: Share = Field(default=0.5, description="A pass with more failed frames than this is rescued.")
    max_devi_f: ForceDeviation = Field(default=1.5, description="Take failed frames up to this deviation (eV/Å).")
    frames_per_walk: Annotated[PositiveInt, of("number of frames of a walk")] = 4
    mined_per_walk: Annotated[NonNegativeInt, of("number of frames of a walk")] = Field(
        default=5,
        description="In any pass, so many of the last sane candidates of a walk that failed are kept for sure.",
    )
    share: Share = Field(default=0.5, description="Share of max_frames that candidates leave to failed frames.")
    train_factor: Annotated[PositiveFloat, of("factor on the training")] = Field(
        default=1.5, description="Training after a rescue is this much longer."
    )
    max_in_a_row: Annotated[PositiveInt, of("number of passes")] = Field(
        default=3, description="A pass that needs one more than this in a row ends it."
    )


class Select(Section):
    """The trust window and what is picked from it."""

    window: Literal["fixed", "calibrated"] = Field(
        default="fixed", description="f_lo and f_hi as given, or from the errors found when frames were labelled."
    )
    f_lo: ForceDeviation = Field(default=0.15, description="Below: accurate (eV/Å).")
    f_hi: ForceDeviation = Field(default=0.35, description="From here on: failed (eV/Å).")
    max_error: Annotated[PositiveFloat, of("force error")] = Field(
        default=0.5, description="Largest force error of an atom that is still accepted (eV/Å); for the calibration."
    )
    false_accept_rate: Annotated[float, of("share of false accepts")] = Field(
        default=0.05, gt=0.0, lt=1.0, description="A calibrated window calls this share of worse frames accurate."
    )
    audit_frames: Annotated[NonNegativeInt, of("number of labels")] = Field(
        default=0, description="So many accurate frames per iteration are labelled too: false accepts are measured."
    )
    pick: Literal["random", "diverse"] = Field(
        default="random", description="How candidates are chosen under the caps; diverse: farthest points first."
    )
    random_share: Share = Field(
        default=0.25, description="Of diverse picks, the share that is drawn at random all the same."
    )
    min_descriptor_distance: Annotated[NonNegativeFloat, of("distance of descriptors")] | None = Field(
        default=None,
        description="Frames nearer than this to one chosen before are passed over; 0: off; null: off for random, "
        f"{DUPLICATE_DISTANCE:g} for diverse.",
    )
    max_frames: NumberOfLabels = Field(default=200, description="Cap of chosen frames per iteration, audited included.")
    max_per_cell: NumberOfLabels | None = Field(default=None, description="Cap per cell of the exploration matrix.")
    max_per_walk: NumberOfLabels | None = Field(default=None, description="Cap per walk.")
    guards: Guards = Guards()
    rescue: Rescue = Rescue()

    @model_validator(mode="after")
    def _check(self) -> Select:
        if self.f_lo >= self.f_hi:
            raise ValueError(f"f_lo = {self.f_lo:g} eV/Å must be below f_hi = {self.f_hi:g} eV/Å")
        if self.rescue.max_devi_f <= self.f_hi:
            raise ValueError(
                f"rescue.max_devi_f = {self.rescue.max_devi_f:g} eV/Å must be above f_hi = {self.f_hi:g} eV/Å, else no "
                "failed frame could ever be rescued"
            )
        if self.audit_frames >= self.max_frames:
            raise ValueError(
                f"audit_frames = {self.audit_frames} must be below max_frames = {self.max_frames}, of which they are a "
                "part"
            )
        return self

    @property
    def duplicate_distance(self) -> float:
        """Frames nearer than this to one chosen before are near duplicates; 0 if nobody looks."""
        if self.min_descriptor_distance is None:
            return DUPLICATE_DISTANCE if self.pick == "diverse" else 0.0
        return self.min_descriptor_distance

    @property
    def needs_descriptor(self) -> bool:
        """Whether the kept frames of a walk want a descriptor."""
        return self.pick == "diverse" or self.duplicate_distance > 0.0


class Stop(Section):
    """When the loop ends (definitions: facts/definitions.md 4.0)."""

    max_iterations: Annotated[PositiveInt, of("number of passes")] = Field(
        default=20, description="Passes of exploration at the most."
    )
    candidate_share: QuietShare = Field(default=0.01, description="Quiet below this share of candidates.")
    failed_share: QuietShare = Field(default=0.01, description="Quiet below this share of failed frames.")
    out_of_region_share: Share = Field(
        default=0.05, description="With more frames out of the region than this, a stage is never called quiet."
    )
    min_frames: Annotated[PositiveInt, of("number of frames of a verdict")] = Field(
        default=200, description="A verdict wants at least so many frames ..."
    )
    min_walks: Annotated[PositiveInt, of("number of walks")] = Field(
        default=8, description="... from at least so many walks."
    )
    max_force_error_p99: Annotated[PositiveFloat, of("force error")] | None = Field(
        default=None,
        description="A quiet pass is converged only if the held-out 99th percentile of the force error |dF| of the "
        "ensemble it explored with is not above this (eV/Å); null: the percentile is reported and not demanded.",
    )
