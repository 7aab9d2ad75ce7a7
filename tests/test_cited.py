"""Digitised points of `--cited`: what spreadsheets write is read, what has two meanings is refused with its line."""

import codecs

import pytest
from campaigns import cli

from activelearn.benchmark import cited
from activelearn.config import (
    Benchmark,
    CitedPoint,
    Study,
    load_glass,
    load_points,
    load_potential,
    load_series,
    shipped_numbers,
)
from activelearn.errors import ConfigError
from activelearn.records import Result

HEAD = "property,value,unit,source,series,x\n"
EMT = load_potential("emt")
SERIES = load_series("na3ps4o")


def study(**measured):
    glass = load_glass("quick", series=SERIES.model_dump(mode="json"), x=[0.0, 0.15], n_units=20)
    asked = Benchmark.model_validate({"elastic": {}, "crystals": {"seeds": ["Na3PS4_P-421c"]}} | measured)
    return Study(name="s", potentials=(EMT,), glass=glass, benchmark=asked)


def points(folder, text, encoding="utf-8"):
    path = folder / "mine.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return load_points(path)


def one(**given):
    from activelearn.config import Cited

    point = {"property": "density", "value": 2.0, "unit": "g/cm3", "source": "mine", "series": "na3ps4o", "x": 0.0}
    return CitedPoint("mine.csv:2", Cited.model_validate({**point, "status": "user", **given}))


def test_a_number_without_a_temperature_is_refused_where_a_study_has_several():
    point = one(property="conductivity_Na", value=1e-4, unit="S/cm")
    several = study(diffusion={"temperatures_K": [300.0, 500.0]})
    wanted = "conductivity_Na is of one temperature of 300, 500 K - expected the column temperature_K - add it"
    assert list(cited.problems(several, [point])) == [f"mine.csv:2: {wanted}"]
    assert list(cited.problems(study(diffusion={"temperatures_K": [300.0]}), [point])) == []
    assert (
        list(cited.problems(several, [one(property="conductivity_Na", value=1e-4, unit="S/cm", temperature_K=300)]))
        == []
    )


def test_a_temperature_of_what_has_none_and_an_x_that_is_nearly_one_are_told_as_they_are():
    assert cited.said(study(), [one(temperature_K=298.0)])[1].endswith(
        "temperature_K = 298: its results have no temperature_K - leave the cell empty"
    )
    assert cited.said(study(), [one(x=0.1500001)])[1].endswith("x = 0.1500001: the study has 0, 0.15")


def test_experiments_of_what_was_asked_for_and_not_measured_are_known_the_users_own_first():
    own = one(value=2.12).number
    asked = study().model_copy(update={"cited": (own, *shipped_numbers())})
    unmet = {(e.name, e.condition.get("x"), e.condition.get("crystal")): e for e in cited.unmet(asked, [])}
    assert unmet["density", 0.0, None].value == 2.12
    assert unmet["crystal_volume_A3", None, "Na3PS4_P-421c"].measured_by == "crystals"
    assert not [e for e in unmet.values() if e.name.startswith("conductivity")], "it is not asked for"
    measured = Result(name="density", value=2.0, unit="g/cm3", uncertainty=None, n_samples=1,
                      condition={"potential": "EMT (toy)", "x": 0.0})  # fmt: skip
    assert "density" not in {e.name for e in cited.unmet(asked, [measured])}


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "density,2.12,g/cm3,mine,na3ps4o,0.15\n",
        HEAD.upper() + "density,2.12,g/cm^3,mine,na3ps4o,0.15\n",
        "\ufeff" + HEAD.replace(",", ";") + "density;2,12;g/cm³;mine;na3ps4o;0,15\n",
        HEAD.replace(",", "\t") + "density\t2,12\tg cm-3\tmine\tna3ps4o\t0,15\r\n",
        "# by eye\r\n\r\n" + HEAD.replace(",", ";") + "density;2.12;g/cm3;mine;na3ps4o;0.15\r\n;;;;;\r\n",
        '"property","value","unit","source","series","x"\r"density","2.12","g/cc","mine","na3ps4o","+.15"\r',
        (HEAD + "density,2.12,g/cm3,mine,na3ps4o,0.15\n").encode("utf-16"),
        codecs.BOM_UTF16_BE + (HEAD + "density,212e-2,g/cm3,mine,na3ps4o,0.15,\n").encode("utf-16-be"),
    ],
)
def test_one_meaning_is_read_however_a_spreadsheet_writes_it(tmp_path, text):
    (point,) = points(tmp_path, text)
    number = point.number
    assert (number.property, number.value, number.unit, number.x) == ("density", 2.12, "g/cm3", 0.15)
    assert (number.source, number.series, number.status) == ("mine", "na3ps4o", "user")


def test_windows_1252_and_the_dashes_of_a_word_processor_are_read(tmp_path):
    text = "property,value,unit,source,series,x,pair\nrdf_peak,2.05,Å,Köln 2025,na3ps4o,0,P\u2013S\n"
    (point,) = points(tmp_path, text, "cp1252")
    assert (point.number.unit, point.number.source, point.number.pair) == ("Å", "Köln 2025", ("P", "S"))
    (point,) = points(tmp_path, HEAD + "C12,\u22123.5,GPa,mine,na3ps4o,0\n")
    assert point.number.value == -3.5


def test_the_line_that_is_named_counts_comments_and_blank_lines(tmp_path):
    found = points(tmp_path, f"# one\n\n{HEAD}density,2.0,g/cm3,mine,s,0\n\ndensity,2.1,g/cm3,mine,s,1\n")
    assert [point.where for point in found] == [f"{tmp_path / 'mine.csv'}:{k}" for k in (4, 6)]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no points"),
        (HEAD, "no points"),
        ("# nothing\n", "no points"),
        ("density,2.0,g/cm3,mine,na3ps4o,0\n" * 2, ":1: column 'density'"),
        (HEAD.replace("unit,", "") + "density,2.0,mine,na3ps4o,0\n", ":1: no column unit"),
        (HEAD.replace("\n", ",X\n") + "density,2.0,g/cm3,mine,na3ps4o,0,1\n", ":1: duplicate column"),
        (HEAD + 'density,"2,12",g/cm3,mine,na3ps4o,0\n', ":2: value: got '2,12'"),
        (HEAD + 'density,"2,120.0",g/cm3,mine,na3ps4o,0\n', ":2: value: got '2,120.0'"),
        (HEAD + "density,2 120,g/cm3,mine,na3ps4o,0\n", ":2: value: got '2 120'"),
        (HEAD + "density,2'120,g/cm3,mine,na3ps4o,0\n", ":2: value: got"),
        (HEAD + "density,2_120,g/cm3,mine,na3ps4o,0\n", ":2: value: got"),
        (HEAD + "density,٢,g/cm3,mine,na3ps4o,0\n", ":2: value: got"),
        (HEAD + "density,2.12±0.02,g/cm3,mine,na3ps4o,0\n", ":2: value: got"),
        (HEAD + "density,nan,g/cm3,mine,na3ps4o,0\n", ":2: value: got"),
        (HEAD + "density,1e999,g/cm3,mine,na3ps4o,0\n", ":2: value: got"),
        (HEAD + "density,2.0,g/cm3,mine,na3ps4o,zero\n", ":2: x: got"),
        (HEAD.replace(",", ";") + "density;1.234,5;g/cm3;mine;na3ps4o;0\n", ":2: value: got '1.234,5'"),
        (HEAD.replace(",", ";") + "density;2,12;g/cm3;mine;na3ps4o;0.15\n", ":2: value: got '2,12'"),
        (HEAD + "density,2.0,g/cm3,mine,na3ps4o\n", ":2: 5 cells, fewer than the 6"),
        (HEAD + "density,2.0,g/cm3,mine,na3ps4o,0,1\n", ":2: 7 cells, more than the 6"),
        (HEAD + 'density,2.0,g/cm3,"mine,na3ps4o,0\n', ":2: unbalanced quotes"),
        (HEAD + "density,2.0,g/cm3,mi\0ne,na3ps4o,0\n", ":2: has the character"),
        (HEAD + "density,2.0,g/cm3,,na3ps4o,0\n", ":2: source: missing"),
        ((HEAD + "density,2.0,g/cm3,mine,na3ps4o,0\n").encode("utf-32"), "has the character"),
        (HEAD.encode() + b"density,2.0,\x81,mine,na3ps4o,0\n", "neither UTF-8 nor"),
        (b"PK\x03\x04\x14\x00\x06\x00", "has the character"),  # .xlsx
    ],
)
def test_what_has_two_meanings_is_refused_with_its_line(tmp_path, text, said):
    with pytest.raises(ConfigError) as refused:
        points(tmp_path, text)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"property": "densty"}, "'densty': nothing measures it - did you mean 'density'"),
        ({"value": 2120.0, "unit": "kg/m3"}, "unit kg/m3 of density - expected g/cm3 - write 2.12 g/cm3"),
        ({"property": "youngs_modulus", "value": 19300.0, "unit": "MPa"}, "expected GPa - write 19.3 GPa"),
        ({"property": "rdf_peak", "value": 0.205, "unit": "nm", "pair": ("P", "S")}, "expected Å - write 2.05 Å"),
        ({"unit": "furlong"}, "expected g/cm3 - convert it"),
        ({"value": -2.0}, "density -2 g/cm3 - expected 0 to 30"),
        ({"value": 2120.0}, "density 2120 g/cm3 - expected 0 to 30"),
        ({"property": "P1", "value": 160.0, "unit": "%"}, "expected 0 to 100"),
        ({"property": "S_chain_length", "value": -1.0, "unit": "1"}, "expected 0 or more"),
        ({"x": None}, "expected the column x"),
        ({"series": None}, "expected the column series"),
        ({"property": "crystal_density"}, "expected the column crystal"),
    ],
)
def test_a_point_that_can_be_of_no_study_is_a_problem_of_its_line(given, said):
    (problem,) = cited.problems(study(), [one(**given)])
    assert problem.startswith("mine.csv:2: ")
    assert said in problem


# --- what this study has no use for -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"x": 0.77}, "x = 0.77: the study has 0, 0.15"),
        ({"series": "na3ps4"}, "series = na3ps4: the study has na3ps4o"),
        (
            {"property": "free_volume", "unit": "%", "temperature_K": 300},
            "temperature_K = 300: its results",
        ),
        ({"property": "youngs_modulus", "unit": "GPa", "temperature_K": 300}, "temperature_K = 300: the study has 0"),
        (
            {"property": "conductivity_Na", "value": 1e-5, "unit": "S/cm"},
            "conductivity_Na: not measured in this study (benchmark",
        ),
        ({"property": "D_Na", "value": 1e-9, "unit": "cm2/s"}, "D_Na: not measured in this study (benchmark"),
        ({"property": "Si4", "unit": "%"}, "Si4: no Si in the series"),
        ({"property": "rdf_peak", "unit": "Å", "pair": ("S", "P")}, "pair = S-P: the study has Na-Na"),
        ({"property": "rdf_peak", "unit": "Å"}, "pair = none: the study has Na-Na"),
        ({"property": "crystal_density", "crystal": "Cu_Fm-3m"}, "crystal = Cu_Fm-3m: the study has Na3PS4_P-421c"),
    ],
)
def test_a_point_that_matches_nothing_in_this_study_is_named_with_the_reason(given, why):
    point = one(**given)
    assert list(cited.problems(study(), [point])) == []
    count, unused = cited.said(study(), [point])
    assert count == "cited: 0 of 1 points will be used"
    assert unused.startswith(f"cited, not used: mine.csv:2: {why}")


def test_points_that_match_are_counted_and_a_second_one_of_the_same_thing_is_named():
    pair = one(property="rdf_peak", unit="Å", pair=("P", "S"))
    crystal = one(property="crystal_density", crystal="Na3PS4_P-421c", series=None, x=None)
    again = CitedPoint("other.csv:7", one(value=2.3).number)
    assert cited.said(study(), [one(), pair, crystal, one(x=0.15), again]) == [
        "cited: 4 of 5 points will be used",
        "cited, not used: other.csv:7: the same condition as mine.csv:2, which counts",
    ]


def test_at_the_end_a_point_counts_only_if_there_is_a_number_beside_it():
    density = Result(name="density", value=2.0, unit="g/cm3", uncertainty=None, n_samples=1,
                     condition={"potential": "emt", "x": 0.0})  # fmt: skip
    assert cited.said(study(), [one(), one(x=0.15)], [density]) == [
        "cited: 1 of 2 points are used",
        "cited, not used: mine.csv:2: no density was measured there",
    ]


def test_every_shipped_number_is_of_a_property_that_is_measured_in_its_unit():
    shipped = [CitedPoint("shipped", number) for number in shipped_numbers()]
    assert list(cited.problems(study(), shipped)) == []
    assert cited.own_points(study().model_copy(update={"cited": shipped_numbers()}), []) == []


@pytest.mark.parametrize(
    ("row", "code", "said"),
    [
        ("density,2.0,g/cm3,mine,na3ps4o,0.77", 0, "cited, not used: mine.csv:2: x = 0.77"),
        ("density,2000,kg/m3,mine,na3ps4o,0", 2, "error: mine.csv:2: unit kg/m3"),
    ],
)
def test_check_says_it_on_the_screen(tmp_path, row, code, said):
    (tmp_path / "mine.csv").write_text(f"{HEAD}{row}\n")
    done = cli(
        "benchmark", "sevennet_0", "--series", "na3ps4o", "--x", "0", "--cited", "mine.csv", "--check", cwd=tmp_path
    )
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
