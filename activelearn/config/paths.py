"""Paths in YAML, relative to the folder of the file that contains them, wherever the string is passed on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

from activelearn.config.files import expanded, is_file, is_there, shipped

#: Suffixes of model files; an argument with such a suffix must be a file.
MODEL_SUFFIXES: Final = {".model", ".pt", ".pt2", ".pth", ".pb", ".dp", ".ckpt", ".tar", ".jit"}
#: An argument whose value is a path to a model, whatever its suffix, and how a path begins.
_MODEL_KEY: Final = re.compile(r"model|checkpoint|ckpt|weight|potential|param", re.IGNORECASE)
_PATH: Final = re.compile(r"~?/|\.\.?/")


class Written(str):
    """A string of a YAML file; after validation it is a plain string.

    Parameters
    ----------
    text
        The string.
    files
        The file that contains it, then those that name that file as a preset; absolute paths.
    """

    files: tuple[Path, ...]

    def __new__(cls, text: str, files: tuple[Path, ...]) -> Written:
        """Return the string, with its files."""
        made = super().__new__(cls, text)
        made.files = files
        return made


def written(data: Any, file: Path) -> Any:  # noqa: ANN401 - raw YAML
    """Return raw YAML whose strings know the file that contains them, after those that they already know."""
    place = file.absolute()
    return _changed(data, lambda text: Written(text, (*getattr(text, "files", ()), place)))


def _changed(data: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401 - raw YAML
    if isinstance(data, Mapping):
        return {key: _changed(value, change) for key, value in data.items()}
    if isinstance(data, list):
        return [_changed(item, change) for item in data]
    return change(data) if isinstance(data, str) else data


def absolute(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    """Return the absolute path if `value` is from a YAML file and names an existing file; else `value`."""
    return _file(value) if isinstance(value, Written) and ("/" in value or Path(value).suffix) else value


def _file(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    if not isinstance(value, Written):
        return value
    paths = (file.parent / expanded(value) for file in value.files)
    return next((str(path.absolute()) for path in paths if is_file(path)), value)


def _anchored(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    return str(value.files[-1].parent / expanded(value)) if value and isinstance(value, Written) else value


def _structure(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    is_seed = isinstance(value, str) and "/" not in value and is_file(shipped("seeds") / f"{value}.yaml")
    found = value if is_seed else _file(value)
    return _anchored(found) if found is value and not is_seed else found


def missing_models(arguments: Any, where: str, *, here: bool = True) -> Iterator[str]:  # noqa: ANN401 - JSON
    """Yield one line for each argument of a calculator, at any depth, that names a missing model file.

    Parameters
    ----------
    arguments
        Keyword arguments, or part of them.
    where
        Their dotted key, such as ``label.reference.arguments``.
    here
        Whether absolute paths refer to this machine.
    """
    items = arguments.items() if isinstance(arguments, Mapping) else enumerate(arguments)
    for key, value in items:
        if isinstance(value, Mapping | list | tuple):
            yield from missing_models(value, f"{where}.{key}", here=here)
        elif isinstance(value, str) and _names_a_model(value, f"{where}.{key}"):
            path = expanded(value)
            if not path.is_absolute() or (here and not is_there(path)):  # if from a YAML, it is absolute if it exists
                yield (
                    f"{where}.{key}: no file {value} - expected a model file, by a path relative to the folder of the "
                    "YAML or an absolute path - check the path"
                )


def _names_a_model(value: str, where: str) -> bool:
    """Return whether an argument is the path of a model, not the name of one or a URL."""
    arguments = where.partition("arguments")[2]
    is_path = _PATH.match(value) is not None and _MODEL_KEY.search(arguments) is not None
    return is_path or (Path(value).suffix in MODEL_SUFFIXES and "://" not in value and len(value.split()) == 1)


#: A file: its absolute path if it exists, else the string as written, which may be a name known elsewhere.
FilePath = Annotated[str, BeforeValidator(_file)]
#: A program: the same, but a bare name is looked up on the PATH.
ProgramPath = Annotated[str, BeforeValidator(absolute)]
#: A shipped seed by its id, else the absolute path of a structure file, existing or not.
StructurePath = Annotated[str, BeforeValidator(_structure)]
#: A folder, existing or not: its absolute path.
FolderPath = Annotated[str, BeforeValidator(_anchored)]
#: Anything; file names become absolute paths.
Argument = Annotated[Any, BeforeValidator(lambda value: _changed(absolute(value), str))]
