"""Advice: every command that a message names is one, with the options that it is given, and can be typed."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import typer

from activelearn import loop
from activelearn.cli import app
from activelearn.store import StudyStore
from activelearn.tasks import consent_needed

PACKAGE = Path(__file__).resolve().parent.parent / "activelearn"
#: A command in a message: up to where the sentence, the code or the brackets around it end.
COMMAND = re.compile(r"\bactivelearn ((?:[a-z]+\b)(?:(?! - |[;:`)\n]|, |activelearn ).)*)")
#: What follows the name of the package in a sentence.
PROSE = {"itself", "into", "is", "began", "in", "has", "writes"}
OPTION = re.compile(r"(?<![\w-])(--[a-z][\w-]*|-[a-z]\b)")
#: Options of programs of others, in messages that are about them.
THEIRS = {
    *("--ntasks", "--exact", "--nodes", "--cpus-per-task", "--offline", "--upgrade", "--nlaunches", "--launch_dir"),
    *("--ema", "--help"),
    *("--time", "--mem", "--account", "--qos", "--constraint", "--gres", "--partition"),
}


@cache
def commands():
    """Every command by its words, with its options."""

    def walk(command, words=()):
        for name, one in getattr(command, "commands", {}).items():
            yield from walk(one, (*words, name))
        if words and not hasattr(command, "commands"):
            takes_all = command.context_settings.get("ignore_unknown_options", False)
            given = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
            yield " ".join(words), None if takes_all else {option for option in given if option.startswith("-")}

    return dict(walk(typer.main.get_command(app)))


def texts(source):
    """Yield what a module says, with its line; what is put into an f-string is {}. Docstrings say nothing to users."""
    tree = ast.parse(source)
    inside = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inside.add(node.value)
        if isinstance(node, ast.JoinedStr):
            inside |= set(ast.walk(node)) - {node}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            yield node.lineno, node.value


def wrong(text):
    """Yield what is wrong with the advice in a text."""
    known = commands()
    for words in COMMAND.findall(text):
        if words.split()[0] in PROSE:
            continue
        name = next((name for name in sorted(known, key=len, reverse=True) if f"{words} ".startswith(f"{name} ")), None)
        if name is None:
            yield f"no command: activelearn {words}"
        elif known[name] is not None:
            for option in OPTION.findall(words):
                if option not in known[name] | THEIRS:
                    yield f"activelearn {name} has no {option}"
    if " " in text:
        anywhere = {option for options in known.values() for option in options or ()} | THEIRS
        yield from (f"no command has {one}" for one in OPTION.findall(text) if one not in anywhere and one[1] == "-")


def test_every_command_that_a_message_names_is_there_with_its_options():
    modules = sorted(PACKAGE.rglob("*.py"))
    said = [(path, line, text) for path in modules for line, text in texts(path.read_text())]
    assert sum("activelearn " in text for *_, text in said) > 20, "messages are read"
    assert [f"{path.name}:{line}: {what}" for path, line, text in said for what in wrong(text)] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x: y - expected z - see: activelearn reports runs/a", ["no command: activelearn reports runs/a"]),
        ("give `activelearn export runs/a --folder b` again", ["activelearn export has no --folder"]),
        ("wait for it with --waiting, or stop", ["no command has --waiting"]),
        ("see: activelearn labels list {} --verify; or -l", []),
        (
            "activelearn doctor -l a --fix, activelearn machine --smok",
            ["activelearn machine has no --smok", "no command has --smok"],
        ),
    ],
)
def test_what_is_wrong_with_an_advice_is_found(text, said):
    assert list(wrong(text)) == said


#: Who says what names an option alone: every command that may say it has the option.
SAY = {
    "--wait": {"run", "submit", "glass", "benchmark"},  # whatever holds the lease of a folder
    "--accept-unusual": {"run", "submit", "glass", "benchmark"},  # whatever judges numbers, and continues
    "--accept-changes": {"run", "submit"},
    "--refuse-infrastructure-failures": {"run", "submit"},
    "--folder": {"run", "check", "submit", "glass", "benchmark", "machine"},
    "--to": {"export", "finetune", "machine", "labels export"},
    "--keys": {"labels import"},
    "--declare": {"labels import"},
    "--reference": {"labels import", "labels export"},
    "--format": {"labels import", "labels export"},
}


@pytest.mark.parametrize("option", SAY)
def test_a_command_whose_messages_name_an_option_has_it(option):
    """`glass` said: wait for it with --wait, and had no such option."""
    assert {name for name in SAY[option] if option not in commands()[name]} == set()


def test_consent_is_asked_for_where_it_can_be_given(tmp_path):
    """Glasses and trainings are never given up, and `glass` has no such option."""
    said = {station.name: consent_needed(station, StudyStore(tmp_path)) for station in loop.STATIONS.values()}
    assert {name for name, text in said.items() if "--refuse-infrastructure-failures N" in text} == {"explore", "label"}
    assert set(said.values()) == {said["label"], ""}
