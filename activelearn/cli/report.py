"""``activelearn report``: the page of a campaign or study, with findings and what helps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from activelearn.cli import app


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Campaign or study folder, such as runs/quickstart.")],
    to: Annotated[Path | None, typer.Option(help="File to write; default report.html in the folder.")] = None,
    bound: Annotated[
        list[str] | None,
        typer.Option("--bound", metavar="KEY=NUMBER", help="Another bound of a finding, such as labels_refused=10."),
    ] = None,
) -> None:
    """Write one HTML page of a campaign or study: findings with what helps, pictures, tables; it opens from disk.

    The file needs no network and runs nothing but its own script; a campaign at work may be looked at, too.
    """
    from activelearn.page import write_page
    from activelearn.page.findings import RULES, bounds_of

    path, found = write_page(folder, to, bounds_of(bound or (), RULES))
    for one in found:
        print(f"{one.rule.stake}: {one.rule.key}: {one.what} - {one.fix}")
    print(f"{len(found)} finding{'s' if len(found) != 1 else ''} of {len(RULES)} rules; page: {path}")
