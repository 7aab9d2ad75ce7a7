"""``activelearn watch``: what the workers of a folder do now, from any terminal that sees it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from activelearn.cli import app, say, streams
from activelearn.errors import ActiveLearnError

if TYPE_CHECKING:
    from activelearn.store import Store, StudyStore

T = TypeVar("T")


@app.command()
def watch(
    folder: Annotated[Path, typer.Argument(help="Campaign or study folder, such as runs/quickstart.")],
    once: Annotated[bool, typer.Option("--once", help="Print one table and exit.")] = False,
    every_s: Annotated[float, typer.Option("--every-s", min=0.5, help="Seconds between updates.")] = 2.0,
) -> None:
    """Show what the workers of a folder are doing and what is left, until it ends or Ctrl-C; writes nothing.

    Works on any machine that sees the folder. Without a terminal, it prints a line for each change.
    """
    streams.is_all()
    from activelearn.show import console_of
    from activelearn.watch import look, table

    store = opened(folder)
    if once:
        console_of().print(table(look(store)))
        return
    try:
        _live(store, every_s) if sys.stdout.isatty() else _by_lines(store, every_s)
    except KeyboardInterrupt:  # ends the watch only; workers are not affected
        return


def opened(folder: Path) -> Store | StudyStore:
    """Return the store of a campaign's folder, or of a study's."""
    from activelearn.store import Store, StudyStore

    return StudyStore.open(folder) if (folder / "study.yaml").is_file() else Store.open(folder)


def patient(read: Callable[[], T], *, n_tries: int = 3, pause_s: float = 1.0) -> T:
    """Return what `read` gives, retried if it fails: a worker may be moving the files that are read."""
    for _ in range(n_tries - 1):
        with suppress(ActiveLearnError, OSError):
            return read()
        time.sleep(pause_s)
    return read()


def _live(store: Store | StudyStore, every_s: float) -> None:
    """Show a table that is redrawn at every update."""
    from rich.live import Live

    from activelearn.show import console_of
    from activelearn.watch import look, table

    with Live(console=console_of(), auto_refresh=False) as live:
        while True:
            found = patient(lambda: look(store))
            live.update(table(found), refresh=True)
            if found.is_over:
                return
            time.sleep(every_s)


def _by_lines(store: Store | StudyStore, every_s: float) -> None:
    """Print what has changed since the look before, a line each."""
    from activelearn.watch import look

    before = None
    while True:
        found = patient(lambda: look(store))
        for line in [found.title, *found.changes(None)] if before is None else found.changes(before):
            say(line)
        if found.is_over:
            return
        before = found
        time.sleep(every_s)
