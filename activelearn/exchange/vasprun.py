"""vasprun.xml of VASP, ionic step by ionic step.

The energy is the free energy (``e_fr_energy``, TOTEN of the OUTCAR) minus ``PSTRESS`` times volume, which VASP adds to
it in the summary of a step. A step is a label if its electronic loop ended before NELM iterations were used up.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from activelearn.errors import ConfigError
from activelearn.exchange.outcar import NELM
from activelearn.exchange.reads import Read, source
from activelearn.exchange.texts import TORN, Floats, number
from activelearn.frames import Frames, make_origin
from activelearn.structures import opened
from activelearn.units import EV_PER_A3_IN_GPA

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_KBAR = 0.1 / EV_PER_A3_IN_GPA  # in eV/Å^3


def read_vasprun(path: Path) -> Iterator[Read]:
    """Read the ionic steps of a vasprun.xml; of a truncated one, the complete ones.

    Raises
    ------
    ConfigError
        It is not a vasprun.xml, or it has no finished ionic step.
    """
    symbols: tuple[str, ...] = ()
    tags: dict[str, float] = {}
    k, is_torn = 0, ""
    with opened(path) as file:
        try:
            for _, element in ElementTree.iterparse(file):
                if element.tag == "atominfo":
                    rows = element.findall("array[@name='atoms']/set/rc")
                    symbols = tuple((row[0].text or "").strip() for row in rows)
                elif element.tag == "parameters":
                    tags = {name: _number(element, name, tags.get(name, x)) for name, x in _DEFAULTS.items()}
                elif element.tag == "calculation":
                    yield _step(element, symbols, tags or _DEFAULTS, f"{path} step {k}", source(path))
                    element.clear()
                    k += 1
        except ElementTree.ParseError as error:
            is_torn = f" ({error})"
            if k:
                yield Read(f"{path} step {k}: {error}", None, "not finished")
    if k == 0:
        raise ConfigError(
            f"{path}: contains no finished ionic step{is_torn} - expected the vasprun.xml of a run - leave it out"
        )


_DEFAULTS = {"NELM": float(NELM), "ISIF": 2.0, "PSTRESS": 0.0}


def _step(element: Element, symbols: tuple[str, ...], tags: dict[str, float], where: str, walk: str) -> Read:
    n = len(element.findall("scstep"))
    if n == 0:
        return Read(where, None, "of a machine-learned force field")
    if n >= tags["NELM"]:
        return Read(where, None, "SCF not converged")
    if any(len(element.findall(name)) > 1 for name in ("structure", "energy", "varray[@name='forces']")):
        return Read(where, None, TORN)  # two steps are merged
    try:
        cell = _rows(element, "structure/crystal/varray[@name='basis']", 3)
        fractions = _rows(element, "structure/varray[@name='positions']", len(symbols))
        forces = _rows(element, "varray[@name='forces']", len(symbols))
        stress = _rows(element, "varray[@name='stress']", 3)  # kbar, positive in compression
        energy = element.find("energy/i[@name='e_fr_energy']")
    except ValueError:
        return Read(where, None, TORN)
    if cell is None or fractions is None:
        return Read(where, None, TORN)
    if energy is None or forces is None:
        return Read(where, None, "no energy" if energy is None else "no forces")
    volume = abs(float(np.linalg.det(cell)))
    frame = Frames(
        symbols=symbols,
        cell=cell[None],
        positions=(fractions @ cell)[None],
        energy=np.array([number(energy.text) - tags["PSTRESS"] * _KBAR * volume]),
        forces=forces[None],
        virial=None if stress is None else volume * _KBAR * stress[None],
        origin=make_origin(1, walk=walk),
    )
    if stress is not None and tags["ISIF"] == 1:
        return Read(where, None, "only the trace of the stress")
    return Read(where, frame, "no stress" if stress is None else None)


def _number(element: Element, name: str, default: float) -> float:
    found = element.find(f".//i[@name='{name}']")
    return default if found is None else number(found.text)


def _rows(element: Element, place: str, n: int) -> Floats | None:
    """Return an (n, 3) array, or None if there is none.

    Raises
    ------
    ValueError
        It has another shape.
    """
    found = element.find(place)
    if found is None:
        return None
    return np.array([[number(word) for word in (row.text or "").split()] for row in found], dtype=float).reshape(n, 3)
