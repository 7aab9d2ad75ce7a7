"""The few conversion factors of the package; arrays are in eV, Å, eV/Å and amu.

Source of the constants: CODATA 2018 (exact SI values of e, k_B and N_A).
"""

from __future__ import annotations

from typing import Final

#: 1 eV/Å^3 in GPa.
EV_PER_A3_IN_GPA: Final = 160.2176634
#: Boltzmann's constant in eV/K.
BOLTZMANN_EV_PER_K: Final = 8.617333262e-5
#: 1 amu/Å^3 in g/cm^3.
AMU_PER_A3_IN_G_PER_CM3: Final = 1.66053906660
#: 1 amu (Å/ps)^2 in eV.
AMU_A2_PER_PS2_IN_EV: Final = 1.0364269652680506e-4
#: Nernst-Einstein: S/cm of 1 carrier/Å^3 with charge e and D = 1 Å^2/ps, times K.
S_PER_CM_K: Final = 1.8592487783e5


def duration(seconds: float, digits: int = 0) -> str:
    """Return seconds in the unit that a person would use, with `digits` after the point from minutes on."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2.0 * size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s"
