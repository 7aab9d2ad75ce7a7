"""Rotatable structures, drawn by the script of the page from embedded positions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from activelearn.frames import FloatArray, Frames
from activelearn.page.markup import Figure, Html, joined, tag
from activelearn.page.seen import SeenCampaign, SeenStudy

#: Covalent radius above which no bonds are drawn, Å: ions between the units of a network.
_ION_A: Final = 1.4
#: Maximum number of atoms of a structure that is drawn.
_MOST_ATOMS: Final = 5000


def of_campaign(seen: SeenCampaign) -> Iterator[Figure]:
    """Yield the frame with the worst forces."""
    found = seen.residual.worst if seen.residual is not None else None
    if seen.residual is not None and found is not None and found.frame.n_atoms <= _MOST_ATOMS:
        walk, step = str(found.frame.origin["walk"][0]), int(found.frame.origin["step"][0])
        yield Figure(
            name="worst",
            title=f"The worst frame labelled in iteration {seen.residual.iteration}",
            caption=f"Walk {walk}, step {step}: atoms coloured by their force error, from zero (pale) to "
            f"{found.error.max():.2f} eV/Å (red).",
            picture=turned(found.frame, found.error),
        )


def of_study(seen: SeenStudy) -> Iterator[Figure]:
    """Yield the last configurations of glasses."""
    for glass in seen.glasses:
        frame = seen.ends.get(glass.id)
        if frame is not None and frame.n_atoms <= _MOST_ATOMS:
            yield Figure(
                name=f"structure-{glass.id}",
                title=f"Structure of {glass.id}",
                caption=f"{glass.formula}, {glass.n_atoms} atoms at the end of the schedule [{glass.stamp}]; "
                "large ions without bonds.",
                picture=turned(frame),
            )


def turned(frame: Frames, values: FloatArray | None = None) -> Html:
    """Return a structure to be drawn by the script of the page.

    Parameters
    ----------
    frame
        One frame, Å.
    values
        (n_atoms,) values that colour atoms, eV/Å; None: by element.
    """
    from ase.data import atomic_numbers, covalent_radii
    from ase.data.colors import jmol_colors

    kinds = list(dict.fromkeys(frame.symbols))
    numbers = [atomic_numbers.get(kind, 0) for kind in kinds]
    about: list[dict[str, Any]] = [
        {
            "name": kind,
            "r": round(float(covalent_radii[z]), 2),
            "bonds": bool(covalent_radii[z] < _ION_A),
            "colour": [int(255 * part) for part in jmol_colors[z]],
        }
        for kind, z in zip(kinds, numbers, strict=True)
    ]
    data = {
        "kinds": about,
        "kind": [kinds.index(symbol) for symbol in frame.symbols],
        "at": np.round(frame.positions[0], 2).ravel().tolist(),
        "cell": np.round(frame.cell[0], 3).tolist(),
        "values": None if values is None else np.round(values, 3).tolist(),
    }
    coloured = [joined(_key(one["colour"]), " ", tag("b", one["name"]), " ") for one in about]
    legend = coloured if values is None else " ".join(kinds)
    said = f"{frame.formula}, a rotatable structure: arrow keys rotate it, plus and minus change its size"
    canvas = tag("canvas", said, data_atoms=json.dumps(data), tabindex="0", role="img", aria_label=said)
    return joined(
        canvas, tag("p", "Elements: ", legend, " - drag or use arrow keys to rotate, + and - to zoom.", class_="dim")
    )


def _key(colour: list[int]) -> Html:
    """Return a dot in the colour of an element."""
    fill = f"rgb({','.join(map(str, colour))})"
    return tag("svg", tag("circle", cx=6, cy=6, r=5, fill=fill), width=12, height=12, aria_hidden="true")
