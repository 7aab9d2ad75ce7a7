"""What a teacher has labelled: its record, its frames, and the three errors of a distillation.

A teacher (``teacher`` of a campaign) learns from the labels of the reference in iteration 0 and labels frames of its
own walks where its members agree. These frames are training data of the models, and nothing else: they are in no data
set (``dataset/iter-*.npz``, exports), no walk begins at them, and in the ledger they stand under the identity of the
teacher, which is never that of a reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Final

from pydantic import Field

from activelearn import prediction
from activelearn.config import Campaign
from activelearn.frames import Frames
from activelearn.records import Ensemble, Errors, Record, WalkRecord
from activelearn.store import Store
from activelearn.store.references import identity_sha256

#: The iteration whose labels a teacher learns from.
TAUGHT_IN: Final = 0
#: Share of the trusted frames whose largest force error the stated bound holds for.
COVERAGE: Final = 0.9


class Taught(Record):
    """What a teacher has labelled, and how far it is from the reference on the held-out trajectories."""

    iteration: int
    identity: dict[str, Any] = Field(description="Identity of the teacher, with which its labels are in the ledger.")
    walks: tuple[WalkRecord, ...]
    max_devi_f: float = Field(description="Frames below this force deviation are trusted, eV/Å.")
    evaluated: int = Field(description="Frames of its walks.")
    labelled: int = Field(description="Of them, those that it labelled.")
    refused: dict[str, int] = Field(description="The others, by reason.")
    sha256: str = Field(description="Of the labelled frames.")
    held_out: Errors | None = Field(description="Of the mean of the committee, against the reference.")
    calibration: tuple[tuple[float, float], ...] = Field(
        description="Of each held-out frame: force deviation, true largest force error (eV/Å)."
    )

    @property
    def trusted(self) -> list[float]:
        """Largest force errors of the held-out frames that are trusted, sorted, eV/Å."""
        return sorted(error for deviation, error in self.calibration if deviation < self.max_devi_f)

    @property
    def error_bound(self) -> float | None:
        """Largest force error (eV/Å) that :data:`COVERAGE` of the trusted frames stay within.

        The conformal quantile, of rank ceil((n + 1) coverage) among n (Angelopoulos & Bates, arXiv:2107.07511,
        section 1): it holds for frames like the held-out ones. None if there are too few of them.
        """
        errors = self.trusted
        rank = ceil((len(errors) + 1) * COVERAGE)
        return errors[rank - 1] if 0 < rank <= len(errors) else None


def find(store: Store) -> Taught | None:
    """Return what the teacher of a campaign has labelled; None if it has none, or has not finished."""
    return store.find_result("distil", TAUGHT_IN, Taught)


def learnt_beside(campaign: Campaign, store: Store) -> list[Frames]:
    """Return the frames that the models of a campaign learn beside its data set."""
    return [] if campaign.teacher is None else store.frames(store.taught_file(TAUGHT_IN))


def sha256_beside(campaign: Campaign, store: Store) -> str | None:
    """Return the checksum of these frames, which are not read; None without a teacher."""
    return None if campaign.teacher is None else store.result("distil", TAUGHT_IN, Taught).sha256


def errors_against_teacher(campaign: Campaign, store: Store, predicted: Sequence[Frames]) -> Errors | None:
    """Return the errors of a model against the teacher, on the held-out frames that this one has labelled.

    Parameters
    ----------
    campaign, store
        Whether there is a teacher, and what it has labelled.
    predicted
        The held-out frames as the model labels them, in their order; those of systems that were added come later.
    """
    if campaign.teacher is None:
        return None
    labels = store.frames(store.taught_held_out_file(TAUGHT_IN))
    return prediction.errors(predicted[: len(labels)], labels)


def identity_of(reference: Mapping[str, Any], campaign: Campaign, teacher: Ensemble) -> dict[str, Any]:
    """Return the identity of the labels of a teacher.

    Parameters
    ----------
    reference
        Identity of the reference that it has learnt from.
    campaign
        Its settings.
    teacher
        Its members.
    """
    train = campaign.of_teacher.train
    identity = {
        "calculator": f"teacher ({train.trainer}, mean of {len(teacher.members)} members)",
        "teacher_of": reference["sha256"],
        "functional": f"{reference['functional']} by a teacher",
        "includes_dispersion": reference["includes_dispersion"],
        "version": ", ".join(f"{name} {version}" for name, version in sorted(teacher.versions.items())),
        "weights_sha256": [member.sha256 for member in teacher.members],
    }
    return {**identity, "sha256": identity_sha256(identity)}


# --- what is said of it -----------------------------------------------------------------------------------------------


def as_dict(store: Store) -> dict[str, Any] | None:
    """Return what a teacher has done as JSON-able data; None without one."""
    taught = find(store)
    if taught is None:
        return None
    models = _students(store)
    return {
        "sha256": taught.identity["sha256"],
        "evaluated": taught.evaluated,
        "labelled": taught.labelled,
        "refused": taught.refused,
        "max_devi_f": taught.max_devi_f,
        "error_bound": taught.error_bound,
        "teacher_against_reference": _dump(taught.held_out),
        "student_against_teacher": _dump(_mean(models, "against_teacher")),
        "student_against_reference": _dump(_mean(models, "held_out")),
        "said": said(store),
    }


def said(store: Store) -> list[str]:
    """Return what a teacher has done, and the three errors, a line each; none without a teacher."""
    taught = find(store)
    if taught is None:
        return []
    refused = "".join(f", {n} {reason}" for reason, n in taught.refused.items())
    done = f"labelled {taught.labelled} of {taught.evaluated} frames of its walks"
    lines = [f"{taught.identity['calculator']}: {done}{refused}"]
    lines += [f"walk {walk.id} of the teacher: {walk.ended}" for walk in taught.walks if walk.ended != "finished"]
    models = _students(store)
    errors = {
        "teacher against reference": taught.held_out,
        "student against teacher": _mean(models, "against_teacher"),
        "student against reference": _mean(models, "held_out"),
    }
    known = [f"{name} {error.force_rmse:.3f}" for name, error in errors.items() if error is not None]
    if taught.held_out is not None:
        lines.append(f"held-out force RMSE, eV/Å ({taught.held_out.n_frames} frames): {', '.join(known)}")
    return [*lines, _trust(taught)]


def _trust(taught: Taught) -> str:
    """Return the calibrated error of the frames that are trusted."""
    below = f"below a deviation of {taught.max_devi_f:g} eV/Å, {len(taught.trusted)} of {len(taught.calibration)}"
    if taught.error_bound is None:
        return f"held-out frames {below}: too few for a bound on the largest force error of the teacher's labels"
    share = f"{100 * COVERAGE:g} % of frames like these"
    return (
        f"held-out frames {below}: largest force error of the teacher within {taught.error_bound:.2f} eV/Å for {share}"
    )


def _students(store: Store) -> Ensemble | None:
    """Return the last ensemble that a campaign has trained."""
    for iteration in reversed(store.opened_iterations()):
        if (found := store.find_result("train", iteration, Ensemble)) is not None:
            return found
    return None


def _mean(models: Ensemble | None, name: str) -> Errors | None:
    found = [getattr(member, name) for member in models.members] if models is not None else []
    return Errors.mean([errors for errors in found if errors is not None])


def _dump(errors: Errors | None) -> dict[str, Any] | None:
    return None if errors is None else errors.model_dump()
