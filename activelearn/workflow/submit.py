"""Submitting a campaign to a shared LaunchPad; workers (`rlaunch`, `qlaunch`) do the rest."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Final

from activelearn import loop, study
from activelearn.config import Machine
from activelearn.ending import ended
from activelearn.errors import ConfigError
from activelearn.store import Store, StudyStore
from activelearn.workflow.firetasks import add_once, enter, is_same_folder, kind_of, launch_dir, query_of, whereabouts
from activelearn.workflow.launchpads import SharedLaunchPad
from activelearn.workflow.queues import want_no_variable

#: States of a Firework that no worker takes by itself.
_ENDED: Final = ("FIZZLED", "DEFUSED")


def submit(store: Store | StudyStore, machine: Machine, launchpad: SharedLaunchPad, *, move: bool = False) -> str:
    """Add the Workflow of what comes next to a LaunchPad, once; return in a sentence what was done.

    A second submission adds nothing. If the database was lost, the Workflow is rebuilt from the products of the folder.
    A campaign that stopped on failures continues: what fizzled is run again, and failures are counted from zero.
    Categories and queue settings of a changed machine profile are applied to Fireworks that no worker has taken. If the
    folder has moved, the rest of its Workflow is pointed to the new path, and what failed meanwhile is run again.

    Parameters
    ----------
    store
        The folder of a campaign, or of a study by itself; its lease held.
    machine
        Chunks, categories and queue settings.
    launchpad
        Where it is added; an empty database is initialised.
    move
        Leave another LaunchPad that the folder was submitted to; its Fireworks end quietly.

    Raises
    ------
    ConfigError
        The folder is submitted to another LaunchPad, or no worker would find it.
    """
    want_no_variable(store.folder)
    database = launchpad.prepare()
    before = store.submissions.current()
    if before is not None and before.database != database and before.launchpad != launchpad.identity and not move:
        raise ConfigError(
            f"{store.folder}: was submitted to {before.launchpad} - expected one LaunchPad per folder - submit there, "
            f"or move to {launchpad.identity} with --move (its Fireworks then end quietly)"
        )
    store.save_machine(machine)
    submission = store.submissions.submit(launchpad.identity, database)
    phase = loop.next_phase(store) if isinstance(store, Store) else _of_study(store)
    if phase is None:
        return f"nothing left to do: {ended(store).message if isinstance(store, Store) else 'all of it is measured'}"
    enter(phase, machine)
    _drop_superseded(launchpad, phase)
    if (found := launchpad.workflows.find_one(query_of(phase))) is None:
        add_once(launchpad, phase, machine)
        again = "" if before is None else " again, from the products of the folder"
        return f"{_what(phase)} added to {launchpad.identity}{again}"
    changed = f"; {n} Fireworks have new settings" if (n := _bring_settings(launchpad, found, machine)) else ""
    moved = _follow(launchpad, found, phase.store.folder)
    changed += "".join(f"; {line}" for line in moved)
    if (moved or submission != before) and (n := _run_again(launchpad, found)):
        return f"{_what(phase)} continues at {launchpad.identity}: {n} failed Fireworks run again{changed}"
    return f"{_what(phase)} is already at {launchpad.identity}; nothing added{changed}"


def _of_study(store: StudyStore) -> loop.Phase | None:
    """Return what is left of a study by itself; None: nothing, and its tables are written."""
    if not study.is_done(store, store.study):
        return loop.StudyPhase.of(store, store.study)
    study.write_report(store)
    return None


def _drop_superseded(launchpad: SharedLaunchPad, phase: loop.Phase) -> None:
    """End the Workflows of a campaign that were not started and are no longer what comes next.

    Systems may have been added since: their data come first, and the stations of the next iteration differ.
    """
    is_next = query_of(phase)
    query = {"metadata.campaign": phase.store.uuid, "state": {"$in": ["READY", "WAITING", "RESERVED"]}}
    for workflow in launchpad.workflows.find({**query, "$nor": [is_next]}):
        launchpad.defuse_wf(workflow["nodes"][0])


def _what(phase: loop.Phase) -> str:
    folder = phase.store.folder
    name = {"loop": f"iteration {phase.iteration}", "final": "the final training", "study": "glass and benchmarks"}
    is_of_campaign = isinstance(phase, loop.StudyPhase) and phase.campaign is not None
    return f"{name[phase.name]} of {folder.parent.name if is_of_campaign else folder.name}"


def _bring_settings(launchpad: SharedLaunchPad, workflow: dict[str, Any], machine: Machine) -> int:
    """Give the Fireworks that no worker has taken the current settings of the profile; return how many changed."""
    waiting = {"fw_id": {"$in": workflow["nodes"]}, "state": {"$in": ["WAITING", "READY", *_ENDED]}}
    n = 0
    for firework in launchpad.fireworks.find(waiting, {"fw_id": 1, "state": 1, "spec": 1}):
        settings = whereabouts(machine, kind_of(firework["spec"]))
        if any(firework["spec"].get(key) != value for key, value in settings.items()):
            as_found = {"fw_id": firework["fw_id"], "state": firework["state"]}
            changes = {"$set": {f"spec.{key}": value for key, value in settings.items()}}
            n += launchpad.fireworks.update_one(as_found, changes).modified_count
    return n


def _follow(launchpad: SharedLaunchPad, workflow: dict[str, Any], folder: Path) -> list[str]:
    """Point the Fireworks that have not ended to the current path of the folder; return sentences on what was done."""
    before: Counter[str] = Counter()
    running = 0
    for firework in launchpad.fireworks.find({"fw_id": {"$in": workflow["nodes"]}, "state": {"$ne": "COMPLETED"}}):
        (task,) = firework["spec"]["_tasks"]
        if is_same_folder(task["folder"], folder):
            continue
        here = {"spec._tasks": [{**task, "folder": str(folder)}], "spec._launch_dir": launch_dir(folder)}
        launchpad.fireworks.update_one({"fw_id": firework["fw_id"]}, {"$set": here})
        before[task["folder"]] += 1
        running += firework["state"] == "RUNNING"
    said = [f"{n} Fireworks now point to {folder} instead of {old}: the folder has moved" for old, n in before.items()]
    if running:
        said.append(f"{running} of them are running at the old path: end their workers, and see: activelearn doctor")
    return said


def _run_again(launchpad: SharedLaunchPad, workflow: dict[str, Any]) -> int:
    """Rerun the fizzled Fireworks of a Workflow; return how many there were."""
    fizzled = launchpad.get_fw_ids({"fw_id": {"$in": workflow["nodes"]}, "state": {"$in": list(_ENDED)}})
    for fw_id in fizzled:
        launchpad.rerun_fw(fw_id)
    return len(fizzled)
