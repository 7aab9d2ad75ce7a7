"""The command line: progress, logging, signals and exit codes live here and nowhere else."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

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
CampaignArgument = Annotated[str, typer.Argument(help="A campaign's YAML, or the name of a preset such as quickstart.")]
FolderOption = Annotated[Path | None, typer.Option(help="Campaign folder; default runs/<name>.")]
MachineOption = Annotated[str, typer.Option(help="A machine profile's YAML, or the name of a preset.")]
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
    refuse_failing: Annotated[
        bool,
        typer.Option(
            "--refuse-failing",
            help="Refuse walks and labels that infrastructure keeps killing, instead of stopping. Recorded.",
        ),
    ] = False,
) -> None:
    """Run a campaign to its end; the same command after an interruption goes on where it stood.

    Exit codes: 0 converged, 3 stopped without convergence, 2 bad input, 1 a fault, 130/143 interrupted.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    chosen, profile, place = _inputs(campaign, folder, machine, slots)
    _refuse_problems(chosen, profile, place)
    raise typer.Exit(_drive(chosen, profile, place, wait=wait, accept=accept_changes, refuse_failing=refuse_failing))


@app.command()
def check(
    campaign: CampaignArgument,
    folder: FolderOption = None,
    machine: MachineOption = "local",
    slots: SlotsOption = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Tasks, frames, files and time by station, measured or declared.")
    ] = False,
) -> None:
    """Find what is wrong with a campaign before anything runs, and show what it will do."""
    chosen, profile, place = _inputs(campaign, folder, machine, slots)
    for fact in _refuse_problems(chosen, profile, place):
        print(fact)
    if plan:
        from activelearn import cost
        from activelearn.store import Store

        store = Store(place)
        bill = cost.estimate(chosen, profile, store if store.campaign_files() else None)
        print("\n" + "\n".join(cost.lines(bill)) + "\n")
    print(f"ok: activelearn run {campaign}")


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


def _inputs(campaign: str, folder: Path | None, machine: str, slots: int | None) -> tuple[Campaign, Machine, Path]:
    chosen = load_campaign(campaign)
    profile = load_machine(machine)
    if slots is not None:
        profile = profile.model_copy(update={"slots": slots})
    return chosen, profile, (folder or Path("runs") / chosen.name).absolute()


def _refuse_problems(campaign: Campaign, machine: Machine, folder: Path) -> list[str]:
    from activelearn.check import check as check_campaign

    found = check_campaign(campaign, machine, folder)
    if found.problems:
        raise ConfigError(*found.problems)
    return found.facts


def _drive(
    campaign: Campaign, machine: Machine, folder: Path, *, wait: bool, accept: bool, refuse_failing: bool
) -> int:
    from activelearn.engines import process
    from activelearn.show import Watcher, end_report
    from activelearn.store import Lease, Store

    store = Store.create(folder, campaign)
    caught: list[int] = []
    process.allow_engines()
    with Lease(store.folder, wait=wait, on_lost=process.stop_engines) as lease, _signals(caught):
        _accept_changes(store, campaign, accept=accept)
        store.sweep(machine)
        if refuse_failing:
            store.consent("refuse walks and labels that infrastructure keeps killing (--refuse-failing)")
        from activelearn.workflow import run_local  # fireworks takes 0.5 s to import

        print(f"campaign {campaign.name}: {campaign.description}\nfolder {folder}", flush=True)
        try:
            with Watcher(store):
                end = run_local(store, machine)
        except ActiveLearnError:
            if lease.is_lost:
                raise FolderHeld(
                    f"{folder}: was taken over by another run while this process was frozen - wanted one driver a "
                    f"folder - see how it goes on: activelearn status {folder}"
                ) from None
            if not caught:
                raise
            print("stopped on request; everything finished is published - go on with the same command", file=sys.stderr)
            return 128 + caught[0]
        finally:
            process.close_sessions()
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
    from activelearn.engines import process
    from activelearn.show import Watcher, study_report
    from activelearn.store import Lease, StudyStore
    from activelearn.study import begin

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    place = StudyStore.create(folder, study)
    caught: list[int] = []
    process.allow_engines()
    with Lease(place.folder, on_lost=process.stop_engines), _signals(caught):
        place.sweep(machine)
        from activelearn.workflow import run_study  # fireworks takes 0.5 s to import

        print(f"study {study.name}\nfolder {folder}", flush=True)
        try:
            begin(place, study, machine)
            with Watcher(place):
                run_study(place, machine)
        except ActiveLearnError:
            if not caught:
                raise
            print("stopped on request; everything finished is published - go on with the same command", file=sys.stderr)
            return 128 + caught[0]
        finally:
            process.close_sessions()
    study_report(place)
    return 0


def _accept_changes(store: Any, campaign: Campaign, *, accept: bool) -> None:  # noqa: ANN401 - Store, imported late
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


@contextmanager
def _signals(caught: list[int]) -> Iterator[None]:
    """End the engines on SIGINT or SIGTERM; a second one ends this process at once."""
    from activelearn.engines.process import stop_engines

    def stop(number: int, _frame: object) -> None:
        if caught:
            os._exit(128 + number)
        caught.append(number)
        stop_engines()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    saved = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)


from activelearn.cli import finetune, labels, seeds, studies  # noqa: E402, F401 - they add their commands to the app
