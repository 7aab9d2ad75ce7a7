"""What died, failed or is impossible stands in every table and figure, and in the closing lines."""

import csv
import json

import numpy as np
import pytest
import yaml
from campaigns import cli, machine_file
from test_glass import direct
from test_study import SOFT, TINY_GLASS

import activelearn
from activelearn.records import Curve, Experiment, MadeGlass, Missing, Result, Scoreboard
from activelearn.report import write_figures, write_tables
from activelearn.report.behind import counted, deaths, error_of, interval, losses, with_interval
from activelearn.report.scoreboard import rows_of
from activelearn.report.stamps import doubts, is_doubted, legend, stamp_of
from activelearn.show import result_lines

DEATH = "melt: lost atoms after 1.2 ps"
HILL = "UNSTABLE: 1 of 1 not positive definite (lowest eigenvalue -5e+03 GPa)"


def made(potential="toy", replica=0, x=0.0, ended="finished", **more):
    density = {"density_g_cm3": 2.0} if ended == "finished" else {}
    return MadeGlass(id=f"{potential}-x{x:g}-r{replica}", potential=potential, x=x, replica=replica, formula="Na3PS4",
                     n_atoms=64, ended=ended, **density, **more)  # fmt: skip


def result(value, potential="toy", x=0.0, *, n=2, name="density", unit="g/cm3", uncertainty=0.01, **more):
    condition = {"potential": potential, "x": x, **more.pop("condition", {})}
    return Result(name=name, value=value, unit=unit, uncertainty=uncertainty, n_samples=n, condition=condition,
                  measured_by="density", **more)  # fmt: skip


def board(*results, potentials=("toy", "wild"), glasses=(), **more):
    return Scoreboard(study="s", potentials=potentials, physics={}, versions={}, results=results,
                      curves=more.pop("curves", ()), glasses=glasses, **more)  # fmt: skip


def cells(given, name, folder):
    """The line of a property in scoreboard.md: experiment, and one cell per potential."""
    write_tables(given, folder)
    line = next(x for x in (folder / "scoreboard.md").read_text().splitlines() if x.startswith(f"| {name} |"))
    return line.strip("| ").split(" | ")[2:]


TWO_OF_THREE = [made(replica=0), made(replica=1), made(replica=2, ended=DEATH)]
ALL_DEAD = [made("wild", k, ended=DEATH, outside_share=0.0, n_judged=0) for k in range(3)]


# --- glasses that died ------------------------------------------------------------------------------------------------


def test_a_number_says_how_many_of_the_planned_replicas_are_behind_it(tmp_path):
    given = board(result(2.05), glasses=(*TWO_OF_THREE, *ALL_DEAD))
    _, toy, wild = cells(given, "density", tmp_path)
    assert toy == "2.05 ± 0.01 (n = 2 of 3)"
    assert wild == f"none: 3 of 3 glasses died in {DEATH}"
    rows = list(csv.DictReader((tmp_path / "results.csv").open(encoding="utf-8")))
    assert [(row["potential"], row["value"], row["n planned"]) for row in rows] == [
        ("toy", "2.05", "3"),
        ("wild", "", ""),
    ]
    assert rows[1]["why none"] == f"3 of 3 glasses died in {DEATH}"
    scores = json.loads((tmp_path / "scoreboard.json").read_text())["scores"]
    assert [score["said"] for score in scores] == [toy, wild]
    assert result_lines(given)[0] == "toy x = 0 (n = 2 of 3): density 2.05 ± 0.01 g/cm3"


def test_each_planned_glass_has_a_line_with_its_end(tmp_path):
    write_tables(board(result(2.05), glasses=(*TWO_OF_THREE, *ALL_DEAD)), tmp_path)
    text = (tmp_path / "scoreboard.md").read_text()
    lines = text[text.index("## Glasses") :].splitlines()[4:10]
    assert [line.split(" | ")[6] for line in lines] == ["finished"] * 2 + [f"died in {DEATH}"] * 4
    assert lines[2].endswith("none: it died |")
    assert "UNTRUSTED" not in text


def test_a_dead_glass_is_stamped_with_its_death_and_not_with_a_share_of_zero():
    assert made(ended=DEATH, outside_share=0.0, is_trusted=False).stamp == f"died in {DEATH}"


def test_a_composition_whose_glasses_died_is_named_beside_those_that_have_a_number(tmp_path):
    glasses = (made(x=0.0), made(x=1.0, ended=DEATH), made("wild", x=0.0), made("wild", x=1.0))
    given = board(result(2.0, n=1, uncertainty=None), result(3.0, "wild", n=1, uncertainty=None),
                  result(3.1, "wild", 1.0, n=1, uncertainty=None), glasses=glasses)  # fmt: skip
    _, toy, wild = cells(given, "density", tmp_path)
    assert toy == f"2 (n = 1 of 1, no interval); none at x = 1.0: 1 of 1 glass died in {DEATH}"
    assert wild == "3 to 3.1 (2 compositions, n = 1 of 1, no interval)"


def test_where_all_glasses_of_all_potentials_died_each_property_still_has_its_row(tmp_path):
    given = board(glasses=(made(ended=DEATH), *ALL_DEAD), asked=("density", "rdf"))
    assert cells(given, "rdf", tmp_path)[1:] == [
        f"none: 1 of 1 glass died in {DEATH}",
        f"none: 3 of 3 glasses died in {DEATH}",
    ]


def test_a_measurement_that_failed_says_why_in_its_cell_and_nothing_found_is_no_failure(tmp_path):
    lost = Missing(measured_by="density", condition={"potential": "wild", "x": 0.0}, why="no thermo rows")
    given = board(result(2.0), glasses=(*TWO_OF_THREE[:2], made("wild")), missing=(lost,))
    assert cells(given, "density", tmp_path)[2] == "none: no thermo rows"
    assert cells(given.model_copy(update={"missing": ()}), "density", tmp_path)[2] == "none found in 1 glass"


def test_another_cooling_rate_or_a_pore_that_died_is_not_taken_for_the_glass_that_did_not():
    slow = [made(replica=k, cooling_rate_K_per_ps=1.0, ended=DEATH) for k in range(2)]
    fast = [made(replica=k, cooling_rate_K_per_ps=10.0) for k in range(2)]
    porous = [made(is_porous=True, cooling_rate_K_per_ps=10.0, ended=DEATH)]
    at_fast = result(2.0, condition={"cooling_rate_K_per_ps": 10.0})
    assert counted(at_fast, [*slow, *fast, *porous]) == "n = 2 of 2"
    assert counted(result(2.0, condition={"cooling_rate_K_per_ps": 10.0, "porous": "yes"}, n=1), porous * 2).startswith(
        "n = 1 of 2"
    )


def test_losses_are_glasses_that_died_and_measurements_that_failed():
    assert losses(board(result(2.0)), [made()]) is None
    assert losses(None, TWO_OF_THREE) == deaths(TWO_OF_THREE) == f"1 of 3 glasses died in {DEATH}"
    lost = [Missing(measured_by=name, condition={}, why="w") for name in ("elastic", "elastic", "rdf")]
    assert losses(board(missing=tuple(lost)), []) == "not measured: elastic (2 times), rdf"
    other = [*TWO_OF_THREE, made(replica=3, ended="melt: non-finite after 0 ps")]
    assert deaths(other) == f"2 of 4 glasses died, 1 of them in {DEATH}"


# --- numbers that cannot be -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unstable", "said"),
    [
        (result(-5337.0, name="bulk_modulus_hill", unit="GPa", stamp=f"{HILL}; not judged"), HILL),
        (result(-5337.0, name="bulk_modulus_hill", unit="GPa", note=f"0 K; {HILL}; 1 left"), HILL),  # of an old study
        (result(-3.0, name="bulk_modulus", unit="GPa", stamp="not judged"), "UNSTABLE: not positive"),
        (result(-3.0, name="C44", unit="GPa"), "UNSTABLE: not positive"),
    ],
)
def test_a_modulus_that_no_stable_solid_has_never_stands_bare(tmp_path, unstable, said):
    given = board(unstable)
    assert cells(given, unstable.name, tmp_path)[1].endswith("‡")
    assert f"‡ {said} (toy: {unstable.name} at x = 0)." in (tmp_path / "scoreboard.md").read_text()
    for name in ("scoreboard.csv", "results.csv"):
        assert said in (tmp_path / name).read_text()
    assert f"[{said}]" in result_lines(given)[0]
    assert is_doubted(unstable)


def test_c12_and_other_numbers_may_be_negative():
    for name, unit in (("C12", "GPa"), ("crystal_volume", "%"), ("charge_rule", "1")):
        assert stamp_of(result(-1.0, name=name, unit=unit)) is None


def test_no_mae_is_formed_of_unstable_numbers(tmp_path):
    cited = {"reference_value": 20.0, "reference_source": "me"}
    stable = result(18.0, x=0.0, name="youngs_modulus", unit="GPa", **cited)
    unstable = result(-5000.0, x=1.0, name="youngs_modulus", unit="GPa", **cited)
    assert "**MAE 2** (n = 1, 1 UNSTABLE left out); -5000 ± 0.01 to 18 ± 0.01 (2 compositions, n = 2)‡" in cells(
        board(stable, unstable), "youngs_modulus", tmp_path
    )
    assert cells(board(unstable), "youngs_modulus", tmp_path)[1].startswith("no MAE: all UNSTABLE; -5000")
    assert "none: UNSTABLE" in (tmp_path / "scoreboard.csv").read_text()


def test_a_number_can_be_unstable_untrusted_and_not_converged_at_once():
    untrusted = "UNTRUSTED: 34.2 % of frames outside the window"
    one = result(1.0, stamp=f"UNSTABLE: 1 of 3; {untrusted}", note="not converged: MSD grows as t^0.4")
    assert doubts(one) == {"UNTRUSTED": untrusted, "UNSTABLE": "UNSTABLE: 1 of 3", "caveat": "not converged"}
    assert len(legend([one, result(1.0)])) == 3
    fitted = result(0.4, name="activation_energy_Na", note="from 400, 500 K; not converged: 300 K")
    assert doubts(fitted) == {}


# --- intervals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "said", "how"),
    [
        (result(100.0, unit="%", uncertainty=1e-14, n=3), "100 ± 0 (n = 3, identical)", "0: 3 identical replicas"),
        (result(0.0, unit="%", uncertainty=0.0, n=3), "0 ± 0 (n = 3, identical)", "0: 3 identical replicas"),
        (result(1e-16, unit="1", uncertainty=1e-16, n=3), "0 ± 0 (n = 3, identical)", "0: 3 identical replicas"),
        (result(2.0, uncertainty=1e-6, n=3), "2 ± 1e-06 (n = 3)", "standard error of 3 replicas"),
        (result(2e-9, unit="cm2/s", uncertainty=1e-9, n=3), "2.00e-09 ± 1e-09 (n = 3)", "standard error of 3 replicas"),
        (result(2.0, uncertainty=None, n=1), "2 (n = 1, no interval)", "no interval: one replica"),
        (result(2.0, uncertainty=0.1, n=1), "2 ± 0.1 (n = 1, error of the fit)", "error of the fit"),
        (result(2.0, uncertainty=float("nan"), n=1), "2 (n = 1, no interval)", "no interval: one replica"),
    ],
)  # fmt: skip
def test_an_interval_is_real_or_says_why_it_is_none(one, said, how):
    assert f"{with_interval(one)} ({counted(one, [])})" == said
    assert interval(one) == how


def test_rounding_is_told_from_a_small_error_by_its_share_of_the_number():
    assert error_of(result(1e4, uncertainty=1e-8)) == 0.0
    assert error_of(result(1e4, uncertainty=1e-4)) == 1e-4
    assert error_of(result(1e-9, unit="S/cm", uncertainty=1e-15)) == 1e-15


def test_a_number_that_is_none_is_never_printed(tmp_path):
    given = board(result(float("nan")), result(float("inf"), "wild"), potentials=("toy", "wild"))
    assert cells(given, "density", tmp_path)[1:] == ["none: not finite"] * 2
    for path in tmp_path.iterdir():
        assert "nan" not in path.read_text().lower().replace("none", "")
        assert "inf," not in path.read_text().lower()


# --- experiment -------------------------------------------------------------------------------------------------------


def test_the_column_of_the_experiment_has_the_number_its_uncertainty_and_unit(tmp_path):
    cited = {"reference_source": "me", "reference_uncertainty": 0.02}
    one = result(2.0, reference_value=2.05, **cited)
    other = result(2.1, x=1.0, reference_value=2.21, **cited)
    assert cells(board(one), "density", tmp_path)[0] == "2.05 ± 0.02 g/cm3 [1]"
    assert cells(board(other, one), "density", tmp_path)[0] == "2.05 ± 0.02 to 2.21 ± 0.02 g/cm3 [1]"
    bound = result(55.0, name="P1", unit="%", reference_value=60.0, reference_bound="above", reference_source="NMR")
    assert cells(board(bound), "P1", tmp_path)[0] == "above 60 % [1]"
    assert rows_of([one])[0].experiment == "2.05 ± 0.02 g/cm3"


def test_an_experiment_stands_in_its_row_also_where_every_glass_died(tmp_path):
    def cited(name, value, unit="g/cm3", **more):
        return Experiment(name=name, value=value, unit=unit, source="me", measured_by="density", **more)

    dense = result(2.1, x=1.0, reference_value=2.21, reference_source="me")
    unmet = (cited("density", 2.05, uncertainty=0.02, condition={"x": 0.0}),
             cited("P1", 60.0, "%", bound="above", condition={"x": 0.0}),
             cited("D_Na", 1e-9, "cm2/s", condition={"x": 0.0, "temperature_K": 300.0}))  # fmt: skip
    given = board(dense, glasses=(*ALL_DEAD, made(x=1.0), made(x=1.0, replica=1), made(ended=DEATH)), unmet=unmet)
    assert cells(given, "density", tmp_path) == [
        "2.05 ± 0.02 to 2.21 g/cm3 [1]",
        f"**MAE 0.11** (n = 1); 2.1 ± 0.01 (n = 2 of 2); none at x = 0.0: 1 of 1 glass died in {DEATH}",
        f"none: 3 of 3 glasses died in {DEATH}",
    ]
    assert cells(given, "P1", tmp_path)[0] == "above 60 % [1]"
    assert cells(given, "D_Na (300 K)", tmp_path)[0] == "1.00e-09 cm2/s [1]"


def test_a_crystal_that_no_potential_could_relax_did_not_die_in_a_melt(tmp_path):
    lost = [Missing(measured_by="crystals", condition={"potential": name, "crystal": "Na2S_Fm-3m"}, why="exploded")
            for name in ("toy", "wild")]  # fmt: skip
    given = board(glasses=ALL_DEAD, asked=("crystals",), missing=tuple(lost))
    assert cells(given, "crystals", tmp_path)[1:] == ["none: exploded"] * 2


# --- figures ----------------------------------------------------------------------------------------------------------


def test_a_figure_names_the_potential_whose_glasses_died_and_what_is_unstable(tmp_path, monkeypatch):
    from activelearn.report.figures.sheet import Sheet

    said = []
    foot = Sheet._foot
    monkeypatch.setattr(
        Sheet, "_foot", lambda sheet: (said.append([*sheet._absent(), *sheet._caveats()]), foot(sheet))[1]
    )
    unstable = result(-3.0, name="bulk_modulus", unit="GPa", note="1 relaxation not finished in the steps allowed")
    curve = Curve(
        key="k", name="rdf", label="Na-S", x_name="r (Å)", y_name="g(r)", condition={"potential": "toy", "x": 0.0}
    )
    given = board(result(2.0), unstable, glasses=(*TWO_OF_THREE, *ALL_DEAD), curves=(curve,))
    r = np.linspace(0.0, 8.0, 50)
    write_figures(given, {"k/x": r, "k/y": r}, tmp_path)
    assert len(said) == 2, "moduli and g(r)"
    for lines in said:
        assert f"toy: 1 of 3 glasses died in {DEATH}." in lines
        assert f"wild: 3 of 3 glasses died in {DEATH}." in lines
    assert any("Not finished in the steps allowed: toy: bulk modulus." in lines for lines in said)


# --- a real study -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def half_dead(tmp_path_factory):
    """A study of two potentials: of one the time step is far too long. (folder, CompletedProcess)."""
    folder = tmp_path_factory.mktemp("half_dead")
    wild = SOFT | {"name": "Wild (LJ)", "timestep_fs": 10.0}
    wild["lammps"] = SOFT["lammps"] | {"pair_coeff": ["* * 5.0 3.5"]}
    off = dict.fromkeys(("rdf", "network", "coordination", "free_volume"), False) | {"rdf": None, "network": None}
    whole = {
        "name": "half-dead",
        "potentials": [SOFT, wild],
        "glass": TINY_GLASS,
        "benchmark": off,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(whole))
    (folder / "mine.csv").write_text(
        "property,value,unit,source,series,x\ndensity,2.0,g/cm3,mine,na3ps4o,0\ndensity,2.1,g/cm3,mine,na3ps4o,0.77\n"
    )
    machine_file(folder / "machine.yaml", slots=2, lammps=direct().lammps)
    words = ("--study", "study.yaml", "--cited", "mine.csv", "--folder", "s", "--machine", "machine.yaml")
    return folder, cli("benchmark", *words, "--accept-unusual", cwd=folder)


@pytest.mark.engines
class TestAPotentialWhoseGlassesDie:
    def test_the_study_ends_with_losses_and_its_own_exit_code(self, half_dead):
        _, done = half_dead
        assert done.returncode == 3, done.stdout + done.stderr
        assert "[died in melt: " in done.stdout
        assert "finished with losses: 1 of 2 glasses died in melt: " in done.stdout

    def test_python_is_told_of_the_losses_too(self, half_dead):
        study = activelearn.open(half_dead[0] / "s")
        assert f"finished with losses: {study.losses}" in half_dead[1].stdout
        assert study.losses.startswith("1 of 2 glasses died in melt: ")

    def test_its_column_says_why_it_is_empty(self, half_dead):
        text = (half_dead[0] / "s" / "tables" / "scoreboard.md").read_text()
        line = next(line for line in text.splitlines() if line.startswith("| density |"))
        assert line.split(" | ")[4].startswith("none: 1 of 1 glass died in melt: ")
        assert "(n = 1 of 1, no interval)" in line
        assert " ps" in line

    def test_the_cited_points_that_stand_beside_nothing_are_named_at_the_end(self, half_dead):
        said = half_dead[1].stdout
        assert "cited: 1 of 2 points are used" in said
        assert "cited, not used: mine.csv:3: x = 0.77: the study has 0" in said
