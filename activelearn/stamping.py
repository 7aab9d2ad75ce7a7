"""What a glass is stamped with: whether its path can be trusted, and whether it melted at all.

The stamp of a number is ``UNSTABLE: ...; NOT MELTED: ...; UNTRUSTED: ...``, whichever apply, in this order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

#: First word of the stamps of glasses whose path left the trust window; and the stamp of those that were not judged.
UNTRUSTED: Final = "UNTRUSTED"
NOT_JUDGED: Final = "not judged"
#: First words of the stamps of glasses whose atoms stayed where they began: a crystal, the packing, or too short a
#: melt.
NOT_MELTED: Final = "NOT MELTED"
#: First word of the stamps of numbers that no stable solid has, such as a negative modulus.
UNSTABLE: Final = "UNSTABLE"
#: Text in the stamps of those in which neighbours were dropped.
CROWDED: Final = "more neighbours than sel holds"

#: A former that is no farther than this from where it was counts as not having moved, Å: wide enough for its rattling
#: in a cage (0.3 of the diameter of an atom: Lacevic et al., J. Chem. Phys. 119, 7372 (2003)).
TOLERANCE_A: Final = 1.0
#: Of a melt, fewer of the formers than this are within that tolerance ...
MAX_OVERLAP: Final = 0.5
#: ... and their mean square displacement is at least this, Å^2. By Lindemann's criterion a crystal melts before its
#: atoms vibrate by 0.15 of their distance d rms; at two moments they are then sqrt(2) 0.15 d apart, 1.3 Å for the P of
#: PS4 units (d = 6 Å) and 0.7 Å for the Si of a silicate. 2 Å rms is beyond all of them.
MIN_MSD_A2: Final = 4.0


#: Explanation of the first of these stamps in a legend.
MELT_WANTS: Final = (
    f"a melt needs {math.sqrt(MIN_MSD_A2):g} Å rms or more and fewer than {100 * MAX_OVERLAP:g} % there: melt longer, "
    "or hotter"
)


def crowded(overflow: str, share: float) -> str:
    """Return the text of a stamp on frames with dropped neighbours: by how many, and in which share of them."""
    return f"{CROWDED}: {overflow} in {100 * share:.1f} % of frames"


def outside(outside_share: float, above_f_lo_share: float | None) -> str:
    """Return the text of a stamp on the frames of a path at or above f_hi, and at or above f_lo, if known."""
    above = "" if above_f_lo_share is None else f", {100 * above_f_lo_share:.1f} % at or above f_lo"
    return f"{100 * outside_share:.1f} % of frames outside the window{above}"


def is_trusted(outside_share: float | None, n_overflow: int, max_outside_share: float) -> bool | None:
    """Return whether the path of a glass, or a run that began with it, can be trusted; None if it was not judged.

    Parameters
    ----------
    outside_share
        Share of its rows outside the trust window; one whose force deviation is not finite counts among them (see
        :func:`activelearn.engines.dynamics.judged`). None: there was no ensemble, or no window.
    n_overflow
        Frames in which neighbours were dropped.
    max_outside_share
        The largest share that is tolerated.
    """
    if outside_share is None:
        return False if n_overflow else None
    return outside_share <= max_outside_share and n_overflow == 0


def has_melted(msd_A2: float, overlap: float) -> bool:
    """Return whether a melt has forgotten where it began.

    Parameters
    ----------
    msd_A2
        Mean square displacement of the network formers from the beginning of the melt to its end, Å^2.
    overlap
        Share of them that are within :data:`TOLERANCE_A` of where they were.
    """
    return msd_A2 >= MIN_MSD_A2 and overlap < MAX_OVERLAP


def moved(formers: Sequence[str], msd_A2: float, overlap: float, ps: float | None) -> str:
    """Return how far the network formers of a melt moved, in how long, in words; no formers: all atoms."""
    which, stayed = "/".join(formers) or "all atoms", f"{100 * overlap:.0f} % are within {TOLERANCE_A:g} Å"
    melt = "the melt" if ps is None else f"{ps:.3g} ps of melt"
    return f"{which} moved {math.sqrt(msd_A2):.2f} Å rms in {melt}, {stayed} of where they were"


def joined(parts: Iterable[str | None]) -> str | None:
    """Return the parts of a stamp as one; None without any."""
    return "; ".join(filter(None, parts)) or None
