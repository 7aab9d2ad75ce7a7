"""Tables of a scoreboard, and the cited numbers that stand in them."""

import csv
import json
import re
from pathlib import Path

import pytest
from boards import NMR, UNTRUSTED, board_of

from activelearn.benchmark.property import quoted, with_reference
from activelearn.benchmark.replicas import stamped
from activelearn.config import Cited, load_points, shipped_numbers
from activelearn.errors import ConfigError
from activelearn.records import Quoted, Result, Scoreboard
from activelearn.report import write_tables
from activelearn.report.scoreboard import NO_CITED_VALUE, rows_of
from activelearn.report.stamps import worst
from activelearn.show import result_lines

README = Path(__file__).parents[1] / "params" / "cited" / "README.md"


def density(x, value, reference=None, **more):
    condition = {"potential": "toy"} | ({} if x is None else {"x": x})
    return Result(name="density", value=value, unit="g/cm3", uncertainty=0.01, n_samples=5, condition=condition,
                  reference_value=reference, reference_source="A. Author, J. Glass 1 (2020) 1" if reference else None,
                  **more)  # fmt: skip


def board(*results, **more):
    return Scoreboard(study="s", potentials=("toy",), physics={}, versions={}, results=results, curves=(), **more)


def rows(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    made, _ = board_of(2, (0.0, 2.0))
    more = Quoted(name="S_in_chains", value=13.4, unit="%", condition={"x": 0.0}, source="AIMD of Na4P2S7")
    made = made.model_copy(update={"quoted": (more,)})
    return made, {path.name: path for path in write_tables(made, tmp_path_factory.mktemp("tables"))}


def test_the_lines_of_a_run_tell_a_porous_glass_and_a_cooling_rate_from_others():
    dense = density(0.5, 2.1)
    others = [{"porous": "yes"}, {"cooling_rate_K_per_ps": 10.0}, {"cooling_rate_K_per_ps": 10.0, "porous": "yes"}]
    more = [dense.model_copy(update={"value": 1.0 + k, "condition": dense.condition | c}) for k, c in enumerate(others)]
    assert result_lines(board(dense, *more)) == [
        "toy x = 0.5 (n = 5): density 2.1 ± 0.01 g/cm3",
        "toy x = 0.5 porous (n = 5): density 1 ± 0.01 g/cm3",
        "toy x = 0.5 10 K/ps (n = 5): density 2 ± 0.01 g/cm3",
        "toy x = 0.5 10 K/ps porous (n = 5): density 3 ± 0.01 g/cm3",
    ]


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_the_mae_is_the_mean_distance_from_experiment_where_it_is_cited():
    cell = rows_of([density(0.0, 2.10, 2.0), density(1.0, 2.00, 2.3), density(2.0, 9.0)])[0].of("toy", board())
    assert cell.mae == pytest.approx(0.2)
    assert len(cell.errors) == 2
    assert cell.range == (2.0, 9.0)


def test_a_bound_is_no_value_and_not_in_the_mae():
    bound = density(0.0, 2.1, 2.5, reference_bound="above")
    cell = rows_of([bound, density(1.0, 2.0, 2.5, reference_bound="below")])[0].of("toy", board())
    assert cell.mae is None
    assert cell.bounds == ("above 2.5: missed by 0.4", "below 2.5: kept")


def test_what_sets_numbers_apart_makes_rows_and_what_does_not_stays_out_of_the_label():
    at = [density(0.0, 2.0), density(1.0, 2.1)]
    hot = [
        one.model_copy(update={"condition": {**one.condition, "temperature_K": T}}) for one in at for T in (300, 500)
    ]
    assert [row.label for row in rows_of(at)] == ["density"]
    assert [row.label for row in rows_of(hot)] == ["density (300 K)", "density (500 K)"]
    assert [len(row.results) for row in rows_of(hot)] == [2, 2]


def test_the_worst_stamp_is_the_largest_untrusted_share():
    stamps = [None, "not judged", "99.0 % of frames outside the window", UNTRUSTED, "UNTRUSTED: 9.0 % of frames"]
    assert worst(stamps) == UNTRUSTED
    assert worst(["not judged", None]) == "not judged"
    assert worst([None]) is None


# --- files ------------------------------------------------------------------------------------------------------------


def test_every_number_goes_into_the_csv_and_comes_back(tables):
    made, files = tables
    found = rows(files["results.csv"])
    assert len(found) == len(made.results)
    for row, result in zip(found, made.results, strict=True):
        assert (row["name"], row["unit"], float(row["value"])) == (result.name, result.unit, result.value)
        assert row["potential"] == result.condition["potential"]
        assert row["x"] == str(result.condition.get("x", ""))
        assert row["reference value"] == str(result.reference_value or "")
        assert row["stamp"] == (result.stamp or "")
        assert row["note"] == (result.note or "")


def test_where_nothing_is_cited_every_table_says_so_and_gives_the_number(tables):
    _, files = tables
    line = next(text for text in files["scoreboard.md"].read_text().splitlines() if "| volume_per_atom |" in text)
    assert NO_CITED_VALUE in line
    assert "20 ± 0.4 to 22 ± 0.44 (2 compositions, n = 5)" in line
    scores = {(row["potential"], row["property"]): row for row in rows(files["scoreboard.csv"])}
    score = scores["CHGNet", "volume_per_atom"]
    assert (score["MAE"], score["smallest"], score["largest"]) == (NO_CITED_VALUE, "20.0", "22.0")
    assert any(row["reference source"] == NO_CITED_VALUE for row in rows(files["results.csv"]))
    assert any(score["MAE"] == NO_CITED_VALUE for score in json.loads(files["scoreboard.json"].read_text())["scores"])


def test_the_table_has_the_mae_its_source_and_the_bounds(tables):
    _, files = tables
    text = files["scoreboard.md"].read_text()
    moduli = next(line for line in text.splitlines() if line.startswith("| youngs_modulus"))
    # 18 and 22 of SevenNet-0; 17 and 21 cited.
    assert "**MAE 1** (n = 2); 18 ± 0.36 to 22 ± 0.44 (2 compositions, n = 5) |" in moduli
    number = re.search(r"17 to 21 GPa \[(\d)\]", moduli).group(1)
    assert f"{number}. A. Author, J. Glass 1 (2020) 1" in text
    units = next(line for line in text.splitlines() if line.startswith("| P1 |"))
    assert "above 60: missed by 5" in units
    assert NMR in text
    assert "the ring broke" in text


def test_untrusted_stamps_stand_in_every_table(tables):
    _, files = tables
    text = files["scoreboard.md"].read_text()
    assert "23 ± 0.46 (2 compositions, n = 5)†" in next(
        line for line in text.splitlines() if line.startswith("| youngs_modulus")
    )
    assert f"† {UNTRUSTED} (quickstart DeePMD at x = 0; the largest share)." in text
    for name in ("scoreboard.csv", "results.csv"):
        stamped = [row for row in rows(files[name]) if row["stamp"] == UNTRUSTED]
        assert stamped
        assert {row["potential"] for row in stamped} == {"quickstart DeePMD"}
    scores = json.loads(files["scoreboard.json"].read_text())["scores"]
    assert any(score["stamp"] == UNTRUSTED for score in scores)


def test_other_simulations_are_listed_apart_from_experiment(tables):
    _, files = tables
    text = files["scoreboard.md"].read_text()
    apart = text.index("## What other simulations found (not experiment)")
    assert text.index("AIMD of Na4P2S7") > apart
    line = next(line for line in text.splitlines() if line.startswith("| S_in_chains |"))
    assert NO_CITED_VALUE in line


def test_a_board_without_numbers_makes_tables_all_the_same(tmp_path):
    paths = write_tables(board(problems=("no glass was finished",)), tmp_path)
    assert all(path.is_file() for path in paths)
    assert "no glass was finished" in (tmp_path / "scoreboard.md").read_text()


def test_no_number_is_null_in_json_and_a_bar_in_a_text_breaks_no_table(tmp_path):
    write_tables(board(density(0.0, float("nan")), problems=("a | b",)), tmp_path)
    scores = json.loads((tmp_path / "scoreboard.json").read_text(), parse_constant=pytest.fail)["scores"]
    assert scores[0]["smallest"] is None


# --- cited numbers ----------------------------------------------------------------------------------------------------


def test_nothing_that_is_only_remembered_is_shipped():
    numbers = shipped_numbers()
    assert {number.status for number in numbers} <= {"text", "memory_high", "computed"}
    experiments = {(n.property, n.series, n.x) for n in numbers if n.kind == "experiment"}
    assert ("density", "na3ps4o", 0.0) in experiments
    # Remembered, not verified: density, moduli and conductivity of Na4P2S7-xOx; the moduli of Na3PS4-xOx.
    assert not any(s == "na4p2s7o" and p.startswith(("density", "conduct")) for p, s, _ in experiments)
    assert not any("modulus" in p for p, _, _ in experiments)
    with pytest.raises(ValueError, match="memory_high"):
        Cited(property="density", value=2.0, unit="g/cm3", source="from memory", status="memory_low")


def test_a_shipped_bound_stands_beside_its_result_as_a_bound():
    p1 = Result(
        name="P1", value=55.0, unit="%", uncertainty=None, n_samples=1, condition={"potential": "toy", "x": 0.0}
    )
    found = with_reference(p1, shipped_numbers(), "na4p2s7o")
    assert (found.reference_value, found.reference_bound) == (60.0, "above")
    assert with_reference(p1, shipped_numbers(), "na3ps4o").reference_value is None
    elsewhere = p1.model_copy(update={"condition": {"potential": "toy", "x": 0.5}})
    assert with_reference(elsewhere, shipped_numbers(), "na4p2s7o").reference_value is None


def test_the_crossing_of_a_series_has_its_experiment_and_a_porous_glass_has_none():
    crossing = Result(
        name="crossing_BO_BS", value=2.6, unit="1", uncertainty=None, n_samples=1, condition={"potential": "t"}
    )
    assert with_reference(crossing, shipped_numbers(), "na4p2s7o").reference_value == 2.0
    dense = density(0.0, 2.1)
    porous = dense.model_copy(update={"condition": {**dense.condition, "porous": "yes"}})
    assert with_reference(dense, shipped_numbers(), "na3ps4o").reference_value == 2.0
    assert with_reference(porous, shipped_numbers(), "na3ps4o").reference_value is None


def test_a_simulation_is_quoted_but_never_a_reference():
    number = Cited(property="density", value=1.9, unit="g/cm3", source="AIMD", kind="simulation", status="text",
                   series="s", x=0.0)  # fmt: skip
    assert with_reference(density(0.0, 2.0), [number], "s").reference_value is None
    assert quoted([number]) == (Quoted(name="density", value=1.9, unit="g/cm3", condition={"x": 0.0}, source="AIMD"),)


def test_the_csv_of_the_guide_is_read(tmp_path):
    text = re.search(r"```csv\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL).group(1)
    (tmp_path / "mine.csv").write_text(text, encoding="utf-8")
    first, second = (point.number for point in load_points(tmp_path / "mine.csv"))
    assert (first.property, first.value, first.uncertainty, first.x, first.status) == (
        "density",
        2.12,
        0.02,
        1.0,
        "user",
    )
    assert second.unit == "GPa"
    described = set(re.findall(r"^\| `(\w+)`", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert described == set(Cited.model_fields) - {"kind", "status"}


def test_bounds_pairs_comments_and_empty_cells_are_understood(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "# digitised on a Sunday\nproperty,value,unit,source,series,x,bound,pair\n"
        "P1,60,%,NMR,na4p2s7o,0,above,\ncoordination_number,4,1,neutrons,na4p2s7o,0,,P-S\n"
    )
    first, second = (point.number for point in load_points(path))
    assert (first.bound, first.pair, first.uncertainty) == ("above", None, None)
    assert second.pair == ("P", "S")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("property,value,unit\ndensity,2.0,g/cm3\n", "source"),
        ("property,value,unit,source\ndensity,two,g/cm3,here\n", "value"),
        ("property,value,unit,source,colour\ndensity,2.0,g/cm3,here,blue\n", "colour"),
        ("property,value,unit,source,bound\nP1,60,%,here,about\n", "bound"),
        ("property,value,unit,source,pair\nrdf_peak,2,Å,here,P-S-O\n", "pair"),
        ("property,value,unit,source,uncertainty\nP1,60,%,here,-1\n", "uncertainty"),
        ("property,value,unit,source\ndensity,2,5,g/cm3,here\n", "decimal point"),
    ],
)
def test_a_mistake_in_a_csv_is_named_with_its_line(tmp_path, text, said):
    (tmp_path / "mine.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.csv:[12]: ") as refused:
        load_points(tmp_path / "mine.csv")
    assert said in str(refused.value)


def test_a_csv_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"mine\.csv.*expected a CSV with columns property"):
        load_points(tmp_path / "mine.csv")


def test_the_stamp_of_strained_cells_and_crystals_says_what_their_potential_dropped():
    full = {"n_overflow": 2, "overflow_share": 0.1, "overflow": "S 57 of 56"}
    worse = {"n_overflow": 1, "overflow_share": 0.5, "overflow": "S 61 of 56"}
    said = "more neighbours than sel holds: S 61 of 56 in 50.0 % of frames"
    assert stamped(None, [{}, full, worse]) == f"UNTRUSTED: {said}"
    assert stamped("not judged", [worse, full]) == f"UNTRUSTED: {said}"
    assert stamped("UNTRUSTED: 6.0 % of frames outside the window", [worse]).endswith(f" outside the window; {said}")
    assert stamped("1.0 % of frames outside the window", [worse]).startswith("UNTRUSTED: 1.0 % of frames outside")
    assert stamped("not judged", [{"n_overflow": 0, "overflow_share": None, "overflow": ""}, {}]) == "not judged"
    assert stamped(None, []) is None
    assert stamped(f"UNTRUSTED: {said}", [full]) == f"UNTRUSTED: {said}", "said once"


def test_of_two_stamps_the_one_with_the_largest_share_of_anything_weighs_most():
    few = "UNTRUSTED: 6.0 % of frames outside the window"
    full = (
        "UNTRUSTED: 1.0 % of frames outside the window; more neighbours than sel holds: S 61 of 56 in 9.0 % of frames"
    )
    assert worst([few, full, "7.0 % of frames outside the window", None]) == full
