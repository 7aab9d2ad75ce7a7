"""``activelearn doctor``: find and repair what blocks the workers of a LaunchPad."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from activelearn.cli import app, streams, take_settings_beside
from activelearn.errors import ActiveLearnError, EngineError

if TYPE_CHECKING:
    from activelearn.workflow.doctor import Finding, QueueSummary


@app.command()
def doctor(
    launchpad: Annotated[Path, typer.Option("-l", "--launchpad", help="FireWorks' my_launchpad.yaml.")],
    folder: Annotated[Path | None, typer.Option(help="Examine only this campaign folder.")] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Repair what can be repaired.")] = False,
    stale_after_s: Annotated[
        float | None,
        typer.Option(
            "--stale-after-s",
            min=1.0,
            help="Time without a ping after which a worker counts as dead (s); default 300, or 1.5 ping intervals.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Find what blocks the workers of a LaunchPad, and show what they are doing.

    Exit codes: 0 healthy, 1 problems found (or left after --fix), 2 no such LaunchPad.
    """
    streams.is_all()
    take_settings_beside(launchpad)
    from activelearn.workflow import connect
    from activelearn.workflow.doctor import STALE_S, examine, repair, summarise

    pad = connect(launchpad)
    stale_s, repaired, done = stale_after_s or STALE_S, [], []
    with _no_traceback(launchpad):
        found = examine(pad, stale_s=stale_s, lost_s=stale_after_s, folder=folder, file=launchpad)
        if fix and any(one.repairable for one in found):
            repaired = [one for one in found if one.repairable]
            done = repair(pad, found)
            found = examine(pad, stale_s=stale_s, lost_s=stale_after_s, folder=folder, file=launchpad)
        going_on = summarise(pad, folder, lost_s=stale_after_s)
    if as_json:
        told = {"healthy": not found, "findings": [asdict(one) for one in found], "repaired": done}
        print(json.dumps({**told, **asdict(going_on)}, indent=1))
    else:
        _print_summary(going_on)
        for one in repaired:
            print(_said(one))
        for line in done:
            print(f"--fix {line}")
        for one in found:
            print(f"{_said(one)}\n  next: {one.next}")
        if not found:
            print("healthy")
    raise typer.Exit(1 if found else 0)


@contextlib.contextmanager
def _no_traceback(launchpad: Path) -> Iterator[None]:
    """Report errors of FireWorks or the database without their texts, which may contain credentials."""
    try:
        yield
    except ActiveLearnError:
        raise
    except Exception as error:  # noqa: BLE001 - a user who has trouble gets no traceback on top
        raise EngineError(
            f"{launchpad}: the examination failed ({type(error).__name__}) - expected a responding server "
            "with FireWorks' data - run it again; if it keeps failing, drop the database and submit again: "
            "nothing is lost"
        ) from None


def _said(finding: Finding) -> str:
    """Return what is wrong, with continuation lines indented."""
    return "\n  ".join(line.strip() for line in f"{finding.kind}: {finding.what}".splitlines())


def _print_summary(going_on: QueueSummary) -> None:
    from activelearn.units import duration
    from activelearn.workflow.doctor.words import counted

    n = counted(len(going_on.workflows), "Workflow")
    last = going_on.last_activity_s
    when = "" if last is None else f", last sign of life {duration(last)} ago"
    print(f"LaunchPad {going_on.launchpad}: {n} of ours to run, {going_on.n_completed} completed{when}")
    for name, folder in going_on.workflows:
        print(f"  {name}   {folder}")
    for category, counts in going_on.counts.items():
        print(f"  {category:12s} " + "  ".join(f"{count} {state}" for state, count in counts.items()))
    for line in going_on.notes:
        print(f"note: {line}")
