"""Labels of a ledger join the initial data: of the same reference, or of one that is named; each is paid for once."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from campaigns import SMALL, end_sessions, tiny
from conftest import rattled_copper

from activelearn import exchange, inherited, loop
from activelearn.check import check
from activelearn.cli.labels import fingerprint_of
from activelearn.config import Machine, load_campaign
from activelearn.engines import process
from activelearn.errors import ConfigError
from activelearn.frames import make_origin
from activelearn.records import InitialData, Labelling
from activelearn.store import Lease, Ledger, Store
from activelearn.store.ledger import publish_labels
from activelearn.store.references import identity_sha256
from activelearn.tasks import carry_out, gather

PBE = exchange.declared("functional=PBE,includes_dispersion=false,code=VASP-6.4.2")
#: What is known of the tiny campaign's reference before it is asked.
EMT = {"calculator": "ase.calculators.emt:EMT", "functional": "none", "includes_dispersion": False} | {
    "precision": "float64", "threads": 1
}  # fmt: skip
MACHINE = Machine(slots=1, **SMALL)
STATIC = {"initial__md": None, "initial__copies": 3}


@pytest.fixture(scope="module", autouse=True)
def sessions():
    """One session of EMT for all tests."""
    process.allow_engines()
    yield
    end_sessions()


@pytest.fixture(scope="module")
def emt():
    """The identity of the campaigns' reference, computed from the preset as `labels import --reference emt` does."""
    return fingerprint_of("emt", trust=False)


@pytest.fixture
def shared(tmp_path):
    return tmp_path / "shared"


@pytest.fixture
def donated(shared, emt):
    """Three trajectories of 2, 2 and 3 frames of 32 atoms, labelled by EMT, in a shared ledger."""
    return donate(shared, emt, walks=("a", "a", "b", "b", "c", "c", "c"))


def donate(folder, identity, *, walks, random_seed=5):
    part = rattled_copper(len(walks), random_seed=random_seed, repeat=(2, 2, 2))
    part = replace(part, origin=make_origin(len(walks), walk=np.array(walks)))
    publish_labels(folder, "import", [part], identity)
    return part


def opened(folder):
    ledger = Ledger(folder)
    ledger.refresh()
    return ledger


def begun(folder, shared, **changes):
    """Begin the tiny campaign on static frames (6 labels of its own)."""
    folder.mkdir(exist_ok=True)
    campaign = load_campaign(tiny(folder / "c.yaml", label__ledger=str(shared), **STATIC, **changes))
    store = Store.create(folder / "c", campaign)
    step = loop.next_phase(store)
    step.begin(MACHINE)
    return store, [station for station in step.stations if station.name != "train"]


def labelled(folder, shared, **changes):
    """Run the tiny campaign up to its first data set, without training; return the store and the two records."""
    store, stations = begun(folder, shared, **changes)
    with Lease(store.folder):
        for station in stations:
            carry_out(station, store, 0, MACHINE)
            gather(station, store, 0, MACHINE)
    return store, store.result("initial", 0, InitialData), store.result("label", 0, Labelling)


def all_frames(store):
    return [*store.dataset(0), *store.held_out(0)]


def test_labels_of_the_same_reference_join_and_are_not_computed(tmp_path, shared, donated):
    store, initial, labels = labelled(tmp_path / "one", shared, initial__from_ledger=True)
    assert (initial.from_ledger, initial.n_frames, initial.passed_over, initial.mixed_references) == (7, 13, {}, ())
    assert (labels.labels_computed, labels.labels_adopted, labels.labels_reused) == (6, 0, 7)
    assert (labels.labelled, labels.refused) == (13, {})
    came = [part for part in all_frames(store) if str(part.origin["walk"][0]).startswith("ledger-")]
    energies = np.concatenate([part.energy for part in came])
    assert sorted(energies.tolist()) == sorted(donated.energy.tolist()), "to the bit"
    assert len(opened(shared)) == 13


def test_without_being_asked_nothing_joins(tmp_path, shared, donated):
    _, initial, labels = labelled(tmp_path / "one", shared)
    assert (initial.from_ledger, initial.n_frames, labels.labelled) == (0, 6, 6)


def test_whole_trajectories_of_the_ledger_are_held_out(tmp_path, shared, donated):
    store, initial, _ = labelled(tmp_path / "one", shared, initial__from_ledger=True)
    held = [name for name in initial.held_out if name.startswith("ledger-")]
    assert len(held) == 1, "a sixth of three, but at least one"
    there = {str(walk) for part in store.held_out(0) for walk in part.origin["walk"]}
    learnt = {str(walk) for part in store.dataset(0) for walk in part.origin["walk"]}
    assert held[0] in there
    assert not there & learnt


def test_a_trajectory_with_most_of_the_frames_is_never_held_out(copper):
    parts = [replace(copper[rows], origin=make_origin(len(rows), walk=w)) for w, rows in (("a", [0, 1]), ("b", [2]))]
    assert inherited.families(parts) == {"b": "ledger Cu4"}
    assert inherited.families(parts[:1]) == {}


def test_two_campaigns_on_one_ledger_pay_for_a_label_once(tmp_path, shared):
    _, _, first = labelled(tmp_path / "one", shared)
    _, _, second = labelled(tmp_path / "two", shared)
    assert (first.labels_computed, second.labels_computed, second.labels_reused) == (6, 0, 6)
    _, initial, third = labelled(tmp_path / "three", shared, random_seed=9, initial__from_ledger=True)
    assert (initial.from_ledger, third.labels_computed, third.labels_reused) == (6, 6, 6), "others' labels join"
    _, initial, again = labelled(tmp_path / "four", shared, initial__from_ledger=True)
    assert initial.passed_over == {"the structure is there already": 6}, "its own frames are not there twice"
    assert (initial.from_ledger, again.labels_computed) == (6, 0)


def test_labels_of_a_campaign_are_exported_with_their_structures(tmp_path, shared, emt):
    store, _, _ = labelled(tmp_path / "one", shared)
    ledger = exchange.opened(store.folder)
    assert ledger.folder == shared
    found = ledger.structures(emt["sha256"])
    assert sorted(np.concatenate([part.energy for part in found]).tolist()) == sorted(
        np.concatenate([part.energy for part in all_frames(store)]).tolist()
    )
    assert len(found) == 6, "each of its trajectories by itself"


# --- another reference ------------------------------------------------------------------------------------------------


def test_labels_of_another_reference_are_refused_unless_they_are_named(tmp_path, shared):
    donate(shared, PBE, walks=("a", "b"))
    with pytest.raises(ConfigError, match=r"no label of this campaign's reference .* - expected the same"):
        labelled(tmp_path / "one", shared, initial__from_ledger=True)
    with pytest.raises(ConfigError, match="0 references begin with ffffff"):
        labelled(tmp_path / "two", shared, initial__from_ledger=["ffffff"])
    _, initial, labels = labelled(tmp_path / "three", shared, initial__from_ledger=[PBE["sha256"][:8]])
    assert (initial.from_ledger, initial.mixed_references) == (2, (PBE["sha256"],))
    assert (labels.labels_computed, labels.labels_reused) == (6, 2)


def test_a_foreign_label_is_never_taken_for_one_of_the_campaigns_reference(tmp_path, shared, emt):
    part = donate(shared, PBE, walks=("a", "b"))
    labelled(tmp_path / "one", shared, initial__from_ledger=[PBE["sha256"][:8]])
    ledger = opened(shared)
    assert all(part.structure_key(k, PBE["sha256"]) in ledger for k in range(2))
    assert not any(part.structure_key(k, emt["sha256"]) in ledger for k in range(2))


def test_others_in_a_shared_ledger_are_counted_and_left(tmp_path, shared, donated):
    donate(shared, PBE, walks=("a", "b"), random_seed=6)
    _, initial, _ = labelled(tmp_path / "one", shared, initial__from_ledger=True)
    assert initial.from_ledger == 7
    assert initial.passed_over == {f"label of another reference, {PBE['sha256'][:12]}": 2}


# --- what does not fit, and what is lost ------------------------------------------------------------------------------


def test_elements_and_neighbours_that_the_models_cannot_have_are_passed_over(tmp_path, shared, donated, emt):
    silver = rattled_copper(2, random_seed=7)
    silver = replace(silver, symbols=("Ag", "Cu", "Cu", "Cu"))
    dense = rattled_copper(3, random_seed=8)
    dense = replace(dense, cell=0.6 * dense.cell, positions=0.6 * dense.positions)
    publish_labels(shared, "import", [silver, dense], emt)
    _, initial, _ = labelled(tmp_path / "one", shared, initial__from_ledger=True)
    assert initial.from_ledger == 7
    assert initial.passed_over == {"elements not in type_map: Ag": 2, "more neighbours than sel holds": 3}


def test_a_ledger_that_is_lost_after_the_sealing_costs_nothing_that_it_brought(tmp_path, shared, donated, emt):
    donate(shared, PBE, walks=("a",), random_seed=6)
    store, stations = begun(tmp_path / "one", shared, initial__from_ledger=[PBE["sha256"][:8]])
    for station in stations[:-1]:
        carry_out(station, store, 0, MACHINE)
        gather(station, store, 0, MACHINE)
    shutil.rmtree(shared)
    store = Store.open(store.folder)
    carry_out(stations[-1], store, 0, MACHINE)
    gather(stations[-1], store, 0, MACHINE)
    assert store.result("label", 0, Labelling).labels_computed == 6
    again = opened(shared)
    assert set(again.references()) == {emt["sha256"], PBE["sha256"]}
    assert [len(again.structures(sha)) for sha in (emt["sha256"], PBE["sha256"])] == [6 + 3, 1]


def test_what_joined_is_sealed_before_the_record_whatever_comes_to_the_ledger_then(tmp_path, shared, donated, emt):
    store, stations = begun(tmp_path / "one", shared, initial__from_ledger=True)
    initial = next(station for station in stations if station.name == "initial")
    for station in stations[: stations.index(initial) + 1]:
        carry_out(station, store, 0, MACHINE)
    first = initial.gather(store.campaign(0), store, 0)  # killed before the record is sealed
    donate(shared, emt, walks=("d",), random_seed=6)
    assert initial.gather(store.campaign(0), store, 0) == first
    assert first.from_ledger == 7


def test_check_says_what_is_there_and_what_is_not(tmp_path, shared, donated, emt):
    def found(**changes):
        campaign = load_campaign(tiny(tmp_path / "c.yaml", label__ledger=str(shared), **changes))
        return check(campaign, MACHINE, tmp_path / "c")

    assert not any("ledger" in fact for fact in found().facts)
    line = f"from the ledger: 7 of none ({emt['sha256'][:12]}) labels in {shared}"
    assert line in found(initial__from_ledger=True).facts
    (problem,) = found(initial__from_ledger=["ffffff"]).problems
    assert problem.startswith("initial.from_ledger: 0 references begin with ffffff")


@pytest.mark.parametrize(
    "other",
    [
        PBE,
        {
            "calculator": "gpaw",
            "functional": "none",
            "includes_dispersion": False,
            "precision": "float64",
            "threads": 1,
        },
        {**EMT, "functional": "PBE"},
        {**EMT, "includes_dispersion": True},
        {**EMT, "stress": False},
        {**EMT, "d3": {"method": "PBE", "damping": "zero", "version": "1"}},
    ],
)
def test_check_refuses_labels_of_another_reference_with_the_line_to_write(tmp_path, shared, other):
    """It was found out when the initial data were computed."""
    sha = identity_sha256(other)
    donate(shared, {**other, "sha256": sha}, walks=("a", "b"))

    def problems(**changes):
        campaign = load_campaign(tiny(tmp_path / "c.yaml", label__ledger=str(shared), **STATIC, **changes))
        return check(campaign, MACHINE, tmp_path / "c").problems

    for changes in ({"initial__from_ledger": True}, {"initial": {"from_ledger": True}}):
        lines = problems(**changes)
        assert f"name them: from_ledger: [{sha[:12]}]" in lines[0], lines
    assert problems(initial__from_ledger=[sha[:12]]) == []
    with pytest.raises(ConfigError, match="no label of this campaign's reference"):
        begun(tmp_path / "one", shared, initial__from_ledger=True)
    assert not list((tmp_path / "one" / "c").rglob("plan.json")), "before any job"


def test_check_leaves_open_what_only_the_engine_can_say(tmp_path, shared, emt):
    """Another version of the same calculator is refused when the campaign begins, and before any job."""
    other = {**emt, "version": "0.1"}
    other["sha256"] = identity_sha256(other)
    donate(shared, other, walks=("a", "b"))
    campaign = load_campaign(tiny(tmp_path / "c.yaml", label__ledger=str(shared), initial__from_ledger=True))
    assert check(campaign, MACHINE, tmp_path / "c").problems == []
    with pytest.raises(ConfigError, match="no label of this campaign's reference"):
        begun(tmp_path / "one", shared, initial__from_ledger=True)
    assert not list((tmp_path / "one" / "c").rglob("plan.json"))
