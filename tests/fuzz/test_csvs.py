"""CSVs of `--cited`, written by made-up spreadsheets and damaged at random.

What may come of a file: exactly the points that are meant, or an error of ours in one line that names the file. Never a
traceback, a hang, or a point with another value. Run more with ``-m slow`` and $ACTIVELEARN_FUZZ_CSVS.
"""

import os
import re
import time

import numpy as np
import pytest

from activelearn.config import load_points
from activelearn.errors import ConfigError

N_CI = 400
N_SLOW = int(os.environ.get("ACTIVELEARN_FUZZ_CSVS", "4000"))
POINTS = [
    {"property": "density", "value": 2.12, "uncertainty": 0.02, "unit": "g/cm3", "series": "na4p2s7o", "x": 0.5},
    {"property": "youngs_modulus", "value": 19.3, "unit": "GPa", "series": "na4p2s7o", "x": 1.0},
    {"property": "conductivity_Na", "value": 6.0e-6, "unit": "S/cm", "series": "s", "x": 0.0, "temperature_K": 298.5},
    {"property": "crystal_volume_A3", "value": 1234.5, "unit": "Å3", "crystal": "Na3PS4_P-421c"},
    {"property": "C12", "value": -3.25, "unit": "GPa", "series": "s", "x": 2.0},
    {"property": "coordination_number", "value": 4.0, "unit": "1", "series": "s", "x": 0.0, "pair": "Na-S"},
]
SOURCES = ("mine", "Köln, 2025", 'the "blue" book', "a; b", "Solid\u00a0State Sci.", "x" * 300, "Table #1 (298 K)")
COLUMNS = ("property", "value", "unit", "source", "uncertainty", "series", "x", "crystal", "temperature_K", "pair")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "latin-1", "cp037", "mac-roman")
#: How a number is written; the last ones only of numbers above one.
HOW = (*("plain",) * 6, "e", "minus", "plus", "thousands", "apostrophe", "narrow", "unit", "spread", "zeros")
MARKS = "0123456789,;.\t \"'#-+eE\n\r\0\x1a\ufeff\u2212\u2009äÅ±()_%/nan"


# --- spreadsheets -----------------------------------------------------------------------------------------------------


def of(rng, among):
    return among[rng.integers(len(among))]


def as_text(value, rng, comma):
    """A number as somebody writes it, which may be in a way with two meanings."""
    how = of(rng, HOW if abs(value) >= 1.0 else HOW[:8])
    text = {"e": f"{value:.6e}", "plus": f"+{value}", "zeros": f"{value:.8f}"}.get(how, repr(value))
    whole, point, rest = text.partition(".")
    groups = {"thousands": ",", "apostrophe": "'", "narrow": "\u202f"}
    if how in groups:
        text = f"{int(whole):,}".replace(",", groups[how]) + point + rest
    if comma:
        text = text.translate(str.maketrans(".,", ",."))
    text = text.replace("-", "\u2212") if how == "minus" else text
    return text + {"unit": " GPa", "spread": " ± 1"}.get(how, "")


def quoted(cell, separator, rng):
    must = any(mark in cell for mark in (separator, '"'))
    return '"' + cell.replace('"', '""') + '"' if must or rng.random() < 0.1 else cell


def spreadsheet(rng):
    """Return the points that are meant, and the bytes of a file that says so."""
    points = [{**of(rng, POINTS), "source": of(rng, SOURCES)} for _ in range(rng.integers(1, 6))]
    separator, comma = of(rng, ",,,;;\t|"), rng.random() < 0.4
    columns = [name for name in rng.permutation(COLUMNS) if rng.random() < 0.97]
    rows = [[of(rng, (name, name, name.upper(), name.title())) for name in columns]]
    for point in points:
        cells = (point.get(name, "") for name in columns)
        rows.append([as_text(cell, rng, comma) if isinstance(cell, float) else cell for cell in cells])
    lines = [separator.join(quoted(cell, separator, rng) for cell in row) for row in rows]
    points = [{name: value for name, value in point.items() if name in columns} for point in points]
    for _ in range(rng.integers(3)):
        lines.insert(rng.integers(len(lines) + 1), of(rng, ("", "  ", "# a comment, 1;2", separator * 3)))
    return points, (of(rng, ("\n", "\r\n", "\r")).join(lines) + of(rng, ("", "\n"))).encode(
        of(rng, ENCODINGS), "replace"
    )


def damaged(content, rng):
    """Return the bytes with a few marks put in, taken out or doubled."""
    for _ in range(rng.integers(1, 5)):
        at = rng.integers(len(content) + 1)
        mark = of(rng, MARKS).encode()
        content = of(
            rng,
            (
                content[:at] + mark + content[at:],
                content[:at] + content[at + 1 :],
                content[:at],
                content[:at] + rng.bytes(3) + content[at:],
                content[at:] + content[:at],
            ),
        )
    return content


# --- what may come of it ----------------------------------------------------------------------------------------------


def read(path, content):
    """Return the points, or None where they are refused as they may be."""
    path.write_bytes(content)
    began = time.monotonic()
    found, problems = None, []
    try:
        found = load_points(path)
    except ConfigError as error:
        problems = error.problems
    assert time.monotonic() - began < 5.0
    assert (found is None) == bool(problems)
    assert all(line.startswith(str(path)) and "\n" not in line and " - " in line for line in problems), problems
    return found


def meant(point):
    pair = tuple(point["pair"].split("-")) if "pair" in point else None
    return {**dict.fromkeys(COLUMNS), **point, "pair": pair, "source": None}


def same(found, point):
    return {name: getattr(found.number, name) for name in COLUMNS if name != "source"} == {
        name: value for name, value in meant(point).items() if name != "source"
    }


def check_spreadsheets(folder, n, seed):
    n_read = 0
    for k in range(n):
        rng = np.random.default_rng([seed, k])
        points, content = spreadsheet(rng)
        found = read(folder / "c.csv", content)
        if found is None:
            continue
        n_read += 1
        assert len(found) == len(points), (k, content)
        assert all(map(same, found, points)), (k, content, found)
    assert n_read > n / 20


def check_damaged(folder, n, seed):
    for k in range(n):
        rng = np.random.default_rng([seed, k])
        content = damaged(spreadsheet(rng)[1], rng)
        for point in read(folder / "c.csv", content) or ():
            digits = re.sub(r"[^0-9]", "", content.replace(b"\0", b"").decode("latin-1"))
            mantissa = re.sub(r"[^0-9]", "", f"{point.number.value:.15g}".partition("e")[0]).strip("0")
            assert mantissa in digits, (k, content, point)
            assert np.isfinite(point.number.value)


def test_a_spreadsheet_is_read_as_it_is_meant_or_refused(tmp_path):
    check_spreadsheets(tmp_path, N_CI, 1)


def test_a_damaged_csv_is_refused_in_a_line_or_its_numbers_stand_in_it(tmp_path):
    check_damaged(tmp_path, N_CI, 2)


@pytest.mark.slow
@pytest.mark.parametrize("check", [check_spreadsheets, check_damaged])
def test_many_more(tmp_path, check):
    check(tmp_path, N_SLOW, 3)
