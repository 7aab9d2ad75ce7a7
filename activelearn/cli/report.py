"""``activelearn report``: write the page of a campaign or study, with findings and remedies."""

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
        typer.Option(
            "--bound", metavar="KEY=NUMBER", help="Override the bound of a finding, such as labels_refused=10."
        ),
    ] = None,
) -> None:
    """Write one HTML page about a campaign or study, with findings and remedies, figures and tables.

    The file opens from disk, needs no network and runs only its own script. It works for a running campaign, too.
    """
    from activelearn.page import write_page
    from activelearn.page.findings import RULES, bounds_of

    path, found = write_page(folder, to, bounds_of(bound or (), RULES))
    for one in found:
        print(f"{one.rule.stake}: {one.rule.key}: {one.what} - {one.fix}")
    print(f"{len(found)} finding{'s' if len(found) != 1 else ''} from {len(RULES)} rules; page: {path}")
