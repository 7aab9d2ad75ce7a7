"""The input that a folder of the race was started with: all results in it are of that input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


def want_the_same(folder: Path, asked: Mapping[str, str | int | None]) -> None:
    """Keep what is asked in ``race.json`` of the folder.

    Parameters
    ----------
    folder
        Of the race.
    asked
        Campaign, slots, baseline; None: not asked for, and may be another time.

    Raises
    ------
    SystemExit
        The folder was begun with something else, or before there was a ``race.json``.
    """
    path = folder / "race.json"
    if not path.exists() and (folder / "initial").exists():
        raise SystemExit(f"{path}: gone - expected the input of the results in this folder - choose a new folder")
    before = json.loads(path.read_text()) if path.exists() else {}
    for name, value in asked.items():
        if None not in (value, before.get(name)) and value != before[name]:
            raise SystemExit(
                f"{folder}: was begun with {name} {before[name]}, and {value} is asked for - expected the same, for "
                "results that are there are used - ask for the same again, or name a new folder"
            )
    now = {name: before.get(name) if value is None else value for name, value in asked.items()}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(now, indent=1))
    part.replace(path)
