"""How far a walk came: known motions give their numbers, and what went nowhere is never quiet."""

from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import bulk
from test_select import fabricate, gathered

from activelearn import ending, explore, loop
from activelearn.config import Condition, Stage, Stop
from activelearn.frames import Frames, make_origin
from activelearn.records import CellCounts, Counts, Ensemble, Reach, Selection, WalkRecord
from activelearn.select import reach
from activelearn.store import Store
from activelearn.units import AMU_A2_PER_PS2_IN_EV, BOLTZMANN_EV_PER_K

STAGE = Stage(name="cold", temperatures_K=(300.0,), n_steps=50, every=5, timestep_fs=2.0)
ATOMS = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
MASSES = ATOMS.get_masses()


def walk(moved, *, cells=None, imposed_K=300.0, step=None, atoms=ATOMS):
    """Return frames whose atoms moved by (n, n_atoms, 3) Å from the start, wrapped as LAMMPS writes them."""
    n = len(moved)
    cell = np.repeat(atoms.cell.array[None], n, axis=0) if cells is None else atoms.cell.array @ cells
    fractional = atoms.get_scaled_positions() + moved @ np.linalg.inv(cell)
    step = STAGE.every * np.arange(n) if step is None else step
    origin = make_origin(n, step=step, temperature_K=imposed_K)
    return Frames(tuple(atoms.get_chemical_symbols()), cell, (fractional % 1.0) @ cell, origin=origin)


def flying(n=11, *, seconds=1.0):
    """Return the displacements of free atoms with the velocities of exactly 300 K, a frame each 10 fs."""
    v = np.random.default_rng(3).normal(size=(len(ATOMS), 3)) / np.sqrt(MASSES)[:, None]
    v -= np.average(v, axis=0, weights=MASSES)
    energy = 0.5 * AMU_A2_PER_PS2_IN_EV * (MASSES[:, None] * v**2).sum()
    v *= np.sqrt(1.5 * (len(ATOMS) - 1) * BOLTZMANN_EV_PER_K * 300.0 / energy)
    return v * 0.01 * seconds * np.arange(n)[:, None, None]


def measured(frames, temperature_K=300.0, stage=STAGE):
    return reach.measure(frames, np.full(len(frames), temperature_K), stage)


LATE = np.sqrt((np.arange(5, 11) ** 2).mean())


def test_free_flight_is_as_long_as_its_time():
    """Of frames 5 to 10 at 50 to 100 fs, measured in flights of 10 fs; more than a cell is crossed on the way."""
    found = measured(walk(flying()))
    assert found.displacement / found.flight == pytest.approx(LATE, rel=1e-5)
    assert (found.walked_fs, found.temperature_K, found.imposed_K) == (100.0, 300.0, 300.0)
    far = measured(walk(flying(seconds=20.0)))
    assert far.displacement / far.flight == pytest.approx(20.0 * LATE, rel=1e-5)
    assert not reach.went_nowhere(found)


def test_drift_and_strain_of_the_cell_are_no_motion():
    drift = np.arange(11)[:, None, None] * np.array([0.3, -0.2, 0.1]) * np.ones((1, len(ATOMS), 1))
    strained = np.eye(3) + np.linspace(0.0, 0.3, 11)[:, None, None] * np.array([[1, 0, 0], [1, 0, 0], [0, 0, -1]])
    found = measured(walk(drift, cells=strained))
    assert found.displacement == pytest.approx(0.0, abs=1e-10)
    assert reach.went_nowhere(found)


def test_heavy_and_light_atoms_count_alike():
    """Of two atoms with equal kinetic energy and opposite momenta, the heavy one moves less."""
    pair = ATOMS[:2]
    m = pair.get_masses()
    assert m[0] != m[1]
    momentum = np.array([[1.0, 0, 0], [-1.0, 0, 0]])
    moved = np.arange(11)[:, None, None] * 0.02 * momentum / m[:, None] * m[0]
    by_hand = 0.02 * np.sqrt((m[0] + m[0] ** 2 / m[1]) / m.sum()) * LATE
    assert measured(walk(moved, atoms=pair)).displacement == pytest.approx(by_hand, rel=1e-5)


def test_the_imposed_temperature_is_that_of_the_ramp_and_the_flight_that_of_its_start():
    ramp = np.linspace(10.0, 2000.0, 11)
    found = measured(walk(flying(), imposed_K=ramp), 5.0)
    assert found.imposed_K == pytest.approx(ramp[5:].mean(), rel=1e-5)
    total = MASSES.sum() * AMU_A2_PER_PS2_IN_EV
    speed = np.sqrt(3 * (len(ATOMS) - 1) * BOLTZMANN_EV_PER_K * 10.0 / total)
    assert found.flight == pytest.approx(0.01 * speed, rel=1e-5)
    assert reach.went_nowhere(found), "5 K where 1500 K is imposed"


def test_what_cannot_be_known_is_not_judged():
    still = np.zeros((11, len(ATOMS), 3))
    assert measured(walk(still)) is not None
    assert measured(walk(still[:3])) is not None, "it broke off after 20 fs"
    assert measured(walk(still[:2])) is None, "after 10 fs"
    assert measured(walk(still[:1])) is None
    assert measured(walk(still)[[]]) is None
    assert measured(walk(still[:, :1], atoms=ATOMS[:1])) is None, "one atom has no motion but its drift"


GOOD = Reach(walked_fs=100.0, displacement=0.1, flight=0.03, temperature_K=250.0, imposed_K=300.0)
HELD = GOOD.model_copy(update={"displacement": 0.0, "temperature_K": 0.0})


@pytest.mark.parametrize(
    ("changes", "nowhere"),
    [
        ({}, False),
        ({"temperature_K": 140.0}, False),  # NVE from rest
        ({"displacement": 0.012}, False),  # diamond
        ({"displacement": 0.0013}, True),
        ({"walked_fs": 20.0}, False),
        ({"walked_fs": 19.0}, True),
        ({"temperature_K": 10.0}, True),
        ({"temperature_K": 1e5, "displacement": 3.0}, False),  # it blew up
    ],
)
def test_which_walks_went_nowhere(changes, nowhere):
    assert reach.went_nowhere(GOOD.model_copy(update=changes)) is nowhere


def said(walks, **stage):
    settings = STAGE.model_copy(update=stage)
    return reach.unexplored({("cold", Condition(300.0)): walks}, [settings])


def test_most_walks_of_a_cell_decide_and_those_not_known_have_no_say():
    assert said([HELD, HELD, GOOD]).keys() == {"cold"}
    assert said([HELD, HELD, GOOD, GOOD]) == {}, "half is not most"
    assert said([HELD, None, None]).keys() == {"cold"}
    assert said([None, None]) == {}, "products of before say nothing"
    two = {("cold", Condition(300.0)): [GOOD, GOOD], ("cold", Condition(10.0, 2000.0)): [HELD]}
    assert "at 10-2000K in 1 of 1 walks" in reach.unexplored(two, [STAGE])["cold"]


@pytest.mark.parametrize(
    ("changes", "stage", "sentences"),
    [
        (
            {"walked_fs": 0.2, "displacement": 0.0003},
            {"timestep_fs": 0.002},
            ("0.2 fs walked", "rms displacement 0.0003 Å, where free atoms cover 0.03 Å in 10 fs",
             "n_steps = 50 of timestep_fs = 0.002 fs (it is in fs: was 0.002 meant in ps, 2 fs?)"),
        ),
        ({"temperature_K": 3.0}, {}, ("reached 3 K of 300 K", "temperature_damping_ps = 0.1 for 0.1 ps")),
        (
            {"displacement": 0.0, "temperature_K": 0.0},
            {"lammps": "fix hold all setforce 0 0 0"},
            ("rms displacement 0 Å", "reached 0 K of 300 K", "its own `lammps` lines"),
        ),
    ],
)  # fmt: skip
def test_the_reason_has_the_figures_and_the_likely_cause(changes, stage, sentences):
    text = said([GOOD.model_copy(update=changes)] * 3, **stage)["cold"]
    for sentence in ("stage cold went nowhere at 300K in 3 of 3 walks", *sentences):
        assert sentence in text
    if changes.get("displacement") == 0.0:
        assert "damping" not in text, "no thermostat moves what is held"


# --- the verdict ------------------------------------------------------------------------------------------------------


def of_one_stage(campaign, **stop):
    stages = campaign.explore.stages[:1]
    explored = campaign.explore.model_copy(update={"stages": stages})
    return campaign.model_copy(update={"explore": explored, "stop": Stop(min_walks=4, min_frames=50, **stop)})


QUIET = 4 * [("cold", [0.1] * 25, None)]


@pytest.mark.parametrize(("far", "converged"), [(GOOD, True), (HELD, False), (None, True)])
def test_a_pass_that_went_nowhere_is_neither_quiet_nor_rescued(store, campaign, far, converged):
    campaign = of_one_stage(campaign)
    fabricate(store, campaign, QUIET, reach=far)
    found, _ = gathered(store, campaign)
    assert found.is_converged is converged
    assert found.quiet_stages == (("cold",) if converged else ())
    assert found.unexplored_stages == (() if converged else ("cold",))
    assert found.is_rescue is False, "a longer training does not make atoms move"
    assert found.why.startswith("converged" if converged else "not explored: stage cold went nowhere at 100K in 4 of 4")
    assert {record.reach for record in found.walks} == {far}


def test_a_cell_that_went_nowhere_is_not_quiet_and_keeps_its_walks(store, campaign):
    settings = {
        "iteration": 1, "f_lo": 0.1, "f_hi": 0.2, "walks": (), "chosen": 0, "rescued": 0, "is_rescue": False,
        "passed_over": {}, "next_stages": ("cold",), "quiet_stages": (), "is_converged": False, "why": "",
        "stages": ("cold",),
        "cells": (CellCounts(stage="cold", temperature_K=100.0, counts=Counts(walked=84, accurate=84, walks=4)),),
    }  # fmt: skip
    quiet, nowhere = Selection(**settings), Selection(**settings, unexplored_stages=("cold",))
    assert len(explore.cells_below_bounds([quiet, quiet], campaign)) == 1
    assert explore.cells_below_bounds([quiet, nowhere], campaign) == set()
    unlearnt = Selection(**settings, learnt_nothing=True)
    assert explore.cells_below_bounds([quiet, unlearnt], campaign) == set(), "quiet for what the models did not learn"


def test_a_record_of_before_says_nothing_of_it():
    old = {"id": "w", "stage": "cold", "ended": "finished", "sha256": "0"}
    assert WalkRecord.model_validate(old).reach is None


def test_it_ends_at_once_and_an_accepted_change_makes_it_go_on(tmp_path, campaign, monkeypatch):
    campaign = of_one_stage(campaign)
    store = Store.create(tmp_path / "one-stage", campaign)
    store.open_iteration(0, campaign)
    store.open_iteration(1, campaign)
    fabricate(store, campaign, QUIET, reach=HELD)
    found, _ = gathered(store, campaign)
    labelling, ensemble = SimpleNamespace(calibration=(), refused={}), store.result("train", 0, Ensemble)
    last = SimpleNamespace(index=1, selection=found, initial=None, labelling=labelling, ensemble=ensemble)
    monkeypatch.setattr(Store, "iterations", lambda _: [last])
    end = loop.verdict(store)
    assert (end.converged, end.exit_code) == (False, 3)
    assert end.message.startswith("not explored: stage cold went nowhere")
    assert "change explore.stages and run again with --accept-changes" in end.message
    assert end.message.count("held-out P99 of the force error") == 1
    store.accept(campaign.model_copy(update={"description": "without the line that held the atoms"}))
    assert loop.verdict(store) is None


def test_it_goes_on_while_there_is_something_to_label(store, campaign):
    campaign = of_one_stage(campaign)
    fabricate(store, campaign, 4 * [("cold", [0.1] * 20 + [0.2] * 5, None)], reach=HELD)
    found, _ = gathered(store, campaign)
    assert found.chosen == 20
    assert found.unexplored_stages == ("cold",)
    assert not ending._is_stuck(found)


def test_a_stage_that_went_nowhere_and_had_all_its_passes_says_that_the_next_one_joins(store, campaign):
    first, *others = campaign.explore.stages
    bounded = campaign.explore.model_copy(update={"stages": (first.model_copy(update={"max_passes": 1}), *others)})
    campaign = campaign.model_copy(update={"explore": bounded, "stop": Stop(min_walks=4, min_frames=50)})
    fabricate(store, campaign, QUIET, reach=HELD)
    found, _ = gathered(store, campaign)
    assert found.next_stages == ("cold", "warm")
    assert "); the next stage joins; held-out P99" in found.why
    assert not ending._is_stuck(found), "there is something new to walk"


def test_a_bound_names_the_stage_that_went_nowhere(store, campaign):
    """It was "not all stages are quiet ()": no share of it is too large."""
    campaign = of_one_stage(campaign)
    fabricate(store, campaign, QUIET, reach=HELD)
    found, _ = gathered(store, campaign)
    assert "(cold, whose walks went nowhere)" in ending._stage_bound(found, campaign, "")
    assert found.why.count("went nowhere") == 1
    assert "held back by cold, whose walks went nowhere; stages explored" in ending._bound(found, campaign, 1)


def test_a_figure_that_is_no_number_is_not_sealed():
    """JSON has no NaN."""
    assert measured(walk(flying()), 300.0) is not None
    assert measured(walk(flying()), np.nan) is None
