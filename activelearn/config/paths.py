"""Paths in YAML: taken from the folder of the file that they stand in, wherever the string is carried to meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from activelearn.config.files import expanded, is_file


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
    return _changed(data, lambda text: Written(text, (*getattr(text, "files", ()), file)))


def _changed(data: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401 - raw YAML
    if isinstance(data, Mapping):
        return {key: _changed(value, change) for key, value in data.items()}
    if isinstance(data, list):
        return [_changed(item, change) for item in data]
    return change(data) if isinstance(data, str) else data


def absolute(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    """Return the absolute path if `value` is of a YAML file and names a file that is there; else as it stands."""
    if isinstance(value, Written) and ("/" in value or Path(value).suffix):
        paths = (file.parent / expanded(value) for file in value.files)
        return next((str(path.absolute()) for path in paths if is_file(path)), value)
    return value


def _anchored(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    return str(value.files[-1].parent / expanded(value)) if value and isinstance(value, Written) else value


#: A file: its absolute path if it is there, and else what is written, which may be a name that is known elsewhere.
FilePath = Annotated[str, BeforeValidator(absolute)]
#: A folder, there or not: its absolute path.
FolderPath = Annotated[str, BeforeValidator(_anchored)]
#: Anything; what names a file is its absolute path.
Argument = Annotated[Any, BeforeValidator(lambda value: _changed(absolute(value), str))]
