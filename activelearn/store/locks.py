"""Claims and the lease: plain files created with O_EXCL and kept fresh by a heartbeat; no flock, so NFS works.

A claim prevents two workers from running one task at the same time; a lease prevents two drivers in one folder. Neither
is needed for correctness (publishing is: the first writer wins), both save work. A holder that died is recognised at
once on its own host (its process is gone) and by a heartbeat that stopped elsewhere. A lock in a copy of its folder has
no holder there, whatever its holder does in the original.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from activelearn.errors import Damaged, FolderHeld
from activelearn.store.files import HOST, disk_errors, unique_suffix

log = logging.getLogger(__name__)

HEARTBEAT_S: Final = 5.0
STALE_AFTER_S: Final = 120.0


def process_started(pid: int) -> str:
    """Return when a process of this host started (clock ticks since boot), or "" if it is gone (or a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return "" if not _alive(pid) else "unknown"
    return "" if fields[0] in {"Z", "X"} else fields[19]


def namespace() -> str:
    """Return where our process ids are valid: containers of one host name do not see each other's."""
    space = Path("/proc/self/ns/pid")
    return str(space.readlink()) if space.is_symlink() else ""


def this_process() -> dict[str, Any]:
    """Return what identifies this process uniquely: host, boot, namespace of its number, number, start."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "host": HOST,
        "boot": boot.read_text().strip() if boot.is_file() else "",
        "pids": namespace(),
        "pid": os.getpid(),
        "started": process_started(os.getpid()),
    }


def is_gone(process: Mapping[str, Any]) -> bool:
    """Return whether a process (see :func:`this_process`) is certainly gone: one elsewhere may be alive unseen."""
    me = this_process()
    if not me["boot"] or not me["pids"] or any(process.get(key) != me[key] for key in ("host", "boot", "pids")):
        return False
    return process_started(int(process["pid"])) != process.get("started")


def place_of(lock: Path) -> dict[str, Any]:
    """Return what distinguishes a lock file from its copies: the path and inode of its directory."""
    return {"path": str(lock.parent.resolve()), "inode": lock.parent.stat().st_ino}


def is_copied(place: Mapping[str, Any] | None, lock: Path) -> bool:
    """Return whether a lock file came to its directory with a copy; without a recorded path it did not."""
    here = place_of(lock)
    return place is not None and all(place.get(key) != here[key] for key in here)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_lock(found: Mapping[str, Any]) -> bool:
    """Return whether the content of a lock file is a valid holder, of this version or an earlier one."""
    kinds = {"pid": int, "since": (int, float), "place": (dict, type(None))}
    return all(isinstance(found[key], kind) for key, kind in kinds.items() if key in found)  # type: ignore[arg-type]


class Claim:
    """One lock file, held between :meth:`acquire` and :meth:`release`.

    Parameters
    ----------
    path
        The lock file.
    stale_after_s
        A heartbeat older than this means that the holder is gone.
    """

    def __init__(self, path: Path, *, stale_after_s: float = STALE_AFTER_S) -> None:
        self.path = path
        self.stale_after_s = stale_after_s
        self.token = uuid.uuid4().hex
        self._released = threading.Event()

    def acquire(self) -> bool:
        """Take the lock, breaking it first if its holder is gone; return whether we hold it now."""
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return self._create() or (self.break_stale() and self._create())

    def break_stale(self) -> bool:
        """Remove the lock if its holder is gone; return whether it was."""
        holder = self.holder()
        if holder is None or not self._is_stale(holder):
            return False
        self._break(holder)
        return True

    def holder(self) -> dict[str, Any] | None:
        """Return what the holder wrote (host, pid, started, token, since), or None if there is none."""
        return self._read(self.path)

    @staticmethod
    def _read(path: Path) -> dict[str, Any] | None:
        """Return the content of a lock file; {} if it is damaged, None if it is not there."""
        try:
            found = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):
            return {}  # an incomplete lock file of a dead writer
        except IsADirectoryError:
            raise Damaged(f"{path}: a folder in place of a lock file - move it away") from None
        return found if isinstance(found, dict) and _is_lock(found) else {}

    def is_ours(self) -> bool:
        """Return whether we (still) hold it."""
        return (self.holder() or {}).get("token") == self.token

    def heartbeat(self) -> None:
        """Show that the holder is alive."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path)

    def release(self) -> None:
        """Release the lock, if it is still ours; where that cannot be written it stays, and becomes stale."""
        self._released.set()
        with contextlib.suppress(OSError):  # the cause is reported elsewhere, and matters more
            if self.is_ours():
                self.path.unlink(missing_ok=True)

    def _create(self) -> bool:
        me = {
            "host": HOST,
            "pids": namespace(),
            "pid": os.getpid(),
            "started": process_started(os.getpid()),
            "token": self.token,
            "since": time.time(),
            "place": place_of(self.path),
        }
        temporary = self.path.with_name(f".{self.path.name}.{unique_suffix()}")
        try:
            temporary.write_text(json.dumps(me))  # linked when complete, so a partial holder is never read
            os.link(temporary, self.path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _is_stale(self, holder: dict[str, Any]) -> bool:
        if not holder:
            return True  # damaged, by a power failure: a holder that is alive cannot tell it is its own, and stops
        if holder.get("host") == HOST and "pid" in holder and holder.get("pids", namespace()) == namespace():
            if is_copied(holder.get("place"), self.path):
                return True  # the holder of the original is irrelevant for the copy of its folder
            return process_started(int(holder["pid"])) != holder.get("started")
        try:  # a timestamp in the future, from before a clock was set back, is as old as one in the past
            return abs(self._file_system_now() - self.path.stat().st_mtime) > self.stale_after_s
        except FileNotFoundError:
            return False

    def _file_system_now(self) -> float:
        """Return the time by the clock of the file system, which on NFS is not the local one."""
        probe = self.path.with_name(f".clock.{unique_suffix()}")
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _break(self, holder: dict[str, Any]) -> None:
        """Remove a stale lock; only one of several processes wins, and a fresh lock taken by mistake is put back."""
        aside = self.path.with_name(f".broken.{unique_suffix()}")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        taken = self._read(aside)
        if taken and taken.get("token") != holder.get("token"):
            with contextlib.suppress(FileExistsError):
                os.link(aside, self.path)
        aside.unlink(missing_ok=True)


class Lease:
    """The right to drive a campaign folder; a context manager with its own heartbeat thread.

    Parameters
    ----------
    folder
        The campaign folder.
    wait
        Wait until the other driver is done instead of raising.
    on_lost
        Called if another driver took the lease (this process was frozen for minutes): stop working.
    """

    def __init__(self, folder: Path, *, wait: bool = False, on_lost: Callable[[], None] = lambda: None) -> None:
        self.claim = Claim(folder / "lease.json")
        self.session = folder / "sessions" / f"{time.strftime('%Y%m%dT%H%M%S')}-{unique_suffix()}"
        self.wait = wait
        self.on_lost = on_lost
        self.is_lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease-heartbeat", daemon=True)

    def __enter__(self) -> Lease:
        is_told = False
        while not self.claim.acquire():
            holder = self.claim.holder() or {}
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.get("since", time.time())))
            driven = f"driven by process {holder.get('pid', '?')} on {holder.get('host', '?')} since {since}"
            if not self.wait:
                raise FolderHeld(
                    f"{self.claim.path.parent}: {driven} - expected a free folder - wait for it with --wait, "
                    "or stop that process"
                )
            if not is_told:
                log.warning("%s: %s; waiting for its end", self.claim.path.parent, driven)
                is_told = True
            time.sleep(0.5)
        try:
            with disk_errors(self.session):
                self.session.parent.mkdir(parents=True, exist_ok=True)
                self.session.write_text(repr(time.time()))
        except BaseException:
            self.claim.release()
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            os.utime(self.session)
        self.claim.release()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):  # the heartbeat continues after a transient error of the file system
                if not self.claim.is_ours():
                    self.is_lost = True
                    self.on_lost()  # another driver considered us dead: two must not drive one folder
                    return
                self.claim.heartbeat()
                os.utime(self.session)
