"""DeePMD-kit's own check of a model block before training, in our words."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from activelearn import trees
from activelearn.config.messages import nearest
from activelearn.engines.interpreters import has_module
from activelearn.engines.process import run_command, worker_command
from activelearn.engines.trainers.deepmd.blocks import Block, dotted
from activelearn.errors import EngineError

#: Names of the backends of :mod:`activelearn.engines.backends` in DeePMD-kit's manual.
_THEIRS: Final = {"tensorflow": "TensorFlow", "pytorch": "PyTorch", "pytorch-exportable": "PyTorch Exportable"}
_TYPES: Final = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "dict": "a mapping",
    "list": "a list", "None": "null", "NoneType": "null", "list[int]": "a list of whole numbers",
    "list[float]": "a list of numbers", "list[str]": "a list of texts", "list[bool]": "a list of true and false",
}  # fmt: skip
#: Wrong statements of dargs about backends: pair tables train on PyTorch, not on TensorFlow (rules.py).
_MISTAKEN: Final = {("backend", "pairtab")}
_IMPORT_S: Final = 120.0


def interpreter(python: str | None) -> str | None:
    """Return the interpreter for the check: this one if it has deepmd-kit, else `python` if that has it; else None."""
    return next((one for one in (sys.executable, python) if one is not None and has_module("deepmd", one)), None)


def findings(blocks: Sequence[tuple[Block, str]], python: str) -> list[list[Mapping[str, Any]]]:
    """Return the findings of dargs for each block, as DeePMD-kit will read it, and its backend (our name).

    Findings are described in ``workers/model_block.py``. Answers are cached within this process.

    Raises
    ------
    EngineError
        The interpreter does not run, or its deepmd-kit cannot be imported.
    """
    return [list(one) for one in _asked(json.dumps(blocks), python)]


@lru_cache
def _asked(blocks: str, python: str) -> Any:  # noqa: ANN401 - JSON
    with trees.temporary() as folder:
        question = [{"model": model, "backend": _THEIRS[backend]} for model, backend in json.loads(blocks)]
        (folder / "blocks.json").write_text(json.dumps(question))
        command = [*worker_command("model_block.py", python), "blocks.json", "answers.json"]
        done = run_command(command, folder, log=folder / "log", timeout_s=_IMPORT_S)
        if done.return_code != 0:
            raise EngineError("deepmd-kit's dargs cannot be run", command=command[:1], tail=done.tail)
        return json.loads((folder / "answers.json").read_text())


def problems(block: Block, given: Block, backend: str, python: str) -> list[str]:
    """Return what DeePMD-kit would reject in a block, or the backend lacks, one line each.

    Parameters
    ----------
    block
        As DeePMD-kit will read it.
    given
        As the user wrote it, for the values in messages.
    backend
        Of the training (our name).
    python
        Interpreter with deepmd-kit.
    """
    (found,) = findings([(block, backend)], python)
    return [sentence(one, given, backend) for one in found if (one["what"], one.get("value")) not in _MISTAKEN]


def sentence(found: Mapping[str, Any], given: Block, backend: str) -> str:
    """Return one finding as ``where: what - expected - next``."""
    where, value = dotted(tuple(found["at"])), _at(given, found["at"])
    match found["what"]:
        case "unknown":
            near = f"did you mean {found['near']!r}?" if found["near"] else "see its manual for valid keys"
            return f"{where}: unknown to DeePMD-kit - {near} - rename or remove it"
        case "missing":
            return f"{where}: missing - expected by DeePMD-kit - add it"
        case "choice":
            near = f"did you mean {found['near']!r}?" if found["near"] else "expected one of DeePMD-kit's manual"
            return f"{where}: {found['value']} is not a kind that DeePMD-kit has here - {near} - fix it"
        case "kind":
            expected = " or ".join(_TYPES.get(name.strip(), name.strip()) for name in found["expected"])
            return f"{where}: got {value!r} - expected {expected} - fix it"
        case "value":
            return f"{where}: got {value!r} - expected what DeePMD-kit accepts ({found['text'].rstrip('.')}) - fix it"
        case "backend":
            return _elsewhere(where, found, backend)
        case "activation" | "precision":
            return f"{where}: got {value!r} - {nearest(str(value).lower(), found['expected'])} - fix it"
    return f"{where}: DeePMD-kit rejects it ({found['said']}) - expected the format of its manual - fix it"


def _elsewhere(where: str, found: Mapping[str, Any], backend: str) -> str:
    ours = [name for name, theirs in _THEIRS.items() if theirs in found["backends"]]
    if "pytorch" in ours:  # which compiles nothing
        ours = [name for name in ours if name != "pytorch-exportable"]
    what = where if found["value"] is None else f"{where}: {found['value']}"
    choose = f"train.backend: {ours[0]}" if ours else "remove it"
    expected = f"expected {' or '.join(_THEIRS[name] for name in ours)}" if ours else "expected a model without it"
    joint = " is" if found["value"] is not None else ": is"
    return f"{what}{joint} not on {_THEIRS[backend]} - {expected} - {choose}"


def _at(block: Any, path: Sequence[str]) -> Any:  # noqa: ANN401 - JSON
    """Return the value at a path as reported by dargs, or None."""
    for key in path:
        if isinstance(block, Mapping):
            block = block.get(key)
        elif isinstance(block, Sequence) and key.isdigit() and int(key) < len(block):
            block = block[int(key)]
        else:
            return None
    return block
