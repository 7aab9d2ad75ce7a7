"""Pressures: what in a campaign needs them, and the notes where labels have no virial to learn them from."""

from __future__ import annotations

from activelearn.config import Campaign, trainer_of

#: Properties that strain or relax cells.
_STRAINING = ("crystals", "reactions", "bulk_modulus", "elastic")


def needed_by(campaign: Campaign) -> list[str]:
    """Return the parts of a campaign that are driven by a pressure, or measure one."""
    found = [f"stage {stage.name}" for stage in campaign.explore.stages if stage.ensemble.startswith("npt")]
    if campaign.glass is not None and any(segment.is_npt for segment in campaign.glass.segments):
        found.append("glass")
    if campaign.benchmark is not None:
        found += [f"benchmark.{name}" for name in _STRAINING if name in campaign.benchmark.asked]
        diffusion = campaign.benchmark.diffusion
        found += ["benchmark.diffusion"] if diffusion is not None and diffusion.ensemble.startswith("npt") else []
    return found


def notes(campaign: Campaign, n_without: int, n: int, which: str) -> list[str]:
    """Return the notes on labels without a virial.

    Parameters
    ----------
    campaign
        What needs pressures, and the prefactors.
    n_without, n
        How many labels have no virial, of how many.
    which
        Of these: ``labels of the ledger``.
    """
    if not n_without:
        return []
    return _said(campaign, f"{n_without} of {n} {which} ({100 * n_without / n:.0f} %) have no virial", n_without == n)


def notes_of_reference(campaign: Campaign) -> list[str]:
    """Return the notes on a reference that is declared to have no stress."""
    if campaign.label.reference.stress:
        return []
    return _said(campaign, "labels of label.reference have no virial (stress: false)", is_all=True)


def _said(campaign: Campaign, what: str, is_all: bool) -> list[str]:
    found = []
    if needed := needed_by(campaign):
        found.append(
            f"{what}, and pressures are needed for {', '.join(needed)}: from these frames the models learn them only "
            "through energies of different cells; use labels with a stress (VASP: ISIF = 2 or 3), or use nvt only"
        )
    if is_all and (weighed := trainer_of(campaign.train).weight_of_virials(campaign.train)) is not None:
        found.append(f"{what}: {weighed} has no effect")
    return found or [f"{what}: the training fits no virial on them"]
