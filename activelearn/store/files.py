"""Publishing: a file appears under its final name complete, once, and is never changed again.

Write to a unique temporary name, fsync, ``os.link`` to the final name; if that exists, the first writer has won and
ours is dropped; fsync the directory. Never rename over a file that may have been read.

Reading: a file that is not as it was published raises :class:`~activelearn.errors.Damaged`, and is never passed on. An
npz has the CRC-32 of each array, a YAML document begins with the checksum of its text, a JSON document of
:func:`sealed` ends with its own. A file of any kind is compared with the checksum that a sealed result has of it, once
per process and state (:func:`want_sealed`).
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import socket
import struct
import threading
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from activelearn.errors import Damaged, StoreError, disk_reason
from activelearn.frames import npz_bytes

HOST: Final = socket.gethostname()
M = TypeVar("M", bound=BaseModel)

#: How the first line of a stored YAML document begins: the sha256 of the others follows.
_CHECKSUM: Final = "# sha256 "
#: What to do when a sealed file is lost.
RESTORE: Final = (
    "restore it from a copy, or start again with another --folder (with label.ledger pointing to the labels/ of this "
    "one, no label is computed twice)"
)


#: The last key of a JSON document of :func:`sealed`.
_SEAL: Final = "seal"
#: What zipfile and numpy raise on bytes that are not an archive; an OSError of that kind has no errno or this one.
_NO_ARCHIVE: Final = (
    *(zipfile.BadZipFile, zlib.error, struct.error, ValueError, EOFError, LookupError, ArithmeticError),
    *(TypeError, AttributeError, RuntimeError, MemoryError, SyntaxError),
)
_NO_SEEK: Final = {None, errno.EINVAL}
#: There is a folder in place of a file, or the reverse.
_NO_FILE: Final = (IsADirectoryError, NotADirectoryError)
#: Checksums of files by path, with the state of the file.
_known_sums: dict[Path, tuple[tuple[int, ...], str]] = {}


def gone(path: Path) -> Damaged:
    """Return the error of a sealed file that no longer exists."""
    return Damaged(f"{path}: gone - expected this file of the campaign - {RESTORE}")


def damaged(path: Path | str, what: str, expected: str = "it as it was published") -> Damaged:
    """Return the error of a published file that has changed."""
    return Damaged(f"{path}: damaged ({what}) - expected {expected} - {RESTORE}")


@contextmanager
def _whole_files(path: Path) -> Iterator[None]:
    """Report a published file that is gone, or replaced by a folder."""
    try:
        yield
    except FileNotFoundError as error:
        raise gone(path) from error
    except _NO_FILE as error:
        raise damaged(path, "a folder in place of a file, or below a file") from error


def unique_suffix() -> str:
    """Return host-pid-uuid: no two writers share a temporary name."""
    return f"{HOST}-{os.getpid()}-{uuid.uuid4().hex[:12]}"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a message that the user can act on."""
    try:
        yield
    except OSError as error:
        if (why := disk_reason(error)) is None:
            raise
        raise StoreError(
            f"{path}: cannot be written: {why}, then run the same command again; nothing is lost"
        ) from error


def publish(path: Path, content: bytes) -> bool:
    """Publish `content` under `path`.

    Returns
    -------
    bool
        Whether ours was published; False if another process was first (theirs is kept, ours is dropped).
    """
    temporary = path.with_name(f".{path.name}.{unique_suffix()}")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            fsync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    return True


def fsync_folder(folder: Path) -> None:
    """Make new names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_json(path: Path, data: Any) -> bool:  # noqa: ANN401 - JSON
    """Publish a JSON document."""
    return publish(path, (json.dumps(data, indent=1) + "\n").encode())


def replace_json(path: Path, data: Any) -> None:  # noqa: ANN401 - JSON
    """Write a JSON document that is not a product: the last one counts."""
    replace_text(path, json.dumps(data, indent=1) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write a text that is not a product, atomically in place of the previous one: readers see one of the two."""
    temporary = path.with_name(f".{path.name}.{unique_suffix()}")
    with disk_errors(path):
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def sealed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON document that carries its own checksum as its last key; :func:`read_json` compares and drops it."""
    return {**data, _SEAL: _seal_of(data)}


def _seal_of(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON
    """Read a published JSON document.

    Raises
    ------
    Damaged
        It is not JSON, or not what was :func:`sealed`; the message says which file to remove.
    """
    try:
        found = json.loads(path.read_bytes())
        seal = found.pop(_SEAL, None) if isinstance(found, dict) else None
        if seal is not None and seal != _seal_of(found):
            raise ValueError("checksum mismatch")
    except NotADirectoryError as error:  # a file in place of its folder
        raise FileNotFoundError(errno.ENOENT, "not there", str(path)) from error
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise Damaged(
            f"{path}: damaged ({_told(error)}) - expected it as it was written - while its iteration is open, remove "
            f"this file and run the same command again: it is made again from the products; of a closed iteration "
            f"{RESTORE}"
        ) from error
    return found


def read_object(path: Path, **values: type) -> dict[str, Any]:
    """Read a published JSON object that has values of these types.

    Raises
    ------
    Damaged
        See :func:`read_json`, or its structure differs.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise damaged(path, f"it is {json.dumps(found)[:40]}", "a JSON object")
    for key, kind in values.items():
        kinds = (int, float) if kind is float else (kind,)
        if not isinstance(found.get(key), kinds) or isinstance(found[key], bool):
            raise damaged(path, f"{key} is {found.get(key)!r}"[:100], f"{kind.__name__} there")
    return found


def read_record(path: Path, model: type[M]) -> M:
    """Read a published record.

    Raises
    ------
    Damaged
        See :func:`read_json`, or it does not match this model.
    """
    return as_record(path, read_json(path), model)


def as_record(path: Path, data: Any, model: type[M]) -> M:  # noqa: ANN401 - JSON
    """Return the content of a file as a record of a model; Damaged if it does not match."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        raise damaged(path, f"{where}: {first['msg']}", f"a record of {model.__name__}") from error


def _told(error: BaseException) -> str:
    """Return the text of an error, never a memory address."""
    if isinstance(error, _NO_FILE):
        return "a folder in place of a file, or below a file"
    return f"{type(error).__name__}: {error}" if isinstance(error, LookupError) else str(error) or type(error).__name__


def publish_yaml(path: Path, text: str) -> bool:
    """Publish a YAML document behind its checksum: half a document may be a valid, different one."""
    return publish(path, f"{_CHECKSUM}{hashlib.sha256(text.encode()).hexdigest()}\n{text}".encode())


def read_yaml(path: Path) -> str:
    """Return the text of a YAML document of :func:`publish_yaml`.

    Raises
    ------
    StoreError
        It is damaged.
    """
    try:
        with _whole_files(path):
            first, _, text = path.read_text(encoding="utf-8").partition("\n")
    except UnicodeDecodeError as error:
        raise damaged(path, str(error)) from error
    if hashlib.sha256(text.encode()).hexdigest() != first.removeprefix(_CHECKSUM):
        raise damaged(path, "checksum mismatch", "it as it was resolved")
    return text


def publish_npz(path: Path, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> bool:
    """Publish arrays and a JSON-able `meta` in one npz archive (zip checks each array by CRC-32)."""
    return publish(path, npz_bytes({**arrays, "meta": np.array(json.dumps(meta))}))


@contextmanager
def _whole_archive(path: Path, what: str = "product") -> Iterator[None]:
    """Report an archive that is gone, not a file, or has changed bytes: all are Damaged."""
    try:
        with _whole_files(path):
            yield
    except (OSError, *_NO_ARCHIVE) as error:
        if isinstance(error, OSError) and error.errno not in _NO_SEEK:
            raise
        raise Damaged(f"{path}: damaged {what} ({_told(error)}) - expected an intact file - {RESTORE}") from error


#: numpy parses the header of each array as Python, and CPython 3.11 counts the depth of its parser for all threads
#: together: two at once now and then end in "SystemError: AST constructor recursion depth mismatch" (gh-106905).
_PARSING: Final = threading.RLock()


@contextmanager
def _archive(path: Path, packed: io.BytesIO | None = None) -> Iterator[Any]:
    """Open an archive, or one that was `packed` under this name; one thread at a time, see :data:`_PARSING`."""
    with (
        _PARSING,
        _whole_archive(path),
        packed or path.open("rb") as stream,
        np.load(stream, allow_pickle=False) as archive,
    ):
        yield archive  # numpy leaves a damaged file open


def _meta(archive: Any) -> dict[str, Any]:  # noqa: ANN401 - numpy's archive
    meta = json.loads(str(archive["meta"]))
    if not isinstance(meta, dict):
        raise ValueError(f"its meta is {str(meta)[:40]}")
    return meta


def read_npz(path: Path, packed: io.BytesIO | None = None) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read an archive of :func:`publish_npz`.

    Parameters
    ----------
    path
        The archive.
    packed
        Its content, if it is packed: `path` names it then.

    Raises
    ------
    Damaged
        The archive is gone, truncated or has a checksum mismatch.
    """
    with _archive(path, packed) as archive:
        meta = _meta(archive)
        return {name: archive[name] for name in archive.files if name != "meta"}, meta


def read_array(path: Path, name: str) -> NDArray[Any] | None:
    """Read one array of an archive of :func:`publish_npz` without reading the others; None if it is not there.

    Parameters
    ----------
    path
        The archive.
    name
        Of the array.

    Returns
    -------
    NDArray or None
        As it was published: (n, ...) of any unit.

    Raises
    ------
    Damaged
        The archive is gone, truncated or the array has a checksum mismatch.
    """
    with _archive(path) as archive:
        found: NDArray[Any] | None = archive[name] if name in archive.files else None
        return found


def read_some(
    path: Path, names: Sequence[str], packed: io.BytesIO | None = None
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read arrays of these names from an archive of :func:`publish_npz`, those that are there, and its `meta`.

    Parameters
    ----------
    path, packed
        See :func:`read_npz`.
    names
        Of arrays, which come as they were published: (n, ...) of any unit.

    Raises
    ------
    Damaged
        See :func:`read_npz`.
    """
    with _archive(path, packed) as archive:
        return {name: archive[name] for name in names if name in archive.files}, _meta(archive)


def read_meta(path: Path, packed: io.BytesIO | None = None) -> dict[str, Any]:
    """Read only the `meta` of an archive of :func:`publish_npz`.

    Raises
    ------
    Damaged
        See :func:`read_npz`.
    """
    with _archive(path, packed) as archive:
        return _meta(archive)


def is_whole(path: Path) -> bool:
    """Return whether an archive of :func:`publish_npz` is complete: every checksum matches, and it has its `meta`."""
    try:
        read_npz(path)
    except Damaged:
        return False
    return True


def archive_files(paths: Sequence[Path]) -> bytes:
    """Return a zip archive of whole files (stored, without dates: the same files give the same bytes)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in paths:
            archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes())
    return buffer.getvalue()


@lru_cache(maxsize=8)
def _pack(archive: Path, _state: tuple[int, ...], _process: int) -> zipfile.ZipFile:
    """Return an open pack; its list, possibly of thousands of products, is read once per process and state."""
    return zipfile.ZipFile(archive)


def archived(archive: Path) -> list[str]:
    """Return the names of the files in an archive of :func:`archive_files`; Damaged if it cannot be read."""
    with _whole_archive(archive, "pack of products, its list cannot be read"):
        names = _pack(archive, _state_of(archive), os.getpid()).namelist()
        if inner := next((name for name in names if "/" in name), None):  # truncated, it may end in a product's list
            raise ValueError(f"{inner} is not a product")
        return names


def read_archived(archive: Path, name: str) -> io.BytesIO:
    """Return one file of an archive of :func:`archive_files`.

    Raises
    ------
    Damaged
        The archive is damaged, or lacks the file.
    """
    with _whole_archive(archive, f"pack of products, {name} cannot be read"):
        return io.BytesIO(_pack(archive, _state_of(archive), os.getpid()).read(name))


def _state_of(path: Path) -> tuple[int, ...]:
    """Return what changes when a file does: inode, size, times."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def want_sealed(path: Path, sha256: str) -> Path:
    """Return a file after verifying its checksum, once per process and state (size, times, inode).

    Raises
    ------
    Damaged
        Checksum mismatch, or it is gone.
    """
    with _whole_files(path):
        state = _state_of(path)
        known = _known_sums.get(path)
        if known is None or known[0] != state:
            known = _known_sums[path] = (state, file_sha256(path))
    return with_sum(path, known[1], sha256)


def with_sum(path: Path, found: str, sha256: str) -> Path:
    """Return the path of the file with this checksum, or raise Damaged."""
    if found != sha256:
        raise damaged(path, f"sha256 {found[:12]}..., sealed with {sha256[:12]}...")
    return path


def file_sha256(path: Path) -> str:
    """Return the checksum of a file."""
    if not hasattr(hashlib, "file_digest"):  # Python 3.10
        return hashlib.sha256(path.read_bytes()).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
