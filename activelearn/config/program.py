"""What a YAML can run: markers of fields that name interpreters, commands, Python classes and models."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from activelearn.config.paths import MODEL_SUFFIXES
from activelearn.config.section import Section
from activelearn.config.yaml12 import Location

#: Pair styles of LAMMPS that load models with PyTorch or TensorFlow; those that run Python are refused.
_RUNNING_STYLE: Final = re.compile(r"(?<!\S)(mliap\S*|grace\S*|kim)(?!\S)")


@dataclass(frozen=True)
class Program:
    """Marker of a field whose strings are run, or loaded as code: ``Annotated[str, Program()]``.

    Parameters
    ----------
    which
        Which of its strings, if not all are.
    """

    which: Callable[[str], bool] = lambda _text: True


def loads_a_file(argument: str) -> bool:
    """Return whether an argument of a calculator names a file: models of PyTorch are pickles, which are programs."""
    return "/" in argument or Path(argument).suffix in MODEL_SUFFIXES


def runs_in_lammps(line: str) -> bool:
    """Return whether a line of a pair style loads a model; tables of numbers are not programs."""
    words = (word.strip("'\"") for word in line.split())
    return _RUNNING_STYLE.search(line) is not None or any(Path(word).suffix in MODEL_SUFFIXES for word in words)


def programs(section: Section, at: Location = ()) -> Iterator[tuple[Location, str]]:
    """Yield the programs that a section names, each with its location, at any depth.

    Sections of other packages' engines are included; they mark their fields in the same way.
    """
    fields = type(section).model_fields
    for name in (*fields, *(section.model_extra or {})):
        marks = fields[name].metadata if name in fields else []
        mark = next((one for one in marks if isinstance(one, Program)), None)
        for place, leaf in _leaves(getattr(section, name), (*at, name)):
            if isinstance(leaf, Section):
                yield from programs(leaf, place)
            elif mark is not None and isinstance(leaf, str) and mark.which(leaf):
                yield place, leaf


def _leaves(value: Any, at: Location) -> Iterator[tuple[Location, Any]]:  # noqa: ANN401 - of any field
    """Yield the contents of lists and mappings, at any depth."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _leaves(one, (*at, key))
    elif isinstance(value, (list, tuple)):
        for i, one in enumerate(value):
            yield from _leaves(one, (*at, i))
    else:
        yield at, value
