"""Identity: the name of a folder for its scratch, its journals and its Workflows, not shared by any copy of it.

``uuid`` has 32 hexadecimal digits; ``place.json`` beside it says where the folder was when it last had this identity.
A moved folder is the same one if its directory has the same inode as before, or the same path, and there is no other
folder of that identity at the old path. Any other is a copy, and gets an identity of its own before it writes anything:
two folders with one identity would remove each other's scratch and merge each other's journals of a shared ledger.
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
    """The identity of a folder.

    Parameters
    ----------
    folder
        The folder.
    inside
        Where in it ``uuid`` and ``place.json`` are.
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
            It is missing or damaged; nothing was done.
        """
        try:
            found = self._uuid.read_text(errors="replace")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            found = ""
        if not re.fullmatch("[0-9a-f]{32}", found):
            what = "is missing or empty" if not found else f"is damaged ({found[:40]!r})"
            raise StoreError(
                f"{self._uuid}: {what} - expected the 32 hexadecimal digits that identify this folder - restore it "
                "from a copy, or remove this file and run the same command again: the folder gets a new identity, "
                "and no label is lost"
            )
        return found

    def begin(self) -> None:
        """Give a new folder its identity; an existing one is kept."""
        if publish(self._uuid, uuid.uuid4().hex.encode()):
            replace_json(self._place, self._here())

    def settle(self, *, is_known_elsewhere: bool = False) -> str | None:
        """Take a new identity if this folder is a copy, or lost it (call only with the lease held).

        Parameters
        ----------
        is_known_elsewhere
            Something else, such as a LaunchPad, refers to a folder of an earlier version (without ``place.json``) by
            its identity, which is kept.

        Returns
        -------
        str or None
            Why the identity is new; None: it is unchanged.
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
        """Return where a folder that was beside this one is now, if it has moved along with it."""
        before = (self._known() or {}).get("path")
        if not isinstance(before, str) or path.exists():
            return path
        found = Path(os.path.normpath(self._folder.resolve() / os.path.relpath(path, before)))
        return found if found.is_dir() else path

    def _known(self) -> dict[str, Any] | None:
        """Return where the folder was; None: not recorded by an earlier version, or damaged."""
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
        """Return whether there is another folder of the same identity at the old path.

        Inodes are repeated in snapshots of a file system and in volumes filled in the same way; and a moved folder may
        be replaced by a copy.
        """
        theirs = before / self._uuid.relative_to(self._folder)
        try:
            return theirs.read_bytes() == self._uuid.read_bytes() and not theirs.parent.samefile(self._uuid.parent)
        except (OSError, ValueError):  # an impossible path, such as one with a zero byte
            return False

    def _here(self) -> dict[str, Any]:
        # The inode of a folder: files may be hard-linked into a copy (cp -al, rsync --link-dest), folders cannot.
        return {"path": str(self._folder.resolve()), "host": HOST, "inode": self._uuid.parent.stat().st_ino}

    def _renew(self) -> None:
        temporary = self._uuid.with_name(f".uuid.{unique_suffix()}")
        with disk_errors(self._uuid):
            temporary.write_text(uuid.uuid4().hex)
            os.replace(temporary, self._uuid)
