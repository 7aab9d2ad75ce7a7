"""The page at the end of what was submitted: by the last worker, harmless where it fails, none if none is asked for."""

import re

import pytest
from campaigns import tiny
from cluster.workers import LOGGED, Submitted, nearly_ended
from test_html_page import Read
from test_paths import SHORT

from activelearn import loop

pytestmark = [pytest.mark.needs_mongo, pytest.mark.timeout(600)]


def worked_off(ours):
    """Submit, and let one worker do what is left; return what it said."""
    done = ours.submit()
    assert done.returncode == 0, done.stderr
    assert ours.start_worker().wait(400) == 0, ours.said()
    assert loop.next_phase(ours.store) is None
    assert set(ours.states()) == {"COMPLETED"}, "a page is no reason for a Firework to fail"
    return ours.said()


@pytest.fixture(scope="module")
def whole(mongo, tmp_path_factory):
    """A campaign of one pass and its benchmark, from its beginning through one worker, and the page at its end."""
    ours = Submitted(tmp_path_factory.mktemp("whole"), mongo, slots=1)
    ours.campaign = tiny(ours.here / "tiny.yaml", **SHORT, label__reference=LOGGED, benchmark={"parity": {}})
    worked_off(ours)
    return ours, (ours.folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.engines
def test_the_last_worker_writes_the_page_of_the_whole_campaign(whole):
    _, text = whole
    read = Read(text)
    assert (read.wrong, read.open) == ([], [])
    there = {attributes["id"] for _, attributes in read.found if "id" in attributes}
    assert {"figure-matrix-candidate", "figure-held-out", "figure-learning-final", "figure-doubted"} <= there
    assert re.search("<b[^>]*>Stopped: </b>", text)
    assert "Could not be read" not in text


@pytest.mark.engines
def test_its_study_is_in_it_and_no_page_is_in_the_study(whole):
    ours, text = whole
    for kind in ("energy", "force", "virial"):
        assert re.search(rf'id="figure-parity-{kind}-', text), kind
    assert [path.parent for path in ours.folder.rglob("report.html")] == [ours.folder]


@pytest.mark.engines
def test_no_page_is_written_where_the_profile_says_so(undisturbed, mongo, tmp_path):
    ours = nearly_ended(undisturbed, mongo, tmp_path, report=False)
    worked_off(ours)
    assert list(ours.folder.rglob("report.html*")) == []


@pytest.mark.engines
def test_a_page_that_cannot_be_written_costs_a_line_and_nothing_else(undisturbed, mongo, tmp_path):
    """A folder stands where the page would."""
    ours = nearly_ended(undisturbed, mongo, tmp_path)
    (ours.folder / "report.html").mkdir()
    said = worked_off(ours)
    assert re.search(r"^no page of c: .*report\.html", said, flags=re.MULTILINE), said
    assert "Traceback" not in said
    assert [path.name for path in ours.folder.glob("*report.html*")] == ["report.html"], "nothing is left beside it"
