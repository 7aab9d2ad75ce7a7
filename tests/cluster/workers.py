"""Submitting the tiny campaign and working it off, as a user does: with commands, in processes of their own."""

import collections
import os
import shutil
import subprocess
import time
from pathlib import Path

from campaigns import TINY, cli, command, environment, machine_file, tiny

from activelearn.store import Store
from activelearn.workflow import SharedLaunchPad, connect

#: A reference that notes every structure it is asked for in the file of $LOGGED_EMT.
LOGGED = {"calculator": "logged_emt:LoggedEMT", "package": "ase", "functional": "none", "includes_dispersion": False}


class Submitted:
    """The tiny campaign in a folder, and a fresh database of a LaunchPad for it.

    Parameters
    ----------
    here
        Where the files of the user stand: the campaign, the machine profile and my_launchpad.yaml.
    mongo
        The server.
    machine
        Settings of the machine profile.
    """

    def __init__(self, here: Path, mongo, **machine) -> None:
        self.here, self.mongo = here, mongo
        self.folder = here / "c"
        self.calculated = here / "calculations.txt"
        self.campaign = tiny(here / "tiny.yaml", label__reference=LOGGED)
        self.machine = machine_file(here / "machine.yaml", **machine)
        self.file = mongo.launchpad_file(here)
        self.workers: list[subprocess.Popen] = []

    @property
    def store(self) -> Store:
        return Store(self.folder)

    @property
    def launchpad(self) -> SharedLaunchPad:
        return connect(self.file)

    def submit(self, *more) -> subprocess.CompletedProcess:
        """``activelearn submit``."""
        arguments = ("submit", self.campaign, "-l", self.file, "--folder", self.folder, "--machine", self.machine)
        return cli(*arguments, *more, cwd=self.here, timeout=120)

    def environment(self, **more: str) -> dict[str, str]:
        """Return what workers find in their environment."""
        return environment(LOGGED_EMT=str(self.calculated), **more)

    def start_worker(self, *more, **variables: str) -> subprocess.Popen:
        """``activelearn rlaunch rapidfire``, in an empty folder; what it says goes to `output` there.

        What is named is put into its environment.
        """
        folder = self.here / "workers" / str(len(self.workers))
        folder.mkdir(parents=True)
        with (folder / "output").open("wb") as log:
            worker = subprocess.Popen(
                command("rlaunch", "-l", self.file, "rapidfire", "--sleep", "0", *more),
                cwd=folder,
                env=self.environment(**variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.workers.append(worker)
        return worker

    def said(self) -> str:
        """Return what all workers said."""
        return "\n".join(path.read_text() for path in sorted((self.here / "workers").glob("*/output")))

    def fireworks(self) -> list[dict]:
        """Return all Fireworks, in the order of their ids."""
        return list(self.launchpad.fireworks.find({}).sort("fw_id", 1))

    def states(self) -> collections.Counter:
        """Return how many Fireworks are in which state."""
        return collections.Counter(one["state"] for one in self.fireworks())

    def calculations(self) -> collections.Counter:
        """Return how often the reference was asked for each structure."""
        lines = self.calculated.read_text().splitlines() if self.calculated.exists() else []
        return collections.Counter(line.split()[0] for line in lines)

    def files_with(self, text: str) -> list[Path]:
        """Return the files that contain a text, but for my_launchpad.yaml."""
        files = (path for path in self.here.rglob("*") if path.is_file() and path != self.file)
        return [path for path in files if text.encode() in path.read_bytes()]


def nearly_ended(undisturbed, mongo, here: Path, **machine) -> Submitted:
    """Return a copy of the tiny campaign in which the final models are trained, but not gathered: seconds of work."""
    ours = Submitted(here, mongo, slots=1, **machine)
    shutil.copytree(undisturbed[0].folder, ours.folder)
    (ours.folder / "iter-002" / "final" / "result.json").unlink()
    ours.campaign = TINY
    return ours


def wait_for(condition, *, timeout_s: float, what: str) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain: {what}"
        time.sleep(0.2)


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of every file of a folder, but for FireWorks' own and the notes of who came."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name not in {"launches", "sessions"})
    return {str(path.relative_to(folder)): _stamp(path.stat()) for path in files}


def _stamp(found: os.stat_result) -> tuple[int, int]:
    return found.st_size, found.st_mtime_ns
