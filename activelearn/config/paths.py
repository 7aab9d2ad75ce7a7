"""Paths in YAML: taken from the folder of the file that they stand in, wherever the string is carried to meanwhile."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

from activelearn.config.files import expanded, is_file, is_there, shipped

#: How the files of models end; an argument that ends so and is no file is a mistake.
MODEL_SUFFIXES: Final = {".model", ".pt", ".pt2", ".pth", ".pb", ".dp", ".ckpt", ".tar", ".jit"}
#: An argument whose value is a path to a model, whatever its suffix, and how a path begins.
_MODEL_KEY: Final = re.compile(r"model|checkpoint|ckpt|weight|potential|param", re.IGNORECASE)
_PATH: Final = re.compile(r"~?/|\.\.?/")


class Written(str):
    """A string of a YAML file; validated, it is a plain one.

    Parameters
    ----------
    text
        The string.
    files
        The file that it stands in, and then those that name that one as a preset; absolute paths.
    """

    files: tuple[Path, ...]

    def __new__(cls, text: str, files: tuple[Path, ...]) -> Written:
        """Return the string, with its files."""
        made = super().__new__(cls, text)
        made.files = files
        return made


def written(data: Any, file: Path) -> Any:  # noqa: ANN401 - raw YAML
    """Return raw YAML whose strings know the file that they stand in, after those that they know already."""
    place = file.absolute()
    return _changed(data, lambda text: Written(text, (*getattr(text, "files", ()), place)))


def _changed(data: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401 - raw YAML
    if isinstance(data, Mapping):
        return {key: _changed(value, change) for key, value in data.items()}
    if isinstance(data, list):
        return [_changed(item, change) for item in data]
    return change(data) if isinstance(data, str) else data


def absolute(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    """Return the absolute path if `value` is of a YAML file and names a file that is there; else as it stands."""
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
    """Yield one line for each argument of a calculator, however deep, that names the file of a model and there is none.

    Parameters
    ----------
    arguments
        Keyword arguments, or part of them.
    where
        Their dotted key, such as ``label.reference.arguments``.
    here
        Whether absolute paths are those of this machine.
    """
    items = arguments.items() if isinstance(arguments, Mapping) else enumerate(arguments)
    for key, value in items:
        if isinstance(value, Mapping | list | tuple):
            yield from missing_models(value, f"{where}.{key}", here=here)
        elif isinstance(value, str) and _names_a_model(value, f"{where}.{key}"):
            path = expanded(value)
            if not path.is_absolute() or (here and not is_there(path)):  # of a YAML, it is absolute if it is there
                yield (
                    f"{where}.{key}: no file {value} - expected the file of a model, by a path from the folder of the "
                    "YAML or an absolute one - check the path"
                )


def _names_a_model(value: str, where: str) -> bool:
    """Return whether an argument is the path of a model, and not the name of one or an address."""
    arguments = where.partition("arguments")[2]
    is_path = _PATH.match(value) is not None and _MODEL_KEY.search(arguments) is not None
    return is_path or (Path(value).suffix in MODEL_SUFFIXES and "://" not in value and len(value.split()) == 1)


#: A file: its absolute path if it is there, and else what is written, which may be a name that is known elsewhere.
FilePath = Annotated[str, BeforeValidator(_file)]
#: A program: the same, but a bare name is looked for on the PATH.
ProgramPath = Annotated[str, BeforeValidator(absolute)]
#: A shipped seed by its id, and else the absolute path of a structure file, there or not.
StructurePath = Annotated[str, BeforeValidator(_structure)]
#: A folder, there or not: its absolute path.
FolderPath = Annotated[str, BeforeValidator(_anchored)]
#: Anything; what names a file is its absolute path.
Argument = Annotated[Any, BeforeValidator(lambda value: _changed(absolute(value), str))]
