"""Systems added to a running campaign: an iteration of their own, real engines, and kills in the middle of it."""

import shutil

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from campaigns import SMALL, end_sessions

from activelearn import loop, starts
from activelearn.config import Machine, System
from activelearn.config.reading import difference
from activelearn.engines import process
from activelearn.records import Ensemble, InitialData, Labelling, Prepared, Selection
from activelearn.store import Store
from activelearn.store.files import file_sha256
from activelearn.tasks import carry_out, gather

pytestmark = pytest.mark.engines
MACHINE = Machine(slots=2, **SMALL)
PACKED = {"units": {"Cu": 1}, "n_atoms": 24, "density_g_cm3": 6.0, "tolerance_A": 2.2}


def added(store, folder):
    """Accept the campaign with a structure file of a user's and a packing, and with room for two more iterations."""
    atoms = bulk("Cu", a=3.7, cubic=True) * (2, 2, 3)
    write(folder / "mine.extxyz", atoms)
    file = System(seed=str(folder / "mine.extxyz"), supercell=(1, 1, 1), sha256=file_sha256(folder / "mine.extxyz"))
    old = store.latest_campaign()
    systems = (*old.initial.systems, file, System(packed=PACKED))
    start = old.initial.model_copy(update={"systems": systems, "relax_packed": None, "copies": 2})
    new = old.model_copy(
        update={"initial": start, "stop": old.stop.model_copy(update={"max_iterations": 4})},
    )
    assert "initial.systems.1.seed: (not set) -> " in "\n".join(difference(old, new))
    store.accept(new)


@pytest.fixture(scope="module")
def grown(undisturbed, tmp_path_factory):
    """The tiny campaign after its two passes, with two systems added, run on to the next selection.

    A kill after every plan and every result: a new Store continues each time.
    """
    folder = tmp_path_factory.mktemp("grown")
    shutil.copytree(undisturbed[0].folder, folder / "campaign")
    store = Store.open(folder / "campaign")
    assert loop.next_phase(store) is None
    added(store, folder)
    process.allow_engines()
    seen = []
    for n_stations in (4, 2):  # another training would teach nothing new
        step = loop.next_phase(store)
        step.begin(MACHINE)
        for station in step.stations[:n_stations]:
            store = Store(store.folder)  # what a run that was killed here finds
            again = loop.next_phase(store)
            assert (again.iteration, again.stations) == (step.iteration, step.stations), f"before {station.name}"
            carry_out(station, store, step.iteration, MACHINE)
            store = Store(store.folder)
            assert loop.next_phase(store).stations == step.stations, f"between tasks and result of {station.name}"
            gather(station, store, step.iteration, MACHINE)
        seen.append((step.iteration, [station.name for station in step.stations]))
        if n_stations == len(step.stations):
            step.close()
    end_sessions()
    return store, seen


def test_they_make_their_data_in_an_iteration_of_their_own_and_then_it_is_explored(grown):
    assert grown[1] == [
        (3, ["prepare", "initial", "label", "train"]),
        (4, ["explore", "select", "label", "train"]),
    ]


def test_only_what_is_new_is_prepared_and_labelled(grown):
    store = grown[0]
    (packing,) = store.result("prepare", 3, Prepared).systems
    assert packing.name == "1Cu"
    walks = [walk.id for walk in store.result("initial", 3, InitialData).walks]
    assert walks == [f"s{s}-x{x}-300K-{k:03d}" for s in (1, 2) for x in ("0.98", "1.02") for k in (0, 1)]
    record = store.result("label", 3, Labelling)
    before = store.result("label", 2, Labelling).dataset_frames
    assert (record.labelled, record.labels_computed) == (8 * 3, 0), "three frames of each trajectory, labelled by it"
    assert record.dataset_frames == before + record.labelled - record.held_out
    assert store.n_training_frames(3) == 18


def test_the_held_out_set_gets_the_new_compositions_and_keeps_the_old_frames(grown, undisturbed):
    store = grown[0]
    old, new = undisturbed[0].held_out(2), store.held_out(3)
    assert [part.formula for part in new] == ["Cu32", "Cu48", "Cu24"]
    assert new[0].positions.tobytes() == store.held_out(2)[0].positions.tobytes() == old[0].positions.tobytes()
    assert [len(part) for part in new] == [3, 3, 3], "whole trajectories"
    for member in store.result("train", 3, Ensemble).members:
        assert list(member.by_composition) == ["Cu24", "Cu32", "Cu48"]
        assert member.held_out.n_frames == 9
    trained = {str(part.origin["walk"][0]) for part in store.frames(store.dataset_file(3))}
    assert not trained & set(store.result("initial", 3, InitialData).held_out)


def test_the_ensemble_learns_them(grown):
    """Warm from the last ensemble, for the networks are the same."""
    store = grown[0]
    ensemble = store.result("train", 3, Ensemble)
    assert ensemble.trained_in == 3
    assert all(task.parameters["warm"] for task in store.plan("train", 3).tasks)
    before = store.result("train", 2, Ensemble)
    assert {m.sha256 for m in ensemble.members}.isdisjoint({m.sha256 for m in before.members})


def test_walks_start_from_all_systems_afterwards(grown):
    store = grown[0]
    campaign = store.campaign(4)
    tasks = store.plan("explore", 4).tasks
    assert {task.parameters["system"] for task in tasks} == {0, 1, 2}
    sizes = {}
    for task in tasks:
        arrays, _ = store.read_product("explore", 4, task.id)
        assert len(arrays["volume"]) > 0
        sizes[task.parameters["system"]] = arrays["volume"][0]
    assert sizes[1] == pytest.approx(12 * 3.7**3, rel=0.01), "the file of the user's"
    assert sizes[2] == pytest.approx(float(starts.structures(campaign, store, campaign.initial.systems[2]).volume[0]))
    assert store.result("select", 4, Selection).counts.walked == 4 * 11


def test_the_records_are_those_of_iterations(grown):
    records = grown[0].iterations()
    assert [record.index for record in records] == [0, 1, 2, 3]
    assert [record.selection is None for record in records] == [True, False, False, True]
    assert [record.initial is None for record in records] == [False, True, True, False]
    assert list(records[3].seconds) == ["prepare", "initial", "label", "train"]
    assert loop.verdict(grown[0]) is None, "an iteration that only added data is no verdict"


def test_the_kind_of_an_iteration_is_that_of_its_campaign_for_ever(grown):
    """However often the campaign is changed later, and when all is prepared."""
    store = grown[0]
    assert loop.phase_of(store, 3).stations == loop.FIRST
    assert loop.phase_of(store, 4).stations == loop.LOOP
    for station in ("prepare", "initial", "label", "train"):
        if station != "prepare":  # its systems are prepared now
            again = loop.STATIONS[station].plan(store.campaign(3), store, 3)
            assert tuple(again) == store.plan(station, 3).tasks


def test_a_data_set_frame_of_the_added_systems_may_start_a_walk(grown):
    from activelearn import explore

    store = grown[0]
    rngs = (np.random.default_rng(k) for k in range(40))
    found = {explore._from_dataset(store.campaign(4), store, 4, rng).formula for rng in rngs}
    assert found == {"Cu24", "Cu32", "Cu48"}
