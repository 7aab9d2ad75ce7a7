"""The verdict and the opening of iterations, without engines: what may and may not change in a running campaign."""

import pytest

from activelearn import loop
from activelearn.config import Machine
from activelearn.engines import reference
from activelearn.errors import ConfigError
from activelearn.loop import Step
from activelearn.store import Store


@pytest.fixture
def store(tmp_path, campaign):
    """A campaign folder in which no iteration is open."""
    return Store.create(tmp_path / "campaign", campaign)


@pytest.fixture
def fingerprints(monkeypatch):
    """The reference as the worker would describe it; a test changes it as an upgrade would."""
    found = {"calculator": "ase.calculators.emt:EMT", "version": "1.0", "sha256": "a"}
    monkeypatch.setattr(reference, "fingerprint", lambda *_: dict(found))
    return found


def test_an_upgraded_reference_is_not_mixed_into_the_data_set(store, fingerprints):
    loop.begin(store, Step(0, loop.FIRST), Machine())
    fingerprints.update(version="2.0", sha256="b")
    with pytest.raises(ConfigError) as caught:
        loop.begin(store, Step(1, loop.LOOP), Machine())
    assert "is not the one of iteration 0 (version 1.0 -> 2.0)" in str(caught.value)
    assert store.opened_iterations() == [0]
    fingerprints.update(version="1.0", sha256="a")
    loop.begin(store, Step(1, loop.LOOP), Machine())
    assert store.opened_iterations() == [0, 1], "with the version of before it goes on"


def test_an_iteration_is_opened_once(store, fingerprints, campaign):
    loop.begin(store, Step(0, loop.FIRST), Machine())
    store.accept(campaign.model_copy(update={"description": "changed"}))
    loop.begin(store, Step(0, loop.FIRST), Machine())
    assert store.campaign(0).description == campaign.description


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"description": "other words"}, True),
        ({"stop": {"max_iterations": 50}}, True),
        ({"stop": {"candidate_share": 0.001}}, False),
        ({"select": {"f_lo": 0.1}}, False),
        ({"final": {"n_steps": 1000}}, False),
        ({"train": {"n_steps": 1000}}, True),
    ],
)
def test_which_changes_reopen_a_converged_campaign(campaign, changes, same):
    update = {
        name: getattr(campaign, name).model_copy(update=value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    assert loop._is_same_question(campaign, campaign.model_copy(update=update)) is same


def test_a_crystal_added_to_the_initial_systems_reopens_it(campaign):
    systems = (*campaign.initial.systems, campaign.initial.systems[0].model_copy(update={"supercell": (2, 2, 3)}))
    more = campaign.model_copy(update={"initial": campaign.initial.model_copy(update={"systems": systems})})
    assert campaign.explore.systems is None
    assert not loop._is_same_question(campaign, more)
