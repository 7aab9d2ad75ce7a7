"""The page as a browser shows it: from disk, offline, light and dark, on a phone and a large screen, by keyboard."""

import csv
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import seen_folders as made
from browser import Browser, NoBrowser
from matplotlib.image import imread
from test_html_page import MARKUP, written

from activelearn.frames import Frames
from activelearn.page.products import Worst

TAB, RIGHT, ENTER = "\ue004", "\ue014", "\ue007"


def structure():
    rng = np.random.default_rng(3)
    return Frames(("P",) * 4 + ("S",) * 16 + ("Na",) * 12, 9.0 * np.eye(3)[None], 9.0 * rng.random((1, 32, 3)))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with everything, names with markup among it."""
    seen = made.everything(name="markup", stage=MARKUP)
    worst = Worst(structure(), np.linspace(0.0, 1.0, 32))
    campaign = replace(seen.campaign, residual=replace(made.residual(0.3), worst=worst))
    studies = (replace(seen.studies[0], ends={"toy-x0-r0": structure()}),)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(written(replace(seen, campaign=campaign, studies=studies)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    try:
        with Browser(tmp_path_factory.mktemp("browser")) as found:
            yield found
    except NoBrowser as missing:
        pytest.skip(str(missing))


@pytest.fixture
def shown(browser, page):
    """The page, freshly opened on a desktop."""
    browser.size(1400, 1000)
    browser.scheme("light")
    browser.open(page)
    browser.complaints()
    browser.requests()
    browser.open(page)
    return browser


def colours(path: Path):
    """How bright a picture is on average, and how many different colours it has."""
    pixels = imread(path)[..., :3]
    return float(pixels.mean()), len(np.unique((pixels.reshape(-1, 3) * 255).round(), axis=0))


def test_it_opens_from_disk_without_a_complaint_or_a_request(shown, page):
    assert shown.run("return document.title") == "campaign markup - activelearn"
    assert shown.complaints() == [], "nothing was forbidden, nothing failed"
    assert set(shown.requests()) == {page.as_uri()}
    assert shown.run("return document.querySelectorAll('script').length") == 1
    assert shown.run("return document.querySelectorAll('img').length") == 0


def test_the_policy_forbids_scripts_and_styles_that_are_not_ours(shown):
    shown.run(
        "const s = document.createElement('script'); s.textContent = 'window.bad = 1'; document.body.append(s);"
        "const t = document.createElement('style'); t.textContent = 'h1{display:none}'; document.head.append(t);"
    )
    assert shown.run("return window.bad") is None
    assert shown.run("return getComputedStyle(document.querySelector('h1')).display") == "block"
    assert len([line for line in shown.complaints() if "Content Security Policy" in line]) == 2


@pytest.mark.parametrize(("scheme", "is_bright"), [("light", True), ("dark", False)])
def test_it_is_light_or_dark_as_the_user_likes(shown, tmp_path, scheme, is_bright):
    shown.scheme(scheme)
    bright, n = colours(shown.picture(tmp_path / "seen.png"))
    assert (bright > 0.5) == is_bright
    assert n > 50, "it is not blank"
    shown.click("nav button")
    after, _ = colours(shown.picture(tmp_path / "after.png"))
    assert (after > 0.5) != is_bright, "the button turns it"


@pytest.mark.parametrize("width", [360, 800, 3840])
def test_nothing_sticks_out_at_the_side(shown, width):
    shown.size(width, 900)
    assert shown.run("return document.documentElement.scrollWidth") <= width
    every = "[...document.querySelectorAll('figure, .scroll, .findings li')]"
    assert shown.run(f"return Math.max(...{every}.map((e) => e.getBoundingClientRect().right))") <= width


def test_text_is_legible_on_a_phone_and_on_a_large_screen(shown):
    size = "return parseFloat(getComputedStyle(document.querySelector('.findings .what')).fontSize)"
    shown.size(360, 800)
    assert shown.run(size) >= 15
    shown.size(3840, 2000)
    assert shown.run(size) >= 24


def test_no_text_of_a_picture_is_cut_off(shown):
    cut = shown.run(
        """return [...document.querySelectorAll('.picture > svg')].flatMap((svg) => {
             const frame = svg.getBoundingClientRect();
             return [...svg.querySelectorAll('text')].filter((text) => {
               const box = text.getBoundingClientRect();
               const isOut = box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1;
               return box.width && isOut;
             }).map((text) => svg.querySelector('title').textContent + ': ' + text.textContent);
           })"""
    )
    assert [one for one in cut if MARKUP not in one] == []


def test_a_heading_sorts_its_table(shown):
    rows = "return [...document.querySelectorAll('table[data-name=matrix] tbody tr')].map((r) => r.cells[4].dataset.v)"
    shown.run("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    press = "document.querySelectorAll('table[data-name=matrix] th button')[4].click()"
    shown.run(press)
    up = [float(value) for value in shown.run(rows)]
    shown.run(press)
    down = [float(value) for value in shown.run(rows)]
    assert up == sorted(up)
    assert down == up[::-1]
    assert up[0] < up[-1]
    head = "return document.querySelectorAll('table[data-name=matrix] th')[4].getAttribute('aria-sort')"
    assert shown.run(head) == "descending"


def test_a_table_is_downloaded_as_csv_and_a_picture_as_svg(shown):
    shown.run("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    shown.run("document.querySelector('[aria-label=\"download matrix as CSV\"]').click()")
    with shown.downloaded("matrix.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0]["cell"] == f"{MARKUP} 300K"
    assert float(rows[0]["candidates (%)"]) == pytest.approx(100 * 30 / 130)
    shown.run("document.querySelector('[aria-label=\"download deviations as SVG\"]').click()")
    drawn = ET.parse(shown.downloaded("deviations.svg")).getroot()
    assert drawn.tag.endswith("svg")
    assert "--c0" in "".join(drawn.itertext()), "with its colours"
    assert shown.complaints() == []


def test_what_a_pointer_is_over_is_told(shown):
    told = shown.run("return [...document.querySelectorAll('svg g > title')].map((t) => t.textContent)")
    assert f"iteration 1, {MARKUP} 300K: 23.08 % (30 of 130 frames, 4 walks)" in told


def test_it_is_used_by_keyboard_alone(shown):
    shown.press(TAB)
    assert shown.run("return document.activeElement.textContent") == "to the findings"
    shown.press(ENTER)
    assert shown.run("return location.hash") == "#findings"
    scrolled = "[...document.querySelectorAll('.scroll, canvas')]"
    assert shown.run(f"return {scrolled}.filter((e) => e.tabIndex < 0).length") == 0


def canvas_of(browser):
    return browser.run("return document.querySelector('canvas').toDataURL()")


def test_a_structure_is_drawn_and_turns(shown, tmp_path):
    shown.run("document.querySelector('canvas').scrollIntoView({block: 'center', behavior: 'instant'})")
    shown.run("document.querySelector('canvas').focus()")
    before = canvas_of(shown)
    assert len(before) > 5000, "something is drawn"
    shown.press(RIGHT, RIGHT, RIGHT)
    turned = canvas_of(shown)
    assert turned != before
    shown.press("+")
    assert canvas_of(shown) != turned
    assert shown.complaints() == []


def test_a_structure_tells_which_atom_is_under_the_pointer(shown):
    shown.run("document.querySelector('canvas').scrollIntoView({block: 'center', behavior: 'instant'})")
    where = "const b = document.querySelector('canvas').getBoundingClientRect();"
    box = shown.run(f"{where} return [b.x, b.y, b.width, b.height]")
    told = set()
    for k in range(40):
        shown.point(int(box[0] + box[2] * (0.3 + 0.01 * k)), int(box[1] + box[3] / 2))
        told.add(shown.run("return document.querySelector('canvas').title"))
    assert any(one.endswith("eV/Å") for one in told), told


def test_it_prints_on_paper(shown):
    pdf = shown.devtools("Page.printToPDF", printBackground=True)["data"]
    assert len(pdf) > 20_000
