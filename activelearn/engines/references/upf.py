"""Pseudopotentials in UPF files: whose they are, and the functional that they were made for."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Final

from activelearn.config.labelling import plain_functional
from activelearn.errors import ConfigError

#: What UPF files call a functional; its words with one space between them.
FUNCTIONALS: Final = {
    "pbe": {"PBE", "SLA PW PBX PBC", "SLA PW PBE PBE"},
    "pbesol": {"PBESOL", "SLA PW PSX PSC"},
    "lda": {"LDA", "PZ", "PW", "SLA PZ NOGX NOGC", "SLA PW NOGX NOGC"},
    "blyp": {"BLYP", "SLA LYP B88 BLYP"},
    "tpss": {"TPSS", "SLA PW TPSS TPSS"},
}
#: The lines of a head in version 1.
_LINES: Final = {
    "element": r"^\s*(\w+)\s+Element",
    "functional": r"^\s*(.*?)\s+\S*\s*Exchange-Correlation",
    "z_valence": r"^\s*(\S+)\s+Z valence",
}


def head(path: Path) -> dict[str, Any]:
    """Return element (None: this is no UPF file), functional and valence of a file of version 2 or 1.

    Parameters
    ----------
    path
        The file; version 2 has attributes, version 1 a line each.
    """
    text = path.read_text(encoding="latin-1")
    found = re.search(r"<PP_HEADER\b(.*?)(?:/>|</PP_HEADER>)", text, re.DOTALL)
    inside = found[1] if found else ""
    words = dict(re.findall(r"""(\w+)\s*=\s*["']\s*([^"']*?)\s*["']""", inside))
    if "element" not in words:
        lines = {key: re.search(pattern, inside, re.MULTILINE) for key, pattern in _LINES.items()}
        words = {key: match[1] for key, match in lines.items() if match}
    return {
        "element": words.get("element"),
        "functional": " ".join(words.get("functional", "").upper().replace("-", " ").split()),
        "valence": float(words.get("z_valence", "1").lower().replace("d", "e")),
    }


def checked(where: str, element: str, path: Path, functional: str | None, advice: str) -> dict[str, str]:
    """Return what the labels depend on of a pseudopotential: its functional and its checksum.

    Parameters
    ----------
    where
        The key that names it.
    element, path
        Whose it should be, and the file.
    functional
        That it should be made for; None: any.
    advice
        What else can be done if it was made for another functional.

    Raises
    ------
    ConfigError
        It is missing, another element's, or another functional's.
    """
    if not path.is_file():
        raise ConfigError(
            f"{where}: no file {path} - expected the UPF file of {element} - check pseudo_dir and the name"
        )
    found = head(path)
    if found["element"] is None:
        raise ConfigError(
            f"{where}: {path} has no PP_HEADER with an element - expected a UPF file - convert it (upfconv.x)"
        )
    if found["element"] != element:
        raise ConfigError(f"{where}: {path} is of {found['element']} - expected one of {element} - check the name")
    names = FUNCTIONALS.get(plain_functional(functional or ""), set())
    if functional is not None and found["functional"] not in names:
        raise ConfigError(
            f"{where}: {path} is for {found['functional'] or 'no functional'} - expected {functional} "
            f"({', '.join(sorted(names))}) - take another file, {advice}"
        )
    return {"functional": found["functional"], "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
