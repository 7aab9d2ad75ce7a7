"""What a YAML of others would run: a campaign is a program, and wants the user's consent once for what it names.

A file of one's own in (or below) the working folder needs no consent, nor does what a preset names. It is
recorded for the user, not in the campaign folder: a folder that somebody hands on cannot vouch for itself.
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
    """A program that a YAML names and no preset does.

    Parameters
    ----------
    place
        ``file:line``.
    key, value
        Such as ``label.reference.python`` and a path.
    doubt
        Why the file is not taken for the user's own; empty if it is.
    """

    place: str
    key: str
    value: str
    doubt: str

    @property
    def item(self) -> str:
        """What the consent is given for, wherever it stands."""
        names = [part for part in self.key.split(".") if not part.isdecimal()]
        is_path = self.value.startswith("/") and not re.search(r"\s", self.value)
        return f"{names[-1]}: {os.path.normpath(self.value) if is_path else self.value}"

    def __str__(self) -> str:
        """Return it in a line, for an error."""
        return f"{self.place}: {self.key}: {self.value}: would be run with your rights, and {self.doubt}"


def read_noted(load: Callable[[], T], file: str | Path, section: str) -> tuple[T, list[Named]]:
    """Read a YAML, and return with it the programs that it names and no preset does.

    Parameters
    ----------
    load
        Reads it.
    file
        The YAML, or a campaign folder whose models are taken.
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
        return found, []  # presets alone
    doubt = next(filter(None, doubts), "")
    named = []
    for at, value in programs(found):
        one = Named(_place(str(file), at, section), ".".join(map(str, at)), value, doubt)
        named += [one] if one.item not in _of_presets() else []
    return found, named


def _place(file: str, at: Location, section: str) -> str:
    """Return ``file:line``; a section may stand in a file of its own, or in a campaign."""
    found = place(file, at, section)
    return found if found != file else place(file, (section, *at), section)


def doubt_of(path: Path, *, anywhere: bool = False) -> str:
    """Return why a file is not taken for one of the user's own; empty if it is.

    Parameters
    ----------
    path
        A file or folder; of a link what it leads to is looked at.
    anywhere
        It need not be in or below the working folder.
    """
    try:
        found = path.stat()
    except OSError as error:
        return f"{path} cannot be looked at ({error.strerror})"
    if found.st_uid != os.geteuid():
        return f"{path} is owned by {_name_of(found.st_uid)}"
    if found.st_mode & stat.S_IWOTH:  # with a umask of 002 what is one's own may be written by the group
        return f"{path} may be written by everybody (mode {stat.S_IMODE(found.st_mode):03o})"
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
    """Return what the presets name, but for those of engines that are broken, which are told to who asks for them."""
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
    """Return those of the programs that want the user's consent and do not have it yet.

    Parameters
    ----------
    named
        What the YAML files name.
    folder
        Of a campaign or a study: what it was begun with goes on in it, if the folder is the user's own.
    """
    doubted = [one for one in named if one.doubt]
    known = {*_trusted(), *_begun_with(folder)} if doubted else set()
    return [one for one in doubted if one.item not in known]


def trust(named: Iterable[Named]) -> None:
    """Record the user's consent to these programs.

    Raises
    ------
    StoreError
        It cannot be written; nothing was run.
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
            raise StoreError(f"{what} - wanted a record of --trust - remove it, and give --trust again") from None


def _begun_with(folder: Path | None) -> Iterator[str]:
    """Yield what the campaigns or the study of a folder name, if it is the user's own."""
    if folder is None or not folder.is_dir() or doubt_of(folder, anywhere=True):
        return
    if (folder / "study.yaml").is_file():
        yield from _items([StudyStore(folder).study])
    elif Store(folder).campaign_files():
        yield from _items([Store(folder).latest_campaign()])
