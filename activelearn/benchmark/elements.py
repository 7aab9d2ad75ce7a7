"""Elements that a potential does not support: tested with the potential itself, as messages differ by kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from activelearn.config import Reference
from activelearn.engines.process import Slot
from activelearn.engines.reference import label
from activelearn.errors import EngineError
from activelearn.frames import Frames

#: If a potential fails on all of these as well, the machine is at fault.
_WITNESSES: Final = ("H", "O", "Na", "Si", "Cu")
#: Lattice constant, simple cubic, at which a graph network has edges (Å).
_SPACING_A: Final = 3.0


def unknown_elements(reference: Reference, symbols: Iterable[str], slot: Slot) -> tuple[str, ...]:
    """Return the elements that a potential refuses, after it has failed on a structure of them.

    Parameters
    ----------
    reference
        The potential as an ASE calculator.
    symbols
        Of the structure.
    slot
        Where.

    Returns
    -------
    tuple of str
        Sorted; empty if it supports them all, or fails on everything: then infrastructure failed.
    """

    def knows(symbol: str) -> bool:
        probe = Frames((symbol,), _SPACING_A * np.eye(3)[None], np.zeros((1, 1, 3)))
        try:
            label(reference, probe, slot)
        except EngineError:
            return False
        return True

    kinds = sorted(set(symbols))
    unknown = tuple(kind for kind in kinds if not knows(kind))
    if len(unknown) == len(kinds) and not any(knows(witness) for witness in _WITNESSES):
        return ()
    return unknown
