"""LaunchPads: one in the memory of this process, and the shared one of a cluster."""

from __future__ import annotations

from typing import Any, Final

import fireworks.core.launchpad
from fireworks import LaunchPad

from activelearn.errors import ActiveLearnError, ConfigError
from activelearn.store import Folder

_QUIET: Final = "CRITICAL"


class EmbeddedLaunchPad(LaunchPad):  # type: ignore[misc]
    """A LaunchPad in the memory of this process (mongomock); nobody else can see it, and nothing is lost with it.

    Parameters
    ----------
    store
        The campaign or the study that the driver has open: its Firetasks share it, so what is sealed is read once and
        not by each of them. None: they open their folder themselves.

    Attributes
    ----------
    error
        What a Firetask raised, as it was raised.
    """

    def __init__(self, store: Folder | None = None) -> None:
        try:
            import mongomock
        except ImportError as error:
            raise ConfigError(
                "mongomock: not installed - wanted for the embedded LaunchPad - pip install 'activelearn[local]'"
            ) from error
        self.store = store
        self.error: ActiveLearnError | None = None
        module = fireworks.core.launchpad
        saved = module.MongoClient, module.GRIDFS_FALLBACK_COLLECTION
        module.MongoClient, module.GRIDFS_FALLBACK_COLLECTION = mongomock.MongoClient, None
        try:
            super().__init__(strm_lvl=_QUIET)
        finally:
            module.MongoClient, module.GRIDFS_FALLBACK_COLLECTION = saved
        self.reset("", require_password=False)

    def ping_launch(self, launch_id: int, ptime: Any = None, checkpoint: Any = None) -> None:  # noqa: ANN401
        """Do nothing: the heartbeat thread would race with completion (mongomock is not atomic there)."""
