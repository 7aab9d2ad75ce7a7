"""Labels in progress: a label that outlives its killed driver is finished, and the next driver adopts it.

Before a worker computes a label it writes ``begun/<key>.note`` with its identity, as in a claim. If its driver is
killed and the worker is not, it finishes that one label, writes the answer to ``begun/<key>.json`` and removes its note
(see ``Begun`` in ``engines/workers/answering.py``). The next process that needs the label waits for a live worker,
adopts a complete answer, and computes the label if there is neither. A worker without a driver ends when its note is
removed.

The key is the content address of the label, so an answer is valid for any driver, however late it is found.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any, Final

from activelearn.store.ledger import Ledger
from activelearn.store.locks import Claim, namespace, process_started

BEGUN: Final = "begun"


class Begun:
    """One label in ``begun/``.

    Parameters
    ----------
    folder
        The campaign folder.
    key
        Content address of the label.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.key = key
        self.folder: Path | None = None  # the scratch folder that the answer came from, if there is one
        self._token = uuid.uuid4().hex
        self._me = {"pid": os.getpid(), "started": process_started(os.getpid()), "namespace": namespace()}
        self._note = folder / BEGUN / f"{key}.note"
        self._kept = folder / BEGUN / f"{key}.json"

    def request(self, limit_s: float) -> dict[str, Any]:
        """Return the instructions to a worker: where to note and keep its label, and how long it may work on it (s)."""
        where = {"note": str(self._note), "path": str(self._kept)}
        return {**where, "token": self._token, "limit_s": limit_s, "driver": self._me}

    def worker(self) -> dict[str, Any] | None:
        """Return who works on the label (host, pid ...), or None; the note of a worker that is dead is removed."""
        claim = Claim(self._note)
        holder = claim.holder()
        if holder is None:
            return None
        if "pid" not in holder:  # notes are written atomically: this one was cut by a power failure
            self._note.unlink(missing_ok=True)
            return None
        return None if claim.break_stale() else holder

    def orphan(self) -> dict[str, Any] | None:
        """Return who works on the label, or None; a worker of this process (for the same structure) does not count."""
        worker = self.worker()
        return None if worker is None or worker.get("driver") == self._me else worker

    def answer(self) -> dict[str, Any] | None:
        """Return the answer that was kept, or None; one that is damaged is removed."""
        try:
            content = self._kept.read_bytes()
        except FileNotFoundError:
            return None
        found = _whole(content)
        if found is None or found.get("key") != self.key:
            self._kept.unlink(missing_ok=True)
            return None
        self.folder = Path(found["folder"]) if found.get("folder") else None
        return dict(found["answer"])

    def dismiss(self) -> None:
        """Remove the note of another process's worker: if its driver is gone, it ends."""
        if self.orphan() is not None:
            self._note.unlink(missing_ok=True)

    def leave(self) -> None:
        """Remove the note of our own worker, if it is still there."""
        if (Claim(self._note).holder() or {}).get("token") == self._token:
            self._note.unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove the files of the label, which is published."""
        self.leave()
        self._kept.unlink(missing_ok=True)


def _whole(content: bytes) -> dict[str, Any] | None:
    """Return the content below the checksum, or None if it is corrupt."""
    sha, _, text = content.partition(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != sha:
        return None
    found: dict[str, Any] = json.loads(text)
    return found


def sweep(folder: Path, published: Ledger) -> None:
    """Remove the notes of dead workers, damaged answers, and those of labels that are published.

    Parameters
    ----------
    folder
        The campaign folder.
    published
        The ledger: labels in it need not be kept.
    """
    for path in sorted((folder / BEGUN).glob("*.note")):
        Begun(folder, path.stem).worker()
    for path in sorted((folder / BEGUN).glob("*.json")):
        one = Begun(folder, path.stem)
        if one.answer() is None or one.key in published:
            path.unlink(missing_ok=True)


def folders_at_work(folder: Path) -> set[Path]:
    """Return the real paths of scratch folders in which workers compute a label, with or without a driver."""
    keys = (path.stem for path in (folder / BEGUN).glob("*.note"))
    workers = (Begun(folder, key).worker() for key in keys)
    return {Path(one["folder"]).resolve() for one in workers if one and isinstance(one.get("folder"), str)}
