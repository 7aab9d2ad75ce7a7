"""The page as a browser shows it: from disk, offline, light and dark, on a phone and a large screen, by keyboard."""

import csv
import time
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
from activelearn.page import document
from activelearn.page.products import Worst
from activelearn.page.shots import Shot

TAB, RIGHT, ENTER = "\ue004", "\ue014", "\ue007"


def structure():
    rng = np.random.default_rng(3)
    return Frames(("P",) * 4 + ("S",) * 16 + ("Na",) * 12, 9.0 * np.eye(3)[None], 9.0 * rng.random((1, 32, 3)))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with everything, names with markup among it."""
    seen = made.everything(name="markup", stage=MARKUP)
    worst = Worst(structure(), np.linspace(0.0, 1.0, 32))
    shots = tuple(Shot(name, f"what {name} is", structure()) for name in ("first", MARKUP))
    campaign = replace(seen.campaign, residual=replace(made.residual(0.3), worst=worst), starts=shots, refused=shots)
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
    packed = (pixels * 255).round().astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    return float(pixels.mean()), len(np.unique(packed))


def test_it_opens_from_disk_without_a_complaint_or_a_request(shown, page):
    assert shown.run("return document.title") == "campaign markup - activelearn"
    assert shown.complaints() == [], "nothing was forbidden, nothing failed"
    assert set(shown.requests()) == {page.as_uri()}
    assert shown.run("return document.querySelectorAll('script').length") == 2, "ours, and 3Dmol.js"
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
    assert f"iteration 1, {MARKUP} 300K: 23.08 % (30 of 130 frames, 4 walks); accurate 76.92 %" in told


def test_it_is_used_by_keyboard_alone(shown):
    shown.press(TAB)
    assert shown.run("return document.activeElement.textContent") == "to the findings"
    shown.press(ENTER)
    assert shown.run("return location.hash") == "#findings"
    scrolled = "[...document.querySelectorAll('.scroll, canvas')]"
    assert shown.run(f"return {scrolled}.filter((e) => e.tabIndex < 0).length") == 0


DRAWN = {"solid": "#figure-worst .solid", "flat": "#figure-worst canvas[data-shots]"}


@pytest.fixture(scope="module")
def without_webgl(tmp_path_factory, page):
    try:
        with Browser(tmp_path_factory.mktemp("flat"), has_webgl=False) as found:
            found.size(1400, 1000)
            found.scheme("light")
            yield found
    except NoBrowser as missing:
        pytest.skip(str(missing))


@pytest.fixture(params=["solid", "flat"])
def structured(request, browser, page):
    """A browser with and without WebGL, the worst frame in the middle of its window, and how that is found."""
    found = browser if request.param == "solid" else request.getfixturevalue("without_webgl")
    found.size(1400, 1000)
    found.scheme("light")
    found.open(page)
    found.complaints()
    found.run("document.querySelector('#figure-worst').scrollIntoView({block: 'start', behavior: 'instant'})")
    found.wait(f"return Boolean(document.querySelector('{DRAWN[request.param]}')) && {SAID}")
    return found, DRAWN[request.param]


#: Whether the structure is drawn: numbers stand beside its bar of colours.
SAID = "document.querySelector('#figure-worst .bar text').textContent !== ''"


def test_a_structure_is_drawn_and_turns(structured, tmp_path):
    browser, drawn = structured
    browser.run(f"document.querySelector('{drawn}').focus()")
    pictures = [browser.picture(tmp_path / "0.png").read_bytes()]
    for k, keys in enumerate([(RIGHT, RIGHT, RIGHT), ("+",)], 1):
        browser.press(*keys)
        pictures.append(browser.picture(tmp_path / f"{k}.png").read_bytes())
    assert len(set(pictures)) == 3, "each key changes it"
    assert browser.complaints() == []
    _, n = colours(tmp_path / "0.png")
    assert n > 200, "shaded spheres"


def test_a_structure_tells_which_atom_is_under_the_pointer(structured):
    browser, drawn = structured
    box = browser.run(
        f"const b = document.querySelector('{drawn}').getBoundingClientRect(); return [b.x, b.y, b.width, b.height]"
    )
    told = set()
    for k in range(12):
        browser.point(int(box[0] + box[2] * (0.38 + 0.02 * k)), int(box[1] + box[3] / 2))
        time.sleep(0.1)  # it is told after some hovering
        told.add(browser.run("return document.querySelector('#figure-worst .told').textContent"))
    assert any(one.endswith("eV/Å") for one in told), told


def test_without_webgl_the_page_says_so(without_webgl, page):
    without_webgl.open(page)
    without_webgl.run("document.querySelector('#figure-worst').scrollIntoView({behavior: 'instant'})")
    without_webgl.wait(f"return {SAID}")
    assert "no WebGL 2" in without_webgl.run("return document.querySelector('#figure-worst').textContent")


def test_what_software_would_draw_too_slowly_is_drawn_in_two_dimensions(browser, tmp_path):
    rng = np.random.default_rng(4)
    large = Frames(("S",) * 301, 20.0 * np.eye(3)[None], 20.0 * rng.random((1, 301, 3)))
    seen = made.everything()
    path = tmp_path / "large.html"
    campaign = replace(seen.campaign, starts=(Shot("large", "301 atoms", large),))
    path.write_text(written(replace(seen, campaign=campaign)), encoding="utf-8")
    browser.open(path)
    browser.complaints()
    browser.run("document.querySelector('#figure-starts').scrollIntoView({behavior: 'instant'})")
    browser.wait("return document.querySelector('#figure-starts').textContent.includes('301 atoms.')")
    assert "no graphics card here: drawn in two dimensions" in browser.run("return document.body.textContent")
    assert browser.complaints() == []


def test_errors_have_a_bar_of_colours_with_their_unit(structured):
    browser, _ = structured
    numbers = browser.run("return [...document.querySelectorAll('#figure-worst .bar text')].map((t) => t.textContent)")
    assert numbers == ["0.00", "0.50", "1.00", "eV/Å"]


def test_one_of_several_structures_is_chosen_from_a_list(shown):
    shown.run("document.querySelector('#figure-starts').scrollIntoView({behavior: 'instant'})")
    shown.wait("return Boolean(document.querySelector('#figure-starts select'))")
    said = "return document.querySelector('#figure-starts .picture p').textContent"
    assert "what first is" in shown.run(said)
    shown.run(
        "const list = document.querySelector('#figure-starts select'); list.value = 1;"
        "list.dispatchEvent(new Event('change'))"
    )
    assert f"what {MARKUP} is" in shown.run(said)
    assert shown.complaints() == []


def test_the_background_of_a_structure_follows_the_theme(shown, tmp_path):
    shown.run("document.querySelector('#figure-worst').scrollIntoView({block: 'center', behavior: 'instant'})")
    shown.wait("return Boolean(document.querySelector('#figure-worst .solid canvas'))")
    bright, _ = colours(shown.picture(tmp_path / "light.png"))
    shown.scheme("dark")
    time.sleep(0.3)
    corner = "const b = document.querySelector('#figure-worst .solid').getBoundingClientRect(); return [b.x, b.y]"
    x, y = shown.run(corner)
    pixels = imread(shown.picture(tmp_path / "dark.png"))[..., :3]
    assert pixels[int(y) + 10, int(x) + 10].mean() < 0.3 < bright


def test_a_followed_page_loads_itself_again_and_keeps_its_theme(browser, tmp_path):
    path = tmp_path / "followed.html"
    path.write_text(document.page(made.everything(), Path("runs/made-up"), refresh_s=2.0), encoding="utf-8")
    browser.scheme("light")
    browser.open(path)
    browser.complaints()
    browser.run("window.before = true; document.querySelector('nav button').click()")
    browser.wait("return !window.before && document.readyState === 'complete'")
    assert browser.run("return document.documentElement.dataset.theme") == "dark"
    assert browser.complaints() == []


def test_it_prints_on_paper(shown):
    pdf = shown.devtools("Page.printToPDF", printBackground=True)["data"]
    assert len(pdf) > 20_000
    assert shown.complaints() == []


def test_structures_are_on_paper_whether_they_were_scrolled_to_or_not(shown):
    n = shown.run("return document.querySelectorAll('canvas[data-shots], .solid').length")
    shown.run("window.scrollTo(0, 0); window.dispatchEvent(new Event('beforeprint'))")
    inked = shown.run(
        """return [...document.querySelectorAll('canvas.paper')].map((paper) =>
             paper.getContext('2d').getImageData(0, 0, paper.width, paper.height).data.filter((v) => v).length)"""
    )
    assert len(inked) == n > 2
    assert min(inked) > 1000, "none is empty"
    shown.run("window.dispatchEvent(new Event('afterprint'))")
    assert shown.run("return document.querySelectorAll('canvas.paper').length") == 0
