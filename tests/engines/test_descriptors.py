"""Descriptors other than se_e2_a, trained for real: the same room, seeds, warm starts and deviations as of that."""

import json

import numpy as np
import pytest
from campaigns import end_sessions
from ensembles import ELEMENTS, Ensemble, copper_gold

from activelearn import geometry
from activelearn.config import Machine
from activelearn.engines import process
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd import TRAINER
from activelearn.engines.trainers.deepmd.settings import DeePMDTrain

pytestmark = pytest.mark.engines
PAIRS = {"type": "se_e2_a", "rcut": 3.5, "rcut_smth": 0.5, "neuron": [4, 8], "axis_neuron": 2}
TYPES = {
    **PAIRS,
    "type": "se_atten",
    "rcut": 3.0,
    "attn_layer": 0,
    "tebd_input_mode": "strip",
}
HYBRID = {"descriptor": {"type": "hybrid", "list": [TYPES, PAIRS]}, "fitting_net": {"neuron": [8, 8]}}


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    """A slot with a session for all trainings here."""
    pytest.importorskip("deepmd", reason="pip install 'deepmd-kit[cpu,lmp]==3.2.0'")
    process.allow_engines()
    yield Slot(Machine(name="test"), tmp_path_factory.mktemp("logs"))
    end_sessions()


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory, slot):
    """Two members of a hybrid: elements apart within 3.5 Å, all together within 3 Å."""
    return Ensemble(tmp_path_factory.mktemp("hybrid"), HYBRID, slot)


def test_members_of_a_hybrid_are_trained_from_seeds_of_their_own(hybrid):
    assert hybrid.train.block == HYBRID
    seeds = []
    for i in range(2):
        model = json.loads((hybrid.folder / f"member-{i}" / "input.json").read_text())["model"]
        parts = model["descriptor"]["list"]
        assert [part["sel"] for part in parts] == [48, [24, 24]]
        seeds += [*(part["seed"] for part in parts), model["fitting_net"]["seed"]]
    assert len(set(seeds)) == 6
    assert all(len(member.curve) > 10 for member in hybrid.members)
    assert np.abs(hybrid.forces(hybrid.models[0]) - hybrid.forces(hybrid.models[1])).max() > 0.01


def test_lammps_has_the_forces_and_the_deviation_that_we_have(hybrid):
    forces, deviation = hybrid.by_lammps("walk")
    wanted = hybrid.deviation()
    print(f"deviation by LAMMPS {deviation:.8f}, from the forces of the members {wanted:.8f} eV/Å")
    assert deviation == pytest.approx(wanted, abs=1e-6)
    assert wanted > 0.01
    assert forces == pytest.approx(hybrid.forces(hybrid.models[0])[0], abs=1e-9), "the cell is a right-angled one"


def test_a_warm_start_of_a_hybrid_begins_with_all_its_weights(hybrid):
    moved = np.abs(hybrid.forces(hybrid.warm("warm").model) - hybrid.forces(hybrid.models[0])).max()
    assert moved < 1e-5


def test_what_deepmd_tabulates_gives_the_same_forces(tmp_path, slot):
    block = {"descriptor": TYPES, "fitting_net": {"neuron": [8, 8]}}
    alone = Ensemble(tmp_path, block, slot, n_members=1, n_steps=20)
    assert TRAINER.compresses(alone.train)
    model = alone.compressed("compressed")
    assert np.abs(alone.forces(model) - alone.forces(alone.models[0])).max() < 1e-9


def test_a_frame_with_more_neighbours_than_any_cutoff_holds_is_refused():
    """Twelve of all kinds within 3 Å."""
    frame, train = copper_gold(1, (2, 1, 1)), DeePMDTrain.model_validate({"model": HYBRID})
    counted, together = geometry.capacities(train, ELEMENTS, ((12, 12), (12,)))
    assert (counted.rcut, counted.kinds) == (3.5, ELEMENTS)
    assert (together.rcut, together.kinds) == (3.0, geometry.ANY)
    assert counted.holds(frame)
    assert together.holds(frame)
    tight = geometry.capacities(train, ELEMENTS, ((12, 12), (11,)))[1]
    assert not tight.holds(frame)
    assert tight.first_overflow(frame) == (0, "[12] neighbours within the cutoff, sel holds [11]")
