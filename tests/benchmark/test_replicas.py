"""Replicas: how they are grouped, and what stands beside their numbers."""

import numpy as np
import pytest
from made_glasses import study_folder, study_of
from test_glass import path

from activelearn.benchmark.property import Context, Findings, Property
from activelearn.benchmark.replicas import Replicas, over, replicas_of
from activelearn.config import Section
from activelearn.config.benchmark import PROPERTIES, property_of
from activelearn.engines.dynamics import judged
from activelearn.errors import ConfigError
from activelearn.frames import Frames
from activelearn.plugins import Group
from activelearn.records import MadeGlass, Task
from activelearn.stamping import is_trusted
from activelearn.store.study import BENCHMARK, ONCE

WINDOW = (0.15, 0.35)
ARGON = Frames(["Ar"], 5.0 * np.eye(3)[None], np.zeros((1, 1, 3)))


def made(**more):
    return MadeGlass(id="g", potential="toy", x=0.0, replica=0, formula="Ar", n_atoms=1, ended="finished", **more)


@pytest.mark.parametrize(
    ("share", "n_overflow", "trusted"),
    [(None, 0, None), (None, 1, False), (0.05, 0, True), (0.051, 0, False), (0.0, 1, False)],
)
def test_a_glass_and_a_run_that_began_with_it_are_judged_by_one_rule(tmp_path, share, n_overflow, trusted):
    assert is_trusted(share, n_overflow, 0.05) is trusted
    settings = study_of().glass
    assert settings.max_outside_share == 0.05
    made_so = path(share, overflow=0.5 if n_overflow else None)
    assert is_trusted(made_so.outside_share, made_so.n_overflow, settings.max_outside_share) is trusted
    store = study_folder(tmp_path, study_of(), [ARGON])
    (one,) = Context(store.study, store).glasses
    task = Task(id="run-g", kind="run", parameters={"glass": one.id})
    overflow = {"n_overflow": n_overflow, "overflow_share": 0.5 if n_overflow else 0.0, "overflow": "Ar 61 of 56"}
    meta = {"ended": "finished", "n_judged": 0 if share is None else 100, "outside_share": share, **overflow}
    store.publish_product(BENCHMARK, ONCE, task.id, {}, meta)
    replicas = replicas_of(Context(store.study, store), [(one, task)], {}, Findings())
    assert [run.is_trusted for run in replicas.runs] == ([] if trusted is None else [trusted])
    assert len(replicas) == 1
    assert (replicas.stamp or "").startswith("UNTRUSTED") is (trusted is False)


def test_a_deviation_that_is_not_finite_counts_as_outside_of_the_window():
    """The models have lost the atoms: of a glass and of a run of diffusion alike."""
    deviation = np.array([0.1, np.nan, 0.1, np.inf, 0.4, 0.1, 0.1, 0.1])
    assert judged(deviation, WINDOW)[:2] == (8, 0.375)
    assert is_trusted(0.375, 0, 0.25) is False
    assert is_trusted(float(np.mean(deviation[np.isfinite(deviation)] >= 0.35)), 0, 0.25) is True, "what they hide"
    assert judged(np.full(3, np.nan), WINDOW) == (0, None, None), "no ensemble"


def test_the_worst_of_glasses_and_runs_of_several_conditions_stands_beside_their_number():
    good, poor = made(is_trusted=True, n_judged=9, outside_share=0.01), made(is_trusted=False, outside_share=0.3)
    calm = Replicas({"x": 0.0}, [good], [{}], [{}])
    rough = Replicas({"x": 1.0}, [good], [{}], [{}], runs=[poor])
    assert calm.stamp == "1.0 % of frames outside the window"
    assert rough.stamp == over([calm, rough], {}).stamp == "UNTRUSTED: 30.0 % of frames outside the window"
    assert len(over([calm, rough], {})) == 2
    assert Replicas({}).stamp is None
    full = Replicas({}, [poor], [{}], [{"n_overflow": 1, "overflow_share": 0.5, "overflow": "S 61 of 56"}])
    assert full.stamp == f"{rough.stamp}; more neighbours than sel holds: S 61 of 56 in 50.0 % of frames"


def test_a_line_is_labelled_with_its_condition():
    curve = Replicas({"potential": "toy", "x": 0.5}, [made()]).curve("rdf", "P-S", ("r (Å)", "g(r)"), within="3 Å")
    assert (curve.key, curve.condition["within"], curve.stamp) == ("rdf/toy/0.5/3 Å/P-S", "3 Å", "not judged")


def test_a_property_of_another_name_than_its_entry_point_is_refused(monkeypatch):
    found = Property("other", Section, run=None, results=None)
    monkeypatch.setattr(Group, "find", lambda self, name: found)
    with pytest.raises(ConfigError, match=r"mine is the property 'other' - expected the same name"):
        property_of("mine")


def test_ours_are_in_the_order_of_the_tables_and_call_themselves_as_they_are_called():
    assert PROPERTIES.names()[:5] == ["parity", "force_error", "crystals", "reactions", "density"]
    assert [property_of(name).name for name in PROPERTIES.built_in] == [*PROPERTIES.built_in]
    of_no_glass = {name for name in PROPERTIES.built_in if not property_of(name).needs_glass}
    assert of_no_glass == {"parity", "crystals", "reactions"}
