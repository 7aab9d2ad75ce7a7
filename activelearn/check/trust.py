"""Consent to programs: a campaign from elsewhere may name programs, each of which needs the user's consent once.

The user's own files in (or below) the working folder need no consent, nor do programs named in presets. It is
recorded for the user, not in the campaign folder, since a folder that is passed on cannot vouch for itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from activelearn.config import Section, load_label, load_machine, preset_names, shipped
from activelearn.config.files import expanded, noting_files
from activelearn.config.lines import place
from activelearn.config.program import programs
from activelearn.config.yaml12 import Location
from activelearn.errors import ConfigError, Damaged, StoreError
from activelearn.store import Store, StudyStore
from activelearn.store.files import publish_json, read_object, sealed

T = TypeVar("T", bound=Section)


class Named(NamedTuple):
    """A program named in a YAML and not in a preset.

    Parameters
    ----------
    place
        ``file:line``.
    key, value
        Such as ``label.reference.python`` and a path.
    doubt
        Why the file is not regarded as the user's own; empty if it is.
    """

    place: str
    key: str
    value: str
    doubt: str

    @property
    def item(self) -> str:
        """What the consent applies to, whatever file names it."""
        names = [part for part in self.key.split(".") if not part.isdecimal()]
        is_path = self.value.startswith("/") and not re.search(r"\s", self.value)
        return f"{names[-1]}: {os.path.normpath(self.value) if is_path else self.value}"

    def __str__(self) -> str:
        """Return it as one line of an error."""
        return f"{self.place}: {self.key}: {self.value}: would run with your permissions, and {self.doubt}"


def read_noted(load: Callable[[], T], file: str | Path, section: str) -> tuple[T, list[Named]]:
    """Read a YAML and return it with the programs that it names and no preset does.

    Parameters
    ----------
    load
        The function that reads it.
    file
        The YAML, or a campaign folder whose models are used.
    section
        The folder of ``params/`` that it belongs to.
    """
    with noting_files() as files:
        found = load()
    if Path(file).is_dir():
        doubts = [doubt_of(Path(file), anywhere=True)]
    else:
        presets = shipped("params").resolve()
        doubts = [doubt_of(one) for one in files if not one.resolve().is_relative_to(presets)]
    if files and not doubts:
        return found, []  # only presets
    doubt = next(filter(None, doubts), "")
    named = []
    for at, value in programs(found):
        one = Named(_place(str(file), at, section), ".".join(map(str, at)), value, doubt)
        named += [one] if one.item not in _of_presets() else []
    return found, named


def _place(file: str, at: Location, section: str) -> str:
    """Return ``file:line``; a section may be in its own file or in a campaign."""
    found = place(file, at, section)
    return found if found != file else place(file, (section, *at), section)


def doubt_of(path: Path, *, anywhere: bool = False) -> str:
    """Return why a file is not regarded as the user's own; empty if it is.

    Parameters
    ----------
    path
        A file or folder; links are followed.
    anywhere
        It does not have to be in or below the working folder.
    """
    try:
        found = path.stat()
    except OSError as error:
        return f"{path} cannot be accessed ({error.strerror})"
    if found.st_uid != os.geteuid():
        return f"{path} is owned by {_name_of(found.st_uid)}"
    if found.st_mode & stat.S_IWOTH:  # with a umask of 002 the user's own files are group-writable
        return f"{path} is world-writable (mode {stat.S_IMODE(found.st_mode):03o})"
    if not (anywhere or path.resolve().is_relative_to(Path.cwd().resolve())):
        return f"{path} is not in this folder"
    return ""


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


@lru_cache(maxsize=1)
def _of_presets() -> frozenset[str]:
    """Return what the presets name, except presets of broken engines, which are reported when they are used."""
    found: list[Section] = [load_machine(name) for name in preset_names("machine")]
    for name in preset_names("label"):
        with contextlib.suppress(ConfigError):
            found.append(load_label(name))
    return frozenset(_items(found))


def _items(sections: Iterable[Section]) -> Iterator[str]:
    for section in sections:
        for at, value in programs(section):
            yield Named("", ".".join(map(str, at)), value, "").item


# --- consent ----------------------------------------------------------------------------------------------------------


def lacking(named: Iterable[Named], folder: Path | None = None) -> list[Named]:
    """Return the programs that still need the user's consent.

    Parameters
    ----------
    named
        What the YAML files name.
    folder
        Of a campaign or a study; what it was started with stays trusted in it if the folder is the user's own.
    """
    doubted = [one for one in named if one.doubt]
    known = {*_trusted(), *_begun_with(folder)} if doubted else set()
    return [one for one in doubted if one.item not in known]


def trust(named: Iterable[Named]) -> None:
    """Record the user's consent to these programs.

    Raises
    ------
    StoreError
        It cannot be written; nothing has run.
    """
    items = sorted({one.item for one in named})
    name = hashlib.sha256("\n".join(items).encode()).hexdigest()[:12]
    publish_json(_records() / f"trusted-{name}.json", sealed({"trusted": items, "time": time.time()}))


def _records() -> Path:
    """Return the folder in which the user's consent is kept."""
    return expanded(os.environ.get("XDG_STATE_HOME") or "~/.local/state") / "activelearn"


def _trusted() -> Iterator[str]:
    for path in sorted(_records().glob("trusted-*.json")):
        try:
            yield from map(str, read_object(path, trusted=list)["trusted"])
        except Damaged as error:
            what = str(error).partition(" - ")[0]
            raise StoreError(f"{what} - expected a record of --trust - remove it and use --trust again") from None


def _begun_with(folder: Path | None) -> Iterator[str]:
    """Yield what the campaigns or the study of a folder name, if it is the user's own."""
    if folder is None or not folder.is_dir() or doubt_of(folder, anywhere=True):
        return
    if (folder / "study.yaml").is_file():
        yield from _items([StudyStore(folder).study])
    elif Store(folder).campaign_files():
        yield from _items([Store(folder).latest_campaign()])
