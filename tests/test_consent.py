"""Consent: at most N walks and labels are given up, whatever is killed or races; the record says which."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from activelearn.errors import ConfigError, StoreError
from activelearn.store.consent import Consent


@pytest.fixture
def consent(tmp_path):
    return Consent(tmp_path)


def test_without_consent_nothing_may_be_refused(consent):
    assert (consent.limit, consent.n_refused) == (0, 0)
    assert not consent.note("001-label-a")
    assert consent.refused == []
    assert "--refuse-infrastructure-failures N" in consent.next_step()


def test_so_many_tasks_may_be_refused_and_no_more(consent):
    consent.give(2, "at most 2")
    assert consent.note("001-label-a")
    assert consent.n_refused < consent.limit
    assert consent.note("002-explore-b")
    assert consent.n_refused == consent.limit
    assert not consent.note("002-explore-c")
    assert sorted(consent.refused) == ["001-label-a", "002-explore-b"]
    assert "2 walks and labels have been given up" in consent.next_step()
    assert "--refuse-infrastructure-failures 2 allows no more" in consent.next_step()


def test_the_consent_is_on_record_with_its_number_text_and_time(consent, tmp_path):
    consent.give(3, "by --refuse-infrastructure-failures 3")
    record = json.loads((tmp_path / "consent.json").read_text())
    assert (record["n"], record["text"]) == (3, "by --refuse-infrastructure-failures 3")
    assert record["time"] > 1.7e9


def test_a_later_run_may_raise_it_and_the_largest_number_counts(consent, tmp_path):
    for n, limit in ((2, 2), (5, 5), (3, 5), (5, 5), (7, 7)):
        consent.give(n, f"at most {n}")
        assert consent.limit == limit
    assert sorted(path.name for path in tmp_path.iterdir()) == ["consent-5.json", "consent-7.json", "consent.json"]
    assert json.loads((tmp_path / "consent.json").read_text())["n"] == 2, "what was said first stands"


def test_refusals_before_it_was_raised_count(consent):
    consent.give(1, "one")
    assert consent.note("a")
    consent.give(2, "two")
    assert consent.note("b")
    assert not consent.note("c")


def test_a_task_that_was_noted_before_a_kill_finds_its_place_again(consent, tmp_path):
    """Killed between the note and the product: the next run fails on the same task, and no second place is taken."""
    consent.give(1, "one")
    assert consent.note("001-label-a")
    again = Consent(tmp_path)
    assert again.note("001-label-a")
    assert again.n_refused == 1
    assert not again.note("001-label-b")


def test_workers_that_refuse_at_the_same_time_do_not_pass_the_limit(consent, tmp_path):
    consent.give(5, "five")
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda k: Consent(tmp_path).note(f"task-{k}"), range(40)))
    assert sum(given) == 5
    assert sorted(consent.refused) == sorted(f"task-{k}" for k, taken in enumerate(given) if taken)


def test_a_damaged_consent_is_not_taken_for_one(consent, tmp_path):
    (tmp_path / "consent.json").write_text("{")
    with pytest.raises(StoreError, match=r"consent\.json: damaged"):
        consent.note("a")


def test_unusual_numbers_are_accepted_once_and_by_value(consent):
    line, same = "a.b: 1 K - usual for a temperature: 2 K", "a.b: 1 K - in other words"
    assert consent.not_accepted([line]) == [line]
    with pytest.raises(ConfigError, match=r"unusual: a\.b: 1 K - .* add --accept-unusual"):
        consent.want_accepted([line], accept=False)
    consent.accept([])
    assert list(consent.folder.glob("unusual-*.json")) == []
    for _ in range(2):
        consent.accept([line])
    assert len(list(consent.folder.glob("unusual-*.json"))) == 1
    consent.want_accepted([line, same], accept=False)
    assert consent.not_accepted([line, "a.b: 1.1 K - x"]) == ["a.b: 1.1 K - x"]
    assert consent.limit == 0, "that is another consent"
