"""``activelearn report``: write the page of a campaign or study, with findings and remedies."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from activelearn.cli import app, say

if TYPE_CHECKING:
    from activelearn.page.findings import PageFinding


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Campaign or study folder, such as runs/quickstart.")],
    to: Annotated[Path | None, typer.Option(help="File to write; default report.html in the folder.")] = None,
    bound: Annotated[
        list[str] | None,
        typer.Option(
            "--bound", metavar="KEY=NUMBER", help="Override the bound of a finding, such as labels_refused=10."
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Keep it up to date during the run; the page refreshes itself.")
    ] = False,
    every_s: Annotated[float, typer.Option("--every-s", min=5.0, help="Seconds between updates with --follow.")] = 30.0,
) -> None:
    """Write one HTML page about a campaign or study, with findings and remedies, figures and tables.

    The file opens from disk, needs no network and runs only its own script. It works for a running campaign, too.
    """
    from activelearn.page import bounds_in, write_page

    bounds = bounds_in(folder, bound or ())
    if follow:
        _follow(folder, to, bounds, every_s)
    path, found = write_page(folder, to, bounds)
    for one in found:
        print(f"{one.rule.stake}: {one.rule.key}: {one.what} - {one.fix}")
    print(_last_line(found, path))


def _last_line(found: list[PageFinding], path: Path) -> str:
    from activelearn.page.findings import RULES

    return f"{len(found)} finding{'s' if len(found) != 1 else ''} from {len(RULES)} rules; page: {path}"


def _follow(folder: Path, to: Path | None, bounds: dict[str, float], every_s: float) -> None:
    """Write the page whenever something has changed, until the campaign ends or Ctrl-C; the last one is still."""
    from activelearn.cli.watch import opened, patient
    from activelearn.page import write_page
    from activelearn.watch import look

    store, before = opened(folder), None
    try:
        while not (seen := patient(lambda: look(store))).is_over:
            if seen.changes(before):
                path, found = patient(lambda: write_page(folder, to, bounds, refresh_s=every_s))
                say(f"{seen.state}; {_last_line(found, path)}")
            before = seen
            time.sleep(every_s)
    except KeyboardInterrupt:
        say("stopped following; this page is no longer updated")
