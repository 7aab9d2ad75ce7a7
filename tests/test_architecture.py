"""The rules of the house (docs/design.md): who may import what, how large a room may be, what an import costs.

The package is read, not run: every import is seen, those inside functions and under TYPE_CHECKING too. A room is a
module of the package or a package in it (``store``, ``engines``, ``benchmark``); rooms that are not built yet are not
checked. The rules themselves are tested at the end: on sources that break them.
"""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "activelearn"

MAX_MODULE_LINES = 600
MAX_FUNCTION_LINES = 60
MAX_FACE_LINES = 30
IMPORT_SECONDS = 0.3

#: From the ground up; a room may import the floors below it.
FLOORS = (
    {"units", "errors", "trees", "plugins", "versions", "fixed_point", "stamping", "structures"},
    {"frames", "records", "config"},
    {"seeds", "geometry", "descriptor", "prediction", "pressures", "writing", "trajectory"},
    {"engines", "store"},
    {"packing", "melting"},
    {"starts", "inherited", "learning", "taught"},
    {"given", "tasks", "capacity", "compression", "final_models", "passes", "samples"},
    {"prepare", "initial", "explore", "select", "label", "train", "distil"},
    {"study", "ending"},
    {"loop"},
    {"status"},
    {"page"},
    {"workflow"},
    {"show", "views", "watch"},
    {"cli"},
)
GROUND = FLOORS[0] | FLOORS[1]
LOOP = 8
#: Rooms beside the stairs.
GLASS_AND_BENCHMARK = GROUND | {
    *("prediction", "seeds", "geometry", "trajectory", "packing", "melting", "starts", "given"),
    *("engines", "store", "tasks"),
}
ANNEXES = {
    "glass": GLASS_AND_BENCHMARK,
    "benchmark": GLASS_AND_BENCHMARK,
    "report": {"units", "errors", "stamping", "records", "store", "frames"},
    "analysis": {"benchmark", "select", "trajectory"},
}
#: They import what they inspect, but never the edge.
INSPECTORS = {"check", "running", "exchange", "export", "crate", "finetune"}
EDGE = {"workflow", "cli"}

HEAVY = {"tensorflow", "torch", "deepmd", "gpaw", "lammps", "sevenn", "chgnet", "mace", "tensorpotential"}
#: Libraries that only some rooms may name.
RESERVED = {
    "fireworks": ({"workflow"}, "fireworks only in workflow/"),
    # exchange reads labels in all formats that dpdata knows.
    "dpdata": ({"writing", "engines", "exchange"}, "dpdata only in writing.py, engines/ and exchange/"),
    "multiprocessing": (set(), "no multiprocessing anywhere: threads wait on processes"),
    **{name: ({"engines"}, "models and MD codes only inside functions of engines/") for name in HEAVY},
}
#: What may start processes: the engines' one module, and the worker of codes that are run once for each structure.
PROCESSES = {"engines/process.py", "engines/workers/single_points.py"}
#: Ways round the rule that processes are started in engines/process.py.
STARTERS = {
    "os.system", "os.popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.posix_spawnp",
    *(f"os.{kind}{how}" for kind in ("exec", "spawn") for how in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")),
    "asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell", "pty.spawn",
    "concurrent.futures.ProcessPoolExecutor",
}  # fmt: skip
#: What may not happen while a module is imported.
AT_IMPORT = {"os.getenv", "os.environ", "os.mkdir", "os.makedirs", "logging.basicConfig"}
#: What removes or replaces folders; only trees.py does.
REMOVERS = {
    *("rmtree", "rmdir", "removedirs", "renames", "TemporaryDirectory", "mkdtemp"),
    *("copytree", "remove_tree", "ScratchDir", "scratch_dir"),
}
RENAMERS = {"rename", "replace"}
#: Functions that give a file (never a folder) another name: what they write, or a lock or product they put aside.
FILE_RENAMERS = {
    "engines/workers/answering.py:finish",
    "engines/workers/calculator_dynamics.py:save",
    "engines/dynamics/lammps.py:run_segment",
    "engines/links.py:_link",
    "store/files.py:replace_text",
    "store/folder.py:damaged_products",
    "store/identity.py:_renew",
    "store/locks.py:_break",
    "workflow/site.py:_write",
}
#: A command that removes, in a string.
REMOVING_COMMAND = re.compile(
    r"(^|[\s;&|(`/])(rm|rmdir|unlink|shred|mv)\s|^(\S*/)?(rm|rmdir|mv|unlink|shred)$|(^|\s)--?delete\b"
)
BANNED_NAMES = {"utils", "util", "common", "helpers", "helper", "base", "core", "manager", "managers"}
#: What `import activelearn` must not bring along.
NOT_AT_IMPORT = {"tensorflow", "torch", "fireworks", "ase", "pymatgen"}


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
IMPORTERS = {"__import__", "import_module", "importlib.import_module"}


@dataclass(frozen=True)
class Module:
    """One source file: where it stands in the package (``engines/process.py``) and what is in it."""

    path: str
    source: str

    @property
    def room(self) -> str:
        return Path(self.path).parts[0].removesuffix(".py")

    @property
    def is_worker(self) -> bool:
        """Started by path in another interpreter, so no part of the import graph."""
        return self.path.startswith("engines/workers/")

    @cached_property
    def tree(self) -> ast.Module:
        """The same tree at every call: its nodes can be told apart by identity."""
        return ast.parse(self.source, self.path)

    @cached_property
    def nodes(self) -> list[tuple[ast.AST, bool]]:
        """Every node with whether it stands in the body of a function; all rules read this list."""
        return list(walk(self.tree))


@dataclass(frozen=True)
class Import:
    """One imported module (or name of a module), absolute; ``inside`` says whether a function must run first."""

    name: str
    line: int
    inside: bool

    @property
    def library(self) -> str:
        return self.name.partition(".")[0]


@cache
def modules_of(package: Path) -> list[Module]:
    """Return the modules of a package, each read and taken apart once."""
    files = sorted(path for path in package.rglob("*.py") if "_shipped" not in path.parts)
    return [Module(path.relative_to(package).as_posix(), path.read_text(encoding="utf-8")) for path in files]


# --- reading ----------------------------------------------------------------------------------------------------------


def walk(node: ast.AST, inside: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Yield every node with whether it stands in the body of a function (which does not run at import)."""
    body = getattr(node, "body", []) if isinstance(node, FUNCTIONS) else []
    for child in ast.iter_child_nodes(node):
        deferred = inside or child in (body if isinstance(body, list) else [body])
        yield child, deferred
        yield from walk(child, deferred)


def imports_of(module: Module) -> Iterator[Import]:
    for node, inside in module.nodes:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(module, node)
            yield from (Import(f"{origin}.{alias.name}", node.lineno, inside) for alias in node.names)
        elif isinstance(node, ast.Call) and dotted(node.func) in IMPORTERS and isinstance(node.args[0], ast.Constant):
            yield Import(str(node.args[0].value), node.lineno, inside)


def _origin(module: Module, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    folders = ["activelearn", *Path(module.path).parts[:-1]]
    return ".".join([*folders[: len(folders) - node.level + 1], *([node.module] if node.module else [])])


def dotted(node: ast.AST) -> str:
    """Return ``os.path.join`` for the attribute chain of that name, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and dotted(node.value):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def rooms_imported(module: Module) -> Iterator[tuple[str, int]]:
    """Yield the rooms of the package that a module imports; the package's face is the room ``activelearn``."""
    for use in imports_of(module):
        parts = use.name.split(".")
        if parts[0] == "activelearn" and not (len(parts) > 1 and parts[1].startswith("__")):
            yield (parts[1] if len(parts) > 1 else "activelearn"), use.line


def floor_of(room: str) -> int | None:
    return next((i for i, rooms in enumerate(FLOORS) if room in rooms), None)


# --- the rules: each yields what breaks it ----------------------------------------------------------------------------


def may_import(room: str, other: str) -> bool:
    """Say whether the room may import the other one."""
    if room == other:
        return True
    if room == "__main__":
        return other == "cli"
    if room in ANNEXES:
        return other in ANNEXES[room]
    here, there = floor_of(room), floor_of(other)
    if room in INSPECTORS or here is None:  # an inspector, the public face, or a room that the design does not name
        return other not in EDGE
    if there is None:  # an annex or an inspector: for the loop and what stands above it
        return here >= LOOP and (other in ANNEXES or other in INSPECTORS)
    neighbours = here == there and ({room, other} <= GROUND or other == "select")
    return there < here or neighbours


def floors_broken(module: Module) -> Iterator[str]:
    if module.is_worker:
        return
    for room, line in rooms_imported(module):
        if not may_import(module.room, room):
            yield f"{module.path}:{line}: {module.room} may not import {room}"


def libraries_misplaced(module: Module) -> Iterator[str]:
    for use in imports_of(module):
        where = f"{module.path}:{use.line}: import of {use.name}"
        if use.library == "subprocess" and module.path not in PROCESSES:
            yield f"{where}: subprocess only in engines/process.py"
        if use.library not in RESERVED or (module.is_worker and use.library in HEAVY):
            continue
        rooms, rule = RESERVED[use.library]
        if module.room not in rooms or (use.library in HEAVY and not use.inside):
            yield f"{where}: {rule}"


def workers_entangled(module: Module) -> Iterator[str]:
    for use in imports_of(module):
        if module.is_worker and use.library == "activelearn":
            yield f"{module.path}:{use.line}: a worker never imports activelearn"
        if not module.is_worker and use.library == "activelearn" and use.name.startswith("activelearn.engines.workers"):
            yield f"{module.path}:{use.line}: a worker is started by path, never imported"


def processes_started(module: Module) -> Iterator[str]:
    if module.path == "engines/process.py":
        return
    named = {use.name: use.line for use in imports_of(module)}
    named |= {dotted(node): node.lineno for node, _ in module.nodes if isinstance(node, ast.Attribute)}
    for name in sorted(STARTERS & set(named)):
        if not (module.is_worker and name == "os.fork"):
            yield f"{module.path}:{named[name]}: {name}: processes are started in engines/process.py"


def deeds_at_import(module: Module) -> Iterator[str]:
    for node, inside in module.nodes:
        if inside or module.is_worker or not isinstance(node, ast.Attribute):
            continue
        if dotted(node) in AT_IMPORT or node.attr in {"mkdir", "write_text", "write_bytes"}:
            yield f"{module.path}:{node.lineno}: {dotted(node) or node.attr}: nothing happens at import"


def folders_changed(module: Module) -> Iterator[str]:
    for node, _ in module.nodes:
        # FireWorks obeys files in the working directory, so the edge (and only it) steps into an empty one.
        is_exempt = module.is_worker or module.path == "workflow/drive.py"
        if not is_exempt and isinstance(node, ast.Attribute) and dotted(node) in {"os.chdir", "os.fchdir"}:
            yield f"{module.path}:{node.lineno}: {dotted(node)}: absolute paths everywhere"


def functions_of(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Yield every node with the name of the innermost function (or "") that it stands in."""

    def below(node: ast.AST, name: str) -> Iterator[tuple[str, ast.AST]]:
        for child in ast.iter_child_nodes(node):
            inner = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else name
            yield inner, child
            yield from below(child, inner)

    yield from below(tree, "")


def folders_removed(module: Module) -> Iterator[str]:
    """Removing and renaming of folders stands in trees.py; what looks like it elsewhere is about files, and listed."""
    if module.path == "trees.py":
        return
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    imported = {use.name: use.line for use in imports_of(module)}
    yield from (
        f"{module.path}:{line}: {name}: folders are removed and renamed in trees.py"
        for name, line in imported.items()
        if name.rpartition(".")[2] in REMOVERS
        or name in {"shutil.move", "os.rename", "os.replace", "monty.shutil.remove"}
    )
    yield from (
        f"{module.path}:{node.lineno}: {alias.name} under another name"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name in {"os", "shutil"} and alias.asname is not None
    )
    for function, node in functions_of(module.tree):
        where = f"{module.path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Attribute) and (node.attr in REMOVERS or dotted(node) == "shutil.move"):
            yield f"{where}: {node.attr}: folders are removed and renamed in trees.py"
        elif is_text(node) and node.value in REMOVERS:
            yield f"{where}: {node.value!r}: folders are removed and renamed in trees.py"
        elif isinstance(node, ast.Call) and is_renaming(node) and f"{module.path}:{function}" not in FILE_RENAMERS:
            yield f"{where}: {ast.unparse(node.func)}: folders are removed and renamed in trees.py"
        elif is_text(node) and id(node) not in docstrings and REMOVING_COMMAND.search(node.value):
            yield f"{where}: {node.value!r}: a command that removes"


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def is_renaming(call: ast.Call) -> bool:
    """Return whether a call is one of os.rename, os.replace, Path.rename or Path.replace (that of str takes two)."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else dotted(call.func)
    if dotted(call.func) in {"os.rename", "os.replace"}:
        return True
    if dotted(call.func) == "trees.rename" or name not in RENAMERS or not isinstance(call.func, ast.Attribute):
        return False
    return (
        name == "rename" or (len(call.args) == 1 and not call.keywords) or [k.arg for k in call.keywords] == ["target"]
    )


def select_unclean(module: Module) -> Iterator[str]:
    for use in imports_of(module):
        if module.room == "select" and use.library not in {
            "numpy",
            "activelearn",
            "__future__",
            *sys.stdlib_module_names,
        }:
            yield f"{module.path}:{use.line}: import of {use.name}: select is pure numpy"


def names_empty_of_meaning(module: Module) -> Iterator[str]:
    for part in Path(module.path).parts:
        if part.removesuffix(".py").strip("_").lower() in BANNED_NAMES:
            yield f"{module.path}: {part} says nothing: name it after a noun or verb of the field"


def too_long(module: Module) -> Iterator[str]:
    lines = len(module.source.splitlines())
    if lines > MAX_MODULE_LINES:
        yield f"{module.path}: {lines} lines: a module that passes {MAX_MODULE_LINES} becomes a package of its name"
    if module.path == "__init__.py" and lines > MAX_FACE_LINES:
        yield f"{module.path}: {lines} lines: the public face has at most {MAX_FACE_LINES}"
    for node, _ in module.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield f"{module.path}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}"


def classes_defined_twice(modules: list[Module]) -> list[str]:
    """Return the classes of one name in two modules: jump-to-definition would lead to the wrong one."""
    places: dict[str, list[str]] = {}
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{module.path}:{node.lineno}")
    return [f"class {name} is defined twice: {', '.join(where)}" for name, where in places.items() if len(where) > 1]


RULES = (
    floors_broken,
    libraries_misplaced,
    workers_entangled,
    processes_started,
    deeds_at_import,
    folders_changed,
    folders_removed,
    select_unclean,
    names_empty_of_meaning,
    too_long,
)


def cycle_among(modules: list[Module]) -> list[str]:
    """Return one circle of rooms that import each other, or nothing."""
    graph = {m.room: set() for m in modules}
    for module in modules:
        if not module.is_worker:
            graph[module.room] |= {room for room, _ in rooms_imported(module) if room in graph and room != module.room}
    while graph:  # take away the rooms that import nothing that is left
        free = [room for room, others in graph.items() if not others & graph.keys()]
        if not free:
            path = [next(iter(graph))]
            while path[-1] not in path[:-1]:
                path.append(min(graph[path[-1]] & graph.keys()))
            return path[path.index(path[-1]) :]
        for room in free:
            del graph[room]
    return []


# --- the house --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule):
    assert [line for module in modules_of(PACKAGE) for line in rule(module)] == []


def test_what_is_said_to_rename_files_is_there():
    """An entry that nobody uses any more would let the next one through."""
    found = {
        f"{module.path}:{function}"
        for module in modules_of(PACKAGE)
        for function, node in functions_of(module.tree)
        if isinstance(node, ast.Call) and is_renaming(node)
    }
    assert found - {"trees.py:rename"} == FILE_RENAMERS


def test_no_rooms_import_each_other_in_a_circle():
    assert cycle_among(modules_of(PACKAGE)) == []


def test_no_class_is_defined_twice():
    assert classes_defined_twice(modules_of(PACKAGE)) == []


MEASURE = """
import json, sys, time
begin = time.process_time()
import activelearn
seconds = time.process_time() - begin
print(json.dumps([seconds, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def import_in_a_fresh_process(folder: Path) -> tuple[float, set[str]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    seconds, names = json.loads(done.stdout)
    return seconds, set(names)


@pytest.mark.skipif(not (PACKAGE / "__init__.py").exists(), reason="the package is not there yet")
def test_the_import_is_quick_light_and_leaves_no_trace(tmp_path):
    """CPU seconds, best of 3: a busy machine does not make it slower."""
    runs = [import_in_a_fresh_process(tmp_path) for _ in range(3)]
    assert min(seconds for seconds, _ in runs) < IMPORT_SECONDS
    assert NOT_AT_IMPORT & runs[0][1] == set()
    assert list(tmp_path.iterdir()) == []


# --- the rules see what they are meant to see -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "path", "source", "said"),
    [
        (floors_broken, "frames.py", "from activelearn.store import Store", "frames may not import store"),
        (floors_broken, "units.py", "import activelearn.config", "units may not import config"),
        (floors_broken, "seeds.py", "from activelearn import engines", "seeds may not import engines"),
        (floors_broken, "seeds.py", "from activelearn.store import Store", "seeds may not import store"),
        (floors_broken, "engines/lammps.py", "from ..tasks import Slot", "engines may not import tasks"),
        (floors_broken, "tasks.py", "def f():\n    import activelearn.loop", "tasks.py:2: tasks may not import loop"),
        (floors_broken, "train.py", "from activelearn.label import run", "train may not import label"),
        (floors_broken, "select.py", "from activelearn.explore import run", "select may not import explore"),
        (floors_broken, "glass.py", "from activelearn.initial import pack", "glass may not import initial"),
        (floors_broken, "benchmark/rdf.py", "from activelearn import loop", "benchmark may not import loop"),
        (floors_broken, "report.py", "from activelearn.engines import lammps", "report may not import engines"),
        (floors_broken, "check.py", "from activelearn.workflow import submit", "check may not import workflow"),
        (floors_broken, "store/folder.py", "from activelearn.report import page", "store may not import report"),
        (floors_broken, "config.py", "from activelearn import Campaign", "config may not import Campaign"),
        (floors_broken, "__init__.py", "from activelearn.cli import main", "__init__ may not import cli"),
        (
            floors_broken,
            "records.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from activelearn.store import Store",
            "records.py:3: records may not import store",
        ),
        (
            libraries_misplaced,
            "loop.py",
            "def f():\n    from fireworks import LaunchPad",
            "fireworks only in workflow/",
        ),
        (libraries_misplaced, "cli.py", "import fireworks.core.launchpad as lp", "fireworks only in workflow/"),
        (libraries_misplaced, "engines/lammps.py", "import subprocess", "subprocess only in engines/process.py"),
        (
            libraries_misplaced,
            "engines/workers/calculator_session.py",
            "import subprocess",
            "subprocess only in engines/process.py",
        ),
        (libraries_misplaced, "engines/process.py", "from multiprocessing import Pool", "no multiprocessing anywhere"),
        (libraries_misplaced, "store/folder.py", "import dpdata", "dpdata only in writing.py, engines/ and exchange/"),
        (
            libraries_misplaced,
            "engines/deepmd.py",
            "from deepmd.infer import DeepPot",
            "only inside functions of engines/",
        ),
        (libraries_misplaced, "train.py", "def f():\n    import torch", "only inside functions of engines/"),
        (
            libraries_misplaced,
            "train.py",
            "import importlib\nimportlib.import_module('torch')",
            "only inside functions",
        ),
        (
            workers_entangled,
            "engines/workers/calculator_session.py",
            "def f():\n    from activelearn import units",
            "never imports",
        ),
        (workers_entangled, "engines/reference.py", "from activelearn.engines import workers", "never imported"),
        (workers_entangled, "label.py", "from activelearn.engines.workers.answering import label", "never imported"),
        (processes_started, "tasks.py", "import os\nos.system('ls')", "os.system: processes are started in"),
        (processes_started, "tasks.py", "from os import fork", "os.fork: processes are started in"),
        (processes_started, "tasks.py", "from concurrent.futures import ProcessPoolExecutor", "ProcessPoolExecutor"),
        (deeds_at_import, "config.py", "import os\nHOME = os.environ['HOME']", "os.environ: nothing happens at import"),
        (deeds_at_import, "cli.py", "import logging\nlogging.basicConfig()", "nothing happens at import"),
        (deeds_at_import, "store/folder.py", "Path('runs').mkdir()", "mkdir: nothing happens at import"),
        (deeds_at_import, "loop.py", "def f(home=os.getenv('HOME')): ...", "os.getenv: nothing happens at import"),
        (folders_changed, "tasks.py", "def f():\n    os.chdir('/')", "os.chdir: absolute paths everywhere"),
        (folders_removed, "train.py", "import shutil\nshutil.rmtree('a')", "rmtree: folders are removed"),
        (folders_removed, "train.py", "from shutil import rmtree as gone", "rmtree: folders are removed"),
        (folders_removed, "export.py", "def f(to):\n    to.rmdir()", "rmdir: folders are removed"),
        (folders_removed, "export.py", "import os\nos.replace('a', 'b')", "os.replace: folders are removed"),
        (folders_removed, "export.py", "def f(a, b):\n    a.rename(b)", "a.rename: folders are removed"),
        (folders_removed, "smoke.py", "def f(a, b):\n    a.replace(b)", "a.replace: folders are removed"),
        (folders_removed, "smoke.py", "import tempfile\nt = tempfile.TemporaryDirectory()", "TemporaryDirectory"),
        (folders_removed, "workflow/site.py", "LINE = 'cd here && rm -rf scratch'", "a command that removes"),
        (folders_removed, "engines/lammps.py", "run(['rm', '-r', folder])", "'rm': a command that removes"),
        (folders_removed, "engines/vasp.py", "TEXT = f'{a}; /bin/rm -f {b}'", "a command that removes"),
        (folders_removed, "smoke.py", "f = getattr(shutil, 'rmtree')", "'rmtree': folders are removed"),
        (folders_removed, "smoke.py", "import shutil as s\ns.move('a', 'b')", "shutil under another name"),
        (folders_removed, "smoke.py", "from os import replace as put", "os.replace: folders are removed"),
        (folders_removed, "smoke.py", "def f(a, b):\n    a.replace(target=b)", "a.replace: folders are removed"),
        (folders_removed, "smoke.py", "def f(x):\n    shutil.copytree(x, 'a', dirs_exist_ok=True)", "copytree"),
        (folders_removed, "smoke.py", "from monty.shutil import remove", "monty.shutil.remove: folders are removed"),
        (folders_removed, "smoke.py", "LINE = f'mv {a} {b}'", "'mv ': a command that removes"),
        (folders_removed, "smoke.py", "run(['/bin/rm', a])", "'/bin/rm': a command that removes"),
        (folders_removed, "smoke.py", "run(['find', a, '-delete'])", "'-delete': a command that removes"),
        (select_unclean, "select.py", "def f():\n    import scipy.spatial", "select is pure numpy"),
        (names_empty_of_meaning, "benchmark/_utils.py", "", "_utils.py says nothing"),
        (names_empty_of_meaning, "core/loop.py", "", "core says nothing"),
        (too_long, "loop.py", "x = 1\n" * 601, "601 lines"),
        (too_long, "__init__.py", "x = 1\n" * 31, "31 lines"),
        (too_long, "loop.py", "class A:\n    def f(self):\n" + "        x = 1\n" * 60, "f has 61 lines"),
    ],
)
def test_a_broken_rule_is_seen(rule, path, source, said):
    found = list(rule(Module(path, source)))
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("seeds.py", "from activelearn.config import shipped\nfrom activelearn.units import X"),
        ("records.py", "from activelearn.frames import Frames"),
        ("explore.py", "from activelearn.select import reduce\nfrom activelearn.tasks import Task"),
        ("loop.py", "from activelearn import explore, glass, report\nfrom activelearn.benchmark import density"),
        ("cli.py", "def run():\n    from activelearn.workflow import submit\nfrom activelearn import __version__"),
        ("check.py", "from activelearn import engines, seeds, loop, glass"),
        ("workflow.py", "import fireworks\nfrom fireworks.core.firework import Firework"),
        ("engines/process.py", "import subprocess, os\nos.execv('x', [])"),
        ("engines/deepmd.py", "import dpdata\ndef f():\n    import tensorflow\n    from torch import nn"),
        (
            "engines/workers/calculator_session.py",
            "import torch, os\nos.fork()\nos.chdir('/')\nHOME = os.environ['HOME']",
        ),
        ("engines/gpaw.py", "from activelearn.engines.process import run_command\nNAME = 'calculator_session.py'"),
        ("select.py", "import math\nimport numpy as np\nfrom activelearn.frames import Frames"),
        ("cli.py", "import os\ndef f():\n    return os.environ.get('HOME')"),
        ("frames.py", "x = 1\n" * 600),
        ("trees.py", "import shutil\nshutil.rmtree('a')"),
        ("train.py", "from activelearn import trees\ntrees.rename(a, b)\nname = a.name.replace('a', 'b')"),
        ("store/files.py", "import os\ndef replace_text(a, b):\n    os.replace(a, b)"),
        ("cli.py", '"""Remove it with rm file."""\nTEXT = "the form of an alarm"'),
    ],
)
def test_what_the_design_allows_is_allowed(path, source):
    assert [line for rule in RULES for line in rule(Module(path, source))] == []


def test_a_class_of_two_modules_is_seen():
    modules = [Module("a.py", "class One: pass"), Module("b.py", "class Two:\n    class One: pass")]
    assert classes_defined_twice(modules) == ["class One is defined twice: a.py:1, b.py:2"]


def test_a_circle_is_seen():
    frames = Module("frames.py", "from activelearn.records import Counts")
    records = Module("records.py", "def f():\n    from activelearn.frames import Frames")
    config = Module("config.py", "from activelearn.frames import Frames")
    assert cycle_among([frames, config]) == []
    assert set(cycle_among([config, frames, records])) == {"frames", "records"}
