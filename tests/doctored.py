"""A Workflow as those of campaigns are, of Fireworks that only note that they ran; and ways to die while it runs."""

import os
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from fireworks import FireTaskBase, Firework, FWAction, FWorker, Workflow, explicit_serialize
from fireworks.core.rocket_launcher import launch_rocket

from activelearn.store.submission import Submissions
from activelearn.workflow.launchpads import database_id


@explicit_serialize
class Note(FireTaskBase):
    """Note in a file that it ran; fail, wait, or ask for a detour if the folder says so."""

    required_params: Final = ["folder", "name"]

    def run_task(self, fw_spec):
        folder = Path(self["folder"])
        with (folder / "notes").open("a") as stream:
            stream.write(f"{self['name']}\n")
        while (folder / f"hold-{self['name']}").exists():
            time.sleep(0.05)
        if (broken := folder / f"break-{self['name']}").exists():
            raise RuntimeError(broken.read_text())
        asked = folder / f"detour-{self['name']}"
        if not asked.exists():
            return None
        asked.unlink()
        return FWAction(detours=[Workflow([Firework(Note(folder=str(folder), name="detour"))])])


class Killed(BaseException):
    """Stands for kill -9 in a test that must survive: nothing catches it."""


def die(*_, **__):
    raise Killed


def add(launchpad, folder: Path, *, n_chunks: int = 2) -> dict[str, int]:
    """Add chunks, a gather and a decision, as one iteration of a submitted campaign; return their ids by name."""
    folder.mkdir(exist_ok=True)
    launchpad.prepare()
    Submissions(folder).submit(launchpad.identity, database_id(launchpad))
    spec = {"_category": "cpu"}
    chunks = [Firework(Note(folder=str(folder), name=f"chunk{k}"), spec, name=f"chunk{k}") for k in range(n_chunks)]
    allowing = {**spec, "_allow_fizzled_parents": True}
    gather = Firework(Note(folder=str(folder), name="gather"), allowing, name="gather", parents=chunks)
    decide = Firework(Note(folder=str(folder), name="decide"), spec, name="decide", parents=[gather])
    metadata = {"campaign": folder.name, "iteration": 1, "part": "loop"}
    launchpad.add_wf(Workflow([*chunks, gather, decide], name=f"{folder.name} iter-001", metadata=metadata))
    return {one["name"]: one["fw_id"] for one in launchpad.fireworks.find({})}


def work(launchpad, n_rockets: int = 100, fw_id: int | None = None) -> None:
    """Work off what is ready, in this process."""
    for _ in range(n_rockets):
        if not launch_rocket(launchpad, FWorker(), fw_id=fw_id, strm_lvl="CRITICAL"):
            return


def states(launchpad) -> dict[str, str]:
    """Return the states by name."""
    return {one["name"]: one["state"] for one in launchpad.fireworks.find({})}


def notes(folder: Path) -> list[str]:
    """Return who ran, in this order."""
    return (folder / "notes").read_text().split()


def age(launchpad, seconds: float) -> None:
    """Let everything that is noted in a LaunchPad have happened so much earlier."""
    for collection in (launchpad.fireworks, launchpad.launches, launchpad.workflows):
        for document in list(collection.find({})):
            collection.replace_one({"_id": document["_id"]}, _earlier(document, timedelta(seconds=seconds)))


def _earlier(value, by: timedelta):
    if isinstance(value, dict):
        return {key: _shifted(one, by) if key.endswith("_on") else _earlier(one, by) for key, one in value.items()}
    return [_earlier(one, by) for one in value] if isinstance(value, list) else value


def _shifted(value, by: timedelta):
    if isinstance(value, str):
        return (datetime.fromisoformat(value) - by).isoformat()
    return value - by if isinstance(value, datetime) else value


def kill_myself(*_, **__):
    """Be killed, as by the batch system or the kernel."""
    os.kill(os.getpid(), 9)
