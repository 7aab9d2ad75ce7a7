"""The trainer sevennet: what it refuses before anything runs, what it trains, and what its models predict."""

import os
import pickle
import shutil
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from campaigns import end_sessions, in_process, machine_file, tiny
from conftest import rattled_copper
from tuning import Bench

from activelearn.config import Label, Machine, TrainingRun
from activelearn.config.files import checksum
from activelearn.engines import process, reference
from activelearn.engines.trainers.finetuning import coarseness, training
from activelearn.engines.trainers.sevennet import TRAINER, foundations
from activelearn.engines.trainers.sevennet.settings import SevenNetTrain
from activelearn.frames import Frames

RUN = TrainingRun(n_steps=6, random_seeds=(1, 2, 3))
RATE = {"start": 1e-3, "stop": 1e-4}
STILL = {"start": 1e-12, "stop": 1e-12}
#: What a campaign of DeePMD-kit has and this one has not.
SECTION = {"trainer": "sevennet", "n_members": 2, "n_steps": 6}


def settings(**more):
    return SevenNetTrain.model_validate({"batch_size": 2, "learning_rate": RATE, **more})


# --- before anything runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, None),
        ({"foundation": "SevenNet-0_11July2024"}, None),
        ({"foundation": "7net-mf-0", "modal": "R2SCAN"}, None),
        (
            {"foundation": "7net-1"},
            "train.foundation: 7net-1 is neither a file nor a name known to sevenn - expected one of",
        ),
        ({"foundation": sys.executable}, "is not a checkpoint of SevenNet - expected one as written by sevenn"),
        ({"foundation": "7net-mf-0"}, "train.modal: 7net-mf-0 knows R2SCAN, PBE, and none is named - expected that of"),
        (
            {"foundation": "7net-mf-0", "modal": "pbe"},
            "knows R2SCAN, PBE, and pbe is not one of them - expected that of",
        ),
        ({"modal": "PBE"}, "train.modal: PBE, and 7net-0 has no modals - expected null"),
    ],
)
def test_what_cannot_be_trained_is_said(more, said):
    found = TRAINER.impossible(settings(**more))
    assert (found == []) if said is None else (said in found[0])


@pytest.mark.parametrize(("eV_per_atom", "is_said"), [(-4.0, False), (-45000.0, True)])
def test_energies_of_all_electrons_are_coarse_in_float32_and_that_is_said(tmp_path, caplog, eV_per_atom, is_said):
    """As of copper by FHI-aims: measured, the predictions scatter by 4 meV per atom more."""
    truth = rattled_copper(2, repeat=(2, 2, 1))
    truth = truth.with_labels(truth.energy + eV_per_atom * truth.n_atoms, truth.forces, truth.virial)
    TRAINER.write_data(tmp_path, [truth], settings(), ("Cu",))
    assert ("are up to 3.9 meV per atom apart in float32" in caplog.text) is is_said
    assert coarseness([truth], "float64") < 1e-9


def check(tmp_path, **more):
    campaign = tiny(tmp_path / "c.yaml", **{"train": SECTION, **more})
    return in_process("check", campaign, "--machine", machine_file(tmp_path / "m.yaml"), "--folder", tmp_path / "c")


def test_check_knows_the_elements_of_a_foundation_without_importing_it(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)  # other tests of this process may have imported it
    done = check(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ensemble: 2 members by sevennet" in done.stdout
    assert "torch" not in sys.modules
    done = check(tmp_path, type_map=["Cu", "Po"])
    assert done.returncode == 2
    assert "7net-0 does not know Po - expected a foundation for all elements of type_map" in done.stderr


def test_lines_for_lammps_are_refused_for_ASE_drives_its_walks(tmp_path):
    stage = {"name": "own", "ensemble": "custom", "temperatures_K": [300], "n_steps": 20, "lammps": "fix md all nve"}
    done = check(tmp_path, explore__stages=[stage])
    assert done.returncode == 2
    assert "explore.stages.0.lammps: lines for LAMMPS - expected none" in done.stderr


def test_an_interpreter_without_sevenn_or_with_an_old_one_is_refused(tmp_path):
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "pyvenv.cfg").write_text("include-system-site-packages = false\n")
    python = tmp_path / "bin" / "python"
    python.symlink_to(sys.executable)
    machine = Machine(python=os.fspath(python))
    (line,) = TRAINER.problems(settings(), machine)
    assert "has no sevenn - needed for train.trainer: sevennet - pip install 'sevenn>=0.11'" in line
    (site / "sevenn").mkdir()
    info = site / "sevenn-0.9.4.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sevenn\nVersion: 0.9.4\n")
    (line,) = TRAINER.problems(settings(), machine)
    assert "has sevenn 0.9.4 - expected 0.11 or later" in line
    info.rename(site / "sevenn-0.13.0.dist-info")
    (site / "sevenn-0.13.0.dist-info" / "METADATA").write_text("Name: sevenn\nVersion: 0.13.0\n")
    (line,) = TRAINER.problems(settings(), machine)
    assert "7net-0 is not in the sevenn of" in line
    assert TRAINER.problems(settings(), Machine()) == []


class Harmful:
    """A pickle that would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_in_a_checkpoint_is_run_to_know_its_elements(tmp_path):
    config = {"chemical_species": ["Cu"], "cutoff": 4.0, "shift": Harmful(os.fspath(tmp_path / "harm"))}
    for name, content in (("one", {"config": config}), ("two", Harmful(os.fspath(tmp_path / "harm")))):
        with zipfile.ZipFile(tmp_path / f"{name}.pth", "w") as archive:
            archive.writestr("checkpoint/data.pkl", pickle.dumps(content))
    found = foundations.read(tmp_path / "one.pth")
    assert (found.elements, found.cutoff_A, found.kinds) == ({"Cu"}, 4.0, ())
    assert foundations.read(tmp_path / "two.pth") is None
    assert foundations.read(tmp_path / "none.pth") is None
    assert not (tmp_path / "harm").exists()
    assert TRAINER.shells(settings(foundation=os.fspath(tmp_path / "one.pth")))[0].rcut == 4.0


def left_by_a_kill(folder, steps):
    folder.mkdir()
    for step in steps:
        with zipfile.ZipFile(folder / f"checkpoint-{step}.pth", "w") as archive:
            archive.writestr("a/data.pkl", f"{step}" * 1000)
    rows = "".join(f"{step} 0.1 0.1 0.1 0.1\n" for step in range(1, max(steps) + 3))
    (folder / "lcurve.out").write_text(f"# step rmse_f_trn rmse_e_trn rmse_s_trn lr\n{rows}")
    (folder / "notes.json").write_text("{}")
    return folder


def test_a_killed_training_goes_on_from_the_newest_whole_checkpoint(tmp_path, caplog):
    one, two = left_by_a_kill(tmp_path / "one", [5]), left_by_a_kill(tmp_path / "two", [5, 10, 15])
    damaged = two / "checkpoint-15.pth"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    flipped = bytearray((two / "checkpoint-10.pth").read_bytes())
    flipped[100] ^= 1
    (tmp_path / "new").mkdir()
    assert training.take_over([one, two], tmp_path / "new") == "checkpoint-10.pth"
    assert "checkpoint-15.pth is corrupt and skipped" in caplog.text
    rows = (tmp_path / "new" / "lcurve.out").read_text().splitlines()
    assert [row.split()[0] for row in rows[1:]] == [str(step) for step in range(1, 11)]
    (two / "checkpoint-10.pth").write_bytes(flipped)
    (tmp_path / "newer").mkdir()
    assert training.take_over([one, two], tmp_path / "newer") == "checkpoint-5.pth"
    (tmp_path / "none").mkdir()
    assert training.take_over([], tmp_path / "none") is None


# --- trained for real -------------------------------------------------------------------------------------------------


class Tried(Bench):
    """EMT, whose energies are 4 eV an atom from those of the foundation."""

    def trained(self, run=RUN, data=None, place=None, **more):
        return super().trained(run, data, place, **more)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    process.allow_engines()
    yield Tried(tmp_path_factory.mktemp("sevennet"), TRAINER, settings)
    end_sessions()


@pytest.fixture(scope="module")
def trained(bench):
    return bench.trained()


def labelled_by(name, slot, **more):
    """Frames of a sheared cell, whose six stresses differ, labelled by a SevenNet as campaigns do it."""
    rng = np.random.default_rng(5)
    images = []
    for _ in range(2):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell[:] @ (np.eye(3) + rng.uniform(-0.08, 0.08, (3, 3))), scale_atoms=True)
        atoms.positions += rng.uniform(-0.15, 0.15, (4, 3))
        images.append(atoms)
    bare = Frames.from_ase(images)
    arguments = {"model": name, "device": "cpu", **more}
    calculator = {"calculator": "sevenn.calculator:SevenNetCalculator", "arguments": arguments, "package": "sevenn"}
    by = Label.model_validate(
        {"reference": {**calculator, "functional": "PBE", "includes_dispersion": False}}
    ).reference
    labels = [reference.label(by, bare[k], slot) for k in range(2)]
    return bare.with_labels(
        *(np.array([getattr(one, key) for one in labels]) for key in ("energy", "forces", "virial"))
    )


@pytest.mark.engines
@pytest.mark.timeout(300)
class TestTraining:
    def test_energies_of_another_reference_are_met_and_forces_are_learnt(self, bench, trained):
        assert trained.columns == ["step", "rmse_f_trn", "rmse_e_trn", "rmse_s_trn", "lr"]
        assert trained.curve[:, 0].tolist() == [1, 2, 3, 4, 5, 6]
        assert trained.curve[0, -1] == pytest.approx(1e-3)
        assert trained.curve[-1, -1] == pytest.approx(1e-4 * 10 ** (1 / 6), rel=1e-3)
        assert 3.0 < trained.notes["shift_eV"]["Cu"] < 5.0
        found = bench.evaluated(trained.model)
        assert np.abs(found.energy - bench.truth.energy).max() / 4 < 0.1
        before = bench.evaluated(bench.trained(learning_rate=STILL).model)
        error, error_before = (np.sqrt(np.mean((f.forces - bench.truth.forces) ** 2)) for f in (found, before))
        assert error < 0.97 * error_before

    @pytest.mark.slow
    def test_with_shift_keep_energies_stay_those_of_the_foundation(self, bench):
        trained = bench.trained(shift="keep", learning_rate=STILL)
        assert trained.notes == {}
        off = (bench.evaluated(trained.model).energy - bench.truth.energy) / 4
        assert off.max() < -3.0

    @pytest.mark.slow
    def test_the_same_seeds_give_the_same_bytes_and_others_another_order(self, bench, trained):
        again, other = bench.trained(), bench.trained(replace(RUN, random_seeds=(1, 2, 4)))
        assert again.model.read_bytes() == trained.model.read_bytes()
        first, second = bench.evaluated(trained.model), bench.evaluated(other.model)
        assert np.abs(first.forces - second.forces).max() > 1e-3

    @pytest.mark.slow
    def test_a_training_that_goes_on_from_a_checkpoint_makes_the_same_model(self, bench):
        run, data = replace(RUN, n_steps=12, checkpoints=True), bench.data()
        whole = bench.trained(run, data)
        left = bench.place()
        shutil.copytree(whole.model.parent, left, dirs_exist_ok=True)
        (left / "checkpoint-10.pth").unlink()
        place = bench.place()
        restart = TRAINER.take_over([left], place, settings(), run, bench.slot)
        assert restart == "checkpoint-5.pth"
        resumed = bench.trained(replace(run, restart=restart), data, place)
        assert resumed.resumed_from == (5,)
        assert resumed.notes == whole.notes
        assert (resumed.curve == whole.curve).all()
        assert (bench.evaluated(resumed.model).forces == bench.evaluated(whole.model).forces).all()

    def test_labels_of_the_foundation_itself_are_met_before_the_first_step(self, bench):
        """Energy, force, and a stress of six different numbers: signs, units and order are those of sevenn."""
        own = labelled_by("7net-0", bench.slot)
        stress = np.abs(own.virial[:, [0, 1, 2, 0, 1, 2], [0, 1, 2, 1, 2, 0]] / own.volume[:, None])
        assert np.diff(np.sort(stress, axis=1)).min() > 1e-4
        data = bench.data([own])
        trained = bench.trained(replace(RUN, n_steps=1), data, learning_rate=STILL)
        _, force, energy, kbar, _ = trained.curve[0]
        assert force < 1e-5
        assert energy < 1e-5
        assert kbar < 0.01
        assert abs(trained.notes["shift_eV"]["Cu"]) < 1e-5
        wrong = own.with_labels(own.energy, own.forces, -own.virial)
        _, _, _, kbar, _ = bench.trained(replace(RUN, n_steps=1), bench.data([wrong]), learning_rate=STILL).curve[0]
        assert kbar > 10.0

    @pytest.mark.slow
    def test_its_virial_is_minus_the_slope_of_the_energy_with_strain(self, bench, trained):
        frame, h = bench.truth[0], 2e-3
        virial = bench.evaluated(trained.model, frame).virial[0]
        for a, b in ((0, 0), (1, 1), (0, 1), (1, 2), (2, 0)):
            strains = np.zeros((2, 3, 3))
            strains[:, a, b] += np.array([-h, h]) / 2
            strains[:, b, a] += np.array([-h, h]) / 2
            deformed = np.eye(3) + strains
            frames = Frames(frame.symbols, frame.cell @ deformed, frame.positions @ deformed)
            low, high = bench.evaluated(trained.model, frames).energy
            assert virial[a, b] == pytest.approx(-(high - low) / (2 * h), abs=0.02)

    @pytest.mark.slow
    def test_frames_without_a_virial_are_learnt_from_the_rest(self, bench):
        bare = bench.truth[:2].with_labels(bench.truth.energy[:2], bench.truth.forces[:2], None)
        trained = bench.trained(replace(RUN, n_steps=2), bench.data([bare, bench.truth[2:]]))
        assert np.isfinite(trained.curve[:, :3]).all()

    def test_a_learning_rate_that_is_far_too_high_is_told_from_a_training(self, bench):
        assert bench.trained(replace(RUN, n_steps=20), learning_rate={"start": 10.0, "stop": 10.0}) is None

    @pytest.mark.slow
    def test_noise_on_the_weights_sets_members_apart_before_the_first_step(self, bench):
        one, two = (
            bench.trained(replace(RUN, n_steps=1, random_seeds=(0, 0, seed)), learning_rate=STILL, weight_noise=0.02)
            for seed in (1, 2)
        )
        apart = np.abs(bench.evaluated(one.model).forces - bench.evaluated(two.model).forces).max()
        assert 0.01 < apart < 1.0

    @pytest.mark.slow
    def test_a_warm_start_goes_on_from_the_member(self, bench, trained):
        warm = bench.trained(replace(RUN, n_steps=1, start_from=trained.model), learning_rate=STILL)
        same = np.abs(bench.evaluated(warm.model).forces - bench.evaluated(trained.model).forces).max()
        assert same < 1e-5
        assert TRAINER.same_networks(settings(), settings(batch_size=3))
        assert not TRAINER.same_networks(settings(), settings(foundation="7net-l3i5"))


@pytest.mark.engines
@pytest.mark.timeout(300)
class TestModels:
    def test_batches_and_ensembles_predict_what_the_calculator_does(self, bench, trained):
        start = foundations.path_of("7net-0")
        warm = replace(RUN, n_steps=1, start_from=start)
        other = bench.trained(warm)
        parts = [rattled_copper(3).without_labels(), rattled_copper(1, repeat=(2, 1, 1)).without_labels()]
        models = [trained.model, other.model]
        both = TRAINER.worker.evaluate(bench.place(), models, parts, bench.slot, most_atoms=8)
        by_default = TRAINER.evaluate_all(bench.place(), models, parts, bench.slot)
        for found, same in zip(both, by_default, strict=True):
            for part, other_batch in zip(found, same, strict=True):
                np.testing.assert_allclose(part.forces, other_batch.forces, atol=1e-5)
        by = Label.model_validate(
            {"reference": {**TRAINER.calculator(other.model), "functional": "PBE", "includes_dispersion": False}}
        ).reference
        for part, bare in zip(both[1], parts, strict=True):
            label = reference.label(by, bare[0], bench.slot)
            assert part.energy[0] == pytest.approx(label.energy, abs=1e-4)
            np.testing.assert_allclose(part.forces[0], label.forces, atol=1e-4)
            np.testing.assert_allclose(part.virial[0], label.virial, atol=1e-3)

    @pytest.mark.slow
    def test_a_model_of_several_modals_remembers_that_of_its_labels(self, bench):
        own = labelled_by("7net-mf-0", bench.slot, modal="R2SCAN")
        settled = {"foundation": "7net-mf-0", "modal": "R2SCAN", "learning_rate": STILL}
        trained = bench.trained(replace(RUN, n_steps=1), bench.data([own]), **settled)
        assert abs(trained.notes["shift_eV"]["Cu"]) < 1e-4
        assert trained.curve[0, 1] < 1e-4
        assert TRAINER.calculator(trained.model)["arguments"]["modal"] == "R2SCAN"
        members = [str(trained.model), "other.pth"]
        said = TRAINER.potential(members, ("1", "2"), ("Cu",), (0.1, 0.2))
        assert (said["ase"]["arguments"]["modal"], said["committee"]["models"]) == ("R2SCAN", ["other.pth"])
        found = bench.evaluated(trained.model, own)
        np.testing.assert_allclose(found.energy, own.energy, atol=1e-3)
        np.testing.assert_allclose(found.forces, own.forces, atol=1e-4)

    def test_versions_have_the_checksum_of_the_foundation_and_no_path(self, bench, tmp_path):
        copied = tmp_path / "mine.pth"
        shutil.copyfile(foundations.path_of("7net-0"), copied)
        found = TRAINER.versions(settings(foundation=os.fspath(copied)), bench.slot)
        assert found.keys() == {"sevenn", "torch", "e3nn", "foundation"}
        assert found["foundation"] == f"mine.pth sha256 {checksum(foundations.path_of('7net-0'))}"
