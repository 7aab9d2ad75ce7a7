"""Figures of a scoreboard: that they are there, not blank, named with units, and say what must not be hidden."""

import re
from collections import Counter

import numpy as np
import pytest
from boards import NMR, board_of, line
from matplotlib.image import imread

from activelearn.records import Scoreboard
from activelearn.report import write_figures
from activelearn.report.figures import against_x, bars, curves, sheet, words
from activelearn.report.figures.curves import arranged, ends

FAMILIES = {
    "density_moduli", "volume", "units_P", "defects_P", "bridging", "coordination", "chains", "chain_sizes_S",
    "conductivity-Na", "arrhenius", "crystals", "stress_strain", "parity_force", "parity_energy", "parity_virial",
    "rdf_CHGNet",
    "rdf_x0", "cooling_P_x0", "msd_Na_CHGNet", "msd_P_CHGNet", "map_P-displacement_CHGNet", "map_Na-paths_CHGNet",
    "map_Na-density_CHGNet",
}  # fmt: skip
#: Axes of pure numbers.
BARE = {"", "x", "g(r)", "anions around Na", "mean length of S chains", "S atoms in the chain"}


class Drawn(dict):
    """Sheets by the name of their file; `paths` as they were returned."""


def drawn(draw, monkeypatch):
    """Draw small, and keep the sheets."""
    found, finish = Drawn(), sheet.Sheet.finish

    def kept(self, path):
        found[path.stem] = self
        return finish(self, path)

    monkeypatch.setattr(sheet.Sheet, "finish", kept)
    monkeypatch.setattr(sheet, "DPI", 40)
    found.paths = list(draw())
    return found


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Two potentials, two compositions: every family."""
    with pytest.MonkeyPatch.context() as patch:
        return drawn(
            lambda: write_figures(*board_of(2, (0.0, 2.0), porous=True), tmp_path_factory.mktemp("series")), patch
        )


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """One potential, one composition."""
    made, arrays = board_of(1, (0.0,))
    folder = tmp_path_factory.mktemp("single")
    with pytest.MonkeyPatch.context() as patch:
        return drawn(lambda: [*against_x.write(made, folder), *bars.write(made, arrays, folder)], patch)


def texts(one):
    """The contents of a sheet apart from its panels, and their ink."""
    return {text.get_text(): text.get_color() for text in one.figure.texts}


def labels(one):
    """What the legend says."""
    return [text.get_text() for legend in one.figure.legends for text in legend.get_texts()]


# --- there, and to be seen --------------------------------------------------------------------------------------------


def test_every_family_is_drawn_and_no_file_is_written_twice(series):
    assert set(series) >= FAMILIES
    assert Counter(path.stem for path in series.paths).most_common(1)[0][1] == 1
    assert {path.stem for path in series.paths} == set(series)


def test_no_figure_is_blank(series, single):
    for path in [*series.paths, *single.paths]:
        assert imread(path)[..., :3].std() > 0.02, path.name


def test_a_curve_that_no_figure_was_made_for_is_drawn_with_its_own_axes(tmp_path, monkeypatch):
    board, arrays = board_of(1, (0.0, 2.0))
    lines = [
        line("bond_angles", "S-P-S", ("angle (deg)", "share (%)"), {"potential": p, "x": x}, ([80.0, 109.5], [1.0, x]))
        for p in board.potentials
        for x in (0.0, 2.0)
    ]
    board = board.model_copy(update={"curves": tuple(curve for curve, _ in lines)})
    for _, more in lines:
        arrays |= more
    found = drawn(lambda: curves.write(board, arrays, tmp_path), monkeypatch)
    assert set(found) == {"bond-angles_S-P-S"}
    one = found["bond-angles_S-P-S"]
    assert "bond angles, S-P-S" in one.title
    assert (one.panels[0].get_xlabel(), one.panels[0].get_ylabel()) == ("angle (deg)", "share (%)")
    assert labels(one) == ["x = 0 (UNTRUSTED)", "x = 2"]


def test_a_board_without_numbers_has_no_figures(tmp_path):
    empty = Scoreboard(study="s", potentials=("toy",), physics={}, versions={}, results=(), curves=())
    assert write_figures(empty, {}, tmp_path) == []


def test_every_panel_has_axes_with_units(series, single):
    for one in [*series.values(), *single.values()]:
        columns = one.shape[1]
        for k, axes in enumerate(one.panels[: one.n_used]):
            for name in (axes.get_xlabel(), axes.get_ylabel()):
                assert name in BARE or re.search(
                    r"\((%|K|Å|ps|GPa|eV/Å|eV/atom|S/cm|S K/cm|1/K|g/cm\$\^3\$|Å\$\^[23]\$)\)$", name
                ), name
            ticks = [tick.get_text() for tick in axes.get_xticklabels()]
            assert axes.get_xlabel() or any(ticks) or k + columns < one.n_used  # one below says it
        assert any(axes.get_ylabel() for axes in one.panels[: one.n_used])


def test_no_legend_covers_a_panel_and_none_runs_out_of_the_sheet(series, single):
    for name, one in {**series, **single}.items():
        box = one.figure.bbox
        panels = [axes.get_window_extent() for axes in one.panels[: one.n_used]]
        for legend in one.figure.legends:
            extent = legend.get_window_extent()
            assert not any(extent.overlaps(panel) for panel in panels), name
            assert extent.x1 <= box.x1, name
        for text in one.figure.texts:
            assert text.get_window_extent().x1 <= box.x1, (name, text.get_text())
            assert not any(text.get_window_extent().overlaps(panel) for panel in panels), name


def test_the_title_has_the_series_with_subscripts(series):
    assert any("Na$_{4}$P$_{2}$S$_{7-x}$O$_{x}$" in text for text in texts(series["units_P"]))


# --- what must be said ------------------------------------------------------------------------------------------------


def test_an_untrusted_path_is_named_in_red_and_drawn_hollow(series, single):
    said = "quickstart DeePMD: UNTRUSTED: 34.2 % of frames outside the window"
    for name, one in {**series, **single}.items():
        if name in {
            "crystals",
            "parity_force",
            "parity_energy",
            "parity_virial",
            "rdf_x2",
            "cooling_P_x2",
        } or name.endswith("CHGNet"):
            assert not any("UNTRUSTED" in text for text in texts(one)), name  # nothing untrusted is in it
        else:
            assert [ink for text, ink in texts(one).items() if text.startswith(said)] == [sheet.RED], name
    faces = [str(line.get_markerfacecolor()) for line in series["units_P"].panels[1].lines]
    assert "white" in faces
    assert all(patch.get_hatch() for patch in single["units_P"].panels[0].patches)
    assert not any(patch.get_hatch() for patch in single["crystals"].panels[0].patches)


def test_who_was_not_judged_is_said(series):
    assert "Not judged (no ensemble): CHGNet." in texts(series["density_moduli"])


def test_experiment_is_black_and_dashed_and_its_source_is_at_the_foot(series, single):
    cited = "Experiment: A. Author, J. Glass 1 (2020) 1."
    for one in (series["density_moduli"], single["density_moduli"]):
        assert cited in texts(one)
        assert labels(one)[-1] == "experiment"
        black = [line for line in one.panels[0].lines if line.get_color() == "k" and line.get_linestyle() == "--"]
        assert black[0].get_ydata() == pytest.approx([2.0, 2.1] if one is series["density_moduli"] else [2.0, 2.0])
    assert not any(text.startswith("Experiment") for text in texts(series["volume"]))
    assert "experiment" not in labels(series["volume"])


def test_a_bound_is_an_arrow_that_points_to_experiment(series, single):
    for one in (series["units_P"], single["units_P"]):
        arrows = sorted(text.get_text() for text in one.panels[0].texts)
        assert arrows == [r"$\downarrow$", r"$\downarrow$", r"$\uparrow$"]  # P0 and P2 below, P1 above
        assert one.panels[0].get_ylim()[1] > 70.0  # room for the arrow above 60
        assert "experiment (bound)" in labels(one)
        assert f"Experiment: {NMR}." in texts(one)


def test_error_bars_are_the_standard_errors(series):
    axes = series["density_moduli"].panels[0]
    spans = sorted(np.ptp(segment[:, 1]) for bars_ in axes.collections for segment in bars_.get_segments())
    # Twice: 2 % of 2.00, 2.12 (CHGNet), 1.97, 2.09 (DeePMD), and 0.02 of both experiments.
    assert spans == pytest.approx(sorted([0.08, 0.0848, 0.0788, 0.0836, 0.04, 0.04]))


def test_what_did_not_converge_is_said(series):
    assert "Diffusion not converged at 393 K: CHGNet, quickstart DeePMD." in texts(series["conductivity-Na"])
    assert "Crosses: diffusion not converged, left out of the fit." in texts(series["arrhenius"])


def test_porous_glass_is_dotted_beside_the_dense_one(series):
    modulus = series["density_moduli"].panels[2]
    dotted = [line.get_ydata().tolist() for line in modulus.lines if line.get_linestyle() == ":"]
    assert dotted == [[8.0, 10.0], [9.0, 11.0]]
    assert "CHGNet, porous" in labels(series["density_moduli"])


# --- how it is arranged -----------------------------------------------------------------------------------------------


def test_one_composition_is_drawn_as_bars_with_their_values(single):
    axes = single["density_moduli"].panels[0]
    assert [patch.get_height() for patch in axes.patches] == [2.0]
    assert [text.get_text() for text in axes.texts] == ["2.00"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["x = 0"]


def test_crystals_are_bars_of_the_deviation_from_experiment(series):
    heights = [patch.get_height() for patch in series["crystals"].panels[0].patches]
    assert heights == pytest.approx([-1.0] * 3 + [0.0] * 3, abs=1e-9)  # CHGNet, then DeePMD


def test_quench_rates_stand_side_by_side(tmp_path, monkeypatch):
    made, arrays = board_of(1, (0.0, 2.0), rates=(5.0, 0.5))
    made = made.model_copy(update={"curves": ()})
    found = drawn(lambda: bars.write(made, arrays, tmp_path), monkeypatch)
    assert set(found) == {"crystals", "rates_0", "rates_2", "rates"}
    assert labels(found["rates_0"]) == ["0.5 K/ps", "5 K/ps"]
    first = found["rates_0"].panels[0]
    assert len(first.patches) == 2 * len(first.get_xticks())
    assert [tick.get_text() for tick in found["rates"].panels[0].get_xticklabels()] == ["x = 0", "x = 2"]


def test_a_conductivity_that_is_not_above_zero_is_not_drawn_but_said(tmp_path, monkeypatch):
    made, _ = board_of(1, (0.0, 2.0))
    results = [r for r in made.results if r.name == "conductivity_Na"]
    lost = results[0].model_copy(update={"value": -1e-9})
    made = made.model_copy(update={"results": (lost, *results[1:])})
    found = drawn(lambda: against_x.write(made, tmp_path), monkeypatch)
    assert "Not above zero and not shown at 393 K: quickstart DeePMD." in texts(found["conductivity-Na"])


def test_lines_are_told_apart_by_composition_first_and_by_potential_where_there_is_one_only():
    def how(n, xs):
        return arranged([c for c in board_of(n, xs)[0].curves if c.name == "msd" and c.label == "Na"])

    assert vars(how(2, (0.0, 2.0))) == {"colours": "x", "panels": "temperature_K", "files": "potential"}
    assert vars(how(2, (0.0,))) == {"colours": "potential", "panels": "temperature_K", "files": None}
    assert vars(how(1, (0.0,))) == {"colours": "temperature_K", "panels": None, "files": None}
    assert ends([0.0, 1.0, 2.0]) == [0.0, 2.0]
    assert ends([1.0]) == [1.0]


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("Na4P2S7-xOx", "Na$_{4}$P$_{2}$S$_{7-x}$O$_{x}$"),
        ("Na3PS4", "Na$_{3}$PS$_{4}$"),
        ("xNa2O-(1-x)SiO2", "xNa$_{2}$O-(1-x)SiO$_{2}$"),
        ("Li6.5La3Zr1.5Ta0.5O12", "Li$_{6.5}$La$_{3}$Zr$_{1.5}$Ta$_{0.5}$O$_{12}$"),
    ],
)
def test_formulas_have_subscripts(title, said):
    assert words.formula(title) == said


def test_names_are_said_as_people_say_them():
    assert words.axis("density", "g/cm3") == "density (g/cm$^3$)"
    assert words.axis("Na_coordination", "1") == "anions around Na"
    assert words.word("P1P") == "P$^{1P}$"
    assert words.word("Si2") == "Si$^2$"
    assert words.file_part("SevenNet-0 + D3") == "SevenNet-0-D3"
