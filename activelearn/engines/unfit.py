"""What is said of a calculator that cannot be used: one line, with the setting to change and the log."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from activelearn.config import Reference

#: Longest quotation of what a library says.
_LONGEST: Final = 240
_GPU: Final = re.compile(r"cuda|nvidia|\bgpus?\b|\bmps\b", re.IGNORECASE)
_DEVICE: Final = re.compile(r"(cuda|gpu|mps|xpu|hip)(:\d+)?", re.IGNORECASE)
_NO_MODULE: Final = re.compile(r"No module named '([^']+)'")


def said(text: str) -> str:
    """Return the first line of what a library says, not longer than a line of ours."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "..."


def complaint(reference: Reference, answer: Mapping[str, Any], where: str | None = None) -> str:
    """Return the line on a calculator whose answer is ``lacks`` or ``unfit`` (see ``workers/answering.py``)."""
    where = where or reference.where
    if "lacks" in answer:
        what = f"{where}: {reference.name}: {said(answer['lacks'])}"
        if not reference.stress and "stress" in answer["lacks"]:
            wanted = "expected its stress, for a cell to relax, and label.reference.stress: false says that it has none"
            return f"{what} - {wanted} - set cell: false (initial.relax, initial.relax_packed)"
        if not reference.stress:
            return f"{what} - expected energy and forces - choose a calculator that has them"
        if reference.where != Reference.where:
            return (
                f"{what} - expected energy, forces and stress, for glasses and benchmarks - choose a potential that "
                "has them"
            )
        return (
            f"{what} - expected energy, forces and stress - choose a calculator that has them; if it is the stress "
            "alone that it lacks, set label.reference.stress: false (its labels have no virial then)"
        )
    text = said(answer["unfit"])
    log = f"; traceback: {answer['log']}" if "log" in answer else ""
    return f"{where}: {reference.name}: {text} - {_advice(reference, text)}{log}"


def _advice(reference: Reference, text: str) -> str:
    """Return what was wanted and what to do about it."""
    module = (reference.calculator or "").split(":")[0]
    if (lacking := _NO_MODULE.search(text)) is not None:
        if f"{module}.".startswith(f"{lacking[1]}.") and "." in lacking[1]:
            return f"expected the module of {reference.calculator} - check its name"
        own = module.split(".")[0] == lacking[1]
        install = f"check the name, or pip install {reference.package or lacking[1]}" if own else "install what has it"
        return f"expected {lacking[1]} in {reference.python or 'this interpreter'} - {install}"
    if _GPU.search(text):
        device = [f"arguments.{key}: {value}" for key, value in reference.arguments.items() if _is_device(value)]
        named = f"set another than {device[0]}, such as cpu" if device else "choose its CPU among the arguments"
        return f"expected the GPU that it asks for - {named}, or run it where there is one"
    kind = text.partition(":")[0]
    return {
        "AttributeError": "expected a class of that module - check calculator: module:Class",
        "TypeError": "expected an ASE calculator, with arguments that its class takes - check calculator and arguments",
        "FileNotFoundError": "expected a file that is there - check the path in weights or arguments",
    }.get(kind, "expected a calculator that works - correct calculator and arguments")


def _is_device(value: object) -> bool:
    return isinstance(value, str) and _DEVICE.fullmatch(value) is not None
