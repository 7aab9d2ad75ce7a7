"""Trainers of other packages: exceptions and wrong return values are reported in a sentence that names the trainer."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from activelearn.errors import ActiveLearnError, ConfigError, disk_reason

#: Returns what is wrong with a return value, given the arguments; None if nothing is.
Judge = Callable[[Any, tuple[Any, ...]], str | None]
_LINES: Final = "a list of lines"


def guard(trainer: type) -> None:
    """Wrap the methods of a class of another package with checks of the contract.

    Raises
    ------
    TypeError
        Its settings are not a section of a campaign.
    """
    for name, method in [*vars(trainer).items()]:
        if name in _JUDGES and isinstance(method, staticmethod):
            setattr(trainer, name, _judged(trainer, name, lambda _, *args, _of=method, **more: _of(*args, **more)))
        elif name in _JUDGES and callable(method):
            setattr(trainer, name, _judged(trainer, name, method))
    if any(getattr(getattr(trainer, name, None), "__isabstractmethod__", False) for name in dir(trainer)):
        return
    if not _is_train(getattr(trainer, "settings", None)):
        raise TypeError(f"{trainer.__name__} has no settings - expected a subclass of activelearn.config.Train")
    if getattr(trainer, "runs_in_lammps", False) and _has_no_pair(trainer):
        raise TypeError(f"{trainer.__name__} has no pair - expected the lines of LAMMPS, or runs_in_lammps = False")


def _has_no_pair(trainer: type) -> bool:
    from activelearn.config.trainer import Trainer

    return getattr(trainer, "pair", None) is Trainer.pair


def _is_train(settings: object) -> bool:
    from activelearn.config.training import Train

    return isinstance(settings, type) and issubclass(settings, Train)


def _judged(trainer: type, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    where = f"train.trainer: {trainer.__module__}:{trainer.__qualname__}.{name}"

    @functools.wraps(method)
    def asked(*args: Any, **more: Any) -> Any:  # noqa: ANN401 - as the method says
        try:
            answer = method(*args, **more)
        except (ActiveLearnError, MemoryError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and disk_reason(error) is not None:
                raise  # the disk's fault
            place = traceback.extract_tb(error.__traceback__)[-1]
            raise ConfigError(
                f"{where} raises {type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno}) - "
                "expected a return value, or an error of activelearn.errors - report it to that package"
            ) from error
        wrong = _JUDGES[name](answer, args[1:])
        if wrong is not None:
            raise ConfigError(f"{where} returns {wrong} - report it to that package")
        return answer

    return asked


def _is(kinds: type | tuple[type, ...], expected: str) -> Judge:
    """Return a check for one of some types."""

    def judge(answer: Any, _: tuple[Any, ...]) -> str | None:  # noqa: ANN401 - anything
        return None if isinstance(answer, kinds) else f"{type(answer).__name__} - expected {expected}"

    return judge


def _lines(answer: Any, _: tuple[Any, ...]) -> str | None:  # noqa: ANN401 - anything
    is_list = isinstance(answer, Sequence) and not isinstance(answer, str)
    strangers = [line for line in answer if not isinstance(line, str)] if is_list else [answer]
    return f"{type(strangers[0]).__name__} - expected {_LINES}" if strangers else None


def _pair(answer: Any, _: tuple[Any, ...]) -> str | None:  # noqa: ANN401 - anything
    wrong = _lines(answer, ())
    return wrong or (None if answer else "no line - expected pair_style and pair_coeff")


def _shells(answer: Any, _: tuple[Any, ...]) -> str | None:  # noqa: ANN401 - anything
    from activelearn.config.trainer import Shell

    is_some = isinstance(answer, tuple) and answer and all(isinstance(one, Shell) for one in answer)
    return None if is_some else f"{answer!r} - expected a tuple of one Shell or more"


def _trained(answer: Any, _: tuple[Any, ...]) -> str | None:  # noqa: ANN401 - anything
    from activelearn.config.trainer import Trained

    if answer is None:
        return None
    if not isinstance(answer, Trained):
        return f"{type(answer).__name__} - expected a Trained, or None if the training diverged"
    if not answer.model.is_file():
        return f"the model {answer.model.name}, which does not exist - expected the file that it has written"
    if answer.columns[:1] != ["step"] or np.shape(answer.curve)[1:] != (len(answer.columns),):
        return (
            f"a curve of shape {np.shape(answer.curve)} with the columns {answer.columns} - expected `step` and "
            "others, and (n_rows, n_columns) numbers"
        )
    return None


def _predicted(answer: Any, arguments: tuple[Any, ...]) -> str | None:  # noqa: ANN401 - anything
    from activelearn.frames import Frames

    asked = arguments[2] if len(arguments) > 2 else answer
    expected = "expected the parts that it was given with energy and forces"
    if not isinstance(answer, list) or not all(isinstance(part, Frames) for part in answer):
        return f"{type(answer).__name__} - {expected}, a list of Frames"
    if [part.positions.shape for part in answer] != [part.positions.shape for part in asked]:
        return f"frames other than it was given - {expected}"
    bare = [part for part in answer if part.energy is None or part.forces is None]
    return f"frames of {bare[0].formula} without energy or forces - {expected}" if bare else None


def _predicted_by_each(answer: Any, arguments: tuple[Any, ...]) -> str | None:  # noqa: ANN401 - anything
    if not isinstance(answer, list) or len(answer) != len(arguments[1]):
        return f"{type(answer).__name__} - expected a list for each of the models"
    return next(filter(None, (_predicted(one, arguments) for one in answer)), None)


def _calculator(answer: Any, _: tuple[Any, ...]) -> str | None:  # noqa: ANN401 - anything
    keys = ("calculator", "arguments", "package")
    if isinstance(answer, Mapping) and all(key in answer for key in keys):
        return None
    return f"{answer!r} - expected {', '.join(keys)}"


_FLAG: Final = _is(bool, "True or False")
_MAYBE_TEXT: Final = _is((str, type(None)), "a text or None")
_JUDGES: Final[dict[str, Judge]] = {
    **dict.fromkeys(("contradictions", "impossible", "unusual", "problems", "notes"), _lines),
    **dict.fromkeys(("limits_neighbours", "same_networks", "compresses"), _FLAG),
    **dict.fromkeys(("weight_of_virials", "take_over"), _MAYBE_TEXT),
    "Mflop": _is((int, float, type(None)), "a number or None"),
    "batch_frames": _is(int, "a number of frames"),
    "shells": _shells,
    "write_data": lambda *_: None,
    "data_key": lambda *_: None,
    "train": _trained,
    "compress": _is((Path, type(None)), "the path of a file or None"),
    "evaluate": _predicted,
    "evaluate_all": _predicted_by_each,
    "pair": _pair,
    "pair_of_walks": _pair,
    "calculator": _calculator,
    "potential": _is(Mapping, "the keys of a potential"),
    "versions": _is(Mapping, "versions by package"),
}
