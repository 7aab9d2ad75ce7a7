"""Active learning of machine-learning force fields: crystals in, one trusted force field out."""

from __future__ import annotations

from typing import Final

__version__: Final = "0.1.0"
__all__ = ["__version__"]
