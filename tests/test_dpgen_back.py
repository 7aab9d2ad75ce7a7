"""Back to DP-GEN, and to MACE, NequIP and GPUMD: what is written is read by others as the same numbers."""

import json
import tarfile

import dpdata
import numpy as np
import pytest
from ase.io import read
from campaigns import TESTS, in_process
from conftest import rattled_copper

from activelearn import exchange
from activelearn.exchange import export_labels, import_labels, opened
from activelearn.exchange.dpgen.back import write_back
from activelearn.frames import Frames
from activelearn.store import Store
from activelearn.writing import write_extxyz

PBE = exchange.declared("functional=PBE,includes_dispersion=false,code=any")
QUICKSTART = TESTS / "data" / "folders" / "49996e5-quickstart.tar.gz"


@pytest.fixture
def copper4():
    return rattled_copper(4, random_seed=2)


@pytest.fixture
def ledger(tmp_path, copper4):
    write_extxyz([copper4], tmp_path / "copper.extxyz")
    import_labels(tmp_path / "ledger", [tmp_path / "copper.extxyz"], PBE)
    return tmp_path / "ledger"


def sorted_by_energy(energies, *arrays):
    order = np.argsort(np.ravel(energies))
    return [np.ravel(energies)[order], *(np.asarray(array)[order] for array in arrays)]


def the_same(truth, energies, forces, virials):
    theirs = sorted_by_energy(energies, forces, virials)
    ours = sorted_by_energy(truth.label("energy"), truth.label("forces"), truth.label("virial"))
    for one, other in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(one.reshape(other.shape), other, atol=1.0e-7)


def test_mace_finds_its_names_and_ases_stress(ledger, tmp_path, copper4):
    export_labels(opened(ledger), tmp_path / "mace.xyz", PBE, "mace")
    images = read(tmp_path / "mace.xyz", ":")
    assert all("energy" not in (image.calc.results if image.calc else {}) for image in images)
    stress = np.array([image.info["REF_stress"].reshape(3, 3) for image in images])
    volumes = np.array([image.get_volume() for image in images])
    the_same(
        copper4,
        [image.info["REF_energy"] for image in images],
        [image.arrays["REF_forces"] for image in images],
        -stress * volumes[:, None, None],
    )


def test_an_atom_alone_is_told_to_mace(tmp_path):
    image = rattled_copper(1).to_ase()[0][:1]
    image.calc = None
    frames = Frames.from_ase([image])
    alone = Frames(frames.symbols, frames.cell, frames.positions, frames.pbc, np.zeros(1), np.zeros((1, 1, 3)))
    from activelearn.writing import DIALECTS

    write_extxyz([alone], tmp_path / "alone.xyz", DIALECTS["mace"])
    assert read(tmp_path / "alone.xyz").info["config_type"] == "IsolatedAtom"


def test_nequip_finds_what_ase_reads(ledger, tmp_path, copper4):
    export_labels(opened(ledger), tmp_path / "nequip.xyz", PBE, "nequip")
    images = read(tmp_path / "nequip.xyz", ":")
    assert set(images[0].info) == set()
    the_same(
        copper4,
        [image.calc.results["energy"] for image in images],
        [image.calc.results["forces"] for image in images],
        [-image.get_stress(voigt=False) * image.get_volume() for image in images],
    )


def test_gpumd_finds_force_and_a_virial_of_dpdatas_sign(ledger, tmp_path, copper4):
    export_labels(opened(ledger), tmp_path / "train.xyz", PBE, "gpumd")
    first = (tmp_path / "train.xyz").read_text().splitlines()[1]
    assert "Properties=species:S:1:pos:R:3:force:R:3 energy=" in first
    assert ' virial="' in first
    assert "stress" not in first
    found = [one.data for one in dpdata.MultiSystems().from_file(str(tmp_path / "train.xyz"), fmt="gpumd/xyz")]
    the_same(
        copper4,
        np.concatenate([one["energies"] for one in found]),
        np.concatenate([one["forces"] for one in found]),
        np.concatenate([one["virials"] for one in found]),
    )


@pytest.mark.parametrize(
    ("program", "keys"),
    [("mace", "energy=REF_energy,forces=REF_forces,stress=REF_stress"), ("nequip", None), ("gpumd", None)],
)
def test_what_is_written_for_others_comes_in_again_as_the_same_labels(ledger, tmp_path, program, keys):
    export_labels(opened(ledger), tmp_path / "out.xyz", PBE, program)
    n, tally = import_labels(tmp_path / "again", [tmp_path / "out.xyz"], PBE, "extxyz", keys)
    assert n == 4, tally.sentences()


def test_the_command_line_has_the_names(ledger, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = in_process("labels", "export", "ledger", "--to", "out.xyz", "--format", "mace")
    assert (done.returncode, done.stdout) == (0, "4 labels of any (PBE) in out.xyz\n")


# --- DP-GEN -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def campaign_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("back")
    with tarfile.open(QUICKSTART) as archive:
        archive.extractall(folder, filter="data")
    return folder / "quickstart"


def test_the_data_set_stands_as_dpgen_has_it_and_param_names_it(campaign_folder, tmp_path):
    store = Store.open(campaign_folder)
    said = write_back(store, tmp_path / "back")
    param = json.loads((tmp_path / "back" / "param.json").read_text())
    assert param["init_data_prefix"] == str(tmp_path / "back")
    assert param["init_data_sys"][0] == "data.init"
    assert param["type_map"] == list(store.latest_campaign().type_map)
    block = param["default_training_param"]
    assert {"model", "learning_rate", "loss", "training"} <= block.keys()
    iterations = [k for k in store.opened_iterations() if store.is_sealed("label", k)]
    systems = [
        dpdata.LabeledSystem(str(path.parent), fmt="deepmd/npy")
        for name in param["init_data_sys"]
        for path in sorted((tmp_path / "back" / name).rglob("type.raw"))
    ]
    theirs = np.sort(np.concatenate([system.data["energies"] for system in systems]))
    ours = np.sort(np.concatenate([part.label("energy") for part in store.dataset(iterations[-1])]))
    assert np.array_equal(theirs, ours)
    assert f"{len(ours)} labelled frames of {len(iterations)} iterations" in said
    added = [k for k in iterations[1:] if store.n_training_frames(k)]
    assert [path.name for path in sorted((tmp_path / "back").glob("data.iters/iter.*"))] == [
        f"iter.{k:06d}" for k in added
    ]


def test_nothing_is_overwritten(campaign_folder, tmp_path):
    done = in_process("export", campaign_folder, "--dpgen", "--to", tmp_path)
    assert done.returncode == 2
    assert "exists - expected a new folder" in done.stderr
