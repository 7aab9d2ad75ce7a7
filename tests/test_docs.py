"""The documents: their Python runs as it is, and links lead to existing files and anchors."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from campaigns import environment
from test_study import followed  # noqa: F401 - a fixture

from activelearn.config import Campaign

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "docs/notebooks/*.md", "params/**/*.md", "findings/*.md", "tests/**/README.md")
    for path in ROOT.glob(pattern)
)
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.md"))
#: A page of docs/ that shows a guide of another place: docs/conf.py.
INCLUDED = re.compile(r"^```\{include\} (\S+)\n```$", re.MULTILINE)
#: A file of the repository in code, such as `tests/test_docs.py`.
NAMED = re.compile(r"`((?:activelearn|docs|findings|params|seeds|tests)/[\w./-]+\.(?:py|md|sh|yaml))`")
#: What a notebook types into a shell.
SHELL = re.compile(r"^!(.*)$", re.MULTILINE)


def blocks(path):
    """The Python of a page, but for blocks marked ``no-run``."""
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_nothing_of_a_page_is_lost_on_the_site(page):
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    comments = [line for line in text.splitlines() if line.lstrip().startswith("%")]
    assert comments == [], "MyST leaves out lines that begin with %"
    above = ""
    for line in text.splitlines():
        if re.fullmatch(r"\|(?: *:?-+:? *\|)+", line):
            assert n_columns(above) == n_columns(line), f"no table: {above}"
        above = line


def n_columns(row):
    """How many cells a row of a table has."""
    return len(re.findall(r"(?<!\\)\|", row)) - 1


@pytest.mark.engines
def test_the_python_page_runs(followed, tmp_path, monkeypatch, capsys):  # noqa: F811 - the fixture
    shutil.copytree(followed[0].folder, tmp_path / "runs" / "quickstart")
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks(DOCS / "python.md")), {"__name__": "page"})  # our own page
    said = capsys.readouterr().out
    assert "candidate_share" in said
    assert "<campaign tiny_copper" in said


# --- notebooks --------------------------------------------------------------------------------------------------------


def script(notebook):
    """Return the cells of a notebook as a script; options of cells are left out."""
    cells = re.findall(
        r"^```\{code-cell\} python\n((?::[^\n]*\n)*)(.*?)^```", notebook.read_text(), re.MULTILINE | re.DOTALL
    )
    assert len(cells) == notebook.read_text().count("{code-cell}")
    shell = "import subprocess\nimport matplotlib\nmatplotlib.use('agg')\n"
    return shell + SHELL.sub(r"subprocess.run(r'\1', shell=True)", "\n".join(cell for _, cell in cells))


def executed(notebook):
    """Run the cells of a notebook one after another, in its folder, and return what they print."""
    done = subprocess.run(
        [sys.executable, "-u", "-c", script(notebook)],
        cwd=notebook.parent,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_campaign_is_read():
    said = executed(DOCS / "notebooks" / "read-a-campaign.md")
    assert "iteration 2: force RMSE" in said
    assert "0 converged: " in said


def test_a_glass_is_analysed_and_a_crystal_has_the_answer_that_is_known():
    said = executed(DOCS / "notebooks" / "analyse-a-glass.md")
    assert "'P0': [100.0], 'P1': [0.0], 'BS': [0.0], 'NBS': [100.0]" in said
    assert "first P-S peak at 2." in said


@pytest.mark.engines
def test_a_calculator_is_added_and_its_mistake_is_found():
    said = executed(DOCS / "notebooks" / "add-a-calculator.md")
    assert re.search(r"error: .*stress is 160 times.*GPa.*tried: the reference works", said, re.DOTALL)


def test_every_notebook_is_run():
    assert [path.name for path in NOTEBOOKS] == ["add-a-calculator.md", "analyse-a-glass.md", "read-a-campaign.md"]


# --- links ------------------------------------------------------------------------------------------------------------


def anchors(path):
    """Return what the headings of a page are called in links: as GitHub and the site make it."""
    text = path.read_text(encoding="utf-8")
    if guide := INCLUDED.search(text):
        return anchors(path.parent / guide[1])
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def links(path):
    """Yield the links of a page: file (or none, for the page itself) and anchor."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", text)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for target, anchor in links(path):
        file = Path(os.path.normpath(path.parent / target)) if target else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_of_the_repository_that_it_names_in_code_exist(path):
    assert [name for name in NAMED.findall(path.read_text(encoding="utf-8")) if not (ROOT / name).is_file()] == []


def test_links_of_the_web_are_secure():
    assert [path.name for path in PAGES if re.search(r"\]\(http://", path.read_text(encoding="utf-8"))] == []


def test_every_page_is_on_the_site():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    trees = "\n".join(re.findall(r"^```\{toctree\}\n(.*?)^```", index, re.MULTILINE | re.DOTALL))
    named = set(re.findall(r"^(?:.*<)?([\w/-]+)>?$", trees, re.MULTILINE))
    pages = {str(path.relative_to(DOCS).with_suffix("")) for path in [*DOCS.glob("*.md"), *NOTEBOOKS]} - {"index"}
    assert named == pages


def test_the_page_of_keys_has_a_row_for_each_key_of_a_campaign(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    from schema_tables import tables_of

    schema = Campaign.model_json_schema()
    text = tables_of(schema, "campaign")
    sections = [one for one in (schema, *schema["$defs"].values()) if "properties" in one]
    keys = {key for section in sections for key in section["properties"]}
    assert len(keys) > 150
    assert [key for key in keys if f"| `{key}` | " not in text] == []
    assert "| `n_walks` | integer > 0 | `2` | " in text[text.index("## `explore.stages`") :]
