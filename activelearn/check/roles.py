"""Doubts about a series: roles, charges and cutoffs with which the numbers of its network are wrong in silence."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Final

from activelearn import packing
from activelearn.config import Composition, Glass, OwnGlasses, Roles, Series
from activelearn.errors import ConfigError

#: Usual cutoffs in sums of the covalent radii: of a bond (Si-O is 0.91 long), and of a shell around a modifier.
_BOND, _SHELL = (0.93, 1.7), (0.9, 2.0)
#: Anions of charge -2, which the number of bridges of a unit supposes; of others nothing is said.
_CHALCOGENS: Final = ("O", "S", "Se", "Te")
#: A charge per atom that is rounding of the amounts.
_NEUTRAL: Final = 1.0e-3


def doubtful_series(glass: Glass | OwnGlasses | None) -> list[str]:
    """Return what is unusual about the roles and cutoffs of a series, each thing once."""
    if glass is None:
        return []
    series, present, said = glass.series, set[str](), dict[str, None]()
    for composition in glass.compositions:
        with contextlib.suppress(ConfigError):  # no such element, which is reported elsewhere
            atoms = _atoms(composition)
            present |= set(atoms)
            if not any("roles" in line for line in said):
                said |= dict.fromkeys(_doubts_of_roles(series.roles, atoms, f"series {series.name}: roles"))
    return [*said, *_doubts_of_cutoffs(series, present)]


def _atoms(composition: Composition) -> dict[str, float]:
    """Return the atoms of the units of a composition."""
    found: Counter[str] = Counter()
    for formula, amount in composition.units.items():
        for element, n in packing.atoms_of({formula: 1}).items():
            found[element] += amount * n  # type: ignore[assignment]
    return dict(found)


def _doubts_of_roles(roles: Roles, atoms: dict[str, float], where: str) -> Iterator[str]:
    charges: dict[str, int] = {former: 2 * roles.coordination - z for former, z in roles.formers.items()}
    charges |= {**roles.modifiers, **dict.fromkeys(roles.anions, -2)}
    if without := sorted(atoms.keys() - charges.keys()):
        yield (
            f"{where}: none for {', '.join(without)}, which the network and coordination then do not count - usual is "
            "one for every element - add it to formers, anions or modifiers"
        )
        return
    charge = sum(charges[element] * n for element, n in atoms.items())
    anions = [element for element in atoms if element in roles.anions]
    if not anions or any(anion not in _CHALCOGENS for anion in anions):
        return
    if abs(charge) > _NEUTRAL * sum(atoms.values()):
        formers = ", ".join(f"{former} {charges[former]:+d}" for former in roles.formers if former in atoms)
        yield (
            f"{where}: with {formers} the composition has a charge of {charge:+.3g} - usual is a neutral one - give "
            f"formers the charge of their unit without bridges, such as {{P: 3}} for PS4 (3-), and modifiers their own"
        )


def _doubts_of_cutoffs(series: Series, present: set[str]) -> Iterator[str]:
    from ase.data import atomic_numbers, covalent_radii

    roles = series.roles
    for kinds, (low, high), what in ((roles.formers, _BOND, "bond"), (roles.modifiers, _SHELL, "shell")):
        for a, b in ((a, b) for a in kinds for b in roles.anions if {a, b} <= present):
            cutoff = series.cutoff_A(a, b)
            radii = float(covalent_radii[atomic_numbers[a]] + covalent_radii[atomic_numbers[b]])
            if cutoff is not None and not low * radii <= cutoff <= high * radii:
                yield (
                    f"series {series.name}: cutoffs_A.{a}-{b}: {cutoff:g} Å - usual for a {what} is {low * radii:.2f} "
                    f"to {high * radii:.2f} Å (covalent radii) - take the first minimum of g(r)"
                )
