"""Findings of a page: each is there where its number passes the bound, and not where it does not."""

import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import seen_folders as made
from pydantic import BaseModel

from activelearn.check import check
from activelearn.config import Campaign, Machine, load_campaign
from activelearn.config.training import default_train
from activelearn.errors import ConfigError
from activelearn.page.findings import RULES, bounds_of, findings_of, quantity
from activelearn.page.findings.exploration import by_ensemble
from activelearn.page.findings.glasses import mean_and_block_error, where_outside
from activelearn.page.seen import Seen
from activelearn.records import CellCounts, Melt

DOCS = Path(__file__).resolve().parent.parent / "docs" / "report.md"
KEYS = [rule.key for rule in RULES]


def one_pass(*cells, walks=(), **more):
    return made.of_campaign(made.record(0), made.record(1, made.selection(1, *cells, walks=walks, **more)))


def last(models, **more):
    return made.of_campaign(made.record(0), made.record(1, models=models), **more)


def melt(msd_A2, overlap):
    return Melt(formers=("P",), is_melted=None, ps=20.0, msd_A2=msd_A2, overlap=overlap)


def two_replicas(apart):
    """Two glasses whose volumes differ by so much, Å^3, each known to 0.2."""
    paths = {f"toy-x0-r{k}": made.path(200.0 + k * apart, seed=k) for k in range(2)}
    return made.of_study(made.glass(0), made.glass(1), paths=paths)


def compositions(**errors):
    return last(made.ensemble(1, by=errors))


def spent(wall, engine, total, tasks=8):
    return made.of_campaign(made.record(0, spent={"label": made.seconds(wall, engine, total=total, tasks=tasks)}))


def at_constant_pressure(without):
    campaign = made.stage_named("warm", ensemble="npt-iso", pressures_bar=(0.0,))
    return made.of_campaign(made.record(0, frames=100, dataset_without_virial=without), campaign=campaign)


NOWHERE = [made.walk(k, displacement=0.0001) for k in range(2)]
BROKEN = [made.walk(k, "lost atoms") for k in range(3)]
WALKS = [made.walk(k) for k in range(10)]
ALIKE = {"Na3PS4": made.errors(0.10, mae=1.0), "Na4P2S7": made.errors(0.11, mae=1.0)}
SPREAD = made.errors(0.1, mae=8.0, energy_rmse=10.0)

#: Of every rule what passes its bound, and what does not.
CASES = {
    "not_explored": (
        made.of_campaign(
            *made.passes(0.1, stage="first"), end=made.end(), campaign=made.stage_named("first", "warm", last=1)
        ),
        made.of_campaign(*made.passes(0.1), end=made.end(), campaign=made.stage_named("warm", last=1)),
    ),
    "walks_nowhere": (one_pass(walks=[*WALKS, *NOWHERE]), one_pass(walks=WALKS)),
    "rescued_in_a_row": (
        made.of_campaign(made.record(0), *(made.record(k, made.selection(k, is_rescue=True)) for k in (1, 2))),
        made.of_campaign(made.record(0), *(made.record(k, made.selection(k, is_rescue=k == 2)) for k in (1, 2))),
    ),
    "candidates_flat": (
        made.of_campaign(*made.passes(9.0, 5.0, 4.9, 5.2)),
        made.of_campaign(*made.passes(9.0, 7.0, 5.0)),
    ),
    "one_cell": (
        one_pass(*(made.cell(temperature_K=t, candidate=40 * (t > 600.0)) for t in (300.0, 600.0, 900.0))),
        one_pass(*(made.cell(temperature_K=t, candidate=20) for t in (300.0, 600.0, 900.0))),
    ),
    "walks_broken": (one_pass(walks=[*WALKS, *BROKEN]), one_pass(walks=[*WALKS, *BROKEN[:2]])),
    "out_of_region": (one_pass(made.cell(out=10)), one_pass(made.cell(out=3))),
    "near_duplicates": (
        one_pass(made.cell(candidate=50), passed_over={"near duplicate": 20}),
        one_pass(made.cell(candidate=50), passed_over={"near duplicate": 10, "cap per iteration": 30}),
    ),
    "held_out_p99": (made.of_campaign(accuracy=made.accuracy(0.36)), made.of_campaign(accuracy=made.accuracy(0.34))),
    "false_accepts": (
        made.of_campaign(accuracy=made.accuracy(audited=100, wrong=20)),
        made.of_campaign(accuracy=made.accuracy(audited=100, wrong=5)),
    ),
    "error_per_deviation": (
        made.of_campaign(calibration=made.calibration(4.0)),
        made.of_campaign(calibration=made.calibration(2.0)),
    ),
    "interval_wide": (
        made.of_campaign(accuracy=made.accuracy(audited=8, wrong=1)),
        made.of_campaign(accuracy=made.accuracy(audited=200, wrong=4)),
    ),
    "element_error": (made.of_campaign(residual=made.residual(0.3)), made.of_campaign(residual=made.residual(0.15))),
    "element_deviation": (made.of_campaign(doubted=made.doubted(0.3)), made.of_campaign(doubted=made.doubted(0.15))),
    "composition_error": (
        compositions(**{**ALIKE, "Na4P2S6O": made.errors(0.3)}),
        compositions(**{**ALIKE, "Na4P2S6O": made.errors(0.15)}),
    ),
    "energy_shift": (
        compositions(**{**ALIKE, "Na4P2S6O": made.errors(0.1, mae=8.0, energy_rmse=8.1)}),
        compositions(**{**ALIKE, "Na4P2S6O": SPREAD}),
    ),
    "held_out_few": (last(made.without_held_out(1)), last(made.ensemble(1, n_frames=40))),
    "held_out_rises": (
        made.of_campaign(made.record(0), made.record(1, models=made.ensemble(1, (0.2, 0.2)))),
        made.of_campaign(made.record(0), made.record(1, models=made.ensemble(1, (0.11, 0.12)))),
    ),
    "learnt_nothing": (last(made.ensemble(1, (0.8, 0.2))), last(made.ensemble(1, (0.3, 0.2)))),
    "training_falling": (last(made.ensemble(1, (0.4, 0.4), fall=1.5)), last(made.ensemble(1, (0.1, 0.1), fall=1.5))),
    "member_apart": (last(made.ensemble(1, (0.1, 0.1, 0.1, 0.2))), last(made.ensemble(1, (0.1, 0.1, 0.1, 0.13)))),
    "training_diverged": (last(made.ensemble(1, attempts=2)), last(made.ensemble(1))),
    "stress_energy": (
        made.of_campaign(slope=made.Slope(0.5, 30)),
        made.of_campaign(slope=made.Slope(0.8, 30)),
    ),
    "labels_refused": (
        made.of_campaign(made.record(0, labelled=80, refused={"SCF": 20})),
        made.of_campaign(made.record(0, labelled=97, refused={"SCF": 2, "far": 1})),
    ),
    "no_virial": (at_constant_pressure(10), at_constant_pressure(0)),
    "sel_full": (made.of_campaign(fill=made.fill(39)), made.of_campaign(fill=made.fill(30))),
    "initial_failed": (
        made.of_campaign(made.record(0, initial=made.initial(3))),
        made.of_campaign(made.record(0, initial=made.initial(1))),
    ),
    "glass_outside": (
        made.of_study(made.glass(outside_share=0.1), paths={"toy-x0-r0": made.path(outside=range(10))}),
        made.of_study(made.glass(outside_share=0.04), paths={"toy-x0-r0": made.path(outside=range(4))}),
    ),
    "crowded": (
        made.of_study(made.glass(n_overflow=2, overflow_share=0.02, overflow="S 61 of 56")),
        made.of_study(made.glass(overflow_share=0.0)),
    ),
    "not_melted": (made.of_study(made.glass(melt=melt(1.0, 0.2))), made.of_study(made.glass(melt=melt(9.0, 0.2)))),
    "true_error": (
        made.of_study(board=made.board(made.result("force_error_p99", 0.5, unit="eV/Å"))),
        made.of_study(board=made.board(made.result("force_error_p99", 0.2, unit="eV/Å"))),
    ),
    "glass_died": (made.of_study(made.glass(), made.glass(1, ended="melt: lost atoms")), made.of_study(made.glass())),
    "replicas_disagree": (two_replicas(5.0), two_replicas(0.1)),
    "beside_experiment": (
        made.of_study(board=made.board(made.result(cited=2.3))),
        made.of_study(board=made.board(made.result(cited=2.05), made.result(uncertainty=1e-4, cited=2.03))),
    ),
    "not_measured": (made.of_study(board=made.board(n_missing=2)), made.of_study(board=made.board())),
    "disk_free": (made.of_campaign(disk=made.disk(free_gb=1.0)), made.of_campaign(disk=made.disk())),
    "time_outside": (spent(100.0, 70.0, 100.0), spent(100.0, 85.0, 100.0)),
    "slots_idle": (
        made.of_campaign(*spent(100.0, 90.0, 100.0, 20).campaign.records, slots=4),
        made.of_campaign(*spent(100.0, 90.0, 300.0, 20).campaign.records, slots=4),
    ),
    "infrastructure": (
        made.of_campaign(made.record(0, failures=3)),
        made.of_campaign(made.record(0)),
    ),
    "folder_files": (made.of_campaign(disk=made.disk(n_files=2001)), made.of_campaign(disk=made.disk())),
    "folder_size": (made.of_campaign(disk=made.disk(gb=1.5)), made.of_campaign(disk=made.disk())),
}  # fmt: skip


def found(key, seen, **bounds):
    limits = bounds_of([f"{name}={value}" for name, value in bounds.items()], RULES)
    return [one for one in findings_of(seen, limits) if one.rule.key == key]


def test_every_rule_is_tried_both_ways():
    assert list(CASES) == KEYS or sorted(CASES) == sorted(KEYS)
    assert len(KEYS) == len(set(KEYS)) >= 20


@pytest.mark.parametrize("key", KEYS)
def test_it_is_found_where_its_bound_is_passed(key):
    fires, _ = CASES[key]
    some = found(key, fires)
    assert some
    for one in some:
        assert re.search(r"\d", one.what), "a sentence with its numbers"
        assert one.fix
        assert np.isfinite(one.number)
        assert one.bound == one.rule.bound


@pytest.mark.parametrize("key", KEYS)
def test_it_is_not_found_where_its_bound_is_kept(key):
    assert found(key, CASES[key][1]) == []


@pytest.mark.parametrize("key", KEYS)
def test_what_is_not_known_is_no_finding(key):
    assert found(key, made.of_campaign()) == found(key, made.of_study()) == found(key, Seen()) == []


@pytest.mark.parametrize(
    ("key", "beyond"),
    [("labels_refused", 30), ("held_out_p99", 1.1), ("glass_outside", 20), ("disk_free", 0.5), ("folder_files", 3000)],
)
def test_another_bound_is_another_finding(key, beyond):
    fires, _ = CASES[key]
    assert found(key, fires)
    assert found(key, fires, **{key: beyond}) == []


def test_a_bound_that_is_none_is_told():
    with pytest.raises(ConfigError, match=r"--bound labels_refuse=3: no finding .* did you mean labels_refused\?"):
        bounds_of(["labels_refuse=3"], RULES)
    for text in ("labels_refused=many", "labels_refused", "labels_refused=nan"):
        with pytest.raises(ConfigError, match="not a number - expected key=number"):
            bounds_of([text], RULES)


def test_the_gravest_come_first():
    stakes = [one.rule.stake for one in findings_of(made.everything())]
    assert stakes == sorted(stakes, key=("trust", "accuracy", "cost").index)
    assert stakes[0] == "trust"


def test_a_stage_whose_shares_rise_says_which():
    fires, _ = CASES["candidates_flat"]
    (one,) = found("candidates_flat", fires)
    assert one.what == "stage warm: candidates and failed 5.0, 4.9, 5.2 % with 3 successive ensembles"


def test_passes_of_one_ensemble_are_one_point():
    """Two passes without a training between them are one ensemble's: its frames are counted together."""
    same = made.ensemble(0)
    records = [made.record(0, models=same)]
    records += [made.record(k, made.selection(k, made.cell(candidate=10 * k)), models=same) for k in (1, 2)]
    (counts,) = by_ensemble(records, "warm")
    assert (counts.candidate, counts.accurate) == (30, 200)


def test_a_glass_outside_the_window_says_where_on_its_path():
    said = where_outside(made.path(outside=[60, 61, 70]), 0.35)
    assert said == "first in glass at 11.8 ps, 300 K; by segment: glass 6.0 %"
    assert where_outside(made.path(), 0.35) == ""


def test_a_deviation_that_is_not_finite_is_outside_and_one_that_was_not_evaluated_is_not():
    rows = made.path()
    rows.thermo.max_devi_f[:] = np.nan
    rows.thermo.max_devi_f[10] = np.inf
    assert where_outside(rows, 0.35).startswith("first in melt at 2.0 ps, 1000 K; by segment: melt 100.0 %")


def test_the_error_of_blocks_is_that_of_a_mean():
    values = np.random.default_rng(1).normal(5.0, 2.0, 100_000)
    mean, error = mean_and_block_error(values)
    assert mean == pytest.approx(5.0, abs=0.05)
    assert error == pytest.approx(2.0 / np.sqrt(100_000), rel=0.8), "five blocks know it roughly"
    assert mean_and_block_error(np.ones(100)) is None, "a cell that does not move"
    assert mean_and_block_error(np.arange(5.0)) is None


def test_a_ramp_is_named_by_its_ends():
    from activelearn.page.findings.exploration import cell_name

    ramp = CellCounts(stage="quench", temperature_K=850.0, to_temperature_K=300.0, counts=made.cell().counts)
    assert cell_name(ramp) == "quench 850-300K"


def test_the_page_of_the_docs_has_every_rule_with_its_bound():
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \| (\w+) \| (.*) \|$", DOCS.read_text(), flags=re.MULTILINE)
    assert rows == [(rule.key, quantity(rule.bound, rule.unit), rule.stake, rule.said()) for rule in RULES]


def sections(model, key):
    """Whether a dotted key leads somewhere in a section of a campaign, through tuples and what may be null."""
    name, _, rest = key.partition(".")
    field = model.model_fields.get(name)
    if field is None or not rest:
        return field is not None
    inner = [default_train().__class__] if name == "train" else models_in(field.annotation)
    return any(sections(one, rest) for one in inner)


def models_in(annotation):
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [one for part in get_args(annotation) for one in models_in(part)]


def test_every_bound_has_a_unit():
    assert [rule.key for rule in RULES if not rule.unit] == []


def test_every_key_that_is_advised_is_one_of_a_campaign():
    dotted = re.compile(rf"\b(?:{'|'.join(Campaign.model_fields)})\.[\w.]*\w")
    said = [(rule.key, key) for rule in RULES for key in dotted.findall(rule.fix)]
    assert len(said) > 20
    assert [one for one in said if not sections(Campaign, one[1])] == []


# --- bounds of a machine profile --------------------------------------------------------------------------------------


def test_bounds_of_a_machine_profile_stand_between_the_defaults_and_the_command_line():
    bounds = bounds_of(["labels_refused=12"], RULES, {"labels_refused": 7.0, "held_out_few": 3.0})
    assert (bounds["labels_refused"], bounds["held_out_few"]) == (12.0, 3.0)
    assert bounds["disk_free"] == next(rule.bound for rule in RULES if rule.key == "disk_free")


def test_an_unknown_key_of_a_machine_profile_is_a_problem_before_anything_runs(tmp_path):
    wrong = Machine(report={"bounds": {"labels_refusd": 7.0}})
    (problem,) = check(load_campaign("copper_emt"), wrong, tmp_path / "run", here=False).problems
    assert problem.startswith("report.bounds.labels_refusd of the machine profile: no finding of that name")
    fine = Machine(report={"bounds": {"labels_refused": 7.0}})
    assert check(load_campaign("copper_emt"), fine, tmp_path / "run", here=False).problems == []


def test_an_unknown_key_of_a_machine_profile_is_named():
    with pytest.raises(ConfigError, match=r"report\.bounds\.labels_refusd of the machine profile: .* labels_refused\?"):
        bounds_of((), RULES, {"labels_refusd": 7.0})
