"""Files named by a campaign or a study that have moved since: recognised by content, and kept under the original name.

Sealed documents name a file by its original path, from which task ids and random numbers derive. A folder
that moves to another disk or computer therefore keeps these names, together with the current paths.
"""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from activelearn.config.exploring import System
from activelearn.config.files import as_word
from activelearn.config.packing import Packed
from activelearn.config.potential import Committee, DeePMDModels, LammpsStyle
from activelearn.config.section import Section

S = TypeVar("S", bound=Section)


class Moved(str):
    """A path (or a LAMMPS line that contains paths) as first written; it compares equal to that and is dumped as that.

    Parameters
    ----------
    text
        As first written.
    now
        What to open instead.
    """

    now: str

    def __new__(cls, text: str, now: str) -> Moved:
        """Return the string with its current path."""
        made = super().__new__(cls, text)
        made.now = now
        return made


def here(text: str) -> str:
    """Return the current location of a file."""
    return text.now if isinstance(text, Moved) else text


def at_hand(section: S) -> S:
    """Return a section with the current paths of its files."""
    found: S = _changed(section, here)
    return found


def moved(section: S, moves: Mapping[str, str]) -> S:
    """Return a section as sealed, whose paths know the current locations of their files."""
    found: S = _changed(section, lambda text: Moved(text, moves[text]) if text in moves else text)
    return found


def as_begun(given: S, moves: Mapping[str, str]) -> S:
    """Return a section as read now, with the paths by which its folder knows the files."""
    names = {now: before for before, now in reversed([*moves.items()])}
    found: S = _changed(at_hand(given), lambda text: Moved(names[text], text) if text in names else text)
    return found


def moves(begun: Iterable[Section], given: Section) -> dict[str, str]:
    """Return the current locations of the files named in sealed documents, by their sealed paths.

    A file with a sealed checksum is found by it, under any name. Any other file is found at the same location in the
    document: if its old path no longer exists and the file name is the same, or if it has the same content.

    Parameters
    ----------
    begun
        The sealed documents, the last one first.
    given
        The same document as read now.
    """
    given = at_hand(given)
    known, found = dict(_sealed_files(given)), dict[str, str]()
    by_content: dict[str, list[str]] = {}
    for path, sha256 in known.items():
        by_content.setdefault(sha256, []).append(path)
    for document in begun:
        files = dict(_sealed_files(document))
        for path, sha256 in files.items():
            if known.get(path) != sha256 and (same := by_content.get(sha256)):
                found.setdefault(path, next((one for one in same if Path(one).name == Path(path).name), same[0]))
        for before, now in _side_by_side(document, given):
            if before not in files and now not in known and _is_same(before, now):
                found.setdefault(before, now)
        words = {as_word(path): as_word(now) for path, now in found.items()}
        styles = [value for value in _within(document) if isinstance(value, LammpsStyle)]
        for line in (line for style in styles for line in (style.pair_style, *style.pair_coeff)):
            if (there := " ".join(words.get(word, word) for word in line.split(" "))) != line:
                found.setdefault(line, there)
    return found


def _is_same(before: str, now: str) -> bool:
    """Return whether two absolute paths name one file or folder, which may have moved, or files of equal content."""
    try:
        if not Path(before).exists():
            return Path(before).name == Path(now).name
        return Path(before).samefile(now) or (Path(before).is_file() and filecmp.cmp(before, now, shallow=False))
    except (OSError, ValueError):
        return False


def _side_by_side(before: Any, now: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - a section, or what is in it
    """Yield absolute paths that differ at the same location in two documents."""
    if isinstance(before, str) and isinstance(now, str):
        if before != now and before.startswith("/") and now.startswith("/"):
            yield before, now
    elif isinstance(before, BaseModel | dict) and isinstance(now, BaseModel | dict):
        items, others = dict(before), dict(now)
        for key in items.keys() & others.keys():
            yield from _side_by_side(items[key], others[key])
    elif isinstance(before, tuple | list) and isinstance(now, tuple | list) and len(before) == len(now):
        for one, other in zip(before, now, strict=True):
            yield from _side_by_side(one, other)


def _sealed_files(document: Section) -> Iterator[tuple[str, str]]:
    """Yield path and sha256 of every file whose checksum is stored with it."""
    for value in _within(document):
        match value:
            case System(seed=str(path), sha256=str(sha256)):
                yield path, sha256
            case Packed():
                yield from ((path, value.sha256[unit]) for unit, path in value.geometry.items() if unit in value.sha256)
            case DeePMDModels() | Committee():
                yield from zip(value.models, value.sha256, strict=False)
            case LammpsStyle():
                yield from value.files_sha256.items()
            case _:
                pass


def _within(value: Any) -> Iterator[Any]:  # noqa: ANN401 - a section, or what is in it
    """Yield a section and its contents, at any depth."""
    yield value
    parts = dict(value).values() if isinstance(value, BaseModel | dict) else value
    for part in parts if isinstance(value, BaseModel | dict | tuple | list) else ():
        yield from _within(part)


def _changed(value: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401 - a section, or what is in it
    """Return the same with its strings changed; objects without strings to change are returned as they are."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, BaseModel):
        new = {key: changed for key, part in value if (changed := _changed(part, change)) is not part}
        return value.model_copy(update=new) if new else value
    if isinstance(value, dict):
        items = {_changed(key, change): _changed(part, change) for key, part in value.items()}
        is_same = all(a is b and value[a] is items[b] for a, b in zip(value, items, strict=True))
        return value if is_same else items
    if isinstance(value, tuple | list):
        parts = [_changed(part, change) for part in value]
        return value if all(a is b for a, b in zip(value, parts, strict=True)) else type(value)(parts)
    return value
