"""What the inputs of DP-GEN's codes have in common: keys that are taken one by one, files by element, version, command.

The codes themselves are :mod:`~activelearn.exchange.dpgen.code_pwscf`, :mod:`~activelearn.exchange.dpgen.code_cp2k` and
:mod:`~activelearn.exchange.dpgen.code_abacus`. DP-GEN passes their keys on as they are, so what is not translated is
passed on too (``input`` of our engines), or refused if it changes what is computed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from re import Pattern
from typing import Any, Final

from activelearn.config.labelling import plain_functional
from activelearn.exchange.dpgen.given import DpgenFolder
from activelearn.exchange.dpgen.keys import Fate
from activelearn.exchange.dpgen.told import DpgenReport

#: Names of functionals as the field writes them.
_NAMES: Final = ("PBE", "PBEsol", "revPBE", "RPBE", "LDA", "BLYP", "TPSS", "SCAN", "r2SCAN", "HSE")
_TRUE: Final = {"T", "TRUE", "ON", "YES", "Y", "1"}
_OFF: Final = {"F", "FALSE", "OFF", "NO", "N", "NONE"}
#: What a shell would do with a line, beyond starting one program with its words.
_OF_A_SHELL: Final = re.compile(r"[;&|<>$`*?]")


@dataclass(frozen=True)
class DpgenCode:
    """A code of DP-GEN (``fp_style``) that one of our engines runs as well.

    Parameters
    ----------
    engine, name, program
        Of ours; as in ``--declare code=NAME-VERSION``; the default command.
    output, version
        Where its tasks say which version they are, and the words; its group is the version.
    arguments
        Words of a command that name input and output, which the engine adds itself.
    functional
        ``functional(given)``: as far as the input says; None: it does not.
    has_dispersion
        ``has_dispersion(given)``: whether the energies of its labels include dispersion.
    settings
        ``settings(given, functional, report)`` returns keys of the reference: the section of its engine, and d3.
    """

    engine: str
    name: str
    program: str
    output: str
    version: Pattern[str]
    arguments: Pattern[str]
    functional: Callable[[DpgenFolder], str | None]
    has_dispersion: Callable[[DpgenFolder], bool]
    settings: Callable[[DpgenFolder, str, DpgenReport], dict[str, Any]]


class InputKeys:
    """The keys of one section of a code's input: what becomes of each is reported when it is taken out.

    Parameters
    ----------
    section
        Its keys, in any case; a comment (``_...``) is left out.
    where
        The dotted key of the section.
    report
        The report.
    """

    def __init__(self, section: object, where: str, report: DpgenReport) -> None:
        self.where, self.report = where, report
        given = section if isinstance(section, Mapping) else {}
        self._left: dict[str, tuple[str, Any]] = {}
        self._names: dict[str, str] = {}
        for name, value in given.items():
            if str(name).startswith("_"):
                report.say(f"{where}.{name}", Fate.LEFT_OUT, "a comment")
            else:
                self._left[str(name).lower()] = str(name), value
                self._names[str(name).lower()] = str(name)

    def __contains__(self, name: str) -> bool:
        """Return whether a key is given and not yet taken."""
        return name in self._left

    def take(self, name: str, ours: str = "", default: Any = None) -> Any:  # noqa: ANN401 - raw JSON
        """Return the value of a key, and report it as taken: under `ours`, if that is said."""
        if name not in self._left:
            return default
        own, value = self._left.pop(name)
        self.report.say(f"{self.where}.{own}", Fate.TAKEN, ours)
        return value

    def change(self, name: str, why: str, default: Any = None) -> Any:  # noqa: ANN401 - raw JSON
        """Return the value of a key, and report it as changed."""
        if name not in self._left:
            return default
        own, value = self._left.pop(name)
        self.report.say(f"{self.where}.{own}", Fate.CHANGED, why)
        return value

    def drop(self, names: Iterable[str], why: str) -> None:
        """Leave keys out, with the reason."""
        for name in names:
            if name in self._left:
                self.report.say(f"{self.where}.{self._left.pop(name)[0]}", Fate.LEFT_OUT, why)

    def refuse(self, name: str, why: str) -> None:
        """Refuse a key; one that is not given is refused by its section."""
        self._left.pop(name, None)
        self.report.refuse(f"{self.where}.{self._names.get(name.lower(), name)}", why)

    def refuse_set(self, names: Iterable[str], why: str) -> None:
        """Refuse keys that are set to something, and leave out those that are off."""
        for name in names:
            if name not in self._left:
                continue
            if is_off(self._left[name][1]):
                self.drop([name], "asks for nothing")
            else:
                self.refuse(name, why)

    def names(self) -> list[str]:
        """Return the keys that are left, in lower case."""
        return [*self._left]

    def rest(self, ours: str) -> dict[str, Any]:
        """Return what is left with its names as given, and report it as passed on."""
        found = dict(self._left.values())
        for own in found:
            self.report.say(f"{self.where}.{own}", Fate.TAKEN, f"passed on in {ours}")
        self._left.clear()
        return found


def is_true(value: Any) -> bool:  # noqa: ANN401 - raw JSON
    """Return whether a value of a code's input means yes."""
    return value is True or str(value).strip().strip(".").upper() in _TRUE


def is_off(value: Any) -> bool:  # noqa: ANN401 - raw JSON
    """Return whether a value of a code's input asks for nothing: in an input file a zero is a text."""
    if value in (None, False, 0, "", [], {}) or str(value).strip().strip(".").upper() in _OFF:
        return True
    try:
        return number(value) == 0.0
    except ValueError:
        return False


def number(value: Any) -> float:  # noqa: ANN401 - raw JSON
    """Return a number, which may be a text with Fortran's ``d``."""
    return float(re.sub(r"(?<=[\d.])[dD](?=[-+]?\d)", "e", str(value).strip()))


def smearing_name(value: Any) -> str:  # noqa: ANN401 - raw JSON
    """Return a code's name of a smearing; that of two initials with a dash: m-v, m-p, f-d."""
    kind = str(value).strip().lower()
    return "-".join(kind) if len(kind) == len("mp") else kind


def named(functional: str) -> str:
    """Return a functional as the field writes it."""
    return next((name for name in _NAMES if plain_functional(name) == plain_functional(functional)), functional)


def by_element(given: DpgenFolder, key: str, report: DpgenReport) -> dict[str, str]:
    """Return the file name of each element of a list of DP-GEN, which is in the order of the types."""
    kinds, files = list(given.param["type_map"]), given.param.get(key) or []
    if not isinstance(files, list) or len(files) != len(kinds):
        n = len(files) if isinstance(files, list) else 1
        report.refuse(key, f"{n} files for {len(kinds)} elements - expected one per element")
        return {}
    folder = files_folder(given)
    missing = [str(name) for name in files if not (folder / str(name)).is_file()]
    if missing:
        what = f"no file {', '.join(missing)} in {folder} - put it there, or correct label.reference"
        report.say(key, Fate.CHANGED, what)
        report.facts.append(f"{key}: {what}")
    return dict(zip(kinds, map(str, files), strict=True))


def files_folder(given: DpgenFolder) -> Path:
    """Return the folder of pseudopotentials and orbitals."""
    return given.path(str(given.param.get("fp_pp_path") or "./"))


def functional_of_upf(given: DpgenFolder) -> str | None:
    """Return the functional that all pseudopotentials were made for; None: they are not here, or differ."""
    from activelearn.engines.references import upf

    found = set()
    for name in given.param.get("fp_pp_files") or []:
        path = files_folder(given) / str(name)
        said = upf.head(path)["functional"] if path.is_file() else None
        found.add(next((plain for plain, words in upf.FUNCTIONALS.items() if said in words), None))
    (only,) = found if len(found) == 1 else (None,)
    return None if only is None else named(only)


def version_of(given: DpgenFolder, code: DpgenCode, declared: Mapping[str, Any]) -> str | None:
    """Return the version that labelled: of the first output that says it, else as declared."""
    for path in sorted(given.folder.glob(f"iter.*/02.fp/task.*/{code.output}")):
        with path.open(encoding="utf-8", errors="replace") as lines:
            found = next((match[1] for line in lines if (match := code.version.search(line))), None)
        if found is not None:
            return found
    _, _, version = str(declared.get("code", "")).partition("-")
    return version or None


def command_of(given: DpgenFolder, code: DpgenCode, report: DpgenReport) -> str:
    """Return the command from the machine file without what names input and output, or hides failures."""
    section = given.machine.get("fp")
    section = section[0] if isinstance(section, list) and section else section
    found = str(section.get("command") or "") if isinstance(section, Mapping) else ""
    if not found.strip():
        return code.program
    plain = re.sub(r"\s*\|\|\s*:\s*$", "", found)
    plain = re.sub(r"\s*(?:2?>>?\s*\S+|<\s*\S+|2>&1)", "", plain)
    plain = " ".join(code.arguments.sub(" ", plain).split())
    if _OF_A_SHELL.search(plain):
        report.facts.append(
            f"fp.command: {found!r} is a line of a shell, and ours is one program with its words: "
            f"label.reference.command is {code.program!r}, correct it"
        )
        return code.program
    return plain
