"""``activelearn submit``, and FireWorks' own ``rlaunch`` and ``qlaunch`` with fixes for their known bugs."""

from __future__ import annotations

import itertools
import logging
import sys
from pathlib import Path
from typing import Annotated, NamedTuple, NoReturn

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
    machine_of,
    refuse_problems,
    refuse_problems_of_study,
    say,
    take_settings_beside,
    told_with_lines,
    want_accepted,
    want_trusted,
)
from activelearn.config import Machine, is_study, load_study
from activelearn.errors import ConfigError, typed

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
        bool, typer.Option("--move", help="Withdraw it from the LaunchPad it was submitted to before.")
    ] = False,
) -> None:
    """Add a campaign (or a study's YAML) to a LaunchPad and return; workers (rlaunch, qlaunch) do the rest.

    After an interruption, the same command continues where it stopped.
    """
    if is_study(campaign):
        if accept_changes or refuse is not None:
            raise ConfigError(f"{campaign}: a study - expected a campaign with --accept-changes - leave the option out")
        _submit_study(_Asked(campaign, launchpad, folder, machine, accept_unusual, trust, wait, move))
        return
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

    pad = connect(launchpad)
    store = Store.create(place, chosen)
    with driving(store, wait=wait):
        accept_changed(store, chosen, accept=accept_changes, say=say)
        consented(store, refuse, unusual)
        said = add(store, profile, pad, move=move)
    _say_added(f"campaign {chosen.name}", said, place, profile, launchpad)


class _Asked(NamedTuple):
    """The options of `submit` for a study."""

    file: str
    launchpad: Path
    folder: Path | None
    machine: str
    accept_unusual: bool
    trust: bool
    wait: bool
    move: bool


def _submit_study(asked: _Asked) -> None:
    """Add a study by itself to a LaunchPad."""
    from activelearn.check.trust import read_noted
    from activelearn.store import StudyStore
    from activelearn.tasks import driving
    from activelearn.workflow import connect
    from activelearn.workflow import submit as add

    path = Path(asked.file)
    study, named = read_noted(lambda: load_study(path), path, "study")
    profile, more = machine_of(asked.machine)
    place = (asked.folder or Path("runs") / study.name).absolute()
    want_trusted([*named, *more], place, trust=asked.trust)
    with told_with_lines(path, asked.machine):
        unusual = refuse_problems_of_study(study, profile, place, launchpad=asked.launchpad).unusual
        want_accepted(unusual, place, accept=asked.accept_unusual)
    pad = connect(asked.launchpad)
    store = StudyStore.create(place, study)
    with driving(store, wait=asked.wait):
        store.follow(study)
        store.consent.accept(unusual)
        said = add(store, profile, pad, move=asked.move)
    _say_added(f"study {study.name}", said, place, profile, asked.launchpad)


def _say_added(what: str, said: str, place: Path, profile: Machine, launchpad: Path) -> None:
    """Print what was done, and what is typed next."""
    from activelearn.workflow.site import worker_lines

    print(f"{what}: {said}\nfolder {place}")
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
