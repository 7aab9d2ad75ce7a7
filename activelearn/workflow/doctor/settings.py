"""Settings of FireWorks that hurt: it reads them once, from files that nobody remembers having written."""

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

#: From this version on monty's zopen wants a mode, and FireWorks' offline mode gives none.
_MONTY: Final = (2026, 2)
_SLOW_PING_S: Final = 600.0
_INIT: Final = "activelearn machine --init slurm writes a good FW_config.yaml"


def setting_findings(launchpad: LaunchPad) -> Iterator[Finding]:
    """Yield what is wrong with the settings that FireWorks has taken here, and workers take who start here."""
    for what, do in (*_files(), *_times()):
        yield Finding("settings", what, do)
    yield from _offline(launchpad)


def _files() -> Iterator[tuple[str, str]]:
    """Trap: FW_config.yaml of the working directory (or of ~/.fireworks) counts before FW_CONFIG_FILE."""
    told = os.environ.get("FW_CONFIG_FILE")
    if not told:
        return
    if not Path(told).is_file():
        yield f"FW_CONFIG_FILE names {told}, and there is no such file", f"export one that is there: {_INIT}"
        return
    for stray in (Path.cwd() / "FW_config.yaml", Path.home() / ".fireworks" / "FW_config.yaml"):
        if stray.is_file() and not stray.samefile(told):
            what = f"{stray} counts before {told} of FW_CONFIG_FILE, for FireWorks takes the nearest it finds"
            yield what, f"remove {stray}, or start workers elsewhere"


def _times() -> Iterator[tuple[str, str]]:
    ping, expiry = float(settings.PING_TIME_SECS), float(settings.RUN_EXPIRATION_SECS)
    if expiry < 2 * ping:
        what = f"RUN_EXPIRATION_SECS is {duration(expiry)} and workers ping every {duration(ping)}"
        lost = "lpad detect_lostruns takes living workers for lost ones"
        yield f"{what}: {lost}", f"set it to several pings in FW_config.yaml; {_INIT}"
    if float(settings.RAPIDFIRE_SLEEP_SECS) <= 0:
        what = "RAPIDFIRE_SLEEP_SECS is 0: idle workers ask the server without a pause"
        yield what, "set it to some seconds in FW_config.yaml"


def setting_notes(lost_s: float | None) -> list[str]:
    """Return what is worth knowing of the settings, and is no fault; `lost_s` is after what silence the user buries."""
    ping = float(settings.PING_TIME_SECS)
    if lost_s is not None and lost_s < ping:
        alive = f"one that is silent for {duration(lost_s)} may be alive, and --fix lets another do its work, too"
        return [f"workers with these settings ping every {duration(ping)}; {alive}"]
    if ping <= _SLOW_PING_S:
        return []
    return [f"workers with these settings ping every {duration(ping)}; a dead one is noticed as late as that - {_INIT}"]


def _offline(launchpad: LaunchPad) -> Iterator[Finding]:
    """Trap: offline mode with a monty whose zopen wants a mode."""
    version = importlib.metadata.version("monty")
    if tuple(int(word) for word in version.split(".")[:2] if word.isdigit()) < _MONTY:
        return
    runs = launchpad.offline_runs.find({"deprecated": False, "completed": False}, {"fw_id": 1})
    if fw_ids := tuple(sorted(run["fw_id"] for run in runs)):
        yield Finding(
            "settings",
            f"{len(fw_ids)} Fireworks are to run in offline mode, which breaks with monty {version} (zopen: no mode)",
            "start workers with activelearn rlaunch and qlaunch, which cure that, or without --offline",
            fw_ids=fw_ids,
        )
