"""LAMMPS lines in a YAML: what is allowed.

This is an allow list. The lines of a stage change how atoms move, and nothing else: they
start no program, access no file, and do not affect what is run, evaluated and written. They are parsed as LAMMPS
parses them (Input::file, Input::parse and Input::substitute of 22Jul2025); what is easily misread
(triple quotes, a quote inside a word, characters beyond ASCII) is refused. A variable holds a number, so
that nothing allowed can turn into something else when LAMMPS substitutes its value.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

#: Variables that lines of a stage may refer to; :mod:`activelearn.engines.lammps` gives the values.
GIVEN: Final = ("temperature", "to_temperature", "pressure", "timestep", "n_steps", "every", "seed")
#: Commands that a stage may use. All others are set by a key of the stage, involve files, or start a program.
COMMANDS: Final = (
    "compute", "compute_modify", "displace_atoms", "fix", "fix_modify", "group", "mass", "neigh_modify", "neighbor",
    "print", "region", "uncompute", "unfix", "variable", "velocity",
)  # fmt: skip
_INTEGRATORS: Final = """
brownian gjf gld move msst nph nphug npt npt/cauchy nve nve/limit nve/noforce nvk nvt nvt/sllod rigid rigid/nph
rigid/nph/small rigid/npt rigid/npt/small rigid/nve rigid/nve/small rigid/nvt rigid/nvt/small rigid/small
"""
#: Styles of fix that move atoms.
INTEGRATORS: Final = frozenset(_INTEGRATORS.split())
_FIXES: Final = """
accelerate/cos addforce addtorque ave/atom ave/chunk ave/correlate ave/histo ave/moments ave/time aveforce
controller deform deform/pressure drag ehex enforce2d ffl flow/gauss gravity grem heat indent langevin lineforce
momentum momentum/chunk nonaffine/displacement oneway planeforce press/berendsen press/langevin propel/self qtb
recenter restrain rhok setforce spring spring/chunk spring/rg spring/self store/force store/state temp/berendsen
temp/csld temp/csvr temp/rescale thermal/conductivity ti/spring vector viscosity viscous wall/harmonic wall/lepton
wall/lj1043 wall/lj126 wall/lj93 wall/morse wall/piston wall/reflect wall/reflect/stochastic wall/region
"""
#: Styles of fix that neither read nor write files, and keep the set of atoms.
FIXES: Final = INTEGRATORS | frozenset(_FIXES.split())
_COMPUTES: Final = """
ackland/atom adf angmom/chunk ave/sphere/atom basal/atom born/matrix centro/atom centroid/stress/atom chunk/atom
chunk/spread/atom cluster/atom cna/atom cnp/atom com com/chunk composition/atom coord/atom count/type displace/atom
entropy/atom event/displace global/atom group/group gyration gyration/chunk gyration/shape gyration/shape/chunk
heat/flux hexorder/atom inertia/chunk ke ke/atom momentum msd msd/chunk msd/nongauss omega/chunk orientorder/atom
pair pair/local pe pe/atom pressure property/atom property/chunk property/local rattlers/atom rdf reduce
reduce/chunk reduce/region slice stress/atom stress/cartesian stress/cylinder stress/mop stress/mop/profile
stress/spherical temp temp/chunk temp/com temp/deform temp/partial temp/profile temp/ramp temp/region
temp/rotate torque/chunk vacf vacf/chunk vcm/chunk viscosity/cos voronoi/atom
"""
#: Styles of compute of a system of atoms without bonds and charges that read no files.
COMPUTES: Final = frozenset(_COMPUTES.split())
#: Styles of variable whose value is a number (or one per atom) that LAMMPS computes itself.
VARIABLES: Final = ("atom", "delete", "equal", "format", "index", "internal", "string", "vector")
#: Suffixes of accelerator packages.
_SUFFIX: Final = re.compile(r"/(?:gpu|intel|kk|omp|opt)$")
#: Keywords of fixes that are followed by a file.
_FILE_KEYWORDS: Final = frozenset({"append", "file", "infile"})
#: Words of pair styles (python, and mliap with a model in a pickle) that run Python.
_RUNS_PYTHON: Final = frozenset({"mliappy", "python", "unified"})
#: Functions of a formula that access files or run Python.
_REFUSED_FUNCTIONS: Final = re.compile(r"\b(is_file|next|py_\w+)\s*\(")
#: Names of the fixes of a walk.
_OURS: Final = frozenset({"dynamics", "model_forces", "strain"})
_NUMBER: Final = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_FORMAT: Final = re.compile(r"%[-+ 0#]*\d{0,3}(\.\d{0,3})?l?[dfgeEG]")
_WORD: Final = re.compile(r""""([^"]*)"(?=\s|$)|'([^']*)'(?=\s|$)|(\S+)""")
_REFERENCE: Final = re.compile(r"\bv_(\w+)")
_NEXT: Final = "see params/README.md for what a stage may contain"


class PutIn(NamedTuple):
    """A variable (``${x}``, ``$x``) or formula (``$(x)``) whose value LAMMPS substitutes in a line, and its format."""

    text: str
    is_formula: bool
    form: str | None


@dataclass(frozen=True)
class Command:
    """One command of LAMMPS.

    Parameters
    ----------
    number
        Of its first line in the text, from 1.
    typed
        As written, on one line.
    words
        Its words, without quotes; a substituted variable (``${x}``) is the word 0.
    put_in
        What LAMMPS substitutes.
    """

    number: int
    typed: str
    words: tuple[str, ...]
    put_in: tuple[PutIn, ...] = ()

    def wrong(self, what: str, expected: str, next_: str = _NEXT) -> ValueError:
        """Return an error that names the line."""
        return ValueError(f"line {self.number} {self.typed!r}: {what} - expected {expected} - {next_}")

    @property
    def style(self) -> str:
        """The style of a fix or compute, without the suffix of an accelerator."""
        return _SUFFIX.sub("", self.words[3]) if len(self.words) > 3 else ""


# --- reading as LAMMPS reads ------------------------------------------------------------------------------------------


def commands(text: str) -> list[Command]:
    """Return the commands of a text as LAMMPS reads them: with continuation by &, quotes, comments, substitution.

    Raises
    ------
    ValueError
        LAMMPS would reject it, or read it in a way that is easily misunderstood.
    """
    found = []
    for number, line in _logical_lines(text):
        bare = Command(number, " ".join(line.split()), ())
        content = _without_comment(line, bare)
        if strange := next((mark for mark in content if not mark.isascii()), None):
            raise bare.wrong(f"{strange!r} is not ASCII", "ASCII characters", "retype it")
        content, put_in = _substituted(content, bare)
        if words := tuple(_words(content, bare)):
            found.append(Command(number, bare.typed, words, put_in))
    return found


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines with their numbers; a line that ends with & is continued by the next, even if it is a comment."""
    text = text.replace("\r\n", "\n")
    for number, line in enumerate(text.split("\n"), 1):
        if bad := next((mark for mark in line if not (mark.isprintable() or mark == "\t")), None):
            expected = "expected printable characters, spaces and line ends"
            raise ValueError(f"line {number}: contains {bad!r} - {expected} - type the line again")
        if '"""' in line:
            raise ValueError(f'line {number}: contains """ - expected single or double quotes - use them')
    begun, held = 0, ""
    for number, line in enumerate(text.split("\n"), 1):
        begun, held = begun or number, held + line
        if held.rstrip().endswith("&"):
            held = held.rstrip()[:-1]
        else:
            yield begun, held
            begun, held = 0, ""
    if begun:
        raise ValueError(f"line {begun}: ends with & - expected a continuation line - remove &, or add the rest")


def _without_comment(line: str, bare: Command) -> str:
    """Return the part before a # that is not inside quotes."""
    at = 0
    while at < len(line) and line[at] != "#":
        if line[at] in "\"'":
            closing = line.find(line[at], at + 1)
            if closing < 0:
                raise bare.wrong(f"the quote {line[at]} is not closed", "balanced quotes", "close it")
            at = closing
        at += 1
    return line[:at]


def _substituted(line: str, bare: Command) -> tuple[str, tuple[PutIn, ...]]:
    """Return a line with 0 for each substitution, and the substitutions; inside quotes only `print` makes them."""
    out, put_in, at, quote = "", [], 0, ""
    is_printed = line.split()[:1] == ["print"]
    while at < len(line):
        mark = line[at]
        if mark == "$" and (not quote or is_printed):
            length = _length_of_reference(line[at:], bare)
            inside, *form = re.split(r":(?=%)", line[at + 1 : at + length].strip("{}"), maxsplit=1)
            is_formula = inside.startswith("(")
            text = inside[1:].removesuffix(")") if is_formula else inside
            put_in.append(PutIn(text, is_formula, form[0].removesuffix(")") if form else None))
            out, at = f"{out}0", at + length
            continue
        if mark in "\"'" and quote in ("", mark):
            quote = "" if quote else mark
        out, at = out + mark, at + 1
    return out, tuple(put_in)


def _length_of_reference(text: str, bare: Command) -> int:
    """Return the length of ``${x}``, ``$(formula)`` or ``$x`` at the beginning of a text."""
    depths = accumulate({"(": 1, ")": -1}.get(mark, 0) for mark in text[1:])
    if text.startswith("$(") and (end := next((at for at, depth in enumerate(depths, 2) if depth == 0), 0)):
        return end
    if found := re.match(r"\$(\{\w+(:%[^}]*)?\}|\w)", text):
        return found.end()
    raise bare.wrong("$ does not start a variable", "${name}, $x or $(formula)", "fix it")


def _words(line: str, bare: Command) -> Iterator[str]:
    for double, single, plain in _WORD.findall(line):
        if "'" in plain or '"' in plain:
            raise bare.wrong(f"the word {plain} contains a quote", "quotes around whole words", "fix it")
        yield double or single or plain


# --- what is allowed ------------------------------------------------------------------------------------------------


def check_lines(text: str) -> list[Command]:
    """Return the commands of the lines of a stage, after checking that all are allowed.

    Raises
    ------
    ValueError
        One of them is not, or refers to an undefined variable: ``what - expected - next``.
    """
    found = commands(text)
    defined = set(GIVEN)
    everywhere = defined | {words[1] for words in (c.words for c in found) if words[0] == "variable" and words[1:]}
    for command in found:
        _check_names(command, defined, everywhere)
        _check_words(command)
        if command.words[0] == "variable":
            defined.add(command.words[1])
    return found


def _check_names(command: Command, defined: set[str], everywhere: set[str]) -> None:
    """Refuse variables that are not defined: before their substitution, or anywhere if LAMMPS evaluates them later."""
    formulas = [piece.text for piece in command.put_in if piece.is_formula]
    now = [piece.text for piece in command.put_in if not piece.is_formula]
    now += [name for formula in formulas for name in _REFERENCE.findall(formula)]
    later = _REFERENCE.findall(" ".join(command.words[2:]))
    for name in [*(name for name in now if name not in defined), *(name for name in later if name not in everywhere)]:
        what = f"{name} is defined further down" if name in everywhere else f"there is no variable {name}"
        near = difflib.get_close_matches(name, everywhere, n=1, cutoff=0.6)
        expected = f"a defined variable, such as {near[0]}" if near else f"one of: {', '.join(sorted(everywhere))}"
        raise command.wrong(what, expected, "fix the name, or define it above")
    for form in (piece.form for piece in command.put_in if piece.form is not None):
        _want_format(command, form)
    if refused := _REFUSED_FUNCTIONS.search(" ".join([*command.words, *formulas])):
        raise command.wrong(f"{refused[1]} accesses files or runs Python", "a formula of numbers")


def _check_words(command: Command) -> None:
    """Refuse a command, style or word that is not allowed."""
    name, *arguments = command.words
    if name not in COMMANDS:
        expected = f"one of: {', '.join(COMMANDS)}"
        if near := difflib.get_close_matches(name.lower(), COMMANDS, n=1, cutoff=0.75):
            expected = f"{near[0]}, or another allowed command"
        keys = "what is run, evaluated and written is set by the stage's other keys (n_steps, every, timestep_fs ...)"
        raise command.wrong(f"the command {name} is not allowed in a stage", expected, keys)
    if name in {"fix", "unfix"} and arguments[:1] and arguments[0] in _OURS:
        raise command.wrong(f"the fix {arguments[0]} is the stage's own", "another name", "rename your fix")
    if name == "group" and arguments[:1] == ["all"]:
        raise command.wrong("the group all is every atom", "another name", "rename your group")
    if name in {"fix", "compute"}:
        _want_style(command, FIXES if name == "fix" else COMPUTES)
    if name == "print" and len(arguments) != 1:
        raise command.wrong("print with options may write a file", "one text in quotes", "leave the options out")
    if name == "variable":
        _check_variable(command)
    if file := _FILE_KEYWORDS.intersection(command.words[4:] if name == "fix" else ()):
        raise command.wrong(
            f"{min(file)} is not allowed", "no file, since a walk keeps only its frames", "leave it out"
        )
    if hidden := {"exclude", "include", "once"}.intersection(arguments if name == "neigh_modify" else ()):
        expected = "all neighbours at all times, else forces and deviations are not those of the models"
        raise command.wrong(f"{min(hidden)} is not allowed", expected, "leave it out")


def _want_style(command: Command, allowed: frozenset[str]) -> None:
    name = command.words[0]
    if not command.style:
        raise command.wrong(f"{name} without a style", f"{name} ID group style ...", "complete it")
    if command.style not in allowed:
        said = f"the {name} style {command.words[3]} is not allowed in a stage, or there is none of that name"
        what = "that does not access files and keeps the atoms"
        near = difflib.get_close_matches(command.style.lower(), sorted(allowed), n=3, cutoff=0.6)
        expected = f"a style {what}" + (f", such as {', '.join(near)}" if near else "")
        raise command.wrong(said, expected)


def _check_variable(command: Command) -> None:
    if len(command.words) < 3 or not re.fullmatch(r"\w+", command.words[1]):
        raise command.wrong("not a variable", "variable name style value", "complete it")
    _, name, style, *values = command.words
    if name in GIVEN:  # LAMMPS would silently ignore it
        raise command.wrong(f"the variable {name} is the stage's own", "another name", "rename your variable")
    if style not in VARIABLES:
        raise command.wrong(f"variables of style {style} are not allowed in a stage", f"one of: {', '.join(VARIABLES)}")
    strange = next((value for value in values if not _NUMBER.fullmatch(value)), None)
    if style in {"index", "string", "internal"} and strange is not None:
        raise command.wrong(f"{strange} is not a number", f"numbers in a variable of style {style}")
    if style in {"equal", "atom"} and len(values) != 1:  # LAMMPS takes the first of them
        raise command.wrong(f"a formula of {len(values)} words", "one word, or quotes around it", "fix it")
    if style == "format":
        for form in values[1:]:
            _want_format(command, form)


def _want_format(command: Command, form: str) -> None:
    if not _FORMAT.fullmatch(form):
        raise command.wrong(f"{form} formats more than a number", "a format such as %.6g", "fix it")


# --- pair styles ------------------------------------------------------------------------------------------------------


def check_style(*lines: str) -> None:
    """Refuse a pair style that runs Python, or writes files.

    Raises
    ------
    ValueError
        It does either: ``what - expected - next``.
    """
    for line in lines:
        for word in line.split():
            if word.strip("\"'") in _RUNS_PYTHON:
                what = f"{word} in {line!r} runs Python code from a file"
                expected = "expected a pair style that only reads numbers, or an ASE calculator (ase:)"
                raise ValueError(f"{what} - {expected} - see params/potential/README.md")
            if word.strip("\"'") == "out_file":
                what = f"out_file in {line!r} writes a file"
                raise ValueError(f"{what} - expected none - ensembles with force deviations belong in `deepmd:`")
