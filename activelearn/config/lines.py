"""Line numbers of values, for which a file with problems is read a second time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from activelearn.config.files import is_file, preset_file, yaml_text
from activelearn.config.yaml12 import Location, Parsed, parse
from activelearn.errors import ConfigError

#: Keys whose presets are in a folder of params/ with another name.
_FOLDERS: Final = {"potentials": "potential", "ase": "label"}


def place(where: str, at: Location, section: str = "") -> str:
    """Return ``file:line`` of a value, which may be in a preset that the file names.

    Parameters
    ----------
    where
        The file; anything else is returned as it is.
    at
        Location of the value in it, with presets resolved. Empty: the file as a whole.
    section
        The folder of ``params/`` that a file with ``preset: NAME`` at its top belongs to.
    """
    document = _document(Path(where))
    if document is None or not at:
        return where
    return _place(Path(where), document, at, section) or where


def _document(file: Path) -> Parsed | None:
    return _as_it_is(file, file.stat().st_mtime_ns) if is_file(file) else None


@lru_cache(maxsize=16)
def _as_it_is(file: Path, _changed: int) -> Parsed | None:
    try:
        return parse(yaml_text(file), str(file))
    except ConfigError:
        return None


def _place(file: Path, document: Parsed, at: Location, section: str) -> str | None:
    """Return the same, or None if the location is not in the file."""
    node, here = document.data, at[:0]
    for i, part in enumerate(at):
        is_there = part in node if isinstance(node, Mapping) else isinstance(node, list) and part in range(len(node))
        if is_there:
            node, here = node[part], (*here, part)
            section = _FOLDERS.get(part, part) if isinstance(part, str) else section
        elif preset := _preset(node, section, file):
            inner = _document(preset)
            below = at[i:] if section != "label" else ("reference", *at[i:])
            found = _place(preset, inner, below, section) if inner is not None else None
            if found is not None:
                return found
    return f"{file}:{document.line(here)}" if here else None


def _preset(node: Any, section: str, file: Path) -> Path | None:  # noqa: ANN401 - raw YAML
    """Return the file of the preset that a value names, if it names one."""
    name = node.get("preset") if isinstance(node, Mapping) else node
    if not isinstance(name, str):
        return None
    near = file.parent / name
    return preset_file(section, name) or next((path for path in (near, Path(name)) if is_file(path)), None)
