"""Indexes of journals: their headers, so that a ledger is opened without reading its payloads.

Beside ``<journal>.seg`` there is ``<journal>.seg.idx``: a line with the sha256 of the rest, and one JSON document with
the size of the journal, the checksum of its first and last bytes, and the columns of its entries. It is published after
the journal, when this is whole (closed, imported or compacted), and removed before it: a journal without index is read
record by record, and an index without a journal shows that the journal was lost. Earlier versions ignore indexes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Final

from activelearn.errors import Damaged
from activelearn.store.files import publish
from activelearn.store.journal import Entry, Family

SUFFIX: Final = ".idx"
#: How many bytes at either end of a journal distinguish it from others of the same size.
_END: Final = 4096
#: The fields of an entry that have a column each, in order.
_COLUMNS: Final = tuple(name for name in Entry._fields if name not in {"journal", "family"})


@dataclass(frozen=True)
class Index:
    """An index as it was read.

    Parameters
    ----------
    entries
        Of all records of the journal, in their order.
    is_of_journal
        Whether the journal has the size and the ends that it had when the index was written.
    """

    entries: list[Entry]
    is_of_journal: bool


def index_file(journal: Path) -> Path:
    """Return the path of the index of a journal."""
    return journal.with_name(journal.name + SUFFIX)


def publish_index(journal: Path, entries: Sequence[Entry]) -> None:
    """Publish the index of a journal that will not be appended to any more."""
    families: dict[Family, int] = {}
    document: dict[str, Any] = {**_measured(journal), "n": len(entries)}
    document["family"] = [families.setdefault(entry.family, len(families)) for entry in entries]
    document["families"] = list(families)
    document |= {name: [getattr(entry, name) for entry in entries] for name in _COLUMNS}
    text = json.dumps(document, separators=(",", ":")).encode()
    publish(index_file(journal), hashlib.sha256(text).hexdigest().encode() + b"\n" + text)


def read_index(journal: Path) -> Index | None:
    """Read the index of a journal; None if it has none.

    Raises
    ------
    Damaged
        The index is corrupt.
    FileNotFoundError
        The journal is gone.
    """
    path = index_file(journal)
    try:
        sha, _, text = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Damaged(f"{path}: cannot be read ({error.strerror})") from error
    if hashlib.sha256(text).hexdigest().encode() != sha:
        raise Damaged(f"{path}: damaged")
    found = json.loads(text)
    families = [Family(symbols, tuple(pbc), walk, sha) for symbols, pbc, walk, sha in found["families"]]
    key, *columns = (found[name] for name in _COLUMNS)
    rows = zip(key, repeat(journal), *columns, (families[i] for i in found["family"]), strict=False)
    now = _measured(journal)
    return Index(list(map(Entry._make, rows)), all(found[name] == value for name, value in now.items()))


def _measured(journal: Path) -> dict[str, Any]:
    """Return the size of a journal and the checksum of its ends."""
    with journal.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        ends = hashlib.sha256(stream.read(_END))
        stream.seek(max(0, size - _END))
        ends.update(stream.read(_END))
    return {"size": size, "ends": ends.hexdigest()}
