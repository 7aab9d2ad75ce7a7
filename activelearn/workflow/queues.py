"""The resources requested from the batch system, as keys of FireWorks' queue adapter for Slurm."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from activelearn.config import Queue
from activelearn.errors import ConfigError

#: What FireWorks replaces by a variable of the worker.
_VARIABLE: Final = re.compile(r"\$(\w+|\{[^}]*\})", re.ASCII)


def queue_keys(queue: Queue) -> dict[str, str | int]:
    """Return the keys of FireWorks' SLURM template that a queue's settings fill in."""
    keys = {
        "queue": queue.partition,
        "walltime": queue.walltime,
        "nodes": queue.nodes,
        "ntasks": queue.ntasks,
        "cpus_per_task": queue.cpus_per_task,
        "mem": f"{round(1000 * queue.memory_GB)}M" if queue.memory_GB is not None else None,
        "gres": queue.gres,
        "account": queue.account,
        "qos": queue.qos,
        "constraint": queue.constraint,
    }
    return {key: value for key, value in keys.items() if value is not None}


def want_no_variable(folder: Path) -> None:
    """Refuse a folder whose path a worker would change.

    Raises
    ------
    ConfigError
        There is a ``$name`` in its path.
    """
    if variable := _VARIABLE.search(str(folder)):
        raise ConfigError(
            f"{folder}: {variable[0]} in the path - expected a path without it for a LaunchPad, as FireWorks "
            "substitutes the worker's variable of that name - rename it (a campaign folder may be moved), and give "
            "the command again"
        )
