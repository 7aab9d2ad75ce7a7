"""Prepare: crystals relaxed by EMT and cells packed by Packmol, once each, and what starts from them afterwards."""

from itertools import pairwise

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from campaigns import SMALL

from activelearn import initial, prepare, starts
from activelearn.config import Machine, Relax, System, load_campaign
from activelearn.engines import reference
from activelearn.errors import ConfigError, StoreError, TaskFailed
from activelearn.frames import Frames
from activelearn.geometry import first_too_close
from activelearn.loop import phase_of
from activelearn.records import InitialData
from activelearn.store import Store
from activelearn.tasks import carry_out, gather

MACHINE = Machine(slots=1, **SMALL)
#: Copper of half its density: room for Packmol, and for atoms to move when they are relaxed.
PACKED = {"units": {"Cu": 1}, "n_atoms": 24, "density_g_cm3": 4.5, "tolerance_A": 2.2}


@pytest.fixture
def engines(slot):
    """Sessions that end with the test (Slot itself is made by the tasks)."""
    return slot


def campaign_of(*systems, **initial_changes):
    campaign = load_campaign("copper_emt")
    settings = campaign.initial.model_copy(update={"systems": systems, **initial_changes})
    return campaign.model_copy(update={"initial": settings})


def prepared(tmp_path, campaign):
    """Open iteration 0 and carry out its prepare station."""
    store = Store.create(tmp_path / "campaign", campaign)
    step = phase_of(store, 0)
    step.begin(MACHINE)
    carry_out(prepare.STATION, store, 0, MACHINE)
    gather(prepare.STATION, store, 0, MACHINE)
    return store


@pytest.fixture
def distorted_crystal(tmp_path):
    """A file with a cell that is a tenth too long, sheared, and its atoms off their places."""
    atoms = bulk("Cu", a=3.6, cubic=True)
    atoms.set_cell(atoms.cell.array @ np.array([[1.03, 0.02, 0.0], [0.0, 0.98, 0.03], [0.01, 0.0, 1.1]]), True)
    atoms.positions += np.random.default_rng(5).uniform(-0.1, 0.1, atoms.positions.shape)
    write(tmp_path / "mine.extxyz", atoms)
    return str(tmp_path / "mine.extxyz")


@pytest.mark.engines
def test_a_distorted_crystal_is_relaxed_with_its_cell(tmp_path, engines, distorted_crystal):
    """EMT's own fcc copper: 3.59 Å, no force, no stress; and supercells are made of the relaxed cell."""
    system = System(seed=distorted_crystal, supercell=(2, 2, 2))
    campaign = campaign_of(system, relax=Relax(fmax=0.01, max_steps=300))
    store = prepared(tmp_path, campaign)
    (done,) = store.result("prepare", 0, prepare.Prepared).systems
    assert (done.key, done.n_structures, done.ended) == (system.key, 1, ("relaxed",))
    found = starts.structures(campaign, store, system)
    assert found.n_atoms == 32
    assert not found.is_labelled
    assert found.volume[0] / 32 == pytest.approx(3.59**3 / 4, rel=0.01)
    (atoms,) = found.to_ase()
    atoms.calc = EMT()
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 0.01
    assert np.abs(atoms.get_stress()).max() < 0.003, "eV/Å^3"
    shortest = atoms.get_all_distances(mic=True) + 100.0 * np.eye(32)
    assert shortest.min(axis=1) == pytest.approx(np.full(32, 3.59 / np.sqrt(2)), abs=0.02), "fcc again"


@pytest.mark.engines
def test_a_relaxation_that_keeps_the_cell_keeps_the_cell(tmp_path, engines, distorted_crystal):
    system = System(seed=distorted_crystal, supercell=(2, 2, 2))
    store = prepared(tmp_path, campaign_of(system, relax=Relax(cell=False)))
    found = starts.structures(store.campaign(0), store, system)
    assert found.cell == pytest.approx(starts.crystal(system, 5.0).cell)
    assert not np.allclose(found.positions, starts.crystal(system, 5.0).positions, atol=0.02)


@pytest.mark.engines
def test_a_relaxation_that_does_not_end_is_used_and_on_the_record(tmp_path, engines, distorted_crystal):
    system = System(seed=distorted_crystal, supercell=(2, 2, 2))
    store = prepared(tmp_path, campaign_of(system, relax=Relax(max_steps=2)))
    assert store.result("prepare", 0, prepare.Prepared).systems[0].ended == ("not relaxed in 2 steps",)
    assert starts.structures(store.campaign(0), store, system).n_atoms == 32


@pytest.mark.engines
def test_packings_are_packed_relaxed_and_dealt_to_the_copies(tmp_path, engines):
    system = System(packed=PACKED, n_packings=3)
    campaign = campaign_of(system, relax_packed=Relax(fmax=0.5, max_steps=100, cell=False), copies=4, md=None)
    store = prepared(tmp_path, campaign)
    (done,) = store.result("prepare", 0, prepare.Prepared).systems
    assert (done.n_structures, len(done.ended)) == (3, 3)
    found = starts.structures(campaign, store, system)
    assert len(found) == 3
    assert found.n_atoms == 24
    assert len({frame.positions.tobytes() for frame in (found[k] for k in range(3))}) == 3, "different packings"
    grams = 24 * 63.546 / 6.02214076e23
    assert grams / (found.volume * 1e-24) == pytest.approx(np.full(3, 4.5), rel=1e-4), "at the density, cell kept"
    for k, ended in enumerate(done.ended):
        (atoms,) = found[k].to_ase()
        atoms.calc = EMT()
        if ended == "relaxed":
            assert np.linalg.norm(atoms.get_forces(), axis=1).max() <= 0.5
        assert first_too_close(found[k], campaign.select.guards) is None
    still = campaign.initial.perturb.model_copy(update={"positions_A": 0.0, "cell_fraction": 0.0})
    quiet = campaign.model_copy(update={"initial": campaign.initial.model_copy(update={"perturb": still})})
    tasks = [t for t in initial.plan(campaign, store, 0) if t.parameters["scale"] == 1.0]
    turns = [initial._start(quiet, store, task, np.random.default_rng(1)).positions.tobytes() for task in tasks]
    assert turns == [found[k].positions.tobytes() for k in (0, 1, 2, 0)], "copies take turns"


@pytest.mark.engines
def test_the_path_of_a_relaxation_is_initial_data_and_is_not_held_out(tmp_path, engines):
    system = System(packed=PACKED, n_packings=2)
    relax = Relax(fmax=0.5, max_steps=100, cell=False, frame_every_A=0.2)
    campaign = campaign_of(system, relax_packed=relax, copies=2, md=None, held_out_fraction=0.5)
    store = prepared(tmp_path, campaign)
    paths, ends = starts.paths(store, 0), starts.structures(campaign, store, system)
    assert len(paths) == 2
    (done,) = store.result("prepare", 0, prepare.Prepared).systems
    assert done.n_path == sum(map(len, paths))
    for k, path in enumerate(paths):
        assert len(path) > 1
        assert path.origin["step"][0] == 0, "as packed"
        images = [*path.to_ase(), ends[k].to_ase()[0]]
        for one, other in pairwise(images[:-1]):
            assert np.linalg.norm(other.positions - one.positions, axis=1).max() >= 0.2
        for image, forces, energy in zip(images, path.forces, path.energy, strict=False):
            image.calc = EMT()
            assert image.get_forces() == pytest.approx(forces, abs=1e-9)
            assert image.get_potential_energy() == pytest.approx(energy, abs=1e-9)
    carry_out(initial.STATION, store, 0, MACHINE)
    gather(initial.STATION, store, 0, MACHINE)
    found = store.result("initial", 0, InitialData)
    names = {str(path.origin["walk"][0]) for path in paths}
    chosen = store.frames(store.chosen_file(0))
    assert found.n_frames == sum(map(len, chosen)) == sum(map(len, paths)) + 2 * len(campaign.initial.cells)
    assert names < {str(part.origin["walk"][0]) for part in chosen}
    assert found.held_out
    assert not names & set(found.held_out)


@pytest.mark.engines
def test_a_lost_file_of_paths_is_no_campaign_without_them(tmp_path, engines):
    relax = Relax(fmax=0.5, max_steps=20, cell=False, frame_every_A=0.2)
    store = prepared(tmp_path, campaign_of(System(packed=PACKED), relax_packed=relax))
    starts.paths_file(store, 0).unlink()
    with pytest.raises(StoreError, match=r"relaxed\.npz"):
        starts.paths(store, 0)


def test_campaigns_without_frames_of_paths_keep_their_checksum():
    assert "frame_every_A" not in Relax().model_dump()
    assert Relax(frame_every_A=0.2).model_dump()["frame_every_A"] == 0.2


@pytest.mark.engines
def test_packings_may_stay_as_packed_and_need_no_reference_then(tmp_path, engines, monkeypatch):
    monkeypatch.setattr(reference, "relax", None)
    system = System(packed=PACKED)
    store = prepared(tmp_path, campaign_of(system, relax_packed=None))
    assert store.result("prepare", 0, prepare.Prepared).systems[0].ended == ("as packed",)
    assert starts.structures(store.campaign(0), store, system).formula == "Cu24"


@pytest.mark.engines
def test_a_packing_is_the_same_whenever_it_is_made(tmp_path, engines):
    """Its random seed hangs on the campaign and the task alone."""
    found = []
    for name in ("one", "two"):
        store = prepared(tmp_path / name, campaign_of(System(packed=PACKED), relax_packed=None))
        found.append(starts.structures(store.campaign(0), store, System(packed=PACKED)))
    assert found[0].positions.tobytes() == found[1].positions.tobytes()


def test_nothing_is_prepared_that_needs_none(store, campaign):
    assert prepare.plan(campaign, store, 0) == []
    assert prepare.gather(campaign, store, 0).systems == ()


def test_systems_of_walks_are_prepared_too_and_each_once(store, campaign):
    packing = System(packed=PACKED, n_packings=2)
    apart = campaign.explore.model_copy(update={"systems": (*campaign.initial.systems, packing, packing)})
    both = campaign.model_copy(update={"explore": apart})
    tasks = prepare.plan(both, store, 0)
    assert [task.id for task in tasks] == [f"{packing.key}-000", f"{packing.key}-001"]
    relaxing = both.model_copy(update={"initial": both.initial.model_copy(update={"relax": Relax()})})
    assert len(prepare.plan(relaxing, store, 0)) == 3


def test_what_is_prepared_is_not_prepared_again(store, campaign):
    old, new = System(packed=PACKED), System(packed=PACKED, n_packings=2)
    with_old = campaign.model_copy(update={"explore": campaign.explore.model_copy(update={"systems": (old,)})})
    frame = Frames(("Cu",), np.eye(3)[None] * 9.0, np.zeros((1, 1, 3)))
    meta = {"ended": "as packed", "started": 0.0, "finished": 0.0}
    store.freeze_plan("prepare", 0, prepare.plan(with_old, store, 0), 1)
    store.publish_product("prepare", 0, f"{old.key}-000", frame.arrays(), meta)
    record = prepare.gather(with_old, store, 0)
    store.seal("prepare", 0, record)
    assert prepare.gather(with_old, store, 0) == record, "a gather done again says the same"
    both = campaign.model_copy(update={"explore": campaign.explore.model_copy(update={"systems": (old, new)})})
    assert prepare.systems_of(both, store, 1) == [new]
    assert prepare.systems_of(with_old, store, 1) == []


def test_a_structure_that_the_reference_cannot_handle_ends_the_campaign_with_a_sentence(store, campaign):
    system = System(packed=PACKED)
    apart = campaign.model_copy(update={"explore": campaign.explore.model_copy(update={"systems": (system,)})})
    store.freeze_plan("prepare", 0, prepare.plan(apart, store, 0), 1)
    meta = {"ended": "SCFError: no", "started": 0.0, "finished": 0.0}
    store.publish_product("prepare", 0, f"{system.key}-000", {}, meta)
    with pytest.raises(
        TaskFailed, match=r"system 1Cu could not be relaxed by the reference \(SCFError: no\) - expected"
    ):
        prepare.gather(apart, store, 0)


def test_a_packing_without_room_is_a_mistake_in_the_campaign(tmp_path, engines):
    crowded = {**PACKED, "density_g_cm3": 30.0}
    with pytest.raises(ConfigError, match="Cu"):
        prepared(tmp_path, campaign_of(System(packed=crowded), relax_packed=None))
