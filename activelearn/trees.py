"""Temporary folders: the only module that removes a folder with its content, or renames one.

A folder that is made to be removed again has a mark, a file named :data:`MARK`. Nothing but a marked folder is
removed, only below the root that the caller names, and never through a symbolic link: a damaged identity, a setting
that names somebody's home, or a link placed there, cannot cost anybody a file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

#: Name of the file that says: activelearn made this folder, and may remove it.
MARK: Final = ".activelearn"
_TEXT: Final = "Made by activelearn, which removes this folder when it is no longer needed.\n"
#: Beginning of the names of temporary folders.
_PREFIX: Final = "activelearn-"
#: Identifies the kernel, and with it the locks.
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
#: There is something of that name.
_TAKEN: Final = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR}


def make(folder: Path) -> Path:
    """Make a folder (and its parents, unmarked) that may be removed again; an existing one is left as it is."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        (folder / MARK).write_text(_TEXT)
    return folder


def is_marked(folder: Path) -> bool:
    """Return whether a folder was made by :func:`make`: neither it nor its mark is a link."""
    mark = folder / MARK
    return folder.is_dir() and not folder.is_symlink() and mark.is_file() and not mark.is_symlink()


def remove(folder: Path, root: Path) -> bool:
    """Remove a marked folder with everything in it.

    Parameters
    ----------
    folder
        What may go.
    root
        Where it must be: a folder above it. The root itself may be reached by symbolic links, but none leads from there
        to `folder`. Links in the folder are removed, and what they point to is left alone.

    Returns
    -------
    bool
        Whether it is gone. False: it is not marked, not below `root`, behind a link, or something in it cannot be
        removed.
    """
    place = _below(folder, root)
    if place is None or not is_marked(place):
        return False
    for entry in list(os.scandir(place)):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        elif entry.name != MARK:  # the mark is removed last: what a kill leaves is still recognized as ours
            with contextlib.suppress(OSError):
                Path(entry.path).unlink()
    if any(entry.name != MARK for entry in os.scandir(place)):
        return False
    try:
        (place / MARK).unlink()
        place.rmdir()
    except OSError:  # another process has just written into it
        return False
    return True


def clear(area: Path, root: Path, keep: Collection[Path] = ()) -> list[Path]:
    """Empty an area of scratch folders: remove the marked folders in it and, if it is marked itself, files and links.

    Parameters
    ----------
    area, root
        Where they are, and a folder above it, see :func:`remove`.
    keep
        Folders in it that are in use, by their real paths.

    Returns
    -------
    list of Path
        What is left because it is not ours.
    """
    is_ours = _below(area, root) is not None and is_marked(area)
    left = []
    for path in sorted(area.iterdir()) if area.is_dir() else []:
        if path.resolve() in keep or path.name == MARK:
            continue
        if is_ours and (path.is_symlink() or not path.is_dir()):
            path.unlink(missing_ok=True)
        elif is_marked(path):
            remove(path, area)
        else:
            left.append(path)
    return left


def _below(folder: Path, root: Path) -> Path | None:
    """Return the real path of `folder` if it is below `root` and no link leads to it from there, else None."""
    try:
        inside = folder.absolute().relative_to(root.absolute())
    except ValueError:
        return None
    if not inside.parts or ".." in inside.parts:
        return None
    place = root.resolve() / inside
    return place if place.resolve() == place else None


@contextmanager
def temporary(parent: Path | None = None) -> Iterator[Path]:
    """Yield a new, empty, marked folder; it goes with the block, or, after a kill, with the next such folder.

    Parameters
    ----------
    parent
        Where it is made; None: where the system has its temporary files.
    """
    if parent is None:
        _tidy(Path(tempfile.gettempdir()).resolve())
    folder = Path(tempfile.mkdtemp(prefix=".activelearn-" if parent else _PREFIX, dir=parent)).resolve()
    mark = os.open(folder / MARK, os.O_WRONLY | os.O_CREAT, 0o666)  # a full disk has room for it
    try:
        if parent is None:
            with contextlib.suppress(OSError):  # locked before it says so: nobody else can be first
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.write(mark, _held())
        yield folder
    finally:
        remove(folder, folder.parent)
        os.close(mark)


def _held() -> bytes:
    """Return the content of a mark that its process locks: locks of another boot, or machine, are not seen here."""
    return f"{_TEXT}Locked by its process.\n{_BOOT.read_text()}".encode()


def _tidy(root: Path) -> None:
    """Remove the temporary folders of this user that killed processes left: their marks are not locked any more."""
    for folder in root.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # in use, or gone
            if not is_marked(folder) or folder.stat().st_uid != os.getuid():
                continue
            mark = os.open(folder / MARK, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                if os.read(mark, 1024) == _held():
                    fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove(folder, root)
            finally:
                os.close(mark)


def rename(made: Path, to: Path) -> bool:
    """Give a file or a folder that is whole its final name, on the same file system.

    Returns
    -------
    bool
        False: there is something already (other than an empty folder), and it is left as it is.
    """
    if os.path.lexists(to) and not (to.is_dir() and made.is_dir()):
        return False
    try:
        os.rename(made, to)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True
