"""FireWorks reads FW_config.yaml while it is imported; a bad one is reported with a message instead of a traceback."""

from __future__ import annotations

import os
from pathlib import Path

from activelearn.errors import ConfigError


def refused(error: Exception) -> ConfigError:
    """Return the message that FireWorks refuses its settings, with their file."""
    named = [folder / "FW_config.yaml" for folder in (Path.cwd(), Path.home() / ".fireworks")]
    named.append(Path(os.environ.get("FW_CONFIG_FILE", ".")))
    where = next((str(path) for path in named if path.is_file()), "FW_config.yaml")
    said = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return ConfigError(
        f"{where}: FireWorks does not accept it ({said}) - expected its own settings - fix it or remove it "
        "(activelearn machine --init slurm writes a good one)"
    )
