"""The site: Sphinx over the guides of this repository.

    .venv/bin/pip install -c constraints.txt -e '.[docs]'
    .venv/bin/sphinx-build -W --keep-going -b html docs docs/_build/html

A guide that stands outside of docs/ (params/README.md ...) is a page of docs/ that includes it. Its links are written
for the place where it stands; :func:`place_guides` turns them into links of the site.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pygments.lexers.special import TextLexer

import activelearn
from activelearn.config import Campaign, Machine

sys.path.insert(0, str(Path(__file__).resolve().parent))
from schema_tables import tables_of

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
INCLUDED = re.compile(r"^```\{include\} (\S+)\n```$", re.MULTILINE)
#: How autodoc writes the alias of an array.
ALIAS = re.compile(r"TypeAliasForwardRef\('(\w+)'\)")
KEYS = re.compile(r"^```\{keys\} (\w+)\n```$", re.MULTILINE)
DOCUMENTS = {"Campaign": Campaign, "Machine": Machine}
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(#[^)\s]*)?\)")
#: The page of each guide that stands elsewhere.
PAGES = {
    (DOCS / guide).resolve(): page
    for page in sorted(DOCS.glob("*.md"))
    for guide in INCLUDED.findall(page.read_text(encoding="utf-8"))
}

project = "activelearn"
author = "the activelearn developers"
project_copyright = author
version = release = activelearn.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build", "jupyter_execute"]
nitpicky = True
# What other packages document (no inventory is downloaded), modules, aliases of typing, and what is not public.
nitpick_ignore_regex = [
    ("py:.*", r"(?!activelearn\.).*"),
    ("py:mod", ".*"),
    ("py:.*", r"activelearn\.(load|open|run)"),
    ("py:.*", r"activelearn\..*\.(S|Settings|FloatArray|IntArray|Row)"),
    ("py:class", r"activelearn\.(store\.\w+\.\w*Store|config\.(campaign\.Campaign|study\.Study|training\.Train))"),
]

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "fieldlist"]
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True
nb_output_stderr = "warn"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_type_aliases = {name: name for name in ("FloatArray", "IntArray", "BoolArray", "Vectors")}
napoleon_google_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"activelearn {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
copybutton_exclude = ".linenos, .gp, .go"


def place_guides(_: Sphinx, page: str, source: list[str]) -> None:
    """Put a guide in the place of its name, and lead every link of a page to the page of what it names."""
    folder = (DOCS / page).parent

    def rewritten(text: str, written_in: Path) -> str:
        def link(found: re.Match[str]) -> str:
            target = (written_in / found[1]).resolve()
            return f"]({os.path.relpath(PAGES.get(target, target), folder)}{found[2] or ''})"

        return LINK.sub(link, text)

    def guide(found: re.Match[str]) -> str:
        path = (DOCS / found[1]).resolve()
        return rewritten(path.read_text(encoding="utf-8"), path.parent)

    def keys(found: re.Match[str]) -> str:
        return tables_of(DOCUMENTS[found[1]].model_json_schema(), found[1].lower())

    source[0] = KEYS.sub(keys, INCLUDED.sub(guide, rewritten(source[0], folder)))


def shorten(*found: Any) -> tuple[str | None, str | None]:  # noqa: ANN401 - of Sphinx
    """Return a signature and what it returns, with the arrays as they are written."""
    return tuple(None if one is None else ALIAS.sub(r"\1", one) for one in found[-2:])


def describe_fields(_: Sphinx, kind: str, __: str, thing: object, ___: object, lines: list[str]) -> None:
    """Say what the fields of a record are: their descriptions are no part of the docstring."""
    if kind != "class" or not isinstance(thing, type) or not issubclass(thing, BaseModel):
        return
    said = {name: field.description for name, field in thing.model_fields.items() if field.description}
    lines.extend(["", *(f":param {name}: {text.replace('|', chr(92) + '|')}" for name, text in said.items()), ""])


def setup(app: Sphinx) -> None:
    """Connect what is ours."""
    app.connect("source-read", place_guides)
    app.connect("autodoc-process-docstring", describe_fields, priority=600)  # after napoleon
    app.connect("autodoc-process-signature", shorten)
    app.add_lexer("csv", TextLexer)
