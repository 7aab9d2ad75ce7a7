"""Messages on calculators that cannot be used: one line, with the setting to change and the log."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from activelearn.config import Reference

#: Maximum length of quoted messages of a library.
_LONGEST: Final = 240
_GPU: Final = re.compile(r"cuda|nvidia|\bgpus?\b|\bmps\b", re.IGNORECASE)
_DEVICE: Final = re.compile(r"(cuda|gpu|mps|xpu|hip)(:\d+)?", re.IGNORECASE)
_NO_MODULE: Final = re.compile(r"No module named '([^']+)'")


def said(text: str) -> str:
    """Return the first line of a message of a library, truncated."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "..."


def complaint(reference: Reference, answer: Mapping[str, Any], where: str | None = None) -> str:
    """Return the line on a calculator whose answer is ``lacks`` or ``unfit`` (see ``workers/answering.py``)."""
    where = where or reference.where
    if "lacks" in answer:
        what = f"{where}: {reference.name}: {said(answer['lacks'])}"
        if not reference.stress and "stress" in answer["lacks"]:
            expected = "expected its stress to relax a cell, but label.reference.stress is false"
            return f"{what} - {expected} - set cell: false (initial.relax, initial.relax_packed)"
        if not reference.stress:
            return f"{what} - expected energy and forces - choose a calculator that has them"
        if reference.where != Reference.where:
            return (
                f"{what} - expected energy, forces and stress, for glasses and benchmarks - choose a potential that "
                "has them"
            )
        return (
            f"{what} - expected energy, forces and stress - choose a calculator that has them; if it only lacks the "
            "stress, set label.reference.stress: false (labels then have no virial)"
        )
    text = said(answer["unfit"])
    log = f"; traceback: {answer['log']}" if "log" in answer else ""
    return f"{where}: {reference.name}: {text} - {_advice(reference, text)}{log}"


def _advice(reference: Reference, text: str) -> str:
    """Return what was expected and what to do about it."""
    module = (reference.calculator or "").split(":")[0]
    if (lacking := _NO_MODULE.search(text)) is not None:
        if f"{module}.".startswith(f"{lacking[1]}.") and "." in lacking[1]:
            return f"expected the module of {reference.calculator} - check its name"
        own = module.split(".")[0] == lacking[1]
        install = (
            f"check the name, or pip install {reference.package or lacking[1]}"
            if own
            else "install the package that has it"
        )
        return f"expected {lacking[1]} in {reference.python or 'this interpreter'} - {install}"
    if _GPU.search(text):
        device = [f"arguments.{key}: {value}" for key, value in reference.arguments.items() if _is_device(value)]
        named = f"change {device[0]}, for example to cpu" if device else "select the CPU in the arguments"
        return f"expected the GPU that it requests - {named}, or run it where there is one"
    kind = text.partition(":")[0]
    return {
        "AttributeError": "expected a class of that module - check calculator: module:Class",
        "TypeError": "expected an ASE calculator with arguments of its class - check calculator and arguments",
        "FileNotFoundError": "expected an existing file - check the path in weights or arguments",
    }.get(kind, "expected a working calculator - correct calculator and arguments")


def _is_device(value: object) -> bool:
    return isinstance(value, str) and _DEVICE.fullmatch(value) is not None
