"""Packages of an interpreter, ours or another, as found on disk: nothing is started or imported."""

from __future__ import annotations

import ast
import difflib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES, all_suffixes
from pathlib import Path
from typing import Final

from activelearn.config import Machine

#: Path files that are in nearly every virtual environment and add nothing to import.
_NO_PATHS: Final = {"distutils-precedence.pth", "_virtualenv.pth"}
#: Words in a module that may add names which its text does not show.
_HIDDEN: Final = ("globals(", "sys.modules", "__getattr__", "vars(")


def has_module(module: str, python: str | None) -> bool:
    """Return whether an interpreter (null: this one) has a package; True also if its folders cannot tell."""
    if is_ours(python):
        return _spec(module) is not None
    root = root_of(python)
    if root is None:
        return False
    settings, sites = root / "pyvenv.cfg", folders_of(python)
    if not settings.is_file() or not sites or "system-site-packages = true" in settings.read_text(errors="replace"):
        return True
    lines = [line for site in sites for file in site.glob("*.pth") for line in _path_lines(file)]
    if any(line.startswith("import") for line in lines):
        return True
    folders = [*sites, *map(Path, lines), *map(Path, filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))]
    return any(modules_in(folder, module) for folder in folders)


#: What to install if deepmd-kit is missing and only TensorFlow is requested.
_INSTALL: Final = "deepmd-kit[cpu,lmp]==3.2.0 - pip install 'activelearn[local]'"


def lacking_deepmd(machine: Machine, expected: str = _INSTALL) -> list[str]:
    """Return a line if the interpreter of the engines has no deepmd-kit."""
    if has_module("deepmd", machine.python):
        return []
    return [f"machine.python: {machine.python or 'this interpreter'} has no deepmd - expected {expected}"]


def root_of(python: str | None) -> Path | None:
    """Return the environment folder of an interpreter (null: this one), or None if there is none."""
    found = shutil.which(os.path.expanduser(python or sys.executable))  # noqa: PTH111 - a word of a command
    return None if found is None else Path(found).absolute().parent.parent


def folders_of(python: str | None) -> list[Path]:
    """Return the package folders of an interpreter (null: this one), as far as they are visible."""
    if is_ours(python):
        return [Path(folder) for folder in sys.path if folder]
    root = root_of(python)
    return [] if root is None else [*root.glob("lib*/python*/site-packages")]


def version_of(distribution: str, python: str | None) -> str | None:
    """Return the version of a distribution of an interpreter (null: this one); None if not found."""
    folders = [str(folder) for folder in folders_of(python)]
    found = importlib.metadata.Distribution.discover(name=distribution, path=folders)
    return next((one.version for one in found), None)


def is_ours(python: str | None) -> bool:
    """Return whether an interpreter is the current one."""
    return python is None or python == sys.executable


def _path_lines(file: Path) -> list[str]:
    """Return the lines of a path file, except those that add nothing to import."""
    return [] if file.name in _NO_PATHS else [line for line in file.read_text(errors="replace").splitlines() if line]


def lacking(calculator: str) -> str | None:
    """Return what is missing of ``module:Class`` in this interpreter, or None if nothing or unknown.

    Only the top-level package is searched as Python does; modules in it are files, and a class is searched in
    the text of its module.
    """
    module, name = calculator.split(":")
    top, *inside = module.split(".")
    spec = _spec(top)
    if spec is None:
        return f"no module {top}"
    if top in sys.stdlib_module_names:
        return f"{top} is a module of the standard library, which has no calculators"
    file, folders = Path(spec.origin or ""), [Path(path) for path in spec.submodule_search_locations or ()]
    for part in inside:
        places = [path for folder in folders for path in modules_in(folder, part)]
        if not places:
            return None if _moves_its_modules(folders) else f"no module {module}"
        package = next((path for path in places if path.is_dir()), None)
        file = places[0] if package is None else package / "__init__.py"
        folders = [] if package is None else [package]
    names = _names(file)
    if names is None or name in names:
        return None
    near = difflib.get_close_matches(name, sorted(names), 1)
    return f"{module} has no {name}" + (f" (it has {near[0]})" if near else "")


def _spec(module: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError):  # partly imported, or gone
        return None


def modules_in(folder: Path, name: str) -> list[Path]:
    """Return the files or the folder of a module in a folder of modules."""
    found = [folder / f"{name}{suffix}" for suffix in all_suffixes()]
    extensions = [path for suffix in EXTENSION_SUFFIXES for path in folder.glob(f"{name}*{suffix}")]
    return [path for path in (folder / name, *found, *extensions) if path.is_dir() or path.is_file()]


def _moves_its_modules(folders: Iterable[Path]) -> bool:
    """Return whether a package may have modules outside of its folder."""
    texts = [_text(Path(folder) / "__init__.py") for folder in folders]
    return any(text is None or "__path__" in text for text in texts)


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8") if file.suffix == ".py" else None
    except (OSError, ValueError):
        return None


def _names(file: Path) -> set[str] | None:
    """Return the names that a module defines, or None if its text does not show all of them."""
    text = _text(file)
    if text is None or any(word in text for word in _HIDDEN):
        return None
    try:
        found = set(_bound(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError):
        return None
    return None if "*" in found else found


def _bound(module: ast.Module) -> Iterator[str]:
    """Yield all names that are bound anywhere in a module, a superset of its names."""
    for node in ast.walk(module):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.alias(name=name, asname=other):
                yield (other or name).split(".")[0]
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
