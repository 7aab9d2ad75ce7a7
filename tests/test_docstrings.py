"""Public functions that take or give arrays say the shapes and the units of them."""

import ast
import re

from test_architecture import PACKAGE, Module, modules_of

ARRAY = re.compile(r"\b(NDArray|ndarray|FloatArray|IntArray|BoolArray|Vectors)\b")
#: The arrays of a product by name: an archive, whose owner says what is in it.
ARCHIVE = re.compile(r"(dict|Mapping)\[str, NDArray\[Any\]\]")
#: (n_frames, 3), (n,), (3, 3) ...
SHAPE = re.compile(r"\(\s*(?:\.\.\.|[\w+*/ -]+)\s*,(?:\s*(?:\.\.\.|[\w+*/ -]+)\s*,?)*\s*\)")
#: A unit, or what has none: indices, masks, counts, shares, words.
UNIT = re.compile(
    r"Å|\beV\b|\bK\b|\bps\b|\bfs\b|\bs\b|\bGPa\b|\bbar\b|g/cm|\bu\b|\bamu\b|%|degree|\bradian|\bunits? of\b"
    r"|\bin the units\b|\bof any unit\b|\bpure number\b|\bdimensionless\b|\bfractional\b|\bshares?\b|\bcounts?\b"
    r"|\bnumbers? of\b|\bbytes\b|\bind(ex|ices)\b|\bmask\b|\bTrue\b|\bwhether\b|\bnames?\b|\bsymbols\b"
)


def public_functions(module: Module):
    """Yield public functions and methods of public classes, with their dotted names."""

    def below(body, prefix):
        for node in body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield f"{prefix}{node.name}", node
            elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield from below(node.body, f"{prefix}{node.name}.")

    yield from below(module.tree_once.body, "")


def handles_arrays(function: ast.FunctionDef) -> bool:
    given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    annotations = [argument.annotation for argument in given] + [function.returns]
    return any(ARRAY.search(ARCHIVE.sub("", ast.unparse(one))) for one in annotations if one is not None)


def silent(module: Module):
    """Yield the functions of a module whose docstrings lack a shape or a unit."""
    for name, function in public_functions(module):
        if handles_arrays(function) and not module.is_worker:
            said = ast.get_docstring(function) or ""
            lacks = [what for what, found in (("shape", SHAPE), ("unit", UNIT)) if not found.search(said)]
            if lacks:
                yield f"{module.path}:{function.lineno}: {name} says no {' and no '.join(lacks)}"


def test_every_public_function_of_arrays_says_shapes_and_units():
    assert [line for module in modules_of(PACKAGE) for line in silent(module)] == []


def test_the_rule_sees_what_is_missing():
    source = '''
def bare(a: NDArray[Any]) -> float:
    """Return it."""
def whole(a: NDArray[Any]) -> float:
    """Return it of (n, 3) Å."""
class Thing:
    def method(self) -> FloatArray:
        """(n,) of something."""
    def _private(self) -> FloatArray:
        pass
'''
    assert list(silent(Module("thing.py", source))) == [
        "thing.py:2: bare says no shape and no unit",
        "thing.py:7: Thing.method says no unit",
    ]
