"""Unambiguous YAML: the core schema of YAML 1.2, without what YAML 1.1 reads differently.

PyYAML reads YAML 1.1: the last of duplicate keys, ``017`` as 15, ``1:30`` as 90, ``no`` as false and ``1e-3``
as text. Here the last is a number, the others are refused with their line, and quotes make anything a text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import yaml

from activelearn.errors import ConfigError

#: Location of a value in a document: its keys and indices from the top.
Location: TypeAlias = tuple[Any, ...]

#: Our files are far below these limits, within which any file is read in seconds.
MAX_BYTES: Final = 2_000_000
_MAX_DEPTH: Final = 50
_MAX_REPEATED: Final = 100_000
_MAX_DIGITS: Final = 400
_MAX_INT: Final = 2**64

_WORDS: Final = dict.fromkeys(("", "~", "null", "Null", "NULL")) | {
    f(str(value)): value for value in (True, False) for f in (str.lower, str.title, str.upper)
}
_INFINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NAN: Final = (".nan", ".NaN", ".NAN")
_HEX: Final = re.compile("0x[0-9a-fA-F]+")
_INT: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
#: Numbers in YAML 1.1 (octal, binary, sexagesimal, with underscores) or in 1.2 (0o17), but not the same in both. A time
#: that starts with 0 (the walltime 00:20:00) is a text in both.
_NUMBER_OF_ONE: Final = re.compile(
    r"[-+]?(0[box][0-9a-fA-F_]+|[1-9][0-9_]*(:[0-5]?[0-9])+|[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*"
    r"|([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?)"
)
_BOOL_OF_ONE: Final = re.compile(r"yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF")
#: Line breaks in YAML 1.1, but ordinary characters in 1.2.
_OLD_BREAKS: Final = re.compile("[\x85\u2028\u2029]")
_CLoader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Parsed:
    """The contents of a YAML document with their lines.

    Attributes
    ----------
    data
        Mappings, lists, texts, numbers, true, false and null.
    lines
        The line of each value (of a mapping or a list in a mapping: that of its key), from 1.
    """

    data: Any = None
    lines: dict[Location, int] = field(default_factory=dict)

    def line(self, location: Location) -> int:
        """Return the line of a location, or else of its parent."""
        return next((self.lines[location[:n]] for n in range(len(location), -1, -1) if location[:n] in self.lines), 1)


def parse(text: str, where: str) -> Parsed:
    """Return the contents of a YAML text, with line numbers.

    Parameters
    ----------
    text
        One YAML document.
    where
        The file, for messages.

    Raises
    ------
    ConfigError
        It is not YAML, or it is ambiguous.
    """
    if old := _OLD_BREAKS.search(text):
        line = text.count("\n", 0, old.start()) + 1
        what = f"U+{ord(old[0]):04X} ends a line in YAML 1.1, but not in 1.2"
        raise ConfigError(f"{where}:{line}: {what} - expected plain line breaks - fix that line")
    try:
        return _Reading(yaml.parse(text, Loader=_CLoader), where).document()
    except yaml.reader.ReaderError as error:
        line = text.encode(errors="replace")[: error.position].count(b"\n") + 1
        raise ConfigError(f"{where}:{line}: {error.reason} - expected a text file - fix that line") from None
    except UnicodeEncodeError:
        raise ConfigError(f"{where}: half a surrogate pair - expected Unicode text - write the file again") from None
    except yaml.MarkedYAMLError as error:
        begun, mark = (None if m is None else m.line + 1 for m in (error.context_mark, error.problem_mark))
        since = f" (in what starts in line {begun})" if begun not in {None, mark} else ""
        blanks = " with spaces instead of tabs" * ("\t" in "".join(text.split("\n")[mark - 1 : mark] if mark else []))
        raise ConfigError(f"{where}:{mark}: {error.problem}{since} - expected YAML{blanks} - fix that line") from None


def load(text: str, where: str) -> Any:  # noqa: ANN401 - raw YAML
    """Return the contents of a YAML text; see :func:`parse`."""
    return parse(text, where).data


class _Reading:
    """One pass over the events of a document, instead of PyYAML's own construction, which overflows the stack."""

    def __init__(self, events: Iterator[Any], where: str) -> None:
        self._events, self._where = events, where
        self._found = Parsed()
        self._anchors: dict[str, tuple[Any, int]] = {}  # the value and its number of values
        self._n_values = self._n_repeated = 0

    def document(self) -> Parsed:
        """Return the only document."""
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if self._n_values:
                    raise self._refusal(event, (), "a second document", "one", "remove it, or give it its own file")
                if event.version not in {None, (1, 2)}:
                    raise self._refusal(event, (), "%YAML 1.1", "YAML 1.2", "remove that line")
                self._found.data = self._value(next(self._events), ())
        return self._found

    def _refusal(self, event: Any, at: Location, what: str, expected: str, do: str) -> ConfigError:  # noqa: ANN401
        path = ".".join(str(part) for part in at)
        where = f"{self._where}:{event.start_mark.line + 1}: {path}{': ' * bool(path)}"
        return ConfigError(f"{where}{what} - expected {expected} - {do}")

    def _value(self, event: Any, at: Location) -> Any:  # noqa: ANN401 - PyYAML's events; raw YAML
        self._n_values += 1
        before = self._n_values
        line = event.start_mark.line + 1
        self._found.lines.setdefault(at, line)
        if isinstance(event, yaml.AliasEvent):
            return self._repeated(event, at)
        if event.tag not in {None, "!"}:
            raise self._refusal(event, at, f"tag {event.tag}", "a plain value", "remove the tag")
        if len(at) > _MAX_DEPTH:
            raise self._refusal(event, (), "nested too deeply", f"at most {_MAX_DEPTH} levels", "fix the brackets")
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            self._found.lines[at] = line
            value = self._scalar(event, at)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(at)
        else:
            value = self._mapping(at)
        if event.anchor is not None:
            self._anchors[event.anchor] = value, self._n_values - before + 1
        return value

    def _repeated(self, event: Any, at: Location) -> Any:  # noqa: ANN401 - PyYAML's events; raw YAML
        if event.anchor not in self._anchors:
            raise self._refusal(event, at, f"*{event.anchor}", f"a complete &{event.anchor} before it", "fix that line")
        value, n_values = self._anchors[event.anchor]
        self._n_values += n_values - 1
        self._n_repeated += n_values
        if self._n_repeated > _MAX_REPEATED:
            what = f"*{event.anchor}: aliases expand to more than {_MAX_REPEATED} values"
            raise self._refusal(event, at, what, "a file without repeated aliases", "write it out")
        return value

    def _sequence(self, at: Location) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            found.append(self._value(event, (*at, len(found))))
        return found

    def _mapping(self, at: Location) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        event: Any
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, at)
            here = (*at, key)
            if key in found:
                first = self._found.lines[here]
                raise self._refusal(event, here, f"written twice, first in line {first}", "it once", "remove one")
            self._found.lines[here] = event.start_mark.line + 1
            found[key] = self._value(next(self._events), here)
        return found

    def _key(self, event: Any, at: Location) -> Any:  # noqa: ANN401 - PyYAML's events; raw YAML
        self._n_values += 1
        if not isinstance(event, yaml.ScalarEvent):
            raise self._refusal(event, at, "a key that is not a word", "a word as key", "fix that line")
        if event.tag not in {None, "!"}:
            raise self._refusal(event, at, f"tag {event.tag}", "a plain key", "remove the tag")
        key = self._scalar(event, (*at, event.value))
        if key == "<<" and event.implicit[0]:
            raise self._refusal(event, at, "<<: YAML 1.2 has no merge keys", "the keys themselves", "write them out")
        if key is None or isinstance(key, bool):
            raise self._refusal(event, at, f"key {event.value!r}", "a word as key", "fix it, or put it in quotes")
        return key

    def _scalar(self, event: yaml.ScalarEvent, at: Location) -> Any:  # noqa: ANN401 - raw YAML
        text: str = event.value
        if not event.implicit[0] or event.tag == "!":
            return text
        if text in _WORDS:
            return _WORDS[text]
        if text[0] in "+-.0123456789":
            return self._number(event, text, at)
        if _BOOL_OF_ONE.fullmatch(text):
            what = f"{text} is a boolean in YAML 1.1 and a text in 1.2"
            raise self._refusal(event, at, what, "true or false, or a text in quotes", "fix it")
        return text

    def _number(self, event: yaml.ScalarEvent, text: str, at: Location) -> int | float | str:
        is_int, is_float = _INT.fullmatch(text), _FLOAT.fullmatch(text)
        if is_int and len(text) <= _MAX_DIGITS and abs(int(text)) < _MAX_INT:
            return int(text)
        if is_float:
            value = float(text)
            lost = value == 0.0 and re.search("[1-9]", re.split("[eE]", text)[0])
            if is_int or abs(value) == float("inf") or lost:
                shown = text if len(text) <= 40 else f"{text[:20]}... ({len(text)} characters)"
                limits = "64-bit integers, other numbers of 1e-308 to 1e308, or a text in quotes"
                raise self._refusal(event, at, f"{shown} is out of range", limits, "fix it")
            return value
        if _HEX.fullmatch(text) and len(text) <= _MAX_DIGITS:
            return int(text, 16)
        if _INFINITE.fullmatch(text):
            return float(text.replace(".", "", 1))
        if text in _NAN:
            raise self._refusal(event, at, f"{text} is not a number", "a number", "fix it")
        if _NUMBER_OF_ONE.fullmatch(text):
            what = f"{text[:40]} is a number in one version of YAML, and a text or another number in the other"
            raise self._refusal(event, at, what, "a decimal number, or a text in quotes", "fix it")
        return text


class Dumper(yaml.SafeDumper):
    """Writes what :func:`parse` and YAML 1.1 read in the same way, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002 - PyYAML's signature
        """Return True: repeated values are written out."""
        return True

    def text(self, data: str) -> yaml.Node:
        """Return the node of a text, escaping what only YAML 1.1 takes for a line break."""
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"' if _OLD_BREAKS.search(data) else None)


Dumper.add_representer(str, Dumper.text)
for _pattern in (_FLOAT, _NUMBER_OF_ONE):
    _whole = re.compile(f"(?:{_pattern.pattern})$")
    Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _whole, list("+-.0123456789"))


def dump(data: Any, **how: Any) -> str:  # noqa: ANN401 - raw YAML, PyYAML's options
    """Return `data` as YAML; its keys keep their order."""
    text: str = yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, **how)
    return text


def as_written(text: str, where: str) -> Any:  # noqa: ANN401 - raw YAML
    """Return the contents of a sealed document, read by PyYAML as it was written, today or before :class:`Dumper`.

    Raises
    ------
    ConfigError
        It is not YAML.
    """
    try:
        return yaml.load(text, Loader=_CLoader)
    except (yaml.YAMLError, ValueError):  # ValueError: an invalid date
        raise ConfigError(f"{where}: corrupt - expected the YAML that was sealed - restore it from a copy") from None
