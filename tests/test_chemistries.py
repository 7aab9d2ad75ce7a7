"""Nothing is tied to one chemistry: no glass of elements that nobody asked for, no advice that cannot be followed."""

import pytest
import yaml
from typer.testing import CliRunner

from activelearn.check import check
from activelearn.check.glass import series_of
from activelearn.cli import app
from activelearn.cli.finetune import _series
from activelearn.config import Machine, load_campaign, load_glass
from activelearn.store import Store

EAM = {
    "name": "Cu",
    "lammps": {"pair_style": "lj/cut 5.0", "pair_coeff": ["* * 0.4 2.3"], "elements": ["Cu"]},
    "functional": "none",
    "includes_dispersion": False,
}


def style_of(path, *elements):
    """Write a potential of these elements."""
    path.write_text(yaml.safe_dump({**EAM, "lammps": {**EAM["lammps"], "elements": list(elements)}}))
    return path


def said(*words) -> str:
    """Return what a command prints, and why it refuses."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    return f"{done.output}{done.exception or ''}"


def test_a_glass_without_a_series_is_none_of_a_chemistry_that_nobody_named():
    told = said("glass", "sevennet_0", "--check")
    assert told.startswith("no --series - expected the compositions of the glass")
    assert "such as: --series na2o_sio2 or --series na3ps4o --x 0 or --series na4p2s7o" in told


@pytest.mark.parametrize(
    ("elements", "told"),
    [
        (["Na", "O", "Si", "K"], "such as: --series na2o_sio2"),
        (["Na", "P", "S"], "such as: --series na3ps4o --x 0 or --series na4p2s7o --x 0"),
        (["Cu"], "write a series of Cu, see params/GLASSES.md"),
    ],
)
def test_the_series_that_are_named_are_of_the_elements_of_the_potential(tmp_path, monkeypatch, elements, told):
    monkeypatch.chdir(tmp_path)
    assert said("glass", style_of(tmp_path / "p.yaml", *elements), "--check").rstrip().endswith(told)


@pytest.mark.parametrize(
    ("elements", "told"),
    [
        (["Na", "P", "S"], "does not know O of series na4p2s7o - expected all its elements - choose --x 0 or --series"),
        (
            ["Na", "O", "Si"],
            "does not know P, S of series na4p2s7o - expected all its elements - choose --series na2o_sio2",
        ),
        (["Cu"], "expected all its elements - write a series of Cu (params/GLASSES.md), or choose another potential"),
    ],
)
def test_a_series_of_other_elements_than_the_potentials_is_refused_with_those_that_fit(
    tmp_path, monkeypatch, elements, told
):
    monkeypatch.chdir(tmp_path)
    file = style_of(tmp_path / "p.yaml", *elements)
    for command in ("glass", "benchmark"):
        assert told in said(command, file, "--series", "na4p2s7o", "--atoms", 104, "--check")


@pytest.mark.parametrize("command", ["glass", "benchmark"])
def test_the_series_that_a_schedule_names_is_told(command):
    told = said(command, "sevennet_0", "--glass", "luo2024", "--check")
    assert "series na3ps4o (Na3PS4-xOx), as named by --glass" in told
    assert "glass x = 0.6" in told
    assert "as named by --glass" not in said(
        command, "sevennet_0", "--glass", "luo2024", "--series", "na2o_sio2", "--check"
    )


def test_the_series_that_are_advised_fit_in_the_cells_that_are_asked_for():
    quick, luo = load_glass("quick"), load_glass("luo2024")
    assert list(map(str, series_of({"Na", "P", "S", "O"}, luo))) == ["--series na3ps4o", "--series na4p2s7o"]
    assert "--series na3ps4o --x 0" in map(str, series_of({"Na", "P", "S", "O"}, quick))
    assert series_of({"Li", "S"}, quick) == []


@pytest.mark.parametrize(
    ("preset", "told"),
    [
        ("copper_emt", "--series YAML    (a series of Cu, see params/GLASSES.md)"),
        ("quickstart", "--series na3ps4o --x 0"),
    ],
)
def test_what_follows_a_fine_tuning_is_of_the_elements_of_the_campaign(tmp_path, preset, told):
    assert _series(Store.create(tmp_path / "c", load_campaign(preset))) == told


@pytest.mark.parametrize(
    ("elements", "told"),
    [
        (["Cu"], "contains Na, O, P, S - expected elements of type_map - write a series of Cu (params/GLASSES.md)"),
        (
            ["Cu", "Na", "P", "S"],
            "contains O - expected elements of type_map - choose series: na3ps4o with x: [0] or series: ",
        ),
    ],
)
def test_a_campaign_with_a_glass_of_other_elements_is_told_which_series_fit(tmp_path, elements, told):
    campaign = load_campaign("copper_emt").model_copy(
        update={"glass": load_glass("luo2024"), "type_map": tuple(elements)}
    )
    assert told in "\n".join(check(campaign, Machine(min_free_disk_GB=0.0), tmp_path / "c").problems)
