"""Files of the configuration: location of presets, reading YAML, and merging mappings."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from activelearn.config.yaml12 import MAX_BYTES, load
from activelearn.errors import ConfigError

#: Records the YAML files that are read; see :func:`noting_files`.
_NOTED: Final[ContextVar[list[Path] | None]] = ContextVar("noted", default=None)
#: The package's folder.
PACKAGE: Final = Path(__file__).resolve().parent.parent


def shipped(name: str) -> Path:
    """Return the folder ``params`` or ``seeds``: inside the wheel, or next to the package in a checkout."""
    inside = PACKAGE / "_shipped" / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def preset_names(section: str) -> list[str]:
    """Return the presets of a section of params/, sorted."""
    return sorted(path.stem for path in (shipped("params") / section).glob("*.yaml"))


def preset_file(section: str, name: str) -> Path | None:
    """Return the file of a preset of ``params/<section>/``, or None; a name that contains a path is not a preset."""
    return shipped("params") / section / f"{name}.yaml" if name in preset_names(section) else None


#: Characters at which LAMMPS splits or ends a line.
_BREAKS: Final = re.compile(r"""[\s"'$&#;`\\]""")


def as_word(path: str) -> str:
    """Return an absolute path as one word of a line for LAMMPS: unchanged, or percent-encoded as ``file://``."""
    if _BREAKS.search(path) or not all(mark.isascii() or mark.isalnum() for mark in path):
        return Path(path).as_uri()
    return path


def as_path(word: str) -> Path | None:
    """Return the path that :func:`as_word` has percent-encoded; None for any other word."""
    return Path(unquote(word.removeprefix("file://"))) if word.startswith("file:///") else None


def yaml_text(path: Path) -> str:
    """Return the text of a YAML file.

    Raises
    ------
    ConfigError
        It cannot be read, or is not text.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            what = f"{path.stat().st_size / 1e6:.0f} MB"
            expected = f"expected a YAML file of at most {MAX_BYTES / 1e6:.0f} MB"
            raise ConfigError(f"{path}: {what} - {expected} - check the path")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: cannot be read, not UTF-8 - expected a YAML file - check the path") from None
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}) - expected a YAML file - check the path"
        ) from error


def read_yaml(path: Path) -> Any:  # noqa: ANN401 - raw YAML
    """Return the content of a YAML file.

    Raises
    ------
    ConfigError
        It cannot be read, or is not unambiguous YAML; see :mod:`activelearn.config.yaml12`.
    """
    if (noted := _NOTED.get()) is not None:
        noted.append(path.absolute())
    return load(yaml_text(path), str(path))


@contextmanager
def noting_files() -> Iterator[list[Path]]:
    """Record every YAML file that is read within this context: a campaign may name others, recursively."""
    noted: list[Path] = []
    token = _NOTED.set(noted)
    try:
        yield noted
    finally:
        _NOTED.reset(token)


def is_file(path: Path) -> bool:
    """Return whether there is a file; any text of a YAML may be passed."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or contains NUL
        return False


def is_there(path: Path) -> bool:
    """Return whether there is a file or a folder."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def expanded(text: str) -> Path:
    """Return a path with ``~`` expanded, if there is such a user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def checksum(path: Path) -> str | None:
    """Return the sha256 of a file, or None if it does not exist."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if is_file(path) else None


def merged(under: Any, over: Any) -> Any:  # noqa: ANN401 - raw YAML
    """Return `under` recursively updated with the keys of `over`."""
    if isinstance(under, Mapping) and isinstance(over, Mapping):
        return {
            key: merged(under[key], over[key]) if key in under and key in over else over.get(key, under.get(key))
            for key in [*under, *(key for key in over if key not in under)]
        }
    return over
