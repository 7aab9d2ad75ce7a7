"""The smoke test through a LaunchPad: one tiny job to each place, on the nodes and by the workers of a run."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from fireworks import FireTaskBase, Firework, FWAction, LaunchPad, Workflow, explicit_serialize

from activelearn import trees
from activelearn.check import smoke
from activelearn.check.agreement import FILE
from activelearn.check.smoke import Probe
from activelearn.config import Machine, Queue
from activelearn.workflow.queues import queue_keys, shown_by, want_no_variable
from activelearn.workflow.site import worker_line

#: Interval of queries of the LaunchPad, s.
_LOOK_EVERY_S: Final = 1.0
_ENDED: Final = ("COMPLETED", "FIZZLED", "DEFUSED")


@explicit_serialize
class Smoke(FireTaskBase):  # type: ignore[misc]
    """Probe a place from the node that a worker runs on."""

    required_params: Final = ["machine", "place", "folder", "token", "wants"]

    def run_task(self, fw_spec: dict[str, Any]) -> FWAction:  # noqa: ARG002 - all is in the parameters
        """Return the findings as the stored data of the launch."""
        machine = Machine.model_validate(self["machine"])
        where = self["place"], Path(self["folder"])
        login = where[1] / FILE
        compares = (lambda: login) if login.is_file() else None
        seen = smoke.probe(machine, *where, token=self["token"], wants=self["wants"], login=compares)
        return FWAction(stored_data={"probe": seen.to_dict()})


@dataclass
class Sent:
    """The jobs of a smoke test.

    Parameters
    ----------
    launchpad
        Where they were added.
    machine
        The profile.
    file
        my_launchpad.yaml; the workers' files may be beside it, and are used in the advice.
    fireworks
        Id of the Firework of each place.
    have_all_reported
        Whether there is a probe of every place.
    """

    launchpad: LaunchPad
    machine: Machine
    file: Path
    fireworks: dict[str, int] = field(default_factory=dict)
    have_all_reported: bool = False

    def wait(self, timeout_s: float) -> dict[str, Probe | str]:
        """Return the findings at each place, or a sentence on why there are none."""
        deadline = time.monotonic() + timeout_s
        found: dict[str, Probe | str] = {}
        while len(found) < len(self.fireworks):
            is_late = time.monotonic() > deadline
            for place in self.fireworks.keys() - found.keys():
                answer = self._look_at(place)
                if answer is not None:
                    found[place] = answer
                elif is_late:
                    found[place] = self._why_late(place, timeout_s)
            if len(found) < len(self.fireworks):
                time.sleep(_LOOK_EVERY_S)
        self.have_all_reported = all(isinstance(answer, Probe) for answer in found.values())
        return {place: found[place] for place in self.fireworks}

    def _firework(self, place: str) -> dict[str, Any]:
        return self.launchpad.fireworks.find_one({"fw_id": self.fireworks[place]}) or {"state": "gone", "launches": []}

    def _launch(self, firework: dict[str, Any]) -> dict[str, Any]:
        ids = firework["launches"][-1:]
        return (self.launchpad.launches.find_one({"launch_id": ids[0]}) if ids else None) or {}

    def _look_at(self, place: str) -> Probe | str | None:
        """Return what is known of a place, None while its job has not ended."""
        firework = self._firework(place)
        if firework["state"] not in _ENDED:
            return None
        launch = self._launch(firework)
        stored = (launch.get("action") or {}).get("stored_data") or {}
        if "probe" in stored:
            return _with_clock(Probe.from_dict(stored["probe"]))
        trace = str((stored.get("_exception") or {}).get("_stacktrace") or "no traceback")
        host = launch.get("host", "a node")
        return (
            f"{place} ({host}): the job ended with: {trace.strip().splitlines()[-1]} - expected a worker with this "
            "installation of activelearn - see the environment of the job, and its output in "
            f"{launch.get('launch_dir')}"
        )

    def _why_late(self, place: str, timeout_s: float) -> str:
        firework = self._firework(place)
        launch, state = self._launch(firework), firework["state"]
        category = self.machine.places[place].category or place if self.machine.places else ""
        if state == "RESERVED":
            jobs = [entry["reservation_id"] for entry in launch.get("state_history", ()) if entry.get("reservation_id")]
            job = jobs[-1] if jobs else "(without a number)"
            shown = shown_by(self.machine.places[place].queue if self.machine.places else Queue(), job)
            return (
                f"{place}: job {job} has not reported within {timeout_s:g} s - expected it to run - {shown}: either it "
                f"is pending (--timeout-s), or it ended before its program started (output in "
                f"{launch.get('launch_dir')})"
            )
        if state == "RUNNING":
            return (
                f"{place} ({launch.get('host', '?')}): still running after {timeout_s:g} s - expected a few minutes - "
                "is the environment on a slow disk? wait longer with --timeout-s"
            )
        if state == "gone":
            return f"{place}: its Firework was deleted from the database - run the same command again"
        whose = f"of category {category} " if category else ""
        return (
            f"{place}: no job {whose}was taken within {timeout_s:g} s - expected a worker for it - is one running? "
            f"{worker_line(self.file, category)}"
        )

    def withdraw(self) -> None:
        """Remove the jobs from the LaunchPad, except running ones; workers would stay for them."""
        for place, fw_id in self.fireworks.items():
            if self._firework(place)["state"] not in {"RUNNING", "gone"}:
                with contextlib.redirect_stdout(None):  # FireWorks prints
                    self.launchpad.delete_wf(fw_id)


def _with_clock(seen: Probe) -> Probe:
    """Return a probe that has just arrived, with the clock of its node compared with ours."""
    skew = seen.time - time.time()
    if -smoke.LARGEST_SKEW_S < skew < smoke.LARGEST_SKEW_S:
        return seen
    said = (
        f"{seen.place} ({seen.host}): its clock is {skew:+.0f} s from that of this machine - expected less than "
        f"{smoke.LARGEST_SKEW_S:g} s, otherwise live workers are considered dead - ask the administrators (NTP)"
    )
    return dataclasses.replace(seen, problems=(*seen.problems, said))


@contextlib.contextmanager
def sent(
    machine: Machine,
    launchpad: LaunchPad,
    folder: Path,
    file: Path,
    *,
    wants: Mapping[str, Any] = MappingProxyType({}),
    prepare: Callable[[Path], object] = lambda _: None,
) -> Iterator[Sent]:
    """Send one job to each place; they are withdrawn at the end, and their output is kept if one did not report.

    Parameters
    ----------
    machine
        The profile; with no places, the one job is for any worker.
    launchpad
        Where the jobs are added; its database is initialised.
    folder
        Absolute, on the disk that all nodes share: the jobs work in a folder of their own in it.
    file
        my_launchpad.yaml.
    wants
        What a campaign needs: :func:`activelearn.check.smoke.wants_of`.
    prepare
        Writes to the folder of the jobs what they compare with: :func:`activelearn.check.smoke.at_login`.
    """
    want_no_variable(folder)
    token = secrets.token_hex(8)
    ours = trees.make(folder / f"activelearn-smoke-{token}")
    (ours / token).touch()
    jobs = Sent(launchpad, machine, file)
    try:
        prepare(ours)
        for place in machine.stations_by_place():
            asked = {"place": place, "folder": str(ours), "token": token, "wants": dict(wants)}
            firework = _firework(machine, asked)
            ids = launchpad.add_wf(Workflow([firework], name=firework.name, metadata={"activelearn": "smoke"}))
            jobs.fireworks[place] = next(iter(ids.values()))
        yield jobs
    finally:
        with contextlib.suppress(Exception):  # the server is gone, and so are the jobs
            jobs.withdraw()
        if jobs.have_all_reported or not jobs.fireworks:
            trees.remove(ours, folder)


def _firework(machine: Machine, asked: dict[str, Any]) -> Firework:
    place = asked["place"]
    spec: dict[str, Any] = {"_launch_dir": asked["folder"]}
    if machine.places:
        where = machine.places[place]
        spec |= {"_category": where.category or place, "_queueadapter": queue_keys(where.queue)}
    return Firework(Smoke({"machine": machine.model_dump(mode="json"), **asked}), spec=spec, name=f"smoke {place}")
