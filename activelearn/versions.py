"""Versions of installed packages."""

from __future__ import annotations

import contextlib
import importlib.metadata


def installed(*packages: str) -> dict[str, str]:
    """Return the versions of those packages that this interpreter has."""
    found = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
