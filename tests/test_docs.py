"""The documents: their Python runs as it stands, and what they link to is there."""

import os
import re
import shutil
from pathlib import Path

import pytest
from test_study import followed  # noqa: F401 - a fixture

DOCS = sorted((Path(__file__).resolve().parent.parent / "docs").glob("*.md"))


def blocks(path):
    """The Python of a page, but for blocks marked ``no-run``."""
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.engines
def test_the_python_page_runs(followed, tmp_path, monkeypatch, capsys):  # noqa: F811 - the fixture
    shutil.copytree(followed[0].folder, tmp_path / "runs" / "quickstart")
    monkeypatch.chdir(tmp_path)
    (page,) = (path for path in DOCS if path.name == "python.md")
    exec("\n".join(blocks(page)), {"__name__": "page"})  # our own page
    said = capsys.readouterr().out
    assert "candidate_share" in said
    assert "<campaign tiny_copper" in said


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        assert target.startswith("https://") or os.path.exists(path.parent / target), target  # noqa: PTH110 - with ..
