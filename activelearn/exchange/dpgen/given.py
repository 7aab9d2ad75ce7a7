"""The contents of a DP-GEN folder: its two inputs, its progress, and its iterations. It is never written to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from activelearn.config.files import yaml_text
from activelearn.config.yaml12 import load
from activelearn.errors import ConfigError, typed

#: Name of the file that lists the completed steps.
RECORD: Final = "record.dpgen"
#: Number of the last step of an iteration of DP-GEN.
LAST_STEP: Final = 8
#: Usual names of the two inputs, and patterns to find others.
_SUFFIXES: Final = (".json", ".yaml", ".yml")


@dataclass(frozen=True)
class DpgenFolder:
    """A folder in which ``dpgen run`` was or would be run.

    Parameters
    ----------
    folder
        Absolute.
    param_file, param
        The campaign in DP-GEN's format.
    machine_file, machine
        Where it ran; None and empty if there is no such file.
    done
        Iteration and step of the last line of ``record.dpgen``; None if nothing is done.
    """

    folder: Path
    param_file: Path
    param: dict[str, Any]
    machine_file: Path | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    done: tuple[int, int] | None = None

    @property
    def iterations(self) -> list[Path]:
        """The folders ``iter.000000`` ..., in order."""
        found = (path for path in self.folder.glob("iter.*") if path.is_dir() and path.suffix[1:].isdigit())
        return sorted(found, key=number)

    @property
    def n_done(self) -> int:
        """Completed iterations."""
        if self.done is None:
            return 0
        iteration, step = self.done
        return iteration + (step >= LAST_STEP)

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """The jobs of exploration."""
        return list(self.param.get("model_devi_jobs") or [])

    def path(self, text: str) -> Path:
        """Return a path of the inputs: relative ones start in the folder."""
        return self.folder / Path(text).expanduser()


def number(iteration: Path) -> int:
    """Return the number of an iteration's folder."""
    return int(iteration.suffix[1:])


def read_folder(folder: Path, param: str | None = None, machine: str | None = None) -> DpgenFolder:
    """Return the contents of a DP-GEN folder.

    Parameters
    ----------
    folder
        Folder in which dpgen ran.
    param, machine
        Names of its two inputs in it, if they are not ``param.json`` and ``machine.json`` (or ``.yaml``).

    Raises
    ------
    ConfigError
        There is no such folder, no such file, or it cannot be read.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder - expected one in which dpgen ran - check the path")
    folder = folder.absolute()
    param_file = _found(folder, "param", param)
    if param_file is None:
        raise ConfigError(
            f"{folder}: contains no param.json - expected the input of dpgen run - name it with --param, such as "
            f"activelearn import-dpgen {typed(folder)} --param run_param.json"
        )
    machine_file = _found(folder, "machine", machine)
    return DpgenFolder(
        folder,
        param_file,
        _mapping(param_file),
        machine_file,
        {} if machine_file is None else _mapping(machine_file),
        _record(folder / RECORD),
    )


def _found(folder: Path, kind: str, name: str | None) -> Path | None:
    if name is not None:
        path = folder / name
        if not path.is_file():
            raise ConfigError(f"{path}: no such file - expected the file of --{kind} - check the name")
        return path
    usual = [folder / f"{kind}{suffix}" for suffix in _SUFFIXES]
    others = [path for suffix in _SUFFIXES for path in sorted(folder.glob(f"*{kind}*{suffix}"))]
    there = [path for path in usual if path.is_file()] or others
    if len(there) > 1:
        names = ", ".join(path.name for path in there)
        raise ConfigError(f"{folder}: {names} - expected one {kind} file - name it with --{kind}")
    return there[0] if there else None


def _mapping(path: Path) -> dict[str, Any]:
    text = yaml_text(path)
    try:
        text = text.removeprefix("\ufeff")
        is_json = path.suffix == ".json"
        found = json.loads(text, object_pairs_hook=_once_each) if is_json else load(text, str(path))
    except ValueError as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error}) - expected an input of DP-GEN - fix it") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: not a mapping of keys - expected an input of DP-GEN - check the name")
    return found


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a mapping of a JSON file, of which Python's reader takes the last of equal keys in silence."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key} is written twice")
        found[key] = value
    return found


#: Keys of the run and of its jobs that are lists.
_LISTS: Final = ("init_data_sys", "sys_configs", "model_devi_jobs")
_LISTS_OF_JOB: Final = ("sys_idx", "temps", "Ts", "press", "Ps")


def scalars(param: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield keys that must be lists and are not, with their values: a text would be read letter by letter."""
    yield from ((key, param[key]) for key in _LISTS if not isinstance(param.get(key) or [], list))
    jobs = param.get("model_devi_jobs")
    for job in jobs if isinstance(jobs, list) else ():
        if not isinstance(job, Mapping):
            yield "model_devi_jobs", job
            continue
        for key in _LISTS_OF_JOB:
            if job.get(key) is not None and not isinstance(job[key], list):
                yield f"model_devi_jobs.{key}", job[key]


def whole(value: Any) -> int:  # noqa: ANN401 - raw JSON
    """Return a whole number of an input, however it is written.

    Raises
    ------
    ValueError
        It is none: a fraction is not cut off in silence.
    """
    number_of_it = int(value)
    if isinstance(value, float) and value != number_of_it:
        raise ValueError(f"{value:g} is not a whole number")
    return number_of_it


def _record(path: Path) -> tuple[int, int] | None:
    """Return iteration and step of the last line of a record."""
    if not path.is_file():
        return None
    lines = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if not lines:  # nothing was finished when the run ended
        return None
    try:
        iteration, step = (int(word) for word in lines[-1])
    except (ValueError, IndexError):
        raise ConfigError(f"{path}: its last line is not two numbers - expected iteration and step - fix it") from None
    return iteration, step


def leaves(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - raw JSON
    """Yield every dotted leaf key with its value; items of a list have the key of the list."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from leaves(item, (*at, str(key)))
    elif isinstance(value, Sequence) and not isinstance(value, str) and any(isinstance(one, Mapping) for one in value):
        for item in value:
            yield from leaves(item, at)
    else:
        yield ".".join(at), value


def alias(section: Mapping[str, Any], *names: str, default: Any = None) -> Any:  # noqa: ANN401 - raw JSON
    """Return the value of the first of several names of a key that is present."""
    return next((section[name] for name in names if name in section), default)
