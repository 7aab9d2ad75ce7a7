"""Plain names for external files: links in the working folder of an engine whose input names files.

LAMMPS reads a path as words: a space ends it, ``$`` starts a variable, ``#`` a comment, ``&`` continues with the next
line, and a name with both kinds of quotes cannot be written at all. A model is therefore linked next to the input as
``model-0.pb``, whatever the name of its folder. Links are made again at each start in a folder, and survive a kill
like any other file; on a file system without links the file is copied.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from activelearn.config import Potential
from activelearn.config.files import as_path

_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_SUFFIXES: Final = re.compile(r"(\.[A-Za-z0-9]{1,20}){0,2}$")


def link_models(models: Sequence[str | Path], folder: Path) -> list[str]:
    """Return the names of models, ``model-0.pb`` ..., by which they are linked in `folder` from now on.

    The suffix stays: DeePMD-kit chooses its backend by it.
    """
    names = [f"model-{i}{Path(model).suffix}" for i, model in enumerate(models)]
    for name, model in zip(names, models, strict=True):
        _link(Path(model), folder / name)
    return names


def with_plain_names(potential: Potential, folder: Path) -> Potential:
    """Return a potential whose file names are relative to `folder`, where LAMMPS works."""
    if potential.deepmd is not None:
        models = tuple(link_models(potential.deepmd.models, folder))
        return potential.model_copy(update={"deepmd": potential.deepmd.model_copy(update={"models": models})})
    if potential.lammps is not None:
        lines = {
            "pair_style": plain_line(potential.lammps.pair_style, folder),
            "pair_coeff": tuple(plain_line(line, folder) for line in potential.lammps.pair_coeff),
        }
        return potential.model_copy(update={"lammps": potential.lammps.model_copy(update=lines)})
    return potential


def plain_line(line: str, folder: Path) -> str:
    """Return a LAMMPS line in which files with unreadable names (``file://...``) are replaced by links."""
    return " ".join(_plain_word(word, folder) for word in line.split(" "))


def plain_lines(value: Any, folder: Path) -> Any:  # noqa: ANN401 - JSON
    """Return arguments of a calculator with :func:`plain_line` applied to each line in them."""
    if isinstance(value, dict):
        return {key: plain_lines(item, folder) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_lines(item, folder) for item in value]
    return plain_line(value, folder) if isinstance(value, str) and "file://" in value else value


def _plain_word(word: str, folder: Path) -> str:
    path = as_path(word)
    if path is None:
        return word
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    if _PLAIN.fullmatch(path.name):  # by a link to its folder, since some files refer to others next to them
        _link(path.parent, folder / f"files-{digest}")
        return f"./files-{digest}/{path.name}"
    suffix = _SUFFIXES.search(path.name)
    name = f"file-{digest}{suffix[0] if suffix is not None else ''}"
    _link(path, folder / name)
    return f"./{name}"


def _link(target: Path, link: Path) -> None:
    """Make `link` point to `target`; another process may do the same at the same time."""
    if link.is_symlink() and link.readlink() == target.absolute():
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    made = link.with_name(f".{link.name}.{uuid.uuid4().hex[:12]}")
    try:
        made.symlink_to(target.absolute())
    except OSError:  # a file system without links
        shutil.copyfile(target, made)
    os.replace(made, link)
