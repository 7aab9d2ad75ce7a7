"""Validation problems as sentences: ``where: what - expected - next``."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from activelearn.config.lines import place
from activelearn.config.section import SEALED, Section
from activelearn.config.yaml12 import Location
from activelearn.errors import ConfigError, typed

T = TypeVar("T", bound=Section)
#: Characters of a wrong value that are shown in a message.
_SHOWN: Final = 200
#: Number of problems of one file that are reported at once.
_MOST_TOLD: Final = 50
#: Keys of DeePMD-kit and DP-GEN that have another name here, which must be a key.
_OF_OTHERS: Final = {
    "type": "shape", "temps": "temperatures_K", "press": "pressures_bar", "dt": "timestep_fs", "nsteps": "n_steps",
    "trj_freq": "every", "model_devi_f_trust_lo": "f_lo", "model_devi_f_trust_hi": "f_hi", "sys_idx": "systems",
}  # fmt: skip
#: What is expected, in YAML terms, by the type of pydantic's error.
_WANTED: Final = {
    "tuple_type": "a list", "model_type": "a mapping", "dict_type": "a mapping", "int_parsing_size": "a smaller number",
}  # fmt: skip
#: What a string should look like, in words, by its pattern.
_PATTERNS: Final = {r"'^[\w.]+:\w+$'": "module:Class, such as ase.calculators.emt:EMT"}
#: What to run next, by the kind of the file; parts of a study are read by both `glass` and `benchmark`.
_NEXT: Final = {"Campaign": "activelearn check", "Study": "activelearn benchmark --check --study"}


def nearest(word: str, among: list[str]) -> str:
    """Return a hint with the closest match of `among`, or all of them if none is close."""
    close = difflib.get_close_matches(word, among, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"one of: {', '.join(sorted(among)) or 'none there'}"


def validated(
    model: type[T],
    data: Any,  # noqa: ANN401 - raw YAML
    where: str,
    *,
    are_texts: bool = False,
    is_sealed: bool = False,
) -> T:
    """Return `data` as a frozen model.

    Parameters
    ----------
    model, data, where
        The target class, the raw data, and the file.
    are_texts
        Numbers are given as strings, as in a CSV.
    is_sealed
        It is already in a folder (see :data:`activelearn.config.section.SEALED`).

    Raises
    ------
    ConfigError
        One line per problem.
    """
    try:
        made = model.model_validate(data, context=SEALED if is_sealed else None)
    except ValidationError as error:
        found = error.errors()
        # A list whose items are all wrong is also reported as too short; the errors of the items are more useful.
        own = [e for e in found if e["type"] != "too_short" or not any(_is_inside(o["loc"], e["loc"]) for o in found)]
        by_location: dict[Location, list[ErrorDetails]] = {}
        for item in own:
            by_location.setdefault(_written(item, data), []).append(item)
        lines = [_problem(model, at, items, where) for at, items in list(by_location.items())[:_MOST_TOLD]]
        more = [f"{where}: {len(by_location) - len(lines)} more problems"] * (len(by_location) > len(lines))
        raise ConfigError(*lines, *more) from None
    if not are_texts and (other := list(_other_kinds(data, made, ()))):
        folder = model.__name__.lower()
        raise ConfigError(*(f"{place(where, at, folder)}: {'.'.join(map(str, at))}: {what}" for at, what in other))
    return made


def _other_kinds(given: Any, made: Any, at: Location) -> Iterator[tuple[Location, str]]:  # noqa: ANN401 - raw YAML
    """Yield values that pydantic has converted to another type, such as true or a string to a number."""
    if isinstance(given, Mapping):
        for key, value in given.items():
            own = made.get(key) if isinstance(made, Mapping) else getattr(made, str(key), None)
            yield from _other_kinds(value, own, (*at, key))
    elif isinstance(given, list) and isinstance(made, (list, tuple)):
        for i, (value, own) in enumerate(zip(given, made, strict=False)):
            yield from _other_kinds(value, own, (*at, i))
    elif isinstance(made, bool) and isinstance(given, (int, float, str)) and not isinstance(given, bool):
        yield at, f"got {given!r} - expected true or false, without quotes - fix it"
    elif isinstance(given, bool) and isinstance(made, (int, float)) and not isinstance(made, bool):
        yield at, f"got {str(given).lower()} - expected a number - fix it"
    elif isinstance(given, str) and isinstance(made, (int, float)):
        yield at, f"got {str(given)!r}, a text - expected a number - remove the quotes"


def _is_inside(inner: tuple[Any, ...], outer: tuple[Any, ...]) -> bool:
    return len(inner) > len(outer) and inner[: len(outer)] == outer


def _written(item: ErrorDetails, data: Any) -> Location:  # noqa: ANN401 - raw YAML
    """Return the location of a problem, without the union tags that pydantic adds."""
    found: Location = ()
    for part in item["loc"]:
        with contextlib.suppress(KeyError, IndexError, TypeError):
            data, found = data[part], (*found, part)
    return (*found, item["loc"][-1]) if item["type"] == "missing" else found


def _problem(model: type[Section], at: Location, items: list[ErrorDetails], where: str) -> str:
    """Return the problem at one location as ``where: what - expected - next``; each kind of a union has its item."""
    item = items[0]
    location = ".".join(map(str, at)) or model.__name__.lower()
    file, where = where, place(where, at[:-1] if item["type"] == "missing" else at, model.__name__.lower())
    if item["type"] == "extra_forbidden":
        owner = _model_at(model, at[:-1])
        alternatives = [key for kind in owner.alternatives() for key in kind.model_fields]
        keys = list(dict.fromkeys([*owner.model_fields, *owner.sections(), *alternatives]))
        key = str(at[-1])
        if key in keys:
            kinds = f"another kind of {'.'.join(map(str, at[:-1])) or model.__name__.lower()} has it"
            return f"{where}: {location}: unknown key here - {kinds} - remove it, or choose that kind"
        ours = _OF_OTHERS.get(key)
        hint = nearest(ours if ours is not None and ours in keys else key, keys)
        added = ", or install the package that adds it" * (owner.model_config.get("extra") == "allow")
        return f"{where}: {location}: unknown key - {hint} - rename or remove it{added}"
    if item["type"] == "missing":
        return f"{where}: {location}: missing - expected {_expected(model, at)} - add it"
    if item["type"] == "value_error":
        command = _NEXT.get(model.__name__)
        after = f" and run: {command} {typed(file)}" if command is not None else ""
        return f"{where}: {location}: {item['ctx']['error']} - fix it{after}"
    expected = " or ".join(dict.fromkeys(_said(one) for one in items))
    is_unquoted = item["type"] == "string_type" and isinstance(item["input"], (int, float))
    do = "put it in quotes if it is a text" if is_unquoted else "fix it"
    return f"{where}: {location}: got {_shown(item['input'])} - expected {expected} - {do}"


def _said(item: ErrorDetails) -> str:
    """Return what pydantic expected."""
    said = re.sub("(, (unable|got)| after validation,) .*", "", item["msg"].removeprefix("Input should be "))
    if (pattern := said.removeprefix("String should match pattern ")) in _PATTERNS:
        return _PATTERNS[pattern]
    said = said.replace("String should match pattern", "a text that fits").replace("should have at", "of at")
    said = said.replace("Tuple of", "a list of").replace("String of", "a text of")
    return _WANTED.get(item["type"], said[:1].lower() + said[1:])


def _shown(value: Any) -> str:  # noqa: ANN401 - raw YAML
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _model_at(model: type[Section], location: tuple[Any, ...]) -> type[Section]:
    """Follow a location of pydantic's through nested models (list indices and union tags are passed over)."""
    for part in location:
        others = [kind for kind in model.alternatives() if part in kind.model_fields]
        model = others[0] if others else model
        if isinstance(part, str) and part in model.model_fields:
            model = _inner_model(model.model_fields[part].annotation) or model
        elif isinstance(part, str):
            model = model.sections().get(part, model)
    return model


def _inner_model(annotation: Any) -> type[Section] | None:  # noqa: ANN401 - a type expression
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None


def _expected(model: type[Section], location: tuple[Any, ...]) -> str:
    """Return what belongs at a location: the description of the field or of its section."""
    field = _model_at(model, location[:-1]).model_fields.get(str(location[-1]))
    section = _inner_model(field.annotation) if field is not None else None
    text = field.description if field is not None else None
    if text is None and section is not None and section.__doc__:
        text = section.__doc__.splitlines()[0]
    name = f"item {location[-1] + 1}" if isinstance(location[-1], int) else location[-1]
    text = (text or f"a value for {name}").rstrip(".")
    return text[:1].lower() + text[1:] if text.split()[0][1:].islower() else text  # but MD, Hermann-Mauguin
