"""How names, units, formulas and conditions are written in a figure."""

from __future__ import annotations

import re
from typing import Final

_WORDS: Final = {
    "density": "density",
    "volume_per_atom": "volume per atom",
    "free_volume": "free volume",
    "bulk_modulus": "bulk modulus",
    "bulk_modulus_hill": "bulk modulus (Hill)",
    "youngs_modulus": "Young's modulus",
    "shear_modulus": "shear modulus",
    "poisson_ratio": "Poisson's ratio",
}
#: Names with an element, and their labels.
_PATTERNS: Final = (
    (r"([A-Z][a-z]?)_coordination", r"anions around \1"),
    (r"([A-Z][a-z]?)_([A-Z][a-z]?)_share", r"\1-\2 share of them"),
    (r"conductivity_([A-Z][a-z]?)", r"\1 conductivity"),
    (r"activation_energy_([A-Z][a-z]?)", r"activation energy of \1"),
    (r"D_([A-Z][a-z]?)", r"D of \1"),
    (r"([A-Z][a-z]?)_in_chains", r"\1 in chains"),
    (r"([A-Z][a-z]?)_chain_length", r"mean length of \1 chains"),
    (r"([A-Z][a-z]?)_chains_of_three", r"\1 chains of three"),
    (r"([A-Z][a-z]?)([0-9])", r"\1$^\2$"),
    (r"([A-Z][a-z]?)1([A-Z][a-z]?)", r"\1$^{1\2}$"),
    (r"([A-Z][a-z]?)([0-9])c", r"\2-coordinate \1"),
    (r"([A-Z][a-z]?)2ES", r"\1$^2$, edge-sharing"),
    (r"([A-Z][a-z]?)2_corner", r"\1$^2$, corner-sharing"),
    (r"([A-Z][a-z]?)_other", r"other \1"),
    (r"free_([A-Z][a-z]?)", r"free \1"),
)


def plain(text: str) -> str:
    """Return text with escaped dollars."""
    return text.replace("$", r"\$")


def word(name: str) -> str:
    """Return a readable name of a result."""
    for pattern, said in _PATTERNS:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, said, name)
    return _WORDS.get(name, plain(name.replace("_", " ")))


def units(text: str) -> str:
    """Return text with superscript powers of units: cm3, Å2."""
    return re.sub(r"(cm|Å)([23])", r"\1$^\2$", text).replace(" x T", " \u00d7 T")


def axis(name: str, unit: str) -> str:
    """Return the label of an axis: what, and its unit in brackets (none for a pure number)."""
    return word(name) if unit == "1" else f"{word(name)} ({units(unit)})"


def formula(title: str) -> str:
    """Return the title of a series with subscripts: Na4P2S7-xOx as Na$_4$P$_2$S$_{7-x}$O$_x$.

    An amount follows an element: a number, x, or both. No element ends in x.
    """
    return re.sub(r"([A-Z](?:(?!x)[a-z])?)([0-9.]+[-+]x|[0-9.]+|x(?![a-z]))", r"\1$_{\2}$", plain(title))


def file_part(value: object) -> str:
    """Return a value as part of a file name."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")
