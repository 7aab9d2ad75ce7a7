"""The command line: progress, logging, signals and exit codes live here and nowhere else."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from activelearn import __version__
from activelearn.config import (
    Campaign,
    Machine,
    Study,
    difference,
    find_campaign,
    load_campaign,
    load_machine,
    preset_names,
)
from activelearn.errors import ActiveLearnError, ConfigError, FolderHeld

if TYPE_CHECKING:
    from activelearn.store import Folder, Store

app = typer.Typer(
    name="activelearn",
    help="Active learning of machine-learning force fields: crystals in, one trusted force field out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
#: What holds for all iterations of a campaign: data, warm starts and labels would not fit together.
FIXED = ("name:", "type_map:", "train.descriptor.", "label.reference.")
#: Of the reference: where and how it runs, not what it computes.
PLACES = tuple(f"label.reference.{key}:" for key in ("python", "command", "vasp.potcar_dir", "vasp.max_corrections"))
_STOPPED = "stopped on request; everything finished is published - go on with the same command"
CampaignArgument = Annotated[str, typer.Argument(help="A campaign's YAML, or the name of a preset such as quickstart.")]
FolderOption = Annotated[Path | None, typer.Option(help="Campaign folder; default runs/<name>.")]
MachineOption = Annotated[str, typer.Option(help="A machine profile's YAML, or the name of a preset.")]
RefuseOption = Annotated[
    int | None,
    typer.Option(
        "--refuse-infrastructure-failures",
        min=1,
        metavar="N",
        help="Give up at most N walks and labels of the campaign that infrastructure keeps killing. Recorded.",
    ),
]
SlotsOption = Annotated[int | None, typer.Option(min=1, help="Tasks at a time; overrides the machine profile.")]


def main() -> None:
    """Run the command line; every error of ours is one message and an exit code."""
    try:
        app()
    except ActiveLearnError as error:
        for line in str(error).splitlines():
            print(line if line.startswith(" ") else f"error: {line}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # before a run has begun, such as while it waits for another
        sys.exit(130)


@app.command()
def run(
    campaign: CampaignArgument,
    folder: FolderOption = None,
    machine: MachineOption = "local",
    slots: SlotsOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait while another run holds the folder.")] = False,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="A changed campaign takes effect from the next iteration on.")
    ] = False,
    refuse: RefuseOption = None,
) -> None:
    """Run a campaign to its end; the same command after an interruption goes on where it stood.

    Exit codes: 0 converged, 3 stopped without convergence, 2 bad input, 1 a fault, 130/143 interrupted.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    chosen, profile, place = inputs(campaign, folder, machine, slots)
    refuse_problems(chosen, profile, place)
    raise typer.Exit(_drive(chosen, profile, place, wait=wait, accept=accept_changes, refuse=refuse))


@app.command()
def check(
    campaign: CampaignArgument,
    folder: FolderOption = None,
    machine: MachineOption = "local",
    slots: SlotsOption = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Tasks, frames, files and time by station, measured or declared.")
    ] = False,
    launchpad: Annotated[
        Path | None, typer.Option("-l", "--launchpad", help="Of a cluster: its my_launchpad.yaml is tried, too.")
    ] = None,
) -> None:
    """Find what is wrong with a campaign before anything runs, and show what it will do."""
    chosen, profile, place = inputs(campaign, folder, machine, slots)
    for fact in refuse_problems(chosen, profile, place, launchpad):
        print(fact)
    if plan:
        from activelearn import cost
        from activelearn.store import Store

        store = Store(place)
        bill = cost.estimate(chosen, profile, store if store.campaign_files() else None)
        print("\n" + "\n".join(cost.lines(bill)) + "\n")
    verb, last = ("run", ("--slots", slots)) if launchpad is None else ("submit", ("-l", launchpad))
    asked = [("--folder", folder), ("--machine", None if machine == "local" else machine), last]
    options = [word for name, value in asked if value is not None for word in (name, str(value))]
    print(f"ok: activelearn {shlex.join([verb, campaign, *options])}")


@app.command()
def status(
    folder: Annotated[Path, typer.Argument(help="Campaign or study folder, such as runs/quickstart.")],
    as_json: Annotated[bool, typer.Option("--json", help="All numbers, as JSON.")] = False,
) -> None:
    """Show what a campaign (or a study) has done and is doing."""
    from activelearn.show import status_table, study_places, study_report
    from activelearn.status import as_dict, study_as_dict
    from activelearn.store import Store, StudyStore

    if (folder / "study.yaml").is_file():
        places, found = [StudyStore.open(folder)], None
    else:
        store = Store.open(folder)
        places, found = study_places(store), as_dict(store)
    if as_json:
        print(json.dumps(found if found is not None else study_as_dict(places[0]), indent=1))
        return
    if found is not None:
        status_table(found)
    for place in places:
        study_report(place)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Campaign folder, such as runs/quickstart.")],
    to: Annotated[Path, typer.Option(help="New folder to write.")],
) -> None:
    """Write models, LAMMPS and ASE inputs, data set, model card and checksums to a new folder."""
    from activelearn.export import export as write_export
    from activelearn.store import Store

    files = write_export(Store.open(folder), to)
    print(f"{len(files)} files in {to}; run it:  cd {to} && lmp -in in.lammps")


@app.command()
def init(
    to: Annotated[Path, typer.Argument(help="YAML to write.")] = Path("campaign.yaml"),
    preset: Annotated[str, typer.Option("--from", help="Preset to start from.")] = "quickstart",
) -> None:
    """Write a campaign's YAML to start from: a preset with its comments."""
    source = find_campaign(preset)
    try:
        with to.open("x", encoding="utf-8") as stream:
            stream.write(source.read_text(encoding="utf-8"))
    except FileExistsError:
        raise ConfigError(
            f"{to}: exists - wanted a new file, for nothing is overwritten - choose another name"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{to}: cannot be written ({error.strerror}) - wanted a writable place - choose another"
        ) from None
    others = ", ".join(preset_names("campaign"))
    print(f"{to} written from preset {preset} (there are: {others}); edit it, then: activelearn check {to}")


@app.command()
def schema(machine: Annotated[bool, typer.Option("--machine", help="Of machine profiles.")] = False) -> None:
    """Print the JSON schema of campaigns (editors complete and check YAML with it)."""
    print(json.dumps((Machine if machine else Campaign).model_json_schema(), indent=1))


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Handle --version."""
    if show:
        print(f"activelearn {__version__}")
        raise typer.Exit


# --- run, in steps ----------------------------------------------------------------------------------------------------


def inputs(campaign: str, folder: Path | None, machine: str, slots: int | None) -> tuple[Campaign, Machine, Path]:
    """Return the campaign, the machine profile and the folder that the options name."""
    chosen = load_campaign(campaign)
    profile = load_machine(machine)
    if slots is not None:
        profile = profile.model_copy(update={"slots": slots})
    return chosen, profile, (folder or Path("runs") / chosen.name).absolute()


def refuse_problems(campaign: Campaign, machine: Machine, folder: Path, launchpad: Path | None = None) -> list[str]:
    """Return what a campaign will do, in lines; raise ConfigError with all that is wrong with it.

    With a LaunchPad the engines are on other nodes: `activelearn machine --smoke` looks at them there.
    """
    from activelearn.check import check as check_campaign

    found = check_campaign(campaign, machine, folder, here=launchpad is None)
    problems, facts = [*found.problems], [*found.facts]
    if launchpad is not None:
        from activelearn.workflow.doctor import launchpad_problems

        wrong, more = launchpad_problems(launchpad, machine)
        problems, facts = problems + wrong, facts + more
    if problems:
        raise ConfigError(*problems)
    return facts


@contextmanager
def driving(place: Folder, *, wait: bool = False) -> Iterator[None]:
    """Hold the lease of a folder; engines end on SIGINT, SIGTERM and with the block, and a stop is an exit code."""
    from activelearn.engines import process
    from activelearn.store import Lease

    process.allow_engines()
    with Lease(place.folder, wait=wait, on_lost=process.stop_engines) as lease:  # noqa: SIM117 - signals inside
        with process.stopping_on_signals() as caught:
            try:
                yield
            except ActiveLearnError:
                if lease.is_lost:
                    raise FolderHeld(
                        f"{place.folder}: was taken over by another run while this process was frozen - wanted one "
                        f"driver a folder - see how it goes on: activelearn status {place.folder}"
                    ) from None
                if not caught:
                    raise
                print(
                    "stopped on request; everything finished is published - go on with the same command",
                    file=sys.stderr,
                )
                raise typer.Exit(128 + caught[0]) from None
            finally:
                process.close_sessions()


def _drive(campaign: Campaign, machine: Machine, folder: Path, *, wait: bool, accept: bool, refuse: int | None) -> int:
    from activelearn.show import Watcher, end_report
    from activelearn.store import Store

    store = Store.create(folder, campaign)
    with driving(store, wait=wait):
        accept_changed(store, campaign, accept=accept)
        if (submission := store.submissions.withdraw()) is not None:
            print(
                f"was submitted to {submission.launchpad}; this run takes over, its Fireworks end quietly", flush=True
            )
        store.sweep(machine)
        consented(store, refuse)
        from activelearn.workflow import run_local  # fireworks takes 0.5 s to import

        print(f"campaign {campaign.name}: {campaign.description}\nfolder {folder}", flush=True)
        with Watcher(store):
            end = run_local(store, machine)
    end_report(store, end)
    return end.exit_code


def refuse_problems_of_study(study: Study, machine: Machine) -> list[str]:
    """Return what a study will do, in lines; raise ConfigError with all that is wrong with it."""
    from activelearn.check import check_study

    found = check_study(study, machine)
    if found.problems:
        raise ConfigError(*found.problems)
    return found.facts


def carry_out(study: Study, folder: Path, machine: Machine) -> int:
    """Carry out a study in its folder, or go on with it; return the exit code."""
    from activelearn.show import Watcher, study_report
    from activelearn.store import StudyStore
    from activelearn.study import begin

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    place = StudyStore.create(folder, study)
    with driving(place):
        place.sweep(machine)
        from activelearn.workflow import run_study  # fireworks takes 0.5 s to import

        print(f"study {study.name}\nfolder {folder}", flush=True)
        begin(place, study, machine)
        with Watcher(place):
            run_study(place, machine)
    study_report(place)
    return 0


def consented(store: Store, n: int | None) -> None:
    """Record that the user allows `n` tasks of the campaign to be refused."""
    if n is not None:
        store.consent.give(n, f"give up walks and labels that infrastructure keeps killing, {n} at the most")


def accept_changed(store: Store, campaign: Campaign, *, accept: bool) -> None:
    """Take a changed campaign over, if the user accepts it; refuse what cannot change any more."""
    changes = difference(store.latest_campaign(), campaign)
    if not changes:
        return
    listed = "\n".join(f"  {line}" for line in changes)
    fixed = [line for line in changes if line.startswith(FIXED) and not line.startswith(PLACES)]
    if fixed and store.opened_iterations():
        raise ConfigError(
            f"{store.folder}: was begun with another campaign, and these are fixed for all its iterations - wanted "
            "them unchanged - start anew with another --folder:\n" + "\n".join(f"  {line}" for line in fixed)
        )
    if not accept:
        raise ConfigError(
            f"{store.folder}: was begun with another campaign - wanted the same, or --accept-changes, with which they "
            f"take effect from the next iteration on:\n{listed}"
        )
    store.accept(campaign)
    opened = store.opened_iterations()
    when = f"after iteration {opened[-1]}, which keeps what it was sealed to" if opened else "at once"
    print(f"changes accepted; they take effect {when}:\n{listed}", flush=True)
    if opened and any(line.startswith("initial.") and not line.startswith("initial.systems") for line in changes):
        print("note: initial data stand, so what is changed in `initial` has no effect any more", flush=True)


from activelearn.cli import cluster, doctor, finetune, labels, machines, seeds, studies  # noqa: E402, F401 - they add their commands to the app
