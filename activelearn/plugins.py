"""Plug-ins: what other packages add to a table of activelearn by entry points; its own are found the same way.

A group is a table of names. Each name stands for ``module:attribute``, imported when it is requested: listing the names
imports nothing. How to write one: ``docs/plugins.md``. A package adds a name in its ``pyproject.toml``::

    [project.entry-points."activelearn.references"]
    mycode = "mypackage.mymodule:ENGINE"
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from activelearn.errors import ConfigError


@dataclass(frozen=True)
class Group:
    """One table that others may add to.

    Parameters
    ----------
    name
        Of the entry points, such as ``activelearn.references``.
    built_in
        Name -> ``module:attribute`` of what comes with this package. No other package may use these names.
    contract
        The class that each of them is an instance of, as ``module:attribute``.
    """

    name: str
    built_in: Mapping[str, str]
    contract: str

    def names(self) -> list[str]:
        """Return all names: the built-in ones in their order, then those of other packages, sorted."""
        return [*self.built_in, *sorted({point.name for point in _points(self.name)} - self.built_in.keys())]

    def __contains__(self, name: object) -> bool:
        return name in self.built_in or any(point.name == name for point in _points(self.name))

    def find(self, name: str) -> Any:  # noqa: ANN401 - as the contract says
        """Return what a name stands for; a faulty package only affects those who use its names.

        Raises
        ------
        ConfigError
            The name is unknown, several packages claim it, it cannot be imported, or it is of another type.
        """
        claims = {point.value: point for point in _points(self.name) if point.name == name}
        owners = ["activelearn itself"] * (name in self.built_in) + [_origin(point) for point in claims.values()]
        if len(owners) > 1:
            raise ConfigError(
                f"{self.name}: {owners[1]} adds {name!r}, which {owners[0]} has - expected another name - uninstall "
                "one of them"
            )
        if name in self.built_in:
            return _attribute(self.built_in[name])
        if not claims:
            raise ConfigError(
                f"{name}: not in {self.name} - expected one of: {', '.join(self.names())} - install the package that "
                "adds it"
            )
        return self._loaded(*claims.values())

    def _loaded(self, point: EntryPoint) -> Any:  # noqa: ANN401 - as the contract says
        try:
            found = point.load()
        except Exception as error:
            raise ConfigError(
                f"{self.name}: {point.name} ({point.value} of {_origin(point)}) cannot be imported "
                f"({type(error).__name__}: {error}) - expected a working package - reinstall or uninstall it"
            ) from error
        contract = _attribute(self.contract)
        if not isinstance(found, contract):
            raise ConfigError(
                f"{self.name}: {point.name} ({point.value} of {_origin(point)}) is a {type(found).__name__} - expected "
                f"a {contract.__name__} ({self.contract}) - this is a fault of that package"
            )
        return found


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.module


@cache
def _points(group: str) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))


def _attribute(where: str) -> Any:  # noqa: ANN401 - of any kind
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)
