"""The page: whole, escaped, bound to itself; of folders made up, and of real ones of earlier versions."""

import base64
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import seen_folders as made
from ase.build import bulk
from ase.calculators.emt import EMT
from campaigns import TINY, cli, in_process, machine_file
from typer.testing import CliRunner

from activelearn import page
from activelearn.cli import app, say_page
from activelearn.config import Machine
from activelearn.frames import Frames, make_origin
from activelearn.page import document, products, shots, svg
from activelearn.page.landscape import ORIGINS, landscape_of, principal
from activelearn.page.markup import Html, Numbers, joined, table, tag
from activelearn.page.pictures import costs, errors, exploration, glasses, structures, training
from activelearn.page.shots import Shot
from activelearn.records import Curve
from activelearn.store import Store
from activelearn.workflow import firetasks

FOLDERS = Path(__file__).resolve().parent / "data" / "folders"
#: What a name must not become.
MARKUP = "<script>alert('1')</script><img src=x onerror=alert(2)>\"'&<b>"


class Read(HTMLParser):
    """Elements and their attributes; whether every one that is opened is closed in its turn."""

    VOID = ("meta", "br", "hr", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.wrong, self.data = [], [], [], []
        self.feed(text)

    def handle_starttag(self, name, attributes):
        self.found.append((name, dict(attributes)))
        if name not in self.VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        if not self.open or self.open.pop() != name:
            self.wrong.append(name)

    def handle_data(self, data):
        self.data.append(data)

    def named(self, name):
        return [attributes for found, attributes in self.found if found == name]


def written(seen, folder="runs/made-up", **bounds):
    return document.page(seen, Path(folder), bounds or None)


@pytest.fixture(scope="module")
def whole():
    return written(made.everything())


def unpacked(name, folder):
    with tarfile.open(FOLDERS / name) as archive:
        archive.extractall(folder, filter="data")
    return next(path for path in folder.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """A real campaign with its study, of an earlier version."""
    return unpacked("49996e5-quickstart.tar.gz", tmp_path_factory.mktemp("old"))


# --- what stands in it ------------------------------------------------------------------------------------------------


def test_the_page_is_whole(whole):
    read = Read(whole)
    assert (read.wrong, read.open) == ([], [])
    ids = [attributes["id"] for _, attributes in read.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [a["href"] for a in read.named("a")]
    assert {link.removeprefix("#") for link in links} <= set(ids), "every link leads to a section"
    assert whole.startswith("<!DOCTYPE html>")
    assert read.named("html") == [{"lang": "en"}]


def test_the_verdict_comes_first_then_what_to_do_then_findings(whole):
    text = re.sub(r"<style>.*?</style>|<script>.*?</script>|<[^>]+>", " ", whole, flags=re.DOTALL)
    parts = ["campaign made up", "Converged:", "findings below", "Next:", "Findings (", "0.4 eV/Å, f_hi", "by pass and"]
    where = [text.index(part) for part in parts]
    assert where == sorted(where)
    assert "or use a larger net" in text[where[3] : where[4]], "the gravest finding says what to do next"


def test_a_campaign_that_goes_on_says_what_comes_next():
    seen = made.of_campaign(made.record(0), next_phase="iteration 1")
    text = written(seen)
    assert "Not finished: iteration 1 comes next." in text
    assert "activelearn run made-up/campaign/000.yaml --folder made-up" in text


def test_a_campaign_with_no_iteration_closed_has_a_page():
    text = written(made.of_campaign(next_phase="iteration 0"))
    assert "No exploration pass has finished yet" in text
    assert Read(text).wrong == []


def test_what_could_not_be_read_is_named():
    text = written(replace(made.everything(), unread=("learning curves: train/member-0.npz: damaged",)))
    assert "Could not be read" in text
    assert "learning curves: train/member-0.npz: damaged" in text


def test_a_bound_that_was_set_stands_in_the_page():
    bounds = page.findings.bounds_of(["held_out_p99=5"], page.findings.RULES)
    text = written(made.everything(), **bounds)
    assert "is at least 5 f_hi" in text
    assert not [one for one in page.findings_of(made.everything(), bounds) if one.rule.key == "held_out_p99"]


def test_every_column_of_numbers_has_a_unit_or_is_a_count(whole):
    bare = {
        *("iteration", "cell", "walks", "frames", "out of region", "member", "steps", "step", "tasks", "row"),
        *("tasks at a time", "atoms", "n", "value", "± (standard error)", "cited", "± (cited)", "refused"),
        *("initial data", "from the window", "rescued", "held out", "training frames, all so far"),
    }
    figures = all_figures(made.everything())
    tables = [figure.numbers for figure in figures if figure.numbers is not None]
    tables += [exploration.counts_table(made.everything().campaign), errors.errors_table(made.everything().campaign)]
    for numbers in tables:
        for k, name in enumerate(numbers.columns):
            is_number = any(isinstance(row[k], int | float) for row in numbers.rows)
            assert not is_number or name in bare or re.search(r"\(.+\)$", name), (numbers.name, name)


def all_figures(seen):
    found = [figure for one in (exploration, errors, training, costs) for figure in one.figures(seen.campaign)]
    return found + [figure for study in seen.studies for figure in glasses.figures(study)]


def test_every_picture_says_in_words_what_it_shows():
    figures = all_figures(made.everything())
    assert {figure.name for figure in figures} >= {
        *("matrix-candidate", "matrix-failed", "deviations", "held-out", "calibration", "parity", "learning-train"),
        *("dataset", "time", "path-toy-0"),
    }
    for figure in figures:
        read = Read(figure.html())
        (drawn,) = read.named("svg")
        assert drawn["role"] == "img"
        assert "<title>" in figure.picture.split(">", 1)[1][:10], figure.name
        assert figure.caption


def test_a_heat_map_tells_of_each_square_what_it_is():
    figure = next(iter(exploration.figures(made.everything().campaign)))
    assert "iteration 1, warm 300K: 23.08 % (30 of 130 frames, 4 walks)" in html.unescape(figure.picture)


def test_numbers_of_a_scoreboard_have_interval_source_and_stamp():
    numbers = glasses.results_table(made.everything().studies[0])
    row = dict(zip(numbers.columns, numbers.rows[0], strict=True))
    assert (row["value"], row["± (standard error)"], row["unit"]) == (2.0, 0.02, "g/cm3")
    assert (row["cited"], row["source"], row["interval"]) == (2.2, "A. Author, 2020", "standard error of 3 replicas")


def test_lines_of_a_scoreboard_are_drawn_with_their_stamps():
    x = np.linspace(0.5, 5.0, 10)
    curve = Curve(key="rdf/a", name="rdf", label="P-S", x_name="r (Å)", y_name="g(r)", condition={"potential": "toy"},
                  stamp="UNTRUSTED: made up")  # fmt: skip
    study = made.of_study(board=made.board(curves=(curve,)), curves={"rdf/a/x": x, "rdf/a/y": x**2}).studies[0]
    (figure,) = glasses.figures(study)
    assert "UNTRUSTED: made up" in figure.caption
    assert len(figure.numbers.rows) == 10


# --- nothing from outside, nothing that runs --------------------------------------------------------------------------


def test_nothing_of_the_page_comes_from_elsewhere(whole):
    read = Read(whole)
    assert {name for name, _ in read.found} & {"link", "iframe", "object", "embed", "img", "base", "form"} == set()
    named = [value for _, a in read.found for key, value in a.items() if key in {"href", "src", "action", "xlink:href"}]
    assert all(value.startswith("#") for value in named)
    style, script = (re.search(rf"<{name}>(.*?)</{name}>", whole, flags=re.DOTALL)[1] for name in ("style", "script"))
    assert "@import" not in style
    assert not re.search(r"url\(|expression\(", style)
    assert not re.search(r"\beval\b|new Function|fetch\(|XMLHttpRequest|innerHTML|import\(|WebSocket", script)


def test_the_policy_lets_only_our_own_style_and_script_work(whole):
    read = Read(whole)
    (policy,) = (a["content"] for a in read.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in policy
    assert "http" not in policy
    for name in ("style", "script"):
        (text,) = re.findall(rf"<{name}>(.*?)</{name}>", whole, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[f"{name}-src"] == f"'sha256-{digest}'"


def test_no_element_has_a_style_or_a_handler_of_its_own(whole):
    """The policy forbids both: a browser would leave them out."""
    keys = [key for _, attributes in Read(whole).found for key in attributes]
    assert not [key for key in keys if key == "style" or key.startswith("on")]


def test_names_with_markup_are_text():
    seen = made.everything(name=MARKUP, stage=MARKUP)
    study = replace(
        seen.studies[0],
        name=MARKUP,
        glasses=(made.glass(id=MARKUP, potential=MARKUP, ended=MARKUP), made.glass(1, formula="Na3PS4")),
        board=made.board(made.result(name=MARKUP, note=MARKUP, condition={"pair": MARKUP}), problems=(MARKUP,)),
    )
    seen = replace(seen, studies=(study,), unread=(MARKUP,))
    text = written(seen, f"runs/{MARKUP.replace('/', '')}")
    read = Read(text)
    assert read.wrong == []
    assert len(read.named("script")) == 1, "our own"
    assert read.named("img") == []
    assert not [key for _, attributes in read.found for key in attributes if key.startswith("on")]
    assert MARKUP in "".join(read.data), "and is shown as it was written"


def test_attributes_are_escaped():
    assert tag("a", 'x < "y"', href='"><script>', hidden=False, class_="b") == (
        '<a href="&quot;&gt;&lt;script&gt;" class="b">x &lt; "y"</a>'
    )
    assert joined(Html("<b>"), ["<", 1, 2.50001], None) == "<b>&lt;12.5"


def test_a_table_keeps_numbers_to_be_sorted_by():
    text = table(Numbers("toy", ("what", "value (eV)"), [("a<b", 1.23456789), ("none", None), ("n", 12345)]))
    assert '<td class="n" data-v="1.23456789">1.235</td>' in text
    assert "<td>a&lt;b</td>" in text
    assert 'data-v="12345">12\u202f345<' in text


# --- drawing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), (-3.0, 9.0, [-2.0, 0.0, 2.0, 4.0, 6.0, 8.0]), (5.0, 5.0, [5.0])],
)
def test_ticks_are_round_numbers(low, high, ticks):
    assert svg.nice_ticks(low, high) == pytest.approx(ticks)


def test_there_is_no_iteration_one_and_a_half():
    assert svg.Axis("iteration", -0.3, 2.3).ticks == [0.0, 1.0, 2.0]


def test_an_end_of_the_window_that_is_beyond_the_axis_is_not_drawn_at_its_edge():
    plot = svg.Plot(svg.Axis("x", 0.0, 1.0), svg.Axis("y", 0.0, 0.3), "toy")
    plot.window(0.15, 0.35, along="y")
    drawn = plot.svg()
    assert ("f_lo" in drawn, "f_hi" in drawn) == (True, False)
    plot.window(0.5, 0.7, along="y")
    assert drawn.count("<rect") == plot.svg().count("<rect"), "nothing of it is in sight"


def test_ticks_of_a_logarithmic_axis_are_powers_of_ten():
    assert svg.log_ticks(0.01, 10.0) == pytest.approx([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0])
    assert svg.log_ticks(1e-6, 1.0) == pytest.approx([10.0**p for p in range(-6, 1)])


def test_a_point_that_is_no_number_is_not_drawn():
    """The P99 of a record of an earlier version is NaN: it would lie on the axis, as an error of zero."""
    plot = svg.Plot(svg.Axis("x", 0.0, 2.0), svg.Axis("y", 0.0, 1.0), "errors")
    plot.points(np.array([0.0, 1.0, 2.0]), np.array([0.5, np.nan, 0.25]), "f0", ["a", "b", "c"])
    assert [told for told in "abc" if f"<title>{told}</title>" in plot.svg()] == ["a", "c"]
    log = svg.Plot(svg.Axis("x", 0.0, 2.0), svg.Axis("y", 0.1, 1.0, is_log=True), "errors")
    log.points(np.array([0.0, 1.0]), np.array([0.5, 0.0]), "f0", ["a", "b"])
    assert "<title>b</title>" not in log.svg()


@pytest.mark.parametrize(
    ("value", "label"),
    [(150_000.0, "1.5e5"), (250_000.0, "2.5e5"), (4e6, "4e6"), (50_000.0, "50000"), (2.5e-4, "2.5e-4"), (0.0, "0"),
     (-3e6, "-3e6"), (1.225e6, "1.225e6"), (0.02, "0.02")],
)  # fmt: skip
def test_a_tick_is_labelled_with_its_value(value, label):
    assert svg.compact(value) == label
    assert float(label) == value


def test_a_value_is_where_its_share_of_the_axis_is():
    axes = svg.Axis("x", 0.0, 10.0), svg.Axis("y", 0.01, 1.0, is_log=True)
    plot = svg.Plot(*axes, "toy", width=100 + 84, height=100 + 58)
    assert plot.px(np.array([0.0, 5.0, 10.0])).tolist() == pytest.approx([70.0, 120.0, 170.0])
    assert plot.py(np.array([0.01, 0.1, 1.0])).tolist() == pytest.approx([112.0, 62.0, 12.0])


def test_numbers_that_are_none_break_a_line_and_no_page():
    plot = svg.Plot(svg.Axis("x", 0.0, 3.0), svg.Axis("y", 0.0, 1.0), "toy")
    plot.line(np.arange(4.0), np.array([0.5, np.nan, 0.5, np.inf]), "c0")
    assert len(re.findall("M", plot.parts[0])) == 2
    assert "nan" not in plot.svg()
    assert "inf" not in plot.svg()
    assert svg.axis_of("empty", [np.array([np.nan])]).high == 1.0


# --- what is read of products -----------------------------------------------------------------------------------------


def strained(factor=1.0):
    """Copper at five sizes, rattled, labelled by EMT; virials are true ones times a factor."""
    rng = np.random.default_rng(2)
    images = []
    for scale in (0.98, 0.99, 1.0, 1.01, 1.02):
        atoms = bulk("Cu", cubic=True, a=3.7) * (2, 1, 1)
        atoms.set_cell(atoms.cell[:] * scale, scale_atoms=True)
        atoms.positions += rng.normal(0.0, 0.01, atoms.positions.shape)
        atoms.calc = EMT()
        atoms.get_forces()
        atoms.get_stress()
        images.append(atoms)
    frames = replace(Frames.from_ase(images), origin=make_origin(len(images), walk="w"))
    return [replace(frames, virial=factor * frames.virial)]


@pytest.mark.parametrize(("factor", "slope"), [(1.0, 1.0), (2.0, 0.5), (-1.0, -1.0)])
def test_the_energy_tells_whether_the_virial_is_right(factor, slope):
    found = products.slope_of(strained(factor))
    assert found.value == pytest.approx(slope, abs=0.05 * abs(slope))
    assert found.n_pairs == 10


def test_without_strain_there_is_nothing_to_compare():
    parts = strained()
    assert products.slope_of([part[:1] for part in parts]) is None
    later = replace(parts[0], origin=make_origin(5, walk="w", step=np.arange(1, 6)))
    assert products.slope_of([later]) is None, "frames on the way are of another structure"


def test_a_real_campaign_is_read_in_full(quickstart):
    seen = page.look(quickstart)
    campaign = seen.campaign
    assert seen.unread == ()
    assert campaign.end.converged
    assert {one.kind for one in campaign.fill} == {"Na", "P", "S"}
    assert all(0 < one.most <= one.room for one in campaign.fill)
    walked = campaign.records[-1].selection
    last = [one for one in campaign.deviations if one.iteration == campaign.records[-1].index]
    assert sum(int(one.counts.sum()) for one in last) == walked.counts.in_region
    assert len(campaign.curves) == len(campaign.records[-1].ensemble.members)
    (study,) = seen.studies
    assert set(study.paths) == {glass.id for glass in study.glasses}


@pytest.mark.engines
def test_the_forces_of_labelled_frames_are_those_of_the_calibration(undisturbed):
    """The largest error of a frame is what its record has of it."""
    store = Store(undisturbed[0].folder)
    records = store.iterations()
    found = products.residual_of(store, records)
    record = next(r for r in records if r.index == found.iteration)
    n = len(store.training(found.iteration)[0].symbols)
    error = np.linalg.norm(found.model - found.reference, axis=1).reshape(-1, n).max(axis=1)
    assert sorted(error.round(4)) == pytest.approx(sorted(e for _, e in record.labelling.calibration), abs=2e-4)


def test_a_real_data_set_is_seen_in_the_plane_with_what_it_starts_from(quickstart):
    seen = page.look(quickstart).campaign
    found, last = seen.landscape, seen.records[-1].labelling
    assert found.n_frames == last.dataset_frames + sum(r.labelling.held_out for r in seen.records)
    by_origin = dict(zip(ORIGINS, np.bincount(found.origin, minlength=len(ORIGINS)).tolist(), strict=True))
    assert by_origin["held out"] == sum(r.labelling.held_out for r in seen.records)
    assert by_origin["initial data"] > 0
    assert found.shares[0] >= found.shares[1] > 0.0
    assert found.at.mean(axis=0) == pytest.approx([0.0, 0.0], abs=1e-9)
    (start,) = seen.starts
    assert start.frame.formula in start.said
    assert len(start.frame) == 1


@pytest.mark.parametrize(("own", "origin"), [(None, "rescued"), (8.0, "from the window")])
def test_a_frame_is_rescued_by_the_window_of_the_stage_that_walked_it(quickstart, monkeypatch, own, origin):
    """Its deviation is 6 eV/Å, and the pass was judged by 5 eV/Å; the stage may have its own f_hi."""
    store = Store.open(quickstart)
    first, walked = store.iterations()[:2]
    walked = walked.model_copy(update={"labelling": walked.labelling.model_copy(update={"labelled": 1})})
    initial, walk = store.training(0), store.plan("explore", 1).tasks[0]
    found = initial[0][:1].origin.copy()
    found["walk"], found["max_devi_f"] = walk.id, 6.0
    frames = [replace(initial[0][:1], origin=found)]
    campaign = store.campaign(1)
    stages = tuple(
        one.model_copy(update={"f_hi": own if one.name == walk.parameters["stage"] else one.f_hi})
        for one in campaign.explore.stages
    )
    asked = campaign.model_copy(update={"explore": campaign.explore.model_copy(update={"stages": stages})})
    monkeypatch.setattr(store, "training", lambda k: frames if k else initial)
    monkeypatch.setattr(store, "campaign", lambda _: asked)
    drawn = landscape_of(store, asked, (first, walked))
    assert [ORIGINS[k] for k in drawn.origin[drawn.iteration == 1]] == [origin]


def test_frames_that_were_chosen_and_not_added_are_shown_with_the_reason(quickstart, monkeypatch):
    store = Store.open(quickstart)
    assert shots.refused_of(store, store.iterations()) == ()
    record = store.iterations()[0]
    refused = record.model_copy(update={"labelling": record.labelling.model_copy(update={"refused": {"force": 1}})})
    gone = store.training(0)[0][:1]
    whole_set = store.training(0)
    monkeypatch.setattr(store, "training", lambda _: [whole_set[0][1:], *whole_set[1:]])
    settings = store.campaign(0).label.model_copy(update={"max_force": 1e-6})
    monkeypatch.setattr(store, "campaign", lambda _: store.latest_campaign().model_copy(update={"label": settings}))
    (one,) = shots.refused_of(store, [refused])
    assert one.frame.positions == pytest.approx(gone.positions)
    assert one.said == f"{gone.formula}, {gone.n_atoms} atoms: force above 1e-06 eV/Å"
    assert one.name == f"iteration 0, {gone.origin['walk'][0]}, step {gone.origin['step'][0]}"


def test_principal_components_are_those_of_the_largest_variance():
    rng = np.random.default_rng(1)
    plane = rng.normal(size=(200, 2)) * [5.0, 2.0]
    axes = np.linalg.qr(rng.normal(size=(30, 30)))[0][:2]
    at, (first, second) = principal(plane @ axes + 7.0)
    assert np.abs(np.corrcoef(at[:, 0], plane[:, 0])[0, 1]) == pytest.approx(1.0, abs=0.02)
    assert first + second == pytest.approx(1.0)
    assert first == pytest.approx(25 / 29, abs=0.05)
    assert principal(np.ones((4, 30)))[1] == (0.0, 0.0), "all alike"


def test_units_across_the_walls_of_a_cell_are_drawn_whole():
    """A tetrahedron at a corner: its three anions beyond the walls are drawn where they belong."""
    bond = 2.05 / np.sqrt(3.0)
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * bond
    positions = np.concatenate([np.zeros((1, 3)), corners])
    frame = Frames(("P", *"SSSS"), 9.0 * np.eye(3)[None], positions[None])
    (data,) = json.loads(
        html.unescape(re.search(r'data-shots="([^"]*)"', structures.turned([Shot("a", "b", frame)]))[1])
    )
    at = np.array(data["at"]).reshape(-1, 3)
    bonds = np.array(data["bonds"]).reshape(-1, 2)
    assert len(bonds) == 4
    assert {data["kinds"][data["kind"][k]]["name"] for k in bonds[:, 0]} == {"P"}
    assert np.linalg.norm(at[bonds[:, 1]] - at[bonds[:, 0]], axis=1) == pytest.approx(2.05, abs=0.02)
    assert [data["of"][k] for k in range(5)] == [0, 1, 2, 3, 4]
    assert sorted(data["of"][5:]) == [2, 3, 4]


def test_what_draws_structures_is_what_npm_ships():
    kept = Path(document.__file__).parent / document.VIEWER
    found = hashlib.sha256(kept.read_bytes()).hexdigest()
    assert found == "f7cc78921ae72e7623e89cdd111434f58c2efddd2ffda1cd212644b406fb8016", (
        "3dmol 2.5.5, build/3Dmol-min.js"
    )
    assert "BSD-3-Clause" in (kept.parent / "3Dmol-LICENSE.txt").read_text(encoding="utf-8")
    assert "</script" not in kept.read_text(encoding="utf-8").lower(), "it may stand in a page as it is"


def test_without_that_file_a_page_is_written_all_the_same(monkeypatch):
    frame = Frames(("Cu",), 9.0 * np.eye(3)[None], np.zeros((1, 1, 3)))
    seen = replace(made.everything(), campaign=replace(made.everything().campaign, starts=(Shot("a", "b", frame),)))
    assert len(Read(written(seen)).named("script")) == 2
    monkeypatch.setattr(document, "VIEWER", "kept/none.js")
    assert len(Read(written(seen)).named("script")) == 1


def test_no_more_atoms_are_drawn_than_a_browser_turns():
    frame = Frames(("Cu",) * 5001, 99.0 * np.eye(3)[None], np.zeros((1, 5001, 3)))
    shot = Shot("large", "too large", frame)
    campaign = replace(made.everything().campaign, starts=(shot,), refused=())
    assert list(structures.of_data(campaign)) == []


def test_virials_are_compared_beside_energies_and_forces():
    x = np.linspace(-1.0, 1.0, 20)
    curves, arrays = [], {}
    for kind in ("force", "energy", "virial"):
        key = f"parity_{kind}-toy"
        curves.append(
            Curve(key=key, name=f"parity_{kind}", label="toy", x_name=f"reference: {kind} (eV/atom)",
                  y_name=f"potential: {kind} (eV/atom)", condition={"potential": "toy"})
        )  # fmt: skip
        arrays |= {f"{key}/x": x, f"{key}/y": x + 0.1}
    study = made.of_study(board=made.board(curves=tuple(curves)), curves=arrays).studies[0]
    titles = [figure.title for figure in glasses.figures(study)]
    assert titles == [f"{what} against the reference: toy" for what in ("Energies", "Forces", "Virials")]


def test_units_on_cooling_have_the_deviation_of_the_same_segment_below():
    temperature = np.linspace(1000.0, 300.0, 8)
    curve = Curve(key="e", name="evolution", label="P0", x_name="T (K)", y_name="share of P (%)",
                  condition={"potential": "toy", "x": 0.0, "segment": "glass"})  # fmt: skip
    arrays = {"e/x": temperature, "e/y": np.linspace(10.0, 60.0, 8)}
    seen = made.of_study(
        made.glass(0), paths={"toy-x0-r0": made.path()}, board=made.board(curves=(curve,)), curves=arrays
    )
    *_, figure = glasses.figures(seen.studies[0])
    assert "below: force deviation" in figure.caption
    assert "force deviation (eV/Å)" in figure.picture
    assert figure.picture.count("<circle") == 50, "the rows of the segment, and no others"


def test_a_damaged_product_costs_its_picture_and_no_page(quickstart, tmp_path):
    copy = tmp_path / "damaged"
    subprocess.run(["cp", "-r", str(quickstart), str(copy)], check=True)
    last = max(copy.glob("iter-*/train/products.zip"))
    last.write_bytes(last.read_bytes()[:1000])
    path, _ = page.write_page(copy)
    text = path.read_text(encoding="utf-8")
    assert "Could not be read" in text
    assert "learning curves: " in text
    assert "learning-train" not in text
    assert 'id="figure-held-out"' in text


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_writes_the_page_and_prints_the_findings(quickstart, tmp_path):
    before = sorted(path.name for path in quickstart.iterdir())
    done = in_process("report", quickstart, "--to", tmp_path / "page.html", "--bound", "held_out_few=1e6")
    assert done.returncode == 0, done.stderr
    assert "accuracy: held_out_few: " in done.stdout
    assert f"page: {tmp_path / 'page.html'}" in done.stdout
    assert Read((tmp_path / "page.html").read_text(encoding="utf-8")).wrong == []
    assert sorted(path.name for path in quickstart.iterdir()) == before, "nothing else is touched"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"], "and nothing is left beside it"


def test_a_study_has_a_page_of_its_own(tmp_path):
    folder = unpacked("3afdc58-study.tar.gz", tmp_path)
    done = in_process("report", folder)
    assert done.returncode == 0, done.stderr
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "glasses made" in text
    assert Read(text).wrong == []


def test_where_there_is_neither_campaign_nor_study_a_line_says_so(tmp_path):
    done = in_process("report", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path}: no campaign here - expected a campaign folder")


def test_it_is_small_and_quick(quickstart, tmp_path):
    begin = time.process_time()
    path, _ = page.write_page(quickstart, tmp_path / "page.html")
    assert time.process_time() - begin < 3.0
    assert path.stat().st_size < 5e6


def test_a_page_that_cannot_be_made_stops_no_run(quickstart, monkeypatch, capsys):
    monkeypatch.setattr(page, "page", lambda *_, **__: 1 / 0)
    say_page(quickstart, Machine())
    assert capsys.readouterr().out == f"no page of {quickstart.name}: division by zero\n"
    assert not (quickstart / "report.html").exists()
    say_page(quickstart, Machine(report=False))
    assert capsys.readouterr().out == "", "and none was requested"


@pytest.mark.parametrize("is_last", [True, False])
def test_a_submitted_campaign_ends_with_its_page(quickstart, tmp_path, monkeypatch, is_last):
    """The last Firework writes it; of a study of a campaign it is the campaign's."""
    folder = tmp_path / "campaign"
    shutil.copytree(quickstart, folder)
    (study,) = Store.open(folder).studies()
    phase = SimpleNamespace(store=study, name="study", close=lambda: None, following=lambda: None)
    monkeypatch.setattr(firetasks.Decide, "_is_shared", True)
    monkeypatch.setattr(firetasks.Decide, "launchpad", None, raising=False)
    monkeypatch.setattr(firetasks, "advance", lambda *_: not is_last)
    firetasks.Decide(folder=str(folder), iteration=2, part="study").act(phase, Machine())
    assert (folder / "report.html").is_file() is is_last
    assert not (study.folder / "report.html").exists()


def test_bounds_of_the_machine_profile_are_those_of_the_page(quickstart, tmp_path):
    folder = tmp_path / "campaign"
    shutil.copytree(quickstart, folder)
    profile = Machine(report={"bounds": {"held_out_few": 1.0, "folder_files": 3.0}})
    line = page.at_end(folder, profile)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "page: " in line
    assert "more than 3 files" in html.unescape(text)
    assert "fewer than 30 frames" not in html.unescape(text)
    Store.open(folder).save_machine(profile)
    assert page.bounds_in(folder)["folder_files"] == 3.0, "the command finds them in the folder"
    assert page.bounds_in(folder, ["folder_files=5"])["folder_files"] == 5.0
    (folder / "machine.yaml").write_text("of: another version\n")
    assert page.bounds_in(folder)["folder_files"] == 2000.0, "a profile that cannot be read costs no page"
    wrong = page.at_end(folder, Machine(report={"bounds": {"folder_fils": 3.0}}))
    assert wrong.startswith("no page of campaign: report.bounds.folder_fils of the machine profile: no finding")


def test_a_reader_never_sees_half_a_page(quickstart, tmp_path, monkeypatch):
    path, _ = page.write_page(quickstart, tmp_path / "page.html")
    before = path.read_text(encoding="utf-8")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(Exception, match="the disk is full"):
        page.write_page(quickstart, path)
    assert path.read_text(encoding="utf-8") == before
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]


def test_the_page_is_a_command_that_says_what_it_does():
    done = CliRunner().invoke(app, ["report", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert done.exit_code == 0
    assert "opens from disk" in done.output
    assert "--bound" in done.output


def test_help_and_import_cost_nothing_more():
    names = "[name for name in sys.modules if name.startswith('activelearn.page')]"
    code = f"import sys, json, activelearn.cli; print(json.dumps({names}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_a_campaign_of_the_size_of_a_paper_has_a_small_page_that_is_soon_written():
    """95 passes of 24 cells with 160 labels each: 15,200 of them."""
    rng = np.random.default_rng(0)
    heats = [float(t) for t in np.linspace(10, 2000, 12)]
    records = [made.record(0)]
    for k in range(1, 96):
        cells = [made.cell(s, t, accurate=400, candidate=int(rng.integers(9))) for s in ("nvt", "npt") for t in heats]
        pairs = tuple((float(d), float(3 * d)) for d in rng.uniform(0.1, 0.4, 160))
        walks = [made.walk(n) for n in range(200)]
        records.append(made.record(k, made.selection(k, *cells, walks=walks), calibration=pairs, labelled=160))
    seen = made.everything()
    seen = replace(seen, campaign=replace(seen.campaign, records=tuple(records)))
    begin = time.process_time()
    text = written(seen)
    assert time.process_time() - begin < 2.0
    assert len(text.encode()) < 3e6
    assert "1100 of 15200 are drawn" in text


@pytest.mark.engines
def test_a_run_ends_with_its_page_unless_the_machine_wants_none(ended, tmp_path):
    done = ended[1]
    assert done.returncode in {0, 3}, done.stderr
    assert "page: c/report.html; " in done.stdout
    folder = shutil.copytree(ended[0], tmp_path / "run")
    assert done.stdout.index("page: ") < done.stdout.index("next: "), "what to do next stands last"
    read = Read((folder / "report.html").read_text(encoding="utf-8"))
    assert read.wrong == []
    assert {"figure-matrix-candidate", "figure-held-out", "figure-learning-train", "figure-time"} <= {
        a["id"] for _, a in read.found if "id" in a
    }
    (folder / "report.html").unlink()
    silent = machine_file(tmp_path / "silent.yaml", slots=2, report=False)
    again = cli("run", TINY, "--folder", folder, "--machine", silent, cwd=tmp_path)
    assert again.returncode == done.returncode
    assert "page: " not in again.stdout
    assert not (folder / "report.html").exists()
