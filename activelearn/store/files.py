"""Publishing: a file appears under its final name whole, once, and is never changed again.

Write to a unique temporary name, fsync, ``os.link`` to the final name; if that exists, the first writer has won and
ours is dropped; fsync the directory. Never rename over what somebody may have read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import socket
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn.errors import StoreError
from activelearn.frames import npz_bytes

HOST: Final = socket.gethostname()


#: How the first line of a stored YAML document begins: the sha256 of the others follows.
_CHECKSUM: Final = "# sha256 "
#: What is left to do when a sealed file is lost.
RESTORE: Final = (
    "restore it from a copy, or start anew with another --folder (with label.ledger pointing to the labels/ of this "
    "one, no label is paid for twice)"
)


def gone(path: Path | io.BytesIO) -> StoreError:
    """Return the error of a sealed file that is not there any more."""
    return StoreError(f"{path}: gone - wanted this part of the campaign - {RESTORE}")


def unique_suffix() -> str:
    """Return host-pid-uuid: no two writers share a temporary name."""
    return f"{HOST}-{os.getpid()}-{uuid.uuid4().hex[:12]}"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a sentence that a person can act on."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full - free some space",
            errno.EDQUOT: "the disk quota is used up - free some space or ask for more",
            errno.EROFS: "the file system is read-only - mount it writable",
            errno.EACCES: "permission denied - make the folder writable",
            errno.ENOTDIR: "a file stands where a folder is wanted - move it away, or choose another place",
            errno.EEXIST: "a file stands where a folder is wanted - move it away, or choose another place",
        }
        if error.errno not in reasons:
            raise
        raise StoreError(
            f"{path}: cannot be written: {reasons[error.errno]}, then give the same command again; nothing is lost"
        ) from error


def publish(path: Path, content: bytes) -> bool:
    """Publish `content` under `path`.

    Returns
    -------
    bool
        Whether ours is the one that stands; False if somebody was first (theirs stands, ours is dropped).
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
    """Write a JSON document that is no product: the last one counts."""
    temporary = path.with_name(f".{path.name}.{unique_suffix()}")
    with disk_errors(path):
        temporary.write_text(json.dumps(data, indent=1) + "\n")
        os.replace(temporary, path)


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON
    """Read a published JSON document.

    Raises
    ------
    StoreError
        The file is damaged; the message says which to remove.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise StoreError(
            f"{path}: damaged ({error}) - wanted JSON - while its iteration is open, remove this file and give the "
            f"same command again: it is made anew from the products; of a closed iteration {RESTORE}"
        ) from error


def publish_yaml(path: Path, text: str) -> bool:
    """Publish a YAML document behind its checksum: half a document may be another one, and a valid one."""
    return publish(path, f"{_CHECKSUM}{hashlib.sha256(text.encode()).hexdigest()}\n{text}".encode())


def read_yaml(path: Path) -> str:
    """Return the text of a YAML document of :func:`publish_yaml`.

    Raises
    ------
    StoreError
        It is damaged.
    """
    first, _, text = path.read_text(encoding="utf-8").partition("\n")
    if hashlib.sha256(text.encode()).hexdigest() != first.removeprefix(_CHECKSUM):
        raise StoreError(f"{path}: damaged (its checksum is another one) - wanted it as it was resolved - {RESTORE}")
    return text


def publish_npz(path: Path, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> bool:
    """Publish arrays and a JSON-able `meta` in one npz archive (zip checks each array by CRC-32)."""
    return publish(path, npz_bytes({**arrays, "meta": np.array(json.dumps(meta))}))


@contextmanager
def _archive(path: Path | io.BytesIO) -> Iterator[Any]:
    """Open an archive; what is wrong with it, or with what is read from it, is a StoreError."""
    try:
        opened = contextlib.nullcontext(path) if isinstance(path, io.BytesIO) else path.open("rb")
        with opened as stream, np.load(stream, allow_pickle=False) as archive:  # numpy leaves a damaged file open
            yield archive
    except FileNotFoundError as error:
        raise gone(path) from error
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError) as error:
        raise StoreError(f"{path}: damaged product ({error}) - wanted it whole - {RESTORE}") from error


def read_npz(path: Path | io.BytesIO) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read an archive of :func:`publish_npz`.

    Raises
    ------
    StoreError
        The archive is truncated or its checksum is wrong.
    """
    with _archive(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
        return arrays, json.loads(str(arrays.pop("meta")))


def read_array(path: Path, name: str) -> NDArray[Any] | None:
    """Read one array of an archive of :func:`publish_npz` and leave the others where they are; None if it is not there.

    Parameters
    ----------
    path
        The archive.
    name
        Of the array, which comes as it was published: (n, ...) of any unit.

    Raises
    ------
    StoreError
        The archive is truncated or the array's checksum is wrong.
    """
    with _archive(path) as archive:
        found: NDArray[Any] | None = archive[name] if name in archive.files else None
        return found


def read_meta(path: Path | io.BytesIO) -> dict[str, Any]:
    """Read only the `meta` of an archive of :func:`publish_npz`.

    Raises
    ------
    StoreError
        See :func:`read_npz`.
    """
    with _archive(path) as archive:
        meta: dict[str, Any] = json.loads(str(archive["meta"]))
        return meta


def is_whole(path: Path) -> bool:
    """Return whether an archive of :func:`publish_npz` is all there: every checksum is right, and it has its `meta`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "meta.npy" in archive.namelist() and archive.testzip() is None
    except (zipfile.BadZipFile, ValueError, EOFError):
        return False


def archive_files(paths: Sequence[Path]) -> bytes:
    """Return a zip archive of whole files (stored, without dates: the same files give the same bytes)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in paths:
            archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes())
    return buffer.getvalue()


def read_archived(archive: Path, name: str) -> io.BytesIO:
    """Return one file of an archive of :func:`archive_files`.

    Raises
    ------
    StoreError
        The archive is damaged, or lacks the file.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            return io.BytesIO(opened.read(name))
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise StoreError(f"{archive}: damaged pack of products, {name} cannot be read ({error})") from error


def file_sha256(path: Path) -> str:
    """Return the checksum of a file."""
    if not hasattr(hashlib, "file_digest"):  # Python 3.10
        return hashlib.sha256(path.read_bytes()).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
