"""Structures that can be rotated, drawn by the script of the page from positions in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn.frames import FloatArray, Frames
from activelearn.page.markup import Figure, Html, joined, tag
from activelearn.page.seen import SeenCampaign, SeenStudy
from activelearn.page.shots import Shot

#: Larger atoms than this have no bonds drawn: ions between the units of a network. Covalent radius, Å.
_ION_A: Final = 1.4
#: Atoms are bonded up to this multiple of the sum of their covalent radii.
_REACH: Final = 1.2
#: Structures with more atoms are not drawn.
_MOST_ATOMS: Final = 5000
#: Colours by value, from none to the largest: its lightness decreases monotonically, so it needs no colours.
_SCALE: Final = tuple((225 - 3 * k, 222 - 11 * k, 215 - 12 * k) for k in range(16))


def worst(seen: SeenCampaign) -> Iterator[Figure]:
    """Yield the frame that the members agree on least, and the one whose forces were predicted worst."""
    if (doubted := seen.doubted) is not None:
        walk, step = str(doubted.frame.origin["walk"][0]), int(doubted.frame.origin["step"][0])
        yield from _figure(
            "doubted",
            f"The worst frame of pass {doubted.iteration}",
            f"Atoms coloured by their force deviation over the members, up to {doubted.deviation.max():.2f} eV/Å: the "
            "largest of all frames that the walks kept (none of which is beyond select.rescue.max_devi_f).",
            [Shot(walk, f"walk {walk}, step {step}", doubted.frame, doubted.deviation)],
        )
    found = seen.residual.worst if seen.residual is not None else None
    if seen.residual is not None and found is not None:
        walk, step = str(found.frame.origin["walk"][0]), int(found.frame.origin["step"][0])
        deviation = float(found.frame.origin["max_devi_f"][0])
        said = f"walk {walk}, step {step}; its force deviation was {deviation:.2f} eV/Å"
        yield from _figure(
            "worst",
            f"The worst frame labelled in iteration {seen.residual.iteration}",
            f"Atoms coloured by the error of the force on them, up to {found.error.max():.2f} eV/Å: the model that "
            "drove the walk, against the reference.",
            [Shot(walk, said, found.frame, found.error)],
        )


def of_data(seen: SeenCampaign) -> Iterator[Figure]:
    """Yield what walks start from, and what was refused."""
    yield from _figure("starts", "Starting structures", "What walks and initial data start from.", seen.starts)
    yield from _figure(
        "refused", "Refused frames", "Chosen, but not added to the data set; the last of them.", seen.refused
    )


def of_study(seen: SeenStudy) -> Iterator[Figure]:
    """Yield the last configurations of glasses."""
    shots = [
        Shot(glass.id, f"{glass.formula}, {glass.n_atoms} atoms [{glass.stamp}]", seen.ends[glass.id])
        for glass in seen.glasses
        if glass.id in seen.ends
    ]
    name = f"structures-{seen.folder.name}" if seen.folder.name else "structures"
    said = "Glasses at the end of their schedule; large ions without bonds."
    yield from _figure(name, "Structures of the glasses", said, shots)


def _figure(name: str, title: str, caption: str, shots: Sequence[Shot]) -> Iterator[Figure]:
    """Yield one figure with all of the structures that can be drawn."""
    drawn = [one for one in shots if one.frame.n_atoms <= _MOST_ATOMS]
    if drawn:
        yield Figure(name=name, title=title, caption=caption, picture=turned(drawn))


def turned(shots: Sequence[Shot]) -> Html:
    """Return structures as the script of the page draws them: one at a time, chosen from a list if there are more."""
    said = "a structure that can be turned: arrow keys turn it, plus and minus change its size"
    data = json.dumps([_drawn(one) for one in shots], ensure_ascii=False)
    has_values = any(one.values is not None for one in shots)
    return joined(
        tag("canvas", said, data_shots=data, tabindex="0", role="img", aria_label=f"{shots[0].frame.formula}, {said}"),
        tag("p", "", class_="told", aria_live="polite"),
        _bar() if has_values else None,
        tag(
            "p", "Drag or use arrow keys to turn, + and - for the size; point at an atom to see it named.", class_="dim"
        ),
    )


def _drawn(shot: Shot) -> dict[str, Any]:
    """Return one structure for the script: elements with covalent radius (Å), positions, bonds, cell, values.

    Images beyond the cell that complete units stand behind the atoms; ``of`` says of which atom each is.
    """
    from ase.data import atomic_numbers, covalent_radii
    from ase.data.colors import jmol_colors

    frame = shot.frame.wrapped() if all(shot.frame.pbc) else shot.frame
    kinds = list(dict.fromkeys(frame.symbols))
    numbers = [atomic_numbers.get(kind, 0) for kind in kinds]
    kind = np.array([kinds.index(symbol) for symbol in frame.symbols])
    bonds, of, at = _bonds(frame, covalent_radii[numbers][kind])
    return {
        "name": shot.name,
        "said": shot.said,
        "kinds": [
            {
                "name": name,
                "r": round(float(covalent_radii[z]), 2),
                "colour": [int(255 * part) for part in jmol_colors[z]],
            }
            for name, z in zip(kinds, numbers, strict=True)
        ],
        "kind": kind[of].tolist(),
        "of": of.tolist(),
        "at": np.round(at, 2).ravel().tolist(),
        "bonds": bonds.ravel().tolist(),
        "cell": np.round(frame.cell[0], 3).tolist(),
        "values": None if shot.values is None else np.round(shot.values, 3)[of].tolist(),
        "scale": None if shot.values is None else _SCALE,
    }


def _bonds(frame: Frames, radii: FloatArray) -> tuple[NDArray[np.intp], NDArray[np.intp], FloatArray]:
    """Return the bonds of a frame, and its atoms with the images that complete units across the walls of the cell.

    Parameters
    ----------
    frame
        One frame, Å.
    radii
        (n_atoms,) covalent radii, Å.

    Returns
    -------
    bonds, of, at
        (n_bonds, 2) pairs of rows of `at`, (n,) atom that each row is (an image of), (n, 3) positions, Å.
    """
    from matscipy.neighbours import neighbour_list

    positions, n = frame.positions[0], frame.n_atoms
    bonded = np.flatnonzero(radii < _ION_A)
    if len(bonded) == 0 or not all(frame.pbc):
        return np.empty((0, 2), dtype=np.intp), np.arange(n), positions
    i, j, shift, distance = neighbour_list(
        "ijSd", positions=positions[bonded], cell=frame.cell[0], pbc=frame.pbc, cutoff=2.0 * _REACH * _ION_A
    )
    i, j = bonded[i], bonded[j]
    near = distance < _REACH * (radii[i] + radii[j])
    i, j, shift = i[near], j[near], shift[near]
    degree = np.bincount(i, minlength=n)
    inside = ~shift.any(axis=1)
    beyond = np.flatnonzero(~inside & (degree[i] > degree[j]))  # an anion beside its cation, not the other way round
    pairs = np.stack([i, j], axis=1)[inside & (i < j)]
    images = np.stack([i[beyond], n + np.arange(len(beyond))], axis=1)
    at = np.concatenate([positions, positions[j[beyond]] + shift[beyond] @ frame.cell[0]])
    return np.concatenate([pairs, images]), np.concatenate([np.arange(n), j[beyond]]), at


def _bar() -> Html:
    """Return the bar of colours; the script writes the numbers of the structure that is shown."""
    width = 12.0
    boxes = [
        tag("rect", x=width * k, y=0, width=width, height=12, fill=f"rgb({r},{g},{b})")
        for k, (r, g, b) in enumerate(_SCALE)
    ]
    texts = [tag("text", "", x=x, y=26, class_=f"tick {way}") for x, way in ((0, ""), (96, "mid"), (192, "end"))]
    unit = tag("text", "eV/Å", x=200, y=11, class_="tick")
    return tag("svg", boxes, texts, unit, class_="bar", viewBox="-2 0 290 30", width=290, height=30, role="img")
