"""The README says what is true: its commands are the ones of the project, and its pieces run."""

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from activelearn import __version__
from activelearn.cli import app
from activelearn.config import Reference, load_campaign, preset_names

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
INSTALL = "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e"
START = f"{INSTALL} '.[local]' && .venv/bin/activelearn run quickstart"
TEST = f"{INSTALL} '.[local,test]' && .venv/bin/pytest"


def blocks(language: str) -> list[str]:
    return [block.strip() for block in re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)]


def help_of(command: str) -> str:
    done = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert done.exit_code == 0
    return done.output


def test_the_two_set_up_commands_stand_word_for_word():
    assert blocks("bash").count(START) == 1
    assert blocks("bash").count(TEST) == 1


def test_ci_runs_the_second_command_in_its_own_words():
    assert TEST in (ROOT / ".ci" / "run").read_text()


def test_it_is_short_enough_to_be_read():
    assert len(README.splitlines()) <= 150


def test_the_preset_it_starts_is_there():
    assert "quickstart" in preset_names("campaign")
    assert load_campaign("quickstart").select.f_lo == 0.15
    assert load_campaign("quickstart").select.f_hi == 0.35


COMMANDS = "init|check|run|status|report|export|schema|seeds|glass|benchmark|finetune|machine|submit|doctor"


@pytest.mark.parametrize("command", sorted(set(re.findall(rf"activelearn ({COMMANDS})\b", README))))
def test_every_command_it_names_exists(command):
    assert help_of(command)


@pytest.mark.parametrize(
    "option", ["--accept-changes", "--refuse-infrastructure-failures", "--machine", "--slots", "--json", "--to"]
)
def test_every_option_it_names_exists(option):
    assert option in README
    assert any(option in help_of(command) for command in ("run", "status", "export", "schema"))


def test_its_reference_is_one_that_the_campaign_accepts():
    (text,) = blocks("yaml") or re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    Reference.model_validate(yaml.safe_load(text)["label"]["reference"])


def test_every_module_that_the_design_maps_exists():
    table = DESIGN[DESIGN.index("| module |") : DESIGN.index("A module imports only")]
    rows = [line for line in table.splitlines()[2:] if line.startswith("|")]
    first_column = [name for row in rows for name in re.findall(r"`([a-z]+)/?`", row.split("|")[1])]
    assert len(first_column) > 15
    for name in first_column:
        assert (ROOT / "activelearn" / f"{name}.py").is_file() or (ROOT / "activelearn" / name).is_dir(), name


def test_no_placeholder_is_left():
    assert "@" not in re.sub(r"\S+@\S+\.\S+", "", README)


def test_the_citation_is_of_this_version_and_names_both_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert [paper["year"] for paper in citation["references"]] == [2024, 2026]
    assert all(paper["journal"] and paper["authors"] for paper in citation["references"])
