"""Findings by folders on disk, written as a run writes them: what fires, and what does not."""

import pytest
import seen_folders as made
from test_findings import CASES, found

from activelearn import page
from activelearn.page.findings import RULES
from activelearn.page.seen import SeenCampaign

#: What follows from records alone. The rest follows from arrays of products and from studies (test_html_page.py).
FROM_RECORDS = {"campaign", "records", "end", "slots"}


def is_of_records(seen):
    plain = SeenCampaign(campaign=made.campaign())
    names = [name for name in vars(plain) if name not in FROM_RECORDS]
    return seen.campaign is not None and all(getattr(seen.campaign, name) == getattr(plain, name) for name in names)


RECORDED = [rule.key for rule in RULES if all(map(is_of_records, CASES[rule.key]))]


def test_most_rules_are_tried_by_folders():
    assert len(RECORDED) >= 20


@pytest.mark.parametrize("is_fired", [True, False], ids=["fires", "does-not"])
@pytest.mark.parametrize("key", RECORDED)
def test_a_folder_on_disk_has_the_findings_of_its_records(key, is_fired, tmp_path):
    seen = CASES[key][0 if is_fired else 1]
    read = page.look(made.folder_of(seen, tmp_path / "run"))
    assert [(one.what, one.number) for one in found(key, read)] == [(one.what, one.number) for one in found(key, seen)]
    assert bool(found(key, read)) is is_fired
    text = page.write_page(tmp_path / "run")[0].read_text(encoding="utf-8")
    assert (f"<code>{key}</code>" in text) is is_fired
