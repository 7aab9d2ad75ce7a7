"""Initial data: the copies of every system, and isolated atoms and dimers, labelled, capped, and never held out."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from campaigns import SMALL

from activelearn import initial, label, prepare
from activelearn.config import Isolated, Machine, System, load_campaign
from activelearn.loop import phase_of
from activelearn.records import InitialData, Labelling
from activelearn.store import Store
from activelearn.tasks import carry_out, gather

MACHINE = Machine(slots=1, **SMALL)
#: Of copper in ase.data (Cordero et al., Dalton Trans. 2008, 2832).
RADIUS = 1.32


def campaign_of(**changes):
    campaign = load_campaign("copper_emt")
    return campaign.model_copy(update={"initial": campaign.initial.model_copy(update=changes)})


@pytest.fixture
def labelled(tmp_path, slot):
    """Return a function that makes and labels the initial data of a campaign."""

    def make(campaign):
        store = Store.create(tmp_path / "campaign", campaign)
        phase_of(store, 0).begin(MACHINE)
        for station in (prepare.STATION, initial.STATION, label.STATION):
            carry_out(station, store, 0, MACHINE)
            gather(station, store, 0, MACHINE)
        return store

    return make


# --- isolated atoms and dimers ----------------------------------------------------------------------------------------


def test_every_element_and_every_pair_of_them():
    two = campaign_of(isolated=Isolated()).model_copy(update={"type_map": ("Na", "P", "S")})
    wanted = [("Na",), ("P",), ("S",), ("Na", "Na"), ("Na", "P"), ("Na", "S"), ("P", "P"), ("P", "S"), ("S", "S")]
    assert initial.isolated(two) == wanted
    few = Isolated(atoms=False, dimers=("S-S", "P-S"))
    some = two.model_copy(update={"initial": two.initial.model_copy(update={"isolated": few})})
    assert initial.isolated(some) == [("S", "S"), ("P", "S")]
    assert initial.isolated(campaign_of()) == []


def test_dimers_lie_in_the_middle_of_their_box_at_multiples_of_the_covalent_radii():
    found = initial.isolated_frames(Isolated(distances=(0.6, 1.0, 2.0), box_A=12.0), ("P", "S"))
    assert found.symbols == ("P", "S")
    assert found.pbc == (True, True, True)
    assert found.cell.tolist() == [(12.0 * np.eye(3)).tolist()] * 3
    assert found.positions[:, 0].tolist() == [[6.0, 6.0, 6.0]] * 3
    apart = np.linalg.norm(found.positions[:, 1] - found.positions[:, 0], axis=1)
    assert apart == pytest.approx(np.array([0.6, 1.0, 2.0]) * (1.07 + 1.05))
    (lone,) = initial.isolated_frames(Isolated(), ("Na",)).to_ase()
    assert lone.get_chemical_formula() == "Na"


@pytest.mark.engines
def test_isolated_copper_is_labelled_capped_and_never_held_out(labelled):
    """EMT's dimer at 0.6 of twice the radius has 33 eV/Å, at 0.7 10 eV/Å: the cap lies between."""
    campaign = campaign_of(
        isolated=Isolated(distances=(0.6, 0.7, 0.9, 1.2, 2.0)), copies=2, scales=(1.0,), md=None, held_out_fraction=0.5
    )
    campaign = campaign.model_copy(update={"label": campaign.label.model_copy(update={"max_force": 20.0})})
    store = labelled(campaign)
    made = store.result("initial", 0, InitialData)
    names = ["s0-x1-static-000", "s0-x1-static-001", "isolated-Cu", "isolated-Cu-Cu"]
    assert [walk.id for walk in made.walks] == names
    assert made.n_frames == 2 + 1 + 5
    assert len(made.held_out) == 1
    assert made.held_out[0].startswith("s0-")
    record = store.result("label", 0, Labelling)
    assert record.refused == {"force above 20 eV/Å": 1}
    assert (record.labelled, record.held_out, record.dataset_frames) == (7, 1, 6)
    lone, dimers = store.dataset(0)[-2:]
    assert (lone.formula, dimers.formula) == ("Cu1", "Cu2")
    assert np.abs(lone.forces).max() == 0.0
    apart = np.linalg.norm(dimers.positions[:, 1] - dimers.positions[:, 0], axis=1)
    assert apart == pytest.approx(2 * RADIUS * np.array([0.7, 0.9, 1.2, 2.0])), "the closest one was refused"
    for k, distance in enumerate(apart):
        atoms = Atoms("Cu2", [[0, 0, 0], [distance, 0, 0]], calculator=EMT())
        assert dimers.energy[k] == pytest.approx(atoms.get_potential_energy(), abs=1e-6), "alone in its box"
        assert dimers.forces[k] == pytest.approx(atoms.get_forces(), abs=1e-6)
    walks = {str(part.origin["walk"][0]) for part in store.held_out(0)}
    assert not any(walk.startswith("isolated") for walk in walks)


# --- copies -----------------------------------------------------------------------------------------------------------


@pytest.mark.engines
def test_thirty_perturbed_frames_of_a_crystal_without_dynamics(labelled):
    """The papers' numbers: three scales, ten copies each, a hundredth of an Å and three per cent of the cell."""
    store = labelled(campaign_of(scales=(0.95, 1.0, 1.05), copies=10, md=None))
    parts = [*store.dataset(0), *store.held_out(0)]
    frames = [(part.cell[k], part.origin[k]) for part in parts for k in range(len(part))]
    assert len(frames) == 30
    crystal = 2 * 3.6149
    for cell, origin in frames:
        scale = 1.0 + origin["strain"]
        strain = np.linalg.inv(crystal * scale * np.eye(3)) @ cell - np.eye(3)
        assert np.abs(strain).max() <= 0.03 + 1e-9
    assert sorted({round(float(origin["strain"]), 9) for _, origin in frames}) == [-0.05, 0.0, 0.05]


def test_copies_of_systems_that_were_added_are_planned_alone(store, campaign):
    new = System(seed="Cu_Fm-3m", supercell=(2, 2, 3))
    more = campaign.initial.model_copy(update={"systems": (*campaign.initial.systems, new)})
    later = campaign.model_copy(update={"initial": more})
    assert initial.new_systems(later, store, 1) == [1]
    assert initial.new_systems(campaign, store, 1) == []
    tasks = initial.plan(later, store, 1)
    assert {task.parameters["system"] for task in tasks} == {1}
    assert len(tasks) == 3 * 2 * campaign.initial.copies
    moved = more.model_copy(update={"systems": (new, *campaign.initial.systems)})
    assert initial.new_systems(campaign.model_copy(update={"initial": moved}), store, 1) == [0], "by what it is"
