"""Fine-tuning of a MACE with the real mace_run_train, in an interpreter of its own (ACTIVELEARN_MACE_PYTHON)."""

import os
import subprocess

import numpy as np
import pytest
import yaml

from activelearn.config import Machine, load_potential
from activelearn.engines import mace, process
from activelearn.engines.mace import FineTuning
from activelearn.errors import ConfigError, EngineError
from activelearn.finetune import finetune
from activelearn.frames import Frames

PYTHON = os.environ.get("ACTIVELEARN_MACE_PYTHON")
needs_mace = [
    pytest.mark.needs_mace,
    pytest.mark.skipif(PYTHON is None, reason="ACTIVELEARN_MACE_PYTHON names no interpreter with mace-torch"),
]


def labelled(n_frames, seed):
    """Rattled Cu3Au with EMT labels (of two elements, for MACE 0.3.16 cannot shift the energy of one)."""
    from ase.build import bulk
    from ase.calculators.emt import EMT

    rng, images = np.random.default_rng(seed), []
    for _ in range(n_frames):
        atoms = bulk("Cu", cubic=True, a=3.74)
        atoms.symbols[0] = "Au"
        atoms.positions += rng.normal(scale=0.08, size=(4, 3))
        atoms.calc = EMT()
        atoms.get_forces()
        atoms.get_stress()
        images.append(atoms)
    return Frames.from_ase(images)


class Campaign:
    """What finetune asks of a store."""

    def __init__(self, folder):
        self.folder = folder

    def iterations(self):
        return [type("Record", (), {"index": 0})]

    def dataset(self, _last):
        return [labelled(24, 1)]

    def held_out(self, _last):
        return [labelled(8, 2)]

    def campaign(self, _last):
        reference = type("Reference", (), {"functional": "none", "labels_include_dispersion": False})
        return type("Campaign", (), {"label": type("Label", (), {"reference": reference})})


def test_labels_are_written_where_mace_looks_for_them(tmp_path):
    from ase.io import read

    frames = labelled(3, 1)
    assert mace.write_xyz([frames], tmp_path / "a.xyz") == 3
    found = read(tmp_path / "a.xyz", ":")
    assert [atoms.info["REF_energy"] for atoms in found] == pytest.approx(frames.energy.tolist(), abs=1e-7)
    assert found[2].arrays["REF_forces"] == pytest.approx(frames.forces[2], abs=1e-7)
    stress = -frames.virial[2] / frames.volume[2]
    assert np.reshape(found[2].info["REF_stress"], (3, 3)) == pytest.approx(stress, abs=1e-7)


def test_of_frames_without_a_virial_mace_finds_no_stress(tmp_path):
    """MACE gives what is not there the weight 0; a zero would be fitted."""
    from ase.io import read

    frames = labelled(3, 1)
    frames.virial[1] = np.nan
    mace.write_xyz([frames], tmp_path / "a.xyz")
    assert ["REF_stress" in atoms.info for atoms in read(tmp_path / "a.xyz", ":")] == [True, False, True]


def test_a_missing_model_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        finetune(Campaign(tmp_path), FineTuning(tmp_path / "no.model", "ft"), "python3", tmp_path / "to", Machine())


@pytest.mark.parametrize("name", ["train.xyz", "valid.xyz", "potential.yaml", "ft.model"])
def test_nothing_of_somebody_else_is_written_over(tmp_path, name):
    """Such as the train.xyz of the folder that one is in, with --to ."""
    (tmp_path / "a.model").write_bytes(b"")
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=f"contains {name}, but no mace.log"):
        finetune(Campaign(tmp_path), FineTuning(tmp_path / "a.model", "ft"), "/usr/bin/python3", tmp_path, Machine())
    assert (tmp_path / name).read_text() == "mine"


def test_an_interpreter_without_mace_is_named_with_its_last_words(tmp_path):
    (tmp_path / "a.model").write_bytes(b"")
    with pytest.raises(EngineError, match="No module named") as caught:
        finetune(
            Campaign(tmp_path), FineTuning(tmp_path / "a.model", "ft"), "/usr/bin/python3", tmp_path / "to", Machine()
        )
    assert "/usr/bin/python3" in str(caught.value), "asked what the foundation gives before anything is trained"


@pytest.fixture(scope="module")
def foundation(tmp_path_factory):
    """A tiny MACE trained on the spot."""
    folder = tmp_path_factory.mktemp("foundation")
    mace.write_xyz([labelled(16, 3)], folder / "train.xyz")
    words = (
        f"{PYTHON} -m mace.cli.run_train --name=tiny --model=MACE --num_channels=8 --max_L=0 --correlation=2 "
        "--r_max=4.0 --E0s=average --max_num_epochs=2 --train_file=train.xyz --valid_fraction=0.2 "
        "--energy_key=REF_energy --forces_key=REF_forces --device=cpu --default_dtype=float64 --batch_size=4 "
        "--seed=1 --model_dir=."
    )
    subprocess.run(
        words.split(), cwd=folder, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    return folder / "tiny.model"


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("foundation")
class TestFineTuning:
    """With the real program."""

    pytestmark = needs_mace

    def test_the_errors_fall_and_the_potential_is_one_that_benchmark_takes(self, foundation, tmp_path):
        how = FineTuning(foundation, "FT-tiny", n_epochs=20, learning_rate=5e-3)
        try:
            potential, errors = finetune(Campaign(tmp_path), how, PYTHON, tmp_path / "to", Machine(slots=1))
        finally:
            process.close_sessions()
        assert errors["after"] < 0.7 * errors["before"]
        found = load_potential(potential)
        assert (found.name, found.physics) == ("FT-tiny", "none")
        assert found.ase.arguments["model_paths"] == str(tmp_path / "to" / "FT-tiny.model")
        assert yaml.safe_load(potential.read_text())["ase"]["arguments"]["model_paths"] == "FT-tiny.model"
