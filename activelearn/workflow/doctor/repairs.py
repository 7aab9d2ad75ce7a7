"""Repairs: each checks again right before it acts, and leaves alone anything with a sign of life since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from fireworks import LaunchPad
from fireworks.core.launchpad import LockedWorkflowError

from activelearn.workflow.doctor.picture import last_sign, parents_first, unix_time
from activelearn.workflow.doctor.words import Finding, numbers, without_credentials

#: States in which the Fireworks of a finding must still be.
_AS_FOUND: Final = {
    "reserved": {"RESERVED"},
    "lost": {"RUNNING"},
    "import": {"FIZZLED"},
    "fizzled": {"FIZZLED"},
}


def repair(launchpad: LaunchPad, findings: Iterable[Finding]) -> list[str]:
    """Repair what can be repaired; return a line for each repair, or why it was not done.

    The tasks are idempotent: a Firework that runs once more than needed finds its products and ends.
    """
    ordered = sorted((one for one in findings if one.repairable), key=lambda one: one.kind != "lock")
    return [without_credentials(_repaired(launchpad, one), launchpad) for one in ordered]


def _repaired(launchpad: LaunchPad, finding: Finding) -> str:
    busy = {"nodes": finding.workflow, "locked": {"$exists": True}}
    try:
        if finding.kind != "lock" and launchpad.workflows.find_one(busy, {"_id": 1}) is not None:
            return f"{finding.kind}: left alone, as its Workflow is being changed; run the same command again"
        return f"{finding.kind}: {_HOW[finding.kind](launchpad, finding)}"
    except LockedWorkflowError:
        return f"{finding.kind}: its Workflow stayed locked; run the same command again in a few minutes"
    except (RuntimeError, ValueError) as error:  # what FireWorks raises where it cannot read a Workflow
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        return f"{finding.kind}: not repaired: {lines[-1].strip()}"


def _run_again(launchpad: LaunchPad, finding: Finding) -> str:
    again = []
    for fw_id in finding.fw_ids:
        firework = launchpad.fireworks.find_one({"fw_id": fw_id})
        if firework is None or firework["state"] not in _AS_FOUND[finding.kind]:
            continue
        launches = list(launchpad.launches.find({"launch_id": {"$in": firework["launches"]}}))
        if max([unix_time(firework["updated_on"]) or 0.0, *map(last_sign, launches)]) > finding.until:
            continue
        launchpad.rerun_fw(fw_id)
        _end_launches(launchpad, [launch["launch_id"] for launch in launches], finding.until)
        again.append(fw_id)
    if again:
        return f"ready again: {numbers(again)}"
    states = Counter(one["state"] for one in launchpad.fireworks.find({"fw_id": {"$in": list(finding.fw_ids)}}))
    return "nothing left to do: " + ", ".join(f"{n} {state}" for state, n in states.items())


def _end_launches(launchpad: LaunchPad, launch_ids: Iterable[int], until: float) -> int:
    """Record the end of launches that no longer count; a worker that has written since is alive."""
    ended = 0
    for launch in launchpad.launches.find({"launch_id": {"$in": list(launch_ids)}}):
        if launch["state"] in {"RUNNING", "RESERVED"} and last_sign(launch) <= until:
            as_it_is = {"launch_id": launch["launch_id"], "state": launch["state"]}
            ended += launchpad.launches.update_one(as_it_is, {"$set": {"state": "FIZZLED"}}).modified_count
    return ended


def _close(launchpad: LaunchPad, finding: Finding) -> str:
    return f"{_end_launches(launchpad, finding.launch_ids, finding.until)} recorded as ended"


def _unlock(launchpad: LaunchPad, finding: Finding) -> str:
    workflow = launchpad.workflows.find_one({"nodes": finding.workflow, "locked": {"$exists": True}})
    if workflow is None or (unix_time(workflow["updated_on"]) or 0.0) > finding.until:
        return "nothing left to do"
    as_found = {"nodes": finding.workflow, "updated_on": workflow["updated_on"]}
    launchpad.workflows.update_one(as_found, {"$unset": {"locked": True}})
    return f"removed; {_refresh(launchpad, finding)}"


def _refresh(launchpad: LaunchPad, finding: Finding) -> str:
    """Determine the states of a Workflow again, from its launches."""
    workflow = launchpad.workflows.find_one({"nodes": finding.workflow})
    if workflow is None:
        return "nothing left to do"
    before = _states(launchpad, workflow)
    for fw_id in parents_first(workflow):
        if _has_lost_detours(launchpad, workflow, fw_id):
            launchpad.rerun_fw(fw_id)
        else:
            launchpad._refresh_wf(fw_id)
    workflow = launchpad.workflows.find_one({"nodes": finding.workflow})
    after = _states(launchpad, workflow)
    ready = [fw_id for fw_id, state in sorted(after.items()) if state == "READY" and before.get(fw_id) != "READY"]
    return f"ready now: {numbers(ready)}" if ready else "the states are determined again"


def _states(launchpad: LaunchPad, workflow: dict[str, Any]) -> dict[int, str]:
    found = launchpad.fireworks.find({"fw_id": {"$in": workflow["nodes"]}}, {"fw_id": 1, "state": 1})
    return {one["fw_id"]: one["state"] for one in found}


def _has_lost_detours(launchpad: LaunchPad, workflow: dict[str, Any], fw_id: int) -> bool:
    """Return whether a Firework is COMPLETED but the Workflow does not have this, nor the detours that it requested.

    FireWorks carries out the requests of a Firework only while its state changes, so it must run again.
    """
    firework = launchpad.fireworks.find_one({"fw_id": fw_id}, {"state": 1, "launches": 1})
    if firework is None or firework["state"] != "COMPLETED" or workflow["fw_states"].get(str(fw_id)) == "COMPLETED":
        return False
    launches = launchpad.launches.find({"launch_id": {"$in": firework["launches"]}}, {"action": 1})
    return any((launch.get("action") or {}).get("detours") for launch in launches)


def _remove(launchpad: LaunchPad, finding: Finding) -> str:
    strays = [fw_id for fw_id in finding.fw_ids if launchpad.workflows.find_one({"nodes": fw_id}, {"_id": 1}) is None]
    n = launchpad.fireworks.delete_many({"fw_id": {"$in": strays}}).deleted_count
    return f"{n} removed"


def _end(launchpad: LaunchPad, finding: Finding) -> str:
    workflow = launchpad.workflows.find_one({"nodes": finding.workflow})
    if workflow is None:
        return "nothing left to do"
    done = [fw_id for fw_id, state in _states(launchpad, workflow).items() if state == "COMPLETED"]
    for fw_id in parents_first(workflow):  # a running one is rerun first, together with its children
        if fw_id not in done:
            launchpad.defuse_fw(fw_id)
    return f"the Workflow of Firework {finding.workflow} has ended here"


_HOW: Final[dict[str, Callable[[LaunchPad, Finding], str]]] = {
    "lock": _unlock,
    "reserved": _run_again,
    "lost": _run_again,
    "import": _run_again,
    "fizzled": _run_again,
    "left over": _close,
    "torn": _refresh,
    "stalled": _refresh,
    "stray": _remove,
    "elsewhere": _end,
}
