"""Every key of DP-GEN has its row: what becomes of it, and why. The list was fixed before the code that reads them."""

import re

import pytest
from campaigns import TESTS

from activelearn.exchange.dpgen.keys import Fate
from activelearn.exchange.dpgen.machine_keys import MACHINE
from activelearn.exchange.dpgen.param_keys import PARAM
from activelearn.exchange.dpgen.told import row_of, table_page

TABLES = {"param": PARAM, "machine": MACHINE}
LISTED = [
    tuple(line.split(maxsplit=1))
    for line in (TESTS / "data" / "dpgen" / "keys.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
PAGE = TESTS.parent / "docs" / "coming-from-dpgen.md"


@pytest.mark.parametrize("file", TABLES)
def test_every_key_of_the_list_has_a_row(file):
    keys = [key for name, key in LISTED if name == file]
    assert len(keys) > 70
    assert [key for key in keys if row_of(TABLES[file], key) is None] == []


@pytest.mark.parametrize("file", TABLES)
def test_every_row_is_about_a_key_of_the_list_and_is_reached(file):
    """A row hidden by an earlier one, or that no key has, would be believed and never used."""
    used = {id(row_of(TABLES[file], key)) for name, key in LISTED if name == file}
    assert [row.names for row in TABLES[file] if id(row) not in used] == []


@pytest.mark.parametrize("row", [*PARAM, *MACHINE], ids=lambda row: row.names[0])
def test_what_is_not_taken_as_it_is_has_a_reason(row):
    if row.fate in {Fate.CHANGED, Fate.REFUSED} or not row.ours:
        assert row.why
    if row.fate is Fate.TAKEN and not row.ours:
        assert row.why


def test_a_key_that_nobody_knows_has_no_row():
    assert row_of(PARAM, "fp_task_maximum") is None
    assert row_of(PARAM, "model_devi_jobs.colour") is None
    assert row_of(MACHINE, "train.resources.cpu_per_nodes") is None


@pytest.mark.parametrize("file", TABLES)
def test_the_page_has_the_table_as_the_code_has_it(file):
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"## `{file}.json`\n\n(.*?)\n(?:\n|$)", text, re.DOTALL)
    assert found is not None
    assert found[1] + "\n" == table_page(TABLES[file])
