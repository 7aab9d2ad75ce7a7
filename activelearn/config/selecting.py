"""The trust window, the guards, the selection, and the end of the loop."""

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
    """Limits of the exploration region; a frame outside ends its walk."""

    min_distance_fraction: Annotated[NonNegativeFloat, of("fraction of covalent distances")] = Field(
        default=0.6, description="Shortest allowed distance, as a fraction of the sum of the covalent radii."
    )
    min_distances_A: dict[Pair, Annotated[PositiveFloat, of("shortest distance")]] = Field(
        default={}, description="Shortest allowed distance by pair, such as {P-S: 1.5} (Å)."
    )
    volume_ratio: tuple[
        Annotated[PositiveFloat, of("ratio of volumes")], Annotated[PositiveFloat, of("ratio of volumes")]
    ] = Field(default=(0.6, 1.6), description="Allowed volume relative to the walk's start.")
    min_angle_deg: Annotated[PositiveFloat, of("cell angle")] = Field(
        default=30.0, description="Smallest cell angle; the largest is 180 minus this."
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
    """What is selected from failed walks, and what happens when nearly all frames of a pass failed."""

    failed_share: Share = Field(default=0.5, description="A pass with a larger share of failed frames is rescued.")
    max_devi_f: ForceDeviation = Field(
        default=1.5, description="Failed frames are selected up to this deviation (eV/Å)."
    )
    frames_per_walk: Annotated[PositiveInt, of("number of frames of a walk")] = 4
    mined_per_walk: Annotated[NonNegativeInt, of("number of frames of a walk")] = Field(
        default=5,
        description="Number of candidates just before the failure of a walk that are always kept, in any pass.",
    )
    share: Share = Field(default=0.5, description="Share of max_frames reserved for failed frames.")
    train_factor: Annotated[PositiveFloat, of("factor on the training")] = Field(
        default=1.5, description="Factor by which training after a rescue is longer."
    )
    max_in_a_row: Annotated[PositiveInt, of("number of passes")] = Field(
        default=3, description="Maximum number of consecutive rescued passes; one more ends the loop."
    )


class Select(Section):
    """The trust window, and the selection of frames from it."""

    window: Literal["fixed", "calibrated"] = Field(
        default="fixed",
        description="f_lo and f_hi as given, or calibrated by the errors found when frames were labelled.",
    )
    f_lo: ForceDeviation = Field(
        default=0.15, description="Lower deviation threshold: frames below are accurate (eV/Å)."
    )
    f_hi: ForceDeviation = Field(
        default=0.35, description="Upper deviation threshold: frames at or above are failed (eV/Å)."
    )
    max_error: Annotated[PositiveFloat, of("force error")] = Field(
        default=0.5, description="Largest acceptable force error of an atom (eV/Å); for the calibration."
    )
    false_accept_rate: Annotated[float, of("share of false accepts")] = Field(
        default=0.05, gt=0.0, lt=1.0, description="Share of worse frames that a calibrated window accepts as accurate."
    )
    audit_frames: Annotated[NonNegativeInt, of("number of labels")] = Field(
        default=0,
        description="Number of accurate frames per iteration that are labelled as well, to measure false accepts.",
    )
    pick: Literal["random", "diverse"] = Field(
        default="random", description="How candidates are selected under the caps; diverse: farthest-point sampling."
    )
    random_share: Share = Field(
        default=0.25, description="Share of diverse picks that is drawn at random nevertheless."
    )
    min_descriptor_distance: Annotated[NonNegativeFloat, of("distance of descriptors")] | None = Field(
        default=None,
        description="Frames closer than this to a frame selected before are skipped; 0: off; null: off for random, "
        f"{DUPLICATE_DISTANCE:g} for diverse.",
    )
    max_frames: NumberOfLabels = Field(
        default=200, description="Cap of selected frames per iteration, including audited ones."
    )
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
        """Frames closer than this to a frame selected before are near duplicates; 0 if not checked."""
        if self.min_descriptor_distance is None:
            return DUPLICATE_DISTANCE if self.pick == "diverse" else 0.0
        return self.min_descriptor_distance

    @property
    def needs_descriptor(self) -> bool:
        """Whether the kept frames of a walk need a descriptor."""
        return self.pick == "diverse" or self.duplicate_distance > 0.0


class Stop(Section):
    """When the loop ends (definitions: facts/definitions.md 4.0)."""

    max_iterations: Annotated[PositiveInt, of("number of passes")] = Field(
        default=20, description="Maximum number of exploration passes."
    )
    candidate_share: QuietShare = Field(default=0.01, description="Quiet below this share of candidates.")
    failed_share: QuietShare = Field(default=0.01, description="Quiet below this share of failed frames.")
    out_of_region_share: Share = Field(
        default=0.05, description="A stage with a larger share of frames outside the region is never quiet."
    )
    min_frames: Annotated[PositiveInt, of("number of frames of a verdict")] = Field(
        default=200, description="Minimum number of frames for a verdict ..."
    )
    min_walks: Annotated[PositiveInt, of("number of walks")] = Field(
        default=8, description="... and of walks that they come from."
    )
    max_force_error_p99: Annotated[PositiveFloat, of("force error")] | None = Field(
        default=None,
        description="A quiet pass is converged only if the held-out 99th percentile of the force error |dF| of the "
        "ensemble that explored is not above this (eV/Å); null: the percentile is only reported.",
    )
