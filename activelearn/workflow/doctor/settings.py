"""Harmful settings of FireWorks: it reads them once, from files that are easily forgotten."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fireworks import LaunchPad
from fireworks import fw_config as settings

from activelearn.units import duration
from activelearn.workflow.doctor.words import Finding

#: From this version on monty's zopen needs a mode, and FireWorks' offline mode gives none.
_MONTY: Final = (2026, 2)
_SLOW_PING_S: Final = 600.0
_INIT: Final = "activelearn machine --init slurm writes a good FW_config.yaml"


def setting_findings(launchpad: LaunchPad) -> Iterator[Finding]:
    """Yield problems of the settings that FireWorks uses here, as will workers that are started here."""
    for what, do in (*_files(), *_times()):
        yield Finding("settings", what, do)
    yield from _offline(launchpad)


def _files() -> Iterator[tuple[str, str]]:
    """Trap: FW_config.yaml of the working directory (or of ~/.fireworks) takes precedence over FW_CONFIG_FILE."""
    told = os.environ.get("FW_CONFIG_FILE")
    if not told:
        return
    if not Path(told).is_file():
        yield f"FW_CONFIG_FILE is {told}: no such file", f"export one that exists: {_INIT}"
        return
    for stray in (Path.cwd() / "FW_config.yaml", Path.home() / ".fireworks" / "FW_config.yaml"):
        if stray.is_file() and not stray.samefile(told):
            what = f"{stray} takes precedence over {told} of FW_CONFIG_FILE: FireWorks uses the nearest it finds"
            yield what, f"remove {stray}, or start workers elsewhere"


def _times() -> Iterator[tuple[str, str]]:
    ping, expiry = float(settings.PING_TIME_SECS), float(settings.RUN_EXPIRATION_SECS)
    if expiry < 2 * ping:
        what = f"RUN_EXPIRATION_SECS is {duration(expiry)} and workers ping every {duration(ping)}"
        lost = "lpad detect_lostruns considers live workers lost"
        yield f"{what}: {lost}", f"set it to several ping intervals in FW_config.yaml; {_INIT}"
    if float(settings.RAPIDFIRE_SLEEP_SECS) <= 0:
        what = "RAPIDFIRE_SLEEP_SECS is 0: idle workers query the server without a pause"
        yield what, "set it to a few seconds in FW_config.yaml"


def setting_notes(lost_s: float | None) -> list[str]:
    """Return facts about the settings that are not faults; `lost_s`: silence after which a worker counts as dead, s."""
    ping = float(settings.PING_TIME_SECS)
    if lost_s is not None and lost_s < ping:
        alive = f"one that is silent for {duration(lost_s)} may be alive, and --fix lets another repeat its work"
        return [f"workers with these settings ping every {duration(ping)}; {alive}"]
    if ping <= _SLOW_PING_S:
        return []
    return [f"workers with these settings ping every {duration(ping)}; a dead one is noticed no earlier - {_INIT}"]


def _offline(launchpad: LaunchPad) -> Iterator[Finding]:
    """Trap: offline mode with a monty whose zopen needs a mode."""
    version = importlib.metadata.version("monty")
    if tuple(int(word) for word in version.split(".")[:2] if word.isdigit()) < _MONTY:
        return
    runs = launchpad.offline_runs.find({"deprecated": False, "completed": False}, {"fw_id": 1})
    if fw_ids := tuple(sorted(run["fw_id"] for run in runs)):
        yield Finding(
            "settings",
            f"{len(fw_ids)} Fireworks are to run in offline mode, which fails with monty {version} (zopen: no mode)",
            "start workers with activelearn rlaunch and qlaunch, which work around that, or without --offline",
            fw_ids=fw_ids,
        )
