"""The verdict and the opening of iterations, without engines: what may and may not change in a running campaign."""

import pytest
from test_capacity import labelling_of, seal_record, selection_of

from activelearn import ending, loop
from activelearn.config import Isolated, Machine, Relax
from activelearn.engines import reference
from activelearn.errors import ConfigError
from activelearn.store import Store
from activelearn.store.files import publish_yaml
from activelearn.store.references import identity_sha256


@pytest.fixture
def store(tmp_path, campaign):
    """A campaign folder in which no iteration is open."""
    return Store.create(tmp_path / "campaign", campaign)


@pytest.fixture
def fingerprints(monkeypatch):
    """The reference as the worker would describe it; a test changes it as an upgrade would."""
    found = {"calculator": "ase.calculators.emt:EMT", "version": "1.0"}
    monkeypatch.setattr(reference, "fingerprint", lambda *_: {**found, "sha256": identity_sha256(found)})
    return found


def test_an_upgraded_reference_is_not_mixed_into_the_data_set(store, fingerprints):
    loop.CampaignPhase(0, loop.FIRST, store).begin(Machine())
    fingerprints.update(version="2.0")
    with pytest.raises(ConfigError) as caught:
        loop.CampaignPhase(1, loop.LOOP, store).begin(Machine())
    assert "is not the one of iteration 0 (version 1.0 -> 2.0)" in str(caught.value)
    assert store.opened_iterations() == [0]
    fingerprints.update(version="1.0")
    loop.CampaignPhase(1, loop.LOOP, store).begin(Machine())
    assert store.opened_iterations() == [0, 1], "with the previous version it continues"


def test_an_iteration_is_opened_once(store, fingerprints, campaign):
    loop.CampaignPhase(0, loop.FIRST, store).begin(Machine())
    store.accept(campaign.model_copy(update={"description": "changed"}))
    loop.CampaignPhase(0, loop.FIRST, store).begin(Machine())
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
def test_which_changes_reopen_a_converged_campaign(store, fingerprints, campaign, changes, same):
    update = {
        name: getattr(campaign, name).model_copy(update=value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    assert is_reopened(store, campaign.model_copy(update=update)) is not same


def is_reopened(store, changed):
    """Return whether an accepted change takes up a campaign that has ended with iteration 0."""
    loop.CampaignPhase(0, loop.FIRST, store).begin(Machine())
    store.accept(changed)
    return ending._is_reopened(store, 0, store.latest_campaign())


def test_a_checksum_of_an_earlier_version_is_no_other_campaign(store, fingerprints, campaign):
    """A new key with a default changes the checksum of a campaign and nothing else: four rescues are four rescues."""
    rescued = {"is_rescue": True, "is_converged": False, "why": "rescue"}
    for i in range(1 + campaign.select.rescue.max_in_a_row + 1):
        more = {"campaign_sha256": "of an earlier version", "selection": selection_of(i, **rescued)}
        seal_record(store, i, labelling_of(i, {}), **(more if i else {}))
    assert loop.verdict(store).message.startswith("4 passes in a row failed almost everywhere")
    store.accept(campaign.model_copy(update={"train": campaign.train.model_copy(update={"n_steps": 301})}))
    assert loop.verdict(store) is None


def with_initial(campaign, **changes):
    return campaign.model_copy(update={"initial": campaign.initial.model_copy(update=changes)})


@pytest.mark.parametrize("is_explored_apart", [False, True])
def test_a_crystal_added_to_the_initial_systems_reopens_it(store, fingerprints, campaign, is_explored_apart):
    """Also where walks start from systems of their own: more data make another ensemble."""
    if is_explored_apart:
        apart = campaign.explore.model_copy(update={"systems": campaign.initial.systems})
        campaign = campaign.model_copy(update={"explore": apart})
        store.accept(campaign)
    systems = (*campaign.initial.systems, campaign.initial.systems[0].model_copy(update={"supercell": (2, 2, 3)}))
    assert is_reopened(store, with_initial(campaign, systems=systems))
    assert loop.phase_of(store, 1).stations == loop.FIRST


def test_isolated_atoms_added_to_the_initial_data_reopen_it(store, fingerprints, campaign):
    """Atoms of one element that fell into each other are what makes a person add them."""
    assert is_reopened(store, with_initial(campaign, isolated=Isolated()))
    step = loop.phase_of(store, 1)
    assert step.stations == loop.FIRST
    step.begin(Machine())
    tasks = loop.STATIONS["initial"].plan(store.campaign(1), store, 1)
    assert [task.id for task in tasks] == ["isolated-Cu", "isolated-Cu-Cu"], "and nothing that is there already"


def test_a_relaxation_that_is_asked_for_later_is_carried_out_first(store, fingerprints, campaign):
    loop.CampaignPhase(0, loop.FIRST, store).begin(Machine())
    store.accept(with_initial(campaign, relax=Relax()))
    step = loop.phase_of(store, 1)
    assert step.stations == loop.FIRST
    step.begin(Machine())
    assert len(loop.STATIONS["prepare"].plan(store.campaign(1), store, 1)) == 1
    assert loop.STATIONS["initial"].plan(store.campaign(1), store, 1) == []


@pytest.mark.parametrize(
    ("changes", "is_changed"),
    [({}, False), ({"final": {"keep": "trained"}}, False), ({"train": {"n_steps": 1000}}, True)],
)
def test_what_counts_as_another_campaign_after_one_was_given_up(store, fingerprints, campaign, changes, is_changed):
    """Not a key that is newer than the folder, and not a choice that asks for no work."""
    loop.CampaignPhase(0, loop.FIRST, store).begin(Machine())
    file = store.iteration_folder(0) / "campaign.yaml"
    older = campaign.to_yaml().replace("  keep: better\n", "")
    assert older != campaign.to_yaml()
    file.unlink()
    publish_yaml(file, older)
    update = {name: getattr(campaign, name).model_copy(update=value) for name, value in changes.items()}
    assert ending._is_changed(Store(store.folder), 0, campaign.model_copy(update=update)) is is_changed
