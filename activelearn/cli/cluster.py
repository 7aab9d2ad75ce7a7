"""``activelearn submit``, and FireWorks' own ``rlaunch`` and ``qlaunch`` with their known faults cured."""

from __future__ import annotations

import itertools
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from activelearn.cli import (
    CampaignArgument,
    FolderOption,
    MachineOption,
    RefuseOption,
    accept_changed,
    app,
    consented,
    driving,
    inputs,
    refuse_problems,
)

LaunchPadOption = Annotated[Path, typer.Option("-l", "--launchpad", help="FireWorks' my_launchpad.yaml.")]
_THEIRS = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@app.command()
def submit(
    campaign: CampaignArgument,
    launchpad: LaunchPadOption,
    folder: FolderOption = None,
    machine: MachineOption = "local",
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="A changed campaign takes effect from the next iteration on.")
    ] = False,
    refuse: RefuseOption = None,
    move: Annotated[bool, typer.Option("--move", help="Leave another LaunchPad it was submitted to.")] = False,
) -> None:
    """Add a campaign to a LaunchPad and return; workers (rlaunch, qlaunch) do the rest. Again: it goes on."""
    chosen, profile, place = inputs(campaign, folder, machine, None)
    refuse_problems(chosen, profile, place, launchpad)
    from activelearn.store import Store
    from activelearn.workflow import connect
    from activelearn.workflow import submit as add
    from activelearn.workflow.site import worker_lines

    pad = connect(launchpad)
    store = Store.create(place, chosen)
    with driving(store):
        accept_changed(store, chosen, accept=accept_changes)
        consented(store, refuse)
        said = add(store, profile, pad, move=move)
    print(f"campaign {chosen.name}: {said}\nfolder {place}")
    file = shlex.quote(str(launchpad.absolute()))
    print("workers, if they do not run yet:", *worker_lines(profile, launchpad), sep="\n  ")
    print(f"look at it:  activelearn status {shlex.quote(str(place))}\nsomething hangs:  activelearn doctor -l {file}")


@app.command(context_settings=_THEIRS)
def rlaunch(context: typer.Context) -> None:
    """FireWorks' rlaunch (same options), with ids that no two workers share."""
    _settle(context.args)
    from activelearn.workflow.worker import rlaunch as theirs

    raise typer.Exit(theirs(context.args))


@app.command(context_settings=_THEIRS)
def qlaunch(context: typer.Context) -> None:
    """FireWorks' qlaunch (same options), with ids that no two workers share."""
    _settle(context.args)
    from activelearn.workflow.worker import qlaunch as theirs

    raise typer.Exit(theirs(context.args))


def _is_refusal(record: logging.LogRecord) -> bool:
    return record.name.startswith("qadapter") and record.levelno >= logging.ERROR


def _settle(arguments: list[str]) -> None:
    """Take the FW_config.yaml beside the LaunchPad's file before FireWorks reads its own; keep the log ours."""
    ours = logging.StreamHandler(sys.stderr)
    # FireWorks prints its own, which would be read twice; but not why sbatch refused a job.
    ours.addFilter(lambda record: record.name.startswith("activelearn") or _is_refusal(record))
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[ours])
    for word, after in itertools.pairwise(arguments):
        beside = Path(after).absolute().parent / "FW_config.yaml"
        if word in {"-l", "--launchpad_file"} and beside.is_file():
            os.environ.setdefault("FW_CONFIG_FILE", str(beside))
