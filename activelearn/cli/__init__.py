"""The command line; progress, logging, signals and exit codes are handled only here."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from activelearn import __version__
from activelearn.cli import streams
from activelearn.config import (
    Campaign,
    CitedPoint,
    Machine,
    Study,
    find_campaign,
    is_study,
    load_campaign,
    load_machine,
    placed,
    preset_names,
)
from activelearn.config.files import yaml_text
from activelearn.config.presets import find
from activelearn.config.section import as_name
from activelearn.config.yaml12 import dump
from activelearn.errors import ActiveLearnError, ConfigError, Interrupted, StoreError, disk_reason, one_line, typed

if TYPE_CHECKING:
    from activelearn.check import Checked
    from activelearn.check.trust import Named
    from activelearn.store import Store, StudyStore

app = typer.Typer(
    name="activelearn",
    help="Active learning of machine-learning force fields: crystals in, one trusted force field out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
#: The name in a campaign's YAML, without the comment after it.
_NAME = re.compile(r"^name:[^#\n]*?(?=[ \t]*(?:#|$))", re.MULTILINE)
#: Warnings of libraries that have been printed.
_NOTED: set[str] = set()
CampaignArgument = Annotated[str, typer.Argument(help="A campaign's YAML, or the name of a preset such as quickstart.")]
FolderOption = Annotated[Path | None, typer.Option(help="Campaign folder; default runs/<name>.")]
MachineOption = Annotated[str, typer.Option(help="A machine profile's YAML, or the name of a preset.")]
RefuseOption = Annotated[
    int | None,
    typer.Option(
        "--refuse-infrastructure-failures",
        min=1,
        metavar="N",
        help="Give up at most N walks and labels that keep failing on infrastructure. Recorded.",
    ),
]
AcceptOption = Annotated[
    bool, typer.Option("--accept-changes", help="Apply a changed campaign from the next iteration on.")
]
UnusualOption = Annotated[
    bool, typer.Option("--accept-unusual", help="Accept values that `check` reports as unusual. Recorded.")
]
TrustOption = Annotated[
    bool, typer.Option("--trust", help="Allow the programs named in a YAML from elsewhere to run. Recorded for each.")
]
WaitOption = Annotated[bool, typer.Option("--wait", help="Wait until another run has released the folder.")]
SlotsOption = Annotated[
    int | None, typer.Option(min=1, help="Number of tasks to run in parallel; overrides the machine profile.")
]


def main() -> None:
    """Run the command line; each of our errors becomes one message and an exit code."""
    streams.prepare()
    warnings.showwarning = _note
    if "--help" in sys.argv[1:]:
        streams.is_all()
    try:
        _with_sentences()
    except Interrupted as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except ActiveLearnError as error:
        for line in str(error).splitlines():
            print(line if line.startswith(" ") else f"error: {line}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # before a run has begun, such as while it waits for another
        sys.exit(130)
    finally:
        streams.flush()


def _note(message: Warning | str, *_where: object, **_more: object) -> None:
    """Print the warning of a library on one line, once."""
    line = f"note: {one_line(' '.join(str(message).split()))}"
    if line not in _NOTED:
        _NOTED.add(line)
        print(line, file=sys.stderr)


def _with_sentences() -> None:
    """Run the command; report file system errors, such as a name that is too long, in one sentence."""
    try:
        _fix_python_path()
        app()
    except OSError as error:
        if error.filename is None:
            raise _of_no_file(error) from error
        if error.errno != errno.ENAMETOOLONG:
            raise StoreError(
                f"{error.filename2 or error.filename}: {error.strerror} - expected a readable and writable file or "
                "folder - fix that, then run the same command again; nothing is lost"
            ) from error
        raise ConfigError(
            f"{error.filename}: name too long - expected at most 255 bytes from / to / and 4095 in total, including "
            "what is written below it - choose a shorter name"
        ) from None


def _fix_python_path() -> None:
    """Make the folders of PYTHONPATH absolute, since workers start in other folders and import the same modules."""
    if given := os.environ.get("PYTHONPATH"):
        os.environ["PYTHONPATH"] = os.pathsep.join(str(Path(folder).absolute()) for folder in given.split(os.pathsep))


def _of_no_file(error: OSError) -> ActiveLearnError:
    """Return the sentence for an error of the system that names no file."""
    try:
        Path.cwd()
    except OSError:
        return ConfigError(
            "the working directory no longer exists - expected an existing one - cd to another and try again"
        )
    why = disk_reason(error) or f"{error.strerror or error} - fix that"
    return StoreError(f"a file cannot be written or read: {why}, then run the same command again; nothing is lost")


@app.command()
def run(
    campaign: CampaignArgument,
    folder: FolderOption = None,
    machine: MachineOption = "local",
    slots: SlotsOption = None,
    wait: WaitOption = False,
    accept_changes: AcceptOption = False,
    refuse: RefuseOption = None,
    accept_unusual: UnusualOption = False,
    trust: TrustOption = False,
) -> None:
    """Run a campaign to its end; after an interruption, the same command continues where it stopped.

    Exit codes: 0 converged, 3 stopped without convergence, 2 bad input, 1 failure, 130/143 interrupted.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    chosen, profile, where, named = inputs(campaign, folder, machine, slots)
    want_trusted(named, where, trust=trust)
    with told_with_lines(campaign, machine):
        unusual = refuse_problems(chosen, profile, where).unusual
        want_accepted(unusual, where, accept=accept_unusual)
    from activelearn.loop import opened_for_driving
    from activelearn.show import Watcher, end_report

    with opened_for_driving(chosen, where, profile, accept_changes=accept_changes, wait=wait, say=say) as store:
        consented(store, refuse, unusual)
        from activelearn.workflow import run_local  # fireworks takes 0.5 s to import

        say(f"campaign {chosen.name}: {chosen.description}\nfolder {where}")
        from activelearn.check import resized
        from activelearn.check.trial import try_in

        for line in (*resized(chosen.glass), *try_in(store, profile, say)):
            say(line)
        with Watcher(store):
            end = run_local(store, profile)
    say_page(store.folder, profile)
    end_report(store, end)
    raise typer.Exit(end.exit_code)


@app.command()
def check(
    campaign: CampaignArgument,
    folder: FolderOption = None,
    machine: MachineOption = "local",
    slots: SlotsOption = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show tasks, frames, files and time per station, measured or declared.")
    ] = False,
    launchpad: Annotated[
        Path | None,
        typer.Option("-l", "--launchpad", help="my_launchpad.yaml of a cluster; the connection is tested, too."),
    ] = None,
    tries: Annotated[
        bool,
        typer.Option(
            "--try",
            help="Start the reference (of a study: its potentials, timed for --plan) on a few small structures.",
        ),
    ] = False,
    trust: TrustOption = False,
) -> None:
    """Find what is wrong with a campaign (or a study's YAML) before anything runs, and show what it will do."""
    streams.is_all()
    if is_study(campaign):
        from activelearn.cli.studies import check_whole

        how = {"plan": plan, "tries": tries, "trust": trust}
        check_whole(Path(campaign), folder, machine, slots, launchpad=launchpad, **how)
        return
    chosen, profile, where, named = inputs(campaign, folder, machine, slots)
    if tries or trust:
        want_trusted(named, where, trust=trust)
    with told_with_lines(campaign, machine):
        try:
            found = refuse_problems(chosen, profile, where, launchpad)
        except ConfigError:
            if plan:
                _bill_of_elsewhere(chosen, profile, where)
            raise
        if tries:
            from activelearn.check.trial import try_campaign

            found = replace(found, facts=[*found.facts, *try_campaign(chosen, profile, where)])
    say_found(found, campaign, machine)
    wants_trust = say_programs(named, where)
    for line in found.changes:
        print(f"changed; takes effect from the next iteration on, if accepted: {line}")
    from activelearn.store import Consent

    if plan:
        _say_bill(chosen, profile, where, found)
    verb, last = ("run", ("--slots", slots)) if launchpad is None else ("submit", ("-l", launchpad))
    asked = [("--folder", folder), ("--machine", None if machine == "local" else machine), last]
    options = [word for name, value in asked if value is not None for word in (name, str(value))]
    options += ["--accept-changes"] * bool(found.changes)
    options += ["--accept-unusual"] * bool(Consent(where).not_accepted(found.unusual)) + ["--trust"] * wants_trust
    print(" ".join(["ok: activelearn", verb, typed(campaign), *map(shlex.quote, options)]))


def _say_bill(chosen: Campaign, profile: Machine, where: Path, found: Checked) -> None:
    """Print what a campaign takes, by station."""
    from activelearn.check import cost, pace, speeds
    from activelearn.store import Store

    store = Store(where)
    begun, asked = (store if store.campaign_files() else None), store.as_begun(chosen)
    slower = pace.slower(profile)
    bill = cost.estimate(asked, profile, begun, found.offer, slower=slower)
    whole, said = speeds.filled(profile, asked)
    more = pace.said(profile, slower) if bill.is_declared else []
    if said:
        bill = speeds.with_defaults(bill, cost.estimate(asked, whole, begun, found.offer, slower=slower))
        more += [speeds.line(profile, said)] if bill.has_defaults else []
    print("\n" + "\n".join([*cost.lines(bill), *more]) + "\n")


def _bill_of_elsewhere(chosen: Campaign, profile: Machine, where: Path) -> None:
    """Print the bill where nothing is wrong but what this machine lacks: a login node has neither VASP nor POTCARs."""
    from activelearn.check import check as check_campaign

    found = check_campaign(chosen, profile, where, here=False)
    if not found.problems:
        _say_bill(chosen, profile, where, found)
        say("the estimate assumes a machine that has what is missing here:")


@app.command()
def status(
    folder: Annotated[Path, typer.Argument(help="Campaign or study folder, such as runs/quickstart.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print all numbers as JSON.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every published file and label and verify its checksum.")
    ] = False,
) -> None:
    """Show what a campaign (or a study) has done and is doing."""
    streams.is_all()
    from activelearn.show import status_table, study_report
    from activelearn.status import as_dict, study_as_dict
    from activelearn.store import Store, StudyStore

    store = StudyStore.open(folder) if (folder / "study.yaml").is_file() else Store.open(folder)
    if verify:
        raise typer.Exit(_verified(store))
    found = as_dict(store) if isinstance(store, Store) else study_as_dict(store)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    if isinstance(store, Store):
        status_table(found)
    for one in [store] if isinstance(store, StudyStore) else store.studies(max(store.opened_iterations(), default=0)):
        study_report(one)


def _verified(store: Store | StudyStore) -> int:
    """Print what is corrupt in a folder and how much was read; return the exit code."""
    from activelearn.status import as_dict, study_as_dict
    from activelearn.store import StudyStore, verify

    found = verify(store)
    with found.noting():  # what else status refuses, such as a folder instead of a note
        study_as_dict(store) if isinstance(store, StudyStore) else as_dict(store)
    for problem in found.problems:
        print(problem)
    many = f"{len(found.problems)} problems" if len(found.problems) != 1 else "1 problem"
    print(f"{found.n_files} files verified, {found.n_bytes / 1e6:.1f} MB: {many if found.problems else 'all intact'}")
    return 1 if found.problems else 0


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Campaign folder, such as runs/quickstart.")],
    to: Annotated[Path, typer.Option(help="New folder to write to.")],
    as_dpgen: Annotated[
        bool,
        typer.Option("--dpgen", help="Write only the data set in DP-GEN's layout, and a param.json that refers to it."),
    ] = False,
    as_crate: Annotated[
        bool, typer.Option("--ro-crate", help="Also write ro-crate-metadata.json, for archives (requires rocrate).")
    ] = False,
) -> None:
    """Write models, LAMMPS and ASE inputs, data set, model card and checksums to a new folder."""
    from activelearn import final_models
    from activelearn.config import trainer_of
    from activelearn.export import export as write_export
    from activelearn.store import Store

    store = Store.open(folder)
    if as_dpgen and as_crate:
        raise ConfigError("--ro-crate: not with --dpgen - expected one of the two - export twice, to two folders")
    if as_dpgen:
        from activelearn.exchange.dpgen.back import write_back

        print(write_back(store, to))
        return
    files = write_export(store, to, as_crate=as_crate)
    for line in final_models.chosen(store, store.opened_iterations()[-1]).said:
        print(line)
    train = store.latest_campaign().train
    example = "lmp -in in.lammps" if trainer_of(train).runs_in_lammps else "python ase_example.py"
    print(f"{len(files)} files in {to}; to run:  cd {typed(to)} && {example}")
    if any("libcudart" in line for line in trainer_of(train).export_notes(train)):
        print("(the notes on libcudart and threads can be ignored without a GPU: 2> notes.txt)")


@app.command()
def init(
    to: Annotated[Path, typer.Argument(help="YAML file to write.")] = Path("campaign.yaml"),
    preset: Annotated[str, typer.Option("--from", help="Preset to start from.")] = "quickstart",
) -> None:
    """Write a campaign YAML to start from: a preset with its comments, named after the file."""
    name = _free_name(to)
    text = _NAME.sub(lambda _: dump({"name": name}).strip(), yaml_text(find_campaign(preset)), count=1)
    try:
        with to.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise ConfigError(
            f"{to}: exists - expected a new file, since nothing is overwritten - choose another name"
        ) from None
    except OSError as error:
        with suppress(OSError):
            to.unlink()  # what was written before the disk was full
        raise ConfigError(
            f"{to}: cannot be written ({error.strerror}) - expected a writable location - choose another"
        ) from None
    others = ", ".join(preset_names("campaign"))
    print(f"{to} written from preset {preset} (available: {others}); name: {name}; runs in runs/{name}")
    print(f"edit it, then: activelearn check {typed(to)}")


def _free_name(file: Path) -> str:
    """Return a campaign name derived from its file that has no folder in runs/ yet."""
    name = as_name(file.stem) or "campaign"
    names = (name, *(f"{name[:56]}-{n}" for n in range(2, 1000)))
    return next((one for one in names if not (Path("runs") / one).exists()), name)


@app.command()
def schema(
    machine: Annotated[bool, typer.Option("--machine", help="Print the schema of machine profiles.")] = False,
) -> None:
    """Print the JSON schema of campaigns, which lets editors complete and check the YAML."""
    streams.is_all()
    print(json.dumps((Machine if machine else Campaign).model_json_schema(), indent=1))


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Handle --version."""
    if show:
        print(f"activelearn {__version__}")
        raise typer.Exit


# --- run, in steps ----------------------------------------------------------------------------------------------------


def inputs(
    campaign: str, folder: Path | None, machine: str, slots: int | None
) -> tuple[Campaign, Machine, Path, list[Named]]:
    """Return the campaign, machine profile and folder that the options name, and the programs that they name."""
    from activelearn.check.trust import read_noted

    file = find_campaign(campaign)
    chosen, named = read_noted(lambda: load_campaign(file), file, "campaign")
    profile, more = machine_of(machine, slots)
    return chosen, profile, (folder or Path("runs") / chosen.name).absolute(), [*named, *more]


def machine_of(name: str, slots: int | None = None) -> tuple[Machine, list[Named]]:
    """Return the machine profile that the options name, and the programs that it names."""
    from activelearn.check.trust import read_noted

    profile, named = read_noted(lambda: load_machine(name), find("machine", name), "machine")
    return profile if slots is None else profile.model_copy(update={"slots": slots}), named


def want_trusted(named: Sequence[Named], folder: Path | None, *, trust: bool) -> None:
    """Refuse to run programs named in a YAML from elsewhere without the user's consent; record the consent."""
    from activelearn.check.trust import lacking
    from activelearn.check.trust import trust as record

    if not (new := lacking(named, folder)):
        return
    if not trust:
        again = " ".join(["activelearn", *map(shlex.quote, sys.argv[1:]), "--trust"])
        raise ConfigError(
            *(f"{one} - expected your consent, once per value - read that file, then run: {again}" for one in new)
        )
    record(new)
    for one in new:
        say(f"trusted: {one.place}: {one.key}: {one.value}")


def say_programs(named: Sequence[Named], folder: Path) -> bool:
    """Print the programs that no preset names, and return whether they need the user's consent."""
    from activelearn.check.trust import lacking

    new = lacking(named, folder)
    if named:
        why = f"; needs --trust: {new[0].doubt}" if new else ""
        print(f"programs run with your permissions: {', '.join(f'{one.key} {one.value}' for one in named)}{why}")
    return bool(new)


def take_settings_beside(launchpad: Path) -> None:
    """Use the FW_config.yaml next to a LaunchPad file, as workers do, before FireWorks reads its own."""
    beside = launchpad.absolute().parent / "FW_config.yaml"
    if beside.is_file():
        os.environ.setdefault("FW_CONFIG_FILE", str(beside))


def refuse_problems(campaign: Campaign, machine: Machine, folder: Path, launchpad: Path | None = None) -> Checked:
    """Return what a campaign will do and what is unusual about it; raise ConfigError with all of its problems.

    With a LaunchPad the engines are on other nodes, where `activelearn machine --smoke` checks them.
    """
    from activelearn.check import check as check_campaign

    return _without_problems(check_campaign(campaign, machine, folder, here=launchpad is None), machine, launchpad)


def _without_problems(found: Checked, machine: Machine, launchpad: Path | None) -> Checked:
    """Return what was found, and facts on the LaunchPad if there is one; raise ConfigError with all that is wrong."""
    problems, facts = found.problems, found.facts
    if launchpad is not None:
        from activelearn.workflow.doctor import launchpad_problems

        wrong, more = launchpad_problems(launchpad, machine)
        problems, facts = problems + wrong, facts + more
    if problems:
        raise ConfigError(*problems)
    return replace(found, facts=facts)


@contextmanager
def told_with_lines(file: str | Path | None, machine: str) -> Iterator[None]:
    """Raise problems of a campaign or study with the line numbers of the files they come from."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(*placed(error.problems, file, machine)) from None


def want_accepted(unusual: Sequence[str], folder: Path, *, accept: bool) -> None:
    """Refuse unusual values that have not been accepted, now or earlier for this folder."""
    from activelearn.store import Consent

    Consent(folder).want_accepted(unusual, accept=accept)


def say_found(found: Checked, file: str | Path | None, machine: str) -> None:
    """Print what will be done and what is unusual about it."""
    for line in (*found.facts, *placed((f"unusual: {line}" for line in found.unusual), file, machine)):
        print(line)


def refuse_problems_of_study(
    study: Study,
    machine: Machine,
    folder: Path,
    points: Sequence[CitedPoint] = (),
    launchpad: Path | None = None,
) -> Checked:
    """Return what a study will do, and what of it is unusual; raise ConfigError with all that is wrong with it.

    With a LaunchPad the engines are on other nodes.
    """
    from activelearn.check import check_study, name_problems

    found = check_study(study, machine, points=points, here=launchpad is None)
    found = replace(found, problems=[*found.problems, *name_problems(folder)])
    return _without_problems(found, machine, launchpad)


def carry_out(
    study: Study,
    folder: Path,
    machine: Machine,
    unusual: Sequence[str],
    points: Sequence[CitedPoint] = (),
    *,
    wait: bool = False,
) -> int:
    """Carry out or continue a study in its folder; return the exit code, which is 3 if part of it was lost."""
    from activelearn.check.trial import try_study
    from activelearn.loop import StudyPhase
    from activelearn.show import Watcher, study_report
    from activelearn.store import StudyStore
    from activelearn.tasks import driving

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    store = StudyStore.create(folder, study)
    with driving(store, wait=wait):
        if (submission := store.submissions.withdraw()) is not None:
            say(f"was submitted to {submission.launchpad}; this run takes over, its Fireworks end quietly")
        store.sweep(machine)
        store.consent.accept(unusual)
        from activelearn.workflow import run_study  # fireworks takes 0.5 s to import

        say(f"study {study.name}\nfolder {folder}")
        phase = StudyPhase.of(store, study)
        phase.begin(machine)
        for line in try_study(store, study, machine, say):
            say(line)
        with Watcher(store):
            run_study(phase, machine)
    is_lost = study_report(store, points)
    say_page(store.folder, machine)
    return 3 if is_lost else 0


def say_page(folder: Path, machine: Machine) -> None:
    """Write the page of a folder at the end of a run, unless the machine profile disables it, and print its path."""
    from activelearn.page import at_end

    if line := at_end(folder, machine):
        say(line)


def say(line: str) -> None:
    """Print a line and flush it, also into a pipe."""
    print(line, flush=True)


def consented(store: Store, n: int | None, unusual: Sequence[str]) -> None:
    """Record that the user allows `n` tasks of the campaign to be refused and accepts unusual values."""
    store.consent.accept(unusual)
    if n is not None:
        store.consent.give(n, f"give up walks and labels that keep failing on infrastructure, at most {n}")


from activelearn.cli import (  # noqa: E402 - they add their commands to the app
    cluster,  # noqa: F401
    doctor,  # noqa: F401
    dpgen,  # noqa: F401
    finetune,  # noqa: F401
    labels,  # noqa: F401
    machines,  # noqa: F401
    report,  # noqa: F401
    seeds,  # noqa: F401
    studies,  # noqa: F401
    watch,  # noqa: F401
)
