"""Findings on labels: refusals, missing virials, an inconsistent reference, the limit of neighbours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from activelearn.page.findings.rule import Noted, Rule
from activelearn.page.seen import SeenCampaign

#: Minimum number of pairs of frames for a finding on the reference.
_FEW_PAIRS: Final = 6


def _refused(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    by_reason: Counter[str] = Counter()
    for record in seen.records:
        by_reason.update(record.labelling.refused)
    n = sum(record.labelling.labelled for record in seen.records) + sum(by_reason.values())
    for reason, refused in by_reason.most_common():
        if 100.0 * refused / n > bound:
            share = 100.0 * refused / n
            yield Noted(f"{refused} of {n} labels ({share:.1f} %) were refused: {reason}", share)


def _without_virial(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    if not seen.records or not any(stage.ensemble.startswith("npt") for stage in seen.campaign.explore.stages):
        return
    labelling = seen.records[-1].labelling
    share = 100.0 * labelling.dataset_without_virial / max(labelling.dataset_frames, 1)
    if share > bound:
        n, of = labelling.dataset_without_virial, labelling.dataset_frames
        yield Noted(
            f"{n} of {of} training frames ({share:.0f} %) have no virial, and walks at constant pressure", share
        )


def _slope(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    found = seen.slope
    if found is not None and found.n_pairs >= _FEW_PAIRS and 100.0 * abs(found.value - 1.0) > bound:
        what = f"energies change by {found.value:.2f} times that of the virials, in {found.n_pairs} pairs of frames"
        yield Noted(f"{what} of different strain", 100.0 * abs(found.value - 1.0))


def _full(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    for one in seen.fill:
        share = 100.0 * one.most / one.room
        if share >= bound:
            what = f"{one.kind}: {one.most} neighbours within {one.rcut:g} Å, with sel {one.room}"
            yield Noted(f"{what} (densest training frames)", share)


def _initial(seen: SeenCampaign, bound: float) -> Iterator[Noted]:
    walks = [walk for record in seen.records if record.initial is not None for walk in record.initial.walks]
    lost = [walk for walk in walks if walk.ended != "finished"]
    if walks and 100.0 * len(lost) / len(walks) > bound:
        what = f"{len(lost)} of {len(walks)} trajectories of initial data failed, such as {lost[0].id}: {lost[0].ended}"
        yield Noted(what, 100.0 * len(lost) / len(walks))


RULES: Final = (
    Rule(
        "stress_energy",
        40,
        "%",
        "trust",
        "energies of the initial data differ by more than {bound} from those given by the virials, between strains of "
        "one structure (at least 6 pairs of frames)",
        "A stress with another sign, unit or method than the energy leads to wrong pressures and densities.",
        "check the stress of `label.reference`: `activelearn check --try` compares it with the energy",
        _slope,
    ),
    Rule(
        "labels_refused",
        5,
        "%",
        "accuracy",
        "more than {bound} of all labels were refused for one reason",
        "Refused frames cost time and teach nothing; what is always refused is missing from the data.",
        "the limits in `label` (`max_force`, `max_net_force`, `max_energy_spread`), or the settings of "
        "`label.reference` (SCF, k-points)",
        _refused,
    ),
    Rule(
        "no_virial",
        0,
        "%",
        "accuracy",
        "more than {bound} of the training frames have no virial, in a campaign with walks at constant pressure",
        "Pressures are then learnt only from the other frames, or from forces.",
        "`label.reference.stress: true`, or labels with a stress (ISIF = 2 in VASP)",
        _without_virial,
    ),
    Rule(
        "sel_full",
        95,
        "%",
        "accuracy",
        "the densest labelled frames fill at least {bound} of `sel`",
        "Beyond `sel`, neighbours are silently dropped: denser walks and glasses are stopped or refused.",
        "a larger `train.descriptor.sel` of DeePMD in a new campaign (with `label.ledger`, no label is computed twice)",
        _full,
    ),
    Rule(
        "initial_failed",
        10,
        "%",
        "accuracy",
        "more than {bound} of the trajectories of initial data failed",
        "Only the rest, which is less demanding, is learnt.",
        "in a new campaign, a smaller `timestep_fs` or lower `temperatures_K` of `initial.md`, or a smaller "
        "`initial.perturb`",
        _initial,
    ),
)
