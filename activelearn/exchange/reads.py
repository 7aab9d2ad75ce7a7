"""Items of readers of labelled structures: one frame with its location, or why it is not a label."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from activelearn.frames import Frames, make_origin

if TYPE_CHECKING:
    from ase import Atoms

#: The folder of an iteration of DP-GEN.
_ITERATION: Final = re.compile(r"iter\.\d{6}")
#: Characters that the name of a trajectory may have (the field `walk` of an origin).
_MAX_WALK: Final = 96


@dataclass(frozen=True)
class Read:
    """One frame of a file.

    Parameters
    ----------
    where
        File and number of the frame, human-readable.
    frame
        The frame; None if `reason` tells why there is none.
    reason
        Why it is not a label, a key of :data:`activelearn.exchange.REFUSALS`, or None.
    """

    where: str
    frame: Frames | None
    reason: str | None = None


def source(path: Path, suffix: str = "") -> str:
    """Return the trajectory that the frames of a file belong to: its name and its folder's, no more of the path.

    Below ``iter.000002`` of a run of DP-GEN the path from there on: each iteration has a ``02.fp/data.000`` of its own.
    """
    parts = path.absolute().parts
    first = next((k for k, part in enumerate(parts[:-1]) if _ITERATION.fullmatch(part)), max(len(parts) - 2, 0))
    return "/".join(parts[first:])[len(suffix) - _MAX_WALK :] + suffix


def from_atoms(image: Atoms, walk: str) -> tuple[Frames, str | None]:
    """Return one frame, and which label it lacks, if any."""
    results = image.calc.results if image.calc is not None else {}
    lacking = [name for name in ("energy", "forces", "stress") if results.get(name) is None]
    for name in lacking:
        results.pop(name, None)  # ASE stores None for a stress that it could not read
    frame = Frames.from_ase([image])
    found = image.info.get("walk")
    name = found if isinstance(found, str) and found and "=" not in found else walk  # ASE misreads an empty value
    reason = f"no {lacking[0]}" if lacking and not (lacking == ["stress"] and not image.pbc.all()) else None
    return with_walk(frame, name), reason


def with_walk(frame: Frames, walk: str) -> Frames:
    """Return the frame as one of this trajectory."""
    return replace(frame, origin=make_origin(len(frame), walk=walk))
