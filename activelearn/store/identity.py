"""Identity: the name of a folder for its scratch, its journals and its Workflows, which no copy of it shares.

``uuid`` has 32 hexadecimal digits; ``place.json`` beside it says where the folder was when it last had this identity.
A folder that was moved is the same: its directory has the inode of before, or stands where it stood, and no other
folder of that name stands where it stood. Any other is a copy, and takes an identity of its own before it writes
anything: two folders with one name would remove each other's scratch and merge each other's journals of a shared
ledger.
"""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path
from typing import Any

from activelearn.errors import StoreError
from activelearn.store.files import HOST, disk_errors, publish, read_json, replace_json, unique_suffix


class Identity:
    """Who a folder is.

    Parameters
    ----------
    folder
        The folder.
    inside
        Where in it ``uuid`` and ``place.json`` stand.
    """

    def __init__(self, folder: Path, inside: str = ".") -> None:
        self._folder = folder
        self._uuid = folder / inside / "uuid"
        self._place = folder / inside / "place.json"

    def read(self) -> str:
        """Return the identity.

        Raises
        ------
        StoreError
            It is missing or damaged; nothing was done in its name.
        """
        try:
            found = self._uuid.read_text(errors="replace")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            found = ""
        if not re.fullmatch("[0-9a-f]{32}", found):
            what = "is missing or empty" if not found else f"is damaged ({found[:40]!r})"
            raise StoreError(
                f"{self._uuid}: {what} - wanted the 32 hexadecimal digits that name this folder - restore it from a "
                "copy, or remove this file and give the same command again: the folder gets a new identity, and no "
                "label is lost"
            )
        return found

    def begin(self) -> None:
        """Give a new folder its identity; the one that is there already stands."""
        if publish(self._uuid, uuid.uuid4().hex.encode()):
            replace_json(self._place, self._here())

    def settle(self, *, is_known_elsewhere: bool = False) -> str | None:
        """Take a new identity if this folder is a copy, or lost it (call it only with the lease held).

        Parameters
        ----------
        is_known_elsewhere
            Somebody else, such as a LaunchPad, knows a folder of an earlier version (without ``place.json``) by its
            identity: it keeps that.

        Returns
        -------
        str or None
            Why the identity is a new one; None: it stands.
        """
        if not self._uuid.is_file():
            self.begin()
            return "it had lost its own"
        self.read()
        here = self._here()
        known = self._known()
        if known == here:
            return None
        if self._is_same(known, here) or (known is None and is_known_elsewhere):
            replace_json(self._place, here)
            return None
        self._renew()
        replace_json(self._place, here)
        return None if known is None else f"it was copied from {known.get('path')}"

    def beside(self, path: Path) -> Path:
        """Return where a folder is that stood beside this one, if it is gone from there and has moved along with it."""
        before = (self._known() or {}).get("path")
        if not isinstance(before, str) or path.exists():
            return path
        found = Path(os.path.normpath(self._folder.resolve() / os.path.relpath(path, before)))
        return found if found.is_dir() else path

    def _known(self) -> dict[str, Any] | None:
        """Return where the folder was; None: an earlier version did not note it, or the note is damaged."""
        try:
            found = read_json(self._place)
        except (FileNotFoundError, StoreError):
            return None
        return found if isinstance(found, dict) else None

    def _is_same(self, known: dict[str, Any] | None, here: dict[str, Any]) -> bool:
        if known is None:
            return False
        if all(known.get(key) == here[key] for key in ("host", "path")):
            return True
        return known.get("inode") == here["inode"] and not self._is_still_at(Path(str(known.get("path"))))

    def _is_still_at(self, before: Path) -> bool:
        """Return whether another folder of our name stands where we stood.

        Snapshots of a file system and volumes filled alike repeat inodes; and who moves a folder away may put a copy
        in its place.
        """
        theirs = before / self._uuid.relative_to(self._folder)
        try:
            return theirs.read_bytes() == self._uuid.read_bytes() and not theirs.parent.samefile(self._uuid.parent)
        except (OSError, ValueError):  # where no path can be, such as one with a zero byte
            return False

    def _here(self) -> dict[str, Any]:
        # The inode of a folder: files may be hard-linked into a copy (cp -al, rsync --link-dest), folders cannot.
        return {"path": str(self._folder.resolve()), "host": HOST, "inode": self._uuid.parent.stat().st_ino}

    def _renew(self) -> None:
        temporary = self._uuid.with_name(f".uuid.{unique_suffix()}")
        with disk_errors(self._uuid):
            temporary.write_text(uuid.uuid4().hex)
            os.replace(temporary, self._uuid)
