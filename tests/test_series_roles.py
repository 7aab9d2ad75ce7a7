"""Roles and cutoffs of a series that make its network wrong in silence are unusual; those of the presets are not."""

import pytest
from test_study_config import SEGMENTS, SERIES, glass

from activelearn.check.glass import _wrong_segments
from activelearn.check.roles import doubtful_series
from activelearn.config import load_glass, load_series, preset_names


def of(**over):
    roles = SERIES["roles"] | over.pop("roles", {})
    return doubtful_series(glass(series=SERIES | {"roles": roles} | over))


@pytest.mark.parametrize("name", preset_names("series"))
def test_the_series_that_are_shipped_are_usual(name):
    assert doubtful_series(load_glass("quick", series=load_series(name).model_dump(mode="json"))) == []


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"roles": {"formers": {"P": 5}}}, "with P +3 the composition has a charge of -2"),
        ({"roles": {"modifiers": {"Na": 2}}}, "has a charge of +3"),
        ({"roles": {"formers": {"Si": 4}}}, "none for P, which the network"),
        ({"cutoffs_A": {"P-S": 1.0, "P-O": 2.0}}, "cutoffs_A.P-S: 1 Å - usual for a bond is 1.97 to 3.60 Å"),
        ({"cutoffs_A": {"P-S": 5.0, "P-O": 2.0}}, "cutoffs_A.P-S: 5 Å"),
        ({"cutoffs_A": {"P-S": 2.5, "P-O": 2.0, "Na-S": 1.2}}, "cutoffs_A.Na-S: 1.2 Å - usual for a shell"),
    ],
)
def test_what_makes_the_network_wrong_is_said_once(over, said):
    (line,) = of(**over)
    assert said in line


@pytest.mark.parametrize("roles", [{"formers": {"Cu": 4}, "anions": ["S"]}, {"formers": {"K": 3}, "anions": ["Ar"]}])
def test_of_metals_and_of_anions_without_a_known_charge_nothing_is_said(roles):
    units = {"Cu": 1} if "Cu" in roles["formers"] else {"KAr3": 1}
    series = {
        **SERIES,
        "roles": roles,
        "cutoffs_A": {},
        "compositions": [{"x": 0.0, "units": units, "density_g_cm3": 2.0}],
    }
    assert doubtful_series(glass(series=series)) == []


def test_a_pressure_that_nothing_applies_is_refused():
    segments = [{**SEGMENTS[0], "pressure_bar": 5000.0}, *SEGMENTS[1:]]
    (line,) = _wrong_segments(glass(segments=segments))
    assert "melt has pressure_bar 5000, and ensemble nvt fixes the cell" in line
    assert not [*_wrong_segments(glass(segments=[*SEGMENTS[:2], {**SEGMENTS[2], "pressure_bar": 5000.0}]))]
