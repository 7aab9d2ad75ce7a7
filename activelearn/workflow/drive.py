"""Driving a campaign or a study in this process, through a fresh embedded LaunchPad per iteration."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import fireworks.core.rocket
from fireworks import FWorker
from fireworks.core.rocket_launcher import launch_rocket

from activelearn import loop, trees
from activelearn.check.trial import try_study
from activelearn.config import Machine
from activelearn.ending import ended
from activelearn.engines.process import check_stop, is_stopping
from activelearn.errors import StoreError
from activelearn.loop import Phase, StudyPhase
from activelearn.records import End
from activelearn.store import Store
from activelearn.workflow.firetasks import add_once, enter
from activelearn.workflow.launchpads import EmbeddedLaunchPad

log = logging.getLogger(__name__)
_QUIET: Final = "CRITICAL"


def run_local(store: Store, machine: Machine) -> End:
    """Drive a campaign to its end in this process, through a fresh in-memory LaunchPad per iteration.

    Raises
    ------
    ActiveLearnError
        Whatever a task raised: a failure past its bound, an interruption, a full disk.
    """
    store.save_machine(machine)
    with _empty_working_directory():
        while (phase := loop.next_phase(store)) is not None:
            check_stop()
            enter(phase, machine)
            if isinstance(phase, StudyPhase):
                own = store.latest_campaign().label.reference
                for line in try_study(phase.store, phase.asked, machine, n_own=1, own=own):
                    log.warning("%s", line)
            _run_through(phase, machine)
    return ended(store)


def run_study(phase: StudyPhase, machine: Machine) -> None:
    """Drive a study that was started to its end in this process, as :func:`run_local` does a campaign."""
    phase.store.save_machine(machine)
    with _empty_working_directory():
        _run_through(phase, machine)


def _run_through(phase: Phase, machine: Machine) -> None:
    for name in ("launchpad", "rocket.launcher"):  # FireWorks' own log must not drown ours
        logging.getLogger(name).disabled = True
    launchpad = EmbeddedLaunchPad(phase)
    add_once(launchpad, phase, machine)
    _launch_all(launchpad)


def _launch_all(launchpad: EmbeddedLaunchPad) -> None:
    worker = FWorker(name="activelearn-local")
    while not is_stopping() and launch_rocket(launchpad, worker, strm_lvl=_QUIET):
        if launchpad.error is not None:
            raise launchpad.error
        _raise_fault(launchpad)  # immediately: the gather after it would continue, and hide it behind detours
    check_stop()


def _raise_fault(launchpad: EmbeddedLaunchPad) -> None:
    fizzled = launchpad.fireworks.find_one({"state": "FIZZLED"})
    if fizzled is not None:  # not one of our errors: a bug
        trace = launchpad.get_fw_by_id(fizzled["fw_id"]).launches[-1].action.stored_data["_exception"]["_stacktrace"]
        raise StoreError(f"{fizzled['name']} failed; nothing that was published is lost. Please report this:\n{trace}")


@contextlib.contextmanager
def _empty_working_directory() -> Iterator[None]:
    """Work in an empty folder: a stray FWAction.json or FW_config.yaml in the user's own would be used."""
    here = Path.cwd()
    saved = fireworks.core.rocket.PRINT_FW_JSON
    with trees.temporary() as folder:
        os.chdir(folder)
        fireworks.core.rocket.PRINT_FW_JSON = False
        try:
            yield
        finally:
            fireworks.core.rocket.PRINT_FW_JSON = saved
            os.chdir(here if here.is_dir() else here.anchor)  # it may be gone by now
