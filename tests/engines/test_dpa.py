"""DPA models by DeePMD-kit's PyTorch backend: trained, frozen and run as any other, in LAMMPS too."""

import numpy as np
import pytest
from backends import TORCH_PYTHON, needs_dpa
from campaigns import end_sessions
from ensembles import Ensemble

from activelearn.config import Machine
from activelearn.engines import process
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd import TRAINER

pytestmark = [pytest.mark.engines, *needs_dpa]
FIT = {"neuron": [8, 8]}
DPA1 = {
    "type": "dpa1", "rcut": 3.5, "rcut_smth": 0.5, "neuron": [4, 8], "axis_neuron": 2, "attn": 8, "attn_layer": 1,
    "tebd_input_mode": "strip",
}  # fmt: skip
DPA2 = {
    "type": "dpa2",
    "repinit": {
        "rcut": 3.5, "rcut_smth": 0.5, "nsel": "auto", "neuron": [4, 8], "axis_neuron": 2, "tebd_dim": 4,
    },
    "repformer": {
        "rcut": 3.0, "rcut_smth": 0.5, "nsel": "auto", "nlayers": 1, "g1_dim": 8, "g2_dim": 4, "axis_neuron": 2,
        "attn1_hidden": 4, "attn1_nhead": 1, "attn2_hidden": 4, "attn2_nhead": 1,
    },
}  # fmt: skip
DPA3 = {
    "type": "dpa3",
    "repflow": {
        "e_rcut": 3.5, "e_rcut_smth": 2.5, "e_sel": "auto", "a_rcut": 3.0, "a_rcut_smth": 2.5, "a_sel": "auto",
        "nlayers": 1, "n_dim": 16, "e_dim": 8, "a_dim": 8,
    },
}  # fmt: skip
DPA4 = {
    "type": "dpa4",
    "descriptor": {
        "type": "dpa4", "rcut": 3.5, "channels": 8, "lmax": 1, "n_blocks": 1, "n_radial": 8, "precision": "float32",
    },
    "fitting_net": {"type": "dpa4_ener", "neuron": [8], "precision": "float32"},
}  # fmt: skip
#: Block, the largest difference of a force between LAMMPS and evaluation (eV/Å), and the suffix of its models.
KINDS = {
    "dpa1": ({"descriptor": DPA1, "fitting_net": FIT}, 1e-9, ".pth"),
    "dpa2": ({"descriptor": DPA2, "fitting_net": FIT}, 1e-9, ".pth"),
    "dpa3": ({"descriptor": DPA3, "fitting_net": FIT}, 1e-9, ".pth"),
    "dpa4": (DPA4, 1e-5, ".pt2"),
}


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    """A slot with a PyTorch session for all trainings here."""
    process.allow_engines()
    machine = Machine(name="test", python=TORCH_PYTHON, train_timeout_s=3600.0, label_timeout_s=1200.0)
    yield Slot(machine, tmp_path_factory.mktemp("logs"))
    end_sessions()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["dpa1", "dpa2", "dpa3", pytest.param("dpa4", marks=pytest.mark.slow)])
def test_two_members_are_trained_frozen_and_run_with_the_deviation_that_we_have(name, tmp_path, slot):
    block, tolerance, suffix = KINDS[name]
    two = Ensemble(tmp_path, block, slot, backend="pytorch", n_steps=20)
    assert not TRAINER.impossible(two.train)
    assert [model.suffix for model in two.models] == [suffix] * 2
    assert TRAINER.limits_neighbours(two.train) == (name != "dpa4")
    forces, deviation = two.by_lammps("walk")
    ours = two.deviation()
    print(f"{name}: deviation by LAMMPS {deviation:.8f}, from the forces of the members {ours:.8f} eV/Å")
    assert deviation == pytest.approx(ours, abs=1e-6)
    assert ours > 1e-3
    assert forces == pytest.approx(two.forces(two.models[0])[0], abs=tolerance)


def test_a_warm_start_begins_with_all_the_weights(tmp_path, slot):
    one = Ensemble(tmp_path, KINDS["dpa1"][0], slot, backend="pytorch", n_members=1, n_steps=10)
    assert np.abs(one.forces(one.warm("warm").model) - one.forces(one.models[0])).max() < 1e-5
