"""``activelearn submit``, and FireWorks' own ``rlaunch`` and ``qlaunch`` with fixes for their known bugs."""

from __future__ import annotations

import itertools
import logging
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from activelearn.cli import (
    AcceptOption,
    CampaignArgument,
    FolderOption,
    MachineOption,
    RefuseOption,
    TrustOption,
    UnusualOption,
    WaitOption,
    app,
    consented,
    inputs,
    refuse_problems,
    say,
    take_settings_beside,
    told_with_lines,
    want_accepted,
    want_trusted,
)
from activelearn.errors import typed

LaunchPadOption = Annotated[Path, typer.Option("-l", "--launchpad", help="FireWorks' my_launchpad.yaml.")]
_THEIRS = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@app.command()
def submit(
    campaign: CampaignArgument,
    launchpad: LaunchPadOption,
    folder: FolderOption = None,
    machine: MachineOption = "local",
    accept_changes: AcceptOption = False,
    refuse: RefuseOption = None,
    accept_unusual: UnusualOption = False,
    trust: TrustOption = False,
    wait: WaitOption = False,
    move: Annotated[
        bool, typer.Option("--move", help="Withdraw it from the LaunchPad that it was submitted to before.")
    ] = False,
) -> None:
    """Add a campaign to a LaunchPad and return; workers (rlaunch, qlaunch) do the rest. Submit again to continue."""
    chosen, profile, place, named = inputs(campaign, folder, machine, None)
    want_trusted(named, place, trust=trust)
    with told_with_lines(campaign, machine):
        unusual = refuse_problems(chosen, profile, place, launchpad).unusual
        want_accepted(unusual, place, accept=accept_unusual)
    from activelearn.loop import accept_changed
    from activelearn.store import Store
    from activelearn.tasks import driving
    from activelearn.workflow import connect
    from activelearn.workflow import submit as add
    from activelearn.workflow.site import worker_lines

    pad = connect(launchpad)
    store = Store.create(place, chosen)
    with driving(store, wait=wait):
        accept_changed(store, chosen, accept=accept_changes, say=say)
        consented(store, refuse, unusual)
        said = add(store, profile, pad, move=move)
    print(f"campaign {chosen.name}: {said}\nfolder {place}")
    file = typed(launchpad.absolute())
    print("workers, if none are running yet:", *worker_lines(profile, launchpad), sep="\n  ")
    print(f"status:  activelearn status {typed(place)}\nif it hangs:  activelearn doctor -l {file}")


@app.command(context_settings=_THEIRS)
def rlaunch(context: typer.Context) -> None:
    """FireWorks' rlaunch (same options), with a unique id for each worker."""
    _launch("rlaunch", context.args)


@app.command(context_settings=_THEIRS)
def qlaunch(context: typer.Context) -> None:
    """FireWorks' qlaunch (same options), with a unique id for each worker."""
    _launch("qlaunch", context.args)


def _is_ours(record: logging.LogRecord) -> bool:
    """Return whether to print a line: FireWorks prints its own, but not why sbatch rejected a job."""
    is_refusal = record.name.startswith("qadapter") and record.levelno >= logging.ERROR
    return record.name.startswith("activelearn") or is_refusal


def _launch(program: str, arguments: list[str]) -> NoReturn:
    """Launch with the FW_config.yaml next to the LaunchPad file instead of FireWorks' own, and with our logging."""
    ours = logging.StreamHandler(sys.stderr)
    ours.addFilter(_is_ours)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[ours])
    for word, after in itertools.pairwise(arguments):
        if word in {"-l", "--launchpad_file"}:
            take_settings_beside(Path(after))
    from activelearn.workflow import worker

    raise typer.Exit(getattr(worker, program)(arguments))
