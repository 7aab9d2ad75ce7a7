"""Current paths of moved files that a campaign or a study refers to: ``moved.json``, by their first path.

It is rewritten by the driver of the folder, from the YAML that it was given, and read by all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from activelearn.config import Section
from activelearn.config.files import is_file
from activelearn.config.moved import as_begun, moved, moves
from activelearn.errors import Damaged
from activelearn.store.files import read_object, replace_json, sealed

S = TypeVar("S", bound=Section)


class Places:
    """The files of one folder that have moved.

    Parameters
    ----------
    file
        ``moved.json``.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._moves: dict[str, str] | None = None

    def known(self) -> dict[str, str]:
        """Return where the files are now, by the paths that sealed documents have."""
        if self._moves is None:
            try:
                self._moves = dict(read_object(self._file, files=dict)["files"])
            except FileNotFoundError:
                self._moves = {}
            except Damaged as error:
                raise Damaged(
                    f"{self._file}: damaged - expected the JSON that was written there - remove it and give the "
                    "command that started the folder again: it is written again from the YAML"
                ) from error
        return self._moves

    def now(self, path: str) -> str:
        """Return where the file of a sealed path is now."""
        return self.known().get(path, path)

    def of_sealed(self, document: S) -> S:
        """Return a sealed document with the current paths of its files."""
        return moved(document, self.known())

    def of_given(self, given: S, begun: Sequence[Section]) -> S:
        """Return a document as it is read now, with the paths of the sealed ones (the last one first)."""
        return as_begun(given, moves(begun, given))

    def note(self, given: Section, begun: Sequence[Section]) -> bool:
        """Record the current paths of the files; return whether anything changed."""
        kept = {before: now for before, now in self.known().items() if is_file(Path(now))}
        found = kept | moves(begun, given)
        if found == self.known():
            return False
        replace_json(self._file, sealed({"files": found}))
        self._moves = found
        return True
