"""The format of folders and ledgers: a newer one is refused with a message, an older one is read.

``format.json`` is in every campaign folder, study folder and ledger. A change that raises :data:`FORMAT` (a renamed key
of a sealed file, a file with a new meaning) needs a reader of the old format or a step in :data:`MIGRATIONS`; new
files, and new keys with a default, need neither.

0
    No ``format.json``: folders of commit 3afdc58 (November 2026) and before.
1
    Scratch folders are marked, journals of ledgers record their writer and when they were closed, folders record their
    path.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Final

from activelearn import __version__
from activelearn.errors import StoreError
from activelearn.store.files import publish_json, read_json, replace_json

#: What this version writes, and the newest that it reads.
FORMAT: Final = 1
#: Format -> what brings a folder to the next one (with the lease held); none: the old format is read as it is.
MIGRATIONS: Final[dict[int, Callable[[Path], None]]] = {}
_FILE: Final = "format.json"
#: There is no such folder, or cannot be: reported elsewhere.
_NO_FOLDER: Final = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}


def format_of(folder: Path) -> int:
    """Return the format of a folder or a ledger.

    Raises
    ------
    StoreError
        A newer version made it, or ``format.json`` is damaged.
    """
    path = folder / _FILE
    try:
        found = read_json(path)
    except OSError as error:
        if error.errno not in _NO_FOLDER:
            raise
        return 0
    number = found.get("format") if isinstance(found, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise StoreError(
            f"{path}: damaged - expected the number of a format, such as {FORMAT} - restore it from a copy (or remove "
            "it, if no newer activelearn has worked in this folder)"
        )
    if number > FORMAT:
        raise StoreError(
            f"{folder}: has format {number}, written by activelearn {found.get('version', 'of a later version')} - "
            f"expected format {FORMAT} or older, which this activelearn {__version__} can read - use a newer one: "
            "pip install --upgrade activelearn"
        )
    return number


def stamp(folder: Path) -> None:
    """Record the format in a folder or ledger that has no record of it yet."""
    if not (folder / _FILE).is_file():
        publish_json(folder / _FILE, _stamp())


def migrate(folder: Path) -> None:
    """Migrate a folder to the current format (call only with the lease held); a kill in between is harmless."""
    number = format_of(folder)
    if number == FORMAT:
        return
    for step in range(number, FORMAT):
        if step in MIGRATIONS:
            MIGRATIONS[step](folder)
    replace_json(folder / _FILE, _stamp())


def _stamp() -> dict[str, object]:
    return {"format": FORMAT, "version": __version__}
