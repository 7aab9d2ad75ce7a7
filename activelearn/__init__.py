"""Active learning of machine-learning force fields: crystals in, one trusted force field out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from activelearn import analysis
    from activelearn.config import load_campaign as load
    from activelearn.frames import Frames
    from activelearn.running import run
    from activelearn.views import open_folder as open  # noqa: A004 - al.open

__version__: Final = "0.1.0"
__all__ = ["Frames", "__version__", "analysis", "load", "open", "run"]
_WHERE: Final = {"Frames": "frames", "load": "config:load_campaign", "open": "views:open_folder", "run": "running"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - imported on first use
    if name not in __all__:
        raise AttributeError(f"module 'activelearn' has no attribute {name!r}")
    module, _, what = _WHERE.get(name, name).partition(":")
    found = importlib.import_module(f"activelearn.{module}")
    return getattr(found, what or name) if name in _WHERE else found


def __dir__() -> list[str]:
    return __all__
