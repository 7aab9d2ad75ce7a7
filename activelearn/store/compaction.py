"""Closed journals: published whole with their index, and merged so that a campaign makes few files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from activelearn.errors import Damaged
from activelearn.store.files import fsync_folder, publish, unique_suffix
from activelearn.store.index import index_file, publish_index, read_index
from activelearn.store.journal import CLOSED, Scan, begins_with_note, is_cut_off, scan, writer_of
from activelearn.store.locks import is_gone

#: Segments smaller than this (bytes) are merged.
COMPACT_BELOW: Final = 32_000_000
#: Instead of the time, in the names of compacted journals: they sort before all journals of writers, so that of two
#: records of one key the older stays first.
_COMPACTED: Final = "00000000T000000"


def compact(folder: Path, prefix: str) -> None:
    """Merge the journals of one campaign that are no longer written to into one, and remove the old ones.

    A journal stays as it is while its writer may append to it: until it has closed it, or is certainly gone. That
    cannot be known for a process on another host that was killed, or for a journal of an earlier version: they stay. So
    do damaged ones, because a copy may restore them, and large ones, so that a long campaign does not rewrite all its
    labels each time.

    Parameters
    ----------
    folder
        The ledger.
    prefix
        Of the journal names of this campaign.
    """
    chunks: dict[str, bytes] = {}
    old: list[tuple[Path, Scan]] = []
    try:
        for path, content, found in _ended(sorted(folder.glob(f"{prefix}-*.seg"))):
            if len(content) >= COMPACT_BELOW:
                publish_index(path, [entry for entry, _, _ in found.records])
                continue
            old.append((path, found))
            for entry, start, end in found.records:
                chunks.setdefault(entry.key, content[start:end])
    except FileNotFoundError:
        return  # another process is compacting the same labels
    if len(old) > 1:
        publish_journal(folder / f"{prefix}-{_COMPACTED}-{unique_suffix()}.seg", [*chunks.values()])
        for path, _ in old:
            index_file(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        fsync_folder(folder)
    elif old and not index_file(old[0][0]).exists():
        publish_index(old[0][0], [entry for entry, _, _ in old[0][1].records])


def publish_journal(path: Path, chunks: Sequence[bytes]) -> None:
    """Publish whole records as a journal, and then its index."""
    content = b"".join([*chunks, CLOSED])
    publish(path, content)
    publish_index(path, [entry for entry, _, _ in scan(content, path).records])


def damaged_parts(content: bytes, found: Scan, *, may_be_cut_off: bool) -> list[tuple[int, int]]:
    """Return (start, end) of damaged parts, in bytes; an incomplete last record of a writer is not damage."""
    if found.end == len(content) or (may_be_cut_off and is_cut_off(content, found.end)):
        return found.damaged
    return [*found.damaged, (found.end, len(content))]


def whole(path: Path, content: bytes) -> Scan | None:
    """Return what a journal holds, or None if any of it is damaged or lost."""
    found = scan(content, path)
    try:
        index = read_index(path)
    except Damaged:
        index = None
    if index is not None and not index.is_of_journal:
        return None
    may_be_cut_off = index is None and begins_with_note(content)
    return None if damaged_parts(content, found, may_be_cut_off=may_be_cut_off) else found


def _ended(paths: Sequence[Path]) -> Iterator[tuple[Path, bytes, Scan]]:
    """Yield the undamaged journals that will not be appended to; large ones only if they have no index."""
    for path in paths:
        if path.is_dir() or (path.stat().st_size >= COMPACT_BELOW and index_file(path).exists()):
            continue
        if not _is_ended(path, path.read_bytes()):
            continue
        content = path.read_bytes()  # a writer that is gone may have written between the first read and its end
        if (found := whole(path, content)) is not None:
            yield path, content, found


def _is_ended(path: Path, content: bytes) -> bool:
    """Return whether a journal will never be appended to: it was closed, or compacted, or its writer is gone."""
    if not content:
        return False
    is_compacted = f"-{_COMPACTED}-" in path.name  # of an earlier version, too
    return is_compacted or content.endswith(CLOSED) or is_gone(writer_of(content))
