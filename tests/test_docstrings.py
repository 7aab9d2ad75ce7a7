"""Public functions that take or give arrays say the shapes and the units of them."""

import ast
import re

from test_architecture import PACKAGE, Module, modules_of

#: A heading of a docstring, and an entry below one: names, and what is indented.
SECTION = re.compile(r"^(\w+)\n-{3,}\n", re.MULTILINE)
ENTRY = re.compile(r"^(\S[^\n]*)\n((?:[ \t]+[^\n]*\n?|\n)*)", re.MULTILINE)
ARRAY = re.compile(r"\b(NDArray|ndarray|FloatArray|IntArray|BoolArray|Vectors)\b")
#: The arrays of a product by name: an archive, whose owner says what is in it.
ARCHIVE = re.compile(r"(dict|Mapping)\[str, NDArray\[Any\]\]")
#: (n_frames, 3), (n,), (3, 3) ...
SHAPE = re.compile(r"\([\w.+*/ -]+,[\w.+*/, -]*\)")
#: A unit, or what has none: indices, masks, counts, shares, words.
UNIT = re.compile(
    r"Å|\beV\b|\bK\b|\bps\b|\bfs\b|\bs\b|\bGPa\b|\bbar\b|g/cm|\bu\b|\bamu\b|%|degree|\bradian|\bunits? of\b"
    r"|\bin the units\b|\b(?:of|in) any unit\b|\bpure number\b|\bdimensionless\b|\bfractional\b|\bshares?\b|\bcounts?\b"
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

    yield from below(module.tree.body, "")


def is_array(annotation: ast.expr | None) -> bool:
    return annotation is not None and bool(ARRAY.search(ARCHIVE.sub("", ast.unparse(annotation))))


def arrays_of(function: ast.FunctionDef) -> list[str]:
    """Return the parameters that are arrays, and "return" if it is one."""
    given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    found = [argument.arg for argument in given if is_array(argument.annotation)]
    return [*found, *(["return"] if is_array(function.returns) else [])]


def texts_of(docstring: str) -> dict[str, str]:
    """Return what a docstring says of each parameter, and of what it returns: in the section, or at its head."""
    head, *sections = SECTION.split(docstring)
    by_name = dict(zip(sections[::2], sections[1::2], strict=True))
    said = {}
    for names, text in ENTRY.findall(by_name.get("Parameters", "")):
        said |= dict.fromkeys(re.split(r",\s*", names), text)
    return {"": head, **said, "return": head + by_name.get("Returns", "")}


def silent(module: Module):
    """Yield the functions of a module whose docstrings lack a shape or a unit, with the parameters."""
    for name, function in public_functions(module):
        texts = texts_of(ast.get_docstring(function) or "")
        lacks = [
            f"{what} of {one}"
            for one in ([] if module.is_worker else arrays_of(function))
            for what, found in (("shape", SHAPE), ("unit", UNIT))
            if not found.search(texts.get(one, texts[""]))
        ]
        if lacks:
            yield f"{module.path}:{function.lineno}: {name} says no {', no '.join(lacks)}"


def test_every_public_function_of_arrays_says_shapes_and_units():
    assert [line for module in modules_of(PACKAGE) for line in silent(module)] == []


def test_it_counts_all_of_them():
    found = [name for module in modules_of(PACKAGE) for name, one in public_functions(module) if arrays_of(one)]
    assert len(found) > 100
    assert {"force_deviation", "Frames.with_labels", "mean_square_displacement"} <= set(found)


def test_the_rule_sees_what_is_missing():
    source = '''
def bare(a: NDArray[Any]) -> float:
    """Return it."""
def whole(a: NDArray[Any]) -> float:
    """Return it of (n, 3) Å."""
def half(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return (n,) eV.

    Parameters
    ----------
    a
        (n, 3) Å.
    b
        Of the atoms.
    """
class Thing:
    def method(self) -> FloatArray:
        """(n,) of something."""
    def _private(self) -> FloatArray:
        pass
'''
    assert list(silent(Module("thing.py", source))) == [
        "thing.py:2: bare says no shape of a, no unit of a",
        "thing.py:6: half says no shape of b, no unit of b",
        "thing.py:17: Thing.method says no unit of return",
    ]


def test_no_property_of_the_site_reads_as_a_type():
    """Napoleon takes what is before a colon in the first line of a property for its type."""
    for module in modules_of(PACKAGE):
        if module.path not in {"records.py", "views.py", "frames.py"}:
            continue
        for name, function in public_functions(module):
            if any(ast.unparse(one) == "property" for one in function.decorator_list):
                first = (ast.get_docstring(function) or "").partition("\n")[0]
                assert ": " not in first, f"{module.path}: {name}: {first}"
